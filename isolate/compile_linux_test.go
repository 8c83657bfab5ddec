//go:build amd64 || arm64

package isolate

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

// TestCompileErrors has each thing that Compile refuses, with the sentence that the user reads.
func TestCompileErrors(t *testing.T) {
	view := func(rules ...Rule) func(*Spec, *Host) {
		return func(s *Spec, _ *Host) { s.View = append(s.View, rules...) }
	}
	limit := func(name string, soft, hard uint64) func(*Spec, *Host) {
		return func(s *Spec, _ *Host) {
			s.Process.Rlimits = []specs.POSIXRlimit{{Type: name, Soft: soft, Hard: hard}}
		}
	}
	workdir := func(dir string) func(*Spec, *Host) { return func(s *Spec, _ *Host) { s.Process.Cwd = dir } }
	fixed := func(uid, gid uint32) func(*Spec, *Host) {
		return func(s *Spec, _ *Host) { s.Identity, s.Process.User = IdentityFixed, specs.User{UID: uid, GID: gid} }
	}
	withRoot := func(dir string, write bool, rules ...Rule) func(*Spec, *Host) {
		return func(s *Spec, _ *Host) { rooted(specs.Root{Path: dir, Readonly: !write}, false, rules...)(s) }
	}
	ofRoot, ofUser := rootHost, userHost
	for _, c := range []struct {
		level Level
		host  func() *Host
		set   func(*Spec, *Host)
		want  string // "SpecError: " or "UnsupportedError: " and the text
	}{
		{Basic, ofUser, func(s *Spec, _ *Host) { s.Process.Args = nil }, `SpecError: command "" is empty`},
		{Basic, ofUser, func(s *Spec, _ *Host) { s.Process.Args = []string{""} }, `SpecError: command "" is empty`},
		{Basic, ofUser, func(s *Spec, _ *Host) { s.Process.Args = []string{"a", "b\x00"} }, `SpecError: argument "b\x00" has a NUL byte`},
		{Basic, ofUser, func(s *Spec, _ *Host) { s.Process.Env = []string{"A=\x00"} }, `SpecError: argument "A=\x00" has a NUL byte`},
		{Basic, ofUser, workdir("/a\x00"), `SpecError: argument "/a\x00" has a NUL byte`},
		{Namespaced, ofUser, func(s *Spec, _ *Host) { s.Hostname = strings.Repeat("h", 65) }, `SpecError: hostname "` + strings.Repeat("h", 65) + `" is longer than 64 bytes`},

		// the machine
		{Basic, ofUser, func(_ *Spec, h *Host) { h.Kernel = [2]int{5, 13} }, `UnsupportedError: this host can't give level basic: Linux 5.14 or newer (this is 5.13)`},
		{Namespaced, ofUser, func(_ *Spec, h *Host) { h.Kernel = [2]int{4, 19} }, `UnsupportedError: this host can't give level namespaced: Linux 5.14 or newer (this is 4.19)`},
		{User, ofUser, func(_ *Spec, h *Host) { h.Landlock = 0 }, `UnsupportedError: this host can't give level user: Landlock, which gives the file view`},
		{Namespaced, weakRootHost, nil, `UnsupportedError: this host can't give level namespaced: another uid for the payload: root here lacks CAP_KILL`},
		{User, weakRootHost, nil, `UnsupportedError: this host can't give level user: another uid for the payload: root here lacks CAP_KILL`},
		{Namespaced, ofUser, func(_ *Spec, h *Host) { delete(h.Files, "/dev/full") }, `UnsupportedError: this host can't give level namespaced: the device /dev/full`},
		// what CVE-2025-31133 put there: a link to something else
		{Namespaced, ofUser, func(_ *Spec, h *Host) { h.Files["/dev/null"] = h.Files["/dev/zero"] }, `UnsupportedError: this host can't give level namespaced: the device /dev/null`},

		// files
		{Namespaced, ofRoot, view(Rule{Kind: Show, Path: "/x", Source: "/absent"}), `SpecError: ro-bind "/absent" can't be shown: no such file or directory`},
		{User, ofRoot, view(Rule{Kind: ShowWrite, Path: "/absent", Source: "/absent"}), `SpecError: bind "/absent" can't be shown: no such file or directory`},
		{Namespaced, ofRoot, view(Rule{Kind: Show, Path: "x", Source: "/srv"}), `SpecError: ro-bind "x" is not an absolute path`},
		{Namespaced, ofRoot, view(Rule{Kind: ShowWrite, Path: "/x", Source: "srv"}), `SpecError: bind "srv" is not an absolute path`},
		{Namespaced, ofRoot, view(Rule{Kind: Tmpfs, Path: "/a\x00"}), `SpecError: tmpfs "/a\x00" has a NUL byte`},
		{Namespaced, ofRoot, view(Rule{Kind: Show, Path: "/usr/new", Source: "/srv"}), `SpecError: ro-bind "/usr/new" has no place in "/usr", which is the host's and where nothing is made: no such file or directory`},
		{Namespaced, ofRoot, view(Rule{Kind: Tmpfs, Path: "/usr/new"}), `SpecError: tmpfs "/usr/new" has no place in "/usr"`},
		{Namespaced, ofRoot, view(Rule{Kind: Show, Path: "/etc/ssl", Source: "/srv/data/readme"}), `SpecError: ro-bind "/etc/ssl" is a folder there, and a file can't be put over it`},
		{Namespaced, ofRoot, view(Rule{Kind: Show, Path: "/etc/passwd", Source: "/srv"}), `SpecError: ro-bind "/etc/passwd" is a file there, and a folder can't be put over it`},
		{Namespaced, ofRoot, view(Rule{Kind: Dir, Path: "/usr/new"}), `SpecError: dir "/usr/new" has no place in "/usr"`},
		{Namespaced, ofRoot, view(Rule{Kind: Symlink, Path: "/usr/l", Source: "x"}), `SpecError: symlink "/usr/l" can't be made: "/usr" there is the host's`},
		{Namespaced, ofRoot, view(Rule{Kind: File, Path: "/etc/f"}), `SpecError: file "/etc/f" can't be made: "/etc" there is the host's`},
		{Namespaced, ofRoot, view(Rule{Kind: Symlink, Path: "/l", Source: "/srv"}, Rule{Kind: Show, Path: "/l/a", Source: "/srv"}), `SpecError: ro-bind "/l/a" lies in "/l", which is made as a file or a link`},
		{Namespaced, ofRoot, view(Rule{Kind: File, Path: "/f"}, Rule{Kind: Dir, Path: "/f/d"}), `SpecError: dir "/f/d" lies in "/f", which is made as a file or a link`},
		{Namespaced, ofRoot, view(Rule{Kind: Deny, Path: "/srv/data"}, Rule{Kind: Show, Path: "/srv", Source: "/srv"}, Rule{Kind: Show, Path: "/srv/data/secret", Source: "/etc"}), `SpecError: ro-bind "/srv/data/secret" lies in "/srv/data", which is denied`},
		{Namespaced, ofRoot, view(Rule{Kind: ShowWrite, Path: "/srv", Source: "/srv"}, Rule{Kind: Deny, Path: "/srv/absent"}), `SpecError: deny "/srv/absent" does not exist, and the payload could make it in "/srv", which is writable; make it first`},
		{Namespaced, ofRoot, view(
			Rule{Kind: Show, Path: "/1", Source: "/srv/of0"}, Rule{Kind: Show, Path: "/2", Source: "/srv/of1"},
			Rule{Kind: Show, Path: "/3", Source: "/srv/of2"}, Rule{Kind: Show, Path: "/4", Source: "/srv/of3"},
			Rule{Kind: Show, Path: "/5", Source: "/srv/of4"}, Rule{Kind: Show, Path: "/6", Source: "/srv/of5"}), `SpecError: `},
		{Namespaced, ofRoot, func(s *Spec, h *Host) {
			s.View = append(s.View, Rule{Kind: ShowWrite, Path: "/srv", Source: "/srv"})
			h.NoIDMap[8] = true
		}, `SpecError: bind "/srv" is on a file system that can't map ids, so its owner's files would be closed to the payload; --user caller keeps your uid`},
		{Namespaced, ofRoot, func(s *Spec, h *Host) {
			s.View = append(s.View, Rule{Kind: Show, Path: "/w", Source: "/root/work"})
			h.NoIDMap[8] = true
		}, `SpecError: ro-bind "/w" is on a file system that can't map ids`},

		// a root of its own
		{User, ofRoot, withRoot("/srv/root", false), `SpecError: rootfs "/srv/root" can't be had at level user, but from level namespaced up`},
		{Namespaced, ofRoot, withRoot("/absent", false), `SpecError: rootfs "/absent" can't be used: no such file or directory`},
		{Namespaced, ofRoot, withRoot("/etc/passwd", false), `SpecError: rootfs "/etc/passwd" is not a folder`},
		{Namespaced, ofRoot, withRoot("srv", false), `SpecError: rootfs "srv" is not an absolute path`},
		{Namespaced, ofRoot, func(s *Spec, _ *Host) { s.RootOverlay = true }, `SpecError: rootfs-overlay "" needs a root file system`},
		{Namespaced, ofRoot, withRoot("/srv/root", true, Rule{Kind: Show, Path: "/new", Source: "/etc"}), `SpecError: ro-bind "/new" is not in "/srv/root", and a writable root is the tree itself, where nothing is made`},
		{Namespaced, ofRoot, withRoot("/srv/root", false, Rule{Kind: Show, Path: "/", Source: "/"}), `SpecError: ro-bind "/" is the root, which --rootfs gives`},
		{Namespaced, ofRoot, withRoot("/srv/root", false, Rule{Kind: Show, Path: "/etc/passwd", Source: "/etc"}), `SpecError: ro-bind "/etc/passwd" is a file there, and a folder can't be put over it`},
		{Namespaced, ofRoot, withRoot("/srv/root", false, Rule{Kind: Symlink, Path: "/etc", Source: "x"}), `SpecError: symlink "/etc" can't be made: the root has something there`},
		{Namespaced, ofRoot, withRoot("/srv/root", true, Rule{Kind: Deny, Path: "/etc/absent"}), `SpecError: deny "/etc/absent" does not exist, and the payload could make it`},
		{Namespaced, ofRoot, func(s *Spec, _ *Host) {
			withRoot("/srv/root", false)(s, nil)
			s.Process.Cwd = "/absent"
		}, `SpecError: workdir "/absent" does not exist in the root; --dir makes it`},
		{Namespaced, ofRoot, func(s *Spec, h *Host) {
			withRoot("/srv/root", false)(s, nil)
			h.Rootfs["/proc"] = InRoot{Path: "/elsewhere", FileInfo: FileInfo{Mode: unix.S_IFDIR}}
		}, `SpecError: proc "/proc" is a symbolic link in the root, and the jail's own mounts follow none`},
		{Namespaced, ofRoot, func(s *Spec, h *Host) {
			withRoot("/srv/root", true)(s, nil)
			h.NoIDMap[8] = true
		}, `SpecError: rootfs "/" is on a file system that can't map ids`},
		{Namespaced, ofRoot, func(s *Spec, h *Host) {
			withRoot("/srv/root", false, Rule{Kind: Dir, Path: "/new"})(s, nil)
			h.Mounts = []string{"/srv/root/inner"}
		}, `SpecError: rootfs "/srv/root" holds the mount "/srv/root/inner", which an overlay can't show`},
		{Namespaced, ofRoot, view(Rule{Kind: Overlay, Path: "/c", Source: "/srv/of0"}), `SpecError: overlay "/srv/of0" holds the mount "/srv/of0/mounted", which an overlay can't show`},
		{Namespaced, ofRoot, view(Rule{Kind: Overlay, Path: "/c", Source: "/etc/passwd"}), `SpecError: overlay "/etc/passwd" is not a folder`},
		{Namespaced, ofRoot, view(Rule{Kind: Overlay, Path: "/", Source: "/etc"}), `SpecError: overlay "/" is the root of the view`},
		{Namespaced, ofRoot, view(Rule{Kind: Device, Path: "/dev/x", Source: "/etc/passwd"}), `SpecError: device "/etc/passwd" is not a device`},
		{User, ofRoot, view(Rule{Kind: Overlay, Path: "/srv", Source: "/srv"}), `SpecError: overlay "/srv" `},

		// what Landlock can't do
		{User, ofRoot, view(Rule{Kind: Deny, Path: "/usr/lib"}), `SpecError: deny "/usr/lib" lies in "/usr", which is shown, which this level can't enforce; level namespaced can`},
		{User, ofRoot, view(Rule{Kind: Deny, Path: "/proc/sys"}), `SpecError: deny "/proc/sys" `},
		{User, ofRoot, view(Rule{Kind: Deny, Path: "/sys/kernel"}), `SpecError: deny "/sys/kernel" `},
		{User, ofRoot, view(Rule{Kind: Deny, Path: "/dev/tty"}), `SpecError: deny "/dev/tty" `},
		{User, ofRoot, view(Rule{Kind: Show, Path: "/srv/data", Source: "/srv/data"}, Rule{Kind: Deny, Path: "/srv/link/secret"}), `SpecError: deny `},
		{User, ofRoot, view(Rule{Kind: ShowWrite, Path: "/srv", Source: "/srv"}, Rule{Kind: Show, Path: "/srv/data", Source: "/srv/data"}), `SpecError: ro-bind "/srv/data" lies in "/srv", which is writable, which this level can't enforce; level namespaced can`},
		{User, ofRoot, view(Rule{Kind: Tmpfs, Path: "/cache"}), `SpecError: tmpfs "/cache" makes files, which this level can't enforce; level namespaced can`},
		{User, ofRoot, view(Rule{Kind: File, Path: "/f"}), `SpecError: file "/f" makes files, which this level can't enforce; level namespaced can`},
		{User, ofRoot, view(Rule{Kind: Symlink, Path: "/f", Source: "x"}), `SpecError: symlink "/f" makes files, which`},
		{User, ofRoot, view(Rule{Kind: Dir, Path: "/d"}), `SpecError: dir "/d" makes a folder, which this level can't enforce; level namespaced can`},
		{User, ofRoot, view(Rule{Kind: Show, Path: "/x", Source: "/srv"}), `SpecError: ro-bind "/x" shows a file at another path, which this level can't enforce; level namespaced can`},
		{Basic, ofRoot, view(Rule{Kind: Tmpfs, Path: "/cache"}), `SpecError: tmpfs "/cache" `},
		{Basic, ofRoot, view(Rule{Kind: Deny, Path: "/srv"}), `SpecError: deny "/srv" `},

		{User, ofRoot, view(Rule{Kind: ShowWrite, Path: "/srv", Source: "/srv"}, Rule{Kind: ShowWrite, NoExec: true, Path: "/srv/data", Source: "/srv/data"}), `SpecError: bind "/srv/data" lies in "/srv", where files can be executed, which this level can't enforce; level namespaced can`},
		{User, ofRoot, view(Rule{Kind: Show, NoExec: true, Path: "/usr/lib", Source: "/usr/lib"}), `SpecError: ro-bind "/usr/lib" lies in "/usr", where files can be executed`},
		{User, ofRoot, func(s *Spec, h *Host) {
			view(Rule{Kind: Deny, Path: "/srv/socket"})(s, h)
			h.Files["/srv/socket"] = FileInfo{Mode: unix.S_IFSOCK | 0o666, Real: "/srv/socket"}
		}, `SpecError: deny "/srv/socket" is a Unix socket, and to connect to it is no right of Landlock's, which this level can't enforce; level namespaced can`},
		{User, ofRoot, view(Rule{Kind: Deny, Glob: true, Path: "/us*/lib"}), `SpecError: deny "/us*/lib" is a pattern that could match in "/usr", which is shown, which this level can't enforce; level namespaced can`},
		{Namespaced, ofRoot, view(Rule{Kind: ShowWrite, Path: "/srv", Source: "/srv"}, Rule{Kind: Deny, Glob: true, Path: "/*/*.key"}), `SpecError: deny "/*/*.key" is a pattern that could match what the payload makes in "/srv", which is writable`},
		{Namespaced, ofRoot, view(Rule{Kind: Show, Path: "/data", Source: "/srv"}, Rule{Kind: Deny, Glob: true, Path: "/data/*.key"}), `SpecError: deny "/data/*.key" is a pattern for a place that other files than the host's are shown at`},
		{Namespaced, ofRoot, view(Rule{Kind: Show, Glob: true, Path: "/srv/*.x", Source: "/srv/*.x"}), `SpecError: ro-bind "/srv/*.x" matches nothing`},

		// the working folder
		{Basic, ofUser, workdir("/absent"), `SpecError: workdir "/absent" can't be entered: no such file or directory`},
		{User, ofUser, workdir("/absent"), `SpecError: workdir "/absent" can't be entered: no such file or directory`},
		{Namespaced, ofUser, workdir("/absent"), `SpecError: workdir "/absent" can't be entered: no such file or directory`},
		{Basic, ofUser, workdir("/etc/passwd"), `SpecError: workdir "/etc/passwd" is not a folder`},
		{Namespaced, ofUser, workdir("relative"), `SpecError: workdir "relative" is not an absolute path`},
		{Namespaced, ofUser, func(s *Spec, _ *Host) {
			s.Process.Cwd = "/srv/data/secret"
			s.View = append(s.View, Rule{Kind: Deny, Path: "/srv/data"})
		}, `SpecError: workdir "/srv/data/secret" lies in "/srv/data", which is denied`},

		// who
		{Namespaced, ofRoot, fixed(0, 0), `SpecError: user "0:0" is the host's root, who owns /proc/sys and much else; --user caller keeps the uid without its capabilities`},
		{User, ofRoot, fixed(0, 0), `SpecError: user "0:0" is the host's root`},
		{User, ofUser, fixed(7, 7), `SpecError: user "7:7" is not you, and only root may take another uid outside a user namespace (level namespaced makes one)`},
		{Basic, ofUser, fixed(0, 0), `SpecError: user "0:0" is `},
		{User, weakRootHost, fixed(7, 7), `SpecError: user "7:7" is not you`},

		// limits and capabilities
		{Basic, ofUser, limit("RLIMIT_NPROC", 100, 201), `SpecError: rlimit "nproc=100:201" is above the hard limit 200, and raising it needs CAP_SYS_RESOURCE`},
		{Namespaced, ofUser, limit("RLIMIT_NPROC", 100, ^uint64(0)), `SpecError: rlimit "nproc=100:unlimited" is above the hard limit 200`},
		{Basic, ofUser, limit("RLIMIT_NPROC", 101, 100), `SpecError: rlimit "nproc=101:100" has a soft limit above its hard limit`},
		{Basic, ofUser, limit("RLIMIT_MAGIC", 1, 1), `SpecError: rlimit "RLIMIT_MAGIC" is not a resource limit; see getrlimit(2)`},
		{Namespaced, ofUser, func(s *Spec, _ *Host) { s.CapAdd = []string{"NET_MAGIC"} }, `SpecError: cap-add "NET_MAGIC" is not a capability; see capabilities(7)`},
		{Namespaced, ofUser, func(s *Spec, _ *Host) { s.CapDrop = []string{""} }, `SpecError: cap-drop "" is not a capability; see capabilities(7)`},
		{Namespaced, ofRoot, func(s *Spec, h *Host) { s.CapAdd, h.Bounding = []string{"SYS_RESOURCE"}, allCapabilities&^(1<<24) }, `SpecError: cap-add "CAP_SYS_RESOURCE" is outside the bounding set of this host`},
		{User, ofUser, func(s *Spec, _ *Host) { s.CapAdd = []string{"NET_RAW"} }, `SpecError: cap-add "CAP_NET_RAW" is not yours to give`},

		// promises
		{User, ofUser, func(s *Spec, _ *Host) { s.Promised = append(s.Promised, "a-miracle") }, `UnsupportedError: this host can't give level user: the guarantee a-miracle`},
		{Basic, ofUser, func(s *Spec, _ *Host) { s.Process.NoNewPrivileges = false }, `UnsupportedError: this host can't give level basic: the guarantee no-new-privileges`},
	} {
		s, h := NewSpec(c.level, "/bin/true"), c.host()
		if c.set != nil {
			c.set(s, h)
		}
		_, err := Compile(s, h)
		got := fmt.Sprintf("%s: %v", strings.TrimPrefix(fmt.Sprintf("%T", err), "*isolate."), err)
		if !strings.HasPrefix(got, c.want) {
			t.Errorf("%s:\n got %s\nwant %s", c.level, got, c.want)
		}
		if strings.HasPrefix(c.want, "Unsupported") != errors.Is(err, ErrUnsupported) {
			t.Errorf("%s: %v: is ErrUnsupported: %t", c.level, err, errors.Is(err, ErrUnsupported))
		}
	}
}

