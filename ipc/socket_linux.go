//go:build amd64 || arm64

package ipc

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// socket is one end of a SOCK_SEQPACKET connection. One goroutine may receive while one sends.
type socket struct {
	file *os.File
	raw  syscall.RawConn
	in   [maxMessage + 1]byte // one more than is allowed: a longer packet is seen to be too long
	out  []byte
	oob  []byte
	most int // fds that a packet may bring
}

// received is a packet and what came with it. The receiver owns the fds.
type received struct {
	message
	files       []*os.File
	credentials *unix.Ucred
	pidfd       int // -1: none came; another negative number is the errno with which the kernel could not make it
}

func (r *received) close() {
	for _, f := range r.files {
		f.Close()
	}
	if r.pidfd >= 0 {
		unix.Close(r.pidfd)
	}
}

// file is what came where one fd is expected, or nil.
func (r *received) file() *os.File {
	if len(r.files) != 1 {
		return nil
	}
	return r.files[0]
}

// malformedError is a packet that no honest peer sends.
type malformedError struct{ problem string }

func (e *malformedError) Error() string { return "malformed packet: " + e.problem }

// newSocket takes fd over. A packet that is received may bring so many fds.
func newSocket(fd, most int) (*socket, error) {
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("fcntl: %w", err)
	}
	file := os.NewFile(uintptr(fd), "ipc socket")
	raw, err := file.SyscallConn()
	if err != nil {
		file.Close()
		return nil, err
	}
	// Room for what an honest peer sends. A message with more fds is truncated: the kernel makes no fd beyond.
	oob := unix.CmsgSpace(unix.SizeofUcred) + unix.CmsgSpace(4) + unix.CmsgSpace(4*most)
	return &socket{file: file, raw: raw, out: make([]byte, 0, maxMessage), oob: make([]byte, oob), most: most}, nil
}

// receive returns the next packet. The error is io.EOF at the end, [*malformedError] (all fds are closed then), or that
// of the system call.
func (s *socket) receive() (received, error) {
	var n, oobn, flags int
	var err error
	readErr := s.raw.Read(func(fd uintptr) bool {
		for {
			n, oobn, flags, _, err = unix.Recvmsg(int(fd), s.in[:], s.oob, unix.MSG_DONTWAIT|unix.MSG_CMSG_CLOEXEC)
			if err != unix.EINTR {
				return err != unix.EAGAIN
			}
		}
	})
	if readErr != nil {
		return received{}, readErr
	}
	if err != nil {
		return received{}, fmt.Errorf("recvmsg: %w", err)
	}
	r, fds, err := parseControl(s.oob[:oobn])
	if len(fds) <= s.most {
		for _, fd := range fds {
			r.files = append(r.files, os.NewFile(uintptr(fd), "received"))
		}
	} else {
		CloseFDs(fds)
	}
	switch {
	case err != nil:
	case n == 0 && len(fds) == 0:
		err = io.EOF // an empty packet looks the same, and nobody has reason to send one
	case len(fds) > s.most || flags&(unix.MSG_CTRUNC|unix.MSG_TRUNC) != 0:
		err = &malformedError{"it is too long or brings too many fds"}
	default:
		r.message, err = parseMessage(s.in[:n])
		switch {
		case err != nil:
			err = &malformedError{err.Error()}
		case int(r.FDs) != len(fds):
			err = &malformedError{fmt.Sprintf("%d fds came, it says %d", len(fds), r.FDs)}
		}
	}
	if err != nil {
		r.close()
		return received{}, err
	}
	return r, nil
}

func parseControl(oob []byte) (r received, fds []int, err error) {
	r.pidfd = -1
	controls, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return r, nil, fmt.Errorf("control message: %w", err)
	}
	for _, c := range controls {
		if c.Header.Level != unix.SOL_SOCKET {
			continue
		}
		switch c.Header.Type {
		case unix.SCM_RIGHTS:
			rights, err := unix.ParseUnixRights(&c)
			if err != nil {
				return r, fds, fmt.Errorf("SCM_RIGHTS: %w", err)
			}
			fds = append(fds, rights...)
		case unix.SCM_CREDENTIALS:
			if r.credentials, err = unix.ParseUnixCredentials(&c); err != nil {
				return r, fds, fmt.Errorf("SCM_CREDENTIALS: %w", err)
			}
		case unix.SCM_PIDFD:
			if len(c.Data) >= 4 {
				r.pidfd = int(int32(binary.NativeEndian.Uint32(c.Data)))
			}
		}
	}
	return r, fds, nil
}

// send sends m with files, and waits until the write deadline for the peer to make room.
func (s *socket) send(m *message, files []*os.File) error {
	m.FDs = uint16(len(files))
	if len(files) == 0 {
		return s.write(m, nil)
	}
	return withFDs(files, nil, func(fds []int) error { return s.write(m, unix.UnixRights(fds...)) })
}

func oneOrNone(f *os.File) []*os.File {
	if f == nil {
		return nil
	}
	return []*os.File{f}
}

// withFDs appends the files' fds to fds and calls use. It holds one file after the other, so that none can be closed, and
// its number another's, meanwhile.
func withFDs(files []*os.File, fds []int, use func(fds []int) error) error {
	if len(files) == 0 {
		return use(fds)
	}
	raw, err := files[0].SyscallConn() // Fd would make a pipe of the caller's blocking
	if err != nil {
		return err
	}
	controlErr := raw.Control(func(fd uintptr) { err = withFDs(files[1:], append(fds, int(fd)), use) })
	if controlErr != nil {
		return fmt.Errorf("file %s: %w", files[0].Name(), os.ErrClosed)
	}
	return err
}

// unread is how much memory the packets take that were sent and that the peer has not read yet.
func (s *socket) unread() (n int, err error) {
	controlErr := s.raw.Control(func(fd uintptr) { n, err = unix.IoctlGetInt(int(fd), unix.SIOCOUTQ) })
	return n, errors.Join(controlErr, err)
}

func (s *socket) write(m *message, oob []byte) error {
	s.out = appendMessage(s.out[:0], m)
	var err error
	writeErr := s.raw.Write(func(fd uintptr) bool {
		err = sendPacket(int(fd), s.out, oob)
		return err != unix.EAGAIN
	})
	if writeErr != nil {
		return writeErr
	}
	if err != nil {
		return fmt.Errorf("sendmsg: %w", err)
	}
	return nil
}

// trySend sends m if there is room for it, also when the deadlines have passed.
func (s *socket) trySend(m *message) {
	packet := appendMessage(nil, m)
	_ = s.raw.Control(func(fd uintptr) { _ = sendPacket(int(fd), packet, nil) }) // a peer that is gone can't be told
}

func sendPacket(fd int, packet, oob []byte) error {
	for {
		_, err := unix.SendmsgN(fd, packet, oob, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
		if err != unix.EINTR {
			return err
		}
	}
}

// past is a deadline that is over.
var past = time.Unix(1, 0)

// stop makes receive and send return with [os.ErrDeadlineExceeded].
func (s *socket) stop() { _ = s.file.SetDeadline(past) } // only a closed file refuses, and there nobody waits

// socketPair returns both ends of a connection, blocking and close-on-exec.
func socketPair() (ours, theirs int, err error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, -1, fmt.Errorf("socketpair: %w", err)
	}
	return pair[0], pair[1], nil
}

// isReset says that the peer closed its end while packets of ours were unread: what it sent before can be read still.
func isReset(err error) bool { return errors.Is(err, unix.ECONNRESET) }
