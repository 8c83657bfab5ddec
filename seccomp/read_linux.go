package seccomp

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"

	moby "github.com/moby/profiles/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"
	libseccomp "github.com/seccomp/libseccomp-golang"
	"golang.org/x/sys/unix"

	"github.com/jailrun/jail/internal/syscalls"
)

// The largest profile that Read takes, in bytes. Docker's has 18 KB.
const maxProfile = 256 << 10

// A Target is what a profile in Docker's form is resolved for: it may include
// and exclude rules by these.
type Target struct {
	GOARCH       string   // "amd64" or "arm64"
	Kernel       [2]int   // major and minor version; calls of a newer one are ENOSYS anyway
	Capabilities []string // that the payload may have: "CAP_NET_ADMIN"
}

// ThisHost is the Target for a payload on this host.
func ThisHost(capabilities []string) (Target, error) {
	t := Target{GOARCH: runtime.GOARCH, Capabilities: capabilities}
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return Target{}, fmt.Errorf("uname: %w", err)
	}
	release := unix.ByteSliceToString(name.Release[:])
	if _, err := fmt.Sscanf(release, "%d.%d", &t.Kernel[0], &t.Kernel[1]); err != nil {
		return Target{}, fmt.Errorf("kernel version %q: %w", release, err)
	}
	return t, nil
}

// Read reads a profile in the form of the OCI runtime specification
// (linux.seccomp of a config.json) or in Docker's, which is the same with
// conditions on rules.
//
// What this package or its loader can't do is an error, as is every key,
// action, flag and operator that it does not know. A name that no call is known
// by is misspelt, or newer than this package: in a rule that is stricter than the
// default it is an error with an *UnknownCallError, in others it is left out and
// returned in unknown, as by container runtimes.
//
// Calls are ENOSYS if they are newer than every call that the profile names,
// unless the default action lets calls through. Calls older than Linux 5.1 are
// new to nobody.
func Read(r io.Reader, t Target) (p Profile, unknown []string, err error) {
	text, err := io.ReadAll(io.LimitReader(r, maxProfile+1))
	if err != nil {
		return Profile{}, nil, err
	}
	if len(text) > maxProfile {
		return Profile{}, nil, fmt.Errorf("larger than %d bytes", maxProfile)
	}
	config, err := parse(text)
	if err != nil {
		return Profile{}, nil, err
	}
	p, unknown, err = convert(config, t)
	var name *UnknownCallError
	if errors.As(err, &name) {
		if i := bytes.Index(text, []byte(`"`+name.Name+`"`)); i >= 0 {
			err = fmt.Errorf("line %s: %w", place(text, int64(i)+1), err)
		}
	}
	return p, unknown, err
}

// Default returns the allow-list that is embedded: Docker's default profile for a payload without capabilities, on
// Linux 5.14 or newer, and stricter where that one lets through what no program in a jail needs:
//
//   - Sockets are those of Unix, IPv4 and IPv6, and of netlink those of the family NETLINK_ROUTE, by which C libraries
//     list interfaces. Docker's names what it refuses, so it lets other families through, and a socket is enough to
//     load a kernel module (AF_RXRPC: CVE-2026-43500; AF_CAN, AF_TIPC, AF_XDP, AF_PACKET: a long list).
//   - Calls are those of the GOARCH. On amd64 one by i386 or x32 is a kill: on i386 all families of sockets can be had
//     through socketcall(2), whose arguments no filter sees.
//
// It is loaded beside the [Baseline]: that one also looks at ioctl(2) and prlimit(2), which this one lets through.
func Default(goarch string) (Profile, error) {
	p, unknown, err := convert(moby.DefaultProfile(), Target{GOARCH: goarch, Kernel: [2]int{5, 14}})
	if err == nil && len(unknown) > 0 {
		err = fmt.Errorf("calls of Docker's default profile are not known: %v", unknown)
	}
	p.ABIs = []string{goarch}
	for i, r := range p.Rules {
		p.Rules[i].Names = slices.DeleteFunc(r.Names, func(name string) bool {
			return name == "socket" || name == "socketpair" || name == "socketcall"
		})
	}
	p.Rules = slices.DeleteFunc(p.Rules, func(r Rule) bool { return len(r.Names)+len(r.Numbers) == 0 })
	family := func(f uint64) Cond { return Cond{Arg: 0, Op: Equal, Value: f} }
	p.Rules = append(p.Rules,
		Rule{Action: Allow, Names: []string{"socket", "socketpair"}, Conds: []Cond{family(unix.AF_UNIX)}},
		Rule{Action: Allow, Names: []string{"socket"}, Conds: []Cond{family(unix.AF_INET)}},
		Rule{Action: Allow, Names: []string{"socket"}, Conds: []Cond{family(unix.AF_INET6)}},
		Rule{Action: Allow, Names: []string{"socket"}, Conds: []Cond{
			family(unix.AF_NETLINK),
			{Arg: 2, Op: Equal, Value: unix.NETLINK_ROUTE},
		}})
	p.Tree = true
	return p, err
}

