//go:build !linux || !cgo

package signals

import (
	"errors"
	"testing"
)

func TestUnsupported(t *testing.T) {
	if _, err := Relay(t.Context(), nil); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("got %v", err)
	}
}
