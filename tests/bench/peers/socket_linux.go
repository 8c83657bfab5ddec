package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// openListener gives the other process a listening socket: so nobody has to wait until it listens.
func openListener(c config) (*os.File, any, error) {
	path := filepath.Join(os.TempDir(), fmt.Sprintf("jail-bench-%d", os.Getpid()))
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, nil, err
	}
	l.SetUnlinkOnClose(false)
	f, err := l.File()
	return f, path, errors.Join(err, l.Close())
}

// dial connects to the socket of openListener. Its file has done its duty then.
func dial(path string) (net.Conn, error) {
	conn, err := net.Dial("unix", path)
	if err != nil {
		return nil, err
	}
	return conn, os.Remove(path)
}

func accept(f *os.File) (net.Conn, error) {
	l, err := net.FileListener(f)
	if err != nil {
		return nil, err
	}
	return l.Accept()
}

func connectUnix(c config, ours any) (operation, error) {
	conn, err := dial(ours.(string))
	if err != nil {
		return nil, err
	}
	if c.test == "fds" {
		return receiveFDs(conn.(*net.UnixConn), c.bytes), nil
	}
	message := make([]byte, c.bytes)
	return repeat(func() error {
		if c.test != "stream" {
			if _, err := conn.Write(message); err != nil {
				return err
			}
		}
		_, err := io.ReadFull(conn, message)
		return err
	}), nil
}

func serveUnix(c config, f *os.File) error {
	conn, err := accept(f)
	if err != nil {
		return err
	}
	if c.test == "fds" {
		return sendFDs(conn.(*net.UnixConn), c.bytes)
	}
	for message := make([]byte, c.bytes); ; {
		if c.test != "stream" {
			if _, err := io.ReadFull(conn, message); err != nil {
				return err
			}
		}
		if _, err := conn.Write(message); err != nil {
			return err
		}
	}
}

func sendFDs(conn *net.UnixConn, each int) error {
	fd, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	fds := make([]int, each)
	for i := range fds {
		fds[i] = fd
	}
	rights := unix.UnixRights(fds...)
	for {
		if _, _, err := conn.WriteMsgUnix([]byte{0}, rights, nil); err != nil {
			return err
		}
	}
}

// receiveFDs takes what sendFDs sends, at least n descriptors, and closes them.
func receiveFDs(conn *net.UnixConn, each int) operation {
	// One byte: on a stream a longer read ends at the next message with descriptors anyway.
	data, control := make([]byte, 1), make([]byte, unix.CmsgSpace(each*4))
	receive := func() error {
		_, size, _, _, err := conn.ReadMsgUnix(data, control)
		if err != nil {
			return err
		}
		messages, err := unix.ParseSocketControlMessage(control[:size])
		if err != nil || len(messages) != 1 {
			return fmt.Errorf("a message without descriptors: %w", err)
		}
		fds, err := unix.ParseUnixRights(&messages[0])
		for _, fd := range fds {
			unix.Close(fd)
		}
		return err
	}
	return func(n int) (done int, err error) {
		for ; done < n && err == nil; done += each {
			err = receive()
		}
		return done, err
	}
}

// openPair gives the other process one end of a pair of SOCK_SEQPACKET sockets.
func openPair(config) (*os.File, any, error) {
	ends, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	return os.NewFile(uintptr(ends[1]), "pair"), ends[0], nil
}

// seqpacket is a socket for raw system calls. Spinning is MSG_DONTWAIT over and over.
type seqpacket struct {
	fd, flags int
	message   []byte
}

func newSeqpacket(c config, fd int) seqpacket {
	s := seqpacket{fd: fd, message: make([]byte, c.bytes)}
	if c.spin {
		s.flags = unix.MSG_DONTWAIT
	}
	return s
}

func (s seqpacket) out() error {
	for {
		if err := unix.Send(s.fd, s.message, s.flags|unix.MSG_NOSIGNAL); err != unix.EAGAIN && err != unix.EINTR {
			return err
		}
	}
}

func (s seqpacket) in() error {
	for {
		n, _, err := unix.Recvfrom(s.fd, s.message, s.flags)
		if err == nil && n != len(s.message) {
			return io.ErrUnexpectedEOF
		}
		if err != unix.EAGAIN && err != unix.EINTR {
			return err
		}
	}
}

func connectSeqpacket(c config, ours any) (operation, error) {
	s := newSeqpacket(c, ours.(int))
	return repeat(func() error {
		if c.test != "stream" {
			if err := s.out(); err != nil {
				return err
			}
		}
		return s.in()
	}), nil
}

func serveSeqpacket(c config, f *os.File) error {
	s := newSeqpacket(c, int(f.Fd()))
	for {
		if c.test != "stream" {
			if err := s.in(); err != nil {
				return err
			}
		}
		if err := s.out(); err != nil {
			return err
		}
	}
}
