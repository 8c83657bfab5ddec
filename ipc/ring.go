package ipc

import (
	"context"
	"fmt"
	"math"
	"sync/atomic"
	"syscall"
	"unsafe"
)

// Ring carries messages of bytes, of any length, from one producer to one consumer, first in, first out, without a copy:
// the producer writes into the segment (Loan, Publish) and the consumer reads there (Take, Release). What the producer did
// before Publish, the consumer sees after Take; what the consumer did before Release, a producer sees after the Loan of
// the same bytes.
//
// The roles are taken by [Ring.Producer] and [Ring.Consumer]. Who dies makes room for the next: a loan that was not
// published is as if it had not been, a message that was taken and not released is there again. A ring that is full holds
// the producer up. 64 bytes take some 20 to 40 ns a message; a Loan and its Publish take as long whatever the size.
//
// The peer may write to the bytes of a message at any moment: copy what you check before you check it. Forged positions
// and lengths are ErrCorrupt.
type Ring struct {
	lives
	state *ringState
	bytes []byte
}

// ringState is, as zeros, an open and empty ring.
type ringState struct {
	size      uint64
	producer  uint32 // Owner
	consumer  uint32
	closed    uint32
	published uint32 // bell
	released  uint32 // bell
	_         [36]byte
	head      uint64 // bytes released since the beginning: the consumer's
	_         [56]byte
	tail      uint64 // bytes published: the producer's
	_         [56]byte
}

// A message lies behind 8 bytes that hold its length, at a multiple of 8, in one piece. Where the rest of the ring is too
// small for the next one, the length is skip.
const (
	ringHeader = 8
	ringSkip   = math.MaxUint64
)

func ringSpan(n int) int { return ringHeader + (n+7)&^7 }

// RingSize is how many bytes a ring takes in its segment.
func RingSize(size int) int { return int(unsafe.Sizeof(ringState{})) + size }

// NewRing gives the ring at an offset of the segment, a multiple of 64, with size bytes for messages and their lengths, a
// multiple of 8. Each process calls it with the same arguments. The memory must be zero at first and have room for
// [RingSize] bytes. Another size than the peer's is ErrCorrupt.
func NewRing(s *Segment, offset, size int) (*Ring, error) {
	r := &Ring{lives: lives{segment: s}}
	if size < 2*ringHeader || size%8 != 0 || offset%64 != 0 {
		return nil, wrap("make", r.String(), fmt.Errorf("%d bytes at offset %d: %w", size, offset, syscall.EINVAL))
	}
	var err error
	if r.state, err = At[ringState](s, offset); err != nil {
		return nil, err
	}
	if err := inSegment(s, r.state); err != nil {
		return nil, wrap("make", r.String(), err)
	}
	if r.bytes, err = Slice[byte](s, offset+int(unsafe.Sizeof(*r.state)), size); err != nil {
		return nil, err
	}
	if !atomic.CompareAndSwapUint64(&r.state.size, 0, uint64(size)) && atomic.LoadUint64(&r.state.size) != uint64(size) {
		return nil, wrap("make", r.String(), fmt.Errorf("it has another size: %w", ErrCorrupt))
	}
	return r, nil
}

func (r *Ring) String() string { return fmt.Sprintf("ring in %v", r.segment) }

// MaxMessage is the longest message that a Loan can be asked for: half of the ring, so that it fits wherever the ring stands.
func (r *Ring) MaxMessage() int { return len(r.bytes)/2&^7 - ringHeader }

// Close ends the ring for all: a Loan fails with ErrClosed, the consumer gets what was published and then ErrClosed.
func (r *Ring) Close() {
	atomic.StoreUint32(&r.state.closed, 1)
	ringAll(&r.state.published)
	ringAll(&r.state.released)
}

