//go:build linux

package integration

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
)

// delegatedV1 says that the ordinary user has a cgroup of its own in every v1 hierarchy, which delegate made.
var delegatedV1 bool

// delegate moves this process, which is root's, into a new cgroup of each v1 hierarchy that belongs to the ordinary user,
// as an administrator would: so the levels with a cgroup are seen for that user too. back undoes it. On v2 nothing is done.
func delegate() (back func() error, err error) {
	text, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return nil, err
	}
	var undo []func() error
	back = func() error {
		var errs []error
		for _, f := range undo {
			errs = append(errs, f())
		}
		return errors.Join(errs...)
	}
	for line := range strings.Lines(string(text)) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(f) != 3 || f[1] == "" || strings.HasPrefix(f[1], "name=") {
			continue
		}
		from := filepath.Join("/sys/fs/cgroup", f[1], f[2])
		to := filepath.Join(from, filepath.Base(base))
		if err := os.Mkdir(to, 0o755); err != nil {
			return nil, errors.Join(err, back())
		}
		undo = append(undo, func() error {
			return errors.Join(os.WriteFile(from+"/cgroup.procs", []byte("0"), 0), os.Remove(to))
		})
		err := enter(from, to, f[1])
		if err != nil {
			return nil, errors.Join(err, back())
		}
	}
	delegatedV1 = len(undo) > 0
	return back, nil
}

// enter gives the cgroup to to the ordinary user, and this process to the cgroup.
func enter(from, to, controllers string) error {
	if strings.Contains(controllers, "cpuset") { // empty in a new one, and then nothing can be in it
		for _, name := range []string{"/cpuset.cpus", "/cpuset.mems"} {
			text, err := os.ReadFile(from + name)
			if err != nil {
				return err
			}
			if err := os.WriteFile(to+name, text, 0); err != nil {
				return err
			}
		}
	}
	entries, err := os.ReadDir(to)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := os.Chown(filepath.Join(to, e.Name()), ordinary, ordinary); err != nil {
			return err
		}
	}
	return errors.Join(os.Chown(to, ordinary, ordinary), os.WriteFile(to+"/cgroup.procs", []byte("0"), 0))
}
