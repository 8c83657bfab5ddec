//go:build cgo && (amd64 || arm64)

package isolate

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/jailrun/jail/isolate/internal/jailinit"
)

// try builds the jail of a Spec and ends it before the payload's exec. The Process that it returns has ended.
func try(spec *Spec) (*Process, error) {
	c := FromSpec(context.Background(), spec)
	c.try = true
	return start(c, nil)
}

// CheckLevels tries every level with an empty payload, the weakest first.
func CheckLevels() []LevelReport {
	var reports []LevelReport
	for _, level := range Levels() {
		spec := NewSpec(level, "/")
		spec.Process.Cwd = "/"
		_, err := try(spec)
		reports = append(reports, LevelReport{Level: level, Err: err})
	}
	return reports
}

// Explain tells what a run of the Spec would be. Each step is tried first, so that the Plan is the one that will run;
// only the payload's program is not started. Its errors are those of Cmd.Start.
func Explain(spec *Spec) (*Explanation, error) {
	p, err := try(spec)
	if err != nil {
		return nil, err
	}
	plan := p.plan
	e := &explainer{spec: p.spec, plan: plan, host: p.host, level: p.result.GivenLevel}
	return &Explanation{
		Level: e.level, Plan: plan,
		Permissions: e.permissions(), Borders: e.borders(), Monitored: e.monitored(), EscapeRoutes: e.escapeRoutes(),
	}, nil
}

type explainer struct {
	spec  *Spec
	plan  *Plan
	host  *Host
	level Level
	out   []string
}

func (e *explainer) say(format string, args ...any) {
	e.out = append(e.out, fmt.Sprintf(format, args...))
}

func (e *explainer) take() []string {
	out := e.out
	e.out = nil
	return append([]string{}, out...)
}

func (e *explainer) gives(g Guarantee) bool { return slices.Contains(e.plan.Given, g) }

func (e *explainer) permissions() []string {
	spec, plan := e.spec, e.plan
	if !e.gives(FileView) {
		e.say("files: all that uid %d may open", plan.UID)
	}
	var read, readOnly, write, writeOnly, private, copied []string
	if plan.scratch != "" {
		private = append(private, plan.scratch)
	}
	for _, m := range plan.mounts {
		switch {
		case m.copied:
			copied = append(copied, m.path)
		case m.write && m.noExec:
			writeOnly = append(writeOnly, m.path)
		case m.write:
			write = append(write, m.path)
		case m.noExec:
			readOnly = append(readOnly, m.path)
		case m.source != "":
			read = append(read, m.path)
		case m.denied:
			e.say("closed: %q", m.path)
		default:
			private = append(private, m.path)
		}
	}
	for _, l := range []struct {
		what  string
		paths []string
	}{{"read and execute", read}, {"read", readOnly}, {"write", write}, {"write, but not execute", writeOnly}, {"write to a copy in memory, which is dropped at the end", copied}, {"private and empty at the start", private}} {
		if len(l.paths) > 0 {
			e.say("%s: %s", l.what, quoteAll(l.paths))
		}
	}
	exec := plan.Steps[len(plan.Steps)-1]
	var names []string
	for _, kv := range exec.Env {
		name, _, _ := strings.Cut(kv, "=")
		names = append(names, name)
	}
	e.say("environment: %s", orNone(quoteAll(names)))
	for _, n := range spec.Notify {
		e.say("%s, by the launcher: %q", n.Kind, n.What)
	}
	for _, r := range spec.IPC {
		e.say("by the broker: %q", r)
	}
	if e.gives(PrivateNetwork) {
		e.say("network: a loopback device of its own")
	} else {
		e.say("network: the host's")
	}
	for _, s := range plan.Steps {
		if s.Op == "capset" {
			e.say("capabilities: %s", strings.Join(s.List, " "))
		}
	}
	if list := spec.AllowList; list != nil {
		e.say("system calls: those of the allow-list %q alone", list.Name)
	}
	if rules := spec.CallRules; rules != nil {
		e.say("system calls, by rules of their own: %s", strings.Join(rules.Rules, "; "))
	}
	if e.gives(BaselineFilter) {
		e.say("system calls: all but those of the baseline (keys, bpf, perf, io_uring, modules, kexec, userfaultfd, limits of others, terminal injection, calls newer than it)")
	} else if spec.AllowList == nil && spec.CallRules == nil {
		e.say("system calls: all")
	}
	return e.take()
}

