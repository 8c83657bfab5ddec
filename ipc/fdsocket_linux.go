//go:build amd64 || arm64

package ipc

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// FDSocket passes fds to another process, over one end of a pair of SOCK_SEQPACKET sockets: each message is a byte or
// more and up to [MaxFDs] fds, and arrives whole or not at all, in order. The other end can be an FDSocket or anything else that
// speaks SCM_RIGHTS, and it may be hostile: nothing that it sends leaves an fd here that was not asked for.
//
// Messages are sent and received as files, or as fds by number, which is faster: no file is made, and none is watched by
// the collector. What was sent stays open at the sender. What is received is close-on-exec and belongs to the caller.
// It can be anything that has an fd: look at it (fstat) before reading or writing.
//
// An FDSocket is safe for concurrent use: those who send take turns, and so do those who receive. A message is sent
// before it is received. When the other side is dead, what it has sent is received first.
type FDSocket struct {
	file *os.File
	raw  syscall.RawConn
	in   transfer
	out  transfer
}

// transfer is the state of one direction. It is kept, and not made for each message, as it would go to the heap.
type transfer struct {
	turn     chan struct{} // has room for whose turn it is
	once     func(fd uintptr) bool
	deadline func(time.Time) error

	ctx       context.Context
	stop      func() bool   // nil while nobody watches ctx
	expired   chan struct{} // closed when the deadline is set
	data      []byte
	control   [unix.SizeofCmsghdr + 4*MaxFDs]byte
	room      int // bytes of control: what is to be sent, or where it is received to
	n         int // bytes of data that came
	came      int // bytes of control that came
	flags     int
	err       error
	saidReset bool
}

// NewFDSocket takes over f, a connected SOCK_SEQPACKET socket, also where it fails. The socket does not block any more,
// for whoever else has it.
func NewFDSocket(f *os.File) (*FDSocket, error) {
	fd, err := takeSeqpacket(f)
	if err != nil {
		return nil, wrap("use", f.Name(), err)
	}
	file := os.NewFile(uintptr(fd), f.Name())
	raw, err := file.SyscallConn()
	if err == nil {
		err = file.SetDeadline(time.Time{}) // it fails where the poller could not take the socket
	}
	if err != nil {
		file.Close()
		return nil, wrap("use", f.Name(), err)
	}
	s := &FDSocket{file: file, raw: raw}
	s.in = transfer{turn: make(chan struct{}, 1), once: s.in.receive, deadline: file.SetReadDeadline}
	s.out = transfer{turn: make(chan struct{}, 1), once: s.out.send, deadline: file.SetWriteDeadline}
	return s, nil
}

// takeSeqpacket closes f and returns a copy of its fd that can be waited for with the poller.
func takeSeqpacket(f *os.File) (int, error) {
	defer f.Close()
	raw, err := f.SyscallConn()
	if err != nil {
		return -1, err
	}
	fd := -1
	controlErr := raw.Control(func(old uintptr) {
		var domain, kind int
		domain, err = unix.GetsockoptInt(int(old), unix.SOL_SOCKET, unix.SO_DOMAIN)
		if err == nil {
			kind, err = unix.GetsockoptInt(int(old), unix.SOL_SOCKET, unix.SO_TYPE)
		}
		switch {
		case err != nil:
			err = fmt.Errorf("getsockopt: %w", err)
		case domain != unix.AF_UNIX || kind != unix.SOCK_SEQPACKET:
			err = fmt.Errorf("it is no SOCK_SEQPACKET socket of Unix: %w", unix.EPROTOTYPE)
		default:
			if fd, err = unix.FcntlInt(old, unix.F_DUPFD_CLOEXEC, 0); err != nil {
				err = fmt.Errorf("fcntl F_DUPFD_CLOEXEC: %w", err)
			} else if err = unix.SetNonblock(fd, true); err != nil {
				unix.Close(fd)
				err = fmt.Errorf("fcntl F_SETFL: %w", err)
			}
		}
	})
	return fd, errors.Join(controlErr, err)
}

// FDSocketPair returns one end, and the other as a file, for a process to inherit: close it here then, or nobody is told
// when that process is dead.
func FDSocketPair() (*FDSocket, *os.File, error) {
	ours, theirs, err := socketPair()
	if err != nil {
		return nil, nil, wrap("make", "fd socket", err)
	}
	file := os.NewFile(uintptr(theirs), "fd socket")
	s, err := NewFDSocket(os.NewFile(uintptr(ours), "fd socket"))
	if err != nil {
		file.Close()
		return nil, nil, err
	}
	return s, file, nil
}

