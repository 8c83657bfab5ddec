// Tells what a payload finds: of each file that is named, whether it can be read and then whether it can be
// written to; and of itself what the kernel says. It waits for the end of its input then.
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static int byName(const void *a, const void *b) {
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static void list(const char *path) {
	char *names[256];
	int n = 0;
	DIR *d = opendir(path);
	if (!d) {
		printf("E%d", errno);
		return;
	}
	for (struct dirent *e; (e = readdir(d)) && n < 256;)
		if (strcmp(e->d_name, ".") && strcmp(e->d_name, ".."))
			names[n++] = strdup(e->d_name);
	closedir(d);
	qsort(names, n, sizeof *names, byName);
	printf("=");
	for (int i = 0; i < n; i++) {
		printf(i ? ",%s" : "%s", names[i]);
		free(names[i]);
	}
}

static void content(const char *path) {
	char text[65] = "";
	int fd = open(path, O_RDONLY | O_NONBLOCK);
	if (fd < 0 || read(fd, text, sizeof text - 1) < 0)
		printf("E%d", errno);
	else
		printf("=%.*s", (int)strcspn(text, "\n\t"), text);
	if (fd >= 0)
		close(fd);
}

static char kind(const char *path) {
	struct stat st;
	if (lstat(path, &st))
		return errno == ENOENT || errno == ENOTDIR ? '-' : 'E';
	switch (st.st_mode & S_IFMT) {
	case S_IFDIR:
		return 'd';
	case S_IFREG:
		return 'f';
	case S_IFLNK:
		return 'l';
	case S_IFCHR:
		return 'c';
	}
	return '?';
}

static int writable(const char *path, int i) {
	char made[8192];
	int fd, err = 0;
	switch (kind(path)) {
	case 'd':
		snprintf(made, sizeof made, "%s/made-%d", path, i);
		fd = open(made, O_WRONLY | O_CREAT | O_EXCL, 0666);
		break;
	case 'f':
		fd = open(path, O_WRONLY | O_APPEND);
		break;
	case 'c':
		fd = open(path, O_RDWR | O_NOCTTY);
		break;
	default:
		return ENOENT;
	}
	if (fd < 0)
		return errno;
	if (write(fd, "+", 1) != 1)
		err = errno;
	close(fd);
	return err;
}

int main(int argc, char **argv) {
	for (int fd = 0; fd < 1024; fd++)
		if (fcntl(fd, F_GETFD) >= 0)
			printf("@fd\t%d\n", fd);
	for (int i = 1; i < argc; i++) {
		char k = kind(argv[i]), to[256];
		printf("%s\t%c\t", argv[i], k);
		ssize_t n;
		if (k == 'd')
			list(argv[i]);
		else if (k == 'f')
			content(argv[i]);
		else if (k == 'l' && (n = readlink(argv[i], to, sizeof to)) > 0)
			printf("=%.*s", (int)n, to);
		printf("\n");
	}
	for (int i = 1; i < argc; i++)
		printf("+%s\t%d\n", argv[i], writable(argv[i], i));

	char line[4096];
	static const char *const files[] = {"status", "uid_map", "cgroup"};
	for (int i = 0; i < 3; i++) {
		snprintf(line, sizeof line, "/proc/self/%s", files[i]);
		FILE *f = fopen(line, "r");
		while (f && fgets(line, sizeof line, f)) {
			line[strcspn(line, "\n")] = 0;
			printf("@%s\t%s\n", files[i], line);
		}
		if (f)
			fclose(f);
	}
	static const char *const spaces[] = {"cgroup", "ipc", "mnt", "net", "pid", "user", "uts"};
	for (int i = 0; i < 7; i++) {
		char path[64];
		snprintf(path, sizeof path, "/proc/self/ns/%s", spaces[i]);
		ssize_t n = readlink(path, line, sizeof line - 1);
		printf("@ns\t%s %.*s\n", spaces[i], n > 0 ? (int)n : 0, line);
	}
	struct if_nameindex *ifs = if_nameindex();
	for (int i = 0; ifs && ifs[i].if_index; i++)
		printf("@if\t%s\n", ifs[i].if_name);
	if (!ifs)
		printf("@if\tE%d\n", errno);
	for (int i = 0; i < 16; i++) {
		struct rlimit l;
		if (!getrlimit(i, &l))
			printf("@rlimit\t%d %llu %llu\n", i, (unsigned long long)l.rlim_cur,
			       (unsigned long long)l.rlim_max);
	}
	gethostname(line, sizeof line);
	printf("@hostname\t%s\n", line);
	printf("@leader\t%d\n", getsid(0) == getpid());
	printf("@parent\t%d\n", getppid());
	printf("@ids\t%d %d\n", getuid(), getgid());
	fflush(stdout);
	pid_t child = fork();
	if (!child)
		_exit(unshare(CLONE_NEWUSER) ? errno : 0);
	int status = -1;
	waitpid(child, &status, 0);
	printf("@newuser\t%d\n", WIFEXITED(status) ? WEXITSTATUS(status) : -1);
	printf("end\n");
	fflush(stdout);
	while (read(0, line, sizeof line) > 0)
		;
	return 0;
}
