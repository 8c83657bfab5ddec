package seccomp

import (
	"bytes"
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"testing"

	moby "github.com/moby/profiles/seccomp"
	"golang.org/x/sys/unix"
)

var amd64Target = Target{GOARCH: "amd64", Kernel: [2]int{6, 1}}

func TestReadErrors(t *testing.T) {
	one := func(rule string) string { return `{"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [` + rule + `]}` }
	allow := func(rest string) string { return one(`{"action": "SCMP_ACT_ALLOW", ` + rest + `}`) }
	arg := func(arg string) string { return allow(`"names": ["ioctl"], "args": [` + arg + `]`) }
	for _, tt := range []struct{ text, want string }{
		{"", "empty"},
		{"{", "ends too early"},
		{"{\n\t\"a\": 1,\n\tx\n}", "line 3, column 2: invalid character 'x' looking for beginning of object key string"},
		{"[]", "no JSON object, but array"},
		{`{"defaultAction": 1}`, "line 1, column 19: defaultAction can't be number"},
		{`{"defaultActoin": "SCMP_ACT_ALLOW"}`, `unknown field "defaultActoin"`},
		{`{"defaultAction": "SCMP_ACT_ALLOW"} {}`, "line 1, column 37: something stands behind the profile"},
		{strings.Repeat(" ", maxProfile) + "{}", "larger than 262144 bytes"},
		{"{}", `defaultAction: unknown action ""`},
		{`{"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 4096}`, `defaultAction: action "SCMP_ACT_ERRNO" can't have the value 4096`},
		{`{"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_VAX"]}`, `unknown architecture "SCMP_ARCH_VAX"`},
		{`{"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86"], "archMap": [{"architecture": "SCMP_ARCH_X86_64"}]}`, "both architectures and archMap are given"},
		{`{"defaultAction": "SCMP_ACT_ALLOW", "flags": ["SECCOMP_FILTER_FLAG_SPEC_ALLOW"]}`, `flag "SECCOMP_FILTER_FLAG_SPEC_ALLOW" can't be given: the level's filter`},
		{`{"defaultAction": "SCMP_ACT_ALLOW", "flags": ["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]}`, `flag "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV" can't be given: it is about`},
		{`{"defaultAction": "SCMP_ACT_ALLOW", "flags": ["SECCOMP_FILTER_FLAG_NEW"]}`, `unknown flag "SECCOMP_FILTER_FLAG_NEW"`},
		{"{\n" + `"defaultAction": "SCMP_ACT_LOG", "syscalls": [{"names": ["read", "redd"], "action": "SCMP_ACT_ERRNO"}]}`, `line 2, column 66: syscalls[0]: "redd" is no system call`},
		{`{"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/run/x"}`, "listenerPath can't be given: no calls are handed to another process"},
		{one("null"), "syscalls[0]: null"},
		{allow(`"names": []`), "syscalls[0]: no names"},
		{allow(`"name": "read", "names": ["write"]`), "syscalls[0]: both name and names are given"},
		{allow(`"names": ["read\u0000x"]`), `syscalls[0]: the name "read\x00x" has a NUL byte`},
		{allow(`"names": ["read"], "errnoRet": 1`), `syscalls[0]: action "SCMP_ACT_ALLOW" can't have the value 1`},
		{one(`{"names": ["read"], "action": "SCMP_ACT_PERMIT"}`), `syscalls[0]: unknown action "SCMP_ACT_PERMIT"`},
		{one(`{"names": ["read"], "action": "SCMP_ACT_NOTIFY"}`), `syscalls[0]: action "SCMP_ACT_NOTIFY" can't be given: no calls are handed to another process`},
		{arg(`{"index": 6, "value": 1, "op": "SCMP_CMP_EQ"}`), "syscalls[0]: args[0]: a call has no argument 6; they are 0 to 5"},
		{arg(`{"index": 1, "value": 1, "op": "=="}`), `syscalls[0]: args[0]: unknown operator "=="`},
		{arg(`{"index": 1, "value": 1, "valueTwo": 2, "op": "SCMP_CMP_EQ"}`), "syscalls[0]: args[0]: valueTwo goes with SCMP_CMP_MASKED_EQ alone"},
		{arg(`{"index": 1, "value": -1, "op": "SCMP_CMP_EQ"}`), "syscalls.args.value can't be number -1"},
		{
			arg(`{"index": 1, "value": 1, "op": "SCMP_CMP_GE"}, {"index": 1, "value": 3, "op": "SCMP_CMP_LE"}`),
			"syscalls[0]: args[1]: compares argument 1 a second time; alternatives are rules of their own",
		},
		{allow(`"names": ["read"], "includes": {"minKernel": "5"}`), `invalid kernel version: "5", expected "<kernel>.<major>"`},
		{
			one(`{"names": ["ioctl"], "action": "SCMP_ACT_ALLOW"}, {"names": ["ioctl"], "action": "SCMP_ACT_ERRNO", "args": [{"index": 1, "value": 21522, "op": "SCMP_CMP_EQ"}]}`),
			"ioctl: one rule gives it the default action, another one another",
		},
		{
			one(`{"names": ["mseal"], "action": "SCMP_ACT_ALLOW"}, {"names": ["mseal"], "action": "SCMP_ACT_LOG"}`),
			" action", // of Read, or of Compile where libseccomp knows the name
		},
	} {
		p, _, err := Read(strings.NewReader(tt.text), amd64Target)
		if err == nil {
			_, err = Compile(p, "amd64")
		}
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%.100s: got %v, want …%s…", tt.text, err, tt.want)
		}
	}
}

