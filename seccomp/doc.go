// Package seccomp compiles system call profiles to the BPF programs that the
// Linux kernel runs for seccomp(2).
//
// It only compiles. Who runs the payload loads the program, so a host program
// that uses built-in filters alone needs neither this package nor libseccomp:
// the [Baseline] is compiled when the project is generated and embedded in
// package isolate.
//
// The rules of a [Profile] are compiled by libseccomp. What it can't do is written by hand,
// in front of its program: to compare call numbers by range, which [Profile]
// needs for calls that are newer than the profile, and to name calls that are
// newer than libseccomp. Rules that a person writes down ([CallRule]) are compiled
// without it: [CompileCalls] says why. Their names and groups are in groups.txt.
//
// See https://docs.kernel.org/userspace-api/seccomp_filter.html.
package seccomp
