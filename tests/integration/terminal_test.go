//go:build linux

package integration

import (
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// P65: the caller's terminal has the modes that it had, however the payload ends.
func TestP65_TerminalModes(t *testing.T) {
	const spoil = "stty raw -echo -isig; stty -a | grep -c -- -echo; "
	each(t, allLevels, func(t *testing.T, a arm) {
		b := newBox(t, a)
		for end, flags := range map[string][]string{
			"exit 3":                              nil,
			"kill -9 $$":                          nil,
			"sleep 100":                           {"--timeout", "1s"},
			"trap '' TERM HUP INT; kill -STOP $$": {"--timeout", "1s"},
			"no-such-command":                     nil,
		} {
			master, slave := openPTY(t)
			before, err := unix.IoctlGetTermios(int(slave.Fd()), unix.TCGETS)
			if err != nil {
				t.Fatal(err)
			}
			after := func(argv []string) bool {
				cmd := b.as(argv...)
				cmd.Stdin = slave
				cmd.SysProcAttr.Setsid, cmd.SysProcAttr.Setctty = true, true
				o := b.finish(cmd)
				if o.code == 124 && o.stdout == "" {
					return true // the time was over before it began
				}
				if !strings.HasPrefix(o.stdout, "1\n") {
					t.Errorf("%q: the modes were not changed: %+v", end, o)
				}
				now, err := unix.IoctlGetTermios(int(slave.Fd()), unix.TCGETS)
				if err != nil {
					t.Fatal(err)
				}
				return *now == *before
			}
			if !after(b.command(flags, "sh", "-c", spoil+end).Args) {
				t.Errorf("%q: the modes are others than before", end)
			}
			if end == "exit 3" && after([]string{"sh", "-c", spoil}) {
				t.Error("vacuous: without a jail they are as before, too")
			}
			slave.Close()
			master.Close()
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
