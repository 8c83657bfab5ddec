//go:build amd64 || arm64

package ipc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// A client's connection to its broker has a type for each state, with the methods that make sense in it, so that a
// wrong order does not compile:
//
//	Handshaking  —Authenticate→  Authenticated  —Terminate→  Terminated
//
// A value whose state is left is of no more use: Go can't take it away, so its methods return [ErrSessionOver].

// Handshaking is a connection on which nothing was said yet.
type Handshaking struct {
	mu   sync.Mutex
	sock *socket // nil when the state is left
}

// Authenticated is a session. Its methods are safe for concurrent use, and each returns when the broker has answered or
// its context is done. When that is done first, what the answer brings is given back; whether the broker did what was
// asked is not known then, except with Lock.
type Authenticated struct {
	Jail   string // the name that the broker has for us
	Pinned bool   // the broker knows this process by a pidfd from the kernel; else by its pid, which is racy

	sock    *socket
	reading chan struct{} // closed when nothing is read any more

	sending sync.Mutex

	mu      sync.Mutex
	last    uint32
	waiting map[uint32]chan received // by the number of the request; each has room for its answer
	over    error                    // not nil when the session is over
}

// Terminated is a session that was ended in order: all requests were answered.
type Terminated struct{ _ struct{} }

// Dial takes over the connection that a payload has inherited ([FDEnv]). There is one: it can be dialled once.
func Dial() (*Handshaking, error) {
	fail := func(err error) (*Handshaking, error) { return nil, wrap("dial", "$"+FDEnv, err) }
	value := os.Getenv(FDEnv)
	if value == "" {
		return fail(errors.New("not set: this process has no broker"))
	}
	fd, err := strconv.Atoi(value)
	if err != nil || fd < 0 {
		return fail(fmt.Errorf("%q is no number of an fd", value))
	}
	if kind, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE); err != nil || kind != unix.SOCK_SEQPACKET {
		return fail(fmt.Errorf("fd %d is no SOCK_SEQPACKET socket", fd))
	}
	inherited.Lock()
	defer inherited.Unlock()
	if inherited.dialled {
		return fail(errors.New("dialled already"))
	}
	inherited.dialled = true
	unix.CloseOnExec(fd)
	return newHandshaking(fd)
}

var inherited struct {
	sync.Mutex
	dialled bool
}

// DialPath connects to a broker that listens at path.
func DialPath(path string) (*Handshaking, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, wrap("dial", path, fmt.Errorf("socket: %w", err))
	}
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		unix.Close(fd)
		return nil, wrap("dial", path, fmt.Errorf("connect: %w", err))
	}
	return newHandshaking(fd)
}

func newHandshaking(fd int) (*Handshaking, error) {
	sock, err := newSocket(fd, MaxOpen)
	if err != nil {
		return nil, wrap("dial", "fd "+strconv.Itoa(fd), err)
	}
	return &Handshaking{sock: sock}, nil
}

// leave returns the socket, once.
func (h *Handshaking) leave() *socket {
	h.mu.Lock()
	defer h.mu.Unlock()
	sock := h.sock
	h.sock = nil
	return sock
}

// Close ends the connection.
func (h *Handshaking) Close() error {
	if sock := h.leave(); sock != nil {
		return sock.file.Close()
	}
	return nil
}

// Authenticate says hello, by which the broker learns which process this is. The connection is closed where that fails:
// [ErrDenied], [ErrVersion].
func (h *Handshaking) Authenticate(ctx context.Context) (*Authenticated, error) {
	sock := h.leave()
	if sock == nil {
		return nil, wrap("authenticate", "broker", ErrSessionOver)
	}
	a := &Authenticated{sock: sock, reading: make(chan struct{}), waiting: map[uint32]chan received{}}
	go a.read()
	r, err := a.request(ctx, &message{Kind: kindHello, A: protocolVersion, B: protocolVersion, S: protocolMagic}, nil)
	if err != nil {
		_ = a.Close() // the error that counts is err
		return nil, wrap("authenticate", "broker", err)
	}
	a.Jail, a.Pinned = r.S, r.B&helloByPidfd != 0
	return a, nil
}