// parse reads both forms: Docker's has all keys of the other.
func parse(text []byte) (*moby.Seccomp, error) {
	config := &moby.Seccomp{}
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	err := d.Decode(config)
	if err == nil {
		if _, more := d.Token(); !errors.Is(more, io.EOF) {
			return nil, fmt.Errorf("line %s: something stands behind the profile", place(text, d.InputOffset()))
		}
		return config, nil
	}
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	switch {
	case errors.Is(err, io.EOF):
		return nil, errors.New("empty")
	case errors.Is(err, io.ErrUnexpectedEOF):
		return nil, errors.New("ends too early")
	case errors.As(err, &syntax):
		return nil, fmt.Errorf("line %s: %w", place(text, syntax.Offset), err)
	case errors.As(err, &kind) && kind.Field == "":
		return nil, fmt.Errorf("no JSON object, but %s", kind.Value)
	case errors.As(err, &kind):
		field := strings.NewReplacer("LinuxSeccomp.", "", "LinuxSyscall.", "").Replace(kind.Field) // embedded types
		return nil, fmt.Errorf("line %s: %s can't be %s", place(text, kind.Offset), field, kind.Value)
	}
	return nil, errors.New(strings.TrimPrefix(err.Error(), "json: "))
}

// place is a line and a column, both from 1 on; offset is behind what it is about.
func place(text []byte, offset int64) string {
	before := text[:min(max(offset-1, 0), int64(len(text)))]
	line := bytes.LastIndexByte(before, '\n')
	return fmt.Sprintf("%d, column %d", bytes.Count(before, []byte("\n"))+1, len(before)-line)
}

// convert resolves the conditions on rules, and makes them ours.
func convert(config *moby.Seccomp, t Target) (p Profile, unknown []string, err error) {
	for _, flag := range config.Flags {
		switch flag {
		case "SECCOMP_FILTER_FLAG_TSYNC": // the payload has one thread when it loads the filter
		case specs.LinuxSeccompFlagLog:
			p.Log = true
		case specs.LinuxSeccompFlagSpecAllow:
			return Profile{}, nil, fmt.Errorf("flag %q can't be given: the level's filter is loaded without it, and what the kernel then switches on stays on", flag)
		case specs.LinuxSeccompFlagWaitKillableRecv:
			return Profile{}, nil, fmt.Errorf("flag %q can't be given: it is about calls that are handed to another process, and none are", flag)
		default:
			return Profile{}, nil, fmt.Errorf("unknown flag %q", flag)
		}
	}
	if config.ListenerPath != "" || config.ListenerMetadata != "" {
		return Profile{}, nil, errors.New("listenerPath can't be given: no calls are handed to another process")
	}
	if p.ABIs, err = abisOf(config, t.GOARCH); err != nil {
		return Profile{}, nil, err
	}
	if p.Default, err = actionOf(config.DefaultAction, config.DefaultErrnoRet); err != nil {
		return Profile{}, nil, fmt.Errorf("defaultAction: %w", err)
	}
	newest := uint32(firstShared - 1)
	for i, s := range config.Syscalls {
		r, left, err := rule(s, &newest)
		if err != nil {
			return Profile{}, nil, fmt.Errorf("syscalls[%d]: %w", i, err)
		}
		if !included(s, t) {
			continue
		}
		if len(left) > 0 && stricter(r.Action, p.Default) { // what it is to refuse would be let through
			return Profile{}, nil, fmt.Errorf("syscalls[%d]: %w", i, &UnknownCallError{left[0]})
		}
		unknown = append(unknown, left...)
		if len(r.Names)+len(r.Numbers) > 0 {
			p.Rules = append(p.Rules, r)
		}
	}
	if !p.Default.passes() {
		p.Newest = newest
	}
	if p.Rules, err = withoutDefault(p); err != nil {
		return Profile{}, nil, err
	}
	slices.Sort(unknown)
	return p, slices.Compact(unknown), nil
}

