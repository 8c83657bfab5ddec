package cgroup

import (
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/containerd/cgroups/v3"
	"github.com/opencontainers/runtime-spec/specs-go"
)

func ptr[T any](v T) *T { return &v }

// TestSettings: what is written for each resource, on v1 and on v2.
func TestSettings(t *testing.T) {
	throttle := specs.LinuxThrottleDevice{Rate: 1024}
	throttle.Major, throttle.Minor = 8, 16
	for _, c := range []struct {
		r      specs.LinuxResources
		v1, v2 string
	}{
		{specs.LinuxResources{}, "", ""},
		{
			specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr(int64(4096)), Swap: ptr(int64(8192))}},
			"memory.limit_in_bytes=4096 memory.memsw.limit_in_bytes=8192", "memory.max=4096 memory.oom.group=1 memory.swap.max=4096",
		},
		{specs.LinuxResources{Pids: &specs.LinuxPids{Limit: ptr(int64(7))}}, "pids.max=7", "pids.max=7"},
		{
			specs.LinuxResources{CPU: &specs.LinuxCPU{Quota: ptr(int64(50000)), Period: ptr(uint64(100000))}},
			"cpu.cfs_period_us=100000 cpu.cfs_quota_us=50000", "cpu.max=50000 100000",
		},
		{specs.LinuxResources{CPU: &specs.LinuxCPU{Shares: ptr(uint64(1024))}}, "cpu.shares=1024", "cpu.weight=100"},
		{specs.LinuxResources{CPU: &specs.LinuxCPU{Cpus: "0-1"}}, "cpuset.cpus=0-1", "cpuset.cpus=0-1"},
		{
			specs.LinuxResources{BlockIO: &specs.LinuxBlockIO{ThrottleReadBpsDevice: []specs.LinuxThrottleDevice{throttle}}},
			"blkio.throttle.read_bps_device=8:16 1024", "io.max=8:16 rbps=1024",
		},
		{specs.LinuxResources{Unified: map[string]string{"memory.high": "4096"}}, "error", "memory.high=4096"},
		{specs.LinuxResources{Unified: map[string]string{"../memory.high": "4096"}}, "error", "error"},
		{specs.LinuxResources{Unified: map[string]string{"cgroup.procs": "1"}}, "error", "error"},
		{specs.LinuxResources{Memory: &specs.LinuxMemory{Swap: ptr(int64(8192))}}, "error", "error"},
		{specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr(int64(8192)), Swap: ptr(int64(4096))}}, "error", "error"},
		{specs.LinuxResources{Memory: &specs.LinuxMemory{DisableOOMKiller: ptr(true)}}, "error", "error"},
		{specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{{Allow: true}}}, "error", "error"},
		{specs.LinuxResources{CPU: &specs.LinuxCPU{Idle: ptr(int64(7))}}, "error", "error"},
	} {
		for version, want := range map[int]string{1: c.v1, 2: c.v2} {
			settings, err := Settings(version, &c.r)
			var words []string
			for _, s := range settings {
				words = append(words, s.File+"="+s.Value)
			}
			got := strings.Join(words, " ")
			if err != nil {
				got = "error"
			}
			if got != want {
				t.Errorf("v%d: got %q, %v, want %q", version, got, err, want)
			}
		}
	}
}

const (
	mountV2     = "30 20 0:25 / /sys/fs/cgroup rw shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
	mountHybrid = "31 20 0:26 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n" +
		"32 20 0:27 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n" +
		"33 20 0:28 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n" +
		"34 20 0:29 / /sys/fs/cgroup/freezer rw - cgroup cgroup rw,freezer\n" +
		"35 20 0:30 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
)

