//go:build cgo && (amd64 || arm64)

package isolate

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/jailrun/jail/cgroup"
	"github.com/jailrun/jail/isolate/internal/jailinit"
)

// Process is a jail that runs. Its methods are safe from any goroutine.
type Process struct {
	// Pid is jail-init's in this process's pid namespace: the jail's PID 1, or the parent of its payload.
	Pid int

	plan    *Plan
	host    *Host
	spec    *Spec
	control int // the socket to jail-init; closed by wait, under mu
	pidfd   int
	started time.Time
	first   jailinit.Record // jail-init's word that the payload runs
	payload int             // its pid, where that is of our pid namespace
	scratch *os.File        // holds the lock of the private TMPDIR
	tempDir string

	monitor *monitor // nil is none

	cgroup     *cgroup.Cgroup // nil is none
	usageBase  cgroup.Usage   // what it had counted, and what jail-init said, before the payload
	recordBase jailinit.Record

	done   chan struct{} // closed when nothing of the jail is left
	result Result        // complete when done is closed

	mu     sync.Mutex
	ended  bool
	cause  Reason // why we ended it
	timers []*time.Timer
}

func newProcess(l *launch, pid, pidfd, control int) *Process {
	p := &Process{Pid: pid, plan: l.plan, host: l.host, spec: l.spec, control: control, pidfd: pidfd, done: make(chan struct{})}
	p.result = Result{
		Level: l.spec.Level, GivenLevel: l.spec.Level, LostGuarantees: []Guarantee{}, LimitsHit: []string{}, Appeared: []string{}, Denied: []Denial{},
		ExitCode: -1, UID: l.plan.UID, GID: l.plan.GID, Identity: l.plan.Identity,
		UserMS: -1, SystemMS: -1, PeakMemoryBytes: -1, OOMKills: -1, OutputBytes: -1,
	}
	return p
}

// begin starts the clock of a payload that runs.
func (p *Process) begin(l *launch) {
	p.scratch, p.tempDir = l.scratchLock, l.scratch
	l.scratch, l.scratchLock = "", nil
	p.cgroup, p.usageBase, p.recordBase = l.cgroup, l.usageBase, l.recordBase
	l.cgroup = nil
	p.started = time.Now()
	if limit := l.spec.CPUTime; limit > 0 && p.cgroup != nil {
		go p.watchCPU(limit)
	}
	if t := l.spec.Timeout; t > 0 {
		p.after(t, func() { p.timeOut(l.spec.KillAfter) })
	}
}

// shortRun is how long wait blocks a thread. Most payloads end within it, and a thread that sleeps in the kernel wakes
// sooner than one that the runtime's poller has to be asked for.
const shortRun = 10 * time.Millisecond

