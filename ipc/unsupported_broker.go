//go:build !linux || !(amd64 || arm64)

package ipc

import (
	"context"
	"log/slog"
	"os"
)

// Broker serves nobody here.
type Broker struct{}

// NewBroker returns a Broker that can have no peers.
func NewBroker() *Broker { return &Broker{} }

// Peer is not supported here.
func (b *Broker) Peer(name string, _ Rules, _ Handlers) (*Peer, error) {
	return nil, wrap("serve", name, ErrUnsupported)
}

// Close does nothing here.
func (b *Broker) Close() error { return nil }

// Peer is a jail; on this system there is none.
type Peer struct{}

// Connect is not supported here.
func (p *Peer) Connect() (*os.File, error) { return nil, wrap("connect", "peer", ErrUnsupported) }

// Session is not supported here.
func (p *Peer) Session(context.Context) (*Authenticated, error) {
	return nil, wrap("connect", "peer", ErrUnsupported)
}

// Listen is not supported here.
func (p *Peer) Listen(path string) error { return wrap("listen", path, ErrUnsupported) }

// Close does nothing here.
func (p *Peer) Close() error { return nil }

// Handshaking is a connection to a broker; on this system there is none.
type Handshaking struct{}

// Authenticated is a session; on this system there is none.
type Authenticated struct {
	Jail   string
	Pinned bool
}

// Terminated is a session that was ended; on this system there is none.
type Terminated struct{}

// Dial is not supported here.
func Dial() (*Handshaking, error) { return nil, wrap("dial", "$"+FDEnv, ErrUnsupported) }

// DialPath is not supported here.
func DialPath(path string) (*Handshaking, error) { return nil, wrap("dial", path, ErrUnsupported) }

// Close does nothing here.
func (h *Handshaking) Close() error { return nil }

// Authenticate is not supported here.
func (h *Handshaking) Authenticate(context.Context) (*Authenticated, error) {
	return nil, wrap("authenticate", "broker", ErrUnsupported)
}

// Close does nothing here.
func (a *Authenticated) Close() error { return nil }

// Terminate is not supported here.
func (a *Authenticated) Terminate(context.Context) (*Terminated, error) {
	return nil, wrap("terminate", "session", ErrUnsupported)
}

// Open is not supported here.
func (a *Authenticated) Open(_ context.Context, name, _ string, _ Access) (*os.File, error) {
	return nil, wrap("open", name, ErrUnsupported)
}

// OpenAll is not supported here.
func (a *Authenticated) OpenAll(_ context.Context, name string, _ []string, _ Access) ([]*os.File, error) {
	return nil, wrap("open", name, ErrUnsupported)
}

// Lock is not supported here.
func (a *Authenticated) Lock(_ context.Context, name string, _ LockMode) error {
	return wrap("lock", name, ErrUnsupported)
}

// TryLock is not supported here.
func (a *Authenticated) TryLock(_ context.Context, name string, _ LockMode) (bool, error) {
	return false, wrap("lock", name, ErrUnsupported)
}

// Unlock is not supported here.
func (a *Authenticated) Unlock(_ context.Context, name string) error {
	return wrap("unlock", name, ErrUnsupported)
}

// Memory is not supported here.
func (a *Authenticated) Memory(_ context.Context, name string) (*Segment, error) {
	return nil, wrap("memory", name, ErrUnsupported)
}

// ReadMemory is not supported here.
func (a *Authenticated) ReadMemory(_ context.Context, name string) (*Segment, error) {
	return nil, wrap("memory", name, ErrUnsupported)
}

// OpenChannel is not supported here.
func OpenChannel[T any](_ context.Context, _ *Authenticated, name string) (*Channel[T], *Segment, error) {
	return nil, nil, wrap("channel", name, ErrUnsupported)
}

// ReleaseChannel is not supported here.
func (a *Authenticated) ReleaseChannel(_ context.Context, name string) error {
	return wrap("release", name, ErrUnsupported)
}

// Publish is not supported here.
func (a *Authenticated) Publish(_ context.Context, name string, _ *Segment) error {
	return wrap("publish", name, ErrUnsupported)
}

// Release is not supported here.
func (a *Authenticated) Release(_ context.Context, name string) error {
	return wrap("release", name, ErrUnsupported)
}

// Log is not supported here.
func (a *Authenticated) Log(context.Context, slog.Level, string) error {
	return wrap("log", "line", ErrUnsupported)
}

// Progress is not supported here.
func (a *Authenticated) Progress(_ context.Context, _, _ uint64, what string) error {
	return wrap("progress", what, ErrUnsupported)
}

// Result is not supported here.
func (a *Authenticated) Result(_ context.Context, name string, _ *os.File) error {
	return wrap("result", name, ErrUnsupported)
}
