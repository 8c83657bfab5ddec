package policies

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/jailrun/jail/isolate"
)

// leaf is one value of a configuration. What stands in a list of things with a name goes by that name
// ("mounts[/proc].type"), what stands in a list of words by the list.
type leaf struct{ path, value string }

// fromOCI is a conversion from OCI. What no setting has taken over is lost, so nothing is passed over in silence.
type fromOCI struct {
	config   specs.Spec
	bundle   string
	left     []leaf
	settings []Setting
	lost     []Lost
}

// FromOCI is an OCI configuration as settings of a policy, for this host, and what of it is lost. Bundle is the folder
// of the configuration, an absolute path. What process.args says is for the command line, not for a policy, and is no
// loss.
func FromOCI(text []byte, bundle string, filters Filters) ([]Setting, []Lost, error) {
	c := fromOCI{bundle: bundle}
	var tree map[string]any
	numbers := json.NewDecoder(bytes.NewReader(text))
	numbers.UseNumber() // a limit may have 64 bits
	if err := errors.Join(numbers.Decode(&tree), json.Unmarshal(text, &c.config)); err != nil {
		return nil, nil, fmt.Errorf("is no OCI configuration: %w", err)
	}
	if c.config.Process == nil || c.config.Root == nil || c.config.Linux == nil {
		return nil, nil, errors.New("is no OCI configuration of a Linux container: it has no process, root or linux")
	}
	c.leaves("", tree)
	c.take("ociVersion")
	c.take("process.args")
	c.level()
	c.filter(filters)
	c.process()
	c.root()
	c.namespaces()
	for _, m := range c.config.Mounts {
		c.mount(m)
	}
	c.devices()
	c.paths()
	c.resources()
	for i := range c.settings {
		c.settings[i].At.File = "config.json" // its rights are those that it says, as a policy's
	}
	c.explainLeft()
	return c.settings, c.lost, nil
}

// named has the lists of things that have a name, and where that is.
var named = map[string]string{"mounts": "destination", "linux.namespaces": "type", "linux.devices": "path", "process.rlimits": "type"}

// leaves lists what stands in the configuration.
func (c *fromOCI) leaves(path string, v any) {
	switch v := v.(type) {
	case map[string]any:
		for _, key := range slices.Sorted(maps.Keys(v)) {
			c.leaves(strings.TrimPrefix(path+"."+key, "."), v[key])
		}
	case []any:
		for i, item := range v {
			name := path
			if m, ok := item.(map[string]any); ok {
				name = fmt.Sprintf("%s[%d]", path, i)
				if id, ok := m[named[path]].(string); ok {
					name = path + "[" + id + "]"
				}
			}
			c.leaves(name, item)
		}
	case nil:
	default:
		c.left = append(c.left, leaf{path, fmt.Sprint(v)})
	}
}

// take says that something, and all below it, is in the policy, or as jail has it anyway.
func (c *fromOCI) take(path string) {
	c.left = slices.DeleteFunc(c.left, func(l leaf) bool { return below(l.path, path) })
}

// below says whether a value is part of something; of "" all are.
func below(path, of string) bool {
	rest, ok := strings.CutPrefix(path, of)
	return ok && (rest == "" || of == "" || rest[0] == '.' || rest[0] == '[')
}

// takeWord is take for one word of a list.
func (c *fromOCI) takeWord(path, value string) {
	c.left = slices.DeleteFunc(c.left, func(l leaf) bool { return l.path == path && l.value == value })
}

// say adds a setting, as the flag that says it.
func (c *fromOCI) say(flag, value string) {
	c.settings = append(c.settings, FromFlag(flag, value))
}

func (c *fromOCI) lose(key, why string) { c.lost = append(c.lost, Lost{key, why}) }

// level picks the level that has what the configuration has.
func (c *fromOCI) level() {
	level, linux := isolate.Namespaced, c.config.Linux
	switch {
	case slices.ContainsFunc(slices.Concat(linux.MaskedPaths, linux.ReadonlyPaths), ofKernel):
		level = isolate.Contained
	case linux.Resources != nil || linux.CgroupsPath != "":
		level = isolate.Limited
	}
	c.say("--level", level.String())
}

