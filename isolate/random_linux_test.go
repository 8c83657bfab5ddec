//go:build amd64 || arm64

package isolate

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

// TestRandomSpecs runs Specs that nobody has thought of. Each that Compile accepts is run, with a payload that tells what
// it finds; what it should find comes from a model of the view that knows the rules' documentation alone. Each that is
// refused says which field, and why.
func TestRandomSpecs(t *testing.T) {
	w := newWorld(t)
	privateTemp(t)
	warmUp(t)
	n := pick(100, 1000) // as each user
	for name, value := range map[string]string{"rapid.checks": strconv.Itoa(n), "rapid.nofailfile": "true"} {
		f := flag.Lookup(name).Value
		before := f.String()
		must(f.Set(value))
		defer func() { must(f.Set(before)) }()
	}
	ran, refused := 0, 0
	rapid.Check(t, func(rt *rapid.T) {
		w.reset()
		if w.try(rt, w.draw(rt)) {
			ran++
		} else {
			refused++
		}
	})
	if ran < n/5 || refused == 0 {
		t.Errorf("%d ran, %d were refused: that shows little", ran, refused)
	}
	t.Logf("figure: random Specs: %d run, %d refused", ran, refused)
}

// world is the files of the host that random Specs are about.
type world struct {
	dir, src, root string
	name           string // of the jails
	probe          []byte
	host           map[string]string // its namespaces
	caps           uint64
}

func newWorld(t *testing.T) *world {
	gcc := needs(t, "gcc")
	source, err := cSources.ReadFile("testdata/probe.c")
	must(err)
	w := &world{dir: ownFolder(t, os.Geteuid()), host: map[string]string{}, name: fmt.Sprintf("random-%d-%d", os.Getpid(), time.Now().UnixNano())}
	w.src, w.root = w.dir+"/src", w.dir+"/root"
	must(os.Mkdir(w.dir+"/bin", 0o755))
	cmd := exec.Command(gcc, "-x", "c", "-O", "-static", "-o", w.dir+"/bin/probe", "-")
	cmd.Stdin = bytes.NewReader(source)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	w.probe, err = os.ReadFile(w.dir + "/bin/probe")
	must(err)
	must(os.WriteFile(w.dir+"/secret", []byte("secret"), 0o666))
	w.caps, err = effectiveCaps()
	must(err)
	for _, kind := range []string{"cgroup", "ipc", "mnt", "net", "pid", "user", "uts"} {
		w.host[kind], err = os.Readlink("/proc/self/ns/" + kind)
		must(err)
	}
	for _, dir := range []string{"bin", "proc", "sys", "dev", "tmp", "run", "var/tmp"} {
		must(os.MkdirAll(w.root+"/"+dir, 0o755))
	}
	must(os.WriteFile(w.root+"/bin/probe", w.probe, 0o755))
	return w
}

// reset makes the files anew. All are open to everybody but closed ones: who may write is the view's choice alone.
func (w *world) reset() {
	for _, dir := range []string{w.src, w.root + "/w"} {
		must(os.RemoveAll(dir))
	}
	for _, dir := range []string{w.src + "/a/sub", w.src + "/b/sub", w.root + "/w/a/sub"} {
		must(os.MkdirAll(dir, 0o777))
	}
	for _, file := range []string{w.src + "/a/f", w.src + "/a/sub/g", w.src + "/b/f", w.src + "/b/closed", w.root + "/w/a/f", w.root + "/w/a/sub/g"} {
		must(os.WriteFile(file, []byte("of "+strings.TrimPrefix(file, w.dir)), 0o600))
	}
	for _, dir := range []string{w.src, w.root + "/w"} {
		must(filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
			switch {
			case err != nil || d.Name() == "closed":
				return err
			case d.IsDir():
				return os.Chmod(path, 0o777)
			}
			return os.Chmod(path, 0o666)
		}))
	}
}

