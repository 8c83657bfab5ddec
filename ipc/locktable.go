package ipc

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
)

var (
	// ErrLimit is a request beyond a quota.
	ErrLimit = errors.New("limit reached")
	// ErrReleased is a request of a [LockOwner] that has been released.
	ErrReleased = errors.New("lock owner is released")
)

// LockMode says whom a lock keeps out.
type LockMode uint8

const (
	Shared    LockMode = iota + 1 // keeps out Exclusive
	Exclusive                     // keeps out everybody
)

func (m LockMode) String() string {
	switch m {
	case Shared:
		return "shared"
	case Exclusive:
		return "exclusive"
	}
	return fmt.Sprintf("LockMode(%d)", uint8(m))
}

func (m LockMode) valid() bool { return m == Shared || m == Exclusive }

func (m LockMode) conflicts(with LockMode) bool { return m == Exclusive || with == Exclusive }

// LockTable holds named locks, of which each belongs to one or more parties ([LockOwner]) in other processes. It is what
// a broker serves; it does no I/O itself. A name needs no declaration: it is in the table while somebody holds it or
// waits for it.
//
// Order is first in, first out: a request waits behind every earlier one for the same name, so neither readers nor
// writers starve. Readers that follow each other in the queue get the lock together.
//
// A request that would close a cycle of waiting parties is refused with [ErrDeadlock] at once; the others of the cycle
// are not disturbed. So a cycle never exists.
//
// A LockTable is safe for concurrent use. Unlock or Release happens before the return of a Lock that it made possible.
type LockTable struct {
	limits LockLimits

	mu    sync.Mutex
	locks map[string]*namedLock
}

// LockLimits bound what parties can make a LockTable hold. Looking for a cycle takes at worst the square of the number
// of requests that wait, so both should be thousands at most.
type LockLimits struct {
	PerOwner int // locks that an owner holds or waits for
	Queue    int // requests that wait for one lock
}

// LockOwner is a party of a [LockTable], for example a connection: it holds locks, and they go with it. To the table it
// is one party, whatever goes on inside: a second request for a lock that it holds or waits for is a deadlock of one.
type LockOwner struct {
	table *LockTable
	name  string

	// Guarded by table.mu.
	released bool
	held     map[*namedLock]LockMode
	waiting  []*lockRequest
}

type namedLock struct {
	name    string
	holders map[*LockOwner]LockMode
	queue   []*lockRequest // oldest first
}

type lockRequest struct {
	owner *LockOwner
	lock  *namedLock
	mode  LockMode

	done chan struct{} // closed when the request is no longer in the queue
	err  error         // set before that; nil if the lock is held now
}

// LockWait is one party of a deadlock and the lock that it waits for.
type LockWait struct {
	Owner string
	Lock  string
	Mode  LockMode
}

// DeadlockError is the cycle that a request would have closed: Cycle[0] is that request. Each party waits for a lock
// which the next one holds, or waits for at an earlier place; the last waits for the first. An [Error] wraps it.
type DeadlockError struct {
	Cycle []LockWait
}

func (e *DeadlockError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%v: ", ErrDeadlock)
	for i, w := range e.Cycle {
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "%q waits for %q behind %q", w.Owner, w.Lock, e.Cycle[(i+1)%len(e.Cycle)].Owner)
	}
	return b.String()
}

func (e *DeadlockError) Unwrap() error { return ErrDeadlock }

// NewLockTable returns an empty table. The limits must be positive.
func NewLockTable(limits LockLimits) *LockTable {
	return &LockTable{limits: limits, locks: map[string]*namedLock{}}
}

// NewOwner returns a party that holds nothing. The name stands in errors that others see; two parties may have the same.
func (t *LockTable) NewOwner(name string) *LockOwner {
	return &LockOwner{table: t, name: name, held: map[*namedLock]LockMode{}}
}