// Close closes this end, and with the last copy of it what was sent to it and not received. Who waits gets [ErrClosed].
func (s *FDSocket) Close() error { return s.file.Close() }

// Send sends data and copies of the files' fds. It waits for room until ctx is done: the other side has to read. The
// kernel bounds what is under way by RLIMIT_NOFILE too, for all processes of a user without CAP_SYS_RESOURCE together
// (ETOOMANYREFS); then Send tries again until ctx is done. With an error nothing was sent: [ErrBroken] where the other end
// is closed, EMSGSIZE where data does not fit into the socket's buffer.
func (s *FDSocket) Send(ctx context.Context, data []byte, files ...*os.File) error {
	return wrap("send", s.file.Name(), withFDs(files, make([]int, 0, len(files)), func(fds []int) error { return s.send(ctx, data, fds) }))
}

// SendFDs is Send for fds by number, which must stay open until it returns.
func (s *FDSocket) SendFDs(ctx context.Context, data []byte, fds ...int) error {
	return wrap("send", s.file.Name(), s.send(ctx, data, fds))
}

func (s *FDSocket) send(ctx context.Context, data []byte, fds []int) error {
	t := &s.out
	switch {
	case len(fds) > MaxFDs:
		return fmt.Errorf("%d fds, of %d: %w", len(fds), MaxFDs, unix.EINVAL)
	case len(data) == 0:
		return fmt.Errorf("no data, which would look like the end: %w", unix.EINVAL)
	}
	if err := t.begin(ctx, data); err != nil {
		return err
	}
	defer t.end()
	t.room = 0
	if len(fds) > 0 {
		t.room = unix.CmsgLen(4 * len(fds))
		b := binary.NativeEndian.AppendUint64(t.control[:0], uint64(t.room))
		b = binary.NativeEndian.AppendUint32(b, unix.SOL_SOCKET)
		b = binary.NativeEndian.AppendUint32(b, unix.SCM_RIGHTS)
		for _, fd := range fds {
			b = binary.NativeEndian.AppendUint32(b, uint32(fd))
		}
	}
	for pause := time.Millisecond; ; pause = min(2*pause, 100*time.Millisecond) {
		err := t.wait(s.raw.Write)
		switch {
		case err == nil:
			return nil
		case errors.Is(err, unix.ETOOMANYREFS):
			err = fmt.Errorf("RLIMIT_NOFILE bounds the fds under way: %w", err)
			select {
			case <-time.After(pause):
				continue
			case <-ctx.Done():
				err = errors.Join(ctx.Err(), err)
			}
		case errors.Is(err, unix.EPIPE), errors.Is(err, unix.ECONNRESET):
			err = fmt.Errorf("%w: %w", ErrBroken, err)
		}
		return err
	}
}

// Recv receives the next message into data, and at most so many files. It returns how many bytes came, and the files, which
// the caller closes. It is [io.EOF] when the other end is closed and all was received.
//
// With an error nothing is left open, and the message is lost if it was one: EMSGSIZE where it had more bytes or more fds
// than there was room for, EMFILE where RLIMIT_NOFILE left no room for all its fds. When ctx is done nothing is lost.
func (s *FDSocket) Recv(ctx context.Context, data []byte, most int) (n int, files []*os.File, err error) {
	var room [MaxFDs]int
	n, came, err := s.RecvFDs(ctx, data, room[:min(max(most, 0), MaxFDs)])
	if err != nil || came == 0 {
		return n, nil, err
	}
	files = make([]*os.File, came)
	for i, fd := range room[:came] {
		files[i] = os.NewFile(uintptr(fd), "received")
	}
	return n, files, nil
}

