//go:build linux

package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// status is /proc/self/status of a payload.
func (b *box) status(flags ...string) map[string]string {
	b.t.Helper()
	return parseStatus(b.ok(flags, "cat", "/proc/self/status"))
}

const noCaps = "0000000000000000"

// inRange says whether an id is one that jails of root take.
func inRange(id string) bool {
	n, err := strconv.Atoi(id)
	return err == nil && n >= 1_900_000_000 && n < 1_900_065_536
}

// P39, P43: ids, groups, capability sets, no_new_privs and securebits are those of the level.
func TestP39_P43_Credentials(t *testing.T) {
	each(t, allLevels, func(t *testing.T, a arm) {
		b := newBox(t, a)
		st := b.status()
		bare := parseStatus(b.bare("cat", "/proc/self/status").stdout)
		uids, gids := strings.Fields(st["Uid"]), strings.Fields(st["Gid"])
		if len(slices.Compact(slices.Clone(uids))) != 1 || len(slices.Compact(slices.Clone(gids))) != 1 {
			t.Fatalf("ids differ: %v %v", uids, gids)
		}
		switch {
		case a.root && a.level != "basic":
			if !inRange(uids[0]) || gids[0] != uids[0] || st["Groups"] != "" {
				t.Errorf("uid %s, gid %s, groups %q", uids[0], gids[0], st["Groups"])
			}
		default:
			if uids[0] != strings.Fields(bare["Uid"])[0] || gids[0] != strings.Fields(bare["Gid"])[0] {
				t.Errorf("uid %s, gid %s", uids[0], gids[0])
			}
		}
		for _, set := range []string{"CapInh", "CapAmb"} {
			if st[set] != noCaps {
				t.Errorf("%s is %s", set, st[set])
			}
		}
		for _, set := range []string{"CapPrm", "CapEff", "CapBnd"} {
			want := noCaps
			if a.level == "basic" || a.level == "user" && !a.root && set == "CapBnd" { // without CAP_SETPCAP it can't be lowered
				want = bare[set]
			}
			if st[set] != want {
				t.Errorf("%s is %s, want %s", set, st[set], want)
			}
		}
		if st["NoNewPrivs"] != "1" || bare["NoNewPrivs"] != "0" {
			t.Errorf("NoNewPrivs is %s, bare %s", st["NoNewPrivs"], bare["NoNewPrivs"])
		}
		if want := map[string]string{"basic": "0", "user": "2", "namespaced": "2"}[a.like()]; st["Seccomp"] != want {
			t.Errorf("Seccomp is %s", st["Seccomp"])
		}
		if out := b.ok(nil, tool("calls"), "securebits"); !strings.Contains(out, "securebits 0\n") {
			t.Errorf("got %s", out)
		}
	})
}

// P45: nobody becomes root again, and the like.
func TestP45_RootIsOutOfReach(t *testing.T) {
	each(t, allLevels, func(t *testing.T, a arm) {
		if a.root && a.level == "basic" {
			return // it is root
		}
		b := newBox(t, a)
		out := b.ok(nil, tool("calls"), "ids")
		if strings.Count(out, "\n") < 10 {
			t.Fatalf("got %s", out)
		}
		for _, line := range strings.Split(strings.TrimSpace(out), "\n") {
			if !strings.HasSuffix(line, " EPERM") && !strings.HasSuffix(line, " EINVAL") && !strings.HasSuffix(line, " EACCES") {
				t.Error(line)
			}
		}
	})
}

