//go:build amd64 || arm64

package ipc

import (
	"context"
	"fmt"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// How two processes wait for each other. On one CPU nothing spins; across CPUs a wake-up of an idle one costs most.
const (
	sameCore = iota
	crossCore
	spinningCores
)

var placements = map[int]string{sameCore: "same core", crossCore: "cross core", spinningCores: "spinning"}

// settle puts the calling thread on its CPU (the helper on 0) and fixes how long it spins.
func settle(placement int, helper bool) {
	var cpus unix.CPUSet
	cpus.Set(0)
	if placement != sameCore && !helper {
		cpus.Zero()
		cpus.Set(1)
	}
	runtime.LockOSThread()
	if err := unix.SchedSetaffinity(0, &cpus); err != nil {
		panic(err)
	}
	budget := time.Duration(0)
	if placement == spinningCores {
		budget = time.Second
	}
	spinBudget = func() time.Duration { return budget }
}

type echoArena struct {
	Ready, Ping, Pong uint32
}

const echoAt = 64

func echoChannels(s *Segment) (there, back *Channel[[8]uint64]) {
	return must(NewChannel[[8]uint64](s, echoAt, 16)), must(NewChannel[[8]uint64](s, echoAt+ChannelSize[[8]uint64](16), 16))
}

func init() {
	helpers["echo"] = func(s *Segment, placement int) {
		settle(placement, true)
		a := must(At[echoArena](s, 0))
		there, back := echoChannels(s)
		atomic.StoreUint32(&a.Ready, 1)
		for {
			v, err := there.Recv(context.Background())
			if err != nil || back.Send(context.Background(), v) != nil {
				return
			}
		}
	}
	helpers["futex-echo"] = func(s *Segment, placement int) {
		settle(placement, true)
		a := must(At[echoArena](s, 0))
		atomic.StoreUint32(&a.Ready, 1)
		for n := uint32(1); ; n++ {
			await(&a.Ping, n, placement)
			atomic.StoreUint32(&a.Pong, n)
			answer(&a.Pong, placement)
		}
	}
	helpers["ring-drain"] = func(s *Segment, size int) {
		settle(spinningCores, true)
		c := must(must(NewRing(s, echoAt, size)).Consumer())
		atomic.StoreUint32(&must(At[echoArena](s, 0)).Ready, 1)
		var buffer [64]byte
		for {
			message, err := c.Take(context.Background())
			if err != nil {
				return
			}
			copy(buffer[:], message)
			c.Release()
		}
	}
	helpers["channel-drain"] = func(s *Segment, placement int) {
		settle(placement, true)
		c := must(NewChannel[[8]uint64](s, echoAt, 1024))
		atomic.StoreUint32(&must(At[echoArena](s, 0)).Ready, 1)
		for {
			if _, err := c.Recv(context.Background()); err != nil {
				return
			}
		}
	}
}

// await and answer are the floor: a word that changes, and its futex.
func await(word *uint32, want uint32, placement int) {
	for {
		old := atomic.LoadUint32(word)
		if old == want {
			return
		}
		if placement != spinningCores {
			futexWait(word, old, time.Second)
		}
	}
}

func answer(word *uint32, placement int) {
	if placement != spinningCores {
		futexWake(word, 1)
	}
}

func benchmarkWith(b *testing.B, helper string, number, placement int, f func(b *testing.B, s *Segment, a *echoArena)) {
	if cpus() < 2 {
		b.Skip("host lacks: a second CPU")
	}
	before := spinBudget
	defer func() { spinBudget = before }()
	s := newSegment(b, 1<<20)
	a := place[echoArena](b, s, 0)
	process := startHelper(b, s, helper, number)
	defer kill(b, process)
	eventually(b, helper+" is ready", isSet(&a.Ready))
	done := make(chan struct{})
	go func() { // its thread ends with it, and the affinity
		defer close(done)
		settle(placement, false)
		f(b, s, a)
	}()
	<-done
}

func BenchmarkRoundTrip(b *testing.B) {
	for placement, name := range placements {
		b.Run("futex/"+name, func(b *testing.B) {
			benchmarkWith(b, "futex-echo", placement, placement, func(b *testing.B, _ *Segment, a *echoArena) {
				n := uint32(0)
				for b.Loop() {
					n++
					atomic.StoreUint32(&a.Ping, n)
					answer(&a.Ping, placement)
					await(&a.Pong, n, placement)
				}
			})
		})
		b.Run("channel/"+name, func(b *testing.B) {
			benchmarkWith(b, "echo", placement, placement, func(b *testing.B, s *Segment, _ *echoArena) {
				there, back := echoChannels(s)
				var v [8]uint64
				for b.Loop() {
					if err := there.Send(context.Background(), v); err != nil {
						b.Error(err)
						return
					}
					if _, err := back.Recv(context.Background()); err != nil {
						b.Error(err)
						return
					}
				}
			})
		})
	}
}

func BenchmarkChannelThroughput(b *testing.B) {
	benchmarkWith(b, "channel-drain", spinningCores, spinningCores, func(b *testing.B, s *Segment, _ *echoArena) {
		c := must(NewChannel[[8]uint64](s, echoAt, 1024))
		var v [8]uint64
		for b.Loop() {
			if err := c.Send(context.Background(), v); err != nil {
				b.Error(err)
				return
			}
		}
	})
}

func BenchmarkRingThroughput(b *testing.B) {
	const size = 1 << 16
	benchmarkWith(b, "ring-drain", size, spinningCores, func(b *testing.B, s *Segment, _ *echoArena) {
		p := must(must(NewRing(s, echoAt, size)).Producer())
		var message [64]byte
		b.SetBytes(64)
		for b.Loop() {
			loan, err := p.Loan(context.Background(), 64)
			if err != nil {
				b.Error(err)
				return
			}
			copy(loan, message[:])
			if err := p.Publish(64); err != nil {
				b.Error(err)
				return
			}
		}
	})
}

// BenchmarkRingLoan is a Loan, Publish, Take and Release whose bytes nobody touches.
func BenchmarkRingLoan(b *testing.B) {
	for _, n := range []int{64, 4 << 10, 64 << 10, 1 << 20} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			p, c := ends(b, 4<<20)
			for b.Loop() {
				if _, err := p.TryLoan(n); err != nil {
					b.Fatal(err)
				}
				if err := p.Publish(n); err != nil {
					b.Fatal(err)
				}
				if _, err := c.TryTake(); err != nil {
					b.Fatal(err)
				}
				c.Release()
			}
		})
	}
}

func BenchmarkUncontended(b *testing.B) {
	a, peer := channels[[8]uint64](b, 16)
	b.Run("channel", func(b *testing.B) {
		for b.Loop() {
			a.TrySend([8]uint64{})
			peer.TryRecv()
		}
	})
	b.Run("select of 4", func(b *testing.B) {
		var v [8]uint64
		other, _ := channels[[8]uint64](b, 1)
		for b.Loop() {
			a.TrySend(v)
			if _, err := Select(context.Background(), peer.RecvCase(&v), other.RecvCase(&v), other.RecvCase(&v), other.RecvCase(&v)); err != nil {
				b.Fatal(err)
			}
		}
	})
	p, r := broadcasts[[8]uint64](b, 16)
	reader := r.Reader()
	b.Run("broadcast", func(b *testing.B) {
		for b.Loop() {
			p.Send([8]uint64{})
			reader.TryRecv()
		}
	})
}
