package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"
)

// An ipcFigure is one cell of the tables of group ipc.
type ipcFigure struct {
	Part    string  `json:"part"` // ipc
	Test    string  `json:"test"`
	Place   string  `json:"place"`
	Name    string  `json:"name"`
	Value   float64 `json:"value"`         // the median, or a rate
	P99     float64 `json:"p99,omitempty"` // of the same round
	Unit    string  `json:"unit"`
	Peer    string  `json:"peer,omitempty"`
	Ratio   float64 `json:"ratio,omitempty"` // of the values, to the peer's
	Goal    string  `json:"goal,omitempty"`
	Reached *bool   `json:"reached,omitempty"`
	Problem string  `json:"problem,omitempty"`
}

// A goal is a limit for a value, or for its ratio to the first row's.
type goal struct {
	limit          float64
	ratio, atLeast bool
}

// An ipcRow is what is measured: a program of tests/bench/peers, its test, and where.
type ipcRow struct {
	name    string
	program string
	args    []string
	places  []string
	goals   map[string]goal // by place
}

// An ipcTest is a table. Programs print nanoseconds an operation; unit says what becomes of them.
type ipcTest struct {
	name  string
	file  string // of the plot: docs/ipc-FILE.svg
	unit  string // ns, µs, or M/s: millions a second
	bytes int    // the programs' argument: of a message, or descriptors in one
	rows  []ipcRow
}

// Where the two processes run.
const (
	sameCore  = "same core"
	crossCore = "cross core"
	spinning  = "spinning"
	alone     = "one process"
)

var (
	waits    = []string{sameCore, crossCore}
	all      = []string{sameCore, crossCore, spinning}
	ipcTests = []ipcTest{
		{name: "round trip of 64 B", file: "rtt-64", unit: "µs", bytes: 64, rows: slices.Concat([]ipcRow{
			{name: "futex, or one cache line (C)", program: "floor", args: []string{"rtt"}, places: all},
			{name: "futex, or one cache line (Go)", program: "peers", args: []string{"futex", "rtt"}, places: all},
		}, channels("rtt"), []ipcRow{
			{name: "jail Channel", program: "peers", args: []string{"jail/channel", "rtt"}, places: all, goals: map[string]goal{
				sameCore: {limit: 1.2, ratio: true}, crossCore: {limit: 1.2, ratio: true}, spinning: {limit: 0.2},
			}},
			{name: "jail Ring, copied in and out", program: "peers", args: []string{"jail/ring-copy", "rtt"}, places: all},
			{name: "jail Ring, loaned", program: "peers", args: []string{"jail/ring", "rtt"}, places: all},
		})},
		{name: "round trip of 64 KiB", file: "rtt-64k", unit: "µs", bytes: 64 << 10, rows: slices.Concat(channels("rtt"), []ipcRow{
			{name: "jail Channel", program: "peers", args: []string{"jail/channel-64k", "rtt"}, places: all},
			{name: "jail Ring, copied in and out", program: "peers", args: []string{"jail/ring-copy", "rtt"}, places: all},
			{name: "jail Ring, loaned", program: "peers", args: []string{"jail/ring", "rtt"}, places: all},
		})},
		{name: "64 KiB handed over in one process", file: "loan", unit: "µs", bytes: 64 << 10, rows: []ipcRow{
			{name: "memcpy (C)", program: "floor", args: []string{"memcpy"}, places: []string{alone}},
			{name: "iceoryx, loaned (C++)", program: "iceoryx", args: []string{"loan"}, places: []string{alone}},
			{name: "jail Ring, loaned", program: "peers", args: []string{"jail/one-ring", "loan"}, places: []string{alone}, goals: map[string]goal{alone: {limit: 1}}},
		}},
		{name: "messages of 64 B, one way", file: "messages", unit: "M/s", bytes: 64, rows: slices.Concat([]ipcRow{
			{name: "ring that copies (C)", program: "floor", args: []string{"stream"}, places: []string{spinning}},
		}, channels("stream"), []ipcRow{
			{name: "jail Channel", program: "peers", args: []string{"jail/channel", "stream"}, places: all},
			{name: "jail Ring, copied in and out", program: "peers", args: []string{"jail/ring-copy", "stream"}, places: all, goals: map[string]goal{spinning: {limit: 20, atLeast: true}}},
			{name: "jail Ring, loaned", program: "peers", args: []string{"jail/ring", "stream"}, places: all},
		})},
		{name: "descriptors passed, one a message", file: "fds-1", unit: "M/s", bytes: 1, rows: append(descriptors(0.3),
			ipcRow{name: "jail broker, open after open", program: "peers", args: []string{"jail/broker", "open"}, places: waits},
			ipcRow{name: "jail broker, 64 opens at once", program: "peers", args: []string{"jail/broker", "opens"}, places: waits},
		)},
		{name: "descriptors passed, 28 a message", file: "fds-28", unit: "M/s", bytes: 28, rows: append(descriptors(2),
			ipcRow{name: "jail broker, 28 files an open", program: "peers", args: []string{"jail/broker", "batch"}, places: waits},
		)},
		{name: "lock and unlock that nobody else wants", file: "mutex", unit: "ns", rows: []ipcRow{
			{name: "compare-and-swap, twice (C)", program: "floor", args: []string{"cas"}, places: []string{alone}},
			{name: "glibc's robust mutex (C)", program: "lock", args: []string{"mutex"}, places: []string{alone}},
			{name: "jail Mutex", program: "peers", args: []string{"jail/free-mutex", "mutex"}, places: []string{alone}, goals: map[string]goal{alone: {limit: 12}}},
		}},
		{name: "lock and unlock that two processes fight for", file: "mutex-contended", unit: "ns", rows: []ipcRow{
			{name: "compare-and-swap in a loop (C)", program: "floor", args: []string{"locks"}, places: []string{crossCore, spinning}},
			{name: "glibc's robust mutex (C)", program: "lock", args: []string{"locks"}, places: []string{crossCore}},
			{name: "jail Mutex", program: "peers", args: []string{"jail/mutex", "locks"}, places: []string{crossCore, spinning}, goals: map[string]goal{crossCore: {limit: 40}, spinning: {limit: 40}}},
		}},
		{name: "lock and unlock a file", file: "flock", unit: "µs", rows: []ipcRow{
			{name: "flock, kept open (C)", program: "lock", args: []string{"flock"}, places: []string{alone}},
			{name: "OFD lock, kept open (C)", program: "lock", args: []string{"ofd"}, places: []string{alone}},
			{name: "open, flock, close (C)", program: "lock", args: []string{"open"}, places: []string{alone}},
			{name: "flock, kept open (Go)", program: "peers", args: []string{"flock", "pair"}, places: []string{alone}},
			{name: "jail FileLock", program: "peers", args: []string{"jail/filelock", "pair"}, places: []string{alone}, goals: map[string]goal{alone: {limit: 1.1}}},
			{name: "gofrs/flock", program: "peers", args: []string{"gofrs/flock", "pair"}, places: []string{alone}},
		}},
	}
)

