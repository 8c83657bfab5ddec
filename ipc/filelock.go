package ipc

// LockKind is which of the kernel's file locks a [FileLock] is. They do not see each other.
type LockKind uint8

const (
	// Flock is flock(2). It needs no access to the file but to open it.
	Flock LockKind = iota + 1
	// OFD is a lock of the open file description (fcntl(2), F_OFD_SETLK) on the whole file, which classic fcntl locks
	// of other programs respect. Exclusive needs a file that is open for writing, and Shared one for reading.
	OFD
)
