// Command prefork has three jails started beforehand, which take tasks from one channel and answer through another. Whoever
// is idle takes the next task, so a slow one holds up nobody. A task costs no start of a process and no system call but
// what it takes to wake somebody who sleeps.
//
//	prefork WORKER [BELOW...]
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"github.com/jailrun/jail/examples/prefork/job"
	"github.com/jailrun/jail/ipc"
	"github.com/jailrun/jail/isolate"
)

const workers = 3

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: prefork WORKER [BELOW...]")
		os.Exit(2)
	}
	var tasks []uint32
	for _, arg := range os.Args[2:] {
		below, err := strconv.ParseUint(arg, 10, 32)
		if err != nil {
			fmt.Fprintln(os.Stderr, "prefork:", err)
			os.Exit(2)
		}
		tasks = append(tasks, uint32(below))
	}
	answers, err := run(context.Background(), os.Args[1], tasks)
	for _, a := range answers {
		fmt.Printf("%d primes below %d, says worker %d\n", a.Primes, tasks[a.ID], a.Worker)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "prefork:", err)
		os.Exit(1)
	}
}

// run returns an answer to each task, in the order in which they came. If a worker ends before the others, which it does
// only when something is wrong, it gives up: what that one had taken will not be answered.
func run(ctx context.Context, worker string, tasks []uint32) (answers []job.Answer, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	broker := ipc.NewBroker()
	defer broker.Close()
	session, err := ourEnd(ctx, broker)
	if err != nil {
		return nil, err
	}
	defer session.Close()
	to, segment, err := ipc.OpenChannel[job.Task](ctx, session, job.Tasks)
	if err != nil {
		return nil, err
	}
	defer segment.Close()
	from, segment, err := ipc.OpenChannel[job.Answer](ctx, session, job.Answers)
	if err != nil {
		return nil, err
	}
	defer segment.Close()

	var group sync.WaitGroup
	defer group.Wait()
	defer to.Close() // the workers end when they have taken what is left
	for i := range workers {
		cmd, end, err := start(ctx, broker, worker, i)
		if err != nil {
			cancel(err)
			return nil, err
		}
		group.Go(func() {
			if err := end(cmd.Wait()); err != nil {
				cancel(fmt.Errorf("worker %d: %w", i, err))
			}
		})
	}
	group.Go(func() {
		for id, below := range tasks {
			if err := to.Send(ctx, job.Task{ID: uint32(id), Below: below}); err != nil {
				cancel(err)
				return
			}
		}
	})
	answered := make([]bool, len(tasks))
	for range tasks {
		a, err := from.Recv(ctx)
		if err != nil {
			return answers, errors.Join(err, context.Cause(ctx))
		}
		if int64(a.ID) >= int64(len(tasks)) || answered[a.ID] {
			return answers, fmt.Errorf("an answer to task %d, which is none that waits", a.ID)
		}
		answered[a.ID] = true
		answers = append(answers, a)
	}
	return answers, nil
}

// ourEnd is this process's own session with the broker.
func ourEnd(ctx context.Context, broker *ipc.Broker) (*ipc.Authenticated, error) {
	peer, err := broker.Peer("launcher", job.Rules, ipc.Handlers{})
	if err != nil {
		return nil, err
	}
	return peer.Session(ctx)
}

// start starts a worker; end adds what it said to the error that it ended with.
func start(ctx context.Context, broker *ipc.Broker, worker string, number int) (cmd *isolate.Cmd, end func(error) error, err error) {
	worker, err = filepath.Abs(worker)
	if err != nil {
		return nil, nil, err
	}
	peer, err := broker.Peer(fmt.Sprint("worker ", number), job.Rules, ipc.Handlers{})
	if err != nil {
		return nil, nil, err
	}
	socket, err := peer.Connect()
	if err != nil {
		return nil, nil, err
	}
	defer socket.Close()
	cmd = isolate.Command(ctx, isolate.Namespaced, "/worker", fmt.Sprint(number))
	cmd.Dir = "/"
	cmd.Env = []string{ipc.FDEnv + "=3"}
	cmd.ExtraFiles = []*os.File{socket}
	var said strings.Builder
	cmd.Stderr = &said
	spec := cmd.Spec()
	spec.View = []isolate.Rule{{Kind: isolate.Show, Path: "/worker", Source: worker}}
	spec.OutputLimit = 64 << 10
	end = func(err error) error {
		if err != nil {
			err = fmt.Errorf("%w: %q", err, said.String())
		}
		return err
	}
	return cmd, end, cmd.Start()
}
