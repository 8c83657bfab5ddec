package ipc

import (
	"errors"
	"fmt"
)

// The causes of an [Error]; errors.Is finds them.
var (
	ErrUnsupported = errors.New("needs Linux on amd64 or arm64")
	ErrPoisoned    = errors.New("an owner died in the middle of it")
	ErrBroken      = errors.New("a party died or left")
	ErrWouldBlock  = errors.New("would have to wait")
	ErrClosed      = errors.New("is closed")
	ErrCorrupt     = errors.New("a word in shared memory has a value that no honest peer writes")
	ErrDeadlock    = errors.New("would close a circle of waiters")
	ErrNotHeld     = errors.New("is not held by this process")
	ErrTooMany     = errors.New("more holders in one process than can be counted")
)

// Error says which operation failed on which object and why: one of the causes above, the context's error, or an errno.
type Error struct {
	Op     string // "create", "lock", "send"
	Object string // `segment "frames"`, `mutex of segment "frames"`
	Err    error
}

func (e *Error) Error() string { return fmt.Sprintf("ipc: %s %s: %v", e.Op, e.Object, e.Err) }

func (e *Error) Unwrap() error { return e.Err }

// wrap is nil for a nil err.
func wrap(op, object string, err error) error {
	if err == nil {
		return nil
	}
	return &Error{Op: op, Object: object, Err: err}
}

// failure is wrap for an object whose name costs something to make, which only an error needs.
func failure(op string, object fmt.Stringer, err error) error {
	if err == nil {
		return nil
	}
	return &Error{Op: op, Object: object.String(), Err: err}
}