// Close ends the session at once; requests that wait get [ErrSessionOver]. What the broker has given stays open here, and
// locks are given back.
func (a *Authenticated) Close() error {
	a.fail(ErrSessionOver)
	<-a.reading
	return nil
}

// Terminate ends the session when the requests before it are answered.
func (a *Authenticated) Terminate(ctx context.Context) (*Terminated, error) {
	if err := a.do(ctx, "terminate", "session", &message{Kind: kindQuit}); err != nil {
		return nil, err
	}
	return &Terminated{}, a.Close()
}

// Open opens a file at a path below what the rule of that name allows; where the rule names a file, path is empty. The
// access is one of MayRead, MayWrite and MayCreate. The caller closes the file. What is opened to be read can be a copy.
func (a *Authenticated) Open(ctx context.Context, name, path string, access Access) (*os.File, error) {
	object := name + "/" + path
	number := accessNumber(access)
	if number == 0 {
		return nil, wrap("open", object, fmt.Errorf("%q is no access to a file: %w", access, unix.EINVAL))
	}
	return a.file(ctx, "open", object, &message{Kind: kindOpen, S: name, T: path, A: number})
}

// OpenAll opens several files at once, up to [MaxOpen], as Open does one after another: all of them, in the order of their
// paths, or none.
func (a *Authenticated) OpenAll(ctx context.Context, name string, paths []string, access Access) ([]*os.File, error) {
	object := fmt.Sprintf("%s, %d files", name, len(paths))
	number := accessNumber(access)
	switch {
	case number == 0:
		return nil, wrap("open", object, fmt.Errorf("%q is no access to a file: %w", access, unix.EINVAL))
	case len(paths) == 0:
		return nil, nil
	case len(paths) > MaxOpen:
		return nil, wrap("open", object, fmt.Errorf("at once, of %d: %w", MaxOpen, ErrLimit))
	}
	r, err := a.request(ctx, &message{Kind: kindOpen, S: name, T: strings.Join(paths, pathSeparator), A: number, B: uint64(len(paths))}, nil)
	if err == nil && len(r.files) != len(paths) {
		r.close()
		err = fmt.Errorf("%w: an answer with %d files", ErrProtocol, len(r.files))
	}
	if err != nil {
		return nil, wrap("open", object, err)
	}
	return r.files, nil
}

// Lock waits for the broker's lock of that name. First come, first served, over all jails of the launcher. A request that
// would close a cycle of jails that wait for each other is refused ([ErrDeadlock], naming them). With an error the lock
// is not held: where ctx is done first, Lock waits for the broker to say which of both came first.
func (a *Authenticated) Lock(ctx context.Context, name string, mode LockMode) error {
	wait := uint64(waitForever)
	if deadline, set := ctx.Deadline(); set { // so that the broker gives up even if we can't ask it to
		wait = uint64(max(1, time.Until(deadline)))
	}
	id, answer, err := a.send(ctx, &message{Kind: kindLock, S: name, A: uint64(mode), B: wait}, nil)
	if err != nil {
		return wrap("lock", name, err)
	}
	done := ctx.Done()
	for {
		select {
		case r := <-answer:
			err := answerError(&r.message)
			if err != nil && ctx.Err() != nil {
				err = ctx.Err()
			}
			return wrap("lock", name, err)
		case <-a.reading:
			return wrap("lock", name, a.ended(answer))
		case <-done:
			done = nil
			if _, _, err := a.send(context.Background(), &message{Kind: kindCancel, A: uint64(id)}, nil); err != nil {
				return wrap("lock", name, err)
			}
		}
	}
}

// TryLock takes the lock if nobody holds it in a mode that conflicts and nobody waits for it, and says whether it did.
func (a *Authenticated) TryLock(ctx context.Context, name string, mode LockMode) (bool, error) {
	_, err := a.request(ctx, &message{Kind: kindLock, S: name, A: uint64(mode)}, nil)
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		return false, nil
	}
	return err == nil, wrap("lock", name, err)
}

// Unlock gives a lock back ([ErrNotHeld]).
func (a *Authenticated) Unlock(ctx context.Context, name string) error {
	return a.do(ctx, "unlock", name, &message{Kind: kindUnlock, S: name})
}

