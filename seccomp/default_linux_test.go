package seccomp

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// mobyNewest is the newest call that Docker's default profile names.
const mobyNewest = unix.SYS_REMOVEXATTRAT

func mustDefault(t testing.TB, goarch string) []unix.SockFilter {
	t.Helper()
	p, err := Default(goarch)
	if err != nil {
		t.Fatal(err)
	}
	return mustCompile(t, p, goarch)
}

func TestDefaultTable(t *testing.T) {
	type args = [6]uint64
	const (
		newNS   = unix.CLONE_NEWNS
		newUser = unix.CLONE_NEWUSER
		thread  = unix.CLONE_VM | unix.CLONE_THREAD | unix.CLONE_SIGHAND | unix.CLONE_FILES | unix.CLONE_FS
		high    = 1 << 32
	)
	vms := map[string]*bpf.VM{
		"amd64": newVM(t, mustDefault(t, "amd64")),
		"arm64": newVM(t, mustDefault(t, "arm64")),
	}
	for _, tt := range []struct {
		abi  string
		name string
		nr   uint32
		args args
		want Action
	}{
		// What every program does.
		{"amd64", "read", 0, args{}, Allow},
		{"amd64", "openat", 257, args{}, Allow},
		{"amd64", "mmap", 9, args{}, Allow},
		{"amd64", "ioctl", 16, args{1: unix.TCGETS}, Allow},
		{"amd64", "execve", 59, args{}, Allow},
		{"amd64", "fork", 57, args{}, Allow},
		{"amd64", "exit_group", 231, args{}, Allow},
		{"amd64", "arch_prctl", 158, args{}, Allow},
		{"amd64", "modify_ldt", 154, args{}, Allow},
		{"amd64", "seccomp", 317, args{}, Allow},
		{"amd64", "ptrace", 101, args{}, Allow},
		{"amd64", "landlock_restrict_self", 446, args{}, Allow},
		{"amd64", "cachestat", 451, args{}, Allow},
		{"amd64", "statmount", 457, args{}, Allow},
		{"amd64", "mseal", 462, args{}, Allow},
		{"amd64", "removexattrat", 466, args{}, Allow},
		{"i386", "read", 3, args{}, KillProcess},
		{"i386", "mmap2", 192, args{}, KillProcess},
		{"i386", "execve", 11, args{}, KillProcess},
		{"i386", "clock_gettime64", 403, args{}, KillProcess},
		{"i386", "socketcall", 102, args{}, KillProcess},
		{"i386", "set_thread_area", 243, args{}, KillProcess},
		{"i386", "mseal", 462, args{}, KillProcess},
		{"x32", "read", x32Bit, args{}, KillProcess},
		{"x32", "execve", x32Bit | 520, args{}, KillProcess},
		{"x32", "ioctl", x32Bit | 514, args{}, KillProcess},
		{"x32", "pwritev2", x32Bit | 547, args{}, KillProcess},
		{"x32", "mseal", x32Bit | 462, args{}, KillProcess},
		{"arm64", "read", 63, args{}, Allow},
		{"arm64", "openat", 56, args{}, Allow},
		{"arm64", "execve", 221, args{}, Allow},
		{"arm64", "mseal", 462, args{}, Allow},

		// What needs a capability, and what no container gets.
		{"amd64", "mount", 165, args{}, eperm},
		{"amd64", "umount2", 166, args{}, eperm},
		{"amd64", "unshare", 272, args{0: newUser}, eperm},
		{"amd64", "setns", 308, args{}, eperm},
		{"amd64", "pivot_root", 155, args{}, eperm},
		{"amd64", "chroot", 161, args{}, eperm},
		{"amd64", "fsopen", 430, args{}, eperm},
		{"amd64", "move_mount", 429, args{}, eperm},
		{"amd64", "quotactl_fd", 443, args{}, eperm},
		{"amd64", "bpf", 321, args{}, eperm},
		{"amd64", "keyctl", 250, args{}, eperm},
		{"amd64", "io_uring_setup", 425, args{}, eperm},
		{"amd64", "userfaultfd", 323, args{}, eperm},
		{"amd64", "perf_event_open", 298, args{}, eperm},
		{"amd64", "open_by_handle_at", 304, args{}, eperm},
		{"amd64", "kexec_load", 246, args{}, eperm},
		{"amd64", "lsm_list_modules", 461, args{}, eperm},
		{"i386", "mount", 21, args{}, KillProcess},
		{"i386", "keyctl", 288, args{}, KillProcess},
		{"x32", "mount", x32Bit | 165, args{}, KillProcess},
		{"x32", "io_uring_setup", x32Bit | 425, args{}, KillProcess},
		{"arm64", "mount", 40, args{}, eperm},
		{"arm64", "io_uring_setup", 425, args{}, eperm},

		// A thread, and no namespace. The kernel takes the low half of the flags.
		{"amd64", "clone", 56, args{0: thread}, Allow},
		{"amd64", "clone", 56, args{0: uint64(unix.SIGCHLD)}, Allow},
		{"amd64", "clone", 56, args{0: newNS}, eperm},
		{"amd64", "clone", 56, args{0: newUser | uint64(unix.SIGCHLD)}, eperm},
		{"amd64", "clone", 56, args{0: high | unix.CLONE_NEWNET}, eperm},
		{"amd64", "clone", 56, args{0: unix.CLONE_NEWCGROUP}, eperm},
		{"i386", "clone", 120, args{0: newUser}, KillProcess},
		{"i386", "clone", 120, args{0: thread}, KillProcess},
		{"x32", "clone", x32Bit | 56, args{0: newUser}, KillProcess},
		{"arm64", "clone", 220, args{0: unix.CLONE_NEWPID}, eperm},
		{"arm64", "clone", 220, args{0: thread}, Allow},
		{"amd64", "clone3", 435, args{}, enosys},
		{"i386", "clone3", 435, args{}, KillProcess},
		{"x32", "clone3", x32Bit | 435, args{}, KillProcess},
		{"arm64", "clone3", 435, args{}, enosys},

		{"amd64", "personality", 135, args{0: 0}, Allow},
		{"amd64", "personality", 135, args{0: 8}, Allow},
		{"amd64", "personality", 135, args{0: 0x20000}, Allow},
		{"amd64", "personality", 135, args{0: 0x20008}, Allow},
		{"amd64", "personality", 135, args{0: 0xffffffff}, Allow},
		{"amd64", "personality", 135, args{0: 0x40000}, eperm},
		{"amd64", "personality", 135, args{0: 0x0400000}, eperm},

		{"amd64", "socket", 41, args{0: unix.AF_UNIX}, Allow},
		{"amd64", "socket", 41, args{0: unix.AF_INET}, Allow},
		{"amd64", "socket", 41, args{0: unix.AF_INET6, 2: unix.IPPROTO_UDP}, Allow},
		{"amd64", "socket", 41, args{0: unix.AF_NETLINK, 2: unix.NETLINK_ROUTE}, Allow},
		{"amd64", "socket", 41, args{0: unix.AF_NETLINK, 2: unix.NETLINK_XFRM}, eperm}, // CVE-2026-43284
		{"amd64", "socket", 41, args{0: unix.AF_NETLINK, 2: unix.NETLINK_NETFILTER}, eperm},
		{"amd64", "socket", 41, args{0: unix.AF_NETLINK, 1: high, 2: high | unix.NETLINK_ROUTE}, eperm},
		{"amd64", "socket", 41, args{0: unix.AF_ALG}, eperm}, // CVE-2026-31431
		{"amd64", "socket", 41, args{0: unix.AF_VSOCK}, eperm},
		{"amd64", "socket", 41, args{0: unix.AF_RXRPC}, eperm}, // CVE-2026-43500
		{"amd64", "socket", 41, args{0: unix.AF_PACKET}, eperm},
		{"amd64", "socket", 41, args{0: unix.AF_KEY}, eperm},
		{"amd64", "socket", 41, args{0: unix.AF_CAN}, eperm},
		{"amd64", "socket", 41, args{0: unix.AF_TIPC}, eperm},
		{"amd64", "socket", 41, args{0: unix.AF_BLUETOOTH}, eperm},
		{"amd64", "socket", 41, args{0: unix.AF_XDP}, eperm},
		{"amd64", "socket", 41, args{0: unix.AF_AX25}, eperm},
		{"amd64", "socket", 41, args{0: unix.AF_UNSPEC}, eperm},
		{"amd64", "socket", 41, args{0: high | unix.AF_VSOCK}, eperm},
		{"amd64", "socket", 41, args{0: high | unix.AF_UNIX}, eperm}, // which the kernel takes for AF_UNIX: nobody writes so
		{"amd64", "socketpair", 53, args{0: unix.AF_UNIX}, Allow},
		{"amd64", "socketpair", 53, args{0: unix.AF_TIPC}, eperm},
		{"amd64", "socketpair", 53, args{0: unix.AF_INET}, eperm},
		{"i386", "socket", 359, args{0: unix.AF_INET}, KillProcess},
		{"i386", "socketpair", 360, args{0: unix.AF_UNIX}, KillProcess},
		{"x32", "socket", x32Bit | 41, args{0: unix.AF_UNIX}, KillProcess},
		{"arm64", "socket", 198, args{0: unix.AF_ALG}, eperm},
		{"arm64", "socket", 198, args{0: unix.AF_INET}, Allow},
		{"arm64", "socketpair", 199, args{0: unix.AF_UNIX}, Allow},
		{"arm64", "socketpair", 199, args{0: unix.AF_TIPC}, eperm},

		// Newer than the profile.
		{"amd64", "open_tree_attr", 467, args{}, enosys},
		{"amd64", "listns", 470, args{}, enosys},
		{"i386", "file_getattr", 468, args{}, enosys},
		{"x32", "open_tree_attr", x32Bit | 467, args{}, enosys},
		{"arm64", "rseq_slice_yield", 471, args{}, enosys},
		{"arm64", "of x32 alone", 520, args{}, enosys},
	} {
		a := abis[tt.abi]
		if got := run(t, vms[a.goarch], call{nr: tt.nr, audit: a.audit, args: tt.args}); got != tt.want {
			t.Errorf("%s %s (%#x): got %#x, want %#x", tt.abi, tt.name, tt.args, got, tt.want)
		}
	}
}

