//go:build linux

package integration

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// access is what a script in the jail finds of a path: "absent", "closed", "read" or "write".
const accessScript = `import os, sys
for p in sys.argv[1:]:
    try:
        if os.path.isdir(p):
            os.listdir(p)
        elif os.path.lexists(p):
            open(p, 'rb').close()
        else:
            print('absent'); continue
    except FileNotFoundError:
        print('absent'); continue
    except OSError as e:
        print('closed'); continue
    try:
        if os.path.isdir(p):
            n = os.path.join(p, '.probe'); os.mkdir(n); os.rmdir(n)
        else:
            os.close(os.open(p, os.O_WRONLY | os.O_APPEND))
        print('write')
    except OSError as e:
        print('read')
`

// access asks for paths in a jail.
func (b *box) access(flags []string, paths ...string) map[string]string {
	b.t.Helper()
	argv := append([]string{need(b.t, "python3"), "-c", accessScript}, paths...)
	answers := strings.Fields(b.ok(flags, argv...))
	if len(answers) != len(paths) {
		b.t.Fatalf("%d answers for %d paths: %v", len(answers), len(paths), answers)
	}
	m := map[string]string{}
	for i, p := range paths {
		m[p] = answers[i]
	}
	return m
}

// canary is a tree on the host that no jail may see or change.
func canary(t *testing.T, dir string) func() {
	t.Helper()
	if err := os.MkdirAll(filepath.Join(dir, "sub"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"file", "sub/secret"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("canary"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("file", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	before := census(t, dir)
	return func() {
		if after := census(t, dir); after != before {
			t.Errorf("the host's files have changed:\n%s\nwere\n%s", after, before)
		}
	}
}

// What is readable, writable, closed and absent when nothing is asked for.
func TestDefaultView(t *testing.T) {
	each(t, allLevels, func(t *testing.T, a arm) {
		b := newBox(t, a)
		// Of others, of the caller, and in the host's folders that a level hides.
		others := filepath.Join(filepath.Dir(b.tmp), "others")
		unchanged := canary(t, others)
		if a.level != "basic" { // where root may write them
			defer unchanged()
		}
		inTmp, err := os.MkdirTemp("/tmp", "jail-integration-")
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(inTmp)
		if err := os.Chmod(inTmp, 0o755); err != nil {
			t.Fatal(err)
		}
		b.write(filepath.Join(inTmp, "secret"), "x", 0o666)
		dotfile := ""
		if !a.root {
			dotfile = b.write(filepath.Join(b.home, ".netrc"), "secret", 0o600)
		}
		mine := b.write("mine", "x", 0o644)
		paths := []string{
			mine, b.dir, others, filepath.Join(others, "file"), filepath.Join(inTmp, "secret"), "/tmp", "/var/tmp", "/run",
			"/etc/passwd", "/usr/bin", "/etc/shadow", "/var/log", "/srv", b.home, "/dev/shm", "/dev/null", "/proc/self/status", "/sys",
		}
		if dotfile != "" {
			paths = append(paths, dotfile)
		}
		got := b.access(nil, paths...)
		var want map[string]string
		switch a.like() {
		case "basic": // all that the uid may
			want = map[string]string{
				mine: "write", b.dir: "write", filepath.Join(others, "file"): "read", filepath.Join(inTmp, "secret"): "write",
				"/etc/shadow": "closed", b.home: "write", "/tmp": "write", "/etc/passwd": "read", "/dev/null": "write",
			}
			if dotfile != "" {
				want[dotfile] = "write"
			}
			if !asRoot { // then the others are we
				want[filepath.Join(others, "file")] = "write"
			}
			if a.root {
				want[filepath.Join(others, "file")], want["/etc/shadow"], want["/etc/passwd"] = "write", "write", "write"
			}
		case "user":
			want = map[string]string{
				mine: "read", b.dir: "read", others: "closed", filepath.Join(others, "file"): "closed",
				filepath.Join(inTmp, "secret"): "closed", "/tmp": "closed", "/var/tmp": "closed", "/run": "closed",
				"/etc/passwd": "read", "/usr/bin": "read", "/etc/shadow": "closed", "/var/log": "closed", "/srv": "closed",
				b.home: "closed", "/dev/shm": "closed", "/dev/null": "write", "/proc/self/status": "read", "/sys": "read",
			}
			if dotfile != "" {
				want[dotfile] = "closed"
			}
		case "namespaced":
			want = map[string]string{
				mine: "read", b.dir: "read", others: "absent", filepath.Join(others, "file"): "absent",
				filepath.Join(inTmp, "secret"): "absent", "/tmp": "write", "/var/tmp": "write", "/run": "write",
				"/etc/passwd": "read", "/usr/bin": "read", "/etc/shadow": "closed", "/var/log": "absent", "/srv": "absent",
				b.home: "write", "/dev/shm": "write", "/dev/null": "write", "/proc/self/status": "read", "/sys": "read",
			}
			if dotfile != "" {
				want[dotfile] = "absent"
			}
		}
		for path, w := range want {
			if got[path] != w {
				t.Errorf("%s: %s, want %s", path, got[path], w)
			}
		}
		if a.like() != "namespaced" {
			return
		}
		// Nothing but the view: not even the names of the host's folders.
		names := strings.Fields(b.ok(nil, "ls", "-A", "/"))
		for _, name := range names {
			switch name {
			case "bin", "dev", "etc", "lib", "lib32", "lib64", "libx32", "opt", "proc", "root", "run", "sbin", "sys", "tmp", "usr", "var", "nix", "gnu", "snap":
			case strings.Split(b.dir, "/")[1]:
			default:
				t.Errorf("/%s is there", name)
			}
		}
		if got := b.ok(nil, "ls", "-A", "/tmp", "/var/tmp", "/dev/shm", "/run"); strings.Count(got, "\n") != 7 {
			t.Errorf("the private folders are not empty: %s", got)
		}
	})
}

// A working folder that is, or holds, a private folder is not shown, and one line says what would show it.
func TestWorkdirNotes(t *testing.T) {
	each(t, userAndUp, func(t *testing.T, a arm) {
		b := newBox(t, a)
		tmp, err := os.MkdirTemp("/tmp", "jail-integration-")
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(tmp)
		if err := os.Chmod(tmp, 0o755); err != nil {
			t.Fatal(err)
		}
		b.write(filepath.Join(tmp, "seen"), "", 0o644)
		for _, c := range []struct {
			dir   string
			shown bool
		}{
			{"/", false},
			{b.home, false},
			{filepath.Dir(b.home), false},
			{"/tmp", false},
			{"/run", false},
			{tmp, true},
			{b.dir, true},
			{"/usr", true},
		} {
			cmd := b.command(nil, "sh", "-c", "pwd; ls -A . 2>/dev/null | head -3")
			cmd.Dir = c.dir
			o := b.finish(cmd)
			if o.code != 0 || !strings.HasPrefix(o.stdout, c.dir+"\n") {
				t.Errorf("from %s: %+v", c.dir, o)
			}
			if c.shown {
				if o.stderr != "" || strings.Count(o.stdout, "\n") < 2 && c.dir != b.dir {
					t.Errorf("%s is to be shown, without a word: %+v", c.dir, o)
				}
				continue
			}
			if strings.Count(o.stderr, "\n") != 1 || !strings.Contains(o.stderr, "--ro-bind "+c.dir) {
				t.Errorf("from %s the note is to be one line: %q", c.dir, o.stderr)
			}
		}
		if a.like() == "namespaced" { // and what the note says helps
			cmd := b.command([]string{"--ro-bind", "/tmp"}, "cat", filepath.Join(tmp, "seen"))
			cmd.Dir = "/tmp"
			if o := b.finish(cmd); o.code != 0 || o.stderr != "" {
				t.Errorf("with --ro-bind /tmp: %+v", o)
			}
		}
	})
}

// --bind, --ro-bind, their -try forms.
func TestBinds(t *testing.T) {
	each(t, userAndUp, func(t *testing.T, a arm) {
		b := newBox(t, a)
		data := filepath.Join(filepath.Dir(b.tmp), "data")
		b.mkdir(data, 0o755)
		file := b.write(filepath.Join(data, "file"), "content", 0o666)
		missing := filepath.Join(data, "missing")
		if got := b.access([]string{"--ro-bind", data}, data, file)[file]; got != "read" {
			t.Errorf("--ro-bind: %s", got)
		}
		if a.level == "user" && a.root {
			if err := os.Chmod(data, 0o777); err != nil { // no id maps here
				t.Fatal(err)
			}
		}
		got := b.access([]string{"--bind", data, "--ro-bind-try", missing, "--bind-try", missing}, data, file, missing)
		if got[data] != "write" || got[file] != "write" || got[missing] != "absent" {
			t.Errorf("--bind: %v", got)
		}
		around := map[string]string{"user": "closed", "namespaced": "read"}[a.like()]
		if a.like() == "namespaced" && !asRoot {
			around = "write" // base is below the home of who runs the tests, in whose place there is a private one
		}
		if got := b.access([]string{"--bind", file}, data, file); got[file] != "write" || got[data] != around {
			t.Errorf("--bind of a file: %v", got)
		}
		// The later of two rules for a path wins.
		if got := b.access([]string{"--bind", data, "--ro-bind", data}, data)[data]; got != "read" {
			t.Errorf("the later rule: %s", got)
		}
		if got := b.access([]string{"--ro-bind", data, "--bind", data}, data)[data]; got != "write" {
			t.Errorf("the later rule: %s", got)
		}
		for _, flag := range []string{"--bind", "--ro-bind"} {
			if o := b.run([]string{flag, missing}, "true"); o.code != 125 || !strings.Contains(o.stderr, missing) {
				t.Errorf("%s of what is missing: %+v", flag, o)
			}
		}
		o := b.run([]string{"--ro-bind", data + ":/elsewhere/deep"}, "cat", "/elsewhere/deep/file")
		if a.level == "user" {
			if o.code != 125 || !strings.Contains(o.stderr, "namespaced") {
				t.Errorf("a rule that Landlock can't enforce: %+v", o)
			}
		} else if o.stdout != "content" {
			t.Errorf("--ro-bind SRC:DST: %+v", o)
		}
		if a.level == "user" {
			return
		}
		// A writable folder in a read-only one and the other way round.
		inner := filepath.Join(data, "inner")
		b.mkdir(inner, 0o755)
		got = b.access([]string{"--ro-bind", data, "--bind", inner}, data, inner)
		if got[data] != "read" || got[inner] != "write" {
			t.Errorf("bind in ro-bind: %v", got)
		}
		got = b.access([]string{"--bind", data, "--ro-bind", inner}, data, inner)
		if got[data] != "write" || got[inner] != "read" {
			t.Errorf("ro-bind in bind: %v", got)
		}
	})
}

// As root a folder below 0700 parents is id-mapped: the payload reads and writes it, and new files are its owner's.
func TestIDMappedBinds(t *testing.T) {
	t.Parallel()
	if !asRoot {
		t.Skip("host lacks: root")
	}
	for _, owner := range []int{0, ordinary, 1234567} {
		b := newBox(t, arm{"namespaced", true})
		data := b.mkdir("private", 0o700)
		secret := b.write("private/secret", "closed to others", 0o600)
		for _, path := range []string{data, secret} {
			if err := os.Lchown(path, owner, owner); err != nil {
				t.Fatal(err)
			}
		}
		out := b.sh([]string{"--bind", data}, "cat private/secret; stat -c %u-%g private/secret; id -u; echo new > private/new; mkdir private/dir; ln -s x private/link; chmod 600 private/new")
		lines := strings.Split(out, "\n")
		if !strings.HasPrefix(out, "closed to others") || lines[0] != "closed to others"+lines[1]+"-"+lines[1] {
			t.Errorf("owner %d: the payload sees %q", owner, out)
		}
		for _, name := range []string{"new", "dir", "link"} {
			var st unix.Stat_t
			if err := unix.Lstat(filepath.Join(data, name), &st); err != nil || int(st.Uid) != owner || int(st.Gid) != owner {
				t.Errorf("owner %d: on the host %s is %d:%d, %v", owner, name, st.Uid, st.Gid, err)
			}
		}
		if o := b.run([]string{"--ro-bind", data}, "sh", "-c", "echo more >> private/new"); o.code == 0 {
			t.Error("a read-only folder was written")
		}
	}
}

// A path's own folders need not be enterable for the payload: only the way is rebuilt, and its siblings stay away.
func TestWayThroughPrivateFolders(t *testing.T) {
	t.Parallel()
	if !asRoot {
		t.Skip("host lacks: root")
	}
	b := newBox(t, arm{"namespaced", true})
	b.mkdir(filepath.Join(filepath.Dir(b.dir), filepath.Base(b.dir)+"-sibling"), 0o755)
	if got := strings.Fields(b.ok(nil, "ls", "-A", filepath.Dir(b.dir))); !slices.Equal(got, []string{filepath.Base(b.dir)}) {
		t.Errorf("beside the project there is %v", got)
	}
}

func TestTmpfsDirSymlinkFile(t *testing.T) {
	each(t, userAndUp, func(t *testing.T, a arm) {
		b := newBox(t, a)
		text := b.write("content", "from an fd", 0o600)
		if a.level == "user" {
			for _, flags := range [][]string{{"--tmpfs", "/scratch"}, {"--dir", "/made/here"}, {"--symlink", "/usr:/l"}, {"--file", "3:/etc/made"}} {
				cmd := b.command(flags, "true")
				f, err := os.Open(text)
				if err != nil {
					t.Fatal(err)
				}
				cmd.ExtraFiles = []*os.File{f}
				if o := b.finish(cmd); o.code != 125 || !strings.Contains(o.stderr, "namespaced") {
					t.Errorf("%v: %+v", flags, o)
				}
				f.Close()
			}
			return
		}
		out := b.sh([]string{"--tmpfs", "/scratch:1M", "--dir", "/made/here", "--symlink", "/usr/bin:/links/l"},
			"touch /scratch/x && readlink /links/l && test -d /made/here && ls /links/l/env && (head -c 2000000 /dev/zero > /scratch/big) 2>&1; stat -c %s /scratch/big; stat -f -c %b*%S /scratch")
		if !strings.HasPrefix(out, "/usr/bin\n/links/l/env\n") || !strings.Contains(out, "No space left") || !strings.Contains(out, "\n1048576\n") {
			t.Errorf("got %q", out)
		}
		// Inodes are bounded too, in what the level makes by itself: TestP56_DiskIsBounded asks for it at all levels.
		if a.level == "namespaced" {
			out = b.python(nil, "import os\ntry:\n for i in range(300000): os.close(os.open('/run/f%d' % i, os.O_CREAT))\n print('unbounded')\nexcept OSError as e: print(e.errno)")
			if out != "28\n" {
				t.Errorf("inodes of /run: %s", out)
			}
		}
		for _, size := range []int{0, 10, 5000000} {
			b.write("content", strings.Repeat("y", size), 0o600)
			f, err := os.Open(text)
			if err != nil {
				t.Fatal(err)
			}
			cmd := b.command([]string{"--file", "3:/secrets/token"}, "sh", "-c", "wc -c < /secrets/token; stat -c %U:%a /secrets/token; ls /proc/self/fd | wc -l; echo x > /secrets/token")
			cmd.ExtraFiles = []*os.File{f}
			o := b.finish(cmd)
			f.Close()
			if !strings.HasPrefix(o.stdout, strconv.Itoa(size)+"\n") || !strings.HasSuffix(o.stdout, "\n4\n") {
				t.Errorf("--file of %d bytes: %+v", size, o)
			}
		}
	})
}

// --deny takes away: folders, files, inside a bind; the more specific rule wins, and of two for one path deny does.
func TestDeny(t *testing.T) {
	each(t, userAndUp, func(t *testing.T, a arm) {
		b := newBox(t, a)
		data := filepath.Join(filepath.Dir(b.tmp), "data")
		b.mkdir(data, 0o755)
		sub := b.mkdir(filepath.Join(data, "sub"), 0o755)
		key := b.write(filepath.Join(data, "key"), "secret", 0o644)
		open := b.write(filepath.Join(sub, "open"), "x", 0o644)
		deep := b.mkdir(filepath.Join(sub, "deep"), 0o755)
		inDeep := b.write(filepath.Join(deep, "f"), "x", 0o644)
		if a.level == "user" {
			if o := b.run([]string{"--ro-bind", data, "--deny", key}, "true"); o.code != 125 || !strings.Contains(o.stderr, key) || !strings.Contains(o.stderr, "namespaced") {
				t.Errorf("a rule that Landlock can't enforce: %+v", o)
			}
			for _, flags := range [][]string{{"--deny", data}, {"--ro-bind", data, "--deny", data}, {"--deny", data, "--ro-bind", data}} {
				if got := b.access(flags, data)[data]; got != "closed" {
					t.Errorf("%v: %s", flags, got)
				}
			}
			return
		}
		for _, c := range []struct {
			flags []string
			want  map[string]string
		}{
			{[]string{"--ro-bind", data, "--deny", key}, map[string]string{key: "closed", data: "read", open: "read"}},
			{[]string{"--bind", data, "--deny", key}, map[string]string{key: "closed", data: "write", open: "write"}},
			{[]string{"--ro-bind", data, "--deny", sub}, map[string]string{key: "read", sub: "closed", open: "closed", inDeep: "closed"}},
			{[]string{"--deny", sub, "--ro-bind", data}, map[string]string{sub: "closed", open: "closed"}},
			{[]string{"--ro-bind", data, "--deny", data}, map[string]string{data: "absent"}},
			{[]string{"--deny", data, "--ro-bind", data}, map[string]string{data: "absent"}},
			{[]string{"--deny", "/etc/passwd"}, map[string]string{"/etc/passwd": "closed", "/etc/group": "read"}},
			{[]string{"--deny", "/bin/sh"}, map[string]string{"/usr/bin/sh": "closed", "/bin/sh": "closed", "/usr/bin/env": "read"}},
			{[]string{"--deny", "/tmp"}, map[string]string{"/tmp": "absent"}},
			{[]string{"--deny", "/dev/null"}, map[string]string{"/dev/null": "closed", "/dev/zero": "write"}},
		} {
			var paths []string
			for p := range c.want {
				paths = append(paths, p)
			}
			got := b.access(c.flags, paths...)
			for p, want := range c.want {
				if got[p] != want && !(want == "closed" && got[p] == "absent") {
					t.Errorf("%v: %s is %s, want %s", c.flags, p, got[p], want)
				}
			}
		}
		// A cover that can be taken off covers nothing.
		o := b.run([]string{"--bind", data, "--deny", key, "--deny", sub}, tool("calls"), "mounts", key, sub)
		if strings.Contains(o.stdout, "ok") {
			t.Errorf("the cover came off: %s", o.stdout)
		}
		script := fmt.Sprintf("unshare -Urm sh -c 'umount -l %s; umount -l %s; mount -o remount,bind,rw %s; cat %s; cat %s' 2>/dev/null", key, sub, sub, key, open)
		if o := b.run([]string{"--bind", data, "--deny", key, "--deny", sub}, "sh", "-c", script); strings.Contains(o.stdout, "secret") || strings.Contains(o.stdout, "x") {
			t.Errorf("the cover came off in a user namespace: %+v", o)
		}
		// Nor may what is covered be moved to another name.
		if o := b.run([]string{"--bind", data, "--deny", key}, "sh", "-c", "mv "+key+" "+data+"/moved; cat "+data+"/moved"); strings.Contains(o.stdout, "secret") {
			t.Errorf("the covered file was moved: %+v", o)
		}
		if o := b.run([]string{"--bind", data, "--deny", inDeep}, "sh", "-c", "mv "+sub+" "+data+"/moved; cat "+data+"/moved/deep/f"); strings.Contains(o.stdout, "x") {
			t.Errorf("a folder above what is covered was moved: %+v", o)
		}
		if o := b.run([]string{"--bind", data, "--deny", filepath.Join(data, "later")}, "true"); o.code != 125 {
			t.Errorf("deny of what the payload could make: %+v", o)
		}
	})
}

// mountLine is what counts of a line of mountinfo.
type mountLine struct{ point, options, kind, source, tags string }

func mountTable(text string) []mountLine {
	var table []mountLine
	for _, line := range strings.Split(strings.TrimSpace(text), "\n") {
		left, right, _ := strings.Cut(line, " - ")
		l, r := strings.Fields(left), strings.Fields(right)
		if len(l) < 6 || len(r) < 2 {
			continue
		}
		table = append(table, mountLine{point: l[4], options: l[5], kind: r[0], source: r[1], tags: strings.Join(l[6:], " ")})
	}
	return table
}

// The mounts are those that explain lists, none tied to the host's, all of them nosuid, the shown ones read-only.
func TestP13_P15_P16_P17_MountTable(t *testing.T) {
	each(t, namespacedUp, func(t *testing.T, a arm) {
		b := newBox(t, a)
		host := hostMounts()
		table := mountTable(b.ok(nil, "cat", "/proc/self/mountinfo"))
		if now := hostMounts(); now != host {
			t.Errorf("the host's mounts have changed")
		}
		out := b.finish(b.as(append([]string{jailPath, "explain", "--json"}, append(b.flags(), "--", "true")...)...))
		var explained struct {
			Plan struct {
				Steps []struct{ Op, Path, Type string } `json:"steps"`
			} `json:"plan"`
		}
		if err := json.Unmarshal([]byte(out.stdout), &explained); err != nil {
			t.Fatalf("%v: %+v", err, out)
		}
		planned := []string{"/"}
		for _, s := range explained.Plan.Steps {
			if s.Op == "mount" || s.Op == "bind" {
				planned = append(planned, "/"+s.Path)
			}
		}
		var found, recursive []string
		for _, m := range table {
			below := ""
			for _, p := range planned {
				if p != "/" && p != m.point && strings.HasPrefix(m.point, p+"/") && !slices.Contains(planned, m.point) {
					below = p // a mount of the host below a shown folder came with it
				}
			}
			if below != "" {
				recursive = append(recursive, m.point)
			} else {
				found = append(found, m.point)
			}
			if m.tags != "" {
				t.Errorf("P16: %s has %s", m.point, m.tags)
			}
			o := strings.Split(m.options, ",")
			if m.kind == "proc" || m.kind == "sysfs" || m.kind == "tmpfs" || m.kind == "devpts" || m.kind == "ext4" || m.kind == "overlay" {
				if !slices.Contains(o, "nosuid") {
					t.Errorf("P17: %+v is not nosuid", m)
				}
			}
			dev := m.point == "/dev" || strings.HasPrefix(m.point, "/dev/")
			if !dev && !slices.Contains(o, "nodev") {
				t.Errorf("P17: %+v is not nodev", m)
			}
			writable := []string{"/tmp", "/var/tmp", "/run", "/dev/shm", "/proc", "/dev/pts", b.home, "/root"}
			if !slices.Contains(o, "ro") && !slices.Contains(writable, m.point) && !(strings.HasPrefix(m.point, "/dev/") && !a.root) {
				t.Errorf("P17: %+v is writable", m)
			}
		}
		slices.Sort(found)
		slices.Sort(planned)
		planned = slices.Compact(planned)
		if !slices.Equal(found, planned) {
			t.Errorf("P15: mounts %v\nplanned %v\n(with shown folders came %v)", found, planned, recursive)
		}
	})
}

// Read-only is read-only: also the mounts below, also after a remount, also in a user namespace of the payload's own.
func TestP17_ReadOnlyIsLocked(t *testing.T) {
	t.Parallel()
	if !asRoot {
		t.Skip("host lacks: root (to mount below the shown folder)")
	}
	for _, root := range []bool{true, false} {
		a := arm{"namespaced", root}
		b := newBox(t, a)
		data := filepath.Join(filepath.Dir(b.tmp), "data")
		b.mkdir(data, 0o755)
		b.mkdir(filepath.Join(data, "below"), 0o777)
		inner := "/usr/bin/setpriv --reuid 65533 --regid 65533 --clear-groups "
		if root {
			inner = ""
		}
		argv := b.command([]string{"--ro-bind", data}, "sh", "-c",
			"for d in "+data+" "+data+"/below; do echo x > $d/f && echo WRITTEN; mount -o remount,bind,rw $d && echo REMOUNTED;"+
				" unshare -Urm sh -c \"mount -o remount,bind,rw $d && echo REMOUNTED; echo x > $d/f && echo WRITTEN; umount -l $d/below && echo UNMOUNTED\"; done; stat -f -c %T "+data+"/below").Args
		// the mount below is made in a mount namespace of its own, which the launcher runs in
		script := "mount -t tmpfs -o mode=1777 t " + data + "/below && exec " + inner + `"$@"`
		cmd := exec.Command("unshare", append([]string{"-m", "--propagation", "private", "sh", "-c", script, "sh"}, argv...)...)
		cmd.Dir, cmd.Env = b.dir, b.env
		o := b.finish(cmd)
		if o.stdout != "tmpfs\n" {
			t.Errorf("%v: %+v", a, o)
		}
		if entries, err := os.ReadDir(data); err != nil || len(entries) != 1 {
			t.Errorf("%v: on the host there is %v, %v", a, entries, err)
		}
	}
}

// Whatever the view is asked to put into a shown folder, nothing is made on the host.
func TestNothingIsMadeOnTheHost(t *testing.T) {
	each(t, userAndUp, func(t *testing.T, a arm) {
		b := newBox(t, a)
		data := filepath.Join(b.dir, "data")
		unchanged := canary(t, data)
		for _, flags := range [][]string{
			{"--dir", data + "/new"},
			{"--tmpfs", data + "/new"},
			{"--tmpfs", data + "/sub"},
			{"--symlink", "/x:" + data + "/new"},
			{"--ro-bind", "/etc:" + data + "/new"},
			{"--ro-bind", "/etc/passwd:" + data + "/new"},
			{"--ro-bind", "/etc:" + data + "/file"},
			{"--ro-bind", "/etc:" + data + "/link"},
			{"--ro-bind", "/etc/passwd:" + data + "/link"},
			{"--deny", data + "/file"},
			{"--deny", data + "/new"},
			{"--deny", data + "/sub/secret"},
			{"--file", "0:" + data + "/new"},
			{"--dir", "/usr/new"},
			{"--tmpfs", "/etc/new/deeper"},
			{"--ro-bind", "/etc:/usr/new"},
			{"--dir", "/proc/new"},
			{"--tmpfs", "/proc/1"},
			{"--dir", "/sys/new"},
			{"--dir", "/dev/new"},
			{"--tmpfs", "/dev"},
			{"--tmpfs", "/proc"},
			{"--symlink", "/usr:/usr"},
			{"--symlink", "/etc:/tmp"},
			{"--dir", "/bin/new"},
			{"--tmpfs", "/"},
			{"--dir", "/"},
			{"--deny", "/"},
			{"--ro-bind", data + ":/"},
		} {
			o := b.run(flags, "/usr/bin/true")
			if o.code != 0 && o.code != 126 && (o.code != 125 || strings.Count(o.stderr, "jail: ") != 1) {
				t.Errorf("%v: %+v", flags, o)
			}
		}
		unchanged()
		for _, path := range []string{"/usr/new", "/etc/new", "/bin/new", "/.jail-deny-file", "/.jail-deny-folder"} {
			if _, err := os.Lstat(path); err == nil {
				t.Errorf("%s was made on the host", path)
			}
		}
	})
}

// A bind source that is exchanged with a link all the time: an error, or the right content.
func TestP22_SwappedSymlink(t *testing.T) {
	each(t, userAndUp, func(t *testing.T, a arm) {
		b := newBox(t, a)
		secret := filepath.Join(filepath.Dir(b.tmp), "others")
		unchanged := canary(t, secret)
		good := b.mkdir("good", 0o755)
		b.write("good/file", "right", 0o644)
		link := filepath.Join(b.dir, "link")
		if err := os.Symlink(secret, link); err != nil {
			t.Fatal(err)
		}
		seconds := 2
		if sweep {
			seconds = 60
		}
		swapper := exec.Command(tool("swap"), good, link, strconv.Itoa(seconds))
		if err := swapper.Start(); err != nil {
			t.Fatal(err)
		}
		var right, refused, other atomic.Int64
		var done sync.WaitGroup
		end := time.Now().Add(time.Duration(seconds) * time.Second)
		for range 2 {
			done.Go(func() {
				for time.Now().Before(end) {
					// the launcher resolves links: the secret is in view where it was a link at that moment, as the user asked;
					// what must never be is another file than the one that was looked at
					o := b.run([]string{"--ro-bind", good + ":" + good}, "sh", "-c", "cat good/file")
					switch {
					case o.code == 0 && (o.stdout == "right" || o.stdout == "canary"):
						right.Add(1)
					case o.stdout == "":
						refused.Add(1)
					default:
						other.Add(1)
						t.Errorf("%+v", o)
					}
				}
			})
		}
		done.Wait()
		if err := swapper.Wait(); err != nil {
			t.Fatal(err)
		}
		unchanged()
		if right.Load() == 0 {
			t.Errorf("no launch worked: %d refused", refused.Load())
		}
		t.Logf("%d launches worked, %d were refused", right.Load(), refused.Load())
	})
}

var jailTmp = regexp.MustCompile(`^jail-tmp-\d+-[a-z0-9]+$`)

// At user the payload has a TMPDIR of its own, which is gone afterwards: at once, or at the next start if the launcher
// was killed.
func TestPrivateTMPDIR(t *testing.T) {
	each(t, []string{"user"}, func(t *testing.T, a arm) {
		b := newBox(t, a)
		out := b.sh(nil, "echo $TMPDIR; stat -c %a $TMPDIR; mkdir -p $TMPDIR/a/b; echo x > $TMPDIR/a/b/c; chmod 0 $TMPDIR/a")
		if lines := strings.Split(out, "\n"); !jailTmp.MatchString(filepath.Base(lines[0])) || filepath.Dir(lines[0]) != b.tmp || lines[1] != "700" {
			t.Errorf("got %q", out)
		}
		if left, _ := os.ReadDir(b.tmp); len(left) != 0 {
			t.Errorf("left: %v", left)
		}
		cmd := b.command(nil, "sh", "-c", "echo x > $TMPDIR/f; echo ready; sleep 120")
		pipe, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if _, err := pipe.Read(make([]byte, 10)); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait()
		if left, _ := os.ReadDir(b.tmp); len(left) != 1 {
			t.Errorf("after the kill there is %v", left)
		}
		b.swept()
	})
}
