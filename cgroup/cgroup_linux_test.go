package cgroup

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/cgroups/v3/cgroup1"
	v1stats "github.com/containerd/cgroups/v3/cgroup1/stats"
	"github.com/containerd/cgroups/v3/cgroup2"
	v2stats "github.com/containerd/cgroups/v3/cgroup2/stats"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

var needed = []string{"memory", "pids", "cpu"}

// place is where this host lets the tests make cgroups.
func place(t *testing.T) *Place {
	t.Helper()
	p, err := Find("", needed, nil)
	if err != nil {
		t.Skipf("host lacks: a place for a cgroup: %v", err)
	}
	if p.Scope {
		p = scope(t, name(t), sleeper(t))
		t.Cleanup(p.keeper.end)
		p.keeper = nil // it would end with the first cgroup
		f, err := gather()
		if err != nil {
			t.Fatal(err)
		}
		mounts, err := parseMounts(f.mounts)
		if err != nil {
			t.Fatal(err)
		}
		own, err := cgroupOf(os.Getpid(), ofV2(mounts))
		if err != nil {
			t.Fatal(err)
		}
		if !look(common(p.Dirs[""], own)).adoptable { // systemd moves jail-init, but not what a test starts
			t.Skipf("host lacks: the right to move processes from %s to a scope", own)
		}
	}
	return p
}

// sleeper starts a process that does nothing until the test ends.
func sleeper(t *testing.T) *keeper {
	t.Helper()
	k, err := newKeeper()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.end)
	return k
}

func scope(t *testing.T, name string, of *keeper) *Place {
	t.Helper()
	p, err := Scope(name, of.cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// TestScope: what was counted in a scope of systemd outlives its processes, a name is given once, and at the end nothing
// is left.
func TestScope(t *testing.T) {
	if p, err := Find("", needed, nil); err != nil || !p.Scope {
		t.Skip("host lacks: a systemd that has to be asked for a scope")
	}
	payload := sleeper(t)
	p := scope(t, name(t), payload)
	dir := p.Dirs[""]
	if _, err := Scope(name(t), sleeper(t).cmd.Process.Pid); !errors.Is(err, ErrExists) {
		t.Errorf("a second one of that name: %v", err)
	}
	c := create(t, p, name(t))
	set(t, p, c, limits(64<<20, 30))
	if err := c.Attach(payload.cmd.Process.Pid); err != nil {
		t.Fatal(err)
	}
	payload.end()
	time.Sleep(200 * time.Millisecond) // for systemd
	if u, err := c.Usage(); err != nil || u.CPU < 0 || u.OOMKills != 0 {
		t.Errorf("%+v, %v", u, err)
	}
	if err := c.Remove(); err != nil {
		t.Error(err)
	}
	for deadline := time.Now().Add(scopeTimeout); ; time.Sleep(10 * time.Millisecond) {
		if _, err := os.Stat(dir); errors.Is(err, os.ErrNotExist) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s is left", dir)
		}
	}
	unused := scope(t, name(t), sleeper(t)) // the name is free again
	unused.Release()
}

// name is one that no other test has.
func name(t *testing.T) string {
	return fmt.Sprintf("test-%d-%s", os.Getpid(), strings.Map(func(r rune) rune {
		if r == '/' || r == '#' {
			return '-'
		}
		return r
	}, t.Name()))
}

func create(t *testing.T, p *Place, name string) *Cgroup {
	t.Helper()
	c, err := p.Create(name, needed)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if c.dirs[0].f == nil {
			return // removed
		}
		if err := errors.Join(c.Kill(), c.Remove()); err != nil {
			t.Error(err)
		}
	})
	return c
}

func set(t *testing.T, p *Place, c *Cgroup, r *specs.LinuxResources) {
	t.Helper()
	settings, err := Settings(p.Version, r)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range settings {
		if err := c.Set(s); err != nil {
			t.Fatal(err)
		}
	}
}

