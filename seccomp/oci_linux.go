package seccomp

import (
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// OCI is the profile as an OCI configuration has it. It has no word for Newest, for calls by number and for NotX32:
// those are left out.
func (p Profile) OCI(goarch string) *specs.LinuxSeccomp {
	archs := map[string]specs.Arch{"amd64": specs.ArchX86_64, "i386": specs.ArchX86, "x32": specs.ArchX32, "arm64": specs.ArchAARCH64}
	abis := append([]string{goarch}, slices.DeleteFunc(slices.Clone(p.ABIs), func(a string) bool { return a == goarch })...)
	if len(p.ABIs) == 0 && goarch == "amd64" {
		abis = append(abis, "i386", "x32")
	}
	s := &specs.LinuxSeccomp{}
	s.DefaultAction, s.DefaultErrnoRet = p.Default.oci()
	for _, abi := range abis {
		s.Architectures = append(s.Architectures, archs[abi])
	}
	for _, r := range p.Rules {
		if len(r.Names) == 0 {
			continue
		}
		call := specs.LinuxSyscall{Names: r.Names}
		call.Action, call.ErrnoRet = r.Action.oci()
		for _, c := range r.Conds {
			arg := specs.LinuxSeccompArg{Index: c.Arg, Value: c.Value, Op: ociOps[c.Op]}
			if c.Op == MaskedEqual {
				arg.Value, arg.ValueTwo = c.Mask, c.Value
			}
			call.Args = append(call.Args, arg)
		}
		s.Syscalls = append(s.Syscalls, call)
	}
	return s
}

var ociOps = map[Op]specs.LinuxSeccompOperator{
	Equal: specs.OpEqualTo, NotEqual: specs.OpNotEqual, Less: specs.OpLessThan, LessEqual: specs.OpLessEqual,
	Greater: specs.OpGreaterThan, GreaterEqual: specs.OpGreaterEqual, MaskedEqual: specs.OpMaskedEqual,
}

// oci is the action, and the number that belongs to it.
func (a Action) oci() (specs.LinuxSeccompAction, *uint) {
	data := uint(a & unix.SECCOMP_RET_DATA)
	switch a &^ unix.SECCOMP_RET_DATA {
	case Allow:
		return specs.ActAllow, nil
	case Log:
		return specs.ActLog, nil
	case unix.SECCOMP_RET_ERRNO:
		return specs.ActErrno, &data
	case unix.SECCOMP_RET_TRACE:
		return specs.ActTrace, &data
	case Trap:
		return specs.ActTrap, nil
	case Notify:
		return specs.ActNotify, nil
	case KillProcess:
		return specs.ActKillProcess, nil
	default:
		return specs.ActKillThread, nil
	}
}
