//go:build cgo && (amd64 || arm64)

package isolate

/*
#include "origin.h"
*/
import "C"

import (
	"crypto/rand"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/jailrun/jail/cgroup"
)

// Host is the facts about this machine and the caller that Compile needs. Same Spec and Host, same Plan: in tests all
// of it is given.
type Host struct {
	UID, GID int
	Groups   []int
	Caps     uint64 // effective
	Bounding uint64
	Kernel   [2]int // 6, 18
	Landlock int    // ABI version; 0 is none
	MountNS  uint64 // inode of the launcher's mount namespace; 0 is not known
	Children bool   // the kernel lists a task's children (CONFIG_PROC_CHILDREN)
	Home     string // of the caller's passwd entry
	Cwd      string
	Environ  []string

	OwnUID   int    // a uid that was claimed for this run; 0 is none
	GuestUID bool   // of uid 0: it is not the host's root, but somebody in a user namespace around us
	Scratch  string // the name for a private TMPDIR

	Cgroup     *cgroup.Place // where the jail's cgroup can be made
	CgroupErr  error         // why nowhere
	CgroupName string        // for a jail without a name
	CPUs       int           // that this process may use

	Ignored uint64               // signals that the caller ignores; bit n-1 is signal n
	Mask    uint64               // signals that the caller blocks
	Rlimits map[string][2]uint64 // soft and hard; of RLIMIT_NOFILE before Go raised it

	// What steps that failed have taught; see ways.
	NoClone3     bool
	NoMemfd      bool
	NoMountCall  bool // mount(2); fsopen(2) and its like do the same
	NoSysfs      bool
	NoProc       bool // no fresh procfs
	OuterCgroups bool // no cgroup namespace is to be had, but an outer jail's hides the host's paths
	NoDevpts     bool
	NoMknod      bool            // no devices can be made; the host's are shown
	NoAside      bool            // a network namespace can't be made aside and entered; one can be born in
	NoMaps       bool            // no user namespace for an id map
	NoOwnUID     bool            // the uids that jails take do not exist in this user namespace
	NoHostname   bool            // it can't be set in a namespace of our own
	NoScratch    bool            // no private TMPDIR can be made
	NoIDMap      map[uint64]bool // devices whose file system can't be id-mapped
	NoIDMapAt    map[string]bool // folders that could not be, maybe for what is mounted below them

	Files  map[string]FileInfo // what Look has seen
	Rootfs map[string]InRoot   // what LookIn has seen
	Mounts []string            // mount points, once an overlay may meet them
	Globs  map[string][]string // what Match has found
	live   bool                // Look may ask the kernel
	unseen error               // what Look could not see, for a reason that is not the path's own
}

// FileInfo is what a path named when it was looked at.
type FileInfo struct {
	Err      error  // why it could not be looked at
	Link     string // where its last component points to, if that is a symbolic link
	Real     string // the path with all links resolved; the rest is about it
	Mode     uint32 // st_mode
	UID, GID uint32
	Dev, Ino uint64
	Rdev     uint64   // of a device
	Entries  []string // of "/" alone
}

func (f FileInfo) isDir() bool { return f.Mode&unix.S_IFMT == unix.S_IFDIR }
func (f FileInfo) isDevice() bool {
	t := f.Mode & unix.S_IFMT
	return t == unix.S_IFCHR || t == unix.S_IFBLK
}

// Look returns what path names on the host. Each path is resolved once: what is done later is done to that file, and
// jail-init compares device and inode.
func (h *Host) Look(path string) FileInfo {
	f, seen := h.Files[path]
	if seen || !h.live {
		if !seen {
			f.Err = &os.PathError{Op: "lstat", Path: path, Err: unix.ENOENT}
		}
		return f
	}
	f = look(path)
	h.Files[path] = f
	if h.unseen == nil && f.Err != nil && !slices.Contains(ofPath, errnoOf(f.Err)) {
		h.unseen = f.Err
	}
	return f
}

