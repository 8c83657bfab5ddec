//go:build linux

package integration

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// P08, P27: from the payload's first instruction on nothing opens the way into PID 1, or into the parent where there
// is no PID namespace. Hundreds of short attacks at the start, and long ones.
func TestP08_P27_AttackAtStart(t *testing.T) {
	each(t, userAndUp, func(t *testing.T, a arm) {
		b := newBox(t, a)
		n, long := 60, "300"
		if sweep {
			n, long = 2000, "10000"
		}
		attack := func(ms string) []string {
			argv := []string{tool("attack"), ms}
			if a.level == "user" {
				argv = append(argv, "parent")
			}
			return argv
		}
		// The bare arm reaches its parent: the probe can succeed.
		bare := b.finish(b.as("sh", "-c", tool("attack")+" 0 parent; true"))
		if !strings.Contains(bare.stdout, "open environ") || !strings.Contains(bare.stdout, "ptrace") {
			t.Fatalf("the bare arm reaches nothing either: %+v", bare)
		}
		var done sync.WaitGroup
		for range 2 {
			done.Go(func() {
				for range n / 2 {
					if o := b.run(nil, attack("0")...); o.code != 0 || !strings.HasPrefix(o.stdout, "tried ") {
						t.Errorf("%+v", o)
						return
					}
				}
			})
		}
		done.Wait()
		if o := b.run(nil, attack(long)...); o.code != 0 || !strings.HasPrefix(o.stdout, "tried ") {
			t.Errorf("%+v", o)
		}
	})
}

// Nor as the caller's own uid, which for root is the one that owns /proc/1: only the files that go by owner alone are
// open then, and they harm nobody but the jail.
func TestP08_AttackAsCaller(t *testing.T) {
	each(t, namespacedUp, func(t *testing.T, a arm) {
		b := newBox(t, a)
		o := b.run([]string{"--user", "caller"}, tool("attack"), "50")
		o.stdout = strings.ReplaceAll(o.stdout, "open oom_score_adj\n", "")
		if !strings.HasPrefix(o.stdout, "tried ") {
			t.Errorf("%+v", o)
		}
	})
}

// Signals from inside do not touch PID 1, nor do they end the jail.
func TestKillPID1(t *testing.T) {
	each(t, []string{"namespaced"}, func(t *testing.T, a arm) {
		b := newBox(t, a)
		out := b.sh(nil, tool("procs")+" kill1; for i in $(seq 400); do s=$(cut -d' ' -f3 /proc/1/stat); [ $s = S ] && break; sleep 0.05; done; echo $s; echo alive")
		if !strings.HasSuffix(out, "S\nalive\n") || strings.Count(out, "kill ") != 2 {
			t.Errorf("got %q", out)
		}
	})
}

// P30: a payload can't signal what is outside: at user by Landlock's scope and by its uid.
func TestP30_SignalsOutside(t *testing.T) {
	each(t, userAndUp, func(t *testing.T, a arm) {
		if a.level == "user" && !a.root && !scoped() {
			t.Skip("host lacks: Landlock's scopes")
		}
		b := newBox(t, a)
		canary := b.running(b.as("sleep", "60"))
		pid := strconv.Itoa(canary.Process.Pid)
		script := "kill -0 " + pid + " 2>/dev/null && echo REACHED; kill -9 " + pid + " 2>/dev/null && echo KILLED; kill -STOP $PPID 2>/dev/null; kill -9 $PPID 2>/dev/null; " +
			"trap '' TERM; kill -TERM -1 2>/dev/null; echo on"
		if bare := b.bare("sh", "-c", "kill -0 "+pid+" && echo REACHED"); bare.stdout != "REACHED\n" {
			t.Fatalf("the bare arm reaches nothing either: %+v", bare)
		}
		if o := b.run(nil, "sh", "-c", script); o.code != 0 || o.stdout != "on\n" {
			if a.like() == "namespaced" && strings.Contains(o.stdout, "REACHED") {
				o.stdout += "(a process of the jail may have that number)"
			}
			t.Errorf("%+v", o)
		}
		eventually(t, "the canary sleeps on", func() bool { return state(canary.Process.Pid) == "S" })
	})
}

// P61: zombies are reaped, by whoever is the jail's init.
func TestP61_Zombies(t *testing.T) {
	each(t, allLevels, func(t *testing.T, a arm) {
		b := newBox(t, a)
		n := 300
		if sweep {
			n = 5000
		}
		cmd := b.command(nil, "sh", "-c", fmt.Sprintf("%s orphans %d; echo done; read line", tool("procs"), n))
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		b.running(cmd)
		if _, err := out.Read(make([]byte, 10)); err != nil {
			t.Fatal(err)
		}
		init, _ := initOf(t, cmd.Process.Pid)
		eventually(t, "jail-init has one child, the shell", func() bool { return len(children(init)) == 1 })
		in.Close()
	})
}

