//go:build amd64 || arm64

package ipc

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// Segment is a piece of memory that processes share, whatever their namespaces: a memfd of a fixed size, sealed against
// resizing, so that no peer can make an access fail (SIGBUS). Its first page holds the table of participants; the rest,
// zero at first, is the user's ([At], [Slice]).
//
// Every attachment that may write is a participant: it holds one of 255 slots by an OFD write lock on a byte of the memfd.
// The kernel drops that lock when the last copy of the attachment's open file description is closed, which a process's
// death does, so other participants can ask whether an [Owner] lives ([Segment.Alive]).
//
// A peer that may write can change every byte at every moment. It can also give pages back to the kernel (PUNCH_HOLE, which
// no seal prevents without preventing writes): they read as zeros, and whoever touches them is charged for them.
//
// Keep the Segment, or a lock made with it, for as long as it is used: a value from At does not, and what nothing refers to is
// closed by the garbage collector.
//
// Methods may be called by several goroutines at once, Close excepted: see there.
type Segment struct {
	name     string
	file     *os.File // an open file description of this attachment alone: it carries the slot's lock
	memory   []byte   // header and the user's bytes
	table    *header
	writable bool
	self     Owner
	sealing  sync.Mutex
	sealed   bool // against new kinds of shares: F_SEAL_SEAL
}

const (
	headerSize     = 4096
	segmentMagic   = 0x6a61696c // "jail"
	segmentVersion = 1

	// maxSize bounds what a peer that hands over a segment can make us map.
	maxSize = 1 << 40
)

// header is a segment's first page.
type header struct {
	magic       uint32
	version     uint32
	_           [14]uint32
	generations [Slots + 1]uint32 // by slot: how often it was taken
}