func (c *fromOCI) filter(filters Filters) {
	given := c.config.Linux.Seccomp
	if given == nil {
		c.lose("linux.seccomp", "it has no filter; the policy keeps its level's, and with seccomp: unconfined it has none")
		return
	}
	plain := *given
	plain.Flags = slices.DeleteFunc(slices.Clone(given.Flags), func(f specs.LinuxSeccompFlag) bool { return f == specs.LinuxSeccompFlagLog })
	for word, known := range filters {
		a, errA := json.Marshal(plain)
		b, errB := json.Marshal(known)
		if errA == nil && errB == nil && string(a) == string(b) {
			c.say("--seccomp", word)
			if len(plain.Flags) < len(given.Flags) {
				c.say("--seccomp-log", "true")
			}
			c.take("linux.seccomp")
		}
	}
}

// printable says whether a policy can have a word as it is.
func printable(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f || r == 0xfeff || r == 0xfffd })
}

// namable says whether a policy can name a path as it is.
func namable(path string) bool {
	return printable(path) && filepath.IsAbs(path) && filepath.Clean(path) == path && !isolate.IsGlob(path) && !strings.Contains(path, "$") && !strings.Contains(path, ":/")
}

func (c *fromOCI) process() {
	p := c.config.Process
	c.say("--clearenv", "true")
	seen := map[string]bool{}
	for _, kv := range p.Env {
		name, _, ok := strings.Cut(kv, "=")
		if !ok || name == "" || seen[name] || !printable(kv) {
			continue
		}
		seen[name] = true
		c.say("--env", kv)
		c.takeWord("process.env", kv)
	}
	if !p.Terminal {
		c.take("process.terminal")
	}
	if p.NoNewPrivileges {
		c.take("process.noNewPrivileges")
	}
	if namable(p.Cwd) {
		c.say("--workdir", p.Cwd)
		c.take("process.cwd")
	}
	if u := p.User; u.UID != 0 || u.GID != 0 {
		c.say("--user", fmt.Sprintf("%d:%d", u.UID, u.GID))
	}
	c.take("process.user.uid")
	c.take("process.user.gid")
	c.capabilities(p)
	c.rlimits(p)
	if c.config.Hostname != "" && printable(c.config.Hostname) {
		c.say("--hostname", c.config.Hostname)
		c.take("hostname")
	}
}

// capabilities are those that the payload has when it runs: of another uid than 0 the exec leaves it the ambient ones.
func (c *fromOCI) capabilities(p *specs.Process) {
	if p.Capabilities == nil {
		return
	}
	sets := map[string][]string{"bounding": p.Capabilities.Bounding, "effective": p.Capabilities.Effective, "permitted": p.Capabilities.Permitted}
	has := p.Capabilities.Permitted
	if p.User.UID != 0 {
		has = p.Capabilities.Ambient
		sets["ambient"], sets["inheritable"] = p.Capabilities.Ambient, p.Capabilities.Inheritable
	}
	for _, name := range has {
		bare := strings.TrimPrefix(name, "CAP_")
		if _, err := isolate.AddedCapabilities([]string{bare}, nil); err != nil || bare == "ALL" {
			continue
		}
		c.say("--cap-add", bare)
		for set, list := range sets {
			if slices.Contains(list, name) {
				c.takeWord("process.capabilities."+set, name)
			}
		}
	}
}

func (c *fromOCI) rlimits(p *specs.Process) {
	for _, l := range p.Rlimits {
		word := func(n uint64) string {
			if n == 1<<64-1 {
				return "unlimited"
			}
			return strconv.FormatUint(n, 10)
		}
		inBytes := slices.Contains([]string{"RLIMIT_AS", "RLIMIT_CORE", "RLIMIT_DATA", "RLIMIT_FSIZE", "RLIMIT_MEMLOCK", "RLIMIT_MSGQUEUE", "RLIMIT_RSS", "RLIMIT_STACK"}, l.Type)
		if inBytes {
			word = func(n uint64) string {
				if n == 1<<64-1 {
					return "unlimited"
				}
				return size(n)
			}
		}
		value := strings.ToLower(strings.TrimPrefix(l.Type, "RLIMIT_")) + "=" + word(l.Soft)
		if l.Soft != l.Hard {
			value += ":" + word(l.Hard)
		}
		if _, err := isolate.ParseRlimit(value); err != nil {
			continue
		}
		c.say("--rlimit", value)
		c.take("process.rlimits[" + l.Type + "]")
	}
}