// channels are the peers that carry messages.
func channels(test string) []ipcRow {
	return []ipcRow{
		{name: "SOCK_SEQPACKET (C)", program: "seqpacket", args: []string{test}, places: all},
		{name: "SOCK_SEQPACKET (Go, system calls)", program: "peers", args: []string{"seqpacket", test}, places: all},
		{name: "net.UnixConn", program: "peers", args: []string{"unixconn", test}, places: waits},
		{name: "net/rpc", program: "peers", args: []string{"net/rpc", test}, places: waits},
		{name: "ttrpc", program: "peers", args: []string{"ttrpc", test}, places: waits},
		{name: "grpc over a Unix socket", program: "peers", args: []string{"grpc", test}, places: waits},
		{name: "libzmq, PAIR over ipc:// (C)", program: "zmq", args: []string{test}, places: waits},
		{name: "Boost message_queue (C++)", program: "boost", args: []string{test}, places: all},
		{name: "iceoryx (C++)", program: "iceoryx", args: []string{test}, places: all},
	}
}

// descriptors are the peers that pass descriptors, of which package ipc is to pass so many millions a second.
func descriptors(millions float64) []ipcRow {
	enough := goal{limit: millions, atLeast: true}
	return []ipcRow{
		{name: "SCM_RIGHTS (C)", program: "seqpacket", args: []string{"fds"}, places: waits},
		{name: "SCM_RIGHTS, net.UnixConn", program: "peers", args: []string{"unixconn", "fds"}, places: waits},
		{name: "jail FDSocket, by number", program: "peers", args: []string{"jail/fds", "fds"}, places: waits, goals: map[string]goal{sameCore: enough, crossCore: enough}},
		{name: "jail FDSocket, as files", program: "peers", args: []string{"jail/fds", "files"}, places: waits},
	}
}

const (
	ipcTime = 200 * time.Millisecond // of one measurement
	idleFor = 5 * time.Second
)

