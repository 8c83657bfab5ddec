//go:build amd64 || arm64

package ipc

import (
	"sync"
	"sync/atomic"
	"testing"
)

// Figures of a machine that does something else besides are no figures: take the best of several (-count).

func BenchmarkMutexUncontended(b *testing.B) {
	w, ctx := newWorker(newSegment(b, 1<<16)), b.Context()
	for b.Loop() {
		if w.mutex.Lock(ctx) != nil || w.mutex.Unlock() != nil {
			b.Fatal("no lock")
		}
	}
}

func BenchmarkRWMutexReadUncontended(b *testing.B) {
	w, ctx := newWorker(newSegment(b, 1<<16)), b.Context()
	for b.Loop() {
		if w.rw.RLock(ctx) != nil || w.rw.RUnlock() != nil {
			b.Fatal("no lock")
		}
	}
}

func BenchmarkRWMutexWriteUncontended(b *testing.B) {
	w, ctx := newWorker(newSegment(b, 1<<16)), b.Context()
	for b.Loop() {
		if w.rw.Lock(ctx) != nil || w.rw.Unlock() != nil {
			b.Fatal("no lock")
		}
	}
}

func BenchmarkSemaphoreUncontended(b *testing.B) {
	w, ctx := newWorker(newSegment(b, 1<<16)), b.Context()
	for b.Loop() {
		if w.semaphore.Acquire(ctx, 1) != nil || w.semaphore.Release(1) != nil {
			b.Fatal("no permit")
		}
	}
}

// contended is b.N operations by two owners, each on a thread of its own: an operation's time is what both need for two.
func contended(b *testing.B, operation func(*worker) error) {
	s := newSegment(b, 1<<16)
	workers := []*worker{newWorker(s), newWorker(peer(b, s))}
	spinBudget() // measured once, and not here
	var group sync.WaitGroup
	var ready atomic.Int32
	for _, w := range workers {
		group.Go(func() {
			for ready.Add(1); ready.Load() < 2; {
			}
			b.ResetTimer()
			for range b.N / 2 {
				if err := operation(w); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	group.Wait()
}

func BenchmarkMutexContended(b *testing.B) {
	ctx := b.Context()
	contended(b, func(w *worker) error {
		if err := w.mutex.Lock(ctx); err != nil {
			return err
		}
		w.arena.A++
		return w.mutex.Unlock()
	})
}

func BenchmarkRWMutexContended(b *testing.B) {
	ctx := b.Context()
	contended(b, func(w *worker) error {
		if err := w.rw.RLock(ctx); err != nil {
			return err
		}
		return w.rw.RUnlock()
	})
}

func BenchmarkBarrier(b *testing.B) {
	ctx := b.Context()
	s := newSegment(b, 1<<16)
	var group sync.WaitGroup
	for _, w := range []*worker{newWorker(s), newWorker(peer(b, s))} {
		barrier, err := NewBarrier(w.segment, &w.arena.Barrier, 2)
		if err != nil {
			b.Fatal(err)
		}
		group.Go(func() {
			for range b.N {
				if err := barrier.Wait(ctx); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	group.Wait()
}

func BenchmarkAlive(b *testing.B) {
	s := newSegment(b, 1<<16)
	other := peer(b, s).Self()
	for b.Loop() {
		if !s.Alive(other) {
			b.Fatal("dead")
		}
	}
}
