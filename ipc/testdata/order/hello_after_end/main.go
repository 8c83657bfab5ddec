// Command hello_after_end does not compile.
package main

import (
	"context"

	"github.com/jailrun/jail/ipc"
)

func use(ctx context.Context, t *ipc.Terminated) error {
	_, err := t.Authenticate(ctx)
	return err
}

func main() { _ = use }
