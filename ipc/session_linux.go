//go:build amd64 || arm64

package ipc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"strconv"
	"sync"
	"time"
)

// session is a connection. Its state is where its reader is in run: handshaking, then serving, then ended. What is
// given to the peer goes in end, at once, whatever the reader does; the goroutines follow.
type session struct {
	peer    *Peer
	sock    *socket
	id      identity // without a pidfd until the hello, where the socket was inherited
	owner   *LockOwner
	answers chan outgoing

	ctx    context.Context // done when the session is over
	cancel context.CancelFunc
	once   sync.Once
	last   message // says why it is over; set before ctx is done
	parts  sync.WaitGroup

	mu      sync.Mutex
	ended   bool
	waiting map[uint32]context.CancelFunc // lock requests
	grants  map[string]*shared
	copies  int64 // bytes of files that were copied
}

// outgoing is an answer that waits to be sent.
type outgoing struct {
	message
	files []*os.File // closed when it is sent
	last  bool       // the session is over then
}

func (o *outgoing) close() {
	for _, f := range o.files {
		f.Close()
	}
}

func newSession(p *Peer, sock *socket, id identity) *session {
	s := &session{
		peer:    p,
		sock:    sock,
		id:      id,
		owner:   p.broker.locks.NewOwner(p.name),
		answers: make(chan outgoing, p.quota.Queue),
		waiting: map[uint32]context.CancelFunc{},
		grants:  map[string]*shared{},
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s
}

// run serves the session until it is over, and leaves nothing of it.
func (s *session) run() {
	s.parts.Go(s.write)
	if s.handshake() {
		s.serve()
	}
	s.parts.Wait()
	s.close()
	s.peer.forget(s)
}

func (s *session) close() {
	close(s.answers) // nobody is left who would send or receive
	for out := range s.answers {
		out.close()
	}
	s.sock.trySend(&s.last)
	s.sock.file.Close()
	s.id.close()
}

func (p *Peer) forget(s *session) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.sessions, s)
}

// end gives back what the session holds and makes its goroutines return. The first call's reason is told to the peer.
func (s *session) end(why status, reason string) {
	s.once.Do(func() {
		s.last = message{Kind: kindEnd, Status: why, S: clip(reason, maxText)}
		s.cancel()
		s.owner.Release()
		s.mu.Lock()
		s.ended = true
		grants, copies := s.grants, s.copies
		s.grants, s.copies = nil, 0
		s.mu.Unlock()
		b := s.peer.broker
		b.mu.Lock()
		for _, sh := range grants {
			b.giveBack(s, sh)
		}
		b.mu.Unlock()
		s.peer.refund(copies)
		s.sock.stop()
	})
}

// handshake takes the hello. It returns false when the session is over.
func (s *session) handshake() bool {
	if s.id.pidfd != nil {
		if err := s.sock.file.SetReadDeadline(time.Now().Add(s.peer.broker.helloTimeout)); err != nil {
			s.end(statusGone, err.Error())
			return false
		}
		if s.ctx.Err() != nil { // end has set its deadline before ours
			return false
		}
	}
	r, ok := s.receive()
	if !ok {
		return false
	}
	defer r.close()
	if r.Kind != kindHello || r.S != protocolMagic {
		s.end(statusProtocol, "a session begins with a hello")
		return false
	}
	if r.A > protocolVersion || r.B < protocolVersion {
		s.end(statusVersion, fmt.Sprintf("the client speaks versions %d to %d, the broker %d", r.A, r.B, protocolVersion))
		return false
	}
	if err := s.authenticate(&r); err != nil {
		s.end(statusDenied, err.Error())
		return false
	}
	if err := s.sock.file.SetReadDeadline(time.Time{}); err != nil || s.ctx.Err() != nil {
		s.end(statusGone, "the broker is ending")
		return false
	}
	welcome := message{Kind: kindHello | answerBit, ID: r.ID, A: protocolVersion, S: s.peer.name}
	if s.id.pinned {
		welcome.B |= helloByPidfd
	}
	s.queue(outgoing{message: welcome})
	return true
}

// authenticate finds out whose process has said hello, and watches it from now on.
func (s *session) authenticate(r *received) error {
	if s.id.pidfd == nil {
		id, err := senderIdentity(r)
		if err != nil {
			return err
		}
		s.id = id
		controlErr := s.sock.raw.Control(func(fd uintptr) { err = passIdentity(int(fd), false) })
		if err := errors.Join(controlErr, err); err != nil {
			return err
		}
	}
	if s.peer.handlers.Member != nil {
		if err := s.peer.handlers.Member(s.id.pid, s.id.pidfd); err != nil {
			return err
		}
	}
	if s.id.dead() { // so the pid was its own all the while
		return errors.New("the peer's process is dead")
	}
	context.AfterFunc(s.ctx, s.id.stop)
	s.parts.Go(func() {
		if s.id.wait() {
			s.end(statusGone, "process "+strconv.Itoa(s.id.pid)+" is dead")
		}
	})
	return nil
}

