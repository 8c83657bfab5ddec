//go:build linux

package integration

import (
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Real programs work at each level, as who they are run by.
func TestPrograms(t *testing.T) {
	each(t, allLevels, func(t *testing.T, a arm) {
		b := newBox(t, a)
		// What a level shows is readable; what it lets be written has to be asked for.
		var write []string
		out := b.mkdir("out", 0o755)
		if a.level != "basic" {
			write = []string{"--bind", out}
		}
		// At level user root's payload has no uid that owns the folder: its own TMPDIR is where it writes.
		dir := out
		if a.level == "user" && a.root {
			dir = "$TMPDIR"
		}

		t.Run("python3", func(t *testing.T) {
			b.write("untrusted.py", "import json, os, sqlite3, ssl, tempfile, subprocess\n"+
				"with tempfile.NamedTemporaryFile() as f: f.write(b'x')\n"+
				"print(json.dumps({'sum': sum(range(10)), 'sub': subprocess.check_output(['echo', 'hi']).decode().strip()}))\n", 0o600)
			if a.level == "user" && a.root { // no id maps: files closed to others stay closed
				if err := os.Chmod(filepath.Join(b.dir, "untrusted.py"), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if got := b.ok(nil, need(t, "python3"), "untrusted.py"); got != `{"sum": 45, "sub": "hi"}`+"\n" {
				t.Errorf("got %q", got)
			}
		})
		t.Run("gcc", func(t *testing.T) {
			need(t, "gcc")
			b.write("hello.c", "#include <stdio.h>\nint main(void) { return puts(\"compiled\") < 0; }\n", 0o644)
			if got := b.sh(write, "cd "+dir+" && gcc -O1 -o hello "+b.dir+"/hello.c && ./hello"); got != "compiled\n" {
				t.Errorf("got %q", got)
			}
		})
		t.Run("git", func(t *testing.T) {
			need(t, "git")
			got := b.sh(write, "cd "+dir+" && export HOME=$PWD GIT_CONFIG_NOSYSTEM=1 && git init -q repo && cd repo && echo text > file && git add file && "+
				"git -c user.name=n -c user.email=e@example.org commit -q -m first && git log --format=%s && git status --porcelain")
			if got != "first\n" {
				t.Errorf("got %q", got)
			}
		})
		t.Run("tar", func(t *testing.T) {
			b.mkdir("tree", 0o755)
			b.write("tree/a", "alpha", 0o644)
			got := b.sh(write, "cd "+dir+" && tar -C "+b.dir+" -czf tree.tgz tree && mkdir x && tar -C x -xzf tree.tgz && cat x/tree/a")
			if got != "alpha" {
				t.Errorf("got %q", got)
			}
		})
		t.Run("node", func(t *testing.T) {
			node := need(t, "node")
			got := b.ok(nil, node, "-e", "const w=require('worker_threads');require('child_process').execFile('echo',['sub'],(e,o)=>console.log(e||o.trim(), [1,2,3].map(x=>x*x).join()))")
			if got != "sub 1,4,9\n" {
				t.Errorf("got %q", got)
			}
		})
		t.Run("64 threads", func(t *testing.T) {
			if got := b.ok(nil, tool("procs"), "threads"); got != "threads 64\n" {
				t.Errorf("got %q", got)
			}
		})
		t.Run("200 children", func(t *testing.T) {
			if got := b.ok(nil, tool("procs"), "forks", "200"); got != "forks 200\n" {
				t.Errorf("got %q", got)
			}
		})
		t.Run("pipeline", func(t *testing.T) {
			if got := b.sh(nil, "seq 1 100000 | grep 7 | sort -rn | head -n 1 && yes | head -c 1000000 | wc -c"); got != "99997\n1000000\n" {
				t.Errorf("got %q", got)
			}
		})
	})
}

// A server on the host's loopback address: in reach where the network is the host's, out of it in one of its own.
func TestCurl(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("canary")) })}
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(func() { _ = server.Close() })
	url := "http://" + listener.Addr().String()
	each(t, allLevels, func(t *testing.T, a arm) {
		b := newBox(t, a)
		curl := []string{need(t, "curl"), "-sS", "--max-time", "10", url}
		if got := b.bare(curl...).stdout; got != "canary" { // else the jail's answer would mean nothing
			t.Fatalf("bare: %q", got)
		}
		o := b.run(nil, curl...)
		if a.like() != "namespaced" {
			if o.stdout != "canary" {
				t.Errorf("got %+v", o)
			}
			return
		}
		if o.code != 7 || o.stdout != "" { // curl's "could not connect"
			t.Errorf("with its own network: %+v", o)
		}
		if got := b.ok([]string{"--network", "host"}, curl...); got != "canary" {
			t.Errorf("with the host's network: %q", got)
		}
	})
}

// A virtualenv in the project goes on working, and one whose python the jail does not show is told about in one line.
func TestVirtualenv(t *testing.T) {
	each(t, userAndUp, func(t *testing.T, a arm) {
		python := need(t, "python3")
		b := newBox(t, a)
		if o := b.bare(python, "-m", "venv", "--without-pip", "venv"); o.code != 0 {
			t.Skip("host lacks: python3-venv")
		}
		b.write("venv/lib/marker.py", "x = 'from the venv'\n", 0o644)
		path := "PATH=" + filepath.Join(b.dir, "venv/bin") + ":/usr/bin:/bin"
		b.env = append(b.env, path)
		o := b.run([]string{"--env", "PYTHONPATH=" + filepath.Join(b.dir, "venv/lib")}, "python3", "-c", "import sys, marker; print(sys.prefix, marker.x)")
		if o.code != 0 || o.stdout != filepath.Join(b.dir, "venv")+" from the venv\n" {
			t.Errorf("a venv in the project: %+v", o)
		}
		if o.stderr != "" {
			t.Errorf("nothing is hidden, and yet: %s", o.stderr)
		}

		if a.like() != "namespaced" {
			return // names outside the view exist there: what is found is what runs, or fails
		}
		// A venv made by an interpreter below a folder that is not shown (pyenv, uv): its python is a link that dangles.
		hidden := filepath.Join(filepath.Dir(b.tmp), "pyenv")
		if a.root {
			hidden = filepath.Join(base, "pyenv-"+a.level)
		}
		b.mkdir(hidden, 0o755)
		b.mkdir(filepath.Join(hidden, "bin"), 0o755)
		real := filepath.Join(hidden, "bin/python3")
		b.write(real, "#!/bin/sh\necho the hidden one\n", 0o755)
		link := filepath.Join(b.dir, "venv/bin/python3")
		if err := os.Remove(link); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(real, link); err != nil {
			t.Fatal(err)
		}
		o = b.run(nil, "python3", "-c", "print('the system one')")
		if o.stdout != "the system one\n" {
			t.Errorf("got %+v", o)
		}
		lines := strings.Split(strings.TrimSpace(o.stderr), "\n")
		for _, want := range []string{link, "/usr/bin/python3", "--ro-bind " + hidden} {
			if len(lines) != 1 || !strings.Contains(lines[0], want) {
				t.Errorf("the note is to be one line with %q: %q", want, o.stderr)
			}
		}
		// And what it says helps.
		o = b.run([]string{"--ro-bind", hidden}, "python3", "-c", "")
		if o.stdout != "the hidden one\n" || o.stderr != "" {
			t.Errorf("with --ro-bind: %+v", o)
		}
	})
}
