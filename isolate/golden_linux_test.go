//go:build amd64 || arm64

package isolate

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/jailrun/jail/cgroup"
)

var update = flag.Bool("update", false, "write the golden files anew")

func formatIDs(p *Plan) string {
	return fmt.Sprintf("%d:%d, keeps CAP_KILL %t, ambient %t", p.UID, p.GID, p.keepKill, p.ambient)
}

// hosts by the name that golden files have.
var hosts = []struct {
	name string
	make func() *Host
}{{"root", rootHost}, {"user", userHost}, {"weakroot", weakRootHost}, {"capable", capableHost}, {"guestroot", guestRootHost}, {"dockerroot", dockerRootHost}}

// flagCases are Specs that go further than a level, each at the lowest level that has it.
var flagCases = []struct {
	name  string
	level Level
	hosts string // of those above; "" is root and user
	set   func(s *Spec)
}{
	{name: "binds", level: Namespaced, set: func(s *Spec) {
		s.View = append(s.View,
			Rule{Kind: Show, Path: "/data", Source: "/srv/data"},
			Rule{Kind: ShowWrite, Path: "/home/ann/project/out", Source: "/home/ann/project/out"},
			Rule{Kind: Show, Path: "/absent", Source: "/absent", Optional: true},
			Rule{Kind: ShowWrite, Path: "/dev/fuse", Source: "/dev/fuse"})
	}},
	{name: "binds-landlock", level: User, set: func(s *Spec) {
		s.View = append(s.View,
			Rule{Kind: Show, Path: "/srv/data", Source: "/srv/data"},
			Rule{Kind: ShowWrite, Path: "/home/ann/project/out", Source: "/home/ann/project/out"})
	}},
	{name: "whole-root", level: Namespaced, set: func(s *Spec) {
		s.View = append(s.View, Rule{Kind: Show, Path: "/", Source: "/"})
	}},
	{name: "made", level: Namespaced, set: func(s *Spec) {
		s.View = append(s.View,
			Rule{Kind: Tmpfs, Path: "/cache", Size: 1 << 20},
			Rule{Kind: Dir, Path: "/a/b"},
			Rule{Kind: Symlink, Path: "/a/link", Source: "../etc"},
			Rule{Kind: File, Path: "/a/b/config", FD: 9})
	}},
	{name: "deny", level: Namespaced, set: func(s *Spec) {
		s.View = append(s.View,
			Rule{Kind: Show, Path: "/data", Source: "/srv/data"},
			Rule{Kind: Deny, Path: "/data/secret"},
			Rule{Kind: Deny, Path: "/etc/shadow"},
			Rule{Kind: Deny, Path: "/dev/tty"},
			Rule{Kind: Deny, Path: "/absent"})
	}},
	{name: "rights", level: Namespaced, set: func(s *Spec) {
		s.View = append(s.View,
			Rule{Kind: ShowWrite, Path: "/home/ann", Source: "/home/ann", NoExec: true},
			Rule{Kind: Show, Path: "/home/ann/project/out", Source: "/home/ann/project/out"},
			Rule{Kind: Deny, Path: "/home/ann/absent", Report: true})
	}},
	{name: "host-network", level: Namespaced, set: func(s *Spec) {
		s.HostNetwork = true
		s.SetLevel(Namespaced)
	}},
	{name: "host-network-landlock", level: User, set: func(s *Spec) {
		s.HostNetwork = true
		s.SetLevel(User)
	}},
	{name: "caller", level: Namespaced, set: func(s *Spec) { s.Identity = IdentityCaller }},
	{name: "caller-landlock", level: User, set: func(s *Spec) { s.Identity = IdentityCaller }},
	{name: "fixed", level: Namespaced, set: func(s *Spec) {
		s.Identity, s.Process.User = IdentityFixed, specs.User{UID: 7, GID: 8}
	}},
	{name: "uid0-inside", level: Namespaced, hosts: "user", set: func(s *Spec) {
		s.Identity, s.Process.User = IdentityFixed, specs.User{}
	}},
	{name: "caps", level: Namespaced, set: func(s *Spec) {
		s.CapAdd, s.CapDrop = []string{"NET_RAW", "CAP_KILL", "chown"}, []string{"KILL"}
	}},
	{name: "cap-chroot", level: Namespaced, set: func(s *Spec) { s.CapAdd = []string{"SYS_CHROOT"} }},
	{name: "caps-basic", level: Basic, hosts: "root", set: func(s *Spec) { s.CapDrop = []string{"SYS_ADMIN"} }},
	{name: "rlimits", level: Basic, set: func(s *Spec) {
		s.Process.Rlimits = []specs.POSIXRlimit{
			{Type: "RLIMIT_NOFILE", Soft: 64, Hard: 128},
			{Type: "RLIMIT_CORE", Soft: 0, Hard: 10},
			{Type: "RLIMIT_FSIZE", Soft: ^uint64(0), Hard: ^uint64(0)},
		}
	}},
	{name: "unconfined", level: Namespaced, set: func(s *Spec) {
		s.NoFilter = true
		s.SetLevel(Namespaced)
	}},
	{name: "allow-list", level: User, set: func(s *Spec) {
		s.AllowList = &AllowList{Name: "./profile.json", BPF: make([]byte, 3*8)}
		s.SetLevel(Namespaced) // it stays
	}},
	{name: "allow-list-alone", level: Namespaced, hosts: "user", set: func(s *Spec) {
		s.NoFilter, s.AllowList = true, &AllowList{Name: "default", BPF: make([]byte, 3*8)}
	}},
	{name: "call-rules", level: Contained, set: func(s *Spec) {
		s.CallRules = &CallRules{BPF: make([]byte, 5*8)}
		s.AllowList = &AllowList{Name: "default", Log: true}
	}},
	{name: "call-rules-first", level: Namespaced, hosts: "user", set: func(s *Spec) {
		s.CallRules, s.FilterLog = &CallRules{BPF: make([]byte, 5*8), First: true}, true
		s.AllowList = &AllowList{Name: "./strict.json"}
	}},
	{name: "monitor", level: Contained, set: func(s *Spec) { s.Monitor = true }},
	{name: "notify", level: Namespaced, hosts: "user", set: func(s *Spec) { s.Notify = []Notify{{NotifyConnect, "192.0.2.1:80"}} }},
	{name: "monitor-basic", level: Basic, hosts: "user", set: func(s *Spec) { s.Monitor = true }},
	{name: "env", level: Namespaced, set: func(s *Spec) {
		s.Process.Env = []string{"PATH=/opt/bin::/usr/bin/", "TMPDIR=/cache", "HOME=/home/else"}
		s.Process.Args[0] = "python3"
	}},
	{name: "workdir-home", level: Namespaced, set: func(s *Spec) { s.Process.Cwd = "/home" }},
	{name: "workdir-root", level: Namespaced, set: func(s *Spec) { s.Process.Cwd = "/" }},
	{name: "workdir-below-tmp", level: Namespaced, set: func(s *Spec) { s.Process.Cwd = "/tmp/build" }},
	{name: "workdir-private", level: Namespaced, set: func(s *Spec) { s.Process.Cwd = "/root/work" }},
	{name: "workdir-landlock", level: User, set: func(s *Spec) { s.Process.Cwd = "/srv/link" }},
	{name: "ignored-signals", level: Basic, hosts: "hup", set: func(*Spec) {}},
	{name: "old-landlock", level: User, hosts: "old", set: func(*Spec) {}},
	{name: "no-sysfs", level: Namespaced, hosts: "nosysfs", set: func(*Spec) {}},
	{name: "resources", level: Limited, set: func(s *Spec) {
		memory, swap, pids, quota, period := int64(64<<20), int64(80<<20), int64(10), int64(150000), uint64(100000)
		io := specs.LinuxThrottleDevice{Rate: 1 << 20}
		io.Major, io.Minor = 8, 16
		s.Name, s.CPUTime = "job", time.Minute
		s.Linux.Resources = &specs.LinuxResources{
			Memory: &specs.LinuxMemory{Limit: &memory, Swap: &swap}, Pids: &specs.LinuxPids{Limit: &pids},
			CPU:     &specs.LinuxCPU{Quota: &quota, Period: &period, Cpus: "0-1"},
			BlockIO: &specs.LinuxBlockIO{ThrottleReadBpsDevice: []specs.LinuxThrottleDevice{io}},
		}
	}},
	{name: "cgroup-v1", level: Limited, hosts: "v1", set: func(s *Spec) {
		memory := int64(64 << 20)
		s.Linux.Resources = &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &memory, Swap: &memory}}
	}},
	{name: "cgroup-scope", level: Limited, hosts: "scope", set: func(*Spec) {}},
	{name: "cgroup-no-clone3", level: Limited, hosts: "noclone3", set: func(*Spec) {}},
	{name: "cgroup-nowhere", level: Limited, hosts: "nocgroup", set: func(*Spec) {}},
	{name: "rootfs", level: Namespaced, set: rooted(specs.Root{Path: "/srv/root", Readonly: true}, false)},
	{name: "rootfs-write", level: Namespaced, set: rooted(specs.Root{Path: "/srv/root"}, false)},
	{name: "rootfs-overlay", level: Namespaced, set: rooted(specs.Root{Path: "/srv/root", Readonly: true}, true)},
	{name: "rootfs-contained", level: Contained, set: rooted(specs.Root{Path: "/srv/root", Readonly: true}, false)},
	{name: "rootfs-caller", level: Namespaced, hosts: "root", set: func(s *Spec) {
		s.Root, s.Identity = &specs.Root{Path: "/srv/root", Readonly: true}, IdentityCaller
	}},
	{name: "rootfs-fixed", level: Namespaced, set: func(s *Spec) {
		s.Root, s.Identity, s.Process.User = &specs.Root{Path: "/srv/root", Readonly: true}, IdentityFixed, specs.User{UID: 7, GID: 8}
	}},
	// What the tree lacks makes an overlay of it; the paths are those behind its links.
	{name: "rootfs-rules", level: Namespaced, set: rooted(specs.Root{Path: "/srv/root", Readonly: true}, false,
		Rule{Kind: Show, Path: "/var/run/new/data", Source: "/srv/data"},
		Rule{Kind: ShowWrite, Path: "/work", Source: "/home/ann/project"},
		Rule{Kind: Deny, Path: "/work/out"},
		Rule{Kind: Deny, Path: "/etc/passwd"},
		Rule{Kind: Dir, Path: "/new/folder"},
		Rule{Kind: Symlink, Path: "/etc/link", Source: "x"},
		Rule{Kind: File, Path: "/etc/made", FD: 9},
		Rule{Kind: Tmpfs, Path: "/cache", Size: 1 << 20},
		Rule{Kind: Overlay, Path: "/copy", Source: "/srv/data"},
		Rule{Kind: Device, Path: "/dev/fuse", Source: "/dev/fuse"})},
	{name: "overlay", level: Namespaced, set: func(s *Spec) {
		s.View = append(s.View, Rule{Kind: Overlay, Path: "/home/ann/project", Source: "/home/ann/project"}, Rule{Kind: Device, Path: "/dev/fuse", Source: "/dev/fuse"})
	}},
	{name: "contained-caller", level: Contained, hosts: "root", set: func(s *Spec) { s.Identity = IdentityCaller }},
	{name: "outer-proc", level: Namespaced, hosts: "noproc", set: func(s *Spec) { s.OuterProc = true }},
	{name: "outer-proc-contained", level: Contained, hosts: "noproc", set: func(s *Spec) { s.OuterProc = true }},
	{name: "no-outer-proc", level: Namespaced, hosts: "noproc", set: func(*Spec) {}},
	{name: "no-mount-call", level: Namespaced, hosts: "nomountcall", set: func(*Spec) {}},
	{name: "no-aside", level: Namespaced, hosts: "noaside", set: func(*Spec) {}},
	{name: "no-maps", level: Namespaced, hosts: "nomaps", set: func(*Spec) {}},
	{name: "no-scratch", level: User, hosts: "noscratch", set: func(*Spec) {}},
	{name: "binds", level: Namespaced, hosts: "dockerroot", set: func(s *Spec) {
		s.View = append(s.View, Rule{Kind: Show, Path: "/data", Source: "/srv/data"})
	}},
	{name: "write", level: Namespaced, hosts: "dockerroot", set: func(s *Spec) {
		s.View = append(s.View, Rule{Kind: ShowWrite, Path: "/data", Source: "/srv/data"})
	}},
	{name: "rootfs", level: Namespaced, hosts: "dockerroot", set: rooted(specs.Root{Path: "/srv/root", Readonly: true}, false)},
	{name: "no-idmap", level: Namespaced, hosts: "noidmap", set: func(*Spec) {}},
}

