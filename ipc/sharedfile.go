package ipc

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"syscall"
)

// FileFormat is how a value is written to a file.
type FileFormat uint8

const (
	// JSON is what encoding/json makes of the value. To read a field that the type lacks is an error: it would be lost
	// at the next writing.
	JSON FileFormat = iota + 1
	// Fixed is the fields one after the other, little-endian, without padding. The type is made of exported fields and
	// arrays of bool and of numbers with a size in their name.
	Fixed
)

// maxSharedFile is what a file may have in bytes: who can write it must not be able to fill our memory.
const maxSharedFile = 64 << 20

// ReadOnlyFile is a value in a file that others replace ([SharedFile]). It is safe for concurrent use.
type ReadOnlyFile[T any] struct {
	folder, name string
	format       FileFormat
}

// SharedFile is a value in a file that processes change one after the other. It is safe for concurrent use.
//
// A change takes a lock, writes a new file, and renames it to the old one's name; before and after that, files and
// folder are synced. So who reads gets the old value or the new one, and so does who looks after a crash, of the
// process or of the machine. The owner of the file is who wrote last; its permissions stay. A symbolic link is refused.
//
// The lock is flock(2) on the file NAME.lock beside it, which stays: the file itself is another one after each change.
// A writer that was killed may leave the file .NAME.new, which the next one removes.
type SharedFile[T any] struct {
	ReadOnlyFile[T]
}

// OpenReadOnlyFile prepares to read the file, which need not exist yet. It is an error if T has no such format.
func OpenReadOnlyFile[T any](path string, format FileFormat) (*ReadOnlyFile[T], error) {
	if err := checkFormat[T](format); err != nil {
		return nil, wrap("open", strconv.Quote(path), err)
	}
	path, err := filepath.Abs(path) // what follows does not depend on a later chdir
	if err != nil {
		return nil, wrap("open", strconv.Quote(path), err)
	}
	return &ReadOnlyFile[T]{folder: filepath.Dir(path), name: filepath.Base(path), format: format}, nil
}

// OpenSharedFile prepares to read and change the file, which need not exist yet. It is an error if T has no such format.
func OpenSharedFile[T any](path string, format FileFormat) (*SharedFile[T], error) {
	f, err := OpenReadOnlyFile[T](path, format)
	if err != nil {
		return nil, err
	}
	return &SharedFile[T]{*f}, nil
}

// Read returns the value that was written last, without a lock. The error wraps [fs.ErrNotExist] if there is no file,
// [ErrLimit] if it is larger than 64 MiB, or says what of its content is not a T.
func (f *ReadOnlyFile[T]) Read() (T, error) {
	var none T
	root, err := os.OpenRoot(f.folder)
	if err != nil {
		return none, f.wrap("read", err)
	}
	defer root.Close()
	value, _, err := f.read(root)
	if err != nil {
		return none, f.wrap("read", err)
	}
	return value, nil
}

// WithLock is WithLockContext without an end.
func (f *SharedFile[T]) WithLock(change func(*T) error) error {
	return f.WithLockContext(context.Background(), change)
}

// WithLockContext waits until no other change is under way, and lets change have the value: the zero value if there is no
// file. If change returns nil the value is written, and is on the disk when WithLockContext returns nil. If it returns
// an error, that is returned and nothing is written. Of other errors only one of the last step, that of syncing the folder
// ("sync"), leaves the new value. The change must not use the same file: it would wait for itself.
func (f *SharedFile[T]) WithLockContext(ctx context.Context, change func(*T) error) error {
	root, err := os.OpenRoot(f.folder)
	if err != nil {
		return f.wrap("lock", err)
	}
	defer root.Close()
	lock, err := f.lock(ctx, root)
	if err != nil {
		return f.wrap("lock", err)
	}
	defer lock.Close()

	// Nobody but the holder of the lock uses this name: what is there, a killed writer has left.
	if err := root.Remove(f.newName()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return f.wrap("write", err)
	}
	value, permissions, err := f.read(root)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return f.wrap("read", err)
	}
	if err := change(&value); err != nil {
		return err
	}
	data, err := f.encode(value)
	if err != nil {
		return f.wrap("write", err)
	}
	if err := f.replace(root, data, permissions); err != nil {
		return f.wrap("write", err)
	}
	return f.wrap("sync", syncFolder(root))
}

func (f *SharedFile[T]) newName() string { return "." + f.name + ".new" }

