//go:build linux

package integration

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// policyBox is a box with a home of its own, also for root.
func policyBox(t *testing.T, a arm) *box {
	t.Helper()
	b := newBox(t, a)
	if a.root {
		b.home = b.mkdir(b.dir+"-home", 0o700)
		for i, kv := range b.env {
			if strings.HasPrefix(kv, "HOME=") {
				b.env[i] = "HOME=" + b.home
			}
		}
	}
	return b
}

// at runs f as root and as an ordinary user, where the host gives the policy's level.
func at(t *testing.T, level string, f func(t *testing.T, b *box)) {
	t.Helper()
	each(t, []string{level}, func(t *testing.T, a arm) { f(t, policyBox(t, a)) })
}

// under is a run under a policy.
func (b *box) under(policy string, flags []string, argv ...string) outcome {
	b.t.Helper()
	words := append([]string{jailPath, "run", "--policy", policy, "--env", b.cookie}, flags...)
	return b.finish(b.as(append(append(words, "--"), argv...)...))
}

// fine is a script under a policy that has to succeed; it returns stdout.
func (b *box) fine(policy string, flags []string, script string) string {
	b.t.Helper()
	o := b.under(policy, flags, "sh", "-ec", script)
	if o.code != 0 {
		b.t.Fatalf("%s %q: %s\nexit code %d\nstdout: %s\nstderr: %s", policy, flags, script, o.code, o.stdout, o.stderr)
	}
	return o.stdout
}

// result is what a run under a policy says of itself.
type policyResult struct {
	Level     string   `json:"level"`
	Reason    string   `json:"reason"`
	LimitsHit []string `json:"limits_hit"`
	Appeared  []string `json:"appeared"`
}

func (b *box) resultUnder(policy string, flags []string, argv ...string) policyResult {
	b.t.Helper()
	o := b.under(policy, append(flags, "--json"), argv...)
	lines := strings.Split(strings.TrimSpace(o.stderr), "\n")
	var r policyResult
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &r); err != nil {
		b.t.Fatalf("%+v: %v", o, err)
	}
	return r
}

// listing is all names below the project, with what is in the files.
func (b *box) listing() string {
	b.t.Helper()
	return b.bare("sh", "-c", "find . -name .git -prune -o -print | sort; find . -type f -not -path './.git/*' -exec md5sum {} + | sort").stdout
}

const gitEnv = "export GIT_CONFIG_NOSYSTEM=1 GIT_AUTHOR_NAME=n GIT_AUTHOR_EMAIL=e@example.org GIT_COMMITTER_NAME=n GIT_COMMITTER_EMAIL=e@example.org; "

// repository makes the project a git repository with a commit, a secret and a hook.
func (b *box) repository() {
	b.t.Helper()
	need(b.t, "git")
	b.write("file", "one\n", 0o644)
	b.write(".env", "SECRET=canary\n", 0o644)
	if o := b.bare("sh", "-ec", gitEnv+"git init -q -b main . && echo .env >.git/info/exclude && git add file && git commit -q -m first && echo 'exit 0' >.git/hooks/pre-commit"); o.code != 0 {
		b.t.Fatalf("%+v", o)
	}
}

// Each level as a policy is that level.
func TestPolicyLevels(t *testing.T) {
	each(t, allLevels, func(t *testing.T, a arm) {
		if r := policyBox(t, a).resultUnder(a.level, nil, "true"); r.Level != a.level || r.Reason != "exited" {
			t.Errorf("%+v", r)
		}
	})
}

// Opening 9, of read-only .git folders that break commits: the agent commits and makes worktrees.
func TestPolicyAgentCommits(t *testing.T) {
	at(t, "namespaced", func(t *testing.T, b *box) {
		b.repository()
		got := b.fine("agent", nil, gitEnv+"echo two >>file; git commit -qam second; git worktree add -q tree -b side; cd tree; echo three >>file; git commit -qam third; git log --format=%s; cd ..; git merge -q side; git worktree remove tree; git status --porcelain")
		if got != "third\nsecond\nfirst\n" {
			t.Errorf("got %q", got)
		}
		if o := b.bare("sh", "-c", "git log --format=%s; git fsck"); !strings.HasPrefix(o.stdout, "third\nsecond\nfirst\n") || o.code != 0 {
			t.Errorf("outside: %+v", o)
		}

		// In a linked worktree, whose .git is a file that says where to go on.
		linked, main := b.dir+"-linked", b.dir
		if o := b.bare("git", "worktree", "add", "-q", linked, "side"); o.code != 0 {
			t.Fatalf("%+v", o)
		}
		b.dir = linked
		flags := []string{"--bind", main + "/.git", "--ro-bind", main + "/.git/hooks", "--ro-bind", main + "/.git/config"}
		if got := b.fine("agent", flags, gitEnv+"echo four >>file; git commit -qam fourth; git log -1 --format=%s"); got != "fourth\n" {
			t.Errorf("in a linked worktree: %q", got)
		}
		for _, try := range []string{"echo 'gitdir: evil' >.git", "rm .git", "mv .git x", "ln -sfn x .git", "echo evil >" + main + "/.git/hooks/pre-commit", "git config core.hooksPath evil"} {
			if o := b.under("agent", flags, "sh", "-c", try); o.code == 0 {
				t.Errorf("%s: %+v", try, o)
			}
		}
	})
}

