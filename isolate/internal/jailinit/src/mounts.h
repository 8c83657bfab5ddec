/* The steps of the init side that mount, and that name what was mounted. init.c includes it, behind its
 * state. */

/* The folder that a step's path is relative to. */
static int base_of(struct state *s, const struct step *o) {
	return o->e ? s->slot[o->e] : AT_FDCWD;
}

/* A path that somebody else may have put links into: / and ".." are those of the folder that it is relative
 * to.
 */
static long open_in_root(int base, at path, uint32_t flags) {
	struct open_how how;
	long r = -EAGAIN;
	zero(&how, sizeof how);
	how.flags = O_PATH | O_CLOEXEC;
	how.resolve =
	    RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS | (flags & STEP_NO_LINKS ? RESOLVE_NO_SYMLINKS : 0);
	/* ".." is EAGAIN while something is moved or mounted, anywhere on the machine */
	for (int n = 0; n < 100 && r == -EAGAIN; n++)
		r = S(SYS_openat2, base, path, &how, sizeof how);
	return r;
}

/* Puts the mount m on the step's path s2. Where a hostile tree lies on the way, the path is resolved once, to
 * the fd that is mounted on. */
static long attach(struct state *s, const struct step *o, int m) {
	char none = 0;
	long to, r;
	if (!(o->flags & (STEP_IN_ROOT | STEP_NO_LINKS)))
		return S(SYS_move_mount, m, &none, base_of(s, o), o->s2, MOVE_MOUNT_F_EMPTY_PATH);
	if ((to = open_in_root(base_of(s, o), o->s2, o->flags)) < 0)
		return to;
	r = S(SYS_move_mount, m, &none, to, &none, MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH);
	S(SYS_close, to);
	return r;
}

static long new_mount(at type, const at *options, uint64_t attributes) {
	long fs = S(SYS_fsopen, type, FSOPEN_CLOEXEC), r = 0;
	if (fs < 0)
		return fs;
	for (const at *p = options; p && p[0] && r == 0; p += 2)
		r = *(str)p[1] ? S(SYS_fsconfig, fs, FSCONFIG_SET_STRING, p[0], p[1], 0)
			       : S(SYS_fsconfig, fs, FSCONFIG_SET_FLAG, p[0], 0, 0);
	if (r == 0 && (r = S(SYS_fsconfig, fs, FSCONFIG_CMD_CREATE, 0, 0, 0)) == 0)
		r = S(SYS_fsmount, fs, FSMOUNT_CLOEXEC, attributes);
	S(SYS_close, fs);
	return r;
}

/* A new root is mounted over the old one: / is always there to mount on. Absolute paths go on naming the
 * old root, since a path's walk does not cross a mount on its own start; relative ones name the new root. */
static long make_fs(struct state *s, const struct step *o) {
	long m = new_mount(o->s1, (const at *)o->s3, o->a), r = 0;
	if (m < 0)
		return m;
	if (o->s2)
		r = attach(s, o, m);
	if (r == 0 && o->op == OP_ROOT)
		r = S(SYS_fchdir, m);
	if (r == 0 && o->keep)
		return s->slot[o->keep] = m;
	S(SYS_close, m);
	return r;
}

static long mount_id(int base, at path, int flags, uint64_t *id) {
	struct statx x;
	long r = S(SYS_statx, base, path, flags, STATX_MNT_ID, &x);
	if (r < 0)
		return r;
	*id = x.stx_mnt_id;
	return x.stx_mask & STATX_MNT_ID ? 0 : -EOPNOTSUPP;
}

/* pivot_root(".", "."): the old root lands on top of the new one, with what was mounted on it before the new
 * one, and is taken off from the top; no folder is needed for it. Left there, it would be "/..". */
static long pivot(const struct step *o) {
	char up[3];
	uint64_t here = 0, above = 0;
	long r = S(SYS_pivot_root, o->s1, o->s1);
	for (uint64_t n = 0; r == 0 && n <= o->a; n++)
		r = S(SYS_umount2, o->s1, MOUNT_DETACH);
	if (r < 0 || (r = S(SYS_chdir, o->s2)) < 0)
		return r;
	((volatile char *)up)[0] = ((volatile char *)up)[1] = '.', ((volatile char *)up)[2] = 0;
	if ((r = mount_id(AT_FDCWD, o->s1, 0, &here)) < 0 || (r = mount_id(AT_FDCWD, (at)up, 0, &above)) < 0)
		return r;
	return here == above ? 0 : -EXDEV;
}

/* The file that a path names must still be the one that the Plan was made for. */
static long same_file(int fd, uint64_t dev, uint64_t ino) {
	struct statx x;
	char none = 0;
	long r;
	if (!ino)
		return 0;
	if ((r = S(SYS_statx, fd, &none, AT_EMPTY_PATH, STATX_INO, &x)) < 0)
		return r;
	uint64_t d = (x.stx_dev_major & 0xfffUL) << 8 | (x.stx_dev_minor & 0xffUL) |
		     (x.stx_dev_minor & ~0xffUL) << 12 | (uint64_t)(x.stx_dev_major & ~0xfffU) << 32;
	return d == dev && x.stx_ino == ino ? 0 : -ESTALE;
}

