package policies

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
)

// FromFlag is the setting that a flag of the command line is. Flags that a policy has no word for have no Key.
func FromFlag(flag, value string) Setting {
	s := Setting{Flag: flag, Value: value, Written: value}
	name := strings.TrimPrefix(flag, "--")
	for _, k := range Keys() {
		if k.Name == name && !k.ofRule() && name != "syscalls" {
			s.Section, s.Key = k.Section, name
			return s
		}
	}
	if flag == "--syscalls" {
		if parts, err := SplitSyscallRule(value); err == nil {
			s.Section, s.Key = syscallsSection, parts.Action
			_, s.Written, _ = strings.Cut(value, "=")
		}
		return s
	}
	for _, a := range fileActions {
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
		switch {
		case k.Name == "syscalls":
			for _, a := range syscallActions {
				order[syscallsSection+a.key] = i
			}
		case !k.ofRule():
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
	var rules []Setting // they come first
	list := Effective(settings)
	for i, s := range list {
		if s.Section == filesSection {
			rules = append(rules, s)
			continue
		}
		if len(rules) > 0 {
			section = "permissions"
			formatRules(&b, rules)
			rules = nil
		}
		if name, _, _ := strings.Cut(s.Section, "."); name != section {
			section, key = name, ""
			b.WriteString(section + ":\n")
		}
		if s.Section == syscallsSection {
			if i == 0 || list[i-1].Section != syscallsSection {
				end := i + 1
				for end < len(list) && list[end].Section == syscallsSection {
					end++
				}
				formatSyscalls(&b, list[i:end])
			}
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
	if len(rules) > 0 {
		formatRules(&b, rules)
	}
	return b.String()
}

const (
	optional = "      optional: true\n"
	report   = "      if-absent: report\n"
)

// rule is what a file rule is about, and the lines beside it.
func (s *Setting) rule() (subject, beside string) {
	subject = s.place
	if s.source != "" {
		subject = s.source
	}
	before, _, _ := strings.Cut(s.Value, ":/")
	if s.source != "" && s.source != s.place {
		beside = "      at: " + plain(s.place) + "\n"
	}
	switch s.Key {
	case "tmpfs":
		if size, ok := strings.CutPrefix(s.Value, s.place+":"); ok {
			beside = "      size: " + plain(size) + "\n"
		}
	case "symlink":
		beside = "      to: " + plain(before) + "\n"
	case "file":
		beside = "      fd: " + plain(before) + "\n"
	}
	switch {
	case s.Report:
		beside += report
	case strings.HasSuffix(s.Flag, "-try"):
		beside += optional
	}
	return subject, beside
}

// formatRules writes file rules; those that say the same of several paths become one.
func formatRules(b *strings.Builder, rules []Setting) {
	const widest = 100 // of a list, in bytes
	b.WriteString("permissions:\n  files:\n")
	for len(rules) > 0 {
		first := rules[0]
		subject, beside := first.rule()
		list, width, count := []string{subject}, len(subject), 1
		for _, s := range rules[1:] {
			next, also := s.rule()
			if s.Key != first.Key || also != beside || !slices.Contains([]string{"", optional, report}, also) || first.giveBoth() || width+len(next) > widest {
				break
			}
			count++
			if !slices.Contains(list, next) { // which nothing may be in twice
				width += len(next)
				list = append(list, next)
			}
		}
		words := flow(list)
		fmt.Fprintf(b, "    - %s: %s\n%s", first.Key, words, beside)
		if first.giveBoth() {
			fmt.Fprintf(b, "    - exec: %s\n%s", words, beside)
		}
		rules = rules[count:]
	}
}

// giveBoth says whether a setting is a flag that gives writing and executing.
func (s *Setting) giveBoth() bool { return s.At.File == "" && s.Key == "write" }

// plain is a value as YAML has it: as it is where that reads the same to everybody, else in quotes.
func plain(s string) string {
	safe := s != "" && !strings.ContainsRune("-?~@", rune(s[0])) && s[len(s)-1] != ':' && !strings.ContainsFunc(s, func(r rune) bool {
		return !strings.ContainsRune("/._-+=@%:~", r) && !(r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z')
	})
	if safe && !slices.Contains([]string{"null", "true", "false", "yes", "no", "on", "off", "y", "n"}, strings.ToLower(s)) {
		return s
	}
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(s); err != nil {
		panic(err) // a string
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// Line is a setting in one line.
func (s *Setting) Line() string {
	if s.Section == syscallsSection {
		return syscallLine(s.Value)
	}
	if s.Section != filesSection {
		value := s.Value
		if k, ok := keysOf(s.Section)[s.Key]; !ok || k.kind.Kind() != reflect.Bool {
			value = plain(value)
		}
		return s.Section + "." + s.Key + ": " + value
	}
	subject, beside := s.rule()
	line := filesSection + ": " + s.Key + ": " + plain(subject)
	for extra := range strings.Lines(beside) {
		line += ", " + strings.TrimSpace(extra)
	}
	if s.giveBoth() {
		line += ", and exec"
	}
	return line
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
