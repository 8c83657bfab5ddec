//go:build cgo && (amd64 || arm64)

package main

import (
	"runtime"

	"github.com/jailrun/jail/policies"
	"github.com/jailrun/jail/seccomp"
)

// ociFilters has the built-in filters as OCI has them.
func ociFilters() (policies.Filters, error) {
	docker, err := seccomp.Default(runtime.GOARCH)
	return policies.Filters{"baseline": seccomp.Baseline().OCI(runtime.GOARCH), "default": docker.OCI(runtime.GOARCH)}, err
}
