/* The Plan as jail-init sees it, and the records that travel between it and the launcher. The Go mirror of
 * this file is ../wire_unsafe.go; a test compares the two. */
#ifndef PLAN_H
#define PLAN_H

#include <stdint.h>

/* The Plan is one block of memory that jail-init maps here; every `at` in it is an address in that block. */
#define PLAN_AT 0x10000000UL
typedef uint64_t at; /* 0 is none */

enum op {
	/* init side */
	OP_WRITE = 1,  /* write s2 (a bytes) to the existing file s1 */
	OP_OWN_MOUNTS, /* fail unless our mount namespace, s1, is another than that of inode a */
	OP_SUBREAPER,  /* orphans of the payload become ours */
	OP_CHILDREN,   /* keep an fd of our own list of children */
	OP_ASIDE,      /* a child that shares our memory and fds does the b steps of group a meanwhile */
	OP_JOIN,       /* wait for the child of group a */
	OP_UNSHARE,    /* new namespaces a */
	OP_SETNS,      /* enter the namespace in slot a */
	OP_OPEN,       /* open s1 in slot a */
	OP_WRITE_SLOT, /* write s2 to the file that slot a holds */
	OP_ENTER,      /* the same as OP_WRITE; our CPU time counts from now on */
	OP_DUMPABLE,   /* /proc/self is ours again after a change of uid */
	OP_LO_UP,      /* bring the network device s1 up */
	OP_HOSTNAME,   /* s1, a bytes */
	OP_ROOT,       /* file system s1 over s2, and the working folder in it; s3 lists key, value, … */
	OP_FS,	       /* the same on s2, or on nothing */
	OP_ATTACH,     /* mount what slot a holds on s2 */
	OP_MASK,       /* cover s1, if it is there, in the file system of magic number a (0 is any) */
	OP_CHECK,      /* fail unless s1 is the mount that slot a holds */
	OP_PIVOT,      /* the working folder becomes /, the old root and a mounts on it go */
	OP_MOUNT,      /* mount s1 on s2, type s3, flags a, data s4 */
	OP_SETATTR,    /* mount_setattr s1: set a, propagation b */
	OP_BIND,  /* bind s1 on s2, or on nothing; attributes a, expected device b and inode c, id map in slot
		     d */
	OP_MKDIR, /* s1, mode a, owner b:c */
	OP_SYMLINK, /* s2 → s1 */
	OP_MKNOD,   /* s1, mode a, device b, owner c:d */
	OP_FILE,    /* make s1, mode a, owner b:c, content from the fd in slot d */
	OP_UNLINK,  /* remove s1; flags as unlinkat(2) */
	OP_CHDIR,   /* s1 */
	OP_RULESET, /* Landlock ruleset: file rights a, network rights b, scopes c, d bytes */
	OP_ALLOW,   /* Landlock rule: s1 with the rights a; expected device b and inode c */
	OP_BARRIER, /* wait until the launcher has done its steps */
	/* payload side */
	OP_SETSID,
	OP_RLIMIT,    /* resource a: soft b, hard c */
	OP_BOUNDING,  /* drop all but a from the bounding set */
	OP_GROUPS,    /* the a groups at s1 */
	OP_GID,	      /* a */
	OP_UID,	      /* a; capabilities are kept until OP_CAPS */
	OP_CAPS,      /* permitted and effective a; b of them inheritable and ambient */
	OP_NNP,	      /* no_new_privs */
	OP_RESTRICT,  /* enter the Landlock ruleset */
	OP_PDEATHSIG, /* die when jail-init dies */
	OP_ALIVE,     /* are jail-init and the launcher still there? */
	OP_SIGNALS,   /* ignore the signals of the set a, the default for all others */
	OP_FILTER,    /* seccomp filter of a instructions at s1, loaded with the flags b */
	OP_MONITOR,   /* the same; its listener goes to the launcher, with c a socket as well
			 that listens in our network */
	OP_TRY,	      /* all went well: end here */
	OP_EXEC,      /* the first of the files s1 that can be run, arguments s2, environment s3, mask a */
};

