//go:build cgo && (amd64 || arm64)

package isolate

import (
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// checkNotify refuses what could not be done, and finds the files.
func (c *compiler) checkNotify() error {
	for _, n := range c.spec.Notify {
		refuse := func(problem string) error { return &SpecError{Field: "notify", Value: n.String(), Problem: problem} }
		if p, err := ParseNotify(n.String()); err != nil || p != n {
			return refuse("is not written as ParseNotify gives it")
		}
		if n.Kind == NotifyConnect {
			if !filepath.IsAbs(n.What) && !c.spec.hasNamespace(specs.NetworkNamespace) {
				return refuse("is for a jail with a network of its own; here the payload reaches it without")
			}
			continue
		}
		f := c.host.Look(n.What)
		switch {
		case f.Err != nil:
			return refuse("can't be opened: " + errnoText(f.Err))
		case f.Mode&unix.S_IFMT != unix.S_IFREG:
			return refuse("is not a regular file: the payload would have more than what can be read from it")
		}
		c.plan.opens = append(c.plan.opens, given{path: n.What, source: f.Real})
	}
	return nil
}

// deputy does what a monitor has been asked to do for the payload. Its methods but open are safe from any goroutine.
type deputy struct {
	listener int
	wake     int
	meeting  int // listens in the jail's network; -1 is none
	notify   []Notify
	files    map[string]string // by the path that the payload says
	copies   map[string]int    // memfds, made at the first open

	pending sync.WaitGroup
	room    chan struct{} // a place for each connection
	meet    sync.Mutex    // held while the meeting's next connection is awaited
	mu      sync.Mutex
	ended   bool
	open    map[*os.File]bool // of connections
}

// Bounds of what a payload can make the launcher hold.
const (
	maxCopy        = 16 << 20
	maxConnections = 64
	dialPatience   = 10 * time.Second
)

func newDeputy(l *launch, listener, wake, meeting int) *deputy {
	d := &deputy{
		listener: listener, wake: wake, meeting: meeting, notify: l.spec.Notify,
		files: map[string]string{}, copies: map[string]int{}, room: make(chan struct{}, maxConnections), open: map[*os.File]bool{},
	}
	for _, g := range l.plan.opens {
		d.files[g.path] = g.source
	}
	return d
}

// close ends all that is under way. The wake of its monitor has been written to.
func (d *deputy) close() {
	d.mu.Lock()
	d.ended = true
	for f := range d.open {
		f.Close()
	}
	d.mu.Unlock()
	d.pending.Wait()
	for _, fd := range d.copies {
		unix.Close(fd)
	}
	if d.meeting >= 0 {
		unix.Close(d.meeting)
	}
}

// openFor gives the caller a copy of a listed file. A copy, since an fd of the file itself could be opened anew through
// /proc/self/fd, for writing too where the payload has its owner's uid, past every border of the view.
func (d *deputy) openFor(n *notification, source string, want wanted, flags uint64) (val int, errno unix.Errno) {
	if want.write || want.create || want.nothing || flags&unix.O_DIRECTORY != 0 {
		return 0, unix.EACCES
	}
	copied, known := d.copies[source]
	if !known {
		var err error
		if copied, err = copyFile(source); err != nil {
			return 0, errnoOr(err, unix.EACCES)
		}
		d.copies[source] = copied
	}
	// An open file of its own: another's offset is not its own.
	fd, err := unix.Open("/proc/self/fd/"+strconv.Itoa(copied), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, errnoOr(err, unix.EACCES)
	}
	defer unix.Close(fd)
	val, err = addFD(d.listener, n.ID, fd, -1, uint32(flags&unix.O_CLOEXEC))
	if err != nil {
		return 0, errnoOr(err, unix.EMFILE)
	}
	return val, 0
}

func errnoOr(err error, other unix.Errno) unix.Errno {
	if errno := errnoOf(err); errno != 0 {
		return errno
	}
	return other
}

// copyFile makes a sealed copy in memory. The path has no links; one that came since is not followed.
func copyFile(path string) (int, error) {
	how := unix.OpenHow{Flags: unix.O_RDONLY | unix.O_CLOEXEC | unix.O_NONBLOCK | unix.O_NOCTTY, Resolve: unix.RESOLVE_NO_SYMLINKS}
	fd, err := unix.Openat2(unix.AT_FDCWD, path, &how)
	if err != nil {
		return -1, err
	}
	f := os.NewFile(uintptr(fd), path)
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return -1, unix.EACCES
	}
	text, err := io.ReadAll(io.LimitReader(f, maxCopy+1))
	switch {
	case err != nil:
		return -1, err
	case len(text) > maxCopy:
		return -1, unix.EFBIG
	}
	return sealed(text)
}