// P20: set-uid and set-gid files, and those with capabilities, give nothing.
func TestP20_SetUID(t *testing.T) {
	t.Parallel()
	if !asRoot {
		t.Skip("host lacks: root (to make a set-uid file)")
	}
	text, err := os.ReadFile(tool("suid"))
	if err != nil {
		t.Fatal(err)
	}
	suid, fcaps := filepath.Join(tools, "suid-root"), filepath.Join(tools, "with-caps")
	for _, path := range []string{suid, fcaps} {
		if err := os.WriteFile(path, text, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(suid, 0o755|os.ModeSetuid|os.ModeSetgid); err != nil {
		t.Fatal(err)
	}
	// struct vfs_cap_data, revision 2: CAP_SETUID and CAP_DAC_OVERRIDE, effective
	data := []byte{1, 0, 0, 2, 0x82, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
	if err := unix.Setxattr(fcaps, "security.capability", data, 0); err != nil {
		t.Fatal(err)
	}
	t.Run("arms", func(t *testing.T) {
		each(t, allLevels, func(t *testing.T, a arm) {
			b := newBox(t, a)
			plain := b.ok(nil, tool("suid"))
			for _, path := range []string{suid, fcaps} {
				o := b.run(nil, path)
				if path == fcaps && o.code == 126 && a.root && a.level == "user" {
					continue // the kernel refuses to run it: its capabilities are outside the bounding set
				}
				got := o.stdout
				// two jails of root have two uids
				if a.root && a.level != "basic" {
					if strings.Contains(got, "ids 0") || strings.Contains(got, " 0 ") || strings.Count(got, noCaps) != 2 {
						t.Errorf("%s: %s", path, got)
					}
				} else if got != plain {
					t.Errorf("%s: %s, plain %s", path, got, plain)
				}
			}
			if !a.root {
				bare := b.bare(suid).stdout
				if !strings.Contains(bare, " 0 0 ") {
					t.Errorf("the bare arm gains nothing either: %s", bare)
				}
				if caps := b.bare(fcaps).stdout; !strings.Contains(caps, "82\n") {
					t.Errorf("the bare arm gains nothing either: %s", caps)
				}
			}
		})
	})
}

// Two jails of root never share a uid; the lock on it goes with the jail, also when the launcher is killed.
func TestOwnUIDs(t *testing.T) {
	t.Parallel()
	if !asRoot {
		t.Skip("host lacks: root")
	}
	for _, level := range userAndUp {
		b := newBox(t, arm{level, true})
		seen := map[int]bool{}
		var launchers []int
		for range 12 {
			cmd := b.command(nil, "sleep", "60")
			b.running(cmd)
			init, _ := initOf(t, cmd.Process.Pid)
			payload := 0
			eventually(t, "the payload has its uid", func() bool {
				payload = 0
				for _, pid := range children(init) {
					payload, _ = strconv.Atoi(strings.Fields(statusOf(pid)["Uid"] + " x")[0])
				}
				return inRange(strconv.Itoa(payload))
			})
			if seen[payload] {
				t.Errorf("%s: uid %d is given twice", level, payload)
			}
			seen[payload] = true
			launchers = append(launchers, cmd.Process.Pid)
			if !uidLocked(t, payload) {
				t.Errorf("%s: no lock on uid %d while it is in use", level, payload)
			}
		}
		for i, pid := range launchers {
			sig := syscall.SIGTERM
			if i%2 == 1 {
				sig = syscall.SIGKILL
			}
			if err := syscall.Kill(pid, sig); err != nil {
				t.Fatal(err)
			}
		}
		for uid := range seen {
			eventually(t, fmt.Sprintf("uid %d of level %s is free again", uid, level), func() bool { return !uidLocked(t, uid) })
		}
		b.ok(nil, "true") // removes what the killed ones left in TMPDIR
	}
}

// uidLocked asks whether the claim on a uid is held.
func uidLocked(t *testing.T, uid int) bool {
	t.Helper()
	f, err := os.OpenFile("/run/jail/uids", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	lock := unix.Flock_t{Type: unix.F_WRLCK, Start: int64(uid - 1_900_000_000), Len: 1}
	if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_GETLK, &lock); err != nil {
		t.Fatal(err)
	}
	return lock.Type != unix.F_UNLCK
}

// --user.
func TestP44_User(t *testing.T) {
	each(t, allLevels, func(t *testing.T, a arm) {
		b := newBox(t, a)
		ids := []string{"sh", "-c", "grep -E '^(Uid|Gid|Groups|CapEff|CapPrm|CapBnd):' /proc/self/status"}
		caller := parseStatus(b.ok([]string{"--user", "caller"}, ids...))
		bare := parseStatus(b.bare(ids...).stdout)
		if caller["Uid"] != bare["Uid"] || caller["Gid"] != bare["Gid"] {
			t.Errorf("--user caller: %v, bare %v", caller, bare)
		}
		if a.level != "basic" && (caller["CapEff"] != noCaps || caller["CapPrm"] != noCaps) {
			t.Errorf("--user caller has capabilities: %v", caller)
		}
		o := b.run([]string{"--user", "12345:23456"}, ids...)
		switch {
		case !a.root && a.like() != "namespaced":
			if o.code != 125 || o.stdout != "" {
				t.Errorf("an ordinary user took another uid: %+v", o)
			}
		default:
			st := parseStatus(o.stdout)
			if st["Uid"] != "12345\t12345\t12345\t12345" || st["Gid"] != "23456\t23456\t23456\t23456" || a.root && st["Groups"] != "" {
				t.Errorf("--user 12345:23456: %+v", o)
			}
			if st["CapEff"] != noCaps || st["CapPrm"] != noCaps {
				t.Errorf("--user 12345:23456 has capabilities: %v", st)
			}
		}
		if o := b.run([]string{"--user", "0"}, ids...); a.root && a.level != "basic" && a.level != "contained" && (o.code != 125 || o.stdout != "") {
			t.Errorf("--user 0 as root: %+v", o)
		} else if !a.root && a.like() == "namespaced" || a.level == "contained" { // root inside, itself outside, without capabilities
			if st := parseStatus(o.stdout); !strings.HasPrefix(st["Uid"], "0\t0") || st["CapEff"] != noCaps {
				t.Errorf("--user 0: %+v", o)
			}
		}
		for _, bad := range []string{"0x0", "00", "+0", "-1", "4294967295", "4294967296", "1000a", " 0", "0:0:0", "root", ":", "1:", ":1", "18446744073709551616"} {
			if o := b.run([]string{"--user=" + bad}, "echo", "started"); o.code != 125 || o.stdout != "" || !strings.Contains(o.stderr, strconv.Quote(bad)) {
				t.Errorf("--user %q: %+v", bad, o)
			}
		}
	})
}

// P41: in a user namespace the host's root is not mapped, and groups can't be dropped to gain access.
func TestP41_IDMaps(t *testing.T) {
	each(t, namespacedUp, func(t *testing.T, a arm) {
		if a.root {
			return // no user namespace
		}
		b := newBox(t, a)
		uid := strconv.Itoa(os.Getuid())
		if asRoot {
			uid = strconv.Itoa(ordinary)
		}
		got := strings.Fields(b.sh(nil, "cat /proc/self/uid_map /proc/self/setgroups"))
		if !slices.Equal(got, []string{uid, uid, "1", "deny"}) {
			t.Errorf("got %v", got)
		}
	})
}

// --cap-add gives what is asked for, and no more; --cap-drop takes away.
func TestCapabilities(t *testing.T) {
	each(t, allLevels, func(t *testing.T, a arm) {
		b := newBox(t, a)
		has := func(st map[string]string, set string) uint64 {
			n, err := strconv.ParseUint(st[set], 16, 64)
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
		const netBind = 1 << unix.CAP_NET_BIND_SERVICE
		if !a.root && a.like() != "namespaced" {
			if o := b.run([]string{"--cap-add", "NET_BIND_SERVICE"}, "true"); o.code != 125 {
				t.Errorf("a capability that nobody has was given: %+v", o)
			}
			return
		}
		if a.level == "basic" {
			st := b.status("--cap-drop", "CAP_SYS_ADMIN")
			for _, set := range []string{"CapEff", "CapPrm", "CapBnd"} {
				if has(st, set)>>unix.CAP_SYS_ADMIN&1 == 1 || has(st, set)>>unix.CAP_NET_ADMIN&1 == 0 {
					t.Errorf("--cap-drop: %s is %s", set, st[set])
				}
			}
			if st := b.status("--cap-drop", "ALL"); has(st, "CapEff") != 0 || has(st, "CapBnd") != 0 {
				t.Errorf("--cap-drop ALL: %v", st)
			}
			return
		}
		st := b.status("--cap-add", "NET_BIND_SERVICE")
		for _, set := range []string{"CapEff", "CapPrm", "CapBnd"} {
			if has(st, set) != netBind {
				t.Errorf("--cap-add: %s is %s", set, st[set])
			}
		}
		if st := b.status("--cap-add", "NET_BIND_SERVICE", "--cap-drop", "ALL"); has(st, "CapEff") != 0 {
			t.Errorf("dropped again: %v", st)
		}
		for _, bad := range []string{"NO_SUCH", "", "CAP_"} {
			if o := b.run([]string{"--cap-add=" + bad}, "echo", "started"); o.code != 125 || o.stdout != "" {
				t.Errorf("--cap-add %q: %+v", bad, o)
			}
		}
		if a.like() == "namespaced" && !scoped() {
			return // ALL has CAP_SYS_PTRACE in it: see TestP27_PtraceCapabilityStaysInside
		}
		if o := b.run([]string{"--cap-add", "ALL"}, "cat", "/proc/self/status"); o.code != 0 || has(parseStatus(o.stdout), "CapEff") == 0 {
			t.Errorf("--cap-add ALL: %+v", o)
		}
	})
}
