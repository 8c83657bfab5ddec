//go:build amd64 || arm64

package ipc

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// root is a folder, or a regular file, that a rule names.
type root struct {
	file   *os.File // O_PATH
	folder bool
	// readOnly says that file is on a read-only mount of its own. Who has an fd and a /proc can open the file behind it
	// anew, with other rights than the fd's (/proc/self/fd/N is no path), if its mount and its mode let him write. The
	// uid of an ordinary user's jail is the user's.
	readOnly bool
}

// Resolution stays below the root whatever is renamed meanwhile, and goes through no link of /proc.
const resolveInRoot = unix.RESOLVE_BENEATH | unix.RESOLVE_NO_MAGICLINKS

func openRoot(rule FileRule) (*root, error) {
	fd, err := unix.Open(rule.Path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: rule.Path, Err: err}
	}
	r := &root{file: os.NewFile(uintptr(fd), rule.Path)}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		r.file.Close()
		return nil, &os.PathError{Op: "fstat", Path: rule.Path, Err: err}
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		r.folder = true
	case unix.S_IFREG:
	default:
		r.file.Close()
		return nil, fmt.Errorf("%s is neither a folder nor a regular file", rule.Path)
	}
	if rule.Access == MayRead {
		r.makeReadOnly()
	}
	return r, nil
}

// makeReadOnly takes the tree's mount for a read-only copy of it, which is mounted nowhere. Without CAP_SYS_ADMIN it
// can't: then open copies files.
func (r *root) makeReadOnly() {
	fd := int(r.file.Fd())
	tree, err := unix.OpenTree(fd, "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH|unix.AT_RECURSIVE)
	if err != nil {
		return
	}
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}
	if err := unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, &attr); err != nil {
		unix.Close(tree)
		return
	}
	name := r.file.Name()
	r.file.Close()
	r.file, r.readOnly = os.NewFile(uintptr(tree), name), true
}

// open opens the regular file at path below r, or r itself where that is a file and path is empty. The access is one of
// accessRead, accessWrite and accessCreate. Charge is called with the number of bytes of a copy, and may refuse.
func (r *root) open(path string, access uint64, charge func(int64) error) (*os.File, error) {
	if r.folder == (path == "") {
		return nil, refuse(statusDenied, "the path is empty, or the rule names a file and not a folder")
	}
	for range 8 { // somebody renames or makes files meanwhile
		fd, err := r.lookUp(path)
		if err == unix.ENOENT && access == accessCreate {
			if fd, err = r.openat2(path, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL, 0o600); err == nil {
				return os.NewFile(uintptr(fd), path), nil
			}
		}
		switch err {
		case nil:
			defer unix.Close(fd)
			return r.reopen(fd, path, access, charge)
		case unix.EAGAIN, unix.EEXIST, unix.EINTR:
		default:
			return nil, &os.PathError{Op: "open", Path: path, Err: err}
		}
	}
	return nil, &os.PathError{Op: "open", Path: path, Err: unix.EAGAIN}
}

func (r *root) openat2(path string, flags, mode uint64) (int, error) {
	how := unix.OpenHow{Flags: flags | unix.O_CLOEXEC, Mode: mode, Resolve: resolveInRoot}
	return unix.Openat2(int(r.file.Fd()), path, &how)
}

// lookUp returns an O_PATH fd: it opens nothing, so a FIFO's other end or a device does not see it.
func (r *root) lookUp(path string) (int, error) {
	if path == "" {
		return unix.FcntlInt(r.file.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	}
	return r.openat2(path, unix.O_PATH, 0)
}

// reopen opens what an O_PATH fd names, if that is a regular file.
func (r *root) reopen(fd int, path string, access uint64, charge func(int64) error) (*os.File, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, &os.PathError{Op: "fstat", Path: path, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, refuse(statusDenied, "%.200q is not a regular file", path)
	}
	flags := unix.O_RDWR
	if access == accessRead {
		flags = unix.O_RDONLY
	}
	// O_NONBLOCK: the holder of a lease (fcntl F_SETLEASE) would keep us waiting.
	opened, err := unix.Open("/proc/self/fd/"+strconv.Itoa(fd), flags|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	// Before NewFile, which would try to have a file polled that does not block. O_NONBLOCK is the only flag that is set.
	if _, err := unix.FcntlInt(uintptr(opened), unix.F_SETFL, 0); err != nil {
		unix.Close(opened)
		return nil, &os.PathError{Op: "fcntl", Path: path, Err: err}
	}
	file := os.NewFile(uintptr(opened), path)
	if access != accessRead || r.readOnly || !reopenable(opened, &st) {
		return file, nil
	}
	defer file.Close()
	return copyFile(file, charge)
}

// reopenable says whether somebody with our uid could open the file behind fd for writing, perhaps after a chmod.
func reopenable(fd int, st *unix.Stat_t) bool {
	var fs unix.Statfs_t
	if err := unix.Fstatfs(fd, &fs); err == nil && fs.Flags&unix.ST_RDONLY != 0 {
		return false
	}
	return int(st.Uid) == os.Geteuid() ||
		unix.Faccessat(fd, "", unix.W_OK, unix.AT_EACCESS|unix.AT_EMPTY_PATH) == nil
}

// copyFile returns a copy of file in memory that can't be written to, by whatever way it is opened.
func copyFile(file *os.File, charge func(int64) error) (readOnly *os.File, err error) {
	fd, err := unix.MemfdCreate("copy", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, fmt.Errorf("memfd_create: %w", err)
	}
	memory := os.NewFile(uintptr(fd), file.Name())
	defer memory.Close()
	var charged int64
	defer func() {
		if err != nil {
			_ = charge(-charged) // less is never refused
		}
	}()
	buffer := make([]byte, 64<<10)
	for {
		n, readErr := file.Read(buffer)
		if n > 0 {
			if err := charge(int64(n)); err != nil {
				return nil, err
			}
			charged += int64(n)
			if _, err := memory.Write(buffer[:n]); err != nil {
				return nil, err
			}
		}
		if errors.Is(readErr, io.EOF) {
			break
		}
		if readErr != nil {
			return nil, readErr
		}
	}
	const seals = unix.F_SEAL_WRITE | unix.F_SEAL_GROW | unix.F_SEAL_SHRINK | unix.F_SEAL_SEAL
	if _, err := unix.FcntlInt(memory.Fd(), unix.F_ADD_SEALS, seals); err != nil {
		return nil, fmt.Errorf("fcntl F_ADD_SEALS: %w", err)
	}
	return os.Open("/proc/self/fd/" + strconv.Itoa(fd))
}
