// Package ipc has what processes need to work together across the walls between them, each of which may be hostile to the
// other: shared memory, and in it locks that survive the death of who holds them.
//
// Memory that a peer can write is read once and atomically, masked or checked, and copied before it is believed. Nothing
// that a peer writes there makes this package panic, read or write outside the segment, or wait beyond the caller's context.
package ipc