// drawSpec makes a Spec of any kind, sensible or not.
func drawSpec(t *rapid.T) (*Spec, *Host) {
	level := rapid.SampledFrom(Levels()).Draw(t, "level")
	h := rapid.SampledFrom(hosts).Draw(t, "host").make()
	s := NewSpec(level, rapid.SampledFrom([]string{"/bin/true", "/bin/true", "/bin/true", "true", "./x", ""}).Draw(t, "name"))
	path := rapid.SampledFrom([]string{
		"/", "/usr", "/usr/bin", "/bin", "/bin/x", "/etc", "/etc/passwd", "/etc/resolv.conf", "/srv", "/srv/link", "/srv/data/secret",
		"/srv/data", "/home", "/home/ann", "/home/ann/project", "/home/ann/project/out", "/root", "/root/work", "/tmp",
		"/tmp/build", "/dev", "/dev/tty", "/dev/null", "/dev/pts", "/proc", "/proc/sys", "/sys", "/new", "/new/er", "/run",
		"/var", "/var/tmp", "/absent", "relative", "/usr/../etc", "//srv//", "/srv/of1", "/srv/of2", "/lib64/..",
	})
	kind := rapid.SampledFrom([]RuleKind{Show, ShowWrite, Deny, Tmpfs, Dir, Symlink, File, Overlay, Device})

	for range rapid.IntRange(0, 6).Draw(t, "rules") {
		r := Rule{Kind: kind.Draw(t, "kind"), Path: path.Draw(t, "path"), Source: path.Draw(t, "source"), FD: 3, Optional: rapid.Bool().Draw(t, "optional")}
		if rapid.Bool().Draw(t, "same") {
			r.Source = r.Path
		}
		s.View = append(s.View, r)
	}
	if rapid.Bool().Draw(t, "rootfs") && (level > User || rapid.Bool().Draw(t, "refused")) {
		s.Root = &specs.Root{Path: path.Draw(t, "root"), Readonly: rapid.Bool().Draw(t, "readonly")}
		s.RootOverlay = rapid.Bool().Draw(t, "overlay")
	}
	if rapid.Bool().Draw(t, "workdir") {
		s.Process.Cwd = path.Draw(t, "cwd")
	}
	s.HostNetwork, s.NoFilter = rapid.Bool().Draw(t, "network"), rapid.Bool().Draw(t, "unconfined")
	if rapid.Bool().Draw(t, "allow-list") {
		s.AllowList = &AllowList{BPF: make([]byte, 8)}
	}
	if rapid.Bool().Draw(t, "call-rules") {
		s.CallRules = &CallRules{BPF: make([]byte, 8)}
	}
	s.Identity = rapid.SampledFrom([]Identity{"", IdentityOwn, IdentityCaller, IdentityFixed}).Draw(t, "identity")
	s.Process.User.UID = rapid.SampledFrom([]uint32{0, 7, 1000}).Draw(t, "uid")
	caps := rapid.Just([]string(nil)) // each name may be one that is refused
	if rapid.Bool().Draw(t, "capabilities") {
		caps = rapid.SliceOfN(rapid.SampledFrom([]string{"ALL", "NET_RAW", "cap_kill", "SYS_ADMIN", "odd"}), 0, 2)
	}
	s.CapAdd, s.CapDrop = caps.Draw(t, "add"), caps.Draw(t, "drop")
	if rapid.Bool().Draw(t, "rlimit") {
		s.Process.Rlimits = []specs.POSIXRlimit{{
			Type: rapid.SampledFrom([]string{"RLIMIT_NOFILE", "RLIMIT_CORE", "RLIMIT_NPROC", "odd"}).Draw(t, "resource"),
			Soft: rapid.Uint64Range(0, 200).Draw(t, "soft"), Hard: rapid.Uint64Range(100, 300).Draw(t, "hard"),
		}}
	}
	h.Landlock = rapid.IntRange(0, 8).Draw(t, "landlock")
	h.OuterCgroups = rapid.Bool().Draw(t, "outer cgroups")
	h.NoSysfs, h.NoClone3, h.Children = rapid.Bool().Draw(t, "sysfs"), rapid.Bool().Draw(t, "clone3"), rapid.Bool().Draw(t, "children")
	for _, fact := range []*bool{&h.NoProc, &h.NoMountCall, &h.NoDevpts, &h.NoMknod, &h.NoAside, &h.NoMaps, &h.NoScratch, &h.NoHostname, &s.OuterProc} {
		*fact = rapid.Bool().Draw(t, "fact")
	}
	if rapid.Bool().Draw(t, "idmap") {
		h.NoIDMap[8] = true
	}
	return s, h
}

