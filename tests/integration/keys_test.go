//go:build linux

package integration

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/jailrun/jail/policies"
)

// keyCase is a key of a policy with what it does to a payload. With it the policy comes to what is wanted, without it, or
// with what instead has in its place, to something else.
type keyCase struct {
	key     string // "permissions.env"; "permissions.files.read"
	level   string // "" is namespaced
	with    string // YAML, as permissions: {…}
	instead string
	script  string
	want    string // in what observe returns; or one of several
}

// files is a policy's permissions.files.
func files(rules ...string) string {
	return "permissions: {files: [" + strings.Join(rules, ", ") + "]}"
}

// syscalls is a policy's permissions.syscalls.
func syscalls(rules ...string) string {
	return "permissions: {syscalls: [" + strings.Join(rules, ", ") + "]}"
}

func keyCases(dir, netns, mntns string) []keyCase {
	const resultJSON = "\nmonitor: {json: true}"
	cases := []keyCase{
		{"permissions.env", "", "permissions: {env: [A=1]}", "", "echo $A", "stdout=1\n"},
		{"permissions.env-all", "", "permissions: {env-all: true}", "", "echo $FROM_CALLER", "stdout=x\n"},
		{"permissions.clearenv", "", "permissions: {clearenv: true}", "", "echo [$LANG]", "stdout=[]\n"},
		{"permissions.network", "", "permissions: {network: host}", "", "readlink /proc/self/ns/net", "stdout=" + netns},
		{"permissions.cap-add", "", "permissions: {cap-add: [KILL]}", "", "grep CapEff /proc/self/status", "0000000000000020"},
		{"permissions.cap-drop", "", "permissions: {cap-add: [KILL, CHOWN], cap-drop: [CHOWN]}", "permissions: {cap-add: [KILL, CHOWN]}", "grep CapEff /proc/self/status", "0000000000000020"},
		{"permissions.seccomp", "", "permissions: {seccomp: default}", "", "grep Seccomp_filters /proc/self/status", "\t2\n"},
		{"permissions.fd", "", "permissions: {fd: [7]}", "", "cat <&7", "stdout=seven"},
		{"permissions.stdin", "", "permissions: {stdin: ./seven}", "", "cat", "stdout=seven"},
		{"permissions.stdout", "", "permissions: {stdout: ./out}", "", "echo written", "file=written\n"},
		{"permissions.stderr", "", "permissions: {stderr: ./out}", "", "echo written >&2", "file=written\n"},

		{"permissions.seccomp-log", "", "permissions: {seccomp-log: true}", "", "", "instructions, logged"},
		{"permissions.syscalls", "", syscalls("{deny: unshare}"), "", "grep Seccomp_filters /proc/self/status", "\t2\n"},
		{"permissions.syscalls.allow", "", syscalls(`{deny: "@namespace"}`, "{allow: unshare}"), syscalls(`{deny: "@namespace"}`), "unshare --user echo ran", "stdout=ran\n"},
		{"permissions.syscalls.log", "", syscalls(`{deny: "@namespace"}`, "{log: unshare}"), syscalls(`{deny: "@namespace"}`), "unshare --user echo ran", "stdout=ran\n"},
		{"permissions.syscalls.deny", "", syscalls(`{deny: "@namespace"}`), "", "unshare --user echo ran || echo refused", "stdout=refused\n"},
		{"permissions.syscalls.kill-process", "", syscalls("{kill-process: [mkdir, mkdirat]}"), "", "mkdir /tmp/x; echo $?", "stdout=159\n"},
		{"permissions.syscalls.kill-thread", "", syscalls("{kill-thread: [mkdir, mkdirat]}"), "", "mkdir /tmp/x; echo $?", "stdout=159\n"},
		{"permissions.syscalls.trap", "", syscalls("{trap: [mkdir, mkdirat]}"), "", "mkdir /tmp/x; echo $?", "stdout=159\n"},
		{"permissions.syscalls.errno", "", syscalls("{deny: [mkdir, mkdirat], errno: ENOTTY}"), syscalls("{deny: [mkdir, mkdirat]}"), "mkdir /tmp/x", "Inappropriate ioctl"},
		{"permissions.syscalls.when", "", syscalls("{deny: setpriority, when: arg2 == 5}"), syscalls("{deny: setpriority}"), "nice -n 6 true 2>&1; echo end", "stdout=end\n"},

		{"borders.level", "", "borders: {level: user}", "", "readlink /proc/self/ns/mnt", "stdout=" + mntns},
		{"borders.user", "", "borders: {user: 4711:4712}", "", "id -u; id -g", "stdout=4711\n4712\n"},
		{"borders.workdir", "", "borders: {workdir: /usr}", "", "pwd", "stdout=/usr\n"},
		{"borders.hostname", "", "borders: {hostname: cell}", "", "cat /proc/sys/kernel/hostname", "stdout=cell\n"},
		{"borders.rootfs", "", "borders: {rootfs: ./root}", "", "ls /root-marker", "stdout=/root-marker"},
		{"borders.rootfs-overlay", "", "borders: {rootfs: ./root, rootfs-overlay: true}", "borders: {rootfs: ./root}", "echo x >/made && cat /made", "stdout=x\n"},
		{"borders.rlimit", "", "borders: {rlimit: {nofile: 64}}", "", "ulimit -n", "stdout=64\n"},
		{"borders.timeout", "", "borders: {timeout: 200ms}", "", "sleep 2", "code=124"},
		{"borders.kill-after", "", "borders: {timeout: 200ms, kill-after: 20s}", "borders: {timeout: 200ms}", "trap 'echo term; exit' TERM; sleep 3 & wait", "stdout=term\n"},
		{"borders.memory", "limited", "borders: {memory: 32M}", "", "dd if=/dev/zero of=/dev/null bs=128M count=1", "code=137"},
		{"borders.swap", "limited", "borders: {memory: 32M, swap: 8M}", "borders: {memory: 32M}", "", `limit_in_bytes" 41943040 or swap.max" 8388608`},
		{"borders.pids-limit", "limited", "borders: {pids-limit: 2}", "", "true & true & true & true & true & wait", "ork"},
		{"borders.cpus", "limited", "borders: {cpus: 0.5}", "", "", `quota_us" 50000 or cpu.max" 50000 or cpu.max" "50000`},
		{"borders.cpuset", "limited", "borders: {cpuset: 0}", "", "grep Cpus_allowed_list /proc/self/status", "\t0\n"},
		{"borders.cpu-time", "limited", "borders: {cpu-time: 200ms, timeout: 5s}" + resultJSON, "borders: {timeout: 500ms}" + resultJSON, "while :; do :; done", `"reason":"cpu-time"`},
		{"borders.cgroup-parent", "limited", "borders: {cgroup-parent: /no/such/parent}", "", "", "/no/such/parent"},
		{"borders.name", "limited", "borders: {name: test-key-" + filepath.Base(filepath.Dir(dir)) + "}", "", "", "jail-test-key-"},
		{"borders.output-limit", "", "borders: {output-limit: 4:truncate}", "", "echo 123456", "stdout=1234\nfile"},

		{"monitor.result", "", "monitor: {result: ./out}", "", "true", "file=exited 0"},
		{"monitor.json", "", "monitor: {json: true}", "", "true", `stderr={"`},
		{"monitor.denied", "", "monitor: {denied: true, json: true}", "monitor: {json: true}", "cat " + dir + "/text", `"denied":[{"call":"openat"`},
		{"monitor.notify", "", "monitor: {notify: [\"open:" + dir + "/text\"]}", "", "cat " + dir + "/text", "stdout=text"},
		{"monitor.verbose", "", "monitor: {verbose: true}", "", "true", "stderr=jail: exited 0"},

		{"permissions.ipc", "", "permissions: {ipc: [\"lock:a\"]}", "", "stat -L -c %F /proc/self/fd/$JAIL_IPC_FD", "stdout=socket\n"},

		{"permissions.files.read", "", files("read: " + dir), "", "cat " + dir + "/text", "stdout=text"},
		{"permissions.files.write", "", files("write: " + dir), files("exec: " + dir), "echo x >" + dir + "/made && cat " + dir + "/made", "stdout=x\n"},
		{"permissions.files.exec", "", files("exec: " + dir), files("read: " + dir), dir + "/tool", "stdout=ran\n"},
		{"permissions.files.deny", "", files("read: "+dir, "deny: "+dir+"/text"), files("read: " + dir), "cat " + dir + "/text || echo closed", "stdout=closed\n"},
		{"permissions.files.overlay", "", files("overlay: " + dir), files("exec: " + dir), "echo x >" + dir + "/copied && cat " + dir + "/copied", "stdout=x\n"},
		{"permissions.files.device", "", files("{device: /dev/zero, at: /dev/other}"), "", "head -c 3 /dev/other | wc -c", "stdout=3\n"},
		{"permissions.files.tmpfs", "", files("tmpfs: /t"), "", "echo x >/t/made && cat /t/made", "stdout=x\n"},
		{"permissions.files.dir", "", files("dir: /made"), "", "ls -d /made", "stdout=/made\n"},
		{"permissions.files.symlink", "", files("{symlink: /made, to: there}"), "", "readlink /made", "stdout=there\n"},
		{"permissions.files.to", "", files("{symlink: /made, to: there}"), files("{symlink: /made, to: elsewhere}"), "readlink /made", "stdout=there\n"},
		{"permissions.files.file", "", files("{file: /made, fd: 7}"), "", "cat /made", "stdout=seven"},
		{"permissions.files.fd", "", files("{file: /made, fd: 7}"), files("{file: /made, fd: 8}"), "cat /made", "stdout=seven"},
		{"permissions.files.at", "", files("{read: " + dir + ", at: /at}"), files("read: " + dir), "cat /at/text", "stdout=text"},
		{"permissions.files.size", "", files("{tmpfs: /t, size: 1M}"), files("tmpfs: /t"), "head -c 3000000 /dev/zero >/t/made || echo full", "stdout=full\n"},
		{"permissions.files.optional", "", files("{read: /no/such, optional: true}"), files("read: /no/such"), "echo ran", "stdout=ran\n"},
		{
			"permissions.files.if-absent", "", files("write: "+dir, "{deny: "+dir+"/never, if-absent: report}") + resultJSON, files("write: "+dir) + resultJSON,
			"mkdir -p " + dir + "/never", `"appeared":["` + dir + `/never"]`,
		},
	}
	if disk := disk(); disk != "" {
		cases = append(cases, keyCase{"borders.io", "limited", "borders: {io: [\"" + disk + ":rbps=1M\"]}", "", "", `read_bps_device" or io.max"`})
	}
	for i, c := range cases {
		if c.level == "" {
			cases[i].level = "namespaced"
		}
	}
	return cases
}

