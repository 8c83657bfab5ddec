package main

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/moby/profiles/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/jailrun/jail/isolate"
)

// contained compares level contained on a root file system with crun and runc on a bundle that says the same: all
// namespaces and a user namespace with one id mapped, Docker's filter, the same mounts, masked and read-only paths, no
// capabilities, a cgroup with a limit on tasks. What jail does beyond it: the baseline filter, id-mapped files, nodes
// of its own in /dev, a /dev that can't be written, death with the launcher, and an account of how it ended.
//
// Most of what crun and runc take is the filter, which they compile at each start. crun can be given one that is compiled
// already, as jail's is (crun(1), run.oci.seccomp_bpf_data): that figure shows what the rest takes.
//
// An ordinary user has a cgroup only where a subtree is delegated. Where none is, all do without one, and without masks:
// then jail's level is namespaced, with the root and the filter of contained.
func (b *bench) contained(a account) error {
	root := filepath.Join(b.dir, "root")
	if err := makeRoot(root); err != nil {
		return err
	}
	jail := kind{name: "jail run --level=contained --rootfs", goal: 0.5}
	jail.args = []string{b.program("jail"), "run", "--level=contained", "--rootfs", root, "--", "/bin/true"}
	withCgroup := true
	if _, err := b.try(a, jail.args); err != nil && a.uid != 0 {
		withCgroup = false
		jail.name = "jail run --level=namespaced --rootfs --seccomp=default"
		jail.args = []string{b.program("jail"), "run", "--level=namespaced", "--rootfs", root, "--seccomp=default", "--", "/bin/true"}
	}
	const compiled = "crun, the filter already compiled"
	kinds := []kind{{name: "runc"}, {name: "crun"}, {name: compiled}, jail}
	// No prefix of ours: others count the cgroups that jail has left.
	group := fmt.Sprintf("bench-jail-%d-", os.Getpid())
	for i, k := range kinds[:3] {
		runtime, _, _ := strings.Cut(k.name, ",")
		dir := filepath.Join(b.dir, fmt.Sprintf("bundle-%s-%d", a.name, i))
		state := filepath.Join(dir, "state")
		spec, err := bundleSpec(a, root)
		if err != nil {
			return err
		}
		args := []string{runtime, "--root", state}
		if withCgroup {
			spec.Linux.CgroupsPath = "/" + group + runtime
			limit := int64(1024)
			spec.Linux.Resources = &specs.LinuxResources{Pids: &specs.LinuxPids{Limit: &limit}}
		} else {
			spec.Linux.MaskedPaths, spec.Linux.ReadonlyPaths = nil, nil
			if runtime == "crun" {
				args = append(args, "--cgroup-manager=disabled")
			}
		}
		if k.name == compiled {
			bpf := isolate.DefaultAllowList().BPF
			spec.Annotations = map[string]string{"run.oci.seccomp_bpf_data": base64.StdEncoding.EncodeToString(bpf)}
		}
		text, err := json.Marshal(spec)
		if err != nil {
			return err
		}
		err = errors.Join(os.MkdirAll(state, 0o755), os.Chown(state, a.uid, a.uid), os.WriteFile(filepath.Join(dir, "config.json"), text, 0o644))
		if err != nil {
			return err
		}
		kinds[i].args = append(args, "run", "--bundle", dir, group+runtime)
	}
	// crun refuses to run where cgroup v2 has controllers beside those of v1, so it gets not to see them.
	if file := "/sys/fs/cgroup/unified/cgroup.controllers"; os.Getuid() == 0 && exists(file) {
		a.around = []string{"unshare", "--mount", "--propagation", "private", "sh", "-c", "mount --bind /dev/null " + file + ` && exec "$@"`, "sh"}
	}
	return errors.Join(b.compare("contained", a, "crun", kinds), removeCgroups(group))
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// makeRoot makes a root file system of busybox, with all mount points.
func makeRoot(root string) error {
	if exists(root) {
		return nil
	}
	var err error
	for _, dir := range []string{"bin", "dev", "proc", "run", "sys", "tmp", "var/tmp"} {
		err = errors.Join(err, os.MkdirAll(filepath.Join(root, dir), 0o755))
	}
	return errors.Join(err,
		command("install", "-m", "755", "/bin/busybox", filepath.Join(root, "bin/busybox")).Run(),
		os.Symlink("busybox", filepath.Join(root, "bin/true")))
}

// bundleSpec is the configuration of a bundle that isolates as level contained does, without a cgroup.
func bundleSpec(a account, root string) (*specs.Spec, error) {
	host := uint32(a.uid)
	if host == 0 {
		host = 1999999999 // as with jail, nobody on the host
	}
	ids := []specs.LinuxIDMapping{{ContainerID: 0, HostID: host, Size: 1}}
	tmpfs := func(path, mode string) specs.Mount {
		return specs.Mount{Destination: path, Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "nodev", "mode=" + mode, "size=1g"}}
	}
	s := &specs.Spec{
		Version:  "1.0.2", // Debian's runc knows no newer one
		Hostname: "jail",
		Root:     &specs.Root{Path: root, Readonly: true},
		Process: &specs.Process{
			Args: []string{"/bin/true"}, Cwd: "/", Env: environment(a), NoNewPrivileges: true,
			Capabilities: &specs.LinuxCapabilities{}, Rlimits: []specs.POSIXRlimit{{Type: "RLIMIT_CORE"}},
		},
		Mounts: []specs.Mount{
			{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "nodev", "noexec"}},
			{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "noexec", "mode=755", "size=64k"}},
			{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=620"}},
			tmpfs("/tmp", "1777"), tmpfs("/run", "755"), tmpfs("/var/tmp", "1777"), tmpfs("/dev/shm", "1777"),
			{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "nodev", "noexec", "ro"}},
		},
		Linux: &specs.Linux{
			UIDMappings: ids,
			GIDMappings: ids,
			MaskedPaths: []string{
				"/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kallsyms", "/proc/kcore", "/proc/keys", "/proc/kmsg",
				"/proc/latency_stats", "/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats",
				"/sys/devices/virtual/powercap", "/sys/firmware",
			},
			ReadonlyPaths: []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"},
		},
	}
	for _, kind := range []specs.LinuxNamespaceType{
		specs.UserNamespace, specs.MountNamespace, specs.PIDNamespace, specs.IPCNamespace, specs.UTSNamespace, specs.NetworkNamespace, specs.CgroupNamespace,
	} {
		s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: kind})
	}
	var err error
	s.Linux.Seccomp, err = seccomp.GetDefaultProfile(s)
	return s, err
}

// removeCgroups removes what a peer has left, and reports it: it would be slower with each run.
func removeCgroups(prefix string) error {
	var left error
	for _, pattern := range []string{"/sys/fs/cgroup/", "/sys/fs/cgroup/*/"} {
		dirs, _ := filepath.Glob(pattern + prefix + "*")
		for _, dir := range dirs {
			left = errors.Join(left, fmt.Errorf("a peer has left %s", dir), os.Remove(dir))
		}
	}
	return left
}
