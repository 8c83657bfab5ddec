/* Prints the number and the value of each signal that is queued, until 64 has come. */
#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>

int main(void) {
	sigset_t set;
	siginfo_t info;
	sigemptyset(&set);
	for (int s = 35; s <= 64; s++)
		sigaddset(&set, s);
	sigprocmask(SIG_BLOCK, &set, 0);
	puts("ready");
	fflush(stdout);
	do {
		if (sigwaitinfo(&set, &info) < 0)
			return 1;
		printf("%d %ld\n", info.si_signo, (long)info.si_value.sival_ptr);
	} while (info.si_signo != 64);
	return 0;
}