// measureIPC measures all rows in rounds: in each of them every row has its turn, so that a busy moment of the machine
// hits all alike. What counts is a row's best round.
func (b *bench) measureIPC() error {
	cpus, err := twoCPUs()
	if err != nil {
		return err
	}
	problems := b.buildPeers()
	if problems["iceoryx"] == nil {
		stop, err := b.startRouDi()
		if err == nil {
			defer stop()
		}
		problems["iceoryx"] = err
	}
	type cell struct{ test, row, place int }
	best := map[cell][2]float64{}
	failed := map[cell]string{}
	for range max(b.runs/40, 1) {
		for t, test := range ipcTests {
			for r, row := range test.rows {
				for p, place := range row.places {
					at := cell{t, r, p}
					ns, err := b.measureRow(test, row, place, cpus, problems)
					if err != nil {
						failed[at] = err.Error()
					} else if old, ok := best[at]; !ok || ns[0] < old[0] {
						best[at] = ns
					}
				}
			}
		}
	}
	for t, test := range ipcTests {
		values := map[string]float64{} // of the first row that has the place, by place
		for r, row := range test.rows {
			for p, place := range row.places {
				f := ipcFigure{Part: "ipc", Test: test.name, Place: place, Name: row.name, Unit: test.unit}
				ns, ok := best[cell{t, r, p}]
				if !ok {
					f.Problem = failed[cell{t, r, p}]
					b.addIPC(f)
					continue
				}
				f.Value, f.P99 = inUnit(ns[0], test.unit), inUnit(ns[1], test.unit)
				if first, ok := values[place]; ok {
					f.Peer, f.Ratio = test.rows[0].name, f.Value/first
				} else if r == 0 {
					values[place] = f.Value
				}
				if g, ok := row.goals[place]; ok {
					f.judge(g)
				}
				b.addIPC(f)
			}
		}
	}
	b.idle(cpus, problems)
	return nil
}

func (b *bench) addIPC(f ipcFigure) {
	b.ipc = append(b.ipc, f)
	if f.Problem != "" {
		fmt.Fprintf(os.Stderr, "%s, %s, %s: %s\n", f.Test, f.Name, f.Place, f.Problem)
	}
}

func inUnit(ns float64, unit string) float64 {
	switch {
	case unit == "µs":
		return ns / 1000
	case unit == "M/s" && ns > 0:
		return 1000 / ns
	}
	return ns
}

func (f *ipcFigure) judge(g goal) {
	measured, unit, sign := f.Value, f.Unit, "≤"
	if g.ratio {
		measured, unit = f.Ratio, "×"
	}
	reached := measured <= g.limit
	if g.atLeast {
		sign, reached = "≥", measured >= g.limit
	}
	f.Goal, f.Reached = fmt.Sprintf("%s %g %s", sign, g.limit, unit), &reached
}

// measureRow runs a program once and returns the p50 and p99 that it prints, in nanoseconds.
func (b *bench) measureRow(test ipcTest, row ipcRow, place string, cpus [2]string, problems map[string]error) (ns [2]float64, err error) {
	if err := problems[row.program]; err != nil {
		return ns, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	var said bytes.Buffer
	c := b.peerCommand(ctx, row, place, cpus, strconv.Itoa(test.bytes))
	c.Stderr = &said
	out, err := c.Output()
	if err == nil {
		lines := strings.Split(strings.TrimSpace(string(out)), "\n") // iceoryx has something to say before
		_, err = fmt.Sscan(lines[len(lines)-1], &ns[0], &ns[1])
	}
	if err != nil {
		text := said.String()
		err = fmt.Errorf("%w: %s", err, strings.TrimSpace(text[:min(len(text), 500)]))
	}
	return ns, err
}

func (b *bench) peerCommand(ctx context.Context, row ipcRow, place string, cpus [2]string, bytes string) *exec.Cmd {
	first, second, mode := cpus[0], cpus[1], "wait"
	switch place {
	case sameCore:
		second = first
	case spinning:
		mode = "spin"
		if row.program == "peers" { // one that sees a single CPU does not spin
			first = cpus[0] + "," + cpus[1]
			second = first
		}
	}
	args := slices.Concat([]string{"-c", first, b.program(row.program)}, row.args, []string{bytes, strconv.Itoa(int(ipcTime.Milliseconds())), second, mode})
	c := exec.CommandContext(ctx, "taskset", args...)
	c.Dir = b.work
	c.Env = append(os.Environ(), "TMPDIR="+b.work)
	return c
}

// twoCPUs are two CPUs of different cores that we may use.
func twoCPUs() (cpus [2]string, err error) {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		return cpus, fmt.Errorf("sched_getaffinity: %w", err)
	}
	siblings := ""
	for cpu := range len(set) * 64 {
		if !set.IsSet(cpu) {
			continue
		}
		text, _ := os.ReadFile(fmt.Sprintf("/sys/devices/system/cpu/cpu%d/topology/thread_siblings_list", cpu))
		if cpus[0] == "" {
			cpus[0], siblings = strconv.Itoa(cpu), string(text)
		} else if siblings == "" || string(text) != siblings {
			cpus[1] = strconv.Itoa(cpu)
			return cpus, nil
		}
	}
	return cpus, errors.New("host lacks: a second core, without which nothing crosses cores")
}

