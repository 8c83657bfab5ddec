//go:build amd64 || arm64

package ipc

// relax tells the CPU n times (at least once) that this is a loop that waits, which gives its other thread the core.
//
//go:noescape
func relax(n int)
