//go:build cgo && (amd64 || arm64)

package isolate

import (
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/jailrun/jail/internal/syscalls"
	"github.com/jailrun/jail/isolate/internal/jailinit"
)

// waitKillable is the first kernel where a call whose notification has been taken is not begun anew for each signal:
// SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV.
var waitKillable = [2]int{5, 19}

// monitor loads the filters as one that asks the launcher where they refuse, and for the calls that are watched. What
// they kill for, they kill for.
func (c *compiler) monitor(list []filter) error {
	s := c.spec
	refuse := func(problem string) error {
		if !s.Monitor && len(s.Notify) > 0 {
			return &SpecError{Field: "notify", Value: s.Notify[0].String(), Problem: problem}
		}
		return &SpecError{Field: "denied", Value: "true", Problem: problem}
	}
	if !slices.Contains(s.Promised, FileView) {
		return refuse("can't be had at level " + s.Level.String() + ", which refuses nothing, but from level " + User.String() + " up")
	}
	if !s.Process.NoNewPrivileges {
		return refuse("needs no_new_privs")
	}
	var filters []program // what is loaded last comes first
	var logged uint64
	for _, f := range slices.Backward(list) {
		p, err := readProgram(f.bpf)
		if err != nil {
			return &SpecError{Field: "seccomp", Value: f.name, Problem: err.Error()}
		}
		filters = append(filters, p)
		c.plan.monitored = append(c.plan.monitored, f.bpf)
		if f.log || s.FilterLog {
			logged = unix.SECCOMP_FILTER_FLAG_LOG
		}
	}
	if err := c.checkNotify(); err != nil {
		return err
	}
	_, numbers := calls()
	var watched []uint32
	for _, name := range slices.Concat(watchedCalls, changingCalls) {
		if nr, ok := numbers[name]; ok && c.watches(name) {
			watched = append(watched, nr)
		}
	}
	merged := asking(watched)
	if s.Monitor { // without an address it goes where the socket is connected to
		merged = askingWith(unix.SYS_SENDTO, 4).with(merged)
	}
	if s.Trace { // but for the one that the listener is sent by
		merged = program{{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_USER_NOTIF}}.except(unix.SYS_SENDMSG)
	}
	for _, p := range slices.Backward(filters) {
		merged = p.notifying().with(merged)
	}
	// The launcher gets the listener from a process that is under the filter already. Where it is not to send anything,
	// it may until it has, and what refuses that is loaded behind.
	sends := syscalls.Data{NR: unix.SYS_SENDMSG, Arch: nativeArch}
	var late []program
	for _, p := range filters {
		if verdict, byArguments := p.run(&sends); verdict != unix.SECCOMP_RET_ALLOW || byArguments {
			late = append(late, p.only(unix.SYS_SENDMSG, unix.SYS_SECCOMP))
		}
	}
	if late != nil {
		merged = merged.except(unix.SYS_SENDMSG, unix.SYS_SECCOMP)
	}
	if len(merged) > unix.BPF_MAXINSNS {
		return refuse(fmt.Sprintf("makes a filter of %d instructions of those that there are; the kernel takes %d", len(merged), unix.BPF_MAXINSNS))
	}
	flags := unix.SECCOMP_FILTER_FLAG_NEW_LISTENER | logged
	if k := c.host.Kernel; k[0] > waitKillable[0] || k[0] == waitKillable[0] && k[1] >= waitKillable[1] {
		flags |= unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
	}
	var meeting uint64
	if slices.ContainsFunc(s.Notify, func(n Notify) bool { return n.Kind == NotifyConnect && !filepath.IsAbs(n.What) }) {
		meeting = 1
	}
	c.add(SidePayload, Step{
		Op: "seccomp monitor", Path: s.allowListName(),
		wire: wire{op: jailinit.OpMonitor, a: uint64(len(merged)), b: flags, c: meeting, bytes: merged.bytes()},
	})
	for _, p := range slices.Backward(late) {
		c.add(SidePayload, Step{
			Op: "seccomp filter", Data: strconv.Itoa(len(p)) + " instructions",
			wire: wire{op: jailinit.OpFilter, a: uint64(len(p)), b: logged, bytes: p.bytes()},
		})
	}
	return nil
}

// watches says whether a call is looked at: all of them for a report, else those that may have to be made.
func (c *compiler) watches(call string) bool {
	return c.spec.Monitor || slices.ContainsFunc(c.spec.Notify, func(n Notify) bool {
		return strings.HasPrefix(call, string(n.Kind)) || call == "creat" && n.Kind == NotifyOpen
	})
}

func (s *Spec) allowListName() string {
	if s.AllowList == nil {
		return ""
	}
	return s.AllowList.Name
}
