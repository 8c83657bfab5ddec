package ipc

import (
	"context"
	"sync/atomic"
)

// CondState is a [Cond]'s part in shared memory.
type CondState struct{ sequence uint32 }

// Cond is a condition variable for what a [Mutex] guards. Wait gives the mutex up and sleeps; a Signal or Broadcast by any
// participant after the moment in which the mutex was given up ends it. It may also return for no reason, so it
// stands in a loop that tests the condition:
//
//	for !ready {
//		if err := cond.Wait(ctx); err != nil {
//			return err // the mutex is not held, unless it is ErrPoisoned
//		}
//	}
//
// A signaller that dies between its two steps, or a waiter that dies with the signal in its hands, delays the others by
// 100 ms at most: every change of the sequence number ends every wait sooner or later.
//
// The happens-before edges are the mutex's. Signal and Broadcast cost a system call (0.3 µs). (Four thousand million
// signals between two looks of a waiter would look like none.)
type Cond struct {
	mutex    *Mutex
	sequence *uint32
}

// NewCond makes a handle on a condition variable whose state lies in the mutex's segment; see [NewMutex].
func NewCond(m *Mutex, state *CondState) (*Cond, error) {
	c := &Cond{mutex: m, sequence: &state.sequence}
	return c, failure("make", c, inSegment(m.segment, state))
}

func (c *Cond) String() string { return "cond of " + c.mutex.segment.String() }

// Wait is called with the mutex held. It returns nil or [ErrPoisoned] with the mutex held again, and any other error without
// it: the context's, because a peer that keeps the mutex must not keep the caller beyond it, or [ErrNotHeld]. So a deferred
// Unlock does not go together with Wait.
func (c *Cond) Wait(ctx context.Context) error { return failure("wait for", c, c.wait(ctx)) }

func (c *Cond) wait(ctx context.Context) error {
	seen := atomic.LoadUint32(c.sequence)
	if err := c.mutex.Unlock(); err != nil {
		return err
	}
	if !spin(c.sequence, seen) {
		if err := park(ctx, c.sequence, seen, nil); err != nil {
			futexWake(c.sequence, 1) // a signal's one wake may have come here
			return err
		}
	}
	return c.mutex.Lock(ctx)
}

// Signal wakes one waiter at least, if there is one. Whoever holds the mutex while it changes the condition may signal
// before or after it unlocks.
func (c *Cond) Signal() { c.wake(1) }

// Broadcast wakes all waiters.
func (c *Cond) Broadcast() { c.wake(everyone) }

func (c *Cond) wake(n int) {
	atomic.AddUint32(c.sequence, 1)
	futexWake(c.sequence, n)
}
