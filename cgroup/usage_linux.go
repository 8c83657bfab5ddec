package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// Usage is what a jail has used since its cgroup was made, all its processes together, dead ones too. A number that is
// not counted (no such controller, a kernel too old) is -1.
type Usage struct {
	CPU, User, System time.Duration

	PeakMemory int64 // bytes; v2: from Linux 5.19
	OOMKills   int64 // processes that the kernel killed for want of memory: the jail's limit, an outer one, or the machine
	MemoryHit  bool  // the jail's own memory limit killed; on v1: it was reached some time, and some limit killed
	PidsHit    int64 // forks that the limit refused
}

// Usage reads the counters. A first call opens the files, later ones only read them.
func (c *Cgroup) Usage() (Usage, error) {
	u := Usage{CPU: -1, User: -1, System: -1, PeakMemory: -1, OOMKills: -1, PidsHit: -1}
	for _, read := range []func(*Usage) error{c.cpuUsage, c.memoryUsage, c.pidsUsage} {
		if err := read(&u); err != nil {
			return u, err
		}
	}
	return u, nil
}

// counter reads one number: the whole file, or what stands after key. What the kernel does not have is -1.
func (c *Cgroup) counter(controller, file, key string) (int64, error) {
	text, err := c.read(controller, file)
	if errors.Is(err, fs.ErrNotExist) {
		return -1, nil
	}
	if err != nil {
		return -1, err
	}
	var n int64
	if key == "" {
		n, err = number(text)
	} else {
		n, err = field(text, key)
	}
	if err != nil {
		return -1, fmt.Errorf("%s/%s: %w", c.Path(), file, err)
	}
	return n, nil
}

// read reads a file of the cgroup, which is opened once. ErrNotExist says that the controller or the file is not there.
func (c *Cgroup) read(controller, file string) (string, error) {
	d, err := c.dirFor(controller)
	if err != nil {
		return "", fs.ErrNotExist
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	f := c.counters[file]
	if f == nil {
		fd, err := retry(func() (int, error) {
			return unix.Openat(int(d.f.Fd()), file, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		})
		path := filepath.Join(d.path, file)
		if err != nil {
			return "", &os.PathError{Op: "open", Path: path, Err: err}
		}
		f = os.NewFile(uintptr(fd), path)
		c.counters[file] = f
	}
	var text [4096]byte // all files that are read here are shorter
	n, err := retry(func() (int, error) { return unix.Pread(int(f.Fd()), text[:], 0) })
	if err != nil {
		return "", &os.PathError{Op: "read", Path: f.Name(), Err: err}
	}
	return string(text[:n]), nil
}

// count is a number of a Usage and where it stands.
type count struct {
	to                    *int64
	controller, file, key string
}

func (c *Cgroup) fill(counts []count) error {
	for _, n := range counts {
		var err error
		if *n.to, err = c.counter(n.controller, n.file, n.key); err != nil {
			return err
		}
	}
	return nil
}
