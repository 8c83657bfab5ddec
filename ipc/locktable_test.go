package ipc

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

func newTable() *LockTable { return NewLockTable(LockLimits{PerOwner: 64, Queue: 64}) }

// queued starts a request and returns when it waits, with a channel for what becomes of it.
func queued(t *testing.T, o *LockOwner, name string, mode LockMode) <-chan error {
	t.Helper()
	return queuedCtx(t, t.Context(), o, name, mode)
}

func queuedCtx(t *testing.T, ctx context.Context, o *LockOwner, name string, mode LockMode) <-chan error {
	t.Helper()
	r, err := o.request(ctx, name, mode)
	if err != nil {
		t.Fatal(err)
	}
	select {
	case <-r.done:
		t.Fatalf("%s need not wait for %q", o.name, name)
	default:
	}
	result := make(chan error, 1)
	go func() { result <- r.wait(ctx) }()
	return result
}

func hold(t *testing.T, o *LockOwner, name string, mode LockMode) {
	t.Helper()
	if ok, err := o.TryLock(name, mode); err != nil || !ok {
		t.Fatalf("%s can't have %q: %v, %v", o.name, name, ok, err)
	}
}

func unlock(t *testing.T, o *LockOwner, name string) {
	t.Helper()
	if err := o.Unlock(name); err != nil {
		t.Fatal(err)
	}
}

// The two mutexes of the statement: each of two parties holds one and asks for the other's.
func TestTheorem_7_2_1_TwoLocksCrossedAreReportedNotHung(t *testing.T) {
	table := newTable()
	one, two := table.NewOwner("one"), table.NewOwner("two")
	hold(t, one, "first", Exclusive)
	hold(t, two, "second", Exclusive)
	waits := queued(t, one, "second", Exclusive)

	err := two.Lock(t.Context(), "first", Exclusive)
	var deadlock *DeadlockError
	if !errors.As(err, &deadlock) || !errors.Is(err, ErrDeadlock) {
		t.Fatalf("closing the cycle: %v", err)
	}
	want := fmt.Sprint([]LockWait{{"two", "first", Exclusive}, {"one", "second", Exclusive}})
	if got := fmt.Sprint(deadlock.Cycle); got != want {
		t.Errorf("cycle is %v, want %v", got, want)
	}
	for _, name := range []string{"one", "two", "first", "second"} {
		if !strings.Contains(err.Error(), `"`+name+`"`) {
			t.Errorf("%q is not named: %v", name, err)
		}
	}
	unlock(t, two, "second") // whoever was refused still has what it had
	if err := <-waits; err != nil {
		t.Errorf("the other party of the refused cycle: %v", err)
	}
}

func TestDeadlockOfMany(t *testing.T) {
	table := newTable()
	const n = 10
	var owners [n]*LockOwner
	for i := range owners {
		owners[i] = table.NewOwner(fmt.Sprint("owner", i))
		hold(t, owners[i], fmt.Sprint(i), Shared)
	}
	var waits []<-chan error
	for i := range n - 1 {
		waits = append(waits, queued(t, owners[i], fmt.Sprint(i+1), Exclusive))
	}
	var deadlock *DeadlockError
	if err := owners[n-1].Lock(t.Context(), "0", Exclusive); !errors.As(err, &deadlock) || len(deadlock.Cycle) != n {
		t.Fatalf("a cycle of %d: %v", n, err)
	}
	for i := n - 1; i > 0; i-- {
		owners[i].Release()
		if err := <-waits[i-1]; err != nil {
			t.Error(err)
		}
	}
}

// A cycle through a place in a queue: no lock of it is held by the one who is waited for.
func TestDeadlockThroughQueue(t *testing.T) {
	table := newTable()
	reader, writer, third := table.NewOwner("reader"), table.NewOwner("writer"), table.NewOwner("third")
	hold(t, reader, "data", Shared)
	hold(t, third, "log", Exclusive)
	queued(t, writer, "data", Exclusive)
	queued(t, reader, "log", Exclusive)
	// Behind the writer, who waits for the reader, who waits for the third.
	if err := third.Lock(t.Context(), "data", Shared); !errors.Is(err, ErrDeadlock) {
		t.Errorf("a reader behind a writer: %v", err)
	}
	writer.Release()
	if err := third.Lock(t.Context(), "data", Shared); err != nil {
		t.Errorf("without the writer there is no cycle: %v", err)
	}
	reader.Release()
}

