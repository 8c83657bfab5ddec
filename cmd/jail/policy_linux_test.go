package main

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"

	"github.com/jailrun/jail/isolate"
	"github.com/jailrun/jail/policies"
)

// said is what the command prints about an error.
func said(err error) string {
	lines := []string{err.Error()}
	var mistake *policies.Error
	if errors.As(err, &mistake) {
		lines = append(lines, mistake.Excerpt()...)
	}
	if h := hint(err); h != "" {
		lines = append(lines, "hint: "+h)
	}
	for i := range lines {
		lines[i] = strings.TrimRight(printable(lines[i]), " ")
	}
	return strings.Join(lines, "\n") + "\n"
}

// TestBadPolicies has each mistake, with the words that are said of it. Nothing is started.
func TestBadPolicies(t *testing.T) {
	const file = "../../policies/testdata/bad.txtar"
	archive, err := txtar.ParseFile(file)
	if err != nil {
		t.Fatal(err)
	}
	path, err := filepath.Abs(file)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "data/secret"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Chdir(dir)
	t.Setenv("HOME", dir+"-home")
	t.Setenv("RELATIVE", "x")
	if n := len(archive.Files) / 2; n < 60 {
		t.Errorf("%d policies", n)
	}
	for i := 0; i < len(archive.Files); i += 2 {
		policy, golden := archive.Files[i], &archive.Files[i+1]
		if err := os.WriteFile("policy.yaml", policy.Data, 0o644); err != nil {
			t.Fatal(err)
		}
		o, err := readOptions(runFlags, []string{"--policy", "./policy.yaml", "true"})
		var spec *isolate.Spec
		if err == nil {
			spec, err = o.spec()
		}
		if err == nil {
			_, err = isolate.Explain(spec)
		}
		if err == nil {
			t.Errorf("%s is taken", policy.Name)
			continue
		}
		got := strings.ReplaceAll(said(o.blame(err)), dir, "$DIR")
		if *update {
			golden.Data = []byte(got)
		} else if string(golden.Data) != got {
			t.Errorf("%s:\n%s\nwant\n%s", policy.Name, got, golden.Data)
		}
	}
	if *update {
		if err := os.WriteFile(path, txtar.Format(archive), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// TestEveryFlagHasAKey: what a flag says a policy can say, and the other way.
func TestEveryFlagHasAKey(t *testing.T) {
	var flags, keys []string
	for _, f := range runFlags {
		if !slices.Contains([]string{"--help", "--policy"}, f.name) { // extends is a policy's --policy
			flags = append(flags, f.name)
		}
	}
	for _, k := range policies.Keys() {
		if k.Section != "permissions.files" && k.Name != "files" {
			keys = append(keys, "--"+k.Name)
		}
	}
	keys = append(keys, policies.FileFlags()...)
	slices.Sort(flags)
	slices.Sort(keys)
	if !slices.Equal(flags, keys) {
		t.Errorf("the flags of run are\n%q, the keys of a policy\n%q", flags, keys)
	}
}
