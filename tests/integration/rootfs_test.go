//go:build linux

package integration

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// rootedLevels are the levels with a root file system that the tests run at.
var rootedLevels = []string{"namespaced", "contained"}

// applets are what the busybox of a test's root is called as.
var applets = []string{"sh", "cat", "echo", "env", "grep", "head", "id", "ls", "mkdir", "mount", "pwd", "readlink", "rm", "stat", "touch", "true", "wc"}

// busybox is the path of a static busybox that hard links can be made to.
func busybox(t *testing.T) string {
	t.Helper()
	from := need(t, "busybox")
	path := filepath.Join(base, fmt.Sprint("busybox", boxes.Add(1)))
	text, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(text), "BusyBox") {
		t.Skip("host lacks: busybox")
	}
	if err := os.WriteFile(path, text, 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// tree makes a root file system of the box's caller: busybox, and the folders that are named.
func (b *box) tree(name, busybox string, folders ...string) string {
	b.t.Helper()
	root := b.mkdir(name, 0o755)
	b.mkdir(name+"/bin", 0o755)
	if err := os.Link(busybox, root+"/bin/busybox"); err != nil {
		text, err := os.ReadFile(busybox)
		if err != nil {
			b.t.Fatal(err)
		}
		b.write(name+"/bin/busybox", string(text), 0o755)
	}
	for _, a := range applets {
		if err := os.Symlink("busybox", root+"/bin/"+a); err != nil {
			b.t.Fatal(err)
		}
	}
	for _, dir := range folders {
		b.mkdir(name+"/"+dir, 0o755)
	}
	return root
}

// mountPoints are the folders that a root has to have, to be mounted as it is.
var mountPoints = []string{"proc", "dev", "sys", "tmp", "run", "var", "var/tmp", "etc"}

// rooted is a run with a root file system; flags are behind --rootfs.
func (b *box) rooted(root string, flags []string, argv ...string) outcome {
	b.t.Helper()
	all := append([]string{jailPath, "run", "--level=" + b.arm.level, "--env", b.cookie, "--rootfs", root}, flags...)
	return b.finish(b.as(append(append(all, "--"), argv...)...))
}

// script is rooted with a shell script that has to succeed; it returns stdout.
func (b *box) script(root string, flags []string, script string) string {
	b.t.Helper()
	o := b.rooted(root, flags, "/bin/sh", "-c", script)
	if o.code != 0 {
		b.t.Fatalf("%s %q: exit code %d\nstdout: %s\nstderr: %s", root, flags, o.code, o.stdout, o.stderr)
	}
	return o.stdout
}

// census is all that can be told of a tree: names, contents, owners, modes and times of change.
func census(t *testing.T, root string) string {
	t.Helper()
	var lines []string
	err := filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return err
		}
		content := ""
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			content = fmt.Sprintf("%x", sha256.Sum256(text))
		case unix.S_IFLNK:
			content, _ = os.Readlink(path)
		}
		lines = append(lines, fmt.Sprint(strings.TrimPrefix(path, root), " ", st.Mode, " ", st.Uid, " ", st.Gid, " ", st.Ino, " ", st.Size, " ", st.Ctim, " ", content))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(lines, "\n")
}

// P03, P15: what there is of files is the tree's, the way up ends at its top, the mounts are those of the jail alone, and
// nothing is made in the tree; whether it has the mount points or not.
func TestP03_P15_Rootfs(t *testing.T) {
	each(t, rootedLevels, func(t *testing.T, a arm) {
		b := newBox(t, a)
		bb := busybox(t)
		for name, folders := range map[string][]string{"bare": nil, "full": mountPoints} {
			root := b.tree(name, bb, folders...)
			b.write(name+"/only-here", "content of the tree\n", 0o644)
			before := census(t, root)
			out := b.script(root, nil, `id -u; pwd; stat -c %d:%i / /..; ls /; cat /only-here; echo "$PATH $HOME $TMPDIR $USER"; touch /new || echo read-only
				for d in /tmp /var/tmp /run /dev/shm; do touch $d/x && echo $d; done; cat /proc/self/mountinfo`)
			lines := strings.Split(strings.TrimSpace(out), "\n")
			if lines[0] != "0" || lines[1] != "/" || lines[2] != lines[3] {
				t.Errorf("%s: uid, working folder and what / and /.. are: %q", name, lines[:4])
			}
			for _, want := range []string{
				"content of the tree", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin /root /tmp ", "read-only",
				"/tmp", "/var/tmp", "/run", "/dev/shm",
			} {
				if !slices.Contains(lines, want) {
					t.Errorf("%s: no line %q in\n%s", name, want, out)
				}
			}
			for _, l := range lines {
				f := strings.Fields(l)
				if len(f) < 9 {
					continue
				}
				point, ok := f[4], false
				for _, known := range []string{"/proc", "/dev", "/sys", "/tmp", "/var/tmp", "/run"} {
					ok = ok || point == known || strings.HasPrefix(point, known+"/")
				}
				if point != "/" && !ok || strings.Contains(l, "shared:") || strings.Contains(l, "master:") {
					t.Errorf("%s: a mount that nobody asked for: %s", name, l)
				}
				if point == "/" && !strings.HasPrefix(f[5], "ro,nosuid,nodev") {
					t.Errorf("%s: the root is %s", name, f[5])
				}
			}
			if now := census(t, root); now != before {
				t.Errorf("%s: the tree was\n%s\nand is\n%s", name, before, now)
			}
		}
		// the other arm: bare, there is no such file
		if o := b.bare("cat", "/only-here"); o.code == 0 {
			t.Error("vacuous: the host has /only-here")
		}
	})
}

