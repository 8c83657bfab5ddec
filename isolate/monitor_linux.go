//go:build cgo && (amd64 || arm64)

package isolate

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/jailrun/jail/internal/syscalls"
	"github.com/jailrun/jail/isolate/internal/jailinit"
)

// monitor answers the calls of a jail that wait for it. It runs until stop, or the jail's end.
type monitor struct {
	listener int
	wake     int // an eventfd: stop
	ended    chan struct{}

	plan    *Plan
	filters []program // of the Plan
	uid     uint32
	groups  []int
	mounts  bool   // the view is made of mounts, not by Landlock
	rootfs  bool   // and not of the host's files
	own     bool   // the network is the jail's own
	space   uint64 // the mount namespace of the first call, which is the payload's exec
	all     bool   // modes do not count: it has capabilities
	caps    uint64 // that the payload is given
	report  bool   // all denials, not only of what is listed

	deputy *deputy
	tracer *tracer // nil is none
	denials
}

// startMonitor begins to answer. It owns the listener and the meeting, -1 where there is none.
func startMonitor(l *launch, listener, meeting int) (*monitor, error) {
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		unix.Close(listener)
		if meeting >= 0 {
			unix.Close(meeting)
		}
		return nil, os.NewSyscallError("eventfd", err)
	}
	m := &monitor{
		listener: listener, wake: wake, ended: make(chan struct{}), plan: l.plan,
		uid: uint32(l.plan.UID), groups: []int{l.plan.GID},
		mounts: slices.Contains(l.plan.Given, PrivateMounts), rootfs: l.spec.Root != nil,
		own: slices.Contains(l.plan.Given, PrivateNetwork), report: l.spec.Monitor,
		deputy: newDeputy(l, listener, wake, meeting),
	}
	if l.spec.Trace {
		m.tracer = newTracer()
		m.tracer.calls["sendmsg"] = true // see monitor
	}
	if l.host.UID != 0 { // an ordinary user can't give them up
		m.groups = append(m.groups, l.host.Groups...)
	}
	for _, s := range l.plan.Steps {
		if s.wire.op == jailinit.OpCaps && s.Side == SidePayload {
			m.caps = s.wire.a
			m.all = m.caps&(1<<unix.CAP_DAC_OVERRIDE|1<<unix.CAP_DAC_READ_SEARCH) != 0
		}
	}
	if m.tracer != nil {
		m.tracer.capsKnown = m.caps & unseenCaps
		for _, name := range formatCapabilities(m.tracer.capsKnown) {
			m.tracer.capabilities[name] = ""
		}
	}
	for _, bytes := range l.plan.monitored {
		p, err := readProgram(bytes)
		if err != nil {
			panic(err) // Compile has read it
		}
		m.filters = append(m.filters, p)
	}
	// The payload's thread sleeps while we answer: the same CPU is the warm one. Linux 6.6; without it all is slower.
	_, _, _ = unix.Syscall(unix.SYS_IOCTL, uintptr(listener), unix.SECCOMP_IOCTL_NOTIF_SET_FLAGS, unix.SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP)
	go m.serve()
	return m, nil
}

// stop ends the answers: what still waits, or comes, gets ENOSYS. Who calls it may read the denials then.
func (m *monitor) stop() {
	m.wakeAll()
	<-m.ended
	unix.Close(m.wake)
}

// wakeAll ends what waits. Nobody reads it: so it stays.
func (m *monitor) wakeAll() {
	_, _ = unix.Write(m.wake, []byte{1, 0, 0, 0, 0, 0, 0, 0})
}

// serve answers one call after the other. A listener that does not work any more is closed: then the kernel refuses.
func (m *monitor) serve() {
	defer close(m.ended)
	defer unix.Close(m.listener)
	defer m.deputy.close() // which may still have to answer
	defer m.wakeAll()
	f := []unix.PollFd{{Fd: int32(m.listener), Events: unix.POLLIN}, {Fd: int32(m.wake), Events: unix.POLLIN}}
	for {
		_, err := unix.Poll(f, -1)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil, f[1].Revents != 0, f[0].Revents&unix.POLLIN == 0:
			return
		}
		n, err := receiveNotification(m.listener)
		if err == unix.ENOENT {
			continue // it was killed, or a signal came
		}
		if err != nil {
			return
		}
		r, now := m.answer(&n)
		if !now {
			continue
		}
		r.ID = n.ID
		if err := respond(m.listener, r); err != nil && err != unix.ENOENT {
			return
		}
	}
}

