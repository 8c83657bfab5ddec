//go:build cgo && (amd64 || arm64)

package isolate

import (
	"fmt"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/jailrun/jail/isolate/internal/jailinit"
)

// landlockABI is one row of what a version of Landlock knows (landlock(7)).
type landlockRow struct {
	files  uint64 // all rights on files
	scopes uint64
	size   uint64 // of struct landlock_ruleset_attr
}

// landlockRows by ABI version; a newer kernel is used as the last row. Versions and kernels: 1 5.13, 2 5.19, 3 6.2,
// 4 6.7, 5 6.10, 6 6.12.
var landlockRows = []landlockRow{
	1: {files: 1<<13 - 1, size: 8},
	2: {files: 1<<14 - 1, size: 8},  // REFER
	3: {files: 1<<15 - 1, size: 8},  // TRUNCATE
	4: {files: 1<<15 - 1, size: 16}, // network rights
	5: {files: 1<<16 - 1, size: 16}, // IOCTL_DEV
	6: {files: 1<<16 - 1, size: 24, scopes: unix.LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET | unix.LANDLOCK_SCOPE_SIGNAL},
}

const (
	landlockRead = unix.LANDLOCK_ACCESS_FS_EXECUTE | unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_READ_DIR
	// landlockFile is what can be allowed for a file that is no folder; the kernel refuses the rest (EINVAL).
	landlockFile = unix.LANDLOCK_ACCESS_FS_EXECUTE | unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_WRITE_FILE |
		unix.LANDLOCK_ACCESS_FS_TRUNCATE | unix.LANDLOCK_ACCESS_FS_IOCTL_DEV
)

func landlockFor(abi int) landlockRow { return landlockRows[min(abi, len(landlockRows)-1)] }

// landlocked says whether the Plan has made a ruleset.
func (c *compiler) landlocked() bool {
	return slices.ContainsFunc(c.plan.Steps, func(s Step) bool { return s.wire.op == jailinit.OpRuleset })
}

func (c *compiler) ruleset(files, scopes uint64) {
	row := landlockFor(c.host.Landlock)
	var names []string
	if files != 0 {
		names = append(names, "files")
	}
	if scopes != 0 {
		names = append(names, "signals", "abstract sockets")
	}
	c.add(SideInit, Step{Op: "landlock ruleset", List: names, wire: wire{op: jailinit.OpRuleset, a: files, c: scopes, d: row.size}})
}

