// go:build linux && (amd64 || arm64)

/* Go puts handlers on signals and raises RLIMIT_NOFILE before main: what the caller of this program had is
 * only to be seen before. */
#define _GNU_SOURCE
#include "origin.h"

#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

struct jail_origin jail_origin;

/* 101 is the first priority that a program may use: before package signals blocks the real-time signals. */
__attribute__((constructor(101))) static void record_origin(void) {
	struct rlimit nofile;
	/* the kernel's own struct: libc hides signals 32 and 33 */
	struct {
		unsigned long handler, flags, restorer, mask;
	} act;
	for (int sig = 1; sig <= 64; sig++)
		if (syscall(SYS_rt_sigaction, sig, 0, &act, 8) == 0 && act.handler == 1)
			jail_origin.ignored |= 1UL << (sig - 1);
	syscall(SYS_rt_sigprocmask, 0, 0, &jail_origin.mask, 8);
	if (getrlimit(RLIMIT_NOFILE, &nofile) == 0) {
		jail_origin.nofile_soft = nofile.rlim_cur;
		jail_origin.nofile_hard = nofile.rlim_max;
	}
}
