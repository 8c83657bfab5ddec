//go:build cgo && (amd64 || arm64)

package isolate

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// notification is struct seccomp_notif.
type notification struct {
	ID    uint64
	Pid   uint32 // of the thread, in our pid namespace
	Flags uint32
	Data  callData
}

// response is struct seccomp_notif_resp.
type response struct {
	ID    uint64
	Val   int64
	Error int32 // -errno
	Flags uint32
}

// receiveNotification takes the next call that waits. ENOENT says that it does not wait any more.
func receiveNotification(listener int) (n notification, err error) {
	return n, ioctl(listener, unix.SECCOMP_IOCTL_NOTIF_RECV, unsafe.Pointer(&n))
}

// respond answers a call. ENOENT says that it does not wait any more.
func respond(listener int, r response) error {
	return ioctl(listener, unix.SECCOMP_IOCTL_NOTIF_SEND, unsafe.Pointer(&r))
}

// waits says whether a call still waits: if not, its thread's number may be another's.
func waits(listener int, id uint64) bool {
	return ioctl(listener, unix.SECCOMP_IOCTL_NOTIF_ID_VALID, unsafe.Pointer(&id)) == nil
}

func ioctl(fd int, request uintptr, arg unsafe.Pointer) error {
	for {
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, uintptr(arg))
		if errno == 0 {
			return nil
		}
		if errno != unix.EINTR {
			return errno
		}
	}
}

// readMemory copies from another process, once, and not beyond the end of a page that may be its last. It returns how
// many bytes there were.
func readMemory(pid int, from uint64, to []byte) (int, error) {
	n := 0
	for n < len(to) {
		part := min(len(to)-n, pageSize-int((from+uint64(n))%pageSize))
		local := []unix.Iovec{{Base: &to[n]}}
		local[0].SetLen(part)
		got, err := unix.ProcessVMReadv(pid, local, []unix.RemoteIovec{{Base: uintptr(from) + uintptr(n), Len: part}}, 0)
		if err != nil || got == 0 {
			return n, err
		}
		n += got
	}
	return n, nil
}

// pageSize is the smallest that there is.
const pageSize = 4096
