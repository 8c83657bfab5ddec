package main

import (
	"github.com/jailrun/jail/isolate"
)

// gc is jail gc.
func gc(args []string) int {
	table := []flag{{"--help", "-h", "", func(o *options, _ string) error { o.help = true; return nil }}}
	o, err := readOptions(table, args)
	switch {
	case err != nil:
		return fail(err)
	case len(o.command) > 0:
		return fail(&usageError{problem: "jail gc takes no arguments"})
	case o.help:
		return help([]string{"gc"})
	}
	removed, err := isolate.Collect()
	printLines(removed)
	if err != nil {
		return fail(err)
	}
	return 0
}
