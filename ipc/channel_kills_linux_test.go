//go:build amd64 || arm64

package ipc

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"
)

// journal is what the processes of a test with kills write down, each word for one message.
type journal struct {
	Next, Read uint64 // messages begun, and read in the end
	Stop       uint32 // senders end
	Faults     uint32
	Fault      [4]uint64
	Sent       [journalSize]uint32 // Send had returned
	Got        [journalSize]uint32 // how often Recv had returned with it
}

const journalSize = 1 << 23

func (j *journal) fault(values ...uint64) {
	if atomic.AddUint32(&j.Faults, 1) == 1 {
		copy(j.Fault[:], values)
	}
}

// next is a new message's number, 0 for the end. It slows a sender down when the journal would be full before the test ends.
func (j *journal) next() uint64 {
	for atomic.LoadUint32(&j.Stop) == 0 {
		if atomic.LoadUint64(&j.Next) < journalSize-100 {
			return atomic.AddUint64(&j.Next, 1)
		}
		time.Sleep(time.Millisecond)
	}
	return 0
}

func (j *journal) check(t *testing.T, lost, doubled int, doing string) {
	t.Helper()
	if n := atomic.LoadUint32(&j.Faults); n > 0 {
		t.Errorf("%s: %d faults, the first %d", doing, n, j.Fault)
	}
	missing, twice := 0, 0
	for id := range j.Sent {
		if atomic.LoadUint32(&j.Sent[id]) == 1 && atomic.LoadUint32(&j.Got[id]) == 0 {
			missing++
		}
		if atomic.LoadUint32(&j.Got[id]) > 1 {
			twice++
		}
	}
	// Who is killed between the end of Recv and its entry has received a message that nobody has written down.
	if missing > lost || twice > doubled {
		t.Errorf("%s: of %d messages %d are lost, %d doubled; %d receivers were killed", doing, j.Next, missing, twice, lost)
	}
}

// marked is a message: its number and its sender's, and a body that shows whether it is whole.
type marked struct {
	Sender uint64
	Body   wide
}

const channelAt = (int(unsafe.Sizeof(journal{})) + 63) &^ 63

func killedChannel(s *Segment, capacity int) (*journal, *Channel[marked]) {
	return must(At[journal](s, 0)), must(NewChannel[marked](s, channelAt, capacity))
}

func init() {
	helpers["channel-sender"] = func(s *Segment, capacity int) {
		j, c := killedChannel(s, capacity)
		for id := j.next(); id != 0; id = j.next() {
			if c.Send(context.Background(), marked{uint64(s.Self()), newWide(id)}) != nil {
				return
			}
			atomic.StoreUint32(&j.Sent[id], 1)
		}
	}
	helpers["channel-receiver"] = func(s *Segment, capacity int) {
		j, c := killedChannel(s, capacity)
		receiveAll(j, c, false)
	}
	helpers["ring-producer"] = func(s *Segment, size int) {
		j, r := must(At[journal](s, 0)), must(NewRing(s, channelAt, size))
		p := must(r.Producer())
		for id := j.next(); id != 0; id = j.next() {
			loan := must(p.Loan(context.Background(), 16+int(id%200)))
			for i := range loan {
				loan[i] = byte(id)
			}
			binary.NativeEndian.PutUint64(loan, id)
			if p.Publish(len(loan)) != nil {
				return
			}
			atomic.StoreUint32(&j.Sent[id], 1)
		}
	}
	helpers["ring-consumer"] = func(s *Segment, size int) {
		j, r := must(At[journal](s, 0)), must(NewRing(s, channelAt, size))
		c := must(r.Consumer())
		for last := uint64(0); ; {
			message, err := c.Take(context.Background())
			if err != nil {
				return
			}
			id := binary.NativeEndian.Uint64(message)
			if id <= last || id >= journalSize || len(message) != 16+int(id%200) {
				j.fault(id, last, uint64(len(message)))
			} else {
				for _, b := range message[8:] {
					if b != byte(id) {
						j.fault(id, uint64(b))
					}
				}
				atomic.AddUint32(&j.Got[id], 1)
				last = id
			}
			c.Release()
		}
	}
	helpers["broadcast-producer"] = func(s *Segment, capacity int) {
		j := must(At[journal](s, 0))
		p := must(must(NewBroadcast[wide](s, channelAt, capacity)).Producer())
		for id := j.next(); id != 0; id = j.next() {
			p.Send(newWide(id))
		}
	}
}

