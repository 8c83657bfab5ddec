package isolate

import (
	"errors"
	"path"
	"slices"
	"strings"
)

// IsGlob says whether a path has a character that is special in a pattern of a Rule: in a component * ? [ as in
// path.Match, and ** alone in a component for any number of folders.
func IsGlob(name string) bool { return strings.ContainsAny(name, "*?[") }

// CheckGlob finds what is wrong with a pattern.
func CheckGlob(pattern string) error {
	parts := strings.Split(pattern, "/")
	for i, part := range parts {
		if _, err := path.Match(part, ""); err != nil {
			return errors.New("has a pattern with an open bracket")
		}
		switch {
		case part == "**" && i == len(parts)-1:
			return errors.New("ends in **; name the folder instead")
		case part == "**" && slices.Contains(parts[i+1:], "**"):
			return errors.New("has ** more than once")
		case part != "**" && strings.Contains(part, "**"):
			return errors.New("has ** beside other characters; it stands for whole folders")
		}
	}
	return nil
}

// MatchGlob says whether a pattern matches a path.
func MatchGlob(pattern, name string) bool {
	return matchParts(strings.Split(pattern, "/"), strings.Split(name, "/"), false)
}

// reachesInto says whether a pattern may match a path that lies in dir.
func reachesInto(pattern, dir string) bool {
	return dir == "/" || matchParts(strings.Split(pattern, "/"), strings.Split(dir, "/"), true)
}

// matchParts matches component by component; with begin it is enough that path is the begin of a match.
func matchParts(pattern, name []string, begin bool) bool {
	for i, part := range pattern {
		if len(name) == i {
			return begin
		}
		if part == "**" {
			if begin {
				return true
			}
			for n := i; n <= len(name); n++ {
				if matchParts(pattern[i+1:], name[n:], false) {
					return true
				}
			}
			return false
		}
		if ok, err := path.Match(part, name[i]); err != nil || !ok {
			return false
		}
	}
	return !begin && len(pattern) == len(name)
}
