/*
 * The ring under Channel[T] (ipc/channel_linux.go): N slots, senders and receivers that may be killed between any two
 * steps, Close at any moment. Each slot's word holds its lap, its state and its owner, and is only changed by CAS.
 * head and tail are hints: whoever finds one behind moves it on.
 *
 * Shown: no message is lost, doubled or torn; each sender's messages come in order; nobody who lives waits for ever
 * (an invalid end state), whoever dies.
 * Laps count modulo 8 here and modulo 2^32 in the code: equal words are equal states, so that ABA changes nothing.
 *
 * A mutation, which must fail: spin -DMUTATION_x -a ring.pml, with x one of
 *   aba           a slot's word does not hold the lap
 *   publish_first the message is copied after its slot is full
 *   dead_writer   a dead writer's slot is taken for full
 *   dead_reader   a dead reader's slot is taken for free
 *   alive         the owner's life is not looked at
 *   close         a sender does not look at closed after its claim
 *   skip_writer   a receiver goes past a slot that is being written
 *   no_help       nobody moves another's hint on
 */
#ifndef N
#define N 2
#endif
#ifndef KILLS
#define KILLS 1
#endif
#define PEERS 4 /* senders are 0 and 1, receivers 2 and 3 */
#define MSGS 3
#define QUOTA(who) (2 - (who)) /* sender 0 has two messages, sender 1 has one */
#define LAPS 8
#define NOBODY 0

#define FREE 0
#define WRITING 1
#define FULL 2
#define READING 3

#define WORD(lap, state, owner) ((((lap) % LAPS) << 4) | ((state) << 2) | (owner))
#define LAP(w) ((w) >> 4)
#define STATE(w) (((w) >> 2) & 3)
#define OWNER(w) ((w) & 3)
/* A position is lap * N + index. */
#define NEXT(p) (((p) + 1) % (N * LAPS))
#define AT(p) word[(p) % N]
#define SAME(w, p) (LAP(w) == (p) / N)
#define AHEAD(w, p) (!SAME(w, p) && (LAP(w) + LAPS - (p) / N) % LAPS < LAPS / 2)
#define HELD(w) (STATE(w) == WRITING || STATE(w) == READING)
#define ABANDONED(i) (HELD(word[i]) && dead[OWNER(word[i])])
#define WORK_FOR_OTHERS (ABANDONED(0) || ABANDONED(N - 1))

byte word[N];
byte first[N], second[N]; /* the two halves of a slot's message */
byte head, tail;
bool closed;
bool dead[PEERS], done[PEERS];
byte kills;

/* Only to judge by. Message 1 and 2 are sender 0's, 3 is sender 1's. */
bool sent[MSGS + 1], received[MSGS + 1], claimed[MSGS + 1];
bool returned; /* a dead reader's message went back: it may come after a later one */

/* CAS where nothing hangs on whether it came about. */
#define HELP(x, old, new) atomic { if :: x == old -> x = new :: else fi }

/* A dead owner's slot: the position of a writer is skipped, the message of a reader is there again. */
inline mend(w) {
#ifdef MUTATION_dead_writer
	atomic { if :: AT(p) == w && STATE(w) == WRITING -> AT(p) = WORD(LAP(w), FULL, NOBODY) :: else fi };
#else
	atomic { if :: AT(p) == w && STATE(w) == WRITING -> AT(p) = WORD(LAP(w) + 1, FREE, NOBODY) :: else fi };
#endif
#ifdef MUTATION_dead_reader
	atomic { if :: AT(p) == w && STATE(w) == READING -> AT(p) = WORD(LAP(w) + 1, FREE, NOBODY) :: else fi }
#else
	atomic { if :: AT(p) == w && STATE(w) == READING -> AT(p) = WORD(LAP(w), FULL, NOBODY); returned = true :: else fi }
#endif
}

#ifdef MUTATION_alive
#define DEAD(w) HELD(w)
#else
#define DEAD(w) (HELD(w) && dead[OWNER(w)])
#endif

