//go:build linux && (amd64 || arm64)

package ipc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strconv"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// FileLock is a lock on a file, between all who open it, in whatever jail. Both kinds belong to the open file
// description: the kernel drops them when the last fd of it is closed, so with the death of the process, and unlike
// classic fcntl locks they are not lost when the process closes another fd of the file.
//
// It promises nothing about order: a waiting writer may be overtaken by readers for ever. Nobody detects that two parties
// wait for each other, and a holder does not inherit the priority of those who wait. [LockTable] gives the first two.
//
// A FileLock is one party, and safe for concurrent use as such: a Lock of one that is held is refused with
// [ErrDeadlock]. Goroutines that are to keep each other out open one each. The file stays open between locks; a pair of
// Lock and Unlock that meets nobody is two system calls (1 µs). Unlock happens before the return of a Lock that it made
// possible, also between processes. The death of the holder is not told to the next one.
//
// A waiting Lock tries again after 50 µs, and then after pauses that are an eighth longer each time, up to 100 ms: it has
// the lock an eighth of its waiting time too late at most, and a long wait costs ten tries a second. A blocking call
// would wake up at once, but hold a thread for each waiter, and nothing in Go can interrupt it: the runtime's signal
// handlers are installed with SA_RESTART.
type FileLock struct {
	file  *os.File
	fd    int
	kind  LockKind
	state atomic.Uint32 // a LockMode, or one of these
}

const (
	lockFree   = 0
	lockBusy   = 1 << 8 // a call is under way
	lockClosed = 1 << 9
)

// OpenFileLock opens a file to lock it, and makes it (mode 0600) where there is none. A symbolic link is not followed.
func OpenFileLock(path string, kind LockKind) (*FileLock, error) {
	// O_NONBLOCK: the open of a FIFO would wait for its other side.
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, wrap("open", "file lock", err) // err has the path
	}
	return NewFileLock(f, kind), nil
}

// NewFileLock locks through a file that is open already, for example one that came from a broker, and takes it over.
// Who has got a duplicate of its fd (dup, fork, SCM_RIGHTS) is the same party.
func NewFileLock(f *os.File, kind LockKind) *FileLock {
	return &FileLock{file: f, fd: int(f.Fd()), kind: kind}
}

// Lock waits until the lock is held. If ctx is done first, or is done already, it is not held and the error wraps that
// of ctx. Other errors wrap [ErrDeadlock] if it is held already, [os.ErrClosed], or an errno (EBADF: the file is not open
// for what an OFD lock needs; ENOLCK).
func (l *FileLock) Lock(ctx context.Context, mode LockMode) error {
	if err := l.begin("lock", mode); err != nil {
		return err
	}
	held, err := l.retry(ctx, mode)
	l.end(mode, held)
	return l.wrap("lock", err)
}

// TryLock takes the lock if nobody holds it in a mode that conflicts, and says whether it did.
func (l *FileLock) TryLock(mode LockMode) (bool, error) {
	if err := l.begin("lock", mode); err != nil {
		return false, err
	}
	held, err := l.set(mode)
	l.end(mode, held)
	return held, l.wrap("lock", err)
}

// Unlock gives the lock back. The error wraps [ErrNotHeld] if it was not held.
func (l *FileLock) Unlock() error {
	mode, err := l.claim("unlock")
	if err != nil {
		return err
	}
	_, err = l.set(0)
	l.end(mode, err != nil)
	return l.wrap("unlock", err)
}

// Upgrade makes a shared lock exclusive, waiting for other readers to go. Two who both do that wait for each other,
// until one's context is done.
//
// Kept says that nobody has held the lock in between: so it is with OFD, and after an error the shared lock is still
// held. Flock can't convert without letting go (flock(2)): others may have written, so what was read under the shared
// lock has to be read again; and after an error nothing is held. [FileLock.Mode] tells.
func (l *FileLock) Upgrade(ctx context.Context) (kept bool, err error) {
	mode, err := l.claim("upgrade")
	if err != nil {
		return false, err
	}
	held := mode == Exclusive
	if !held {
		held, err = l.retry(ctx, Exclusive)
	}
	switch {
	case held:
		l.end(Exclusive, true)
		return l.kind == OFD || mode == Exclusive, nil
	case l.kind == Flock && !errors.Is(err, errNotTried):
		l.end(0, false)
	default:
		l.end(mode, true)
	}
	return false, l.wrap("upgrade", err)
}

