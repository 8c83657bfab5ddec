package policies

import (
	"embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

//go:embed builtin/*.yaml
var builtin embed.FS

// Schema is the JSON Schema of a policy, made from its Go types.
//
//go:generate go test -run ^(TestSchema|TestReference)$ -update .
//go:embed policy.schema.json
var Schema string

// Builtin lists the names of the built-in policies.
func Builtin() []string {
	entries, err := builtin.ReadDir("builtin")
	if err != nil {
		panic(err) // they are in the program
	}
	var names []string
	for _, e := range entries {
		names = append(names, strings.TrimSuffix(e.Name(), ".yaml"))
	}
	return names
}

// Text is a built-in policy as it was written.
func Text(name string) (string, error) {
	b, err := builtin.ReadFile("builtin/" + name + ".yaml")
	if err != nil {
		return "", fmt.Errorf("there is no built-in policy %q", name)
	}
	return string(b), nil
}

// IsFile says whether a policy's name is that of a file: it has a slash, or ends as a policy file does.
func IsFile(name string) bool {
	return strings.Contains(name, "/") || slices.Contains([]string{".yaml", ".yml", ".json"}, filepath.Ext(name))
}

// Bounds of what one policy may extend.
const (
	maxExtends  = 16 // one after the other
	maxPolicies = 64 // in all
	maxSettings = 10_000
)

// Policies of a file are read from below its folder alone.
type loader struct {
	cwd, home string
	root      *os.Root // the folder of the policy that was named; nil where that is a built-in one
	rootName  string   // as the user named it
	parents   map[string][]Setting
	ancestors map[string][]string
	files     []string
}

// Loaded is a policy with all that it extends.
type Loaded struct {
	Name string
	// Settings in their order: what a policy extends stands before its own, and of two that take each other's place
	// the later counts.
	Settings []Setting
	// Files are the paths of the files that were read, without links.
	Files []string
}

// Load reads a policy: a built-in one by its name, or a file. A file has to be a regular one of at most 1 MiB that
// belongs to the caller or to root and that nobody else may write to; so what it names, its author could read.
//
// Paths: ~ and ~/… are the caller's HOME; ${NAME} at the begin is a variable of the caller's environment that holds an
// absolute path; a relative path is below the folder of the policy's file, and in a built-in policy below the working
// folder. Nothing else is replaced, and ".." is refused.
//
// The error is an *Error for all that is wrong with the text.
func Load(name string) (*Loaded, error) {
	l := &loader{home: os.Getenv("HOME"), parents: map[string][]Setting{}, ancestors: map[string][]string{}}
	var err error
	if l.cwd, err = os.Getwd(); err != nil {
		return nil, err
	}
	if !IsFile(name) {
		settings, err := l.builtin(name, nil, nil)
		return &Loaded{Name: name, Settings: settings}, err
	}
	l.rootName = filepath.Dir(name)
	if l.root, err = os.OpenRoot(l.rootName); err != nil {
		return nil, about(name, err)
	}
	defer l.root.Close()
	settings, err := l.file(filepath.Base(name), nil, nil)
	return &Loaded{Name: name, Settings: settings, Files: l.files}, err
}

// about is an error of a file that can't be read.
func about(name string, err error) error {
	var cause *fs.PathError
	if errors.As(err, &cause) {
		err = cause.Err
	}
	return fmt.Errorf("policy %q can't be read: %w", name, err)
}

// builtin reads a built-in policy; by is where it was named, or nil.
func (l *loader) builtin(name string, chain []string, by *node) ([]Setting, error) {
	text, err := Text(name)
	if err != nil {
		hint := "the built-in ones are " + strings.Join(Builtin(), ", ") + "; a file is named by a path, as ./" + name + ".yaml"
		if near := Nearest(name, Builtin()); near != "" {
			hint = fmt.Sprintf("did you mean %q?", near)
		}
		if by != nil {
			return nil, by.fail("%v; %s", err, hint)
		}
		return nil, fmt.Errorf("%w; %s", err, hint)
	}
	return l.read("built-in "+name, []byte(text), reader{loader: l, dir: l.cwd, builtin: true}, "", chain, by)
}

// file reads a policy below the folder of the one that was named.
func (l *loader) file(name string, chain []string, by *node) ([]Setting, error) {
	shown := filepath.Join(l.rootName, name)
	fail := func(err error) ([]Setting, error) {
		err = about(shown, err)
		if by != nil {
			err = by.fail("%v", err)
		}
		return nil, err
	}
	// A FIFO must not hold it up.
	f, err := l.root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return fail(err)
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return fail(err)
	case !info.Mode().IsRegular():
		return fail(errors.New("it is not a regular file"))
	case info.Size() > maxSize:
		return fail(errors.New("it is larger than 1 MiB"))
	}
	if err := trusted(info); err != nil {
		return fail(err)
	}
	text, err := io.ReadAll(io.LimitReader(f, maxSize+1))
	if err != nil {
		return fail(err)
	}
	dir, err := filepath.Abs(filepath.Dir(shown))
	if err != nil {
		return fail(err)
	}
	path, err := filepath.EvalSymlinks(filepath.Join(dir, filepath.Base(shown)))
	if err != nil {
		return fail(err)
	}
	if !slices.Contains(l.files, path) {
		l.files = append(l.files, path)
	}
	return l.read(shown, text, reader{loader: l, dir: dir}, filepath.Dir(name), chain, by)
}

