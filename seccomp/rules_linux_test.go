package seccomp

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	libseccomp "github.com/seccomp/libseccomp-golang"
	"golang.org/x/sys/unix"

	"github.com/jailrun/jail/internal/syscalls"
)

// callRule reads "deny mount @debug if arg0 == 1, arg1 < 2". Denied is EPERM.
func callRule(t testing.TB, text string) CallRule {
	t.Helper()
	text, conds, conditional := strings.Cut(text, " if ")
	words := strings.Fields(text)
	r := CallRule{Calls: words[1:]}
	switch words[0] {
	case "allow":
		r.Action = Allow
	case "log":
		r.Action = Log
	case "trap":
		r.Action = Trap
	case "kill-process":
		r.Action = KillProcess
	case "kill-thread":
		r.Action = KillThread
	case "deny":
		r.Action = eperm
	default:
		var err error
		if r.Action, err = ParseErrno(words[0]); err != nil {
			t.Fatal(text)
		}
	}
	if conditional {
		for _, c := range strings.Split(conds, ",") {
			cond, err := ParseCond(c)
			if err != nil {
				t.Fatalf("%q %v", c, err)
			}
			r.Conds = append(r.Conds, cond)
		}
	}
	return r
}

func rulesOf(t testing.TB, lines ...string) []CallRule {
	t.Helper()
	var rules []CallRule
	for _, l := range lines {
		rules = append(rules, callRule(t, l))
	}
	return rules
}

// TestCallNumbers: libseccomp, whose numbers are from the kernel's tables too, has the same.
func TestCallNumbers(t *testing.T) {
	compared := 0
	for abi, arch := range []libseccomp.ScmpArch{syscalls.AMD64: libseccomp.ArchAMD64, syscalls.I386: libseccomp.ArchX86, syscalls.X32: libseccomp.ArchX32, syscalls.ARM64: libseccomp.ArchARM64} {
		for _, c := range syscalls.Calls {
			nr, err := libseccomp.GetSyscallFromNameByArch(c.Name, arch)
			if err != nil || nr < -100 && nr > -300 {
				continue // newer than it; what goes through socketcall or ipc has numbers of its own there
			}
			if nr &^= x32Bit; nr < 0 {
				nr = -1
			}
			compared++
			if int(nr) != int(c.NR[abi]) {
				t.Errorf("%s on ABI %d is %d, to libseccomp %d", c.Name, abi, c.NR[abi], nr)
			}
		}
	}
	if compared < 1600 {
		t.Errorf("only %d numbers were compared", compared)
	}
}

// TestGroups: no name of a group is unknown, and @all is no group of its own.
func TestGroups(t *testing.T) {
	all := 0
	for _, g := range Groups() {
		names := Calls(g.Name)
		if len(names) == 0 || g.Doc == "" {
			t.Errorf("%s is empty", g.Name)
		}
		for _, name := range names {
			if err := CheckCall(name); err != nil {
				t.Error(err)
			}
		}
		if err := CheckCall(g.Name); err != nil {
			t.Error(err)
		}
		all += len(names)
	}
	if all != len(Calls("")) || all < 460 {
		t.Errorf("%d names in groups, %d in all", all, len(Calls("")))
	}
	for _, name := range []string{"@mounts", "mout", "", "@", "uretprobe"} {
		if CheckCall(name) == nil {
			t.Errorf("%q is taken", name)
		}
	}
}

