package ipc

import (
	"context"
	"fmt"
	"math"
	"reflect"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"
)

// Channel carries values of T, a type without pointers, between the processes that have the segment: any number of senders
// and receivers, first in, first out, each value to one receiver. It holds capacity values; with 0 a Send returns when a
// receiver has taken its value (a rendezvous).
//
// What a Send did before, its receiver sees after Recv (happens-before); what receiver k did before Recv k, sender
// k+capacity sees after its Send. Close happens before an ErrClosed that it causes.
//
// A process may be killed at any moment. A value whose Send had returned is received once. Of one whose Send had not, the
// whole is received or nothing. A receiver that dies in Recv leaves its value to the next one; values behind it may have
// overtaken it then. A process that is stopped in the middle of a Send (some nanoseconds) holds the receivers up until it
// goes on or dies; they keep to their contexts.
//
// Who can write to the segment can forge, change and lose values, or close the channel. More it can't: no panic, nothing
// outside the segment, no wait beyond a context. Values come from a peer: check them as such.
//
// 64 bytes take some 100 ns from one CPU to another where both sides spin, else a wake-up. Who waits looks every 100 ms
// whether peers live. The memory is the segment's, so a slow receiver holds the senders up and nothing grows.
//
// All methods may be called by any number of goroutines at once, each of which takes a thread while it sleeps.
type Channel[T any] struct {
	lives
	state    *channelState
	slots    []slot[T]
	capacity int
}

// channelState is, as zeros, an open channel that is empty.
type channelState struct {
	shape     uint64 // capacity and size of T: who comes second must mean the same
	closed    uint32
	receivers uint32 // bell: a value has come
	senders   uint32 // bell: a slot is free
	offers    uint32 // bell: a rendezvous's value was taken
	_         [40]byte
	head      uint64 // position, a hint: no value lies before it
	_         [56]byte
	tail      uint64 // position, a hint: it and what comes after it is free or will be
	_         [56]byte
}

// slot's word is its lap, its state and its owner, changed by CAS alone; so equal words are equal states, and a process that
// slept between its look and its CAS does no harm: free(lap) → writing(lap, owner) → full(lap) → reading(lap, owner) →
// free(lap+1). A dead writer's slot becomes free(lap+1), a dead reader's full(lap). models/ring.pml has all of it.
type slot[T any] struct {
	word  uint64
	value T
	_     [56]byte // the next word lies in another cache line
}

const (
	slotFree = iota
	slotWriting
	slotFull
	slotReading
)

func slotWord(lap uint32, state uint64, owner Owner) uint64 {
	return uint64(lap)<<32 | state<<(slotBits+generationBits) | uint64(owner)
}

func lapOf(word uint64) uint32   { return uint32(word >> 32) }
func stateOf(word uint64) uint64 { return word >> (slotBits + generationBits) & 3 }
func ownerOf(word uint64) Owner  { return Owner(word & ownerMask) }

// A position is the lap and the slot's index: 32 bits each.
func (c *Channel[T]) after(position uint64) uint64 {
	if int(uint32(position)) >= len(c.slots)-1 {
		return (position>>32 + 1) << 32
	}
	return position + 1
}

// maxTries bounds what a hostile peer can make one attempt do: it may undo each of our steps.
const maxTries = 1 << 10

// ChannelSize is how many bytes a channel takes in its segment.
func ChannelSize[T any](capacity int) int {
	return int(unsafe.Sizeof(channelState{}) + uintptr(max(capacity, 1))*unsafe.Sizeof(slot[T]{}))
}

// NewChannel gives the channel at an offset of the segment, a multiple of 64: each process calls it with the same arguments,
// in any order. The memory must be zero at first, as a new segment's is, and have room for [ChannelSize] bytes. Another
// capacity or size of T than a peer's is ErrCorrupt, a T with pointers a [*PointerError].
func NewChannel[T any](s *Segment, offset, capacity int) (*Channel[T], error) {
	if err := CheckType[T](); err != nil {
		return nil, err
	}
	c := &Channel[T]{lives: lives{segment: s}, capacity: capacity}
	if capacity < 0 || capacity > math.MaxInt32 || offset%64 != 0 {
		return nil, wrap("make", c.String(), fmt.Errorf("capacity %d at offset %d: %w", capacity, offset, syscall.EINVAL))
	}
	var err error
	if c.state, err = At[channelState](s, offset); err != nil {
		return nil, err
	}
	if err := inSegment(s, c.state); err != nil {
		return nil, wrap("make", c.String(), err)
	}
	if c.slots, err = Slice[slot[T]](s, offset+int(unsafe.Sizeof(*c.state)), max(capacity, 1)); err != nil {
		return nil, err
	}
	shape := uint64(capacity+1)<<32 | uint64(uint32(unsafe.Sizeof(slot[T]{})))
	if !atomic.CompareAndSwapUint64(&c.state.shape, 0, shape) && atomic.LoadUint64(&c.state.shape) != shape {
		return nil, wrap("make", c.String(), fmt.Errorf("it has another capacity or type: %w", ErrCorrupt))
	}
	return c, nil
}

