package cgroup

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// Setting is one write to a file of a cgroup.
type Setting struct{ Controller, File, Value string }

// Settings says what has to be written for the resources on cgroup version 1 or 2, in this order. It is pure. What can't
// be given, or is given elsewhere (Devices), is an error that names the key; what is not given (nil, and CPU.Shares,
// CPU.Period, BlockIO.Weight 0) is left to the kernel's default.
//
// A memory limit does not bound swap: that takes Memory.Swap, which is memory and swap together.
func Settings(version int, r *specs.LinuxResources) ([]Setting, error) {
	if r == nil {
		return nil, nil
	}
	switch {
	case len(r.Devices) > 0:
		return nil, unsupported("devices")
	case len(r.HugepageLimits) > 0:
		return nil, unsupported("hugepageLimits")
	case r.Network != nil:
		return nil, unsupported("network")
	case len(r.Rdma) > 0:
		return nil, unsupported("rdma")
	}
	var all []Setting
	for _, f := range []func(int, *specs.LinuxResources) ([]Setting, error){
		memorySettings, pidsSettings, cpuSettings, cpusetSettings, ioSettings, unifiedSettings,
	} {
		s, err := f(version, r)
		if err != nil {
			return nil, err
		}
		all = append(all, s...)
	}
	return all, nil
}

// unifiedSettings takes files of v2 as they are named.
func unifiedSettings(version int, r *specs.LinuxResources) ([]Setting, error) {
	if len(r.Unified) == 0 {
		return nil, nil
	}
	if version != 2 {
		return nil, onlyOn(2, "unified")
	}
	var settings []Setting
	for file, value := range r.Unified {
		key := "unified[" + strconv.Quote(file) + "]"
		controller, rest, _ := strings.Cut(file, ".")
		// The files of cgroup.* move, freeze and kill; they are no limits.
		if !slices.Contains(known, controller) || rest == "" || strings.ContainsAny(file, "/\x00") {
			return nil, invalid(key, "it is not CONTROLLER.FILE with one of the controllers "+strings.Join(known, ", "))
		}
		if value == "" || len(value) > maxValue || strings.ContainsRune(value, 0) {
			return nil, invalid(key, fmt.Sprintf("a value has 1 to %d bytes", maxValue))
		}
		for line := range strings.SplitSeq(strings.TrimSuffix(value, "\n"), "\n") {
			settings = append(settings, Setting{controller, file, line}) // the kernel takes one line a write
		}
	}
	slices.SortStableFunc(settings, func(a, b Setting) int { return strings.Compare(a.File, b.File) })
	return settings, nil
}

// maxValue is what one write to a cgroup file can hold: a page, of the smallest size.
const maxValue = 4095

func unsupported(key string) error { return errors.New("resources." + key + " is not supported") }

func onlyOn(version int, key string) error {
	return fmt.Errorf("resources.%s: cgroup v%d alone has it", key, version)
}

func invalid(key, why string) error { return fmt.Errorf("resources.%s: %s", key, why) }

// limit writes a number of which -1 is none; 0 is refused where it is below least.
func limit(version int, key string, n, least int64) (string, error) {
	switch {
	case n == -1 && version == 2:
		return "max", nil
	case n == -1 || n >= least:
		return strconv.FormatInt(n, 10), nil
	}
	return "", invalid(key, fmt.Sprintf("%d is below %d and not -1, which is no limit", n, least))
}
