package main

import (
	"bytes"
	"strings"
	"testing"
)

// The events are shortened ones of go test -json.
const events = `
{"Action":"run","Package":"p","Test":"TestA"}
{"Action":"run","Package":"p","Test":"TestA/one"}
{"Action":"run","Package":"p","Test":"TestA/two"}
{"Action":"pass","Package":"p","Test":"TestA/one"}
{"Action":"output","Package":"p","Test":"TestA/two","Output":"    a_test.go:7: wrong\n"}
{"Action":"fail","Package":"p","Test":"TestA/two"}
{"Action":"fail","Package":"p","Test":"TestA"}
{"Action":"run","Package":"p","Test":"TestB"}
{"Action":"output","Package":"p","Test":"TestB","Output":"    b_test.go:9: host lacks: unicorns\n"}
{"Action":"output","Package":"p","Test":"TestB","Output":"--- SKIP: TestB (0.00s)\n"}
{"Action":"skip","Package":"p","Test":"TestB"}
{"Action":"run","Package":"p","Test":"TestC"}
{"Action":"output","Package":"p","Test":"TestC","Output":"    c_test.go:11: not today\n"}
{"Action":"skip","Package":"p","Test":"TestC"}
{"Action":"run","Package":"p","Test":"TestD"}
{"Action":"output","Package":"p","Test":"TestD","Output":"    d_test.go:13: vacuous here: no unicorns\n"}
{"Action":"pass","Package":"p","Test":"TestD"}
{"Action":"fail","Package":"p"}
{"ImportPath":"q","Action":"build-output","Output":"q.go:1:1: no\n"}
{"Action":"fail","Package":"q"}
{"Action":"skip","Package":"r"}
`

func TestSummary(t *testing.T) {
	var progress, end bytes.Buffer
	s := newSummary([]string{"host lacks: "})
	s.read(strings.NewReader(events), &progress)
	s.print(&end)
	want := "\nskipped, host lacks: unicorns\n    p TestB\nvacuous here: no unicorns (1)\n2 passed, 3 failed, 1 skipped\n"
	if end.String() != want {
		t.Errorf("got %q, want %q", end.String(), want)
	}
	for _, part := range []string{"a_test.go:7: wrong", "FAILED p TestC (skipped", "not today", "q.go:1:1: no", "FAILED q (the package)"} {
		if !strings.Contains(progress.String(), part) {
			t.Errorf("%q is missing in %s", part, progress.String())
		}
	}
}
