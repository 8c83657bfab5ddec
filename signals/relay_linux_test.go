//go:build cgo

package signals

import (
	"context"
	"errors"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

var notRelayed = []syscall.Signal{unix.SIGCHLD, unix.SIGURG, unix.SIGPROF, unix.SIGPIPE}

// plain returns the standard signals that are passed on as they are.
func plain() []syscall.Signal {
	var sigs []syscall.Signal
	for sig := syscall.Signal(1); sig <= 31; sig++ {
		if sig != unix.SIGKILL && sig != unix.SIGSTOP && sig != unix.SIGTSTP && !slices.Contains(notRelayed, sig) {
			sigs = append(sigs, sig)
		}
	}
	return sigs
}

func TestEveryStandardSignal(t *testing.T) {
	h := startRelay(t)
	for range 2 {
		for _, sig := range plain() {
			h.kill(sig)
			h.expect(sig, 0, false)
		}
	}
	for _, sig := range notRelayed {
		h.kill(sig)
	}
	h.expectNoMore()
}

func TestEveryRealTimeSignal(t *testing.T) {
	h := startRelay(t)
	for sig := syscall.Signal(34); sig <= 64; sig++ {
		h.queue(sig, 1000+int(sig))
		h.expect(sig, 1000+int(sig), false)
		h.kill(sig)
		h.expect(sig, 0, false)
	}
	h.queue(40, -1)
	h.expect(40, -1, false)
	h.expectNoMore()
}

// burst returns what to send in a burst: not SIGCONT, which takes back SIGTTIN and SIGTTOU while they are
// pending.
func burst() []syscall.Signal {
	return slices.DeleteFunc(plain(), func(sig syscall.Signal) bool { return sig == unix.SIGCONT })
}

// While the receiver is held up, the bytes of 10,000 signals do not fit into the pipe. After the last of
// them, each number must still arrive.
func TestBurstWithFullPipe(t *testing.T) {
	h := startRelay(t)
	if size := h.number("shrink"); size != 4096 {
		t.Fatalf("the pipe has %d bytes", size)
	}
	h.do("hold")
	h.kill(unix.SIGUSR1)
	h.do("held")
	sigs := burst()
	for sent := 0; sent < 10000 || h.number("fill") < 4096; {
		for _, sig := range sigs[1:] {
			h.kill(sig)
			sent++
		}
	}
	h.kill(sigs[0]) // there is no room for its byte
	h.do("release")
	h.expect(unix.SIGUSR1, 0, false)
	for missing := slices.Clone(sigs); len(missing) > 0; {
		got := h.next().sig
		missing = slices.DeleteFunc(missing, func(sig syscall.Signal) bool { return sig == got })
	}
}

func TestBurst(t *testing.T) {
	h := startRelay(t)
	sigs := burst()
	last := make(map[syscall.Signal]int64)
	for i := range 10000 {
		sig := sigs[i%len(sigs)]
		last[sig] = now()
		h.kill(sig)
	}
	got := 0
	for ; len(last) > 0; got++ {
		if e := h.next(); e.time >= last[e.sig] {
			delete(last, e.sig)
		}
	}
	t.Logf("10000 sent, %d or more relayed", got)
}

// All of one number arrive in order, also SIGRTMIN, which Go unblocks in each new thread.
func TestRealTimeOrder(t *testing.T) {
	for _, test := range []struct {
		command string
		count   int
	}{{"fds", 60}, {"threads", 3000}} {
		t.Run(test.command, func(t *testing.T) {
			h := startRelay(t)
			h.do(test.command)
			for value := range test.count {
				for _, sig := range []syscall.Signal{34, 40, 64} {
					h.queue(sig, value)
				}
			}
			want := make(map[syscall.Signal]int)
			for range 3 * test.count {
				e := h.next()
				if e.value != want[e.sig] {
					t.Fatalf("signal %d has value %d, want %d", e.sig, e.value, want[e.sig])
				}
				want[e.sig]++
			}
			h.expectNoMore()
		})
	}
}

// A thread that ends may take SIGRTMIN out of the queue, so it has to put it back.
func TestRealTimeWhileThreadsEnd(t *testing.T) {
	const count = 3000
	h := startRelay(t)
	h.do("short-threads")
	for value := range count {
		h.queue(34, value)
		h.queue(35, value)
	}
	want := 0
	missing := make(map[int]bool)
	for value := range count {
		missing[value] = true
	}
	for range 2 * count {
		switch e := h.next(); e.sig {
		case 34:
			delete(missing, e.value)
		case 35:
			if e.value != want {
				t.Fatalf("signal 35 has value %d, want %d", e.value, want)
			}
			want++
		}
	}
	if len(missing) > 0 {
		t.Errorf("%d of SIGRTMIN are missing", len(missing))
	}
	h.expectNoMore()
}

// Without room in the queue, sigqueue fails, but kill still works for one signal of each number.
func TestNoRoomInQueue(t *testing.T) {
	h := start(t, nil)
	check(t, unix.Prlimit(h.pid, unix.RLIMIT_SIGPENDING, &unix.Rlimit{}, nil))
	h.do("threads")
	h.do("relay")
	for range 300 {
		for _, sig := range []syscall.Signal{34, 40, unix.SIGTERM} {
			h.kill(sig)
			h.expect(sig, 0, false)
		}
	}
}

func TestRealTimeWaitsForRelay(t *testing.T) {
	h := start(t, nil)
	h.do("fds") // it runs
	for value := range 50 {
		h.queue(34, value)
		h.queue(50, value)
	}
	h.do("threads")
	h.do("relay")
	for _, sig := range []syscall.Signal{34, 50} { // the kernel gives lower numbers first
		for value := range 50 {
			h.expect(sig, value, false)
		}
	}
	h.expectNoMore()
}

func TestUnblock(t *testing.T) {
	for _, sig := range []syscall.Signal{34, 40, 64} {
		before := start(t, nil)
		before.do("fds")
		before.kill(sig)
		before.do("fds") // it lives
		before.command("unblock")
		before.expectKilledBy(sig)

		after := start(t, nil)
		after.do("threads")
		after.do("unblock")
		after.kill(sig)
		after.expectKilledBy(sig)
	}
}

func TestIgnoredAtStart(t *testing.T) {
	h := start(t, func(cmd *exec.Cmd) { cmd.Env = append(cmd.Env, execEnv+"=ignore 1 2 3 11 15 20 34 40") })
	ignored := []syscall.Signal{1, 2, 3, 15, 20, 34, 40}
	sendAll := func() {
		t.Helper()
		for _, sig := range ignored {
			h.kill(sig)
		}
		h.do("fds")
		for _, sig := range ignored {
			if h.statusSet("SigIgn")&(1<<(sig-1)) == 0 {
				t.Errorf("signal %d is not ignored", sig)
			}
		}
		if pending := h.statusSet("ShdPnd"); pending != 0 {
			t.Errorf("pending: %#x", pending)
		}
	}
	h.do("fds")
	sendAll()
	h.do("relay")
	sendAll()
	h.kill(unix.SIGSEGV) // Go needs its handler
	if got := h.do("nil"); !strings.Contains(got, "nil pointer") {
		t.Errorf("nil dereference: %s", got)
	}
	h.expectNoMore()
	h.do("stop")
	sendAll()
}

func TestBlockedAtStart(t *testing.T) {
	h := start(t, func(cmd *exec.Cmd) { cmd.Env = append(cmd.Env, execEnv+"=block 10 15 20") })
	h.do("fds")
	h.kill(unix.SIGUSR1)
	h.do("relay")
	h.expect(unix.SIGUSR1, 0, false)
	h.kill(unix.SIGTERM) // Go has unblocked it
	h.expect(unix.SIGTERM, 0, false)
	h.kill(unix.SIGTSTP) // it would not stop a process that has it blocked
	h.expect(unix.SIGTSTP, 0, false)
	h.expectNoMore()
}

func TestStop(t *testing.T) {
	h := startRelay(t)
	for range 3 {
		h.kill(unix.SIGTSTP)
		if status := h.wait(); !status.Stopped() || status.StopSignal() != unix.SIGTSTP {
			t.Fatalf("status %#x", status)
		}
		h.expect(unix.SIGSTOP, 0, true)
		select {
		case e := <-h.events:
			t.Fatalf("got %v of a stopped process", e)
		case <-time.After(20 * time.Millisecond):
		}
		h.kill(unix.SIGCONT)
		h.expect(unix.SIGCONT, 0, true)
		h.expectNoMore()
	}
	h.do("stop")
	h.do("unblock")
	h.kill(unix.SIGTSTP)
	if status := h.wait(); !status.Stopped() {
		t.Fatalf("status %#x", status)
	}
	h.kill(unix.SIGCONT)
	h.do("fds")
}

// The kernel does not stop a process that nobody would continue, so neither may the relay.
func TestStopOrphaned(t *testing.T) {
	h := start(t, func(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} })
	h.do("relay")
	h.kill(unix.SIGTSTP)
	h.expect(unix.SIGSTOP, 0, true)
	h.expect(unix.SIGCONT, 0, true)
	h.expectNoMore()
}

