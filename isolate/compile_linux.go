//go:build cgo && (amd64 || arm64)

package isolate

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/jailrun/jail/cgroup"
	"github.com/jailrun/jail/isolate/internal/jailinit"
)

// oldestKernel has all that jail-init can't do without: clone3, pidfds, openat2, close_range, mount_setattr with id
// maps (5.12), and Landlock (5.13).
var oldestKernel = [2]int{5, 14}

// compiler holds what the parts of Compile share.
type compiler struct {
	spec *Spec
	host *Host
	plan *Plan

	userNS bool
	uid    int // the payload's, as jail-init's user namespace counts
	gid    int

	asOwn         bool // without root's capabilities: jail-init is the payload's uid, in a user namespace that the launcher maps
	mapped        bool // root's payload is in a user namespace of its own below that
	inUID, inGID  int  // the payload's, as its own user namespace counts
	payloadUserNS int  // its slot

	keep, ambient, bounding uint64 // the payload's capabilities
	maps                    []idMap
	places                  []place
	made                    map[string]bool // folders that the Plan makes
	links                   map[string]string
	leaves                  []string // links and files that the Plan makes: nothing can be made in them
	root                    bool     // the view is a root of its own
	mapsIDs                 bool     // shown folders get an id map

	slots    int      // how many mounts are kept open
	overlays int      // how many were asked for
	uppers   []Step   // make what the root file system lacks
	stage    []Step   // what is done before the new root is mounted
	missing  []string // mount points that the root file system does not have

	lateCgroup []Step         // of the launcher, when jail-init has set itself up
	pidsMax    cgroup.Setting // set when jail-init has no helpers any more

	asides    int // children of jail-init that do steps aside
	netAside  int
	netJoined bool
}

// Compile turns what is wanted into what will be done on this host. It is pure: it asks the kernel nothing but what
// Host.Look remembers, and the same Spec and Host give the same Plan.
//
// The order of the steps is the argument of the whole program; each part says why it stands where it stands.
func Compile(s *Spec, h *Host) (*Plan, error) {
	p, err := compile(s, h)
	if h.unseen != nil && !errors.As(err, new(*SpecError)) {
		return nil, h.unseen
	}
	return p, err
}

func compile(s *Spec, h *Host) (*Plan, error) {
	c := &compiler{
		spec: s, host: h, plan: &Plan{noClone3: h.NoClone3, noMemfd: h.NoMemfd, Steps: make([]Step, 0, 96)},
		made: map[string]bool{}, links: map[string]string{},
	}
	if err := c.check(); err != nil {
		return nil, err
	}
	if err := c.identity(); err != nil {
		return nil, err
	}
	if err := c.capabilities(); err != nil {
		return nil, err
	}
	if err := c.checkRootfs(); err != nil {
		return nil, err
	}
	rules, err := c.expand()
	if err != nil {
		return nil, err
	}
	if err := c.cgroup(); err != nil {
		return nil, err
	}
	if err := c.idMaps(rules); err != nil {
		return nil, err
	}
	c.namespaces()
	if err := c.view(rules); err != nil {
		return nil, err
	}
	c.joinNet()
	c.enterCgroup()
	if err := c.payload(); err != nil {
		return nil, err
	}
	return c.plan, c.verify()
}

