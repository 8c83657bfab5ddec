package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/jailrun/jail/isolate"
	"github.com/jailrun/jail/policies"
)

// asked is a setting and what it came to.
type asked struct {
	policies.Setting
	rules []isolate.Rule
}

// usePolicy applies the settings of a policy, as if they were flags before all others.
func (o *options) usePolicy(table []flag, name string) error {
	loaded, err := policies.Load(name)
	if err != nil {
		return err
	}
	o.policy = loaded
	for _, s := range loaded.Settings {
		if err := o.apply(table, s); err != nil {
			return err
		}
	}
	return nil
}

// apply is the one place where what was asked for takes effect, whoever asked.
func (o *options) apply(table []flag, s policies.Setting) error {
	if s.At.File != o.layer {
		o.layer = s.At.File
		clear(o.given)
	}
	f := findFlag(table, s.Flag)
	before := len(o.rules)
	err := f.set(o, s.Value)
	for i := before; i < len(o.rules); i++ {
		r := &o.rules[i]
		r.NoExec, r.Report, r.Glob = s.NoExec, s.Report, s.Glob
	}
	o.asked = append(o.asked, asked{s, o.rules[before:len(o.rules):len(o.rules)]})
	if err != nil {
		return o.about(&s, aboutFlag(f, s.Value, err))
	}
	return nil
}

// twice says whether the same file, or the command line, has said that before.
func (o *options) twice(what string) bool {
	was := o.given[what]
	o.given[what] = true
	return was
}

// policyError is an error about a place in a policy. What it came from has the hint.
type policyError struct {
	mistake *policies.Error
	cause   error
}

func (e *policyError) Error() string { return e.mistake.Error() }

func (e *policyError) Unwrap() []error { return []error{e.mistake, e.cause} }

// about makes an error about a setting one about its place in a policy, in the policy's words.
func (o *options) about(s *policies.Setting, err error) error {
	if s.At.File == "" {
		return err
	}
	at, text := s.At, withoutDashes(err.Error())
	var spec *isolate.SpecError
	var part *partError
	switch {
	case errors.As(err, &part):
		at, text = part.in(s)
	case errors.As(err, &spec):
		text = fmt.Sprintf("%s %q %s", s.Key, s.Written, withoutDashes(spec.Problem))
	}
	return &policyError{&policies.Error{Position: at, Problem: text}, err}
}

// partError is about a part of a rule for calls.
type partError struct {
	part  string // "errno", "when"; "" is the call
	index int    // of several conditions
	text  string // begins with the part in quotes
	hint  string
}

func (e *partError) Error() string { return "syscalls: " + e.words("") }

// words are what is wrong; key is that of the rule.
func (e *partError) words(key string) string {
	if e.part != "" {
		key = e.part
	}
	return strings.TrimSpace(key + " " + e.text)
}

// in is where the part stands in a policy, and what is wrong with it.
func (e *partError) in(s *policies.Setting) (policies.Position, string) {
	at := s.At
	switch e.part {
	case "errno":
		at = s.ErrnoAt
	case "when":
		at = s.WhenAt[e.index]
	}
	return at, e.words(s.Key)
}

// hinted is a problem with a hint of its own.
type hinted struct {
	*isolate.SpecError
	hint string
}

func (e *hinted) Unwrap() error { return e.SpecError }

// withoutDashes makes keys of the flags that a sentence names.
func withoutDashes(text string) string { return strings.ReplaceAll(" "+text, " --", " ")[1:] }

// hint is a way out in the words of a policy.
func (e *policyError) hint() string {
	var spec *isolate.SpecError
	h := hint(e.cause)
	switch {
	case errors.As(e.cause, &spec) && spec.Field == string(isolate.Deny) && strings.Contains(spec.Problem, "payload"):
		return "with if-absent: report the run goes on, and the Result tells if it appears"
	case strings.Contains(h, "-try "):
		return "with optional: true the rule is left out where the path does not exist"
	}
	return withoutDashes(strings.ReplaceAll(h, "--level=", ""))
}

// blame finds the place in a policy that an error is about.
func (o *options) blame(err error) error {
	var usage *usageError
	var spec *isolate.SpecError
	if !errors.As(err, &usage) && !errors.As(err, &spec) || errors.As(err, new(*policies.Error)) {
		return err
	}
	for i := len(o.asked) - 1; i >= 0; i-- {
		a := &o.asked[i]
		name := strings.TrimPrefix(a.Flag, "--")
		switch {
		case name == "syscalls" && spec != nil && spec.Value != a.Value: // another rule
			continue
		case usage != nil && usage.flag == a.Flag, spec != nil && len(a.rules) == 0 && spec.Field == name:
			return o.about(&a.Setting, err)
		case spec == nil:
			continue
		}
		for _, r := range a.rules {
			match := spec.Value == r.Path || spec.Value == r.Source || r.Glob && isolate.MatchGlob(r.Path, spec.Value)
			if string(r.Kind) == spec.Field && match {
				return o.about(&a.Setting, err)
			}
		}
	}
	return err
}

