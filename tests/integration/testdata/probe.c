/* Asks the kernel for what a jail's filter and missing capabilities refuse: one line for each, "WHAT ANSWER",
 * where ANSWER is "ok" or an errno's name. Arguments are such that nothing is changed where a call is let
 * through. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/netlink.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/timex.h>
#include <sys/wait.h>
#include <unistd.h>

static void say(const char *what, long r) {
	printf("%s %s\n", what, r >= 0 ? "ok" : strerrorname_np(errno));
	fflush(stdout);
}

#define CALL(n, ...) say(#n, syscall(SYS_##n, ##__VA_ARGS__))

/* the whole mount family; open_tree without OPEN_TREE_CLONE asks for no capability */
static void mounts(void) {
	CALL(open_tree, AT_FDCWD, "/", 0);
	CALL(mount, "none", "/proc/self/none", "tmpfs", 0, 0);
	CALL(umount2, "/proc/self/none", 0);
	CALL(pivot_root, "/proc/self/none", "/proc/self/none");
	CALL(chroot, "/proc/self/none");
	CALL(move_mount, -1, "", -1, "", 0);
	CALL(fsopen, "none", 0);
	CALL(fsconfig, -1, 0, 0, 0, 0);
	CALL(fsmount, -1, 0, 0);
	CALL(fspick, AT_FDCWD, "/proc/self/none", 0);
	CALL(mount_setattr, AT_FDCWD, "/proc/self/none", 0, 0, 0);
	say("open_tree_attr", syscall(467, AT_FDCWD, "/proc/self/none", 0, 0, 0));
}

/* what reaches into another process */
static void others(int pid) {
	int fd = syscall(SYS_pidfd_open, pid, 0);
	unsigned long mask = 1;
	say("pidfd_open", fd);
	CALL(process_madvise, fd, 0, 0, 20 /* MADV_COLD */, 0);
	CALL(process_mrelease, fd, 0);
	CALL(migrate_pages, pid, 8, &mask, &mask);
	CALL(move_pages, pid, 0, 0, 0, 0, 0);
}

/* Every family and every type: those of which there is a socket. Without "all" a few that every kernel has:
 * to ask for others loads modules. */
static void families(int all) {
	static const int types[] = {SOCK_STREAM, SOCK_DGRAM, SOCK_RAW, SOCK_SEQPACKET}, few[] = {1, 2, 10};
	for (int i = 0; i < (all ? 61 : 3); i++) {
		int family = all ? i : few[i], got = 0, refused = 0;
		for (unsigned t = 0; t < 4; t++) {
			int fd = socket(family, types[t], 0);
			got += fd >= 0;
			refused += fd < 0 && errno == EPERM;
			close(fd);
		}
		printf("family %d %s\n", family,
		       got	      ? "ok"
		       : refused == 4 ? "EPERM"
				      : strerrorname_np(errno));
	}
	say("uevent", socket(AF_NETLINK, SOCK_RAW, NETLINK_KOBJECT_UEVENT));
	say("route", socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE));
	int pair[2];
	say("pair", socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
	say("pair-inet", socketpair(AF_INET, SOCK_STREAM, 0, pair)); /* of the kernel: EOPNOTSUPP */
	say("alg", socket(38, SOCK_SEQPACKET, 0));
}

/* A value that the kernel refuses after it has looked for CAP_SYS_TIME: EINVAL is a clock that could be set.
 */
static void clocks(void) {
	struct timex t = {.modes = ADJ_TICK, .tick = 1};
	struct timezone zone = {.tz_minuteswest = 100000};
	CALL(adjtimex, &t);
	CALL(clock_adjtime, CLOCK_REALTIME, &t);
	CALL(settimeofday, 0, &zone);
	CALL(clock_settime, CLOCK_REALTIME, 1UL); /* EFAULT before all else */
}

static void priorities(void) {
	struct sched_param p = {.sched_priority = 1};
	say("fifo", sched_setscheduler(0, SCHED_FIFO, &p));
	say("rr", sched_setscheduler(0, SCHED_RR, &p));
	say("ioprio", syscall(SYS_ioprio_set, 1, 0, 1 << 13)); /* the real-time class */
	say("nice", setpriority(PRIO_PROCESS, 0, -5));
	int fd = open("/proc/self/oom_score_adj", O_WRONLY);
	say("oom_score_adj", fd < 0 ? -1 : write(fd, "-500", 4));
}

