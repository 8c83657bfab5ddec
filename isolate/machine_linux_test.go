//go:build amd64 || arm64

package isolate

import (
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/jailrun/jail/cgroup"
)

// A machine that exists in tests alone: Compile asks nothing but its Host, so Plans for it are the same everywhere.

type machine struct{ *Host }

// rootHost is a Host of root with all capabilities, in the folder /home/ann/project.
func rootHost() *Host {
	m := machine{&Host{
		Caps: allCapabilities, Bounding: allCapabilities, Kernel: [2]int{6, 12}, Landlock: 6, Children: true, MountNS: 4026531841,
		Home: "/root", Cwd: "/home/ann/project", OwnUID: 1_900_000_007, Scratch: "/tmp/jail-tmp-0-abc",
		Environ: []string{"PATH=/usr/bin:/bin", "HOME=/root", "LANG=C.UTF-8", "SECRET=1", "https_proxy=http://proxy:3128"},
		Rlimits: map[string][2]uint64{
			"RLIMIT_NOFILE": {1024, 4096}, "RLIMIT_NPROC": {100, 200}, "RLIMIT_FSIZE": {^uint64(0), ^uint64(0)},
			"RLIMIT_CORE": {0, 1000}, "RLIMIT_CPU": {^uint64(0), ^uint64(0)},
		},
		NoIDMap: map[uint64]bool{}, Files: map[string]FileInfo{},
		Cgroup: &cgroup.Place{
			Version: 2, Dirs: map[string]string{"": "/sys/fs/cgroup/ci"}, Controllers: []string{"cpu", "cpuset", "io", "memory", "pids"},
		},
		CgroupName: "abcdefghijkl", CPUs: 2,
	}}
	m.folders(0, 0o755, "/usr", "/usr/bin", "/usr/lib", "/usr/lib64", "/etc", "/etc/ssl", "/opt", "/proc", "/proc/bus",
		"/proc/fs", "/proc/irq", "/proc/sys", "/sys", "/dev", "/dev/shm", "/run", "/run/resolved", "/var", "/home", "/srv",
		"/srv/data", "/srv/data/secret")
	m.folders(0, 0o755, "/srv/root")
	m.Rootfs = map[string]InRoot{}
	for _, dir := range []string{"/", "/proc", "/dev", "/sys", "/tmp", "/run", "/var", "/var/tmp", "/etc", "/work"} {
		m.Rootfs[dir] = InRoot{Path: dir, FileInfo: FileInfo{Mode: unix.S_IFDIR | 0o755}}
	}
	m.Rootfs["/etc/passwd"] = InRoot{Path: "/etc/passwd", FileInfo: FileInfo{Mode: unix.S_IFREG | 0o644}}
	m.Rootfs["/var/run"] = InRoot{Path: "/run", FileInfo: FileInfo{Mode: unix.S_IFDIR | 0o755}}
	m.Rootfs["/var/run/new/data"] = InRoot{Path: "/run/new/data", Missing: true}
	m.Mounts = []string{"/", "/proc", "/srv/of0/mounted"}
	m.folders(0, 0o700, "/root", "/root/work")
	m.folders(0, 0o1777, "/tmp", "/var/tmp", "/tmp/build")
	m.folders(1000, 0o755, "/home/ann", "/home/ann/project", "/home/ann/project/out")
	for i := range 6 {
		m.folders(2000+uint32(i), 0o755, "/srv/of"+string(rune('0'+i)))
	}
	m.link("/bin", "usr/bin")
	m.link("/lib", "usr/lib")
	m.link("/lib64", "usr/lib64")
	m.link("/etc/resolv.conf", "/run/resolved/stub.conf")
	m.link("/srv/link", "data")
	m.Files["/srv/link/secret"] = m.Files["/srv/data/secret"]
	m.file("/run/resolved/stub.conf", unix.S_IFREG|0o644, 0, 0)
	m.file("/etc/passwd", unix.S_IFREG|0o644, 0, 0)
	m.file("/etc/shadow", unix.S_IFREG|0o600, 0, 0)
	m.file("/srv/data/readme", unix.S_IFREG|0o644, 0, 0)
	m.file("/proc/sysrq-trigger", unix.S_IFREG|0o200, 0, 0)
	m.file("/dev/fuse", unix.S_IFCHR|0o666, 0, unix.Mkdev(10, 229))
	for _, d := range devices {
		m.file("/dev/"+d.name, unix.S_IFCHR|0o666, 0, unix.Mkdev(d.major, d.minor))
	}
	root := FileInfo{Real: "/", Mode: unix.S_IFDIR | 0o755, Dev: 8, Ino: 2}
	root.Entries = []string{"bin", "dev", "etc", "home", "lib", "lib64", "opt", "proc", "root", "run", "srv", "sys", "tmp", "usr", "var"}
	m.Files["/"] = root
	return m.Host
}

