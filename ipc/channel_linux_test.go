//go:build amd64 || arm64

package ipc

import (
	"context"
	"errors"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"golang.org/x/sys/unix"
)

// channels makes the same channel in two attachments, as two processes have it.
func channels[T any](t testing.TB, capacity int) (a, b *Channel[T]) {
	t.Helper()
	s := newSegment(t, ChannelSize[T](capacity))
	return channel[T](t, s, capacity), channel[T](t, peer(t, s), capacity)
}

func channel[T any](t testing.TB, s *Segment, capacity int) *Channel[T] {
	t.Helper()
	c, err := NewChannel[T](s, 0, capacity)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// wide shows a torn value: each word tells the others.
type wide [64]uint64

func newWide(id uint64) (w wide) {
	for i := range w {
		w[i] = id * uint64(i+1)
	}
	return w
}

func (w wide) whole() bool { return w == newWide(w[0]) }

var capacities = []int{0, 1, 2, 3, 64}

func TestTheorem_5_1_1_WhatIsReceivedIsWhatWasSent(t *testing.T) {
	for _, capacity := range capacities {
		const senders, receivers, each = 3, 3, 2000
		a, b := channels[wide](t, capacity)
		var sending, receiving sync.WaitGroup
		for sender := range uint64(senders) {
			sending.Go(func() {
				for i := range uint64(each) {
					if err := []*Channel[wide]{a, b}[sender%2].Send(patient(t), newWide(1+sender*each+i)); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		seen := make([]atomic.Uint32, 1+senders*each)
		for receiver := range receivers {
			receiving.Go(func() {
				last := [senders]uint64{}
				for {
					v, err := []*Channel[wide]{a, b}[receiver%2].Recv(patient(t))
					if errors.Is(err, ErrClosed) {
						return
					}
					if err != nil || !v.whole() || v[0] == 0 || v[0] >= uint64(len(seen)) {
						t.Errorf("%v, %v", err, v)
						return
					}
					seen[v[0]].Add(1)
					if sender := (v[0] - 1) / each; v[0] <= last[sender] {
						t.Errorf("%d after %d", v[0], last[sender])
					} else {
						last[sender] = v[0]
					}
				}
			})
		}
		sending.Wait()
		a.Close()
		receiving.Wait()
		for id := 1; id < len(seen); id++ {
			if n := seen[id].Load(); n != 1 {
				t.Fatalf("capacity %d: message %d was received %d times", capacity, id, n)
			}
		}
	}
}

func TestTheorem_5_1_2_ClosedChannelIsDrained(t *testing.T) {
	a, b := channels[int64](t, 4)
	for i := range int64(3) {
		if err := a.Send(t.Context(), i); err != nil {
			t.Fatal(err)
		}
	}
	b.Close()
	b.Close()
	if err := a.Send(t.Context(), 3); !errors.Is(err, ErrClosed) {
		t.Errorf("Send: %v, want ErrClosed", err)
	}
	if ok, err := a.TrySend(3); ok || !errors.Is(err, ErrClosed) {
		t.Errorf("TrySend: %v, %v, want ErrClosed", ok, err)
	}
	for i := range int64(3) {
		if v, err := a.Recv(t.Context()); err != nil || v != i {
			t.Errorf("%d, %v, want %d", v, err, i)
		}
	}
	if _, err := a.Recv(t.Context()); !errors.Is(err, ErrClosed) {
		t.Errorf("Recv: %v, want ErrClosed", err)
	}
	if _, _, err := b.TryRecv(); !errors.Is(err, ErrClosed) {
		t.Errorf("TryRecv: %v, want ErrClosed", err)
	}
}

func TestCloseWakesAll(t *testing.T) {
	for _, capacity := range []int{0, 1} {
		a, b := channels[int64](t, capacity)
		results := make(chan error, 6)
		for range 3 {
			go func() { _, err := a.Recv(patient(t)); results <- err }()
		}
		eventually(t, "receivers sleep", isSet(&a.state.receivers))
		b.Close()
		for range 3 {
			if err := <-results; !errors.Is(err, ErrClosed) {
				t.Error(err)
			}
		}
		a, b = channels[int64](t, capacity)
		if capacity > 0 {
			a.Send(t.Context(), 1)
		}
		for range 3 {
			go func() { results <- a.Send(patient(t), 2) }()
		}
		eventually(t, "senders sleep", isSet(&a.state.senders))
		b.Close()
		for range 3 {
			if err := <-results; !errors.Is(err, ErrClosed) {
				t.Error(err)
			}
		}
	}
}

func TestTheorem_5_2_1_FullChannelHoldsSendersUp(t *testing.T) {
	a, b := channels[int64](t, 3)
	for i := range int64(3) {
		if ok, err := a.TrySend(i); !ok || err != nil {
			t.Fatal(ok, err)
		}
	}
	if ok, err := a.TrySend(3); ok || err != nil {
		t.Errorf("a fourth in three: %v, %v", ok, err)
	}
	if a.Len() != 3 || b.Len() != 3 || a.Cap() != 3 {
		t.Errorf("length %d, %d, capacity %d", a.Len(), b.Len(), a.Cap())
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Millisecond)
	defer cancel()
	if err := a.Send(ctx, 3); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Send: %v, want a deadline", err)
	}
	done := make(chan error)
	go func() { done <- a.Send(patient(t), 4) }()
	eventually(t, "the sender sleeps", isSet(&a.state.senders))
	for _, want := range []int64{0, 1, 2, 4} {
		if v, err := b.Recv(patient(t)); err != nil || v != want {
			t.Errorf("%d, %v, want %d", v, err, want)
		}
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestTheorem_8_1_2_BackPressureKeepsMemoryBounded(t *testing.T) {
	a, b := channels[wide](t, 8)
	var sent atomic.Int64
	var wg sync.WaitGroup
	ctx, cancel := context.WithCancel(t.Context())
	wg.Go(func() {
		for a.Send(ctx, newWide(7)) == nil {
			sent.Add(1)
		}
	})
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for i := range int64(2000) {
		if _, err := b.Recv(patient(t)); err != nil {
			t.Fatal(err)
		}
		if ahead := sent.Load() - i; ahead > 8+2 {
			t.Fatalf("the sender is %d ahead", ahead)
		}
	}
	runtime.ReadMemStats(&after)
	cancel()
	wg.Wait()
	if after.HeapAlloc > before.HeapAlloc+8<<20 {
		t.Errorf("the heap grew from %d to %d", before.HeapAlloc, after.HeapAlloc)
	}
}

func TestTheorem_5_2_2_RendezvousMeets(t *testing.T) {
	a, b := channels[int64](t, 0)
	if ok, err := a.TrySend(1); ok || err != nil {
		t.Errorf("TrySend without a receiver: %v, %v", ok, err)
	}
	if _, ok, err := b.TryRecv(); ok || err != nil {
		t.Errorf("TryRecv without a sender: %v, %v", ok, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Millisecond)
	defer cancel()
	if err := a.Send(ctx, 2); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Send without a receiver: %v", err)
	}
	if v, ok, err := b.TryRecv(); ok || err != nil {
		t.Errorf("a value that was withdrawn: %d, %v, %v", v, ok, err)
	}
	// Each Send returns behind the call of the Recv that has its value, and each Recv behind the call of its Send.
	const n = 2000
	var clock atomic.Int64
	var sendCall, sendReturn, recvCall, recvReturn [n]int64
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := range n {
			sendCall[i] = clock.Add(1)
			if err := a.Send(patient(t), int64(i)); err != nil {
				t.Error(err)
				return
			}
			sendReturn[i] = clock.Add(1)
		}
	})
	for i := range n {
		recvCall[i] = clock.Add(1)
		if v, err := b.Recv(patient(t)); err != nil || v != int64(i) {
			t.Fatal(v, err)
		}
		recvReturn[i] = clock.Add(1)
	}
	wg.Wait()
	for i := range n {
		if sendReturn[i] < recvCall[i] || recvReturn[i] < sendCall[i] {
			t.Fatalf("value %d: sent in %d…%d, received in %d…%d", i, sendCall[i], sendReturn[i], recvCall[i], recvReturn[i])
		}
	}
	if a.Len() != 0 || a.Cap() != 0 {
		t.Errorf("length %d, capacity %d", a.Len(), a.Cap())
	}
}

func TestTrySendMeetsReceiver(t *testing.T) {
	a, b := channels[int64](t, 0)
	got := make(chan int64)
	go func() { v, _ := b.Recv(patient(t)); got <- v }()
	eventually(t, "TrySend meets the receiver", func() bool { ok, err := a.TrySend(5); return ok && err == nil })
	if v := <-got; v != 5 {
		t.Error(v)
	}
}

func TestTheorem_5_4_1_Pipeline(t *testing.T) {
	in, _ := channels[int64](t, 2)
	middle, _ := channels[int64](t, 0)
	out, _ := channels[int64](t, 5)
	stage := func(from, to *Channel[int64], f func(int64) int64) {
		defer to.Close()
		for {
			v, err := from.Recv(patient(t))
			if err != nil {
				return
			}
			if err := to.Send(patient(t), f(v)); err != nil {
				t.Error(err)
			}
		}
	}
	go stage(in, middle, func(v int64) int64 { return v + 1 })
	go stage(middle, out, func(v int64) int64 { return 2 * v })
	go func() {
		defer in.Close()
		for i := range int64(500) {
			if err := in.Send(patient(t), i); err != nil {
				t.Error(err)
			}
		}
	}()
	for i := range int64(500) {
		if v, err := out.Recv(patient(t)); err != nil || v != 2*(i+1) {
			t.Fatal(i, v, err)
		}
	}
	if _, err := out.Recv(patient(t)); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
}

// Many feed one channel, from which many take: each value arrives once.
func TestTheorem_5_4_2_FanInFanOut(t *testing.T) {
	const feeders, workers, each = 4, 3, 300
	in, out := channels[int64](t, 4)
	results, collected := channels[[2]int64](t, 4)
	var feeding, working sync.WaitGroup
	for f := range int64(feeders) {
		feeding.Go(func() {
			for i := range int64(each) {
				if err := in.Send(patient(t), f*each+i); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for w := range int64(workers) {
		working.Go(func() {
			for {
				v, err := out.Recv(patient(t))
				if err != nil {
					return
				}
				if err := results.Send(patient(t), [2]int64{w, v}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	go func() {
		feeding.Wait()
		in.Close()
		working.Wait()
		results.Close()
	}()
	var values [feeders * each]int
	for {
		r, err := collected.Recv(patient(t))
		if errors.Is(err, ErrClosed) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		values[r[1]]++
	}
	for v, n := range values {
		if n != 1 {
			t.Fatalf("value %d came %d times", v, n)
		}
	}
}

func TestTheorem_5_3_1_SelectIsFair(t *testing.T) {
	const n = 3000
	var receivers []*Channel[int64]
	for range 3 {
		a, b := channels[int64](t, n)
		receivers = append(receivers, b)
		for i := range int64(n) {
			if err := a.Send(t.Context(), i); err != nil {
				t.Fatal(err)
			}
		}
	}
	var chosen [3]int
	next := [3]int64{}
	for range n {
		var v int64
		i, err := Select(t.Context(), receivers[0].RecvCase(&v), receivers[1].RecvCase(&v), receivers[2].RecvCase(&v))
		if err != nil || v != next[i] {
			t.Fatal(i, v, err)
		}
		next[i]++
		chosen[i]++
	}
	t.Logf("of %d: %v", n, chosen)
	for _, k := range chosen { // 1000 ± 26 (σ)
		if k < 820 || k > 1180 {
			t.Errorf("not fair: %v", chosen)
		}
	}
}

func TestTheorem_5_3_2_SelectOverSegments(t *testing.T) {
	for _, capacity := range []int{0, 2} {
		a1, b1 := channels[int64](t, capacity)
		a2, b2 := channels[[2]int64](t, capacity)
		back, front := channels[int64](t, capacity)
		const n = 300
		var wg sync.WaitGroup
		wg.Go(func() {
			for i := range int64(n) {
				if err := a1.Send(patient(t), i); err != nil {
					t.Error(err)
				}
			}
		})
		wg.Go(func() {
			for i := range int64(n) {
				if _, err := Select(patient(t), a2.SendCase([2]int64{i, -i})); err != nil { // one Select against another
					t.Error(err)
				}
			}
		})
		wg.Go(func() {
			for range n {
				if _, err := back.Recv(patient(t)); err != nil {
					t.Error(err)
				}
			}
		})
		var ones, twos, sent int64
		for ones+twos+sent < 3*n {
			var one int64
			var two [2]int64
			cases := []Case{b1.RecvCase(&one), b2.RecvCase(&two)}
			if sent < n {
				cases = append(cases, front.SendCase(sent))
			}
			i, err := Select(patient(t), cases...)
			if err != nil {
				t.Fatal(err)
			}
			switch i {
			case 0:
				if one != ones {
					t.Fatalf("%d, want %d", one, ones)
				}
				ones++
			case 1:
				if two != [2]int64{twos, -twos} {
					t.Fatalf("%d, want %d", two, twos)
				}
				twos++
			case 2:
				sent++
			}
		}
		wg.Wait()
		a2.Close()
		var v int64
		var w [2]int64
		if i, err := Select(patient(t), b1.RecvCase(&v), b2.RecvCase(&w)); i != 1 || !errors.Is(err, ErrClosed) {
			t.Errorf("%d, %v, want the closed one", i, err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Millisecond, cancel)
		if i, err := Select(ctx, b1.RecvCase(&v)); i != -1 || !errors.Is(err, context.Canceled) {
			t.Errorf("%d, %v, want canceled", i, err)
		}
	}
	if _, err := Select(t.Context()); !errors.Is(err, unix.EINVAL) {
		t.Error(err)
	}
}

func TestNewChannelRefuses(t *testing.T) {
	s := newSegment(t, 1<<16)
	channel[int64](t, s, 4)
	if _, err := NewChannel[int64](s, 0, 5); !errors.Is(err, ErrCorrupt) {
		t.Errorf("another capacity: %v", err)
	}
	if _, err := NewChannel[[2]int64](s, 0, 4); !errors.Is(err, ErrCorrupt) {
		t.Errorf("another type: %v", err)
	}
	var pointer *PointerError
	if _, err := NewChannel[struct{ S string }](s, 0, 4); !errors.As(err, &pointer) {
		t.Errorf("a string: %v", err)
	}
	for _, at := range [][2]int{{0, -1}, {8, 1}, {-64, 1}, {1 << 16, 1}, {0, 1 << 20}, {0, 1 << 60}} {
		if _, err := NewChannel[int64](s, at[0], at[1]); !errors.Is(err, unix.EINVAL) {
			t.Errorf("offset, capacity %v: %v", at, err)
		}
	}
}

func TestTheorem_6_3_2_NoABA(t *testing.T) {
	// A peer that saw a free slot before others sent and received through it a whole lap does not take it for the same.
	a, b := channels[int64](t, 1)
	old := atomic.LoadUint64(&a.slots[0].word)
	if err := a.Send(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Recv(t.Context()); err != nil {
		t.Fatal(err)
	}
	if now := a.slots[0].word; stateOf(now) != slotFree || now == old || atomic.CompareAndSwapUint64(&a.slots[0].word, old, slotWord(0, slotWriting, a.segment.Self())) {
		t.Errorf("the slot is %#x again", now)
	}
}

func TestLapComesRound(t *testing.T) {
	a, b := channels[int64](t, 2)
	const last = ^uint32(0) - 1
	a.state.head, a.state.tail = uint64(last)<<32, uint64(last)<<32
	a.slots[0].word, a.slots[1].word = slotWord(last, slotFree, 0), slotWord(last, slotFree, 0)
	for i := range int64(20) {
		if ok, err := a.TrySend(i); !ok || err != nil {
			t.Fatal(i, ok, err)
		}
		if a.Len() != 1 {
			t.Fatal(i, a.Len())
		}
		if v, ok, err := b.TryRecv(); v != i || !ok || err != nil {
			t.Fatal(i, v, ok, err)
		}
	}
}

// TestDeathInSlot leaves each state that a killed process can leave, by an attachment that is gone.
func TestDeathInSlot(t *testing.T) {
	for _, capacity := range []int{1, 2} {
		for _, state := range []uint64{slotWriting, slotReading} {
			s := newSegment(t, ChannelSize[int64](capacity))
			c := channel[int64](t, s, capacity)
			f, err := s.Share()
			if err != nil {
				t.Fatal(err)
			}
			victim := must(Open(f))
			if state == slotReading {
				c.Send(t.Context(), 41)
			}
			c.slots[0].word = slotWord(0, state, victim.Self())
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Millisecond)
			defer cancel()
			if v, err := c.Recv(ctx); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("while the owner lives: %d, %v", v, err)
			}
			victim.Close()
			c.verified.Store(0) // in the millisecond of its last look it may take the victim to be alive
			done := make(chan error)
			go func() { done <- c.Send(patient(t), 42) }()
			want := []int64{42}
			if state == slotReading {
				want = []int64{41, 42}
			}
			for _, w := range want {
				if v, err := c.Recv(patient(t)); err != nil || v != w {
					t.Errorf("%d, %v, want %d", v, err, w)
				}
			}
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
	}
}

// A history of a channel is linearizable as a queue. What a Try that failed says is no more than "not now".
func TestChannelIsLinearizable(t *testing.T) {
	type input struct {
		send  bool
		value int64
	}
	const closed = int64(-1) // what Recv returns then
	rounds := 30
	if sweeping {
		rounds = 500
	}
	for round := range rounds {
		capacity := []int{1, 2, 3}[round%3]
		a, b := channels[int64](t, capacity)
		var mutex sync.Mutex
		var history []porcupine.Operation
		start := time.Now()
		record := func(client int, in input, out int64, call, back time.Duration) {
			mutex.Lock()
			defer mutex.Unlock()
			history = append(history, porcupine.Operation{ClientId: client, Input: in, Output: out, Call: int64(call), Return: int64(back)})
		}
		var sending, receiving sync.WaitGroup
		for client := range 3 {
			c := []*Channel[int64]{a, b}[client%2]
			sending.Go(func() {
				for i := range int64(30) {
					value := int64(client+1)*1000 + i
					call := time.Since(start)
					if rand.IntN(2) == 0 {
						if ok, _ := c.TrySend(value); !ok {
							continue
						}
					} else if err := c.Send(patient(t), value); err != nil {
						t.Error(err)
					}
					record(client, input{true, value}, 0, call, time.Since(start))
				}
			})
			receiving.Go(func() {
				for {
					call := time.Since(start)
					var value int64
					var err error
					if rand.IntN(2) == 0 {
						var ok bool
						if value, ok, err = c.TryRecv(); !ok && err == nil {
							runtime.Gosched()
							continue
						}
					} else {
						value, err = c.Recv(patient(t))
					}
					if err != nil {
						value = closed
					}
					record(3+client, input{}, value, call, time.Since(start))
					if err != nil {
						return
					}
				}
			})
		}
		sending.Wait()
		a.Close()
		receiving.Wait()
		model := porcupine.Model{
			Init: func() any { return []int64{} },
			Step: func(state, in, out any) (bool, any) {
				queue, op := state.([]int64), in.(input)
				if op.send {
					return len(queue) < capacity, append(slices.Clone(queue), op.value)
				}
				if len(queue) == 0 {
					return out.(int64) == closed, queue
				}
				return queue[0] == out.(int64), queue[1:]
			},
			Equal: func(a, b any) bool { return slices.Equal(a.([]int64), b.([]int64)) },
		}
		switch porcupine.CheckOperationsTimeout(model, history, patience) {
		case porcupine.Illegal:
			t.Fatalf("capacity %d: not a queue's history: %v", capacity, history)
		case porcupine.Unknown:
			t.Logf("round %d: not decided in time", round)
		}
	}
}

func isSet(word *uint32) func() bool { return func() bool { return atomic.LoadUint32(word) != 0 } }