// rooted sets a root file system and rules on it.
func rooted(root specs.Root, overlay bool, rules ...Rule) func(*Spec) {
	return func(s *Spec) {
		s.Root, s.RootOverlay = &root, overlay
		s.View = append(s.View, rules...)
	}
}

// specialHosts are facts that one case is about.
var specialHosts = map[string]func() *Host{
	"hup": func() *Host {
		h := userHost()
		h.Ignored, h.Mask, h.Children = 1, 2, false
		return h
	},
	"old": func() *Host {
		h := userHost()
		h.Kernel, h.Landlock = [2]int{5, 14}, 1
		return h
	},
	"nosysfs": func() *Host {
		h := userHost()
		h.NoSysfs = true
		return h
	},
	"v1": func() *Host {
		h := rootHost()
		h.Cgroup = &cgroup.Place{Version: 1, Controllers: []string{"memory", "pids", "cpu"}, Dirs: map[string]string{
			"freezer": "/sys/fs/cgroup/freezer/a", "memory": "/sys/fs/cgroup/memory/b", "pids": "/sys/fs/cgroup/pids",
			"cpu": "/sys/fs/cgroup/cpu,cpuacct/a", "cpuacct": "/sys/fs/cgroup/cpu,cpuacct/a",
		}}
		return h
	},
	"scope": func() *Host {
		h := userHost()
		h.Cgroup = &cgroup.Place{Version: 2, Scope: true, Controllers: []string{"memory", "pids"}}
		return h
	},
	"noclone3": func() *Host {
		h := rootHost()
		h.NoClone3, h.Cgroup.Warning = true, "outer limits do not hold"
		return h
	},
	"nocgroup": func() *Host {
		h := userHost()
		h.Cgroup, h.CgroupErr = nil, errors.New("no place for a cgroup")
		return h
	},
	"noproc": func() *Host {
		h := userHost()
		h.NoProc, h.NoSysfs = true, true
		return h
	},
	"nomountcall": func() *Host {
		h := userHost()
		h.NoMountCall, h.NoDevpts = true, true
		return h
	},
	"noaside": func() *Host {
		h := userHost()
		h.NoAside = true
		return h
	},
	"nomaps": func() *Host {
		h := rootHost()
		h.NoMaps = true
		return h
	},
	"noscratch": func() *Host {
		h := userHost()
		h.NoScratch = true
		return h
	},
	"dockerroot": dockerRootHost,
	"noidmap": func() *Host {
		h := rootHost()
		h.NoIDMap[8] = true
		return h
	},
}

