package isolate

import (
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/jailrun/jail/cgroup"
)

// The grammars of what users write. They are strict and bounded: one way to write a thing, plain decimal digits, no
// sign, no space, no leading zero, and an error for everything else. What they return is complete; nothing is read a
// second time.

const (
	maxID = math.MaxUint32 - 1 // the last one means "no change" to the kernel
	maxFD = 1<<20 - 1          // the kernel's own default limit, fs.nr_open
)

// ParseUser reads "UID", "UID:GID" or "caller". The GID defaults to the UID. Ids are never looked up as names: a
// passwd file that somebody else wrote decides nothing.
func ParseUser(s string) (Identity, specs.User, error) {
	if s == "caller" {
		return IdentityCaller, specs.User{}, nil
	}
	user, group, hasGroup := strings.Cut(s, ":")
	if !hasGroup {
		group = user
	}
	uid, okUser := parseDecimal(user, maxID)
	gid, okGroup := parseDecimal(group, maxID)
	if !okUser || !okGroup {
		return "", specs.User{}, &SpecError{
			Field: "user", Value: s,
			Problem: `is not UID, UID:GID or "caller"; ids are decimal numbers from 0 to 4294967294`,
		}
	}
	return IdentityFixed, specs.User{UID: uint32(uid), GID: uint32(gid)}, nil
}

// ParseSize reads a number of bytes: "4096", "64M". K, M and G are binary, in upper or lower case.
func ParseSize(s string) (int64, error) {
	n, ok := parseSize(s, math.MaxInt64)
	if !ok {
		return 0, &SpecError{Field: "size", Value: s, Problem: "is not a size; a size is a number of bytes, or one with K, M or G, as in 64M"}
	}
	return int64(n), nil
}

// CPUPeriod is the time in which a jail may use the CPUs for as long as ParseCPUs says: the kernel's own default.
const CPUPeriod = 100 * time.Millisecond

// ParseCPUs reads a number of CPUs, as in "2" or "0.5", with at most two digits behind the point, and returns how many
// microseconds of CPU time in each CPUPeriod that is.
func ParseCPUs(s string) (quota int64, err error) {
	whole, part, hasPart := strings.Cut(s, ".")
	n, ok := parseDecimal(whole, maxCPUs)
	hundredths := n * 100
	if hasPart {
		digits, okPart := parseDecimal(strings.TrimPrefix(part, "0"), 99)
		switch {
		case part == "0" || part == "00":
			digits, okPart = 0, true
		case len(part) == 1:
			digits *= 10
		}
		ok = ok && okPart && len(part) <= 2
		hundredths += digits
	}
	if !ok || hundredths == 0 {
		return 0, &SpecError{Field: "cpus", Value: s, Problem: "is not a number of CPUs from 0.01 to " + strconv.Itoa(maxCPUs) + ", as in 2 or 0.5"}
	}
	return int64(hundredths) * CPUPeriod.Microseconds() / 100, nil
}

const maxCPUs = 8192 // the most that the kernel can be built for

// ParsePidsLimit reads a number of processes and threads.
func ParsePidsLimit(s string) (int64, error) {
	n, ok := parseDecimal(s, maxPids)
	if !ok || n == 0 {
		return 0, &SpecError{Field: "pids-limit", Value: s, Problem: "is not a number of processes and threads from 1 to " + strconv.Itoa(maxPids)}
	}
	return int64(n), nil
}

const maxPids = 1 << 22 // the kernel's own limit, PID_MAX_LIMIT

// IOKeys are the limits that ParseIO knows: bytes and operations a second, read and written.
var IOKeys = []string{"rbps", "wbps", "riops", "wiops"}

