// lock: a lock taken and given back.
//   mutex  glibc's robust mutex in shared memory, which nobody else wants
//   locks  the same, which two processes fight for
//   flock  flock(2) on a file that stays open
//   ofd    an open file description's lock on such a file
//   open   open, flock, unlock, close
#include "common.h"
#include <fcntl.h>
#include <pthread.h>
#include <sys/file.h>

struct memory {
	pthread_mutex_t mutex;
	uint64_t count; // under mutex
};

static struct memory *m;
static int fd;
static const char *path = "lock";

static void pair(void) {
	if (pthread_mutex_lock(&m->mutex) != 0)
		die("pthread_mutex_lock");
	m->count++;
	pthread_mutex_unlock(&m->mutex);
}

static long mutex(long n) {
	uint64_t before = m->count, done;

	for (long i = 0; i < n; i++)
		pair();
	done = m->count - before;			      // the other's too
	return done == (uint64_t)n && is("locks") ? 0 : done; // nobody fought
}

static void fight(void) {
	for (;;)
		pair();
}

static long flocks(long n) {
	for (long i = 0; i < n; i++) {
		if (flock(fd, LOCK_EX) != 0 || flock(fd, LOCK_UN) != 0)
			die("flock");
	}
	return n;
}

static long ofd(long n) {
	struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET}, unlock = lock;

	unlock.l_type = F_UNLCK;
	for (long i = 0; i < n; i++) {
		if (fcntl(fd, F_OFD_SETLKW, &lock) != 0 || fcntl(fd, F_OFD_SETLKW, &unlock) != 0)
			die("fcntl");
	}
	return n;
}

static long open_each(long n) {
	for (long i = 0; i < n; i++) {
		fd = open(path, O_RDWR | O_CLOEXEC);
		flocks(1);
		close(fd);
	}
	return n;
}

int main(int argc, char **argv) {
	pthread_mutexattr_t attributes;
	pid_t pid = 0;

	arguments(argc, argv);
	m = shared(sizeof(*m));
	pthread_mutexattr_init(&attributes);
	pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
	pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
	pthread_mutex_init(&m->mutex, &attributes);
	if ((fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600)) < 0)
		die(path);
	if (is("mutex")) {
		measure(mutex, 1000);
	} else if (is("locks")) {
		pid = other(fight);
		measure(mutex, 1000);
	} else if (is("flock")) {
		measure(flocks, 10);
	} else if (is("ofd")) {
		measure(ofd, 10);
	} else if (is("open")) {
		measure(open_each, 10);
	} else {
		return 2;
	}
	if (pid > 0)
		end(pid);
	return 0;
}
