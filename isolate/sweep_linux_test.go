//go:build amd64 || arm64

package isolate

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// sleepers is a payload that gets away from everything that is named by a parent or a session. $COOKIE is in the
// environment of all.
const sleepers = `setsid sh -c 'setsid sleep 1000 & exit' & sleep 1000 & exec sleep 1000`

// TestBothKillSweep kills launchers at random moments, from the exec of the program to twice the time that its start
// takes. Soon after no payload and no jail-init is alive. Where bubblewrap is installed the same is done to it, and what
// is alive of it a second later is told, not judged. The integration tests do it to the command and to other peers.
func TestBothKillSweep(t *testing.T) {
	// Orphans of a killed launcher become ours: so none can be missed.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
	}()
	// What has no jail around it does survive, and is seen to.
	s := newSweep(t, func(cookie string) *exec.Cmd {
		cmd := exec.Command("/bin/sh", "-c", "echo up; "+sleepers)
		cmd.Env = []string{"PATH=" + testPath, cookie}
		return cmd
	})
	if s.run(t, 10); s.survived == 0 {
		t.Fatal("the sweep does not see what survives")
	}
	binary := testBinary(t)
	for _, uid := range users() {
		for _, level := range levelsOf(t, binary, uid) {
			t.Run(fmt.Sprintf("%s/%d", level, uid), func(t *testing.T) {
				s := newSweep(t, func(cookie string) *exec.Cmd {
					return helper(binary, "launch", uid, "LEVEL="+level.String(), cookie, "TMPDIR="+os.TempDir())
				})
				s.wait = longest
				s.run(t, pick(20, 1000))
				if s.survived > 0 || s.lost > 0 {
					t.Errorf("of %d killed launchers %d left a payload, and %d processes of other kinds", s.killed, s.survived, s.lost)
				}
			})
		}
		t.Run(fmt.Sprintf("bubblewrap/%d", uid), func(t *testing.T) {
			if !sweeping {
				t.Skip("only in test-full: JAIL_SWEEP=1")
			}
			bwrap := needs(t, "bwrap")
			s := newSweep(t, func(cookie string) *exec.Cmd {
				cmd := exec.Command(bwrap, "--unshare-all", "--die-with-parent", "--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev",
					"/bin/sh", "-c", "echo up; "+sleepers)
				cmd.Env = []string{"PATH=" + testPath, cookie}
				asUser(cmd, uid)
				return cmd
			})
			s.run(t, 1000)
		})
	}
}

func init() {
	helpers["launch"] = func() {
		var level Level
		must(level.UnmarshalText([]byte(os.Getenv("LEVEL"))))
		c := shell(context.Background(), level, "echo up; "+sleepers)
		c.Env = []string{"PATH=" + testPath, "COOKIE=" + os.Getenv("COOKIE")}
		c.Stdout = os.Stdout
		must(c.Start())
		_ = c.Wait()
	}
}

// sweep is launchers of one kind that are killed.
type sweep struct {
	command func(cookie string) *exec.Cmd
	typical time.Duration // from the launcher's start to the payload's first word
	wait    time.Duration // for the end of what was killed

	killed, inTime int // in time: before the payload's first word
	survived       int // launchers whose payload lived on
	lost           int // other processes that lived on
}

func newSweep(t *testing.T, command func(string) *exec.Cmd) *sweep {
	t.Helper()
	s := &sweep{command: command, wait: time.Second}
	var took []time.Duration
	for range 11 {
		start := time.Now()
		cmd, out := s.start(t, "COOKIE=none")
		if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "up\n" {
			t.Fatalf("%q, %v", line, err)
		}
		took = append(took, time.Since(start))
		kill(cmd, out)
	}
	slices.Sort(took)
	s.typical = took[len(took)/2]
	s.sweepUp(t, "COOKIE=none", map[int]bool{})
	return s
}

func (s *sweep) start(t *testing.T, cookie string) (*exec.Cmd, io.ReadCloser) {
	t.Helper()
	cmd := s.command(cookie)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout = w
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	return cmd, r
}

func kill(cmd *exec.Cmd, out io.Closer) {
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	out.Close()
}

// run kills n launchers, in batches that are looked at some time after the last kill, or as soon as all is gone.
func (s *sweep) run(t *testing.T, n int) {
	t.Helper()
	others := cgroupsOfJails() // that this sweep does not make
	before := map[int]bool{}
	for pid := range descendants(os.Getpid()) {
		before[pid] = true
	}
	for s.killed < n {
		cookie := fmt.Sprintf("COOKIE=%d-%d", os.Getpid(), time.Now().UnixNano())
		batch := min(50, n-s.killed)
		for i := range batch {
			cmd, out := s.start(t, fmt.Sprintf("%s-%d.", cookie, i))
			time.Sleep(time.Duration(rand.Int64N(int64(2 * s.typical))))
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
			// What it said until then is in the pipe; whoever survived it may hold the other end.
			fd := []unix.PollFd{{Fd: int32(out.(*os.File).Fd()), Events: unix.POLLIN}}
			if _, err := unix.Poll(fd, 0); err != nil || fd[0].Revents&unix.POLLIN == 0 {
				s.inTime++
			}
			out.Close()
			s.killed++
		}
		s.sweepUp(t, cookie, before)
	}
	// What a killed launcher could not take away itself.
	if removed, err := Collect(); err != nil {
		t.Errorf("after %q: %v", removed, err)
	}
	left := slices.DeleteFunc(cgroupsOfJails(), func(path string) bool { return slices.Contains(others, path) })
	if len(left) > 0 {
		t.Errorf("cgroups are left: %q", left)
	}
	t.Logf("figure: %s: %d launchers killed at 0 to %s after their start, %d of them before the payload ran: %d payloads and %d other processes survived",
		t.Name(), s.killed, (2 * s.typical).Round(10*time.Microsecond), s.inTime, s.survived, s.lost)
}

// sweepUp counts what is alive of a batch after that time, and ends it.
func (s *sweep) sweepUp(t *testing.T, cookie string, before map[int]bool) {
	t.Helper()
	var payloads map[string]bool
	var others []int
	look := func() (alive []int) {
		payloads, others = map[string]bool{}, nil
		for pid := range descendants(os.Getpid()) {
			if before[pid] {
				continue
			}
			if isZombie(pid) { // an orphan that came to us
				_, _ = unix.Wait4(pid, nil, unix.WNOHANG, nil)
				continue
			}
			alive = append(alive, pid)
			if c := cookieOf(pid, cookie); c != "" {
				payloads[c] = true
			} else {
				others = append(others, pid)
			}
		}
		return alive
	}
	end := time.Now().Add(s.wait)
	for len(look()) > 0 && time.Now().Before(end) {
		time.Sleep(5 * time.Millisecond)
	}
	s.survived += len(payloads)
	if len(payloads) == 0 { // those of bubblewrap's are its own helpers beside the payload
		s.lost += len(others)
	}
	for end = time.Now().Add(longest); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		alive := look()
		if len(alive) == 0 {
			return
		}
		for _, pid := range alive {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
	}
	t.Errorf("processes that can't be ended: %v", others)
}

// cookieOf is the cookie in a process's environment that begins with one.
func cookieOf(pid int, prefix string) string {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	for kv := range strings.SplitSeq(string(b), "\x00") {
		if strings.HasPrefix(kv, prefix) {
			return kv
		}
	}
	return ""
}