// TestCompileProperties: for any Spec Compile does not panic, gives the same twice, changes neither Spec nor Host, says
// in a typed error why not, and its Plan gives all that was promised and ends with the exec.
func TestCompileProperties(t *testing.T) {
	compiled := 0
	rapid.Check(t, func(t *rapid.T) {
		s, h := drawSpec(t)
		before := fmt.Sprintf("%+v %+v", *s, *h)
		plan, err := Compile(s, h)
		again, err2 := Compile(s, h)
		if !reflect.DeepEqual(plan, again) || fmt.Sprint(err) != fmt.Sprint(err2) {
			t.Fatalf("not the same twice: %v, %v", err, err2)
		}
		if fmt.Sprintf("%+v %+v", *s, *h) != before {
			t.Fatal("the Spec or the Host was changed")
		}
		if err != nil {
			var spec *SpecError
			var unsupported *UnsupportedError
			if !errors.As(err, &spec) && !errors.As(err, &unsupported) {
				t.Fatalf("%T: %v", err, err)
			}
			if spec != nil && (spec.Field == "" || spec.Problem == "") {
				t.Fatalf("a SpecError that says little: %+v", spec)
			}
			return
		}
		compiled++
		for _, g := range s.Promised {
			if outer := g == PrivateProcesses && s.OuterProc; slices.Contains(s.promised(), g) && !slices.Contains(plan.Given, g) && !outer {
				t.Fatalf("%s is not given", g)
			}
		}
		checkPlan(t, s, h, plan)
	})
	if compiled == 0 {
		t.Error("no Spec compiled: nothing was shown")
	}
}

