#!/bin/bash
# Runs the suites in the guest, then powers off. In the variant without systemd it is PID 1. What to run is in /out/job,
# and what it gives goes to /out too: output and exit code of each suite, and what was covered.
set -euo pipefail
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
trap 'sync; echo o >/proc/sysrq-trigger; while :; do :; done' EXIT
machine='' arch='' users='' suites='' only='' skip='' go_path='' # /out/job has them
# shellcheck source=/dev/null
. /out/job

prepare_own() { # what systemd does in the other variant
	mount -t tmpfs -o mode=755 run /run
	mkdir -p /dev/pts /dev/shm /dev/mqueue
	mount -t devpts -o gid=5,mode=620,ptmxmode=666 pts /dev/pts
	mount -t tmpfs -o mode=1777 shm /dev/shm
	mount -t mqueue mqueue /dev/mqueue
	busybox ip link set lo up
	echo vm >/proc/sys/kernel/hostname
	case $machine in
	v1 | hybrid) cgroups_v1 ;;
	*) cgroups_v2 ;;
	esac
}

cgroups_v2() {
	local dir=/sys/fs/cgroup
	mount -t cgroup2 cgroup2 "$dir"
	for dir in "$dir" "$dir/user"; do
		mkdir -p "$dir"
		echo +cpuset +cpu +io +memory +pids >"$dir/cgroup.subtree_control"
	done
	# The delegated subtree: what cgroups(7) says that the user must own; its shell is in a leaf of it.
	mkdir "$dir/shell"
	chown 1000:1000 "$dir"/{,cgroup.procs,cgroup.threads,cgroup.subtree_control} "$dir"/shell{,/cgroup.procs,/cgroup.threads,/cgroup.subtree_control}
}

cgroups_v1() { # the controllers as systemd mounts them; in hybrid with v2 beside them, without controllers
	local top=/sys/fs/cgroup controllers dir
	mount -t tmpfs -o mode=755 cgroup "$top"
	for controllers in cpu,cpuacct cpuset memory pids blkio freezer devices; do
		dir=$top/$controllers
		mkdir "$dir"
		mount -t cgroup -o "$controllers" cgroup "$dir"
		mkdir -p "$dir/user/shell"
		if [ $controllers = cpuset ]; then
			for dir in "$dir/user" "$dir/user/shell"; do
				cat "$top/cpuset/cpuset.cpus" >"$dir/cpuset.cpus"
				cat "$top/cpuset/cpuset.mems" >"$dir/cpuset.mems"
			done
		fi
		chown 1000:1000 "$top/$controllers"/user/shell{,/cgroup.procs,/tasks}
	done
	ln -s cpu,cpuacct "$top/cpu"
	ln -s cpu,cpuacct "$top/cpuacct"
	if [ "$machine" = hybrid ]; then
		mkdir "$top/unified"
		mount -t cgroup2 cgroup2 "$top/unified"
	fi
}

# without the packages of this machine: who is who
accounts() {
	printf 'root:x:0:0::/root:/bin/bash\ntester:x:1000:1000::/home/tester:/bin/bash\n' >/etc/passwd
	printf 'root:x:0:\ntester:x:1000:\n' >/etc/group
	mkdir -m 700 /home/tester
	chown 1000:1000 /home/tester
}

as_root() { "$@"; }

ordinary=(setpriv --reuid 1000 --regid 1000 --init-groups)

as_user() { # COMMAND…: with a delegated cgroup
	local env=() name procs
	if [ "$machine" = systemd ]; then # a service of the user's own systemd
		for name in PATH HOME JAIL_TEST_BUILT GOCOVERDIR; do env+=(-E "$name=${!name}"); done
		XDG_RUNTIME_DIR=/run/user/1000 "${ordinary[@]}" systemd-run --user --quiet --collect -p Type=oneshot -p TimeoutStartSec=infinity \
			-p WorkingDirectory="$PWD" -p StandardOutput="append:$raw" -p StandardError=inherit "${env[@]}" "$@"
	else
		(
			for procs in /sys/fs/cgroup/{,*/}user/shell/cgroup.procs; do
				if [ -e "$procs" ]; then echo "$BASHPID" >"$procs"; fi
			done
			exec "${ordinary[@]}" "$@"
		)
	fi
}

as_bare() { "${ordinary[@]}" "$@"; }

as_login() { XDG_RUNTIME_DIR=/run/user/1000 "${ordinary[@]}" "$@"; }

printf 'vm: up after %.0f s\n' "$(cut -d ' ' -f 1 /proc/uptime)"
built=/repo/bin/vm/$arch-built
export JAIL_TEST_BUILT=$built/command GOCOVERDIR=/var/tmp/cover HOME
if [ "$machine" != systemd ]; then prepare_own; fi
if [ "$arch" = amd64 ]; then PATH=$PATH:$go_path /repo/scripts/provision.sh; else accounts; fi
# As systemd and a login have it; the kernel's own are low.
ulimit -Hn 524288
ulimit -Hu unlimited
ulimit -i unlimited # 2 GiB of memory give 7800 pending signals; tests queue 9000
mkdir -m 777 "$GOCOVERDIR"
if [ "$machine" = systemd ]; then systemctl start user@1000.service; fi
for user in $users; do
	if [ "$user" = root ]; then HOME=/root; else HOME=$(getent passwd 1000 | cut -d: -f6); fi
	cd /
	raw=/out/$user/levels
	touch "$raw" && chmod 666 "$raw"
	"as_$user" "$JAIL_TEST_BUILT/jail" levels >"$raw" 2>&1
	sed "s/^/vm: $user: /" "$raw"
	for suite in $suites; do
		begin=$SECONDS code=0
		raw=/out/$user/${suite//\//-}.raw
		touch "$raw" && chmod 666 "$raw"
		cd "/repo/$suite"
		args=(-test.v=test2json -test.timeout=10m "-test.skip=$skip" "-test.gocoverdir=$GOCOVERDIR")
		args+=("-test.run=${only:-${part[$machine/$suite]:-${part[$suite]:-.}}}")
		if [ "$suite" = isolate ]; then args+=(-rapid.checks=20); fi
		"as_$user" "$built/${suite//\//-}.test" "${args[@]}" >"$raw" 2>&1 </dev/null || code=$?
		if [ $code != 0 ]; then printf 'exit code %s\n\x16FAIL\n' $code >>"$raw"; fi
		printf 'vm: %s, %s: exit code %s after %s s\n' "$suite" "$user" $code $((SECONDS - begin))
	done
done
cp -r "$GOCOVERDIR" /out/
touch /out/ended
