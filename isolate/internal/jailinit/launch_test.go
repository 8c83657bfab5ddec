//go:build linux && (amd64 || arm64)

package jailinit

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

const helperEnv = "JAIL_TEST_HELPER"

func TestMain(m *testing.M) {
	if os.Getenv(helperEnv) == "write" {
		_, err := WritePlan(make([]byte, 1<<16), false)
		fmt.Println(err)
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// runScript runs a shell script by a Plan of a few steps, in an image. The record is the last one.
func runScript(t *testing.T, image int, noClone3 bool, planFlags uint32, script string) (out string, record Record) {
	t.Helper()
	e := NewEncoder()
	plan, err := WritePlan(e.Finish(
		[]Step{{Op: OpSubreaper}, {Op: OpChildren, Index: 1, S1: e.String("/proc/thread-self/children")}},
		[]Step{{Op: OpExec, Index: 2, S1: e.Strings([]string{"/bin/sh"}), S2: e.Strings([]string{"sh", "-c", script}), S3: e.Strings(nil)}},
		nil, planFlags, 3, 0, 0), false)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(plan)
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pair[0])
	self, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(self)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	l := Launch{
		Image: image, NoClone3: noClone3, Kept: []int{plan, pair[1], self},
		Pass: []FD{{Src: int(null.Fd()), Dst: 0}, {Src: int(w.Fd()), Dst: 1}, {Src: int(w.Fd()), Dst: 2}},
	}
	_, pidfd, stage, err := l.Start()
	unix.Close(pair[1])
	w.Close()
	if err != nil {
		t.Fatalf("stage %d: %v", stage, err)
	}
	defer unix.Close(pidfd)
	for record.Kind != RecordEnded && record.Kind != RecordFailed {
		r, ok, err := Receive(func(b []byte) (int, error) { return unix.Read(pair[0], b) })
		if err != nil || !ok {
			t.Fatalf("%+v, %t, %v", r, ok, err)
		}
		record = r
	}
	said, _ := io.ReadAll(r)
	if err := unix.Waitid(unix.P_PIDFD, pidfd, nil, unix.WEXITED, nil); err != nil {
		t.Fatal(err)
	}
	return string(said), record
}

// TestImages executes jail-init from each of the files that it can be in.
func TestImages(t *testing.T) {
	for name, mint := range map[string]func([]byte) (int, error){"memfd": mintMemfd, "file": mintFile} {
		for _, noClone3 := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/%t", name, noClone3), func(t *testing.T) {
				image, err := mint(program())
				if err != nil {
					t.Fatal(err)
				}
				defer unix.Close(image)
				out, record := runScript(t, image, noClone3, 0, `echo ran; readlink /proc/$PPID/exe; exit 7`)
				exe := map[string]string{"memfd": "/memfd:jail-init (deleted)", "file": "(deleted)"}[name]
				if !strings.HasPrefix(out, "ran\n") || os.Geteuid() == 0 && !strings.Contains(out, exe) || unix.WaitStatus(record.Status).ExitStatus() != 7 {
					t.Errorf("%q, %+v", out, record)
				}
				// Nobody can change what the next jail will run.
				for _, f := range []func() error{
					func() error { _, err := unix.Pwrite(image, []byte("x"), 0); return err },
					func() error { return unix.Ftruncate(image, 10) },
				} {
					if f() == nil {
						t.Error("the image was changed")
					}
				}
			})
		}
	}
}

// TestNotPID1: a Plan for a pid namespace is refused outside one, before its first step. Its mounts, its pivot_root and
// its kill(-1) would be the host's.
func TestNotPID1(t *testing.T) {
	image, err := Image(false)
	if err != nil {
		t.Fatal(err)
	}
	if out, record := runScript(t, image, false, PlanPIDNS, "echo ran"); out != "" || record.Kind != RecordFailed || record.Step != 1<<32-1 {
		t.Errorf("%q, %+v", out, record)
	}
}

// TestMintFile looks for a folder that allows exec, and says of each why not.
func TestMintFile(t *testing.T) {
	t.Setenv("XDG_RUNTIME_DIR", "/absent")
	fd, err := mintFile(program())
	if err != nil {
		t.Fatal(err)
	}
	name, _ := os.Readlink(fmt.Sprint("/proc/self/fd/", fd))
	if !strings.HasSuffix(name, "(deleted)") {
		t.Errorf("it has a name: %s", name)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Mode&0o7777 != 0o500 {
		t.Errorf("mode %o, %v", st.Mode, err)
	}
	unix.Close(fd)
	dir := t.TempDir()
	t.Setenv("XDG_RUNTIME_DIR", dir)
	if fd, err = mintFile(program()); err != nil {
		t.Fatal(err)
	}
	if name, _ = os.Readlink(fmt.Sprint("/proc/self/fd/", fd)); !strings.HasPrefix(name, dir) {
		t.Errorf("not in XDG_RUNTIME_DIR but %s", name)
	}
	unix.Close(fd)
	for dir, want := range map[string]string{"/absent": "no such file", "/proc": "/proc"} {
		if _, err := mintFileIn(dir, program()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", dir, err)
		}
	}
	if entries, err := os.ReadDir(filepath.Clean(dir)); err != nil || len(entries) > 0 {
		t.Errorf("left: %v, %v", entries, err)
	}
}

// TestPlanBeyondFileSize: the limit is compared before a write that would raise SIGXFSZ.
func TestPlanBeyondFileSize(t *testing.T) {
	cmd := exec.Command(needs(t, "prlimit"), "--fsize=1000", os.Args[0])
	cmd.Env = append(os.Environ(), helperEnv+"=write")
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), ErrFileSize.Error()) {
		t.Errorf("%q, %v", out, err)
	}
}

// TestLaunchErrors: each stage of a launch says that it was the one, and leaves no process and no fd.
func TestLaunchErrors(t *testing.T) {
	image, err := Image(false)
	if err != nil {
		t.Fatal(err)
	}
	notProgram, err := os.Open("/etc/passwd")
	if err != nil {
		t.Fatal(err)
	}
	defer notProgram.Close()
	before := openFDs(t)
	for _, c := range []struct {
		what  string
		l     Launch
		stage Stage
		errno unix.Errno
	}{
		{"flags that exclude each other", Launch{Flags: unix.CLONE_NEWNS | unix.CLONE_FS, Image: image}, StageClone, unix.EINVAL},
		{"a file that is not open", Launch{Image: image, Pass: []FD{{Src: 9999, Dst: 0}}}, StageFDs, unix.EBADF},
		{"one of the Plan's that is not open", Launch{Image: image, Kept: []int{9999}}, StageFDs, unix.EBADF},
		{"no image", Launch{Image: 9999}, StageFDs, unix.EBADF},
		{"an image that is no program", Launch{Image: int(notProgram.Fd())}, StageExec, unix.EACCES},
		{"too many", Launch{Image: image, Pass: make([]FD, MaxFDs+1)}, StageFDs, unix.EMFILE},
	} {
		for _, c.l.NoClone3 = range []bool{false, true} {
			pid, pidfd, stage, err := c.l.Start()
			if pid != 0 || pidfd != -1 || stage != c.stage || !errors.Is(err, c.errno) {
				t.Errorf("%s: %d, %d, stage %d, %v", c.what, pid, pidfd, stage, err)
			}
		}
	}
	if after := openFDs(t); after != before {
		t.Errorf("%d fds were open, and %d are", before, after)
	}
	if pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil); err != unix.ECHILD {
		t.Errorf("a child is left: %d, %v", pid, err)
	}
}

func openFDs(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}
