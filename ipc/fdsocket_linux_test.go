//go:build amd64 || arm64

package ipc

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// fdSockets returns both ends, and checks that nothing of them is left.
func fdSockets(t testing.TB) (a, b *FDSocket) {
	t.Helper()
	leavesNothing(t)
	a, f, err := FDSocketPair()
	if err != nil {
		t.Fatal(err)
	}
	b, err = NewFDSocket(f)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close(); b.Close() })
	return a, b
}

// memFile is a file that can be told from all others.
func memFile(t testing.TB) *os.File {
	t.Helper()
	f := os.NewFile(uintptr(must(unix.MemfdCreate("fd", unix.MFD_CLOEXEC))), "fd")
	t.Cleanup(func() { f.Close() })
	return f
}

func inode(fd int) uint64 {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		panic(err)
	}
	return st.Ino
}

func TestFDSocketPasses(t *testing.T) {
	a, b := fdSockets(t)
	ctx := patient(t)
	files := make([]*os.File, MaxFDs)
	for i := range files {
		files[i] = memFile(t)
	}
	for _, n := range []int{0, 1, 2, 28, MaxFDs} {
		text := fmt.Sprint(n)
		if err := a.Send(ctx, []byte(text), files[:n]...); err != nil {
			t.Fatal(err)
		}
		if err := a.Send(ctx, []byte("y"), files[:n]...); err != nil {
			t.Fatal(err)
		}
		data := make([]byte, 10)
		got, came, err := b.Recv(ctx, data, n)
		if err != nil || string(data[:got]) != text || len(came) != n {
			t.Fatalf("%d fds: %q, %d came, %v", n, data[:got], len(came), err)
		}
		for i, f := range came {
			fd := int(f.Fd())
			if inode(fd) != inode(int(files[i].Fd())) {
				t.Errorf("fd %d of %d is another", i, n)
			}
			if flags := must(unix.FcntlInt(f.Fd(), unix.F_GETFD, 0)); flags&unix.FD_CLOEXEC == 0 {
				t.Errorf("fd %d of %d is not close-on-exec", i, n)
			}
			f.Close()
		}
		fds := make([]int, MaxFDs+1)
		got, byNumber, err := b.RecvFDs(ctx, data, fds)
		if err != nil || string(data[:got]) != "y" || byNumber != n {
			t.Fatalf("by number: %q, %d, %v", data[:got], byNumber, err)
		}
		for i, fd := range fds[:n] {
			if inode(fd) != inode(int(files[i].Fd())) {
				t.Errorf("fd %d of %d is another", i, n)
			}
		}
		CloseFDs(fds[:n])
	}
	wantError(t, a.Send(ctx, []byte("x"), append(slices.Clone(files), files[0])...), unix.EINVAL)
	wantError(t, a.Send(ctx, nil, files[0]), unix.EINVAL)
	_, _, err := b.Recv(ctx, nil, 1)
	wantError(t, err, unix.EINVAL)
	wantError(t, a.Send(ctx, make([]byte, 8<<20), files[0]), unix.EMSGSIZE)
	files[0].Close()
	wantError(t, a.Send(ctx, []byte("x"), files[:2]...), os.ErrClosed)
}

func TestNewFDSocketRefuses(t *testing.T) {
	leavesNothing(t)
	pair := must(unixPair(unix.SOCK_STREAM))
	defer unix.Close(pair[1])
	_, err := NewFDSocket(os.NewFile(uintptr(pair[0]), "stream"))
	wantError(t, err, unix.EPROTOTYPE)
	_, err = NewFDSocket(must(os.Open(os.DevNull)))
	wantError(t, err, unix.ENOTSOCK)
}

func unixPair(kind int) ([2]int, error) {
	return unix.Socketpair(unix.AF_UNIX, kind|unix.SOCK_CLOEXEC, 0)
}

func TestCloseFDs(t *testing.T) {
	leavesNothing(t)
	all := make([]int, 9)
	for i := range all {
		all[i] = must(unix.Open(os.DevNull, unix.O_RDONLY|unix.O_CLOEXEC, 0))
	}
	kept := all[4]
	CloseFDs([]int{all[8], all[0], all[1], all[2], all[3], all[5], all[7], all[6]})
	if _, err := unix.FcntlInt(uintptr(kept), unix.F_GETFD, 0); err != nil {
		t.Errorf("what was not named is closed: %v", err)
	}
	unix.Close(kept)
}

