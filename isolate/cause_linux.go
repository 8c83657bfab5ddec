//go:build cgo && (amd64 || arm64)

package isolate

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// surroundings are facts about what is around us. They are gathered when a level could not be given, never before.
type surroundings struct {
	sysctls    map[string]string
	filtered   bool                     // a seccomp filter is loaded
	answers    map[string]syscall.Errno // of harmless calls to the kernel; 0 is its own answer
	lsms       string                   // of this kernel: "capability,landlock,yama"; "" is not known
	namespaces []string                 // the kinds that this kernel has: "user", "net"; nil is not known
	covers     []string                 // mount points below /proc
	noProc     bool                     // nothing at /proc is a procfs
	chroot     bool                     // / is no mount point
	setfcap    bool                     // the caller has CAP_SETFCAP
	root       bool                     // the caller is uid 0
	userNS     bool                     // the jail was to be born in a user namespace
}

// callOf is the system call that an operation fails by first.
var callOf = map[string]string{
	"clone3": "clone3", "clone": "clone", "unshare": "unshare", "setns": "setns", "mount": "mount", "new root": "fsopen",
	"bind": "open_tree", "sethostname": "sethostname", "mount attributes": "mount_setattr", "pivot_root": "pivot_root", "landlock ruleset": "landlock_create_ruleset",
	"make jail-init": "memfd_create", "write the Plan": "memfd_create", "pidfd_open": "pidfd_open", "duplicate fds": "close_range",
}

// harmless are calls that no kernel can do, and what it says of them before anything else. A filter that refuses the call
// answers otherwise.
var harmless = map[string]struct {
	number  uintptr
	args    [3]uintptr
	own     syscall.Errno
	capable bool // who has no CAP_SYS_ADMIN gets EPERM first
}{
	"clone3":                  {unix.SYS_CLONE3, [3]uintptr{}, unix.EINVAL, false},
	"clone":                   {unix.SYS_CLONE, [3]uintptr{unix.CLONE_NEWUSER | unix.CLONE_FS | unix.CLONE_SIGHAND}, unix.EINVAL, false},
	"unshare":                 {unix.SYS_UNSHARE, [3]uintptr{unix.CLONE_NEWUSER | unix.CLONE_PTRACE}, unix.EINVAL, false},
	"setns":                   {unix.SYS_SETNS, [3]uintptr{^uintptr(0)}, unix.EBADF, false},
	"mount":                   {unix.SYS_MOUNT, [3]uintptr{0, 0, 1}, unix.EFAULT, false},
	"open_tree":               {unix.SYS_OPEN_TREE, [3]uintptr{0, 0, 1 << 30}, unix.EINVAL, false},
	"mount_setattr":           {unix.SYS_MOUNT_SETATTR, [3]uintptr{0, 0, 1 << 30}, unix.EINVAL, false},
	"fsopen":                  {unix.SYS_FSOPEN, [3]uintptr{0, 1 << 30}, unix.EINVAL, true},
	"pivot_root":              {unix.SYS_PIVOT_ROOT, [3]uintptr{1, 1}, unix.EFAULT, true},
	"sethostname":             {unix.SYS_SETHOSTNAME, [3]uintptr{0, 1 << 30}, unix.EINVAL, true},
	"memfd_create":            {unix.SYS_MEMFD_CREATE, [3]uintptr{0, 1 << 30}, unix.EINVAL, false},
	"pidfd_open":              {unix.SYS_PIDFD_OPEN, [3]uintptr{1, 1 << 30}, unix.EINVAL, false},
	"close_range":             {unix.SYS_CLOSE_RANGE, [3]uintptr{1, 0}, unix.EINVAL, false},
	"landlock_create_ruleset": {unix.SYS_LANDLOCK_CREATE_RULESET, [3]uintptr{0, 0, 1 << 30}, unix.EINVAL, false},
}

// sysctls that close namespaces. The kernel's own limits count in each user namespace around us, too.
var sysctls = []string{
	"user.max_user_namespaces", "user.max_mnt_namespaces", "user.max_pid_namespaces", "user.max_net_namespaces",
	"user.max_ipc_namespaces", "user.max_uts_namespaces", "user.max_cgroup_namespaces",
	"kernel.unprivileged_userns_clone", "kernel.apparmor_restrict_unprivileged_userns",
}