// Downgrade makes an exclusive lock shared; no writer gets in between with OFD, nor with Flock on Linux's local file
// systems, though flock(2) does not promise it. The error wraps [ErrNotHeld] if nothing is held, before or after.
func (l *FileLock) Downgrade() error {
	mode, err := l.claim("downgrade")
	if err != nil {
		return err
	}
	held, err := l.set(Shared)
	switch {
	case held:
		l.end(Shared, true)
		return nil
	case err == nil: // others were faster, and the exclusive lock is gone
		l.end(0, false)
		return l.wrap("downgrade", ErrNotHeld)
	}
	l.end(mode, true)
	return l.wrap("downgrade", err)
}

// Mode says how the lock is held; 0: not at all, or a call is under way.
func (l *FileLock) Mode() LockMode { return LockMode(l.state.Load()) } // the other states are beyond a LockMode

// Close gives the lock back, also where the fd has duplicates elsewhere, and closes the file. It must not be called
// while another call is under way (EBUSY).
func (l *FileLock) Close() error {
	for {
		state := l.state.Load()
		switch state {
		case lockClosed:
			return l.wrap("close", os.ErrClosed)
		case lockBusy:
			return l.wrap("close", unix.EBUSY)
		}
		if l.state.CompareAndSwap(state, lockClosed) {
			_, err := l.set(0)
			return l.wrap("close", errors.Join(err, l.file.Close()))
		}
	}
}

// begin makes a free lock busy.
func (l *FileLock) begin(op string, mode LockMode) error {
	if !mode.valid() {
		return l.wrap(op, fmt.Errorf("%v is no mode", mode))
	}
	if l.state.CompareAndSwap(lockFree, lockBusy) {
		return nil
	}
	if l.state.Load() == lockClosed {
		return l.wrap(op, os.ErrClosed)
	}
	return l.wrap(op, ErrDeadlock)
}

// claim makes a held lock busy and says how it was held.
func (l *FileLock) claim(op string) (LockMode, error) {
	state := l.state.Load()
	if LockMode(state).valid() && l.state.CompareAndSwap(state, lockBusy) {
		return LockMode(state), nil
	}
	if state == lockClosed {
		return 0, l.wrap(op, os.ErrClosed)
	}
	return 0, l.wrap(op, ErrNotHeld)
}

// end is for who made it busy.
func (l *FileLock) end(mode LockMode, held bool) {
	if !held {
		mode = lockFree
	}
	l.state.Store(uint32(mode))
}

// errNotTried is a context that was done before anything was asked of the kernel.
var errNotTried = errors.New("not tried")

func (l *FileLock) retry(ctx context.Context, mode LockMode) (bool, error) {
	if ctx.Err() != nil {
		return false, fmt.Errorf("%w (%w)", context.Cause(ctx), errNotTried)
	}
	if held, err := l.set(mode); held || err != nil {
		return held, err
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for pause := 50 * time.Microsecond; ; pause = min(pause+pause/8, 100*time.Millisecond) {
		timer.Reset(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			return false, context.Cause(ctx)
		}
		if held, err := l.set(mode); held || err != nil {
			return held, err
		}
	}
}

// set asks the kernel once for the lock in that mode, or for none, and says whether it gave it.
func (l *FileLock) set(mode LockMode) (bool, error) {
	defer runtime.KeepAlive(l.file)
	var err error
	if l.kind == OFD {
		types := [...]int16{0: unix.F_UNLCK, Shared: unix.F_RDLCK, Exclusive: unix.F_WRLCK}
		whole := unix.Flock_t{Type: types[mode], Whence: io.SeekStart}
		err = unix.FcntlFlock(uintptr(l.fd), unix.F_OFD_SETLK, &whole)
	} else {
		how := [...]int{0: unix.LOCK_UN, Shared: unix.LOCK_SH, Exclusive: unix.LOCK_EX}
		err = unix.Flock(l.fd, how[mode]|unix.LOCK_NB)
	}
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) { // fcntl may say either
		return false, nil
	}
	return err == nil, err
}

func (l *FileLock) wrap(op string, err error) error {
	if err == nil { // before the object's name is made, which takes longer than the lock
		return nil
	}
	return wrap(op, "file "+strconv.Quote(l.file.Name()), err)
}
