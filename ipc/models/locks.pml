/*
 * The lock service's table (../locktable.go): what an owner does is one step, as it is under the table's mutex.
 * Shown for all orders of what three owners do with two locks, each for ROUNDS requests, of which any may be
 * given up by its caller, and of whom one may die at any moment:
 *   - nobody holds a lock beside one who holds it exclusively (compatible, asserted again where it is given);
 *   - nobody is overtaken by a later request that conflicts with his own (the ghost variable `before`);
 *   - nobody waits for ever: spin reports a state in which an owner can't go on ("invalid end state").
 */
#define OWNERS 3
#define LOCKS  2
#define ROUNDS 2

#define SHARED    1
#define EXCLUSIVE 2
#define conflict(a, b) ((a) == EXCLUSIVE || (b) == EXCLUSIVE)

#define AT(l, o) ((l) * OWNERS + (o))

byte held[LOCKS * OWNERS];  /* mode, or 0 */
byte queue[LOCKS * OWNERS]; /* owners + 1, the oldest first */
byte queued[LOCKS];
byte wants[OWNERS]; /* lock + 1 of the request that waits, or 0 */
byte mode[OWNERS];  /* of that request */

bool before[OWNERS * OWNERS]; /* ghost: [o, p]: o waited already when p asked for the same, and they conflict */

hidden byte i, j, k;
hidden byte ok;

/* ok = could a request of mode m join the holders of l? */
inline compatible(l, m) {
	ok = true;
	for (i : 0 .. OWNERS - 1) {
		if
		:: held[AT(l, i)] != 0 && conflict(m, held[AT(l, i)]) ->
#ifdef MUTATION_WRITER_BESIDE_READER
			if
			:: held[AT(l, i)] == EXCLUSIVE -> ok = false
			:: else
			fi
#else
			ok = false
#endif
		:: else
		fi
	}
}

inline give(l, o, m) {
	for (i : 0 .. OWNERS - 1) {
		assert(held[AT(l, i)] == 0 || (m == SHARED && held[AT(l, i)] == SHARED));
		assert(!before[i * OWNERS + o]);
	}
	held[AT(l, o)] = m
}

/* o's request leaves the queue of l */
inline leave(l, o) {
	k = 0;
	for (i : 0 .. OWNERS - 1) {
		if
		:: i < queued[l] && queue[AT(l, i)] != o + 1 ->
			queue[AT(l, k)] = queue[AT(l, i)];
			k++
		:: else
		fi
	}
	queued[l] = k;
	for (i : 0 .. OWNERS - 1) {
		if
		:: i >= k -> queue[AT(l, i)] = 0
		:: else
		fi;
		before[o * OWNERS + i] = false
	}
	wants[o] = 0
}

/* o's request is no more: nobody was before it */
inline forget(o) {
	for (i : 0 .. OWNERS - 1) {
		before[i * OWNERS + o] = false
	}
}

/* l goes to the first of its queue for as long as that is possible */
inline grant(l) {
	do
	:: queued[l] > 0 ->
		first = queue[AT(l, 0)] - 1;
		compatible(l, mode[first]);
		if
		:: ok ->
			leave(l, first);
			give(l, first, mode[first])
		:: else -> break
		fi
	:: else -> break
	od;
	first = 0
}

/* reach[a, b] = does a wait for b? Only the edges; the closure is made by whoever needs it. */
hidden byte reach[OWNERS * OWNERS];

inline edges(l, o) {
	ok = false; /* has o's own place in the queue been passed? */
	for (j : 0 .. OWNERS - 1) {
		if
		:: held[AT(l, j)] != 0 && (j == o || conflict(mode[o], held[AT(l, j)])) -> reach[o * OWNERS + j] = true
		:: else
		fi;
#ifndef MUTATION_CYCLE_OF_HOLDERS_ONLY
		if
		:: j < queued[l] && queue[AT(l, j)] == o + 1 -> ok = true
		:: j < queued[l] && queue[AT(l, j)] != o + 1 && !ok ->
			k = queue[AT(l, j)] - 1;
			if
			:: conflict(mode[o], mode[k]) -> reach[o * OWNERS + k] = true
			:: else
			fi
		:: else
		fi
#endif
	}
}