func (c *Channel[T]) String() string {
	return fmt.Sprintf("channel of %v in %v", reflect.TypeFor[T](), c.segment)
}

// Cap is the capacity, 0 for a rendezvous.
func (c *Channel[T]) Cap() int { return c.capacity }

// Len is how many values wait, about: peers go on meanwhile.
func (c *Channel[T]) Len() int { return min(c.held(), c.capacity) }

func (c *Channel[T]) held() int {
	tail, head := atomic.LoadUint64(&c.state.tail), atomic.LoadUint64(&c.state.head)
	n := int64(int32(lapOf(tail)-lapOf(head)))*int64(len(c.slots)) + int64(uint32(tail)) - int64(uint32(head))
	return int(min(max(n, 0), int64(len(c.slots))))
}

func (c *Channel[T]) readable() bool { return c.held() > 0 }
func (c *Channel[T]) writable() bool { return c.held() < len(c.slots) }

// Send returns when the value is in the channel, or taken if the capacity is 0; else its error says that it is not and will
// never be: ErrClosed, ErrCorrupt or the context's.
func (c *Channel[T]) Send(ctx context.Context, value T) error {
	w := waiter{ctx: ctx, bell: &c.state.senders}
	position, done, err := c.put(&value)
	for !done && err == nil {
		if err = w.next(); err == nil {
			position, done, err = c.put(&value)
		}
	}
	w.leave(c.writable)
	if err == nil && c.capacity == 0 {
		err = c.meet(ctx, position)
	}
	return wrap("send", c.object(err), err)
}

// TrySend sends if that is possible now; false and no error if not. On a channel of capacity 0 that means a receiver waits:
// it offers the value for as long as a receiver takes to wake up, 1 ms at most.
func (c *Channel[T]) TrySend(value T) (bool, error) {
	sent, err := c.offer(&value)
	return sent, wrap("send", c.object(err), err)
}

