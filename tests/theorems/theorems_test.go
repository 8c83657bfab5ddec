// Package theorems makes docs/theorems.md: which test shows which statement about processes and synchronisation.
package theorems

import (
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write docs/theorems.md anew")

// row is what the statements of some numbers come to here.
type row struct {
	numbers string   // chapters; a test TestTheorem_4_5_1_… is in the row with the longest beginning of 4.5.1 that there is
	says    string   // the statement
	where   string   // what keeps to it
	shown   []string // by what else than tests of that name: a test, package.Name, or a model, name.pml
	missing string   // what is not built or not shown
}

var rows = []row{
	{
		numbers: "1.2, 1.3, 3.3, 6.4, 7.1",
		says:    "What processes share must mean the same to each of them, and what one has written before it lets go is seen by who takes over.",
		where:   "ipc: a type with a pointer anywhere inside is refused for shared memory, with the path of the field; each primitive's doc says what happens before what; all tests of ipc run under the race detector",
		shown:   []string{"ipc.TestAtRefuses"},
	},
	{
		numbers: "2.1",
		says:    "A process is created, runs and ends, in this order; it does not end because its handle is forgotten.",
		where:   "isolate.Cmd and isolate.Process, which hold a pidfd: a number that is used again can't be mistaken for the child",
		shown:   []string{"isolate.TestTreeEnds", "isolate.TestSignalsAtTheEnd", "isolate.TestThreadEnds", "integration.TestP74_HonestEnd"},
		missing: "a TryWait: Cmd has Wait alone",
	},
	{
		numbers: "2.2",
		says:    "Processes talk by messages or by shared state: standard streams, pipes, files, sockets.",
		where:   "isolate: stdio, pipes, further fds by number, shown folders; ipc: files, sockets and memory from the broker",
		shown:   []string{"isolate.TestPipes", "isolate.TestStdio", "isolate.TestExtraFiles", "integration.TestP01_PassedFDs", "integration.TestPassedSocketWorks", "integration.TestBinds", "ipc.TestBrokerOpensFilesOfItsRoots", "ipc.TestBrokerMemory", "ipc.TestBrokerChannels"},
	},
	{
		numbers: "2.3",
		says:    "A command is built from its parts; to run it is to start it and wait.",
		where:   "isolate.Command, shaped like os/exec.Cmd",
		shown:   []string{"isolate.TestOutput", "isolate.TestRandomSpecs"},
	},
	{
		numbers: "2.4",
		says:    "A child gains no right that it is not given, and communication is no way around the system's walls.",
		where:   "isolate: no_new_privs at each level, capabilities only shrink; ipc: the broker goes by the kernel's word for who its peer is",
		shown:   []string{"integration.TestP20_SetUID", "integration.TestP39_P43_Credentials", "integration.TestP45_RootIsOutOfReach", "integration.TestCapabilities", "integration.TestP70_IPC", "ipc.TestBrokerKnowsItsPeer", "ipc.TestBrokerRefusesWhatNoRuleAllows"},
	},
	{
		numbers: "3.1, 3.4, 10.3.1",
		says:    "A pool completes each job that it takes, idle workers take over from busy ones, and the crash of a worker is its own.",
		where:   "isolate: each jail is a process tree with its own end; examples/prefork: three jails take tasks from one channel",
		shown:   []string{"isolate.TestMany", "isolate.TestManyBesideOthers", "prefork.TestPrefork"},
		missing: "isolate.Pool, of jails started beforehand, is not built",
	},
	{
		numbers: "4.1",
		says:    "One holder at a time; the holder's death in the middle is told to the next one.",
		where:   "ipc.Mutex; without the telling, ipc.LockTable and ipc.FileLock",
		shown:   []string{"mutex.pml", "ipc.TestTryLockSeesDeath", "ipc.TestKills", "ipc.TestRelease"},
	},
	{
		numbers: "4.2, 8.2",
		says:    "Many readers or one writer; without care either side may starve.",
		where:   "ipc.RWMutex; ipc.LockTable, first in, first out",
		shown:   []string{"locks.pml", "ipc.TestDeadReaderLeavesNothing", "ipc.TestDeadWriterPoisons", "ipc.TestReadersAreCounted"},
	},
	{
		numbers: "4.3",
		says:    "Who waits for a condition is woken by a notification, or for nothing, and looks again.",
		where:   "ipc.Cond",
		shown:   []string{"cond.pml"},
	},
	{
		numbers: "4.4",
		says:    "All parties meet before any goes on, again and again.",
		where:   "ipc.Barrier, which the death of a member breaks for all",
		shown:   []string{"ipc.TestBarrierBreaksWhenAMemberLeaves", "ipc.TestBarrierTakesAnArrivalBack"},
	},
	{
		numbers: "4.5",
		says:    "Permits are conserved: those that are out and those that are left are as many as in the beginning. With one permit it is a mutex.",
		where:   "ipc.Semaphore; a dead holder's permits come back",
		shown:   []string{"ipc.TestDeadHoldersPermitsComeBack"},
	},
	{
		numbers: "5.1, 5.2, 5.3, 5.4",
		says:    "A message arrives once, whole and in order; a full channel holds its sender up; with capacity 0 both sides meet; select waits for several; channels compose to pipelines, fan-in and fan-out.",
		where:   "ipc.Channel, ipc.Select",
		shown:   []string{"ring.pml", "rendezvous.pml", "ipc.TestChannelIsLinearizable", "ipc.TestCloseWakesAll"},
	},
	{
		numbers: "6.1, 6.2, 6.3",
		says:    "What is lock-free must not take a value that has come back for one that has not changed (ABA).",
		where:   "the ring under ipc.Channel: each slot's word holds its lap",
		shown:   []string{"ring.pml", "ipc.TestLapComesRound", "ipc.TestDeathInSlot", "ipc.TestChannelIsLinearizable"},
	},
	{
		numbers: "7.2",
		says:    "Types can't exclude that parties wait for each other in a circle; an order of all locks, or a look at who waits for whom, can.",
		where:   "ipc.LockTable refuses the request that would close the circle, and names all of it",
		shown:   []string{"ipc.TestDeadlockOfMany", "ipc.TestDeadlockOfOne", "ipc.TestDeadlockThroughQueue", "locks.pml"},
		missing: "a check that locks in shared memory are always taken in one order is not built",
	},
	{
		numbers: "7.3",
		says:    "A protocol's states can be types, so that a wrong order does not compile; that it goes on at all is another matter.",
		where:   "ipc: Handshaking, Authenticated and Terminated are types of the client; the server keeps to the same order",
		shown:   []string{"broker.pml", "ipc.TestBrokerPeerClosesInOrder", "ipc.TestHostilePeersHarmOnlyThemselves"},
	},
	{
		numbers: "8.1",
		says:    "A producer that is faster than its consumer has to be held up, or memory grows without end.",
		where:   "isolate: output is taken up to a limit, reports of the monitor are bounded; ipc: channels and the broker's queues",
		shown:   []string{"integration.TestP59_OutputFlood", "integration.TestMonitorFlood", "isolate.TestOutputReaders", "ipc.TestLockLimits", "ipc.TestPeerThatDoesNotRead"},
	},
	{
		numbers: "8.3",
		says:    "A mutex and a condition, looked at again after each wake-up, make any other way of waiting.",
		where:   "ipc.Cond with ipc.Mutex",
		shown:   []string{"cond.pml", "ipc.TestCondWaitGivesUp"},
	},
	{
		numbers: "8.4, 9.4.1",
		says:    "Locks on files promise less than locks in a process: no order, no detection of deadlocks, no inheritance of priorities.",
		where:   "ipc.FileLock says so; ipc.LockTable gives the first two (docs/ipc.md has the table)",
		shown:   []string{"ipc.TestBrokerLocks", "ipc.TestFileLockModes", "ipc.TestFileLockUpgradeRefused", "ipc.TestFileLockWaits"},
		missing: "a mutex that inherits priorities is not built",
	},
	{
		numbers: "9.1, 9.2",
		says:    "One waiter can watch many children, their output is a stream, and who gives up waiting ends them.",
		where:   "isolate: the runtime's poller watches the jails; the context ends the whole tree",
		shown:   []string{"isolate.TestManyAtOnce", "isolate.TestCancel", "isolate.TestCancelWhileStarting", "isolate.TestWaitDelay", "isolate.TestOutputOrder", "integration.TestP73_OrphansDieWithTheLauncher"},
		missing: "cmd.Lines, output line by line, is not built (StdoutPipe and bufio.Scanner do it)",
	},
	{
		numbers: "9.3",
		says:    "A pipe holds up who writes faster than is read; what is to happen beyond a limit is a choice.",
		where:   "isolate: Spec.OutputLimit and OutputAction: kill, truncate or block",
		shown:   []string{"integration.TestOutputLimit", "integration.TestOutputOfMany", "isolate.TestOutputHeldOutside"},
	},
	{
		numbers: "9.4.2, 10.1",
		says:    "A signal handler may do next to nothing, so signals become data: through a pipe to a loop that passes them on.",
		where:   "signals.Relay",
		shown:   []string{"signals.TestEveryStandardSignal", "signals.TestEveryRealTimeSignal", "signals.TestBurst", "signals.TestBurstWithFullPipe", "signals.TestRealTimeOrder", "signals.TestStopAndContinue", "isolate.TestQueuedSignals", "integration.TestSignalsReachThePayload"},
	},
	{
		numbers: "10.2",
		says:    "Systems differ in how processes are made and what they inherit.",
		where:   "everything builds on darwin and windows (scripts/cross.sh) and says there what it needs; fds are closed at exec unless they are passed",
		shown:   []string{"signals.TestUnsupported", "jail.TestUnsupported", "integration.TestP01_P02_InheritedFDs", "integration.TestP01_FDsWithClosedStdio"},
		missing: "a --detach, to go on in the background, is not built",
	},
	{
		numbers: "10.3.2",
		says:    "What processes share as a file can have a type, and an access that locks.",
		where:   "ipc.ReadOnlyFile, ipc.SharedFile",
		shown:   []string{"ipc.TestSharedFileLockRemoved", "ipc.TestSharedFileJSON", "ipc.TestSharedFileOfOthers", "ipc.TestFixedFormatRefusesTypes"},
	},
	{
		numbers: "10.4.1",
		says:    "Limits differ from system to system: of a process, and of a group.",
		where:   "isolate: every rlimit by its name; cgroup: v1, v2 and both",
		shown:   []string{"integration.TestP60_EveryLimit", "integration.TestP54_ForkBomb", "integration.TestP55_MemoryHog", "integration.TestP58_CPUTime", "integration.TestP58_Timeout", "integration.TestP56_DiskIsBounded", "cgroup.TestLimits"},
	},
	{
		numbers: "10.4.2",
		says:    "Isolation has levels, of which each has what the one before has.",
		where:   "isolate: basic, user, namespaced, limited, contained",
		shown:   []string{"integration.TestLevelsOfThisHost", "integration.TestPropertiesTable", "isolate.TestGolden", "isolate.TestDowngrade"},
	},
	{
		numbers: "10.4.3",
		says:    "A sandbox is its permissions, borders, watched actions and ways out; the last are never known to be none.",
		where:   "policies; jail explain says what a payload could do; SECURITY.md says what is not promised",
		shown:   []string{"isolate.ExampleExplain", "integration.TestPropertiesTable", "integration.TestMonitorReports", "integration.TestHostile"},
		missing: "jail audit, which would try the ways out on this host, is not built",
	},
}

const root = "../.."

// tree returns the tests (package.Name) and models (name.pml) that there are.
func tree(t *testing.T) map[string]bool {
	t.Helper()
	found := map[string]bool{}
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := entry.Name()
		if entry.IsDir() {
			if path != root && (strings.HasPrefix(name, ".") || name == "testdata" || name == "bin") {
				return fs.SkipDir
			}
			return nil
		}
		if strings.HasSuffix(name, ".pml") {
			found[name] = true
		}
		if !strings.HasSuffix(name, "_test.go") {
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		for _, declaration := range file.Decls {
			f, ok := declaration.(*ast.FuncDecl)
			if ok && f.Recv == nil && regexp.MustCompile(`^(Test|Fuzz|Example)`).MatchString(f.Name.Name) {
				found[filepath.Base(filepath.Dir(path))+"."+f.Name.Name] = true
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

var statement = regexp.MustCompile(`\.TestTheorem_((?:\d+_)+)`)

// rowOf returns the row that the name of a test belongs to, -1 if there is none.
func rowOf(test string) int {
	match := statement.FindStringSubmatch(test)
	if match == nil {
		return -1
	}
	number := strings.ReplaceAll(match[1], "_", ".") // with a dot at its end
	best, length := -1, 0
	for i, r := range rows {
		for chapter := range strings.SplitSeq(r.numbers, ", ") {
			if strings.HasPrefix(number, chapter+".") && len(chapter) > length {
				best, length = i, len(chapter)
			}
		}
	}
	return best
}

// TestTheorems: the document is what the rows say, and each test and model that shows a statement exists and is in it.
func TestTheorems(t *testing.T) {
	found := tree(t)
	shown := make([][]string, len(rows))
	for name := range found {
		if !strings.Contains(name, ".TestTheorem_") {
			continue
		}
		if i := rowOf(name); i >= 0 {
			shown[i] = append(shown[i], name)
		} else {
			t.Errorf("%s is named after a statement that has no row", name)
		}
	}
	models := map[string]bool{}
	for i, r := range rows {
		slices.Sort(shown[i])
		for _, name := range r.shown {
			if !found[name] {
				t.Errorf("%s: there is no %s", r.numbers, name)
			}
			if strings.Contains(name, ".TestTheorem_") {
				t.Errorf("%s: %s gets into the table by its name", r.numbers, name)
			}
			models[name] = true
		}
		shown[i] = append(shown[i], r.shown...)
		if len(shown[i]) == 0 && r.missing == "" {
			t.Errorf("%s: nothing shows it, and nothing says so", r.numbers)
		}
	}
	for name := range found {
		if strings.HasSuffix(name, ".pml") && !models[name] {
			t.Errorf("the model %s is in no row", name)
		}
	}

	var b strings.Builder
	b.WriteString(`# What is stated, and what shows it

Statements about processes, synchronisation, communication and isolation, by the chapters of the account that they come
from. A test that is named after a statement has its number: ` + "`grep -r TestTheorem_`" + ` lists them. The names are
PACKAGE.TEST; a model (` + "`ipc/models`" + `) is searched whole by ` + "`make models`" + `, which also shows that it can fail. The table is
made from ` + "`tests/theorems`" + `, which fails if a name is not there.

| number | statement | where | shown by | missing |
|---|---|---|---|---|
`)
	for i, r := range rows {
		by := ""
		if len(shown[i]) > 0 {
			by = "`" + strings.Join(shown[i], "`, `") + "`"
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s |\n", r.numbers, r.says, r.where, by, r.missing)
	}
	path := filepath.Join(root, "docs", "theorems.md")
	if *update {
		if err := os.WriteFile(path, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(text), b.String()); diff != "" {
		t.Errorf("go test ./tests/theorems -update makes it anew (-is +should be)\n%s", diff)
	}
}
