package isolate

import (
	"slices"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// Spec is what is wanted: the OCI configuration plus what OCI has no word for. Nothing behind it knows whether it came
// from flags, a policy or a bundle. Of the OCI part these are read: Process.Args, Env, Cwd, User, Rlimits,
// NoNewPrivileges; Hostname; Root; Linux.Namespaces, MaskedPaths and ReadonlyPaths, and, from a level with a cgroup, Linux.Resources (Memory, Pids, CPU, BlockIO,
// Unified).
//
// Zero values: Process.Cwd is the caller's working folder, with a Root "/"; a nil Process.Env is DefaultEnv of the
// caller's, with a Root RootfsEnv of that.
//
// With a Root the payload's files are those of the folder Root.Path on the host. What a level shows of the host is left
// out then, the rules that were asked for stand on top. The tree is hostile: no link in it leads out of it.
type Spec struct {
	specs.Spec

	Level    Level       `json:"level"`    // what was asked for, for the Result
	Promised []Guarantee `json:"promised"` // the Plan has to give them

	RootOverlay bool `json:"rootOverlay,omitempty"` // what is written to Root is kept in memory and dropped at the end

	View []Rule `json:"view"` // the file view; without rules all files are as the caller has them

	Identity         Identity `json:"identity,omitempty"`         // "" is the level's: the caller's at basic, else its own
	KeepCapabilities bool     `json:"keepCapabilities,omitempty"` // start from the caller's capabilities, not from none
	CapAdd           []string `json:"capAdd,omitempty"`           // "NET_ADMIN", "CAP_NET_ADMIN" or "ALL"
	CapDrop          []string `json:"capDrop,omitempty"`

	HostNetwork bool   `json:"hostNetwork,omitempty"`
	NoFilter    bool   `json:"noFilter,omitempty"` // --seccomp unconfined
	Filter      []byte `json:"-"`                  // classic BPF, struct sock_filter by struct sock_filter

	AllowList *AllowList `json:"allowList,omitempty"` // a second filter; NoFilter is not about it, none is a choice
	CallRules *CallRules `json:"callRules,omitempty"` // a third one; neither is about it
	FilterLog bool       `json:"filterLog,omitempty"` // the kernel logs what the filters refuse (SECCOMP_FILTER_FLAG_LOG)

	Cgroup       bool   `json:"cgroup,omitempty"`       // the jail gets a cgroup of its own; Linux.Resources are its limits
	CgroupParent string `json:"cgroupParent,omitempty"` // where that is made; "" is the best place found
	Name         string `json:"name,omitempty"`         // of the jail: its cgroup is jail-NAME; "" is a random one

	CPUTime      time.Duration `json:"cpuTime,omitempty"`      // of all processes of the jail together; 0 is no limit
	OutputLimit  int64         `json:"outputLimit,omitempty"`  // bytes, of stdout and stderr together; 0 is no limit
	OutputAction OutputAction  `json:"outputAction,omitempty"` // what happens at the limit; "" is OutputKill

	Timeout   time.Duration `json:"timeout,omitempty"`   // wall clock from the payload's start; 0 is none
	KillAfter time.Duration `json:"killAfter,omitempty"` // from SIGTERM at the time-out to SIGKILL

	OuterProc bool `json:"outerProc,omitempty"` // where no fresh procfs can be mounted, the one that is there is shown: without PrivateProcesses

	// Monitor reports in Result.Denied what the jail refuses: calls that a filter refuses with an errno, and opens, execs
	// and connects that the view or the network does not allow. Each of these waits for this process, the others do not.
	// A filter's refusal is given by this process, and by the kernel (ENOSYS) where this process can't. Of an open, exec
	// or connect this process looks at the arguments and tells what the answer is going to be; the kernel then gives the
	// answer, by arguments that it reads itself. So what is reported is no proof against a payload that changes them
	// meanwhile, but what it may do is the same without a monitor.
	Monitor bool `json:"monitor,omitempty"`

	// Trace keeps what the payload uses: Cmd.Trace. Each of its system calls waits for this process then.
	Trace bool `json:"trace,omitempty"`

	Notify []Notify `json:"notify,omitempty"` // what this process does for the payload
	IPC    []IPC    `json:"ipc,omitempty"`    // what a broker of the caller's does for it, at the fd that JAIL_IPC_FD names

	AllowDowngrade bool `json:"allowDowngrade,omitempty"` // a lower level is better than none
}

// AllowList is a filter that was asked for beyond the level's. Both are loaded, so that it can't take back what the
// level's refuses: of two verdicts the kernel takes the stricter.
type AllowList struct {
	Name string `json:"name"`          // "default", or a file's: for an Explanation
	BPF  []byte `json:"-"`             // as Spec.Filter
	Log  bool   `json:"log,omitempty"` // as Spec.FilterLog, for this one
}

// CallRules is a filter of rules for single calls. It refuses what the others let through, never the other way.
type CallRules struct {
	Rules []string `json:"rules"`           // in words, for an Explanation
	BPF   []byte   `json:"-"`               // as Spec.Filter
	First bool     `json:"first,omitempty"` // is loaded before the AllowList: that one lets nobody load a filter
}

// DefaultAllowList is Docker's default profile for a payload without capabilities, with the sockets of Unix, IP and
// netlink's NETLINK_ROUTE alone, and for the native ABI alone (32-bit programs are killed). Calls that a capability
// would bring there are refused whatever CapAdd says.
func DefaultAllowList() *AllowList { return &AllowList{Name: "default", BPF: defaultAllowList()} }

// OutputAction says what happens when the payload writes more than OutputLimit.
type OutputAction string

// The actions.
const (
	OutputKill     OutputAction = "kill"     // the jail ends, for the reason OutputExceeded
	OutputTruncate OutputAction = "truncate" // the rest is read and dropped
	OutputBlock    OutputAction = "block"    // the rest is not read: the payload waits in write(2)
)

// outputAction is what was asked for, or its default.
func (s *Spec) outputAction() OutputAction {
	if s.OutputAction == "" {
		return OutputKill
	}
	return s.OutputAction
}

// Identity says who the payload is.
type Identity string

// The identities.
const (
	// IdentityOwn is, for root, a uid and gid that no other jail and no process has; for an ordinary user its own.
	IdentityOwn Identity = "own"
	// IdentityCaller is the caller's uid and gid; from level user up without capabilities.
	IdentityCaller Identity = "caller"
	// IdentityFixed is Process.User.
	IdentityFixed Identity = "fixed"
)

// RuleKind says what a rule of the file view does.
type RuleKind string

// The kinds of rules. The first group is what users ask for, the second what levels start from.
const (
	Overlay   RuleKind = "overlay" // Source is at Path; what is written there is kept in memory and dropped at the end
	Device    RuleKind = "device"  // the device Source can be used at Path, as far as its mode allows
	Show      RuleKind = "ro-bind" // Source is readable at Path
	ShowWrite RuleKind = "bind"    // Source is writable at Path
	Deny      RuleKind = "deny"    // Path can't be opened
	Tmpfs     RuleKind = "tmpfs"   // Path is an empty, writable folder of Size bytes
	Dir       RuleKind = "dir"     // Path is a folder
	Symlink   RuleKind = "symlink" // Path is a link to Source
	File      RuleKind = "file"    // Path is a file with what FD gives until its end

	Workdir  RuleKind = "workdir"  // the working folder is readable
	Home     RuleKind = "home"     // $HOME and the home of the caller's passwd entry are empty
	Resolver RuleKind = "resolver" // with the host's network: what /etc/resolv.conf links to
	Proc     RuleKind = "proc"
	Sys      RuleKind = "sys"
	Dev      RuleKind = "dev"
	Scratch  RuleKind = "scratch" // a private TMPDIR on the host, removed at the end
)

// identity is who the payload is when nothing was asked for as well.
func (s *Spec) identity() Identity {
	switch {
	case s.Identity != "":
		return s.Identity
	case s.KeepCapabilities:
		return IdentityCaller
	}
	return IdentityOwn
}

// promised is Promised without what was given up by choice.
func (s *Spec) promised() []Guarantee {
	var list []Guarantee
	shown := slices.ContainsFunc(s.View, func(r Rule) bool { return showsProc(r.Kind, r.Source, r.Path) })
	for _, g := range s.Promised {
		chosen := g == PrivateNetwork && s.HostNetwork || g == BaselineFilter && s.NoFilter || g == PrivateProcesses && shown ||
			g == AllowListFilter && s.AllowList == nil || g == NoCapabilities && len(s.CapAdd) > 0 || (g == MappedUsers || g == NoNewNamespaces) && s.Identity == IdentityCaller
		if !chosen {
			list = append(list, g)
		}
	}
	return list
}

// showsProc says whether a rule brings the procfs along that names the host's processes. The host's / as the jail's own
// does not: a fresh one covers it.
func showsProc(kind RuleKind, source, path string) bool {
	shows := kind == Show || kind == ShowWrite || kind == Overlay
	return shows && (within(source, "/proc") || source == "/" && path != "/")
}

// mapsUsers says whether the payload's ids are others inside than on the host, or could be: in a user namespace of its
// own, also for root.
func (s *Spec) mapsUsers() bool {
	if s.identity() == IdentityCaller {
		return false
	}
	return s.Root != nil || slices.ContainsFunc(s.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.UserNamespace })
}

