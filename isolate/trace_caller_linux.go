//go:build cgo && (amd64 || arm64)

package isolate

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// caller is who makes a call, with ids as this process sees them.
type caller struct {
	proc        string    // /proc/THREAD
	uids, gids  [4]uint32 // real, effective, saved, of files
	groups      []uint32
	effective   uint64 // capabilities, of those that the jail has given
	permitted   uint64
	inheritable uint64
	locked      uint64 // bytes of memory
}

// callerOf is false for who is in another user namespace than the payload's first program: a capability there is none here.
func (m *monitor) callerOf(n *notification) (*caller, bool) {
	c := &caller{proc: "/proc/" + strconv.Itoa(int(n.Pid))}
	var ns unix.Stat_t
	if err := unix.Stat(c.proc+"/ns/user", &ns); err != nil {
		return nil, false
	}
	if m.tracer.userNS == 0 { // the first call is the payload's exec
		m.tracer.userNS = ns.Ino
	}
	text, err := os.ReadFile(c.proc + "/status")
	if err != nil || m.tracer.userNS != ns.Ino {
		return nil, false
	}
	for line := range strings.Lines(string(text)) {
		words := strings.Fields(line)
		if len(words) < 2 {
			continue
		}
		switch words[0] {
		case "Uid:", "Gid:":
			list := &c.uids
			if words[0] == "Gid:" {
				list = &c.gids
			}
			for i := range min(len(list), len(words)-1) {
				id, _ := strconv.ParseUint(words[i+1], 10, 32)
				list[i] = uint32(id)
			}
		case "Groups:":
			for _, w := range words[1:] {
				id, _ := strconv.ParseUint(w, 10, 32)
				c.groups = append(c.groups, uint32(id))
			}
		case "CapEff:", "CapPrm:", "CapInh:":
			set, _ := strconv.ParseUint(words[1], 16, 64)
			*map[string]*uint64{"CapEff:": &c.effective, "CapPrm:": &c.permitted, "CapInh:": &c.inheritable}[words[0]] = set
		case "VmLck:":
			kib, _ := strconv.ParseUint(words[1], 10, 64)
			c.locked = kib << 10
		}
	}
	c.effective &= m.caps
	return c, true
}

func capSet(list ...int) (set uint64) {
	for _, c := range list {
		set |= 1 << c
	}
	return set
}

// first is the first of some capabilities that is there: each of them would do.
func (c *caller) first(list ...int) uint64 {
	for _, one := range list {
		if set := capSet(one); c.effective&set != 0 {
			return set
		}
	}
	return 0
}

func (c *caller) inGroup(gid uint32) bool { return c.gids[3] == gid || slices.Contains(c.groups, gid) }

// lets says whether owner and mode let the caller, as monitor.lets does for who runs first.
func (c *caller) lets(st *unix.Stat_t, bits uint32) bool {
	mode := st.Mode
	switch {
	case st.Uid == c.uids[3]:
		mode >>= 6
	case c.inGroup(st.Gid):
		mode >>= 3
	}
	return mode&bits == bits
}

// past is what goes past the mode of a file, or of a folder.
func (c *caller) past(st *unix.Stat_t, bits uint32) uint64 {
	if c.lets(st, bits) {
		return 0
	}
	reads := bits == 4 || st.Mode&unix.S_IFMT == unix.S_IFDIR && bits&2 == 0
	if reads {
		return c.first(unix.CAP_DAC_READ_SEARCH, unix.CAP_DAC_OVERRIDE)
	}
	return c.first(unix.CAP_DAC_OVERRIDE)
}

// object is what a path leads to, and the folder that it is in.
type object struct {
	path       string // as the payload has it, without dots
	st         unix.Stat_t
	there      bool
	folder     unix.Stat_t
	folderThat bool   // the folder is there
	way        uint64 // what it takes to go there
}

// objectAt looks a path up; without a path it is what the fd leads to.
func (m *monitor) objectAt(n *notification, c *caller, dir int32, at uint64, follow bool) (object, bool) {
	name, ok := "", at == 0
	if at != 0 {
		name, ok = m.text(n, at)
	}
	if !ok {
		return object{}, false
	}
	if name == "" {
		return objectOf(c, dir)
	}
	return m.objectNamed(n, c, dir, name, follow)
}

