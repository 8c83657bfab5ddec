// Command request_first does not compile.
package main

import (
	"context"

	"github.com/jailrun/jail/ipc"
)

func use(ctx context.Context, h *ipc.Handshaking) error {
	return h.Lock(ctx, "name", ipc.Exclusive)
}

func main() { _ = use }