// Memory attaches to the segment of that name, which all may write whose rules say so. The caller closes the segment, and
// calls Release when no process of the jail uses it any more.
func (a *Authenticated) Memory(ctx context.Context, name string) (*Segment, error) {
	file, err := a.file(ctx, "memory", name, &message{Kind: kindMemory, S: name, A: accessWrite})
	if err != nil {
		return nil, err
	}
	return Open(file)
}

// ReadMemory attaches to the segment of that name that another jail has published, and waits for that.
func (a *Authenticated) ReadMemory(ctx context.Context, name string) (*Segment, error) {
	for pause := time.Millisecond; ; pause = min(2*pause, 100*time.Millisecond) {
		file, err := a.file(ctx, "memory", name, &message{Kind: kindMemory, S: name, A: accessRead})
		if err == nil {
			return OpenReadOnly(file)
		}
		if !errors.Is(err, ErrNotReady) {
			return nil, err
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil, errors.Join(err, ctx.Err())
		}
	}
}

// OpenChannel attaches to the channel of that name, which all have whose rules name it. T must have the size that the rules
// say ([ErrConflict]), and no pointers. Closing the segment ends this process's part in it.
func OpenChannel[T any](ctx context.Context, a *Authenticated, name string) (*Channel[T], *Segment, error) {
	size := uint64(reflect.TypeFor[T]().Size())
	r, err := a.request(ctx, &message{Kind: kindChannel, S: name, A: size}, nil)
	file, err := theFile(r, err)
	if err != nil {
		return nil, nil, wrap("channel", name, err)
	}
	segment, err := Open(file)
	if err != nil {
		return nil, nil, err
	}
	c, err := NewChannel[T](segment, 0, int(min(r.B, math.MaxInt32)))
	if err != nil {
		_ = segment.Close() // the error that counts is err
		return nil, nil, err
	}
	return c, segment, nil
}

// ReleaseChannel gives a channel back, as Release does with memory.
func (a *Authenticated) ReleaseChannel(ctx context.Context, name string) error {
	return a.do(ctx, "release", name, &message{Kind: kindRelease, S: name, A: 1})
}

// Publish gives a segment that this process has made ([Create], with the size that the rule says) to all jails whose rules
// let them read it. Nobody can write to it from then on but through the attachments that exist.
func (a *Authenticated) Publish(ctx context.Context, name string, segment *Segment) error {
	file, err := segment.ShareReadOnly()
	if err != nil {
		return wrap("publish", name, err)
	}
	defer file.Close()
	_, err = a.request(ctx, &message{Kind: kindPublish, S: name}, file)
	return wrap("publish", name, err)
}

// Release gives a segment back: it counts no more for the jail's quota, and its name is free when nobody has it.
func (a *Authenticated) Release(ctx context.Context, name string) error {
	return a.do(ctx, "release", name, &message{Kind: kindRelease, S: name})
}

// Log hands a line to the launcher ([ErrLimit]: it was not taken).
func (a *Authenticated) Log(ctx context.Context, level slog.Level, line string) error {
	number := uint64(min(max(int(level), -logLevelZero), logLevelZero) + logLevelZero)
	return a.do(ctx, "log", clip(line, 40), &message{Kind: kindLog, A: number, S: line})
}

// Progress tells the launcher how far we are; total is 0 where it is not known.
func (a *Authenticated) Progress(ctx context.Context, done, total uint64, what string) error {
	return a.do(ctx, "progress", clip(what, 40), &message{Kind: kindProgress, A: done, B: total, S: what})
}

// Result hands a file to the launcher, which gets a copy of its fd.
func (a *Authenticated) Result(ctx context.Context, name string, file *os.File) error {
	_, err := a.request(ctx, &message{Kind: kindResult, S: name}, file)
	return wrap("result", name, err)
}

func (a *Authenticated) do(ctx context.Context, op, object string, m *message) error {
	_, err := a.request(ctx, m, nil)
	return wrap(op, object, err)
}

func (a *Authenticated) file(ctx context.Context, op, object string, m *message) (*os.File, error) {
	r, err := a.request(ctx, m, nil)
	file, err := theFile(r, err)
	return file, wrap(op, object, err)
}