// Writes land in the tree with :rw, in memory with --rootfs-overlay; both as files of the tree's owner.
func TestRootfsWrites(t *testing.T) {
	each(t, rootedLevels, func(t *testing.T, a arm) {
		b := newBox(t, a)
		bb := busybox(t)
		root := b.tree("full", bb, mountPoints...)
		b.write("full/etc/motd", "hello\n", 0o644)
		before := census(t, root)
		if out := b.script(root, []string{"--rootfs-overlay"}, "echo more >>/etc/motd && mkdir /new && rm /bin/wc && cat /etc/motd && ls -d /new"); out != "hello\nmore\n/new\n" {
			t.Errorf("got %q", out)
		}
		if now := census(t, root); now != before {
			t.Errorf("the tree was\n%s\nand is\n%s", before, now)
		}
		b.script(root+":rw", nil, "echo more >>/etc/motd && mkdir /new")
		text, err := os.ReadFile(root + "/etc/motd")
		if err != nil || string(text) != "hello\nmore\n" {
			t.Errorf("%q, %v", text, err)
		}
		var st, top unix.Stat_t
		if err := errors.Join(unix.Lstat(root+"/new", &st), unix.Lstat(root, &top)); err != nil || st.Uid != top.Uid || st.Gid != top.Gid {
			t.Errorf("a new file belongs to %d:%d, %v", st.Uid, st.Gid, err)
		}
		bare := b.tree("bare", bb)
		if o := b.rooted(bare+":rw", nil, "/bin/true"); o.code != 125 || !strings.Contains(o.stderr, `"/proc"`) || !strings.Contains(o.stderr, "--rootfs-overlay") {
			t.Errorf("a writable root without mount points: %+v", o)
		}
		if now := census(t, bare); strings.Contains(now, "proc") {
			t.Errorf("something was made in the tree:\n%s", now)
		}
	})
}

// Rules stand on top of a root, and their mount points are made in memory.
func TestRootfsRules(t *testing.T) {
	each(t, rootedLevels, func(t *testing.T, a arm) {
		b := newBox(t, a)
		root := b.tree("root", busybox(t), append(mountPoints, "opt", "var/lib")...)
		if err := os.Symlink("/run", root+"/var/run"); err != nil {
			t.Fatal(err)
		}
		given := b.mkdir("given", 0o755)
		b.write("given/secret", "secret\n", 0o644)
		b.write("given/shown", "shown\n", 0o644)
		b.write("root/etc/closed", "closed\n", 0o644)
		before := census(t, root)
		out := b.script(root, []string{
			"--bind", given + ":/new/given", "--deny", "/new/given/secret", "--deny", "/etc/closed", "--ro-bind", given + ":/var/run/given",
			"--tmpfs", "/opt", "--dir", "/made/dir", "--symlink", "dir:/made/link", "--workdir", "/made",
		}, `pwd; cat /new/given/shown /run/given/shown; cat /new/given/secret /etc/closed; echo 1 >/new/given/written && echo 2 >/opt/x && readlink link; ls /var/lib; echo x >/run/given/x; true`)
		if want := "/made\nshown\nshown\ndir\n"; out != want {
			t.Errorf("got %q, want %q", out, want)
		}
		if _, err := os.Lstat(given + "/written"); err != nil {
			t.Error(err)
		}
		if now := census(t, root); now != before {
			t.Errorf("the tree was\n%s\nand is\n%s", before, now)
		}
		for _, c := range []struct {
			flags []string
			want  string
		}{
			{[]string{"--workdir", "/absent"}, `workdir "/absent" does not exist in the root`},
			{[]string{"--bind", given + ":/bin/busybox"}, `"/bin/busybox" is a file there`},
			{[]string{"--bind", given + ":/"}, "is the root"},
			{[]string{"--symlink", "x:/bin"}, `"/bin" can't be made`},
		} {
			if o := b.rooted(root, c.flags, "/bin/true"); o.code != 125 || !strings.Contains(o.stderr, c.want) {
				t.Errorf("%q: %+v", c.flags, o)
			}
		}
	})
}

