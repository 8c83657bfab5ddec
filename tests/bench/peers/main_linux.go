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

// A peer is one way for two processes to talk. Its tests are rtt, stream and fds; see c/common.h.
type peer struct {
	// open makes what the two share: a file for the other process, and what connect needs beside it.
	open func(c config) (*os.File, any, error)
	// connect is called when the other process has been started. What it returns does about n operations.
	connect func(c config, ours any) (func(n int) error, error)
	// serve is the other process: it echoes, or for stream and fds sends, until it is killed.
	serve func(c config, f *os.File) error
}

var peers = map[string]peer{
	"unixconn":  {openListener, connectUnix, serveUnix},
	"seqpacket": {openPair, connectSeqpacket, serveSeqpacket},
	"net/rpc":   {openListener, connectNetRPC, serveNetRPC},
	"ttrpc":     {openListener, connectTTRPC, serveTTRPC},
	"grpc":      {openListener, connectGRPC, serveGRPC},
}

// alone are tests of one process.
var alone = map[string]func(c config) (func(n int) error, error){
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
		return measure(c, operate, 10)
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
		if err := operate(1); err != nil {
			return err
		}
		_, err := fmt.Println(other.Process.Pid)
		_, _ = io.Copy(io.Discard, os.Stdin)
		return err
	case "rtt":
		n := 1
		if c.spin {
			n = 16
		}
		return measure(c, operate, n)
	}
	return stream(c, operate)
}

// measure does as measure of c/common.h.
func measure(c config, operate func(n int) error, n int) error {
	for begin := time.Now(); time.Since(begin) < c.time/5; {
		if err := operate(n); err != nil {
			return err
		}
	}
	samples := make([]float64, 0, 1<<20)
	begin := time.Now()
	for last := time.Duration(0); last < c.time && len(samples) < cap(samples); {
		if err := operate(n); err != nil {
			return err
		}
		at := time.Since(begin)
		samples = append(samples, float64(at-last)/float64(n))
		last = at
	}
	slices.Sort(samples)
	_, err := fmt.Println(samples[len(samples)/2], samples[len(samples)*99/100])
	return err
}

// stream does as stream of c/common.h.
func stream(c config, operate func(n int) error) error {
	for begin := time.Now(); time.Since(begin) < c.time/5; {
		if err := operate(100); err != nil {
			return err
		}
	}
	var samples []float64
	begin := time.Now()
	for last := time.Duration(0); last < c.time; {
		count, at := 0, last
		for ; at-last < 10*time.Millisecond; at = time.Since(begin) {
			if err := operate(100); err != nil {
				return err
			}
			count += 100
		}
		samples = append(samples, float64(at-last)/float64(count))
		last = at
	}
	slices.Sort(samples)
	_, err := fmt.Println(samples[len(samples)/2], 0)
	return err
}
