//go:build amd64 || arm64

package ipc

import (
	"context"
	"errors"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func newSegment(t testing.TB, size int) *Segment {
	t.Helper()
	s, err := Create(t.Name(), size)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// peer attaches to s a second time, as another process would.
func peer(t testing.TB, s *Segment) *Segment {
	t.Helper()
	f, err := s.Share()
	if err != nil {
		t.Fatal(err)
	}
	p, err := Open(f)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

func TestSegmentIsShared(t *testing.T) {
	s := newSegment(t, 8192)
	a, err := At[uint64](s, 4096)
	if err != nil {
		t.Fatal(err)
	}
	b, err := At[uint64](peer(t, s), 4096)
	if err != nil {
		t.Fatal(err)
	}
	*a = 7
	if *b != 7 {
		t.Errorf("the peer sees %d", *b)
	}
}

func TestOwnerLivesAsLongAsItsAttachment(t *testing.T) {
	s := newSegment(t, 1)
	p := peer(t, s)
	owner := p.Self()
	if !s.Alive(owner) || !p.Alive(owner) || !p.Alive(s.Self()) {
		t.Error("a living owner counts as dead")
	}
	p.Close()
	if s.Alive(owner) {
		t.Error("a closed owner lives")
	}
	next := peer(t, s)
	if next.Self().Slot() != owner.Slot() || next.Self() == owner {
		t.Errorf("%#x follows %#x: want the same slot and another generation", next.Self(), owner)
	}
	if s.Alive(owner) || s.Alive(0) || s.Alive(200) || !s.Alive(next.Self()) {
		t.Error("wrong: who lives after the slot was taken anew")
	}
}

func TestCopyOfASharedFileKeepsNobodyAlive(t *testing.T) {
	s := newSegment(t, 1)
	f, err := s.Share()
	if err != nil {
		t.Fatal(err)
	}
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0) // what fork and SCM_RIGHTS do
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	p, err := Open(f)
	if err != nil {
		t.Fatal(err)
	}
	p.Close()
	if s.Alive(p.Self()) {
		t.Error("it lives on in a copy of its file")
	}
}

func TestSlotsRunOut(t *testing.T) {
	s := newSegment(t, 1)
	for range Slots - 1 {
		peer(t, s)
	}
	f, err := s.Share()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open(f); !errors.Is(err, unix.EAGAIN) {
		t.Errorf("attachment %d: %v, want EAGAIN", Slots+1, err)
	}
}

func TestReadOnlyShareCantBeWritten(t *testing.T) {
	s := newSegment(t, 1)
	f, err := s.ShareReadOnly()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Share(); !errors.Is(err, unix.EPERM) {
		t.Errorf("Share after ShareReadOnly: %v, want EPERM", err)
	}
	again, err := reopen(f, true)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := unix.Mmap(int(again.Fd()), 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); !errors.Is(err, unix.EPERM) {
		t.Errorf("writable mapping: %v, want EPERM", err)
	}
	if _, err := again.WriteAt([]byte{1}, 5000); !errors.Is(err, unix.EPERM) {
		t.Errorf("write: %v, want EPERM", err)
	}
	if _, err := Open(again); !errors.Is(err, unix.EPERM) {
		t.Errorf("Open: %v, want EPERM", err)
	}
	r, err := OpenReadOnly(f)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	a, _ := At[uint32](s, 0)
	b, err := At[uint32](r, 0)
	if err != nil {
		t.Fatal(err)
	}
	*a = 5
	if *b != 5 {
		t.Errorf("the reader sees %d", *b)
	}
	if err := inSegment(r, b); !errors.Is(err, unix.EINVAL) {
		t.Errorf("a lock in a read-only segment: %v, want EINVAL", err)
	}
}

func TestSharedSegmentStaysWritable(t *testing.T) {
	s := newSegment(t, 1)
	p := peer(t, s)
	if _, err := p.ShareReadOnly(); !errors.Is(err, unix.EPERM) {
		t.Errorf("ShareReadOnly after Share: %v, want EPERM", err)
	}
	if _, err := unix.FcntlInt(p.file.Fd(), unix.F_ADD_SEALS, unix.F_SEAL_FUTURE_WRITE); !errors.Is(err, unix.EPERM) {
		t.Errorf("a peer's seal: %v, want EPERM", err)
	}
	if err := p.file.Truncate(0); !errors.Is(err, unix.EPERM) {
		t.Errorf("a peer's truncate: %v, want EPERM", err)
	}
}

func TestOpenRefuses(t *testing.T) {
	memfd := func(size, allocated int64, seals int) *os.File {
		fd, err := unix.MemfdCreate("test", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
		if err != nil {
			t.Fatal(err)
		}
		f := os.NewFile(uintptr(fd), "test")
		t.Cleanup(func() { f.Close() })
		if err := f.Truncate(size); err != nil {
			t.Fatal(err)
		}
		if allocated > 0 {
			if err := unix.Fallocate(fd, 0, 0, allocated); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, seals); err != nil {
			t.Fatal(err)
		}
		return f
	}
	file, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	const fixed = unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_SEAL
	for name, f := range map[string]*os.File{
		"not a memfd":   file,
		"can shrink":    memfd(8192, 8192, unix.F_SEAL_GROW|unix.F_SEAL_SEAL),
		"can grow":      memfd(8192, 8192, unix.F_SEAL_SHRINK|unix.F_SEAL_SEAL),
		"can be sealed": memfd(8192, 8192, unix.F_SEAL_SHRINK|unix.F_SEAL_GROW),
		"is sealed":     memfd(8192, 8192, fixed|unix.F_SEAL_WRITE),
		"empty":         memfd(0, 0, fixed),
		"header only":   memfd(headerSize, headerSize, fixed),
		"sparse":        memfd(1<<30, 8192, fixed),
		"without magic": memfd(8192, 8192, fixed),
		"too large":     memfd(maxSize+4096, 0, fixed),
	} {
		if s, err := Open(f); err == nil {
			t.Errorf("%s: opened", name)
			s.Close()
		}
	}
}

func TestCreateRefusesSizes(t *testing.T) {
	for _, size := range []int{-1, 0, maxSize, 1 << 62} {
		if s, err := Create("x", size); err == nil {
			t.Errorf("%d bytes: created", size)
			s.Close()
		}
	}
}

func TestSegmentIsCloseOnExec(t *testing.T) {
	s := newSegment(t, 1)
	shared, err := s.Share()
	if err != nil {
		t.Fatal(err)
	}
	defer shared.Close()
	for _, f := range []*os.File{s.file, shared, peer(t, s).file} {
		if flags, err := unix.FcntlInt(f.Fd(), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
			t.Errorf("flags %#x, %v", flags, err)
		}
	}
}

func TestAtRefuses(t *testing.T) {
	s := newSegment(t, 4096)
	for _, offset := range []int{-8, 4, 4096, 4092, 1 << 62} {
		if _, err := At[uint64](s, offset); !errors.Is(err, unix.EINVAL) {
			t.Errorf("At %d: %v, want EINVAL", offset, err)
		}
	}
	for _, n := range []int{-1, 0, 513, 1 << 61, 1 << 62} {
		if _, err := Slice[uint64](s, 0, n); !errors.Is(err, unix.EINVAL) {
			t.Errorf("Slice of %d: %v, want EINVAL", n, err)
		}
	}
	if _, err := At[struct{}](s, 0); !errors.Is(err, unix.EINVAL) {
		t.Errorf("a type of no size: %v, want EINVAL", err)
	}
}

func TestPark(t *testing.T) {
	s := newSegment(t, 4096)
	word, err := At[uint32](s, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Run("wakes", func(t *testing.T) {
		other, err := At[uint32](peer(t, s), 0)
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			atomic.StoreUint32(other, 1)
			futexWake(other, 1)
		}()
		if err := park(t.Context(), word, 0, nil); err != nil || atomic.LoadUint32(word) != 1 {
			t.Errorf("%v, word %d", err, *word)
		}
	})
	t.Run("sees a change without a wake", func(t *testing.T) {
		go func() {
			time.Sleep(10 * time.Millisecond)
			atomic.StoreUint32(word, 2)
		}()
		if err := park(t.Context(), word, 1, nil); err != nil {
			t.Error(err)
		}
	})
	t.Run("cancel", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		go cancel()
		if err := park(ctx, word, 2, nil); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
	t.Run("deadline", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Millisecond)
		defer cancel()
		if err := park(ctx, word, 2, nil); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
	})
	t.Run("look", func(t *testing.T) {
		looks := 0
		err := park(t.Context(), word, 2, func() error {
			if looks++; looks == 3 {
				return ErrBroken
			}
			return nil
		})
		if !errors.Is(err, ErrBroken) || looks != 3 {
			t.Errorf("%v after %d looks", err, looks)
		}
	})
}

func TestErrorNamesOperationAndObject(t *testing.T) {
	_, err := Open(os.NewFile(uintptr(1<<20), "gone"))
	if err == nil || !strings.Contains(err.Error(), `open segment "gone"`) || !errors.Is(err, unix.EBADF) {
		t.Error(err)
	}
}

func TestSpinBudget(t *testing.T) {
	if n := cpus(); n < 2 {
		if spinBudget() != 0 {
			t.Errorf("spins on %d CPU", n)
		}
		return
	}
	if b := spinBudget(); b < 5*time.Microsecond || b > 100*time.Microsecond {
		t.Errorf("spins for %v", b)
	}
}

func TestPunchedHoleIsNoFault(t *testing.T) {
	s := newSegment(t, 1<<16)
	p := peer(t, s)
	words, err := Slice[uint64](s, 0, s.Size()/8)
	if err != nil {
		t.Fatal(err)
	}
	for i := range words {
		words[i] = 1
	}
	if err := unix.Fallocate(int(p.file.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, int64(headerSize+s.Size())); err != nil {
		t.Fatal(err)
	}
	for i := range words {
		if words[i] != 0 {
			t.Fatalf("word %d is %d", i, words[i])
		}
		words[i] = 2
	}
	if s.Alive(p.Self()) { // its generation is gone, so it is no owner any more
		t.Error("it lives")
	}
}

// To measure, threads are bound to a CPU for a moment; they go back to where others run on them.
func TestMeasuringBindsNoThread(t *testing.T) {
	var allowed unix.CPUSet
	if err := unix.SchedGetaffinity(0, &allowed); err != nil {
		t.Fatal(err)
	}
	if allowed.Count() < 2 {
		t.Skip("host lacks: a second CPU")
	}
	wakeCost()
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	for _, task := range tasks {
		tid, err := strconv.Atoi(task.Name())
		if err != nil {
			t.Fatal(err)
		}
		var set unix.CPUSet
		if unix.SchedGetaffinity(tid, &set) == nil && set != allowed {
			t.Errorf("thread %d is bound to %d CPUs", tid, set.Count())
		}
	}
}
