package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/jailrun/jail/isolate"
	"github.com/jailrun/jail/policies"
)

// learnFlags are those of run, and two more.
func learnFlags(output *string, merge *bool) []flag {
	return append(slices.Clone(runFlags),
		flag{"--output", "-o", "FILE", func(_ *options, v string) (err error) { *output, err = absolute(v); return err }},
		flag{"--merge", "", "", func(_ *options, v string) error { *merge = v == "true"; return nil }})
}

// learn is jail learn: a run that is watched, and a policy of what it has used. Its exit code is the command's.
func learn(args []string) int {
	var output string
	var merge bool
	o, err := readOptions(learnFlags(&output, &merge), args)
	switch {
	case err != nil:
		return fail(err)
	case o.help:
		return help([]string{"learn"})
	case output == "":
		return fail(&usageError{problem: "jail learn needs -o FILE", hint: "jail learn -o policy.yaml [flags of run] -- COMMAND …"})
	case filepath.Ext(output) != ".yaml" && filepath.Ext(output) != ".yml":
		return fail(&isolate.SpecError{Field: "output", Value: output, Problem: "is not the name of a policy: it has to end in .yaml or .yml"})
	case o.level < isolate.Namespaced:
		return fail(&isolate.SpecError{Field: "level", Value: o.level.String(), Problem: "can't hold a policy that is learnt, but level " + isolate.Namespaced.String() + " and up can"})
	case o.root != nil:
		return fail(&usageError{flag: "--rootfs", problem: "jail learn and --rootfs exclude each other: what a policy shows of it can't be told from what it has"})
	}
	p := newLearnt(o)
	if merge {
		err = p.readBack(output)
	} else if _, e := os.Lstat(output); e == nil {
		err = &isolate.SpecError{Field: "output", Value: output, Problem: "exists already; --merge adds a run to it"}
	}
	if err != nil {
		return fail(err)
	}
	dir, err := os.OpenRoot(filepath.Dir(output))
	if err != nil {
		return fail(err)
	}
	defer dir.Close()
	spec, err := o.spec()
	if err != nil {
		return fail(o.blame(err))
	}
	spec.Trace, spec.Monitor = true, true
	cmd := isolate.FromSpec(context.Background(), spec)
	o.passFiles(cmd)
	broker, err := o.serveIPC(cmd)
	if err != nil {
		return fail(err)
	}
	defer broker.close()
	code := o.start(cmd, broker)
	if code != started {
		return code
	}
	if err := cmd.Wait(); err != nil && !errors.As(err, new(*isolate.ExitError)) {
		return fail(err)
	}
	result := cmd.Result()
	for _, line := range summary(result, false) {
		complain(line)
	}
	p.take(cmd.Trace(), result, cmd.Plan())
	if spec.AllowList != nil || slices.Contains(spec.Promised, isolate.AllowListFilter) {
		p.calls["seccomp"] = true // one of two filters has to let the other be loaded, and that one may not
	}
	if err := p.save(dir, output); err != nil {
		return fail(err)
	}
	complain("learnt: " + quote(output) + "; read it before you use it")
	return result.ShellCode()
}

// learnt is what a policy is made of.
type learnt struct {
	o       *options
	command string
	cwd     string
	shown   []string // folders that the level shows
	bound   []string // places that flags show
	read    map[string]bool
	write   map[string]bool
	exec    map[string]bool
	calls   map[string]bool
	refused map[string]string // calls that a filter has refused otherwise than with EPERM, and the errno
	caps    map[string]bool
	host    bool // network
	notes   []string
	memory  int64
}

