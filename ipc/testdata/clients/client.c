// What a payload in C does with the broker; TestClientsInOtherLanguages looks at what comes of it.
#include "jail_ipc.h"

#include <stdio.h>
#include <sys/mman.h>

static void check(struct jail_ipc *c, const char *what, int got, int want) {
	if (got != want) {
		fprintf(stderr, "%s: status %d (errno %d), want %d: %.*s\n", what, got, errno, want, c->in.s,
			c->in.text);
		exit(1);
	}
}

int main(void) {
	static struct jail_ipc c;
	int fd;
	char text[16] = "";
	check(&c, "dial", jail_ipc_dial(&c), JAIL_IPC_OK);
	printf("%.*s %d\n", c.in.s, c.in.text, (int)(c.in.b & 1));
	check(&c, "open", jail_ipc_open(&c, "root", "file", JAIL_IPC_READ, &fd), JAIL_IPC_OK);
	if (read(fd, text, sizeof text - 1) < 0)
		return 1;
	close(fd);
	check(&c, "open to write", jail_ipc_open(&c, "root", "file", JAIL_IPC_WRITE, &fd), JAIL_IPC_DENIED);
	check(&c, "open what is not there", jail_ipc_open(&c, "root", "absent", JAIL_IPC_READ, &fd),
	      JAIL_IPC_ERRNO);
	check(&c, "its errno", (int)c.in.a, ENOENT);
	check(&c, "lock", jail_ipc_lock(&c, "mine", JAIL_IPC_EXCLUSIVE, JAIL_IPC_FOREVER), JAIL_IPC_OK);
	check(&c, "lock twice", jail_ipc_lock(&c, "mine", JAIL_IPC_EXCLUSIVE, JAIL_IPC_FOREVER),
	      JAIL_IPC_DEADLOCK);
	check(&c, "lock of another", jail_ipc_lock(&c, "taken", JAIL_IPC_EXCLUSIVE, 1000000),
	      JAIL_IPC_TIMEOUT);
	check(&c, "unlock", jail_ipc_unlock(&c, "mine"), JAIL_IPC_OK);
	check(&c, "memory", jail_ipc_memory(&c, "m", JAIL_IPC_WRITE, &fd), JAIL_IPC_OK);
	char *m = mmap(NULL, 4096 + c.in.a, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (m == MAP_FAILED)
		return 1;
	strcpy(m + 4096, text);
	check(&c, "log", jail_ipc_log(&c, 4, text), JAIL_IPC_OK);
	check(&c, "progress", jail_ipc_progress(&c, 1, 2, "half"), JAIL_IPC_OK);
	check(&c, "result", jail_ipc_result(&c, "out", fd), JAIL_IPC_OK);
	check(&c, "quit", jail_ipc_quit(&c), JAIL_IPC_OK);
	return 0;
}
