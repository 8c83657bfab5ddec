package syscalls

import (
	"cmp"
	"slices"
)

// The ABIs, in the order of a call's numbers.
const (
	AMD64 = iota
	I386
	X32
	ARM64
)

// Call is a system call that has a name.
type Call struct {
	Name  string
	Group uint8    // an index of Groups
	NR    [4]int16 // by ABI; without x32's bit; -1 is none
}

// Group is one of the groups by purpose. Each call is in one.
type Group struct {
	Name string // with its @
	Doc  string
}

// Find is the call of that name; nil is none.
func Find(name string) *Call {
	i, ok := slices.BinarySearchFunc(Calls[:], name, func(c Call, name string) int { return cmp.Compare(c.Name, name) })
	if !ok {
		return nil
	}
	return &Calls[i]
}
