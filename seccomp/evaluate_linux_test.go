package seccomp

import (
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/jailrun/jail/internal/syscalls"
)

// TestEvaluate compares with the machine of x/net, for every call that the ABI has a name for in the tables.
func TestEvaluate(t *testing.T) {
	abi := abis[runtime.GOARCH]
	profile, err := Default(runtime.GOARCH)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range []Profile{Baseline(), profile} {
		filter := mustCompile(t, p, runtime.GOARCH)
		vm := newVM(t, filter)
		for _, list := range []map[string]uint32{abi.refuse, abi.allow} {
			for name, nr := range list {
				got, err := Evaluate(Bytes(filter), name, runtime.GOARCH)
				if want := run(t, vm, call{nr: nr, audit: abi.audit}); err != nil || got.Action != want {
					t.Errorf("%s: %v, %v; want %v", name, got, err, want)
				}
			}
		}
	}
	filter := Bytes(mustCompile(t, Baseline(), runtime.GOARCH))
	for name, want := range map[string]bool{"ioctl": true, "read": false, "bpf": false} {
		if got, err := Evaluate(filter, name, runtime.GOARCH); err != nil || got.ByArguments != want {
			t.Errorf("%s goes by its arguments: %t, %v", name, got.ByArguments, err)
		}
	}
	if _, err := Evaluate(filter, "frobnicate", runtime.GOARCH); err == nil {
		t.Error("a call that there is not")
	}
	if _, err := Evaluate(nil, "read", runtime.GOARCH); err == nil {
		t.Error("an empty filter")
	}
	if _, err := Evaluate(Bytes([]unix.SockFilter{{Code: 0xffff}}), "read", runtime.GOARCH); err == nil {
		t.Error("an instruction that there is not")
	}
}

// TestEvaluateSteps: arguments are seen, by every ABI, and instructions are counted as they are walked.
func TestEvaluateSteps(t *testing.T) {
	filter := Bytes([]unix.SockFilter{
		load(syscalls.OffArch), jump(unix.BPF_JEQ, unix.AUDIT_ARCH_I386, 2, 0),
		load(syscalls.OffArgs + 8*2 + 4), jump(unix.BPF_JEQ, 7, 1, 0), // the high half of the third argument
		ret(Allow), ret(KillProcess),
	})
	for _, c := range []struct {
		abi  string
		args []uint64
		want Answer
	}{
		{"amd64", nil, Answer{Allow, true, 5}},
		{"amd64", []uint64{7 << 32, 7 << 32, 7<<32 | 1}, Answer{KillProcess, true, 5}},
		{"arm64", []uint64{7 << 32}, Answer{Allow, true, 5}},
		{"i386", nil, Answer{Allow, false, 3}},
	} {
		if got, err := Evaluate(filter, "read", c.abi, c.args...); err != nil || got != c.want {
			t.Errorf("%s %#x: %+v, %v, want %+v", c.abi, c.args, got, err, c.want)
		}
	}
	byNumber := Bytes([]unix.SockFilter{load(syscalls.OffNR), jump(unix.BPF_JEQ, x32Bit|520, 0, 1), ret(Log), ret(Trap)})
	for name, want := range map[string]Action{"execve": Log, "read": Trap} {
		if got, err := Evaluate(byNumber, name, "x32"); err != nil || got.Action != want {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
	if got, err := Evaluate(byNumber, "mmap2", "amd64"); err == nil {
		t.Errorf("a call that amd64 has not: %+v", got)
	}
}

func TestActionString(t *testing.T) {
	for a, want := range map[Action]string{
		Allow: "allow", Errno(unix.EPERM): "EPERM", Errno(unix.ENOSYS): "ENOSYS", KillProcess: "kill the process",
		KillThread: "kill the thread", Trap: "SIGSYS", Notify: "ask a supervisor", Trace(3): "ask a tracer",
	} {
		if got := a.String(); got != want {
			t.Errorf("%#x: %q, want %q", uint32(a), got, want)
		}
	}
}
