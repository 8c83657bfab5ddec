//go:build linux

package integration

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// faultErrnos are what the system calls of a launch fail with, in turn.
var faultErrnos = []syscall.Errno{unix.EPERM, unix.ENOMEM, unix.EINTR, unix.ENOSYS, unix.EMFILE, unix.ENOSPC}

// tally counts faults by kind, and what became of them.
type tally struct {
	errnos, kills          atomic.Int64 // what was done
	ran, failed, collected atomic.Int64
	early                  atomic.Int64 // ended by Go's runtime before main
}

// tell tells the figures of a test that all launches have passed.
func (s *tally) tell(t *testing.T, format string, figures ...any) {
	if !t.Failed() {
		t.Logf("figure: "+format+"; 0 left anything more, hung, or ended with a wrong code or word", figures...)
	}
}

// TestFaultsInjected lets the system calls of a launch fail one by one, the launcher's and jail-init's until the
// payload's exec, and kills at each call the one that makes it. Each time the run works or ends with 125 and a line
// that says what failed, at once; and nothing is left, but for what a killed one leaves to jail gc.
func TestFaultsInjected(t *testing.T) {
	errnoStep, killStep := 37, 149
	if sweep {
		errnoStep, killStep = 2, 11
	}
	var sum tally
	t.Cleanup(func() {
		sum.tell(t, "%d system calls of launches failed with %d errnos, and at %d the launcher or jail-init was killed: %d ran all the same, %d ended with an error, the rest were launchers; %d left something to jail gc",
			sum.errnos.Load(), len(faultErrnos), sum.kills.Load(), sum.ran.Load(), sum.failed.Load(), sum.collected.Load())
	})
	each(t, allLevels, func(t *testing.T, a arm) {
		f := newFaulty(t, a, &sum)
		turn := slices.Index(allLevels, a.level)
		for _, who := range []string{"launcher", "init"} {
			for n := 1 + turn; ; n += errnoStep {
				if !f.inject(who, n, faultErrnos[(n+turn)%len(faultErrnos)]) {
					break
				}
			}
			for n := 1 + turn; ; n += killStep {
				if !f.inject(who, n, 0) {
					break
				}
			}
		}
	})
}

// faulty is launches with one fault each.
type faulty struct {
	*box
	name   string // of the cgroup
	mounts string
	sum    *tally
}

// inject runs a jail whose nth system call on one side fails, or kills where errno is 0, and judges the end. It says
// whether there was an nth.
func (f *faulty) inject(who string, n int, errno syscall.Errno) bool {
	f.t.Helper()
	flags := f.flags()
	if f.arm.level == "limited" || f.arm.level == "contained" {
		flags = append(flags, "--name", f.name, "--memory", "256M")
	}
	argv := append([]string{tool("fault"), who, fmt.Sprint(n), fmt.Sprint(int(errno)), jailPath, "run"}, flags...)
	cmd := f.as(append(argv, "--", "/bin/sh", "-c", "echo ran; exit 42")...)
	r, w, err := os.Pipe()
	if err != nil {
		f.t.Fatal(err)
	}
	defer r.Close()
	cmd.ExtraFiles = []*os.File{w}
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Start(); err != nil {
		f.t.Fatal(err)
	}
	w.Close()
	hung := time.AfterFunc(patience, func() { _ = cmd.Process.Kill() })
	err = cmd.Wait() // the end of its pipes as well: nobody holds them
	what := fmt.Sprintf("%s: call %d of the %s: %v", f.arm, n, who, errno)
	if !hung.Stop() {
		f.t.Fatalf("%s: hung: %q %q", what, stdout.String(), stderr.String())
	}
	if err != nil {
		f.t.Fatalf("%s: %v: %s", what, err, stderr.String())
	}
	told, err := io.ReadAll(r)
	var status syscall.WaitStatus
	var calls, hit int
	if _, e := fmt.Sscan(string(told), &status, &calls, &hit); err != nil || e != nil {
		f.t.Fatalf("%s: %q, %v", what, told, errors.Join(err, e))
	}
	if hit < 0 {
		return false
	}
	what = fmt.Sprintf("%s: system call number %d", what, hit)
	o := outcome{stdout.String(), stderr.String(), status.ExitStatus()}
	switch {
	case errno != 0:
		f.sum.errnos.Add(1)
		f.judge(what, o, errno, who == "init" && hit == unix.SYS_PRCTL)
	case who == "launcher" && !(status.Signaled() && status.Signal() == unix.SIGKILL && o.stderr == ""):
		f.t.Errorf("%s: the launcher was not killed: %+v", what, o)
	case who == "init":
		f.judge(what, o, 0, false)
		fallthrough
	default:
		f.sum.kills.Add(1)
	}
	f.nothing(what)
	return true
}

