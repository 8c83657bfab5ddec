//go:build amd64 || arm64

package ipc

import (
	"context"
	"errors"
	"math/rand/v2"
	"os/exec"
	"sync/atomic"
	"testing"
	"time"
)

// arena is what the processes of the tests that kill share.
type arena struct {
	Mutex     MutexState
	RW        RWMutexState
	Cond      CondState
	Barrier   BarrierState
	Semaphore SemaphoreState

	Started uint32 // how many processes have begun
	Faults  uint32 // set by who sees a promise broken, with the line below
	Fault   [4]uint64

	Inside  uint32 // the owner in the critical section
	A, B    uint64 // equal outside it
	Reports uint32 // how often a death was reported
	Dirty   uint32 // how often Inside or A ≠ B told of a death

	Tokens, Eaten uint64
	Uses          [Slots + 1]uint64 // by slot: owner, number of the use, permits in use
	Steps         [4]uint32         // by party: generations passed
}

// worker is one process's view of it. Whatever goes wrong is told by a panic: in a helper it ends that process, and the test
// sees a fault.
type worker struct {
	segment   *Segment
	arena     *arena
	mutex     *Mutex
	rw        *RWMutex
	cond      *Cond
	semaphore *Semaphore
	uses      uint16
}

const testPermits = 5

func newWorker(s *Segment) *worker {
	a := must(At[arena](s, 0))
	m := must(NewMutex(s, &a.Mutex))
	return &worker{
		segment:   s,
		arena:     a,
		mutex:     m,
		rw:        must(NewRWMutex(s, &a.RW)),
		cond:      must(NewCond(m, &a.Cond)),
		semaphore: must(NewSemaphore(s, &a.Semaphore, testPermits)),
	}
}

func (w *worker) fault(line int, values ...uint64) {
	if atomic.AddUint32(&w.arena.Faults, 1) == 1 {
		w.arena.Fault[0] = uint64(line)
		copy(w.arena.Fault[1:], values)
	}
}

// enter is a critical section, whose owner writes A and then B. What a dead owner left is repaired.
func (w *worker) enter(poison error) {
	a := w.arena
	dead := atomic.SwapUint32(&a.Inside, uint32(w.segment.Self()))
	if dead != 0 && w.segment.Alive(Owner(dead)) {
		w.fault(1, uint64(dead), uint64(w.segment.Self())) // two inside
	}
	if dead != 0 || a.A != a.B {
		atomic.AddUint32(&a.Dirty, 1)
		if poison == nil {
			w.fault(2, uint64(dead), a.A, a.B) // a death without a report
		}
		a.B = a.A
	}
	if poison != nil {
		atomic.AddUint32(&a.Reports, 1)
	}
}

func (w *worker) write() {
	w.arena.A++
	for range rand.IntN(50) { // killed here, the two differ
		relax(1)
	}
	w.arena.B++
}

func (w *worker) exit() {
	if !atomic.CompareAndSwapUint32(&w.arena.Inside, uint32(w.segment.Self()), 0) {
		w.fault(3, uint64(w.arena.Inside))
	}
}

// held panics unless err says that the lock is held.
func held(err error) error {
	if err != nil && !errors.Is(err, ErrPoisoned) {
		panic(err)
	}
	return err
}

func (w *worker) lockOnce(ctx context.Context) {
	err := held(w.mutex.Lock(ctx))
	w.enter(err)
	if err != nil {
		held(w.mutex.Recover())
	}
	w.write()
	w.exit()
	held(w.mutex.Unlock())
}

func (w *worker) readOrWriteOnce(ctx context.Context) {
	if rand.IntN(4) != 0 {
		switch err := w.rw.RLock(ctx); {
		case err == nil:
			if a, b := w.arena.A, w.arena.B; a != b {
				w.fault(4, a, b) // a reader beside a writer
			}
			held(w.rw.RUnlock())
			return
		case !errors.Is(err, ErrPoisoned):
			panic(err)
		}
	}
	err := held(w.rw.Lock(ctx))
	w.enter(err)
	if err != nil {
		held(w.rw.Recover())
	}
	w.write()
	w.exit()
	held(w.rw.Unlock())
}

