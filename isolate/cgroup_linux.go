//go:build cgo && (amd64 || arm64)

package isolate

import (
	"errors"
	"fmt"
	"math"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/jailrun/jail/cgroup"
	"github.com/jailrun/jail/isolate/internal/jailinit"
)

// defaultPids bounds the tasks of a jail with a cgroup where nothing else was asked for: more than real programs have,
// and less than what makes a machine unusable.
const defaultPids = 1024

// controllersOfJail are those that a jail's cgroup always has: what they count is in the Result. Beside them it gets the
// controller cpu where that can be had, so that all of it weighs as one process does.
var controllersOfJail = []string{"memory", "pids"}

var wantedController = []string{"cpu"}

// cgroupSlot is where jail-init finds pids.max of its cgroup while it sets itself up. The launcher has opened it: in the
// jail's cgroup namespace a mount with nsdelegate, as systemd's, would refuse to write to it; see cgroups(7).
const cgroupSlot = netSlot + 1

// probeCgroup finds out where the jail's cgroup can be made.
func (h *Host) probeCgroup(s *Spec) {
	if !s.Cgroup {
		return
	}
	h.Cgroup, h.CgroupErr = cgroup.Find(s.CgroupParent, controllersOf(s.Linux.Resources), wantedController)
	h.CgroupName = randomName()
	h.CPUs = runtime.NumCPU()
}

// controllersOf are the controllers that a jail needs.
func controllersOf(r *specs.LinuxResources) []string {
	list := slices.Clone(controllersOfJail)
	if r == nil {
		return list
	}
	unified := func(controller string) bool {
		for file := range r.Unified {
			if strings.HasPrefix(file, controller+".") {
				return true
			}
		}
		return false
	}
	if cpu := r.CPU; unified("cpu") || cpu != nil && (cpu.Shares != nil || cpu.Quota != nil || cpu.Period != nil || cpu.Burst != nil ||
		cpu.RealtimeRuntime != nil || cpu.RealtimePeriod != nil || cpu.Idle != nil) {
		list = append(list, "cpu")
	}
	if r.CPU != nil && (r.CPU.Cpus != "" || r.CPU.Mems != "") || unified("cpuset") {
		list = append(list, "cpuset")
	}
	if r.BlockIO != nil || unified("io") {
		list = append(list, "io")
	}
	return list
}

// cgroup decides how the jail comes into its cgroup. An attach takes the kernel milliseconds. So in a place of cgroup v2
// that is there before the start, the jail is born in it, and on v1 jail-init enters by itself, as the first thing that it
// does. Else the launcher attaches jail-init while that one mounts.
func (c *compiler) cgroup() error {
	s, h := c.spec, c.host
	if !s.Cgroup {
		if field, value := s.firstResource(); field != "" {
			return &SpecError{Field: field, Value: value, Problem: "needs a cgroup, which this level does not have; level " + Limited.String() + " does"}
		}
		return nil
	}
	if h.Cgroup == nil {
		return &UnsupportedError{
			Level: s.Level, Missing: fmt.Sprint(h.CgroupErr),
			Cause: Cause{LayerCgroup, "", "the caller needs a cgroup that is delegated to it, and a /sys/fs/cgroup to see it in"},
		}
	}
	resources, err := c.resources()
	if err != nil {
		return err
	}
	settings, err := cgroup.Settings(h.Cgroup.Version, resources)
	if err != nil {
		return &SpecError{Field: "resources", Value: s.Name, Problem: err.Error()}
	}
	if h.Cgroup.Warning != "" {
		c.plan.Notes = append(c.plan.Notes, h.Cgroup.Warning)
	}
	name := s.Name
	if name == "" {
		name = h.CgroupName
	}
	controllers := controllersOf(resources)
	for _, wanted := range wantedController {
		if slices.Contains(h.Cgroup.Controllers, wanted) && !slices.Contains(controllers, wanted) {
			controllers = append(controllers, wanted)
		}
	}
	create := []Step{{Op: "cgroup", Path: name, List: controllers}}
	for _, set := range settings {
		if !h.Cgroup.Scope && set.Controller == "pids" {
			c.pidsMax = set // not yet: jail-init has helpers of its own at first
			continue
		}
		create = append(create, Step{Op: "cgroup set", Type: set.Controller, Path: set.File, Data: set.Value})
	}
	if h.Cgroup.Scope {
		c.lateCgroup = append([]Step{{Op: "systemd scope", Path: name}}, create...)
	} else {
		for _, step := range create { // the first steps of all, so before the clone
			c.add(SideLauncher, step)
		}
	}
	switch {
	case h.Cgroup.Version == 1:
		for _, file := range h.Cgroup.Tasks(name, controllers) { // its helpers, which start then, are in the cgroup as well
			c.add(SideInit, Step{Op: "cgroup enter", Path: file, Data: "0", wire: wire{op: jailinit.OpEnter}})
		}
	case h.Cgroup.Scope || h.NoClone3:
		c.lateCgroup = append(c.lateCgroup, Step{Op: "cgroup attach", Path: name})
	default:
		c.plan.flags |= unix.CLONE_INTO_CGROUP
		c.plan.CloneFlags = append(c.plan.CloneFlags, "CLONE_INTO_CGROUP")
	}
	c.give(OwnCgroup)
	return nil
}

