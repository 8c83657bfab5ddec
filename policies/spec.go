package policies

import (
	"errors"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/jailrun/jail/isolate"
)

// Spec is what the policy asks for a run of name with args, for a program that starts jails itself: it comes to what
// jail run makes of the same policy. The Spec is the caller's, who may go on from there.
//
// The environment is taken from this process's, now. fd N of a file rule is this process's, and stays its own.
//
// What a program does in its own way is refused, as the run would not be what the policy says: fd, stdin, stdout and
// stderr (Cmd has fields for them), and seccomp with a profile and syscalls (compile them with package seccomp, and set
// AllowList and CallRules).
// result, json and verbose tell the command what to print, and say nothing here. There is no JAIL_POLICY.
//
// The error is an *Error, with the place, for a setting that can't be had.
func (l *Loaded) Spec(name string, args ...string) (*isolate.Spec, error) {
	level := isolate.Namespaced
	for i := range l.Settings {
		s := &l.Settings[i]
		if s.Key != "level" {
			continue
		}
		var err error
		if level, err = isolate.ParseLevel(s.Value); err != nil {
			return nil, s.mistake(err)
		}
	}
	b := builder{Spec: isolate.NewSpec(level, name, args...), swap: -1, set: map[string]*Setting{}}
	for i := range l.Settings {
		s := &l.Settings[i]
		apply := s.setter()
		if apply == nil {
			return nil, s.mistake(problem("is for jail run; a program has to see to it itself"))
		}
		if err := apply(&b, s); err != nil {
			return nil, s.mistake(err)
		}
		if s.Section == filesSection {
			b.lastRule = s
		} else {
			b.set[s.Key] = s
		}
	}
	if err := b.check(); err != nil {
		return nil, err
	}
	if err := b.limits(); err != nil {
		return nil, err
	}
	b.Process.Env = b.Environ(os.Environ(), b.envAll, b.clearEnv, b.env)
	b.protect(l.Files)
	return b.Spec, nil
}

// mistake is an error about a setting.
func (s *Setting) mistake(err error) error {
	text := err.Error()
	var spec *isolate.SpecError
	if errors.As(err, &spec) {
		text = s.Key + " " + strconv.Quote(s.Written) + " " + spec.Problem
	}
	return &Error{s.At, text}
}

func problem(text string) error { return &isolate.SpecError{Problem: text} }

// builder makes a Spec.
type builder struct {
	*isolate.Spec
	set              map[string]*Setting // the last one of each key below the sections
	lastRule         *Setting            // of the file view
	env              []string
	envAll, clearEnv bool
	swap             int64 // beyond the memory limit; -1 is not given
	resources        specs.LinuxResources
}

// setter is what a setting does to a Spec; nil is what a program has to see to.
func (s *Setting) setter() func(*builder, *Setting) error {
	switch s.Section {
	case filesSection:
		return (*builder).rule
	case "permissions", "borders", "monitor":
		return setters[s.Key]
	}
	return nil
}

