package cgroup

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// scopeTimeout bounds the wait for systemd.
const scopeTimeout = 10 * time.Second

// scopeLeaf is where the process of a scope is put: a cgroup that holds processes can't give controllers to children.
const scopeLeaf = "init"

// keeper is a process that keeps a scope: systemd removes the cgroup of one without a process, and what was counted there
// would be gone before it is read.
type keeper struct {
	cmd   *exec.Cmd
	input io.Closer // its end is the keeper's: so it ends with its owner, whatever that one dies of
}

// newKeeper starts one. It has a session of its own: what is typed at the terminal does not reach it.
func newKeeper() (*keeper, error) {
	cmd := exec.Command("/bin/sh", "-c", "read -r end")
	cmd.Dir, cmd.Env, cmd.SysProcAttr = "/", []string{}, &syscall.SysProcAttr{Setsid: true}
	input, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	return &keeper{cmd, input}, err
}

func (k *keeper) end() {
	k.input.Close()
	_ = k.cmd.Wait() // it may have been killed
}

// Scope lets systemd make the transient scope jail-NAME.scope for the process and returns the place in it, which is for
// one Create. The process is moved to a leaf of it, from where Attach takes it; the scope ends with its last process, and
// the Cgroup that is made in it keeps one there until it is removed. Its parent is the slice that the caller is in, so
// that the slice's limits hold. errors.Is(err, ErrExists) says that there is one of that name.
//
// busctl asks systemd. It is part of systemd, so it is there where systemd is; D-Bus spoken here would be code for one
// call, linked into every start; and the time it takes does not matter beside systemd's own.
func Scope(name string, pid int) (p *Place, err error) {
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
	keeper, err := newKeeper()
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			keeper.end()
		}
	}()
	unit, pids := prefix+name+".scope", []int{pid, keeper.cmd.Process.Pid}
	if err := startScope(unit, pids, f); err != nil {
		return nil, fmt.Errorf("scope %s: %w", unit, err)
	}
	dir, err := awaitScope(unit, pids, f)
	if err == nil {
		err = enterScope(dir, pids)
	}
	if err != nil {
		return nil, fmt.Errorf("scope %s: %w", unit, err)
	}
	return &Place{Version: 2, Dirs: map[string]string{"": dir}, Controllers: look(dir).available, keeper: keeper}, nil
}

// awaitScope returns the scope's folder when all processes are there: the call returns when the job is queued, and systemd
// moves them one by one.
func awaitScope(unit string, pids []int, f *facts) (dir string, err error) {
	mounts, err := f.mountsOfV2()
	if err != nil {
		return "", err
	}
	deadline := time.Now().Add(scopeTimeout)
	for _, pid := range pids {
		for {
			if dir, err = cgroupOf(pid, mounts); err != nil {
				return "", err
			}
			if path.Base(dir) == unit {
				break
			}
			if time.Now().After(deadline) {
				return "", fmt.Errorf("after %v process %d is still in %s", scopeTimeout, pid, dir)
			}
			time.Sleep(time.Millisecond)
		}
	}
	return dir, nil
}

// startScope asks systemd for the scope. One of that name may be a dead jail's, which systemd is about to forget.
func startScope(unit string, pids []int, f *facts) error {
	deadline := time.Now().Add(lockTimeout)
	for {
		out, err := exec.Command(busctl(), scopeCall(unit, pids, f)...).CombinedOutput()
		exists := strings.Contains(string(out), "already loaded") // busctl does not say the name of the error
		switch {
		case err == nil:
			return nil
		case !exists:
			return fmt.Errorf("busctl: %w: %s", err, strings.TrimSpace(string(out)))
		case time.Now().After(deadline):
			return ErrExists
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// Release lets go of a scope in which no cgroup was made.
func (p *Place) Release() {
	if p.keeper != nil {
		p.keeper.end()
		p.keeper = nil
	}
}

// scopeCall is the command line of busctl; see org.freedesktop.systemd1(5).
func scopeCall(unit string, pids []int, f *facts) []string {
	own, _ := parseCgroups(f.cgroups)
	properties := []string{"PIDs", "au", strconv.Itoa(len(pids))}
	for _, pid := range pids {
		properties = append(properties, strconv.Itoa(pid))
	}
	properties = append(
		properties,
		"Description", "s", "jail "+strings.TrimSuffix(strings.TrimPrefix(unit, prefix), ".scope"),
		"Delegate", "b", "true",
		"CollectMode", "s", "inactive-or-failed",
	)
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

// enterScope moves the processes of a scope to a leaf of it.
func enterScope(dir string, pids []int) error {
	leaf := filepath.Join(dir, scopeLeaf)
	if err := os.Mkdir(leaf, 0o755); err != nil {
		return err
	}
	for _, pid := range pids {
		if err := write(unix.AT_FDCWD, filepath.Join(leaf, "cgroup.procs"), strconv.Itoa(pid)); err != nil {
			return fmt.Errorf("process %d to %s: %w", pid, leaf, err)
		}
	}
	return nil
}

func (f *facts) mountsOfV2() ([]mount, error) {
	mounts, err := parseMounts(f.mounts)
	return slices.DeleteFunc(mounts, func(m mount) bool { return !m.v2 }), err
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
