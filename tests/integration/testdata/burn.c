/* Uses CPU time and memory, and says how much.
 *   burn mix SEED          a tree of processes that burn, allocate and sleep; prints "CPU_US PEAK_KIB"
 *   burn hog MIB           allocates until it is killed, or has MIB
 *   burn forks N           children that wait; prints how many there could be
 *   burn cpu N             N children that burn CPU for ever */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static long cpu_us(int who) {
	struct rusage u;
	getrusage(who, &u);
	return (u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1000000L + u.ru_utime.tv_usec + u.ru_stime.tv_usec;
}

static void burn(long us) {
	struct timespec t;
	do
		clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	while (t.tv_sec * 1000000L + t.tv_nsec / 1000 < us);
}

static void *allocate(long kib) {
	if (kib == 0)
		return 0;
	char *p = mmap(0, kib << 10, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (p == MAP_FAILED)
		exit(3);
	madvise(p, kib << 10, MADV_NOHUGEPAGE); /* what is touched is what is used */
	memset(p, 1, kib << 10);
	return p;
}

/* What this process alone takes, in KiB: anonymous pages that no other has, page tables, the kernel's stack.
 */
static long own_kib(void) {
	char line[256];
	long kib = 16, n;
	FILE *f = fopen("/proc/self/smaps_rollup", "r");
	if (!f)
		exit(4);
	while (fgets(line, sizeof line, f))
		if (sscanf(line, "Pss_Anon: %ld", &n) == 1)
			kib += n;
	fclose(f);
	if (!(f = fopen("/proc/self/status", "r")))
		exit(4);
	while (fgets(line, sizeof line, f))
		if (sscanf(line, "VmPTE: %ld", &n) == 1)
			kib += n;
	fclose(f);
	return kib;
}

static int mix(unsigned seed) {
	enum { MOST = 6 };
	int n = rand_r(&seed) % MOST, up[2], down[2];
	long total = 0, kib;
	if (pipe(up) || pipe(down))
		return 1;
	for (int i = 0; i < n; i++)
		if (fork() == 0) {
			unsigned own = seed + i;
			char c;
			close(down[1]);
			allocate(rand_r(&own) % 16384);
			burn(rand_r(&own) % 40000);
			usleep(rand_r(&own) % 20000);
			if (rand_r(&own) % 2) { /* a grandchild */
				if (fork() == 0) {
					burn(rand_r(&own) % 20000);
					_exit(0);
				}
				wait(0);
			}
			kib = own_kib(); /* now all are there */
			if (write(up[1], &kib, sizeof kib) != sizeof kib)
				_exit(1);
			if (read(down[0], &c, 1) != 0) /* until all have said it */
				_exit(1);
			_exit(0);
		}
	long mine = rand_r(&seed) % 32768;
	void *at = allocate(mine);
	burn(rand_r(&seed) % 60000);
	for (int i = 0; i < n; i++) {
		if (read(up[0], &kib, sizeof kib) != sizeof kib)
			return 1;
		total += kib;
	}
	total += own_kib();
	close(down[1]);
	while (wait(0) > 0)
		;
	munmap(at, mine << 10); /* what the end of this process takes, it can't measure */
	printf("%ld %ld\n", cpu_us(RUSAGE_SELF) + cpu_us(RUSAGE_CHILDREN), total);
	return 0;
}

int main(int argc, char **argv) {
	long n = argc > 2 ? atol(argv[2]) : 0;
	if (argc < 3)
		return 2;
	if (!strcmp(argv[1], "mix"))
		return mix(n);
	if (!strcmp(argv[1], "hog")) {
		for (long i = 0; i < n; i++)
			allocate(1024);
		puts("had it");
		return 0;
	}
	if (!strcmp(argv[1], "forks")) {
		static pid_t pids[4096];
		long made = 0;
		for (; made < n && made < 4096; made++) {
			pid_t p = fork();
			if (p == 0) {
				pause();
				_exit(0);
			}
			if (p < 0)
				break;
			pids[made] = p;
		}
		printf("forks %ld %s\n", made, made < n ? strerrorname_np(errno) : "");
		fflush(stdout);
		while (made > 0)
			kill(pids[--made], SIGKILL);
		return 0;
	}
	if (!strcmp(argv[1], "cpu")) {
		for (long i = 1; i < n; i++)
			if (fork() == 0)
				break;
		for (;;)
			;
	}
	return 2;
}
