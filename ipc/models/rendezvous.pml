/*
 * A channel of capacity 0 (ipc/channel.go: Send, meet, withdraw) and the bells on which its sides sleep (ipc/bell.go). Two
 * senders with one message each, two receivers that want one each, and fewer where a sender may be cancelled, a process
 * may be killed between any two steps, or the channel may be closed at any moment. Sleepers wake by a ring alone; only where somebody was
 * killed do they look again by themselves, as the code does every 100 ms.
 *
 * Shown: a Send that returns without an error met its receiver, which has the whole message, and one with an error did not;
 * no message is received twice; no wake-up is lost and nobody who lives waits for ever (an invalid end state).
 *
 * A mutation, which must fail: spin -DMUTATION_x -a rendezvous.pml, with x one of
 *   no_wait      a sender does not wait for its receiver
 *   withdraw     a sender withdraws without a look at the word
 *   commit       a receiver frees the slot without a look at the word
 *   dead_reader  a dead receiver's slot is taken for free
 *   look_once    who has announced that it will sleep does not look again
 *   no_pass_on   who was woken does not pass the bell on
 *   no_step      a bell is rung without counting
 *   last         who frees the last slot of a closed channel does not ring
 *   close        Close rings those alone that have announced themselves
 */
#define FREE 0
#define WRITING 1
#define FULL 2
#define READING 3

#define LAPS 8
#define WORD(lap, state, owner) ((((lap) % LAPS) << 4) | ((state) << 2) | (owner))
#define LAP(w) ((w) >> 4)
#define STATE(w) (((w) >> 2) & 3)
#define OWNER(w) ((w) & 3)
#define HELD(w) (STATE(w) == WRITING || STATE(w) == READING)

/* Bells. */
#define RECEIVERS 0
#define SENDERS 1
#define OFFERS 2

byte word;
byte value; /* the message; ring.pml has torn ones */
/* A bell's bit 0. Its count is modelled by whom it makes fail: who announced itself before a ring does not fall asleep. */
bool awaited[3];
byte announced[4]; /* by process: the bell plus 1, 0 for none */
bool rung[4];      /* since then */
byte asleep[4]; /* by process: the bell plus 1, 0 for awake. Senders are 0 and 1, receivers 2 and 3. */
bool closed;
bool dead[4], done[4];
byte kills;

/* Only to judge by; a message is 1 + its sender's number. */
bool received[3];
bool sending[3];
bool withdrawn;
bool closes, may_kill, unequal, ready;

inline wake(b) {
	if
	:: asleep[0] == b + 1 -> asleep[0] = 0
	:: asleep[1] == b + 1 -> asleep[1] = 0
	:: asleep[2] == b + 1 -> asleep[2] = 0
	:: asleep[3] == b + 1 -> asleep[3] = 0
	:: else
	fi
}

inline count(b) {
#ifdef MUTATION_no_step
	skip
#else
	rung[0] = rung[0] || announced[0] == b + 1;
	rung[1] = rung[1] || announced[1] == b + 1;
	rung[2] = rung[2] || announced[2] == b + 1;
	rung[3] = rung[3] || announced[3] == b + 1
#endif
}

inline ring(b) {
	if
	:: atomic { awaited[b] -> awaited[b] = false; count(b) };
		atomic { wake(b) }
	:: else
	fi
}

/* All sleepers, also those whose bit another ring has taken. */
inline ring_all(b) {
	atomic {
		awaited[b] = false;
		count(b);
		asleep[0] = (asleep[0] == b + 1 -> 0 : asleep[0]);
		asleep[1] = (asleep[1] == b + 1 -> 0 : asleep[1]);
		asleep[2] = (asleep[2] == b + 1 -> 0 : asleep[2]);
		asleep[3] = (asleep[3] == b + 1 -> 0 : asleep[3])
	}
}

