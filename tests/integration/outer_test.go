//go:build linux

package integration

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Jail inside other sandboxes: what each of them leaves of each level. docs/outer.md is made from these tables.

var update = flag.Bool("update", false, "write docs/outer.md anew")

// What a cell of the table may be, besides "LAYER: what the hint says" of a level that is refused.
const (
	works     = "works"
	outerProc = "works with --proc outer" // refused without it, for what is mounted
	noCgroup  = "cgroup: delegated"       // as everywhere where the caller has none; on a host without one, wherever a level needs it
)

// outer is a sandbox that jail runs in.
type outer struct {
	name  string // for people
	root  bool   // who is in it
	setUp bool   // only root can make it for an ordinary user
	cells [5]string
	wrap  func(t *testing.T, o *outer) []string // what goes before the command
}

// in is a way to write a wrap of fixed words; "BASE" in a word is the folder of these tests.
func in(words ...string) func(*testing.T, *outer) []string {
	return func(t *testing.T, _ *outer) []string {
		need(t, words[0])
		return words
	}
}

// mounting runs a script in a mount namespace of its own.
func mounting(script string) func(*testing.T, *outer) []string {
	return func(_ *testing.T, o *outer) []string {
		begin := ""
		if !o.root {
			begin = `set -- setpriv --reuid 65533 --regid 65533 --clear-groups "$@"` + "\n"
		}
		return []string{"unshare", "--mount", "--propagation", "private", "sh", "-ec", begin + script + "\n" + `exec "$@"`, "sh"}
	}
}

// dockerCaps are the capabilities that Docker leaves root.
const dockerCaps = "-all,+chown,+dac_override,+fowner,+fsetid,+kill,+net_bind_service,+net_raw,+setfcap,+setgid,+setpcap,+setuid,+sys_chroot,+mknod,+audit_write"

func filtered(words ...string) func(*testing.T, *outer) []string {
	return func(*testing.T, *outer) []string {
		return append(append([]string{tool("filter")}, words...), "--")
	}
}

// inJail is a jail around the jail.
func inJail(level string) func(*testing.T, *outer) []string {
	return func(t *testing.T, o *outer) []string {
		hasArm(t, arm{level, o.root})
		words := []string{jailPath, "run", "--level=" + level, "--workdir=/usr"}
		if level != "basic" {
			words = append(words, "--ro-bind", base)
		}
		return append(words, "--")
	}
}

const (
	needsUserNS   = "user-namespace: has to run jail as another user"
	needsCaps     = "capabilities: has to leave root CAP_KILL"
	inChroot      = "mounts: this is a chroot"
	noMountPoint  = "mounts: mount --bind puts it on itself"
	landlockAbove = "lsm: a security module (Landlock of an outer sandbox"
	noUserNS      = "sysctl: user.max_user_namespaces is 0 here: root can raise it"
	clone         = "seccomp: answers clone with EPERM"
)

