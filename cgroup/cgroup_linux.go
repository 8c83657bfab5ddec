package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// ErrExists says that a cgroup of the wanted name is there: a jail of that name runs, or somebody else made it.
var ErrExists = errors.New("the name is in use")

// prefix begins the names of all cgroups of jails; see Collect.
const prefix = "jail-"

// The mark of a cgroup that was made here is an extended attribute: trusted.jail, which only root can set, or user.jail
// where the caller may not set that. On the main folder it lists the jail's other folders, one a line; on those it is
// the inode number of the main one. It is set after the main folder was locked: one that is marked and not locked has
// lost its owner. An owner may be killed between mkdir(2) and the mark, so a mode that nobody else gives to a cgroup is
// a mark as well: it is there at once.
var marks = []string{"trusted.jail", "user.jail"}

// Cgroup is a jail's cgroup: on v2 one folder, on v1 one in each hierarchy. Its methods may be called at the same time,
// but for Remove, which is the last one.
type Cgroup struct {
	version int
	dirs    []dir   // the first one, the main folder, is locked and marked
	keeper  *keeper // of the scope that it is in

	mu       sync.Mutex
	counters map[string]*os.File
}

// dir is a folder of a jail's cgroup.
type dir struct {
	controllers []string // on v1, of this hierarchy
	path        string
	f           *os.File // nil until it is made
}

// Create makes the cgroup jail-NAME with the controllers in the place: in all hierarchies that it takes, or in none. The
// caller owns it, by a lock on its main folder that ends with the caller's process. What is left of a dead jail of that
// name is killed and removed first; errors.Is(err, ErrExists) says that it is alive, or that it is not a jail's.
func (p *Place) Create(name string, controllers []string) (*Cgroup, error) {
	if !ValidName(name) {
		return nil, fmt.Errorf("a jail's name has 1 to 64 letters, digits, '_', '.' and '-', and begins with one of the first two; %q does not", name)
	}
	if p.Scope {
		return nil, errors.New("the scope has to be made first")
	}
	if p.Version == 2 {
		if err := enable(p.Dirs[""], controllers); err != nil {
			return nil, err
		}
	}
	for range createAttempts {
		c := p.cgroup(prefix+name, controllers)
		err := c.make()
		if err == nil {
			if p.keeper != nil { // that of a scope is for one Create; other places are for many at once
				c.keeper, p.keeper = p.keeper, nil
			}
			return c, nil
		}
		c.undo()
		if !errors.Is(err, fs.ErrExist) {
			return nil, err
		}
		dead, err := adopt(c.version, c.dirs[0].path)
		if errors.Is(err, fs.ErrNotExist) {
			continue // its owner has removed it this moment
		}
		if err != nil {
			return nil, err
		}
		if err := dead.end(); err != nil {
			return nil, err
		}
	}
	return nil, &os.PathError{Op: "mkdir", Path: p.cgroup(prefix+name, controllers).dirs[0].path, Err: ErrExists}
}

// Tasks returns the files by which a task enters the cgroup that Create makes, on v1: it writes "0" to each. That takes
// a hundredth of the time of Attach, since the kernel waits for an RCU grace period where a whole process is moved, or
// another one (Linux 5.5 and newer). So it is for a process that has one thread; those that it starts then are in too.
func (p *Place) Tasks(name string, controllers []string) []string {
	var files []string
	for _, d := range p.cgroup(prefix+name, controllers).dirs {
		files = append(files, filepath.Join(d.path, "tasks"))
	}
	return files
}

// createAttempts bounds how often a name is tried that others make and remove at the same time.
const createAttempts = 10