// judge says whether a run that met a fault was told as it was: the payload ran, or it is 125 with one line that has the
// errno, if there is one. later is a call of which it is told only what it should have made possible.
func (f *faulty) judge(what string, o outcome, errno syscall.Errno, later bool) {
	f.t.Helper()
	said, hint, _ := strings.Cut(strings.TrimSuffix(o.stderr, "\n"), "\n")
	oneLine := strings.HasPrefix(said, "jail: ") && (hint == "" || strings.HasPrefix(hint, "hint: ") && !strings.Contains(hint, "\n"))
	named := strings.Contains(said, errno.Error()) || errno == 0 ||
		later && slices.ContainsFunc([]syscall.Errno{unix.EPERM, unix.EACCES}, func(e syscall.Errno) bool { return strings.Contains(said, e.Error()) }) ||
		// By these the kernel, or an outer filter, says that it does not have something.
		(errno == unix.EPERM || errno == unix.ENOSYS) && strings.HasPrefix(said, "jail: this host can't give level ") ||
		// A socket between the two that does not work: of the one that it failed for nothing can be heard.
		strings.HasPrefix(said, "jail: too few file descriptors: ") || strings.HasPrefix(said, "jail: lost its supervisor ") || strings.HasPrefix(said, "jail: jail-init ended without a word: ")
	switch {
	case errno == 0 && o.code == 137 && o.stderr == "": // the payload's process, just before its exec
		f.sum.failed.Add(1)
	case o.code == 42 && o.stdout == "ran\n" && onlyNotes(o.stderr):
		f.sum.ran.Add(1)
	case !oneLine || !named || said == "jail: "+errno.Error() || strings.Contains(said, "internal error"),
		o.code != 125 && !(o.code == 126 && strings.HasPrefix(said, "jail: exec ")):
		f.t.Errorf("%s: %+v", what, o)
	default:
		f.sum.failed.Add(1)
	}
}

// onlyNotes says that of a run nothing is told but what the payload has less for want of it.
func onlyNotes(stderr string) bool {
	for line := range strings.Lines(stderr) {
		if !strings.HasPrefix(line, "jail: note: ") {
			return false
		}
	}
	return true
}

// nothing is the oracle behind each launch. The processes are gone already.
func (f *faulty) nothing(what string) {
	f.t.Helper()
	if err := sameMounts(f.mounts); err != nil {
		f.t.Errorf("%s: %v", what, err)
	}
	left := f.left()
	if len(left) == 0 {
		return
	}
	f.t.Logf("%s: left to jail gc: %q", what, left)
	f.sum.collected.Add(1)
	if o := f.bare(jailPath, "gc"); o.code != 0 {
		f.t.Errorf("%s: jail gc: %+v", what, o)
	}
	if left := f.left(); len(left) > 0 {
		f.t.Errorf("%s: left: %q", what, left)
	}
}

func (f *faulty) left() []string {
	var left []string
	for _, dir := range []string{f.tmp, f.dir} {
		entries, err := os.ReadDir(dir)
		if err != nil {
			f.t.Error(err)
		}
		for _, e := range entries {
			left = append(left, filepath.Join(dir, e.Name()))
		}
	}
	if f.arm.level == "limited" || f.arm.level == "contained" {
		left = append(left, cgroupsNamed("jail-"+f.name)...)
	}
	return left
}

