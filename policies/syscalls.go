package policies

import (
	"fmt"
	"slices"
	"strings"
)

const syscallsSection = "permissions.syscalls"

// syscallActions have one flag, whose value is ACTION[:ERRNO]=CALL[,…][:CONDITION[,…]].
var syscallActions = []action{
	{"allow", "--syscalls", []string{"when"}},
	{"deny", "--syscalls", []string{"errno", "when"}},
	{"kill-process", "--syscalls", []string{"when"}},
	{"kill-thread", "--syscalls", []string{"when"}},
	{"trap", "--syscalls", []string{"when"}},
	{"log", "--syscalls", []string{"when"}},
}

// SyscallActions are the actions of rules for calls.
func SyscallActions() []string {
	var list []string
	for _, a := range syscallActions {
		list = append(list, a.key)
	}
	return list
}

// SyscallRuleParts is a rule for calls, in parts.
type SyscallRuleParts struct {
	Action, Errno string
	Calls, When   []string
}

// SplitSyscallRule takes the value of --syscalls apart. What the parts are is for others to look at.
func SplitSyscallRule(value string) (SyscallRuleParts, error) {
	head, tail, ok := strings.Cut(value, "=")
	action, errno, withErrno := strings.Cut(head, ":")
	calls, when, conditional := strings.Cut(tail, ":")
	switch {
	case !ok || tail == "" || calls == "" || withErrno && errno == "" || conditional && when == "":
		return SyscallRuleParts{}, fmt.Errorf("is not ACTION=CALL, as deny=ptrace or deny:ENOSYS=@clock,socket")
	case !slices.Contains(SyscallActions(), action):
		hint := "there are " + strings.Join(SyscallActions(), ", ")
		if near := Nearest(action, SyscallActions()); near != "" {
			hint = fmt.Sprintf("did you mean %q?", near)
		}
		return SyscallRuleParts{}, fmt.Errorf("has no action that there is: %q; %s", action, hint)
	case withErrno && action != "deny":
		return SyscallRuleParts{}, fmt.Errorf("has an errno, which goes with deny alone")
	}
	parts := SyscallRuleParts{Action: action, Errno: errno, Calls: strings.Split(calls, ",")}
	if conditional {
		parts.When = strings.Split(when, ",")
	}
	return parts, nil
}

func (p *SyscallRuleParts) value(call string) string {
	v := p.Action
	if p.Errno != "" {
		v += ":" + p.Errno
	}
	v += "=" + call
	if len(p.When) > 0 {
		v += ":" + strings.Join(p.When, ",")
	}
	return v
}

func (r *reader) syscallRule(n *node) error {
	if i := slices.IndexFunc(n.keys, func(key *node) bool { return key.value == "notify" }); i >= 0 {
		return n.keys[i].fail("notify can't be given: there is nobody whom a call could be handed to")
	}
	a, at, err := rule(n, syscallsSection, "a rule for system calls", syscallActions)
	if err != nil {
		return err
	}
	parts := SyscallRuleParts{Action: a.key}
	s := Setting{Section: syscallsSection, Key: a.key, Flag: a.flag}
	if errno := at["errno"]; errno != nil {
		if errno.kind != scalarNode || errno.value == "" {
			return errno.fail("errno has to be one value")
		}
		parts.Errno, s.ErrnoAt = errno.value, errno.at
		if strings.ContainsAny(errno.value, ":=,") {
			return errno.fail("errno %q is no errno, as ENOSYS or a number to 4095", errno.value)
		}
	}
	if when := at["when"]; when != nil {
		list, err := scalars(&node{value: "when"}, when)
		if err != nil {
			return err
		}
		for _, c := range list {
			if strings.ContainsAny(c.value, ":,") {
				return c.fail("when %q is not one condition, as arg0 == 16; several are a list, and all of them have to hold", c.value)
			}
			parts.When, s.WhenAt = append(parts.When, c.value), append(s.WhenAt, c.at)
		}
	}
	list, err := scalars(&node{value: a.key}, at[a.key])
	if err != nil {
		return err
	}
	for _, item := range list {
		if strings.ContainsAny(item.value, ":=, ") {
			return item.fail("%s %q is no system call and no group; several are a list", a.key, item.value)
		}
		s.Value, s.Written, s.At = parts.value(item.value), item.value, item.at
		r.settings = append(r.settings, s)
	}
	return nil
}

// formatSyscalls writes rules for calls; those that differ in the call alone become one.
func formatSyscalls(b *strings.Builder, rules []Setting) {
	const widest = 100 // of a list, in bytes
	b.WriteString("  syscalls:\n")
	var words []string
	var key string
	var rest SyscallRuleParts
	flush := func() {
		if len(words) == 0 {
			return
		}
		fmt.Fprintf(b, "    - %s: %s\n", rest.Action, flow(words))
		if rest.Errno != "" {
			fmt.Fprintf(b, "      errno: %s\n", plain(rest.Errno))
		}
		if len(rest.When) > 0 {
			fmt.Fprintf(b, "      when: %s\n", flow(rest.When))
		}
		words = nil
	}
	for _, s := range rules {
		p, err := SplitSyscallRule(s.Value)
		if err != nil {
			continue // it was refused before
		}
		for _, call := range p.Calls {
			if p.value("") != key || len(flow(words))+len(call) > widest {
				flush()
			}
			key, rest, words = p.value(""), p, append(words, call)
		}
	}
	flush()
}

// syscallLine is a rule for calls in one line.
func syscallLine(value string) string {
	p, err := SplitSyscallRule(value)
	if err != nil {
		return syscallsSection + ": " + plain(value)
	}
	line := syscallsSection + ": " + p.Action + ": " + flow(p.Calls)
	if p.Errno != "" {
		line += ", errno: " + plain(p.Errno)
	}
	if len(p.When) > 0 {
		line += ", when: " + flow(p.When)
	}
	return line
}

// flow is a list in one line, or the one value that there is.
func flow(words []string) string {
	var list []string
	for _, w := range words {
		list = append(list, plain(w))
	}
	if len(list) == 1 {
		return list[0]
	}
	return "[" + strings.Join(list, ", ") + "]"
}
