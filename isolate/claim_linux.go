//go:build cgo && (amd64 || arm64)

package isolate

import (
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/jailrun/jail/cgroup"
)

// Uids that jails of root take. The range lies above those of systemd-nspawn and of /etc/subuid's defaults, and below
// 2^31, which not all programs survive. No account may be put there.
const (
	firstUID = 1_900_000_000
	numUIDs  = 1 << 16
)

// uidLocks is a file of which byte n is locked while the uid firstUID+n is in use. It is empty, and it stays. The first
// folder is the one; where nothing can be made in /run (a container's read-only root), all of its jails take the second.
const uidLocks = "uids"

var uidLockFolders = []string{"/run/jail", "/dev/shm/jail"}

// openUIDLocks opens the file anew: locks of one open file do not exclude each other.
func openUIDLocks() (*os.File, error) {
	var first error
	for _, dir := range uidLockFolders {
		f, err := openRootsFile(dir, uidLocks)
		if err == nil {
			return f, nil
		}
		if first == nil {
			first = err
		}
	}
	return nil, first
}

// openRootsFile opens or makes a file in a folder that nobody but root may write to: in /dev/shm others can have been there
// first.
func openRootsFile(dir, name string) (*os.File, error) {
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return nil, err
	}
	at, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: dir, Err: err}
	}
	defer unix.Close(at)
	var st unix.Stat_t
	if err := unix.Fstat(at, &st); err != nil {
		return nil, &os.PathError{Op: "stat", Path: dir, Err: err}
	}
	if st.Uid != 0 || st.Mode&0o022 != 0 {
		return nil, &os.PathError{Op: "open", Path: dir, Err: errors.New("others may write to it")}
	}
	path := filepath.Join(dir, name)
	fd, err := unix.Openat(at, name, unix.O_RDWR|unix.O_CREAT|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return os.NewFile(uintptr(fd), path), nil
}

// claim takes what no two jails may share: for root a uid. The lock belongs to an open file that jail-init holds too,
// so that it lasts until the last process of the jail is gone, whoever dies first.
func (l *launch) claim() error {
	h := l.host
	if h.UID != 0 || h.OwnUID != 0 || h.Caps&otherUIDCaps != otherUIDCaps || !l.spec.takesUID(h) {
		return nil
	}
	f, err := openUIDLocks()
	if err != nil {
		return err
	}
	first := rand.IntN(numUIDs) // #nosec: spreads the tries, hides nothing
	for i := range numUIDs {
		n := (first + i) % numUIDs
		lock := unix.Flock_t{Type: unix.F_WRLCK, Start: int64(n), Len: 1}
		err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &lock)
		if err == unix.EAGAIN || err == unix.EACCES {
			continue
		}
		if err != nil {
			f.Close()
			return &os.PathError{Op: "lock", Path: f.Name(), Err: err}
		}
		if uidInUse(firstUID + n) {
			lock.Type = unix.F_UNLCK
			_ = unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &lock)
			continue
		}
		l.host.OwnUID = firstUID + n
		l.claims = append(l.claims, f)
		return nil
	}
	f.Close()
	return errors.New("all uids for jails are in use (" + strconv.Itoa(firstUID) + " and up)")
}

// takesUID says whether root's payload gets a uid that nobody else has.
func (s *Spec) takesUID(h *Host) bool {
	who := s.identity()
	return who == IdentityOwn || s.mapsUsers() || who == IdentityFixed && len(s.Linux.Namespaces) > 0 && !h.privileged()
}

// uidInUse asks whether any process has the uid: getpriority(2) says ESRCH when none has.
func uidInUse(uid int) bool {
	_, err := unix.Getpriority(unix.PRIO_USER, uid)
	return err != unix.ESRCH
}

// scratchPrefix begins the names of private TMPDIRs; the caller's uid and a random part follow.
const scratchPrefix = "jail-tmp-"

