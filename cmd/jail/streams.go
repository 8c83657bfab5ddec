package main

import (
	"errors"
	"io/fs"
	"os"
	"strconv"

	"github.com/jailrun/jail/ipc"
	"github.com/jailrun/jail/isolate"
)

// openStreams opens what --stdin, --stdout and --stderr name, with our own rights. It comes last: a file is not emptied
// for a run that can't be. What is found only when COMMAND is executed comes after it, as with a shell's >.
//
// Opening a FIFO waits for its other end, so signals have to be relayed already.
func (o *options) openStreams(cmd *isolate.Cmd) error {
	if o.stdin != "" {
		in, err := openStream("--stdin", o.stdin, os.O_RDONLY)
		if err != nil {
			return err
		}
		cmd.Stdin = in
	}
	var out *os.File
	if o.stdout != "" {
		var err error
		if out, err = openStream("--stdout", o.stdout, os.O_WRONLY|os.O_CREATE); err != nil {
			return err
		}
		cmd.Stdout = out
	}
	switch {
	case o.stderr == "":
	case out != nil && sameFile(out, o.stderr): // one open file: what is written to both stays in order
		cmd.Stderr = out
	default:
		errs, err := openStream("--stderr", o.stderr, os.O_WRONLY|os.O_CREATE)
		if err != nil {
			return err
		}
		cmd.Stderr = errs
	}
	return o.emptyStreams(cmd)
}

// openStream opens one file. A link is refused: a payload of an earlier run may have made it.
func openStream(name, path string, mode int) (*os.File, error) {
	f, err := os.OpenFile(path, mode|noFollow, 0o666)
	if err == nil && mode == os.O_RDONLY {
		if info, e := f.Stat(); e == nil && info.IsDir() {
			f.Close()
			err = errors.New("it is a folder")
		}
	}
	if err == nil {
		return f, nil
	}
	if info, e := os.Lstat(path); e == nil && info.Mode()&fs.ModeSymlink != 0 {
		err = errors.New("it is a symbolic link")
	}
	var cause *fs.PathError
	if errors.As(err, &cause) {
		err = cause.Err // the path is in the message already
	}
	return nil, aboutFlag(&flag{name: name}, path, problem("can't be opened: "+err.Error()))
}

func sameFile(f *os.File, path string) bool {
	a, err := f.Stat()
	if err != nil {
		return false
	}
	b, err := os.Stat(path)
	return err == nil && os.SameFile(a, b)
}

// emptyStreams empties the files for output. Where one has something to lose, the jail is tried first.
func (o *options) emptyStreams(cmd *isolate.Cmd) error {
	tried := false
	for _, s := range []struct {
		name, path string
		to         any
	}{{"--stdout", o.stdout, cmd.Stdout}, {"--stderr", o.stderr, cmd.Stderr}} {
		if s.path == "" {
			continue
		}
		f := s.to.(*os.File)
		info, err := f.Stat()
		if err == nil && info.Mode().IsRegular() && info.Size() > 0 {
			if !tried {
				if _, err := isolate.Explain(cmd.Spec()); err != nil {
					return err
				}
				tried = true
			}
			err = f.Truncate(0)
		}
		if err != nil {
			return aboutFlag(&flag{name: s.name}, s.path, problem("can't be emptied: "+err.Error()))
		}
	}
	return nil
}

// streams says where the standard streams lead, and that of the policy, for jail explain.
func (o *options) streams() []string {
	var lines []string
	for _, s := range []struct{ what, path string }{{"input", o.stdin}, {"output", o.stdout}, {"errors", o.stderr}} {
		if s.path != "" {
			lines = append(lines, "standard "+s.what+": "+quote(s.path))
		}
	}
	if o.ipcFD != 0 {
		lines = append(lines, "fd "+strconv.Itoa(o.ipcFD)+": the broker ("+ipc.FDEnv+")")
	}
	if o.policyFD != 0 {
		lines = append(lines, "fd "+strconv.Itoa(o.policyFD)+": its own policy, sealed (JAIL_POLICY)")
	}
	return lines
}

// connectIPC chooses the payload's fd for the broker.
func (o *options) connectIPC() (err error) {
	if len(o.ipc) == 0 {
		return nil
	}
	if o.ipcRules, err = isolate.IPCRules(o.ipc); err != nil {
		return err
	}
	o.ipcFD, err = o.freeFD(ipc.FDEnv)
	o.env = append(o.env, ipc.FDEnv+"="+strconv.Itoa(o.ipcFD))
	return err
}
