//go:build amd64 || arm64

package isolate

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// limited is shell with a limit on its output.
func limited(t testing.TB, level Level, limit int64, action OutputAction, script string, args ...string) *Cmd {
	c := shell(patience(t), level, script, args...)
	c.Spec().OutputLimit, c.Spec().OutputAction = limit, action
	return c
}

// outputFile is an open file with the name of what was written.
func outputFile(t testing.TB) *os.File {
	t.Helper()
	f, err := os.CreateTemp(ownFolder(t, os.Geteuid()), "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func content(t testing.TB, f *os.File) string {
	t.Helper()
	b, err := os.ReadFile(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestTheorem_9_3_2_OutputLimit: to the byte, for each action, to a file and to a writer.
func TestTheorem_9_3_2_OutputLimit(t *testing.T) {
	atEachLevel(t, func(t *testing.T, level Level) {
		leavesNothing(t)
		for _, limit := range []int64{1, 4095, 4096, 65536, 1 << 20} {
			for _, action := range []OutputAction{"", OutputKill, OutputTruncate, OutputBlock} {
				for more, script := range map[int64]string{0: `head -c $1 /dev/zero`, 1: `head -c $1 /dev/zero`, 3 << 20: `head -c $1 /dev/zero >&2`} {
					name := fmt.Sprintf("%d:%s and %d more", limit, action, more)
					var f *os.File
					var r *Result
					var err error
					for _, timeout := range timeLimits {
						f = outputFile(t)
						c := limited(t, level, limit, action, script, fmt.Sprint(limit+more))
						c.Stdout, c.Stderr = f, f
						blocks := action == OutputBlock && more > 1<<20
						if blocks {
							c.Spec().Timeout = timeout
						}
						err = c.Run()
						if r = c.Result(); !blocks || r.OutputBytes > limit { // else the time was over before it had written all
							break
						}
					}
					want, hit := "0", ""
					switch {
					case more == 0:
					case action == OutputBlock && more > 1<<20:
						want, hit = "timeout", "timeout output"
					case action == OutputBlock || action == OutputTruncate:
						hit = "output"
					default:
						want, hit = "output", "output"
					}
					if exitOf(t, err) != want || strings.Join(r.LimitsHit, " ") != hit {
						t.Errorf("%s: %v, limits %v", name, err, r.LimitsHit)
					}
					if n := int64(len(content(t, f))); n != limit {
						t.Errorf("%s: %d bytes came", name, n)
					}
					switch n := r.OutputBytes; {
					case hit == "output" && want == "output":
						if n <= limit || n > limit+more || r.ShellCode() != 137 {
							t.Errorf("%s: counted %d, exit code %d", name, n, r.ShellCode())
						}
					case want == "timeout": // what the pipe holds
						if n <= limit || n > limit+1+64<<10 {
							t.Errorf("%s: counted %d", name, n)
						}
					case n != limit+more:
						t.Errorf("%s: counted %d", name, n)
					}
					if says := r.String(); want == "output" && !strings.Contains(says, "more than "+roundBytes(limit)+" of output") ||
						want == "0" && strings.Contains(says, "output was cut after "+roundBytes(limit)) != (hit != "") {
						t.Errorf("%s: %s", name, says)
					}
				}
			}
		}
		// One that never ends, to writers of ours.
		var out, errs bytes.Buffer
		c := limited(t, level, 100000, OutputKill, "yes & yes >&2")
		c.Stdout, c.Stderr = &out, &errs
		if err := c.Run(); exitOf(t, err) != "output" || out.Len()+errs.Len() != 100000 {
			t.Errorf("%v, %d and %d bytes", err, out.Len(), errs.Len())
		}
		// One that does not look whether its writes work; and one that is gone before it can be killed.
		c = limited(t, level, 100000, OutputKill, "trap '' PIPE TERM; while :; do head -c 5000 /dev/zero; done")
		if err := c.Run(); exitOf(t, err) != "output" {
			t.Errorf("%v", err)
		}
		c = limited(t, level, 10, OutputKill, "echo more than ten; exit 4")
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the end of jail-init", func() bool { return isZombie(c.Process.Pid) })
		if err := c.Wait(); exitOf(t, err) != "output" || c.Result().OutputBytes != int64(len("more than ten\n")) {
			t.Errorf("%v, counted %d", err, c.Result().OutputBytes)
		}
		// What was written before the kill is counted, passed on or not.
		out.Reset()
		c = limited(t, level, 100, OutputKill, "head -c 4000 /dev/zero; exec sleep 60")
		c.Stdout = &out
		if err := c.Run(); exitOf(t, err) != "output" || out.Len() != 100 || c.Result().OutputBytes != 4000 {
			t.Errorf("%v, %d bytes, counted %d", err, out.Len(), c.Result().OutputBytes)
		}
	})
}

// TestOutputUnlimited: without a limit nothing is counted and files are passed as they are; with one, they are pipes.
func TestOutputUnlimited(t *testing.T) {
	leavesNothing(t)
	for limit, want := range map[int64]string{0: "/", 1 << 20: "pipe:"} {
		f := outputFile(t)
		c := limited(t, Basic, limit, "", "readlink /proc/self/fd/1")
		c.Stdout = f
		if err := c.Run(); err != nil || !strings.HasPrefix(content(t, f), want) {
			t.Errorf("limit %d: %v, %q", limit, err, content(t, f))
		}
		if n := c.Result().OutputBytes; limit == 0 && n != -1 || limit > 0 && n != int64(len(content(t, f))) {
			t.Errorf("limit %d: counted %d", limit, n)
		}
	}
	for value, c := range map[string]*Cmd{"-1": limited(t, Basic, -1, "", "true"), "stop": limited(t, Basic, 1, "stop", "true")} {
		var spec *SpecError
		if err := c.Run(); !errors.As(err, &spec) || spec.Field != "output-limit" || spec.Value != value {
			t.Errorf("%s: %v", value, err)
		}
	}
	c := limited(t, Basic, 1<<20, "", "true")
	f := outputFile(t)
	f.Close()
	c.Stdout = f
	if err := c.Run(); err == nil || !strings.Contains(err.Error(), "duplicate "+f.Name()) {
		t.Errorf("a closed file: %v", err)
	}
}

// TestOutputOrder: two files that are one place are fed by one pipe, and many writers share one budget.
func TestOutputOrder(t *testing.T) {
	atEachLevel(t, func(t *testing.T, level Level) {
		leavesNothing(t)
		const turns = 300
		var want strings.Builder
		for i := range turns {
			fmt.Fprintf(&want, "out %d\nerr %d\n", i, i)
		}
		script := `i=0; while [ $i -lt $1 ]; do echo out $i; echo err $i >&2; i=$((i+1)); done`
		f := outputFile(t)
		other, err := duplicate(f)
		if err != nil {
			t.Fatal(err)
		}
		defer other.Close()
		for _, action := range []OutputAction{OutputKill, OutputTruncate, OutputBlock} {
			if err := f.Truncate(0); err != nil {
				t.Fatal(err)
			}
			_, _ = f.Seek(0, io.SeekStart)
			c := limited(t, level, 1<<20, action, script, fmt.Sprint(turns))
			c.Stdout, c.Stderr = f, other
			if err := c.Run(); err != nil || content(t, f) != want.String() || c.Result().OutputBytes != int64(want.Len()) {
				t.Errorf("%s: %v, counted %d of %d\n%s", action, err, c.Result().OutputBytes, want.Len(), content(t, f))
			}
			var out bytes.Buffer
			c = limited(t, level, 1000, action, script+"; sleep 0.1", fmt.Sprint(turns))
			c.Stdout, c.Stderr = &out, &out
			_ = c.Run()
			if out.String() != want.String()[:1000] {
				t.Errorf("%s: %q", action, out.String())
			}
		}
		// Short children, one after the other and at once, on both.
		c := limited(t, level, 1<<20, OutputTruncate, `i=0; while [ $i -lt 100 ]; do sh -c 'echo 45678 >&2' & /bin/echo 3456789; i=$((i+1)); done; wait`)
		var out, errs bytes.Buffer
		c.Stdout, c.Stderr = &out, &errs
		if err := c.Run(); err != nil || out.Len() != 800 || errs.Len() != 600 || c.Result().OutputBytes != 1400 {
			t.Errorf("%v, %d and %d bytes, counted %d", err, out.Len(), errs.Len(), c.Result().OutputBytes)
		}
	})
}

// TestOutputReaders: what who reads does, the payload sees, as without us.
func TestOutputReaders(t *testing.T) {
	atEachLevel(t, func(t *testing.T, level Level) {
		leavesNothing(t)
		pipe := func() (r, w *os.File) {
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { r.Close(); w.Close() })
			return r, w
		}
		// Nobody reads: SIGPIPE, or EPIPE where that is ignored.
		r, w := pipe()
		r.Close()
		c := limited(t, level, 1<<40, "", "exec yes")
		c.Stdout = w
		if err := c.Run(); exitOf(t, err) != "SIGPIPE" {
			t.Errorf("nobody reads: %v", err)
		}
		c = limited(t, level, 1<<40, "", "trap '' PIPE; yes")
		c.Stdout = w
		var errs bytes.Buffer
		c.Stderr = &errs
		if err := c.Run(); exitOf(t, err) != "1" || !strings.Contains(errs.String(), "Broken pipe") {
			t.Errorf("nobody reads, SIGPIPE is ignored: %v, %q", err, errs.String())
		}
		// A file that fails is told, where the payload did not see it.
		full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer full.Close()
		c = limited(t, level, 1<<40, "", "echo lost")
		c.Stdout = full
		if err := c.Run(); !errors.Is(err, unix.ENOSPC) {
			t.Errorf("/dev/full: %v", err)
		}
		// The caller closes its file after Start; all comes, though the reader is slow and the file non-blocking, from
		// before the start or from a moment later on.
		for _, late := range []bool{false, true} {
			r, w = pipe()
			_ = w.Fd() // blocking
			c = limited(t, level, 1<<40, "", "echo first; read go; head -c 2000000 /dev/zero")
			in, err := c.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			if !late {
				_ = unix.SetNonblock(int(w.Fd()), true)
			}
			c.Stdout = w
			if err := c.Start(); err != nil {
				t.Fatal(err)
			}
			reader := bufio.NewReaderSize(r, 16)
			if _, err := reader.ReadString('\n'); err != nil {
				t.Fatal(err)
			}
			if late {
				_ = unix.SetNonblock(int(w.Fd()), true)
			}
			w.Close()
			in.Close()
			n := 0
			for buf := make([]byte, 50000); ; time.Sleep(time.Millisecond) {
				m, err := reader.Read(buf)
				if n += m; err == io.EOF {
					break
				} else if err != nil {
					t.Fatal(err)
				}
			}
			if err := c.Wait(); err != nil || n != 2000000 || c.Result().OutputBytes != 2000006 {
				t.Errorf("late: %t: %v, %d bytes came, counted %d", late, err, n, c.Result().OutputBytes)
			}
		}
		// Back-pressure: what is not read is not written.
		r, w = pipe()
		c = limited(t, level, 1<<40, "", "head -c 500000 /dev/zero; echo written >&2")
		c.Stdout = w
		said := &signalWriter{got: make(chan struct{}, 1)}
		c.Stderr = said
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		w.Close()
		select {
		case <-said.got:
			t.Error("500000 bytes were written, and nobody has read")
		case <-time.After(100 * time.Millisecond):
		}
		if n, err := io.Copy(io.Discard, r); err != nil || n != 500000 {
			t.Errorf("%d bytes came, %v", n, err)
		}
		if err := c.Wait(); err != nil {
			t.Error(err)
		}
		// One who has stopped reading does not hold up a time-out, nor WaitDelay.
		for _, delay := range []time.Duration{0, 50 * time.Millisecond} {
			r, w = pipe()
			c = limited(t, level, 1<<40, "", "yes")
			c.Stdout, c.WaitDelay, c.Spec().Timeout = w, delay, 100*time.Millisecond
			start := time.Now()
			if err := c.Run(); exitOf(t, err) != "timeout" || time.Since(start) > longest/2 {
				t.Errorf("a reader that has stopped: %v after %s", err, time.Since(start))
			}
			r.Close()
		}
	})
}

// TestOutputPipes: StdoutPipe and StderrPipe count as well, and end when there is no more to come.
func TestOutputPipes(t *testing.T) {
	atEachLevel(t, func(t *testing.T, level Level) {
		leavesNothing(t)
		for _, action := range []OutputAction{OutputKill, OutputTruncate, OutputBlock} {
			var c *Cmd
			var err error
			for _, timeout := range timeLimits {
				c = limited(t, level, 70000, action, "head -c 1000 /dev/zero >&2; head -c 1000000 /dev/zero")
				if action == OutputBlock {
					c.Spec().Timeout = timeout
				}
				out, err1 := c.StdoutPipe()
				errs, err2 := c.StderrPipe()
				if err := errors.Join(err1, err2, c.Start()); err != nil {
					t.Fatal(err)
				}
				// To the end, before Wait is called.
				b, err1 := io.ReadAll(out)
				e, err2 := io.ReadAll(errs)
				err = c.Wait()
				if action == OutputBlock && c.Result().OutputBytes <= 70000 && timeout != timeLimits[len(timeLimits)-1] {
					continue // the time was over before it had written all
				}
				if err1 != nil || err2 != nil || len(b)+len(e) != 70000 {
					t.Errorf("%s: %d and %d bytes, %v, %v", action, len(b), len(e), err1, err2)
				}
				break
			}
			want := map[OutputAction]string{OutputKill: "output", OutputTruncate: "0", OutputBlock: "timeout"}[action]
			if exitOf(t, err) != want || !slices.Contains(c.Result().LimitsHit, "output") {
				t.Errorf("%s: %v, %v", action, err, c.Result().LimitsHit)
			}
		}
		// Wait without reading: the rest is lost, and nothing hangs.
		c := limited(t, level, 1<<40, "", "echo ready; head -c 300000 /dev/zero; trap '' PIPE; sleep 1000")
		startAndRead(t, c)
		_ = c.Process.Kill()
		if err := c.Wait(); exitOf(t, err) != "SIGKILL" {
			t.Error(err)
		}
		// A start that fails leaves no descriptor.
		c = Command(context.Background(), level, "/no/such/program")
		c.Dir, c.Spec().OutputLimit = "/", 10
		c.Stderr = os.Stderr
		if _, err := c.StdoutPipe(); err != nil {
			t.Fatal(err)
		}
		if err := c.Run(); err == nil || c.Result().OutputBytes != -1 {
			t.Errorf("%v, %+v", err, c.Result())
		}
	})
}

// TestOutputHeldOutside: the payload's output is in somebody else's hands when the jail ends. Wait does not wait for
// them, and has all that the jail has written.
func TestOutputHeldOutside(t *testing.T) {
	atEachLevel(t, func(t *testing.T, level Level) {
		leavesNothing(t)
		dir := ownFolder(t, os.Geteuid())
		cookie := "COOKIE=" + filepath.Base(dir)
		c := limited(t, level, 1000, OutputTruncate, "echo out; read go; head -c 3000 /dev/zero; exit 7")
		c.Env = []string{"PATH=" + testPath, cookie}
		in, err := c.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		startAndRead(t, c)
		payload := withEnv(cookie)
		if len(payload) != 1 {
			t.Fatalf("payload: %v", payload)
		}
		pidfd, err := unix.PidfdOpen(payload[0], 0)
		if err != nil {
			t.Fatal(err)
		}
		held, err := unix.PidfdGetfd(pidfd, 1, 0)
		unix.Close(pidfd)
		if err == unix.EPERM {
			_ = c.Process.Kill()
			_ = c.Wait()
			lacks(t, "pidfd_getfd of a process of another uid")
		}
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(held)
		in.Close()
		if err := c.Wait(); exitOf(t, err) != "7" || c.Result().OutputBytes != 3004 {
			t.Errorf("%v, counted %d", err, c.Result().OutputBytes)
		}
	})
}