func mustRead(t testing.TB, text string, target Target) (Profile, []string) {
	t.Helper()
	p, unknown, err := Read(strings.NewReader(text), target)
	if err != nil {
		t.Fatal(err)
	}
	return p, unknown
}

// A verdict is a call by an ABI and what it gets.
type verdict struct {
	abi  string
	nr   uint32 // without the ABI's bit
	args [6]uint64
	want Action
}

func (v verdict) check(t *testing.T, filter []unix.SockFilter) {
	t.Helper()
	a := abis[v.abi]
	if got := run(t, newVM(t, filter), call{nr: a.bit | v.nr, audit: a.audit, args: v.args}); got != v.want {
		t.Errorf("%s call %d (%#x): got %#x, want %#x", v.abi, v.nr, v.args, got, v.want)
	}
}

func TestReadOCI(t *testing.T) {
	p, unknown := mustRead(t, `{
		"defaultAction": "SCMP_ACT_ERRNO",
		"defaultErrnoRet": 13,
		"architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X32", "SCMP_ARCH_S390X"],
		"flags": ["SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_LOG"],
		"syscalls": [
			{"names": ["read", "redd", "mseal", "mseal"], "action": "SCMP_ACT_ALLOW"},
			{"names": ["mseal"], "action": "SCMP_ACT_ALLOW"},
			{"names": ["write"], "action": "SCMP_ACT_KILL"},
			{"names": ["pause"], "action": "SCMP_ACT_KILL_PROCESS"},
			{"names": ["sync"], "action": "SCMP_ACT_TRAP"},
			{"names": ["acct"], "action": "SCMP_ACT_TRACE", "errnoRet": 7},
			{"names": ["reboot"], "action": "SCMP_ACT_LOG"},
			{"names": ["chroot"], "action": "SCMP_ACT_ERRNO"},
			{"names": ["mount"], "action": "SCMP_ACT_ERRNO", "errnoRet": 13},
			{"names": ["lseek"], "action": "SCMP_ACT_ALLOW", "args": [
				{"index": 0, "value": 3, "op": "SCMP_CMP_GE"},
				{"index": 1, "value": 255, "valueTwo": 1, "op": "SCMP_CMP_MASKED_EQ"}
			]}
		]
	}`, amd64Target)
	if !slices.Equal(unknown, []string{"redd"}) || !p.Log {
		t.Errorf("unknown: %q, log %t", unknown, p.Log)
	}
	filter := mustCompile(t, p, "amd64")
	eacces := Errno(unix.EACCES)
	for _, v := range []verdict{
		{"amd64", 0, [6]uint64{}, Allow},
		{"amd64", mseal, [6]uint64{}, Allow},
		{"x32", mseal, [6]uint64{}, Allow},
		{"amd64", 1, [6]uint64{}, KillThread},
		{"amd64", 34, [6]uint64{}, KillProcess},
		{"amd64", 162, [6]uint64{}, Trap},
		{"amd64", 163, [6]uint64{}, Trace(7)},
		{"amd64", 169, [6]uint64{}, Log},
		{"amd64", 161, [6]uint64{}, eperm},
		{"amd64", 165, [6]uint64{}, eacces},
		{"amd64", 2, [6]uint64{}, eacces},
		{"amd64", 8, [6]uint64{3, 0xff01}, Allow},
		{"amd64", 8, [6]uint64{2, 1}, eacces},
		{"amd64", 8, [6]uint64{3, 2}, eacces},
		{"amd64", mseal - 1, [6]uint64{}, eacces}, // the profile's author knew it
		{"amd64", mseal + 1, [6]uint64{}, enosys},
		{"x32", 0, [6]uint64{}, Allow},
		{"x32", 2, [6]uint64{}, eacces},
		{"i386", 3, [6]uint64{}, KillProcess}, // not listed
		{"i386", mseal, [6]uint64{}, KillProcess},
	} {
		v.check(t, filter)
	}

	// Without architectures it is for our own alone: x32 is none then.
	p, _ = mustRead(t, `{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mseal"], "action": "SCMP_ACT_ERRNO"}]}`, amd64Target)
	filter = mustCompile(t, p, "amd64")
	for _, v := range []verdict{
		{"amd64", 0, [6]uint64{}, Allow},
		{"amd64", mseal, [6]uint64{}, eperm},
		{"amd64", 1023, [6]uint64{}, Allow}, // nothing is too new for who allows all
		{"x32", 0, [6]uint64{}, KillProcess},
		{"x32", mseal, [6]uint64{}, KillProcess},
		{"i386", 3, [6]uint64{}, KillProcess},
		{"i386", mseal, [6]uint64{}, KillProcess},
	} {
		v.check(t, filter)
	}
}

