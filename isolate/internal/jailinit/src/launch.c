/* The way from the launcher to jail-init: clone, and the few lines that run in the launcher's memory.
 *
 * Rules of this file:
 *   - raw system calls only: between clone and exec the child shares the launcher's memory, and libc's errno,
 *     locks and stack protector are the launcher's;
 *   - it is compiled when the project is generated, with our flags: -pg or a sanitizer in a library user's
 *     CGO_CFLAGS would call into a runtime that is not there in the child;
 *   - all signals are blocked from before the clone until jail-init has set itself up. */
#include "plan.h"
#include "sys.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/close_range.h>
#include <linux/sched.h>
#include <signal.h>
#include <sys/prctl.h>

struct child {
	struct launch *l;
	long err;
};

/* Exec drops all capabilities while the user namespace maps no id, or when the caller is not uid 0; ambient
 * ones stay (capabilities(7)). */
static void keep_capabilities(void) {
	struct __user_cap_header_struct h;
	struct __user_cap_data_struct d[2];
	h.version = _LINUX_CAPABILITY_VERSION_3;
	h.pid = 0;
	S(SYS_capget, &h, d);
	d[0].inheritable = d[0].permitted;
	d[1].inheritable = d[1].permitted;
	S(SYS_capset, &h, d);
	/* Stops at the first number that this kernel does not know. */
	for (int c = 0; S(SYS_prctl, PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, c, 0, 0) != -EINVAL; c++)
		;
}

/* Puts the payload's fds where it wants them and ours above; every other fd closes at exec, so that no launch
 * holds what another one of the same process has just opened. Copies first: a caller may have closed 0–2, and
 * then our own fds have those numbers. */
static long arrange_fds(struct launch *l) {
	int above = 0;
	for (int i = 0; i < l->npass; i++)
		if (l->dst[i] >= above)
			above = l->dst[i] + 1;
	for (int i = 0; i < l->npass; i++)
		if ((l->src[i] = S(SYS_fcntl, l->src[i], F_DUPFD_CLOEXEC, above)) < 0)
			return l->src[i];
	for (int i = 0; i < l->nkept; i++)
		if ((l->kept[i] = S(SYS_fcntl, l->kept[i], F_DUPFD_CLOEXEC, above)) < 0)
			return l->kept[i];
	long r = S(SYS_fcntl, l->image, F_DUPFD_CLOEXEC, above);
	if (r < 0)
		return r;
	l->image = r;
	if ((r = S(SYS_close_range, 0, ~0U, CLOSE_RANGE_CLOEXEC)) < 0)
		return r;
	for (int i = 0; i < l->npass; i++)
		if ((r = S(SYS_dup3, l->src[i], l->dst[i], 0)) < 0)
			return r;
	for (int i = 0; i < l->nkept; i++)
		if ((r = S(SYS_fcntl, l->kept[i], F_SETFD, 0)) < 0)
			return r;
	return 0;
}

static void run_child(void *arg) {
	struct child *c = arg;
	struct launch *l = c->l;
	if (l->ambient)
		keep_capabilities();
	l->stage = LAUNCH_FDS;
	if ((c->err = arrange_fds(l)) == 0) {
		/* jail-init has no libc to parse numbers with: eight letters an fd, A to P for 0 to 15. */
		char fds[8 * MAX_KEPT + 1], name[10], empty[1];
		char *argv[3], *envp[1];
		int n = 0;
		for (int i = 0; i < l->nkept; i++)
			for (int shift = 28; shift >= 0; shift -= 4)
				fds[n++] = 'A' + (l->kept[i] >> shift & 15);
		fds[n] = 0;
		/* No string constants: they would be references out of the section on some compilers. */
		*(volatile uint64_t *)name = 0x696e692d6c69616aUL; /* "jail-ini" */
		((volatile char *)name)[8] = 't';
		((volatile char *)name)[9] = 0;
		empty[0] = 0;
		argv[0] = name;
		argv[1] = fds;
		argv[2] = 0;
		envp[0] = 0;
		l->stage = LAUNCH_EXEC;
		c->err = S(SYS_execveat, l->image, empty, argv, envp, AT_EMPTY_PATH);
	}
	S(SYS_exit_group, 125);
	__builtin_unreachable();
}

/* Starts jail-init: 0, or -errno with l->stage saying where. On success l->pid and l->pidfd are the caller's
 * to wait for and close. When the child failed before its exec, it is reaped here. */
__attribute__((visibility("hidden"))) int jail_launch(struct launch *l) {
	enum { STACK = 16384 };
	char stack[STACK] __attribute__((aligned(16)));
	struct child c;
	uint64_t all = ~0UL, old;
	long r;
	c.l = l;
	c.err = 0;
	l->pidfd = -1;
	l->stage = LAUNCH_CLONE;
	S(SYS_rt_sigprocmask, SIG_SETMASK, &all, &old, 8);
	if (l->no_clone3) {
		/* clone(2) has no CLONE_CLEAR_SIGHAND; with all signals blocked, exec resets handlers in
		 * time. */
		r = sys_spawn(SYS_clone, l->flags | CLONE_VM | CLONE_VFORK | CLONE_PIDFD | SIGCHLD,
			      (long)(stack + STACK), (long)&l->pidfd, 0, 0, run_child, &c);
	} else {
		struct clone_args a;
		for (unsigned i = 0; i < sizeof a / 8; i++)
			((volatile uint64_t *)&a)[i] = 0;
		a.flags = l->flags | CLONE_VM | CLONE_VFORK | CLONE_PIDFD | CLONE_CLEAR_SIGHAND;
		a.pidfd = (uint64_t)&l->pidfd;
		a.exit_signal = SIGCHLD;
		a.stack = (uint64_t)stack;
		a.stack_size = STACK;
		a.cgroup = l->cgroup;
		r = sys_spawn(SYS_clone3, (long)&a, sizeof a, 0, 0, 0, run_child, &c);
	}
	S(SYS_rt_sigprocmask, SIG_SETMASK, &old, 0, 8);
	if (r < 0)
		return r;
	l->pid = r;
	if (c.err == 0)
		return 0;
	while (S(SYS_wait4, l->pid, 0, 0, 0) == -EINTR)
		;
	S(SYS_close, l->pidfd);
	return c.err;
}
