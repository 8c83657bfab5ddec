//go:build amd64 || arm64

package ipc

import "unsafe"

// headerWords is the header as a hostile peer sees it.
func headerWords(s *Segment) []uint32 {
	return unsafe.Slice((*uint32)(unsafe.Pointer(s.table)), headerSize/4)
}