// landlockView gives the file view where there are no mounts: what no rule allows can't be opened. The rules are made
// on jail-init's side, which can still walk to the folders; the payload only enters the ruleset.
func (c *compiler) landlockView(rules []Rule) error {
	if c.host.Landlock < 1 {
		return &UnsupportedError{Level: c.spec.Level, Missing: "Landlock, which gives the file view at this level", call: "landlock_create_ruleset"}
	}
	row := landlockFor(c.host.Landlock)
	c.ruleset(row.files, row.scopes)
	var shown []Rule
	for _, r := range rules {
		switch r.Kind {
		case Show, ShowWrite:
			if !r.Default && r.Path != r.Source && c.host.Look(r.Path).Real != c.host.Look(r.Source).Real {
				return notHere(r, "shows a file at another path")
			}
			f := c.host.Look(r.Source)
			if r.Default && f.Link != "" && shownByDefault(f.Real) {
				continue // /bin → usr/bin: Landlock sees the target alone
			}
			access := uint64(landlockRead)
			if r.Kind == ShowWrite {
				access = row.files
			}
			if r.NoExec {
				access &^= unix.LANDLOCK_ACCESS_FS_EXECUTE
			}
			c.allow(r.Source, access)
			c.plan.mounts = append(c.plan.mounts, mounted{path: f.Real, source: f.Real, write: r.Kind == ShowWrite, noExec: r.NoExec})
			shown = append(shown, r)
		case Proc, Sys:
			if c.host.Look(r.Path).Err == nil {
				c.allow(r.Path, landlockRead)
				c.plan.mounts = append(c.plan.mounts, mounted{path: r.Path, source: r.Path})
				shown = append(shown, Rule{Path: r.Path, Source: r.Path})
			}
		case Dev:
			for _, d := range devices {
				if path := "/dev/" + d.name; c.host.Look(path).Err == nil {
					c.allow(path, landlockRead|unix.LANDLOCK_ACCESS_FS_WRITE_FILE|unix.LANDLOCK_ACCESS_FS_IOCTL_DEV)
					shown = append(shown, Rule{Path: path, Source: path})
				}
			}
		case Scratch:
			if c.host.NoScratch {
				c.plan.Notes = append(c.plan.Notes, fmt.Sprintf("there is no private TMPDIR, since nothing can be made in %q; set TMPDIR to a folder where it can", filepath.Dir(c.host.Scratch)))
				continue
			}
			// The launcher makes it while jail-init is on its way here: hence the barrier between them.
			c.plan.scratch = c.host.Scratch
			c.add(SideLauncher, Step{Op: "mkdir", Path: c.host.Scratch, Data: fmt.Sprintf("0700 %d:%d", c.plan.UID, c.plan.GID)})
			c.add(SideInit, Step{Op: "landlock allow", Path: c.host.Scratch, List: []string{"all"}, wire: wire{op: jailinit.OpAllow, a: row.files}})
		case Deny: // checked below: most are no-ops here
		case Dir:
			if r.Default {
				continue // a working folder that is not shown: it is there, and closed
			}
			return notHere(r, "makes a folder")
		default:
			return notHere(r, "makes files")
		}
	}
	for _, r := range rules {
		if r.Kind != Deny {
			if err := c.takesAway(r, shown); err != nil {
				return err
			}
			continue
		}
		if f := c.host.Look(r.Path); f.Err == nil && f.Mode&unix.S_IFMT == unix.S_IFSOCK { // up to ABI 7 no right is about connect(2)
			return notHere(r, "is a Unix socket, and to connect to it is no right of Landlock's")
		}
		for _, s := range shown {
			if r.Glob && reachesInto(r.Path, s.Path) {
				return notHere(r, fmt.Sprintf("is a pattern that could match in %q, which is shown", s.Path))
			}
			if real := c.host.Look(r.Path).Real; within(r.Path, s.Path) || real != "" && within(real, c.host.Look(s.Source).Real) {
				return notHere(r, fmt.Sprintf("lies in %q, which is shown", s.Path))
			}
		}
	}
	c.give(FileView)
	return nil
}

// takesAway refuses a rule that gives less than one around it does: rights add up on the way from the root.
func (c *compiler) takesAway(r Rule, shown []Rule) error {
	if r.Default || r.Kind != Show && r.Kind != ShowWrite {
		return nil
	}
	real := c.host.Look(r.Source).Real
	for _, s := range shown {
		if r.Path == s.Path || !within(real, c.host.Look(s.Source).Real) {
			continue
		}
		if s.Kind == ShowWrite && r.Kind == Show {
			return notHere(r, fmt.Sprintf("lies in %q, which is writable", s.Path))
		}
		if r.NoExec && !s.NoExec && (s.Kind == Show || s.Kind == ShowWrite) {
			return notHere(r, fmt.Sprintf("lies in %q, where files can be executed", s.Path))
		}
	}
	return nil
}

// notHere is the error for a rule that Landlock can't enforce.
func notHere(r Rule, why string) error {
	return &SpecError{Field: string(r.Kind), Value: r.Path, Problem: why + ", which this level can't enforce; level " + Namespaced.String() + " can"}
}

func (c *compiler) allow(path string, access uint64) {
	f := c.host.Look(path)
	row := landlockFor(c.host.Landlock)
	access &= row.files
	what := []string{"read"}
	if access&unix.LANDLOCK_ACCESS_FS_WRITE_FILE != 0 {
		what = []string{"read", "write"}
	}
	if !f.isDir() {
		access &= landlockFile
	}
	c.add(SideInit, Step{
		Op: "landlock allow", Path: f.Real, List: what,
		wire: wire{op: jailinit.OpAllow, a: access, b: f.Dev, c: f.Ino},
	})
}
