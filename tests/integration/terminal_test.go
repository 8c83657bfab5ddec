//go:build linux

package integration

import (
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// P65: the caller's terminal has the modes that it had, however the payload ends.
func TestP65_TerminalModes(t *testing.T) {
	const spoil = "stty raw -echo -isig; stty -a | grep -c -- -echo; "
	soon := []string{"--timeout", "500ms"}
	each(t, allLevels, func(t *testing.T, a arm) {
		b := newBox(t, a)
		// kept runs a command on a terminal, and says whether the modes of that are kept.
		kept := func(argv []string) bool {
			master, slave := openPTY(t)
			defer master.Close()
			defer slave.Close()
			before, err := unix.IoctlGetTermios(int(slave.Fd()), unix.TCGETS)
			if err != nil {
				t.Error(err)
				return false
			}
			cmd := b.as(argv...)
			cmd.Stdin = slave
			cmd.SysProcAttr.Setsid, cmd.SysProcAttr.Setctty = true, true
			o := b.finish(cmd)
			if o.code == 124 && o.stdout == "" {
				return true // the time was over before it began
			}
			if !strings.HasPrefix(o.stdout, "1\n") {
				t.Errorf("%q: the modes were not changed: %+v", argv, o)
			}
			after, err := unix.IoctlGetTermios(int(slave.Fd()), unix.TCGETS)
			if err != nil {
				t.Error(err)
				return false
			}
			return *after == *before
		}
		var done sync.WaitGroup
		for end, flags := range map[string][]string{
			"exit 3": nil, "kill -9 $$": nil, "no-such-command": nil, "sleep 100": soon, "trap '' TERM HUP INT; kill -STOP $$": soon,
		} {
			done.Go(func() {
				if !kept(b.command(flags, "sh", "-c", spoil+end).Args) {
					t.Errorf("%q: the modes are others than before", end)
				}
			})
		}
		done.Wait()
		if kept([]string{"sh", "-c", spoil}) {
			t.Error("vacuous: without a jail they are as before, too")
		}
	})
}

// In the background the modes are somebody else's, and setting them would stop the command.
func TestTerminalModesInTheBackground(t *testing.T) {
	each(t, []string{"namespaced"}, func(t *testing.T, a arm) {
		b := newBox(t, a)
		master, slave := openPTY(t)
		defer master.Close()
		// The shell is in the foreground, the command in a process group of its own.
		script := `stty -echo; set -m; "$@" & wait $!; echo $?; stty -a | grep -c -- ' -echo '; stty echo`
		cmd := b.as(append([]string{"bash", "-c", script, "bash"}, b.command(nil, "sh", "-c", "stty echo").Args...)...)
		cmd.Stdin = slave
		cmd.SysProcAttr.Setsid, cmd.SysProcAttr.Setctty = true, true
		o := b.finish(cmd)
		slave.Close()
		if o.stdout != "0\n0\n" { // the payload's doing stays
			t.Errorf("%+v", o)
		}
	})
}
