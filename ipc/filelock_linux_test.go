//go:build linux && (amd64 || arm64)

package ipc

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

var lockKinds = map[string]LockKind{"flock": Flock, "OFD": OFD}

// lockHolder is the argument of a process that takes the lock FILE of KIND exclusively, says so, and keeps it.
const lockHolder = "IPC_TEST_LOCK_HOLDER"

func init() {
	path, kind, _ := strings.Cut(os.Getenv(lockHolder), "|")
	if path == "" {
		return
	}
	l, err := OpenFileLock(path, lockKinds[kind])
	if err == nil {
		err = l.Lock(context.Background(), Exclusive)
	}
	fmt.Println(err)
	_, _ = os.Stdin.Read(make([]byte, 1))
	os.Exit(0)
}

// startHolder returns when the other process has the lock. It ends with its stdin.
func startHolder(t *testing.T, path, kind string, namespaces uintptr) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), lockHolder+"="+path+"|"+kind)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Cloneflags: namespaces}
	if namespaces&unix.CLONE_NEWUSER != 0 { // with the same id: the file is ours
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: os.Getuid(), HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: os.Getgid(), HostID: os.Getgid(), Size: 1}}
	}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		if namespaces != 0 {
			t.Skipf("host lacks: user namespaces: %v", err)
		}
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	said := make([]byte, 100)
	n, err := out.Read(said)
	if err != nil || string(said[:n]) != "<nil>\n" {
		t.Fatalf("the other process: %q, %v", said[:n], err)
	}
	return cmd
}

