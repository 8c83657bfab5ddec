package isolate

import (
	"fmt"
	"strings"
)

// Side says who does a step.
type Side string

// The sides. Where they meet, jail-init waits at a barrier.
const (
	SideLauncher Side = "launcher" // the process that starts the jail
	SideInit     Side = "init"     // jail-init
	SideAside    Side = "aside"    // a child of jail-init, which goes on meanwhile
	SidePayload  Side = "payload"  // the payload's process before its exec
)

// Plan is what will be done, as data: the clone's flags and then the steps in order.
type Plan struct {
	CloneFlags []string `json:"clone"`
	Steps      []Step   `json:"steps"`
	Notes      []string `json:"notes,omitempty"` // for the user: what of the request could not be shown, and what shows it

	Identity Identity `json:"identity"`
	UID      int      `json:"uid"` // the payload's, as the host sees it
	GID      int      `json:"gid"`

	Given []Guarantee `json:"given"`

	insideUID, insideGID int // the payload's, as it sees itself

	flags    uint64
	keepKill bool
	pidNS    bool
	ambient  bool
	noClone3 bool
	noMemfd  bool
	files    []int     // the caller's fds of File rules; slots 3… of jail-init
	mounts   []mounted // the view; empty where there is none
	absent   []absence // what is looked for again at the end
	scratch  string

	opens     []given  // of Spec.Notify
	monitored [][]byte // filters that the monitor answers for; what is loaded last comes first
}

// mounted is one place of the jail's file tree: what is at Path comes from the host's Source, or from nowhere.
type mounted struct {
	path, source string
	write        bool // for the payload
	copied       bool // what the payload writes is kept in memory, and dropped at the end
	noExec       bool
	denied       bool
}

// given is a file of the host's that the launcher opens for the payload.
type given struct{ path, source string }

// absence is a path, or a pattern, of a rule with Report that could come into being.
type absence struct {
	path, source string // in the jail and on the host
	root         string // the root file system that source is in; "" is the host's
	glob         bool
	link         bool     // there is a link that leads nowhere
	known        []string // what the pattern matched at the start
}

// Step is one step of a Plan. Which fields count depends on Op; src/plan.h of jail-init has the same list.
type Step struct {
	Side   Side     `json:"side"`
	Op     string   `json:"op"`
	Path   string   `json:"path,omitempty"`
	Source string   `json:"source,omitempty"`
	Type   string   `json:"type,omitempty"`
	Data   string   `json:"data,omitempty"`
	Flags  []string `json:"flags,omitempty"`
	List   []string `json:"list,omitempty"`
	Args   []string `json:"args,omitempty"`
	Env    []string `json:"env,omitempty"`

	about string // what an error says of it; "" is object's
	wire  wire
}

// wire is the numbers of a step as jail-init wants them.
type wire struct {
	op, flags, keep uint32
	a, b, c, d, e   uint64
	bytes           []byte // S1 where it is not a string
	path            string // Path where it is relative to the slot e
}

// String is the step as `jail explain --plan` prints it, without its side.
func (s Step) String() string {
	var b strings.Builder
	b.WriteString(s.Op)
	if s.Type != "" {
		fmt.Fprintf(&b, " %s", s.Type)
	}
	if s.Source != "" {
		fmt.Fprintf(&b, " %q", s.Source)
		if s.Path != "" {
			b.WriteString(" on")
		}
	}
	if s.Path != "" {
		fmt.Fprintf(&b, " %q", s.Path)
	}
	if s.Data != "" {
		fmt.Fprintf(&b, " %s", s.Data)
	}
	if len(s.Flags) > 0 {
		fmt.Fprintf(&b, " (%s)", strings.Join(s.Flags, ", "))
	}
	for _, l := range [][]string{s.List, s.Args} {
		if len(l) > 0 {
			fmt.Fprintf(&b, " %q", l)
		}
	}
	return b.String()
}

// object is what a failed step was about.
func (s Step) object() string {
	switch {
	case s.about != "":
		return s.about
	case s.Source != "" && s.Path != "":
		return fmt.Sprintf("%q on %q", s.Source, s.Path)
	case s.Path != "":
		return fmt.Sprintf("%q", s.Path)
	case s.Data != "":
		return s.Data
	}
	return strings.Join(s.List, " ")
}

// HostPath tells which file of the host a path of the jail names, and whether it is shown at all. Symbolic links are not
// followed.
func (p *Plan) HostPath(path string) (host string, shown bool) {
	if len(p.mounts) == 0 {
		return path, true
	}
	m := p.mountOf(path)
	if m == nil || m.source == "" {
		return "", false
	}
	return m.source + strings.TrimPrefix(path, strings.TrimSuffix(m.path, "/")), true
}

// mountOf is what a path of the jail lies in; nil is nothing that was shown or made.
func (p *Plan) mountOf(path string) *mounted {
	best := -1
	for i, m := range p.mounts {
		if within(path, m.path) && (best < 0 || len(m.path) >= len(p.mounts[best].path)) {
			best = i
		}
	}
	if best < 0 {
		return nil
	}
	return &p.mounts[best]
}

// Access is what the payload may do with files.
type Access string

// The kinds of access. What modes, owners and the kernel say besides is not counted.
const (
	AccessAny       Access = "as the payload's uid may"
	AccessNone      Access = "not shown"
	AccessClosed    Access = "closed"
	AccessRead      Access = "readable"
	AccessExecute   Access = "readable and executable"
	AccessWrite     Access = "readable and writable"
	AccessWriteExec Access = "readable, writable and executable"
	AccessCopy      Access = "writable, in a copy that is dropped at the end"
	AccessPrivate   Access = "private to the jail"
)

// Access tells what the payload may do at a path of the jail, and which place of the view says so; "" is none. Symbolic
// links are not followed.
func (p *Plan) Access(path string) (Access, string) {
	if p.scratch != "" && within(path, p.scratch) {
		return AccessPrivate, p.scratch
	}
	if len(p.mounts) == 0 {
		return AccessAny, ""
	}
	m := p.mountOf(path)
	switch {
	case m == nil:
		return AccessNone, ""
	case m.denied:
		return AccessClosed, m.path
	case m.copied:
		return AccessCopy, m.path
	case m.source == "":
		return AccessPrivate, m.path
	case m.write && m.noExec:
		return AccessWrite, m.path
	case m.write:
		return AccessWriteExec, m.path
	case m.noExec:
		return AccessRead, m.path
	}
	return AccessExecute, m.path
}

// within says whether path is dir or lies below it.
func within(path, dir string) bool {
	return path == dir || dir == "/" || strings.HasPrefix(path, dir+"/")
}
