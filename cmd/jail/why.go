package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/jailrun/jail/isolate"
)

// why is jail why: whether something is allowed, and by which line. Its exit code is 1 where it is not.
func why(args []string) int {
	what := ""
	if len(args) > 0 && !strings.HasPrefix(args[0], "-") {
		what, args = args[0], args[1:]
	}
	o, err := readOptions(runFlags, args)
	switch {
	case err != nil:
		return fail(err)
	case o.help:
		return help([]string{"why"})
	case what == "" && len(o.command) == 1:
		what = o.command[0]
	case what == "" || len(o.command) > 0:
		return fail(&usageError{problem: "jail why takes one path, host or system call", hint: "jail why PATH|HOST|SYSCALL [--policy NAME|FILE] [flags of run]"})
	}
	o.command = []string{"true"}
	spec, err := o.spec()
	if err != nil {
		return fail(o.blame(err))
	}
	e, err := isolate.Explain(spec)
	if err != nil {
		return fail(o.blame(err))
	}
	var lines []string
	var allowed bool
	switch kindOf(what) {
	case "path":
		allowed, lines, err = o.whyPath(e.Plan, what)
	case "host":
		allowed, lines = o.whyHost(e.Plan, what)
	default:
		allowed, lines, err = o.whyCall(spec, what)
	}
	if err != nil {
		return fail(err)
	}
	printLines(lines)
	if allowed {
		return 0
	}
	return 1
}

// kindOf says what a word names: a path has a slash or begins like one or exists, a host has a dot or a colon.
func kindOf(what string) string {
	if _, err := os.Lstat(what); err == nil || strings.Contains(what, "/") || strings.HasPrefix(what, ".") || strings.HasPrefix(what, "~") {
		return "path"
	}
	if strings.ContainsAny(what, ".:") || what == "localhost" {
		return "host"
	}
	return "call"
}

func (o *options) whyPath(plan *isolate.Plan, what string) (allowed bool, lines []string, err error) {
	path := what
	if rest, ok := strings.CutPrefix(what, "~"); ok && (rest == "" || rest[0] == '/') {
		path = os.Getenv("HOME") + rest
	}
	if path, err = absolute(path); err != nil {
		return false, nil, aboutFlag(&flag{name: "path"}, what, err)
	}
	if n, err := isolate.ParseNotify("open:" + path); err == nil && slices.Contains(o.notify, n) {
		origin, _ := o.last("--notify")
		return true, []string{"readable: " + origin + "; jail gives a copy of it"}, nil
	}
	real, err := filepath.EvalSymlinks(path)
	if err == nil && real != path {
		lines = append(lines, quote(path)+" leads to "+quote(real))
		path = real
	}
	absent := errors.Is(err, fs.ErrNotExist)
	access, place := plan.Access(path)
	allowed = access != isolate.AccessNone && access != isolate.AccessClosed
	says, over := o.ruleFor(path, access)
	switch {
	case access == isolate.AccessAny:
		lines = append(lines, "allowed as far as the payload's uid may: level "+o.level.String()+" has no file view")
	case access == isolate.AccessNone:
		lines = append(lines, "denied: nothing in the view shows it")
	case access == isolate.AccessClosed:
		lines = append(lines, "denied: "+says)
	case access == isolate.AccessPrivate && says == "":
		allowed = false
		lines = append(lines, "denied: "+quote(place)+" is private and empty at level "+o.level.String()+"; what is made there, the payload may use")
	default:
		if says == "" {
			says = "level " + o.level.String() + " shows " + quote(place)
		}
		word := string(access)
		if access == isolate.AccessRead || access == isolate.AccessExecute {
			word += ", not writable"
		}
		lines = append(lines, word+": "+says)
	}
	if len(over) > 0 {
		lines[len(lines)-1] += ", and wins over " + strings.Join(over, ", ")
	}
	if absent {
		lines = append(lines, quote(path)+" does not exist here")
	}
	switch access {
	case isolate.AccessNone, isolate.AccessPrivate:
		if !allowed {
			lines = append(lines, "to allow reading it: permissions.files: - read: "+path)
		}
	case isolate.AccessClosed:
		lines = append(lines, "a deny is never taken back: to allow it, that line has to go")
	case isolate.AccessRead, isolate.AccessExecute:
		lines = append(lines, "to allow writing to it: permissions.files: - write: "+path)
	default:
	}
	return allowed, lines, nil
}

