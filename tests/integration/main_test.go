//go:build linux

// Package integration tests what the command promises, on the real kernel: one file for each promise, as root and as an
// ordinary user, at every level.
package integration

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// ordinary is an ordinary user's uid, as it is on no host that we know of.
const ordinary = 65533

var (
	base     string // 0755, where others may look and no level's private folder lies
	rootHome string // 0700, below root's home; "" for an ordinary user
	jailPath string
	tools    string // the probes of testdata
	asRoot   = os.Geteuid() == 0
	sweep    = os.Getenv("JAIL_SWEEP") != ""
)

// apart is set in the process that runs the tests.
const apart = "JAIL_INTEGRATION_APART"

// As root the tests run in a mount and a UTS namespace of their own: an engine that forgets one of its namespaces would
// otherwise take the machine's root away (a mutant has done it).
func TestMain(m *testing.M) {
	// They wait more than they work: for time-outs, for ends. Who gives -parallel has it, since flags are parsed later.
	if err := flag.Set("test.parallel", strconv.Itoa(4*runtime.NumCPU())); err != nil {
		panic(err)
	}
	if asRoot && os.Getenv(apart) == "" {
		cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
		cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
		cmd.Env = append(os.Environ(), apart+"=1")
		cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS | unix.CLONE_NEWUTS, Pdeathsig: syscall.SIGKILL}
		runtime.LockOSThread() // Pdeathsig goes by the thread
		err := cmd.Run()
		if cmd.ProcessState == nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		if err != nil && cmd.ProcessState.ExitCode() <= 0 {
			os.Exit(1)
		}
		os.Exit(cmd.ProcessState.ExitCode())
	}
	code, err := mainCode(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func mainCode(m *testing.M) (code int, err error) {
	parent := "/var/lib"
	if !asRoot {
		if parent, err = os.UserHomeDir(); err != nil {
			return 1, err
		}
	}
	if base, err = os.MkdirTemp(parent, "jail-integration-"); err != nil {
		return 1, err
	}
	defer os.RemoveAll(base)
	if err := os.Chmod(base, 0o755); err != nil {
		return 1, err
	}
	if asRoot {
		if rootHome, err = os.MkdirTemp("/root", "jail-integration-"); err != nil {
			return 1, err
		}
		defer os.RemoveAll(rootHome)
	}
	if err := build(); err != nil {
		return 1, err
	}
	// What a launcher leaves behind when it is killed becomes our child: at the end there may be none.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return 1, err
	}
	back := func() error { return nil }
	if asRoot {
		if back, err = delegate(); err != nil {
			return 1, err
		}
	}
	mounts := hostMounts()
	code = m.Run()
	err = errors.Join(noChildren(), sameMounts(mounts))
	return code, errors.Join(err, collected(), back())
}

// build makes the command and the probes, as the release is made. Where they can't be built they come from the folder
// that JAIL_TEST_BUILT names.
func build() error {
	jailPath, tools = filepath.Join(base, "jail"), filepath.Join(base, "tools")
	if built := os.Getenv("JAIL_TEST_BUILT"); built != "" {
		return os.CopyFS(base, os.DirFS(built))
	}
	if err := os.Mkdir(tools, 0o755); err != nil {
		return err
	}
	sources, err := filepath.Glob("testdata/*.c")
	if err != nil {
		return err
	}
	commands := [][]string{{
		"go", "build", "-trimpath", "-tags", "osusergo,netgo", "-ldflags", "-linkmode external -extldflags -static",
		"-o", jailPath, "../../cmd/jail",
	}}
	for _, src := range sources {
		name := strings.TrimSuffix(filepath.Base(src), ".c")
		commands = append(commands, []string{"gcc", "-static", "-O1", "-Wall", "-Werror", "-pthread", "-o", filepath.Join(tools, name), src})
	}
	errs := make([]error, len(commands))
	var done sync.WaitGroup
	for i, c := range commands {
		done.Go(func() {
			if out, err := exec.Command(c[0], c[1:]...).CombinedOutput(); err != nil {
				errs[i] = fmt.Errorf("%s: %w\n%s", strings.Join(c, " "), err, out)
			}
		})
	}
	done.Wait()
	return errors.Join(errs...)
}