// The last of SIGTSTP and SIGCONT counts, also while the receiver is busy with the one before.
func TestStopAndContinue(t *testing.T) {
	h := startRelay(t)
	for range 20 {
		h.do("hold")
		h.kill(unix.SIGTSTP)
		h.do("held")
		h.kill(unix.SIGCONT)
		h.do("release")
		h.expect(unix.SIGSTOP, 0, true)
		h.expect(unix.SIGCONT, 0, true)
		h.expectNoMore()

		h.do("hold")
		h.kill(unix.SIGCONT)
		h.do("held")
		h.kill(unix.SIGTSTP)
		h.command("release") // it may be stopped before it answers
		h.expect(unix.SIGCONT, 0, false)
		h.expect(unix.SIGSTOP, 0, true)
		if status := h.wait(); !status.Stopped() {
			t.Fatalf("status %#x", status)
		}
		h.kill(unix.SIGCONT)
		h.expect(unix.SIGCONT, 0, true)
		<-h.answers
		h.expectNoMore()

	}

	for range 1000 {
		h.kill(unix.SIGTSTP)
		h.kill(unix.SIGCONT)
	}
	h.do("fds") // it runs
	var last event
	for quiet := false; !quiet; {
		select {
		case last = <-h.events:
		case <-time.After(time.Second): // more than a busy machine keeps the helper waiting
			quiet = true
		}
	}
	if last.sig != unix.SIGCONT {
		t.Errorf("last came signal %d", last.sig)
	}
	h.expectNoMore()
}