// cgroupNamespace makes the namespace that shows the jail's cgroup as the root. It has to be in the cgroup for that.
func (c *compiler) cgroupNamespace() {
	if c.spec.hasNamespace(specs.CgroupNamespace) {
		c.add(SideInit, Step{Op: "unshare", List: []string{"CLONE_NEWCGROUP"}, wire: wire{op: jailinit.OpUnshare, a: unix.CLONE_NEWCGROUP}})
		c.give(PrivateCgroups)
	}
}

// oneCgroupNamespace leaves the payload none beside jail's own. An ordinary user's payload has the uid that owns the
// cgroup: in a user and a cgroup namespace of its own it could mount the hierarchies, and raise its limits or make
// cgroups that stay (on v1, and on v2 without nsdelegate).
var oneCgroupNamespace = writeStep("/proc/sys/user/max_cgroup_namespaces", "1")

// enterCgroup is the last thing before the payload: all helpers of jail-init have ended.
func (c *compiler) enterCgroup() {
	if len(c.lateCgroup) > 0 {
		for _, step := range c.lateCgroup {
			c.add(SideLauncher, step)
		}
		c.cgroupNamespace()
	}
	if c.pidsMax.File != "" {
		c.add(SideInit, Step{
			Op: "cgroup set", Type: c.pidsMax.Controller, Path: c.pidsMax.File, Data: c.pidsMax.Value,
			wire: wire{op: jailinit.OpWriteSlot, a: cgroupSlot},
		})
	}
}

// resources are those asked for, with the defaults, and with jail-init, which is one of the tasks.
func (c *compiler) resources() (*specs.LinuxResources, error) {
	r := specs.LinuxResources{}
	if asked := c.spec.Linux.Resources; asked != nil {
		r = *asked
	}
	limit := int64(defaultPids)
	if r.Pids != nil && r.Pids.Limit != nil {
		limit = *r.Pids.Limit
	}
	if limit > 0 && limit < math.MaxInt64 {
		limit++
	}
	r.Pids = &specs.LinuxPids{Limit: &limit}
	if m := r.Memory; m != nil && m.Limit != nil && *m.Limit > 0 && *m.Limit < leastMemory {
		return nil, &SpecError{Field: "memory", Value: strconv.FormatInt(*m.Limit, 10), Problem: fmt.Sprintf("is less than the walls of a jail take: %d is the least", leastMemory)}
	}
	return &r, nil
}

// leastMemory is room for what the kernel keeps for a jail's namespaces and mounts, and for a small program.
const leastMemory = 1 << 20

// firstResource is the first thing in the Spec that takes a cgroup, as a flag and its value.
func (s *Spec) firstResource() (field, value string) {
	r := s.Linux.Resources
	switch {
	case s.CPUTime > 0:
		return "cpu-time", s.CPUTime.String()
	case s.CgroupParent != "":
		return "cgroup-parent", s.CgroupParent
	case s.Name != "":
		return "name", s.Name
	case r == nil:
		return "", ""
	case r.Memory != nil && r.Memory.Limit != nil:
		return "memory", strconv.FormatInt(*r.Memory.Limit, 10)
	case r.Memory != nil:
		return "swap", ""
	case r.Pids != nil && r.Pids.Limit != nil:
		return "pids-limit", strconv.FormatInt(*r.Pids.Limit, 10)
	case r.CPU != nil && r.CPU.Cpus != "":
		return "cpuset", r.CPU.Cpus
	case r.CPU != nil:
		return "cpus", ""
	case r.BlockIO != nil:
		return "io", ""
	case len(r.Unified) > 0:
		return "resources", "unified"
	}
	return "", ""
}

