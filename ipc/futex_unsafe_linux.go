//go:build amd64 || arm64

package ipc

import (
	"math"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// No FUTEX_PRIVATE_FLAG: the word is shared between processes, each with an address of its own for it.
const (
	futexOpWait = 0
	futexOpWake = 1
)

// futexWait sleeps while *word == old, for timeout at most (0 or less: not at all). It returns for any reason: the caller
// looks at the word again. A read-only mapping will do.
func futexWait(word *uint32, old uint32, timeout time.Duration) {
	if timeout <= 0 {
		return
	}
	limit := unix.NsecToTimespec(int64(timeout))
	_, _, _ = unix.Syscall6(unix.SYS_FUTEX, uintptr(unsafe.Pointer(word)), futexOpWait, uintptr(old), uintptr(unsafe.Pointer(&limit)), 0, 0)
}

// futexWake wakes at most n of those that sleep on word, in all processes, and says how many. It costs 0.3 µs with nobody to wake.
func futexWake(word *uint32, n int) int {
	woken, _, _ := unix.Syscall6(unix.SYS_FUTEX, uintptr(unsafe.Pointer(word)), futexOpWake, uintptr(n), 0, 0, 0)
	return int(woken)
}

const everyone = math.MaxInt32
