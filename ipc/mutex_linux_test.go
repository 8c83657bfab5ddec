//go:build amd64 || arm64

package ipc

import (
	"sync"
	"testing"
)

func newMutex(t testing.TB, s *Segment) *Mutex {
	t.Helper()
	state, err := At[MutexState](s, 0)
	if err != nil {
		t.Fatal(err)
	}
	m, err := NewMutex(s, state)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func BenchmarkMutexUncontended(b *testing.B) {
	m := newMutex(b, newSegment(b, 4096))
	ctx := b.Context()
	for b.Loop() {
		if m.Lock(ctx) != nil || m.Unlock() != nil {
			b.Fatal("no lock")
		}
	}
}

func BenchmarkMutexContended(b *testing.B) {
	s := newSegment(b, 4096)
	var group sync.WaitGroup
	for _, m := range []*Mutex{newMutex(b, s), newMutex(b, peer(b, s))} {
		group.Go(func() {
			for range b.N / 2 {
				if m.Lock(b.Context()) != nil || m.Unlock() != nil {
					b.Error("no lock")
					return
				}
			}
		})
	}
	group.Wait()
}