// enable lets children of a v2 cgroup have the controllers. A cgroup that holds processes can't (EBUSY).
func enable(dir string, controllers []string) error {
	file := filepath.Join(dir, "cgroup.subtree_control")
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var missing []string
	enabled := strings.Fields(string(text))
	for _, c := range controllers {
		if !slices.Contains(enabled, c) {
			missing = append(missing, "+"+c)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	if err := write(unix.AT_FDCWD, file, strings.Join(missing, " ")); err != nil {
		return fmt.Errorf("%s: %w", strings.Join(missing, " "), err)
	}
	return nil
}

// cgroup says which folders the jail's cgroup has; co-mounted controllers share one.
func (p *Place) cgroup(base string, controllers []string) *Cgroup {
	c := &Cgroup{version: p.Version, counters: map[string]*os.File{}}
	if p.Version == 2 {
		c.dirs = []dir{{path: filepath.Join(p.Dirs[""], base)}}
		return c
	}
	for _, h := range hierarchies(controllers) {
		path := filepath.Join(p.Dirs[h], base)
		i := slices.IndexFunc(c.dirs, func(d dir) bool { return d.path == path })
		if i < 0 {
			i = len(c.dirs)
			c.dirs = append(c.dirs, dir{path: path})
		}
		c.dirs[i].controllers = append(c.dirs[i].controllers, h)
	}
	return c
}

// make makes the folders. On an error undo has to be called.
func (c *Cgroup) make() error {
	main := &c.dirs[0]
	if err := main.make(); err != nil {
		return err
	}
	err := main.lock()
	if err == unix.EWOULDBLOCK || err == nil && !main.current() {
		err = unix.EEXIST // once more
	}
	if err != nil {
		c.close() // the folder is theirs now: undo must not touch it
		return &os.PathError{Op: "flock", Path: main.path, Err: err}
	}
	var others []string
	for _, d := range c.dirs[1:] {
		others = append(others, d.path)
	}
	if err := main.mark(strings.Join(others, "\n")); err != nil {
		return err
	}
	inode, err := main.inode()
	if err != nil {
		return err
	}
	for i := range c.dirs[1:] {
		d := &c.dirs[1+i]
		err := d.make()
		if err == nil {
			err = d.mark(inode)
		}
		if errors.Is(err, fs.ErrExist) { // not the main one's, which adopt could take
			err = &os.PathError{Op: "mkdir", Path: d.path, Err: ErrExists}
		}
		if err == nil && slices.Contains(d.controllers, "cpuset") {
			err = inheritCpuset(d)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// lock locks a folder that was just made. Before that, Collect may have taken it for a dead owner's: it holds the lock
// until the folder is gone. But it may also be that it is gone already, and that the path names one of a living jail.
func (d *dir) lock() error {
	deadline := time.Now().Add(lockTimeout)
	for {
		err := unix.Flock(int(d.f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err != unix.EWOULDBLOCK || !d.current() || time.Now().After(deadline) {
			return err
		}
		time.Sleep(100 * time.Microsecond)
	}
}

// lockTimeout bounds the wait for Collect, which takes a millisecond or two for an empty folder, and longer on a machine
// that has much else to do.
const lockTimeout = 10 * time.Second

// undo removes what make has made. Nothing was attached yet.
func (c *Cgroup) undo() {
	for _, d := range slices.Backward(c.dirs) {
		if d.f == nil {
			continue
		}
		if err := unix.Rmdir(d.path); err != nil && err != unix.ENOENT {
			break // the main one stays, marked, for Collect
		}
	}
	c.close()
}

// ownMode is the mode of our folders. Others than the owner may not open them: anybody could hold the lock. The sticky
// bit means nothing there, but that jail made it.
const ownMode = 0o1711

// make makes the folder and opens it, or leaves nothing.
func (d *dir) make() (err error) {
	if err := unix.Mkdir(d.path, ownMode); err != nil {
		return &os.PathError{Op: "mkdir", Path: d.path, Err: err}
	}
	// The caller's umask may have taken rights of its own away.
	if chmod := unix.Chmod(d.path, ownMode); chmod != nil && chmod != unix.ENOENT {
		err = &os.PathError{Op: "chmod", Path: d.path, Err: chmod}
	} else {
		err = d.open()
	}
	switch {
	case errors.Is(err, fs.ErrNotExist): // taken for a dead one's, and removed: what is there by now is another's. Once more
		err = &os.PathError{Op: "open", Path: d.path, Err: unix.EEXIST}
	case err != nil: // undo knows those that are open, and Collect finds none but through the main one
		_ = unix.Rmdir(d.path)
	}
	return err
}

func (d *dir) open() error {
	fd, err := unix.Open(d.path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: d.path, Err: err}
	}
	d.f = os.NewFile(uintptr(fd), d.path)
	return nil
}

func (d *dir) mark(value string) error {
	var err error
	for _, name := range marks {
		if err = unix.Fsetxattr(int(d.f.Fd()), name, []byte(value), 0); err == nil {
			return nil
		}
	}
	return &os.PathError{Op: "setxattr", Path: d.path, Err: err}
}

// marked returns the mark, ErrNotExist if there is none that counts: user.jail, which an owner can set on any folder,
// counts for that owner alone.
func (d *dir) marked() (string, error) {
	value := make([]byte, 1<<16) // XATTR_SIZE_MAX
	for _, name := range marks {
		n, err := unix.Fgetxattr(int(d.f.Fd()), name, value)
		if err != nil {
			continue
		}
		if name == "user.jail" && !d.ours() {
			continue
		}
		return string(value[:n]), nil
	}
	if d.unmarked() {
		return "", nil
	}
	return "", &os.PathError{Op: "getxattr", Path: d.path, Err: fs.ErrNotExist}
}

func (d *dir) ours() bool {
	var st unix.Stat_t
	return unix.Fstat(int(d.f.Fd()), &st) == nil && int(st.Uid) == os.Geteuid()
}

// unmarked says whether the folder was made here by an owner that did not come to mark it.
func (d *dir) unmarked() bool {
	var st unix.Stat_t
	return unix.Fstat(int(d.f.Fd()), &st) == nil && int(st.Uid) == os.Geteuid() && st.Mode&unix.S_ISVTX != 0
}

func (d *dir) inode() (string, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(d.f.Fd()), &st); err != nil {
		return "", &os.PathError{Op: "stat", Path: d.path, Err: err}
	}
	return strconv.FormatUint(st.Ino, 10), nil
}

// current says whether the path still names the folder that is open.
func (d *dir) current() bool {
	held, err := d.f.Stat()
	there, err2 := os.Lstat(d.path)
	return err == nil && err2 == nil && os.SameFile(held, there)
}

// adopt takes the cgroup with this main folder over from an owner that is dead. ErrExists says that it is not jail's, or
// alive, ErrNotExist that it is gone.
func adopt(version int, path string) (*Cgroup, error) {
	c := &Cgroup{version: version, dirs: []dir{{path: path, controllers: []string{"freezer"}}}, counters: map[string]*os.File{}}
	main := &c.dirs[0]
	if err := main.open(); err != nil {
		return nil, err
	}
	others, err := main.marked()
	if err != nil {
		c.close()
		return nil, &os.PathError{Op: "take over", Path: path, Err: fmt.Errorf("%w: jail did not make it", ErrExists)}
	}
	err = unix.Flock(int(main.f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if err == nil && !main.current() {
		err = unix.ENOENT // removed, and maybe made anew, between the open and the lock
	}
	if err != nil {
		c.close()
		if err == unix.EWOULDBLOCK {
			err = fmt.Errorf("%w: its jail is alive", ErrExists)
		}
		return nil, &os.PathError{Op: "take over", Path: path, Err: err}
	}
	inode, err := main.inode()
	if err != nil {
		c.close()
		return nil, err
	}
	for path := range strings.FieldsFuncSeq(others, func(r rune) bool { return r == '\n' }) {
		d := dir{path: path}
		err := d.open()
		if errors.Is(err, fs.ErrNotExist) {
			if inHierarchy(path) {
				continue // never made, or removed already
			}
			err = fmt.Errorf("%s is in no hierarchy that is mounted here", path)
		}
		if err != nil {
			c.close()
			return nil, fmt.Errorf("take over %s: %w", main.path, err)
		}
		if of, err := d.marked(); err != nil || of != inode && of != "" {
			d.f.Close() // another jail's
			continue
		}
		c.dirs = append(c.dirs, d)
	}
	return c, nil
}

// inHierarchy says whether a path lies in a mounted v1 hierarchy, whether or not it is there. In a mount namespace that
// lacks one, what is in it can't be seen, and once the main folder is gone nobody finds it.
func inHierarchy(path string) bool {
	for {
		var at unix.Statfs_t
		err := unix.Statfs(path, &at)
		if err != unix.ENOENT {
			return err == nil && at.Type == unix.CGROUP_SUPER_MAGIC
		}
		path = filepath.Dir(path)
	}
}

// end kills and removes what was adopted.
func (c *Cgroup) end() error {
	defer c.close()
	err := c.Kill()
	if err == nil {
		err = c.Remove()
	}
	if errors.Is(err, fs.ErrNotExist) { // its owner, who had just made it, has removed it
		return nil
	}
	return err
}

// FD returns the folder of a controller, -1 if there is none; on v2 it is the one for CLONE_INTO_CGROUP. It belongs to
// the Cgroup.
func (c *Cgroup) FD(controller string) int {
	d, err := c.dirFor(controller)
	if err != nil {
		return -1
	}
	return int(d.f.Fd())
}

// Open opens a file of a controller for writing. It belongs to the caller: of cgroup v2 the kernel remembers from which
// cgroup namespace it was opened.
func (c *Cgroup) Open(controller, file string) (*os.File, error) {
	d, err := c.dirFor(controller)
	if err != nil {
		return nil, err
	}
	fd, err := openToWrite(int(d.f.Fd()), file)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), file), nil
}

// Path returns the main folder's path, for messages.
func (c *Cgroup) Path() string { return c.dirs[0].path }

// Set writes one limit. A file that the kernel or the hierarchy does not have is ENOENT.
func (c *Cgroup) Set(s Setting) error {
	d, err := c.dirFor(s.Controller)
	if err != nil {
		return err
	}
	if err := write(int(d.f.Fd()), s.File, s.Value); err != nil {
		return fmt.Errorf("%s to %s: %w", strconv.Quote(s.Value), filepath.Join(d.path, s.File), err)
	}
	return nil
}

// dirFor returns the folder of a controller, which is named as on v2, or by its v1 hierarchy.
func (c *Cgroup) dirFor(controller string) (*dir, error) {
	if c.version == 2 {
		return &c.dirs[0], nil
	}
	if controller == "io" {
		controller = "blkio"
	}
	for i := range c.dirs {
		if slices.Contains(c.dirs[i].controllers, controller) {
			return &c.dirs[i], nil
		}
	}
	return nil, fmt.Errorf("%s has no controller %s", c.Path(), controller)
}

// Attach moves the process, with all its threads, into the cgroup. After an error it may be in some hierarchies and not in
// others.
//
// The kernel takes some milliseconds for it when nothing was moved for a while.
func (c *Cgroup) Attach(pid int) error {
	for _, d := range c.dirs {
		if err := write(int(d.f.Fd()), "cgroup.procs", strconv.Itoa(pid)); err != nil {
			return fmt.Errorf("process %d to %s: %w", pid, d.path, err)
		}
	}
	return nil
}

// write writes value to the file, which is relative to the folder, with one write(2): cgroup files take nothing in parts.
func write(dirfd int, file, value string) error {
	fd, err := openToWrite(dirfd, file)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if _, err := retry(func() (int, error) { return unix.Write(fd, []byte(value)) }); err != nil {
		return &os.PathError{Op: "write", Path: file, Err: err}
	}
	return nil
}

func openToWrite(dirfd int, file string) (int, error) {
	fd, err := retry(func() (int, error) { return unix.Openat(dirfd, file, unix.O_WRONLY|unix.O_CLOEXEC, 0) })
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: file, Err: err}
	}
	return fd, nil
}

// retry repeats a call that a signal has interrupted.
func retry(call func() (int, error)) (int, error) {
	for {
		n, err := call()
		if err != unix.EINTR {
			return n, err
		}
	}
}

// removeTimeout bounds the wait for the kernel, which holds on to a cgroup for a while after its last process has died.
// One second was not enough for others in practice.
const removeTimeout = 5 * time.Second

// Remove removes the cgroup and what the payload has made in it, and lets go of the lock. It has to hold no process
// any more: EBUSY after five seconds says that it does. The Cgroup is of no use afterwards, but after an error Remove
// may be called again.
func (c *Cgroup) Remove() error {
	deadline := time.Now().Add(removeTimeout)
	for _, d := range slices.Backward(c.dirs) { // the main one, which lists the others, last
		if err := removeTree(d.path, deadline); err != nil {
			return err
		}
	}
	c.close()
	return nil
}

func removeTree(path string, deadline time.Time) error {
	for pause := 50 * time.Microsecond; ; pause = min(2*pause, 10*time.Millisecond) {
		err := unix.Rmdir(path)
		if err == nil || err == unix.ENOENT {
			return nil
		}
		if err != unix.EBUSY || time.Now().After(deadline) {
			return &os.PathError{Op: "rmdir", Path: path, Err: err}
		}
		children, err := folders(path)
		if err != nil {
			return err
		}
		for _, child := range children {
			if err := removeTree(child, deadline); err != nil {
				return err
			}
		}
		if len(children) == 0 {
			time.Sleep(pause)
		}
	}
}

// folders returns the folders in a cgroup's folder; none where it is gone, or closed to us (a jail's of another user).
func folders(path string) ([]string, error) {
	entries, err := os.ReadDir(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrPermission) {
		return nil, err
	}
	var found []string
	for _, e := range entries {
		if e.IsDir() {
			found = append(found, filepath.Join(path, e.Name()))
		}
	}
	return found, nil
}

// close lets go of the lock and all files.
func (c *Cgroup) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, f := range c.counters {
		f.Close()
	}
	clear(c.counters)
	for i := range c.dirs {
		if f := c.dirs[i].f; f != nil {
			f.Close()
		}
		c.dirs[i].f = nil
	}
	if c.keeper != nil {
		c.keeper.end()
		c.keeper = nil
	}
}
