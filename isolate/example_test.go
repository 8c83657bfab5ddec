//go:build linux && (amd64 || arm64)

package isolate_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/jailrun/jail/isolate"
)

// A command runs as with os/exec, but behind walls.
func ExampleCommand() {
	cmd := isolate.Command(context.Background(), isolate.Namespaced, "/bin/sh", "-c", "echo hello from PID 1\\'s child; exit 3")
	cmd.Dir = "/"
	cmd.Stdout = os.Stdout
	err := cmd.Run()

	var exit *isolate.ExitError
	if errors.As(err, &exit) {
		fmt.Println("exit code", exit.ExitCode)
	}
	fmt.Println("level", cmd.Result().GivenLevel)
	// Output:
	// hello from PID 1's child
	// exit code 3
	// level namespaced
}

// Output returns what the payload wrote, and keeps its errors.
func ExampleCmd_Output() {
	cmd := isolate.Command(context.Background(), isolate.Namespaced, "/bin/sh", "-c", "ls /tmp; hostname; ls /nothing")
	cmd.Dir = "/"
	cmd.Env = []string{"LC_ALL=C", "PATH=/usr/bin:/bin"}
	out, err := cmd.Output()
	fmt.Printf("%q\n", out)

	var exit *isolate.ExitError
	if errors.As(err, &exit) {
		fmt.Printf("%s", exit.Stderr)
	}
	// Output:
	// "jail\n"
	// ls: cannot access '/nothing': No such file or directory
}

// A program that can do with less falls back knowingly: the error says which level works here.
func ExampleErrUnsupported() {
	run := func(level isolate.Level) error {
		cmd := isolate.Command(context.Background(), level, "/bin/true")
		cmd.Dir = "/"
		return cmd.Run()
	}
	err := run(isolate.Namespaced)
	var unsupported *isolate.UnsupportedError
	if errors.As(err, &unsupported) && unsupported.Highest >= isolate.User {
		log.Printf("%v; at level %s instead", err, unsupported.Highest)
		err = run(unsupported.Highest)
	}
	fmt.Println(err)
	// Output: <nil>
}

// The Spec goes further than a level: folders that the payload may see and change, a time limit, and more.
func ExampleCmd_Spec() {
	dir, err := os.MkdirTemp("", "example-")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)

	cmd := isolate.Command(context.Background(), isolate.Namespaced, "/bin/sh", "-c", "echo written >/out/file; pwd")
	cmd.Dir = "/out"
	cmd.Stdout = os.Stdout
	spec := cmd.Spec()
	spec.View = append(spec.View, isolate.Rule{Kind: isolate.ShowWrite, Path: "/out", Source: dir})
	spec.Timeout = time.Minute
	if err := cmd.Run(); err != nil {
		log.Fatal(err)
	}

	content, err := os.ReadFile(filepath.Join(dir, "file"))
	fmt.Printf("%s%v\n", content, err)
	// Output:
	// /out
	// written
	// <nil>
}

// A payload that takes too long is asked to end, and then ended with all its children.
func ExampleResult() {
	cmd := isolate.Command(context.Background(), isolate.Namespaced, "/bin/sh", "-c", "trap '' TERM; sleep 1000 & wait; sleep 1000")
	cmd.Dir = "/"
	cmd.Spec().Timeout = 100 * time.Millisecond
	cmd.Spec().KillAfter = 100 * time.Millisecond
	_ = cmd.Run()
	r := cmd.Result()
	fmt.Println(r.Reason, r.Signal, r.LimitsHit, r.ShellCode())
	// Output: timeout SIGKILL [timeout] 124
}

// Explain tries each step of a run, without the payload's program, and tells what would be open and what closed.
func ExampleExplain() {
	spec := isolate.NewSpec(isolate.Namespaced, "/bin/true")
	spec.Process.Cwd = "/"
	e, err := isolate.Explain(spec)
	if err != nil {
		log.Fatal(err)
	}
	for _, line := range e.Permissions {
		if strings.HasPrefix(line, "network") {
			fmt.Println(line)
		}
	}
	// Output: network: a loopback device of its own
}
