//go:build cgo && (amd64 || arm64)

package isolate

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Patterns reach into trees that a payload may have filled: how much is looked at is bounded.
const (
	maxGlobEntries = 200_000
	maxGlobMatches = 2_000
)

var errGlobTooMuch = errors.New("has too much to look at: 200000 files, or 2000 that match; name a folder nearer to them")

// glob finds what matches an absolute pattern. Behind the first special component no link is followed; folders that
// can't be read are left out.
func glob(pattern string) ([]string, error) {
	var found []string
	left := maxGlobEntries
	var walk func(dir string, parts []string, noFollow int) error
	walk = func(dir string, parts []string, noFollow int) error {
		if len(parts) == 0 {
			if len(found) == maxGlobMatches {
				return errGlobTooMuch
			}
			found = append(found, dir)
			return nil
		}
		part := parts[0]
		if part != "**" && !IsGlob(part) {
			next := filepath.Join(dir, part)
			if _, err := os.Lstat(next); err != nil {
				return nil //nolint:nilerr // what is not there does not match
			}
			return walk(next, parts[1:], noFollow)
		}
		if part == "**" {
			if err := walk(dir, parts[1:], unix.O_NOFOLLOW); err != nil {
				return err
			}
		}
		entries, err := list(dir, noFollow, left)
		if err != nil {
			return nil //nolint:nilerr // nor does what can't be listed
		}
		if left -= len(entries); left <= 0 {
			return errGlobTooMuch
		}
		for _, e := range entries {
			next := filepath.Join(dir, e.Name())
			if part == "**" {
				if e.IsDir() {
					err = walk(next, parts, unix.O_NOFOLLOW)
				}
			} else if ok, _ := path.Match(part, e.Name()); ok && (len(parts) == 1 || e.IsDir()) {
				err = walk(next, parts[1:], unix.O_NOFOLLOW)
			}
			if err != nil {
				return err
			}
		}
		return nil
	}
	err := walk("/", strings.Split(strings.Trim(pattern, "/"), "/"), 0)
	slices.Sort(found)
	return slices.Compact(found), err
}

// list gives the entries of a folder, most at the most. A FIFO in its place does not hold it up.
func list(dir string, noFollow, most int) ([]fs.DirEntry, error) {
	f, err := os.OpenFile(dir, os.O_RDONLY|unix.O_DIRECTORY|noFollow, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	entries, err := f.ReadDir(most)
	if len(entries) > 0 {
		err = nil
	}
	return entries, err
}

// exists says whether something is at a path; a link that leads nowhere counts with link.
func exists(name string, link bool) bool {
	stat := os.Stat
	if link {
		stat = os.Lstat
	}
	_, err := stat(name)
	return err == nil || !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ENOTDIR)
}

// expandGlobs puts in the place of a pattern what matches it now. They stand before the rules that name their path, which
// win so; and that of a Deny stays, for what it may match later. Patterns with Report are returned as well.
func (c *compiler) expandGlobs(given []Rule) (rules, watched []Rule, err error) {
	if !slices.ContainsFunc(given, func(r Rule) bool { return r.Glob }) {
		return given, nil, nil
	}
	var matched, named []Rule
	for _, r := range given {
		if !r.Glob {
			if r.Default {
				matched = append(matched, r)
			} else {
				named = append(named, r)
			}
			continue
		}
		found, err := c.host.Match(r.Path)
		if err != nil {
			return nil, nil, &SpecError{Field: string(r.Kind), Value: r.Path, Problem: err.Error()}
		}
		if r.Report {
			watched = append(watched, r)
		}
		if r.Kind == Deny {
			for _, other := range given {
				if other.hasSource() && other.Source != other.Path && reachesInto(r.Path, other.Path) || c.spec.Root != nil {
					return nil, nil, &SpecError{Field: "deny", Value: r.Path, Problem: "is a pattern for a place that other files than the host's are shown at; name the path"}
				}
			}
			named = append(named, r)
		}
		if len(found) == 0 && r.hasSource() && !r.Optional && !r.Report {
			return nil, nil, &SpecError{Field: string(r.Kind), Value: r.Path, Problem: "matches nothing"}
		}
		for _, path := range found {
			one := r
			one.Glob, one.Path = false, path
			if r.hasSource() {
				one.Source = path
			}
			matched = append(matched, one)
		}
	}
	return append(matched, named...), watched, nil
}