// draw makes a Spec.
func (w *world) draw(t *rapid.T) *Spec {
	level := rapid.SampledFrom([]Level{Basic, User, User, Namespaced, Namespaced, Namespaced, Limited, Contained, Contained}).Draw(t, "level")
	s := NewSpec(level, w.dir+"/bin/probe")
	if s.Cgroup && !slices.Contains(levelsHere(), Limited) { // where it may be made is another matter
		s.Cgroup = false
		s.Promised = slices.DeleteFunc(s.Promised, func(g Guarantee) bool { return g == OwnCgroup })
	}
	often := func(what string, of100 int) bool { // what fails shrinks to what is plain
		if of100 == 50 {
			return rapid.Bool().Draw(t, what)
		}
		return rapid.IntRange(0, 99).Draw(t, what) >= 100-of100
	}
	rootfs := level >= Namespaced && often("rootfs", 45) || often("rootfs anywhere", 2)
	s.Process.Cwd = "/"
	if rootfs {
		s.Root = &specs.Root{Path: w.root, Readonly: often("readonly", 50)}
		s.RootOverlay = often("root overlay", 50)
		s.Process.Args[0] = "/bin/probe"
	} else if level > Basic {
		s.View = append(s.View, Rule{Kind: Show, Path: w.dir + "/bin", Source: w.dir + "/bin"})
		s.Process.Cwd = rapid.SampledFrom([]string{"/", "/", "/", w.src + "/b"}).Draw(t, "workdir")
	}
	places := []string{
		"/w", "/w/a", "/w/a/sub", "/w/a/f", "/w/x/y", "/w/l", "/w/l/k", "/tmp", "/tmp/t", "/tmp/t/u",
		w.src, w.src + "/a", w.src + "/a/sub", w.src + "/a/f", w.src + "/b",
	}
	sources := []string{w.src, w.src + "/a", w.src + "/a/sub", w.src + "/a/f", w.src + "/b", w.src + "/absent"}
	kinds := []RuleKind{Show, Show, ShowWrite, ShowWrite, Deny, Tmpfs, Dir, Symlink, File, Overlay, Device}
	if level <= User {
		kinds = []RuleKind{Show, Show, ShowWrite, ShowWrite, Deny}
	}
	rules := rapid.IntRange(0, 6).Draw(t, "rules")
	if rootfs && rapid.Bool().Draw(t, "what is there") { // a root that lacks a place becomes an overlay
		places = places[:4]
	}
	if level == Basic && !often("rules at basic", 20) {
		rules = 0
	}
	for range rules {
		r := Rule{Kind: rapid.SampledFrom(kinds).Draw(t, "kind"), Path: rapid.SampledFrom(places).Draw(t, "path")}
		if last := s.View[max(len(s.View)-1, 0):]; len(last) > 0 && !last[0].Default && last[0].Source != "" && last[0].Path != w.dir+"/bin" && often("below the last", 60) {
			r.Path = last[0].Path + rapid.SampledFrom([]string{"", "/f", "/sub", "/a", "/a/f", "/b/closed"}).Draw(t, "below")
			if rapid.Bool().Draw(t, "deny it") {
				r.Kind = Deny
			}
		}
		switch r.Kind {
		case Show, ShowWrite, Overlay:
			r.Source = rapid.SampledFrom(sources).Draw(t, "source")
			r.Optional = often("optional", 30)
			if level <= User && !often("elsewhere", 3) {
				r.Path = r.Source
			}
		case Device:
			r.Source = rapid.SampledFrom([]string{"/dev/zero", "/dev/null", w.src + "/a/f"}).Draw(t, "device")
		case Symlink:
			r.Source = rapid.SampledFrom([]string{"a/f", w.dir + "/secret", w.src}).Draw(t, "target")
		}
		s.View = append(s.View, r)
	}
	s.Identity = rapid.SampledFrom([]Identity{"", "", IdentityOwn, IdentityCaller, IdentityFixed}).Draw(t, "identity")
	if s.Identity == IdentityFixed {
		s.Process.User.UID = rapid.SampledFrom([]uint32{0, 7, 1000}).Draw(t, "uid")
		s.Process.User.GID = rapid.SampledFrom([]uint32{0, 7, 1000}).Draw(t, "gid")
	}
	caps := rapid.SampledFrom([]string{"ALL", "NET_RAW", "cap_kill", "SYS_ADMIN", "CAP_DAC_OVERRIDE", "SYS_PTRACE", "CHOWN", "SETUID", "odd"})
	if often("capabilities", 40) {
		s.CapAdd = rapid.SliceOfN(caps, 0, 2).Draw(t, "cap-add")
		s.CapDrop = rapid.SliceOfN(caps, 0, 1).Draw(t, "cap-drop")
	}
	s.HostNetwork = level >= Namespaced && often("host's network", 35)
	s.NoFilter = often("no filter", 25)
	if level > Basic && often("other allow-list", 40) {
		s.AllowList = map[bool]*AllowList{true: DefaultAllowList()}[level < Contained]
	}
	if often("hostname", 35) && level >= Namespaced {
		s.Hostname = "other"
	}
	if often("rlimit", 40) {
		for range rapid.IntRange(1, 2).Draw(t, "rlimits") {
			s.Process.Rlimits = append(s.Process.Rlimits, specs.POSIXRlimit{
				Type: rapid.SampledFrom([]string{"RLIMIT_NOFILE", "RLIMIT_CPU", "RLIMIT_SIGPENDING", "RLIMIT_CORE", "odd"}).Draw(t, "limit"),
				Soft: rapid.Uint64Range(30, 300).Draw(t, "soft"), Hard: rapid.Uint64Range(200, 300).Draw(t, "hard"),
			})
		}
	}
	if s.Cgroup || often("limits without a cgroup", 3) {
		s.Name = w.name
		s.Linux.Resources = &specs.LinuxResources{}
		if often("memory", 50) {
			s.Linux.Resources.Memory = &specs.LinuxMemory{Limit: pointer(rapid.SampledFrom([]int64{64 << 20, 1 << 30, 100_000_001, 4096}).Draw(t, "bytes"))}
		}
		if often("pids", 50) {
			s.Linux.Resources.Pids = &specs.LinuxPids{Limit: pointer(rapid.Int64Range(2, 100).Draw(t, "tasks"))}
		}
	}
	return s
}

