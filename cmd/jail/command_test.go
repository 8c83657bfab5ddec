package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/jailrun/jail/isolate"
)

func TestHelpFitsAScreen(t *testing.T) {
	for _, topic := range append([]string{"", "limits", "rootfs", "syscalls"}, commands...) {
		lines := strings.Split(strings.TrimSuffix(helpText(topic), "\n"), "\n")
		if len(lines) > 40 || len(lines) < 3 {
			t.Errorf("help %q has %d lines", topic, len(lines))
		}
		for _, l := range lines {
			if n := utf8.RuneCountInString(l); n > 80 {
				t.Errorf("help %q: %d columns: %s", topic, n, l)
			}
		}
	}
}

func TestHelpNamesEveryFlag(t *testing.T) {
	text := helpText("run") + helpText("limits") + helpText("rootfs") + helpText("syscalls")
	for _, f := range runFlags {
		if f.name == "--help" {
			continue
		}
		for _, name := range []string{f.name, f.alias} {
			if name != "" && !slices.ContainsFunc(strings.FieldsFunc(text, func(r rune) bool { return strings.ContainsRune(" ,()=\n", r) }),
				func(word string) bool { return word == name }) {
				t.Errorf("help run does not name %s", name)
			}
		}
	}
}

// parsed is what a command line comes to.
type parsed struct {
	Rest  []string
	Rules []isolate.Rule
	Host  string
	Env   []string
	JSON  bool
}

func TestParseFlags(t *testing.T) {
	for _, c := range []struct {
		args []string
		want parsed
	}{
		{nil, parsed{}},
		{[]string{"true"}, parsed{Rest: []string{"true"}}},
		{[]string{"--", "--json"}, parsed{Rest: []string{"--json"}}},
		{[]string{"--", "--", "x"}, parsed{Rest: []string{"--", "x"}}},
		{[]string{"--json", "ls", "--json", "--", "-l"}, parsed{JSON: true, Rest: []string{"ls", "--json", "--", "-l"}}},
		{[]string{"-"}, parsed{Rest: []string{"-"}}},
		{[]string{""}, parsed{Rest: []string{""}}},
		{[]string{"--hostname", "a", "x"}, parsed{Host: "a", Rest: []string{"x"}}},
		{[]string{"--hostname=a=b", "x"}, parsed{Host: "a=b", Rest: []string{"x"}}},
		{[]string{"--hostname", "-x", "x"}, parsed{Host: "-x", Rest: []string{"x"}}},
		{[]string{"--hostname=--x", "x"}, parsed{Host: "--x", Rest: []string{"x"}}},
		{[]string{"--hostname=a", "--hostname=b"}, parsed{Host: "b"}},
		{[]string{"--env", "A=", "--env=B"}, parsed{Env: []string{"A=", "B"}}},
		{[]string{"--rw", "/a//b/:/c/", "x"}, parsed{
			Rules: []isolate.Rule{{Kind: isolate.ShowWrite, Source: "/a/b", Path: "/c"}}, Rest: []string{"x"},
		}},
		{[]string{"--ro-bind-try=/a", "--deny=/b", "--tmpfs=/c", "--tmpfs=/d:1M", "--tmpfs=/e:f:2K", "--symlink=../x:/y"}, parsed{
			Rules: []isolate.Rule{
				{Kind: isolate.Show, Source: "/a", Path: "/a", Optional: true},
				{Kind: isolate.Deny, Path: "/b"},
				{Kind: isolate.Tmpfs, Path: "/c"},
				{Kind: isolate.Tmpfs, Path: "/d", Size: 1 << 20},
				{Kind: isolate.Tmpfs, Path: "/e:f", Size: 2 << 10},
				{Kind: isolate.Symlink, Path: "/y", Source: "../x"},
			},
		}},
	} {
		o, err := readOptions(runFlags, c.args)
		if err != nil {
			t.Errorf("%q: %v", c.args, err)
			continue
		}
		got := parsed{Rest: o.command, Rules: o.rules, Host: o.hostname, Env: o.env, JSON: o.json}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%q: %s", c.args, diff)
		}
	}
}