// --user gives the number inside; caller keeps one's own.
func TestRootfsIdentity(t *testing.T) {
	each(t, rootedLevels, func(t *testing.T, a arm) {
		b := newBox(t, a)
		root := b.tree("root", busybox(t), mountPoints...)
		outside := fmt.Sprint(ordinary)
		if !asRoot {
			outside = fmt.Sprint(os.Getuid())
		}
		for _, c := range []struct{ user, inside string }{{"", "0"}, {"7:8", "7"}} {
			var flags []string
			if c.user != "" {
				flags = []string{"--user", c.user}
			}
			f := strings.Fields(b.script(root, flags, "id -u; cat /proc/self/uid_map; grep Groups: /proc/self/status"))
			if len(f) < 5 || f[0] != c.inside || f[1] != c.inside || f[3] != "1" || a.root && (!inRange(f[2]) || len(f) > 5) || !a.root && f[2] != outside {
				t.Errorf("--user %q: %q", c.user, f)
			}
		}
		own := "0"
		if !a.root {
			own = outside
		}
		if out := b.script(root, []string{"--user", "caller"}, "id -u; echo x >/proc/sys/kernel/domainname; true"); out != own+"\n" {
			t.Errorf("--user caller: %q", out)
		}
	})
}

// hostile are ways in which an image may have something else in a place than what is expected there. canary is the path
// of a folder of the host, or of a file in it.
var hostile = []struct {
	name string
	root bool // only root can make it
	make func(path, canary string) error
}{
	{"absolute link", false, func(path, canary string) error { return os.Symlink(canary, path) }},
	{"relative link", false, func(path, canary string) error { return os.Symlink(strings.Repeat("../", 40)+canary[1:], path) }},
	{"dangling link", false, func(path, canary string) error { return os.Symlink(canary+"/made", path) }},
	{"chain of links", false, func(path, canary string) error {
		return errors.Join(os.Symlink(canary, path+"-2"), os.Symlink(filepath.Base(path)+"-2", path))
	}},
	{"link to itself", false, func(path, _ string) error { return os.Symlink(filepath.Base(path), path) }},
	{"link to an fd", false, func(path, _ string) error { return os.Symlink("/proc/self/fd/8", path) }},
	{"link to a root", false, func(path, canary string) error { return os.Symlink("/proc/1/root"+canary, path) }},
	{"link to the top", false, func(path, _ string) error { return os.Symlink("/", path) }},
	{"FIFO", false, func(path, _ string) error { return unix.Mkfifo(path, 0o666) }},
	{"socket", false, func(path, _ string) error { return unix.Mknod(path, unix.S_IFSOCK|0o666, 0) }},
	{"device", true, func(path, _ string) error { return unix.Mknod(path, unix.S_IFCHR|0o666, int(unix.Mkdev(1, 8))) }},
	{"file", false, func(path, _ string) error { return os.WriteFile(path, []byte("a file\n"), 0o666) }},
	{"folder", false, func(path, _ string) error { return os.Mkdir(path, 0o777) }},
}

// hostilePlaces are the paths that something is done at while a jail is made, or that programs expect.
var hostilePlaces = []string{
	"/dev", "/dev/null", "/dev/console", "/dev/pts", "/dev/shm", "/dev/ptmx", "/proc", "/proc/keys", "/proc/sys", "/sys",
	"/sys/firmware", "/etc", "/etc/passwd", "/etc/group", "/etc/resolv.conf", "/tmp", "/var", "/var/tmp", "/run", "/work", "/bound", "/bound-file",
}

const canarySecret = "the canary sings"

