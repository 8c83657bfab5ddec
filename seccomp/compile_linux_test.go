package seccomp

import (
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Numbers of calls that libseccomp 2.5.4 has no name for, on every ABI.
const (
	statmount = 457
	mseal     = 462
	listns    = 470
)

func TestCompile(t *testing.T) {
	profile := Profile{
		Default: eperm,
		Newest:  newest,
		Rules: []Rule{
			{Action: Allow, Names: []string{"read", "openat"}},
			{Action: KillProcess, Names: []string{"setns"}},
			{Action: KillThread, Names: []string{"vhangup"}},
			{Action: Trap, Names: []string{"reboot"}},
			{Action: Trace(7), Names: []string{"acct"}},
			{Action: Notify, Names: []string{"mount"}},
			{Action: Log, Names: []string{"chroot"}},
			{Action: Errno(unix.ENOTTY), Names: []string{"sync"}},

			{Action: Allow, Numbers: []uint32{mseal, statmount}},
			{Action: Log, Numbers: []uint32{listns}},

			{Action: Allow, Names: []string{"lseek"}, Conds: []Cond{{Arg: 0, Op: Equal, Value: 5}}},
			{Action: Allow, Names: []string{"pread64"}, Conds: []Cond{{Arg: 1, Op: NotEqual, Value: 5}}},
			{Action: Allow, Names: []string{"preadv"}, Conds: []Cond{{Arg: 2, Op: Less, Value: 5}}},
			{Action: Allow, Names: []string{"pwrite64"}, Conds: []Cond{{Arg: 3, Op: LessEqual, Value: 5}}},
			{Action: Allow, Names: []string{"pwritev"}, Conds: []Cond{{Arg: 4, Op: Greater, Value: 5}}},
			{Action: Allow, Names: []string{"sendfile"}, Conds: []Cond{{Arg: 5, Op: GreaterEqual, Value: 5}}},

			// All conditions of a rule must hold, and one rule of two.
			{Action: Allow, Names: []string{"personality"}, Conds: []Cond{
				{Arg: 0, Op: MaskedEqual, Mask: 0xf0, Value: 0x50},
				{Arg: 1, Op: Equal, Value: 1},
			}},
			{Action: Allow, Names: []string{"personality"}, Conds: []Cond{{Arg: 0, Op: Equal, Value: 8}}},
		},
	}
	type args = [6]uint64
	const high = 1 << 32
	tests := []struct {
		name string
		nr   uint32 // on amd64
		args args
		want Action
	}{
		{"read", 0, args{}, Allow},
		{"openat", 257, args{}, Allow},
		{"write", 1, args{}, eperm},
		{"setns", 308, args{}, KillProcess},
		{"vhangup", 153, args{}, KillThread},
		{"reboot", 169, args{}, Trap},
		{"acct", 163, args{}, Trace(7)},
		{"mount", 165, args{}, Notify},
		{"chroot", 161, args{}, Log},
		{"sync", 162, args{}, Errno(unix.ENOTTY)},

		{"mseal", mseal, args{}, Allow},
		{"statmount", statmount, args{}, Allow},
		{"listns", listns, args{}, Log},
		{"between", 458, args{}, eperm},
		{"too new", newest + 1, args{}, enosys},

		{"lseek", 8, args{0: 5}, Allow},
		{"lseek", 8, args{0: 5 | high}, eperm},
		{"pread64", 17, args{1: 5}, eperm},
		{"pread64", 17, args{1: 5 | high}, Allow},
		{"preadv", 295, args{2: 4}, Allow},
		{"preadv", 295, args{2: 5}, eperm},
		{"preadv", 295, args{2: 4 | high}, eperm},
		{"pwrite64", 18, args{3: 5}, Allow},
		{"pwrite64", 18, args{3: 6}, eperm},
		{"pwrite64", 18, args{3: 1 | high}, eperm},
		{"pwritev", 296, args{4: 5}, eperm},
		{"pwritev", 296, args{4: 6}, Allow},
		{"pwritev", 296, args{4: high}, Allow},
		{"sendfile", 40, args{5: 4}, eperm},
		{"sendfile", 40, args{5: 5}, Allow},
		{"sendfile", 40, args{5: high}, Allow},

		{"personality", 135, args{0: 0x5f | high, 1: 1}, Allow},
		{"personality", 135, args{0: 0x5f | high}, eperm},
		{"personality", 135, args{0: 0x4f, 1: 1}, eperm},
		{"personality", 135, args{0: 8}, Allow},
	}
	for _, tree := range []bool{false, true} {
		profile.Tree = tree
		vm := newVM(t, mustCompile(t, profile, "amd64"))
		for _, tt := range tests {
			c := call{nr: tt.nr, audit: unix.AUDIT_ARCH_X86_64, args: tt.args}
			if got := run(t, vm, c); got != tt.want {
				t.Errorf("tree %t: %s (%#x): got %#x, want %#x", tree, tt.name, c.args, got, tt.want)
			}
		}
	}
}

// On x32 libseccomp compares low halves alone, though registers have 64 bits.
// The doc comment of Cond says so until this fails.
func TestCompileX32LowHalf(t *testing.T) {
	vm := newVM(t, mustCompile(t, Profile{Default: eperm, Rules: []Rule{
		{Action: Allow, Names: []string{"lseek"}, Conds: []Cond{{Arg: 1, Op: Equal, Value: 5}}},
	}}, "amd64"))
	c := call{nr: x32Bit | 8, audit: unix.AUDIT_ARCH_X86_64, args: [6]uint64{1: 1<<32 | 5}}
	if got := run(t, vm, c); got != Allow {
		t.Errorf("got %#x, want Allow", got)
	}
}

// A condition that is left out on x32 is there on all other ABIs.
func TestCompileNotX32(t *testing.T) {
	for _, tree := range []bool{false, true} {
		profile := Profile{Default: Allow, Tree: tree, Rules: []Rule{
			{Action: eperm, Names: []string{"ioctl"}, Conds: []Cond{
				{Arg: 0, Op: Equal, Value: 1},
				{Arg: 1, Op: Equal, Value: 5, NotX32: true},
			}},
			{Action: Log, Names: []string{"prlimit64"}, Conds: []Cond{{Arg: 2, Op: NotEqual, NotX32: true}}},
		}}
		for name, a := range abis {
			vm := newVM(t, mustCompile(t, profile, a.goarch))
			check := func(nr uint32, args [6]uint64, want, wantX32 Action) {
				t.Helper()
				if name == "x32" {
					want = wantX32
				}
				if got := run(t, vm, call{nr: nr, audit: a.audit, args: args}); got != want {
					t.Errorf("tree %t: %s %#x (%#x): got %#x, want %#x", tree, name, nr, args, got, want)
				}
			}
			check(a.ioctl, [6]uint64{1, 5}, eperm, eperm)
			check(a.ioctl, [6]uint64{1, 6}, Allow, eperm)
			check(a.ioctl, [6]uint64{2, 5}, Allow, Allow)
			check(a.prlimit, [6]uint64{2: 1}, Log, Log)
			check(a.prlimit, [6]uint64{}, Allow, Log)
		}
	}
}

// Numbers work on every ABI, and on no other.
func TestCompileNumbers(t *testing.T) {
	for _, newest := range []uint32{0, newest} {
		profile := Profile{Default: eperm, Newest: newest, Rules: []Rule{{Action: Allow, Numbers: []uint32{mseal}}}}
		for name, a := range abis {
			vm := newVM(t, mustCompile(t, profile, a.goarch))
			for nr, want := range map[uint32]Action{mseal - 1: eperm, mseal: Allow, mseal + 1: eperm} {
				if got := run(t, vm, call{nr: a.bit | nr, audit: a.audit}); got != want {
					t.Errorf("%s %d: got %#x, want %#x", name, nr, got, want)
				}
			}
			for _, audit := range foreign {
				if got := run(t, vm, call{nr: mseal, audit: audit}); got != KillProcess {
					t.Errorf("ABI %#x in the filter for %s: got %#x, want a kill", audit, a.goarch, got)
				}
			}
		}
	}
}

// Without Newest no call is too new.
func TestCompileNoNewest(t *testing.T) {
	vm := newVM(t, mustCompile(t, Profile{Default: Allow}, "arm64"))
	if got := run(t, vm, call{nr: 1 << 30, audit: unix.AUDIT_ARCH_AARCH64}); got != Allow {
		t.Errorf("got %#x, want Allow", got)
	}
}

func TestCompileErrors(t *testing.T) {
	ioctl := func(a Action, conds ...Cond) Rule {
		return Rule{Action: a, Names: []string{"ioctl"}, Conds: conds}
	}
	numbers := func(conds []Cond, nrs ...uint32) Rule {
		return Rule{Action: Log, Numbers: nrs, Conds: conds}
	}
	request := Cond{Arg: 1, Op: Equal, Value: unix.TIOCSTI}
	var many []Rule // as no kernel takes
	for i := range uint64(unix.BPF_MAXINSNS) {
		many = append(many, ioctl(Log, Cond{Arg: 1, Op: Equal, Value: i}))
	}
	tests := []struct {
		rules []Rule
		want  string
	}{
		{[]Rule{{Action: Log, Names: []string{"no_such_call"}}}, "rule 0: no_such_call: "},
		{[]Rule{{Action: 1 << 20, Names: []string{"read"}}}, "rule 0: unknown action 0x100000"},
		{[]Rule{ioctl(eperm)}, "rule 0: ioctl: requested action matches default"},
		{[]Rule{ioctl(Log, Cond{Arg: 6, Op: Equal})}, "rule 0: "},
		{[]Rule{ioctl(Log, Cond{})}, "rule 0: "},
		{[]Rule{ioctl(Log, Cond{Op: MaskedEqual, Mask: 0xff, Value: 0x100})}, "rule 0: value 0x100 has bits outside the mask 0xff"},
		{[]Rule{ioctl(Log), ioctl(Allow, request)}, "rule 1: ioctl: rule 0 gives it another action"},
		{[]Rule{ioctl(Allow, request), ioctl(Log)}, "rule 1: ioctl: rule 0 gives it another action"},
		{[]Rule{ioctl(Allow, request), ioctl(Log, request)}, "rule 1: ioctl: "},
		{
			[]Rule{ioctl(Allow, request), ioctl(Log, Cond{Arg: 1, Op: Equal, NotX32: true})},
			"rule 1: ioctl: rule 0 gives it another action",
		},
		{[]Rule{numbers([]Cond{request}, mseal)}, "rule 0: call 462: conditions need a name"},
		{[]Rule{numbers(nil, 423)}, "rule 0: call 423: not the same call on every ABI"},
		{[]Rule{numbers(nil, x32First)}, "rule 0: call 512: not the same call on every ABI"},
		{[]Rule{numbers(nil, newest+1)}, "rule 0: call 472 is newer than the newest, 471"},
		{[]Rule{numbers(nil, mseal), numbers(nil, mseal)}, "rule 1: call 462 has a rule already"},
		{many, "instructions; the kernel takes 4096"},
	}
	for _, tt := range tests {
		_, err := Compile(Profile{Default: eperm, Newest: newest, Rules: tt.rules}, "amd64")
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("got %v, want …%s…", err, tt.want)
		}
	}

	for want, p := range map[string]Profile{
		"unknown action 0x1":                        {Default: 1 << 20},
		"newest call 512: the numbers from 512 are": {Default: Allow, Newest: x32First},
	} {
		if _, err := Compile(p, "arm64"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want …%s…", err, want)
		}
	}
	if _, err := Compile(Baseline(), "riscv64"); err == nil {
		t.Error("compiled for an unknown architecture")
	}
}
