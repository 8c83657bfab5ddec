package seccomp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	libseccomp "github.com/seccomp/libseccomp-golang"
	"golang.org/x/sys/unix"
)

// An arch is the ABIs that a kernel of one GOARCH offers to a process. A filter
// must judge all of them: a process chooses its ABI anew at each call.
type arch struct {
	lib    []libseccomp.ScmpArch // all but x32
	x32    []libseccomp.ScmpArch // x32, where there is one; it may have other conditions
	audit  []uint32              // the same as a filter sees them; x32 has the name of amd64
	tooNew func(newest uint32) []unix.SockFilter
	nrMask uint32 // the bits of a call's number that do not tell the ABI
}

// archOf returns what a filter for a GOARCH judges. A function and no table, as
// ops: a program that links this package pays for tables at each start.
func archOf(goarch string, abis []string) (arch, error) {
	wanted := func(abi string) bool { return len(abis) == 0 || slices.Contains(abis, abi) }
	switch goarch {
	case "amd64":
		a := arch{
			lib:    []libseccomp.ScmpArch{libseccomp.ArchAMD64},
			audit:  []uint32{unix.AUDIT_ARCH_X86_64},
			tooNew: tooNewAMD64,
			nrMask: ^uint32(0),
		}
		if wanted("i386") {
			a.lib = append(a.lib, libseccomp.ArchX86)
			a.audit = append(a.audit, unix.AUDIT_ARCH_I386)
		}
		if wanted("x32") {
			a.x32 = []libseccomp.ScmpArch{libseccomp.ArchX32}
			a.nrMask = ^uint32(x32Bit)
		}
		return a, nil
	case "arm64":
		return arch{
			lib:    []libseccomp.ScmpArch{libseccomp.ArchARM64},
			audit:  []uint32{unix.AUDIT_ARCH_AARCH64},
			tooNew: tooNewARM64,
			nrMask: ^uint32(0),
		}, nil
	}
	return arch{}, errors.New("unknown architecture")
}

// LibraryVersion returns the version of the libseccomp that Compile uses.
func LibraryVersion() string {
	major, minor, micro := libseccomp.GetLibraryVersion()
	return fmt.Sprintf("%d.%d.%d", major, minor, micro)
}

// Compile returns the filter for a profile and a GOARCH, "amd64" or "arm64",
// which need not be the one that we run on. The filter for amd64 also judges
// i386 and x32 calls.
//
// A process that makes a call of any other ABI, such as 32-bit ARM on arm64, is
// killed. ENOSYS would be as safe, but a program all of whose calls fail can't
// even exit, and nothing would say why.
//
// It is an error if libseccomp knows a name on no architecture, if a rule has
// the default action or can never match, or if two rules contradict each other.
func Compile(p Profile, goarch string) ([]unix.SockFilter, error) {
	filter, err := compile(p, goarch)
	if err != nil {
		return nil, fmt.Errorf("compile seccomp profile for %s: %w", goarch, err)
	}
	return filter, nil
}

func compile(p Profile, goarch string) ([]unix.SockFilter, error) {
	a, err := archOf(goarch, p.ABIs)
	if err != nil {
		return nil, err
	}
	filter, err := header(p, a)
	if err != nil {
		return nil, err
	}
	rules, err := compileRules(p, a)
	if err != nil {
		return nil, err
	}
	filter = append(filter, rules...)
	if len(filter) > unix.BPF_MAXINSNS {
		return nil, fmt.Errorf("%d instructions; the kernel takes %d", len(filter), unix.BPF_MAXINSNS)
	}
	return filter, nil
}

// compileRules does what libseccomp can do.
func compileRules(p Profile, a arch) ([]unix.SockFilter, error) {
	f, err := newFilter(p, a.lib, p.Rules)
	if err != nil {
		return nil, err
	}
	defer f.Release()
	if len(a.x32) != 0 {
		x32, err := newFilter(p, a.x32, rulesX32(p.Rules))
		if err != nil {
			return nil, err
		}
		defer x32.Release() // does nothing after the merge
		if err := f.Merge(x32); err != nil {
			return nil, err
		}
	}
	return export(f)
}

// rulesX32 returns the rules without the conditions that x32 can't have.
func rulesX32(rules []Rule) []Rule {
	rules = slices.Clone(rules)
	for i, r := range rules {
		rules[i].Conds = slices.DeleteFunc(slices.Clone(r.Conds), func(c Cond) bool { return c.NotX32 })
	}
	return rules
}

func newFilter(p Profile, lib []libseccomp.ScmpArch, rules []Rule) (*libseccomp.ScmpFilter, error) {
	def, err := p.Default.lib()
	if err != nil {
		return nil, err
	}
	f, err := libseccomp.NewFilter(def)
	if err != nil {
		return nil, err
	}
	if err := fill(f, p, lib, rules); err != nil {
		f.Release()
		return nil, err
	}
	return f, nil
}

