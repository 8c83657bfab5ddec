package isolate

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// standardSignals by number, signal(7) for amd64 and arm64.
var standardSignals = []string{
	"", "SIGHUP", "SIGINT", "SIGQUIT", "SIGILL", "SIGTRAP", "SIGABRT", "SIGBUS", "SIGFPE", "SIGKILL", "SIGUSR1", "SIGSEGV",
	"SIGUSR2", "SIGPIPE", "SIGALRM", "SIGTERM", "SIGSTKFLT", "SIGCHLD", "SIGCONT", "SIGSTOP", "SIGTSTP", "SIGTTIN",
	"SIGTTOU", "SIGURG", "SIGXCPU", "SIGXFSZ", "SIGVTALRM", "SIGPROF", "SIGWINCH", "SIGIO", "SIGPWR", "SIGSYS",
}

// realTimeMin is glibc's SIGRTMIN: it keeps 32 and 33 to itself.
const realTimeMin = 34

// signalName is the name of a signal: "SIGTERM", "SIGRTMIN+3".
func signalName(n int) string {
	switch {
	case n > 0 && n < len(standardSignals):
		return standardSignals[n]
	case n == realTimeMin:
		return "SIGRTMIN"
	case n > realTimeMin && n <= 64:
		return fmt.Sprintf("SIGRTMIN+%d", n-realTimeMin)
	}
	return fmt.Sprintf("signal %d", n)
}

// signalNumber is the other way round; 0 is no signal.
func signalNumber(name string) int {
	if i := slices.Index(standardSignals, name); i > 0 {
		return i
	}
	for _, prefix := range []string{"SIGRTMIN+", "signal "} {
		if rest, ok := strings.CutPrefix(name, prefix); ok {
			n, _ := strconv.Atoi(rest)
			if prefix == "SIGRTMIN+" {
				n += realTimeMin
			}
			return n
		}
	}
	if name == "SIGRTMIN" {
		return realTimeMin
	}
	return 0
}

// signalNames lists a set, of which bit n-1 is signal n.
func signalNames(set uint64) []string {
	names := []string{}
	for n := 1; n <= 64; n++ {
		if set>>(n-1)&1 == 1 {
			names = append(names, signalName(n))
		}
	}
	return names
}