// setters has what each key below the sections does.
var setters = map[string]func(*builder, *Setting) error{
	"level":   func(*builder, *Setting) error { return nil }, // see Loaded.Spec
	"result":  func(*builder, *Setting) error { return nil },
	"json":    func(*builder, *Setting) error { return nil },
	"verbose": func(*builder, *Setting) error { return nil },
	"denied":  func(b *builder, s *Setting) error { b.Monitor = s.on(); return nil },
	"notify": func(b *builder, s *Setting) error {
		n, err := isolate.ParseNotify(s.Value)
		b.Notify = append(b.Notify, n)
		return err
	},

	"ipc": func(b *builder, s *Setting) error {
		r, err := isolate.ParseIPC(s.Value)
		b.IPC = append(b.IPC, r)
		return err
	},

	"env":      func(b *builder, s *Setting) error { b.env = append(b.env, s.Value); return nil },
	"env-all":  func(b *builder, s *Setting) error { b.envAll = s.on(); return nil },
	"clearenv": func(b *builder, s *Setting) error { b.clearEnv = s.on(); return nil },
	"network": func(b *builder, s *Setting) error {
		if s.Value != "none" && s.Value != "host" {
			return problem("is not none or host")
		}
		b.HostNetwork = s.Value == "host"
		return nil
	},
	"proc": func(b *builder, s *Setting) error {
		if s.Value != "own" && s.Value != "outer" {
			return problem("is not own or outer")
		}
		b.OuterProc = s.Value == "outer"
		return nil
	},
	"cap-add": func(b *builder, s *Setting) error {
		b.CapDrop = slices.DeleteFunc(b.CapDrop, func(c string) bool { return c == s.Value })
		b.CapAdd = append(b.CapAdd, s.Value)
		return nil
	},
	"cap-drop": func(b *builder, s *Setting) error { b.CapDrop = append(b.CapDrop, s.Value); return nil },
	"seccomp": func(b *builder, s *Setting) error {
		b.NoFilter, b.AllowList = s.Value == "unconfined", nil
		switch s.Value {
		case "baseline", "unconfined":
		case "default":
			b.AllowList = isolate.DefaultAllowList()
		default:
			return problem("is a profile; compile it with package seccomp, and set AllowList")
		}
		return nil
	},
	"seccomp-log": func(b *builder, s *Setting) error { b.FilterLog = s.on(); return nil },

	"user": func(b *builder, s *Setting) (err error) {
		b.Identity, b.Process.User, err = isolate.ParseUser(s.Value)
		return err
	},
	"workdir":  func(b *builder, s *Setting) error { b.Process.Cwd = s.Value; return nil },
	"hostname": func(b *builder, s *Setting) error { b.Hostname = s.Value; return nil },
	"rootfs": func(b *builder, s *Setting) error {
		path, writable := strings.CutSuffix(s.Value, ":rw")
		b.Root = &specs.Root{Path: path, Readonly: !writable}
		return nil
	},
	"rootfs-overlay": func(b *builder, s *Setting) error { b.RootOverlay = s.on(); return nil },
	"rlimit": func(b *builder, s *Setting) error {
		limit, err := isolate.ParseRlimit(s.Value)
		b.Process.Rlimits = slices.DeleteFunc(b.Process.Rlimits, func(l specs.POSIXRlimit) bool { return l.Type == limit.Type })
		b.Process.Rlimits = append(b.Process.Rlimits, limit)
		return err
	},
	"timeout": func(b *builder, s *Setting) (err error) { b.Timeout, err = isolate.ParseDuration(s.Value); return err },
	"kill-after": func(b *builder, s *Setting) (err error) {
		b.KillAfter, err = isolate.ParseDuration(s.Value)
		return err
	},
	"memory": func(b *builder, s *Setting) error {
		n, err := isolate.ParseSize(s.Value)
		if err == nil && n == 0 {
			err = problem("is no limit that a program could live with")
		}
		b.resources.Memory = &specs.LinuxMemory{Limit: &n}
		return err
	},
	"swap": func(b *builder, s *Setting) (err error) { b.swap, err = isolate.ParseSize(s.Value); return err },
	"pids-limit": func(b *builder, s *Setting) error {
		n, err := isolate.ParsePidsLimit(s.Value)
		b.resources.Pids = &specs.LinuxPids{Limit: &n}
		return err
	},
	"cpus": func(b *builder, s *Setting) error {
		quota, err := isolate.ParseCPUs(s.Value)
		period := uint64(isolate.CPUPeriod.Microseconds())
		b.cpu().Quota, b.cpu().Period = &quota, &period
		return err
	},
	"cpuset": func(b *builder, s *Setting) (err error) { b.cpu().Cpus, err = isolate.ParseCPUSet(s.Value); return err },
	"io":     (*builder).throttle,
	"cpu-time": func(b *builder, s *Setting) (err error) {
		b.CPUTime, err = isolate.ParseDuration(s.Value)
		if err == nil && b.CPUTime == 0 {
			err = problem("is no time at all")
		}
		return err
	},
	"cgroup-parent": func(b *builder, s *Setting) error { b.CgroupParent = s.Value; return nil },
	"name":          func(b *builder, s *Setting) (err error) { b.Name, err = isolate.ParseName(s.Value); return err },
	"output-limit": func(b *builder, s *Setting) (err error) {
		b.OutputLimit, b.OutputAction, err = isolate.ParseOutputLimit(s.Value)
		return err
	},
	"allow-downgrade": func(b *builder, s *Setting) error { b.AllowDowngrade = s.on(); return nil },
}

// on is the value of a switch.
func (s *Setting) on() bool { return s.Value == "true" }

// ruleKinds has the kinds of rules by their flags.
var ruleKinds = map[string]isolate.RuleKind{
	"--bind": isolate.ShowWrite, "--ro-bind": isolate.Show, "--deny": isolate.Deny, "--overlay": isolate.Overlay, "--device": isolate.Device,
	"--tmpfs": isolate.Tmpfs, "--dir": isolate.Dir, "--symlink": isolate.Symlink, "--file": isolate.File,
}

