package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// memory keeps many jails running at once from one process and looks at what they take: each process by its
// smaps_rollup, everything together by what the kernel has available before and after. The payload, a static C program
// that waits, is part of the whole.
func (b *bench) memory(a account) {
	if os.Getuid() != 0 {
		return // /proc/PID/smaps_rollup of a process that is not dumpable is root's
	}
	payload := filepath.Join(b.work, "pause")
	for _, k := range []struct {
		name  string
		args  []string
		inits string // what the launcher's own children are
	}{
		{"bubblewrap", append([]string{"--"}, b.bubblewrap(a, payload)...), "its outer process"},
		{"jail", []string{"-jail", "--", payload}, "jail-init"},
	} {
		args := append([]string{b.program("launcher"), "-hold", "-n", fmt.Sprint(b.held)}, k.args...)
		m, err := b.hold(a, args, payload)
		if err != nil {
			b.add(figure{Part: "memory", User: a.name, Name: k.name, Problem: err.Error()})
			continue
		}
		init := figure{Part: "memory", User: a.name, Name: k.name + ": resident in " + k.inits + ", the largest", Value: m.initRSS, Unit: "KiB"}
		pss := figure{Part: "memory", User: a.name, Name: k.name + ": its share (PSS), mean", Value: m.initPSS, Unit: "KiB"}
		all := figure{Part: "memory", User: a.name, Name: k.name + ": a running jail in all", Value: m.all, Unit: "KiB"}
		if k.name == "jail" {
			init.Goal, all.Goal = 64, 1024
		}
		b.add(init)
		b.add(pss)
		b.add(all)
		b.add(figure{Part: "memory", User: a.name, Name: k.name + ": the launcher's growth, a jail", Value: m.launcher, Unit: "KiB"})
	}
}

type memory struct{ initRSS, initPSS, all, launcher float64 } // KiB

// hold runs the launcher, measures while all jails run, and leaves nothing behind.
func (b *bench) hold(a account, args []string, payload string) (m memory, err error) {
	c := b.as(a, args...)
	in, err := c.StdinPipe()
	if err != nil {
		return m, err
	}
	out, err := c.StdoutPipe()
	if err != nil {
		return m, err
	}
	if err := c.Start(); err != nil {
		return m, err
	}
	defer func() {
		in.Close()
		if waitErr := c.Wait(); err == nil {
			err = waitErr
		}
		if n := killAll(payload); n > 0 {
			err = errors.Join(err, fmt.Errorf("%d payloads outlived their launcher", n))
		}
	}()
	lines := bufio.NewReader(out)
	if err := expect(lines, "warm"); err != nil {
		return m, err
	}
	before, beforeLauncher := settled(), rollup(c.Process.Pid)
	if _, err := io.WriteString(in, "go\n"); err != nil {
		return m, err
	}
	if err := expect(lines, "ready"); err != nil {
		return m, err
	}
	after, afterLauncher := settled(), rollup(c.Process.Pid)
	inits := children(c.Process.Pid)
	if len(inits) != b.held {
		return m, fmt.Errorf("%d of %d are running", len(inits), b.held)
	}
	for _, pid := range inits {
		r := rollup(pid)
		m.initRSS = max(m.initRSS, r.rss)
		m.initPSS += r.pss / float64(b.held)
	}
	m.all = (before - after) / float64(b.held)
	m.launcher = (afterLauncher.rss - beforeLauncher.rss) / float64(b.held)
	return m, nil
}

func expect(lines *bufio.Reader, want string) error {
	line, err := lines.ReadString('\n')
	if err == nil && strings.TrimSpace(line) != want {
		err = fmt.Errorf("the launcher said %q", line)
	}
	if err != nil {
		return fmt.Errorf("waiting for %q: %w", want, err)
	}
	return nil
}

// settled is the memory available, in KiB, once two looks half a second apart differ by less than a megabyte: the
// kernel frees namespaces of ended processes later.
func settled() float64 {
	last := field("/proc/meminfo", "MemAvailable:")
	for range 20 {
		time.Sleep(500 * time.Millisecond)
		now := field("/proc/meminfo", "MemAvailable:")
		if now-last < 1024 && last-now < 1024 {
			return now
		}
		last = now
	}
	return last
}

type usage struct{ rss, pss float64 }

func rollup(pid int) usage {
	file := fmt.Sprintf("/proc/%d/smaps_rollup", pid)
	return usage{field(file, "Rss:"), field(file, "Pss:")}
}

// field is the number after name in a file of /proc; 0 if it is not there.
func field(file, name string) float64 {
	text, _ := os.ReadFile(file)
	for line := range strings.Lines(string(text)) {
		if words := strings.Fields(line); len(words) > 1 && words[0] == name {
			v, _ := strconv.ParseFloat(words[1], 64)
			return v
		}
	}
	return 0
}

func children(pid int) (list []int) {
	for _, child := range processes() {
		if int(field(fmt.Sprintf("/proc/%d/status", child), "PPid:")) == pid {
			list = append(list, child)
		}
	}
	return list
}

func processes() (list []int) {
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil {
			list = append(list, pid)
		}
	}
	return list
}

// killAll ends the processes that run a program of this run, and returns how many there were.
func killAll(program string) (n int) {
	for _, pid := range processes() {
		text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if strings.HasPrefix(string(text), program+"\x00") {
			_ = syscall.Kill(pid, syscall.SIGKILL)
			n++
		}
	}
	return n
}
