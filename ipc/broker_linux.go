//go:build amd64 || arm64

package ipc

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Broker gives confined processes what their rules allow: open files, locks, shared memory and channels. Each jail is a
// [Peer] of it. Jails of one Broker that name the same lock, segment or channel get the same one; others never see it,
// but for what the rules of both share among the user's launchers.
//
// A jail costs nothing until it connects; a session costs three goroutines and two fds, and at most one goroutine for
// each lock that it waits for. What a peer does, or does not, holds up its own sessions alone.
//
// A Broker is safe for concurrent use.
type Broker struct {
	locks      *LockTable
	rendezvous *rendezvous

	helloTimeout time.Duration // for who has connected to a path: an inherited socket may be used at any time, or never
	sendTimeout  time.Duration // how long a peer may leave an answer unread that has no room

	mu       sync.Mutex
	closed   bool
	peers    map[*Peer]struct{}
	segments map[string]*shared
}

// NewBroker returns a Broker without peers.
func NewBroker() *Broker {
	return &Broker{
		// Each session has a quota of its own, which is lower.
		locks:      NewLockTable(LockLimits{PerOwner: 4096, Queue: 4096}),
		rendezvous: &rendezvous{folder: RendezvousFolder, patience: 5 * time.Second},

		helloTimeout: 10 * time.Second,
		sendTimeout:  10 * time.Second,

		peers:    map[*Peer]struct{}{},
		segments: map[string]*shared{},
	}
}

// Peer is a jail, as the broker sees it. Its methods are safe for concurrent use.
type Peer struct {
	broker   *Broker
	name     string
	rules    Rules
	quota    Quota
	handlers Handlers
	roots    map[string]*root
	requests *bucket
	logged   *bucket
	parts    sync.WaitGroup

	mu        sync.Mutex
	closed    bool
	sessions  map[*session]struct{}
	listeners []*os.File
	memory    int64 // bytes that the sessions hold
	results   int   // that were handed back
}

// Peer makes a peer with a name that errors of others show (it waits for a lock, say). The folders and files of its
// rules are looked up now. The peer lives until it or the broker is closed.
func (b *Broker) Peer(name string, rules Rules, handlers Handlers) (*Peer, error) {
	if err := rules.Check(); err != nil {
		return nil, err
	}
	for what, missing := range map[string]bool{
		"log":      rules.Log && handlers.Log == nil,
		"progress": rules.Progress && handlers.Progress == nil,
		"results":  len(rules.Results) > 0 && handlers.Result == nil,
	} {
		if missing {
			return nil, fmt.Errorf("ipc peer %q: its rules allow %s, which nobody handles", name, what)
		}
	}
	now := time.Now()
	quota := rules.Quota.withDefaults()
	p := &Peer{
		broker:   b,
		name:     clip(name, maxName),
		rules:    rules,
		quota:    quota,
		handlers: handlers,
		roots:    map[string]*root{},
		requests: newBucket(quota.Requests, now),
		logged:   newBucket(quota.LogBytes, now),
		sessions: map[*session]struct{}{},
	}
	for _, rule := range rules.Files {
		r, err := openRoot(rule)
		if err != nil {
			p.closeRoots()
			return nil, fmt.Errorf("ipc peer %q: file %q: %w", name, rule.Name, err)
		}
		p.roots[rule.Name] = r
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		p.closeRoots()
		return nil, fmt.Errorf("ipc peer %q: the broker is %w", name, os.ErrClosed)
	}
	b.peers[p] = struct{}{}
	return p, nil
}

// Connect begins a session and returns the payload's end, a blocking SOCK_SEQPACKET socket: let the payload inherit it,
// say its number in [FDEnv], then close it. The process that says hello on it is the session's: with its death, or when
// every copy of the socket is closed, the session ends.
func (p *Peer) Connect() (*os.File, error) {
	ours, theirs, err := socketPair()
	if err != nil {
		return nil, fmt.Errorf("ipc peer %q: %w", p.name, err)
	}
	file := os.NewFile(uintptr(theirs), "ipc payload")
	if err := passIdentity(ours, true); err != nil {
		unix.Close(ours)
		file.Close()
		return nil, fmt.Errorf("ipc peer %q: %w", p.name, err)
	}
	if err := p.begin(ours, identity{}); err != nil {
		file.Close()
		return nil, err
	}
	return file, nil
}

// Session is one of this process's own, which so has what its rules allow the peer.
func (p *Peer) Session(ctx context.Context) (*Authenticated, error) {
	f, err := p.Connect()
	if err != nil {
		return nil, err
	}
	defer f.Close()
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("ipc peer %q: fcntl F_DUPFD_CLOEXEC: %w", p.name, err)
	}
	h, err := newHandshaking(fd)
	if err != nil {
		return nil, err
	}
	return h.Authenticate(ctx)
}

