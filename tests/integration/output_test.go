//go:build linux

package integration

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// outputBytes is what the Result in a file says was written.
func (b *box) outputBytes(name string) int64 {
	b.t.Helper()
	text, err := os.ReadFile(filepath.Join(b.dir, name))
	if err != nil {
		b.t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), `"output_bytes":`)
	n, err := strconv.ParseInt(rest[:strings.IndexAny(rest+",", ",}")], 10, 64)
	if err != nil {
		b.t.Fatalf("%v in %s", err, text)
	}
	return n
}

// An endless writer is held to the byte, whatever is done at the limit.
func TestOutputLimit(t *testing.T) {
	each(t, allLevels, func(t *testing.T, a arm) {
		for _, limit := range []int{1, 4095, 4096, 65536, 1 << 20} {
			for action, want := range map[string]int{"kill": 137, "truncate": 0, "block": 124} {
				t.Run(fmt.Sprintf("%d:%s", limit, action), func(t *testing.T) {
					t.Parallel()
					b := newBox(t, a)
					flags := []string{"--output-limit", fmt.Sprintf("%d:%s", limit, action), "--result", "r.json", "--json"}
					// The launcher's own line must not be among the payload's errors.
					flags = append(flags, "--stdout", "out", "--stderr", "err")
					script := "yes & exec yes >&2"
					if action == "truncate" {
						script = "head -c 1500000 /dev/zero; head -c 500000 /dev/zero >&2"
					}
					var o outcome
					var n int64
					if action == "block" {
						for _, timeout := range timeLimits {
							o = b.run(append(flags, "--timeout", timeout), "sh", "-c", script)
							if n = b.outputBytes("r.json"); n > int64(limit) {
								break
							}
						}
					} else {
						o = b.run(flags, "sh", "-c", script)
						n = b.outputBytes("r.json")
					}
					passed := 0
					for _, name := range []string{"out", "err"} {
						info, err := os.Stat(filepath.Join(b.dir, name))
						if err != nil {
							t.Fatal(err)
						}
						passed += int(info.Size())
					}
					if o.code != want || passed != limit || n <= int64(limit) || action == "truncate" && n != 2000000 {
						t.Errorf("%+v, %d bytes came, counted %d", o, passed, n)
					}
				})
			}
		}
	})
}

// Two hundred short writers on both streams lose nothing, and share one budget.
func TestOutputOfMany(t *testing.T) {
	each(t, allLevels, func(t *testing.T, a arm) {
		b := newBox(t, a)
		script := "i=0; while [ $i -lt 100 ]; do sh -c 'echo 456789 >&2' & sh -c 'echo 3456789' & i=$((i+1)); done; wait"
		o := b.run([]string{"--output-limit", "1M", "--result", "r.json", "--json"}, "sh", "-c", script)
		if n := b.outputBytes("r.json"); o.code != 0 || len(o.stdout) != 800 || len(o.stderr) != 700 || n != 1500 {
			t.Errorf("%d and %d bytes came, counted %d: %+v", len(o.stdout), len(o.stderr), n, o)
		}
	})
}

// A launcher that is killed while output flows takes the jail with it, and who reads sees the end.
func TestOutputLauncherKilled(t *testing.T) {
	each(t, allLevels, func(t *testing.T, a arm) {
		b := newBox(t, a)
		cmd := b.command([]string{"--output-limit", "1G"}, "yes")
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		b.running(cmd)
		if _, err := io.CopyN(io.Discard, out, 1<<20); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Process.Signal(syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, out); err != nil {
			t.Error(err)
		}
		b.swept()
	})
}