// read makes the settings of a policy and of what it extends.
func (l *loader) read(name string, text []byte, r reader, below string, chain []string, by *node) ([]Setting, error) {
	if slices.Contains(chain, name) {
		return nil, by.fail("extends itself: %s", strings.Join(append(chain[slices.Index(chain, name):], name), " → "))
	}
	if known, ok := l.parents[name]; ok {
		return known, nil
	}
	chain = append(slices.Clone(chain), name)
	switch {
	case len(chain) > maxExtends:
		return nil, by.fail("extends more than %d policies one after the other", maxExtends)
	case len(l.parents) == maxPolicies:
		return nil, by.fail("extends more than %d policies", maxPolicies)
	}
	root, err := parse(name, text)
	if err != nil {
		return nil, err
	}
	if err := r.document(root); err != nil {
		return nil, err
	}
	var all []Setting
	var ancestors []string
	for i, parent := range r.extends {
		settings, parentName, err := l.extend(parent, r, below, chain)
		if err != nil {
			return nil, err
		}
		if i > 0 {
			if err := l.contradiction(parent, all, settings, ancestors, append(l.ancestors[parentName], parentName), r.settings); err != nil {
				return nil, err
			}
		}
		// What two of them extend counts once, in its first place: else it would take back what came after it.
		for _, s := range settings {
			if !slices.Contains(ancestors, s.At.File) {
				all = append(all, s)
			}
		}
		ancestors = append(append(ancestors, l.ancestors[parentName]...), parentName)
	}
	all = append(all, r.settings...)
	if len(all) > maxSettings {
		return nil, root.fail("comes to more than %d settings", maxSettings)
	}
	if err := addRights(all); err != nil {
		return nil, err
	}
	l.parents[name], l.ancestors[name] = all, ancestors
	return all, nil
}

// extend reads what one word of extends names, and returns the name that it is known by.
func (l *loader) extend(word *node, r reader, below string, chain []string) ([]Setting, string, error) {
	name := word.value
	if !IsFile(name) {
		settings, err := l.builtin(name, chain, word)
		return settings, "built-in " + name, err
	}
	switch {
	case r.builtin || l.root == nil:
		return nil, "", word.fail("a built-in policy extends no file")
	case filepath.IsAbs(name) || name[0] == '~' || name[0] == '$':
		return nil, "", word.fail("extends %q is not relative to the policy's folder", name)
	case slices.Contains(strings.Split(name, "/"), ".."):
		return nil, "", word.fail(`extends %q leaves the policy's folder: ".." is refused`, name)
	}
	file := path.Join(below, name)
	settings, err := l.file(file, chain, word)
	return settings, filepath.Join(l.rootName, file), err
}