// size is a number of bytes as people write it.
func size(n uint64) string {
	for _, unit := range []struct {
		name  string
		bytes uint64
	}{{"G", 1 << 30}, {"M", 1 << 20}, {"K", 1 << 10}} {
		if n >= unit.bytes && n%unit.bytes == 0 {
			return strconv.FormatUint(n/unit.bytes, 10) + unit.name
		}
	}
	return strconv.FormatUint(n, 10)
}

// inBundle makes a path of the configuration absolute.
func (c *fromOCI) inBundle(path string) string {
	if filepath.IsAbs(path) {
		return filepath.Clean(path)
	}
	return filepath.Join(c.bundle, path)
}

func (c *fromOCI) root() {
	path := c.inBundle(c.config.Root.Path)
	if !namable(path) {
		return
	}
	if !c.config.Root.Readonly {
		path += ":rw"
	}
	c.say("--rootfs", path)
	c.take("root")
}

func (c *fromOCI) namespaces() {
	has := map[specs.LinuxNamespaceType]bool{}
	for _, n := range c.config.Linux.Namespaces {
		has[n.Type] = true
		if n.Type != specs.TimeNamespace {
			c.take("linux.namespaces[" + string(n.Type) + "].type")
		}
	}
	if has[specs.NetworkNamespace] {
		c.say("--network", "none")
	} else {
		c.say("--network", "host")
	}
	for _, kind := range []specs.LinuxNamespaceType{specs.MountNamespace, specs.PIDNamespace, specs.IPCNamespace, specs.UTSNamespace, specs.CgroupNamespace} {
		if !has[kind] {
			c.lose("linux.namespaces: no "+string(kind), "it shares the host's; a jail always has its own")
		}
	}
}

// mount makes a rule of a mount.
func (c *fromOCI) mount(m specs.Mount) {
	id := "mounts[" + m.Destination + "]"
	for _, own := range ownMounts {
		if own.Destination == m.Destination && own.Type == m.Type {
			c.taken(id, own.Options...)
			return
		}
	}
	if !namable(m.Destination) {
		return
	}
	bind := m.Type == "bind" || slices.Contains(m.Options, "bind") || slices.Contains(m.Options, "rbind")
	switch source := c.inBundle(m.Source); {
	case bind && namable(source):
		c.bind(m, source)
		c.taken(id, "rbind", "rprivate", "private", "nosuid", "nodev", "ro", "rw", "noexec")
	case m.Type == "tmpfs":
		value := m.Destination
		for _, o := range m.Options {
			if n, ok := tmpfsSize(o); ok {
				value += ":" + size(n)
				c.takeWord(id+".options", o)
			}
		}
		c.say("--tmpfs", value)
		c.taken(id, "nosuid", "nodev", "rw", "mode="+tmpfsMode(m.Destination))
	}
}

// taken takes a mount, and those of its options that are as jail has them.
func (c *fromOCI) taken(id string, options ...string) {
	for _, key := range []string{"destination", "type", "source"} {
		c.take(id + "." + key)
	}
	for _, o := range options {
		c.takeWord(id+".options", o)
	}
}

// tmpfsSize reads the option size of a tmpfs.
func tmpfsSize(option string) (uint64, bool) {
	value, ok := strings.CutPrefix(option, "size=")
	if !ok {
		return 0, false
	}
	n, err := isolate.ParseSize(value)
	return uint64(n), err == nil && n > 0
}

func (c *fromOCI) bind(m specs.Mount, source string) {
	value := source
	if source != m.Destination {
		value += ":" + m.Destination
	}
	noExec := slices.Contains(m.Options, "noexec")
	flag, keys := "--bind", []string{"write", "exec"}
	if slices.Contains(m.Options, "ro") {
		flag, keys = "--ro-bind", []string{"exec"}
		if noExec {
			keys = []string{"read"}
		}
	} else if noExec {
		keys = []string{"write"}
	}
	for _, key := range keys {
		s := FromFlag(flag, value)
		s.Key, s.NoExec = key, noExec
		c.settings = append(c.settings, s)
	}
}

