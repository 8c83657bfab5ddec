package ipc

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"syscall"
	"time"
)

// Case is one of the operations between which [Select] chooses. It is used by one Select at a time.
type Case struct {
	try  func() (bool, error)
	bell *uint32
	more func() bool
	// counterpart is rung behind an announcement: those that only offer to who waits, nil for none.
	counterpart *uint32
}

// SendCase is a Send of value.
func (c *Channel[T]) SendCase(value T) Case {
	return Case{
		try:  func() (bool, error) { done, err := c.offer(&value); return done, wrap("send", c.object(err), err) },
		bell: &c.state.senders,
		more: c.writable,
	}
}

// RecvCase is a Recv into value.
func (c *Channel[T]) RecvCase(value *T) Case {
	r := Case{
		try:  func() (bool, error) { done, err := c.take(value); return done, wrap("receive", c.object(err), err) },
		bell: &c.state.receivers,
		more: c.readable,
	}
	if c.capacity == 0 {
		r.counterpart = &c.state.senders
	}
	return r
}

// maxCases is FUTEX_WAITV_MAX.
const maxCases = 128

// Select does one of the cases, the first that can be done, and returns its index; of several that can be done now each is
// as likely as the others. The channels may lie in several segments. Where a case fails (ErrClosed) it returns that case's
// index and error; a receiver that goes on then leaves the case out. Where ctx is done it returns -1 and ctx's error.
// More than 128 cases are EINVAL.
//
// It sleeps in one futex_waitv(2). Where the kernel (before 5.16) or a filter refuses that, it looks at all cases every
// millisecond instead.
func Select(ctx context.Context, cases ...Case) (int, error) {
	if len(cases) == 0 || len(cases) > maxCases {
		return -1, wrap("select", "channels", fmt.Errorf("%d cases: %w", len(cases), syscall.EINVAL))
	}
	var announcement []futexWaiter
	start, pause := time.Now(), firstLook
	for polls := 1; ; polls++ {
		first := rand.IntN(len(cases))
		for i := range cases {
			chosen := (first + i) % len(cases)
			if done, err := cases[chosen].try(); done || err != nil {
				if announcement != nil {
					for _, c := range cases {
						passOn(c.bell, c.more)
					}
				}
				return chosen, err
			}
		}
		if polls%16 != 0 && announcement == nil {
			continue
		}
		if err := ctx.Err(); err != nil {
			for _, c := range cases {
				passOn(c.bell, c.more)
			}
			return -1, wrap("select", "channels", err)
		}
		if announcement == nil && time.Since(start) < spinBudget() {
			continue
		}
		if announcement == nil {
			announcement = make([]futexWaiter, len(cases))
			if ctx.Done() != nil {
				bell := cases[0].bell
				defer context.AfterFunc(ctx, func() { futexWake(bell, everyone) })()
			}
			announce(cases, announcement)
			continue
		}
		if err := futexWaitAny(announcement, untilDeadline(ctx, pause)); errors.Is(err, syscall.ENOSYS) || errors.Is(err, syscall.EPERM) {
			pause = firstLook
			futexWait(cases[0].bell, uint32(announcement[0].value), untilDeadline(ctx, pause))
		}
		pause = min(2*pause, lastLook)
		if announce(cases, announcement) {
			pause = firstLook
		}
	}
}

// announce says whether a bell was rung since the last announcement. Those that were not stay as they are, without a
// counterpart's ring: two Selects would wake each other for ever.
func announce(cases []Case, announcement []futexWaiter) (rung bool) {
	for i, c := range cases {
		if old := announcement[i].value; old != 0 && uint64(atomic.LoadUint32(c.bell)) == old {
			continue
		}
		rung = true
		announcement[i] = newFutexWaiter(c.bell, atomic.OrUint32(c.bell, bellAwaited)|bellAwaited)
		if c.counterpart != nil {
			ring(c.counterpart, 1)
		}
	}
	return rung
}
