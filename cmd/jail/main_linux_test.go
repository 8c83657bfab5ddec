package main

import (
	"bytes"
	"errors"
	goflag "flag"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"jail": main})
}

// TestScripts runs testdata/*.txtar with the real command, as who runs the tests.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:         "testdata",
		WorkdirRoot: openFolder(t),
		Setup:       setUp,
		Deadline:    time.Now().Add(3 * time.Minute), // a hang is a failure with a name
		Condition:   condition,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"code":      code,
			"complaint": complaint,
			"schema":    schema,
			"each":      each,
		},
	})
}

// ordinary is an ordinary user's uid, as it is on no host that we know of.
const ordinary = 65533

// TestScriptsAsUser runs the scripts again as an ordinary user.
func TestScriptsAsUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("host lacks: root (to become another user)")
	}
	// go test keeps its binary where others may not look.
	dir := openFolder(t)
	binary := filepath.Join(dir, "jail.test")
	copyFile(t, os.Args[0], binary)
	if err := os.CopyFS(filepath.Join(dir, "testdata"), os.DirFS("testdata")); err != nil {
		t.Fatal(err)
	}
	home := filepath.Join(dir, "home")
	if err := errors.Join(os.Mkdir(home, 0o700), os.Chown(home, ordinary, ordinary)); err != nil {
		t.Fatal(err)
	}
	args := []string{"-test.run=^TestScripts$"}
	if testing.Verbose() {
		args = append(args, "-test.v")
	}
	if run := goflag.Lookup("test.run").Value.String(); strings.Contains(run, "/") {
		_, script, _ := strings.Cut(run, "/")
		args[0] = "-test.run=^TestScripts$/" + script
	}
	cmd := exec.Command(binary, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "HOME="+home, "TMPDIR="+home, "USER=ordinary")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: ordinary, Gid: ordinary}}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	} else if testing.Verbose() {
		t.Logf("%s", out)
	}
}

// openFolder is a temporary folder that every user may enter.
func openFolder(t *testing.T) string {
	dir, err := os.MkdirTemp("", "jail-command-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

func copyFile(t *testing.T, from, to string) {
	b, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, b, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// setUp gives a script a home that is not the folder it works in, which would not be shown, and a PATH without the
// folders of who runs the tests.
func setUp(env *testscript.Env) error {
	home := env.WorkDir + "-home"
	env.Setenv("HOME", home)
	bin, _, _ := strings.Cut(env.Getenv("PATH"), ":") // where testscript has put the command
	env.Setenv("PATH", bin+":/usr/local/bin:/usr/bin:/bin")
	env.Setenv("LANG", "C.UTF-8")
	env.Setenv("CALLER", strconv.Itoa(os.Geteuid()))
	env.Setenv("GORACE", "atexit_sleep_ms=0") // under the race detector each end would take a second
	return errors.Join(os.Mkdir(home, 0o755), os.Chmod(env.WorkDir, 0o755))
}

func condition(cond string) (bool, error) {
	if cond == "user" {
		return os.Geteuid() != 0, nil
	}
	return false, errors.New("unknown condition")
}

// code N COMMAND… runs a command that has to exit with N.
func code(ts *testscript.TestScript, neg bool, args []string) {
	want, err := strconv.Atoi(args[0])
	if err != nil || neg {
		ts.Fatalf("usage: code N COMMAND [ARGUMENT …]")
	}
	err = ts.Exec(args[1], args[2:]...)
	got := 0
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		got = exit.ExitCode()
	case err != nil:
		ts.Fatalf("%v", err)
	}
	if got != want {
		ts.Fatalf("%q: exit code %d, want %d", args[1:], got, want)
	}
}

// complaint checks that the last command said one line, at most one hint, and nothing else; and that no byte of it can
// do something to a terminal.
func complaint(ts *testscript.TestScript, neg bool, args []string) {
	if out := ts.ReadFile("stdout"); out != "" {
		ts.Fatalf("standard output: %q", out)
	}
	lines := strings.SplitAfter(ts.ReadFile("stderr"), "\n")
	if last := len(lines) - 1; lines[last] != "" {
		ts.Fatalf("the last line has no end: %q", lines)
	} else {
		lines = lines[:last]
	}
	if len(lines) < 1 || len(lines) > 2 || !strings.HasPrefix(lines[0], "jail: ") ||
		len(lines) == 2 && !strings.HasPrefix(lines[1], "hint: ") {
		ts.Fatalf("want one line, and perhaps a hint; got %q", lines)
	}
	for _, l := range lines {
		if l = strings.TrimSuffix(l, "\n"); printable(l) != l {
			ts.Fatalf("not printable: %q", l)
		}
	}
}

// each COMMAND… runs a command at each level, with the level for the word LEVEL in it; all have to succeed.
func each(ts *testscript.TestScript, neg bool, args []string) {
	if neg {
		ts.Fatalf("unsupported: ! each")
	}
	for _, level := range []string{"basic", "user", "namespaced"} {
		words := slices.Clone(args)
		for i := range words {
			words[i] = strings.ReplaceAll(words[i], "LEVEL", level)
		}
		if err := ts.Exec(words[0], words[1:]...); err != nil {
			ts.Fatalf("%q: %v", words, err)
		}
	}
}

// schema FILE checks that the last line of a file is a Result that result.schema.json allows.
func schema(ts *testscript.TestScript, neg bool, args []string) {
	lines := bytes.Split(bytes.TrimSpace([]byte(ts.ReadFile(args[0]))), []byte("\n"))
	if err := validate(lines[len(lines)-1]); (err != nil) != neg {
		ts.Fatalf("%s: %v", args[0], err)
	}
}

// What this process has opened for itself is not the caller's, whatever its number.
func TestInherited(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	fd := int(r.Fd())
	if err := inherited(fd, anyAccess); err == nil {
		t.Error("an fd that is closed at an exec was taken")
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFD, 0); err != nil {
		t.Fatal(err)
	}
	for need, want := range map[access]bool{anyAccess: true, reading: true, writing: false} {
		if err := inherited(fd, need); (err == nil) != want {
			t.Errorf("access %d: %v", need, err)
		}
	}
}