// TestRulesTable: rules, and what a call with arguments then gets.
func TestRulesTable(t *testing.T) {
	const high = 1 << 32
	type args = [6]uint64
	enoent := Errno(unix.ENOENT)
	for _, tt := range []struct {
		rules string
		abi   string
		nr    uint32
		args  args
		want  Action
	}{
		// What no rule is about is allowed, newer calls and such that there are not too.
		{"deny ptrace", "amd64", 101, args{}, eperm},
		{"deny ptrace", "i386", 26, args{}, eperm},
		{"deny ptrace", "x32", x32Bit | 521, args{}, eperm},
		{"deny ptrace", "x32", x32Bit | 101, args{}, Allow},
		{"deny ptrace", "arm64", 117, args{}, eperm},
		{"deny ptrace", "amd64", 100, args{}, Allow},
		{"deny ptrace", "amd64", 102, args{}, Allow},
		{"deny ptrace", "amd64", 0xffffffff, args{}, Allow},
		{"deny ptrace", "arm64", 2000, args{}, Allow},
		// Every action.
		{"allow read; deny @all", "amd64", 0, args{}, Allow},
		{"kill-process @all", "amd64", 0, args{}, KillProcess},
		{"kill-thread read", "arm64", 63, args{}, KillThread},
		{"trap read", "amd64", 0, args{}, Trap},
		{"log read", "amd64", 0, args{}, Log},
		{"ENOENT read", "amd64", 0, args{}, enoent},
		{"0 chown", "amd64", 92, args{}, Errno(0)},
		{"4095 chown", "amd64", 92, args{}, Errno(4095)},
		// An allow-list: what is newer than jail is ENOSYS.
		{"deny @all; allow read", "amd64", 0, args{}, Allow},
		{"deny @all; allow read", "amd64", 1, args{}, eperm},
		{"deny @all; allow read", "amd64", newest, args{}, eperm},
		{"deny @all; allow read", "amd64", newest + 1, args{}, enosys},
		{"deny @all; allow read", "amd64", 1023, args{}, enosys},
		{"deny @all; allow read", "x32", x32Bit, args{}, Allow},
		{"deny @all; allow read", "x32", x32Bit | 1, args{}, eperm},
		{"deny @all; allow read", "x32", x32Bit | (newest + 1), args{}, enosys},
		{"deny @all; allow execveat", "x32", x32Bit | 545, args{}, Allow},
		{"deny @all; allow execveat", "x32", x32Bit | 547, args{}, eperm},
		{"deny @all; allow execveat", "x32", x32Bit | 548, args{}, enosys},
		{"kill-process @all; allow read", "i386", 3, args{}, Allow},
		{"kill-process @all; allow read", "i386", 4, args{}, KillProcess},
		{"kill-process @all; allow read", "i386", 2000, args{}, enosys},
		{"deny @all; allow mseal listns", "arm64", 470, args{}, Allow},
		{"log @all", "amd64", 2000, args{}, Log},
		// The most specific counts, whatever the order.
		{"deny @mount; allow umount2", "amd64", 166, args{}, Allow},
		{"allow umount2; deny @mount", "amd64", 166, args{}, Allow},
		{"allow umount2; deny @mount", "amd64", 165, args{}, eperm},
		{"deny @all; allow @mount; deny umount2", "amd64", 166, args{}, eperm},
		{"deny @all; allow @mount; deny umount2", "amd64", 165, args{}, Allow},
		{"deny umount2; allow umount2", "amd64", 166, args{}, eperm},
		{"allow umount2; deny umount2", "amd64", 166, args{}, eperm},
		{"deny @mount; kill-process @mount", "amd64", 165, args{}, KillProcess},
		{"deny mount; ENOENT mount", "amd64", 165, args{}, enoent},
		{"ENOENT mount; deny mount", "amd64", 165, args{}, eperm},
		{"kill-process @mount; ENOENT mount", "amd64", 165, args{}, enoent},
		// Conditions.
		{"deny socket if arg0 == 16", "amd64", 41, args{16}, eperm},
		{"deny socket if arg0 == 16", "amd64", 41, args{17}, Allow},
		{"deny socket if arg0 == 16", "amd64", 41, args{high | 16}, eperm}, // the kernel looks at 32 bits
		{"deny socket; allow socket if arg0 == 1", "amd64", 41, args{1}, Allow},
		{"deny socket; allow socket if arg0 == 1", "amd64", 41, args{2}, eperm},
		{"deny socket; allow socket if arg0 == 1", "amd64", 41, args{high | 1}, eperm},
		{"deny socket; allow socket if arg0 != 1", "amd64", 41, args{high | 1}, eperm},
		{"deny socket if arg0 != 1", "amd64", 41, args{high | 1}, eperm},
		{"deny socket if arg0 < 5", "amd64", 41, args{high | 4}, eperm},
		{"deny socket if arg0 <= 5", "arm64", 198, args{high | 5}, eperm},
		{"deny socket if arg0 <= 5", "arm64", 198, args{6}, Allow},
		{"deny socket; allow socket if arg0 > 5", "amd64", 41, args{high | 5}, eperm},
		{"deny socket; allow socket if arg0 >= 5", "amd64", 41, args{high | 4}, eperm},
		{"deny socket; allow socket if arg0 >= 5", "amd64", 41, args{5}, Allow},
		{"deny mmap if arg1 > 0x100000000", "amd64", 9, args{1: high}, Allow},
		{"deny mmap if arg1 > 0x100000000", "amd64", 9, args{1: high + 1}, eperm},
		{"deny mmap if arg1 < 0x200000001", "amd64", 9, args{1: 2*high + 1}, Allow},
		{"deny mmap if arg1 < 0x200000001", "amd64", 9, args{1: high + 5}, eperm},
		{"deny clone if arg0 & 0x7e020000 != 0", "amd64", 56, args{0x10000000}, eperm},
		{"deny clone if arg0 & 0x7e020000 != 0", "amd64", 56, args{high | 0x20000}, eperm},
		{"deny clone if arg0 & 0x7e020000 != 0", "amd64", 56, args{0x11}, Allow},
		{"deny clone if arg0 & 0xf == 3", "amd64", 56, args{0x13}, eperm},
		{"deny clone if arg0 & 0x100000001 == 0x100000001", "amd64", 56, args{high}, Allow},
		{"deny clone if arg0 & 0x100000001 == 0x100000001", "amd64", 56, args{high | 5}, eperm},
		{"deny clone if arg0 & 0x100000001 != 0x100000001", "amd64", 56, args{high | 5}, Allow},
		{"deny clone if arg0 & 0x100000001 != 0x100000001", "amd64", 56, args{high}, eperm},
		{"deny ioctl if arg0 == 1, arg5 >= 3, arg5 < 7", "amd64", 16, args{1, 5: 6}, eperm},
		{"deny ioctl if arg0 == 1, arg5 >= 3, arg5 < 7", "amd64", 16, args{1, 5: 7}, Allow},
		{"deny ioctl if arg0 == 1, arg5 >= 3, arg5 < 7", "amd64", 16, args{2, 5: 6}, Allow},
		{"deny ioctl if arg0 == 1; kill-process ioctl if arg1 == 2", "amd64", 16, args{1, 2}, KillProcess},
		{"kill-process ioctl; deny ioctl if arg1 == 2", "amd64", 16, args{1, high | 2}, KillProcess}, // it makes laxer
		{"kill-process ioctl; deny ioctl if arg1 == 2", "amd64", 16, args{1, 2}, eperm},
		// i386's two ways to a socket: behind a pointer no argument is seen.
		{"deny socket", "i386", 102, args{1}, eperm},
		{"deny socket", "i386", 102, args{high | 1}, eperm},
		{"deny socket", "i386", 102, args{2}, Allow},
		{"deny socket", "i386", 359, args{}, eperm},
		{"deny socket if arg0 == 16", "i386", 102, args{1}, eperm},
		{"deny socket; allow socket if arg0 == 1", "i386", 102, args{1}, eperm},
		{"deny @network-io", "i386", 102, args{20}, eperm},
		{"deny @network-io; allow socketcall", "i386", 102, args{3}, eperm},
		{"deny @network-io; allow socketcall", "i386", 102, args{99}, Allow},
		{"deny shmget", "i386", 117, args{1<<16 | 23}, eperm},
		{"deny shmget", "i386", 117, args{24}, Allow},
		{"deny @all; allow @network-io", "i386", 102, args{1}, Allow},
		{"kill-process @all; log shmget; allow ipc if arg0 == 24", "i386", 117, args{24}, KillProcess},
		{"kill-process @all; log shmget @network-io; allow ipc if arg0 == 23", "i386", 117, args{23}, Log},
		{"kill-process @all; log shmget; allow ipc if arg0 == 23", "i386", 117, args{1<<16 | 23}, KillProcess},
		// Another ABI.
		{"allow read; deny @all", "s390x", 3, args{}, KillProcess},
		{"log @all", "s390x", 3, args{}, KillProcess},
	} {
		audit, goarches := uint32(unix.AUDIT_ARCH_S390X), []string{"amd64", "arm64"}
		if a, ok := abis[tt.abi]; ok {
			audit, goarches = a.audit, []string{a.goarch}
		}
		for _, goarch := range goarches {
			filter, err := CompileCalls(rulesOf(t, strings.Split(tt.rules, ";")...), goarch)
			if err != nil {
				t.Errorf("%s: %v", tt.rules, err)
				continue
			}
			if got := run(t, newVM(t, filter), call{nr: tt.nr, audit: audit, args: tt.args}); got != tt.want {
				t.Errorf("%s: %s call %#x with %#x: %v, want %v", tt.rules, tt.abi, tt.nr, tt.args, got, tt.want)
			}
		}
	}
}

