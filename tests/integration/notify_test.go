//go:build linux

package integration

import (
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestNotifyOpen: a listed file can be read, as a copy that nobody can change, and nothing else of it.
func TestNotifyOpen(t *testing.T) {
	each(t, userAndUp, func(t *testing.T, a arm) {
		b := newBox(t, a)
		top := filepath.Dir(b.tmp)
		token := filepath.Join(top, "token")
		b.write(token, "the token", 0o600)
		b.write(filepath.Join(top, "other"), "x", 0o644)
		if err := os.Symlink("token", filepath.Join(top, "link")); err != nil {
			t.Fatal(err)
		}
		got, _, o := b.monitored([]string{"--notify", "open:" + token, "--notify", "open:" + filepath.Join(top, "link")}, need(t, "python3"), "-c", `
import os, sys
top = sys.argv[1]
a, b = open(top + "/token"), open(top + "/tmp/../token")
print(a.read(4), b.read(), os.get_inheritable(a.fileno()))
print(open(top + "/link").read())
for what in (lambda: os.open(top + "/token", os.O_RDWR), lambda: os.open(top + "/token", os.O_PATH), lambda: open(top + "/other"),
             lambda: os.write(os.open(f"/proc/self/fd/{a.fileno()}", os.O_RDWR), b"x"), lambda: os.ftruncate(os.open(f"/proc/self/fd/{a.fileno()}", os.O_RDWR), 0)):
    try: print(what())
    except OSError as e: print(e.errno)
b.seek(0); print(b.read())
`, top)
		missing := map[bool]string{true: "13", false: "2"}[a.level == "user"]
		lines := strings.Split(o.stdout, "\n")
		want := []string{"the  the token False", "the token", "13", "13", missing}
		// A memfd of root's can't be opened anew by another uid; what can be is sealed.
		if len(lines) < 8 || !slices.Equal(lines[:5], want) || strings.Trim(lines[5]+lines[6], "13") != "" || lines[7] != "the token" {
			t.Errorf("%+v", o)
		}
		if n := slices.Index(got, "openat "+token+" EACCES notify"); n < 0 {
			t.Errorf("%q", got)
		}
		if text, err := os.ReadFile(token); err != nil || string(text) != "the token" {
			t.Errorf("%q, %v", text, err)
		}
		for _, bad := range []string{top, "/dev/null", token + "x"} {
			if o := b.run([]string{"--notify", "open:" + bad}, "true"); o.code != 125 || !strings.Contains(o.stderr, "notify") {
				t.Errorf("%s: %+v", bad, o)
			}
		}
	})
}

// TestNotifyOpenLinks: a file that somebody has put a link in the place of is not opened.
func TestNotifyOpenLinks(t *testing.T) {
	each(t, []string{"namespaced"}, func(t *testing.T, a arm) {
		b := newBox(t, a)
		secret := b.write(filepath.Join(filepath.Dir(b.tmp), "secret"), "secret", 0o600)
		shared := b.mkdir("shared", 0o777)
		b.write("shared/token", "token", 0o644)
		o := b.run([]string{"--bind", shared, "--notify", "open:" + shared + "/token"}, "sh", "-c", fmt.Sprintf("cd shared; rm token; ln -s %s token; cat token", secret))
		if o.code == 0 || strings.Contains(o.stdout, "secret") {
			t.Errorf("%+v", o)
		}
	})
}

// answerer reads all that comes, and says it again in capitals.
func answerer(t *testing.T, network, address string) string {
	t.Helper()
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				text, _ := io.ReadAll(c)
				_, _ = io.WriteString(c, strings.ToUpper(string(text)))
			}()
		}
	}()
	return l.Addr().String()
}

