package seccomp

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A filter can't be taken off again, so the test binary loads it in a copy of
// itself. The value names the int80 program, if there is one.
const childEnv = "JAIL_SECCOMP_TEST_CHILD"

// defaultEnv is set in a copy that loads both filters and becomes its command.
const defaultEnv = "JAIL_SECCOMP_TEST_DEFAULT"

func TestMain(m *testing.M) {
	if int80, ok := os.LookupEnv(childEnv); ok {
		if err := child(int80); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if _, ok := os.LookupEnv(defaultEnv); ok {
		fmt.Println(underDefault(os.Args[1:]))
		os.Exit(1)
	}
	if os.Getenv("RAPID_SEED") == "" { // the same each time; `make random` draws anew
		if err := flag.Set("rapid.seed", "1"); err != nil {
			panic(err)
		}
	}
	os.Exit(m.Run())
}

func TestBaselineOnThisKernel(t *testing.T) {
	if _, ok := abis[runtime.GOARCH]; !ok {
		t.Skipf("host lacks: an architecture that has a filter; it is %s", runtime.GOARCH)
	}
	int80 := buildInt80(t)
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+int80)
	out, err := cmd.CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Error(err)
	}
}

// underDefault loads the baseline and the default as a jail does, and becomes
// the command.
func underDefault(command []string) error {
	profile, err := Default(runtime.GOARCH)
	if err != nil {
		return err
	}
	for _, p := range []Profile{Baseline(), profile} {
		filter, err := Compile(p, runtime.GOARCH)
		if err != nil {
			return err
		}
		if err := loadFilter(filter); err != nil {
			return err
		}
	}
	path, err := exec.LookPath(command[0])
	if err != nil {
		return err
	}
	return unix.Exec(path, command, os.Environ())
}

// Real programs run under the default filter, and what it is for is refused.
func TestDefaultOnThisKernel(t *testing.T) {
	if _, ok := abis[runtime.GOARCH]; !ok {
		t.Skipf("host lacks: an architecture that has a filter; it is %s", runtime.GOARCH)
	}
	for _, tt := range []struct{ program, script, want string }{
		{"python3", `python3 -c '
import subprocess, threading, socket, multiprocessing.pool, tempfile, os, time
t = threading.Thread(target=print, args=("thread",)); t.start(); t.join()
print(subprocess.run(["echo", "child"], capture_output=True, text=True).stdout.strip())
print(multiprocessing.pool.ThreadPool(2).map(abs, [-1, -2]))
s = socket.create_server(("127.0.0.1", 0)); c = socket.create_connection(s.getsockname()); print("socket")
'`, "thread\nchild\n[1, 2]\nsocket\n"},
		{"gcc", `printf '#include <stdio.h>\nint main(void) { puts("compiled"); }' >a.c && gcc -O2 a.c -o a && ./a`, "compiled\n"},
		{"git", `git init -q . && git -c user.name=n -c user.email=e@x commit -q --allow-empty -m first && git log --format=%s`, "first\n"},
		{"python3", `python3 -c '
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
def call(name, *args):
    ctypes.set_errno(0)
    getattr(libc, name)(*args)
    print(name, os.strerror(ctypes.get_errno()))
call("unshare", 0x10000000)
call("mount", None, None, None, 0, None)
call("chroot", b"/")
call("socket", 38, 5, 0)
call("socket", 40, 1, 0)
call("personality", 0x40000)
call("ioctl", -1, 0x5412, 0)
call("ioctl", -1, 0x5401, 0)
'`, "unshare Operation not permitted\nmount Operation not permitted\nchroot Operation not permitted\n" +
			"socket Operation not permitted\nsocket Operation not permitted\npersonality Operation not permitted\n" +
			"ioctl Operation not permitted\nioctl Bad file descriptor\n"},
	} {
		t.Run(tt.program, func(t *testing.T) {
			if _, err := exec.LookPath(tt.program); err != nil {
				t.Skip("host lacks: " + tt.program)
			}
			cmd := exec.Command(os.Args[0], "sh", "-c", tt.script)
			cmd.Dir = t.TempDir()
			cmd.Env = append(os.Environ(), defaultEnv+"=", "HOME="+cmd.Dir, "LC_ALL=C")
			if out, err := cmd.CombinedOutput(); err != nil || string(out) != tt.want {
				t.Errorf("%s: %v, got %s, want %s", tt.script, err, out, tt.want)
			}
		})
	}
}

