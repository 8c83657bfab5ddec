// spawn N PARALLEL CMD ARGS…: starts CMD N times in all, PARALLEL at once, waits for each, and prints the
// milliseconds that one took: the time of it all, divided by N.
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>

extern char **environ;

static double now_ms(void) {
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1e3 + t.tv_nsec / 1e6;
}

int main(int argc, char **argv) {
	if (argc < 4)
		return 2;
	int n = atoi(argv[1]), parallel = atoi(argv[2]), started = 0, running = 0;
	double begin = now_ms();

	while (started < n || running > 0) {
		if (started < n && running < parallel) {
			pid_t pid;

			if (posix_spawnp(&pid, argv[3], NULL, NULL, argv + 3, environ) != 0) {
				perror(argv[3]);
				return 1;
			}
			started++;
			running++;
			continue;
		}
		int status;

		if (wait(&status) < 0 || status != 0) {
			fprintf(stderr, "%s ended with status %#x\n", argv[3], status);
			return 1;
		}
		running--;
	}
	printf("%.6f\n", (now_ms() - begin) / n);
	return 0;
}
