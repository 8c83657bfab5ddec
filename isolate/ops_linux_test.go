//go:build amd64 || arm64

package isolate

import (
	"context"
	_ "embed"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/jailrun/jail/cgroup"
	"github.com/jailrun/jail/isolate/internal/jailinit"
)

//go:embed internal/jailinit/src/plan.h
var planHeader string

// opNames are the names of enum op, in order.
func opNames(t testing.TB) map[uint32]string {
	t.Helper()
	enum := regexp.MustCompile(`(?s)enum op \{(.*?)\n\};`).FindStringSubmatch(planHeader)
	if enum == nil {
		t.Fatal("no enum op in plan.h")
	}
	names := map[uint32]string{}
	for _, m := range regexp.MustCompile(`(?m)^\s*(OP_[A-Z_]+)`).FindAllStringSubmatch(enum[1], -1) {
		names[uint32(len(names)+1)] = m[1]
	}
	return names
}

// opsThatRan runs jails of all levels and flags and returns the ops of those that came to the payload's end.
func opsThatRan(dir string) (map[uint32]bool, error) {
	ran := map[uint32]bool{}
	run := func(level Level, set func(s *Spec)) error {
		c := shell(context.Background(), level, "echo ran")
		if set != nil {
			set(c.Spec())
		}
		out, err := c.Output()
		if err != nil || string(out) != "ran\n" {
			return fmt.Errorf("%s: %q, %w", level, out, err)
		}
		for _, s := range c.Plan().Steps {
			ran[s.wire.op] = true
			if s.Side == SideLauncher {
				ran[jailinit.OpBarrier] = true
			}
		}
		delete(ran, 0)
		return nil
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	fmt.Fprint(w, "content")
	w.Close()
	for _, c := range []struct {
		level Level
		set   func(*Spec)
	}{
		{Basic, func(s *Spec) { s.Process.Cwd = "/usr" }},
		{User, func(s *Spec) { s.Monitor = true }},
		{Namespaced, func(s *Spec) {
			s.View = append(s.View,
				Rule{Kind: ShowWrite, Path: "/data", Source: dir}, Rule{Kind: Deny, Path: "/data/secret"},
				Rule{Kind: Tmpfs, Path: "/cache"}, Rule{Kind: Dir, Path: "/new/folder"},
				Rule{Kind: Symlink, Path: "/new/link", Source: "x"}, Rule{Kind: File, Path: "/new/file", FD: int(r.Fd())})
			s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 20, Hard: 20}}
		}},
		{Namespaced, func(s *Spec) { s.HostNetwork = true }},
		{Namespaced, func(s *Spec) {
			s.Root = &specs.Root{Path: dir, Readonly: true}
			s.Linux.MaskedPaths = maskedPaths
			for _, path := range []string{"/usr", "/bin", "/lib", "/lib64"} {
				s.View = append(s.View, Rule{Kind: Show, Path: path, Source: path, Optional: true})
			}
			s.View = append(s.View, Rule{Kind: Overlay, Path: "/copy", Source: dir})
		}},
		{Limited, nil},
	} {
		if !slices.Contains(levelsHere(), c.level) {
			continue
		}
		if err := run(c.level, c.set); err != nil {
			return nil, err
		}
		spec := NewSpec(c.level, "/bin/true")
		spec.Process.Cwd = "/"
		if _, err := try(spec); err != nil {
			return nil, err
		}
		ran[jailinit.OpTry] = true
	}
	return ran, nil
}

// TestBothEveryOp: each op of jail-init has been executed by some Plan that ran to its end, as root or as an ordinary
// user.
func TestBothEveryOp(t *testing.T) {
	names := opNames(t)
	ran := map[uint32]bool{}
	binary := testBinary(t)
	for _, uid := range users() {
		dir := ownFolder(t, uid)
		if err := os.Mkdir(filepath.Join(dir, "secret"), 0o755); err != nil {
			t.Fatal(err)
		}
		out, err := helper(binary, "ops", uid, "DIR="+dir).CombinedOutput()
		if err != nil {
			t.Fatalf("as %d: %v\n%s", uid, err, out)
		}
		for f := range strings.FieldsSeq(string(out)) {
			op, err := strconv.Atoi(f)
			if err != nil {
				t.Fatalf("%q", out)
			}
			ran[uint32(op)] = true
		}
	}
	missing := maps.Clone(names)
	maps.DeleteFunc(missing, func(op uint32, _ string) bool { return ran[op] })
	place, err := cgroup.Find("", controllersOfJail, wantedController)
	if err != nil || place.Scope {
		delete(missing, jailinit.OpWriteSlot) // for cgroups that are there before the jail
	}
	if err != nil || place.Version == 2 {
		delete(missing, jailinit.OpEnter) // for those of v1
	}
	if len(missing) > 0 && os.Geteuid() != 0 {
		lacks(t, fmt.Sprintf("root, who alone has %v", missing))
	}
	if len(missing) > 0 || len(names) < 30 {
		t.Errorf("of %d ops these were never executed: %v", len(names), missing)
	}
	t.Logf("figure: all %d ops were executed", len(names))
}

