//go:build cgo && (amd64 || arm64)

package isolate

import (
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/jailrun/jail/internal/syscalls"
)

// notification is struct seccomp_notif.
type notification struct {
	ID    uint64
	Pid   uint32 // of the thread, in our pid namespace
	Flags uint32
	Data  syscalls.Data
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
	_, err = ioctl(listener, unix.SECCOMP_IOCTL_NOTIF_RECV, unsafe.Pointer(&n))
	return n, err
}

// respond answers a call. ENOENT says that it does not wait any more.
func respond(listener int, r response) error {
	_, err := ioctl(listener, unix.SECCOMP_IOCTL_NOTIF_SEND, unsafe.Pointer(&r))
	return err
}

// waits says whether a call still waits: if not, its thread's number may be another's.
func waits(listener int, id uint64) bool {
	_, err := ioctl(listener, unix.SECCOMP_IOCTL_NOTIF_ID_VALID, unsafe.Pointer(&id))
	return err == nil
}

// addedFD is struct seccomp_notif_addfd.
type addedFD struct {
	ID                        uint64
	Flags, Src, New, NewFlags uint32
}

// addFD gives a copy of fd to a caller that waits, with the flags of open(2). At -1 it gets a number of the kernel's
// choice, which is the answer to the call; else it takes the place of what is at that number, and the call waits on.
func addFD(listener int, id uint64, fd, at int, flags uint32) (int, error) {
	a := addedFD{ID: id, Flags: unix.SECCOMP_ADDFD_FLAG_SEND, Src: uint32(fd), NewFlags: flags}
	if at >= 0 {
		a.Flags, a.New = unix.SECCOMP_ADDFD_FLAG_SETFD, uint32(at)
	}
	return ioctl(listener, unix.SECCOMP_IOCTL_NOTIF_ADDFD, unsafe.Pointer(&a))
}

func ioctl(fd int, request uintptr, arg unsafe.Pointer) (int, error) {
	for {
		r, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, uintptr(arg))
		if errno == 0 {
			return int(r), nil
		}
		if errno != unix.EINTR {
			return 0, errno
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
