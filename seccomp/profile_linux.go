package seccomp

import "golang.org/x/sys/unix"

// A Profile says what the kernel does with each system call.
type Profile struct {
	// Default is for calls that no rule matches.
	Default Action

	// Newest is the highest call number that the author of the profile knew.
	// Calls above it get ENOSYS, whatever Default and Rules say: a C library
	// that tries a new call first falls back to an older one on ENOSYS, but
	// takes EPERM for an answer (opencontainers/runc, pull request 2750). 0 means
	// that no call is too new.
	Newest uint32

	// ABIs are those that the profile is for, where the kernel offers several
	// to a process: "amd64", "i386" and "x32" on amd64. The GOARCH's own is one
	// in any case. Calls by another are a kill, or ENOSYS above Newest. Without
	// any the profile is for all.
	ABIs []string

	// Rules are alternatives. Their order has no meaning: where two with
	// different actions would match one call, one of them must be narrowed.
	Rules []Rule

	// Log asks for a line in the kernel's log for each call that is refused
	// (SECCOMP_FILTER_FLAG_LOG). It is for who loads the filter.
	Log bool

	// Tree makes the program search call numbers by halves instead of one by
	// one. Measured with 312 names for amd64: 13 ms to compile instead of
	// 9, but 0.23 ms to load instead of 0.60. So it pays where a filter is
	// loaded more often than it is compiled.
	Tree bool
}

// A Rule gives one action to some system calls.
type Rule struct {
	Action Action

	// Names are resolved by libseccomp for each ABI; a call that an ABI lacks
	// is left out there.
	Names []string

	// Numbers are for calls that libseccomp has no name for yet. They are 424
	// or higher, where every ABI gives a call the same number, and can't have
	// conditions.
	Numbers []uint32

	// Conds must all hold. Alternatives are rules of their own.
	Conds []Cond
}

// A Cond compares one argument of a call, unsigned.
//
// The comparison is of 64 bits. Where the kernel looks at 32 bits only, as it
// does for the request of ioctl(2), anything but a [MaskedEqual] is walked
// around by setting a high bit (CVE-2019-10063). On i386 arguments have 32 bits.
// On x32 libseccomp compares the low 32 bits only, even where the kernel looks
// at all of them, so no refusal there should hang on a 64-bit value: see NotX32.
type Cond struct {
	Arg   uint // 0 to 5
	Op    Op
	Mask  uint64 // for MaskedEqual alone
	Value uint64

	// NotX32 leaves the condition out on x32: there the rule matches whatever
	// the argument is.
	NotX32 bool
}

// An Op is how a [Cond] compares.
type Op uint8

// The comparisons of an argument with Value.
const (
	Equal Op = iota + 1
	NotEqual
	Less
	LessEqual
	Greater
	GreaterEqual
	MaskedEqual    // argument & Mask == Value
	MaskedNotEqual // of a [CallRule] alone
)

// An Action is what happens to a call: a return value of a filter, as the
// kernel defines it in linux/seccomp.h.
type Action uint32

// The actions without a parameter.
const (
	KillProcess = Action(unix.SECCOMP_RET_KILL_PROCESS)
	KillThread  = Action(unix.SECCOMP_RET_KILL_THREAD) // the zero value
	Trap        = Action(unix.SECCOMP_RET_TRAP)
	Notify      = Action(unix.SECCOMP_RET_USER_NOTIF)
	Log         = Action(unix.SECCOMP_RET_LOG)
	Allow       = Action(unix.SECCOMP_RET_ALLOW)
)

// Errno refuses the call with e.
func Errno(e unix.Errno) Action { return unix.SECCOMP_RET_ERRNO | Action(e) }

// Trace hands the call to a tracer that asked for PTRACE_O_TRACESECCOMP, which
// sees data; without one the call gets ENOSYS.
func Trace(data uint16) Action { return unix.SECCOMP_RET_TRACE | Action(data) }

// passes reports whether the kernel, or a tracer in its place, does the call.
func (a Action) passes() bool {
	kind := a &^ unix.SECCOMP_RET_DATA
	return kind == Allow || kind == Log || kind == unix.SECCOMP_RET_TRACE
}