func pointer[T any](v T) *T { return &v }

// try runs a Spec, if it is accepted, and looks at everything.
func (w *world) try(t *rapid.T, s *Spec) (ran bool) {
	before := w.traces()
	m := w.model(s)
	var given []*os.File
	for i, r := range s.View {
		if r.Kind == File {
			f := must2(os.CreateTemp(w.dir, "given-"))
			must(os.Remove(f.Name()))
			fmt.Fprint(f, "given")
			must2(f.Seek(0, 0))
			given = append(given, f)
			s.View[i].FD = int(f.Fd())
		}
	}
	paths := m.paths()
	args := s.Process.Args
	s.Process.Args = append(slices.Clone(args), paths...)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	c := FromSpec(ctx, s)
	c.Env = []string{"PATH=/bin"}
	var stderr bytes.Buffer
	c.Stderr = &stderr
	in, err := c.StdinPipe()
	must(err)
	out, err := c.StdoutPipe()
	must(err)
	err = c.Start()
	closeFiles(given)
	defer func() {
		if after := w.traces(); after != before {
			t.Errorf("left: was\n%s\nis\n%s", before, after)
		}
	}()
	s.Process.Args = args
	if err != nil {
		var spec *SpecError
		var unsupported *UnsupportedError
		var step *StepError
		workdir, _, _, _ := m.want(s.Process.Cwd, w.files())
		switch {
		case errors.As(err, &spec) && spec.Field != "" && spec.Problem != "":
		case errors.As(err, &unsupported) && unsupported.Level == s.Level && (unsupported.Missing != "" || unsupported.Step != nil):
		case errors.As(err, &step) && step.Op == "chdir" && workdir != "d": // where a link leads is seen when it is followed
		default:
			t.Fatalf("%s: accepted, but %T: %v", describe(s), err, err)
		}
		return false
	}
	r := report{lists: map[string][]string{}, read: map[string]string{}, write: map[string]int{}}
	complete := r.readFrom(bufio.NewReader(out))
	if complete {
		w.checkCgroup(t, s)
	}
	in.Close()
	if err := c.Wait(); err != nil || !complete {
		t.Fatalf("%s: the payload came to no end: %v, %q, %v", describe(s), err, stderr.String(), c.Result())
	}
	if lost := c.Result().LostGuarantees; len(lost) > 0 {
		t.Errorf("%s: lost %v", describe(s), lost)
	}
	m.check(t, &r)
	w.checkSelf(t, s, &r)
	return true
}

