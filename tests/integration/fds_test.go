//go:build linux

package integration

import (
	"crypto/sha256"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// closing is a shell command line that closes some of 0–2 and opens others, and then runs argv.
func closing(set int, more string) string {
	var b strings.Builder
	for fd := range 3 {
		if set>>fd&1 == 1 {
			fmt.Fprintf(&b, " %d>&-", fd)
		}
	}
	return `exec "$@"` + b.String() + more
}

// fdLines is what the probe fds says of the fds.
func fdLines(text string) (numbers []string, lines map[string]string) {
	lines = map[string]string{}
	for _, line := range strings.Split(text, "\n") {
		if rest, ok := strings.CutPrefix(line, "fd "); ok {
			n, what, _ := strings.Cut(rest, " ")
			numbers, lines[n] = append(numbers, n), what
		}
	}
	return numbers, lines
}

// The payload's fds are 0, 1, 2 and those that were named, whatever the caller had closed. A closed one is /dev/null:
// else the first file that a program opens would be its standard output.
func TestP01_FDsWithClosedStdio(t *testing.T) {
	each(t, allLevels, func(t *testing.T, a arm) {
		b := newBox(t, a)
		probe := append(b.command([]string{"--fd", "9"}, tool("fds"), "1024", "9").Args, "")
		probe = probe[:len(probe)-1]
		for set := range 8 {
			cmd := b.as(append([]string{"sh", "-c", closing(set, " 9>&8 8>&-"), "sh"}, probe...)...)
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			cmd.Stdin, cmd.Stdout, cmd.Stderr = r, w, w // pipes, to be told from /dev/null
			cmd.ExtraFiles = []*os.File{nil, nil, nil, nil, nil, w}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			w.Close()
			text := readAll(t, r)
			_ = cmd.Wait()
			numbers, lines := fdLines(text)
			if code := cmd.ProcessState.ExitCode(); code != 0 || !slices.Equal(numbers, []string{"0", "1", "2", "9"}) {
				t.Errorf("closed %03b: exit code %d, fds %v\n%s", set, code, numbers, text)
				continue
			}
			for fd := range 3 {
				closed := set>>fd&1 == 1
				if isNull := strings.HasSuffix(lines[strconv.Itoa(fd)], " /dev/null"); isNull != closed {
					t.Errorf("closed %03b: fd %d is %s", set, fd, lines[strconv.Itoa(fd)])
				}
			}
		}
	})
}

func readAll(t *testing.T, f *os.File) string {
	t.Helper()
	defer f.Close()
	var b strings.Builder
	buf := make([]byte, 65536)
	for {
		n, err := f.Read(buf)
		b.Write(buf[:n])
		if err != nil {
			return b.String()
		}
	}
}

// --fd to every low number and some high ones, one by one and crossed, with stdio closed and open.
func TestP01_PassedFDs(t *testing.T) {
	each(t, allLevels, func(t *testing.T, a arm) {
		b := newBox(t, a)
		content := make([]*os.File, 2)
		for i := range content {
			path := b.write(fmt.Sprint("content", i), fmt.Sprint("content", i), 0o644)
			f, err := os.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			content[i] = f
		}
		for _, to := range []int{3, 4, 5, 6, 7, 8, 9, 63, 255, 1000} {
			for _, set := range []int{0, 7} {
				// 3 and 4 are ours; the payload gets 3 as `to` and 4 as `to`+1: crossed when to is 3 or 4
				flags := []string{"--fd", fmt.Sprintf("4:%d", to), "--fd", fmt.Sprintf("3:%d", to+1)}
				out := b.write("seen", "", 0o666)
				probe := b.command(append(flags, "--fd", "5:2"), tool("fds"), "2048", "2").Args
				cmd := b.as(append([]string{"sh", "-c", closing(set, ""), "sh"}, probe...)...)
				f, err := os.OpenFile(out, os.O_WRONLY, 0)
				if err != nil {
					t.Fatal(err)
				}
				cmd.ExtraFiles = []*os.File{content[0], content[1], f}
				o := b.finish(cmd)
				f.Close()
				text, err := os.ReadFile(out)
				if err != nil {
					t.Fatal(err)
				}
				numbers, lines := fdLines(string(text))
				want := []string{"0", "1", "2", strconv.Itoa(to), strconv.Itoa(to + 1)}
				if o.code != 0 || !slices.Equal(numbers, want) {
					t.Fatalf("to %d, closed %03b: exit code %d, fds %v, want %v\n%s", to, set, o.code, numbers, want, o.stderr)
				}
				if !strings.Contains(lines[strconv.Itoa(to)], "content1") || !strings.Contains(lines[strconv.Itoa(to+1)], "content0") {
					t.Errorf("to %d, closed %03b: crossed: %v", to, set, lines)
				}
			}
		}
	})
}

// What else the caller has open, and forgot to close at exec, does not reach the payload: nor jail-init.
func TestP01_P02_InheritedFDs(t *testing.T) {
	each(t, allLevels, func(t *testing.T, a arm) {
		b := newBox(t, a)
		folder, err := os.Open("/etc")
		if err != nil {
			t.Fatal(err)
		}
		pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		memfd, err := unix.MemfdCreate("canary", unix.MFD_CLOEXEC)
		if err != nil {
			t.Fatal(err)
		}
		files := []*os.File{folder, os.NewFile(uintptr(pair[0]), "socket"), os.NewFile(uintptr(memfd), "memfd")}
		defer func() {
			for _, f := range files {
				f.Close()
			}
			unix.Close(pair[1])
		}()
		const last = 300 // limit-1: prlimit makes it so
		probe := b.command(nil, tool("fds"), "1024").Args
		var limit unix.Rlimit
		if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
			t.Fatal(err)
		}
		move := fmt.Sprintf("import os, sys, resource\n"+
			"for have, want in ((5, %d), (4, 251), (5, 10)): os.dup2(have, want, inheritable=True)\n"+
			"resource.setrlimit(resource.RLIMIT_NOFILE, (%d, %d))\n"+
			"os.execv(sys.argv[1], sys.argv[1:])", last, last+1, last+1)
		launch := func(argv []string) *exec.Cmd {
			cmd := b.as(append([]string{need(t, "python3"), "-c", move}, argv...)...)
			cmd.ExtraFiles = files
			return cmd
		}
		bare := b.finish(launch([]string{tool("fds"), "1024"}))
		if numbers, _ := fdLines(bare.stdout); !slices.Equal(numbers, []string{"0", "1", "2", "3", "4", "5", "10", "251", "300"}) {
			t.Fatalf("the bare arm has %v: %s", numbers, bare.stderr)
		}
		o := b.finish(launch(probe))
		numbers, lines := fdLines(o.stdout)
		if o.code != 0 || !slices.Equal(numbers, []string{"0", "1", "2"}) {
			t.Errorf("exit code %d, fds %v\n%s%s", o.code, numbers, o.stdout, o.stderr)
		}
		for n, line := range lines {
			if strings.Contains(line, "folder") || strings.Contains(line, " path ") {
				t.Errorf("P02: fd %s is %s", n, line)
			}
		}
	})
}