var outers = []outer{
	{name: "none", cells: [5]string{works, works, works, works, works}, wrap: in("env")},
	{name: "none", root: true, cells: [5]string{works, works, works, works, works}, wrap: in("env")},
	{
		name: "bubblewrap (--unshare-all --ro-bind / / --proc /proc --dev /dev)", cells: [5]string{works, works, works, noCgroup, noCgroup},
		wrap: in("bwrap", "--unshare-all", "--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev"),
	},
	{
		name: "bubblewrap, the same", root: true, cells: [5]string{works, needsUserNS, needsUserNS, noCgroup, noCgroup},
		wrap: in("bwrap", "--unshare-all", "--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev"),
	},
	{name: "Docker's filter", cells: [5]string{works, works, clone, clone, clone}, wrap: filtered("docker")},
	{
		name: "Docker's filter and capabilities", root: true, cells: [5]string{works, works, clone, clone, clone},
		wrap: func(*testing.T, *outer) []string {
			return []string{"setpriv", "--bounding-set=" + dockerCaps, "--inh-caps=-all", tool("filter"), "docker", "--"}
		},
	},
	{
		name: "Docker's capabilities, without a filter", root: true, cells: [5]string{works, works, works, works, works},
		wrap: in("setpriv", "--bounding-set="+dockerCaps, "--inh-caps=-all"),
	},
	{name: "all capabilities but CAP_MKNOD", root: true, cells: [5]string{works, works, works, works, works}, wrap: in("setpriv", "--bounding-set=-mknod", "--inh-caps=-all")},
	{
		name: "all capabilities gone", root: true, cells: [5]string{works, needsCaps, needsCaps, needsCaps, needsCaps},
		wrap: in("setpriv", "--bounding-set=-all", "--inh-caps=-all"),
	},
	{
		name: "a read-only root", root: true, cells: [5]string{works, works, works, works, works},
		wrap: mounting("mount -o remount,bind,ro /; mount -t tmpfs none /dev/shm; mount --bind /run /run; mount -o remount,bind,ro /run"),
	},
	{
		name: "a folder that hides /proc", setUp: true, cells: [5]string{works, works, "mounts: mount a procfs there", noCgroup, noCgroup},
		wrap: mounting("mount -t tmpfs none /proc"),
	},
	{
		name: "a folder that hides /proc", root: true, cells: [5]string{works, works, works, noCgroup, noCgroup},
		wrap: mounting("mount -t tmpfs none /proc"),
	},
	{
		name: "a /proc with parts of it covered", setUp: true, cells: [5]string{works, works, outerProc, outerProc, outerProc},
		wrap: mounting("mount --bind /dev/null /proc/timer_list"),
	},
	{
		name: "chroot", setUp: true, cells: [5]string{works, works, inChroot, inChroot, inChroot},
		wrap: mounting(makeChroot),
	},
	{
		name: "chroot", root: true, cells: [5]string{works, works, noMountPoint, noMountPoint, inChroot},
		wrap: mounting(makeChroot),
	},
	{
		name: "chroot to a mount point", root: true, cells: [5]string{works, works, works, works, "mounts: a chroot, in which"},
		wrap: mounting(`mount --rbind / "$BASE/chroot"; set -- chroot "$BASE/chroot" "$@"`),
	},
	{
		name: "no user namespaces (user.max_user_namespaces is 0)", cells: [5]string{works, works, noUserNS, noUserNS, noUserNS},
		wrap: in("unshare", "-U", "-c", "--keep-caps", "sh", "-c",
			`echo 0 >/proc/sys/user/max_user_namespaces && exec setpriv --inh-caps=-all --ambient-caps=-all --bounding-set=-all --no-new-privs "$@"`, "sh"),
	},
	{name: "root of a user namespace, as in a rootless container", cells: [5]string{works, works, works, works, works}, wrap: in("unshare", "--user", "--map-root-user")},
	{
		name: "the same, where it has a /run to write to", cells: [5]string{works, works, works, works, works},
		wrap: in("unshare", "--user", "--map-root-user", "--mount", "sh", "-c", `mount -t tmpfs none /run && exec "$@"`, "sh"),
	},
	{name: "jail, level basic", cells: [5]string{works, works, works, works, works}, wrap: inJail("basic")},
	{name: "jail, level basic", root: true, cells: [5]string{works, works, works, works, works}, wrap: inJail("basic")},
	{name: "jail, level user", cells: [5]string{works, works, landlockAbove, landlockAbove, landlockAbove}, wrap: inJail("user")},
	{name: "jail, level user", root: true, cells: [5]string{works, works, landlockAbove, noCgroup, noCgroup}, wrap: inJail("user")},
	{name: "jail, level namespaced", cells: [5]string{works, works, works, noCgroup, noCgroup}, wrap: inJail("namespaced")},
	{name: "jail, level namespaced", root: true, cells: [5]string{works, works, works, noCgroup, noCgroup}, wrap: inJail("namespaced")},
	{name: "jail, level limited", cells: [5]string{works, works, works, noCgroup, noCgroup}, wrap: inJail("limited")},
	{name: "jail, level limited", root: true, cells: [5]string{works, works, works, noCgroup, noCgroup}, wrap: inJail("limited")},
	{name: "jail, level contained", cells: [5]string{works, works, clone, noCgroup, noCgroup}, wrap: inJail("contained")},
	{name: "jail, level contained", root: true, cells: [5]string{works, works, clone, noCgroup, noCgroup}, wrap: inJail("contained")},
}

