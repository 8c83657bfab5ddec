//go:build cgo && (amd64 || arm64)

package isolate

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/jailrun/jail/isolate/internal/jailinit"
)

// A root file system of its own. Its tree is hostile: whoever made it chose its links, and whoever may write to it can
// exchange them while we mount. So Compile looks up each mount point with the tree as the root and puts the path without
// links into the Plan; jail-init resolves that once, again in the root and now through no link at all, to the fd that is
// mounted on. What lies in a mount of the jail's own is made relative to the fd of that mount, never through the tree.
// Nothing is ever made in the tree: where a mount point is missing, it is made in the upper folder of an overlay.

// rootfs is the kind of the place "/" and of the rule that stands for it.
const rootfs RuleKind = "rootfs"

// firstMountSlot is the first of the slots for mounts, behind those that the launcher may give.
const firstMountSlot = jailinit.MaxKept

// InRoot is what a path names where a folder of the host is the root.
type InRoot struct {
	FileInfo
	Path    string // without links, from that root on
	Missing bool   // there is nothing
}

// LookIn returns what path names in the folder root of the host.
func (h *Host) LookIn(root, path string) InRoot {
	f, seen := h.Rootfs[path]
	if !seen {
		f = InRoot{Path: path, Missing: true}
		if h.live {
			f = lookIn(root, path)
			h.Rootfs[path] = f
		}
	}
	return f
}

func lookIn(root, path string) (f InRoot) {
	dir, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return InRoot{FileInfo: FileInfo{Err: &os.PathError{Op: "open", Path: root, Err: err}}}
	}
	defer unix.Close(dir)
	fd, err := openInRoot(dir, path)
	if errors.Is(err, unix.ENOENT) && path != "/" {
		return missingIn(root, path)
	}
	if err != nil {
		f.Err = &os.PathError{Op: "openat2", Path: path, Err: err}
		return f
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		f.Err = &os.PathError{Op: "fstat", Path: path, Err: err}
		return f
	}
	f.Mode, f.UID, f.GID = st.Mode, st.Uid, st.Gid
	top, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(dir))
	real, err2 := os.Readlink("/proc/self/fd/" + strconv.Itoa(fd))
	if err := errors.Join(err, err2); err != nil {
		f.Err = err
		return f
	}
	if !within(real, top) { // moved meanwhile
		f.Err = &os.PathError{Op: "openat2", Path: path, Err: unix.ESTALE}
		return f
	}
	f.Path = "/" + strings.TrimPrefix(strings.TrimPrefix(real, top), "/")
	return f
}

// openInRoot opens path with dir as its root. The kernel refuses a ".." with EAGAIN while something is moved or mounted,
// anywhere on the machine: a hundred in a row are somebody's doing.
func openInRoot(dir int, path string) (fd int, err error) {
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS}
	for range 100 {
		if fd, err = unix.Openat2(dir, path, &how); !errors.Is(err, unix.EAGAIN) {
			break
		}
	}
	return fd, err
}

// missingIn is a path whose last component, and maybe more, does not exist.
func missingIn(root, path string) InRoot {
	parent := lookIn(root, filepath.Dir(path))
	switch {
	case parent.Err != nil:
		return parent
	case !parent.Missing && !parent.isDir():
		return InRoot{FileInfo: FileInfo{Err: &os.PathError{Op: "openat2", Path: path, Err: unix.ENOTDIR}}}
	}
	f := InRoot{Path: filepath.Join(parent.Path, filepath.Base(path)), Missing: true}
	if _, err := os.Lstat(root + f.Path); err == nil && !parent.Missing {
		f.Err = fmt.Errorf("%q is a symbolic link to nothing", f.Path)
	}
	return f
}

// hasSource says whether a rule shows something of the host.
func (r Rule) hasSource() bool {
	return r.Kind == Show || r.Kind == ShowWrite || r.Kind == Overlay || r.Kind == Device
}

// inRootfs says whether a rule of a level holds in a root file system as well.
func inRootfs(r Rule) bool {
	return r.Kind == Proc || r.Kind == Sys || r.Kind == Dev || r.Kind == Tmpfs
}

// rootRule is the root file system as a rule.
func (c *compiler) rootRule() Rule { return Rule{Kind: rootfs, Path: "/", Source: c.spec.Root.Path} }

func (c *compiler) rootDir() string { return c.host.Look(c.spec.Root.Path).Real }

