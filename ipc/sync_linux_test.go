//go:build amd64 || arm64

package ipc

import (
	"context"
	"errors"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func init() {
	working := func(once func(*worker, context.Context)) func(*Segment, int) {
		return func(s *Segment, times int) {
			w := newWorker(s)
			for range times {
				once(w, context.Background())
			}
		}
	}
	helpers["lock some"] = working((*worker).lockOnce)
	helpers["read or write some"] = working((*worker).readOrWriteOnce)
	holding := func(hold func(*worker) error) func(*Segment, int) {
		return func(s *Segment, _ int) {
			w := newWorker(s)
			if err := hold(w); err != nil {
				panic(err)
			}
			atomic.AddUint32(&w.arena.Started, 1)
			time.Sleep(time.Hour) // and not select: nobody else is here, which the runtime takes for a deadlock
		}
	}
	helpers["hold mutex"] = holding(func(w *worker) error { return w.mutex.Lock(context.Background()) })
	helpers["hold for reading"] = holding(func(w *worker) error { return w.rw.RLock(context.Background()) })
	helpers["hold for writing"] = holding(func(w *worker) error { return w.rw.Lock(context.Background()) })
	helpers["hold permits"] = holding(func(w *worker) error { return w.semaphore.Acquire(context.Background(), 3) })
	helpers["scribble"] = scribble
}

// begun starts a helper that holds something, and waits until it does.
func begun(t *testing.T, w *worker, name string) func() {
	t.Helper()
	before := atomic.LoadUint32(&w.arena.Started)
	cmd := startHelper(t, w.segment, name, 0)
	eventually(t, name, func() bool { return atomic.LoadUint32(&w.arena.Started) == before+1 })
	return func() { kill(t, cmd) }
}

// crowd is this process's attachment and n more of it: n+1 owners.
func crowd(t *testing.T, n int) []*worker {
	t.Helper()
	s := newSegment(t, 1<<16)
	workers := []*worker{newWorker(s)}
	for range n {
		workers = append(workers, newWorker(peer(t, s)))
	}
	return workers
}

func wants(t *testing.T, what string, got, want error) {
	t.Helper()
	if !errors.Is(got, want) {
		t.Errorf("%s: %v, want %v", what, got, want)
	}
}

func (w *worker) noFaults(t *testing.T) {
	t.Helper()
	if w.arena.Faults != 0 {
		t.Errorf("%d faults, the first %d", w.arena.Faults, w.arena.Fault)
	}
}

func TestTheorem_4_1_1_MutualExclusion(t *testing.T) {
	const times = 20000
	w := newWorker(newSegment(t, 1<<16))
	a, b := startHelper(t, w.segment, "lock some", times), startHelper(t, w.segment, "lock some", times)
	ctx := patient(t)
	for range times {
		w.lockOnce(ctx)
	}
	if err := errors.Join(a.Wait(), b.Wait()); err != nil {
		t.Error(err)
	}
	w.noFaults(t)
	if w.arena.A != 3*times || w.arena.B != 3*times {
		t.Errorf("counted to %d and %d, want %d", w.arena.A, w.arena.B, 3*times)
	}
}

func TestTheorem_4_1_2_PoisonIsReportedOnce(t *testing.T) {
	workers := crowd(t, 7)
	die := begun(t, workers[0], "hold mutex")
	wants(t, "TryLock of what another has", workers[0].mutex.TryLock(), ErrWouldBlock)
	wants(t, "Unlock of what another has", workers[0].mutex.Unlock(), ErrNotHeld)
	wants(t, "Recover of what another has", workers[0].mutex.Recover(), ErrNotHeld)
	var poisoned atomic.Int32
	var group sync.WaitGroup
	for i, w := range workers {
		group.Go(func() {
			if i == 3 {
				die()
			}
			if err := w.mutex.Lock(patient(t)); errors.Is(err, ErrPoisoned) {
				poisoned.Add(1)
				wants(t, "Recover", w.mutex.Recover(), nil)
			} else {
				wants(t, "Lock", err, nil)
			}
			wants(t, "Unlock", w.mutex.Unlock(), nil)
		})
	}
	group.Wait()
	if n := poisoned.Load(); n != 1 {
		t.Errorf("%d Locks were told of one death", n)
	}
	wants(t, "TryLock of a free one", workers[0].mutex.TryLock(), nil)
}

func TestTheorem_4_1_2_PoisonStaysWithoutRecover(t *testing.T) {
	w := newWorker(newSegment(t, 1<<16))
	begun(t, w, "hold mutex")()
	for range 3 {
		wants(t, "Lock", w.mutex.Lock(patient(t)), ErrPoisoned)
		wants(t, "Unlock", w.mutex.Unlock(), nil)
	}
	wants(t, "TryLock", w.mutex.TryLock(), ErrPoisoned)
	wants(t, "Recover", w.mutex.Recover(), nil)
	wants(t, "Unlock", w.mutex.Unlock(), nil)
	wants(t, "Lock after Recover", w.mutex.Lock(patient(t)), nil)
}

func TestTryLockSeesDeath(t *testing.T) {
	w := newWorker(newSegment(t, 1<<16))
	begun(t, w, "hold mutex")()
	wants(t, "TryLock", w.mutex.TryLock(), ErrPoisoned)
}

func TestLockGivesUp(t *testing.T) {
	workers := crowd(t, 1)
	wants(t, "Lock", workers[0].mutex.Lock(t.Context()), nil)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Millisecond)
	defer cancel()
	wants(t, "Lock by another", workers[1].mutex.Lock(ctx), context.DeadlineExceeded)
	wants(t, "Lock by the same process", workers[0].mutex.Lock(ctx), context.DeadlineExceeded)
	wants(t, "Unlock", workers[0].mutex.Unlock(), nil)
	wants(t, "Lock of a free one", workers[1].mutex.Lock(ctx), nil)
}