// claim takes a role that nobody who lives has.
func (l *lives) claim(role *uint32) error {
	old := atomic.LoadUint32(role)
	if old != 0 && !l.dead(Owner(old)) || !atomic.CompareAndSwapUint32(role, old, uint32(l.segment.Self())) {
		return fmt.Errorf("another has this role: %w", syscall.EBUSY)
	}
	return nil
}

// Producer is the end of a [Ring] that sends. It is used by one goroutine at a time, as Close is.
type Producer struct {
	ring       *Ring
	tail, head uint64 // ours, and what we know of the consumer's
	start      uint64 // where the loan's message begins: tail, or behind what is skipped
	loan       int    // -1: none
}

// Producer takes the role: EBUSY while another attachment that lives has it, or this one.
func (r *Ring) Producer() (*Producer, error) {
	if err := r.claim(&r.state.producer); err != nil {
		return nil, wrap("produce", r.String(), err)
	}
	p := &Producer{ring: r, tail: atomic.LoadUint64(&r.state.tail), head: atomic.LoadUint64(&r.state.head), loan: -1}
	if p.tail-p.head > uint64(len(r.bytes)) || p.tail%8 != 0 {
		return nil, wrap("produce", r.String(), ErrCorrupt)
	}
	return p, nil
}

// Close gives the role back; a loan is dropped.
func (p *Producer) Close() {
	atomic.CompareAndSwapUint32(&p.ring.state.producer, uint32(p.ring.segment.Self()), 0)
}

// Loan returns n bytes of the ring, 0 to MaxMessage (EINVAL), to be written and published. They hold what was there before.
// A second Loan takes the place of one that was not published.
func (p *Producer) Loan(ctx context.Context, n int) ([]byte, error) {
	message, err := p.tryLoan(n)
	if message == nil && err == nil {
		w := waiter{ctx: ctx, bell: &p.ring.state.released}
		for message == nil && err == nil {
			if err = w.next(); err == nil {
				message, err = p.tryLoan(n)
			}
		}
		w.leave(nil)
	}
	return message, p.ring.wrap("loan", err)
}

// TryLoan is [Producer.Loan] without a wait: nil and no error if there is no room now.
func (p *Producer) TryLoan(n int) ([]byte, error) {
	message, err := p.tryLoan(n)
	return message, p.ring.wrap("loan", err)
}

func (r *Ring) wrap(op string, err error) error {
	if err == nil {
		return nil
	}
	return wrap(op, r.String(), err)
}

func (p *Producer) tryLoan(n int) ([]byte, error) {
	r := p.ring
	p.loan = -1
	if n < 0 || n > r.MaxMessage() {
		return nil, fmt.Errorf("%d of at most %d bytes: %w", n, r.MaxMessage(), syscall.EINVAL)
	}
	if atomic.LoadUint32(&r.state.closed) != 0 {
		return nil, ErrClosed
	}
	size := uint64(len(r.bytes))
	at := p.tail % size
	need, skip := uint64(ringSpan(n)), uint64(0)
	if at+need > size {
		skip = size - at
	}
	if p.tail+skip+need-p.head > size {
		p.head = atomic.LoadUint64(&r.state.head)
		if p.tail-p.head > size {
			return nil, ErrCorrupt
		}
		if p.tail+skip+need-p.head > size {
			return nil, nil
		}
	}
	if skip > 0 {
		*r.length(at) = ringSkip // the consumer sees it with the next tail
		at = 0
	}
	p.start, p.loan = p.tail+skip, n
	return r.bytes[at+ringHeader : at+ringHeader+uint64(n) : at+ringHeader+uint64(n)], nil
}

// Publish sends the first n bytes of the loan: 0 to its length, else EINVAL, as without a loan.
func (p *Producer) Publish(n int) error {
	r := p.ring
	if n < 0 || n > p.loan {
		return r.wrap("publish", fmt.Errorf("%d bytes of a loan of %d: %w", n, p.loan, syscall.EINVAL))
	}
	*r.length(p.start % uint64(len(r.bytes))) = uint64(n)
	p.tail = p.start + uint64(ringSpan(n))
	p.loan = -1
	atomic.StoreUint64(&r.state.tail, p.tail)
	ring(&r.state.published, 1)
	return nil
}