func must2[T any](v T, err error) T {
	must(err)
	return v
}

func closeFiles(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}

// traces are what this process has, and what jails of its own leave.
func (w *world) traces() string {
	mounts := must2(os.ReadFile("/proc/self/mountinfo"))
	fds := must2(os.ReadDir("/proc/self/fd"))
	scratch := must2(filepath.Glob(filepath.Join(os.TempDir(), scratchPrefix+"*")))
	var cgroups []string
	for _, path := range cgroupsOfJails() {
		if filepath.Base(path) == "jail-"+w.name {
			cgroups = append(cgroups, path)
		}
	}
	return fmt.Sprint(len(fds), scratch, cgroups, descendants(os.Getpid()), string(mounts))
}

// describe is a Spec in so many words that it can be made again.
func describe(s *Spec) string {
	var b strings.Builder
	fmt.Fprintf(&b, "level %s, user %q %d:%d, add %q, drop %q, workdir %s", s.Level, s.Identity, s.Process.User.UID, s.Process.User.GID, s.CapAdd, s.CapDrop, s.Process.Cwd)
	if s.Root != nil {
		fmt.Fprintf(&b, ", root %+v overlay %t", *s.Root, s.RootOverlay)
	}
	for _, r := range s.View {
		if !r.Default {
			fmt.Fprintf(&b, ", %s %s", r.Kind, r.Path)
			if r.Source != "" {
				fmt.Fprintf(&b, " from %s", r.Source)
			}
			if r.Optional {
				b.WriteString(" optional")
			}
		}
	}
	fmt.Fprintf(&b, ", host's network %t, no filter %t, rlimits %v", s.HostNetwork, s.NoFilter, s.Process.Rlimits)
	return b.String()
}

// report is what the payload has told.
type report struct {
	kind  map[string]string
	read  map[string]string   // "=content", "=name,name" or "E13"
	write map[string]int      // errno
	lists map[string][]string // of itself
}

func (r *report) readFrom(out *bufio.Reader) (complete bool) {
	r.kind = map[string]string{}
	for {
		line, err := out.ReadString('\n')
		if err != nil || line == "end\n" {
			return err == nil
		}
		f := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		switch line[0] {
		case '@':
			r.lists[f[0][1:]] = append(r.lists[f[0][1:]], strings.Join(f[1:], " "))
		case '+':
			r.write[f[0][1:]], _ = strconv.Atoi(f[1])
		default:
			r.kind[f[0]], r.read[f[0]] = f[1], f[2]
		}
	}
}

// status is a line of /proc/self/status.
func (r *report) status(name string) string {
	for _, line := range r.lists["status"] {
		if v, ok := strings.CutPrefix(line, name+": "); ok {
			return v
		}
	}
	return ""
}

// model says what a payload finds at a path: of the rules that hold it the one with the longest path decides; of those for
// one path a Deny, or else the last.
type model struct {
	w     *world
	s     *Spec
	rules map[string]Rule // by path
}

