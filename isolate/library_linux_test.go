//go:build amd64 || arm64

package isolate

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

// exitOf is how a run ended, in a word: "0", "7", "SIGTERM".
func exitOf(t testing.TB, err error) string {
	t.Helper()
	var exit *ExitError
	switch {
	case err == nil:
		return "0"
	case !errors.As(err, &exit):
		t.Fatalf("%T: %v", err, err)
	case exit.Reason == Signalled:
		return exit.Signal
	case exit.Reason != Exited:
		return string(exit.Reason)
	}
	return fmt.Sprint(exit.ExitCode)
}

// TestTheorem_2_3_1_RunIsStartThenWait compares Run with Start and Wait, over scripts with any exit code, signal, output and input.
func TestTheorem_2_3_1_RunIsStartThenWait(t *testing.T) {
	leavesNothing(t)
	rapid.Check(t, func(rt *rapid.T) {
		level := rapid.SampledFrom(levelsHere()).Draw(rt, "level")
		out := rapid.StringMatching(`[a-z]{0,9}`).Draw(rt, "out")
		input := rapid.StringMatching(`[a-z\n]{0,9}`).Draw(rt, "input")
		end := rapid.OneOf(rapid.Just("exit 0"), rapid.Custom(func(t *rapid.T) string {
			return fmt.Sprint("exit ", rapid.IntRange(0, 255).Draw(t, "code"))
		}), rapid.SampledFrom([]string{"kill -TERM $$", "kill -KILL $$", "kill -USR2 $$", "kill -40 $$", "no-such-program"})).Draw(rt, "end")
		run := func(start func(*Cmd) error) string {
			c := shell(context.Background(), level, `printf "$1"; printf "error $1" >&2; cat; `+end, out)
			var o, e bytes.Buffer
			c.Stdin, c.Stdout, c.Stderr = strings.NewReader(input), &o, &e
			err := start(c)
			if o.String() != out+input || !strings.HasPrefix(e.String(), "error "+out) {
				rt.Fatalf("said %q and %q", o.String(), e.String())
			}
			r := c.Result()
			if (err == nil) != r.Success() || r.GivenLevel != level || r.Level != level || len(r.LostGuarantees) != 0 || r.Error != "" || r.WallMS <= 0 {
				rt.Fatalf("%v, Result %+v", err, r)
			}
			return fmt.Sprint(exitOf(t, err), r.Reason, r.ExitCode, r.Signal, r.ShellCode())
		}
		one := run((*Cmd).Run)
		two := run(func(c *Cmd) error {
			if err := c.Start(); err != nil {
				return err
			}
			return c.Wait()
		})
		if one != two {
			rt.Fatalf("Run: %s, Start and Wait: %s", one, two)
		}
		if n := 0; strings.HasPrefix(end, "exit") {
			fmt.Sscanf(end, "exit %d", &n)
			if !strings.HasPrefix(one, fmt.Sprint(n)) {
				rt.Fatalf("%q gave %s", end, one)
			}
		}
	})
}

func TestOutput(t *testing.T) {
	atEachLevel(t, func(t *testing.T, level Level) {
		leavesNothing(t)
		out, err := shell(patience(t), level, "echo out; echo err >&2; exit 3").Output()
		var exit *ExitError
		if string(out) != "out\n" || !errors.As(err, &exit) || exit.ExitCode != 3 || string(exit.Stderr) != "err\n" {
			t.Errorf("%q, %v", out, err)
		}
		// The end of long errors is kept, not their beginning.
		_, err = shell(patience(t), level, "head -c 200000 /dev/zero | tr '\\0' x >&2; echo end >&2; exit 3").Output()
		if !errors.As(err, &exit) || len(exit.Stderr) > 128<<10 || !strings.HasSuffix(string(exit.Stderr), "xend\n") {
			t.Errorf("%d bytes of errors", len(exit.Stderr))
		}
		out, err = shell(patience(t), level, "echo out; echo err >&2; exit 3").CombinedOutput()
		if string(out) != "out\nerr\n" || exitOf(t, err) != "3" {
			t.Errorf("%q, %v", out, err)
		}
	})
}

