//go:build !linux || !(amd64 || arm64)

package ipc

import (
	"os"
	"time"
)

// Segment is memory that processes share; on this system there is none, so nothing that lies in one can be made.
type Segment struct{ name string }

// Create is not supported here.
func Create(name string, _ int) (*Segment, error) { return nil, wrap("create", name, ErrUnsupported) }

// Open is not supported here; it closes f.
func Open(f *os.File) (*Segment, error) {
	f.Close()
	return nil, wrap("open", f.Name(), ErrUnsupported)
}

// OpenReadOnly is not supported here; it closes f.
func OpenReadOnly(f *os.File) (*Segment, error) { return Open(f) }

// At is not supported here.
func At[T any](s *Segment, _ int) (*T, error) { return nil, wrap("place", s.name, ErrUnsupported) }

// Slice is not supported here.
func Slice[T any](s *Segment, _, _ int) ([]T, error) {
	return nil, wrap("place", s.name, ErrUnsupported)
}

// Share is not supported here.
func (s *Segment) Share() (*os.File, error) { return nil, wrap("share", s.name, ErrUnsupported) }

// ShareReadOnly is not supported here.
func (s *Segment) ShareReadOnly() (*os.File, error) {
	return nil, wrap("share", s.name, ErrUnsupported)
}

// Close does nothing here.
func (s *Segment) Close() error { return nil }

// Self is nobody here.
func (s *Segment) Self() Owner { return 0 }

// Alive is false here.
func (s *Segment) Alive(Owner) bool { return false }

// Size is 0 here.
func (s *Segment) Size() int { return 0 }

// Name is what the segment was to be called.
func (s *Segment) Name() string { return s.name }

func (s *Segment) String() string { return s.name }

func inSegment[T any](*Segment, *T) error { return ErrUnsupported }

func futexWait(*uint32, uint32, time.Duration) {}

func futexWake(*uint32, int) int { return 0 }

const everyone = 1

func spinBudget() time.Duration { return 0 }

type futexWaiter struct{ value uint64 }

func newFutexWaiter(_ *uint32, old uint32) futexWaiter { return futexWaiter{uint64(old)} }

func futexWaitAny([]futexWaiter, time.Duration) error { return ErrUnsupported }

func relax(int) {}
