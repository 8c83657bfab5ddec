package isolate

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"slices"
	"time"
)

// Cmd is a command to be run in a jail, shaped like os/exec.Cmd: the fields have the meaning that they have there. It
// can be used once, by one goroutine at a time; different ones are independent and may be started from any goroutine
// or thread, many at once.
type Cmd struct {
	// Env is the payload's environment; nil is DefaultEnv of this process's. From level user up TMPDIR is added where
	// it is missing.
	Env []string
	// Dir is the payload's working folder; "" is the caller's.
	Dir string

	// Stdin, Stdout and Stderr are as in os/exec: nil is /dev/null, an *os.File is passed as it is, anything else is
	// copied by a goroutine. With Spec.OutputLimit both outputs are pipes, and files are copied to as well: a terminal is
	// none for the payload then, and the end of the jail is the end of its output, whoever else holds the pipes.
	Stdin  io.Reader
	Stdout io.Writer
	Stderr io.Writer
	// ExtraFiles: entry i becomes fd 3+i; a nil entry is left closed. The caller keeps its own. What is written to them
	// does not count for Spec.OutputLimit.
	ExtraFiles []*os.File

	// Cancel is called when the context is done; nil kills the whole tree. Where it is set and the payload goes on,
	// the tree is killed WaitDelay later.
	Cancel func() error
	// WaitDelay bounds the time from the context's end, or the jail's, to the end of Wait; see os/exec. 0 is no bound. A
	// file that takes no output, copied to for Spec.OutputLimit, may be written to until it does, or is closed.
	WaitDelay time.Duration

	// Process is set by Start.
	Process *Process

	ctx      context.Context
	spec     *Spec
	plan     *Plan
	given    Level // the Plan's
	result   Result
	finished bool

	meter       *meter      // with Spec.OutputLimit
	childFiles  []io.Closer // closed after the start
	parentFiles []io.Closer // closed by Wait
	readers     []io.Closer // of StdoutPipe and StderrPipe, closed by Wait before what is copied to them
	copying     []func() error
	copied      chan error
	cancelled   chan struct{} // closed when the context's watcher has ended
	cancelErr   error

	try                 bool   // end before the payload's exec
	failStep, failErrno uint32 // test mode: this step fails
	host                *Host  // test mode: facts instead of this machine's
}

// Command returns the command name with arguments, to be run in a jail of a level. A name without a slash is looked up
// in the payload's PATH, inside the jail, as the payload. The context's end kills the whole tree; it is not optional,
// as in exec.CommandContext.
func Command(ctx context.Context, level Level, name string, args ...string) *Cmd {
	if ctx == nil {
		panic("nil Context")
	}
	return &Cmd{ctx: ctx, spec: NewSpec(level, name, args...)}
}

// FromSpec returns a command for a Spec. The Spec must not be changed after Start.
func FromSpec(ctx context.Context, spec *Spec) *Cmd { return &Cmd{ctx: ctx, spec: spec} }

// Spec is what will be run; change it before Start to go further than a level does.
func (c *Cmd) Spec() *Spec { return c.spec }

// Plan is what was done, or, after a Start that failed, what failed; nil where it did not come to a Plan.
func (c *Cmd) Plan() *Plan { return c.plan }

// Result is what happened. It is complete after Wait, or after a Start or Run that failed.
func (c *Cmd) Result() *Result {
	if !c.finished {
		return nil
	}
	return &c.result
}

// Run starts the command and waits for it.
func (c *Cmd) Run() error {
	if err := c.Start(); err != nil {
		return err
	}
	return c.Wait()
}

// Output runs the command and returns its standard output; of an *ExitError, Stderr has the end of its errors.
func (c *Cmd) Output() ([]byte, error) {
	if c.Stdout != nil {
		return nil, errors.New("isolate: Stdout already set")
	}
	var out bytes.Buffer
	c.Stdout = &out
	var kept *tail
	if c.Stderr == nil {
		kept = &tail{limit: 64 << 10}
		c.Stderr = kept
	}
	err := c.Run()
	var exit *ExitError
	if kept != nil && errors.As(err, &exit) {
		exit.Stderr = kept.bytes
	}
	return out.Bytes(), err
}

// CombinedOutput runs the command and returns its output and errors together.
func (c *Cmd) CombinedOutput() ([]byte, error) {
	if c.Stdout != nil || c.Stderr != nil {
		return nil, errors.New("isolate: Stdout or Stderr already set")
	}
	var out bytes.Buffer
	c.Stdout, c.Stderr = &out, &out
	err := c.Run()
	return out.Bytes(), err
}

// tail keeps the last bytes that were written to it.
type tail struct {
	bytes []byte
	limit int
}

