//go:build amd64 || arm64

package isolate

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// build runs the go tool.
func build(t *testing.T, env []string, args ...string) {
	t.Helper()
	cmd := exec.Command(needs(t, "go"), append([]string{"build", "-buildvcs=false"}, args...)...)
	cmd.Env = append(append(os.Environ(), "CGO_ENABLED=1"), env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

// runHost runs a built host program as each user.
func runHost(t *testing.T, path, kind string) {
	t.Helper()
	for _, uid := range users() {
		said := filepath.Join(ownFolder(t, uid), "said")
		cmd := exec.Command(path, kind, said)
		cmd.Env = []string{"PATH=" + testPath, "TMPDIR=" + os.TempDir()}
		cmd.WaitDelay = longest
		asUser(cmd, uid)
		timer := time.AfterFunc(30*time.Second, func() { _ = cmd.Process.Kill() })
		out, err := cmd.CombinedOutput()
		timer.Stop()
		b, _ := os.ReadFile(said)
		if err != nil || string(b) != "ok\n" {
			t.Errorf("%s, as %d: %v\n%s%s", kind, uid, err, out, b)
		}
	}
}

// TestBothHosts puts the library into programs of other kinds than a test binary.
func TestBothHosts(t *testing.T) {
	path := filepath.Join(ownFolder(t, os.Geteuid()), "plain")
	build(t, nil, "-o", path, "./testdata/hosts/plain")
	if out, err := exec.Command("ldd", path).CombinedOutput(); err != nil {
		t.Errorf("not dynamically linked: %s", out)
	}
	for _, kind := range []string{"plain", "closed", "reaps", "ignores"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			runHost(t, path, kind)
		})
	}
}

// TestBothArchive puts it into a C program.
func TestBothArchive(t *testing.T) {
	t.Parallel()
	gcc := needs(t, "gcc")
	dir := ownFolder(t, os.Geteuid())
	build(t, nil, "-buildmode=c-archive", "-o", filepath.Join(dir, "archive.a"), "./testdata/hosts/archive")
	path := filepath.Join(dir, "program")
	if out, err := exec.Command(gcc, "-o", path, "testdata/hosts/archive/main.c", filepath.Join(dir, "archive.a"), "-lpthread").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, uid := range users() {
		cmd := exec.Command(path)
		cmd.Env = []string{"PATH=" + testPath}
		asUser(cmd, uid)
		if out, err := cmd.CombinedOutput(); err != nil || string(out) != "ok\n" {
			t.Errorf("as %d: %v\n%s", uid, err, out)
		}
	}
}

// TestBothCompilers builds it with the flags and compilers of others, which must not get at jail-init.
func TestBothCompilers(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, program string
		env, args     []string
		long          bool // builds much of the standard library anew
	}{
		{name: "profiled", env: []string{"CGO_CFLAGS=-pg -O0 -fstack-protector-all"}},
		{name: "undefined", env: []string{"CGO_CFLAGS=-fsanitize=undefined -g", "CGO_LDFLAGS=-fsanitize=undefined"}, long: true},
		{name: "native", env: []string{"CGO_CFLAGS=-march=native -O3 -ffast-math -fPIE"}, long: true},
		{name: "covered", env: []string{"CGO_CFLAGS=--coverage", "CGO_LDFLAGS=--coverage"}, long: true},
		{name: "clang", program: "clang", env: []string{"CC=clang", "CGO_CFLAGS=-O2"}, long: true},
		{name: "pie", args: []string{"-buildmode=pie"}, long: true},
		{name: "race", args: []string{"-race"}, long: true},
		{name: "static", args: []string{"-tags", "osusergo,netgo", "-ldflags", "-linkmode external -extldflags -static"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.long && !sweeping {
				t.Skip("only in test-full: JAIL_SWEEP=1")
			}
			if c.program != "" {
				needs(t, c.program)
			}
			path := filepath.Join(ownFolder(t, os.Geteuid()), "plain")
			build(t, c.env, append(c.args, "-o", path, "./testdata/hosts/plain")...)
			runHost(t, path, "plain")
			runHost(t, path, "closed")
		})
	}
}