inline closure() {
	for (i : 0 .. OWNERS * OWNERS - 1) {
		reach[i] = false
	}
	for (i : 0 .. OWNERS - 1) {
		if
		:: wants[i] != 0 -> edges(wants[i] - 1, i)
		:: else
		fi
	}
	for (k : 0 .. OWNERS - 1) {
		for (i : 0 .. OWNERS - 1) {
			for (j : 0 .. OWNERS - 1) {
				reach[i * OWNERS + j] = reach[i * OWNERS + j] || (reach[i * OWNERS + k] && reach[k * OWNERS + j])
			}
		}
	}
}

/* a request: it is granted, or waits (wants), or is refused */
inline request(l, o, m) {
	d_step {
		mode[o] = m;
		for (i : 0 .. OWNERS - 1) {
			if
			:: i < queued[l] ->
				j = queue[AT(l, i)] - 1;
				before[j * OWNERS + o] = conflict(m, mode[j])
			:: else
			fi
		}
		compatible(l, m);
#ifdef MUTATION_OVERTAKES
		if
		:: ok && held[AT(l, o)] == 0 ->
#else
		if
		:: ok && held[AT(l, o)] == 0 && queued[l] == 0 ->
#endif
			give(l, o, m)
		:: else ->
			wants[o] = l + 1;
			queue[AT(l, queued[l])] = o + 1;
			queued[l]++;
#ifndef MUTATION_NO_CYCLE_CHECK
			closure();
			if
			:: reach[o * OWNERS + o] ->
				leave(l, o);
				forget(o)
			:: else
			fi
#endif
		fi;
	}
}

inline give_up(o) {
	d_step {
		l = wants[o] - 1;
		leave(l, o);
		forget(o);
#ifndef MUTATION_NOBODY_NEXT_AFTER_GIVING_UP
		grant(l);
#endif
		l = 0
	}
}

inline unlock(l, o) {
	d_step {
		held[AT(l, o)] = 0;
		grant(l)
	}
}

inline release(o) {
	d_step {
		if
		:: wants[o] != 0 ->
			l = wants[o] - 1;
			leave(l, o);
			grant(l)
		:: else
		fi;
		forget(o);
#ifndef MUTATION_THE_DEAD_KEEP_LOCKS
		for (l : 0 .. LOCKS - 1) {
			if
			:: held[AT(l, o)] != 0 ->
				held[AT(l, o)] = 0;
				grant(l)
			:: else
			fi
		}
#endif
		l = 0
	}
}

proctype owner(byte o; bool mortal) {
	byte l, m, first, rounds;
	bool patient = true;

	do
	:: atomic { rounds < ROUNDS ->
		rounds++;
		select(l : 0 .. LOCKS - 1);
		select(m : SHARED .. EXCLUSIVE);
		request(l, o, m);
		l = 0;
		m = 0;
		if
		:: true
		:: wants[o] != 0 -> patient = false
		fi }
		if
		:: atomic { wants[o] == 0 -> patient = true } /* it is held, or refused */
		:: atomic { wants[o] != 0 && !patient -> give_up(o); patient = true }
		:: mortal -> break
		fi
	:: atomic { held[AT(0, o)] != 0 -> unlock(0, o) }
	:: atomic { held[AT(1, o)] != 0 -> unlock(1, o) }
	:: mortal -> break
	:: rounds == ROUNDS && held[AT(0, o)] == 0 && held[AT(1, o)] == 0 -> break
	od;
	release(o)
}

init {
	atomic {
		if
		:: run owner(0, true)
		:: run owner(0, false)
		fi;
		run owner(1, false);
		run owner(2, false)
	}
}
