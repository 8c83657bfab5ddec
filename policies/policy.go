// Package policies reads policy files: what a payload may do, written down. A policy comes to the settings that the
// flags of jail run are, each with the place where it was written; the command applies both in the same way.
//
// Nothing is read that was not named: no policy is looked for in any folder.
package policies

import (
	"reflect"
	"strings"
	"sync"
)

// Policy is a policy file. Its types are the list of what a file may say: the reader goes by them, and the JSON Schema
// and the reference in docs/policies.md are made from them.
type Policy struct {
	Version     Version     `json:"version" jsonschema_description:"the version of the format: 1"`
	Extends     []Name      `json:"extends,omitempty" jsonschema_description:"policies that this one starts from: built-in names, or files below its own folder, as ./base.yaml"`
	Permissions Permissions `json:"permissions,omitempty" jsonschema_description:"what the payload is given"`
	Borders     Borders     `json:"borders,omitempty" jsonschema_description:"what holds it"`
	Monitor     Monitor     `json:"monitor,omitempty" jsonschema_description:"what is reported, and where"`
}

// Permissions is what the payload is given. A field is the flag of jail run that has its name.
type Permissions struct {
	Files      []FileRule    `json:"files,omitempty" jsonschema_description:"the file view: the most specific path wins, deny wins ties, and the rights of all rules for one path add up"`
	Env        []Variable    `json:"env,omitempty" jsonschema_description:"NAME=VALUE, or NAME to pass the caller's"`
	EnvAll     Switch        `json:"env-all,omitempty" jsonschema_description:"pass all of the caller's environment"`
	ClearEnv   Switch        `json:"clearenv,omitempty" jsonschema_description:"pass none of it but what env lists"`
	Network    Network       `json:"network,omitempty" jsonschema_description:"none is a loopback device alone"`
	Proc       Proc          `json:"proc,omitempty" jsonschema_description:"outer: where the sandbox around jail lets nobody have a /proc of its own, show that one"`
	CapAdd     []Capability  `json:"cap-add,omitempty" jsonschema_description:"capabilities, as NET_ADMIN, or ALL"`
	CapDrop    []Capability  `json:"cap-drop,omitempty" jsonschema_description:"capabilities that are taken away again"`
	Seccomp    PathOrWord    `json:"seccomp,omitempty" jsonschema_description:"system calls: baseline, default, unconfined, or the file of a profile in Docker's or OCI's form, as ./profile.json"`
	Syscalls   []SyscallRule `json:"syscalls,omitempty" jsonschema_description:"rules for single system calls and for groups of them (docs/syscalls.md), besides seccomp: what a level refuses stays refused"`
	SeccompLog Switch        `json:"seccomp-log,omitempty" jsonschema_description:"the kernel's log has what the filters refuse"`
	IPC        []IPC         `json:"ipc,omitempty" jsonschema_description:"what the broker does for the payload, as lock:NAME: see docs/ipc.md"`
	FD         []Word        `json:"fd,omitempty" jsonschema_description:"N or N:M: the caller's fd N becomes the payload's fd M"`
	Stdin      Path          `json:"stdin,omitempty" jsonschema_description:"the file that is standard input"`
	Stdout     Path          `json:"stdout,omitempty" jsonschema_description:"the file that is emptied and becomes standard output"`
	Stderr     Path          `json:"stderr,omitempty" jsonschema_description:"the same for errors"`
}

