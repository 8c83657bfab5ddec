package main

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/jailrun/jail/isolate"
	"github.com/jailrun/jail/policies"
	"github.com/jailrun/jail/seccomp"
)

// keyCases has each key with a value, the flags that say the same, and flags that take its place.
var keyCases = []struct {
	key, yaml string
	same      []string
	other     []string // beside the policy
	alone     []string // what the two come to; nil is other
}{
	{"env", "env: [A=1, B]", []string{"--env", "A=1", "--env", "B"}, []string{"--env", "A=2"}, []string{"--env", "A=1", "--env", "B", "--env", "A=2"}},
	{"env-all", "env-all: true", []string{"--env-all"}, []string{"--env-all=false"}, nil},
	{"clearenv", "clearenv: true", []string{"--clearenv"}, []string{"--clearenv=false"}, nil},
	{"network", "network: host", []string{"--network", "host"}, []string{"--network", "none"}, nil},
	{"proc", "proc: outer", []string{"--proc", "outer"}, []string{"--proc", "own"}, nil},
	{"cap-add", "cap-add: [KILL]", []string{"--cap-add", "KILL"}, []string{"--cap-drop", "KILL"}, []string{"--cap-add", "KILL", "--cap-drop", "KILL"}},
	{"cap-drop", "cap-drop: [KILL]", []string{"--cap-drop", "KILL"}, []string{"--cap-add", "KILL"}, nil},
	{"seccomp", "seccomp: default", []string{"--seccomp", "default"}, []string{"--seccomp", "baseline"}, nil},
	{"syscalls", "syscalls: [{deny: ptrace}]", []string{"--syscalls", "deny=ptrace"}, []string{"--syscalls", "deny:ENOSYS=ptrace"}, []string{"--syscalls", "deny=ptrace", "--syscalls", "deny:ENOSYS=ptrace"}},
	{"seccomp-log", "seccomp-log: true", []string{"--seccomp-log"}, []string{"--seccomp-log=false"}, nil},
	{"fd", "fd: [$FD]", []string{"--fd", "$FD"}, []string{"--fd", "$OTHER:$FD"}, nil},
	{"stdin", "stdin: ./x", []string{"--stdin", "$DIR/x"}, []string{"--stdin", "/y"}, nil},
	{"stdout", "stdout: ./x", []string{"--stdout", "$DIR/x"}, []string{"--stdout", "/y"}, nil},
	{"stderr", "stderr: ./x", []string{"--stderr", "$DIR/x"}, []string{"--stderr", "/y"}, nil},
	{"level", "level: user", []string{"--level", "user"}, []string{"--level", "limited"}, nil},
	{"user", "user: 7:8", []string{"--user", "7:8"}, []string{"--user", "9"}, nil},
	{"workdir", "workdir: ./x", []string{"--workdir", "$DIR/x"}, []string{"--workdir", "/y"}, nil},
	{"hostname", "hostname: a", []string{"--hostname", "a"}, []string{"--hostname", "b"}, nil},
	{"rootfs", "rootfs: ./x:rw", []string{"--rootfs", "$DIR/x:rw"}, []string{"--rootfs", "/y"}, nil},
	{"rootfs-overlay", "rootfs-overlay: true", []string{"--rootfs-overlay"}, []string{"--rootfs-overlay=false"}, nil},
	{"rlimit", "rlimit: {nofile: 64}", []string{"--rlimit", "nofile=64"}, []string{"--rlimit", "nofile=65"}, nil},
	{"timeout", "timeout: 1s", []string{"--timeout", "1s"}, []string{"--timeout", "2s"}, nil},
	{"kill-after", "kill-after: 1s", []string{"--kill-after", "1s"}, []string{"--kill-after", "2s"}, nil},
	{"memory", "memory: 1G", []string{"--memory", "1G"}, []string{"--memory", "2G"}, nil},
	{"swap", "swap: 1G", []string{"--swap", "1G"}, []string{"--swap", "2G"}, nil},
	{"pids-limit", "pids-limit: 10", []string{"--pids-limit", "10"}, []string{"--pids-limit", "20"}, nil},
	{"cpus", "cpus: 0.5", []string{"--cpus", "0.5"}, []string{"--cpus", "2"}, nil},
	{"cpuset", "cpuset: 0-1", []string{"--cpuset", "0-1"}, []string{"--cpuset", "1"}, nil},
	{"io", "io: [\"$DISK:rbps=1M\"]", []string{"--io", "$DISK:rbps=1M"}, []string{"--io", "$DISK:rbps=2M"}, nil},
	{"cpu-time", "cpu-time: 1s", []string{"--cpu-time", "1s"}, []string{"--cpu-time", "2s"}, nil},
	{"cgroup-parent", "cgroup-parent: /a", []string{"--cgroup-parent", "/a"}, []string{"--cgroup-parent", "/b"}, nil},
	{"name", "name: a", []string{"--name", "a"}, []string{"--name", "b"}, nil},
	{"output-limit", "output-limit: 1M:truncate", []string{"--output-limit", "1M:truncate"}, []string{"--output-limit", "2M"}, nil},
	{"allow-downgrade", "allow-downgrade: true", []string{"--allow-downgrade"}, []string{"--allow-downgrade=false"}, nil},
	{"result", "result: ./x", []string{"--result", "$DIR/x"}, []string{"--result", "-"}, nil},
	{"json", "json: true", []string{"--json"}, []string{"--json=false"}, nil},
	{"denied", "denied: true", []string{"--denied"}, []string{"--monitor=false"}, nil},
	{"notify", "notify: [open:/etc/passwd]", []string{"--notify", "open:/etc/passwd"}, []string{"--notify", "connect:[::1]:7"}, []string{"--notify", "open:/etc/passwd", "--notify", "connect:[::1]:7"}},
	{"ipc", "ipc: [lock:a]", []string{"--ipc", "lock:a"}, []string{"--ipc", "log"}, []string{"--ipc", "lock:a", "--ipc", "log"}},
	{"verbose", "verbose: true", []string{"--verbose"}, []string{"--verbose=false"}, nil},
}