// theFile returns the one file that an answer brings.
func theFile(r received, err error) (*os.File, error) {
	if err == nil && len(r.files) != 1 {
		r.close()
		err = fmt.Errorf("%w: an answer with %d files", ErrProtocol, len(r.files))
	}
	if err != nil {
		return nil, err
	}
	return r.files[0], nil
}

// request sends m and returns the answer, or what it says went wrong. The caller owns the answer's file.
func (a *Authenticated) request(ctx context.Context, m *message, file *os.File) (received, error) {
	id, answer, err := a.send(ctx, m, file)
	if err != nil {
		return received{}, err
	}
	select {
	case r := <-answer:
		return r, answerError(&r.message)
	case <-a.reading:
		return received{}, a.ended(answer)
	case <-ctx.Done():
	}
	a.mu.Lock()
	delete(a.waiting, id)
	a.mu.Unlock()
	select {
	case r := <-answer: // just now
		return r, answerError(&r.message)
	default:
		return received{}, ctx.Err()
	}
}

// ended returns why a request gets no answer. One that came with the end is dropped.
func (a *Authenticated) ended(answer chan received) error {
	select {
	case r := <-answer:
		r.close()
	default:
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.over
}

func (a *Authenticated) send(ctx context.Context, m *message, file *os.File) (uint32, chan received, error) {
	if len(m.S)+len(m.T) > maxText {
		return 0, nil, fmt.Errorf("%d bytes of text, of %d: %w", len(m.S)+len(m.T), maxText, unix.EMSGSIZE)
	}
	if err := ctx.Err(); err != nil {
		return 0, nil, err
	}
	answer := make(chan received, 1)
	a.sending.Lock()
	defer a.sending.Unlock()
	a.mu.Lock()
	if a.over != nil {
		a.mu.Unlock()
		return 0, nil, a.over
	}
	for a.last++; a.last == 0 || a.waiting[a.last] != nil; a.last++ {
	}
	m.ID = a.last
	a.waiting[m.ID] = answer
	a.mu.Unlock()

	// The broker may make us wait: it reads no more from whom it can't answer, or who asks too fast.
	err := a.sock.file.SetWriteDeadline(time.Time{})
	if err == nil {
		expired := make(chan struct{})
		stop := context.AfterFunc(ctx, func() {
			_ = a.sock.file.SetWriteDeadline(past) // a closed file is an end too
			close(expired)
		})
		err = a.sock.send(m, oneOrNone(file))
		if !stop() {
			<-expired
			if err != nil {
				err = ctx.Err()
			}
		}
	}
	if err != nil {
		a.mu.Lock()
		delete(a.waiting, m.ID)
		switch {
		case a.over != nil:
			err = a.over
		case file != nil && errors.Is(err, unix.EPERM): // SO_PASSRIGHTS
			err = fmt.Errorf("%w: the rules let this jail send no files: %w", ErrDenied, err)
		}
		a.mu.Unlock()
		if errors.Is(err, unix.EPIPE) || errors.Is(err, unix.ECONNRESET) { // the reader learns why
			<-a.reading
			err = a.ended(answer)
		}
		return 0, nil, err
	}
	return m.ID, answer, nil
}

// read hands out answers until the session is over.
func (a *Authenticated) read() {
	defer func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.sock.file.Close()
		close(a.reading)
	}()
	reset := false
	for {
		r, err := a.sock.receive()
		if isReset(err) && !reset { // the kernel says so before it gives what was sent earlier
			reset = true
			continue
		}
		if err != nil {
			a.fail(fmt.Errorf("%w: %w", ErrSessionOver, err))
			return
		}
		if r.Kind == kindEnd {
			r.close()
			over := ErrSessionOver
			if cause := answerError(&r.message); cause != nil {
				over = fmt.Errorf("%w: %w", ErrSessionOver, cause)
			}
			a.fail(over)
			return
		}
		a.answered(r)
	}
}

func (a *Authenticated) answered(r received) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if answer := a.waiting[r.ID]; answer != nil {
		delete(a.waiting, r.ID)
		answer <- r // it has room
		return
	}
	r.close() // nobody waits any more
}

// fail ends the session for err, if it is not over.
func (a *Authenticated) fail(err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.over == nil {
		a.over = err
		a.sock.stop()
	}
}