// makeChroot makes a root that is no mount point, and goes there.
const makeChroot = `
mount -t tmpfs none "$BASE/chroot"
r="$BASE/chroot/root"
mkdir -p "$r/usr" "$r/etc" "$r/proc" "$r/sys" "$r/dev" "$r/run" "$r/tmp" "$r$BASE"
chmod 1777 "$r/tmp"
for d in usr etc proc sys dev; do mount --rbind "/$d" "$r/$d"; done
mount --rbind "$BASE" "$r$BASE"
for l in bin sbin lib lib32 lib64 libx32; do [ ! -L "/$l" ] || cp -d "/$l" "$r/$l"; done
set -- chroot "$r" "$@"`

// caller is who runs jail in the sandbox.
func (o *outer) caller() string {
	if o.root {
		return "root"
	}
	return "an ordinary user"
}

// inside runs a command in the sandbox.
func (o *outer) inside(t *testing.T, argv ...string) outcome {
	t.Helper()
	b := newBox(t, arm{"basic", o.root || o.setUp})
	cmd := b.as(append(o.wrap(t, o), argv...)...)
	cmd.Dir = "/"
	cmd.Env = append(slices.DeleteFunc(b.env, func(kv string) bool { return strings.HasPrefix(kv, "TMPDIR=") }), "BASE="+base, b.cookie)
	return b.finish(cmd)
}

// TestOuter: each level in each sandbox is given, and keeps what it promises, or is refused by the true cause.
func TestOuter(t *testing.T) {
	t.Parallel()
	makeOuterFiles(t)
	for i := range outers {
		o := &outers[i]
		t.Run(o.name+", "+o.caller(), func(t *testing.T) {
			t.Parallel()
			if (o.root || o.setUp) && !asRoot {
				t.Skip("host lacks: root")
			}
			o.check(t)
		})
	}
}

// closed is an ordinary user whom Debian's switch lets have no user namespace.
var closed = outer{
	name: "no user namespaces (kernel.unprivileged_userns_clone is 0)", wrap: in("env"),
	cells: [5]string{works, works, closedUserNS, closedUserNS, closedUserNS},
}

const closedUserNS = "sysctl: kernel.unprivileged_userns_clone is 0 here: root can set it to 1"

// TestOuterClosed closes user namespaces to ordinary users. That is for the whole machine, so it is done in the tests' own
// alone, and while no other test runs.
func TestOuterClosed(t *testing.T) {
	const sysctl = "/proc/sys/kernel/unprivileged_userns_clone"
	if cmdline, err := os.ReadFile("/proc/cmdline"); err != nil || !strings.Contains(string(cmdline), " jail_init=") {
		t.Skip("host lacks: a machine that is the tests' own (make vm-test)")
	}
	if !asRoot {
		t.Skip("host lacks: root")
	}
	makeOuterFiles(t)
	missing(arm{"namespaced", false}) // is asked once for all tests: before
	set := func(value string) {
		if err := os.WriteFile(sysctl, []byte(value), 0); err != nil {
			t.Fatal(err)
		}
	}
	set("0")
	defer set("1")
	closed.check(t)
}

// makeOuterFiles makes a file that no view shows, and a place for a chroot.
func makeOuterFiles(t *testing.T) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(base, "unseen"), []byte("unseen\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(base, "chroot"), 0o755); err != nil && !os.IsExist(err) {
		t.Fatal(err)
	}
}

type levelOf struct {
	Level, Error, Cause, Hint string
	Works                     bool
}

