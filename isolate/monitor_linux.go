//go:build cgo && (amd64 || arm64)

package isolate

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/jailrun/jail/internal/syscalls"
	"github.com/jailrun/jail/isolate/internal/jailinit"
)

// waitKillable is the first kernel where a call whose notification has been taken is not begun anew for each signal:
// SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV.
var waitKillable = [2]int{5, 19}

// monitor loads the filters as one that asks the launcher where they refuse, and for the calls that are watched. What
// they kill for, they kill for.
func (c *compiler) monitor(list []filter) error {
	s := c.spec
	refuse := func(problem string) error {
		if !s.Monitor && len(s.Notify) > 0 {
			return &SpecError{Field: "notify", Value: s.Notify[0].String(), Problem: problem}
		}
		return &SpecError{Field: "denied", Value: "true", Problem: problem}
	}
	if !slices.Contains(s.Promised, FileView) {
		return refuse("can't be had at level " + s.Level.String() + ", which refuses nothing, but from level " + User.String() + " up")
	}
	if !s.Process.NoNewPrivileges {
		return refuse("needs no_new_privs")
	}
	var filters []program // what is loaded last comes first
	var logged uint64
	for _, f := range slices.Backward(list) {
		p, err := readProgram(f.bpf)
		if err != nil {
			return &SpecError{Field: "seccomp", Value: f.name, Problem: err.Error()}
		}
		filters = append(filters, p)
		c.plan.monitored = append(c.plan.monitored, f.bpf)
		if f.log || s.FilterLog {
			logged = unix.SECCOMP_FILTER_FLAG_LOG
		}
	}
	if err := c.checkNotify(); err != nil {
		return err
	}
	_, numbers := calls()
	var watched []uint32
	for _, name := range slices.Concat(watchedCalls, changingCalls) {
		if nr, ok := numbers[name]; ok && c.watches(name) {
			watched = append(watched, nr)
		}
	}
	merged := asking(watched)
	if s.Monitor { // without an address it goes where the socket is connected to
		merged = askingWith(unix.SYS_SENDTO, 4).with(merged)
	}
	if s.Trace { // but for the one that the listener is sent by
		merged = program{{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_USER_NOTIF}}.except(unix.SYS_SENDMSG)
	}
	for _, p := range slices.Backward(filters) {
		merged = p.notifying().with(merged)
	}
	// The launcher gets the listener from a process that is under the filter already. Where it is not to send anything,
	// it may until it has, and what refuses that is loaded behind.
	sends := syscalls.Data{NR: unix.SYS_SENDMSG, Arch: nativeArch}
	var late []program
	for _, p := range filters {
		if verdict, byArguments := p.run(&sends); verdict != unix.SECCOMP_RET_ALLOW || byArguments {
			late = append(late, p.only(unix.SYS_SENDMSG, unix.SYS_SECCOMP))
		}
	}
	if late != nil {
		merged = merged.except(unix.SYS_SENDMSG, unix.SYS_SECCOMP)
	}
	if len(merged) > unix.BPF_MAXINSNS {
		return refuse(fmt.Sprintf("makes a filter of %d instructions of those that there are; the kernel takes %d", len(merged), unix.BPF_MAXINSNS))
	}
	flags := unix.SECCOMP_FILTER_FLAG_NEW_LISTENER | logged
	if k := c.host.Kernel; k[0] > waitKillable[0] || k[0] == waitKillable[0] && k[1] >= waitKillable[1] {
		flags |= unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
	}
	var meeting uint64
	if slices.ContainsFunc(s.Notify, func(n Notify) bool { return n.Kind == NotifyConnect && !filepath.IsAbs(n.What) }) {
		meeting = 1
	}
	c.add(SidePayload, Step{
		Op: "seccomp monitor", Path: s.allowListName(),
		wire: wire{op: jailinit.OpMonitor, a: uint64(len(merged)), b: flags, c: meeting, bytes: merged.bytes()},
	})
	for _, p := range slices.Backward(late) {
		c.add(SidePayload, Step{
			Op: "seccomp filter", Data: strconv.Itoa(len(p)) + " instructions",
			wire: wire{op: jailinit.OpFilter, a: uint64(len(p)), b: logged, bytes: p.bytes()},
		})
	}
	return nil
}

// watches says whether a call is looked at: all of them for a report, else those that may have to be made.
func (c *compiler) watches(call string) bool {
	return c.spec.Monitor || slices.ContainsFunc(c.spec.Notify, func(n Notify) bool {
		return strings.HasPrefix(call, string(n.Kind)) || call == "creat" && n.Kind == NotifyOpen
	})
}

