//go:build linux

package integration

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// limitedUp are the levels that have a cgroup.
var limitedUp = []string{"limited", "contained"}

// P55: who allocates without end is killed, the Result says why, and the launcher lives.
func TestP55_MemoryHog(t *testing.T) {
	each(t, limitedUp, func(t *testing.T, a arm) {
		b := newBox(t, a)
		r, o := b.result([]string{"--memory", "48M"}, tool("burn"), "hog", "512")
		if o.code != 128+int(syscall.SIGKILL) || r.Reason != "memory" || r.Signal != "SIGKILL" || r.ExitCode != -1 ||
			!slices.Contains(r.LimitsHit, "memory") || r.OOMKills < 1 {
			t.Errorf("a hog: %+v, %+v", r, o)
		}
		if r.PeakMemory < 44<<20 || r.PeakMemory > 48<<20 {
			t.Errorf("its peak was %d", r.PeakMemory)
		}
		// Below the limit it lives, and the next jail does not see what an earlier one has done.
		r, o = b.result([]string{"--memory", "48M"}, tool("burn"), "hog", "30")
		if o.stdout != "had it\n" || r.Reason != "exited" || len(r.LimitsHit) != 0 || r.OOMKills != 0 {
			t.Errorf("below the limit: %+v, %+v", r, o)
		}
		bare := b.bare(tool("burn"), "hog", "512")
		if bare.stdout != "had it\n" {
			t.Errorf("bare: %+v", bare)
		}
	})
}

// P55: a child that is killed for its memory is told of, whatever the payload itself makes of it.
func TestP55_MemoryHogChild(t *testing.T) {
	each(t, limitedUp, func(t *testing.T, a arm) {
		b := newBox(t, a)
		r, o := b.result([]string{"--memory", "48M"}, "sh", "-c", tool("burn")+" hog 512; exit 7")
		if r.OOMKills < 1 || !slices.Contains(r.LimitsHit, "memory") {
			t.Errorf("%+v, %+v", r, o)
		}
		if ended := r.Reason == "exited" && o.code == 7; !ended && !(r.Reason == "memory" && o.code == 137) {
			t.Errorf("%+v, %+v", r, o)
		}
	})
}

// P55: a jail that is killed for want of memory outside says so, and blames its own limit only where that was hit.
func TestP55_OuterMemoryLimit(t *testing.T) {
	each(t, limitedUp, func(t *testing.T, a arm) {
		b := newBox(t, a)
		flags := []string{"--cgroup-parent", b.outerCgroup(48 << 20), "--memory"}
		r, o := b.result(append(flags, "256M"), tool("burn"), "hog", "512")
		if o.code != 128+int(syscall.SIGKILL) || r.Reason != "signalled" || r.Signal != "SIGKILL" || len(r.LimitsHit) != 0 || r.OOMKills < 1 {
			t.Errorf("the outer limit: %+v, %+v", r, o)
		}
		r, o = b.result(append(flags, "24M"), tool("burn"), "hog", "512")
		if o.code != 128+int(syscall.SIGKILL) || r.Reason != "memory" || !slices.Contains(r.LimitsHit, "memory") {
			t.Errorf("its own limit: %+v, %+v", r, o)
		}
	})
}

// On v1 somebody may have given an ordinary user a cgroup in each hierarchy; jail-init enters the jail's by itself.
func TestCgroupDelegatedV1(t *testing.T) {
	if _, err := os.Stat("/sys/fs/cgroup/memory/tasks"); err != nil || !asRoot {
		t.Skip("host lacks: cgroup v1, and root, who can delegate there")
	}
	for _, level := range []string{"limited", "contained"} {
		b := newBox(t, arm{level, false})
		flags := []string{"--cgroup-parent", b.outerCgroup(1 << 30), "--memory", "48M", "--pids-limit", "3"}
		if r, o := b.result(flags, tool("burn"), "forks", "10"); o.stdout != "forks 2 EAGAIN\n" {
			t.Errorf("%s: %+v, %+v", level, r, o)
		}
		if r, o := b.result(flags, tool("burn"), "hog", "512"); r.Reason != "memory" {
			t.Errorf("%s: %+v, %+v", level, r, o)
		}
	}
}