// disk is a disk of this machine, or "".
func disk() string {
	devices, _ := filepath.Glob("/dev/*")
	for _, d := range devices {
		if info, err := os.Stat(d); err == nil && info.Mode()&(os.ModeDevice|os.ModeCharDevice) == os.ModeDevice {
			return d
		}
	}
	return ""
}

// keyBox is a project to try keys in.
type keyBox struct {
	*box
	n int
}

// observe runs a script under a policy and returns all that is seen of it; without a script, what explain says.
func (b *keyBox) observe(level, policy, script string) string {
	b.t.Helper()
	b.n++
	for _, name := range []string{"out", "shown/never", "shown/made"} {
		_ = os.RemoveAll(filepath.Join(filepath.Dir(b.tmp), name))
		_ = os.RemoveAll(filepath.Join(b.dir, name))
	}
	b.write("base.yaml", "version: 1\nborders: {level: "+level+"}\n", 0o644)
	b.write("policy.yaml", "version: 1\nextends: ./base.yaml\n"+policy+"\n", 0o644)
	words := []string{"sh", "-c", `exec 7<seven 8<eight; exec "$@"`, "sh", jailPath, "run"}
	if script == "" {
		words = append(words[:5], "explain", "--plan")
	}
	o := b.finish(b.as(append(words, "--policy", "./policy.yaml", "--env", b.cookie, "--", "/bin/sh", "-c", script)...))
	out, _ := os.ReadFile(filepath.Join(b.dir, "out"))
	return fmt.Sprintf("code=%d\nstdout=%s\nfile=%s\nstderr=%s", o.code, o.stdout, out, o.stderr)
}

