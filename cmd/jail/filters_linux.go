//go:build cgo && (amd64 || arm64)

package main

import (
	"fmt"
	"runtime"
	"slices"
	"strings"

	"github.com/jailrun/jail/isolate"
	"github.com/jailrun/jail/seccomp"
)

// common are calls that programs spend their time with.
var common = []string{
	"read", "write", "close", "openat", "newfstatat", "fcntl", "ioctl", "mmap", "brk", "futex", "epoll_pwait", "sendmsg", "recvmsg",
	"clone", "execve", "getpid",
}

// describeFilters says what the filters of a Spec do, how large they are and what they cost.
func (o *options) describeFilters(spec *isolate.Spec) ([]string, error) {
	filters := filtersOf(spec)
	if len(filters) == 0 {
		return []string{"no filter: every system call is allowed"}, nil
	}
	var lines []string
	for _, f := range filters {
		name := "the filter of level " + o.level.String()
		switch {
		case f.rules:
			name = "the rules for system calls"
		case f.name != "":
			name = "the profile " + quote(f.name)
		}
		lines = append(lines, fmt.Sprintf("%s: %d instructions", name, len(f.bpf)/8))
		described, err := o.describeFilter(f)
		if err != nil {
			return nil, err
		}
		for _, l := range described {
			lines = append(lines, "  "+l)
		}
	}
	if len(filters) > 1 {
		lines = append(lines, "of several answers to one call the strictest counts")
	}
	return append(lines, costOf(filters)...), nil
}

// describeFilter has a line for each action, and what it is done for. The other calls are those that no rule names: they
// have what a number has that is a gap in the table, and newer ones what one behind its end has.
func (o *options) describeFilter(f filter) ([]string, error) {
	var actions []string // the first seen first
	calls := map[string][]string{}
	var conditional []string
	for _, name := range seccomp.Calls("") {
		answer, err := seccomp.Evaluate(f.bpf, name, runtime.GOARCH)
		if err != nil {
			continue // this architecture has it not
		}
		if answer.ByArguments {
			text := name
			if f.rules {
				branches, err := o.branches(name)
				if err != nil {
					return nil, err
				}
				text += ": " + inWords(branches)
			}
			conditional = append(conditional, text)
			continue
		}
		action := answer.Action.String()
		if calls[action] == nil {
			actions = append(actions, action)
		}
		calls[action] = append(calls[action], name)
	}
	unnamed, err := seccomp.EvaluateNumber(f.bpf, map[string]uint32{"amd64": 400, "arm64": 250}[runtime.GOARCH], runtime.GOARCH)
	if err != nil {
		return nil, err
	}
	others := unnamed.Action.String()
	var lines []string
	for _, action := range actions {
		if action != others {
			lines = append(lines, action+": "+strings.Join(inGroups(calls[action]), " "))
		}
	}
	switch {
	case f.rules:
		for _, text := range conditional {
			lines = append(lines, "by arguments: "+text)
		}
	case len(conditional) > 0:
		lines = append(lines, "by arguments: "+strings.Join(conditional, " "))
	}
	lines = append(lines, "all others: "+others)
	newer, err := seccomp.EvaluateNumber(f.bpf, 0x10000, runtime.GOARCH)
	if err != nil {
		return nil, err
	}
	lines = append(lines, "calls newer than it: "+newer.Action.String())
	for _, abi := range map[string][]string{"amd64": {"i386", "x32"}}[runtime.GOARCH] {
		read, err := seccomp.Evaluate(f.bpf, "read", abi)
		if err != nil {
			return nil, err
		}
		exit, err := seccomp.Evaluate(f.bpf, "exit_group", abi)
		if err != nil {
			return nil, err
		}
		text := "the same by name"
		if read.Action == seccomp.KillProcess && exit.Action == seccomp.KillProcess {
			text = seccomp.KillProcess.String()
		}
		lines = append(lines, "calls by "+abi+": "+text)
	}
	return lines, nil
}

func inWords(branches []branch) string {
	var list []string
	for i, b := range branches {
		text := b.action
		switch {
		case len(b.when) > 0:
			text = "where " + strings.Join(b.when, " and ") + " " + text
		case i > 0:
			text = "else " + text
		}
		list = append(list, text)
	}
	return strings.Join(list, ", ")
}

// inGroups puts a group in place of its calls where all of those that this architecture has are listed, or nearly all.
func inGroups(names []string) []string {
	var list []string
	rest := slices.Clone(names)
	for _, g := range seccomp.Groups() {
		here := callsHere(g.Name)
		missing := slices.DeleteFunc(slices.Clone(here), func(name string) bool { return slices.Contains(rest, name) })
		if text := g.Name; len(here) > 0 && len(missing) <= len(here)/4 {
			if len(missing) > 0 {
				text += " (but for " + strings.Join(missing, " ") + ")"
			}
			list = append(list, text)
			rest = slices.DeleteFunc(rest, func(name string) bool { return slices.Contains(here, name) })
		}
	}
	return append(list, rest...)
}

// callsHere are a group's calls that this architecture has.
func callsHere(group string) []string {
	return slices.DeleteFunc(seccomp.Calls(group), func(name string) bool {
		_, err := seccomp.Evaluate(allowAll, name, runtime.GOARCH)
		return err != nil
	})
}

// allowAll is a filter that returns SECCOMP_RET_ALLOW.
var allowAll = []byte{6, 0, 0, 0, 0, 0, 0xff, 0x7f}

// costOf is how many instructions calls walk, of all filters together: the kernel asks each of them.
func costOf(filters []filter) []string {
	walk := func(name string) (steps int, remembered, exists bool) {
		remembered = true
		for _, f := range filters {
			answer, err := seccomp.Evaluate(f.bpf, name, runtime.GOARCH)
			if err != nil {
				return 0, false, false // this architecture has it not
			}
			steps += answer.Steps
			remembered = remembered && answer.Action == seccomp.Allow && !answer.ByArguments
		}
		return steps, remembered, true
	}
	var seen []string
	for _, name := range common {
		steps, remembered, exists := walk(name)
		if !exists {
			continue
		}
		mark := ""
		if remembered {
			mark = "*"
		}
		seen = append(seen, fmt.Sprintf("%s %d%s", name, steps, mark))
	}
	all, number, most, worst := 0, 0, 0, ""
	for _, name := range seccomp.Calls("") {
		steps, _, exists := walk(name)
		if !exists {
			continue
		}
		if all, number = all+steps, number+1; steps > most {
			most, worst = steps, name
		}
	}
	return []string{
		"instructions that a call walks, counted in a BPF machine (arguments 0):",
		"  " + strings.Join(seen, ", "),
		fmt.Sprintf("  all %d calls: %d on average, at most %d (%s)", number, (all+number/2)/number, most, worst),
		"  * allowed whatever the arguments are: the kernel finds that out when it loads the filters, and walks none later (Linux 5.11)",
	}
}
