/* Calls that a jail refuses: one line each with the errno's name, or "ok". Bad arguments where the kernel
 * would otherwise do what is asked. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <termios.h>
#include <unistd.h>

static void say(const char *what, long r) {
	printf("%s %s\n", what, r >= 0 ? "ok" : strerrorname_np(errno));
}

#define CALL(n, ...) say(#n, syscall(SYS_##n, ##__VA_ARGS__))

int main(int argc, char **argv) {
	const char *what = argc > 1 ? argv[1] : "";
	if (!strcmp(what, "baseline")) {
		char handle[64] = {0};
		CALL(add_key, "user", "jail-test", "x", 1, -3);
		CALL(request_key, "user", "jail-test", 0, 0);
		CALL(keyctl, 0, -3, 0);
		CALL(bpf, 0, 0, 0);
		CALL(perf_event_open, 0, 0, -1, -1, 0);
		CALL(userfaultfd, 1);
		CALL(io_uring_setup, 1, 0);
		CALL(io_uring_enter, -1, 0, 0, 0, 0, 0);
		CALL(io_uring_register, -1, 0, 0, 0);
		CALL(kexec_load, 0, 0, 0, ~0UL);
		CALL(kexec_file_load, -1, -1, 0, 0, ~0UL);
		CALL(init_module, 0, 0, "");
		CALL(finit_module, -1, "", 0);
		CALL(delete_module, "no such module", 0);
		CALL(open_by_handle_at, -1, handle, 0);
		char c = 'x';
		say("TIOCSTI", ioctl(0, TIOCSTI, &c));
		say("TIOCLINUX", ioctl(0, 0x541c, &c));
		/* the kernel looks at 32 bits of the number alone */
		say("TIOCSTI+high", syscall(SYS_ioctl, 0, 0x5412UL | 1UL << 32, &c));
		say("unknown", syscall(1000, 0));
		say("TIOCGWINSZ", ioctl(0, TIOCGWINSZ, handle));
		/* and what has to go on working */
		say("getpid", syscall(SYS_getpid));
		say("clone3", syscall(SYS_clone3, 0, 0));
		say("landlock", syscall(SYS_landlock_create_ruleset, 0, 0, 1));
	} else if (!strcmp(what, "ids")) {
		gid_t g = 0;
		say("setuid", setuid(0));
		say("setgid", setgid(0));
		say("setreuid", setreuid(0, 0));
		say("setresuid", setresuid(0, 0, 0));
		say("setresgid", setresgid(0, 0, 0));
		say("setgroups", setgroups(1, &g));
		say("setfsuid", syscall(SYS_setfsuid, 0) >= 0 && syscall(SYS_setfsuid, -1) == 0 && geteuid()
				    ? 0
				    : (errno = EPERM, -1));
		say("chroot", chroot("/"));
		say("mknod", mknod("/tmp/jail-test-node", S_IFCHR | 0666, makedev(1, 3)));
		say("sethostname", sethostname("x", 1));
	} else if (!strcmp(what, "securebits")) {
		printf("securebits %d\n", prctl(PR_GET_SECUREBITS));
		printf("dumpable %d\n", prctl(PR_GET_DUMPABLE));
	} else if (!strcmp(what, "mounts")) {
		for (int i = 2; i < argc; i++) {
			say("remount", mount(0, argv[i], 0, MS_REMOUNT | MS_BIND, 0));
			say("umount", umount2(argv[i], MNT_DETACH));
		}
	} else if (!strcmp(what, "exes")) {
		/* every exe that can be seen: can it be written? */
		for (int pid = 1; pid < 70000; pid++) {
			char path[64], target[4096];
			snprintf(path, sizeof path, "/proc/%d/exe", pid);
			ssize_t n = readlink(path, target, sizeof target - 1);
			if (n < 0)
				continue;
			target[n] = 0;
			int fd = open(path, O_WRONLY | O_TRUNC);
			printf("exe %d %s %s\n", pid, target, fd >= 0 ? "WRITABLE" : strerrorname_np(errno));
			if (fd >= 0) {
				if (write(fd, "overwritten", 11) == 11)
					printf("overwritten %s\n", target);
				close(fd);
			}
		}
	}
	return 0;
}
