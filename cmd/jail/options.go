package main

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/jailrun/jail/ipc"
	"github.com/jailrun/jail/isolate"
	"github.com/jailrun/jail/policies"
)

// options is what a policy and the flags of run and explain say.
type options struct {
	policy      *policies.Loaded // nil is none
	asked       []asked          // all that was said, in its order
	layer       string           // the file whose settings are being applied; "" is the command line
	given       map[string]bool  // what that has said already and may say only once
	level       isolate.Level
	identity    isolate.Identity
	user        specs.User
	workdir     string
	env         []string // NAME=VALUE, or NAME to pass the caller's
	envAll      bool
	clearEnv    bool
	hostname    string
	root        *specs.Root
	rootOverlay bool
	rules       []isolate.Rule
	rlimits     []specs.POSIXRlimit
	resources   specs.LinuxResources
	swap        int64 // beyond the memory limit; -1 is not given
	cpuTime     time.Duration
	cgroup      string // the parent
	name        string
	timeout     time.Duration
	killAfter   time.Duration
	output      int64
	overrun     isolate.OutputAction
	network     string
	proc        string
	capAdd      []string
	capDrop     []string
	seccomp     string
	syscalls    []string // rules, as --syscalls takes them
	seccompLog  bool
	fds         map[int]int // the payload's fd → the caller's
	stdin       string
	stdout      string
	stderr      string
	result      string
	json        bool
	denied      bool
	notify      []isolate.Notify
	ipc         []isolate.IPC
	ipcRules    ipc.Rules
	ipcFD       int // of the payload: its connection to the broker; 0 is none
	downgrade   bool
	verbose     bool
	plan        bool
	origin      bool
	help        bool
	command     []string
	policyFile  *os.File // what the payload reads its policy from
	policyFD    int      // that it is for the payload; 0 is a file in its view
	environment []string // the caller's
}

// readOptions reads the command line of run or explain. The policy that it names comes first: what the flags say counts
// more, wherever they stand.
func readOptions(table []flag, args []string) (*options, error) {
	o := &options{level: isolate.Namespaced, swap: -1, fds: map[int]int{}, given: map[string]bool{}, environment: os.Environ()}
	flags, rest, err := parseFlags(table, args)
	if err != nil {
		return o, err
	}
	o.command = rest
	for _, f := range flags {
		if f.Flag != "--policy" {
			continue
		}
		if o.policy != nil {
			return o, &usageError{problem: "--policy is given a second time", hint: "a policy names others with extends"}
		}
		if err := o.usePolicy(table, f.Value); err != nil {
			return o, err
		}
	}
	for _, f := range flags {
		if err := o.apply(table, f); err != nil {
			return o, err
		}
	}
	return o, nil
}

