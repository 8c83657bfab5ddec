package policies

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/jailrun/jail/isolate"
)

// A policy as an OCI configuration, and the other way. Each says things that the other has no word for; those are
// listed, one by one.

// Lost is something that a conversion could not take over.
type Lost struct {
	Key string // in a policy "borders.timeout: 10m", in a configuration "process.oomScoreAdj"
	Why string
}

// Filters has the system-call filters that a word stands for, "baseline" and "default", as OCI has them.
type Filters map[string]*specs.LinuxSeccomp

// nobody is the id of root's payloads on the host in a configuration, which has to name one.
const nobody = 65534

// defaultPids is the limit on tasks where nothing is said, as isolate has it.
const defaultPids = 1024

// ownMounts are the file systems that a jail has of its own, as OCI has them.
var ownMounts = []specs.Mount{
	{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "nodev", "noexec"}},
	{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "noexec", "mode=755", "size=64k"}},
	{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"}},
	{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "nodev", "noexec", "ro"}},
}

// notInOCI says why a key can't be in a configuration.
var notInOCI = map[string]string{
	"env-all":         "a configuration has values alone, and those of whoever starts it are not known",
	"proc":            "a container has a /proc of its own, or does not start",
	"fd":              "who starts a container passes it its fds",
	"stdin":           "who starts a container gives it its streams",
	"stdout":          "who starts a container gives it its streams",
	"stderr":          "who starts a container gives it its streams",
	"rootfs-overlay":  "OCI has no root that is written to in memory",
	"timeout":         "OCI has no limit on wall time",
	"kill-after":      "OCI has no limit on wall time",
	"cpu-time":        "OCI has no limit on CPU time that is used up",
	"output-limit":    "OCI does not count output",
	"allow-downgrade": "OCI knows no levels",
	"result":          "an OCI runtime reports no result",
	"json":            "an OCI runtime reports no result",
	"verbose":         "an OCI runtime reports no result",
	"denied":          "an OCI runtime reports no refusals",
	"notify":          "an OCI runtime makes no calls for a payload",
	"ipc":             "an OCI runtime has no broker",
	"overlay":         "OCI's overlay needs folders for what is written, which somebody has to make and remove",
	"dir":             "OCI makes no folders",
	"symlink":         "OCI makes no links",
	"file":            "OCI makes no files",
}

// toOCI is a conversion to OCI.
type toOCI struct {
	config *specs.Spec
	spec   *isolate.Spec
	lost   []Lost
}

// OCI is the policy as an OCI configuration, for this host and caller, and what of it is lost. Optional files
// are looked up now. The root of a policy without rootfs is an empty folder "rootfs" in the bundle. The command
// is sh, which nobody asked for.
func (l *Loaded) OCI(filters Filters) (*specs.Spec, []Lost, error) {
	c := toOCI{}
	kept := &Loaded{Name: l.Name}
	for _, s := range l.Settings {
		if s.setter() != nil && !s.profile() { // a Spec has a place for it
			kept.Settings = append(kept.Settings, s)
		}
	}
	var err error
	if c.spec, err = kept.Spec("sh"); err != nil {
		return nil, nil, err
	}
	config := c.spec.Spec
	c.config = &config
	config.Version = specs.Version
	linux := *config.Linux
	config.Linux = &linux
	effective := Effective(l.Settings)
	for i := range effective {
		c.setting(&effective[i], effective)
	}
	if err := c.process(); err != nil {
		return nil, nil, err
	}
	if config.Root == nil {
		config.Root = &specs.Root{Path: "rootfs", Readonly: true}
	}
	c.namespaces()
	c.cgroup()
	c.filter(filters, kept.Settings, l.Settings)
	return c.config, c.lost, c.files()
}

// profile says whether a setting is a filter of a file.
func (s *Setting) profile() bool {
	return s.Section == "permissions" && s.Key == "seccomp" && (strings.Contains(s.Value, "/") || strings.HasSuffix(s.Value, ".json"))
}

func (c *toOCI) lose(key, why string) { c.lost = append(c.lost, Lost{key, why}) }

