package main

import (
	"fmt"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// limited measures what a cgroup adds to a start: whole processes in pairs, one at each level.
func (b *bench) limited(a account) {
	kinds := make([]kind, 2)
	for i, level := range []string{"namespaced", "limited"} {
		k := kind{name: "jail run --level=" + level, args: []string{b.program("jail"), "run", "--level=" + level, "--", "/bin/true"}}
		if out, err := b.try(a, k.args); err != nil {
			b.add(figure{Part: "limited", User: a.name, Name: k.name, Peer: "namespaced", Problem: fmt.Sprintf("%v: %s", err, out)})
			return
		}
		kinds[i] = k
	}
	b.pairs(a, kinds, "", b.runs, 0)
	// Where the kernel attaches a process to a cgroup of v1, it waits for an RCU grace period, but not when one was attached
	// just before: only starts that are apart from each other show whether a start has to wait.
	if !unifiedCgroups() {
		b.pairs(a, kinds, ", a second apart", max(b.runs/8, 1), time.Second)
	}
}

// pairs measures n pairs, with a pause before each start.
func (b *bench) pairs(a account, kinds []kind, suffix string, n int, pause time.Duration) {
	const part, peer = "limited", "namespaced"
	var times [2][]float64
	var difference []float64
	for i := range n {
		var pair [2]float64
		for j := range kinds {
			k := (i + j) % len(kinds)
			time.Sleep(pause)
			var err error
			if pair[k], err = b.took(a, kinds[k].args); err != nil {
				b.add(figure{Part: part, User: a.name, Name: kinds[k].name + suffix, Peer: peer, Problem: err.Error()})
				return
			}
			times[k] = append(times[k], pair[k])
		}
		difference = append(difference, pair[1]-pair[0])
	}
	namespaced, limited := sample(part, a, kinds[0].name+suffix, times[0]), sample(part, a, kinds[1].name+suffix, times[1])
	more := figure{Part: part, User: a.name, Name: "the difference, pair by pair" + suffix, Value: median(difference), Unit: "ms"}
	limited.Ratio = limited.Value / namespaced.Value
	if unifiedCgroups() {
		more.Goal = 0.5
	}
	for _, f := range []figure{namespaced, limited, more} {
		f.Peer = peer
		b.add(f)
	}
}

// took runs a command once and returns the milliseconds.
func (b *bench) took(a account, args []string) (float64, error) {
	c := command(args[0], args[1:]...)
	c.Dir, c.Env = b.work, environment(a)
	if a.uid != os.Getuid() {
		c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(a.uid), Gid: uint32(a.uid)}}
	}
	begin := time.Now()
	err := c.Run()
	return float64(time.Since(begin).Microseconds()) / 1000, err
}

// unifiedCgroups reports whether the machine has cgroup v2 alone.
func unifiedCgroups() bool {
	var fs unix.Statfs_t
	return unix.Statfs("/sys/fs/cgroup", &fs) == nil && fs.Type == unix.CGROUP2_SUPER_MAGIC
}