// outerCgroup makes a cgroup of the caller's for --cgroup-parent that is limited to so many bytes: in the root, or below
// what was delegated to an ordinary user.
func (b *box) outerCgroup(memory int) (path string) {
	t := b.t
	t.Helper()
	path = fmt.Sprintf("/test-%d-%s", os.Getpid(), filepath.Base(filepath.Dir(b.tmp)))
	const root = "/sys/fs/cgroup"
	dirs, files := []string{root}, map[string]string{"memory.max": strconv.Itoa(memory), "memory.swap.max": "0"}
	if _, err := os.Stat(root + "/cgroup.controllers"); err != nil {
		dirs, files = nil, map[string]string{"memory.limit_in_bytes": strconv.Itoa(memory)}
		for _, h := range []string{"memory", "freezer", "pids", "cpu", "cpuacct"} {
			dirs = append(dirs, filepath.Join(root, h))
		}
	} else if !asRoot {
		own, err := os.ReadFile("/proc/self/cgroup")
		if err != nil {
			t.Fatal(err)
		}
		path = filepath.Dir(strings.TrimPrefix(strings.TrimSpace(string(own)), "0::")) + path
	}
	for _, dir := range dirs {
		dir += path
		if err := os.Mkdir(dir, 0o755); errors.Is(err, os.ErrExist) {
			continue // controllers that share a hierarchy
		} else if errors.Is(err, os.ErrPermission) && !asRoot { // an ordinary user's login beside the cgroups of its systemd
			t.Skipf("host lacks: a cgroup that the caller may make others beside: %v", err)
		} else if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { eventually(t, dir+" goes", func() bool { return os.Remove(dir) == nil }) })
		for _, path := range []string{dir, dir + "/cgroup.procs", dir + "/tasks"} {
			if _, err := os.Stat(path); err == nil {
				b.give(path)
			}
		}
	}
	for file, value := range files {
		err := os.WriteFile(filepath.Join(dirs[0]+path, file), []byte(value), 0)
		if err != nil && !errors.Is(err, os.ErrNotExist) { // no swap accounting
			t.Fatal(err)
		}
	}
	return path
}

// P54: a fork bomb comes to its end at the limit, which does not count jail's own process.
func TestP54_ForkBomb(t *testing.T) {
	each(t, limitedUp, func(t *testing.T, a arm) {
		b := newBox(t, a)
		for _, limit := range []int{1, 2, 10, 100} {
			r, o := b.result([]string{"--pids-limit", strconv.Itoa(limit)}, tool("burn"), "forks", "500")
			want := fmt.Sprintf("forks %d EAGAIN\n", limit-1)
			if o.stdout != want || !slices.Contains(r.LimitsHit, "pids") || r.Reason != "exited" {
				t.Errorf("--pids-limit %d: %+v, %+v", limit, r, o)
			}
		}
		if !slices.ContainsFunc(timeLimits, func(limit string) bool {
			r, _ := b.result([]string{"--pids-limit", "50", "--timeout", limit}, "sh", "-c", "bomb() { bomb | bomb & }; bomb; sleep 60")
			return slices.Contains(r.LimitsHit, "pids")
		}) {
			t.Error("a bomb does not come to the limit")
		}
		// There is a limit without a word, too.
		if r, o := b.result(nil, tool("burn"), "forks", "1500"); o.stdout != "forks 1023 EAGAIN\n" {
			t.Errorf("the default: %+v, %+v", r, o)
		}
		if o := b.bare(tool("burn"), "forks", "100"); o.stdout != "forks 100 \n" {
			t.Errorf("bare: %+v", o)
		}
	})
}

