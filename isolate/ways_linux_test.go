//go:build amd64 || arm64

package isolate

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/jailrun/jail/isolate/internal/jailinit"
)

// withHost makes c run with facts that this host does not have.
func withHost(t *testing.T, c *Cmd, change func(*Host)) {
	t.Helper()
	host, err := probe(c.Spec())
	if err != nil {
		t.Fatal(err)
	}
	change(host)
	c.host = host
}

// TestWays runs each other way of the table for real, on a host that would not need it.
func TestWays(t *testing.T) {
	t.Run("clone", func(t *testing.T) {
		atEachLevel(t, func(t *testing.T, level Level) {
			leavesNothing(t)
			c := shell(patience(t), level, "echo ran; exit 3")
			withHost(t, c, func(h *Host) { h.NoClone3 = true })
			out, err := c.Output()
			if string(out) != "ran\n" || exitOf(t, err) != "3" || !c.Plan().noClone3 {
				t.Errorf("%q, %v", out, err)
			}
		})
	})
	t.Run("no-memfd", func(t *testing.T) {
		binary := testBinary(t)
		cmd := helper(binary, "no-memfd", 0)
		var want strings.Builder
		for _, level := range levelsHere() {
			fmt.Fprintf(&want, "%s ran\n", level)
		}
		if out, err := cmd.CombinedOutput(); err != nil || string(out) != want.String() {
			t.Errorf("%v\n%s", err, out)
		}
	})
	t.Run("no-sysfs", func(t *testing.T) {
		c := shell(patience(t), Namespaced, "ls -A /sys; ls -d /sys")
		withHost(t, c, func(h *Host) { h.NoSysfs = true })
		if out, err := c.Output(); err != nil || string(out) != "/sys\n" {
			t.Errorf("%q, %v", out, err)
		}
	})
	t.Run("no-proc", func(t *testing.T) {
		script := "echo $PPID; readlink /proc/self >/dev/null && [ -d /proc/" + fmt.Sprint(os.Getpid()) + " ] && echo seen; cd /proc/self/fd && ls"
		// Without leave it is a failure, also with the fact: nothing is weakened.
		c := shell(patience(t), Namespaced, script)
		withHost(t, c, func(h *Host) { h.NoProc = true })
		if out, err := c.Output(); err != nil || strings.Contains(string(out), "seen") {
			t.Errorf("%q, %v", out, err)
		}
		c = shell(patience(t), Namespaced, script)
		c.Spec().OuterProc = true
		if out, err := c.Output(); err != nil || strings.Contains(string(out), "seen") || len(c.Result().LostGuarantees) > 0 {
			t.Errorf("not needed: %q, %v, %+v", out, err, c.Result())
		}
		c = shell(patience(t), Namespaced, script)
		c.Spec().OuterProc = true
		withHost(t, c, func(h *Host) { h.NoProc = true })
		out, err := c.Output()
		if err != nil || string(out) != "1\nseen\n0\n1\n2\n" {
			t.Errorf("%q, %v", out, err)
		}
		if lost := c.Result().LostGuarantees; !slices.Equal(lost, []Guarantee{PrivateProcesses}) || len(c.Plan().Notes) == 0 {
			t.Errorf("lost %v, %q", lost, c.Plan().Notes)
		}
		// The others' files there go by owner in part.
		c = shell(patience(t), Namespaced, "echo 500 2>/dev/null >/proc/$1/oom_score_adj || cat /proc/$1/environ 2>/dev/null || echo closed", fmt.Sprint(os.Getpid()))
		c.Spec().OuterProc = true
		withHost(t, c, func(h *Host) { h.NoProc = true })
		if out, err := c.Output(); err != nil || string(out) != "closed\n" {
			t.Errorf("%q, %v", out, err)
		}
		// Who has root's uid on the host would own what is there.
		c = shell(patience(t), Namespaced, script)
		c.Spec().OuterProc, c.Spec().Identity = true, IdentityCaller
		withHost(t, c, func(h *Host) { h.NoProc = true })
		var spec *SpecError
		if err := c.Run(); os.Geteuid() == 0 && (!errors.As(err, &spec) || spec.Field != "proc") {
			t.Errorf("%v", err)
		}
	})
	t.Run("no-mount-call", func(t *testing.T) {
		c := shell(patience(t), Namespaced, "echo $$; ls -d /sys/class /dev/pts/ptmx; touch /tmp/x /dev/shm/x && echo x >/dev/null && grep -c ' /tmp ' /proc/self/mountinfo")
		withHost(t, c, func(h *Host) { h.NoMountCall = true })
		out, err := c.Output()
		if err != nil || !strings.HasSuffix(string(out), "\n/dev/pts/ptmx\n/sys/class\n1\n") {
			t.Errorf("%q, %v", out, err)
		}
		for _, s := range c.Plan().Steps {
			if s.wire.op == jailinit.OpMount {
				t.Errorf("mount(2) after all: %s", s)
			}
		}
	})
	t.Run("few-capabilities", func(t *testing.T) {
		if os.Geteuid() != 0 {
			return // who has none
		}
		leavesNothing(t)
		few := func(h *Host) { h.Caps = otherUIDCaps }
		c := shell(patience(t), Namespaced, "id -u; id -G; cat /proc/self/uid_map; [ -w /proc/sys/kernel/core_pattern ] && echo writable; cat /etc/shadow 2>/dev/null; echo $PPID")
		withHost(t, c, few)
		out, err := c.Output()
		uid := c.Result().UID
		if want := fmt.Sprint([]int{uid, uid, uid, uid, 1, 1}); err != nil || fmt.Sprint(strings.Fields(string(out))) != want || uid < firstUID {
			t.Errorf("%q, want %s, %v", out, want, err)
		}
		// Each step but the launch can fail, those of the launcher among them, and nothing runs.
		for n, s := range c.Plan().Steps {
			c := shell(patience(t), Namespaced, "echo ran")
			withHost(t, c, few)
			c.failStep, c.failErrno = uint32(n)+1, uint32(unix.EIO)
			var step *StepError
			if out, err := c.Output(); !errors.As(err, &step) || step.Op != s.Op || len(out) > 0 {
				t.Errorf("step %d, %s: %q, %v", n, s, out, err)
			}
		}
	})
	t.Run("no-mknod", func(t *testing.T) {
		c := shell(patience(t), Namespaced, "echo x >/dev/null && head -c 3 /dev/zero | wc -c; stat -c %t:%T /dev/null /dev/full; rm /dev/null 2>/dev/null; ls /dev/sda /dev/kmsg 2>/dev/null")
		withHost(t, c, func(h *Host) { h.NoMknod = true })
		if out, _ := c.Output(); string(out) != "3\n1:3\n1:7\n" {
			t.Errorf("%q", out)
		}
		for _, s := range c.Plan().Steps {
			if s.Op == "mknod" {
				t.Errorf("after all: %s", s)
			}
		}
	})
	t.Run("no-devpts", func(t *testing.T) {
		c := shell(patience(t), Namespaced, "ls -A /dev/pts; ls /dev")
		withHost(t, c, func(h *Host) { h.NoDevpts = true })
		if out, err := c.Output(); err != nil || strings.Contains(string(out), "ptmx") || !strings.Contains(string(out), "null\npts\n") || len(c.Plan().Notes) == 0 {
			t.Errorf("%q, %v, %q", out, err, c.Plan().Notes)
		}
	})
	t.Run("no-aside", func(t *testing.T) {
		atEachLevel(t, func(t *testing.T, level Level) {
			c := shell(patience(t), level, "tail -n +3 /proc/net/dev | cut -d: -f1; cat /sys/class/net/lo/flags 2>/dev/null")
			withHost(t, c, func(h *Host) { h.NoAside = true })
			out, err := c.Output()
			if level >= Namespaced && string(out) != "    lo\n0x9\n" || err != nil {
				t.Errorf("%q, %v", out, err)
			}
		})
	})
	t.Run("no-maps", func(t *testing.T) {
		if os.Geteuid() != 0 {
			return // who maps nothing
		}
		dir := ownFolder(t, ordinaryID)
		must(os.WriteFile(dir+"/open", []byte("open "), 0o644))
		must(os.WriteFile(dir+"/closed", []byte("closed"), 0o600))
		c := shell(patience(t), Namespaced, "cat open closed 2>/dev/null; echo x 2>/dev/null >new && echo written; id -u")
		c.Dir = dir
		withHost(t, c, func(h *Host) { h.NoMaps = true })
		out, _ := c.Output()
		if !strings.HasPrefix(string(out), "open 19") || len(c.Plan().Notes) != 1 || !strings.Contains(c.Plan().Notes[0], "no user namespace can be made here") {
			t.Errorf("%q, %q", out, c.Plan().Notes)
		}
		c = shell(patience(t), Namespaced, "true")
		c.Spec().View = append(c.Spec().View, Rule{Kind: ShowWrite, Path: dir, Source: dir})
		withHost(t, c, func(h *Host) { h.NoMaps = true })
		var spec *SpecError
		if err := c.Run(); !errors.As(err, &spec) || spec.Field != "bind" {
			t.Errorf("%v", err)
		}
	})
	t.Run("no-hostname", func(t *testing.T) {
		outer, err := os.Hostname()
		must(err)
		c := shell(patience(t), Namespaced, "uname -n")
		withHost(t, c, func(h *Host) { h.NoHostname = true })
		if out, err := c.Output(); err != nil || string(out) != outer+"\n" || !strings.Contains(fmt.Sprint(c.Plan().Notes), "hostname") {
			t.Errorf("%q, %v, %q", out, err, c.Plan().Notes)
		}
		// One that was asked for is not forgotten.
		c = shell(patience(t), Namespaced, "uname -n")
		c.Spec().Hostname = "mine"
		withHost(t, c, func(h *Host) { h.NoHostname = true })
		if out, err := c.Output(); err != nil || string(out) != "mine\n" {
			t.Errorf("%q, %v", out, err)
		}
	})
	t.Run("no-scratch", func(t *testing.T) {
		c := shell(patience(t), User, `echo "$TMPDIR"; ls /etc/passwd`)
		withHost(t, c, func(h *Host) { h.NoScratch = true })
		if out, err := c.Output(); err != nil || string(out) != "\n/etc/passwd\n" || !strings.Contains(fmt.Sprint(c.Plan().Notes), "no private TMPDIR") {
			t.Errorf("%q, %v, %q", out, err, c.Plan().Notes)
		}
	})
	t.Run("no-children-list", func(t *testing.T) {
		c := shell(patience(t), Basic, "sleep 1000 & echo ran; exit 3")
		withHost(t, c, func(h *Host) { h.Children = false })
		if out, err := c.Output(); string(out) != "ran\n" || exitOf(t, err) != "3" {
			t.Errorf("%q, %v", out, err)
		}
	})
	t.Run("old-landlock", func(t *testing.T) {
		newest, err := landlockABI()
		if err != nil {
			t.Fatal(err)
		}
		for abi := 1; abi <= newest; abi++ {
			c := shell(patience(t), User, "echo ran; cat /etc/passwd >/dev/null; ls /var 2>&1 | grep -o denied")
			withHost(t, c, func(h *Host) { h.Landlock = abi })
			if out, err := c.Output(); err != nil || string(out) != "ran\ndenied\n" {
				t.Errorf("ABI %d: %q, %v", abi, out, err)
			}
		}
	})
}

