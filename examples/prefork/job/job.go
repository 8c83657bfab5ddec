// Package job is what goes through the channels between the launcher and its workers.
package job

import "github.com/jailrun/jail/ipc"

// Names of the channels: all workers take from the one and answer through the other.
const (
	Tasks   = "tasks"
	Answers = "answers"
)

// Task asks for the number of primes below Below.
type Task struct {
	ID    uint32
	Below uint32
}

// Answer is a worker's word, and that of code that is not trusted.
type Answer struct {
	ID     uint32
	Worker uint32
	Primes uint32
}

// Rules are what each party may have.
var Rules = ipc.Rules{Channels: []ipc.ChannelRule{
	{Name: Tasks, Element: 8, Capacity: 16},
	{Name: Answers, Element: 12, Capacity: 16},
}}