// P58: CPU time is that of all processes together: RLIMIT_CPU, which counts each alone, can't bound a tree.
func TestP58_CPUTime(t *testing.T) {
	each(t, limitedUp, func(t *testing.T, a arm) {
		b := newBox(t, a)
		r, o := b.result([]string{"--cpu-time", "400ms", "--timeout", "1m"}, tool("burn"), "cpu", "4")
		if o.code != 124 || r.Reason != "cpu-time" || !slices.Contains(r.LimitsHit, "cpu-time") {
			t.Errorf("%+v, %+v", r, o)
		}
		if used := r.User + r.System; used < 400 || used > 1500 { // what it uses before it is seen, on a slow machine
			t.Errorf("it used %.1f ms", used)
		}
		r, o = b.result([]string{"--cpu-time", "1m"}, "sh", "-c", "sleep 0.2; exit 3")
		if o.code != 3 || r.Reason != "exited" || len(r.LimitsHit) > 0 {
			t.Errorf("one that sleeps: %+v, %+v", r, o)
		}
	})
}

// P58: --cpus bounds how fast CPU time is used up.
func TestP58_CPUs(t *testing.T) {
	each(t, limitedUp, func(t *testing.T, a arm) {
		b := newBox(t, a)
		r, o := b.result([]string{"--cpus", "0.2", "--timeout", "2s"}, tool("burn"), "cpu", "2")
		// And what a slice of the quota is; less on a busy machine, which may also end it late.
		if used := r.User + r.System; used < 5 || used > 0.2*r.WallMS+300 {
			t.Errorf("in %.0f ms of a fifth of a CPU it used %.0f ms: %+v, %+v", r.WallMS, used, r, o)
		}
	})
}

// --cpuset bounds which CPUs.
func TestCPUSet(t *testing.T) {
	each(t, limitedUp, func(t *testing.T, a arm) {
		b := newBox(t, a)
		first := parseStatus(b.bare("cat", "/proc/self/status").stdout)["Cpus_allowed_list"][:1]
		o := b.run([]string{"--cpuset", first}, "cat", "/proc/self/status")
		if strings.Contains(o.stderr, "cpuset") {
			t.Skip("host lacks: a cpuset controller in that place: " + o.stderr)
		}
		if got := parseStatus(o.stdout)["Cpus_allowed_list"]; got != first {
			t.Errorf("the CPUs are %q, want %q: %+v", got, first, o)
		}
		if o := b.run([]string{"--cpuset", "4000"}, "true"); o.code != 125 || !strings.Contains(o.stderr, "cpuset") {
			t.Errorf("CPUs that are not there: %+v", o)
		}
	})
}

// P52, P53: the payload sees its cgroup as the root, can't raise its limits, and makes none below: also not through a
// mount of the hierarchies in a user and a cgroup namespace of its own, where an ordinary user's payload has the uid that
// owns the cgroup.
func TestP52_P53_CgroupIsNotTheirs(t *testing.T) {
	// Each hierarchy that it is in, by its controllers, and the unified one.
	const attack = `for c in $(cut -d: -f2 /proc/self/cgroup | grep -v name=) cgroup2; do
	case $c in cgroup2) mount -t cgroup2 c $M;; *) mount -t cgroup -o $c c $M;; esac 2>/dev/null || continue
	for f in $M/pids.max $M/memory.max $M/memory.limit_in_bytes; do
		[ ! -e $f ] || ! cat $f >$f 2>/dev/null || echo "wrote ${f##*/}"
	done
	mkdir $M/jail-probe 2>/dev/null && rmdir $M/jail-probe && echo made
	umount $M
done; echo tried`
	inside := []string{"unshare", "--map-root-user", "--mount", "--cgroup", "sh", "-c", "M=/tmp/m; mkdir $M; " + attack}
	each(t, limitedUp, func(t *testing.T, a arm) {
		b := newBox(t, a)
		flags := []string{"--memory", "64M"}
		for _, line := range strings.Split(strings.TrimSpace(b.ok(flags, "cat", "/proc/self/cgroup", "/proc/1/cgroup")), "\n") {
			fields := strings.SplitN(line, ":", 3)
			if name := fields[len(fields)-1]; strings.Contains(name, "jail") {
				t.Errorf("a host's name is seen: %s", line)
			}
		}
		b.sh(nil, "test -z \"$(find /sys/fs/cgroup -mindepth 1 2>/dev/null | head -n 1)\"")
		if o := b.run(flags, inside...); o.stdout != "tried\n" && !(o.stdout == "" && strings.Contains(o.stderr, "unshare")) {
			t.Errorf("%+v", o)
		}
		for _, name := range []string{"..", ".", "a/b", "/a", ""} {
			if o := b.run([]string{"--name", name}, "echo", "started"); o.code != 125 || o.stdout != "" {
				t.Errorf("--name %q: %+v", name, o)
			}
		}
		// Without a jail its own cgroups are the caller's, and without a cgroup namespace of one's own there is nothing to
		// keep from them (at namespaced: for an ordinary user that owns its cgroup).
		mountpoint := b.mkdir("m", 0o755)
		bare := b.bare("unshare", "--map-root-user", "--mount", "--cgroup", "sh", "-c", "M="+mountpoint+"; "+attack)
		lower := newBox(t, arm{"namespaced", a.root}).run(nil, inside...)
		if !strings.Contains(bare.stdout, "made") || !a.root && !strings.Contains(lower.stdout, "made") {
			vacuous(t, fmt.Sprintf("the caller owns none of its cgroups: bare %q, namespaced %q", bare.stdout, lower.stdout))
		}
	})
}

