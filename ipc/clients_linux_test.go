//go:build amd64 || arm64

package ipc

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestClientsInOtherLanguages: the protocol can be spoken without this package.
func TestClientsInOtherLanguages(t *testing.T) {
	header, err := filepath.Abs("clients")
	if err != nil {
		t.Fatal(err)
	}
	clients := map[string]func(t *testing.T) *exec.Cmd{
		"C": func(t *testing.T) *exec.Cmd {
			cc := need(t, "cc")
			program := filepath.Join(t.TempDir(), "client")
			out, err := exec.Command(cc, "-std=gnu99", "-Wall", "-Wextra", "-Werror", "-I", header, "-o", program, "testdata/clients/client.c").CombinedOutput()
			if err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			return exec.Command(program)
		},
		"Python": func(t *testing.T) *exec.Cmd {
			cmd := exec.Command(need(t, "python3"), "testdata/clients/client.py")
			cmd.Env = append(os.Environ(), "PYTHONPATH="+header, "PYTHONDONTWRITEBYTECODE=1")
			return cmd
		},
	}
	for name, command := range clients {
		t.Run(name, func(t *testing.T) {
			cmd := command(t)
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, "file"), []byte("content"), 0o644); err != nil {
				t.Fatal(err)
			}
			b := newBroker(t)
			other, _ := newPeer(t, b, "other", Rules{Locks: []string{"taken"}, Memory: []MemoryRule{{Name: "m", Size: 4096, Access: MayWrite}}})
			neighbour := connect(t, other)
			if err := neighbour.Lock(patient(t), "taken", Exclusive); err != nil {
				t.Fatal(err)
			}
			s, err := neighbour.Memory(patient(t), "m")
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()

			p, got := newPeer(t, b, "the jail", Rules{
				Files:  []FileRule{{Name: "root", Path: dir, Access: MayRead}},
				Locks:  []string{"mine", "taken"},
				Memory: []MemoryRule{{Name: "m", Size: 4096, Access: MayWrite}},
				Log:    true, Progress: true, Results: []string{"out"},
			})
			f, err := p.Connect()
			if err != nil {
				t.Fatal(err)
			}
			cmd.Env = append(cmd.Environ(), FDEnv+"=3")
			cmd.ExtraFiles = []*os.File{f}
			out, err := cmd.CombinedOutput()
			f.Close()
			if want := "the jail 1\n"; err != nil || string(out) != want && pinsPeers() {
				t.Errorf("%v, %q, want %q", err, out, want)
			}
			eventually(t, "the session is over", func() bool { return sessions(p) == 0 })
			lines, progress := got.said()
			if diff := cmp.Diff([]string{"WARN content"}, lines); diff != "" {
				t.Error(diff)
			}
			if diff := cmp.Diff([]string{"1/2 half"}, progress); diff != "" {
				t.Error(diff)
			}
			if memory := place[[7]byte](t, s, 0); string(memory[:]) != "content" {
				t.Errorf("in memory there is %q", memory)
			}
			if result := got.result("out"); result == nil {
				t.Error("no result")
			} else {
				if !strings.HasPrefix(fileBehind(t, result), "/memfd:") {
					t.Errorf("the result is %s", fileBehind(t, result))
				}
				result.Close()
			}
		})
	}
}

func need(t testing.TB, program string) string {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		t.Skipf("host lacks: %s", program)
	}
	return path
}

func fileBehind(t testing.TB, f *os.File) string {
	t.Helper()
	raw := must(f.SyscallConn())
	var path string
	err := raw.Control(func(fd uintptr) { path = must(os.Readlink(filepath.Join("/proc/self/fd", strconv.Itoa(int(fd))))) })
	if err != nil {
		t.Fatal(err)
	}
	return path
}