// runFlags are the flags of jail run.
var runFlags = []flag{
	{"--policy", "", "NAME|FILE", func(*options, string) error { return nil }}, // see readOptions
	{"--level", "", "LEVEL", func(o *options, v string) (err error) {
		o.level, err = isolate.ParseLevel(v)
		return err
	}},
	{"--user", "", "UID[:GID]|caller", func(o *options, v string) (err error) {
		o.identity, o.user, err = isolate.ParseUser(v)
		return err
	}},
	{"--workdir", "--chdir", "DIR", func(o *options, v string) (err error) {
		o.workdir, err = absolute(v)
		return err
	}},
	{"--env", "", "NAME[=VALUE]", func(o *options, v string) error {
		if v[0] == '=' {
			return problem("has no name")
		}
		o.env = append(o.env, v)
		return nil
	}},
	{"--env-all", "", "", func(o *options, v string) error { o.envAll = v == "true"; return nil }},
	{"--clearenv", "", "", func(o *options, v string) error { o.clearEnv = v == "true"; return nil }},
	{"--hostname", "", "NAME", func(o *options, v string) error { o.hostname = v; return nil }},
	{"--rootfs", "", "DIR[:rw]", func(o *options, v string) error {
		path, writable := strings.CutSuffix(v, ":rw")
		path, err := absolute(path)
		o.root = &specs.Root{Path: path, Readonly: !writable}
		return err
	}},
	{"--rootfs-overlay", "", "", func(o *options, v string) error { o.rootOverlay = v == "true"; return nil }},
	{"--bind", "--rw", "SRC[:DST]", bind(isolate.ShowWrite, false)},
	{"--ro-bind", "--ro", "SRC[:DST]", bind(isolate.Show, false)},
	{"--bind-try", "", "SRC[:DST]", bind(isolate.ShowWrite, true)},
	{"--ro-bind-try", "", "SRC[:DST]", bind(isolate.Show, true)},
	{"--overlay", "", "SRC[:DST]", bind(isolate.Overlay, false)},
	{"--device", "", "PATH[:DST]", bind(isolate.Device, false)},
	{"--tmpfs", "", "PATH[:SIZE]", func(o *options, v string) error {
		path, size := v, int64(0)
		if i := strings.LastIndexByte(v, ':'); i >= 0 {
			n, err := isolate.ParseSize(v[i+1:])
			switch {
			case err != nil:
				return problem("has no size after its last colon; a size is a number of bytes, or one with K, M or G")
			case n == 0:
				return problem("has the size 0")
			}
			path, size = v[:i], n
		}
		return o.place(isolate.Rule{Kind: isolate.Tmpfs, Path: path, Size: size})
	}},
	{"--dir", "", "PATH", func(o *options, v string) error {
		return o.place(isolate.Rule{Kind: isolate.Dir, Path: v})
	}},
	{"--symlink", "", "TARGET:LINK", func(o *options, v string) error {
		target, link, err := splitPlace(v)
		if err == nil && link == "" {
			err = problem("is not TARGET:LINK with an absolute LINK")
		}
		if err != nil {
			return err
		}
		return o.place(isolate.Rule{Kind: isolate.Symlink, Path: link, Source: target})
	}},
	{"--file", "", "FD:PATH", func(o *options, v string) error {
		number, path, _ := strings.Cut(v, ":")
		fd, _, err := isolate.ParseFD(number)
		if err != nil {
			return problem("is not FD:PATH")
		}
		if err := inherited(fd, reading); err != nil {
			return err
		}
		return o.place(isolate.Rule{Kind: isolate.File, Path: path, FD: fd})
	}},
	{"--deny", "", "PATH", func(o *options, v string) error {
		path, err := absolute(v)
		if err == nil {
			o.rules = append(o.rules, isolate.Rule{Kind: isolate.Deny, Path: path})
		}
		return err
	}},
	{"--rlimit", "", "NAME=SOFT[:HARD]", func(o *options, v string) error {
		limit, err := isolate.ParseRlimit(v)
		o.rlimits = slices.DeleteFunc(o.rlimits, func(l specs.POSIXRlimit) bool { return l.Type == limit.Type })
		o.rlimits = append(o.rlimits, limit)
		return err
	}},
	{"--timeout", "", "TIME", func(o *options, v string) (err error) {
		o.timeout, err = isolate.ParseDuration(v)
		return err
	}},
	{"--kill-after", "", "TIME", func(o *options, v string) (err error) {
		o.killAfter, err = isolate.ParseDuration(v)
		return err
	}},
	{"--memory", "-m", "SIZE", func(o *options, v string) error {
		n, err := isolate.ParseSize(v)
		if err == nil && n == 0 {
			err = problem("is no limit that a program could live with")
		}
		o.memory().Limit = &n
		return err
	}},
	{"--swap", "", "SIZE", func(o *options, v string) (err error) {
		o.swap, err = isolate.ParseSize(v)
		return err
	}},
	{"--pids-limit", "", "N", func(o *options, v string) error {
		n, err := isolate.ParsePidsLimit(v)
		o.resources.Pids = &specs.LinuxPids{Limit: &n}
		return err
	}},
	{"--cpus", "", "N", func(o *options, v string) error {
		quota, err := isolate.ParseCPUs(v)
		period := uint64(isolate.CPUPeriod.Microseconds())
		o.cpu().Quota, o.cpu().Period = &quota, &period
		return err
	}},
	{"--cpuset", "--cpuset-cpus", "LIST", func(o *options, v string) (err error) {
		o.cpu().Cpus, err = isolate.ParseCPUSet(v)
		return err
	}},
	{"--io", "", "DEVICE:KEY=RATE[,…]", func(o *options, v string) error {
		device, rates, err := isolate.ParseIO(v)
		if err != nil {
			return err
		}
		major, minor, err := blockDevice(device)
		if err != nil {
			return err
		}
		return o.throttle(major, minor, rates)
	}},
	{"--cpu-time", "", "TIME", func(o *options, v string) (err error) {
		o.cpuTime, err = isolate.ParseDuration(v)
		if err == nil && o.cpuTime == 0 {
			err = problem("is no time at all")
		}
		return err
	}},
	{"--cgroup-parent", "", "CGROUP", func(o *options, v string) error { o.cgroup = v; return nil }},
	{"--name", "", "NAME", func(o *options, v string) (err error) {
		o.name, err = isolate.ParseName(v)
		return err
	}},
	{"--output-limit", "", "SIZE[:kill|truncate|block]", func(o *options, v string) (err error) {
		o.output, o.overrun, err = isolate.ParseOutputLimit(v)
		return err
	}},
	{"--network", "--net", "none|host", func(o *options, v string) error {
		return oneOf(&o.network, v, "none", "host")
	}},
	{"--proc", "", "own|outer", func(o *options, v string) error { return oneOf(&o.proc, v, "own", "outer") }},
	{"--cap-add", "", "CAPABILITY", func(o *options, v string) error {
		o.capDrop = slices.DeleteFunc(o.capDrop, func(c string) bool { return c == v }) // a policy's
		o.capAdd = append(o.capAdd, v)
		return nil
	}},
	{"--cap-drop", "", "CAPABILITY", func(o *options, v string) error { o.capDrop = append(o.capDrop, v); return nil }},
	{"--seccomp", "", "baseline|default|unconfined|FILE", func(o *options, v string) error {
		if isFile := strings.Contains(v, "/") || strings.HasSuffix(v, ".json"); !isFile && !slices.Contains(filters, v) {
			return problem("is not baseline, default or unconfined; a file is named by a path, such as ./x.json")
		}
		o.seccomp = v
		return nil
	}},
	{"--syscalls", "", "ACTION[:ERRNO]=CALL[,…][:COND]", func(o *options, v string) error {
		o.syscalls = append(o.syscalls, v)
		return checkSyscallRule(v)
	}},
	{"--seccomp-log", "", "", func(o *options, v string) error { o.seccompLog = v == "true"; return nil }},
	{"--fd", "", "N[:M]", func(o *options, v string) error {
		from, to, err := isolate.ParseFD(v)
		if err != nil {
			return err
		}
		if from < 3 {
			return problem("names a standard stream, which the payload has already")
		}
		if o.twice("fd " + strconv.Itoa(to)) {
			return problem("gives the payload's fd " + strconv.Itoa(to) + " a second time")
		}
		o.fds[to] = from
		if err := inherited(from, anyAccess); err != nil {
			return err
		}
		return fits(to)
	}},
	{"--stdin", "", "FILE", func(o *options, v string) error { o.stdin = v; return nil }},
	{"--stdout", "", "FILE", func(o *options, v string) error { o.stdout = v; return nil }},
	{"--stderr", "", "FILE", func(o *options, v string) error { o.stderr = v; return nil }},
	{"--result", "", "FILE|-", func(o *options, v string) error { o.result = v; return nil }},
	{"--json", "", "", func(o *options, v string) error { o.json = v == "true"; return nil }},
	{"--denied", "--monitor", "", func(o *options, v string) error { o.denied = v == "true"; return nil }},
	{"--notify", "", "open:PATH|connect:ADDRESS", func(o *options, v string) error {
		n, err := isolate.ParseNotify(v)
		o.notify = append(o.notify, n)
		return err
	}},
	{"--ipc", "", "SERVICE[:ARGS]", func(o *options, v string) error {
		r, err := isolate.ParseIPC(v)
		o.ipc = append(o.ipc, r)
		return err
	}},
	{"--allow-downgrade", "--best-effort", "", func(o *options, v string) error { o.downgrade = v == "true"; return nil }},
	{"--verbose", "", "", func(o *options, v string) error { o.verbose = v == "true"; return nil }},
	{"--help", "-h", "", func(o *options, _ string) error { o.help = true; return nil }},
}