// writable says whether the payload can write to what a rule shows, be it to a copy.
func (c *compiler) writable(r Rule) bool {
	if r.Kind == rootfs {
		return !c.spec.Root.Readonly || c.spec.RootOverlay
	}
	return r.Kind == ShowWrite || r.Kind == Overlay || r.Kind == Device
}

// rootIsTree says whether what is written to the root lands in the tree itself.
func (c *compiler) rootIsTree() bool { return !c.spec.Root.Readonly && !c.spec.RootOverlay }

func (c *compiler) checkRootfs() error {
	if c.spec.Root == nil {
		if c.spec.RootOverlay {
			return &SpecError{Field: "rootfs-overlay", Problem: "needs a root file system"}
		}
		return nil
	}
	bad := func(problem string) error {
		return &SpecError{Field: string(rootfs), Value: c.spec.Root.Path, Problem: problem}
	}
	if !c.spec.hasNamespace(specs.MountNamespace) {
		return bad("can't be had at level " + c.spec.Level.String() + ", but from level " + Namespaced.String() + " up")
	}
	if _, err := clean(string(rootfs), c.spec.Root.Path); err != nil {
		return err
	}
	f := c.host.Look(c.spec.Root.Path)
	switch {
	case f.Err != nil:
		return bad("can't be used: " + errnoText(f.Err))
	case !f.isDir():
		return bad("is not a folder")
	case c.spec.RootOverlay:
		return c.noSubmounts(c.rootRule(), f.Real)
	}
	return nil
}

// noSubmounts refuses an overlay over a folder that holds mounts: overlayfs shows what lies below them.
func (c *compiler) noSubmounts(r Rule, dir string) error {
	why := ""
	if r.Kind == rootfs && len(c.missing) > 0 {
		why = " (the overlay is needed since there is no " + quoteAll(c.missing) + ")"
	}
	for _, m := range c.host.Mounts {
		covered := slices.ContainsFunc(c.spec.View, func(v Rule) bool {
			return !v.Default && v.Path == filepath.Join(r.Path, strings.TrimPrefix(m, dir))
		})
		if m != dir && within(m, dir) && !covered {
			return &SpecError{Field: string(r.Kind), Value: r.Source, Problem: fmt.Sprintf("holds the mount %q, which an overlay can't show; --ro-bind can, onto its place%s", m, why)}
		}
	}
	return nil
}

// placesInRootfs gives the rules the paths that they have in the root file system without its links. Below another rule's
// place it is not the root file system that counts.
func (c *compiler) placesInRootfs(rules []Rule) ([]Rule, error) {
	sort.SliceStable(rules, func(i, j int) bool { return depth(rules[i].Path) < depth(rules[j].Path) })
	type move struct{ from, to string }
	var moves []move
	var kept []Rule
	for _, r := range rules {
		bad := func(problem string) ([]Rule, error) {
			return nil, &SpecError{Field: string(r.Kind), Value: r.Path, Problem: problem}
		}
		if r.Path == "/" {
			return bad("is the root, which --rootfs gives")
		}
		to := ""
		for _, m := range moves {
			if r.Path != m.from && within(r.Path, m.from) {
				to = m.to + strings.TrimPrefix(r.Path, m.from) // the deepest comes last
			}
		}
		if to == "" {
			f := c.host.LookIn(c.rootDir(), r.Path)
			hidden := r.Default && r.Kind == Tmpfs
			switch {
			case f.Err != nil:
				return bad("can't be reached in the root: " + errnoText(f.Err))
			case hidden && f.Path != r.Path && slices.ContainsFunc(kept, func(k Rule) bool { return k.Default && within(f.Path, k.Path) }):
				continue // a link to another private folder
			case r.Default && f.Path != r.Path:
				return bad("is a symbolic link in the root, and the jail's own mounts follow none")
			case hidden && f.Missing && r.Path != "/tmp" && c.rootIsTree():
				continue
			}
			to = f.Path
		}
		moves = append(moves, move{r.Path, to})
		r.Path = to
		kept = append(kept, r)
	}
	return c.workdirInRootfs(kept)
}