// ruleFor is the line that decides about a path, and those that it wins over.
func (o *options) ruleFor(path string, access isolate.Access) (says string, over []string) {
	type match struct {
		asked *asked
		rule  isolate.Rule
		depth int
	}
	var matches []match
	for i := range o.asked {
		a := &o.asked[i]
		for _, r := range a.rules {
			for dir := path; ; dir = filepath.Dir(dir) {
				if r.Path == dir || r.Glob && isolate.MatchGlob(r.Path, dir) {
					matches = append(matches, match{a, r, strings.Count(dir, "/")*2 + map[bool]int{true: 0, false: 1}[r.Glob]})
					break
				}
				if dir == "/" {
					break
				}
			}
		}
	}
	slices.SortStableFunc(matches, func(a, b match) int {
		if (a.rule.Kind == isolate.Deny) != (b.rule.Kind == isolate.Deny) && a.depth/2 == b.depth/2 {
			return map[bool]int{true: -1, false: 1}[a.rule.Kind == isolate.Deny]
		}
		return b.depth - a.depth
	})
	closed := access == isolate.AccessClosed
	i := slices.IndexFunc(matches, func(m match) bool {
		_, err := os.Lstat(m.rule.Source)
		return (m.rule.Kind == isolate.Deny) == closed && (m.rule.Source == "" || m.rule.Glob || err == nil)
	})
	if i < 0 {
		return "", nil
	}
	first := matches[i]
	for _, m := range matches[i+1:] {
		line := m.asked.describe()
		switch {
		case m.depth/2 == first.depth/2 && m.rule.Kind == first.rule.Kind && m.asked.Key != first.asked.Key && m.asked.At.File != "":
			first.asked = &asked{Setting: first.asked.Setting}
			says += " and " + line // the rights for one path add up
		case m.rule.Kind != first.rule.Kind || m.rule.NoExec != first.rule.NoExec:
			over = append(over, line)
		}
	}
	return first.asked.describe() + says, over
}

// describe is a setting as a reason: where it is, and what it says.
func (a *asked) describe() string {
	return a.Origin() + " (" + a.Key + " " + a.Written + ")"
}

// last is the setting of a flag that counts.
func (o *options) last(flag string) (string, bool) {
	for i := len(o.asked) - 1; i >= 0; i-- {
		if o.asked[i].Flag == flag {
			return o.asked[i].describe(), true
		}
	}
	return "level " + o.level.String(), false
}

func (o *options) whyHost(plan *isolate.Plan, what string) (allowed bool, lines []string) {
	if n, err := isolate.ParseNotify("connect:" + what); err == nil && slices.Contains(o.notify, n) {
		origin, _ := o.last("--notify")
		return true, []string{"allowed: " + origin + "; jail makes the connection and passes on what is sent"}
	}
	origin, asked := o.last("--network")
	if !slices.Contains(plan.Given, isolate.PrivateNetwork) {
		if !asked {
			origin = "level " + o.level.String() + " has the host's network"
		}
		return true, []string{"allowed: " + origin + "; every host and port that this machine reaches"}
	}
	if host := strings.TrimPrefix(what, "["); host == "localhost" || strings.HasPrefix(host, "localhost:") || strings.HasPrefix(host, "127.") || strings.HasPrefix(host, "::1") {
		lines = append(lines, "the jail has a loopback device of its own: "+quote(what)+" is what the payload itself listens on")
	}
	return false, append(lines, "denied: "+origin+"; there is no other network", "to allow it: permissions.network: host")
}

// verdict of one filter.
type verdict struct {
	filter, action string // "" is the level's filter, or that of the rules
	passes         bool
	byArguments    bool
	branches       []branch // of the rules alone
}

// branch is what rules do with a call under conditions.
type branch struct {
	action string
	passes bool
	when   []string
	rule   int // of --syscalls; -1 is none
}

func (o *options) whyCall(spec *isolate.Spec, name string) (allowed bool, lines []string, err error) {
	verdicts, err := o.evaluate(spec, name)
	if err != nil {
		return false, nil, &usageError{problem: "no path, host or system call: " + quote(name), hint: "a path has a slash, a host a dot or a port; " + err.Error()}
	}
	allowed = true
	var ways []string
	origin, _ := o.last("--seccomp")
	for _, v := range verdicts {
		allowed = allowed && v.passes
		if v.branches != nil {
			if !v.passes {
				ways = append(ways, "to allow it: that line has to go, or one that is more specific has to allow it")
			}
			lines = append(lines, o.whyRules(v.branches)...)
			if allowed && len(v.branches) > 1 {
				lines = append(lines, "allowed is the answer for arguments that are 0")
			}
			continue
		}
		if v.filter == "" {
			v.filter = "the filter of level " + o.level.String()
		} else {
			v.filter = fmt.Sprintf("the allow-list %s, %s", quote(v.filter), origin)
		}
		if !v.passes {
			lines = append(lines, "denied ("+v.action+"): "+v.filter)
			ways = []string{"to allow it: permissions.seccomp: unconfined, or a profile that has it"}
		}
		if v.byArguments {
			lines = append(lines, v.filter+" goes by its arguments; this is the answer for 0")
		}
	}
	if allowed {
		lines = append([]string{"allowed: no filter refuses it"}, lines...)
	}
	return allowed, append(lines, ways...), nil
}

// whyRules says which lines of permissions.syscalls decide about a call.
func (o *options) whyRules(branches []branch) []string {
	var lines []string
	for i, b := range branches {
		if b.rule < 0 {
			if i > 0 {
				lines = append(lines, "else allowed by the rules for system calls")
			}
			continue
		}
		line := "denied (" + b.action + ")"
		if b.passes {
			line = "allowed"
			if b.action != "allow" {
				line = b.action
			}
		}
		switch {
		case len(b.when) > 0:
			line = "where " + strings.Join(b.when, " and ") + ": " + line
		case i > 0:
			line = "else " + line
		}
		for j := range o.asked {
			if a := &o.asked[j]; a.Flag == "--syscalls" && a.Value == o.syscalls[b.rule] {
				line += ": " + a.describe()
				break
			}
		}
		lines = append(lines, line)
	}
	return lines
}