// TestNotifyConnect: a listed address is reached from a jail without a network, and no other.
func TestNotifyConnect(t *testing.T) {
	each(t, []string{"namespaced", "contained"}, func(t *testing.T, a arm) {
		b := newBox(t, a)
		listed, other := answerer(t, "tcp", "127.0.0.1:0"), answerer(t, "tcp", "127.0.0.1:0")
		_, port, _ := net.SplitHostPort(listed)
		_, otherPort, _ := net.SplitHostPort(other)
		got, _, o := b.monitored([]string{"--notify", "connect:" + listed}, need(t, "python3"), "-c", `
import errno, re, socket, sys, threading
port, other = int(sys.argv[1]), int(sys.argv[2])
def ask(s, text):
    s.sendall(text); s.shutdown(socket.SHUT_WR)
    got = b""
    while chunk := s.recv(65536): got += chunk
    return got
s = socket.create_connection(("127.0.0.1", port)); s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
print(ask(s, b"hello"), len(ask(socket.create_connection(("127.0.0.1", port)), b"x" * 3000000)))
six = socket.socket(socket.AF_INET6); six.connect(("::ffff:127.0.0.1", port)); print(ask(six, b"six"))
s = socket.socket(); s.setblocking(False); print(s.connect_ex(("127.0.0.1", port)), s.getblocking()); s.setblocking(True); print(ask(s, b"late"))
many = [socket.create_connection(("127.0.0.1", port)) for _ in range(30)]
print(all(ask(s, b"n%d" % i) == b"N%d" % i for i, s in enumerate(many)))
# the place where they meet takes nobody else
meeting = [int(line.split()[1].split(":")[1], 16) for line in open("/proc/net/tcp") if line.split()[3] == "0A"][0]
strangers = [socket.create_connection(("127.0.0.1", meeting)) for _ in range(5)]
for s in strangers: s.sendall(b"stranger")
print(ask(socket.create_connection(("127.0.0.1", port)), b"friend"))
for where in (("127.0.0.1", other), ("192.0.2.1", port)):
    print(errno.errorcode[socket.socket().connect_ex(where)])
print(errno.errorcode[socket.socket(socket.AF_INET, socket.SOCK_DGRAM).connect_ex(("127.0.0.1", port))])
`, port, otherPort)
		want := "b'HELLO' 3000000\nb'SIX'\n0 False\nb'LATE'\nTrue\nb'FRIEND'\nECONNREFUSED\nENETUNREACH\nEPROTOTYPE\n"
		if o.stdout != want {
			t.Errorf("%+v", o)
		}
		if !slices.Contains(got, "connect 192.0.2.1:"+port+" ENETUNREACH no network") {
			t.Errorf("%q", got)
		}
	})
}

// TestNotifyConnectFails: the payload is told what the launcher was told, and a jail that ends takes its connections along.
func TestNotifyConnectFails(t *testing.T) {
	each(t, []string{"namespaced"}, func(t *testing.T, a arm) {
		b := newBox(t, a)
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		address := l.Addr().String()
		_, port, _ := net.SplitHostPort(address)
		ended := make(chan error, 1)
		go func() {
			c, err := l.Accept()
			l.Close()
			if err == nil {
				_ = c.SetReadDeadline(time.Now().Add(patience))
				_, err = c.Read(make([]byte, 1)) // until the jail has ended
				c.Close()
			}
			ended <- err
		}()
		o := b.run([]string{"--notify", "connect:" + address}, need(t, "python3"), "-c", `
import socket, sys, time
s = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
for _ in range(1000):
    n = socket.socket().connect_ex(("127.0.0.1", int(sys.argv[1])))
    if n: break
    time.sleep(.01)
print(n)`, port)
		if o.stdout != "111\n" {
			t.Errorf("%+v", o)
		}
		if err := <-ended; err != io.EOF && !strings.Contains(fmt.Sprint(err), "reset") {
			t.Errorf("%v", err)
		}
	})
}

// TestNotifyConnectPath: so is a listed Unix socket, and the payload's fd keeps its flags.
func TestNotifyConnectPath(t *testing.T) {
	each(t, userAndUp, func(t *testing.T, a arm) {
		b := newBox(t, a)
		path := filepath.Join(filepath.Dir(b.tmp), "socket")
		answerer(t, "unix", path)
		b.give(path)
		out := b.python([]string{"--notify", "connect:" + path}, fmt.Sprintf(`
import socket
for inherited in (True, False):
    s = socket.socket(socket.AF_UNIX); s.set_inheritable(inherited); s.setblocking(False)
    s.connect(%q)
    print(s.get_inheritable(), s.getblocking()); s.setblocking(True)
    s.sendall(b"hello"); s.shutdown(socket.SHUT_WR); print(s.recv(100))
`, path))
		if out != "True False\nb'HELLO'\nFalse False\nb'HELLO'\n" {
			t.Errorf("%q", out)
		}
	})
}

// TestNotifyNeedsOwnNetwork: what can be reached anyhow is not listed.
func TestNotifyNeedsOwnNetwork(t *testing.T) {
	each(t, []string{"basic", "user", "namespaced"}, func(t *testing.T, a arm) {
		b := newBox(t, a)
		if o := b.run([]string{"--network=host", "--notify", "connect:127.0.0.1:9"}, "true"); o.code != 125 || !strings.Contains(o.stderr, "notify") {
			t.Errorf("%+v", o)
		}
	})
}
