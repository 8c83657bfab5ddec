//go:build linux

package integration

import (
	"slices"
	"strings"
	"sync"
	"testing"
)

// TestHostile: programs that mean harm, with what is told of each at each level. Nothing of them may be left.
func TestHostile(t *testing.T) {
	type want struct {
		reason string
		code   int // the command's
		signal string
		hit    string // of limits_hit, or ""
		out    string // a line of its output, or ""
	}
	var (
		timeout = want{reason: "timeout", code: 124, hit: "timeout"}
		killed  = want{reason: "signalled", code: 137, signal: "SIGKILL"}
		exits   = func(code int, out string) want { return want{reason: "exited", code: code, out: out} }
		all     = func(w want) func(arm) want { return func(arm) want { return w } }
		rooted  = func(a arm) bool { return a.root && a.level == "basic" } // it is root: only what does no harm is tried
		inLevel = func(levels ...string) func(arm) bool {
			return func(a arm) bool { return slices.Contains(levels, a.level) && !rooted(a) }
		}
		anywhere = func(arm) bool { return true }
		userUp   = inLevel(userAndUp...)
		notRoot  = func(a arm) bool { return !rooted(a) }
		limited  = inLevel("limited", "contained")
		soon     = []string{"--timeout", timeLimits[0]}
	)
	programs := []struct {
		name  string
		flags []string
		argv  []string
		where func(arm) bool
		want  func(arm) want
	}{
		{"fork bomb", []string{"--pids-limit", "60", "--timeout", timeLimits[0]}, []string{tool("hostile"), "bomb"}, limited, all(want{reason: "timeout", code: 124, hit: "pids"})},
		{"fork bomb, by its own uid", []string{"--rlimit", "nproc=60", "--timeout", timeLimits[0]}, []string{tool("hostile"), "bomb"}, func(a arm) bool {
			return a.root && a.level != "basic" // another uid's processes are not counted with ours
		}, all(timeout)},
		{"memory hog", []string{"--memory", "48M"}, []string{tool("burn"), "hog", "512"}, limited, all(want{reason: "memory", code: 137, signal: "SIGKILL", hit: "memory"})},
		{"memory hog, by itself", []string{"--rlimit", "as=64M"}, []string{tool("burn"), "hog", "512"}, anywhere, all(exits(3, ""))},
		{"endless writer", []string{"--output-limit", "64K"}, []string{"yes"}, anywhere, all(want{reason: "output", code: 137, signal: "SIGKILL", hit: "output"})},
		{"endless file", []string{"--rlimit", "fsize=4K:4K"}, []string{"sh", "-c", "yes >${TMPDIR:-/tmp}/f"}, userUp, all(want{reason: "exited", code: 153})},
		{"deaf to every signal", append([]string{"--kill-after", "100ms"}, soon...), []string{tool("hostile"), "deaf"}, anywhere, all(timeout)},
		{"stops itself", soon, []string{tool("hostile"), "stop"}, anywhere, all(timeout)},
		{"double-forks, with sessions of their own", nil, []string{tool("hostile"), "setsid"}, anywhere, all(exits(6, ""))},
		{"forks and dies without pause", nil, []string{tool("procs"), "chains", "8"}, anywhere, all(exits(0, ""))},
		{"closes all fds", nil, []string{tool("hostile"), "close"}, anywhere, all(exits(7, ""))},
		{"closes all fds and stays", soon, []string{tool("hostile"), "close-stay"}, anywhere, all(timeout)},
		{"kills itself", nil, []string{"sh", "-c", "kill -9 $$"}, anywhere, all(killed)},
		{"kills its supervisor", nil, []string{tool("hostile"), "kill"}, anywhere, func(a arm) want {
			if a.level == "basic" { // explain says so
				return want{reason: "supervisor-lost", code: 125}
			}
			return exits(5, "")
		}},
		{"takes its supervisor's fds", soon, []string{tool("procs"), "starve"}, userUp, func(arm) want {
			return want{reason: "timeout", code: 124, hit: "timeout", out: "cpu EPERM"}
		}},
		{"floods its supervisor with signals", soon, []string{tool("hostile"), "flood"}, anywhere, all(timeout)},
		{"reaches into its supervisor", nil, []string{tool("attack"), "0", "parent"}, inLevel("user"), all(exits(0, "tried 1"))},
		{"reaches into PID 1", nil, []string{tool("attack"), "0"}, inLevel(namespacedUp...), all(exits(0, "tried 1"))},
		{"remounts", nil, []string{tool("calls"), "mounts", "/", "/proc", "/usr"}, notRoot, all(exits(0, "remount EPERM"))},
		{"makes a device", nil, []string{tool("calls"), "ids"}, notRoot, func(a arm) want {
			if a.level == "user" {
				return exits(0, "mknod EACCES") // Landlock comes first
			}
			return exits(0, "mknod EPERM")
		}},
		{"becomes root", nil, []string{tool("calls"), "ids"}, notRoot, func(a arm) want {
			if a.level == "contained" || a.like() == "namespaced" && !a.root {
				return exits(0, "setresuid EINVAL") // its user namespace has no such id
			}
			return exits(0, "setresuid EPERM")
		}},
		{"puts a key into a keyring", nil, []string{tool("calls"), "baseline"}, userUp, all(exits(0, "add_key EPERM"))},
		{"types into the terminal", nil, []string{tool("calls"), "baseline"}, userUp, all(exits(0, "TIOCSTI EPERM"))},
		{"opens sysrq-trigger", nil, []string{"sh", "-c", "true >/proc/sysrq-trigger || exit 9"}, notRoot, all(exits(9, ""))},
		{"sets the core pattern", nil, []string{"sh", "-c", "true >/proc/sys/kernel/core_pattern || exit 9"}, notRoot, all(exits(9, ""))},
		{"leaves a core", []string{"--rlimit", "core=0"}, []string{tool("procs"), "raise", "6"}, anywhere, all(want{reason: "signalled", code: 134, signal: "SIGABRT"})},
	}
	each(t, allLevels, func(t *testing.T, a arm) {
		var done sync.WaitGroup
		for _, h := range programs {
			if !h.where(a) {
				continue
			}
			b := newBox(t, a)
			done.Go(func() { // at once: most of the time they are waited for
				w := h.want(a)
				for _, limit := range timeLimits {
					flags := slices.Clone(h.flags)
					if i := slices.Index(flags, timeLimits[0]); i >= 0 {
						flags[i] = limit
					}
					r, o := b.result(flags, h.argv...)
					told := (w.hit == "" || slices.Contains(r.LimitsHit, w.hit)) && (w.out == "" || slices.Contains(strings.Split(o.stdout, "\n"), w.out))
					if !told && o.code == 124 && w.code == 124 && limit != timeLimits[len(timeLimits)-1] {
						continue // the time was over before it came to that
					}
					if !told || r.Reason != w.reason || o.code != w.code || r.Signal != w.signal && w.code != 124 || w.hit == "" && len(r.LimitsHit) != 0 {
						t.Errorf("%s: want %+v: %+v, %.300q, %q, code %d", h.name, w, r, o.stdout, o.stderr, o.code)
					}
					break
				}
				if left := pidsWith(b.cookie); len(left) != 0 && w.reason != "supervisor-lost" {
					t.Errorf("%s: left: %v", h.name, left)
				}
			})
		}
		done.Wait()
	})
}
