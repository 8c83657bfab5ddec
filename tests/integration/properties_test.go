//go:build linux

package integration

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestPropertiesTable: the table of SECURITY.md names tests that exist, and all that are named by a number; where one of
// them may prove nothing, the table says so.
func TestPropertiesTable(t *testing.T) {
	vacuousIn := map[string]bool{} // by test: whether it may be
	for _, dir := range []string{".", "../../seccomp", "../../isolate"} {
		files, err := filepath.Glob(dir + "/*_test.go")
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range files {
			file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
			if err != nil {
				t.Fatal(err)
			}
			for _, d := range file.Decls {
				if f, ok := d.(*ast.FuncDecl); ok && f.Recv == nil && strings.HasPrefix(f.Name.Name, "Test") {
					vacuousIn[f.Name.Name] = calls(f, "vacuous")
				}
			}
		}
	}
	text, err := os.ReadFile("../../SECURITY.md")
	if err != nil {
		t.Fatal(err)
	}
	number := regexp.MustCompile(`P\d\d`)
	rows := map[string][]string{} // the tests of a number
	held := map[string]int{}      // how many from a level on
	last := ""
	for line := range strings.Lines(string(text)) {
		f := strings.Split(strings.TrimSpace(line), "|")
		if len(f) != 7 || !number.MatchString(f[1]) {
			continue
		}
		for i := range f {
			f[i] = strings.TrimSpace(f[i])
		}
		p, what, from, state := f[1], f[2], f[3], f[4]
		if p <= last || what == "" {
			t.Errorf("%s comes after %s: %q", p, last, what)
		}
		last = p
		if !slices.Contains(allLevels, from) {
			t.Errorf("%s: from level %q", p, from)
		}
		if state != "not promised" && !strings.HasPrefix(state, "held") && !strings.HasPrefix(state, "not promised: ") {
			t.Errorf("%s: its state is %q", p, state)
		}
		if strings.HasPrefix(state, "held") {
			held[from]++
		}
		mayBe := false
		for _, test := range strings.Fields(f[5]) {
			test = strings.Trim(test, "`")
			v, ok := vacuousIn[test]
			if !ok {
				t.Errorf("%s: there is no %s", p, test)
			}
			mayBe = mayBe || v
			rows[p] = append(rows[p], test)
		}
		if strings.HasPrefix(state, "held") && len(rows[p]) == 0 {
			t.Errorf("%s is held, and no test says so", p)
		}
		if mayBe != strings.Contains(state, "vacuous") {
			t.Errorf("%s: its state is %q, but its tests say \"vacuous here\": %v", p, state, mayBe)
		}
	}
	fromHere, atLevel, sum := "| from here on |", "| held |", 0
	for _, level := range allLevels {
		sum += held[level]
		fromHere += fmt.Sprintf(" %d |", held[level])
		atLevel += fmt.Sprintf(" %d |", sum)
	}
	for _, line := range []string{fromHere, atLevel} {
		if !strings.Contains(string(text), "\n"+line+"\n") {
			t.Errorf("the table of counts should say %q", line)
		}
	}
	if len(rows) < 70 {
		t.Errorf("the table has %d rows", len(rows))
	}
	for test := range vacuousIn {
		for _, p := range number.FindAllString(test, -1) {
			if !slices.Contains(rows[p], test) {
				t.Errorf("%s is not in the row of %s", test, p)
			}
		}
	}
}

// calls says whether a function calls another of that name.
func calls(f *ast.FuncDecl, name string) bool {
	found := false
	ast.Inspect(f, func(n ast.Node) bool {
		if c, ok := n.(*ast.CallExpr); ok {
			id, is := c.Fun.(*ast.Ident)
			found = found || is && id.Name == name
		}
		return true
	})
	return found
}
