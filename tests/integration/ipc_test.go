//go:build linux

package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// client is a Python program that has a session with the broker as b. It needs no file of the project's.
func client(t *testing.T, program string) string {
	t.Helper()
	text, err := os.ReadFile("../../ipc/clients/jail_ipc.py")
	if err != nil {
		t.Fatal(err)
	}
	return string(text) + `
import mmap, sys
def attempt(f, *args, **named):
    try: return f(*args, **named)
    except RequestError as e: return e.status
    except PermissionError: return "denied" # by the kernel: where no fd may be sent, since 6.16
b = Broker()
` + program
}

// TestBroker: the payload gets from the broker what was listed, at every level, and nothing else.
func TestBroker(t *testing.T) {
	each(t, allLevels, func(t *testing.T, a arm) {
		b := newBox(t, a)
		data := b.write(filepath.Join(filepath.Dir(b.tmp), "data"), "some data", 0o600)
		out := filepath.Join(filepath.Dir(b.tmp), "out")
		if err := os.Mkdir(out, 0o700); err != nil {
			t.Fatal(err)
		}
		b.give(out)
		flags := []string{
			"--verbose", "--ipc", "file:data=" + data, "--ipc", "file:out=" + out + ":create", "--ipc", "lock:one",
			"--ipc", "memory:page:1M", "--ipc", "log", "--ipc", "progress",
		}
		o := b.run(flags, need(t, "python3"), "-c", client(t, `
fd = b.open("data"); print(os.read(fd, 99))
print(attempt(b.open, "data", access=WRITE), attempt(b.open, "other"), attempt(b.open, "out", "../data", CREATE), attempt(b.open, "out", "/etc/passwd", CREATE))
os.write(b.open("out", "made", CREATE), b"by the payload")
b.lock("one"); b.unlock("one"); print(attempt(b.lock, "two"))
fd, size = b.memory("page"); print(size)
m = mmap.mmap(fd, 4096 + size); m[4096:4101] = b"hello"
print(bytes(mmap.mmap(b.memory("page")[0], 4096 + size)[4096:4101]), attempt(b.memory, "pages"))
try: os.ftruncate(fd, 0)
except OSError as e: print("sealed", e.errno)
b.log("a line\x1b[2J\nand another"); b.progress(1, 2, "half")
print(attempt(b.result, "anything", 1))
`))
		want := `b'some data'
denied denied errno errno
denied
1048576
b'hello' denied
sealed 1
denied
`
		if o.stdout != want || o.code != 0 {
			t.Errorf("%+v", o)
		}
		for _, line := range []string{`jail: payload: INFO: "a line\x1b[2J\nand another"`, `jail: progress: 1 of 2: "half"`} {
			if !strings.Contains(o.stderr, line+"\n") {
				t.Errorf("%q is not in %q", line, o.stderr)
			}
		}
		if text, err := os.ReadFile(filepath.Join(out, "made")); err != nil || string(text) != "by the payload" {
			t.Errorf("%q, %v", text, err)
		}
		// Without --ipc there is none, not even that of a jail around this one.
		b.env = append(b.env, "JAIL_IPC_FD=3")
		if out := b.ok([]string{"--env-all"}, "env"); strings.Contains(out, "JAIL_IPC_FD") {
			t.Errorf("%s", out)
		}
	})
}

// TestBrokerServesItsJailAlone: who was handed the payload's connection, but is no process of the jail, gets nothing.
func TestBrokerServesItsJailAlone(t *testing.T) {
	each(t, []string{"user", "namespaced"}, func(t *testing.T, a arm) {
		b := newBox(t, a)
		path := filepath.Join(b.mkdir("meet", 0o777), "socket")
		outside := b.as(need(t, "python3"), "-c", `
import socket, sys
l = socket.socket(socket.AF_UNIX); l.bind(sys.argv[1]); __import__("os").chmod(sys.argv[1], 0o777); l.listen()
c, _ = l.accept()
_, fds, _, _ = socket.recv_fds(c, 1, 1)
__import__("os").environ["JAIL_IPC_FD"] = str(fds[0])
`+client(t, `print("served")`), path)
		var said strings.Builder
		outside.Stdout, outside.Stderr = &said, &said
		b.running(outside)
		eventually(t, "a socket", func() bool { _, err := os.Stat(path); return err == nil })
		o := b.run([]string{"--bind", filepath.Dir(path), "--ipc", "log"}, need(t, "python3"), "-c", `
import os, socket, sys
s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1])
socket.send_fds(s, [b"x"], [int(os.environ["JAIL_IPC_FD"])]); s.recv(1)
`, path)
		if o.code != 0 {
			t.Fatalf("%+v", o)
		}
		_ = outside.Wait()
		if !strings.Contains(said.String(), "is not of this jail") || strings.Contains(said.String(), "served") {
			t.Errorf("outside: %s", said.String())
		}
	})
}

// TestBrokerJailToJail: two jails of a user that both name a segment for all of the user's have the same one; others of
// that user have another, or none.
func TestBrokerJailToJail(t *testing.T) {
	each(t, []string{"user", "namespaced", "contained"}, func(t *testing.T, a arm) {
		b := newBox(t, a)
		run := filepath.Join(filepath.Dir(b.tmp), "run")
		if err := os.Mkdir(run, 0o700); err != nil {
			t.Fatal(err)
		}
		b.give(run)
		b.env = append(b.env, "XDG_RUNTIME_DIR="+run)
		name := fmt.Sprintf("page-%d", time.Now().UnixNano())
		python := need(t, "python3")
		first := b.command([]string{"--ipc", "memory:" + name + ":64K:user"}, python, "-c", client(t, `
fd, size = b.memory(sys.argv[1])
m = mmap.mmap(fd, 4096 + size); m[4096:4101] = b"first"
print("ready", flush=True)
sys.stdin.read()
print(bytes(m[4101:4107]))
`), name)
		in, err := first.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		output, err := os.Create(filepath.Join(run, "output"))
		if err != nil {
			t.Fatal(err)
		}
		defer output.Close()
		first.Stdout, first.Stderr = output, output
		says := func(what string) func() bool {
			return func() bool {
				text, err := os.ReadFile(output.Name())
				return err == nil && strings.Contains(string(text), what)
			}
		}
		b.running(first)
		eventually(t, "the first jail", says("ready"))
		look := client(t, `
fd = attempt(b.memory, sys.argv[1])
if isinstance(fd, str): print(fd); sys.exit()
m = mmap.mmap(fd[0], 4096 + fd[1]); print(bytes(m[4096:4101])); m[4101:4107] = b"second"
`)
		for flag, want := range map[string]string{
			"memory:" + name + ":64K":       `b'\x00\x00\x00\x00\x00'`, // a segment of its own
			"memory:" + name + ":128K:user": "conflict",                // of another size
			"memory:" + name + "x:64K:user": "denied",                  // of another name
			"memory:" + name + ":64K:user":  "b'first'",
		} {
			if o := b.run([]string{"--ipc", flag}, python, "-c", look, name); o.code != 0 || strings.TrimSpace(o.stdout) != want {
				t.Errorf("%s: %+v, want %s", flag, o, want)
			}
		}
		in.Close()
		eventually(t, "the first jail's end", says("b'second'"))
	})
}