// check refuses what no host could do.
func (c *compiler) check() error {
	if len(c.spec.Process.Args) == 0 || c.spec.Process.Args[0] == "" {
		return &SpecError{Field: "command", Problem: "is empty"}
	}
	if h := c.host.Kernel; h[0] < oldestKernel[0] || h[0] == oldestKernel[0] && h[1] < oldestKernel[1] {
		return &UnsupportedError{
			Level:   c.spec.Level,
			Missing: fmt.Sprintf("Linux %d.%d or newer (this is %d.%d)", oldestKernel[0], oldestKernel[1], h[0], h[1]),
			Cause:   Cause{LayerKernel, "", "a newer kernel"},
		}
	}
	for _, list := range [][]string{c.spec.Process.Args, c.spec.Process.Env, {c.spec.Hostname, c.spec.Process.Cwd}} {
		for _, s := range list {
			if strings.ContainsRune(s, 0) {
				return &SpecError{Field: "argument", Value: s, Problem: "has a NUL byte"}
			}
		}
	}
	if _, err := IPCRules(c.spec.IPC); err != nil {
		return err
	}
	if c.spec.OutputLimit < 0 {
		return &SpecError{Field: "output-limit", Value: strconv.FormatInt(c.spec.OutputLimit, 10), Problem: "is negative"}
	}
	switch a := c.spec.outputAction(); a {
	case OutputKill, OutputTruncate, OutputBlock:
	default:
		return &SpecError{Field: "output-limit", Value: string(a), Problem: "is not kill, truncate or block"}
	}
	if len(c.spec.Hostname) > 64 {
		return &SpecError{Field: "hostname", Value: c.spec.Hostname, Problem: "is longer than 64 bytes"}
	}
	return nil
}

func (c *compiler) add(side Side, s Step) {
	s.Side = side
	c.plan.Steps = append(c.plan.Steps, s)
}

// aside lets a child of jail-init do steps meanwhile; join waits for it. The child has jail-init's memory and fds, but
// credentials and namespaces of its own.
func (c *compiler) aside(what string, steps ...Step) (group int) {
	group = c.asides
	c.asides++
	c.add(SideInit, Step{Op: "aside", Data: what, wire: wire{op: jailinit.OpAside, a: uint64(group), c: uint64(len(steps))}})
	for _, s := range steps {
		c.add(SideAside, s)
	}
	return group
}

func (c *compiler) join(what string, group int) {
	c.add(SideInit, Step{Op: "join", Data: what, wire: wire{op: jailinit.OpJoin, a: uint64(group)}})
}

// joinNet enters the network namespace, if that has not been done.
func (c *compiler) joinNet() {
	if !c.spec.hasNamespace(specs.NetworkNamespace) || c.netJoined {
		return
	}
	c.netJoined = true
	c.join("network namespace", c.netAside)
	c.add(SideInit, Step{Op: "setns", Data: "network namespace", wire: wire{op: jailinit.OpSetns, a: netSlot}})
}

func (c *compiler) give(g ...Guarantee) { c.plan.Given = append(c.plan.Given, g...) }

// cloneFlags are the namespaces that jail-init is born in. The network's is made aside: the kernel takes as long for it
// as for all the rest.
var cloneFlags = []struct {
	kind specs.LinuxNamespaceType
	flag uint64
	name string
	give Guarantee
}{
	{specs.MountNamespace, unix.CLONE_NEWNS, "CLONE_NEWNS", PrivateMounts},
	{specs.PIDNamespace, unix.CLONE_NEWPID, "CLONE_NEWPID", PrivateProcesses},
	{specs.IPCNamespace, unix.CLONE_NEWIPC, "CLONE_NEWIPC", PrivateIPC},
	{specs.UTSNamespace, unix.CLONE_NEWUTS, "CLONE_NEWUTS", PrivateHostname},
	{specs.CgroupNamespace, unix.CLONE_NEWCGROUP, "CLONE_NEWCGROUP", PrivateCgroups},
}

func writeStep(path, text string) Step {
	return Step{Op: "write", Path: path, Data: text, wire: wire{op: jailinit.OpWrite}}
}