// filters are the words of --seccomp; all else is a file.
var filters = []string{"baseline", "default", "unconfined"}

// problem is a SpecError that aboutFlag completes.
func problem(text string) error { return &isolate.SpecError{Problem: text} }

// aboutFlag says which flag and which value an error is about.
func aboutFlag(f *flag, value string, err error) error {
	var spec *isolate.SpecError
	if errors.As(err, &spec) {
		return &isolate.SpecError{Field: strings.TrimPrefix(f.name, "--"), Value: value, Problem: spec.Problem}
	}
	return err
}

func oneOf(to *string, value string, words ...string) error {
	if !slices.Contains(words, value) {
		return problem("is not " + strings.Join(words, " or "))
	}
	*to = value
	return nil
}

func bind(kind isolate.RuleKind, optional bool) func(*options, string) error {
	return func(o *options, v string) error {
		src, dst, err := splitPlace(v)
		if err != nil {
			return err
		}
		if src, err = absolute(src); err != nil {
			return err
		}
		if dst == "" {
			dst = src
		}
		return o.place(isolate.Rule{Kind: kind, Path: dst, Source: src, Optional: optional})
	}
}

// place adds a rule whose path is the jail's.
func (o *options) place(r isolate.Rule) error {
	switch {
	case !filepath.IsAbs(r.Path):
		return problem("does not give an absolute path in the jail")
	case climbs(r.Path):
		return problem(`has ".." in the jail's path`)
	}
	r.Path = filepath.Clean(r.Path)
	o.rules = append(o.rules, r)
	return nil
}

