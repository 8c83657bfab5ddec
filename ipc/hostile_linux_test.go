//go:build amd64 || arm64

package ipc

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

// rawPeer is a payload's end that a test writes to as it likes.
type rawPeer struct {
	t  testing.TB
	fd int
}

func connectRaw(t testing.TB, p *Peer) *rawPeer {
	t.Helper()
	f, err := p.Connect()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: int64(patience.Seconds())}); err != nil {
		t.Fatal(err)
	}
	return &rawPeer{t: t, fd: fd}
}

// send sends a packet and says whether the broker's end is open still.
func (r *rawPeer) send(packet []byte, fds ...int) bool {
	r.t.Helper()
	var oob []byte
	if len(fds) > 0 {
		oob = unix.UnixRights(fds...)
	}
	err := retry(func() error { return unix.Sendmsg(r.fd, packet, oob, nil, unix.MSG_NOSIGNAL) })
	if err != nil && err != unix.EPIPE && err != unix.ECONNRESET {
		r.t.Fatalf("sendmsg: %v", err)
	}
	return err == nil
}

func (r *rawPeer) say(m message, fds ...int) bool {
	r.t.Helper()
	return r.send(appendMessage(nil, &m), fds...)
}

// receive returns the next message; without one the connection is closed.
func (r *rawPeer) receive() (message, bool) {
	r.t.Helper()
	packet := make([]byte, maxMessage+1)
	oob := make([]byte, unix.CmsgSpace(4))
	for range 2 {
		n, oobn, _, _, err := unix.Recvmsg(r.fd, packet, oob, unix.MSG_CMSG_CLOEXEC)
		if err == unix.ECONNRESET || err == unix.EINTR { // once, before what was sent earlier
			continue
		}
		if err != nil {
			r.t.Fatalf("recvmsg: %v", err)
		}
		if n == 0 {
			return message{}, false
		}
		if got, fds, err := parseControl(oob[:oobn]); err == nil {
			got.close()
			for _, fd := range fds {
				unix.Close(fd)
			}
		}
		m, err := parseMessage(packet[:n])
		if err != nil {
			r.t.Fatal(err)
		}
		return m, true
	}
	return message{}, false
}

// end reads on until the broker closes the connection, and returns what it said last.
func (r *rawPeer) end() (last message) {
	r.t.Helper()
	for {
		m, open := r.receive()
		if !open {
			return last
		}
		last = m
	}
}

func (r *rawPeer) hello() {
	r.t.Helper()
	r.say(message{Kind: kindHello, ID: 1, A: 1, B: 1, S: protocolMagic})
	if m, _ := r.receive(); m.Kind != kindHello|answerBit || m.Status != statusOK {
		r.t.Fatalf("welcome %+v", m)
	}
}

// sample returns a request of a kind that is well-formed.
func sample(k kind, id uint32) message {
	m := message{Kind: k, ID: id}
	switch k {
	case kindHello:
		m.A, m.B, m.S = 1, 1, protocolMagic
	case kindOpen:
		m.A, m.B, m.S, m.T = accessRead, uint64(id%3), "root", strings.Repeat("\x00file", max(int(id%3), 1))[1:]
	case kindLock:
		m.A, m.S = uint64(Exclusive), "lock"
	case kindCancel:
		m.A = 77
	case kindMemory:
		m.A, m.S = accessRead, "memory"
	case kindChannel:
		m.A, m.S = 8, "channel"
	case kindUnlock, kindRelease:
		m.S = "name"
	}
	return m
}

// TestTheorem_7_3_1_TheBrokerEnforcesTheOrder: whatever the order of requests is, the broker follows the client's state,
// and what is out of order ends the session.
func TestTheorem_7_3_1_TheBrokerEnforcesTheOrder(t *testing.T) {
	b := newBroker(t)
	p, _ := newPeer(t, b, "one", Rules{})
	rapid.Check(t, func(rt *rapid.T) {
		r := connectRaw(t, p)
		defer unix.Close(r.fd)
		steps := rapid.SliceOfN(rapid.SampledFrom([]kind{
			kindHello, kindHello, kindOpen, kindLock, kindUnlock, kindCancel, kindMemory, kindRelease, kindChannel, kindLog,
			kindProgress, kindQuit, kindLimit, 0, kindEnd, answerBit | kindHello,
		}), 1, 12).Draw(rt, "steps")
		if rapid.Bool().Draw(rt, "greets") {
			steps = append([]kind{kindHello}, steps...)
		}
		authenticated := false
		for i, k := range steps {
			r.say(sample(k, uint32(i+1)))
			m, open := r.receive()
			var want kind
			var status status
			switch {
			case !authenticated && k == kindHello:
				authenticated = true
				want = kindHello | answerBit
			case authenticated && k > kindHello && k < kindLimit:
				want = k | answerBit
				status = m.Status // the service's business
			default:
				want, status = kindEnd, statusProtocol
			}
			if !open || m.Kind != want || m.Status != status {
				rt.Fatalf("step %d of %v: got %+v, want kind %#x, status %d", i, steps, m, want, status)
			}
			if want == kindEnd || k == kindQuit {
				if last := r.end(); want != kindEnd && (last.Kind != kindEnd || last.Status != statusOK) {
					rt.Fatalf("after quit: %+v", last)
				}
				return
			}
		}
	})
}

