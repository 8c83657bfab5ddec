package main

import (
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
	"golang.org/x/net/bpf"

	"github.com/jailrun/jail/isolate"
	"github.com/jailrun/jail/policies"
	"github.com/jailrun/jail/seccomp"
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
		if !strings.Contains(k.Section, ".") && k.Name != "files" {
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

// TestHelpNamesEveryGroup: the help on system calls lists the groups that there are, and no other.
func TestHelpNamesEveryGroup(t *testing.T) {
	_, list, _ := strings.Cut(syscallsHelp, "has them):\n")
	list, _, _ = strings.Cut(list, "$ jail")
	var want []string
	for _, g := range seccomp.Groups() {
		want = append(want, g.Name)
	}
	if got := strings.Fields(list); !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

// filterCases are calls with arguments, and what is done about them by the level's filter and by the list "default".
var filterCases = []struct {
	name          string
	args          []uint64
	level, strict seccomp.Action
}{
	{"read", nil, seccomp.Allow, seccomp.Allow},
	{"execve", nil, seccomp.Allow, seccomp.Allow},
	{"clone", []uint64{uint64(syscall.SIGCHLD)}, seccomp.Allow, seccomp.Allow},
	{"clone", []uint64{syscall.CLONE_NEWUSER}, seccomp.Allow, refused},
	{"clone3", nil, seccomp.Allow, seccomp.Errno(syscall.ENOSYS)},
	{"unshare", nil, seccomp.Allow, refused},
	{"mount", nil, seccomp.Allow, refused},
	{"ptrace", nil, seccomp.Allow, seccomp.Allow},
	{"bpf", nil, refused, refused},
	{"keyctl", nil, refused, refused},
	{"io_uring_setup", nil, refused, refused},
	{"userfaultfd", nil, refused, refused},
	{"open_by_handle_at", nil, refused, refused},
	{"ioctl", []uint64{0, syscall.TIOCSTI}, refused, refused},
	{"ioctl", []uint64{0, 1<<32 | syscall.TIOCSTI}, refused, refused},
	{"ioctl", []uint64{0, syscall.TCGETS}, seccomp.Allow, seccomp.Allow},
	{"prlimit64", []uint64{1, 7, 1}, refused, refused},
	{"prlimit64", []uint64{0, 7, 1}, seccomp.Allow, seccomp.Allow},
	{"socket", []uint64{syscall.AF_INET}, seccomp.Allow, seccomp.Allow},
	{"socket", []uint64{40}, seccomp.Allow, refused}, // AF_VSOCK
	{"socket", []uint64{syscall.AF_PACKET}, seccomp.Allow, refused},
}

const refused = seccomp.Action(0x00050001) // EPERM

// TestBuiltinFilters: what the filters of each built-in policy do, in a BPF machine of others.
func TestBuiltinFilters(t *testing.T) {
	t.Chdir(t.TempDir())
	for _, name := range policies.Builtin() {
		o, err := readOptions(runFlags, []string{"--policy", name, "true"})
		if err != nil {
			t.Fatal(err)
		}
		spec, err := o.spec()
		if err != nil {
			t.Fatal(err)
		}
		strict := slices.Contains([]string{"contained", "judge", "plugin"}, name)
		if filters := filtersOf(spec); len(filters) != map[bool]int{true: 2, false: 1}[strict]-map[bool]int{true: 1}[name == "basic"] {
			t.Errorf("%s has %d filters", name, len(filters))
		}
		for _, c := range filterCases {
			want := c.level
			switch {
			case name == "basic":
				want = seccomp.Allow
			case strict:
				want = c.strict
			}
			if got := judged(t, spec, c.name, c.args); got != want {
				t.Errorf("%s: %s %#x: %v, want %v", name, c.name, c.args, got, want)
			}
		}
	}
}

// judged is the strictest answer of a Spec's filters.
func judged(t *testing.T, spec *isolate.Spec, name string, args []uint64) seccomp.Action {
	t.Helper()
	strictest := seccomp.Allow
	for _, f := range filtersOf(spec) {
		var program []bpf.Instruction
		for i := 0; i < len(f.bpf); i += 8 {
			b := f.bpf[i : i+8]
			raw := bpf.RawInstruction{Op: binary.LittleEndian.Uint16(b), Jt: b[2], Jf: b[3], K: binary.LittleEndian.Uint32(b[4:])}
			program = append(program, raw.Disassemble())
		}
		vm, err := bpf.NewVM(program)
		if err != nil {
			t.Fatal(err)
		}
		audit := map[string]uint32{"amd64": 0xc000003e, "arm64": 0xc00000b7}[runtime.GOARCH]
		words := []uint32{number(t, name), audit, 0, 0}
		for i := range 6 {
			arg := uint64(0)
			if i < len(args) {
				arg = args[i]
			}
			words = append(words, uint32(arg), uint32(arg>>32))
		}
		var data []byte
		for _, w := range words {
			data = binary.BigEndian.AppendUint32(data, w) // which the machine reads
		}
		got, err := vm.Run(data)
		if err != nil {
			t.Fatal(err)
		}
		if int32(uint32(got)&^0xffff) < int32(strictest&^0xffff) {
			strictest = seccomp.Action(got)
		}
	}
	return strictest
}

// number is that of a call here.
func number(t *testing.T, name string) uint32 {
	t.Helper()
	nr, ok := map[string][2]uint32{ // amd64, arm64
		"read": {0, 63}, "execve": {59, 221}, "clone": {56, 220}, "clone3": {435, 435}, "unshare": {272, 97}, "mount": {165, 40},
		"ptrace": {101, 117}, "bpf": {321, 280}, "keyctl": {250, 219}, "io_uring_setup": {425, 425}, "userfaultfd": {323, 282},
		"open_by_handle_at": {304, 265}, "ioctl": {16, 29}, "prlimit64": {302, 261}, "socket": {41, 198},
	}[name]
	if !ok {
		t.Fatal(name)
	}
	return nr[map[string]int{"amd64": 0, "arm64": 1}[runtime.GOARCH]]
}

// FuzzSyscallsFlag: what --syscalls takes, a policy takes too, and it comes to the same rules.
func FuzzSyscallsFlag(f *testing.F) {
	for _, s := range []string{"deny=ptrace", "deny:ENOSYS=@mount,chown", "deny:0=socket:arg0 == 16,arg1&3!=2", "allow=@all", "kill-process=read:arg5<=0x10", "log==", "trap=:", "deny:1=a,,b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, value string) {
		o, err := readOptions(runFlags, []string{"--syscalls=" + value, "true"})
		if err != nil {
			if text := printable(err.Error() + hint(err)); strings.ContainsRune(text, '\x1b') {
				t.Errorf("%q", text)
			}
			return
		}
		if _, err := o.callRules(nil); err != nil && !errors.As(err, new(*isolate.SpecError)) {
			t.Errorf("%q: %v", value, err)
		}
		want := spread(t, o)
		policy := filepath.Join(t.TempDir(), "policy.yaml")
		if err := os.WriteFile(policy, []byte(policies.Format("", o.settings(), true)), 0o600); err != nil {
			t.Fatal(err)
		}
		again, err := readOptions(runFlags, []string{"--policy", policy, "true"})
		if err != nil {
			var mistake *policies.Error
			if errors.As(err, &mistake) && strings.Contains(mistake.Problem, "a second time") {
				return // a policy says each call once
			}
			t.Fatalf("%q: %v", value, err)
		}
		if got := spread(t, again); !reflect.DeepEqual(got, want) {
			t.Errorf("%q: %+v, want %+v", value, got, want)
		}
	})
}

// spread is the rules of options, one for each call.
func spread(t *testing.T, o *options) []seccomp.CallRule {
	t.Helper()
	rules, err := o.readCallRules()
	if err != nil {
		t.Fatal(err)
	}
	var list []seccomp.CallRule
	for _, r := range rules {
		for _, name := range r.Calls {
			list = append(list, seccomp.CallRule{Action: r.Action, Calls: []string{name}, Conds: r.Conds})
		}
	}
	return list
}