// A sender can leave no fd here that was not asked for, whatever it sends.
func TestFDSocketTakesNoMoreThanAskedFor(t *testing.T) {
	ours, f, err := FDSocketPair()
	if err != nil {
		t.Fatal(err)
	}
	defer ours.Close()
	defer f.Close()
	leavesNothing(t)
	ctx := patient(t)
	theirs := int(f.Fd())
	send := func(data []byte, control []byte) {
		t.Helper()
		if err := unix.Sendmsg(theirs, data, control, nil, 0); err != nil {
			t.Fatal(err)
		}
	}
	before := openFDs(t)
	check := func(what string, err, want error) {
		t.Helper()
		if !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", what, err, want)
		}
		if n := openFDs(t); n != before {
			t.Fatalf("%s: %d fds are left", what, n-before)
		}
	}
	data := make([]byte, 8)
	for _, most := range []int{0, 1, 2, 3, 28} {
		for _, more := range []int{1, 2, MaxFDs - most} {
			what := fmt.Sprintf("%d fds where %d were asked for", most+more, most)
			send(data, unix.UnixRights(slices.Repeat([]int{theirs}, most+more)...))
			_, files, err := ours.Recv(ctx, data, most)
			if files != nil {
				t.Fatal(what)
			}
			check(what, err, unix.EMSGSIZE)
		}
	}
	send(make([]byte, 9), unix.UnixRights(theirs, theirs))
	_, _, err = ours.Recv(ctx, data, 2)
	check("too much data", err, unix.EMSGSIZE)
	send(nil, nil)
	_, _, err = ours.Recv(ctx, data, 2)
	check("an empty message", err, io.EOF)
	me := &unix.Ucred{Pid: int32(os.Getpid()), Uid: uint32(os.Getuid()), Gid: uint32(os.Getgid())}
	send(data, slices.Concat(unix.UnixRights(theirs), unix.UnixCredentials(me), unix.UnixRights(theirs, theirs)))
	n, files, err := ours.Recv(ctx, data, 3)
	for _, f := range files {
		f.Close()
	}
	check("several control messages", err, nil)
	if n != len(data) || len(files) != 3 {
		t.Errorf("%d bytes, %d fds", n, len(files))
	}
	// Credentials take the fds' room where somebody wants them.
	if err := ours.raw.Control(func(fd uintptr) { err = passIdentity(int(fd), true) }); err != nil {
		t.Fatal(err)
	}
	for most := range 12 {
		send(data, unix.UnixRights(slices.Repeat([]int{theirs}, most+1)...))
		_, files, err := ours.Recv(ctx, data, most)
		if err == nil {
			t.Errorf("%d of %d fds came", len(files), most+1)
		}
		check("credentials", err, err)
	}
}

// Fds for which RLIMIT_NOFILE leaves no room are dropped by the kernel without an error: the message fails, and what came of
// it is closed.
func TestFDSocketWithFullTable(t *testing.T) {
	a, b := fdSockets(t)
	ctx := patient(t)
	file := memFile(t)
	before := openFDs(t)
	var old unix.Rlimit
	if err := unix.Prlimit(0, unix.RLIMIT_NOFILE, nil, &old); err != nil {
		t.Fatal(err)
	}
	for room := range 4 {
		for range 2 { // the second message shows that the first has left nothing
			if err := a.Send(ctx, []byte("x"), slices.Repeat([]*os.File{file}, 28)...); err != nil {
				t.Fatal(err)
			}
		}
		free := must(unix.FcntlInt(file.Fd(), unix.F_DUPFD_CLOEXEC, 0)) // the lowest
		unix.Close(free)
		limit := unix.Rlimit{Cur: uint64(free + room), Max: old.Max}
		if err := unix.Prlimit(0, unix.RLIMIT_NOFILE, &limit, nil); err != nil {
			t.Fatal(err)
		}
		_, _, err1 := b.Recv(ctx, make([]byte, 1), 28)
		_, _, err2 := b.Recv(ctx, make([]byte, 1), 28)
		if err := unix.Prlimit(0, unix.RLIMIT_NOFILE, &old, nil); err != nil {
			t.Fatal(err)
		}
		for _, err := range []error{err1, err2} {
			wantError(t, err, unix.EMFILE)
			if err == nil || !strings.Contains(err.Error(), "RLIMIT_NOFILE leaves room for "+strconv.Itoa(room)) {
				t.Errorf("room for %d: %v", room, err)
			}
		}
		if n := openFDs(t); n != before {
			t.Fatalf("room for %d: %d fds are left", room, n-before)
		}
	}
}

