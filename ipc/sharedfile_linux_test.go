//go:build linux && (amd64 || arm64)

package ipc

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// counter is torn if its halves differ.
type counter struct {
	N    int64
	Pad  [4096]uint8
	Half int64
}

func (c *counter) add() error {
	if c.N != c.Half {
		return fmt.Errorf("torn: %d and %d", c.N, c.Half)
	}
	c.N++
	c.Half++
	for i := range c.Pad {
		c.Pad[i] = uint8(c.N)
	}
	return nil
}

// sharedWriter is the argument of a process that changes FILE once, between a SIGSTOP of its own and its end, on its main
// thread; with "for ever" before it, again and again without a stop.
const sharedWriter = "IPC_TEST_SHARED_WRITER"

func init() {
	how, path, _ := strings.Cut(os.Getenv(sharedWriter), "|")
	if path == "" {
		return
	}
	runtime.LockOSThread()
	f, err := OpenSharedFile[counter](path, Fixed)
	if err != nil {
		panic(err)
	}
	if how == "once" {
		if err := unix.Tgkill(unix.Getpid(), unix.Gettid(), unix.SIGSTOP); err != nil {
			panic(err)
		}
	}
	for again := true; again; again = how == "for ever" {
		if err := f.WithLock((*counter).add); err != nil {
			panic(err)
		}
	}
	os.Exit(0)
}

func sharedCounter(t *testing.T) (*SharedFile[counter], string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "counter")
	f, err := OpenSharedFile[counter](path, Fixed)
	if err != nil {
		t.Fatal(err)
	}
	return f, path
}

// whole reads the counter, and fails the test if it is torn.
func whole(t *testing.T, f *SharedFile[counter]) int64 {
	t.Helper()
	c, err := f.Read()
	if errors.Is(err, fs.ErrNotExist) {
		return 0
	}
	if err != nil || c.N != c.Half || c.Pad[0] != uint8(c.N) || c.Pad[len(c.Pad)-1] != uint8(c.N) {
		t.Fatalf("torn: %d and %d, %v", c.N, c.Half, err)
	}
	return c.N
}

// left checks that nothing but the file and its lock is in the folder.
func left(t *testing.T, path string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Name() != "counter" && e.Name() != "counter.lock" {
			t.Errorf("%s is left", e.Name())
		}
	}
}

// The writer is killed before and after each of its system calls.
func TestTheorem_10_3_2_KilledAtEveryStepLeavesOldOrNew(t *testing.T) {
	f, path := sharedCounter(t)
	runtime.LockOSThread() // ptrace
	defer runtime.UnlockOSThread()
	var olds, news, leftovers int
	want := int64(0)
	for stop := 1; ; stop++ {
		ended := killAt(t, path, stop)
		got := whole(t, f)
		switch got {
		case want:
			olds++
		case want + 1:
			news++
		default:
			t.Fatalf("stop %d: %d after %d", stop, got, want)
		}
		if _, err := os.Lstat(filepath.Join(filepath.Dir(path), f.newName())); err == nil {
			leftovers++
		}
		// The next writer finds a free lock, and cleans up.
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		if err := f.WithLockContext(ctx, (*counter).add); err != nil {
			t.Fatalf("stop %d: %v", stop, err)
		}
		cancel()
		left(t, path)
		want = got + 1
		if ended {
			if got == 0 || news == 0 {
				t.Error("the writer that was not killed has not written")
			}
			break
		}
	}
	t.Logf("%d left the old value, %d the new one, %d their file", olds, news, leftovers)
	if olds < 10 || news < 3 || leftovers < 5 {
		t.Error("the writer is not stopped where it should be")
	}
}