const base RuleKind = "base" // the root of the view: the jail's own, or a root file system

func (w *world) model(s *Spec) *model {
	m := &model{w: w, s: s, rules: map[string]Rule{"/": {Kind: base}}}
	if s.Root != nil {
		m.rules["/"] = Rule{Kind: base, Source: w.root}
	}
	for _, byDefault := range []bool{true, false} {
		for _, r := range s.View {
			_, err := os.Lstat(r.Source)
			switch {
			case r.Default != byDefault || r.Path == "" || r.Optional && err != nil:
			case r.Default && s.Root != nil && r.Kind == Show:
			case m.rules[r.Path].Kind != Deny:
				m.rules[r.Path] = r
			}
		}
	}
	cwd := s.Process.Cwd
	if s.Root == nil && cwd != "/" && s.Level > Basic { // the level shows it, unless that was done already
		if r := m.decides(cwd); (s.Level == User && r.Kind == base || s.Level > User && (r.Kind == base || r.Kind == Tmpfs)) && m.rules[cwd].Kind == "" {
			m.rules[cwd] = Rule{Kind: Show, Path: cwd, Source: cwd}
		}
	}
	return m
}

// decides is the rule for a path. A Dir makes a folder and no more.
func (m *model) decides(path string) Rule {
	for p := path; ; p = filepath.Dir(p) {
		if r, ok := m.rules[p]; ok && r.Kind != Dir {
			return r
		}
	}
}

// made says whether a rule needs a folder at path, and which names are in it therefore.
func (m *model) made(path string) (folder bool, names []string) {
	for p, r := range m.rules {
		if r.Kind == Deny || p == "/" {
			continue
		}
		if rest, ok := strings.CutPrefix(p, strings.TrimSuffix(path, "/")+"/"); ok {
			name, _, _ := strings.Cut(rest, "/")
			names = append(names, name)
		}
	}
	return len(names) > 0 || m.rules[path].Kind == Dir, names
}

// paths are what is asked: places of rules, what is in them, and what is nowhere.
func (m *model) paths() (list []string) {
	places := []string{m.w.dir, m.w.src, m.w.src + "/a", m.w.src + "/b", "/w", "/w/a", "/w/x", "/tmp"}
	for p := range m.rules {
		if strings.HasPrefix(p, m.w.dir) || within(p, "/w") || within(p, "/tmp") {
			places = append(places, p)
		}
	}
	for _, p := range places {
		for _, below := range []string{"", "/a", "/a/f", "/sub", "/sub/g", "/f", "/b/closed", "/closed", "/absent"} {
			list = append(list, p+below)
		}
	}
	list = append(list, m.w.dir+"/secret", m.w.dir+"/root/w/a/f", "/proc/keys", "/proc/sys/kernel/domainname", "/proc/sysrq-trigger")
	if m.s.Level == Basic { // what is open there is the host's
		return nil
	}
	slices.Sort(list)
	return slices.DeleteFunc(slices.Compact(list), func(p string) bool {
		r := m.decides(p)
		return (r.Kind == Symlink || r.Kind == File) && r.Path != p || within(p, m.w.dir+"/bin")
	})
}

// onHost is what a file of the host is: "-", or its kind and content.
func onHost(path string) (kind, read string) {
	info, err := os.Lstat(path)
	switch {
	case err != nil:
		return "-", ""
	case info.IsDir():
		entries := must2(os.ReadDir(path))
		var names []string
		for _, e := range entries {
			names = append(names, e.Name())
		}
		return "d", strings.Join(names, ",")
	case info.Mode()&os.ModeCharDevice != 0:
		return "c", ""
	}
	b, _ := os.ReadFile(path)
	return "f", string(b)
}

