// Package picture is how a grey picture lies in a segment: its size, then a byte for each pixel, line by line.
package picture

import (
	"fmt"
	"slices"

	"github.com/jailrun/jail/ipc"
)

const (
	// Size of the segment in bytes.
	Size   = 16 << 20
	pixels = 64 // where they begin
)

type size struct{ Width, Height uint32 }

// Pixels returns the memory for a picture of that size, and says in the segment that it is one.
func Pixels(s *ipc.Segment, width, height int) ([]uint8, error) {
	if width <= 0 || height <= 0 || width > (Size-pixels)/height {
		return nil, fmt.Errorf("a picture of %d × %d does not fit", width, height)
	}
	there, err := ipc.At[size](s, 0)
	if err != nil {
		return nil, err
	}
	*there = size{uint32(width), uint32(height)}
	return ipc.Slice[uint8](s, pixels, width*height)
}

// Read copies the picture out of the segment, whoever may be writing to it.
func Read(s *ipc.Segment) (width, height int, grey []uint8, err error) {
	there, err := ipc.At[size](s, 0)
	if err != nil {
		return 0, 0, nil, err
	}
	is := *there // once: it may change after it was checked
	if is.Width == 0 || is.Height == 0 || uint64(is.Width)*uint64(is.Height) > Size-pixels {
		return 0, 0, nil, fmt.Errorf("a picture of %d × %d can't be", is.Width, is.Height)
	}
	all, err := ipc.Slice[uint8](s, pixels, int(is.Width)*int(is.Height))
	if err != nil {
		return 0, 0, nil, err
	}
	return int(is.Width), int(is.Height), slices.Clone(all), nil
}
