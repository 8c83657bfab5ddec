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

// Broadcast carries values of T, a type without pointers, from one producer to any number of readers: each reader gets each
// value once and in order, or is told how many it has missed. The producer never waits: a reader that is slow, stopped or
// hostile holds nobody up, and loses what is more than capacity behind. Whoever can't lose anything uses a [Channel] for
// each reader, which holds the sender up.
//
// Readers may have the segment read-only ([OpenReadOnly]); then no reader can disturb the others. As they can't announce
// that they sleep, they look every millisecond. What the producer did before Send, a reader sees after Recv.
//
// A producer that dies in Send leaves the whole value or nothing; another takes the role. A Send costs some 10 ns and 5 for
// each 8 bytes, a Recv less.
type Broadcast[T any] struct {
	lives
	state  *broadcastState
	slots  []uint64 // capacity × stride
	stride uint64   // a slot's words: its number, the value
}

// broadcastState is, as zeros, a broadcast that has sent nothing.
type broadcastState struct {
	shape    uint64
	producer uint32 // Owner
	closed   uint32
	sent     uint32 // bell
	_        [44]byte
	count    uint64 // values sent; a hint for readers who come late
	_        [56]byte
}

// Value k, from 1, lies in slot k modulo capacity. The slot's first word is 2k when the value is whole and 2k-1 while it is
// written. A reader that finds the same 2k before and behind its copy has it whole; all words are read and written
// atomically, so that these can't be reordered.

// BroadcastSize is how many bytes a broadcast takes in its segment.
func BroadcastSize[T any](capacity int) int {
	return int(unsafe.Sizeof(broadcastState{})) + 8*max(capacity, 1)*int(broadcastStride[T]())
}

func broadcastStride[T any]() uint64 {
	var zero T
	return 1 + (uint64(unsafe.Sizeof(zero))+7)/8
}

// NewBroadcast gives the broadcast at an offset of the segment, a multiple of 64: each process calls it with the same
// arguments. The memory must be zero at first and have room for [BroadcastSize] bytes.
func NewBroadcast[T any](s *Segment, offset, capacity int) (*Broadcast[T], error) {
	if err := CheckType[T](); err != nil {
		return nil, err
	}
	b := &Broadcast[T]{lives: lives{segment: s}, stride: broadcastStride[T]()}
	if capacity < 1 || capacity > math.MaxInt32 || offset%64 != 0 || b.stride > math.MaxUint32 {
		return nil, wrap("make", b.String(), fmt.Errorf("capacity %d at offset %d: %w", capacity, offset, syscall.EINVAL))
	}
	var err error
	if b.state, err = At[broadcastState](s, offset); err != nil {
		return nil, err
	}
	if b.slots, err = Slice[uint64](s, offset+int(unsafe.Sizeof(*b.state)), capacity*int(b.stride)); err != nil {
		return nil, err
	}
	shape := uint64(capacity)<<32 | b.stride
	if found := atomic.LoadUint64(&b.state.shape); found != shape && (found != 0 ||
		b.writable() && !atomic.CompareAndSwapUint64(&b.state.shape, 0, shape) && atomic.LoadUint64(&b.state.shape) != shape) {
		return nil, wrap("make", b.String(), fmt.Errorf("it has another capacity or type: %w", ErrCorrupt))
	}
	return b, nil
}

// writable is false for a read-only attachment, which is nobody.
func (b *Broadcast[T]) writable() bool { return b.segment.Self() != 0 }

func (b *Broadcast[T]) String() string {
	return fmt.Sprintf("broadcast of %v in %v", reflect.TypeFor[T](), b.segment)
}

func (b *Broadcast[T]) capacity() uint64 { return uint64(len(b.slots)) / b.stride }

func (b *Broadcast[T]) slot(number uint64) []uint64 {
	i := number % b.capacity() * b.stride
	return b.slots[i : i+b.stride]
}

// BroadcastProducer sends. It is used by one goroutine at a time.
type BroadcastProducer[T any] struct {
	broadcast *Broadcast[T]
	count     uint64
	words     []uint64
}

