package policies

import (
	"os"
	"reflect"
	"slices"
	"strings"

	"github.com/jailrun/jail/isolate"
)

// Setting is one thing that a policy, or a flag, says: a flag of jail run and its value.
type Setting struct {
	Section string // "borders"; "permissions.files" of a file rule
	Key     string // "memory"; "write"
	Flag    string // "--memory"; "--bind"
	Value   string // as the flag takes it: of a path, what it came to

	// Of a file rule, what the flag has no word for.
	NoExec, Report, Glob bool

	Written string   // as it stands in the policy
	At      Position // zero of a flag

	// Of a rule for calls, where these stand.
	ErrnoAt Position
	WhenAt  []Position

	place    string // of a file rule: the path in the jail
	optional bool
	source   string // of a file rule with one: the path on the host
}

// Origin is the place where a setting was written, for people.
func (s *Setting) Origin() string {
	if s.At.File == "" {
		return "the command line"
	}
	return s.At.String()
}

// id tells which settings take each other's place: of those with the same id the last one counts.
func (s *Setting) id() string {
	name := s.Value
	switch s.Key {
	case "rlimit", "env":
		name, _, _ = strings.Cut(s.Value, "=")
		name = strings.TrimPrefix(strings.ToLower(name), "rlimit_")
		if s.Key == "env" {
			name, _, _ = strings.Cut(s.Value, "=")
		}
	case "fd":
		if _, to, ok := strings.Cut(s.Value, ":"); ok {
			name = to
		}
	case "cap-add", "cap-drop", "io", "ipc", "notify":
	default:
		switch {
		case s.Section == syscallsSection:
			return s.Section + " " + s.Value
		case s.Section != filesSection:
			return s.Section + " " + s.Key
		case s.Key == "deny":
			return s.Section + " deny " + s.place
		}
		return s.Section + " " + s.place
	}
	return s.Section + " " + s.Key + " " + name
}

// single says whether two policies that say it differently contradict each other.
func (s *Setting) single() bool {
	return s.Section != filesSection && !slices.Contains([]string{"cap-add", "cap-drop", "io", "ipc", "notify"}, s.Key)
}

// reader makes the settings of one policy.
type reader struct {
	*loader
	dir      string // what relative paths are relative to
	builtin  bool
	settings []Setting
	extends  []*node
}

// document reads a whole policy.
func (r *reader) document(root *node) error {
	if root.kind != mapNode {
		return root.fail("is %s; a policy begins with version: 1", root.kind)
	}
	top := reflect.TypeFor[Policy]()
	var names []string
	for i := range top.NumField() {
		names = append(names, keyOf("", top.Field(i)).Name)
	}
	version := false
	for i, key := range root.keys {
		value := root.items[i]
		if !slices.Contains(names, key.value) {
			return unknownKey(key, "", names)
		}
		if value.null {
			return key.fail("%q has no value", key.value)
		}
		switch key.value {
		case "version":
			version = true
			if value.kind != scalarNode || value.value != "1" {
				return value.fail("version has to be 1, the only one that this jail knows")
			}
		case "extends":
			list, err := scalars(key, value)
			if err != nil {
				return err
			}
			r.extends = list
		default:
			if err := r.section(key.value, value); err != nil {
				return err
			}
		}
	}
	if !version {
		return root.fail("has no version; a policy begins with version: 1")
	}
	return nil
}

func (r *reader) section(name string, n *node) error {
	if n.kind != mapNode {
		return n.fail("%s is %s; it has keys, as in %s: {%s: …}", name, n.kind, name, firstKey(name))
	}
	known := keysOf(name)
	for i, key := range n.keys {
		k, ok := known[key.value]
		if !ok {
			return unknownKey(key, name, names(name))
		}
		if n.items[i].null {
			return key.fail("%q has no value", key.value)
		}
		if err := r.key(k, key, n.items[i]); err != nil {
			return err
		}
	}
	return nil
}