// P73: orphans die with the payload, whatever they did to be left alone; at once, and the command ends after them.
func TestP73_OrphansDieWithThePayload(t *testing.T) {
	each(t, allLevels, func(t *testing.T, a arm) {
		b := newBox(t, a)
		for _, attack := range []string{"leave", "chains"} {
			start := time.Now()
			b.ok(nil, tool("procs"), attack, "8")
			if left := pidsWith(b.cookie); len(left) != 0 {
				t.Errorf("%s: after the command's end there is %v", attack, left)
			}
			if took := time.Since(start); took > patience {
				t.Errorf("%s took %s", attack, took)
			}
		}
	})
}

// P73: and with the launcher, and at a time-out.
func TestP73_OrphansDieWithTheLauncher(t *testing.T) {
	each(t, allLevels, func(t *testing.T, a arm) {
		b := newBox(t, a)
		script := tool("procs") + " leave 4; trap '' TERM HUP INT; echo ready; exec sleep 1000"
		for _, how := range []string{"kill", "timeout", "stopped"} {
			var flags []string
			if how == "timeout" {
				flags = []string{"--timeout", "2s", "--kill-after", "50ms"}
			}
			cmd := b.command(flags, "sh", "-c", script)
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			buf := make([]byte, 10)
			if n, _ := out.Read(buf); string(buf[:n]) != "ready\n" && how != "timeout" { // which may come first
				t.Errorf("%s: got %q", how, buf[:n])
			}
			if asRoot && how != "timeout" {
				eventually(t, how+": the oracle sees them all", func() bool { return len(pidsWith(b.cookie)) >= 5 })
			}
			switch how {
			case "kill":
				_ = cmd.Process.Kill()
			case "stopped": // a stopped payload dies too
				for _, pid := range pidsWith(b.cookie) {
					_ = syscall.Kill(pid, syscall.SIGSTOP)
				}
				_ = cmd.Process.Kill()
			}
			_ = cmd.Wait()
			eventually(t, how+": nobody is left", func() bool { return len(pidsWith(b.cookie)) == 0 })
		}
		b.swept()
	})
}

// P73: also before the payload's exec, which may take for ever: here somebody has stopped it, among many names to try.
func TestP73_LauncherDiesBeforeTheExec(t *testing.T) {
	each(t, allLevels, func(t *testing.T, a arm) {
		b := newBox(t, a)
		var cmd *exec.Cmd
		var init, side int
		stopped := func() bool {
			cmd = b.command([]string{"--env", "PATH=" + strings.Repeat("a:", 60000)}, "no-such-command")
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			found := false // once it has its session
		search:
			for state(cmd.Process.Pid) != "Z" {
				for _, init = range children(cmd.Process.Pid) {
					for _, side = range children(init) {
						if sid, err := unix.Getsid(side); err == nil && sid == side {
							found = true
							break search
						}
					}
				}
			}
			fd, err := unix.PidfdOpen(side, 0) // its number may soon be another's
			if !found || err != nil {
				_ = cmd.Wait()
				return false
			}
			t.Cleanup(func() {
				_ = unix.PidfdSendSignal(fd, syscall.SIGKILL, nil, 0)
				unix.Close(fd)
			})
			_ = unix.PidfdSendSignal(fd, syscall.SIGSTOP, nil, 0)
			for state(side) != "T" {
				if state(cmd.Process.Pid) == "Z" {
					_ = cmd.Wait()
					return false
				}
			}
			return true
		}
		eventually(t, "it is stopped before its search is over", stopped)
		if comm(side) != comm(init) {
			t.Fatalf("it was %q already", comm(side))
		}
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		eventually(t, "nobody is left", func() bool { return strings.Trim(state(init)+state(side), "Z") == "" })
		b.swept()
	})
}

