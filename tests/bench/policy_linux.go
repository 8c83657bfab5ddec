package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/jailrun/jail/policies"
)

// policy measures what it costs to read a policy: a run under the largest built-in one, beside the same level and beside
// flags that say the same as far as flags can. The rest of the difference is what no flag says: to read without
// executing, and to look for what is absent.
func (b *bench) policy(a account) error {
	name, size := "", 0
	for _, n := range policies.Builtin() {
		loaded, err := policies.Load(n)
		if err != nil {
			return err
		}
		if len(loaded.Settings) > size {
			name, size = n, len(loaded.Settings)
		}
	}
	const hooks, config = ".git/hooks", ".git/config"
	err := errors.Join(os.MkdirAll(filepath.Join(b.work, hooks), 0o755), os.WriteFile(filepath.Join(b.work, config), nil, 0o644))
	if err != nil {
		return err
	}
	defer os.RemoveAll(filepath.Join(b.work, ".git"))
	jail := b.program("jail")
	same := kind{name: "flags that say the same", args: []string{
		jail, "run", "--bind", ".", "--ro-bind", hooks, "--ro-bind", config, "--network=none", "--rlimit", "core=0", "--", "/bin/true",
	}}
	under := kind{name: fmt.Sprintf("jail run --policy %s (%d settings)", name, size), args: []string{jail, "run", "--policy", name, "--", "/bin/true"}}
	before := len(b.figures)
	if err := b.compare("policy", a, same.name, []kind{{name: "level namespaced", args: []string{jail, "run", "--", "/bin/true"}}, same, under}); err != nil {
		return err
	}
	base, got := b.figures[before+1], b.figures[before+2]
	b.add(figure{Part: "policy", User: a.name, Name: "what the policy adds to the run", Unit: "ms", Value: got.Value - base.Value, Min: got.Min - base.Min, Problem: base.Problem + got.Problem})
	return b.readPolicy(a, name)
}

// readPolicy measures the reading alone, in processes of their own.
func (b *bench) readPolicy(a account, name string) error {
	program := b.program("readpolicy")
	c := command("go", "build", "-tags", "osusergo,netgo", "-ldflags", "-s -w -linkmode external -extldflags -static", "-o", program, "./tests/bench/readpolicy")
	c.Env = append(os.Environ(), "CGO_ENABLED=1", "GOFLAGS=-buildvcs=false")
	if err := c.Run(); err != nil {
		return err
	}
	var read, both []float64
	for range b.runs {
		out, err := b.try(a, []string{program, name})
		var ms [2]float64
		if err == nil {
			_, err = fmt.Sscan(out, &ms[0], &ms[1])
		}
		if err != nil {
			return fmt.Errorf("readpolicy: %w: %s", err, out)
		}
		read, both = append(read, ms[0]), append(both, ms[1])
	}
	parsing := sample("policy", a, "reading it, in a fresh process", read)
	f := sample("policy", a, "reading it and making a Spec", both)
	f.Goal = 1
	b.add(parsing)
	b.add(f)
	return nil
}

// filter measures what ordinary calls cost under the filters: beside none, beside one of a single instruction, which
// shows what the kernel takes for any filter at all, and beside Docker's profile as runc loads it.
func (b *bench) filter(a account) error {
	calls := filepath.Join(b.work, "calls")
	if err := command("gcc", "-O2", "-static", "-Wall", "-o", calls, "tests/bench/c/calls.c").Run(); err != nil {
		return err
	}
	root := filepath.Join(b.dir, "calls-root")
	if err := errors.Join(makeRoot(root), command("install", "-m", "755", calls, filepath.Join(root, "bin/calls")).Run()); err != nil {
		return err
	}
	run := func(flags ...string) []string {
		return append(append([]string{b.program("jail"), "run"}, flags...), "--", calls, "20000")
	}
	bundle, err := b.callsBundle(a, root)
	if err != nil {
		return err
	}
	group := fmt.Sprintf("bench-calls-%d", os.Getpid())
	kinds := []kind{
		{name: "no filter", args: run("--seccomp=unconfined")},
		{name: "one instruction", args: append(run("--seccomp=unconfined"), "filter")},
		{name: "baseline (level namespaced)", args: run(), goal: 1.05},
		{name: "baseline and default (as level contained)", args: run("--seccomp=default"), goal: 1.05},
		{name: "runc, Docker's profile", args: []string{"runc", "--root", filepath.Join(bundle, "state"), "run", "--bundle", bundle, group}},
	}
	names := []string{"getppid", "read"}
	times := make([][2][]float64, len(kinds))
	problems := make([]string, len(kinds))
	for range rounds {
		for i, k := range kinds {
			out, err := b.try(a, k.args)
			var ns [2]float64
			if err == nil {
				_, err = fmt.Sscan(out, &ns[0], &ns[1])
			}
			if err != nil {
				problems[i] = fmt.Sprintf("%v: %s", err, strings.TrimSpace(out))
				continue
			}
			for call := range names {
				times[i][call] = append(times[i][call], ns[call])
			}
		}
	}
	for call, name := range names {
		for i, k := range kinds {
			f := figure{Part: "filter", User: a.name, Name: name + ", " + k.name, Problem: problems[i], Unit: "ns", Peer: kinds[0].name}
			if f.Problem == "" {
				f.Value = median(times[i][call])
				f.Goal = k.goal
				if problems[0] == "" {
					f.Ratio = f.Value / median(times[0][call])
				}
			}
			b.add(f)
		}
	}
	return removeCgroups(group)
}

// callsBundle is a bundle that makes the calls under Docker's profile, without a cgroup of its own to name.
func (b *bench) callsBundle(a account, root string) (string, error) {
	spec, err := bundleSpec(a, root)
	if err != nil {
		return "", err
	}
	spec.Process.Args = []string{"/bin/calls", "20000"}
	spec.Linux.MaskedPaths, spec.Linux.ReadonlyPaths = nil, nil
	text, err := json.Marshal(spec)
	if err != nil {
		return "", err
	}
	dir := filepath.Join(b.dir, "calls-bundle-"+a.name)
	state := filepath.Join(dir, "state")
	return dir, errors.Join(os.MkdirAll(state, 0o755), os.Chown(state, a.uid, a.uid), os.WriteFile(filepath.Join(dir, "config.json"), text, 0o644))
}