func TestDefaultKillsForeignABIs(t *testing.T) {
	for _, goarch := range []string{"amd64", "arm64"} {
		vm := newVM(t, mustDefault(t, goarch))
		for _, audit := range foreign {
			for _, nr := range []uint32{0, 1, 219, 435, mobyNewest, mobyNewest + 1, x32Bit, 0xffffffff} {
				if got := run(t, vm, call{nr: nr, audit: audit}); got != KillProcess {
					t.Errorf("%s: ABI %#x, call %#x: got %#x, want a kill", goarch, audit, nr, got)
				}
			}
		}
	}
}

// A defaultModel is the profile's own JSON and the kernel's own numbers, run in
// plain Go.
type defaultModel struct {
	strict  bool // what Default adds to Docker's
	rules   []modelRule
	numbers map[string]map[uint32]string // ABI → number without the ABI's bit → name
}

type modelRule struct {
	Names    []string
	Action   string
	ErrnoRet *uint32
	Args     []struct {
		Index           int
		Value, ValueTwo uint64
		Op              string
	}
	Includes, Excludes struct{ Caps, Arches []string }
}

// moduleDir is where the source of a module is.
func moduleDir(t *testing.T, module string) string {
	t.Helper()
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", module).Output()
	if err != nil {
		t.Skipf("host lacks: the source of %s: %v", module, err)
	}
	return strings.TrimSpace(string(out))
}