// RecvFDs is Recv for fds by number: it returns how many bytes are in data and how many fds in fds. The caller closes the
// fds, with [CloseFDs] all at once.
func (s *FDSocket) RecvFDs(ctx context.Context, data []byte, fds []int) (n, came int, err error) {
	t := &s.in
	if len(data) == 0 {
		return 0, 0, wrap("receive", s.file.Name(), fmt.Errorf("no room for data: %w", unix.EINVAL))
	}
	if err := t.begin(ctx, data); err != nil {
		return 0, 0, wrap("receive", s.file.Name(), err)
	}
	defer t.end()
	most := min(len(fds), MaxFDs)
	// CmsgLen and not CmsgSpace: in the padding there would be room for one more.
	t.room = unix.CmsgLen(4 * most)
	if err := t.wait(s.raw.Read); err != nil {
		return 0, 0, wrap("receive", s.file.Name(), err)
	}
	came, err = rights(t.control[:t.came], fds[:most])
	switch {
	case err != nil:
	case t.flags&unix.MSG_CTRUNC != 0 && came == most:
		err = fmt.Errorf("more than %d fds were sent: %w", most, unix.EMSGSIZE)
	case t.flags&unix.MSG_CTRUNC != 0:
		err = fmt.Errorf("RLIMIT_NOFILE leaves room for %d fds of what was sent: %w", came, unix.EMFILE)
	case t.flags&unix.MSG_TRUNC != 0:
		err = fmt.Errorf("more than %d bytes were sent: %w", len(data), unix.EMSGSIZE)
	case t.n == 0:
		err = io.EOF // an empty message looks the same, and nobody has reason to send one
	}
	if err != nil {
		CloseFDs(fds[:came])
		return 0, 0, wrap("receive", s.file.Name(), err)
	}
	return t.n, came, nil
}

// CloseFDs closes fds. It takes one system call for all whose numbers follow each other, as those of a message mostly do.
func CloseFDs(fds []int) {
	for len(fds) > 0 {
		n := 1
		for n < len(fds) && fds[n] == fds[0]+n {
			n++
		}
		if n == 1 || unix.CloseRange(uint(fds[0]), uint(fds[n-1]), 0) != nil { // before Linux 5.9 there is none
			for _, fd := range fds[:n] {
				unix.Close(fd)
			}
		}
		fds = fds[n:]
	}
}

// rights takes the fds out of what recvmsg has filled in, also where it returns an error.
func rights(control []byte, fds []int) (came int, err error) {
	for len(control) >= unix.CmsgLen(0) {
		header, data, rest, err := unix.ParseOneSocketControlMessage(control)
		if err != nil {
			return came, fmt.Errorf("control message: %w", err)
		}
		if header.Level == unix.SOL_SOCKET && header.Type == unix.SCM_RIGHTS {
			for ; len(data) >= 4 && came < len(fds); data = data[4:] {
				fds[came] = int(int32(binary.NativeEndian.Uint32(data)))
				came++
			}
		}
		control = rest
	}
	return came, nil
}

// begin waits for its turn.
func (t *transfer) begin(ctx context.Context, data []byte) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	select {
	case t.turn <- struct{}{}:
	default:
		select {
		case t.turn <- struct{}{}:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	t.ctx, t.data, t.saidReset = ctx, data, false
	return nil
}

func (t *transfer) end() {
	t.ctx, t.data = nil, nil
	<-t.turn
}

// wait calls t.once, by the socket's Read or Write, until it has done it or ctx is done.
func (t *transfer) wait(call func(func(uintptr) bool) error) error {
	t.err = nil
	callErr := call(t.once)
	if t.stop != nil {
		if !t.stop() {
			<-t.expired
			_ = t.deadline(time.Time{}) // only a closed file refuses
		}
		t.stop = nil
	}
	switch {
	case callErr == nil:
		return t.err
	case errors.Is(callErr, os.ErrDeadlineExceeded):
		return t.ctx.Err()
	}
	return ErrClosed // internal/poll's error for it is no os.ErrClosed
}

// watch makes the wait that begins now end with ctx. What need not wait does not pay for it.
func (t *transfer) watch() {
	if t.stop != nil || t.ctx.Done() == nil {
		return
	}
	expired := make(chan struct{})
	t.expired = expired
	t.stop = context.AfterFunc(t.ctx, func() {
		_ = t.deadline(past) // a closed file is an end too
		close(expired)
	})
}

func (t *transfer) send(fd uintptr) bool {
	if t.err = sendPacket(int(fd), t.data, t.control[:t.room]); t.err == unix.EAGAIN {
		t.watch()
		return false
	}
	if t.err != nil {
		t.err = fmt.Errorf("sendmsg: %w", t.err)
	}
	return true
}

func (t *transfer) receive(fd uintptr) bool {
	for {
		t.n, t.came, t.flags, _, t.err = unix.Recvmsg(int(fd), t.data, t.control[:t.room], unix.MSG_DONTWAIT|unix.MSG_CMSG_CLOEXEC)
		switch {
		case t.err == nil:
			return true
		case t.err == unix.EINTR:
		case t.err == unix.EAGAIN:
			t.watch()
			return false
		case t.err == unix.ECONNRESET && !t.saidReset: // said once, before what was sent earlier is given
			t.saidReset = true
		default:
			t.err = fmt.Errorf("recvmsg: %w", t.err)
			return true
		}
	}
}
