package main

import (
	"fmt"
	"strconv"
	"strings"
)

// library measures launch and wait from inside one program, in rounds as in process.
func (b *bench) library(a account) {
	const payload = "/bin/true"
	inGo := func(parallel int, args ...string) []string {
		start := []string{b.program("launcher"), "-n", fmt.Sprint(b.block()), "-parallel", fmt.Sprint(parallel)}
		return append(start, args...)
	}
	inC := func(parallel int, args ...string) []string {
		return append([]string{b.program("spawn"), fmt.Sprint(b.block()), fmt.Sprint(parallel)}, args...)
	}
	var kinds []kind
	for parallel, suffix := range []string{1: "", 2: ", two at once"} {
		if parallel == 0 {
			continue
		}
		jail := kind{"isolate.Command(…).Run()" + suffix, inGo(parallel, append([]string{"-jail", "--"}, payload)...), 0.45, 0.65}
		if parallel == 2 {
			jail.goal, jail.never = 0.30, 0.45
		}
		kinds = append(kinds,
			kind{name: "bubblewrap from Go" + suffix, args: inGo(parallel, append([]string{"--"}, b.bubblewrap(a, payload)...)...)},
			kind{name: "bubblewrap from C" + suffix, args: inC(parallel, b.bubblewrap(a, payload)...)},
			kind{name: "floor in C from C" + suffix, args: inC(parallel, b.floor(a, payload)...)},
			jail)
	}
	times := make([][]float64, len(kinds))
	problems := make([]string, len(kinds))
	for round := range librarySlices {
		for j := range kinds {
			i := (round + j) % len(kinds)
			if problems[i] != "" {
				continue
			}
			out, err := b.try(a, kinds[i].args)
			ms, parseErr := strconv.ParseFloat(strings.TrimSpace(out), 64)
			if err != nil || parseErr != nil {
				problems[i] = fmt.Sprintf("%v: %s", err, out)
				continue
			}
			times[i] = append(times[i], ms)
		}
	}
	var base float64
	if problems[0] == "" {
		base = median(times[0]) // the ratios of two at once are to the plain loop, too
	}
	for i, k := range kinds {
		f := figure{Part: "library", User: a.name, Name: k.name, Unit: "ms", Peer: "bubblewrap", Goal: k.goal, Never: k.never, Problem: problems[i]}
		if f.Problem == "" {
			f.Value = median(times[i])
			if base > 0 {
				f.Ratio = f.Value / base
			}
		}
		b.add(f)
	}
}

const librarySlices = 6

// block is how many launches one slice of the loop makes; even, for two at once.
func (b *bench) block() int { return max(b.runs/librarySlices*2, 2) }
