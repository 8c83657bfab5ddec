// fault WHO N ERRNO COMMAND…: runs a launcher and lets its Nth system call fail with ERRNO, or, where that is
// 0, kills the process that makes it. WHO is launcher, or init for whatever the launcher makes up to the
// payload's exec, or any for both. Then it waits until nothing is left, or SIGTERM comes, and tells fd 3: the
// launcher's wait status, or -1 if it lives; the calls that were counted; and the number of the call that was
// hit, or -1.
//
// strace --inject counts the calls of each task by itself, so one fault would be as many as there are tasks,
// and one in jail-init would hit the launcher first.
#define _GNU_SOURCE
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MAX_TASKS = 256 };

static struct task {
	pid_t tid;
	int launcher; // 0 is jail-init's side
	int failing;  // in the call that is to fail
} tasks[MAX_TASKS];

static pid_t launcher;
static char program[256];
static volatile sig_atomic_t over;

static void stop(int sig) {
	over = sig;
}

static void fail(const char *what) {
	perror(what);
	exit(99);
}

static pid_t group_of(pid_t tid) {
	char path[64], line[128];
	int group = tid;
	snprintf(path, sizeof path, "/proc/%d/status", tid);
	FILE *f = fopen(path, "re");
	while (f && fgets(line, sizeof line, f))
		if (sscanf(line, "Tgid: %d", &group) == 1)
			break;
	if (f)
		fclose(f);
	return group;
}

static struct task *task_of(pid_t tid) {
	struct task *empty = NULL;
	for (int i = 0; i < MAX_TASKS; i++) {
		if (tasks[i].tid == tid)
			return &tasks[i];
		if (!tasks[i].tid && !empty)
			empty = &tasks[i];
	}
	if (!empty) {
		fprintf(stderr, "too many tasks\n");
		exit(99);
	}
	*empty = (struct task){.tid = tid, .launcher = group_of(tid) == launcher};
	return empty;
}

// is_payload says whether what a task has just executed has a name, and another than the launcher's:
// jail-init has none, runc's init is runc.
static int is_payload(pid_t tid) {
	char path[64], exe[256];
	snprintf(path, sizeof path, "/proc/%d/exe", tid);
	ssize_t n = readlink(path, exe, sizeof exe - 1);
	exe[n < 0 ? 0 : n] = 0;
	return !strstr(exe, " (deleted)") && strcmp(exe, program);
}

// cant_fail says whether a call can't, whatever the machine lacks.
static int cant_fail(long nr) {
	switch (nr) {
	case SYS_getpid:
	case SYS_gettid:
	case SYS_getppid:
	case SYS_getuid:
	case SYS_geteuid:
	case SYS_getgid:
	case SYS_getegid:
	case SYS_umask:
	case SYS_prlimit64:
	case SYS_exit:
	case SYS_exit_group:
		return 1;
	}
	return 0;
}

// go_runtime says whether a call is one of the Go runtime or of libc, which no program can do without: they
// end the process if it fails.
static int go_runtime(pid_t tid, const struct __ptrace_syscall_info *info) {
	switch (info->entry.nr) {
	case SYS_mmap:
	case SYS_munmap:
	case SYS_madvise:
	case SYS_mprotect:
	case SYS_brk:
	case SYS_futex:
	case SYS_rt_sigaction:
	case SYS_rt_sigprocmask:
	case SYS_rt_sigreturn:
	case SYS_sigaltstack:
	case SYS_sched_getaffinity:
	case SYS_sched_yield:
	case SYS_nanosleep:
	case SYS_tgkill:
	case SYS_epoll_create1:
	case SYS_epoll_ctl:
	case SYS_epoll_pwait:
	case SYS_eventfd2:
	case SYS_set_tid_address:
	case SYS_set_robust_list:
	case SYS_rseq:
#ifdef SYS_arch_prctl
	case SYS_arch_prctl:
#endif
		return 1;
	case SYS_clone:
		return (info->entry.args[0] & CLONE_THREAD) != 0;
	case SYS_clone3: // its flags come first
		return (ptrace(PTRACE_PEEKDATA, tid, info->entry.args[0], 0) & CLONE_THREAD) != 0;
	case SYS_write: // to the poller's eventfd
		return info->entry.args[2] == 8;
	case SYS_fcntl:
		return info->entry.args[1] == F_GETFD; // looks whether the standard fds are open
	}
	return 0;
}