// ofPath are the errnos that tell something of a path: what is not there is left out of a view. Others (no memory, no
// fds) do not say that it is not there.
var ofPath = []syscall.Errno{
	unix.ENOENT, unix.ENOTDIR, unix.EACCES, unix.ELOOP, unix.ENAMETOOLONG, unix.EIO, unix.ENOTCONN, unix.ESTALE, unix.EHOSTDOWN, unix.ETIMEDOUT,
}

func look(path string) (f FileInfo) {
	var st unix.Stat_t
	if f.Err = unix.Lstat(path, &st); f.Err != nil {
		f.Err = &os.PathError{Op: "lstat", Path: path, Err: f.Err}
		return f
	}
	if st.Mode&unix.S_IFMT == unix.S_IFLNK {
		if f.Link, f.Err = os.Readlink(path); f.Err != nil {
			return f
		}
	}
	f.Real = path
	if f.Link != "" || filepath.Dir(path) != "/" { // a plain entry of / needs no walk
		if f.Real, f.Err = filepath.EvalSymlinks(path); f.Err != nil {
			return f
		}
	}
	if f.Real != path {
		if f.Err = unix.Lstat(f.Real, &st); f.Err != nil {
			f.Err = &os.PathError{Op: "lstat", Path: f.Real, Err: f.Err}
			return f
		}
	}
	f.Mode, f.UID, f.GID, f.Dev, f.Ino = st.Mode, st.Uid, st.Gid, st.Dev, st.Ino
	f.Rdev = st.Rdev
	if f.Real == "/" {
		entries, _ := os.ReadDir("/")
		for _, e := range entries {
			f.Entries = append(f.Entries, e.Name())
		}
	}
	return f
}

// Match finds what matches a pattern on the host. Each is looked up once.
func (h *Host) Match(pattern string) ([]string, error) {
	found, seen := h.Globs[pattern]
	if seen || !h.live {
		return found, nil
	}
	found, err := glob(pattern)
	if err == nil {
		h.Globs[pattern] = found
	}
	return found, err
}

func (h *Host) capable(c uint) bool { return h.Caps>>c&1 == 1 }

// noIDMap says whether a folder can't be id-mapped, as far as is known.
func (h *Host) noIDMap(f FileInfo) bool { return h.NoMaps || h.NoIDMap[f.Dev] || h.NoIDMapAt[f.Real] }

// rootCaps are the capabilities that make root's way: namespaces, and another uid, without a user namespace.
const rootCaps = 1<<unix.CAP_SYS_ADMIN | otherUIDCaps

// otherUIDCaps let root's payload be another uid.
const otherUIDCaps = 1<<unix.CAP_SETUID | 1<<unix.CAP_SETGID | 1<<unix.CAP_SETPCAP | 1<<unix.CAP_KILL

// privileged says whether namespaces and other uids are to be had without a user namespace.
func (h *Host) privileged() bool { return h.Caps&rootCaps == rootCaps && !h.NoOwnUID }

// dropOwnUID gives up on a uid for this run alone. It returns whether uid 0 can go an ordinary user's way instead.
func (h *Host) dropOwnUID() bool {
	h.NoOwnUID, h.OwnUID, h.GuestUID = true, 0, h.UID == 0 && guestUID()
	return h.GuestUID
}

// uidMapped says whether a uid exists in our user namespace.
func uidMapped(uid int) bool {
	text, err := os.ReadFile("/proc/self/uid_map")
	if err != nil {
		return true // not known
	}
	for line := range strings.Lines(string(text)) {
		var inside, outside, n int
		if _, err := fmt.Sscan(line, &inside, &outside, &n); err == nil && uid >= inside && uid-inside < n {
			return true
		}
	}
	return false
}

// lacking names those of the capabilities that the caller does not have.
func (h *Host) lacking(caps uint64) string {
	return strings.Join(formatCapabilities(caps&^h.Caps), ", ")
}

