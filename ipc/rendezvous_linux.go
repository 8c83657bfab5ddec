//go:build amd64 || arm64

package ipc

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// rendezvous is the folder where launchers of one user meet. Each that has a segment of some name keeps a socket there,
// KEY@RANDOM, and gives the segment to who connects. Who wants it asks one of them after the other; if there is none he
// makes the segment and a socket. All of that happens under the folder's flock, so there is never a second segment of a
// name, whoever is killed when; and as each who has it serves it, nobody has to take over from another.
//
// The RANDOM is a secret: a payload with the user's uid that can't list the folder, but may connect to sockets (as
// Landlock lets it), does not find it. So the socket gets its name after bind, whose path /proc/net/unix shows to all.
type rendezvous struct {
	folder   func() (string, error)
	patience time.Duration // how long another launcher may take to answer, and to leave the folder's lock
	parts    sync.WaitGroup

	mu  sync.Mutex
	dir *os.File // nil until it is needed
}

// keeper is a socket there.
type keeper struct {
	rendezvous *rendezvous
	name       string
	listener   *os.File
	write      bool

	mu      sync.Mutex
	segment *Segment // nil when it was given back
}

// RendezvousFolder returns where launchers of this user meet: $XDG_RUNTIME_DIR/jail/ipc, or /run/jail/ipc-UID.
func RendezvousFolder() (string, error) {
	if dir := os.Getenv("XDG_RUNTIME_DIR"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "jail", "ipc"), nil
	}
	return "/run/jail/ipc-" + strconv.Itoa(os.Geteuid()), nil
}

// meet returns the segment that q names, of another launcher or newly made.
func (b *Broker) meet(q segmentRequest) (*Segment, *keeper, error) {
	r := b.rendezvous
	dir, err := r.open()
	if err != nil {
		return nil, nil, err
	}
	unlock, err := r.lock(dir)
	if err != nil {
		return nil, nil, err
	}
	defer unlock()

	file, write, err := r.ask(dir, q.key)
	if err != nil {
		return nil, nil, err
	}
	if file != nil {
		if q.access == 0 || write != (q.access == accessWrite) {
			file.Close()
			return nil, nil, refuse(statusConflict, "a jail of another launcher has it: it is published already, or of the other kind")
		}
		if !write {
			segment, err := OpenReadOnly(file)
			return segment, nil, err // its owner's launcher has it to give, until that jail's session is over
		}
	}
	var segment *Segment
	switch {
	case file != nil:
		segment, err = Open(file)
	case q.access == accessRead:
		err = refuse(statusNotReady, "nobody has published it yet")
	default:
		segment, err = q.create()
	}
	if err != nil {
		return nil, nil, err
	}
	kept, err := r.keep(dir, q.key, segment, q.access == accessWrite)
	if err != nil {
		_ = segment.Close() // an unmap of what is mapped can't fail
		return nil, nil, err
	}
	return segment, kept, nil
}

func (r *rendezvous) open() (*os.File, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.dir != nil {
		return r.dir, nil
	}
	path, err := r.folder()
	if err != nil {
		return nil, err
	}
	for _, p := range []string{filepath.Dir(path), path} {
		mode := fs.FileMode(0o700)
		if p == "/run/jail" {
			mode = 0o755
		}
		if err := os.Mkdir(p, mode); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, fmt.Errorf("rendezvous: %w", err)
		}
	}
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("rendezvous: open %s: %w", path, err)
	}
	dir := os.NewFile(uintptr(fd), path)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		dir.Close()
		return nil, fmt.Errorf("rendezvous: fstat %s: %w", path, err)
	}
	if int(st.Uid) != os.Geteuid() || st.Mode&0o077 != 0 {
		dir.Close()
		return nil, fmt.Errorf("rendezvous: %s belongs to uid %d and has mode %#o: %w", path, st.Uid, st.Mode&0o7777, unix.EPERM)
	}
	r.dir = dir
	return dir, nil
}

// close waits for the keepers, which are closed already.
func (r *rendezvous) close() {
	r.parts.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.dir != nil {
		r.dir.Close()
		r.dir = nil
	}
}

// lock waits for the folder's lock, which the kernel drops with its holder.
func (r *rendezvous) lock(dir *os.File) (unlock func(), err error) {
	fd, err := unix.Openat(int(dir.Fd()), ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("rendezvous: open %s: %w", dir.Name(), err)
	}
	for pause, start := time.Millisecond, time.Now(); ; pause = min(2*pause, 50*time.Millisecond) {
		err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { unix.Close(fd) }, nil
		}
		if err != unix.EINTR && err != unix.EWOULDBLOCK || time.Since(start) > r.patience {
			unix.Close(fd)
			return nil, fmt.Errorf("rendezvous: flock %s: %w", dir.Name(), err)
		}
		time.Sleep(pause)
	}
}

// inside returns a path of a file in dir that is short enough for a socket's address, whatever dir's own is.
func inside(dir *os.File, name string) *unix.SockaddrUnix {
	return &unix.SockaddrUnix{Name: "/proc/self/fd/" + strconv.Itoa(int(dir.Fd())) + "/" + name}
}