// key reads the value of one key.
func (r *reader) key(k Key, key, n *node) error {
	switch k.kind.Kind() {
	case reflect.Slice:
		switch k.Name {
		case "files":
			return r.rules(n, k.Name, "read: ./data", r.fileRule)
		case "syscalls":
			return r.rules(n, k.Name, "deny: ptrace", r.syscallRule)
		}
		list, err := scalars(key, n)
		if err != nil {
			return err
		}
		for _, item := range list {
			if err := r.scalar(k, item.value, item); err != nil {
				return err
			}
		}
		return nil
	case reflect.Map:
		if n.kind != mapNode {
			return n.fail("%s is %s; it is a mapping, as %s: {nofile: 64}", k.Name, n.kind, k.Name)
		}
		for i, name := range n.keys {
			value := n.items[i]
			if value.kind != scalarNode || value.null {
				return name.fail("%s %s has to be one value", k.Name, name.value)
			}
			if err := r.scalar(k, name.value+"="+value.value, value); err != nil {
				return err
			}
			last := &r.settings[len(r.settings)-1]
			last.Written = last.Value // the name belongs to it
		}
		return nil
	}
	if n.kind != scalarNode {
		return n.fail("%s is %s; it has to be one value", k.Name, n.kind)
	}
	if k.kind.Kind() == reflect.Bool && n.value != "true" && n.value != "false" {
		return n.fail("%s %q is not true or false", k.Name, n.value)
	}
	return r.scalar(k, n.value, n)
}

// scalar adds the setting of one value.
func (r *reader) scalar(k Key, value string, n *node) error {
	s := Setting{Section: k.Section, Key: k.Name, Flag: "--" + k.Name, Value: value, Written: n.value, At: n.at}
	if n.value == "" {
		return n.fail("%s has an empty value", k.Name)
	}
	var err error
	switch k.kind {
	case reflect.TypeFor[Path]():
		s.Value, err = r.path(n, value)
	case reflect.TypeFor[PathOrWord]():
		path, end := value, ""
		if k.Name == "rootfs" && strings.HasSuffix(value, ":rw") {
			path, end = strings.TrimSuffix(value, ":rw"), ":rw"
		}
		if k.Name == "rootfs" || strings.Contains(path, "/") || strings.HasSuffix(path, ".json") {
			s.Value, err = r.path(n, path)
			s.Value += end
		} else if k.Name == "result" && path != "-" {
			return n.fail("result %q is not - or a path; a file is named by a path, as ./result.json", value)
		}
	}
	if err == errUnset { //nolint:errorlint // it is not wrapped
		return n.fail("%s: the variable in %q is not set", k.Name, n.value)
	}
	r.settings = append(r.settings, s)
	return err
}

// scalars is a value that may be one or a list of them.
func scalars(key, n *node) ([]*node, error) {
	list := []*node{n}
	if n.kind == listNode {
		list = n.items
	}
	if len(list) == 0 {
		return nil, n.fail("%s is an empty list", key.value)
	}
	seen := make(map[string]bool, len(list))
	for _, item := range list {
		switch {
		case item.kind != scalarNode:
			return nil, item.fail("%s has %s where a value has to be", key.value, item.kind)
		case item.null || item.value == "":
			return nil, item.fail("%s has an empty value", key.value)
		case seen[item.value]:
			return nil, item.fail("%s has %q a second time", key.value, item.value)
		}
		seen[item.value] = true
	}
	return list, nil
}

// action is what a rule does: a key that each rule has one of.
type action struct {
	key, flag string
	beside    []string // the keys that may stand beside it
}