// TestBothFileSize: with a small RLIMIT_FSIZE the start is an error that says so, not a SIGXFSZ.
func TestBothFileSize(t *testing.T) {
	prlimit := needs(t, "prlimit")
	binary := testBinary(t)
	for _, uid := range users() {
		for _, size := range []string{"0", "1000", "15000"} {
			cmd := helper(binary, "file-size", uid)
			cmd.Path, cmd.Args = prlimit, []string{"prlimit", "--fsize=" + size + ":unlimited", binary}
			out, err := cmd.CombinedOutput()
			if err != nil || !strings.Contains(string(out), jailinit.ErrFileSize.Error()) {
				t.Errorf("%s bytes, as %d: %v\n%s", size, uid, err, out)
			}
			if strings.Contains(string(out), "errno 0") {
				t.Errorf("%s bytes: says %q", size, out)
			}
		}
	}
}

// TestBothManyFDs: a program with very many open files, of which the launcher's own have high numbers.
func TestBothManyFDs(t *testing.T) {
	const many = 1 << 17
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil || limit.Max < many+100 {
		lacks(t, fmt.Sprintf("a hard limit of %d open files (it is %d)", many+100, limit.Max))
	}
	for _, uid := range users() {
		if out, err := helper(testBinary(t), "many-fds", uid, fmt.Sprint("MANY=", many)).CombinedOutput(); err != nil || string(out) != strings.Repeat("ran\n", len(levelsOf(t, testBinary(t), uid))) {
			t.Errorf("%v\n%s", err, out)
		}
	}
}

// TestHighFD passes a file at a high number, and has one of the Plan's own fds there.
func TestHighFD(t *testing.T) {
	fd, err := unix.FcntlInt(0, unix.F_DUPFD_CLOEXEC, 15000)
	if err != nil {
		lacks(t, "15000 open files")
	}
	f := os.NewFile(uintptr(fd), "high")
	defer f.Close()
	atEachLevel(t, func(t *testing.T, level Level) {
		c := shell(patience(t), level, "ls /proc/self/fd | tr '\\n' ' '")
		c.ExtraFiles = []*os.File{nil, f}
		if out, err := c.Output(); err != nil || string(out) != "0 1 2 3 4 " {
			t.Errorf("%q, %v", out, err)
		}
		c = shell(patience(t), level, "true")
		c.ExtraFiles = make([]*os.File, 300)
		for i := range c.ExtraFiles {
			c.ExtraFiles[i] = f
		}
		if err := c.Run(); err == nil || !strings.Contains(err.Error(), "256") {
			t.Errorf("300 files: %v", err)
		}
	})
}

func init() {
	helpers["ops"] = func() {
		ran, err := opsThatRan(os.Getenv("DIR"))
		must(err)
		for op := range ran {
			fmt.Println(op)
		}
	}
	helpers["file-size"] = func() {
		for level := Basic; level <= Namespaced; level++ {
			c := shell(context.Background(), level, "true")
			c.Env = []string{"LONG=" + strings.Repeat("x", 20000)} // a Plan that is longer than jail-init
			err := c.Run()
			if err == nil {
				must(fmt.Errorf("ran at level %s", level))
			}
			fmt.Println(err)
		}
	}
	helpers["many-fds"] = func() {
		var many int
		fmt.Sscan(os.Getenv("MANY"), &many)
		for fd := 0; fd < many; {
			var err error
			fd, err = unix.Dup(0)
			must(err)
		}
		for _, level := range levelsHere() {
			out, err := shell(context.Background(), level, "echo ran").Output()
			must(err)
			os.Stdout.Write(out)
		}
	}
}
