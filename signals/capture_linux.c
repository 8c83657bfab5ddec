// The C half of the relay: what must happen before Go starts, and what happens in a handler. In a
// handler only async-signal-safe calls are made (signal-safety(7)), and little of the stack is used: it
// runs on the alternate stack of a Go thread.
#define _GNU_SOURCE
#include "capture_linux.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/signalfd.h>
#include <ucontext.h>
#include <unistd.h>

#define BIT(sig) (UINT64_C(1) << ((sig)-1))

enum { STANDARD_MAX = 31 };

static const uint64_t faults =
    BIT(SIGSEGV) | BIT(SIGBUS) | BIT(SIGFPE) | BIT(SIGILL) | BIT(SIGTRAP) | BIT(SIGSYS);

// What the kernel sends to a whole process group for its terminal: keys, a new size, a hang-up. (SIGTTIN
// and SIGTTOU come from it for a read or write by this process.)
static const uint64_t terminal =
    BIT(SIGINT) | BIT(SIGQUIT) | BIT(SIGTSTP) | BIT(SIGWINCH) | BIT(SIGHUP) | BIT(SIGCONT);

// Each takes back the other while it is pending. Only the kernel knows which came first, since two
// handlers may run in any order. So these two are blocked as well, and SIGTSTP stays pending until it
// stops the process.
static const uint64_t job_control = BIT(SIGTSTP) | BIT(SIGCONT);

static const uint64_t standard =
    ((UINT64_C(1) << STANDARD_MAX) - 1) &
    ~(BIT(SIGKILL) | BIT(SIGSTOP) | BIT(SIGCHLD) | BIT(SIGURG) | BIT(SIGPROF) | BIT(SIGPIPE));

static uint64_t ignored; // at start
static uint64_t blocked; // at start
// Blocked in all threads, and taken from there:
static uint64_t queued;
static uint64_t jobs; // of job_control

static struct sigaction previous[STANDARD_MAX + 1];
static struct sigaction relaying;
static _Atomic uint64_t pending;
static atomic_int wake = -1;
static atomic_int in_handler;
static atomic_bool unblocked; // signals_unblock was called

static uint64_t realtime(void) {
	return ~UINT64_C(0) << (SIGRTMIN - 1);
}

static sigset_t sigset_of(uint64_t set) {
	sigset_t s;

	sigemptyset(&s);
	for (int sig = 1; sig <= SIGRTMAX; sig++)
		if (set & BIT(sig))
			sigaddset(&s, sig);
	return s;
}

// Go unblocks SIGRTMIN (34) whenever it starts a thread, because musl uses that number for itself, and
// installs no handler for it. A thread in which it is not blocked would take signals out of the queue, so
// each thread sends one to itself while all signals are still blocked. A thread's own signals come before
// the process's, so the first thing that happens once Go unblocks it is this handler, and it blocks it
// for good.
//
// Go unblocks it again in a thread that ends (of a goroutine that ends locked to it), and a thread can't
// send to itself where RLIMIT_SIGPENDING is used up. So it may get one from outside: that goes back, to
// the end of the queue.
static void on_rtmin(int sig, siginfo_t *info, void *context) {
	int saved_errno = errno;

	if (info->si_code != SI_TKILL && atomic_load(&unblocked)) {
		signal(sig, SIG_DFL);
		raise(sig); // blocked until the handler returns
		return;
	}
	if (info->si_code != SI_TKILL)
		if (info->si_code != SI_QUEUE || sigqueue(getpid(), sig, info->si_value) != 0)
			kill(getpid(), sig);
	sigaddset(&((ucontext_t *)context)->uc_sigmask, sig);
	errno = saved_errno;
}

struct thread {
	void *(*run)(void *);
	void *arg;
};

static void *run_thread(void *p) {
	struct thread t = *(struct thread *)p;

	free(p);
	raise(SIGRTMIN);
	return t.run(t.arg);
}

int __real_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*run)(void *), void *arg);

// The linker sends all calls of pthread_create here, the Go runtime's too.
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*run)(void *), void *arg) {
	struct thread *t = malloc(sizeof(*t));

	if (t == NULL)
		return EAGAIN;
	*t = (struct thread){.run = run, .arg = arg};
	int err = __real_pthread_create(thread, attr, run_thread, t);
	if (err != 0)
		free(t);
	return err;
}

// Go hands the mask of its first thread to all others, so what is blocked before it starts stays blocked.
// Priority 101 records the mask as it was.
__attribute__((constructor(102))) static void start(void) {
	sigset_t mask;

	pthread_sigmask(SIG_BLOCK, NULL, &mask);
	for (int sig = 1; sig <= SIGRTMAX; sig++) {
		struct sigaction was;

		if (sigaction(sig, NULL, &was) == 0 && was.sa_handler == SIG_IGN)
			ignored |= BIT(sig);
		if (sigismember(&mask, sig) == 1)
			blocked |= BIT(sig);
	}

	// A signal that is ignored must not be blocked: the kernel would queue it.
	queued = (realtime() | (standard & blocked)) & ~ignored;
	jobs = job_control & ~blocked & ~ignored;
	mask = sigset_of(queued | jobs);
	pthread_sigmask(SIG_BLOCK, &mask, NULL);

	if (queued & BIT(SIGRTMIN)) {
		struct sigaction act = {
		    .sa_sigaction = on_rtmin,
		    .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART,
		};
		sigfillset(&act.sa_mask);
		sigaction(SIGRTMIN, &act, NULL);
		raise(SIGRTMIN);
	}
}

