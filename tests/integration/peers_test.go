//go:build linux

package integration

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A peer is a program that isolates a payload: jail at a level, or another to compare it with. All are root's.
type peer struct {
	*box
	name  string
	root  string // a root file system of busybox
	state string // the folder of its state, if it has one
	spec  map[string]any
	// argv starts a payload under an id.
	argv func(id, script string) []string
	// clean is its own way to remove what is left of an id.
	clean func(id string) []string
}

// peers are jail at two levels, bubblewrap, crun and runc.
func peers(t *testing.T) []*peer {
	t.Helper()
	if !asRoot {
		t.Skip("host lacks: root (whose containers these are)")
	}
	if !sweep {
		t.Skip("only in test-full: JAIL_SWEEP=1")
	}
	// crun refuses to run where cgroup v2 has controllers beside those of v1, so nobody gets to see them.
	const file = "/sys/fs/cgroup/unified/cgroup.controllers"
	if _, err := os.Stat(file); err == nil {
		if err := unix.Mount("/dev/null", file, "", unix.MS_BIND, ""); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := unix.Unmount(file, 0); err != nil {
				t.Error(err)
			}
		})
	}
	// crun leaves files in /tmp.
	if err := unix.Mount("none", "/tmp", "tmpfs", 0, "mode=1777"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount("/tmp", unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	var all []*peer
	for _, name := range []string{"jail, namespaced", "jail, contained", "bubblewrap", "crun", "runc"} {
		p := &peer{box: newBox(t, arm{"contained", true}), name: name}
		p.root = p.tree("root", busybox(t), mountPoints...)
		for _, applet := range []string{"setsid", "sleep"} {
			if err := os.Symlink("busybox", filepath.Join(p.root, "bin", applet)); err != nil {
				t.Fatal(err)
			}
		}
		switch name {
		case "bubblewrap":
			bwrap := need(t, "bwrap")
			p.argv = func(id, script string) []string {
				return []string{
					bwrap, "--unshare-all", "--die-with-parent", "--ro-bind", p.root, "/", "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp",
					"--setenv", "COOKIE", id, "/bin/sh", "-c", script,
				}
			}
		case "crun", "runc":
			runtime := need(t, name)
			p.state = p.mkdir("state", 0o700)
			if out := p.bare("runc", "spec"); out.code != 0 {
				t.Fatalf("runc spec: %+v", out)
			}
			text, err := os.ReadFile(filepath.Join(p.dir, "config.json"))
			if err == nil {
				err = json.Unmarshal(text, &p.spec)
			}
			if err != nil {
				t.Fatal(err)
			}
			p.argv = func(id, script string) []string {
				return []string{runtime, "--root", p.state, "run", "--bundle", p.bundle(id, script), id}
			}
			p.clean = func(id string) []string { return []string{runtime, "--root", p.state, "delete", "--force", id} }
		default:
			flags := []string{"--level=" + strings.TrimPrefix(name, "jail, "), "--rootfs", p.root}
			p.argv = func(id, script string) []string {
				own := flags
				if name == "jail, contained" {
					own = append(slices.Clone(flags), "--name", id)
				}
				return slices.Concat([]string{jailPath, "run"}, own, []string{"--env", "COOKIE=" + id, "--", "/bin/sh", "-c", script})
			}
			p.clean = func(string) []string { return []string{jailPath, "gc"} }
		}
		all = append(all, p)
	}
	return all
}

// bundle is what `runc spec` makes, with the payload, the root and a cgroup put in.
func (p *peer) bundle(id, script string) string {
	p.t.Helper()
	process := p.spec["process"].(map[string]any)
	process["terminal"], process["args"], process["env"] = false, []string{"/bin/sh", "-c", script}, []string{"PATH=/bin", "COOKIE=" + id}
	p.spec["root"] = map[string]any{"path": p.root, "readonly": true}
	p.spec["linux"].(map[string]any)["cgroupsPath"] = "/" + id
	text, err := json.Marshal(p.spec)
	if err != nil {
		p.t.Fatal(err)
	}
	dir := p.mkdir("bundle-"+id, 0o755)
	p.write(filepath.Join(dir, "config.json"), string(text), 0o644)
	return dir
}

// remains are what is left of launches: how many have left each kind.
type remains struct{ processes, cgroups, files, mounts int }

func (r remains) String() string {
	return fmt.Sprintf("%d processes, %d cgroups, %d files and folders, %d mounts", r.processes, r.cgroups, r.files, r.mounts)
}

// newID is the name of a launch; idPrefix is what all of them begin with.
func newID() string    { return fmt.Sprintf("%s-%d", idPrefix(), boxes.Add(1)) }
func idPrefix() string { return strings.TrimPrefix(filepath.Base(base), "jail-") + "-peer" }

// cgroups are those of ids, in all hierarchies.
func (p *peer) cgroups() (paths []string) {
	_ = filepath.WalkDir("/sys/fs/cgroup", func(path string, d os.DirEntry, err error) error {
		if err == nil && d.IsDir() && strings.HasPrefix(strings.TrimPrefix(d.Name(), "jail-"), idPrefix()) {
			paths = append(paths, path)
		}
		return nil
	})
	return paths
}

// below are the living descendants of a process. Those that came to us and are dead are reaped.
func below(pid int) (pids []int) {
	for _, child := range children(pid) {
		if state(child) == "Z" {
			if pid == os.Getpid() {
				_, _ = unix.Wait4(child, nil, unix.WNOHANG, nil)
			}
			continue
		}
		pids = append(append(pids, child), below(child)...)
	}
	return pids
}

// left waits for the end of all processes, and counts.
func (p *peer) left(mounts string, wait time.Duration) (r remains, pids []int) {
	for end := time.Now().Add(wait); ; time.Sleep(5 * time.Millisecond) {
		if pids = below(os.Getpid()); len(pids) == 0 || time.Now().After(end) {
			break
		}
	}
	r.processes = len(pids)
	names := map[string]bool{}
	for _, path := range p.cgroups() {
		names[filepath.Base(path)] = true
	}
	r.cgroups = len(names)
	for _, dir := range []string{p.state, p.tmp, "/tmp"} {
		if dir != "" {
			entries, err := os.ReadDir(dir)
			if err != nil {
				p.t.Fatal(err)
			}
			r.files += len(entries)
		}
	}
	r.mounts = max(0, strings.Count(hostMounts(), "\n")-strings.Count(mounts, "\n"))
	return r, pids
}

// wait is how long is waited for the end of processes after a clean-up: jail, which is judged, gets longer than it needs.
func (p *peer) wait() time.Duration {
	if p.isJail() {
		return patience
	}
	return time.Second
}

func (p *peer) isJail() bool { return strings.HasPrefix(p.name, "jail") }

// cleaned lets the peer remove what is left of ids in its own way; hung is how many of those took too long.
func (p *peer) cleaned(ids []string) (hung int) {
	if p.clean == nil {
		return 0
	}
	if p.isJail() {
		ids = ids[:1] // gc is for all
	}
	for _, id := range ids {
		cmd := p.as(p.clean(id)...)
		if err := cmd.Start(); err != nil {
			p.t.Fatal(err)
		}
		timer := time.AfterFunc(10*time.Second, func() { _ = cmd.Process.Kill() })
		_ = cmd.Wait()
		if !timer.Stop() {
			hung++
		}
	}
	return hung
}

// removed takes away by force what has stayed.
func (p *peer) removed(mounts string, ids ...string) {
	p.t.Helper()
	for line := range strings.Lines(hostMounts()) {
		if !strings.Contains(mounts, line) {
			point := strings.Fields(line)[4]
			if err := unix.Unmount(point, unix.MNT_DETACH); err != nil {
				p.t.Errorf("unmount %s: %v", point, err)
			}
		}
	}
	eventually(p.t, "processes that were killed are gone", func() bool {
		pids := below(os.Getpid())
		for _, pid := range pids {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		return len(pids) == 0
	})
	eventually(p.t, "empty cgroups can be removed", func() bool {
		paths := p.cgroups()
		for _, path := range slices.Backward(paths) {
			_ = unix.Rmdir(path)
		}
		return len(paths) == 0
	})
	files, err := filepath.Glob("/tmp/crun.*")
	if err != nil {
		p.t.Fatal(err)
	}
	for _, path := range files {
		_ = os.RemoveAll(path)
	}
	for _, id := range ids {
		_ = os.RemoveAll(filepath.Join(p.dir, "bundle-"+id))
		if p.state != "" {
			_ = os.RemoveAll(filepath.Join(p.state, id))
		}
	}
}

// size is how many there are of something: few in the sweep, as many as JAIL_FIGURES says for figures.
func size(t *testing.T, few int) int {
	t.Helper()
	text := os.Getenv("JAIL_FIGURES")
	if text == "" {
		return few
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestKillSweepOfPeers kills launchers at random moments, from their start to twice the time in which half of them, or 98
// of 100, have started, and counts what lives on a second later and what is left, before and after each one's own way to clean up. Of
// jail nothing may live on, nor anything be left then; what the peers do is told, not judged.
func TestKillSweepOfPeers(t *testing.T) {
	for _, p := range peers(t) {
		t.Run(p.name, func(t *testing.T) {
			const payload = "echo up; setsid sh -c 'setsid sleep 1000 & exit' & sleep 1000 & exec sleep 1000"
			p.t = t
			mounts := hostMounts()
			start := func() (id string, cmd *exec.Cmd, out *os.File) {
				id = newID()
				cmd = p.as(p.argv(id, payload)...)
				cmd.Env = append(cmd.Env, "LAUNCH="+id)
				r, w, err := os.Pipe()
				if err != nil {
					t.Fatal(err)
				}
				cmd.Stdout = w
				if err := cmd.Start(); err != nil {
					t.Fatal(err)
				}
				w.Close()
				return id, cmd, r
			}
			var took []time.Duration
			for range 100 {
				began := time.Now()
				id, cmd, out := start()
				if line, err := bufio.NewReader(out).ReadString('\n'); err != nil {
					t.Fatalf("%q, %v", line, err)
				}
				took = append(took, time.Since(began))
				_ = cmd.Process.Kill()
				_ = cmd.Wait()
				out.Close()
				p.cleaned([]string{id})
				p.removed(mounts, id)
			}
			slices.Sort(took)
			median, most98 := took[len(took)/2], took[len(took)*98/100]
			var launches, payloads, early, hung int
			var before, after remains
			n := size(t, 40)
			for done := 0; done < n; {
				var ids []string
				for range min(20, n-done) {
					id, cmd, out := start()
					most := median // of one half; the other half's moments reach further
					if done%2 == 1 {
						most = most98
					}
					time.Sleep(time.Duration(rand.Int64N(2 * int64(most))))
					_ = cmd.Process.Kill()
					_ = cmd.Wait()
					// What it said until then is in the pipe; whoever survived it may hold the other end.
					fd := []unix.PollFd{{Fd: int32(out.Fd()), Events: unix.POLLIN}}
					if _, err := unix.Poll(fd, 0); err != nil || fd[0].Revents&unix.POLLIN == 0 {
						early++
					}
					out.Close()
					ids = append(ids, id)
					done++
				}
				r, pids := p.left(mounts, time.Second)
				alive, ran := map[string]bool{}, map[string]bool{}
				for _, pid := range pids {
					env, _ := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
					for kv := range strings.SplitSeq(string(env), "\x00") {
						name, id, _ := strings.Cut(kv, "=")
						switch name {
						case "COOKIE": // the payload's
							ran[id] = true
							fallthrough
						case "LAUNCH":
							alive[id] = true
						}
					}
				}
				launches += len(alive)
				payloads += len(ran)
				before = before.plus(r)
				hung += p.cleaned(ids)
				if p.clean != nil {
					r, _ = p.left(mounts, p.wait())
				}
				after = after.plus(r)
				p.removed(mounts, ids...)
			}
			t.Logf("figure: %s: %d launchers killed at 0 to %s and 0 to %s, %d of them before the payload ran: of %d something lived on, of %d the payload; left: %s; after its own clean-up, of which %d hung: %s",
				p.name, n, (2 * median).Round(100*time.Microsecond), (2 * most98).Round(100*time.Microsecond), early, launches, payloads, before, hung, after)
			if p.isJail() && (launches > 0 || after != remains{} || hung > 0) {
				t.Error("of jail nothing may be left")
			}
		})
	}
}

func (r remains) plus(o remains) remains {
	return remains{r.processes + o.processes, r.cgroups + o.cgroups, r.files + o.files, r.mounts + o.mounts}
}

// TestFaultsOfPeers lets system calls of a launch fail one by one, on whatever side, up to the payload's exec, and kills
// the process that makes them. It counts launches that hang, that leave something, before and after each one's own way to
// clean up, that end with a code that is not theirs, and that end with a stack trace or a crash. In all, calls of Go's
// runtime and of libc's start are left out: a runtime can't be without them.
func TestFaultsOfPeers(t *testing.T) {
	for _, p := range peers(t) {
		t.Run(p.name, func(t *testing.T) {
			p.t = t
			for _, errno := range []syscall.Errno{unix.EPERM, unix.ENOMEM, 0} {
				all := p.fault(1<<40, errno)
				want := size(t, 80) / 4
				if errno == 0 {
					want /= 2
				}
				step := max(1, all.calls/want)
				var n, ran, hung, stuck, before, after, wrong, traces int
				for k := 1 + rand.IntN(step); ; k += step {
					o := p.fault(k, errno)
					if o.hit < 0 {
						break
					}
					n++
					switch {
					case o.status < 0:
						hung++
					case o.cut: // the launcher has ended, and others wait
						stuck++
					}
					end := syscall.WaitStatus(max(o.status, 0))
					own := o.status >= 0 && end.Exited() && end.ExitStatus() == 42
					if own && o.stdout == "ran\n" {
						ran++
					}
					if o.status == 0 || own && o.stdout != "ran\n" {
						wrong++
					}
					if end.Signaled() && end.Signal() != unix.SIGKILL || strings.Contains(o.stderr, "goroutine ") || strings.Contains(o.stderr, "panic: ") || strings.Contains(o.stderr, "fatal error: ") {
						traces++
					}
					if o.before != (remains{}) {
						before++
					}
					if o.after != (remains{}) {
						after++
					}
					if p.isJail() && hung+stuck+wrong+traces+after > 0 {
						t.Fatalf("system call %d, %v: %+v", k, errno, o)
					}
				}
				what := "killed"
				if errno != 0 {
					what = unix.ErrnoName(errno)
				}
				t.Logf("figure: %s, %s: %d of %d calls: %d ran all the same; %d launchers hung, %d ended and left others hanging; %d left something, %d after its own clean-up; %d wrong codes; %d stack traces or crashes",
					p.name, what, n, all.calls, ran, hung, stuck, before, after, wrong, traces)
			}
		})
	}
}

// faulted is how a launch with a fault ended.
type faulted struct {
	status         int  // the launcher's wait status; -1 if it lived
	cut            bool // some process lived, and all was ended
	calls, hit     int  // how many system calls were counted, and the number of the one that was hit, or -1
	stdout, stderr string
	before, after  remains
}

// fault starts a payload whose launch's nth system call fails, or whose process is killed at that call.
func (p *peer) fault(n int, errno syscall.Errno) (o faulted) {
	p.t.Helper()
	mounts := hostMounts()
	id := newID()
	cmd := p.as(slices.Concat([]string{tool("fault"), "any", fmt.Sprint(n), fmt.Sprint(int(errno))}, p.argv(id, "echo ran; exit 42"))...)
	r, w, err := os.Pipe()
	if err != nil {
		p.t.Fatal(err)
	}
	defer r.Close()
	cmd.ExtraFiles = []*os.File{w}
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.WaitDelay = time.Second
	if err := cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	w.Close()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = cmd.Wait()
	}()
	limit := time.After(patience / 2)
	for waiting := true; waiting; {
		select {
		case <-ended:
			waiting = false
		case <-limit:
			o.cut = true
			_ = cmd.Process.Signal(unix.SIGTERM)
			limit = time.After(50 * time.Millisecond)
		}
	}
	told, err := io.ReadAll(r)
	if err != nil {
		p.t.Fatal(err)
	}
	if _, err := fmt.Sscan(string(told), &o.status, &o.calls, &o.hit); err != nil {
		p.t.Fatalf("%q, %v, %s", told, err, stderr.String())
	}
	o.stdout, o.stderr = stdout.String(), stderr.String()
	o.before, _ = p.left(mounts, time.Second)
	if p.cleaned([]string{id}) > 0 {
		p.t.Logf("clean-up hung")
	}
	o.after, _ = p.left(mounts, p.wait())
	p.removed(mounts, id)
	return o
}
