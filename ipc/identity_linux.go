//go:build amd64 || arm64

package ipc

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// identity is the process at the other end of a session.
type identity struct {
	pid    int      // in our pid namespace
	pidfd  *os.File // readable when it is dead
	pinned bool     // the kernel gave the pidfd; else it was opened by the pid, which may have been another's by then
}

// passIdentity makes the kernel add the sender's credentials, and since 6.5 its pidfd, to what fd receives. SO_PEERCRED
// and SO_PEERPIDFD tell nothing about a socketpair: both name who made it.
func passIdentity(fd int, on bool) error {
	value := 0
	if on {
		value = 1
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PASSCRED, value); err != nil {
		return fmt.Errorf("setsockopt SO_PASSCRED: %w", err)
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PASSPIDFD, value); err != nil && !errors.Is(err, unix.ENOPROTOOPT) {
		return fmt.Errorf("setsockopt SO_PASSPIDFD: %w", err)
	}
	return nil
}

// senderIdentity tells who sent r, and takes its pidfd.
func senderIdentity(r *received) (identity, error) {
	pidfd := r.pidfd
	r.pidfd = -1
	if r.credentials == nil {
		closeValid(pidfd)
		return identity{}, errors.New("no credentials came with the hello")
	}
	return identify(r.credentials, pidfd)
}

// connectorIdentity tells who connected the socket that we have accepted.
func connectorIdentity(fd int) (identity, error) {
	credentials, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return identity{}, fmt.Errorf("getsockopt SO_PEERCRED: %w", err)
	}
	pidfd, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PEERPIDFD)
	switch {
	case errors.Is(err, unix.ENOPROTOOPT): // before 6.5
		pidfd = -1
	case err != nil: // before 6.16 who is dead by now has none
		return identity{}, fmt.Errorf("getsockopt SO_PEERPIDFD: %w", err)
	}
	return identify(credentials, pidfd)
}

// identify takes pidfd over; where it is -1 it opens one by the pid.
func identify(credentials *unix.Ucred, pidfd int) (identity, error) {
	id := identity{pid: int(credentials.Pid), pinned: pidfd >= 0}
	switch {
	case pidfd < -1:
		return identity{}, fmt.Errorf("pidfd of process %d: %w", id.pid, unix.Errno(-pidfd))
	case id.pid <= 0:
		closeValid(pidfd)
		return identity{}, errors.New("the peer's process is in no pid namespace that is visible from here")
	case pidfd == -1:
		var err error
		if pidfd, err = openPidfd(credentials); err != nil {
			return identity{}, err
		}
	}
	if err := unix.SetNonblock(pidfd, true); err != nil {
		unix.Close(pidfd)
		return identity{}, fmt.Errorf("fcntl: %w", err)
	}
	id.pidfd = os.NewFile(uintptr(pidfd), "pidfd "+strconv.Itoa(id.pid))
	return id, nil
}

// openPidfd opens a pidfd by a pid. The peer may have ended and its pid be another's before or after the open; that
// one has the same user at least, and lived when we looked.
func openPidfd(credentials *unix.Ucred) (int, error) {
	pid := int(credentials.Pid)
	pidfd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return -1, fmt.Errorf("pidfd_open %d: %w", pid, err)
	}
	uid, err := userOf(pid)
	if err == nil && uid != int(credentials.Uid) {
		err = fmt.Errorf("process %d has uid %d now, not %d", pid, uid, credentials.Uid)
	}
	if err == nil && readable(pidfd) {
		err = fmt.Errorf("process %d: %w", pid, unix.ESRCH)
	}
	if err != nil {
		unix.Close(pidfd)
		return -1, err
	}
	return pidfd, nil
}

func userOf(pid int) (int, error) {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		return 0, err
	}
	for line := range bytes.Lines(text) {
		if ids, found := strings.CutPrefix(string(line), "Uid:"); found {
			if fields := strings.Fields(ids); len(fields) == 4 {
				return strconv.Atoi(fields[1]) // effective
			}
		}
	}
	return 0, fmt.Errorf("/proc/%d/status has no uid", pid)
}

// readable says whether something can be read from fd now; a pidfd is readable when its process is dead.
func readable(fd int) bool {
	p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	for {
		n, err := unix.Poll(p, 0)
		if err != unix.EINTR {
			return err == nil && n == 1
		}
	}
}

// dead says whether the process has ended.
func (id *identity) dead() (dead bool) {
	raw, err := id.pidfd.SyscallConn()
	if err != nil {
		return true
	}
	if err := raw.Control(func(fd uintptr) { dead = readable(int(fd)) }); err != nil {
		return true
	}
	return dead
}

// wait returns true when the process has ended, and false after stop.
func (id *identity) wait() bool {
	raw, err := id.pidfd.SyscallConn()
	if err != nil {
		return true
	}
	return raw.Read(func(fd uintptr) bool { return readable(int(fd)) }) == nil
}

// stop makes wait return.
func (id *identity) stop() { _ = id.pidfd.SetReadDeadline(past) } // only a closed file refuses, and there nobody waits

func closeValid(fd int) {
	if fd >= 0 {
		unix.Close(fd)
	}
}

func (id *identity) close() {
	if id.pidfd != nil {
		id.pidfd.Close()
	}
}
