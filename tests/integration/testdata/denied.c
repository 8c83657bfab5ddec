// denied WORD…: makes calls that a jail refuses, and prints a line for each: its words and how it ended.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

static int open_as(const char *how, const char *path) {
	if (!strcmp(how, "read"))
		return open(path, O_RDONLY);
	if (!strcmp(how, "write"))
		return open(path, O_WRONLY);
	if (!strcmp(how, "create"))
		return open(path, O_WRONLY | O_CREAT, 0600);
	if (!strcmp(how, "path"))
		return open(path, O_PATH);
	if (!strcmp(how, "openat2")) {
		struct open_how h = {.flags = O_RDWR};
		return syscall(SYS_openat2, AT_FDCWD, path, &h, sizeof h);
	}
	if (!strcmp(how, "below")) { // relative to the folder's fd
		char dir[4096];
		snprintf(dir, sizeof dir, "%s", path);
		char *slash = strrchr(dir, '/');
		*slash = 0;
		int d = open(dir, O_PATH);
		return openat(d, slash + 1, O_RDONLY);
	}
	if (!strcmp(how, "mkdir"))
		return mkdir(path, 0700);
	if (!strcmp(how, "rmdir"))
		return rmdir(path);
	if (!strcmp(how, "unlink"))
		return unlink(path);
	if (!strcmp(how, "symlink"))
		return symlink("x", path);
	if (!strcmp(how, "link"))
		return link(path, "linked");
	if (!strcmp(how, "linkto"))
		return link("mine", path);
	if (!strcmp(how, "rename"))
		return rename(path, "renamed");
	if (!strcmp(how, "renameto"))
		return rename("mine", path);
	fprintf(stderr, "no way %s\n", how);
	exit(99);
}

static int connect_to(const char *where) {
	struct sockaddr_un u = {.sun_family = AF_UNIX};
	struct sockaddr_in i = {.sin_family = AF_INET, .sin_port = htons(9)};
	if (where[0] == '@' || where[0] == '/') {
		strncpy(u.sun_path, where, sizeof u.sun_path - 1);
		if (where[0] == '@')
			u.sun_path[0] = 0;
		return connect(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), (struct sockaddr *)&u,
			       sizeof(sa_family_t) + strlen(where));
	}
	inet_pton(AF_INET, where, &i.sin_addr);
	return connect(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), (struct sockaddr *)&i, sizeof i);
}

static int send_to(const char *where) {
	struct sockaddr_in i = {.sin_family = AF_INET, .sin_port = htons(9)};
	inet_pton(AF_INET, where, &i.sin_addr);
	return sendto(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), "x", 1, 0, (struct sockaddr *)&i,
		      sizeof i);
}

static int answer(const char *what, const char *word, long r) {
	int e = errno;
	printf("%s %s %s\n", what, word, r < 0 ? strerrorname_np(e) : "ok");
	return fflush(stdout);
}

static volatile int flipping = 1;
static char flipped[2][256], path[256];

static void *flip(void *unused) {
	for (int n = 0; flipping; n++)
		memcpy(path, flipped[n & 1], sizeof path);
	return unused;
}

// opens a path that another thread changes meanwhile; tells how often the second was read
static void race(const char *allowed, const char *denied) {
	pthread_t t;
	char c;
	int secret = 0;
	snprintf(flipped[0], sizeof flipped[0], "%s", allowed);
	snprintf(flipped[1], sizeof flipped[1], "%s", denied);
	pthread_create(&t, NULL, flip, NULL);
	for (int n = 0; n < 3000; n++) {
		int f = open(path, O_RDONLY);
		if (f >= 0 && read(f, &c, 1) == 1 && c == 's')
			secret++;
		close(f);
	}
	flipping = 0;
	pthread_join(t, NULL);
	printf("race %d\n", secret);
}

static void nothing(int sig) {
	(void)sig;
}

int main(int argc, char **argv) {
	const char *what = argv[1];
	for (int i = 2; i < argc; i++) {
		if (!strcmp(what, "connect")) {
			answer(what, argv[i], connect_to(argv[i]));
		} else if (!strcmp(what, "sendto")) {
			answer(what, argv[i], send_to(argv[i]));
		} else if (!strcmp(what, "exec")) {
			char *args[] = {argv[i], NULL};
			answer(what, argv[i], execv(argv[i], args));
		} else if (!strcmp(what, "keyctl")) {
			answer(what, argv[i], syscall(SYS_keyctl, strtol(argv[i], NULL, 0), 0, 0));
		} else if (!strcmp(what, "flood")) {
			char name[64];
			int refused = 0;
			for (int n = 0; n < atoi(argv[i]); n++) {
				snprintf(name, sizeof name, "/usr/lib/made-up-%d", n);
				refused += open(name, O_WRONLY | O_CREAT, 0600) < 0;
			}
			printf("flood %d\n", refused);
		} else if (!strcmp(what, "alarms")) { // opens under a rain of signals
			struct sigaction act = {.sa_handler = nothing, .sa_flags = SA_RESTART};
			struct itimerval often = {{0, 200}, {0, 200}};
			sigaction(SIGALRM, &act, NULL);
			setitimer(ITIMER_REAL, &often, NULL);
			int failed = 0;
			for (int n = 0; n < atoi(argv[i]); n++) {
				int f = open("/etc/passwd", O_RDONLY);
				failed += f < 0;
				close(f);
			}
			printf("alarms %d\n", failed);
		} else if (!strcmp(what, "killed")) { // children that wait in a call, and are killed there
			pid_t child[20];
			int died = 0, st;
			puts("ready");
			fflush(stdout);
			getchar(); // the launcher is stopped
			for (int n = 0; n < 20; n++)
				if ((child[n] = fork()) == 0) {
					open("/usr/lib/made-up", O_WRONLY | O_CREAT, 0600);
					_exit(0);
				}
			usleep(200000);
			for (int n = 0; n < 20; n++)
				kill(child[n], SIGKILL);
			for (int n = 0; n < 20; n++)
				died += waitpid(child[n], &st, 0) > 0 && WIFSIGNALED(st);
			printf("killed %d\n", died);
			fflush(stdout);
			answer("then", "/etc/passwd", open("/etc/passwd", O_RDONLY));
		} else if (!strcmp(what, "race")) {
			race(argv[2], argv[3]);
			break;
		} else {
			answer(what, argv[i], open_as(what, argv[i]));
		}
	}
	return 0;
}
