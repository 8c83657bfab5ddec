package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/jailrun/jail/ipc"
	"golang.org/x/sys/unix"
)

// jail's own: package ipc.
func init() {
	peers["jail/mutex"] = peer{openMutex, connectMutex, serveMutex}
	peers["jail/fds"] = peer{openFDSocket, connectFDSocket, serveFDSocket}
	peers["jail/broker"] = peer{openNothing, connectBroker, serveBroker}
	alone["jail/free-mutex"] = aloneMutex
	alone["jail/filelock"] = fileLock
}

// guarded is what a mutex guards: how often it was locked.
type guarded struct {
	mutex ipc.MutexState
	_     [64]byte
	count uint64
}

func mutexIn(s *ipc.Segment) (*ipc.Mutex, *guarded, error) {
	g, err := ipc.At[guarded](s, 0)
	if err != nil {
		return nil, nil, err
	}
	m, err := ipc.NewMutex(s, &g.mutex)
	return m, g, err
}

func (g *guarded) lockTimes(m *ipc.Mutex, n int) error {
	ctx := context.Background()
	for range n {
		if err := m.Lock(ctx); err != nil {
			return err
		}
		g.count++
		if err := m.Unlock(); err != nil {
			return err
		}
	}
	return nil
}

func aloneMutex(config) (operation, error) {
	s, err := ipc.Create("bench", 4096)
	if err != nil {
		return nil, err
	}
	m, g, err := mutexIn(s)
	return func(n int) (int, error) { return n, g.lockTimes(m, n) }, err
}

func openMutex(config) (*os.File, any, error) {
	s, err := ipc.Create("bench", 4096)
	if err != nil {
		return nil, nil, err
	}
	theirs, err := s.Share()
	return theirs, s, err
}

func connectMutex(_ config, ours any) (operation, error) {
	m, g, err := mutexIn(ours.(*ipc.Segment))
	return func(n int) (int, error) {
		before := g.count
		err := g.lockTimes(m, n)
		done := int(g.count - before) // the other's too
		if done == n {
			done = 0 // nobody fought
		}
		return done, err
	}, err
}

func serveMutex(_ config, f *os.File) error {
	s, err := ipc.Open(f)
	if err != nil {
		return err
	}
	m, g, err := mutexIn(s)
	for err == nil {
		err = g.lockTimes(m, 1000)
	}
	return err
}

func fileLock(config) (operation, error) {
	lock, err := ipc.OpenFileLock(lockPath(), ipc.Flock)
	return repeat(func() error {
		if err := lock.Lock(context.Background(), ipc.Exclusive); err != nil {
			return err
		}
		return lock.Unlock()
	}), err
}

func openFDSocket(config) (*os.File, any, error) {
	ours, theirs, err := ipc.FDSocketPair()
	return theirs, ours, err
}

// connectFDSocket receives descriptors by number, or with test files as files, and closes them.
func connectFDSocket(c config, ours any) (operation, error) {
	s, ctx := ours.(*ipc.FDSocket), context.Background()
	data, fds := make([]byte, 1), make([]int, c.bytes)
	receive := func() error {
		_, n, err := s.RecvFDs(ctx, data, fds)
		ipc.CloseFDs(fds[:n])
		return err
	}
	if c.test == "files" {
		receive = func() error {
			_, files, err := s.Recv(ctx, data, c.bytes)
			for _, f := range files {
				f.Close()
			}
			return err
		}
	}
	return func(n int) (done int, err error) {
		for ; done < n && err == nil; done += c.bytes {
			err = receive()
		}
		return done, err
	}, nil
}

func serveFDSocket(c config, f *os.File) error {
	s, err := ipc.NewFDSocket(f)
	if err != nil {
		return err
	}
	fd, err := unix.Open(os.DevNull, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	fds := slices.Repeat([]int{fd}, c.bytes)
	for {
		if err := s.SendFDs(context.Background(), []byte{0}, fds...); err != nil {
			return err
		}
	}
}

// openNothing: the other process is the broker, and listens at a path.
func openNothing(config) (*os.File, any, error) {
	f, err := os.Open(os.DevNull)
	return f, nil, err
}

const brokerSocket = "broker"

func serveBroker(config, *os.File) error {
	folder, err := os.Getwd()
	if err == nil {
		err = os.WriteFile("file", nil, 0o600)
	}
	if err != nil {
		return err
	}
	p, err := ipc.NewBroker().Peer("bench", ipc.Rules{
		Files: []ipc.FileRule{{Name: "files", Path: folder, Access: ipc.MayRead}},
		Quota: ipc.Quota{Requests: 1 << 30},
	}, ipc.Handlers{})
	if err != nil {
		return err
	}
	// A socket that is there is listened to: it gets its name when it is.
	hidden := filepath.Join(folder, fmt.Sprintf("%s-%d", brokerSocket, os.Getpid()))
	if err := p.Listen(hidden); err != nil {
		return err
	}
	if err := os.Rename(hidden, filepath.Join(folder, brokerSocket)); err != nil {
		return err
	}
	select {}
}

// connectBroker opens a file over and over, for which the broker resolves its path and opens it each time: one after
// another (test open), with outstanding requests under way (opens), or so many with each request (batch).
func connectBroker(c config, _ any) (operation, error) {
	ctx := context.Background()
	var h *ipc.Handshaking
	var err error
	for range 1000 {
		if h, err = ipc.DialPath(brokerSocket); err == nil {
			break
		}
		time.Sleep(time.Millisecond)
	}
	if err != nil {
		return nil, err
	}
	if err := os.Remove(brokerSocket); err != nil {
		return nil, err
	}
	a, err := h.Authenticate(ctx)
	if err != nil {
		return nil, err
	}
	open := func() error {
		f, err := a.Open(ctx, "files", "file", ipc.MayRead)
		if err != nil {
			return err
		}
		return f.Close()
	}
	switch c.test {
	case "open":
		return repeat(open), nil
	case "batch":
		paths := slices.Repeat([]string{"file"}, c.bytes)
		return func(n int) (done int, err error) {
			for ; done < n && err == nil; done += c.bytes {
				var files []*os.File
				files, err = a.OpenAll(ctx, "files", paths, ipc.MayRead)
				for _, f := range files {
					f.Close()
				}
			}
			return done, err
		}, nil
	}
	done := make(chan error, outstanding)
	for range outstanding {
		go func() {
			for {
				done <- open()
			}
		}()
	}
	return repeat(func() error { return <-done }), nil
}
