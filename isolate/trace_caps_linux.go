//go:build cgo && (amd64 || arm64)

package isolate

import (
	"encoding/binary"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Which capabilities a call needs is told from its arguments, its caller and the files that they are about, as the kernel
// will judge them. Where those do not tell, it may need them: what is kept too much is a border less, what is kept too
// little a program that fails. capabilities(7) and the calls of capable() in the kernel's sources are what this follows.

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

// capabilityCalls need the first of the capabilities that their caller has, or may need it: their arguments don't tell.
var capabilityCalls = map[string][]int{
	"acct": {unix.CAP_SYS_PACCT}, "chroot": {unix.CAP_SYS_CHROOT},
	"delete_module": {unix.CAP_SYS_MODULE}, "finit_module": {unix.CAP_SYS_MODULE}, "init_module": {unix.CAP_SYS_MODULE},
	"fanotify_init": {unix.CAP_SYS_ADMIN}, "fanotify_mark": {unix.CAP_SYS_ADMIN}, "fsconfig": {unix.CAP_SYS_ADMIN}, "fsmount": {unix.CAP_SYS_ADMIN},
	"fsopen": {unix.CAP_SYS_ADMIN}, "fspick": {unix.CAP_SYS_ADMIN}, "keyctl": {unix.CAP_SYS_ADMIN}, "lookup_dcookie": {unix.CAP_SYS_ADMIN},
	"mount": {unix.CAP_SYS_ADMIN}, "mount_setattr": {unix.CAP_SYS_ADMIN}, "move_mount": {unix.CAP_SYS_ADMIN}, "open_tree": {unix.CAP_SYS_ADMIN},
	"open_tree_attr": {unix.CAP_SYS_ADMIN}, "pivot_root": {unix.CAP_SYS_ADMIN}, "quotactl": {unix.CAP_SYS_ADMIN}, "quotactl_fd": {unix.CAP_SYS_ADMIN},
	"setdomainname": {unix.CAP_SYS_ADMIN}, "sethostname": {unix.CAP_SYS_ADMIN}, "swapoff": {unix.CAP_SYS_ADMIN}, "swapon": {unix.CAP_SYS_ADMIN},
	"umount2": {unix.CAP_SYS_ADMIN}, "ioperm": {unix.CAP_SYS_RAWIO}, "iopl": {unix.CAP_SYS_RAWIO},
	"kexec_file_load": {unix.CAP_SYS_BOOT}, "kexec_load": {unix.CAP_SYS_BOOT}, "reboot": {unix.CAP_SYS_BOOT},
	"open_by_handle_at": {unix.CAP_DAC_READ_SEARCH}, "perf_event_open": {unix.CAP_PERFMON, unix.CAP_SYS_ADMIN}, "setgroups": {unix.CAP_SETGID},
	"clock_settime": {unix.CAP_SYS_TIME}, "settimeofday": {unix.CAP_SYS_TIME}, "syslog": {unix.CAP_SYSLOG, unix.CAP_SYS_ADMIN},
	"vhangup": {unix.CAP_SYS_TTY_CONFIG}, "get_robust_list": {unix.CAP_SYS_PTRACE}, "kcmp": {unix.CAP_SYS_PTRACE},
	"pidfd_getfd": {unix.CAP_SYS_PTRACE}, "process_vm_readv": {unix.CAP_SYS_PTRACE}, "process_vm_writev": {unix.CAP_SYS_PTRACE},
	"userfaultfd": {unix.CAP_SYS_PTRACE},
}

// mixedCalls may need each of several.
var mixedCalls = map[string]uint64{
	"bpf":   capSet(unix.CAP_BPF, unix.CAP_NET_ADMIN, unix.CAP_PERFMON, unix.CAP_SYS_ADMIN),
	"mbind": capSet(unix.CAP_SYS_NICE), "migrate_pages": capSet(unix.CAP_SYS_NICE, unix.CAP_SYS_PTRACE), "move_pages": capSet(unix.CAP_SYS_NICE, unix.CAP_SYS_PTRACE),
	"process_madvise": capSet(unix.CAP_SYS_NICE, unix.CAP_SYS_PTRACE), "sched_setattr": capSet(unix.CAP_SYS_NICE), "sched_setparam": capSet(unix.CAP_SYS_NICE),
	"ioprio_set": capSet(unix.CAP_SYS_NICE, unix.CAP_SYS_ADMIN), "file_setattr": capSet(unix.CAP_FOWNER, unix.CAP_LINUX_IMMUTABLE),
	"msgctl": ipcCaps, "msgget": ipcCaps, "msgrcv": ipcCaps, "msgsnd": ipcCaps, "semctl": ipcCaps, "semget": ipcCaps, "semop": ipcCaps,
	"semtimedop": ipcCaps, "shmat": ipcCaps, "shmctl": ipcCaps, "shmget": ipcCaps,
	// The queue's calls are seen by nobody.
	"io_uring_enter": allCapabilities, "io_uring_register": allCapabilities, "io_uring_setup": allCapabilities,
}

const ipcCaps = uint64(1)<<unix.CAP_IPC_OWNER | 1<<unix.CAP_IPC_LOCK | 1<<unix.CAP_SYS_ADMIN

// unseenCaps are asked for where no call's arguments tell of it: by limits, reserved blocks and other security modules.
const unseenCaps = uint64(1)<<unix.CAP_SYS_RESOURCE | 1<<unix.CAP_MAC_OVERRIDE | 1<<unix.CAP_MAC_ADMIN

// traceCapabilities keeps what a call needs, with the first call that does.
func (m *monitor) traceCapabilities(n *notification, call string) {
	t := m.tracer
	if m.caps&^t.capsKnown == 0 {
		return // there is no more to learn
	}
	need := allCapabilities // another ABI's
	if n.Data.Arch == nativeArch {
		c, ok := m.callerOf(n)
		if !ok || c.effective&^t.capsKnown == 0 {
			return
		}
		need = m.needs(n, call, c) & c.effective
	}
	if need &= m.caps &^ t.capsKnown; need == 0 || !waits(m.listener, n.ID) {
		return
	}
	t.capsKnown |= need
	for _, name := range formatCapabilities(need) {
		t.capabilities[name] = call
	}
}

// needs is what a call needs, or may need.
func (m *monitor) needs(n *notification, call string, c *caller) uint64 {
	args := n.Data.Args
	if list, ok := capabilityCalls[call]; ok {
		return c.first(list...)
	}
	if set, ok := mixedCalls[call]; ok {
		return set
	}
	if strings.HasPrefix(call, "call ") {
		return allCapabilities // newer than this table
	}
	if slices.Contains(watchedCalls, call) && call != "connect" {
		return m.needsOpen(n, call, c)
	}
	if set, ok := m.needsPath(n, call, c); ok {
		return set
	}
	switch call {
	case "setuid":
		if c.sets(uidMap, args[:1], c.uids[0]) || c.sets(uidMap, args[:1], c.uids[2]) {
			return capSet(unix.CAP_SETUID)
		}
	case "setreuid":
		if c.sets(uidMap, args[:1], c.uids[0], c.uids[1]) || c.sets(uidMap, args[1:2], c.uids[:3]...) {
			return capSet(unix.CAP_SETUID)
		}
	case "setresuid":
		if c.sets(uidMap, args[:3], c.uids[:3]...) {
			return capSet(unix.CAP_SETUID)
		}
	case "setfsuid":
		if c.sets(uidMap, args[:1], c.uids[:]...) {
			return capSet(unix.CAP_SETUID)
		}
	case "setgid":
		if c.sets(gidMap, args[:1], c.gids[0]) || c.sets(gidMap, args[:1], c.gids[2]) {
			return capSet(unix.CAP_SETGID)
		}
	case "setregid":
		if c.sets(gidMap, args[:1], c.gids[0], c.gids[1]) || c.sets(gidMap, args[1:2], c.gids[:3]...) {
			return capSet(unix.CAP_SETGID)
		}
	case "setresgid":
		if c.sets(gidMap, args[:3], c.gids[:3]...) {
			return capSet(unix.CAP_SETGID)
		}
	case "setfsgid":
		if c.sets(gidMap, args[:1], c.gids[:]...) {
			return capSet(unix.CAP_SETGID)
		}
	case "capset": // what it keeps or takes it has to have
		var data [24]byte // effective, permitted, inheritable, twice
		if got, err := readMemory(int(n.Pid), args[1], data[:]); err != nil || got < len(data) {
			return 0
		}
		set := func(i int) uint64 {
			return uint64(binary.NativeEndian.Uint32(data[4*i:])) | uint64(binary.NativeEndian.Uint32(data[4*i+12:]))<<32
		}
		asked := set(0) | set(1) | set(2)
		if set(2)&^(c.inheritable|c.permitted) != 0 {
			asked |= capSet(unix.CAP_SETPCAP)
		}
		return asked
	case "prctl":
		switch args[0] {
		case unix.PR_CAPBSET_DROP, unix.PR_SET_SECUREBITS:
			return capSet(unix.CAP_SETPCAP)
		case unix.PR_CAP_AMBIENT:
			if args[1] == unix.PR_CAP_AMBIENT_RAISE && args[2] < 64 {
				return capSet(int(args[2]))
			}
		case unix.PR_SET_MM:
			return capSet(unix.CAP_CHECKPOINT_RESTORE)
		}
	case "ptrace":
		if args[0] != unix.PTRACE_TRACEME {
			return capSet(unix.CAP_SYS_PTRACE)
		}
	case "kill", "rt_sigqueueinfo", "tkill", "tgkill", "rt_tgsigqueueinfo", "pidfd_send_signal":
		if !c.maySignal(call, args) {
			return capSet(unix.CAP_KILL)
		}
	case "sched_setscheduler":
		if policy := args[1] &^ 0x40000000; policy == 1 || policy == 2 || args[0] != 0 { // SCHED_RESET_ON_FORK; SCHED_FIFO, SCHED_RR
			return capSet(unix.CAP_SYS_NICE)
		}
	case "sched_setaffinity":
		if args[0] != 0 && !c.sameOwner(c.proc+"/root/proc/"+strconv.Itoa(int(int32(args[0])))) {
			return capSet(unix.CAP_SYS_NICE)
		}
	case "setpriority":
		old, err := unix.Getpriority(unix.PRIO_PROCESS, int(n.Pid)) // 20 - nice
		if args[0] != unix.PRIO_PROCESS || args[1] != 0 || err != nil || int(int32(args[2])) < 20-old {
			return capSet(unix.CAP_SYS_NICE)
		}
	case "prlimit64":
		if args[0] != 0 && !c.sameOwner(c.proc+"/root/proc/"+strconv.Itoa(int(int32(args[0])))) {
			return capSet(unix.CAP_SYS_RESOURCE)
		}
	case "mlock", "mlock2", "mlockall", "mmap":
		return m.needsLock(n, call, c)
	case "memfd_create":
		if args[1]&unix.MFD_HUGETLB != 0 {
			return capSet(unix.CAP_IPC_LOCK)
		}
	case "madvise":
		if args[2] == 100 || args[2] == 101 { // MADV_HWPOISON, MADV_SOFT_OFFLINE
			return capSet(unix.CAP_SYS_ADMIN)
		}
	case "adjtimex", "clock_adjtime":
		at := args[0]
		if call == "clock_adjtime" {
			at = args[1]
		}
		if modes, ok := wordAt(n, at); !ok || modes != 0 {
			return capSet(unix.CAP_SYS_TIME)
		}
	case "timer_create", "timerfd_create", "clock_nanosleep":
		if args[0] == unix.CLOCK_REALTIME_ALARM || args[0] == unix.CLOCK_BOOTTIME_ALARM {
			return capSet(unix.CAP_WAKE_ALARM)
		}
	case "epoll_ctl":
		if events, ok := wordAt(n, args[3]); ok && events&unix.EPOLLWAKEUP != 0 {
			return capSet(unix.CAP_BLOCK_SUSPEND)
		}
	case "clone", "clone3", "unshare", "setns":
		return m.needsNamespace(n, call)
	case "fcntl":
		o, ok := objectOf(c, int32(args[0]))
		switch {
		case args[1] == unix.F_SETLEASE && ok && o.st.Uid != c.uids[3]:
			return capSet(unix.CAP_LEASE)
		case args[1] == unix.F_SETFL && args[2]&unix.O_NOATIME != 0 && ok:
			return o.owned(c)
		}
	case "ioctl":
		return needsIoctl(uint32(args[1]))
	case "socket", "bind", "connect", "setsockopt":
		return m.needsSocket(n, call, c)
	}
	return 0
}

// wordAt is four bytes of the caller's memory.
func wordAt(n *notification, at uint64) (uint32, bool) {
	var b [4]byte
	got, err := readMemory(int(n.Pid), at, b[:])
	return binary.NativeEndian.Uint32(b[:]), err == nil && got == len(b)
}

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

// sameOwner says whether a folder of /proc is of a process with the caller's uid.
func (c *caller) sameOwner(proc string) bool {
	text, err := os.ReadFile(proc + "/status")
	if err != nil {
		return true // there is none
	}
	for line := range strings.Lines(string(text)) {
		words := strings.Fields(line)
		if len(words) < 4 || words[0] != "Uid:" {
			continue
		}
		for _, i := range []int{1, 3} { // real and saved
			id, _ := strconv.ParseUint(words[i], 10, 32)
			if uint32(id) == c.uids[0] || uint32(id) == c.uids[1] {
				return true
			}
		}
	}
	return false
}

// maySignal is for a process of the jail's own /proc, of a group of them, or of a pidfd.
func (c *caller) maySignal(call string, args [6]uint64) bool {
	if call == "pidfd_send_signal" {
		return c.sameOwner("/proc/" + lastField(c.proc+"/fdinfo/"+strconv.Itoa(int(int32(args[0]))), "Pid:"))
	}
	proc := c.proc + "/root/proc/"
	if pid := int(int32(args[0])); pid > 0 {
		return c.sameOwner(proc + strconv.Itoa(pid))
	}
	all, _ := os.ReadDir(proc)
	for _, e := range all {
		if pid, err := strconv.Atoi(e.Name()); err == nil && pid > 1 && !c.sameOwner(proc+e.Name()) {
			return false
		}
	}
	return true
}

// needsLock is for what may not be swapped out.
func (m *monitor) needsLock(n *notification, call string, c *caller) uint64 {
	args := n.Data.Args
	length := args[1]
	switch call {
	case "mmap":
		if args[3]&unix.MAP_FIXED != 0 && args[0] < 1<<16 { // vm.mmap_min_addr
			return capSet(unix.CAP_SYS_RAWIO)
		}
		if args[3]&(unix.MAP_LOCKED|unix.MAP_HUGETLB) == 0 {
			return 0
		}
		if args[3]&unix.MAP_HUGETLB != 0 {
			return capSet(unix.CAP_IPC_LOCK)
		}
	case "mlockall":
		length = math.MaxInt64
	}
	var limit unix.Rlimit
	if err := unix.Prlimit(int(n.Pid), unix.RLIMIT_MEMLOCK, nil, &limit); err != nil || c.locked+length+pageSize > limit.Cur {
		return capSet(unix.CAP_IPC_LOCK)
	}
	return 0
}

// needsNamespace is for namespaces but the user's, which needs nothing and gives all that the others do.
func (m *monitor) needsNamespace(n *notification, call string) uint64 {
	const namespaces = unix.CLONE_NEWNS | unix.CLONE_NEWCGROUP | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_NEWTIME
	flags := n.Data.Args[0]
	switch call {
	case "setns":
		return capSet(unix.CAP_SYS_ADMIN, unix.CAP_SYS_CHROOT)
	case "clone":
		flags &^= unix.CLONE_NEWTIME // a signal's place
	case "clone3":
		low, ok := wordAt(n, flags)
		if flags = uint64(low); !ok {
			return 0
		}
		if size := n.Data.Args[1]; size >= 80 { // with set_tid_size
			if count, ok := wordAt(n, n.Data.Args[0]+72); ok && count != 0 {
				return capSet(unix.CAP_CHECKPOINT_RESTORE, unix.CAP_SYS_ADMIN)
			}
		}
	}
	if flags&namespaces != 0 && flags&unix.CLONE_NEWUSER == 0 {
		return capSet(unix.CAP_SYS_ADMIN)
	}
	return 0
}

// harmlessIoctls need nothing, whatever they are made on: of terminals and sockets those that ask.
var harmlessIoctls = []uint32{
	unix.FS_IOC_GETFLAGS, unix.FICLONE, unix.FICLONERANGE, 0x80087601 /* FS_IOC_GETVERSION */, 0xc020660b, /* FS_IOC_FIEMAP */
	0x8901, 0x8902, 0x8903, 0x8904, 0x8905, 0x8906, 0x8907, // FIOSETOWN … SIOCGSTAMPNS
	unix.SIOCGIFNAME, unix.SIOCGIFCONF, unix.SIOCGIFFLAGS, unix.SIOCGIFADDR, unix.SIOCGIFDSTADDR, unix.SIOCGIFBRDADDR,
	unix.SIOCGIFNETMASK, unix.SIOCGIFMETRIC, unix.SIOCGIFMTU, unix.SIOCGIFHWADDR, unix.SIOCGIFINDEX, 0x8942, /* SIOCGIFTXQLEN */
}

func needsIoctl(request uint32) uint64 {
	switch kind := request >> 8 & 0xff; {
	case slices.Contains(harmlessIoctls, request):
		return 0
	case request == unix.TIOCSCTTY, request == unix.TIOCSTI, request == unix.TIOCCONS, request == unix.TIOCVHANGUP, request == unix.TIOCSSERIAL, request == 0x5457: // TIOCSLCKTRMIOS
		return capSet(unix.CAP_SYS_ADMIN, unix.CAP_SYS_TTY_CONFIG)
	case kind == 'T':
		return 0
	case kind == 0x89:
		return capSet(unix.CAP_NET_ADMIN)
	case request == unix.FS_IOC_SETFLAGS || request == 0x401c5820: // FS_IOC_FSSETXATTR
		return capSet(unix.CAP_FOWNER, unix.CAP_LINUX_IMMUTABLE)
	}
	return allCapabilities // a driver's
}

// harmlessOptions of sockets need nothing.
var harmlessOptions = map[uint64][]uint64{
	unix.SOL_SOCKET: {
		unix.SO_REUSEADDR, unix.SO_DONTROUTE, unix.SO_BROADCAST, unix.SO_SNDBUF, unix.SO_RCVBUF, unix.SO_KEEPALIVE, unix.SO_OOBINLINE, unix.SO_LINGER,
		unix.SO_REUSEPORT, unix.SO_PASSCRED, unix.SO_RCVLOWAT, unix.SO_RCVTIMEO, unix.SO_SNDTIMEO, unix.SO_TIMESTAMP, unix.SO_TIMESTAMPNS,
		unix.SO_TIMESTAMPING, unix.SO_ATTACH_FILTER, unix.SO_DETACH_FILTER, unix.SO_PASSPIDFD, unix.SO_ZEROCOPY,
	},
	unix.SOL_TCP: {
		unix.TCP_NODELAY, unix.TCP_MAXSEG, unix.TCP_CORK, unix.TCP_KEEPIDLE, unix.TCP_KEEPINTVL, unix.TCP_KEEPCNT, unix.TCP_SYNCNT,
		unix.TCP_LINGER2, unix.TCP_DEFER_ACCEPT, unix.TCP_WINDOW_CLAMP, unix.TCP_QUICKACK, unix.TCP_USER_TIMEOUT, unix.TCP_FASTOPEN, unix.TCP_NOTSENT_LOWAT,
	},
	unix.SOL_IP: {
		unix.IP_TOS, unix.IP_TTL, unix.IP_PKTINFO, unix.IP_MTU_DISCOVER, unix.IP_RECVERR, unix.IP_RECVTTL, unix.IP_RECVTOS, unix.IP_FREEBIND,
		unix.IP_MULTICAST_IF, unix.IP_MULTICAST_TTL, unix.IP_MULTICAST_LOOP, unix.IP_ADD_MEMBERSHIP, unix.IP_DROP_MEMBERSHIP, unix.IP_BIND_ADDRESS_NO_PORT,
	},
	unix.SOL_IPV6: {
		unix.IPV6_V6ONLY, unix.IPV6_UNICAST_HOPS, unix.IPV6_MULTICAST_IF, unix.IPV6_MULTICAST_HOPS, unix.IPV6_MULTICAST_LOOP, unix.IPV6_JOIN_GROUP,
		unix.IPV6_LEAVE_GROUP, unix.IPV6_MTU_DISCOVER, unix.IPV6_RECVERR, unix.IPV6_RECVPKTINFO, unix.IPV6_RECVHOPLIMIT, unix.IPV6_RECVTCLASS, unix.IPV6_TCLASS,
	},
	unix.SOL_NETLINK: {unix.NETLINK_PKTINFO, unix.NETLINK_EXT_ACK, unix.NETLINK_CAP_ACK, unix.NETLINK_GET_STRICT_CHK, unix.NETLINK_NO_ENOBUFS},
}

func (m *monitor) needsSocket(n *notification, call string, c *caller) uint64 {
	args := n.Data.Args
	switch call {
	case "socket":
		switch raw := args[1]&0xf == unix.SOCK_RAW; args[0] {
		case unix.AF_UNIX:
			return 0
		case unix.AF_INET, unix.AF_INET6:
			return map[bool]uint64{true: capSet(unix.CAP_NET_RAW)}[raw]
		case unix.AF_PACKET:
			return capSet(unix.CAP_NET_RAW)
		case unix.AF_NETLINK: // what is sent through it, nobody sees: see compiler.monitor
			if args[2] == unix.NETLINK_AUDIT {
				return capSet(unix.CAP_AUDIT_CONTROL, unix.CAP_AUDIT_READ, unix.CAP_AUDIT_WRITE)
			}
			return capSet(unix.CAP_NET_ADMIN)
		}
		return capSet(unix.CAP_NET_ADMIN, unix.CAP_NET_RAW)
	case "setsockopt":
		if slices.Contains(harmlessOptions[args[1]], args[2]) {
			return 0
		}
		return capSet(unix.CAP_NET_ADMIN, unix.CAP_NET_BROADCAST, unix.CAP_NET_RAW)
	case "bind", "connect":
		text, raw := m.address(n)
		if raw == nil {
			return 0
		}
		switch family := binary.NativeEndian.Uint16(raw); {
		case family == unix.AF_UNIX && filepath.IsAbs(text), family == unix.AF_UNIX && text != "" && text[0] != '@':
			o, ok := m.objectNamed(n, c, unix.AT_FDCWD, text, call == "connect")
			if ok && call == "bind" {
				return o.way | o.entry(c, false)
			}
			return o.way | o.asked(c, 2)
		case call == "connect" || family == unix.AF_UNIX:
			return 0
		case (family == unix.AF_INET || family == unix.AF_INET6) && len(raw) >= 4:
			if port := int(binary.BigEndian.Uint16(raw[2:])); port == 0 || port >= m.firstPort() {
				return 0
			}
			return capSet(unix.CAP_NET_BIND_SERVICE)
		case family == unix.AF_NETLINK:
			if len(raw) >= 12 && binary.NativeEndian.Uint32(raw[8:]) == 0 {
				return 0 // no groups
			}
			return capSet(unix.CAP_NET_ADMIN)
		case family == unix.AF_PACKET:
			return 0 // its socket has needed it
		}
		return capSet(unix.CAP_NET_ADMIN, unix.CAP_NET_BIND_SERVICE, unix.CAP_NET_RAW)
	}
	return 0
}

// firstPort is the first one that needs nothing.
func (m *monitor) firstPort() int {
	const usual = 1024
	if m.own { // made for the jail
		return usual
	}
	text, err := os.ReadFile("/proc/sys/net/ipv4/ip_unprivileged_port_start")
	if port, e := strconv.Atoi(strings.TrimSpace(string(text))); err == nil && e == nil {
		return port
	}
	return usual
}
