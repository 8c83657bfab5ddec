//go:build linux

package integration

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/jailrun/jail/seccomp"
)

// learnCase is something that is run, and what it must not do by the policy that is learnt of it.
type learnCase struct {
	name  string
	needs []string
	make  func(b *box)
	flags []string
	argv  []string
	says  string     // in its output
	other [][]string // each of them would say SECRET or EXECUTED, or connect to $PORT; $SECRET is the path of a secret
}

// learn runs argv and returns the outcome and the policy, a file in the project.
func (b *box) learn(flags []string, argv ...string) outcome {
	b.t.Helper()
	args := append([]string{jailPath, "learn", "-o", "learnt.yaml", "--level", b.arm.level, "--env", b.cookie}, flags...)
	return b.finish(b.as(append(append(args, "--"), argv...)...))
}

// byLearnt runs argv by the policy that was learnt.
func (b *box) byLearnt(argv ...string) outcome {
	b.t.Helper()
	return b.finish(b.as(append([]string{jailPath, "run", "--policy", "./learnt.yaml", "--env", b.cookie, "--"}, argv...)...))
}

var learnCases = []learnCase{
	{
		name: "python", needs: []string{"python3"}, argv: []string{"python3", "-c", "import json, socket, os; print(json.dumps({'a': 1}))"}, says: `{"a": 1}`,
		other: [][]string{
			{"python3", "-c", "print(open('$SECRET').read())"},
			{"python3", "-c", "import os; os.execv('/bin/echo', ['echo', 'EXECUTED'])"},
			{"python3", "-c", "import socket; socket.create_connection(('127.0.0.1', $PORT))"},
			{"echo", "EXECUTED"},
		},
	},
	{
		name: "gcc", needs: []string{"gcc"}, flags: []string{"--bind", "."}, argv: []string{"sh", "-c", "gcc -o hello hello.c && ./hello"}, says: "hello, world",
		make: func(b *box) {
			b.write("hello.c", "#include <stdio.h>\nint main(void) { puts(\"hello, world\"); }\n", 0o644)
			b.write("out.c", `#include <arpa/inet.h>
int main(void) {
	struct sockaddr_in to = {AF_INET, htons(PORT), {htonl(INADDR_LOOPBACK)}};
	return connect(socket(AF_INET, SOCK_STREAM, 0), (struct sockaddr *)&to, sizeof(to));
}
`, 0o644)
		},
		other: [][]string{
			{"sh", "-c", "gcc -E -xc $SECRET"},
			{"sh", "-c", "while read l; do echo $l; done <$SECRET"},
			{"sh", "-c", "/usr/bin/env echo EXECUTED"},
			{"sh", "-c", "gcc -DPORT=$PORT -o hello out.c && ./hello"},
		},
	},
	{
		name: "git", needs: []string{"git"}, flags: []string{"--bind", "."}, argv: []string{"git", "clone", "./from", "to"}, says: "Cloning into",
		make: func(b *box) {
			b.mkdir("from", 0o755)
			b.write("from/file", "content\n", 0o644)
			for _, args := range [][]string{{"init", "-q", "from"}, {"-C", "from", "add", "."}, {"-C", "from", "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "one"}} {
				if o := b.bare(append([]string{"git"}, args...)...); o.code != 0 {
					b.t.Fatalf("%+v", o)
				}
			}
		},
		other: [][]string{
			{"git", "-c", "alias.x=!/usr/bin/env echo EXECUTED; cat $SECRET", "x"}, {"git", "diff", "--no-index", "/dev/null", "$SECRET"}, {"git", "clone", "git://127.0.0.1:$PORT/x", "gone"},
		},
	},
	{
		name: "tar", needs: []string{"tar"}, flags: []string{"--bind", "."}, argv: []string{"tar", "-cvf", "out.tar", "in"}, says: "in/file",
		make: func(b *box) {
			b.mkdir("in", 0o755)
			b.write("in/file", "content", 0o644)
		},
		other: [][]string{{"tar", "-cPf", "-", "$SECRET"}, {"tar", "-cf", "out.tar", "--checkpoint=1", "--checkpoint-action=exec=echo EXECUTED", "in"}},
	},
	{
		name: "sqlite", needs: []string{"sqlite3"}, flags: []string{"--bind", "."}, argv: []string{"sqlite3", "db", "create table if not exists t(x); insert into t values (42); select max(x) from t;"}, says: "42",
		other: [][]string{{"sqlite3", "db", ".system echo EXECUTED"}, {"sqlite3", ":memory:", "select readfile('$SECRET')"}},
	},
	{
		name: "node", needs: []string{"node"}, argv: []string{"node", "-e", "console.log(6*7)"}, says: "42",
		other: [][]string{
			{"node", "-e", "console.log(require('fs').readFileSync('$SECRET', 'utf8'))"},
			{"node", "-e", "console.log(require('child_process').execFileSync('/bin/echo', ['EXECUTED']).toString())"},
			{"node", "-e", "require('net').connect($PORT, '127.0.0.1')"},
		},
	},
	{
		name: "server", needs: []string{"python3"}, argv: []string{"python3", "-c", `
import http.server, threading, urllib.request
s = http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler)
threading.Thread(target=s.serve_forever, daemon=True).start()
print(urllib.request.urlopen(f"http://127.0.0.1:{s.server_port}/page").read())`}, says: "a page",
		make: func(b *box) { b.write("page", "a page", 0o644) },
		other: [][]string{
			{"python3", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:$PORT/')"},
			{"python3", "-c", "print(open('$SECRET').read())"},
			{"python3", "-c", "import os; os.execv('/bin/echo', ['echo', 'EXECUTED'])"},
		},
	},
}

// TestLearn: by the policy that is learnt the same run passes, and other ones do not.
func TestOpening7LearntPoliciesRunAgain(t *testing.T) {
	for _, c := range learnCases {
		t.Run(c.name, func(t *testing.T) {
			each(t, []string{"namespaced", "limited", "contained"}, func(t *testing.T, a arm) {
				for _, program := range c.needs {
					if _, err := exec.LookPath("/usr/bin/" + program); err != nil {
						t.Skip("host lacks: " + program)
					}
				}
				b := newBox(t, a)
				secret := filepath.Join(b.home, ".ssh/id")
				if a.root {
					secret = filepath.Join(filepath.Dir(b.tmp), "id")
				} else {
					b.mkdir(filepath.Dir(secret), 0o700)
				}
				b.write(secret, "SECRET\n", 0o644)
				if c.make != nil {
					c.make(b)
				}
				if o := b.learn(c.flags, c.argv...); o.code != 0 || !strings.Contains(o.stdout+o.stderr, c.says) {
					t.Fatalf("%+v", o)
				}
				policy, err := os.ReadFile(filepath.Join(b.dir, "learnt.yaml"))
				if err != nil {
					t.Fatal(err)
				}
				_ = os.RemoveAll(filepath.Join(b.dir, "to"))
				if o := b.byLearnt(c.argv...); o.code != 0 || !strings.Contains(o.stdout+o.stderr, c.says) {
					t.Errorf("the same run: %+v\n%s", o, policy)
				}
				port, connections := listener(t)
				does := func(o outcome) bool {
					said := strings.ReplaceAll(o.stdout, secret, "")
					return connections() > 0 || strings.Contains(said, "SECRET") || strings.Contains(said, "EXECUTED")
				}
				for _, argv := range c.other {
					var filled []string
					for _, word := range argv {
						filled = append(filled, strings.NewReplacer("$SECRET", secret, "$PORT", port).Replace(word))
					}
					if o := b.byLearnt(filled...); does(o) {
						t.Errorf("%q: %+v\n%s", filled, o, policy)
					}
					_ = os.RemoveAll(filepath.Join(b.dir, "gone"))
					if o := b.bare(filled...); !does(o) {
						t.Errorf("vacuous: %q: %+v", filled, o)
					}
				}
			})
		})
	}
}

// listener is a port of the machine's loopback, and how often it was connected to since it was last asked.
func listener(t *testing.T) (port string, connections func() int) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	from := make(chan string, 100)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			from <- c.RemoteAddr().String()
			c.Close()
		}
	}()
	return strconv.Itoa(l.Addr().(*net.TCPAddr).Port), func() int {
		last, err := net.Dial("tcp", l.Addr().String()) // all others come before it
		if err != nil {
			t.Fatal(err)
		}
		defer last.Close()
		n := 0
		for <-from != last.LocalAddr().String() {
			n++
		}
		return n
	}
}