// makeScratch makes a private TMPDIR. We hold its lock while the jail lives: a folder without a lock is a killed
// launcher's, and its jail is dead or dies this moment.
func (l *launch) makeScratch(path string) error {
	removeStale(filepath.Dir(path), l.host.UID)
	for range lockAttempts {
		if err := os.Mkdir(path, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
		lock, err := lockScratch(path)
		if err == nil {
			l.scratch, l.scratchLock = path, lock
			return os.Lchown(path, l.plan.UID, l.plan.GID)
		}
		// Another start took it for a killed launcher's before it was locked, and is about to remove it.
		time.Sleep(time.Millisecond)
	}
	return unix.EBUSY
}

// lockAttempts bounds how often a private TMPDIR is made anew.
const lockAttempts = 100

// lockScratch takes the lock of a private TMPDIR. An error says that it is in use, not ours, or gone.
func lockScratch(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if err == nil {
		held, e := f.Stat()
		there, e2 := os.Lstat(path)
		if e == nil && e2 == nil && os.SameFile(held, there) {
			return f, nil
		}
		err = unix.ESTALE
	}
	f.Close()
	return nil, &os.PathError{Op: "flock", Path: path, Err: err}
}

// Collect removes what killed launchers have left and nobody uses: cgroups, and in TMPDIR private folders of level user.
// It returns their names. Nothing is removed that jail did not make, or that belongs to a jail that lives.
func Collect() ([]string, error) {
	removed, err := cgroup.Collect()
	return append(removed, removeStale(os.TempDir(), os.Geteuid())...), err
}

// removeStale removes the private TMPDIRs that killed launchers of the same user left, and returns their paths.
func removeStale(dir string, uid int) (removed []string) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), scratchPrefix+strconv.Itoa(uid)+"-") {
			continue
		}
		path := filepath.Join(dir, e.Name())
		if info, err := os.Lstat(path); err != nil || !ours(info, uid) {
			continue
		}
		f, err := lockScratch(path)
		if err != nil {
			continue // in use
		}
		removeScratch(path)
		f.Close()
		removed = append(removed, path)
	}
	return removed
}

// ours says whether a private TMPDIR can have been left by a launcher of the uid: anybody may make folders of such a
// name in /tmp, which root need not spend its time on.
func ours(info os.FileInfo, uid int) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && (int(st.Uid) == uid || uid == 0 && int(st.Uid) >= firstUID && int(st.Uid) < firstUID+numUIDs)
}

// removeScratch removes a private TMPDIR whose payload is dead. For an ordinary user, folders that the payload closed
// (Go's module cache has such) have to be opened first; no link is followed.
func removeScratch(path string) {
	if os.RemoveAll(path) == nil {
		return
	}
	root, err := os.OpenRoot(filepath.Dir(path))
	if err != nil {
		return
	}
	defer func() { _ = root.Close() }()
	openFolders(root, filepath.Base(path))
	_ = root.RemoveAll(filepath.Base(path))
}

// openFolders lets the owner into dir and all folders below it.
func openFolders(root *os.Root, dir string) {
	if info, err := root.Lstat(dir); err != nil || !info.IsDir() || root.Chmod(dir, 0o700) != nil {
		return
	}
	f, err := root.Open(dir)
	if err != nil {
		return
	}
	entries, _ := f.ReadDir(-1)
	f.Close()
	for _, e := range entries {
		if e.IsDir() {
			openFolders(root, filepath.Join(dir, e.Name()))
		}
	}
}

// undo takes back what an attempt has made.
func (l *launch) undo() {
	l.removeCgroup()
	if l.scratchLock != nil {
		removeScratch(l.scratch)
		l.scratchLock.Close()
	}
	l.scratch, l.scratchLock = "", nil
}

// close drops the launcher's hold on the claims; jail-init has its own.
func (l *launch) close() {
	l.undo()
	for _, f := range l.claims {
		f.Close()
	}
}
