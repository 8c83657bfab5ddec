//go:build cgo && (amd64 || arm64)

package isolate

import (
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/jailrun/jail/isolate/internal/jailinit"
)

// place is something that stands in the new root: what lies below it comes from there.
type place struct {
	path   string
	kind   RuleKind
	source string // of Show and ShowWrite, on the host
	owned  bool   // folders made below belong to the payload
}

// own says whether the Plan makes what is below p, so that nobody else can have put a link there.
func (p place) own() bool { return p.kind == Tmpfs || p.kind == Dev }

const (
	denyDir  = ".jail-deny-folder"
	denyFile = ".jail-deny-file"
)

// devices are what /dev has.
var devices = []struct {
	name         string
	major, minor uint32
}{{"null", 1, 3}, {"zero", 1, 5}, {"full", 1, 7}, {"random", 1, 8}, {"urandom", 1, 9}, {"tty", 5, 0}}

// mountView builds a root of its own on a tmpfs and pivots to it. Absolute paths of steps name the host's files,
// relative ones the new root's.
func (c *compiler) mountView(rules []Rule) error {
	c.root = true
	if c.host.MountNS != 0 {
		c.mount(Step{Op: "own mounts", Path: ownMountNS, wire: wire{op: jailinit.OpOwnMounts, a: c.host.MountNS}})
	}
	// Before the first mount: what is mounted here must not travel to the host, nor the other way.
	c.mount(Step{
		Op: "mount attributes", Path: "/", Flags: []string{"private", "recursive"},
		wire: wire{op: jailinit.OpSetattr, flags: jailinit.StepRecursive, b: unix.MS_PRIVATE},
	})
	c.mount(Step{
		Op: "new root", Type: "tmpfs", Path: "/", List: []string{"source", "tmpfs", "mode", "0755", "size", strconv.Itoa(tmpfsSize), "nr_inodes", "4096"},
		Flags: []string{"nosuid", "nodev"}, wire: wire{op: jailinit.OpRoot, a: unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV},
	})
	c.places = []place{{path: "/", kind: Tmpfs}}
	if slices.ContainsFunc(rules, func(r Rule) bool { return r.Kind == Deny }) {
		c.mount(Step{Op: "mkdir", Path: denyDir, wire: wire{op: jailinit.OpMkdir, b: nobody}})
		c.mount(Step{Op: "create", Path: denyFile, wire: wire{op: jailinit.OpFile, b: nobody}})
	}
	for _, r := range rules {
		if err := c.place(r); err != nil {
			return err
		}
	}
	if slices.ContainsFunc(rules, func(r Rule) bool { return r.Kind == Deny }) {
		c.mount(Step{Op: "rmdir", Path: denyDir, wire: wire{op: jailinit.OpUnlink, a: unix.AT_REMOVEDIR}})
		c.mount(Step{Op: "unlink", Path: denyFile, wire: wire{op: jailinit.OpUnlink}})
	}
	// Last, when all mount points are made. The devices stay writable: a read-only mount does not concern them.
	for _, p := range c.places {
		if p.kind == Dev || p.path == "/" {
			c.mount(Step{
				Op: "mount attributes", Path: rel(p.path), Flags: []string{"ro"},
				wire: wire{op: jailinit.OpSetattr, a: unix.MOUNT_ATTR_RDONLY},
			})
		}
	}
	c.mount(Step{Op: "pivot_root", Path: ".", wire: wire{op: jailinit.OpPivot}})
	c.give(FileView)
	cwd := c.spec.Process.Cwd
	if cwd == "" {
		cwd = c.host.Cwd
	}
	c.mount(Step{Op: "chdir", Path: filepath.Clean(cwd), wire: wire{op: jailinit.OpChdir}})
	return nil
}

// nobody as the owner of a step is no change of owner.
const nobody = ^uint64(0)

func (c *compiler) mount(s Step) { c.add(SideInit, s) }

func rel(path string) string {
	if path == "/" {
		return "."
	}
	return strings.TrimPrefix(path, "/")
}

// cover is the deepest place that path lies in.
func (c *compiler) cover(path string) place {
	best := c.places[0]
	for _, p := range c.places {
		if within(path, p.path) && len(p.path) >= len(best.path) {
			best = p
		}
	}
	return best
}