// want is what the payload should find at path, and whether it may write there; changes says whether that shows on the
// host. The files are as reset has made them.
func (m *model) want(path string, now map[string]string) (kind, read string, write bool, changes string) {
	r := m.decides(path)
	source := ""
	if r.Source != "" {
		source = r.Source + strings.TrimPrefix(path, strings.TrimSuffix(r.Path, "/"))
	}
	there := func() {
		kind, read = "-", ""
		if text, ok := now[source]; ok {
			kind, read = text[:1], text[1:]
		}
	}
	folder, names := m.made(path)
	switch r.Kind {
	case base:
		if there(); m.s.Root != nil {
			write = !m.s.Root.Readonly || m.s.RootOverlay
			if !m.s.Root.Readonly && !m.s.RootOverlay {
				changes = source
			}
		}
	case Show:
		there()
	case ShowWrite:
		there()
		write, changes = true, source
	case Overlay:
		there()
		write = true
	case Tmpfs:
		kind, write = "-", true
		if path == r.Path {
			kind = "d"
		}
	case Device:
		if path != r.Path {
			return "-", "", false, ""
		}
		return "c", "", true, ""
	case Symlink:
		return "l", r.Source, false, ""
	case File:
		in := filepath.Dir(path)
		for m.decides(in).Kind == Deny { // of what is not there: it runs where the folder above is the jail's own alone
			in = filepath.Dir(m.decides(in).Path)
		}
		_, _, write, _ = m.want(in, now)
		return "f", "given", write, ""
	case Deny:
		kind = "denied"
	}
	if folder && kind != "f" {
		if kind == "-" {
			kind = "d"
		}
		all := strings.FieldsFunc(read+","+strings.Join(names, ","), func(c rune) bool { return c == ',' })
		slices.Sort(all)
		read = strings.Join(slices.Compact(all), ",")
	}
	if kind == "-" {
		write = false
	}
	return kind, read, write, changes
}

// check compares a report with the model, and the host's files with what the payload was allowed to do.
func (m *model) check(t *rapid.T, r *report) {
	if m.s.Level == Basic {
		return
	}
	who := describe(m.s)
	root := os.Geteuid() == 0
	now := m.w.files()
	override := len(m.s.CapAdd) > 0 // it may open what its mode closes, or change /proc
	m.w.reset()
	before := m.w.files()
	expected := maps.Clone(before)
	for i, path := range m.paths() {
		kind, read, write, changes := m.want(path, before)
		got := r.kind[path] + r.read[path]
		opened := strings.HasPrefix(r.read[path], "=")
		if strings.HasPrefix(path, "/proc/") {
			if r.kind[path] == "f" && opened && r.read[path] != "=" && m.s.Level >= Contained && path == "/proc/keys" {
				t.Errorf("%s: %s is open", who, path)
			}
			if r.write[path] == 0 && r.kind[path] == "f" && !override && path != "/proc/keys" {
				t.Errorf("%s: %s is writable", who, path)
			}
			continue
		}
		if m.s.Level == User { // no mounts: the files are there, and closed
			rule := m.decides(path)
			shown := rule.Kind == Show || rule.Kind == ShowWrite
			hostKind, hostRead := "-", ""
			if text, ok := before[path]; ok {
				hostKind, hostRead = text[:1], text[1:]
			}
			if path == "/tmp" || within(path, "/tmp") || path == m.w.dir || hostKind == "-" {
				if opened {
					t.Errorf("%s: %s can be read", who, path)
				}
				continue
			}
			kind, read, write = hostKind, hostRead, rule.Kind == ShowWrite
			changes = path
			if !shown {
				kind = "denied"
			}
			if filepath.Base(path) == "closed" && root && m.s.identity() != IdentityCaller {
				if !override || !opened {
					kind = "denied"
				}
				write = write && override && r.write[path] == 0
			}
		}
		switch {
		case kind == "denied":
			if folder, _ := m.made(path); folder && r.read[path] == "="+read {
				continue // nothing is there but the way to what other rules show
			}
			if opened && !(override && r.read[path] == "=") || r.kind[path] == "f" && r.write[path] == 0 && !override {
				t.Errorf("%s: %s is %q, write %d, and should be closed", who, path, got, r.write[path])
			}
			continue
		case kind == "-" && opened, kind != "-" && kind != r.kind[path], kind != "-" && kind != "c" && r.read[path] != "="+read:
			t.Errorf("%s: %s is %q, want %s=%s", who, path, got, kind, read)
		}
		if kind == "l" {
			continue
		}
		if ok := kind != "-" && r.kind[path] != "-" && r.write[path] == 0; ok != write {
			t.Errorf("%s: %s (%s): writing gives %s, writable should be %t", who, path, kind, unix.ErrnoName(unix.Errno(r.write[path])), write)
		}
		if write && changes != "" {
			if kind == "f" {
				expected[changes] += "+"
			} else if _, there := before[changes]; kind == "d" && there {
				name := fmt.Sprintf("made-%d", i+1)
				expected[changes+"/"+name] = "f+"
			}
		}
	}
	// Of the host's files those have changed that the payload was to change.
	for path, text := range now {
		if text[0] == 'f' && expected[path] != text {
			t.Errorf("%s: on the host %s is %q, want %q", who, path, text, expected[path])
		}
	}
	for path, text := range expected {
		if _, ok := now[path]; !ok {
			t.Errorf("%s: on the host %s is missing, want %q", who, path, text)
		}
	}
}

