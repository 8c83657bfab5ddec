//go:build cgo && (amd64 || arm64)

package isolate

import (
	"fmt"
	"path/filepath"
	"slices"
	"sort"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/jailrun/jail/isolate/internal/jailinit"
)

// view makes the file view: by mounts in a mount namespace, by Landlock otherwise, not at all without rules.
func (c *compiler) view(rules []Rule) error {
	mounts := c.spec.hasNamespace(specs.MountNamespace)
	if !mounts && !slices.Contains(c.spec.Promised, FileView) {
		for _, r := range rules {
			return &SpecError{Field: string(r.Kind), Value: r.Path, Problem: "needs a file view, which this level does not have; level " + User.String() + " does"}
		}
		return c.workdirStep()
	}
	if mounts {
		if err := c.scopes(); err != nil {
			return err
		}
		if err := c.noChroot(); err != nil {
			return err
		}
		return c.mountView(rules)
	}
	if err := c.landlockView(rules); err != nil {
		return err
	}
	return c.workdirStep()
}

// scopes closes, by Landlock, what the namespaces leave open. No file right is handled: any of them would make mount(2)
// fail in the jail, and so a jail in a jail.
func (c *compiler) scopes() error {
	var scopes uint64
	if c.spec.HostNetwork {
		scopes = unix.LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET // the host's would be in reach
	}
	ptrace := !c.userNS && !c.mapped && c.keep>>unix.CAP_SYS_PTRACE&1 == 1
	if ptrace {
		// Else PID 1, and through its pidfd the launcher with all its fds, would be the payload's to take apart.
		scopes |= unix.LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET | unix.LANDLOCK_SCOPE_SIGNAL
	}
	if known := landlockFor(c.host.Landlock).scopes; known != 0 && scopes != 0 {
		c.ruleset(0, scopes&known)
	} else if ptrace {
		return &SpecError{Field: "cap-add", Value: "CAP_SYS_PTRACE", Problem: "would open jail's own processes to the payload: keeping it off them needs Landlock ABI 6 (Linux 6.12)"}
	}
	return nil
}

// noChroot proves, for a payload that can leave a chroot, that there is none around us: behind it the mount namespace has
// the host's root. The kernel makes no user namespace in a chroot, which is the only question that tells.
func (c *compiler) noChroot() error {
	if c.keep>>unix.CAP_SYS_CHROOT&1 == 0 || c.userNS || c.mapped {
		return nil
	}
	if c.asides == jailinit.MaxAside {
		return &SpecError{Field: "cap-add", Value: "CAP_SYS_CHROOT", Problem: "does not go with shown folders of so many owners"}
	}
	c.join("no chroot around", c.aside("no chroot around", Step{Op: "unshare", List: []string{"CLONE_NEWUSER"}, wire: wire{op: jailinit.OpUnshare, a: unix.CLONE_NEWUSER}}))
	return nil
}

// workdirStep enters the working folder where there is no root of its own. As jail-init, not as the payload: a folder
// that the payload could not enter is a start with a hint, not a failure.
func (c *compiler) workdirStep() error {
	cwd := c.spec.Process.Cwd
	if cwd == "" {
		return nil // inherited
	}
	f := c.host.Look(cwd)
	if f.Err != nil || !f.isDir() {
		return c.noWorkdir(cwd, f)
	}
	c.add(SideInit, Step{Op: "chdir", Path: f.Real, wire: wire{op: jailinit.OpChdir}})
	return nil
}

func (c *compiler) noWorkdir(cwd string, f FileInfo) error {
	if f.Err == nil {
		return &SpecError{Field: "workdir", Value: cwd, Problem: "is not a folder"}
	}
	return &SpecError{Field: "workdir", Value: cwd, Problem: "can't be entered: " + errnoText(f.Err)}
}