func TestTerminal(t *testing.T) {
	master, slave := openTerminal(t)
	h := start(t, func(cmd *exec.Cmd) {
		cmd.Stdin = slave
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	})
	slave.Close()
	h.do("relay")

	for _, key := range []struct {
		char string
		sig  syscall.Signal
	}{{"\x03", unix.SIGINT}, {"\x1c", unix.SIGQUIT}} {
		_, err := master.WriteString(key.char)
		check(t, err)
		h.expect(key.sig, 0, true)
	}
	_, err := master.WriteString("\x1a") // the leader of a session is not stopped
	check(t, err)
	h.expect(unix.SIGSTOP, 0, true)
	h.expect(unix.SIGCONT, 0, true)
	check(t, unix.IoctlSetWinsize(int(master.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 5, Col: 7}))
	h.expect(unix.SIGWINCH, 0, true)
	h.kill(unix.SIGINT)
	h.expect(unix.SIGINT, 0, false)
	h.expectNoMore()

	master.Close()
	got := make(map[syscall.Signal]bool)
	for range 2 {
		e := h.next()
		got[e.sig] = e.group
	}
	if !got[unix.SIGHUP] || !got[unix.SIGCONT] {
		t.Errorf("hang-up: got %v", got)
	}
}

// A background job that reads from its terminal is stopped in the read, each time that it is continued.
func TestBackgroundRead(t *testing.T) {
	_, slave := openTerminal(t)
	h := start(t, func(cmd *exec.Cmd) {
		self, err := os.Executable()
		check(t, err)
		cmd.Args = []string{"sh", "-mc", `"$0" <&0 & exec sleep 60`, self}
		cmd.Path = "/bin/sh"
		cmd.Stdin = slave
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	})
	slave.Close()
	h.pid = h.number("pid")
	t.Cleanup(func() { _ = syscall.Kill(h.pid, unix.SIGKILL) })
	h.do("relay")
	h.command("read-terminal")
	for range 3 {
		for deadline := time.Now().Add(patience); h.state() != "T"; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("state %s; stderr: %s", h.state(), &h.stderr)
			}
		}
		h.kill(unix.SIGCONT)
	}
}

