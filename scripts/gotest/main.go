// Command gotest runs `go test` with its arguments and sums up: what failed, with its output; what was skipped, with
// the reason; and the counts, alone on the last line. With the one argument "-" it runs nothing, and sums up the events
// of `go tool test2json` that it reads.
//
// A line "vacuous here: …" of a test says that a probe proved nothing on this host: those are counted apart.
//
// A skip counts as a failure unless its reason starts with "host lacks: " (a kernel feature or a program that this
// machine does not have), or with "only in test-full: " in a plain run. So a test can't go quiet unseen: one that is
// skipped where its feature exists fails the run.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"sort"
	"strings"
)

func main() {
	allowed := []string{"host lacks: "}
	if os.Getenv("JAIL_TEST_FULL") == "" {
		allowed = append(allowed, "only in test-full: ")
	}
	s := newSummary(allowed)
	if slices.Equal(os.Args[1:], []string{"-"}) {
		s.read(os.Stdin, os.Stdout)
		s.finish(nil)
	}
	cmd := exec.Command("go", append([]string{"test", "-json"}, os.Args[1:]...)...)
	cmd.Stderr = os.Stderr
	private(cmd)
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "gotest:", err)
		os.Exit(1)
	}
	s.read(out, os.Stdout)
	s.finish(cmd.Wait())
}

// finish prints the summary and exits: 0 if all is well.
func (s *summary) finish(err error) {
	s.print(os.Stdout)
	if err != nil || s.failed > 0 || s.passed == 0 {
		os.Exit(1)
	}
	os.Exit(0)
}

// event is a line of test2json; see `go doc test2json`.
type event struct {
	Action, Package, ImportPath, Test, Output string
	Elapsed                                   float64
}

type id struct{ pkg, test string }

type summary struct {
	allowed                 []string
	output                  map[id][]string
	parents                 map[id]bool         // tests whose subtests are counted instead of them
	failedBelow             map[id]bool         // packages and tests in which a failure was counted
	skips                   map[string][]string // reason → tests
	vacuous                 map[string]int      // "vacuous here: REASON" → how often it was said
	passed, failed, skipped int
}

func newSummary(allowed []string) *summary {
	return &summary{
		allowed: allowed, output: map[id][]string{}, parents: map[id]bool{},
		failedBelow: map[id]bool{}, skips: map[string][]string{}, vacuous: map[string]int{},
	}
}

// read takes the events from r and prints to w what goes wrong as soon as it is known, and one line for each package.
func (s *summary) read(r io.Reader, w io.Writer) {
	lines := bufio.NewReader(r)
	for {
		line, err := lines.ReadBytes('\n')
		var e event
		if json.Unmarshal(line, &e) == nil {
			s.take(e, w)
		} else {
			w.Write(line) // not of test2json: show it
		}
		if err != nil {
			return
		}
	}
}

func (s *summary) take(e event, w io.Writer) {
	key := id{e.Package, e.Test}
	switch e.Action {
	case "run":
		for _, parent := range parents(e.Test) {
			s.parents[id{e.Package, parent}] = true
		}
	case "output":
		s.output[key] = append(s.output[key], e.Output)
		if at := place.FindString(e.Output); at != "" && strings.HasPrefix(e.Output[len(at):], "vacuous here: ") {
			s.vacuous[strings.TrimSpace(e.Output[len(at):])]++
		}
	case "build-output":
		fmt.Fprint(w, e.Output)
	case "pass", "fail", "skip":
		s.end(e, key, w)
		delete(s.output, key)
	}
}

func (s *summary) end(e event, key id, w io.Writer) {
	out := s.output[key]
	name := strings.TrimSpace(e.Package + " " + e.Test)
	switch {
	case e.Test == "" && e.Action == "fail":
		// One that failed without a test that did: it did not build, or a process of it died.
		if !s.failedBelow[key] {
			s.fail(w, key, "(the package)", out)
		}
		fmt.Fprintf(w, "FAIL %s %.1f s\n", e.Package, e.Elapsed)
	case e.Test == "" && e.Action == "pass":
		fmt.Fprintf(w, "ok   %s %.1f s\n", e.Package, e.Elapsed)
	case e.Test == "":
		// no test files
	case e.Action == "skip":
		reason := skipReason(out)
		if !slices.ContainsFunc(s.allowed, func(p string) bool { return strings.HasPrefix(reason, p) }) {
			s.fail(w, key, e.Test+" (skipped without a reason that counts: \"host lacks: …\")", out)
			return
		}
		s.skipped++
		s.skips[reason] = append(s.skips[reason], name)
	case e.Action == "fail" && s.failedBelow[key]:
		fmt.Fprint(w, strings.Join(out, "")) // its subtest was counted
	case e.Action == "fail":
		s.fail(w, key, e.Test, out)
	case !s.parents[key]:
		s.passed++
	}
}

func (s *summary) fail(w io.Writer, key id, what string, out []string) {
	s.failed++
	s.failedBelow[id{key.pkg, ""}] = true
	for _, parent := range parents(key.test) {
		s.failedBelow[id{key.pkg, parent}] = true
	}
	fmt.Fprintf(w, "\nFAILED %s %s\n%s\n", key.pkg, what, strings.Join(out, ""))
}

// parents of A/b/c are A/b and A.
func parents(test string) (list []string) {
	for i := strings.LastIndexByte(test, '/'); i >= 0; i = strings.LastIndexByte(test, '/') {
		test = test[:i]
		list = append(list, test)
	}
	return list
}

var place = regexp.MustCompile(`^\s*[\w.-]+\.go:\d+: `)

// skipReason is what a test said last, without the file and line that testing puts before it.
func skipReason(out []string) string {
	for _, line := range slices.Backward(out) {
		if at := place.FindString(line); at != "" {
			return strings.TrimSpace(line[len(at):])
		}
	}
	return ""
}

func (s *summary) print(w io.Writer) {
	fmt.Fprintln(w)
	var reasons []string
	for r := range s.skips {
		reasons = append(reasons, r)
	}
	sort.Strings(reasons)
	for _, r := range reasons {
		fmt.Fprintf(w, "skipped, %s\n    %s\n", r, strings.Join(s.skips[r], "\n    "))
	}
	for _, what := range slices.Sorted(maps.Keys(s.vacuous)) {
		fmt.Fprintf(w, "%s (%d)\n", what, s.vacuous[what])
	}
	fmt.Fprintf(w, "%d passed, %d failed, %d skipped\n", s.passed, s.failed, s.skipped)
}