// ruleModel says in plain Go what rules do with a call.
func ruleModel(rules []CallRule, goarch string, c call) Action {
	abi := abiOf(goarch, c)
	if abi == "" {
		return KillProcess
	}
	i := slices.Index([]string{"amd64", "i386", "x32", "arm64"}, abi)
	nr := c.nr &^ abis[abi].bit
	name := ""
	for j := range syscalls.Calls {
		if syscalls.Calls[j].NR[i] >= 0 && uint32(syscalls.Calls[j].NR[i]) == nr {
			name = syscalls.Calls[j].Name
		}
	}
	if name == "" && nr > newest && (abi != "x32" || nr < x32First || nr > x32Last) {
		if a := ruleModelOf(rules, "", c); !a.passes() {
			return enosys
		}
	}
	got := ruleModelOf(rules, name, c)
	sub := ""
	if name == "socketcall" {
		sub = map[uint32]string{
			1: "socket", 2: "bind", 3: "connect", 4: "listen", 5: "accept", 6: "getsockname", 7: "getpeername",
			8: "socketpair", 9: "send", 10: "recv", 11: "sendto", 12: "recvfrom", 13: "shutdown", 14: "setsockopt", 15: "getsockopt",
			16: "sendmsg", 17: "recvmsg", 18: "accept4", 19: "recvmmsg", 20: "sendmmsg",
		}[uint32(c.args[0])]
	}
	if name == "ipc" {
		sub = map[uint16]string{
			1: "semop", 2: "semget", 3: "semctl", 4: "semtimedop", 11: "msgsnd", 12: "msgrcv", 13: "msgget",
			14: "msgctl", 21: "shmat", 22: "shmdt", 23: "shmget", 24: "shmctl",
		}[uint16(c.args[0])]
	}
	if sub == "" {
		return got
	}
	without := slices.DeleteFunc(slices.Clone(rules), func(r CallRule) bool { return len(r.Conds) > 0 })
	strictest := ruleModelOf(without, sub, call{})
	for _, r := range rules {
		if slices.Contains(r.Calls, sub) && len(r.Conds) > 0 && !stricter(strictest, r.Action) {
			strictest = r.Action
		}
	}
	// What its own conditions say can be taken back by what is stricter alone.
	if stricter(strictest, got) {
		return strictest
	}
	return got
}