// Borders is what holds the payload.
type Borders struct {
	Level          Level             `json:"level,omitempty" jsonschema_description:"how much isolation"`
	User           Word              `json:"user,omitempty" jsonschema_description:"who the payload is: UID, UID:GID or caller"`
	Workdir        Path              `json:"workdir,omitempty" jsonschema_description:"its working folder"`
	Hostname       Word              `json:"hostname,omitempty" jsonschema_description:"its hostname"`
	Rootfs         PathOrWord        `json:"rootfs,omitempty" jsonschema_description:"the folder that is /; with :rw behind it, writable"`
	RootfsOverlay  Switch            `json:"rootfs-overlay,omitempty" jsonschema_description:"what is written to rootfs is kept in memory"`
	Rlimit         map[string]Rlimit `json:"rlimit,omitempty" jsonschema_description:"limits of each process, as nofile: 64:128"`
	Timeout        Time              `json:"timeout,omitempty" jsonschema_description:"wall time, then the jail ends"`
	KillAfter      Time              `json:"kill-after,omitempty" jsonschema_description:"from SIGTERM at the time-out to SIGKILL"`
	Memory         Size              `json:"memory,omitempty" jsonschema_description:"memory of all processes together (level limited and up)"`
	Swap           Size              `json:"swap,omitempty" jsonschema_description:"swap beside it"`
	PidsLimit      Count             `json:"pids-limit,omitempty" jsonschema_description:"processes and threads"`
	CPUs           Word              `json:"cpus,omitempty" jsonschema_description:"CPUs at a time, as 2 or 0.5"`
	CPUSet         Word              `json:"cpuset,omitempty" jsonschema_description:"which CPUs, as 0-3,5"`
	IO             []Word            `json:"io,omitempty" jsonschema_description:"DEVICE:KEY=RATE, as /dev/sda:rbps=10M"`
	CPUTime        Time              `json:"cpu-time,omitempty" jsonschema_description:"CPU time of all processes together, then the jail ends"`
	CgroupParent   Word              `json:"cgroup-parent,omitempty" jsonschema_description:"where the jail's cgroup is made"`
	Name           Word              `json:"name,omitempty" jsonschema_description:"the jail's name; one jail of that name at a time"`
	OutputLimit    OutputLimit       `json:"output-limit,omitempty" jsonschema_description:"SIZE[:kill|truncate|block] of stdout and stderr together"`
	AllowDowngrade Switch            `json:"allow-downgrade,omitempty" jsonschema_description:"a lower level will do"`
}

// Monitor is what is told about a run, and where.
type Monitor struct {
	Result  PathOrWord `json:"result,omitempty" jsonschema_description:"the file that says what happened; - is stderr"`
	JSON    Switch     `json:"json,omitempty" jsonschema_description:"as one line of JSON"`
	Denied  Switch     `json:"denied,omitempty" jsonschema_description:"report the calls that the jail refuses; opens, execs and connects are slower then"`
	Notify  []Notify   `json:"notify,omitempty" jsonschema_description:"what jail does itself when the payload asks for it: open:PATH, connect:ADDRESS:PORT or connect:PATH"`
	Verbose Switch     `json:"verbose,omitempty" jsonschema_description:"say on stderr how it ended"`
}

// FileRule is one rule of permissions.files: one action, and what belongs to it.
type FileRule struct {
	Read    Paths    `json:"read,omitempty" jsonschema_description:"readable, not executable"`
	Write   Paths    `json:"write,omitempty" jsonschema_description:"readable and writable, not executable"`
	Exec    Paths    `json:"exec,omitempty" jsonschema_description:"readable and executable"`
	Deny    Paths    `json:"deny,omitempty" jsonschema_description:"can't be opened"`
	Overlay Paths    `json:"overlay,omitempty" jsonschema_description:"writable, and what is written is dropped at the end"`
	Device  Paths    `json:"device,omitempty" jsonschema_description:"a device"`
	Tmpfs   Paths    `json:"tmpfs,omitempty" jsonschema_description:"an empty writable folder in memory"`
	Dir     Paths    `json:"dir,omitempty" jsonschema_description:"make a folder"`
	Symlink Paths    `json:"symlink,omitempty" jsonschema_description:"make a link"`
	File    Paths    `json:"file,omitempty" jsonschema_description:"make a file of what fd gives"`
	At      Path     `json:"at,omitempty" jsonschema_description:"where the payload finds it, if not at the same path"`
	Size    Size     `json:"size,omitempty" jsonschema_description:"of a tmpfs"`
	To      Word     `json:"to,omitempty" jsonschema_description:"where a symlink points to"`
	FD      Count    `json:"fd,omitempty" jsonschema_description:"of the caller, for file"`
	Option  Switch   `json:"optional,omitempty" jsonschema_description:"leave the rule out where the path does not exist"`
	Absent  IfAbsent `json:"if-absent,omitempty" jsonschema_description:"report: where the path does not exist the run goes on, and the Result tells if it appears"`
}

