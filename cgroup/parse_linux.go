package cgroup

import (
	"fmt"
	"path"
	"strconv"
	"strings"
)

// mount is a mounted cgroup hierarchy.
type mount struct {
	point       string
	root        string   // the cgroup that is seen at point; starts with "/.." where it is outside the cgroup namespace
	controllers []string // of v1, "name=…" included
	v2          bool
}

// parseMounts takes the cgroup hierarchies from the text of /proc/PID/mountinfo; see proc_pid_mountinfo(5).
func parseMounts(text string) ([]mount, error) {
	var mounts []mount
	for line := range strings.Lines(text) {
		// Spaces in paths are escaped: the separator stands only once in a line.
		before, after, found := strings.Cut(line, " - ")
		if !found {
			return nil, fmt.Errorf("mountinfo: no separator in %q", line)
		}
		if !strings.HasPrefix(after, "cgroup") {
			continue
		}
		// By single spaces: other white space, which Fields would take as well, the kernel does not escape.
		left, right := strings.Split(before, " "), strings.Split(strings.TrimSuffix(after, "\n"), " ")
		if len(left) < 6 || len(right) < 3 {
			return nil, fmt.Errorf("mountinfo: too few fields in %q", line)
		}
		m := mount{root: unescape(left[3]), point: unescape(left[4])}
		switch right[0] {
		case "cgroup2":
			m.v2 = true
		case "cgroup":
			m.controllers = strings.Split(right[len(right)-1], ",")
		default:
			continue
		}
		mounts = append(mounts, m)
	}
	return mounts, nil
}

// unescape takes back the kernel's \ooo for space, tab, newline and backslash.
func unescape(s string) string {
	var b strings.Builder
	for {
		i := strings.IndexByte(s, '\\')
		if i < 0 {
			b.WriteString(s)
			return b.String()
		}
		b.WriteString(s[:i])
		s = s[i:]
		if len(s) >= 4 {
			if n, err := strconv.ParseUint(s[1:4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				s = s[4:]
				continue
			}
		}
		b.WriteByte('\\')
		s = s[1:]
	}
}

// parseCgroups reads /proc/PID/cgroup: the process's cgroup by controller, "" for v2.
func parseCgroups(text string) (map[string]string, error) {
	paths := map[string]string{}
	for line := range strings.Lines(text) {
		fields := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if len(fields) != 3 || !strings.HasPrefix(fields[2], "/") {
			return nil, fmt.Errorf("/proc/PID/cgroup: can't read line %q", line)
		}
		for c := range strings.SplitSeq(fields[1], ",") {
			paths[c] = fields[2]
		}
	}
	return paths, nil
}

// below returns the part of the cgroup path p below root, "/" for root itself. It compares whole components: /a is not
// above /ab.
func below(root, p string) (string, bool) {
	if p == "/.." || strings.HasPrefix(p, "/../") { // outside the cgroup namespace
		return "", false
	}
	p = path.Clean(p)
	switch {
	case root == "/":
		return p, true
	case p == root:
		return "/", true
	case strings.HasPrefix(p, root+"/"):
		return p[len(root):], true
	}
	return "", false
}

// field returns the number that stands after key in a file of "key value" lines, such as cpu.stat.
func field(text, key string) (int64, error) {
	for line := range strings.Lines(text) {
		k, v, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		if k == key {
			return number(v)
		}
	}
	return 0, fmt.Errorf("no %s in it", key)
}

// number reads a counter; one beyond int64 (an unset v1 limit) is the largest int64.
func number(text string) (int64, error) {
	n, err := strconv.ParseUint(strings.TrimSpace(text), 10, 64)
	if err != nil {
		return 0, err
	}
	return int64(min(n, 1<<63-1)), nil
}

// parsePids reads cgroup.procs. A process outside our pid namespace is listed as 0.
func parsePids(text string) ([]int, error) {
	var pids []int
	for s := range strings.FieldsSeq(text) {
		pid, err := strconv.ParseUint(s, 10, 31)
		if err != nil {
			return nil, err
		}
		pids = append(pids, int(pid))
	}
	return pids, nil
}
