//go:build !linux && !darwin

package main

const noFollow = 0

// inherited refuses every fd: this system does not pass them by number.
func inherited(int, access) error { return problem("names an fd, which this system can't pass") }

func blockDevice(string) (int64, int64, error) {
	return 0, 0, problem("names a device, which this system can't limit")
}

func fits(int) error { return nil }

func room() error { return nil }

func fileCapabilities(string) bool { return false }

func reapAll() {}
