// Package syscalls has what packages seccomp and isolate both need to know of system calls: their names, groups and
// numbers, and what the kernel makes of a filter. It is for those two alone, and needs no libseccomp.
package syscalls
