package policies

import "golang.org/x/sys/unix"

// deviceNumber is what a device is: kind "b" or "c", and its number.
func deviceNumber(path string) (kind string, major, minor int64, err error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return "", 0, 0, problem("names a device that can't be looked at: " + err.Error())
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFBLK:
		kind = "b"
	case unix.S_IFCHR:
		kind = "c"
	default:
		return "", 0, 0, problem("names a file that is not a device")
	}
	return kind, int64(unix.Major(st.Rdev)), int64(unix.Minor(st.Rdev)), nil
}
