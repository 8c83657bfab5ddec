package cgroup

import (
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
)

func cpuSettings(version int, r *specs.LinuxResources) ([]Setting, error) {
	c := r.CPU
	if c == nil {
		return nil, nil
	}
	if c.RealtimeRuntime != nil || c.RealtimePeriod != nil {
		return nil, unsupported("cpu.realtimeRuntime and cpu.realtimePeriod")
	}
	var s []Setting
	add := func(file, value string) { s = append(s, Setting{"cpu", file, value}) }
	if c.Shares != nil && *c.Shares != 0 {
		if version == 2 {
			add("cpu.weight", strconv.FormatUint(weight(*c.Shares), 10))
		} else {
			add("cpu.shares", strconv.FormatUint(*c.Shares, 10))
		}
	}
	period := uint64(defaultPeriod)
	if c.Period != nil && *c.Period != 0 {
		period = *c.Period
		if period < 1000 || period > 1000000 {
			return nil, invalid("cpu.period", fmt.Sprintf("%d is not from 1000 to 1000000 µs", period))
		}
	}
	quota := "max"
	if c.Quota != nil {
		value, err := limit(version, "cpu.quota", *c.Quota, 1000)
		if err != nil {
			return nil, err
		}
		quota = value
	}
	switch {
	case c.Quota == nil && period == defaultPeriod:
	case version == 2:
		add("cpu.max", quota+" "+strconv.FormatUint(period, 10))
	default:
		add("cpu.cfs_period_us", strconv.FormatUint(period, 10)) // first: the kernel compares the quota with it
		if c.Quota != nil {
			add("cpu.cfs_quota_us", quota)
		}
	}
	if c.Burst != nil {
		file := "cpu.max.burst"
		if version == 1 {
			file = "cpu.cfs_burst_us"
		}
		add(file, strconv.FormatUint(*c.Burst, 10)) // last: the kernel compares it with the quota
	}
	if c.Idle != nil {
		if *c.Idle != 0 && *c.Idle != 1 {
			return nil, invalid("cpu.idle", "it is neither 0 nor 1")
		}
		add("cpu.idle", strconv.FormatInt(*c.Idle, 10))
	}
	return s, nil
}

// defaultPeriod is the kernel's, in µs.
const defaultPeriod = 100000

// weight converts shares (2 to 262144) to a weight (1 to 10000). A straight line between the ends would make 39 of the
// shares' default 1024; this curve, which the OCI runtimes have agreed on, makes 100, the weight's default.
func weight(shares uint64) uint64 {
	switch {
	case shares <= 2:
		return 1
	case shares >= 262144:
		return 10000
	}
	l := math.Log2(float64(shares))
	return uint64(math.Ceil(math.Pow(10, (l*l+125*l)/612-7.0/34)))
}

// CPU returns the time that all processes of the jail have run, dead ones too; -1 where v1 does not count it (the cgroup
// was made without the controller cpu). It reads one file, which stays open.
func (c *Cgroup) CPU() (time.Duration, error) {
	if c.version == 2 {
		n, err := c.counter("cpu", "cpu.stat", "usage_usec")
		return time.Duration(n) * time.Microsecond, err
	}
	n, err := c.counter("cpuacct", "cpuacct.usage", "")
	return time.Duration(n), err
}

func (c *Cgroup) cpuUsage(u *Usage) error {
	n := [3]int64{-1, -1, -1}
	unit := time.Nanosecond
	counts := []count{
		{&n[0], "cpuacct", "cpuacct.usage", ""},
		{&n[1], "cpuacct", "cpuacct.usage_user", ""},
		{&n[2], "cpuacct", "cpuacct.usage_sys", ""},
	}
	if c.version == 2 {
		unit = time.Microsecond
		counts = []count{
			{&n[0], "cpu", "cpu.stat", "usage_usec"},
			{&n[1], "cpu", "cpu.stat", "user_usec"},
			{&n[2], "cpu", "cpu.stat", "system_usec"},
		}
	}
	err := c.fill(counts)
	for i, d := range []*time.Duration{&u.CPU, &u.User, &u.System} {
		if n[i] >= 0 {
			*d = time.Duration(n[i]) * unit
		}
	}
	return err
}
