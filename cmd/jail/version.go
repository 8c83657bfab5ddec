package main

import (
	"fmt"
	"runtime"
	"runtime/debug"
)

// version is set by the linker (make build).
var version string

// printVersion is jail version: what this binary is and what it needs.
func printVersion(args []string) int {
	if len(args) > 0 {
		return fail(&usageError{problem: "jail version takes no arguments"})
	}
	name := version
	if info, ok := debug.ReadBuildInfo(); ok && name == "" && info.Main.Version != "(devel)" {
		name = info.Main.Version // go install
	}
	if name == "" {
		name = "devel"
	}
	fmt.Printf("jail %s (%s, %s/%s)\n", name, runtime.Version(), runtime.GOOS, runtime.GOARCH)
	fmt.Println("needs Linux 5.14 or newer on amd64 or arm64; jail levels tells what this host gives")
	return 0
}
