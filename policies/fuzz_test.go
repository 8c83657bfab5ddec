package policies

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
)

// FuzzLoad reads three policies that may extend each other: whatever they are, it ends, and what it takes it can write
// and read again.
func FuzzLoad(f *testing.F) {
	archive, err := txtar.ParseFile("testdata/bad.txtar")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range archive.Files {
		if strings.HasSuffix(file.Name, ".yaml") {
			f.Add(string(file.Data), "version: 1\nextends: ./c.yaml\n", "version: 1\nextends: ./a.yaml\n")
		}
	}
	f.Add("version: 1\npermissions:\n  seccomp-log: true\n  syscalls: [{deny: [\"@all\"], errno: 0}, {allow: [read, write], when: [arg0 == 1, arg1 & 0xf != 2]}, {kill-process: ptrace}]\n",
		"version: 1\npermissions: {syscalls: [{log: \"a:b\", when: x=y}, {trap: \"c d\"}]}\n", "version: 1\n")
	for _, name := range Builtin() {
		text, err := Text(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add("version: 1\nextends: [./b.yaml, ./c.yaml]\n", text, "version: 1\nextends: ./b.yaml\n")
	}
	f.Fuzz(func(t *testing.T, a, b, c string) {
		readsTheSame(t, a)
		dir := t.TempDir()
		t.Setenv("HOME", "/home/a")
		for name, text := range map[string]string{"a.yaml": a, "b.yaml": b, "c.yaml": c} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		loaded, err := Load(filepath.Join(dir, "a.yaml"))
		var mistake *Error
		switch {
		case err == nil:
		case !errors.As(err, &mistake):
			t.Fatalf("%v", err)
		default:
			if lines := mistake.Excerpt(); len(lines) != 2 || mistake.Line < 1 || mistake.Column < 1 {
				t.Fatalf("%q", lines)
			}
			return
		}
		text := Format("", loaded.Settings, true)
		if err := os.WriteFile(filepath.Join(dir, "a.yaml"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		again, err := Load(filepath.Join(dir, "a.yaml"))
		if err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		if second := Format("", again.Settings, true); second != text {
			t.Fatalf("%s\nis read as\n%s", text, second)
		}
	})
}

// FuzzFromOCI reads a configuration: whatever it is, it ends, and what it comes to is a policy.
func FuzzFromOCI(f *testing.F) {
	files, err := filepath.Glob("testdata/oci/*.json")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Add([]byte(`{"ociVersion":"1","process":{"args":["a"],"cwd":"/x","env":["A=~","B=- x","C=: #"],"user":{"uid":7}},"root":{"path":"/r"},"hostname":"~","linux":{"maskedPaths":["/a b","/~"]},` +
		`"mounts":[{"destination":"/t","type":"tmpfs","options":["size=3"]},{"destination":"/b","type":"bind","source":"s: #","options":["noexec"]}]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		settings, _, err := FromOCI(text, "/bundle", testFilters)
		if err != nil {
			return
		}
		policy := filepath.Join(t.TempDir(), "policy.yaml")
		written := Format("", settings, true)
		if err := os.WriteFile(policy, []byte(written), 0o600); err != nil {
			t.Fatal(err)
		}
		loaded, err := Load(policy)
		if err != nil {
			t.Fatalf("%v\n%s", err, written)
		}
		if again := Format("", loaded.Settings, true); again != written {
			t.Fatalf("%s\nis read as\n%s", written, again)
		}
	})
}