func ruleModelOf(rules []CallRule, name string, c call) Action {
	fallback, degree := Allow, 0
	for _, r := range rules {
		d := 0
		for _, word := range r.Calls {
			switch {
			case word == name:
				d = 3
			case name != "" && syscalls.Groups[syscalls.Find(name).Group].Name == word:
				d = max(d, 2)
			case word == AllCalls:
				d = max(d, 1)
			}
		}
		if len(r.Conds) == 0 && d > 0 && (d > degree || d == degree && int32(r.Action&^0xffff) <= int32(fallback&^0xffff)) {
			fallback, degree = r.Action, d
		}
	}
	got, found := fallback, false
	for _, r := range rules {
		if len(r.Conds) == 0 || !slices.Contains(r.Calls, name) {
			continue
		}
		holds := true
		for _, cond := range r.Conds {
			arg := c.args[cond.Arg]
			wide, low := compares(cond, arg, cond.Value), compares(cond, uint64(uint32(arg)), cond.Value)
			if cond.Value > 0xffffffff || cond.Mask > 0xffffffff {
				low = wide
			}
			if int32(r.Action&^0xffff) > int32(fallback&^0xffff) {
				holds = holds && wide && low
			} else {
				holds = holds && (wide || low)
			}
		}
		if holds && (!found || int32(r.Action&^0xffff) <= int32(got&^0xffff)) {
			got, found = r.Action, true
		}
	}
	return got
}