// Each owner writes many words and finds those of the owner before it whole.
func TestTheorem_6_4_1_UnlockHappensBeforeLock(t *testing.T) {
	workers := crowd(t, 2)
	var group sync.WaitGroup
	for _, w := range workers {
		group.Go(func() {
			words, err := Slice[uint64](w.segment, 1<<15, 512)
			if err != nil {
				t.Error(err)
				return
			}
			for range 5000 {
				if err := w.mutex.Lock(patient(t)); err != nil {
					t.Error(err)
					return
				}
				for i := range words {
					if words[i] != words[0] {
						t.Errorf("word %d is %d, word 0 is %d", i, words[i], words[0])
						break
					}
				}
				next := words[0] + 1
				for i := range words {
					words[i] = next
				}
				w.mutex.Unlock()
			}
		})
	}
	group.Wait()
}

func TestTheorem_4_2_1_ReadersReadAtOnce(t *testing.T) {
	workers := crowd(t, 4)
	for _, w := range workers {
		wants(t, "RLock", w.rw.RLock(patient(t)), nil)
		wants(t, "RLock", w.rw.RLock(patient(t)), nil)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Millisecond)
	defer cancel()
	wants(t, "Lock beside readers", workers[0].rw.Lock(ctx), context.DeadlineExceeded)
	for _, w := range workers {
		wants(t, "RUnlock", w.rw.RUnlock(), nil)
		wants(t, "RUnlock", w.rw.RUnlock(), nil)
		wants(t, "RUnlock", w.rw.RUnlock(), ErrNotHeld)
	}
	wants(t, "Lock", workers[0].rw.Lock(patient(t)), nil)
}

func TestTheorem_4_2_2_WriterIsAlone(t *testing.T) {
	const times = 20000
	w := newWorker(newSegment(t, 1<<16))
	a, b := startHelper(t, w.segment, "read or write some", times), startHelper(t, w.segment, "read or write some", times)
	ctx := patient(t)
	for range times {
		w.readOrWriteOnce(ctx)
	}
	if err := errors.Join(a.Wait(), b.Wait()); err != nil {
		t.Error(err)
	}
	w.noFaults(t)
}

