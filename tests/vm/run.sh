#!/bin/bash
# Boots Debian's kernel under qemu and runs test suites there.
#
#     run.sh [-q] [-m MACHINES] [-u USERS] [-s SUITES] [-r REGEXP] [-t SECONDS]
#
# MACHINES: own (cgroup v2 alone, a small init of ours: root is in the root cgroup, the user in a delegated subtree),
# systemd (as PID 1, cgroup v2 alone), arm64 (as own), v1 and hybrid (as own, with the controllers of cgroup v1); USERS:
# root, user, bare (the user without a cgroup of its own), and under systemd login (outside of the cgroup of the user's
# systemd, as after a login); SUITES: folders of packages (cmd/jail too); REGEXP: tests, as for go test -run, "." for all
# (an hour); SECONDS: after which a machine is killed. Lists are in quotes. By default it is the part of the suites below;
# -q is what shows in some minutes that each machine works. What came back is in bin/vm/MACHINE: console.log, out/ with
# what each suite said, coverage.out.
# JAIL_VM_ACCEL=kvm asks for what qemu -accel takes; by default it emulates, as KVM in a virtual machine often hangs.
set -euo pipefail
cd "$(dirname "$0")/../.."

# A new package with tests that ask the kernel goes here.
declare -A of=(
	[own]='cgroup isolate/internal/jailinit seccomp signals ipc isolate tests/integration'
	[systemd]='cgroup tests/integration'
	[arm64]='cgroup isolate/internal/jailinit seccomp ipc isolate tests/integration'
	[v1]='cgroup tests/integration'
	[hybrid]='cgroup tests/integration'
)
# In an emulator all takes ten times as long: of the long suites only what depends on the kernel.
cgroups='P5[24589]_|P75_NoCgroup|NestedInLimited|CPU|TestCgroup|Accounting|LevelsOf'
declare -A part=(
	[ipc]='Broker|Peer|Theorem_(1|4_1|4_3|4_5|5_1|7_3_1_The|7_3_2)|Segment|Meet|Select|Ring'
	[isolate]='^Test(Run|Ways|BothEveryOp|BothNoIDMap|BothImagesAtOnce|BothContained|Signals|HighFD)$'
	[tests/integration]="$cgroups"'|ResourcesNeed|Capabilities|Sockets|SignalsOutside|EveryLimit|TestTimeout|ExitCodeOf|TestBinds|KillPID1|Contained|P39_P41|P10_P11|P03_P15_Rootfs|RootfsWrites|TestOverlay|P23_Device$|TestOuter|MonitorProfile|NotifyConnect$'
)
part[arm64/isolate]='^Test(Ways|BothEveryOp|BothNoIDMap|BothContained|Signals|HighFD)$'
part[arm64/tests/integration]='P5[2458]_|P75_NoCgroup|CPU|TestCgroup|LevelsOf|Capabilities|Sockets|ContainedChoices|P39_P41|P10_P11|P03_P15_Rootfs|TestOverlay|KillPID1'
for machine in systemd v1 hybrid; do part[$machine/tests/integration]=$cgroups'|P39_P41'; done
users_of() { if [ "$1" = systemd ]; then echo root user login; else echo root user; fi; }

machines='own systemd arm64 v1 hybrid' users='' suites='' only='' limit=600
while getopts qm:u:s:r:t: flag; do
	case $flag in
	q)
		machines='own systemd arm64'
		of[own]='cgroup isolate/internal/jailinit tests/integration'
		of[arm64]='cgroup isolate/internal/jailinit seccomp tests/integration'
		for machine in own systemd arm64; do part[$machine/tests/integration]='LevelsOf|P55_MemoryHog$|P52|P75_NoCgroup|P39_P41|OuterClosed'; done
		;;
	m) machines=$OPTARG ;;
	u) users=$OPTARG ;;
	s) suites=$OPTARG ;;
	r) only=$OPTARG ;;
	t) limit=$OPTARG ;;
	*) exit 2 ;;
	esac
done
# The first three have margins of a tenth of a second, which an emulator doesn't keep. The last two ask the compilers.
skip='^(TestCancel|ExampleResult|TestTreeEnds|TestGenerate|TestTheorem_7_3_1_OnlyLegalOrdersCompile)$'
go_path=$(go env GOROOT)/bin

