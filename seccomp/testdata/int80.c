// Makes one i386 system call and prints what the kernel returned: int80 NR ARG1 ARG2 ARG3
#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv) {
	if (argc != 5)
		return 2;
	long ret;
	__asm__ volatile("int $0x80"
			 : "=a"(ret)
			 : "a"(strtoul(argv[1], 0, 0)), "b"(strtoul(argv[2], 0, 0)),
			   "c"(strtoul(argv[3], 0, 0)), "d"(strtoul(argv[4], 0, 0)), "S"(0)
			 : "memory");
	printf("%d\n", (int)ret);
	return 0;
}
