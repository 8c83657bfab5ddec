//go:build linux

package integration

import (
	"bufio"
	"encoding/json"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// result is what --json says.
type result struct {
	Level      string   `json:"level"`
	GivenLevel string   `json:"given_level"`
	Lost       []string `json:"lost_guarantees"`
	Reason     string   `json:"reason"`
	ExitCode   int      `json:"exit_code"`
	Signal     string   `json:"signal"`
	LimitsHit  []string `json:"limits_hit"`
	UID        int      `json:"uid"`
	GID        int      `json:"gid"`
	Identity   string   `json:"identity"`
	Error      string   `json:"error"`
	WallMS     float64  `json:"wall_ms"`
	UserMS     float64  `json:"reaped_user_ms"`
	User       float64  `json:"user_ms"`
	System     float64  `json:"system_ms"`
	PeakMemory int64    `json:"peak_memory_bytes"`
	OOMKills   int64    `json:"oom_kills"`
	RSS        int64    `json:"reaped_max_rss_bytes"`
	ExecMS     float64  `json:"exec_ms"`
}

// result runs argv and reads its Result.
func (b *box) result(flags []string, argv ...string) (result, outcome) {
	b.t.Helper()
	path := filepath.Join(b.tmp, "result")
	defer os.Remove(path)
	o := b.run(append([]string{"--json", "--result", path}, flags...), argv...)
	text, err := os.ReadFile(path)
	if err != nil {
		b.t.Fatalf("%v: %+v", err, o)
	}
	var r result
	if err := json.Unmarshal(text, &r); err != nil {
		b.t.Fatalf("%v: %s", err, text)
	}
	return r, o
}

// P74: exit codes, signals, and what jail itself says are told apart, always.
func TestP74_HonestEnd(t *testing.T) {
	each(t, allLevels, func(t *testing.T, a arm) {
		b := newBox(t, a)
		// Codes that shells and we use for something else: of the payload they are its own.
		for _, code := range []int{0, 1, 2, 42, 100, 124, 125, 126, 127, 128, 130, 137, 143, 192, 255} {
			r, o := b.result(nil, "sh", "-c", "exit "+strconv.Itoa(code))
			if o.code != code || r.Reason != "exited" || r.ExitCode != code || r.Signal != "" || r.Error != "" {
				t.Errorf("exit %d: %+v, %+v", code, r, o)
			}
			if r.Level != a.level || r.GivenLevel != a.level || len(r.Lost) != 0 || len(r.LimitsHit) != 0 {
				t.Errorf("exit %d: %+v", code, r)
			}
		}
		for sig, name := range map[int]string{1: "SIGHUP", 2: "SIGINT", 6: "SIGABRT", 9: "SIGKILL", 11: "SIGSEGV", 15: "SIGTERM", 37: "SIGRTMIN+3", 64: "SIGRTMAX"} {
			r, o := b.result(nil, tool("procs"), "raise", strconv.Itoa(sig))
			if name == "SIGRTMAX" && strings.HasPrefix(r.Signal, "SIGRTMIN+") {
				name = r.Signal
			}
			if o.code != 128+sig || r.Reason != "signalled" || r.Signal != name || r.ExitCode != -1 {
				t.Errorf("signal %d: %+v, %+v", sig, r, o)
			}
		}
		for _, c := range []struct {
			flags  []string
			argv   []string
			code   int
			reason string
		}{
			{nil, []string{"no-such-command"}, 127, "exec-failed"},
			{nil, []string{"/no/such/file"}, 127, "exec-failed"},
			{nil, []string{"/usr"}, 126, "exec-failed"},
			{nil, []string{"/etc/passwd"}, 126, "exec-failed"},
			{[]string{"--timeout", "100ms"}, []string{"sleep", "60"}, 124, "timeout"},
		} {
			r, o := b.result(c.flags, c.argv...)
			if o.code != c.code || r.Reason != c.reason {
				t.Errorf("%v: %+v, %+v", c.argv, r, o)
			}
			if c.reason == "exec-failed" && (r.Error == "" || r.ExitCode != -1) {
				t.Errorf("%v: %+v", c.argv, r)
			}
			if c.reason == "timeout" && (len(r.LimitsHit) != 1 || r.LimitsHit[0] != "timeout") {
				t.Errorf("%v: %+v", c.argv, r)
			}
		}
		limit := "1" // the hard limit's SIGKILL
		if a.root {
			limit = "1:60" // SIGXCPU
		}
		r, o := b.result([]string{"--rlimit", "cpu=" + limit}, "sh", "-c", "exec python3 -c 'while True: pass'")
		if r.Reason != "signalled" || o.code != 128+9 && o.code != 128+24 {
			t.Errorf("rlimit cpu: %+v, %+v", r, o)
		}
		// The kernel counts ticks for the limit: on a busy machine they may be far more than was used, and then a SIGKILL
		// can't be told from anybody else's.
		if unknown := r.Signal == "SIGKILL" && r.UserMS < 800 && len(r.LimitsHit) == 0; !unknown && (len(r.LimitsHit) != 1 || r.LimitsHit[0] != "rlimit-cpu") {
			t.Errorf("rlimit cpu: limits_hit is %v, signal %s, %.0f ms", r.LimitsHit, r.Signal, r.UserMS)
		}
		if r.UserMS < 300 || r.WallMS < 500 || r.RSS < 1<<20 {
			t.Errorf("figures: %+v", r)
		}
	})
}

// jail-init killed from outside: said so, 125, and nobody survives.
func TestSupervisorLost(t *testing.T) {
	each(t, allLevels, func(t *testing.T, a arm) {
		b := newBox(t, a)
		path := filepath.Join(b.tmp, "result")
		cmd := b.command([]string{"--json", "--result", path}, "sh", "-c",
			"trap 'echo known' USR1; sleep 121 & echo ready; wait; sleep 120; echo survived") // all in the payload's process group
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		if !lines.Scan() || lines.Text() != "ready" {
			t.Fatalf("got %q", lines.Text())
		}
		// What is passed on tells that the launcher has heard of the payload.
		if err := cmd.Process.Signal(syscall.SIGUSR1); err != nil {
			t.Fatal(err)
		}
		if !lines.Scan() || lines.Text() != "known" {
			t.Fatalf("got %q", lines.Text())
		}
		init, _ := initOf(t, cmd.Process.Pid)
		if err := syscall.Kill(init, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		hung := time.AfterFunc(patience, func() { _ = cmd.Process.Kill() })
		_ = cmd.Wait()
		if !hung.Stop() {
			t.Error("the command waits for ever")
		}
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		_ = os.Remove(path)
		if code := cmd.ProcessState.ExitCode(); code != 125 || !strings.Contains(string(text), `"reason":"supervisor-lost"`) {
			t.Errorf("exit code %d, %s", code, text)
		}
		eventually(t, "nobody is left", func() bool { return len(pidsWith(b.cookie)) == 0 })
	})
}

// The Result is written by the launcher alone: a payload that sees the folder can't make one up.
func TestResultIsTheLaunchers(t *testing.T) {
	each(t, allLevels, func(t *testing.T, a arm) {
		b := newBox(t, a)
		out := b.mkdir("out", 0o777)
		var flags []string
		if a.level != "basic" {
			flags = []string{"--bind", out}
		}
		path := filepath.Join(out, "result")
		secret := b.write(filepath.Join(b.tmp, "secret"), "untouched", 0o644)
		o := b.run(append(flags, "--json", "--result", path), "sh", "-c",
			"ln -s "+secret+" "+path+"; ln -s "+secret+" "+path+".tmp; for i in $(seq 1 50); do ln -s "+secret+" "+out+"/.jail-result-$i; done 2>/dev/null; exit 4")
		text, _ := os.ReadFile(secret)
		if string(text) != "untouched" {
			t.Fatalf("the launcher followed the payload's link: %s", text)
		}
		_ = os.Remove(secret)
		if info, err := os.Lstat(path); err == nil && !info.Mode().IsRegular() && o.code != 125 {
			t.Errorf("the result is the payload's link: %+v", o)
		}
	})
}
