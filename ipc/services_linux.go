//go:build amd64 || arm64

package ipc

import (
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
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
	file := r.file()
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

// open opens all files that m names, or none.
func (s *session) open(m *message) (files []*os.File, err error) {
	rule, r := s.peer.fileRule(m.S)
	switch {
	case r == nil:
		return nil, refuse(statusDenied, "no rule allows file %q", m.S)
	case accessNumber(rule.Access) < m.A:
		return nil, refuse(statusDenied, "the rule for file %q allows to %s", m.S, rule.Access)
	}
	paths := []string{m.T}
	if m.B > 0 {
		paths = strings.Split(m.T, pathSeparator)
	}
	switch {
	case m.B > MaxOpen:
		return nil, refuse(statusLimit, "%d files at once, of %d", m.B, MaxOpen)
	case m.B > 0 && m.B != uint64(len(paths)):
		return nil, fmt.Errorf("%d paths, the request says %d: %w", len(paths), m.B, unix.EINVAL)
	}
	for _, path := range paths {
		file, err := r.open(path, m.A, s.chargeCopy)
		if err != nil {
			for _, f := range files {
				f.Close()
			}
			return nil, err
		}
		files = append(files, file)
	}
	return files, nil
}

// awaitRoom waits before several files are opened until all answers before were read, and returns false when the session is
// over: fds that nobody reads take room in the launcher's table, and from what its user may have under way (unix(7),
// ETOOMANYREFS). So a session holds one such answer, or two while the first is being sent.
func (s *session) awaitRoom(files int) bool {
	if wait := s.peer.requests.reserve(files-1, time.Now()); wait > 0 && !s.sleep(wait) {
		return false
	}
	deadline := time.Now().Add(s.peer.broker.sendTimeout)
	for pause := 50 * time.Microsecond; ; pause = min(2*pause, 10*time.Millisecond) {
		unread, err := s.sock.unread()
		switch {
		case err != nil:
			s.end(statusGone, err.Error())
			return false
		case unread == 0 && len(s.answers) == 0:
			return true
		case time.Now().After(deadline):
			s.end(statusTimeout, "answers were not read")
			return false
		case !s.sleep(pause):
			return false
		}
	}
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
