// Command worker takes tasks until there are no more.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"

	"github.com/jailrun/jail/examples/prefork/job"
	"github.com/jailrun/jail/ipc"
)

func main() {
	if err := work(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func work(ctx context.Context) error {
	number, err := strconv.ParseUint(os.Args[1], 10, 32)
	if err != nil {
		return err
	}
	hello, err := ipc.Dial()
	if err != nil {
		return err
	}
	session, err := hello.Authenticate(ctx)
	if err != nil {
		return err
	}
	defer session.Close()
	tasks, segment, err := ipc.OpenChannel[job.Task](ctx, session, job.Tasks)
	if err != nil {
		return err
	}
	defer segment.Close()
	answers, segment, err := ipc.OpenChannel[job.Answer](ctx, session, job.Answers)
	if err != nil {
		return err
	}
	defer segment.Close()
	for {
		task, err := tasks.Recv(ctx)
		if errors.Is(err, ipc.ErrClosed) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := answers.Send(ctx, job.Answer{ID: task.ID, Worker: uint32(number), Primes: primes(task.Below)}); err != nil {
			return err
		}
	}
}

func primes(below uint32) (count uint32) {
	composite := make([]bool, below)
	for n := uint64(2); n < uint64(below); n++ {
		if composite[n] {
			continue
		}
		count++
		for m := n * n; m < uint64(below); m += n {
			composite[m] = true
		}
	}
	return count
}
