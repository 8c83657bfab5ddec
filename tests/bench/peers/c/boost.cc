// boost: Boost.Interprocess' message_queue. Spinning is try_receive over and over.
#include "common.h"
#include <boost/interprocess/ipc/message_queue.hpp>
#include <string>

using boost::interprocess::message_queue;

static message_queue *requests, *answers;
static char buffer[1 << 20];

// The mapping is inherited, so that the name can go at once.
static message_queue *make(const char *what) {
	std::string name = "jail-bench-" + std::to_string(getpid()) + "-" + what;
	message_queue *q = new message_queue(boost::interprocess::create_only, name.c_str(), 64, bytes);

	message_queue::remove(name.c_str());
	return q;
}

static void in(message_queue *q) {
	message_queue::size_type n;
	unsigned priority;

	if (!spin)
		q->receive(buffer, bytes, n, priority);
	else
		while (!q->try_receive(buffer, bytes, n, priority))
			relax();
}

static void out(message_queue *q) {
	if (!spin)
		q->send(buffer, bytes, 0);
	else
		while (!q->try_send(buffer, bytes, 0))
			relax();
}

static void echo() {
	for (;;) {
		in(requests);
		out(answers);
	}
}

static long roundtrip(long n) {
	for (long i = 0; i < n; i++) {
		out(requests);
		in(answers);
	}
	return n;
}

static void send_all() {
	for (;;)
		out(answers);
}

static long receive(long n) {
	for (long i = 0; i < n; i++)
		in(answers);
	return n;
}

int main(int argc, char **argv) {
	arguments(argc, argv);
	if (bytes > sizeof(buffer))
		return 2;
	requests = make("requests");
	answers = make("answers");
	pid_t pid = other(is("stream") ? send_all : echo);
	messages(roundtrip, receive, pid);
	end(pid);
	return 0;
}