// ParseIO reads "DEVICE:KEY=RATE,…", as in "/dev/sda:rbps=10M,wiops=200". Rates of bytes take K, M and G.
func ParseIO(s string) (device string, rates map[string]uint64, err error) {
	fail := func(problem string) (string, map[string]uint64, error) {
		return "", nil, &SpecError{Field: "io", Value: s, Problem: problem}
	}
	i := strings.LastIndexByte(s, ':')
	if i <= 0 {
		return fail("is not DEVICE:KEY=RATE, as in /dev/sda:rbps=10M")
	}
	rates = map[string]uint64{}
	for _, word := range strings.Split(s[i+1:], ",") {
		key, value, _ := strings.Cut(word, "=")
		if !slices.Contains(IOKeys, key) {
			return fail("has a key that is not one of " + strings.Join(IOKeys, ", "))
		}
		if _, twice := rates[key]; twice {
			return fail("has " + key + " twice")
		}
		rate, ok := parseSize(value, math.MaxInt64)
		if strings.HasSuffix(key, "iops") {
			rate, ok = parseDecimal(value, math.MaxInt64)
		}
		if !ok || rate == 0 {
			return fail("has a rate that is not a number, as in rbps=10M or wiops=200")
		}
		rates[key] = rate
	}
	return s[:i], rates, nil
}

// ParseCPUSet checks a list of CPUs, as in "0-3,5".
func ParseCPUSet(s string) (string, error) {
	for _, part := range strings.Split(s, ",") {
		first, last, isRange := strings.Cut(part, "-")
		if !isRange {
			last = first
		}
		a, okFirst := parseDecimal(first, maxCPUs)
		b, okLast := parseDecimal(last, maxCPUs)
		if !okFirst || !okLast || a > b {
			return "", &SpecError{Field: "cpuset", Value: s, Problem: "is not a list of CPUs, as in 0-3,5"}
		}
	}
	return s, nil
}

// ParseName checks the name of a jail: a letter or digit, then letters, digits, ".", "_" and "-", 64 in all.
func ParseName(s string) (string, error) {
	if !cgroup.ValidName(s) {
		return "", &SpecError{Field: "name", Value: s, Problem: `is not a name: a letter or digit, then letters, digits, ".", "_" and "-", 64 at most`}
	}
	return s, nil
}

// ParseOutputLimit reads "SIZE" or "SIZE:ACTION"; the action defaults to OutputKill.
func ParseOutputLimit(s string) (int64, OutputAction, error) {
	size, word, hasAction := strings.Cut(s, ":")
	action := OutputAction(word)
	if !hasAction {
		action = OutputKill
	}
	n, ok := parseSize(size, math.MaxInt64)
	switch {
	case !ok || n == 0:
		return 0, "", &SpecError{Field: "output-limit", Value: s, Problem: "has no size; a size is a number of bytes above 0, or one with K, M or G, as in 64M"}
	case action != OutputKill && action != OutputTruncate && action != OutputBlock:
		return 0, "", &SpecError{Field: "output-limit", Value: s, Problem: "has an action that is not kill, truncate or block"}
	}
	return int64(n), action, nil
}

// ParseDuration reads a time as time.ParseDuration does, without a sign: "300ms", "10s", "1h30m". "0" is none.
func ParseDuration(s string) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	if err != nil || s[0] == '-' || s[0] == '+' {
		return 0, &SpecError{Field: "duration", Value: s, Problem: "is not a time; a time has a unit, as in 300ms, 10s, 5m or 1h30m, and 0 is none"}
	}
	return d, nil
}

// ParseFD reads "N" or "N:M": the caller's fd N becomes the payload's fd M, which defaults to N.
func ParseFD(s string) (from, to int, err error) {
	first, second, hasSecond := strings.Cut(s, ":")
	if !hasSecond {
		second = first
	}
	n, okFirst := parseDecimal(first, maxFD)
	m, okSecond := parseDecimal(second, maxFD)
	if !okFirst || !okSecond {
		return 0, 0, &SpecError{Field: "fd", Value: s, Problem: "is not N or N:M with file descriptors from 0 to " + strconv.Itoa(maxFD)}
	}
	return int(n), int(m), nil
}

// rlimitKinds says what the values of a limit count, by its name in lower case.
var rlimitKinds = []struct {
	name  string
	bytes bool // K, M and G make sense
}{
	{"as", true},
	{"core", true},
	{"cpu", false}, // seconds
	{"data", true},
	{"fsize", true},
	{"locks", false},
	{"memlock", true},
	{"msgqueue", true},
	{"nice", false}, // 20 minus the lowest nice value
	{"nofile", false},
	{"nproc", false},
	{"rss", true},
	{"rtprio", false},
	{"rttime", false}, // microseconds
	{"sigpending", false},
	{"stack", true},
}