// What the host would run or believe later the agent can't change, by whatever way; and nothing that it makes in its
// place goes by without a word.
func TestPolicyAgentProtects(t *testing.T) {
	at(t, "namespaced", func(t *testing.T, b *box) {
		b.repository()
		hook := filepath.Join(b.dir, ".git/hooks/pre-commit")
		before, err := os.ReadFile(filepath.Join(b.dir, ".git/config"))
		if err != nil {
			t.Fatal(err)
		}
		for _, try := range []string{
			"echo evil >.git/hooks/pre-commit", "echo evil >.git/hooks/post-commit", "rm .git/hooks/pre-commit", "chmod 777 .git/hooks/pre-commit",
			"git config core.hooksPath evil", "echo '[core] hooksPath = evil' >>.git/config", "mv .git away", "mv .git/hooks away", "mv .git/config away",
			"mkdir x && mv x .git/hooks", "ln -sf ../evil .git/hooks", "ln -sfnT x .git", "rm -rf .git/hooks/*", "python3 -c 'import os; os.rename(\".git\", \"g\")'",
			"ln .git/hooks/pre-commit x && echo evil >x", "mount --bind /tmp .git/hooks", "umount .git/hooks",
		} {
			if o := b.under("agent", nil, "sh", "-c", "mkdir -p evil && "+try); o.code == 0 {
				t.Errorf("%s: %+v", try, o)
			}
			text, err := os.ReadFile(hook)
			after, configErr := os.ReadFile(filepath.Join(b.dir, ".git/config"))
			if err != nil || string(text) != "exit 0\n" || configErr != nil || string(after) != string(before) {
				t.Fatalf("%s: the hook is %q, %v, the configuration %q, %v", try, text, err, after, configErr)
			}
			_ = os.Remove(filepath.Join(b.dir, "x"))
		}
		r := b.resultUnder("agent", nil, "sh", "-c", "echo ../evil >.git/commondir; mkdir .vscode; echo X=1 >.env.local; mkdir harmless")
		want := []string{filepath.Join(b.dir, ".git/commondir"), filepath.Join(b.dir, ".vscode"), filepath.Join(b.dir, ".env.local")}
		if !slices.Equal(r.Appeared, want) {
			t.Errorf("appeared: %q, want %q", r.Appeared, want)
		}
	})
}

// The agent in a folder that is no repository: one that it makes is told.
func TestPolicyAgentInit(t *testing.T) {
	at(t, "namespaced", func(t *testing.T, b *box) {
		need(t, "git")
		r := b.resultUnder("agent", nil, "git", "init", "-q")
		want := []string{filepath.Join(b.dir, ".git/hooks"), filepath.Join(b.dir, ".git/config")}
		if !slices.Equal(r.Appeared, want) {
			t.Errorf("appeared: %q, want %q", r.Appeared, want)
		}
	})
}

// attempts of a curious process to read secrets: a name and a program that prints canary where it succeeds.
func attempts(t *testing.T, b *box) map[string]string {
	t.Helper()
	programs := map[string]string{}
	read := func(path string) string { return fmt.Sprintf("print(open(%q).read())", path) }
	search := func(pattern, try string) string {
		return "import glob, os\nfor f in glob.glob(" + fmt.Sprintf("%q", pattern) + "):\n  try: " + try + "\n  except OSError: pass"
	}

	// In the project: .env, by whatever name.
	programs[".env"] = read(".env")
	programs[".env by its real path"] = "import os; print(open(os.path.realpath('.env')).read())"
	programs[".env through a link"] = "import os; n = 'l%d' % os.getpid(); os.symlink('.env', n); print(open(n).read())"
	programs[".env by another name"] = "import os; n = 'h%d' % os.getpid(); os.link('.env', n); print(open(n).read())"
	programs[".env through its folder"] = "import os; d = os.open('.', 0); print(os.read(os.open('.env', 0, dir_fd=d), 99).decode())"
	programs[".env through /proc"] = read("/proc/self/cwd/.env")

	// In the home.
	for _, name := range []string{
		".ssh/id_ed25519", ".config/token", ".aws/credentials", ".kube/config", ".docker/config.json", ".bash_history", ".zsh_history", ".python_history", ".netrc",
		".git-credentials", ".npmrc", ".pypirc", ".pgpass", ".my.cnf", ".vault-token", ".config/hosts.yml", ".gnupg/secring.gpg",
	} {
		path := filepath.Join(b.home, name)
		b.write(path, "canary", 0o600)
		programs["~/"+name] = read(path)
	}
	key := filepath.Join(b.home, ".ssh/id_ed25519")
	programs["~ through /proc/*/root"] = search("/proc/[0-9]*/root", fmt.Sprintf("print(open(f + %q).read())", key))
	up, err := filepath.Rel(b.dir, key)
	if err != nil {
		t.Fatal(err)
	}
	programs["~ through /proc/*/cwd"] = search("/proc/[0-9]*/cwd", fmt.Sprintf("print(open(f + '/' + %q).read())", up))
	if err := os.Symlink(key, filepath.Join(b.dir, "key")); err != nil {
		t.Fatal(err)
	}
	programs["~ through a link in the project"] = read("key")

	// Of others: files that their modes show to everybody.
	top := filepath.Dir(b.tmp)
	others := b.mkdir(filepath.Join(top, "other-home"), 0o755)
	programs["another user's file"] = read(b.write(filepath.Join(others, "notes"), "canary", 0o644))
	for _, dir := range []string{"/tmp", "/dev/shm"} {
		path := filepath.Join(dir, fmt.Sprintf("jail-test-%d-%s", os.Getpid(), filepath.Base(top)))
		if err := os.WriteFile(path, []byte("canary"), 0o644); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.Remove(path) })
		programs["a file in "+dir] = read(path)
	}

	// Of other processes. The words are in two parts, for the program itself is one of those it looks through.
	b.env = append(b.env, "LAUNCHER_SECRET=canary")
	found := func(word string) string {
		return "'" + word + "_' + 'SECRET' in open(f, errors='replace').read() and print('canary')"
	}
	programs["the launcher's environment"] = search("/proc/[0-9]*/environ", found("LAUNCHER"))
	other := exec.Command("sh", "-c", "read x", "COMMAND_SECRET")
	stdin, err := other.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stdin.Close(); _ = other.Wait() })
	programs["command lines"] = search("/proc/[0-9]*/cmdline", found("COMMAND"))
	programs["an open file of the launcher's"] = "import os; print(os.pread(9, 99, 0).decode())"
	programs["open files through /proc"] = search("/proc/[0-9]*/fd/9", "os.readlink(f) == "+fmt.Sprintf("%q", key)+" and print(os.pread(os.open(f, 0), 99, 0).decode())")
	programs["shared memory"] = fmt.Sprintf("import ctypes; c = ctypes.CDLL(None); c.shmat.restype = ctypes.c_void_p; p = c.shmat(%d, 0, 0o10000); "+
		"print(ctypes.string_at(p, 6).decode() if p and p != 2**64 - 1 else '')", sharedMemory(t))

	// Sockets of services.
	sockets := b.mkdir(filepath.Join(top, "sockets"), 0o777)
	abstract := fmt.Sprintf("jail-test-%d-%s", os.Getpid(), filepath.Base(top))
	for _, name := range []string{sockets + "/docker.sock", sockets + "/agent", "@" + abstract} {
		canarySocket(t, "unix", name)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	l.Close()
	canarySocket(t, "tcp", fmt.Sprintf("127.0.0.1:%d", port))
	b.env = append(b.env, "SSH_AUTH_SOCK="+sockets+"/agent", "DBUS_SESSION_BUS_ADDRESS="+abstract)
	programs["the socket of docker"] = connectTo("AF_UNIX", fmt.Sprintf("%q", sockets+"/docker.sock"))
	programs["the socket of ssh-agent"] = connectTo("AF_UNIX", "__import__('os').environ.get('SSH_AUTH_SOCK', '')")
	programs["the socket of ssh-agent by its path"] = connectTo("AF_UNIX", fmt.Sprintf("%q", sockets+"/agent"))
	programs["the socket of D-Bus"] = connectTo("AF_UNIX", fmt.Sprintf("'\\0%s'", abstract))
	programs["loopback"] = connectTo("AF_INET", fmt.Sprintf("('127.0.0.1', %d)", port))
	return programs
}

