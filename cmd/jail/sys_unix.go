//go:build linux || darwin

package main

import (
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// noFollow makes open(2) refuse a symbolic link.
const noFollow = unix.O_NOFOLLOW

// inherited checks that the caller passed an fd. Those that Go has opened are closed at an exec, and so not the
// caller's; this runs before anything else is opened.
func inherited(fd int, need access) error {
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
	if err != nil || flags&unix.FD_CLOEXEC != 0 {
		return problem("names fd " + strconv.Itoa(fd) + ", which is not open")
	}
	mode, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	mode &= unix.O_ACCMODE
	switch {
	case err != nil:
		return problem(fmt.Sprintf("names fd %d: %v", fd, err))
	case need == reading && folder(fd):
		return problem(fmt.Sprintf("names fd %d, which is a folder", fd))
	case need == reading && mode == unix.O_WRONLY:
		return problem(fmt.Sprintf("names fd %d, which is not open for reading", fd))
	case need == writing && mode == unix.O_RDONLY:
		return problem(fmt.Sprintf("names fd %d, which is not open for writing", fd))
	}
	return nil
}

func folder(fd int) bool {
	var st unix.Stat_t
	return unix.Fstat(fd, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR
}

// blockDevice is the number of a disk.
func blockDevice(path string) (major, minor int64, err error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return 0, 0, problem("names a device that can't be looked at: " + err.Error())
	}
	if st.Mode&unix.S_IFMT != unix.S_IFBLK {
		return 0, 0, problem("names a file that is not a block device")
	}
	dev := uint64(st.Rdev) //nolint:unconvert // int32 on darwin
	return int64(unix.Major(dev)), int64(unix.Minor(dev)), nil
}

// fits checks that the payload can have an fd of that number, and that the launcher has a few above it for itself.
func fits(fd int) error {
	const own = 8
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err == nil && uint64(fd)+own >= limit.Cur {
		return problem(fmt.Sprintf("gives the payload fd %d, but RLIMIT_NOFILE is %d here", fd, limit.Cur))
	}
	return nil
}

// room checks that there are fds left for a run. It is asked before anything else: Go's runtime does not return from its
// first use of a file that can be waited for without the fds that it wants, but ends with a stack trace.
func room() error {
	const own = 21
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return os.NewSyscallError("getrlimit", err)
	}
	// The lowest free one; all that are opened from here on follow it. Go has opened standard input where it was closed.
	free, err := unix.FcntlInt(0, unix.F_DUPFD_CLOEXEC, 0)
	switch {
	case errors.Is(err, unix.EMFILE):
		free = int(limit.Cur)
	case err != nil:
		return os.NewSyscallError("fcntl", err)
	default:
		unix.Close(free)
	}
	if uint64(free)+own > limit.Cur {
		return fmt.Errorf("too few file descriptors: RLIMIT_NOFILE is %d, and here jail needs at least %d", limit.Cur, free+own)
	}
	return nil
}

// fileCapabilities says whether a program has capabilities of its own.
func fileCapabilities(program string) bool {
	_, err := unix.Getxattr(program, "security.capability", nil)
	return err == nil
}

// reapAll waits for every child until there is none: as PID 1 of a container we get children that we never started. That
// jail-init may be among those that it reaps is nothing new to package isolate.
func reapAll() {
	for {
		if _, err := unix.Wait4(-1, nil, 0, nil); err != nil && !errors.Is(err, unix.EINTR) {
			return
		}
	}
}