// checkPlan holds what is true of every Plan, whatever was asked for.
func checkPlan(t *rapid.T, s *Spec, h *Host, plan *Plan) {
	order := map[Side]int{SideLauncher: 0, SideInit: 0, SideAside: 0, SidePayload: 1}
	at := map[string]int{}
	for i, step := range plan.Steps {
		if i > 0 && order[step.Side] < order[plan.Steps[i-1].Side] {
			t.Fatalf("step %d, %s, comes after the payload's", i, step)
		}
		if step.Side == SidePayload {
			at[step.Op] = i
		}
	}
	last := len(plan.Steps) - 1
	if at["exec"] != last || last == 0 {
		t.Fatalf("the last step is %s", plan.Steps[last])
	}
	// Each of these takes away what the ones before need.
	if _, ok := at["seccomp allow-list"]; ok != (s.AllowList != nil) {
		t.Fatal("the allow-list that was asked for is not in the Plan, or another one")
	}
	if _, ok := at["seccomp rules"]; ok != (s.CallRules != nil) {
		t.Fatal("the rules that were asked for are not in the Plan, or others")
	}
	sequence := []string{"setrlimit", "setgroups", "setresgid", "setresuid", "drop from bounding set", "capset", "no_new_privs", "landlock restrict", "die with jail-init", "seccomp filter", "seccomp allow-list", "seccomp rules", "exec"}
	if _, ok := at["setns"]; !ok { // no user namespace of the payload's own
		sequence[1], sequence[2], sequence[3], sequence[4] = "drop from bounding set", "setgroups", "setresgid", "setresuid"
	}
	previous := -1
	for _, op := range sequence {
		if i, ok := at[op]; ok {
			if i < previous {
				t.Fatalf("%q comes too early", op)
			}
			previous = i
		}
	}
	if !s.KeepCapabilities && plan.UID == 0 && h.UID == 0 && !h.GuestUID && s.Identity != IdentityCaller {
		t.Fatal("the host's root, unasked")
	}
	if _, ok := at["capset"]; !ok {
		t.Fatal("capabilities are left as they are")
	}
	if b := plan.encode(3, false, 0, 0); len(b) == 0 {
		t.Fatal("can't be encoded")
	}
}

