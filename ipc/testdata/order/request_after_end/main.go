// Command request_after_end does not compile.
package main

import (
	"context"

	"github.com/jailrun/jail/ipc"
)

func use(ctx context.Context, t *ipc.Terminated) error {
	return t.Lock(ctx, "name", ipc.Exclusive)
}

func main() { _ = use }
