//go:build amd64 || arm64

package ipc

import "os"

// shared is a segment that has a name. The broker's table has it while a session holds it.
type shared struct {
	key   string // what Broker.segments has it under
	size  int
	write bool     // who has it may write to it; else its owner alone
	owner *session // nil where all write, or another launcher's jail owns it

	made    chan struct{} // closed when what follows is set
	err     error
	segment *Segment

	// Guarded by Broker.mu.
	kept  *keeper // where other launchers of the user may ask for it
	users int     // sessions that hold it, and requests that use it
}

// segmentRequest is what a session asks for by name.
type segmentRequest struct {
	key    string
	size   int
	access uint64 // accessRead or accessWrite, or 0 where the session's jail publishes it
	user   bool   // the user's other launchers may have it
	create func() (*Segment, error)
}

func memoryKey(name string) string  { return "memory-" + name }
func channelKey(name string) string { return "channel-" + name }

func (p *Peer) memoryRule(name string) *MemoryRule {
	for i := range p.rules.Memory {
		if p.rules.Memory[i].Name == name {
			return &p.rules.Memory[i]
		}
	}
	return nil
}

// memory gives the session a segment that all may write, or one to read.
func (s *session) memory(m *message) (message, *os.File, error) {
	rule := s.peer.memoryRule(m.S)
	switch {
	case rule == nil:
		return message{}, nil, refuse(statusDenied, "no rule allows memory %q", m.S)
	case accessNumber(rule.Access) != m.A:
		return message{}, nil, refuse(statusDenied, "the rule for memory %q allows to %s", m.S, rule.Access)
	}
	file, err := s.segment(segmentRequest{
		key:    memoryKey(m.S),
		size:   int(rule.Size),
		access: m.A,
		user:   rule.User,
		create: func() (*Segment, error) { return Create(m.S, int(rule.Size)) },
	})
	return message{A: uint64(rule.Size)}, file, err
}

func (s *session) channel(m *message) (message, *os.File, error) {
	for _, rule := range s.peer.rules.Channels {
		if rule.Name != m.S {
			continue
		}
		if uint64(rule.Element) != m.A {
			return message{}, nil, refuse(statusConflict, "the elements of channel %q have %d bytes, not %d", m.S, rule.Element, m.A)
		}
		file, err := s.segment(segmentRequest{
			key:    channelKey(m.S),
			size:   channelSize(rule.Element, rule.Capacity),
			access: accessWrite,
			user:   rule.User,
			create: func() (*Segment, error) { return Create(m.S, channelSize(rule.Element, rule.Capacity)) },
		})
		return message{A: uint64(rule.Element), B: uint64(rule.Capacity)}, file, err
	}
	return message{}, nil, refuse(statusDenied, "no rule allows channel %q", m.S)
}

// channelSize is [ChannelSize] for a type of so many bytes. Zeros are an empty channel, so there is nothing to set up.
func channelSize(element, capacity int) int {
	slot := (64 + element + 7) / 8 * 8
	return 3*64 + max(capacity, 1)*slot
}

// publish takes a segment that the peer has made and sealed, so that it alone ever writes there.
func (s *session) publish(r *received) error {
	file := r.file()
	rule := s.peer.memoryRule(r.S)
	if rule == nil || rule.Access != MayOwn {
		file.Close()
		return refuse(statusDenied, "no rule allows to publish memory %q", r.S)
	}
	published, err := s.segment(segmentRequest{
		key:  memoryKey(r.S),
		size: int(rule.Size),
		user: rule.User,
		create: func() (*Segment, error) {
			segment, err := OpenReadOnly(file)
			file = nil
			return segment, err
		},
	})
	if file != nil {
		file.Close()
	}
	if published != nil {
		published.Close() // that it could be opened shows that it is sealed against writers
	}
	return err
}

// segment gives the session a segment, and opens it anew for it: locks of an open file description (F_OFD_SETLK) tell
// apart the processes that share memory.
func (s *session) segment(q segmentRequest) (*os.File, error) {
	b := s.peer.broker
	sh, found, err := s.take(q)
	if err != nil {
		return nil, err
	}
	defer b.done(sh)
	if found == takenNew {
		b.makeShared(sh, q)
	}
	select {
	case <-sh.made:
	case <-s.ctx.Done():
		return nil, ErrSessionOver // end gives it back
	}
	file, err := sh.open()
	if err != nil && found != takenBefore {
		s.drop(sh)
	}
	return file, err
}

