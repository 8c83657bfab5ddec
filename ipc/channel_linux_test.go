//go:build amd64 || arm64

package ipc

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"
)

// channels makes the same channel in two attachments, as two processes have it.
func channels[T any](t testing.TB, capacity int) (a, b *Channel[T]) {
	t.Helper()
	s := newSegment(t, ChannelSize[T](capacity))
	a, err := NewChannel[T](s, 0, capacity)
	if err != nil {
		t.Fatal(err)
	}
	b, err = NewChannel[T](peer(t, s), 0, capacity)
	if err != nil {
		t.Fatal(err)
	}
	return a, b
}

func TestChannelBasic(t *testing.T) {
	for _, capacity := range []int{0, 1, 2, 3, 64} {
		a, b := channels[[8]uint64](t, capacity)
		const n = 20000
		var wg sync.WaitGroup
		wg.Go(func() {
			for i := range uint64(n) {
				if err := a.Send(t.Context(), [8]uint64{i, 0, 0, 0, 0, 0, 0, i}); err != nil {
					t.Error(err)
					return
				}
			}
			a.Close()
		})
		start := time.Now()
		for i := uint64(0); ; i++ {
			v, err := b.Recv(t.Context())
			if errors.Is(err, ErrClosed) {
				if i != n {
					t.Errorf("closed after %d", i)
				}
				break
			}
			if err != nil || v[0] != i || v[7] != i {
				t.Fatalf("%d: %v, %v", i, v, err)
			}
		}
		wg.Wait()
		t.Logf("capacity %d: %v per message", capacity, time.Since(start)/n)
	}
}

func BenchmarkPingPong(b *testing.B) {
	there, here := channels[[8]uint64](b, 16)
	back, front := channels[[8]uint64](b, 16)
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			v, err := here.Recv(context.Background())
			if err != nil {
				return
			}
			if front.Send(context.Background(), v) != nil {
				return
			}
		}
	})
	for b.Loop() {
		if err := there.Send(context.Background(), [8]uint64{1}); err != nil {
			b.Fatal(err)
		}
		if _, err := back.Recv(context.Background()); err != nil {
			b.Fatal(err)
		}
	}
	there.Close()
	wg.Wait()
}