// watch remembers what a rule with Report has to be looked for at the end: what is absent where the payload could make
// it.
func (c *compiler) watch(r Rule, rules []Rule) {
	if r.Glob {
		known, _ := c.host.Match(r.Path) // it has been looked up
		if slices.ContainsFunc(rules, func(w Rule) bool { return w.Kind == ShowWrite && reachesInto(r.Path, w.Path) }) {
			c.plan.absent = append(c.plan.absent, absence{path: r.Path, source: r.Path, glob: true, known: known})
		}
		return
	}
	in := coverOf(r.Path, rules)
	if in == nil || in.Kind != ShowWrite || r.hasSource() && c.host.Look(r.Source).Err == nil {
		return
	}
	source := in.Source + strings.TrimPrefix(r.Path, in.Path)
	if f := c.host.Look(source); f.Err != nil {
		c.plan.absent = append(c.plan.absent, absence{path: r.Path, source: source, link: f.Link != ""})
	}
}

// coverOf is the rule for the longest path that holds path, itself left out.
func coverOf(path string, rules []Rule) *Rule {
	var cover *Rule
	for i, r := range rules {
		if r.Path != "" && r.Path != path && within(path, r.Path) && !r.Glob && (cover == nil || len(r.Path) >= len(cover.Path)) {
			cover = &rules[i]
		}
	}
	return cover
}

// pin adds to the rules those that keep a path in its place: the folders between a writable one and a path in it that is
// denied or read-only are mounts of their own, so that the payload can't rename them and make others under their names.
func (c *compiler) pin(rules []Rule) []Rule {
	if !slices.ContainsFunc(rules, func(r Rule) bool { return r.Kind == ShowWrite }) {
		return rules
	}
	taken := map[string]bool{}
	for _, r := range rules {
		taken[r.Path] = true
	}
	for _, r := range slices.Clone(rules) {
		if r.Default || r.Glob || r.Kind != Deny && r.Kind != Show {
			continue
		}
		in := coverOf(r.Path, rules)
		if in == nil || in.Kind != ShowWrite {
			continue
		}
		outer := *in
		for dir := filepath.Dir(r.Path); dir != outer.Path; dir = filepath.Dir(dir) {
			source := outer.Source + strings.TrimPrefix(dir, outer.Path)
			if f := c.host.Look(source); taken[dir] || f.Err != nil || f.Link != "" || !f.isDir() {
				continue
			}
			taken[dir] = true
			rules = append(rules, Rule{Kind: ShowWrite, Path: dir, Source: source, NoExec: outer.NoExec, Optional: true})
		}
	}
	return rules
}

// hold adds a rule for each file that stands where an absent path of a rule with Report would need a folder, as the .git
// of a linked worktree does: as long as it stays what it is, the path stays absent.
func (c *compiler) hold(watched, rules []Rule) []Rule {
	for _, r := range watched {
		in := coverOf(r.Path, rules)
		if r.Glob || in == nil || in.Kind != ShowWrite {
			continue
		}
		outer := *in
		for dir := filepath.Dir(r.Path); dir != outer.Path; dir = filepath.Dir(dir) {
			source := outer.Source + strings.TrimPrefix(dir, outer.Path)
			f := c.host.Look(source)
			if f.Err == nil && f.Link == "" && !f.isDir() {
				rules = append(rules, Rule{Kind: Show, Path: dir, Source: source, NoExec: true, Optional: true})
			}
			if f.Err == nil {
				break
			}
		}
	}
	return rules
}

// appeared lists what was absent at the start and exists now.
func (p *Plan) appeared() []string {
	found := []string{}
	for _, a := range p.absent {
		switch {
		case a.glob:
		case a.root != "": // hostile: no link in it leads out
			if f := lookIn(a.root, a.source); f.Err == nil && !f.Missing {
				found = append(found, a.path)
			}
			continue
		case exists(a.source, !a.link):
			found = append(found, a.path)
			continue
		default:
			continue
		}
		now, err := glob(a.source)
		if err != nil { // more than can be looked at: the payload has made it so
			found = append(found, a.path)
		}
		for _, path := range now {
			if !slices.Contains(a.known, path) {
				found = append(found, path)
			}
		}
	}
	return found
}
