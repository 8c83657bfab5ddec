/* jail-init: the only code that runs between the launcher's clone and the payload's exec. It builds the walls
 * that the Plan lists and then stays, as PID 1 or as a sub-reaper, until the jail is empty.
 *
 * Rules of this file:
 *   - raw system calls only, no libc, no allocation, no data and no constant outside the section: the section
 * is copied into a memfd and runs there alone (string literals, switch tables and memset calls leave it);
 *   - every return value is looked at; a failed step is reported with its number and ends the jail: the
 * kernel takes the namespaces apart;
 *   - it decides nothing. What is done, in which order and with which strings, comes from the Plan. The only
 *     thing parsed is the kernel's list of our own children;
 *   - the launcher's death ends the jail, at whatever moment: its pidfd is in the loop of `stay` and in
 *     every wait before that, and looked at just before the payload's exec. Not PR_SET_PDEATHSIG, which tells
 *     of the death of the launching thread (golang/go 27505);
 *   - all signals are blocked from before our exec; the payload gets its mask just before its own;
 *   - no hostile instruction runs before PR_SET_DUMPABLE is 0 and no fd of ours can reach the payload. */
#include "plan.h"
#include "sys.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/close_range.h>
#include <linux/fs.h>
#include <linux/if.h>
#include <linux/landlock.h>
#include <linux/mount.h>
#include <linux/openat2.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <linux/securebits.h>
#include <linux/sockios.h>
#include <linux/stat.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>

/* MNT_DETACH: <sys/mount.h> and <linux/mount.h> can't be had together on Debian 12 */
enum { MOUNT_DETACH = 2 };

typedef const char *str;

/* fds that jail-init keeps; the numbers are fixed when it starts */
struct state {
	const struct plan *plan;
	int self;	       /* our pid, as the payload's side sees it */
	int control, launcher; /* socketpair and pidfd */
	int slot[MAX_SLOTS];   /* fds that steps name: --file sources, id maps, claims, mounts */
	int children;	       /* our /proc/thread-self/children, or -1 */
	int signals;	       /* signalfd of all signals */
	int ruleset;	       /* Landlock, or -1 */
	int umask;
	long err; /* of the payload's side, which shares this memory until its exec */
	volatile int at;
	int candidate;
	int64_t outside_us;
	struct aside {
		struct state *state;
		int first, n, pid;
		volatile int at;
		volatile long err;
		char stack[4096 - 64] __attribute__((aligned(16)));
	} aside[MAX_ASIDE];
};

INLINE void zero(void *p, size_t n) {
	/* volatile: gcc would make it a call of memset */
	for (volatile char *q = p; n--;)
		*q++ = 0;
}

static int64_t now_us(void) {
	struct timespec t;
	return S(SYS_clock_gettime, CLOCK_MONOTONIC, &t) < 0 ? 0 : t.tv_sec * 1000000L + t.tv_nsec / 1000;
}

static int64_t microseconds(const struct timeval *t) {
	return t->tv_sec * 1000000L + t->tv_usec;
}

static long report(struct state *s, int kind, int step, long err, int status) {
	struct record r;
	struct rusage u;
	long sent;
	zero(&r, sizeof r);
	r.kind = kind;
	r.step = step;
	r.err = err;
	r.status = status;
	r.time_us = now_us();
	if (S(SYS_getrusage, RUSAGE_CHILDREN, &u) == 0) {
		r.user_us = microseconds(&u.ru_utime);
		r.system_us = microseconds(&u.ru_stime);
		r.max_rss_kb = u.ru_maxrss;
	}
	if (S(SYS_getrusage, RUSAGE_SELF, &u) == 0) {
		r.self_user_us = microseconds(&u.ru_utime);
		r.self_system_us = microseconds(&u.ru_stime);
	}
	r.outside_us = s->outside_us;
	while ((sent = S(SYS_sendto, s->control, &r, sizeof r, MSG_NOSIGNAL, 0, 0)) == -EINTR)
		;
	return sent < 0 ? sent : 0;
}

/* ---- steps of the init side ---- */

static long write_to(int f, at text) {
	long n = 0;
	while (((str)text)[n])
		n++;
	long r = S(SYS_write, f, text, n);
	return r < 0 ? r : r == n ? 0 : -EIO;
}