proctype sender(byte me) {
	byte p, w;
	byte message = 1 + 2 * me;
	{
		do
		:: message == 1 + 2 * me + QUOTA(me) -> break
		:: else ->
again:			atomic {
				w = 0;
				p = tail;
				if
				:: closed -> break
				:: else
				fi
			};
			w = AT(p);
			if
#ifdef MUTATION_aba
			:: STATE(w) == FREE ->
#else
			:: SAME(w, p) && STATE(w) == FREE ->
#endif
				atomic { if :: AT(p) == w -> AT(p) = WORD(p / N, WRITING, me) :: else -> goto again fi };
#ifndef MUTATION_close
				if
				:: closed -> AT(p) = WORD(p / N + 1, FREE, NOBODY); break
				:: else
				fi;
#endif
#ifdef MUTATION_publish_first
				atomic { AT(p) = WORD(p / N, FULL, NOBODY); sent[message] = true };
#endif
				first[p % N] = message;
				second[p % N] = message;
#ifndef MUTATION_publish_first
				atomic {
					assert(AT(p) == WORD(p / N, WRITING, me));
					AT(p) = WORD(p / N, FULL, NOBODY);
					sent[message] = true
				};
#endif
				HELP(tail, p, NEXT(p));
				message++
			:: else ->
				if
				:: SAME(w, p) || AHEAD(w, p) ->
#ifdef MUTATION_no_help
					(tail != p || closed)
#else
					HELP(tail, p, NEXT(p))
#endif
				:: else -> /* full */
					if
					:: DEAD(w) -> mend(w)
					:: else -> (AT(p) != w || tail != p || closed || WORK_FOR_OTHERS)
					fi
				fi;
				goto again
			fi
		od
	} unless { dead[me] };
	done[me] = true
}

proctype receiver(byte me) {
	byte p, w, a, b;
	bool last;
	{
		skip;
again:		atomic { w = 0; a = 0; b = 0; last = closed; p = head };
scan:		w = AT(p);
		if
		:: SAME(w, p) && STATE(w) == FULL ->
			atomic {
				if
				:: AT(p) == w ->
					AT(p) = WORD(LAP(w), READING, me);
					a = first[p % N];
					assert(a != 1 || returned || !claimed[2]);
					claimed[a] = true;
					a = 0
				:: else -> goto again
				fi
			};
			a = first[p % N];
			b = second[p % N];
			atomic {
				assert(AT(p) == WORD(p / N, READING, me));
				AT(p) = WORD(p / N + 1, FREE, NOBODY);
				assert(a == b && a > 0 && !received[a]);
				received[a] = true
			};
			HELP(head, p, NEXT(p));
			goto again
		:: SAME(w, p) && STATE(w) == FREE -> /* empty */
			if
			:: last
			:: else -> (AT(p) != w || closed || WORK_FOR_OTHERS); goto again
			fi
		:: SAME(w, p) && DEAD(w) -> mend(w); goto again
		:: SAME(w, p) && STATE(w) == WRITING && !DEAD(w) ->
#ifdef MUTATION_skip_writer
			p = NEXT(p);
			goto scan
#else
			(AT(p) != w || WORK_FOR_OTHERS);
			goto again
#endif
		:: (SAME(w, p) && STATE(w) == READING && !DEAD(w)) || AHEAD(w, p) ->
			if
			:: AHEAD(w, p) && p == head ->
#ifdef MUTATION_no_help
				(p != head)
#else
				HELP(head, p, NEXT(p))
#endif
			:: else
			fi;
			p = NEXT(p);
			goto scan
		:: else -> /* behind: it is being read in the lap before, or there again from then */
			(STATE(w) == FULL || AT(p) != w || WORK_FOR_OTHERS);
			goto again
		fi
	} unless { dead[me] };
	done[me] = true
}

/* The two receivers are alike. */
active proctype killer() {
	do
	:: kills < KILLS ->
		if
		:: atomic { !done[0] -> dead[0] = true; kills++ }
		:: atomic { !done[1] -> dead[1] = true; kills++ }
		:: atomic { !done[3] -> dead[3] = true; kills++ }
		:: (done[0] && done[1] && done[2] && done[3]) -> break
		fi
	:: break
	od
}

/* At any moment; in the end in any case, since receivers would wait for a message. */
active proctype closer() {
	if
	:: closed = true
	:: (done[0] && done[1]) -> closed = true
	fi
}

#define HOLDS(i, m) ((STATE(word[i]) == FULL || STATE(word[i]) == READING) && first[i] == m)

init {
	byte m = 1;
	/* All four at once are too many states: many senders, and then many receivers. */
	atomic {
		run sender(0);
		run receiver(3);
		if
		:: run sender(1); done[2] = true
		:: run receiver(2); done[1] = true
		fi
	};
	(done[0] && done[1] && done[2] && done[3]);
	/* What was sent was received, or lies there for the next receiver if one was killed. */
	d_step {
		do
		:: m <= MSGS ->
			assert(!sent[m] || received[m] + HOLDS(0, m) + (N > 1 && HOLDS(N - 1, m)) == 1);
			assert(!sent[m] || received[m] || kills > 0);
			m++
		:: else -> break
		od
	}
}