// splitPlace splits SRC:DST. DST is absolute, so they meet at ":/", of which there may be only one; any other colon is
// part of SRC. Without one all of it is SRC.
func splitPlace(v string) (src, dst string, err error) {
	i := strings.Index(v, ":/")
	switch {
	case i < 0 && strings.HasSuffix(v, ":"):
		return "", "", problem("has nothing behind its colon")
	case i < 0:
		return v, "", nil
	case i == 0:
		return "", "", problem("has nothing before its colon")
	case strings.Contains(v[i+1:], ":/"):
		return "", "", problem(`has more than one ":/"`)
	}
	return v[:i], v[i+1:], nil
}

// absolute makes a path of the host absolute. A leading ".." is the folder above the working folder; behind a name it
// would mean one thing to the kernel and another to the eye where that name is a link, so it is refused.
func absolute(path string) (string, error) {
	if filepath.IsAbs(path) {
		if climbs(path) {
			return "", problem(`has ".." behind a name`)
		}
		return filepath.Clean(path), nil
	}
	cwd, err := os.Getwd()
	if above(path) {
		cwd, err = syscall.Getwd() // not $PWD, which may be a way through links
	}
	for above(path) {
		cwd, path = filepath.Dir(cwd), strings.TrimLeft(path[2:], "/")
	}
	switch {
	case err != nil:
		return "", problem("is relative to the working folder, which is gone: " + err.Error())
	case climbs(path):
		return "", problem(`has ".." behind a name`)
	}
	return filepath.Join(cwd, path), nil
}

func above(path string) bool { return path == ".." || strings.HasPrefix(path, "../") }

func climbs(path string) bool { return slices.Contains(strings.Split(path, "/"), "..") }

// spec is what the options ask for. What the level can't give is refused here where it is about the flag alone; the
// rest is found by isolate.Compile.
func (o *options) spec() (*isolate.Spec, error) {
	if len(o.command) == 0 {
		return nil, &usageError{problem: "no command to run", hint: "jail run [flags] [--] COMMAND [ARGUMENT …]"}
	}
	if err := o.conflict(); err != nil {
		return nil, err
	}
	s := isolate.NewSpec(o.level, o.command[0], o.command[1:]...)
	s.Identity = o.identity
	s.Process.User = o.user
	s.Process.Cwd = o.workdir
	s.Process.Rlimits = o.rlimits
	if o.hostname != "" {
		s.Hostname = o.hostname
	}
	s.Root, s.RootOverlay = o.root, o.rootOverlay
	s.CapAdd, s.CapDrop = o.capAdd, o.capDrop
	s.HostNetwork = o.network == "host"
	s.OuterProc = o.proc == "outer"
	s.NoFilter = o.seccomp == "unconfined"
	switch {
	case o.seccomp == "baseline" || o.seccomp == "unconfined":
		s.AllowList = nil
	case o.seccomp == "default":
		s.AllowList = isolate.DefaultAllowList()
	case o.seccomp != "" && !slices.Contains(filters, o.seccomp):
		list, err := o.allowList()
		if err != nil {
			return nil, err
		}
		s.AllowList = list
	}
	var err error
	if s.CallRules, err = o.callRules(s.AllowList); err != nil {
		return nil, err
	}
	s.FilterLog = o.seccompLog
	s.Timeout, s.KillAfter = o.timeout, o.killAfter
	s.CPUTime, s.CgroupParent, s.Name = o.cpuTime, o.cgroup, o.name
	if s.Linux.Resources, err = o.limits(); err != nil {
		return nil, err
	}
	s.OutputLimit, s.OutputAction = o.output, o.overrun
	s.AllowDowngrade = o.downgrade
	s.Monitor, s.Notify, s.IPC = o.denied, o.notify, o.ipc
	s.View = append(append(s.View, o.rules...), o.protectPolicy()...)
	if err := o.connectIPC(); err != nil {
		return nil, err
	}
	if err := o.tellPolicy(s); err != nil {
		return nil, err
	}
	s.Process.Env = s.Environ(o.environment, o.envAll, o.clearEnv, o.env)
	return s, nil
}

