//go:build linux

package integration

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// environment is what a payload has, sorted, with a private TMPDIR's name made known.
func (b *box) environment(flags ...string) []string {
	b.t.Helper()
	cmd := b.as(append(append([]string{jailPath, "run", "--level=" + b.arm.level}, flags...), "--", "/usr/bin/cat", "/proc/self/environ")...)
	o := b.finish(cmd)
	if o.code != 0 {
		b.t.Fatalf("%+v", o)
	}
	env := strings.Split(strings.TrimSuffix(o.stdout, "\x00"), "\x00")
	if o.stdout == "" {
		env = nil
	}
	for i, kv := range env {
		if dir, ok := strings.CutPrefix(kv, "TMPDIR="); ok && jailTmp.MatchString(filepath.Base(dir)) {
			env[i] = "TMPDIR=" + filepath.Dir(dir) + "/private"
		}
	}
	slices.Sort(env)
	return env
}

// P66: the environment is what was asked for, to the last variable.
func TestP66_Environment(t *testing.T) {
	each(t, allLevels, func(t *testing.T, a arm) {
		b := newBox(t, a)
		secret := []string{
			"AWS_SECRET_ACCESS_KEY=secret", "SSH_AUTH_SOCK=/x", "LD_PRELOAD=", "GODEBUG=", "X=", "LC_=odd", "NOTLC_X=1", "PATHX=1", "=weird=1", "novalue",
			"BASH_FUNC_f%%=() { echo f; }",
		}
		given := []string{"PATH=/usr/bin:/bin", "HOME=" + b.home, "USER=u", "LOGNAME=l", "LANG=C.UTF-8", "LC_ALL=C", "LC_TIME=C", "TERM=xterm", "TZ=UTC"}
		proxies := []string{"https_proxy=http://proxy", "NO_PROXY=localhost", "SSL_CERT_FILE=/etc/ca.pem"}
		b.env = append(append(append(slices.Clone(given), secret...), proxies...), "TMPDIR="+b.tmp)
		tmp := map[string][]string{"user": {"TMPDIR=" + b.tmp + "/private"}, "namespaced": {"TMPDIR=/tmp"}}[a.like()]
		expect := func(got []string, want ...[]string) {
			t.Helper()
			all := slices.Concat(want...)
			slices.Sort(all)
			if !slices.Equal(got, all) {
				t.Errorf("got %q\nwant %q", got, all)
			}
		}
		// LC_ itself is no name of a category, but it begins as one
		defaults := append(slices.Clone(given), "LC_=odd")
		if a.like() == "namespaced" {
			expect(b.environment(), defaults, tmp)
		} else { // the network is the host's without a word
			expect(b.environment(), defaults, proxies, tmp)
		}
		expect(b.environment("--network", "host"), defaults, proxies, tmp)
		expect(b.environment("--clearenv"), tmp)
		expect(b.environment("--clearenv", "--env", "A=1", "--env", "USER", "--env", "A=2", "--env", "NOT_THERE", "--env", "E="), []string{"A=2", "USER=u", "E="}, tmp)
		expect(b.environment("--clearenv", "--env", "TMPDIR=/mine"), []string{"TMPDIR=/mine"})
		expect(b.environment("--clearenv", "--env", "S=a b=c\n$x"), []string{"S=a b=c\n$x"}, tmp)
		all := b.environment("--env-all")
		for _, kv := range append(slices.Clone(given), "AWS_SECRET_ACCESS_KEY=secret", "SSH_AUTH_SOCK=/x", "BASH_FUNC_f%%=() { echo f; }") {
			if !slices.Contains(all, kv) {
				t.Errorf("--env-all lacks %q: %q", kv, all)
			}
		}
		if n := len(slices.DeleteFunc(slices.Clone(all), func(kv string) bool { return !strings.HasPrefix(kv, "TMPDIR=") })); n != 1 {
			t.Errorf("--env-all: %d TMPDIRs: %q", n, all)
		}
	})
}

// Nothing in the jail reads an environment that is not its own.
func TestP66_OtherEnvironments(t *testing.T) {
	each(t, userAndUp, func(t *testing.T, a arm) {
		b := newBox(t, a)
		b.env = append(b.env, "LAUNCHER_SECRET=canary")
		script := `for f in /proc/[0-9]*/environ; do tr '\0' '\n' < $f; done 2>/dev/null | grep -c canary; echo asked`
		bare := b.finish(b.as("sh", "-c", script))
		if strings.HasPrefix(bare.stdout, "0\n") {
			t.Fatalf("the bare arm finds nothing either: %+v", bare)
		}
		if o := b.run(nil, "sh", "-c", script); o.stdout != "0\nasked\n" {
			t.Errorf("%+v", o)
		}
	})
}

// PATH is the payload's: what it finds is what the jail has.
func TestPathIsThePayloads(t *testing.T) {
	each(t, allLevels, func(t *testing.T, a arm) {
		b := newBox(t, a)
		b.mkdir("bin", 0o755)
		b.write("bin/greet", "#!/bin/sh\necho hello\n", 0o755)
		if o := b.run(nil, "greet"); o.code != 127 {
			t.Errorf("%+v", o)
		}
		if got := b.ok([]string{"--env", "PATH=" + filepath.Join(b.dir, "bin") + ":/usr/bin:/bin"}, "greet"); got != "hello\n" {
			t.Errorf("got %q", got)
		}
		if err := os.Chmod(filepath.Join(b.dir, "bin/greet"), 0o644); err != nil {
			t.Fatal(err)
		}
		if o := b.run([]string{"--env", "PATH=" + filepath.Join(b.dir, "bin") + ":/usr/bin:/bin"}, "greet"); o.code != 126 {
			t.Errorf("not executable: %+v", o)
		}
	})
}