// check compares each level with its cell.
func (o *outer) check(t *testing.T) {
	said := o.inside(t, jailPath, "levels", "--json")
	var reports []levelOf
	if err := json.Unmarshal([]byte(said.stdout), &reports); err != nil || len(reports) != len(allLevels) {
		t.Fatalf("jail levels: %v: %+v", err, said)
	}
	for i, r := range reports {
		cell := o.cells[i]
		if missing(arm{r.Level, o.root}) != "" && i >= slices.Index(allLevels, "limited") && !r.Works && r.Cause == "cgroup" {
			continue // this host gives that caller no cgroup anywhere
		}
		switch cell {
		case works:
			if !r.Works {
				t.Errorf("%s does not work: %+v", r.Level, r)
				continue
			}
			o.keeps(t, r.Level)
		case outerProc:
			if r.Works || r.Cause != "mounts" || !strings.Contains(r.Hint, "--proc outer") {
				t.Errorf("%s: %+v", r.Level, r)
				continue
			}
			o.keeps(t, r.Level, "--proc", "outer")
		default:
			layer, says, _ := strings.Cut(cell, ": ")
			if r.Works || r.Cause != layer || !strings.Contains(r.Error+" "+r.Hint, says) {
				t.Errorf("%s: %+v, want %q", r.Level, r, cell)
			}
			// The error of a run says the same, and what works.
			run := o.inside(t, jailPath, "run", "--level="+r.Level, "--workdir=/usr", "--", "true")
			if run.code != 125 || !strings.Contains(run.stderr, says) || !strings.Contains(run.stderr, "the highest level that works here is ") {
				t.Errorf("%s: %+v", r.Level, run)
			}
		}
	}
}

// payload checks from inside what levels promise, and prints what of it is not so. $1 is the level, $2 a file outside of the
// view, $3 whether /proc is the outer one.
const payload = `
case $1 in
basic) exit 0;;
user) cat "$2" 2>/dev/null && echo "the file outside is read";;
*)
	[ ! -e "$2" ] || echo "the file outside is there"
	[ $PPID = 1 ] || echo "the parent is $PPID"
	n=0; for p in /proc/[0-9]*; do n=$((n + 1)); done
	[ "$3" = outer ] || [ $n -le 3 ] || echo "$n processes"
	n=$(grep -c : /proc/net/dev)
	[ "$n" = 1 ] && grep -q ' lo:' /proc/net/dev || echo "$n network devices"
	[ ! -w /proc/sys/kernel/core_pattern ] || echo "core_pattern can be written to";;
esac
[ "$(grep -E '^(CapPrm|CapEff|CapAmb):.0000000000000000$' /proc/self/status | wc -l)" = 3 ] || [ ! -e /proc/self/status ] || echo "capabilities"
exit 0`

// keeps runs a payload at a level, which looks at what the level promises.
func (o *outer) keeps(t *testing.T, level string, flags ...string) {
	t.Helper()
	argv := append([]string{jailPath, "run", "--level=" + level, "--workdir=/usr", "--result", "-", "--json"}, flags...)
	argv = append(argv, "--", "sh", "-c", payload, "sh", level, filepath.Join(base, "unseen"), strings.Join(flags, ""))
	if len(flags) > 0 {
		argv[len(argv)-1] = "outer"
	}
	run := o.inside(t, argv...)
	if run.code != 0 || run.stdout != "" {
		t.Errorf("%s %v: %+v", level, flags, run)
		return
	}
	var r struct {
		Given string   `json:"given_level"`
		Lost  []string `json:"lost_guarantees"`
	}
	line := run.stderr[strings.LastIndex(strings.TrimSpace(run.stderr), "\n")+1:]
	if err := json.Unmarshal([]byte(line), &r); err != nil || r.Given != level {
		t.Errorf("%s: %v: %s", level, err, run.stderr)
	}
	if len(flags) == 0 && len(r.Lost) > 0 || len(flags) > 0 && !slices.Equal(r.Lost, []string{"private-processes"}) {
		t.Errorf("%s %v: lost %v", level, flags, r.Lost)
	}
}

