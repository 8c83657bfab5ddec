//go:build linux && cgo

package signals

import (
	"encoding/binary"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// sigqueue is sigqueue(3), which x/sys does not have. The fields lie as on 64-bit machines.
func sigqueue(pid int, sig syscall.Signal, value int) error {
	var info [128]byte
	order := binary.NativeEndian
	order.PutUint32(info[0:], uint32(sig))
	order.PutUint32(info[8:], ^uint32(0)) // SI_QUEUE, -1
	order.PutUint32(info[16:], uint32(os.Getpid()))
	order.PutUint32(info[20:], uint32(os.Getuid()))
	order.PutUint64(info[24:], uint64(value))
	_, _, errno := unix.Syscall(unix.SYS_RT_SIGQUEUEINFO, uintptr(pid), uintptr(sig), uintptr(unsafe.Pointer(&info)))
	if errno != 0 {
		return errno
	}
	return nil
}

// setAction sets the action of any signal to SIG_DFL, 0, or SIG_IGN, 1.
func setAction(sig int, handler uint64) {
	action := [4]uint64{handler} // flags, restorer, mask
	// It fails for SIGKILL and SIGSTOP, which are as they should be.
	_, _, _ = unix.Syscall6(unix.SYS_RT_SIGACTION, uintptr(sig), uintptr(unsafe.Pointer(&action)), 0, 8, 0, 0)
}