func (t *tail) Write(p []byte) (int, error) {
	t.bytes = append(t.bytes, p...)
	if over := len(t.bytes) - t.limit; over > 0 {
		t.bytes = slices.Delete(t.bytes, 0, over)
	}
	return len(p), nil
}

// StdinPipe returns a pipe to the payload's input. Wait closes it when the payload has ended; close it sooner to end
// the input.
func (c *Cmd) StdinPipe() (io.WriteCloser, error) {
	if c.Stdin != nil {
		return nil, errors.New("isolate: Stdin already set")
	}
	r, w, err := c.pipe()
	if err != nil {
		return nil, err
	}
	c.Stdin = r
	c.childFiles = append(c.childFiles, r)
	c.parentFiles = append(c.parentFiles, w)
	return w, nil
}

// StdoutPipe returns a pipe from the payload's output. Wait closes it, so read to the end first.
func (c *Cmd) StdoutPipe() (io.ReadCloser, error) {
	if c.Stdout != nil {
		return nil, errors.New("isolate: Stdout already set")
	}
	r, w, err := c.outputPipe()
	if err == nil {
		c.Stdout = w
	}
	return r, err
}

// StderrPipe is StdoutPipe for errors.
func (c *Cmd) StderrPipe() (io.ReadCloser, error) {
	if c.Stderr != nil {
		return nil, errors.New("isolate: Stderr already set")
	}
	r, w, err := c.outputPipe()
	if err == nil {
		c.Stderr = w
	}
	return r, err
}

func (c *Cmd) outputPipe() (io.ReadCloser, *os.File, error) {
	r, w, err := c.pipe()
	if err != nil {
		return nil, nil, err
	}
	c.childFiles = append(c.childFiles, w)
	c.readers = append(c.readers, r)
	return r, w, nil
}

func (c *Cmd) pipe() (r, w *os.File, err error) {
	if c.Process != nil || c.finished {
		return nil, nil, errors.New("isolate: the command has been started")
	}
	return os.Pipe()
}

// Start starts the command. When it returns nil, the payload's program runs (its exec has succeeded), and Wait has to
// be called. Errors: a *SpecError for what can't be asked for, an error that is ErrUnsupported where this host can't
// give the level, a *StepError for a step that failed otherwise, an *ExecError where the program could not be run.
// After an error nothing is left behind, and Result tells the same.
func (c *Cmd) Start() error {
	if c.Process != nil || c.finished {
		return errors.New("isolate: the command has been started")
	}
	err := c.ctx.Err()
	if err == nil {
		err = c.startFiles()
	}
	closeAll(c.childFiles)
	c.childFiles = nil
	if err != nil {
		closeAll(c.parentFiles)
		closeAll(c.readers)
		if c.ctx.Err() != nil {
			err = c.ctx.Err()
		}
		c.fail(err)
		return err
	}
	c.copied = make(chan error, len(c.copying))
	for _, f := range c.copying {
		go func() { c.copied <- f() }()
	}
	c.watch()
	return nil
}

// fail makes the Result of a run that did not start, as far as we know.
func (c *Cmd) fail(err error) {
	c.finished = true
	c.result = Result{
		Level: c.spec.Level, Reason: SetupFailed, ExitCode: -1, UID: -1, GID: -1, Identity: c.spec.identity(),
		Error: err.Error(), LostGuarantees: []Guarantee{}, LimitsHit: []string{}, Appeared: []string{}, Denied: []Denial{},
		UserMS: -1, SystemMS: -1, PeakMemoryBytes: -1, OOMKills: -1, OutputBytes: -1,
	}
	var exec *ExecError
	switch {
	case errors.As(err, &exec):
		c.result.Reason, c.result.GivenLevel = ExecFailed, c.given
	case errors.Is(err, errSilent): // a payload may have run, and killed it before it could say so
		c.result.Reason, c.result.GivenLevel = SupervisorLost, c.given
	case c.ctx.Err() != nil:
		c.result.Reason = Cancelled
	}
}

// startFiles makes the payload's fds from Stdin, Stdout, Stderr and ExtraFiles, and starts.
func (c *Cmd) startFiles() error {
	in, err := c.inputFile()
	if err != nil {
		return err
	}
	if c.spec.OutputLimit > 0 {
		c.meter = &meter{limit: c.spec.OutputLimit, action: c.spec.outputAction()}
	}
	out, err := c.outputFile(c.Stdout)
	if err != nil {
		return err
	}
	errs := out
	if !c.oneOutput() {
		if errs, err = c.outputFile(c.Stderr); err != nil {
			return err
		}
	}
	files := append([]*os.File{in, out, errs}, c.ExtraFiles...)
	c.Process, err = start(c, files)
	return err
}

