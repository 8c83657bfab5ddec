//go:build !linux || !cgo || !(amd64 || arm64)

package isolate

import (
	"os"
	"runtime"
	"syscall"
)

// Host is the facts about a machine; there are none for this one.
type Host struct{}

// Process is a jail that runs; on this system there is none.
type Process struct {
	Pid  int
	done chan struct{}
}

func unsupported(level Level) error {
	return &UnsupportedError{Level: level, Missing: "jails need Linux on amd64 or arm64 and a build with cgo; this is " + runtime.GOOS + " on " + runtime.GOARCH}
}

func start(c *Cmd, _ []*os.File) (*Process, error) { return nil, unsupported(c.spec.Level) }

// Signal is not supported here.
func (p *Process) Signal(os.Signal) error { return unsupported(0) }

// SendSignal is not supported here.
func (p *Process) SendSignal(syscall.Signal, int, bool) error { return unsupported(0) }

// Contains is not supported here.
func (p *Process) Contains(int) bool { return false }

// Kill is not supported here.
func (p *Process) Kill() error { return unsupported(0) }

func (p *Process) setReason(Reason) bool { return false }

func (p *Process) wait() Result { return Result{} }

// Trace is nil here.
func (c *Cmd) Trace() *Trace { return nil }

func isBrokenPipe(error) bool { return false }

func duplicate(*os.File) (*os.File, error) { return nil, unsupported(0) }

func unread(*os.File) int { return 0 }

func baseline() []byte { return nil }

func defaultAllowList() []byte { return nil }

// Explain is not supported here.
func Explain(spec *Spec) (*Explanation, error) { return nil, unsupported(spec.Level) }

// Collect is not supported here.
func Collect() ([]string, error) { return nil, unsupported(0) }

// CheckLevels reports every level as unsupported here.
func CheckLevels() []LevelReport {
	var reports []LevelReport
	for _, level := range Levels() {
		reports = append(reports, LevelReport{Level: level, Err: unsupported(level)})
	}
	return reports
}