// buildPeers says of each program why it could not be built.
func (b *bench) buildPeers() map[string]error {
	const dir = "tests/bench/peers"
	problems := map[string]error{}
	build := func(name string, args ...string) {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			problems[name] = fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(string(out[:min(len(out), 500)])))
		}
	}
	for _, name := range []string{"floor", "seqpacket", "lock"} {
		build(name, "gcc", "-O2", "-Wall", "-pthread", "-o", b.program(name), filepath.Join(dir, "c", name+".c"))
	}
	flags, err := exec.Command("pkg-config", "--cflags", "--libs", "libzmq").Output()
	if err != nil {
		problems["zmq"] = fmt.Errorf("pkg-config libzmq: %w", err)
	} else {
		build("zmq", append([]string{"gcc", "-O2", "-Wall", "-o", b.program("zmq"), dir + "/c/zmq.c"}, strings.Fields(string(flags))...)...)
	}
	build("boost", "g++", "-O2", "-Wall", "-o", b.program("boost"), dir+"/c/boost.cc", "-lrt", "-pthread")
	if headers, _ := filepath.Glob("/usr/include/iceoryx/v*"); len(headers) == 0 { // it has no pkg-config file
		problems["iceoryx"] = errors.New("host lacks: /usr/include/iceoryx of libiceoryx-posh-dev")
	} else {
		build("iceoryx", "g++", "-std=c++17", "-O2", "-Wall", "-isystem", headers[0], "-o", b.program("iceoryx"),
			dir+"/c/iceoryx.cc", "-liceoryx_posh", "-liceoryx_hoofs", "-liceoryx_platform", "-pthread")
	}
	build("peers", "go", "-C", dir, "build", "-buildvcs=false", "-o", b.program("peers"), ".")
	return problems
}

// startRouDi starts iceoryx's daemon and returns what ends it.
func (b *bench) startRouDi() (stop func(), err error) {
	c := exec.Command("iox-roudi", "--log-level", "error", "--kill-delay", "1")
	c.Dir = b.work
	var said bytes.Buffer
	c.Stderr = &said
	out, err := c.StdoutPipe()
	if err == nil {
		err = c.Start()
	}
	if err != nil {
		return nil, err
	}
	lines := bufio.NewScanner(out)
	for lines.Scan() && !strings.Contains(lines.Text(), "ready for clients") {
	}
	if !strings.Contains(lines.Text(), "ready for clients") {
		err := c.Wait()
		text := said.String()
		return nil, fmt.Errorf("iox-roudi: %w: %s", err, text[:min(len(text), 500)])
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_, _ = io.Copy(io.Discard, out)
		_ = c.Wait()
	}()
	return func() {
		_ = c.Process.Signal(unix.SIGTERM)
		select {
		case <-ended:
		case <-time.After(5 * time.Second):
			_ = c.Process.Kill()
			<-ended
		}
	}, nil
}