func openTerminal(t *testing.T) (master, slave *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("host lacks: a pseudo-terminal: %v", err)
	}
	t.Cleanup(func() { master.Close() })
	check(t, unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0))
	number, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	check(t, err)
	slave, err = os.OpenFile("/dev/pts/"+strconv.Itoa(number), os.O_RDWR|unix.O_NOCTTY, 0)
	check(t, err)
	return master, slave
}

func TestFaults(t *testing.T) {
	h := startRelay(t)
	if got := h.do("nil"); !strings.Contains(got, "nil pointer dereference") {
		t.Errorf("nil dereference: %s", got)
	}
	h.expectNoMore()

	for _, test := range []struct {
		command, env, stderr string
		status               syscall.WaitStatus
	}{
		{"fault", "GOTRACEBACK=single", "SIGSEGV: segmentation violation", 2 << 8},
		{"panic", "GOTRACEBACK=single", "panic: on purpose", 2 << 8},
		{"panic", "GOTRACEBACK=crash", "panic: on purpose", syscall.WaitStatus(unix.SIGABRT)}, // sends itself SIGQUIT
		{"self 6", "GOTRACEBACK=single", "SIGABRT: abort", 2 << 8},
		{"self 15", "GOTRACEBACK=single", "", syscall.WaitStatus(unix.SIGTERM)},
	} {
		h := start(t, func(cmd *exec.Cmd) { cmd.Env = append(cmd.Env, test.env) })
		check(t, unix.Prlimit(h.pid, unix.RLIMIT_CORE, &unix.Rlimit{}, nil))
		h.do("relay")
		begin := time.Now()
		h.command(test.command)
		hung := time.AfterFunc(patience, func() { _ = h.cmd.Process.Kill() })
		err := h.cmd.Wait()
		hung.Stop()
		if status := h.cmd.ProcessState.Sys().(syscall.WaitStatus); status != test.status {
			t.Errorf("%s, %s: %v", test.command, test.env, err)
		}
		if !strings.Contains(h.stderr.String(), test.stderr) {
			t.Errorf("%s, %s: stderr: %s", test.command, test.env, &h.stderr)
		}
		if took := time.Since(begin); took > 5*time.Second { // Go gives up waiting for its SIGQUIT after 10
			t.Errorf("%s, %s: took %v", test.command, test.env, took)
		}
	}
}

func TestStopRestores(t *testing.T) {
	h := startRelay(t) // the runtime opens two fds of its own
	h.do("stop")
	fds := h.number("fds")
	caught := h.statusSet("SigCgt")
	h.do("relay")
	if h.statusSet("SigCgt") == caught {
		t.Error("no handler was installed")
	}
	h.do("hold")
	h.kill(unix.SIGUSR1)
	h.do("held")
	h.kill(unix.SIGUSR2)
	for h.number("fill") == 0 { // until its handler has run
		time.Sleep(time.Millisecond)
	}
	h.do("stop-release")
	h.expect(unix.SIGUSR1, 0, false) // both were taken before
	h.expect(unix.SIGUSR2, 0, false)
	if got := h.statusSet("SigCgt"); got != caught {
		t.Errorf("caught: %#x, want %#x", got, caught)
	}
	if got := h.number("fds"); got != fds {
		t.Errorf("%d fds, want %d", got, fds)
	}

	h.queue(40, 7) // waits for the next relay
	h.do("relay")
	h.expect(40, 7, false)
	h.kill(unix.SIGTERM)
	h.expect(unix.SIGTERM, 0, false)
	h.do("stop")
	h.kill(unix.SIGTERM)
	h.expectKilledBy(unix.SIGTERM)
}

