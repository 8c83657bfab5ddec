package isolate

import (
	"errors"
	"fmt"
	"strconv"
	"syscall"
)

// ErrUnsupported is what errors.Is finds in every error that says "this host can't": the cause is an
// *UnsupportedError where the host is a Linux.
var ErrUnsupported = errors.ErrUnsupported

// SpecError is bad input: nothing was started.
type SpecError struct {
	Field   string // the flag or key without dashes: "bind", "rlimit"
	Value   string // as the user gave it
	Problem string // completes the sentence
}

func (e *SpecError) Error() string {
	return fmt.Sprintf("%s %s %s", e.Field, strconv.Quote(e.Value), e.Problem)
}

// StepError is a step of the Plan that failed. Its Unwrap is the errno.
type StepError struct {
	Index  int    // in Plan.Steps, or -1 before the first
	Side   Side   // who failed
	Op     string // "mount", "clone3"
	Object string // the path or name that the step is about
	Errno  syscall.Errno
}

func (e *StepError) Error() string {
	if e.Object == "" {
		return fmt.Sprintf("%s: %s", e.Op, e.Errno.Error())
	}
	return fmt.Sprintf("%s %s: %s", e.Op, e.Object, e.Errno.Error())
}

func (e *StepError) Unwrap() error { return e.Errno }

// errSilent is jail-init's death before it reported anything.
var errSilent = &StepError{Index: -1, Side: SideInit, Op: "jail-init", Object: "ended without a word", Errno: syscall.ECHILD}

// UnsupportedError says that this host can't give a level: which step did not work, and the highest level that does.
type UnsupportedError struct {
	Level   Level
	Missing string     // what the host lacks, in words; "" where Step tells all
	Step    *StepError // nil where the lack was seen before any step
	Highest Level      // 0 is none
}

func (e *UnsupportedError) Error() string {
	msg := fmt.Sprintf("this host can't give level %s", e.Level)
	switch {
	case e.Step != nil:
		msg += ": " + e.Step.Error()
	case e.Missing != "":
		msg += ": " + e.Missing
	}
	if e.Highest != 0 {
		msg += fmt.Sprintf(" (the highest level that works here is %s)", e.Highest)
	}
	return msg
}

// Unwrap gives the failed step, and with it the errno.
func (e *UnsupportedError) Unwrap() error {
	if e.Step == nil {
		return nil
	}
	return e.Step
}

// Is makes every UnsupportedError an ErrUnsupported.
func (e *UnsupportedError) Is(target error) bool { return target == ErrUnsupported }

// ExecError says that the walls stood but the payload's program could not be run.
type ExecError struct {
	Name  string // as asked for
	Path  string // the file that was tried last, or ""
	Errno syscall.Errno
}

func (e *ExecError) Error() string {
	if e.Errno == syscall.ENOENT && e.Path == "" {
		return strconv.Quote(e.Name) + ": command not found"
	}
	name := e.Path
	if name == "" {
		name = e.Name
	}
	return fmt.Sprintf("exec %s: %s", strconv.Quote(name), e.Errno.Error())
}

func (e *ExecError) Unwrap() error { return e.Errno }

// ExitCode is what a shell would give: 127 where there is no such command, 126 where it can't be run.
func (e *ExecError) ExitCode() int {
	if e.Errno == syscall.ENOENT || e.Errno == syscall.ENOTDIR {
		return 127
	}
	return 126
}

// ExitError is a payload that ended otherwise than with code 0. Its Result tells the rest.
type ExitError struct {
	*Result
	Stderr []byte // from Output, where Cmd.Stderr was nil
}

func (e *ExitError) Error() string { return e.Result.String() }
