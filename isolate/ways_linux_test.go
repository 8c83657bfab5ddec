//go:build amd64 || arm64

package isolate

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
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
	}}
	for _, c := range []struct {
		index int
		op    string
		errno syscall.Errno
		want  string // the fact, "" is none
	}{
		{-1, "clone3", unix.ENOSYS, "clone"},
		{-1, "clone3", unix.EPERM, ""},
		{-1, "clone", unix.ENOSYS, ""},
		{0, "mount", unix.EPERM, "sysfs"},
		{0, "mount", unix.ENOMEM, ""},
		{1, "mount", unix.EPERM, ""},
		{2, "bind", unix.EINVAL, ""},
		{3, "bind", unix.EINVAL, "idmap"},
		{3, "bind", unix.EPERM, "idmap"},
		{3, "bind", unix.ENOENT, ""},
	} {
		h := &Host{NoIDMap: map[uint64]bool{}, NoIDMapAt: map[string]bool{}}
		learned := h.learn(plan, &StepError{Index: c.index, Op: c.op, Errno: c.errno})
		got := map[bool]string{true: "clone"}[h.NoClone3] + map[bool]string{true: "sysfs"}[h.NoSysfs]
		if h.NoIDMapAt["/mapped"] {
			got += "idmap"
		}
		if got != c.want || learned != (c.want != "") {
			t.Errorf("%+v: learned %t, %q", c, learned, got)
		}
		// Once learned, the same failure again is a failure.
		if learned && h.learn(plan, &StepError{Index: c.index, Op: c.op, Errno: c.errno}) {
			t.Errorf("%+v: learned twice", c)
		}
	}
	// A second folder that can't be mapped tells of the whole file system, the first does not.
	h := &Host{NoIDMap: map[uint64]bool{}, NoIDMapAt: map[string]bool{}}
	plan.Steps = append(plan.Steps, Step{Op: "bind", Source: "/other", wire: wire{b: 7, d: 15}})
	for i, step := range []int{3, 4} {
		if h.learn(plan, &StepError{Index: step, Op: "bind", Errno: unix.EINVAL}); h.NoIDMap[7] != (i == 1) {
			t.Errorf("after %d folders: %v", i+1, h.NoIDMap)
		}
	}
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