// ask returns the segment of that name that another launcher has, or nil, and whether all may write to it. The folder
// is locked.
func (r *rendezvous) ask(dir *os.File, key string) (file *os.File, write bool, err error) {
	entries, err := os.ReadDir("/proc/self/fd/" + strconv.Itoa(int(dir.Fd())))
	if err != nil {
		return nil, false, fmt.Errorf("rendezvous: read %s: %w", dir.Name(), err)
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), key+"@") {
			continue
		}
		file, write, askErr := r.askKeeper(dir, e.Name())
		switch {
		case askErr == nil:
			return file, write, nil
		case errors.Is(askErr, unix.ECONNREFUSED): // of one that was killed
			if err := unix.Unlinkat(int(dir.Fd()), e.Name(), 0); err != nil && err != unix.ENOENT {
				return nil, false, fmt.Errorf("rendezvous: unlink %s: %w", e.Name(), err)
			}
		case errors.Is(askErr, unix.ENOENT), errors.Is(askErr, errLeft): // it has given it back
		default:
			err = askErr
		}
	}
	// Who has it and does not answer has it none the less: there must be no other.
	return nil, false, err
}

// errLeft is a keeper that was closed while it was asked.
var errLeft = errors.New("the keeper has gone")

func (r *rendezvous) askKeeper(dir *os.File, name string) (file *os.File, write bool, err error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, false, fmt.Errorf("rendezvous: socket: %w", err)
	}
	sock, err := newSocket(fd, 1)
	if err != nil {
		return nil, false, fmt.Errorf("rendezvous: %w", err)
	}
	defer sock.file.Close()
	if err := unix.Connect(fd, inside(dir, name)); err != nil { // EAGAIN: it is stuck, and its backlog is full
		return nil, false, fmt.Errorf("rendezvous: connect %s: %w", name, err)
	}
	if err := sameUser(fd); err != nil {
		return nil, false, err
	}
	if err := sock.file.SetReadDeadline(time.Now().Add(r.patience)); err != nil {
		return nil, false, err
	}
	reply, err := sock.receive()
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, false, fmt.Errorf("rendezvous: %s does not answer: %w", name, unix.ETIMEDOUT)
	case err != nil:
		return nil, false, errLeft
	case reply.Status != statusOK:
		return nil, false, fmt.Errorf("rendezvous: %s: %w", name, answerError(&reply.message))
	case reply.file() == nil:
		return nil, false, fmt.Errorf("rendezvous: %s: %w", name, ErrProtocol)
	}
	return reply.file(), reply.A == accessWrite, nil
}

func sameUser(fd int) error {
	credentials, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return fmt.Errorf("rendezvous: getsockopt SO_PEERCRED: %w", err)
	}
	if int(credentials.Uid) != os.Geteuid() {
		return fmt.Errorf("rendezvous: peer has uid %d: %w", credentials.Uid, unix.EPERM)
	}
	return nil
}

// keep serves the segment to other launchers until the keeper is closed. The folder is locked.
func (r *rendezvous) keep(dir *os.File, key string, segment *Segment, write bool) (*keeper, error) {
	fail := func(op string, err error) error { return fmt.Errorf("rendezvous: %s in %s: %w", op, dir.Name(), err) }
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fail("socket", err)
	}
	k := &keeper{rendezvous: r, name: key + "@" + rand.Text(), listener: os.NewFile(uintptr(fd), key), write: write, segment: segment}
	const unnamed = ".new"
	if err := unix.Unlinkat(int(dir.Fd()), unnamed, 0); err != nil && err != unix.ENOENT {
		k.listener.Close()
		return nil, fail("unlink", err)
	}
	if err := unix.Bind(fd, inside(dir, unnamed)); err != nil {
		k.listener.Close()
		return nil, fail("bind", err)
	}
	err = unix.Listen(fd, 64)
	if err == nil {
		err = unix.Renameat(int(dir.Fd()), unnamed, int(dir.Fd()), k.name)
	}
	if err != nil {
		k.listener.Close()
		return nil, fail("listen", err)
	}
	r.parts.Go(func() {
		acceptAll(k.listener, k.answer)
	})
	return k, nil
}

func (k *keeper) answer(fd int) {
	if sameUser(fd) != nil {
		unix.Close(fd)
		return
	}
	sock, err := newSocket(fd, 1)
	if err != nil {
		return
	}
	defer sock.file.Close()
	request := message{Kind: kindMemory}
	file, err := k.share()
	if errors.Is(err, os.ErrClosed) {
		return
	}
	reply := answerTo(&request, err)
	if err == nil {
		defer file.Close()
		reply.A = accessRead
		if k.write {
			reply.A = accessWrite
		}
	}
	if sock.file.SetWriteDeadline(time.Now().Add(k.rendezvous.patience)) == nil {
		_ = sock.send(&reply, oneOrNone(file)) // who does not wait for it does not get it
	}
}

func (k *keeper) share() (*os.File, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case k.segment == nil:
		return nil, os.ErrClosed
	case k.write:
		return k.segment.Share()
	default:
		return k.segment.ShareReadOnly()
	}
}

// close makes the name free, if no other launcher has it. Who is just asking is told that it has gone.
func (k *keeper) close() {
	k.mu.Lock()
	k.segment = nil
	k.mu.Unlock()
	k.listener.Close()
	_ = unix.Unlinkat(int(k.rendezvous.dir.Fd()), k.name, 0) // who finds it finds nobody there, and removes it
}