// Listen makes a socket at path, which must not exist, and begins a session for each who connects, within the quota of
// sessions. It is this jail's: show it to no other. Who connects says hello within ten seconds. The socket is not
// removed at the end.
func (p *Peer) Listen(path string) error {
	fail := func(op string, err error) error { return fmt.Errorf("ipc peer %q: %s %s: %w", p.name, op, path, err) }
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return fail("socket", err)
	}
	file := os.NewFile(uintptr(fd), path)
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		file.Close()
		return fail("bind", err)
	}
	if err := unix.Listen(fd, p.quota.Sessions); err != nil {
		file.Close()
		return fail("listen", err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		file.Close()
		return fail("listen", os.ErrClosed)
	}
	p.listeners = append(p.listeners, file)
	p.parts.Go(func() { p.accept(file) })
	return nil
}

func (p *Peer) accept(listener *os.File) {
	acceptAll(listener, func(fd int) {
		id, err := connectorIdentity(fd)
		if err != nil { // it is dead, or nobody that we can know
			unix.Close(fd)
			return
		}
		_ = p.begin(fd, id) // who is one too many is told so by the close
	})
}

// acceptAll calls use with each connection, which use takes over, until the listener is closed.
func acceptAll(listener *os.File, use func(fd int)) {
	raw, err := listener.SyscallConn()
	if err != nil {
		return
	}
	for {
		var fd int
		var acceptErr error
		if err := raw.Read(func(l uintptr) bool {
			fd, _, acceptErr = unix.Accept4(int(l), unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
			return acceptErr != unix.EAGAIN
		}); err != nil {
			return
		}
		switch acceptErr {
		case nil:
			use(fd)
		case unix.EINTR, unix.ECONNABORTED:
		default: // EMFILE, ENFILE, ENOMEM: the connection waits, and the listener stays readable
			time.Sleep(100 * time.Millisecond)
		}
	}
}

// begin takes over fd, and id's pidfd.
func (p *Peer) begin(fd int, id identity) error {
	// The kernel doubles it: room for a few packets. What is not read there is the launcher's memory and, with an fd in
	// it, counts for all that its user has in flight (unix(7), ETOOMANYREFS).
	err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, 2*maxMessage)
	if err == nil && !p.rules.expectFiles() {
		// The kernel refuses to send fds to whom expects none, since 6.16; before, they are closed when they come.
		if passErr := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PASSRIGHTS, 0); passErr != unix.ENOPROTOOPT {
			err = passErr
		}
	}
	if err != nil {
		unix.Close(fd)
		id.close()
		return fmt.Errorf("ipc peer %q: setsockopt: %w", p.name, err)
	}
	sock, err := newSocket(fd, 1)
	if err != nil {
		id.close()
		return fmt.Errorf("ipc peer %q: %w", p.name, err)
	}
	s := newSession(p, sock, id)
	if status, err := p.admit(s); err != nil {
		s.end(status, err.Error())
		s.close()
		return fmt.Errorf("ipc peer %q: %w", p.name, err)
	}
	return nil
}

func (p *Peer) admit(s *session) (status, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.closed:
		return statusGone, os.ErrClosed
	case len(p.sessions) >= p.quota.Sessions:
		return statusLimit, fmt.Errorf("%d sessions: %w", len(p.sessions), ErrLimit)
	}
	p.sessions[s] = struct{}{}
	p.parts.Go(s.run)
	return statusOK, nil
}

// charge adds n bytes to what the jail holds, or refuses.
func (p *Peer) charge(n int64) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n > p.quota.Memory-p.memory {
		return refuse(statusLimit, "%d bytes would make it %d of %d", n, p.memory+n, p.quota.Memory)
	}
	p.memory += n
	return nil
}

func (p *Peer) refund(n int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.memory -= n
}

// Close ends the peer's sessions: their locks and segments are given back, and nobody can connect any more. It returns
// when all that served the peer has ended, so no handler may call it.
func (p *Peer) Close() error {
	p.mu.Lock()
	p.closed = true
	sessions := p.sessions
	p.sessions = map[*session]struct{}{}
	var errs []error
	for _, l := range p.listeners {
		errs = append(errs, l.Close())
	}
	p.listeners = nil
	p.mu.Unlock()

	for s := range sessions {
		s.end(statusGone, "the launcher closes the session")
	}
	p.parts.Wait()
	p.mu.Lock()
	p.closeRoots()
	p.mu.Unlock()
	p.broker.mu.Lock()
	delete(p.broker.peers, p)
	p.broker.mu.Unlock()
	return errors.Join(errs...)
}

func (p *Peer) closeRoots() {
	for name, r := range p.roots {
		r.file.Close()
		delete(p.roots, name)
	}
}

// Close closes all peers.
func (b *Broker) Close() error {
	b.mu.Lock()
	b.closed = true
	peers := make([]*Peer, 0, len(b.peers))
	for p := range b.peers {
		peers = append(peers, p)
	}
	b.mu.Unlock()
	var errs []error
	for _, p := range peers {
		errs = append(errs, p.Close())
	}
	b.rendezvous.close()
	return errors.Join(errs...)
}

func (p *Peer) allowsLock(name string) bool   { return slices.Contains(p.rules.Locks, name) }
func (p *Peer) allowsResult(name string) bool { return slices.Contains(p.rules.Results, name) }
