// floor WORKDIR HOME CMD ARGS…: the isolation of `jail run --level=namespaced` in the plainest C, as the
// floor that a launcher written with care could reach: the same namespaces, mounts, PID 1, capabilities and
// identity. It leaves out the filter, id-mapped mounts, everything that handles an error, and everything that
// needs to be known only at run time. For comparison only: it is not safe.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/mount.h>
#include <linux/sched.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

// Declared here because sys/mount.h and linux/mount.h do not go together.
int mount(const char *source, const char *target, const char *type, unsigned long flags, const void *data);
int umount2(const char *target, int flags);

static const unsigned long ms_nosuid = 2, ms_nodev = 4, ms_noexec = 8, ms_rdonly = 1, ms_remount = 32,
			   ms_bind = 4096, ms_rec = 16384, ms_slave = 1 << 19;
enum { mnt_detach = 2 };

static void check(long result, const char *what) {
	if (result < 0) {
		fprintf(stderr, "floor: %s: %s\n", what, strerror(errno));
		_exit(125);
	}
}

static void write_file(const char *path, const char *text) {
	int fd = open(path, O_WRONLY | O_CLOEXEC);

	check(fd, path);
	check(write(fd, text, strlen(text)), path);
	close(fd);
}

static void map_ids(uid_t uid, gid_t gid) {
	char map[64];

	write_file("/proc/self/setgroups", "deny");
	snprintf(map, sizeof map, "%u %u 1\n", uid, uid);
	write_file("/proc/self/uid_map", map);
	snprintf(map, sizeof map, "%u %u 1\n", gid, gid);
	write_file("/proc/self/gid_map", map);
}

static void loopback_up(void) {
	struct ifreq request = {.ifr_name = "lo", .ifr_flags = IFF_UP};
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	check(fd, "socket");
	check(ioctl(fd, SIOCSIFFLAGS, &request), "lo");
	close(fd);
}

// make_dirs makes the folder path, relative to the new root, and its parents.
static void make_dirs(const char *path) {
	char part[4096];

	for (const char *end = path; *end;) {
		end = strchrnul(end + 1, '/');
		snprintf(part, sizeof part, "%.*s", (int)(end - path), path);
		if (mkdir(part, 0755) != 0 && errno != EEXIST)
			check(-1, part);
	}
}

static void show(const char *path) {
	struct mount_attr attr = {.attr_set = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV};
	struct stat st;

	if (lstat(path, &st) != 0)
		return;
	if (S_ISLNK(st.st_mode)) {
		char target[4096];
		ssize_t n = readlink(path, target, sizeof target - 1);

		check(n, path);
		target[n] = 0;
		check(symlink(target, path + 1), path);
		return;
	}
	int fd = syscall(SYS_open_tree, AT_FDCWD, path, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE);

	check(fd, path);
	check(syscall(SYS_mount_setattr, fd, "", AT_EMPTY_PATH | AT_RECURSIVE, &attr, sizeof attr), path);
	make_dirs(path + 1);
	check(syscall(SYS_move_mount, fd, "", AT_FDCWD, path + 1, MOVE_MOUNT_F_EMPTY_PATH), path);
	close(fd);
}

static void tmpfs(const char *path) {
	make_dirs(path);
	check(mount("tmpfs", path, "tmpfs", ms_nosuid | ms_nodev, "mode=1777"), path);
}

static void devices(void) {
	static const char *const names[] = {"null", "zero", "full", "random", "urandom", "tty"};
	char path[32];

	make_dirs("dev");
	check(mount("tmpfs", "dev", "tmpfs", ms_nosuid | ms_noexec, "mode=755"), "dev");
	for (unsigned i = 0; i < sizeof names / sizeof *names; i++) {
		snprintf(path, sizeof path, "/dev/%s", names[i]);
		int file = open(path + 1, O_CREAT | O_WRONLY | O_CLOEXEC, 0666);

		check(file, path);
		close(file);
		check(mount(path, path + 1, NULL, ms_bind, NULL), path);
	}
	make_dirs("dev/pts");
	check(
	    mount("devpts", "dev/pts", "devpts", ms_nosuid | ms_noexec, "newinstance,ptmxmode=0666,mode=620"),
	    "devpts");
	tmpfs("dev/shm");
	check(symlink("pts/ptmx", "dev/ptmx"), "ptmx");
	check(symlink("/proc/self/fd", "dev/fd"), "fd");
	check(symlink("/proc/self/fd/0", "dev/stdin"), "stdin");
	check(symlink("/proc/self/fd/1", "dev/stdout"), "stdout");
	check(symlink("/proc/self/fd/2", "dev/stderr"), "stderr");
}