func TestFDSocketWaits(t *testing.T) {
	a, b := fdSockets(t)
	ctx := patient(t)
	file := memFile(t)
	data := make([]byte, 1)

	short, cancel := context.WithTimeout(ctx, time.Millisecond)
	_, _, err := b.Recv(short, data, 1)
	wantError(t, err, context.DeadlineExceeded)
	cancel()
	_, _, err = b.Recv(short, data, 1)
	wantError(t, err, context.DeadlineExceeded)

	// The socket is full when nobody receives; what was not sent is not there later.
	sent := 0
	for err = nil; err == nil; {
		short, cancel := context.WithTimeout(ctx, 10*time.Millisecond)
		if err = a.Send(short, data, file); err == nil {
			sent++
		}
		cancel()
	}
	wantError(t, err, context.DeadlineExceeded)
	fds := make([]int, 1)
	for range sent {
		if _, _, err := b.RecvFDs(ctx, data, fds); err != nil {
			t.Fatal(err)
		}
		CloseFDs(fds)
	}
	// Both directions work on after that.
	got := make(chan error)
	go func() {
		_, n, err := b.RecvFDs(ctx, data, fds)
		CloseFDs(fds[:n])
		got <- err
	}()
	time.Sleep(time.Millisecond)
	if err := errors.Join(a.Send(ctx, []byte("x"), file), <-got); err != nil {
		t.Fatal(err)
	}
	// Who waits for his turn, or for a message, is told of the end.
	for range 2 {
		go func() {
			_, _, err := b.RecvFDs(ctx, make([]byte, 1), nil)
			got <- err
		}()
	}
	waiting, cancel := context.WithCancel(ctx)
	time.AfterFunc(2*time.Millisecond, cancel)
	_, _, err = b.RecvFDs(waiting, data, nil)
	wantError(t, err, context.Canceled)
	b.Close()
	for range 2 {
		wantError(t, <-got, ErrClosed)
	}
	wantError(t, a.Send(ctx, data, file), ErrBroken)
}

// What the other side has sent comes before its end, also where that has not read all that was sent to it: the kernel says
// ECONNRESET first then.
func TestFDSocketEnd(t *testing.T) {
	a, b := fdSockets(t)
	ctx := patient(t)
	file := memFile(t)
	if err := errors.Join(a.Send(ctx, []byte("x"), file), b.Send(ctx, []byte("y"), file), b.Close()); err != nil {
		t.Fatal(err)
	}
	data := make([]byte, 1)
	_, files, err := a.Recv(ctx, data, 1)
	if err != nil || len(files) != 1 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	files[0].Close()
	_, _, err = a.Recv(ctx, data, 1)
	wantError(t, err, io.EOF)
	wantError(t, a.Send(ctx, data, file), ErrBroken)
}

// Many senders and receivers at once: each message arrives once and whole.
func TestFDSocketIsShared(t *testing.T) {
	a, b := fdSockets(t)
	ctx := patient(t)
	const parties, each = 4, 200
	file := memFile(t)
	var seen [parties * each]atomic.Int32
	var all sync.WaitGroup
	for p := range parties {
		all.Go(func() {
			for i := range each {
				number := p*each + i
				data := binary.LittleEndian.AppendUint32(nil, uint32(number))
				if err := a.Send(ctx, data, slices.Repeat([]*os.File{file}, number%5)...); err != nil {
					t.Error(err)
				}
			}
		})
		all.Go(func() {
			for range each {
				data := make([]byte, 4)
				_, files, err := b.Recv(ctx, data, 5)
				number := binary.LittleEndian.Uint32(data)
				if err != nil || len(files) != int(number%5) {
					t.Errorf("message %d: %d files, %v", number, len(files), err)
					return
				}
				for _, f := range files {
					f.Close()
				}
				seen[number].Add(1)
			}
		})
	}
	all.Wait()
	for i := range seen {
		if n := seen[i].Load(); n != 1 {
			t.Errorf("message %d came %d times", i, n)
		}
	}
}

const fdPartyEnv = "IPC_TEST_FD_PARTY"

// The test binary plays the other process, with its end of the socket as fd 3.
func init() {
	party := os.Getenv(fdPartyEnv)
	if party == "" {
		return
	}
	ctx := context.Background()
	file := os.NewFile(uintptr(must(unix.MemfdCreate("fd", unix.MFD_CLOEXEC))), "fd")
	if party == "flood" {
		fmt.Print(floodedFDs(file))
		os.Exit(0)
	}
	s := must(NewFDSocket(os.NewFile(3, "socket")))
	data, fds := make([]byte, 8), make([]int, 28)
	switch party {
	case "send": // how many fds come along, and that it is whole
		for number := uint32(0); ; number++ {
			n := int(number % 29)
			data = binary.LittleEndian.AppendUint32(data[:0], number)
			data = binary.LittleEndian.AppendUint32(data, uint32(n))
			if err := s.SendFDs(ctx, data, slices.Repeat([]int{int(file.Fd())}, n)...); err != nil {
				os.Exit(1)
			}
		}
	case "receive":
		for {
			_, n, err := s.RecvFDs(ctx, data, fds)
			if err != nil {
				os.Exit(1)
			}
			CloseFDs(fds[:n])
		}
	}
}

