//go:build amd64 || arm64

package ipc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

// sent is what handlers get.
type sent struct {
	mu       sync.Mutex
	lines    []string
	progress []string
	results  map[string]*os.File
}

func (s *sent) handlers() Handlers {
	return Handlers{
		Log: func(level slog.Level, line string) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.lines = append(s.lines, level.String()+" "+line)
		},
		Progress: func(done, total uint64, what string) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.progress = append(s.progress, fmt.Sprintf("%d/%d %s", done, total, what))
		},
		Result: func(name string, file *os.File) {
			s.mu.Lock()
			defer s.mu.Unlock()
			if before := s.results[name]; before != nil {
				before.Close()
			}
			s.results[name] = file
		},
	}
}

func (s *sent) said() (lines, progress []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.lines), slices.Clone(s.progress)
}

func (s *sent) result(name string) *os.File {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.results[name]
}

// newBroker returns a broker that leaves nothing: not a goroutine, not an fd.
func newBroker(t testing.TB) *Broker {
	t.Helper()
	leavesNothing(t)
	return oneOfSeveral(t)
}

func oneOfSeveral(t testing.TB) *Broker {
	b := NewBroker()
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
		if len(b.segments) != 0 || len(b.peers) != 0 || len(b.locks.locks) != 0 {
			t.Errorf("left in the broker: %v, %v, %v", b.segments, b.peers, b.locks.locks)
		}
	})
	return b
}

func leavesNothing(t testing.TB) {
	before := openFDs(t)
	t.Cleanup(func() {
		goleak.VerifyNone(t)
		eventually(t, "no fd is left", func() bool { return openFDs(t) <= before })
	})
}

func openFDs(t testing.TB) int {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, e := range entries {
		// The runtime's own come when they are needed.
		if to, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil && to != "anon_inode:[eventpoll]" && to != "anon_inode:[eventfd]" {
			n++
		}
	}
	return n
}

func newPeer(t testing.TB, b *Broker, name string, rules Rules) (*Peer, *sent) {
	t.Helper()
	s := &sent{results: map[string]*os.File{}}
	p, err := b.Peer(name, rules, s.handlers())
	if err != nil {
		t.Fatal(err)
	}
	return p, s
}

// connect returns a session of this process.
func connect(t testing.TB, p *Peer) *Authenticated {
	t.Helper()
	a, err := p.Session(patient(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close() })
	return a
}

func wantError(t testing.TB, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("got %v, want %v", err, want)
	}
}

// TestTheorem_7_3_1_OnlyLegalOrdersCompile: the protocol's state is a type, so what is out of order has no method.
func TestTheorem_7_3_1_OnlyLegalOrdersCompile(t *testing.T) {
	entries, err := os.ReadDir("testdata/order")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		t.Run(e.Name(), func(t *testing.T) {
			out, err := exec.CommandContext(patient(t), need(t, "go"), "vet", "./testdata/order/"+e.Name()).CombinedOutput()
			if e.Name() == "legal" {
				if err != nil {
					t.Errorf("%v: %s", err, out)
				}
				return
			}
			if err == nil || !strings.Contains(string(out), "undefined (type *ipc.") {
				t.Errorf("%v: %s", err, out)
			}
		})
	}
}

func TestBrokerKnowsItsPeer(t *testing.T) {
	b := newBroker(t)
	rules := Rules{Log: true}
	var mu sync.Mutex
	var members []int
	handlers := (&sent{}).handlers()
	handlers.Member = func(pid int, pidfd *os.File) error {
		mu.Lock()
		defer mu.Unlock()
		members = append(members, pid)
		if len(members) > 2 {
			return errors.New("not of this jail")
		}
		return nil
	}
	p, err := b.Peer("jail 1", rules, handlers)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "socket")
	if err := p.Listen(path); err != nil {
		t.Fatal(err)
	}
	dial := func() (*Authenticated, error) {
		h, err := DialPath(path)
		if err != nil {
			t.Fatal(err)
		}
		return h.Authenticate(patient(t))
	}
	a, err := dial()
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	inherited := connect(t, p)
	for _, a := range []*Authenticated{a, inherited} {
		if a.Jail != "jail 1" || a.Pinned != pinsPeers() {
			t.Errorf("welcome %q, %v", a.Jail, a.Pinned)
		}
	}
	if _, err := dial(); !errors.Is(err, ErrDenied) {
		t.Errorf("a stranger: %v", err)
	}
	mu.Lock()
	defer mu.Unlock()
	for _, pid := range members {
		if pid != os.Getpid() {
			t.Errorf("pid %d, want %d", pid, os.Getpid())
		}
	}
}