func (s *Spec) allowListName() string {
	if s.AllowList == nil {
		return ""
	}
	return s.AllowList.Name
}

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

// wanted is what a call wants to do with a file.
type wanted struct{ read, write, exec, create, nothing bool }

// file is what an open or exec is about.
type file struct {
	name  string // absolute, as the payload has it
	path  string // the same without its dots
	want  wanted
	flags uint64 // of an open
}

// fileOf reads the arguments of an open or exec, once.
func (m *monitor) fileOf(n *notification, call string) (file, bool) {
	args, dir := n.Data.Args, int32(unix.AT_FDCWD)
	at, flags := args[0], args[1]
	switch call {
	case "creat":
		flags = unix.O_CREAT | unix.O_WRONLY | unix.O_TRUNC
	case "openat", "execveat":
		dir, at, flags = int32(args[0]), args[1], args[2]
	case "openat2":
		dir, at = int32(args[0]), args[1]
		var how [8]byte
		if got, err := readMemory(int(n.Pid), args[2], how[:]); err != nil || got < len(how) {
			return file{}, false
		}
		flags = binary.LittleEndian.Uint64(how[:])
	}
	f := file{want: wanted{exec: true}}
	if strings.HasPrefix(call, "open") || call == "creat" {
		mode := flags & unix.O_ACCMODE
		f.flags = flags
		f.want = wanted{
			read: mode != unix.O_WRONLY, write: mode != unix.O_RDONLY || flags&unix.O_TRUNC != 0,
			create: flags&unix.O_CREAT != 0, nothing: flags&unix.O_PATH != 0,
		}
	}
	name, ok := m.text(n, at)
	if !ok || name == "" {
		return file{}, false
	}
	return f, f.place(n, dir, name)
}

// place finds where a name is relative to.
func (f *file) place(n *notification, dir int32, name string) bool {
	if !filepath.IsAbs(name) {
		base := "/proc/" + strconv.Itoa(int(n.Pid)) + "/cwd"
		if dir != unix.AT_FDCWD {
			base = "/proc/" + strconv.Itoa(int(n.Pid)) + "/fd/" + strconv.Itoa(int(dir))
		}
		folder, err := os.Readlink(base)
		if err != nil || !filepath.IsAbs(folder) {
			return false
		}
		name = folder + "/" + name
	}
	f.name, f.path = name, filepath.Clean(name)
	return true
}

