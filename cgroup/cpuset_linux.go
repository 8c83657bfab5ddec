package cgroup

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// list is the kernel's format of processors and memory nodes: cpuset(7), "List format".
var list = regexp.MustCompile(`^[0-9]{1,5}(-[0-9]{1,5}(:[0-9]{1,5}/[0-9]{1,5})?)?(,[0-9]{1,5}(-[0-9]{1,5}(:[0-9]{1,5}/[0-9]{1,5})?)?)*$`)

func cpusetSettings(_ int, r *specs.LinuxResources) ([]Setting, error) {
	if r.CPU == nil {
		return nil, nil
	}
	var s []Setting
	for _, x := range []struct{ key, file, value string }{
		{"cpu.mems", "cpuset.mems", r.CPU.Mems},
		{"cpu.cpus", "cpuset.cpus", r.CPU.Cpus},
	} {
		if x.value == "" {
			continue
		}
		if len(x.value) > maxValue || !list.MatchString(x.value) {
			return nil, invalid(x.key, "it is not a list like 0-3,7")
		}
		s = append(s, Setting{"cpuset", x.file, x.value})
	}
	return s, nil
}

// inheritCpuset gives a new v1 cgroup what its parent has. On v1 both are empty at first, and no process can enter.
func inheritCpuset(d *dir) error {
	for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
		value, err := os.ReadFile(filepath.Join(filepath.Dir(d.path), file))
		if err != nil {
			return err
		}
		if err := write(int(d.f.Fd()), file, strings.TrimSpace(string(value))); err != nil {
			return &os.PathError{Op: "set up", Path: filepath.Join(d.path, file), Err: err}
		}
	}
	return nil
}