func TestPipes(t *testing.T) {
	atEachLevel(t, func(t *testing.T, level Level) {
		leavesNothing(t)
		c := shell(patience(t), level, "read line; echo got $line; echo bad $line >&2; cat >/dev/null")
		in, err1 := c.StdinPipe()
		out, err2 := c.StdoutPipe()
		errs, err3 := c.StderrPipe()
		if err := errors.Join(err1, err2, err3); err != nil {
			t.Fatal(err)
		}
		for _, f := range []func() error{
			func() error { _, err := c.StdinPipe(); return err }, func() error { _, err := c.StdoutPipe(); return err },
			func() error { _, err := c.StderrPipe(); return err }, func() error { _, err := c.Output(); return err },
			func() error { _, err := c.CombinedOutput(); return err }, c.Wait,
		} {
			if f() == nil {
				t.Error("no error for what is set already, or not started")
			}
		}
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		if err := c.Start(); err == nil {
			t.Error("started twice")
		}
		fmt.Fprintln(in, "a line")
		one, two := make([]byte, 11), make([]byte, 11)
		if _, err := io.ReadFull(out, one); err != nil || string(one) != "got a line\n" {
			t.Errorf("%q, %v", one, err)
		}
		if _, err := io.ReadFull(errs, two); err != nil || string(two) != "bad a line\n" {
			t.Errorf("%q, %v", two, err)
		}
		if c.Result() != nil {
			t.Error("a Result before the end")
		}
		in.Close()
		if err := c.Wait(); err != nil {
			t.Error(err)
		}
		if err := c.Wait(); err == nil {
			t.Error("waited twice")
		}
		if err := c.Start(); err == nil {
			t.Error("started after the end")
		}
		if _, err := out.Read(one); err == nil {
			t.Error("the pipe is still open")
		}
	})
}

// TestExtraFiles passes files with holes between them: the payload has exactly those, and what jail-init opens for
// itself does not land in a hole and get lost there.
func TestExtraFiles(t *testing.T) {
	atEachLevel(t, func(t *testing.T, level Level) {
		leavesNothing(t)
		for _, holes := range []int{0, 1, 2, 5, 40} {
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			// A left-over in a session of its own shows that jail-init can still find and kill it.
			c := shell(patience(t), level, `ls /proc/self/fd | sort -n | tr '\n' ' '
				[ $1 -gt 9 ] || echo word >&$1
				setsid sleep 1000 </dev/null >/dev/null 2>&1 & sleep 0.05`, fmt.Sprint(3+holes))
			c.ExtraFiles = append(make([]*os.File, holes), w)
			start := time.Now()
			list, err := c.Output()
			w.Close()
			word, _ := io.ReadAll(r)
			// ls has one more, for the folder: the lowest that is free.
			want := map[bool]string{true: "0 1 2 3 4 ", false: fmt.Sprintf("0 1 2 3 %d ", 3+holes)}[holes == 0]
			if err != nil || string(list) != want || holes < 6 && string(word) != "word\n" {
				t.Errorf("%d holes: fds %q, want %q (%q, %v)", holes, list, want, word, err)
			}
			if took := time.Since(start); took > longest/2 {
				t.Errorf("%d holes: the end took %s", holes, took)
			}
		}
	})
}

// TestFilesOfCaller: what the caller has open, with close-on-exec or without, is not the payload's.
func TestFilesOfCaller(t *testing.T) {
	fd, err := unix.Open("/etc/passwd", unix.O_RDONLY, 0) // without O_CLOEXEC
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	atEachLevel(t, func(t *testing.T, level Level) {
		out, err := shell(patience(t), level, "ls /proc/self/fd | tr '\\n' ' '").Output()
		if err != nil || string(out) != "0 1 2 3 " {
			t.Errorf("%q, %v", out, err)
		}
	})
}