// canary is a tree of the host that everybody may write to.
func (b *box) canary(name string) (dir string) {
	b.t.Helper()
	dir = filepath.Join(base, fmt.Sprintf("canary-%s-%d", name, boxes.Add(1)))
	for _, d := range []string{dir, dir + "/sub"} {
		if err := os.Mkdir(d, 0o777); err != nil {
			b.t.Fatal(err)
		}
	}
	if err := os.WriteFile(dir+"/secret", []byte(canarySecret), 0o666); err != nil {
		b.t.Fatal(err)
	}
	for path, mode := range map[string]os.FileMode{dir: 0o777, dir + "/sub": 0o777, dir + "/secret": 0o666} {
		if err := os.Chmod(path, mode); err != nil {
			b.t.Fatal(err)
		}
	}
	return dir
}

// attackScript tries to read and to write at every place.
func attackScript() string {
	return `for p in ` + strings.Join(hostilePlaces, " ") + `; do
	[ -p $p ] || [ -c $p ] || { cat $p $p/secret $p-2/secret; echo evil >>$p; }
	echo evil >>$p/secret; echo evil >$p/evil; mkdir $p/evil-dir
	done 2>/dev/null; echo done`
}

// P21: whatever an image has in the place of what a jail needs, the launch is refused with a word, or what it reaches is
// its own. CVE-2019-19921, CVE-2025-54867, CVE-2026-41579, CVE-2026-47766 and many more are one of these lines.
func TestP21_HostileRootfs(t *testing.T) {
	modes := [][]string{nil, {"--rootfs-overlay"}, {"rw"}}
	each(t, rootedLevels, func(t *testing.T, a arm) {
		b := newBox(t, a)
		bb := busybox(t)
		given := b.mkdir("given", 0o777)
		file := b.write("given-file", "given\n", 0o666)
		canary := b.canary(a.level)
		before := census(t, canary)
		ran, refused, n := 0, 0, 0
		turn := slices.Index(rootedLevels, a.level) // so that the four arms together try all
		if a.root {
			turn++
		}
		for _, place := range hostilePlaces {
			for i, h := range hostile {
				n++
				if h.root && !asRoot || !sweep && n%3 != turn {
					continue
				}
				name := fmt.Sprint("root", n)
				root := b.tree(name, bb, append(mountPoints, "work", "bound")...)
				b.write(name+"/bound-file", "", 0o644)
				path := root + place
				if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.RemoveAll(path); err != nil {
					t.Fatal(err)
				}
				target := canary
				if slices.Contains([]string{"/dev/null", "/dev/console", "/proc/keys", "/etc/passwd", "/etc/group", "/etc/resolv.conf", "/bound-file"}, place) {
					target = canary + "/secret"
				}
				if err := h.make(path, target); err != nil {
					t.Fatal(err)
				}
				flags := []string{"--bind", given + ":/bound", "--ro-bind", file + ":/bound-file", "--workdir", "/work"}
				mode := modes[(n+i)%len(modes)]
				spelled := root
				if len(mode) > 0 && mode[0] == "rw" {
					spelled += ":rw"
				} else {
					flags = append(flags, mode...)
				}
				o := b.rooted(spelled, flags, "/bin/sh", "-c", attackScript())
				what := fmt.Sprintf("%s as a %s, %q", place, h.name, mode)
				switch {
				case o.code == 0 && strings.HasSuffix(o.stdout, "done\n"):
					ran++
				case o.code == 125 && strings.HasPrefix(o.stderr, "jail: ") && len(o.stdout) == 0:
					refused++
				default:
					t.Errorf("%s: %+v", what, o)
				}
				if strings.Contains(o.stdout, canarySecret) {
					t.Errorf("%s: the host's file was read", what)
				}
				if now := census(t, canary); now != before {
					t.Fatalf("%s: the host's files were\n%s\nand are\n%s", what, before, now)
				}
				if err := os.RemoveAll(root); err != nil {
					t.Fatal(err)
				}
			}
		}
		if ran == 0 || refused == 0 {
			t.Errorf("%d ran and %d were refused: one side was not seen", ran, refused)
		}
		t.Logf("figure: %s: of %d hostile roots %d ran confined, %d were refused", a, ran+refused, ran, refused)
		// bare, the links do lead to the canary
		root := b.tree("bare", bb)
		if err := os.Symlink(canary, root+"/work"); err != nil {
			t.Fatal(err)
		}
		if o := b.bare("cat", root+"/work/secret"); o.stdout != canarySecret {
			t.Errorf("vacuous: %+v", o)
		}
	})
}

