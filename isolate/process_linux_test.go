//go:build amd64 || arm64

package isolate

import (
	"bufio"
	"bytes"
	"context"
	"embed"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/jailrun/jail/isolate/internal/jailinit"
)

// startAndRead starts a command and reads what it says until its first newline.
func startAndRead(t *testing.T, c *Cmd) (line string, rest *bufio.Reader) {
	t.Helper()
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	rest = bufio.NewReader(out)
	if line, err = rest.ReadString('\n'); err != nil {
		t.Fatalf("%q, %v", line, err)
	}
	return strings.TrimSpace(line), rest
}

// forest is a script that leaves processes of all kinds: of its session and of others, orphans of orphans, one that
// ignores signals, one that has stopped. Each carries $COOKIE in its environment.
const forest = `sleep 1000 &
	(sleep 1000 & exec setsid sh -c 'sleep 1000 & sleep 1000') &
	setsid sh -c 'setsid sh -c "sleep 1000 & exit" & exit'
	setsid sh -c 'trap "" TERM INT HUP; sleep 1000; sleep 1000' &
	setsid sh -c 'kill -STOP $$' &
	echo ready; read go; `

// planted starts a forest and returns what finds its processes, which are there, and what lets the script go on.
func planted(ctx context.Context, t *testing.T, level Level, then string) (c *Cmd, alive func() int, goOn io.Closer) {
	t.Helper()
	cookie := fmt.Sprintf("COOKIE=%d-%d", os.Getpid(), time.Now().UnixNano())
	c = shell(ctx, level, forest+then)
	c.Env = []string{"PATH=" + testPath, cookie}
	alive = func() int { return len(withEnv(cookie)) }
	goOn, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	startAndRead(t, c)
	eventually(t, "8 processes can be seen, of 9 or so", func() bool { return alive() >= 8 })
	return c, alive, goOn
}

// TestTreeEnds: however a jail ends, all its processes are gone when Wait returns.
func TestTreeEnds(t *testing.T) {
	for _, end := range []struct {
		name, then string
		do         func(c *Cmd, cancel func())
		want       string
	}{
		{"exit", "exit 5", nil, "5"},
		{"signal", "kill -SEGV $$", nil, "SIGSEGV"},
		{"context", "wait", func(_ *Cmd, cancel func()) { cancel() }, "cancelled"},
		{"kill", "wait", func(c *Cmd, _ func()) { _ = c.Process.Kill() }, "SIGKILL"},
		{"kill-first", "wait", func(c *Cmd, _ func()) { _ = c.Process.Signal(os.Kill) }, "SIGKILL"},
		{"kill-init", "wait", func(c *Cmd, _ func()) { _ = unix.Kill(c.Process.Pid, unix.SIGKILL) }, "supervisor-lost"},
	} {
		t.Run(end.name, func(t *testing.T) {
			atEachLevel(t, func(t *testing.T, level Level) {
				if end.name == "kill-init" && level != Namespaced {
					return // below it, that is what a payload of the same uid may do: see the escape routes
				}
				leavesNothing(t)
				ctx, cancel := context.WithCancel(patience(t))
				defer cancel()
				c, alive, goOn := planted(ctx, t, level, end.then)
				start := time.Now()
				if end.do != nil {
					end.do(c, cancel)
				} else {
					goOn.Close()
				}
				err := c.Wait()
				if n := alive(); n > 0 {
					t.Errorf("%d processes are alive", n)
				}
				if got := exitOf(t, err); got != end.want {
					t.Errorf("ended with %s, want %s", got, end.want)
				}
				if took := time.Since(start); took > longest/2 {
					t.Errorf("took %s", took)
				}
			})
		})
	}
}

