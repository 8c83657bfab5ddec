package seccomp

import (
	"cmp"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/jailrun/jail/internal/syscalls"
)

// CompileCalls returns the filter for rules and a GOARCH, "amd64" or "arm64". A rule counts for all ABIs: the filter for
// amd64 judges i386 and x32 calls too. A call of any other ABI is a kill, as in [Compile].
//
// Where all calls that are not named are refused, those that are newer than this package get ENOSYS, as in [Profile].
//
// A condition that makes things stricter holds if it does for 64 bits or for the lower 32; one that makes them laxer, if
// it does for both. So a high bit that the kernel does not look at makes no difference (CVE-2019-10063).
//
// The program is not libseccomp's: that takes some milliseconds at each start, and has the same action for all calls
// whose conditions do not hold.
//
// An error about one rule is a *RuleError.
func CompileCalls(rules []CallRule, goarch string) ([]unix.SockFilter, error) {
	by := rulesByWord(rules)
	if err := checkRules(rules, by); err != nil {
		return nil, err
	}
	type judged struct {
		audit uint32
		spans []span
	}
	arches := map[string][]judged{
		"amd64": {
			{unix.AUDIT_ARCH_X86_64, append(spansOf(rules, by, syscalls.AMD64), spansOf(rules, by, syscalls.X32)...)},
			{unix.AUDIT_ARCH_I386, spansOf(rules, by, syscalls.I386)},
		},
		"arm64": {{unix.AUDIT_ARCH_AARCH64, spansOf(rules, by, syscalls.ARM64)}},
	}[goarch]
	if arches == nil {
		return nil, fmt.Errorf("compile rules for %s: unknown architecture", goarch)
	}
	filter := []unix.SockFilter{load(syscalls.OffArch)}
	for _, a := range arches {
		body := append([]unix.SockFilter{load(syscalls.OffNR)}, tree(a.spans)...)
		filter = append(filter, jump(unix.BPF_JEQ, a.audit, 1, 0), skip(len(body)))
		filter = append(filter, body...)
	}
	filter = append(filter, ret(KillProcess))
	if len(filter) > unix.BPF_MAXINSNS {
		return nil, fmt.Errorf("compile rules for %s: %d instructions; the kernel takes %d", goarch, len(filter), unix.BPF_MAXINSNS)
	}
	return filter, nil
}

// span is the calls from a number up to the next span's.
type span struct {
	from     uint32
	verdicts []Verdict
}

// spansOf are all numbers of an ABI.
func spansOf(rules []CallRule, by map[string][]int, abi int) []span {
	var byNumber [x32Last + 1]*syscalls.Call
	for i := range syscalls.Calls {
		if nr := syscalls.Calls[i].NR[abi]; nr >= 0 {
			byNumber[nr] = &syscalls.Calls[i]
		}
	}
	unnamed := decide(rules, by, nil)
	tooNew := unnamed
	if !unnamed[0].Action.passes() {
		tooNew = []Verdict{{Action: Errno(unix.ENOSYS)}}
	}
	bit := uint32(0)
	if abi == syscalls.X32 {
		bit = x32Bit
	}
	var list []span
	add := func(nr uint32, v []Verdict) {
		if n := len(list); n == 0 || len(v) > 1 || len(list[n-1].verdicts) > 1 || list[n-1].verdicts[0].Action != v[0].Action {
			list = append(list, span{bit + nr, v})
		}
	}
	addKnown := func(first, last uint32) {
		for nr := first; nr <= last; nr++ {
			v := unnamed
			if c := byNumber[nr]; c != nil {
				v = decide(rules, by, c)
				if c.Name == "socketcall" || c.Name == "ipc" {
					v = withSubcalls(v, rules, by, c.Name)
				}
			}
			add(nr, v)
		}
		add(last+1, tooNew)
	}
	addKnown(0, newest)
	if abi == syscalls.X32 {
		addKnown(x32First, x32Last)
	}
	return list
}

// withSubcalls adds what rules say about the calls that go through socketcall(2) and ipc(2) of i386. Their arguments are
// behind a pointer, so the strictest verdict counts.
func withSubcalls(own []Verdict, rules []CallRule, by map[string][]int, name string) []Verdict {
	subcalls := map[string][]string{
		"socketcall": {
			1: "socket", "bind", "connect", "listen", "accept", "getsockname", "getpeername", "socketpair", "send", "recv",
			"sendto", "recvfrom", "shutdown", "setsockopt", "getsockopt", "sendmsg", "recvmsg", "accept4", "recvmmsg", "sendmmsg",
		},
		"ipc": {
			1: "semop", "semget", "semctl", "semtimedop",
			11: "msgsnd", "msgrcv", "msgget", "msgctl",
			21: "shmat", "shmdt", "shmget", "shmctl",
		},
	}[name]
	// The kernel looks at 32 bits, of ipc's at 16.
	mask := map[string]uint64{"socketcall": 0xffffffff, "ipc": 0xffff}[name]
	var list []Verdict
	for _, v := range own {
		for nr, sub := range subcalls {
			if sub == "" {
				continue
			}
			strictest := slices.MinFunc(decide(rules, by, syscalls.Find(sub)), func(a, b Verdict) int { return cmp.Compare(a.Action.rank(), b.Action.rank()) })
			if stricter(strictest.Action, v.Action) {
				v := v
				v.Conds = append(slices.Clone(v.Conds), Cond{Arg: 0, Op: MaskedEqual, Mask: mask, Value: uint64(nr)})
				v.Action, v.Rule = strictest.Action, strictest.Rule
				list = append(list, v)
			}
		}
		list = append(list, v)
	}
	return list
}

