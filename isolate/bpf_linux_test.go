//go:build amd64 || arm64

package isolate

import (
	"math/rand/v2"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/jailrun/jail/internal/syscalls"
)

// answering is a filter of one answer for the call nr with the first argument arg, another for nr with others, and a
// third for all else.
func answering(nr, arg, is, other, rest uint32) program {
	return program{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: syscalls.OffNR},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: nr, Jf: 4},
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 16},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: arg, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: is},
		{Code: unix.BPF_RET | unix.BPF_K, K: other},
		{Code: unix.BPF_RET | unix.BPF_K, K: rest},
	}
}

var someVerdicts = []uint32{
	unix.SECCOMP_RET_KILL_PROCESS, unix.SECCOMP_RET_KILL_THREAD, unix.SECCOMP_RET_TRAP, unix.SECCOMP_RET_ERRNO | 1,
	unix.SECCOMP_RET_ERRNO | 38, unix.SECCOMP_RET_USER_NOTIF, unix.SECCOMP_RET_TRACE | 7, unix.SECCOMP_RET_LOG, unix.SECCOMP_RET_ALLOW,
}

// TestMerged: one filter says of each call what the kernel makes of several, but that it asks where they refuse.
func TestMerged(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	some := func() uint32 { return someVerdicts[r.IntN(len(someVerdicts))] }
	baseline, err := readProgram(baseline())
	if err != nil {
		t.Fatal(err)
	}
	list, err := readProgram(defaultAllowList())
	if err != nil {
		t.Fatal(err)
	}
	for n := range 300 {
		filters := []program{list, baseline}
		if n > 0 {
			filters = nil
			for range 1 + r.IntN(3) {
				filters = append(filters, answering(uint32(r.IntN(4)), uint32(r.IntN(2)), some(), some(), some()))
			}
		}
		watch := []uint32{uint32(r.IntN(4)), 200}
		merged := asking(watch)
		for _, p := range slices.Backward(filters) {
			merged = p.notifying().with(merged)
		}
		if _, err := readProgram(merged.bytes()); err != nil {
			t.Fatal(err)
		}
		for nr := range uint32(470) {
			for _, arch := range []uint32{nativeArch, unix.AUDIT_ARCH_I386, unix.AUDIT_ARCH_ARM} {
				d := syscalls.Data{NR: nr, Arch: arch, Args: [6]uint64{uint64(r.IntN(2)), r.Uint64()}}
				if n > 0 && nr > 4 && nr != 200 {
					continue
				}
				want := verdictOf(filters, &d)
				if want&unix.SECCOMP_RET_ACTION_FULL == unix.SECCOMP_RET_ERRNO {
					want = unix.SECCOMP_RET_USER_NOTIF
				}
				if arch == nativeArch && slices.Contains(watch, nr) && stricter(unix.SECCOMP_RET_USER_NOTIF, want) {
					want = unix.SECCOMP_RET_USER_NOTIF
				}
				if got, _ := merged.run(&d); got&unix.SECCOMP_RET_ACTION_FULL != want&unix.SECCOMP_RET_ACTION_FULL {
					t.Fatalf("filters %d, call %d of %#x: %#x, want %#x", n, nr, arch, got, want)
				}
			}
		}
	}
}

// TestOnlyAndExcept: a filter for some calls, and one for all others, are together the whole.
func TestOnlyAndExcept(t *testing.T) {
	p := answering(3, 0, unix.SECCOMP_RET_ERRNO|1, unix.SECCOMP_RET_ERRNO|2, unix.SECCOMP_RET_ERRNO|3)
	for _, those := range [][]uint32{{3}, {3, 5}, {1, 2, 7}} {
		only, except := p.only(those...), p.except(those...)
		for nr := range uint32(9) {
			for _, arch := range []uint32{nativeArch, unix.AUDIT_ARCH_I386} {
				d := syscalls.Data{NR: nr, Arch: arch}
				mine := arch == nativeArch && slices.Contains(those, nr)
				whole, _ := p.run(&d)
				for _, part := range []struct {
					p    program
					mine bool
				}{{only, mine}, {except, !mine}} {
					want := uint32(unix.SECCOMP_RET_ALLOW)
					if part.mine {
						want = whole
					}
					if got, _ := part.p.run(&d); got != want {
						t.Errorf("%v, call %d of %#x: %#x, want %#x", those, nr, arch, got, want)
					}
				}
			}
		}
	}
}

// TestAskingWith: a call is asked for if the argument is there, in whichever half.
func TestAskingWith(t *testing.T) {
	p := askingWith(unix.SYS_SENDTO, 4)
	for _, c := range []struct {
		d    syscalls.Data
		asks bool
	}{
		{syscalls.Data{NR: unix.SYS_SENDTO, Arch: nativeArch, Args: [6]uint64{1, 2, 3, 4, 0, 5}}, false},
		{syscalls.Data{NR: unix.SYS_SENDTO, Arch: nativeArch, Args: [6]uint64{4: 1}}, true},
		{syscalls.Data{NR: unix.SYS_SENDTO, Arch: nativeArch, Args: [6]uint64{4: 1 << 32}}, true},
		{syscalls.Data{NR: unix.SYS_SENDMSG, Arch: nativeArch, Args: [6]uint64{4: 1}}, false},
		{syscalls.Data{NR: unix.SYS_SENDTO, Arch: unix.AUDIT_ARCH_I386, Args: [6]uint64{4: 1}}, false},
	} {
		if got, _ := p.run(&c.d); got == unix.SECCOMP_RET_USER_NOTIF != c.asks {
			t.Errorf("%+v: %#x", c.d, got)
		}
	}
}

// TestCallNames: the table is that of this architecture.
func TestCallNames(t *testing.T) {
	names, numbers := calls()
	for name, nr := range map[string]uint32{"openat": unix.SYS_OPENAT, "connect": unix.SYS_CONNECT, "keyctl": unix.SYS_KEYCTL, "mseal": unix.SYS_MSEAL} {
		if names[nr] != name || numbers[name] != nr {
			t.Errorf("%s is not %d", name, nr)
		}
	}
}

// TestDenials: what a payload makes up does not grow a report beyond its bounds.
func TestDenials(t *testing.T) {
	var d denials
	for n := range 3 * maxDenials {
		d.add(Denial{Call: "open", Path: string(make([]byte, 10000)) + string(rune('a'+n)), Why: ByFilter})
		d.add(Denial{Call: "open", Path: "/x", Why: ByFilter})
	}
	if len(d.list) != maxDenials || len(d.at) != maxDenials || d.more != int64(2*maxDenials+1) {
		t.Errorf("%d entries, %d more", len(d.list), d.more)
	}
	for _, n := range d.list {
		if len(n.Path) > maxWord+len("…") {
			t.Errorf("a path of %d bytes", len(n.Path))
		}
	}
	if d.list[1].Count != 3*maxDenials {
		t.Errorf("/x was counted %d times", d.list[1].Count)
	}
}