// rootOf opens the root that a caller looks paths up in, if its view is that of the Plan.
func (m *monitor) rootOf(n *notification) (int, bool) {
	proc := "/proc/" + strconv.Itoa(int(n.Pid))
	var space unix.Stat_t
	if err := unix.Stat(proc+"/ns/mnt", &space); err != nil {
		return -1, false
	}
	if m.space == 0 {
		m.space = space.Ino
	}
	if m.space != space.Ino {
		return -1, false // of its own making, as a jail's in the jail: our view is not what it sees
	}
	root, err := unix.Open(proc+"/root", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	return root, err == nil
}

// lookFile tells what the kernel is going to refuse of a file.
func (m *monitor) lookFile(n *notification, f file) Denial {
	for _, own := range []string{"/dev/fd", "/dev/stdin", "/dev/stdout", "/dev/stderr"} {
		if within(f.path, own) {
			return Denial{} // its own fds
		}
	}
	if rest, ok := strings.CutPrefix(f.path, "/proc/self/"); ok { // for us that would be ourselves
		f.name = ownProc(n) + "/" + rest
	}
	root, ok := m.rootOf(n)
	if !ok {
		return Denial{}
	}
	defer unix.Close(root)
	why, errno := m.judge(root, f.name, f.path, f.want, 0)
	if why == "" {
		return Denial{}
	}
	return Denial{Path: f.path, Errno: unix.ErrnoName(errno), Why: why}
}

// lookChange tells what the kernel is going to refuse of a call that makes, renames or removes a name. What is there
// already where one is to be made, or not there where one is to be removed, is no border.
func (m *monitor) lookChange(n *notification, call string) Denial {
	root, ok := m.rootOf(n)
	if !ok {
		return Denial{}
	}
	defer unix.Close(root)
	uses := pathUses(call)
	if strings.HasPrefix(call, "link") {
		slices.Reverse(uses) // the new name is looked at first
	}
	makes := !strings.HasPrefix(call, "rename") && !strings.HasPrefix(call, "unlink") && call != "rmdir"
	var found Denial
	var mounts []uint64
	for i, u := range uses {
		name, ok := m.text(n, n.Data.Args[u.path])
		dir := int32(unix.AT_FDCWD)
		if u.dir >= 0 {
			dir = int32(n.Data.Args[u.dir])
		}
		var f file
		if !ok || name == "" || !f.place(n, dir, name) {
			return Denial{}
		}
		var why Why
		var errno unix.Errno
		if u.folder {
			var mount uint64
			why, errno, mount = m.judgeName(root, f.path, makes, i == 0)
			mounts = append(mounts, mount)
		} else {
			why, errno = m.judge(root, f.name, f.path, wanted{nothing: true}, 0)
			if access, _ := m.plan.Access(f.path); why == "" && access == AccessClosed {
				why, errno = Closed, unix.EXDEV // what covers it is a mount
			}
		}
		if found.Why == "" && why != "" {
			found = Denial{Path: f.path, Errno: unix.ErrnoName(errno), Why: why}
		}
	}
	if found.Why != "" && len(mounts) == 2 && mounts[0] != mounts[1] && mounts[0] != 0 && mounts[1] != 0 {
		found.Errno = "EXDEV" // a rename looks at that first
	}
	return found
}

// judgeName is the border that making or removing a name is refused at, and the mount of its folder, 0 if it is not known.
func (m *monitor) judgeName(root int, path string, makes, first bool) (Why, unix.Errno, uint64) {
	dir := filepath.Dir(path)
	real, st, err := find(root, dir)
	if err != nil {
		why, errno := m.judge(root, dir, dir, wanted{nothing: true}, 0)
		return why, errno, 0
	}
	var folder unix.Statx_t
	_ = unix.Statx(root, strings.TrimPrefix(real, "/")+"/.", 0, unix.STATX_MNT_ID, &folder) // Linux 5.8
	name := filepath.Join(real, filepath.Base(path))
	var own unix.Stat_t
	there := unix.Fstatat(root, strings.TrimPrefix(name, "/"), &own, unix.AT_SYMLINK_NOFOLLOW) == nil
	if makes && there || !makes && first && !there {
		return "", 0, folder.Mnt_id
	}
	why, errno := m.judgeFile(root, real, &st, wanted{write: true, create: true})
	if why == "" && m.mounts && there {
		switch access, _ := m.plan.Access(name); access { // a mount, which can't be moved
		case AccessClosed:
			why, errno = Closed, unix.EBUSY
		case AccessRead, AccessExecute:
			why, errno = ReadOnly, unix.EBUSY
		}
	}
	return why, errno, folder.Mnt_id
}

// judge is the border that a file's use is refused at. name is absolute, as the payload has it; path is the same without
// its dots.
func (m *monitor) judge(root int, name, path string, want wanted, links int) (Why, unix.Errno) {
	real, st, err := find(root, name)
	switch {
	case err == nil:
		want.create = false
		return m.judgeFile(root, real, &st, want)
	case err == unix.EACCES:
		switch access, _ := m.plan.Access(path); access {
		case AccessClosed:
			return Closed, unix.EACCES
		case AccessNone:
			return NotInView, unix.EACCES
		default:
			return ByMode, unix.EACCES
		}
	case err == unix.ELOOP:
		return m.judgeMagic(root, filepath.Clean(name), want, links)
	case err != unix.ENOENT && err != unix.ENOTDIR:
		return "", 0
	}
	if access, _ := m.plan.Access(path); access == AccessClosed {
		return Closed, unix.EACCES
	}
	if _, shown := m.plan.HostPath(path); m.mounts && !m.rootfs && !shown && !within(path, "/proc") {
		if _, err := os.Lstat(path); err == nil || !want.exec && errnoOf(err) == unix.EACCES { // a search of PATH goes on
			return NotInView, unix.ENOENT
		}
	}
	if real, _, err := find(root, filepath.Dir(path)); err == nil && links < maxLinks { // a link that leads out of the view
		target := make([]byte, unix.PathMax)
		if got, err := unix.Readlinkat(root, strings.TrimPrefix(filepath.Join(real, filepath.Base(path)), "/"), target); err == nil && got > 0 {
			name := string(target[:got])
			if !filepath.IsAbs(name) {
				name = real + "/" + name
			}
			return m.judge(root, name, filepath.Clean(name), want, links+1)
		}
	}
	if want.create {
		if real, st, err := find(root, filepath.Dir(path)); err == nil {
			return m.judgeFile(root, real, &st, wanted{write: true, create: true})
		}
	}
	return "", 0
}

// maxLinks is how many links are followed for a report.
const maxLinks = 4

// judgeMagic judges a path by way of a link of /proc that leads to a file, not to a name.
func (m *monitor) judgeMagic(root int, path string, want wanted, links int) (Why, unix.Errno) {
	parts := strings.Split(path, "/") // "", "proc", "12", "root", …
	if len(parts) < 4 || parts[1] != "proc" || links == maxLinks {
		return "", 0
	}
	var st unix.Stat_t
	if unix.Fstatat(root, "proc/"+parts[2]+"/environ", &st, unix.AT_SYMLINK_NOFOLLOW) == nil && st.Uid != m.uid && !m.all {
		return OtherProcess, unix.EACCES
	}
	n := 4
	if parts[3] == "fd" {
		n = 5
	}
	target := make([]byte, unix.PathMax)
	got, err := unix.Readlinkat(root, strings.Join(parts[1:min(n, len(parts))], "/"), target)
	if err != nil || got == 0 || target[0] != '/' {
		return "", 0
	}
	name := string(target[:got]) + "/" + strings.Join(parts[min(n, len(parts)):], "/")
	return m.judge(root, name, filepath.Clean(name), want, links+1)
}

// judgeFile judges the use of a file that is there, or, to create one, of its folder; real has no links.
func (m *monitor) judgeFile(root int, real string, st *unix.Stat_t, want wanted) (Why, unix.Errno) {
	may := m.mayUse(root, real, st, want)
	readOnly := unix.EACCES
	if m.mounts && (may || want.create) { // else the mode is looked at first
		readOnly = unix.EROFS
	}
	access, _ := m.plan.Access(real)
	switch {
	case want.nothing:
		return "", 0
	case access == AccessClosed:
		return Closed, unix.EACCES
	case access == AccessNone && !m.mounts && !inEveryDev(real):
		return NotInView, unix.EACCES
	case access == AccessNone && m.mounts && want.write:
		return ReadOnly, readOnly
	case (access == AccessRead || access == AccessExecute) && want.write && st.Mode&unix.S_IFMT != unix.S_IFCHR:
		return ReadOnly, readOnly
	case (access == AccessRead || access == AccessWrite) && want.exec:
		return NoExecution, unix.EACCES
	}
	if may {
		return "", 0
	}
	if rest, ok := strings.CutPrefix(real, "/proc/"); ok && rest[0] >= '1' && rest[0] <= '9' {
		return OtherProcess, unix.EACCES
	}
	return ByMode, unix.EACCES
}

// inEveryDev says whether every view has it.
func inEveryDev(path string) bool {
	for _, d := range devices {
		if path == "/dev/"+d.name {
			return true
		}
	}
	return false
}

// find looks a path up as the payload would, with its root, and returns where it leads.
func find(root int, name string) (real string, st unix.Stat_t, err error) {
	fd, err := unix.Openat2(root, name, &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS})
	if err != nil {
		return "", st, err
	}
	defer unix.Close(fd)
	if err := unix.Fstat(fd, &st); err != nil {
		return "", st, err
	}
	real, err = os.Readlink("/proc/self/fd/" + strconv.Itoa(fd))
	if err == nil && !filepath.IsAbs(real) { // a pipe, a socket
		err = unix.EINVAL
	}
	if st.Nlink == 0 { // what covers a file that is denied has no name of its own
		real = strings.TrimSuffix(real, " (deleted)")
	}
	return real, st, err
}

