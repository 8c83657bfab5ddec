package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// killTimeout bounds the wait for killed processes, and for the freezer.
const killTimeout = 10 * time.Second

// Kill kills all processes in the cgroup and below with SIGKILL and returns when there are none any more. A process that
// the kernel can't end (uninterruptible sleep) is an error after ten seconds.
func (c *Cgroup) Kill() error {
	if c.version == 2 {
		if err := write(int(c.dirs[0].f.Fd()), "cgroup.kill", "1"); err != nil {
			return fmt.Errorf("kill %s: %w", c.Path(), err)
		}
		return c.await(killTimeout, "populated 0", func() (bool, error) { return c.event("populated", 0) })
	}
	deadline := time.Now().Add(killTimeout)
	for pause := 100 * time.Microsecond; ; pause = min(2*pause, 10*time.Millisecond) {
		// Frozen, none can fork away. Frozen, none dies either: v1 delivers SIGKILL after the thaw. Where freezing fails
		// (a process in uninterruptible sleep), the repetition has to do.
		frozen := c.Freeze()
		n, err := killAll(c.Path())
		if e := c.Thaw(); err == nil {
			err = e
		}
		if err != nil || n == 0 {
			return err
		}
		if time.Now().After(deadline) {
			return errors.Join(fmt.Errorf("kill %s: %d processes are left", c.Path(), n), frozen)
		}
		time.Sleep(pause)
	}
}

// killAll sends SIGKILL to each process of the subtree and returns how many there are.
func killAll(path string) (int, error) {
	pids, err := procs(path)
	if err != nil {
		return 0, err
	}
	fds := map[int]int{}
	defer func() {
		for _, fd := range fds {
			unix.Close(fd)
		}
	}()
	for _, pid := range pids {
		if fd, err := unix.PidfdOpen(pid, 0); err == nil {
			fds[pid] = fd
		}
	}
	// A number may have passed to a stranger before its pidfd was opened: only what is still listed is killed.
	now, err := procs(path)
	if err != nil {
		return 0, err
	}
	for pid, fd := range fds {
		if !slices.Contains(now, pid) {
			continue
		}
		if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && err != unix.ESRCH {
			return 0, fmt.Errorf("kill process %d of %s: %w", pid, path, err)
		}
	}
	return len(now), nil
}

// procs lists the processes in a cgroup and below.
func procs(path string) ([]int, error) {
	text, err := os.ReadFile(filepath.Join(path, "cgroup.procs"))
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ENODEV) {
		return nil, nil // removed
	}
	if err != nil {
		return nil, err
	}
	pids, err := parsePids(string(text))
	if err != nil {
		return nil, err
	}
	children, err := folders(path)
	for _, child := range children {
		var more []int
		if err == nil {
			more, err = procs(child)
			pids = append(pids, more...)
		}
	}
	return pids, err
}

// Freeze stops all processes in the cgroup and below, and returns when they stand; after an error they go on. A process
// that can't be stopped is an error after ten seconds.
func (c *Cgroup) Freeze() error {
	var err error
	if c.version == 2 {
		err = c.Set(Setting{File: "cgroup.freeze", Value: "1"})
		if err == nil {
			err = c.await(killTimeout, "frozen 1", func() (bool, error) { return c.event("frozen", 1) })
		}
	} else {
		err = c.await(killTimeout, "FROZEN", func() (bool, error) {
			// Again and again: v1 goes on with freezing only when it is written to.
			if err := c.Set(Setting{"freezer", "freezer.state", "FROZEN"}); err != nil {
				return false, err
			}
			text, err := c.read("freezer", "freezer.state")
			return strings.TrimSpace(text) == "FROZEN", err
		})
	}
	if err != nil {
		_ = c.Thaw()
	}
	return err
}

// Thaw lets frozen processes go on.
func (c *Cgroup) Thaw() error {
	if c.version == 2 {
		return c.Set(Setting{File: "cgroup.freeze", Value: "0"})
	}
	return c.Set(Setting{"freezer", "freezer.state", "THAWED"})
}

// event says whether a key of cgroup.events has the value.
func (c *Cgroup) event(key string, value int64) (bool, error) {
	text, err := c.read("", "cgroup.events")
	if err != nil {
		return false, err
	}
	n, err := field(text, key)
	return n == value, err
}

// await asks until the answer is yes.
func (c *Cgroup) await(limit time.Duration, what string, ask func() (bool, error)) error {
	deadline := time.Now().Add(limit)
	for pause := 50 * time.Microsecond; ; pause = min(2*pause, 10*time.Millisecond) {
		yes, err := ask()
		if err != nil || yes {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s: waited %v for %s", c.Path(), limit, what)
		}
		time.Sleep(pause)
	}
}