// workdirInRootfs sees to it that there is a working folder. It is never made in the tree.
func (c *compiler) workdirInRootfs(rules []Rule) ([]Rule, error) {
	cwd, err := clean("workdir", c.workdir())
	if err != nil {
		return nil, err
	}
	var cover *Rule
	for i, r := range rules {
		if within(cwd, r.Path) && (r.Kind != Dir || r.Path == cwd) && (cover == nil || len(r.Path) >= len(cover.Path)) {
			cover = &rules[i]
		}
	}
	switch {
	case cover != nil && cover.Kind == Tmpfs && cover.Path != cwd:
		return append(rules, Rule{Kind: Dir, Path: cwd, Default: true}), nil
	case cover != nil:
		return rules, nil
	}
	f := c.host.LookIn(c.rootDir(), cwd)
	switch {
	case f.Err != nil:
		return nil, &SpecError{Field: "workdir", Value: cwd, Problem: "can't be entered: " + errnoText(f.Err)}
	case f.Missing && !slices.ContainsFunc(rules, func(r Rule) bool { return within(r.Path, cwd) }):
		return nil, &SpecError{Field: "workdir", Value: cwd, Problem: "does not exist in the root; --dir makes it"}
	case !f.Missing && !f.isDir():
		return nil, &SpecError{Field: "workdir", Value: cwd, Problem: "is not a folder"}
	}
	return rules, nil
}

// workdir is the working folder as the payload sees it.
func (c *compiler) workdir() string {
	switch {
	case c.spec.Process.Cwd != "":
		return c.spec.Process.Cwd
	case c.spec.Root != nil:
		return "/"
	}
	return c.host.Cwd
}

// keepOpen lets jail-init hold the mount that s makes.
func (c *compiler) keepOpen(s *Step) (slot int) {
	slot = firstMountSlot + c.slots
	c.slots++
	s.wire.keep = uint32(slot)
	return slot
}

// mountRootfs makes the root file system the root, with the rules on top. The steps from begin on are those of the rules;
// what the root needs goes before them.
func (c *compiler) mountRootfs(rules []Rule, begin int) error {
	dir := c.host.Look(c.spec.Root.Path)
	c.places = []place{{path: "/", kind: rootfs, source: dir.Real}}
	c.plan.mounts = []mounted{{path: "/", source: dir.Real, write: c.rootIsTree(), copied: c.spec.RootOverlay}}
	for _, r := range rules {
		if err := c.place(r); err != nil {
			return err
		}
	}
	if c.slots > jailinit.MaxSlots-firstMountSlot {
		return &SpecError{Field: string(rootfs), Value: c.spec.Root.Path, Problem: fmt.Sprintf("has more than %d mounts in it", jailinit.MaxSlots-firstMountSlot)}
	}
	if err := c.masks(); err != nil {
		return err
	}
	steps, err := c.rootSteps(dir)
	if err != nil {
		return err
	}
	c.plan.Steps = slices.Insert(c.plan.Steps, begin, steps...)
	for _, p := range c.places {
		if p.kind == Dev {
			c.mount(c.below(p, p.path, Step{Op: "mount attributes", Flags: []string{"ro"}, wire: wire{op: jailinit.OpSetattr, a: unix.MOUNT_ATTR_RDONLY}}))
		}
	}
	c.pivot(steps)
	c.give(FileView)
	// Who may write to the tree can take a mount point away, and the mount on it with it.
	for _, p := range c.places {
		if p.slot != 0 {
			c.mount(Step{Op: "check mount", Path: rel(p.path), wire: wire{op: jailinit.OpCheck, a: uint64(p.slot)}})
		}
	}
	c.mount(Step{Op: "chdir", Path: filepath.Clean(c.workdir()), wire: wire{op: jailinit.OpChdir, flags: jailinit.StepInRoot}})
	return nil
}

