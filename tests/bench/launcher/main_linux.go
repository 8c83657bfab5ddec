// Command launcher starts a command again and again from a Go program of some size, in a jail of this library or as a
// plain child, and prints what one launch took. With -hold it starts them all and keeps them running, for the memory
// figures.
package main

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"time"

	"github.com/jailrun/jail/isolate"
)

// ballast is memory that a host program would have: a launch that copies page tables pays for it.
var ballast = make([]byte, 32<<20)

func main() {
	jail := flag.Bool("jail", false, "in a jail at level namespaced; else as a plain child")
	n := flag.Int("n", 100, "how many launches")
	parallel := flag.Int("parallel", 1, "how many at once")
	hold := flag.Bool("hold", false, "start n, print \"ready\", and end them when the input ends")
	flag.Parse()
	for i := 0; i < len(ballast); i += 4096 {
		ballast[i] = 1
	}
	launch := func() command { return exec.Command(flag.Arg(0), flag.Args()[1:]...) }
	if *jail {
		launch = func() command {
			return isolate.Command(context.Background(), isolate.Namespaced, flag.Arg(0), flag.Args()[1:]...)
		}
	}
	var err error
	if *hold {
		err = keep(launch, *n)
	} else {
		err = loop(launch, *n, *parallel)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "launcher:", err)
		os.Exit(1)
	}
}

type command interface {
	Start() error
	Wait() error
}

func loop(launch func() command, n, parallel int) error {
	run := func() error {
		c := launch()
		if err := c.Start(); err != nil {
			return err
		}
		return c.Wait()
	}
	for range 3 { // the first launch makes what later ones use again
		if err := run(); err != nil {
			return err
		}
	}
	errs := make([]error, parallel)
	var wait sync.WaitGroup
	begin := time.Now()
	for i := range parallel {
		wait.Go(func() {
			for range n / parallel {
				if errs[i] = run(); errs[i] != nil {
					return
				}
			}
		})
	}
	wait.Wait()
	took := time.Since(begin)
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	fmt.Printf("%.6f\n", float64(took.Microseconds())/1000/float64(n/parallel*parallel))
	return nil
}

// keep says "warm" when one launch has been made and ended, waits for a line, starts n commands, says "ready", waits
// for the end of the input, and ends them all.
func keep(launch func() command, n int) error {
	in := bufio.NewReader(os.Stdin)
	var running []command
	defer func() { end(running) }()
	first := launch()
	if err := first.Start(); err != nil {
		return err
	}
	end([]command{first})
	fmt.Println("warm")
	if _, err := in.ReadString('\n'); err != nil {
		return err
	}
	for range n {
		c := launch()
		if err := c.Start(); err != nil {
			return fmt.Errorf("after %d: %w", len(running), err)
		}
		running = append(running, c)
	}
	fmt.Println("ready")
	_, err := io.Copy(io.Discard, in)
	return err
}

func end(running []command) {
	for _, c := range running {
		switch c := c.(type) {
		case *exec.Cmd:
			_ = c.Process.Kill() // bubblewrap's --die-with-parent ends the rest
		case *isolate.Cmd:
			_ = c.Process.Kill()
		}
	}
	for _, c := range running {
		_ = c.Wait() // an error: it was killed
	}
}