// Create makes a segment of at least size bytes for the user and attaches to it. All its memory is allocated at once: lack
// of it is an error here (ENOSPC, ENOMEM) and not a SIGBUS later. The name is for people, in errors and /proc/PID/maps.
func Create(name string, size int) (*Segment, error) {
	object := fmt.Sprintf("segment %q", name)
	if size < 1 || size > maxSize-2*headerSize {
		return nil, wrap("create", object, fmt.Errorf("size %d is not in 1…%d: %w", size, maxSize-2*headerSize, unix.EINVAL))
	}
	page := os.Getpagesize()
	total := (headerSize + size + page - 1) / page * page
	fd, err := unix.MemfdCreate("jail-"+name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING|unix.MFD_NOEXEC_SEAL)
	if errors.Is(err, unix.EINVAL) { // MFD_NOEXEC_SEAL is of Linux 6.3
		fd, err = unix.MemfdCreate("jail-"+name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	}
	if err != nil {
		return nil, wrap("create", object, err)
	}
	s := &Segment{name: name, file: os.NewFile(uintptr(fd), name), writable: true}
	if err := s.fill(total); err != nil {
		_ = s.Close()
		return nil, wrap("create", object, err)
	}
	return s, nil
}

func (s *Segment) fill(total int) error {
	fd := int(s.file.Fd())
	if err := retry(func() error { return unix.Fallocate(fd, 0, 0, int64(total)) }); err != nil {
		return fmt.Errorf("fallocate %d bytes: %w", total, err)
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_SHRINK|unix.F_SEAL_GROW); err != nil {
		return fmt.Errorf("seal: %w", err)
	}
	if err := s.mapMemory(total); err != nil {
		return err
	}
	s.table.version = segmentVersion
	atomic.StoreUint32(&s.table.magic, segmentMagic)
	return s.attach()
}

// Open attaches to a segment that came from [Segment.Share], through SCM_RIGHTS or inherited, and takes a slot (EAGAIN: all
// 255 are taken). It checks seals, size and header first, and opens the memfd anew through /proc, so that the slot is this
// attachment's alone. Where there is no /proc it uses f's own open file description, which Share made for one receiver; a
// copy of it that stays open elsewhere then keeps this participant alive in the others' eyes.
//
// Open owns f from the call on, and closes it if it fails.
func Open(f *os.File) (*Segment, error) { return open(f, true) }

// OpenReadOnly attaches to a segment that came from [Segment.ShareReadOnly]. It takes no slot, so it can't hold locks, and
// writing to its memory is a fault (SIGSEGV). It owns f from the call on.
func OpenReadOnly(f *os.File) (*Segment, error) { return open(f, false) }

func open(f *os.File, writable bool) (*Segment, error) {
	s := &Segment{name: f.Name(), file: f, writable: writable}
	if err := s.check(); err != nil {
		_ = s.Close()
		return nil, wrap("open", s.String(), err)
	}
	return s, nil
}

func (s *Segment) check() error {
	seals, err := unix.FcntlInt(s.file.Fd(), unix.F_GET_SEALS, 0)
	if err != nil {
		return fmt.Errorf("not a memfd: %w", err)
	}
	const fixed = unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_SEAL
	if seals&fixed != fixed {
		return fmt.Errorf("seals %#x lack some of %#x, so its size could change: %w", seals, fixed, unix.EINVAL)
	}
	if s.writable && seals&(unix.F_SEAL_WRITE|unix.F_SEAL_FUTURE_WRITE) != 0 {
		return fmt.Errorf("is shared read-only: %w", unix.EPERM)
	}
	s.sealed = true
	var stat unix.Stat_t
	if err := unix.Fstat(int(s.file.Fd()), &stat); err != nil {
		return fmt.Errorf("fstat: %w", err)
	}
	// A hole is no danger (a read fills it), but what has no memory behind it can still fail: a sparse segment of a hostile
	// peer would take our memory cgroup's, page by page.
	if stat.Size <= headerSize || stat.Size > maxSize || stat.Blocks < stat.Size/512 {
		return fmt.Errorf("size %d with %d bytes allocated: %w", stat.Size, stat.Blocks*512, unix.EINVAL)
	}
	if own, err := reopen(s.file, s.writable); err == nil {
		own, s.file = s.file, own
		own.Close()
	}
	if err := s.mapMemory(int(stat.Size)); err != nil {
		return err
	}
	if magic, version := atomic.LoadUint32(&s.table.magic), s.table.version; magic != segmentMagic || version != segmentVersion {
		return fmt.Errorf("magic %#x, version %d: %w", magic, version, ErrCorrupt)
	}
	if !s.writable {
		return nil
	}
	return s.attach()
}

func (s *Segment) mapMemory(total int) (err error) {
	protection := unix.PROT_READ
	if s.writable {
		protection |= unix.PROT_WRITE
	}
	if s.memory, err = unix.Mmap(int(s.file.Fd()), 0, total, protection, unix.MAP_SHARED); err != nil {
		return fmt.Errorf("mmap %d bytes: %w", total, err)
	}
	s.table = tableOf(s.memory)
	return nil
}

// attach takes a free slot. The generation is raised while the slot's lock is held, so no two owners have the same.
func (s *Segment) attach() error {
	for slot := 1; slot <= Slots; slot++ {
		lock := unix.Flock_t{Type: unix.F_WRLCK, Start: int64(slot), Len: 1}
		err := retry(func() error { return unix.FcntlFlock(s.file.Fd(), unix.F_OFD_SETLK, &lock) })
		if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) {
			continue
		}
		if err != nil {
			return fmt.Errorf("lock of slot %d: %w", slot, err)
		}
		s.self = newOwner(slot, atomic.AddUint32(&s.table.generations[slot], 1))
		return nil
	}
	return fmt.Errorf("all %d slots are taken: %w", Slots, unix.EAGAIN)
}

// Share returns a new open file description of the segment for exactly one other process, which calls [Open] with it. The
// caller passes it on (SCM_RIGHTS, exec.Cmd.ExtraFiles) and closes its own copy at once. It needs /proc. After
// ShareReadOnly it is EPERM.
func (s *Segment) Share() (*os.File, error) { return s.share(true) }