// noChildren waits until every process that was started is gone.
func noChildren() error {
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		for {
			pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil)
			if errors.Is(err, unix.ECHILD) {
				return nil
			}
			if pid == 0 {
				break
			}
		}
		if time.Now().After(deadline) {
			out, _ := exec.Command("ps", "-o", "pid,ppid,stat,args", "--ppid", strconv.Itoa(os.Getpid())).CombinedOutput()
			return fmt.Errorf("processes are left:\n%s", out)
		}
	}
}

// collected lets jail gc take away what killed launchers of either user have left: what delegate made would not go else.
func collected() error {
	if !delegatedV1 {
		return nil
	}
	var errs []error
	for _, id := range []uint32{0, ordinary} {
		cmd := exec.Command(jailPath, "gc")
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: id, Gid: id}}
		if out, err := cmd.CombinedOutput(); err != nil {
			errs = append(errs, fmt.Errorf("jail gc: %w\n%s", err, out))
		}
	}
	return errors.Join(errs...)
}

func hostMounts() string {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		panic(err)
	}
	return string(b)
}

func sameMounts(before string) error {
	if now := hostMounts(); now != before {
		return fmt.Errorf("the host's mounts have changed:\n%s\nwere\n%s", now, before)
	}
	return nil
}

// arm is one way to run the command.
type arm struct {
	level string
	root  bool
}

func (a arm) String() string {
	if a.root {
		return a.level + "/root"
	}
	return a.level + "/ordinary"
}

// like is the level that says what is seen of files, processes and the network: the levels above namespaced add nothing to it.
func (a arm) like() string {
	if a.level == "limited" || a.level == "contained" {
		return "namespaced"
	}
	return a.level
}

var allLevels = []string{"basic", "user", "namespaced", "limited", "contained"}

// hasArm skips the test where the host does not give a level to that caller.
func hasArm(t *testing.T, a arm) {
	t.Helper()
	if a.root && !asRoot {
		t.Skip("host lacks: root")
	}
	if why := missing(a); why != "" {
		t.Skip("host lacks: level " + a.level + " for that caller: " + why)
	}
}

var levelReports sync.Map // by whether as root

// missing says why the host does not give a level, or "".
func missing(a arm) string {
	ask := sync.OnceValue(func() map[string]string {
		cmd := exec.Command(jailPath, "levels", "--json")
		cmd.SysProcAttr = &syscall.SysProcAttr{}
		if !a.root && asRoot {
			cmd.SysProcAttr.Credential = &syscall.Credential{Uid: ordinary, Gid: ordinary}
		}
		text, err := cmd.Output()
		var reports []struct {
			Level, Error string
			Works        bool
		}
		if err == nil {
			err = json.Unmarshal(text, &reports)
		}
		if err != nil {
			panic(fmt.Sprintf("jail levels: %v: %s", err, text))
		}
		why := map[string]string{}
		for _, r := range reports {
			if !r.Works {
				why[r.Level] = r.Error
			}
		}
		return why
	})
	got, _ := levelReports.LoadOrStore(a.root, ask)
	return got.(func() map[string]string)()[a.level]
}

// TestLevelsOfThisHost: levels without a cgroup work on every host that runs these tests; who has a place for one gets
// the others. Elsewhere in these tests such an arm is left out without a word. scripts/levels.sh makes a table of what it
// logs.
func TestLevelsOfThisHost(t *testing.T) {
	t.Logf("table host: %s", kernel(t))
	for _, level := range allLevels {
		for _, root := range []bool{true, false} {
			a := arm{level, root}
			if root && !asRoot {
				continue
			}
			t.Run(a.String(), func(t *testing.T) {
				switch why := missing(a); {
				case why == "":
					t.Logf("table %s: works", a)
				case (level == "limited" || level == "contained") && !root && !delegated():
					t.Logf("table %s: %s", a, strings.ReplaceAll(why, "\n", "; "))
					hasArm(t, a)
				default:
					t.Error(why)
				}
			})
		}
	}
}