static long mount_fs(const struct step *o) {
	char dot[2];
	long root, to, r;
	if (!(o->flags & STEP_IN_ROOT))
		return S(SYS_mount, o->s1, o->s2, o->s3, o->a, o->s4);
	/* mount(2) takes a path: that of the working folder says which one without being resolved again */
	((volatile char *)dot)[0] = '.', ((volatile char *)dot)[1] = 0;
	if ((root = S(SYS_openat, AT_FDCWD, dot, O_PATH | O_CLOEXEC)) < 0)
		return root;
	if ((r = to = open_in_root(AT_FDCWD, o->s2, o->flags)) >= 0) {
		if ((r = S(SYS_fchdir, to)) == 0) {
			r = S(SYS_mount, o->s1, dot, o->s3, o->a, o->s4);
			long back = S(SYS_fchdir, root);
			if (r == 0)
				r = back;
		}
		S(SYS_close, to);
	}
	S(SYS_close, root);
	return r;
}

static long bind_path(struct state *s, const struct step *o) {
	char none = 0;
	int recursive = o->flags & STEP_RECURSIVE ? AT_RECURSIVE : 0;
	long r, tree = S(SYS_open_tree, AT_FDCWD, o->s1, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | recursive);
	if (tree < 0)
		return tree;
	if ((r = same_file(tree, o->b, o->c)) < 0)
		goto out;
	if (o->a || o->d) {
		struct mount_attr m;
		zero(&m, sizeof m);
		m.attr_set = o->a;
		if (o->d) {
			m.attr_set |= MOUNT_ATTR_IDMAP;
			m.userns_fd = s->slot[o->d];
		}
		if ((r = S(SYS_mount_setattr, tree, &none, AT_EMPTY_PATH | recursive, &m, sizeof m)) < 0)
			goto out;
	}
	if (o->s2)
		r = attach(s, o, tree);
	if (r == 0 && o->flags & STEP_ENTER)
		r = S(SYS_fchdir, tree);
	if (r == 0 && o->keep)
		return s->slot[o->keep] = tree;
out:
	S(SYS_close, tree);
	return r;
}

/* Closes what a path names: a file by /dev/null, a folder by an empty one, or, read-only, by itself. What is
 * not there needs nothing. Both sides are proven before they meet: an image or a racer may have put something
 * else in the place of /proc (CVE-2019-16884, CVE-2025-52881) or of /dev/null (CVE-2025-31133). */
static long mask(struct state *s, const struct step *o) {
	char none = 0;
	struct statx x;
	struct mount_attr attributes;
	uint64_t fs[16]; /* struct statfs */
	const uint64_t closed = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC;
	long m, r, to = open_in_root(base_of(s, o), o->s1, o->flags);
	if (to == -ENOENT)
		return 0;
	if (to < 0)
		return to;
	if ((r = S(SYS_fstatfs, to, fs)) == 0 && o->a && fs[0] != o->a)
		r = -ESTALE;
	if (r < 0 || (r = S(SYS_statx, to, &none, AT_EMPTY_PATH, STATX_TYPE, &x)) < 0)
		goto out;
	if (o->flags & STEP_READ_ONLY) {
		m = S(SYS_open_tree, to, &none,
		      OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH | AT_RECURSIVE);
	} else if ((x.stx_mode & S_IFMT) == S_IFDIR) {
		m = new_mount(o->s3, (const at *)o->s4, closed);
	} else if ((m = S(SYS_open_tree, AT_FDCWD, o->s2, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC)) >= 0) {
		r = S(SYS_statx, m, &none, AT_EMPTY_PATH, STATX_TYPE, &x);
		if (r == 0 &&
		    ((x.stx_mode & S_IFMT) != S_IFCHR || x.stx_rdev_major != 1 || x.stx_rdev_minor != 3))
			r = -ESTALE;
		if (r < 0)
			goto close;
	}
	if ((r = m) < 0)
		goto out;
	zero(&attributes, sizeof attributes);
	attributes.attr_set = closed;
	if ((r = S(SYS_mount_setattr, m, &none, AT_EMPTY_PATH | AT_RECURSIVE, &attributes,
		   sizeof attributes)) == 0)
		r = S(SYS_move_mount, m, &none, to, &none, MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH);
close:
	S(SYS_close, m);
out:
	S(SYS_close, to);
	return r;
}

/* Who may rename or remove a mount point on the host takes our mount from its place with it. */
static long check_mount(struct state *s, const struct step *o) {
	char none = 0;
	uint64_t have = 0, want = 0;
	long r, f = open_in_root(AT_FDCWD, o->s1, STEP_NO_LINKS);
	if (f < 0)
		return f == -ENOENT || f == -ELOOP || f == -ENOTDIR ? -ESTALE : f;
	if ((r = mount_id(f, (at)&none, AT_EMPTY_PATH, &have)) == 0 &&
	    (r = mount_id(s->slot[o->a], (at)&none, AT_EMPTY_PATH, &want)) == 0 && have != want)
		r = -ESTALE;
	S(SYS_close, f);
	return r;
}

static long change_dir(const struct step *o) {
	if (!(o->flags & STEP_IN_ROOT))
		return S(SYS_chdir, o->s1);
	/* no magic link: /proc/self/fd would be jail-init's own (CVE-2024-21626) */
	long f = open_in_root(AT_FDCWD, o->s1, o->flags), r;
	if (f < 0)
		return f;
	r = S(SYS_fchdir, f);
	S(SYS_close, f);
	return r;
}
