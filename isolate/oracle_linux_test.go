//go:build amd64 || arm64

package isolate

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// traces are what a jail that is gone must not have left. They are about this process and what it has started, so that
// other packages' tests may run at the same time.
type traces struct {
	fds        map[string]string // number → what it is
	mounts     string
	scratch    []string
	children   map[int]string // descendants of this process
	namespaces map[string]bool
	cgroups    []string
}

// cgroupsOfJails are the cgroups of jails in all hierarchies, but for those that other tests, which may run beside these,
// made for themselves.
func cgroupsOfJails() (found []string) {
	_ = filepath.WalkDir("/sys/fs/cgroup", func(path string, d os.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			switch name := d.Name(); {
			case strings.HasPrefix(name, "jail-integration-"), strings.HasPrefix(name, "jail-test-"):
				return filepath.SkipDir
			case strings.HasPrefix(name, "jail-"):
				found = append(found, path)
			}
		}
		return nil
	})
	return found
}

// lookAround takes the traces.
func lookAround() traces {
	w := traces{fds: map[string]string{}, children: descendants(os.Getpid()), namespaces: namespaces(), cgroups: cgroupsOfJails()}
	fds, _ := os.ReadDir("/proc/self/fd")
	for _, fd := range fds {
		// The one that this look itself has used is gone again.
		if what, err := os.Readlink("/proc/self/fd/" + fd.Name()); err == nil {
			w.fds[fd.Name()] = what
		}
	}
	mounts, _ := os.ReadFile("/proc/self/mountinfo")
	w.mounts = string(mounts)
	w.scratch, _ = filepath.Glob(filepath.Join(os.TempDir(), scratchPrefix+"*"))
	return w
}

// parents has the parent of each process.
func parents() map[int]int {
	found := map[int]int{}
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, path := range stats {
		b, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		pid, _ := strconv.Atoi(strings.Split(path, "/")[2])
		// after the last ")": the name may hold anything
		if f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:])); len(f) > 1 {
			found[pid], _ = strconv.Atoi(f[1])
		}
	}
	return found
}

// descendants are the processes below one, with their command lines.
func descendants(root int) map[int]string {
	parent := parents()
	found := map[int]string{}
	for pid := range parent {
		for p := parent[pid]; p != 0; p = parent[p] {
			if p == root {
				line, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
				found[pid] = strings.ReplaceAll(string(line), "\x00", " ")
				break
			}
		}
	}
	return found
}

// namespaces are ours and those that other processes are in, but for processes that have a parent other than this one or PID 1: those
// are of other programs, which may run jails too. What is ours and has lost its parent belongs to PID 1.
func namespaces() map[string]bool {
	found := map[string]bool{}
	for pid, parent := range parents() {
		if parent > 1 && parent != os.Getpid() && pid != os.Getpid() {
			continue
		}
		for _, kind := range []string{"cgroup", "ipc", "mnt", "net", "pid", "user", "uts"} {
			if ns, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", pid, kind)); err == nil {
				found[ns] = true
			}
		}
	}
	return found
}

// withEnv are the processes that have kv in their environment.
func withEnv(kv string) []int {
	var found []int
	environs, _ := filepath.Glob("/proc/[0-9]*/environ")
	for _, path := range environs {
		b, err := os.ReadFile(path)
		if err == nil && slices.Contains(strings.Split(string(b), "\x00"), kv) {
			pid, _ := strconv.Atoi(strings.Split(path, "/")[2])
			found = append(found, pid)
		}
	}
	return found
}

// leavesNothing compares the traces at the end of a test with those at its call.
func leavesNothing(t *testing.T) {
	t.Helper()
	privateTemp(t) // other tests have private folders in the usual place
	warmUp(t)
	before := lookAround()
	current := goleak.IgnoreCurrent()
	t.Cleanup(func() {
		if t.Failed() {
			return
		}
		if err := goleak.Find(current); err != nil {
			t.Errorf("goroutines: %v", err)
		}
		compareTraces(t, before, lookAround())
	})
}

func compareTraces(t testing.TB, before, after traces) {
	t.Helper()
	for fd, what := range after.fds {
		if was := before.fds[fd]; was != what && was == "" {
			t.Errorf("fd %s is left: %s", fd, what)
		}
	}
	for pid, line := range after.children {
		if _, ok := before.children[pid]; !ok {
			t.Errorf("process %d is left: %s", pid, line)
		}
	}
	if before.mounts != after.mounts {
		t.Errorf("mounts were\n%s\nand are\n%s", before.mounts, after.mounts)
	}
	if !slices.Equal(before.scratch, after.scratch) {
		t.Errorf("private folders were %q and are %q", before.scratch, after.scratch)
	}
	cgroups := slices.DeleteFunc(after.cgroups, func(path string) bool { return slices.Contains(before.cgroups, path) })
	for end := time.Now().Add(longest); len(cgroups) > 0; time.Sleep(20 * time.Millisecond) { // those of other tests go
		now := cgroupsOfJails()
		cgroups = slices.DeleteFunc(cgroups, func(path string) bool { return !slices.Contains(now, path) })
		if time.Now().After(end) {
			t.Errorf("cgroups are left: %q", cgroups)
			break
		}
	}
	// Other tests may run jails; theirs end. What is ours would stay.
	left := maps.Clone(after.namespaces)
	maps.DeleteFunc(left, func(ns string, _ bool) bool { return before.namespaces[ns] })
	for end := time.Now().Add(longest); len(left) > 0; time.Sleep(20 * time.Millisecond) {
		now := namespaces()
		maps.DeleteFunc(left, func(ns string, _ bool) bool { return !now[ns] })
		if time.Now().After(end) {
			t.Errorf("namespaces are left: %v", slices.Collect(maps.Keys(left)))
			return
		}
	}
}

// warmUp does what is done once in a process and stays: jail-init's image, the launcher's pidfd, the poller.
func warmUp(t testing.TB) {
	t.Helper()
	if out, err := shell(patience(t), Basic, "sleep 0.02; echo warm").Output(); err != nil || string(out) != "warm\n" {
		t.Fatalf("a jail at basic: %q, %v", out, err)
	}
}

// privateTemp gives the test a TMPDIR of its own, in which all users may make private folders.
func privateTemp(t *testing.T) {
	t.Helper()
	dir := ownFolder(t, os.Geteuid())
	if err := os.Chmod(dir, 0o1777); err != nil {
		t.Fatal(err)
	}
	t.Setenv("TMPDIR", dir)
}