// setting lists what of one setting OCI has no word for.
func (c *toOCI) setting(s *Setting, all []Setting) {
	key := s.Line()
	switch why, none := notInOCI[s.Key]; {
	case none && s.Value != "false":
		c.lose(key, why)
	case s.Section == syscallsSection:
		c.lose(key, "a configuration has one filter; this is the level's")
	case !none && s.setter() == nil:
		c.lose(key, "jail has its own way for it")
	case s.Key == "env" && !strings.Contains(s.Value, "="):
		c.lose(key, "a configuration has values alone, and that of whoever starts it is not known")
	case s.Key == "level" && c.spec.Level < isolate.Namespaced:
		c.lose(key, "OCI knows no container without a root and namespaces: this is level namespaced")
	case s.Key == "user" && s.Value == "caller":
		c.lose(key, "a configuration names a uid: "+strconv.Itoa(os.Getuid())+", yours")
	case s.Glob:
		c.lose(key, "a configuration has no patterns")
	case s.Section == filesSection && s.Report:
		c.lose(key, "OCI neither waits for a path to come into being nor tells of it; one that exists is as it should be")
	case s.source != "" && slices.ContainsFunc(all, func(o Setting) bool {
		return o.Section == filesSection && o.Key == "deny" && o.place != s.place && within(s.place, o.place)
	}):
		c.lose(key, "it lies in what is denied, and a configuration masks all of that")
	case s.Section == filesSection && s.optional:
		c.lose(key, "a configuration has what it names: it is in there if it exists now")
	}
}

// process fills in who the payload is, its environment and its capabilities.
func (c *toOCI) process() error {
	p := *c.spec.Process
	c.config.Process = &p
	if p.Cwd == "" {
		p.Cwd = "/"
		if c.spec.Root == nil {
			cwd, err := os.Getwd()
			if err != nil {
				return err
			}
			p.Cwd = cwd
		}
	}
	if p.Env == nil {
		p.Env = isolate.DefaultEnv(os.Environ(), c.spec.HostNetwork)
		if c.spec.Root != nil {
			p.Env = isolate.RootfsEnv(p.Env, 0)
		}
	} else { // but for what the caller would pass
		p.Env = slices.Clone(p.Env)
	}
	for _, l := range c.lost {
		if name, ok := strings.CutPrefix(l.Key, "permissions.env: "); ok {
			p.Env = slices.DeleteFunc(p.Env, func(kv string) bool { return strings.HasPrefix(kv, name+"=") })
		}
	}
	switch c.spec.Identity {
	case isolate.IdentityCaller:
		p.User = specs.User{UID: uint32(os.Getuid()), GID: uint32(os.Getgid())}
	case isolate.IdentityFixed:
	default:
		p.User = hostUser()
		if c.userNamespace() || c.spec.Root != nil {
			p.User = specs.User{} // as most runtimes want it
		}
		if os.Getuid() == 0 {
			c.lose("borders.user", "a jail has a uid that nobody else has, to whom the owner's files are its own; a configuration names one: 65534")
		}
	}
	caps, err := isolate.AddedCapabilities(c.spec.CapAdd, c.spec.CapDrop)
	if err != nil {
		return err
	}
	p.Capabilities = &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps}
	if p.User.UID != 0 {
		p.Capabilities.Inheritable, p.Capabilities.Ambient = caps, caps
	}
	return nil
}

// hostUser is who the payload is on the host when nothing is said: as root somebody else, as an ordinary user the same.
func hostUser() specs.User {
	if os.Getuid() == 0 {
		return specs.User{UID: nobody, GID: nobody}
	}
	return specs.User{UID: uint32(os.Getuid()), GID: uint32(os.Getgid())}
}

func (c *toOCI) userNamespace() bool {
	return slices.ContainsFunc(c.config.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.UserNamespace })
}