// RlimitNames lists the limits that ParseRlimit knows.
func RlimitNames() []string {
	names := make([]string, len(rlimitKinds))
	for i, k := range rlimitKinds {
		names[i] = k.name
	}
	return names
}

// ParseRlimit reads "NAME=SOFT[:HARD]", as in "nofile=64:128" or "RLIMIT_CORE=unlimited". SOFT alone sets both. Values
// that count bytes take K, M and G.
func ParseRlimit(s string) (specs.POSIXRlimit, error) {
	fail := func(problem string) (specs.POSIXRlimit, error) {
		return specs.POSIXRlimit{}, &SpecError{Field: "rlimit", Value: s, Problem: problem}
	}
	name, values, ok := strings.Cut(s, "=")
	if !ok {
		return fail("is not NAME=SOFT[:HARD], as in nofile=64:128")
	}
	name = strings.TrimPrefix(strings.ToLower(name), "rlimit_")
	i := slices.Index(RlimitNames(), name)
	if i < 0 {
		return fail("does not name a limit; the limits are " + strings.Join(RlimitNames(), ", "))
	}
	softWord, hardWord, hasHard := strings.Cut(values, ":")
	if !hasHard {
		hardWord = softWord
	}
	soft, okSoft := parseLimit(softWord, rlimitKinds[i].bytes)
	hard, okHard := parseLimit(hardWord, rlimitKinds[i].bytes)
	switch {
	case (!okSoft || !okHard) && rlimitKinds[i].bytes:
		return fail(`has a value that is not a size, as in 64M, or "unlimited"`)
	case !okSoft || !okHard:
		return fail(`has a value that is not a number or "unlimited"`)
	case soft > hard:
		return fail("has a soft limit above the hard one")
	}
	return specs.POSIXRlimit{Type: "RLIMIT_" + strings.ToUpper(name), Soft: soft, Hard: hard}, nil
}

// unlimited is the kernel's RLIM_INFINITY. Only its word means it.
const unlimited = math.MaxUint64

func parseLimit(s string, bytes bool) (uint64, bool) {
	if s == "unlimited" {
		return unlimited, true
	}
	if bytes {
		return parseSize(s, unlimited-1)
	}
	return parseDecimal(s, unlimited-1)
}

func parseSize(s string, limit uint64) (uint64, bool) {
	shift := 0
	if s != "" {
		switch s[len(s)-1] {
		case 'K', 'k':
			shift = 10
		case 'M', 'm':
			shift = 20
		case 'G', 'g':
			shift = 30
		}
	}
	if shift > 0 {
		s = s[:len(s)-1]
	}
	n, ok := parseDecimal(s, limit>>shift)
	return n << shift, ok
}

// parseDecimal reads digits without a leading zero, up to limit.
func parseDecimal(s string, limit uint64) (uint64, bool) {
	if s == "" || len(s) > 1 && s[0] == '0' {
		return 0, false
	}
	for _, c := range []byte(s) {
		if c < '0' || c > '9' {
			return 0, false
		}
	}
	n, err := strconv.ParseUint(s, 10, 64)
	return n, err == nil && n <= limit
}

// Throttle sets the rates of one device, as ParseIO gives them, in place of those that were set.
func Throttle(r *specs.LinuxResources, major, minor int64, rates map[string]uint64) {
	if r.BlockIO == nil {
		r.BlockIO = &specs.LinuxBlockIO{}
	}
	lists := map[string]*[]specs.LinuxThrottleDevice{
		"rbps": &r.BlockIO.ThrottleReadBpsDevice, "wbps": &r.BlockIO.ThrottleWriteBpsDevice,
		"riops": &r.BlockIO.ThrottleReadIOPSDevice, "wiops": &r.BlockIO.ThrottleWriteIOPSDevice,
	}
	for key, rate := range rates {
		*lists[key] = slices.DeleteFunc(*lists[key], func(d specs.LinuxThrottleDevice) bool { return d.Major == major && d.Minor == minor })
		d := specs.LinuxThrottleDevice{Rate: rate}
		d.Major, d.Minor = major, minor
		*lists[key] = append(*lists[key], d)
	}
}