// namespaces sets the clone's flags and what has to be done first inside.
func (c *compiler) namespaces() {
	p := c.plan
	// Else the terminal's signals, which the launcher passes on, would reach the payload through jail-init once more.
	c.add(SideInit, Step{Op: "setsid", wire: wire{op: jailinit.OpSetsid}})
	if c.userNS {
		p.flags |= unix.CLONE_NEWUSER
		p.CloneFlags = append(p.CloneFlags, "CLONE_NEWUSER")
		// The ids first: without them no capability survives the next exec and no file can be made.
		if c.asOwn {
			// Another uid than the writer's own can only be mapped from outside.
			c.add(SideLauncher, Step{Op: "map id", Path: "uid_map", Data: fmt.Sprintf("%d %d 1", c.uid, c.plan.UID)})
			c.add(SideLauncher, Step{Op: "map id", Path: "gid_map", Data: fmt.Sprintf("%d %d 1", c.gid, c.plan.GID)})
			c.take(SideInit)
			c.add(SideInit, Step{Op: "dumpable", wire: wire{op: jailinit.OpDumpable}})
		} else {
			// setgroups has to be denied before an ordinary user may write a gid map (user_namespaces(7)).
			for _, w := range [][2]string{
				{"/proc/self/setgroups", "deny"},
				{"/proc/self/uid_map", fmt.Sprintf("%d %d 1", c.uid, c.host.UID)},
				{"/proc/self/gid_map", fmt.Sprintf("%d %d 1", c.gid, c.host.GID)},
			} {
				c.add(SideInit, writeStep(w[0], w[1]))
			}
		}
		if c.spec.mapsUsers() {
			c.give(MappedUsers)
		}
		if slices.Contains(c.spec.Promised, NoNewNamespaces) {
			c.add(SideInit, noNewNamespaces)
			c.give(NoNewNamespaces)
		} else if c.spec.Cgroup {
			c.add(SideInit, oneCgroupNamespace)
		}
	}
	p.ambient = c.userNS || c.host.UID != 0 && c.host.Caps != 0
	for _, ns := range cloneFlags {
		if ns.kind == specs.CgroupNamespace && c.spec.Cgroup {
			continue // see cgroupNamespace
		}
		if ns.kind == specs.CgroupNamespace && c.host.OuterCgroups && c.spec.hasNamespace(ns.kind) {
			c.give(ns.give)
			continue
		}
		if c.spec.hasNamespace(ns.kind) {
			p.flags |= ns.flag
			p.CloneFlags = append(p.CloneFlags, ns.name)
			c.give(ns.give)
		}
	}
	if c.spec.Cgroup && len(c.lateCgroup) == 0 {
		c.cgroupNamespace()
	}
	p.pidNS = c.spec.hasNamespace(specs.PIDNamespace)
	if !p.pidNS {
		c.add(SideInit, Step{Op: "child subreaper", wire: wire{op: jailinit.OpSubreaper}})
		if c.host.Children {
			// Opened now: the payload could not be found any more through a /proc of its own making.
			c.add(SideInit, Step{Op: "keep open", Path: "/proc/thread-self/children", wire: wire{op: jailinit.OpChildren}})
		}
	}
	switch lo := (Step{Op: "interface up", Path: "lo", wire: wire{op: jailinit.OpLoUp}}); {
	case !c.spec.hasNamespace(specs.NetworkNamespace):
	case c.host.NoAside:
		c.give(PrivateNetwork)
		p.flags |= unix.CLONE_NEWNET
		p.CloneFlags = append(p.CloneFlags, "CLONE_NEWNET")
		c.add(SideInit, lo)
		c.netJoined = true
	default:
		c.give(PrivateNetwork)
		c.netAside = c.aside("network namespace",
			Step{Op: "unshare", List: []string{"CLONE_NEWNET"}, wire: wire{op: jailinit.OpUnshare, a: unix.CLONE_NEWNET}},
			lo,
			Step{Op: "open", Path: "/proc/self/ns/net", wire: wire{op: jailinit.OpOpen, a: netSlot}})
	}
	switch {
	case !c.spec.hasNamespace(specs.UTSNamespace) || c.spec.Hostname == "":
	case c.host.NoHostname && c.spec.Hostname == defaultHostname:
		c.plan.Notes = append(c.plan.Notes, "the hostname is a copy of the one around this jail, since a new one can't be set here")
	default:
		c.add(SideInit, Step{Op: "sethostname", Path: c.spec.Hostname, wire: wire{op: jailinit.OpHostname, a: uint64(len(c.spec.Hostname))}})
	}
}

