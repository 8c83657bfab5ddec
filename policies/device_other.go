//go:build !linux

package policies

func deviceNumber(string) (string, int64, int64, error) {
	return "", 0, 0, problem("names a device, which this system can't look at")
}