// files are those of the host that Specs are about: their kind and what is in them.
func (w *world) files() map[string]string {
	found := map[string]string{}
	for _, dir := range []string{w.src, w.root, w.dir + "/secret"} {
		must(filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
			if err == nil && d.Name() != "probe" {
				kind, read := onHost(path)
				found[path] = kind + read
			}
			return err
		}))
	}
	return found
}

// checkSelf holds what the kernel says of the payload against what was promised.
func (w *world) checkSelf(t *rapid.T, s *Spec, r *report) {
	bad := func(format string, args ...any) {
		t.Helper()
		t.Errorf("%s: %s", describe(s), fmt.Sprintf(format, args...))
	}
	one := func(name string) string { return strings.Join(r.lists[name], " ") }
	root := os.Geteuid() == 0
	caller := s.Identity == IdentityCaller || s.Identity == "" && s.Level == Basic
	if one("fd") != "0 1 2" || one("leader") != "1" || r.status("NoNewPrivs") != "1" {
		bad("fds %q, leader %q, no_new_privs %q", one("fd"), one("leader"), r.status("NoNewPrivs"))
	}

	filters := filtersHere()
	if s.Level > Basic && !s.NoFilter {
		filters++
	}
	if s.AllowList != nil {
		filters++
	}
	if got := r.status("Seccomp_filters"); got != strconv.Itoa(filters) {
		bad("%s filters, want %d", got, filters)
	}

	// Namespaces.
	other := map[string]bool{}
	if s.Level >= Namespaced {
		for _, kind := range []string{"cgroup", "ipc", "mnt", "pid", "uts"} {
			other[kind] = true
		}
		other["net"] = !s.HostNetwork
		other["user"] = !root || !caller && (s.Level >= Contained || s.Root != nil)
		if one("parent") != "1" || one("hostname") != s.Hostname {
			bad("parent %s, hostname %s", one("parent"), one("hostname"))
		}
		if one("if") != "lo" && !s.HostNetwork {
			bad("interfaces %q", one("if"))
		}
	}
	for _, line := range r.lists["ns"] {
		kind, name, _ := strings.Cut(line, " ")
		if (name != w.host[kind]) != other[kind] {
			bad("namespace %s, the host's is %s", line, w.host[kind])
		}
	}
	if s.Level >= Contained && !caller && one("newuser") == "0" {
		bad("a new user namespace was to be had")
	}
	if s.Level >= User && !caller && s.Cgroup && one("cgroup") != "" {
		for _, line := range r.lists["cgroup"] {
			if strings.Contains(line, "jail-") {
				bad("it sees the path of its cgroup: %q", line)
			}
		}
	}

	// Who it is, inside and on the host.
	var uid, gid, inside, outside, size int
	fmt.Sscan(one("ids"), &uid, &gid)
	fmt.Sscan(one("uid_map"), &inside, &outside, &size)
	onHost := uid - inside + outside
	switch {
	case s.Identity == IdentityFixed && (uid != int(s.Process.User.UID) || gid != int(s.Process.User.GID)):
		bad("it is %d:%d", uid, gid)
	case caller && uid != os.Geteuid():
		bad("it is %d", uid)
	case root && !caller && onHost == 0 && s.Level > Basic:
		bad("it is the host's root")
	case root && s.identity() == IdentityOwn && onHost < 1900000000:
		bad("its uid is %d on the host", onHost)
	case other["user"] && (size != 1 || !root && outside != os.Geteuid()):
		bad("uid_map %q", one("uid_map"))
	}

	// Capabilities.
	add, _ := parseCapabilities("", s.CapAdd)
	drop, _ := parseCapabilities("", s.CapDrop)
	all := slices.ContainsFunc(s.CapAdd, func(n string) bool { return n == "ALL" })
	sets := map[string]uint64{}
	for _, name := range []string{"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"} {
		sets[name], _ = strconv.ParseUint(r.status(name), 16, 64)
	}
	for name, set := range sets {
		switch extra := set &^ (add &^ drop); {
		case s.Level == Basic && set&drop != 0 && (root || name != "CapBnd"):
			bad("%s is %#x", name, set)
		case s.Level == Basic || name == "CapBnd" && s.Level == User && !root:
		case extra != 0:
			bad("%s has %s beyond what was asked for", name, describeCaps(extra))
		case (name == "CapEff" || name == "CapPrm") && !all && set != add&^drop:
			bad("%s is %s", name, describeCaps(set))
		}
	}

	// Limits.
	for i, l := range s.Process.Rlimits {
		if slices.ContainsFunc(s.Process.Rlimits[i+1:], func(o specs.POSIXRlimit) bool { return o.Type == l.Type }) {
			continue
		}
		if want := fmt.Sprint(rlimitNumbers[l.Type], l.Soft, l.Hard); !slices.Contains(r.lists["rlimit"], want) {
			bad("rlimits %q, want %q", r.lists["rlimit"], want)
		}
	}
}