// idle measures the CPU time of processes that wait for a message, all at the same time.
func (b *bench) idle(cpus [2]string, problems map[string]error) {
	type waiter struct {
		row   ipcRow
		pid   int
		begin time.Duration
	}
	var waiters []waiter
	test := ipcTest{name: fmt.Sprintf("CPU time of a waiting receiver in %.0f s", idleFor.Seconds()), unit: "µs"}
	problem := func(row ipcRow, err error) {
		b.addIPC(ipcFigure{Part: "ipc", Test: test.name, Place: crossCore, Name: row.name, Unit: test.unit, Problem: err.Error()})
	}
	rows := slices.Clone(ipcTests[0].rows)
	for i, row := range rows {
		args := slices.Clone(row.args)
		args[len(args)-1] = "idle"
		rows[i].args = args
		if err := problems[row.program]; err != nil {
			problem(row, err)
			continue
		}
		c := b.peerCommand(context.Background(), rows[i], crossCore, cpus, "64")
		in, err1 := c.StdinPipe()
		out, err2 := c.StdoutPipe()
		if err := cmp.Or(err1, err2, c.Start()); err != nil {
			problem(row, err)
			continue
		}
		defer func() {
			in.Close()
			_, _ = io.Copy(io.Discard, out)
			_ = c.Wait()
		}()
		w := waiter{row: row}
		for lines := bufio.NewScanner(out); w.pid == 0 && lines.Scan(); {
			w.pid, _ = strconv.Atoi(lines.Text())
		}
		if w.pid == 0 {
			problem(row, errors.New("it did not answer"))
			continue
		}
		waiters = append(waiters, w)
	}
	time.Sleep(time.Second) // what is left of the start
	for i, w := range waiters {
		waiters[i].begin = cpuTime(w.pid)
	}
	time.Sleep(idleFor)
	for _, w := range waiters {
		took := cpuTime(w.pid) - w.begin
		f := ipcFigure{Part: "ipc", Test: test.name, Place: crossCore, Name: w.row.name, Unit: test.unit, Value: float64(took.Nanoseconds()) / 1000}
		if strings.HasPrefix(f.Name, "jail") {
			f.judge(goal{limit: float64(idleFor.Microseconds()) / 1000}) // a thousandth of a CPU
		}
		b.addIPC(f)
	}
}

// cpuTime is the CPU time of a process; see clock_getcpuclockid(3) for the number of its clock.
func cpuTime(pid int) time.Duration {
	var t unix.Timespec
	const process = 2
	if err := unix.ClockGettime(int32(^pid<<3|process), &t); err != nil {
		return 0
	}
	return time.Duration(t.Nano())
}

// printIPC prints a table for each test: p50, p99 and the ratio to the first row, for each place.
func (b *bench) printIPC() {
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	for _, test := range b.ipcByTest() {
		places, names := columns(test)
		fmt.Fprintf(w, "\n%s, %s", test[0].Test, test[0].Unit)
		for _, place := range places {
			fmt.Fprintf(w, "\t%s: p50\tp99\tratio", place)
		}
		fmt.Fprint(w, "\tgoal\t\n")
		for _, name := range names {
			fmt.Fprintf(w, "  %s", name)
			var goals []string
			for _, place := range places {
				f, ok := find(test, name, place)
				switch {
				case !ok:
					fmt.Fprint(w, "\t\t\t")
				case f.Problem != "":
					fmt.Fprint(w, "\tnot measured\t\t")
				case f.P99 == 0:
					fmt.Fprintf(w, "\t%s\t\t%s", digits(f.Value), number(f.Ratio))
				default:
					fmt.Fprintf(w, "\t%s\t%s\t%s", digits(f.Value), digits(f.P99), number(f.Ratio))
				}
				if f.Goal != "" {
					verdict := "missed"
					if *f.Reached {
						verdict = "reached"
					}
					goals = append(goals, fmt.Sprintf("%s: %s %s", place, f.Goal, verdict))
				}
			}
			fmt.Fprintf(w, "\t%s\t\n", strings.Join(goals, ", "))
		}
	}
	w.Flush()
}

// ipcByTest splits the figures by their test.
func (b *bench) ipcByTest() (tests [][]ipcFigure) {
	for i, f := range b.ipc {
		if i == 0 || f.Test != b.ipc[i-1].Test {
			tests = append(tests, nil)
		}
		tests[len(tests)-1] = append(tests[len(tests)-1], f)
	}
	return tests
}

// columns are the places and the names of a test in the order in which they are met; spinning, which the first row may
// be alone with, stands last.
func columns(test []ipcFigure) (places, names []string) {
	for _, place := range []string{alone, sameCore, crossCore, spinning} {
		if slices.ContainsFunc(test, func(f ipcFigure) bool { return f.Place == place }) {
			places = append(places, place)
		}
	}
	for _, f := range test {
		if !slices.Contains(names, f.Name) {
			names = append(names, f.Name)
		}
	}
	return places, names
}

func find(test []ipcFigure, name, place string) (ipcFigure, bool) {
	i := slices.IndexFunc(test, func(f ipcFigure) bool { return f.Name == name && f.Place == place })
	if i < 0 {
		return ipcFigure{}, false
	}
	return test[i], true
}

// digits prints three of them, or all before the point.
func digits(v float64) string {
	switch {
	case v == 0 || v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	case v >= 1:
		return fmt.Sprintf("%.2f", v)
	}
	return fmt.Sprintf("%.3f", v)
}