// TestLearnMerge: --merge adds a run to what was learnt; without it nothing that is there is written over.
func TestLearnMerge(t *testing.T) {
	each(t, []string{"namespaced"}, func(t *testing.T, a arm) {
		b := newBox(t, a)
		first, second := []string{"python3", "-c", "print(1)"}, []string{"sed", "-n", "1p", "/etc/passwd"}
		if o := b.learn(nil, first...); o.code != 0 {
			t.Fatalf("%+v", o)
		}
		if o := b.byLearnt(second...); o.code == 0 {
			t.Errorf("it was not learnt, and passes: %+v", o)
		}
		if o := b.learn(nil, second...); o.code != 125 || !strings.Contains(o.stderr, "--merge") {
			t.Errorf("%+v", o)
		}
		if o := b.learn([]string{"--merge"}, second...); o.code != 0 {
			t.Fatalf("%+v", o)
		}
		for _, argv := range [][]string{first, second} {
			if o := b.byLearnt(argv...); o.code != 0 {
				t.Errorf("%q: %+v", argv, o)
			}
		}
		if o := b.byLearnt("cat", "/etc/passwd"); o.code == 0 {
			t.Errorf("it was not learnt, and passes: %+v", o)
		}
	})
}

// TestLearnKeeps: what a run was given otherwise than by the view is in the policy as it was given.
func TestLearnKeeps(t *testing.T) {
	each(t, []string{"namespaced"}, func(t *testing.T, a arm) {
		b := newBox(t, a)
		b.mkdir("data", 0o755)
		b.write("data/file", "content", 0o644)
		argv := []string{"sh", "-c", "echo $GREETING; cat /data/file; echo x >/scratch/y && ulimit -n"}
		o := b.learn([]string{"--ro-bind", "data:/data", "--tmpfs", "/scratch:1M", "--env", "GREETING=hello", "--rlimit", "nofile=64", "--deny", "/etc/shadow"}, argv...)
		if again := b.byLearnt(argv...); o.code != 0 || again.code != 0 || again.stdout != o.stdout || again.stdout != "hello\ncontent64\n" {
			t.Errorf("%+v, by the policy %+v", o, again)
		}
		text, err := os.ReadFile(filepath.Join(b.dir, "learnt.yaml"))
		if err != nil || !strings.Contains(string(text), "deny: /etc/shadow") {
			t.Errorf("%v\n%s", err, text)
		}
		if o := b.learn([]string{"--merge", "--rootfs", "/"}, "true"); o.code != 125 || !strings.Contains(o.stderr, "--rootfs") {
			t.Errorf("%+v", o)
		}
	})
}