// SyscallRule is one rule of permissions.syscalls: one action, and the calls that get it. A rule with when is more
// specific than one without, a call's name more than its group, a group more than @all; the most specific counts, and
// among equals the strictest.
type SyscallRule struct {
	Allow       Calls      `json:"allow,omitempty" jsonschema_description:"calls, as ptrace, and groups, as \"@mount\", that are let through where a wider rule refuses them"`
	Deny        Calls      `json:"deny,omitempty" jsonschema_description:"refused with EPERM, or with errno; \"@all\" is what no other rule names"`
	KillProcess Calls      `json:"kill-process,omitempty" jsonschema_description:"they kill the process"`
	KillThread  Calls      `json:"kill-thread,omitempty" jsonschema_description:"they kill the thread that makes them"`
	Trap        Calls      `json:"trap,omitempty" jsonschema_description:"they send SIGSYS, which a program may catch"`
	Log         Calls      `json:"log,omitempty" jsonschema_description:"let through, with a line in the kernel's log"`
	Errno       Errno      `json:"errno,omitempty" jsonschema_description:"of deny: ENOSYS or a number; with 0 the call does nothing and succeeds"`
	When        Conditions `json:"when,omitempty" jsonschema_description:"only where all of this holds: arg0 == 16, arg1 & 0xff != 3, and < <= > >="`
}

// The kinds of values. A file may write any of them plainly or in quotes. What a value has to look like is for the flag
// to say; the JSON Schema has it for editors.
type (
	Version     int
	Name        string // of a policy
	Word        string
	Path        string // see Load
	PathOrWord  string // a word of the flag's, or a path if it has a slash or the flag takes nothing else
	Switch      bool
	Level       string
	Network     string
	Proc        string
	Variable    string
	Capability  string
	Rlimit      string
	Time        string
	Size        string
	Count       int
	OutputLimit string
	IfAbsent    string
	Notify      string
	IPC         string
	Paths       []Path // one, or a list
	Call        string // or "@" and a group
	Calls       []Call
	Errno       string
	Condition   string // of arguments of a call
	Conditions  []Condition
)

// Key is something that a policy can say.
type Key struct {
	Section string // "permissions", "borders", "monitor"; "permissions.files" and "permissions.syscalls" of what a rule has
	Name    string
	Doc     string
	kind    reflect.Type
}

// ofRule says whether it is a key of the rules of a list.
func (k Key) ofRule() bool { return strings.Contains(k.Section, ".") }

// Keys lists all keys below the sections, in their order.
func Keys() []Key { return keys() }

var keys = sync.OnceValue(func() []Key {
	var list []Key
	add := func(section string, t reflect.Type) {
		for i := range t.NumField() {
			list = append(list, keyOf(section, t.Field(i)))
		}
	}
	policy := reflect.TypeFor[Policy]()
	for i := range policy.NumField() {
		if f := policy.Field(i); f.Type.Kind() == reflect.Struct {
			add(keyOf("", f).Name, f.Type)
		}
	}
	add(filesSection, reflect.TypeFor[FileRule]())
	add(syscallsSection, reflect.TypeFor[SyscallRule]())
	return list
})

func keyOf(section string, f reflect.StructField) Key {
	name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
	return Key{Section: section, Name: name, Doc: f.Tag.Get("jsonschema_description"), kind: f.Type}
}

// keysOf are the keys of one section.
func keysOf(section string) map[string]Key {
	m := map[string]Key{}
	for _, k := range Keys() {
		if k.Section == section {
			m[k.Name] = k
		}
	}
	return m
}