// launch runs the usual payload where something is scarce, and judges the end.
func (f *faulty) launch(what string, cmd *exec.Cmd) {
	f.t.Helper()
	what = fmt.Sprintf("%s: %s", f.arm, what)
	o := f.finish(cmd)
	// Go's start takes memory and threads before any line of ours runs: without them it ends the process.
	if o.code == 2 && (strings.HasPrefix(o.stderr, "fatal error: ") || strings.HasPrefix(o.stderr, "runtime")) && o.stdout == "" {
		f.sum.early.Add(1)
	} else {
		f.judge(what, o, 0, false)
	}
	f.nothing(what)
}

// limited is the command under a limit of prlimit(1).
func (f *faulty) limited(limit string) *exec.Cmd {
	f.t.Helper()
	return f.as(append([]string{need(f.t, "prlimit"), limit, "--"}, f.jail()...)...)
}

// jail is the usual run.
func (f *faulty) jail() []string {
	return append(append([]string{jailPath, "run"}, f.flags()...), "--", "/bin/sh", "-c", "echo ran; exit 42")
}

// prepared is the command behind a script of root's, which the launcher's mount namespace or cgroups may be changed by.
func (f *faulty) prepared(script string) *exec.Cmd {
	f.t.Helper()
	cmd := f.as(slices.Concat([]string{need(f.t, "unshare"), "--mount", "/bin/sh", "-c", script + ` && exec "$@"`, "sh"}, f.dropped(), f.jail())...)
	cmd.SysProcAttr.Credential = nil
	return cmd
}

// dropped makes root the caller.
func (f *faulty) dropped() []string {
	if f.arm.root || !asRoot {
		return nil
	}
	return []string{need(f.t, "setpriv"), "--reuid", fmt.Sprint(ordinary), "--regid", fmt.Sprint(ordinary), "--clear-groups"}
}

func newFaulty(t *testing.T, a arm, sum *tally) *faulty {
	t.Helper()
	b := newBox(t, a)
	return &faulty{
		box: b, name: fmt.Sprintf("fault-%d-%s", os.Getpid(), filepath.Base(filepath.Dir(b.tmp))), // the box's alone: other tests run beside it
		sum: sum, mounts: hostMounts(),
	}
}

// TestFaultsExhausted starts jails where something has run out or is missing: each runs, or says what failed.
func TestFaultsExhausted(t *testing.T) {
	var sum tally
	t.Cleanup(func() {
		sum.tell(t, "%d launches with something exhausted: %d ran all the same, %d ended with an error, %d in the start of Go's runtime, with its stack trace",
			sum.ran.Load()+sum.failed.Load()+sum.early.Load(), sum.ran.Load(), sum.failed.Load(), sum.early.Load())
	})
	each(t, allLevels, func(t *testing.T, a arm) {
		f := newFaulty(t, a, &sum)
		for i, limit := range []string{
			"--nofile=3", "--nofile=8", "--nofile=20", "--nofile=24", "--nofile=28", "--nofile=36", "--fsize=0", "--stack=65536", "--memlock=0",
			"--core=0", "--msgqueue=0", "--sigpending=0", "--nice=0", "--data=64000000", "--data=128000000", "--as=300000000", "--as=1300000000",
			"--nproc=1", "--nproc=8",
		} {
			if !sweep && (i+slices.Index(allLevels, a.level))%3 != 0 {
				continue
			}
			f.launch(limit, f.limited(limit))
		}
		if !asRoot {
			return // the rest is mounts
		}
		for what, script := range map[string]string{
			"no inodes in the state folder": "mount -t tmpfs -o nr_inodes=1 none /run",
			"no space in the state folder":  "mount -t tmpfs -o size=4k none /run && dd if=/dev/zero of=/run/full bs=4k count=1 2>/dev/null",
			"read-only state folder":        "mount -t tmpfs -o ro none /run",
			"no inodes in TMPDIR":           "mount -t tmpfs -o nr_inodes=1,mode=1777 none " + f.tmp,
			"read-only TMPDIR":              "mount -t tmpfs -o ro none " + f.tmp,
			"read-only /tmp and /run":       "mount -t tmpfs -o ro none /tmp && mount -t tmpfs -o ro none /run",
			"no /proc":                      "mount -t tmpfs none /proc",
			"no /sys":                       "mount -t tmpfs none /sys",
			"no /dev":                       "mount -t tmpfs none /dev",
		} {
			f.launch(what, f.prepared(script))
		}
	})
}

