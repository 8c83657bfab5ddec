//go:build linux && (amd64 || arm64)

package jailinit

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"unsafe"

	"github.com/google/go-cmp/cmp"
)

// constants of the Go side by the names that they have in plan.h.
var constants = []struct {
	name  string
	value uint64
}{
	{"OP_WRITE", uint64(OpWrite)},
	{"OP_OWN_MOUNTS", uint64(OpOwnMounts)},
	{"OP_SUBREAPER", uint64(OpSubreaper)},
	{"OP_CHILDREN", uint64(OpChildren)},
	{"OP_ASIDE", uint64(OpAside)},
	{"OP_JOIN", uint64(OpJoin)},
	{"OP_UNSHARE", uint64(OpUnshare)},
	{"OP_SETNS", uint64(OpSetns)},
	{"OP_OPEN", uint64(OpOpen)},
	{"OP_WRITE_SLOT", uint64(OpWriteSlot)},
	{"OP_ENTER", uint64(OpEnter)},
	{"OP_DUMPABLE", uint64(OpDumpable)},
	{"OP_LO_UP", uint64(OpLoUp)},
	{"OP_HOSTNAME", uint64(OpHostname)},
	{"OP_ROOT", uint64(OpRoot)},
	{"OP_FS", uint64(OpFS)},
	{"OP_ATTACH", uint64(OpAttach)},
	{"OP_MASK", uint64(OpMask)},
	{"OP_CHECK", uint64(OpCheck)},
	{"OP_PIVOT", uint64(OpPivot)},
	{"OP_MOUNT", uint64(OpMount)},
	{"OP_SETATTR", uint64(OpSetattr)},
	{"OP_BIND", uint64(OpBind)},
	{"OP_MKDIR", uint64(OpMkdir)},
	{"OP_SYMLINK", uint64(OpSymlink)},
	{"OP_MKNOD", uint64(OpMknod)},
	{"OP_FILE", uint64(OpFile)},
	{"OP_UNLINK", uint64(OpUnlink)},
	{"OP_CHDIR", uint64(OpChdir)},
	{"OP_RULESET", uint64(OpRuleset)},
	{"OP_ALLOW", uint64(OpAllow)},
	{"OP_BARRIER", uint64(OpBarrier)},
	{"OP_SETSID", uint64(OpSetsid)},
	{"OP_RLIMIT", uint64(OpRlimit)},
	{"OP_BOUNDING", uint64(OpBounding)},
	{"OP_GROUPS", uint64(OpGroups)},
	{"OP_GID", uint64(OpGID)},
	{"OP_UID", uint64(OpUID)},
	{"OP_CAPS", uint64(OpCaps)},
	{"OP_NNP", uint64(OpNNP)},
	{"OP_RESTRICT", uint64(OpRestrict)},
	{"OP_PDEATHSIG", uint64(OpPdeathsig)},
	{"OP_ALIVE", uint64(OpAlive)},
	{"OP_SIGNALS", uint64(OpSignals)},
	{"OP_FILTER", uint64(OpFilter)},
	{"OP_MONITOR", uint64(OpMonitor)},
	{"OP_TRY", uint64(OpTry)},
	{"OP_EXEC", uint64(OpExec)},
	{"STEP_RECURSIVE", uint64(StepRecursive)},
	{"STEP_IN_ROOT", uint64(StepInRoot)},
	{"STEP_NO_LINKS", uint64(StepNoLinks)},
	{"STEP_ENTER", uint64(StepEnter)},
	{"STEP_READ_ONLY", uint64(StepReadOnly)},
	{"PLAN_PIDNS", uint64(PlanPIDNS)},
	{"PLAN_KEEP_KILL", uint64(PlanKeepKill)},
	{"RECORD_BARRIER", uint64(RecordBarrier)},
	{"RECORD_FAILED", uint64(RecordFailed)},
	{"RECORD_TRIED", uint64(RecordTried)},
	{"RECORD_STARTED", uint64(RecordStarted)},
	{"RECORD_ENDED", uint64(RecordEnded)},
	{"RECORD_LISTENER", uint64(RecordListener)},
	{"ORDER_GO", uint64(OrderGo)},
	{"ORDER_SIGNAL", uint64(OrderSignal)},
	{"ORDER_KILL", uint64(OrderKill)},
	{"LAUNCH_CLONE", uint64(StageClone)},
	{"LAUNCH_FDS", uint64(StageFDs)},
	{"LAUNCH_EXEC", uint64(StageExec)},
	{"NO_STEP", 1<<32 - 1}, // read as -1
	{"MAX_FDS", MaxFDs},
	{"MAX_KEPT", MaxKept},
	{"MAX_SLOTS", MaxSlots},
	{"MAX_ASIDE", MaxAside},
	{"PLAN_AT", planAt},
}

