//go:build amd64 || arm64

package isolate

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// faultSpec is a Spec of a level in which as many kinds of steps as possible occur.
func faultSpec(t *testing.T, level Level) *Spec {
	s := NewSpec(level, "/bin/sh", "-c", "echo the payload ran")
	s.Process.Cwd = "/"
	s.Monitor = level == User || level == Contained
	if level == Namespaced {
		dir := t.TempDir()
		for _, d := range []string{dir + "/data", dir + "/data/secret"} {
			if err := os.Mkdir(d, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		s.View = append(s.View,
			Rule{Kind: ShowWrite, Path: "/data", Source: dir + "/data"}, Rule{Kind: Deny, Path: "/data/secret"},
			Rule{Kind: Tmpfs, Path: "/cache"}, Rule{Kind: Dir, Path: "/new/folder"}, Rule{Kind: Symlink, Path: "/new/link", Source: "x"})
	}
	if level == Contained {
		dir := t.TempDir()
		if err := os.Mkdir(dir+"/etc", 0o755); err != nil {
			t.Fatal(err)
		}
		s.Root = &specs.Root{Path: dir, Readonly: true}
		s.View = append(s.View,
			Rule{Kind: ShowWrite, Path: "/data", Source: dir}, Rule{Kind: Deny, Path: "/data/etc"}, Rule{Kind: Overlay, Path: "/copy", Source: dir},
			Rule{Kind: Dir, Path: "/new/folder"}, Rule{Kind: Symlink, Path: "/new/link", Source: "x"}, Rule{Kind: Device, Path: "/dev/other", Source: "/dev/null"})
	}
	return s
}

// planOf is the Plan that a run of s would have, less what changes from run to run.
func planOf(t *testing.T, s *Spec) *Plan {
	t.Helper()
	p, err := try(s)
	if err != nil {
		t.Fatal(err)
	}
	return p.plan
}

// unrepeated takes out what no two runs share: the uid and the names of the private folder and the cgroup.
func unrepeated(s string) string {
	s = anyScratch.ReplaceAllString(anyUID.ReplaceAllString(s, "UID"), "SCRATCH")
	return anyCgroup.ReplaceAllString(s, "CGROUP")
}

var (
	anyUID     = regexp.MustCompile(`19000\d{5}`)
	anyCgroup  = regexp.MustCompile(`"[a-z2-7]{12}"|/jail-[a-z2-7]{12}/`)
	anyScratch = regexp.MustCompile(scratchPrefix + `[0-9]+-[a-z0-9]+`)
)

// TestFaults lets each step of each level's Plan fail, one by one. Each time Start returns the step's own error, the
// payload has not run, and nothing is left.
func TestFaults(t *testing.T) {
	privateTemp(t)
	atEachLevel(t, func(t *testing.T, level Level) {
		leavesNothing(t)
		spec := faultSpec(t, level)
		plan := planOf(t, spec)
		sides := map[Side]int{}
		for n, want := range plan.Steps {
			sides[want.Side]++
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			cmd := FromSpec(patience(t), spec)
			cmd.Stdout, cmd.Stderr = w, w
			// EIO is what no step fails with of itself, and what no other way is known for.
			cmd.failStep, cmd.failErrno = uint32(n)+1, uint32(unix.EIO)
			err = cmd.Start()
			w.Close()
			// The end of the pipe is also the proof that no process holds it.
			said, _ := io.ReadAll(r)
			r.Close()
			if err == nil {
				t.Fatalf("step %d, %s: no failure", n, want)
			}
			if len(said) > 0 {
				t.Errorf("step %d, %s: something ran: %q", n, want, said)
			}
			var step *StepError
			if !errors.As(err, &step) {
				t.Fatalf("step %d, %s: %T %v", n, want, err, err)
			}
			if step.Index != n || step.Side != want.Side || step.Op != want.Op || step.Errno != unix.EIO ||
				unrepeated(step.Object) != unrepeated(want.object()) || !errors.Is(err, syscall.EIO) {
				t.Errorf("step %d, %s %s: got %+v", n, want.Side, want, step)
			}
			if res := cmd.Result(); res == nil || res.Reason != SetupFailed || res.Error != err.Error() || res.GivenLevel != 0 || res.ExitCode != -1 {
				t.Errorf("step %d, %s: Result %+v", n, want, res)
			}
			if !strings.Contains(err.Error(), "input/output error") || !strings.Contains(err.Error(), want.Op) {
				t.Errorf("step %d, %s: says %q", n, want, err)
			}
		}
		t.Logf("figure: %s: every step failed once: %v", level, sides)
		if sides[SideInit] == 0 || sides[SidePayload] == 0 || level == User && sides[SideLauncher] == 0 {
			t.Errorf("a side had no step: %v", sides)
		}
	})
}

// TestFaultsUnsupported lets each step fail as on a host that does not have it. Where that means a level less, the
// error is ErrUnsupported, has the step in it, and names a lower level that works; else it is the step's.
func TestFaultsUnsupported(t *testing.T) {
	privateTemp(t)
	for _, level := range []Level{User, Namespaced, Contained} {
		if !slices.Contains(levelsHere(), level) {
			continue
		}
		for _, errno := range []syscall.Errno{unix.ENOSYS, unix.EPERM, unix.EOPNOTSUPP} {
			t.Run(fmt.Sprintf("%s/%d", level, errno), func(t *testing.T) {
				leavesNothing(t)
				spec := NewSpec(level, "/bin/true")
				spec.Process.Cwd = "/"
				lacking := 0
				for n, s := range planOf(t, spec).Steps {
					if s.Type == "sysfs" { // has another way
						continue
					}
					cmd := FromSpec(patience(t), spec)
					cmd.failStep, cmd.failErrno = uint32(n)+1, uint32(errno)
					err := cmd.Start()
					var step *StepError
					if !errors.As(err, &step) || step.Index != n || step.Errno != errno {
						t.Fatalf("step %d, %s: %T %v", n, s, err, err)
					}
					var u *UnsupportedError
					if errors.As(err, &u) {
						lacking++
						if u.Level != level || u.Highest == 0 || u.Highest >= level || !errors.Is(err, ErrUnsupported) {
							t.Errorf("step %d, %s: %+v", n, s, u)
						}
					}
				}
				if lacking == 0 {
					t.Error("no step stands for a lack of the host")
				}
			})
		}
	}
}

// TestFaultsFewFDs starts jails from programs that may open only a few files: each starts, or fails with an error and
// leaves nothing, but none hangs.
func TestFaultsFewFDs(t *testing.T) {
	binary := testBinary(t)
	started, failed := 0, 0
	for n := 8; n <= 40; n += pick(2, 1) {
		cmd := helper(binary, "few-fds", 0, fmt.Sprint("LIMIT=", n), "TMPDIR="+os.TempDir())
		out, err := cmd.CombinedOutput()
		switch {
		case err != nil:
			t.Errorf("%d fds: %v\n%s", n, err, out)
		case strings.HasPrefix(string(out), "ran"):
			started++
		case strings.HasPrefix(string(out), "error: "):
			failed++
		default:
			t.Errorf("%d fds: %s", n, out)
		}
	}
	if started == 0 || failed == 0 {
		t.Errorf("%d started and %d failed: one side was not seen", started, failed)
	}
	t.Logf("figure: with 8 to 40 fds %d started, %d failed", started, failed)
}

func init() {
	helpers["few-fds"] = func() {
		var n uint64
		fmt.Sscan(os.Getenv("LIMIT"), &n)
		// Of the process alone: the payload's is the caller's.
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: n, Max: n}); err != nil {
			panic(err)
		}
		for level := Basic; level <= Namespaced; level++ {
			out, err := shell(context.Background(), level, "echo payload").Output()
			switch {
			case err != nil && len(out) > 0:
				panic(fmt.Sprintf("both %q and %v", out, err))
			case err != nil:
				fmt.Println("error:", level, err)
			case string(out) != "payload\n":
				panic(fmt.Sprintf("%q", out))
			default:
				fmt.Println("ran", level)
			}
		}
		if left := descendants(os.Getpid()); n > 20 && len(left) > 0 {
			panic(fmt.Sprint("left: ", left))
		}
	}
}