// expand replaces the rules that stand for others, leaves out optional ones that are absent, and sorts: parents before
// children; of two rules for one path Deny wins, then the later one, those of the level being the earliest.
func (c *compiler) expand() ([]Rule, error) {
	if len(c.spec.View) == 0 && !c.spec.hasNamespace(specs.MountNamespace) {
		return nil, nil
	}
	given := slices.Clone(c.spec.View)
	if c.spec.Root != nil {
		given = slices.DeleteFunc(given, func(r Rule) bool { return r.Default && !inRootfs(r) })
	}
	slices.SortStableFunc(given, func(a, b Rule) int {
		switch {
		case a.Default == b.Default:
			return 0
		case a.Default:
			return -1
		}
		return 1
	})
	given, watched, err := c.expandGlobs(given)
	if err != nil {
		return nil, err
	}
	rules := make([]Rule, 0, len(given)+4)
	var workdir *Rule
	for _, r := range given {
		switch r.Kind {
		case Workdir:
			workdir = &r
			continue
		case Home:
			for _, home := range c.homes() {
				rules = append(rules, Rule{Kind: Tmpfs, Path: home, Default: true})
			}
			continue
		case Resolver:
			if f := c.host.Look("/etc/resolv.conf"); !c.spec.hasNamespace(specs.NetworkNamespace) && f.Err == nil && f.Link != "" && !shownByDefault(f.Real) {
				rules = append(rules, Rule{Kind: Show, Path: f.Real, Source: f.Real, Default: true})
			}
			continue
		case Scratch:
			rules = append(rules, r)
			continue
		}
		var err error
		if r.Path, err = clean(string(r.Kind), r.Path); err != nil {
			return nil, err
		}
		if r.Report && !r.Glob {
			watched = append(watched, r)
		}
		if !r.hasSource() {
			rules = append(rules, r)
			continue
		}
		if r.Source, err = clean(string(r.Kind), r.Source); err != nil {
			return nil, err
		}
		f := c.host.Look(r.Source)
		switch {
		case f.Err != nil && (r.Optional || r.Report):
		case f.Err != nil:
			return nil, &SpecError{Field: string(r.Kind), Value: r.Source, Problem: "can't be shown: " + errnoText(f.Err)}
		case r.Kind == Device && !f.isDevice():
			return nil, &SpecError{Field: string(r.Kind), Value: r.Source, Problem: "is not a device"}
		case r.Path == "/" && (c.spec.Root != nil || r.Kind != Show && r.Kind != ShowWrite):
			rules = append(rules, r) // refused when it is placed
		case r.Path == "/" && f.Real != "/":
			return nil, &SpecError{Field: string(r.Kind), Value: r.Source, Problem: "can't be the jail's root: only / can"}
		case r.Path == "/" && c.spec.hasNamespace(specs.MountNamespace):
			rules = append(rules, wholeRoot(r, f)...)
		default:
			rules = append(rules, r)
		}
	}
	if c.spec.Root != nil {
		var err error
		if rules, err = c.placesInRootfs(rules); err != nil {
			return nil, err
		}
	}
	rules = winners(rules)
	if workdir != nil {
		r, ok, err := c.workdirRule(rules)
		if err != nil {
			return nil, err
		}
		if ok {
			rules = winners(append(rules, r))
		}
	}
	rules = c.pin(winners(c.hold(watched, rules)))
	for _, r := range watched {
		c.watch(r, rules)
	}
	sort.SliceStable(rules, func(i, j int) bool { return depth(rules[i].Path) < depth(rules[j].Path) })
	return sysLast(rules), nil
}

// sysLast moves /sys behind all others, unless one of them lies in it: its mount waits for the network namespace.
func sysLast(rules []Rule) []Rule {
	sys := slices.IndexFunc(rules, func(r Rule) bool { return r.Kind == Sys })
	if sys < 0 || slices.ContainsFunc(rules, func(r Rule) bool { return r.Kind != Sys && r.Path != "" && within(r.Path, rules[sys].Path) }) {
		return rules
	}
	r := rules[sys]
	return append(slices.Delete(rules, sys, sys+1), r)
}