// TestFaultsPidsLimit starts jails in a cgroup that has room for a few tasks only, from none beside the launcher's first
// to enough.
func TestFaultsPidsLimit(t *testing.T) {
	text, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	_, own, ok := strings.Cut(string(text), ":pids:")
	if !ok || !asRoot {
		t.Skip("host lacks: a cgroup v1 hierarchy of pids, and root to make a cgroup in it")
	}
	own, _, _ = strings.Cut(own, "\n")
	var sum tally
	t.Cleanup(func() {
		sum.tell(t, "%d launches with room for 1 to 24 tasks: %d ran, %d ended with an error, %d in the start of Go's runtime, with its stack trace",
			sum.ran.Load()+sum.failed.Load()+sum.early.Load(), sum.ran.Load(), sum.failed.Load(), sum.early.Load())
	})
	each(t, allLevels, func(t *testing.T, a arm) {
		f := newFaulty(t, a, &sum)
		outer := filepath.Join("/sys/fs/cgroup/pids", own, "outer-"+f.name)
		if err := os.Mkdir(outer, 0o755); err != nil {
			t.Fatal(err)
		}
		defer func() {
			eventually(t, "the outer cgroup is empty", func() bool { return unix.Rmdir(outer) == nil })
		}()
		if err := enter1(outer, f.arm); err != nil {
			t.Fatal(err)
		}
		step := 6
		if sweep {
			step = 1
		}
		for n := 1 + slices.Index(allLevels, a.level)%step; n <= 24; n += step {
			if err := os.WriteFile(outer+"/pids.max", []byte(fmt.Sprint(n)), 0); err != nil {
				t.Fatal(err)
			}
			f.launch(fmt.Sprintf("pids.max %d", n), f.prepared("echo 0 >"+outer+"/tasks"))
		}
	})
}

// enter1 gives a cgroup to the caller, as an administrator delegates it.
func enter1(dir string, a arm) error {
	if a.root {
		return nil
	}
	return errors.Join(os.Chown(dir, ordinary, ordinary), os.Chown(dir+"/cgroup.procs", ordinary, ordinary), os.Chown(dir+"/tasks", ordinary, ordinary))
}

// TestFaultsSignalStorm sends the launcher signals without pause while it starts: each of its system calls may be
// interrupted, and none may be lost to that.
func TestFaultsSignalStorm(t *testing.T) {
	starts := 3
	if sweep {
		starts = 40
	}
	var sum tally
	var sent atomic.Int64
	t.Cleanup(func() {
		sum.tell(t, "%d signals were sent to %d launchers while they started, and %d payloads ran to their end", sent.Load(), sum.errnos.Load(), sum.ran.Load())
	})
	each(t, allLevels, func(t *testing.T, a arm) {
		f := newFaulty(t, a, &sum)
		for range starts {
			sum.errnos.Add(1)
			cmd := f.as(f.jail()...)
			var out, errs bytes.Buffer
			cmd.Stdout, cmd.Stderr = &out, &errs
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			// What programs do not end by, neither the launcher nor the payload.
			over := make(chan struct{})
			go func() {
				signals := []syscall.Signal{unix.SIGURG, unix.SIGWINCH, unix.SIGCHLD, unix.SIGCONT}
				for n := 0; ; n++ {
					select {
					case <-over:
						return
					case <-time.After(100 * time.Microsecond):
						if cmd.Process.Signal(signals[n%len(signals)]) == nil {
							sent.Add(1)
						}
					}
				}
			}()
			hung := time.AfterFunc(patience, func() { _ = cmd.Process.Kill() })
			_ = cmd.Wait()
			close(over)
			if !hung.Stop() {
				t.Fatalf("hung: %q %q", out.String(), errs.String())
			}
			if cmd.ProcessState.ExitCode() != 42 || out.String() != "ran\n" || errs.Len() > 0 {
				t.Errorf("%v: %q, %q", cmd.ProcessState, out.String(), errs.String())
			} else {
				sum.ran.Add(1)
			}
		}
		f.nothing(a.String())
	})
}

