//go:build cgo && (amd64 || arm64)

package isolate

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// wanted is what a call wants to do with a file.
type wanted struct{ read, write, exec, create, nothing bool }

// file is what an open or exec is about.
type file struct {
	name  string // absolute, as the payload has it
	path  string // the same without its dots
	want  wanted
	flags uint64 // of an open
}

// fileOf reads the arguments of an open or exec, once.
func (m *monitor) fileOf(n *notification, call string) (file, bool) {
	args, dir := n.Data.Args, int32(unix.AT_FDCWD)
	at, flags := args[0], args[1]
	switch call {
	case "creat":
		flags = unix.O_CREAT | unix.O_WRONLY | unix.O_TRUNC
	case "openat", "execveat":
		dir, at, flags = int32(args[0]), args[1], args[2]
	case "openat2":
		dir, at = int32(args[0]), args[1]
		var how [8]byte
		if got, err := readMemory(int(n.Pid), args[2], how[:]); err != nil || got < len(how) {
			return file{}, false
		}
		flags = binary.LittleEndian.Uint64(how[:])
	}
	f := file{want: wanted{exec: true}}
	if strings.HasPrefix(call, "open") || call == "creat" {
		mode := flags & unix.O_ACCMODE
		f.flags = flags
		f.want = wanted{
			read: mode != unix.O_WRONLY, write: mode != unix.O_RDONLY || flags&unix.O_TRUNC != 0,
			create: flags&unix.O_CREAT != 0, nothing: flags&unix.O_PATH != 0,
		}
	}
	name, ok := m.text(n, at)
	if !ok || name == "" {
		return file{}, false
	}
	return f, f.place(n, dir, name)
}

// place finds where a name is relative to.
func (f *file) place(n *notification, dir int32, name string) bool {
	if !filepath.IsAbs(name) {
		base := "/proc/" + strconv.Itoa(int(n.Pid)) + "/cwd"
		if dir != unix.AT_FDCWD {
			base = "/proc/" + strconv.Itoa(int(n.Pid)) + "/fd/" + strconv.Itoa(int(dir))
		}
		folder, err := os.Readlink(base)
		if err != nil || !filepath.IsAbs(folder) {
			return false
		}
		name = folder + "/" + name
	}
	f.name, f.path = name, filepath.Clean(name)
	return true
}

