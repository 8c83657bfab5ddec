// seqpacket: raw system calls on a pair of Unix SOCK_SEQPACKET sockets. Spinning is MSG_DONTWAIT over and
// over. fds passes BYTES file descriptors a message by SCM_RIGHTS; the receiver closes them one by one.
#include "common.h"
#include <fcntl.h>
#include <sys/socket.h>

#define MOST_FDS 253 // of the kernel, SCM_MAX_FD

static int ends[2];
static char buffer[1 << 20];

static void out(int fd) {
	while (send(fd, buffer, bytes, MSG_NOSIGNAL | (spin ? MSG_DONTWAIT : 0)) < 0) {
		if (errno != EAGAIN)
			die("send");
		relax();
	}
}

static void in(int fd) {
	ssize_t n;

	while ((n = recv(fd, buffer, sizeof(buffer), spin ? MSG_DONTWAIT : 0)) < 0) {
		if (errno != EAGAIN)
			die("recv");
		relax();
	}
	if ((size_t)n != bytes)
		die("short message");
}

static void echo(void) {
	for (;;) {
		in(ends[1]);
		out(ends[1]);
	}
}

static long roundtrip(long n) {
	for (long i = 0; i < n; i++) {
		out(ends[0]);
		in(ends[0]);
	}
	return n;
}

static void send_all(void) {
	for (;;)
		out(ends[1]);
}

static long receive(long n) {
	for (long i = 0; i < n; i++)
		in(ends[0]);
	return n;
}

static void send_fds(void) {
	char byte = 0, control[CMSG_SPACE(MOST_FDS * sizeof(int))];
	struct iovec data = {&byte, 1};
	struct msghdr h = {.msg_iov = &data, .msg_iovlen = 1, .msg_control = control};
	struct cmsghdr *c;
	int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);

	h.msg_controllen = CMSG_SPACE(bytes * sizeof(int));
	c = CMSG_FIRSTHDR(&h);
	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(bytes * sizeof(int));
	for (size_t i = 0; i < bytes; i++)
		memcpy(CMSG_DATA(c) + i * sizeof(int), &fd, sizeof(fd));
	while (sendmsg(ends[1], &h, MSG_NOSIGNAL) == 1) {
	}
	die("sendmsg");
}

static long receive_fds(long n) {
	for (long done = 0; done < n; done += bytes) {
		char byte, control[CMSG_SPACE(MOST_FDS * sizeof(int))];
		struct iovec data = {&byte, 1};
		struct msghdr h = {.msg_iov = &data,
				   .msg_iovlen = 1,
				   .msg_control = control,
				   .msg_controllen = sizeof(control)};
		struct cmsghdr *c;

		if (recvmsg(ends[0], &h, MSG_CMSG_CLOEXEC) != 1 || (c = CMSG_FIRSTHDR(&h)) == NULL ||
		    c->cmsg_len != CMSG_LEN(bytes * sizeof(int)))
			die("recvmsg");
		for (size_t i = 0; i < bytes; i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(fd));
			close(fd);
		}
	}
	return (n + bytes - 1) / bytes * bytes;
}

int main(int argc, char **argv) {
	pid_t pid;

	arguments(argc, argv);
	if (bytes > sizeof(buffer) || socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0)
		die("socketpair");
	if (is("rtt")) {
		pid = other(echo);
		measure(roundtrip, 1);
	} else if (is("idle")) {
		pid = other(echo);
		roundtrip(1);
		idle(pid);
	} else if (is("stream")) {
		pid = other(send_all);
		stream(receive);
	} else if (is("fds") && bytes > 0 && bytes <= MOST_FDS) {
		pid = other(send_fds);
		stream(receive_fds);
	} else {
		return 2;
	}
	end(pid);
	return 0;
}
