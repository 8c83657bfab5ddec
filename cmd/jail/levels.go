package main

import (
	"errors"
	"fmt"

	"github.com/jailrun/jail/isolate"
)

// levelReport is one line of jail levels --json.
type levelReport struct {
	Level isolate.Level `json:"level"`
	Works bool          `json:"works"`
	Error string        `json:"error"` // why not
	Step  string        `json:"step"`  // the first one that did not work
	Errno int           `json:"errno"` // of that step
	Cause isolate.Layer `json:"cause"` // who refused: "seccomp", "sysctl", …; "" is not known
	Hint  string        `json:"hint"`
}

// levels is jail levels.
func levels(args []string) int {
	table := []flag{
		{"--json", "", "", func(o *options, v string) error { o.json = v == "true"; return nil }},
		{"--help", "-h", "", func(o *options, _ string) error { o.help = true; return nil }},
	}
	o, err := readOptions(table, args)
	switch {
	case err != nil:
		return fail(err)
	case len(o.command) > 0:
		return fail(&usageError{problem: "jail levels takes no arguments"})
	case o.help:
		return help([]string{"levels"})
	}
	var reports []levelReport
	for _, l := range isolate.CheckLevels() {
		reports = append(reports, describeLevel(l))
	}
	if o.json {
		return printJSON(reports)
	}
	highest := isolate.Level(0)
	for _, r := range reports {
		printLines(r.lines())
		if r.Works {
			highest = r.Level
		}
	}
	if highest != reports[len(reports)-1].Level {
		printLines([]string{"the highest level that works here is " + highest.String()})
	}
	return 0
}

func describeLevel(l isolate.LevelReport) levelReport {
	r := levelReport{Level: l.Level, Works: l.Err == nil}
	if l.Err == nil {
		return r
	}
	r.Error, r.Hint = l.Err.Error(), hint(l.Err)
	var unsupported *isolate.UnsupportedError
	if errors.As(l.Err, &unsupported) { // which level works instead is on another line
		alone := *unsupported
		alone.Highest = 0
		r.Error, r.Cause, r.Hint = alone.Missing, alone.Cause.Layer, hint(&alone)
	}
	var step *isolate.StepError
	if errors.As(l.Err, &step) {
		r.Error, r.Step, r.Errno = step.Error(), step.Op, int(step.Errno)
		if step.Object != "" {
			r.Step += " " + step.Object
		}
	}
	return r
}

func (r levelReport) lines() []string {
	if r.Works {
		return []string{fmt.Sprintf("%-11s works", r.Level)}
	}
	lines := []string{fmt.Sprintf("%-11s does not work: %s", r.Level, r.Error)}
	if r.Hint != "" {
		lines = append(lines, fmt.Sprintf("%-11s hint: %s", "", r.Hint))
	}
	return lines
}