static void set_result(pid_t tid, long result) {
	struct user_regs_struct regs;
	struct iovec v = {&regs, sizeof regs};
	if (ptrace(PTRACE_GETREGSET, tid, NT_PRSTATUS, &v))
		return; // it is gone
#ifdef __x86_64__
	regs.rax = result;
#else
	regs.regs[0] = result;
#endif
	ptrace(PTRACE_SETREGSET, tid, NT_PRSTATUS, &v);
}

static void set_number(pid_t tid, int nr) {
#ifdef __x86_64__
	struct user_regs_struct regs;
	struct iovec v = {&regs, sizeof regs};
	if (ptrace(PTRACE_GETREGSET, tid, NT_PRSTATUS, &v))
		return;
	regs.orig_rax = nr;
	ptrace(PTRACE_SETREGSET, tid, NT_PRSTATUS, &v);
#else
	struct iovec v = {&nr, sizeof nr};
	ptrace(PTRACE_SETREGSET, tid, NT_ARM_SYSTEM_CALL, &v);
#endif
}

int main(int argc, char **argv) {
	if (argc < 5)
		return 99;
	int on_launcher = !strcmp(argv[1], "launcher"), any = !strcmp(argv[1], "any"), error = atoi(argv[3]),
	    status = -1;
	long n = atol(argv[2]), count = 0, hit = -1;

	fcntl(3, F_SETFD, FD_CLOEXEC);
	snprintf(program, sizeof program, "%s", argv[4]);
	struct sigaction act = {.sa_handler = stop}; // without SA_RESTART
	sigaction(SIGTERM, &act, NULL);
	prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); // orphans of the launcher are waited for as well
	launcher = fork();
	if (launcher < 0)
		fail("fork");
	if (!launcher) {
		raise(SIGSTOP);
		execv(argv[4], argv + 4);
		fail(argv[4]);
	}
	if (waitpid(launcher, NULL, WUNTRACED) < 0)
		fail("waitpid");
	long options = PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK |
		       PTRACE_O_TRACECLONE | PTRACE_O_TRACEEXEC | PTRACE_O_EXITKILL;
	if (ptrace(PTRACE_SEIZE, launcher, 0, options))
		fail("ptrace");
	kill(launcher, SIGCONT);
	int begun = 0; // with the launcher's exec

	while (!over) {
		int s;
		pid_t tid = waitpid(-1, &s, __WALL);
		if (tid < 0 && errno == EINTR)
			continue;
		if (tid < 0)
			break;
		struct task *t = task_of(tid);
		if (WIFEXITED(s) || WIFSIGNALED(s)) {
			if (tid == launcher)
				status = s;
			t->tid = 0;
			continue;
		}
		int sig = WSTOPSIG(s), event = s >> 16;
		if (event == PTRACE_EVENT_EXEC) {
			begun = 1;
			if (!t->launcher && is_payload(tid)) {
				ptrace(PTRACE_DETACH, tid, 0, 0);
				t->tid = 0;
				continue;
			}
			sig = 0;
		} else if (event == PTRACE_EVENT_STOP && sig != SIGTRAP && sig != SIGCONT) {
			ptrace(begun ? PTRACE_LISTEN : PTRACE_SYSCALL, tid, 0, 0);
			continue;
		} else if (event) {
			sig = 0;
		} else if (sig == (SIGTRAP | 0x80)) {
			struct __ptrace_syscall_info info;
			sig = 0;
			if (ptrace(PTRACE_GET_SYSCALL_INFO, tid, sizeof info, &info) > 0) {
				if (info.op == PTRACE_SYSCALL_INFO_ENTRY && begun &&
				    (any || t->launcher == on_launcher) &&
				    !(error && (cant_fail(info.entry.nr) ||
						((any || on_launcher) && go_runtime(tid, &info)))) &&
				    ++count == n) {
					hit = info.entry.nr;
					if (!error)
						kill(tid, SIGKILL);
					else if (hit != SYS_close) // which closes even when it fails
						set_number(tid, -1);
					t->failing = error;
				} else if (info.op == PTRACE_SYSCALL_INFO_EXIT && t->failing) {
					set_result(tid, -t->failing);
					t->failing = 0;
				}
			}
		}
		ptrace(PTRACE_SYSCALL, tid, 0, sig);
	}
	dprintf(3, "%d %ld %ld\n", status, count, hit);
	return 0;
}