// TestCompileWorkdirBelowDir: a folder that is made above the working folder does not show that one.
func TestCompileWorkdirBelowDir(t *testing.T) {
	s := NewSpec(Namespaced, "/bin/true")
	s.Process.Cwd = "/srv/data"
	s.View = append(s.View, Rule{Kind: Dir, Path: "/srv"})
	plan, err := Compile(s, rootHost())
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(plan.Steps, func(s Step) bool { return s.Op == "bind" && s.Path == "srv/data" }) {
		t.Errorf("the working folder is not shown:\n%v", plan.Steps)
	}
}

// TestFilterLog: the flag goes with the filters that it was asked for.
func TestFilterLog(t *testing.T) {
	for _, c := range []struct {
		all, list bool
		want      []uint64 // the filter, the allow-list, the rules
	}{
		{false, false, []uint64{0, 0, 0}},
		{false, true, []uint64{0, unix.SECCOMP_FILTER_FLAG_LOG, 0}},
		{true, false, []uint64{unix.SECCOMP_FILTER_FLAG_LOG, unix.SECCOMP_FILTER_FLAG_LOG, unix.SECCOMP_FILTER_FLAG_LOG}},
	} {
		s := NewSpec(User, "true")
		s.FilterLog, s.AllowList, s.CallRules = c.all, &AllowList{BPF: make([]byte, 8), Log: c.list}, &CallRules{BPF: make([]byte, 8)}
		plan, err := Compile(s, rootHost())
		if err != nil {
			t.Fatal(err)
		}
		var got []uint64
		for _, step := range plan.Steps {
			if strings.HasPrefix(step.Op, "seccomp ") {
				got = append(got, step.wire.b)
			}
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%+v: %v", c, got)
		}
	}
}

// TestProcOfTheHostIsNotPrivate: who is shown the host's /proc sees its processes, and the Plan does not claim otherwise.
func TestProcOfTheHostIsNotPrivate(t *testing.T) {
	for path, private := range map[string]bool{"/srv": true, "/": false, "/proc": false, "/proc/sys": false} {
		s := NewSpec(Namespaced, "/bin/true")
		s.View = append(s.View, Rule{Kind: Show, Path: "/new", Source: path})
		plan, err := Compile(s, hosts[0].make())
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		if got := slices.Contains(plan.Given, PrivateProcesses); got != private {
			t.Errorf("with %s at /new: private processes %t, want %t", path, got, private)
		}
	}
	s := NewSpec(Namespaced, "/bin/true")
	s.View = append(s.View, Rule{Kind: Show, Path: "/", Source: "/"})
	if plan, err := Compile(s, hosts[0].make()); err != nil || !slices.Contains(plan.Given, PrivateProcesses) {
		t.Errorf("with / at /: %v", err)
	}
}