// TestTheorem_7_3_2_EachRequestIsAnsweredOrTheSessionEnds watches at run time what types can't promise. The model
// models/broker.pml has it for every order of events.
func TestTheorem_7_3_2_EachRequestIsAnsweredOrTheSessionEnds(t *testing.T) {
	b := newBroker(t)
	rules := Rules{Locks: []string{"a", "b", "c"}, Memory: []MemoryRule{{Name: "m", Size: 4096, Access: MayWrite}}, Log: true}
	for round := range 20 {
		p, _ := newPeer(t, b, "peer "+strconv.Itoa(round), rules)
		var calls sync.WaitGroup
		var answered, over atomic.Int64
		for range 3 {
			a := connect(t, p)
			for seed := range 6 {
				calls.Go(func() {
					random := rand.New(rand.NewPCG(uint64(round), uint64(seed)))
					for range 50 {
						ctx, cancel := context.WithTimeout(t.Context(), time.Duration(random.IntN(5_000_000)))
						if random.IntN(3) == 0 {
							cancel()
						}
						err := anyRequest(ctx, a, random)
						cancel()
						if errors.Is(err, ErrSessionOver) {
							over.Add(1)
							return
						}
						answered.Add(1)
					}
				})
			}
		}
		for answered.Load() < int64(round*10) {
			time.Sleep(time.Millisecond)
		}
		if err := p.Close(); err != nil {
			t.Error(err)
		}
		calls.Wait()
		if over.Load() == 0 && answered.Load() < 3*6*50 {
			t.Errorf("%d answered, none told of the end", answered.Load())
		}
	}
}

func anyRequest(ctx context.Context, a *Authenticated, random *rand.Rand) error {
	lock := string(rune('a' + random.IntN(3)))
	switch random.IntN(6) {
	case 0:
		return a.Lock(ctx, lock, LockMode(1+random.IntN(2)))
	case 1:
		return a.Unlock(ctx, lock)
	case 2:
		_, err := a.TryLock(ctx, lock, Exclusive)
		return err
	case 3:
		s, err := a.Memory(ctx, "m")
		if err == nil {
			s.Close()
		}
		return err
	case 4:
		return a.Release(ctx, "m")
	default:
		return a.Log(ctx, slog.LevelInfo, "line")
	}
}

