/*
 * The mutex (../mutex.go): one word that holds the owner, "somebody may sleep" and "poisoned". Three processes lock and
 * unlock; two of them may die between any two steps, the third may give a wait up. A death is what the others can see:
 * the kernel has closed the dead process's files.
 *
 * Shown:
 *   - mutual exclusion, the dead excepted (assert at `taken`);
 *   - a Lock is poisoned if and only if an owner died and nobody has called Recover since: no death is missed, none is
 *     reported twice (assert at `taken`);
 *   - a mutex is only ever taken from the free or the dead (assert at `taken`);
 *   - without deaths, and without the looks every 100 ms, no wake-up is lost (an invalid end state);
 *   - with deaths and looks, whoever lives gets the mutex (ltl ends).
 */
#define N 3

/* the word */
byte owner;
bit waiters, poisoned;
#define is(o, w, p) (owner == (o) && waiters == (w) && poisoned == (p))

bool dead[N + 1], sleeping[N + 1];
bool looks; /* deaths and looks, or neither */

/* ghosts */
byte inside;     /* who is in the critical section, or died there */
bool owed;       /* an owner's death that no Lock has returned yet */
bool unrepaired; /* one that was returned, without a Recover since */

inline wake_one() {
	if
	:: sleeping[1] -> sleeping[1] = false
	:: sleeping[2] -> sleeping[2] = false
	:: sleeping[3] -> sleeping[3] = false
	:: else
	fi
}

/*
 * CAS from the free word, or from what it was when its owner o was found dead, to me. A CAS that fails changes nothing and
 * is tried again with what the word is now, so reading a free word and taking it are one step here.
 */
inline take(possible, flag) {
	if
	:: possible ->
		got = poisoned || owner != 0;
		assert(owner == 0 || dead[owner]);
		assert(inside == 0 || (dead[inside] && inside == owner));
		assert(got == (owed || unrepaired)); /* taken */
		owner = me;
		waiters = waiters || flag;
		poisoned = got;
		unrepaired = got;
		owed = false;
		inside = me;
		ok = true
	:: else
	fi
}

inline lock() {
	do
	:: ok -> break
	:: else ->
		d_step {
			if
			:: owner == 0 ->
#ifdef MUTATION_WAITERS_FORGOTTEN
				take(true, 0)
#else
				take(true, slept)
#endif
			:: else -> /* announce */
				waiters = 1;
				o = owner;
				p = poisoned
			fi
		}
		if
		:: ok
		:: else ->
			d_step { /* futex: sleeps only while the word is the one that was announced */
				sleeping[me] = is(o, 1, p);
				slept = true
			}
			if
			:: !sleeping[me]
			:: looks -> sleeping[me] = false
			:: me == 3 && !looks -> /* its context is done */
				sleeping[me] = false;
#ifndef MUTATION_WAKE_KEPT_BY_CANCELLED
				wake_one();
#endif
				goto out
			fi;
#ifndef MUTATION_DEATH_NOT_LOOKED_AT
			if
			:: dead[o] ->
				d_step {
#ifdef MUTATION_TAKEOVER_WITHOUT_CAS
					take(true, 1)
#else
					take(is(o, 1, p), 1)
#endif
				}
			:: else
			fi;
#endif
			d_step {
				o = 0;
				p = 0
			}
		fi
	od
}

inline unlock() {
	d_step {
		assert(owner == me && inside == me);
		slept = waiters;
		owner = 0;
		waiters = 0;
#ifdef MUTATION_UNLOCK_CLEARS_POISON
		poisoned = 0;
#endif
		inside = 0
	}
	if
	:: slept -> wake_one()
	:: else
	fi
}

proctype P(byte me; byte rounds) {
	byte o;
	bit p;
	bool ok, got, slept;
	{
		do
		:: rounds > 0 ->
			rounds--;
			lock();
			if /* repairs what it guards, or does not */
			:: got -> d_step { poisoned = 0; unrepaired = false; got = false }
			:: got = false
			fi;
#ifdef MUTATION_SIGNED_LATER
			owner = 0; /* the word says "locked", and by whom only one step later */
			owner = me;
#endif
			unlock();
out:			skip;
			d_step {
				slept = false; ok = false; o = 0; p = 0
			}
		:: else -> break
		od;
		dead[me] = true /* an orderly end closes files too */
	} unless {
		d_step { /* what the dead remember would tell equal states apart */
			dead[me] -> o = 0; p = 0; rounds = 0; ok = false; got = false; slept = false
		}
	}
}

inline die(victim) {
	d_step {
		dead[victim] = true;
		sleeping[victim] = false;
		if
		:: owner == victim -> owed = true
		:: else
		fi
	}
}

proctype Killer() {
	do
	:: !dead[2] -> die(2)
	:: !dead[3] -> die(3)
	:: break
	od
}

init {
	atomic {
		run P(2, 1);
		run P(3, 1);
		if
		:: looks = true; run P(1, 1); run Killer()
		:: run P(1, 2)
		fi
	}
}

ltl ends { <> (dead[1]) }
