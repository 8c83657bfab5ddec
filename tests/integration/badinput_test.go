//go:build linux

package integration

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// What testscripts can't make: odd files and folders. One clear line each, and nothing is started.
func TestOddSources(t *testing.T) {
	each(t, []string{"namespaced"}, func(t *testing.T, a arm) {
		b := newBox(t, a)
		path := func(name string) string { return filepath.Join(b.dir, name) }
		if err := unix.Mkfifo(path("fifo"), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink("loop", path("loop")); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink("nowhere", path("dangling")); err != nil {
			t.Fatal(err)
		}
		b.write("file", "x", 0o644)
		for _, c := range []struct {
			flags []string
			code  int
		}{
			{[]string{"--ro-bind", path("loop")}, 125},
			{[]string{"--ro-bind", path("dangling")}, 125},
			{[]string{"--ro-bind", path("file/below")}, 125},
			{[]string{"--ro-bind", path("fifo") + ":/f"}, 0}, // is shown as it is: nobody opens it
			{[]string{"--workdir", path("file")}, 125},
			{[]string{"--workdir", path("missing")}, 125},
			{[]string{"--workdir", path("dangling")}, 125},
			{[]string{"--ro-bind", "/" + strings.Repeat("x/", 2100)}, 125},
			{[]string{"--ro-bind", "/" + strings.Repeat("y", 300)}, 125},
			{[]string{"--hostname", strings.Repeat("h", 65)}, 125},
			{[]string{"--tmpfs", path("file")}, 125},
			{[]string{"--ro-bind", path("file") + ":" + path("file") + "/below"}, 125},
		} {
			o := b.run(c.flags, "/usr/bin/echo", "started")
			if o.code != c.code || (o.stdout == "started\n") != (c.code == 0) || c.code != 0 && strings.Count(o.stderr, "jail: ") != 1 {
				t.Errorf("%.100q: %+v", c.flags, o)
			}
		}
	})
}

// A command line as long as the kernel takes is run; a longer one is an error.
func TestLongCommandLine(t *testing.T) {
	each(t, allLevels, func(t *testing.T, a arm) {
		b := newBox(t, a)
		argv := []string{"sh", "-c", "echo $#", "sh"}
		for range 3000 {
			argv = append(argv, strings.Repeat("a", 300))
		}
		if got := b.ok(nil, argv...); got != "3000\n" {
			t.Errorf("got %q", got)
		}
	})
}

// With little room for fds, files or processes there is an error, or a run: never a hang or half a jail.
func TestScarcity(t *testing.T) {
	each(t, allLevels, func(t *testing.T, a arm) {
		b := newBox(t, a)
		for _, limit := range []string{"--nofile=4", "--nofile=6", "--nofile=8", "--nofile=12", "--nofile=16", "--nofile=24", "--nofile=32", "--fsize=0", "--fsize=4096", "--fsize=100000", "--stack=65536"} {
			o := b.finish(b.as(append([]string{need(t, "prlimit"), limit, "--"}, b.command(nil, "echo", "started").Args...)...))
			if o.code == 0 && o.stdout != "started\n" || o.code != 0 && (o.stdout != "" || o.stderr == "") {
				t.Errorf("%s: %+v", limit, o)
			}
			if o.code != 0 && (o.code != 125 || strings.Count(o.stderr, "\n") != 1) {
				t.Errorf("%s: %+v", limit, o)
			}
			if strings.Contains(o.stderr, "panic") || strings.Contains(o.stderr, "goroutine") {
				t.Errorf("%s: %.300s", limit, o.stderr)
			}
		}
	})
}