// What --rootfs names may itself be anything.
func TestRootfsThatIsNone(t *testing.T) {
	each(t, rootedLevels, func(t *testing.T, a arm) {
		b := newBox(t, a)
		for i, h := range hostile[2:] {
			if h.root && !asRoot || h.name == "folder" || strings.Contains(h.name, "link to") || h.name == "chain of links" {
				continue
			}
			path := filepath.Join(b.dir, fmt.Sprint("none", i))
			if err := h.make(path, filepath.Join(b.dir, "absent")); err != nil {
				t.Fatal(err)
			}
			if o := b.rooted(path, nil, "/bin/true"); o.code != 125 || !strings.Contains(o.stderr, path) {
				t.Errorf("%s: %+v", h.name, o)
			}
		}
		if o := b.rooted(filepath.Join(b.dir, "absent"), nil, "/bin/true"); o.code != 125 || !strings.Contains(o.stderr, "no such file") {
			t.Errorf("%+v", o)
		}
		root := b.tree("root", busybox(t), mountPoints...)
		cmd := b.as(jailPath, "run", "--level=user", "--rootfs", root, "--", "/bin/true")
		if o := b.finish(cmd); o.code != 125 || !strings.Contains(o.stderr, "namespaced") {
			t.Errorf("below namespaced: %+v", o)
		}
	})
}

// exchange swaps pairs of names for a moment, one after the other, until stop is set: what is there most of the time lets
// a launch begin.
func exchange(pairs [][2]string, stop *atomic.Bool, swaps *atomic.Int64) {
	for !stop.Load() {
		p := pairs[rand.IntN(len(pairs))]
		for range 2 {
			if unix.Renameat2(unix.AT_FDCWD, p[0], unix.AT_FDCWD, p[1], unix.RENAME_EXCHANGE) == nil {
				swaps.Add(1)
			}
			time.Sleep(time.Duration(rand.IntN(300)) * time.Microsecond)
		}
		time.Sleep(time.Duration(rand.IntN(1500)) * time.Microsecond)
	}
}

// CVE-2021-30465, P22: mount points that are exchanged for links while the jail is made. A launch is refused or has every
// mount in its place, and none lands on the host.
func TestCVE_2021_30465_SwappedMountPoints(t *testing.T) {
	t.Parallel()
	for _, root := range []bool{true, false} {
		for _, mode := range []string{"", ":rw"} {
			a := arm{"namespaced", root}
			t.Run(a.String()+mode, func(t *testing.T) {
				hasArm(t, a)
				b := newBox(t, a)
				tree := b.tree("root", busybox(t), append(mountPoints, "work", "way", "way/bound")...)
				given := b.mkdir("given", 0o777)
				b.write("given/shown", "shown\n", 0o666)
				b.write("given/secret", "the denied one\n", 0o666)
				canary := b.canary("race")
				if err := os.Mkdir(canary+"/bound", 0o777); err != nil {
					t.Fatal(err)
				}
				before := census(t, canary)
				mounts := hostMounts()
				var pairs [][2]string
				for _, name := range []string{"proc", "dev", "sys", "tmp", "run", "way", "work"} {
					link := tree + "/evil-" + name
					if err := os.Symlink(canary, link); err != nil {
						t.Fatal(err)
					}
					pairs = append(pairs, [2]string{tree + "/" + name, link})
				}
				// and one folder for another: what was mounted goes with the first
				b.mkdir("root/other", 0o777)
				b.mkdir("root/other/bound", 0o777)
				pairs = append(pairs, [2]string{tree + "/way", tree + "/other"})
				var stop atomic.Bool
				var swaps atomic.Int64
				swapped := make(chan struct{})
				go func() { exchange(pairs, &stop, &swaps); close(swapped) }()
				defer func() { stop.Store(true); <-swapped }()
				end := time.Now().Add(1500 * time.Millisecond)
				if sweep {
					end = time.Now().Add(time.Minute)
				}
				ran, refused, late := 0, 0, 0
				for time.Now().Before(end) || ran < 5 || late < 5 {
					if time.Now().After(end.Add(patience)) {
						t.Fatalf("%d ran, %d were refused, %d of them by jail-init: one side was not seen", ran, refused, late)
					}
					o := b.rooted(tree+mode, []string{"--bind", given + ":/way/bound", "--deny", "/way/bound/secret", "--workdir", "/"}, "/bin/sh", "-c",
						`cat /proc/self/mountinfo | while read a b c d point rest; do echo "at $point"; done
						for d in /work /tmp /way /other /evil-way; do cat $d/secret $d/bound/secret; echo evil >>$d/secret; echo evil >$d/evil; done 2>/dev/null; echo done`)
					switch {
					case o.code == 125 && strings.HasPrefix(o.stderr, "jail: "):
						refused++
						if !strings.Contains(o.stderr, "in the root") { // by jail-init: what was looked up has changed
							late++
						}
					case o.code == 127 || o.code == 126: // the shell's own folder is not exchanged
						t.Errorf("%+v", o)
					case o.code == 0:
						ran++
					default:
						t.Errorf("%+v", o)
					}
					if strings.Contains(o.stdout, canarySecret) || strings.Contains(o.stdout, "the denied one") {
						t.Fatalf("what is closed was read: %+v", o)
					}
					for _, line := range strings.Split(o.stdout, "\n") {
						point, ok := strings.CutPrefix(line, "at ")
						if ok && !slices.ContainsFunc([]string{"/", "/proc", "/dev", "/sys", "/tmp", "/var/tmp", "/run", "/way", "/other", "/evil-"}, func(known string) bool {
							return point == known || strings.HasPrefix(point, strings.TrimSuffix(known, "/")+"/") && known != "/" || strings.HasPrefix(point, "/evil-")
						}) {
							t.Errorf("a mount at %s", point)
						}
					}
					_ = os.Remove(tree + "/way/evil")
				}
				if now := census(t, canary); now != before {
					t.Errorf("the host's files were\n%s\nand are\n%s", before, now)
				}
				if now := hostMounts(); now != mounts {
					t.Errorf("the host's mounts were\n%s\nand are\n%s", mounts, now)
				}
				t.Logf("figure: %s%s: %d swaps, %d launches ran, %d were refused, %d of them by jail-init", a, mode, swaps.Load(), ran, refused, late)
			})
		}
	}
}

