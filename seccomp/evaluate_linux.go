package seccomp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
)

// offArgs is where the arguments are in struct seccomp_data, behind the instruction pointer.
const offArgs = 16

// Answer is what a filter says of a call.
type Answer struct {
	Action      Action
	ByArguments bool // the filter looked at an argument: with other ones the answer may be another
	Steps       int  // instructions that it took
}

// Evaluate runs a filter, as [Bytes] lays it out, on a call of an ABI: "amd64", "i386", "x32" or "arm64". A call that the
// ABI does not have is an *UnknownCallError. Arguments that are not given are 0.
func Evaluate(filter []byte, name, abi string, args ...uint64) (Answer, error) {
	i := slices.Index([]string{amd64: "amd64", i386: "i386", x32: "x32", arm64: "arm64"}, abi)
	c := findCall(name)
	if c == nil || c.nr[i] < 0 {
		return Answer{}, &UnknownCallError{name}
	}
	nr := uint32(c.nr[i])
	if i == x32 {
		nr |= x32Bit
	}
	return EvaluateNumber(filter, nr, abi, args...)
}

// EvaluateNumber is Evaluate for a call that may have no name. The number of x32 has its bit.
func EvaluateNumber(filter []byte, nr uint32, abi string, args ...uint64) (Answer, error) {
	data := map[uint32]uint32{offNr: nr, offArch: map[string]uint32{
		"amd64": unix.AUDIT_ARCH_X86_64, "i386": unix.AUDIT_ARCH_I386, "x32": unix.AUDIT_ARCH_X86_64, "arm64": unix.AUDIT_ARCH_AARCH64,
	}[abi]}
	for i, arg := range args {
		at := offArgs + 8*uint32(i)
		data[at], data[at+4] = uint32(arg), uint32(arg>>32)
	}
	program := make([]unix.SockFilter, len(filter)/unix.SizeofSockFilter)
	if _, err := binary.Decode(filter, binary.LittleEndian, program); err != nil {
		return Answer{}, err
	}
	var answer Answer
	var accumulator uint32
	for pc := 0; pc < len(program); pc++ { // a filter has no jump back
		in := program[pc]
		answer.Steps++
		var holds bool
		switch in.Code {
		case unix.BPF_LD | unix.BPF_W | unix.BPF_ABS:
			accumulator = data[in.K]
			answer.ByArguments = answer.ByArguments || in.K >= offArgs
			continue
		case unix.BPF_ALU | unix.BPF_AND | unix.BPF_K:
			accumulator &= in.K
			continue
		case unix.BPF_RET | unix.BPF_K:
			answer.Action = Action(in.K)
			return answer, nil
		case unix.BPF_JMP | unix.BPF_JA:
			pc += int(in.K)
			continue
		case unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K:
			holds = accumulator == in.K
		case unix.BPF_JMP | unix.BPF_JGT | unix.BPF_K:
			holds = accumulator > in.K
		case unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K:
			holds = accumulator >= in.K
		case unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K:
			holds = accumulator&in.K != 0
		default:
			return Answer{}, fmt.Errorf("instruction %d of the filter, %#x, is not known here", pc, in.Code)
		}
		if holds {
			pc += int(in.Jt)
		} else {
			pc += int(in.Jf)
		}
	}
	return Answer{}, errors.New("the filter ends without an answer")
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
