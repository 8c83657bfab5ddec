//go:build linux

package integration

import (
	"fmt"
	"maps"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// vacuous says in the one form that is counted that a probe proves nothing on this host, and where else it is proven.
func vacuous(t *testing.T, why string) {
	t.Helper()
	t.Logf("vacuous here: %s", why)
}

// answersOf reads the lines of a probe: "WHAT ANSWER".
func answersOf(text string) map[string]string {
	m := map[string]string{}
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		m[strings.Join(f[:len(f)-1], " ")] = f[len(f)-1]
	}
	return m
}

// probe runs the tool of that name in the box's jail.
func (b *box) probe(flags []string, args ...string) map[string]string {
	b.t.Helper()
	return answersOf(b.ok(flags, append([]string{tool("probe")}, args...)...))
}

// bareProbe is probe without a jail.
func (b *box) bareProbe(args ...string) map[string]string {
	b.t.Helper()
	return answersOf(b.bare(append([]string{tool("probe")}, args...)...).stdout)
}

// refused complains of all answers that are none of the errnos.
func refused(t *testing.T, what string, got map[string]string, n int, errnos ...string) {
	t.Helper()
	if len(got) != n {
		t.Errorf("%s: %d answers, want %d: %v", what, len(got), n, got)
	}
	for call, answer := range got {
		if !slices.Contains(errnos, answer) {
			t.Errorf("%s: %s is %s", what, call, answer)
		}
	}
}

var containedOnly = []string{"contained"}

// P18: nothing is mounted, moved or unmounted, nor is the root changed.
func TestP18_MountFamily(t *testing.T) {
	each(t, containedOnly, func(t *testing.T, a arm) {
		b := newBox(t, a)
		refused(t, "contained", b.probe(nil, "mounts"), 12, "EPERM", "ENOSYS")
		// Without the filter the missing capabilities are left, which open_tree(2) does not ask for.
		if got := b.probe([]string{"--seccomp=baseline"}, "mounts"); got["open_tree"] != "ok" {
			t.Errorf("vacuous: without the filter open_tree is %s as well", got["open_tree"])
		}
		lower := newBox(t, arm{"namespaced", a.root})
		got := answersOf(lower.ok(nil, "unshare", "--map-root-user", "--mount", tool("probe"), "mounts"))
		for _, call := range []string{"open_tree", "fsopen", "mount", "fspick", "move_mount", "pivot_root", "chroot"} {
			if got[call] == "EPERM" || got[call] == "ENOSYS" {
				t.Errorf("vacuous: %s is %s at namespaced, too", call, got[call])
			}
		}
	})
}

// P29: memory of other processes is not advised on, moved or released.
func TestP29_OthersMemory(t *testing.T) {
	each(t, containedOnly, func(t *testing.T, a arm) {
		b := newBox(t, a)
		canary := strconv.Itoa(b.running(b.as("sleep", "60")).Process.Pid)
		want := map[string]string{ // there is no pidfd to go on with, and by pid the filter refuses it
			"pidfd_open": "ESRCH", "process_madvise": "EPERM", "process_mrelease": "EBADF", "migrate_pages": "EPERM", "move_pages": "EPERM",
		}
		if got := b.probe(nil, "others", canary); !maps.Equal(got, want) {
			t.Errorf("got %v", got)
		}
		for what, got := range map[string]map[string]string{
			"bare":  b.bareProbe("others", canary),
			"basic": newBox(t, arm{"basic", a.root}).probe(nil, "others", canary),
		} {
			if got["pidfd_open"] != "ok" || got["process_mrelease"] != "EINVAL" {
				t.Errorf("vacuous: %s: %v", what, got)
			}
			if got["migrate_pages"] == "ENOSYS" {
				vacuous(t, what+": the kernel has no migrate_pages and move_pages (CONFIG_NUMA); the filter is in seccomp's TestDefaultTable")
			} else if got["migrate_pages"] != "ok" || got["move_pages"] != "ok" {
				t.Errorf("vacuous: %s: %v", what, got)
			}
		}
	})
}