func (e *explainer) borders() []string {
	spec, plan := e.spec, e.plan
	e.say("level: %s", e.level)
	identity := map[Identity]string{IdentityOwn: "its own", IdentityCaller: "the caller's", IdentityFixed: "as asked"}[plan.Identity]
	e.say("identity: uid %d, gid %d on the host (%s)", plan.UID, plan.GID, identity)
	if names := namespaceNames(plan); len(names) > 0 {
		e.say("namespaces: %s", strings.Join(names, ", "))
	}
	if e.gives(MappedUsers) && spec.mapsUsers() {
		e.say("users: a user namespace in which uid %d, gid %d are the only ids", plan.insideUID, plan.insideGID)
	}
	switch {
	case spec.Root != nil:
		e.say("root: %q, %s, with what is shown mounted into it", spec.Root.Path, rootState(spec))
	case spec.hasNamespace(specs.MountNamespace):
		e.say("root: a read-only root of its own, with what is shown mounted into it")
	case e.gives(FileView):
		e.say("root: the host's, with Landlock (ABI %d) on what may be opened", e.host.Landlock)
	}
	for _, s := range plan.Steps {
		if s.Op == "setrlimit" {
			e.say("rlimit %s %s", strings.ToLower(strings.TrimPrefix(s.Path, "RLIMIT_")), s.Data)
		}
	}
	if closed := len(spec.Linux.MaskedPaths) + len(spec.Linux.ReadonlyPaths); closed > 0 {
		e.say("masked: %s; read-only: %s", orNone(quoteAll(spec.Linux.MaskedPaths)), orNone(quoteAll(spec.Linux.ReadonlyPaths)))
	}
	if e.gives(NoNewNamespaces) {
		e.say("namespaces: no new ones")
	}
	if e.gives(NoNewPrivileges) {
		e.say("no new privileges: set-uid files and file capabilities give nothing")
	}
	if e.gives(OwnCgroup) {
		e.say("cgroup: its own, with %s", plan.describeCgroup())
		if spec.CPUTime > 0 {
			e.say("CPU time: %s of all processes together, then the jail ends", spec.CPUTime)
		}
	}
	if spec.Timeout > 0 {
		e.say("time: %s, then SIGTERM, SIGKILL %s later", spec.Timeout, spec.KillAfter)
	} else {
		e.say("time: no limit")
	}
	if spec.OutputLimit > 0 {
		what := map[OutputAction]string{
			OutputKill: "the jail is killed", OutputTruncate: "the rest is dropped", OutputBlock: "the payload waits",
		}[spec.outputAction()]
		e.say("output: %s on stdout and stderr together, then %s", roundBytes(spec.OutputLimit), what)
	}
	e.say("death: of the launcher, or of the payload's first process, ends every process of the jail")
	return e.take()
}

func (e *explainer) monitored() []string {
	e.say("exit code or signal, wall time; CPU time and largest size of the processes that were waited for")
	if e.gives(OwnCgroup) {
		e.say("CPU time and peak memory of all processes together, and whether memory or the number of tasks came to its limit")
	}
	for _, a := range e.plan.absent {
		e.say("whether %q, which is absent, comes into being", a.path)
	}
	if e.spec.Monitor {
		e.say("calls that a filter refuses; opens, execs and connects that the view or the network does not allow: each of them waits for the launcher")
	}
	if e.spec.OutputLimit > 0 {
		e.say("bytes of output: stdout and stderr are pipes that the launcher copies from")
	}
	return e.take()
}

