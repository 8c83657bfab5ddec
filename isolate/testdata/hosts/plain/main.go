// Command plain is a host program of the tests: it runs jails at all levels and writes what came of them to the file
// that its last argument names. The first says what kind of program it is.
package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/signal"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/jailrun/jail/isolate"
)

func main() {
	switch os.Args[1] {
	case "plain":
	case "closed": // nothing is open
		for fd := range 3 {
			unix.Close(fd)
		}
	case "reaps": // waits for whatever child ends, as some servers and every PID 1 do
		go func() {
			for {
				if _, err := unix.Wait4(-1, nil, 0, nil); err == unix.ECHILD {
					time.Sleep(100 * time.Microsecond)
				}
			}
		}()
	case "ignores": // has its children reaped by the kernel
		signal.Ignore(unix.SIGCHLD)
	default:
		os.Exit(2)
	}
	var mu sync.Mutex
	var group sync.WaitGroup
	wrong := ""
	for i := range 30 {
		group.Go(func() {
			level := isolate.Level(1 + i%3)
			cmd := isolate.Command(context.Background(), level, "/bin/sh", "-c",
				"ls /proc/self/fd | tr '\\n' ' '; read line; echo $line; exit $1", "sh", fmt.Sprint(i))
			cmd.Dir = "/"
			var out bytes.Buffer
			cmd.Stdin, cmd.Stdout = bytes.NewBufferString("a line\n"), &out
			_ = cmd.Run()
			r := cmd.Result()
			if out.String() != "0 1 2 3 a line\n" || r.Reason != isolate.Exited || r.ExitCode != i {
				mu.Lock()
				wrong += fmt.Sprintf("%d at %s: %q, %+v\n", i, level, out.String(), *r)
				mu.Unlock()
			}
		})
	}
	group.Wait()
	// One that ends by a signal, and one that can't be started.
	cmd := isolate.Command(context.Background(), isolate.Namespaced, "/bin/sh", "-c", "kill -USR1 $$")
	cmd.Dir = "/"
	_ = cmd.Run()
	if r := cmd.Result(); r.Reason != isolate.Signalled || r.Signal != "SIGUSR1" {
		wrong += fmt.Sprintf("%+v\n", *r)
	}
	cmd = isolate.Command(context.Background(), isolate.Namespaced, "/absent")
	cmd.Dir = "/"
	if err := cmd.Run(); err == nil || cmd.Result().Reason != isolate.ExecFailed {
		wrong += fmt.Sprintf("%v, %+v\n", err, *cmd.Result())
	}
	if wrong == "" {
		wrong = "ok\n"
	}
	if err := os.WriteFile(os.Args[2], []byte(wrong), 0o644); err != nil {
		os.Exit(3)
	}
}