// payload lists what the payload's own process does before its exec. Each line is where it is because the lines after
// it take away what it needs.
func (c *compiler) payload() error {
	s, h := c.spec, c.host
	step := func(op string, w wire) { c.add(SidePayload, Step{Op: op, wire: w}) }

	step("setsid", wire{op: jailinit.OpSetsid})
	c.give(OwnSession)
	if err := c.rlimits(); err != nil { // while CAP_SYS_RESOURCE may be there
		return err
	}
	c.credentialSteps()
	if s.Process.NoNewPrivileges { // before Landlock and the filter: without capabilities they ask for it
		step("no_new_privs", wire{op: jailinit.OpNNP})
		c.give(NoNewPrivileges)
	}
	if c.landlocked() {
		step("landlock restrict", wire{op: jailinit.OpRestrict})
	}
	// A change of credentials clears it (prctl(2)), so not before. Who died before that would not be told of:
	// hence the look.
	step("die with jail-init", wire{op: jailinit.OpPdeathsig})
	step("supervisors alive", wire{op: jailinit.OpAlive})
	c.give(DiesWithLauncher, ListedFDs)
	c.add(SidePayload, Step{Op: "signals", List: signalNames(h.Ignored), wire: wire{op: jailinit.OpSignals, a: h.Ignored}})
	if err := c.filterSteps(); err != nil { // last: they may refuse what was done before them
		return err
	}
	env := c.environment()
	c.add(SidePayload, Step{
		Op: "exec", List: candidates(s.Process.Args[0], env), Args: s.Process.Args, Env: env,
		wire: wire{op: jailinit.OpExec, a: h.Mask},
	})
	return nil
}

// filterSteps loads the filters, or one that does what all of them do and asks the launcher where they refuse.
func (c *compiler) filterSteps() error {
	s, list := c.spec, c.filters()
	for _, f := range list {
		if f.gives != "" {
			c.give(f.gives)
		}
	}
	if s.Monitor || s.Trace || len(s.Notify) > 0 {
		return c.monitor(list)
	}
	for _, f := range list {
		data, flags := strconv.Itoa(len(f.bpf)/8)+" instructions", uint64(0)
		if f.log || s.FilterLog {
			data, flags = data+", logged", unix.SECCOMP_FILTER_FLAG_LOG
		}
		c.add(SidePayload, Step{
			Op: f.op, Path: f.name, Data: data,
			wire: wire{op: jailinit.OpFilter, a: uint64(len(f.bpf) / 8), b: flags, bytes: f.bpf},
		})
	}
	return nil
}

// filter is a program that the payload's process loads.
type filter struct {
	op, name string
	bpf      []byte
	log      bool
	gives    Guarantee // "" is none
}

// filters are those of the Spec, in the order in which they are loaded: each may refuse to load the next.
func (c *compiler) filters() []filter {
	s := c.spec
	var list []filter
	if len(s.Filter) > 0 && !s.NoFilter {
		list = append(list, filter{op: "seccomp filter", bpf: s.Filter, gives: BaselineFilter})
	}
	if s.CallRules != nil && s.CallRules.First {
		list = append(list, filter{op: "seccomp rules", bpf: s.CallRules.BPF})
	}
	if l := s.AllowList; l != nil {
		list = append(list, filter{op: "seccomp allow-list", name: l.Name, bpf: l.BPF, log: l.Log, gives: AllowListFilter})
	}
	if s.CallRules != nil && !s.CallRules.First {
		list = append(list, filter{op: "seccomp rules", bpf: s.CallRules.BPF})
	}
	return list
}

func (c *compiler) environment() []string {
	env := c.spec.Process.Env
	if env == nil {
		env = DefaultEnv(c.host.Environ, !c.spec.hasNamespace(specs.NetworkNamespace))
		if c.spec.Root != nil {
			env = RootfsEnv(env, c.inUID)
		}
	}
	tmp := c.plan.scratch
	if c.root {
		tmp = "/tmp"
	}
	if tmp != "" && !slices.ContainsFunc(env, func(kv string) bool { return strings.HasPrefix(kv, "TMPDIR=") }) {
		env = append(slices.Clip(env), "TMPDIR="+tmp)
	}
	return env
}

