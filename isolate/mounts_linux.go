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
	outer  bool   // a /proc that was there: parts of it may be covered already
	slot   int    // where jail-init holds the mount; 0 is nowhere: paths below are relative to the new root then
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
	begin := len(c.plan.Steps)
	if c.spec.Root != nil {
		return c.mountRootfs(rules, begin)
	}
	c.mount(newRoot("4096"))
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
	if err := c.masks(); err != nil {
		return err
	}
	stage := c.overlayStage()
	c.plan.Steps = slices.Insert(c.plan.Steps, begin, stage...)
	// Last, when all mount points are made. The devices stay writable: a read-only mount does not concern them.
	for _, p := range c.places {
		if p.kind == Dev || p.path == "/" {
			c.mount(Step{
				Op: "mount attributes", Path: rel(p.path), Flags: []string{"ro"},
				wire: wire{op: jailinit.OpSetattr, a: unix.MOUNT_ATTR_RDONLY},
			})
		}
	}
	c.pivot(stage)
	c.give(FileView)
	c.mount(Step{Op: "chdir", Path: filepath.Clean(c.workdir()), wire: wire{op: jailinit.OpChdir}})
	return nil
}

// newRoot is a tmpfs over /, which becomes the working folder.
func newRoot(inodes string) Step {
	return Step{
		Op: "new root", Type: "tmpfs", Path: "/", List: []string{"source", "tmpfs", "mode", "0755", "size", strconv.Itoa(tmpfsSize), "nr_inodes", inodes},
		Flags: []string{"nosuid", "nodev"}, wire: wire{op: jailinit.OpRoot, a: unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV},
	}
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
	for _, leaf := range c.leaves {
		if path != leaf && within(path, leaf) && (in.path == leaf || !within(in.path, leaf)) {
			return &SpecError{Field: string(r.Kind), Value: r.Path, Problem: fmt.Sprintf("lies in %q, which is made as a file or a link", leaf)}
		}
	}
	switch r.Kind {
	case Show, ShowWrite, Device:
		return c.placeBind(r, path, in)
	case Overlay:
		return c.placeOverlay(r, path, in)
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
		c.leaves = append(c.leaves, path)
		if in.kind == rootfs {
			return c.makeInRootfs(r, path)
		}
		if !in.own() {
			return &SpecError{Field: string(r.Kind), Value: r.Path, Problem: fmt.Sprintf("can't be made: %q there is the host's", in.path)}
		}
		c.parents(path, in)
		if r.Kind == Symlink {
			c.mount(c.below(in, path, Step{Op: "symlink", Data: r.Source, wire: wire{op: jailinit.OpSymlink}}))
			return nil
		}
		c.plan.files = append(c.plan.files, r.FD)
		c.mount(c.below(in, path, Step{
			Op: "create", Data: fmt.Sprintf("from fd %d", r.FD),
			wire: c.owner(in, wire{op: jailinit.OpFile, a: 0o644, d: uint64(firstFileSlot + len(c.plan.files) - 1)}),
		}))
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
	c.mount(c.below(in, path, Step{Op: "mkdir", wire: c.owner(in, wire{op: jailinit.OpMkdir, a: 0o755})}))
}

// below makes s a step about path, in a place of our own: relative to its mount, where a hostile tree lies on the way.
func (c *compiler) below(in place, path string, s Step) Step {
	s.Path = rel(path)
	if in.slot != 0 {
		s.wire.e, s.wire.path = uint64(in.slot), strings.TrimPrefix(strings.TrimPrefix(path, in.path), "/")
		if s.wire.path == "" {
			s.wire.path = "."
		}
	}
	return s
}

// onto makes s a step that mounts on path, which target has said how to reach.
func (c *compiler) onto(in place, path string, flags uint32, s Step) Step {
	s = c.below(in, path, s)
	s.wire.flags |= flags
	return s
}

// there is what the host has at a path that lies in a place of its own.
func (c *compiler) there(path string, in place) FileInfo {
	return c.host.Look(in.source + strings.TrimPrefix(path, in.path))
}

// target sees to it that there is something at path to mount on, without ever making anything on the host. It returns
// how the path has to be resolved where it lies in a shown folder.
func (c *compiler) target(r Rule, path string, in place, dir bool) (flags uint32, err error) {
	if in.kind == rootfs {
		return jailinit.StepNoLinks, c.targetInRootfs(r, path, dir)
	}
	if in.slot != 0 {
		flags = jailinit.StepNoLinks
	}
	if in.own() {
		c.parents(path, in)
		if dir {
			c.folder(path, in)
		} else if !c.made[path] {
			c.made[path] = true
			c.mount(c.below(in, path, Step{Op: "create", wire: c.owner(in, wire{op: jailinit.OpFile, a: 0o644})}))
		}
		return flags, nil
	}
	if in.kind == Deny {
		return 0, &SpecError{Field: string(r.Kind), Value: r.Path, Problem: fmt.Sprintf("lies in %q, which is denied", in.path)}
	}
	f := c.there(path, in)
	switch {
	case f.Err != nil:
		return 0, &SpecError{Field: string(r.Kind), Value: r.Path, Problem: fmt.Sprintf("has no place in %q, which is the host's and where nothing is made: %s", in.path, errnoText(f.Err))}
	case f.isDir() != dir:
		return 0, otherKind(r, f.isDir())
	}
	return flags | jailinit.StepInRoot, nil
}

// otherKind is the error for a folder that can't be mounted on a file, and the other way.
func otherKind(r Rule, isDir bool) error {
	kind := map[bool]string{true: "a folder", false: "a file"}
	return &SpecError{Field: string(r.Kind), Value: r.Path, Problem: "is " + kind[isDir] + " there, and " + kind[!isDir] + " can't be put over it"}
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
	if r.Kind == Device && in.kind == Dev && !c.userNS && !c.host.NoMknod {
		return c.makeDevice(f, path, in)
	}
	how, err := c.target(r, path, in, f.isDir())
	if err != nil {
		return err
	}
	s := Step{Op: "bind", Source: f.Real, wire: wire{op: jailinit.OpBind, b: f.Dev, c: f.Ino}}
	s.wire.a, s.Flags = unix.MOUNT_ATTR_NOSUID, []string{"nosuid"}
	if !f.isDevice() { // a device that was asked for by name is meant to be used
		s.wire.a |= unix.MOUNT_ATTR_NODEV
		s.Flags = append(s.Flags, "nodev")
	}
	c.mapBind(&s, r, f)
	if r.Kind == Show {
		s.wire.a |= unix.MOUNT_ATTR_RDONLY
		s.Flags = append(s.Flags, "ro")
	}
	if r.NoExec {
		s.wire.a |= unix.MOUNT_ATTR_NOEXEC
		s.Flags = append(s.Flags, "noexec")
	}
	if f.isDir() {
		s.wire.flags |= jailinit.StepRecursive
		s.Flags = append(s.Flags, "recursive")
	}
	at := place{path: path, kind: r.Kind, source: f.Real}
	if c.spec.Root != nil {
		at.slot = c.keepOpen(&s)
	}
	c.mount(c.onto(in, path, how, s))
	c.arrive(at, f.Real)
	c.plan.mounts[len(c.plan.mounts)-1].noExec = r.NoExec
	return nil
}

// makeDevice makes a device of the host's in our own /dev. Root's payload is another uid: so that the device can be used
// it is the payload's, with the rights that its owner has on the host.
func (c *compiler) makeDevice(f FileInfo, path string, in place) error {
	if c.made[path] {
		return nil
	}
	c.parents(path, in)
	c.made[path] = true
	kind := map[uint32]string{unix.S_IFCHR: "c", unix.S_IFBLK: "b"}[f.Mode&unix.S_IFMT]
	c.mount(c.below(in, path, Step{
		Op: "mknod", Data: fmt.Sprintf("%s %d:%d", kind, unix.Major(f.Rdev), unix.Minor(f.Rdev)),
		wire: wire{op: jailinit.OpMknod, a: uint64(f.Mode & (unix.S_IFMT | 0o777)), b: f.Rdev, c: uint64(c.uid), d: uint64(c.gid)},
	}))
	c.plan.mounts = append(c.plan.mounts, mounted{path: path, source: f.Real, write: true})
	return nil
}

func (c *compiler) arrive(p place, source string) {
	c.places = append(c.places, p)
	if showsProc(p.kind, source, p.path) {
		c.plan.Given = slices.DeleteFunc(c.plan.Given, func(g Guarantee) bool { return g == PrivateProcesses })
	}
	c.plan.mounts = append(c.plan.mounts, mounted{path: p.path, source: source, write: p.kind == ShowWrite || p.kind == Device, copied: p.kind == Overlay, denied: p.kind == Deny})
}

// mapsBind says whether a shown folder gets an id map: where the payload has a uid that owns nothing, all that was asked
// for by name. The level's system folders need none.
func (c *compiler) mapsBind(r Rule, f FileInfo) bool {
	return c.wantsMap(r, f) && !c.noIDMap(f)
}

func (c *compiler) wantsMap(r Rule, f FileInfo) bool {
	return c.mapsIDs && !(r.Default && shownByDefault(r.Source)) && !f.isDevice() && int(f.UID) != c.plan.UID
}

// noIDMap says whether a folder can't be id-mapped: in a user namespace of an ordinary user's, none of the host's can.
func (c *compiler) noIDMap(f FileInfo) bool { return c.asOwn || c.host.noIDMap(f) }

// noIDMapReason says why, of a folder.
func (c *compiler) noIDMapReason() (why, remedy string) {
	switch {
	case c.asOwn:
		return "belongs to another uid than the payload's, and mapping ids needs " + c.host.lacking(1<<unix.CAP_SYS_ADMIN), ""
	case c.host.NoMaps:
		return "can't be id-mapped, since no user namespace can be made here", "; --user caller keeps your uid (without its capabilities)"
	}
	return "is on a file system that can't map ids", "; --user caller keeps your uid (without its capabilities)"
}

// idMaps makes the user namespaces that binds are mapped with, one for each owner of a shown folder.
func (c *compiler) idMaps(rules []Rule) error {
	c.userNamespace()
	if !c.mapsIDs || !c.spec.hasNamespace(specs.MountNamespace) {
		rules = nil
	} else if c.spec.Root != nil {
		rules = append([]Rule{c.rootRule()}, rules...)
	}
	for _, r := range rules {
		if !r.hasSource() && r.Kind != rootfs {
			continue
		}
		f := c.host.Look(r.Source)
		if c.wantsMap(r, f) && c.noIDMap(f) {
			why, remedy := c.noIDMapReason()
			if c.writable(r) || !r.Default && f.Mode&0o005 != 0o005 {
				return &SpecError{Field: string(r.Kind), Value: r.Path, Problem: why + ", so its owner's files would be closed to the payload" + remedy}
			}
			c.plan.Notes = append(c.plan.Notes, fmt.Sprintf("%q %s: it is read-only, and files closed to others stay closed", r.Path, why))
			continue
		}
		if !c.mapsBind(r, f) || c.idMap(f) != nil {
			continue
		}
		if len(c.maps) == maxMaps {
			return &SpecError{Field: string(r.Kind), Value: r.Path, Problem: fmt.Sprintf("belongs to one owner too many: the shown folders may have %d", maxMaps)}
		}
		c.newMap(int(f.UID), int(f.GID), "id map")
	}
	return nil
}

// newMap makes a user namespace in which the payload's ids on the host are uid and gid.
func (c *compiler) newMap(uid, gid int, what string, more ...Step) {
	slot := jailinit.MaxKept - 1 - len(c.maps)
	// The child takes the payload's ids, makes a user namespace and maps its own id to the one that owns the
	// files: the single line that user_namespaces(7) lets a process without capabilities write.
	steps := append([]Step{
		{Op: "setresgid", Data: strconv.Itoa(c.gid), wire: wire{op: jailinit.OpGID, a: uint64(c.gid)}},
		{Op: "setresuid", Data: strconv.Itoa(c.uid), wire: wire{op: jailinit.OpUID, a: uint64(c.uid)}},
		{Op: "dumpable", wire: wire{op: jailinit.OpDumpable}},
		{Op: "unshare", List: []string{"CLONE_NEWUSER"}, wire: wire{op: jailinit.OpUnshare, a: unix.CLONE_NEWUSER}},
		writeStep("/proc/self/setgroups", "deny"),
		writeStep("/proc/self/uid_map", fmt.Sprintf("%d %d 1", uid, c.uid)),
		writeStep("/proc/self/gid_map", fmt.Sprintf("%d %d 1", gid, c.gid)),
	}, more...)
	steps = append(steps, Step{Op: "open", Path: "/proc/self/ns/user", wire: wire{op: jailinit.OpOpen, a: uint64(slot)}})
	c.maps = append(c.maps, idMap{uid: uint32(uid), gid: uint32(gid), slot: slot})
	// Joined at once: under the new root's mount on / the kernel takes us for chrooted and makes no user namespace
	// (EPERM). And before the next one is made: all share our memory, whose dumpable flag a change of ids clears, and
	// without it /proc/self is not the child's to write.
	c.join(what, c.aside(what, steps...))
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
	uid, gid uint32 // who owns the files
	slot     int
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
	mode := "0700"
	if r.Default && slices.Contains([]string{"/tmp", "/var/tmp", "/dev/shm"}, r.Path) {
		mode = "1777"
	} else if r.Path == "/run" || !r.Default {
		mode = "0755"
	}
	options := []string{"mode", mode, "size", strconv.FormatInt(size, 10), "nr_inodes", strconv.FormatInt(max(size>>12, 1024), 10)}
	if !c.userNS && c.uid != c.host.UID {
		options = append(options, "uid", strconv.Itoa(c.uid), "gid", strconv.Itoa(c.gid))
	}
	return c.placeFS(r, "tmpfs", path, in, options, unix.MS_NOSUID|unix.MS_NODEV, place{kind: Tmpfs, owned: true})
}

// placeFS mounts a file system of its own. Where steps to come need its fd, for a hostile tree lies on the way or to
// prove what is masked, it is kept.
func (c *compiler) placeFS(r Rule, kind, path string, in place, options []string, flags uint64, at place) error {
	how, err := c.target(r, path, in, true)
	if err != nil {
		return err
	}
	at.path = path
	keep := c.spec.Root != nil || len(c.toMask()) > 0 && (kind == "proc" || kind == "sysfs")
	s := fsStep(kind, path, options, flags, keep || c.host.NoMountCall)
	if keep {
		at.slot = c.keepOpen(&s)
	}
	c.mount(c.onto(in, path, how, s))
	c.arrive(at, at.source)
	return nil
}

// fsStep mounts a file system of its own, by fsmount(2) where its fd is needed on the way. options are key, value, …; the
// value of a flag is "".
func fsStep(kind, path string, options []string, flags uint64, byFD bool) Step {
	if byFD {
		s := mountStep(kind, path, "", flags)
		s.List = append([]string{"source", kind}, options...)
		s.wire = wire{op: jailinit.OpFS, a: mountAttributes(flags)}
		return s
	}
	var data []string
	for i := 0; i < len(options); i += 2 {
		data = append(data, strings.TrimSuffix(options[i]+"="+options[i+1], "="))
	}
	return mountStep(kind, path, strings.Join(data, ","), flags)
}

// mountAttributes are flags of mount(2) as fsmount(2) takes them.
func mountAttributes(flags uint64) (attributes uint64) {
	for _, f := range [][2]uint64{
		{unix.MS_RDONLY, unix.MOUNT_ATTR_RDONLY},
		{unix.MS_NOSUID, unix.MOUNT_ATTR_NOSUID},
		{unix.MS_NODEV, unix.MOUNT_ATTR_NODEV},
		{unix.MS_NOEXEC, unix.MOUNT_ATTR_NOEXEC},
	} {
		if flags&f[0] != 0 {
			attributes |= f[1]
		}
	}
	return attributes
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
	if r.Glob { // what it matches now has rules of its own
		return c.denyLater(r)
	}
	switch {
	case in.kind == Deny:
		return nil
	case in.kind == Dev && isDevice(path, in):
	case in.own():
		return nil
	case in.kind == rootfs:
		f := c.host.LookIn(c.rootDir(), path)
		if f.Missing && (!c.writable(c.rootRule()) || r.Report && f.Err == nil) {
			if r.Report && c.rootIsTree() {
				c.plan.absent = append(c.plan.absent, absence{path: r.Path, source: path, root: c.rootDir()})
			}
			return nil
		}
		if f.Err != nil || f.Missing {
			return &SpecError{Field: "deny", Value: r.Path, Problem: "does not exist, and the payload could make it in its root, which is writable; make it first"}
		}
		dir = f.isDir()
	default:
		f := c.there(path, in)
		if f.Err != nil {
			if in.kind != ShowWrite && in.kind != Overlay || r.Report {
				return nil
			}
			return &SpecError{Field: "deny", Value: r.Path, Problem: fmt.Sprintf("does not exist, and the payload could make it in %q, which is writable; make it first", in.path)}
		}
		dir = f.isDir()
	}
	if c.spec.Root != nil {
		return c.denyInRootfs(path, in, dir)
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

// denyLater refuses a pattern that could match what the payload makes, unless that is to be reported.
func (c *compiler) denyLater(r Rule) error {
	for _, p := range c.places {
		if writable := p.kind == ShowWrite || p.kind == Overlay || p.kind == rootfs && c.writable(c.rootRule()); writable && reachesInto(r.Path, p.path) && !r.Report {
			return &SpecError{Field: "deny", Value: r.Path, Problem: fmt.Sprintf("is a pattern that could match what the payload makes in %q, which is writable", p.path)}
		}
	}
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
	if c.host.NoProc && c.spec.OuterProc {
		return c.placeOuterProc(r, path, in)
	}
	if err := c.placeFS(r, "proc", path, in, nil, unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, place{kind: Proc, source: path}); err != nil {
		return err
	}
	if c.hostRoot() && c.spec.Root == nil && len(c.toMask()) == 0 {
		for _, name := range procOfRoot {
			if c.host.Look("/proc/"+name).Err == nil {
				c.mount(Step{
					Op: "bind", Source: rel(path) + "/" + name, Path: rel(path) + "/" + name, Flags: []string{"ro"},
					wire: wire{op: jailinit.OpBind, a: closedMount},
				})
			}
		}
	}
	return nil
}

// placeOuterProc shows the procfs that is there. /proc/self works in it, since we have a pid in its namespace as well; but
// it names the processes of that. What covers parts of it comes along: the kernel shows nobody what lies below. It is
// read-only, since some files of other processes go by owner alone (oom_score_adj); what tells more of them asks for
// ptrace's rights, which end at the payload's user namespace or other uid.
func (c *compiler) placeOuterProc(r Rule, path string, in place) error {
	if c.hostRoot() {
		return &SpecError{Field: "proc", Value: "outer", Problem: "would give the payload the files of /proc that root owns; without --user caller it is another uid"}
	}
	how, err := c.target(r, path, in, true)
	if err != nil {
		return err
	}
	s := Step{
		Op: "bind", Source: "/proc", Flags: []string{"ro", "nosuid", "nodev", "noexec", "recursive"},
		wire: wire{op: jailinit.OpBind, flags: jailinit.StepRecursive, a: closedMount},
	}
	at := place{path: path, kind: Proc, source: path, outer: true}
	if c.spec.Root != nil || len(c.toMask()) > 0 {
		at.slot = c.keepOpen(&s)
	}
	c.mount(c.onto(in, path, how, s))
	c.arrive(at, at.source)
	c.plan.Given = slices.DeleteFunc(c.plan.Given, func(g Guarantee) bool { return g == PrivateProcesses })
	c.plan.Notes = append(c.plan.Notes, "/proc is that of the sandbox around this one, whose processes are seen in it (--proc outer)")
	return nil
}

// hostRoot says whether the payload has the uid that owns much of /proc.
func (c *compiler) hostRoot() bool { return c.uid == 0 && !c.userNS && !c.mapped }

// placeSys mounts a fresh sysfs: the host's would show its network devices. Where that can't be had (an ordinary user
// with the host's network), /sys is an empty folder: less to see, not more.
func (c *compiler) placeSys(r Rule, path string, in place) error {
	if c.host.NoSysfs || c.userNS && c.spec.HostNetwork {
		_, err := c.target(r, path, in, true)
		return err
	}
	c.joinNet() // sysfs shows the network namespace of who mounts it
	return c.placeFS(r, "sysfs", path, in, nil, unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, place{kind: Sys, source: path})
}

func (c *compiler) placeDev(r Rule, path string, in place) error {
	err := c.placeFS(r, "tmpfs", path, in, []string{"mode", "0755", "size", "64k", "nr_inodes", "256"}, unix.MS_NOSUID|unix.MS_NOEXEC, place{kind: Dev, source: path})
	if err != nil {
		return err
	}
	at := c.places[len(c.places)-1]
	for _, d := range devices {
		name := path + "/" + d.name
		c.made[name] = true
		if !c.userNS && !c.host.NoMknod {
			c.mount(c.below(at, name, Step{
				Op: "mknod", Data: fmt.Sprintf("c %d:%d", d.major, d.minor),
				wire: wire{op: jailinit.OpMknod, a: unix.S_IFCHR | 0o666, b: unix.Mkdev(d.major, d.minor), c: nobody},
			}))
			continue
		}
		// No mknod in a user namespace, or without the capability: the host's own, if it is what it should be (CVE-2025-31133 took a link).
		if f := c.host.Look("/dev/" + d.name); f.Err != nil || !f.isDevice() || f.Rdev != unix.Mkdev(d.major, d.minor) {
			return &UnsupportedError{Level: c.spec.Level, Missing: fmt.Sprintf("the device /dev/%s", d.name)}
		} else {
			c.mount(c.below(at, name, Step{Op: "create", wire: wire{op: jailinit.OpFile, a: 0o666, b: nobody}}))
			c.mount(c.below(at, name, Step{
				Op: "bind", Source: f.Real, Flags: []string{"nosuid", "noexec"},
				wire: wire{op: jailinit.OpBind, a: unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NOEXEC, b: f.Dev, c: f.Ino},
			}))
		}
	}
	c.folder(path+"/pts", at)
	if c.host.NoDevpts {
		c.plan.Notes = append(c.plan.Notes, "no devpts can be mounted here: there are no pseudo-terminals")
	} else {
		c.placePts(path, at)
	}
	for _, l := range [][2]string{
		{"fd", "/proc/self/fd"},
		{"stdin", "/proc/self/fd/0"},
		{"stdout", "/proc/self/fd/1"},
		{"stderr", "/proc/self/fd/2"},
	} {
		c.mount(c.below(at, path+"/"+l[0], Step{Op: "symlink", Data: l[1], wire: wire{op: jailinit.OpSymlink}}))
	}
	return nil
}

// placePts mounts pseudo-terminals of its own in a /dev.
func (c *compiler) placePts(path string, at place) {
	options := []string{"newinstance", "", "ptmxmode", "0666", "mode", "620"}
	pts := fsStep("devpts", path+"/pts", options, unix.MS_NOSUID|unix.MS_NOEXEC, at.slot != 0 || c.host.NoMountCall)
	if at.slot != 0 {
		pts.wire.flags = jailinit.StepNoLinks
	}
	c.mount(c.below(at, path+"/pts", pts))
	c.mount(c.below(at, path+"/ptmx", Step{Op: "symlink", Data: "pts/ptmx", wire: wire{op: jailinit.OpSymlink}}))
}
