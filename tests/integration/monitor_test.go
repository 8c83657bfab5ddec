//go:build linux

package integration

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// denial is a line of what --monitor reports.
type denial struct {
	Call     string `json:"call"`
	Argument string `json:"argument"`
	Path     string `json:"path"`
	Errno    string `json:"errno"`
	Why      string `json:"why"`
	Count    int    `json:"count"`
}

// short is what a test compares.
func (d denial) short() string {
	return strings.Join(strings.Fields(fmt.Sprint(d.Call, " ", d.Path, " ", d.Argument, " ", d.Errno, " ", d.Why)), " ")
}

// monitored runs argv under --monitor and reads what was denied.
func (b *box) monitored(flags []string, argv ...string) (list []string, more int, o outcome) {
	b.t.Helper()
	path := filepath.Join(b.tmp, "denied")
	defer os.Remove(path)
	o = b.run(append([]string{"--monitor", "--json", "--result", path}, flags...), argv...)
	return append(list, b.readDenied(path, &more, o)...), more, o
}

func (b *box) readDenied(path string, more *int, o outcome) (list []string) {
	b.t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		b.t.Fatalf("%v: %+v", err, o)
	}
	var r struct {
		Denied []denial `json:"denied"`
		More   int      `json:"denied_more"`
	}
	if err := json.Unmarshal(text, &r); err != nil {
		b.t.Fatalf("%v: %s", err, text)
	}
	for _, d := range r.Denied {
		list = append(list, d.short())
	}
	*more = r.More
	return list
}

// TestMonitorReports: what the payload was told is what is reported, and nothing else is.
func TestMonitorReports(t *testing.T) {
	each(t, userAndUp, func(t *testing.T, a arm) {
		b := newBox(t, a)
		hidden := filepath.Join(filepath.Dir(b.tmp), "hidden")
		b.write(hidden, "secret", 0o644)
		mine := b.write("mine", "x", 0o644)
		closed := b.write("closed", "x", 0o600)
		if a.root {
			if err := os.Chown(closed, 12345, 12345); err != nil {
				t.Fatal(err)
			}
		} else if err := os.Chmod(closed, 0); err != nil {
			t.Fatal(err)
		}
		mounts := a.level != "user"
		errno := map[bool]string{true: "ENOENT", false: "EACCES"}[mounts]
		readOnly := map[bool]string{true: "EROFS", false: "EACCES"}[mounts]
		var denied []string // paths that rules close
		flags := []string{}
		if mounts {
			b.mkdir("shut", 0o755)
			denied = []string{b.write("shut/file", "x", 0o644)}
			denied = append(denied, b.write("alone", "x", 0o644))
			flags = append(flags, "--deny", filepath.Dir(denied[0]), "--deny", denied[1])
		}
		for _, c := range []struct {
			words []string
			told  string
			want  string // call, path, argument, errno, border; "" is nothing
		}{
			{[]string{"read", "/etc/passwd"}, "ok", ""},
			{[]string{"read", "/etc/no-such-file"}, "ENOENT", ""},
			{[]string{"read", "/no-such-folder/x"}, "ENOENT", ""},
			{[]string{"read", mine}, "ok", ""},
			{[]string{"read", "/dev/null"}, "ok", ""},
			{[]string{"write", "/dev/null"}, "ok", ""},
			{[]string{"path", "/etc/passwd"}, "ok", ""},
			{[]string{"read", hidden}, errno, "openat " + hidden + " " + errno + " not in view"},
			{[]string{"read", filepath.Dir(hidden) + "/./tmp/../hidden"}, errno, "openat " + hidden + " " + errno + " not in view"},
			{[]string{"write", "/etc/passwd"}, "EACCES", "openat /etc/passwd EACCES read-only"},
			{[]string{"write", mine}, readOnly, "openat " + mine + " " + readOnly + " read-only"},
			{[]string{"create", "/usr/new"}, readOnly, "openat /usr/new " + readOnly + " read-only"},
			{[]string{"openat2", mine}, readOnly, "openat2 " + mine + " " + readOnly + " read-only"},
			{[]string{"below", "/etc/shadow"}, "EACCES", "openat /etc/shadow EACCES mode"},
			{[]string{"read", closed}, "EACCES", "openat " + closed + " EACCES mode"},
			{append([]string{"read"}, denied[:len(denied)/2]...), "EACCES", "openat " + strings.Join(denied[:len(denied)/2], "") + " EACCES denied"},
			{append([]string{"read"}, denied[len(denied)/2:]...), "EACCES", "openat " + strings.Join(denied[len(denied)/2:], "") + " EACCES denied"},
			{[]string{"exec", hidden}, errno, "execve " + hidden + " " + errno + " not in view"},
			{[]string{"exec", mine}, "EACCES", "execve " + mine + " EACCES mode"},
			{[]string{"keyctl", "11"}, "EPERM", "keyctl 0xb EPERM filter"},
		} {
			if len(c.words) < 2 {
				continue
			}
			got, more, o := b.monitored(flags, append([]string{tool("denied")}, c.words...)...)
			if told := answersOf(o.stdout)[strings.Join(c.words, " ")]; told != c.told {
				t.Errorf("%q: the payload was told %q, want %s; %+v", c.words, told, c.told, o)
			}
			var want []string
			if c.want != "" {
				want = []string{c.want}
			}
			if !slices.Equal(got, want) || more != 0 {
				t.Errorf("%q: %q, want %q", c.words, got, want)
			}
			if c.want != "" && !strings.Contains(o.stderr, "denied: "+strings.Fields(c.want)[0]) {
				t.Errorf("%q: nobody is told: %s", c.words, o.stderr)
			}
		}
	})
}