// A mount point that is taken away while the jail is made takes the mount with it: the launch is refused, however it
// is done. jail-init waits meanwhile for a file's content.
func TestMountPointTakenAway(t *testing.T) {
	each(t, rootedLevels, func(t *testing.T, a arm) {
		for _, c := range []struct {
			what string
			take func(root string) error
		}{
			{"moved", func(root string) error { return os.Rename(root+"/proc", root+"/moved") }},
			{"removed", func(root string) error { return os.Remove(root + "/proc") }},
			{"replaced", func(root string) error {
				return errors.Join(os.Rename(root+"/proc", root+"/moved"), os.Mkdir(root+"/proc", 0o755))
			}},
			{"exchanged for a link", func(root string) error {
				return errors.Join(os.Rename(root+"/work", root+"/moved"), os.Symlink("moved", root+"/work"))
			}},
			{"nothing", nil},
		} {
			b := newBox(t, a)
			root := b.tree("root", busybox(t), append(mountPoints, "work")...)
			given := b.mkdir("given", 0o755)
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			cmd := b.as(jailPath, "run", "--level="+a.level, "--env", b.cookie, "--rootfs", root, "--bind", given+":/work", "--file", "3:/tmp/file", "--", "/bin/cat", "/tmp/file")
			cmd.ExtraFiles = []*os.File{r}
			done := make(chan outcome)
			go func() { done <- b.finish(cmd) }()
			if _, err := w.WriteString("content"); err != nil {
				t.Fatal(err)
			}
			eventually(t, "jail-init reads", func() bool {
				n, err := unix.IoctlGetInt(int(w.Fd()), unix.TIOCINQ)
				return err == nil && n == 0
			})
			if c.take != nil {
				if err := c.take(root); err != nil {
					t.Fatal(err)
				}
			}
			w.Close()
			o := <-done
			r.Close()
			if c.take == nil && (o.code != 0 || o.stdout != "content") || c.take != nil && (o.code != 125 || !strings.Contains(o.stderr, "jail: check mount") && !strings.Contains(o.stderr, "jail: mask")) {
				t.Errorf("%s: %+v", c.what, o)
			}
		}
	})
}