// wait waits for jail-init's last word and for its end, and completes the Result. After shortRun no thread is blocked:
// the socket goes to the runtime's poller.
func (p *Process) wait() Result {
	socket := p.socket()
	r, told, _ := jailinit.Receive(socket.Read)
	for told && r.Kind != jailinit.RecordEnded {
		r, told, _ = jailinit.Receive(socket.Read)
	}
	p.reap()
	p.stopMonitor()
	if !told && !p.plan.pidNS && p.payload > 0 {
		// Somebody killed jail-init. The kernel has killed the payload with it, but not what it started; those that
		// stayed in its process group can be named.
		_ = unix.Kill(-p.payload, unix.SIGKILL)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ended = true
	for _, t := range p.timers {
		t.Stop()
	}
	socket.Close()
	unix.Close(p.pidfd)
	if p.scratch != nil {
		removeScratch(p.tempDir)
		p.scratch.Close()
	}
	if told { // not when it was asked for: Wait may come late
		p.result.WallMS = float64(r.TimeUS-p.first.TimeUS) / 1000
	} else {
		p.result.WallMS = milliseconds(time.Since(p.started))
	}
	if !told {
		r = p.first
	}
	if p.cgroup != nil {
		p.account(r)
		_ = p.cgroup.Remove()
	}
	p.conclude(r, told)
	p.result.Appeared = p.plan.appeared()
	close(p.done)
	return p.result
}

// socket is the control socket, ready to be read: with the record there already, or on the poller.
func (p *Process) socket() *os.File {
	if !readable(p.control, shortRun) {
		_ = unix.SetNonblock(p.control, true) // makes NewFile take the poller
	}
	return os.NewFile(uintptr(p.control), "jail-init")
}

// readable says whether fd can be read within d. A signal, such as those by which the runtime preempts, is no answer:
// poll(2) ends with EINTR even where it need not wait.
func readable(fd int, d time.Duration) bool {
	f := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	for {
		n, err := unix.Poll(f, int(d.Milliseconds()))
		if err != unix.EINTR {
			return n > 0
		}
	}
}

// conclude says what happened.
func (p *Process) conclude(r jailinit.Record, told bool) {
	res := &p.result
	res.Reason = SupervisorLost
	if told {
		status := unix.WaitStatus(r.Status)
		res.ReapedUserMS, res.ReapedSystemMS = float64(r.UserUS-p.first.UserUS)/1000, float64(r.SystemUS-p.first.SystemUS)/1000
		res.ReapedMaxRSSBytes = r.RSSKiB << 10
		if status.Signaled() {
			res.Reason, res.Signal = Signalled, signalName(int(status.Signal()))
			switch status.Signal() {
			case unix.SIGXCPU:
				res.LimitsHit = append(res.LimitsHit, "rlimit-cpu")
			case unix.SIGKILL: // the hard limit; it counts in ticks, which are up to a quarter more than what is used
				if hard, ok := p.cpuLimit(); ok && p.cause == "" && float64(r.UserUS+r.SystemUS) >= 0.75e6*float64(hard) {
					res.LimitsHit = append(res.LimitsHit, "rlimit-cpu")
				}
			case unix.SIGXFSZ:
				res.LimitsHit = append(res.LimitsHit, "rlimit-fsize")
			}
		} else {
			res.Reason, res.ExitCode = Exited, status.ExitStatus()
		}
	}
	if !told && res.OOMKills > 0 { // with memory.oom.group the kernel kills jail-init as well
		res.Reason, res.Signal = Signalled, "SIGKILL"
	}
	if res.Signal == "SIGKILL" && slices.Contains(res.LimitsHit, "memory") {
		res.Reason = MemoryExceeded
	}
	if p.cause != "" {
		res.Reason = p.cause
	}
	// Also where the payload ended before it was killed, and where the figures come from a later look, or none.
	if limit := p.spec.CPUTime; p.cause == CPUExceeded || limit > 0 && res.UserMS+res.SystemMS >= milliseconds(limit) {
		res.LimitsHit = append(res.LimitsHit, "cpu-time")
	}
	if p.cause == TimedOut {
		res.LimitsHit = append(res.LimitsHit, "timeout")
	}
}

// cpuLimit is the hard RLIMIT_CPU that was asked for, in seconds.
func (p *Process) cpuLimit() (hard uint64, ok bool) {
	for _, l := range p.spec.Process.Rlimits {
		if l.Type == "RLIMIT_CPU" {
			return l.Hard, true
		}
	}
	return 0, false
}

// reap waits for jail-init. With a pid namespace it ends when the kernel has killed everyone in it. ECHILD is a host
// program that reaps whatever it finds; what happened we know from the socket.
func (p *Process) reap() {
	for unix.Waitid(unix.P_PIDFD, p.pidfd, nil, unix.WEXITED, nil) == unix.EINTR {
	}
}

// abandon ends a jail whose payload does not run yet, or was only tried.
func (p *Process) abandon() {
	_ = unix.PidfdSendSignal(p.pidfd, unix.SIGKILL, nil, 0)
	p.reap()
	p.stopMonitor()
	unix.Close(p.pidfd)
	unix.Close(p.control)
}

// stopMonitor ends the answers to a jail that has ended.
func (p *Process) stopMonitor() {
	if p.monitor == nil {
		return
	}
	p.monitor.stop()
	p.result.Denied = append(p.result.Denied, p.monitor.list...)
	p.result.DeniedMore = p.monitor.more
}

// order sends a word to jail-init.
func (p *Process) order(o jailinit.Order) error {
	for deadline := time.Now().Add(orderPatience); ; time.Sleep(time.Millisecond) {
		err := p.tryOrder(o)
		// It has dozens of orders to read first, or somebody with its uid has stopped it.
		if err != unix.EAGAIN || time.Now().After(deadline) {
			return err
		}
	}
}

// orderPatience is how long an order waits for room in the socket.
const orderPatience = time.Second

func (p *Process) tryOrder(o jailinit.Order) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ended {
		return os.ErrProcessDone
	}
	for {
		_, err := unix.SendmsgN(p.control, o.Encode(), nil, nil, unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT)
		switch err {
		case unix.EINTR:
			continue
		case unix.EPIPE, unix.ECONNRESET, unix.ENOTCONN:
			return os.ErrProcessDone
		}
		return err
	}
}

