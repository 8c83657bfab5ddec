//go:build cgo

package signals

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/jailrun/jail/signals/internal/cfault"
)

// The test binary plays the process that relays. It takes commands on fd 4 and answers on fd 3: "ok" and
// what the command has to say, or "got" and a signal that its receiver got.
const (
	helperEnv = "SIGNALS_TEST_HELPER"
	execEnv   = "SIGNALS_TEST_EXEC" // "ignore 1 2 3" or "block 10": how the helper starts
)

func TestMain(m *testing.M) {
	if os.Getenv(helperEnv) != "" {
		if args := strings.Fields(os.Getenv(execEnv)); len(args) > 0 {
			execAgain(args[0], args[1:])
		}
		runHelper()
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

// execAgain executes the helper with these signals ignored or blocked and all others as init has them.
func execAgain(what string, numbers []string) {
	runtime.LockOSThread()
	for sig := 1; sig <= 64; sig++ {
		if sig != 34 { // a thread that starts now still needs its handler
			setAction(sig, 0)
		}
	}
	mask(unix.SIG_UNBLOCK, 1, 64)
	for _, number := range numbers {
		sig, err := strconv.Atoi(number)
		if err != nil {
			panic(err)
		}
		if what == "ignore" {
			setAction(sig, 1)
		} else {
			mask(unix.SIG_BLOCK, sig, sig)
		}
	}
	os.Unsetenv(execEnv)
	panic(syscall.Exec("/proc/self/exe", os.Args, os.Environ()))
}

// mask changes the calling thread's signal mask for all signals from first to last.
func mask(how, first, last int) {
	var set unix.Sigset_t
	for sig := first; sig <= last; sig++ {
		set.Val[0] |= 1 << (sig - 1)
	}
	if err := unix.PthreadSigmask(how, &set, nil); err != nil {
		panic(err)
	}
}

// recorder is the receiver of the helper.
type recorder struct {
	gate    sync.Mutex // held by the command "hold"
	waiting atomic.Int32
}

func (r *recorder) SendSignal(sig syscall.Signal, value int, group bool) error {
	r.waiting.Add(1)
	r.gate.Lock()
	defer r.gate.Unlock()
	r.waiting.Add(-1)
	say("got %d %d %v %d", int(sig), value, group, now())
	return nil
}

func say(format string, args ...any) {
	if _, err := syscall.Write(3, []byte(fmt.Sprintf(format, args...)+"\n")); err != nil {
		os.Exit(99) // the test has ended
	}
}

// now is the same clock in all processes.
func now() int64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		panic(err)
	}
	return ts.Nano()
}

func runHelper() {
	r := &recorder{}
	stop := func() error { return nil }
	commands := bufio.NewScanner(os.NewFile(4, "commands"))
	for commands.Scan() {
		answer := any("")
		switch command := strings.Fields(commands.Text()); command[0] {
		case "relay":
			var err error
			if stop, err = Relay(context.Background(), r); err != nil {
				panic(err)
			}
		case "stop":
			if err := stop(); err != nil {
				panic(err)
			}
		case "hold":
			r.gate.Lock()
		case "held": // wait until the receiver is called
			for r.waiting.Load() == 0 {
				time.Sleep(time.Millisecond)
			}
		case "release":
			r.gate.Unlock()
		case "stop-release":
			time.AfterFunc(50*time.Millisecond, r.gate.Unlock)
			if err := stop(); err != nil {
				panic(err)
			}
		case "shrink":
			size, err := unix.FcntlInt(pipeFd(), unix.F_SETPIPE_SZ, 4096)
			if err != nil {
				panic(err)
			}
			answer = size
		case "fill":
			answer = readable(pipeFd())
		case "unblock":
			Unblock()
		case "threads":
			go startThreads()
		case "short-threads":
			go startAndEndThreads()
		case "cycle":
			for range 300 {
				stop, err := Relay(context.Background(), r)
				if err != nil {
					panic(err)
				}
				time.Sleep(200 * time.Microsecond)
				if err := stop(); err != nil {
					panic(err)
				}
			}
			answer = len(openFds())
		case "fds":
			answer = len(openFds())
		case "nil":
			answer = nilDereference()
		case "fault":
			cfault.Fault()
		case "panic":
			panic("on purpose")
		case "pid":
			answer = os.Getpid()
		case "read-terminal":
			go func() {
				for {
					_, _ = syscall.Read(0, make([]byte, 1))
				}
			}()
		case "self":
			sig, _ := strconv.Atoi(command[1])
			if err := syscall.Kill(os.Getpid(), syscall.Signal(sig)); err != nil {
				panic(err)
			}
		default:
			panic("unknown command " + command[0])
		}
		say("ok %v", answer)
	}
}