// Calls older than Linux 5.1 are new to no profile, however short.
func TestReadNewest(t *testing.T) {
	p, _ := mustRead(t, `{"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{"names": ["read"], "action": "SCMP_ACT_ALLOW"}]}`, amd64Target)
	filter := mustCompile(t, p, "amd64")
	verdict{"amd64", 334, [6]uint64{}, eperm}.check(t, filter)
	verdict{"amd64", firstShared, [6]uint64{}, enosys}.check(t, filter)
	// What a condition leaves out, the author knew.
	p, _ = mustRead(t, `{"defaultAction": "SCMP_ACT_KILL", "syscalls": [{"names": ["openat2"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_BPF"]}}]}`, amd64Target)
	filter = mustCompile(t, p, "amd64")
	verdict{"amd64", 437, [6]uint64{}, KillThread}.check(t, filter)
	verdict{"amd64", 438, [6]uint64{}, enosys}.check(t, filter)
}

func TestReadDocker(t *testing.T) {
	const text = `{
		"defaultAction": "SCMP_ACT_ALLOW",
		"archMap": [
			{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]},
			{"architecture": "SCMP_ARCH_AARCH64", "subArchitectures": ["SCMP_ARCH_ARM"]}
		],
		"syscalls": [
			{"name": "sync", "action": "SCMP_ACT_LOG", "comment": "old form"},
			{"names": ["acct"], "action": "SCMP_ACT_LOG", "includes": {"arches": ["amd64"]}},
			{"names": ["chroot"], "action": "SCMP_ACT_LOG", "excludes": {"arches": ["amd64"]}},
			{"names": ["mount"], "action": "SCMP_ACT_LOG", "includes": {"caps": ["CAP_KILL", "CAP_BPF"]}},
			{"names": ["reboot"], "action": "SCMP_ACT_LOG", "excludes": {"caps": ["CAP_KILL", "CAP_CHOWN"]}},
			{"names": ["pause"], "action": "SCMP_ACT_LOG", "includes": {"minKernel": "6.1"}},
			{"names": ["setns"], "action": "SCMP_ACT_LOG", "excludes": {"minKernel": "6.2"}}
		]
	}`
	type names map[string]Action
	numbers := map[string]map[string]uint32{
		"amd64": {"sync": 162, "acct": 163, "chroot": 161, "mount": 165, "reboot": 169, "pause": 34, "setns": 308},
		"arm64": {"sync": 81, "acct": 89, "chroot": 51, "mount": 40, "reboot": 142, "setns": 268},
	}
	for _, tt := range []struct {
		target Target
		want   names
	}{
		{Target{GOARCH: "amd64", Kernel: [2]int{6, 0}}, names{"sync": Log, "acct": Log, "reboot": Log, "setns": Log}},
		{Target{GOARCH: "amd64", Kernel: [2]int{6, 1}}, names{"sync": Log, "acct": Log, "reboot": Log, "pause": Log, "setns": Log}},
		{Target{GOARCH: "amd64", Kernel: [2]int{10, 0}, Capabilities: []string{"CAP_KILL"}}, names{"sync": Log, "acct": Log, "pause": Log}},
		{Target{GOARCH: "amd64", Kernel: [2]int{5, 14}, Capabilities: []string{"CAP_BPF", "CAP_KILL"}}, names{"sync": Log, "acct": Log, "mount": Log, "setns": Log}},
		{Target{GOARCH: "arm64", Kernel: [2]int{5, 14}}, names{"sync": Log, "chroot": Log, "reboot": Log, "setns": Log}},
	} {
		p, _ := mustRead(t, text, tt.target)
		filter := mustCompile(t, p, tt.target.GOARCH)
		for name, nr := range numbers[tt.target.GOARCH] {
			want, ok := tt.want[name]
			if !ok {
				want = Allow
			}
			verdict{tt.target.GOARCH, nr, [6]uint64{}, want}.check(t, filter)
		}
	}
	p, _ := mustRead(t, text, amd64Target)
	verdict{"i386", 36, [6]uint64{}, Log}.check(t, mustCompile(t, p, "amd64"))
	verdict{"x32", 162, [6]uint64{}, KillProcess}.check(t, mustCompile(t, p, "amd64"))
}