func newLearnt(o *options) *learnt {
	p := &learnt{o: o, read: map[string]bool{}, write: map[string]bool{}, exec: map[string]bool{}, calls: map[string]bool{}, refused: map[string]string{}, caps: map[string]bool{}, host: o.network == "host"}
	if p.cwd = o.workdir; p.cwd == "" {
		p.cwd, _ = os.Getwd()
	}
	p.cwd = realPath(p.cwd)
	for _, r := range isolate.NewSpec(o.level, "true").View {
		info, err := os.Lstat(r.Path)
		if r.Kind == isolate.Show && err == nil && info.IsDir() && realPath(r.Path) == r.Path {
			p.shown = append(p.shown, r.Path)
		}
	}
	for _, r := range o.rules {
		if r.Source != "" && r.Source == r.Path {
			p.bound = append(p.bound, realPath(r.Path))
		}
	}
	return p
}

func realPath(path string) string {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		return real
	}
	return path
}

func inside(path string, dirs ...string) bool {
	return slices.ContainsFunc(dirs, func(dir string) bool {
		return path == dir || dir == "/" || strings.HasPrefix(path, strings.TrimSuffix(dir, "/")+"/")
	})
}

// mine says whether a path is one that a rule has to show: on the host, and neither private nor of /proc.
func (p *learnt) mine(path string, plan *isolate.Plan) bool {
	host, shown := plan.HostPath(path)
	if !shown || host != path || inside(path, "/proc", "/sys", "/dev") {
		return false
	}
	_, err := os.Lstat(path)
	return err == nil
}

// take adds a run.
func (p *learnt) take(t *isolate.Trace, r *isolate.Result, plan *isolate.Plan) {
	p.command = strings.Join(quoted(p.o.command), " ")
	for _, l := range []struct {
		from []string
		to   map[string]bool
	}{{t.Read, p.read}, {t.Written, p.write}, {t.Changed, p.write}, {t.Executed, p.exec}, {t.Mapped, p.exec}} {
		for _, path := range l.from {
			if p.mine(path, plan) {
				l.to[path] = true
			}
		}
	}
	for _, name := range t.Calls {
		p.calls[name] = true
	}
	for _, name := range slices.Sorted(maps.Keys(t.Capabilities)) {
		p.caps[name] = true
		if call := t.Capabilities[name]; call != "" {
			p.note("capability: " + name + ", by " + call)
		} else {
			p.note("capability: " + name + ", of which no call tells: was it used?")
		}
	}
	for _, a := range t.Addresses {
		p.note("address: " + quote(a))
	}
	if t.Full {
		p.note("there was more than could be kept: this is not all")
	}
	peak := max(r.PeakMemoryBytes, r.ReapedMaxRSSBytes)
	p.note(fmt.Sprintf("used: wall %.1f s, CPU %.1f s, memory %d MiB",
		r.WallMS/1000, max(r.UserMS+r.SystemMS, r.ReapedUserMS+r.ReapedSystemMS)/1000, peak>>20))
	if r.PeakMemoryBytes > 0 {
		p.memory = max(p.memory, 2*r.PeakMemoryBytes, 16<<20)
	}
	for _, d := range r.Denied {
		if d.Why == isolate.ByFilter && d.Errno != "EPERM" && !strings.Contains(d.Call, " ") { // programs do another thing then
			p.refused[d.Call] = d.Errno
		}
		p.note("refused, and not in this policy: " + d.Call + " " + quote(d.Path+d.Argument) + " (" + string(d.Why) + ")")
	}
}

// note is a line of the policy's comment.
func (p *learnt) note(line string) {
	const most = 50
	if len(p.notes) < most && !slices.Contains(p.notes, line) {
		p.notes = append(p.notes, line)
	}
}

func quoted(words []string) []string {
	var list []string
	for _, w := range words {
		list = append(list, quote(w))
	}
	return list
}

// fold makes one folder of many files in it.
func fold(paths map[string]bool, most int) {
	in := map[string][]string{}
	for path := range paths {
		in[filepath.Dir(path)] = append(in[filepath.Dir(path)], path)
	}
	for dir, list := range in {
		if len(list) > most && strings.Count(dir, "/") > 1 {
			for _, path := range list {
				delete(paths, path)
			}
			paths[dir] = true
		}
	}
	for path := range paths { // what lies in a folder of the list has its rights
		for dir := filepath.Dir(path); dir != "/"; dir = filepath.Dir(dir) {
			if paths[dir] {
				delete(paths, path)
			}
		}
	}
}

