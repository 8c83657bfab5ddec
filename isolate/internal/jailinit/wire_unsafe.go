//go:build linux && cgo && (amd64 || arm64)

package jailinit

import (
	"unsafe"
)

// planAt is where jail-init maps the Plan; PLAN_AT in src/plan.h.
const planAt = 0x10000000

// Steps of jail-init, enum op in src/plan.h.
const (
	OpWrite uint32 = iota + 1
	OpOwnMounts
	OpSubreaper
	OpChildren
	OpAside
	OpJoin
	OpUnshare
	OpSetns
	OpOpen
	OpWriteSlot
	OpEnter
	OpDumpable
	OpLoUp
	OpHostname
	OpRoot
	OpFS
	OpAttach
	OpMask
	OpCheck
	OpPivot
	OpMount
	OpSetattr
	OpBind
	OpMkdir
	OpSymlink
	OpMknod
	OpFile
	OpUnlink
	OpChdir
	OpRuleset
	OpAllow
	OpBarrier
	OpSetsid
	OpRlimit
	OpBounding
	OpGroups
	OpGID
	OpUID
	OpCaps
	OpNNP
	OpRestrict
	OpPdeathsig
	OpAlive
	OpSignals
	OpFilter
	OpMonitor
	OpTry
	OpExec
)

// MaxSlots is how many fds steps may name, MAX_SLOTS.
const MaxSlots = 80

// MaxAside is how many children may do steps aside, MAX_ASIDE.
const MaxAside = 6

// Flags of a step, enum step_flags.
const (
	StepRecursive uint32 = 1 << iota
	StepInRoot
	StepNoLinks
	StepEnter
	StepReadOnly
)

// Flags of a Plan, enum plan_flags.
const (
	PlanPIDNS uint32 = 1 << iota
	PlanKeepKill
)

// Records of jail-init, enum record_kind.
const (
	RecordBarrier uint32 = iota + 1
	RecordFailed
	RecordTried
	RecordStarted
	RecordEnded
	RecordListener
)

// Orders to jail-init, enum order_kind.
const (
	OrderGo uint32 = iota + 1
	OrderSignal
	OrderKill
)

// Record is what jail-init reports, struct record.
type Record struct {
	Kind, Step               uint32
	Err, Status              int32
	TimeUS                   int64 // CLOCK_MONOTONIC
	UserUS, SystemUS, RSSKiB int64 // of all processes that jail-init has waited for
	SelfUserUS, SelfSystemUS int64 // of jail-init
	OutsideUS                int64 // user and system, before the last OpEnter
}

// Order is what jail-init is told, struct order.
type Order struct {
	Kind, Signo, Group, Queued uint32
	Value                      int64
}

// Addr is an address in the Plan; 0 is none.
type Addr uint64

// Step is one step as jail-init reads it, struct step.
type Step struct {
	Op, Flags, Index, Keep uint32
	A, B, C, D, E          uint64
	S1, S2, S3, S4         Addr
}

type header struct {
	size                                               uint64
	flags, ninit, npayload, npass, failStep, failErrno uint32
	initSteps, payloadSteps, asideSteps                Addr
}

// Encoder lays a Plan out as the one block of memory that jail-init maps.
type Encoder struct{ mem []byte }

// NewEncoder returns an encoder with room for the Plan's header.
func NewEncoder() *Encoder {
	return &Encoder{mem: make([]byte, unsafe.Sizeof(header{}), 16<<10)}
}

// Bytes puts b into the Plan, aligned for any type.
func (e *Encoder) Bytes(b []byte) Addr {
	for len(e.mem)%8 != 0 {
		e.mem = append(e.mem, 0)
	}
	at := planAt + len(e.mem)
	e.mem = append(e.mem, b...)
	return Addr(at)
}

// String puts s into the Plan with its final NUL; "" is none.
func (e *Encoder) String(s string) Addr {
	if s == "" {
		return 0
	}
	at := planAt + len(e.mem)
	e.mem = append(append(e.mem, s...), 0)
	return Addr(at)
}

// Text is String that makes an empty string of "" as well.
func (e *Encoder) Text(s string) Addr {
	at := planAt + len(e.mem)
	e.mem = append(append(e.mem, s...), 0)
	return Addr(at)
}

// Strings puts a list into the Plan that ends with a null pointer, as argv does.
func (e *Encoder) Strings(list []string) Addr {
	at := make([]Addr, len(list)+1)
	for i, s := range list {
		at[i] = e.Text(s)
	}
	return e.Bytes(bytesOf(at))
}

// Finish adds the steps of the sides and returns the whole Plan. npass is one more than the payload's highest fd. failStep, where
// it is not 0, is the step (counted from 1) that fails with failErrno: the test mode.
func (e *Encoder) Finish(init, payload, aside []Step, flags, npass, failStep, failErrno uint32) []byte {
	h := header{
		flags: flags, ninit: uint32(len(init)), npayload: uint32(len(payload)), npass: npass,
		failStep: failStep, failErrno: failErrno,
	}
	h.initSteps = e.Bytes(bytesOf(init))
	h.payloadSteps = e.Bytes(bytesOf(payload))
	h.asideSteps = e.Bytes(bytesOf(aside))
	h.size = uint64(len(e.mem))
	copy(e.mem, bytesOf([]header{h}))
	return e.mem
}

// bytesOf is the memory of v; it shares it.
func bytesOf[T any](v []T) []byte {
	if len(v) == 0 {
		return nil
	}
	return unsafe.Slice((*byte)(unsafe.Pointer(&v[0])), len(v)*int(unsafe.Sizeof(v[0])))
}