// TestOuterThreeDeep: a jail in a jail in a jail, at each level that lets one of its own kind in.
func TestOuterThreeDeep(t *testing.T) {
	t.Parallel()
	makeOuterFiles(t)
	for _, level := range []string{"basic", "user", "namespaced"} {
		for _, root := range []bool{true, false} {
			t.Run(arm{level, root}.String(), func(t *testing.T) {
				hasArm(t, arm{level, root})
				t.Parallel()
				twice := outer{root: root, wrap: func(t *testing.T, o *outer) []string {
					once := inJail(level)(t, o)
					return append(slices.Clone(once), once...)
				}}
				twice.keeps(t, level)
			})
		}
	}
}

// TestOuterAsInit: as PID 1 of a container jail run reaps the children that it gets from others, passes signals on, and ends
// as its payload does.
func TestOuterAsInit(t *testing.T) {
	each(t, allLevels, func(t *testing.T, a arm) {
		container := []string{"unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child", "--mount-proc", "--propagation", "private"}
		if a.root {
			container = append([]string{"unshare", "--mount"}, container[3:]...)
		} else if a.like() == "namespaced" && a.level != "namespaced" {
			return // the cgroup that was delegated is not that of root in a user namespace
		}
		b := newBox(t, a)
		run := func(script string) outcome {
			argv := append(slices.Clone(container), "sh", "-c", script, "sh", jailPath, "run", "--level="+a.level, "--workdir=/usr", "--timeout=30s", "--env", b.cookie, "--")
			return b.finish(b.as(argv...))
		}
		if o := run(`exec "$@" sh -c 'exit 7'`); o.code != 7 {
			t.Errorf("%+v", o)
		}
		// The payload at level basic ends the stranger and sees it: it waits until PID 1 has reaped it.
		if a.level == "basic" {
			o := run(`sleep 1000 & stranger=$!; exec "$@" sh -c 'kill $1; while [ -e "/proc/$1" ]; do sleep 0.01; done; exit 8' sh $stranger`)
			if o.code != 8 {
				t.Errorf("%+v", o)
			}
		}
		// A signal to PID 1 is the payload's.
		if o := run(`mkfifo ready; (read -r word <ready; kill -TERM 1) & exec "$@" sh -c 'trap "exit 9" TERM; echo ready; while :; do sleep 0.05; done' >ready`); o.code != 9 {
			t.Errorf("%+v", o)
		}
	})
}

// TestOuterChroot: a payload that is given CAP_SYS_CHROOT does not leave the chroot that jail runs in: it is refused there, and
// works elsewhere.
func TestOuterChroot(t *testing.T) {
	t.Parallel()
	if !asRoot {
		t.Skip("host lacks: root")
	}
	makeOuterFiles(t)
	around := outer{root: true, wrap: mounting(`mount --rbind / "$BASE/chroot"; set -- chroot "$BASE/chroot" "$@"`)}
	argv := []string{jailPath, "run", "--workdir=/usr", "--cap-add=SYS_CHROOT", "--", "true"}
	if run := around.inside(t, argv...); run.code != 125 || !strings.Contains(run.stderr, "a chroot") {
		t.Errorf("%+v", run)
	}
	none := outer{root: true, wrap: in("env")}
	if run := none.inside(t, argv...); run.code != 0 {
		t.Errorf("%+v", run)
	}
}

// TestOuterForeignLocks: a folder that somebody else has made, where root looks for one of its own, is not taken.
func TestOuterForeignLocks(t *testing.T) {
	t.Parallel()
	if !asRoot {
		t.Skip("host lacks: root")
	}
	makeOuterFiles(t)
	around := outer{root: true, wrap: mounting(`
		mount --bind /run /run; mount -o remount,bind,ro /run
		mkdir -p /run/jail 2>/dev/null || :
		mount -t tmpfs -o mode=1777 none /dev/shm; mkdir /dev/shm/jail; chown 65533 /dev/shm/jail`)}
	if run := around.inside(t, jailPath, "run", "--workdir=/usr", "--", "true"); run.code != 125 || !strings.Contains(run.stderr, "/run/jail") {
		t.Errorf("%+v", run)
	}
}

