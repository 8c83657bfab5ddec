//go:build amd64 || arm64

package isolate

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestCancel: what Cancel and WaitDelay do, as in os/exec.
func TestCancel(t *testing.T) {
	atEachLevel(t, func(t *testing.T, level Level) {
		leavesNothing(t)
		// Cancel asks, and the payload ends by itself.
		ctx, cancel := context.WithCancel(patience(t))
		c := shell(ctx, level, "trap 'exit 6' TERM; echo; while :; do sleep 0.01; done")
		c.Cancel = func() error { return c.Process.Signal(unix.SIGTERM) }
		startAndRead(t, c)
		cancel()
		if err := c.Wait(); exitOf(t, err) != "cancelled" || c.Result().ExitCode != 6 {
			t.Errorf("%v, %+v", err, c.Result())
		}
		// It does not listen: WaitDelay ends it.
		ctx, cancel = context.WithCancel(patience(t))
		c = shell(ctx, level, "trap '' TERM; echo; sleep 1000; sleep 1000")
		c.Cancel, c.WaitDelay = func() error { return c.Process.Signal(unix.SIGTERM) }, 150*time.Millisecond
		startAndRead(t, c)
		start := time.Now()
		cancel()
		if err := c.Wait(); exitOf(t, err) != "cancelled" || c.Result().Signal != "SIGKILL" {
			t.Errorf("%v, %+v", err, c.Result())
		}
		if took := time.Since(start); took < 150*time.Millisecond || took > longest/2 {
			t.Errorf("took %s", took)
		}
		// Before the start, and while it is being made.
		c = shell(ctx, level, "true")
		if err := c.Run(); !errors.Is(err, context.Canceled) || c.Process != nil || c.Result().Reason != Cancelled {
			t.Errorf("%v, %+v", err, c.Result())
		}
		// After the end: no error.
		ctx, cancel = context.WithCancel(patience(t))
		c = shell(ctx, level, "exit 0")
		if err := c.Run(); err != nil {
			t.Error(err)
		}
		cancel()
		// Where the payload has ended before the context did, that was its end, whatever comes first to our ears.
		ctx, cancel = context.WithCancel(patience(t))
		c = shell(ctx, level, "exit 0")
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the end of jail-init", func() bool { return isZombie(c.Process.Pid) })
		cancel()
		time.Sleep(20 * time.Millisecond)
		if err := c.Wait(); err != nil {
			t.Errorf("cancelled after the payload had succeeded: %v", err)
		}
		c = shell(patience(t), level, "exit 0")
		c.Spec().Timeout = 100 * time.Millisecond
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the end of jail-init", func() bool { return isZombie(c.Process.Pid) })
		time.Sleep(150 * time.Millisecond)
		if err := c.Wait(); err != nil || len(c.Result().LimitsHit) > 0 {
			t.Errorf("time was over after the payload had succeeded: %v, %v", err, c.Result().LimitsHit)
		}
	})
}

func isZombie(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && strings.HasPrefix(string(b[strings.LastIndexByte(string(b), ')')+1:]), " Z")
}

// TestCancelWhileStarting: the context ends while a step waits for something that never comes.
func TestCancelWhileStarting(t *testing.T) {
	leavesNothing(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	ctx, cancel := context.WithTimeout(patience(t), 200*time.Millisecond)
	defer cancel()
	c := shell(ctx, Namespaced, "true")
	c.Spec().View = append(c.Spec().View, Rule{Kind: File, Path: "/config", FD: int(r.Fd())})
	start := time.Now()
	err = c.Run()
	if !errors.Is(err, context.DeadlineExceeded) || c.Result().Reason != Cancelled || time.Since(start) > longest/2 {
		t.Errorf("%v after %s, %+v", err, time.Since(start), c.Result())
	}
}

// TestWaitDelay: somebody outside the jail holds the payload's output.
func TestWaitDelay(t *testing.T) {
	atEachLevel(t, func(t *testing.T, level Level) {
		leavesNothing(t)
		c := shell(patience(t), level, "echo out; read go; exit 0")
		said := &signalWriter{got: make(chan struct{}, 1)}
		c.Stdout, c.WaitDelay = said, 150*time.Millisecond
		in, err := c.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		<-said.got
		payload := 0
		for pid, line := range descendants(os.Getpid()) {
			if strings.HasPrefix(line, "/bin/sh -c echo out") {
				payload = pid
			}
		}
		pidfd, err := unix.PidfdOpen(payload, 0)
		if err != nil {
			t.Fatal(err)
		}
		held, err := unix.PidfdGetfd(pidfd, 1, 0)
		unix.Close(pidfd)
		if err == unix.EPERM {
			lacks(t, "pidfd_getfd of a process of another uid")
		}
		if err != nil {
			t.Fatal(err)
		}
		in.Close()
		if err := c.Wait(); !errors.Is(err, ErrWaitDelay) || !c.Result().Success() {
			t.Errorf("%v, %+v", err, c.Result())
		}
		unix.Close(held)
	})
}

// signalWriter says that something was written.
type signalWriter struct{ got chan struct{} }

func (w *signalWriter) Write(p []byte) (int, error) {
	select {
	case w.got <- struct{}{}:
	default:
	}
	return len(p), nil
}