// A jail in an ordinary user's jail that has a cgroup finds no cgroup namespace left, and does with the outer one.
func TestNestedInLimited(t *testing.T) {
	each(t, []string{"limited"}, func(t *testing.T, a arm) {
		b := newBox(t, a)
		inner := []string{jailPath, "run", "--ro-bind", jailPath, "--", "sh", "-c", "cut -d: -f3 /proc/self/cgroup | sort -u; hostname"}
		if got := b.ok([]string{"--ro-bind", jailPath}, inner...); got != "/\njail\n" {
			t.Errorf("got %q", got)
		}
	})
}

// P75: after each end there is no cgroup of ours; one that a killed launcher left goes with jail gc, or when another
// jail of that name starts.
func TestP75_NoCgroupLeft(t *testing.T) {
	each(t, limitedUp, func(t *testing.T, a arm) {
		b := newBox(t, a)
		name := fmt.Sprintf("test-%d-%s", os.Getpid(), strings.ReplaceAll(a.String(), "/", "-"))
		inScope := false // of systemd, which removes it by itself
		for _, c := range [][]string{
			{"true"}, {"false"}, {"sh", "-c", "kill -9 $$"}, {"no-such-command"}, {"sh", "-c", "setsid sleep 300 & exit 0"},
		} {
			b.run([]string{"--name", name}, c...)
			if left := cgroupsNamed("jail-" + name); len(left) > 0 {
				t.Errorf("%q left %v", c, left)
			}
		}
		kill := func() {
			for range 5 {
				cmd := b.running(b.command([]string{"--name", name}, "sleep", "300"))
				initOf(t, cmd.Process.Pid)
				if o := b.run([]string{"--name", name}, "true"); o.code != 125 || !strings.Contains(o.stderr, name) || !strings.Contains(o.stderr, "in use") {
					t.Errorf("a second one of that name: %+v", o)
				}
				inScope = len(cgroupsNamed("jail-"+name+".scope")) > 0
				_ = cmd.Process.Kill()
				eventually(t, "its jail is dead", func() bool { return len(pidsWith(b.cookie)) == 0 })
				if inScope || len(cgroupsNamed("jail-"+name)) > 0 {
					return
				} // another test's gc may have been faster
			}
			t.Error("a killed launcher's cgroup is gone by itself: the test is blind")
		}
		kill()
		if o := b.run([]string{"--name", name}, "true"); o.code != 0 || len(cgroupsNamed("jail-"+name)) > 0 {
			t.Errorf("the next start: %+v, left %v", o, cgroupsNamed("jail-"+name))
		}
		for n := 1; ; n++ {
			kill()
			other := b.running(b.command([]string{"--name", name + "-lives"}, "sleep", "300"))
			initOf(t, other.Process.Pid)
			o := b.finish(b.as(jailPath, "gc"))
			eventually(t, "its cgroup is gone", func() bool { return len(cgroupsNamed("jail-"+name)) == 0 })
			if len(cgroupsNamed("jail-"+name+"-lives")) == 0 {
				t.Error("gc took a living one")
			}
			if o.code == 0 && (inScope || strings.Contains(o.stdout, "jail-"+name+"\n")) {
				break
			}
			if o.code != 0 || n == 5 { // another test's may have been faster
				t.Fatalf("gc: %+v", o)
			}
			_ = other.Process.Kill()
			eventually(t, "the other is dead", func() bool { return len(pidsWith(b.cookie)) == 0 })
		}
	})
}