// TestFind: where a jail's cgroup is made, by what is known of the host.
func TestFind(t *testing.T) {
	all := []string{"cpu", "cpuset", "io", "memory", "pids"}
	root := node{exists: true, writable: true, adoptable: true, root: true, available: all, enabled: all, populated: true}
	inner := node{exists: true, writable: true, adoptable: true, available: all, enabled: all}
	leaf := node{exists: true, writable: true, adoptable: true, available: all, populated: true}
	closed := node{exists: true, available: all}
	noBus := fmt.Errorf("no systemd")
	v1 := "4:memory:/a\n3:pids:/a\n2:cpu,cpuacct:/a\n1:freezer:/a\n0::/a\n"
	for _, c := range []struct {
		what   string
		facts  facts
		parent string
		nodes  map[string]node
		want   string // the folder, or a part of the error
	}{
		{
			"v1: below the caller's own",
			facts{mode: cgroups.Hybrid, cgroups: v1, mounts: mountHybrid},
			"",
			map[string]node{
				"/sys/fs/cgroup/memory/a": leaf, "/sys/fs/cgroup/pids/a": leaf, "/sys/fs/cgroup/cpu,cpuacct/a": leaf, "/sys/fs/cgroup/freezer/a": leaf,
			},
			"1 /sys/fs/cgroup/memory/a",
		},
		{
			"v1: an ordinary user",
			facts{mode: cgroups.Hybrid, cgroups: v1, mounts: mountHybrid, uid: 1000},
			"",
			map[string]node{"/sys/fs/cgroup/freezer/a": closed},
			"error: cgroup v1: /sys/fs/cgroup/freezer/a is not writable for uid 1000",
		},
		{
			"v2: a parent that was asked for",
			facts{mode: cgroups.Unified, cgroups: "0::/a/b\n", mounts: mountV2},
			"/jails",
			map[string]node{"/sys/fs/cgroup/jails": inner},
			"2 /sys/fs/cgroup/jails",
		},
		{
			"v2: one that is not there",
			facts{mode: cgroups.Unified, cgroups: "0::/a/b\n", mounts: mountV2},
			"/jails",
			nil, "error: /sys/fs/cgroup/jails does not exist",
		},
		{
			"v2: no way out of the mount",
			facts{mode: cgroups.Unified, cgroups: "0::/a/b\n", mounts: mountV2},
			"/jails/../x",
			nil, "error: the parent cgroup has to be",
		},
		{
			"v2: delegated",
			facts{mode: cgroups.Unified, cgroups: "0::/user/shell\n", mounts: mountV2, uid: 1000, bus: noBus},
			"",
			map[string]node{"/sys/fs/cgroup/user": inner, "/sys/fs/cgroup/user/shell": leaf},
			"2 /sys/fs/cgroup/user",
		},
		{
			"v2: delegated without a controller",
			facts{mode: cgroups.Unified, cgroups: "0::/user/shell\n", mounts: mountV2, uid: 1000, bus: noBus},
			"",
			map[string]node{"/sys/fs/cgroup/user": {exists: true, writable: true, adoptable: true, available: []string{"cpu", "pids"}}},
			"error: /sys/fs/cgroup/user does not have the controller memory",
		},
		{
			"v2: delegated without the one that is wanted alone",
			facts{mode: cgroups.Unified, cgroups: "0::/user/shell\n", mounts: mountV2, uid: 1000, bus: noBus},
			"",
			map[string]node{"/sys/fs/cgroup/user": {exists: true, writable: true, adoptable: true, available: []string{"memory", "pids"}}},
			"2 /sys/fs/cgroup/user",
		},
		{
			"v2: root in the root cgroup",
			facts{mode: cgroups.Unified, cgroups: "0::/\n", mounts: mountV2, bus: noBus},
			"",
			map[string]node{"/sys/fs/cgroup": root},
			"2 /sys/fs/cgroup",
		},
		{
			"v2: root in a service of systemd",
			facts{mode: cgroups.Unified, cgroups: "0::/system.slice/x.service\n", mounts: mountV2, systemd: true},
			"",
			map[string]node{"/sys/fs/cgroup": root, "/sys/fs/cgroup/system.slice": inner},
			"scope",
		},
		{
			"v2: root in a service, no bus",
			facts{mode: cgroups.Unified, cgroups: "0::/system.slice/x.service\n", mounts: mountV2, systemd: true, bus: noBus},
			"",
			map[string]node{"/sys/fs/cgroup": root, "/sys/fs/cgroup/system.slice": inner},
			"2 /sys/fs/cgroup warned",
		},
		{
			"v2: a container's root",
			facts{mode: cgroups.Unified, cgroups: "0::/\n", mounts: mountV2, bus: noBus},
			"",
			map[string]node{"/sys/fs/cgroup": leaf},
			"error: no place for a cgroup",
		},
		{
			"v2: delegated, but it holds processes",
			facts{mode: cgroups.Unified, cgroups: "0::/user/shell\n", mounts: mountV2, uid: 1000, bus: noBus},
			"",
			map[string]node{"/sys/fs/cgroup/user": leaf},
			"error: /sys/fs/cgroup/user holds processes, so it can't enable the controller",
		},
		{
			"v2: a parent to where the caller can't move a process",
			facts{mode: cgroups.Unified, cgroups: "0::/user/shell\n", mounts: mountV2, uid: 1000},
			"/jails",
			map[string]node{"/sys/fs/cgroup/jails": inner, "/sys/fs/cgroup": closed},
			"error: uid 1000 can't move processes from /sys/fs/cgroup/user/shell to /sys/fs/cgroup/jails",
		},
		{
			"v2: the mount that covers another",
			facts{mode: cgroups.Unified, cgroups: "0::/a/b\n", mounts: strings.Replace(mountV2, "/sys/fs", "/old", 1) + mountV2},
			"/jails",
			map[string]node{"/sys/fs/cgroup/jails": inner, "/old/cgroup/jails": inner},
			"2 /sys/fs/cgroup/jails",
		},
		{
			"v2: a service of systemd that is delegated",
			facts{mode: cgroups.Unified, cgroups: "0::/system.slice/x.service/main\n", mounts: mountV2, systemd: true},
			"",
			map[string]node{"/sys/fs/cgroup/system.slice/x.service": {exists: true, writable: true, delegated: true, available: all}},
			"2 /sys/fs/cgroup/system.slice/x.service",
		},
		{
			"v2: one that the user may write, but is systemd's",
			facts{mode: cgroups.Unified, cgroups: "0::/x.slice/y.scope\n", mounts: mountV2, systemd: true, uid: 1000},
			"",
			map[string]node{"/sys/fs/cgroup/x.slice": inner, "/sys/fs/cgroup/user.slice/user-1000.slice/user@1000.service": inner},
			"scope",
		},
		{
			"v2: one that root may write, as all, in a machine of systemd",
			facts{mode: cgroups.Unified, cgroups: "0::/x/y\n", mounts: mountV2, systemd: true},
			"",
			map[string]node{"/sys/fs/cgroup/x": inner, "/sys/fs/cgroup": root},
			"scope",
		},
		{"none", facts{mode: cgroups.Unavailable}, "", nil, "error: no cgroups are mounted"},
	} {
		c.facts.look = func(dir string) node { return c.nodes[dir] }
		p, err := c.facts.find(c.parent, []string{"memory", "pids"}, []string{"cpu"})
		var got string
		switch {
		case err != nil:
			got = "error: " + strings.ReplaceAll(err.Error(), "\n", "; ")
		case p.Scope:
			got = "scope"
		case p.Version == 1:
			got = "1 " + p.Dirs["memory"]
		default:
			got = "2 " + p.Dirs[""]
		}
		if err == nil && p.Warning != "" {
			got += " warned"
		}
		if got != c.want && !(strings.HasPrefix(c.want, "error: ") && strings.Contains(got, strings.TrimPrefix(c.want, "error: "))) {
			t.Errorf("%s:\n got %s\nwant %s", c.what, got, c.want)
		}
	}
}

