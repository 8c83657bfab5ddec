//go:build !linux || !(amd64 || arm64)

package ipc

import (
	"context"
	"os"
)

// FileLock is a lock on a file; on this system there is none.
type FileLock struct{ file *os.File }

// OpenFileLock is not supported here.
func OpenFileLock(path string, _ LockKind) (*FileLock, error) {
	return nil, wrap("open", path, ErrUnsupported)
}

// NewFileLock makes a lock that can't be taken here.
func NewFileLock(f *os.File, _ LockKind) *FileLock { return &FileLock{f} }

// Lock is not supported here.
func (l *FileLock) Lock(context.Context, LockMode) error {
	return wrap("lock", l.file.Name(), ErrUnsupported)
}

// TryLock is not supported here.
func (l *FileLock) TryLock(LockMode) (bool, error) {
	return false, wrap("lock", l.file.Name(), ErrUnsupported)
}

// Unlock is not supported here.
func (l *FileLock) Unlock() error { return wrap("unlock", l.file.Name(), ErrUnsupported) }

// Upgrade is not supported here.
func (l *FileLock) Upgrade(context.Context) (bool, error) {
	return false, wrap("upgrade", l.file.Name(), ErrUnsupported)
}

// Downgrade is not supported here.
func (l *FileLock) Downgrade() error { return wrap("downgrade", l.file.Name(), ErrUnsupported) }

// Mode is 0 here.
func (l *FileLock) Mode() LockMode { return 0 }

// Close closes the file.
func (l *FileLock) Close() error { return l.file.Close() }