// useOnce says in Uses what it has, and only while it has it.
func (w *worker) useOnce(ctx context.Context) {
	n := 1 + rand.IntN(testPermits)
	if err := w.semaphore.Acquire(ctx, n); err != nil {
		panic(err)
	}
	mine := &w.arena.Uses[w.segment.Self().Slot()]
	w.uses++
	atomic.StoreUint64(mine, uint64(w.segment.Self())<<32|uint64(w.uses)<<16|uint64(n))
	// What was the same at two readings, numbers included, was so at one moment.
	if uses := w.readUses(); uses == w.readUses() {
		// A dead owner seems to live for the moment in which its slot is taken anew, so the excess has to last.
		total := w.used(uses)
		for look := 0; total > testPermits && look < 5; look++ {
			time.Sleep(time.Millisecond)
			total = w.used(uses)
		}
		if total > testPermits {
			w.fault(5, total)
		}
	}
	atomic.StoreUint64(mine, uint64(w.segment.Self())<<32|uint64(w.uses)<<16)
	if err := w.semaphore.Release(n); err != nil {
		panic(err)
	}
}

// used is how many of these permits are used by somebody who lives.
func (w *worker) used(uses [Slots + 1]uint64) (total uint64) {
	for _, use := range uses {
		if use&0xffff != 0 && w.segment.Alive(Owner(use>>32)) {
			total += use & 0xffff
		}
	}
	return total
}

func (w *worker) readUses() (uses [Slots + 1]uint64) {
	for slot := range uses {
		uses[slot] = atomic.LoadUint64(&w.arena.Uses[slot])
	}
	return uses
}

// eatOnce takes a token, for which it waits on the condition variable.
func (w *worker) eatOnce(ctx context.Context) error {
	if held(w.mutex.Lock(ctx)) != nil {
		held(w.mutex.Recover())
	}
	for w.arena.Tokens == 0 {
		if err := w.cond.Wait(ctx); errors.Is(err, ErrPoisoned) {
			held(w.mutex.Recover())
		} else if err != nil {
			return err
		}
	}
	w.arena.Tokens--
	w.arena.Eaten++
	return w.mutex.Unlock()
}

func init() {
	forever := func(once func(*worker, context.Context)) func(*Segment, int) {
		return func(s *Segment, _ int) {
			w := newWorker(s)
			atomic.AddUint32(&w.arena.Started, 1)
			for ctx := context.Background(); ; {
				once(w, ctx)
			}
		}
	}
	helpers["mutex"] = forever((*worker).lockOnce)
	helpers["rwmutex"] = forever((*worker).readOrWriteOnce)
	helpers["semaphore"] = forever((*worker).useOnce)
	helpers["cond"] = forever(func(w *worker, ctx context.Context) { w.eatOnce(ctx) })
	helpers["barrier"] = func(s *Segment, number int) {
		a := must(At[arena](s, 0))
		b := must(NewBarrier(s, &a.Barrier, 3))
		atomic.AddUint32(&a.Started, 1)
		for stepOnce(context.Background(), b, a, number) == nil {
		}
	}
}

// stepOnce passes the barrier once and checks that nobody is more than one generation away.
func stepOnce(ctx context.Context, b *Barrier, a *arena, number int) error {
	if err := b.Wait(ctx); err != nil {
		return err
	}
	mine := atomic.AddUint32(&a.Steps[number], 1)
	for other := range 3 {
		if theirs := atomic.LoadUint32(&a.Steps[other]); theirs+1 < mine || theirs > mine+1 {
			atomic.StoreUint64(&a.Fault[0], 6)
			atomic.AddUint32(&a.Faults, 1)
		}
	}
	return nil
}

// killed is how many kills a test makes of the counts for each run.
func killed() int {
	if sweeping {
		return 450
	}
	return 20
}

// killing keeps two helpers and this process at work, and kills one of the two at random moments.
func killing(t *testing.T, name string, once func(*worker, context.Context)) *worker {
	s := newSegment(t, 1<<16)
	w := newWorker(s)
	working, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	var longest time.Duration
	go func() {
		defer close(done)
		defer func() {
			if r := recover(); r != nil {
				t.Errorf("this process: %v", r)
			}
		}()
		for ctx := patientFor(t, killed()); working.Err() == nil; {
			begin := time.Now()
			once(w, ctx)
			longest = max(longest, time.Since(begin))
		}
	}()
	started := uint32(0)
	start := func() *exec.Cmd {
		cmd := startHelper(t, s, name, 0)
		started++
		eventually(t, "the helper starts", func() bool { return atomic.LoadUint32(&w.arena.Started) == started })
		return cmd
	}
	victims := [2]*exec.Cmd{start(), start()}
	for range killed() {
		time.Sleep(rand.N(2 * time.Millisecond))
		i := rand.IntN(2)
		kill(t, victims[i])
		victims[i] = start()
	}
	stop()
	<-done
	t.Logf("the longest operation took %v", longest)
	for _, cmd := range victims {
		kill(t, cmd)
	}
	if n := atomic.LoadUint32(&w.arena.Faults); n != 0 {
		t.Errorf("%d faults, the first %d", n, w.arena.Fault)
	}
	return w
}