// Lock waits until o holds the lock of that name. If ctx is done first, or is done already, o does not hold it and the
// error wraps that of ctx. Other errors wrap [ErrDeadlock], [ErrLimit] or [ErrReleased].
func (o *LockOwner) Lock(ctx context.Context, name string, mode LockMode) error {
	r, err := o.request(ctx, name, mode)
	if err != nil {
		return err
	}
	return r.wait(ctx)
}

func (r *lockRequest) wait(ctx context.Context) error {
	select {
	case <-r.done:
		return r.err
	case <-ctx.Done():
	}
	t := r.owner.table
	t.mu.Lock()
	defer t.mu.Unlock()
	select {
	case <-r.done: // granted in the meantime, and who has the lock is told so
		return r.err
	default:
	}
	t.leave(r, lockError(r.lock.name, context.Cause(ctx)))
	t.grant(r.lock)
	return r.err
}

// TryLock takes the lock of that name if nobody holds it in a mode that conflicts and nobody waits for it, and says
// whether it did. Errors wrap [ErrLimit] or [ErrReleased].
func (o *LockOwner) TryLock(name string, mode LockMode) (bool, error) {
	t := o.table
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := o.admit(name, mode); err != nil {
		return false, err
	}
	l := t.lookup(name)
	if _, twice := o.held[l]; twice || !l.free(mode) {
		return false, nil
	}
	t.give(l, o, mode)
	return true, nil
}

// Unlock gives the lock back, and to those who are next. It does not withdraw a request that waits: that is the business
// of the context of Lock. The error wraps [ErrNotHeld].
func (o *LockOwner) Unlock(name string) error {
	t := o.table
	t.mu.Lock()
	defer t.mu.Unlock()
	l := t.locks[name]
	if l == nil || l.holders[o] == 0 {
		return wrap("unlock", strconv.Quote(name), ErrNotHeld)
	}
	t.take(l, o)
	return nil
}

// Held returns the names of the locks that o holds, sorted.
func (o *LockOwner) Held() []string {
	o.table.mu.Lock()
	defer o.table.mu.Unlock()
	var names []string
	for l := range o.held {
		names = append(names, l.name)
	}
	slices.Sort(names)
	return names
}

// Release is for the owner's death: it gives back all that o holds, and its requests that wait, and those that come
// later, end with [ErrReleased]. It may be called more than once.
func (o *LockOwner) Release() {
	t := o.table
	t.mu.Lock()
	defer t.mu.Unlock()
	o.released = true
	for len(o.waiting) > 0 {
		r := o.waiting[0]
		t.leave(r, lockError(r.lock.name, ErrReleased))
		t.grant(r.lock)
	}
	for l := range o.held {
		t.take(l, o)
	}
}

func (o *LockOwner) request(ctx context.Context, name string, mode LockMode) (*lockRequest, error) {
	t := o.table
	t.mu.Lock()
	defer t.mu.Unlock()
	if ctx.Err() != nil {
		return nil, lockError(name, context.Cause(ctx))
	}
	if err := o.admit(name, mode); err != nil {
		return nil, err
	}
	l := t.lookup(name)
	r := &lockRequest{owner: o, lock: l, mode: mode, done: make(chan struct{})}
	_, twice := o.held[l]
	if !twice && l.free(mode) {
		t.give(l, o, mode)
		close(r.done)
		return r, nil
	}
	if len(l.queue) >= t.limits.Queue {
		return nil, lockError(name, fmt.Errorf("%d requests wait for it: %w", len(l.queue), ErrLimit))
	}
	// Only a request that begins to wait can close a cycle: what it waits for is fixed from then on but for what goes.
	l.queue = append(l.queue, r)
	o.waiting = append(o.waiting, r)
	if cycle := r.cycle(); cycle != nil {
		t.leave(r, lockError(name, &DeadlockError{Cycle: cycle}))
		return nil, r.err
	}
	return r, nil
}

