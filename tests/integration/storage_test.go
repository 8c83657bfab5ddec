//go:build linux

package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

var namespacedUp = []string{"namespaced", "limited", "contained"}

// P24: a device that lies in a folder that is shown can't be opened: only one that was asked for by itself can.
func TestP24_UndeclaredDevice(t *testing.T) {
	each(t, namespacedUp, func(t *testing.T, a arm) {
		if !asRoot {
			t.Skip("host lacks: root (to make a device file)")
		}
		b := newBox(t, a)
		dir := b.mkdir("devices", 0o777)
		full, disk := filepath.Join(dir, "full"), filepath.Join(dir, "disk")
		if err := unix.Mknod(full, unix.S_IFCHR|0o666, int(unix.Mkdev(1, 7))); err != nil {
			t.Fatal(err)
		}
		if err := unix.Mknod(disk, unix.S_IFBLK|0o666, int(unix.Mkdev(42, 0))); err != nil {
			t.Fatal(err)
		}
		for _, path := range []string{full, disk} { // not by the umask
			if err := os.Chmod(path, 0o666); err != nil {
				t.Fatal(err)
			}
		}
		const open = `import errno, os, sys
for p in sys.argv[1:]:
    try:
        os.close(os.open(p, os.O_RDONLY)); print('ok')
    except OSError as e: print(errno.errorcode[e.errno])`
		python := []string{need(t, "python3"), "-c", open, full, disk}
		for _, bind := range []string{"--bind", "--ro-bind"} {
			if got := b.ok([]string{bind, dir}, python...); got != "EACCES\nEACCES\n" {
				t.Errorf("%s: got %q", bind, got)
			}
		}
		if bare := b.bare(python...).stdout; bare != "ok\nENXIO\n" { // a driver is looked for: major 42 is left to examples
			t.Errorf("vacuous: bare: %q", bare)
		}
		if got := b.ok([]string{"--device", full + ":/dev/other"}, append(python[:3:3], "/dev/other")...); got != "ok\n" {
			t.Errorf("vacuous: asked for it is %q", got)
		}
	})
}

// P56: what can be written is bounded, in bytes and in files: every file system that is writable.
func TestP56_DiskIsBounded(t *testing.T) {
	const fill = `import errno, os, sys
os.chdir(sys.argv[1])
def until(f):
    for n in range(1500):
        try: f(n)
        except OSError as e: return errno.errorcode[e.errno]
    return 'endless'
print(until(lambda n: os.mkdir(str(n))))
for n in range(1500):
    try: os.rmdir(str(n))
    except OSError: break
f = os.open('f', os.O_CREAT | os.O_WRONLY)
print(until(lambda n: os.write(f, b'x' * 1024)))`
	each(t, namespacedUp, func(t *testing.T, a arm) {
		b := newBox(t, a)
		python := []string{need(t, "python3"), "-c", fill}
		if got := b.ok([]string{"--tmpfs", "/scratch:1M"}, append(python, "/scratch")...); got != "ENOSPC\nENOSPC\n" {
			t.Errorf("a folder of 1 MiB: %q", got)
		}
		if got := b.ok([]string{"--rlimit", "fsize=4096"}, append(python, "/tmp")...); got != "endless\nEFBIG\n" {
			t.Errorf("--rlimit fsize: %q", got)
		}
		if a.level == "namespaced" { // the disk is the same at every level, and slow
			host := b.mkdir("host", 0o777)
			if bare := b.bare(append(python, host)...); bare.stdout != "endless\nendless\n" {
				t.Errorf("vacuous: bare: %+v", bare)
			}
			if given := b.ok([]string{"--bind", host + ":/scratch"}, append(python, "/scratch")...); given != "endless\nendless\n" {
				t.Errorf("vacuous: a folder of the host: %q", given)
			}
		}
		out := b.python(nil, `import os
for line in open('/proc/self/mountinfo'):
    f = line.split(); kind = f[f.index('-') + 1]; s = os.statvfs(f[4])
    if 'rw' in f[5].split(',') and os.path.isdir(f[4]) and kind not in ('proc', 'devpts'): print(kind, f[4], s.f_blocks * s.f_bsize, s.f_files)`)
		if strings.Count(out, "\n") < 4 {
			t.Errorf("hardly anything is writable: %q", out)
		}
		for line := range strings.Lines(out) {
			f := strings.Fields(line)
			size, _ := strconv.ParseInt(f[2], 10, 64)
			files, _ := strconv.ParseInt(f[3], 10, 64)
			if f[0] != "tmpfs" || size <= 0 || size > 1<<30 || files <= 0 || files > 1<<18 {
				t.Errorf("%s is not bounded", strings.TrimSpace(line))
			}
		}
	})
}