inline freed() {
	ring(SENDERS);
	if
#ifdef MUTATION_last
	:: false
#else
	:: closed -> ring_all(RECEIVERS)
#endif
	:: else
	fi
}

/* FUTEX_WAIT; over, not 0, ends the sleep as a cancelled context does. */
inline sleep(b, over) {
	atomic { if :: awaited[b] && !rung[me] -> asleep[me] = b + 1 :: else fi };
	atomic {
		if
		:: asleep[me] == 0
		:: kills > 0 -> asleep[me] = 0
		:: over -> asleep[me] = 0
		fi;
		announced[me] = 0;
		rung[me] = false
	}
}

inline announce(b) {
	atomic { awaited[b] = true; announced[me] = b + 1; rung[me] = false }
#ifdef MUTATION_look_once
	;
	sleep(b, false)
#endif
}

/* more is what waiter.leave asks. */
inline pass_on(b, more) {
#ifdef MUTATION_no_pass_on
	skip
#else
	atomic { awaited[b] = true; announced[me] = 0; rung[me] = false };
	if
	:: more -> ring(b)
	:: else
	fi
#endif
}

#define ABANDONED(w) (HELD(w) && dead[OWNER(w)])
#ifdef MUTATION_dead_reader
#define MENDED(w) WORD(LAP(w) + 1, FREE, 0)
#else
#define MENDED(w) (STATE(w) == WRITING -> WORD(LAP(w) + 1, FREE, 0) : WORD(LAP(w), FULL, 0))
#endif

inline mend(w) {
	atomic { if :: word == w -> word = MENDED(w) :: else fi };
	ring(RECEIVERS);
	freed()
}

/* What needs no other's memory goes along with the step before it. */
proctype sender(byte me; bool may_cancel) {
	byte w, lap;
	bool slept;
	{
		sending[1 + me] = true;
again:		atomic {
			w = word;
			if
			:: closed -> goto end
			:: !closed && STATE(w) == FREE -> goto claim
			:: !closed && ABANDONED(w) -> goto repair
			:: !closed && STATE(w) != FREE && !ABANDONED(w) && announced[me] == 0 -> goto doze
			:: !closed && STATE(w) != FREE && !ABANDONED(w) && announced[me] > 0 -> goto nap
			fi
		};
repair:		mend(w);
		goto again;
doze:		announce(SENDERS);
		goto again;
nap:		sleep(SENDERS, false);
		slept = true;
		goto again;

claim:		atomic { if :: word == w -> word = WORD(LAP(w), WRITING, me); lap = LAP(w) :: else -> goto again fi };
		if
		:: closed -> word = WORD(lap + 1, FREE, 0); freed(); goto end
		:: else
		fi;
		value = 1 + me;
		word = WORD(lap, FULL, 0);
		ring(RECEIVERS);
		if
		:: slept || announced[me] > 0 -> pass_on(SENDERS, STATE(word) == FREE)
		:: else
		fi;

meet:
#ifndef MUTATION_no_wait
		atomic {
			w = word;
			if
			:: LAP(w) != lap -> goto met
			:: LAP(w) == lap && ABANDONED(w) -> goto mending
			:: LAP(w) == lap && (may_cancel || closed) -> goto withdraw
			:: LAP(w) == lap && !ABANDONED(w) && !closed && announced[me] == 0 -> goto await
			:: LAP(w) == lap && !ABANDONED(w) && !closed && announced[me] > 0 -> goto sleeping
			fi
		};
mending:	mend(w);
		goto meet;
await:		announce(OFFERS);
		goto meet;
sleeping:	sleep(OFFERS, may_cancel);
		goto meet;
#endif
met:		assert(received[1 + me]); /* sent */
		goto end;

withdraw:	atomic {
			w = word;
			if
			:: LAP(w) != lap -> assert(received[1 + me]); goto end
			:: else
			fi
		};
#ifdef MUTATION_withdraw
		word = WORD(lap + 1, FREE, 0);
#else
		atomic { if :: word == w -> word = WORD(lap + 1, FREE, 0) :: else -> goto withdraw fi };
#endif
		assert(!received[1 + me]);
		withdrawn = true;
		freed();
end:		sending[1 + me] = false
	} unless { dead[me] };
	atomic { asleep[me] = 0; announced[me] = 0; rung[me] = false; done[me] = true }
}

