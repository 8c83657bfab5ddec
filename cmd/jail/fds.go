package main

// access is what an fd that the caller passed has to be good for.
type access int

const (
	anyAccess access = iota
	reading
	writing
)
