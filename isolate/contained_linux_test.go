//go:build amd64 || arm64

package isolate

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestExplainFile: what a File rule's fd gives is for the run alone. Explain does not wait for it.
func TestExplainFile(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	s := NewSpec(Namespaced, "/bin/true")
	s.Process.Cwd = "/"
	s.View = append(s.View, Rule{Kind: File, Path: "/file", FD: int(r.Fd())})
	if _, err := Explain(s); err != nil {
		t.Fatal(err)
	}
}

// TestExplainNamespaces: all are named, whenever they are made. On cgroup v1 that of the cgroups is made late.
func TestExplainNamespaces(t *testing.T) {
	for _, level := range levelsHere() {
		if level < Namespaced {
			continue
		}
		s := NewSpec(level, "/bin/true")
		s.Process.Cwd = "/"
		e, err := Explain(s)
		if err != nil {
			t.Fatal(err)
		}
		i := slices.IndexFunc(e.Borders, func(line string) bool { return strings.HasPrefix(line, "namespaces: ") })
		if i < 0 {
			t.Fatalf("%s: no line about namespaces in %q", level, e.Borders)
		}
		got := strings.Split(strings.TrimPrefix(e.Borders[i], "namespaces: "), ", ")
		for _, want := range []string{"mount", "pid", "ipc", "uts", "cgroup", "net"} {
			if n := slices.Index(got, want); n < 0 || slices.Contains(got[n+1:], want) {
				t.Errorf("%s: %q once in %q", level, want, got)
			}
		}
	}
}

// TestBothContained: what level contained has beyond a cgroup, an ordinary user gets as well.
func TestBothContained(t *testing.T) {
	binary := testBinary(t)
	for _, uid := range users() {
		out, err := helper(binary, "contained", uid).CombinedOutput()
		if err != nil {
			t.Fatalf("as %d: %v\n%s", uid, err, out)
		}
		lines := strings.Split(strings.TrimSpace(string(out)), "\n")
		want := []string{"keys 1:3", "no namespace", "read-only", "CapBnd: 0000000000000000", "filters: 2"}
		if !slices.Equal(lines, want) {
			t.Errorf("as %d: %q, want %q", uid, lines, want)
		}
	}
}

func init() {
	helpers["contained"] = func() {
		c := shell(context.Background(), Contained, `
			[ ! -e /proc/keys ] || echo "keys $(stat -c %t:%T /proc/keys)"
			unshare --user true 2>/dev/null || echo "no namespace"
			(echo x >/proc/sys/kernel/domainname) 2>/dev/null || echo read-only
			grep CapBnd /proc/self/status | tr '\t' ' '
			grep Seccomp_filters /proc/self/status | tr -d '\t' | sed 's/Seccomp_filters:/filters: /'`)
		s := c.Spec()
		s.Cgroup = false // where it may be made is another matter
		s.Promised = slices.DeleteFunc(s.Promised, func(g Guarantee) bool { return g == OwnCgroup })
		out, err := c.Output()
		must(err)
		fmt.Print(string(out))
	}
}

// TestLookIn: what a path names where a folder is the root, links and all.
func TestLookIn(t *testing.T) {
	root := t.TempDir()
	must(os.MkdirAll(root+"/var/lib", 0o755))
	must(os.Mkdir(root+"/run", 0o755))
	must(os.WriteFile(root+"/file", nil, 0o644))
	for link, to := range map[string]string{
		"/var/run": "/run", "/up": "../../../../run", "/dangling": "/absent/x", "/loop": "loop", "/magic": "/proc/self/cwd", "/chain": "/var/run",
	} {
		must(os.Symlink(to, root+link))
	}
	for path, want := range map[string]string{
		"/": "/ folder", "/file": "/file", "/run": "/run folder", "/var/run": "/run folder", "/chain": "/run folder", "/up": "/run folder",
		"/var/run/new/er": "/run/new/er missing", "/absent": "/absent missing", "/var/lib/../run": "/run folder",
		"/file/x": "not a directory", "/dangling": "symbolic link to nothing", "/loop": "too many levels of symbolic links",
		"/magic": "symbolic link to nothing", "/magic/x": "symbolic link to nothing",
	} {
		h := &Host{Rootfs: map[string]InRoot{}, live: true}
		f := h.LookIn(root, path)
		got := f.Path
		if f.Missing {
			got += " missing"
		}
		if f.isDir() {
			got += " folder"
		}
		if f.Err != nil {
			got = f.Err.Error()
		}
		if got != want && (f.Err == nil || !strings.Contains(got, want)) {
			t.Errorf("%s: got %q, want %q", path, got, want)
		}
	}
	h := &Host{Rootfs: map[string]InRoot{}, live: true}
	if f := h.LookIn(root+"/file", "/x"); f.Err == nil || !strings.Contains(f.Err.Error(), unix.ENOTDIR.Error()) {
		t.Errorf("a root that is no folder: %+v", f)
	}
}

// TestLookInBesideRenames: openat2(2) refuses ".." while anything is renamed. What others do is no reason to fail.
func TestLookInBesideRenames(t *testing.T) {
	root, other := t.TempDir(), t.TempDir()
	must(os.Mkdir(root+"/run", 0o755))
	must(os.Symlink("../../run", root+"/up"))
	must(os.Mkdir(other+"/a", 0o755))
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			default:
				must(os.Rename(other+"/a", other+"/b"))
				must(os.Rename(other+"/b", other+"/a"))
			}
		}
	}()
	for range 20000 {
		if f := lookIn(root, "/up"); f.Err != nil {
			t.Error(f.Err)
			break
		}
	}
	close(stop)
	<-done
}
