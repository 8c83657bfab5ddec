package cgroup

import (
	"os"
	"strconv"

	"github.com/opencontainers/runtime-spec/specs-go"
)

func memorySettings(version int, r *specs.LinuxResources) ([]Setting, error) {
	m := r.Memory
	if m == nil {
		return nil, nil
	}
	switch {
	case m.Kernel != nil: //nolint:staticcheck // deprecated, and so refused
		return nil, unsupported("memory.kernel") // gone since Linux 5.16
	case m.KernelTCP != nil:
		return nil, unsupported("memory.kernelTCP")
	case m.DisableOOMKiller != nil && *m.DisableOOMKiller:
		return nil, unsupported("memory.disableOOMKiller") // the jail would hang at its limit
	case m.UseHierarchy != nil && !*m.UseHierarchy:
		return nil, unsupported("memory.useHierarchy false") // gone since Linux 5.11
	case m.Swappiness != nil && version != 1:
		return nil, onlyOn(1, "memory.swappiness")
	case m.Swappiness != nil && *m.Swappiness > 100:
		return nil, invalid("memory.swappiness", "it is not from 0 to 100")
	case m.Swap != nil && m.Limit == nil:
		return nil, invalid("memory.swap", "it is the sum of memory and swap: memory.limit has to be given too")
	}
	var s []Setting
	add := func(file, value string) { s = append(s, Setting{"memory", file, value}) }
	if m.Limit != nil {
		value, err := limit(version, "memory.limit", *m.Limit, 1)
		if err != nil {
			return nil, err
		}
		if version == 2 {
			add("memory.max", value)
			// At the limit all of the jail dies, not its largest process alone: the rest would wait for it for ever.
			add("memory.oom.group", "1")
		} else {
			add("memory.limit_in_bytes", value)
		}
	}
	if m.Swap != nil {
		value, err := swap(version, *m.Limit, *m.Swap)
		if err != nil {
			return nil, err
		}
		if version == 2 {
			add("memory.swap.max", value)
		} else {
			add("memory.memsw.limit_in_bytes", value) // may not be below the limit: after it
		}
	}
	if m.Reservation != nil {
		value, err := limit(version, "memory.reservation", *m.Reservation, 0)
		if err != nil {
			return nil, err
		}
		if version == 2 {
			add("memory.low", value)
		} else {
			add("memory.soft_limit_in_bytes", value)
		}
	}
	if m.Swappiness != nil {
		add("memory.swappiness", strconv.FormatUint(*m.Swappiness, 10))
	}
	return s, nil
}

// swap converts OCI's sum of memory and swap; v2 limits swap alone.
func swap(version int, memory, sum int64) (string, error) {
	value, err := limit(version, "memory.swap", sum, 1)
	switch {
	case err != nil || sum == -1:
		return value, err
	case memory == -1:
		return "", invalid("memory.swap", "it is the sum of memory and swap, and memory.limit is unlimited")
	case sum < memory:
		return "", invalid("memory.swap", "it is the sum of memory and swap, and below memory.limit")
	case version == 2:
		return strconv.FormatInt(sum-memory, 10), nil
	}
	return value, nil
}

func (c *Cgroup) memoryUsage(u *Usage) error {
	if c.version == 1 {
		err := c.fill([]count{
			{&u.PeakMemory, "memory", "memory.max_usage_in_bytes", ""},
			{&u.OOMKills, "memory", "memory.oom_control", "oom_kill"},
		})
		if err == nil && u.OOMKills > 0 {
			u.MemoryHit, err = c.atLimit(u.PeakMemory)
		}
		return err
	}
	var oom int64 // counted where the limit is, while oom_kill is counted where the process was
	err := c.fill([]count{
		{&u.PeakMemory, "memory", "memory.peak", ""},
		// With those of cgroups in the jail: at the jail's limit processes there die too.
		{&u.OOMKills, "memory", "memory.events", "oom_kill"},
		{&oom, "memory", "memory.events.local", "oom"},
	})
	u.MemoryHit = oom > 0 && u.OOMKills > 0
	return err
}

// atLimit says whether a v1 cgroup has been full. v1 does not count for which limit a kill was: memory.failcnt counts
// page cache as well, and memory.memsw.failcnt stays 0 since Linux 6.15.
func (c *Cgroup) atLimit(peak int64) (bool, error) {
	var limit, peakWithSwap, limitWithSwap int64
	err := c.fill([]count{
		{&limit, "memory", "memory.limit_in_bytes", ""},
		{&peakWithSwap, "memory", "memory.memsw.max_usage_in_bytes", ""}, // not there without swap accounting
		{&limitWithSwap, "memory", "memory.memsw.limit_in_bytes", ""},
	})
	// The kernel charges 64 pages at once where it can, and the peak is inexact by what two processors add at a time.
	room := 128 * int64(os.Getpagesize())
	return peak >= limit-room || limitWithSwap >= 0 && peakWithSwap >= limitWithSwap-room, err
}