// sharedMemory is a segment of System V shared memory that everybody may read canary in.
func sharedMemory(t *testing.T) (id int) {
	t.Helper()
	id, err := unix.SysvShmGet(unix.IPC_PRIVATE, 4096, unix.IPC_CREAT|0o644)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = unix.SysvShmCtl(id, unix.IPC_RMID, nil) })
	memory, err := unix.SysvShmAttach(id, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	copy(memory, "canary")
	if err := unix.SysvShmDetach(memory); err != nil {
		t.Fatal(err)
	}
	return id
}

// nothingToTell are attempts that come to no call that is refused: what they look for is not there.
var nothingToTell = []string{
	"an open file of the launcher's", "open files through /proc", "command lines", "shared memory", "the socket of ssh-agent",
}

// Attempts of a curious process to read secrets and to reach others. Bare, each of them succeeds, or it would prove
// nothing; under the policy none does, and each is reported.
func TestPolicyAgentSecrets(t *testing.T) {
	at(t, "namespaced", func(t *testing.T, b *box) {
		b.repository()
		python := need(t, "python3")
		for _, dir := range []string{".ssh", ".config", ".aws", ".kube", ".docker", ".gnupg"} {
			b.mkdir(filepath.Join(b.home, dir), 0o700)
		}
		programs := attempts(t, b)
		if len(programs) < 30 {
			t.Errorf("%d attempts", len(programs))
		}
		// All of them with a secret open, as an fd that a careless launcher has left.
		curious := func(words ...string) outcome {
			return b.finish(b.as(append([]string{"sh", "-c", `exec 9<"$HOME/.ssh/id_ed25519"; exec "$@"`, "sh"}, words...)...))
		}
		for name, program := range programs {
			bare := curious(python, "-c", program)
			if !strings.Contains(bare.stdout, "canary") {
				t.Errorf("bare, %s: %+v", name, bare)
			}
			o := curious(jailPath, "run", "--policy", "agent", "--denied", "--json", "--env", b.cookie, "--", python, "-c", program)
			if strings.Contains(o.stdout, "canary") || o.code == 125 {
				t.Errorf("%s: %+v", name, o)
			}
			if told := strings.Contains(o.stderr, `"denied":[{`); told == slices.Contains(nothingToTell, name) {
				t.Errorf("%s: reported: %v; %s", name, told, o.stderr)
			}
		}
		if n := len(programs) - len(nothingToTell); n < 30 {
			t.Errorf("%d attempts are reported", n)
		}
		// What a process of this machine has no canary for: it has to fail, whatever it is.
		for _, program := range []string{
			"open('/etc/shadow').read()", "open('/proc/kcore', 'rb').read(1)", "open('/dev/mem', 'rb')", "open('/run/docker.sock')", "open('/var/run/docker.sock')",
			"import socket; socket.create_connection(('169.254.169.254', 80), 5)", "import socket; socket.getaddrinfo('example.org', 80)",
			"import os; os.kill(" + fmt.Sprint(os.Getpid()) + ", 0)", "import os; os.chroot('/proc/1/root')",
		} {
			if o := b.under("agent", nil, python, "-c", program); o.code == 0 || o.code == 125 {
				t.Errorf("%s: %+v", program, o)
			}
		}
	})
}