// ShareReadOnly returns a file with which [OpenReadOnly] works and Open, or any other way to write, does not: it sets
// F_SEAL_FUTURE_WRITE. Only attachments made before can write from then on, so it is EPERM after Share, which promised that
// others can. The caller closes the file.
func (s *Segment) ShareReadOnly() (*os.File, error) { return s.share(false) }

func (s *Segment) share(writable bool) (*os.File, error) {
	if err := s.seal(writable); err != nil {
		return nil, wrap("share", s.String(), err)
	}
	f, err := reopen(s.file, writable)
	return f, wrap("share", s.String(), err)
}

// seal settles at the first share which kind of share this segment has: F_SEAL_SEAL keeps a peer from adding a seal.
func (s *Segment) seal(writable bool) error {
	s.sealing.Lock()
	defer s.sealing.Unlock()
	seals, err := unix.FcntlInt(s.file.Fd(), unix.F_GET_SEALS, 0)
	if err != nil {
		return err
	}
	if s.sealed {
		if writable == (seals&unix.F_SEAL_FUTURE_WRITE == 0) {
			return nil
		}
		return fmt.Errorf("it is shared the other way already: %w", unix.EPERM)
	}
	add := unix.F_SEAL_SEAL
	if !writable {
		add |= unix.F_SEAL_FUTURE_WRITE
	}
	if _, err := unix.FcntlInt(s.file.Fd(), unix.F_ADD_SEALS, add); err != nil {
		return fmt.Errorf("seal: %w", err)
	}
	s.sealed = true
	return nil
}

// Close detaches: it frees the slot, so that others see this owner as dead, and unmaps the memory. What was placed in the
// segment must not be used after it or during it: that is a fault (SIGSEGV). Locks that are still held count as a dead owner's.
func (s *Segment) Close() error {
	if s.memory != nil {
		if err := unix.Munmap(s.memory); err != nil {
			return wrap("close", s.String(), err)
		}
		s.memory, s.table = nil, nil
	}
	return s.file.Close()
}

// Self is this attachment as an owner; zero if it is read-only.
func (s *Segment) Self() Owner { return s.self }

// Alive says whether an owner still has its slot. For a foreign one it costs a system call (0.3 µs). Who was killed may
// count as alive until the kernel has closed its files, and again for the moment in which its slot is taken anew. Where the
// kernel can't tell, the owner counts as alive: a lock is never taken from one who may live. A peer that writes can make
// others look dead, and nothing else.
func (s *Segment) Alive(o Owner) bool {
	o &= ownerMask
	slot := o.Slot()
	if slot == 0 || atomic.LoadUint32(&s.table.generations[slot])&generationMask != o.Generation() {
		return false
	}
	if o == s.self { // its own lock is no conflict, so the kernel would say that it is free
		return true
	}
	lock := unix.Flock_t{Type: unix.F_WRLCK, Start: int64(slot), Len: 1}
	err := retry(func() error { return unix.FcntlFlock(s.file.Fd(), unix.F_OFD_GETLK, &lock) })
	return err != nil || lock.Type != unix.F_UNLCK
}

// Size is how many bytes the user has: those asked for, rounded up to the end of a page.
func (s *Segment) Size() int { return len(s.memory) - headerSize }

// Name is what [Create] was given, or the name of the file that [Open] got.
func (s *Segment) Name() string { return s.name }

func (s *Segment) String() string { return fmt.Sprintf("segment %q", s.name) }

// reopen makes an open file description of its own: a dup would share the slot's lock.
func reopen(f *os.File, writable bool) (*os.File, error) {
	flags := unix.O_CLOEXEC | unix.O_RDONLY
	if writable {
		flags = unix.O_CLOEXEC | unix.O_RDWR
	}
	path := "/proc/self/fd/" + strconv.Itoa(int(f.Fd()))
	var fd int
	err := retry(func() (err error) { fd, err = unix.Open(path, flags, 0); return err })
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}

func retry(call func() error) error {
	for {
		if err := call(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