// kernel names what the levels depend on.
func kernel(t *testing.T) string {
	var name unix.Utsname
	var cgroups unix.Statfs_t
	if err := errors.Join(unix.Uname(&name), unix.Statfs("/sys/fs/cgroup", &cgroups)); err != nil {
		t.Fatal(err)
	}
	version := "v1"
	if _, err := os.Stat("/sys/fs/cgroup/unified"); err == nil {
		version = "hybrid"
	}
	if cgroups.Type == unix.CGROUP2_SUPER_MAGIC {
		version = "v2"
	}
	release := strings.SplitN(unix.ByteSliceToString(name.Release[:]), ".", 3)[:2]
	return fmt.Sprintf("Linux %s, %s, cgroup %s, Landlock ABI %d",
		strings.Join(release, "."), unix.ByteSliceToString(name.Machine[:]), version, landlockABI())
}

// delegated says whether an ordinary user has a cgroup of its own here, or a systemd that gives one.
func delegated() bool {
	text, err := os.ReadFile("/proc/self/cgroup")
	if err != nil || asRoot {
		return delegatedV1
	}
	var fs unix.Statfs_t
	if unix.Statfs("/sys/fs/cgroup", &fs) == nil && fs.Type == unix.CGROUP2_SUPER_MAGIC &&
		unix.Access(filepath.Join(os.Getenv("XDG_RUNTIME_DIR"), "systemd/private"), unix.F_OK) == nil {
		return true
	}
	path, ok := strings.CutPrefix(strings.TrimSpace(string(text)), "0::")
	return ok && unix.Access(filepath.Join("/sys/fs/cgroup", filepath.Dir(path), "cgroup.procs"), unix.W_OK) == nil
}

// each runs f in every arm of the levels that the host gives, all at once.
func each(t *testing.T, levels []string, f func(t *testing.T, a arm)) {
	t.Parallel()
	for _, level := range levels {
		for _, root := range []bool{true, false} {
			a := arm{level, root}
			if (!root || asRoot) && missing(a) != "" {
				continue
			}
			t.Run(a.String(), func(t *testing.T) {
				hasArm(t, a)
				t.Parallel()
				f(t, a)
			})
		}
	}
}

// box is a project that a caller runs the command in.
type box struct {
	t      *testing.T
	arm    arm
	dir    string // the working folder
	home   string
	tmp    string // the launcher's TMPDIR
	env    []string
	cookie string // in the environment of every payload
}

var boxes atomic.Int64