// How many files of one folder are listed one by one.
const (
	mostFiles    = 8
	mostPrograms = 32
)

// rules are the file rules: what the level shows can be read, and executed file by file.
func (p *learnt) rules() []policies.Setting {
	folders := append(slices.Clone(p.shown), p.cwd)
	if inside(p.cwd, append(p.shown, "/tmp", "/var/tmp", "/run", "/dev/shm")...) || p.cwd == "/" {
		folders = folders[:len(folders)-1]
	}
	write, read, exec := map[string]bool{}, map[string]bool{}, map[string]bool{}
	for path := range p.write {
		write[path] = true
	}
	fold(write, mostFiles)
	for path := range p.exec {
		if strings.Contains(filepath.Base(path), ".so") && !inside(filepath.Dir(path), p.cwd) {
			path = filepath.Dir(path) // of libraries the folder: which ones are taken depends on the processor
		}
		for dir := range write { // what the run has made there is made anew by the next one
			if inside(path, dir) {
				path = dir
			}
		}
		exec[path] = true
	}
	fold(exec, mostPrograms)
	for path := range p.read {
		if !inside(path, folders...) && !inside(path, slices.Collect(maps.Keys(write))...) {
			read[path] = true
		}
	}
	// A folder that was looked at is not all that is in it, but for one that flags have shown by its name.
	for path := range read {
		if info, err := os.Stat(path); err == nil && info.IsDir() && !slices.Contains(p.bound, path) {
			delete(read, path)
		}
	}
	fold(read, mostFiles)
	var rules []policies.Setting
	add := func(flag, path string, noExec bool) {
		s := policies.FromFlag(flag, path)
		s.At.File = "learnt" // of a policy: rights add up, and writing does not bring executing
		if flag == "--ro-bind-try" && noExec {
			s.Key = "read"
		}
		rules = append(rules, s)
	}
	used := func(dir string) bool {
		for _, list := range []map[string]bool{p.read, p.write, p.exec} {
			for path := range list {
				if inside(path, dir) {
					return true
				}
			}
		}
		return false
	}
	for _, dir := range folders {
		switch {
		case write[dir]:
		case dir == p.cwd || used(dir):
			add("--ro-bind-try", dir, true)
		default:
			add("--deny", dir, false)
		}
	}
	for _, path := range slices.Sorted(maps.Keys(read)) {
		add("--ro-bind-try", path, true)
	}
	for _, path := range slices.Sorted(maps.Keys(write)) {
		add("--bind-try", path, true)
	}
	for _, path := range slices.Sorted(maps.Keys(exec)) {
		add("--ro-bind-try", path, false)
	}
	return rules
}

// kept are the settings that stay as they were asked for: all but those that the run has told more of, and those of the
// report. What is shown at another path than the host's is kept, too.
func (p *learnt) kept() []policies.Setting {
	var list []policies.Setting
	for _, a := range p.o.asked {
		told := slices.Contains([]string{"level", "network", "cap-add", "cap-drop", "memory", "swap", "result", "json", "verbose", "denied"}, a.Key)
		same := len(a.rules) > 0 && !slices.ContainsFunc(a.rules, func(r isolate.Rule) bool {
			return r.Source != r.Path || r.Kind != isolate.Show && r.Kind != isolate.ShowWrite
		})
		if a.Key != "" && !told && !same {
			list = append(list, a.Setting)
		}
	}
	return list
}

