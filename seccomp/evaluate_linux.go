package seccomp

import (
	"encoding/binary"
	"errors"
	"fmt"

	libseccomp "github.com/seccomp/libseccomp-golang"
	"golang.org/x/sys/unix"
)

// offArgs is where the arguments are in struct seccomp_data, behind the instruction pointer.
const offArgs = 16

// Evaluate runs a filter, as [Bytes] lays it out, on a call of goarch's own ABI whose arguments are all 0, and tells
// whether the filter looked at an argument: with other ones the answer may be another.
func Evaluate(filter []byte, name, goarch string) (a Action, byArguments bool, err error) {
	nr, ok := number(name)
	if call, err := libseccomp.GetSyscallFromName(name); err == nil && call >= 0 {
		nr = uint32(call)
	} else if !ok {
		return 0, false, fmt.Errorf("no system call %q is known", name)
	}
	audit := map[string]uint32{"amd64": unix.AUDIT_ARCH_X86_64, "arm64": unix.AUDIT_ARCH_AARCH64}[goarch]
	program := make([]unix.SockFilter, len(filter)/unix.SizeofSockFilter)
	if _, err := binary.Decode(filter, binary.LittleEndian, program); err != nil {
		return 0, false, err
	}
	var accumulator uint32
	for pc := 0; pc < len(program); pc++ { // a filter has no jump back
		in := program[pc]
		var holds bool
		switch in.Code {
		case unix.BPF_LD | unix.BPF_W | unix.BPF_ABS:
			accumulator = map[uint32]uint32{offNr: nr, offArch: audit}[in.K]
			byArguments = byArguments || in.K >= offArgs
			continue
		case unix.BPF_ALU | unix.BPF_AND | unix.BPF_K:
			accumulator &= in.K
			continue
		case unix.BPF_RET | unix.BPF_K:
			return Action(in.K), byArguments, nil
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
			return 0, false, fmt.Errorf("instruction %d of the filter, %#x, is not known here", pc, in.Code)
		}
		if holds {
			pc += int(in.Jt)
		} else {
			pc += int(in.Jf)
		}
	}
	return 0, false, errors.New("the filter ends without an answer")
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