// userHost is the Host of an ordinary user, who has to make a user namespace.
func userHost() *Host {
	h := rootHost()
	h.UID, h.GID, h.Groups, h.Caps, h.OwnUID = 1000, 1000, []int{1000}, 0, 0
	h.Home, h.Scratch = "/home/ann", "/tmp/jail-tmp-1000-abc"
	h.Environ[1] = "HOME=/home/ann"
	return h
}

// weakRootHost is root in a container that took its capabilities: no other uid, no namespaces.
func weakRootHost() *Host {
	h := rootHost()
	h.Caps, h.OwnUID = 0, 0
	return h
}

// dockerRootHost is root in a container that left it what a container's root mostly needs.
func dockerRootHost() *Host {
	h := rootHost()
	h.Caps = otherUIDCaps
	return h
}

// guestRootHost is root in a user namespace that maps this uid alone, to somebody who is not root.
func guestRootHost() *Host {
	h := rootHost()
	h.OwnUID, h.NoOwnUID, h.GuestUID = 0, true, true
	return h
}

// capableHost is a user who is not root but holds root's capabilities.
func capableHost() *Host {
	h := userHost()
	h.Caps = allCapabilities
	return h
}

func (m machine) folders(uid, mode uint32, paths ...string) {
	for _, path := range paths {
		m.file(path, unix.S_IFDIR|mode, uid, 0)
	}
}

func (m machine) file(path string, mode, uid uint32, rdev uint64) {
	m.Files[path] = FileInfo{Real: path, Mode: mode, UID: uid, GID: uid, Dev: 8, Ino: uint64(100 + len(m.Files)), Rdev: rdev}
}

// link adds a symbolic link; what it points to has to be there, or to be added by the time it is looked at.
func (m machine) link(path, to string) {
	target := to
	if !filepath.IsAbs(to) {
		target = filepath.Join(filepath.Dir(path), to)
	}
	f := m.Files[target]
	if f.Real == "" {
		f = FileInfo{Real: target, Mode: unix.S_IFREG | 0o644, Dev: 8, Ino: 99}
	}
	f.Link = to
	m.Files[path] = f
}

// printPlan is a Plan as the golden files have it: all that a reader has to see change.
func printPlan(p *Plan) string {
	var b strings.Builder
	line := func(parts ...string) { b.WriteString(strings.TrimRight(strings.Join(parts, " "), " ") + "\n") }
	line(append([]string{"clone"}, p.CloneFlags...)...)
	for _, s := range p.Steps {
		line(string(s.Side)+":", s.String())
		if s.Env != nil {
			line("\twith", strings.Join(s.Env, " "))
		}
	}
	line("identity", formatIDs(p))
	var given []string
	for _, g := range p.Given {
		given = append(given, string(g))
	}
	line("given", strings.Join(given, " "))
	for _, n := range p.Notes {
		line("note", n)
	}
	return b.String()
}
