// A client of jail's broker in one header, for C99 on a little-endian Linux. docs/ipc.md has the protocol.
//
// One thread uses a connection at a time, and each call waits for its answer, so there is one request under
// way. All functions return 0 or a jail_ipc_status; what they fill in is undefined then. The texts of the
// last answer are in the connection.
#ifndef JAIL_IPC_H
#define JAIL_IPC_H

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
	JAIL_IPC_VERSION = 1,
	JAIL_IPC_MAX = 4096, // bytes of a packet
};

enum jail_ipc_kind {
	JAIL_IPC_HELLO = 1,
	JAIL_IPC_OPEN,
	JAIL_IPC_LOCK,
	JAIL_IPC_UNLOCK,
	JAIL_IPC_CANCEL,
	JAIL_IPC_MEMORY,
	JAIL_IPC_PUBLISH,
	JAIL_IPC_RELEASE,
	JAIL_IPC_CHANNEL,
	JAIL_IPC_LOG,
	JAIL_IPC_PROGRESS,
	JAIL_IPC_RESULT,
	JAIL_IPC_QUIT,
	JAIL_IPC_END = 0x7fff,
	JAIL_IPC_ANSWER = 0x8000,
};

enum jail_ipc_status {
	JAIL_IPC_OK,
	JAIL_IPC_PROTOCOL,
	JAIL_IPC_DENIED,
	JAIL_IPC_LIMIT,
	JAIL_IPC_ERRNO, // the answer's a is the errno
	JAIL_IPC_TIMEOUT,
	JAIL_IPC_DEADLOCK,
	JAIL_IPC_CONFLICT,
	JAIL_IPC_NOT_READY,
	JAIL_IPC_NOT_HELD,
	JAIL_IPC_NO_VERSION,
	JAIL_IPC_GONE,
	JAIL_IPC_BROKEN = -1, // the connection: errno tells
};

enum jail_ipc_access { JAIL_IPC_READ = 1, JAIL_IPC_WRITE, JAIL_IPC_CREATE };
enum jail_ipc_mode { JAIL_IPC_SHARED = 1, JAIL_IPC_EXCLUSIVE };
#define JAIL_IPC_FOREVER UINT64_MAX

struct jail_ipc_packet {
	uint16_t kind, status;
	uint32_t id;
	uint64_t a, b;
	uint16_t s, t, fds, reserved; // bytes of both texts; fds that come along
	char text[JAIL_IPC_MAX - 32]; // s, then t; here a 0 follows what was received, if there is room
};

struct jail_ipc {
	int socket;
	uint32_t last;
	struct jail_ipc_packet in, out;
};

static int jail_ipc_send(struct jail_ipc *c, int fd) {
	union {
		struct cmsghdr header;
		char space[CMSG_SPACE(sizeof(int))];
	} control;
	struct iovec v = {&c->out, 32u + c->out.s + c->out.t};
	struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1};
	if (fd >= 0) {
		memset(&control, 0, sizeof control);
		control.header.cmsg_level = SOL_SOCKET;
		control.header.cmsg_type = SCM_RIGHTS;
		control.header.cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(&control.header), &fd, sizeof fd);
		m.msg_control = &control;
		m.msg_controllen = sizeof control.space;
		c->out.fds = 1;
	}
	ssize_t n;
	do
		n = sendmsg(c->socket, &m, MSG_NOSIGNAL);
	while (n < 0 && errno == EINTR);
	return n < 0 ? -1 : 0;
}

// jail_ipc_receive fills in c->in, and *fd with what came along or -1.
static int jail_ipc_receive(struct jail_ipc *c, int *fd) {
	union {
		struct cmsghdr header;
		char space[CMSG_SPACE(sizeof(int))];
	} control;
	*fd = -1;
	for (int again = 0;;) {
		struct iovec v = {&c->in, sizeof c->in};
		struct msghdr m = {.msg_iov = &v,
				   .msg_iovlen = 1,
				   .msg_control = &control,
				   .msg_controllen = sizeof control.space};
		ssize_t n = recvmsg(c->socket, &m, MSG_CMSG_CLOEXEC);
		if (n < 0 && errno == EINTR)
			continue;
		// The kernel says once that the broker has closed its end, before it gives what was sent
		// earlier.
		if (n < 0 && errno == ECONNRESET && !again++)
			continue;
		if (n < 0)
			return -1;
		struct cmsghdr *h = CMSG_FIRSTHDR(&m);
		if (h && h->cmsg_level == SOL_SOCKET && h->cmsg_type == SCM_RIGHTS &&
		    h->cmsg_len == CMSG_LEN(sizeof(int)))
			memcpy(fd, CMSG_DATA(h), sizeof *fd);
		if (n < 32 || n != 32 + c->in.s + c->in.t || c->in.fds != (*fd >= 0)) {
			if (*fd >= 0)
				close(*fd);
			errno = n == 0 ? ECONNRESET : EPROTO;
			return -1;
		}
		if (n < (ssize_t)sizeof c->in)
			c->in.text[n - 32] = 0;
		return 0;
	}
}

