package isolate

import (
	"os"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/jailrun/jail/ipc"
)

// Level is how much isolation is asked for. Each level includes the one before.
type Level int

// The levels. What each adds and needs is in the package documentation.
const (
	Basic Level = iota + 1
	User
	Namespaced
	Limited
	Contained
)

var levelNames = []string{Basic: "basic", User: "user", Namespaced: "namespaced", Limited: "limited", Contained: "contained"}

// Levels lists all levels, the weakest first.
func Levels() []Level { return []Level{Basic, User, Namespaced, Limited, Contained} }

// String is the name of the level as the flag --level takes it.
func (l Level) String() string {
	if l < Basic || int(l) >= len(levelNames) {
		return "none"
	}
	return levelNames[l]
}

// ParseLevel reads a level's name.
func ParseLevel(name string) (Level, error) {
	if i := slices.Index(levelNames, name); i > 0 {
		return Level(i), nil
	}
	return 0, &SpecError{Field: "level", Value: name, Problem: "is not a level; the levels are " + strings.Join(levelNames[1:], ", ")}
}

// MarshalText writes the level's name.
func (l Level) MarshalText() ([]byte, error) { return []byte(l.String()), nil }

// UnmarshalText reads a level's name; "none" is no level.
func (l *Level) UnmarshalText(b []byte) error {
	if string(b) == "none" {
		*l = 0
		return nil
	}
	v, err := ParseLevel(string(b))
	*l = v
	return err
}

// A Guarantee is something that a level promises and a Plan has to give.
type Guarantee string

// The guarantees, from the level that is named first.
const (
	OwnSession       Guarantee = "own-session"        // basic: no terminal, session or process group is shared
	ListedFDs        Guarantee = "listed-fds"         // basic: the payload holds only the fds that it was given
	NoNewPrivileges  Guarantee = "no-new-privileges"  // basic: set-uid files and file capabilities give nothing
	DiesWithLauncher Guarantee = "dies-with-launcher" // basic: of programs that do not attack their supervisor
	FileView         Guarantee = "file-view"          // user: files outside the view can't be opened
	OtherIdentity    Guarantee = "other-identity"     // user: as root another uid, without groups and capabilities
	BaselineFilter   Guarantee = "system-call-filter" // user: the system calls that only attackers miss are refused
	PrivateMounts    Guarantee = "private-mounts"     // namespaced: what is outside the view does not exist
	PrivateProcesses Guarantee = "private-processes"  // namespaced: no process outside is seen, and none survives
	PrivateIPC       Guarantee = "private-ipc"        // namespaced: System V IPC and POSIX queues
	PrivateHostname  Guarantee = "private-hostname"   // namespaced
	PrivateNetwork   Guarantee = "private-network"    // namespaced: a loopback device and nothing else
	PrivateCgroups   Guarantee = "private-cgroups"    // namespaced: the host's cgroup paths are not seen
	OwnCgroup        Guarantee = "own-cgroup"         // limited: memory, tasks and CPU of the whole tree can be limited, and are counted
	AllowListFilter  Guarantee = "allow-list"         // contained: the system calls that no program needs are refused as well
	MaskedPaths      Guarantee = "masked-paths"       // contained: what of /proc and /sys tells of the machine, or changes it, is closed
	MappedUsers      Guarantee = "mapped-users"       // contained: the payload's ids count in a user namespace alone
	NoCapabilities   Guarantee = "no-capabilities"    // contained: not in any set
	NoNewNamespaces  Guarantee = "no-new-namespaces"  // contained
)

// promises of each level, without those of the levels before.
var promises = [][]Guarantee{
	Basic:      {OwnSession, ListedFDs, NoNewPrivileges, DiesWithLauncher},
	User:       {FileView, OtherIdentity, BaselineFilter},
	Namespaced: {PrivateMounts, PrivateProcesses, PrivateIPC, PrivateHostname, PrivateNetwork, PrivateCgroups},
	Limited:    {OwnCgroup},
	Contained:  {AllowListFilter, MaskedPaths, MappedUsers, NoCapabilities, NoNewNamespaces},
}

// NewSpec is the Spec of a command at a level, as a front end starts from it.
func NewSpec(level Level, name string, args ...string) *Spec {
	s := &Spec{}
	s.Process = &specs.Process{Args: append([]string{name}, args...), NoNewPrivileges: true}
	s.SetLevel(level)
	return s
}

// SetLevel makes level the Spec's: its promises, namespaces, identity, file view and filter. What was asked for beyond
// a level (rules, capabilities, limits, the network) stays. It is the only place that knows what a level is; nothing
// behind it looks at the name.
func (s *Spec) SetLevel(level Level) {
	s.Level = level
	s.Promised = nil
	for l := Basic; l <= level; l++ {
		s.Promised = append(s.Promised, promises[l]...)
	}
	var asked []Rule // a new slice: the old one may be another Spec's as well
	for _, r := range s.View {
		if !r.Default {
			asked = append(asked, r)
		}
	}
	s.View = asked
	s.Filter = nil
	before := s.Linux
	s.Linux = &specs.Linux{}
	if before != nil {
		s.Linux.Resources = before.Resources
	}
	s.KeepCapabilities = level == Basic
	s.Cgroup = level >= Limited
	if level >= User {
		s.Filter = baseline()
		s.View = append(s.View, defaultView(level)...)
	}
	if level >= Namespaced {
		for _, ns := range []specs.LinuxNamespaceType{
			specs.MountNamespace, specs.PIDNamespace, specs.IPCNamespace,
			specs.UTSNamespace, specs.NetworkNamespace, specs.CgroupNamespace,
		} {
			s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: ns})
		}
		if s.Hostname == "" {
			s.Hostname = defaultHostname
		}
	}
	if level >= Contained {
		s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
		s.Linux.MaskedPaths = slices.Clone(maskedPaths)
		s.Linux.ReadonlyPaths = slices.Clone(readonlyPaths)
		if s.AllowList == nil {
			s.AllowList = DefaultAllowList()
		}
	}
}

