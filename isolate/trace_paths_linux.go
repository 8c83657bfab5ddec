//go:build cgo && (amd64 || arm64)

package isolate

import (
	"math"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// needsOpen is what an open or exec needs of modes and owners.
func (m *monitor) needsOpen(n *notification, call string, c *caller) uint64 {
	f, ok := m.fileOf(n, call)
	if !ok {
		return 0
	}
	if within(f.path, "/proc") && (f.want.write || !within(f.path, ownProc(n))) || within(f.path, "/sys") && f.want.write {
		return c.needsKernelFile(f)
	}
	dir, at := int32(unix.AT_FDCWD), n.Data.Args[0]
	if strings.HasSuffix(call, "at") || call == "openat2" {
		dir, at = int32(n.Data.Args[0]), n.Data.Args[1]
	}
	o, ok := m.objectAt(n, c, dir, at, f.flags&unix.O_NOFOLLOW == 0)
	if !ok {
		return 0
	}
	set := o.way
	if !o.there {
		if f.want.create {
			set |= o.entry(c, false)
		}
		return set
	}
	var bits uint32
	for bit, wants := range map[uint32]bool{4: f.want.read && !f.want.nothing && !f.want.exec, 2: f.want.write, 1: f.want.exec} {
		if wants {
			bits |= bit
		}
	}
	set |= c.past(&o.st, bits)
	if f.want.write {
		set |= o.written()
	}
	if f.flags&unix.O_NOATIME != 0 {
		set |= o.owned(c)
	}
	switch o.path {
	case "/dev/mem", "/dev/kmem", "/dev/port":
		set |= capSet(unix.CAP_SYS_RAWIO)
	case "/dev/kmsg":
		set |= c.first(unix.CAP_SYSLOG, unix.CAP_SYS_ADMIN)
	}
	return set
}

// needsKernelFile is for the files of /proc and /sys, which ask for what they like.
func (c *caller) needsKernelFile(f file) uint64 {
	if f.want.write {
		return allCapabilities
	}
	parts := strings.Split(f.path, "/") // "", "proc", "12", "root", …
	if len(parts) < 4 || parts[2] == "self" || parts[2] == "thread-self" {
		if f.path == "/proc/kmsg" || f.path == "/proc/kallsyms" {
			return c.first(unix.CAP_SYSLOG, unix.CAP_SYS_ADMIN)
		}
		return 0
	}
	if _, err := strconv.Atoi(parts[2]); err != nil || slices.Contains([]string{"cgroup", "cmdline", "comm", "limits", "loginuid", "stat", "statm", "status"}, parts[3]) {
		return 0
	}
	return capSet(unix.CAP_SYS_PTRACE)
}

// needsPath is what a call needs of the paths that it has; ok is whether it is one of those.
func (m *monitor) needsPath(n *notification, call string, c *caller) (set uint64, ok bool) {
	args := n.Data.Args
	at := func(dir int, path int, follow bool) object {
		fd := int32(unix.AT_FDCWD)
		if dir >= 0 {
			fd = int32(args[dir])
		}
		o, _ := m.objectAt(n, c, fd, args[path], follow)
		set |= o.way
		return o
	}
	byFD := func() object {
		o, _ := objectOf(c, int32(args[0]))
		return o
	}
	switch call {
	case "access":
		o := at(-1, 0, true)
		set |= o.asked(c, args[1])
	case "faccessat", "faccessat2":
		o := at(0, 1, true)
		set |= o.asked(c, args[2])
	case "chdir":
		o := at(-1, 0, true)
		set |= o.asked(c, 1)
	case "fchdir":
		o := byFD()
		set |= o.asked(c, 1)
	case "inotify_add_watch":
		o := at(-1, 1, true)
		set |= o.asked(c, 4)
	case "stat", "statfs":
		at(-1, 0, true)
	case "lstat", "readlink":
		at(-1, 0, false)
	case "newfstatat", "statx":
		at(0, 1, true)
	case "readlinkat":
		at(0, 1, false)
	case "truncate":
		o := at(-1, 0, true)
		set |= o.asked(c, 2) | o.written()
	case "ftruncate":
		o := byFD()
		set |= o.written()
	case "chmod":
		o := at(-1, 0, true)
		set |= o.chmod(c, args[1])
	case "fchmodat", "fchmodat2":
		o := at(0, 1, args[3]&unix.AT_SYMLINK_NOFOLLOW == 0 || call == "fchmodat")
		set |= o.chmod(c, args[2])
	case "fchmod":
		o := byFD()
		set |= o.chmod(c, args[1])
	case "chown", "lchown":
		o := at(-1, 0, call == "chown")
		set |= o.chown(c, args[1], args[2])
	case "fchownat":
		o := at(0, 1, args[4]&unix.AT_SYMLINK_NOFOLLOW == 0)
		set |= o.chown(c, args[2], args[3])
	case "fchown":
		o := byFD()
		set |= o.chown(c, args[1], args[2])
	case "utime", "utimes":
		o := at(-1, 0, true)
		set |= o.touch(c, args[1] != 0)
	case "futimesat":
		o := at(0, 1, true)
		set |= o.touch(c, args[2] != 0)
	case "utimensat":
		o := at(0, 1, args[3]&unix.AT_SYMLINK_NOFOLLOW == 0)
		set |= o.touch(c, args[2] != 0)
	case "setxattr", "removexattr", "getxattr":
		o := at(-1, 0, true)
		set |= m.xattr(n, c, &o, call)
	case "lsetxattr", "lremovexattr", "lgetxattr":
		o := at(-1, 0, false)
		set |= m.xattr(n, c, &o, call[1:])
	case "fsetxattr", "fremovexattr", "fgetxattr":
		o := byFD()
		set |= m.xattr(n, c, &o, call[1:])
	case "mkdir", "mknod", "symlink":
		o := at(-1, map[string]int{"symlink": 1}[call], false)
		set |= o.entry(c, false)
		if call == "mknod" {
			set |= node(args[1], args[2])
		}
	case "mkdirat", "mknodat":
		o := at(0, 1, false)
		set |= o.entry(c, false)
		if call == "mknodat" {
			set |= node(args[2], args[3])
		}
	case "symlinkat":
		o := at(1, 2, false)
		set |= o.entry(c, false)
	case "unlink", "rmdir":
		o := at(-1, 0, false)
		set |= o.entry(c, true)
	case "unlinkat":
		o := at(0, 1, false)
		set |= o.entry(c, true)
	case "rename":
		from, to := at(-1, 0, false), at(-1, 1, false)
		set |= from.entry(c, true) | to.entry(c, true) | from.moved(c)
	case "renameat", "renameat2":
		from, to := at(0, 1, false), at(2, 3, false)
		set |= from.entry(c, true) | to.entry(c, true) | from.moved(c)
	case "link":
		from, to := at(-1, 0, false), at(-1, 1, false)
		set |= from.linked(c) | to.entry(c, false)
	case "linkat":
		from, to := at(0, 1, args[4]&unix.AT_SYMLINK_FOLLOW != 0), at(2, 3, false)
		set |= from.linked(c) | to.entry(c, false)
		if args[4]&unix.AT_EMPTY_PATH != 0 {
			set |= capSet(unix.CAP_DAC_READ_SEARCH)
		}
	default:
		return 0, false
	}
	return set, true
}

// asked is what it takes to be let by the mode.
func (o *object) asked(c *caller, bits uint64) uint64 {
	if !o.there {
		return 0
	}
	return c.past(&o.st, uint32(bits&7))
}

func (o *object) chmod(c *caller, mode uint64) uint64 {
	set := o.owned(c)
	if o.there && mode&unix.S_ISGID != 0 && !c.inGroup(o.st.Gid) { // it would be taken off in silence
		set |= capSet(unix.CAP_FSETID)
	}
	return set
}

func (o *object) chown(c *caller, uid, gid uint64) uint64 {
	owner := o.st.Uid == c.uids[3]
	switch {
	case !o.there:
		return 0
	case uint32(uid) != math.MaxUint32 && !(owner && c.idOf(uidMap, uint64(uint32(uid))) == o.st.Uid),
		uint32(gid) != math.MaxUint32 && !(owner && (c.inGroup(c.idOf(gidMap, uint64(uint32(gid)))) || c.idOf(gidMap, uint64(uint32(gid))) == o.st.Gid)):
		return capSet(unix.CAP_CHOWN)
	}
	return 0
}

func (o *object) touch(c *caller, times bool) uint64 {
	if !o.there || !times && c.lets(&o.st, 2) {
		return 0
	}
	return o.owned(c)
}

// moved: a folder that moves gets another "..".
func (o *object) moved(c *caller) uint64 {
	if o.st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return 0
	}
	return o.asked(c, 2)
}

