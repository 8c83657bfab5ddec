//go:build amd64 || arm64

package isolate

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// TestDowngrade: a host without namespaces, and one without Landlock as well.
func TestDowngrade(t *testing.T) {
	if os.Geteuid() == 0 {
		return // what root lacks is in TestBothRealLacks
	}
	noNamespaces := func(h *Host) {
		delete(h.Files, "/dev/null")
		h.Files["/dev/null"] = FileInfo{Err: unix.ENOENT}
		h.Caps = 0
	}
	noLandlock := func(h *Host) { noNamespaces(h); h.Landlock = 0 }
	for _, c := range []struct {
		change func(*Host)
		want   Level
		lost   []Guarantee
	}{
		{noNamespaces, User, promises[Namespaced]},
		{noLandlock, Basic, append(append([]Guarantee{}, FileView, BaselineFilter), promises[Namespaced]...)},
	} {
		t.Run(c.want.String(), func(t *testing.T) {
			leavesNothing(t)
			cmd := shell(patience(t), Namespaced, "echo ran; exit 3")
			withHost(t, cmd, c.change)
			err := cmd.Run()
			var u *UnsupportedError
			// The highest is found by trying, on the real host.
			if !errors.As(err, &u) || !errors.Is(err, ErrUnsupported) || u.Level != Namespaced || u.Highest != User || u.Missing == "" ||
				!strings.Contains(err.Error(), "the highest level that works here is user") {
				t.Fatalf("%T %v", err, err)
			}
			if r := cmd.Result(); r.Reason != SetupFailed || r.GivenLevel != 0 {
				t.Errorf("%+v", r)
			}
			cmd = shell(patience(t), Namespaced, "echo ran; exit 3")
			cmd.Spec().AllowDowngrade = true
			withHost(t, cmd, c.change)
			cmd.host.Scratch = filepath.Join(os.TempDir(), scratchPrefix+"test")
			out, err := cmd.Output()
			r := cmd.Result()
			if string(out) != "ran\n" || exitOf(t, err) != "3" || r.Level != Namespaced || r.GivenLevel != c.want {
				t.Fatalf("%q, %v, %+v", out, err, r)
			}
			if fmt.Sprint(r.LostGuarantees) != fmt.Sprint(c.lost) {
				t.Errorf("lost %v, want %v", r.LostGuarantees, c.lost)
			}
			if !strings.Contains(r.String(), fmt.Sprintf("at level %s (asked for namespaced)", c.want)) {
				t.Errorf("says %q", r)
			}
			// A rule that the lower level can't keep is not dropped.
			cmd = shell(patience(t), Namespaced, "echo ran")
			cmd.Spec().AllowDowngrade = true
			cmd.Spec().View = append(cmd.Spec().View, Rule{Kind: Tmpfs, Path: "/cache"})
			withHost(t, cmd, c.change)
			if out, err := cmd.Output(); err == nil || len(out) > 0 {
				t.Errorf("a tmpfs was forgotten: %q, %v", out, err)
			}
			// What can't be run can't be run at any level, and the level that stood is told.
			cmd = Command(patience(t), Namespaced, "/etc/passwd")
			cmd.Dir, cmd.Spec().AllowDowngrade = "/", true
			withHost(t, cmd, c.change)
			cmd.host.Scratch = filepath.Join(os.TempDir(), scratchPrefix+"test")
			var exec *ExecError
			if err := cmd.Run(); !errors.As(err, &exec) || cmd.Result().GivenLevel != c.want {
				t.Errorf("%v, %+v", err, cmd.Result())
			}
		})
	}
}

// TestBothRealLacks: hosts that really lack something, made by what a process can take from itself.
func TestBothRealLacks(t *testing.T) {
	binary := testBinary(t)
	for _, c := range []struct {
		name, prefix, part string
		root               bool // who is concerned
		want               string
	}{
		// The limit is that of a user namespace around the user's own.
		{
			"no-net-namespaces", `unshare -Ur sh -c 'echo 0 >/proc/sys/user/max_net_namespaces && exec unshare -U --map-user=7 --map-group=7 "$@"' sh`, "lack-namespaces", false,
			`(clone3|unshare) CLONE_NEW\S*: no space left on device \(the highest level that works here is user\)`,
		},
		{
			"no-capabilities", "setpriv --bounding-set -all --inh-caps -all", "lack-capabilities", true,
			`: root here lacks CAP_KILL, CAP_SETGID, CAP_SETUID, CAP_SETPCAP \(the highest level that works here is basic\)`,
		},
		{"no-processes", "env", "lack-processes", false, `clone3 CLONE_NEWUSER\S*: resource temporarily unavailable`},
	} {
		for _, uid := range users() {
			if root := uid == 0; root != c.root {
				continue
			}
			t.Run(c.name, func(t *testing.T) {
				needs(t, strings.Fields(c.prefix)[0])
				cmd := helper(binary, c.part, uid)
				cmd.Path, cmd.Args = "/bin/sh", []string{"sh", "-c", "exec " + c.prefix + ` "$@"`, "sh", binary}
				out, err := cmd.CombinedOutput()
				if err != nil || !regexp.MustCompile(c.want).Match(out) {
					t.Errorf("%v\n got %s\nwant %s", err, out, c.want)
				}
			})
		}
	}
}

func init() {
	lack := func(want func(error) bool) {
		c := shell(context.Background(), Namespaced, "true")
		err := c.Run()
		fmt.Println(err)
		if err == nil || !want(err) || c.Result().Reason != SetupFailed {
			must(fmt.Errorf("%T, %+v", err, c.Result()))
		}
	}
	downgraded := func(want Level) {
		lack(func(err error) bool { return errors.Is(err, ErrUnsupported) })
		c := shell(context.Background(), Namespaced, "true")
		c.Spec().AllowDowngrade = true
		must(c.Run())
		if c.Result().GivenLevel != want {
			must(fmt.Errorf("%+v", c.Result()))
		}
	}
	helpers["lack-namespaces"] = func() { downgraded(User) }
	helpers["lack-capabilities"] = func() { downgraded(Basic) }
	helpers["lack-processes"] = func() {
		// Go ends a program in which it can't make a thread: so there are enough of them before.
		var wg sync.WaitGroup
		for range 10 {
			wg.Go(func() { _ = unix.Nanosleep(&unix.Timespec{Nsec: 5e7}, nil) })
		}
		wg.Wait()
		must(unix.Setrlimit(unix.RLIMIT_NPROC, &unix.Rlimit{Cur: 1, Max: 1}))
		lack(func(err error) bool {
			var step *StepError
			return errors.As(err, &step) && step.Index == -1 && step.Errno == unix.EAGAIN
		})
	}
}