// TestLearnCalls: what was not made is refused by the policy's own rules, and a group that is there whole is one word.
func TestLearnCalls(t *testing.T) {
	each(t, []string{"namespaced"}, func(t *testing.T, a arm) {
		b := newBox(t, a)
		python := need(t, "python3")
		script := "import os, sys, ctypes; os.mkdir('/tmp/made'); l = ctypes.CDLL(None)\n" +
			"for n in map(int, sys.argv[1:]): l.syscall(n, -1, 0, 0, 0, 0, 0)"
		args := []string{python, "-c", script}
		for _, name := range seccomp.Calls("@swap") {
			args = append(args, strconv.Itoa(map[string]int{"swapon": unix.SYS_SWAPON, "swapoff": unix.SYS_SWAPOFF}[name]))
		}
		if o := b.learn([]string{"--seccomp", "unconfined"}, args...); o.code != 0 {
			t.Fatalf("%+v", o)
		}
		text, err := os.ReadFile(filepath.Join(b.dir, "learnt.yaml"))
		if err != nil || !strings.Contains(string(text), `"@swap"`) || strings.Contains(string(text), "swapon") || strings.Contains(string(text), "rmdir") {
			t.Errorf("%v\n%s", err, text)
		}
		if o := b.learn([]string{"--merge", "--seccomp", "unconfined"}, python, "-c", "import os; os.mkdir('/tmp/made'); os.rmdir('/tmp/made')"); o.code != 0 {
			t.Fatalf("%+v", o)
		}
		text, err = os.ReadFile(filepath.Join(b.dir, "learnt.yaml"))
		if err != nil || !strings.Contains(string(text), `"@swap"`) || !strings.Contains(string(text), "rmdir") {
			t.Errorf("merged: %v\n%s", err, text)
		}
		if o := b.byLearnt(python, "-c", "import os; os.symlink('x', '/tmp/made')"); o.code != 1 || !strings.Contains(o.stderr, "PermissionError") {
			t.Errorf("a call that was not made: %+v", o)
		}
	})
}

// TestLearnConfined: who is learnt from is held as in any run, and learns nothing that it was refused.
func TestLearnConfined(t *testing.T) {
	each(t, []string{"namespaced"}, func(t *testing.T, a arm) {
		b := newBox(t, a)
		secret := b.write(filepath.Join(filepath.Dir(b.tmp), "id"), "SECRET", 0o644)
		o := b.learn([]string{"--bind", "."}, "sh", "-c", "cat "+secret+"; ln -sf /etc learnt.yaml; echo done")
		if strings.Contains(o.stdout, "SECRET") || !strings.Contains(o.stdout, "done") {
			t.Errorf("%+v", o)
		}
		text, err := os.ReadFile(filepath.Join(b.dir, "learnt.yaml"))
		if err != nil || !strings.Contains(string(text), "# refused, and not in this policy: openat") || strings.Contains(string(text), "read: "+secret) {
			t.Errorf("%v\n%s", err, text)
		}
		for _, level := range []string{"basic", "user"} {
			low := newBox(t, arm{level, a.root})
			if o := low.learn(nil, "true"); o.code != 125 || !strings.Contains(o.stderr, "namespaced") {
				t.Errorf("%+v", o)
			}
		}
	})
}

