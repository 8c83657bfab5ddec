//go:build cgo

package signals

// #cgo LDFLAGS: -Wl,--wrap=pthread_create
// #include <signal.h>
// #include "capture_linux.h"
import "C"

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

func init() {
	C.signals_keep_ignored()
}

// running is set while a relay is: there is one set of handlers in a process.
var running atomic.Bool

type relay struct {
	receiver Receiver
	wake     *os.File // a byte for each standard signal
	waker    int      // its other end, the handler's
	queue    *os.File // signalfd, read
	jobs     *os.File // signalfd of SIGTSTP and SIGCONT, only polled
	readers  sync.WaitGroup

	sending sync.Mutex
	err     error // the first one; guarded by sending
}

// Relay passes on to r every relayed signal that this process receives, from the call on and until stop
// is called or ctx is done. The real-time signals that have waited since the program started come first.
//
// A signal that the kernel sent for the terminal (^C, hang-up, a new size) goes to r's process group, as
// it does for a program in the foreground; every other goes to the process. SIGTSTP stops both sides: r's
// group gets SIGSTOP, because a session of its own ignores the gentler one, then this process stops as it
// does by default; when it is continued, r's group gets SIGCONT. SIGTTIN and SIGTTOU from the terminal are
// for what this process itself reads and writes, so they stop it alone.
//
// An error of SendSignal does not end the relay. [os.ErrProcessDone] is dropped; stop returns the first
// other one. While SendSignal blocks, real-time signals wait in the kernel.
//
// Stop puts back the signal actions of before and passes on what was taken until then, so it waits for
// SendSignal, which must not call it. It may be called more than once and from any goroutine.
//
// A second Relay while one runs is an error.
func Relay(ctx context.Context, r Receiver) (stop func() error, err error) {
	if !running.CompareAndSwap(false, true) {
		return nil, errors.New("signals: a relay runs already")
	}
	l := &relay{receiver: r}
	if err := l.open(); err != nil {
		running.Store(false)
		return nil, fmt.Errorf("signals: %w", err)
	}
	l.readers.Go(l.relayStandard)
	l.readers.Go(l.relayQueued)
	l.readers.Go(l.relayJobs)
	C.signals_install(C.int(l.waker))

	end := sync.OnceValue(l.end)
	forget := context.AfterFunc(ctx, func() { _ = end() }) // the error is kept for stop
	return func() error {
		forget()
		return end()
	}, nil
}

func (l *relay) open() error {
	queue, err := C.signals_queue()
	if err != nil {
		return os.NewSyscallError("signalfd", err)
	}
	jobs, err := C.signals_jobs()
	if err != nil {
		unix.Close(int(queue))
		return os.NewSyscallError("signalfd", err)
	}
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		unix.Close(int(queue))
		unix.Close(int(jobs))
		return os.NewSyscallError("pipe2", err)
	}
	// They are non-blocking, so a read parks the goroutine and not a thread.
	l.queue = os.NewFile(uintptr(queue), "signalfd")
	l.jobs = os.NewFile(uintptr(jobs), "signalfd")
	l.wake = os.NewFile(uintptr(pipe[0]), "signal pipe")
	l.waker = pipe[1]
	return nil
}

func (l *relay) end() error {
	C.signals_restore()
	unix.Close(l.waker) // relayStandard reads to the end
	l.queue.Close()     // what is queued stays so
	l.jobs.Close()
	l.readers.Wait()
	l.wake.Close()
	running.Store(false)
	return l.err
}

// relayStandard reads before it takes: a bit that is set after it took has its byte in the pipe still,
// or found the pipe full, so the next read returns.
func (l *relay) relayStandard() {
	buf := make([]byte, 512)
	for {
		_, err := l.wake.Read(buf)
		l.relayPending(uint64(C.signals_take()))
		if err != nil {
			return
		}
	}
}

func (l *relay) relayPending(pending uint64) {
	terminal := pending >> C.SIGNALS_TERMINAL_SHIFT
	for sig := syscall.Signal(1); sig < C.SIGNALS_TERMINAL_SHIFT; sig++ {
		if bit := uint64(1) << (sig - 1); (pending|terminal)&bit != 0 {
			l.send(sig, 0, terminal&bit != 0)
		}
	}
}

func (l *relay) relayQueued() {
	var info unix.SignalfdSiginfo
	buf := make([]byte, 32*binary.Size(info))
	for {
		n, err := l.queue.Read(buf) // whole records, see signalfd(2)
		if err != nil {
			return
		}
		for records := buf[:n]; len(records) > 0; {
			size, err := binary.Decode(records, binary.NativeEndian, &info)
			if err != nil {
				panic(err) // the record has a fixed size
			}
			records = records[size:]
			l.send(syscall.Signal(info.Signo), int(info.Ptr), info.Code == C.SI_KERNEL)
		}
	}
}

// relayJobs leaves SIGTSTP pending until the receiver is stopped: a SIGCONT that comes meanwhile takes it
// back, and then this process is not stopped.
func (l *relay) relayJobs() {
	poll, err := l.jobs.SyscallConn()
	if err != nil {
		return // closed already
	}
	for {
		var job syscall.Signal
		err := poll.Read(func(uintptr) bool {
			job = syscall.Signal(C.signals_pending_job())
			return job != 0
		})
		if err != nil {
			return
		}
		if job == unix.SIGTSTP {
			l.send(unix.SIGSTOP, 0, true)
			C.signals_stop()
			C.signals_take_cont()
			l.send(unix.SIGCONT, 0, true)
		} else if terminal := C.signals_take_cont(); terminal >= 0 {
			l.send(unix.SIGCONT, 0, terminal == 1)
		}
	}
}

func (l *relay) send(sig syscall.Signal, value int, group bool) {
	l.sending.Lock()
	defer l.sending.Unlock()
	err := l.receiver.SendSignal(sig, value, group)
	if err != nil && l.err == nil && !errors.Is(err, os.ErrProcessDone) {
		l.err = fmt.Errorf("signals: relay %v: %w", sig, err)
	}
}

// Unblock is for the parts of a command that relay nothing: the signals that wait for Relay get their
// default action, also those that are waiting already. It is not to be combined with Relay.
func Unblock() {
	C.signals_unblock()
}