func newDefaultModel(t *testing.T) *defaultModel {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(moduleDir(t, "github.com/moby/profiles/seccomp"), "default.json"))
	if err != nil {
		t.Fatal(err)
	}
	var profile struct{ Syscalls []modelRule }
	if err := json.Unmarshal(text, &profile); err != nil {
		t.Fatal(err)
	}
	m := &defaultModel{rules: profile.Syscalls, numbers: map[string]map[uint32]string{}}
	for abi, file := range map[string]string{"amd64": "amd64", "i386": "386", "arm64": "arm64", "x32": "amd64"} {
		source, err := os.ReadFile(filepath.Join(moduleDir(t, "golang.org/x/sys"), "unix", "zsysnum_linux_"+file+".go"))
		if err != nil {
			t.Fatal(err)
		}
		m.numbers[abi] = map[uint32]string{}
		for _, found := range regexp.MustCompile(`(?m)^\tSYS_(\w+) += (\d+)$`).FindAllSubmatch(source, -1) {
			nr, err := strconv.ParseUint(string(found[2]), 10, 32)
			if err != nil {
				t.Fatal(err)
			}
			m.numbers[abi][uint32(nr)] = strings.ToLower(string(found[1]))
		}
	}
	// arch/x86/entry/syscalls/syscall_64.tbl: these are amd64's alone …
	for nr, name := range m.numbers["x32"] {
		if slices.Contains(strings.Fields(only64), name) || slices.Contains(strings.Fields(own32), name) {
			delete(m.numbers["x32"], nr)
		}
	}
	// … and these have other numbers on x32, from 512 on.
	for i, name := range strings.Fields(own32) {
		m.numbers["x32"][uint32(x32First+i)] = name
	}
	return m
}

