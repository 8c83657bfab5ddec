//go:build amd64 || arm64

package ipc

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

var userRules = Rules{Memory: []MemoryRule{{Name: "shared", Size: 4096, Access: MayWrite, User: true}}}

// launcher is a broker whose user's launchers meet in dir, and a session of one jail.
func launcher(t testing.TB, dir string, rules Rules) (*Broker, *Authenticated) {
	t.Helper()
	b := oneOfSeveral(t)
	b.rendezvous.folder = func() (string, error) { return dir, nil }
	p, _ := newPeer(t, b, "jail", rules)
	return b, connect(t, p)
}

func word(t testing.TB, s *Segment, err error) *uint32 {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return place[uint32](t, s, 0)
}

func TestLaunchersOfAUserShareWhatRulesSay(t *testing.T) {
	leavesNothing(t)
	dir := filepath.Join(t.TempDir(), "ipc")
	first, a := launcher(t, dir, userRules)
	_, b := launcher(t, dir, userRules)
	private := userRules
	private.Memory = []MemoryRule{{Name: "shared", Size: 4096, Access: MayWrite}}
	_, c := launcher(t, dir, private)
	ctx := patient(t)

	s, err := a.Memory(ctx, "shared")
	one := word(t, s, err)
	s, err = b.Memory(ctx, "shared")
	two := word(t, s, err)
	s, err = c.Memory(ctx, "shared")
	three := word(t, s, err)
	atomic.StoreUint32(one, 5)
	if *two != 5 || *three != 0 {
		t.Errorf("the other launcher's jail sees %d, one whose rule does not say so %d", *two, *three)
	}
	// Who keeps it passes it on when the one that made it has gone.
	if err := first.Close(); err != nil {
		t.Error(err)
	}
	_, d := launcher(t, dir, userRules)
	s, err = d.Memory(ctx, "shared")
	if four := word(t, s, err); *four != 5 {
		t.Errorf("after the first launcher's end there is %d", *four)
	}
	// With the last one it goes, and leaves no file.
	b.Close()
	d.Close()
	eventually(t, "the folder is empty", func() bool {
		entries, err := os.ReadDir(dir)
		return err == nil && len(entries) == 0
	})
}

func TestLaunchersShareWhatIsPublished(t *testing.T) {
	leavesNothing(t)
	dir := filepath.Join(t.TempDir(), "ipc")
	rule := func(access Access) Rules {
		return Rules{Memory: []MemoryRule{{Name: "mine", Size: 4096, Access: access, User: true}}}
	}
	_, owner := launcher(t, dir, rule(MayOwn))
	_, other := launcher(t, dir, rule(MayOwn))
	_, reader := launcher(t, dir, rule(MayRead))
	_, writer := launcher(t, dir, rule(MayWrite))
	ctx := patient(t)
	_, err := reader.file(ctx, "memory", "mine", &message{Kind: kindMemory, S: "mine", A: accessRead})
	wantError(t, err, ErrNotReady)
	s := newSegment(t, 4096)
	if err := owner.Publish(ctx, "mine", s); err != nil {
		t.Fatal(err)
	}
	atomic.StoreUint32(place[uint32](t, s, 0), 7)
	r, err := reader.ReadMemory(ctx, "mine")
	if got := word(t, r, err); *got != 7 {
		t.Errorf("the reader sees %d", *got)
	}
	if err := other.Publish(ctx, "mine", s); !errors.Is(err, ErrConflict) {
		t.Errorf("two owners: %v", err)
	}
	if _, err := writer.Memory(ctx, "mine"); !errors.Is(err, ErrConflict) {
		t.Errorf("a writer of what is another's: %v", err)
	}
	owner.Close()
	eventually(t, "another can publish", func() bool { return other.Publish(ctx, "mine", s) == nil })
}

// The folder is nobody else's, and who does not know a socket's name does not find it.
func TestRendezvousIsPrivate(t *testing.T) {
	open := filepath.Join(t.TempDir(), "open")
	if err := os.Mkdir(open, 0o755); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(t.TempDir(), link); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{open, link} {
		_, a := launcher(t, dir, userRules)
		if s, err := a.Memory(patient(t), "shared"); err == nil {
			s.Close()
			t.Errorf("%s was taken", dir)
		}
	}
	dir := filepath.Join(t.TempDir(), "ipc")
	_, a := launcher(t, dir, userRules)
	s, err := a.Memory(patient(t), "shared")
	word(t, s, err)
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Fatalf("%v, %v", entries, err)
	}
	sockets, err := os.ReadFile("/proc/net/unix")
	if err != nil {
		t.Fatal(err)
	}
	if secret := strings.TrimPrefix(entries[0].Name(), memoryKey("shared")+"@"); len(secret) < 26 || strings.Contains(string(sockets), secret) {
		t.Errorf("the socket's name %q is no secret", entries[0].Name())
	}
}

// A launcher that is stopped has its segment none the less: the answer is an error, not a second segment.
func TestLauncherThatDoesNotAnswer(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "ipc")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, memoryKey("shared")+"@stuck")
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: path, Net: "unixpacket"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	b := newBroker(t)
	b.rendezvous.folder, b.rendezvous.patience = func() (string, error) { return dir, nil }, 50*time.Millisecond
	p, _ := newPeer(t, b, "jail", userRules)
	a := connect(t, p)
	if s, err := a.Memory(patient(t), "shared"); !errors.Is(err, unix.ETIMEDOUT) {
		if err == nil {
			s.Close()
		}
		t.Errorf("got %v", err)
	}
}