// guestUID says whether our uid 0 is another than the host's, to whom the files of /proc/sys belong. Without a procfs
// it is taken for the host's.
func guestUID() bool {
	var fs unix.Statfs_t
	var st unix.Stat_t
	return unix.Statfs("/proc/sys", &fs) == nil && fs.Type == unix.PROC_SUPER_MAGIC && unix.Stat("/proc/sys", &st) == nil && st.Uid != 0
}

// goNOFILE is the soft limit as Go's start left it: see nofile.
var goNOFILE = func() (l syscall.Rlimit) {
	_ = syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l)
	return l
}()

// nofile is the caller's RLIMIT_NOFILE: from before Go raised it, unless the program has set it since.
func nofile() [2]uint64 {
	var l syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l) == nil && l != goNOFILE {
		return [2]uint64{l.Cur, l.Max}
	}
	return [2]uint64{uint64(C.jail_origin.nofile_soft), uint64(C.jail_origin.nofile_hard)}
}

// probe gathers the facts that cost a call or two. What the Spec does not need is left out.
func probe(s *Spec) (*Host, error) {
	h := &Host{
		UID: os.Geteuid(), GID: os.Getegid(), Environ: os.Environ(),
		Ignored: uint64(C.jail_origin.ignored), Mask: uint64(C.jail_origin.mask),
		Rlimits: map[string][2]uint64{"RLIMIT_NOFILE": nofile()},
		NoIDMap: map[uint64]bool{}, NoIDMapAt: map[string]bool{}, Files: map[string]FileInfo{}, Rootfs: map[string]InRoot{}, Globs: map[string][]string{}, live: true,
	}
	var err error
	if h.Kernel, err = kernelVersion(); err != nil {
		return nil, err
	}
	if h.Groups, err = os.Getgroups(); err != nil {
		return nil, os.NewSyscallError("getgroups", err)
	}
	if h.Cwd, err = os.Getwd(); err != nil && s.Process.Cwd == "" {
		return nil, err
	}
	if h.Caps, err = effectiveCaps(); err != nil {
		return nil, err
	}
	if h.UID == 0 && !h.privileged() {
		h.GuestUID = guestUID()
	}
	if len(s.CapAdd) > 0 || len(s.CapDrop) > 0 {
		h.Bounding = boundingCaps()
	}
	if h.Landlock, err = landlockABI(); err != nil {
		return nil, err
	}
	if s.hasNamespace(specs.MountNamespace) {
		h.MountNS = mountNamespace()
	}
	h.Children = unix.Access("/proc/thread-self/children", unix.R_OK) == nil
	if s.has(Home) || s.has(Workdir) {
		if u, err := user.LookupId(strconv.Itoa(h.UID)); err == nil {
			h.Home = u.HomeDir
		}
	}
	if s.has(Scratch) {
		h.Scratch = filepath.Join(os.TempDir(), scratchPrefix+strconv.Itoa(h.UID)+"-"+randomName())
	}
	h.probeCgroup(s)
	for _, l := range s.Process.Rlimits {
		if _, ok := h.Rlimits[l.Type]; ok {
			continue
		}
		var v unix.Rlimit
		if err := unix.Getrlimit(rlimitNumbers[l.Type], &v); err == nil {
			h.Rlimits[l.Type] = [2]uint64{v.Cur, v.Max}
		}
	}
	return h, nil
}

func randomName() string { return strings.ToLower(rand.Text()[:12]) }

func (s *Spec) has(k RuleKind) bool {
	for _, r := range s.View {
		if r.Kind == k {
			return true
		}
	}
	return false
}

// hasNamespace says whether the jail gets a namespace of a kind of its own.
func (s *Spec) hasNamespace(t specs.LinuxNamespaceType) bool {
	if t == specs.NetworkNamespace && s.HostNetwork {
		return false
	}
	for _, ns := range s.Linux.Namespaces {
		if ns.Type == t {
			return true
		}
	}
	return false
}

