//go:build amd64 || arm64

package ipc

import (
	"log/slog"
	"os"
	"time"
)

func (s *session) log(m *message) error {
	switch {
	case !s.peer.rules.Log:
		return refuse(statusDenied, "no rule allows log")
	case !s.peer.logged.take(len(m.S)+1, time.Now()):
		return refuse(statusLimit, "more than %d bytes of log a second", s.peer.quota.LogBytes)
	}
	s.peer.handlers.Log(slog.Level(int(m.A)-logLevelZero), m.S)
	return nil
}

func (s *session) progress(m *message) error {
	if !s.peer.rules.Progress {
		return refuse(statusDenied, "no rule allows progress")
	}
	s.peer.handlers.Progress(m.A, m.B, m.S)
	return nil
}

func (s *session) result(r *received) error {
	file := r.file
	if !s.peer.allowsResult(r.S) {
		file.Close()
		return refuse(statusDenied, "no rule allows result %q", r.S)
	}
	p := s.peer
	p.mu.Lock()
	full := p.results >= p.quota.Results
	if !full {
		p.results++
	}
	p.mu.Unlock()
	if full {
		file.Close()
		return refuse(statusLimit, "%d results", p.quota.Results)
	}
	p.handlers.Result(r.S, file)
	return nil
}

func (s *session) open(m *message) (*os.File, error) {
	rule, r := s.peer.fileRule(m.S)
	switch {
	case r == nil:
		return nil, refuse(statusDenied, "no rule allows file %q", m.S)
	case accessNumber(rule.Access) < m.A:
		return nil, refuse(statusDenied, "the rule for file %q allows to %s", m.S, rule.Access)
	}
	return r.open(m.T, m.A, s.chargeCopy)
}

// chargeCopy adds n bytes to what the session holds until its end.
func (s *session) chargeCopy(n int64) error {
	if err := s.peer.charge(n); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		s.peer.refund(n)
		return ErrSessionOver
	}
	s.copies += n
	return nil
}

func (p *Peer) fileRule(name string) (FileRule, *root) {
	for _, rule := range p.rules.Files {
		if rule.Name == name {
			return rule, p.roots[name]
		}
	}
	return FileRule{}, nil
}

func accessNumber(a Access) uint64 {
	switch a {
	case MayRead:
		return accessRead
	case MayWrite:
		return accessWrite
	case MayCreate:
		return accessCreate
	case MayOwn:
	}
	return 0
}
