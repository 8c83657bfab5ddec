//go:build !linux || !(amd64 || arm64)

package ipc

import (
	"context"
	"os"
)

// FDSocket passes fds to another process; on this system there is none.
type FDSocket struct{}

// NewFDSocket is not supported here; it closes f.
func NewFDSocket(f *os.File) (*FDSocket, error) {
	f.Close()
	return nil, wrap("use", f.Name(), ErrUnsupported)
}

// FDSocketPair is not supported here.
func FDSocketPair() (*FDSocket, *os.File, error) {
	return nil, nil, wrap("make", "fd socket", ErrUnsupported)
}

// Close does nothing here.
func (s *FDSocket) Close() error { return nil }

// Send is not supported here.
func (s *FDSocket) Send(context.Context, []byte, ...*os.File) error {
	return wrap("send", "fd socket", ErrUnsupported)
}

// SendFDs is not supported here.
func (s *FDSocket) SendFDs(context.Context, []byte, ...int) error {
	return wrap("send", "fd socket", ErrUnsupported)
}

// Recv is not supported here.
func (s *FDSocket) Recv(context.Context, []byte, int) (n int, files []*os.File, err error) {
	return 0, nil, wrap("receive", "fd socket", ErrUnsupported)
}

// RecvFDs is not supported here.
func (s *FDSocket) RecvFDs(context.Context, []byte, []int) (n, came int, err error) {
	return 0, 0, wrap("receive", "fd socket", ErrUnsupported)
}

// CloseFDs does nothing here: nothing can be received.
func CloseFDs([]int) {}
