package isolate

import (
	"fmt"
	"strings"
	"time"
)

// Reason says why a run ended.
type Reason string

// The reasons.
const (
	Exited         Reason = "exited"
	Signalled      Reason = "signalled"
	TimedOut       Reason = "timeout"
	Cancelled      Reason = "cancelled"
	MemoryExceeded Reason = "memory"          // the jail's memory limit: the kernel killed the payload
	CPUExceeded    Reason = "cpu-time"        // Spec.CPUTime
	OutputExceeded Reason = "output"          // Spec.OutputLimit
	ExecFailed     Reason = "exec-failed"     // the walls stood, the program could not be run
	SetupFailed    Reason = "setup-failed"    // nothing of the payload ran
	SupervisorLost Reason = "supervisor-lost" // jail-init ended without a word; the payload may have run
)

// Result is what happened. It is compatible across versions: keys are added, never changed.
type Result struct {
	Level          Level       `json:"level"`           // asked for
	GivenLevel     Level       `json:"given_level"`     // "none" where the run did not start
	LostGuarantees []Guarantee `json:"lost_guarantees"` // by a downgrade
	Reason         Reason      `json:"reason"`
	ExitCode       int         `json:"exit_code"` // the payload's; -1 where it has none
	Signal         string      `json:"signal"`    // that ended the payload: "SIGKILL", "SIGRTMIN+3", or ""
	LimitsHit      []string    `json:"limits_hit"`
	Appeared       []string    `json:"appeared"`    // paths of rules with Report that were absent at the start and exist at the end
	Denied         []Denial    `json:"denied"`      // with Spec.Monitor: calls that the jail has refused, in the order of the first of each
	DeniedMore     int64       `json:"denied_more"` // such calls that Denied has no room for
	UID            int         `json:"uid"`         // the payload's, as the host sees it; -1 where none ran
	GID            int         `json:"gid"`
	Identity       Identity    `json:"identity"`
	Error          string      `json:"error"` // why nothing ran, or ""

	WallMS float64 `json:"wall_ms"` // from the payload's start to the end of the jail

	// Of the processes that were waited for by their parents or by jail: not of those that were killed with it.
	ReapedUserMS      float64 `json:"reaped_user_ms"`
	ReapedSystemMS    float64 `json:"reaped_system_ms"`
	ReapedMaxRSSBytes int64   `json:"reaped_max_rss_bytes"` // of the largest one

	// Of all processes of the jail, counted by its cgroup; -1 where it has none.
	UserMS          float64 `json:"user_ms"`
	SystemMS        float64 `json:"system_ms"`
	PeakMemoryBytes int64   `json:"peak_memory_bytes"`
	OOMKills        int64   `json:"oom_kills"` // for whatever limit; LimitsHit has "memory" where it was the jail's own

	// All that the jail has written to stdout and stderr, also what was not passed on; -1 without Spec.OutputLimit.
	OutputBytes int64 `json:"output_bytes"`
	outputLimit int64 // Spec.OutputLimit, for String

	CompileMS float64 `json:"compile_ms"` // the Plan
	LaunchMS  float64 `json:"launch_ms"`  // until jail-init runs
	ExecMS    float64 `json:"exec_ms"`    // until the payload runs
}

// Denial is a call of the payload's that the jail has refused, and how often. Paths, names and addresses are the
// payload's words: quote them.
type Denial struct {
	Call     string `json:"call"`     // "openat"; "i386 call 5" of a program for another ABI
	Argument string `json:"argument"` // what tells most of it beside a path: the address of a connect, the request of an ioctl; or ""
	Path     string `json:"path"`     // as far as it could be read; or ""
	Errno    string `json:"errno"`    // what the payload was told: "EACCES"
	Why      Why    `json:"why"`
	Count    int64  `json:"count"`
}

// Why says which border a call was refused at.
type Why string

// The borders. At the first two the monitor has given the answer itself. Of the others it tells what the kernel was
// going to say: see Spec.Monitor.
const (
	ByFilter     Why = "filter"         // a filter refuses the call
	ByNotify     Why = "notify"         // Spec.Notify lists it, and the launcher could not do it, or not in that way
	NotInView    Why = "not in view"    // the file is there on the host, and the view does not show it
	Closed       Why = "denied"         // a rule of the kind Deny
	ReadOnly     Why = "read-only"      // the view does not let it be written
	NoExecution  Why = "not executable" // the view does not let it be executed
	ByMode       Why = "mode"           // the file's owner and mode do not let the payload's uid
	OtherProcess Why = "other process"  // what /proc has of a process that is not the payload's
	NoNetwork    Why = "no network"     // the jail has a loopback device of its own, and nothing listens there
)

