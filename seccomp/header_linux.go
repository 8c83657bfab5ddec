package seccomp

import (
	"fmt"
	"maps"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/jailrun/jail/internal/syscalls"
)

const (
	// Call numbers of x32 have this bit. See arch/x86/entry/syscalls in the
	// kernel's source for the table of amd64 and x32.
	x32Bit = 0x40000000

	// Calls that need a translation of their own on x32 have these numbers.
	// Without the bit they are no calls.
	x32First, x32Last = 512, 547

	// From here to x32First a call has one number on every ABI.
	firstShared = 424
)

// header is what runs before libseccomp's program: it answers the calls that
// are too new and the rules with numbers. All other calls, and those of a
// foreign ABI, fall through its end.
func header(p Profile, a arch) ([]unix.SockFilter, error) {
	if p.Newest >= x32First {
		return nil, fmt.Errorf("newest call %d: the numbers from %d are those of x32", p.Newest, x32First)
	}
	var h []unix.SockFilter
	if p.Newest != 0 {
		h = a.tooNew(p.Newest)
	}
	if slices.Contains(a.audit, unix.AUDIT_ARCH_I386) {
		h = append(h, multiplexed(p)...)
	}
	n, err := numbers(p, a)
	return append(h, n...), err
}

// multiplexed gives the default action to i386's socketcall(2) and ipc(2) where
// a call that goes through them is allowed under conditions. The arguments are
// behind a pointer there, and libseccomp would let it through whatever they are.
func multiplexed(p Profile) []unix.SockFilter {
	if p.Default.passes() {
		return nil
	}
	var h []unix.SockFilter
	for _, m := range []struct {
		name  string
		nr    uint32
		calls []string
	}{
		{"socketcall", 102, []string{
			"socket", "bind", "connect", "listen", "accept", "getsockname", "getpeername", "socketpair", "send", "recv",
			"sendto", "recvfrom", "shutdown", "setsockopt", "getsockopt", "sendmsg", "recvmsg", "accept4", "recvmmsg", "sendmmsg",
		}},
		{"ipc", 117, []string{
			"semop", "semget", "semctl", "semtimedop", "msgsnd", "msgrcv", "msgget", "msgctl", "shmat", "shmdt", "shmget", "shmctl",
		}},
	} {
		named := func(r Rule) bool { return slices.Contains(r.Names, m.name) }
		narrowed := func(r Rule) bool {
			return r.Action.passes() && len(r.Conds) != 0 &&
				slices.ContainsFunc(r.Names, func(name string) bool { return slices.Contains(m.calls, name) })
		}
		if slices.ContainsFunc(p.Rules, narrowed) && !slices.ContainsFunc(p.Rules, named) {
			h = append(h,
				load(syscalls.OffArch),
				jump(unix.BPF_JEQ, unix.AUDIT_ARCH_I386, 0, 3),
				load(syscalls.OffNR),
				jump(unix.BPF_JEQ, m.nr, 0, 1),
				ret(p.Default))
		}
	}
	return h
}

// tooNewAMD64 gives ENOSYS to what is too new. Known numbers leave at once,
// because the kernel goes their way for each of them when it loads the filter.
func tooNewAMD64(newest uint32) []unix.SockFilter {
	return []unix.SockFilter{
		load(syscalls.OffNR),
		jump(unix.BPF_JGT, newest, 0, 9), // not greater: end
		load(syscalls.OffArch),
		jump(unix.BPF_JEQ, unix.AUDIT_ARCH_I386, 6, 0),   // ENOSYS
		jump(unix.BPF_JEQ, unix.AUDIT_ARCH_X86_64, 0, 6), // foreign: end
		load(syscalls.OffNR),
		jump(unix.BPF_JGT, x32Bit+x32Last, 3, 0),  // ENOSYS
		jump(unix.BPF_JGE, x32Bit+x32First, 3, 0), // end
		jump(unix.BPF_JGT, x32Bit+newest, 1, 0),   // ENOSYS
		jump(unix.BPF_JGE, x32Bit, 1, 0),          // end
		ret(Errno(unix.ENOSYS)),
	}
}

// tooNewARM64 is the same where one ABI has the numbers.
func tooNewARM64(newest uint32) []unix.SockFilter {
	return []unix.SockFilter{
		load(syscalls.OffNR),
		jump(unix.BPF_JGT, newest, 0, 3), // not greater: end
		load(syscalls.OffArch),
		jump(unix.BPF_JEQ, unix.AUDIT_ARCH_AARCH64, 0, 1), // foreign: end
		ret(Errno(unix.ENOSYS)),
	}
}

// numbers answers the rules for calls that libseccomp has no name for. It takes
// a number without a name only for the ABI that it was built for itself.
func numbers(p Profile, a arch) ([]unix.SockFilter, error) {
	var answers []unix.SockFilter
	known := map[uint32]bool{}
	for i, r := range p.Rules {
		for _, nr := range r.Numbers {
			switch {
			case len(r.Conds) != 0:
				return nil, fmt.Errorf("rule %d: call %d: conditions need a name", i, nr)
			case nr < firstShared || nr >= x32First:
				return nil, fmt.Errorf("rule %d: call %d: not the same call on every ABI", i, nr)
			case p.Newest != 0 && nr > p.Newest:
				return nil, fmt.Errorf("rule %d: call %d is newer than the newest, %d", i, nr, p.Newest)
			case known[nr]:
				return nil, fmt.Errorf("rule %d: call %d has a rule already", i, nr)
			}
			known[nr] = true
			answers = append(answers, jump(unix.BPF_JEQ, nr, 0, 1), ret(r.Action))
		}
	}
	if len(answers) == 0 {
		return nil, nil
	}
	// Most calls leave at once: the kernel goes their way for each of them when
	// it loads the filter.
	h := []unix.SockFilter{
		load(syscalls.OffNR), and(a.nrMask),
		jump(unix.BPF_JGE, slices.Min(slices.Collect(maps.Keys(known))), 0, uint8(3+len(a.audit)+len(answers))),
		load(syscalls.OffArch), // only of our ABIs do we know what the numbers mean
	}
	for i, audit := range a.audit {
		h = append(h, jump(unix.BPF_JEQ, audit, uint8(len(a.audit)-1-i), 0))
	}
	h[len(h)-1].Jf = uint8(2 + len(answers))
	h = append(h, load(syscalls.OffNR), and(a.nrMask))
	return append(h, answers...), nil
}

func load(offset uint32) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: offset}
}

func and(mask uint32) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_ALU | unix.BPF_AND | unix.BPF_K, K: mask}
}

// jump skips the next jt instructions if the comparison holds, else the next jf.
func jump(op uint16, k uint32, jt, jf uint8) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_JMP | op | unix.BPF_K, Jt: jt, Jf: jf, K: k}
}

func ret(a Action) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: uint32(a)}
}