// sealed is a memfd with a text that nobody can change.
func sealed(text []byte) (int, error) {
	fd, err := unix.MemfdCreate("copy", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING|unix.MFD_NOEXEC_SEAL)
	if err == unix.EINVAL { // before Linux 6.3
		fd, err = unix.MemfdCreate("copy", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	}
	if err != nil {
		return -1, err
	}
	_, err = unix.Write(fd, text)
	if err == nil {
		_, err = unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_SEAL|unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_WRITE)
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// connects says whether a connect is listed.
func (d *deputy) connects(address string) bool {
	return slices.Contains(d.notify, Notify{NotifyConnect, address})
}

// begin makes a connection for the caller, and answers.
func (d *deputy) begin(n notification, address string) {
	d.pending.Add(1)
	go func() {
		defer d.pending.Done()
		errno := d.connectFor(&n, address)
		_ = respond(d.listener, response{ID: n.ID, Error: -int32(errno)})
	}()
}

// connectFor connects the caller's socket. One of IP stays where it is, in the jail's network: it is connected to our
// meeting there, and what it sends goes on from here. A socket of our own network in the payload's hands could be
// connected to anything.
func (d *deputy) connectFor(n *notification, address string) unix.Errno {
	select {
	case d.room <- struct{}{}:
	default:
		return unix.EAGAIN
	}
	kept := false
	defer func() {
		if !kept {
			<-d.room
		}
	}()
	socket, err := socketOf(n)
	if err != nil {
		return unix.EACCES
	}
	defer unix.Close(socket)
	if !waits(d.listener, n.ID) { // whose socket is it?
		return unix.EINTR
	}
	domain, err := unix.GetsockoptInt(socket, unix.SOL_SOCKET, unix.SO_DOMAIN)
	kind, err2 := unix.GetsockoptInt(socket, unix.SOL_SOCKET, unix.SO_TYPE)
	if err != nil || err2 != nil || kind != unix.SOCK_STREAM {
		return unix.EPROTOTYPE
	}
	to, family := unix.Sockaddr(&unix.SockaddrUnix{Name: address}), unix.AF_UNIX
	if !filepath.IsAbs(address) {
		to, family = inetAddress(netip.MustParseAddrPort(address))
	}
	if (family == unix.AF_UNIX) != (domain == unix.AF_UNIX) {
		return unix.EAFNOSUPPORT
	}
	outer, errno := d.dial(family, to)
	if errno != 0 {
		return errno
	}
	if family == unix.AF_UNIX {
		defer unix.Close(outer)
		return d.replace(n, socket, outer)
	}
	inner, errno := d.join(domain, socket)
	if errno != 0 {
		unix.Close(outer)
		return errno
	}
	if errno := d.pass(inner, outer); errno != 0 {
		return errno
	}
	kept = true
	return 0
}

// socketOf is a copy of the socket that a connect is about.
func socketOf(n *notification) (int, error) {
	group, err := strconv.Atoi(lastField("/proc/"+strconv.Itoa(int(n.Pid))+"/status", "Tgid:"))
	if err != nil {
		return -1, err
	}
	pidfd, err := unix.PidfdOpen(group, 0)
	if err != nil {
		return -1, err
	}
	defer unix.Close(pidfd)
	return unix.PidfdGetfd(pidfd, int(int32(n.Data.Args[0])), 0)
}

func inetAddress(a netip.AddrPort) (unix.Sockaddr, int) {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}, unix.AF_INET
	}
	return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}, unix.AF_INET6
}

// dial connects a socket of our own. It waits for dialPatience, or the monitor's end.
func (d *deputy) dial(family int, to unix.Sockaddr) (int, unix.Errno) {
	s, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, errnoOr(err, unix.EACCES)
	}
	err = unix.Connect(s, to)
	if err == unix.EINPROGRESS {
		err = d.connected(s)
	}
	if err != nil {
		unix.Close(s)
		return -1, errnoOr(err, unix.EACCES)
	}
	return s, 0
}

// connected waits until a connect that was begun has come to its end.
func (d *deputy) connected(s int) error {
	f := []unix.PollFd{{Fd: int32(s), Events: unix.POLLOUT}, {Fd: int32(d.wake), Events: unix.POLLIN}}
	deadline := time.Now().Add(dialPatience)
	for {
		n, err := unix.Poll(f, int(time.Until(deadline).Milliseconds()))
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return err
		case n == 0:
			return unix.ETIMEDOUT
		case f[1].Revents != 0:
			return unix.EINTR
		}
		code, err := unix.GetsockoptInt(s, unix.SOL_SOCKET, unix.SO_ERROR)
		if err == nil && code != 0 {
			err = unix.Errno(code)
		}
		return err
	}
}