// rule adds a rule of the file view.
func (b *builder) rule(s *Setting) error {
	flag, optional := strings.CutSuffix(s.Flag, "-try")
	r := isolate.Rule{
		Kind: ruleKinds[flag], Path: s.place, Source: s.source, Optional: optional,
		NoExec: s.NoExec, Report: s.Report, Glob: s.Glob,
	}
	beside := strings.TrimSuffix(s.Value, ":"+s.place)
	var err error
	switch r.Kind {
	case isolate.Tmpfs:
		if size, ok := strings.CutPrefix(s.Value, s.place+":"); ok {
			if r.Size, err = isolate.ParseSize(size); err == nil && r.Size == 0 {
				err = problem("has the size 0")
			}
		}
	case isolate.Symlink:
		r.Source = beside
	case isolate.File:
		r.FD, _, err = isolate.ParseFD(beside)
	default:
	}
	b.View = append(b.View, r)
	return err
}

func (b *builder) cpu() *specs.LinuxCPU {
	if b.resources.CPU == nil {
		b.resources.CPU = &specs.LinuxCPU{}
	}
	return b.resources.CPU
}

// throttle sets the rates of one device.
func (b *builder) throttle(s *Setting) error {
	device, rates, err := isolate.ParseIO(s.Value)
	if err != nil {
		return err
	}
	kind, major, minor, err := deviceNumber(device)
	if err != nil {
		return err
	}
	if kind != "b" {
		return problem("names a file that is not a block device")
	}
	isolate.Throttle(&b.resources, major, minor, rates)
	return nil
}

// check refuses what excludes each other, and what a level can't give that the Spec has no word for there.
func (b *builder) check() error {
	refuse := func(key, text string) error { return b.set[key].mistake(problem(text)) }
	network, seccomp := b.set["network"], b.set["seccomp"]
	needs := func(s *Setting, level isolate.Level) error {
		return s.mistake(problem("can't be had at level " + b.Level.String() + ", but from level " + level.String() + " up"))
	}
	switch {
	case b.envAll && b.clearEnv:
		return refuse("clearenv", "and env-all exclude each other")
	case b.KillAfter > 0 && b.Timeout == 0:
		return refuse("kill-after", "needs timeout")
	case b.RootOverlay && b.Root == nil:
		return refuse("rootfs-overlay", "needs rootfs")
	case b.RootOverlay && !b.Root.Readonly:
		return refuse("rootfs-overlay", "and a rootfs with :rw exclude each other: one keeps writes in memory, the other in the tree")
	case b.Level < isolate.Namespaced && network != nil && !b.HostNetwork:
		return needs(network, isolate.Namespaced)
	case b.Level < isolate.Namespaced && b.Root != nil:
		return needs(b.set["rootfs"], isolate.Namespaced)
	case b.Level < isolate.Namespaced && b.set["hostname"] != nil:
		return needs(b.set["hostname"], isolate.Namespaced)
	case b.Level < isolate.User && b.FilterLog:
		return needs(b.set["seccomp-log"], isolate.User)
	case b.Level < isolate.User && seccomp != nil && !b.NoFilter:
		return needs(seccomp, isolate.User)
	}
	if b.Level < isolate.User && b.lastRule != nil {
		return needs(b.lastRule, isolate.User)
	}
	return nil
}

// limits gives the Spec the resources as OCI has them, where the limit on swap counts memory as well.
func (b *builder) limits() error {
	r := &b.resources
	switch {
	case r.Memory == nil && b.swap >= 0:
		return b.set["swap"].mistake(problem("needs memory"))
	case r.Memory != nil && *r.Memory.Limit > math.MaxInt64-max(b.swap, 0):
		return b.set["swap"].mistake(problem("is too large"))
	case r.Memory != nil:
		total := *r.Memory.Limit + max(b.swap, 0)
		r.Memory.Swap = &total
	case r.Pids == nil && r.CPU == nil && r.BlockIO == nil:
		return nil
	}
	b.Linux.Resources = r
	return nil
}

// protect makes the files of the policy read-only where the payload could write to them: the next run believes what
// they say.
func (b *builder) protect(files []string) {
	if b.Level < isolate.Namespaced {
		return
	}
	for _, r := range b.View {
		if r.Kind != isolate.ShowWrite || r.Glob {
			continue
		}
		real, err := filepath.EvalSymlinks(r.Source)
		if err != nil {
			continue // isolate says what is wrong with it
		}
		for _, file := range files {
			if name, inside := strings.CutPrefix(file, strings.TrimSuffix(real, "/")+"/"); inside {
				b.View = append(b.View, isolate.Rule{Kind: isolate.Show, Path: filepath.Join(r.Path, name), Source: file, NoExec: true})
			}
		}
	}
}
