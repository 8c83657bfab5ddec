package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/cgroups/v3"
	"golang.org/x/sys/unix"
)

// Place is where a jail's cgroup can be made.
type Place struct {
	Version     int               // 1: the controllers are on v1 hierarchies; 2: they are on the v2 one
	Dirs        map[string]string // on v1 by the hierarchy's controller ("memory", "blkio", "freezer", …), on v2 under ""
	Controllers []string          // what children can have there
	Warning     string            // what a user has to be told about the place; "" is nothing
	Scope       bool              // there is none yet: a transient scope has to be made for jail-init's pid; see Scope

	keeper *keeper // of a scope
}

// Find looks for the place to make a jail's cgroup in that can have the needed controllers. Nothing is changed. Those that
// are wanted as well it may lack on v2 (systemd before 252 delegates memory and pids alone to users): see
// Place.Controllers. On v1 they are needed, for what is counted there.
//
// parent is the user's choice: the path of a cgroup that exists, as /proc/PID/cgroup names it; on v2 a path below the
// mount point will do too. On v1 it is looked up in the hierarchy of each controller. With "" the place is looked for.
//
// On v1 it is the caller's own cgroup in each hierarchy, so that outer limits hold. On v2 a cgroup that holds processes
// can't give controllers to children, so it is, in this order:
//
//  1. the cgroup above the caller's own where that one was delegated to the caller, or the caller's own where that is the
//     root and no systemd runs;
//  2. a transient scope of systemd;
//  3. for root the root cgroup, where outer limits do not hold.
//
// "Delegated" means that the caller may write there and that no unit of systemd stands between that is not marked as
// delegated: systemd takes controllers away again from what it believes to be its own. An error names all that was
// tried and what it lacked.
func Find(parent string, need, want []string) (*Place, error) {
	f, err := gather()
	if err != nil {
		return nil, err
	}
	place, err := f.find(parent, need, want)
	if f.unseen != nil {
		return nil, f.unseen
	}
	return place, err
}

// facts is all that Find decides by.
type facts struct {
	mode    cgroups.CGMode
	cgroups string // /proc/self/cgroup
	mounts  string // /proc/self/mountinfo
	uid     int    // effective
	systemd bool   // it runs: sd_booted(3)
	bus     error  // why systemd can't be asked for a scope; nil is that it can
	look    func(dir string) node
	unseen  error // what look could not see, for a reason that is not the folder's own (no memory, no fds)
}

// node is what there is to know about one cgroup.
type node struct {
	exists    bool
	writable  bool // the caller may make children in it and enable controllers for them
	adoptable bool // the caller may write its cgroup.procs
	root      bool // the root of v2: it may hold processes beside children with controllers
	populated bool // it holds processes itself
	delegated bool // systemd's mark
	available []string
	enabled   []string // for children
	unseen    error
}

// see says whether there was no error, and keeps one that tells nothing of the cgroup.
func (n *node) see(op, path string, err error) bool {
	if err != nil && n.unseen == nil && !slices.ContainsFunc(ofPath, func(e error) bool { return errors.Is(err, e) }) {
		n.unseen = &os.PathError{Op: op, Path: path, Err: err}
	}
	return err == nil
}

// ofPath are the errors that tell something of a path: it is not there, or not to be written.
var ofPath = []error{unix.ENOENT, unix.ENOTDIR, unix.ENODEV, unix.EACCES, unix.EPERM, unix.EROFS, unix.ELOOP}

func gather() (*facts, error) {
	own, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return nil, err
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	mode := cgroups.Legacy
	var at unix.Statfs_t
	switch err := unix.Statfs("/sys/fs/cgroup", &at); { // cgroups.Mode takes every error for "none"
	case err == unix.ENOENT || err == unix.ENOTDIR:
		mode = cgroups.Unavailable
	case err != nil:
		return nil, &os.PathError{Op: "statfs", Path: "/sys/fs/cgroup", Err: err}
	case at.Type == unix.CGROUP2_SUPER_MAGIC:
		mode = cgroups.Unified
	}
	seen := map[string]node{} // the same folders are asked about more than once, at eight calls each
	var f *facts
	f = &facts{
		mode: mode, cgroups: string(own), mounts: string(mounts), uid: os.Geteuid(),
		look: func(dir string) node {
			n, ok := seen[dir]
			if !ok {
				n = look(dir)
				seen[dir] = n
			}
			if f.unseen == nil {
				f.unseen = n.unseen
			}
			return n
		},
	}
	_, err = os.Lstat("/run/systemd/system")
	f.systemd = err == nil
	f.bus = scopeLacks(f.systemd, f.uid)
	return f, nil
}