func TestDeadlockOfOne(t *testing.T) {
	table := newTable()
	o, other := table.NewOwner("one"), table.NewOwner("other")
	for _, mode := range []LockMode{Shared, Exclusive} {
		hold(t, o, "a", mode)
		for _, again := range []LockMode{Shared, Exclusive} {
			if err := o.Lock(t.Context(), "a", again); !errors.Is(err, ErrDeadlock) {
				t.Errorf("%v after %v: %v", again, mode, err)
			}
			if ok, err := o.TryLock("a", again); ok || err != nil {
				t.Errorf("%v after %v, tried: %v, %v", again, mode, ok, err)
			}
		}
		unlock(t, o, "a")
	}
	hold(t, other, "a", Exclusive)
	queued(t, o, "a", Shared)
	if err := o.Lock(t.Context(), "a", Shared); !errors.Is(err, ErrDeadlock) {
		t.Errorf("a second request behind the first: %v", err)
	}
	other.Release()
	o.Release()
}

// Readers that come while a writer waits come after it.
func TestTheorem_8_2_1_LockServiceStarvesNobody(t *testing.T) {
	table := newTable()
	first, writer := table.NewOwner("first"), table.NewOwner("writer")
	readers := []*LockOwner{table.NewOwner("r1"), table.NewOwner("r2"), table.NewOwner("r3")}
	last := table.NewOwner("last")
	hold(t, first, "a", Shared)
	hold(t, readers[0], "a", Shared) // shared is shared while nobody waits
	unlock(t, readers[0], "a")
	writes := queued(t, writer, "a", Exclusive)
	var reads []<-chan error
	for _, r := range readers {
		reads = append(reads, queued(t, r, "a", Shared))
	}
	lastWrites := queued(t, last, "a", Exclusive)
	if ok, err := table.NewOwner("late").TryLock("a", Shared); ok || err != nil {
		t.Errorf("tried past the queue: %v, %v", ok, err)
	}

	unlock(t, first, "a")
	if err := <-writes; err != nil {
		t.Fatal(err)
	}
	for _, r := range readers {
		if len(r.Held()) != 0 {
			t.Errorf("%s reads while the writer holds", r.name)
		}
	}
	unlock(t, writer, "a")
	for i, r := range readers { // together, before the last writer
		if err := <-reads[i]; err != nil || len(r.Held()) != 1 {
			t.Errorf("%s: %v", r.name, err)
		}
	}
	for _, r := range readers {
		if len(last.Held()) != 0 {
			t.Error("the last writer came in among readers")
		}
		r.Release()
	}
	if err := <-lastWrites; err != nil {
		t.Error(err)
	}
	last.Release()
	if len(table.locks) != 0 {
		t.Errorf("%d names are left", len(table.locks))
	}
}

func TestLockCancelled(t *testing.T) {
	table := newTable()
	holder, writer, reader := table.NewOwner("holder"), table.NewOwner("writer"), table.NewOwner("reader")
	hold(t, holder, "a", Shared)
	ctx, cancel := context.WithCancelCause(t.Context())
	writes := queuedCtx(t, ctx, writer, "a", Exclusive)
	reads := queued(t, reader, "a", Shared)
	cause := errors.New("the cause")
	cancel(cause)
	if err := <-writes; !errors.Is(err, cause) {
		t.Errorf("cancelled: %v", err)
	}
	if err := <-reads; err != nil { // it waited for the writer alone
		t.Error(err)
	}
	if err := writer.Lock(ctx, "b", Exclusive); !errors.Is(err, cause) || len(writer.Held()) != 0 {
		t.Errorf("cancelled before: %v, holds %v", err, writer.Held())
	}
}

func TestRelease(t *testing.T) {
	table := newTable()
	dead, heir, behind, other := table.NewOwner("dead"), table.NewOwner("heir"), table.NewOwner("behind"), table.NewOwner("other")
	hold(t, dead, "a", Exclusive)
	hold(t, other, "b", Shared)
	inherits := queued(t, heir, "a", Exclusive)
	waits := queued(t, dead, "b", Exclusive)
	follows := queued(t, behind, "b", Shared)
	dead.Release()
	dead.Release()
	if err := <-waits; !errors.Is(err, ErrReleased) {
		t.Errorf("a request of the dead: %v", err)
	}
	for _, c := range []<-chan error{inherits, follows} {
		if err := <-c; err != nil {
			t.Error(err)
		}
	}
	if err := dead.Lock(t.Context(), "c", Shared); !errors.Is(err, ErrReleased) {
		t.Errorf("after its release: %v", err)
	}
	if _, err := dead.TryLock("c", Shared); !errors.Is(err, ErrReleased) {
		t.Errorf("tried after its release: %v", err)
	}
}