// in starts a shell script in the cgroup: it waits until it is there.
func in(t *testing.T, c *Cgroup, script string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("/bin/sh", "-c", "read go || exit; "+script) // never outside
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if err := c.Attach(cmd.Process.Pid); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintln(stdin, "go")
	return cmd
}

func limits(memory, pids int64) *specs.LinuxResources {
	return &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &memory, Swap: &memory}, Pids: &specs.LinuxPids{Limit: &pids}}
}

const hog = `exec /usr/bin/python3 -c "x = bytearray(200 << 20); print('had it')"`

// TestLimits: memory and the number of tasks are held to, and what was hit is told of this cgroup alone.
func TestLimits(t *testing.T) {
	p := place(t)
	c := create(t, p, name(t))
	set(t, p, c, limits(40<<20, 5))
	if err := in(t, c, hog).Wait(); err == nil {
		t.Error("a hog lived")
	}
	out := filepath.Join(t.TempDir(), "out")
	_ = in(t, c, `exec /usr/bin/python3 -c "
import os, time
n = 0
try:
    for n in range(20):
        if os.fork() == 0:
            time.sleep(1); os._exit(0)
except BlockingIOError:
    pass
open('`+out+`', 'w').write(str(n))"`).Wait()
	u, err := c.Usage()
	if err != nil {
		t.Fatal(err)
	}
	if made, err := os.ReadFile(out); err != nil || string(made) != "4" {
		t.Errorf("forked %s times, %v", made, err)
	}
	if u.OOMKills < 1 || !u.MemoryHit || u.PidsHit < 1 || u.PeakMemory < 30<<20 || u.PeakMemory > 40<<20 {
		t.Errorf("%+v", u)
	}
	fresh := create(t, p, name(t)+"-2")
	if u, err := fresh.Usage(); err != nil || u.OOMKills != 0 || u.MemoryHit || u.PidsHit != 0 || u.PeakMemory > 1<<20 {
		t.Errorf("a new one: %+v, %v", u, err)
	}
}

// inside is the place in a cgroup.
func inside(c *Cgroup) *Place {
	p := &Place{Version: c.version, Dirs: map[string]string{"": c.Path()}, Controllers: needed}
	for _, d := range c.dirs {
		for _, h := range d.controllers {
			p.Dirs[h] = d.path
		}
	}
	return p
}

// TestLimitsOfOthers: a kill is this cgroup's, but the limit that was hit is the one above.
func TestLimitsOfOthers(t *testing.T) {
	p := place(t)
	outer := create(t, p, name(t))
	set(t, p, outer, limits(40<<20, 50))
	c := create(t, inside(outer), "inner")
	set(t, p, c, limits(150<<20, 50))
	if err := in(t, c, hog).Wait(); err == nil {
		t.Error("a hog lived")
	}
	if u, err := c.Usage(); err != nil || u.OOMKills < 1 || u.MemoryHit {
		t.Errorf("the inner one: %+v, %v", u, err)
	}
	if u, err := outer.Usage(); err != nil || u.PeakMemory < 39<<20 && u.PeakMemory >= 0 {
		t.Errorf("the outer one, which was full: %+v, %v", u, err)
	}
}