// field is one field of a struct that both sides have.
type field struct {
	c            string // "struct step.op"
	offset, size uintptr
}

func fields() []field {
	var s Step
	var h header
	var r Record
	var o Order
	return []field{
		{"step", 0, unsafe.Sizeof(s)},
		{"step.op", unsafe.Offsetof(s.Op), unsafe.Sizeof(s.Op)},
		{"step.flags", unsafe.Offsetof(s.Flags), unsafe.Sizeof(s.Flags)},
		{"step.index", unsafe.Offsetof(s.Index), unsafe.Sizeof(s.Index)},
		{"step.keep", unsafe.Offsetof(s.Keep), unsafe.Sizeof(s.Keep)},
		{"step.a", unsafe.Offsetof(s.A), unsafe.Sizeof(s.A)},
		{"step.b", unsafe.Offsetof(s.B), unsafe.Sizeof(s.B)},
		{"step.c", unsafe.Offsetof(s.C), unsafe.Sizeof(s.C)},
		{"step.d", unsafe.Offsetof(s.D), unsafe.Sizeof(s.D)},
		{"step.e", unsafe.Offsetof(s.E), unsafe.Sizeof(s.E)},
		{"step.s1", unsafe.Offsetof(s.S1), unsafe.Sizeof(s.S1)},
		{"step.s2", unsafe.Offsetof(s.S2), unsafe.Sizeof(s.S2)},
		{"step.s3", unsafe.Offsetof(s.S3), unsafe.Sizeof(s.S3)},
		{"step.s4", unsafe.Offsetof(s.S4), unsafe.Sizeof(s.S4)},
		{"plan", 0, unsafe.Sizeof(h)},
		{"plan.size", unsafe.Offsetof(h.size), unsafe.Sizeof(h.size)},
		{"plan.flags", unsafe.Offsetof(h.flags), unsafe.Sizeof(h.flags)},
		{"plan.ninit", unsafe.Offsetof(h.ninit), unsafe.Sizeof(h.ninit)},
		{"plan.npayload", unsafe.Offsetof(h.npayload), unsafe.Sizeof(h.npayload)},
		{"plan.npass", unsafe.Offsetof(h.npass), unsafe.Sizeof(h.npass)},
		{"plan.fail_step", unsafe.Offsetof(h.failStep), unsafe.Sizeof(h.failStep)},
		{"plan.fail_errno", unsafe.Offsetof(h.failErrno), unsafe.Sizeof(h.failErrno)},
		{"plan.init", unsafe.Offsetof(h.initSteps), unsafe.Sizeof(h.initSteps)},
		{"plan.payload", unsafe.Offsetof(h.payloadSteps), unsafe.Sizeof(h.payloadSteps)},
		{"plan.aside", unsafe.Offsetof(h.asideSteps), unsafe.Sizeof(h.asideSteps)},
		{"record", 0, unsafe.Sizeof(r)},
		{"record.kind", unsafe.Offsetof(r.Kind), unsafe.Sizeof(r.Kind)},
		{"record.step", unsafe.Offsetof(r.Step), unsafe.Sizeof(r.Step)},
		{"record.err", unsafe.Offsetof(r.Err), unsafe.Sizeof(r.Err)},
		{"record.status", unsafe.Offsetof(r.Status), unsafe.Sizeof(r.Status)},
		{"record.time_us", unsafe.Offsetof(r.TimeUS), unsafe.Sizeof(r.TimeUS)},
		{"record.user_us", unsafe.Offsetof(r.UserUS), unsafe.Sizeof(r.UserUS)},
		{"record.system_us", unsafe.Offsetof(r.SystemUS), unsafe.Sizeof(r.SystemUS)},
		{"record.max_rss_kb", unsafe.Offsetof(r.RSSKiB), unsafe.Sizeof(r.RSSKiB)},
		{"record.self_user_us", unsafe.Offsetof(r.SelfUserUS), unsafe.Sizeof(r.SelfUserUS)},
		{"record.self_system_us", unsafe.Offsetof(r.SelfSystemUS), unsafe.Sizeof(r.SelfSystemUS)},
		{"record.outside_us", unsafe.Offsetof(r.OutsideUS), unsafe.Sizeof(r.OutsideUS)},
		{"order", 0, unsafe.Sizeof(o)},
		{"order.kind", unsafe.Offsetof(o.Kind), unsafe.Sizeof(o.Kind)},
		{"order.signo", unsafe.Offsetof(o.Signo), unsafe.Sizeof(o.Signo)},
		{"order.group", unsafe.Offsetof(o.Group), unsafe.Sizeof(o.Group)},
		{"order.queued", unsafe.Offsetof(o.Queued), unsafe.Sizeof(o.Queued)},
		{"order.value", unsafe.Offsetof(o.Value), unsafe.Sizeof(o.Value)},
	}
}