var fileActions = []action{
	{"read", "--ro-bind", []string{"at", "optional", "if-absent"}},
	{"write", "--bind", []string{"at", "optional"}},
	{"exec", "--ro-bind", []string{"at", "optional", "if-absent"}},
	{"deny", "--deny", []string{"if-absent"}},
	{"overlay", "--overlay", []string{"at", "optional"}},
	{"device", "--device", []string{"at", "optional"}},
	{"tmpfs", "--tmpfs", []string{"size"}},
	{"dir", "--dir", nil},
	{"symlink", "--symlink", []string{"to"}},
	{"file", "--file", []string{"fd"}},
}

// FileFlags are the flags of file rules.
func FileFlags() []string {
	flags := []string{"--bind-try", "--ro-bind-try"}
	for _, a := range fileActions {
		if !slices.Contains(flags, a.flag) {
			flags = append(flags, a.flag)
		}
	}
	return flags
}

const filesSection = "permissions.files"

// rules reads a list of rules.
func (r *reader) rules(n *node, name, example string, read func(*node) error) error {
	if n.kind != listNode {
		return n.fail("%s is %s; it is a list of rules, as - %s", name, n.kind, example)
	}
	for _, item := range n.items {
		if item.kind != mapNode {
			return item.fail("is %s where a rule has to be, as %s", item.kind, example)
		}
		if err := read(item); err != nil {
			return err
		}
	}
	return nil
}

// rule finds the one action of a rule, and refuses what can't stand beside it. at has all values by their keys.
func rule(n *node, section, name string, actions []action) (a action, at map[string]*node, err error) {
	at = map[string]*node{}
	var words []string
	for _, other := range actions {
		words = append(words, other.key)
	}
	for i, key := range n.keys {
		switch {
		case !slices.Contains(names(section), key.value):
			return a, nil, unknownKey(key, name, names(section))
		case n.items[i].null:
			return a, nil, key.fail("%q has no value", key.value)
		}
		at[key.value] = n.items[i]
		switch j := slices.Index(words, key.value); {
		case j >= 0 && a.key != "":
			return a, nil, key.fail("is a second action, beside %s; each has a rule of its own%s", a.key, map[bool]string{true: ", and the rights for one path add up"}[section == filesSection])
		case j >= 0:
			a = actions[j]
		}
	}
	if a.key == "" {
		last := len(words) - 1
		return a, nil, n.fail("is a rule without an action: %s or %s", strings.Join(words[:last], ", "), words[last])
	}
	for _, key := range n.keys {
		if key.value != a.key && !slices.Contains(a.beside, key.value) {
			return a, nil, key.fail("%s can't stand beside %s", key.value, a.key)
		}
	}
	return a, at, nil
}

func (r *reader) fileRule(n *node) error {
	a, at, err := rule(n, filesSection, "a file rule", fileActions)
	if err != nil {
		return err
	}
	extra := map[string]string{}
	for i, key := range n.keys {
		switch value := n.items[i]; {
		case key.value == a.key:
		case value.kind != scalarNode || value.value == "":
			return value.fail("%s has to be one value", key.value)
		case key.value == "optional" && value.value != "true" && value.value != "false":
			return value.fail("optional %q is not true or false", value.value)
		case key.value == "if-absent" && value.value != "report":
			return value.fail("if-absent %q is not report; without it, a path that does not exist is an error", value.value)
		default:
			extra[key.value] = value.value
		}
	}
	for _, needed := range []string{"to", "fd"} {
		if slices.Contains(a.beside, needed) && at[needed] == nil {
			return n.fail("%s needs %s", a.key, needed)
		}
	}
	if at["if-absent"] != nil && extra["optional"] != "" {
		return at["optional"].fail("optional and if-absent exclude each other")
	}
	list, err := scalars(&node{value: a.key}, at[a.key])
	if err != nil {
		return err
	}
	if len(list) > 1 && (at["at"] != nil || at["to"] != nil || at["fd"] != nil) {
		return at[a.key].fail("is a list; with at, to or fd it is one path")
	}
	for _, item := range list {
		s := Setting{
			Section: filesSection, Key: a.key, Flag: a.flag, Written: item.value, At: item.at,
			Report: extra["if-absent"] != "", optional: extra["optional"] == "true",
		}
		if err := r.file(&s, item, at, extra); err != nil {
			return err
		}
	}
	return nil
}