// CVE-2024-21626: a working folder behind an fd of the set-up process.
func TestCVE_2024_21626_WorkdirBehindAnFD(t *testing.T) {
	each(t, rootedLevels, func(t *testing.T, a arm) {
		b := newBox(t, a)
		root := b.tree("root", busybox(t), mountPoints...)
		if err := os.Symlink("/proc/self/fd/5", root+"/link"); err != nil {
			t.Fatal(err)
		}
		dirs := []string{"/link", "/proc/self/cwd", "/proc/self/root", "/proc/1/cwd", "/proc/1/root", "/proc/thread-self/root"}
		for n := range 60 {
			dirs = append(dirs, fmt.Sprint("/proc/self/fd/", n))
		}
		for _, dir := range dirs {
			if o := b.rooted(root, []string{"--workdir", dir}, "/bin/pwd"); o.code != 125 || !strings.HasPrefix(o.stderr, "jail: ") || o.stdout != "" {
				t.Errorf("%s: %+v", dir, o)
			}
		}
		if o := b.rooted(root, []string{"--workdir", "/proc/self/task"}, "/bin/true"); o.code != 0 { // no magic link in it
			t.Errorf("%+v", o)
		}
	})
}

// CVE-2025-31133 and CVE-2025-52881: the image has a /dev/null and a /proc of its own. Masks are the real /dev/null, on
// the real /proc.
func TestCVE_2025_31133_CVE_2025_52881_Masks(t *testing.T) {
	each(t, []string{"contained"}, func(t *testing.T, a arm) {
		b := newBox(t, a)
		root := b.tree("root", busybox(t), append(mountPoints, "proc/sys", "sys/firmware")...)
		canary := b.canary("null")
		before := census(t, canary)
		for path, to := range map[string]string{"dev/null": canary + "/secret", "proc/keys": canary + "/secret", "proc/self": canary} {
			if err := os.Symlink(to, root+"/"+path); err != nil {
				t.Fatal(err)
			}
		}
		out := b.script(root, nil, `stat -c %t:%T /proc/keys /proc/timer_list /proc/interrupts /dev/null; stat -f -c %t /proc /sys /sys/firmware; ls -A /sys/firmware /proc/acpi 2>/dev/null; echo x >/proc/keys; true`)
		if want := "1:3\n1:3\n1:3\n1:3\n9fa0\n62656572\n1021994\n"; !strings.HasPrefix(out, want) {
			t.Errorf("got %q, want %q", out, want)
		}
		if now := census(t, canary); now != before {
			t.Errorf("the host's files were\n%s\nand are\n%s", before, now)
		}
	})
}

// CVE-2019-16884: something else than procfs in the place of /proc, asked for by the caller. Nothing is written there.
func TestCVE_2019_16884_CoveredProc(t *testing.T) {
	each(t, rootedLevels, func(t *testing.T, a arm) {
		b := newBox(t, a)
		root := b.tree("root", busybox(t), mountPoints...)
		fake := b.mkdir("fake", 0o777)
		b.mkdir("fake/self", 0o777)
		b.mkdir("fake/sys", 0o777)
		b.write("fake/keys", "keys\n", 0o666)
		before := census(t, fake)
		o := b.rooted(root, []string{"--bind", fake + ":/proc"}, "/bin/sh", "-c", "cat /proc/keys; true")
		want := "keys\n"
		if a.level == "contained" {
			want = "" // masked, whatever it is
		}
		if o.code != 0 || o.stdout != want {
			t.Errorf("got %+v", o)
		}
		if now := census(t, fake); now != before {
			t.Errorf("it was\n%s\nand is\n%s", before, now)
		}
	})
}

// CVE-2025-52565, CVE-2026-88264, P25: the image's /dev/console and /dev/pts lead elsewhere. There is no console, and the
// terminals are the jail's own.
func TestCVE_2025_52565_Console(t *testing.T) {
	each(t, rootedLevels, func(t *testing.T, a arm) {
		b := newBox(t, a)
		root := b.tree("root", busybox(t), append(mountPoints, "dev/pts")...)
		canary := b.canary("console")
		before := census(t, canary)
		for path, to := range map[string]string{"dev/console": canary + "/secret", "dev/pts/0": canary + "/secret", "dev/ptmx": canary + "/secret"} {
			if err := os.Symlink(to, root+"/"+path); err != nil {
				t.Fatal(err)
			}
		}
		out := b.script(root, nil, "ls /dev /dev/pts; stat -f -c %t /dev/pts; echo x >/dev/console; true")
		if strings.Contains(out, "console") || !strings.Contains(out, "1cd1\n") || strings.Contains(out, "\n0\n") {
			t.Errorf("got %s", out)
		}
		if now := census(t, canary); now != before {
			t.Errorf("the host's files were\n%s\nand are\n%s", before, now)
		}
	})
}

