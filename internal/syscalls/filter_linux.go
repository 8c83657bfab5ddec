package syscalls

import (
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// A Filter is one for seccomp(2), in classic BPF.
type Filter []unix.SockFilter

// Data is struct seccomp_data: what a filter sees of a call.
type Data struct {
	NR   uint32
	Arch uint32
	IP   uint64
	Args [6]uint64
}

// word is what a filter's load gives.
func (d *Data) word(offset uint32) uint32 {
	switch {
	case offset == OffNR:
		return d.NR
	case offset == OffArch:
		return d.Arch
	case offset < OffArgs:
		return uint32(d.IP >> (8 * (offset & 4)))
	}
	return uint32(d.Args[(offset-OffArgs)/8] >> (8 * (offset & 4)))
}

// Where that is.
const (
	OffNR   = 0
	OffArch = 4
	OffArgs = 16 // behind the instruction pointer
	dataLen = 64
)

// Read reads a filter as the kernel takes it, and refuses what Run does not know: libseccomp makes none of it.
func Read(b []byte) (Filter, error) {
	p := make(Filter, len(b)/unix.SizeofSockFilter)
	if _, err := binary.Decode(b, binary.LittleEndian, p); err != nil {
		return nil, err
	}
	if len(p) == 0 {
		return nil, errors.New("is empty")
	}
	for i, in := range p {
		left := uint32(len(p) - 1 - i)
		ok := false
		switch in.Code {
		case unix.BPF_LD | unix.BPF_W | unix.BPF_ABS:
			ok = in.K < dataLen && in.K%4 == 0 && left > 0
		case unix.BPF_ALU | unix.BPF_AND | unix.BPF_K:
			ok = left > 0
		case unix.BPF_JMP | unix.BPF_JA:
			ok = in.K < left
		case unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, unix.BPF_JMP | unix.BPF_JGT | unix.BPF_K,
			unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K, unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K:
			ok = uint32(max(in.Jt, in.Jf)) < left
		case unix.BPF_RET | unix.BPF_K:
			ok = true
		}
		if !ok {
			return nil, fmt.Errorf("has an instruction, %d (%#x), that is not known here", i, in.Code)
		}
	}
	return p, nil
}

// Run is the verdict on a call, whether an argument was looked at, as with others it may be another, and how many
// instructions it took. The filter is one that Read has taken.
func (f Filter) Run(d *Data) (verdict uint32, byArguments bool, steps int) {
	var accumulator uint32
	for pc := 0; ; pc++ { // a filter has no jump back, and Read has looked at its ends
		in := f[pc]
		steps++
		holds := false
		switch in.Code {
		case unix.BPF_LD | unix.BPF_W | unix.BPF_ABS:
			accumulator = d.word(in.K)
			byArguments = byArguments || in.K > OffArch
			continue
		case unix.BPF_ALU | unix.BPF_AND | unix.BPF_K:
			accumulator &= in.K
			continue
		case unix.BPF_RET | unix.BPF_K:
			return in.K, byArguments, steps
		case unix.BPF_JMP | unix.BPF_JA:
			pc += int(in.K)
			continue
		case unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K:
			holds = accumulator == in.K
		case unix.BPF_JMP | unix.BPF_JGT | unix.BPF_K:
			holds = accumulator > in.K
		case unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K:
			holds = accumulator >= in.K
		case unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K:
			holds = accumulator&in.K != 0
		}
		if holds {
			pc += int(in.Jt)
		} else {
			pc += int(in.Jf)
		}
	}
}
