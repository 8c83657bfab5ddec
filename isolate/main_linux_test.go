//go:build amd64 || arm64

package isolate

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// The test binary also plays the programs that start jails: helperEnv names the part.
const helperEnv = "JAIL_TEST_HELPER"

// helpers are the parts. Each file adds its own, in an init function.
var helpers = map[string]func(){}

func TestMain(m *testing.M) {
	if part := os.Getenv(helperEnv); part != "" {
		helpers[part]()
		syscall.Exit(0) // os.Exit would say, in a binary that was built with -cover, that it has nowhere to write
	}
	// What rapid draws is the same each time, so that a commit passes or does not. `make random` draws anew.
	if os.Getenv("RAPID_SEED") == "" {
		must(flag.Set("rapid.seed", "1"))
	}
	// As an ordinary user the tests are processes of their own, which wait more than they work.
	if err := flag.Set("test.parallel", strconv.Itoa(2*runtime.NumCPU())); err != nil {
		panic(err)
	}
	code := m.Run()
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, "goroutines are left:", err)
			code = 1
		}
	}
	os.Exit(code)
}

// The ordinary user of tests that run as root: a uid that nobody has.
const ordinaryID = 65533

// sweeping says that the long runs were asked for.
var sweeping = os.Getenv("JAIL_SWEEP") != ""

// pick returns the size of a test's short or long run.
func pick(short, long int) int {
	if sweeping {
		return long
	}
	return short
}

// testBinary is a copy of this binary that an ordinary user may run: the folders of go test are closed to others.
func testBinary(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/var/tmp", "jail-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "isolate.test")
	if err := os.WriteFile(path, self, 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// ownFolder is a folder that belongs to the ordinary user, in a place that everybody may enter.
func ownFolder(t testing.TB, uid int) string {
	t.Helper()
	dir, err := os.MkdirTemp("/var/tmp", "jail-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() == 0 {
		if err := os.Lchown(dir, uid, uid); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// asUser makes cmd a program of the user; 0 is ours. Where the tests do not run as root, there is no other user.
func asUser(cmd *exec.Cmd, uid int) {
	if os.Geteuid() != 0 || uid == 0 {
		return
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}}
}

// users are those that a test can start programs as: its own first.
func users() []int {
	if os.Geteuid() == 0 {
		return []int{0, ordinaryID}
	}
	return []int{os.Geteuid()}
}

// helper is a command of the test binary that plays a part.
func helper(binary, part string, uid int, env ...string) *exec.Cmd {
	cmd := exec.Command(binary)
	cmd.Env = append([]string{helperEnv + "=" + part, "PATH=" + testPath, "HOME=/nonexistent"}, env...)
	cmd.Dir = filepath.Dir(binary)
	asUser(cmd, uid)
	return cmd
}

const testPath = "/usr/local/bin:/usr/bin:/bin"

// pureTests need no second run as an ordinary user: they ask the kernel nothing, or start their programs as both
// users themselves.
var pureTests = regexp.MustCompile(`^Test(Ordinary|Parse|Golden|Compile|Both)|^Fuzz|^Benchmark`)

// TestOrdinaryUser runs every test once more as a user who is not root.
func TestOrdinaryUser(t *testing.T) {
	if os.Geteuid() != 0 {
		return // the whole run is that
	}
	binary := testBinary(t)
	dir := ownFolder(t, ordinaryID)
	list, err := exec.Command(binary, "-test.list", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	for name := range strings.FieldsSeq(string(list)) {
		if pureTests.MatchString(name) {
			continue
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel() // each is a process of its own
			args := []string{"-test.run", "^" + name + "$", "-test.v", "-test.timeout", fmt.Sprint(pick(3, 20), "m")}
			if testing.Short() {
				args = append(args, "-test.short")
			}
			cmd := exec.Command(binary, args...)
			cmd.Dir = dir
			cmd.Env = append(os.Environ(), "HOME=/nonexistent", "USER=", "LOGNAME=", "XDG_RUNTIME_DIR=")
			asUser(cmd, ordinaryID)
			out, err := cmd.CombinedOutput()
			if err != nil || !bytes.Contains(out, []byte("--- ")) {
				t.Fatalf("%v\n%s", err, noise.ReplaceAll(out, nil))
			}
			if reason := skipReason.FindSubmatch(out); reason != nil && !bytes.Contains(out, []byte("--- PASS")) {
				t.Skip(string(reason[1]))
			}
			for _, line := range figures.FindAllSubmatch(out, -1) {
				t.Log(string(line[1]))
			}
		})
	}
}

var (
	noise      = regexp.MustCompile(`(?m)^(=== |\s*--- PASS).*\n`)
	skipReason = regexp.MustCompile(`(host lacks: [^\n]*)`)
	figures    = regexp.MustCompile(`_test\.go:\d+: (figure: [^\n]*)`)
)

// lacks skips a test, or the part of it, for want of something on this host.
func lacks(t testing.TB, what string) {
	t.Helper()
	t.Skip("host lacks: " + what)
}

// needs is the path of a program; a test that needs it is skipped where it is not installed.
func needs(t testing.TB, program string) string {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		lacks(t, program)
	}
	return path
}

// longest is how long is waited for what has to happen: far longer than it takes, also on a machine that has much else to do.
const longest = 20 * time.Second

// timeLimits are for a time limit before which the payload has to do something: on a busy machine the first may be too
// short, and then the next is tried.
var timeLimits = []time.Duration{200 * time.Millisecond, 2 * time.Second, 15 * time.Second}

// patience is a context for runs that end by themselves.
func patience(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), longest)
	t.Cleanup(cancel)
	return ctx
}

// shell is a jailed shell script, in a folder that everybody may enter.
func shell(ctx context.Context, level Level, script string, args ...string) *Cmd {
	c := Command(ctx, level, "/bin/sh", append([]string{"-c", script, "sh"}, args...)...)
	c.Dir = "/"
	return c
}

// levelsHere are the levels that this host gives to this process. Where none of those with a cgroup is among them, the
// integration tests say why.
var levelsHere = sync.OnceValue(func() (levels []Level) {
	for _, r := range CheckLevels() {
		if r.Err == nil {
			levels = append(levels, r.Level)
		} else if r.Level < Limited {
			panic(r.Err)
		}
	}
	return levels
})

// levelsOf are those that it gives to a uid.
func levelsOf(t *testing.T, binary string, uid int) (levels []Level) {
	t.Helper()
	out, err := helper(binary, "levels", uid).Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for word := range strings.FieldsSeq(string(out)) {
		level, err := ParseLevel(word)
		if err != nil {
			t.Fatal(err)
		}
		levels = append(levels, level)
	}
	return levels
}

func init() {
	helpers["levels"] = func() {
		for _, level := range levelsHere() {
			fmt.Println(level)
		}
	}
}

// atEachLevel runs a test at each level that this host gives.
func atEachLevel(t *testing.T, f func(t *testing.T, level Level)) {
	for _, level := range levelsHere() {
		t.Run(level.String(), func(t *testing.T) { f(t, level) })
	}
}

// eventually waits for something that has to be true soon.
func eventually(t testing.TB, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(longest); !done(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %s: %s", longest, what)
		}
	}
}
