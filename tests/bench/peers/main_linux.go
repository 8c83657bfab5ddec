// Command peers is the Go side of tests/bench's group ipc, one peer a run:
//
//	taskset -c CPU peers PEER TEST BYTES MILLISECONDS CPU2 wait|spin
//
// Its arguments and what it prints are those of the C programs beside it (c/common.h). The other process is this
// program again, started on CPU2 with the word "serve" at the end; what the two share is its fd 3.
package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"syscall"
	"time"
)

// A config is the command line.
type config struct {
	peer, test string
	bytes      int
	time       time.Duration
	cpu2       string
	spin       bool
}

// An operation does n operations or some more and returns how many they were, or 0 for a sample that does not count.
type operation func(n int) (int, error)

// A peer is one way for two processes to talk. Its tests are rtt, stream and fds; see c/common.h.
type peer struct {
	// open makes what the two share: a file for the other process, and what connect needs beside it.
	open func(c config) (*os.File, any, error)
	// connect is called when the other process has been started.
	connect func(c config, ours any) (operation, error)
	// serve is the other process: it echoes, or for stream and fds sends, until it is killed.
	serve func(c config, f *os.File) error
}

var peers = map[string]peer{
	"futex":     {openFutex, connectFutex, serveFutex},
	"unixconn":  {openListener, connectUnix, serveUnix},
	"seqpacket": {openPair, connectSeqpacket, serveSeqpacket},
	"net/rpc":   {openListener, connectNetRPC, serveNetRPC},
	"ttrpc":     {openListener, connectTTRPC, serveTTRPC},
	"grpc":      {openListener, connectGRPC, serveGRPC},
}

// alone are tests of one process.
var alone = map[string]func(c config) (operation, error){
	"gofrs/flock": gofrsFlock,
	"flock":       keptFlock,
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "peers:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) < 6 {
		return fmt.Errorf("usage: peers PEER TEST BYTES MILLISECONDS CPU2 wait|spin")
	}
	c := config{peer: args[0], test: args[1], cpu2: args[4], spin: args[5] == "spin"}
	ms, err := strconv.Atoi(args[3])
	if err == nil {
		c.bytes, err = strconv.Atoi(args[2])
	}
	if err != nil {
		return err
	}
	c.time = time.Duration(ms) * time.Millisecond
	if single, ok := alone[c.peer]; ok {
		operate, err := single(c)
		if err != nil {
			return err
		}
		return measure(c, operate)
	}
	p, ok := peers[c.peer]
	if !ok {
		return fmt.Errorf("no peer is called %q", c.peer)
	}
	if len(args) > 6 {
		f := os.NewFile(3, "shared")
		defer f.Close() // not before: a file that nothing refers to is closed by the collector
		return p.serve(c, f)
	}
	return p.two(c, args)
}

// two starts the other process and measures.
func (p peer) two(c config, args []string) error {
	runtime.LockOSThread() // Pdeathsig follows the thread
	theirs, ours, err := p.open(c)
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	other := exec.Command("taskset", slices.Concat([]string{"-c", c.cpu2, self}, args, []string{"serve"})...)
	other.Stderr = os.Stderr
	other.ExtraFiles = []*os.File{theirs}
	other.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := other.Start(); err != nil {
		return err
	}
	defer func() {
		_ = other.Process.Kill()
		_ = other.Wait()
	}()
	theirs.Close()
	operate, err := p.connect(c, ours)
	if err != nil {
		return err
	}
	switch c.test {
	case "idle":
		if _, err := operate(1); err != nil {
			return err
		}
		_, err := fmt.Println(other.Process.Pid)
		_, _ = io.Copy(io.Discard, os.Stdin)
		return err
	case "rtt", "locks":
		return measure(c, operate)
	}
	return stream(c, operate)
}

// measure does as measure of c/common.h.
func measure(c config, operate operation) error {
	n := 1 // operations in a sample
	switch {
	case c.test == "mutex" || c.test == "locks" || c.test == "loan":
		n = 1000
	case c.test == "pair":
		n = 10
	case c.spin:
		n = 16
	}
	for begin := time.Now(); time.Since(begin) < c.time/5; {
		if _, err := operate(n); err != nil {
			return err
		}
	}
	samples := make([]float64, 0, 1<<20)
	begin := time.Now()
	for last := time.Duration(0); last < c.time && len(samples) < cap(samples); {
		done, err := operate(n)
		if err != nil {
			return err
		}
		at := time.Since(begin)
		if done > 0 {
			samples = append(samples, float64(at-last)/float64(done))
		}
		last = at
	}
	if len(samples) == 0 {
		return fmt.Errorf("no sample counts")
	}
	slices.Sort(samples)
	_, err := fmt.Println(samples[len(samples)/2], samples[len(samples)*99/100])
	return err
}

// stream does as stream of c/common.h.
func stream(c config, operate operation) error {
	for begin := time.Now(); time.Since(begin) < c.time/5; {
		if _, err := operate(100); err != nil {
			return err
		}
	}
	var samples []float64
	begin := time.Now()
	for last := time.Duration(0); last < c.time; {
		count, at := 0, last
		for ; at-last < 10*time.Millisecond; at = time.Since(begin) {
			done, err := operate(100)
			if err != nil {
				return err
			}
			count += done
		}
		samples = append(samples, float64(at-last)/float64(count))
		last = at
	}
	slices.Sort(samples)
	_, err := fmt.Println(samples[len(samples)/2], 0)
	return err
}

func repeat(operate func() error) operation {
	return func(n int) (int, error) {
		for range n {
			if err := operate(); err != nil {
				return 0, err
			}
		}
		return n, nil
	}
}