proctype receiver(byte me; bool slept) {
	byte w, a;
	{
		(asleep[me] == 0);
again:		atomic {
			w = word;
			if
			:: STATE(w) == FULL -> goto claim
			:: STATE(w) == FREE && closed -> goto end
			:: ABANDONED(w) -> goto repair
			:: STATE(w) != FULL && !(STATE(w) == FREE && closed) && !ABANDONED(w) && announced[me] == 0 -> goto doze
			:: STATE(w) != FULL && !(STATE(w) == FREE && closed) && !ABANDONED(w) && announced[me] > 0 -> goto nap
			fi
		};
repair:		mend(w);
		goto again;
doze:		announce(RECEIVERS);
		goto again;
nap:		sleep(RECEIVERS, false);
		slept = true;
		goto again;

claim:		atomic { if :: word == w -> word = WORD(LAP(w), READING, me) :: else -> goto again fi };
		a = value;
		atomic {
#ifndef MUTATION_commit
			if
			:: word != WORD(LAP(w), READING, me) -> goto again
			:: else
			fi;
#endif
			word = WORD(LAP(w) + 1, FREE, 0);
			assert(a > 0 && !received[a]);
			assert(sending[a] || dead[a - 1]); /* it meets a sender */
			received[a] = true
		};
		if
		:: awaited[OFFERS] -> ring_all(OFFERS)
		:: else
		fi;
		freed();
end:		if
		:: slept || announced[me] > 0 -> pass_on(RECEIVERS, STATE(word) != FREE)
		:: else
		fi
	} unless { dead[me] };
	atomic { asleep[me] = 0; announced[me] = 0; rung[me] = false; done[me] = true }
}

active proctype killer() {
	(ready);
	if
	:: atomic { may_kill && !done[0] -> dead[0] = true; kills++ }
	:: atomic { may_kill && !done[3] -> dead[3] = true; kills++ }
	:: true
	fi
}

/* Who is left without a partner is released by Close. */
#ifdef MUTATION_close
#define UNAWAITED(b) !awaited[b]
#else
#define UNAWAITED(b) false
#endif

active proctype closer() {
	(closes || kills > 0 || withdrawn || (ready && unequal && ((done[0] && done[1]) || (done[2] && done[3]))) ||
		(done[0] && done[1] && done[2] && done[3]));
	atomic {
		closed = true;
		if :: UNAWAITED(RECEIVERS) :: else -> ring_all(RECEIVERS) fi;
		if :: UNAWAITED(SENDERS) :: else -> ring_all(SENDERS) fi;
		if :: UNAWAITED(OFFERS) :: else -> ring_all(OFFERS) fi
	}
}

/* All of it at once is too many states. */
init {
	atomic {
		if
		:: run sender(0, false); run receiver(2, false); run receiver(3, false); done[1] = true; unequal = true; may_kill = true
		:: run sender(0, true); run receiver(2, false); run receiver(3, false); done[1] = true; unequal = true; closes = true
		:: run sender(0, false); run sender(1, false); run receiver(3, false); done[2] = true; unequal = true; may_kill = true
		:: /* two of each, and the receivers sleep already */
			awaited[RECEIVERS] = true;
			asleep[2] = RECEIVERS + 1;
			asleep[3] = RECEIVERS + 1;
			run sender(0, false); run sender(1, false); run receiver(2, true); run receiver(3, true)
		fi;
		ready = true
	};
	(done[0] && done[1] && done[2] && done[3]);
	assert(unequal || (received[1] && received[2]))
}