// TestWire compares both sides of what travels between the launcher and jail-init: a C program prints the C side.
func TestWire(t *testing.T) {
	gcc := needs(t, "gcc")
	var program, want strings.Builder
	fmt.Fprintln(&program, "#include \"plan.h\"\n#include <stddef.h>\n#include <stdio.h>\nint main(void) {")
	for _, f := range fields() {
		name, member, _ := strings.Cut(f.c, ".")
		if member == "" {
			fmt.Fprintf(&program, "printf(\"%s 0 %%zu\\n\", sizeof(struct %s));\n", f.c, name)
		} else {
			fmt.Fprintf(&program, "printf(\"%s %%zu %%zu\\n\", offsetof(struct %s, %s), sizeof(((struct %s *)0)->%s));\n", f.c, name, member, name, member)
		}
		fmt.Fprintf(&want, "%s %d %d\n", f.c, f.offset, f.size)
	}
	for _, c := range constants {
		fmt.Fprintf(&program, "printf(\"%s %%llu\\n\", (unsigned long long)%s);\n", c.name, c.name)
		fmt.Fprintf(&want, "%s %d\n", c.name, c.value)
	}
	fmt.Fprintln(&program, "}")
	dir := t.TempDir()
	source, binary := filepath.Join(dir, "wire.c"), filepath.Join(dir, "wire")
	if err := os.WriteFile(source, []byte(program.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(gcc, "-Isrc", "-o", binary, source).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	got, err := exec.Command(binary).Output()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want.String(), string(got)); diff != "" {
		t.Errorf("Go (-) and plan.h (+) differ:\n%s", diff)
	}
}

// TestWireIsWhole: nothing that plan.h names is missing above.
func TestWireIsWhole(t *testing.T) {
	b, err := os.ReadFile("src/plan.h")
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{"PLAN_H": true, "FIRST_FREE_SLOT": true} // of the C side alone
	for _, c := range constants {
		known[c.name] = true
	}
	code := regexp.MustCompile(`(?s)/\*.*?\*/`).ReplaceAllString(string(b), "")
	for _, name := range regexp.MustCompile(`\b[A-Z]{2,}_[A-Z_]+\b`).FindAllString(code, -1) {
		if !known[name] {
			t.Errorf("%s is in plan.h and not compared", name)
		}
	}
	for _, f := range fields() {
		known[f.c] = true
	}
	for _, s := range regexp.MustCompile(`(?s)struct (step|plan|record|order) \{(.*?)\};`).FindAllStringSubmatch(code, -1) {
		for _, line := range strings.Split(s[2], ";") {
			for _, name := range regexp.MustCompile(`\b([a-z_0-9]+)\s*(?:,|$)`).FindAllStringSubmatch(strings.TrimSpace(line), -1) {
				if !known[s[1]+"."+name[1]] && name[1] != "pad" {
					t.Errorf("struct %s has %s, which is not compared", s[1], name[1])
				}
			}
		}
	}
}

func needs(t *testing.T, program string) string {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		t.Skip("host lacks: " + program)
	}
	return path
}
