/* attack MILLISECONDS [PARENT]: from its first instruction on tries to reach into PID 1 (or its parent),
 * again and again. Prints what worked, and "tried N". */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

static long now(void) {
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

int main(int argc, char **argv) {
	static const char *files[] = {"mem",	       "environ",   "exe",     "ns/mnt",
				      "root/etc",      "cwd",	    "fd/0",    "fd/1",
				      "fd/2",	       "fd/3",	    "fd/4",    "fd/5",
				      "fd/6",	       "fd/7",	    "fd/8",    "maps",
				      "auxv",	       "stack",	    "syscall", "map_files/400000-401000",
				      "oom_score_adj", "mountinfo", 0};
	long end = now() + (argc > 1 ? atol(argv[1]) : 0);
	int pid = argc > 2 ? getppid() : 1, n = 0, bad = 0;
	do {
		char path[64], buf[64];
		n++;
		if (ptrace(PTRACE_SEIZE, pid, 0, 0) == 0) {
			printf("ptrace\n");
			bad++;
			ptrace(PTRACE_DETACH, pid, 0, 0);
		}
		for (const char **f = files; *f; f++) {
			snprintf(path, sizeof path, "/proc/%d/%s", pid, *f);
			int write = !strcmp(*f, "oom_score_adj");
			int fd = open(path, (write ? O_WRONLY : O_RDONLY) |
						O_NONBLOCK); /* a pipe that is open would block */
			/* auxv and mountinfo open, and then give nothing or what is ours anyway */
			if (fd >= 0 && strcmp(*f, "mountinfo")) {
				int got = write ? 1 : read(fd, buf, sizeof buf);
				if (got > 0 || !strcmp(*f, "root/etc") || !strcmp(*f, "cwd") ||
				    !strncmp(*f, "fd/", 3) || !strncmp(*f, "ns/", 3)) {
					printf("open %s\n", *f);
					bad++;
				}
			}
			if (fd >= 0)
				close(fd);
		}
		struct iovec local = {buf, 8}, remote = {(void *)0x400000, 8};
		if (process_vm_readv(pid, &local, 1, &remote, 1, 0) >= 0) {
			printf("process_vm_readv\n");
			bad++;
		}
		int pidfd = syscall(SYS_pidfd_open, pid, 0);
		if (pidfd >= 0) {
			for (int fd = 0; fd < 12; fd++)
				if (syscall(SYS_pidfd_getfd, pidfd, fd, 0) >= 0) {
					printf("pidfd_getfd %d\n", fd);
					bad++;
				}
			close(pidfd);
		}
		if (syscall(SYS_kcmp, pid, getpid(), 0, 0, 0) >= 0) {
			printf("kcmp\n");
			bad++;
		}
	} while (bad == 0 && now() < end);
	printf("tried %d\n", n);
	return bad != 0;
}