// protectPolicy makes the files of the policy read-only where the payload could write to them: the next run believes
// what they say.
func (o *options) protectPolicy() []isolate.Rule {
	if o.policy == nil || o.level < isolate.Namespaced {
		return nil
	}
	var rules []isolate.Rule
	for _, file := range o.policy.Files {
		for _, r := range o.rules {
			if r.Kind != isolate.ShowWrite || r.Glob {
				continue
			}
			real, err := filepath.EvalSymlinks(r.Source)
			if err != nil {
				continue // isolate says what is wrong with it
			}
			if name, inside := strings.CutPrefix(file, strings.TrimSuffix(real, "/")+"/"); inside {
				rules = append(rules, isolate.Rule{Kind: isolate.Show, Path: filepath.Join(r.Path, name), Source: file, NoExec: true})
			}
		}
	}
	return rules
}

// policyPath is where the payload finds its own policy. It lies in the root of the view, which nobody can write to.
const policyPath = "/jail-policy.yaml"

// tellPolicy shows the payload its own policy, that it knows why something was refused. Where the jail has no root of
// its own to put a file in, or may come to have none by a downgrade, it is an fd.
func (o *options) tellPolicy(s *isolate.Spec) error {
	if o.policy == nil {
		return nil
	}
	text := policies.Format(o.policyComment(), o.settings(), false)
	if o.level < isolate.Namespaced || o.root != nil || o.downgrade {
		return o.passPolicy(text)
	}
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	go func() {
		_, _ = w.WriteString(text) // where nobody reads it there is no jail
		w.Close()
	}()
	o.policyFile = r
	o.env = append(o.env, "JAIL_POLICY="+policyPath)
	s.View = append(s.View, isolate.Rule{Kind: isolate.File, Path: policyPath, FD: int(r.Fd()), Default: true})
	return nil
}

// passPolicy gives the payload its policy as an fd that scripts, which count theirs from 3 up, leave alone.
func (o *options) passPolicy(text string) (err error) {
	if o.policyFD, err = o.freeFD("JAIL_POLICY"); err != nil {
		return err
	}
	o.policyFile, err = sealed("jail-policy.yaml", text)
	o.env = append(o.env, "JAIL_POLICY=/proc/self/fd/"+strconv.Itoa(o.policyFD))
	return err
}

// freeFD is one that the payload has not, for what.
func (o *options) freeFD(what string) (int, error) {
	for fd := 99; fd > 2; fd-- {
		if _, taken := o.fds[fd]; !taken && fd != o.ipcFD && fits(fd) == nil {
			return fd, nil
		}
	}
	return 0, errors.New("no fd is left for " + what)
}

// policyComment is what a payload has to know beside the settings.
func (o *options) policyComment() string {
	rest := "What is not listed is as level " + o.level.String() + " has it: "
	switch {
	case o.level == isolate.Basic:
		rest += "files, the network and all else are the caller's.\n"
	case o.level == isolate.User:
		rest += "the system's programs and the working folder can be read,\n" +
			"TMPDIR is private and empty, other files are closed, and the network is the caller's.\n"
	case o.root != nil:
		rest += "files are those of the root file system, /tmp is private and\n" +
			"empty, and there is no network but a loopback device.\n"
	default:
		rest += "the system's programs and the working folder can be read,\n" +
			"/tmp and the home are private and empty, and there is no network but a loopback device.\n"
	}
	return "What this jail allows: the policy " + quote(o.policy.Name) + " with the flags it was run with.\n" + rest +
		"What is refused here is refused for good: to try again, or in another way, does not help. Work in the folders\n" +
		"that can be written to, and ask who started this jail for more: `jail why` tells them which line it takes.\n" +
		"Values of variables are left out.\n"
}

// settings is all that was asked for.
func (o *options) settings() []policies.Setting {
	var all []policies.Setting
	for _, a := range o.asked {
		all = append(all, a.Setting)
	}
	return all
}

