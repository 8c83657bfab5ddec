// iceoryx: a publisher and a subscriber each way; needs its daemon, iox-roudi. Messages are loaned and
// published: their bytes are not touched. Spinning is what its examples do, take over and over; waiting is
// its WaitSet.
#include "common.h"
#include <iceoryx_hoofs/log/logmanager.hpp>
#include <iceoryx_posh/popo/publisher.hpp>
#include <iceoryx_posh/popo/subscriber.hpp>
#include <iceoryx_posh/popo/wait_set.hpp>
#include <iceoryx_posh/runtime/posh_runtime.hpp>
#include <atomic>
#include <new>
#include <string>

// A subscriber's queue holds 256 messages and drops the oldest. The sender of a stream waits after so many
// for a message that says that half of them have been taken. (iceoryx can make the sender wait, too, but then
// its daemon of 2.0.3 hangs when the two end.)
#define WINDOW 128

template <size_t N> struct side {
	struct message {
		char bytes[N];
		message() { // without this a loan would set it to zero
		}
	};
	iox::popo::Publisher<message> publisher;
	iox::popo::Subscriber<message> subscriber;
	iox::popo::WaitSet<1> set;

	side(iox::capro::IdString_t run, const char *sends, const char *gets)
	    : publisher({"jail-bench", run, {iox::cxx::TruncateToCapacity, sends}}),
	      subscriber({"jail-bench", run, {iox::cxx::TruncateToCapacity, gets}}) {
		if (!spin)
			set.attachState(subscriber, iox::popo::SubscriberState::HAS_DATA).or_else([](auto) {
				die("attachState");
			});
		while (!publisher.hasSubscribers() ||
		       subscriber.getSubscriptionState() != iox::SubscribeState::SUBSCRIBED)
			usleep(1000);
	}

	void out() {
		publisher.loan().and_then([](auto &sample) { sample.publish(); }).or_else([](auto) {
			die("loan");
		});
	}

	void in() {
		for (;;) {
			bool got = false;

			subscriber.take().and_then([&](auto &) { got = true; });
			if (got)
				return;
			if (spin)
				relax();
			else
				set.wait();
		}
	}
};

static std::string run_name;
// The other process ends in good order: one that is killed may hold a lock that iox-roudi waits for, for
// ever.
static std::atomic<bool> *stop;

static void start(const char *process) {
	iox::log::LogManager::GetLogManager().SetDefaultLogLevel(iox::log::LogLevel::kError);
	iox::runtime::PoshRuntime::initRuntime(
	    {iox::cxx::TruncateToCapacity, (std::string(process) + "-" + run_name).c_str()});
}

template <size_t N> static side<N> *connect(const char *sends, const char *gets) {
	start(sends);
	return new side<N>({iox::cxx::TruncateToCapacity, run_name.c_str()}, sends, gets);
}

template <size_t N> struct runs {
	static side<N> *s;

	static void echo() {
		for (s = connect<N>("answers", "requests"); !*stop;) {
			s->in();
			s->out();
		}
		delete s;
	}
	static long roundtrip(long n) {
		for (long i = 0; i < n; i++) {
			s->out();
			s->in();
		}
		return n;
	}
	static void send_all() {
		s = connect<N>("answers", "requests");
		for (long i = 1; !*stop; i++) {
			s->out();
			if (i % WINDOW == 0)
				s->in();
		}
		delete s;
	}
	static long receive(long n) {
		static long count = WINDOW / 2;

		for (long i = 0; i < n; i++) {
			s->in();
			if (++count % WINDOW == 0)
				s->out();
		}
		return n;
	}
	static int main() {
		if (is("loan")) {
			s = connect<N>("self", "self");
			measure(roundtrip, 1000);
			delete s;
			return 0;
		}
		pid_t pid = other(is("stream") ? send_all : echo);

		s = connect<N>("requests", "answers");
		messages(roundtrip, receive, pid);
		*stop = true;
		s->out();
		waitpid(pid, NULL, 0);
		delete s;
		return 0;
	}
};
template <size_t N> side<N> *runs<N>::s;

int main(int argc, char **argv) {
	arguments(argc, argv);
	run_name = std::to_string(getpid());
	stop = new (shared(sizeof(*stop))) std::atomic<bool>(false);
	switch (bytes) {
	case 64:
		return runs<64>::main();
	case 65536:
		return runs<65536>::main();
	}
	return 2;
}
