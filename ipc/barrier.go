package ipc

import (
	"context"
	"fmt"
	"sync/atomic"
	"syscall"
)

// BarrierState is a [Barrier]'s part in shared memory. Zero is a barrier at which nobody has arrived.
type BarrierState struct {
	word    uint32 // bit 31: broken; bits 16–30: the generation; bits 0–15: how many have arrived in it
	members [Slots + 1]uint32
}

const (
	barrierBroken    = 1 << 31
	barrierCountBits = 16
	barrierCountMask = 1<<barrierCountBits - 1
)

// Barrier holds parties back until all have come, and then again, as often as they like.
//
// A process becomes a member by [NewBarrier]. When a member dies or closes its segment, the barrier breaks, and stays so:
// all who wait, and all who come later, get [ErrBroken], within 100 ms. The others could not go on without it, and
// what it was to contribute may be half written.
//
// What each party did before its Wait happens before what all do after it. The last arrival costs a system call; the others
// spin for as long as a wake-up costs and sleep then.
type Barrier struct {
	segment *Segment
	state   *BarrierState
	parties uint32
}

// NewBarrier makes a handle on a barrier for that many parties (1…65535), each of them a call of Wait at a time, in
// whatever process. All give the same number; it is not in shared memory, where a peer could change it. State as in [NewMutex].
func NewBarrier(s *Segment, state *BarrierState, parties int) (*Barrier, error) {
	b := &Barrier{segment: s, state: state, parties: uint32(parties)}
	if parties < 1 || parties > barrierCountMask {
		return nil, failure("make", b, fmt.Errorf("%d parties: %w", parties, syscall.EINVAL))
	}
	if err := inSegment(s, state); err != nil {
		return nil, failure("make", b, err)
	}
	before := atomic.SwapUint32(&state.members[s.Self().Slot()], uint32(s.Self()))
	if before != 0 && Owner(before) != s.Self() { // a member died, and this process has its slot
		b.breakUp()
	}
	return b, nil
}

func (b *Barrier) String() string { return "barrier of " + b.segment.String() }

// Wait returns nil when all parties have come, [ErrBroken], or the context's error: then this party has not come, and may again.
func (b *Barrier) Wait(ctx context.Context) error { return failure("wait at", b, b.wait(ctx)) }

func (b *Barrier) wait(ctx context.Context) error {
	word := &b.state.word
	var now uint32
	for arrived := false; !arrived; {
		old := atomic.LoadUint32(word)
		if old&barrierBroken != 0 {
			return ErrBroken
		}
		now = old + 1
		last := now&barrierCountMask >= b.parties || now&barrierCountMask == 0
		if last {
			now = nextGeneration(old)
		}
		arrived = atomic.CompareAndSwapUint32(word, old, now)
		if arrived && last {
			futexWake(word, everyone)
			return nil
		}
	}
	generation := now >> barrierCountBits
	for {
		if !spin(word, now) || ctx.Err() != nil {
			if err := park(ctx, word, now, b.look); err != nil {
				return b.withdraw(generation, err)
			}
		}
		switch now = atomic.LoadUint32(word); {
		case now&barrierBroken != 0:
			return ErrBroken
		case now>>barrierCountBits != generation:
			return nil
		}
	}
}

func nextGeneration(word uint32) uint32 {
	return (word>>barrierCountBits + 1) << barrierCountBits &^ barrierBroken
}

// look breaks the barrier if a member is dead.
func (b *Barrier) look() error {
	for slot := range b.state.members {
		if member := atomic.LoadUint32(&b.state.members[slot]); member != 0 && !b.segment.Alive(Owner(member)) {
			b.breakUp()
			return ErrBroken
		}
	}
	return nil
}

func (b *Barrier) breakUp() {
	atomic.OrUint32(&b.state.word, barrierBroken)
	futexWake(&b.state.word, everyone)
}

// withdraw takes an arrival back, unless all have come in the meantime.
func (b *Barrier) withdraw(generation uint32, err error) error {
	for {
		old := atomic.LoadUint32(&b.state.word)
		switch {
		case old&barrierBroken != 0:
			return ErrBroken
		case old>>barrierCountBits != generation:
			return nil
		case old&barrierCountMask == 0:
			return ErrCorrupt
		case atomic.CompareAndSwapUint32(&b.state.word, old, old-1):
			return err
		}
	}
}