// Producer takes the role: EBUSY while another attachment that lives has it, or this one; EPERM if the segment is read-only.
func (b *Broadcast[T]) Producer() (*BroadcastProducer[T], error) {
	if !b.writable() {
		return nil, wrap("produce", b.String(), syscall.EPERM)
	}
	if err := b.claim(&b.state.producer); err != nil {
		return nil, wrap("produce", b.String(), err)
	}
	p := &BroadcastProducer[T]{broadcast: b, count: atomic.LoadUint64(&b.state.count), words: make([]uint64, b.stride-1)}
	// The one before may have died when the value was whole and not counted.
	if atomic.LoadUint64(&b.slot(p.count + 1)[0]) == 2*(p.count+1) {
		p.count++
		atomic.StoreUint64(&b.state.count, p.count)
	}
	return p, nil
}

// Send never waits. After [BroadcastProducer.Close] it must not be called.
func (p *BroadcastProducer[T]) Send(value T) {
	b := p.broadcast
	toWords(p.words, &value)
	p.count++
	slot := b.slot(p.count)
	atomic.StoreUint64(&slot[0], 2*p.count-1)
	for i, word := range p.words {
		atomic.StoreUint64(&slot[1+i], word)
	}
	atomic.StoreUint64(&slot[0], 2*p.count)
	atomic.StoreUint64(&b.state.count, p.count)
	ring(&b.state.sent, everyone)
}

// Close ends the broadcast: readers get what is there and then ErrClosed.
func (p *BroadcastProducer[T]) Close() {
	atomic.StoreUint32(&p.broadcast.state.closed, 1)
	ringAll(&p.broadcast.state.sent)
	atomic.CompareAndSwapUint32(&p.broadcast.state.producer, uint32(p.broadcast.segment.Self()), 0)
}

// BroadcastReader receives. It is used by one goroutine at a time.
type BroadcastReader[T any] struct {
	broadcast *Broadcast[T]
	next      uint64
	words     []uint64
}

// Reader begins with what is sent from now on.
func (b *Broadcast[T]) Reader() *BroadcastReader[T] {
	return &BroadcastReader[T]{broadcast: b, next: atomic.LoadUint64(&b.state.count) + 1, words: make([]uint64, b.stride-1)}
}

// Recv returns the next value, and how many before it were overwritten before this reader came to them.
func (r *BroadcastReader[T]) Recv(ctx context.Context) (value T, missed uint64, err error) {
	b := r.broadcast
	ok, missed, err := r.take(&value)
	if ok || err != nil {
		return value, missed, b.wrap(err)
	}
	if !b.writable() {
		for pause := time.Duration(0); !ok && err == nil; pause = firstLook {
			if err = ctx.Err(); err == nil {
				futexWait(&b.state.sent, atomic.LoadUint32(&b.state.sent), untilDeadline(ctx, pause))
				ok, missed, err = r.take(&value)
			}
		}
		return value, missed, b.wrap(err)
	}
	w := waiter{ctx: ctx, bell: &b.state.sent}
	for !ok && err == nil {
		if err = w.next(); err == nil {
			ok, missed, err = r.take(&value)
		}
	}
	w.leave(nil)
	return value, missed, b.wrap(err)
}

// TryRecv is Recv without a wait: ok is false if there is nothing now.
func (r *BroadcastReader[T]) TryRecv() (value T, missed uint64, ok bool, err error) {
	ok, missed, err = r.take(&value)
	return value, missed, ok, r.broadcast.wrap(err)
}

func (b *Broadcast[T]) wrap(err error) error {
	if err == nil {
		return nil
	}
	return wrap("receive", b.String(), err)
}

// take counts what was overwritten when it finds a value: r.next stays where it was until then.
func (r *BroadcastReader[T]) take(value *T) (ok bool, missed uint64, err error) {
	b := r.broadcast
	next := r.next
	for range maxTries {
		closed := atomic.LoadUint32(&b.state.closed) != 0
		slot := b.slot(next)
		number := atomic.LoadUint64(&slot[0])
		if number < 2*next {
			if closed {
				return false, 0, ErrClosed
			}
			return false, 0, nil
		}
		if number == 2*next {
			for i := range r.words {
				r.words[i] = atomic.LoadUint64(&slot[1+i])
			}
			if atomic.LoadUint64(&slot[0]) == number {
				fromWords(value, r.words)
				missed = next - r.next
				r.next = next + 1
				return true, missed, nil
			}
			continue
		}
		// Overwritten by value (number+1)/2 of this slot: the oldest that may be whole is capacity-1 before it.
		oldest := (number+1)/2 - b.capacity() + 1
		if oldest <= next || (number+1)/2 < b.capacity() {
			return false, 0, ErrCorrupt
		}
		next = oldest
	}
	return false, 0, nil
}
