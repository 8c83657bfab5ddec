package seccomp

import (
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
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
