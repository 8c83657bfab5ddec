//go:build amd64 || arm64

package isolate

import (
	"errors"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// TestCompileCause: from the facts to who refused. What the facts do not tell is not guessed.
func TestCompileCause(t *testing.T) {
	at := func(op string, errno syscall.Errno) UnsupportedError {
		return UnsupportedError{Step: &StepError{Op: op, Errno: errno}, call: callOf[op]}
	}
	mount := func(fsType string, errno syscall.Errno) UnsupportedError {
		e := at("mount", errno)
		e.fsType = fsType
		return e
	}
	landlock := UnsupportedError{Missing: "Landlock", call: "landlock_create_ruleset"}
	answers := func(call string, errno syscall.Errno) map[string]syscall.Errno {
		return map[string]syscall.Errno{call: errno}
	}
	sysctl := func(name, value string) map[string]string { return map[string]string{name: value} }
	all := []string{"cgroup", "ipc", "mnt", "net", "pid", "user", "uts"}
	for _, c := range []struct {
		name  string
		err   UnsupportedError
		facts surroundings
		want  Layer
		says  string
	}{
		{"a limit of our own", at("clone3", unix.ENOSPC), surroundings{sysctls: sysctl("user.max_user_namespaces", "0")}, LayerSysctl, "user.max_user_namespaces is 0 here: root can raise it"},
		{"of the network's", at("unshare", unix.ENOSPC), surroundings{sysctls: sysctl("user.max_net_namespaces", "0")}, LayerSysctl, "user.max_net_namespaces is 0"},
		{"a limit further out", at("clone3", unix.ENOSPC), surroundings{sysctls: sysctl("user.max_user_namespaces", "100")}, LayerSysctl, "a user namespace around this one"},
		{"Debian's", at("clone", unix.EPERM), surroundings{sysctls: sysctl("kernel.unprivileged_userns_clone", "0")}, LayerSysctl, "kernel.unprivileged_userns_clone is 0"},
		{"does not bind root", at("clone", unix.EPERM), surroundings{root: true, sysctls: sysctl("kernel.unprivileged_userns_clone", "0")}, LayerMounts, "probably a chroot"},
		{"AppArmor's", at("clone", unix.EPERM), surroundings{userNS: true, sysctls: sysctl("kernel.apparmor_restrict_unprivileged_userns", "1")}, LayerSysctl, "kernel.apparmor_restrict_unprivileged_userns is 1"},
		{"AppArmor's at a later step", at("write", unix.EACCES), surroundings{userNS: true, sysctls: sysctl("kernel.apparmor_restrict_unprivileged_userns", "1")}, LayerSysctl, "kernel.apparmor_restrict_unprivileged_userns is 1"},
		{"a filter on clone", at("clone", unix.EPERM), surroundings{filtered: true, answers: answers("clone", unix.EPERM)}, LayerFilter, "answers clone with EPERM: the outer sandbox has to allow clone"},
		{"a filter goes before a sysctl", at("clone", unix.EPERM), surroundings{answers: answers("clone", unix.ENOSYS), sysctls: sysctl("kernel.unprivileged_userns_clone", "0")}, LayerFilter, "answers clone with ENOSYS"},
		{"no user namespaces in the kernel", at("clone3", unix.EINVAL), surroundings{namespaces: []string{"mnt", "pid"}}, LayerKernel, "CONFIG_USER_NS"},
		{"no network namespaces in it", at("unshare", unix.EINVAL), surroundings{namespaces: []string{"cgroup", "ipc", "mnt", "pid", "user", "uts"}}, LayerKernel, "CONFIG_NET_NS"},
		{"all are in it", at("clone3", unix.EINVAL), surroundings{namespaces: all}, "", ""},
		{"namespaces are not known", at("clone3", unix.EINVAL), surroundings{}, "", ""},
		{"no such file system", mount("devpts", unix.ENODEV), surroundings{}, LayerKernel, "the kernel has no devpts"},
		{"masked /proc", mount("proc", unix.EPERM), surroundings{covers: []string{"/proc/kcore"}}, LayerMounts, `covers parts of /proc ("/proc/kcore"), and what it hides a fresh one would show: --proc outer`},
		{"no /proc for a fresh one", mount("proc", unix.EPERM), surroundings{noProc: true}, LayerMounts, "mount -t proc none /proc"},
		{"a read-only /proc", mount("proc", unix.EPERM), surroundings{}, LayerMounts, "read-only or covered"},
		{"no /proc for the maps", at("write", unix.ENOENT), surroundings{noProc: true}, LayerMounts, "nothing is mounted at /proc"},
		{"chroot", at("clone", unix.EPERM), surroundings{chroot: true}, LayerMounts, "this is a chroot"},
		{"chroot to no mount point", at("pivot_root", unix.EINVAL), surroundings{chroot: true}, LayerMounts, "mount --bind puts it on itself"},
		{"the same, at the first step", at("mount attributes", unix.EINVAL), surroundings{chroot: true}, LayerMounts, "mount --bind puts it on itself"},
		{"uid 0 can't be mapped", at("write", unix.EPERM), surroundings{root: true}, LayerCapabilities, "CAP_SETFCAP"},
		{"Landlock around us", at("write", unix.EACCES), surroundings{userNS: true}, LayerLSM, "a security module (Landlock of an outer sandbox, AppArmor, SELinux) refuses it"},
		{"Landlock is off", landlock, surroundings{answers: answers("landlock_create_ruleset", 0)}, LayerLSM, "lsm="},
		{"no Landlock in the kernel", landlock, surroundings{answers: answers("landlock_create_ruleset", unix.ENOSYS)}, LayerKernel, "CONFIG_SECURITY_LANDLOCK"},
		{"a filter on Landlock", landlock, surroundings{filtered: true, answers: answers("landlock_create_ruleset", unix.EPERM)}, LayerFilter, "answers landlock_create_ruleset with EPERM"},
		{"a filter hides it", landlock, surroundings{filtered: true, lsms: "capability,landlock", answers: answers("landlock_create_ruleset", unix.ENOSYS)}, LayerFilter, "answers landlock_create_ruleset with ENOSYS"},
		{"one of both", landlock, surroundings{filtered: true, answers: answers("landlock_create_ruleset", unix.ENOSYS)}, LayerFilter, "or a seccomp filter"},
		{"not known, with a filter", at("new root", unix.EPERM), surroundings{filtered: true}, LayerFilter, "probably"},
		{"not known", at("new root", unix.EPERM), surroundings{}, "", ""},
		{"no error of the host's", at("new root", unix.ENOMEM), surroundings{filtered: true}, "", ""},
	} {
		got := c.facts.cause(&c.err)
		if says := got.Why + ": " + got.Remedy; got.Layer != c.want || !strings.Contains(says, c.says) {
			t.Errorf("%s: %s, %q; want %s, %q", c.name, got.Layer, says, c.want, c.says)
		}
	}
}

// TestHarmless: each call gets from this kernel what it is said to, and does nothing.
func TestHarmless(t *testing.T) {
	capable := (&Host{Caps: must1(effectiveCaps())}).capable(unix.CAP_SYS_ADMIN)
	for call := range harmless {
		if errno := answer(call, capable); errno != 0 {
			t.Errorf("%s: %v", call, errno)
		}
	}
	for op, call := range callOf {
		if _, ok := harmless[call]; !ok {
			t.Errorf("%s: %s has no harmless call", op, call)
		}
	}
}

func must1[T any](v T, err error) T {
	must(err)
	return v
}

// TestCause: what Compile refuses by itself has its cause too.
func TestCause(t *testing.T) {
	c := shell(patience(t), Namespaced, "true")
	withHost(t, c, func(h *Host) { h.Kernel = [2]int{4, 19} })
	var u *UnsupportedError
	if err := c.Run(); !errors.As(err, &u) || u.Cause.Layer != LayerKernel || u.Cause.Remedy == "" {
		t.Errorf("%v, %+v", err, u)
	}
}