// newBox makes a project of the caller's own. After the test nothing of its jails may be left.
func newBox(t *testing.T, a arm) *box {
	t.Helper()
	n := boxes.Add(1)
	b := &box{t: t, arm: a, cookie: fmt.Sprintf("JAIL_TEST_COOKIE=%d-%d", os.Getpid(), n)}
	top := filepath.Join(base, fmt.Sprint("box", n))
	b.home = filepath.Join(top, "home")
	b.dir = filepath.Join(b.home, "project")
	b.tmp = filepath.Join(top, "tmp")
	if a.root {
		// At level user there are no id maps: a folder that others may enter. Else the hardest: below a 0700 home.
		if b.home = "/root"; a.level == "user" {
			b.dir = filepath.Join(top, "project")
		} else {
			b.dir = filepath.Join(rootHome, fmt.Sprint("project", n))
		}
	}
	for _, dir := range []string{top, b.home, b.dir, b.tmp} {
		if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
			t.Fatal(err)
		}
		if !a.root && dir != top {
			b.give(dir)
		}
	}
	if !a.root {
		if err := os.Chmod(b.home, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	b.env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=" + b.home, "LANG=C", "TMPDIR=" + b.tmp}
	if dir := os.Getenv("XDG_RUNTIME_DIR"); dir != "" && !asRoot { // the way to the user's systemd, which has the cgroups
		b.env = append(b.env, "XDG_RUNTIME_DIR="+dir)
	}
	t.Cleanup(b.nothingLeft)
	return b
}

// give makes a file the caller's.
func (b *box) give(path string) {
	b.t.Helper()
	if !b.arm.root && asRoot {
		if err := os.Lchown(path, ordinary, ordinary); err != nil {
			b.t.Fatal(err)
		}
	}
}

// write makes a file in the project, the caller's.
func (b *box) write(name, content string, mode os.FileMode) string {
	b.t.Helper()
	path := name
	if !filepath.IsAbs(name) {
		path = filepath.Join(b.dir, name)
	}
	if err := os.WriteFile(path, []byte(content), mode); err != nil {
		b.t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		b.t.Fatal(err)
	}
	b.give(path)
	return path
}

// mkdir makes a folder in the project, the caller's.
func (b *box) mkdir(name string, mode os.FileMode) string {
	b.t.Helper()
	path := name
	if !filepath.IsAbs(name) {
		path = filepath.Join(b.dir, name)
	}
	if err := os.Mkdir(path, mode); err != nil {
		b.t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		b.t.Fatal(err)
	}
	b.give(path)
	return path
}

// nothingLeft is the oracle around every test: no process with the cookie, no private TMPDIR.
func (b *box) nothingLeft() {
	deadline := time.Now().Add(patience)
	for {
		left := pidsWith(b.cookie)
		tmp, err := os.ReadDir(b.tmp)
		if err != nil {
			b.t.Error(err)
		}
		if len(left) == 0 && len(tmp) == 0 {
			return
		}
		if time.Now().After(deadline) {
			b.t.Errorf("left of the jails: processes %v, in TMPDIR %v", left, tmp)
			for _, pid := range left {
				st := statusOf(pid)
				b.t.Logf("%d is %s, parent %s, state %s, pending %s %s", pid, st["Name"], st["PPid"], st["State"], st["SigPnd"], st["ShdPnd"])
				_ = syscall.Kill(pid, syscall.SIGKILL)
			}
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// pidsWith lists the living processes that have a string in their environment, outside our own.
func pidsWith(cookie string) []int {
	var pids []int
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		env, err := os.ReadFile(filepath.Join("/proc", e.Name(), "environ"))
		if err != nil || !slices.Contains(strings.Split(string(env), "\x00"), cookie) {
			continue
		}
		exe, _ := os.Readlink(filepath.Join("/proc", e.Name(), "exe"))
		if exe != jailPath && state(pid) != "Z" {
			pids = append(pids, pid)
		}
	}
	return pids
}

// state is the letter of a process's state; "" is none.
func state(pid int) string { return strings.TrimSpace(statusOf(pid)["State"][:1]) }

// statusOf reads /proc/PID/status; the values of a process that is gone are " ".
func statusOf(pid int) map[string]string {
	m := map[string]string{"State": " "}
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	for k, v := range parseStatus(string(b)) {
		m[k] = v
	}
	return m
}

func parseStatus(text string) map[string]string {
	m := map[string]string{}
	for _, line := range strings.Split(text, "\n") {
		if k, v, ok := strings.Cut(line, ":"); ok {
			m[k] = strings.TrimSpace(v)
		}
	}
	return m
}

// outcome is what a run gave.
type outcome struct {
	stdout, stderr string
	code           int
}

// flags are what every run of the box has, before the test's own.
func (b *box) flags() []string {
	f := []string{"--level=" + b.arm.level, "--env", b.cookie}
	if b.arm.level != "basic" {
		f = append(f, "--ro-bind", tools)
	}
	return f
}

// command is jail run, ready to be started.
func (b *box) command(flags []string, argv ...string) *exec.Cmd {
	return b.as(append(append(append([]string{jailPath, "run"}, b.flags()...), append(flags, "--")...), argv...)...)
}

// as is a command of the box's caller, without any jail.
func (b *box) as(argv ...string) *exec.Cmd {
	b.t.Helper()
	path := argv[0]
	if !strings.Contains(path, "/") {
		path = need(b.t, path)
	}
	cmd := exec.Command(path, argv[1:]...)
	cmd.Dir = b.dir
	cmd.Env = slices.Clone(b.env)
	cmd.SysProcAttr = &syscall.SysProcAttr{}
	if !b.arm.root && asRoot {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: ordinary, Gid: ordinary}
	}
	return cmd
}

// scoped says whether Landlock keeps signals and abstract sockets inside: from ABI 6, Linux 6.12.
func scoped() bool { return landlockABI() >= 6 }

// landlockABI is 0 where there is no Landlock.
func landlockABI() int {
	const version = 1 // LANDLOCK_CREATE_RULESET_VERSION
	abi, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, version)
	if errno != 0 {
		return 0
	}
	return int(abi)
}

// need is the path of a program of the system, outside of anybody's home.
func need(t *testing.T, name string) string {
	t.Helper()
	for _, dir := range []string{"/usr/bin", "/bin", "/usr/sbin", "/sbin"} {
		path := filepath.Join(dir, name)
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	t.Skipf("host lacks: %s", name)
	return ""
}

// How long is waited for what has to happen: far longer than it takes, also on a machine that has much else to do.
const (
	patience = 30 * time.Second
	longest  = 2 * time.Minute // for a whole run
)

// timeLimits are for a --timeout before which the payload has to do something: on a busy machine the first may be too
// short, and then the next is tried.
var timeLimits = []string{"300ms", "3s", "25s"}

// finish runs a command to its end; one that hangs is killed and fails the test.
func (b *box) finish(cmd *exec.Cmd) outcome {
	b.t.Helper()
	var stdout, stderr bytes.Buffer
	if cmd.Stdout == nil {
		cmd.Stdout = &stdout
	}
	if cmd.Stderr == nil {
		cmd.Stderr = &stderr
	}
	if err := cmd.Start(); err != nil {
		b.t.Fatal(err)
	}
	hung := time.AfterFunc(longest, func() { _ = cmd.Process.Kill() })
	cmd.WaitDelay = patience
	err := cmd.Wait()
	if !hung.Stop() {
		b.t.Fatalf("%q hung; stderr: %s", cmd.Args, stderr.String())
	}
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		b.t.Fatal(err)
	}
	code := cmd.ProcessState.ExitCode()
	if ws := cmd.ProcessState.Sys().(syscall.WaitStatus); ws.Signaled() {
		code = -int(ws.Signal())
	}
	return outcome{stdout.String(), stderr.String(), code}
}

// run runs argv in a jail.
func (b *box) run(flags []string, argv ...string) outcome {
	b.t.Helper()
	return b.finish(b.command(flags, argv...))
}

// bare runs argv as the box's caller without any jail.
func (b *box) bare(argv ...string) outcome {
	b.t.Helper()
	return b.finish(b.as(argv...))
}

// ok is run that has to exit 0; it returns stdout.
func (b *box) ok(flags []string, argv ...string) string {
	b.t.Helper()
	o := b.run(flags, argv...)
	if o.code != 0 {
		b.t.Fatalf("%q %q: exit code %d\nstdout: %s\nstderr: %s", flags, argv, o.code, o.stdout, o.stderr)
	}
	return o.stdout
}

// sh is ok with a shell script.
func (b *box) sh(flags []string, script string) string {
	b.t.Helper()
	return b.ok(flags, "sh", "-c", script)
}

// python is ok with a Python program.
func (b *box) python(flags []string, program string) string {
	b.t.Helper()
	return b.ok(flags, need(b.t, "python3"), "-c", program)
}

// tool is the path of a probe.
func tool(name string) string { return filepath.Join(tools, name) }

// userAndUp are the levels that have a file view.
var userAndUp = []string{"user", "namespaced", "limited", "contained"}

// running starts a command and kills it at the test's end, if it has not ended by then.
func (b *box) running(cmd *exec.Cmd) *exec.Cmd {
	b.t.Helper()
	if err := cmd.Start(); err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM) // a killed launcher leaves its TMPDIR to the next start
		hung := time.AfterFunc(patience, func() { _ = cmd.Process.Kill() })
		_ = cmd.Wait()
		hung.Stop()
	})
	return cmd
}