// abisOf returns the ABIs that a profile names, of those that this GOARCH has.
// 32-bit ARM on arm64 is none of ours: such calls stay a kill.
func abisOf(config *moby.Seccomp, goarch string) ([]string, error) {
	if len(config.Architectures) != 0 && len(config.ArchMap) != 0 {
		return nil, errors.New("both architectures and archMap are given")
	}
	native := map[string]specs.Arch{"amd64": specs.ArchX86_64, "arm64": specs.ArchAARCH64}[goarch]
	listed := slices.Clone(config.Architectures)
	for _, m := range config.ArchMap {
		if m.Arch == native {
			listed = append(listed, m.SubArches...)
		}
		if !known(m.Arch) {
			return nil, fmt.Errorf("archMap: unknown architecture %q", m.Arch)
		}
	}
	abis := []string{goarch}
	for _, a := range listed {
		switch {
		case !known(a):
			return nil, fmt.Errorf("unknown architecture %q", a)
		case goarch == "amd64" && a == specs.ArchX86:
			abis = append(abis, "i386")
		case goarch == "amd64" && a == specs.ArchX32:
			abis = append(abis, "x32")
		}
	}
	return abis, nil
}

func known(a specs.Arch) bool {
	return slices.Contains([]specs.Arch{
		specs.ArchX86, specs.ArchX86_64, specs.ArchX32, specs.ArchARM, specs.ArchAARCH64,
		specs.ArchMIPS, specs.ArchMIPS64, specs.ArchMIPS64N32, specs.ArchMIPSEL, specs.ArchMIPSEL64, specs.ArchMIPSEL64N32,
		specs.ArchPPC, specs.ArchPPC64, specs.ArchPPC64LE, specs.ArchS390, specs.ArchS390X, specs.ArchPARISC, specs.ArchPARISC64,
		specs.ArchRISCV64, specs.ArchLOONGARCH64, specs.ArchM68K, specs.ArchSH, specs.ArchSHEB,
	}, a)
}

// included reports whether the conditions on a rule hold.
func included(s *moby.Syscall, t Target) bool {
	newEnough := func(v *moby.KernelVersion) bool {
		return slices.Compare(t.Kernel[:], []int{int(v.Kernel), int(v.Major)}) >= 0
	}
	if in := s.Includes; in != nil {
		lacks := func(c string) bool { return !slices.Contains(t.Capabilities, c) }
		if len(in.Arches) > 0 && !slices.Contains(in.Arches, t.GOARCH) ||
			slices.ContainsFunc(in.Caps, lacks) ||
			in.MinKernel != nil && !newEnough(in.MinKernel) {
			return false
		}
	}
	if ex := s.Excludes; ex != nil {
		has := func(c string) bool { return slices.Contains(t.Capabilities, c) }
		if slices.Contains(ex.Arches, t.GOARCH) ||
			slices.ContainsFunc(ex.Caps, has) ||
			ex.MinKernel != nil && newEnough(ex.MinKernel) {
			return false
		}
	}
	return true
}

// rule converts one rule without a look at its conditions, and raises newest to
// the newest call that it names.
func rule(s *moby.Syscall, newest *uint32) (r Rule, unknown []string, err error) {
	if s == nil {
		return Rule{}, nil, errors.New("null")
	}
	names, name := s.Names, s.Name //nolint:staticcheck // old profiles have it
	if name != "" {
		if len(names) != 0 {
			return Rule{}, nil, errors.New("both name and names are given")
		}
		names = []string{name}
	}
	if len(names) == 0 {
		return Rule{}, nil, errors.New("no names")
	}
	if r.Action, err = actionOf(s.Action, s.ErrnoRet); err != nil {
		return Rule{}, nil, err
	}
	var compared uint // a bit for each argument
	for i, a := range s.Args {
		c, err := condOf(a)
		if err == nil && compared>>a.Index&1 == 1 {
			// The runtimes take such for alternatives, and so more would be let
			// through than seems to be written.
			err = fmt.Errorf("compares argument %d a second time; alternatives are rules of their own", a.Index)
		}
		if err != nil {
			return Rule{}, nil, fmt.Errorf("args[%d]: %w", i, err)
		}
		compared |= 1 << a.Index
		r.Conds = append(r.Conds, c)
	}
	for _, name := range names {
		nr, is := number(name)
		switch {
		case strings.ContainsRune(name, 0):
			return Rule{}, nil, fmt.Errorf("the name %q has a NUL byte", name)
		case is && *newest < nr:
			*newest = nr
		}
		_, err := libseccomp.GetSyscallFromName(name)
		switch {
		case err == nil:
			r.Names = append(r.Names, name)
		case is && len(r.Conds) != 0:
			return Rule{}, nil, fmt.Errorf("%s: this libseccomp, %s, can't put conditions on it", name, LibraryVersion())
		case is:
			r.Numbers = append(r.Numbers, nr)
		case name != "uretprobe" && name != "riscv_hwprobe":
			// The first is made by the kernel itself, which asks no filter; the
			// other is no call of ours.
			unknown = append(unknown, name)
		}
	}
	slices.Sort(r.Numbers)
	r.Numbers = slices.Compact(r.Numbers)
	return r, unknown, nil
}