// TestOuterCalls: each way of the table, where a filter from outside really refuses the call; and calls for which there is
// no other way.
func TestOuterCalls(t *testing.T) {
	t.Parallel()
	makeOuterFiles(t)
	for _, c := range []struct {
		refused string
		level   string
		cell    string
	}{
		{"clone3=ENOSYS", "namespaced", works},
		{"memfd_create=ENOSYS", "namespaced", works},
		{"memfd_create=EPERM", "user", works},
		{"mount=EPERM", "namespaced", works},
		{"mount=ENOSYS", "namespaced", works},
		{"unshare=EPERM", "namespaced", works},
		{"setns=ENOSYS", "namespaced", works},
		{"sethostname=EPERM", "namespaced", works},
		{"landlock_create_ruleset=EPERM", "namespaced", works},
		{"landlock_create_ruleset=EPERM", "user", "seccomp: answers landlock_create_ruleset with EPERM"},
		{"fsopen=ENOSYS", "namespaced", "seccomp: answers fsopen with ENOSYS"},
		{"open_tree=EPERM", "namespaced", "seccomp: answers open_tree with EPERM"},
		{"mount_setattr=ENOSYS", "namespaced", "seccomp: answers mount_setattr with ENOSYS"},
		{"pivot_root=ENOSYS", "namespaced", "seccomp: answers pivot_root with ENOSYS"},
		{"pidfd_open=ENOSYS", "basic", "seccomp: answers pidfd_open with ENOSYS"},
		{"close_range=EPERM", "basic", "seccomp: answers close_range with EPERM"},
	} {
		for _, root := range []bool{true, false} {
			t.Run(c.refused+" "+arm{c.level, root}.String(), func(t *testing.T) {
				hasArm(t, arm{c.level, root})
				t.Parallel()
				o := outer{root: root, wrap: filtered(c.refused)}
				if c.cell == works {
					o.keeps(t, c.level)
					return
				}
				run := o.inside(t, jailPath, "run", "--level="+c.level, "--workdir=/usr", "--", "true")
				_, says, _ := strings.Cut(c.cell, ": ")
				if run.code != 125 || !strings.Contains(run.stderr, says) {
					t.Errorf("%+v", run)
				}
			})
		}
	}
}

// podmans are podman's default container, and the one setting that changes most.
var podmans = []outer{
	{name: "podman run", root: true, cells: [5]string{works, works, outerProc, noCgroup, noCgroup}, wrap: podman("0:0")},
	{name: "podman run --user 1000:1000", root: true, cells: [5]string{works, works, outerProc, noCgroup, noCgroup}, wrap: podman("1000:1000")},
	{name: "podman run --security-opt unmask=ALL", root: true, cells: [5]string{works, works, works, noCgroup, noCgroup}, wrap: podman("0:0", "--security-opt", "unmask=ALL")},
}

func podman(user string, flags ...string) func(*testing.T, *outer) []string {
	return func(t *testing.T, _ *outer) []string {
		dir := filepath.Join(base, "podman")
		words := []string{"unshare", "--mount", "--propagation", "private", "env", "CONTAINERS_CONF=" + dir + "/containers.conf", "podman", "--root", dir + "/store", "--runroot", dir + "/run", "run", "--rm", "--cgroup-parent", podmanCgroup(), "--user", user}
		return append(append(words, flags...), "--rootfs", dir+"/root")
	}
}

// podmanCgroup is where podman's cgroups are made; it leaves the folders.
func podmanCgroup() string { return "/" + filepath.Base(base) }

