//go:build linux

package integration

import (
	"os"
	"os/exec"
	"strconv"
	"testing"
)

// Where no memfd can be executed (vm.memfd_noexec is 2, which counts in a pid namespace), jail-init is a file.
func TestNoExecutableMemfd(t *testing.T) {
	const setting = "/proc/sys/vm/memfd_noexec"
	if _, err := os.Stat(setting); err != nil {
		t.Skip("host lacks: vm.memfd_noexec, which is in Linux from 6.3 on")
	}
	if !asRoot {
		t.Skip("host lacks: root")
	}
	each(t, allLevels, func(t *testing.T, a arm) {
		b := newBox(t, a)
		script := `echo 2 >` + setting + ` && if python3 -c 'import os; os.memfd_create("x", 16)' 2>/dev/null; then echo vacuous; fi; exec "$@"`
		args := []string{"--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", script, "sh"}
		if !a.root {
			id := strconv.Itoa(ordinary)
			args = append(args, "setpriv", "--reuid", id, "--regid", id, "--clear-groups")
		}
		cmd := exec.Command(need(t, "unshare"), append(args, b.command(nil, "echo", "ran").Args...)...)
		cmd.Dir, cmd.Env = b.dir, b.env
		if o := b.finish(cmd); o.code != 0 || o.stdout != "ran\n" {
			t.Errorf("%+v", o)
		}
	})
}