func (c *Channel[T]) offer(value *T) (bool, error) {
	if c.capacity > 0 {
		_, done, err := c.put(value)
		return done, err
	}
	patience := spinBudget()
	if atomic.LoadUint32(&c.state.receivers)&bellAwaited != 0 {
		patience = time.Millisecond
	}
	if patience == 0 {
		return false, nil
	}
	position, done, err := c.put(value)
	if !done || err != nil {
		return false, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	err = c.meet(ctx, position)
	if ctx.Err() != nil && err == ctx.Err() { //nolint:errorlint // meet returns the context's error as it is
		return false, nil
	}
	return err == nil, err
}

// Recv returns the oldest value. A channel that was closed gives what is left in it, and then ErrClosed.
func (c *Channel[T]) Recv(ctx context.Context) (value T, err error) {
	w := waiter{ctx: ctx, bell: &c.state.receivers}
	done, err := c.take(&value)
	for !done && err == nil {
		before := w.state
		if err = w.next(); err == nil {
			if c.capacity == 0 && w.state == announced && before != announced {
				ring(&c.state.senders, 1) // a Select or a later TrySend offers only to who waits
			}
			done, err = c.take(&value)
		}
	}
	w.leave(c.readable)
	return value, wrap("receive", c.object(err), err)
}

// TryRecv receives if there is a value; false and no error if there is none, or the oldest is still being written.
func (c *Channel[T]) TryRecv() (value T, ok bool, err error) {
	ok, err = c.take(&value)
	return value, ok, wrap("receive", c.object(err), err)
}

// Close lets no Send begin any more, for all processes; those that wait return ErrClosed. Receivers get what is there, then
// ErrClosed. To close twice is nothing.
func (c *Channel[T]) Close() {
	atomic.StoreUint32(&c.state.closed, 1)
	for _, bell := range []*uint32{&c.state.receivers, &c.state.senders, &c.state.offers} {
		ringAll(bell)
	}
}

// object costs nothing where there is no error.
func (c *Channel[T]) object(err error) string {
	if err == nil {
		return ""
	}
	return c.String()
}

func (c *Channel[T]) put(value *T) (position uint64, done bool, err error) {
	state := c.state
	for range maxTries {
		if atomic.LoadUint32(&state.closed) != 0 {
			return 0, false, ErrClosed
		}
		position = atomic.LoadUint64(&state.tail)
		if int(uint32(position)) >= len(c.slots) {
			return 0, false, ErrCorrupt
		}
		slot := &c.slots[uint32(position)]
		word, lap := atomic.LoadUint64(&slot.word), lapOf(position)
		switch ahead := int32(lapOf(word) - lap); {
		case ahead == 0 && stateOf(word) == slotFree:
			writing := slotWord(lap, slotWriting, c.segment.Self())
			if !atomic.CompareAndSwapUint64(&slot.word, word, writing) {
				continue
			}
			// Once more: a receiver that saw closed and a free slot has told its caller that nothing will come.
			if atomic.LoadUint32(&state.closed) != 0 {
				atomic.CompareAndSwapUint64(&slot.word, writing, slotWord(lap+1, slotFree, 0))
				c.freed()
				return 0, false, ErrClosed
			}
			slot.value = *value
			if !atomic.CompareAndSwapUint64(&slot.word, writing, slotWord(lap, slotFull, 0)) {
				return 0, false, ErrCorrupt
			}
			atomic.CompareAndSwapUint64(&state.tail, position, c.after(position))
			ring(&state.receivers, 1)
			return position, true, nil
		case ahead >= 0:
			atomic.CompareAndSwapUint64(&state.tail, position, c.after(position))
		case !c.mend(slot, word):
			return 0, false, nil
		}
	}
	return 0, false, nil
}

func (c *Channel[T]) take(value *T) (done bool, err error) {
	state := c.state
	closed := atomic.LoadUint32(&state.closed) != 0 // before the look at the slot: see put
	head := atomic.LoadUint64(&state.head)
	position := head
	for range min(2*len(c.slots), math.MaxInt32) + maxTries {
		if int(uint32(position)) >= len(c.slots) {
			return false, ErrCorrupt
		}
		slot := &c.slots[uint32(position)]
		word, lap := atomic.LoadUint64(&slot.word), lapOf(position)
		switch ahead := int32(lapOf(word) - lap); {
		case ahead > 0: // taken
			if position == head {
				head = c.after(head)
				atomic.CompareAndSwapUint64(&state.head, position, head)
			}
			position = c.after(position)
		case ahead < 0: // each slot is being read
			c.mend(slot, word)
			return false, nil
		case stateOf(word) == slotFree:
			if closed {
				return false, ErrClosed
			}
			return false, nil
		case stateOf(word) == slotFull:
			reading := slotWord(lap, slotReading, c.segment.Self())
			if !atomic.CompareAndSwapUint64(&slot.word, word, reading) {
				continue
			}
			*value = slot.value
			// The sender of a rendezvous may have withdrawn it.
			if !atomic.CompareAndSwapUint64(&slot.word, reading, slotWord(lap+1, slotFree, 0)) {
				continue
			}
			if position == head {
				atomic.CompareAndSwapUint64(&state.head, position, c.after(position))
			}
			if c.capacity == 0 {
				ring(&state.offers, everyone)
			}
			c.freed()
			return true, nil
		case stateOf(word) == slotWriting:
			// Not past it: a value behind it is younger.
			if !c.mend(slot, word) {
				return false, nil
			}
		case !c.mend(slot, word): // another reads it
			position = c.after(position)
		}
	}
	return false, nil
}

// freed follows the freeing of a slot. It may have been the last of a closed channel, for which receivers wait.
func (c *Channel[T]) freed() {
	ring(&c.state.senders, 1)
	if atomic.LoadUint32(&c.state.closed) != 0 {
		ringAll(&c.state.receivers)
	}
}

// mend frees a slot of what a dead owner was doing, and says whether the caller should look again.
func (c *Channel[T]) mend(slot *slot[T], word uint64) bool {
	state := stateOf(word)
	if state != slotWriting && state != slotReading || !c.dead(ownerOf(word)) {
		return false
	}
	next := slotWord(lapOf(word), slotFull, 0)
	if state == slotWriting {
		next = slotWord(lapOf(word)+1, slotFree, 0)
	}
	if atomic.CompareAndSwapUint64(&slot.word, word, next) {
		ring(&c.state.receivers, 1)
		c.freed()
	}
	return true
}

// meet waits until the value of a rendezvous was taken. If that is not to be, it is withdrawn, even from under a receiver's
// hands, whose last step fails then.
func (c *Channel[T]) meet(ctx context.Context, position uint64) error {
	slot, lap := &c.slots[uint32(position)], lapOf(position)
	w := waiter{ctx: ctx, bell: &c.state.offers}
	defer w.leave(nil)
	for {
		word := atomic.LoadUint64(&slot.word)
		if lapOf(word) != lap {
			return nil
		}
		c.mend(slot, word)
		err := w.next()
		if err == nil && atomic.LoadUint32(&c.state.closed) != 0 {
			err = ErrClosed
		}
		if err != nil {
			return c.withdraw(slot, lap, err)
		}
	}
}

func (c *Channel[T]) withdraw(slot *slot[T], lap uint32, why error) error {
	for range maxTries {
		word := atomic.LoadUint64(&slot.word)
		if lapOf(word) != lap {
			return nil
		}
		if atomic.CompareAndSwapUint64(&slot.word, word, slotWord(lap+1, slotFree, 0)) {
			c.freed()
			return why
		}
	}
	return ErrCorrupt
}