func (c *toOCI) namespaces() {
	if c.spec.Level < isolate.Namespaced {
		c.spec.HostNetwork = true
		for _, kind := range []specs.LinuxNamespaceType{specs.MountNamespace, specs.PIDNamespace, specs.IPCNamespace, specs.UTSNamespace, specs.CgroupNamespace} {
			c.config.Linux.Namespaces = append(c.config.Linux.Namespaces, specs.LinuxNamespace{Type: kind})
		}
	}
	list := slices.Clone(c.config.Linux.Namespaces)
	if c.spec.HostNetwork {
		list = slices.DeleteFunc(list, func(n specs.LinuxNamespace) bool { return n.Type == specs.NetworkNamespace })
	}
	own := c.spec.Identity == "" || c.spec.Identity == isolate.IdentityOwn
	if own && (c.spec.Root != nil || os.Getuid() != 0) && !c.userNamespace() {
		list = append(list, specs.LinuxNamespace{Type: specs.UserNamespace})
	}
	c.config.Linux.Namespaces = list
	if c.userNamespace() {
		inside := c.config.Process.User
		host := hostUser()
		if c.spec.Identity == isolate.IdentityCaller {
			host = inside
		}
		c.config.Linux.UIDMappings = []specs.LinuxIDMapping{{ContainerID: inside.UID, HostID: host.UID, Size: 1}}
		c.config.Linux.GIDMappings = []specs.LinuxIDMapping{{ContainerID: inside.GID, HostID: host.GID, Size: 1}}
	}
}

// cgroup names the cgroup, and gives it the limit on tasks that a jail has when nothing is said.
func (c *toOCI) cgroup() {
	if !c.spec.Cgroup {
		return
	}
	if c.spec.CgroupParent != "" || c.spec.Name != "" {
		name := c.spec.Name
		if name == "" {
			name = "1"
			c.lose("borders.cgroup-parent: "+c.spec.CgroupParent, "a configuration names the cgroup itself: jail-1")
		}
		c.config.Linux.CgroupsPath = filepath.Join(c.spec.CgroupParent, "jail-"+name)
	}
	resources := specs.LinuxResources{}
	if c.config.Linux.Resources != nil {
		resources = *c.config.Linux.Resources
	}
	if resources.Pids == nil {
		limit := int64(defaultPids)
		resources.Pids = &specs.LinuxPids{Limit: &limit}
	}
	c.config.Linux.Resources = &resources
}

// filter writes the filter that the policy asks for.
func (c *toOCI) filter(filters Filters, kept, all []Setting) {
	if c.spec.Level < isolate.User || c.spec.NoFilter {
		return
	}
	word := "baseline"
	if c.spec.AllowList != nil {
		word = "default"
	}
	if len(kept) < len(all) {
		for _, s := range Effective(all) {
			if s.profile() {
				c.lose(s.Line(), "copy the profile into linux.seccomp; this is the level's filter")
			}
		}
	}
	c.config.Linux.Seccomp = filters[word]
	if filter := filters[word]; filter != nil && c.spec.FilterLog {
		logged := *filter
		logged.Flags = append(slices.Clip(logged.Flags), specs.LinuxSeccompFlagLog)
		c.config.Linux.Seccomp = &logged
	}
	why := "a jail answers calls that are newer than the filter with ENOSYS, which a profile has no word for"
	if word == "default" {
		why += ", and has the baseline filter besides"
	}
	c.lose("permissions.seccomp: "+word, why)
}

// files makes mounts, devices and masked paths of the file view. Of two mounts the later one is on top, so the longer
// paths come last.
func (c *toOCI) files() error {
	var mounts []specs.Mount
	rules := slices.Clone(c.spec.View)
	if c.spec.Level < isolate.Namespaced {
		rules = append(isolate.NewSpec(isolate.Namespaced, "sh").View, slices.DeleteFunc(rules, func(r isolate.Rule) bool { return r.Default })...)
	}
	for _, r := range rules {
		if c.spec.Root != nil && r.Default && r.Kind != isolate.Tmpfs && r.Kind != isolate.Proc && r.Kind != isolate.Sys && r.Kind != isolate.Dev {
			continue // the level's view is the host's files
		}
		added, err := c.mounts(r)
		if err != nil {
			return err
		}
		for _, m := range added {
			mounts = slices.DeleteFunc(mounts, func(o specs.Mount) bool { return o.Destination == m.Destination })
			mounts = append(mounts, m)
		}
	}
	slices.SortStableFunc(mounts, func(a, b specs.Mount) int {
		return strings.Count(strings.TrimSuffix(a.Destination, "/"), "/") - strings.Count(strings.TrimSuffix(b.Destination, "/"), "/")
	})
	c.config.Mounts = mounts
	return nil
}