// receiveAll checks order too where it is the only receiver.
func receiveAll(j *journal, c *Channel[marked], alone bool) {
	last := map[uint64]uint64{}
	for {
		v, err := c.Recv(context.Background())
		if err != nil {
			return
		}
		id := v.Body[0]
		if id == 0 || id >= journalSize || !v.Body.whole() {
			j.fault(id)
			continue
		}
		atomic.AddUint32(&j.Got[id], 1)
		if alone && id <= last[v.Sender] {
			j.fault(id, last[v.Sender], v.Sender)
		}
		last[v.Sender] = id
	}
}

// kills per case; in the long run 4,800 over the eight cases.
func killsPerCase() int {
	if sweeping {
		return 600
	}
	return 14
}

// massacre kills one of the processes after the other, at random moments, and starts another in its place.
func massacre(t *testing.T, s *Segment, number int, names ...string) (killed map[string]int) {
	killed = map[string]int{}
	processes := make([]*exec.Cmd, len(names))
	for i, name := range names {
		processes[i] = startHelper(t, s, name, number)
	}
	for range killsPerCase() {
		time.Sleep(time.Duration(rand.Int64N(int64(15 * time.Millisecond))))
		victim := rand.IntN(len(names))
		kill(t, processes[victim])
		killed[names[victim]]++
		processes[victim] = startHelper(t, s, names[victim], number)
	}
	for i, process := range processes {
		kill(t, process)
		killed[names[i]]++
	}
	return killed
}

func TestTheorem_5_1_1_NothingIsLostOrDoubledWhenPeersAreKilled(t *testing.T) {
	for _, capacity := range []int{0, 1, 3, 64} {
		t.Run(fmt.Sprintf("senders, capacity %d", capacity), func(t *testing.T) {
			s := newSegment(t, channelAt+ChannelSize[marked](capacity))
			j, c := killedChannel(s, capacity)
			var wg sync.WaitGroup
			wg.Go(func() { receiveAll(j, c, true) })
			massacre(t, s, capacity, "channel-sender", "channel-sender")
			c.Close()
			wg.Wait()
			j.check(t, 0, 0, "senders are killed")
			t.Logf("%d messages", j.Next)
		})
	}
	for _, capacity := range []int{0, 3} {
		t.Run(fmt.Sprintf("both, capacity %d", capacity), func(t *testing.T) {
			s := newSegment(t, channelAt+ChannelSize[marked](capacity))
			j, c := killedChannel(s, capacity)
			killed := massacre(t, s, capacity, "channel-sender", "channel-receiver", "channel-sender", "channel-receiver")
			c.Close()
			receiveAll(j, c, false)
			j.check(t, killed["channel-receiver"], 0, "senders and receivers are killed")
			t.Logf("%d messages", j.Next)
		})
	}
}

func TestRingSurvivesKills(t *testing.T) {
	const size = 4096
	s := newSegment(t, channelAt+RingSize(size))
	j, r := must(At[journal](s, 0)), must(NewRing(s, channelAt, size))
	killed := massacre(t, s, size, "ring-producer", "ring-consumer")
	r.Close()
	helpers["ring-consumer"](s, size)
	// A message that was taken and not released comes again.
	j.check(t, 0, killed["ring-consumer"], "producers and consumers are killed")
	t.Logf("%d messages", j.Next)
}