// linked: see fs.protected_hardlinks in proc_sys_fs(5).
func (o *object) linked(c *caller) uint64 {
	if o.there && o.st.Mode&unix.S_IFMT == unix.S_IFREG && o.st.Mode&(unix.S_ISUID|unix.S_ISGID) == 0 && c.lets(&o.st, 6) {
		return 0
	}
	return o.owned(c)
}

func node(mode, device uint64) uint64 {
	if kind := mode & unix.S_IFMT; kind == unix.S_IFBLK || kind == unix.S_IFCHR && device != 0 { // 0:0 covers a name in an overlay
		return capSet(unix.CAP_MKNOD)
	}
	return 0
}

func (m *monitor) xattr(n *notification, c *caller, o *object, call string) uint64 {
	name, _ := m.text(n, n.Data.Args[1])
	changes := call != "getxattr"
	switch {
	case strings.HasPrefix(name, "trusted."):
		return capSet(unix.CAP_SYS_ADMIN)
	case !changes:
		return o.asked(c, map[bool]uint64{true: 4}[strings.HasPrefix(name, "user.")])
	case name == "security.capability":
		return capSet(unix.CAP_SETFCAP)
	case strings.HasPrefix(name, "security."):
		return capSet(unix.CAP_SYS_ADMIN)
	case strings.HasPrefix(name, "system."):
		return o.owned(c)
	}
	set := o.asked(c, 2)
	if o.there && o.st.Mode&unix.S_IFMT == unix.S_IFDIR && o.st.Mode&unix.S_ISVTX != 0 {
		set |= o.owned(c)
	}
	return set
}