// at is the Spec at another level.
func (s *Spec) at(level Level) *Spec {
	other := *s
	other.SetLevel(level)
	return &other
}

// Rule is one line of the file view. Of two rules the one for the longer path wins; for the same path Deny wins, then
// one that names it before one whose pattern matches it, then the later one. Paths are absolute.
//
// A Deny for a path that does not exist is an error where the payload could make it; with Report the run goes on. The
// pattern of a Deny may always match something that is made later. A Show with Report is Optional as well.
type Rule struct {
	Kind     RuleKind `json:"kind"`
	Path     string   `json:"path,omitempty"`   // in the jail
	Source   string   `json:"source,omitempty"` // on the host; of a link: where it points to
	Size     int64    `json:"size,omitempty"`   // of a tmpfs, in bytes; 0 is the default
	FD       int      `json:"fd,omitempty"`     // of a File: the caller's fd
	Optional bool     `json:"optional,omitempty"`
	NoExec   bool     `json:"noExec,omitempty"`  // of Show and ShowWrite: nothing in it can be executed
	Report   bool     `json:"report,omitempty"`  // Result.Appeared names it where it is absent and comes into being
	Glob     bool     `json:"glob,omitempty"`    // Path, and of Show and ShowWrite Source, is a pattern: see IsGlob
	Default  bool     `json:"default,omitempty"` // it came with the level
}