// --overlay: what is written to a folder is dropped.
func TestOverlay(t *testing.T) {
	each(t, rootedLevels, func(t *testing.T, a arm) {
		b := newBox(t, a)
		data := b.mkdir("data", 0o755)
		b.write("data/kept", "kept\n", 0o644)
		b.mkdir("data/folder", 0o755)
		before := census(t, data)
		out := b.sh([]string{"--overlay", data, "--overlay", data + ":/other"}, fmt.Sprintf(
			`cd %s && echo more >>kept && rm -r folder && mkdir new && cat kept && ls && cat /other/kept && stat -c %%d:%%i / /.. && grep -cE ' (%s|/other) .* - overlay ' /proc/self/mountinfo`, data, data))
		lines := strings.Split(strings.TrimSpace(out), "\n")
		if len(lines) != 8 || !slices.Equal(lines[:5], []string{"kept", "more", "kept", "new", "kept"}) || lines[5] != lines[6] || lines[7] != "2" {
			t.Errorf("got %q", lines)
		}
		if now := census(t, data); now != before {
			t.Errorf("it was\n%s\nand is\n%s", before, now)
		}
		if o := b.run([]string{"--overlay", data + "/kept"}, "true"); o.code != 125 || !strings.Contains(o.stderr, "is not a folder") {
			t.Errorf("%+v", o)
		}
		// A folder that holds a mount is not what an overlay would show.
		if o := b.run([]string{"--overlay", "/dev:/mnt/dev"}, "true"); o.code != 125 || !strings.Contains(o.stderr, `holds the mount "/dev/`) {
			t.Errorf("%+v", o)
		}
	})
}

// --device, P23: a device that was asked for is there, the others are not.
func TestP23_Device(t *testing.T) {
	each(t, rootedLevels, func(t *testing.T, a arm) {
		b := newBox(t, a)
		root := b.tree("root", busybox(t), mountPoints...)
		const script = "stat -c %t:%T $d && head -c 1 $d | wc -c && ls /dev"
		for _, where := range []string{"/dev/other", "/mnt/zero"} {
			flags := []string{"--device", "/dev/zero:" + where, "--env", "d=" + where}
			for name, out := range map[string]string{"rootfs": b.script(root, flags, script), "view": b.sh(flags, script)} {
				if !strings.HasPrefix(out, "1:5\n1\n") || strings.Contains(out, "fuse") {
					t.Errorf("%s, %s: %q", where, name, out)
				}
			}
		}
		if o := b.rooted(root, []string{"--device", "/etc/passwd:/dev/x"}, "/bin/true"); o.code != 125 || !strings.Contains(o.stderr, "is not a device") {
			t.Errorf("%+v", o)
		}
		if o := b.rooted(root, nil, "/bin/stat", "/dev/other"); o.code == 0 {
			t.Error("vacuous: it is always there")
		}
	})
}

// A root of a real system: its shell, Python, compiler, git and package manager run in it.
func TestDebianRootfs(t *testing.T) {
	if os.Getenv("JAIL_TEST_FULL") == "" {
		t.Skip("only in test-full: a Debian root, which is made with debootstrap and kept in bin/")
	}
	root, err := filepath.Abs("../../bin/debian-root")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(root + "/usr/bin/git"); err != nil {
		if !asRoot {
			t.Skip("host lacks: root (debootstrap needs it)")
		}
		debootstrap := need(t, "debootstrap")
		if err := os.RemoveAll(root); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(debootstrap, "--variant=minbase", "--include=python3-minimal,gcc,libc6-dev,git", "bookworm", root)
		if mirror := debianMirror(); mirror != "" {
			cmd.Args = append(cmd.Args, mirror)
		}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	each(t, rootedLevels, func(t *testing.T, a arm) {
		b := newBox(t, a)
		for _, flags := range [][]string{nil, {"--rootfs-overlay"}} {
			out := b.script(root, flags, `set -e; . /etc/os-release; echo $ID; python3 -c 'print(6*7)'
				cd /tmp; echo 'int main(void){return 3;}' >a.c; gcc a.c; ./a.out || echo $?
				git init -q r 2>&1; cd r; git -c user.name=n -c user.email=e commit -q --allow-empty -m m; git log --format=%s
				apt-get --simulate install dash >/dev/null && echo apt`)
			if out != "debian\n42\n3\nm\napt\n" {
				t.Errorf("%q: %q", flags, out)
			}
		}
	})
}

// debianMirror is the first one that apt uses here.
func debianMirror() string {
	out, err := exec.Command("apt-get", "indextargets", "--format", "$(REPO_URI)").Output()
	if err != nil {
		return ""
	}
	first, _, _ := strings.Cut(string(out), "\n")
	return first
}
