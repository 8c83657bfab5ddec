package ipc

import "unsafe"

// length is the word before a message. at is a multiple of 8 below the ring's size, which is one too, and the ring begins
// at a multiple of 64, so the word lies inside and is aligned.
func (r *Ring) length(at uint64) *uint64 { return (*uint64)(unsafe.Pointer(&r.bytes[at])) }

// toWords and fromWords copy a value without pointers to and from whole words.
func toWords[T any](words []uint64, value *T) {
	copy(unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(words))), 8*len(words)), unsafe.Slice((*byte)(unsafe.Pointer(value)), unsafe.Sizeof(*value)))
}

func fromWords[T any](value *T, words []uint64) {
	copy(unsafe.Slice((*byte)(unsafe.Pointer(value)), unsafe.Sizeof(*value)), unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(words))), 8*len(words)))
}