func fill(f *libseccomp.ScmpFilter, p Profile, lib []libseccomp.ScmpArch, rules []Rule) error {
	if err := setArches(f, lib); err != nil {
		return err
	}
	if err := f.SetBadArchAction(libseccomp.ActKillProcess); err != nil {
		return err
	}
	if p.Tree {
		if err := f.SetOptimize(2); err != nil {
			return err
		}
	}
	earlier := map[string][]int{} // the rules for a call
	for i, r := range rules {
		for _, name := range r.Names {
			if err := checkRule(name, r, rules, earlier[name]); err != nil {
				return fmt.Errorf("rule %d: %w", i, err)
			}
			earlier[name] = append(earlier[name], i)
		}
		if err := addRule(f, r); err != nil {
			return fmt.Errorf("rule %d: %w", i, err)
		}
	}
	return nil
}

// setArches makes f a filter for these. It was one for where we run.
func setArches(f *libseccomp.ScmpFilter, lib []libseccomp.ScmpArch) error {
	for _, a := range lib {
		if err := f.AddArch(a); err != nil {
			return err
		}
	}
	native, err := libseccomp.GetNativeArch()
	if err != nil || slices.Contains(lib, native) {
		return err
	}
	return f.RemoveArch(native)
}

// checkRule refuses what libseccomp takes without a word: beside a rule without
// conditions it drops every other rule for that call.
func checkRule(name string, r Rule, rules []Rule, earlier []int) error {
	for _, i := range earlier {
		if e := rules[i]; e.Action != r.Action && (len(e.Conds) == 0 || len(r.Conds) == 0) {
			return fmt.Errorf("%s: rule %d gives it another action", name, i)
		}
	}
	return nil
}

func addRule(f *libseccomp.ScmpFilter, r Rule) error {
	action, err := r.Action.lib()
	if err != nil {
		return err
	}
	var conds []libseccomp.ScmpCondition
	for _, c := range r.Conds {
		cond, err := c.lib()
		if err != nil {
			return err
		}
		conds = append(conds, cond)
	}
	for _, name := range r.Names {
		call, err := libseccomp.GetSyscallFromName(name)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if err := f.AddRuleConditional(call, action, conds); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

func (a Action) lib() (libseccomp.ScmpAction, error) {
	data := int16(a & unix.SECCOMP_RET_DATA)
	switch a &^ unix.SECCOMP_RET_DATA {
	case KillProcess:
		return libseccomp.ActKillProcess, nil
	case KillThread:
		return libseccomp.ActKillThread, nil
	case Trap:
		return libseccomp.ActTrap, nil
	case unix.SECCOMP_RET_ERRNO:
		return libseccomp.ActErrno.SetReturnCode(data), nil
	case Notify:
		return libseccomp.ActNotify, nil
	case unix.SECCOMP_RET_TRACE:
		return libseccomp.ActTrace.SetReturnCode(data), nil
	case Log:
		return libseccomp.ActLog, nil
	case Allow:
		return libseccomp.ActAllow, nil
	}
	return 0, fmt.Errorf("unknown action %#x", uint32(a))
}

func (o Op) lib() libseccomp.ScmpCompareOp {
	switch o {
	case Equal:
		return libseccomp.CompareEqual
	case NotEqual:
		return libseccomp.CompareNotEqual
	case Less:
		return libseccomp.CompareLess
	case LessEqual:
		return libseccomp.CompareLessOrEqual
	case Greater:
		return libseccomp.CompareGreater
	case GreaterEqual:
		return libseccomp.CompareGreaterEqual
	case MaskedEqual:
		return libseccomp.CompareMaskedEqual
	}
	return libseccomp.CompareInvalid // which libseccomp refuses
}

func (c Cond) lib() (libseccomp.ScmpCondition, error) {
	if c.Op != MaskedEqual {
		return libseccomp.MakeCondition(c.Arg, c.Op.lib(), c.Value)
	}
	if c.Value&^c.Mask != 0 {
		return libseccomp.ScmpCondition{}, fmt.Errorf("value %#x has bits outside the mask %#x", c.Value, c.Mask)
	}
	return libseccomp.MakeCondition(c.Arg, c.Op.lib(), c.Mask, c.Value)
}

// export reads the program through a pipe, because libseccomp before 2.6
// writes it to a file descriptor only. A pipe may hold less than a program.
func export(f *libseccomp.ScmpFilter) ([]unix.SockFilter, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	exported := make(chan error, 1)
	go func() {
		exported <- f.ExportBPF(w)
		w.Close()
	}()
	program, err := io.ReadAll(r)
	if err := errors.Join(err, <-exported); err != nil {
		return nil, err
	}
	filter := make([]unix.SockFilter, len(program)/unix.SizeofSockFilter)
	_, err = binary.Decode(program, binary.NativeEndian, filter)
	return filter, err
}

// Bytes lays a filter out as the kernel of a little-endian machine reads it,
// struct sock_filter by struct sock_filter.
func Bytes(filter []unix.SockFilter) []byte {
	b, err := binary.Append(nil, binary.LittleEndian, filter)
	if err != nil {
		panic(err) // the type has a fixed size
	}
	return b
}
