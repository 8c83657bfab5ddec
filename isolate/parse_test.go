package isolate

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// wantSpecError fails unless err is a *SpecError that quotes the value.
func wantSpecError(t *testing.T, field, value string, err error) {
	t.Helper()
	var spec *SpecError
	if !errors.As(err, &spec) {
		t.Fatalf("%s %q: got %v, want a *SpecError", field, value, err)
	}
	if spec.Field != field || spec.Value != value || spec.Problem == "" {
		t.Errorf("%s %q: got %+v", field, value, spec)
	}
}

func TestParseUser(t *testing.T) {
	for in, want := range map[string]specs.User{
		"0":                     {},
		"1000":                  {UID: 1000, GID: 1000},
		"1000:7":                {UID: 1000, GID: 7},
		"0:0":                   {},
		"4294967294:4294967294": {UID: 4294967294, GID: 4294967294},
	} {
		id, user, err := ParseUser(in)
		if err != nil || id != IdentityFixed || user.UID != want.UID || user.GID != want.GID {
			t.Errorf("ParseUser(%q) = %v, %v, %v", in, id, user, err)
		}
	}
	if id, _, err := ParseUser("caller"); err != nil || id != IdentityCaller {
		t.Errorf("caller: %v, %v", id, err)
	}
	// Property P44: nothing that a C library, a shell or a passwd file would read in a way of its own.
	for _, in := range []string{
		"", ":", "0x0", "00", "01", "+0", "-1", "4294967295", "4294967296", "18446744073709551616", "1000a", " 0", "0 ",
		"0:0:0", "0:", ":0", "root", "root:root", "0:root", "Caller", "caller:0", "1_000", "1e3", "٣", "0\x00",
		strings.Repeat("1", 1<<16),
	} {
		_, _, err := ParseUser(in)
		wantSpecError(t, "user", in, err)
	}
}

func TestParseSize(t *testing.T) {
	for in, want := range map[string]int64{
		"0": 0, "1": 1, "4096": 4096, "1K": 1024, "1k": 1024, "64M": 64 << 20, "3g": 3 << 30, "0G": 0,
		"9223372036854775807": math.MaxInt64, "8589934591G": 8589934591 << 30,
	} {
		if got, err := ParseSize(in); err != nil || got != want {
			t.Errorf("ParseSize(%q) = %d, %v; want %d", in, got, err, want)
		}
	}
	for _, in := range []string{
		"", "K", "M1", "64MB", "64Mi", "1T", "1.5G", "-1", "+1", " 1", "1 ", "1 K", "01K", "0x10",
		"9223372036854775808", "8589934592G", "unlimited",
	} {
		_, err := ParseSize(in)
		wantSpecError(t, "size", in, err)
	}
}

func TestParseOutputLimit(t *testing.T) {
	for in, want := range map[string]struct {
		size   int64
		action OutputAction
	}{
		"1": {1, OutputKill}, "4096:kill": {4096, OutputKill}, "64M:truncate": {64 << 20, OutputTruncate}, "1k:block": {1024, OutputBlock},
		"9223372036854775807": {math.MaxInt64, OutputKill},
	} {
		if size, action, err := ParseOutputLimit(in); err != nil || size != want.size || action != want.action {
			t.Errorf("ParseOutputLimit(%q) = %d, %q, %v; want %v", in, size, action, err, want)
		}
	}
	for _, in := range []string{"", "0", "0K:block", "1:", ":kill", "1:stop", "1:Kill", "1:kill:kill", "-1", "1.5M", "9223372036854775808"} {
		_, _, err := ParseOutputLimit(in)
		wantSpecError(t, "output-limit", in, err)
	}
}

func TestParsePidsLimit(t *testing.T) {
	for in, want := range map[string]int64{"1": 1, "1024": 1024, "4194304": 1 << 22} {
		if got, err := ParsePidsLimit(in); err != nil || got != want {
			t.Errorf("ParsePidsLimit(%q) = %d, %v; want %d", in, got, err, want)
		}
	}
	for _, in := range []string{"", "0", "+5", "-1", "007", "0x10", "1e3", "1_000", " 5", "5 ", "1K", "max", "4194305", "18446744073709551617"} {
		_, err := ParsePidsLimit(in)
		wantSpecError(t, "pids-limit", in, err)
	}
}

