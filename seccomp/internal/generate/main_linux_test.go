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
