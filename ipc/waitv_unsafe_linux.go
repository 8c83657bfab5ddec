//go:build amd64 || arm64

package ipc

import (
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// futexWaiter is struct futex_waitv of linux/futex.h.
type futexWaiter struct {
	value   uint64
	address uint64
	flags   uint32
	_       uint32
}

// Without FUTEX2_PRIVATE: other processes wake us.
const futexSize32 = 2

// newFutexWaiter's word lies in a segment, which the collector does not move.
func newFutexWaiter(word *uint32, old uint32) futexWaiter {
	return futexWaiter{value: uint64(old), address: uint64(uintptr(unsafe.Pointer(word))), flags: futexSize32}
}

// futexWaitAny sleeps while each word has its value, for timeout at most. Its error is the call's: EAGAIN, EINTR and
// ETIMEDOUT are of everyday.
func futexWaitAny(waiters []futexWaiter, timeout time.Duration) error {
	if timeout <= 0 {
		return nil
	}
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return err
	}
	until := unix.NsecToTimespec(now.Nano() + int64(timeout))
	_, _, errno := unix.Syscall6(unix.SYS_FUTEX_WAITV, uintptr(unsafe.Pointer(unsafe.SliceData(waiters))), uintptr(len(waiters)), 0,
		uintptr(unsafe.Pointer(&until)), unix.CLOCK_MONOTONIC, 0)
	if errno != 0 {
		return errno
	}
	return nil
}