// TestWaysAreLearned: the error that stands for each way is one of those that the table knows, and what is learned is
// what Compile asks for.
func TestWaysAreLearned(t *testing.T) {
	plan := &Plan{Steps: []Step{
		{Op: "mount", Type: "sysfs"},
		{Op: "mount", Type: "proc"},
		{Op: "bind", Source: "/plain"},
		{Op: "bind", Source: "/mapped", wire: wire{b: 7, d: 15}},
		{Op: "mount", Type: "devpts"},
		{Side: SideAside, Op: "unshare", List: []string{"CLONE_NEWNET"}},
		{Side: SideAside, Op: "unshare", List: []string{"CLONE_NEWUSER"}},
		{Side: SideAside, Op: "open", Path: "/proc/self/ns/net", wire: wire{a: netSlot}},
		{Side: SideInit, Op: "setns", wire: wire{a: netSlot}},
		{Side: SideAside, Op: "write", Path: "/proc/self/setgroups"},
		{Side: SideInit, Op: "write", Path: "/proc/self/setgroups"},
		{Side: SideLauncher, Op: "mkdir", Path: "/tmp/jail-tmp-7-x"},
		{Side: SideInit, Op: "mkdir", Path: "tmp"},
		{Side: SidePayload, Op: "setns", wire: wire{a: 15}},
		{Side: SideInit, Op: "sethostname"},
		{Side: SideInit, Op: "mknod", Path: "dev/null"},
	}}
	for _, c := range []struct {
		index int
		op    string
		errno syscall.Errno
		want  string // the facts, one for each time; "" is none
	}{
		{-1, "clone3", unix.ENOSYS, "NoClone3"},
		{-1, "clone3", unix.EPERM, ""},
		{-1, "clone3", unix.ENOSPC, ""},
		{-1, "clone", unix.ENOSYS, ""},
		{-1, "execveat", unix.EACCES, "NoMemfd"},
		{-1, "make jail-init", unix.ENOSYS, "NoMemfd"},
		{-1, "write the Plan", unix.EPERM, "NoMemfd"},
		{0, "mount", unix.EPERM, "NoMountCall NoSysfs"},
		{0, "mount", unix.ENODEV, "NoSysfs"},
		{0, "mount", unix.ENOMEM, ""},
		{1, "mount", unix.EPERM, "NoMountCall NoProc"},
		{1, "mount", unix.ENOSYS, "NoMountCall"},
		{4, "mount", unix.EPERM, "NoMountCall NoDevpts"},
		{4, "mount", unix.EINVAL, "NoDevpts"},
		{5, "unshare", unix.EPERM, "NoAside"},
		{5, "unshare", unix.ENOSPC, ""},
		{6, "unshare", unix.EPERM, "NoMaps"},
		{6, "unshare", unix.ENOSPC, "NoMaps"},
		{7, "open", unix.ENOENT, "NoAside"},
		{8, "setns", unix.ENOSYS, "NoAside"},
		{9, "write", unix.ENOENT, "NoMaps"},
		{10, "write", unix.ENOENT, ""},
		{10, "write", unix.EACCES, ""},
		{11, "mkdir", unix.EROFS, "NoScratch"},
		{11, "mkdir", unix.ENOSPC, ""},
		{12, "mkdir", unix.EACCES, ""},
		{13, "setns", unix.EPERM, ""},
		{14, "sethostname", unix.EPERM, "NoHostname"},
		{15, "mknod", unix.EPERM, "NoMknod"},
		{15, "mknod", unix.ENOSPC, ""},
		{2, "bind", unix.EINVAL, ""},
		{3, "bind", unix.EINVAL, "NoIDMapAt"},
		{3, "bind", unix.EPERM, "NoIDMapAt"},
		{3, "bind", unix.ENOENT, ""},
	} {
		h := &Host{NoIDMap: map[uint64]bool{}, NoIDMapAt: map[string]bool{}}
		// Once all is learned, the same failure again is a failure.
		var got []string
		for h.learn(plan, &StepError{Index: c.index, Op: c.op, Errno: c.errno}) {
			got = append(got, learned(h, got))
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%+v: learned %q", c, got)
		}
	}
	// A second folder that can't be mapped tells of the whole file system, the first does not.
	h := &Host{NoIDMap: map[uint64]bool{}, NoIDMapAt: map[string]bool{}}
	plan.Steps = append(plan.Steps, Step{Op: "bind", Source: "/other", wire: wire{b: 7, d: 15}})
	for i, step := range []int{3, len(plan.Steps) - 1} {
		if h.learn(plan, &StepError{Index: step, Op: "bind", Errno: unix.EINVAL}); h.NoIDMap[7] != (i == 1) {
			t.Errorf("after %d folders: %v", i+1, h.NoIDMap)
		}
	}
}