// startThreads starts 500 threads one by one.
func startThreads() {
	for range 500 {
		go func() {
			runtime.LockOSThread()
			select {}
		}()
		time.Sleep(50 * time.Microsecond)
	}
}

// startAndEndThreads goes on for ever: a goroutine that ends locked to its thread ends the thread.
func startAndEndThreads() {
	for {
		done := make(chan struct{})
		go func() {
			runtime.LockOSThread()
			close(done)
		}()
		<-done
	}
}

func nilDereference() (answer any) {
	defer func() { answer = recover() }()
	var p *recorder
	return p.waiting.Load() //nolint:govet // on purpose
}

// openFds returns what the process has open, by number.
func openFds() map[int]string {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		panic(err)
	}
	fds := make(map[int]string)
	for _, entry := range entries {
		if target, err := os.Readlink("/proc/self/fd/" + entry.Name()); err == nil { // not ReadDir's own
			fd, _ := strconv.Atoi(entry.Name())
			fds[fd] = target
		}
	}
	return fds
}

// pipeFd finds the relay's pipe: the one that does not block.
func pipeFd() uintptr {
	for fd, target := range openFds() {
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
		if strings.HasPrefix(target, "pipe:") && err == nil && flags&unix.O_NONBLOCK != 0 && fd > 4 {
			return uintptr(fd)
		}
	}
	panic("no pipe")
}

func readable(fd uintptr) int {
	n, err := unix.IoctlGetInt(int(fd), unix.TIOCINQ)
	if err != nil {
		panic(err)
	}
	return n
}

// helper is the test's end of a helper.
type helper struct {
	t        *testing.T
	cmd      *exec.Cmd
	pid      int
	commands *os.File
	answers  chan string
	events   chan event
	stderr   strings.Builder
}

type event struct {
	sig   syscall.Signal
	value int
	group bool
	time  int64
}

const patience = 20 * time.Second

// start runs a helper; set may change its command before.
func start(t *testing.T, set func(*exec.Cmd)) *helper {
	t.Helper()
	h := &helper{t: t, answers: make(chan string, 1), events: make(chan event, 20000)}
	h.cmd = exec.Command("/proc/self/exe")
	h.cmd.Env = append(os.Environ(), helperEnv+"=1", execEnv+"=default")
	h.cmd.Stderr = &h.stderr
	// A process group of its own, which is not orphaned since the test is its parent.
	h.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if set != nil {
		set(h.cmd)
	}
	out, theirOut, err := os.Pipe()
	check(t, err)
	theirIn, in, err := os.Pipe()
	check(t, err)
	h.cmd.ExtraFiles = []*os.File{theirOut, theirIn}
	h.commands = in

	check(t, h.cmd.Start())
	h.pid = h.cmd.Process.Pid
	theirOut.Close()
	theirIn.Close()

	var reader sync.WaitGroup
	reader.Go(func() { h.read(out) })
	t.Cleanup(func() {
		_ = h.cmd.Process.Kill()
		_ = h.cmd.Wait() // an error where the test has waited
		reader.Wait()
		in.Close()
		out.Close()
	})
	return h
}