// origins says of each setting that counts where it comes from.
func (o *options) origins() []string {
	var lines []string
	for _, s := range policies.Effective(o.settings()) {
		written := ""
		if s.At.File != "" && s.Written != s.Value && s.Flag != "--syscalls" {
			written = " (" + s.Written + ")"
		}
		lines = append(lines, s.Line()+"  # "+s.Origin()+written)
	}
	return append(lines, "all else: level "+o.level.String())
}

// policy is jail policy.
func policy(args []string) int {
	if len(args) == 0 || args[0] == "--help" || args[0] == "-h" {
		return help([]string{"policy"})
	}
	verbs := map[string]struct {
		arguments int // -1 is one or more
		do        func(args []string) int
	}{
		"list":    {0, listPolicies},
		"show":    {1, showPolicy},
		"check":   {-1, checkPolicies},
		"diff":    {2, diffPolicies},
		"convert": {1, convertPolicy},
		"schema":  {0, func([]string) int { fmt.Print(policies.Schema); return 0 }},
	}
	v, ok := verbs[args[0]]
	switch rest := args[1:]; {
	case args[0] == "show" && slices.Contains(rest, "--seccomp"):
		return showFilters(slices.DeleteFunc(slices.Clone(rest), func(word string) bool { return word == "--seccomp" }))
	case !ok:
		return fail(&usageError{
			problem: "unknown command policy " + quote(args[0]),
			hint:    didYouMean(args[0], []string{"list", "show", "check", "diff", "convert", "schema"}, "jail policy ", "there are list, show, check, diff, convert and schema"),
		})
	case v.arguments >= 0 && len(rest) != v.arguments, v.arguments < 0 && len(rest) == 0:
		return fail(&usageError{problem: "jail policy " + args[0] + " takes " + map[int]string{0: "no argument", 1: "one policy", 2: "two policies", -1: "policies"}[v.arguments]})
	default:
		return v.do(rest)
	}
}

// listPolicies prints the names of the built-in policies and what each is for.
func listPolicies([]string) int {
	var lines []string
	for _, name := range policies.Builtin() {
		text, err := policies.Text(name)
		if err != nil {
			return fail(err)
		}
		first, _, _ := strings.Cut(text, "\n")
		lines = append(lines, fmt.Sprintf("%-11s %s", name, strings.TrimPrefix(first, "# ")))
	}
	printLines(lines)
	return 0
}

// showPolicy prints a policy with all that it extends, as one.
func showPolicy(args []string) int {
	loaded, err := policies.Load(args[0])
	if err != nil {
		return fail(err)
	}
	comment := quote(args[0]) + " with all that it extends\n"
	if text, err := policies.Text(args[0]); err == nil && !policies.IsFile(args[0]) {
		comment = ""
		for line := range strings.Lines(text) {
			if !strings.HasPrefix(line, "#") {
				break
			}
			comment += strings.TrimPrefix(strings.TrimPrefix(line, "#"), " ")
		}
	}
	printLines(strings.Split(strings.TrimSuffix(policies.Format(comment, loaded.Settings, true), "\n"), "\n"))
	return 0
}

// showFilters prints what the filters of a policy do, or those of jail run without one.
func showFilters(args []string) int {
	if len(args) > 1 {
		return fail(&usageError{problem: "jail policy show --seccomp takes one policy, or none"})
	}
	var flags []string
	for _, name := range args {
		flags = append(flags, "--policy="+name)
	}
	o, err := readOptions(runFlags, append(flags, "true"))
	if err != nil {
		return fail(err)
	}
	spec, err := o.spec()
	if err != nil {
		return fail(o.blame(err))
	}
	lines, err := o.describeFilters(spec)
	if err != nil {
		return fail(err)
	}
	printLines(lines)
	return 0
}

// checkPolicies reads policies and tries what they ask for on this host.
func checkPolicies(args []string) int {
	code := 0
	for _, name := range args {
		o, err := readOptions(runFlags, []string{"--policy=" + name, "true"})
		var spec *isolate.Spec
		if err == nil {
			spec, err = o.spec()
		}
		if err == nil {
			_, err = isolate.Explain(spec)
		}
		if err != nil {
			code = fail(o.blame(err))
			continue
		}
		printLines([]string{name + ": fine, at level " + o.level.String()})
	}
	return code
}

// diffPolicies prints what two policies say differently. Its exit code is 1 where they do.
func diffPolicies(args []string) int {
	var settings [2][]policies.Setting
	for i, name := range args {
		loaded, err := policies.Load(name)
		if err != nil {
			return fail(err)
		}
		settings[i] = loaded.Settings
	}
	lines := policies.Diff(settings[0], settings[1])
	printLines(lines)
	if len(lines) > 0 {
		return 1
	}
	return 0
}