// Handlers may still be running, or about to, when the relay ends.
func TestStopUnderFire(t *testing.T) {
	h := startRelay(t)
	h.do("stop")
	fds := h.number("fds")
	h.command("cycle")
	sent := 0
	for {
		for _, sig := range []syscall.Signal{unix.SIGUSR1, unix.SIGCONT, unix.SIGWINCH} {
			h.kill(sig)
			sent++
		}
		select {
		case answer := <-h.answers:
			if answer != strconv.Itoa(fds) {
				t.Errorf("%s fds open, want %d", answer, fds)
			}
			t.Logf("%d sent, %d relayed", sent, len(h.events))
			return
		case <-h.events:
		default:
		}
	}
}

func TestStdioClosed(t *testing.T) {
	h := start(t, func(cmd *exec.Cmd) {
		cmd.Args = []string{"sh", "-c", `exec "$0" <&- >&- 2>&-`, cmd.Path}
		cmd.Args[3], _ = os.Executable()
		cmd.Path = "/bin/sh"
	})
	h.do("relay")
	h.kill(unix.SIGTERM)
	h.expect(unix.SIGTERM, 0, false)
	h.queue(34, 5)
	h.expect(34, 5, false)
	h.expectNoMore()
}

type receiverFunc func(syscall.Signal) error

func (f receiverFunc) SendSignal(sig syscall.Signal, _ int, _ bool) error {
	return f(sig)
}

func TestOneRelayAtATime(t *testing.T) {
	ignoreAll := receiverFunc(func(syscall.Signal) error { return nil })
	before := openFds()
	stop, err := Relay(t.Context(), ignoreAll)
	check(t, err)
	for fd, target := range openFds() {
		if flags, _ := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); flags&unix.FD_CLOEXEC == 0 && before[fd] == "" {
			t.Errorf("fd %d, %s, would leak into children", fd, target)
		}
	}
	if _, err := Relay(t.Context(), ignoreAll); err == nil || !strings.Contains(err.Error(), "a relay runs already") {
		t.Errorf("second relay: %v", err)
	}
	check(t, stop())
	check(t, stop())
	after := openFds()
	maps.DeleteFunc(after, func(_ int, target string) bool { return strings.HasPrefix(target, "anon_inode:[event") })
	for fd, target := range after {
		if before[fd] != target {
			t.Errorf("fd %d, %s, was left open", fd, target)
		}
	}
}

func TestContextEndsRelay(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	nothing := receiverFunc(func(syscall.Signal) error { return nil })
	_, err := Relay(ctx, nothing)
	check(t, err)
	cancel()
	for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		stop, err := Relay(t.Context(), nothing)
		if err == nil {
			check(t, stop())
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

func TestErrors(t *testing.T) {
	for _, test := range []struct {
		name  string
		errs  []error
		check func(error) bool
	}{
		{"first of two", []error{nil, unix.EPERM, unix.EAGAIN}, func(err error) bool { return errors.Is(err, unix.EPERM) }},
		{"ended", []error{os.ErrProcessDone, os.ErrProcessDone, os.ErrProcessDone}, func(err error) bool { return err == nil }},
	} {
		t.Run(test.name, func(t *testing.T) {
			var calls atomic.Int32
			done := make(chan struct{})
			stop, err := Relay(t.Context(), receiverFunc(func(syscall.Signal) error {
				n := calls.Add(1)
				if n == 3 {
					close(done)
				}
				return test.errs[n-1]
			}))
			check(t, err)
			for range 3 {
				check(t, syscall.Kill(os.Getpid(), 40))
			}
			select {
			case <-done:
			case <-time.After(patience):
				t.Errorf("%d calls", calls.Load())
			}
			if err := stop(); !test.check(err) {
				t.Errorf("stop: %v", err)
			}
		})
	}
}