// mounts are those of one rule.
func (c *toOCI) mounts(r isolate.Rule) ([]specs.Mount, error) {
	own := func(destinations ...string) (list []specs.Mount) {
		for _, m := range ownMounts {
			if slices.Contains(destinations, m.Destination) {
				list = append(list, m)
			}
		}
		return list
	}
	switch r.Kind {
	case isolate.Proc:
		return own("/proc"), nil
	case isolate.Sys:
		return own("/sys"), nil
	case isolate.Dev:
		return own("/dev", "/dev/pts"), nil
	case isolate.Tmpfs:
		return []specs.Mount{tmpfs(r.Path, r.Size)}, nil
	case isolate.Home:
		home := os.Getenv("HOME")
		if !filepath.IsAbs(home) || home == "/" {
			return nil, nil
		}
		return []specs.Mount{tmpfs(home, 0)}, nil
	case isolate.Workdir:
		dir := c.config.Process.Cwd
		if hidden(dir) {
			return []specs.Mount{tmpfs(dir, 0)}, nil
		}
		return []specs.Mount{bindMount(dir, dir, false, false)}, nil
	case isolate.Resolver:
		file, err := filepath.EvalSymlinks("/etc/resolv.conf")
		if !c.spec.HostNetwork || err != nil {
			return nil, nil //nolint:nilerr // there is none to show
		}
		return []specs.Mount{bindMount(file, file, false, true)}, nil
	case isolate.Show, isolate.ShowWrite:
		if r.Glob {
			return nil, nil
		}
		if _, err := os.Stat(r.Source); err != nil && r.Optional {
			return nil, nil
		}
		return []specs.Mount{bindMount(r.Source, r.Path, r.Kind == isolate.ShowWrite, r.NoExec)}, nil
	case isolate.Deny:
		if !r.Glob {
			c.config.Linux.MaskedPaths = append(slices.Clip(c.config.Linux.MaskedPaths), r.Path)
		}
	case isolate.Device:
		kind, major, minor, err := deviceNumber(r.Source)
		if err != nil {
			return nil, fmt.Errorf("%q: %w", r.Source, err)
		}
		c.config.Linux.Devices = append(slices.Clip(c.config.Linux.Devices), specs.LinuxDevice{Path: r.Path, Type: kind, Major: major, Minor: minor})
	default: // in notInOCI
	}
	return nil, nil
}

// hidden says whether a working folder is one that a jail does not show: one that is hidden, the home or a parent of one.
func hidden(dir string) bool {
	return slices.ContainsFunc([]string{"/tmp", "/var/tmp", "/dev/shm", "/run", os.Getenv("HOME")}, func(h string) bool { return within(h, dir) })
}

func bindMount(source, place string, write, noExec bool) specs.Mount {
	m := specs.Mount{Destination: place, Type: "bind", Source: source, Options: []string{"rbind", "rprivate", "nosuid", "nodev", "ro"}}
	if write {
		m.Options[4] = "rw"
	}
	if noExec {
		m.Options = append(m.Options, "noexec")
	}
	return m
}

// tmpfs is an empty folder as a jail has it.
func tmpfs(place string, size int64) specs.Mount {
	if size == 0 {
		size = 1 << 30
	}
	source := "tmpfs"
	if place == "/dev/shm" { // as everybody calls it
		source = "shm"
	}
	return specs.Mount{
		Destination: place, Type: "tmpfs", Source: source,
		Options: []string{"nosuid", "nodev", "mode=" + tmpfsMode(place), "size=" + strconv.FormatInt(size>>10, 10) + "k"},
	}
}

func tmpfsMode(place string) string {
	if slices.Contains([]string{"/tmp", "/var/tmp", "/dev/shm"}, place) {
		return "1777"
	}
	return "755"
}