// TestBelow: the part of a cgroup's path below another, by whole components.
func TestBelow(t *testing.T) {
	for _, c := range []struct {
		root, path, want string
		ok               bool
	}{
		{"/", "/a/b", "/a/b", true},
		{"/a", "/a", "/", true},
		{"/a", "/a/b/", "/b", true},
		{"/a", "/ab", "", false},
		{"/a", "/", "", false},
		{"/", "/..", "", false},
		{"/", "/../a", "", false},
		{"/", "/..a", "/..a", true},
	} {
		if got, ok := below(c.root, c.path); got != c.want || ok != c.ok {
			t.Errorf("%s below %s: %q, %t", c.path, c.root, got, ok)
		}
	}
}

// TestNumbers: what the kernel writes.
func TestNumbers(t *testing.T) {
	const stat = "user 1\nuser_usec 22\n"
	for _, c := range []struct {
		got  func() (int64, error)
		want int64 // -1 is an error
	}{
		{func() (int64, error) { return number("7\n") }, 7},
		{func() (int64, error) { return number("18446744073709551615\n") }, math.MaxInt64},
		{func() (int64, error) { return number("max\n") }, -1},
		{func() (int64, error) { return number("") }, -1},
		{func() (int64, error) { return field(stat, "user_usec") }, 22},
		{func() (int64, error) { return field(stat, "usec") }, -1},
	} {
		if n, err := c.got(); n != max(c.want, 0) || (err != nil) != (c.want < 0) {
			t.Errorf("%d, %v, want %d", n, err, c.want)
		}
	}
	if mounts, err := parseMounts(`1 2 3:4 /r\134 /a\040b rw - cgroup2 x rw` + "\n"); err != nil || len(mounts) != 1 || mounts[0].point != "/a b" || mounts[0].root != `/r\` {
		t.Errorf("%+v, %v", mounts, err)
	}
}

// TestSlice: in which slice a scope is made.
func TestSlice(t *testing.T) {
	for _, c := range []struct {
		path string
		uid  int
		want string
	}{
		{"/system.slice/x.service", 0, "system.slice"},
		{"/system.slice/system-x.slice/x.service/y.slice", 0, "system-x.slice"},
		{"/a/b", 0, ""},
		{"/user.slice/user-7.slice/user@7.service/app.slice/x.scope", 7, "app.slice"},
		{"/user.slice/user-7.slice/session-1.scope", 7, ""},
		{"/user.slice/user-8.slice/user@8.service/app.slice", 7, ""},
	} {
		if got := slice(c.path, c.uid); got != c.want {
			t.Errorf("%s of %d: %q, want %q", c.path, c.uid, got, c.want)
		}
	}
}

// FuzzParse: no text of /proc makes the parsers fail otherwise than with an error.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{mountV2, mountHybrid, "0::/a\n1:cpu,cpuacct:/b:c\n", `1 2 3:4 /a\040b /c\134 rw - cgroup2 x rw`, "1\n23\n"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		mounts, err := parseMounts(text)
		for _, m := range mounts {
			if err != nil || !m.v2 && len(m.controllers) == 0 {
				t.Errorf("%+v, %v", m, err)
			}
		}
		cgroups, err := parseCgroups(text)
		for _, p := range cgroups {
			if err != nil || !strings.HasPrefix(p, "/") || strings.Contains(p, "\n") {
				t.Errorf("%q, %v", p, err)
			}
		}
		for _, read := range []func() (int64, error){
			func() (int64, error) { return field(text, "usage_usec") },
			func() (int64, error) { return number(text) },
		} {
			if n, err := read(); n < 0 || err != nil && n != 0 {
				t.Errorf("%q: %d, %v", text, n, err)
			}
		}
		pids, err := parsePids(text)
		for _, pid := range pids {
			if pid < 0 || err != nil {
				t.Errorf("%q: %d, %v", text, pid, err)
			}
		}
	})
}

// escapeMount writes a path as the kernel does in mountinfo.
var escapeMount = strings.NewReplacer(" ", `\040`, "\t", `\011`, "\n", `\012`, `\`, `\134`)

// FuzzMountinfo: whatever a mount point is called, the line about it is read back.
func FuzzMountinfo(f *testing.F) {
	for _, name := range []string{"a", "a b", `\040`, "x - y", "a\rb", "a\u00a0b", "a\x85", "\v", "a\n"} {
		f.Add(name, name, true)
	}
	f.Fuzz(func(t *testing.T, root, point string, v2 bool) {
		want := mount{root: "/" + root, point: "/" + point, v2: v2}
		kind := "cgroup2 cgroup2 rw"
		if !v2 {
			kind, want.controllers = "cgroup none rw,cpu,cpuacct", []string{"rw", "cpu", "cpuacct"}
		}
		line := "30 20 0:25 " + escapeMount.Replace(want.root) + " " + escapeMount.Replace(want.point) + " rw,relatime shared:4 master:1 - " + kind + "\n"
		got, err := parseMounts("29 20 0:24 / /old rw - ext4 /dev/sda rw\n" + line)
		if err != nil || len(got) != 1 || got[0].root != want.root || got[0].point != want.point || got[0].v2 != v2 || strings.Join(got[0].controllers, " ") != strings.Join(want.controllers, " ") {
			t.Errorf("%q: %+v, %v", line, got, err)
		}
	})
}

// FuzzCgroups: whatever a cgroup is called, the line about it is read back. No name has a newline: the kernel takes none.
func FuzzCgroups(f *testing.F) {
	for _, name := range []string{"a", "a:b", "a b", "a\r", "..", "a (deleted)"} {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		if strings.Contains(name, "\n") {
			return
		}
		got, err := parseCgroups("4:cpu,cpuacct:/" + name + "\n1:name=systemd:/x\n0::/" + name + "\n")
		if err != nil || len(got) != 4 || got["cpu"] != "/"+name || got["cpuacct"] != "/"+name || got[""] != "/"+name || got["name=systemd"] != "/x" {
			t.Errorf("%q: %q, %v", name, got, err)
		}
	})
}