const (
	only64 = `uselib _sysctl create_module get_kernel_syms query_module nfsservctl set_thread_area get_thread_area
		epoll_ctl_old epoll_wait_old vserver map_shadow_stack uretprobe uprobe`
	own32 = `rt_sigaction rt_sigreturn ioctl readv writev recvfrom sendmsg recvmsg execve ptrace rt_sigpending
		rt_sigtimedwait rt_sigqueueinfo sigaltstack timer_create mq_notify kexec_load waitid set_robust_list get_robust_list
		vmsplice move_pages preadv pwritev rt_tgsigqueueinfo recvmmsg sendmmsg process_vm_readv process_vm_writev setsockopt
		getsockopt io_setup io_submit execveat preadv2 pwritev2`
)

func (m *defaultModel) verdict(goarch string, c call) Action {
	abi := abiOf(goarch, c)
	if abi == "" {
		return KillProcess
	}
	nr := c.nr &^ abis[abi].bit
	if nr > mobyNewest && (abi != "x32" || nr < x32First || nr > x32Last) {
		return enosys
	}
	name := m.numbers[abi][nr]
	switch {
	case !m.strict:
	case abi != goarch:
		return KillProcess
	case name == "socket" || name == "socketpair":
		return modelSocket(name, c)
	}
	for _, r := range m.rules {
		if !slices.Contains(r.Names, name) || name == "uretprobe" || len(r.Includes.Caps) != 0 ||
			len(r.Includes.Arches) != 0 && !slices.Contains(r.Includes.Arches, goarch) ||
			slices.Contains(r.Excludes.Arches, goarch) {
			continue
		}
		holds := true
		for _, a := range r.Args {
			arg := c.args[a.Index]
			if abi == "i386" || abi == "x32" {
				arg = uint64(uint32(arg))
			}
			switch a.Op {
			case "SCMP_CMP_EQ":
				holds = holds && arg == a.Value
			case "SCMP_CMP_LT":
				holds = holds && arg < a.Value
			case "SCMP_CMP_MASKED_EQ":
				holds = holds && arg&a.Value == a.ValueTwo
			default:
				panic(a.Op)
			}
		}
		switch {
		case !holds:
		case r.Action == "SCMP_ACT_ALLOW":
			return Allow
		case r.Action == "SCMP_ACT_ERRNO":
			return Errno(unix.Errno(*r.ErrnoRet))
		default:
			panic(r.Action)
		}
	}
	return eperm
}