// tree finds the span of a number by halves, and ends with its verdicts.
func tree(spans []span) []unix.SockFilter {
	if len(spans) == 1 {
		return judge(spans[0].verdicts)
	}
	half := len(spans) / 2
	below, above := tree(spans[:half]), tree(spans[half:])
	var code []unix.SockFilter
	if from := spans[half].from; len(below) < 256 {
		code = append(code, jump(unix.BPF_JGE, from, uint8(len(below)), 0))
	} else {
		code = append(code, jump(unix.BPF_JGE, from, 0, 1), skip(len(below)))
	}
	return append(append(code, below...), above...)
}

// judge ends with the first verdict whose conditions hold.
func judge(verdicts []Verdict) []unix.SockFilter {
	var code []unix.SockFilter
	last := len(verdicts) - 1
	for _, v := range verdicts[:last] {
		branch := []unix.SockFilter{ret(v.Action)}
		for _, c := range slices.Backward(v.Conds) {
			branch = append(c.code(uint8(len(branch)), v.lax), branch...)
		}
		code = append(code, branch...)
	}
	return append(code, ret(verdicts[last].Action))
}

// maxConds is how many conditions a rule may have: jumps over them have 8 bits.
const maxConds = 16

// code goes on behind itself if the condition holds, else n instructions further. A lax one makes things laxer.
func (c Cond) code(n uint8, lax bool) []unix.SockFilter {
	low := load(syscalls.OffArgs + 8*uint32(c.Arg))
	high := load(syscalls.OffArgs + 8*uint32(c.Arg) + 4)
	v, vHigh := uint32(c.Value), uint32(c.Value>>32)
	m, mHigh := uint32(c.Mask), uint32(c.Mask>>32)
	short := vHigh == 0
	switch c.Op {
	case Equal:
		if short && !lax {
			return []unix.SockFilter{low, jump(unix.BPF_JEQ, v, 0, n)}
		}
		return []unix.SockFilter{high, jump(unix.BPF_JEQ, vHigh, 0, n+2), low, jump(unix.BPF_JEQ, v, 0, n)}
	case NotEqual:
		if short && lax {
			return []unix.SockFilter{low, jump(unix.BPF_JEQ, v, n, 0)}
		}
		return []unix.SockFilter{high, jump(unix.BPF_JEQ, vHigh, 0, 2), low, jump(unix.BPF_JEQ, v, n, 0)}
	case Less, LessEqual:
		op := map[Op]uint16{Less: unix.BPF_JGE, LessEqual: unix.BPF_JGT}[c.Op]
		if short && !lax {
			return []unix.SockFilter{low, jump(op, v, n, 0)}
		}
		return []unix.SockFilter{
			high, jump(unix.BPF_JGT, vHigh, n+3, 0), jump(unix.BPF_JEQ, vHigh, 0, 2), low, jump(op, v, n, 0),
		}
	case Greater, GreaterEqual:
		op := map[Op]uint16{Greater: unix.BPF_JGT, GreaterEqual: unix.BPF_JGE}[c.Op]
		if short && lax {
			return []unix.SockFilter{low, jump(op, v, 0, n)}
		}
		return []unix.SockFilter{
			high, jump(unix.BPF_JGT, vHigh, 3, 0), jump(unix.BPF_JEQ, vHigh, 0, n+2), low, jump(op, v, 0, n),
		}
	case MaskedEqual:
		if mHigh == 0 {
			return []unix.SockFilter{low, and(m), jump(unix.BPF_JEQ, v, 0, n)}
		}
		return []unix.SockFilter{high, and(mHigh), jump(unix.BPF_JEQ, vHigh, 0, n+3), low, and(m), jump(unix.BPF_JEQ, v, 0, n)}
	case MaskedNotEqual:
		if mHigh == 0 {
			return []unix.SockFilter{low, and(m), jump(unix.BPF_JEQ, v, n, 0)}
		}
		return []unix.SockFilter{high, and(mHigh), jump(unix.BPF_JEQ, vHigh, 0, 3), low, and(m), jump(unix.BPF_JEQ, v, n, 0)}
	}
	panic("a condition without a comparison")
}

func skip(n int) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JA | unix.BPF_K, K: uint32(n)}
}