// TestGolden pins the Plan of each level for each kind of caller, and of what users ask for beyond a level.
func TestGolden(t *testing.T) {
	for _, level := range Levels() {
		for _, h := range hosts {
			golden(t, level.String()+"-"+h.name, NewSpec(level, "/bin/true", "an argument"), h.make())
		}
	}
	for _, c := range flagCases {
		concerned := map[string]func() *Host{"root": rootHost, "user": userHost}
		if c.hosts != "" {
			f := specialHosts[c.hosts]
			if f == nil {
				f = concerned[c.hosts]
			}
			concerned = map[string]func() *Host{c.hosts: f}
		}
		for name, host := range concerned {
			s := NewSpec(c.level, "/bin/true")
			c.set(s)
			golden(t, "flags-"+c.name+"-"+name, s, host())
		}
	}
}

// someFilter is a filter of n instructions that allows all.
func someFilter(n int) []byte {
	p := slices.Repeat(program{{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS}}, n-1)
	return append(p, unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW}).bytes()
}

func golden(t *testing.T, name string, s *Spec, h *Host) {
	t.Run(name, func(t *testing.T) {
		if len(s.Filter) > 0 {
			s.Filter = someFilter(2) // the real one is another on each architecture, and is checked where it is made
		}
		if s.AllowList != nil {
			s.AllowList = &AllowList{Name: s.AllowList.Name, BPF: someFilter(3), Log: s.AllowList.Log}
		}
		plan, err := Compile(s, h)
		var got string
		if err != nil {
			got = fmt.Sprintf("%T: %v\n", err, err)
		} else {
			got = printPlan(plan)
		}
		path := filepath.Join("testdata", "plans", name+".golden")
		if *update {
			if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatalf("%v; go test -run Golden -update makes it", err)
		}
		if diff := cmp.Diff(string(want), got); diff != "" {
			t.Errorf("the Plan is another (-golden +now); go test -run Golden -update accepts it\n%s", diff)
		}
	})
}