// rootOf opens the root that a caller looks paths up in, if its view is that of the Plan.
func (m *monitor) rootOf(n *notification) (int, bool) {
	proc := "/proc/" + strconv.Itoa(int(n.Pid))
	var space unix.Stat_t
	if err := unix.Stat(proc+"/ns/mnt", &space); err != nil {
		return -1, false
	}
	if m.space == 0 {
		m.space = space.Ino
	}
	if m.space != space.Ino {
		return -1, false // of its own making, as a jail's in the jail: our view is not what it sees
	}
	root, err := unix.Open(proc+"/root", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	return root, err == nil
}

// lookFile tells what the kernel is going to refuse of a file.
func (m *monitor) lookFile(n *notification, f file) Denial {
	for _, own := range []string{"/dev/fd", "/dev/stdin", "/dev/stdout", "/dev/stderr"} {
		if within(f.path, own) {
			return Denial{} // its own fds
		}
	}
	if rest, ok := strings.CutPrefix(f.path, "/proc/self/"); ok { // for us that would be ourselves
		f.name = ownProc(n) + "/" + rest
	}
	root, ok := m.rootOf(n)
	if !ok {
		return Denial{}
	}
	defer unix.Close(root)
	why, errno := m.judge(root, f.name, f.path, f.want, 0)
	if why == "" {
		return Denial{}
	}
	return Denial{Path: f.path, Errno: unix.ErrnoName(errno), Why: why}
}

// lookChange tells what the kernel is going to refuse of a call that makes, renames or removes a name. What is there
// already where one is to be made, or not there where one is to be removed, is no border.
func (m *monitor) lookChange(n *notification, call string) Denial {
	root, ok := m.rootOf(n)
	if !ok {
		return Denial{}
	}
	defer unix.Close(root)
	uses := pathUses(call)
	if strings.HasPrefix(call, "link") {
		slices.Reverse(uses) // the new name is looked at first
	}
	makes := !strings.HasPrefix(call, "rename") && !strings.HasPrefix(call, "unlink") && call != "rmdir"
	var found Denial
	var mounts []uint64
	for i, u := range uses {
		name, ok := m.text(n, n.Data.Args[u.path])
		dir := int32(unix.AT_FDCWD)
		if u.dir >= 0 {
			dir = int32(n.Data.Args[u.dir])
		}
		var f file
		if !ok || name == "" || !f.place(n, dir, name) {
			return Denial{}
		}
		var why Why
		var errno unix.Errno
		if u.folder {
			var mount uint64
			why, errno, mount = m.judgeName(root, f.path, makes, i == 0)
			mounts = append(mounts, mount)
		} else {
			why, errno = m.judge(root, f.name, f.path, wanted{nothing: true}, 0)
			if access, _ := m.plan.Access(f.path); why == "" && access == AccessClosed {
				why, errno = Closed, unix.EXDEV // what covers it is a mount
			}
		}
		if found.Why == "" && why != "" {
			found = Denial{Path: f.path, Errno: unix.ErrnoName(errno), Why: why}
		}
	}
	if found.Why != "" && len(mounts) == 2 && mounts[0] != mounts[1] && mounts[0] != 0 && mounts[1] != 0 {
		found.Errno = "EXDEV" // a rename looks at that first
	}
	return found
}

// judgeName is the border that making or removing a name is refused at, and the mount of its folder, 0 if it is not known.
func (m *monitor) judgeName(root int, path string, makes, first bool) (Why, unix.Errno, uint64) {
	dir := filepath.Dir(path)
	real, st, err := find(root, dir)
	if err != nil {
		why, errno := m.judge(root, dir, dir, wanted{nothing: true}, 0)
		return why, errno, 0
	}
	var folder unix.Statx_t
	_ = unix.Statx(root, strings.TrimPrefix(real, "/")+"/.", 0, unix.STATX_MNT_ID, &folder) // Linux 5.8
	name := filepath.Join(real, filepath.Base(path))
	var own unix.Stat_t
	there := unix.Fstatat(root, strings.TrimPrefix(name, "/"), &own, unix.AT_SYMLINK_NOFOLLOW) == nil
	if makes && there || !makes && first && !there {
		return "", 0, folder.Mnt_id
	}
	why, errno := m.judgeFile(root, real, &st, wanted{write: true, create: true})
	if why == "" && m.mounts && there {
		switch access, _ := m.plan.Access(name); access { // a mount, which can't be moved
		case AccessClosed:
			why, errno = Closed, unix.EBUSY
		case AccessRead, AccessExecute:
			why, errno = ReadOnly, unix.EBUSY
		}
	}
	return why, errno, folder.Mnt_id
}

// judge is the border that a file's use is refused at. name is absolute, as the payload has it; path is the same without
// its dots.
func (m *monitor) judge(root int, name, path string, want wanted, links int) (Why, unix.Errno) {
	real, st, err := find(root, name)
	switch {
	case err == nil:
		want.create = false
		return m.judgeFile(root, real, &st, want)
	case err == unix.EACCES:
		switch access, _ := m.plan.Access(path); access {
		case AccessClosed:
			return Closed, unix.EACCES
		case AccessNone:
			return NotInView, unix.EACCES
		default:
			return ByMode, unix.EACCES
		}
	case err == unix.ELOOP:
		return m.judgeMagic(root, filepath.Clean(name), want, links)
	case err != unix.ENOENT && err != unix.ENOTDIR:
		return "", 0
	}
	if access, _ := m.plan.Access(path); access == AccessClosed {
		return Closed, unix.EACCES
	}
	if _, shown := m.plan.HostPath(path); m.mounts && !m.rootfs && !shown && !within(path, "/proc") {
		if _, err := os.Lstat(path); err == nil || !want.exec && errnoOf(err) == unix.EACCES { // a search of PATH goes on
			return NotInView, unix.ENOENT
		}
	}
	if real, _, err := find(root, filepath.Dir(path)); err == nil && links < maxLinks { // a link that leads out of the view
		target := make([]byte, unix.PathMax)
		if got, err := unix.Readlinkat(root, strings.TrimPrefix(filepath.Join(real, filepath.Base(path)), "/"), target); err == nil && got > 0 {
			name := string(target[:got])
			if !filepath.IsAbs(name) {
				name = real + "/" + name
			}
			return m.judge(root, name, filepath.Clean(name), want, links+1)
		}
	}
	if want.create {
		if real, st, err := find(root, filepath.Dir(path)); err == nil {
			return m.judgeFile(root, real, &st, wanted{write: true, create: true})
		}
	}
	return "", 0
}

// maxLinks is how many links are followed for a report.
const maxLinks = 4

// judgeMagic judges a path by way of a link of /proc that leads to a file, not to a name.
func (m *monitor) judgeMagic(root int, path string, want wanted, links int) (Why, unix.Errno) {
	parts := strings.Split(path, "/") // "", "proc", "12", "root", …
	if len(parts) < 4 || parts[1] != "proc" || links == maxLinks {
		return "", 0
	}
	var st unix.Stat_t
	if unix.Fstatat(root, "proc/"+parts[2]+"/environ", &st, unix.AT_SYMLINK_NOFOLLOW) == nil && st.Uid != m.uid && !m.all {
		return OtherProcess, unix.EACCES
	}
	n := 4
	if parts[3] == "fd" {
		n = 5
	}
	target := make([]byte, unix.PathMax)
	got, err := unix.Readlinkat(root, strings.Join(parts[1:min(n, len(parts))], "/"), target)
	if err != nil || got == 0 || target[0] != '/' {
		return "", 0
	}
	name := string(target[:got]) + "/" + strings.Join(parts[min(n, len(parts)):], "/")
	return m.judge(root, name, filepath.Clean(name), want, links+1)
}

// judgeFile judges the use of a file that is there, or, to create one, of its folder; real has no links.
func (m *monitor) judgeFile(root int, real string, st *unix.Stat_t, want wanted) (Why, unix.Errno) {
	may := m.mayUse(root, real, st, want)
	readOnly := unix.EACCES
	if m.mounts && (may || want.create) { // else the mode is looked at first
		readOnly = unix.EROFS
	}
	access, _ := m.plan.Access(real)
	switch {
	case want.nothing:
		return "", 0
	case access == AccessClosed:
		return Closed, unix.EACCES
	case access == AccessNone && !m.mounts && !inEveryDev(real):
		return NotInView, unix.EACCES
	case access == AccessNone && m.mounts && want.write:
		return ReadOnly, readOnly
	case (access == AccessRead || access == AccessExecute) && want.write && st.Mode&unix.S_IFMT != unix.S_IFCHR:
		return ReadOnly, readOnly
	case (access == AccessRead || access == AccessWrite) && want.exec:
		return NoExecution, unix.EACCES
	}
	if may {
		return "", 0
	}
	if rest, ok := strings.CutPrefix(real, "/proc/"); ok && rest[0] >= '1' && rest[0] <= '9' {
		return OtherProcess, unix.EACCES
	}
	return ByMode, unix.EACCES
}

// inEveryDev says whether every view has it.
func inEveryDev(path string) bool {
	for _, d := range devices {
		if path == "/dev/"+d.name {
			return true
		}
	}
	return false
}

// find looks a path up as the payload would, with its root, and returns where it leads.
func find(root int, name string) (real string, st unix.Stat_t, err error) {
	fd, err := unix.Openat2(root, name, &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS})
	if err != nil {
		return "", st, err
	}
	defer unix.Close(fd)
	if err := unix.Fstat(fd, &st); err != nil {
		return "", st, err
	}
	real, err = os.Readlink("/proc/self/fd/" + strconv.Itoa(fd))
	if err == nil && !filepath.IsAbs(real) { // a pipe, a socket
		err = unix.EINVAL
	}
	if st.Nlink == 0 { // what covers a file that is denied has no name of its own
		real = strings.TrimSuffix(real, " (deleted)")
	}
	return real, st, err
}

// mayUse says whether owner and mode let the payload's uid, on all of the way. Other things, such as access control
// lists, it does not know.
func (m *monitor) mayUse(root int, real string, st *unix.Stat_t, want wanted) bool {
	var bits uint32
	for bit, wants := range map[uint32]bool{4: want.read, 2: want.write, 1: want.exec} {
		if wants {
			bits |= bit
		}
	}
	if m.all {
		return true
	}
	if !m.lets(st, bits) {
		return false
	}
	for dir := filepath.Dir(real); dir != "/"; dir = filepath.Dir(dir) {
		var st unix.Stat_t
		if unix.Fstatat(root, dir[1:], &st, unix.AT_SYMLINK_NOFOLLOW) == nil && !m.lets(&st, 1) {
			return false
		}
	}
	return true
}

func (m *monitor) lets(st *unix.Stat_t, bits uint32) bool {
	mode := st.Mode
	switch {
	case st.Uid == m.uid:
		mode >>= 6
	case slices.Contains(m.groups, int(st.Gid)):
		mode >>= 3
	}
	return mode&bits == bits
}
