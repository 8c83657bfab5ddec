package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/gofrs/flock"
	"golang.org/x/sys/unix"
)

// lockPath is removed by the bench with all that it made.
func lockPath() string {
	return filepath.Join(os.TempDir(), fmt.Sprintf("jail-bench-%d.lock", os.Getpid()))
}

// gofrsFlock locks and unlocks; the package opens the file for each lock and closes it at each unlock.
func gofrsFlock(config) (operation, error) {
	lock := flock.New(lockPath())
	return repeat(func() error {
		if err := lock.Lock(); err != nil {
			return err
		}
		return lock.Unlock()
	}), nil
}

// keptFlock is flock(2) alone.
func keptFlock(config) (operation, error) {
	fd, err := unix.Open(lockPath(), unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, err
	}
	return repeat(func() error {
		if err := unix.Flock(fd, unix.LOCK_EX); err != nil {
			return err
		}
		return unix.Flock(fd, unix.LOCK_UN)
	}), nil
}