func TestParseDuration(t *testing.T) {
	for in, want := range map[string]time.Duration{
		"0": 0, "0s": 0, "10s": 10 * time.Second, "300ms": 300 * time.Millisecond, "10m": 10 * time.Minute,
		"1h30m": 90 * time.Minute, "1.5s": 1500 * time.Millisecond,
	} {
		if got, err := ParseDuration(in); err != nil || got != want {
			t.Errorf("ParseDuration(%q) = %v, %v; want %v", in, got, err, want)
		}
	}
	for _, in := range []string{"", "10", "-1s", "+1s", "-0", "+0", "1d", "s", "1 s", " 1s", "9999999h", "soon"} {
		_, err := ParseDuration(in)
		wantSpecError(t, "duration", in, err)
	}
}

func TestParseFD(t *testing.T) {
	for in, want := range map[string][2]int{
		"3": {3, 3}, "0": {0, 0}, "5:0": {5, 0}, "10:251": {10, 251}, "1048575": {maxFD, maxFD},
	} {
		from, to, err := ParseFD(in)
		if err != nil || from != want[0] || to != want[1] {
			t.Errorf("ParseFD(%q) = %d, %d, %v; want %v", in, from, to, err, want)
		}
	}
	for _, in := range []string{"", ":", "3:", ":3", "3:4:5", "-1", "03", "1048576", "3: 4", "stdin", "3=4"} {
		_, _, err := ParseFD(in)
		wantSpecError(t, "fd", in, err)
	}
}

func TestParseRlimit(t *testing.T) {
	for in, want := range map[string]specs.POSIXRlimit{
		"nofile=64:128":               {Type: "RLIMIT_NOFILE", Soft: 64, Hard: 128},
		"nofile=64":                   {Type: "RLIMIT_NOFILE", Soft: 64, Hard: 64},
		"RLIMIT_NPROC=0":              {Type: "RLIMIT_NPROC"},
		"rlimit_As=1G:unlimited":      {Type: "RLIMIT_AS", Soft: 1 << 30, Hard: math.MaxUint64},
		"Core=unlimited":              {Type: "RLIMIT_CORE", Soft: math.MaxUint64, Hard: math.MaxUint64},
		"stack=8m:16777216":           {Type: "RLIMIT_STACK", Soft: 8 << 20, Hard: 16 << 20},
		"cpu=1:2":                     {Type: "RLIMIT_CPU", Soft: 1, Hard: 2},
		"fsize=18446744073709551614":  {Type: "RLIMIT_FSIZE", Soft: math.MaxUint64 - 1, Hard: math.MaxUint64 - 1},
		"rttime=18446744073709551614": {Type: "RLIMIT_RTTIME", Soft: math.MaxUint64 - 1, Hard: math.MaxUint64 - 1},
	} {
		if got, err := ParseRlimit(in); err != nil || got != want {
			t.Errorf("ParseRlimit(%q) = %+v, %v; want %+v", in, got, err, want)
		}
	}
	for _, in := range []string{
		"", "=", "nofile", "nofile=", "nofile=:", "nofile=1:", "nofile=:1", "nofile=1:2:3", "nofil=1", "=1",
		"nofile=128:64", "nofile=unlimited:64", "nofile=1K", "cpu=1M", "nofile=-1", "nofile=+1", "nofile=01", "nofile= 1",
		"nofile=1=2", "rlimit_rlimit_nofile=1", "fsize=18446744073709551615", "fsize=17179869184G", "as=1T", "as=Unlimited",
	} {
		_, err := ParseRlimit(in)
		wantSpecError(t, "rlimit", in, err)
	}
	if got := len(RlimitNames()); got != 16 {
		t.Errorf("%d limits, the kernel has 16", got)
	}
	for _, name := range RlimitNames() {
		if _, err := ParseRlimit(name + "=1"); err != nil {
			t.Error(err)
		}
	}
}

// The fuzz tests hold parse∘format to be the identity: what is accepted has one meaning, and only its own spellings.

func FuzzParseUser(f *testing.F) {
	for _, s := range []string{"caller", "0", "1000:1000", "4294967295", "0:0:0", "+1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		id, user, err := ParseUser(s)
		if err != nil {
			wantSpecError(t, "user", s, err)
			return
		}
		uid, gid := strconv.FormatUint(uint64(user.UID), 10), strconv.FormatUint(uint64(user.GID), 10)
		whole := uid + ":" + gid
		if id == IdentityCaller && s == "caller" || s == whole || s == uid && uid == gid {
			return
		}
		t.Errorf("%q was read as %s %s", s, id, whole)
	})
}