// devices are those that this host has by the same name.
func (c *fromOCI) devices() {
	for _, d := range c.config.Linux.Devices {
		kind, major, minor, err := deviceNumber(d.Path)
		if err != nil || kind != d.Type || major != d.Major || minor != d.Minor || !namable(d.Path) {
			continue
		}
		c.say("--device", d.Path)
		for _, key := range []string{"path", "type", "major", "minor"} {
			c.take("linux.devices[" + d.Path + "]." + key)
		}
	}
}

// ofKernel says whether a path is one of the kernel's own.
func ofKernel(path string) bool { return within(path, "/proc") || within(path, "/sys") }

// paths are masked ones, and those that level contained has read-only.
func (c *fromOCI) paths() {
	contained := isolate.NewSpec(isolate.Contained, "true").Linux
	for _, path := range c.config.Linux.ReadonlyPaths {
		if slices.Contains(contained.ReadonlyPaths, path) {
			c.takeWord("linux.readonlyPaths", path)
		}
	}
	for _, path := range c.config.Linux.MaskedPaths {
		switch {
		case !ofKernel(path) && namable(path):
			c.say("--deny", path)
			c.takeWord("linux.maskedPaths", path)
		case slices.Contains(contained.MaskedPaths, path):
			c.takeWord("linux.maskedPaths", path)
		}
	}
}

func (c *fromOCI) resources() {
	dir, name := filepath.Split(c.config.Linux.CgroupsPath)
	if id, ok := strings.CutPrefix(name, "jail-"); ok {
		if _, err := isolate.ParseName(id); err == nil {
			c.say("--name", id)
			if dir = strings.TrimSuffix(dir, "/"); dir != "" && printable(dir) {
				c.say("--cgroup-parent", dir)
			}
			c.take("linux.cgroupsPath")
		}
	}
	r := c.config.Linux.Resources
	if r == nil {
		return
	}
	if m := r.Memory; m != nil && m.Limit != nil && *m.Limit > 0 {
		c.say("--memory", size(uint64(*m.Limit)))
		c.take("linux.resources.memory.limit")
		if m.Swap != nil && *m.Swap >= *m.Limit {
			if *m.Swap > *m.Limit {
				c.say("--swap", size(uint64(*m.Swap-*m.Limit)))
			}
			c.take("linux.resources.memory.swap")
		}
	}
	if p := r.Pids; p != nil && p.Limit != nil && *p.Limit > 0 && *p.Limit <= 1<<22 {
		c.say("--pids-limit", strconv.FormatInt(*p.Limit, 10))
		c.take("linux.resources.pids.limit")
	}
	if cpu := r.CPU; cpu != nil {
		c.cpu(cpu)
	}
	if io := r.BlockIO; io != nil {
		for key, list := range map[string][]specs.LinuxThrottleDevice{
			"rbps": io.ThrottleReadBpsDevice, "wbps": io.ThrottleWriteBpsDevice,
			"riops": io.ThrottleReadIOPSDevice, "wiops": io.ThrottleWriteIOPSDevice,
		} {
			c.throttle(key, list)
		}
	}
}

// cpu takes a quota that comes to hundredths of a CPU.
func (c *fromOCI) cpu(cpu *specs.LinuxCPU) {
	if cpu.Quota != nil && *cpu.Quota > 0 {
		period := isolate.CPUPeriod.Microseconds()
		if cpu.Period != nil {
			period = int64(*cpu.Period)
		}
		if period > 0 && *cpu.Quota*100%period == 0 {
			hundredths := *cpu.Quota * 100 / period
			value := strings.TrimSuffix(strings.TrimRight(fmt.Sprintf("%d.%02d", hundredths/100, hundredths%100), "0"), ".")
			if _, err := isolate.ParseCPUs(value); err == nil {
				c.say("--cpus", value)
				c.take("linux.resources.cpu.quota")
				if period == isolate.CPUPeriod.Microseconds() {
					c.take("linux.resources.cpu.period")
				}
			}
		}
	}
	if list, err := isolate.ParseCPUSet(cpu.Cpus); err == nil && cpu.Cpus != "" {
		c.say("--cpuset", list)
		c.take("linux.resources.cpu.cpus")
	}
}