func TestUnlockNotHeld(t *testing.T) {
	table := newTable()
	o, other := table.NewOwner("one"), table.NewOwner("other")
	hold(t, other, "a", Exclusive)
	queued(t, o, "a", Exclusive)
	for _, name := range []string{"a", "b"} {
		if err := o.Unlock(name); !errors.Is(err, ErrNotHeld) {
			t.Errorf("unlock %q: %v", name, err)
		}
	}
	if ok, err := table.NewOwner("third").TryLock("a", Shared); ok || err != nil {
		t.Errorf("another's unlock opened it: %v, %v", ok, err)
	}
	other.Release()
	o.Release()
}

func TestLockLimits(t *testing.T) {
	table := NewLockTable(LockLimits{PerOwner: 2, Queue: 1})
	greedy, other, late := table.NewOwner("greedy"), table.NewOwner("other"), table.NewOwner("late")
	hold(t, greedy, "a", Exclusive)
	hold(t, other, "b", Exclusive)
	queued(t, greedy, "b", Exclusive) // what waits counts too
	if err := greedy.Lock(t.Context(), "c", Shared); !errors.Is(err, ErrLimit) {
		t.Errorf("a third lock: %v", err)
	}
	if _, err := greedy.TryLock("c", Shared); !errors.Is(err, ErrLimit) {
		t.Errorf("a third lock, tried: %v", err)
	}
	if err := late.Lock(t.Context(), "b", Shared); !errors.Is(err, ErrLimit) {
		t.Errorf("a second in the queue: %v", err)
	}
	if err := late.Lock(t.Context(), "c", LockMode(9)); err == nil || errors.Is(err, ErrLimit) {
		t.Errorf("no mode: %v", err)
	}
	greedy.Release()
	other.Release()
	if len(table.locks) != 0 {
		t.Errorf("%d names are left", len(table.locks))
	}
}

// Random parties lock, give up and die. Nobody is let in beside a writer, everybody gets an answer, nothing is left.
func TestTheorem_4_1_1_LockServiceExcludes(t *testing.T) {
	table := NewLockTable(LockLimits{PerOwner: 8, Queue: 64})
	names := []string{"a", "b", "c", "d"}
	var inside [4]struct{ readers, writers atomic.Int32 }
	var deadlocks, granted atomic.Int32
	var parties sync.WaitGroup
	for i := range 12 {
		parties.Go(func() {
			random := rand.New(rand.NewPCG(1, uint64(i)))
			o := table.NewOwner(fmt.Sprint(i))
			defer func() { o.Release() }()
			held := map[int]LockMode{}
			leave := func(n int) {
				if held[n] == Exclusive {
					inside[n].writers.Add(-1)
				} else {
					inside[n].readers.Add(-1)
				}
				delete(held, n)
			}
			for range 2000 {
				n := random.IntN(len(names))
				switch _, has := held[n]; {
				case random.IntN(50) == 0: // it dies, another takes its place
					for n := range held {
						leave(n)
					}
					o.Release()
					o = table.NewOwner(fmt.Sprint(i))
				case has:
					leave(n)
					if err := o.Unlock(names[n]); err != nil {
						t.Error(err)
					}
				default:
					ctx, cancel := context.WithCancel(t.Context())
					if random.IntN(4) == 0 {
						go cancel()
					}
					mode := Shared + LockMode(random.IntN(2))
					err := o.Lock(ctx, names[n], mode)
					cancel()
					switch {
					case errors.Is(err, ErrDeadlock):
						deadlocks.Add(1)
					case err == nil:
						granted.Add(1)
						held[n] = mode
						readers, writers := inside[n].readers.Load(), inside[n].writers.Load()
						if mode == Exclusive {
							writers = inside[n].writers.Add(1)
						} else {
							inside[n].readers.Add(1)
						}
						if writers > 1 || writers == 1 && (mode == Shared || readers > 0) {
							t.Errorf("%v with %d readers and %d writers inside", mode, readers, writers)
						}
					case !errors.Is(err, context.Canceled):
						t.Error(err)
					}
				}
			}
			for n := range held {
				leave(n)
			}
		})
	}
	parties.Wait()
	if len(table.locks) != 0 {
		t.Errorf("%d names are left", len(table.locks))
	}
	if deadlocks.Load() == 0 || granted.Load() == 0 {
		t.Errorf("%d granted, %d deadlocks: this shows nothing", granted.Load(), deadlocks.Load())
	}
}