// inView follows the links that the Plan itself has made, such as /bin.
func (c *compiler) inView(path string) string {
	for range 8 {
		moved := false
		for link, target := range c.links {
			if path != link && within(path, link) {
				if !filepath.IsAbs(target) {
					target = filepath.Join(filepath.Dir(link), target)
				}
				path, moved = filepath.Join(target, strings.TrimPrefix(path, link)), true
			}
		}
		if !moved {
			break
		}
	}
	return path
}

func (c *compiler) place(r Rule) error {
	path := c.inView(r.Path)
	if path == "/" {
		return &SpecError{Field: string(r.Kind), Value: r.Path, Problem: "is the root of the view, which is what the other rules make of it"}
	}
	in := c.cover(path)
	switch r.Kind {
	case Show, ShowWrite:
		return c.placeBind(r, path, in)
	case Tmpfs:
		size := r.Size
		if size == 0 {
			size = tmpfsSize
		}
		return c.placeTmpfs(r, path, in, size)
	case Deny:
		return c.placeDeny(r, path, in)
	case Dir:
		_, err := c.target(r, path, in, true)
		return err
	case Symlink, File:
		if !in.own() {
			return &SpecError{Field: string(r.Kind), Value: r.Path, Problem: fmt.Sprintf("can't be made: %q there is the host's", in.path)}
		}
		c.parents(path, in)
		if r.Kind == Symlink {
			c.mount(Step{Op: "symlink", Path: rel(path), Data: r.Source, wire: wire{op: jailinit.OpSymlink}})
			return nil
		}
		c.plan.files = append(c.plan.files, r.FD)
		c.mount(Step{
			Op: "create", Path: rel(path), Data: fmt.Sprintf("from fd %d", r.FD),
			wire: c.owner(in, wire{op: jailinit.OpFile, a: 0o644, d: uint64(firstFileSlot + len(c.plan.files) - 1)}),
		})
	case Proc:
		return c.placeProc(r, path, in)
	case Sys:
		return c.placeSys(r, path, in)
	case Dev:
		return c.placeDev(r, path, in)
	}
	return nil
}

const tmpfsSize = 1 << 30 // of each private folder; memory is used for what is written alone

// owner adds who owns something that is made in a place.
func (c *compiler) owner(in place, w wire) wire {
	w.b = nobody
	if in.owned && !c.userNS {
		w.b, w.c = uint64(c.uid), uint64(c.gid)
	}
	return w
}

// parents makes the folders on the way to path, in a place of our own.
func (c *compiler) parents(path string, in place) {
	for i := len(strings.TrimSuffix(in.path, "/")) + 1; ; i++ {
		next := strings.IndexByte(path[i:], '/')
		if next < 0 {
			return
		}
		i += next
		c.folder(path[:i], in)
	}
}

func (c *compiler) folder(path string, in place) {
	if c.made[path] || path == in.path {
		return
	}
	c.made[path] = true
	c.mount(Step{Op: "mkdir", Path: rel(path), wire: c.owner(in, wire{op: jailinit.OpMkdir, a: 0o755})})
}

// there is what the host has at a path that lies in a place of its own.
func (c *compiler) there(path string, in place) FileInfo {
	return c.host.Look(in.source + strings.TrimPrefix(path, in.path))
}

// target sees to it that there is something at path to mount on, without ever making anything on the host. It returns
// true where the path lies in a shown folder and has to be resolved in the root.
func (c *compiler) target(r Rule, path string, in place, dir bool) (inRoot bool, err error) {
	if in.own() {
		c.parents(path, in)
		if dir {
			c.folder(path, in)
		} else if !c.made[path] {
			c.made[path] = true
			c.mount(Step{Op: "create", Path: rel(path), wire: c.owner(in, wire{op: jailinit.OpFile, a: 0o644})})
		}
		return false, nil
	}
	if in.kind == Deny {
		return false, &SpecError{Field: string(r.Kind), Value: r.Path, Problem: fmt.Sprintf("lies in %q, which is denied", in.path)}
	}
	f := c.there(path, in)
	switch {
	case f.Err != nil:
		return false, &SpecError{Field: string(r.Kind), Value: r.Path, Problem: fmt.Sprintf("has no place in %q, which is the host's and where nothing is made: %s", in.path, errnoText(f.Err))}
	case f.isDir() != dir:
		kind := map[bool]string{true: "a folder", false: "a file"}
		return false, &SpecError{Field: string(r.Kind), Value: r.Path, Problem: "is " + kind[f.isDir()] + " there, and " + kind[dir] + " can't be put over it"}
	}
	return true, nil
}