// rootSteps mount the root file system itself, under an overlay where it lacks a mount point or must not be written to.
func (c *compiler) rootSteps(dir FileInfo) ([]Step, error) {
	var steps []Step
	add := func(s Step) { s.Side = SideInit; steps = append(steps, s) }
	overlay := c.spec.RootOverlay || len(c.missing) > 0
	if overlay {
		if err := c.noSubmounts(c.rootRule(), dir.Real); err != nil {
			return nil, err
		}
	}
	if overlay || len(c.stage) > 0 {
		add(newRoot(strconv.Itoa(tmpfsSize >> 12)))
	}
	if !overlay {
		for _, s := range c.stage {
			add(s)
		}
		s := c.bindRoot(dir, "/")
		s.wire.flags |= jailinit.StepEnter | jailinit.StepRecursive
		s.Flags = append(s.Flags, "recursive")
		if c.spec.Root.Readonly {
			s.wire.a |= unix.MOUNT_ATTR_RDONLY
			s.Flags = append(s.Flags, "ro")
		}
		add(s)
		return steps, nil
	}
	add(Step{Op: "mkdir", Path: "lower", wire: wire{op: jailinit.OpMkdir, a: 0o755, b: nobody}})
	add(c.bindRoot(dir, "lower"))
	add(Step{Op: "mkdir", Path: "upper", wire: c.upperOwner(dir, dir, wire{op: jailinit.OpMkdir, a: uint64(dir.Mode & 0o7777)})})
	for _, s := range c.uppers {
		add(s)
	}
	add(Step{Op: "mkdir", Path: "work", wire: wire{op: jailinit.OpMkdir, a: 0o755, b: nobody}})
	for _, s := range c.stage {
		add(s)
	}
	s := c.overlayStep("")
	s.Op, s.Path, s.wire.op = "new root", "/", jailinit.OpRoot
	if !c.writable(c.rootRule()) {
		s.wire.a |= unix.MOUNT_ATTR_RDONLY
		s.Flags = append(s.Flags, "ro")
	}
	s.about = fmt.Sprintf("an overlay over %q", dir.Real)
	if len(c.missing) > 0 {
		s.about += ", which lacks " + quoteAll(c.missing)
	}
	add(s)
	return steps, nil
}

// pivot makes the working folder the root. What the steps before it have mounted on the old root below the new one goes
// with the old.
func (c *compiler) pivot(before []Step) {
	stages := 0
	for _, s := range before {
		if s.Op == "new root" && s.Type == "tmpfs" {
			stages++
		}
	}
	c.mount(Step{Op: "pivot_root", Path: ".", wire: wire{op: jailinit.OpPivot, a: uint64(stages)}})
}

// bindRoot shows the tree at path.
func (c *compiler) bindRoot(dir FileInfo, path string) Step {
	s := Step{Op: "bind", Source: dir.Real, Path: path, Flags: []string{"nosuid", "nodev"}, wire: wire{
		op: jailinit.OpBind, a: unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV, b: dir.Dev, c: dir.Ino,
	}}
	c.mapBind(&s, c.rootRule(), dir)
	return s
}

// mapBind lets the owner of what is shown appear as the payload.
func (c *compiler) mapBind(s *Step, r Rule, f FileInfo) {
	if m := c.idMap(f); m != nil && c.mapsBind(r, f) {
		s.wire.d = uint64(m.slot)
		s.Flags = append(s.Flags, fmt.Sprintf("ids %d:%d as %d:%d", f.UID, f.GID, c.uid, c.gid))
	}
}

// upperOwner adds the owner of something in the upper folder that stands for f in the tree dir.
func (c *compiler) upperOwner(dir, f FileInfo, w wire) wire {
	return c.owner(place{owned: c.mapsBind(c.rootRule(), dir) && f.UID == dir.UID}, w)
}

// overlayStep is an overlay of the folders lower, upper and work below dir.
func (c *compiler) overlayStep(dir string) Step {
	s := Step{
		Op: "mount", Type: "overlay", Flags: []string{"nosuid", "nodev"},
		List: []string{"lowerdir", dir + "lower", "upperdir", dir + "upper", "workdir", dir + "work"},
		wire: wire{op: jailinit.OpFS, a: unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV},
	}
	if c.userNS { // trusted attributes are the host's root's alone
		s.List = append(s.List, "userxattr", "")
	}
	return s
}

// targetInRootfs sees to it that the tree has something at path to mount on, or that an overlay over it will.
func (c *compiler) targetInRootfs(r Rule, path string, dir bool) error {
	if c.made[path] {
		return nil
	}
	f := c.host.LookIn(c.rootDir(), path)
	switch {
	case f.Err != nil:
		return &SpecError{Field: string(r.Kind), Value: r.Path, Problem: "can't be reached in the root: " + errnoText(f.Err)}
	case f.Missing && dir:
		return c.inUpper(r, path, Step{Op: "mkdir", wire: wire{op: jailinit.OpMkdir, a: 0o755}})
	case f.Missing:
		return c.inUpper(r, path, Step{Op: "create", wire: wire{op: jailinit.OpFile, a: 0o644}})
	case f.isDir() != dir:
		return otherKind(r, f.isDir())
	}
	return nil
}