func (sh *shared) open() (*os.File, error) {
	switch {
	case sh.err != nil:
		return nil, sh.err
	case sh.write:
		return sh.segment.Share()
	default:
		return sh.segment.ShareReadOnly()
	}
}

// taken says what take found.
type taken int

const (
	takenBefore taken = iota // the session held it already
	takenOther               // others hold it
	takenNew                 // nobody did: the caller has to make it
)

// take puts the segment of that name among what the session holds. The caller uses it until done.
func (s *session) take(q segmentRequest) (sh *shared, found taken, err error) {
	b := s.peer.broker
	b.mu.Lock()
	defer b.mu.Unlock()
	sh = b.segments[q.key]
	switch {
	case sh == nil && q.access == accessRead && !q.user:
		return nil, 0, refuse(statusNotReady, "nobody has published it yet")
	case sh == nil:
		found = takenNew
		sh = &shared{key: q.key, size: q.size, write: q.access == accessWrite, made: make(chan struct{})}
		if q.access == 0 {
			sh.owner = s
		}
	case sh.size != q.size:
		return nil, 0, refuse(statusConflict, "it has %d bytes, the rule says %d", sh.size, q.size)
	case sh.write != (q.access == accessWrite):
		return nil, 0, refuse(statusConflict, "for one jail's rule all write to it, for another's only an owner")
	case q.access == 0:
		return nil, 0, refuse(statusConflict, "it is published already")
	}

	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return nil, 0, ErrSessionOver
	}
	before := s.grants[q.key]
	if before == sh {
		sh.users++
		return sh, takenBefore, nil
	}
	if err := s.peer.charge(int64(q.size)); err != nil {
		return nil, 0, err
	}
	if before != nil { // its owner has gone, and the name is another's now
		b.giveBack(s, before)
	}
	if found != takenNew {
		found = takenOther
	}
	b.segments[q.key] = sh
	sh.users += 2
	s.grants[q.key] = sh
	return sh, found, nil
}

// makeShared makes what take has announced. Others wait for it.
func (b *Broker) makeShared(sh *shared, q segmentRequest) {
	var kept *keeper
	if q.user {
		sh.segment, kept, sh.err = b.meet(q)
	} else {
		sh.segment, sh.err = q.create()
	}
	if sh.err == nil {
		sh.err = checkSize(sh.segment, q.size)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	sh.kept = kept
	if sh.err != nil {
		b.free(sh)
	}
	close(sh.made)
}

// checkSize compares with what Create gives: whole pages.
func checkSize(segment *Segment, size int) error {
	page := os.Getpagesize()
	if total := (headerSize + size + page - 1) / page * page; segment.Size() != total-headerSize {
		return refuse(statusConflict, "it has %d bytes, the rule says %d", segment.Size(), size)
	}
	return nil
}

// giveBack ends what the session has held. The caller has b.mu.
func (b *Broker) giveBack(s *session, sh *shared) {
	s.peer.refund(int64(sh.size))
	if sh.owner == s { // nobody writes any more: who reads keeps it, and the name is free
		b.free(sh)
	}
	b.leave(sh)
}

func (b *Broker) done(sh *shared) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.leave(sh)
}

// leave ends one use of sh; with the last one it goes. The caller has b.mu.
func (b *Broker) leave(sh *shared) {
	if sh.users--; sh.users > 0 {
		return
	}
	b.free(sh)
	if sh.segment != nil {
		_ = sh.segment.Close() // an unmap of what is mapped can't fail
	}
}

// free makes the name of sh another's.
func (b *Broker) free(sh *shared) {
	if b.segments[sh.key] == sh {
		delete(b.segments, sh.key)
	}
	if sh.kept != nil {
		sh.kept.close()
		sh.kept = nil
	}
}

// drop takes sh from what the session holds, and says whether it did hold it.
func (s *session) drop(sh *shared) bool {
	b := s.peer.broker
	b.mu.Lock()
	defer b.mu.Unlock()
	s.mu.Lock()
	held := s.grants[sh.key] == sh
	if held {
		delete(s.grants, sh.key)
	}
	s.mu.Unlock()
	if held { // else end has given it back
		b.giveBack(s, sh)
	}
	return held
}

func (s *session) release(m *message) error {
	key := memoryKey(m.S)
	if m.A == 1 {
		key = channelKey(m.S)
	}
	s.mu.Lock()
	sh := s.grants[key]
	s.mu.Unlock()
	if sh == nil || !s.drop(sh) {
		return refuse(statusNotHeld, "%s is not held", key)
	}
	return nil
}
