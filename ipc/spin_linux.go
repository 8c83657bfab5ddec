//go:build amd64 || arm64

package ipc

import (
	"bytes"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// spinBudget is how long spin spins: what it costs to wake a sleeping thread on another CPU, 5 to 100 µs, or 0 where this
// process has one CPU at most. It is found at the first wait that needs it, in a few milliseconds.
var spinBudget = sync.OnceValue(func() time.Duration {
	if cpus() < 2 {
		return 0
	}
	return wakeCost()
})

// cpus is how many CPUs this process can use at a time, by its affinity, its Ps and the quotas of its cgroups as far as
// they can be seen: a jail may hide them.
func cpus() int {
	n := runtime.GOMAXPROCS(0)
	var set unix.CPUSet
	if unix.SchedGetaffinity(0, &set) == nil {
		n = min(n, set.Count())
	}
	groups, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return n
	}
	for line := range strings.Lines(string(groups)) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) != 3 || parts[1] != "" && !slices.Contains(strings.Split(parts[1], ","), "cpu") {
			continue
		}
		for folder := filepath.Join("/sys/fs/cgroup", parts[1], parts[2]); strings.HasPrefix(folder, "/sys/fs/cgroup"); folder = filepath.Dir(folder) {
			n = min(n, quota(folder))
		}
	}
	return n
}

// quota is a cgroup's limit in whole CPUs, rounded up; a great number if it has none.
func quota(folder string) int {
	const unlimited = 1 << 20
	both, _ := os.ReadFile(filepath.Join(folder, "cpu.max")) // v2: "150000 100000" or "max 100000"
	if len(both) == 0 {
		time, _ := os.ReadFile(filepath.Join(folder, "cpu.cfs_quota_us"))
		period, _ := os.ReadFile(filepath.Join(folder, "cpu.cfs_period_us"))
		both = slices.Concat(time, []byte(" "), period)
	}
	fields := bytes.Fields(both)
	if len(fields) != 2 {
		return unlimited
	}
	time, err1 := strconv.Atoi(string(fields[0]))
	period, err2 := strconv.Atoi(string(fields[1]))
	if err1 != nil || err2 != nil || time <= 0 || period <= 0 {
		return unlimited
	}
	return (time + period - 1) / period
}

// wakeCost measures half of a round trip between two threads on two CPUs that sleep in between: the median of some,
// bounded, because a busy machine measures its load. On one CPU it would be a tenth.
func wakeCost() time.Duration {
	const rounds = 15
	word := new(uint32)
	turn := func(mine uint32) {
		for atomic.LoadUint32(word) != mine {
			futexWait(word, mine^1, 10*time.Millisecond)
		}
	}
	give := func(other uint32) {
		atomic.StoreUint32(word, other)
		futexWake(word, 1)
	}
	var allowed unix.CPUSet
	_ = unix.SchedGetaffinity(0, &allowed) // if not, cpus has said so
	var group sync.WaitGroup
	group.Go(func() {
		onCPU(nth(&allowed, 0), func() {
			for range rounds {
				turn(1)
				give(0)
			}
		})
	})
	costs := make([]time.Duration, 0, rounds)
	onCPU(nth(&allowed, 1), func() {
		for range rounds {
			start := time.Now()
			give(1)
			turn(0)
			costs = append(costs, time.Since(start)/2)
		}
	})
	group.Wait()
	slices.Sort(costs)
	return min(max(costs[rounds/2], 5*time.Microsecond), 100*time.Microsecond)
}

// nth is the number of the nth CPU of a set.
func nth(set *unix.CPUSet, n int) int {
	cpu := 0
	for ; cpu < 64*len(set); cpu++ {
		if set.IsSet(cpu) {
			if n == 0 {
				break
			}
			n--
		}
	}
	return cpu
}

// onCPU runs f on one CPU, or anywhere if that is refused.
func onCPU(cpu int, f func()) {
	runtime.LockOSThread() //nolint:forbidigo // a CPU is chosen for a thread, which lives on and gets its own back
	defer runtime.UnlockOSThread()
	var before, one unix.CPUSet
	one.Set(cpu)
	if unix.SchedGetaffinity(0, &before) == nil && unix.SchedSetaffinity(0, &one) == nil {
		defer func() { _ = unix.SchedSetaffinity(0, &before) }()
	}
	f()
}
