package isolate

// What of /proc and /sys a payload has no business with, and which of it is closed at level contained. What is not there
// on a host needs nothing.
var (
	// maskedPaths tell of the machine and of others on it: keys, timers, memory, power (which tells what others compute).
	maskedPaths = []string{
		"/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kallsyms", "/proc/kcore", "/proc/keys", "/proc/kmsg",
		"/proc/latency_stats", "/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats",
		"/sys/devices/virtual/powercap", "/sys/firmware",
	}
	// readonlyPaths change the machine.
	readonlyPaths = []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
)