// Each does its worst on a session of its own; then the broker must have ended that session, or answer still.
var attacks = map[string]func(r *rawPeer, random *rand.Rand){
	"random bytes": func(r *rawPeer, random *rand.Rand) {
		for range 50 {
			packet := make([]byte, random.IntN(200))
			for i := range packet {
				packet[i] = byte(random.Uint32())
			}
			if !r.send(packet) {
				return
			}
		}
	},
	"nearly right": func(r *rawPeer, random *rand.Rand) {
		r.hello()
		for range 200 {
			m := sample(kind(1+random.IntN(int(kindLimit))), random.Uint32())
			packet := appendMessage(nil, &m)
			packet[random.IntN(len(packet))] ^= 1 << random.IntN(8)
			if !r.send(packet) {
				return
			}
			if _, open := r.receive(); !open {
				return
			}
		}
	},
	"long packet":  func(r *rawPeer, _ *rand.Rand) { r.hello(); r.send(make([]byte, 60000)) },
	"empty packet": func(r *rawPeer, _ *rand.Rand) { r.send(nil) },
	"fds before hello": func(r *rawPeer, _ *rand.Rand) {
		r.say(message{Kind: kindHello, ID: 1, A: 1, B: 1, S: protocolMagic, FDs: 1}, r.fd)
	},
	"fd with a log": func(r *rawPeer, _ *rand.Rand) {
		r.hello()
		r.say(message{Kind: kindLog, ID: 2, A: logLevelZero, S: "line", FDs: 1}, r.fd)
	},
	"fd unsaid": func(r *rawPeer, _ *rand.Rand) {
		r.hello()
		r.say(message{Kind: kindLog, ID: 2, A: logLevelZero, S: "line"}, r.fd)
	},
	"253 fds": func(r *rawPeer, _ *rand.Rand) {
		r.hello()
		var fds [253]int
		for i := range fds {
			fds[i] = r.fd
		}
		r.say(message{Kind: kindResult, ID: 2, S: "out", FDs: 1}, fds[:]...)
	},
	"its own socket as a result": func(r *rawPeer, _ *rand.Rand) {
		r.hello()
		for id := uint32(2); id < 40; id++ {
			r.say(message{Kind: kindResult, ID: id, S: "out", FDs: 1}, r.fd)
			r.receive()
		}
	},
	"fds and an empty packet": func(r *rawPeer, _ *rand.Rand) { r.send([]byte{}, r.fd, r.fd) },
	"one number twice": func(r *rawPeer, _ *rand.Rand) {
		r.hello()
		r.say(message{Kind: kindLock, ID: 2, A: uint64(Exclusive), B: waitForever, S: "held"})
		r.say(message{Kind: kindLock, ID: 2, A: uint64(Exclusive), B: waitForever, S: "held"})
	},
	"many waits": func(r *rawPeer, _ *rand.Rand) {
		r.hello()
		for id := uint32(2); id < 400; id++ {
			r.say(message{Kind: kindLock, ID: id, A: uint64(Exclusive), B: waitForever, S: "held"})
		}
	},
	"half closed": func(r *rawPeer, _ *rand.Rand) { r.hello(); unix.Shutdown(r.fd, unix.SHUT_WR) },
	"deaf": func(r *rawPeer, _ *rand.Rand) {
		r.hello()
		unix.Shutdown(r.fd, unix.SHUT_RD)
		r.say(sample(kindOpen, 2))
	},
}

// TestHostilePeersHarmOnlyThemselves: while others do their worst, a neighbour is served, and nothing of them is left.
func TestHostilePeersHarmOnlyThemselves(t *testing.T) {
	for name, attack := range attacks {
		t.Run(name, func(t *testing.T) {
			b := newBroker(t)
			b.sendTimeout = 200 * time.Millisecond
			good, _ := newPeer(t, b, "good", Rules{Locks: []string{"held"}, Log: true})
			neighbour := connect(t, good)
			if err := neighbour.Lock(patient(t), "held", Exclusive); err != nil {
				t.Fatal(err)
			}
			bad, got := newPeer(t, b, "bad", Rules{
				Locks: []string{"held"}, Log: true, Results: []string{"out"}, Quota: Quota{Results: 4},
			})
			before := openFDs(t)
			goroutines := runtime.NumGoroutine()
			r := connectRaw(t, bad)
			attack(r, rand.New(rand.NewPCG(1, 2)))
			if n := runtime.NumGoroutine() - goroutines; n > DefaultQuota.Locks+10 {
				t.Errorf("%d goroutines more", n)
			}
			if err := neighbour.Log(patient(t), slog.LevelInfo, "still here"); err != nil {
				t.Error(err)
			}
			unix.Close(r.fd)
			got.mu.Lock()
			for _, f := range got.results {
				f.Close()
			}
			if len(got.lines) > 0 {
				t.Errorf("lines %q", got.lines)
			}
			got.mu.Unlock()
			eventually(t, "the session is over and its fds are closed", func() bool {
				return sessions(bad) == 0 && openFDs(t) <= before+1 // r.fd's number may be taken anew
			})
		})
	}
}

func sessions(p *Peer) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.sessions)
}

// A peer that asks and does not read is not read from, holds a few packets of memory, and its session ends.
func TestPeerThatDoesNotRead(t *testing.T) {
	b := newBroker(t)
	b.sendTimeout = 100 * time.Millisecond
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	p, _ := newPeer(t, b, "one", Rules{Files: []FileRule{{Name: "root", Path: dir, Access: MayRead}}})
	before := openFDs(t)
	r := connectRaw(t, p)
	r.hello()
	asked, most := 0, 0
	m := sample(kindOpen, 9)
	packet := appendMessage(nil, &m)
	for sessions(p) > 0 {
		err := unix.Sendmsg(r.fd, packet, nil, nil, unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT)
		if err == nil {
			asked++
		}
		most = max(most, openFDs(t)-before)
	}
	if asked < 20 || most > DefaultQuota.Queue+10 {
		t.Errorf("%d requests, at most %d fds", asked, most)
	}
	// What had room is there: at most what the socket's buffer holds.
	answers := 0
	for {
		m, open := r.receive()
		if !open || m.Kind == kindEnd {
			break
		}
		answers++
	}
	if answers == 0 || answers > 40 {
		t.Errorf("%d answers in the socket", answers)
	}
}