func patientFor(t *testing.T, kills int) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), patience+time.Duration(kills)*200*time.Millisecond)
	t.Cleanup(cancel)
	return ctx
}

func TestKills(t *testing.T) {
	t.Run("mutex", func(t *testing.T) {
		w := killing(t, "mutex", (*worker).lockOnce)
		w.lockOnce(patient(t)) // the last two deaths
		w.checkReports(t)
	})
	t.Run("rwmutex", func(t *testing.T) {
		w := killing(t, "rwmutex", (*worker).readOrWriteOnce)
		if err := held(w.rw.Lock(patient(t))); err != nil {
			w.enter(err)
			held(w.rw.Recover())
			w.exit()
		}
		held(w.rw.Unlock())
		w.checkReports(t)
	})
	t.Run("semaphore", func(t *testing.T) {
		w := killing(t, "semaphore", (*worker).useOnce)
		if n := w.semaphore.Available(); n != testPermits {
			t.Errorf("%d of %d permits are left", n, testPermits)
		}
		if err := w.semaphore.Acquire(patient(t), testPermits); err != nil {
			t.Error(err)
		}
	})
	t.Run("cond", func(t *testing.T) {
		given := uint64(0)
		w := killing(t, "cond", func(w *worker, ctx context.Context) {
			if held(w.mutex.Lock(ctx)) != nil {
				held(w.mutex.Recover())
			}
			if w.arena.Tokens < 3 {
				w.arena.Tokens++
				given++
				w.cond.Signal()
			}
			held(w.mutex.Unlock())
		})
		if held(w.mutex.Lock(patient(t))) != nil {
			held(w.mutex.Recover())
		}
		held(w.mutex.Unlock())
		// A consumer that died between its two lines has taken without counting.
		if a := w.arena; a.Tokens+a.Eaten > given || a.Tokens+a.Eaten+uint64(killed()+2) < given || a.Eaten == 0 {
			t.Errorf("%d given, %d left, %d eaten", given, a.Tokens, a.Eaten)
		}
	})
	t.Run("barrier", func(t *testing.T) {
		for range killed() {
			killBarrier(t)
		}
	})
}

func (w *worker) checkReports(t *testing.T) {
	reports, dirty := atomic.LoadUint32(&w.arena.Reports), atomic.LoadUint32(&w.arena.Dirty)
	t.Logf("%d kills, %d deaths reported, %d of them had begun to write", killed()+2, reports, dirty)
	if int(reports) > killed()+2 {
		t.Errorf("%d deaths reported after %d kills", reports, killed()+2)
	}
}

// killBarrier kills one of two parties at a random moment: the other and this process have to see it.
func killBarrier(t *testing.T) {
	s := newSegment(t, 1<<16)
	a := place[arena](t, s, 0)
	b, err := NewBarrier(s, &a.Barrier, 3)
	if err != nil {
		t.Fatal(err)
	}
	victims := [2]*exec.Cmd{startHelper(t, s, "barrier", 1), startHelper(t, s, "barrier", 2)}
	dead := rand.IntN(2)
	killing := make(chan struct{})
	go func() {
		defer close(killing)
		for atomic.LoadUint32(&a.Started) < 2 {
			time.Sleep(100 * time.Microsecond)
		}
		time.Sleep(rand.N(2 * time.Millisecond))
		kill(t, victims[dead])
	}()
	ctx := patient(t)
	for err == nil {
		err = stepOnce(ctx, b, a, 0)
	}
	if !errors.Is(err, ErrBroken) {
		t.Errorf("this party: %v", err)
	}
	<-killing
	if err := victims[1-dead].Wait(); err != nil { // it ends at its ErrBroken
		t.Errorf("the other party: %v", err)
	}
	if err := b.Wait(ctx); !errors.Is(err, ErrBroken) {
		t.Errorf("a broken barrier: %v", err)
	}
	if a.Faults != 0 {
		t.Errorf("fault %d", a.Fault[0])
	}
	s.Close()
}