// makeInRootfs makes a link or a file where the tree has none.
func (c *compiler) makeInRootfs(r Rule, path string) error {
	if f := c.host.LookIn(c.rootDir(), path); f.Err != nil || !f.Missing {
		return &SpecError{Field: string(r.Kind), Value: r.Path, Problem: "can't be made: the root has something there"}
	}
	if r.Kind == Symlink {
		return c.inUpper(r, path, Step{Op: "symlink", Data: r.Source, wire: wire{op: jailinit.OpSymlink}})
	}
	c.plan.files = append(c.plan.files, r.FD)
	return c.inUpper(r, path, Step{
		Op: "create", Data: fmt.Sprintf("from fd %d", r.FD),
		wire: wire{op: jailinit.OpFile, a: 0o644, d: uint64(firstFileSlot + len(c.plan.files) - 1)},
	})
}

// inUpper makes something that the tree lacks in the upper folder of the overlay, and the folders on the way to it, with
// the modes that they have in the tree.
func (c *compiler) inUpper(r Rule, path string, s Step) error {
	if c.rootIsTree() {
		return &SpecError{Field: string(r.Kind), Value: r.Path, Problem: fmt.Sprintf("is not in %q, and a writable root is the tree itself, where nothing is made; --rootfs-overlay makes it in memory", c.spec.Root.Path)}
	}
	top := c.host.Look(c.spec.Root.Path)
	for i := 1; ; i++ {
		next := strings.IndexByte(path[i:], '/')
		if next < 0 {
			break
		}
		i += next
		if parent := "upper" + path[:i]; !c.made[parent] && !c.made[path[:i]] {
			c.made[parent] = true
			mode, f := uint64(0o755), c.host.LookIn(c.rootDir(), path[:i])
			if f.Missing {
				f.UID = top.UID
			} else {
				mode = uint64(f.Mode & 0o7777)
			}
			c.uppers = append(c.uppers, Step{Op: "mkdir", Path: parent, wire: c.upperOwner(top, f.FileInfo, wire{op: jailinit.OpMkdir, a: mode})})
		}
	}
	c.made[path] = true
	c.missing = append(c.missing, path)
	s.Path = "upper" + path
	s.wire = c.upperOwner(top, top, s.wire)
	c.uppers = append(c.uppers, s)
	return nil
}

// denyInRootfs covers path with something that can't be opened, as Deny does in a view of our own.
func (c *compiler) denyInRootfs(path string, in place, dir bool) error {
	name, op := denyFile, jailinit.OpFile
	if dir {
		name, op = denyDir, jailinit.OpMkdir
	}
	if !c.made[name] {
		c.made[name] = true
		c.stage = append(c.stage, Step{Op: map[bool]string{true: "mkdir", false: "create"}[dir], Path: name, wire: wire{op: op, b: nobody}})
	}
	s := Step{Op: "bind", Source: name, Flags: []string{"ro", "nosuid", "nodev", "noexec"}, wire: wire{op: jailinit.OpBind, a: closedMount}}
	at := place{path: path, kind: Deny, slot: c.keepOpen(&s)}
	c.stage = append(c.stage, s)
	c.mount(c.onto(in, path, jailinit.StepNoLinks, Step{Op: "attach", Source: name, wire: wire{op: jailinit.OpAttach, a: uint64(at.slot)}}))
	c.arrive(at, "")
	return nil
}

