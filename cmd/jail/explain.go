package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"strings"

	"github.com/jailrun/jail/isolate"
)

// explain is jail explain.
func explain(args []string) int {
	o, err := readOptions(explainFlags(), args)
	if err != nil {
		return fail(err)
	}
	if o.help {
		return help([]string{"explain"})
	}
	if o.origin {
		printLines(o.origins())
		return 0
	}
	spec, err := o.spec()
	if err != nil {
		return fail(o.blame(err))
	}
	e, err := isolate.Explain(spec)
	if err != nil {
		return fail(o.blame(err))
	}
	e.Permissions = append(e.Permissions, o.streams()...)
	switch {
	case o.json:
		return printJSON(e)
	case o.plan:
		printLines(planLines(e.Plan))
	default:
		printLines(headings(e))
	}
	return 0
}

// headings is a run under the four headings that a policy has.
func headings(e *isolate.Explanation) []string {
	lines := []string{"level " + e.Level.String()}
	for _, part := range []struct {
		name  string
		lines []string
	}{
		{"permissions", e.Permissions},
		{"borders", e.Borders},
		{"monitored", e.Monitored},
		{"escape routes", e.EscapeRoutes},
	} {
		lines = append(lines, "", part.name)
		if len(part.lines) == 0 {
			lines = append(lines, "  none")
		}
		for _, l := range part.lines {
			lines = append(lines, "  "+l)
		}
	}
	for _, note := range e.Plan.Notes {
		lines = append(lines, "", "note: "+note)
	}
	return lines
}

// planLines is the steps in their order, with who does each.
func planLines(p *isolate.Plan) []string {
	lines := []string{fmt.Sprintf("%3d  %-8s  clone3 %s", 0, isolate.SideLauncher, strings.Join(p.CloneFlags, " "))}
	for i, s := range p.Steps {
		lines = append(lines, fmt.Sprintf("%3d  %-8s  %s", i+1, s.Side, s))
	}
	return lines
}

func printLines(lines []string) {
	w := bufio.NewWriter(os.Stdout)
	for _, l := range lines {
		fmt.Fprintln(w, strings.TrimRight(printable(l), " "))
	}
	_ = w.Flush() // nobody reads any more
}

func printJSON(v any) int {
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fail(err)
	}
	fmt.Println(string(text))
	return 0
}
