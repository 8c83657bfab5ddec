/*
 * The broker's protocol (../session_linux.go): one session with its reader, writer, watcher of the client's pidfd and a
 * lock request that waits, and a neighbour that takes the same lock. The client sends up to REQUESTS requests in any
 * order, right or wrong, without waiting for answers if it likes; it may stop reading, or be killed, at any moment, or
 * live on. A copy of its socket is open in another process, so that the broker never reads its end. Shown for all
 * orders of what they do:
 *   - answered: each request of a client that lives and reads is answered, or the session ends;
 *   - order: what is out of order ends the session;
 *   - nothing_left: of a client that is dead, and of a session that is over, no lock, no request that waits and no
 *     answer is left.
 * A deadline is a step that is possible while the client does not read.
 */
#define REQUESTS 4
#define SOCKET   1 /* packets for which a direction of the socket has room */
#define QUEUE    1 /* answers that wait to be sent, the one that is being sent among them */

mtype = { NONE, HELLO, LOCK, UNLOCK, QUIT };
mtype:fate = { LIVES, DIES, GOES_DEAF };

chan requests = [SOCKET] of { mtype };
chan queue = [QUEUE] of { bool }; /* is it the last? */
chan replies = [SOCKET] of { bool };

/* the client */
mtype:fate fate; /* what it does at some moment; while it lives and reads, it reads whatever comes */
bool alive = true;
bool reads = true;
bool greeted;  /* it has said hello */
bool wrong;    /* it has said something out of order */
byte owed;     /* requests of a client that were sent and not answered */

/* the session */
bool over;     /* it is over */
bool closed;   /* nothing of it is left: the client reads its end */
bool held;     /* the session has the lock */
bool waits;    /* a request for it waits */
byte granted;  /* requests that waited and have been given it, and are to be answered */
byte running = 4;

bool taken;    /* the neighbour has the lock */

/* the first call alone counts; all it does is under locks that the others take too */
inline over_now() {
	atomic {
		over = true;
#ifndef MUTATION_END_KEEPS_LOCKS
		held = false;
#endif
		waits = false
	}
}

inline put(last) {
	if
#ifdef MUTATION_FULL_QUEUE_DROPS
	:: atomic { nfull(queue) -> queue!last }
	:: full(queue)
#else
	:: queue!last
#endif
	:: over
	fi
}

proctype reader() {
	mtype m;
	bool serving = false, answer = false, last = false;
end:	do
	:: over -> break
	:: atomic { !over && nempty(requests) -> requests?m;
		answer = true;
		if
		:: !serving && m != HELLO -> over_now()
#ifndef MUTATION_SECOND_HELLO
		:: serving && m == HELLO -> over_now()
#else
		:: serving && m == HELLO
#endif
		:: !serving && m == HELLO -> serving = true
		:: serving && m == LOCK && !held && !waits && taken -> waits = true; answer = false
		:: serving && m == LOCK && !held && !waits && !taken -> held = true
		:: serving && m == LOCK && (held || waits) /* refused: it is the session's already */
		:: serving && m == UNLOCK -> held = false
		:: serving && m == QUIT -> last = true
		fi;
		m = NONE }
		if
		:: answer -> answer = false; put(last)
		:: else /* the other part answers it */
		fi;
		if
		:: last -> break
		:: else
		fi
	od;
	running--
}

/* the goroutine of a lock request that waits */
proctype waiter() {
end:	do
	:: over -> break
	:: atomic { granted > 0 -> granted-- }; put(false)
	od;
	running--
}

proctype writer() {
	bool last;
end:	do
	:: over -> break
	:: atomic { nempty(queue) && nfull(replies) -> queue?last; replies!last }
		if
		:: last -> over_now(); break
		:: else
		fi
#ifndef MUTATION_NO_SEND_DEADLINE
	:: nempty(queue) && full(replies) && !(reads && alive) -> over_now(); break
#endif
	od;
	running--
}

proctype watcher() {
end:	if
	:: over
#ifndef MUTATION_NO_WATCH
	:: !alive -> over_now()
#endif
	fi;
	running--
}

proctype closer() {
	bool last;
end:	running == 0;
	atomic {
		do
		:: queue?last
		:: empty(queue) -> break
		od;
		granted = 0;
		closed = true
	}
}

proctype neighbour() {
end:	do
	:: atomic { !taken && !held && !waits -> taken = true }
	:: atomic { taken ->
		taken = false;
		if
#ifdef MUTATION_GRANT_AFTER_END
		:: waits || over -> waits = false; held = true; granted++
		:: else
#else
		:: waits -> waits = false; held = true; granted++
		:: else
#endif
		fi }
	od
}

proctype client() {
	mtype m;
	byte sent;
end:	do
	:: atomic { sent < REQUESTS && !closed && nfull(requests) ->
		if
		:: m = HELLO
		:: m = LOCK
		:: m = UNLOCK
		:: m = QUIT
		fi;
		requests!m;
		sent++;
		owed++;
		if
		:: (m == HELLO) == greeted -> wrong = true
		:: else
		fi;
		greeted = true;
		if
		:: m == QUIT -> sent = REQUESTS
		:: else
		fi;
		m = NONE }
	:: atomic { reads && nempty(replies) -> replies?_; owed-- }
	:: atomic { closed && (empty(replies) || !reads) -> owed = 0; break }
	:: fate == DIES -> break
	:: fate == GOES_DEAF && reads -> reads = false
	od;
	alive = false
}

init {
	atomic {
		if
		:: fate = LIVES
		:: fate = DIES
		:: fate = GOES_DEAF
		fi;
		run reader();
		run waiter();
		run writer();
		run watcher();
		run closer();
		run neighbour();
		run client()
	}
}

#define clean (closed && !held && !waits && granted == 0 && len(queue) == 0)

ltl answered { [] (owed > 0 -> <> (owed == 0 || !alive || !reads)) }
ltl order { [] (wrong -> <> closed) }
ltl nothing_left { [] ((!alive || over) -> <> clean) }