func kernelVersion() (v [2]int, err error) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return v, os.NewSyscallError("uname", err)
	}
	release := strings.SplitN(unix.ByteSliceToString(u.Release[:]), ".", 3)
	for i := 0; i < len(release) && i < 2; i++ {
		v[i], _ = strconv.Atoi(strings.TrimRightFunc(release[i], func(r rune) bool { return r < '0' || r > '9' }))
	}
	return v, nil
}

func effectiveCaps() (uint64, error) {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&hdr, &data[0]); err != nil {
		return 0, os.NewSyscallError("capget", err)
	}
	return uint64(data[0].Effective) | uint64(data[1].Effective)<<32, nil
}

func boundingCaps() (bounding uint64) {
	for c := range uintptr(64) {
		set, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, c, 0, 0, 0)
		if err != nil { // the first number that this kernel does not know
			break
		}
		bounding |= uint64(set) << c
	}
	return bounding
}

func mountNamespace() uint64 {
	var st unix.Stat_t
	if unix.Stat(ownMountNS, &st) != nil {
		return 0
	}
	return st.Ino
}

// mountPoints lists where something is mounted. A root file system alone does not need it.
func (h *Host) mountPoints() []string {
	if h.Mounts == nil && h.live {
		if b, err := os.ReadFile("/proc/self/mountinfo"); err == nil {
			h.Mounts = pointsOf(string(b))
		}
	}
	return h.Mounts
}

// pointsOf takes the mount points from the text of mountinfo. The kernel separates by one space and escapes that, tab,
// newline and backslash alone: all else that is white to Unicode is part of a name.
func pointsOf(text string) []string {
	var points []string
	for line := range strings.Lines(text) {
		if f := strings.Split(line, " "); len(f) > 4 {
			points = append(points, cgroup.Unescape(f[4]))
		}
	}
	return points
}

// ownMountNS names the mount namespace of whoever looks.
const ownMountNS = "/proc/self/ns/mnt"

// landlockABI asks for the kernel's Landlock. No answer is no "no": a jail would be weaker for it without a word.
func landlockABI() (int, error) {
	v, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	switch errno {
	case 0:
		return int(v), nil
	case unix.ENOSYS, unix.EOPNOTSUPP, unix.EPERM, unix.EACCES: // not built in, not among the LSMs, an outer filter's
		return 0, nil
	}
	return 0, os.NewSyscallError("landlock_create_ruleset", errno)
}

// rlimitNumbers maps OCI's names to the kernel's numbers, which amd64 and arm64 share.
var rlimitNumbers = map[string]int{
	"RLIMIT_CPU": unix.RLIMIT_CPU, "RLIMIT_FSIZE": unix.RLIMIT_FSIZE, "RLIMIT_DATA": unix.RLIMIT_DATA,
	"RLIMIT_STACK": unix.RLIMIT_STACK, "RLIMIT_CORE": unix.RLIMIT_CORE, "RLIMIT_RSS": unix.RLIMIT_RSS,
	"RLIMIT_NPROC": unix.RLIMIT_NPROC, "RLIMIT_NOFILE": unix.RLIMIT_NOFILE, "RLIMIT_MEMLOCK": unix.RLIMIT_MEMLOCK,
	"RLIMIT_AS": unix.RLIMIT_AS, "RLIMIT_LOCKS": unix.RLIMIT_LOCKS, "RLIMIT_SIGPENDING": unix.RLIMIT_SIGPENDING,
	"RLIMIT_MSGQUEUE": unix.RLIMIT_MSGQUEUE, "RLIMIT_NICE": unix.RLIMIT_NICE, "RLIMIT_RTPRIO": unix.RLIMIT_RTPRIO,
	"RLIMIT_RTTIME": unix.RLIMIT_RTTIME,
}
