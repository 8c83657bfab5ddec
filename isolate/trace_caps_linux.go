//go:build cgo && (amd64 || arm64)

package isolate

import (
	"encoding/binary"
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
