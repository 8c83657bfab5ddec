package policies

import "golang.org/x/sys/unix"

// blockDevice is the number of a disk.
func blockDevice(path string) (major, minor int64, err error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return 0, 0, problem("names a device that can't be looked at: " + err.Error())
	}
	if st.Mode&unix.S_IFMT != unix.S_IFBLK {
		return 0, 0, problem("names a file that is not a block device")
	}
	return int64(unix.Major(st.Rdev)), int64(unix.Minor(st.Rdev)), nil
}