// Opening 2, of denied files in allowed folders that stay readable, and of protected ones that stay writable.
func TestOpening2DeniedInsideAllowed(t *testing.T) {
	at(t, "namespaced", func(t *testing.T, b *box) {
		b.mkdir("data", 0o755)
		b.mkdir("data/deep", 0o755)
		b.write("data/open", "text", 0o644)
		b.write("data/secret", "canary", 0o644)
		b.write("data/deep/a.key", "canary", 0o644)
		b.write("data/protected", "old", 0o644)
		if err := os.Symlink("secret", filepath.Join(b.dir, "data/link")); err != nil {
			t.Fatal(err)
		}
		b.write("policy.yaml", "version: 1\npermissions:\n  files:\n    - write: ./data\n    - deny: ./data/secret\n    - deny: ./data/**/*.key\n      if-absent: report\n    - read: ./data/protected\n", 0o644)
		o := b.under("./policy.yaml", nil, "sh", "-c", "cat data/open; cat data/secret data/link data/deep/a.key; ln -s secret data/l2; cat data/l2; mv data/secret data/s2; cat data/s2; "+
			"mv data/deep data/d2; cat data/d2/a.key; cp data/protected data/copy && echo new >data/protected; mv data/copy data/protected; rm -f data/protected; echo new >data/open; sh data/open")
		if strings.Contains(o.stdout+o.stderr, "canary") || !strings.Contains(o.stdout, "text") {
			t.Errorf("%+v", o)
		}
		for name, want := range map[string]string{"secret": "canary", "deep/a.key": "canary", "protected": "old", "open": "new\n"} {
			if got, err := os.ReadFile(filepath.Join(b.dir, "data", name)); err != nil || string(got) != want {
				t.Errorf("%s is %q, %v", name, got, err)
			}
		}
		if o := b.under("./policy.yaml", nil, "sh", "-c", "echo 'echo ran' >data/tool; chmod +x data/tool; data/tool"); o.code == 0 || strings.Contains(o.stdout, "ran") {
			t.Errorf("write is not exec: %+v", o)
		}
	})
}

// Opening 3, of mount points that stay in the work tree: nothing is made there, whatever is protected and absent.
func TestOpening3NothingIsMade(t *testing.T) {
	at(t, "namespaced", func(t *testing.T, b *box) {
		b.write("file", "x", 0o644)
		b.write("policy.yaml", "version: 1\nextends: agent\npermissions:\n  files:\n    - deny: [./never/was/here, ./.secret]\n      if-absent: report\n    - read: ./nor/this\n      if-absent: report\n"+
			"    - read: ~/.cache/none\n      optional: true\n", 0o644)
		before := b.listing()
		for _, policy := range []string{"agent", "ci-step", "build", "./policy.yaml"} {
			if r := b.resultUnder(policy, nil, "true"); r.Reason != "exited" || len(r.Appeared) != 0 {
				t.Errorf("%s: %+v", policy, r)
			}
			if after := b.listing(); after != before {
				t.Errorf("%s: %s\nbefore it:\n%s", policy, after, before)
			}
		}
		// One that can't be promised is an error, and nothing is made for it either.
		b.write("policy.yaml", "version: 1\nextends: agent\npermissions:\n  files:\n    - deny: ./never\n", 0o644)
		before = b.listing()
		if o := b.under("./policy.yaml", nil, "true"); o.code != 125 || !strings.Contains(o.stderr, `policy.yaml:5:13: deny "./never" does not exist`) || b.listing() != before {
			t.Errorf("%+v", o)
		}
	})
}

// Opening 4, of refusals that nobody hears of, or without the path: the Result has each, and people are told.
func TestOpening4RefusalsAreTold(t *testing.T) {
	at(t, "namespaced", func(t *testing.T, b *box) {
		b.mkdir("data", 0o755)
		for _, name := range []string{"data/secret", "data/protected", "data/tool"} {
			b.write(name, "#!/bin/sh\n", 0o755)
		}
		hidden := b.write(filepath.Join(b.home, "hidden"), "x", 0o644)
		const rules = "version: 1\npermissions:\n  files:\n    - write: ./data\n    - deny: ./data/secret\n    - read: ./data/protected\n    - read: ./data/tool\n"
		b.write("policy.yaml", rules+"monitor: {denied: true, json: true}\n", 0o644)
		script := "cat data/secret; cat " + hidden + "; echo x >>data/protected; data/tool; true"
		o := b.under("./policy.yaml", nil, "sh", "-c", script)
		for path, border := range map[string]string{
			b.dir + "/data/secret": "denied", hidden: "not in view", b.dir + "/data/protected": "read-only", b.dir + "/data/tool": "not executable",
		} {
			if want := fmt.Sprintf(`"path":%q,"errno":`, path); !strings.Contains(o.stderr, want) || !strings.Contains(o.stderr, `"why":"`+border+`"`) {
				t.Errorf("%s, %s: %+v", path, border, o)
			}
		}
		b.write("policy.yaml", rules+"monitor: {denied: true}\n", 0o644)
		if o := b.under("./policy.yaml", nil, "sh", "-c", script); !strings.Contains(o.stderr, b.dir+"/data/secret") || !strings.Contains(o.stderr, hidden) {
			t.Errorf("people are not told: %+v", o)
		}
	})
}