// TestMonitorChanges: so it is of calls that make, rename and remove names, in a project that can be written to.
func TestMonitorChanges(t *testing.T) {
	each(t, userAndUp, func(t *testing.T, a arm) {
		b := newBox(t, a)
		flags := []string{"--bind", "."}
		mounts := a.level != "user"
		here := func(name string) string { return filepath.Join(b.dir, name) }
		if mounts {
			b.write("closed", "x", 0o644)
			b.mkdir("kept", 0o755)
			flags = append(flags, "--deny", here("closed"), "--ro-bind", here("kept"))
		}
		aside := b.mkdir(filepath.Join(filepath.Dir(b.tmp), "aside"), 0o755)
		hidden := b.write(filepath.Join(aside, "hidden"), "x", 0o644)
		if a.root && !mounts { // the payload is somebody else
			if err := os.Chmod(b.dir, 0o777); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Symlink(hidden, here("out")); err != nil {
			t.Fatal(err)
		}
		readOnly := map[bool]string{true: "EROFS", false: "EACCES"}[mounts]
		outside := map[bool]string{true: "ENOENT", false: "EACCES"}[mounts]
		for _, c := range []struct {
			how, path string
			want      string // errno and border; "" is nothing
			mounts    bool   // not at level user
		}{
			{"mkdir", here("made"), "", false},
			{"rmdir", here("made"), "", false},
			{"symlink", here("new"), "", false},
			{"unlink", here("new"), "", false},
			{"mkdir", "/usr/lib", "", false},
			{"unlink", here("no-such-file"), "", false},
			{"mkdir", "/usr/made", readOnly + " read-only", false},
			{"symlink", "/usr/made", readOnly + " read-only", false},
			{"unlink", "/usr/bin/env", readOnly + " read-only", false},
			{"read", here("out"), outside + " not in view", false},
			{"mkdir", aside + "/made", outside + " not in view", true},
			{"link", hidden, outside + " not in view", true},
			{"link", here("closed"), "EXDEV denied", true},
			{"linkto", "/usr/linked", readOnly + " read-only", true},
			{"rename", here("closed"), "EBUSY denied", true},
			{"renameto", here("closed"), "EBUSY denied", true},
			{"unlink", here("closed"), "EBUSY denied", true},
			{"rename", here("kept"), "EBUSY read-only", true},
			{"rmdir", here("kept"), "EBUSY read-only", true},
			{"renameto", "/usr/renamed", "EXDEV read-only", true},
		} {
			if c.mounts && !mounts {
				continue
			}
			b.write("mine", "x", 0o644)
			got, more, o := b.monitored(flags, tool("denied"), c.how, c.path)
			told, _, _ := strings.Cut(c.want, " ")
			if answer := answersOf(o.stdout)[c.how+" "+c.path]; told != "" && answer != told || told == "" && answer == readOnly {
				t.Errorf("%s %s: the payload was told %q, want %s; %+v", c.how, c.path, answer, told, o)
			}
			if c.want == "" && len(got) > 0 || c.want != "" && (len(got) != 1 || !strings.Contains(got[0], " "+c.path+" "+c.want)) || more != 0 {
				t.Errorf("%s %s: %q, want %q", c.how, c.path, got, c.want)
			}
		}
	})
}

// TestMonitorConnects: so it is of connects.
func TestMonitorConnects(t *testing.T) {
	each(t, userAndUp, func(t *testing.T, a arm) {
		b := newBox(t, a)
		for where, c := range map[string][2]string{
			"192.0.2.1":       {"ENETUNREACH", "connect 192.0.2.1:9 ENETUNREACH no network"},
			"127.0.0.1":       {"ECONNREFUSED", "connect 127.0.0.1:9 ECONNREFUSED no network"},
			"@jail-no-such":   {"ECONNREFUSED", "connect @jail-no-such ECONNREFUSED no network"},
			"/etc/no-socket":  {"ENOENT", ""},
			"/run/no-such/so": {"ENOENT", ""},
		} {
			if a.level == "user" && where[0] != '/' {
				continue // the host's network
			}
			got, _, o := b.monitored(nil, tool("denied"), "connect", where)
			if told := answersOf(o.stdout)["connect "+where]; told != c[0] {
				t.Errorf("%s: the payload was told %q, want %s", where, told, c[0])
			}
			if strings.Join(got, "") != c[1] {
				t.Errorf("%s: %q, want %q", where, got, c[1])
			}
		}
		for where, c := range map[string][2]string{
			"192.0.2.1": {"ENETUNREACH", "sendto 192.0.2.1:9 ENETUNREACH no network"}, "127.0.0.1": {"ok", ""},
		} {
			if a.level == "user" {
				continue // the host's network
			}
			got, _, o := b.monitored(nil, tool("denied"), "sendto", where)
			if told := answersOf(o.stdout)["sendto "+where]; told != c[0] || strings.Join(got, "") != c[1] {
				t.Errorf("sendto %s: %q, told %q, want %q", where, got, told, c)
			}
		}
		socket := filepath.Join(b.tmp, "socket")
		b.running(b.as(need(t, "python3"), "-c", "import socket,sys,time\ns=socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen(); time.sleep(60)", socket))
		defer os.Remove(socket)
		eventually(t, "there is a socket", func() bool { _, err := os.Stat(socket); return err == nil })
		if got, _, o := b.monitored(nil, tool("denied"), "connect", socket); a.level != "user" && !slices.Equal(got, []string{"connect " + socket + " ENOENT not in view"}) {
			t.Errorf("%q, %+v", got, o)
		}
	})
}

// TestMonitorOtherProcesses: /proc of jail's own process is closed, and who looks there is told of.
func TestMonitorOtherProcesses(t *testing.T) {
	each(t, []string{"namespaced", "contained"}, func(t *testing.T, a arm) {
		b := newBox(t, a)
		got, _, o := b.monitored(nil, tool("denied"), "read", "/proc/1/environ", "/proc/1/root/etc/passwd", "/proc/self/environ", "/proc/self/root/etc/passwd", "/proc/1/status")
		want := []string{"openat /proc/1/environ EACCES other process", "openat /proc/1/root/etc/passwd EACCES other process"}
		if !slices.Equal(got, want) || strings.Count(o.stdout, "EACCES") != 2 || strings.Count(o.stdout, "ok") != 3 {
			t.Errorf("%q, %+v", got, o)
		}
	})
}

// TestMonitorHoldsWhatItReplaces: the filters are in the one that asks; each call ends as it does without a monitor.
func TestMonitorHoldsWhatItReplaces(t *testing.T) {
	each(t, userAndUp, func(t *testing.T, a arm) {
		b := newBox(t, a)
		for _, probe := range [][]string{{"families", "1"}, {"mounts"}, {"namespaces"}, {"clocks"}} {
			plain := b.probe(nil, probe...)
			if got := b.probe([]string{"--monitor"}, probe...); fmt.Sprint(got) != fmt.Sprint(plain) {
				t.Errorf("%q: %v, without a monitor %v", probe, got, plain)
			}
		}
	})
}

// TestMonitorProfile: a profile that does not let the payload send lets the listener be sent all the same, and what it
// kills for, it kills for.
func TestMonitorProfile(t *testing.T) {
	each(t, userAndUp, func(t *testing.T, a arm) {
		b := newBox(t, a)
		profile := b.write("profile.json", `{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
			{"names": ["sendmsg", "seccomp", "keyctl"], "action": "SCMP_ACT_ERRNO", "errnoRet": 7},
			{"names": ["personality"], "action": "SCMP_ACT_KILL_PROCESS"},
			{"names": ["acct"], "action": "SCMP_ACT_TRACE"}]}`, 0o644)
		flags := []string{"--seccomp", profile}
		script := `import ctypes, socket
libc = ctypes.CDLL(None, use_errno=True)
print("keyctl", libc.syscall(%d, 0), ctypes.get_errno())
print("acct", libc.acct(b"/x"), ctypes.get_errno())
a, b = socket.socketpair()
try: a.sendmsg([b"x"])
except OSError as e: print("sendmsg", e.errno)
libc.personality(7)
print("alive")`
		script = fmt.Sprintf(script, map[string]int{"amd64": 250, "arm64": 219}[runtime.GOARCH])
		got, _, o := b.monitored(flags, need(t, "python3"), "-u", "-c", script)
		if o.stdout != "keyctl -1 7\nacct -1 38\nsendmsg 7\n" || o.code != 128+int(syscall.SIGSYS) {
			t.Errorf("%+v", o)
		}
		if !slices.Equal(got, []string{"keyctl 0x0 E2BIG filter"}) {
			t.Errorf("%q", got)
		}
	})
}

// TestMonitorFlood: a payload that makes up paths does not grow the report.
func TestMonitorFlood(t *testing.T) {
	each(t, []string{"user", "namespaced"}, func(t *testing.T, a arm) {
		b := newBox(t, a)
		got, more, o := b.monitored(nil, tool("denied"), "flood", "5000")
		if o.stdout != "flood 5000\n" || len(got) != 256 || more != 5000-256 {
			t.Errorf("%d listed, %d more, %+v", len(got), more, o)
		}
		if lines := strings.Count(o.stderr, "\n"); lines > 15 || !strings.Contains(o.stderr, "4744 more calls") {
			t.Errorf("%d lines: %s", lines, o.stderr)
		}
	})
}

// TestMonitorRace: who changes a path while it is looked at gets no more than the kernel gives.
func TestMonitorRace(t *testing.T) {
	each(t, []string{"user", "namespaced"}, func(t *testing.T, a arm) {
		b := newBox(t, a)
		hidden := filepath.Join(filepath.Dir(b.tmp), "hidden")
		b.write(hidden, "secret", 0o644)
		if out := b.ok([]string{"--monitor"}, tool("denied"), "race", b.write("mine", "x", 0o644), hidden); out != "race 0\n" {
			t.Error(out)
		}
	})
}

// TestMonitorSignals: signals neither end nor starve a call that waits.
func TestMonitorSignals(t *testing.T) {
	each(t, []string{"user", "namespaced"}, func(t *testing.T, a arm) {
		b := newBox(t, a)
		if out := b.ok([]string{"--monitor"}, tool("denied"), "alarms", "500"); out != "alarms 0\n" {
			t.Error(out)
		}
	})
}

// TestMonitorFDs: the payload has no fd of it, at the start or ever.
func TestMonitorFDs(t *testing.T) {
	each(t, userAndUp, func(t *testing.T, a arm) {
		b := newBox(t, a)
		plain := b.sh(nil, "ls /proc/self/fd")
		if got := b.sh([]string{"--monitor"}, "ls /proc/self/fd"); got != plain {
			t.Errorf("%q, without a monitor %q", got, plain)
		}
	})
}

// TestMonitorStopped: while the launcher is stopped what it is asked waits, and can be killed; then all goes on.
func TestMonitorStopped(t *testing.T) {
	each(t, []string{"user", "namespaced"}, func(t *testing.T, a arm) {
		b := newBox(t, a)
		path := filepath.Join(b.tmp, "denied")
		defer os.Remove(path)
		cmd := b.command([]string{"--monitor", "--json", "--result", path}, tool("denied"), "killed", "now")
		out := b.stoppedWhenReady(cmd)
		line := make([]byte, len("killed 20\n"))
		if _, err := io.ReadFull(out, line); err != nil || string(line) != "killed 20\n" {
			t.Errorf("%q, %v", line, err)
		}
		if err := cmd.Process.Signal(syscall.SIGCONT); err != nil {
			t.Fatal(err)
		}
		rest, _ := io.ReadAll(out)
		if string(rest) != "then /etc/passwd ok\n" {
			t.Errorf("%q", rest)
		}
		_ = cmd.Wait()
		var more int
		if got := b.readDenied(path, &more, outcome{}); len(got) > 1 || more != 0 { // of whom was killed we need not have heard
			t.Errorf("%q", got)
		}
	})
}

// stoppedWhenReady starts a command, stops its launcher when the payload says that it is ready, and lets the payload go on.
func (b *box) stoppedWhenReady(cmd *exec.Cmd) (out io.Reader) {
	b.t.Helper()
	in, err := cmd.StdinPipe()
	if err != nil {
		b.t.Fatal(err)
	}
	out, err = cmd.StdoutPipe()
	if err != nil {
		b.t.Fatal(err)
	}
	b.running(cmd)
	line := make([]byte, len("ready\n"))
	if _, err := io.ReadFull(out, line); err != nil {
		b.t.Fatal(err)
	}
	stop(b.t, cmd.Process)
	if _, err := in.Write([]byte("\n")); err != nil {
		b.t.Fatal(err)
	}
	return out
}

// stop stops a process and waits until it is.
func stop(t *testing.T, p *os.Process) {
	t.Helper()
	if err := p.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it has stopped", func() bool { return state(p.Pid) == "T" })
}

// TestMonitorKilledLauncher: a call that waits for a launcher that dies ends with its jail.
func TestMonitorKilledLauncher(t *testing.T) {
	each(t, []string{"user", "namespaced"}, func(t *testing.T, a arm) {
		b := newBox(t, a)
		cmd := b.command([]string{"--monitor"}, "sh", "-c", "echo ready; read x; cat /etc/passwd; sleep 60")
		out := b.stoppedWhenReady(cmd)
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		rest, _ := io.ReadAll(out) // its end is the end of the jail
		if len(rest) > 0 {
			t.Errorf("it went on: %q", rest)
		}
		_ = cmd.Wait()
		if a.level == "user" {
			b.swept()
		}
	})
}

// TestMonitorNested: a jail in a monitored jail works, and one with a monitor of its own says why it can't be had.
func TestMonitorNested(t *testing.T) {
	each(t, []string{"user", "namespaced"}, func(t *testing.T, a arm) {
		b := newBox(t, a)
		flags := []string{"--monitor", "--ro-bind", jailPath}
		inner := []string{jailPath, "run", "--level=basic", "--", "echo", "inner"}
		if a.level == "namespaced" {
			inner[2] = "--level=namespaced"
		}
		got, _, o := b.monitored(flags[1:], inner...)
		if o.stdout != "inner\n" || slices.ContainsFunc(got, func(d string) bool { return strings.Contains(d, "/proc/") }) {
			t.Errorf("%q, %+v", got, o)
		}
		if a.level == "user" {
			return // level user in level user has no Landlock rules to give
		}
		inner = slices.Insert(inner, 2, "--monitor")
		if o := b.run(flags, inner...); o.code != 125 || !strings.Contains(o.stderr, "inside another monitor") {
			t.Errorf("%+v", o)
		}
	})
}

// TestMonitorNeedsUser: where nothing is refused there is nothing to report.
func TestMonitorNeedsUser(t *testing.T) {
	each(t, []string{"basic"}, func(t *testing.T, a arm) {
		b := newBox(t, a)
		if o := b.run([]string{"--monitor"}, "true"); o.code != 125 || !strings.Contains(o.stderr, "from level user up") {
			t.Errorf("%+v", o)
		}
	})
}
