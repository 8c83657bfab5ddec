// Package signals passes the signals that this process receives on to another one: jail relays them to
// its payload, so that who signals the launcher has signalled the program in the jail.
//
// # From handler to receiver
//
// A handler may do next to nothing, so it only takes a note and wakes a goroutine that does the rest:
//
//	kernel → handler: pending |= bit; write 1 byte → pipe → goroutine: read; take pending → Receiver
//	kernel → blocked, queued → signalfd ──────────────────→ goroutine ────────────────────→ Receiver
//
// The first line is for the standard signals. The bits are the message and the byte only wakes, so a
// full pipe loses nothing; a signal that is sent again before it was taken arrives once, as the kernel
// itself has it. The second line is for the real-time signals, SIGRTMIN to SIGRTMAX, for SIGTSTP and
// SIGCONT, and for what was blocked when the program started: these are blocked in every thread, so the
// kernel keeps each real-time signal with its value and in order. (os/signal loses real-time signals in a
// burst, and their values always.) It also knows which of SIGTSTP and SIGCONT came last: SIGTSTP stays
// with it until it stops this process. One gap is left: while a thread of the Go runtime ends, SIGRTMIN
// itself may be overtaken by later ones of its number.
//
// # What is relayed
//
// Relayed is everything but SIGKILL and SIGSTOP, which no process can catch; SIGCHLD, SIGPIPE, SIGURG
// and SIGPROF, which concern this process and the Go runtime; and 32 and 33, which belong to the C
// library. What was ignored when the program started (by nohup, or by a shell for its background jobs)
// stays ignored. A standard signal that this process sent to itself, or that the kernel sent for
// something that this process did (a fault, a limit), is not relayed: it goes to the handler that was
// there before, so a nil dereference is still a panic and a crash still prints its trace.
//
// # Before and after
//
// Linking this package has effects before main, so only commands import it. Until Relay is called, the
// signals of the second line wait in the kernel, and the others do what they do in any Go program
// (SIGHUP, SIGINT and SIGTERM end it). A command that does not call Relay calls Unblock, else ^Z would
// do nothing. Programs that are started with os/exec inherit the mask. A relayed signal must not be given
// to os/signal as well.
package signals

import "syscall"

// Receiver is the process that signals are relayed to.
type Receiver interface {
	// SendSignal sends sig to the process, or, where group is set, to its whole process group. The
	// value is what came with a real-time signal, the whole union of sigqueue(3), or 0. Relay makes one
	// call at a time.
	SendSignal(sig syscall.Signal, value int, group bool) error
}
