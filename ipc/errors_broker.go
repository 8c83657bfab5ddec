package ipc

import (
	"context"
	"errors"
	"fmt"
	"syscall"
)

var (
	// ErrDenied is a request that the jail's rules do not allow.
	ErrDenied = errors.New("not allowed")
	// ErrConflict is a name that exists with another size or kind, or an owner that exists already.
	ErrConflict = errors.New("exists otherwise")
	// ErrNotReady is memory that nobody has published yet.
	ErrNotReady = errors.New("not ready")
	// ErrProtocol is a message that the other side does not understand or does not expect.
	ErrProtocol = errors.New("protocol error")
	// ErrVersion is a broker that speaks no version of the protocol that the client speaks.
	ErrVersion = errors.New("no protocol version in common")
	// ErrSessionOver is what the requests of a session get that has ended, for whatever reason.
	ErrSessionOver = errors.New("session is over")
)

// answerError returns the error that an answer stands for, with the broker's words, or nil.
func answerError(m *message) error {
	cause := answerCause(m)
	if cause == nil || m.S == "" {
		return cause
	}
	return fmt.Errorf("%w: %s", cause, m.S)
}

func answerCause(m *message) error {
	switch m.Status {
	case statusOK:
		return nil
	case statusDenied:
		return ErrDenied
	case statusLimit:
		return ErrLimit
	case statusErrno:
		return syscall.Errno(m.A)
	case statusTimeout:
		return context.DeadlineExceeded
	case statusDeadlock:
		return ErrDeadlock
	case statusConflict:
		return ErrConflict
	case statusNotReady:
		return ErrNotReady
	case statusNotHeld:
		return ErrNotHeld
	case statusVersion:
		return ErrVersion
	case statusGone:
		return ErrSessionOver
	case statusProtocol, statusLast:
	}
	return ErrProtocol
}

// refusal is why a request is answered with a status other than OK.
type refusal struct {
	status status
	errno  syscall.Errno // with statusErrno
	reason string
}

func (r *refusal) Error() string { return fmt.Sprintf("status %d: %s", r.status, r.reason) }

func refuse(s status, format string, args ...any) error {
	return &refusal{status: s, reason: fmt.Sprintf(format, args...)}
}

// answerTo makes the answer to request m, which err ended.
func answerTo(m *message, err error) message {
	answer := message{Kind: m.Kind | answerBit, ID: m.ID}
	var r *refusal
	var errno syscall.Errno
	switch {
	case err == nil:
	case errors.As(err, &r):
		answer.Status, answer.A, answer.S = r.status, uint64(r.errno), r.reason
	case errors.Is(err, ErrDeadlock):
		answer.Status, answer.S = statusDeadlock, err.Error()
	case errors.Is(err, ErrLimit):
		answer.Status, answer.S = statusLimit, err.Error()
	case errors.Is(err, ErrNotHeld):
		answer.Status, answer.S = statusNotHeld, err.Error()
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		answer.Status = statusTimeout
	case errors.As(err, &errno):
		answer.Status, answer.A, answer.S = statusErrno, uint64(errno), err.Error()
	default:
		answer.Status, answer.S = statusGone, err.Error()
	}
	answer.S = clip(answer.S, maxText)
	return answer
}
