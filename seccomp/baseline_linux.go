package seccomp

import "golang.org/x/sys/unix"

//go:generate go run ./internal/generate calls
//go:generate go run ./internal/generate ../isolate

// newest is the last call that golang.org/x/sys knew when the baseline was
// written. A test compares: who raises x/sys reads what the new calls do,
// decides on them here, and generates again.
const newest = unix.SYS_RSEQ_SLICE_YIELD

// Baseline returns the profile of the levels below "contained". It takes away
// what no ordinary program misses and what has led out of sandboxes, and
// leaves namespaces, mounts, seccomp and Landlock, so that a jail works inside
// a jail.
//
// It is short: the kernel runs a filter once for every call number when it is
// loaded, so each rule is paid for at each start.
func Baseline() Profile {
	refuse := Errno(unix.EPERM)
	return Profile{
		Default: Allow,
		Newest:  newest,
		Tree:    true,
		Rules: []Rule{
			// Keyrings belong to no namespace: the caller's keys would be in
			// reach (and CVE-2016-0728).
			{Action: refuse, Names: []string{"add_key", "request_key", "keyctl"}},

			// Large kernel interfaces with a long list of local roots:
			// CVE-2017-16995, CVE-2020-8835, CVE-2021-3490 (bpf);
			// CVE-2013-2094, CVE-2023-5717 (perf_event_open);
			// CVE-2021-41073, CVE-2022-29582, CVE-2023-2598 (io_uring, which
			// also does calls that no filter sees).
			{Action: refuse, Names: []string{
				"bpf", "perf_event_open",
				"io_uring_setup", "io_uring_enter", "io_uring_register",
			}},

			// Stops the kernel in the middle of a copy for as long as an
			// exploit of a race needs; CVE-2018-18397.
			{Action: refuse, Names: []string{"userfaultfd"}},

			// Replace or extend the kernel.
			{Action: refuse, Names: []string{
				"kexec_load", "kexec_file_load",
				"init_module", "finit_module", "delete_module",
			}},

			// Opens any file of a file system by its inode number, outside
			// the view too; CVE-2014-3519.
			{Action: refuse, Names: []string{"open_by_handle_at"}},

			// Set the limits of another process. The kernel compares only user
			// ids, which a supervisor may share with what it guards: RLIMIT_CPU
			// kills it, RLIMIT_NOFILE 0 makes its ppoll fail. To read them,
			// and to set one's own as pid 0, stays.
			//
			// The kernel reads 32 bits of the pid. What differs from 0 in the
			// high half alone is refused too, though it means 0; nobody
			// passes it. The pointer has 64 bits, on x32 as well, where
			// libseccomp would let 1<<32 through as NULL, an address that a
			// process can map. So there reading is refused too.
			{Action: refuse, Names: []string{"prlimit64"}, Conds: []Cond{
				{Arg: 0, Op: NotEqual, Value: 0},
				{Arg: 2, Op: NotEqual, Value: 0, NotX32: true},
			}},

			// Type into the terminal's input, which the caller's shell
			// reads after us.
			ioctl(unix.TIOCSTI, refuse),   // CVE-2017-5226
			ioctl(unix.TIOCLINUX, refuse), // CVE-2023-28100
		},
	}
}

// ioctl is a rule for one request. The kernel reads 32 bits of it
// (CVE-2019-10063).
func ioctl(request uint64, a Action) Rule {
	return Rule{Action: a, Names: []string{"ioctl"}, Conds: []Cond{
		{Arg: 1, Op: MaskedEqual, Mask: 0xffffffff, Value: request},
	}}
}