// placeOverlay shows a folder of which the payload has a copy: what it writes is in memory and is dropped at the end. The
// overlay is made before the new root, where its folders can be named, and is mounted in its turn.
func (c *compiler) placeOverlay(r Rule, path string, in place) error {
	f := c.host.Look(r.Source)
	if !f.isDir() {
		return &SpecError{Field: string(r.Kind), Value: r.Source, Problem: "is not a folder"}
	}
	if err := c.noSubmounts(r, f.Real); err != nil {
		return err
	}
	how, err := c.target(r, path, in, true)
	if err != nil {
		return err
	}
	c.overlays++
	dir := fmt.Sprintf("overlay-%d", c.overlays)
	lower := Step{Op: "bind", Source: f.Real, Path: dir + "/lower", Flags: []string{"nosuid", "nodev"}, wire: wire{
		op: jailinit.OpBind, a: unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV, b: f.Dev, c: f.Ino,
	}}
	c.mapBind(&lower, r, f)
	owner := c.owner(place{owned: lower.wire.d != 0}, wire{op: jailinit.OpMkdir, a: uint64(f.Mode & 0o7777)})
	c.stage = append(c.stage,
		Step{Op: "mkdir", Path: dir, wire: wire{op: jailinit.OpMkdir, a: 0o755, b: nobody}},
		mountStep("tmpfs", "/"+dir, fmt.Sprintf("mode=0755,size=%d,nr_inodes=%d", tmpfsSize, tmpfsSize>>12), unix.MS_NOSUID|unix.MS_NODEV),
		Step{Op: "mkdir", Path: dir + "/lower", wire: wire{op: jailinit.OpMkdir, a: 0o755, b: nobody}},
		lower,
		Step{Op: "mkdir", Path: dir + "/upper", wire: owner},
		Step{Op: "mkdir", Path: dir + "/work", wire: wire{op: jailinit.OpMkdir, a: 0o755, b: nobody}})
	overlay := c.overlayStep(dir + "/")
	slot := c.keepOpen(&overlay)
	overlay.about = fmt.Sprintf("an overlay over %q", f.Real)
	c.stage = append(c.stage, overlay)
	c.mount(c.onto(in, path, how, Step{Op: "attach", Source: f.Real, wire: wire{op: jailinit.OpAttach, a: uint64(slot)}}))
	at := place{path: path, kind: Overlay, source: f.Real}
	if c.spec.Root != nil {
		at.slot = slot
	}
	c.arrive(at, f.Real)
	return nil
}

// overlayStage is where the overlays of a view without a root file system are made: a tmpfs of which nothing is seen.
func (c *compiler) overlayStage() []Step {
	if len(c.stage) == 0 {
		return nil
	}
	steps := append([]Step{newRoot("4096")}, c.stage...)
	for i := range steps {
		steps[i].Side = SideInit
	}
	return steps
}

// masked is a path that is closed, or closed for writing.
type masked struct {
	path     string
	readonly bool
}

func (c *compiler) toMask() []masked {
	var list []masked
	for _, path := range c.spec.Linux.MaskedPaths {
		list = append(list, masked{path, false})
	}
	readonly := c.spec.Linux.ReadonlyPaths
	if c.spec.Root != nil && c.hostRoot() {
		for _, name := range procOfRoot {
			if path := "/proc/" + name; !slices.Contains(readonly, path) && !slices.Contains(c.spec.Linux.MaskedPaths, path) {
				readonly = append(slices.Clip(readonly), path)
			}
		}
	}
	for _, path := range readonly {
		list = append(list, masked{path, true})
	}
	return list
}

// masks closes paths. Those in /proc and /sys are named below the fds of these mounts, which jail-init proves to be what
// they should be.
func (c *compiler) masks() error {
	for _, m := range c.toMask() {
		path, err := clean("mask", m.path)
		if err != nil {
			return err
		}
		in := c.cover(path)
		if in.own() || in.kind == Deny {
			continue // nothing is there
		}
		s := Step{Op: "mask", Source: "/dev/null", Type: "tmpfs", wire: wire{op: jailinit.OpMask}}
		if m.readonly {
			s = Step{Op: "read-only", wire: wire{op: jailinit.OpMask, flags: jailinit.StepReadOnly}}
		}
		flags := jailinit.StepInRoot
		if in.slot != 0 {
			flags = jailinit.StepNoLinks
		}
		switch in.kind {
		case Proc:
			s.wire.a = unix.PROC_SUPER_MAGIC
		case Sys:
			s.wire.a = unix.SYSFS_MAGIC
		}
		c.mount(c.onto(in, path, flags, s))
	}
	if len(c.spec.Linux.MaskedPaths) > 0 && len(c.spec.Linux.ReadonlyPaths) > 0 {
		c.give(MaskedPaths)
	}
	return nil
}

// noNewNamespaces closes the door behind a user namespace: without capabilities there is no other kind to be had.
var noNewNamespaces = writeStep("/proc/sys/user/max_user_namespaces", "0")

// userNamespace makes the one that root's payload enters. An ordinary user's jail is born in one.
func (c *compiler) userNamespace() {
	if !c.mapped {
		return
	}
	var more []Step
	if slices.Contains(c.spec.Promised, NoNewNamespaces) {
		more = append(more, noNewNamespaces)
		c.give(NoNewNamespaces)
	}
	c.newMap(c.inUID, c.inGID, "user namespace", more...)
	c.payloadUserNS = c.maps[0].slot
	c.give(MappedUsers)
}
