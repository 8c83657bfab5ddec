//go:build cgo && (amd64 || arm64)

package main

import (
	"errors"
	"maps"
	"runtime"
	"slices"
	"strings"

	"github.com/jailrun/jail/isolate"
	"github.com/jailrun/jail/policies"
	"github.com/jailrun/jail/seccomp"
)

// callRule reads the value of --syscalls.
func callRule(value string) (seccomp.CallRule, error) {
	parts, err := policies.SplitSyscallRule(value)
	if err != nil {
		return seccomp.CallRule{}, problem(err.Error())
	}
	r := seccomp.CallRule{Calls: parts.Calls, Action: map[string]seccomp.Action{
		"allow": seccomp.Allow, "deny": seccomp.Errno(1), "kill-process": seccomp.KillProcess,
		"kill-thread": seccomp.KillThread, "trap": seccomp.Trap, "log": seccomp.Log,
	}[parts.Action]}
	if parts.Errno != "" {
		if r.Action, err = seccomp.ParseErrno(parts.Errno); err != nil {
			return seccomp.CallRule{}, &partError{part: "errno", text: quote(parts.Errno) + " " + err.Error()}
		}
	}
	for _, name := range parts.Calls {
		if err := seccomp.CheckCall(name); err != nil {
			return seccomp.CallRule{}, &partError{text: err.Error(), hint: nearestCall(name)}
		}
	}
	for i, text := range parts.When {
		c, err := seccomp.ParseCond(text)
		if err != nil {
			return seccomp.CallRule{}, &partError{part: "when", index: i, text: quote(text) + " " + err.Error()}
		}
		r.Conds = append(r.Conds, c)
	}
	return r, nil
}

// nearestCall is a hint for a name that is no call or group.
func nearestCall(name string) string {
	groups := []string{seccomp.AllCalls}
	for _, g := range seccomp.Groups() {
		groups = append(groups, g.Name)
	}
	bare, group := strings.CutPrefix(name, "@")
	switch {
	case group && seccomp.CheckCall(bare) == nil:
		return "that is a call: " + bare
	case slices.Contains(groups, "@"+bare):
		return "a group is written @" + bare
	case group:
		return didYouMean(name, groups, "", "the groups are "+strings.Join(groups, " "))
	}
	return didYouMean(name, seccomp.Calls(""), "", "jail help syscalls lists the groups")
}

func checkSyscallRule(value string) error {
	_, err := callRule(value)
	return err
}

// foldCalls puts a group in place of several calls where they are all that this architecture has of it.
func foldCalls(calls map[string]bool) []string {
	rest, list := maps.Clone(calls), []string(nil)
	for _, g := range seccomp.Groups() {
		here := callsHere(g.Name)
		if len(here) < 2 || slices.ContainsFunc(here, func(name string) bool { return !calls[name] }) {
			continue
		}
		list = append(list, g.Name)
		for _, name := range here {
			delete(rest, name)
		}
	}
	return append(list, slices.Sorted(maps.Keys(rest))...)
}

// unfoldCalls is the other way round, for a call or a group.
func unfoldCalls(word string) []string {
	if strings.HasPrefix(word, "@") {
		return callsHere(word)
	}
	return []string{word}
}

// callRules compiles the rules of --syscalls; without any it is nil.
func (o *options) callRules(list *isolate.AllowList) (*isolate.CallRules, error) {
	if len(o.syscalls) == 0 {
		return nil, nil
	}
	rules, err := o.readCallRules()
	if err != nil {
		return nil, err
	}
	program, err := seccomp.CompileCalls(rules, runtime.GOARCH)
	var about *seccomp.RuleError
	if errors.As(err, &about) {
		return nil, &isolate.SpecError{Field: "syscalls", Value: o.syscalls[about.Rule], Problem: about.Problem}
	} else if err != nil {
		return nil, &isolate.SpecError{Field: "syscalls", Value: o.syscalls[0], Problem: err.Error()}
	}
	made := &isolate.CallRules{Rules: o.syscalls, BPF: seccomp.Bytes(program)}
	if list == nil {
		return made, nil
	}
	// Each of the two may refuse to load the other.
	loads := func(filter []byte) bool {
		answer, err := seccomp.Evaluate(filter, "seccomp", runtime.GOARCH, 1) // SECCOMP_SET_MODE_FILTER
		return err == nil && (answer.Action == seccomp.Allow || answer.Action == seccomp.Log)
	}
	made.First = !loads(list.BPF)
	if made.First && !loads(made.BPF) {
		return nil, &isolate.SpecError{Field: "syscalls", Value: o.syscalls[0], Problem: "and seccomp " + quote(list.Name) + " both refuse the call seccomp, so that only one of them could be loaded"}
	}
	return made, nil
}

func (o *options) readCallRules() ([]seccomp.CallRule, error) {
	var rules []seccomp.CallRule
	for _, value := range o.syscalls {
		r, err := callRule(value)
		if err != nil {
			return nil, err
		}
		rules = append(rules, r)
	}
	return rules, nil
}

// evaluate asks the filters of a Spec about a call.
func (o *options) evaluate(spec *isolate.Spec, name string) ([]verdict, error) {
	if err := seccomp.CheckCall(name); err != nil || strings.HasPrefix(name, "@") {
		return nil, &seccomp.UnknownCallError{Name: name}
	}
	var verdicts []verdict
	for _, f := range filtersOf(spec) {
		answer, err := seccomp.Evaluate(f.bpf, name, runtime.GOARCH)
		if err != nil {
			return nil, errors.New("this architecture has no call " + quote(name))
		}
		v := verdict{filter: f.name, byArguments: answer.ByArguments}
		v.action, v.passes = words(answer.Action)
		if f.rules {
			if v.branches, err = o.branches(name); err != nil {
				return nil, err
			}
		}
		verdicts = append(verdicts, v)
	}
	return verdicts, nil
}

func words(a seccomp.Action) (action string, passes bool) {
	return a.String(), a == seccomp.Allow || a == seccomp.Log
}

// branches are the rules that decide about a call, the first of them the first.
func (o *options) branches(name string) ([]branch, error) {
	rules, err := o.readCallRules()
	if err != nil {
		return nil, err
	}
	verdicts, err := seccomp.Decide(rules, name)
	var list []branch
	for _, v := range verdicts {
		b := branch{rule: v.Rule}
		b.action, b.passes = words(v.Action)
		for _, c := range v.Conds {
			b.when = append(b.when, c.String())
		}
		list = append(list, b)
	}
	return list, err
}

// filter is one of those that a jail loads.
type filter struct {
	name  string // "" is the level's
	bpf   []byte
	rules bool // those of --syscalls
}

func filtersOf(spec *isolate.Spec) []filter {
	var list []filter
	if !spec.NoFilter && len(spec.Filter) > 0 {
		list = append(list, filter{bpf: spec.Filter})
	}
	if spec.AllowList != nil {
		list = append(list, filter{name: spec.AllowList.Name, bpf: spec.AllowList.BPF})
	}
	if spec.CallRules != nil {
		list = append(list, filter{bpf: spec.CallRules.BPF, rules: true})
	}
	return list
}