// Whatever stands on the line, the payload's words are the last ones of it, unchanged (P68).
func FuzzParseFlags(f *testing.F) {
	for _, s := range []string{"--json\nls\n--json", "--\n--bind", "--bind=/a:/b\nx", "--tmpfs\n/x:1M", "--user\n0:0\nid", "--\n"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, line string) {
		args := strings.Split(line, "\n")
		if slices.ContainsFunc(args, func(s string) bool { return strings.HasPrefix(s, "--fd") || strings.HasPrefix(s, "--file") }) {
			return // they look at this process
		}
		o, err := readOptions(runFlags, args)
		if err != nil {
			if h := hint(err); strings.ContainsRune(printable(err.Error()+h), '\x1b') {
				t.Errorf("%q: %v", args, err)
			}
			return
		}
		n := len(args) - len(o.command)
		if n < 0 || !slices.Equal(args[n:], o.command) {
			t.Fatalf("%q: the payload is %q", args, o.command)
		}
		if n < len(args) && strings.HasPrefix(args[n], "--") && (n == 0 || args[n-1] != "--") {
			t.Errorf("%q: a flag was taken for the command", args)
		}
		for _, r := range o.rules {
			if !filepath.IsAbs(r.Path) || filepath.Clean(r.Path) != r.Path {
				t.Errorf("%q: rule %+v", args, r)
			}
		}
	})
}

// What a flag of the view takes prints back to the same rule, in both ways of writing it.
func FuzzRuleFlags(f *testing.F) {
	for i, s := range []string{"/a:/b", "/a", "/a:/b:/c", "a:", ":/b", "/x:1M", "/x:0", "../t:/l", "/a/../b", "/a::/b", "a:b", "/dir/:x"} {
		f.Add(i, s)
	}
	forms := []struct {
		flag  string
		print func(r isolate.Rule) string
	}{
		{"--bind", place},
		{"--ro", place},
		{"--bind-try", place},
		{"--ro-bind-try", place},
		{"--overlay", place},
		{"--device", place},
		{"--symlink", place},
		{"--tmpfs", func(r isolate.Rule) string {
			if r.Size == 0 {
				return r.Path
			}
			return fmt.Sprintf("%s:%d", r.Path, r.Size)
		}},
		{"--dir", func(r isolate.Rule) string { return r.Path }},
		{"--deny", func(r isolate.Rule) string { return r.Path }},
	}
	f.Fuzz(func(t *testing.T, i int, value string) {
		form := forms[uint(i)%uint(len(forms))]
		o, err := readOptions(runFlags, []string{form.flag + "=" + value})
		if err != nil {
			return
		}
		if len(o.rules) != 1 {
			t.Fatalf("%s %q: %+v", form.flag, value, o.rules)
		}
		r := o.rules[0]
		if !strings.HasPrefix(value, "--") {
			two, err := readOptions(runFlags, []string{form.flag, value})
			if err != nil || !slices.Equal(two.rules, o.rules) {
				t.Errorf("%s %q: in one word %+v, in two %+v, %v", form.flag, value, o.rules, two.rules, err)
			}
		}
		again, err := readOptions(runFlags, []string{form.flag + "=" + form.print(r)})
		if err != nil || !slices.Equal(again.rules, o.rules) {
			t.Errorf("%s %q is %q, and then %+v, %v", form.flag, value, form.print(r), again.rules, err)
		}
		if climbs(r.Path) || r.Kind != isolate.Symlink && climbs(r.Source) || r.Size < 0 {
			t.Errorf("%s %q: %+v", form.flag, value, r)
		}
	})
}

func place(r isolate.Rule) string { return r.Source + ":" + r.Path }

