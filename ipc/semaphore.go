package ipc

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync/atomic"
	"syscall"
)

// SemaphoreState is a [Semaphore]'s part in shared memory. Zero is a semaphore of which nobody holds a permit.
type SemaphoreState struct {
	guard uint32            // a mutex's word: who looks for permits
	turn  uint32            // bit 0: somebody may sleep on it; the rest changes with every release
	held  [Slots + 1]uint64 // by slot: the generation in the upper half, how many permits that process has in the lower
}

// Semaphore lends out permits. There is no count of free ones that could get out of step with who holds them: free is what
// no living process holds. So a dead holder's permits come back by themselves, when somebody needs them, and permits are
// conserved however processes die: permits = Available + what the living hold. For the same reason only the process that
// has acquired a permit can release it.
//
// What a process did before Release happens before what another does after the Acquire that needed this permit.
//
// Acquire looks at 255 words (0.2 µs), at which one process looks at a time. It is not fair: who wants many permits can be
// overtaken for ever by those who want few.
type Semaphore struct {
	guard   Mutex
	state   *SemaphoreState
	own     *uint64 // this process's
	permits uint64
}

// NewSemaphore makes a handle on a semaphore of that many permits (1…2³¹-1). All processes give the same number; it is not in
// shared memory, where a peer could change it. State as in [NewMutex].
func NewSemaphore(s *Segment, state *SemaphoreState, permits int) (*Semaphore, error) {
	p := &Semaphore{
		guard:   Mutex{segment: s, word: &state.guard, self: uint32(s.Self())},
		state:   state,
		own:     &state.held[s.Self().Slot()],
		permits: uint64(permits),
	}
	if permits < 1 || permits > math.MaxInt32 {
		return nil, failure("make", p, fmt.Errorf("%d permits: %w", permits, syscall.EINVAL))
	}
	return p, failure("make", p, inSegment(s, state))
}

func (p *Semaphore) String() string { return "semaphore of " + p.guard.segment.String() }

// Acquire takes n permits at once, or none and returns the context's error. It is EINVAL if there are not so many at all.
func (p *Semaphore) Acquire(ctx context.Context, n int) error {
	return failure("acquire", p, p.acquire(ctx, n))
}

// TryAcquire takes n permits, or none and returns [ErrWouldBlock]. It waits for other processes' looks, though: until ctx is done.
func (p *Semaphore) TryAcquire(ctx context.Context, n int) error {
	return failure("try to acquire", p, p.try(ctx, n))
}

func (p *Semaphore) acquire(ctx context.Context, n int) error {
	for {
		seen := atomic.LoadUint32(&p.state.turn)
		if err := p.try(ctx, n); !errors.Is(err, ErrWouldBlock) {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if spin(&p.state.turn, seen) || seen&1 == 0 && !atomic.CompareAndSwapUint32(&p.state.turn, seen, seen|1) {
			continue
		}
		err := park(ctx, &p.state.turn, seen|1, func() error {
			if p.dropDead() {
				return errOwnerDied
			}
			return nil
		})
		if errors.Is(err, errOwnerDied) {
			p.wake()
		} else if err != nil {
			return err
		}
	}
}

func (p *Semaphore) try(ctx context.Context, n int) error {
	if n < 1 || uint64(n) > p.permits {
		return fmt.Errorf("%d of %d permits: %w", n, p.permits, syscall.EINVAL)
	}
	// Whoever died at its look has left nothing half done: it writes one word, its own.
	if err := p.guard.Lock(ctx); err != nil && !errors.Is(err, ErrPoisoned) {
		return err
	}
	err := p.take(uint64(n))
	for atomic.LoadUint32(p.guard.word)&flagPoisoned != 0 && p.guard.Recover() == nil {
	}
	if unlock := p.guard.Unlock(); err == nil && unlock != nil { // a hostile peer took the guard away: nobody knows who looked
		return errors.Join(unlock, p.give(uint64(n)))
	}
	return err
}

// take is called with the guard held, so that what is free does not become less.
func (p *Semaphore) take(n uint64) error {
	if p.free() < n && (!p.dropDead() || p.free() < n) {
		return ErrWouldBlock
	}
	generation := uint64(Owner(p.guard.self).Generation()) << 32
	for {
		old := atomic.LoadUint64(p.own)
		var has uint64
		if old>>32 == generation>>32 { // else a predecessor in this slot had it, and died
			has = old & math.MaxUint32
		}
		if has+n > p.permits {
			return ErrCorrupt
		}
		if atomic.CompareAndSwapUint64(p.own, old, generation|(has+n)) {
			return nil
		}
	}
}

// free counts what nobody holds, dead or alive.
func (p *Semaphore) free() uint64 {
	var held uint64
	for slot := range p.state.held {
		held += atomic.LoadUint64(&p.state.held[slot]) & math.MaxUint32
	}
	return p.permits - min(held, p.permits)
}

// dropDead gives back what the dead held and says whether there was something.
func (p *Semaphore) dropDead() bool {
	dropped := false
	for slot := range p.state.held {
		old := atomic.LoadUint64(&p.state.held[slot])
		if old&math.MaxUint32 != 0 && !p.guard.segment.Alive(newOwner(slot, uint32(old>>32))) {
			dropped = atomic.CompareAndSwapUint64(&p.state.held[slot], old, 0) || dropped
		}
	}
	return dropped
}

// Release gives n permits back. It is [ErrNotHeld] if this process has not so many.
func (p *Semaphore) Release(n int) error {
	if n < 1 {
		return failure("release", p, fmt.Errorf("%d permits: %w", n, syscall.EINVAL))
	}
	return failure("release", p, p.give(uint64(n)))
}

func (p *Semaphore) give(n uint64) error {
	for {
		old := atomic.LoadUint64(p.own)
		if uint32(old>>32) != Owner(p.guard.self).Generation() || old&math.MaxUint32 < n {
			return ErrNotHeld
		}
		if atomic.CompareAndSwapUint64(p.own, old, old-n) {
			p.wake()
			return nil
		}
	}
}

// wake lets all who sleep look again: it is not known which of them the permits are enough for.
func (p *Semaphore) wake() {
	for {
		old := atomic.LoadUint32(&p.state.turn)
		if !atomic.CompareAndSwapUint32(&p.state.turn, old, (old+2)&^1) {
			continue
		}
		if old&1 != 0 {
			futexWake(&p.state.turn, everyone)
		}
		return
	}
}

// Available is how many permits no living process holds. It may be out of date when it returns.
func (p *Semaphore) Available() int {
	p.dropDead()
	return int(p.free())
}
