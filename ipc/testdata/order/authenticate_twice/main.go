// Command authenticate_twice does not compile.
package main

import (
	"context"

	"github.com/jailrun/jail/ipc"
)

func use(ctx context.Context, a *ipc.Authenticated) error {
	_, err := a.Authenticate(ctx)
	return err
}

func main() { _ = use }
