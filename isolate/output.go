package isolate

import (
	"errors"
	"io"
	"os"
	"sync"
	"syscall"
	"time"
)

// meter counts what the payload writes to stdout and stderr together, where Spec.OutputLimit is set.
type meter struct {
	limit  int64
	action OutputAction
	pipes  []*os.File // what the payload's outputs are read from

	mu    sync.Mutex
	bytes int64 // read so far, whether passed on or dropped
}

// room is how much of a buffer may be read at once. One byte more than may be passed on is enough to know that the
// payload has tried to write more, and leaves the rest in the pipe.
func (m *meter) room(size int) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	if left := m.limit - m.bytes; left >= 0 && left < int64(size) {
		return int(left) + 1
	}
	return size
}

// count takes n bytes into account and says how many of them may be passed on, and whether they were the first above
// the limit.
func (m *meter) count(n int) (pass int, first bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	left := m.limit - m.bytes
	m.bytes += int64(n)
	return int(min(max(left, 0), int64(n))), left >= 0 && int64(n) > left
}

// jailEnded ends the reading: what is in the pipes now is all that the jail has written. An end of file would do, but a
// payload may have handed its output to somebody outside.
func (m *meter) jailEnded() {
	for _, p := range m.pipes {
		_ = p.SetReadDeadline(time.Now())
	}
}

// conclude completes the Result.
func (m *meter) conclude(r *Result) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r.OutputBytes, r.outputLimit = m.bytes, m.limit
	if m.bytes <= m.limit {
		return
	}
	r.LimitsHit = append(r.LimitsHit, "output")
	// A payload that ended before its last bytes were read has exceeded the limit as well.
	if m.action == OutputKill && (r.Reason == Exited || r.Reason == Signalled) {
		r.Reason = OutputExceeded
	}
}

// meteredFile is the payload's end of a pipe that is read within the limit and copied to a writer.
func (c *Cmd) meteredFile(to io.Writer) (*os.File, error) {
	var own *os.File
	if f, ok := to.(*os.File); ok {
		// The caller may close its file after Start, as where the payload has it.
		var err error
		if own, err = duplicate(f); err != nil {
			return nil, err
		}
		c.parentFiles = append(c.parentFiles, own)
		to = own
	} else if to == nil {
		to = io.Discard
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	c.childFiles = append(c.childFiles, w)
	c.parentFiles = append(c.parentFiles, r)
	c.meter.pipes = append(c.meter.pipes, r)
	c.copying = append(c.copying, func() error {
		err := c.copyMetered(to, r)
		c.meter.count(unread(r)) // where writing failed
		r.Close()                // a writer that failed must not block the payload: it gets EPIPE
		own.Close()              // who reads our pipe sees its end; nil is an error that nobody needs
		if own != nil && isBrokenPipe(err) {
			err = nil // without us the payload alone would have seen it
		}
		return err
	})
	return w, nil
}

// lateRead is how long a read may take once the jail has ended and its last bytes are in the pipe. It takes no time,
// unless somebody outside reads them first.
const lateRead = time.Second

// copyMetered copies from a pipe until the limit, and then does what the Spec says.
func (c *Cmd) copyMetered(to io.Writer, from *os.File) error {
	buf := make([]byte, 64<<10)
	left := -1 // bytes in the pipe once the jail has ended
	for left != 0 {
		room := c.meter.room(len(buf))
		if left > 0 {
			room = min(room, left)
			_ = from.SetReadDeadline(time.Now().Add(lateRead))
		}
		n, err := from.Read(buf[:room])
		pass, first := c.meter.count(n)
		// Before the write, which waits for who reads.
		if first && c.meter.action == OutputKill && c.Process.setReason(OutputExceeded) {
			_ = c.Process.Kill()
		}
		if err := writeAll(to, buf[:pass]); err != nil {
			return err
		}
		if pass < n {
			if f, ok := to.(*os.File); ok {
				f.Close() // nothing more will come: who reads to the end need not wait for the jail's
			}
			if c.meter.action == OutputBlock {
				<-c.Process.done
			}
		}
		if left > 0 {
			left -= n
		}
		switch {
		case left < 0 && errors.Is(err, os.ErrDeadlineExceeded):
			left = unread(from)
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
	}
	return nil
}

// writeAll writes to a file even where somebody has made it non-blocking since it was opened, so that the runtime does
// not wait for it: the flag belongs to all who have the open file.
func writeAll(to io.Writer, b []byte) error {
	for len(b) > 0 {
		n, err := to.Write(b)
		switch {
		case errors.Is(err, syscall.EAGAIN):
			time.Sleep(time.Millisecond)
		case err != nil:
			return err
		case n < len(b):
			return io.ErrShortWrite
		}
		b = b[n:]
	}
	return nil
}

// oneOutput says whether stdout and stderr go to the same place. They share one file then, so that what the payload
// writes stays in order. Where both are copied by us, that holds for two descriptors of one terminal, pipe or file too.
func (c *Cmd) oneOutput() bool {
	if c.Stderr == nil || c.Stdout == nil {
		return false
	}
	if same(c.Stdout, c.Stderr) {
		return true
	}
	out, ok1 := c.Stdout.(*os.File)
	errs, ok2 := c.Stderr.(*os.File)
	if c.meter == nil || !ok1 || !ok2 {
		return false
	}
	a, err1 := out.Stat()
	b, err2 := errs.Stat()
	return err1 == nil && err2 == nil && os.SameFile(a, b)
}
