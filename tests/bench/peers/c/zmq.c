// zmq: libzmq's PAIR sockets over ipc://.
#include "common.h"
#include <zmq.h>

static const char *address = "ipc://zmq";
static char buffer[1 << 20];
static void *s; // of this process: a context does not outlive a fork

static void start(bool bind) {
	s = zmq_socket(zmq_ctx_new(), ZMQ_PAIR);
	if (s == NULL || (bind ? zmq_bind(s, address) : zmq_connect(s, address)) != 0)
		die(address);
}

static void out(void) {
	if (zmq_send(s, buffer, bytes, 0) != (int)bytes)
		die("zmq_send");
}

static void in(void) {
	if (zmq_recv(s, buffer, sizeof(buffer), 0) != (int)bytes)
		die("zmq_recv");
}

static void echo(void) {
	start(false);
	for (;;) {
		in();
		out();
	}
}

static long roundtrip(long n) {
	for (long i = 0; i < n; i++) {
		out();
		in();
	}
	return n;
}

static void send_all(void) {
	start(false);
	for (;;)
		out();
}

static long receive(long n) {
	for (long i = 0; i < n; i++)
		in();
	return n;
}

int main(int argc, char **argv) {
	pid_t pid;

	arguments(argc, argv);
	if (spin || bytes > sizeof(buffer))
		return 2; // its I/O thread sleeps in epoll, whatever the caller does
	pid = other(is("stream") ? send_all : echo);
	start(true);
	messages(roundtrip, receive, pid);
	end(pid);
	return 0;
}