static long write_file(at path, at text) {
	long f = S(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CLOEXEC);
	if (f < 0)
		return f;
	long r = write_to(f, text);
	S(SYS_close, f);
	return r;
}

static long enter(struct state *s, const struct step *o) {
	struct rusage u;
	long r = write_file(o->s1, o->s2);
	if (r < 0 || (r = S(SYS_getrusage, RUSAGE_SELF, &u)) < 0)
		return r;
	s->outside_us = microseconds(&u.ru_utime) + microseconds(&u.ru_stime);
	return 0;
}

static long lo_up(const struct step *o) {
	struct ifreq q;
	long s = S(SYS_socket, AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (s < 0)
		return s;
	zero(&q, sizeof q);
	for (int i = 0; i < IFNAMSIZ - 1 && ((str)o->s1)[i]; i++)
		((volatile char *)q.ifr_name)[i] = ((str)o->s1)[i];
	q.ifr_flags = IFF_UP;
	long r = S(SYS_ioctl, s, SIOCSIFFLAGS, &q);
	S(SYS_close, s);
	return r;
}

/* The last look before the first mount: in the launcher's own namespace, the steps that follow would pivot
 * the host. */
static long own_mounts(const struct step *o) {
	struct statx x;
	long r = S(SYS_statx, AT_FDCWD, o->s1, 0, STATX_INO, &x);
	return r < 0 ? r : x.stx_ino == o->a ? -EXDEV : 0;
}

#include "mounts.h"

/* poll(2) does not exist on arm64 */
static long wait_for(struct pollfd *f, int n, int at_once) {
	struct timespec none;
	none.tv_sec = none.tv_nsec = 0;
	return S(SYS_ppoll, f, n, at_once ? &none : 0, 0, 0);
}

/* Whoever died before the payload asked to be told of it would leave it alone in the world. */
static long supervisors_alive(struct state *s) {
	struct pollfd f;
	if (S(SYS_getppid) != s->self)
		return -ESRCH;
	f.fd = s->launcher;
	f.events = POLLIN;
	f.revents = 0;
	long r = wait_for(&f, 1, 1);
	return r < 0 ? r : f.revents ? -ESRCH : 0;
}

/* read(2) that ends when the launcher does: whoever should write may never do so. */
static long read_watching(struct state *s, int fd, char *buf, long n) {
	struct pollfd f[2];
	long r;
	zero(f, sizeof f);
	f[0].fd = fd;
	f[1].fd = s->launcher;
	f[0].events = f[1].events = POLLIN;
	while ((r = wait_for(f, 2, 0)) == -EINTR)
		;
	if (r < 0 || f[1].revents)
		return r < 0 ? r : -ESRCH;
	while ((r = S(SYS_read, fd, buf, n)) == -EINTR)
		;
	return r;
}

static long make_file(struct state *s, const struct step *o) {
	char buf[4096];
	long f = S(SYS_openat, base_of(s, o), o->s1, O_CREAT | O_EXCL | O_WRONLY | O_NOFOLLOW | O_CLOEXEC,
		   o->a),
	     r = 0;
	if (f < 0)
		return f;
	if (o->d)
		while ((r = read_watching(s, s->slot[o->d], buf, sizeof buf)) != 0) {
			if (r < 0)
				break;
			long n = r;
			for (long done = 0; done < n; done += r)
				if ((r = S(SYS_write, f, buf + done, n - done)) < 0)
					goto out;
		}
out:
	if (r >= 0 && o->b != ~0UL)
		r = S(SYS_fchown, f, o->b, o->c);
	S(SYS_close, f);
	return r;
}

static long own(struct state *s, const struct step *o, uint64_t uid, uint64_t gid) {
	return uid == ~0UL ? 0 : S(SYS_fchownat, base_of(s, o), o->s1, uid, gid, AT_SYMLINK_NOFOLLOW);
}

static long make_dir(struct state *s, const struct step *o) {
	long r = S(SYS_mkdirat, base_of(s, o), o->s1, o->a);
	return r < 0 ? r : own(s, o, o->b, o->c);
}

static long make_node(struct state *s, const struct step *o) {
	long r = S(SYS_mknodat, base_of(s, o), o->s1, o->a, o->b);
	return r < 0 ? r : own(s, o, o->c, o->d);
}

static long set_attr(struct state *s, const struct step *o) {
	struct mount_attr m;
	zero(&m, sizeof m);
	m.attr_set = o->a;
	m.propagation = o->b;
	return S(SYS_mount_setattr, base_of(s, o), o->s1, o->flags & STEP_RECURSIVE ? AT_RECURSIVE : 0, &m,
		 sizeof m);
}

/* Moves an fd that outlives the payload's start above the payload's own: jail-init closes those. */
static long keep_fd(struct state *s, long fd) {
	if (fd < 0)
		return fd;
	long r = S(SYS_fcntl, fd, F_DUPFD_CLOEXEC, s->plan->npass);
	S(SYS_close, fd);
	return r;
}

static long make_ruleset(struct state *s, const struct step *o) {
	/* The size goes with the ABI: a kernel takes a longer struct only if what it does not know is zero.
	 */
	uint64_t attr[3];
	attr[0] = o->a;
	attr[1] = o->b;
	attr[2] = o->c;
	long r = S(SYS_landlock_create_ruleset, attr, o->d, 0);
	if (r >= 0)
		s->ruleset = r;
	return r;
}

static long allow_path(struct state *s, const struct step *o) {
	struct landlock_path_beneath_attr p;
	long f = S(SYS_openat, AT_FDCWD, o->s1, O_PATH | O_CLOEXEC), r;
	if (f < 0)
		return f;
	p.allowed_access = o->a;
	p.parent_fd = f;
	if ((r = same_file(f, o->b, o->c)) == 0)
		r = S(SYS_landlock_add_rule, s->ruleset, LANDLOCK_RULE_PATH_BENEATH, &p, 0);
	S(SYS_close, f);
	return r;
}

/* Waits for a word of the launcher; a launcher that is gone closes the socket. */
static long next_order(struct state *s, struct order *o, int flags) {
	long r;
	while ((r = S(SYS_recvfrom, s->control, o, sizeof *o, flags, 0, 0)) == -EINTR)
		;
	return r == sizeof *o ? 0 : r < 0 ? r : -EPIPE;
}

static long barrier(struct state *s, const struct step *o) {
	struct order go;
	long r = report(s, RECORD_BARRIER, o->index, 0, 0);
	if (r == 0) /* else both would wait for the other (ENOMEM) */
		r = next_order(s, &go, 0);
	return r < 0 ? r : go.kind == ORDER_GO ? 0 : -ECANCELED;
}

/* ---- steps of the payload's side ---- */

static long set_caps(uint64_t permitted, uint64_t inheritable) {
	struct __user_cap_header_struct h;
	struct __user_cap_data_struct d[2];
	h.version = _LINUX_CAPABILITY_VERSION_3;
	h.pid = 0;
	d[0].effective = d[0].permitted = permitted;
	d[1].effective = d[1].permitted = permitted >> 32;
	d[0].inheritable = inheritable;
	d[1].inheritable = inheritable >> 32;
	return S(SYS_capset, &h, d);
}

static long drop_bounding(uint64_t keep) {
	for (unsigned c = 0; c < 64; c++) {
		if (keep >> c & 1)
			continue;
		long r = S(SYS_prctl, PR_CAPBSET_DROP, c, 0, 0, 0);
		if (r == -EINVAL) /* the first number that this kernel does not know */
			return 0;
		if (r < 0)
			return r;
	}
	return 0;
}

static long take_caps(const struct step *o) {
	/* The last change of credentials. A change of uid set the dumpable flag of the memory, which is also
	 * jail-init's, to fs.suid_dumpable. */
	long r = S(SYS_prctl, PR_SET_DUMPABLE, 0, 0, 0, 0);
	if (r < 0 || (r = S(SYS_prctl, PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)) < 0 ||
	    (r = set_caps(o->a, o->b)) < 0)
		return r;
	for (unsigned c = 0; c < 64; c++)
		if (o->b >> c & 1)
			if ((r = S(SYS_prctl, PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, c, 0, 0)) < 0)
				return r;
	return 0;
}

static long take_uid(const struct step *o) {
	long r = S(SYS_prctl, PR_SET_KEEPCAPS, 1, 0, 0, 0);
	return r < 0 ? r : S(SYS_setresuid, o->a, o->a, o->a);
}

static long set_signals(uint64_t ignored) {
	struct {
		uint64_t handler, flags, restorer, mask;
	} act;
	zero(&act, sizeof act);
	for (int sig = 1; sig <= 64; sig++) {
		if (sig == SIGKILL || sig == SIGSTOP)
			continue;
		act.handler = ignored >> (sig - 1) & 1; /* SIG_IGN is 1, SIG_DFL 0 */
		long r = S(SYS_rt_sigaction, sig, &act, 0, 8);
		if (r < 0)
			return r;
	}
	return 0;
}

static long load_filter(const struct step *o) {
	struct {
		unsigned short n;
		at insns;
	} f;
	f.n = o->a;
	f.insns = o->s1;
	return S(SYS_seccomp, SECCOMP_SET_MODE_FILTER, o->b, &f);
}

/* Our own copies of what is sent close at the exec, which waits for the launcher's word already. */
static long load_monitor(struct state *s, const struct step *o) {
	enum { MOST = 2 };
	struct record r;
	struct iovec v;
	struct msghdr m;
	union {
		struct cmsghdr head;
		char room[CMSG_SPACE(MOST * sizeof(int))];
	} c;
	volatile int *fds = (volatile int *)CMSG_DATA(&c.head);
	long err, n = 1;
	zero(&c, sizeof c);
	if (o->c) { /* on a port that the kernel chooses */
		if ((err = S(SYS_socket, AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) < 0)
			return err;
		fds[n++] = err;
		if ((err = S(SYS_listen, err, SOMAXCONN)) < 0)
			return err;
	}
	if ((err = load_filter(o)) < 0)
		return err;
	fds[0] = err;
	zero(&r, sizeof r);
	r.kind = RECORD_LISTENER;
	r.step = o->index;
	v.iov_base = &r;
	v.iov_len = sizeof r;
	c.head.cmsg_level = SOL_SOCKET;
	c.head.cmsg_type = SCM_RIGHTS;
	c.head.cmsg_len = CMSG_LEN(n * sizeof(int));
	zero(&m, sizeof m);
	m.msg_iov = &v;
	m.msg_iovlen = 1;
	m.msg_control = &c;
	m.msg_controllen = CMSG_SPACE(n * sizeof(int));
	while ((err = S(SYS_sendmsg, s->control, &m, MSG_NOSIGNAL)) == -EINTR)
		;
	return err < 0 ? err : 0;
}

/* As execvp(3): a name that is not there, or may not be run, makes way for the next; EACCES is told if no
 * other was better. */
static long exec(struct state *s, const struct step *o) {
	long r = -ENOENT;
	uint64_t mask = o->a;
	int n = 0;
	S(SYS_rt_sigprocmask, SIG_SETMASK, &mask, 0, 8);
	for (const at *p = (const at *)o->s1; *p; p++, n++) {
		long e = S(SYS_execve, *p, o->s2, o->s3);
		struct statx x;
		/* A folder of PATH that the payload can't enter has no such command, as for a shell. */
		if (e == -EACCES && S(SYS_statx, AT_FDCWD, *p, 0, STATX_MODE, &x) < 0)
			e = -ENOENT;
		if (r == -ENOENT || e != -ENOENT) {
			r = e;
			s->candidate = n;
		}
		if (e != -ENOENT && e != -ENOTDIR && e != -EACCES)
			break;
	}
	return r;
}

static long start_aside(struct state *s, const struct step *o);
static long join_aside(struct state *s, const struct step *o);

static long run_step(struct state *s, const struct step *o) {
	/* at a barrier it is the launcher that fails */
	if (s->plan->fail_step && o->index + 1 == s->plan->fail_step && o->op != OP_BARRIER)
		return -(long)s->plan->fail_errno;
	switch (o->op) {
	case OP_WRITE:
		return write_file(o->s1, o->s2);
	case OP_OWN_MOUNTS:
		return own_mounts(o);
	case OP_SUBREAPER:
		return S(SYS_prctl, PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
	case OP_CHILDREN:
		return s->children = keep_fd(s, S(SYS_openat, AT_FDCWD, o->s1, O_RDONLY | O_CLOEXEC));
	case OP_ASIDE:
		return start_aside(s, o);
	case OP_JOIN:
		return join_aside(s, o);
	case OP_UNSHARE:
		return S(SYS_unshare, o->a);
	case OP_SETNS:
		return S(SYS_setns, s->slot[o->a], 0);
	case OP_OPEN:
		return s->slot[o->a] = S(SYS_openat, AT_FDCWD, o->s1, O_RDONLY | O_CLOEXEC);
	case OP_WRITE_SLOT:
		return write_to(s->slot[o->a], o->s2);
	case OP_ENTER:
		return enter(s, o);
	case OP_DUMPABLE:
		return S(SYS_prctl, PR_SET_DUMPABLE, 1, 0, 0, 0);
	case OP_LO_UP:
		return lo_up(o);
	case OP_HOSTNAME:
		return S(SYS_sethostname, o->s1, o->a);
	case OP_ROOT:
	case OP_FS:
		return make_fs(s, o);
	case OP_ATTACH:
		return attach(s, o, s->slot[o->a]);
	case OP_MASK:
		return mask(s, o);
	case OP_CHECK:
		return check_mount(s, o);
	case OP_PIVOT:
		return pivot(o);
	case OP_MOUNT:
		return mount_fs(o);
	case OP_SETATTR:
		return set_attr(s, o);
	case OP_BIND:
		return bind_path(s, o);
	case OP_MKDIR:
		return make_dir(s, o);
	case OP_SYMLINK:
		return S(SYS_symlinkat, o->s2, base_of(s, o), o->s1);
	case OP_MKNOD:
		return make_node(s, o);
	case OP_FILE:
		return make_file(s, o);
	case OP_UNLINK:
		return S(SYS_unlinkat, AT_FDCWD, o->s1, o->a);
	case OP_CHDIR:
		return change_dir(o);
	case OP_RULESET:
		return make_ruleset(s, o);
	case OP_ALLOW:
		return allow_path(s, o);
	case OP_BARRIER:
		return barrier(s, o);
	case OP_SETSID:
		return S(SYS_setsid);
	case OP_RLIMIT: {
		uint64_t limit[2];
		limit[0] = o->b;
		limit[1] = o->c;
		return S(SYS_prlimit64, 0, o->a, limit, 0);
	}
	case OP_BOUNDING:
		return drop_bounding(o->a);
	case OP_GROUPS:
		return S(SYS_setgroups, o->a, o->s1);
	case OP_GID:
		return S(SYS_setresgid, o->a, o->a, o->a);
	case OP_UID:
		return take_uid(o);
	case OP_CAPS:
		return take_caps(o);
	case OP_NNP:
		return S(SYS_prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	case OP_RESTRICT:
		return S(SYS_landlock_restrict_self, s->ruleset, 0);
	case OP_PDEATHSIG:
		return S(SYS_prctl, PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
	case OP_ALIVE:
		return supervisors_alive(s);
	case OP_SIGNALS:
		return set_signals(o->a);
	case OP_FILTER:
		return load_filter(o);
	case OP_MONITOR:
		return load_monitor(s, o);
	case OP_TRY:
		return 0;
	case OP_EXEC:
		return exec(s, o);
	default:
		return -ENOSYS;
	}
}

/* Does n steps; *at is the one under way. */
static long run_steps(struct state *s, const struct step *o, int n, volatile int *at) {
	for (int i = 0; i < n; i++) {
		*at = o[i].index;
		long r = run_step(s, o + i);
		if (r < 0)
			return r;
	}
	return 0;
}

/* ---- steps aside: a network namespace or an id map takes as long as all mounts, and needs none of them ----
 */

static void run_aside(void *arg) {
	struct aside *a = arg;
	a->err = run_steps(a->state, (const struct step *)a->state->plan->aside + a->first, a->n, &a->at);
	S(SYS_exit, 0);
	__builtin_unreachable();
}

/* The child shares our memory and fd table, so that what it opens is ours, but neither our credentials nor
 * our namespaces. */
static long start_aside(struct state *s, const struct step *o) {
	struct aside *a = s->aside + o->a;
	a->state = s;
	a->first = o->b;
	a->n = o->c;
	a->err = -ECANCELED; /* until it has come to its end */
	a->at = o->index;
	a->pid = sys_spawn(SYS_clone, CLONE_VM | CLONE_FILES | SIGCHLD, (long)(a->stack + sizeof a->stack), 0,
			   0, 0, run_aside, a);
	return a->pid;
}

static long join_aside(struct state *s, const struct step *o) {
	struct aside *a = s->aside + o->a;
	long r;
	while ((r = S(SYS_wait4, a->pid, 0, 0, 0)) == -EINTR)
		;
	if (r < 0)
		return r;
	if (a->err < 0)
		s->at = a->at;
	return a->err;
}

/* Runs in jail-init's memory until its exec, on a stack and an fd table of its own. */
static void run_payload(void *arg) {
	struct state *s = arg;
	/* The umask is the caller's; jail-init's own is 0. */
	S(SYS_umask, s->umask);
	s->at = NO_STEP;
	/* Ours are all above the payload's: none survives its exec. */
	s->err = S(SYS_close_range, s->plan->npass, ~0U, CLOSE_RANGE_CLOEXEC);
	if (s->err == 0)
		s->err = run_steps(s, (const struct step *)s->plan->payload, s->plan->npayload, &s->at);
	S(SYS_exit_group, 125);
	__builtin_trap(); /* an allow-list of the user's refuses even that */
}

/* ---- what jail-init does while the payload runs ---- */

static void send_signal(int pid, const struct order *o) {
	if (o->queued) {
		struct {
			int32_t signo, err, code, pad, pid, uid;
			int64_t value;
			char rest[128 - 32];
		} info;
		zero(&info, sizeof info);
		info.signo = o->signo;
		info.code = -1; /* SI_QUEUE */
		info.value = o->value;
		S(SYS_rt_sigqueueinfo, pid, o->signo, &info);
	} else {
		S(SYS_kill, o->group ? -pid : pid, o->signo);
	}
}

/* Kills and reaps until nobody is left. As a sub-reaper we inherit every orphan, so what the payload left
 * behind is our child or becomes it when its parent dies. Without the list (no CONFIG_PROC_CHILDREN) only the
 * payload's session can be named. The status of `payload` is kept if it has not been reaped yet. */
static void kill_tree(struct state *s, int payload, int *status) {
	char list[4096];
	for (;;) {
		long n = s->children < 0 ? 0 : S(SYS_pread64, s->children, list, sizeof list, 0);
		if (s->children < 0)
			S(SYS_kill, -payload, SIGKILL);
		int pid = 0;
		for (long i = 0; i < n; i++)
			if (list[i] == ' ') { /* a number that the buffer cut off waits for the next round */
				S(SYS_kill, pid, SIGKILL);
				pid = 0;
			} else {
				pid = pid * 10 + list[i] - '0';
			}
		int st;
		long p = S(SYS_wait4, -1, &st, s->children < 0 ? WNOHANG : 0, 0);
		for (; p > 0; p = S(SYS_wait4, -1, &st, WNOHANG, 0))
			if (p == payload && status)
				*status = st;
		if (p == -ECHILD || (p == 0 && s->children < 0))
			return;
	}
}

/* The launcher is gone, and so is the jail: nobody is there to be told. */
static void end_unheard(struct state *s, int payload, uint32_t flags) {
	if (!(flags & PLAN_PIDNS)) {
		S(SYS_kill, payload, SIGKILL); /* it may not have a session yet */
		kill_tree(s, payload, 0);
	}
	S(SYS_exit_group, 0);
}

/* Returns when the payload's side, which runs in our memory, has executed its program or has ended. Not
 * CLONE_VFORK, which waits for nothing else: a file system that does not answer may hold an exec for ever. So
 * the child alone holds the write end of a pipe, which closes after it has let go of our memory. */
static long start_payload(struct state *s, char *stack, uint32_t flags) {
	int ends[2];
	struct pollfd f[2];
	long pid, r = S(SYS_pipe2, ends, O_CLOEXEC);
	if (r < 0)
		return r;
	pid = sys_spawn(SYS_clone, CLONE_VM | SIGCHLD, (long)stack, 0, 0, 0, run_payload, s);
	S(SYS_close, ends[1]);
	if (pid < 0)
		return pid;
	zero(f, sizeof f);
	f[0].fd = ends[0];
	f[1].fd = s->launcher;
	f[1].events = POLLIN;
	while ((r = wait_for(f, 2, 0)) == -EINTR)
		;
	if (r < 0)
		S(SYS_kill, pid, SIGKILL);
	else if (f[1].revents)
		end_unheard(s, pid, flags);
	S(SYS_close, ends[0]);
	return r < 0 ? r : pid;
}

static void stay(struct state *s, int payload, uint32_t flags) {
	struct pollfd f[3];
	struct signalfd_siginfo g;
	struct order o;
	int st, status = 0, ended = 0;
	long r;
	zero(f, sizeof f);
	f[0].fd = s->signals;
	f[1].fd = s->launcher;
	f[2].fd = s->control;
	f[0].events = f[1].events = f[2].events = POLLIN;
	while (!ended) {
		while ((r = S(SYS_wait4, -1, &st, WNOHANG, 0)) > 0)
			if (r == payload) {
				status = st;
				ended = 1;
			}
		if (ended)
			break;
		if (r == 0)
			r = wait_for(f, 3, 0);
		if (r == -EINTR)
			continue;
		if (r < 0) {
			/* A payload of our uid took our fds away (prlimit(2), RLIMIT_NOFILE): deaf, so end
			 * all, without a word: how the payload ends then is our doing. */
			if (!(flags & PLAN_PIDNS))
				kill_tree(s, payload, 0);
			S(SYS_exit_group, 125);
		}
		if (f[1].revents)
			end_unheard(s, payload, flags);
		/* Some, then a look at the launcher: a flood must not hide its death. */
		for (int n = 0; n < 64 && f[0].revents && S(SYS_read, s->signals, &g, sizeof g) == sizeof g;
		     n++) {
			if (g.ssi_signo == SIGCHLD)
				continue;
			o.kind = ORDER_SIGNAL;
			o.signo = g.ssi_signo;
			o.group = 0;
			o.queued = g.ssi_code == -1;
			o.value = g.ssi_ptr;
			send_signal(payload, &o);
		}
		if (f[2].revents) {
			r = next_order(s, &o, MSG_DONTWAIT);
			if (r == -EPIPE || r == -ECONNRESET)
				f[2].fd = -1; /* let go of, but alive: see f[1] */
			else if (r == 0 && o.kind == ORDER_SIGNAL)
				send_signal(payload, &o);
			else if (r == 0 && o.kind == ORDER_KILL) {
				if (flags & PLAN_PIDNS)
					S(SYS_kill, -1, SIGKILL);
				else
					kill_tree(s, payload, &status), ended = 1;
			}
		}
	}
	if (!(flags & PLAN_PIDNS))
		kill_tree(s, payload, 0);
	report(s, RECORD_ENDED, 0, 0, status);
	S(SYS_exit_group, 0);
}

/* ---- start ---- */

static void fail(struct state *s, int step, long err) {
	report(s, RECORD_FAILED, step, -err, s->candidate);
	/* Below a pid namespace nothing of ours is left: the payload's side has ended with its failure. */
	S(SYS_exit_group, 125);
}

__attribute__((used)) static void jail_main(const str *stack) {
	struct state s;
	str arg = (str)stack[2]; /* argc, argv[0], argv[1] */
	char payload_stack[8192] __attribute__((aligned(16)));
	struct stat_size {
		uint64_t words[32];
	} st;
	uint64_t all = ~0UL;
	uint32_t flags, npass;
	int n = 0;
	long r;
	/* [0] the Plan, [1] the socket, [2] the launcher; the rest are slots that steps name */
	for (; n < MAX_SLOTS; n++)
		s.slot[n] = -1;
	for (n = 0; n < MAX_KEPT && arg[0]; n++) {
		int fd = 0;
		for (int i = 0; i < 8; i++)
			fd = fd << 4 | (*arg++ - 'A');
		s.slot[n] = fd;
		S(SYS_fcntl, fd, F_SETFD, FD_CLOEXEC);
	}
	s.self = S(SYS_getpid);
	s.control = s.slot[1];
	s.launcher = s.slot[2];
	s.children = s.ruleset = -1;
	s.err = s.at = s.candidate = s.outside_us = 0;
	s.umask = S(SYS_umask, 0);
	r = set_signals(0); /* an ignored SIGCHLD would reap the payload behind our back */
	if (r < 0)
		fail(&s, NO_STEP, r);
	if ((r = S(SYS_fstat, s.slot[0], &st)) < 0)
		fail(&s, NO_STEP, r);
	r = S(SYS_mmap, PLAN_AT, st.words[6], PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED_NOREPLACE,
	      s.slot[0], 0);
	if (r < 0)
		fail(&s, NO_STEP, r);
	S(SYS_close, s.slot[0]);
	s.plan = (const struct plan *)PLAN_AT;
	flags = s.plan->flags;
	npass = s.plan->npass;

	/* Outside the namespaces that the Plan is made for, its mounts and the kill(-1) of the end would be
	 * the host's. */
	if (flags & PLAN_PIDNS && s.self != 1)
		fail(&s, NO_STEP, -EXDEV);
	/* all signals have been blocked since before the clone */
	if ((r = s.signals = keep_fd(&s, S(SYS_signalfd4, -1, &all, 8, SFD_CLOEXEC | SFD_NONBLOCK))) < 0)
		fail(&s, NO_STEP, r);
	if ((r = run_steps(&s, (const struct step *)s.plan->init, s.plan->ninit, &s.at)) < 0)
		fail(&s, s.at, r);
	/* Before anything hostile exists; not earlier: /proc/self would be root's and an ordinary user could
	 * not write its id maps. */
	if ((r = S(SYS_prctl, PR_SET_DUMPABLE, 0, 0, 0, 0)) < 0)
		fail(&s, s.at, r);
	long pid = start_payload(&s, payload_stack + sizeof payload_stack, flags);
	if (pid < 0)
		fail(&s, s.at, pid);
	if (s.err < 0)
		fail(&s, s.at, s.err);
	const struct step *last = (const struct step *)s.plan->payload + s.plan->npayload - 1;
	if (s.at != (int)last->index) /* killed on the way, by whoever could */
		fail(&s, s.at, -ECANCELED);
	if (last->op == OP_TRY) {
		report(&s, RECORD_TRIED, s.at, 0, 0);
		S(SYS_exit_group, 0);
	}
	S(SYS_munmap, PLAN_AT, st.words[6]);
	/* What only the set-up needed; the socket, the launcher and the claims stay. */
	for (n = FIRST_FREE_SLOT; n < MAX_SLOTS; n++)
		if (s.slot[n] >= 0)
			S(SYS_close, s.slot[n]);
	if (s.ruleset >= 0)
		S(SYS_close, s.ruleset);
	if ((r = set_caps(flags & PLAN_KEEP_KILL ? 1UL << CAP_KILL : 0, 0)) < 0 ||
	    (npass && (r = S(SYS_close_range, 0, npass - 1, 0)) < 0)) {
		S(SYS_kill, pid, SIGKILL);
		fail(&s, s.at, r);
	}
	if (report(&s, RECORD_STARTED, 0, 0, pid) < 0) { /* the launcher would wait for it */
		if (!(flags & PLAN_PIDNS))
			kill_tree(&s, pid, 0);
		S(SYS_exit_group, 125);
	}
	stay(&s, pid, flags);
}

#if defined(__x86_64__)
__asm__(".globl jail_init_entry\n.hidden jail_init_entry\n"
	"jail_init_entry:\n\t"
	"xor %ebp, %ebp\n\t"
	"mov %rsp, %rdi\n\t"
	"and $-16, %rsp\n\t"
	"call jail_main\n\t"
	"hlt\n");
#else
__asm__(".globl jail_init_entry\n.hidden jail_init_entry\n"
	"jail_init_entry:\n\t"
	"mov x29, xzr\n\t"
	"mov x30, xzr\n\t"
	"mov x0, sp\n\t"
	"bl jail_main\n\t"
	"brk 1\n");
#endif
