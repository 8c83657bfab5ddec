//go:build amd64 || arm64

package ipc

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func rings(t testing.TB, size int) (a, b *Ring) {
	t.Helper()
	s := newSegment(t, RingSize(size))
	return ringOf(t, s, size), ringOf(t, peer(t, s), size)
}

func ringOf(t testing.TB, s *Segment, size int) *Ring {
	t.Helper()
	r, err := NewRing(s, 0, size)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func ends(t testing.TB, size int) (*Producer, *Consumer) {
	t.Helper()
	a, b := rings(t, size)
	p, err := a.Producer()
	if err != nil {
		t.Fatal(err)
	}
	c, err := b.Consumer()
	if err != nil {
		t.Fatal(err)
	}
	return p, c
}

func pattern(n, seed int) []byte {
	message := make([]byte, n)
	for i := range message {
		message[i] = byte(i*7 + seed)
	}
	return message
}

func TestRingKeepsOrderAndBytes(t *testing.T) {
	for _, size := range []int{48, 64, 1024, 1 << 16} {
		p, c := ends(t, size)
		lengths := make([]int, 5000)
		for i := range lengths {
			lengths[i] = rand.IntN(p.ring.MaxMessage() + 1)
		}
		var wg sync.WaitGroup
		wg.Go(func() {
			defer p.ring.Close()
			for i, n := range lengths {
				loan, err := p.Loan(patient(t), n)
				if err != nil || len(loan) != n {
					t.Error(err)
					return
				}
				copy(loan, pattern(n, i))
				if err := p.Publish(n); err != nil {
					t.Error(err)
					return
				}
			}
		})
		for i, n := range lengths {
			message, err := c.Take(patient(t))
			if err != nil || !bytes.Equal(message, pattern(n, i)) {
				t.Fatalf("size %d, message %d: %v, %d bytes, want %d", size, i, err, len(message), n)
			}
			c.Release()
		}
		wg.Wait()
		if _, err := c.Take(patient(t)); !errors.Is(err, ErrClosed) {
			t.Errorf("at the end: %v", err)
		}
		if _, err := p.Loan(patient(t), 1); !errors.Is(err, ErrClosed) {
			t.Errorf("Loan on a closed ring: %v", err)
		}
	}
}

func TestRingLendsWithoutCopy(t *testing.T) {
	p, c := ends(t, 1<<10)
	if err := p.Publish(0); !errors.Is(err, unix.EINVAL) {
		t.Errorf("Publish without a loan: %v", err)
	}
	if _, err := p.Loan(t.Context(), p.ring.MaxMessage()+1); !errors.Is(err, unix.EINVAL) {
		t.Errorf("a loan that never fits: %v", err)
	}
	loan, err := p.TryLoan(100)
	if err != nil {
		t.Fatal(err)
	}
	if message, err := c.TryTake(); message != nil || err != nil {
		t.Errorf("before Publish: %v, %v", message, err)
	}
	if err := p.Publish(60); err != nil {
		t.Fatal(err)
	}
	message, err := c.TryTake()
	if err != nil || len(message) != 60 {
		t.Fatal(len(message), err)
	}
	loan[59] = 9
	if message[59] != 9 {
		t.Error("the message is a copy")
	}
	if cap(loan) != 100 || cap(message) != 60 {
		t.Errorf("what was lent can be appended to: %d, %d", cap(loan), cap(message))
	}
	again, err := c.TryTake()
	if err != nil || &again[0] != &message[0] {
		t.Errorf("a second Take: another message, or %v", err)
	}
	c.Release()
	c.Release()
	if err := p.Send(t.Context(), []byte{}); err != nil {
		t.Fatal(err)
	}
	if message, err := c.TryTake(); message == nil || len(message) != 0 || err != nil {
		t.Errorf("an empty message: %v, %v", message, err)
	}
}

func TestTheorem_9_3_2_FullRingHoldsTheProducerUp(t *testing.T) {
	p, c := ends(t, 256)
	sent := 0
	for ; ; sent++ {
		loan, err := p.TryLoan(56)
		if err != nil {
			t.Fatal(err)
		}
		if loan == nil {
			break
		}
		if err := p.Publish(56); err != nil {
			t.Fatal(err)
		}
	}
	if sent != 4 {
		t.Errorf("%d messages of 64 bytes in 256", sent)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Millisecond)
	defer cancel()
	if _, err := p.Loan(ctx, 56); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	done := make(chan error)
	go func() { done <- p.Send(patient(t), make([]byte, 56)) }()
	if _, err := c.Recv(patient(t), nil); err != nil {
		t.Error(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestRingRoles(t *testing.T) {
	s := newSegment(t, RingSize(256))
	r := ringOf(t, s, 256)
	f, err := s.Share()
	if err != nil {
		t.Fatal(err)
	}
	other := must(Open(f))
	theirs := ringOf(t, other, 256)
	p, c := must(theirs.Producer()), must(theirs.Consumer())
	if _, err := r.Producer(); !errors.Is(err, unix.EBUSY) {
		t.Errorf("a second producer: %v", err)
	}
	if _, err := r.Consumer(); !errors.Is(err, unix.EBUSY) {
		t.Errorf("a second consumer: %v", err)
	}
	for _, b := range []byte{1, 2} {
		if err := p.Send(t.Context(), []byte{b}); err != nil {
			t.Fatal(err)
		}
	}
	must(c.Take(t.Context()))      // not released
	must(p.Loan(t.Context(), 100)) // not published
	other.Close()
	r.verified.Store(0)
	p, c = must(r.Producer()), must(r.Consumer())
	if err := p.Send(t.Context(), []byte{3}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []byte{1, 2, 3} {
		if message, err := c.Recv(t.Context(), nil); err != nil || len(message) != 1 || message[0] != want {
			t.Errorf("%v, %v, want %d", message, err, want)
		}
	}
	p.Close()
	c.Close()
	must(r.Producer())
	must(r.Consumer())
	if _, err := NewRing(s, 0, 128); !errors.Is(err, ErrCorrupt) {
		t.Errorf("another size: %v", err)
	}
}

func TestRingRefusesForgery(t *testing.T) {
	for name, forge := range map[string]func(r *Ring){
		"tail too far":  func(r *Ring) { r.state.tail = 1 << 40 },
		"tail before":   func(r *Ring) { r.state.tail = ^uint64(7) },
		"tail odd":      func(r *Ring) { r.state.tail = 13 },
		"length":        func(r *Ring) { *r.length(0) = 1 << 62 },
		"length, a bit": func(r *Ring) { *r.length(0) = 9 },
		"skip":          func(r *Ring) { *r.length(0) = ringSkip },
		"negative":      func(r *Ring) { *r.length(0) = ^uint64(7) - 8 },
	} {
		p, c := ends(t, 256)
		if err := p.Send(t.Context(), make([]byte, 8)); err != nil {
			t.Fatal(err)
		}
		forge(p.ring)
		if message, err := c.TryTake(); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: %d bytes, %v", name, len(message), err)
		}
	}
	p, c := ends(t, 256)
	for range 2 {
		if err := p.Send(t.Context(), make([]byte, 8)); err != nil {
			t.Fatal(err)
		}
	}
	must(c.Recv(t.Context(), nil))
	*p.ring.length(16) = ^uint64(15) // the sum comes round
	if _, err := c.TryTake(); !errors.Is(err, ErrCorrupt) {
		t.Errorf("a negative length further on: %v", err)
	}
	p, _ = ends(t, 256)
	p.ring.state.head = 1 << 40
	for {
		loan, err := p.TryLoan(100)
		if err != nil {
			if !errors.Is(err, ErrCorrupt) {
				t.Error(err)
			}
			break
		}
		if loan == nil {
			t.Fatal("a forged head passes")
		}
		p.Publish(100)
	}
}

func broadcasts[T any](t testing.TB, capacity int) (*BroadcastProducer[T], *Broadcast[T]) {
	t.Helper()
	s := newSegment(t, BroadcastSize[T](capacity))
	a, err := NewBroadcast[T](s, 0, capacity)
	if err != nil {
		t.Fatal(err)
	}
	b, err := NewBroadcast[T](peer(t, s), 0, capacity)
	if err != nil {
		t.Fatal(err)
	}
	return must(a.Producer()), b
}

func TestBroadcastReachesAll(t *testing.T) {
	p, b := broadcasts[wide](t, 16)
	const n = 5000
	var wg sync.WaitGroup
	for range 3 {
		r := b.Reader()
		wg.Go(func() {
			var last, missed, got uint64
			for {
				v, m, err := r.Recv(patient(t))
				if errors.Is(err, ErrClosed) {
					break
				}
				if err != nil || !v.whole() || v[0] != last+m+1 {
					t.Errorf("%v, %d behind %d, %d missed", err, v[0], last, m)
					return
				}
				last, missed, got = v[0], missed+m, got+1
			}
			if got+missed != n {
				t.Errorf("%d received and %d missed of %d", got, missed, n)
			}
		})
	}
	for i := range uint64(n) {
		p.Send(newWide(i + 1))
		if i%64 == 0 {
			time.Sleep(10 * time.Microsecond)
		}
	}
	p.Close()
	wg.Wait()
}

func TestBroadcastTellsWhatWasMissed(t *testing.T) {
	p, b := broadcasts[int64](t, 4)
	r := b.Reader()
	if _, _, ok, err := r.TryRecv(); ok || err != nil {
		t.Error(ok, err)
	}
	for i := range int64(10) {
		p.Send(i)
	}
	for i, missed := int64(6), uint64(6); i < 10; i, missed = i+1, 0 {
		if v, m, err := r.Recv(t.Context()); err != nil || v != i || m != missed {
			t.Errorf("%d, %d missed, %v, want %d, %d", v, m, err, i, missed)
		}
	}
	late := b.Reader()
	p.Send(10)
	if v, m, err := late.Recv(t.Context()); err != nil || v != 10 || m != 0 {
		t.Errorf("who comes late: %d, %d, %v", v, m, err)
	}
	if _, err := b.Producer(); !errors.Is(err, unix.EBUSY) {
		t.Errorf("a second producer: %v", err)
	}
	for _, forged := range []uint64{^uint64(0), 1 << 63, 23, 24} {
		r.Recv(t.Context())
		b.slot(r.next)[0] = forged
		if _, _, ok, err := r.TryRecv(); ok || err != nil && !errors.Is(err, ErrCorrupt) {
			t.Errorf("number %d: %v, %v", forged, ok, err)
		}
		p, b = broadcasts[int64](t, 4)
		r = b.Reader()
		p.Send(1)
	}
}

func TestBroadcastToReadOnly(t *testing.T) {
	s := newSegment(t, BroadcastSize[int64](4))
	p := must(must(NewBroadcast[int64](s, 0, 4)).Producer())
	f, err := s.ShareReadOnly()
	if err != nil {
		t.Fatal(err)
	}
	readOnly := must(OpenReadOnly(f))
	defer readOnly.Close()
	b, err := NewBroadcast[int64](readOnly, 0, 4)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Producer(); !errors.Is(err, unix.EPERM) {
		t.Errorf("a producer that can't write: %v", err)
	}
	r := b.Reader()
	time.AfterFunc(time.Millisecond, func() { p.Send(5) })
	if v, missed, err := r.Recv(patient(t)); v != 5 || missed != 0 || err != nil {
		t.Error(v, missed, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Millisecond)
	defer cancel()
	if _, _, err := r.Recv(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
}

// TestBroadcastProducerDies at each of Send's stores; a reader may have seen the value already.
func TestBroadcastProducerDies(t *testing.T) {
	for name, leave := range map[string]func(slot []uint64) (whole bool){
		"while it writes":     func(slot []uint64) bool { slot[0], slot[1] = 3, 99; return false },
		"before it counts it": func(slot []uint64) bool { slot[0], slot[1] = 4, 2; return true },
	} {
		p, b := broadcasts[int64](t, 4)
		r := b.Reader()
		p.Send(1)
		want := []int64{1, 3}
		if leave(b.slot(2)) {
			want = []int64{1, 2, 3}
		}
		b.state.producer = uint32(newOwner(200, 1)) // nobody
		for i, w := range want {
			if i == len(want)-1 {
				must(b.Producer()).Send(3)
			}
			if v, missed, ok, err := r.TryRecv(); v != w || missed != 0 || !ok || err != nil {
				t.Errorf("%s: %d, %d missed, %v, %v, want %d", name, v, missed, ok, err, w)
			}
		}
	}
}
