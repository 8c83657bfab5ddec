//go:build amd64 || arm64

package isolate

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestParseGlob(t *testing.T) {
	for _, c := range []struct {
		pattern, path string
		want          bool
	}{
		{"/a/*.key", "/a/x.key", true},
		{"/a/*.key", "/a/.key", true},
		{"/a/*.key", "/a/b/x.key", false},
		{"/a/*", "/a", false},
		{"/a/**/x", "/a/x", true},
		{"/a/**/x", "/a/b/c/x", true},
		{"/a/**/x", "/a/b/c/y", false},
		{"/a/[bc]/x", "/a/c/x", true},
		{"/a/[!b]/x", "/a/c/x", false}, // path.Match writes [^b]
		{"/a/b", "/a/b/c", false},
	} {
		if got := MatchGlob(c.pattern, c.path); got != c.want {
			t.Errorf("MatchGlob(%q, %q) = %t", c.pattern, c.path, got)
		}
	}
	for _, c := range []struct {
		pattern, dir string
		want         bool
	}{
		{"/a/*.key", "/a", true},
		{"/a/*.key", "/a/b", false},
		{"/*/x", "/a", true},
		{"/*/x", "/a/x", false}, // that is a match, not something in it
		{"/a/**/x", "/a/b/c", true},
		{"/a/**/x", "/b", false},
		{"/b/*", "/", true},
	} {
		if got := reachesInto(c.pattern, c.dir); got != c.want {
			t.Errorf("reachesInto(%q, %q) = %t", c.pattern, c.dir, got)
		}
	}
	for _, bad := range []string{"/a/[b", "/a/**", "/a/**/b/**/c", "/a/b**"} {
		if CheckGlob(bad) == nil {
			t.Errorf("%q is taken", bad)
		}
	}
	if err := CheckGlob("/a/**/[b-d]*.?"); err != nil {
		t.Error(err)
	}
}