// The working folder and the root lie inside the jail.
func TestP03_WorkdirAndRoot(t *testing.T) {
	each(t, allLevels, func(t *testing.T, a arm) {
		b := newBox(t, a)
		for _, dir := range []string{"", "/", "/usr", "/tmp"} {
			var flags []string
			want := dir
			if dir == "" {
				want = b.dir
			} else {
				flags = []string{"--workdir", dir}
			}
			got := b.ok(flags, tool("fds"), "3")
			if !strings.Contains(got, "cwd "+want+"\nroot is its own parent\n") {
				t.Errorf("--workdir %q: %s", dir, got)
			}
		}
	})
}

// Standard output that is a host file can be written, and that is all: it can't be opened anew for more.
func TestP04_StdioFiles(t *testing.T) {
	each(t, namespacedUp, func(t *testing.T, a arm) {
		b := newBox(t, a)
		out := filepath.Join(b.tmp, "log")
		f, err := os.OpenFile(out, os.O_WRONLY|os.O_CREATE, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		b.give(out)
		var before, after unix.Stat_t
		if err := unix.Stat(out, &before); err != nil {
			t.Fatal(err)
		}
		cmd := b.command(nil, "sh", "-c", "echo line; (: <>/proc/self/fd/1) 2>/dev/null && echo OPENED")
		cmd.Stdout = f
		b.finish(cmd)
		f.Close()
		text, err := os.ReadFile(out)
		if err != nil {
			t.Fatal(err)
		}
		if a.root && string(text) != "line\n" { // an ordinary user's payload has its uid: the file is its own
			t.Errorf("got %q", text)
		}
		if err := unix.Stat(out, &after); err != nil {
			t.Fatal(err)
		}
		if before.Uid != after.Uid || before.Gid != after.Gid || before.Mode != after.Mode {
			t.Errorf("owner or mode have changed: %+v, were %+v", after, before)
		}
		if err := os.Remove(out); err != nil {
			t.Fatal(err)
		}
	})
}

// While the payload runs, jail-init holds its socket, its signals, the launcher's pidfd and the claims: nothing else.
func TestP05_InitFDs(t *testing.T) {
	each(t, allLevels, func(t *testing.T, a arm) {
		if !asRoot {
			t.Skip("host lacks: the right to read jail-init's fds (root)")
		}
		b := newBox(t, a)
		extra, err := os.Open("/etc")
		if err != nil {
			t.Fatal(err)
		}
		defer extra.Close()
		cmd := b.command(nil, "sleep", "60")
		cmd.ExtraFiles = []*os.File{extra, extra}
		b.running(cmd)
		init, _ := initOf(t, cmd.Process.Pid)
		eventually(t, "jail-init has closed what only its start needed", func() bool {
			links, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", init))
			return len(links) > 0 && len(links) <= 6
		})
		links, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", init))
		if err != nil {
			t.Fatal(err)
		}
		for _, link := range links {
			target, err := os.Readlink(link)
			if err != nil {
				t.Fatal(err)
			}
			known := false
			for _, prefix := range []string{"socket:", "anon_inode:[signalfd]", "anon_inode:[pidfd]", "pidfd:", "/run/jail/uids"} {
				known = known || strings.HasPrefix(target, prefix)
			}
			if a.like() != "namespaced" {
				known = known || strings.HasSuffix(target, "/children")
			}
			if !known {
				t.Errorf("%s is %s", link, target)
			}
		}
	})
}

// No program that can be seen in the jail is a writable one, or a file of the host that is ours.
func TestP06_P07_Exes(t *testing.T) {
	each(t, allLevels, func(t *testing.T, a arm) {
		if a.level == "basic" && a.root {
			return // root may write every file, and basic does not hide any (an escape route)
		}
		b := newBox(t, a)
		sum := fileSum(t, jailPath)
		script := b.write("self", "#!/proc/self/exe\n", 0o755)
		out := b.ok(nil, tool("calls"), "exes")
		for _, line := range strings.Split(strings.TrimSpace(out), "\n") {
			f := strings.Fields(line)
			switch {
			case len(f) < 4 || f[0] != "exe":
				t.Errorf("got %q", line)
			case f[3] == "WRITABLE":
				t.Error(line)
			case a.like() == "namespaced" && f[2] != tool("calls"):
				t.Errorf("PID 1's exe can be read: %s", line)
			}
		}
		if out == "" {
			t.Error("the probe saw nothing, not even itself")
		}
		b.run(nil, script) // a script that is its own interpreter: whatever comes of it
		b.run(nil, "/proc/self/exe", "run", "--", "true")
		b.run(nil, "sh", "-c", "echo overwritten > /proc/1/exe; echo overwritten > /proc/$PPID/exe; echo overwritten > "+jailPath)
		if now := fileSum(t, jailPath); now != sum {
			t.Fatal("the command was overwritten")
		}
	})
}

func fileSum(t *testing.T, path string) [32]byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return sha256.Sum256(b)
}

// A socket is passed as what it is.
func TestPassedSocketWorks(t *testing.T) {
	each(t, allLevels, func(t *testing.T, a arm) {
		b := newBox(t, a)
		pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		theirs := os.NewFile(uintptr(pair[1]), "theirs")
		f := os.NewFile(uintptr(pair[0]), "ours")
		ours, err := net.FileConn(f)
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
		defer ours.Close()
		cmd := b.command([]string{"--fd", "3:7"}, "sh", "-c", "echo hello >&7")
		cmd.ExtraFiles = []*os.File{theirs}
		o := b.finish(cmd)
		theirs.Close()
		buf := make([]byte, 100)
		n, _ := ours.Read(buf)
		if string(buf[:n]) != "hello\n" {
			t.Errorf("got %q, %+v", buf[:n], o)
		}
	})
}