// Opening 5, of denied sockets that can be connected to all the same: where a level can't close one, it is an error.
func TestOpening5DeniedSocket(t *testing.T) {
	each(t, []string{"user", "namespaced"}, func(t *testing.T, a arm) {
		b := policyBox(t, a)
		python := need(t, "python3")
		dir := b.mkdir(filepath.Join(filepath.Dir(b.tmp), "shown"), 0o777)
		other := b.mkdir(filepath.Join(filepath.Dir(b.tmp), "hidden"), 0o777)
		for _, path := range []string{dir + "/open", dir + "/closed", dir + "/a.sock", other + "/docker.sock"} {
			canarySocket(t, "unix", path)
		}
		if err := os.Symlink("closed", dir+"/link"); err != nil {
			t.Fatal(err)
		}
		connects := func(flags []string, path string) bool {
			t.Helper()
			o := b.under("./policy.yaml", flags, python, "-c", connectTo("AF_UNIX", fmt.Sprintf("%q", path)))
			if o.code == 125 {
				t.Fatalf("%+v", o)
			}
			return strings.Contains(o.stdout, "canary")
		}
		show := "version: 1\nextends: " + a.level + "\npermissions:\n  files:\n    - write: " + dir + "\n"
		if a.level == "user" {
			for _, rule := range []string{"deny: " + other + "/docker.sock", "{deny: '" + other + "/*.sock', if-absent: report}"} {
				b.write("policy.yaml", "version: 1\nextends: user\npermissions:\n  files:\n    - "+rule+"\n", 0o644)
				want := "policy.yaml:5:"
				if o := b.under("./policy.yaml", nil, "true"); o.code != 125 || !strings.Contains(o.stderr, want) || !strings.Contains(o.stderr, "is a Unix socket") || !strings.Contains(o.stderr, "level namespaced can") {
					t.Errorf("%s: %+v", rule, o)
				}
			}
			return
		}
		b.write("policy.yaml", show+"    - deny: "+dir+"/closed\n    - deny: "+dir+"/*.sock\n      if-absent: report\n", 0o644)
		if !connects(nil, dir+"/open") {
			t.Error("one that is shown can't be reached")
		}
		for _, path := range []string{"/closed", "/link", "/a.sock", "/../shown/closed"} {
			if connects(nil, dir+path) {
				t.Errorf("%s can be reached", path)
			}
		}
		for _, path := range []string{other + "/docker.sock", "/proc/self/root" + dir + "/closed"} {
			if connects(nil, path) {
				t.Errorf("%s can be reached", path)
			}
		}
		o := b.under("./policy.yaml", nil, "sh", "-c", "mv "+dir+"/closed "+dir+"/x || ln "+dir+"/closed "+dir+"/x || rm "+dir+"/closed || echo held")
		if !strings.Contains(o.stdout, "held") {
			t.Errorf("%+v", o)
		}
	})
}