func compares(c Cond, arg, v uint64) bool {
	switch c.Op {
	case Equal:
		return arg == v
	case NotEqual:
		return arg != v
	case Less:
		return arg < v
	case LessEqual:
		return arg <= v
	case Greater:
		return arg > v
	case GreaterEqual:
		return arg >= v
	case MaskedEqual:
		return arg&c.Mask == v
	case MaskedNotEqual:
		return arg&c.Mask != v
	}
	panic(c.Op)
}

// checkAgainstModel runs a filter on some numbers of each ABI, and on those that the rules name with arguments that make
// a difference.
func checkAgainstModel(t *testing.T, rules []CallRule, goarch string, numbers int, rnd *rand.Rand) {
	t.Helper()
	filter, err := CompileCalls(rules, goarch)
	if err != nil {
		return // it has a test of its own
	}
	vm := newVM(t, filter)
	var values []uint64
	for _, r := range rules {
		for _, c := range r.Conds {
			for _, v := range []uint64{c.Value, c.Mask} {
				values = append(values, v-1, v, v+1, v^1<<32, v&0xffffffff, v|1<<40)
			}
		}
	}
	values = append(values, 0, 1, 23, 1<<16|23, 1<<32|3)
	check := func(c call) {
		if got, want := run(t, vm, c), ruleModel(rules, goarch, c); got != want {
			t.Fatalf("%s: call %#x of ABI %#x with %#x: %v, want %v, by %+v", goarch, c.nr, c.audit, c.args, got, want, rules)
		}
	}
	for abi, a := range abis {
		if a.goarch != goarch {
			continue
		}
		i := slices.Index([]string{"amd64", "i386", "x32", "arm64"}, abi)
		for range numbers {
			nr := rnd.Uint32N(560)
			check(call{nr: a.bit | nr, audit: a.audit, args: [6]uint64{values[rnd.IntN(len(values))]}})
		}
		for _, r := range rules {
			for _, name := range append(slices.Clone(r.Calls), "socketcall", "ipc") {
				c := syscalls.Find(name)
				if c == nil || c.NR[i] < 0 {
					continue
				}
				for range 4 + numbers/20 {
					made := call{nr: a.bit | uint32(c.NR[i]), audit: a.audit}
					for n := range made.args {
						made.args[n] = values[rnd.IntN(len(values))]
					}
					check(made)
				}
			}
		}
	}
	for _, audit := range foreign {
		check(call{nr: 0, audit: audit})
	}
}

// randomRules makes rules about few calls, so that they meet.
func randomRules(rnd *rand.Rand) []CallRule {
	pick := func(list ...string) string { return list[rnd.IntN(len(list))] }
	actions := []Action{Allow, Allow, eperm, enosys, Log, Trap, KillThread, KillProcess}
	var rules []CallRule
	for range 1 + rnd.IntN(8) {
		r := CallRule{Action: actions[rnd.IntN(len(actions))]}
		if rnd.IntN(2) == 0 {
			r.Calls = []string{pick("@all", "@mount", "@network-io", "@ipc", "@file-system", "socket", "read", "shmget", "mseal", "execveat")}
		} else {
			for range 1 + rnd.IntN(3) {
				r.Calls = append(r.Calls, pick("socket", "connect", "mount", "openat", "shmget", "socketcall", "ipc", "execveat", "mseal", "prlimit64"))
			}
			for range 1 + rnd.IntN(4) {
				c := Cond{Arg: uint(rnd.IntN(2)), Op: Op(1 + rnd.IntN(int(MaskedNotEqual))), Value: rnd.Uint64N(1 << (rnd.IntN(40) + 1))}
				if c.Op >= MaskedEqual {
					c.Mask = rnd.Uint64N(1 << 36)
					c.Value &= c.Mask
				}
				r.Conds = append(r.Conds, c)
			}
		}
		rules = append(rules, r)
	}
	return rules
}