func TestListenerBoundsWhoConnects(t *testing.T) {
	b := newBroker(t)
	b.helloTimeout = 50 * time.Millisecond
	p, _ := newPeer(t, b, "one", Rules{Log: true, Quota: Quota{Sessions: 3}})
	path := filepath.Join(t.TempDir(), "socket")
	if err := p.Listen(path); err != nil {
		t.Fatal(err)
	}
	var silent []*Handshaking
	for range 30 {
		h, err := DialPath(path)
		if err != nil {
			t.Fatal(err)
		}
		silent = append(silent, h)
		if n := sessions(p); n > 3 {
			t.Errorf("%d sessions", n)
		}
	}
	eventually(t, "who says nothing goes, and another is served", func() bool {
		h, err := DialPath(path)
		if err != nil {
			return false
		}
		a, err := h.Authenticate(patient(t))
		if err != nil { // it was too slow itself
			return false
		}
		a.Close()
		return true
	})
	for _, h := range silent {
		h.Close()
	}
}

// An honest client that is too fast waits; nothing is refused.
func TestRequestsAreSlowedDown(t *testing.T) {
	now := time.Unix(1000, 0)
	b := newBucket(100, now)
	if wait := b.reserve(100, now); wait != 0 {
		t.Errorf("the first hundred wait %v", wait)
	}
	if wait := b.reserve(50, now); wait != 500*time.Millisecond {
		t.Errorf("fifty more wait %v", wait)
	}
	if b.take(1, now) {
		t.Error("more than a second's worth")
	}
	if !b.take(1, now.Add(time.Hour)) || b.left != 99 {
		t.Errorf("after an hour %v are left", b.left)
	}
}

const brokerClientEnv = "IPC_TEST_BROKER_CLIENT"

// The test binary plays a client that does all it may until it is killed.
func init() {
	if os.Getenv(brokerClientEnv) == "" {
		return
	}
	ctx := context.Background()
	a := must(must(Dial()).Authenticate(ctx))
	random := rand.New(rand.NewPCG(uint64(os.Getpid()), 1))
	for i := 0; ; i++ {
		switch i % 7 {
		case 6:
			for _, f := range must(a.OpenAll(ctx, "root", slices.Repeat([]string{"file"}, MaxOpen), MayRead)) {
				f.Close()
			}
		case 0:
			f := must(a.Open(ctx, "root", "file", MayRead))
			f.Close()
		case 1:
			if err := a.Lock(ctx, string(rune('a'+random.IntN(3))), Exclusive); err != nil && !errors.Is(err, ErrDeadlock) {
				panic(err)
			}
		case 2:
			_ = a.Unlock(ctx, string(rune('a'+random.IntN(3)))) // it may not hold it
		case 3:
			s := must(a.Memory(ctx, "m"))
			s.Close()
		case 4:
			r, w, err := os.Pipe()
			if err != nil {
				panic(err)
			}
			_ = a.Result(ctx, "out", w) // there is a quota
			r.Close()
			w.Close()
		case 5:
			if err := a.Progress(ctx, uint64(i), 0, "working"); err != nil {
				panic(err)
			}
		}
	}
}

// startClient starts a process that has the peer's socket, and dies with this one. The caller closes the copy.
func startClient(t testing.TB, p *Peer) (*exec.Cmd, *os.File) {
	t.Helper()
	f, err := p.Connect()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), brokerClientEnv+"=1", FDEnv+"=3")
	cmd.ExtraFiles = []*os.File{f}
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd, f
}

// A session ends with its process, also where another holds a copy of its socket: the pidfd tells.
func TestDeathIsSeenBehindACopiedSocket(t *testing.T) {
	b := newBroker(t)
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	var worked atomic.Int64
	p, err := b.Peer("one", Rules{
		Files:    []FileRule{{Name: "root", Path: dir, Access: MayRead}},
		Locks:    []string{"a", "b", "c"},
		Memory:   []MemoryRule{{Name: "m", Size: 4096, Access: MayWrite}},
		Progress: true,
	}, Handlers{Progress: func(uint64, uint64, string) { worked.Add(1) }})
	if err != nil {
		t.Fatal(err)
	}
	cmd, copied := startClient(t, p)
	defer copied.Close()
	eventually(t, "it works", func() bool { return worked.Load() > 0 })
	kill(t, cmd)
	eventually(t, "its session is over", func() bool { return sessions(p) == 0 && segments(b) == 0 })
}

