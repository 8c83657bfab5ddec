package seccomp

import (
	"encoding/binary"
	"testing"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// A call is what a filter sees of one, struct seccomp_data.
type call struct {
	nr, audit uint32
	args      [6]uint64
}

// packet lays the call out for the virtual machine, which loads big-endian.
// The low half of an argument comes first, as on our little-endian machines.
func (c call) packet() []byte {
	words := []uint32{c.nr, c.audit, 0, 0} // no filter of ours loads the instruction pointer
	for _, arg := range c.args {
		words = append(words, uint32(arg), uint32(arg>>32))
	}
	var b []byte
	for _, w := range words {
		b = binary.BigEndian.AppendUint32(b, w)
	}
	return b
}

// newVM checks the program as the kernel does, jumps and loads, and returns a
// machine for it.
func newVM(t testing.TB, filter []unix.SockFilter) *bpf.VM {
	t.Helper()
	var program []bpf.Instruction
	for _, in := range filter {
		program = append(program, bpf.RawInstruction{Op: in.Code, Jt: in.Jt, Jf: in.Jf, K: in.K}.Disassemble())
	}
	vm, err := bpf.NewVM(program)
	if err != nil {
		t.Fatal(err)
	}
	return vm
}

func run(t testing.TB, vm *bpf.VM, c call) Action {
	t.Helper()
	verdict, err := vm.Run(c.packet())
	if err != nil {
		t.Fatal(err)
	}
	return Action(verdict)
}

func mustCompile(t testing.TB, p Profile, goarch string) []unix.SockFilter {
	t.Helper()
	filter, err := Compile(p, goarch)
	if err != nil {
		t.Fatal(err)
	}
	return filter
}

// An abi is what a process may call by. Its numbers are from the kernel's own
// tables, not from libseccomp, which the tests judge.
type abi struct {
	goarch  string
	audit   uint32
	bit     uint32            // is set in every number
	ioctl   uint32            // the baseline refuses it by its arguments
	prlimit uint32            // prlimit64, the same
	refuse  map[string]uint32 // by the baseline, whatever the arguments
	allow   map[string]uint32 // by the baseline, some examples
}

var abis = map[string]abi{
	"amd64": {
		goarch: "amd64", audit: unix.AUDIT_ARCH_X86_64, ioctl: 16, prlimit: 302,
		refuse: map[string]uint32{
			"add_key": 248, "request_key": 249, "keyctl": 250, "bpf": 321, "perf_event_open": 298,
			"userfaultfd": 323, "io_uring_setup": 425, "io_uring_enter": 426, "io_uring_register": 427,
			"kexec_load": 246, "kexec_file_load": 320, "init_module": 175, "finit_module": 313,
			"delete_module": 176, "open_by_handle_at": 304,
		},
		allow: map[string]uint32{
			"read": 0, "open": 2, "openat": 257, "openat2": 437, "name_to_handle_at": 303,
			"clone": 56, "fork": 57, "clone3": 435, "execve": 59, "execveat": 322, "exit_group": 231,
			"unshare": 272, "setns": 308, "chroot": 161, "pivot_root": 155, "ptrace": 101,
			"mount": 165, "umount2": 166, "open_tree": 428, "move_mount": 429, "fsopen": 430,
			"fsconfig": 431, "fsmount": 432, "fspick": 433, "mount_setattr": 442, "prctl": 157,
			"seccomp": 317, "landlock_create_ruleset": 444, "landlock_add_rule": 445,
			"landlock_restrict_self": 446, "mseal": 462, "rseq_slice_yield": 471,
		},
	},
	"i386": {
		goarch: "amd64", audit: unix.AUDIT_ARCH_I386, ioctl: 54, prlimit: 340,
		refuse: map[string]uint32{
			"add_key": 286, "request_key": 287, "keyctl": 288, "bpf": 357, "perf_event_open": 336,
			"userfaultfd": 374, "io_uring_setup": 425, "io_uring_enter": 426, "io_uring_register": 427,
			"kexec_load": 283, "init_module": 128, "finit_module": 350,
			"delete_module": 129, "open_by_handle_at": 342,
		},
		allow: map[string]uint32{
			"read": 3, "open": 5, "openat": 295, "openat2": 437, "name_to_handle_at": 341,
			"clone": 120, "fork": 2, "clone3": 435, "execve": 11, "execveat": 358, "exit_group": 252,
			"unshare": 310, "setns": 346, "chroot": 61, "pivot_root": 217, "ptrace": 26,
			"mount": 21, "umount2": 52, "open_tree": 428, "move_mount": 429, "fsopen": 430,
			"fsconfig": 431, "fsmount": 432, "fspick": 433, "mount_setattr": 442, "prctl": 172,
			"seccomp": 354, "landlock_create_ruleset": 444, "landlock_add_rule": 445,
			"landlock_restrict_self": 446, "clock_gettime64": 403, "futex_time64": 422,
			"mseal": 462, "rseq_slice_yield": 471,
		},
	},
	"x32": {
		goarch: "amd64", audit: unix.AUDIT_ARCH_X86_64, bit: x32Bit, ioctl: x32Bit | 514, prlimit: x32Bit | 302,
		refuse: map[string]uint32{
			"add_key": x32Bit | 248, "request_key": x32Bit | 249, "keyctl": x32Bit | 250,
			"bpf": x32Bit | 321, "perf_event_open": x32Bit | 298, "userfaultfd": x32Bit | 323,
			"io_uring_setup": x32Bit | 425, "io_uring_enter": x32Bit | 426, "io_uring_register": x32Bit | 427,
			"kexec_load": x32Bit | 528, "kexec_file_load": x32Bit | 320, "init_module": x32Bit | 175,
			"finit_module": x32Bit | 313, "delete_module": x32Bit | 176, "open_by_handle_at": x32Bit | 304,
		},
		allow: map[string]uint32{
			"read": x32Bit, "openat": x32Bit | 257, "clone": x32Bit | 56, "clone3": x32Bit | 435,
			"execve": x32Bit | 520, "execveat": x32Bit | 545, "unshare": x32Bit | 272, "mount": x32Bit | 165,
			"rt_sigaction": x32Bit | 512, "ptrace": x32Bit | 521, "pwritev2": x32Bit | 547,
			"seccomp": x32Bit | 317, "landlock_create_ruleset": x32Bit | 444, "rseq_slice_yield": x32Bit | 471,
		},
	},
	"arm64": {
		goarch: "arm64", audit: unix.AUDIT_ARCH_AARCH64, ioctl: 29, prlimit: 261,
		refuse: map[string]uint32{
			"add_key": 217, "request_key": 218, "keyctl": 219, "bpf": 280, "perf_event_open": 241,
			"userfaultfd": 282, "io_uring_setup": 425, "io_uring_enter": 426, "io_uring_register": 427,
			"kexec_load": 104, "kexec_file_load": 294, "init_module": 105, "finit_module": 273,
			"delete_module": 106, "open_by_handle_at": 265,
		},
		allow: map[string]uint32{
			"read": 63, "openat": 56, "openat2": 437, "name_to_handle_at": 264,
			"clone": 220, "clone3": 435, "execve": 221, "execveat": 281, "exit_group": 94,
			"unshare": 97, "setns": 268, "chroot": 51, "pivot_root": 41, "ptrace": 117,
			"mount": 40, "umount2": 39, "open_tree": 428, "move_mount": 429, "fsopen": 430,
			"fsconfig": 431, "fsmount": 432, "fspick": 433, "mount_setattr": 442, "prctl": 167,
			"seccomp": 277, "landlock_create_ruleset": 444, "landlock_add_rule": 445,
			"landlock_restrict_self": 446, "mseal": 462, "rseq_slice_yield": 471,
		},
	},
}
