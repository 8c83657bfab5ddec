package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

const rounds = 10

// process measures whole processes.
func (b *bench) process(a account) error {
	const payload = "/bin/true"
	return b.compare("process", a, "bubblewrap", []kind{
		{name: "empty program in C", args: []string{b.program("empty")}},
		{name: "empty program in Go", args: []string{b.program("empty-go")}},
		{name: "floor in C", args: b.floor(a, payload)},
		{name: "bubblewrap", args: b.bubblewrap(a, payload)},
		{"jail run --level=namespaced", []string{b.program("jail"), "run", "--level=namespaced", "--", payload}, 0.95, 1.15},
	})
}

// compare measures kinds by hyperfine. It runs in rounds, in each of which every command has its turn, so that a busy
// moment of the machine hits all alike.
func (b *bench) compare(part string, a account, peer string, kinds []kind) error {
	problems := make([]string, len(kinds))
	times := make([][]float64, len(kinds))
	var turn []int
	for i, k := range kinds {
		if out, err := b.try(a, k.args); err != nil {
			problems[i] = fmt.Sprintf("%v: %s", err, out)
			continue
		}
		turn = append(turn, i)
	}
	for i := 0; i < rounds && len(turn) > 0; i++ {
		turn = append(turn[1:], turn[0])
		commands := make([]string, 0, len(turn))
		for _, i := range turn {
			commands = append(commands, strings.Join(kinds[i].args, " "))
		}
		results, err := b.hyperfine(a, commands)
		if err != nil {
			return err
		}
		for j, i := range turn {
			times[i] = append(times[i], results[j]...)
		}
	}
	var base float64
	for i, k := range kinds {
		if k.name == peer && problems[i] == "" {
			base = median(times[i])
		}
	}
	for i, k := range kinds {
		f := figure{Part: part, User: a.name, Name: k.name, Problem: problems[i]}
		if f.Problem == "" {
			f = sample(part, a, k.name, times[i])
		}
		f.Peer = peer
		if base > 0 {
			f.Ratio, f.Goal, f.Never = f.Value/base, k.goal, k.never
		}
		b.add(f)
	}
	return nil
}

// try runs a command once and returns what it says.
func (b *bench) try(a account, args []string) (string, error) {
	c := b.as(a, args...)
	c.Stderr = nil
	out, err := c.CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

// hyperfine returns the milliseconds of each run of each command.
func (b *bench) hyperfine(a account, commands []string) ([][]float64, error) {
	dir, err := os.MkdirTemp(b.dir, "times-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o777); err != nil {
		return nil, err
	}
	file := filepath.Join(dir, "times.json")
	runs := max(b.runs/rounds, 1)
	args := []string{"hyperfine", "-N", "--style", "none", "--warmup", "2", "--runs", fmt.Sprint(runs), "--export-json", file}
	c := b.as(a, append(args, commands...)...)
	c.Stderr = nil // hints about outliers
	if out, err := c.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("hyperfine: %w: %s", err, out)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var report struct {
		Results []struct{ Times []float64 }
	}
	if err := json.Unmarshal(text, &report); err != nil {
		return nil, err
	}
	if len(report.Results) != len(commands) {
		return nil, fmt.Errorf("hyperfine gave %d results for %d commands", len(report.Results), len(commands))
	}
	times := make([][]float64, len(commands))
	for i, r := range report.Results {
		for _, s := range r.Times {
			times[i] = append(times[i], s*1000)
		}
	}
	return times, nil
}
