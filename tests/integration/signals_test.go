//go:build linux

package integration

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// catcher starts a payload that says which signals it gets.
func (b *box) catcher(cmd *exec.Cmd) *bufio.Scanner {
	b.t.Helper()
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.t.Fatal(err)
	}
	b.running(cmd)
	lines := bufio.NewScanner(out)
	if !lines.Scan() || lines.Text() != "ready" {
		b.t.Fatalf("got %q", lines.Text())
	}
	return lines
}

// What is sent to the command reaches the payload: once, and real-time signals with their value.
func TestSignalsReachThePayload(t *testing.T) {
	each(t, allLevels, func(t *testing.T, a arm) {
		b := newBox(t, a)
		cmd := b.command(nil, tool("procs"), "catch")
		lines := b.catcher(cmd)
		pid := cmd.Process.Pid
		expect := func(sig int, prefix string) {
			t.Helper()
			if !lines.Scan() || !strings.HasPrefix(lines.Text(), prefix) {
				t.Errorf("signal %d: got %q, want %q", sig, lines.Text(), prefix)
			}
		}
		for _, sig := range []syscall.Signal{
			unix.SIGINT, unix.SIGHUP, unix.SIGUSR1, unix.SIGUSR2, unix.SIGQUIT, unix.SIGALRM, unix.SIGWINCH, unix.SIGTTIN, unix.SIGTTOU,
			unix.SIGXCPU, unix.SIGIO, unix.SIGPWR, unix.SIGVTALRM, unix.SIGSYS,
			unix.SIGTRAP, unix.SIGABRT,
		} {
			if err := syscall.Kill(pid, sig); err != nil {
				t.Fatal(err)
			}
			expect(int(sig), fmt.Sprintf("signal %d ", int(sig)))
		}
		for i, sig := range []int{34, 35, 37, 50, 64} {
			value := 1000 + i
			if out, err := exec.Command(tool("procs"), "sigqueue", strconv.Itoa(pid), strconv.Itoa(sig), strconv.Itoa(value)).CombinedOutput(); err != nil {
				t.Fatal(err, string(out))
			}
			expect(sig, fmt.Sprintf("signal %d code -1 value %d", sig, value))
		}
		// None is lost or merged among the real-time ones: they queue.
		for i := range 50 {
			if err := exec.Command(tool("procs"), "sigqueue", strconv.Itoa(pid), "40", strconv.Itoa(i)).Run(); err != nil {
				t.Fatal(err)
			}
		}
		for i := range 50 {
			expect(40, fmt.Sprintf("signal 40 code -1 value %d", i))
		}
		if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		expect(15, "signal 15 ")
		_ = cmd.Wait()
		if code := cmd.ProcessState.ExitCode(); code != 42 {
			t.Errorf("exit code %d", code)
		}
	})
}

// A signal while the jail starts is not lost either.
func TestSignalAtStart(t *testing.T) {
	each(t, allLevels, func(t *testing.T, a arm) {
		b := newBox(t, a)
		for i := range 20 {
			cmd := b.command(nil, "sleep", "120")
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Duration(i) * 500 * time.Microsecond)
			_ = cmd.Process.Signal(syscall.SIGTERM)
			hung := time.AfterFunc(patience, func() { _ = cmd.Process.Kill() })
			_ = cmd.Wait()
			if !hung.Stop() {
				t.Fatalf("SIGTERM after %d ms was lost", i/2)
			}
			ws := cmd.ProcessState.Sys().(syscall.WaitStatus)
			if code := cmd.ProcessState.ExitCode(); code != 143 && !(ws.Signaled() && ws.Signal() == syscall.SIGTERM) {
				t.Errorf("after %d ms: %v", i/2, cmd.ProcessState)
			}
		}
	})
}

// P31: what the caller ignores and blocks the payload ignores and blocks, and nothing more.
func TestP31_Dispositions(t *testing.T) {
	each(t, allLevels, func(t *testing.T, a arm) {
		b := newBox(t, a)
		for _, c := range [][2]int{{0, 0}, {1, 0}, {2, 0}, {3, 10}, {13, 0}, {17, 0}, {0, 12}, {40, 0}, {0, 40}, {15, 15}, {20, 0}} {
			for _, argv := range [][]string{{"grep", "^Sig[BI]", "/proc/self/status"}} {
				want := b.finish(b.as(append([]string{tool("procs"), "dispose", strconv.Itoa(c[0]), strconv.Itoa(c[1]), need(t, argv[0])}, argv[1:]...)...))
				got := b.finish(b.as(append([]string{tool("procs"), "dispose", strconv.Itoa(c[0]), strconv.Itoa(c[1])}, b.command(nil, argv...).Args...)...))
				if got.code != 0 || got.stdout != want.stdout {
					t.Errorf("ignored %d, blocked %d: %+v, want %s", c[0], c[1], got, want.stdout)
				}
			}
		}
	})
}

