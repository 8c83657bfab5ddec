// Command legal compiles: the states come one after the other.
package main

import (
	"context"

	"github.com/jailrun/jail/ipc"
)

func use(ctx context.Context, h *ipc.Handshaking) (*ipc.Terminated, error) {
	a, err := h.Authenticate(ctx)
	if err != nil {
		return nil, err
	}
	if err := a.Lock(ctx, "name", ipc.Exclusive); err != nil {
		return nil, err
	}
	return a.Terminate(ctx)
}

func main() { _ = use }
