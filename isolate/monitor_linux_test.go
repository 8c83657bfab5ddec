//go:build amd64 || arm64

package isolate

import (
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// TestMonitorMany: jails with monitors of their own, several at once.
func TestMonitorMany(t *testing.T) {
	leavesNothing(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { _, _ = io.Copy(struct{ io.Writer }{c}, struct{ io.Reader }{c}); c.Close() }()
		}
	}()
	dir := ownFolder(t, os.Getuid())
	token := filepath.Join(dir, "token")
	if err := os.WriteFile(token, []byte("the token\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			cmd := Command(patience(t), Namespaced, "bash", "-c", `
				cat `+token+`
				for i in 1 2 3; do
					exec 3<>/dev/tcp/127.0.0.1/`+strconv.Itoa(l.Addr().(*net.TCPAddr).Port)+` && echo hello >&3 && head -n 1 <&3
				done
				echo >/usr/made; cat /etc/no-such-file; true`)
			cmd.Spec().Process.Cwd = "/"
			cmd.Spec().Monitor, cmd.Spec().Trace = true, true
			cmd.Spec().Notify = []Notify{{NotifyOpen, token}, {NotifyConnect, l.Addr().String()}}
			out, err := cmd.Output()
			if err != nil || string(out) != "the token\n"+strings.Repeat("hello\n", 3) {
				t.Errorf("%q, %v", out, err)
				return
			}
			r, trace := cmd.Result(), cmd.Trace()
			if len(r.Denied) != 1 || r.Denied[0].Path != "/usr/made" || r.Denied[0].Count != 1 || r.DeniedMore != 0 {
				t.Errorf("%+v", r.Denied)
			}
			for _, in := range []struct {
				list []string
				word string
			}{
				{trace.Calls, "connect"},
				{trace.Addresses, "connect " + l.Addr().String()},
				{trace.Changed, "/usr"},
				{trace.Executed, realPath(t, "/usr/bin/head")},
			} {
				if !slices.Contains(in.list, in.word) {
					t.Errorf("%q is not in %q", in.word, in.list)
				}
			}
		})
	}
	all.Wait()
}

func realPath(t *testing.T, path string) string {
	t.Helper()
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		t.Fatal(err)
	}
	return real
}

// TestListenerIsOurs: a call that nobody answers any more is refused by the kernel.
func TestListenerIsOurs(t *testing.T) {
	leavesNothing(t)
	cmd := Command(patience(t), Namespaced, "sh", "-c", "echo ready; read x; cat /etc/passwd || echo refused; true")
	cmd.Spec().Process.Cwd = "/"
	cmd.Spec().Monitor = true
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line := make([]byte, len("ready\n"))
	if _, err := io.ReadFull(out, line); err != nil {
		t.Fatal(err)
	}
	m := cmd.Process.monitor
	m.wakeAll()
	<-m.ended // as if it had failed
	if _, err := in.Write([]byte("\n")); err != nil {
		t.Fatal(err)
	}
	rest, _ := io.ReadAll(out)
	if string(rest) != "refused\n" {
		t.Errorf("%q", rest)
	}
	_ = cmd.Wait()
}

// TestMonitorErrno: what a filter says is what the payload is told, whatever the errno.
func TestMonitorErrno(t *testing.T) {
	cmd := Command(patience(t), User, "/bin/sh", "-c", "mkdir /x 2>&1; true")
	cmd.Spec().Process.Cwd = "/"
	cmd.Spec().Monitor = true
	names, numbers := calls()
	mkdir := numbers["mkdirat"]
	if nr, ok := numbers["mkdir"]; ok {
		mkdir = nr
	}
	refuse := program{{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(unix.EXDEV)}}.only(mkdir)
	cmd.Spec().AllowList = &AllowList{Name: "test", BPF: refuse.bytes()}
	out, err := cmd.Output()
	if err != nil || !strings.Contains(string(out), unix.EXDEV.Error()) && !strings.Contains(string(out), "Invalid cross-device link") {
		t.Errorf("%q, %v", out, err)
	}
	if d := cmd.Result().Denied; len(d) != 1 || d[0] != (Denial{Call: names[mkdir], Path: "/x", Errno: "EXDEV", Why: ByFilter, Count: 1}) {
		t.Errorf("%+v", d)
	}
}
