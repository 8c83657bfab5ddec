package policies

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// FromFlag is the setting that a flag of the command line is. Flags that a policy has no word for have no Key.
func FromFlag(flag, value string) Setting {
	s := Setting{Flag: flag, Value: value, Written: value}
	name := strings.TrimPrefix(flag, "--")
	for _, k := range Keys() {
		if k.Name == name && k.Section != filesSection {
			s.Section, s.Key = k.Section, name
			return s
		}
	}
	for _, a := range actions {
		if a.flag == strings.TrimSuffix(flag, "-try") {
			s.Section, s.Key, s.optional = filesSection, a.key, a.flag != flag
			s.split()
			if flag == "--ro-bind" || flag == "--ro-bind-try" {
				s.Key = "exec"
			}
			return s
		}
	}
	return s
}

// split finds the place and the source in the value of a file flag.
func (s *Setting) split() {
	s.place = s.Value
	switch first, second, both := strings.Cut(s.Value, ":/"); s.Key {
	case "read", "write", "exec", "overlay", "device":
		s.source = first
		if both {
			s.place = "/" + second
		} else {
			s.place = first
		}
	case "symlink", "file":
		if both {
			s.place = "/" + second
		}
	case "tmpfs":
		if i := strings.LastIndexByte(s.Value, ':'); i > 0 {
			s.place = s.Value[:i]
		}
	}
}

// Effective is the settings that count, in the order of their keys: of those that take each other's place the last. A
// deny is never taken back.
func Effective(settings []Setting) []Setting {
	last := map[string]int{}
	for i := range settings {
		last[settings[i].id()] = i
	}
	var kept []Setting
	for i, s := range settings {
		if s.Key == "" {
			continue
		}
		access := slices.Contains([]string{"read", "write", "exec"}, s.Key)
		if j := last[s.id()]; j == i || access && s.At.File != "" && settings[j].At.File != "" {
			kept = append(kept, s) // the rights that policies give a path add up
		}
	}
	order := map[string]int{}
	for i, k := range Keys() {
		if k.Section != filesSection {
			order[k.Section+k.Name] = i
		}
	}
	slices.SortStableFunc(kept, func(a, b Setting) int { return order[a.Section+a.Key] - order[b.Section+b.Key] })
	return kept
}

// Format writes settings as one policy that says the same, below a comment. Without values the environment has its
// names alone.
func Format(comment string, settings []Setting, values bool) string {
	var b strings.Builder
	for line := range strings.Lines(comment) {
		b.WriteString("# " + line)
	}
	b.WriteString("version: 1\n")
	section, key := "", ""
	for _, s := range Effective(settings) {
		top, _, files := strings.Cut(s.Section, ".")
		if top != section {
			section, key = top, ""
			b.WriteString(top + ":\n")
		}
		if files {
			if key != "files" {
				b.WriteString("  files:\n")
			}
			key = "files"
			s.formatRule(&b)
			continue
		}
		value := s.Value
		if s.Key == "env" && !values {
			value, _, _ = strings.Cut(value, "=")
		}
		k := keysOf(s.Section)[s.Key]
		switch k.kind.Kind().String() {
		case "slice":
			if key != s.Key {
				fmt.Fprintf(&b, "  %s:\n", s.Key)
			}
			fmt.Fprintf(&b, "    - %s\n", plain(value))
		case "map":
			name, limit, _ := strings.Cut(value, "=")
			if key != s.Key {
				fmt.Fprintf(&b, "  %s:\n", s.Key)
			}
			fmt.Fprintf(&b, "    %s: %s\n", plain(name), plain(limit))
		case "bool":
			fmt.Fprintf(&b, "  %s: %s\n", s.Key, value)
		default:
			fmt.Fprintf(&b, "  %s: %s\n", s.Key, plain(value))
		}
		key = s.Key
	}
	return b.String()
}

const optional = "      optional: true\n"

func (s *Setting) formatRule(b *strings.Builder) {
	subject := s.place
	if s.source != "" {
		subject = s.source
	}
	fmt.Fprintf(b, "    - %s: %s\n", s.Key, plain(subject))
	beside := func(key, value string) { fmt.Fprintf(b, "      %s: %s\n", key, plain(value)) }
	if s.source != "" && s.source != s.place {
		beside("at", s.place)
	}
	before, _, _ := strings.Cut(s.Value, ":/")
	switch s.Key {
	case "tmpfs":
		if size, ok := strings.CutPrefix(s.Value, s.place+":"); ok {
			beside("size", size)
		}
	case "symlink":
		beside("to", before)
	case "file":
		beside("fd", before)
	}
	switch {
	case s.Report:
		beside("if-absent", "report")
	case strings.HasSuffix(s.Flag, "-try"):
		b.WriteString(optional)
	}
	if s.At.File == "" && s.Key == "write" { // the flag gives both
		fmt.Fprintf(b, "    - exec: %s\n", plain(subject))
		if s.source != "" && s.source != s.place {
			beside("at", s.place)
		}
		if strings.HasSuffix(s.Flag, "-try") {
			b.WriteString(optional)
		}
	}
}

// plain is a value as YAML has it: as it is where that reads the same to everybody, else in quotes.
func plain(s string) string {
	safe := s != "" && !strings.ContainsRune("-?~", rune(s[0])) && s[len(s)-1] != ':' && !strings.ContainsFunc(s, func(r rune) bool {
		return !strings.ContainsRune("/._-+=@%:~", r) && !(r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z')
	})
	if safe && !slices.Contains([]string{"null", "true", "false", "yes", "no", "on", "off", "y", "n"}, strings.ToLower(s)) {
		return s
	}
	quoted, err := json.Marshal(s)
	if err != nil {
		panic(err) // a string
	}
	return string(quoted)
}

// Line is a setting in one line.
func (s *Setting) Line() string {
	var b strings.Builder
	if s.Section == filesSection {
		s.formatRule(&b)
		lines := strings.Split(strings.TrimSpace(b.String()), "\n")
		for i := range lines {
			lines[i] = strings.TrimPrefix(strings.TrimSpace(lines[i]), "- ")
		}
		return filesSection + ": " + strings.Join(lines, ", ")
	}
	return s.Section + "." + s.Key + ": " + plain(s.Value)
}

// Diff says how b differs from a.
func Diff(a, b []Setting) []string {
	a, b = Effective(a), Effective(b)
	has := func(list []Setting, s Setting) bool {
		return slices.ContainsFunc(list, func(o Setting) bool { return o.Line() == s.Line() })
	}
	var lines []string
	for _, s := range a {
		if !has(b, s) {
			lines = append(lines, fmt.Sprintf("- %s  (%s)", s.Line(), s.Origin()))
		}
	}
	for _, s := range b {
		if !has(a, s) {
			lines = append(lines, fmt.Sprintf("+ %s  (%s)", s.Line(), s.Origin()))
		}
	}
	return lines
}
