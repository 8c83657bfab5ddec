package main

import (
	"strings"

	"github.com/jailrun/jail/policies"
)

// flag is one line of the table of flags.
type flag struct {
	name  string // with its dashes
	alias string
	arg   string // what its value is called; "" for a switch, whose value is true or false
	set   func(o *options, value string) error
}

// parseFlags reads flags up to the first word that is none, or to "--". What follows is the payload's and is returned
// as it stands. Values are one word: --flag=VALUE or --flag VALUE; a switch may have =true or =false.
func parseFlags(table []flag, args []string) (given []policies.Setting, rest []string, err error) {
	for len(args) > 0 {
		word := args[0]
		if word == "--" {
			return given, args[1:], nil
		}
		if !strings.HasPrefix(word, "-") || word == "-" {
			return given, args, nil
		}
		args = args[1:]
		name, value, hasValue := strings.Cut(word, "=")
		f := findFlag(table, name)
		switch {
		case f == nil:
			return nil, nil, unknownFlag(table, name)
		case f.arg == "" && !hasValue:
			value = "true"
		case f.arg == "" && value != "true" && value != "false":
			return nil, nil, &usageError{problem: f.name + " takes no value but true or false"}
		case f.arg != "" && !hasValue:
			// A word with dashes is more likely a forgotten value than one.
			if len(args) == 0 || strings.HasPrefix(args[0], "--") {
				return nil, nil, &usageError{problem: f.name + " needs a value", hint: f.name + "=" + f.arg}
			}
			value, args = args[0], args[1:]
		}
		if f.arg != "" && value == "" {
			return nil, nil, &usageError{problem: f.name + " has an empty value", hint: f.name + "=" + f.arg}
		}
		given = append(given, policies.FromFlag(f.name, value))
	}
	return given, nil, nil
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