func (c *compiler) placeBind(r Rule, path string, in place) error {
	f := c.host.Look(r.Source)
	if r.Default && f.Link != "" && r.Path == r.Source && in.own() {
		// /bin → usr/bin: as on the host, where the target is in the view
		c.parents(path, in)
		c.links[path] = f.Link
		c.mount(Step{Op: "symlink", Path: rel(path), Data: f.Link, wire: wire{op: jailinit.OpSymlink}})
		return nil
	}
	inRoot, err := c.target(r, path, in, f.isDir())
	if err != nil {
		return err
	}
	s := Step{Op: "bind", Source: f.Real, Path: rel(path), wire: wire{op: jailinit.OpBind, b: f.Dev, c: f.Ino}}
	s.wire.a, s.Flags = unix.MOUNT_ATTR_NOSUID, []string{"nosuid"}
	if !f.isDevice() { // a device that was asked for by name is meant to be used
		s.wire.a |= unix.MOUNT_ATTR_NODEV
		s.Flags = append(s.Flags, "nodev")
	}
	if m := c.idMap(f); m != nil && c.mapped(r, f) {
		s.wire.d = uint64(m.slot)
		s.Flags = append(s.Flags, fmt.Sprintf("ids %d:%d as %d:%d", f.UID, f.GID, c.uid, c.gid))
	}
	if r.Kind == Show {
		s.wire.a |= unix.MOUNT_ATTR_RDONLY
		s.Flags = append(s.Flags, "ro")
	}
	if f.isDir() {
		s.wire.flags |= jailinit.StepRecursive
		s.Flags = append(s.Flags, "recursive")
	}
	if inRoot {
		s.wire.flags |= jailinit.StepInRoot
	}
	c.mount(s)
	c.arrive(place{path: path, kind: r.Kind, source: f.Real}, f.Real)
	return nil
}

func (c *compiler) arrive(p place, source string) {
	c.places = append(c.places, p)
	c.plan.mounts = append(c.plan.mounts, mounted{path: p.path, source: source, write: p.kind == ShowWrite, denied: p.kind == Deny})
}

// mapped says whether a shown folder gets an id map: where the payload has a uid that owns nothing, all that was asked
// for by name. The level's system folders need none.
func (c *compiler) mapped(r Rule, f FileInfo) bool {
	return c.wantsMap(r, f) && !c.host.noIDMap(f)
}

func (c *compiler) wantsMap(r Rule, f FileInfo) bool {
	return c.mapsIDs && !(r.Default && shownByDefault(r.Source)) && !f.isDevice() && int(f.UID) != c.uid
}

// idMaps makes the user namespaces that binds are mapped with, one for each owner of a shown folder.
func (c *compiler) idMaps(rules []Rule) error {
	if !c.mapsIDs || !c.spec.hasNamespace(specs.MountNamespace) {
		return nil
	}
	for _, r := range rules {
		if r.Kind != Show && r.Kind != ShowWrite {
			continue
		}
		f := c.host.Look(r.Source)
		if c.wantsMap(r, f) && c.host.noIDMap(f) {
			if r.Kind == ShowWrite || !r.Default && f.Mode&0o005 != 0o005 {
				return &SpecError{Field: string(r.Kind), Value: r.Path, Problem: "is on a file system that can't map ids, so its owner's files would be closed to the payload; --user caller keeps your uid (without its capabilities)"}
			}
			c.plan.Notes = append(c.plan.Notes, fmt.Sprintf("%q is on a file system that can't map ids: it is read-only, and files closed to others stay closed", r.Path))
			continue
		}
		if !c.mapped(r, f) || c.idMap(f) != nil {
			continue
		}
		if len(c.maps) == maxMaps {
			return &SpecError{Field: string(r.Kind), Value: r.Path, Problem: fmt.Sprintf("belongs to one owner too many: the shown folders may have %d", maxMaps)}
		}
		slot := jailinit.MaxKept - 1 - len(c.maps)
		// The child takes the payload's ids, makes a user namespace and maps its own id to the one that owns the
		// files: the single line that user_namespaces(7) lets a process without capabilities write.
		group := c.aside("id map",
			Step{Op: "setresgid", Data: strconv.Itoa(c.gid), wire: wire{op: jailinit.OpGID, a: uint64(c.gid)}},
			Step{Op: "setresuid", Data: strconv.Itoa(c.uid), wire: wire{op: jailinit.OpUID, a: uint64(c.uid)}},
			Step{Op: "dumpable", wire: wire{op: jailinit.OpDumpable}},
			Step{Op: "unshare", List: []string{"CLONE_NEWUSER"}, wire: wire{op: jailinit.OpUnshare, a: unix.CLONE_NEWUSER}},
			writeStep("/proc/self/setgroups", "deny"),
			writeStep("/proc/self/uid_map", fmt.Sprintf("%d %d 1", f.UID, c.uid)),
			writeStep("/proc/self/gid_map", fmt.Sprintf("%d %d 1", f.GID, c.gid)),
			Step{Op: "open", Path: "/proc/self/ns/user", wire: wire{op: jailinit.OpOpen, a: uint64(slot)}})
		c.maps = append(c.maps, idMap{uid: f.UID, gid: f.GID, slot: slot, group: group})
	}
	// At once: under the new root's mount on / the kernel takes us for chrooted and makes no user namespace (EPERM), and
	// a wait later on would find the CPU taken by the network namespace's child.
	for _, m := range c.maps {
		c.join("id map", m.group)
	}
	return nil
}