// throttle takes the rates of disks that this host has.
func (c *fromOCI) throttle(key string, list []specs.LinuxThrottleDevice) {
	paths := map[string]string{"rbps": "throttleReadBpsDevice", "wbps": "throttleWriteBpsDevice", "riops": "throttleReadIOPSDevice", "wiops": "throttleWriteIOPSDevice"}
	for i, d := range list {
		disks, _ := filepath.Glob("/dev/*")
		for _, disk := range disks {
			kind, major, minor, err := deviceNumber(disk)
			if err != nil || kind != "b" || major != d.Major || minor != d.Minor {
				continue
			}
			rate := strconv.FormatUint(d.Rate, 10)
			if strings.HasSuffix(key, "bps") {
				rate = size(d.Rate)
			}
			c.say("--io", disk+":"+key+"="+rate)
			c.take(fmt.Sprintf("linux.resources.blockIO.%s[%d]", paths[key], i))
			break
		}
	}
}

// reasons say why something is not in a policy, the longest prefix first. One with a list counts all of it as one.
var reasons = []struct {
	prefix, why string
	all         bool
}{
	{"process.terminal", "a jail has the terminal of who starts it", false},
	{"process.consoleSize", "a jail has the terminal of who starts it", true},
	{"process.user.additionalGids", "a jail has no supplementary groups", false},
	{"process.user.umask", "a jail has the umask of who starts it", false},
	{"process.noNewPrivileges", "a jail always has no_new_privs", false},
	{"process.capabilities", "a jail has the capabilities that its payload can use, and no others in any set", false},
	{"process.env", "a policy has NAME=VALUE, once for each name and without control characters", false},
	{"process.apparmorProfile", "jail sets no label of a security module", false},
	{"process.selinuxLabel", "jail sets no label of a security module", false},
	{"linux.mountLabel", "jail sets no label of a security module", false},
	{"process", "jail has no word for it", false},
	{"hooks", "a policy runs nothing of the host's", true},
	{"annotations", "a policy has no notes for others", false},
	{"mounts[/dev/mqueue]", "a jail has no POSIX message queues", true},
	{"mounts[/sys/fs/cgroup]", "a jail shows no cgroups", true},
	{"mounts", "a jail mounts in its own way, and knows no such option", false},
	{"linux.namespaces", "a jail has namespaces of its own, and joins none", false},
	{"linux.uidMappings", "a jail maps the payload's uid alone, to one that nobody else has", true},
	{"linux.gidMappings", "a jail maps the payload's gid alone, to one that nobody else has", true},
	{"linux.devices", "a device has its owner and mode as on this host, where it has to be", false},
	{"linux.seccomp", "save it as a file, and name that with permissions.seccomp", true},
	{"linux.maskedPaths", "of /proc and /sys a jail masks what level contained does", false},
	{"linux.readonlyPaths", "a jail has those of level contained read-only", false},
	{"linux.sysctl", "jail sets no sysctl", false},
	{"linux.cgroupsPath", "a jail's cgroup is called jail-NAME", false},
	{"linux.resources.devices", "a jail can use the devices that it is shown, and no others", true},
	{"linux.resources.memory.swap", "swap counts memory too, and is at least as much", false},
	{"linux.resources.cpu", "a jail has a quota in hundredths of a CPU and a set of CPUs", false},
	{"linux.resources.blockIO", "a jail has rates of disks that this host has", false},
	{"linux.resources", "jail has no word for it", false},
	{"linux", "jail has no word for it", false},
	{"", "jail has no word for it", false},
}

// explainLeft lists what nobody has taken.
func (c *fromOCI) explainLeft() {
	for _, l := range c.left {
		for _, r := range reasons {
			if !below(l.path, r.prefix) {
				continue
			}
			lost := Lost{l.path + ": " + l.value, r.why}
			if r.all {
				lost.Key = r.prefix
			}
			if !slices.ContainsFunc(c.lost, func(o Lost) bool { return reflect.DeepEqual(o, lost) }) {
				c.lost = append(c.lost, lost)
			}
			break
		}
	}
}