// file adds one rule for one path.
func (r *reader) file(s *Setting, item *node, at map[string]*node, extra map[string]string) error {
	path, err := r.path(item, item.value)
	if s.optional && err == errUnset { //nolint:errorlint // it is not wrapped
		return nil
	}
	if err == errUnset { //nolint:errorlint // it is not wrapped
		return item.fail("%s: the variable in %q is not set; with optional: true the rule would be left out", s.Key, item.value)
	}
	if err != nil {
		return err
	}
	shown := slices.Contains([]string{"read", "write", "exec", "deny"}, s.Key)
	switch {
	case strings.Contains(path, ":/"):
		return item.fail(`%s %q has ":/", which separates two paths in the flags`, s.Key, item.value)
	case isolate.IsGlob(path) && !shown:
		return item.fail("%s %q is a pattern; read, write, exec and deny take those", s.Key, item.value)
	case isolate.IsGlob(path):
		s.Glob = true
		if err := isolate.CheckGlob(path); err != nil {
			return item.fail("%s %q %v", s.Key, item.value, err)
		}
		if at["at"] != nil {
			return at["at"].fail("at can't stand beside a pattern")
		}
	case !shown && s.Key != "overlay" && s.Key != "device" && !rooted(item.value):
		return item.fail("%s %q is a path in the jail and has to be absolute", s.Key, item.value)
	}
	if s.optional && (s.Key == "overlay" || s.Key == "device") { // whose flags have no form that tries
		if _, err := os.Lstat(path); err != nil {
			return nil //nolint:nilerr // it is left out
		}
	}
	s.Value, s.place = path, path
	switch s.Key {
	case "tmpfs":
		if extra["size"] != "" {
			s.Value += ":" + extra["size"]
		}
	case "symlink":
		s.Value = extra["to"] + ":" + path
	case "file":
		s.Value = extra["fd"] + ":" + path
	case "read", "write", "exec", "overlay", "device":
		s.source = path
		if to := at["at"]; to != nil {
			if !rooted(to.value) {
				return to.fail("at %q is a path in the jail and has to be absolute", to.value)
			}
			if s.place, err = r.path(to, to.value); err != nil {
				return err
			}
			s.Value += ":" + s.place
		}
	}
	r.settings = append(r.settings, *s)
	return nil
}

// rooted says whether a path stands for itself, wherever the policy is.
func rooted(path string) bool { return path[0] == '/' || path[0] == '~' || path[0] == '$' }

// unknownKey is the error for a key that is not known, with the one that was probably meant.
func unknownKey(key *node, section string, known []string) error {
	where := ""
	if section != "" {
		where = " in " + section
	}
	if near := Nearest(key.value, known); near != "" {
		return key.fail("unknown key %q%s; did you mean %q?", key.value, where, near)
	}
	for _, k := range Keys() {
		if k.Name == key.value && k.Section != section {
			return key.fail("unknown key %q%s; it belongs to %s", key.value, where, k.Section)
		}
	}
	var all []string
	for _, k := range Keys() {
		all = append(all, k.Name)
	}
	if near := Nearest(key.value, all); near != "" {
		for _, k := range Keys() {
			if k.Name == near {
				return key.fail("unknown key %q%s; did you mean %q, in %s?", key.value, where, near, k.Section)
			}
		}
	}
	return key.fail("unknown key %q%s; there are %s", key.value, where, strings.Join(known, ", "))
}

func names(section string) []string {
	var list []string
	for _, k := range Keys() {
		if k.Section == section {
			list = append(list, k.Name)
		}
	}
	return list
}

func firstKey(section string) string { return names(section)[0] }