// P73: what goes by the uid alone does not keep jail-init from its work: prlimit(2), where the filter is off, takes away
// the fds that its poll(2) may watch, and its CPU time; at namespaced signals may come without pause.
func TestP73_SupervisorUnderAttack(t *testing.T) {
	each(t, userAndUp, func(t *testing.T, a arm) {
		type attack struct {
			flags, argv []string
			last        string // line: the attack is made
		}
		attacks := []attack{
			{nil, []string{"starve"}, "cpu EPERM"},
			{[]string{"--seccomp", "unconfined"}, []string{"starve", "fds"}, "nofile "},
		}
		if a.level != "user" || a.root { // see SECURITY.md: there it is not promised
			attacks = append(attacks, attack{[]string{"--seccomp", "unconfined"}, []string{"starve"}, "cpu "})
		}
		if a.like() == "namespaced" {
			attacks = append(attacks, attack{nil, []string{"flood", "4"}, "flood"})
		}
		for _, attack := range attacks {
			for _, end := range []string{"launcher killed", "time-out"} {
				t.Run(strings.Join(append(attack.argv, attack.flags...), " ")+"/"+end, func(t *testing.T) {
					t.Parallel()
					b := newBox(t, a)
					flags := attack.flags
					if end == "time-out" {
						flags = append([]string{"--timeout", "700ms"}, flags...)
					}
					cmd := b.command(flags, append([]string{tool("procs")}, attack.argv...)...)
					out, err := cmd.StdoutPipe()
					if err != nil {
						t.Fatal(err)
					}
					if err := cmd.Start(); err != nil {
						t.Fatal(err)
					}
					hung := time.AfterFunc(longest, func() { _ = cmd.Process.Kill() })
					made := false
					for lines := bufio.NewScanner(out); !made && lines.Scan(); {
						made = strings.HasPrefix(lines.Text(), attack.last)
					}
					if end == "launcher killed" {
						if !made {
							t.Error("the attack was not made")
						}
						_ = cmd.Process.Kill()
					}
					_ = cmd.Wait()
					if !hung.Stop() {
						t.Error("the command goes on for ever")
					}
					eventually(t, "nobody is left", func() bool { return len(pidsWith(b.cookie)) == 0 })
					b.swept()
				})
			}
		}
	})
}

// jail-init's own environment is empty, and it can't be made to dump.
func TestInitTellsNothing(t *testing.T) {
	each(t, allLevels, func(t *testing.T, a arm) {
		if !asRoot {
			t.Skip("host lacks: the right to look at jail-init (root)")
		}
		b := newBox(t, a)
		cmd := b.running(b.command(nil, "sleep", "60"))
		init, _ := initOf(t, cmd.Process.Pid)
		dir := fmt.Sprintf("/proc/%d", init)
		env, err := os.ReadFile(filepath.Join(dir, "environ"))
		if err != nil || len(env) != 0 {
			t.Errorf("environ is %q, %v", env, err)
		}
		eventually(t, "jail-init has dropped what its start needed", func() bool {
			eff := statusOf(init)["CapEff"]
			return eff == noCaps || eff == "0000000000000020" // CAP_KILL
		})
		st := statusOf(init)
		if st["CapInh"] != noCaps || st["CapAmb"] != noCaps || a.level == "basic" && st["CapEff"] != noCaps {
			t.Errorf("capabilities: %s %s %s", st["CapInh"], st["CapAmb"], st["CapEff"])
		}
		if exe, _ := os.Readlink(filepath.Join(dir, "exe")); !strings.HasPrefix(exe, "/memfd:jail-init") {
			t.Errorf("exe is %q", exe)
		}
		// /proc files of a process that is not dumpable belong to root
		if info, err := os.Stat(filepath.Join(dir, "environ")); err != nil || info.Sys().(*syscall.Stat_t).Uid != 0 {
			t.Errorf("it is dumpable: %v", err)
		}
	})
}

// stealFDs goes through PID 1 for the launcher's pidfd, and through that for the launcher's fds.
const stealFDs = `import ctypes, os
c = ctypes.CDLL(None, use_errno=True)
init = c.syscall(434, 1, 0)
for n in range(100):
    fd = c.syscall(438, init, n, 0)
    if fd >= 0 and 'pidfd' in os.readlink('/proc/self/fd/%d' % fd):
        for m in range(100):
            stolen = c.syscall(438, fd, m, 0)
            if stolen >= 0: print('stolen', m, os.readlink('/proc/self/fd/%d' % stolen))
print('tried')`

// CAP_SYS_PTRACE is asked for to debug what is inside. PID 1 holds a pidfd of the launcher: through it nothing of the
// launcher, which may be any program that uses the library, may come in.
func TestP27_PtraceCapabilityStaysInside(t *testing.T) {
	each(t, userAndUp, func(t *testing.T, a arm) {
		if !a.root && a.level == "user" {
			return // it has none to give
		}
		b := newBox(t, a)
		program := stealFDs
		if a.level == "user" {
			program = strings.Replace(program, "434, 1, 0", "434, os.getppid(), 0", 1)
		}
		if a.like() == "namespaced" && a.root && !scoped() {
			if o := b.run([]string{"--cap-add", "SYS_PTRACE"}, "echo", "started"); o.code != 125 || o.stdout != "" || !strings.Contains(o.stderr, "Landlock ABI 6") {
				t.Errorf("got %+v", o)
			}
			return
		}
		if out := b.python([]string{"--cap-add", "SYS_PTRACE"}, program); out != "tried\n" {
			t.Errorf("got %s", out)
		}
	})
}
