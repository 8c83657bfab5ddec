package isolate

import (
	"slices"
	"strings"
)

// capabilityNames by number, capabilities(7).
var capabilityNames = []string{
	"CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP",
	"LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER",
	"SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE",
	"SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP",
	"MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF",
	"CHECKPOINT_RESTORE",
}

const allCapabilities = uint64(1)<<41 - 1

// parseCapabilities reads names as docker's flags take them; field is the flag for errors.
func parseCapabilities(field string, names []string) (uint64, error) {
	var set uint64
	for _, name := range names {
		bare := strings.TrimPrefix(strings.ToUpper(name), "CAP_")
		if bare == "ALL" {
			set |= allCapabilities
			continue
		}
		i := slices.Index(capabilityNames, bare)
		if i < 0 {
			return 0, &SpecError{Field: field, Value: name, Problem: "is not a capability; see capabilities(7)"}
		}
		set |= 1 << i
	}
	return set, nil
}

// formatCapabilities lists a set by name.
func formatCapabilities(set uint64) []string {
	var names []string
	for i, name := range capabilityNames {
		if set>>i&1 == 1 {
			names = append(names, "CAP_"+name)
		}
	}
	return names
}

// AddedCapabilities lists what a payload that starts from none gets by Spec.CapAdd and Spec.CapDrop: "CAP_NET_ADMIN".
func AddedCapabilities(add, drop []string) ([]string, error) {
	extra, err := parseCapabilities("cap-add", add)
	if err != nil {
		return nil, err
	}
	less, err := parseCapabilities("cap-drop", drop)
	return formatCapabilities(extra &^ less), err
}
