//go:build amd64 || arm64

package isolate

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// TestMany starts jails from eight goroutines at once: each ends as its own payload did, with its own output, and
// nothing is left.
func TestMany(t *testing.T) {
	atEachLevel(t, func(t *testing.T, level Level) {
		leavesNothing(t)
		launches := pick(160, 2000)
		if level != Namespaced {
			launches = pick(80, 400)
		}
		start := time.Now()
		var next atomic.Int64
		var group sync.WaitGroup
		for range 8 {
			group.Go(func() {
				for n := next.Add(1); n <= int64(launches) && !t.Failed(); n = next.Add(1) {
					c := shell(patience(t), level, `read line; echo $line $1; exit $2`, fmt.Sprint(n), fmt.Sprint(n%200))
					var out bytes.Buffer
					c.Stdin, c.Stdout = bytes.NewBufferString("line\n"), &out
					err := c.Run()
					if out.String() != fmt.Sprintf("line %d\n", n) || exitOf(t, err) != fmt.Sprint(n%200) {
						t.Errorf("launch %d: %q, %v", n, out.String(), err)
					}
				}
			})
		}
		group.Wait()
		t.Logf("figure: %s: %d launches from 8 goroutines in %s", level, launches, time.Since(start).Round(time.Millisecond))
	})
}

// TestManyAtOnce has many jails that live at the same time, which all end with their contexts.
func TestManyAtOnce(t *testing.T) {
	leavesNothing(t)
	n := pick(40, 500)
	pipes, cmds := make([]io.ReadCloser, n), make([]*Cmd, n)
	for i := range cmds {
		cmds[i] = shell(patience(t), levelsHere()[i%len(levelsHere())], "echo up; exec sleep 1000")
		out, err := cmds[i].StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		pipes[i] = out
		if err := cmds[i].Start(); err != nil {
			t.Fatal(err)
		}
	}
	uids := map[int]bool{}
	for i, c := range cmds {
		word := make([]byte, 3)
		if _, err := io.ReadFull(pipes[i], word); err != nil || string(word) != "up\n" {
			t.Errorf("jail %d: %q, %v", i, word, err)
		}
		uid := c.Process.result.UID
		if os.Geteuid() == 0 && uid != 0 && uids[uid] {
			t.Errorf("two jails have the uid %d", uid)
		}
		uids[uid] = true
	}
	for _, c := range cmds {
		if err := c.Process.Kill(); err != nil {
			t.Error(err)
		}
	}
	for i, c := range cmds {
		if err := c.Wait(); exitOf(t, err) != "SIGKILL" {
			t.Errorf("jail %d: %v", i, err)
		}
	}
}

// TestThreadEnds starts jails from threads that end while the jail goes on: nothing in a jail hangs on the thread that
// started it.
func TestThreadEnds(t *testing.T) {
	atEachLevel(t, func(t *testing.T, level Level) {
		leavesNothing(t)
		n := pick(8, 100)
		cmds := make([]*Cmd, n)
		var group sync.WaitGroup
		for i := range cmds {
			cmds[i] = shell(patience(t), level, "read line; exit 7")
			in, err := cmds[i].StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			group.Go(func() {
				runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
				if err := cmds[i].Start(); err != nil {
					t.Error(err)
				}
			})
			defer in.Close()
		}
		group.Wait()
		if t.Failed() {
			return
		}
		time.Sleep(100 * time.Millisecond) // a jail that dies with the thread is dead by now
		for i, c := range cmds {
			if isZombie(c.Process.Pid) {
				t.Errorf("jail %d ended with its thread", i)
			}
			if err := c.parentFiles[0].Close(); err != nil {
				t.Error(err)
			}
			if err := c.Wait(); exitOf(t, err) != "7" {
				t.Errorf("jail %d: %v", i, err)
			}
		}
	})
}

// TestManyBesideOthers starts jails while the program starts other processes and opens files: neither gets what is the
// other's, which would hang whoever waits for the end of a pipe.
func TestManyBesideOthers(t *testing.T) {
	leavesNothing(t)
	var group sync.WaitGroup
	for range pick(30, 300) {
		group.Go(func() {
			c := shell(patience(t), levelsHere()[time.Now().UnixNano()%int64(len(levelsHere()))], "cat; exit 5")
			var out bytes.Buffer
			c.Stdin, c.Stdout = bytes.NewBufferString("through the jail"), &out
			if err := c.Run(); exitOf(t, err) != "5" || out.String() != "through the jail" {
				t.Errorf("%q, %v", out.String(), err)
			}
		})
		group.Go(func() {
			c := exec.Command("/bin/cat")
			c.Stdin = bytes.NewBufferString("beside it")
			if out, err := c.Output(); err != nil || string(out) != "beside it" {
				t.Errorf("%q, %v", out, err)
			}
		})
	}
	group.Wait()
}