# initramfs holds what it takes to mount the root: /init, busybox, modules in the order of their loading.
initramfs() {
	local dir=$1 kernel=$2 version module
	rm -rf "$dir" && mkdir -p "$dir/bin" "$dir/modules"
	version=$(basename "$kernel"/boot/vmlinuz-*) version=${version#vmlinuz-}
	depmod -b "$kernel" "$version"
	for module in virtio_pci virtio_blk 9pnet_virtio 9p overlay ext4; do
		modprobe -d "$kernel" -S "$version" --show-depends "$module"
	done | awk '$1 == "insmod" && !seen[$2]++ { print $2 }' | while read -r module; do
		cp "$module" "$dir/modules"
		basename "$module"
	done >"$dir/modules/order"
	cp "$kernel/bin/busybox" "$dir/bin/busybox"
	ln -s busybox "$dir/bin/sh"
	cp tests/vm/init "$dir/init"
	(cd "$dir" && find . | cpio --quiet -o -H newc -R 0:0) >"$dir.cpio"
}

# prepare fetches the kernel of an architecture (nothing is installed) and compiles for it.
prepare() {
	local arch=$1 suites=${suites:-${of[own]} ${of[arm64]}}
	scripts/debs.sh "$arch" "bin/vm/$arch-kernel" "linux-image-$arch" busybox-static
	initramfs "bin/vm/$arch-initramfs" "bin/vm/$arch-kernel"
	# shellcheck disable=SC2086 # words
	case $arch in
	amd64) tests/vm/compile.sh bin/vm/amd64-built $suites ;;
	arm64)
		scripts/debs.sh arm64 bin/vm/arm64-root bash coreutils dash util-linux mount procps python3 grep sed findutils \
			hostname libc-bin libseccomp2 busybox-static
		scripts/cross.sh arm64 tests/vm/compile.sh bin/vm/arm64-built $suites
		;;
	esac
}

boot() { # MACHINE ARCHITECTURE, until the guest powers itself off
	local machine=$1 arch=$2 dir=bin/vm/$1 root=/ qemu=(qemu-system-x86_64 -M q35) console=ttyS0 cgroups=cgroup_no_v1=all
	case $machine in v1 | hybrid) cgroups='' ;; esac
	if [ "$arch" = arm64 ]; then
		root=$PWD/bin/vm/arm64-root qemu=(qemu-system-aarch64 -M virt) console=ttyAMA0
	fi
	timeout --foreground -s KILL "$limit" "${qemu[@]}" -accel "${JAIL_VM_ACCEL:-tcg,thread=multi}" -cpu max -smp 2 -m 2G \
		-nic none -nographic -no-reboot -kernel bin/vm/"$arch"-kernel/boot/vmlinuz-* -initrd "bin/vm/$arch-initramfs.cpio" \
		-drive "file=$dir/disk,format=raw,if=virtio,cache=unsafe" \
		-fsdev "local,id=root,path=$root,security_model=none,readonly=on,multidevs=remap" -device virtio-9p-pci,fsdev=root,mount_tag=root \
		-fsdev "local,id=repo,path=$PWD,security_model=none,readonly=on,multidevs=remap" -device virtio-9p-pci,fsdev=repo,mount_tag=repo \
		-fsdev "local,id=out,path=$PWD/$dir/out,security_model=none" -device virtio-9p-pci,fsdev=out,mount_tag=out \
		-append "console=$console quiet panic=-1 $cgroups fstab=no jail_init=$machine" \
		</dev/null >"$dir/console.log" 2>&1
}

# run boots a machine and sums up what came back.
run() {
	local machine=$1 arch=$2 suites=${suites:-${of[$1]}} users=${users:-$(users_of "$1")} dir=bin/vm/$1
	local user suite raw code=0 ended=0 begin=$SECONDS
	rm -rf "$dir"
	mkdir -p "$dir/out"
	for user in $users; do mkdir "$dir/out/$user"; done
	truncate -s 4G "$dir/disk"
	mkfs.ext4 -q "$dir/disk"
	declare -p machine arch users suites only part skip go_path >"$dir/out/job"

	echo "== $machine: booting"
	boot "$machine" "$arch" || ended=$?
	rm "$dir/disk"
	tr -d '\r' <"$dir/console.log" | sed -n 's/^vm: //p'
	if [ ! -e "$dir/out/ended" ]; then
		code=1
		if [ $ended = 137 ]; then
			echo "$machine: not done after $limit s, so it was killed; -t gives it more. It said last:"
		else
			echo "$machine: the machine died (qemu: exit code $ended). It said last:"
		fi
		tail -n 20 "$dir/console.log"
	fi
	for user in $users; do
		for suite in $suites; do
			raw=$dir/out/$user/${suite//\//-}.raw
			[ -e "$raw" ] || printf 'it was not run\nFAIL\n' >"$raw"
			go tool test2json -p "$machine/$user/$suite" <"$raw"
		done
	done | env -u JAIL_TEST_FULL go run ./scripts/gotest - || code=1
	if compgen -G "$dir/out/cover/covmeta.*" >/dev/null; then
		go tool covdata textfmt -i "$dir/out/cover" -o "$dir/coverage.out"
		go tool covdata percent -i "$dir/out/cover"
	fi
	echo "== $machine: $((SECONDS - begin)) s, exit code $code"
	return $code
}

result=0 prepared=''
for machine in $machines; do
	arch=amd64
	if [ "$machine" = arm64 ]; then arch=arm64; fi
	if [ "$prepared" != $arch ]; then
		prepare $arch
		prepared=$arch
	fi
	run "$machine" $arch || result=$?
done
exit $result