// TestLearnCapabilities: of several capabilities that a run is given the policy has those that it needs.
func TestLearnCapabilities(t *testing.T) {
	given := []string{"CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "KILL", "MKNOD", "NET_BIND_SERVICE", "NET_RAW", "SETUID", "SYS_ADMIN", "SYS_CHROOT", "SYS_NICE"}
	each(t, []string{"namespaced"}, func(t *testing.T, a arm) {
		python := need(t, "python3")
		for _, c := range []struct {
			name, script string
			want         []string
			root         bool // it takes a second uid, or a capability over the machine
		}{
			{"low port", "import socket; socket.socket().bind(('127.0.0.1', 80))", []string{"NET_BIND_SERVICE"}, false},
			{"high port", "import socket; socket.socket().bind(('127.0.0.1', 8080)); socket.socket().bind(('127.0.0.1', 0))", nil, false},
			{"raw socket", "import socket; socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)", []string{"NET_RAW"}, false},
			{"chroot", "import os; os.chroot('/usr')", []string{"SYS_CHROOT"}, false},
			{"namespace", "import ctypes, sys; sys.exit(ctypes.CDLL(None).unshare(0x04000000))", []string{"SYS_ADMIN"}, false}, // CLONE_NEWUTS
			{"own file", "import os; open('made', 'w'); os.chown('made', os.getuid(), os.getgid()); os.chmod('made', 0o600); os.utime('made', (1, 1)); os.unlink('made')", nil, false},
			{"own process", "import os; os.kill(os.getpid(), 0); os.setresuid(-1, os.getuid(), -1); os.nice(1); os.sched_setaffinity(0, os.sched_getaffinity(0))", nil, false},
			{"priority", "import os; os.nice(-1)", []string{"SYS_NICE"}, true},
			{"read", "open('kept').read()", []string{"DAC_READ_SEARCH"}, true},
			{"write", "open('kept', 'w')", []string{"DAC_OVERRIDE"}, true},
			{"chown", "import os; open('/tmp/made', 'w'); os.chown('/tmp/made', os.getuid() + 1, -1)", []string{"CHOWN"}, true},
			{"chmod", "import os; open('/tmp/made', 'w'); os.chown('/tmp/made', os.getuid() + 1, -1); os.chmod('/tmp/made', 0)", []string{"CHOWN", "FOWNER"}, true},
			{"uid", "import os; os.setresuid(os.getuid() + 1, -1, -1)", []string{"SETUID"}, true},
			{"kill", "import os, time\nif (n := os.fork()) == 0: os.setresuid(*3 * [os.getuid() + 1]); open('/dev/null'); time.sleep(60)\n" +
				"while f'Uid:\\t{os.getuid()}' in open(f'/proc/{n}/status').read(): pass\nos.kill(n, 9)", []string{"KILL", "SETUID"}, true},
		} {
			if c.root && !a.root {
				continue
			}
			t.Run(c.name, func(t *testing.T) {
				b := newBox(t, a)
				b.write("kept", "text", 0)
				flags := []string{"--bind", "."}
				for _, name := range given {
					flags = append(flags, "--cap-add", name)
				}
				if o := b.learn(flags, python, "-c", c.script); o.code != 0 {
					t.Fatalf("%+v", o)
				}
				text, err := os.ReadFile(filepath.Join(b.dir, "learnt.yaml"))
				if err != nil {
					t.Fatal(err)
				}
				var got []string
				for _, name := range given {
					if strings.Contains(string(text), "\n    - "+name+"\n") {
						got = append(got, name)
					}
				}
				if !slices.Equal(got, c.want) {
					t.Errorf("%q, want %q:\n%s", got, c.want, text)
				}
				if o := b.byLearnt(python, "-c", c.script); o.code != 0 {
					t.Errorf("the same run: %+v", o)
				}
				for _, name := range c.want {
					if o := b.finish(b.as(jailPath, "run", "--policy", "./learnt.yaml", "--cap-drop", name, "--timeout", "20s", "--env", b.cookie, "--", python, "-c", c.script)); o.code == 0 {
						t.Errorf("vacuous: it passes without %s", name)
					}
				}
			})
		}
	})
}