// Go leaves only SIGHUP and SIGINT ignored. It needs its handlers for faults; SIGCHLD, SIGPIPE, SIGURG
// and SIGPROF do nothing in a Go program anyway.
void signals_keep_ignored(void) {
	for (int sig = 1; sig <= SIGRTMAX; sig++)
		if (ignored & (standard | realtime()) & ~faults & BIT(sig))
			signal(sig, SIG_IGN);
}

// Whether somebody sent the signal, rather than the kernel for something that this process did, or this
// process itself: abort(3) does that, and Go when it crashes.
static bool was_sent(int sig, const siginfo_t *info) {
	if (info->si_code == SI_KERNEL)
		return terminal & BIT(sig);
	return info->si_code <= 0 && info->si_pid != getpid();
}

// The handler of a Go program expects what the kernel calls it with: the alternate stack, all signals
// blocked, and a context that it may change. SIGTTIN and SIGTTOU have none: by default they stop the
// process, and it has to stop here, because on return the read or write is tried again.
static void call_previous(int sig, siginfo_t *info, void *context) {
	if (previous[sig].sa_handler != SIG_DFL) {
		previous[sig].sa_sigaction(sig, info, context);
		return;
	}
	sigset_t set = sigset_of(BIT(sig));

	sigaction(sig, &previous[sig], NULL);
	raise(sig);
	pthread_sigmask(SIG_UNBLOCK, &set, NULL);
	if (atomic_load(&wake) >= 0)
		sigaction(sig, &relaying, NULL);
}

static void on_signal(int sig, siginfo_t *info, void *context) {
	int saved_errno = errno;

	// signals_restore clears wake first and then waits for in_handler to be 0, so the fd is ours.
	atomic_fetch_add(&in_handler, 1);
	int fd = atomic_load(&wake);
	bool take = fd >= 0 && was_sent(sig, info);
	if (take && !(ignored & BIT(sig))) {
		int shift = info->si_code == SI_KERNEL ? SIGNALS_TERMINAL_SHIFT : 0;

		atomic_fetch_or(&pending, BIT(sig) << shift);
		// A full pipe is as good: the reader has yet to take what is pending.
		(void)!write(fd, "", 1);
	}
	atomic_fetch_sub(&in_handler, 1);

	if (!take)
		call_previous(sig, info, context);
	errno = saved_errno;
}

// Faults have one though they are ignored, in front of Go's.
static bool has_handler(int sig) {
	return standard & ~job_control & ~(ignored & ~faults) & BIT(sig);
}

void signals_install(int wake_fd) {
	relaying.sa_sigaction = on_signal;
	relaying.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART;
	sigfillset(&relaying.sa_mask); // Go's handlers have it so
	atomic_store(&wake, wake_fd);
	for (int sig = 1; sig <= STANDARD_MAX; sig++) {
		if (!has_handler(sig))
			continue;
		sigaction(sig, NULL, &previous[sig]); // the handler may run before the next call returns
		sigaction(sig, &relaying, NULL);
	}
}

void signals_restore(void) {
	for (int sig = 1; sig <= STANDARD_MAX; sig++)
		if (has_handler(sig))
			sigaction(sig, &previous[sig], NULL);
	atomic_store(&wake, -1);
	while (atomic_load(&in_handler) != 0)
		sched_yield();
}

uint64_t signals_take(void) {
	return atomic_exchange(&pending, 0);
}

static int open_signalfd(uint64_t set) {
	sigset_t s = sigset_of(set);

	return signalfd(-1, &s, SFD_CLOEXEC | SFD_NONBLOCK);
}

int signals_queue(void) {
	return open_signalfd(queued);
}

int signals_jobs(void) {
	return open_signalfd(jobs);
}

int signals_pending_job(void) {
	sigset_t now;

	sigpending(&now);
	if ((jobs & BIT(SIGTSTP)) && sigismember(&now, SIGTSTP) == 1)
		return SIGTSTP;
	if ((jobs & BIT(SIGCONT)) && sigismember(&now, SIGCONT) == 1)
		return SIGCONT;
	return 0;
}

// The default action rather than SIGSTOP: the kernel leaves a process alone that nobody would continue
// (one in an orphaned process group), and a shell is told the signal.
void signals_stop(void) {
	sigset_t mask, stop = sigset_of(BIT(SIGTSTP));

	pthread_sigmask(SIG_UNBLOCK, &stop, &mask);
	pthread_sigmask(SIG_SETMASK, &mask, NULL);
}

int signals_take_cont(void) {
	sigset_t cont = sigset_of(jobs & BIT(SIGCONT));
	siginfo_t info;

	if (sigtimedwait(&cont, &info, &(struct timespec){0}) != SIGCONT)
		return -1;
	return info.si_code == SI_KERNEL;
}

// One thread in which they are open is enough, since they are sent to the process. Go would drop all
// real-time ones but SIGRTMIN, which has a handler here.
void signals_unblock(void) {
	sigset_t set = sigset_of((queued & ~blocked) | jobs);

	for (int sig = SIGRTMIN + 1; sig <= SIGRTMAX; sig++)
		if (queued & ~blocked & BIT(sig))
			signal(sig, SIG_DFL);
	atomic_store(&unblocked, true);
	pthread_sigmask(SIG_UNBLOCK, &set, NULL);
}