func fdParty(party string, extra ...*os.File) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), fdPartyEnv+"="+party, "GORACE=atexit_sleep_ms=0")
	cmd.ExtraFiles = extra
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

func startFDParty(t testing.TB, party string) (*FDSocket, *exec.Cmd) {
	t.Helper()
	s, f, err := FDSocketPair()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	cmd := fdParty(party, f)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return s, cmd
}

// TestFDSocketKills kills the sender, or the receiver, at random moments. What was sent arrives whole, then the end is told,
// and no fd is left.
func TestFDSocketKills(t *testing.T) {
	leavesNothing(t)
	kills := 20
	if sweeping {
		kills = 1000
	}
	ctx := patient(t)
	file := memFile(t)
	before := openFDs(t)
	random := rand.New(rand.NewPCG(1, 13))
	for i := range kills {
		party := []string{"send", "receive"}[i%2]
		s, cmd := startFDParty(t, party)
		delay := time.Duration(random.IntN(30_000_000))
		killed := make(chan struct{})
		go func() {
			defer close(killed)
			time.Sleep(delay)
			cmd.Process.Kill()
			cmd.Wait()
		}()
		messages := 0
		var err error
		for number := uint32(0); err == nil; number++ {
			if party == "receive" {
				err = s.SendFDs(ctx, []byte("x"), slices.Repeat([]int{int(file.Fd())}, int(number%29))...)
				continue
			}
			data, fds := make([]byte, 8), make([]int, 28)
			var n, came int
			if n, came, err = s.RecvFDs(ctx, data, fds); err != nil {
				break
			}
			messages++
			if n != 8 || binary.LittleEndian.Uint32(data) != number || binary.LittleEndian.Uint32(data[4:]) != uint32(came) {
				t.Fatalf("message %d: %x with %d fds", number, data[:n], came)
			}
			CloseFDs(fds[:came])
		}
		if want := map[string]error{"send": io.EOF, "receive": ErrBroken}[party]; !errors.Is(err, want) {
			t.Errorf("%s: the end was told by %v, want %v", party, err, want)
		}
		<-killed
		s.Close()
		eventually(t, "no fd is left", func() bool { return openFDs(t) <= before })
	}
}

// The kernel bounds the fds that are under way by RLIMIT_NOFILE, for who has no CAP_SYS_RESOURCE: Send waits.
func TestFDSocketFlood(t *testing.T) {
	leavesNothing(t)
	if out, err := fdParty("flood").Output(); err != nil || string(out) != "ok" {
		t.Errorf("%v: %s", err, out)
	}
}

// floodedFDs runs in a process of its own, of a user that nobody else is.
func floodedFDs(file *os.File) string {
	if os.Geteuid() == 0 {
		if err := syscall.Setuid(3_000_000 + os.Getpid()); err != nil {
			return err.Error()
		}
	}
	limit := unix.Rlimit{Cur: 100, Max: 100}
	if err := unix.Prlimit(0, unix.RLIMIT_NOFILE, &limit, nil); err != nil {
		return err.Error()
	}
	a, f, err := FDSocketPair()
	if err != nil {
		return err.Error()
	}
	b, err := NewFDSocket(f)
	if err != nil {
		return err.Error()
	}
	send := func(patience time.Duration) error {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		return a.Send(ctx, []byte("x"), slices.Repeat([]*os.File{file}, 28)...)
	}
	sent := 0
	for ; err == nil; sent++ {
		err = send(20 * time.Millisecond)
	}
	if !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, unix.ETOOMANYREFS) || !strings.Contains(err.Error(), "RLIMIT_NOFILE") {
		return fmt.Sprintf("after %d messages: %v", sent, err)
	}
	again := make(chan error)
	go func() { again <- send(patience) }()
	for range sent - 1 {
		_, files, err := b.Recv(context.Background(), make([]byte, 1), 28)
		if err != nil {
			return err.Error()
		}
		for _, f := range files {
			f.Close()
		}
	}
	if err := <-again; err != nil {
		return err.Error()
	}
	return "ok"
}
