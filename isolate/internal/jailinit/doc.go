// Package jailinit holds jail-init, the small C program that builds the walls of a jail and stays as its PID 1 or
// sub-reaper, and the way to start it.
//
// src/ has the C source, generate.sh compiles it to the committed assembly that cgo assembles; see the rules at the
// head of src/init.c and src/launch.c. wire_unsafe.go is the Go side of src/plan.h.
package jailinit

//go:generate ./generate.sh