// mayUse says whether owner and mode let the payload's uid, on all of the way. Other things, such as access control
// lists, it does not know.
func (m *monitor) mayUse(root int, real string, st *unix.Stat_t, want wanted) bool {
	var bits uint32
	for bit, wants := range map[uint32]bool{4: want.read, 2: want.write, 1: want.exec} {
		if wants {
			bits |= bit
		}
	}
	if m.all {
		return true
	}
	if !m.lets(st, bits) {
		return false
	}
	for dir := filepath.Dir(real); dir != "/"; dir = filepath.Dir(dir) {
		var st unix.Stat_t
		if unix.Fstatat(root, dir[1:], &st, unix.AT_SYMLINK_NOFOLLOW) == nil && !m.lets(&st, 1) {
			return false
		}
	}
	return true
}

func (m *monitor) lets(st *unix.Stat_t, bits uint32) bool {
	mode := st.Mode
	switch {
	case st.Uid == m.uid:
		mode >>= 6
	case slices.Contains(m.groups, int(st.Gid)):
		mode >>= 3
	}
	return mode&bits == bits
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

// address is that of a connect or bind.
func (m *monitor) address(n *notification) (text string, raw []byte) { return addressAt(n, 1, 2) }

// addressAt reads the address that an argument points to, once: for people, and as it is.
func addressAt(n *notification, at, length int) (text string, raw []byte) {
	raw = make([]byte, min(n.Data.Args[length], unix.SizeofSockaddrAny+16))
	if got, err := readMemory(int(n.Pid), n.Data.Args[at], raw); err != nil || got < 2 || got < len(raw) {
		return "", nil
	}
	switch family := binary.NativeEndian.Uint16(raw); {
	case family == unix.AF_INET && len(raw) >= 8:
		return plainAddress(netip.AddrPortFrom(netip.AddrFrom4([4]byte(raw[4:8])), binary.BigEndian.Uint16(raw[2:]))), raw
	case family == unix.AF_INET6 && len(raw) >= 24:
		return plainAddress(netip.AddrPortFrom(netip.AddrFrom16([16]byte(raw[8:24])), binary.BigEndian.Uint16(raw[2:]))), raw
	case family == unix.AF_UNIX && len(raw) > 2 && raw[2] == 0:
		return "@" + string(raw[3:]), raw
	case family == unix.AF_UNIX:
		path, _, _ := bytes.Cut(raw[2:], []byte{0})
		return string(path), raw
	default:
		return "family " + strconv.Itoa(int(family)), raw
	}
}

// lookConnect tells what the kernel is going to refuse of a connect.
func (m *monitor) lookConnect(n *notification, text string, raw []byte) Denial {
	if raw == nil {
		return Denial{}
	}
	refused := func(errno unix.Errno) Denial {
		return Denial{Argument: text, Errno: unix.ErrnoName(errno), Why: NoNetwork}
	}
	switch family := binary.NativeEndian.Uint16(raw); {
	case family == unix.AF_UNIX && strings.HasPrefix(text, "@"):
		if m.own && !listed("/proc/"+strconv.Itoa(int(n.Pid))+"/net/unix", text) {
			return refused(unix.ECONNREFUSED)
		}
	case family == unix.AF_UNIX && text != "":
		f := file{want: wanted{write: true}}
		if !f.place(n, unix.AT_FDCWD, text) {
			return Denial{}
		}
		d := m.lookFile(n, f)
		if d.Why == ReadOnly || d.Why == NotInView && !m.mounts {
			return Denial{} // neither a read-only mount nor Landlock closes a socket
		}
		return d
	case m.own && (family == unix.AF_INET || family == unix.AF_INET6):
		a, err := netip.ParseAddrPort(text)
		switch {
		case err != nil:
		case !a.Addr().IsLoopback() && !a.Addr().IsUnspecified():
			return refused(unix.ENETUNREACH)
		case isStream(n) && !listens("/proc/"+strconv.Itoa(int(n.Pid))+"/net/", a.Port()): // what listens there on the host is out of reach
			return refused(unix.ECONNREFUSED)
		}
	}
	return Denial{}
}

// isStream says whether a connect can be refused by who is not there.
func isStream(n *notification) bool {
	socket, err := socketOf(n)
	if err != nil {
		return false
	}
	defer unix.Close(socket)
	kind, err := unix.GetsockoptInt(socket, unix.SOL_SOCKET, unix.SO_TYPE)
	return err == nil && kind == unix.SOCK_STREAM
}

// listens says whether a socket listens on a port, in the lists of a folder of /proc.
func listens(dir string, port uint16) bool {
	const listening = "0A"
	for _, file := range []string{"tcp", "tcp6"} {
		text, err := os.ReadFile(dir + file)
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(text)) {
			words := strings.Fields(line)
			if len(words) > 3 && words[3] == listening && strings.HasSuffix(words[1], fmt.Sprintf(":%04X", port)) {
				return true
			}
		}
	}
	return false
}

// listed says whether a list of sockets has one of that name, which /proc writes with @ for every NUL.
func listed(file, name string) bool {
	text, err := os.ReadFile(file)
	if err != nil {
		return true
	}
	name = strings.ReplaceAll(name, "\x00", "@")
	for line := range strings.Lines(string(text)) {
		if strings.HasSuffix(strings.TrimSuffix(line, "\n"), " "+name) {
			return true
		}
	}
	return false
}