// objectOf is what an fd of the caller's leads to.
func objectOf(c *caller, fd int32) (o object, ok bool) {
	name := c.proc + "/fd/" + strconv.Itoa(int(fd))
	if fd == unix.AT_FDCWD {
		name = c.proc + "/cwd"
	}
	o.path, _ = os.Readlink(name)
	o.there = unix.Stat(name, &o.st) == nil
	return o, o.there
}

func (m *monitor) objectNamed(n *notification, c *caller, dir int32, name string, follow bool) (o object, ok bool) {
	var f file
	if !f.place(n, dir, name) {
		return o, false
	}
	o.path = f.path
	from := "/" // a path that begins in a folder needs no way to it
	if !filepath.IsAbs(name) {
		from = filepath.Clean(strings.TrimSuffix(f.name, "/"+name))
	}
	root, err := unix.Open(c.proc+"/root", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return o, false
	}
	defer unix.Close(root)
	search := func(dir string) {
		for ; ; dir = filepath.Dir(dir) {
			var st unix.Stat_t
			if (from == "/" || within(dir, from)) && unix.Fstatat(root, strings.TrimPrefix(dir, "/")+"/.", &st, 0) == nil {
				o.way |= c.past(&st, 1)
			}
			if dir == "/" || dir == from {
				return
			}
		}
	}
	folder, st, err := find(root, filepath.Dir(f.path))
	if err != nil {
		return o, true
	}
	o.folder, o.folderThat = st, true
	search(folder)
	if unix.Fstatat(root, strings.TrimPrefix(filepath.Join(folder, filepath.Base(f.path)), "/"), &o.st, unix.AT_SYMLINK_NOFOLLOW) == nil {
		o.there = true
	}
	if follow && o.there && o.st.Mode&unix.S_IFMT == unix.S_IFLNK {
		var real string
		real, o.st, err = find(root, f.path)
		if o.there = err == nil; o.there {
			search(filepath.Dir(real))
		}
	}
	return o, true
}

// owned is what it takes to do what an owner may.
func (o *object) owned(c *caller) uint64 {
	if !o.there || o.st.Uid == c.uids[3] {
		return 0
	}
	return capSet(unix.CAP_FOWNER)
}

// entry is what it takes to make a name in the folder, or to remove the one that is there.
func (o *object) entry(c *caller, remove bool) uint64 {
	if !o.folderThat {
		return 0
	}
	set := c.past(&o.folder, 3)
	if remove && o.there && o.folder.Mode&unix.S_ISVTX != 0 && o.st.Uid != c.uids[3] && o.folder.Uid != c.uids[3] {
		set |= capSet(unix.CAP_FOWNER)
	}
	return set
}

// written is what it takes that a write leaves the file's set-id bits alone.
func (o *object) written() uint64 {
	if o.there && o.st.Mode&unix.S_IFMT == unix.S_IFREG && o.st.Mode&(unix.S_ISUID|unix.S_ISGID) != 0 {
		return capSet(unix.CAP_FSETID)
	}
	return 0
}

// idOf is a number of the caller's user namespace as this process sees it.
func (c *caller) idOf(list string, id uint64) uint32 {
	text, _ := os.ReadFile(c.proc + "/" + list)
	for line := range strings.Lines(string(text)) {
		var inside, outside, count uint64
		if n, _ := fmt.Sscan(line, &inside, &outside, &count); n == 3 && id >= inside && id-inside < count {
			return uint32(outside + id - inside)
		}
	}
	return math.MaxUint32
}

const (
	uidMap = "uid_map"
	gidMap = "gid_map"
)

// sets says whether a call that sets ids needs a capability: an id is none of those that it may take, and is not -1.
func (c *caller) sets(list string, args []uint64, may ...uint32) bool {
	for _, a := range args {
		if uint32(a) != math.MaxUint32 && !slices.Contains(may, c.idOf(list, uint64(uint32(a)))) {
			return true
		}
	}
	return false
}
