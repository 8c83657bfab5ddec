package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/jailrun/jail/isolate"
	"github.com/jailrun/jail/signals"
)

// run is jail run.
func run(args []string) int {
	o, err := readOptions(runFlags, args)
	if err != nil {
		return fail(err)
	}
	if o.help {
		return help([]string{"run"})
	}
	spec, err := o.spec()
	if err != nil {
		return fail(o.blame(err))
	}
	report, err := openReport(o) // before the start: a payload whose result can't be told is not run
	if err != nil {
		return fail(err)
	}
	cmd := isolate.FromSpec(context.Background(), spec)
	o.passFiles(cmd)
	broker, err := o.serveIPC(cmd)
	if err != nil {
		return fail(err)
	}
	defer broker.close()
	terminals := lookAtTerminals()
	code := o.start(cmd, broker)
	if code == started {
		err = cmd.Wait()
		code = cmd.Result().ShellCode()
	}
	terminals.restore()
	if result := cmd.Result(); result != nil {
		if err := report.write(result); err != nil {
			return fail(err)
		}
	}
	if err != nil && !errors.As(err, new(*isolate.ExitError)) { // which the Result has told
		return fail(err)
	}
	return code
}

// started is not an exit code.
const started = -1

// start starts the payload and relays signals to it. Its exit code is that of a failure.
func (o *options) start(cmd *isolate.Cmd, broker *broker) int {
	// From before the start: a signal to us is one to the payload from the moment on that it runs.
	r := receiver{running: make(chan struct{})}
	if _, err := signals.Relay(context.Background(), &r); err != nil && !errors.Is(err, errors.ErrUnsupported) {
		return fail(err)
	}
	if err := o.openStreams(cmd); err != nil {
		return fail(err)
	}
	err := cmd.Start()
	runtime.KeepAlive(o.policyFile) // jail-init has read it, or never will
	if err != nil {
		code := fail(o.blame(err))
		notePath(cmd, err)
		return code
	}
	r.process = cmd.Process
	close(r.running)
	broker.started(cmd.Process)
	if os.Getpid() == 1 {
		go reapAll()
	}
	// The payload runs: what is said now costs it nothing.
	for _, note := range cmd.Plan().Notes {
		complain("note: " + note)
	}
	notePath(cmd, nil)
	return started
}

// notePath prints the note on PATH of a payload that runs, or of one that was not found or found behind a closed door.
func notePath(cmd *isolate.Cmd, failure error) {
	var exec *isolate.ExecError
	if failure != nil && !(errors.As(failure, &exec) && (exec.Errno == syscall.ENOENT || exec.Errno == syscall.EACCES)) {
		return
	}
	if note := pathNote(cmd.Plan(), cmd.Spec().Process); note != "" {
		complain("note: " + note)
	}
}

// receiver passes signals on to the payload once it runs.
type receiver struct {
	running chan struct{}
	process *isolate.Process // set when running is closed
}

// How long a signal that ends programs waits for a payload that does not run yet, and for the end of one that has ended.
const (
	patience     = 200 * time.Millisecond
	longPatience = time.Second
)

func (r *receiver) SendSignal(sig syscall.Signal, value int, group bool) error {
	var late <-chan time.Time
	ends := sig == syscall.SIGHUP || sig == syscall.SIGINT || sig == syscall.SIGQUIT || sig == syscall.SIGTERM
	if ends {
		late = time.After(patience)
	}
	select {
	case <-r.running:
		err := r.process.SendSignal(sig, value, group)
		if ends && errors.Is(err, os.ErrProcessDone) {
			// The payload has ended, and so do we, unless nobody takes the last of its output or the Result.
			time.AfterFunc(longPatience, func() { os.Exit(128 + int(sig)) })
		}
		return err
	case <-late:
		// The start hangs, as on a FIFO that nobody writes to. What was begun ends with us.
		os.Exit(128 + int(sig))
		return nil
	}
}

// passFiles gives the payload our standard streams and what --fd names.
func (o *options) passFiles(cmd *isolate.Cmd) {
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	for to, from := range o.fds {
		f := os.NewFile(uintptr(from), fmt.Sprint("fd ", from))
		switch to {
		case 0:
			cmd.Stdin = f
		case 1:
			cmd.Stdout = f
		case 2:
			cmd.Stderr = f
		default:
			passExtra(cmd, to, f)
		}
	}
	if o.policyFD != 0 {
		passExtra(cmd, o.policyFD, o.policyFile)
	}
}

// passExtra makes f the payload's fd to.
func passExtra(cmd *isolate.Cmd, to int, f *os.File) {
	for len(cmd.ExtraFiles) <= to-3 {
		cmd.ExtraFiles = append(cmd.ExtraFiles, nil)
	}
	cmd.ExtraFiles[to-3] = f
}

// summary is the Result for people, line by line.
func summary(r *isolate.Result, detail bool) []string {
	lines := []string{r.String()}
	if len(r.LostGuarantees) > 0 {
		var lost []string
		for _, g := range r.LostGuarantees {
			lost = append(lost, string(g))
		}
		why := "by the downgrade"
		if r.GivenLevel == r.Level {
			why = "by --proc outer"
		}
		lines = append(lines, "lost "+why+": "+strings.Join(lost, ", "))
	}
	if len(r.Appeared) > 0 {
		var paths []string
		for _, path := range r.Appeared {
			paths = append(paths, quote(path))
		}
		lines = append(lines, "protected paths that were absent and came into being: "+strings.Join(paths, ", "))
	}
	lines = append(lines, deniedLines(r)...)
	if detail {
		lines = append(lines, r.Detail())
	}
	return lines
}

// deniedLines is what the jail has refused, as far as a person reads on.
func deniedLines(r *isolate.Result) []string {
	const most = 10
	var lines []string
	for i, d := range r.Denied {
		if i == most {
			lines = append(lines, fmt.Sprintf("denied: and %d others; --json has them", len(r.Denied)-most))
			break
		}
		line := "denied: " + d.Call
		for _, word := range []string{d.Path, d.Argument} {
			if word != "" {
				line += " " + quote(word)
			}
		}
		line += fmt.Sprintf(": %s (%s)", d.Errno, d.Why)
		if d.Count > 1 {
			line += fmt.Sprintf(", %d times", d.Count)
		}
		lines = append(lines, line)
	}
	if r.DeniedMore > 0 {
		lines = append(lines, fmt.Sprintf("denied: %d more calls, of which there were too many kinds to list", r.DeniedMore))
	}
	return lines
}