// canarySocket listens and says canary to whoever connects.
func canarySocket(t *testing.T, network, name string) {
	t.Helper()
	l, err := net.Listen(network, name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	if network == "unix" && name[0] == '/' {
		if err := os.Chmod(name, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = c.Write([]byte("canary"))
			c.Close()
		}
	}()
}

// connectTo is a program that prints what a socket says.
func connectTo(family, address string) string {
	return "import socket; s = socket.socket(socket." + family + "); s.settimeout(5); s.connect(" + address + "); print(s.recv(9).decode())"
}

// Opening 10, of refusals that nobody inside understands: what holds can be read there, and not changed.
func TestOpening10PolicyInside(t *testing.T) {
	each(t, []string{"namespaced", "limited", "contained"}, func(t *testing.T, a arm) {
		b, level := policyBox(t, a), a.level
		b.write("policy.yaml", "version: 1\nextends: "+level+"\npermissions:\n  env: [TOKEN=canary]\n  files:\n    - read: ./\n    - deny: ./secret\n", 0o644)
		b.write("secret", "x", 0o644)
		got := b.fine("./policy.yaml", []string{"--hostname", "cell"}, `cat "$JAIL_POLICY"; cat secret 2>/dev/null || true; `+
			`(echo x >"$JAIL_POLICY") 2>/dev/null && echo CHANGED; rm -f "$JAIL_POLICY" 2>/dev/null && echo CHANGED; mv "$JAIL_POLICY" /tmp 2>/dev/null && echo CHANGED; chmod 777 "$JAIL_POLICY" 2>/dev/null && echo CHANGED; true`)
		for _, want := range []string{"- deny: " + b.dir + "/secret\n", "    - TOKEN\n", "  hostname: cell\n", "  level: " + level + "\n", "# What this jail allows"} {
			if !strings.Contains(got, want) {
				t.Errorf("%q is not in\n%s", want, got)
			}
		}
		if strings.Contains(got, "canary") || strings.Contains(got, "CHANGED") {
			t.Errorf("%s", got)
		}
	})
}

// The same where the jail has no root of its own to put a file in: an fd, that nobody can change either.
func TestOpening10PolicyAsFD(t *testing.T) {
	try := `cat "$JAIL_POLICY"; (cat "$JAIL_POLICY" >/dev/null || echo GONE); (echo x >"$JAIL_POLICY") 2>/dev/null && echo CHANGED; ` +
		`(echo x >>"$JAIL_POLICY") 2>/dev/null && echo CHANGED; (echo x >&99) 2>/dev/null && echo CHANGED; chmod 666 "$JAIL_POLICY" 2>/dev/null || true; (echo x 1<>"$JAIL_POLICY") 2>/dev/null && echo CHANGED; cat "$JAIL_POLICY" | grep -c ^version; echo "at $JAIL_POLICY"`
	check := func(t *testing.T, b *box, flags []string, level string) {
		t.Helper()
		got := b.fine("./policy.yaml", flags, try)
		for _, want := range []string{"  level: " + level + "\n", "    - TOKEN\n", "\n1\nat /proc/self/fd/99\n", "# What this jail allows"} {
			if !strings.Contains(got, want) {
				t.Errorf("%q is not in\n%s", want, got)
			}
		}
		if strings.Contains(got, "canary") || strings.Contains(got, "CHANGED") || strings.Contains(got, "GONE") {
			t.Errorf("%s", got)
		}
	}
	each(t, allLevels, func(t *testing.T, a arm) {
		b := policyBox(t, a)
		b.write("policy.yaml", "version: 1\nextends: "+a.level+"\npermissions:\n  env: [TOKEN=canary]\n", 0o644)
		flags := []string{"--allow-downgrade"}
		if a.level == "basic" || a.level == "user" {
			flags = nil
		}
		check(t, b, flags, a.level)
		if flags == nil {
			return
		}
		b.tree("root", busybox(t), mountPoints...)
		check(t, b, []string{"--rootfs", "./root"}, a.level)
	})
}

// A submission is measured and held, and reads no more than its own folder.
func TestPolicyJudge(t *testing.T) {
	at(t, "contained", func(t *testing.T, b *box) {
		python := need(t, "python3")
		b.write("solution.py", "print(sum(int(x) for x in input().split()))\n", 0o644)
		cmd := b.as(jailPath, "run", "--policy", "judge", "--env", b.cookie, "--", python, "solution.py")
		cmd.Stdin = strings.NewReader("1 2 39\n")
		if o := b.finish(cmd); o.stdout != "42\n" || o.code != 0 {
			t.Errorf("%+v", o)
		}
		for _, c := range []struct {
			flags         []string
			program, want string
		}{
			{nil, "x = bytearray(1 << 30)", "memory"},
			{[]string{"--cpu-time", "200ms"}, "while True: pass", "cpu-time"},
			{[]string{"--timeout", "200ms"}, "import time; time.sleep(60)", "timeout"},
			{[]string{"--stdout", "/dev/null"}, "print('x' * (20 << 20))", "output"},
		} {
			if r := b.resultUnder("judge", c.flags, python, "-c", c.program); r.Reason != c.want {
				t.Errorf("%s: %+v, want %s", c.program, r, c.want)
			}
		}
		for _, program := range []string{
			"open('made', 'w')", "import os\nfor i in range(100): os.fork() or __import__('time').sleep(5)", "import socket; socket.socket(socket.AF_NETLINK)",
			"import socket; socket.create_connection(('127.0.0.1', 1))", "import os; print(os.environ['PWD_OF_CALLER'])", "import ctypes, os; assert ctypes.CDLL(None).unshare(0x10000000) == 0",
		} {
			if o := b.under("judge", nil, python, "-c", program); o.code == 0 {
				t.Errorf("%s: %+v", program, o)
			}
		}
	})
}

// A build writes to its folder; it finds the toolchains in the home, and changes nothing there.
func TestPolicyBuild(t *testing.T) {
	at(t, "namespaced", func(t *testing.T, b *box) {
		need(t, "gcc")
		need(t, "make")
		b.write("hello.c", "#include <stdio.h>\nint main(void) { return puts(\"compiled\") < 0; }\n", 0o644)
		b.write("Makefile", "hello: hello.c\n\tgcc -O1 -o $@ $<\ntest: hello\n\t./hello\n", 0o644)
		for _, dir := range []string{".cargo", ".cargo/bin", ".cargo/registry", "go", "go/pkg", "go/pkg/mod", ".ssh"} {
			b.mkdir(filepath.Join(b.home, dir), 0o755)
		}
		b.write(filepath.Join(b.home, ".cargo/bin/cargo"), "#!/bin/sh\necho cargo\n", 0o755)
		b.write(filepath.Join(b.home, ".cargo/credentials.toml"), "canary", 0o600)
		b.write(filepath.Join(b.home, "go/pkg/mod/x.go"), "package x", 0o644)
		if got := b.fine("build", nil, "make -s test; ~/.cargo/bin/cargo; cat ~/go/pkg/mod/x.go"); got != "compiled\ncargo\npackage x" {
			t.Errorf("got %q", got)
		}
		if o := b.bare("./hello"); o.stdout != "compiled\n" {
			t.Errorf("outside: %+v", o)
		}
		for _, script := range []string{
			"echo evil >~/.cargo/bin/cargo", "echo evil >~/go/pkg/mod/x.go", "touch ~/.cargo/registry/x", "cat ~/.cargo/credentials.toml", "ls ~/.ssh", "cd ~/.cargo/registry && cp /bin/true . && ./true",
		} {
			if o := b.under("build", nil, "sh", "-ec", script); o.code == 0 {
				t.Errorf("%s: %+v", script, o)
			}
		}
	})
}

// A CI step has the network and its checkout.
func TestPolicyCIStep(t *testing.T) {
	at(t, "namespaced", func(t *testing.T, b *box) {
		b.repository()
		curl := need(t, "curl")
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("served")) })}
		go func() { _ = server.Serve(l) }()
		t.Cleanup(func() { _ = server.Close() })
		fetch := curl + " -sS --max-time 10 http://" + l.Addr().String()
		if got := b.fine("ci-step", nil, fetch+"; echo; echo $CI; echo '#!/bin/sh\necho step' >run; chmod +x run; ./run"); got != "served\ntrue\nstep\n" {
			t.Errorf("got %q", got)
		}
		if o := b.under("ci-step", []string{"--network", "none"}, "sh", "-c", fetch); o.code != 7 {
			t.Errorf("without network: %+v", o)
		}
		for _, script := range []string{"echo evil >.git/hooks/post-checkout", "git config core.hooksPath x"} {
			if o := b.under("ci-step", nil, "sh", "-c", script); o.code == 0 {
				t.Errorf("%s: %+v", script, o)
			}
		}
	})
}

// A plugin talks over its streams and keeps nothing.
func TestPolicyPlugin(t *testing.T) {
	at(t, "namespaced", func(t *testing.T, b *box) {
		b.write("plugin", "#!/bin/sh\nread x; echo \"$((x * 2))\"; env | sort | cut -d= -f1 | tr '\\n' ' '\n", 0o755)
		b.env = append(b.env, "LAUNCHER_SECRET=canary")
		cmd := b.as(jailPath, "run", "--policy", "plugin", "--env", b.cookie, "--", "./plugin")
		cmd.Stdin = strings.NewReader("21\n")
		if o := b.finish(cmd); o.stdout != "42\nHOME JAIL_POLICY JAIL_TEST_COOKIE LANG PATH PWD TMPDIR " {
			t.Errorf("%+v", o)
		}
		for _, script := range []string{"echo x >made", "unshare -U true", "echo x >/usr/made"} {
			if o := b.under("plugin", nil, "sh", "-c", script); o.code == 0 {
				t.Errorf("%s: %+v", script, o)
			}
		}
		if got := b.fine("plugin", nil, "echo x >/tmp/private; cat /tmp/private"); got != "x\n" {
			t.Errorf("got %q", got)
		}
	})
}

