package main

import (
	"context"
	"os"

	"github.com/jailrun/jail/ipc"
)

// jail's own that carry messages: two of each, for requests and answers, in one segment.
func init() {
	peers["jail/channel"] = peer{openSegment, connectChannels[[64]byte], serveChannels[[64]byte]}
	peers["jail/channel-64k"] = peer{openSegment, connectChannels[[64 << 10]byte], serveChannels[[64 << 10]byte]}
	peers["jail/ring"] = peer{openSegment, connectRings, serveRings}
	peers["jail/ring-copy"] = peer{openSegment, connectRings, serveRings}
	alone["jail/one-ring"] = oneRing
}

const (
	half     = 32 << 20 // of the segment: where what is for answers begins
	capacity = 256      // messages of a channel
	ringSize = 1 << 20  // bytes
)

func openSegment(config) (*os.File, any, error) {
	s, err := ipc.Create("bench", 2*half)
	if err != nil {
		return nil, nil, err
	}
	theirs, err := s.Share()
	return theirs, s, err
}

func channels[T any](s *ipc.Segment) (requests, answers *ipc.Channel[T], err error) {
	if requests, err = ipc.NewChannel[T](s, 0, capacity); err == nil {
		answers, err = ipc.NewChannel[T](s, half, capacity)
	}
	return requests, answers, err
}

func connectChannels[T any](c config, ours any) (operation, error) {
	ctx := context.Background()
	requests, answers, err := channels[T](ours.(*ipc.Segment))
	var message T
	return repeat(func() error {
		if c.test != "stream" {
			if err := requests.Send(ctx, message); err != nil {
				return err
			}
		}
		_, err := answers.Recv(ctx)
		return err
	}), err
}

func serveChannels[T any](c config, f *os.File) error {
	s, err := ipc.Open(f)
	if err != nil {
		return err
	}
	ctx := context.Background()
	requests, answers, err := channels[T](s)
	var message T
	for err == nil {
		if c.test != "stream" {
			if message, err = requests.Recv(ctx); err != nil {
				break
			}
		}
		err = answers.Send(ctx, message)
	}
	return err
}

// ends are a process' of two rings. Its messages are copied in and out, or loaned, published and taken where they lie;
// their bytes are not touched then.
type ends struct {
	producer *ipc.Producer
	consumer *ipc.Consumer
	message  []byte
	copies   bool
}

// newEnds takes the roles; the rings lie at the offsets.
func newEnds(c config, s *ipc.Segment, out, in int) (*ends, error) {
	e := &ends{message: make([]byte, c.bytes), copies: c.peer == "jail/ring-copy"}
	ring, err := ipc.NewRing(s, out, ringSize)
	if err != nil {
		return nil, err
	}
	if e.producer, err = ring.Producer(); err != nil {
		return nil, err
	}
	if ring, err = ipc.NewRing(s, in, ringSize); err != nil {
		return nil, err
	}
	e.consumer, err = ring.Consumer()
	return e, err
}

func (e *ends) out(ctx context.Context) error {
	if e.copies {
		return e.producer.Send(ctx, e.message)
	}
	if _, err := e.producer.Loan(ctx, len(e.message)); err != nil {
		return err
	}
	return e.producer.Publish(len(e.message))
}

func (e *ends) in(ctx context.Context) (err error) {
	if e.copies {
		e.message, err = e.consumer.Recv(ctx, e.message[:0])
		return err
	}
	_, err = e.consumer.Take(ctx)
	e.consumer.Release()
	return err
}

func connectRings(c config, ours any) (operation, error) {
	ctx := context.Background()
	e, err := newEnds(c, ours.(*ipc.Segment), 0, half)
	return repeat(func() error {
		if c.test != "stream" {
			if err := e.out(ctx); err != nil {
				return err
			}
		}
		return e.in(ctx)
	}), err
}

func serveRings(c config, f *os.File) error {
	s, err := ipc.Open(f)
	if err != nil {
		return err
	}
	ctx := context.Background()
	e, err := newEnds(c, s, half, 0)
	for err == nil {
		if c.test != "stream" {
			if err = e.in(ctx); err != nil {
				break
			}
		}
		err = e.out(ctx)
	}
	return err
}

// oneRing has both ends in one process.
func oneRing(c config) (operation, error) {
	s, err := ipc.Create("bench", half)
	if err != nil {
		return nil, err
	}
	ctx := context.Background()
	e, err := newEnds(c, s, 0, 0)
	return repeat(func() error {
		if err := e.out(ctx); err != nil {
			return err
		}
		return e.in(ctx)
	}), err
}
