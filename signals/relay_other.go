//go:build !linux || !cgo

package signals

import (
	"context"
	"errors"
	"fmt"
)

// Relay returns an error that wraps [errors.ErrUnsupported]: it needs Linux and cgo.
func Relay(context.Context, Receiver) (stop func() error, err error) {
	return nil, fmt.Errorf("signals: relay needs Linux and cgo: %w", errors.ErrUnsupported)
}

// Unblock does nothing: without Linux and cgo no signal is blocked.
func Unblock() {}
