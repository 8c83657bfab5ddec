//go:build cgo && (amd64 || arm64)

package jailinit

/*
#include "launch.h"
*/
import "C"

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Stage says how far a launch came before it failed.
type Stage int

// The stages of a launch before jail-init runs.
const (
	StageClone Stage = C.LAUNCH_CLONE // clone3(2) or clone(2)
	StageFDs   Stage = C.LAUNCH_FDS   // duplicating fds
	StageExec  Stage = C.LAUNCH_EXEC  // execveat(2) of jail-init
)

// FD is one fd of the payload: Dst in the payload is a copy of Src in the launcher.
type FD struct{ Src, Dst int }

// Launch is one start of jail-init.
type Launch struct {
	Flags    uint64 // CLONE_NEW…, CLONE_INTO_CGROUP
	Image    int    // of Image
	Ambient  bool   // carry capabilities over jail-init's exec: needed in a new user namespace
	NoClone3 bool   // use clone(2)
	Cgroup   int    // with CLONE_INTO_CGROUP in Flags, which clone(2) has not: the folder of the cgroup
	Pass     []FD   // at most MaxFDs
	Kept     []int  // jail-init's own: Plan, socket, pidfd of the launcher, then the slots that steps name
}

// Limits of a launch.
const (
	MaxFDs  = C.MAX_FDS
	MaxKept = C.MAX_KEPT
)

// Start starts jail-init and returns when it runs. The caller owns the pidfd and has to wait for the process. No fd
// of Launch is closed. It is safe from any goroutine and thread, many at once, and the thread may end.
func (l *Launch) Start() (pid, pidfd int, stage Stage, err error) {
	c := C.struct_launch{flags: C.uint64_t(l.Flags), image: C.int32_t(l.Image), cgroup: C.int32_t(l.Cgroup)}
	if l.Ambient {
		c.ambient = 1
	}
	if l.NoClone3 {
		c.no_clone3 = 1
	}
	if len(l.Pass) > MaxFDs || len(l.Kept) > MaxKept {
		return 0, -1, StageFDs, unix.EMFILE
	}
	c.npass, c.nkept = C.int32_t(len(l.Pass)), C.int32_t(len(l.Kept))
	for i, fd := range l.Pass {
		c.src[i], c.dst[i] = C.int32_t(fd.Src), C.int32_t(fd.Dst)
	}
	for i, fd := range l.Kept {
		c.kept[i] = C.int32_t(fd)
	}
	if r := C.jail_launch(&c); r != 0 {
		return 0, -1, Stage(c.stage), unix.Errno(-r)
	}
	return int(c.pid), int(c.pidfd), 0, nil
}

// code is jail-init as it lies in our own memory.
func code() []byte {
	start := unsafe.Pointer(&C.jail_init_start)
	return unsafe.Slice((*byte)(start), uintptr(unsafe.Pointer(&C.jail_init_end))-uintptr(start))
}

// elf64 is an ELF file header and its two program headers: the code, and a stack that can't be executed.
type elf64 struct {
	ident                      [16]byte
	kind, machine              uint16
	version                    uint32
	entry, phoff, shoff        uint64
	flags                      uint32
	ehsize, phentsize, phnum   uint16
	shentsize, shnum, shstrndx uint16
	load, stack                programHeader
}

type programHeader struct {
	kind, flags                                uint32
	offset, vaddr, paddr, filesz, memsz, align uint64
}

// program is the ELF executable that jail-init becomes.
func program() []byte {
	const base, headers = 0x400000, uint64(unsafe.Sizeof(elf64{}))
	machine := map[string]uint16{"amd64": 62, "arm64": 183}[runtime.GOARCH]
	text := code()
	entry := uint64(uintptr(unsafe.Pointer(&C.jail_init_entry)) - uintptr(unsafe.Pointer(&C.jail_init_start)))
	size := headers + uint64(len(text))
	h := elf64{
		ident: [16]byte{0x7f, 'E', 'L', 'F', 2, 1, 1}, kind: 2, machine: machine, version: 1,
		entry: base + headers + entry, phoff: 64, ehsize: 64, phentsize: 56, phnum: 2,
		load:  programHeader{kind: 1, flags: 5, vaddr: base, paddr: base, filesz: size, memsz: size, align: 65536},
		stack: programHeader{kind: 0x6474e551, flags: 6},
	}
	return append(append([]byte{}, bytesOf([]elf64{h})...), text...)
}

// ErrFileSize says that RLIMIT_FSIZE is too small for jail-init or a Plan to be written.
var ErrFileSize = errors.New("the file size limit (ulimit -f) is smaller than jail-init needs")

// images by whether they are files: fds that are made at first use and kept for ever, since a launch that is under way
// may be about to execute one.
var images = struct {
	sync.Mutex
	fd [2]int
}{fd: [2]int{-1, -1}}

