package ipc

import (
	"context"
	"sync/atomic"
	"time"
)

const (
	firstLook = time.Millisecond
	lastLook  = 100 * time.Millisecond
)

// spin waits a short while for *word to differ from old and says whether it does. The while is what a wake-up costs on this
// machine, measured once: who spins that long and parks then has lost at most twice what the better choice costs. Where
// this process has one CPU at most it returns at once: what it waits for could not run.
func spin(word *uint32, old uint32) bool {
	budget := spinBudget()
	if budget == 0 {
		return atomic.LoadUint32(word) != old
	}
	for start := time.Now(); ; {
		for range 64 {
			if atomic.LoadUint32(word) != old {
				return true
			}
		}
		if time.Since(start) > budget {
			return false
		}
	}
}

// spinFree is spin for a lock's word that others take and free: it waits for a moment when nobody has it. The looks become
// rarer, since each takes the word's cache line away from the owner that is about to free it.
func spinFree(word *uint32) (uint32, bool) {
	budget := spinBudget()
	old := atomic.LoadUint32(word)
	if budget == 0 {
		return old, Owner(old).Slot() == 0
	}
	for start, pause := time.Now(), 1; Owner(old).Slot() != 0; pause = min(2*pause, 256) {
		if time.Since(start) > budget {
			return old, false
		}
		relax(pause)
		old = atomic.LoadUint32(word)
	}
	return old, true
}

// park sleeps until *word differs from old (nil), ctx is done (its error), or look returns an error (that one). Whoever
// changes the word has to wake its sleepers (futexWake); a wake that never comes, since the waker died between its two
// steps, costs at most 100 ms: the sleep is cut into pieces of 1 ms, 2 ms … 100 ms, and after each park looks at the word,
// at ctx, and calls look (nil is allowed), which tests whether those that it waits for live. So that wakers can do without
// the system call when nobody sleeps, the caller announces itself in *word first, and old is the announced value.
//
// A wake may be meant for somebody else and the word may have changed again: callers loop.
func park(ctx context.Context, word *uint32, old uint32, look func() error) error {
	if ctx.Done() != nil {
		stop := context.AfterFunc(ctx, func() { futexWake(word, everyone) })
		defer stop()
	}
	for pause := firstLook; ; pause = min(2*pause, lastLook) {
		if err := ctx.Err(); err != nil {
			return err
		}
		limit := pause
		if deadline, ok := ctx.Deadline(); ok {
			limit = min(limit, time.Until(deadline))
		}
		futexWait(word, old, limit)
		if atomic.LoadUint32(word) != old {
			return nil
		}
		if look != nil {
			if err := look(); err != nil {
				return err
			}
		}
	}
}
