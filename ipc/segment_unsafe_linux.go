//go:build amd64 || arm64

package ipc

import (
	"fmt"
	"reflect"
	"unsafe"

	"golang.org/x/sys/unix"
)

func tableOf(memory []byte) *header { return (*header)(unsafe.Pointer(unsafe.SliceData(memory))) }

// At gives the segment's bytes from offset on the type T, which must have no pointers ([*PointerError]) and fit (EINVAL:
// outside, or not aligned as T needs). The value is shared: peers change it at any moment, so copy what you check before
// you check it, and use sync/atomic or the package's locks. Writing to a read-only segment's is a fault.
func At[T any](s *Segment, offset int) (*T, error) {
	values, err := Slice[T](s, offset, 1)
	if err != nil {
		return nil, err
	}
	return &values[0], nil
}

// Slice is [At] for n values that lie one behind the other.
func Slice[T any](s *Segment, offset, n int) ([]T, error) {
	if err := CheckType[T](); err != nil {
		return nil, err
	}
	var zero T
	size, align := int(unsafe.Sizeof(zero)), int(unsafe.Alignof(zero))
	if offset < 0 || n < 1 || offset > s.Size() || offset%align != 0 || size == 0 || n > (s.Size()-offset)/size {
		return nil, wrap("place", s.String(), fmt.Errorf("%d × %v (%d bytes, alignment %d) at %d of %d bytes: %w",
			n, reflect.TypeFor[T](), size, align, offset, s.Size(), unix.EINVAL))
	}
	return unsafe.Slice((*T)(unsafe.Pointer(&s.memory[headerSize+offset])), n), nil
}

// holds says whether size bytes at p are the user's part of the segment and can be written.
func (s *Segment) holds(p unsafe.Pointer, size uintptr) bool {
	start := uintptr(unsafe.Pointer(&s.memory[headerSize]))
	return s.writable && uintptr(p) >= start && uintptr(p)-start <= uintptr(s.Size()) && size <= uintptr(s.Size())-(uintptr(p)-start)
}

// inSegment refuses a state that does not lie in s, where no peer would see it, or that s may not write.
func inSegment[T any](s *Segment, state *T) error {
	if !s.holds(unsafe.Pointer(state), unsafe.Sizeof(*state)) {
		return fmt.Errorf("%T is not in memory of %v that it can write: %w", state, s, unix.EINVAL)
	}
	return nil
}