// TestRandomRules compares filters with the model.
func TestRandomRules(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 120 {
		rules := randomRules(rnd)
		checkAgainstModel(t, rules, "amd64", 1000, rnd)
		checkAgainstModel(t, rules, "arm64", 1000, rnd)
	}
}

func FuzzCompileCalls(f *testing.F) {
	for seed := range uint64(16) {
		f.Add(seed, seed)
	}
	f.Fuzz(func(t *testing.T, a, b uint64) {
		rnd := rand.New(rand.NewPCG(a, b))
		rules := randomRules(rnd)
		checkAgainstModel(t, rules, "amd64", 10, rnd)
		checkAgainstModel(t, rules, "arm64", 10, rnd)
	})
}

// FuzzParseCond: what is taken compares as it reads.
func FuzzParseCond(f *testing.F) {
	for _, s := range []string{"arg0 == 16", "arg5 & 0xff != 3", "arg1<=0x10", "arg2&3==1", "arg0 == 010", "arg6 > 1", "arg0 =< 1", "arg0 == -1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		c, err := ParseCond(text)
		if err != nil {
			return
		}
		if c.Arg > 5 || c.Op < Equal || c.Op > MaskedNotEqual || c.Op < MaskedEqual && c.Mask != 0 || c.Op >= MaskedEqual && c.Value&^c.Mask != 0 {
			t.Errorf("%q: %+v", text, c)
		}
		if again, err := ParseCond(c.String()); err != nil || again != c {
			t.Errorf("%q is %q, and then %+v, %v", text, c, again, err)
		}
		if strings.ContainsAny(text, "+-_'") {
			t.Errorf("%q is taken", text)
		}
	})
}