// Python runs with the interpreters that people have, and changes none of them.
func TestPolicyPython(t *testing.T) {
	at(t, "namespaced", func(t *testing.T, b *box) {
		python := need(t, "python3")
		b.write("program.py", "import sys, json, sqlite3, ssl; print(sys.prefix, sum(range(10)))\n", 0o644)
		if got := b.fine("python", nil, "python3 program.py"); got != "/usr 45\n" {
			t.Errorf("the system's: %q", got)
		}

		venv := filepath.Join(b.home, "envs/one")
		if o := b.bare(python, "-m", "venv", "--without-pip", venv); o.code != 0 {
			t.Skip("host lacks: python3-venv")
		}
		version := strings.TrimSpace(b.bare("sh", "-c", "ls "+venv+"/lib").stdout)
		b.write(filepath.Join(venv, "lib", version, "site-packages/marker.py"), "x = 'from the venv'\n", 0o644)
		path := "PATH=" + venv + "/bin:/usr/bin:/bin"
		b.env = append(b.env, "VIRTUAL_ENV="+venv, path)
		if got := b.fine("python", nil, "python3 -c 'import sys, marker; print(sys.prefix, marker.x)'"); got != venv+" from the venv\n" {
			t.Errorf("a virtualenv: %q", got)
		}
		for _, script := range []string{"echo x >" + venv + "/bin/evil", "echo x >program.py", "python3 -c 'import socket; socket.create_connection((\"127.0.0.1\", 1))'"} {
			if o := b.under("python", nil, "sh", "-c", script); o.code == 0 {
				t.Errorf("%s: %+v", script, o)
			}
		}

		// As pyenv lays it out: a shim that looks for the version's own program.
		for _, dir := range []string{".pyenv", ".pyenv/shims", ".pyenv/versions", ".pyenv/versions/3.99", ".pyenv/versions/3.99/bin"} {
			b.mkdir(filepath.Join(b.home, dir), 0o755)
		}
		b.write(filepath.Join(b.home, ".pyenv/shims/python3"), "#!/bin/sh\necho shim; exec \"$HOME/.pyenv/versions/$PYENV_VERSION/bin/python3\" \"$@\"\n", 0o755)
		if err := os.Symlink(python, filepath.Join(b.home, ".pyenv/versions/3.99/bin/python3")); err != nil {
			t.Fatal(err)
		}
		b.env = append(b.env[:len(b.env)-2], "PYENV_VERSION=3.99", "PATH="+b.home+"/.pyenv/shims:/usr/bin:/bin")
		if got := b.fine("python", nil, "python3 -c 'print(6 * 7)'"); got != "shim\n42\n" {
			t.Errorf("pyenv: %q", got)
		}
	})
}

// Node runs as nvm has it, finds npm's cache, and leaves nothing in it.
func TestPolicyNode(t *testing.T) {
	at(t, "namespaced", func(t *testing.T, b *box) {
		node := need(t, "node")
		const program = "require('child_process').execFile(process.execPath, ['-e', 'console.log(6*7)'], (e, o) => console.log(e || process.execPath + ' ' + o.trim()))"
		b.write("program.js", program, 0o644)
		if got := b.fine("node", nil, node+" program.js"); !strings.HasSuffix(got, " 42\n") {
			t.Errorf("the system's: %q", got)
		}
		for _, dir := range []string{".nvm", ".nvm/versions", ".nvm/versions/node", ".nvm/versions/node/v1", ".nvm/versions/node/v1/bin", ".npm", ".npm/_cacache"} {
			b.mkdir(filepath.Join(b.home, dir), 0o755)
		}
		bin := filepath.Join(b.home, ".nvm/versions/node/v1/bin")
		text, err := os.ReadFile(node)
		if err != nil {
			t.Fatal(err)
		}
		b.write(filepath.Join(bin, "node"), string(text), 0o755)
		b.write(filepath.Join(b.home, ".npm/_cacache/entry"), "cached", 0o644)
		b.write(filepath.Join(b.home, ".npmrc"), "canary", 0o600)
		b.env = append(b.env, "PATH="+bin+":/usr/bin:/bin", "NVM_DIR="+filepath.Join(b.home, ".nvm"))
		if got := b.fine("node", nil, "node program.js; cat ~/.npm/_cacache/entry; echo more >~/.npm/_cacache/made; cat ~/.npm/_cacache/made"); got != bin+"/node 42\ncachedmore\n" {
			t.Errorf("nvm: %q", got)
		}
		if _, err := os.Lstat(filepath.Join(b.home, ".npm/_cacache/made")); err == nil {
			t.Error("something is left in the cache")
		}
		for _, script := range []string{"echo x >" + bin + "/node", "echo x >program.js", "cat ~/.npmrc"} {
			if o := b.under("node", nil, "sh", "-c", script); o.code == 0 {
				t.Errorf("%s: %+v", script, o)
			}
		}
	})
}

// A level is not weakened without a word: what Landlock can't do is an error in the policy.
func TestPolicyAtUser(t *testing.T) {
	at(t, "user", func(t *testing.T, b *box) {
		data := b.mkdir(filepath.Join(filepath.Dir(b.tmp), "data"), 0o755)
		b.mkdir(filepath.Join(data, "sub"), 0o755)
		b.write(filepath.Join(data, "tool"), "#!/bin/sh\necho ran\n", 0o755)
		b.write(filepath.Join(data, "sub/file"), "x", 0o644)
		policy := b.write("policy.yaml", "version: 1\nextends: user\npermissions:\n  files:\n    - read: "+data+"\n    - exec: "+data+"/sub\n", 0o644)
		o := b.under(policy, nil, "sh", "-c", "cat "+data+"/sub/file; "+data+"/tool")
		if o.stdout != "x" || !strings.Contains(o.stderr, "ermission denied") {
			t.Errorf("%+v", o)
		}
		for rule, want := range map[string]string{
			"deny: " + data + "/sub":    "which is shown, which this level can't enforce; level namespaced can",
			"deny: " + data + "/*.none": "is a pattern that could match in",
			"read: " + data + "/sub":    "where files can be executed",
		} {
			b.write("policy.yaml", "version: 1\nextends: user\npermissions:\n  files:\n    - exec: "+data+"\n    - "+rule+"\n", 0o644)
			if o := b.under(policy, nil, "true"); o.code != 125 || !strings.Contains(o.stderr, "policy.yaml:6:13: ") || !strings.Contains(o.stderr, want) {
				t.Errorf("%s: %+v", rule, o)
			}
		}
	})
}

