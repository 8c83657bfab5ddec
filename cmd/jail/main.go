// Go's start would read the cgroup files for a CPU limit, which one launch does not need.
//
//go:debug containermaxprocs=0

// Command jail runs a command that is not fully trusted, with as much isolation as is asked for, and tells what
// happened. It wires the packages together and is the only one of them that prints.
//
// Everything a payload, a file or an argument can put into a message goes through quote or printable: no control
// character reaches the terminal.
package main

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"unicode/utf8"

	"github.com/jailrun/jail/isolate"
	"github.com/jailrun/jail/policies"
	"github.com/jailrun/jail/signals"
)

// exitJail is the exit code when jail itself failed; 124, 126 and 127 come from package isolate.
const exitJail = 125

func main() {
	// One launch has nothing to do at once: with a second processor the runtime's monitor would wake every 80 µs and take
	// the CPU that the jail is being made on.
	runtime.GOMAXPROCS(1)
	// Where nobody reads our standard error, Go would end us at the first word to it, and the jail with us. The payload
	// has SIGPIPE as our caller has it.
	signal.Ignore(syscall.SIGPIPE)
	os.Exit(jail(os.Args[1:]))
}

// jail runs one command and returns its exit code.
func jail(args []string) (code int) {
	defer func() {
		if bug := recover(); bug != nil {
			complain("internal error: " + fmt.Sprint(bug))
			code = exitJail
		}
	}()
	if len(args) == 0 {
		return help(nil)
	}
	if err := room(); err != nil {
		return fail(err)
	}
	name, args := args[0], args[1:]
	switch name { // the others have no payload to relay signals to
	case "run":
		return run(args)
	case "learn":
		return learn(args)
	}
	signals.Unblock()
	switch name {
	case "explain":
		return explain(args)
	case "policy":
		return policy(args)
	case "why":
		return why(args)
	case "levels":
		return levels(args)
	case "gc":
		return gc(args)
	case "version", "--version":
		return printVersion(args)
	case "help", "--help", "-h":
		return help(args)
	}
	return fail(&usageError{
		problem: "unknown command " + quote(name),
		hint:    didYouMean(name, commands, "jail ", "jail help lists the commands; jail run COMMAND runs one"),
	})
}

var commands = []string{"run", "explain", "learn", "policy", "why", "levels", "gc", "version", "help"}

// usageError is a mistake in the command line that is not about one flag's value.
type usageError struct {
	flag    string // that is at fault, where it can be a policy's
	problem string
	hint    string
}

func (e *usageError) Error() string { return e.problem }

// fail prints an error, and a way out where there is one, and returns the exit code.
func fail(err error) int {
	complain(err.Error())
	var mistake *policies.Error
	if errors.As(err, &mistake) {
		for _, line := range mistake.Excerpt() {
			fmt.Fprintln(os.Stderr, printable(line))
		}
	}
	if h := hint(err); h != "" {
		fmt.Fprintln(os.Stderr, "hint: "+brief(printable(h)))
	}
	var exec *isolate.ExecError
	if errors.As(err, &exec) {
		return exec.ExitCode()
	}
	return exitJail
}

// complain prints one line.
func complain(line string) { fmt.Fprintln(os.Stderr, "jail: "+brief(printable(line))) }

// brief leaves out the middle of a line that nobody would read: what went wrong is at its ends.
func brief(line string) string {
	const longest, end = 2000, 900
	if len(line) <= longest {
		return line
	}
	return strings.ToValidUTF8(line[:end], "") + " … " + strings.ToValidUTF8(line[len(line)-end:], "")
}

// quote shows a word of somebody else's.
func quote(s string) string { return strconv.Quote(s) }

// printable is the last line of defence: what is not a printable character is escaped, line ends too.
func printable(s string) string {
	if utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return !strconv.IsPrint(r) }) {
		return s
	}
	var b strings.Builder
	for len(s) > 0 {
		r, n := utf8.DecodeRuneInString(s)
		if strconv.IsPrint(r) && (r != utf8.RuneError || n > 1) {
			b.WriteString(s[:n])
		} else {
			q := strconv.Quote(s[:n])
			b.WriteString(q[1 : len(q)-1])
		}
		s = s[n:]
	}
	return b.String()
}