// nohup goes on working.
func TestNohup(t *testing.T) {
	each(t, allLevels, func(t *testing.T, a arm) {
		b := newBox(t, a)
		cmd := b.as(append([]string{"nohup"}, b.command(nil, "sh", "-c", "echo ready; read line; sleep 0.3; echo survived").Args...)...)
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		cmd.Stderr = io.Discard
		b.running(cmd)
		lines := bufio.NewScanner(out)
		if !lines.Scan() || lines.Text() != "ready" {
			t.Fatalf("got %q", lines.Text())
		}
		if err := cmd.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		in.Close()
		if !lines.Scan() || lines.Text() != "survived" {
			t.Errorf("got %q", lines.Text())
		}
	})
}

// SIGTSTP stops the payload and the command, as a shell's user expects; SIGCONT has both go on.
func TestStopAndContinue(t *testing.T) {
	each(t, allLevels, func(t *testing.T, a arm) {
		b := newBox(t, a)
		cmd := b.command(nil, "sleep", "60")
		// A process group of its own, and not orphaned: an orphaned one ignores SIGTSTP.
		cmd.SysProcAttr.Setpgid = true
		b.running(cmd)
		_, payload := initOf(t, cmd.Process.Pid)
		for range 3 {
			if err := cmd.Process.Signal(syscall.SIGTSTP); err != nil {
				t.Fatal(err)
			}
			eventually(t, "both are stopped", func() bool { return state(cmd.Process.Pid) == "T" && state(payload) == "T" })
			if err := cmd.Process.Signal(syscall.SIGCONT); err != nil {
				t.Fatal(err)
			}
			eventually(t, "both go on", func() bool { return state(cmd.Process.Pid) != "T" && state(payload) == "S" })
		}
	})
}

// A shell in a jail with a child, on a terminal: ^C ends the child and reaches the shell.
func TestInterruptThroughTerminal(t *testing.T) {
	each(t, allLevels, func(t *testing.T, a arm) {
		b := newBox(t, a)
		master, slave := openPTY(t)
		defer master.Close()
		cmd := b.command(nil, "sh", "-c", "trap 'echo trapped' INT; echo ready; sleep 60; echo after; exit 7")
		cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
		cmd.SysProcAttr.Setsid, cmd.SysProcAttr.Setctty = true, true
		b.running(cmd)
		slave.Close()
		text := make(chan string, 100)
		go func() {
			s := bufio.NewScanner(master)
			for s.Scan() {
				text <- strings.TrimSpace(s.Text())
			}
			close(text)
		}()
		wait := func(want string) {
			t.Helper()
			for {
				select {
				case line, ok := <-text:
					if !ok {
						t.Fatalf("the terminal closed before %q", want)
					}
					if strings.HasSuffix(line, want) {
						return
					}
				case <-time.After(patience):
					t.Fatalf("%q did not come", want)
				}
			}
		}
		wait("ready")
		_, shell := initOf(t, cmd.Process.Pid)
		eventually(t, "the shell has a child", func() bool { return len(children(shell)) == 1 && comm(children(shell)[0]) == "sleep\n" })
		if _, err := master.Write([]byte{3}); err != nil {
			t.Fatal(err)
		}
		wait("trapped")
		wait("after")
		_ = cmd.Wait()
		if code := cmd.ProcessState.ExitCode(); code != 7 {
			t.Errorf("exit code %d", code)
		}
	})
}

func openPTY(t *testing.T) (master, slave *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skip("host lacks: a terminal (/dev/ptmx)")
	}
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	return master, slave
}

// 128+signal, whatever the signal.
func TestExitCodeOfSignals(t *testing.T) {
	each(t, allLevels, func(t *testing.T, a arm) {
		b := newBox(t, a)
		for _, sig := range []int{1, 2, 3, 4, 6, 8, 9, 11, 13, 14, 15, 24, 31, 34, 37, 64} {
			if o := b.run(nil, tool("procs"), "raise", strconv.Itoa(sig)); o.code != 128+sig {
				t.Errorf("signal %d: %+v", sig, o)
			}
		}
	})
}
