/* Processes and signals. */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

static void *thread(void *arg) {
	volatile long sum = 0;
	for (long i = 0; i < 100000; i++)
		sum += i;
	return (void *)(intptr_t)(sum == 4999950000L);
}

/* 64 threads, all of which have to come to the same sum */
static int threads(void) {
	pthread_t t[64];
	int good = 0;
	for (int i = 0; i < 64; i++)
		if (pthread_create(&t[i], 0, thread, 0))
			return 1;
	for (int i = 0; i < 64; i++) {
		void *r;
		pthread_join(t[i], &r);
		good += r != 0;
	}
	printf("threads %d\n", good);
	return good != 64;
}

/* N children at once, each with its own exit code */
static int forks(int n) {
	int good = 0, st;
	pid_t pids[1000];
	for (int i = 0; i < n; i++)
		if ((pids[i] = fork()) == 0) {
			usleep(2000);
			_exit(i & 127);
		} else if (pids[i] < 0)
			return 1;
	for (int i = 0; i < n; i++)
		good += waitpid(pids[i], &st, 0) == pids[i] && WIFEXITED(st) && WEXITSTATUS(st) == (i & 127);
	printf("forks %d\n", good);
	return good != n;
}

/* N orphans that end: somebody has to reap them */
static int orphans(int n) {
	for (int i = 0; i < n; i++) {
		pid_t p = fork();
		if (p == 0) {
			if (fork() == 0)
				_exit(0);
			_exit(0);
		}
		if (p < 0)
			return 1;
		waitpid(p, 0, 0);
	}
	return 0;
}

static volatile sig_atomic_t stopped;
static void on_cont(int sig) {
	stopped = sig;
}

static void on(int sig, siginfo_t *i, void *c) {
	char line[64];
	int n = snprintf(line, sizeof line, "signal %d code %d value %d\n", sig, i->si_code,
			 i->si_code == SI_QUEUE ? i->si_value.sival_int : 0);
	if (write(1, line, n) < 0)
		_exit(3);
	if (sig == SIGTERM)
		_exit(42);
}

/* says which signals come, until SIGTERM does */
static int catch (void) {
	struct sigaction a;
	memset(&a, 0, sizeof a);
	a.sa_sigaction = on;
	a.sa_flags = SA_SIGINFO;
	sigfillset(&a.sa_mask);
	for (int sig = 1; sig <= 64; sig++)
		if (sig != SIGKILL && sig != SIGSTOP && sig != SIGTSTP && sig != SIGCONT && sig != SIGCHLD)
			sigaction(sig, &a, 0);
	if (write(1, "ready\n", 6) < 0)
		return 1;
	for (;;)
		pause();
}

/* double-forked, in a session of their own, deaf to every signal: they outlive us if they may */
static int leave(int n) {
	for (int i = 0; i < n; i++)
		if (fork() == 0) {
			setsid();
			if (fork() == 0) {
				for (int sig = 1; sig <= 64; sig++)
					signal(sig, SIG_IGN);
				for (;;)
					pause();
			}
			_exit(0);
		}
	while (wait(0) > 0)
		;
	return 0;
}

/* chains that fork and die without pause */
static int chains(int n) {
	for (int i = 0; i < n; i++)
		if (fork() == 0) {
			setsid();
			for (;;) {
				pid_t p = fork();
				if (p > 0)
					_exit(0);
			}
		}
	usleep(20000);
	return 0;
}

/* Takes its supervisor's fds and CPU time away by prlimit(2), which asks for nothing but the same uid:
 * poll(2) fails then, and a supervisor that goes on polling is killed by the kernel. Somebody is left behind
 * by then. With "fds" its CPU time is left alone: it lives, and may not be deaf. */
static int starve(const char *what) {
	struct rlimit none = {0, 0}, one = {1, 1};
	pid_t parent = getppid() ? getppid() : 1;
	leave(1);
	printf("nofile %s\n", prlimit(parent, RLIMIT_NOFILE, &none, 0) ? strerrorname_np(errno) : "ok");
	if (strcmp(what, "fds"))
		printf("cpu %s\n", prlimit(parent, RLIMIT_CPU, &one, 0) ? strerrorname_np(errno) : "ok");
	fflush(stdout);
	orphans(1); /* wakes it */
	sleep(300);
	return 0;
}

/* N processes that queue signals for PID 1 without pause: it may not be kept from all else. */
static int flood(int n) {
	union sigval v = {0};
	signal(SIGRTMIN + 1, SIG_IGN);
	for (int i = 0; i < n; i++)
		if (fork() == 0)
			for (;;)
				sigqueue(1, SIGRTMIN + 1, v);
	printf("flood\n");
	fflush(stdout);
	sleep(300);
	return 0;
}

/* sigqueue PID SIGNAL VALUE */
static int queue(char **argv) {
	union sigval v;
	v.sival_int = atoi(argv[2]);
	return sigqueue(atoi(argv[0]), atoi(argv[1]), v) != 0;
}

/* ignores and blocks as asked, and executes the rest: dispose IGNORED BLOCKED PROGRAM ... */
static int dispose(char **argv) {
	sigset_t set;
	sigemptyset(&set);
	if (atoi(argv[0]))
		signal(atoi(argv[0]), SIG_IGN);
	if (atoi(argv[1]))
		sigaddset(&set, atoi(argv[1]));
	sigprocmask(SIG_SETMASK, &set, 0);
	execv(argv[2], argv + 2);
	return 1;
}

/* PID 1 has to shrug these off */
static int kill1(void) {
	static const int sigs[] = {SIGKILL, SIGSTOP}; /* others it passes on to the payload */
	for (unsigned i = 0; i < sizeof sigs / sizeof *sigs; i++) {
		int r = kill(1, sigs[i]);
		printf("kill %d %s\n", sigs[i], r ? strerror(errno) : "sent");
	}
	fflush(stdout);
	return 0;
}

int main(int argc, char **argv) {
	const char *what = argc > 1 ? argv[1] : "";
	int n = argc > 2 ? atoi(argv[2]) : 0;
	signal(SIGCONT, on_cont);
	if (!strcmp(what, "threads"))
		return threads();
	if (!strcmp(what, "forks"))
		return forks(n);
	if (!strcmp(what, "orphans"))
		return orphans(n);
	if (!strcmp(what, "catch"))
		return catch ();
	if (!strcmp(what, "leave"))
		return leave(n);
	if (!strcmp(what, "flood"))
		return flood(n);
	if (!strcmp(what, "starve"))
		return starve(argc > 2 ? argv[2] : "");
	if (!strcmp(what, "chains"))
		return chains(n);
	if (!strcmp(what, "sigqueue") && argc == 5)
		return queue(argv + 2);
	if (!strcmp(what, "dispose") && argc > 4)
		return dispose(argv + 2);
	if (!strcmp(what, "kill1"))
		return kill1();
	if (!strcmp(what, "raise"))
		return signal(n, SIG_DFL), raise(n), pause();
	return 2;
}
