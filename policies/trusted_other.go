//go:build !linux && !darwin

package policies

import "io/fs"

// trusted: there are no jails on this system.
func trusted(fs.FileInfo) error { return nil }
