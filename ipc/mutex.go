package ipc

import (
	"context"
	"errors"
	"sync/atomic"
)

// MutexState is a [Mutex]'s part in shared memory. Zero is unlocked.
type MutexState struct{ word uint32 }

// Mutex excludes the participants of a segment, and the goroutines within each, from each other. Its word names who holds it,
// so it is taken and signed in one step and there is no moment in which its owner's death would not be seen.
//
// The owner's death while it holds the mutex poisons it: what it guards may be half written. Exactly one Lock then returns
// [ErrPoisoned], and that one holds the mutex, so it can repair what is guarded and call Recover. If it unlocks without
// Recover, or dies, the poison stays, and the next Lock gets ErrPoisoned, again holding the mutex. Waiters see a death 1 ms
// to 100 ms after it. An owner is a process (a [Segment]); a goroutine that ends is not seen.
//
// What happened before an Unlock happens before what follows the next Lock, in whatever process, whatever Lock returned with
// the mutex held; and so it is with what an owner did before its death. The race detector can't see this, since it looks at
// no shared memory: it reports ordinary variables that goroutines of one process guard by a Mutex.
//
// It is not fair, not recursive, and lends no priority: the kernel's futexes that do take the owner for a thread's
// number, which is another's in another pid namespace.
//
// A pair of Lock and Unlock without contention takes 11 ns and no system call. A waiter spins for as long as a wake-up costs and
// sleeps then. A hostile peer can unlock, poison or hold the mutex for ever: the last costs a waiter its context, no more.
type Mutex struct {
	segment *Segment
	word    *uint32
	self    uint32
}

// errOwnerDied ends a park for a look that found so.
var errOwnerDied = errors.New("the owner died")

// NewMutex makes a handle on a mutex whose state lies in s ([At]); each process makes one of its own. It is EINVAL if the
// state does not lie in s, or s is read-only.
func NewMutex(s *Segment, state *MutexState) (*Mutex, error) {
	m := &Mutex{segment: s, word: &state.word, self: uint32(s.Self())}
	return m, failure("make", m, inSegment(s, state))
}

func (m *Mutex) String() string { return "mutex of " + m.segment.String() }

// Lock returns nil or [ErrPoisoned] with the mutex held, and any other error, which is the context's, without it. A free
// mutex is taken even if ctx is done.
func (m *Mutex) Lock(ctx context.Context) error {
	if atomic.CompareAndSwapUint32(m.word, 0, m.self) {
		return nil
	}
	return failure("lock", m, m.lock(ctx))
}

// TryLock is Lock, but [ErrWouldBlock] if a living owner has the mutex, or somebody else takes it now.
func (m *Mutex) TryLock() error {
	old := atomic.LoadUint32(m.word)
	if !m.owned(old) || !m.segment.Alive(Owner(old)) {
		if taken, err := m.take(old, 0); taken {
			return failure("try to lock", m, err)
		}
	}
	return failure("try to lock", m, ErrWouldBlock)
}

// Unlock is [ErrNotHeld] if no goroutine of this process holds the mutex. It does not know which goroutine it was.
func (m *Mutex) Unlock() error {
	if atomic.CompareAndSwapUint32(m.word, m.self, 0) {
		return nil
	}
	return failure("unlock", m, m.unlock(1))
}

// Recover ends the poison; the caller holds the mutex and has repaired what it guards. Else it is [ErrNotHeld].
func (m *Mutex) Recover() error {
	for {
		old := atomic.LoadUint32(m.word)
		if old&ownerMask != m.self {
			return failure("recover", m, ErrNotHeld)
		}
		if atomic.CompareAndSwapUint32(m.word, old, old&^flagPoisoned) {
			return nil
		}
	}
}

// owned says whether a word names somebody. Bits of a generation without a slot are no honest peer's, and nobody's.
func (m *Mutex) owned(word uint32) bool { return Owner(word).Slot() != 0 }

// take makes this process the owner of a word that is free or a dead owner's, in one step: a second one that saw the same
// death fails.
func (m *Mutex) take(old, flags uint32) (bool, error) {
	next := m.self | old&(flagWaiters|flagPoisoned) | flags
	if m.owned(old) {
		next |= flagPoisoned
	}
	if !atomic.CompareAndSwapUint32(m.word, old, next) {
		return false, nil
	}
	if next&flagPoisoned != 0 {
		return true, ErrPoisoned
	}
	return true, nil
}

func (m *Mutex) lock(ctx context.Context) error {
	if old, free := spinFree(m.word); free {
		if taken, err := m.take(old, 0); taken {
			return err
		}
	}
	for {
		old := atomic.LoadUint32(m.word)
		free := !m.owned(old)
		if !free {
			old, free = m.waitForOwner(ctx, old)
		}
		if free {
			// Others may still sleep, as this one may have, so whoever takes the word here says so.
			if taken, err := m.take(old, flagWaiters); taken {
				return err
			}
		}
		if err := ctx.Err(); err != nil {
			futexWake(m.word, 1) // the one wake of an Unlock may have come here
			return err
		}
	}
}

// waitForOwner sleeps until a word that names an owner has changed or ctx is done. It says whether that owner has died, and
// then what the word is now.
func (m *Mutex) waitForOwner(ctx context.Context, old uint32) (uint32, bool) {
	if old&flagWaiters == 0 && !atomic.CompareAndSwapUint32(m.word, old, old|flagWaiters) {
		return 0, false
	}
	old |= flagWaiters
	err := park(ctx, m.word, old, func() error {
		if m.segment.Alive(Owner(old)) {
			return nil
		}
		return errOwnerDied
	})
	return old, errors.Is(err, errOwnerDied)
}

func (m *Mutex) unlock(wake int) error {
	for {
		old := atomic.LoadUint32(m.word)
		if old&ownerMask != m.self {
			return ErrNotHeld
		}
		if !atomic.CompareAndSwapUint32(m.word, old, old&flagPoisoned) {
			continue
		}
		if old&flagWaiters != 0 {
			futexWake(m.word, wake)
		}
		return nil
	}
}