// buildInt80 returns a program that makes i386 calls, or "" where none can.
func buildInt80(t *testing.T) string {
	t.Helper()
	if runtime.GOARCH != "amd64" {
		return ""
	}
	int80 := filepath.Join(t.TempDir(), "int80")
	if out, err := exec.Command("cc", "-static", "-o", int80, "testdata/int80.c").CombinedOutput(); err != nil {
		t.Logf("i386 is not tested: cc: %v\n%s", err, out)
		return ""
	}
	// Without the filter the call is refused by the kernel, for another reason.
	if errno, err := callI386(int80, abis["i386"].refuse["keyctl"], 0xffff, 0, 0); err != nil || errno != unix.EOPNOTSUPP {
		t.Logf("i386 is not tested: without a filter keyctl says %v, %v", errno, err)
		return ""
	}
	return int80
}

func callI386(int80 string, nr uint32, arg1, arg2, arg3 uint32) (unix.Errno, error) {
	out, err := exec.Command(int80, fmt.Sprint(nr), fmt.Sprint(arg1), fmt.Sprint(arg2), fmt.Sprint(arg3)).Output()
	if err != nil {
		return 0, err
	}
	ret, err := strconv.Atoi(strings.TrimSpace(string(out)))
	return unix.Errno(max(0, -ret)), err
}

// child loads the baseline and reports what then is not as it should be. No
// call that gets through the filter has an effect: its arguments are nonsense,
// or it sets what is set already.
func child(int80 string) error {
	filter, err := Compile(Baseline(), runtime.GOARCH)
	if err != nil {
		return err
	}
	a := abis[runtime.GOARCH]
	for name, nr := range a.refuse {
		if nonsense(nr) == unix.EPERM {
			fmt.Printf("proves nothing here: without a filter %s is refused too\n", name)
		}
	}
	parent := uintptr(os.Getppid())
	var limits unix.Rlimit
	if errno := prlimit(a.prlimit, parent, nil, &limits); errno != 0 {
		return fmt.Errorf("read the parent's limits: %w", errno)
	}
	if errno := prlimit(a.prlimit, parent, &limits, nil); errno != 0 {
		fmt.Printf("proves nothing here: without a filter prlimit64 is refused too: %v\n", errno)
	}
	// Twice, because a jail works inside a jail.
	for range 2 {
		if err := loadFilter(filter); err != nil {
			return err
		}
	}

	var wrong []error
	check := func(what string, got, want unix.Errno) {
		if got != want {
			wrong = append(wrong, fmt.Errorf("%s: got %v, want %v", what, got, want))
		}
	}
	for name, nr := range a.refuse {
		check(name, nonsense(nr), unix.EPERM)
	}
	for nr := uint32(newest + 1); nr <= 1023; nr++ {
		check(fmt.Sprint("unknown call ", nr), nonsense(nr), unix.ENOSYS)
	}
	check("TIOCSTI", badIoctl(unix.TIOCSTI), unix.EPERM)
	check("TIOCSTI and a high bit", badIoctl(unix.TIOCSTI|1<<32), unix.EPERM)
	check("TIOCLINUX", badIoctl(unix.TIOCLINUX), unix.EPERM)
	check("TCGETS", badIoctl(unix.TCGETS), unix.EBADF)
	var own unix.Rlimit
	check("read the parent's limits", prlimit(a.prlimit, parent, nil, &limits), 0)
	check("set the parent's limits", prlimit(a.prlimit, parent, &limits, nil), unix.EPERM)
	check("set and read the parent's limits", prlimit(a.prlimit, parent, &limits, &own), unix.EPERM)
	check("set the parent's limits, and a high bit", prlimit(a.prlimit, 1<<32|parent, &limits, nil), unix.EPERM)
	check("read our limits", prlimit(a.prlimit, 0, nil, &own), 0)
	check("set our limits", prlimit(a.prlimit, 0, &own, nil), 0)
	check("set the parent's limits from a bad address", badPrlimit(a.prlimit, parent), unix.EPERM)
	check("set our limits from a bad address", badPrlimit(a.prlimit, 0), unix.EFAULT)
	if runtime.GOARCH == "amd64" {
		// The filter runs before the kernel finds out whether it has x32.
		x32 := abis["x32"].prlimit
		check("x32: set the parent's limits", prlimit(x32, parent, &limits, nil), unix.EPERM)
		check("x32: set the parent's limits from a bad address", badPrlimit(x32, parent), unix.EPERM)
	}
	check("clone3", nonsense(unix.SYS_CLONE3), unix.E2BIG)
	check("unshare", nonsense(unix.SYS_UNSHARE), unix.EINVAL)
	check("mount", nonsense(unix.SYS_MOUNT), unix.EFAULT)
	check("seccomp", nonsense(unix.SYS_SECCOMP), unix.EINVAL)
	if err := exec.Command("/bin/true").Run(); err != nil {
		wrong = append(wrong, err)
	}
	if int80 != "" {
		wrong = append(wrong, childI386(int80)...)
	}
	return errors.Join(append(wrong, childRules(int80)...)...)
}

