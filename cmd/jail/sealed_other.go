//go:build !linux

package main

import (
	"errors"
	"os"
)

func sealed(string, string) (*os.File, error) { return nil, errors.ErrUnsupported }