// TestTasks: on v1 a process with one thread enters by itself, in all hierarchies, and its children are in too.
func TestTasks(t *testing.T) {
	p := place(t)
	if p.Version != 1 {
		t.Skip("host lacks: cgroup v1")
	}
	c := create(t, p, name(t))
	cmd := exec.Command("/bin/sh", append([]string{"-c", `for file; do echo 0 >"$file" || exit 1; done; cat /proc/self/cgroup`, "sh"}, p.Tasks(name(t), needed)...)...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, h := range hierarchies(needed) {
		if in, err := parseCgroups(string(out)); err != nil || filepath.Base(in[h]) != filepath.Base(c.Path()) {
			t.Errorf("in the hierarchy %s it is in %q, %v", h, in[h], err)
		}
	}
}

// TestCPUSet: a cgroup with that controller can be entered, whatever it is limited to.
func TestCPUSet(t *testing.T) {
	p, err := Find("", append([]string{"cpuset"}, needed...), nil)
	if err != nil || p.Scope {
		t.Skipf("host lacks: a place for a cgroup with cpuset: %v", err)
	}
	c, err := p.Create(name(t), append([]string{"cpuset"}, needed...))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := errors.Join(c.Kill(), c.Remove()); err != nil {
			t.Error(err)
		}
	}()
	set(t, p, c, &specs.LinuxResources{CPU: &specs.LinuxCPU{Cpus: "0"}})
	if err := in(t, c, `test "$(grep Cpus_allowed_list /proc/self/status | tr -dc 0-9,-)" = 0`).Wait(); err != nil {
		t.Errorf("it runs on other CPUs: %v", err)
	}
}

// TestUsage compares with what the kernel says of the process, and with what containerd's library reads.
func TestUsage(t *testing.T) {
	p := place(t)
	c := create(t, p, name(t))
	set(t, p, c, limits(64<<20, 50))
	out := filepath.Join(t.TempDir(), "out")
	cmd := in(t, c, `read -r before rest </proc/$$/schedstat; echo "$before" >'`+out+`'; exec /usr/bin/python3 -c "
import time
x = bytearray(20 << 20)
while time.process_time() < 0.3: pass"`)
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	u, err := c.Usage()
	if err != nil {
		t.Fatal(err)
	}
	// What it had before it was attached is not the cgroup's.
	text, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	before, err := number(string(text))
	if err != nil {
		t.Fatal(err)
	}
	own, tick := cmd.ProcessState.UserTime()+cmd.ProcessState.SystemTime(), 20*time.Millisecond
	if u.CPU > own+tick || u.CPU < own-time.Duration(before)-tick {
		t.Errorf("CPU %s, the process %s, %s of it before", u.CPU, own, time.Duration(before))
	}
	if cpu, err := c.CPU(); err != nil || cpu != u.CPU {
		t.Errorf("CPU() %s, %v, of %s", cpu, err, u.CPU)
	}
	if u.PeakMemory < 20<<20 && u.PeakMemory >= 0 {
		t.Errorf("peak %d", u.PeakMemory)
	}
	if p.Version == 2 {
		m, err := cgroup2.Load(strings.TrimPrefix(c.Path(), "/sys/fs/cgroup"))
		if err != nil {
			t.Fatal(err)
		}
		stat, err := m.Stat()
		if err != nil {
			t.Fatal(err)
		}
		checkV2(t, stat, u)
		return
	}
	oracle, err := cgroup1.Load(func(s cgroup1.Name) (string, error) {
		if dir, ok := p.Dirs[string(s)]; ok {
			_, path, _ := strings.Cut(strings.TrimPrefix(dir, "/sys/fs/cgroup/"), "/") // below the mount, which may be two controllers'
			return filepath.Join("/", path, "jail-"+name(t)), nil
		}
		return "/", nil // it wants them all
	})
	if err != nil {
		t.Fatal(err)
	}
	stat, err := oracle.Stat(cgroup1.IgnoreNotExist)
	if err != nil {
		t.Fatal(err)
	}
	checkV1(t, stat, u)
}

func checkV2(t *testing.T, stat *v2stats.Metrics, u Usage) {
	t.Helper()
	if stat.CPU.UsageUsec != uint64(u.CPU.Microseconds()) || stat.Memory.UsageLimit != 64<<20 || stat.Pids.Limit != 50 {
		t.Errorf("containerd reads %v, we %+v", stat, u)
	}
}

func checkV1(t *testing.T, stat *v1stats.Metrics, u Usage) {
	t.Helper()
	if stat.CPU.Usage.Total != uint64(u.CPU) || stat.Memory.Usage.Limit != 64<<20 || stat.Memory.Usage.Max != uint64(u.PeakMemory) || stat.Pids.Limit != 50 {
		t.Errorf("containerd reads %v, we %+v", stat, u)
	}
}

