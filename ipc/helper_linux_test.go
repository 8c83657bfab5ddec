//go:build amd64 || arm64

package ipc

import (
	"context"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// The test binary plays the other processes: helpers[name] runs in one, with a segment that the test shares with it (fd 3) and
// a word for it. Each test file adds its own in an init function.
const (
	helperEnv = "IPC_TEST_HELPER"
	numberEnv = "IPC_TEST_NUMBER"
)

var helpers = map[string]func(s *Segment, number int){}

// patience is a deadline for what must happen; it never decides what is right.
const patience = 30 * time.Second

var sweeping = os.Getenv("JAIL_SWEEP") != ""

func TestMain(m *testing.M) {
	if name := os.Getenv(helperEnv); name != "" {
		s, err := Open(os.NewFile(3, name))
		if err != nil {
			panic(err)
		}
		number, err := strconv.Atoi(os.Getenv(numberEnv))
		if err != nil {
			panic(err)
		}
		helpers[name](s, number)
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

// startHelper starts a process that dies with this one. The test that kills it calls Wait.
func startHelper(t testing.TB, s *Segment, name string, number int) *exec.Cmd {
	t.Helper()
	f, err := s.Share()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	cmd := exec.Command("/proc/self/exe")
	// The race detector would sleep for a second at each helper's end.
	cmd.Env = append(os.Environ(), helperEnv+"="+name, numberEnv+"="+strconv.Itoa(number), "GORACE=atexit_sleep_ms=0")
	cmd.ExtraFiles = []*os.File{f}
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd
}

// kill is kill -9, and waits until the kernel has closed the process's files.
func kill(t testing.TB, cmd *exec.Cmd) {
	t.Helper()
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	cmd.Wait()
}

func patient(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

// eventually waits for another process.
func eventually(t testing.TB, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !condition(); time.Sleep(100 * time.Microsecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}

// place fails the test if T can't be placed.
func place[T any](t testing.TB, s *Segment, offset int) *T {
	t.Helper()
	value, err := At[T](s, offset)
	if err != nil {
		t.Fatal(err)
	}
	return value
}

// must is for helpers: what they panic with is on the test's stderr.
func must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}
