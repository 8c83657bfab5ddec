package cgroup

import "github.com/opencontainers/runtime-spec/specs-go"

func pidsSettings(version int, r *specs.LinuxResources) ([]Setting, error) {
	if r.Pids == nil || r.Pids.Limit == nil {
		return nil, nil
	}
	// The kernel writes "max" here on v1 too. 0 is a limit: no process of the jail may fork.
	value, err := limit(2, "pids.limit", *r.Pids.Limit, 0)
	return []Setting{{"pids", "pids.max", value}}, err
}

func (c *Cgroup) pidsUsage(u *Usage) error {
	return c.fill([]count{{&u.PidsHit, "pids", "pids.events", "max"}})
}