// TestKill ends a tree that forks without pause, frozen or not, and Remove takes what it has made away.
func TestKill(t *testing.T) {
	p := place(t)
	for _, frozen := range []bool{false, true} {
		c := create(t, p, name(t)+fmt.Sprint(frozen))
		set(t, p, c, limits(64<<20, 30))
		cmd := in(t, c, "b() { b | b & }; b; exec sleep 100")
		time.Sleep(50 * time.Millisecond)
		if frozen {
			if err := c.Freeze(); err != nil {
				t.Error(err)
			}
			before, _ := c.CPU()
			time.Sleep(50 * time.Millisecond)
			// Unfrozen it is 50 ms and more. On v2 those that are ending do so.
			if after, err := c.CPU(); err != nil || after-before > 10*time.Millisecond {
				t.Errorf("frozen it used %s, %v", after-before, err)
			}
		}
		done := make(chan error, 1)
		go func() { done <- cmd.Wait() }()
		if err := c.Kill(); err != nil {
			t.Error(err)
		}
		if err := <-done; err == nil {
			t.Error("the payload ended by itself")
		}
		for _, d := range c.dirs { // as a payload may that sees its cgroup
			if err := os.MkdirAll(filepath.Join(d.path, "made/there"), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		if err := c.Remove(); err != nil {
			t.Error(err)
		}
		for _, d := range c.dirs {
			if _, err := os.Stat(d.path); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("%s: %v", d.path, err)
			}
		}
	}
}

// TestCollect takes what is dead, and neither what is alive nor what only has the name.
func TestCollect(t *testing.T) {
	p := place(t)
	alive, dead := create(t, p, name(t)+"-alive"), create(t, p, name(t)+"-dead")
	foreign := filepath.Join(filepath.Dir(dead.Path()), "jail-"+name(t)+"-foreign")
	if err := os.Mkdir(foreign, 0o755); err != nil {
		t.Fatal(err)
	}
	defer os.Remove(foreign)
	strangers := []string{foreign}
	if os.Geteuid() == 0 { // an ordinary user's marks, which root must not go by
		for i, mode := range []uint32{0o755, ownMode} {
			d := dir{path: fmt.Sprint(foreign, i)}
			if err := errors.Join(unix.Mkdir(d.path, mode), unix.Chown(d.path, 65533, 65533), d.open()); err != nil {
				t.Fatal(err)
			}
			defer os.Remove(d.path)
			defer d.f.Close()
			if i == 0 {
				if err := unix.Fsetxattr(int(d.f.Fd()), "user.jail", nil, 0); err != nil {
					t.Fatal(err)
				}
			}
			strangers = append(strangers, d.path)
		}
	}
	unmarked := filepath.Join(filepath.Dir(dead.Path()), "jail-"+name(t)+"-unmarked")
	if err := (&dir{path: unmarked}).make(); err != nil { // killed right after
		t.Fatal(err)
	}
	cmd := in(t, dead, "exec sleep 100")
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	paths := dead.dirs
	dead.close() // as when its launcher is killed
	removed, err := Collect()
	if err != nil {
		t.Error(err)
	}
	for _, path := range []string{paths[0].path, unmarked} {
		if !slices.Contains(removed, path) {
			t.Errorf("%s is not taken; taken were %q", path, removed)
		}
	}
	for _, path := range append(strangers, alive.Path()) {
		if slices.Contains(removed, path) {
			t.Errorf("%s is taken", path)
		}
	}
	<-done
	for _, d := range paths {
		if _, err := os.Stat(d.path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is left: %v", d.path, err)
		}
	}
}

// TestCollectNested: a jail's jail whose launcher was killed is taken from the living one, and nothing else with it.
func TestCollectNested(t *testing.T) {
	p := place(t)
	outer := create(t, p, name(t))
	dead := create(t, inside(outer), "dead")
	if len(outer.dirs) > 1 { // v1: a folder that is listed, but is another jail's
		listed, err := dead.dirs[0].marked()
		if err == nil {
			err = dead.dirs[0].mark(listed + "\n" + create(t, inside(outer), "alive").dirs[1].path)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	dead.close()
	removed, err := collect(p.Version, filepath.Dir(outer.Path()))
	if !slices.Contains(removed, dead.Path()) || slices.Contains(removed, outer.Path()) {
		t.Errorf("removed %q, %v", removed, err)
	}
	for _, d := range inside(outer).Dirs {
		if alive := filepath.Join(d, "jail-alive"); p.Version == 1 {
			if _, err := os.Stat(alive); err != nil {
				t.Error(err)
			}
		}
	}
}

// TestCollectUnseen: where a hierarchy is not mounted, all of a dead jail stays, and it is said.
func TestCollectUnseen(t *testing.T) {
	p := place(t)
	c := create(t, p, name(t))
	whole, err := c.dirs[0].marked()
	if err != nil {
		t.Fatal(err)
	}
	unseen := filepath.Join(t.TempDir(), "cgroup/memory/a/"+filepath.Base(c.Path()))
	if err := c.dirs[0].mark(whole + "\n" + unseen); err != nil {
		t.Fatal(err)
	}
	dirs := c.dirs
	c.dirs = slices.Clone(dirs)
	c.close() // as when its launcher is killed
	removed, err := collect(p.Version, filepath.Dir(c.Path()))
	if slices.Contains(removed, c.Path()) || err == nil || !strings.Contains(err.Error(), unseen) {
		t.Errorf("removed %q, %v", removed, err)
	}
	for _, d := range dirs {
		if _, err := os.Stat(d.path); err != nil {
			t.Error(err)
		}
	}
	main := dirs[0]
	if err := errors.Join(main.open(), main.mark(whole), main.f.Close()); err != nil {
		t.Fatal(err)
	}
	if removed, err := collect(p.Version, filepath.Dir(c.Path())); !slices.Contains(removed, c.Path()) {
		t.Errorf("seen again: removed %q, %v", removed, err)
	}
}

// TestSameName: of many that make the same cgroup at once exactly one has it; the next one may when it is gone.
func TestSameName(t *testing.T) {
	p := place(t)
	for range 10 {
		var mu sync.Mutex
		var won []*Cgroup
		var group sync.WaitGroup
		for range 8 {
			group.Go(func() {
				c, err := p.Create(name(t), needed)
				mu.Lock()
				defer mu.Unlock()
				if err == nil {
					won = append(won, c)
				} else if !errors.Is(err, ErrExists) {
					t.Error(err)
				}
			})
		}
		group.Wait()
		if len(won) != 1 {
			t.Fatalf("%d have it", len(won))
		}
		if err := won[0].Remove(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestMany makes different ones at once.
func TestMany(t *testing.T) {
	p := place(t)
	var group sync.WaitGroup
	for i := range 40 {
		group.Go(func() {
			c, err := p.Create(fmt.Sprintf("%s-%d", name(t), i), needed)
			if err == nil {
				err = c.Remove()
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
}

// TestCreateBesideCollect: a folder is made before it is locked, and looks like a dead owner's in between.
func TestCreateBesideCollect(t *testing.T) {
	p := place(t)
	main := p.Dirs[""]
	if p.Version == 1 {
		main = p.Dirs["freezer"]
	}
	done := make(chan struct{})
	var collectors, creators sync.WaitGroup
	for range 2 {
		collectors.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				if _, err := collect(p.Version, main); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for i := range 4 {
		creators.Go(func() {
			for n := range 50 {
				c, err := p.Create(fmt.Sprintf("%s-%d-%d", name(t), i, n), needed)
				if err == nil {
					err = c.Remove()
				}
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	creators.Wait()
	close(done)
	collectors.Wait()
}