// P36: sockets are those of the listed families, and of netlink those of one protocol.
func TestP36_AddressFamilies(t *testing.T) {
	each(t, containedOnly, func(t *testing.T, a arm) {
		b := newBox(t, a)
		got := b.probe(nil, "families", "1")
		for family := range 61 {
			answer := got[fmt.Sprint("family ", family)]
			if allowed := slices.Contains([]int{1, 2, 10, 16}, family); allowed != (answer == "ok") || !allowed && answer != "EPERM" {
				t.Errorf("family %d is %s", family, answer)
			}
		}
		for call, want := range map[string]string{"uevent": "EPERM", "route": "ok", "pair": "ok", "pair-inet": "EPERM", "alg": "EPERM"} {
			if got[call] != want {
				t.Errorf("%s is %s, want %s", call, got[call], want)
			}
		}
		for what, got := range map[string]map[string]string{
			"bare":               b.bareProbe("families"),
			"--seccomp=baseline": b.probe([]string{"--seccomp=baseline"}, "families"),
		} {
			if got["uevent"] != "ok" || got["pair-inet"] != "EOPNOTSUPP" {
				t.Errorf("vacuous: %s: %v", what, got)
			}
			if got["alg"] == "EAFNOSUPPORT" {
				vacuous(t, what+": the kernel has no AF_ALG; the filter is in seccomp's TestDefaultTable")
			}
		}
	})
}

// P40: no new namespace of any kind.
func TestP40_NoNewNamespaces(t *testing.T) {
	kinds := []string{"--user", "--mount", "--uts", "--ipc", "--net", "--pid --fork", "--cgroup"}
	each(t, containedOnly, func(t *testing.T, a arm) {
		b := newBox(t, a)
		// The allow-list is one wall, the user namespace's own limit another: each is tried without the other.
		for _, flags := range [][]string{nil, {"--seccomp=baseline"}, {"--seccomp=unconfined"}} {
			for _, kind := range kinds {
				if o := b.run(flags, "sh", "-c", fmt.Sprintf("unshare %s true || unshare --map-root-user %s true", kind, kind)); o.code == 0 {
					t.Errorf("%q: unshare %s: %+v", flags, kind, o)
				}
			}
			if o := b.run(flags, jailPath, "run", "--level=namespaced", "--", "true"); o.code == 0 {
				t.Errorf("%q: a jail in the jail: %+v", flags, o)
			}
		}
		want := map[string]string{"unshare": "EPERM", "setns": "EPERM", "clone": "EPERM", "clone3": "ENOSYS"}
		if got := b.probe(nil, "namespaces"); !maps.Equal(got, want) {
			t.Errorf("got %v", got)
		}
		other := newBox(t, arm{"namespaced", a.root})
		if o := other.run(nil, "unshare", "--map-root-user", "--mount", "true"); o.code != 0 {
			t.Errorf("vacuous: it can't be done at namespaced either: %+v", o)
		}
	})
}

// P42: the clock is not set, by nobody at contained and by no ordinary user anywhere.
func TestP42_Clock(t *testing.T) {
	each(t, allLevels, func(t *testing.T, a arm) {
		b := newBox(t, a)
		got := b.probe(nil, "clocks")
		if a.level == "contained" {
			if got["clock_settime"] != "EPERM" {
				t.Errorf("clock_settime is %s", got["clock_settime"])
			}
			if open := b.probe([]string{"--seccomp=baseline"}, "clocks"); open["clock_settime"] != "EFAULT" {
				t.Errorf("vacuous: without the filter clock_settime is %s", open["clock_settime"])
			}
		}
		delete(got, "clock_settime") // looks at its pointer before it looks at who asks
		if a.root && a.level == "basic" {
			refused(t, "root at basic keeps its capabilities", got, 3, "EINVAL")
			return
		}
		refused(t, a.level, got, 3, "EPERM")
		bare := b.bareProbe("clocks")
		switch {
		case a.root && bare["adjtimex"] != "EINVAL":
			t.Errorf("vacuous: root can't set it either: %v", bare)
		case a.root && a.level != "contained":
			if got := b.probe([]string{"--cap-add", "SYS_TIME"}, "clocks"); got["adjtimex"] != "EINVAL" {
				t.Errorf("vacuous: --cap-add SYS_TIME: %v", got)
			}
		case !a.root:
			vacuous(t, "the kernel lets no ordinary user set the clock; root's arms prove the guard")
		}
		if host, inside := b.bare("readlink", "/proc/self/ns/time").stdout, b.ok(nil, "readlink", "/proc/self/ns/time"); host != inside {
			t.Errorf("a time namespace that nobody asked for: %s, the host's %s", inside, host)
		}
	})
}