// cgroupStep does one of the launcher's steps that are about the cgroup. pid is jail-init's, if there is one yet.
func (l *launch) cgroupStep(s *Step, pid int) (err error) {
	switch s.Op {
	case "systemd scope":
		l.place, err = cgroup.Scope(s.Path, pid)
	case "cgroup":
		l.cgroup, err = l.place.Create(s.Path, s.List)
	case "cgroup set":
		err = l.cgroup.Set(cgroup.Setting{Controller: s.Type, File: s.Path, Value: s.Data})
	case "cgroup attach":
		if l.attached == nil {
			l.attach(pid)
		}
		if err = <-l.attached; err == nil {
			l.usageBase, err = l.cgroup.Usage()
		}
		l.attached = nil
	}
	if errors.Is(err, cgroup.ErrExists) {
		return &SpecError{Field: "name", Value: s.Path, Problem: "can't be had: " + err.Error()}
	}
	return err
}

// attach moves jail-init into its cgroup. The kernel takes 4 to 14 ms for it (it waits for an RCU grace period), so it
// is begun as soon as there is a jail-init.
func (l *launch) attach(pid int) {
	done, group := make(chan error, 1), l.cgroup
	l.attached = done
	go func() { done <- group.Attach(pid) }()
}

// removeCgroup takes away the cgroup of a jail that did not come to run.
func (l *launch) removeCgroup() {
	if l.attached != nil {
		<-l.attached //nolint:errcheck // jail-init may have been dead already
		l.attached = nil
	}
	if l.cgroup != nil {
		_ = l.cgroup.Remove()
		l.cgroup = nil
	} else if l.place != nil {
		l.place.Release()
	}
}

// watchCPU ends the jail when all its processes together have used their CPU time.
func (p *Process) watchCPU(limit time.Duration) {
	for {
		used, err := p.cgroup.CPU()
		if err != nil { // the jail has ended
			return
		}
		left := limit - p.payloadCPU(used, p.first)
		if left <= 0 {
			if p.setReason(CPUExceeded) {
				_ = p.Kill()
			}
			return
		}
		select {
		case <-p.done:
			return
		case <-time.After(max(left/time.Duration(max(p.host.CPUs, 1)), cpuGranularity)): // it can't be used up sooner
		}
	}
}

// payloadCPU is what the cgroup has counted, without jail-init and its helpers. last is the latest that jail-init has said
// of itself.
func (p *Process) payloadCPU(counted time.Duration, last jailinit.Record) time.Duration {
	base := p.recordBase
	of := func(r jailinit.Record) int64 { return r.SelfUserUS + r.SelfSystemUS }
	helpers := p.first.UserUS + p.first.SystemUS - base.UserUS - base.SystemUS
	own := time.Duration(of(last)-last.OutsideUS-of(base)+helpers) * time.Microsecond
	return max(counted-p.usageBase.CPU-own, 0)
}

// cpuGranularity is how often the CPU time is looked at when it is nearly used up: a look costs microseconds.
const cpuGranularity = 2 * time.Millisecond

// account fills the Result with what the cgroup has counted, without jail-init and its helpers. last is jail-init's last
// word, or that of its start where it was killed before another.
func (p *Process) account(last jailinit.Record) {
	u, err := p.cgroup.Usage()
	if err != nil {
		return
	}
	res := &p.result
	used := p.payloadCPU(u.CPU, last).Microseconds()
	// The sum is exact. How much of it was the kernel's is not: it is what was seen at clock ticks.
	user, system := max(u.User-p.usageBase.User, 0), max(u.System-p.usageBase.System, 0)
	share := 1.0
	if user+system > 0 {
		share = float64(user) / float64(user+system)
	}
	inUser := int64(math.Round(share * float64(used)))
	res.UserMS, res.SystemMS = float64(inUser)/1000, float64(used-inUser)/1000
	res.PeakMemoryBytes, res.OOMKills = u.PeakMemory, u.OOMKills
	if u.MemoryHit { // a kill alone may be for an outer limit, or the machine's want
		res.LimitsHit = append(res.LimitsHit, "memory")
	}
	if u.PidsHit > 0 {
		res.LimitsHit = append(res.LimitsHit, "pids")
	}
}

// describeCgroup is the cgroup in the words of an Explanation.
func (p *Plan) describeCgroup() string {
	var limits []string
	for _, s := range p.Steps {
		if s.Op == "cgroup set" {
			limits = append(limits, s.Path+" "+s.Data)
		}
	}
	return strings.Join(limits, ", ")
}
