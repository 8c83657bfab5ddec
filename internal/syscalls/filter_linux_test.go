package syscalls

import (
	"encoding/binary"
	"testing"

	"golang.org/x/sys/unix"
)

// TestRead: what would not end, or is not known, is refused.
func TestRead(t *testing.T) {
	ret := unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K}
	for _, bad := range []Filter{
		{},
		{{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS}},
		{{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 64}, ret},
		{{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 2}, ret},
		{{Code: unix.BPF_JMP | unix.BPF_JA, K: 1}, ret},
		{{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: 1}, ret},
		{{Code: unix.BPF_RET | unix.BPF_A}},
		{{Code: unix.BPF_ST}, ret},
	} {
		b, err := binary.Append(nil, binary.LittleEndian, bad)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Read(b); err == nil {
			t.Errorf("taken: %+v", bad)
		}
	}
}