// eventually waits until ok says so.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("it never came true that %s", what)
		}
	}
}

// children lists the direct children of a process.
func children(pid int) []int {
	var pids []int
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, task := range tasks {
		text, _ := os.ReadFile(task)
		for _, word := range strings.Fields(string(text)) {
			if n, err := strconv.Atoi(word); err == nil {
				pids = append(pids, n)
			}
		}
	}
	return pids
}

// initOf is the jail-init of a launcher that runs, and the payload's first process after its exec.
func initOf(t *testing.T, launcher int) (init, payload int) {
	t.Helper()
	eventually(t, "the launcher has a jail-init with a payload", func() bool {
		for _, init = range children(launcher) {
			for _, payload = range children(init) {
				if name := comm(payload); name != "" && name != comm(init) {
					return true
				}
			}
		}
		return false
	})
	return init, payload
}

func comm(pid int) string {
	name, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	return string(name)
}

// swept waits until a start has removed what launchers that were killed have left in TMPDIR: the first one may come
// while their jails still end.
func (b *box) swept() {
	b.t.Helper()
	eventually(b.t, "a start removes what is left in TMPDIR", func() bool {
		b.ok(nil, "true")
		left, err := os.ReadDir(b.tmp)
		return err == nil && len(left) == 0
	})
}
