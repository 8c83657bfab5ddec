/* Loads a seccomp filter as an outer sandbox would, and executes a program in it:
 *   filter NAME=ERRNO … -- COMMAND …    the call is refused with that errno
 *   filter docker -- COMMAND …          what Docker's default profile refuses to who has no CAP_SYS_ADMIN */
#include <errno.h>
#include <linux/filter.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

static const struct {
	const char *name;
	int number, docker; /* what Docker's profile answers; 0 is that it allows the call */
} calls[] = {
    {"clone3", SYS_clone3, ENOSYS},
    {"unshare", SYS_unshare, EPERM},
    {"setns", SYS_setns, EPERM},
    {"mount", SYS_mount, EPERM},
    {"umount2", SYS_umount2, EPERM},
    {"pivot_root", SYS_pivot_root, EPERM},
    {"fsopen", SYS_fsopen, EPERM},
    {"fsconfig", SYS_fsconfig, EPERM},
    {"fsmount", SYS_fsmount, EPERM},
    {"move_mount", SYS_move_mount, EPERM},
    {"open_tree", SYS_open_tree, EPERM},
    {"mount_setattr", SYS_mount_setattr, EPERM},
    {"sethostname", SYS_sethostname, EPERM},
    {"memfd_create", SYS_memfd_create, 0},
    {"landlock_create_ruleset", SYS_landlock_create_ruleset, 0},
    {"pidfd_open", SYS_pidfd_open, 0},
    {"close_range", SYS_close_range, 0},
};
enum { NCALLS = sizeof calls / sizeof *calls };

static struct sock_filter code[2 * NCALLS + 16];
static int n;

static void add(int op, unsigned k, int jt, int jf) {
	code[n++] = (struct sock_filter){op, jt, jf, k};
}

static void refuse(int number, int error) {
	add(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 1);
	add(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | error, 0, 0);
}

static int refuse_named(const char *arg) {
	const char *equals = strchr(arg, '=');
	for (int i = 0; equals && i < NCALLS; i++)
		if (strlen(calls[i].name) == (size_t)(equals - arg) &&
		    strncmp(calls[i].name, arg, equals - arg) == 0) {
			refuse(calls[i].number, strcmp(equals + 1, "ENOSYS") == 0 ? ENOSYS : EPERM);
			return 1;
		}
	return 0;
}

int main(int argc, char **argv) {
	int i = 1;
	add(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr), 0, 0);
	for (; i < argc && strcmp(argv[i], "--") != 0; i++) {
		if (strcmp(argv[i], "docker") != 0) {
			if (refuse_named(argv[i]))
				continue;
			fprintf(stderr, "filter: what is %s?\n", argv[i]);
			return 2;
		}
		for (int c = 0; c < NCALLS; c++)
			if (calls[c].docker)
				refuse(calls[c].number, calls[c].docker);
		/* clone with a flag for a namespace; the flags are its first argument on amd64 and arm64 */
		add(BPF_JMP | BPF_JEQ | BPF_K, SYS_clone, 0, 4);
		add(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[0]), 0, 0);
		add(BPF_JMP | BPF_JSET | BPF_K,
		    CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER |
			CLONE_NEWPID | CLONE_NEWNET,
		    0, 1);
		add(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM, 0, 0);
		add(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr), 0, 0);
	}
	add(BPF_RET | BPF_K, SECCOMP_RET_ALLOW, 0, 0);
	struct sock_fprog filter = {n, code};
	if (i + 1 >= argc || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ||
	    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) < 0) {
		perror("filter");
		return 2;
	}
	execvp(argv[i + 1], argv + i + 1);
	perror(argv[i + 1]);
	return 127;
}
