package main

import (
	"os"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// futexWords are as in c/floor.c: what the floor is for a Go program.
type futexWords struct {
	ping uint32
	_    [60]byte
	pong uint32
	_    [60]byte
}

func openFutex(config) (*os.File, any, error) {
	fd, err := unix.MemfdCreate("bench", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, nil, err
	}
	f := os.NewFile(uintptr(fd), "memfd")
	if err := f.Truncate(4096); err != nil {
		return nil, nil, err
	}
	words, err := mapWords(f)
	return f, words, err
}

func mapWords(f *os.File) (*futexWords, error) {
	memory, err := unix.Mmap(int(f.Fd()), 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, err
	}
	return (*futexWords)(unsafe.Pointer(&memory[0])), nil
}

func post(c config, word *uint32, value uint32) {
	const wake = 1
	atomic.StoreUint32(word, value)
	if !c.spin {
		_, _, _ = unix.Syscall6(unix.SYS_FUTEX, uintptr(unsafe.Pointer(word)), wake, 1, 0, 0, 0)
	}
}

func await(c config, word *uint32, old uint32) uint32 {
	const wait = 0
	for {
		if value := atomic.LoadUint32(word); value != old {
			return value
		}
		if !c.spin {
			_, _, _ = unix.Syscall6(unix.SYS_FUTEX, uintptr(unsafe.Pointer(word)), wait, uintptr(old), 0, 0, 0)
		}
	}
}

func connectFutex(c config, ours any) (operation, error) {
	words, value := ours.(*futexWords), uint32(0)
	return repeat(func() error {
		post(c, &words.ping, value+1)
		value = await(c, &words.pong, value)
		return nil
	}), nil
}

func serveFutex(c config, f *os.File) error {
	words, err := mapWords(f)
	for last := uint32(0); err == nil; {
		last = await(c, &words.ping, last)
		post(c, &words.pong, last)
	}
	return err
}