// TestFaultsStdout: standard output that is closed, full, without a reader, or with one that does not read.
func TestFaultsStdout(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { full.Close() }) // when the arms have ended
	// pipe is a pipe whose reader is there, or is not.
	pipe := func(t *testing.T, reader bool) *os.File {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		if !reader {
			r.Close()
		}
		t.Cleanup(func() { r.Close(); w.Close() })
		return w
	}
	const writes = "trap '' PIPE; head -c 300000 /dev/zero && exit 41; exit 42"
	each(t, allLevels, func(t *testing.T, a arm) {
		b := newBox(t, a)
		for _, limit := range [][]string{nil, {"--output-limit", "1G"}} {
			metered := limit != nil
			for what, c := range map[string]struct {
				out  *os.File
				code int
			}{
				"full": {full, 42}, "no reader": {pipe(t, false), 42}, "blocked": {pipe(t, true), 124},
			} {
				flags := limit
				if c.code == 124 {
					flags = append([]string{"--timeout", "300ms"}, limit...)
				}
				cmd := b.command(flags, "sh", "-c", writes)
				cmd.Stdout = c.out
				o := b.finish(cmd)
				said := strings.Count(o.stderr, "jail: ")
				if o.code != c.code && !(metered && c.code == 42 && (o.code == 41 || o.code == 125)) || said > 1 || strings.Contains(o.stderr, "goroutine ") {
					t.Errorf("%s, metered %v: %+v", what, metered, o)
				}
			}
			// Errors of jail itself, to nobody.
			for what, errs := range map[string]*os.File{"full": full, "no reader": pipe(t, false)} {
				cmd := b.command(limit, "no-such-command")
				cmd.Stderr = errs
				if o := b.finish(cmd); o.code != 127 {
					t.Errorf("standard error %s, metered %v: %+v", what, metered, o)
				}
			}
			closed := b.as(append([]string{"/bin/sh", "-c", `exec "$@" >&- 2>&-`, "sh"}, b.command(limit, "sh", "-c", "exit 42").Args...)...)
			if o := b.finish(closed); o.code != 42 {
				t.Errorf("closed, metered %v: %+v", metered, o)
			}
		}
	})
}

// TestFaultsStopped: a payload that stands still when its time is over, when the launcher is told to end, and when it is
// killed, is gone then.
func TestFaultsStopped(t *testing.T) {
	each(t, allLevels, func(t *testing.T, a arm) {
		const script = "trap '' TERM; sleep 1000 & echo up; while :; do kill -STOP 0; done"
		stopped := func(timeout string, want int) (up bool) {
			b := newBox(t, a)
			var flags []string
			if timeout != "" {
				flags = []string{"--timeout", timeout, "--kill-after", "200ms"}
			}
			cmd := b.command(flags, "sh", "-c", script)
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			_, err = io.ReadFull(out, make([]byte, 3))
			up = err == nil
			if timeout == "" {
				init, _ := initOf(t, cmd.Process.Pid)
				eventually(t, "the payload stands still", func() bool {
					payload := children(init)
					return len(payload) > 0 && state(payload[0]) == "T"
				})
				_ = cmd.Process.Kill()
			}
			hung := time.AfterFunc(patience, func() { _ = cmd.Process.Kill() })
			_, _ = io.Copy(io.Discard, out) // until nobody holds it
			_ = cmd.Wait()
			if !hung.Stop() {
				t.Errorf("time-out %q: hung", timeout)
			}
			if code := cmd.ProcessState.ExitCode(); code != want {
				t.Errorf("time-out %q: %v", timeout, cmd.ProcessState)
			}
			b.swept()
			return up
		}
		if !slices.ContainsFunc(timeLimits, func(limit string) bool { return stopped(limit, 124) }) {
			t.Error("the payload has not begun")
		}
		stopped("", -1)
	})
}
