package policies

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// testdata stays where it is when a test goes elsewhere.
var testdata, _ = filepath.Abs("testdata")

// testFilters stand for those that the command gives.
var testFilters = Filters{
	"baseline": {DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{{Names: []string{"bpf"}, Action: specs.ActErrno}}},
	"default":  {DefaultAction: specs.ActErrno, Syscalls: []specs.LinuxSyscall{{Names: []string{"read"}, Action: specs.ActAllow}}},
}

// reload writes settings as a policy and reads it again.
func reload(t *testing.T, settings []Setting) *Loaded {
	t.Helper()
	file := filepath.Join(t.TempDir(), "policy.yaml")
	text := Format("", settings, true)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	loaded, err := Load(file)
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	return loaded
}

// roundTrip is a policy that has been an OCI configuration, with what was lost on both ways.
func roundTrip(t *testing.T, l *Loaded) (back *Loaded, config []byte, lost []Lost) {
	t.Helper()
	spec, lost, err := l.OCI(testFilters)
	if err != nil {
		t.Fatal(err)
	}
	if config, err = json.MarshalIndent(spec, "", " "); err != nil {
		t.Fatal(err)
	}
	settings, more, err := FromOCI(config, "/bundle", testFilters)
	if err != nil {
		t.Fatal(err)
	}
	return reload(t, settings), config, append(lost, more...)
}

// missing are the settings of a policy that another one does not have, and no list of what is lost.
func missing(a, b *Loaded, lost []Lost) []string {
	has := map[string]bool{}
	for _, s := range Effective(b.Settings) {
		has[s.Line()] = true
	}
	for _, l := range lost {
		has[l.Key] = true
	}
	var lines []string
	for _, s := range Effective(a.Settings) {
		if !has[s.Line()] {
			lines = append(lines, s.Line())
		}
	}
	return lines
}

// TestBuiltinToOCI: each built-in policy as a configuration and back has all that it had, or its loss was told, line by
// line; and nothing was told that is there.
func TestBuiltinToOCI(t *testing.T) {
	dir := folder(t, map[string]string{".git/hooks/x": "", ".env": "SECRET"})
	t.Chdir(filepath.Join(dir, "work"))
	for _, name := range Builtin() {
		l, err := Load(name)
		if err != nil {
			t.Fatal(err)
		}
		back, config, lost := roundTrip(t, l)
		if lines := missing(l, back, lost); len(lines) > 0 {
			t.Errorf("%s: gone without a word: %q\n%s\n%v", name, lines, config, lost)
		}
	}
}

// leavesOf is all that a configuration says, but for what differs by nature: the version, the command, and that a path
// is written relative to the bundle.
func leavesOf(t *testing.T, text []byte) []leaf {
	t.Helper()
	c := fromOCI{bundle: "/bundle"}
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	var tree map[string]any
	if err := d.Decode(&tree); err != nil {
		t.Fatal(err)
	}
	c.leaves("", tree)
	c.take("ociVersion")
	c.take("process.args")
	for i, l := range c.left {
		if l.path == "root.path" {
			c.left[i].value = c.inBundle(l.value)
		}
	}
	return c.left
}