// Success says that the payload exited with code 0 of its own accord.
func (r *Result) Success() bool { return r.Reason == Exited && r.ExitCode == 0 }

// ShellCode is the exit code of `jail run`: the payload's; 128+signal; 124 when its time or CPU time was over; 137, as
// of one that was killed, for one that wrote too much, also where it ended before it could be killed; 125 when jail
// itself failed; 126 and 127 are set from an ExecError.
func (r *Result) ShellCode() int {
	switch r.Reason {
	case Exited:
		return r.ExitCode
	case TimedOut, CPUExceeded:
		return 124
	case OutputExceeded:
		return 128 + signalNumber("SIGKILL")
	case Signalled, Cancelled, MemoryExceeded:
		if n := signalNumber(r.Signal); n > 0 {
			return 128 + n
		}
		if r.ExitCode >= 0 {
			return r.ExitCode
		}
	}
	return 125
}

// String is the human line: "exited 1 after 2.1 s at level namespaced".
func (r *Result) String() string {
	var b strings.Builder
	switch r.Reason {
	case Exited:
		fmt.Fprintf(&b, "exited %d", r.ExitCode)
	case Signalled:
		fmt.Fprintf(&b, "ended by %s", r.Signal)
	case TimedOut, Cancelled, MemoryExceeded, CPUExceeded:
		fmt.Fprintf(&b, "%s", map[Reason]string{
			TimedOut: "timed out", Cancelled: "cancelled", MemoryExceeded: "out of memory", CPUExceeded: "used up its CPU time",
		}[r.Reason])
		if r.Signal != "" {
			fmt.Fprintf(&b, ", ended by %s", r.Signal)
		} else if r.ExitCode >= 0 {
			fmt.Fprintf(&b, ", exited %d", r.ExitCode)
		}
	case OutputExceeded:
		if r.Signal != "" {
			fmt.Fprintf(&b, "ended by %s", r.Signal)
		} else {
			fmt.Fprintf(&b, "exited %d", r.ExitCode)
		}
		fmt.Fprintf(&b, ": more than %s of output", roundBytes(r.outputLimit))
	case SupervisorLost:
		b.WriteString("lost its supervisor")
	default:
		fmt.Fprintf(&b, "%s: %s", r.Reason, r.Error)
		return b.String()
	}
	wall := time.Duration(r.WallMS * float64(time.Millisecond))
	fmt.Fprintf(&b, " after %s at level %s", roundDuration(wall), r.GivenLevel)
	if r.GivenLevel != r.Level {
		fmt.Fprintf(&b, " (asked for %s)", r.Level)
	}
	if r.outputLimit > 0 && r.OutputBytes > r.outputLimit && r.Reason != OutputExceeded {
		fmt.Fprintf(&b, "; output was cut after %s of %s", roundBytes(r.outputLimit), roundBytes(r.OutputBytes))
	}
	return b.String()
}

// Detail is the rest of the report for people, for --verbose.
func (r *Result) Detail() string {
	used := fmt.Sprintf("processes waited for: user %.1f ms, system %.1f ms, largest %.1f MiB",
		r.ReapedUserMS, r.ReapedSystemMS, float64(r.ReapedMaxRSSBytes)/(1<<20))
	if r.UserMS >= 0 {
		used = fmt.Sprintf("all processes: user %.1f ms, system %.1f ms, peak memory %.1f MiB",
			r.UserMS, r.SystemMS, float64(r.PeakMemoryBytes)/(1<<20))
	}
	if len(r.LimitsHit) > 0 {
		used = "limits hit: " + strings.Join(r.LimitsHit, ", ") + "; " + used
	}
	return fmt.Sprintf("uid %d, gid %d (%s); %s; start: compile %.2f ms, launch %.2f ms, exec %.2f ms",
		r.UID, r.GID, r.Identity, used, r.CompileMS, r.LaunchMS, r.ExecMS)
}

func roundDuration(d time.Duration) string {
	switch {
	case d < 10*time.Millisecond:
		return fmt.Sprintf("%.1f ms", float64(d)/1e6)
	case d < time.Second:
		return fmt.Sprintf("%d ms", d.Milliseconds())
	}
	return fmt.Sprintf("%.1f s", d.Seconds())
}

func roundBytes(n int64) string {
	switch {
	case n < 1<<10:
		return fmt.Sprintf("%d bytes", n)
	case n < 1<<20:
		return fmt.Sprintf("%.1f KiB", float64(n)/(1<<10))
	case n < 1<<30:
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	}
	return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
