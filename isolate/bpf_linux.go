//go:build cgo && (amd64 || arm64)

package isolate

import (
	"runtime"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/jailrun/jail/internal/syscalls"
)

// A program is a filter in classic BPF.
type program []unix.SockFilter

// nativeArch is what a filter sees as the ABI of this program's own calls.
var nativeArch = map[string]uint32{"amd64": unix.AUDIT_ARCH_X86_64, "arm64": unix.AUDIT_ARCH_AARCH64}[runtime.GOARCH]

// readProgram reads a filter.
func readProgram(b []byte) (program, error) {
	f, err := syscalls.Read(b)
	return program(f), err
}

// run is the verdict on a call, and whether an argument was looked at: with others it may be another.
func (p program) run(d *syscalls.Data) (verdict uint32, byArguments bool) {
	verdict, byArguments, _ = syscalls.Filter(p).Run(d)
	return verdict, byArguments
}

// stricter says whether the kernel takes the action a where another filter says b.
func stricter(a, b uint32) bool {
	return int32(a&unix.SECCOMP_RET_ACTION_FULL) < int32(b&unix.SECCOMP_RET_ACTION_FULL)
}

// verdictOf is what the kernel does with a call that all of the filters judge, the one that is loaded last coming first.
func verdictOf(filters []program, d *syscalls.Data) uint32 {
	verdict := uint32(unix.SECCOMP_RET_ALLOW)
	for _, p := range filters {
		if v, _ := p.run(d); stricter(v, verdict) {
			verdict = v
		}
	}
	return verdict
}

// notifying is a filter that asks where this one refuses with an errno.
func (p program) notifying() program {
	p = slices.Clone(p)
	for i, in := range p {
		if in.Code == unix.BPF_RET|unix.BPF_K && in.K&unix.SECCOMP_RET_ACTION_FULL == unix.SECCOMP_RET_ERRNO {
			p[i].K = unix.SECCOMP_RET_USER_NOTIF
		}
	}
	return p
}

// with is one filter that gives what the kernel makes of the verdicts of two. A process has one listener, and a filter
// that refuses wins over one that asks: so what refuses and what asks have to be one.
func (p program) with(q program) program {
	both := slices.Clone(p)
	copies := map[uint32]int{} // where q begins, for each verdict of p
	for i, in := range p {
		if in.Code != unix.BPF_RET|unix.BPF_K || !slices.ContainsFunc(q, func(o unix.SockFilter) bool {
			return o.Code == unix.BPF_RET|unix.BPF_K && stricter(o.K, in.K)
		}) {
			continue // nothing that q says would count
		}
		at, made := copies[in.K]
		if !made {
			at = len(both)
			copies[in.K] = at
			for _, o := range q {
				if o.Code == unix.BPF_RET|unix.BPF_K && !stricter(o.K, in.K) {
					o.K = in.K
				}
				both = append(both, o)
			}
		}
		both[i] = unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JA, K: uint32(at - i - 1)}
	}
	return both
}

// only is the filter for some calls of our own ABI, and allows all others; except is the other way round.
func (p program) only(calls ...uint32) program { return append(choose(calls, true), p...) }

func (p program) except(calls ...uint32) program { return append(choose(calls, false), p...) }

// choose goes on behind its end for those calls, or for all others; the rest is allowed.
func choose(calls []uint32, those bool) program {
	n := uint8(len(calls))
	var c program
	if those {
		c = program{
			{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: syscalls.OffArch},
			{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: nativeArch, Jf: n + 1},
			{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: syscalls.OffNR},
		}
		for i, nr := range calls {
			c = append(c, unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: nr, Jt: n - uint8(i)})
		}
		return append(c, unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW})
	}
	c = program{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: syscalls.OffArch},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: nativeArch, Jf: n + 2},
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: syscalls.OffNR},
	}
	for i, nr := range calls {
		last := i == len(calls)-1
		c = append(c, unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: nr, Jt: n - 1 - uint8(i), Jf: map[bool]uint8{true: 1}[last]})
	}
	return append(c, unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW})
}

// asking is a filter that asks for some calls of our own ABI.
func asking(calls []uint32) program {
	return program{{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_USER_NOTIF}}.only(calls...)
}

// askingWith is a filter that asks for a call of our own ABI if an argument is not 0.
func askingWith(call uint32, arg int) program {
	return program{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: uint32(syscalls.OffArgs + 8*arg)},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: 0, Jf: 3},
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: uint32(syscalls.OffArgs + 8*arg + 4)},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: 0, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_USER_NOTIF},
	}.only(call)
}

// bytes is the filter as Spec.Filter has one.
func (p program) bytes() []byte { return filterBytes(p) }