// TestTimeout: against payloads that do as they are told, that ignore SIGTERM, and that have stopped themselves.
func TestTimeout(t *testing.T) {
	atEachLevel(t, func(t *testing.T, level Level) {
		for _, c := range []struct {
			script    string
			killAfter time.Duration
			signal    string
			code      int
			atLeast   time.Duration
		}{
			{"sleep 1000", 0, "SIGKILL", -1, 0},
			{"kill -STOP $$", 0, "SIGKILL", -1, 0},
			{"exec sleep 1000", time.Minute, "SIGTERM", -1, 0},
			{"kill -STOP $$", time.Minute, "SIGTERM", -1, 0},
			{"trap 'exit 9' TERM; echo set; while :; do sleep 0.01; done", time.Minute, "", 9, 0},
			{"trap 'exit 0' TERM; echo set; while :; do sleep 0.01; done", time.Minute, "", 0, 0},
			{"trap '' TERM; echo set; sleep 1000", 150 * time.Millisecond, "SIGKILL", -1, 150 * time.Millisecond},
			{"trap '' TERM; echo set; kill -STOP $$; sleep 1000", 150 * time.Millisecond, "SIGKILL", -1, 150 * time.Millisecond},
		} {
			t.Run(c.script+"/"+c.killAfter.String(), func(t *testing.T) {
				t.Parallel()
				for _, limit := range timeLimits {
					cmd := shell(patience(t), level, c.script)
					cmd.Spec().Timeout, cmd.Spec().KillAfter = limit, c.killAfter
					var said bytes.Buffer
					cmd.Stdout = &said
					start := time.Now()
					err := cmd.Run()
					took := time.Since(start)
					if strings.Contains(c.script, "set") && said.Len() == 0 && limit != timeLimits[len(timeLimits)-1] {
						continue // the time was over before it had set its trap
					}
					r := cmd.Result()
					if exitOf(t, err) != "timeout" || r.Signal != c.signal || r.ExitCode != c.code || r.ShellCode() != 124 || fmt.Sprint(r.LimitsHit) != "[timeout]" {
						t.Errorf("%v: %+v", err, r)
					}
					if took < limit+c.atLeast || took > limit+longest/2 {
						t.Errorf("took %s", took)
					}
					break
				}
			})
		}
	})
	// One that ends in time is not touched.
	cmd := shell(patience(t), Basic, "exit 4")
	cmd.Spec().Timeout = time.Minute
	if err := cmd.Run(); exitOf(t, err) != "4" || len(cmd.Result().LimitsHit) > 0 {
		t.Errorf("%v", cmd.Result())
	}
}

// TestSignals sends each signal that a shell can catch, to the first process and to its group.
func TestSignals(t *testing.T) {
	atEachLevel(t, func(t *testing.T, level Level) {
		leavesNothing(t)
		caught := []syscall.Signal{1, 2, 3, 10, 12, 14, 15, 18, 20, 28, 34, 35, 50, 64}
		script := "for s in"
		for _, s := range caught {
			script += fmt.Sprint(" ", int(s))
		}
		script += "; do trap \"echo got $s\" $s; done; echo ready; while :; do sleep 0.01; done"
		c := shell(patience(t), level, script)
		_, out := startAndRead(t, c)
		for _, s := range caught {
			if err := c.Process.Signal(s); err != nil {
				t.Fatalf("%d: %v", s, err)
			}
			if line, err := out.ReadString('\n'); line != fmt.Sprintf("got %d\n", s) {
				t.Fatalf("%d: %q, %v", s, line, err)
			}
		}
		for _, bad := range []syscall.Signal{-1, 65, 1000} {
			var spec *SpecError
			if err := c.Process.Signal(bad); !errors.As(err, &spec) {
				t.Errorf("%d: %v", bad, err)
			}
			if err := c.Process.SendSignal(bad, 0, false); !errors.As(err, &spec) {
				t.Errorf("%d: %v", bad, err)
			}
		}
		if err := signalNil(c.Process); err == nil || strings.Contains(err.Error(), "panic") {
			t.Errorf("no signal: %v", err)
		}
		if err := c.Process.Signal(unix.SIGKILL); err != nil {
			t.Error(err)
		}
		if err := c.Wait(); exitOf(t, err) != "SIGKILL" || c.Result().ShellCode() != 137 {
			t.Error(err)
		}
		for what, err := range map[string]error{
			"Signal": c.Process.Signal(unix.SIGTERM), "SendSignal": c.Process.SendSignal(unix.SIGTERM, 0, true), "Kill": c.Process.Kill(),
		} {
			if !errors.Is(err, os.ErrProcessDone) {
				t.Errorf("%s after the end: %v", what, err)
			}
		}
		// The group is the first process's and its children's; a session of its own is another.
		c = shell(patience(t), level, `(trap 'echo child; exit' USR1; echo; while :; do sleep 0.01; done) &
			trap 'echo parent; wait; exit 3' USR1; sleep 0.1; echo; while :; do sleep 0.01; done`)
		_, out = startAndRead(t, c)
		_, _ = out.ReadString('\n')
		if err := c.Process.SendSignal(unix.SIGUSR1, 0, true); err != nil {
			t.Fatal(err)
		}
		rest, _ := io.ReadAll(out)
		if !strings.Contains(string(rest), "child") || !strings.Contains(string(rest), "parent") {
			t.Errorf("%q", rest)
		}
		if err := c.Wait(); exitOf(t, err) != "3" {
			t.Error(err)
		}
	})
}

// signalNil is what os.Process says of a nil signal: an error.
func signalNil(p *Process) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("panic: %v", r)
		}
	}()
	return p.Signal(nil)
}