// TestKilledClientsLeaveNothing kills clients at random moments, two at a time that wait for each other's locks.
func TestKilledClientsLeaveNothing(t *testing.T) {
	kills := 40
	if sweeping {
		kills = 1000
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	b := newBroker(t)
	handlers := Handlers{
		Progress: func(uint64, uint64, string) {},
		Result:   func(_ string, f *os.File) { f.Close() },
	}
	rules := Rules{
		Files:   []FileRule{{Name: "root", Path: dir, Access: MayRead}},
		Locks:   []string{"a", "b", "c"},
		Memory:  []MemoryRule{{Name: "m", Size: 1 << 16, Access: MayWrite}},
		Results: []string{"out"}, Progress: true, Quota: Quota{Results: 1 << 30},
	}
	before := openFDs(t)
	var parts sync.WaitGroup
	var peers []*Peer
	for part := range 2 {
		p, err := b.Peer(fmt.Sprintf("jail %d", part), rules, handlers)
		if err != nil {
			t.Fatal(err)
		}
		peers = append(peers, p)
		parts.Go(func() {
			random := rand.New(rand.NewPCG(uint64(part), 3))
			for range kills / 2 {
				cmd, copied := startClient(t, p)
				copied.Close()
				time.Sleep(time.Duration(random.IntN(40_000_000)))
				if err := cmd.Process.Kill(); err != nil {
					t.Error(err)
				}
				if state := cmd.Wait(); !strings.Contains(state.Error(), "killed") {
					t.Error(state)
				}
				eventually(t, "its session is over", func() bool { return sessions(p) == 0 })
			}
		})
	}
	parts.Wait()
	if n := segments(b); n != 0 || memoryOf(peers[0])+memoryOf(peers[1]) != 0 {
		t.Errorf("left: %d segments", n)
	}
	eventually(t, "no fd is left", func() bool { return openFDs(t) <= before+2 }) // the roots
}

func FuzzMessage(f *testing.F) {
	for k := kindHello; k < kindLimit; k++ {
		m := sample(k, 7)
		f.Add(appendMessage(nil, &m))
	}
	f.Fuzz(func(t *testing.T, packet []byte) {
		m, err := parseMessage(packet)
		if err != nil {
			return
		}
		if got := appendMessage(nil, &m); string(got) != string(packet) {
			t.Errorf("%x became %x", packet, got)
		}
		if checkRequest(&m) == nil && (m.Kind == 0 || m.Kind >= kindLimit || m.ID == 0 || m.FDs > 1) {
			t.Errorf("%+v passed", m)
		}
		_ = answerError(&m)
	})
}

// FuzzSession sends packets, each with its length before it. The broker ends the session or serves on.
func FuzzSession(f *testing.F) {
	var all []byte
	for k := kindHello; k < kindLimit; k++ {
		m := sample(k, uint32(k))
		packet := appendMessage(nil, &m)
		all = binary.LittleEndian.AppendUint16(all, uint16(len(packet)))
		all = append(all, packet...)
	}
	f.Add(all)
	f.Add(all[:50])
	b := NewBroker()
	f.Cleanup(func() { b.Close() })
	p, err := b.Peer("fuzz", Rules{
		Files:  []FileRule{{Name: "root", Path: f.TempDir(), Access: MayCreate}},
		Locks:  []string{"lock"},
		Memory: []MemoryRule{{Name: "memory", Size: 4096, Access: MayWrite}},
		Log:    true, Progress: true,
		Quota: Quota{Requests: 1 << 30},
	}, (&sent{}).handlers())
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, packets []byte) {
		r := connectRaw(t, p)
		for len(packets) > 2 {
			n := min(int(binary.LittleEndian.Uint16(packets)), len(packets)-2)
			if !r.send(packets[2 : 2+n]) {
				break
			}
			packets = packets[2+n:]
			for { // answers must not fill the socket
				buffer := make([]byte, maxMessage)
				oob := make([]byte, unix.CmsgSpace(4))
				n, oobn, _, _, err := unix.Recvmsg(r.fd, buffer, oob, unix.MSG_DONTWAIT|unix.MSG_CMSG_CLOEXEC)
				if err != nil || n == 0 {
					break
				}
				if got, fds, err := parseControl(oob[:oobn]); err == nil {
					got.close()
					for _, fd := range fds {
						unix.Close(fd)
					}
				}
			}
		}
		unix.Shutdown(r.fd, unix.SHUT_WR)
		r.end()
	})
}
