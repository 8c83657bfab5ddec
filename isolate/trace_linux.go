//go:build cgo && (amd64 || arm64)

package isolate

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// maxTraced bounds each list of a Trace.
const maxTraced = 20000

// tracer keeps what is used.
type tracer struct {
	calls, read, written, changed, executed, mapped, addresses map[string]bool

	execs map[uint32]bool // threads whose next call is that of another program, if their exec went well
	full  bool

	capabilities map[string]string // with the first call that needed it
	capsKnown    uint64            // the same as a set
	userNS       uint64            // of the payload's first program
}

func newTracer() *tracer {
	return &tracer{
		calls: map[string]bool{}, read: map[string]bool{}, written: map[string]bool{}, changed: map[string]bool{},
		executed: map[string]bool{}, mapped: map[string]bool{}, addresses: map[string]bool{}, execs: map[uint32]bool{},
		capabilities: map[string]string{},
	}
}

func (t *tracer) add(list map[string]bool, word string) {
	if len(list) == maxTraced {
		t.full = true
		return
	}
	list[word] = true
}

// Trace is what the payload has used; nil without Spec.Trace. It is complete after Wait.
func (c *Cmd) Trace() *Trace {
	if !c.finished || c.Process == nil || c.Process.monitor == nil || c.Process.monitor.tracer == nil {
		return nil
	}
	t := c.Process.monitor.tracer
	list := func(m map[string]bool) []string { return slices.Sorted(maps.Keys(m)) }
	return &Trace{
		Calls: list(t.calls), Read: list(t.read), Written: list(t.written), Changed: list(t.changed),
		Executed: list(t.executed), Mapped: list(t.mapped), Addresses: list(t.addresses), Full: t.full,
		Capabilities: t.capabilities,
	}
}

// pathUse is an argument that is a path, the argument with the folder that it is relative to (-1 is the working
// folder), and what is done with it.
type pathUse struct {
	dir, path int
	use       func(*tracer) map[string]bool
	folder    bool // it is about the folder that the path is in
}

// pathUses are those of the calls that are not watched.
func pathUses(call string) []pathUse {
	read := func(t *tracer) map[string]bool { return t.read }
	written := func(t *tracer) map[string]bool { return t.written }
	changed := func(t *tracer) map[string]bool { return t.changed }
	switch call {
	case "access", "chdir", "getxattr", "lgetxattr", "listxattr", "lstat", "readlink", "stat", "statfs":
		return []pathUse{{-1, 0, read, false}}
	case "faccessat", "faccessat2", "inotify_add_watch", "newfstatat", "readlinkat", "statx":
		return []pathUse{{0, 1, read, false}}
	case "chmod", "chown", "lchown", "lsetxattr", "setxattr", "truncate", "utime", "utimes":
		return []pathUse{{-1, 0, written, false}}
	case "fchmodat", "fchmodat2", "fchownat", "futimesat", "utimensat":
		return []pathUse{{0, 1, written, false}}
	case "mkdir", "mknod", "rmdir", "unlink":
		return []pathUse{{-1, 0, changed, true}}
	case "mkdirat", "mknodat", "unlinkat":
		return []pathUse{{0, 1, changed, true}}
	case "rename":
		return []pathUse{{-1, 0, changed, true}, {-1, 1, changed, true}}
	case "renameat", "renameat2":
		return []pathUse{{0, 1, changed, true}, {2, 3, changed, true}}
	case "link":
		return []pathUse{{-1, 0, read, false}, {-1, 1, changed, true}}
	case "linkat":
		return []pathUse{{0, 1, read, false}, {2, 3, changed, true}}
	case "symlink":
		return []pathUse{{-1, 1, changed, true}}
	case "symlinkat":
		return []pathUse{{1, 2, changed, true}}
	}
	return nil
}

// trace keeps what a call uses. It is let through after that, so what it looks at may change meanwhile.
func (m *monitor) trace(n *notification, call string) {
	t := m.tracer
	m.traceCapabilities(n, call)
	if n.Data.Arch != nativeArch {
		return
	}
	t.add(t.calls, call)
	if t.execs[n.Pid] {
		delete(t.execs, n.Pid)
		m.traceMaps(n)
	}
	const private = unix.MAP_ANONYMOUS
	switch args := n.Data.Args; {
	case call == "mmap" && args[2]&unix.PROT_EXEC != 0 && args[3]&private == 0:
		if path, err := os.Readlink("/proc/" + strconv.Itoa(int(n.Pid)) + "/fd/" + strconv.Itoa(int(int32(args[4])))); err == nil && filepath.IsAbs(path) {
			t.add(t.mapped, path)
		}
	case call == "connect" || call == "bind":
		if address, raw := m.address(n); raw != nil && waits(m.listener, n.ID) {
			t.add(t.addresses, call+" "+address)
		}
	case slices.Contains(watchedCalls, call):
		if f, ok := m.fileOf(n, call); ok {
			m.traceFile(n, f)
		}
		if strings.HasPrefix(call, "exec") && len(t.execs) < maxTraced {
			t.execs[n.Pid] = true
		}
	default:
		for _, u := range pathUses(call) {
			name, ok := m.text(n, args[u.path])
			dir := int32(unix.AT_FDCWD)
			if u.dir >= 0 {
				dir = int32(args[u.dir])
			}
			var f file
			if !ok || name == "" || !f.place(n, dir, name) {
				continue
			}
			if u.folder {
				f.name, f.path = filepath.Dir(f.path), filepath.Dir(f.path)
			}
			if real, ok := m.realOf(n, f.name); ok {
				t.add(u.use(t), real)
			}
		}
	}
}

// realOf is where a path leads in the payload's view.
func (m *monitor) realOf(n *notification, name string) (string, bool) {
	root, err := unix.Open("/proc/"+strconv.Itoa(int(n.Pid))+"/root", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", false
	}
	defer unix.Close(root)
	real, _, err := find(root, name)
	return real, err == nil && waits(m.listener, n.ID)
}

func (m *monitor) traceFile(n *notification, f file) {
	t := m.tracer
	real, there := m.realOf(n, f.name)
	switch {
	case there && f.want.exec:
		t.add(t.executed, real)
	case there:
		if f.want.read || f.want.nothing {
			t.add(t.read, real)
		}
		if f.want.write {
			t.add(t.written, real)
		}
	case f.want.create:
		if dir, ok := m.realOf(n, filepath.Dir(f.path)); ok {
			t.add(t.changed, dir)
		}
	}
}

// traceMaps keeps what the kernel has mapped for a new program.
func (m *monitor) traceMaps(n *notification) {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(int(n.Pid)) + "/maps")
	if err != nil || !waits(m.listener, n.ID) {
		return
	}
	for line := range strings.Lines(string(text)) {
		if words := strings.Fields(line); len(words) >= 6 && strings.Contains(words[1], "x") && filepath.IsAbs(words[5]) {
			m.tracer.add(m.tracer.mapped, strings.Join(words[5:], " "))
		}
	}
}