// TestOuterPodmanSweep: podman's containers.
func TestOuterPodmanSweep(t *testing.T) {
	if !sweep {
		t.Skip("only in test-full: JAIL_SWEEP=1")
	}
	if !asRoot {
		t.Skip("host lacks: root")
	}
	need(t, "podman")
	need(t, "runc")
	busybox := need(t, "busybox")
	makeOuterFiles(t)
	dir := filepath.Join(base, "podman")
	if out, err := exec.Command("sh", "-ec", `
		mkdir -p "$1/root/bin"; cd "$1/root"; mkdir proc sys dev etc run tmp usr
		chmod 1777 tmp
		mkdir -p ".$3"; cp "$3/jail" "$3/unseen" ".$3"
		cp "$2" bin; bin/busybox --install bin
		echo 'root:x:0:0::/:/bin/sh' >etc/passwd
		cat >"$1/containers.conf" <<-END
		[containers]
		default_ulimits=["nofile=1024:1024","nproc=1000:2000"]
		netns="none"
		[engine]
		cgroup_manager="cgroupfs"
		events_logger="file"
		runtime="runc"
		tmp_dir="$1/tmp"
		END`, "sh", dir, busybox, base).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	t.Cleanup(func() {
		left, _ := filepath.Glob("/sys/fs/cgroup/*" + podmanCgroup())
		for _, dir := range append(left, "/sys/fs/cgroup"+podmanCgroup()) {
			_ = exec.Command("find", dir, "-depth", "-type", "d", "-exec", "rmdir", "{}", ";").Run()
		}
	})
	for i := range podmans {
		t.Run(podmans[i].name, podmans[i].check)
	}
}

// TestOuterDocument: docs/outer.md is what these tables say.
func TestOuterDocument(t *testing.T) {
	path := filepath.Join("..", "..", "docs", "outer.md")
	if *update {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(outerDocument()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(text), outerDocument()); diff != "" {
		t.Errorf("go test ./tests/integration -run TestOuterDocument -update makes it anew (-is +should be)\n%s", diff)
	}
}

func outerDocument() string {
	var b strings.Builder
	b.WriteString(`# Jail inside other sandboxes

What each level is inside a sandbox that somebody else has made. The table is made from the tests of
` + "`tests/integration/outer_test.go`" + `, which run each cell: where a level works, a payload checks its files, processes,
network and capabilities from inside; where it does not, the error and ` + "`jail levels`" + ` name the layer that refused, and
the smallest change. Levels limited and contained need a cgroup besides: "cgroup" where the sandbox has none to give, and
on a host that gives the caller none, everywhere.

| in | as | ` + strings.Join(allLevels, " | ") + " |\n|---|---|" + strings.Repeat("---|", len(allLevels)) + "\n")
	for _, o := range slices.Concat(outers, []outer{closed}, podmans) {
		who := o.caller()
		if strings.Contains(o.name, "--user 1000") {
			who = "an ordinary user"
		}
		fmt.Fprintf(&b, "| %s | %s |", o.name, who)
		for _, cell := range o.cells {
			layer, _, refused := strings.Cut(cell, ": ")
			if refused {
				cell = "no: " + layer
			}
			fmt.Fprintf(&b, " %s |", cell)
		}
		b.WriteString("\n")
	}
	b.WriteString(`
The layers:

- **capabilities**: root without CAP_SETUID, CAP_SETGID, CAP_SETPCAP and CAP_KILL can't be another uid, and the host's root
  in a user namespace still owns /proc/sys. With these four, and without CAP_SYS_ADMIN, root's payload gets a uid of its own
  in a user namespace; folders of others are not id-mapped then: what is closed to others stays closed, and ` + "`--bind`" + ` of
  them is an error.
- **user-namespace**: the one around has the host's root in it and no other uid. Root of a namespace that is somebody else
  outside goes the way of an ordinary user.
- **seccomp**: a filter of the outer sandbox refuses the call that the hint names. With Docker and podman
  ` + "`--security-opt seccomp=FILE`" + ` gives another.
- **lsm**: Landlock of the outer sandbox, AppArmor or SELinux.
- **sysctl**: the setting that the hint names.
- **mounts**: no /proc, a chroot, or a /proc with parts of it covered. Of the last the kernel gives nobody a fresh one.
  ` + "`--proc outer`" + ` shows that /proc, read-only: names, arguments and states of the outer sandbox's processes are seen then,
  and the Result lists private-processes as lost. ` + "`podman run --security-opt unmask=ALL`" + ` covers nothing.
- **cgroup**: none that is delegated to the caller, or none to be seen.
`)
	return b.String()
}