func (f *SharedFile[T]) lock(ctx context.Context, root *os.Root) (*FileLock, error) {
	name := f.name + ".lock"
	for {
		file, err := root.OpenFile(name, os.O_RDWR|os.O_CREATE|syscall.O_NONBLOCK, 0o600)
		if err != nil {
			return nil, err
		}
		lock := NewFileLock(file, Flock)
		if err := lock.Lock(ctx, Exclusive); err != nil {
			lock.Close()
			return nil, err
		}
		// Somebody who cleans up may have removed it before we had the lock: others take theirs on a new one.
		held, err := file.Stat()
		if err == nil {
			var there fs.FileInfo
			if there, err = root.Stat(name); err == nil && os.SameFile(held, there) {
				return lock, nil
			}
		}
		lock.Close()
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
}

func (f *ReadOnlyFile[T]) read(root *os.Root) (value T, permissions fs.FileMode, err error) {
	permissions = 0o600
	there, err := root.Lstat(f.name)
	if err != nil {
		return value, permissions, err
	}
	file, err := root.OpenFile(f.name, os.O_RDONLY|syscall.O_NONBLOCK, 0) // the open of a FIFO would wait for its other side
	if err != nil {
		return value, permissions, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return value, permissions, err
	}
	if !info.Mode().IsRegular() || there.Mode()&fs.ModeSymlink != 0 {
		return value, permissions, errors.New("not a regular file")
	}
	if info.Size() > maxSharedFile {
		return value, permissions, fmt.Errorf("%d bytes: %w", info.Size(), ErrLimit)
	}
	data, err := io.ReadAll(io.LimitReader(file, info.Size())) // it does not grow: it is replaced
	if err != nil {
		return value, permissions, err
	}
	value, err = f.decode(data)
	return value, info.Mode().Perm(), err
}

func (f *SharedFile[T]) replace(root *os.Root, data []byte, permissions fs.FileMode) (err error) {
	file, err := root.OpenFile(f.newName(), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, root.Remove(f.newName()))
		}
	}()
	_, err = file.Write(data)
	if err = errors.Join(err, file.Chmod(permissions), file.Sync(), file.Close()); err != nil {
		return err
	}
	return root.Rename(f.newName(), f.name)
}

func syncFolder(root *os.Root) error {
	folder, err := root.Open(".")
	if err != nil {
		return err
	}
	defer folder.Close()
	return folder.Sync()
}

func (f *ReadOnlyFile[T]) wrap(op string, err error) error {
	return wrap(op, strconv.Quote(filepath.Join(f.folder, f.name)), err)
}

func (f *ReadOnlyFile[T]) encode(value T) ([]byte, error) {
	var data []byte
	var err error
	if f.format == Fixed {
		data, err = binary.Append(nil, binary.LittleEndian, value)
	} else {
		data, err = json.MarshalIndent(value, "", "\t")
		data = append(data, '\n')
	}
	if err == nil && len(data) > maxSharedFile {
		err = fmt.Errorf("%d bytes: %w", len(data), ErrLimit)
	}
	return data, err
}

func (f *ReadOnlyFile[T]) decode(data []byte) (value T, err error) {
	if f.format == Fixed {
		if want := binary.Size(value); len(data) != want {
			return value, fmt.Errorf("%d bytes, where %T has %d", len(data), value, want)
		}
		_, err = binary.Decode(data, binary.LittleEndian, &value)
		return value, err
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&value); err != nil {
		return value, err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return value, fmt.Errorf("something follows the value, at byte %d", d.InputOffset())
	}
	return value, nil
}

func checkFormat[T any](format FileFormat) error {
	switch format {
	case JSON:
		return nil
	case Fixed:
		t := reflect.TypeFor[T]()
		return checkFixed(t, t.String())
	}
	return fmt.Errorf("FileFormat(%d) is none", format)
}

func checkFixed(t reflect.Type, path string) error {
	switch t.Kind() {
	case reflect.Bool, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64,
		reflect.Float32, reflect.Float64, reflect.Complex64, reflect.Complex128:
		return nil
	case reflect.Array:
		return checkFixed(t.Elem(), path+"[]")
	case reflect.Struct:
		for field := range t.Fields() {
			if !field.IsExported() && field.Name != "_" {
				return fmt.Errorf("%s.%s is not exported", path, field.Name)
			}
			if err := checkFixed(field.Type, path+"."+field.Name); err != nil {
				return err
			}
		}
		return nil
	default:
		return fmt.Errorf("%s is a %s, which has no fixed size", path, t.Kind())
	}
}