// TestSignalsAtTheEnd: signals that come when the payload is just ending change nothing of what the Result tells. (The
// kernel reports orders that nobody read as an error, ahead of the last record.)
func TestSignalsAtTheEnd(t *testing.T) {
	atEachLevel(t, func(t *testing.T, level Level) {
		leavesNothing(t)
		for range pick(20, 200) {
			c := shell(patience(t), level, "trap 'exit 9' TERM; echo; while :; do :; done")
			startAndRead(t, c)
			for range 30 {
				if err := c.Process.Signal(unix.SIGTERM); errors.Is(err, os.ErrProcessDone) {
					break
				} else if err != nil {
					t.Fatal(err)
				}
			}
			if err := c.Wait(); exitOf(t, err) != "9" {
				t.Fatalf("%v", err)
			}
		}
	})
}

// TestQueuedSignals: real-time signals arrive in order, each with its value.
func TestQueuedSignals(t *testing.T) {
	payload := compileC(t, "queued.c")
	atEachLevel(t, func(t *testing.T, level Level) {
		c := Command(patience(t), level, "./"+filepath.Base(payload))
		c.Dir = filepath.Dir(payload)
		_, out := startAndRead(t, c)
		for i := range 20 {
			if err := c.Process.SendSignal(syscall.Signal(35+i%2), 1000*i-7, false); err != nil {
				t.Fatal(err)
			}
		}
		if err := c.Process.SendSignal(64, 1<<33+5, false); err != nil {
			t.Fatal(err)
		}
		rest, _ := io.ReadAll(out)
		// The kernel gives the lowest number first, and within a number the order of sending.
		var got [2][]string
		for line := range strings.Lines(string(rest)) {
			var n int
			var v string
			fmt.Sscan(line, &n, &v)
			if n == 64 {
				if v != fmt.Sprint(1<<33+5) {
					t.Errorf("the value of 64 is %s", v)
				}
				continue
			}
			got[n-35] = append(got[n-35], v)
		}
		for k := range got {
			var want []string
			for i := range 20 {
				if i%2 == k {
					want = append(want, fmt.Sprint(1000*i-7))
				}
			}
			if fmt.Sprint(got[k]) != fmt.Sprint(want) {
				t.Errorf("signal %d: %v, want %v", 35+k, got[k], want)
			}
		}
		if err := c.Wait(); err != nil {
			t.Error(err)
		}
	})
}

// cSources: the ordinary user's run is not in this folder.
//
//go:embed testdata/*.c
var cSources embed.FS

// compileC compiles a program of testdata into a folder that everybody may enter.
func compileC(t *testing.T, name string) string {
	t.Helper()
	gcc := needs(t, "gcc")
	source, err := cSources.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(ownFolder(t, os.Geteuid()), strings.TrimSuffix(name, ".c"))
	cmd := exec.Command(gcc, "-x", "c", "-O", "-o", out, "-")
	cmd.Stdin = bytes.NewReader(source)
	if b, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, b)
	}
	return out
}

// TestCPUTimeReason: an end for CPU time is a limit that was hit, also where the figures say less, or nothing.
func TestCPUTimeReason(t *testing.T) {
	for _, c := range []struct {
		cause  Reason
		userMS float64
		want   string
	}{
		{CPUExceeded, 999, "cpu-time"},
		{CPUExceeded, -1, "cpu-time"},
		{CPUExceeded, 1001, "cpu-time"},
		{"", 1000, "cpu-time"}, // over before it could be killed
		{"", 999, ""},
		{"", -1, ""},
	} {
		p := &Process{spec: NewSpec(Limited, "true"), cause: c.cause, result: Result{UserMS: c.userMS}}
		p.spec.CPUTime = time.Second
		p.conclude(jailinit.Record{Status: int32(unix.SIGKILL)}, true)
		if got := strings.Join(p.result.LimitsHit, " "); got != c.want {
			t.Errorf("%q after %v ms: limits %q, want %q", c.cause, c.userMS, got, c.want)
		}
	}
}

// TestControllers: what is asked for by the file of v2 needs its controller as well.
func TestControllers(t *testing.T) {
	quota := int64(1000)
	for want, r := range map[string]*specs.LinuxResources{
		"memory pids":            {Unified: map[string]string{"iota": "1"}},
		"memory pids cpu":        {Unified: map[string]string{"memory.high": "1", "cpu.idle": "1"}},
		"memory pids cpuset":     {Unified: map[string]string{"cpuset.cpus": "0"}},
		"memory pids cpu cpuset": {CPU: &specs.LinuxCPU{Quota: &quota, Cpus: "0"}},
		"memory pids io":         {Unified: map[string]string{"io.max": "8:0 rbps=1"}},
		"memory pids cpuset io":  {CPU: &specs.LinuxCPU{Mems: "0"}, BlockIO: &specs.LinuxBlockIO{}},
	} {
		if got := strings.Join(controllersOf(r), " "); got != want {
			t.Errorf("%+v: %s, want %s", r, got, want)
		}
	}
}