// number is that of a call which has the same one on every ABI.
func number(name string) (uint32, bool) {
	c := syscalls.Find(name)
	if c == nil || c.NR[syscalls.AMD64] < firstShared || c.NR[syscalls.AMD64] >= x32First {
		return 0, false
	}
	return uint32(c.NR[syscalls.AMD64]), true
}

func actionOf(name specs.LinuxSeccompAction, value *uint) (Action, error) {
	data, most := uint(unix.EPERM), uint(0)
	switch name {
	case specs.ActErrno:
		most = 4095 // MAX_ERRNO
	case specs.ActTrace:
		most = unix.SECCOMP_RET_DATA
	}
	if value != nil {
		if data = *value; data > most {
			return 0, fmt.Errorf("action %q can't have the value %d", name, data)
		}
	}
	switch name {
	case specs.ActAllow:
		return Allow, nil
	case specs.ActErrno:
		return Errno(unix.Errno(data)), nil
	case specs.ActKill, specs.ActKillThread:
		return KillThread, nil
	case specs.ActKillProcess:
		return KillProcess, nil
	case specs.ActTrap:
		return Trap, nil
	case specs.ActLog:
		return Log, nil
	case specs.ActTrace:
		return Trace(uint16(data)), nil
	case specs.ActNotify:
		return 0, fmt.Errorf("action %q can't be given: no calls are handed to another process", name)
	}
	return 0, fmt.Errorf("unknown action %q", name)
}

func condOf(a specs.LinuxSeccompArg) (Cond, error) {
	if a.Index > 5 {
		return Cond{}, fmt.Errorf("a call has no argument %d; they are 0 to 5", a.Index)
	}
	c := Cond{Arg: a.Index, Value: a.Value}
	switch a.Op {
	case specs.OpNotEqual:
		c.Op = NotEqual
	case specs.OpLessThan:
		c.Op = Less
	case specs.OpLessEqual:
		c.Op = LessEqual
	case specs.OpEqualTo:
		c.Op = Equal
	case specs.OpGreaterEqual:
		c.Op = GreaterEqual
	case specs.OpGreaterThan:
		c.Op = Greater
	case specs.OpMaskedEqual:
		c.Op, c.Mask, c.Value = MaskedEqual, a.Value, a.ValueTwo
		return c, nil
	default:
		return Cond{}, fmt.Errorf("unknown operator %q", a.Op)
	}
	if a.ValueTwo != 0 {
		return Cond{}, fmt.Errorf("valueTwo goes with %s alone", specs.OpMaskedEqual)
	}
	return c, nil
}

// withoutDefault leaves out the rules that have the default action, which
// libseccomp does not take, and numbers that are named again. It must not be
// that another rule takes from a rule what it was written for.
func withoutDefault(p Profile) ([]Rule, error) {
	numbers := map[uint32]Action{}
	other := map[string]bool{} // calls that have a rule with another action than the default
	for _, r := range p.Rules {
		for _, nr := range r.Numbers {
			if a, ok := numbers[nr]; ok && a != r.Action {
				return nil, fmt.Errorf("call %d: two rules give it different actions", nr)
			}
			numbers[nr] = r.Action
		}
		for _, name := range r.Names {
			other[name] = other[name] || r.Action != p.Default
		}
	}
	var rest []Rule
	for _, r := range p.Rules {
		if r.Action == p.Default {
			for _, name := range r.Names {
				if other[name] {
					return nil, fmt.Errorf("%s: one rule gives it the default action, another one another", name)
				}
			}
			continue
		}
		var first []uint32
		for _, nr := range r.Numbers {
			if _, ok := numbers[nr]; ok {
				first = append(first, nr)
				delete(numbers, nr)
			}
		}
		r.Numbers = first
		rest = append(rest, r)
	}
	return rest, nil
}
