package seccomp

import (
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/jailrun/jail/internal/syscalls"
)

// Answer is what a filter says of a call.
type Answer struct {
	Action      Action
	ByArguments bool // the filter looked at an argument: with other ones the answer may be another
	Steps       int  // instructions that it took
}

// Evaluate runs a filter, as [Bytes] lays it out, on a call of an ABI: "amd64", "i386", "x32" or "arm64". A call that the
// ABI does not have is an *UnknownCallError. Arguments that are not given are 0.
func Evaluate(filter []byte, name, abi string, args ...uint64) (Answer, error) {
	i := slices.Index([]string{syscalls.AMD64: "amd64", syscalls.I386: "i386", syscalls.X32: "x32", syscalls.ARM64: "arm64"}, abi)
	c := syscalls.Find(name)
	if c == nil || c.NR[i] < 0 {
		return Answer{}, &UnknownCallError{name}
	}
	nr := uint32(c.NR[i])
	if i == syscalls.X32 {
		nr |= x32Bit
	}
	return EvaluateNumber(filter, nr, abi, args...)
}

// EvaluateNumber is Evaluate for a call that may have no name. The number of x32 has its bit.
func EvaluateNumber(filter []byte, nr uint32, abi string, args ...uint64) (Answer, error) {
	d := syscalls.Data{NR: nr, Arch: map[string]uint32{
		"amd64": unix.AUDIT_ARCH_X86_64, "i386": unix.AUDIT_ARCH_I386, "x32": unix.AUDIT_ARCH_X86_64, "arm64": unix.AUDIT_ARCH_AARCH64,
	}[abi]}
	copy(d.Args[:], args)
	f, err := syscalls.Read(filter)
	if err != nil {
		return Answer{}, fmt.Errorf("the filter %w", err)
	}
	verdict, byArguments, steps := f.Run(&d)
	return Answer{Action(verdict), byArguments, steps}, nil
}

// String is the action in the words of seccomp(2): "allow", "EPERM", "kill the process".
func (a Action) String() string {
	switch a &^ unix.SECCOMP_RET_DATA {
	case Allow:
		return "allow"
	case Log:
		return "allow, with a line in the log"
	case Trap:
		return "SIGSYS"
	case Notify:
		return "ask a supervisor"
	case KillThread:
		return "kill the thread"
	case unix.SECCOMP_RET_TRACE:
		return "ask a tracer"
	case unix.SECCOMP_RET_ERRNO:
		return unix.ErrnoName(unix.Errno(a & unix.SECCOMP_RET_DATA))
	}
	return "kill the process"
}