// candidates is where execvp(3) would look for name: in the PATH of the payload.
func candidates(name string, env []string) []string {
	if strings.Contains(name, "/") {
		return []string{name}
	}
	path, found := "", false
	for _, kv := range env {
		if v, ok := strings.CutPrefix(kv, "PATH="); ok {
			path, found = v, true
		}
	}
	if !found {
		path = "/usr/local/bin:/usr/bin:/bin"
	}
	var list []string
	for _, dir := range strings.Split(path, ":") {
		if dir == "" {
			dir = "."
		}
		list = append(list, strings.TrimSuffix(dir, "/")+"/"+name)
	}
	return list
}

func (c *compiler) rlimits() error {
	// RLIMIT_CORE: a dump would be written into the working folder, or make root's handler read the payload's files.
	limits := []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE"}, {Type: "RLIMIT_CORE"}}
	limits[0].Soft, limits[0].Hard = c.host.Rlimits["RLIMIT_NOFILE"][0], c.host.Rlimits["RLIMIT_NOFILE"][1]
	for _, l := range c.spec.Process.Rlimits {
		name := strings.ToLower(strings.TrimPrefix(l.Type, "RLIMIT_"))
		value := formatRlimit(l)
		if _, ok := rlimitNumbers[l.Type]; !ok {
			return &SpecError{Field: "rlimit", Value: l.Type, Problem: "is not a resource limit; see getrlimit(2)"}
		}
		if l.Soft > l.Hard {
			return &SpecError{Field: "rlimit", Value: name + "=" + value, Problem: "has a soft limit above its hard limit"}
		}
		if now := c.host.Rlimits[l.Type]; l.Hard > now[1] && (c.userNS || !c.host.capable(unix.CAP_SYS_RESOURCE)) {
			return &SpecError{Field: "rlimit", Value: name + "=" + value, Problem: fmt.Sprintf("is above the hard limit %d, and raising it needs CAP_SYS_RESOURCE", now[1])}
		}
		limits = slices.DeleteFunc(limits, func(d specs.POSIXRlimit) bool { return d.Type == l.Type })
		limits = append(limits, l)
	}
	for _, l := range limits {
		if l.Type == "RLIMIT_NOFILE" && l.Soft == 0 { // poll(2) takes none then: see "supervisors alive"
			return &SpecError{Field: "rlimit", Value: "nofile=" + formatRlimit(l), Problem: "leaves no fd at all; 1 is the least"}
		}
		c.add(SidePayload, Step{
			Op: "setrlimit", Path: l.Type, Data: formatRlimit(l),
			wire: wire{op: jailinit.OpRlimit, a: uint64(rlimitNumbers[l.Type]), b: l.Soft, c: l.Hard},
		})
	}
	return nil
}

func formatRlimit(l specs.POSIXRlimit) string {
	word := func(v uint64) string {
		if v == ^uint64(0) {
			return "unlimited"
		}
		return strconv.FormatUint(v, 10)
	}
	return word(l.Soft) + ":" + word(l.Hard)
}

// verify is the check that a level's promises are kept by the Plan as it stands.
func (c *compiler) verify() error {
	for _, g := range c.spec.promised() {
		allowed := g == PrivateProcesses && c.spec.OuterProc // the Result says that it was lost
		if !slices.Contains(c.plan.Given, g) && !allowed {
			return &UnsupportedError{Level: c.spec.Level, Missing: "the guarantee " + string(g)}
		}
	}
	return nil
}

// clean makes a rule's path canonical; it has to be absolute.
func clean(field, path string) (string, error) {
	if !filepath.IsAbs(path) {
		return "", &SpecError{Field: field, Value: path, Problem: "is not an absolute path"}
	}
	if strings.ContainsRune(path, 0) {
		return "", &SpecError{Field: field, Value: path, Problem: "has a NUL byte"}
	}
	return filepath.Clean(path), nil
}