// cgroupsNamed lists the cgroups of a name in all hierarchies.
func cgroupsNamed(name string) []string {
	var found []string
	_ = filepath.WalkDir("/sys/fs/cgroup", func(path string, d os.DirEntry, err error) error {
		if err == nil && d.IsDir() && d.Name() == name {
			found = append(found, path)
		}
		return nil
	})
	return found
}

// What jail reports is what the payload has measured of itself: CPU time to 2 % or 2 ms, memory to 2 % or 1 MiB.
func TestAccounting(t *testing.T) {
	mixes, share := 12, 0.02
	if info, err := os.ReadFile("/proc/cpuinfo"); err == nil && strings.Contains(string(info), "TCG") {
		share = 0.2 // in an emulator it is seen that what is counted is this jail, not how exact
	}
	if sweep {
		mixes = 100
	}
	t.Parallel()
	for _, a := range []arm{{"limited", true}, {"limited", false}} {
		t.Run(a.String(), func(t *testing.T) {
			hasArm(t, a)
			b := newBox(t, a)
			var worstCPU, worstMemory float64
			// What the exec and the end of a process take is not in its own measure.
			null, _ := b.result(nil, tool("burn"), "hog", "0")
			for seed := range mixes {
				begin := time.Now()
				r, o := b.result([]string{"--memory", "1G"}, tool("burn"), "mix", strconv.Itoa(seed*7+1))
				wall := milliseconds(time.Since(begin))
				var cpuUS, peakKiB float64
				if _, err := fmt.Sscan(o.stdout, &cpuUS, &peakKiB); err != nil {
					t.Fatalf("%v: %+v", err, o)
				}
				cpu := math.Abs(r.User + r.System - cpuUS/1000)
				memory := math.Abs(float64(r.PeakMemory) - peakKiB*1024)
				worstCPU, worstMemory = max(worstCPU, cpu), max(worstMemory, memory)
				if cpu > max(2, share*cpuUS/1000)+null.User+null.System {
					t.Errorf("seed %d: CPU %.2f ms, the payload says %.2f", seed, r.User+r.System, cpuUS/1000)
				}
				if memory > max(1<<20, 0.02*peakKiB*1024) {
					t.Errorf("seed %d: peak %.2f MiB, the payload says %.2f", seed, float64(r.PeakMemory)/(1<<20), peakKiB/1024)
				}
				if r.WallMS > wall {
					t.Errorf("seed %d: wall %.1f ms of %.1f", seed, r.WallMS, wall)
				}
			}
			t.Logf("%d mixes: CPU time off by %.2f ms at most, peak memory by %.2f MiB", mixes, worstCPU, worstMemory/(1<<20))
		})
	}
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// A level below has none of these limits, and says which one has.
func TestResourcesNeedLimited(t *testing.T) {
	each(t, []string{"basic", "user", "namespaced"}, func(t *testing.T, a arm) {
		b := newBox(t, a)
		for _, flags := range [][]string{
			{"--memory", "64M"},
			{"--memory", "64M", "--swap", "1M"},
			{"--pids-limit", "10"},
			{"--cpus", "1"},
			{"--cpuset", "0"},
			{"--cpu-time", "1s"},
			{"--cgroup-parent", "/"},
			{"--name", "x"},
		} {
			o := b.run(flags, "echo", "started")
			if o.code != 125 || o.stdout != "" || !strings.Contains(o.stderr, strings.TrimPrefix(flags[len(flags)-2], "--")) && !strings.Contains(o.stderr, "memory") || !strings.Contains(o.stderr, "limited") {
				t.Errorf("%q: %+v", flags, o)
			}
		}
	})
}