// What --env takes is in the payload's environment as it was given, and no name is there twice.
func FuzzEnv(f *testing.F) {
	for _, s := range []string{"A=1", "A", "A=", "=", "=x", "PATH", "HOME=\x00", "A=B=C"} {
		f.Add(s, false)
	}
	f.Fuzz(func(t *testing.T, value string, cleared bool) {
		args := []string{"--env=" + value, "--env=" + value}
		if cleared {
			args = append(args, "--clearenv")
		}
		o, err := readOptions(runFlags, args)
		if err != nil {
			if value != "" && value[0] != '=' {
				t.Errorf("%q: %v", value, err)
			}
			return
		}
		env := isolate.NewSpec(o.level, "true").Environ([]string{"PATH=/bin", "SECRET=x", "A=caller"}, o.envAll, o.clearEnv, o.env)
		seen := map[string]bool{}
		for _, kv := range env {
			name, _, ok := strings.Cut(kv, "=")
			if !ok || name == "" || seen[name] {
				t.Errorf("%q: %q", value, env)
			}
			seen[name] = true
		}
		name, _, given := strings.Cut(value, "=")
		if name == "" || given && !slices.Contains(env, value) || seen["SECRET"] && name != "SECRET" {
			t.Errorf("%q: %q", value, env)
		}
		if !given && seen[name] != slices.Contains([]string{"PATH", "SECRET", "A"}, name) {
			t.Errorf("%q: %q", value, env)
		}
	})
}

// Whatever a file begins with, what is said of it is one short line.
func FuzzInterpreter(f *testing.F) {
	for _, s := range []string{"#!/bin/sh\n", "#!", "#! \t\n", "#!\u00a0x", "\x7fELF", "#!\x1b[2J", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, head string) {
		if len(head) > 256 {
			return
		}
		said := interpreterOf(head)
		if named := strings.HasPrefix(head, "#!"); said != "its loader" && (!named || !strings.HasPrefix(said, "its interpreter ")) || said != printable(said) || len(said) > 2000 {
			t.Errorf("%q: %q", head, said)
		}
	})
}