// killAt runs a writer up to its n-th stop at the entry or exit of a system call and kills it; it says whether the writer
// ended before.
func killAt(t *testing.T, path string, n int) bool {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), sharedWriter+"=once|"+path)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Ptrace: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	pid := cmd.Process.Pid
	defer cmd.Wait()
	begun := false
	for {
		var status unix.WaitStatus
		if _, err := unix.Wait4(pid, &status, unix.WALL, nil); err != nil {
			t.Fatal(err)
		}
		if status.Exited() || status.Signaled() {
			if status.ExitStatus() != 0 {
				t.Fatalf("the writer ended: %#x", status)
			}
			return true
		}
		signal := 0
		switch at := status.StopSignal(); at {
		case unix.SIGTRAP: // the exec, or a call
			if begun {
				n--
			}
		case unix.SIGSTOP:
			begun = true
		default:
			signal = int(at)
		}
		if n == 0 {
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			return false
		}
		var err error
		if begun {
			err = unix.PtraceSyscall(pid, signal)
		} else {
			err = unix.PtraceCont(pid, signal)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// Writers are killed at random moments while others write and read.
func TestTheorem_10_3_2_RandomKillsTearNothing(t *testing.T) {
	f, path := sharedCounter(t)
	kills := 30
	if os.Getenv("JAIL_SWEEP") != "" {
		kills = 1000
	}
	var last int64
	for range kills {
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = append(os.Environ(), sharedWriter+"=for ever|"+path)
		cmd.Stderr = os.Stderr
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		for whole(t, f) == last { // it has begun
			time.Sleep(100 * time.Microsecond)
		}
		time.Sleep(time.Duration(rand.Int64N(int64(3 * time.Millisecond))))
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait()
		now := whole(t, f)
		if now < last {
			t.Fatalf("%d after %d: a change is lost", now, last)
		}
		last = now
	}
	if err := f.WithLock((*counter).add); err != nil {
		t.Fatal(err)
	}
	left(t, path)
}

func TestTheorem_10_3_2_NoChangeIsLost(t *testing.T) {
	f, path := sharedCounter(t)
	const writers, changes = 4, 25
	var all sync.WaitGroup
	done := make(chan struct{})
	var readers sync.WaitGroup
	readers.Go(func() {
		for last := int64(0); ; {
			now := whole(t, f)
			if now < last {
				t.Errorf("%d after %d", now, last)
			}
			last = now
			select {
			case <-done:
				return
			default:
			}
		}
	})
	for range writers {
		all.Go(func() {
			mine, err := OpenSharedFile[counter](path, Fixed)
			if err != nil {
				t.Error(err)
				return
			}
			for range changes {
				if err := mine.WithLock((*counter).add); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	close(done)
	readers.Wait()
	if got := whole(t, f); got != writers*changes {
		t.Errorf("%d changes, counter is %d", writers*changes, got)
	}
}

// Who removes the lock's file as litter does not let two in.
func TestSharedFileLockRemoved(t *testing.T) {
	f, path := sharedCounter(t)
	lock := fileLock(t, path+".lock", Flock)
	mustLock(t, lock, Exclusive)
	result := make(chan error, 1)
	go func() { result <- f.WithLock((*counter).add) }()
	for opened := 0; opened < 2; { // it waits for the old one
		opened = 0
		fds, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		for _, fd := range fds {
			if to, _ := os.Readlink("/proc/self/fd/" + fd.Name()); to == path+".lock" {
				opened++
			}
		}
	}
	if err := os.Remove(path + ".lock"); err != nil {
		t.Fatal(err)
	}
	second := fileLock(t, path+".lock", Flock)
	mustLock(t, second, Exclusive)
	mustUnlock(t, lock)
	select {
	case err := <-result:
		t.Fatalf("let in beside the holder: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	mustUnlock(t, second)
	if err := <-result; err != nil {
		t.Error(err)
	}
}

type settings struct {
	Name  string
	Users []string
	Limit map[string]int
}

func TestSharedFileJSON(t *testing.T) {
	path := filepath.Join(t.TempDir(), "settings.json")
	f, err := OpenSharedFile[settings](path, JSON)
	if err != nil {
		t.Fatal(err)
	}
	reader, err := OpenReadOnlyFile[settings](path, JSON)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := reader.Read(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	set := func(s *settings) error {
		s.Name, s.Users, s.Limit = "a", append(s.Users, "one"), map[string]int{"b": 2}
		return nil
	}
	for range 2 {
		if err := f.WithLock(set); err != nil {
			t.Fatal(err)
		}
	}
	got, err := reader.Read()
	if want := (settings{"a", []string{"one", "one"}, map[string]int{"b": 2}}); err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%v, %v, want %v", got, err, want)
	}
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	before, _ := os.ReadFile(path)
	mine := errors.New("mine")
	if err := f.WithLock(func(s *settings) error { s.Name = "changed"; return mine }); err != mine {
		t.Errorf("an error of the change: %v", err)
	}
	if after, _ := os.ReadFile(path); string(after) != string(before) {
		t.Errorf("after an error: %s", after)
	}
	if err := f.WithLock(set); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("permissions: %v, %v", info.Mode(), err)
	}
	done, cancel := context.WithCancel(t.Context())
	cancel()
	if err := f.WithLockContext(done, set); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// What somebody else put there is an error with the path, and stays as it is.
func TestSharedFileOfOthers(t *testing.T) {
	for name, content := range map[string]string{
		"empty": "", "half": `{"Name": "a"`, "other": `{"Name": 1}`, "unknown": `{"Name": "a", "More": 1}`, "followed": `{} {}`,
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "f")
			if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
			notTaken(t, path)
			if after, _ := os.ReadFile(path); string(after) != content {
				t.Errorf("the file is now %q", after)
			}
		})
	}
	path := filepath.Join(t.TempDir(), "f")
	for name, create := range map[string]func() error{
		"symbolic link":  func() error { return os.Symlink("/etc/passwd", path) },
		"link to itself": func() error { return os.Symlink("f", path) },
		"FIFO":           func() error { return unix.Mkfifo(path, 0o600) },
		"folder":         func() error { return os.Mkdir(path, 0o700) },
		"huge":           func() error { return errors.Join(os.WriteFile(path, nil, 0o600), os.Truncate(path, maxSharedFile+1)) },
	} {
		t.Run(name, func(t *testing.T) {
			if err := create(); err != nil {
				t.Fatal(err)
			}
			notTaken(t, path)
			if err := os.Remove(path); err != nil {
				t.Error(err)
			}
		})
	}
	f, path := sharedCounter(t)
	if err := os.WriteFile(path, make([]byte, 100), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Read(); err == nil || !strings.Contains(err.Error(), "100 bytes") {
		t.Errorf("another size: %v", err)
	}
	// A link in the place of the new file is not written through.
	victim := filepath.Join(t.TempDir(), "victim")
	os.Remove(path)
	if err := errors.Join(os.WriteFile(victim, []byte("kept"), 0o600), os.Symlink(victim, filepath.Join(filepath.Dir(path), f.newName()))); err != nil {
		t.Fatal(err)
	}
	if err := f.WithLock((*counter).add); err != nil {
		t.Error(err)
	}
	if kept, _ := os.ReadFile(victim); string(kept) != "kept" {
		t.Errorf("the victim is now %q", kept)
	}
}

func notTaken(t *testing.T, path string) {
	t.Helper()
	f, err := OpenSharedFile[settings](path, JSON)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Read(); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("read: %v", err)
	}
	err = f.WithLock(func(*settings) error { t.Error("changed"); return nil })
	if err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("changed: %v", err)
	}
}

func TestFixedFormatRefusesTypes(t *testing.T) {
	refuses := func(err error, field string) {
		t.Helper()
		if err == nil || !strings.Contains(err.Error(), field+" ") {
			t.Errorf("%v, want the field %s", err, field)
		}
	}
	_, err := OpenSharedFile[struct{ A []struct{ B int32 } }]("f", Fixed)
	refuses(err, ".A")
	_, err = OpenSharedFile[struct{ A [2]struct{ B int } }]("f", Fixed)
	refuses(err, ".A[].B")
	_, err = OpenSharedFile[struct{ A, b int32 }]("f", Fixed)
	refuses(err, ".b")
	_, err = OpenSharedFile[struct {
		A int32
		_ [4]uint8
	}]("f", Fixed)
	if err != nil {
		t.Error(err)
	}
	_, err = OpenSharedFile[int32]("f", 9)
	refuses(err, "FileFormat(9)")
}