// TestPolicyKeys: what each key of a policy does to a real payload, and that it is the key that does it.
func TestPolicyKeys(t *testing.T) {
	each(t, []string{"namespaced", "limited"}, func(t *testing.T, a arm) {
		b := &keyBox{box: policyBox(t, a)}
		b.tree("root", busybox(t), mountPoints...)
		b.write("root/root-marker", "", 0o644)
		b.write("seven", "seven", 0o644)
		b.write("eight", "eight", 0o644)
		b.env = append(b.env, "FROM_CALLER=x")
		dir := b.mkdir(filepath.Join(filepath.Dir(b.tmp), "shown"), 0o755)
		b.write(filepath.Join(dir, "text"), "text", 0o644)
		b.write(filepath.Join(dir, "tool"), "#!/bin/sh\necho ran\n", 0o755)
		var links [2]string
		for i, ns := range []string{"net", "mnt"} {
			out, err := exec.Command("readlink", "/proc/self/ns/"+ns).Output()
			if err != nil {
				t.Fatal(err)
			}
			links[i] = string(out)
		}
		untried := map[string]bool{}
		for _, k := range policies.Keys() {
			// A host that lacks a level is not to be had: TestDowngrade; nor, with one line, a covered /proc: TestOuter.
			untried[k.Section+"."+k.Name] = k.Name != "files" && k.Name != "allow-downgrade" && k.Name != "proc" && (k.Name != "io" || disk() != "")
		}
		seen := func(got, want string) bool {
			return slices.ContainsFunc(strings.Split(want, " or "), func(w string) bool { return strings.Contains(got, w) })
		}
		for _, c := range keyCases(dir, links[0], links[1]) {
			delete(untried, c.key)
			if c.level != a.level {
				continue
			}
			if got := b.observe(c.level, c.with, c.script); !seen(got, c.want) {
				t.Errorf("%s: with it %q is not in\n%s", c.key, c.want, got)
			}
			if got := b.observe(c.level, c.instead, c.script); seen(got, c.want) {
				t.Errorf("%s: without it %q is in\n%s", c.key, c.want, got)
			}
		}
		for key, missing := range untried {
			if missing {
				t.Errorf("%s has no case", key)
			}
		}
	})
}