const (
	launcherEnv = "IPC_TEST_LAUNCHER" // the folder
	inodeEnv    = "IPC_TEST_INODE"    // of the one segment there may be
	roundsEnv   = "IPC_TEST_ROUNDS"
)

// The test binary plays a launcher that takes the shared segment and gives it back.
func init() {
	dir := os.Getenv(launcherEnv)
	if dir == "" {
		return
	}
	b := NewBroker()
	b.rendezvous.folder = func() (string, error) { return dir, nil }
	p := must(b.Peer("jail", userRules, Handlers{}))
	random := rand.New(rand.NewPCG(uint64(os.Getpid()), 1))
	rounds := must(strconv.Atoi(os.Getenv(roundsEnv)))
	ctx := context.Background()
	held := must(os.OpenFile(dir+".held", os.O_RDWR|os.O_CREATE, 0o600))
	for range rounds {
		f := must(p.Connect())
		h := must(newHandshaking(must(unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0))))
		f.Close()
		a := must(h.Authenticate(ctx))
		s := must(a.Memory(ctx, "shared"))
		var stat unix.Stat_t
		if err := unix.Fstat(int(s.file.Fd()), &stat); err != nil {
			panic(err)
		}
		if want := os.Getenv(inodeEnv); want == "" {
			alone(held, int64(stat.Ino))
		} else if want != strconv.FormatUint(stat.Ino, 10) {
			panic(fmt.Sprintf("segment %d, while %s is held", stat.Ino, want))
		}
		atomic.StoreUint64(must(At[uint64](s, 0)), stat.Ino)
		time.Sleep(time.Duration(random.IntN(2_000_000)))
		if err := unix.FcntlFlock(held.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_UNLCK}); err != nil {
			panic(err)
		}
		s.Close()
		a.Close()
	}
	if err := b.Close(); err != nil {
		panic(err)
	}
	os.Exit(0)
}

// alone locks the byte of a segment's number, as all its holders do, and panics if somebody holds another.
func alone(held *os.File, number int64) {
	lock := unix.Flock_t{Type: unix.F_RDLCK, Start: number, Len: 1}
	if err := unix.FcntlFlock(held.Fd(), unix.F_OFD_SETLK, &lock); err != nil {
		panic(err)
	}
	for _, others := range []unix.Flock_t{{Type: unix.F_WRLCK, Start: 0, Len: number}, {Type: unix.F_WRLCK, Start: number + 1}} {
		if err := unix.FcntlFlock(held.Fd(), unix.F_OFD_GETLK, &others); err != nil {
			panic(err)
		}
		if others.Type != unix.F_UNLCK {
			panic(fmt.Sprintf("segment %d while others hold %d", number, others.Start))
		}
	}
}

func startLauncher(t testing.TB, dir string, rounds int, inode string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), launcherEnv+"="+dir, roundsEnv+"="+strconv.Itoa(rounds), inodeEnv+"="+inode)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd
}

// Launchers take and give back a segment, which comes and goes: those that hold it at a time hold the same one.
func TestLaunchersNeverSplitAName(t *testing.T) {
	rounds := 100
	if sweeping {
		rounds = 2000
	}
	dir := filepath.Join(t.TempDir(), "ipc")
	var running []*exec.Cmd
	for range 4 {
		running = append(running, startLauncher(t, dir, rounds, ""))
	}
	for _, cmd := range running {
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 0 {
		t.Errorf("left: %v, %v", entries, err)
	}
}

// Launchers are killed at random moments while this one holds the segment: nobody ever gets another.
func TestKilledLaunchersNeverSplitAName(t *testing.T) {
	kills := 20
	if sweeping {
		kills = 500
	}
	leavesNothing(t)
	dir := filepath.Join(t.TempDir(), "ipc")
	_, a := launcher(t, dir, userRules)
	s, err := a.Memory(patient(t), "shared")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	var stat unix.Stat_t
	if err := unix.Fstat(int(s.file.Fd()), &stat); err != nil {
		t.Fatal(err)
	}
	inode := strconv.FormatUint(stat.Ino, 10)
	number := place[uint64](t, s, 0)
	random := rand.New(rand.NewPCG(1, 9))
	var running [3]*exec.Cmd
	for i := range running {
		running[i] = startLauncher(t, dir, 1<<30, inode)
	}
	end := func(cmd *exec.Cmd) {
		if err := cmd.Process.Kill(); err != nil {
			t.Error(err)
		}
		if err := cmd.Wait(); err == nil || err.Error() != "signal: killed" {
			t.Error(err)
		}
	}
	for i := range kills {
		atomic.StoreUint64(number, 0)
		eventually(t, "another launcher has our segment", func() bool { return atomic.LoadUint64(number) != 0 })
		time.Sleep(time.Duration(random.IntN(10_000_000)))
		end(running[i%3])
		running[i%3] = startLauncher(t, dir, 1<<30, inode)
	}
	for _, cmd := range running {
		end(cmd)
	}
	// What killed ones have left there goes when the next one asks.
	_, next := launcher(t, dir, userRules)
	again, err := next.Memory(patient(t), "shared")
	word(t, again, err)
}