// admit says why o may not ask.
func (o *LockOwner) admit(name string, mode LockMode) error {
	switch {
	case !mode.valid():
		return lockError(name, fmt.Errorf("%v is no mode", mode))
	case o.released:
		return lockError(name, ErrReleased)
	case len(o.held)+len(o.waiting) >= o.table.limits.PerOwner:
		return lockError(name, fmt.Errorf("%q has %d locks: %w", o.name, len(o.held)+len(o.waiting), ErrLimit))
	}
	return nil
}

func lockError(name string, err error) error { return wrap("lock", strconv.Quote(name), err) }

// lookup returns the lock of that name, which gets into the table when it is given to somebody or waited for: the
// callers do so, or leave what they got.
func (t *LockTable) lookup(name string) *namedLock {
	if l := t.locks[name]; l != nil {
		return l
	}
	return &namedLock{name: name, holders: map[*LockOwner]LockMode{}}
}

// free says whether a new request need not wait.
func (l *namedLock) free(mode LockMode) bool { return len(l.queue) == 0 && l.compatible(mode) }

func (l *namedLock) compatible(mode LockMode) bool {
	for _, held := range l.holders {
		if mode.conflicts(held) {
			return false
		}
	}
	return true
}

func (t *LockTable) give(l *namedLock, o *LockOwner, mode LockMode) {
	t.locks[l.name] = l
	l.holders[o] = mode
	o.held[l] = mode
}

// take takes l from its holder o.
func (t *LockTable) take(l *namedLock, o *LockOwner) {
	delete(l.holders, o)
	delete(o.held, l)
	t.grant(l)
}

// leave takes r out of the queue.
func (t *LockTable) leave(r *lockRequest, err error) {
	remove := func(s []*lockRequest) []*lockRequest {
		return slices.DeleteFunc(s, func(q *lockRequest) bool { return q == r })
	}
	r.lock.queue = remove(r.lock.queue)
	r.owner.waiting = remove(r.owner.waiting)
	r.err = err
	close(r.done)
}

// grant gives l to the first of the queue for as long as that is possible.
func (t *LockTable) grant(l *namedLock) {
	for len(l.queue) > 0 && l.compatible(l.queue[0].mode) {
		r := l.queue[0]
		t.leave(r, nil)
		t.give(l, r.owner, r.mode)
	}
	if len(l.queue) == 0 && len(l.holders) == 0 {
		delete(t.locks, l.name)
	}
}

// cycle returns a cycle through r of the graph in which an owner points to those who keep one of its requests waiting.
func (r *lockRequest) cycle() []LockWait {
	seen := map[*LockOwner]bool{}
	var reach func(r *lockRequest, to *LockOwner) []LockWait
	reach = func(r *lockRequest, to *LockOwner) []LockWait {
		here := []LockWait{{Owner: r.owner.name, Lock: r.lock.name, Mode: r.mode}}
		for next := range r.waitsFor {
			if next == to {
				return here
			}
			if seen[next] {
				continue
			}
			seen[next] = true
			for _, further := range next.waiting {
				if rest := reach(further, to); rest != nil {
					return append(here, rest...)
				}
			}
		}
		return nil
	}
	return reach(r, r.owner)
}

// waitsFor yields the owners that have to let go of the lock before r can have it: who holds it, and who gets it
// earlier, in a mode that conflicts.
func (r *lockRequest) waitsFor(yield func(*LockOwner) bool) {
	for holder, held := range r.lock.holders {
		// The same owner twice would wait for itself, whatever the modes: there is one entry for an owner and a lock.
		if (holder == r.owner || r.mode.conflicts(held)) && !yield(holder) {
			return
		}
	}
	for _, earlier := range r.lock.queue {
		if earlier == r {
			return
		}
		if (earlier.owner == r.owner || r.mode.conflicts(earlier.mode)) && !yield(earlier.owner) {
			return
		}
	}
}