// Two runs at once, and a policy that another user could have written.
func TestPolicyOfOthers(t *testing.T) {
	at(t, "namespaced", func(t *testing.T, b *box) {
		file := b.write("policy.yaml", "version: 1\n", 0o666)
		if o := b.under(file, nil, "true"); o.code != 125 || !strings.Contains(o.stderr, "everybody may write to it") {
			t.Errorf("%+v", o)
		}
		if !asRoot {
			return
		}
		if err := unix.Chmod(file, 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(file, 4711, 4711); err != nil {
			t.Fatal(err)
		}
		if o := b.under(file, nil, "true"); o.code != 125 || !strings.Contains(o.stderr, "belongs to uid 4711") {
			t.Errorf("%+v", o)
		}
	})
}

// In a root file system and in an overlay: what is made in the tree itself is told, what is dropped at the end is not.
func TestPolicyAppearedInRoots(t *testing.T) {
	at(t, "namespaced", func(t *testing.T, b *box) {
		b.tree("root", busybox(t), mountPoints...)
		data := b.mkdir("data", 0o755)
		const rules = "permissions:\n  files:\n    - deny: [/etc/made, /etc/never]\n      if-absent: report\n"
		b.write("tree.yaml", "version: 1\n"+rules+"borders: {rootfs: \"./root:rw\"}\n", 0o644)
		b.write("memory.yaml", "version: 1\n"+rules+"borders: {rootfs: ./root, rootfs-overlay: true}\n", 0o644)
		b.write("overlay.yaml", "version: 1\npermissions:\n  files:\n    - overlay: ./data\n    - deny: [./data/made, \"./data/*.key\"]\n      if-absent: report\n", 0o644)
		for _, c := range []struct {
			policy, make string
			want         []string
		}{
			{"./memory.yaml", "/etc/made", []string{}},
			{"./overlay.yaml", data + "/made", []string{}},
			{"./tree.yaml", "/etc/made", []string{"/etc/made"}},
		} {
			if r := b.resultUnder(c.policy, nil, "/bin/sh", "-c", "mkdir "+c.make); r.Reason != "exited" || !slices.Equal(r.Appeared, c.want) {
				t.Errorf("%s: %+v", c.policy, r)
			}
		}
	})
}

// A policy as a configuration holds in an OCI runtime as well, and a runtime's own configuration in a jail.
func TestPolicyConvert(t *testing.T) {
	each(t, []string{"namespaced"}, func(t *testing.T, a arm) {
		b := policyBox(t, a)
		b.tree("root", busybox(t), mountPoints...)
		config := `{"ociVersion": "1.0.2", "process": {"user": {"uid": 0, "gid": 0}, "args": ["sh"], "cwd": "/tmp", "env": ["PATH=/bin", "X=1"]}, "root": {"path": "root", "readonly": true},
			"hostname": "cell", "mounts": [{"destination": "/data", "type": "bind", "source": "shown", "options": ["rbind", "ro", "noexec"]}],
			"linux": {"namespaces": [{"type": "mount"}, {"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"}]}}`
		b.write("config.json", config, 0o644)
		b.mkdir("shown", 0o755)
		b.write("shown/file", "text", 0o755)
		o := b.finish(b.as(jailPath, "policy", "convert", "config.json"))
		if o.code != 1 {
			t.Fatalf("%+v", o)
		}
		policy := b.write("converted.yaml", o.stdout, 0o644)
		got := b.fine(policy, nil, "id -u; hostname; pwd; cat /data/file; echo $X; /data/file 2>/dev/null || echo no; touch /data/x /bin/x 2>/dev/null || echo read-only")
		if got != "0\ncell\n/tmp\ntext1\nno\nread-only\n" {
			t.Errorf("got %q", got)
		}
		if !a.root {
			return
		}
		runc := need(t, "runc")
		bundle := b.mkdir("bundle", 0o755)
		b.mkdir("bundle/rootfs", 0o755)
		b.write(".env", "canary", 0o644)
		b.write("plain", "text\n", 0o644)
		o = b.finish(b.as(jailPath, "policy", "convert", "agent"))
		var spec map[string]any
		if err := json.Unmarshal([]byte(o.stdout), &spec); err != nil || o.code != 1 {
			t.Fatalf("%v: %+v", err, o)
		}
		process := spec["process"].(map[string]any)
		process["args"] = []string{"sh", "-c", "cat plain; cat .env; cat " + b.home + "/secret; touch /usr/x; echo done"}
		process["user"] = map[string]int{"uid": 0, "gid": 0}
		process["env"] = append(process["env"].([]any), b.cookie)
		text, err := json.Marshal(spec)
		if err != nil {
			t.Fatal(err)
		}
		b.write("bundle/config.json", string(text), 0o644)
		b.write(filepath.Join(b.home, "secret"), "canary", 0o644)
		o = b.finish(b.as(runc, "--root", b.dir+"/state", "run", "--bundle", bundle, filepath.Base(b.dir)))
		if !strings.HasPrefix(o.stdout, "text\n") || !strings.HasSuffix(o.stdout, "done\n") || strings.Contains(o.stdout, "canary") {
			t.Errorf("%+v", o)
		}
	})
}