enum step_flags {
	STEP_RECURSIVE = 1, /* OP_BIND, OP_SETATTR: the mounts below as well */
	STEP_IN_ROOT = 2,   /* the path lies in a shown folder: resolve it in our root */
	STEP_NO_LINKS = 4,  /* the same, and no component may be a link */
	STEP_ENTER = 8, /* OP_BIND: s2 is the old root; the working folder is in what is bound from now on */
	STEP_READ_ONLY = 16 /* OP_MASK: leave it readable */
};

struct step {
	uint32_t op, flags;
	uint32_t index; /* its number in the whole Plan, for reports */
	uint32_t keep;	/* slot for the mount that is made; 0 is none */
	uint64_t a, b, c, d;
	uint64_t e; /* slot of the folder that the path is relative to; 0 is the working folder */
	at s1, s2, s3, s4;
};

enum plan_flags {
	PLAN_PIDNS = 1,	   /* jail-init is PID 1: its end is the jail's end */
	PLAN_KEEP_KILL = 2 /* the payload has another uid: keep CAP_KILL, else no signal passes */
};

struct plan {
	uint64_t size;
	uint32_t flags;
	uint32_t ninit, npayload;
	uint32_t npass;			/* fds below this are the payload's */
	uint32_t fail_step, fail_errno; /* test mode: this step fails; counted from 1 */
	at init, payload;
	at aside; /* steps of all groups */
};

/* a failure between the steps */
#define NO_STEP 0xffffffffU

/* jail-init → launcher */
enum record_kind {
	RECORD_BARRIER = 1,
	RECORD_FAILED,
	RECORD_TRIED,
	RECORD_STARTED,
	RECORD_ENDED,
	RECORD_LISTENER /* with the fds of OP_MONITOR */
};
struct record {
	uint32_t kind, step;
	int32_t err;	 /* RECORD_FAILED: errno */
	int32_t status;	 /* RECORD_ENDED: as wait4 gives it; RECORD_STARTED: the payload's pid; RECORD_FAILED
			    at OP_EXEC: which of the candidates */
	int64_t time_us; /* when, by CLOCK_MONOTONIC */
	/* RECORD_STARTED, RECORD_ENDED: of all processes waited for until then */
	int64_t user_us, system_us, max_rss_kb;
	int64_t self_user_us, self_system_us; /* of jail-init */
	int64_t outside_us;		      /* user and system, before the last OP_ENTER */
};

/* launcher → jail-init */
enum order_kind { ORDER_GO = 1, ORDER_SIGNAL, ORDER_KILL };
struct order {
	uint32_t kind, signo;
	uint32_t group;	 /* to the payload's whole process group */
	uint32_t queued; /* with the value, as sigqueue(3) */
	int64_t value;
};

/* what launch.c is asked to do */
enum { MAX_FDS = 256, MAX_KEPT = 17 };
/* slots: the Plan, the socket, the launcher, two claims that last as long as the jail; then what steps need;
 * behind what the launcher gives, mounts */
enum { FIRST_FREE_SLOT = 5, MAX_SLOTS = 80 };
enum { MAX_ASIDE = 6 };
struct launch {
	uint64_t flags;	   /* CLONE_NEW…, CLONE_INTO_CGROUP */
	int32_t image;	   /* the sealed jail-init */
	int32_t ambient;   /* carry capabilities over the exec */
	int32_t no_clone3; /* use clone(2) */
	int32_t cgroup;	   /* with CLONE_INTO_CGROUP: the folder of the cgroup */
	int32_t npass, nkept;
	int32_t src[MAX_FDS], dst[MAX_FDS]; /* the payload's fds: dst is a copy of src */
	int32_t kept[MAX_KEPT];		    /* jail-init's own: plan, socket, launcher's pidfd, then slots */
	int32_t pid, pidfd;		    /* out */
	int32_t stage;			    /* out: what failed, enum launch_stage */
};
enum launch_stage { LAUNCH_CLONE = 1, LAUNCH_FDS, LAUNCH_EXEC };

#endif