// contradiction finds what two policies say differently, where neither has it from the other and the policy that
// extends both does not say it itself.
func (l *loader) contradiction(by *node, before, now []Setting, ancestorsBefore, ancestorsNow []string, own []Setting) error {
	last := map[string]*Setting{}
	for i := range before {
		last[before[i].id()] = &before[i]
	}
	final := map[string]*Setting{}
	var order []string
	for i := range now {
		if _, seen := final[now[i].id()]; !seen {
			order = append(order, now[i].id())
		}
		final[now[i].id()] = &now[i]
	}
	for _, id := range order {
		a, b := last[id], final[id]
		if a == nil || !b.single() || a.Value == b.Value || slices.Contains(ancestorsNow, a.At.File) || slices.Contains(ancestorsBefore, b.At.File) {
			continue
		}
		if !slices.ContainsFunc(own, func(s Setting) bool { return s.id() == id }) {
			return by.fail("%s is %q in %s and %q in %s; say which with %s in this policy", a.Key, a.Written, a.At, b.Written, b.At, a.Key)
		}
	}
	return nil
}

// addRights gives all rules for one path the rights of all of them.
func addRights(settings []Setting) error {
	type rights struct {
		write, exec, must, report bool
		first                     *Setting
	}
	at := map[string]*rights{}
	access := func(s *Setting) bool {
		return s.Section == filesSection && (s.Key == "read" || s.Key == "write" || s.Key == "exec")
	}
	for i := range settings {
		s := &settings[i]
		if !access(s) {
			continue
		}
		r := at[s.place]
		if r == nil {
			r = &rights{first: s}
			at[s.place] = r
		}
		if s.source != r.first.source {
			return &Error{s.At, fmt.Sprintf("%s %q and %q are to be at the same path in the jail", s.Key, s.source, r.first.source)}
		}
		r.write = r.write || s.Key == "write"
		r.exec = r.exec || s.Key == "exec"
		r.must = r.must || !s.optional && !s.Report
		r.report = r.report || s.Report
	}
	for i := range settings {
		s := &settings[i]
		if !access(s) {
			continue
		}
		r := at[s.place]
		s.Flag = "--ro-bind"
		if r.write {
			s.Flag = "--bind"
		}
		if !r.must {
			s.Flag += "-try"
		}
		s.NoExec, s.Report = !r.exec, r.report && !r.must
	}
	return nil
}

var errUnset = errors.New("a variable that is not set")

// path makes a path of a policy absolute.
func (r *reader) path(n *node, written string) (string, error) {
	p := written
	switch {
	case p == "~" || strings.HasPrefix(p, "~/"):
		if !filepath.IsAbs(r.home) {
			return "", n.fail("%q: HOME is not set to an absolute path", written)
		}
		p = r.home + p[1:]
	case strings.HasPrefix(p, "~"):
		return "", n.fail("%q: only ~ and ~/ stand for a home, your own; a file of that name is ./%s", written, written)
	case strings.HasPrefix(p, "${"):
		name, rest, closed := strings.Cut(p[2:], "}")
		if !closed || name == "" || rest != "" && rest[0] != '/' {
			return "", n.fail("%q: a variable is ${NAME}, and a slash or nothing behind it", written)
		}
		value, ok := os.LookupEnv(name)
		switch {
		case !ok || value == "":
			return "", errUnset
		case !filepath.IsAbs(value):
			return "", n.fail("%q: the variable is %q, which is not an absolute path", written, value)
		}
		p = value + rest
	}
	switch {
	case strings.Contains(strings.TrimPrefix(written, "${"), "$"):
		return "", n.fail("%q: a variable stands at the begin of a path alone", written)
	case slices.Contains(strings.Split(p, "/"), ".."):
		return "", n.fail(`%q has ".."; a relative path lies below the policy's folder`, written)
	case filepath.IsAbs(p):
		return filepath.Clean(p), nil
	}
	p = filepath.Join(r.dir, p)
	if r.builtin {
		for _, dir := range []string{"/", filepath.Clean(r.home)} {
			if within(dir, p) {
				return "", n.fail("%q is the working folder here, and that is or holds %s; go to the folder of a project", written, dir)
			}
		}
	}
	return p, nil
}

func within(path, dir string) bool {
	return path == dir || dir == "/" || strings.HasPrefix(path, dir+"/")
}