func TestBroadcastSurvivesKills(t *testing.T) {
	const capacity = 8
	s := newSegment(t, channelAt+BroadcastSize[wide](capacity))
	b := must(NewBroadcast[wide](s, channelAt, capacity))
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for range 2 {
		r := b.Reader()
		wg.Go(func() {
			for last := uint64(0); ; {
				v, _, err := r.Recv(ctx)
				if errors.Is(err, context.Canceled) {
					return
				}
				if err != nil || !v.whole() || v[0] <= last {
					t.Errorf("%v: %v behind %d", err, v[:2], last)
					return
				}
				last = v[0]
			}
		})
	}
	massacre(t, s, capacity, "broadcast-producer")
	cancel()
	wg.Wait()
}

// TestHostileWords writes random bytes into all of the shared memory while this side works. Values may be anything then; what
// must hold is that nothing panics and that each call keeps to its deadline.
func TestHostileWords(t *testing.T) {
	const capacity, ringSize = 4, 512
	at := func(n int) int { return (n + 63) &^ 63 }
	channelEnd := at(ChannelSize[wide](capacity))
	zeroEnd := channelEnd + at(ChannelSize[int64](0))
	ringEnd := zeroEnd + at(RingSize(ringSize))
	s := newSegment(t, ringEnd+BroadcastSize[wide](capacity))
	c := must(NewChannel[wide](s, 0, capacity))
	zero := must(NewChannel[int64](s, channelEnd, 0))
	r := must(NewRing(s, zeroEnd, ringSize))
	b := must(NewBroadcast[wide](s, ringEnd, capacity))
	p, consumer := must(r.Producer()), must(r.Consumer())
	bp, br := must(b.Producer()), b.Reader()

	words := must(Slice[uint64](peer(t, s), 0, s.Size()/8))
	var stop atomic.Bool
	var wg sync.WaitGroup
	wg.Go(func() {
		for n := 0; !stop.Load(); n++ {
			word := &words[rand.IntN(len(words))]
			switch old := atomic.LoadUint64(word); rand.IntN(4) {
			case 0:
				atomic.StoreUint64(word, rand.Uint64())
			case 1:
				atomic.StoreUint64(word, rand.Uint64N(16))
			case 2:
				atomic.StoreUint64(word, old^1<<rand.IntN(64))
			case 3:
				atomic.StoreUint64(word, 0)
			}
			if n%64 == 0 {
				time.Sleep(time.Microsecond)
			}
		}
	})
	duration := 300 * time.Millisecond
	if sweeping {
		duration = 20 * time.Second
	}
	end := time.Now().Add(duration)
	work := func(calls ...func(ctx context.Context)) {
		wg.Go(func() {
			for time.Now().Before(end) {
				for i, call := range calls {
					ctx, cancel := context.WithTimeout(t.Context(), 2*time.Millisecond)
					start := time.Now()
					call(ctx)
					if late := time.Since(start); late > patience/2 {
						t.Errorf("call %d took %v", i, late)
					}
					cancel()
				}
			}
		})
	}
	work(func(ctx context.Context) { c.Send(ctx, wide{}) }, func(context.Context) { c.TrySend(wide{}); c.Len() })
	work(func(ctx context.Context) { c.Recv(ctx) }, func(context.Context) { c.TryRecv() })
	work(func(ctx context.Context) { zero.Send(ctx, 1) }, func(context.Context) { zero.TrySend(1) })
	work(func(ctx context.Context) { zero.Recv(ctx) }, func(ctx context.Context) {
		var v int64
		var w wide
		Select(ctx, zero.RecvCase(&v), c.RecvCase(&w), c.SendCase(w), zero.SendCase(2))
	})
	work(func(ctx context.Context) { p.Send(ctx, make([]byte, 100)) }, func(context.Context) { p.TryLoan(30); p.Publish(20) })
	work(func(ctx context.Context) { consumer.Recv(ctx, nil) }, func(context.Context) { consumer.TryTake(); consumer.Release() })
	work(func(context.Context) { bp.Send(wide{}) })
	work(func(ctx context.Context) { br.Recv(ctx) }, func(context.Context) { br.TryRecv() })
	time.AfterFunc(duration, func() { stop.Store(true) })
	wg.Wait()
}
