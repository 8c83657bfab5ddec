package cgroup

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// validList looks at a list of processors or memory nodes, such as 0-3,7 or 0-31:1/4: cpuset(7), "List format". Whether
// the machine has them is the kernel's to say.
func validList(s string) bool {
	for part := range strings.SplitSeq(s, ",") {
		ends, stride, strided := strings.Cut(part, ":")
		first, last, ranged := strings.Cut(ends, "-")
		used, of, fraction := strings.Cut(stride, "/")
		if !isNumber(first) || ranged && !isNumber(last) ||
			strided && (!ranged || !fraction || !isNumber(used) || !isNumber(of)) {
			return false
		}
	}
	return true
}

// isNumber takes decimal digits alone; the kernel has no numbers longer than five.
func isNumber(s string) bool {
	n, err := strconv.ParseUint(s, 10, 32)
	return err == nil && n < 100000 && len(s) <= 5
}

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
		if len(x.value) > maxValue || !validList(x.value) {
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