// startRelay runs a helper that relays.
func startRelay(t *testing.T) *helper {
	t.Helper()
	h := start(t, nil)
	h.do("relay")
	return h
}

func (h *helper) read(out *os.File) {
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if answer, ok := strings.CutPrefix(lines.Text(), "ok"); ok {
			h.answers <- strings.TrimSpace(answer)
			continue
		}
		var e event
		if _, err := fmt.Sscanf(lines.Text(), "got %d %d %t %d", &e.sig, &e.value, &e.group, &e.time); err != nil {
			panic(err)
		}
		h.events <- e
	}
}

func (h *helper) command(command string) {
	h.t.Helper()
	_, err := h.commands.WriteString(command + "\n")
	check(h.t, err)
}

// do gives a command and returns the answer.
func (h *helper) do(command string) string {
	h.t.Helper()
	h.command(command)
	select {
	case answer := <-h.answers:
		return answer
	case <-time.After(patience):
		h.t.Fatalf("no answer to %q; stderr: %s", command, &h.stderr)
		return ""
	}
}

func (h *helper) number(command string) int {
	h.t.Helper()
	n, err := strconv.Atoi(h.do(command))
	check(h.t, err)
	return n
}

func (h *helper) kill(sig syscall.Signal) {
	h.t.Helper()
	if err := syscall.Kill(h.pid, sig); err != nil {
		h.t.Fatalf("kill %v: %v", sig, err)
	}
}

// queue sends sig with a value and waits while the kernel's queue is full.
func (h *helper) queue(sig syscall.Signal, value int) {
	h.t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		err := sigqueue(h.pid, sig, value)
		if err == nil {
			return
		}
		if err != unix.EAGAIN || time.Now().After(deadline) {
			h.t.Fatalf("sigqueue %v: %v", sig, err)
		}
	}
}

func (h *helper) next() event {
	h.t.Helper()
	select {
	case e := <-h.events:
		return e
	case <-time.After(patience):
		h.t.Fatalf("no signal arrived; stderr: %s", &h.stderr)
		return event{}
	}
}

func (h *helper) expect(sig syscall.Signal, value int, group bool) {
	h.t.Helper()
	if e := h.next(); e.sig != sig || e.value != value || e.group != group {
		h.t.Fatalf("got signal %d, value %d, group %v; want %d, %d, %v", e.sig, e.value, e.group, sig, value, group)
	}
}

// expectNoMore sends two signals that are the last of their kinds, and nothing may come before them.
func (h *helper) expectNoMore() {
	h.t.Helper()
	h.kill(unix.SIGSYS)
	h.expect(unix.SIGSYS, 0, false)
	h.kill(64)
	h.expect(64, 0, false)
}

// wait returns the helper's next state.
func (h *helper) wait() syscall.WaitStatus {
	h.t.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(h.pid, &status, syscall.WUNTRACED|syscall.WNOHANG, nil)
		if err != nil && err != syscall.EINTR {
			h.t.Fatal(err)
		}
		if pid == h.pid {
			return status
		}
	}
	h.t.Fatalf("the helper runs on; stderr: %s", &h.stderr)
	return 0
}

func (h *helper) expectKilledBy(sig syscall.Signal) {
	h.t.Helper()
	if status := h.wait(); !status.Signaled() || status.Signal() != sig {
		h.t.Fatalf("status %#x, want killed by signal %d", status, sig)
	}
}

// state returns the letter of the state in /proc/PID/stat.
func (h *helper) state() string {
	h.t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", h.pid))
	check(h.t, err)
	_, after, _ := strings.Cut(string(stat), ") ")
	return after[:1]
}

// statusSet returns a signal set from /proc/PID/status.
func (h *helper) statusSet(name string) uint64 {
	h.t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", h.pid))
	check(h.t, err)
	_, after, _ := strings.Cut(string(status), name+":\t")
	line, _, _ := strings.Cut(after, "\n")
	set, err := strconv.ParseUint(line, 16, 64)
	check(h.t, err)
	return set
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
