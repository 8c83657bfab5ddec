package seccomp

import (
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

var (
	eperm  = Errno(unix.EPERM)
	enosys = Errno(unix.ENOSYS)
)

// foreign are ABIs that no filter of ours knows.
var foreign = []uint32{0, unix.AUDIT_ARCH_ARM, unix.AUDIT_ARCH_RISCV64, unix.AUDIT_ARCH_S390X, 0xffffffff}

// ioctls are the two refused requests and what the kernel takes for them,
// because it drops the high half (CVE-2019-10063).
var ioctls = []struct {
	request uint64
	want    Action
}{
	{unix.TIOCSTI, eperm},
	{unix.TIOCSTI | 1<<32, eperm},
	{unix.TIOCSTI | 0xffffffff<<32, eperm},
	{unix.TIOCLINUX, eperm},
	{unix.TIOCLINUX | 1<<63, eperm},
	{0, Allow},
	{unix.TCGETS, Allow},
	{unix.TIOCSTI - 1, Allow},
	{unix.TIOCSTI + 1, Allow},
	{unix.TIOCSTI | 1<<31, Allow},
	{unix.TIOCSTI | unix.TIOCLINUX<<16, Allow},
	{unix.TIOCSTI << 32, Allow},
	{unix.TIOCLINUX << 32, Allow},
}

// prlimits are arguments of prlimit64 and what they get: on amd64 and arm64, on
// i386, where no argument has a high half, and on x32, where all that names
// another process is refused.
var prlimits = []struct {
	pid, limits             uint64
	want, wantI386, wantX32 Action
}{
	{0, 0, Allow, Allow, Allow},
	{0, 0x1000, Allow, Allow, Allow},
	{0, 1 << 32, Allow, Allow, Allow},
	{1, 0, Allow, Allow, eperm},
	{1, 1, eperm, eperm, eperm},
	{1, 0x7fff_1234_5678, eperm, eperm, eperm},
	{1, 0xffffffff, eperm, eperm, eperm},
	{1 << 31, 0x1000, eperm, eperm, eperm},
	{0xffffffff, 0x1000, eperm, eperm, eperm},

	// The kernel reads 32 bits of the pid.
	{1<<32 | 1, 0x1000, eperm, eperm, eperm},
	{1<<63 | 1, 1 << 63, eperm, Allow, eperm},
	{1<<32 | 1, 0, Allow, Allow, eperm},
	{1 << 32, 0, Allow, Allow, Allow},
	{1 << 32, 0x1000, eperm, Allow, Allow},

	// The kernel reads 64 bits of the pointer, on x32 too.
	{1, 1 << 32, eperm, Allow, eperm},
	{1, 0xffffffff << 32, eperm, Allow, eperm},
}

func TestBaselineTable(t *testing.T) {
	for name, a := range abis {
		t.Run(name, func(t *testing.T) {
			vm := newVM(t, mustCompile(t, Baseline(), a.goarch))
			check := func(what string, c call, want Action) {
				t.Helper()
				c.audit = a.audit
				if got := run(t, vm, c); got != want {
					t.Errorf("%s (%#x %#x): got %#x, want %#x", what, c.nr, c.args, got, want)
				}
			}
			for what, nr := range a.refuse {
				check(what, call{nr: nr}, eperm)
			}
			for what, nr := range a.allow {
				check(what, call{nr: nr}, Allow)
			}
			for nr := uint32(newest + 1); nr <= 1023; nr++ {
				if a.bit == x32Bit && x32First <= nr && nr <= x32Last {
					continue
				}
				check("unknown", call{nr: a.bit | nr}, enosys)
			}
			for _, nr := range []uint32{1 << 16, 0x3fffffff, 1<<31 | a.allow["read"], 0xc0000000, 0xffffffff} {
				check("huge", call{nr: a.bit | nr}, enosys)
			}
			for _, i := range ioctls {
				check("ioctl", call{nr: a.ioctl, args: [6]uint64{3, i.request, i.request}}, i.want)
			}
			// The request is the second argument and no other.
			check("ioctl", call{nr: a.ioctl, args: [6]uint64{unix.TIOCSTI, 0, unix.TIOCSTI}}, Allow)

			for _, p := range prlimits {
				want := map[string]Action{"amd64": p.want, "arm64": p.want, "i386": p.wantI386, "x32": p.wantX32}[name]
				for _, other := range []uint64{0, 7, ^uint64(0)} {
					args := [6]uint64{p.pid, other, p.limits, other, other, other}
					check("prlimit64", call{nr: a.prlimit, args: args}, want)
				}
			}
		})
	}
}

// An i386 or arm64 number with the bit of x32 is no call.
func TestBaselineX32BitElsewhere(t *testing.T) {
	for _, name := range []string{"i386", "arm64"} {
		a := abis[name]
		vm := newVM(t, mustCompile(t, Baseline(), a.goarch))
		for _, nr := range []uint32{0, a.ioctl, a.refuse["keyctl"], newest, x32First, x32Last} {
			if got := run(t, vm, call{nr: x32Bit | nr, audit: a.audit}); got != enosys {
				t.Errorf("%s %#x: got %#x, want ENOSYS", name, x32Bit|nr, got)
			}
		}
	}
}

func TestBaselineKillsForeignABIs(t *testing.T) {
	for _, goarch := range []string{"amd64", "arm64"} {
		vm := newVM(t, mustCompile(t, Baseline(), goarch))
		for _, audit := range foreign {
			for _, nr := range []uint32{0, 1, 219, 250, newest, newest + 1, x32Bit, 0xffffffff} {
				if got := run(t, vm, call{nr: nr, audit: audit}); got != KillProcess {
					t.Errorf("%s: ABI %#x, call %#x: got %#x, want a kill", goarch, audit, nr, got)
				}
			}
		}
	}
}

// model is the baseline in plain Go.
func model(goarch string, c call) Action {
	name := abiOf(goarch, c)
	a, ok := abis[name]
	if !ok {
		return KillProcess
	}
	nr := c.nr &^ a.bit
	request := uint32(c.args[1])
	switch {
	case nr > newest && (a.bit == 0 || nr < x32First || nr > x32Last):
		return enosys
	case slices.Contains(slices.Collect(maps.Values(a.refuse)), c.nr):
		return eperm
	case c.nr == a.ioctl && (request == unix.TIOCSTI || request == unix.TIOCLINUX):
		return eperm
	case c.nr == a.prlimit && modelPrlimit(name, c.args[0], c.args[2]):
		return eperm
	}
	return Allow
}

// modelPrlimit reports whether prlimit64 is refused.
func modelPrlimit(name string, pid, limits uint64) bool {
	switch name {
	case "x32":
		return uint32(pid) != 0
	case "i386":
		return uint32(pid) != 0 && uint32(limits) != 0
	}
	return pid != 0 && limits != 0
}

// abiOf returns the name of the ABI that a kernel takes the call for, or "".
func abiOf(goarch string, c call) string {
	switch {
	case goarch == "arm64" && c.audit == unix.AUDIT_ARCH_AARCH64:
		return "arm64"
	case goarch == "amd64" && c.audit == unix.AUDIT_ARCH_I386:
		return "i386"
	case goarch == "amd64" && c.audit == unix.AUDIT_ARCH_X86_64 && c.nr&x32Bit != 0:
		return "x32"
	case goarch == "amd64" && c.audit == unix.AUDIT_ARCH_X86_64:
		return "amd64"
	}
	return ""
}

// cases are all numbers that have ever been near a call, by every ABI.
func cases() []call {
	var all []call
	audits := append([]uint32{unix.AUDIT_ARCH_X86_64, unix.AUDIT_ARCH_I386, unix.AUDIT_ARCH_AARCH64}, foreign...)
	for _, audit := range audits {
		for nr := range uint32(1024) {
			for _, bits := range []uint32{0, x32Bit, 1 << 31} {
				all = append(all, call{nr: bits | nr, audit: audit})
			}
		}
		for _, a := range abis {
			for _, i := range ioctls {
				all = append(all, call{nr: a.ioctl, audit: audit, args: [6]uint64{0, i.request}})
			}
			for _, p := range prlimits {
				all = append(all, call{nr: a.prlimit, audit: audit, args: [6]uint64{p.pid, 0, p.limits}})
			}
		}
	}
	return all
}

func TestBaselineEveryNumber(t *testing.T) {
	for _, goarch := range []string{"amd64", "arm64"} {
		vm := newVM(t, mustCompile(t, Baseline(), goarch))
		for _, c := range cases() {
			if got, want := run(t, vm, c), model(goarch, c); got != want {
				t.Errorf("%s: call %#x of ABI %#x with %#x: got %#x, want %#x", goarch, c.nr, c.audit, c.args, got, want)
			}
		}
	}
}

func TestBaselineRandomCalls(t *testing.T) {
	for _, goarch := range []string{"amd64", "arm64"} {
		vm := newVM(t, mustCompile(t, Baseline(), goarch))
		var numbers []uint32 // those that have a rule
		for _, a := range abis {
			numbers = append(numbers, a.ioctl, a.prlimit)
			numbers = slices.AppendSeq(numbers, maps.Values(a.refuse))
		}
		slices.Sort(numbers)
		rapid.Check(t, func(t *rapid.T) {
			c := call{
				nr: rapid.OneOf(rapid.SampledFrom(numbers), rapid.Uint32Max(1023), rapid.Uint32()).Draw(t, "nr"),
				audit: rapid.OneOf(
					rapid.SampledFrom([]uint32{unix.AUDIT_ARCH_X86_64, unix.AUDIT_ARCH_I386, unix.AUDIT_ARCH_AARCH64}),
					rapid.Uint32(),
				).Draw(t, "audit"),
			}
			if rapid.Bool().Draw(t, "x32") {
				c.nr |= x32Bit
			}
			for i := range c.args {
				low := rapid.OneOf(rapid.SampledFrom([]uint32{0, unix.TIOCSTI, unix.TIOCLINUX}), rapid.Uint32()).Draw(t, "low")
				high := rapid.OneOf(rapid.Just(uint32(0)), rapid.Uint32()).Draw(t, "high")
				c.args[i] = uint64(high)<<32 | uint64(low)
			}
			got, err := vm.Run(c.packet())
			if err != nil {
				t.Fatal(err)
			}
			if want := model(goarch, c); Action(got) != want {
				t.Errorf("got %#x, want %#x", got, want)
			}
		})
	}
}

// No instruction of the filter is there for nothing: for each one, and for each
// way out of each jump, some case gets another verdict if it ends in a trap.
func TestBaselineCoverage(t *testing.T) {
	all := cases()
	packets := make([][]byte, len(all))
	for i, c := range all {
		packets[i] = c.packet()
	}
	for _, goarch := range []string{"amd64", "arm64"} {
		filter := mustCompile(t, Baseline(), goarch)
		trapped := func(i int, in unix.SockFilter) bool {
			mutant := append(slices.Clone(filter), ret(Trap))
			mutant[i] = in
			vm := newVM(t, mutant)
			return slices.ContainsFunc(packets, func(p []byte) bool {
				got, err := vm.Run(p)
				return err == nil && Action(got) == Trap
			})
		}
		for i, in := range filter {
			if !trapped(i, ret(Trap)) {
				t.Errorf("%s: no case reaches instruction %d", goarch, i)
			}
			if in.Code&0x07 != unix.BPF_JMP {
				continue
			}
			toTrap := uint8(len(filter) - i - 1)
			yes, no := in, in
			yes.Jt, no.Jf = toTrap, toTrap
			if !trapped(i, yes) {
				t.Errorf("%s: no case makes the comparison %d true", goarch, i)
			}
			// libseccomp compares the half of a request that the mask drops:
			// A &= 0, then A == 0. No call makes that false.
			if filter[i-1] != and(0) && !trapped(i, no) {
				t.Errorf("%s: no case makes the comparison %d false", goarch, i)
			}
		}
	}
}

// The highest call of golang.org/x/sys is the newest that we know.
func TestNewest(t *testing.T) {
	out, err := exec.Command("go", "list", "-f", "{{.Dir}}", "golang.org/x/sys/unix").Output()
	if err != nil {
		t.Skipf("host lacks: the source of golang.org/x/sys: %v", err)
	}
	for _, goarch := range []string{"amd64", "386", "arm64"} {
		source, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(out)), "zsysnum_linux_"+goarch+".go"))
		if err != nil {
			t.Fatal(err)
		}
		highest := 0
		for _, m := range regexp.MustCompile(`(?m)^\tSYS_\w+ += (\d+)$`).FindAllSubmatch(source, -1) {
			nr, err := strconv.Atoi(string(m[1]))
			if err != nil {
				t.Fatal(err)
			}
			highest = max(highest, nr)
		}
		if highest != newest {
			t.Errorf("%s: x/sys knows calls up to %d, the baseline up to %d", goarch, highest, newest)
		}
	}
}