// P46: the filters are on in every thread, and in what it starts: at contained two, below one.
func TestP46_FilterInEveryThread(t *testing.T) {
	each(t, userAndUp, func(t *testing.T, a arm) {
		b := newBox(t, a)
		want := "Seccomp:\t2\nSeccomp_filters:\t1\n"
		if a.level == "contained" {
			want = "Seccomp:\t2\nSeccomp_filters:\t2\n"
		}
		if got := b.ok(nil, tool("probe"), "threads"); got != strings.Repeat(want, 5) {
			t.Errorf("got %q", got)
		}
		none := strings.Repeat("Seccomp:\t0\nSeccomp_filters:\t0\n", 5)
		for what, got := range map[string]string{
			"bare":                 b.bare(tool("probe"), "threads").stdout,
			"--seccomp=unconfined": b.ok([]string{"--seccomp=unconfined"}, tool("probe"), "threads"),
		} {
			if got != none {
				t.Errorf("vacuous: %s: %q", what, got)
			}
		}
	})
}

// P47: calls by another ABI than the machine's own end the process.
func TestP47_OtherABIs(t *testing.T) {
	each(t, containedOnly, func(t *testing.T, a arm) {
		b := newBox(t, a)
		bare := b.bareProbe("abis")
		if len(bare) == 0 {
			vacuous(t, "this machine has one ABI; the filter is in seccomp's TestDefaultTable")
			return
		}
		if got := b.probe(nil, "abis"); got["i386"] != "SIGSYS" || got["x32"] != "SIGSYS" {
			t.Errorf("got %v", got)
		}
		if open := b.probe([]string{"--seccomp=baseline"}, "abis"); open["i386"] != bare["i386"] || open["x32"] != bare["x32"] {
			t.Errorf("vacuous: --seccomp=baseline: %v, bare %v", open, bare)
		}
		for abi, answer := range bare {
			if answer != "ok" {
				vacuous(t, "the kernel has no "+abi+" ("+answer+"); the filter is in seccomp's TestDefaultTable")
			}
		}
	})
}

// P48: the kernel reads 32 bits of an ioctl's number, and so does the filter (CVE-2019-10063).
func TestP48_HighBits(t *testing.T) {
	each(t, userAndUp, func(t *testing.T, a arm) {
		b := newBox(t, a)
		calls := []string{"TIOCSTI", "TIOCSTI+high", "TIOCLINUX"}
		got, bare := answersOf(b.ok(nil, tool("calls"), "baseline")), answersOf(b.bare(tool("calls"), "baseline").stdout)
		open := answersOf(b.ok([]string{"--seccomp=unconfined"}, tool("calls"), "baseline"))
		for _, call := range calls {
			if got[call] != "EPERM" {
				t.Errorf("%s is %s", call, got[call])
			}
			if bare[call] != "ENOTTY" || open[call] != "ENOTTY" { // stdin is no terminal: it came as far as that
				t.Errorf("vacuous: %s is %s bare, %s with --seccomp=unconfined", call, bare[call], open[call])
			}
		}
	})
}

// baselineCalls are refused from user up, listCalls at contained as well.
var (
	baselineCalls = []string{
		"add_key", "request_key", "keyctl", "bpf", "perf_event_open", "userfaultfd", "io_uring_setup", "io_uring_enter",
		"io_uring_register", "kexec_load", "kexec_file_load", "init_module", "finit_module", "delete_module", "open_by_handle_at",
	}
	listCalls = append([]string{
		"reboot", "swapon", "swapoff", "acct", "quotactl", "quotactl_fd", "iopl", "ioperm", "settimeofday", "clock_settime",
		"mount", "umount2", "pivot_root", "chroot", "unshare", "setns", "syslog", "process_madvise", "move_pages", "migrate_pages",
		"lookup_dcookie", "nfsservctl", "vhangup", "kcmp", "pidfd_getfd", "sethostname", "setdomainname", "fanotify_init", "mbind",
	}, baselineCalls...)
)