func TestTheorem_8_2_WriterIsNotStarved(t *testing.T) {
	workers := crowd(t, 2)
	reader, writer, other := workers[0], workers[1], workers[2]
	wants(t, "RLock", reader.rw.RLock(t.Context()), nil)
	var group sync.WaitGroup
	group.Go(func() { wants(t, "Lock", writer.rw.Lock(patient(t)), nil) })
	eventually(t, "the writer waits", func() bool { return atomic.LoadUint32(&writer.arena.RW.writer) != 0 })
	wants(t, "TryRLock behind a writer", other.rw.TryRLock(), ErrWouldBlock)
	wants(t, "TryRLock behind a writer, by who reads", reader.rw.TryRLock(), ErrWouldBlock)
	wants(t, "RUnlock", reader.rw.RUnlock(), nil)
	group.Wait()
	group.Go(func() { wants(t, "RLock", other.rw.RLock(patient(t)), nil) })
	wants(t, "Unlock", writer.rw.Unlock(), nil)
	group.Wait()

	// And under readers that always overlap.
	stop := make(chan struct{})
	for _, w := range []*worker{reader, other, reader, other} {
		group.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if err := w.rw.RLock(patient(t)); err != nil {
					t.Error(err)
					return
				}
				runtime.Gosched()
				w.rw.RUnlock()
			}
		})
	}
	wants(t, "RUnlock", other.rw.RUnlock(), nil)
	for range 100 {
		wants(t, "Lock under readers", writer.rw.Lock(patient(t)), nil)
		wants(t, "Unlock", writer.rw.Unlock(), nil)
	}
	close(stop)
	group.Wait()
}

func TestDeadReaderLeavesNothing(t *testing.T) {
	w := newWorker(newSegment(t, 1<<16))
	die := begun(t, w, "hold for reading")
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Millisecond)
	defer cancel()
	wants(t, "Lock beside a living reader", w.rw.Lock(ctx), context.DeadlineExceeded)
	die()
	wants(t, "Lock after its death", w.rw.Lock(patient(t)), nil)
}

func TestDeadWriterPoisons(t *testing.T) {
	w := newWorker(newSegment(t, 1<<16))
	begun(t, w, "hold for writing")()
	wants(t, "RLock", w.rw.RLock(patient(t)), ErrPoisoned)
	wants(t, "RUnlock", w.rw.RUnlock(), ErrNotHeld)
	wants(t, "TryRLock", w.rw.TryRLock(), ErrPoisoned)
	wants(t, "Lock", w.rw.Lock(patient(t)), ErrPoisoned)
	wants(t, "Unlock", w.rw.Unlock(), nil)
	wants(t, "Lock", w.rw.Lock(patient(t)), ErrPoisoned)
	wants(t, "Recover", w.rw.Recover(), nil)
	wants(t, "Unlock", w.rw.Unlock(), nil)
	wants(t, "RLock after Recover", w.rw.RLock(patient(t)), nil)
}

