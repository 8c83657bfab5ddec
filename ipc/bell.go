package ipc

import (
	"context"
	"sync/atomic"
	"time"
)

// A bell is a futex word in shared memory. Bit 0: somebody may sleep on it; the rest counts how often it was rung.
//
// A ring wakes one sleeper and takes the bit away, since who rings knows nothing of others. The one that was woken puts it
// back as it leaves, and rings again if there is something left for the next (waiter.leave). One that dies instead costs the
// others a look that is late, at most 100 ms.
const (
	bellAwaited = 1
	bellStep    = 2
)

// ring is called behind the change that sleepers wait for; what it looked at before does not count.
func ring(bell *uint32, sleepers int) {
	if atomic.LoadUint32(bell)&bellAwaited == 0 {
		return
	}
	atomic.AndUint32(bell, ^uint32(bellAwaited))
	atomic.AddUint32(bell, bellStep)
	futexWake(bell, sleepers)
}

// firstPause lies behind the next tick of the scheduler: a shorter one makes the kernel set its timer anew at each sleep and
// wake-up, which took 3 µs each in a virtual machine. What needs an early look, a death in the middle of a step, is rare.
const firstPause = 20 * time.Millisecond

// ringAll is ring for those too that sleep without having announced it: another ring took the bit away.
func ringAll(bell *uint32) {
	atomic.AndUint32(bell, ^uint32(bellAwaited))
	atomic.AddUint32(bell, bellStep)
	futexWake(bell, everyone)
}

// waiter is one wait for something that a peer has to do: try it, then next, in turns. It spins, announces itself, and parks.
type waiter struct {
	ctx   context.Context
	bell  *uint32
	polls int
	start time.Time
	state waitState
	old   uint32 // the announced value
	pause time.Duration
	stop  func() bool
}

type waitState int

const (
	spinning waitState = iota
	toAnnounce
	announced
)

// next returns when it is time to try again: nil, or the context's error.
func (w *waiter) next() error {
	switch w.state {
	case spinning:
		// The clock costs as much as the peer needs for an answer: it is not looked at first.
		if w.polls++; w.polls%64 != 0 && (w.polls > 1 || spinBudget() > 0) {
			return nil
		}
		if err := w.ctx.Err(); err != nil {
			return err
		}
		if w.start.IsZero() {
			w.start = time.Now()
		}
		if time.Since(w.start) < spinBudget() {
			return nil
		}
		w.pause = firstPause
		w.announce()
	case toAnnounce:
		w.announce()
	case announced:
		return w.park()
	}
	return nil
}

func (w *waiter) announce() {
	w.old = atomic.OrUint32(w.bell, bellAwaited) | bellAwaited
	w.state = announced
}

func (w *waiter) park() error {
	if w.stop == nil && w.ctx.Done() != nil {
		bell := w.bell // the closure must not bring w to the heap
		w.stop = context.AfterFunc(w.ctx, func() { futexWake(bell, everyone) })
	}
	if err := w.ctx.Err(); err != nil {
		return err
	}
	futexWait(w.bell, w.old, untilDeadline(w.ctx, w.pause))
	if atomic.LoadUint32(w.bell) != w.old {
		w.state, w.pause = toAnnounce, firstPause
	} else {
		w.pause = min(2*w.pause, lastLook)
	}
	return nil
}

// leave ends the wait: more says whether there is something left for another sleeper, to whom our ring may have belonged.
// It is nil for a bell whose rings wake all.
func (w *waiter) leave(more func() bool) {
	if w.stop != nil {
		w.stop()
	}
	if w.state != spinning && more != nil {
		passOn(w.bell, more)
	}
}

func passOn(bell *uint32, more func() bool) {
	atomic.OrUint32(bell, bellAwaited)
	if more() {
		ring(bell, 1)
	}
}

func untilDeadline(ctx context.Context, pause time.Duration) time.Duration {
	if deadline, ok := ctx.Deadline(); ok {
		return min(pause, time.Until(deadline))
	}
	return pause
}

// lives asks for an owner's life once in a millisecond and not each time: it costs a system call.
type lives struct {
	segment  *Segment
	verified atomic.Uint64 // the owner that lived last, and when: bits 0–29, and milliseconds
}

var processStart = time.Now()

func (l *lives) dead(o Owner) bool {
	if o == l.segment.Self() {
		return false
	}
	// One more: the zero value must not vouch for owner 0.
	stamp := uint64(time.Since(processStart)/time.Millisecond+1)<<(slotBits+generationBits) | uint64(o)
	if l.verified.Load() == stamp {
		return false
	}
	if !l.segment.Alive(o) {
		return true
	}
	l.verified.Store(stamp)
	return false
}