// because adds the cause to an error that says that this host can't.
func (h *Host) because(err error) error {
	var e *UnsupportedError
	if errors.As(err, &e) && e.Cause == (Cause{}) {
		e.Cause = h.look(e).cause(e)
	}
	return err
}

// look gathers the facts that tell why an error came about.
func (h *Host) look(e *UnsupportedError) *surroundings {
	s := &surroundings{
		sysctls: map[string]string{}, answers: map[string]syscall.Errno{}, root: h.UID == 0,
		setfcap: h.capable(unix.CAP_SETFCAP), userNS: !h.privileged(), noProc: !isProc("/proc"),
	}
	for _, name := range sysctls {
		if text, err := os.ReadFile("/proc/sys/" + strings.ReplaceAll(name, ".", "/")); err == nil {
			s.sysctls[name] = strings.TrimSpace(string(text))
		}
	}
	status, _ := os.ReadFile("/proc/thread-self/status")
	s.filtered = strings.Contains(string(status), "\nSeccomp:\t2\n")
	if e.call != "" { // it has been made and has failed: whoever kills for it would have done so
		s.answers[e.call] = answer(e.call, h.capable(unix.CAP_SYS_ADMIN))
	}
	lsms, _ := os.ReadFile("/sys/kernel/security/lsm")
	s.lsms = strings.TrimSpace(string(lsms))
	kinds, _ := filepath.Glob("/proc/self/ns/*")
	for _, path := range kinds {
		s.namespaces = append(s.namespaces, filepath.Base(path))
	}
	points := h.mountPoints()
	s.chroot = len(points) > 0 && !slices.Contains(points, "/")
	for _, p := range points {
		if strings.HasPrefix(p, "/proc/") {
			s.covers = append(s.covers, p)
		}
	}
	return s
}

// answer is what a harmless call gets; 0 where that can be the kernel's own answer.
func answer(call string, capable bool) syscall.Errno {
	c := harmless[call]
	_, _, errno := syscall.RawSyscall6(c.number, c.args[0], c.args[1], c.args[2], 0, 0, 0)
	if errno == c.own || errno == unix.EPERM && c.capable && !capable || errno == unix.EOPNOTSUPP {
		return 0
	}
	return errno
}

func isProc(path string) bool {
	var fs unix.Statfs_t
	return unix.Statfs(path, &fs) == nil && fs.Type == unix.PROC_SUPER_MAGIC
}