// defaultHostname is a jail's where none was asked for.
const defaultHostname = "jail"

// shownFolders are readable and executable at every level from user up, where they exist.
var shownFolders = []string{
	"/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/etc", "/opt", "/nix/store", "/gnu/store",
	"/snap", "/var/lib/ca-certificates", "/run/current-system",
}

// hiddenFolders are empty, private and writable where the view is made of mounts.
var hiddenFolders = []string{"/tmp", "/var/tmp", "/dev/shm", "/run"}

// defaultView is the file view of a level before anything is asked for.
func defaultView(level Level) []Rule {
	var v []Rule
	for _, dir := range shownFolders {
		v = append(v, Rule{Kind: Show, Path: dir, Source: dir, Optional: true, Default: true})
	}
	v = append(v,
		Rule{Kind: Workdir, Default: true},
		Rule{Kind: Resolver, Optional: true, Default: true},
		Rule{Kind: Proc, Path: "/proc", Default: true},
		Rule{Kind: Dev, Path: "/dev", Default: true})
	sys := Rule{Kind: Sys, Path: "/sys", Default: true}
	if level < Namespaced {
		return append(v, sys, Rule{Kind: Scratch, Default: true})
	}
	for _, dir := range hiddenFolders {
		v = append(v, Rule{Kind: Tmpfs, Path: dir, Default: true})
	}
	return append(v, Rule{Kind: Home, Default: true}, sys)
}

// DefaultEnv picks from environ ("NAME=VALUE", …) what a jail gets when nothing else is asked for: PATH, HOME, USER,
// LOGNAME, LANG, LC_*, TERM and TZ, and with the host's network the proxy and certificate variables.
func DefaultEnv(environ []string, hostNetwork bool) []string {
	var env []string
	for _, kv := range environ {
		name, _, ok := strings.Cut(kv, "=")
		if ok && (slices.Contains(defaultEnv, name) || strings.HasPrefix(name, "LC_") ||
			hostNetwork && slices.Contains(networkEnv, name)) {
			env = append(env, kv)
		}
	}
	return env
}

// RootfsEnv is env as it is in a root file system of its own, where PATH, HOME and the names of the host's users say
// nothing: PATH is that of most systems, HOME /root for uid 0 and / for others (the root's passwd file is not read).
func RootfsEnv(env []string, uid int) []string {
	home := "/"
	if uid == 0 {
		home = "/root"
	}
	kept := slices.DeleteFunc(slices.Clone(env), func(kv string) bool {
		name, _, _ := strings.Cut(kv, "=")
		return slices.Contains([]string{"PATH", "HOME", "USER", "LOGNAME"}, name)
	})
	return append(kept, "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME="+home)
}

var (
	defaultEnv = []string{"PATH", "HOME", "USER", "LOGNAME", "LANG", "TERM", "TZ"}
	networkEnv = []string{
		"http_proxy", "https_proxy", "ftp_proxy", "all_proxy", "no_proxy",
		"HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "ALL_PROXY", "NO_PROXY",
		"SSL_CERT_FILE", "SSL_CERT_DIR", "CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS", "GIT_SSL_CAINFO",
	}
)

// Environ is the environment for Process.Env that comes of a caller's by what flags and policies say: all of it or none
// instead of DefaultEnv, and given, as "NAME=VALUE", or "NAME" to pass the caller's. It goes by the level, the network, the
// root and the identity of the Spec; nil, where nothing is asked for, is isolate's default.
func (s *Spec) Environ(caller []string, all, none bool, given []string) []string {
	if !all && !none && len(given) == 0 {
		return nil
	}
	env := []string{}
	switch {
	case all:
		env = slices.DeleteFunc(slices.Clone(caller), func(kv string) bool {
			return s.Level >= User && strings.HasPrefix(kv, "TMPDIR=") || // the jail has its own
				strings.HasPrefix(kv, ipc.FDEnv+"=") || // nobody but the outer jail's payload has that fd
				strings.HasPrefix(kv, "JAIL_POLICY=") && (s.Level >= Namespaced || strings.HasPrefix(kv, "JAIL_POLICY=/proc/")) // an outer jail's
		})
	case !none:
		env = DefaultEnv(caller, s.HostNetwork || s.Level < Namespaced)
		if s.Root != nil {
			uid := 0 // as the payload sees it in a root file system of its own
			switch s.Identity {
			case IdentityCaller:
				uid = os.Getuid()
			case IdentityFixed:
				uid = int(s.Process.User.UID)
			default:
			}
			env = RootfsEnv(env, uid)
		}
	}
	for _, kv := range given {
		name, _, hasValue := strings.Cut(kv, "=")
		named := func(kv string) bool { return strings.HasPrefix(kv, name+"=") }
		if !hasValue {
			i := slices.IndexFunc(caller, named)
			if i < 0 {
				continue // there is none to pass
			}
			kv = caller[i]
		}
		env = append(slices.DeleteFunc(env, named), kv)
	}
	return env
}
