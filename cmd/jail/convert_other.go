//go:build !linux || !cgo || !(amd64 || arm64)

package main

import (
	"errors"

	"github.com/jailrun/jail/policies"
)

func ociFilters() (policies.Filters, error) {
	return nil, errors.New("the built-in filters are Linux's, and need a build with cgo")
}
