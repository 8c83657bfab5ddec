// floor: what the machine itself takes.
//   rtt     a round trip over two words of shared memory, waited for by futex or by spinning
//   stream  a ring for one producer and one consumer that copies messages in and out, both spinning
//   cas     a word set and reset by compare-and-swap, by one process
//   locks   the same as a spinning lock that two processes fight for
//   memcpy  a copy
#include "common.h"
#include <linux/futex.h>
#include <stdatomic.h>
#include <sys/syscall.h>

#define SLOTS 1024
#define SLOT 64

struct memory {
	_Alignas(64) atomic_uint ping;
	_Alignas(64) atomic_uint pong;
	_Alignas(64) atomic_ulong head; // written by the producer
	_Alignas(64) atomic_ulong tail; // written by the consumer
	_Alignas(64) atomic_uint word;
	uint64_t count; // under word
	_Alignas(64) char slots[SLOTS][SLOT];
};

static struct memory *m;

static void post(atomic_uint *word, unsigned value) {
	atomic_store_explicit(word, value, memory_order_release);
	if (!spin)
		syscall(SYS_futex, word, FUTEX_WAKE, 1, NULL, NULL, 0);
}

static unsigned await(atomic_uint *word, unsigned old) {
	unsigned value;

	while ((value = atomic_load_explicit(word, memory_order_acquire)) == old) {
		if (spin)
			relax();
		else
			syscall(SYS_futex, word, FUTEX_WAIT, old, NULL, NULL, 0);
	}
	return value;
}

static void echo(void) {
	for (unsigned last = 0;;)
		post(&m->pong, last = await(&m->ping, last));
}

static long roundtrip(long n) {
	static unsigned value;

	for (long i = 0; i < n; i++) {
		post(&m->ping, value + 1);
		value = await(&m->pong, value);
	}
	return n;
}

static void produce(void) {
	char message[SLOT] = {1};
	unsigned long head = 0, tail = 0;

	for (;; head++) {
		while (head - tail == SLOTS) {
			tail = atomic_load_explicit(&m->tail, memory_order_acquire);
			if (head - tail == SLOTS)
				relax();
		}
		memcpy(m->slots[head % SLOTS], message, SLOT);
		atomic_store_explicit(&m->head, head + 1, memory_order_release);
	}
}

static long consume(long n) {
	static unsigned long head, tail;
	char message[SLOT];

	for (long i = 0; i < n; i++, tail++) {
		while (head == tail) {
			head = atomic_load_explicit(&m->head, memory_order_acquire);
			if (head == tail)
				relax();
		}
		memcpy(message, m->slots[tail % SLOTS], SLOT);
		__asm__ volatile("" ::"r"(message) : "memory");
		atomic_store_explicit(&m->tail, tail + 1, memory_order_release);
	}
	return n;
}

static long cas(long n) {
	for (long i = 0; i < n; i++) {
		for (unsigned v = 0; v < 2; v++) {
			unsigned old = v;

			atomic_compare_exchange_strong(&m->word, &old, 1 - v);
		}
	}
	return n;
}

static void pair(void) {
	unsigned old = 0;

	while (!atomic_compare_exchange_weak(&m->word, &old, 1)) {
		old = 0;
		relax();
	}
	m->count++;
	atomic_store_explicit(&m->word, 0, memory_order_release);
}

static void fight(void) {
	for (;;)
		pair();
}

static long locks(long n) {
	uint64_t before = m->count, done;

	for (long i = 0; i < n; i++)
		pair();
	done = m->count - before;	       // the other's too
	return done == (uint64_t)n ? 0 : done; // nobody fought
}

static long copy(long n) {
	static char from[1 << 20], to[1 << 20];

	for (long i = 0; i < n; i++) {
		memcpy(to, from, bytes);
		__asm__ volatile("" ::"r"(to), "r"(from) : "memory");
	}
	return n;
}

int main(int argc, char **argv) {
	pid_t pid = 0;

	arguments(argc, argv);
	m = shared(sizeof(*m));
	if (is("rtt")) {
		pid = other(echo);
		measure(roundtrip, spin ? 16 : 1);
	} else if (is("idle")) {
		pid = other(echo);
		roundtrip(1);
		idle(pid);
	} else if (is("stream")) {
		pid = other(produce);
		stream(consume);
	} else if (is("locks")) {
		pid = other(fight);
		measure(locks, 1000);
	} else if (is("cas")) {
		measure(cas, 1000);
	} else if (is("memcpy") && bytes <= 1 << 20) {
		measure(copy, 1);
	} else {
		return 2;
	}
	if (pid > 0)
		end(pid);
	return 0;
}
