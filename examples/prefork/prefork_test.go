//go:build linux && cgo && (amd64 || arm64)

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

func TestPrefork(t *testing.T) {
	worker := filepath.Join(t.TempDir(), "worker")
	build := exec.Command("go", "build", "-o", worker, "./worker")
	build.Env = append(os.Environ(), "CGO_ENABLED=0") // static: there is no libc in the jail
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	tasks := make([]uint32, 200)
	for i := range tasks {
		tasks[i] = 100000
	}
	answers, err := run(t.Context(), worker, tasks)
	if err != nil {
		t.Fatal(err)
	}
	by := map[uint32]int{}
	for _, a := range answers {
		if a.Primes != 9592 {
			t.Errorf("%+v", a)
		}
		by[a.Worker]++
	}
	if len(answers) != len(tasks) {
		t.Errorf("%d answers to %d tasks", len(answers), len(tasks))
	}
	t.Logf("answers by worker: %v", by)
	// Workers that end are reported, not waited for.
	if _, err := run(t.Context(), "/bin/false", []uint32{10}); err == nil {
		t.Error("workers that do not work")
	}
}