// cause tells who refused, as far as the facts tell. It is pure, and does not guess: an errno that has several
// causes is explained by the one that shows itself.
func (s *surroundings) cause(e *UnsupportedError) Cause {
	call, op, errno := e.call, "", syscall.Errno(0)
	if e.Step != nil {
		op, errno = e.Step.Op, e.Step.Errno
	}
	born := op == "clone3" || op == "clone" || op == "unshare"
	switch refusal := s.answers[call]; {
	case call == "landlock_create_ruleset" && refusal == unix.ENOSYS && !(s.filtered && slices.Contains(strings.Split(s.lsms, ","), "landlock")):
		if s.filtered && s.lsms == "" {
			return Cause{LayerFilter, "the kernel has no Landlock, or a seccomp filter from outside hides it", "the kernel needs CONFIG_SECURITY_LANDLOCK, the filter has to allow landlock_create_ruleset, landlock_add_rule and landlock_restrict_self"}
		}
		return Cause{LayerKernel, "the kernel has no Landlock", "it needs CONFIG_SECURITY_LANDLOCK"}
	case refusal != 0:
		return Cause{LayerFilter, fmt.Sprintf("a seccomp filter from outside answers %s with %s", call, errnoName(refusal)), "the outer sandbox has to allow " + call + " (--security-opt seccomp=FILE of docker and podman)"}
	case call == "landlock_create_ruleset":
		return Cause{LayerLSM, "Landlock is off", "add landlock to the kernel's parameter lsm="}
	case born && errno == unix.ENOSPC:
		for _, name := range sysctls {
			if s.sysctls[name] == "0" {
				return Cause{LayerSysctl, "the sysctl " + name + " is 0 here", "root can raise it"}
			}
		}
		return Cause{LayerSysctl, "a limit on namespaces is reached, maybe that of a user namespace around this one", "whoever made the outer sandbox can raise user.max_user_namespaces and its like there"}
	case born && errno == unix.EINVAL:
		for _, kind := range []string{"user", "mnt", "pid", "net", "ipc", "uts", "cgroup"} {
			if s.namespaces != nil && !slices.Contains(s.namespaces, kind) {
				return Cause{LayerKernel, "the kernel has no " + kind + " namespaces", "it needs CONFIG_" + strings.ToUpper(kind) + "_NS"}
			}
		}
	case errno == unix.ENODEV && e.fsType != "":
		return Cause{LayerKernel, "the kernel has no " + e.fsType, "it has to be built with it, or the module loaded"}
	case s.noProc && errno == unix.ENOENT:
		return Cause{LayerMounts, "nothing is mounted at /proc here", "mount a procfs there: mount -t proc none /proc"}
	case born && errno == unix.EPERM && !s.root && s.sysctls["kernel.unprivileged_userns_clone"] == "0":
		return Cause{LayerSysctl, "the sysctl kernel.unprivileged_userns_clone is 0 here", "root can set it to 1"}
	case (errno == unix.EPERM || errno == unix.EACCES) && s.userNS && !s.root && s.sysctls["kernel.apparmor_restrict_unprivileged_userns"] == "1":
		return Cause{LayerSysctl, "the sysctl kernel.apparmor_restrict_unprivileged_userns is 1 here", "root can give this program an AppArmor profile with userns, or set it to 0"}
	case born && errno == unix.EPERM && s.chroot:
		return Cause{LayerMounts, "this is a chroot, in which the kernel makes no user namespaces", "whoever made it can use pivot_root instead, as bwrap --bind DIR / does"}
	case (op == "pivot_root" || op == "mount attributes") && errno == unix.EINVAL && s.chroot:
		return Cause{LayerMounts, "this is a chroot to a folder that is no mount point", "mount --bind puts it on itself first"}
	case e.fsType == "proc" && errno == unix.EPERM && s.noProc:
		return Cause{LayerMounts, "no procfs is mounted at /proc here, and the kernel shows a fresh one only to who sees one", "mount a procfs there: mount -t proc none /proc"}
	case e.fsType == "proc" && errno == unix.EPERM && len(s.covers) > 0:
		return Cause{LayerMounts, fmt.Sprintf("the outer sandbox covers parts of /proc (%s), and what it hides a fresh one would show", quoteAll(s.covers)), "--proc outer shows the processes of the outer sandbox instead; or that leaves /proc bare (podman run --security-opt unmask=ALL)"}
	case e.fsType == "proc" && errno == unix.EPERM:
		return Cause{LayerMounts, "the /proc that is mounted here is read-only or covered, and the kernel gives no more than that", "--proc outer shows the processes of the outer sandbox instead"}
	case op == "write" && errno == unix.EPERM && s.root && !s.setfcap:
		return Cause{LayerCapabilities, "uid 0 can't be mapped without CAP_SETFCAP", "the outer sandbox has to give CAP_SETFCAP"}
	case errno == unix.EACCES:
		return Cause{LayerLSM, "a security module (Landlock of an outer sandbox, AppArmor, SELinux) refuses it", "the outer sandbox has to run this program without it"}
	case born && errno == unix.EPERM: // which the kernel itself says for nothing else
		return Cause{LayerMounts, "this is probably a chroot, in which the kernel makes no user namespaces", "whoever made it can use pivot_root instead, as bwrap --bind DIR / does"}
	case s.filtered && (errno == unix.EPERM || errno == unix.ENOSYS):
		return Cause{LayerFilter, "a seccomp filter from outside is loaded, which probably refuses it", "the outer sandbox has to allow it (--security-opt seccomp=FILE of docker and podman)"}
	}
	return Cause{}
}

// errnoName is EPERM or ENOSYS, the two that filters answer with, or the kernel's text.
func errnoName(e syscall.Errno) string {
	if name := unix.ErrnoName(e); name != "" {
		return name
	}
	return e.Error()
}