// learned is the fact that was learned since those before.
func learned(h *Host, before []string) string {
	v := reflect.ValueOf(h).Elem()
	for i := range v.NumField() {
		name, f := v.Type().Field(i).Name, v.Field(i)
		known := f.Kind() == reflect.Bool && f.Bool() || f.Kind() == reflect.Map && f.Len() > 0
		if strings.HasPrefix(name, "No") && known && !slices.Contains(before, name) {
			return name
		}
	}
	return "nothing new"
}

// TestBothNoIDMap runs in folders of a file system that can't map ids: an overlay, as containers have for their root.
func TestBothNoIDMap(t *testing.T) {
	if os.Geteuid() != 0 {
		lacks(t, "root, who alone needs id maps")
	}
	cmd := helper(testBinary(t), "overlay", 0, "DIR="+ownFolder(t, 0))
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
	out, err := cmd.CombinedOutput()
	if strings.HasPrefix(string(out), "host lacks: ") {
		t.Skip(strings.TrimSpace(string(out)))
	}
	if err != nil || string(out) != "ok\n" {
		t.Errorf("%v\n%s", err, out)
	}
}

func init() {
	helpers["no-memfd"] = func() {
		for _, level := range levelsHere() {
			c := shell(context.Background(), level, "echo ran")
			host, err := probe(c.Spec())
			must(err)
			host.NoMemfd = true
			c.host = host
			out, err := c.Output()
			must(err)
			fmt.Printf("%s %s", level, out)
		}
		// Not what a memfd is called, and nobody can write to it.
		fd, err := jailinit.Image(true)
		must(err)
		name, _ := os.Readlink(fmt.Sprint("/proc/self/fd/", fd))
		if strings.Contains(name, "memfd:") {
			must(errors.New("a memfd after all: " + name))
		}
	}
	helpers["overlay"] = func() {
		dir := os.Getenv("DIR")
		must(unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
		for _, d := range []string{"lower", "upper", "work", "merged", "lower/a", "lower/b", "lower/c", "lower/closed"} {
			must(os.Mkdir(filepath.Join(dir, d), 0o755))
		}
		must(os.Chmod(dir+"/lower/closed", 0o700))
		must(os.WriteFile(dir+"/lower/open", []byte("open"), 0o644))
		must(os.WriteFile(dir+"/lower/closed-file", []byte("closed"), 0o600))
		option := fmt.Sprintf("lowerdir=%s/lower,upperdir=%s/upper,workdir=%s/work", dir, dir, dir)
		if err := unix.Mount("overlay", dir+"/merged", "overlay", 0, option); err != nil {
			fmt.Println("host lacks: overlayfs:", err)
			return
		}
		merged := dir + "/merged"
		// The working folder: readable, with a note; what is closed to others stays closed.
		c := shell(context.Background(), Namespaced, "cat open; cat closed-file 2>/dev/null && echo leaked; echo x 2>/dev/null >new && echo written; exit 0")
		c.Dir = merged
		out, err := c.Output()
		must(err)
		if string(out) != "open" {
			// A kernel whose overlayfs can map ids shows all of it.
			fmt.Printf("host lacks: a file system that can't map ids: %q\n", out)
			return
		}
		if len(c.Plan().Notes) != 1 || !strings.Contains(c.Plan().Notes[0], "can't map ids") {
			must(fmt.Errorf("notes: %q", c.Plan().Notes))
		}
		// Several folders of it at once.
		c = shell(context.Background(), Namespaced, "cat open; ls -d /a /b /c")
		c.Dir = merged
		for _, name := range []string{"/a", "/b", "/c"} {
			c.Spec().View = append(c.Spec().View, Rule{Kind: Show, Path: name, Source: merged + name})
		}
		if out, err := c.CombinedOutput(); err != nil || string(out) != "open/a\n/b\n/c\n" {
			must(fmt.Errorf("four folders: %q, %w", out, err))
		}
		// To write, or to read what others can't, is refused; --user caller can.
		for _, r := range []Rule{
			{Kind: ShowWrite, Path: "/a", Source: merged + "/a"}, {Kind: Show, Path: "/closed", Source: merged + "/closed"},
		} {
			c = shell(context.Background(), Namespaced, "true")
			c.Spec().View = append(c.Spec().View, r)
			var spec *SpecError
			if err := c.Run(); !errors.As(err, &spec) || spec.Field != string(r.Kind) || !strings.Contains(spec.Problem, "--user caller") {
				must(fmt.Errorf("%s: %T %w", r.Kind, err, err))
			}
			c = shell(context.Background(), Namespaced, "ls -d "+r.Path)
			c.Spec().Identity = IdentityCaller
			c.Spec().View = append(c.Spec().View, r)
			out, err := c.Output()
			must(err)
			if string(out) != r.Path+"\n" {
				must(fmt.Errorf("%q", out))
			}
		}
		fmt.Println("ok")
	}
}

// must ends a helper.
func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// TestBothImagesAtOnce: a launch that finds that its image can't be executed takes the other while others use the
// first. None fails for that, or executes whatever has the image's number by then.
func TestBothImagesAtOnce(t *testing.T) {
	if out, err := helper(testBinary(t), "images", 0).CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("%v\n%s", err, out)
	}
}

func init() {
	helpers["images"] = func() {
		var launches sync.WaitGroup
		for range 4 {
			launches.Go(func() {
				for i := range pick(50, 500) {
					c := shell(context.Background(), Basic, "exit 7")
					host, err := probe(c.Spec())
					must(err)
					host.NoMemfd, c.host = i%2 == 0, host
					var exit *ExitError
					if err := c.Run(); !errors.As(err, &exit) || exit.ExitCode != 7 {
						must(fmt.Errorf("%T: %w", err, err))
					}
				}
			})
		}
		launches.Wait()
	}
}