func TestDirAndEnv(t *testing.T) {
	t.Setenv("SECRET", "of the caller")
	t.Setenv("LC_ALL", "C")
	atEachLevel(t, func(t *testing.T, level Level) {
		c := Command(patience(t), level, "/bin/sh", "-c", "pwd; env | sort")
		c.Dir, c.Env = "/usr/lib", []string{"ONE=1", "TWO=a b", "TMPDIR=/x"}
		out, err := c.Output()
		if want := "/usr/lib\nONE=1\nPWD=/usr/lib\nTMPDIR=/x\nTWO=a b\n"; err != nil || string(out) != want {
			t.Errorf("%q, %v; want %q", out, err, want)
		}
		out, err = shell(patience(t), level, "env").Output()
		if err != nil || strings.Contains(string(out), "SECRET") || !strings.Contains(string(out), "LC_ALL=C\n") {
			t.Errorf("%q, %v", out, err)
		}
		if hasTemp := strings.Contains(string(out), "TMPDIR="); hasTemp != (level != Basic) {
			t.Errorf("TMPDIR: %q", out)
		}
		c = shell(patience(t), level, "env")
		c.Env = []string{}
		if out, err = c.Output(); err != nil || strings.Contains(string(out), "LC_ALL") {
			t.Errorf("an empty environment: %q, %v", out, err)
		}
		// The name is looked for in the payload's PATH, not in ours.
		dir := ownFolder(t, os.Geteuid())
		if err := os.WriteFile(filepath.Join(dir, "tool"), []byte("#!/bin/sh\necho the tool\n"), 0o755); err != nil {
			t.Fatal(err)
		}
		c = Command(patience(t), level, "tool")
		c.Dir, c.Env = dir, []string{"PATH=/absent:" + dir}
		if out, err = c.Output(); err != nil || string(out) != "the tool\n" {
			t.Errorf("%q, %v", out, err)
		}
	})
}

// TestExecErrors: the walls stand, but the program can't be run.
func TestExecErrors(t *testing.T) {
	dir := ownFolder(t, os.Geteuid())
	for name, content := range map[string]string{"plain": "x", "script": "#!/absent/interpreter\n", "garbage": "\x7fELFgarbage"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), map[bool]os.FileMode{true: 0o644, false: 0o755}[name == "plain"]); err != nil {
			t.Fatal(err)
		}
	}
	atEachLevel(t, func(t *testing.T, level Level) {
		leavesNothing(t)
		for _, c := range []struct {
			name string
			code int
			says string
		}{
			{"no-such-program", 127, `"no-such-program": command not found`},
			{"/usr/no-such", 127, `exec "/usr/no-such": no such file or directory`},
			{"/etc/passwd/x", 127, `exec "/etc/passwd/x": not a directory`},
			{"/etc/passwd", 126, `exec "/etc/passwd": permission denied`},
			{"/usr", 126, `exec "/usr": permission denied`},
			{dir + "/plain", 126, "permission denied"},
			{dir + "/script", 127, "no such file or directory"},
			{dir + "/garbage", 126, "exec format error"},
			{"./garbage", 126, `exec "./garbage": exec format error`},
			{"nl\nname", 127, `"nl\nname": command not found`},
		} {
			cmd := Command(patience(t), level, c.name)
			cmd.Dir, cmd.Env = dir, []string{"PATH=" + testPath}
			cmd.Stdin, cmd.Stdout = strings.NewReader("x"), new(bytes.Buffer)
			err := cmd.Run()
			var exec *ExecError
			if !errors.As(err, &exec) || exec.Name != c.name || exec.ExitCode() != c.code || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%q: %T %v", c.name, err, err)
			}
			if r := cmd.Result(); r == nil || r.Reason != ExecFailed || r.GivenLevel != level || r.ExitCode != -1 || r.Error != fmt.Sprint(err) {
				t.Errorf("%q: %+v", c.name, r)
			}
		}
	})
}

