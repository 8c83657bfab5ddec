#!/bin/bash
# PID 1 of the guest: runs the suites, then powers off. What to run is in /out/job,
# and what it gives goes to /out too: output and exit code of each suite, and what was covered.
set -euo pipefail
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
trap 'sync; echo o >/proc/sysrq-trigger; while :; do :; done' EXIT
users='' suites='' only='' go_path='' # /out/job has them
# shellcheck source=/dev/null
. /out/job

prepare() {
	mount -t tmpfs -o mode=755 run /run
	mkdir -p /dev/pts /dev/shm /dev/mqueue
	mount -t devpts -o gid=5,mode=620,ptmxmode=666 pts /dev/pts
	mount -t tmpfs -o mode=1777 shm /dev/shm
	mount -t mqueue mqueue /dev/mqueue
	busybox ip link set lo up
	hostname vm
	mount -t cgroup2 cgroup2 /sys/fs/cgroup
	local dir=/sys/fs/cgroup
	for dir in "$dir" "$dir/user"; do
		mkdir -p "$dir"
		echo +cpuset +cpu +io +memory +pids >"$dir/cgroup.subtree_control"
	done
	# The delegated subtree: what cgroups(7) says that the user must own; its shell is in a leaf of it.
	mkdir "$dir/shell"
	chown 1000:1000 "$dir"/{,cgroup.procs,cgroup.threads,cgroup.subtree_control} "$dir"/shell{,/cgroup.procs,/cgroup.threads,/cgroup.subtree_control}
}

as_root() { "$@"; }

as_user() { # COMMAND…: in a delegated cgroup
	(echo "$BASHPID" >/sys/fs/cgroup/user/shell/cgroup.procs && exec setpriv --reuid 1000 --regid 1000 --clear-groups "$@")
}

built=/repo/bin/vm/amd64-built
export JAIL_TEST_BUILT=$built/command GOCOVERDIR=/var/tmp/cover HOME
prepare
PATH=$PATH:$go_path /repo/scripts/provision.sh
mkdir -m 777 "$GOCOVERDIR"
for user in $users; do
	if [ "$user" = root ]; then HOME=/root; else HOME=$(getent passwd 1000 | cut -d: -f6); fi
	for suite in $suites; do
		begin=$SECONDS code=0
		raw=/out/$user/${suite//\//-}.raw
		cd "/repo/$suite"
		"as_$user" "$built/${suite//\//-}.test" -test.v=test2json -test.timeout=10m \
			-test.run="$only" -test.gocoverdir="$GOCOVERDIR" >"$raw" 2>&1 </dev/null || code=$?
		if [ $code != 0 ]; then printf 'exit code %s\n\x16FAIL\n' $code >>"$raw"; fi
		printf '%s, %s: exit code %s after %s s\n' "$suite" "$user" $code $((SECONDS - begin))
	done
done
cp -r "$GOCOVERDIR" /out/
touch /out/ended