func (o *options) conflict() error {
	needs := func(level isolate.Level, name, value string) error {
		return &isolate.SpecError{Field: name, Value: value, Problem: "can't be had at level " + o.level.String() + ", but from level " + level.String() + " up"}
	}
	for fd, name := range []string{"--stdin", "--stdout", "--stderr"} {
		if _, given := o.fds[fd]; given && []string{o.stdin, o.stdout, o.stderr}[fd] != "" {
			return &usageError{flag: name, problem: fmt.Sprintf("--fd N:%d and %s exclude each other", fd, name)}
		}
	}
	switch {
	case o.envAll && o.clearEnv:
		return &usageError{flag: "--clearenv", problem: "--env-all and --clearenv exclude each other"}
	case o.killAfter > 0 && o.timeout == 0:
		return &usageError{flag: "--kill-after", problem: "--kill-after needs --timeout"}
	case o.rootOverlay && o.root == nil:
		return &usageError{flag: "--rootfs-overlay", problem: "--rootfs-overlay needs --rootfs"}
	case o.rootOverlay && !o.root.Readonly:
		return &usageError{flag: "--rootfs-overlay", problem: "--rootfs-overlay and --rootfs DIR:rw exclude each other: one keeps writes in memory, the other in the tree"}
	case o.level < isolate.Namespaced && o.root != nil:
		return needs(isolate.Namespaced, "rootfs", o.root.Path)
	case o.level < isolate.Namespaced && o.network == "none":
		return needs(isolate.Namespaced, "network", o.network)
	case o.level < isolate.Namespaced && o.hostname != "":
		return needs(isolate.Namespaced, "hostname", o.hostname)
	case o.level < isolate.User && o.seccomp != "" && o.seccomp != "unconfined":
		return needs(isolate.User, "seccomp", o.seccomp)
	case o.level < isolate.User && len(o.syscalls) > 0:
		return needs(isolate.User, "syscalls", o.syscalls[0])
	case o.level < isolate.User && o.seccompLog:
		return needs(isolate.User, "seccomp-log", "true")
	case o.level < isolate.User && len(o.rules) > 0:
		return needs(isolate.User, string(o.rules[0].Kind), o.rules[0].Path)
	}
	return nil
}

func (o *options) memory() *specs.LinuxMemory {
	if o.resources.Memory == nil {
		o.resources.Memory = &specs.LinuxMemory{}
	}
	return o.resources.Memory
}

func (o *options) cpu() *specs.LinuxCPU {
	if o.resources.CPU == nil {
		o.resources.CPU = &specs.LinuxCPU{}
	}
	return o.resources.CPU
}

// throttle adds the rates of one device.
func (o *options) throttle(major, minor int64, rates map[string]uint64) error {
	for key := range rates {
		if o.twice(fmt.Sprintf("%s %d:%d", key, major, minor)) {
			return problem("gives " + key + " of that device a second time")
		}
	}
	isolate.Throttle(&o.resources, major, minor, rates)
	return nil
}

// limits are the resources as OCI has them, where the limit on swap counts memory as well. Without --swap there is
// none: what was asked for is how much memory the payload may use.
func (o *options) limits() (*specs.LinuxResources, error) {
	r := &o.resources
	switch {
	case r.Memory != nil && o.swap < 0:
		r.Memory.Swap = r.Memory.Limit
	case r.Memory != nil && *r.Memory.Limit > math.MaxInt64-o.swap:
		return nil, &isolate.SpecError{Field: "swap", Value: strconv.FormatInt(o.swap, 10), Problem: "is too large"}
	case r.Memory != nil:
		total := *r.Memory.Limit + o.swap
		r.Memory.Swap = &total
	case o.swap >= 0:
		return nil, &usageError{flag: "--swap", problem: "--swap needs --memory"}
	}
	if r.Memory == nil && r.Pids == nil && r.CPU == nil && r.BlockIO == nil {
		return nil, nil
	}
	return r, nil
}

// explainFlags are those of run, and two more.
func explainFlags() []flag {
	return append(slices.Clone(runFlags),
		flag{"--plan", "", "", func(o *options, v string) error { o.plan = v == "true"; return nil }},
		flag{"--origin", "", "", func(o *options, v string) error { o.origin = v == "true"; return nil }})
}