func TestAbsolute(t *testing.T) {
	dir := t.TempDir()
	real, err := filepath.EvalSymlinks(dir)
	if err != nil {
		t.Fatal(err)
	}
	real = filepath.Join(real, "real")
	if err := os.MkdirAll(filepath.Join(real, "folder"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("real/folder", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	t.Chdir(filepath.Join(dir, "link")) // sets PWD, as a shell does
	for in, want := range map[string]string{
		"/":         "/",
		"/a//b/./c": "/a/b/c",
		"a":         filepath.Join(dir, "link", "a"),
		"./a/":      filepath.Join(dir, "link", "a"),
		"..":        real,
		"..//a":     filepath.Join(real, "a"),
		"../../a":   filepath.Join(filepath.Dir(real), "a"),
		"..a":       filepath.Join(dir, "link", "..a"),
	} {
		if got, err := absolute(in); err != nil || got != want {
			t.Errorf("absolute(%q) = %q, %v; want %q", in, got, err, want)
		}
	}
	for _, in := range []string{"/a/..", "/..", "a/../b", "../a/../b", "./.."} {
		if got, err := absolute(in); err == nil {
			t.Errorf("absolute(%q) = %q", in, got)
		}
	}
}

func TestDidYouMean(t *testing.T) {
	known := []string{"basic", "user", "namespaced"}
	for word, want := range map[string]string{
		"namespacd": "namespaced", "Basic": "basic", "usre": "user", "usr": "user", "namespace": "namespaced",
		"xyzzy": "", "": "", "user": "", strings.Repeat("user", 1<<20): "",
	} {
		if want != "" {
			want = "did you mean --level=" + want + "?"
		}
		if got := didYouMean(word, known, "--level=", ""); got != want {
			t.Errorf("didYouMean(%.20q) = %q, want %q", word, got, want)
		}
	}
}

func TestUnsupported(t *testing.T) {
	err := &isolate.UnsupportedError{
		Level: isolate.Namespaced, Highest: isolate.User,
		Step: &isolate.StepError{Op: "mount", Object: `"\x1b"`, Errno: syscall.EPERM},
	}
	if got := hint(err); !strings.Contains(got, "--level=user works here, and --allow-downgrade") {
		t.Errorf("hint %q", got)
	}
	got := describeLevel(isolate.LevelReport{Level: isolate.Namespaced, Err: err})
	if got.Works || got.Errno != int(syscall.EPERM) || got.Step != `mount "\x1b"` || got.Error == "" {
		t.Errorf("%+v", got)
	}
	if lines := got.lines(); len(lines) != 1 || lines[0] != `namespaced  does not work: mount "\x1b": operation not permitted` {
		t.Errorf("%q", lines)
	}
	missing := describeLevel(isolate.LevelReport{Level: isolate.User, Err: &isolate.UnsupportedError{Level: isolate.User, Missing: "Landlock"}})
	if lines := missing.lines(); len(lines) != 1 || lines[0] != "user        does not work: Landlock" {
		t.Errorf("%q", lines)
	}
	if got := describeLevel(isolate.LevelReport{Level: isolate.Basic}).lines(); len(got) != 1 || got[0] != "basic       works" {
		t.Errorf("%q", got)
	}
}

func TestSummary(t *testing.T) {
	r := &isolate.Result{
		Level: isolate.Namespaced, GivenLevel: isolate.User, Reason: isolate.Exited, WallMS: 2100,
		LostGuarantees: []isolate.Guarantee{isolate.PrivateMounts, isolate.PrivateNetwork},
	}
	want := []string{
		"exited 0 after 2.1 s at level user (asked for namespaced)",
		"lost by the downgrade: private-mounts, private-network",
	}
	if diff := cmp.Diff(want, summary(r, false)); diff != "" {
		t.Error(diff)
	}
	if got := summary(r, true); len(got) != 3 {
		t.Errorf("%q", got)
	}
}

func TestPrintable(t *testing.T) {
	for in, want := range map[string]string{
		"":                            "",
		"plain – text …":              "plain – text …",
		"\x1b]0;x\x07":                `\x1b]0;x\a`,
		"a\nb\r\tc\x7f":               `a\nb\r\tc\x7f`,
		"\u202ea\u2066b\u200fc\u009b": `\u202ea\u2066b\u200fc\u009b`,
		"\xff'":                       `\xff'`,
	} {
		if got := printable(in); got != want {
			t.Errorf("printable(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestBrief(t *testing.T) {
	if got := brief("short"); got != "short" {
		t.Errorf("%q", got)
	}
	got := brief("jail: " + strings.Repeat("ä", 100000) + ": file name too long")
	if len(got) > 2000 || !utf8.ValidString(got) || !strings.HasPrefix(got, "jail: ä") || !strings.HasSuffix(got, "ä: file name too long") {
		t.Errorf("%q", got)
	}
}

// Nothing gets past printable, whoever forgot to quote.
func TestComplain(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	stderr := os.Stderr
	os.Stderr = w
	code := fail(&usageError{problem: "a\x1b[2J", hint: "b\r\n"})
	os.Stderr = stderr
	w.Close()
	got, err := io.ReadAll(r)
	if err != nil || code != exitJail {
		t.Errorf("code %d, %v", code, err)
	}
	if want := "jail: a\\x1b[2J\nhint: b\\r\\n\n"; string(got) != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestShowing(t *testing.T) {
	t.Setenv("HOME", "/home/a")
	for program, want := range map[string]string{
		"/home/a/.pyenv/shims/python3":           "--ro-bind /home/a/.pyenv",
		"/home/a/.nvm/versions/node/v1/bin/node": "--ro-bind /home/a/.nvm/versions/node/v1",
		"/home/a/bin/tool":                       "--ro-bind /home/a/bin",
		"/bin/tool":                              "--ro-bind /bin",
		"/home/a/it's here/tool":                 `--ro-bind "/home/a/it's here"`,
	} {
		if got := showing(program); got != want {
			t.Errorf("showing(%q) = %s, want %s", program, got, want)
		}
	}
}