// TestFromOCI: configurations as runtimes and engines write them. What comes back of the policy says all that it said,
// or its loss was told; what was told is not there.
func TestFromOCI(t *testing.T) {
	folder(t, nil)
	files, err := filepath.Glob(filepath.Join(testdata, "oci/*.json"))
	if err != nil || len(files) < 3 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		config, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		settings, lost, err := FromOCI(config, "/bundle", testFilters)
		if err != nil {
			t.Fatal(err)
		}
		text := Format("", settings, true)
		for _, l := range lost {
			text += "# lost: " + l.Key + " (" + l.Why + ")\n"
		}
		golden := strings.TrimSuffix(file, ".json") + ".yaml"
		if *update {
			if err := os.WriteFile(golden, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if want, err := os.ReadFile(golden); err != nil || string(want) != text {
			t.Errorf("%s: %v\n%s", golden, err, cmp.Diff(string(want), text))
		}
		_, again, _ := roundTrip(t, reload(t, settings))
		has := leavesOf(t, again)
		for _, l := range leavesOf(t, config) {
			told := slices.ContainsFunc(lost, func(o Lost) bool {
				return o.Key == l.path+": "+l.value || below(l.path, o.Key)
			})
			if kept := slices.Contains(has, l); kept == told && (!kept || !strings.HasPrefix(l.path, "linux.seccomp")) { // which the level has another of
				t.Errorf("%s: %s %s: kept %v, told as lost %v", file, l.path, l.value, kept, told)
			}
		}
	}
}

// TestEveryKeyToOCI: of each key it is told what becomes of it.
func TestEveryKeyToOCI(t *testing.T) {
	dir := folder(t, map[string]string{"p.yaml": `version: 1
permissions:
  files:
    - {read: ./r, at: /at/r}
    - write: ./w
    - exec: [./w, ./x]
    - {exec: ./optional, optional: true}
    - deny: [./w/d, ./closed]
    - {deny: './*.key', if-absent: report}
    - read: ./closed/open
    - read: ./w/*.txt
    - overlay: ./o
    - device: /dev/null
    - {tmpfs: /t, size: 3M}
    - dir: /d
    - {symlink: /l, to: x}
    - {file: /f, fd: 0}
  env: [A=1, B]
  clearenv: true
  network: host
  cap-add: [KILL]
  seccomp: ./profile.json
  seccomp-log: true
  syscalls: [{deny: ptrace}]
  proc: outer
  ipc: ["lock:a"]
  fd: [3]
  stdin: ./i
  stdout: ./o1
  stderr: ./o2
borders:
  level: contained
  user: 7:8
  workdir: /w
  hostname: h
  rootfs: ./root
  rootfs-overlay: true
  rlimit: {nofile: "64:128", as: 1G, core: unlimited}
  timeout: 1m
  kill-after: 1s
  memory: 1G
  swap: 3M
  pids-limit: 10
  cpus: 0.25
  cpuset: 0-1
  cpu-time: 1s
  cgroup-parent: /a/b
  name: n
  output-limit: 1M
  allow-downgrade: true
monitor: {result: ./result, json: true, denied: true, notify: ["open:/etc/passwd"], verbose: true}
`, "optional": "", "closed/open": "", "r": "", "x": "", "w/d": "", "o/x": ""})
	t.Setenv("B", "secret-of-the-caller")
	l, err := Load("./p.yaml")
	if err != nil {
		t.Fatal(err)
	}
	back, config, lost := roundTrip(t, l)
	if lines := missing(l, back, lost); len(lines) > 0 {
		t.Errorf("gone without a word: %q\n%s", lines, config)
	}
	if strings.Contains(string(config), "secret-of-the-caller") {
		t.Errorf("the caller's environment is in\n%s", config)
	}
	var told []string
	for _, l := range lost {
		told = append(told, strings.ReplaceAll(l.Key, dir, ""))
	}
	want := []string{
		"permissions.files: exec: /work/optional, optional: true", `permissions.files: deny: "/work/*.key", if-absent: report`, "permissions.files: read: /work/closed/open",
		`permissions.files: read: "/work/w/*.txt"`,
		"permissions.files: overlay: /work/o", "permissions.files: dir: /d", "permissions.files: symlink: /l, to: x", "permissions.files: file: /f, fd: 0",
		"permissions.env: B", "permissions.proc: outer", "permissions.syscalls: deny: ptrace", "permissions.ipc: lock:a", "permissions.fd: 3", "permissions.stdin: /work/i", "permissions.stdout: /work/o1", "permissions.stderr: /work/o2",
		"borders.rootfs-overlay: true", "borders.timeout: 1m", "borders.kill-after: 1s", "borders.cpu-time: 1s", "borders.output-limit: 1M", "borders.allow-downgrade: true",
		"monitor.result: /work/result", "monitor.json: true", "monitor.denied: true", "monitor.notify: open:/etc/passwd", "monitor.verbose: true",
		"permissions.seccomp: /work/profile.json", "permissions.seccomp: default", "linux.gidMappings", "linux.uidMappings",
	}
	if diff := cmp.Diff(want, told); diff != "" {
		t.Error(diff)
	}
	have := map[string]bool{}
	for _, s := range l.Settings {
		have[s.Key], have[strings.TrimPrefix(s.Section, "permissions.")] = true, true
	}
	for _, k := range Keys() {
		if !strings.Contains(k.Section, ".") && !have[k.Name] && !slices.Contains([]string{"files", "env-all", "cap-drop", "io"}, k.Name) {
			t.Errorf("%s is not in it", k.Name)
		}
	}
}