// Send copies a message into the ring.
func (p *Producer) Send(ctx context.Context, message []byte) error {
	loan, err := p.Loan(ctx, len(message))
	if err != nil {
		return err
	}
	return p.Publish(copy(loan, message))
}

// Consumer is the end of a [Ring] that receives. It is used by one goroutine at a time, as Close is.
type Consumer struct {
	ring       *Ring
	head, tail uint64 // ours, and what we know of the producer's
	next       uint64 // behind what was taken; head if nothing is
}

// Consumer takes the role: EBUSY while another attachment that lives has it, or this one.
func (r *Ring) Consumer() (*Consumer, error) {
	if err := r.claim(&r.state.consumer); err != nil {
		return nil, wrap("consume", r.String(), err)
	}
	head := atomic.LoadUint64(&r.state.head)
	if head%8 != 0 {
		return nil, wrap("consume", r.String(), ErrCorrupt)
	}
	return &Consumer{ring: r, head: head, tail: head, next: head}, nil
}

// Close gives the role back; what was taken and not released is there again for the next consumer.
func (c *Consumer) Close() {
	atomic.CompareAndSwapUint32(&c.ring.state.consumer, uint32(c.ring.segment.Self()), 0)
}

// Take returns the oldest message where it lies, until Release. A second Take returns it again.
func (c *Consumer) Take(ctx context.Context) ([]byte, error) {
	message, err := c.tryTake()
	if message == nil && err == nil {
		w := waiter{ctx: ctx, bell: &c.ring.state.published}
		for message == nil && err == nil {
			if err = w.next(); err == nil {
				message, err = c.tryTake()
			}
		}
		w.leave(nil)
	}
	return message, c.ring.wrap("take", err)
}

// TryTake is [Consumer.Take] without a wait: nil and no error if there is no message now. An empty message is not nil.
func (c *Consumer) TryTake() ([]byte, error) {
	message, err := c.tryTake()
	return message, c.ring.wrap("take", err)
}

func (c *Consumer) tryTake() ([]byte, error) {
	r := c.ring
	size := uint64(len(r.bytes))
	if c.tail == c.head {
		closed := atomic.LoadUint32(&r.state.closed) != 0 // before the tail: what was published before Close is taken
		c.tail = atomic.LoadUint64(&r.state.tail)
		if c.tail == c.head {
			if closed {
				return nil, ErrClosed
			}
			return nil, nil
		}
		if c.tail-c.head > size || c.tail%8 != 0 {
			c.tail = c.head
			return nil, ErrCorrupt
		}
	}
	start := c.head
	length := atomic.LoadUint64(r.length(start % size))
	if length == ringSkip {
		start += size - start%size
		if start-c.head >= c.tail-c.head {
			return nil, ErrCorrupt
		}
		length = atomic.LoadUint64(r.length(start % size))
	}
	at := start % size
	if length > size || at+uint64(ringSpan(int(length))) > size || start-c.head+uint64(ringSpan(int(length))) > c.tail-c.head {
		return nil, ErrCorrupt
	}
	c.next = start + uint64(ringSpan(int(length)))
	return r.bytes[at+ringHeader : at+ringHeader+length : at+ringHeader+length], nil
}

// Release gives the bytes of the message that was taken back to the producer. Without one it does nothing.
func (c *Consumer) Release() {
	if c.next == c.head {
		return
	}
	c.head = c.next
	atomic.StoreUint64(&c.ring.state.head, c.head)
	ring(&c.ring.state.released, 1)
}

// Recv appends the oldest message to buffer and releases it.
func (c *Consumer) Recv(ctx context.Context, buffer []byte) ([]byte, error) {
	message, err := c.Take(ctx)
	if err != nil {
		return buffer, err
	}
	buffer = append(buffer, message...)
	c.Release()
	return buffer, nil
}
