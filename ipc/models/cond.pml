/*
 * The condition variable (../cond.go): a sequence number on which waiters sleep, beside a mutex (mutex.pml shows that one;
 * here it is one step, also from a dead owner). Two consumers take tokens, one each; a producer makes two, with a Signal or a
 * Broadcast for each, inside or after its critical section. The producer and one consumer may die between any two steps.
 *
 * Shown:
 *   - without deaths, and without the looks every 100 ms, both consumers get their token: no wake-up is lost (an invalid end
 *     state);
 *   - with deaths and looks, a token does not lie there for ever while somebody waits who lives (ltl taken): neither a
 *     signaller that dies between its two steps nor a waiter that dies with the wake-up in its hands loses it for others.
 * The sequence counts modulo 8 here, which is more than it changes.
 */
#define CONSUMER 1 /* never dies */
#define OTHER 2
#define PRODUCER 3

byte owner; /* of the mutex */
byte sequence;
byte tokens;
bool dead[4], sleeping[3];
bool looks; /* deaths and looks, or neither */

inline lock() {
	atomic {
		owner == 0 || dead[owner] -> owner = me
	}
}

inline unlock() {
	owner = 0
}

inline wait() {
#ifndef MUTATION_SEQUENCE_READ_UNLOCKED
	seen = sequence;
#endif
	unlock();
#ifdef MUTATION_SEQUENCE_READ_UNLOCKED
	seen = sequence;
#endif
	d_step { /* futex */
#ifdef MUTATION_FUTEX_WITHOUT_VALUE
		sleeping[me] = true;
#else
		sleeping[me] = (sequence == seen);
#endif
		seen = 0
	}
#ifdef MUTATION_NO_LOOKS
end_asleep: /* if no token ever comes, that is right; that one which came is not taken, ltl taken has to find */
#endif
	if
	:: !sleeping[me]
#ifndef MUTATION_NO_LOOKS
	:: looks -> sleeping[me] = false
#endif
	fi;
	lock()
}

inline wake(n) {
#ifndef MUTATION_SIGNAL_WITHOUT_SEQUENCE
	sequence = (sequence + 1) % 8;
#endif
	if
	:: n == 1 ->
		if
		:: sleeping[CONSUMER] -> sleeping[CONSUMER] = false
		:: sleeping[OTHER] -> sleeping[OTHER] = false
		:: else
		fi
	:: else ->
		d_step {
			sleeping[CONSUMER] = false;
			sleeping[OTHER] = false
		}
	fi
}

proctype Consumer(byte me) {
	byte seen;
	{
		lock();
		do
		:: tokens == 0 -> wait()
		:: else -> break
		od;
		tokens--;
		unlock();
		dead[me] = true /* an orderly end closes files too */
	} unless {
		dead[me]
	}
}

proctype Producer(byte me) {
	byte made;
	{
		do
		:: made < 2 ->
			made++;
			lock();
			tokens++;
			if
			:: wake(1); unlock()
			:: unlock(); wake(1)
			:: unlock(); wake(2)
			fi
		:: else -> break
		od;
		dead[me] = true
	} unless {
		dead[me]
	}
}

inline die(victim) {
	d_step {
		dead[victim] = true;
		sleeping[OTHER] = sleeping[OTHER] && !dead[OTHER]
	}
}

proctype Killer() {
	do
	:: !dead[OTHER] -> die(OTHER)
	:: !dead[PRODUCER] -> die(PRODUCER)
	:: break
	od
}

init {
	atomic {
		run Consumer(CONSUMER);
		run Consumer(OTHER);
		run Producer(PRODUCER);
		if
		:: looks = true; run Killer()
		:: skip
		fi
	}
}

ltl taken { [] (tokens > 0 -> <> (tokens == 0 || dead[CONSUMER])) }