// TestStdio: what is passed as a file is the same file, and nil is /dev/null.
func TestStdio(t *testing.T) {
	atEachLevel(t, func(t *testing.T, level Level) {
		leavesNothing(t)
		f, err := os.CreateTemp(t.TempDir(), "")
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		c := shell(patience(t), level, "echo one; echo two >&2; cat; readlink /proc/self/fd/0 || true")
		c.Stdout, c.Stderr = f, f
		if err := c.Run(); err != nil {
			t.Fatal(err)
		}
		if b, _ := os.ReadFile(f.Name()); !strings.HasPrefix(string(b), "one\ntwo\n/dev/null") {
			t.Errorf("%q", b)
		}
		// A closed file is an error, not fd -1.
		f.Close()
		c = shell(patience(t), level, "true")
		c.Stdout = f
		if err := c.Run(); err == nil {
			t.Error("a closed file was passed")
		}
		// A writer that fails ends the payload by SIGPIPE and is told.
		c = shell(patience(t), level, "yes")
		c.Stdout = failingWriter{}
		if err := c.Run(); err == nil {
			t.Error("no error of the writer")
		}
		// An input that is not read to its end is no error.
		c = shell(patience(t), level, "head -c 1 >/dev/null")
		c.Stdin = strings.NewReader(strings.Repeat("x", 1<<20))
		if err := c.Run(); err != nil {
			t.Errorf("an input that was not read: %v", err)
		}
	})
}

type failingWriter struct{}

func (failingWriter) Write([]byte) (int, error) { return 0, errors.New("full") }

// TestTheorem_2_1_1_OutlivesItsHandle: a jail that its starter has forgotten goes on; it is the starter's death that ends it.
func TestTheorem_2_1_1_OutlivesItsHandle(t *testing.T) {
	atEachLevel(t, func(t *testing.T, level Level) {
		in, out := startForgotten(t, level)
		for range 3 { // a finalizer or cleanup of what the handle held would run now
			runtime.GC()
			fmt.Fprintln(in, "on")
			word := make([]byte, 7)
			if _, err := io.ReadFull(out, word); err != nil || string(word) != "got on\n" {
				t.Fatalf("%q, %v", word, err)
			}
		}
		in.Close()
		if rest, err := io.ReadAll(out); err != nil || len(rest) != 0 {
			t.Errorf("%q, %v", rest, err)
		}
	})
}

// startForgotten starts a jail that answers each line, and keeps nothing of its Cmd.
func startForgotten(t *testing.T, level Level) (in, out *os.File) {
	t.Helper()
	theirIn, in, err1 := os.Pipe()
	out, theirOut, err2 := os.Pipe()
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close(); out.Close() })
	c := shell(context.Background(), level, "while read line; do echo got $line; done")
	c.Stdin, c.Stdout = theirIn, theirOut
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	theirIn.Close()
	theirOut.Close()
	pid := c.Process.Pid
	t.Cleanup(func() {
		in.Close()
		if _, err := unix.Wait4(pid, nil, 0, nil); err != nil { // other tests count our children
			t.Error(err)
		}
	})
	return in, out
}

// TestTheorem_2_1_1_StatesOnlyGoForward: what can be done with a Cmd before its start, while it runs and after its end, and
// that no state comes back.
func TestTheorem_2_1_1_StatesOnlyGoForward(t *testing.T) {
	atEachLevel(t, func(t *testing.T, level Level) {
		leavesNothing(t)
		c := shell(patience(t), level, "read line")
		in, err := c.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		if c.Process != nil || c.Result() != nil || c.Wait() == nil {
			t.Error("it has begun before its start")
		}
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		if c.Start() == nil {
			t.Error("started twice")
		}
		if err := c.Process.Signal(syscall.SIGCONT); err != nil || c.Result() != nil {
			t.Errorf("while it runs: %v, %v", err, c.Result())
		}
		in.Close()
		if got := exitOf(t, c.Wait()); got != "1" {
			t.Errorf("exit is %s", got)
		}
		result := c.Result()
		if result == nil || c.Start() == nil || c.Wait() == nil {
			t.Error("it goes on after its end")
		}
		if err := c.Process.Signal(syscall.SIGKILL); !errors.Is(err, os.ErrProcessDone) {
			t.Errorf("a signal after the end: %v", err)
		}
		if err := c.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
			t.Errorf("kill after the end: %v", err)
		}
		if c.Result() != result {
			t.Error("the Result changes after the end")
		}
	})
}
