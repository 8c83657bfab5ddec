package ipc

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
)

// FDEnv is the environment variable that tells a payload which fd is its connection to the broker.
const FDEnv = "JAIL_IPC_FD"

// MaxOpen is how many files a payload can open with one request.
const MaxOpen = 28

// Rules is what one jail may ask the broker for. The zero value allows nothing.
type Rules struct {
	Files    []FileRule    `json:"files,omitempty"`
	Locks    []string      `json:"locks,omitempty"` // names
	Memory   []MemoryRule  `json:"memory,omitempty"`
	Channels []ChannelRule `json:"channels,omitempty"`
	Results  []string      `json:"results,omitempty"`  // names under which the payload may hand an fd back
	Log      bool          `json:"log,omitempty"`      // lines, to Handlers.Log
	Progress bool          `json:"progress,omitempty"` // to Handlers.Progress
	Quota    Quota         `json:"quota,omitzero"`
}

// Access is what a jail may do with a file or a segment.
type Access string

// The kinds of access.
const (
	MayRead   Access = "read"
	MayWrite  Access = "write"  // and read
	MayCreate Access = "create" // of files: make what is missing, mode 0600; and write
	MayOwn    Access = "own"    // of memory: make and publish it, for others to read
)

// FileRule allows to open regular files below a folder, or one regular file. Nothing else is ever handed out: no folder,
// FIFO, socket or device.
type FileRule struct {
	Name   string `json:"name"`   // how the payload calls it
	Path   string `json:"path"`   // absolute, on the host; looked up once, when the peer is made
	Access Access `json:"access"` // MayRead, MayWrite or MayCreate
}

// MemoryRule allows to get a segment of shared memory. One that all may write (MayWrite) is made for the first who asks.
// One with a single writer is made by that (MayOwn) and published; the others (MayRead) can't write to it, by no way. All
// whose rules name it get the same one, if they agree on its size and kind.
type MemoryRule struct {
	Name   string `json:"name"`
	Size   int64  `json:"size"`           // bytes
	Access Access `json:"access"`         // MayRead, MayWrite or MayOwn
	User   bool   `json:"user,omitempty"` // shared with the other launchers of this user whose rules say so
}

// ChannelRule allows to get a channel, which the first who asks for it makes.
type ChannelRule struct {
	Name     string `json:"name"`
	Element  int    `json:"element"`        // bytes of a message
	Capacity int    `json:"capacity"`       // messages
	User     bool   `json:"user,omitempty"` // as in MemoryRule
}

// Quota bounds what a jail can make the launcher spend. A field that is 0 has the value of [DefaultQuota].
type Quota struct {
	Sessions int   `json:"sessions,omitempty"` // at once
	Memory   int64 `json:"memory,omitempty"`   // bytes of segments, channels and copies of files that its sessions hold
	Requests int   `json:"requests,omitempty"` // a second; who is faster waits
	Queue    int   `json:"queue,omitempty"`    // answers of a session that wait to be sent; then its requests wait
	Locks    int   `json:"locks,omitempty"`    // that a session holds or waits for
	LogBytes int   `json:"logBytes,omitempty"` // a second; a line beyond is refused
	Results  int   `json:"results,omitempty"`  // fds that are handed back, in all
}

// DefaultQuota is for those fields of a Quota that are 0.
var DefaultQuota = Quota{Sessions: 16, Memory: 64 << 20, Requests: 10000, Queue: 16, Locks: 64, LogBytes: 64 << 10, Results: 64}

// Handlers is what the launcher does with what a payload sends. Each is called on the session's goroutine, so one that
// blocks holds up this session, and sessions of one peer call at once. What a payload sends is hostile: it may have any
// bytes in it.
type Handlers struct {
	Log      func(level slog.Level, line string)
	Progress func(done, total uint64, what string) // total is 0 where it is not known
	// Result takes over a file that the payload hands back. It can be anything that has an fd: look at it (fstat) before
	// you read or write, a pipe or a terminal may block for ever.
	Result func(name string, file *os.File)
	// Member says why a process that has connected is not of this jail. It is called before anything is answered. The
	// pid can't be another's while pidfd is not readable; the broker looks at that afterwards.
	Member func(pid int, pidfd *os.File) error
}

func (q Quota) withDefaults() Quota {
	d := DefaultQuota
	fill := func(field *int, by int) {
		if *field == 0 {
			*field = by
		}
	}
	fill(&q.Sessions, d.Sessions)
	fill(&q.Requests, d.Requests)
	fill(&q.Queue, d.Queue)
	fill(&q.Locks, d.Locks)
	fill(&q.LogBytes, d.LogBytes)
	fill(&q.Results, d.Results)
	if q.Memory == 0 {
		q.Memory = d.Memory
	}
	return q
}

// maxSegment is the most that a rule can give: the size of a segment is an int on every machine.
const maxSegment = 1 << 40

// Check says what is wrong with rules. It looks at nothing on the host.
func (r *Rules) Check() error {
	seen := map[string]bool{}
	name := func(what, name string) error {
		switch key := what + " " + name; {
		case !validName(name):
			return fmt.Errorf("ipc rules: %s %q: a name has 1 to %d letters, digits, '.', '_' or '-', and no '.' at its start", what, name, maxName)
		case seen[key]:
			return fmt.Errorf("ipc rules: %s %q stands twice", what, name)
		default:
			seen[key] = true
			return nil
		}
	}
	for _, f := range r.Files {
		if err := name("file", f.Name); err != nil {
			return err
		}
		if !filepath.IsAbs(f.Path) {
			return fmt.Errorf("ipc rules: file %q: path %q is not absolute", f.Name, f.Path)
		}
		if f.Access != MayRead && f.Access != MayWrite && f.Access != MayCreate {
			return fmt.Errorf("ipc rules: file %q: access %q is not read, write or create", f.Name, f.Access)
		}
	}
	for _, m := range r.Memory {
		if err := name("memory", m.Name); err != nil {
			return err
		}
		if m.Size <= 0 || m.Size > maxSegment {
			return fmt.Errorf("ipc rules: memory %q: size %d is not between 1 and %d", m.Name, m.Size, int64(maxSegment))
		}
		if m.Access != MayRead && m.Access != MayWrite && m.Access != MayOwn {
			return fmt.Errorf("ipc rules: memory %q: access %q is not read, write or own", m.Name, m.Access)
		}
	}
	for _, c := range r.Channels {
		if err := name("channel", c.Name); err != nil {
			return err
		}
		if c.Element <= 0 || c.Element > 1<<30 || c.Capacity < 0 || c.Capacity > 1<<30 {
			return fmt.Errorf("ipc rules: channel %q: elements of %d bytes, %d of them", c.Name, c.Element, c.Capacity)
		}
	}
	for _, lock := range r.Locks {
		if err := name("lock", lock); err != nil {
			return err
		}
	}
	for _, result := range r.Results {
		if err := name("result", result); err != nil {
			return err
		}
	}
	q := r.Quota
	if min(int64(q.Sessions), q.Memory, int64(q.Requests), int64(q.Queue), int64(q.Locks), int64(q.LogBytes), int64(q.Results)) < 0 {
		return fmt.Errorf("ipc rules: quota %+v: less than 0", q)
	}
	return nil
}

// expectFiles says whether the payload may send fds.
func (r *Rules) expectFiles() bool {
	return len(r.Results) > 0 || slices.ContainsFunc(r.Memory, func(m MemoryRule) bool { return m.Access == MayOwn })
}
