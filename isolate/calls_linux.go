//go:build cgo && (amd64 || arm64)

package isolate

import (
	"runtime"
	"sync"

	"github.com/jailrun/jail/internal/syscalls"
)

// calls are the names of our own ABI's system calls by number, and the other way round.
var calls = sync.OnceValues(func() (names map[uint32]string, numbers map[string]uint32) {
	names, numbers = map[uint32]string{}, map[string]uint32{}
	abi := map[string]int{"amd64": syscalls.AMD64, "arm64": syscalls.ARM64}[runtime.GOARCH]
	for _, c := range syscalls.Calls {
		if nr := c.NR[abi]; nr >= 0 {
			names[uint32(nr)], numbers[c.Name] = c.Name, uint32(nr)
		}
	}
	return names, numbers
})

// watchedCalls are those that are looked at before the kernel judges them. A kernel need not have all of them.
var watchedCalls = []string{"open", "creat", "openat", "openat2", "execve", "execveat", "connect"}

// changingCalls make, rename and remove names. They are looked at for a report; pathUses has their arguments.
var changingCalls = []string{
	"link", "linkat", "mkdir", "mkdirat", "mknod", "mknodat", "rename", "renameat", "renameat2", "rmdir", "symlink", "symlinkat",
	"unlink", "unlinkat",
}

// pathArgument says which argument of a call is the path that it is about.
func pathArgument(call string) (index int, ok bool) {
	switch call {
	case "access", "acct", "chdir", "chmod", "chown", "chroot", "creat", "execve", "getxattr", "lchown", "lgetxattr", "link",
		"lremovexattr", "lsetxattr", "lstat", "mkdir", "mknod", "open", "pivot_root", "readlink", "removexattr", "rename", "rmdir",
		"setxattr", "stat", "statfs", "swapoff", "swapon", "symlink", "truncate", "umount2", "unlink", "uselib", "utime", "utimes":
		return 0, true
	case "execveat", "faccessat", "faccessat2", "fchmodat", "fchmodat2", "fchownat", "fspick", "futimesat", "inotify_add_watch",
		"linkat", "mkdirat", "mknodat", "mount", "mount_setattr", "move_mount", "name_to_handle_at", "newfstatat", "open_tree",
		"openat", "openat2", "quotactl", "readlinkat", "renameat", "renameat2", "statx", "unlinkat", "utimensat":
		return 1, true
	}
	return 0, false
}

// plainArgument says which argument of a call tells most of it, where that is a number.
func plainArgument(call string) (index int, ok bool) {
	switch call {
	case "arch_prctl", "bpf", "clone", "clock_settime", "keyctl", "personality", "prctl", "ptrace", "seccomp", "socket", "socketpair", "unshare":
		return 0, true
	case "fcntl", "ioctl", "prlimit64", "setns":
		return 1, true
	}
	return 0, false
}

// Bounds of a report: a payload that makes up paths must not fill our memory.
const (
	maxDenials = 256
	maxWord    = 512 // bytes of a path or an argument
)

// denials counts refused calls.
type denials struct {
	list []Denial
	at   map[Denial]int // by all but the count
	more int64
}

func (d *denials) add(n Denial) {
	n.Path, n.Argument = shorten(n.Path), shorten(n.Argument)
	if i, known := d.at[n]; known {
		d.list[i].Count++
		return
	}
	if len(d.list) == maxDenials {
		d.more++
		return
	}
	if d.at == nil {
		d.at = map[Denial]int{}
	}
	d.at[n] = len(d.list)
	n.Count = 1
	d.list = append(d.list, n)
}

// shorten leaves out the middle of a word that is too long.
func shorten(s string) string {
	if len(s) <= maxWord {
		return s
	}
	return s[:maxWord/2] + "…" + s[len(s)-maxWord/2:]
}
