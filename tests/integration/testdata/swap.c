/* swap A B SECONDS: exchanges the names A and B as fast as it can. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

int main(int argc, char **argv) {
	if (argc < 4)
		return 2;
	time_t end = time(0) + atoi(argv[3]);
	long n = 0;
	do {
		if (renameat2(AT_FDCWD, argv[1], AT_FDCWD, argv[2], RENAME_EXCHANGE))
			return perror("renameat2"), 1;
	} while (++n % 64 || time(0) < end);
	printf("swapped %ld\n", n);
	return 0;
}