// TestGlobFinds: links are not followed, and nothing holds it up.
func TestGlobFinds(t *testing.T) {
	dir := ownFolder(t, os.Geteuid())
	for _, d := range []string{"a/deep/er", "b", "outside/er"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range []string{"a/x.key", "a/deep/er/x.key", "b/x.key", "b/y", "outside/er/x.key"} {
		if err := os.WriteFile(filepath.Join(dir, f), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("../outside", filepath.Join(dir, "a/link")); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(filepath.Join(dir, "fifo"), 0o644); err != nil {
		t.Fatal(err)
	}
	for pattern, want := range map[string]string{
		"*/*.key":        "a/x.key b/x.key",
		"a/**/x.key":     "a/deep/er/x.key a/x.key",
		"**/er/x.key":    "a/deep/er/x.key outside/er/x.key",
		"a/l*/er/x.key":  "",
		"fifo/*":         "",
		"b/[xz].key":     "b/x.key",
		"a/link/e*/*":    "a/link/er/x.key", // named, not found
		"*/absent":       "",
		"**/no/such/one": "",
	} {
		found, err := glob(filepath.Join(dir, pattern))
		if err != nil {
			t.Errorf("%s: %v", pattern, err)
		}
		for i := range found {
			found[i], _ = filepath.Rel(dir, found[i])
		}
		if got := strings.Join(found, " "); got != want {
			t.Errorf("%s: found %q, want %q", pattern, got, want)
		}
	}
}

// project is a folder with a secret, keys and hooks, and a command in a jail that may write to it.
func project(t *testing.T, script string, rules ...Rule) (dir string, cmd *Cmd) {
	t.Helper()
	dir = ownFolder(t, os.Geteuid())
	if err := os.MkdirAll(filepath.Join(dir, "sub/hooks"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"a.key": "secret", "sub/b.key": "secret", "sub/hooks/hook": "old", "tool": "#!/bin/sh\necho ran\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	cmd = Command(context.Background(), Namespaced, "/bin/sh", "-c", script)
	cmd.Dir = dir
	for _, r := range rules {
		r.Path = filepath.Join(dir, r.Path)
		if r.hasSource() {
			r.Source = r.Path
		}
		cmd.Spec().View = append(cmd.Spec().View, r)
	}
	return dir, cmd
}

// TestNoExec: a rule with NoExec gives a file that can be read, and not executed; the rules around it are as they were.
func TestNoExec(t *testing.T) {
	_, cmd := project(t, "./tool; cat tool >/dev/null && cp tool sub/tool && sub/tool",
		Rule{Kind: ShowWrite, NoExec: true}, Rule{Kind: ShowWrite, Path: "sub"})
	out, err := cmd.CombinedOutput()
	if got := string(out); err != nil || !strings.Contains(got, "ermission denied") || !strings.HasSuffix(got, "ran\n") || strings.Count(got, "ran") != 1 {
		t.Errorf("%v: %q", err, got)
	}
}

// TestDenyGlob: what a pattern matches is closed, and what is made later is told.
func TestDenyGlob(t *testing.T) {
	dir, cmd := project(t, "cat a.key sub/b.key; echo new >sub/c.key; echo kept >tool",
		Rule{Kind: ShowWrite}, Rule{Kind: Deny, Path: "**/*.key", Glob: true, Report: true})
	out, err := cmd.CombinedOutput()
	if err != nil || strings.Contains(string(out), "secret") || strings.Count(string(out), "denied") != 2 {
		t.Errorf("%v: %q", err, out)
	}
	if got, want := cmd.Result().Appeared, []string{filepath.Join(dir, "sub/c.key")}; !slices.Equal(got, want) {
		t.Errorf("appeared: %q, want %q", got, want)
	}
}

// TestAppeared: paths of rules with Report that the payload has made, whatever it made, and no others.
func TestAppeared(t *testing.T) {
	dir, cmd := project(t, "mkdir -p new/hooks; ln -s nowhere link; echo >file; mkdir readable",
		Rule{Kind: ShowWrite}, Rule{Kind: Deny, Path: "new/hooks", Report: true}, Rule{Kind: Deny, Path: "link", Report: true},
		Rule{Kind: Deny, Path: "never", Report: true}, Rule{Kind: Deny, Path: "a.key", Report: true},
		Rule{Kind: Show, Path: "readable", Report: true}, Rule{Kind: Deny, Path: "file/in/it", Report: true})
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %q", err, out)
	}
	want := []string{filepath.Join(dir, "new/hooks"), filepath.Join(dir, "link"), filepath.Join(dir, "readable")}
	if got := cmd.Result().Appeared; !slices.Equal(got, want) {
		t.Errorf("appeared: %q, want %q", got, want)
	}
	// A file that stands in the way of one is held.
	dir, cmd = project(t, "rm tool || echo x >tool || mv tool x || rm -f tool; mkdir tool; mkdir tool/hooks; echo kept >sub/file",
		Rule{Kind: ShowWrite}, Rule{Kind: Show, Path: "tool/hooks", Report: true}, Rule{Kind: Show, Path: "**/k?y", Glob: true, Report: true})
	if out, err := cmd.CombinedOutput(); err != nil || len(cmd.Result().Appeared) != 0 {
		t.Errorf("%v: %q, appeared %q", err, out, cmd.Result().Appeared)
	}
	if text, err := os.ReadFile(filepath.Join(dir, "tool")); err != nil || !strings.HasSuffix(string(text), "echo ran\n") {
		t.Errorf("the file is %q, %v", text, err)
	}
	dir, cmd = project(t, "mkdir -p sub/new; echo >sub/new/key", Rule{Kind: ShowWrite}, Rule{Kind: Show, Path: "**/k?y", Glob: true, Report: true})
	if out, err := cmd.CombinedOutput(); err != nil || !slices.Equal(cmd.Result().Appeared, []string{filepath.Join(dir, "sub/new/key")}) {
		t.Errorf("%v: %q, appeared %q", err, out, cmd.Result().Appeared)
	}
	for _, name := range []string{"never", "file/in"} {
		if _, err := os.Lstat(filepath.Join(dir, name)); err == nil {
			t.Errorf("%s was made on the host", name)
		}
	}
}

// TestPinned: a protected path can't be put out of its place by a new name for a folder above it.
func TestPinned(t *testing.T) {
	for _, r := range []Rule{{Kind: Show, Path: "sub/hooks"}, {Kind: Deny, Path: "sub/hooks"}, {Kind: Deny, Path: "sub/hooks/hook"}} {
		dir, cmd := project(t, "mv sub other; mkdir -p sub/hooks; echo new >sub/hooks/hook; echo written >sub/file", Rule{Kind: ShowWrite}, r)
		out, err := cmd.CombinedOutput()
		if got, readErr := os.ReadFile(filepath.Join(dir, "sub/hooks/hook")); err != nil || string(got) != "old" {
			t.Errorf("%s %s: %v, %v: %q, and the hook is %q", r.Kind, r.Path, err, readErr, out, got)
		}
		if _, err := os.Stat(filepath.Join(dir, "sub/file")); err != nil {
			t.Errorf("%s %s: the folder around it is not writable: %v", r.Kind, r.Path, err)
		}
	}
}