// alwaysCalls are what any program may make at any time, and what comes before it.
var alwaysCalls = []string{
	"brk", "clock_gettime", "clock_nanosleep", "close", "execve", "exit", "exit_group", "futex", "getpid", "gettid",
	"madvise", "mmap", "mprotect", "mremap", "munmap", "nanosleep", "read", "restart_syscall", "rt_sigaction", "rt_sigprocmask",
	"rt_sigreturn", "sched_yield", "tgkill", "write",
}

// save writes the policy.
func (p *learnt) save(dir *os.Root, output string) error {
	settings := append(p.rules(), p.kept()...)
	settings = append(settings, policies.FromFlag("--level", p.o.level.String()))
	if p.host {
		settings = append(settings, policies.FromFlag("--network", "host"))
	}
	for _, name := range slices.Sorted(maps.Keys(p.caps)) {
		settings = append(settings, policies.FromFlag("--cap-add", strings.TrimPrefix(name, "CAP_")))
	}
	settings = append(settings, policies.FromFlag("--syscalls", "deny=@all"))
	calls := maps.Clone(p.calls)
	for _, name := range alwaysCalls {
		calls[name] = true
	}
	for _, name := range slices.Sorted(maps.Keys(p.refused)) {
		if !calls[name] {
			settings = append(settings, policies.FromFlag("--syscalls", "deny:"+p.refused[name]+"="+name))
		}
	}
	for _, word := range foldCalls(calls) {
		settings = append(settings, policies.FromFlag("--syscalls", "allow="+word))
	}
	if p.memory > 0 {
		settings = append(settings, policies.FromFlag("--memory", strconv.FormatInt((p.memory+1<<20-1)>>20, 10)+"M"))
	}
	comment := "Learnt from " + p.command + ": what it has used, and nothing else.\n" +
		"Read it before you use it: another run may need more, and this one may have done what it should not.\n"
	for _, note := range p.notes {
		comment += note + "\n"
	}
	return replaceFile(dir, filepath.Base(output), []byte(policies.Format(comment, settings, true)))
}

// replaceFile writes all at once, through an fd of the folder that was there before the payload ran.
func replaceFile(dir *os.Root, name string, text []byte) error {
	temporary := ".jail-learn-" + strconv.Itoa(os.Getpid())
	f, err := dir.OpenFile(temporary, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if e := f.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = dir.Rename(temporary, name)
	}
	if err != nil {
		_ = dir.Remove(temporary)
	}
	return err
}

// readBack takes what an earlier run has written.
func (p *learnt) readBack(output string) error {
	text, err := os.ReadFile(output)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	loaded, err := policies.Load(output)
	if err != nil {
		return err
	}
	for _, s := range loaded.Settings {
		path := strings.TrimSuffix(s.Value, "/")
		switch s.Key {
		case "read":
			p.read[path] = true
			p.bound = append(p.bound, path) // a folder of it was the working folder
		case "write":
			p.write[path] = true
		case "exec":
			p.exec[path] = true
		case "network":
			p.host = p.host || s.Value == "host"
		case "cap-add":
			p.caps["CAP_"+s.Value] = true
		case "deny":
			if rule, err := policies.SplitSyscallRule(s.Value); err == nil && s.Section == "permissions.syscalls" && rule.Errno != "" && len(rule.When) == 0 {
				for _, name := range rule.Calls {
					p.refused[name] = rule.Errno
				}
			}
		case "allow":
			if rule, err := policies.SplitSyscallRule(s.Value); err == nil && len(rule.When) == 0 {
				for _, word := range rule.Calls {
					for _, name := range unfoldCalls(word) {
						p.calls[name] = true
					}
				}
			}
		case "memory":
			p.memory, _ = isolate.ParseSize(s.Value)
		}
	}
	for line := range strings.Lines(string(text)) {
		if note, ok := strings.CutPrefix(line, "# "); ok && slices.ContainsFunc([]string{"address: ", "capability: ", "refused, ", "used: "}, func(b string) bool { return strings.HasPrefix(note, b) }) {
			p.note(strings.TrimSuffix(note, "\n"))
		}
	}
	return nil
}