func fileLock(t testing.TB, path string, kind LockKind) *FileLock {
	t.Helper()
	l, err := OpenFileLock(path, kind)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func tried(t *testing.T, l *FileLock, mode LockMode) bool {
	t.Helper()
	held, err := l.TryLock(mode)
	if err != nil {
		t.Fatal(err)
	}
	if held != (l.Mode() == mode) {
		t.Errorf("held is %v, mode %v", held, l.Mode())
	}
	return held
}

func mustLock(t *testing.T, l *FileLock, mode LockMode) {
	t.Helper()
	if !tried(t, l, mode) {
		t.Fatalf("%v is held by others", mode)
	}
}

func mustUnlock(t *testing.T, l *FileLock) {
	t.Helper()
	if err := l.Unlock(); err != nil || l.Mode() != 0 {
		t.Fatalf("unlock: %v, mode %v", err, l.Mode())
	}
}

func eachKind(t *testing.T, test func(t *testing.T, path string, kind LockKind)) {
	for name, kind := range lockKinds {
		t.Run(name, func(t *testing.T) { test(t, filepath.Join(t.TempDir(), "lock"), kind) })
	}
}

func TestFileLockModes(t *testing.T) {
	eachKind(t, func(t *testing.T, path string, kind LockKind) {
		a, b, c := fileLock(t, path, kind), fileLock(t, path, kind), fileLock(t, path, kind)
		mustLock(t, a, Shared)
		mustLock(t, b, Shared)
		if tried(t, c, Exclusive) {
			t.Error("exclusive beside shared")
		}
		mustUnlock(t, a)
		mustUnlock(t, b)
		mustLock(t, c, Exclusive)
		if tried(t, a, Shared) || tried(t, a, Exclusive) {
			t.Error("beside exclusive")
		}
		if err := c.Downgrade(); err != nil || c.Mode() != Shared {
			t.Errorf("downgrade: %v, mode %v", err, c.Mode())
		}
		mustLock(t, a, Shared)
		mustUnlock(t, a)
		kept, err := c.Upgrade(t.Context())
		if err != nil || kept != (kind == OFD) || c.Mode() != Exclusive {
			t.Errorf("upgrade: %v, %v, mode %v", kept, err, c.Mode())
		}
		if tried(t, a, Shared) {
			t.Error("shared beside one that was made exclusive")
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		mustLock(t, a, Exclusive)
	})
}

// What flock(2) says: on the way from shared to exclusive nothing may be held, and after a failure nothing is.
func TestFileLockUpgradeRefused(t *testing.T) {
	eachKind(t, func(t *testing.T, path string, kind LockKind) {
		a, b, c := fileLock(t, path, kind), fileLock(t, path, kind), fileLock(t, path, kind)
		mustLock(t, a, Shared)
		mustLock(t, b, Shared)
		done, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := a.Upgrade(done); !errors.Is(err, context.Canceled) || a.Mode() != Shared {
			t.Errorf("with a context that was done: %v, mode %v", err, a.Mode())
		}
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer cancel()
		if kept, err := a.Upgrade(ctx); kept || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("beside a reader: %v, %v", kept, err)
		}
		mustUnlock(t, b)
		// Mode says what the kernel says.
		holds := !tried(t, c, Exclusive)
		if holds != (kind == OFD) || holds != (a.Mode() == Shared) {
			t.Errorf("after that: held %v, mode %v", holds, a.Mode())
		}
	})
}

func TestFileLockWaits(t *testing.T) {
	eachKind(t, func(t *testing.T, path string, kind LockKind) {
		a, b := fileLock(t, path, kind), fileLock(t, path, kind)
		mustLock(t, a, Exclusive)
		result := make(chan error)
		ctx, cancel := context.WithCancelCause(t.Context())
		go func() { result <- b.Lock(ctx, Shared) }()
		cause := errors.New("the cause")
		cancel(cause)
		if err := <-result; !errors.Is(err, cause) || b.Mode() != 0 {
			t.Errorf("cancelled: %v, mode %v", err, b.Mode())
		}
		if err := b.Lock(ctx, Shared); !errors.Is(err, cause) {
			t.Errorf("cancelled before: %v", err)
		}
		go func() { result <- b.Lock(t.Context(), Shared) }()
		mustUnlock(t, a)
		if err := <-result; err != nil || b.Mode() != Shared {
			t.Errorf("%v, mode %v", err, b.Mode())
		}
	})
}

func TestFileLockMisused(t *testing.T) {
	eachKind(t, func(t *testing.T, path string, kind LockKind) {
		l := fileLock(t, path, kind)
		is := func(what string, err, want error) {
			t.Helper()
			if !errors.Is(err, want) || !strings.Contains(err.Error(), strconv.Quote(path)) {
				t.Errorf("%s: %v, want %v with the path", what, err, want)
			}
		}
		is("unlock", l.Unlock(), ErrNotHeld)
		is("downgrade", l.Downgrade(), ErrNotHeld)
		_, err := l.Upgrade(t.Context())
		is("upgrade", err, ErrNotHeld)
		mustLock(t, l, Shared)
		is("again", l.Lock(t.Context(), Shared), ErrDeadlock)
		_, err = l.TryLock(Exclusive)
		is("again, tried", err, ErrDeadlock)
		if l.Mode() != Shared {
			t.Errorf("mode is %v", l.Mode())
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		is("closed", l.Lock(t.Context(), Shared), os.ErrClosed)
		is("unlock of a closed one", l.Unlock(), os.ErrClosed)
		is("closed twice", l.Close(), os.ErrClosed)
	})
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink("nowhere", link); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenFileLock(link, Flock); !errors.Is(err, unix.ELOOP) {
		t.Errorf("a symbolic link: %v", err)
	}
	readOnly, err := os.Open("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	l := NewFileLock(readOnly, OFD)
	defer l.Close()
	if _, err := l.TryLock(Exclusive); !errors.Is(err, unix.EBADF) || l.Mode() != 0 {
		t.Errorf("exclusive on a file for reading: %v, mode %v", err, l.Mode())
	}
}

// The cells of the table in docs/ipc.md.

func TestTheorem_9_4_1_FileLocksExcludeAcrossProcesses(t *testing.T) {
	eachKind(t, func(t *testing.T, path string, kind LockKind) {
		cmd := startHolder(t, path, filepath.Base(t.Name()), 0)
		l := fileLock(t, path, kind)
		if tried(t, l, Shared) {
			t.Error("shared beside another process's exclusive")
		}
		other := Flock + OFD - kind // they do not see each other
		mustLock(t, fileLock(t, path, other), Exclusive)
		waits := make(chan error)
		go func() { waits <- l.Lock(t.Context(), Exclusive) }()
		if err := cmd.Process.Kill(); err != nil { // the death of the holder releases it
			t.Fatal(err)
		}
		if err := <-waits; err != nil {
			t.Error(err)
		}
	})
}

func TestTheorem_9_4_1_FileLocksCrossNamespaces(t *testing.T) {
	eachKind(t, func(t *testing.T, path string, kind LockKind) {
		startHolder(t, path, filepath.Base(t.Name()), unix.CLONE_NEWUSER|unix.CLONE_NEWPID|unix.CLONE_NEWIPC|unix.CLONE_NEWNET)
		if tried(t, fileLock(t, path, kind), Shared) {
			t.Error("shared beside the exclusive lock of a process in other namespaces")
		}
	})
}

// A writer waits in the kernel itself, and a reader that comes later goes past it.
func TestTheorem_9_4_1_FileLocksAreNotFair(t *testing.T) {
	eachKind(t, func(t *testing.T, path string, kind LockKind) {
		reader, late := fileLock(t, path, kind), fileLock(t, path, kind)
		writer := fileLock(t, path, kind)
		mustLock(t, reader, Shared)
		waits := blockInKernel(t, writer, func() {})
		mustLock(t, late, Shared)
		mustUnlock(t, reader)
		mustUnlock(t, late)
		if err := <-waits; err != nil {
			t.Error(err)
		}
	})
}

// blockInKernel waits for the exclusive lock in a blocking call, and returns when its thread sleeps in it.
func blockInKernel(t *testing.T, l *FileLock, prepare func()) <-chan error {
	t.Helper()
	thread, result := make(chan int), make(chan error, 1)
	go func() {
		prepare()
		thread <- unix.Gettid()
		if l.kind == Flock {
			result <- unix.Flock(l.fd, unix.LOCK_EX)
		} else {
			result <- unix.FcntlFlock(uintptr(l.fd), unix.F_OFD_SETLKW, &unix.Flock_t{Type: unix.F_WRLCK})
		}
	}()
	call := map[LockKind]int{Flock: unix.SYS_FLOCK, OFD: unix.SYS_FCNTL}[l.kind]
	file := fmt.Sprintf("/proc/self/task/%d/syscall", <-thread)
	for begin := time.Now(); ; time.Sleep(time.Millisecond) {
		said, err := os.ReadFile(file) // "running", or the call that the thread sleeps in
		if err == nil && strings.HasPrefix(string(said), strconv.Itoa(call)+" ") {
			return result
		}
		if time.Since(begin) > 30*time.Second {
			t.Fatalf("the writer does not wait: %q, %v", said, err)
		}
	}
}

// Two locks crossed, which a LockTable refuses: here only a deadline ends it.
func TestTheorem_9_4_1_FileLocksDetectNoDeadlock(t *testing.T) {
	eachKind(t, func(t *testing.T, path string, kind LockKind) {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		results := make(chan error)
		first, second := fileLock(t, path+"1", kind), fileLock(t, path+"2", kind)
		mustLock(t, first, Exclusive)
		mustLock(t, second, Exclusive)
		for _, other := range []string{path + "1", path + "2"} {
			l := fileLock(t, other, kind)
			go func() { results <- l.Lock(ctx, Exclusive) }()
		}
		for range 2 {
			if err := <-results; !errors.Is(err, context.DeadlineExceeded) {
				t.Error(err)
			}
		}
	})
}

// A real-time thread waits for the lock, and the holder's priority stays what it was.
func TestTheorem_9_4_1_FileLocksInheritNoPriority(t *testing.T) {
	eachKind(t, func(t *testing.T, path string, kind LockKind) {
		holder := startHolder(t, path, filepath.Base(t.Name()), 0)
		before := priority(t, holder.Process.Pid)
		realtime := make(chan error, 1)
		waits := blockInKernel(t, fileLock(t, path, kind), func() {
			runtime.LockOSThread() // for ever: the thread ends with the goroutine
			realtime <- unix.SchedSetAttr(0, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_RR, Priority: 10}, 0)
		})
		err := <-realtime
		if got := priority(t, holder.Process.Pid); got != before {
			t.Errorf("the holder's priority was %s and is %s", before, got)
		}
		_ = holder.Process.Kill()
		if err := <-waits; err != nil {
			t.Error(err)
		}
		if err != nil {
			t.Skipf("host lacks: the right to have a real-time thread: %v", err)
		}
	})
}

// priority is what the scheduler goes by, with what is inherited (field 18 of /proc/PID/stat).
func priority(t *testing.T, pid int) string {
	t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(stat), ") ")
	return strings.Fields(after)[18-3]
}

func BenchmarkFileLock(b *testing.B) {
	for name, kind := range lockKinds {
		for _, mode := range []LockMode{Shared, Exclusive} {
			b.Run(name+"/"+mode.String(), func(b *testing.B) {
				l := fileLock(b, filepath.Join(b.TempDir(), "lock"), kind)
				for b.Loop() {
					if err := l.Lock(b.Context(), mode); err != nil {
						b.Fatal(err)
					}
					if err := l.Unlock(); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
