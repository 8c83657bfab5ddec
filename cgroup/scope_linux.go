package cgroup

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// scopeTimeout bounds the wait for systemd.
const scopeTimeout = 10 * time.Second

// scopeLeaf is where the process of a scope is put: a cgroup that holds processes can't give controllers to children.
const scopeLeaf = "init"

// Scope lets systemd make the transient scope jail-NAME.scope for the process and returns the place in it. The process is
// moved to a leaf of it, from where Attach takes it; the scope ends with its last process. Its parent is the slice that
// the caller is in, so that the slice's limits hold.
//
// busctl asks systemd. It is part of systemd, so it is there where systemd is; D-Bus spoken here would be code for one
// call, linked into every start; and the time it takes does not matter beside systemd's own.
func Scope(name string, pid int) (*Place, error) {
	if !ValidName(name) {
		return nil, fmt.Errorf("%q can't be the name of a jail", name)
	}
	f, err := gather()
	if err != nil {
		return nil, err
	}
	if f.bus != nil {
		return nil, fmt.Errorf("no scope of systemd: %w", f.bus)
	}
	unit := prefix + name + ".scope"
	if out, err := exec.Command(busctl(), scopeCall(unit, pid, f)...).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("scope %s: busctl: %w: %s", unit, err, strings.TrimSpace(string(out)))
	}
	mounts, err := parseMounts(f.mounts)
	if err != nil {
		return nil, err
	}
	mounts = slices.DeleteFunc(mounts, func(m mount) bool { return !m.v2 })
	// The call returns when the job is queued.
	deadline := time.Now().Add(scopeTimeout)
	for {
		dir, err := cgroupOf(pid, mounts)
		if err != nil {
			return nil, fmt.Errorf("scope %s: %w", unit, err)
		}
		if path.Base(dir) == unit {
			return enterScope(dir, pid)
		}
		if time.Now().After(deadline) {
			return nil, fmt.Errorf("scope %s: after %v process %d is still in %s", unit, scopeTimeout, pid, dir)
		}
		time.Sleep(time.Millisecond)
	}
}

// scopeCall is the command line of busctl; see org.freedesktop.systemd1(5).
func scopeCall(unit string, pid int, f *facts) []string {
	own, _ := parseCgroups(f.cgroups)
	properties := []string{
		"PIDs", "au", "1", strconv.Itoa(pid),
		"Description", "s", "jail " + strings.TrimSuffix(strings.TrimPrefix(unit, prefix), ".scope"),
		"Delegate", "b", "true",
		"CollectMode", "s", "inactive-or-failed",
	}
	count := 4
	if slice := slice(own[""], f.uid); slice != "" {
		properties = append(properties, "Slice", "s", slice)
		count++
	}
	args := []string{"--system"}
	if f.uid != 0 {
		args = []string{"--user"}
	}
	args = append(args, "call", "org.freedesktop.systemd1", "/org/freedesktop/systemd1",
		"org.freedesktop.systemd1.Manager", "StartTransientUnit", "ssa(sv)a(sa(sv))", unit, "fail", strconv.Itoa(count))
	return append(append(args, properties...), "0")
}

// slice returns the innermost slice of a cgroup that belongs to the manager that is asked: slices are below it one in
// another, and an ordinary user's manager is itself a service. "" is none.
func slice(p string, uid int) string {
	if uid != 0 {
		var ok bool
		if _, p, ok = strings.Cut(p, "/user@"+strconv.Itoa(uid)+".service/"); !ok {
			return ""
		}
	}
	innermost := ""
	for part := range strings.SplitSeq(strings.Trim(p, "/"), "/") {
		if !strings.HasSuffix(part, ".slice") {
			break
		}
		innermost = part
	}
	return innermost
}

// enterScope moves the process to a leaf of its scope.
func enterScope(dir string, pid int) (*Place, error) {
	leaf := filepath.Join(dir, scopeLeaf)
	if err := os.Mkdir(leaf, 0o755); err != nil {
		return nil, err
	}
	if err := write(unix.AT_FDCWD, filepath.Join(leaf, "cgroup.procs"), strconv.Itoa(pid)); err != nil {
		return nil, fmt.Errorf("process %d to %s: %w", pid, leaf, err)
	}
	return &Place{Version: 2, Dirs: map[string]string{"": dir}, Controllers: look(dir).available}, nil
}

// cgroupOf returns the folder of a process's v2 cgroup.
func cgroupOf(pid int, mounts []mount) (string, error) {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cgroup")
	if err != nil {
		return "", err
	}
	paths, err := parseCgroups(string(text))
	if err != nil {
		return "", err
	}
	dir, _, ok := dirOf(mounts, paths[""])
	if !ok {
		return "", fmt.Errorf("the cgroup %s is not mounted", paths[""])
	}
	return dir, nil
}

// scopeLacks says why systemd can't be asked for a scope; nil is that it can.
func scopeLacks(systemd bool, uid int) error {
	if !systemd {
		return errors.New("systemd does not run")
	}
	if busctl() == "" {
		return errors.New("there is no busctl")
	}
	sockets := []string{"/run/dbus/system_bus_socket"}
	if uid != 0 {
		dir := os.Getenv("XDG_RUNTIME_DIR")
		if dir == "" {
			return errors.New("XDG_RUNTIME_DIR is not set")
		}
		sockets = []string{filepath.Join(dir, "systemd/private"), filepath.Join(dir, "bus")}
	}
	for _, s := range sockets {
		if err := unix.Access(s, unix.F_OK); err != nil {
			return &os.PathError{Op: "access", Path: s, Err: err}
		}
	}
	return nil
}

// busctl returns the program's path. PATH is not asked: root's may be an ordinary user's.
func busctl() string {
	for _, p := range []string{"/usr/bin/busctl", "/bin/busctl", "/run/current-system/sw/bin/busctl"} {
		if unix.Access(p, unix.X_OK) == nil {
			return p
		}
	}
	return ""
}
