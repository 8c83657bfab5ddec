package cgroup

import (
	"regexp"
	"strings"
	"testing"
)

// TestValid: names become folders and units of systemd, lists are written to the kernel.
func TestValid(t *testing.T) {
	for name, want := range map[string]bool{
		"a": true, "Z9": true, "a_b.c-d": true, strings.Repeat("x", 64): true,
		"": false, strings.Repeat("x", 65): false, ".": false, "..": false, "-a": false, "_a": false,
		"a/b": false, "a b": false, "a\n": false, "a\x00": false, "a@b": false, "a`": false, "ä": false, "a{": false,
	} {
		if ValidName(name) != want {
			t.Errorf("name %q: %t", name, !want)
		}
	}
	for list, want := range map[string]bool{
		"0": true, "0-3,7": true, "0-31:1/4,40": true, "99999": true,
		"": false, ",": false, "0,": false, "0-": false, "-1": false, "+1": false, "0:1/2": false, "0-3:1": false,
		"0-3:/4": false, "123456": false, "000001": false, "0;1": false, "0-3-5": false, "1_0": false, "0\n": false, "all": false,
	} {
		if validList(list) != want {
			t.Errorf("list %q: %t", list, !want)
		}
	}
}

// FuzzValid compares with the same said as regular expressions, which are too slow to compile at each start.
func FuzzValid(f *testing.F) {
	const part = `[0-9]{1,5}(-[0-9]{1,5}(:[0-9]{1,5}/[0-9]{1,5})?)?`
	name, list := regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$`), regexp.MustCompile(`^`+part+`(,`+part+`)*$`)
	f.Add("a-b.c")
	f.Add("0-3,7")
	f.Add("0-31:1/4")
	f.Fuzz(func(t *testing.T, s string) {
		if got, want := ValidName(s), name.MatchString(s); got != want {
			t.Errorf("name %q: %t, want %t", s, got, want)
		}
		if got, want := validList(s), list.MatchString(s); got != want {
			t.Errorf("list %q: %t, want %t", s, got, want)
		}
	})
}
