/* Programs that mean harm: hostile WHAT. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/* our supervisor: PID 1 where we can't see it */
static pid_t supervisor(void) {
	return getppid() ? getppid() : 1;
}

static void deaf(void) {
	for (int sig = 1; sig <= 64; sig++)
		signal(sig, SIG_IGN);
}

int main(int argc, char **argv) {
	const char *what = argc > 1 ? argv[1] : "";
	if (!strcmp(what, "bomb")) {
		deaf();
		for (;;)
			if (fork() < 0)
				usleep(1000);
	}
	if (!strcmp(what, "deaf"))
		for (deaf();;)
			pause();
	if (!strcmp(what, "stop"))
		for (;;)
			kill(0, SIGSTOP);
	if (!strcmp(what, "setsid")) {
		for (int i = 0; i < 8; i++)
			if (fork() == 0) {
				setsid();
				if (fork() == 0) {
					setsid();
					for (deaf();;)
						pause();
				}
				_exit(0);
			}
		return 6;
	}
	if (!strcmp(what, "close")) { /* every fd, and then goes on */
		syscall(SYS_close_range, 0, ~0U, 0);
		return open("/dev/null", O_RDWR) == 0 ? 7 : 8;
	}
	if (!strcmp(what, "close-stay"))
		for (syscall(SYS_close_range, 0, ~0U, 0);;)
			pause();
	if (!strcmp(what, "kill")) { /* who watches over it, and all that it may signal beside itself */
		static const int signals[] = {SIGSTOP, SIGTERM, SIGABRT, SIGSEGV, SIGBUS, SIGKILL};
		for (unsigned i = 0; i < sizeof signals / sizeof *signals; i++)
			signal(signals[i], SIG_IGN);
		for (unsigned i = 0; i < sizeof signals / sizeof *signals; i++)
			kill(supervisor(), signals[i]);
		return 5;
	}
	if (!strcmp(what, "flood")) {
		union sigval v = {0};
		signal(SIGRTMIN + 1, SIG_IGN);
		for (int i = 0; i < 3; i++)
			if (fork() == 0)
				break;
		for (pid_t pid = supervisor();;)
			sigqueue(pid, SIGRTMIN + 1, v);
	}
	return 2;
}