// modelSocket is what Default has instead of Docker's rules.
func modelSocket(name string, c call) Action {
	switch family := c.args[0]; {
	case family == unix.AF_UNIX,
		name == "socket" && (family == unix.AF_INET || family == unix.AF_INET6),
		name == "socket" && family == unix.AF_NETLINK && c.args[2] == unix.NETLINK_ROUTE:
		return Allow
	}
	return eperm
}

// cases are all numbers that have ever been near a call, by every ABI,
// and the calls whose arguments count with such as make a difference.
func (m *defaultModel) cases() []call {
	all := cases()
	var values []uint64
	for v := range uint64(64) {
		values = append(values, v, 1<<v, 1<<32|v)
	}
	values = append(values, 0x20008, 0x20009, 0x40008, 0xffffffff, 0xfffffffe, 1<<63, 1<<33-1, ^uint64(0))
	for abi, a := range abis {
		for nr, name := range m.numbers[abi] {
			if !slices.Contains([]string{"clone", "personality", "socket", "socketpair"}, name) {
				continue
			}
			for _, v := range values {
				all = append(all, call{nr: a.bit | nr, audit: a.audit, args: [6]uint64{v, v}})
				all = append(all, call{nr: a.bit | nr, audit: a.audit, args: [6]uint64{v, 0, 7}})
			}
		}
	}
	return all
}

// Docker's profile, as who reads it from a file has it, and ours.
func TestDefaultEveryNumber(t *testing.T) {
	m := newDefaultModel(t)
	for _, goarch := range []string{"amd64", "arm64"} {
		docker, ours := newVM(t, mustCompile(t, dockers(t, goarch), goarch)), newVM(t, mustDefault(t, goarch))
		for _, c := range m.cases() {
			m.strict = false
			if got, want := run(t, docker, c), m.verdict(goarch, c); got != want {
				t.Errorf("%s, Docker's: call %#x of ABI %#x with %#x: got %#x, want %#x", goarch, c.nr, c.audit, c.args, got, want)
			}
			m.strict = true
			if got, want := run(t, ours, c), m.verdict(goarch, c); got != want {
				t.Errorf("%s: call %#x of ABI %#x (%s) with %#x: got %#x, want %#x", goarch, c.nr, c.audit,
					m.numbers[abiOf(goarch, c)][c.nr&^x32Bit], c.args, got, want)
			}
		}
	}
}

// A filter with one instruction that is not as it should be gives some case
// another verdict. One of each few instructions is changed, so that it is soon
// over.
func TestDefaultMutants(t *testing.T) {
	m := newDefaultModel(t)
	m.strict = true
	for goarch, step := range map[string]int{"amd64": 11, "arm64": 5} {
		filter := mustDefault(t, goarch)
		var packets [][]byte
		var want []Action
		for _, c := range m.cases() {
			packets, want = append(packets, c.packet()), append(want, m.verdict(goarch, c))
		}
		for i := 0; i < len(filter)-1; i += step { // to the last one of a single ABI's program nothing goes
			mutant := slices.Clone(filter)
			in := &mutant[i]
			switch {
			case in.Code == unix.BPF_RET|unix.BPF_K:
				in.K ^= 0x00010000
			case in.Code&0x07 == unix.BPF_JMP && in.Code&0xf0 != unix.BPF_JA:
				in.Jt, in.Jf = in.Jf, in.Jt
			default:
				continue
			}
			vm := newVM(t, mutant)
			found := false
			for j := 0; j < len(packets) && !found; j++ {
				got, err := vm.Run(packets[j])
				found = err != nil || Action(got) != want[j]
			}
			if !found {
				t.Errorf("%s: no case finds a change of instruction %d", goarch, i)
			}
		}
	}
}
