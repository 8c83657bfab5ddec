// Command readpolicy reads the policy that it is given, makes a Spec of it, and prints how many milliseconds
// the reading and how many both took. It does so once: in a fresh process nothing is warm.
package main

import (
	"fmt"
	"os"
	"runtime"
	"time"

	"github.com/jailrun/jail/policies"
)

func main() {
	runtime.GOMAXPROCS(1) // as jail run has it
	begin := time.Now()
	loaded, err := policies.Load(os.Args[1])
	read := time.Since(begin)
	if err == nil {
		_, err = loaded.Spec("true")
	}
	both := time.Since(begin)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(float64(read.Nanoseconds())/1e6, float64(both.Nanoseconds())/1e6)
}