// i386 makes a socket call in two ways, and the arguments of one are out of
// sight. What is allowed under conditions does not go that way.
func TestReadSocketcall(t *testing.T) {
	const socket = `{"names": ["socket"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}]}`
	for rules, want := range map[string]Action{
		socket: eperm,
		socket + `, {"names": ["socketcall"], "action": "SCMP_ACT_ALLOW"}`: Allow,
		`{"names": ["socket"], "action": "SCMP_ACT_ALLOW"}`:                Allow,
	} {
		p, _ := mustRead(t, `{"defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_X86"], "syscalls": [`+rules+`]}`, amd64Target)
		filter := mustCompile(t, p, "amd64")
		verdict{"i386", 102, [6]uint64{1}, want}.check(t, filter)
		verdict{"i386", 359, [6]uint64{1}, Allow}.check(t, filter)
		verdict{"amd64", 41, [6]uint64{1}, Allow}.check(t, filter)
		verdict{"amd64", 102, [6]uint64{1}, eperm}.check(t, filter) // getuid
	}
	p, _ := mustRead(t, `{"defaultAction": "SCMP_ACT_KILL", "architectures": ["SCMP_ARCH_X86"], "syscalls": [
		{"names": ["shmat"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 2, "value": 0, "op": "SCMP_CMP_EQ"}]}]}`, amd64Target)
	verdict{"i386", 117, [6]uint64{21}, KillThread}.check(t, mustCompile(t, p, "amd64"))
}

// dockers is Docker's own profile, read as a file.
func dockers(t *testing.T, goarch string) Profile {
	t.Helper()
	text, err := json.Marshal(moby.DefaultProfile())
	if err != nil {
		t.Fatal(err)
	}
	p, unknown := mustRead(t, string(text), Target{GOARCH: goarch, Kernel: [2]int{5, 14}})
	if len(unknown) != 0 {
		t.Errorf("unknown: %q", unknown)
	}
	return p
}

// Whatever is read is an error or a profile, and a profile compiles or is an
// error; nothing of a foreign ABI ever gets through.
func FuzzRead(f *testing.F) {
	text, err := json.Marshal(moby.DefaultProfile())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add([]byte(`{"defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_X86"], "syscalls": [{"names": ["socket", "mseal"], "action": "SCMP_ACT_ALLOW", "errnoRet": 0}]}`))
	f.Add([]byte(`{"defaultAction": "SCMP_ACT_TRACE", "syscalls": [{"name": "ioctl", "action": "SCMP_ACT_KILL", "args": [{"index": 1, "value": 7, "valueTwo": 3, "op": "SCMP_CMP_MASKED_EQ"}]}]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		p, unknown, err := Read(bytes.NewReader(text), amd64Target)
		if err != nil {
			if p.Rules != nil || len(err.Error()) > 1<<20 {
				t.Errorf("%+v, %v", p, err)
			}
			return
		}
		config, err := parse(text) // what was accepted prints back to the same
		if err != nil {
			t.Fatal(err)
		}
		printed, err := json.Marshal(config)
		if err != nil {
			t.Fatal(err)
		}
		again, unknownAgain, err := Read(bytes.NewReader(printed), amd64Target)
		if err != nil || !reflect.DeepEqual(again, p) || !slices.Equal(unknown, unknownAgain) {
			t.Errorf("%s is %+v, and then %+v, %v", printed, p, again, err)
		}
		filter, err := Compile(p, "amd64")
		if err != nil {
			return
		}
		if got := run(t, newVM(t, filter), call{audit: unix.AUDIT_ARCH_S390X}); got != KillProcess {
			t.Errorf("a foreign ABI gets %#x", got)
		}
	})
}