// filtersHere is how many filters this process has.
func filtersHere() int {
	status := must2(os.ReadFile("/proc/self/status"))
	_, rest, _ := strings.Cut(string(status), "Seccomp_filters:")
	var n int
	fmt.Sscan(rest, &n)
	return n
}

// checkCgroup looks at the cgroup of a jail that runs.
func (w *world) checkCgroup(t *rapid.T, s *Spec) {
	if !s.Cgroup {
		return
	}
	limits := map[string]*int64{}
	if m := s.Linux.Resources.Memory; m != nil {
		limits["memory"] = m.Limit
	}
	if p := s.Linux.Resources.Pids; p != nil {
		limits["pids"] = pointer(*p.Limit + 1) // and jail-init
	}
	found := 0
	for _, dir := range cgroupsOfJails() {
		if filepath.Base(dir) != "jail-"+s.Name {
			continue
		}
		found++
		for file, kind := range map[string]string{"memory.max": "memory", "memory.limit_in_bytes": "memory", "pids.max": "pids"} {
			b, err := os.ReadFile(dir + "/" + file)
			if want := limits[kind]; err == nil && want != nil {
				delete(limits, kind)
				if got, _ := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64); got != *want && got != *want&^4095 {
					t.Errorf("%s: %s is %s, want %d", describe(s), file, b, *want)
				}
			}
		}
	}
	if found == 0 || len(limits) > 0 {
		t.Errorf("%s: %d cgroups, without limits for %v", describe(s), found, limits)
	}
}