// pinsPeers says whether this kernel gives pidfds of peers.
func pinsPeers() bool {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET, 0)
	if err != nil {
		return false
	}
	defer unix.Close(pair[0])
	defer unix.Close(pair[1])
	_, err = unix.GetsockoptInt(pair[0], unix.SOL_SOCKET, unix.SO_PASSPIDFD)
	return err == nil
}

// Before Linux 6.5 a pidfd is opened by the pid that the credentials have.
func TestIdentityByCredentials(t *testing.T) {
	me := &unix.Ucred{Pid: int32(os.Getpid()), Uid: uint32(os.Geteuid()), Gid: uint32(os.Getegid())}
	id, err := identify(me, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer id.close()
	if id.pinned || id.dead() || id.pid != os.Getpid() {
		t.Errorf("%+v", id)
	}
	other := *me
	other.Uid++
	if id, err := identify(&other, -1); err == nil {
		id.close()
		t.Error("a process of another user has taken the pid, and nobody saw it")
	}
	gone := exec.Command("true")
	if err := gone.Run(); err != nil {
		t.Fatal(err)
	}
	other = *me
	other.Pid = int32(gone.Process.Pid)
	if id, err := identify(&other, -1); err == nil {
		id.close()
		t.Error("the process is dead")
	}
	other.Pid = 0
	if id, err := identify(&other, -1); err == nil {
		id.close()
		t.Error("a process that is not visible here")
	}
}

func TestBrokerRefusesWhatNoRuleAllows(t *testing.T) {
	b := newBroker(t)
	p, s := newPeer(t, b, "nothing", Rules{})
	a := connect(t, p)
	ctx := patient(t)
	for name, call := range map[string]func() error{
		"open":     func() error { _, err := a.Open(ctx, "root", "file", MayRead); return err },
		"lock":     func() error { return a.Lock(ctx, "lock", Exclusive) },
		"memory":   func() error { _, err := a.Memory(ctx, "memory"); return err },
		"read":     func() error { _, err := a.ReadMemory(ctx, "memory"); return err },
		"log":      func() error { return a.Log(ctx, slog.LevelInfo, "line") },
		"progress": func() error { return a.Progress(ctx, 1, 2, "") },
	} {
		if err := call(); !errors.Is(err, ErrDenied) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if lines, progress := s.said(); len(lines)+len(progress) != 0 {
		t.Errorf("handled: %q, %q", lines, progress)
	}
}

func TestBrokerOpensFilesOfItsRoots(t *testing.T) {
	outside := t.TempDir()
	dir := filepath.Join(outside, "root")
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.MkdirAll(filepath.Join(dir, "sub"), 0o755))
	must(os.WriteFile(filepath.Join(outside, "secret"), []byte("secret"), 0o600))
	must(os.WriteFile(filepath.Join(dir, "sub", "file"), []byte("text"), 0o644))
	must(os.Symlink("sub/file", filepath.Join(dir, "inner")))
	must(os.Symlink("../secret", filepath.Join(dir, "outer")))
	must(os.Symlink(filepath.Join(outside, "secret"), filepath.Join(dir, "absolute")))
	must(os.Symlink("/proc/self/fd/0", filepath.Join(dir, "magic")))
	must(unix.Mkfifo(filepath.Join(dir, "fifo"), 0o666))
	must(os.Symlink("made", filepath.Join(dir, "dangling")))

	b := newBroker(t)
	p, _ := newPeer(t, b, "files", Rules{Files: []FileRule{
		{Name: "read", Path: dir, Access: MayRead},
		{Name: "write", Path: dir, Access: MayWrite},
		{Name: "create", Path: dir, Access: MayCreate},
		{Name: "one", Path: filepath.Join(dir, "sub", "file"), Access: MayRead},
	}})
	a := connect(t, p)
	ctx := patient(t)

	for _, c := range []struct{ name, path string }{{"read", "sub/file"}, {"read", "inner"}, {"one", ""}} {
		f, err := a.Open(ctx, c.name, c.path, MayRead)
		if err != nil {
			t.Errorf("%v: %v", c, err)
			continue
		}
		if text, err := io.ReadAll(f); err != nil || string(text) != "text" {
			t.Errorf("%v: %q, %v", c, text, err)
		}
		// Who has an fd to read can't come to write, by whatever way.
		if w, err := os.OpenFile("/proc/self/fd/"+strconv.Itoa(int(f.Fd())), os.O_WRONLY, 0); err == nil {
			if _, err := w.Write([]byte("x")); err == nil {
				t.Errorf("%v was opened anew and written", c)
			}
			w.Close()
		}
		f.Close()
	}
	for _, c := range []struct {
		name, path string
		access     Access
		want       error
	}{
		{"read", "sub/file", MayWrite, ErrDenied},
		{"write", "sub/new", MayCreate, ErrDenied},
		{"read", "outer", MayRead, unix.EXDEV},
		{"read", "absolute", MayRead, unix.EXDEV},
		{"read", "../secret", MayRead, unix.EXDEV},
		{"read", "/etc/passwd", MayRead, unix.EXDEV},
		{"read", "magic", MayRead, unix.EXDEV},
		{"read", "fifo", MayRead, ErrDenied},
		{"write", "fifo", MayWrite, ErrDenied},
		{"read", "sub", MayRead, ErrDenied},
		{"read", ".", MayRead, ErrDenied},
		{"read", "", MayRead, ErrDenied},
		{"one", "x", MayRead, ErrDenied},
		{"none", "x", MayRead, ErrDenied},
		{"read", "absent", MayRead, unix.ENOENT},
		{"write", "absent", MayWrite, unix.ENOENT},
		{"read", "a\x00b", MayRead, unix.EINVAL},
		{"create", "dangling", MayCreate, unix.EAGAIN},
	} {
		f, err := a.Open(ctx, c.name, c.path, c.access)
		if err == nil {
			f.Close()
		}
		if !errors.Is(err, c.want) {
			t.Errorf("%v: %v", c, err)
		}
	}
	if os.Geteuid() == 0 {
		must(unix.Mknod(filepath.Join(dir, "null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
		_, err := a.Open(ctx, "write", "null", MayWrite)
		wantError(t, err, ErrDenied)
	}
	f, err := a.Open(ctx, "create", "sub/new", MayCreate)
	must(err)
	_, err = f.WriteString("made")
	must(err)
	f.Close()
	f, err = a.Open(ctx, "write", "sub/new", MayWrite)
	must(err)
	defer f.Close()
	if text, err := io.ReadAll(f); err != nil || string(text) != "made" {
		t.Errorf("%q, %v", text, err)
	}
}

// An ordinary user's launcher can make no mount: what its payload could open anew for writing is given as a copy.
func TestBrokerCopiesWhatCouldBeWritten(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	content := bytes.Repeat([]byte("0123456789"), 20000)
	if err := os.WriteFile(path, content, 0o400); err != nil {
		t.Fatal(err)
	}
	r, err := openRoot(FileRule{Name: "x", Path: path, Access: MayWrite}) // without the mount
	if err != nil {
		t.Fatal(err)
	}
	defer r.file.Close()
	var charged int64
	quota := int64(len(content))
	charge := func(n int64) error {
		if charged+n > quota {
			return ErrLimit
		}
		charged += n
		return nil
	}
	f, err := r.open("", accessRead, charge)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if text, err := io.ReadAll(f); err != nil || !bytes.Equal(text, content) || charged != quota {
		t.Errorf("%d bytes, %d charged, %v", len(text), charged, err)
	}
	if w, err := os.OpenFile("/proc/self/fd/"+strconv.Itoa(int(f.Fd())), os.O_RDWR, 0); err == nil {
		defer w.Close()
		if _, err := w.WriteAt([]byte("x"), 0); !errors.Is(err, unix.EPERM) {
			t.Errorf("written: %v", err)
		}
	}
	charged = 1
	if _, err := r.open("", accessRead, charge); !errors.Is(err, ErrLimit) || charged != 1 {
		t.Errorf("%v, %d charged", err, charged)
	}
}

func TestBrokerOpensSeveralFiles(t *testing.T) {
	dir := t.TempDir()
	var paths []string
	for i := range MaxOpen {
		path := strconv.Itoa(i)
		if err := os.WriteFile(filepath.Join(dir, path), []byte(path), 0o600); err != nil {
			t.Fatal(err)
		}
		paths = append(paths, path)
	}
	b := newBroker(t)
	p, _ := newPeer(t, b, "files", Rules{Files: []FileRule{{Name: "read", Path: dir, Access: MayRead}}})
	a := connect(t, p)
	ctx := patient(t)
	before := openFDs(t)
	for _, n := range []int{0, 1, 2, MaxOpen} {
		files, err := a.OpenAll(ctx, "read", paths[:n], MayRead)
		if err != nil || len(files) != n {
			t.Fatalf("%d paths: %d files, %v", n, len(files), err)
		}
		for i, f := range files {
			text, err := io.ReadAll(f)
			if err != nil || string(text) != paths[i] {
				t.Errorf("file %d of %d: %q, %v", i, n, text, err)
			}
			f.Close()
		}
	}
	none := func(err, want error, files []*os.File) {
		t.Helper()
		wantError(t, err, want)
		if len(files) > 0 {
			t.Errorf("%d files came", len(files))
		}
		eventually(t, "no fd is left", func() bool { return openFDs(t) <= before })
	}
	files, err := a.OpenAll(ctx, "read", append(paths[:5:5], "missing"), MayRead)
	none(err, unix.ENOENT, files)
	files, err = a.OpenAll(ctx, "read", append(paths[:5:5], ".."), MayRead)
	none(err, unix.EXDEV, files)
	files, err = a.OpenAll(ctx, "read", paths[:2], MayWrite)
	none(err, ErrDenied, files)
	files, err = a.OpenAll(ctx, "other", paths[:2], MayRead)
	none(err, ErrDenied, files)
	files, err = a.OpenAll(ctx, "read", append(paths[:MaxOpen:MaxOpen], "0"), MayRead)
	none(err, ErrLimit, files)
	files, err = a.OpenAll(ctx, "read", []string{"0\x000", "1"}, MayRead)
	none(err, unix.EINVAL, files)
	_, err = a.Open(ctx, "read", "0\x001", MayRead)
	none(err, unix.EINVAL, nil)
	// Who counts otherwise than this client does.
	for _, m := range []message{
		{Kind: kindOpen, S: "read", T: "0\x001", A: accessRead, B: 3},
		{Kind: kindOpen, S: "read", T: "0\x001", A: accessRead, B: 1},
		{Kind: kindOpen, S: "read", T: strings.Repeat("0\x00", MaxOpen) + "0", A: accessRead, B: MaxOpen + 1},
		{Kind: kindOpen, S: "read", T: "0", A: accessRead, B: 1 << 63},
	} {
		r, err := a.request(ctx, &m, nil)
		if err == nil {
			t.Errorf("%+v: %d files", m, len(r.files))
		}
	}
}

// A peer that asks for many files and does not read what it gets holds one answer's fds, or two while one is being sent.
func TestPeerThatDoesNotReadHoldsFewFiles(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	b := newBroker(t)
	p, _ := newPeer(t, b, "greedy", Rules{Files: []FileRule{{Name: "root", Path: dir, Access: MayRead}}})
	b.sendTimeout = time.Second
	r := connectRaw(t, p)
	r.hello()
	for id := range uint32(20) {
		if !r.say(message{
			Kind: kindOpen, ID: id + 1, S: "root", A: accessRead, B: MaxOpen,
			T: strings.Repeat("file\x00", MaxOpen-1) + "file",
		}) {
			break
		}
	}
	eventually(t, "the session is over", func() bool { return sessions(p) == 0 })
	answers := 0
	for {
		m, open := r.receive()
		if !open {
			break
		}
		if m.Kind == kindOpen|answerBit {
			answers++
		}
	}
	if answers < 1 || answers > 2 {
		t.Errorf("%d answers with %d files each", answers, MaxOpen)
	}
}

func TestBrokerLocks(t *testing.T) {
	b := newBroker(t)
	rules := Rules{Locks: []string{"a", "b"}}
	p1, _ := newPeer(t, b, "one", rules)
	p2, _ := newPeer(t, b, "two", rules)
	one, two := connect(t, p1), connect(t, p2)
	ctx := patient(t)
	if err := one.Lock(ctx, "a", Exclusive); err != nil {
		t.Fatal(err)
	}
	if ok, err := two.TryLock(ctx, "a", Shared); ok || err != nil {
		t.Errorf("%v, %v", ok, err)
	}
	// A wait that is over leaves nothing, whichever side ends it.
	short, cancel := context.WithTimeout(ctx, time.Millisecond)
	wantError(t, two.Lock(short, "a", Exclusive), context.DeadlineExceeded)
	cancel()
	stopped, cancel := context.WithCancel(ctx)
	go func() {
		for !waits(b, "a") {
			time.Sleep(time.Millisecond)
		}
		cancel()
	}()
	wantError(t, two.Lock(stopped, "a", Exclusive), context.Canceled)
	if waits(b, "a") {
		t.Error("a cancelled request waits on")
	}

	// Two jails that wait for each other: the request that closes the cycle is refused, and names both.
	if err := two.Lock(ctx, "b", Exclusive); err != nil {
		t.Fatal(err)
	}
	got := make(chan error)
	go func() { got <- two.Lock(ctx, "a", Exclusive) }()
	eventually(t, "two waits", func() bool { return waits(b, "a") })
	err := one.Lock(ctx, "b", Exclusive)
	if !errors.Is(err, ErrDeadlock) || !strings.Contains(err.Error(), "one") || !strings.Contains(err.Error(), "two") {
		t.Errorf("deadlock: %v", err)
	}
	if err := one.Unlock(ctx, "a"); err != nil {
		t.Error(err)
	}
	if err := <-got; err != nil {
		t.Error(err)
	}
	wantError(t, one.Unlock(ctx, "a"), ErrNotHeld)

	// The end of a session gives its locks back.
	go func() { got <- one.Lock(ctx, "a", Exclusive) }()
	eventually(t, "one waits", func() bool { return waits(b, "a") })
	two.Close()
	if err := <-got; err != nil {
		t.Error(err)
	}
}

func waits(b *Broker, lock string) bool {
	b.locks.mu.Lock()
	defer b.locks.mu.Unlock()
	l := b.locks.locks[lock]
	return l != nil && len(l.queue) > 0
}

func TestBrokerMemory(t *testing.T) {
	b := newBroker(t)
	rules := Rules{Memory: []MemoryRule{
		{Name: "all", Size: 8192, Access: MayWrite},
		{Name: "mine", Size: 8192, Access: MayOwn},
	}}
	p1, _ := newPeer(t, b, "one", rules)
	p2, _ := newPeer(t, b, "two", Rules{Memory: []MemoryRule{
		{Name: "all", Size: 8192, Access: MayWrite},
		{Name: "mine", Size: 8192, Access: MayRead},
	}})
	p3, _ := newPeer(t, b, "three", Rules{Memory: []MemoryRule{{Name: "all", Size: 4096, Access: MayWrite}}})
	one, two, three := connect(t, p1), connect(t, p2), connect(t, p3)
	ctx := patient(t)
	memory := func(s *Segment, err error) []uint64 {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		words, err := Slice[uint64](s, 0, 1024)
		if err != nil {
			t.Fatal(err)
		}
		return words
	}
	w1, w2 := memory(one.Memory(ctx, "all")), memory(two.Memory(ctx, "all"))
	w1[1000] = 5
	if w2[1000] != 5 {
		t.Error("two jails that name a segment have different ones")
	}
	_, err := three.Memory(ctx, "all")
	wantError(t, err, ErrConflict)

	_, err = two.file(ctx, "memory", "mine", &message{Kind: kindMemory, S: "mine", A: accessRead})
	wantError(t, err, ErrNotReady)
	waiting := make(chan error)
	go func() {
		s, err := two.ReadMemory(ctx, "mine")
		if err == nil {
			s.Close()
		}
		waiting <- err
	}()
	own, err := Create("mine", 8192)
	if err != nil {
		t.Fatal(err)
	}
	defer own.Close()
	words, err := Slice[uint64](own, 0, 1024)
	if err != nil {
		t.Fatal(err)
	}
	if err := one.Publish(ctx, "mine", own); err != nil {
		t.Fatal(err)
	}
	if err := <-waiting; err != nil {
		t.Errorf("who waited for it: %v", err)
	}
	wantError(t, one.Publish(ctx, "mine", own), ErrConflict)
	wantError(t, two.Publish(ctx, "mine", own), ErrDenied)
	read := memory(two.ReadMemory(ctx, "mine"))
	words[9] = 7
	if read[9] != 7 {
		t.Error("the reader does not see what the owner writes")
	}
	// The reader's fd gives nobody a way to write.
	f, err := two.file(ctx, "memory", "mine", &message{Kind: kindMemory, S: "mine", A: accessRead})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if w, err := os.OpenFile("/proc/self/fd/"+strconv.Itoa(int(f.Fd())), os.O_RDWR, 0); err == nil {
		if _, err := unix.Mmap(int(w.Fd()), 0, 4096, unix.PROT_WRITE, unix.MAP_SHARED); err == nil {
			t.Error("the reader maps it for writing")
		}
		if _, err := w.WriteAt([]byte("x"), 5000); err == nil {
			t.Error("the reader writes")
		}
		w.Close()
	}
	// With the owner's session the name is free, and the reader keeps what it has.
	one.Close()
	eventually(t, "the name is free", func() bool {
		b.mu.Lock()
		defer b.mu.Unlock()
		return b.segments[memoryKey("mine")] == nil
	})
	if read[9] != 7 {
		t.Error("the reader's memory has gone")
	}
	again := connect(t, p1)
	own2, err := Create("mine", 8192)
	if err != nil {
		t.Fatal(err)
	}
	defer own2.Close()
	if err := again.Publish(ctx, "mine", own2); err != nil {
		t.Error(err)
	}
	if err := two.Release(ctx, "all"); err != nil {
		t.Error(err)
	}
	wantError(t, two.Release(ctx, "all"), ErrNotHeld)
}

// Two jails that name a channel have it, and a third that does not, has not.
func TestBrokerChannels(t *testing.T) {
	b := newBroker(t)
	rules := Rules{Channels: []ChannelRule{{Name: "jobs", Element: 12, Capacity: 3}}}
	p1, _ := newPeer(t, b, "one", rules)
	p2, _ := newPeer(t, b, "two", rules)
	p3, _ := newPeer(t, b, "three", Rules{})
	one, two, three := connect(t, p1), connect(t, p2), connect(t, p3)
	ctx := patient(t)
	type job [3]uint32
	open := func(a *Authenticated) *Channel[job] {
		c, s, err := OpenChannel[job](ctx, a, "jobs")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		return c
	}
	from, to := open(one), open(two)
	if from.Cap() != 3 {
		t.Errorf("capacity %d", from.Cap())
	}
	if err := from.Send(ctx, job{1, 2, 3}); err != nil {
		t.Error(err)
	}
	if got, err := to.Recv(ctx); err != nil || got != (job{1, 2, 3}) {
		t.Errorf("%v, %v", got, err)
	}
	_, _, err := OpenChannel[job](ctx, three, "jobs")
	wantError(t, err, ErrDenied)
	_, _, err = OpenChannel[uint64](ctx, two, "jobs")
	wantError(t, err, ErrConflict)
	if err := one.ReleaseChannel(ctx, "jobs"); err != nil {
		t.Error(err)
	}
}

func TestChannelSizes(t *testing.T) {
	for _, c := range []struct{ got, want int }{
		{channelSize(1, 0), ChannelSize[byte](0)},
		{channelSize(1, 7), ChannelSize[byte](7)},
		{channelSize(3, 7), ChannelSize[[3]byte](7)},
		{channelSize(12, 7), ChannelSize[[3]uint32](7)},
		{channelSize(16, 9), ChannelSize[struct {
			A uint64
			B byte
		}](9)},
		{channelSize(64, 9), ChannelSize[[64]byte](9)},
	} {
		if c.got != c.want {
			t.Errorf("%d bytes, the channel takes %d", c.got, c.want)
		}
	}
}

// What is published must be sealed against writers, and have the size of the rule.
func TestBrokerTakesNoUnsealedMemory(t *testing.T) {
	b := newBroker(t)
	p, _ := newPeer(t, b, "one", Rules{Memory: []MemoryRule{{Name: "mine", Size: 8192, Access: MayOwn}}})
	a := connect(t, p)
	ctx := patient(t)
	publish := func(f *os.File, err error) error {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		_, err = a.request(ctx, &message{Kind: kindPublish, S: "mine"}, f)
		return err
	}
	writable, err := Create("x", 8192)
	if err != nil {
		t.Fatal(err)
	}
	defer writable.Close()
	if err := publish(writable.Share()); err == nil {
		t.Error("others can write to what was published")
	}
	large, err := Create("x", 16384)
	if err != nil {
		t.Fatal(err)
	}
	defer large.Close()
	wantError(t, publish(large.ShareReadOnly()), ErrConflict)
	if err := publish(os.Open("/etc/passwd")); err == nil {
		t.Error("a file was taken for memory")
	}
	if n, bytes := segments(b), memoryOf(p); n != 0 || bytes != 0 {
		t.Errorf("left: %d segments, %d bytes", n, bytes)
	}
}

func segments(b *Broker) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.segments)
}

func memoryOf(p *Peer) int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.memory
}

func TestBrokerQuotas(t *testing.T) {
	b := newBroker(t)
	p, s := newPeer(t, b, "one", Rules{
		Locks: []string{"a", "b", "c"}, Log: true, Results: []string{"out"},
		Memory: []MemoryRule{{Name: "m", Size: 8192, Access: MayWrite}, {Name: "n", Size: 8192, Access: MayWrite}},
		Quota:  Quota{Sessions: 2, Memory: 12000, Locks: 2, LogBytes: 100, Results: 1},
	})
	a := connect(t, p)
	ctx := patient(t)
	m, err := a.Memory(ctx, "m")
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	_, err = a.Memory(ctx, "n")
	wantError(t, err, ErrLimit)
	second := connect(t, p)
	_, err = second.Memory(ctx, "m") // each session that holds it counts
	wantError(t, err, ErrLimit)
	if err := a.Release(ctx, "m"); err != nil {
		t.Error(err)
	}
	n, err := second.Memory(ctx, "n")
	if err != nil {
		t.Fatal(err)
	}
	n.Close()
	if _, err := p.Connect(); !errors.Is(err, ErrLimit) {
		t.Errorf("a third session: %v", err)
	}
	for _, lock := range []string{"a", "b"} {
		if err := a.Lock(ctx, lock, Exclusive); err != nil {
			t.Error(err)
		}
	}
	wantError(t, a.Lock(ctx, "c", Exclusive), ErrLimit)
	if err := a.Log(ctx, slog.LevelWarn, "first"); err != nil {
		t.Error(err)
	}
	wantError(t, a.Log(ctx, slog.LevelWarn, strings.Repeat("x", 100)), ErrLimit)
	if lines, _ := s.said(); len(lines) != 1 || lines[0] != "WARN first" {
		t.Errorf("lines %q", lines)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := a.Result(ctx, "out", w); err != nil {
		t.Error(err)
	}
	wantError(t, a.Result(ctx, "out", w), ErrLimit)
	wantError(t, a.Result(ctx, "other", w), ErrDenied)
	w.Close()
	if _, err := s.result("out").WriteString("hello"); err != nil {
		t.Error(err)
	}
	s.result("out").Close()
	if text, err := io.ReadAll(r); err != nil || string(text) != "hello" {
		t.Errorf("%q, %v", text, err)
	}
}

func TestBrokerPeerClosesInOrder(t *testing.T) {
	b := newBroker(t)
	p, s := newPeer(t, b, "one", Rules{Progress: true, Locks: []string{"a"}})
	a := connect(t, p)
	ctx := patient(t)
	if err := a.Progress(ctx, 3, 4, "pages"); err != nil {
		t.Error(err)
	}
	if _, progress := s.said(); len(progress) != 1 || progress[0] != "3/4 pages" {
		t.Errorf("%q", progress)
	}
	if _, err := a.Terminate(ctx); err != nil {
		t.Error(err)
	}
	wantError(t, a.Progress(ctx, 4, 4, "pages"), ErrSessionOver)

	// The launcher's end is told to who waits.
	holder, waiter := connect(t, p), connect(t, p)
	if err := holder.Lock(ctx, "a", Exclusive); err != nil {
		t.Fatal(err)
	}
	got := make(chan error)
	go func() { got <- waiter.Lock(ctx, "a", Exclusive) }()
	eventually(t, "it waits", func() bool { return waits(b, "a") })
	if err := p.Close(); err != nil {
		t.Error(err)
	}
	wantError(t, <-got, ErrSessionOver)
	if _, err := p.Connect(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("connect to a closed peer: %v", err)
	}
}