static void build_root(const char *workdir, const char *home) {
	static const char *const shown[] = {"/usr",   "/bin",	 "/sbin", "/lib", "/lib32",
					    "/lib64", "/libx32", "/etc",  "/opt"};

	check(mount(NULL, "/", NULL, ms_rec | ms_slave, NULL), "propagation");
	check(mount("tmpfs", "/tmp", "tmpfs", ms_nosuid | ms_nodev, "mode=755"), "root");
	// The old / of this process stays reachable by absolute paths until the pivot.
	int work = syscall(SYS_open_tree, AT_FDCWD, ".", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE);
	struct mount_attr attr = {.attr_set = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV};

	check(work, workdir);
	check(syscall(SYS_mount_setattr, work, "", AT_EMPTY_PATH | AT_RECURSIVE, &attr, sizeof attr),
	      workdir);
	check(chdir("/tmp"), "/tmp");
	for (unsigned i = 0; i < sizeof shown / sizeof *shown; i++)
		show(shown[i]);
	make_dirs("proc");
	check(mount("proc", "proc", "proc", ms_nosuid | ms_nodev | ms_noexec, NULL), "proc");
	make_dirs("sys");
	check(mount("sysfs", "sys", "sysfs", ms_nosuid | ms_nodev | ms_noexec | ms_rdonly, NULL), "sys");
	devices();
	tmpfs("tmp");
	tmpfs("var/tmp");
	tmpfs("run");
	tmpfs(home + 1);
	make_dirs(workdir + 1);
	check(syscall(SYS_move_mount, work, "", AT_FDCWD, workdir + 1, MOVE_MOUNT_F_EMPTY_PATH), workdir);
	close(work);
	check(mount(NULL, ".", NULL, ms_remount | ms_bind | ms_rdonly | ms_nosuid | ms_nodev, NULL),
	      "read-only root");
	check(syscall(SYS_pivot_root, ".", "."), "pivot_root");
	check(umount2(".", mnt_detach), "umount");
	check(chdir(workdir), workdir);
}

static void drop_privileges(int was_root) {
	struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
	struct __user_cap_data_struct none[2] = {{0}};

	for (int cap = 0; prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) == 0; cap++)
		;
	if (was_root) {
		check(setgroups(0, NULL), "setgroups");
		check(setresgid(65532, 65532, 65532), "setresgid");
		check(setresuid(65532, 65532, 65532), "setresuid");
	}
	check(syscall(SYS_capset, &header, none), "capset");
	check(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs");
}

int main(int argc, char **argv) {
	static char *const env[] = {"PATH=/usr/bin:/bin", "LANG=C.UTF-8", NULL};
	uid_t uid = getuid();
	gid_t gid = getgid();
	struct clone_args args = {
	    .flags = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWNET |
		     CLONE_NEWCGROUP | (uid == 0 ? 0 : CLONE_NEWUSER),
	    .exit_signal = SIGCHLD,
	};

	if (argc < 4)
		return 2;
	check(chdir(argv[1]), argv[1]);
	pid_t first = syscall(SYS_clone3, &args, sizeof args);

	check(first, "clone3");
	if (first == 0) {
		if (uid != 0)
			map_ids(uid, gid);
		check(prctl(PR_SET_PDEATHSIG, SIGKILL), "death signal");
		check(setsid(), "setsid");
		loopback_up();
		check(sethostname("jail", 4), "sethostname");
		build_root(argv[1], argv[2]);
		pid_t payload = vfork();

		if (payload == 0) {
			drop_privileges(uid == 0);
			execve(argv[3], argv + 3, env);
			_exit(127);
		}
		check(payload, "vfork");
		int status;

		while (waitpid(-1, &status, 0) != payload)
			;
		_exit(WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
	}
	int status;

	check(waitpid(first, &status, 0), "waitpid");
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
