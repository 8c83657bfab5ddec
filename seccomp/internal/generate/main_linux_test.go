package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// The embedded filters are those that the profile gives today.
func TestGeneratedFilesAreFresh(t *testing.T) {
	for _, goarch := range goarches {
		for name := range filters {
			fresh(t, name, goarch)
		}
	}
}

func fresh(t *testing.T, name, goarch string) {
	t.Run(name+"-"+goarch, func(t *testing.T) {
		got, err := os.ReadFile(filepath.Join("../../../isolate", file(name, goarch)))
		if err != nil {
			t.Fatal(err)
		}
		want, err := generate(name, goarch)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.HasPrefix(got, []byte(head())) {
			first, _, _ := strings.Cut(string(got), ";")
			t.Skipf("host lacks: libseccomp %s, which made the embedded files", first[strings.LastIndex(first, " ")+1:])
		}
		if diff := cmp.Diff(string(want), string(got)); diff != "" {
			t.Errorf("run go generate in seccomp (-want +got):\n%s", diff)
		}
	})
}

// The table of calls and its documentation are what groups.txt gives, and each call is in one group.
func TestGeneratedCallsAreFresh(t *testing.T) {
	for name := range callFiles {
		want, err := generateCalls("../..", name)
		if err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(filepath.Join("../..", name))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), string(got)); diff != "" {
			t.Errorf("run go generate in seccomp: %s (-want +got):\n%s", name, diff)
		}
	}
}

// What is in no group, in two, or no call is an error.
func TestCheckGroups(t *testing.T) {
	numbers := map[string][4]int{"read": {}, "write": {}}
	for _, c := range []struct {
		groups []group
		want   string
	}{
		{[]group{{name: "a", calls: []string{"read"}}, {name: "b", calls: []string{"write"}}}, ""},
		{[]group{{name: "a", calls: []string{"read"}}}, "groups.txt: write is in no group"},
		{[]group{{name: "a", calls: []string{"read", "write", "raed"}}}, "groups.txt: @a has raed, which is no call"},
		{[]group{{name: "a", calls: []string{"read", "write"}}, {name: "b", calls: []string{"read"}}}, "groups.txt: read is in @a and in @b"},
	} {
		got := ""
		if err := checkGroups(c.groups, numbers); err != nil {
			got = err.Error()
		}
		if got != c.want {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
}