func FuzzParseSize(f *testing.F) {
	for _, s := range []string{"0", "64M", "9223372036854775807", "8589934592G", "1KB"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		n, err := ParseSize(s)
		if err != nil {
			wantSpecError(t, "size", s, err)
			return
		}
		if n < 0 {
			t.Fatalf("%q is %d", s, n)
		}
		again, err := ParseSize(strconv.FormatInt(n, 10))
		if err != nil || again != n {
			t.Errorf("%q is %d, and then %d, %v", s, n, again, err)
		}
		if digits := strings.TrimRight(s, "KMGkmg"); len(s)-len(digits) > 1 || digits != strconv.FormatUint(mustUint(t, digits), 10) {
			t.Errorf("%q was accepted", s)
		}
	})
}

func FuzzParseDuration(f *testing.F) {
	for _, s := range []string{"0", "10s", "1h30m", "-1s", "9223372036854775807ns", "."} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		d, err := ParseDuration(s)
		if err != nil {
			wantSpecError(t, "duration", s, err)
			return
		}
		if again, err := ParseDuration(d.String()); err != nil || again != d || d < 0 {
			t.Errorf("%q is %v, and then %v, %v", s, d, again, err)
		}
	})
}

func FuzzParseFD(f *testing.F) {
	for _, s := range []string{"3", "3:4", "1048576", "3:4:5", "03"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		from, to, err := ParseFD(s)
		if err != nil {
			wantSpecError(t, "fd", s, err)
			return
		}
		n, m := strconv.Itoa(from), strconv.Itoa(to)
		if s != n+":"+m && (s != n || from != to) || max(from, to) > maxFD {
			t.Errorf("%q was read as %d:%d", s, from, to)
		}
	})
}

func FuzzParseRlimit(f *testing.F) {
	for _, s := range []string{"nofile=64:128", "AS=1G", "rlimit_core=unlimited", "cpu=2:1", "nofile=1K"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		l, err := ParseRlimit(s)
		if err != nil {
			wantSpecError(t, "rlimit", s, err)
			return
		}
		if l.Soft > l.Hard {
			t.Errorf("%q: soft %d, hard %d", s, l.Soft, l.Hard)
		}
		whole := l.Type + "=" + formatLimit(l.Soft) + ":" + formatLimit(l.Hard)
		if again, err := ParseRlimit(whole); err != nil || again != l {
			t.Errorf("%q is %q, and then %+v, %v", s, whole, again, err)
		}
	})
}

func FuzzParseCPUs(f *testing.F) {
	for _, s := range []string{"1", "0.5", "8192", "0.01", "1.25", "1.5", "0.050", "8193", "1.", ".5", "0"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		quota, err := ParseCPUs(s)
		if err != nil {
			wantSpecError(t, "cpus", s, err)
			return
		}
		hundredths := quota * 100 / CPUPeriod.Microseconds()
		whole, part := strconv.FormatInt(hundredths/100, 10), fmt.Sprintf("%02d", hundredths%100)
		spellings := []string{whole + "." + part}
		if short, ok := strings.CutSuffix(part, "0"); ok {
			spellings = append(spellings, whole+"."+short)
		}
		if part == "00" {
			spellings = append(spellings, whole)
		}
		if hundredths < 1 || hundredths > 100*maxCPUs+99 || !slices.Contains(spellings, s) {
			t.Errorf("%q was read as %d microseconds: %q", s, quota, spellings)
		}
	})
}

func FuzzParsePidsLimit(f *testing.F) {
	for _, s := range []string{"1", "4194304", "4194305", "0", "+1", "max"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		n, err := ParsePidsLimit(s)
		if err != nil {
			wantSpecError(t, "pids-limit", s, err)
			return
		}
		if n < 1 || n > maxPids || strconv.FormatInt(n, 10) != s {
			t.Errorf("%q was read as %d", s, n)
		}
	})
}

func FuzzParseOutputLimit(f *testing.F) {
	for _, s := range []string{"1", "4096:kill", "64M:truncate", "1k:block", "1:", "0", "9223372036854775807:kill"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		n, action, err := ParseOutputLimit(s)
		if err != nil {
			wantSpecError(t, "output-limit", s, err)
			return
		}
		size, word, given := strings.Cut(s, ":")
		if m, err := ParseSize(size); err != nil || m != n || n < 1 || given != (word != "") || given && OutputAction(word) != action || !given && action != OutputKill {
			t.Errorf("%q was read as %d:%s", s, n, action)
		}
		if again, a, err := ParseOutputLimit(fmt.Sprintf("%d:%s", n, action)); err != nil || again != n || a != action {
			t.Errorf("%q is %d:%s, and then %d:%s, %v", s, n, action, again, a, err)
		}
	})
}

