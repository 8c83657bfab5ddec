package main

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/jailrun/jail/ipc"
	"github.com/jailrun/jail/isolate"
)

// broker serves the payload what --ipc allows.
type broker struct {
	*ipc.Broker
	payload *os.File // its end, until it has it

	running chan struct{} // closed when process is set, or never will be
	process *isolate.Process

	mu       sync.Mutex
	progress string // not printed yet
	printed  time.Time
}

// serveIPC starts the broker, and gives the payload the fd that connectIPC has chosen.
func (o *options) serveIPC(cmd *isolate.Cmd) (*broker, error) {
	if o.ipcFD == 0 {
		return nil, nil
	}
	b := &broker{Broker: ipc.NewBroker(), running: make(chan struct{})}
	handlers := ipc.Handlers{
		Log:      func(level slog.Level, line string) { complain(fmt.Sprintf("payload: %s: %q", level, line)) },
		Progress: func(uint64, uint64, string) {},
		Member:   b.member,
	}
	if o.verbose {
		handlers.Progress = b.report
	}
	name := o.name
	if name == "" {
		name = fmt.Sprint("the jail of process ", os.Getpid())
	}
	peer, err := b.Peer(name, o.ipcRules, handlers)
	if err == nil {
		b.payload, err = peer.Connect()
	}
	if err != nil {
		return nil, errors.Join(err, b.Close())
	}
	passExtra(cmd, o.ipcFD, b.payload)
	return b, nil
}

// started says that the payload runs. Its end of the connection is its own from now on.
func (b *broker) started(p *isolate.Process) {
	if b == nil {
		return
	}
	b.process = p
	close(b.running)
	b.payload.Close()
}

// member says why a process is not of the jail: the fd may have been handed to another.
func (b *broker) member(pid int, _ *os.File) error {
	<-b.running
	if b.process == nil || !b.process.Contains(pid) {
		return fmt.Errorf("process %d is not of this jail", pid)
	}
	return nil
}

// report prints how far the payload is, ten times a second at most.
func (b *broker) report(done, total uint64, what string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.progress = fmt.Sprintf("progress: %d: %q", done, what)
	if total > 0 {
		b.progress = fmt.Sprintf("progress: %d of %d: %q", done, total, what)
	}
	if time.Since(b.printed) > 100*time.Millisecond {
		b.print()
	}
}

func (b *broker) print() {
	if b.progress != "" {
		complain(b.progress)
		b.progress, b.printed = "", time.Now()
	}
}

// close ends the broker, when the payload has ended or never was.
func (b *broker) close() {
	if b == nil {
		return
	}
	if b.process == nil {
		close(b.running)
		b.payload.Close()
	}
	_ = b.Close() // of what is the payload's alone
	b.mu.Lock()
	defer b.mu.Unlock()
	b.print()
}