// escapeRoutes lists what stays open. It is made from the Plan, so that it can't promise more than is done.
func (e *explainer) escapeRoutes() []string {
	host := e.host
	landlock := landlockFor(host.Landlock)
	scoped := e.gives(FileView) && landlock.scopes != 0
	private := e.plan.pidNS
	e.say("the kernel: a flaw in a system call that is allowed")
	if !e.gives(FileView) {
		e.say("files: whatever uid %d may read or write, and every Unix socket that it may connect to", e.plan.UID)
	}
	if e.gives(FileView) && !e.gives(PrivateMounts) {
		e.say("files: names, sizes and owners can be seen (stat), also outside the view")
		e.say("sockets: every Unix socket with a path that uid %d may write to can be connected to", e.plan.UID)
	}
	if e.gives(PrivateMounts) {
		e.say("sockets: those inside shown folders can be connected to where their mode allows it")
	}
	if e.spec.Root != nil {
		e.say("root: whoever may write to %q decides what the payload finds there; no link in it leads out", e.spec.Root.Path)
	}
	for _, r := range e.spec.View {
		if r.Kind == Device {
			e.say("device %q: whatever its driver does", r.Source)
		}
	}
	if !e.gives(PrivateNetwork) {
		e.say("network: every host and port that this machine reaches, services on its loopback address among them")
	}
	if !e.gives(PrivateNetwork) && (!e.gives(FileView) || landlock.scopes == 0) {
		e.say("sockets: the host's abstract Unix sockets")
	}
	if private && !e.gives(PrivateProcesses) {
		e.say("processes: names, arguments and states of those outside can be seen in the /proc that is shown")
	}
	if !private {
		e.say("processes: those of the host can be seen")
		if !scoped {
			e.say("signals: every process of uid %d can be signalled, the supervisor among them: a payload that kills it may outlive the jail", e.plan.UID)
		}
		if !e.gives(PrivateIPC) {
			e.say("System V IPC and POSIX queues of uid %d", e.plan.UID)
		}
	}
	if !private && !host.Children {
		e.say("processes that leave the payload's session survive it: this kernel does not list children (CONFIG_PROC_CHILDREN)")
	}
	if (host.UID != 0 || host.GuestUID) && len(host.Groups) > 0 && !onlyGroup(host) {
		e.say("supplementary groups %v stay: an ordinary user can't give them up", host.Groups)
	}
	if !private && (host.UID != 0 || host.GuestUID) {
		e.say("limits, priority and affinity of every process of uid %d can be changed", e.plan.UID)
	}
	for _, s := range e.plan.Steps {
		if s.wire.op == jailinit.OpCaps && s.wire.a != 0 && e.plan.flags&unix.CLONE_NEWUSER == 0 {
			e.say("capabilities outside a user namespace: %s count for all that is in reach of the payload", strings.Join(s.List, " "))
		}
	}
	if e.plan.UID == 0 {
		e.say("uid 0 without capabilities: files that root owns, as far as they are shown")
	}
	if e.plan.keepKill && slices.ContainsFunc(e.plan.mounts, func(m mounted) bool { return m.write }) {
		e.say("writable folders: new files belong to the folder's owner, and the payload may make them set-uid")
	}
	if !e.gives(BaselineFilter) && e.spec.AllowList == nil && e.spec.CallRules == nil {
		e.say("system calls: no filter")
	}
	switch r := e.spec.Linux.Resources; {
	case !e.gives(OwnCgroup):
		e.say("resources: memory, processes and disk are bounded by rlimits and the sizes of private folders alone")
	case r == nil || r.Memory == nil:
		e.say("resources: memory has no limit (--memory)")
	}
	return e.take()
}

// rootState says what happens to what is written to a root file system.
func rootState(s *Spec) string {
	switch {
	case s.RootOverlay:
		return "with writes kept in memory"
	case s.Root.Readonly:
		return "read-only"
	}
	return "writable"
}

// namespaceNames are the flags of clone(2) and unshare(2) in the words of namespaces(7).
func namespaceNames(p *Plan) []string {
	flags := slices.Clone(p.CloneFlags)
	// those that are not made by the clone
	for _, later := range []struct {
		given Guarantee
		flag  string
	}{{MappedUsers, "CLONE_NEWUSER"}, {PrivateCgroups, "CLONE_NEWCGROUP"}, {PrivateNetwork, "CLONE_NEWNET"}} {
		if slices.Contains(p.Given, later.given) && !slices.Contains(flags, later.flag) {
			flags = append(flags, later.flag)
		}
	}
	for i, f := range flags {
		flags[i] = strings.ToLower(strings.TrimPrefix(f, "CLONE_NEW"))
		if flags[i] == "ns" {
			flags[i] = "mount"
		}
	}
	return flags
}

func onlyGroup(h *Host) bool { return len(h.Groups) == 1 && h.Groups[0] == h.GID }

func quoteAll(list []string) string {
	var quoted []string
	for _, s := range list {
		quoted = append(quoted, fmt.Sprintf("%q", s))
	}
	return strings.Join(quoted, " ")
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}

// baseline is the filter of level user and up, as bytes.
func baseline() []byte { return filterBytes(baselineFilter) }

func defaultAllowList() []byte { return filterBytes(defaultFilter) }

func filterBytes(filter []unix.SockFilter) []byte {
	b := make([]byte, 0, len(filter)*8)
	for _, i := range filter {
		b = append(b, byte(i.Code), byte(i.Code>>8), i.Jt, i.Jf, byte(i.K), byte(i.K>>8), byte(i.K>>16), byte(i.K>>24))
	}
	return b
}