// Image returns an fd of the sealed memfd that jail-init runs from; it belongs to the package. noMemfd asks for the
// other way: an unnamed file in a folder that allows exec.
func Image(noMemfd bool) (int, error) {
	images.Lock()
	defer images.Unlock()
	fd, mint := &images.fd[0], mintMemfd
	if noMemfd {
		fd, mint = &images.fd[1], mintFile
	}
	if *fd >= 0 {
		return *fd, nil
	}
	made, err := mint(program())
	if err != nil {
		return -1, err
	}
	*fd = made
	return made, nil
}

// mintMemfd writes p to a memfd and seals it, so that nothing in a jail can change what the next one runs
// (CVE-2019-5736).
func mintMemfd(p []byte) (int, error) {
	fd, err := memfd("jail-init", unix.MFD_ALLOW_SEALING|unix.MFD_EXEC)
	if err != nil {
		return -1, fmt.Errorf("memfd_create jail-init: %w", err)
	}
	if err := writeAll(fd, p); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("write jail-init: %w", err)
	}
	const seals = unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, seals); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("seal jail-init: %w", err)
	}
	return fd, nil
}

// mintFile writes p to a file without a name, for hosts where no memfd can be executed (vm.memfd_noexec=2, an LSM).
func mintFile(p []byte) (int, error) {
	return inFolders(func(dir string) (int, error) { return mintFileIn(dir, p) })
}

// inFolders makes a file in the first folder where that works.
func inFolders(mint func(dir string) (int, error)) (int, error) {
	var tried []error
	for _, dir := range []string{os.Getenv("XDG_RUNTIME_DIR"), "/run", "/dev/shm", os.TempDir()} {
		if dir == "" {
			continue
		}
		fd, err := mint(dir)
		if err == nil {
			return fd, nil
		}
		tried = append(tried, err)
	}
	return -1, fmt.Errorf("no folder for jail-init: %w", errors.Join(tried...))
}

func mintFileIn(dir string, p []byte) (int, error) {
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return -1, &os.PathError{Op: "statfs", Path: dir, Err: err}
	}
	if fs.Flags&unix.ST_NOEXEC != 0 {
		return -1, &os.PathError{Op: "execute in", Path: dir, Err: errors.New("mounted noexec")}
	}
	w, err := writeFileIn(dir, p)
	if err != nil {
		return -1, err
	}
	defer unix.Close(w)
	// A file that is open for writing can't be executed (ETXTBSY).
	fd, err := unix.Open(fmt.Sprintf("/proc/self/fd/%d", w), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, &os.PathError{Op: "open again jail-init in", Path: dir, Err: err}
	}
	return fd, nil
}

// writeFileIn writes p to a file without a name, which is open for reading too.
func writeFileIn(dir string, p []byte) (int, error) {
	fd, err := unix.Open(dir, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o500)
	if err != nil {
		return -1, &os.PathError{Op: "open O_TMPFILE in", Path: dir, Err: err}
	}
	if err := writeAll(fd, p); err != nil {
		unix.Close(fd)
		return -1, &os.PathError{Op: "write jail-init's file in", Path: dir, Err: err}
	}
	return fd, nil
}

// WritePlan writes an encoded Plan to a memfd, or where there are none to an unnamed file; the caller closes it.
func WritePlan(p []byte, noMemfd bool) (int, error) {
	if noMemfd {
		return inFolders(func(dir string) (int, error) { return writeFileIn(dir, p) })
	}
	fd, err := memfd("jail-plan", unix.MFD_NOEXEC_SEAL)
	if err != nil {
		return -1, fmt.Errorf("memfd_create jail-plan: %w", err)
	}
	if err := writeAll(fd, p); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("write jail-plan: %w", err)
	}
	return fd, nil
}

// memfd drops MFD_EXEC and MFD_NOEXEC_SEAL where the kernel does not know them (before 6.3).
func memfd(name string, flags int) (int, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC|flags)
	if err == unix.EINVAL {
		fd, err = unix.MemfdCreate(name, unix.MFD_CLOEXEC|flags&^(unix.MFD_EXEC|unix.MFD_NOEXEC_SEAL))
	}
	return fd, err
}

// writeAll compares RLIMIT_FSIZE first: a write beyond it raises SIGXFSZ.
func writeAll(fd int, p []byte) error {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_FSIZE, &limit); err == nil && limit.Cur < uint64(len(p)) {
		return ErrFileSize
	}
	for len(p) > 0 {
		n, err := unix.Write(fd, p)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return err
		}
		p = p[n:]
	}
	return nil
}

// Receive reads one record. It returns false when jail-init is gone, and the errno of a read that failed.
func Receive(read func([]byte) (int, error)) (Record, bool, error) {
	var r [1]Record
	for {
		n, err := read(bytesOf(r[:]))
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.ECONNRESET):
			// jail-init ended with orders that it had not read; its last words come after this (unix(7)).
			continue
		case err != nil:
			return Record{}, false, err
		case n != len(bytesOf(r[:])):
			return Record{}, false, nil
		}
		return r[0], true, nil
	}
}

// Encode is the order as it goes over the socket.
func (o Order) Encode() []byte { return append([]byte{}, bytesOf([]Order{o})...) }