// wholeRoot is a view of /, which is a view of each of its entries: so what the level hides stays hidden.
func wholeRoot(r Rule, f FileInfo) []Rule {
	var rules []Rule
	for _, name := range f.Entries {
		path := "/" + name
		if slices.Contains(hiddenFolders, path) || slices.Contains([]string{"/proc", "/sys", "/dev"}, path) {
			continue
		}
		rules = append(rules, Rule{Kind: r.Kind, Path: path, Source: path, Optional: true})
	}
	return rules
}

func winners(rules []Rule) []Rule {
	last := map[string]int{}
	for i, r := range rules {
		if j, ok := last[r.Path]; r.Path != "" && !(ok && rules[j].Kind == Deny) {
			last[r.Path] = i
		}
	}
	kept := make([]Rule, 0, len(rules)+1)
	for i, r := range rules {
		if j, ok := last[r.Path]; r.Path == "" || ok && i == j {
			kept = append(kept, r)
		}
	}
	return kept
}

func depth(path string) int {
	if path == "/" {
		return 0
	}
	return strings.Count(path, "/")
}

func shownByDefault(path string) bool {
	return slices.ContainsFunc(shownFolders, func(dir string) bool { return within(path, dir) })
}

// homes are the folders that the payload may take for its home.
func (c *compiler) homes() []string {
	env := c.spec.Process.Env
	if env == nil {
		env = c.host.Environ
	}
	candidates := []string{c.host.Home}
	for _, kv := range env {
		if home, ok := strings.CutPrefix(kv, "HOME="); ok {
			candidates = append(candidates, home)
		}
	}
	var homes []string
	for _, home := range candidates {
		if !filepath.IsAbs(home) {
			continue
		}
		home = filepath.Clean(home)
		system := home == "/" || shownByDefault(home) || slices.Contains(homes, home) || slices.Contains(hiddenFolders, home)
		for _, dir := range []string{"/proc", "/sys", "/dev"} {
			system = system || within(home, dir)
		}
		for _, dir := range shownFolders { // a "home" that holds /nix/store would hide it
			system = system || within(dir, home)
		}
		if !system {
			homes = append(homes, home)
		}
	}
	return homes
}

// workdirRule shows the working folder, unless that is /, a hidden folder, or a parent of one: to show those would
// show what the level hides.
func (c *compiler) workdirRule(rules []Rule) (Rule, bool, error) {
	cwd, err := clean("workdir", c.workdir())
	if err != nil {
		return Rule{}, false, err
	}
	var cover *Rule
	for i, r := range rules {
		if r.Path != "" && within(cwd, r.Path) && (r.Kind != Dir || r.Path == cwd) && (cover == nil || len(r.Path) >= len(cover.Path)) {
			cover = &rules[i] // a Dir makes a folder, and nothing that is in it
		}
	}
	if cover != nil && cover.Kind == Deny {
		return Rule{}, false, &SpecError{Field: "workdir", Value: cwd, Problem: fmt.Sprintf("lies in %q, which is denied", cover.Path)}
	}
	if cover != nil && (cover.Path == cwd && !cover.Default || cover.Kind != Tmpfs) {
		return Rule{}, false, nil // shown already, or made as the user said
	}
	hidden := append([]string{"/proc", "/sys", "/dev"}, hiddenFolders...)
	hidden = append(hidden, c.homes()...)
	for _, dir := range hidden {
		if !within(dir, cwd) {
			continue
		}
		c.plan.Notes = append(c.plan.Notes, fmt.Sprintf("the working folder %q is not shown, since it is or holds a private folder; --ro-bind %s shows it", cwd, cwd))
		return Rule{Kind: Dir, Path: cwd, Default: true}, cwd != "/" && cover == nil, nil
	}
	f := c.host.Look(cwd)
	if f.Err != nil || !f.isDir() {
		return Rule{}, false, c.noWorkdir(cwd, f)
	}
	return Rule{Kind: Show, Path: cwd, Source: f.Real, Default: true, Optional: true}, true, nil
}