// look asks the kernel about the cgroup dir; what can't be read is not there.
func look(dir string) node {
	var n node
	if n.exists = n.see("access", dir, unix.Access(dir, unix.F_OK)); !n.exists {
		return n
	}
	// For the effective ids: those that the writes will be done with.
	may := func(name string) bool {
		path := filepath.Join(dir, name)
		return n.see("faccessat", path, unix.Faccessat(unix.AT_FDCWD, path, unix.W_OK, unix.AT_EACCESS))
	}
	read := func(name string) string {
		text, _ := os.ReadFile(filepath.Join(dir, name))
		return string(text)
	}
	n.adoptable = may("cgroup.procs")
	n.writable = n.adoptable && may("")
	enabled, err := os.ReadFile(filepath.Join(dir, "cgroup.subtree_control"))
	if err != nil {
		return n // v1
	}
	n.writable = n.writable && may("cgroup.subtree_control")
	n.enabled, n.available = strings.Fields(string(enabled)), strings.Fields(read("cgroup.controllers"))
	n.populated = read("cgroup.procs") != ""
	n.root = unix.Access(filepath.Join(dir, "cgroup.type"), unix.F_OK) != nil
	mark := make([]byte, 8)
	for _, name := range []string{"trusted.delegate", "user.delegate"} {
		size, err := unix.Getxattr(dir, name, mark)
		n.delegated = n.delegated || err == nil && string(mark[:size]) == "1"
	}
	return n
}

func (f *facts) find(parent string, need, want []string) (*Place, error) {
	if f.mode == cgroups.Unavailable {
		return nil, errors.New("no cgroups are mounted at /sys/fs/cgroup")
	}
	all := slices.Concat(need, want)
	for _, c := range all {
		if !slices.Contains(known, c) {
			return nil, fmt.Errorf("there is no cgroup controller %q", c)
		}
	}
	if parent != "" && (!path.IsAbs(parent) || slices.Contains(strings.Split(parent, "/"), "..")) {
		return nil, fmt.Errorf("the parent cgroup has to be an absolute path without \"..\", not %q", parent)
	}
	own, err := parseCgroups(f.cgroups)
	if err != nil {
		return nil, err
	}
	mounts, err := parseMounts(f.mounts)
	if err != nil {
		return nil, err
	}
	if f.mode != cgroups.Unified && carried(mounts, all) {
		return f.find1(mounts, own, parent, all)
	}
	return f.find2(mounts, own, parent, need)
}

// carried says whether v1 hierarchies have the controllers: many hybrid hosts have them there, and v2 for systemd alone;
// others have nothing on v1 but systemd's own.
func carried(mounts []mount, need []string) bool {
	names := hierarchies(need)
	if len(names) > 1 {
		names = names[1:] // the freezer may be the only one left there
	}
	return slices.ContainsFunc(mounts, func(m mount) bool {
		return slices.ContainsFunc(names, func(c string) bool { return slices.Contains(m.controllers, c) })
	})
}

// dirOf returns the folder of the cgroup p in the hierarchy of which the mounts are given. The last mount that shows p is
// taken: it covers earlier ones at the same point.
func dirOf(mounts []mount, p string) (string, mount, bool) {
	for _, m := range slices.Backward(mounts) {
		if rest, ok := below(m.root, p); ok {
			return path.Join(m.point, rest), m, true
		}
	}
	return "", mount{}, false
}

func (f *facts) find1(mounts []mount, own map[string]string, parent string, need []string) (*Place, error) {
	place := &Place{Version: 1, Dirs: map[string]string{}}
	for _, c := range hierarchies(need) {
		var of []mount
		for _, m := range mounts {
			if slices.Contains(m.controllers, c) {
				of = append(of, m)
			}
		}
		if len(of) == 0 {
			return nil, fmt.Errorf("cgroup v1: the controller %s is not mounted", c)
		}
		p, ok := own[c]
		if parent != "" {
			p, ok = parent, true
		}
		if !ok {
			return nil, fmt.Errorf("cgroup v1: /proc/self/cgroup does not name the controller %s", c)
		}
		dir, _, ok := dirOf(of, p)
		if !ok {
			return nil, fmt.Errorf("cgroup v1: the cgroup %s of controller %s is not below its mount at %s", p, c, of[0].point)
		}
		switch n := f.look(dir); {
		case !n.exists:
			return nil, fmt.Errorf("cgroup v1: %s does not exist, which the controller %s needs", dir, c)
		case !n.writable:
			return nil, fmt.Errorf("cgroup v1: %s is not writable for uid %d, which the controller %s needs", dir, f.uid, c)
		}
		place.Dirs[c] = dir
	}
	place.Controllers = slices.Clone(need)
	return place, nil
}

