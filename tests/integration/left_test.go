//go:build linux

package integration

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// P75: of a jail nothing is left, whatever it did and however it ended: no process (and so no namespace), mount, cgroup,
// private folder, IPC object or file. What a killed launcher leaves is another test's.
func TestP75_NothingLeft(t *testing.T) {
	each(t, allLevels, func(t *testing.T, a arm) {
		b := newBox(t, a)
		name := "left-" + filepath.Base(filepath.Dir(b.tmp)) + "-" + strings.ReplaceAll(a.String(), "/", "-")
		var flags []string
		if a.level == "limited" || a.level == "contained" {
			flags = []string{"--name", name, "--memory", "256M"}
		}
		litter := "sleep 301 & setsid sleep 302 & "
		if a.level != "basic" { // there TMPDIR is the caller's
			litter += "mkdir -p ${TMPDIR:-/tmp}/a/b; echo x >${TMPDIR:-/tmp}/a/b/c; chmod 0 ${TMPDIR:-/tmp}/a; "
		}
		if a.like() == "namespaced" { // below, IPC is the host's, as explain says
			litter += "ipcmk -M 4096 -S 1 -Q >/dev/null; echo x >/dev/shm/" + name + "; "
		}
		mounts := hostMounts()
		for end, code := range map[string]int{
			"exit 3": 3, "kill -9 $$": 137, "exec no-such-command": 127, "trap '' TERM HUP; kill -STOP $$": 124,
		} {
			own := flags
			if code == 124 {
				own = append(slices.Clone(flags), "--timeout", "500ms")
			}
			if o := b.run(own, "sh", "-c", litter+end); o.code != code {
				t.Errorf("%q: %+v", end, o)
			}
			if left := pidsWith(b.cookie); len(left) != 0 {
				t.Errorf("%q: processes %v", end, left)
			}
			if left, err := os.ReadDir(b.tmp); err != nil || len(left) != 0 {
				t.Errorf("%q: in TMPDIR %v, %v", end, left, err)
			}
			if left := cgroupsNamed("jail-" + name); len(left) != 0 {
				t.Errorf("%q: cgroups %v", end, left)
			}
			if err := sameMounts(mounts); err != nil {
				t.Errorf("%q: %v", end, err)
			}
		}
		if left, err := os.ReadDir(b.dir); err != nil || len(left) != 0 {
			t.Errorf("in the working folder: %v, %v", left, err)
		}
		if _, err := os.Lstat("/dev/shm/" + name); err == nil {
			t.Error("its shared memory is the host's")
		}
		// Without a jail the background lives on.
		if o := b.bare("env", b.cookie, "sh", "-c", "setsid sleep 303 >/dev/null 2>&1 & exit 0"); o.code != 0 {
			t.Errorf("bare: %+v", o)
		}
		// In the middle of an exec a process shows no environment: look until it is there.
		var left []int
		eventually(t, "bare leaves one", func() bool { left = pidsWith(b.cookie); return len(left) == 1 })
		_ = syscall.Kill(left[0], syscall.SIGKILL)
	})
}
