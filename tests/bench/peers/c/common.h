// What the programs of this folder share. Each is started as
//     taskset -c CPU PROGRAM TEST BYTES MILLISECONDS CPU2 wait|spin
// and makes the other process by fork, bound to CPU2. The first process measures: it prints p50 and p99 of
// the nanoseconds that one operation takes. TEST idle starts the other process of rtt, prints its pid once it
// has answered and waits for the end of standard input.
#ifndef COMMON_H
#define COMMON_H
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define SAMPLES (1 << 20)

static const char *test;
static size_t bytes;
static double milliseconds;
static int cpu2;
static bool spin;

static inline void die(const char *what) {
	fprintf(stderr, "%s: %s\n", what, strerror(errno));
	exit(1);
}

static inline void arguments(int argc, char **argv) {
	if (argc != 6) {
		fprintf(stderr, "usage: %s TEST BYTES MILLISECONDS CPU2 wait|spin\n", argv[0]);
		exit(2);
	}
	test = argv[1];
	bytes = strtoul(argv[2], NULL, 10);
	milliseconds = atof(argv[3]);
	cpu2 = atoi(argv[4]);
	spin = strcmp(argv[5], "spin") == 0;
}

static inline bool is(const char *name) {
	return strcmp(test, name) == 0;
}

static inline void relax(void) {
#ifdef __x86_64__
	__builtin_ia32_pause();
#else
	__asm__ volatile("yield");
#endif
}

static inline void *shared(size_t size) {
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);

	if (p == MAP_FAILED)
		die("mmap");
	return p;
}

// other starts the second process, which ends with the first.
static inline pid_t other(void (*run)(void)) {
	pid_t parent = getpid(), pid = fork();
	cpu_set_t set;

	if (pid < 0)
		die("fork");
	if (pid > 0)
		return pid;
	CPU_ZERO(&set);
	CPU_SET(cpu2, &set);
	if (sched_setaffinity(0, sizeof(set), &set) != 0)
		die("sched_setaffinity");
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() == parent)
		run();
	exit(0);
}

static inline void end(pid_t pid) {
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
}

static inline double now(void) {
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1e9 + t.tv_nsec;
}

static inline int ascending(const void *a, const void *b) {
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

// measure calls run(n) again and again; run makes about n operations and returns how many they were, or 0 for
// a sample that does not count. Operations of less than a microsecond need n > 1, or the clock would be
// measured: their p99 is one of means of n.
static inline void measure(long (*run)(long), long n) {
	double *samples = (double *)malloc(SAMPLES * sizeof(double)), begin = now(), last = begin, at;
	long count = 0;

	// A fifth of the time to warm up.
	while ((at = now()) - begin < milliseconds * 1e6 / 5)
		run(n);
	begin = last = now();
	while (count < SAMPLES && last - begin < milliseconds * 1e6) {
		long done = run(n);

		at = now();
		if (done > 0)
			samples[count++] = (at - last) / done;
		last = at;
	}
	if (count == 0) {
		fprintf(stderr, "no sample counts\n");
		exit(1);
	}
	qsort(samples, count, sizeof(double), ascending);
	printf("%f %f\n", samples[count / 2], samples[(long)(count * 0.99)]);
}

// stream does the same, but a sample is what is done in 10 ms: single receives say nothing where the kernel
// lets one side run ahead.
static inline void stream(long (*run)(long)) {
	double samples[1000], begin = now(), last, at;
	long count = 0;

	while (now() - begin < milliseconds * 1e6 / 5)
		run(100);
	begin = last = now();
	while (count < 1000 && last - begin < milliseconds * 1e6) {
		long done = 0;

		do {
			done += run(100);
			at = now();
		} while (at - last < 1e7);
		samples[count++] = (at - last) / done;
		last = at;
	}
	qsort(samples, count, sizeof(double), ascending);
	printf("%f 0\n", samples[count / 2]);
}

static inline void idle(pid_t pid) {
	char byte;

	printf("%d\n", (int)pid);
	fflush(stdout);
	while (read(0, &byte, 1) > 0) {
	}
}

// messages runs the tests that a library for messages has; pid is the other process.
static inline void messages(long (*roundtrip)(long), long (*receive)(long), pid_t pid) {
	if (is("rtt")) {
		measure(roundtrip, 1);
	} else if (is("idle")) {
		roundtrip(1);
		idle(pid);
	} else if (is("stream")) {
		stream(receive);
	}
}

#endif
