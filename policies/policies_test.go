package policies

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// folder is a working folder with files, and a home beside it.
func folder(t *testing.T, files map[string]string) string {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	work := filepath.Join(dir, "work")
	for name, text := range files {
		path := filepath.Join(work, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(os.MkdirAll(filepath.Join(dir, "home"), 0o755), os.MkdirAll(work, 0o755)); err != nil {
		t.Fatal(err)
	}
	t.Chdir(work)
	t.Setenv("HOME", filepath.Join(dir, "home"))
	return dir
}

// lines is what a policy comes to, with the folder left out.
func lines(t *testing.T, dir, name string) []string {
	t.Helper()
	loaded, err := Load(name)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, s := range Effective(loaded.Settings) {
		got = append(got, strings.ReplaceAll(s.Line(), dir, "")+" # "+s.Origin())
	}
	return got
}

// TestExtends: what a policy extends comes first, each once; the later of two counts, and a deny stays.
func TestExtends(t *testing.T) {
	dir := folder(t, map[string]string{
		"base.yaml":      "version: 1\nextends: limited\nborders: {memory: 1G, swap: 1G, hostname: base}\npermissions: {files: [{deny: ./secret}], env: [A=base, B=base]}\n",
		"left.yaml":      "version: 1\nextends: ./base.yaml\nborders: {memory: 2G}\npermissions: {env: [A=left]}\n",
		"sub/right.json": `{"version": 1, "extends": ["base.yaml"], "permissions": {"files": [{"write": "./secret"}], "cap-add": ["KILL"]}}`,
		"sub/base.yaml":  "version: 1\n",
		"top.yaml":       "version: 1\nextends: [./left.yaml, base.yaml, sub/right.json]\nborders: {hostname: top, rlimit: {core: 0}}\npermissions: {cap-add: CHOWN}\n",
	})
	want := []string{
		"permissions.files: deny: /work/secret # base.yaml:4:30",
		"permissions.files: write: /work/sub/secret # sub/right.json:1:78",
		"permissions.env: B=base # base.yaml:4:56",
		"permissions.env: A=left # left.yaml:4:21",
		"permissions.cap-add: KILL # sub/right.json:1:104",
		"permissions.cap-add: CHOWN # top.yaml:4:24",
		"borders.level: limited # built-in limited:4:10",
		"borders.hostname: top # top.yaml:3:21",
		"borders.rlimit: core=0 # top.yaml:3:41",
		"borders.memory: 2G # left.yaml:3:19",
		"borders.swap: 1G # base.yaml:3:29",
	}
	if diff := cmp.Diff(want, lines(t, dir, "./top.yaml")); diff != "" {
		t.Error(diff)
	}
	// From elsewhere, the same.
	t.Chdir("/")
	got := lines(t, dir, filepath.Join(dir, "work/top.yaml"))
	if want := "permissions.files: deny: /work/secret # " + dir + "/work/base.yaml:4:30"; got[0] != want {
		t.Errorf("from elsewhere: %q, want %q", got[0], want)
	}
}

// TestContradiction: what two policies say differently is an error, unless one extends the other or the policy says it.
func TestContradiction(t *testing.T) {
	folder(t, map[string]string{
		"a.yaml":        "version: 1\nborders: {hostname: a, rlimit: {nofile: 64}}\n",
		"b.yaml":        "version: 1\nborders: {hostname: b, rlimit: {nofile: 64}}\n",
		"c.yaml":        "version: 1\nborders: {rlimit: {nofile: 65}}\n",
		"d.yaml":        "version: 1\nextends: ./a.yaml\nborders: {hostname: d}\n",
		"ab.yaml":       "version: 1\nextends: [./a.yaml, ./b.yaml]\n",
		"ac.yaml":       "version: 1\nextends: [./a.yaml, ./c.yaml]\n",
		"bd.yaml":       "version: 1\nextends: [./b.yaml, ./d.yaml]\n",
		"ab-said.yaml":  "version: 1\nextends: [./a.yaml, ./b.yaml]\nborders: {hostname: ab}\n",
		"ad.yaml":       "version: 1\nextends: [./a.yaml, ./d.yaml]\n",
		"da.yaml":       "version: 1\nextends: [./d.yaml, ./a.yaml]\n",
		"envs.yaml":     "version: 1\npermissions: {env: [A=1]}\n",
		"env-said.yaml": "version: 1\nextends: [./envs.yaml, ./a.yaml]\npermissions: {env: [A=2]}\n",
	})
	for name, want := range map[string]string{
		"ab": `ab.yaml:2:21: hostname is "a" in a.yaml:2:21 and "b" in b.yaml:2:21; say which with hostname in this policy`,
		"ac": `ac.yaml:2:21: rlimit is "nofile=64" in a.yaml:2:41 and "nofile=65" in c.yaml:2:28; say which with rlimit in this policy`,
		"bd": `bd.yaml:2:21: hostname is "b" in b.yaml:2:21 and "d" in d.yaml:3:21; say which with hostname in this policy`,

		"ab-said": "", "ad": "", "da": "", "env-said": "",
	} {
		got := ""
		loaded, err := Load("./" + name + ".yaml")
		if err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
		if name == "da" { // d is built on a, in whatever order
			for _, s := range Effective(loaded.Settings) {
				if s.Key == "hostname" && s.Value != "d" {
					t.Errorf("hostname %q", s.Value)
				}
			}
		}
	}
}

// TestExtendsBounds: cycles and depths end with an error, soon.
func TestExtendsBounds(t *testing.T) {
	files := map[string]string{
		"a.yaml": "version: 1\nextends: ./b.yaml\n", "b.yaml": "version: 1\nextends: ./c.yaml\n", "c.yaml": "version: 1\nextends: ./a.yaml\n",
		"wide.yaml": "version: 1\nextends: [",
	}
	for i := range 100 {
		n := string(rune('0'+i/10)) + string(rune('0'+i%10))
		next := string(rune('0'+(i+1)/10)) + string(rune('0'+(i+1)%10))
		files["deep"+n+".yaml"] = "version: 1\nextends: ./deep" + next + ".yaml\n"
		files["w"+n+".yaml"] = "version: 1\n"
		files["wide.yaml"] += "./w" + n + ".yaml, "
		// Twice the paths at each step: 2^14 ways to the last one.
		if i < 14 {
			files["twice"+n+".yaml"] = "version: 1\nextends: [./twice" + next + ".yaml, ./also" + next + ".yaml]\n"
			files["also"+n+".yaml"] = files["twice"+n+".yaml"]
		}
	}
	files["twice14.yaml"] = "version: 1\nborders: {hostname: end}\n"
	files["also14.yaml"] = "version: 1\n"
	files["wide.yaml"] = strings.TrimSuffix(files["wide.yaml"], ", ") + "]\n"
	folder(t, files)
	for name, want := range map[string]string{
		"a":       "c.yaml:2:10: extends itself: a.yaml → b.yaml → c.yaml → a.yaml",
		"deep00":  "deep15.yaml:2:10: extends more than 16 policies one after the other",
		"wide":    "wide.yaml:2:779: extends more than 64 policies",
		"twice00": "",
	} {
		got := ""
		loaded, err := Load("./" + name + ".yaml")
		if err != nil {
			got = err.Error()
		} else if len(loaded.Settings) != 1 {
			t.Errorf("%s: %d settings", name, len(loaded.Settings))
		}
		if got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
}

// TestPaths: ~, ${NAME} and relative paths, where they are and nowhere else.
func TestPaths(t *testing.T) {
	dir := folder(t, map[string]string{
		"sub/p.yaml": "version: 1\npermissions:\n  seccomp: ./f.json\n  stdin: in\n  env: [\"A=~/x ${HOME}\"]\n  files:\n    - read: [~/, ~/x, ./y, z, \"${TOOLS}/bin\", \"${TOOLS}\", /abs//x/, ./*.c]\n" +
			"    - read: \"${UNSET_VARIABLE}/x\"\n      optional: true\n    - read: ./y\n      at: ~/y\n" +
			"    - tmpfs: ~/tmp\n      size: 1M\nborders:\n  workdir: .\n  rootfs: ./root:rw\nmonitor:\n  result: \"-\"\n",
	})
	t.Setenv("TOOLS", "/opt/tools")
	want := []string{
		"permissions.files: read: /home", "permissions.files: read: /home/x", "permissions.files: read: /work/sub/y", "permissions.files: read: /work/sub/z",
		"permissions.files: read: /opt/tools/bin", "permissions.files: read: /opt/tools", "permissions.files: read: /abs/x", `permissions.files: read: "/work/sub/*.c"`,
		"permissions.files: read: /work/sub/y, at: /home/y", "permissions.files: tmpfs: /home/tmp, size: 1M",
		`permissions.env: "A=~/x ${HOME}"`, "permissions.seccomp: /work/sub/f.json", "permissions.stdin: /work/sub/in",
		"borders.workdir: /work/sub", "borders.rootfs: /work/sub/root:rw", `monitor.result: "-"`,
	}
	got := lines(t, dir, "./sub/p.yaml")
	for i := range got {
		got[i], _, _ = strings.Cut(got[i], " # ")
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// TestBuiltinFolder: a built-in policy is about the working folder, and refuses one that holds more than a project.
func TestBuiltinFolder(t *testing.T) {
	dir := folder(t, nil)
	if got := lines(t, dir, "agent")[0]; got != "permissions.files: write: /work # built-in agent:14:14" {
		t.Errorf("%q", got)
	}
	for _, cwd := range []string{filepath.Join(dir, "home"), dir, "/"} {
		t.Chdir(cwd)
		if _, err := Load("agent"); err == nil || !strings.Contains(err.Error(), "is the working folder here, and that is or holds") {
			t.Errorf("in %s: %v", cwd, err)
		}
	}
}

// TestRights: all rules for a path add up, whoever wrote them; other paths keep their own.
func TestRights(t *testing.T) {
	folder(t, map[string]string{
		"base.yaml": "version: 1\npermissions: {files: [{read: /a}, {write: /b}, {exec: /c, optional: true}, {read: /d, optional: true}, {read: /e, if-absent: report}]}\n",
		"top.yaml":  "version: 1\nextends: ./base.yaml\npermissions: {files: [{exec: /b}, {write: /c}, {exec: /d, optional: true}, {write: /e}]}\n",
	})
	loaded, err := Load("./top.yaml")
	if err != nil {
		t.Fatal(err)
	}
	type rule struct {
		Flag           string
		NoExec, Report bool
	}
	got := map[string]rule{}
	for _, s := range loaded.Settings {
		got[s.Value] = rule{s.Flag, s.NoExec, s.Report}
	}
	want := map[string]rule{
		"/a": {Flag: "--ro-bind", NoExec: true}, "/b": {Flag: "--bind"}, "/c": {Flag: "--bind"},
		"/d": {Flag: "--ro-bind-try"}, "/e": {Flag: "--bind", NoExec: true},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// TestFormat: a policy that was written by jail says the same when it is read.
func TestFormat(t *testing.T) {
	folder(t, map[string]string{
		"all.yaml": "version: 1\nextends: [agent, ./more.yaml]\n",
		"more.yaml": "version: 1\npermissions:\n  env: [\"A=: - #'\\\"\", TERM]\n  fd: [3, \"4:5\"]\n  files:\n    - symlink: /link\n      to: ../x\n    - tmpfs: /t:u\n      size: 1M\n    - dir: /d\n" +
			"    - file: /f\n      fd: 7\n    - overlay: ./sub\n      at: /o\n    - device: /dev/fuse\n    - deny: \"./**/*.key\"\n      if-absent: report\n" +
			"  syscalls:\n    - deny: [\"@mount\", ptrace]\n    - deny: socket\n      errno: ENOSYS\n      when: [arg0 == 16, arg1 & 0xf != 3]\n    - allow: umount2\n    - kill-process: kcmp\n      when: arg0==1\n  seccomp-log: true\nborders:\n  rlimit: {nofile: \"64:128\", cpu: 3}\n  hostname: \"~\"\n  name: \"true\"\n",
	})
	loaded, err := Load("./all.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range [][2]string{{"--bind", "/w"}, {"--ro-bind-try", "/r:/s"}, {"--memory", "1G"}, {"--deny", "/w/x"}, {"--json", "true"}, {"--help", "true"}, {"--syscalls", "deny:0=chown,@clock:arg0 == 1"}} {
		loaded.Settings = append(loaded.Settings, FromFlag(s[0], s[1]))
	}
	text := Format("first\nsecond\n", loaded.Settings, true)
	if err := os.WriteFile("again.yaml", []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	again, err := Load("./again.yaml")
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	if second := Format("first\nsecond\n", again.Settings, true); second != text {
		t.Error(cmp.Diff(text, second))
	}
	if err := validate(t, []byte(text)); err != nil {
		t.Error(err)
	}
	if !strings.HasPrefix(text, "# first\n# second\nversion: 1\n") {
		t.Error(text)
	}
	for _, want := range []string{
		"- write: /w\n", "- exec: /w\n", "- exec: /r\n      at: /s\n      optional: true\n", "memory: 1G\n", `hostname: "~"`, "    - deny: [\"@mount\", ptrace]\n    - deny: socket\n      errno: ENOSYS\n      when: [\"arg0 == 16\", \"arg1 & 0xf != 3\"]\n    - allow: umount2\n",
		"    - deny: [chown, \"@clock\"]\n      errno: 0\n      when: \"arg0 == 1\"\n", `- "A=: - #'\"": `,
	} {
		if !strings.Contains(text, strings.TrimSuffix(want, ": ")) {
			t.Errorf("%q is not in\n%s", want, text)
		}
	}
	if secret := Format("", loaded.Settings, false); strings.Contains(secret, "A=") || !strings.Contains(secret, "    - A\n") {
		t.Errorf("values are left:\n%s", secret)
	}
}

// TestSyscallsAddUp: rules for calls of all policies count, each once, in their order, and stand behind other
// permissions; none contradicts another.
func TestSyscallsAddUp(t *testing.T) {
	dir := folder(t, map[string]string{
		"a.yaml":   "version: 1\npermissions: {syscalls: [{deny: ptrace}, {allow: kcmp}], env: [A=1]}\n",
		"b.yaml":   "version: 1\npermissions: {syscalls: [{deny: ptrace, errno: ENOSYS}, {deny: ptrace}]}\n",
		"top.yaml": "version: 1\nextends: [./a.yaml, ./b.yaml]\npermissions: {syscalls: [{log: socket, when: [arg0 == 1, arg1 == 2]}], files: [{read: /x}]}\n",
	})
	want := []string{
		"permissions.files: read: /x # top.yaml:3:87",
		"permissions.env: A=1 # a.yaml:2:64",
		"permissions.syscalls: allow: kcmp # a.yaml:2:50",
		"permissions.syscalls: deny: ptrace, errno: ENOSYS # b.yaml:2:33",
		"permissions.syscalls: deny: ptrace # b.yaml:2:64",
		`permissions.syscalls: log: socket, when: ["arg0 == 1", "arg1 == 2"] # top.yaml:3:32`,
	}
	if diff := cmp.Diff(want, lines(t, dir, "./top.yaml")); diff != "" {
		t.Error(diff)
	}
}

// TestSplitSyscallRule: what is written for one rule is read as it.
func TestSplitSyscallRule(t *testing.T) {
	for value, want := range map[string]SyscallRuleParts{
		"deny=ptrace":                     {Action: "deny", Calls: []string{"ptrace"}},
		"deny:0=@mount,chown":             {Action: "deny", Errno: "0", Calls: []string{"@mount", "chown"}},
		"log=socket:arg0 == 1,arg1&3 !=2": {Action: "log", Calls: []string{"socket"}, When: []string{"arg0 == 1", "arg1&3 !=2"}},
	} {
		if got, err := SplitSyscallRule(value); err != nil || !cmp.Equal(got, want) {
			t.Errorf("%s: %+v, %v", value, got, err)
		}
	}
	for _, bad := range []string{"", "deny", "deny=", "=ptrace", "deny:=ptrace", "deny=ptrace:", "deny=:arg0==1", "notify=ptrace", "allow:EPERM=ptrace", "ptrace=deny"} {
		if got, err := SplitSyscallRule(bad); err == nil {
			t.Errorf("%q: %+v", bad, got)
		}
	}
}

func TestDiff(t *testing.T) {
	folder(t, map[string]string{
		"a.yaml": "version: 1\nborders: {hostname: a, memory: 1G}\npermissions: {files: [{read: /x}, {read: /y}]}\n",
		"b.yaml": "version: 1\nborders: {hostname: b, memory: 1G}\npermissions: {files: [{read: /x}, {write: /y}]}\n",
	})
	var settings [2][]Setting
	for i, name := range []string{"./a.yaml", "./b.yaml"} {
		loaded, err := Load(name)
		if err != nil {
			t.Fatal(err)
		}
		settings[i] = loaded.Settings
	}
	want := []string{
		"- permissions.files: read: /y  (a.yaml:3:42)", "- borders.hostname: a  (a.yaml:2:21)",
		"+ permissions.files: write: /y  (b.yaml:3:43)", "+ borders.hostname: b  (b.yaml:2:21)",
	}
	if diff := cmp.Diff(want, Diff(settings[0], settings[1])); diff != "" {
		t.Error(diff)
	}
	if same := Diff(settings[0], settings[0]); len(same) != 0 {
		t.Errorf("%q", same)
	}
}

// TestBuiltin: each says in its first lines who it is for.
func TestBuiltin(t *testing.T) {
	folder(t, nil)
	for _, name := range []string{"basic", "user", "namespaced", "limited", "contained", "judge", "agent", "ci-step", "build", "plugin", "python", "node"} {
		text, err := Text(name)
		if err != nil {
			t.Error(err)
			continue
		}
		if first, _, _ := strings.Cut(text, "\n"); !strings.HasPrefix(first, "# ") || !strings.HasSuffix(first, ".") {
			t.Errorf("%s: %q", name, first)
		}
		if _, err := Load(name); err != nil {
			t.Error(err)
		}
	}
}

// TestExcerpt: the mark stands below what the error is about, also in a line that does not fit.
func TestExcerpt(t *testing.T) {
	src := &source{name: "x", lines: []string{"äö: \tbad", strings.Repeat("a", 300) + "bad" + strings.Repeat("b", 300)}}
	for _, c := range []struct {
		at   Position
		want string
	}{
		{src.at(1, 6, 3), "    1 | äö:  bad\n             ^^^"},
		{src.at(2, 301, 3), "    2 | … " + strings.Repeat("a", 50) + "bad" + strings.Repeat("b", 45) + " …\n" + strings.Repeat(" ", 60) + "^^^"},
		{src.at(3, 1, 1), "    3 | \n        ^"},
		{src.at(1, 99, 99), "    1 | äö:  bad\n                ^"},
	} {
		if diff := cmp.Diff(c.want, strings.Join(c.at.Excerpt(), "\n")); diff != "" {
			t.Errorf("%s: %s", c.at, diff)
		}
	}
}

// TestParserBounds: what would keep a parser busy for minutes, or use up its stack, is refused before it runs.
func TestParserBounds(t *testing.T) {
	var keys strings.Builder
	for i := 0; keys.Len() < maxSize-16; i++ {
		keys.WriteString("k" + strconv.Itoa(i) + ": 1\n")
	}
	for text, want := range map[string]string{
		keys.String():                                     "x:6667:8: is too long",
		strings.Repeat("[\n", maxSize/2):                  "x:33:1: is nested too deeply",
		strings.Repeat("- ", 2000):                        "x:1:67: is nested too deeply",
		strings.Repeat("- ", maxSize/2):                   "x:1:1: has a line of more than 4096 bytes",
		"version: 1\n" + strings.Repeat("#\n", maxSize/2): "x:1:1: is larger than 1 MiB",
		"a: &a [x]\nb: &b [*a, *a]\nc: [*b, *b]\n":        "x:1:4: anchors and aliases are not used",
		"a: \xff": "x:1:1: is not UTF-8",
	} {
		_, err := parse("x", []byte(text))
		if err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%.20q: %v, want %s", text, err, want)
		}
	}
}

// BenchmarkLoad reads the built-in policy that says most.
func BenchmarkLoad(b *testing.B) {
	dir := b.TempDir()
	b.Chdir(dir)
	b.Setenv("HOME", "/home/a")
	for b.Loop() {
		loaded, err := Load("agent")
		if err != nil {
			b.Fatal(err)
		}
		Format("", loaded.Settings, false)
	}
}
