//go:build linux

package integration

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"testing"
	"time"
)

// limitLines are the names of /proc/self/limits, by the names of --rlimit.
var limitLines = map[string]string{
	"as": "Max address space", "core": "Max core file size", "cpu": "Max cpu time", "data": "Max data size", "fsize": "Max file size",
	"locks": "Max file locks", "memlock": "Max locked memory", "msgqueue": "Max msgqueue size", "nice": "Max nice priority", "nofile": "Max open files",
	"nproc": "Max processes", "rss": "Max resident set", "rtprio": "Max realtime priority", "rttime": "Max realtime timeout",
	"sigpending": "Max pending signals", "stack": "Max stack size",
}

func parseLimits(text string) map[string][2]string {
	m := map[string][2]string{}
	for name, line := range limitLines {
		for _, l := range strings.Split(text, "\n") {
			if rest, ok := strings.CutPrefix(l, line); ok {
				f := strings.Fields(rest)
				m[name] = [2]string{f[0], f[1]}
			}
		}
	}
	return m
}

// P57, P60: without a word the limits are the caller's, RLIMIT_NOFILE too, and no core is dumped.
func TestP57_P60_DefaultLimits(t *testing.T) {
	each(t, allLevels, func(t *testing.T, a arm) {
		b := newBox(t, a)
		prlimit := []string{need(t, "prlimit"), "--nofile=100:1000", "--core=4096:4096", "--stack=4194304:8388608"}
		o := b.finish(b.as(append(prlimit, b.command(nil, "cat", "/proc/self/limits").Args...)...))
		bare := b.finish(b.as(append(prlimit, "cat", "/proc/self/limits")...))
		got, want := parseLimits(o.stdout), parseLimits(bare.stdout)
		if len(want) != len(limitLines) || want["nofile"] != [2]string{"100", "1000"} {
			t.Fatalf("bare: %+v", bare)
		}
		want["core"] = [2]string{"0", "0"}
		for name := range limitLines {
			if got[name] != want[name] {
				t.Errorf("%s is %v, want %v", name, got[name], want[name])
			}
		}
	})
}

// Every limit by its name, soft and hard.
func TestP60_EveryLimit(t *testing.T) {
	each(t, allLevels, func(t *testing.T, a arm) {
		b := newBox(t, a)
		bare := parseLimits(b.bare("cat", "/proc/self/limits").stdout)
		for name := range limitLines {
			hard, soft := "6000", "4000" // 2 GiB of memory give 7800 processes
			switch {
			case name == "as" || name == "data" || name == "stack":
				hard, soft = "2147483648", "1073741824"
			case bare[name][1] == "0": // nice and rtprio: nothing to give
				hard, soft = "0", "0"
			}
			got := parseLimits(b.ok([]string{"--rlimit", name + "=" + soft + ":" + hard}, "cat", "/proc/self/limits"))
			if got[name] != [2]string{soft, hard} {
				t.Errorf("%s is %v, want %s:%s", name, got[name], soft, hard)
			}
			if bare[name][1] == "unlimited" {
				continue
			}
			n, err := strconv.ParseUint(bare[name][1], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			above := b.run([]string{"--rlimit", fmt.Sprintf("%s=%d", name, n+1)}, "echo", "started")
			if canRaise := above.code == 0; canRaise {
				if !a.root {
					t.Errorf("%s was raised: %+v", name, above)
				}
			} else if above.code != 125 || above.stdout != "" || !strings.Contains(above.stderr, name) || !strings.Contains(above.stderr, "hard limit") {
				t.Errorf("%s above the hard limit: %+v", name, above)
			}
		}
	})
}

// umask and oom_score_adj are the caller's.
func TestInherited(t *testing.T) {
	each(t, allLevels, func(t *testing.T, a arm) {
		b := newBox(t, a)
		for _, mask := range []string{"0022", "0077", "0000", "0137"} {
			o := b.finish(b.as(append([]string{"sh", "-c", "umask " + mask + "; echo 321 > /proc/self/oom_score_adj; exec \"$@\"", "sh"},
				b.command(nil, "sh", "-c", "umask; cat /proc/self/oom_score_adj; nice").Args...)...))
			if o.stdout != mask+"\n321\n0\n" {
				t.Errorf("umask %s: %+v", mask, o)
			}
		}
	})
}

// P58: --timeout ends the run with 124; --kill-after lets it end by itself first.
func TestP58_Timeout(t *testing.T) {
	each(t, allLevels, func(t *testing.T, a arm) {
		b := newBox(t, a)
		for _, c := range []struct {
			killAfter string
			script    string
			min       time.Duration
			out       string
		}{
			{"", "sleep 300", 200 * time.Millisecond, ""},
			{"", "trap '' TERM; while :; do :; done", 200 * time.Millisecond, ""},
			{"", "kill -STOP $$", 200 * time.Millisecond, ""},
			{"5m", "trap 'echo bye; exit 3' TERM; echo set; sleep 300 & wait", 200 * time.Millisecond, "set\nbye\n"},
			{"5m", "kill -STOP $$", 200 * time.Millisecond, ""},
			{"300ms", "trap '' TERM; echo set; sleep 300", 500 * time.Millisecond, "set\n"},
		} {
			// On a machine with much else to do the time may be over before the shell has set its trap.
			for _, timeout := range []time.Duration{200 * time.Millisecond, 2 * time.Second, 20 * time.Second} {
				flags := []string{"--timeout", timeout.String()}
				if c.killAfter != "" {
					flags = append(flags, "--kill-after", c.killAfter)
				}
				start := time.Now()
				o := b.run(flags, "sh", "-c", c.script)
				if c.out != "" && o.stdout == "" {
					continue
				}
				if took := time.Since(start); o.code != 124 || o.stdout != c.out || took < c.min || took > timeout+patience {
					t.Errorf("%v %q: %+v after %s", flags, c.script, o, took)
				}
				break
			}
		}
		if o := b.run([]string{"--timeout", "2m"}, "sh", "-c", "exit 5"); o.code != 5 {
			t.Errorf("in time: %+v", o)
		}
	})
}

// P59: a flood of output does not grow the launcher, whoever reads it or does not.
func TestP59_OutputFlood(t *testing.T) {
	each(t, []string{"basic", "namespaced"}, func(t *testing.T, a arm) {
		b := newBox(t, a)
		const size = 1 << 28
		cmd := b.command([]string{"--verbose"}, "sh", "-c", "head -c "+strconv.Itoa(size)+" /dev/zero; read line")
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		cmd.Stderr = io.Discard
		b.running(cmd)
		n, err := io.CopyN(io.Discard, out, size)
		if err != nil {
			t.Errorf("%d bytes came, %v", n, err)
		}
		// Not the rusage: before its exec the launcher was a fork of this process, and as large.
		peak := strings.Fields(statusOf(cmd.Process.Pid)["VmHWM"])
		if len(peak) != 2 {
			t.Fatalf("VmHWM is %q", peak)
		}
		if kib, err := strconv.Atoi(peak[0]); err != nil || kib > 32<<10 {
			t.Errorf("the launcher grew to %d KiB, %v", kib, err)
		}
		in.Close()
		if rest, err := io.Copy(io.Discard, out); rest != 0 || err != nil {
			t.Errorf("%d bytes too many came, %v", rest, err)
		}
	})
}