// Signal sends a signal to the payload's first process; os.ErrProcessDone says that it has ended. os.Kill ends that
// process alone, and with it the jail; see Kill.
func (p *Process) Signal(sig os.Signal) error {
	s, ok := sig.(syscall.Signal)
	if !ok || s <= 0 || s > 64 {
		return &SpecError{Field: "signal", Value: fmt.Sprint(sig), Problem: "is not a signal of this system"}
	}
	return p.order(jailinit.Order{Kind: jailinit.OrderSignal, Signo: uint32(s)})
}

// SendSignal is Signal with all that can be said of one: real-time signals carry value, as sigqueue(3) does, and group
// sends it to the payload's whole process group, as a terminal does.
func (p *Process) SendSignal(sig syscall.Signal, value int, group bool) error {
	if sig <= 0 || sig > 64 {
		return &SpecError{Field: "signal", Value: sig.String(), Problem: "is not a signal of this system"}
	}
	o := jailinit.Order{Kind: jailinit.OrderSignal, Signo: uint32(sig), Value: int64(value)}
	if group {
		o.Group = 1
	} else if sig >= realTimeMin {
		o.Queued = 1
	}
	return p.order(o)
}

// killPatience is how long jail-init may take to kill the tree before it is killed itself.
const killPatience = 3 * time.Second

// Contains says whether the process that has this pid now, in the caller's pid namespace, is one of the jail: it descends
// from jail-init, which those inherit whose parents have died. Hold a pidfd and see that it has not ended after the call:
// then the pid was not another's meanwhile. Without a /proc nobody is.
func (p *Process) Contains(pid int) bool {
	for range maxDepth {
		if pid == p.Pid {
			return true
		}
		var err error
		if pid, err = strconv.Atoi(lastField("/proc/"+strconv.Itoa(pid)+"/status", "PPid:")); err != nil || pid <= 1 {
			return false
		}
	}
	return false
}

// maxDepth is more than any tree of processes has, and ends a walk among such that come and go.
const maxDepth = 1 << 16

// Kill kills every process of the jail.
func (p *Process) Kill() error {
	// A payload with jail-init's own uid may have stopped it, below namespaced.
	p.after(killPatience, p.killInit)
	return p.order(jailinit.Order{Kind: jailinit.OrderKill})
}

func (p *Process) killInit() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.ended {
		_ = unix.PidfdSendSignal(p.pidfd, unix.SIGKILL, nil, 0)
		if p.cgroup != nil {
			_ = p.cgroup.Kill()
		}
	}
}

func (p *Process) after(d time.Duration, f func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.ended {
		p.timers = append(p.timers, time.AfterFunc(d, f))
	}
}

// timeOut ends a jail whose time is over: SIGTERM first where the Spec gives it time to end by itself.
func (p *Process) timeOut(killAfter time.Duration) {
	if !p.setReason(TimedOut) {
		return
	}
	if killAfter <= 0 {
		_ = p.Kill()
		return
	}
	_ = p.SendSignal(unix.SIGTERM, 0, false)
	_ = p.SendSignal(unix.SIGCONT, 0, true) // a stopped process would not see it
	p.after(killAfter, func() { _ = p.Kill() })
}

// setReason remembers why the jail was ended; the first reason stays. It returns false where the payload had ended by
// itself.
func (p *Process) setReason(r Reason) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ended {
		return false
	}
	// The last word may be waiting to be read: then the payload has ended by itself.
	if readable(p.control, 0) {
		return false
	}
	if p.cause == "" {
		p.cause = r
	}
	return true
}

func isBrokenPipe(err error) bool { return errors.Is(err, syscall.EPIPE) }

// duplicate makes another descriptor of an open file. It is 3 or above: a write by os.File to 1 or 2 that finds nobody
// who reads ends the program.
func duplicate(f *os.File) (*os.File, error) {
	conn, err := f.SyscallConn()
	if err != nil {
		return nil, err
	}
	var fd int
	var errno error
	err = conn.Control(func(from uintptr) { fd, errno = unix.FcntlInt(from, unix.F_DUPFD_CLOEXEC, 3) })
	if err == nil {
		err = errno
	}
	if err != nil {
		return nil, &fs.PathError{Op: "duplicate", Path: f.Name(), Err: err}
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}

// unread is how many bytes a pipe holds.
func unread(pipe *os.File) (n int) {
	if conn, err := pipe.SyscallConn(); err == nil {
		_ = conn.Control(func(fd uintptr) { n, _ = unix.IoctlGetInt(int(fd), unix.TIOCINQ) })
	}
	return n
}

func errnoOf(err error) syscall.Errno {
	var errno syscall.Errno
	errors.As(err, &errno)
	return errno
}

// errnoText is the cause alone, without the operation.
func errnoText(err error) string {
	var path *fs.PathError
	if errors.As(err, &path) {
		return path.Err.Error()
	}
	return err.Error()
}