// jail_ipc_call sends a request and waits for its answer. Send is an fd for it or -1. Where received is not
// NULL, an fd that comes with the answer is put there, which is -1 otherwise.
static int jail_ipc_call(struct jail_ipc *c, uint16_t kind, const char *s, const char *t, uint64_t a,
			 uint64_t b, int send, int *received) {
	size_t ls = strlen(s), lt = strlen(t);
	int fd;
	if (ls + lt > sizeof c->out.text) {
		errno = EMSGSIZE;
		return JAIL_IPC_BROKEN;
	}
	if (++c->last == 0)
		c->last = 1;
	c->out = (struct jail_ipc_packet){
	    .kind = kind, .id = c->last, .a = a, .b = b, .s = (uint16_t)ls, .t = (uint16_t)lt};
	memcpy(c->out.text, s, ls);
	memcpy(c->out.text + ls, t, lt);
	// Where that fails the broker may have said why.
	int sent = jail_ipc_send(c, send);
	for (;;) {
		if (jail_ipc_receive(c, &fd))
			return JAIL_IPC_BROKEN;
		if (c->in.kind == JAIL_IPC_END)
			return c->in.status ? c->in.status : JAIL_IPC_GONE;
		if (!sent && c->in.id == c->last && c->in.kind == (kind | JAIL_IPC_ANSWER))
			break;
		if (fd >= 0)
			close(fd);
	}
	if (received)
		*received = fd;
	else if (fd >= 0)
		close(fd);
	return c->in.status;
}

// jail_ipc_hello begins the session on a connected socket. The answer's first text is the jail's name; bit 0
// of its b is set where the broker knows this process by a pidfd, and not just by its pid.
static inline int jail_ipc_hello(struct jail_ipc *c, int socket) {
	memset(c, 0, sizeof *c);
	c->socket = socket;
	return jail_ipc_call(c, JAIL_IPC_HELLO, "jail-ipc", "", JAIL_IPC_VERSION, JAIL_IPC_VERSION, -1, NULL);
}

// jail_ipc_dial begins the session on the socket that this process has inherited.
static inline int jail_ipc_dial(struct jail_ipc *c) {
	const char *fd = getenv("JAIL_IPC_FD");
	if (!fd) {
		errno = ENOTCONN;
		return JAIL_IPC_BROKEN;
	}
	return jail_ipc_hello(c, atoi(fd));
}

static inline int jail_ipc_open(struct jail_ipc *c, const char *name, const char *path,
				enum jail_ipc_access access, int *fd) {
	return jail_ipc_call(c, JAIL_IPC_OPEN, name, path, access, 0, -1, fd);
}

// jail_ipc_lock waits for so many nanoseconds, or JAIL_IPC_FOREVER.
static inline int jail_ipc_lock(struct jail_ipc *c, const char *name, enum jail_ipc_mode mode,
				uint64_t wait) {
	return jail_ipc_call(c, JAIL_IPC_LOCK, name, "", mode, wait, -1, NULL);
}

static inline int jail_ipc_unlock(struct jail_ipc *c, const char *name) {
	return jail_ipc_call(c, JAIL_IPC_UNLOCK, name, "", 0, 0, -1, NULL);
}

// jail_ipc_memory gets a memfd to map. The user's bytes begin at 4096; the answer's a is how many there are
// at least.
static inline int jail_ipc_memory(struct jail_ipc *c, const char *name, enum jail_ipc_access access,
				  int *fd) {
	return jail_ipc_call(c, JAIL_IPC_MEMORY, name, "", access, 0, -1, fd);
}

// jail_ipc_log has levels as syslog's inverse: -4 debug, 0 info, 4 warning, 8 error.
static inline int jail_ipc_log(struct jail_ipc *c, int level, const char *line) {
	return jail_ipc_call(c, JAIL_IPC_LOG, line, "", (uint64_t)(level + 128), 0, -1, NULL);
}

static inline int jail_ipc_progress(struct jail_ipc *c, uint64_t done, uint64_t total, const char *what) {
	return jail_ipc_call(c, JAIL_IPC_PROGRESS, what, "", done, total, -1, NULL);
}

// jail_ipc_result hands a copy of fd to the launcher.
static inline int jail_ipc_result(struct jail_ipc *c, const char *name, int fd) {
	return jail_ipc_call(c, JAIL_IPC_RESULT, name, "", 0, 0, fd, NULL);
}

static inline int jail_ipc_quit(struct jail_ipc *c) {
	int status = jail_ipc_call(c, JAIL_IPC_QUIT, "", "", 0, 0, -1, NULL);
	close(c->socket);
	return status;
}

#endif