// given is options without what tells where they came from.
func given(t *testing.T, args ...string) options {
	t.Helper()
	o, err := readOptions(runFlags, append(args, "true"))
	if err != nil {
		t.Fatalf("%q: %v", args, o.blame(err))
	}
	got := *o
	got.policy, got.asked, got.layer, got.given, got.environment = nil, nil, "", nil, nil
	for _, list := range []*[]string{&got.capAdd, &got.capDrop} {
		if len(*list) == 0 {
			*list = nil
		}
	}
	return got
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

// TestKeysAreFlags: a key comes to what its flag says, and a flag takes its place.
func TestKeysAreFlags(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	fd, err := syscall.Dup(0) // not closed at an exec, as if it were the caller's
	if err != nil {
		t.Fatal(err)
	}
	other, err := syscall.Dup(0)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(fd)
	defer syscall.Close(other)
	fill := strings.NewReplacer("$DIR", dir, "$FD", fmt.Sprint(fd), "$OTHER", fmt.Sprint(other), "$DISK", disk())
	filled := func(args []string) []string {
		var list []string
		for _, a := range args {
			list = append(list, fill.Replace(a))
		}
		return list
	}
	missing := map[string]bool{}
	sections := map[string]string{}
	for _, k := range policies.Keys() {
		if !strings.Contains(k.Section, ".") && k.Name != "files" {
			missing[k.Name], sections[k.Name] = true, k.Section
		}
	}
	for _, c := range keyCases {
		delete(missing, c.key)
		if c.key == "io" && disk() == "" {
			continue // this machine has none to name
		}
		policy := filepath.Join(dir, "policy.yaml")
		text := "version: 1\n" + sections[c.key] + ":\n  " + fill.Replace(c.yaml) + "\n"
		if err := os.WriteFile(policy, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if got, want := given(t, "--policy", policy), given(t, filled(c.same)...); !reflect.DeepEqual(got, want) {
			t.Errorf("%s:\n%+v, want\n%+v", c.yaml, got, want)
		}
		if reflect.DeepEqual(given(t, filled(c.same)...), given(t)) {
			t.Errorf("%s says nothing", c.yaml)
		}
		alone := c.alone
		if alone == nil {
			alone = c.other
		}
		if got, want := given(t, append([]string{"--policy", policy}, filled(c.other)...)...), given(t, filled(alone)...); !reflect.DeepEqual(got, want) {
			t.Errorf("%s with %q:\n%+v, want\n%+v", c.yaml, c.other, got, want)
		}
	}
	for key := range missing {
		t.Errorf("%s has no case", key)
	}
}

// TestFileRules: each action and what may stand beside it.
func TestFileRules(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	fd, err := syscall.Dup(0)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(fd)
	show := func(kind isolate.RuleKind, r isolate.Rule) isolate.Rule {
		r.Kind = kind
		if r.Path == "" {
			r.Path = dir + "/x"
		}
		if r.Source == "" {
			r.Source = dir + "/x"
		}
		return r
	}
	tried := map[string]bool{}
	for yaml, want := range map[string][]isolate.Rule{
		"read: ./x":                          {show(isolate.Show, isolate.Rule{NoExec: true})},
		"write: ./x":                         {show(isolate.ShowWrite, isolate.Rule{NoExec: true})},
		"exec: ./x":                          {show(isolate.Show, isolate.Rule{})},
		"exec: ./x, optional: true":          {show(isolate.Show, isolate.Rule{Optional: true})},
		"exec: ./x, at: /y":                  {show(isolate.Show, isolate.Rule{Path: "/y"})},
		"write: ./x, at: /y, optional: true": {show(isolate.ShowWrite, isolate.Rule{Path: "/y", NoExec: true, Optional: true})},
		"read: ./x, if-absent: report":       {show(isolate.Show, isolate.Rule{NoExec: true, Optional: true, Report: true})},
		"read: [./x, /z]":                    {show(isolate.Show, isolate.Rule{NoExec: true}), {Kind: isolate.Show, Path: "/z", Source: "/z", NoExec: true}},
		"deny: ./x":                          {{Kind: isolate.Deny, Path: dir + "/x"}},
		"deny: ./x, if-absent: report":       {{Kind: isolate.Deny, Path: dir + "/x", Report: true}},
		"deny: './*.key'":                    {{Kind: isolate.Deny, Path: dir + "/*.key", Glob: true}},
		"overlay: ./x":                       {show(isolate.Overlay, isolate.Rule{})},
		"overlay: ./x, at: /y":               {show(isolate.Overlay, isolate.Rule{Path: "/y"})},
		"overlay: ./x, optional: true":       nil,
		"device: /dev/null":                  {{Kind: isolate.Device, Path: "/dev/null", Source: "/dev/null"}},
		"tmpfs: /t":                          {{Kind: isolate.Tmpfs, Path: "/t"}},
		"tmpfs: /t, size: 1M":                {{Kind: isolate.Tmpfs, Path: "/t", Size: 1 << 20}},
		"dir: /d":                            {{Kind: isolate.Dir, Path: "/d"}},
		"symlink: /l, to: ../x":              {{Kind: isolate.Symlink, Path: "/l", Source: "../x"}},
		"file: /f, fd: $FD":                  {{Kind: isolate.File, Path: "/f", FD: fd}},
	} {
		policy := filepath.Join(dir, "policy.yaml")
		text := "version: 1\npermissions:\n  files:\n    - {" + strings.ReplaceAll(yaml, "$FD", fmt.Sprint(fd)) + "}\n"
		if err := os.WriteFile(policy, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if got := given(t, "--policy", policy).rules; len(got) != len(want) || len(want) > 0 && !reflect.DeepEqual(got, want) {
			t.Errorf("%s:\n%+v, want\n%+v", yaml, got, want)
		}
		for _, pair := range strings.Split(yaml, ", ") {
			key, _, _ := strings.Cut(pair, ":")
			tried[key] = true
		}
	}
	for _, k := range policies.Keys() {
		if k.Section == "permissions.files" && !tried[k.Name] {
			t.Errorf("%s has no case", k.Name)
		}
	}
}

// TestSyscallRules: each action and what may stand beside it comes to the value of a flag, and to a rule.
func TestSyscallRules(t *testing.T) {
	dir := t.TempDir()
	eperm, enosys := seccomp.Errno(syscall.EPERM), seccomp.Errno(syscall.ENOSYS)
	cond := []seccomp.Cond{{Arg: 0, Op: seccomp.Equal, Value: 16}}
	tried := map[string]bool{}
	for yaml, want := range map[string]struct {
		flags []string
		rules []seccomp.CallRule
	}{
		`allow: ptrace`:             {[]string{"allow=ptrace"}, []seccomp.CallRule{{Action: seccomp.Allow, Calls: []string{"ptrace"}}}},
		`deny: ptrace`:              {[]string{"deny=ptrace"}, []seccomp.CallRule{{Action: eperm, Calls: []string{"ptrace"}}}},
		`deny: "@all"`:              {[]string{"deny=@all"}, []seccomp.CallRule{{Action: eperm, Calls: []string{"@all"}}}},
		`kill-process: ptrace`:      {[]string{"kill-process=ptrace"}, []seccomp.CallRule{{Action: seccomp.KillProcess, Calls: []string{"ptrace"}}}},
		`kill-thread: ptrace`:       {[]string{"kill-thread=ptrace"}, []seccomp.CallRule{{Action: seccomp.KillThread, Calls: []string{"ptrace"}}}},
		`trap: ptrace`:              {[]string{"trap=ptrace"}, []seccomp.CallRule{{Action: seccomp.Trap, Calls: []string{"ptrace"}}}},
		`log: ptrace`:               {[]string{"log=ptrace"}, []seccomp.CallRule{{Action: seccomp.Log, Calls: []string{"ptrace"}}}},
		`deny: read, errno: 38`:     {[]string{"deny:38=read"}, []seccomp.CallRule{{Action: enosys, Calls: []string{"read"}}}},
		`deny: read, errno: 0`:      {[]string{"deny:0=read"}, []seccomp.CallRule{{Action: seccomp.Errno(0), Calls: []string{"read"}}}},
		`deny: [read, "@mount"]`:    {[]string{"deny=read", "deny=@mount"}, []seccomp.CallRule{{Action: eperm, Calls: []string{"read"}}, {Action: eperm, Calls: []string{"@mount"}}}},
		`log: read, when: arg0==16`: {[]string{"log=read:arg0==16"}, []seccomp.CallRule{{Action: seccomp.Log, Calls: []string{"read"}, Conds: cond}}},
		`deny: read, errno: ENOSYS, when: [arg0 == 16, arg1 & 0xf != 3]`: {
			[]string{"deny:ENOSYS=read:arg0 == 16,arg1 & 0xf != 3"},
			[]seccomp.CallRule{{Action: enosys, Calls: []string{"read"}, Conds: append(cond[:1:1], seccomp.Cond{Arg: 1, Op: seccomp.MaskedNotEqual, Mask: 15, Value: 3})}},
		},
	} {
		policy := filepath.Join(dir, "policy.yaml")
		if err := os.WriteFile(policy, []byte("version: 1\npermissions:\n  syscalls:\n    - {"+yaml+"}\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		o := given(t, "--policy", policy)
		if !slices.Equal(o.syscalls, want.flags) {
			t.Errorf("%s: %q, want %q", yaml, o.syscalls, want.flags)
		}
		if rules, err := o.readCallRules(); err != nil || !reflect.DeepEqual(rules, want.rules) {
			t.Errorf("%s: %+v, %v, want %+v", yaml, rules, err, want.rules)
		}
		for _, k := range policies.Keys() {
			tried[k.Name] = tried[k.Name] || k.Section == "permissions.syscalls" && strings.Contains(yaml, k.Name+": ")
		}
	}
	for _, k := range policies.Keys() {
		if k.Section == "permissions.syscalls" && !tried[k.Name] {
			t.Errorf("%s has no case", k.Name)
		}
	}
	// One flag may name several.
	o := given(t, "--syscalls", "deny:ENOSYS=read,@mount")
	if rules, err := o.readCallRules(); err != nil || !reflect.DeepEqual(rules, []seccomp.CallRule{{Action: enosys, Calls: []string{"read", "@mount"}}}) {
		t.Errorf("%+v, %v", rules, err)
	}
}

// TestLayers: what may be said once is said once in each file, and once on the command line.
func TestLayers(t *testing.T) {
	o := &options{given: map[string]bool{}}
	if err := o.throttle(8, 0, map[string]uint64{"rbps": 1}); err != nil {
		t.Fatal(err)
	}
	if err := o.throttle(8, 0, map[string]uint64{"rbps": 2}); err == nil {
		t.Error("the same rate was taken twice")
	}
	if err := o.apply(runFlags, policies.Setting{Flag: "--json", Value: "true", At: policies.Position{File: "x"}}); err != nil {
		t.Fatal(err)
	}
	if err := o.throttle(8, 0, map[string]uint64{"rbps": 3}); err != nil {
		t.Error(err)
	}
	if list := o.resources.BlockIO.ThrottleReadBpsDevice; len(list) != 1 || list[0].Rate != 3 {
		t.Errorf("%+v", list)
	}
}

// commandOnly are the keys that a program has to see to itself.
var commandOnly = []string{"fd", "stdin", "stdout", "stderr", "syscalls"}

// sameSpec checks that a program gets of a policy what the command makes of it.
func sameSpec(t *testing.T, policy string) {
	t.Helper()
	o, err := readOptions(runFlags, []string{"--policy", policy, "true"})
	var want *isolate.Spec
	if err == nil {
		want, err = o.spec()
	}
	loaded, loadErr := policies.Load(policy)
	if loadErr != nil {
		t.Fatal(loadErr)
	}
	got, gotErr := loaded.Spec("true")
	if (err == nil) != (gotErr == nil) {
		t.Fatalf("%s: %v, but the command: %v", policy, gotErr, err)
	}
	if err != nil {
		return
	}
	want.View = slices.DeleteFunc(want.View, func(r isolate.Rule) bool { return r.Path == policyPath })
	told := func(kv string) bool { return strings.HasPrefix(kv, "JAIL_POLICY=") }
	want.Process.Env = slices.DeleteFunc(want.Process.Env, told)
	if got.Process.Env == nil {
		want.Process.Env = nil // with nothing to add to it, isolate's own
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%s:\n%+v\nbut the command\n%+v", policy, got, want)
	}
}

// TestSpecOfPolicy: the library's way from a policy to a Spec is the command's.
func TestSpecOfPolicy(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Chdir(dir)
	t.Setenv("HOME", dir+"-home")
	t.Setenv("B", "of the caller")
	for _, name := range policies.Builtin() {
		sameSpec(t, name)
	}
	policy := filepath.Join(dir, "policy.yaml")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(policy, []byte("version: 1\n"+text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	section := map[string]string{}
	for _, k := range policies.Keys() {
		if k.Section != "permissions.files" {
			section[k.Name] = k.Section
		}
	}
	for _, c := range keyCases {
		if c.key == "io" && disk() == "" {
			continue // this machine has none to name
		}
		write(section[c.key] + ":\n  " + strings.ReplaceAll(c.yaml, "$DISK", disk()) + "\n")
		if !slices.Contains(commandOnly, c.key) {
			sameSpec(t, policy)
			continue
		}
		write(section[c.key] + ":\n  " + strings.ReplaceAll(c.yaml, "$FD", "3") + "\n")
		loaded, err := policies.Load(policy)
		if err == nil {
			_, err = loaded.Spec("true")
		}
		if err == nil || !strings.Contains(err.Error(), "policy.yaml:3:") || !strings.Contains(err.Error(), "is for jail run") {
			t.Errorf("%s: %v", c.key, err)
		}
	}
	for _, text := range []string{
		"borders: {level: contained, timeout: 1m, kill-after: 1s, memory: 64M, swap: 1M, cpus: 2, cpuset: 0, rootfs-overlay: true, rootfs: ./root, rlimit: {core: 0, nofile: 64}}",
		"borders: {level: user}\npermissions: {seccomp: default, env-all: true}", "permissions: {clearenv: true, env: [A=1, A=2, B], cap-drop: [KILL], cap-add: [KILL, CHOWN]}",
		"borders: {rootfs: ./root:rw, user: caller}\npermissions: {env: [X=1], network: host}",
		"permissions:\n  files:\n    - write: ./\n    - {read: [/a, /b], optional: true}\n    - {deny: './*.key', if-absent: report}\n    - {tmpfs: /t, size: 1M}\n" +
			"    - {symlink: /l, to: ../x}\n    - {file: /f, fd: 0}\n    - {overlay: ./o, at: /o}\n    - device: /dev/null\n    - dir: /d\n    - {write: /w, at: /v}\n    - {exec: /w, at: /v}",
		// What can't be had is refused by both.
		"borders: {kill-after: 1s}", "borders: {swap: 1M}", "borders: {rootfs-overlay: true}", "borders: {rootfs-overlay: true, rootfs: ./x:rw}",
		"borders: {level: user}\npermissions: {network: none}", "borders: {level: user, hostname: a}", "borders: {level: user, rootfs: ./x}", "borders: {level: basic}\npermissions: {seccomp: default}",
		"borders: {level: basic}\npermissions: {files: [{read: ./x}]}", "borders: {memory: 0}", "borders: {cpu-time: 0}", "borders: {memory: 9223372036854775807, swap: 1}",
		"permissions: {env-all: true, clearenv: true}", "permissions: {files: [{tmpfs: /t, size: 0}]}",
	} {
		write(text + "\n")
		sameSpec(t, policy)
	}
}