// answer is what a call gets, or false where it gets it from somebody else, or not at all. A filter's refusal is ours to
// give, and stands on the call's registers alone. What Notify lists is ours, by a copy of the arguments. All else is left
// to the kernel, which looks at the call's memory itself: what we have read there is for the report.
func (m *monitor) answer(n *notification) (response, bool) {
	call := callName(&n.Data)
	refuse := func(errno unix.Errno) (response, bool) {
		d := Denial{Call: call, Errno: unix.ErrnoName(errno), Why: ByFilter}
		if n.Data.Arch == nativeArch {
			d.Path, d.Argument = m.describe(n, call)
		}
		m.tell(d)
		return response{Error: -int32(errno)}, true
	}
	switch verdict := verdictOf(m.filters, &n.Data); verdict & unix.SECCOMP_RET_ACTION_FULL {
	case unix.SECCOMP_RET_ERRNO:
		return refuse(unix.Errno(verdict & unix.SECCOMP_RET_DATA))
	case unix.SECCOMP_RET_USER_NOTIF, unix.SECCOMP_RET_TRACE: // nobody else is there to be asked
		return refuse(unix.ENOSYS)
	case unix.SECCOMP_RET_ALLOW, unix.SECCOMP_RET_LOG:
	default:
		return refuse(unix.EPERM)
	}
	if m.tracer != nil {
		m.trace(n, call)
		if !watches(n, call) {
			return response{Flags: unix.SECCOMP_USER_NOTIF_FLAG_CONTINUE}, true
		}
	}
	if !watches(n, call) {
		return refuse(unix.EPERM) // nothing that is allowed waits for us
	}
	// Whose memory it was, we know only if the call still waits when it has been read.
	var d Denial
	switch {
	case call == "sendto":
		address, raw := addressAt(n, 4, 5)
		d = m.lookConnect(n, address, raw)
	case slices.Contains(changingCalls, call):
		d = m.lookChange(n, call)
	case call == "connect":
		address, raw := m.address(n)
		if !waits(m.listener, n.ID) {
			return response{}, false
		}
		if m.deputy.connects(address) {
			m.deputy.begin(*n, address)
			return response{}, false
		}
		d = m.lookConnect(n, address, raw)
	default:
		f, ok := m.fileOf(n, call)
		if !waits(m.listener, n.ID) {
			return response{}, false
		}
		if source, listed := m.deputy.files[f.path]; ok && listed && !f.want.exec {
			return m.open(n, call, f, source)
		}
		if ok {
			d = m.lookFile(n, f)
		}
	}
	if d.Why != "" && waits(m.listener, n.ID) {
		d.Call = call
		m.tell(d)
	}
	return response{Flags: unix.SECCOMP_USER_NOTIF_FLAG_CONTINUE}, true
}

// watches says whether a call is one that is looked at.
func watches(n *notification, call string) bool {
	return n.Data.Arch == nativeArch && (call == "sendto" || slices.Contains(watchedCalls, call) || slices.Contains(changingCalls, call))
}

// open gives the caller what is listed. The answer goes with the file.
func (m *monitor) open(n *notification, call string, f file, source string) (response, bool) {
	_, errno := m.deputy.openFor(n, source, f.want, f.flags)
	if errno == 0 {
		return response{}, false
	}
	m.tell(Denial{Call: call, Path: f.path, Errno: unix.ErrnoName(errno), Why: ByNotify})
	return response{Error: -int32(errno)}, true
}

// tell reports what was asked to be reported.
func (m *monitor) tell(d Denial) {
	if m.report || d.Why == ByNotify {
		m.add(d)
	}
}

// callName is a call's name, or number where it is another ABI's.
func callName(d *syscalls.Data) string {
	const x32 = 1 << 30
	names, _ := calls()
	switch name := names[d.NR&^x32]; {
	case d.Arch == nativeArch && name != "":
		return name
	case d.Arch == unix.AUDIT_ARCH_I386:
		return "i386 call " + strconv.Itoa(int(d.NR))
	}
	return "call " + strconv.Itoa(int(d.NR))
}

// describe is what is told of a call that a filter refuses.
func (m *monitor) describe(n *notification, call string) (path, argument string) {
	if i, ok := pathArgument(call); ok {
		path, _ = m.text(n, n.Data.Args[i])
	}
	if i, ok := plainArgument(call); ok {
		argument = fmt.Sprintf("%#x", n.Data.Args[i])
	}
	if call == "connect" {
		argument, _ = m.address(n)
	}
	if !waits(m.listener, n.ID) {
		return "", ""
	}
	return path, argument
}

// text reads a path from the caller's memory, once.
func (m *monitor) text(n *notification, from uint64) (string, bool) {
	buf := make([]byte, unix.PathMax)
	for have := 0; have < len(buf); {
		// To the end of a page: most paths take one call.
		part := min(len(buf)-have, pageSize-int((from+uint64(have))%pageSize))
		got, err := readMemory(int(n.Pid), from+uint64(have), buf[have:have+part])
		if i := bytes.IndexByte(buf[have:have+got], 0); i >= 0 {
			return string(buf[:have+i]), true
		}
		if err != nil || got < part {
			break
		}
		have += got
	}
	return "", false // not readable, or too long: the kernel says EFAULT or ENAMETOOLONG
}

// lastField is the last word of a line of a file in /proc.
func lastField(file, line string) string {
	text, err := os.ReadFile(file)
	if err != nil {
		return ""
	}
	for l := range strings.Lines(string(text)) {
		if words := strings.Fields(l); len(words) > 1 && words[0] == line {
			return words[len(words)-1]
		}
	}
	return ""
}

// ownProc is the folder in /proc of who makes a call, as it sees it.
func ownProc(n *notification) string {
	return "/proc/" + lastField("/proc/"+strconv.Itoa(int(n.Pid))+"/status", "NStgid:")
}