// P49: every number there is, and those that there are not: what no program needs is refused, what is unknown is ENOSYS. The
// filters of the levels between are those of user.
func TestP49_EveryNumber(t *testing.T) {
	names := callNumbers(t)
	each(t, []string{"user", "contained"}, func(t *testing.T, a arm) {
		b := newBox(t, a)
		most, calls := "500", baselineCalls
		if a.level == "contained" {
			most, calls = "1023", listCalls
		}
		got := b.probe(nil, "numbers", most)
		open := b.probe([]string{"--seccomp=unconfined"}, "numbers", "500")
		if n, _ := strconv.Atoi(most); len(got) != n+1 {
			t.Fatalf("%d answers", len(got))
		}
		told := 0
		for _, name := range calls {
			nr, ok := names[name]
			if !ok {
				continue // not on this machine
			}
			if answer := got[nr]; answer != "EPERM" && answer != "ENOSYS" {
				t.Errorf("%s is %s", name, answer)
			}
			if answer := open[nr]; answer != "EPERM" && answer != "ENOSYS" {
				told++
			}
		}
		if told < 8 { // others need capabilities, or are not in this kernel: they are in seccomp's tables
			t.Errorf("vacuous: without the filter only %d of them are answered otherwise", told)
		}
		for nr, answer := range got {
			if n, _ := strconv.Atoi(nr); n > 471 && answer != "ENOSYS" {
				t.Errorf("call %d, which nobody knows, is %s", n, answer)
			}
		}
	})
}

// callNumbers are the numbers of all calls on this machine, by name, as its C compiler knows them.
func callNumbers(t *testing.T) map[string]string {
	t.Helper()
	cmd := exec.Command(need(t, "gcc"), "-E", "-dM", "-include", "sys/syscall.h", "-x", "c", "/dev/null")
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	m := map[string]string{}
	for line := range strings.Lines(string(out)) {
		if f := strings.Fields(line); len(f) == 3 && strings.HasPrefix(f[1], "__NR_") {
			m[strings.TrimPrefix(f[1], "__NR_")] = f[2]
		}
	}
	if len(m) < 300 {
		t.Fatalf("the compiler knows %d calls", len(m))
	}
	return m
}

// P50: what is on stays on: a filter that allows all takes nothing back, and the personality can't be changed to one that
// weakens the layout of memory.
func TestP50_NothingIsLoosened(t *testing.T) {
	each(t, userAndUp, func(t *testing.T, a arm) {
		b := newBox(t, a)
		got := b.probe(nil, "loosen")
		want := map[string]string{
			"no_new_privs": "EINVAL", "securebits": "EPERM", "ambient": "EPERM", "disable": "EINVAL",
			"filter": "ok", "keyctl": "EPERM", "personality": "ok", "read-implies-exec": "ok",
		}
		if a.level == "contained" {
			want["personality"], want["read-implies-exec"] = "EPERM", "EPERM"
			if open := b.probe([]string{"--seccomp=baseline"}, "loosen"); open["personality"] != "ok" || open["read-implies-exec"] != "ok" {
				t.Errorf("vacuous: --seccomp=baseline: %v", open)
			}
		}
		if !maps.Equal(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
		if open := b.probe([]string{"--seccomp=unconfined"}, "loosen"); open["keyctl"] != "EOPNOTSUPP" {
			t.Errorf("vacuous: --seccomp=unconfined: %v", open)
		}
		if bare := b.bareProbe("loosen"); bare["keyctl"] != "EOPNOTSUPP" || bare["personality"] != "ok" {
			t.Errorf("vacuous: bare: %v", bare)
		}
	})
}

// P62: no real-time class, no higher priority, no better place in the queue of the OOM killer.
func TestP62_Priorities(t *testing.T) {
	each(t, userAndUp, func(t *testing.T, a arm) {
		b := newBox(t, a)
		refused(t, a.level, b.probe(nil, "priorities"), 5, "EPERM", "EACCES")
		if !a.root {
			vacuous(t, "the kernel gives an ordinary user no such priority; root's arms prove the guard")
			return
		}
		for what, got := range map[string]map[string]string{"bare": b.bareProbe("priorities"), "basic": newBox(t, arm{"basic", true}).probe(nil, "priorities")} {
			if got["ioprio"] != "ok" || got["nice"] != "ok" {
				t.Errorf("vacuous: %s: %v", what, got)
			}
			if got["fifo"] != "ok" || got["rr"] != "ok" {
				vacuous(t, what+": this cgroup has no real-time share (cpu.rt_runtime_us is 0)")
			}
			if got["oom_score_adj"] != "ok" {
				vacuous(t, what+": root has no CAP_SYS_RESOURCE to lower oom_score_adj with")
			}
		}
	})
}
