// Command archive is the library inside a C program: it is built with -buildmode=c-archive and called by main.c.
package main

import "C"

import (
	"context"
	"fmt"

	"github.com/jailrun/jail/isolate"
)

// runJails runs one jail at each level and returns how many ended as they should.
//
//export runJails
func runJails() C.int {
	good := 0
	for level := isolate.Basic; level <= isolate.Namespaced; level++ {
		cmd := isolate.Command(context.Background(), level, "/bin/sh", "-c", "echo out; exit 7")
		cmd.Dir = "/"
		out, err := cmd.Output()
		if string(out) == "out\n" && cmd.Result().ExitCode == 7 {
			good++
		} else {
			fmt.Println(level, string(out), err)
		}
	}
	return C.int(good)
}

func main() {}