// Slots of jail-init: 0–2 are its own, then the claims on the uid and the private TMPDIR, then the files of File rules,
// then the network namespace, and from the end the id maps.
const (
	firstFileSlot = 5
	maxFiles      = 5
	maxMaps       = jailinit.MaxAside - 1
	netSlot       = firstFileSlot + maxFiles
)

// idMap is a user namespace that a mount's ids are mapped with.
type idMap struct {
	uid, gid    uint32 // who owns the files
	slot, group int
}

func (c *compiler) idMap(f FileInfo) *idMap {
	for i := range c.maps {
		if m := &c.maps[i]; m.uid == f.UID && m.gid == f.GID {
			return m
		}
	}
	return nil
}

func (c *compiler) placeTmpfs(r Rule, path string, in place, size int64) error {
	inRoot, err := c.target(r, path, in, true)
	if err != nil {
		return err
	}
	mode := "0700"
	if r.Default && slices.Contains([]string{"/tmp", "/var/tmp", "/dev/shm"}, r.Path) {
		mode = "1777"
	} else if r.Path == "/run" || !r.Default {
		mode = "0755"
	}
	data := fmt.Sprintf("mode=%s,size=%d,nr_inodes=%d", mode, size, max(size>>12, 1024))
	if !c.userNS && c.uid != c.host.UID {
		data += fmt.Sprintf(",uid=%d,gid=%d", c.uid, c.gid)
	}
	s := mountStep("tmpfs", path, data, unix.MS_NOSUID|unix.MS_NODEV)
	if inRoot {
		s.wire.flags |= jailinit.StepInRoot
	}
	c.mount(s)
	c.arrive(place{path: path, kind: Tmpfs, owned: true}, "")
	return nil
}

// mountStep is a mount(2) of a file system of its own.
func mountStep(kind, path, data string, flags uint64) Step {
	s := Step{Op: "mount", Type: kind, Source: kind, Path: rel(path), Data: data, wire: wire{op: jailinit.OpMount, a: flags}}
	for _, f := range []struct {
		flag uint64
		name string
	}{{unix.MS_RDONLY, "ro"}, {unix.MS_NOSUID, "nosuid"}, {unix.MS_NODEV, "nodev"}, {unix.MS_NOEXEC, "noexec"}} {
		if flags&f.flag != 0 {
			s.Flags = append(s.Flags, f.name)
		}
	}
	return s
}

// closedMount has all attributes that take something away.
const closedMount = unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC

// placeDeny covers what is there with something that can't be opened. What is not there needs nothing, unless the
// payload could make it.
func (c *compiler) placeDeny(r Rule, path string, in place) error {
	var dir bool
	switch {
	case in.kind == Deny:
		return nil
	case in.kind == Dev && isDevice(path, in):
	case in.own():
		return nil
	default:
		f := c.there(path, in)
		if f.Err != nil {
			if in.kind != ShowWrite {
				return nil
			}
			return &SpecError{Field: "deny", Value: r.Path, Problem: fmt.Sprintf("does not exist, and the payload could make it in %q, which is writable; make it first", in.path)}
		}
		dir = f.isDir()
	}
	s := Step{Op: "bind", Source: denyFile, Path: rel(path), Flags: []string{"ro", "nosuid", "nodev", "noexec"}, wire: wire{
		op: jailinit.OpBind, flags: jailinit.StepInRoot,
		a: closedMount,
	}}
	if dir {
		s.Source = denyDir
	}
	c.mount(s)
	c.arrive(place{path: path, kind: Deny}, "")
	return nil
}