// childRules loads a filter of rules as well.
func childRules(int80 string) (wrong []error) {
	edom := Errno(unix.EDOM)
	filter, err := CompileCalls([]CallRule{
		{Action: edom, Calls: []string{"getppid", "socket"}},
		{Action: edom, Calls: []string{"sysinfo"}, Conds: []Cond{{Arg: 0, Op: Equal, Value: 7}}},
	}, runtime.GOARCH)
	if err == nil {
		err = loadFilter(filter)
	}
	if err != nil {
		return []error{err}
	}
	first := func(nr uint32, arg uintptr) unix.Errno {
		_, _, errno := unix.Syscall(uintptr(nr), arg, 0, 0)
		return errno
	}
	type made struct {
		nr   uint32
		arg  uintptr
		want unix.Errno
	}
	calls := []made{
		{unix.SYS_GETPPID, 0, unix.EDOM},
		{unix.SYS_GETPID, 0, 0},
		{unix.SYS_SYSINFO, 7, unix.EDOM},
		{unix.SYS_SYSINFO, 1<<32 | 7, unix.EDOM},
		{unix.SYS_SYSINFO, 8, unix.EFAULT},
	}
	if runtime.GOARCH == "amd64" {
		calls = append(calls, made{x32Bit | unix.SYS_GETPPID, 0, unix.EDOM})
	}
	for _, c := range calls {
		if got := first(c.nr, c.arg); got != c.want {
			wrong = append(wrong, fmt.Errorf("rules: call %#x with %#x: got %v, want %v", c.nr, c.arg, got, c.want))
		}
	}
	if int80 == "" {
		return wrong
	}
	for _, c := range []made{
		{64 /* getppid */, 0, unix.EDOM},
		{116 /* sysinfo */, 7, unix.EDOM},
		{116, 8, unix.EFAULT},
		{102 /* socketcall: socket */, 1, unix.EDOM},
		{102 /* bind */, 2, unix.EFAULT},
		{359 /* socket */, 1, unix.EDOM},
	} {
		if got, err := callI386(int80, c.nr, uint32(c.arg), 0, 0); err != nil || got != c.want {
			wrong = append(wrong, fmt.Errorf("rules: i386 call %d with %d: got %v, %v, want %v", c.nr, c.arg, got, err, c.want))
		}
	}
	return wrong
}

func childI386(int80 string) (wrong []error) {
	const bad = ^uint32(0)
	i386 := abis["i386"]
	for _, tt := range []struct {
		nr, arg1, arg2, arg3 uint32
		want                 unix.Errno
	}{
		{i386.refuse["keyctl"], bad, 0, 0, unix.EPERM},
		{i386.refuse["bpf"], bad, 0, 0, unix.EPERM},
		{i386.ioctl, bad, unix.TIOCSTI, 0, unix.EPERM},
		{i386.ioctl, bad, unix.TCGETS, 0, unix.EBADF},
		{i386.prlimit, bad, bad, 0, unix.ESRCH},
		{i386.prlimit, bad, bad, 1, unix.EPERM},
		{i386.prlimit, 0, bad, 1, unix.EFAULT},
		{newest + 1, bad, 0, 0, unix.ENOSYS},
		{20 /* getpid */, bad, 0, 0, 0},
	} {
		got, err := callI386(int80, tt.nr, tt.arg1, tt.arg2, tt.arg3)
		if err != nil || got != tt.want {
			wrong = append(wrong, fmt.Errorf("i386 call %d: got %v, %v, want %v", tt.nr, got, err, tt.want))
		}
	}
	return wrong
}

// nonsense makes a call with bad pointers, bad file descriptors, unknown flags.
func nonsense(nr uint32) unix.Errno {
	const bad = ^uintptr(0)
	_, _, errno := unix.Syscall6(uintptr(nr), bad, bad, bad, bad, bad, bad)
	return errno
}

func badIoctl(request uintptr) unix.Errno {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, ^uintptr(0), request, 0)
	return errno
}

// prlimit sets and reads the limit of open files. A pid may have high bits.
func prlimit(nr uint32, pid uintptr, limits, old *unix.Rlimit) unix.Errno {
	_, _, errno := unix.Syscall6(uintptr(nr), pid, unix.RLIMIT_NOFILE,
		uintptr(unsafe.Pointer(limits)), uintptr(unsafe.Pointer(old)), 0, 0)
	return errno
}

// badPrlimit has a pointer to nothing, whose low half is that of NULL.
func badPrlimit(nr uint32, pid uintptr) unix.Errno {
	_, _, errno := unix.Syscall6(uintptr(nr), pid, unix.RLIMIT_NOFILE, 0xffffffff<<32, 0, 0, 0)
	return errno
}

// loadFilter puts the filter on all threads.
func loadFilter(filter []unix.SockFilter) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER,
		unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&program)))
	if errno != 0 {
		return fmt.Errorf("load the filter: %w", errno)
	}
	return nil
}