func TestReadersAreCounted(t *testing.T) {
	w := newWorker(newSegment(t, 1<<16))
	for range readerMask {
		if err := w.rw.RLock(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	wants(t, "one more", w.rw.RLock(t.Context()), ErrTooMany)
}

// A wait ends for no reason: whoever does not look again would believe it.
func TestTheorem_4_3_1_WakeUpsCanBeSpurious(t *testing.T) {
	workers := crowd(t, 1)
	w := workers[0]
	wants(t, "Lock", w.mutex.Lock(t.Context()), nil)
	stop := make(chan struct{})
	var group sync.WaitGroup
	group.Go(func() {
		for {
			select {
			case <-stop:
				return
			default: // a signal that is not about the condition
				workers[1].cond.Signal()
			}
		}
	})
	wants(t, "Wait", w.cond.Wait(patient(t)), nil)
	if w.arena.Tokens != 0 {
		t.Error("the condition holds")
	}
	close(stop)
	group.Wait()
	wants(t, "Unlock", w.mutex.Unlock(), nil)
}

// Each token is announced once; a lost wake-up leaves a consumer waiting.
func TestTheorem_8_3_1_NoWakeUpIsLost(t *testing.T) {
	const times = 5000
	workers := crowd(t, 3)
	ctx := patient(t)
	var group sync.WaitGroup
	for _, w := range workers[1:] {
		group.Go(func() {
			for range times {
				if err := w.eatOnce(ctx); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	w := workers[0]
	for range 3 * times {
		if err := w.mutex.Lock(ctx); err != nil {
			t.Fatal(err)
		}
		w.arena.Tokens++
		w.mutex.Unlock()
		w.cond.Signal()
	}
	group.Wait()
	if a := w.arena; a.Tokens != 0 || a.Eaten != 3*times {
		t.Errorf("%d left, %d eaten", a.Tokens, a.Eaten)
	}
}

func TestTheorem_4_3_2_BroadcastWakesAll(t *testing.T) {
	workers := crowd(t, 5)
	waiting := 0 // guarded by the mutex, in shared memory for the race detector's sake
	word := place[uint32](t, workers[0].segment, 1<<15)
	var group sync.WaitGroup
	for _, w := range workers[1:] {
		waiting++
		group.Go(func() {
			wants(t, "Lock", w.mutex.Lock(patient(t)), nil)
			*word++
			for w.arena.Tokens == 0 {
				wants(t, "Wait", w.cond.Wait(patient(t)), nil)
			}
			wants(t, "Unlock", w.mutex.Unlock(), nil)
		})
	}
	w := workers[0]
	for asleep := false; !asleep; {
		wants(t, "Lock", w.mutex.Lock(patient(t)), nil)
		if asleep = int(*word) == waiting; asleep {
			w.arena.Tokens = 1
			w.cond.Broadcast()
		}
		wants(t, "Unlock", w.mutex.Unlock(), nil)
	}
	group.Wait()
}

func TestCondWaitGivesUp(t *testing.T) {
	w := newWorker(newSegment(t, 1<<16))
	wants(t, "Wait without the mutex", w.cond.Wait(t.Context()), ErrNotHeld)
	wants(t, "Lock", w.mutex.Lock(t.Context()), nil)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Millisecond)
	defer cancel()
	wants(t, "Wait", w.cond.Wait(ctx), context.DeadlineExceeded)
	wants(t, "Unlock after it", w.mutex.Unlock(), ErrNotHeld)
}

func newBarrier(t *testing.T, w *worker, parties int) *Barrier {
	t.Helper()
	b, err := NewBarrier(w.segment, &w.arena.Barrier, parties)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestTheorem_4_4_1_LastArrivalFreesAll(t *testing.T) {
	workers := crowd(t, 3)
	var passed atomic.Int32
	var group sync.WaitGroup
	for _, w := range workers[1:] {
		b := newBarrier(t, w, 4)
		group.Go(func() {
			wants(t, "Wait", b.Wait(patient(t)), nil)
			passed.Add(1)
		})
	}
	eventually(t, "three have arrived", func() bool { return atomic.LoadUint32(&workers[0].arena.Barrier.word) == 3 })
	if n := passed.Load(); n != 0 {
		t.Errorf("%d of 3 passed before the fourth came", n)
	}
	wants(t, "Wait of the fourth", newBarrier(t, workers[0], 4).Wait(patient(t)), nil)
	group.Wait()
}

func TestTheorem_4_4_2_BarrierIsReusable(t *testing.T) {
	workers := crowd(t, 2)
	const times = 1<<15 + 10                                       // generations come round
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute) // in an emulator a generation takes a millisecond
	defer cancel()
	var group sync.WaitGroup
	for i, w := range workers {
		b := newBarrier(t, w, 3)
		group.Go(func() {
			for range times {
				if err := stepOnce(ctx, b, w.arena, i); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	group.Wait()
	workers[0].noFaults(t)
	if steps := workers[0].arena.Steps; steps != [4]uint32{times, times, times, 0} {
		t.Errorf("%d generations, want %d", steps, times)
	}
}

// Each party writes its word, and after the barrier all see all words.
func TestTheorem_6_4_1_ArrivalHappensBeforePassing(t *testing.T) {
	workers := crowd(t, 2)
	var group sync.WaitGroup
	for i, w := range workers {
		b := newBarrier(t, w, len(workers))
		words, err := Slice[uint64](w.segment, 1<<15, len(workers))
		if err != nil {
			t.Fatal(err)
		}
		ctx := patient(t)
		group.Go(func() {
			for round := range uint64(3000) {
				words[i] = round
				if err := b.Wait(ctx); err != nil {
					t.Error(err)
					return
				}
				for j := range words {
					if words[j] != round {
						t.Errorf("round %d: word %d is %d", round, j, words[j])
						return
					}
				}
				if err := b.Wait(ctx); err != nil { // before the words change
					t.Error(err)
					return
				}
			}
		})
	}
	group.Wait()
}

func TestBarrierTakesAnArrivalBack(t *testing.T) {
	workers := crowd(t, 1)
	a, b := newBarrier(t, workers[0], 2), newBarrier(t, workers[1], 2)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Millisecond)
	defer cancel()
	wants(t, "Wait", a.Wait(ctx), context.DeadlineExceeded)
	ctx2, cancel2 := context.WithTimeout(t.Context(), 5*time.Millisecond)
	defer cancel2()
	wants(t, "Wait of the other, alone", b.Wait(ctx2), context.DeadlineExceeded)
}

func TestBarrierBreaksWhenAMemberLeaves(t *testing.T) {
	workers := crowd(t, 2)
	b := newBarrier(t, workers[0], 3)
	newBarrier(t, workers[1], 3)
	var group sync.WaitGroup
	group.Go(func() { wants(t, "Wait", b.Wait(patient(t)), ErrBroken) })
	eventually(t, "one has arrived", func() bool { return atomic.LoadUint32(&workers[0].arena.Barrier.word) != 0 })
	workers[1].segment.Close()
	group.Wait()
	wants(t, "Wait of the third", newBarrier(t, workers[2], 3).Wait(patient(t)), ErrBroken)
}

// Whoever gets the slot of a dead member does not hide its death.
func TestBarrierBreaksWhenASlotIsTakenAnew(t *testing.T) {
	workers := crowd(t, 1)
	b := newBarrier(t, workers[0], 2)
	newBarrier(t, workers[1], 2)
	workers[1].segment.Close()
	next := newBarrier(t, newWorker(peer(t, workers[0].segment)), 2)
	wants(t, "Wait of the successor", next.Wait(patient(t)), ErrBroken)
	wants(t, "Wait", b.Wait(patient(t)), ErrBroken)
}

// permits = Available + what the living hold, after every step.
func TestTheorem_4_5_1_PermitsAreConserved(t *testing.T) {
	s := newSegment(t, 1<<16)
	all := newWorker(s)
	workers, holds := make([]*worker, 4), make([]int, 4)
	for range 5000 {
		i := rand.IntN(len(workers))
		switch {
		case workers[i] == nil:
			workers[i], holds[i] = newWorker(peer(t, s)), 0
		case rand.IntN(20) == 0: // to others that is a death
			workers[i].segment.Close()
			workers[i], holds[i] = nil, 0
		case holds[i] > 0 && rand.IntN(2) == 0:
			n := 1 + rand.IntN(holds[i])
			wants(t, "Release", workers[i].semaphore.Release(n), nil)
			holds[i] -= n
		default:
			n := 1 + rand.IntN(testPermits)
			want := error(nil)
			if n > testPermits-holds[0]-holds[1]-holds[2]-holds[3] {
				want = ErrWouldBlock
			}
			err := workers[i].semaphore.TryAcquire(t.Context(), n)
			wants(t, "TryAcquire", err, want)
			if err == nil {
				holds[i] += n
			}
		}
		if held := holds[0] + holds[1] + holds[2] + holds[3]; all.semaphore.Available()+held != testPermits {
			t.Fatalf("%d available, %d held, of %d", all.semaphore.Available(), holds, testPermits)
		}
	}
}

func TestTheorem_4_5_2_OnePermitIsAMutex(t *testing.T) {
	workers := crowd(t, 2)
	const times = 3000
	var group sync.WaitGroup
	for _, w := range workers {
		one, err := NewSemaphore(w.segment, &w.arena.Semaphore, 1)
		if err != nil {
			t.Fatal(err)
		}
		group.Go(func() {
			for range times {
				if err := one.Acquire(patient(t), 1); err != nil {
					t.Error(err)
					return
				}
				w.enter(nil)
				w.write()
				w.exit()
				wants(t, "Release", one.Release(1), nil)
			}
		})
	}
	group.Wait()
	workers[0].noFaults(t)
	if n := workers[0].arena.A; n != 3*times {
		t.Errorf("counted to %d, want %d", n, 3*times)
	}
}

func TestDeadHoldersPermitsComeBack(t *testing.T) {
	w := newWorker(newSegment(t, 1<<16))
	die := begun(t, w, "hold permits")
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Millisecond)
	defer cancel()
	wants(t, "Acquire", w.semaphore.Acquire(ctx, 3), context.DeadlineExceeded)
	var group sync.WaitGroup
	group.Go(func() { wants(t, "Acquire", w.semaphore.Acquire(patient(t), 3), nil) })
	die()
	group.Wait()
	wants(t, "Release", w.semaphore.Release(4), ErrNotHeld)
	wants(t, "Release", w.semaphore.Release(3), nil)
	wants(t, "Release", w.semaphore.Release(1), ErrNotHeld)
	wants(t, "Acquire of more than there are", w.semaphore.Acquire(t.Context(), testPermits+1), unix.EINVAL)
	wants(t, "Acquire of none", w.semaphore.Acquire(t.Context(), 0), unix.EINVAL)
	wants(t, "Release of a negative number", w.semaphore.Release(-1), unix.EINVAL)
}

// Whoever sleeps is woken, and does not only find out at its next look.
func TestSleepersAreWoken(t *testing.T) {
	workers := crowd(t, 1)
	w, other := workers[0], workers[1]
	a, ctx := w.arena, t.Context()
	for name, test := range map[string]struct {
		sleepers int
		word     *uint32
		prepare  func() error
		flag     uint32
		wake     func() error
	}{
		"Mutex.Unlock":   {1, &a.Mutex.word, func() error { return w.mutex.Lock(ctx) }, flagWaiters, w.mutex.Unlock},
		"RWMutex.Unlock": {2, &a.RW.writer, func() error { return w.rw.Lock(ctx) }, flagWaiters, w.rw.Unlock},
		"RWMutex.RUnlock": {1, w.rw.own, func() error {
			atomic.StoreUint32(&a.RW.writer, uint32(other.segment.Self())) // it waits for w
			*w.rw.own = w.segment.Self().Generation()<<readerBits | 1
			return nil
		}, 0, func() error {
			defer atomic.StoreUint32(&a.RW.writer, 0)
			return w.rw.RUnlock()
		}},
		"Semaphore.Release": {2, &a.Semaphore.turn, func() error { return w.semaphore.Acquire(ctx, 1) }, 1, func() error { return w.semaphore.Release(1) }},
		"Barrier.Wait":      {2, &a.Barrier.word, func() error { return nil }, 0, func() error { return newBarrier(t, w, 1).Wait(ctx) }},
		"Cond.Signal":       {1, &a.Cond.sequence, func() error { return nil }, 0, func() error { w.cond.Signal(); return nil }},
		"Cond.Broadcast":    {2, &a.Cond.sequence, func() error { return nil }, 0, func() error { w.cond.Broadcast(); return nil }},
	} {
		t.Run(name, func(t *testing.T) {
			wants(t, "prepare", test.prepare(), nil)
			value := atomic.OrUint32(test.word, test.flag) | test.flag
			var group sync.WaitGroup
			for range test.sleepers {
				group.Go(func() { futexWait(test.word, value, 10*patience) })
			}
			woken := make(chan struct{})
			go func() {
				group.Wait()
				close(woken)
			}()
			time.Sleep(10 * time.Millisecond) // if it does not sleep by then, this shows nothing
			wants(t, "wake", test.wake(), nil)
			select {
			case <-woken:
			case <-time.After(patience):
				t.Error("it sleeps on")
				futexWake(test.word, everyone)
				<-woken
			}
		})
	}
}

func TestStatesMustLieInTheirSegment(t *testing.T) {
	s, other := newSegment(t, 1<<16), newSegment(t, 1<<16)
	a := place[arena](t, other, 0)
	for name, err := range map[string]error{
		"mutex elsewhere":     second(NewMutex(s, &a.Mutex)),
		"mutex on the heap":   second(NewMutex(s, new(MutexState))),
		"rwmutex elsewhere":   second(NewRWMutex(s, &a.RW)),
		"cond elsewhere":      second(NewCond(newWorker(s).mutex, &a.Cond)),
		"barrier elsewhere":   second(NewBarrier(s, &a.Barrier, 1)),
		"barrier for none":    second(NewBarrier(other, &a.Barrier, 0)),
		"semaphore elsewhere": second(NewSemaphore(s, &a.Semaphore, 1)),
		"semaphore of none":   second(NewSemaphore(other, &a.Semaphore, 0)),
	} {
		wants(t, name, err, unix.EINVAL)
	}
}

func second[T any](_ T, err error) error { return err }

// scribble is the hostile peer: it writes into all of the segment, above all where the locks are, what comes to its mind.
func scribble(s *Segment, _ int) {
	a := must(At[arena](s, 0))
	words, err := Slice[uint32](s, 0, s.Size()/4)
	must(words, err)
	header := headerWords(s)
	hot := []*uint32{
		&a.Mutex.word, &a.RW.writer, &a.RW.readers[readerPlace(1)], &a.RW.readers[readerPlace(2)], &a.Cond.sequence, &a.Barrier.word,
		&a.Barrier.members[1], &a.Semaphore.guard, &a.Semaphore.turn,
	}
	values := []uint32{0, 1, ^uint32(0), flagPoisoned, flagWaiters, barrierBroken, 1<<15 | 1}
	for slot := range 4 {
		owner := uint32(newOwner(slot, 1))
		values = append(values, owner, owner|flagWaiters, owner|flagPoisoned, owner&^0xff)
	}
	atomic.StoreUint32(&a.Started, 1)
	for {
		value := rand.Uint32()
		if rand.IntN(4) != 0 {
			value = values[rand.IntN(len(values))]
		}
		switch rand.IntN(4) {
		case 0:
			atomic.StoreUint32(&words[rand.IntN(len(words))], value)
		case 1:
			atomic.StoreUint32(&header[rand.IntN(len(header))], value)
		default:
			atomic.StoreUint32(hot[rand.IntN(len(hot))], value)
		}
		for range rand.IntN(200) {
			relax(1)
		}
	}
}

// Whatever a peer writes: no panic, no fault, no wait beyond the context.
func TestHostileWordsOfLocks(t *testing.T) {
	w := newWorker(newSegment(t, 8192))
	barrier := newBarrier(t, w, 2)
	cmd := startHelper(t, w.segment, "scribble", 0)
	eventually(t, "it scribbles", func() bool { return atomic.LoadUint32(&w.arena.Started) != 0 })
	defer kill(t, cmd)
	operations := map[string]func(context.Context){
		"mutex": func(ctx context.Context) {
			w.mutex.Lock(ctx)
			w.mutex.Recover()
			w.mutex.Unlock()
			w.mutex.TryLock()
		},
		"rwmutex": func(ctx context.Context) {
			w.rw.Lock(ctx)
			w.rw.Recover()
			w.rw.Unlock()
			w.rw.RLock(ctx)
			w.rw.RUnlock()
			w.rw.TryRLock()
		},
		"cond": func(ctx context.Context) {
			w.mutex.Lock(ctx)
			w.cond.Wait(ctx)
			w.cond.Signal()
			w.cond.Broadcast()
		},
		"barrier": func(ctx context.Context) { barrier.Wait(ctx) },
		"semaphore": func(ctx context.Context) {
			w.semaphore.Acquire(ctx, 1+rand.IntN(testPermits))
			w.semaphore.TryAcquire(ctx, 1)
			w.semaphore.Release(1)
			if n := w.semaphore.Available(); n < 0 || n > testPermits {
				t.Errorf("%d permits available", n)
			}
		},
		"segment": func(context.Context) {
			w.segment.Alive(Owner(rand.Uint32()))
			if s, err := reopenSegment(w.segment); err == nil {
				s.Close()
			}
		},
	}
	begin := time.Now()
	var group sync.WaitGroup
	for name, operate := range operations {
		group.Go(func() {
			for range 300 {
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(rand.IntN(3000))*time.Microsecond)
				start := time.Now()
				operate(ctx)
				cancel()
				if took := time.Since(start); took > patience {
					t.Errorf("%s took %v", name, took)
				}
				if time.Since(begin) > patience {
					return
				}
			}
		})
	}
	group.Wait()
}

func reopenSegment(s *Segment) (*Segment, error) {
	f, err := s.Share()
	if err != nil {
		return nil, err
	}
	return Open(f)
}

// A word that changes all the time tells a waiter each time that there is something to look at.
func TestRestlessWordsEndWithTheContext(t *testing.T) {
	workers := crowd(t, 2)
	w, a := workers[0], workers[0].arena
	one, two := uint32(workers[1].segment.Self()), uint32(workers[2].segment.Self())
	barrier := newBarrier(t, w, 100)
	wants(t, "Acquire", workers[1].semaphore.Acquire(t.Context(), testPermits), nil)
	other := &a.RW.readers[readerPlace(workers[1].segment.Self().Slot())]
	for name, test := range map[string]struct {
		word    *uint32
		values  [2]uint32
		operate func(context.Context) error
	}{
		"Mutex.Lock":        {&a.Mutex.word, [2]uint32{one, two}, w.mutex.Lock},
		"RWMutex.RLock":     {&a.RW.writer, [2]uint32{one, two}, w.rw.RLock},
		"RWMutex.Lock":      {other, [2]uint32{1<<readerBits | 1, 1<<readerBits | 2}, w.rw.Lock},
		"Semaphore.Acquire": {&a.Semaphore.turn, [2]uint32{2, 4}, func(ctx context.Context) error { return w.semaphore.Acquire(ctx, 1) }},
		"Barrier.Wait":      {&a.Barrier.word, [2]uint32{7, 8}, barrier.Wait},
	} {
		t.Run(name, func(t *testing.T) {
			atomic.StoreUint32(test.word, test.values[0])
			stop, stopped := make(chan struct{}), make(chan struct{})
			go func() {
				defer close(stopped)
				for i := 0; ; i++ {
					select {
					case <-stop:
						atomic.StoreUint32(test.word, 0)
						return
					default:
						atomic.StoreUint32(test.word, test.values[i&1])
					}
				}
			}()
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Millisecond)
			defer cancel()
			done := make(chan error, 1)
			go func() { done <- test.operate(ctx) }()
			select {
			case err := <-done:
				wants(t, name, err, context.DeadlineExceeded)
			case <-time.After(patience):
				t.Error("it waits on")
			}
			close(stop)
			<-stopped
		})
	}
}
