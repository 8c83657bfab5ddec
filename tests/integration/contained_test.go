//go:build linux

package integration

import (
	"strings"
	"testing"
)

// contained runs f at the highest level, and with a root of its own as well, so that each promise is seen in both views.
func contained(t *testing.T, f func(t *testing.T, sh func(script string) string)) {
	each(t, []string{"contained"}, func(t *testing.T, a arm) {
		b := newBox(t, a)
		f(t, func(script string) string { return b.sh(nil, script) })
		root := b.tree("root", busybox(t), mountPoints...)
		f(t, func(script string) string { return b.script(root, nil, script) })
	})
}

// P10, P11, P12, P14: what of /proc and /sys tells of the machine or changes it is closed by mounts.
func TestP10_P11_P12_P14_Masks(t *testing.T) {
	contained(t, func(t *testing.T, sh func(string) string) {
		out := sh(`for f in acpi asound interrupts kallsyms kcore keys kmsg latency_stats sched_debug scsi timer_list timer_stats; do
				[ -e /proc/$f ] || continue; cat /proc/$f/* /proc/$f 2>/dev/null | wc -c; done
			ls -A /sys/firmware /sys/devices/virtual/powercap 2>/dev/null | grep -v : | grep .
			for f in sys/kernel/core_pattern sys/kernel/modprobe sys/net/ipv4/ip_forward sysrq-trigger irq/default_smp_affinity; do
				[ ! -e /proc/$f ] || { (echo x >/proc/$f) 2>/dev/null && echo "wrote $f"; }; done
			grep -E ' /proc/(sys|sysrq-trigger|bus|fs|irq) ' /proc/self/mountinfo | grep -vc ' ro,nosuid,nodev,noexec'; true`)
		lines := strings.Fields(out)
		if len(lines) < 5 {
			t.Fatalf("hardly anything was looked at: %q", out)
		}
		for _, l := range lines {
			if l != "0" {
				t.Errorf("got %q", out)
				break
			}
		}
	})
	b := newBox(t, arm{"namespaced", asRoot})
	if out := b.sh(nil, "cat /proc/interrupts | wc -c"); strings.TrimSpace(out) == "0" {
		t.Error("vacuous: nothing is in it at namespaced either")
	}
}

// P39, P41, P43, P45: no capability in any set, one id in the map, no group beside it.
func TestP39_P41_P43_P45_Contained(t *testing.T) {
	contained(t, func(t *testing.T, sh func(string) string) {
		status, maps, _ := strings.Cut(sh("cat /proc/self/status; echo =; cat /proc/self/uid_map /proc/self/gid_map /proc/self/setgroups"), "=\n")
		st := parseStatus(status)
		for _, set := range []string{"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"} {
			if st[set] != noCaps {
				t.Errorf("%s is %s", set, st[set])
			}
		}
		if st["NoNewPrivs"] != "1" || st["Seccomp"] != "2" || st["Seccomp_filters"] != "2" {
			t.Errorf("no_new_privs %s, seccomp %s, %s filters", st["NoNewPrivs"], st["Seccomp"], st["Seccomp_filters"])
		}
		uid := strings.Fields(st["Uid"])[0]
		f := strings.Fields(maps)
		if len(f) != 7 || f[0] != uid || f[1] == "0" || f[2] != "1" || f[3] != uid || f[4] == "0" || f[5] != "1" || f[6] != "deny" {
			t.Errorf("the maps and setgroups are %q", f)
		}
	})
}

// --cap-add is a choice, and counts in the payload's user namespace alone; --user caller, as root, is one as well.
func TestContainedChoices(t *testing.T) {
	each(t, []string{"contained"}, func(t *testing.T, a arm) {
		b := newBox(t, a)
		st := b.status("--cap-add", "NET_ADMIN")
		if st["CapEff"] != "0000000000001000" || st["CapBnd"] != "0000000000001000" {
			t.Errorf("%s, %s", st["CapEff"], st["CapBnd"])
		}
		if a.root {
			if o := b.run([]string{"--cap-add", "ALL", "--seccomp=unconfined"}, "sh", "-c", "hostname other || mount -t tmpfs none /tmp"); o.code == 0 {
				t.Errorf("capabilities count outside the payload's user namespace: %+v", o)
			}
		}
		uid := strings.Fields(b.status("--user", "caller")["Uid"])[0]
		if want := strings.TrimSpace(b.bare("id", "-u").stdout); uid != want {
			t.Errorf("--user caller is %s, want %s", uid, want)
		}
	})
}