func FuzzParseIO(f *testing.F) {
	for _, s := range []string{"/dev/sda:rbps=10M,wiops=200", "a:b:riops=1", ":rbps=1", "/dev/sda:rbps=1,rbps=2", "/dev/sda:wiops=1K", "x:"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		device, rates, err := ParseIO(s)
		if err != nil {
			wantSpecError(t, "io", s, err)
			return
		}
		var words []string
		for _, key := range IOKeys {
			if rate, ok := rates[key]; ok {
				words = append(words, key+"="+strconv.FormatUint(rate, 10))
			}
		}
		whole := device + ":" + strings.Join(words, ",")
		d, r, err := ParseIO(whole)
		if err != nil || d != device || !maps.Equal(r, rates) || len(words) != len(rates) || len(rates) == 0 || device == "" {
			t.Errorf("%q is %q, and then %q, %v, %v", s, whole, d, r, err)
		}
		if _, values, _ := strings.Cut(s[len(device):], ":"); strings.Trim(values, "abcdefghijklmnopqrstuvwxyzKMG0123456789=,") != "" || strings.Contains(values, "=0") || strings.Count(values, "=") != len(rates) {
			t.Errorf("%q was accepted", s)
		}
	})
}

// What is taken for a list of CPUs the kernel is told as it stands.
func FuzzParseCPUSet(f *testing.F) {
	for _, s := range []string{"0", "0-3,5", "8192", "8193", "3-1", "0-1-2", "0,", "00"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		list, err := ParseCPUSet(s)
		if err != nil {
			wantSpecError(t, "cpuset", s, err)
			return
		}
		var parts []string
		for _, part := range strings.Split(list, ",") {
			first, last, isRange := strings.Cut(part, "-")
			a := mustUint(t, first)
			part = strconv.FormatUint(a, 10)
			if isRange {
				b := mustUint(t, last)
				part += "-" + strconv.FormatUint(b, 10)
				a = max(a, b)
			}
			if a > maxCPUs {
				t.Errorf("%q was accepted", s)
			}
			parts = append(parts, part)
		}
		if again := strings.Join(parts, ","); again != s || list != s {
			t.Errorf("%q was read as %q", s, again)
		}
	})
}

func FuzzParseName(f *testing.F) {
	for _, s := range []string{"a", "a.b_c-9", "-a", "..", "a/b", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		name, err := ParseName(s)
		if err != nil {
			wantSpecError(t, "name", s, err)
			return
		}
		if name != s || filepath.Base(s) != s || len(s) > 64 || strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' }) || s[0] == '.' || s[0] == '-' {
			t.Errorf("%q was accepted", s)
		}
	})
}

// Capabilities: what is accepted prints back to the same set.
func FuzzParseCapabilities(f *testing.F) {
	for _, s := range []string{"ALL", "NET_ADMIN", "cap_sys_admin", "CAP_", "CAP_CAP_KILL", " KILL"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		set, err := parseCapabilities("cap-add", []string{s})
		if err != nil {
			wantSpecError(t, "cap-add", s, err)
			return
		}
		names := formatCapabilities(set)
		again, err := parseCapabilities("cap-add", names)
		if upper := strings.ToUpper(s); err != nil || again != set || set == 0 || len(names) > 1 && upper != "ALL" && upper != "CAP_ALL" || len(names) == 1 && upper != names[0] && "CAP_"+upper != names[0] {
			t.Errorf("%q is %q", s, names)
		}
	})
}

func FuzzParseLevel(f *testing.F) {
	for _, s := range []string{"basic", "contained", "none", "", "Basic"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		level, err := ParseLevel(s)
		if err != nil {
			wantSpecError(t, "level", s, err)
		} else if level.String() != s {
			t.Errorf("%q is %s", s, level)
		}
	})
}

func formatLimit(n uint64) string {
	if n == unlimited {
		return "unlimited"
	}
	return strconv.FormatUint(n, 10)
}

func mustUint(t *testing.T, s string) uint64 {
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		t.Fatalf("%q was accepted: %v", s, err)
	}
	return n
}