// P71: where the view is Landlock's, each right that this kernel's version knows is refused outside of it.
func TestP71_Landlock(t *testing.T) {
	const try = `import errno, os, sys
inside, outside, secret = sys.argv[1:]
def say(what, f):
    try:
        f(); print(what, 'ok')
    except OSError as e: print(what, errno.errorcode[e.errno])
say('write', lambda: os.close(os.open(outside + '/file', os.O_WRONLY)))
say('truncate', lambda: os.truncate(outside + '/file', 0))
say('make', lambda: os.close(os.open(outside + '/new', os.O_CREAT | os.O_WRONLY)))
say('mkdir', lambda: os.mkdir(outside + '/sub'))
say('link', lambda: os.symlink('x', outside + '/symlink'))
say('fifo', lambda: os.mkfifo(outside + '/fifo'))
say('remove', lambda: os.unlink(outside + '/file'))
say('rename out', lambda: os.rename(inside + '/file', outside + '/moved'))
say('read', lambda: os.close(os.open(secret + '/file', os.O_RDONLY)))
say('list', lambda: os.listdir(secret))
say('rename across', lambda: os.rename(inside + '/file', inside + '/other/file'))
say('inside', lambda: os.close(os.open(inside + '/new', os.O_CREAT | os.O_WRONLY)))`
	refusals := map[string]string{
		"write": "EACCES", "truncate": "EACCES", "make": "EACCES", "mkdir": "EACCES", "link": "EACCES", "fifo": "EACCES", "remove": "EACCES",
		"rename out": "EACCES", "read": "EACCES", "list": "EACCES", "rename across": "ok", "inside": "ok",
	}
	abi, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	if errno != 0 {
		t.Fatal(errno)
	}
	each(t, []string{"user"}, func(t *testing.T, a arm) {
		b := newBox(t, a)
		top := filepath.Dir(b.tmp)
		n := 0
		dirs := func() []string {
			n++
			var paths []string
			for _, name := range []string{"inside", "outside", "secret"} {
				dir := b.mkdir(filepath.Join(top, fmt.Sprint(name, n)), 0o777)
				b.write(dir+"/file", "x", 0o666)
				paths = append(paths, dir)
			}
			b.mkdir(paths[0]+"/other", 0o777)
			return paths
		}
		python := []string{need(t, "python3"), "-c", try}
		d := dirs()
		got := answersOf(b.ok([]string{"--bind", d[0], "--ro-bind", d[1]}, append(python, d...)...))
		for what, want := range refusals {
			if what == "truncate" && abi < 3 {
				vacuous(t, "Landlock below ABI 3 does not refuse truncate(2): explain lists it")
			} else if got[what] != want {
				t.Errorf("%s is %s, want %s", what, got[what], want)
			}
		}
		d = dirs()
		bare := answersOf(b.bare(append(python, d...)...).stdout)
		d = dirs()
		basic := answersOf(newBox(t, arm{"basic", a.root}).ok(nil, append(python, d...)...))
		for what := range refusals {
			if what == "rename across" { // what was to be renamed is where "rename out" put it
				continue
			}
			if bare[what] != "ok" || basic[what] != "ok" {
				t.Errorf("vacuous: %s is %s bare, %s at basic", what, bare[what], basic[what])
			}
		}
		if text := b.finish(b.as(jailPath, "explain", "--level=user", "--", "true")).stdout; !strings.Contains(text, "Landlock") {
			t.Errorf("explain does not name what the view is made of: %s", text)
		}
	})
}
