package ipc

import (
	"sync"
	"time"
)

// bucket bounds a rate: it holds what may be used at once, a second's worth, and fills at that rate.
type bucket struct {
	rate float64 // a second

	mu   sync.Mutex
	left float64 // may be less than 0
	last time.Time
}

func newBucket(rate int, now time.Time) *bucket {
	return &bucket{rate: float64(rate), left: float64(rate), last: now}
}

func (b *bucket) fill(now time.Time) {
	if d := now.Sub(b.last); d > 0 {
		b.left = min(b.rate, b.left+b.rate*d.Seconds())
		b.last = now
	}
}

// reserve takes n and returns how long to wait before it may be used.
func (b *bucket) reserve(n int, now time.Time) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.fill(now)
	b.left -= float64(n)
	if b.left >= 0 {
		return 0
	}
	return time.Duration(-b.left / b.rate * float64(time.Second))
}

// take takes n if that is there.
func (b *bucket) take(n int, now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.fill(now)
	if b.left < float64(n) {
		return false
	}
	b.left -= float64(n)
	return true
}