// serve answers requests until the session is over, or until its last answer is on its way.
func (s *session) serve() {
	for {
		if wait := s.peer.requests.reserve(1, time.Now()); wait > 0 && !s.sleep(wait) {
			return
		}
		r, ok := s.receive()
		if !ok {
			return
		}
		closeValid(r.pidfd) // none comes any more
		switch r.Kind {
		case kindHello:
			s.end(statusProtocol, "a second hello")
			return
		case kindQuit:
			s.queue(outgoing{message: answerTo(&r.message, nil), last: true})
			return
		case kindLock:
			s.lock(&r.message)
		default:
			if r.Kind == kindOpen && r.B > 1 && r.B <= MaxOpen && !s.awaitRoom(int(r.B)) {
				return
			}
			s.queue(s.handle(&r))
		}
	}
}

// receive returns the next request. It returns false when the session is over.
func (s *session) receive() (received, bool) {
	r, err := s.sock.receive()
	if err == nil {
		if err = checkRequest(&r.message); err == nil {
			return r, true
		}
		r.close()
		s.end(statusProtocol, err.Error())
		return received{}, false
	}
	var malformed *malformedError
	switch {
	case errors.Is(err, io.EOF), isReset(err):
		s.end(statusGone, "the peer has closed the connection")
	case errors.As(err, &malformed):
		s.end(statusProtocol, err.Error())
	case errors.Is(err, os.ErrDeadlineExceeded):
		s.end(statusTimeout, "no hello came in time") // or end was called before
	default:
		s.end(statusGone, err.Error())
	}
	return received{}, false
}

// sleep returns false when the session is over.
func (s *session) sleep(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-s.ctx.Done():
		return false
	}
}

// queue hands an answer to the writer. It waits while the queue is full: so a peer that does not read is not read from.
func (s *session) queue(out outgoing) {
	select {
	case s.answers <- out:
	case <-s.ctx.Done():
		out.close()
	}
}

func (s *session) write() {
	for {
		select {
		case <-s.ctx.Done():
			return
		case out := <-s.answers:
			err := s.sock.file.SetWriteDeadline(time.Now().Add(s.peer.broker.sendTimeout))
			if err == nil && s.ctx.Err() == nil { // else end may have set its deadline before ours
				err = s.sock.send(&out.message, out.files)
			}
			out.close()
			switch {
			case err != nil:
				s.end(statusTimeout, "answers were not read: "+err.Error())
			case out.last:
				s.end(statusOK, "")
			}
		}
	}
}

// handle carries out a request that is answered at once.
func (s *session) handle(r *received) outgoing {
	m := &r.message
	var answer message
	var file *os.File
	var files []*os.File
	var err error
	switch m.Kind {
	case kindOpen:
		files, err = s.open(m)
	case kindUnlock:
		err = s.owner.Unlock(m.S)
	case kindCancel:
		s.mu.Lock()
		if cancel := s.waiting[uint32(m.A)]; cancel != nil { // else it was answered meanwhile
			cancel()
		}
		s.mu.Unlock()
	case kindMemory:
		answer, file, err = s.memory(m)
	case kindPublish:
		err = s.publish(r)
	case kindRelease:
		err = s.release(m)
	case kindChannel:
		answer, file, err = s.channel(m)
	case kindLog:
		err = s.log(m)
	case kindProgress:
		err = s.progress(m)
	case kindResult:
		err = s.result(r)
	case kindHello, kindLock, kindQuit, kindLimit, kindEnd, answerBit: // not here
	}
	out := outgoing{message: answerTo(m, err), files: append(files, oneOrNone(file)...)}
	if err == nil {
		out.A, out.B = answer.A, answer.B
	}
	return out
}

// lock answers when the lock is the peer's, or can't be.
func (s *session) lock(m *message) {
	refused := func(err error) { s.queue(outgoing{message: answerTo(m, err)}) }
	if !s.peer.allowsLock(m.S) {
		refused(refuse(statusDenied, "no rule allows lock %q", m.S))
		return
	}
	s.mu.Lock()
	waiting, twice := len(s.waiting), s.waiting[m.ID] != nil
	s.mu.Unlock()
	switch n := waiting + len(s.owner.Held()); {
	case twice:
		s.end(statusProtocol, "two lock requests with the same number wait")
		return
	case n >= s.peer.quota.Locks:
		refused(refuse(statusLimit, "%d locks", n))
		return
	case m.B == 0:
		got, err := s.owner.TryLock(m.S, LockMode(m.A))
		if err == nil && !got {
			err = context.DeadlineExceeded
		}
		refused(err)
		return
	}
	ctx, cancel := context.WithCancel(s.ctx)
	if m.B != waitForever {
		ctx, cancel = context.WithTimeout(s.ctx, time.Duration(min(m.B, math.MaxInt64)))
	}
	request, err := s.owner.request(ctx, m.S, LockMode(m.A))
	if err != nil {
		cancel()
		refused(err)
		return
	}
	s.mu.Lock()
	s.waiting[m.ID] = cancel
	s.mu.Unlock()
	wait := func() {
		err := request.wait(ctx)
		cancel()
		s.mu.Lock()
		delete(s.waiting, m.ID)
		s.mu.Unlock()
		refused(err)
	}
	select {
	case <-request.done: // nobody had it
		wait()
	default:
		s.parts.Go(wait)
	}
}