/* Tries to get rid of what confines it. */
static void loosen(void) {
	struct sock_filter allow = {BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ALLOW};
	struct sock_fprog filter = {1, &allow};
	say("no_new_privs", prctl(PR_SET_NO_NEW_PRIVS, 0, 0, 0, 0));
	say("securebits", prctl(PR_SET_SECUREBITS, 0));
	say("ambient", prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, 10, 0, 0));
	say("disable", prctl(PR_SET_SECCOMP, 0, 0, 0, 0));
	say("filter",
	    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter, 0, 0)); /* one more, that allows all */
	say("keyctl", syscall(SYS_keyctl, 100, 0, 0, 0));		/* no such operation */
	say("personality", personality(ADDR_NO_RANDOMIZE));
	say("read-implies-exec", personality(READ_IMPLIES_EXEC));
}

/* Calls by the other ABIs of amd64. */
static void abis(void) {
#ifdef __x86_64__
	for (int x32 = 0; x32 < 2; x32++) {
		pid_t p = fork();
		int status;
		if (p == 0) {
			long r;
			if (x32)
				r = syscall(0x40000000 | SYS_getpid);
			else
				__asm__ volatile("int $0x80" : "=a"(r) : "a"(20L) : "memory"); /* getpid */
			say(x32 ? "x32" : "i386", (int)r);
			_exit(0);
		}
		if (waitpid(p, &status, 0) == p && WIFSIGNALED(status))
			printf("%s SIG%s\n", x32 ? "x32" : "i386", sigabbrev_np(WTERMSIG(status)));
	}
#endif
}

/* those that do something without arguments, too */
static int waits(int nr) {
#ifdef SYS_pause
	if (nr == SYS_pause)
		return 1;
#endif
	return nr == SYS_sync;
}

/* Every number, each in a process of its own, with arguments that no call can make use of. */
static void numbers(int most) {
	for (int nr = 0; nr <= most; nr++) {
		int status;
		pid_t p = fork();
		if (p == 0) {
			signal(SIGALRM, SIG_DFL);
			alarm(1); /* for one that waits */
			long r = waits(nr) ? 0 : syscall(nr, -1, -1, -1, -1, -1, -1);
			_exit(r >= 0 ? 0 : errno);
		}
		if (p < 0 || waitpid(p, &status, 0) != p)
			exit(1);
		int e = WIFEXITED(status) ? WEXITSTATUS(status) : 0;
		printf("%d %s\n", nr, e ? strerrorname_np(e) : "ok");
	}
}

static void *rest(void *arg) {
	pause();
	return arg;
}

/* The filters of all its threads, and of a child's. */
static void threads(void) {
	pthread_t t;
	for (int i = 0; i < 3; i++)
		if (pthread_create(&t, 0, rest, 0))
			exit(1);
	if (system("grep -h '^Seccomp' /proc/$PPID/task/*/status; grep '^Seccomp' /proc/self/status"))
		exit(1);
}

int main(int argc, char **argv) {
	const char *what = argc > 1 ? argv[1] : "";
	int n = argc > 2 ? atoi(argv[2]) : 0;
	if (!strcmp(what, "mounts"))
		mounts();
	else if (!strcmp(what, "others"))
		others(n);
	else if (!strcmp(what, "families"))
		families(n);
	else if (!strcmp(what, "clocks"))
		clocks();
	else if (!strcmp(what, "priorities"))
		priorities();
	else if (!strcmp(what, "loosen"))
		loosen();
	else if (!strcmp(what, "abis"))
		abis();
	else if (!strcmp(what, "numbers"))
		numbers(n);
	else if (!strcmp(what, "threads"))
		threads();
	else if (!strcmp(what, "namespaces")) {
		say("unshare", unshare(CLONE_NEWUSER));
		say("setns", setns(open("/proc/self/ns/user", O_RDONLY), 0));
		/* a clone that would be a process is one that waits for nothing */
		pid_t p = syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0);
		if (p == 0)
			_exit(0);
		say("clone", p);
		CALL(clone3, 0, 0);
	} else
		return 2;
	return 0;
}