func (f *facts) find2(mounts []mount, own map[string]string, parent string, need []string) (*Place, error) {
	mounts = ofV2(mounts)
	p, ok := own[""]
	if len(mounts) == 0 || !ok {
		return nil, errors.New("cgroup v2 is not mounted")
	}
	ownDir, m, ok := dirOf(mounts, p)
	if !ok {
		return nil, fmt.Errorf("cgroup v2: the caller's own cgroup %s is not below the mount at %s", p, mounts[0].point)
	}
	if parent != "" {
		if p, ok := below(m.point, parent); ok {
			parent = path.Join(m.root, p)
		}
		dir, _, ok := dirOf(mounts, parent)
		if !ok {
			return nil, fmt.Errorf("cgroup v2: %s is not below the mount at %s", parent, m.point)
		}
		return f.take(dir, ownDir, need)
	}

	var lacks []error
	inner, n := ownDir, f.look(ownDir)
	if !n.root && ownDir != m.point {
		inner = path.Dir(ownDir)
		n = f.look(inner)
	}
	switch {
	case !n.root && inner == ownDir:
		lacks = append(lacks, fmt.Errorf("what is above %s can't be seen", ownDir))
	case n.root && inner != ownDir:
		lacks = append(lacks, fmt.Errorf("%s is not below a delegated cgroup", ownDir))
	case !f.delegated(inner, m.point):
		lacks = append(lacks, fmt.Errorf("%s is not delegated to uid %d", inner, f.uid))
	default:
		place, err := f.take(inner, ownDir, need)
		if err == nil {
			return place, nil
		}
		lacks = append(lacks, err)
	}

	place, err := f.scope(m, need)
	if err == nil {
		return place, nil
	}
	lacks = append(lacks, fmt.Errorf("no scope of systemd: %w", err))

	switch {
	case f.uid != 0:
		lacks = append(lacks, fmt.Errorf("the root cgroup is root's, not uid %d's", f.uid))
	case !f.look(m.point).root:
		lacks = append(lacks, fmt.Errorf("the root cgroup can't be seen at %s", m.point))
	default:
		place, err := f.take(m.point, ownDir, need)
		if err == nil {
			if ownDir != m.point {
				place.Warning = "the jail's cgroup is made in the root cgroup: limits of the caller's own, " + p + ", do not hold"
			}
			return place, nil
		}
		lacks = append(lacks, err)
	}
	lacks = append(lacks, errors.New("no parent cgroup was given"))
	return nil, fmt.Errorf("no place for a cgroup: %w", errors.Join(lacks...))
}

// take makes a place of a v2 cgroup, if children can have the needed controllers there.
func (f *facts) take(dir, ownDir string, need []string) (*Place, error) {
	n := f.look(dir)
	switch {
	case !n.exists:
		return nil, fmt.Errorf("%s does not exist", dir)
	case !n.writable:
		return nil, fmt.Errorf("%s is not writable for uid %d", dir, f.uid)
	}
	if f.uid != 0 {
		// The kernel asks for this of who moves a process, CLONE_INTO_CGROUP included; see cgroups(7), "delegation".
		if above := common(dir, ownDir); !f.look(above).adoptable {
			return nil, fmt.Errorf("uid %d can't move processes from %s to %s: cgroup.procs of %s is not writable",
				f.uid, ownDir, dir, above)
		}
	}
	place := &Place{Version: 2, Dirs: map[string]string{"": dir}, Controllers: n.enabled}
	if n.root || !n.populated {
		place.Controllers = n.available
	}
	for _, c := range need {
		switch {
		case slices.Contains(place.Controllers, c):
		case slices.Contains(n.available, c):
			return nil, fmt.Errorf("%s holds processes, so it can't enable the controller %s for a child", dir, c)
		default:
			return nil, fmt.Errorf("%s does not have the controller %s", dir, c)
		}
	}
	return place, nil
}

// delegated says whether a v2 cgroup is the caller's to arrange.
func (f *facts) delegated(dir, top string) bool {
	if !f.look(dir).writable {
		return false
	}
	if !f.systemd {
		return true
	}
	for ; dir != top && dir != "/"; dir = path.Dir(dir) {
		if f.look(dir).delegated {
			return true
		}
		switch path.Ext(dir) {
		case ".slice", ".service", ".scope":
			return false
		}
	}
	return f.uid != 0 // writable to an ordinary user and no unit of systemd: somebody gave it
}

// scope says whether systemd can make a scope with the needed controllers.
func (f *facts) scope(m mount, need []string) (*Place, error) {
	if f.bus != nil {
		return nil, f.bus
	}
	manager := m.point // the cgroup whose controllers the manager can give
	if f.uid != 0 {
		uid := strconv.Itoa(f.uid)
		manager = path.Join(m.point, "user.slice", "user-"+uid+".slice", "user@"+uid+".service")
	}
	n := f.look(manager)
	for _, c := range need {
		if !slices.Contains(n.available, c) {
			return nil, fmt.Errorf("%s does not have the controller %s", manager, c)
		}
	}
	return &Place{Version: 2, Controllers: n.available, Scope: true}, nil
}

// common returns the last folder that is above both, or one of them.
func common(a, b string) string {
	for a != b {
		if len(a) > len(b) {
			a = path.Dir(a)
		} else {
			b = path.Dir(b)
		}
	}
	return a
}

// known are the controllers that a jail can have, by their names on v2.
var known = []string{"cpu", "cpuset", "io", "memory", "pids"}

// hierarchies returns the v1 controllers for those of v2. The freezer comes first: it is what Kill needs.
func hierarchies(controllers []string) []string {
	names := []string{"freezer"}
	for _, c := range controllers {
		switch c {
		case "cpu":
			names = append(names, "cpu", "cpuacct")
		case "io":
			names = append(names, "blkio")
		default:
			names = append(names, c)
		}
	}
	return names
}