// replace puts a connected socket in the place of the caller's, with its flags.
func (d *deputy) replace(n *notification, old, connected int) unix.Errno {
	flags, err := unix.FcntlInt(uintptr(old), unix.F_GETFL, 0)
	if err == nil {
		_, err = unix.FcntlInt(uintptr(connected), unix.F_SETFL, flags&unix.O_NONBLOCK)
	}
	if err != nil {
		return errnoOr(err, unix.EACCES)
	}
	info := "/proc/" + strconv.Itoa(int(n.Pid)) + "/fdinfo/" + strconv.Itoa(int(int32(n.Data.Args[0])))
	octal, err := strconv.ParseUint(lastField(info, "flags:"), 8, 32)
	if err != nil {
		return unix.EBADF
	}
	if _, err := addFD(d.listener, n.ID, connected, int(int32(n.Data.Args[0])), uint32(octal&unix.O_CLOEXEC)); err != nil {
		return errnoOr(err, unix.EACCES)
	}
	return 0
}

// join connects the caller's own socket to our meeting in the jail's network, and returns the other end.
func (d *deputy) join(domain, socket int) (int, unix.Errno) {
	d.meet.Lock()
	defer d.meet.Unlock()
	at, err := unix.Getsockname(d.meeting)
	meeting, ok := at.(*unix.SockaddrInet4)
	if err != nil || !ok {
		return -1, unix.EACCES
	}
	loopback := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(meeting.Port))
	to := unix.Sockaddr(&unix.SockaddrInet4{Port: meeting.Port, Addr: loopback.Addr().As4()})
	if domain == unix.AF_INET6 {
		to = &unix.SockaddrInet6{Port: meeting.Port, Addr: loopback.Addr().As16()}
	}
	// The caller's may block, and what the payload does to its own network must not hold us up. It waits for us.
	flags, err := unix.FcntlInt(uintptr(socket), unix.F_GETFL, 0)
	if err == nil {
		_, err = unix.FcntlInt(uintptr(socket), unix.F_SETFL, flags|unix.O_NONBLOCK)
	}
	if err == nil {
		err = unix.Connect(socket, to)
	}
	if err == unix.EINPROGRESS {
		err = d.connected(socket)
	}
	_, _ = unix.FcntlInt(uintptr(socket), unix.F_SETFL, flags)
	if err != nil {
		return -1, errnoOr(err, unix.EACCES)
	}
	port, err := portOf(unix.Getsockname(socket))
	if err != nil {
		return -1, errnoOr(err, unix.EACCES)
	}
	// The payload may connect to the meeting itself: it is let go of.
	for range unix.SOMAXCONN {
		if !readable(d.meeting, dialPatience) {
			break
		}
		s, peer, err := unix.Accept4(d.meeting, unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
		if err != nil {
			return -1, errnoOr(err, unix.EACCES)
		}
		if p, err := portOf(peer, nil); err == nil && p == port {
			return s, 0
		}
		unix.Close(s)
	}
	return -1, unix.ECONNABORTED
}

func portOf(a unix.Sockaddr, err error) (int, error) {
	switch a := a.(type) {
	case *unix.SockaddrInet4:
		return a.Port, err
	case *unix.SockaddrInet6:
		return a.Port, err
	}
	return 0, unix.EAFNOSUPPORT
}

// pass passes on what comes, both ways, until both are at their end.
func (d *deputy) pass(inner, outer int) unix.Errno {
	a, b := os.NewFile(uintptr(inner), "jail"), os.NewFile(uintptr(outer), "outside")
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.ended {
		a.Close()
		b.Close()
		return unix.EINTR
	}
	d.open[a], d.open[b] = true, true
	d.pending.Add(1)
	go func() {
		defer d.pending.Done()
		defer func() { <-d.room }()
		var both sync.WaitGroup
		both.Go(func() { passOn(a, b) })
		both.Go(func() { passOn(b, a) })
		both.Wait()
		d.mu.Lock()
		defer d.mu.Unlock()
		for _, f := range []*os.File{a, b} {
			f.Close()
			delete(d.open, f)
		}
	}()
	return 0
}

// passOn copies to the end, and tells it on.
func passOn(to, from *os.File) {
	_, _ = io.Copy(struct{ io.Writer }{to}, struct{ io.Reader }{from}) // not by splice(2), whose pipes Go keeps for later
	shutdown(to, unix.SHUT_WR)
	shutdown(from, unix.SHUT_RD)
}

func shutdown(socket *os.File, how int) {
	if conn, err := socket.SyscallConn(); err == nil {
		_ = conn.Control(func(fd uintptr) { _ = unix.Shutdown(int(fd), how) })
	}
}
