package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// The embedded filters are those that the profile gives today.
func TestGeneratedFilesAreFresh(t *testing.T) {
	for _, goarch := range goarches {
		t.Run(goarch, func(t *testing.T) {
			got, err := os.ReadFile(filepath.Join("../../../isolate", file(goarch)))
			if err != nil {
				t.Fatal(err)
			}
			want, err := generate(goarch)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.HasPrefix(got, []byte(head())) {
				t.Skipf("compiled with another libseccomp: %s", bytes.SplitN(got, []byte("\n"), 2)[0])
			}
			if diff := cmp.Diff(string(want), string(got)); diff != "" {
				t.Errorf("run go generate in seccomp (-want +got):\n%s", diff)
			}
		})
	}
}