// same compares two writers; those that can't be compared differ.
func same(a, b any) bool {
	defer func() { _ = recover() }() // a type that is not comparable, as in os/exec
	return a == b
}

func (c *Cmd) inputFile() (*os.File, error) {
	if c.Stdin == nil {
		return c.null(os.O_RDONLY)
	}
	if f, ok := c.Stdin.(*os.File); ok {
		return f, nil
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	c.childFiles = append(c.childFiles, r)
	c.parentFiles = append(c.parentFiles, w)
	c.copying = append(c.copying, func() error {
		_, err := io.Copy(w, c.Stdin)
		if isBrokenPipe(err) { // the payload need not read all its input
			err = nil
		}
		if e := w.Close(); err == nil && !errors.Is(e, os.ErrClosed) {
			err = e
		}
		return err
	})
	return r, nil
}

func (c *Cmd) outputFile(to io.Writer) (*os.File, error) {
	if c.meter != nil {
		return c.meteredFile(to)
	}
	if to == nil {
		return c.null(os.O_WRONLY)
	}
	if f, ok := to.(*os.File); ok {
		return f, nil
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	c.childFiles = append(c.childFiles, w)
	c.parentFiles = append(c.parentFiles, r)
	c.copying = append(c.copying, func() error {
		_, err := io.Copy(to, r)
		r.Close() // a writer that failed must not block the payload: it gets EPIPE
		return err
	})
	return w, nil
}

func (c *Cmd) null(mode int) (*os.File, error) {
	f, err := os.OpenFile(os.DevNull, mode, 0)
	if err == nil {
		c.childFiles = append(c.childFiles, f)
	}
	return f, err
}

// watch ends the jail when the context does.
func (c *Cmd) watch() {
	if c.ctx.Done() == nil {
		return
	}
	c.cancelled = make(chan struct{})
	go func() {
		defer close(c.cancelled)
		select {
		case <-c.Process.done:
			return
		case <-c.ctx.Done():
		}
		if !c.Process.setReason(Cancelled) {
			return
		}
		c.cancelErr = c.ctx.Err()
		if c.Cancel == nil {
			_ = c.Process.Kill()
			return
		}
		if err := c.Cancel(); err != nil && !errors.Is(err, os.ErrProcessDone) {
			c.cancelErr = err
		}
		if c.WaitDelay == 0 {
			return
		}
		timer := time.NewTimer(c.WaitDelay)
		defer timer.Stop()
		select {
		case <-c.Process.done:
		case <-timer.C:
			_ = c.Process.Kill()
		}
	}()
}

// ErrWaitDelay is returned by Wait when the payload succeeded but its pipes were still held when WaitDelay ran out.
var ErrWaitDelay = errors.New("isolate: WaitDelay expired before I/O complete")

// Wait waits for the end of the jail and of all copying. Its error is nil for a payload that exited with 0, an
// *ExitError for one that ended otherwise, and else what went wrong with copying or cancelling.
func (c *Cmd) Wait() error {
	if c.Process == nil {
		return errors.New("isolate: not started")
	}
	if c.finished {
		return errors.New("isolate: Wait was already called")
	}
	c.result = c.Process.wait()
	c.finished = true
	if c.meter != nil {
		c.meter.jailEnded()
	}
	var err error
	if c.cancelled != nil {
		<-c.cancelled
		err = c.cancelErr
	}
	closeAll(c.readers)
	copying := c.awaitCopying()
	if c.meter != nil {
		c.meter.conclude(&c.result)
	}
	if !c.result.Success() {
		err = &ExitError{Result: &c.result}
	}
	if err == nil {
		err = copying
	}
	closeAll(c.parentFiles)
	return err
}

// stalledReader is how long a run whose time is over waits for who does not take the last of its output.
const stalledReader = time.Second

func (c *Cmd) awaitCopying() error {
	var first error
	var expired <-chan time.Time
	delay := c.WaitDelay
	if c.meter != nil && delay == 0 && c.result.Reason == TimedOut {
		delay = stalledReader
	}
	if delay > 0 && len(c.copying) > 0 {
		timer := time.NewTimer(delay)
		defer timer.Stop()
		expired = timer.C
	}
	for range c.copying {
		select {
		case err := <-c.copied:
			if first == nil {
				first = err
			}
		case <-expired:
			closeAll(c.parentFiles) // wakes the copying
			return ErrWaitDelay
		}
	}
	return first
}

func closeAll(list []io.Closer) {
	for _, c := range list {
		c.Close()
	}
}