// isDevice says whether path is one of those that a /dev of ours has.
func isDevice(path string, dev place) bool {
	for _, d := range devices {
		if path == dev.path+"/"+d.name {
			return true
		}
	}
	return false
}

// procOfRoot are the files of /proc that root owns and that change the host: closed by mounts where the payload has
// root's uid. They are not covered for others: after one mount below /proc no jail in the jail can mount its own.
var procOfRoot = []string{"acpi", "bus", "fs", "irq", "sys", "sysrq-trigger"}

func (c *compiler) placeProc(r Rule, path string, in place) error {
	if _, err := c.target(r, path, in, true); err != nil {
		return err
	}
	c.mount(mountStep("proc", path, "", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC))
	if c.uid == 0 && !c.userNS {
		for _, name := range procOfRoot {
			if c.host.Look("/proc/"+name).Err == nil {
				c.mount(Step{
					Op: "bind", Source: rel(path) + "/" + name, Path: rel(path) + "/" + name, Flags: []string{"ro"},
					wire: wire{op: jailinit.OpBind, a: closedMount},
				})
			}
		}
	}
	c.arrive(place{path: path, kind: Proc, source: path}, path)
	return nil
}

// placeSys mounts a fresh sysfs: the host's would show its network devices. Where that can't be had (an ordinary user
// with the host's network), /sys is an empty folder: less to see, not more.
func (c *compiler) placeSys(r Rule, path string, in place) error {
	if _, err := c.target(r, path, in, true); err != nil {
		return err
	}
	if c.host.NoSysfs || c.userNS && c.spec.HostNetwork {
		return nil
	}
	c.joinNet() // sysfs shows the network namespace of who mounts it
	c.mount(mountStep("sysfs", path, "", unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC))
	c.arrive(place{path: path, kind: Sys, source: path}, path)
	return nil
}

func (c *compiler) placeDev(r Rule, path string, in place) error {
	if _, err := c.target(r, path, in, true); err != nil {
		return err
	}
	c.mount(mountStep("tmpfs", path, "mode=0755,size=64k,nr_inodes=256", unix.MS_NOSUID|unix.MS_NOEXEC))
	at := place{path: path, kind: Dev}
	c.arrive(at, path)
	for _, d := range devices {
		name := rel(path) + "/" + d.name
		if !c.userNS {
			c.mount(Step{
				Op: "mknod", Path: name, Data: fmt.Sprintf("c %d:%d", d.major, d.minor),
				wire: wire{op: jailinit.OpMknod, a: unix.S_IFCHR | 0o666, b: unix.Mkdev(d.major, d.minor)},
			})
			continue
		}
		// No mknod in a user namespace: the host's own, if it is what it should be (CVE-2025-31133 took a link).
		if f := c.host.Look("/dev/" + d.name); f.Err != nil || !f.isDevice() || f.Rdev != unix.Mkdev(d.major, d.minor) {
			return &UnsupportedError{Level: c.spec.Level, Missing: fmt.Sprintf("the device /dev/%s", d.name)}
		} else {
			c.mount(Step{Op: "create", Path: name, wire: wire{op: jailinit.OpFile, a: 0o666, b: nobody}})
			c.mount(Step{
				Op: "bind", Source: f.Real, Path: name, Flags: []string{"nosuid", "noexec"},
				wire: wire{op: jailinit.OpBind, a: unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NOEXEC, b: f.Dev, c: f.Ino},
			})
		}
	}
	c.folder(path+"/pts", at)
	c.mount(mountStep("devpts", path+"/pts", "newinstance,ptmxmode=0666,mode=620", unix.MS_NOSUID|unix.MS_NOEXEC))
	for _, l := range [][2]string{
		{"ptmx", "pts/ptmx"},
		{"fd", "/proc/self/fd"},
		{"stdin", "/proc/self/fd/0"},
		{"stdout", "/proc/self/fd/1"},
		{"stderr", "/proc/self/fd/2"},
	} {
		c.mount(Step{Op: "symlink", Path: rel(path) + "/" + l[0], Data: l[1], wire: wire{op: jailinit.OpSymlink}})
	}
	return nil
}
