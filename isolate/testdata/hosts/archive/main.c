/* A C program with the library in it: it calls it from its main thread and from threads of its own that end.
 */
#include <pthread.h>
#include <stdio.h>

int runJails(void);

static void *call(void *good) {
	*(int *)good = runJails();
	return 0;
}

int main(void) {
	int good[5] = {runJails()};
	pthread_t thread[4];
	for (int i = 0; i < 4; i++)
		if (pthread_create(&thread[i], 0, call, &good[i + 1]))
			return 1;
	for (int i = 0; i < 4; i++)
		pthread_join(thread[i], 0);
	for (int i = 0; i < 5; i++)
		if (good[i] != 3)
			return 2;
	puts("ok");
	return 0;
}
