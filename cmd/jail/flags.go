package main

import (
	"strings"
)

// flag is one line of the table of flags.
type flag struct {
	name  string // with its dashes
	alias string
	arg   string // what its value is called; "" for a switch
	set   func(o *options, value string) error
}

// parseFlags reads flags up to the first word that is none, or to "--". What follows is the payload's and is returned
// as it stands. Values are one word: --flag=VALUE or --flag VALUE.
func parseFlags(table []flag, args []string, o *options) (rest []string, err error) {
	for len(args) > 0 {
		word := args[0]
		if word == "--" {
			return args[1:], nil
		}
		if !strings.HasPrefix(word, "-") || word == "-" {
			return args, nil
		}
		args = args[1:]
		name, value, hasValue := strings.Cut(word, "=")
		f := findFlag(table, name)
		switch {
		case f == nil:
			return nil, unknownFlag(table, name)
		case f.arg == "" && hasValue:
			return nil, &usageError{problem: f.name + " takes no value"}
		case f.arg != "" && !hasValue:
			// A word with dashes is more likely a forgotten value than one.
			if len(args) == 0 || strings.HasPrefix(args[0], "--") {
				return nil, &usageError{problem: f.name + " needs a value", hint: f.name + "=" + f.arg}
			}
			value, args = args[0], args[1:]
		}
		if f.arg != "" && value == "" {
			return nil, &usageError{problem: f.name + " has an empty value", hint: f.name + "=" + f.arg}
		}
		if err := f.set(o, value); err != nil {
			return nil, aboutFlag(f, value, err)
		}
	}
	return nil, nil
}

func findFlag(table []flag, name string) *flag {
	for i := range table {
		if f := &table[i]; f.name == name || f.alias != "" && f.alias == name {
			return f
		}
	}
	return nil
}

func unknownFlag(table []flag, name string) error {
	var names []string
	for _, f := range table {
		names = append(names, f.name)
		if f.alias != "" {
			names = append(names, f.alias)
		}
	}
	return &usageError{
		problem: "unknown flag " + quote(name),
		hint:    didYouMean(name, names, "", `a command that starts with "-" goes after "--"`),
	}
}