func TestParseCond(t *testing.T) {
	for text, want := range map[string]Cond{
		"arg0 == 16":          {Arg: 0, Op: Equal, Value: 16},
		"arg5 != 0x10":        {Arg: 5, Op: NotEqual, Value: 16},
		" arg1  <  0 ":        {Arg: 1, Op: Less},
		"arg1<=7":             {Arg: 1, Op: LessEqual, Value: 7},
		"arg1 > 7":            {Arg: 1, Op: Greater, Value: 7},
		"arg1>=7":             {Arg: 1, Op: GreaterEqual, Value: 7},
		"arg2 & 0xff == 3":    {Arg: 2, Op: MaskedEqual, Mask: 0xff, Value: 3},
		"arg2&0xff!=3":        {Arg: 2, Op: MaskedNotEqual, Mask: 0xff, Value: 3},
		"arg0 == 0xFFFFFFFFF": {Arg: 0, Op: Equal, Value: 0xfffffffff},
	} {
		if got, err := ParseCond(text); err != nil || got != want {
			t.Errorf("%q: %+v, %v", text, got, err)
		}
	}
	for text, want := range map[string]string{
		"":                            "is no condition",
		"arg0":                        "is no condition",
		"arg0 ==":                     "is no condition",
		"arg0 == 1 2":                 "is no condition",
		"arg6 == 1":                   `begins with "arg6"; a call's arguments are arg0 to arg5`,
		"a0 == 1":                     `begins with "a0"`,
		"arg00 == 1":                  `begins with "arg00"`,
		"arg0 = 1":                    `has "=" where one of`,
		"arg0 == 010":                 `has "010" where a number has to be`,
		"arg0 == AF_UNIX":             `has "AF_UNIX" where a number has to be`,
		"arg0 == -1":                  `has "-1" where`,
		"arg0 == 0x+1":                `has "0x+1" where`,
		"arg0 == 0x":                  `has "0x" where`,
		"arg0 == 0x1ffffffffffffffff": "where a number has to be",
		"arg0 & 3 < 1":                `has "<" behind a mask`,
		"arg0 & 3 == 4":               "has a value with bits outside of its mask",
		"arg0 & x == 4":               `has "x" where`,
	} {
		if _, err := ParseCond(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
	for _, text := range []string{"", "EWHAT", "-1", "4096", "01", "0x1", "eperm"} {
		if a, err := ParseErrno(text); err == nil {
			t.Errorf("errno %q: %v", text, a)
		}
	}
}

// TestRulesRefused: what nobody can have meant.
func TestRulesRefused(t *testing.T) {
	for text, want := range map[string]string{
		"allow read":                "rule 0 says nothing",
		"allow @all":                "rule 0 says nothing",
		"deny mount; allow read":    "rule 1 says nothing",
		"deny @mount; allow @debug": "rule 1 says nothing",
		"deny @mount if arg0 == 1":  "rule 0 has conditions",
		"deny raed":                 `rule 0 "raed" is no system call`,
		"deny @mounts":              `rule 0 "@mounts" is no group of system calls`,
		"deny read if " + strings.Repeat("arg0 != 1,", 16) + "arg0 == 2": "rule 0 has more than 16 conditions",

		"deny @all; allow read": "", "deny @mount; allow mount": "", "deny mount; allow @mount": "", "allow read; deny read if arg0 == 1": "",
	} {
		got := ""
		if _, err := CompileCalls(rulesOf(t, strings.Split(text, ";")...), "amd64"); err != nil {
			got = err.Error()
		}
		if !strings.HasPrefix(got, want) || want == "" && got != "" {
			t.Errorf("%s: %s, want %s", text, got, want)
		}
	}
	if _, err := CompileCalls(rulesOf(t, "deny read"), "mips"); err == nil {
		t.Error("an architecture that there is not")
	}
	// Jumps are as long as they may be.
	if filter, err := CompileCalls(rulesOf(t, "deny read if "+strings.Repeat("arg0 != 0x100000001,", 15)+"arg0 == 0x200000000"), "amd64"); err != nil {
		t.Error(err)
	} else if got := run(t, newVM(t, filter), call{audit: unix.AUDIT_ARCH_X86_64, args: [6]uint64{0x200000000}}); got != eperm {
		t.Error(got)
	}
}

// TestRulesOfEachLength: a jump has 8 bits, what it goes over may be longer. Each length is there: a condition makes 3
// instructions, one with a mask 4, two 5.
func TestRulesOfEachLength(t *testing.T) {
	for _, last := range []string{"deny write", "deny read if arg0 & 7 == 7", "deny read if arg0 == 1, arg1 == 1"} {
		rules := rulesOf(t, last, "kill-process write")
		for i := range uint64(170) {
			filter, err := CompileCalls(rules, "amd64")
			if err != nil {
				t.Fatal(err)
			}
			vm := newVM(t, filter)
			for nr, arg := range []uint64{1000 + i, 0, 0} { // read, write, open
				c := call{nr: uint32(nr), audit: unix.AUDIT_ARCH_X86_64, args: [6]uint64{arg}}
				if got, want := run(t, vm, c), ruleModel(rules, "amd64", c); got != want {
					t.Fatalf("%s and %d more: call %d: %v, want %v", last, i, nr, got, want)
				}
			}
			rules = append(rules, CallRule{Action: enosys, Calls: []string{"read"}, Conds: []Cond{{Op: Equal, Value: 1000 + i}}})
		}
	}
}

// TestDecide: jail why goes by it.
func TestDecide(t *testing.T) {
	rules := rulesOf(t, "deny @network-io", "deny @all", "allow socket if arg0 == 1", "kill-process socket if arg0 == 16", "allow read")
	verdicts, err := Decide(rules, "socket")
	if err != nil || len(verdicts) != 3 || verdicts[0].Rule != 3 || verdicts[1].Rule != 2 || verdicts[2].Rule != 0 {
		t.Errorf("%+v, %v", verdicts, err)
	}
	if verdicts, err = Decide(rules, "read"); err != nil || len(verdicts) != 1 || verdicts[0].Rule != 4 {
		t.Errorf("%+v, %v", verdicts, err)
	}
	if _, err = Decide(rules, "raed"); err == nil {
		t.Error("taken")
	}
}
