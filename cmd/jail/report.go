package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/jailrun/jail/isolate"
)

// report is where the Result goes. Standard output is the payload's, so "-" is standard error.
type report struct {
	json    bool
	verbose bool

	path string
	file *os.File // open already: a standard stream, a passed fd, a device, a pipe
	dir  *os.Root // else the folder of a file that is made at the end
	name string   // its name in dir
}

// openReport finds out that the Result can be written, before anything runs. A file is not made yet, for the payload
// may see its folder; and it is written through an fd of that folder, for the payload may move it.
func openReport(o *options) (*report, error) {
	r := &report{json: o.json, verbose: o.verbose, path: o.result}
	switch {
	case r.path == "" && !o.json:
		return r, nil
	case r.path == "" || r.path == "-" || r.path == "/dev/stderr":
		r.file = os.Stderr
		return r, nil
	case r.path == "/dev/stdout":
		r.file = os.Stdout
		return r, nil
	}
	for _, dir := range []string{"/dev/fd/", "/proc/self/fd/"} {
		if number, ok := strings.CutPrefix(r.path, dir); ok {
			return r, r.openFD(number)
		}
	}
	if err := r.openFolder(); err != nil {
		return nil, r.problem(err)
	}
	return r, nil
}

// openFD takes an fd that was passed to us. It is not opened anew: sockets can't be.
func (r *report) openFD(number string) error {
	fd, _, err := isolate.ParseFD(number)
	if err == nil {
		err = inherited(fd, writing)
	}
	if err != nil {
		return aboutFlag(&flag{name: "--result"}, r.path, err)
	}
	r.file = os.NewFile(uintptr(fd), r.path)
	return nil
}

// openFolder opens the folder of a file that is to be made, or the device or pipe that is there. A link is refused: a
// payload of an earlier run may have made it.
func (r *report) openFolder() (err error) {
	r.name = filepath.Base(r.path)
	if strings.HasSuffix(r.path, "/") || r.name == "." || r.name == ".." {
		return errors.New("it is a folder")
	}
	if r.dir, err = os.OpenRoot(filepath.Dir(r.path)); err != nil {
		return err
	}
	info, err := r.dir.Lstat(r.name)
	switch {
	case err == nil && info.Mode()&fs.ModeSymlink != 0:
		return errors.New("it is a symbolic link")
	case err == nil && info.IsDir():
		return errors.New("it is a folder")
	case err == nil && !info.Mode().IsRegular():
		r.file, err = r.dir.OpenFile(r.name, os.O_WRONLY, 0)
		return err
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return err
	}
	probe, name, err := r.temporary()
	if err != nil {
		return err
	}
	probe.Close()
	return r.dir.Remove(name)
}

// temporary makes a file beside the one that is to be written.
func (r *report) temporary() (*os.File, string, error) {
	name := ".jail-result-" + strconv.Itoa(os.Getpid())
	f, err := r.dir.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	return f, name, err
}

// problem makes an error about --result.
func (r *report) problem(err error) error {
	var path *fs.PathError
	var link *os.LinkError
	switch { // the flag's value is in the message already
	case errors.As(err, &path):
		err = path.Err
	case errors.As(err, &link):
		err = link.Err
	}
	return aboutFlag(&flag{name: "--result"}, r.path, problem("can't be written: "+err.Error()))
}

// write says what happened: to who asked for it, and to the person at the terminal if it was jail that ended the run
// or made less of it.
func (r *report) write(result *isolate.Result) error {
	switch result.Reason {
	case isolate.ExecFailed, isolate.SetupFailed: // the error has been printed
	case isolate.Exited, isolate.Signalled:
		if r.verbose || result.GivenLevel != result.Level || len(result.LostGuarantees) > 0 || len(result.Appeared) > 0 || len(result.Denied) > 0 || slices.Contains(result.LimitsHit, "output") {
			r.tell(result)
		}
	case isolate.SupervisorLost:
		if result.Error == "" {
			r.tell(result)
		}
	default:
		r.tell(result)
	}
	if r.file == nil && r.dir == nil {
		return nil
	}
	text, err := r.format(result)
	if err == nil {
		err = r.save(text)
	}
	if err != nil {
		return r.problem(err)
	}
	return nil
}

func (r *report) tell(result *isolate.Result) {
	for _, line := range summary(result, r.verbose) {
		complain(line)
	}
}

func (r *report) format(result *isolate.Result) ([]byte, error) {
	if !r.json {
		var b strings.Builder
		for _, line := range summary(result, true) {
			fmt.Fprintln(&b, printable(line))
		}
		return []byte(b.String()), nil
	}
	text, err := json.Marshal(result)
	return append(text, '\n'), err
}

// save writes all at once: who reads the file finds the whole Result or none.
func (r *report) save(text []byte) error {
	if r.file != nil {
		_, err := r.file.Write(text)
		return err
	}
	f, name, err := r.temporary()
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if e := f.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = r.dir.Rename(name, r.name)
	}
	if err != nil {
		_ = r.dir.Remove(name)
	}
	return err
}
