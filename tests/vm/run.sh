#!/bin/bash
# Boots Debian's kernel under qemu with cgroup v2 alone and runs the test suites there.
#
#     run.sh [-u USERS] [-s SUITES] [-r REGEXP] [-t SECONDS]
#
# USERS: root, user (an ordinary one, with a delegated cgroup); SUITES: folders of packages; REGEXP: tests, as for
# go test -run. Lists are in quotes. What came back is in bin/vm/own: console.log, the output of each suite, coverage.out.
# By default it is what cgroups are for: the whole suite takes longer in an emulator than its time-outs allow.
# JAIL_VM_ACCEL=kvm asks for what qemu -accel takes; the default is emulation, as nested KVM often hangs.
set -euo pipefail
cd "$(dirname "$0")/../.."

users='root user' limit=900 suites='cgroup tests/integration'
only='P5[23458]|P75_NoCgroup|NestedInLimited|CPU|Accounting|Resources|LevelsOf|TestLimits|TestUsage|TestKill$|Collect|Same|TestMany|Find|Settings'
while getopts u:s:r:t: flag; do
	case $flag in
	u) users=$OPTARG ;;
	s) suites=$OPTARG ;;
	r) only=$OPTARG ;;
	t) limit=$OPTARG ;;
	*) exit 2 ;;
	esac
done

# compile makes the tests, the command and the probes: the guest is ten times slower.
compile() {
	local built=$1 suite src
	mkdir -p "$built"
	for suite in $suites; do
		go test -c -cover -o "$built/${suite//\//-}.test" "./$suite"
	done
	mkdir -p "$built/command/tools"
	go build -cover -trimpath -tags osusergo,netgo -ldflags '-linkmode external -extldflags -static' -o "$built/command/jail" ./cmd/jail
	for src in tests/integration/testdata/*.c; do
		"${CC:-gcc}" -static -O1 -pthread -o "$built/command/tools/$(basename "$src" .c)" "$src"
	done
}

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

boot() { # until the guest powers itself off
	local dir=bin/vm/own
	timeout --foreground -s KILL "$limit" qemu-system-x86_64 -M q35 -accel "${JAIL_VM_ACCEL:-tcg,thread=multi}" -cpu max -smp 2 -m 2G \
		-nic none -nographic -no-reboot -kernel bin/vm/amd64-kernel/boot/vmlinuz-* -initrd bin/vm/amd64-initramfs.cpio \
		-drive "file=$dir/disk,format=raw,if=virtio,cache=unsafe" \
		-fsdev "local,id=root,path=/,security_model=none,readonly=on,multidevs=remap" -device virtio-9p-pci,fsdev=root,mount_tag=root \
		-fsdev "local,id=repo,path=$PWD,security_model=none,readonly=on,multidevs=remap" -device virtio-9p-pci,fsdev=repo,mount_tag=repo \
		-fsdev "local,id=out,path=$PWD/$dir/out,security_model=none" -device virtio-9p-pci,fsdev=out,mount_tag=out \
		-append "console=ttyS0 quiet panic=-1 cgroup_no_v1=all" \
		</dev/null >"$dir/console.log" 2>&1
}

# run boots the machine and sums up what came back.
run() {
	local dir=bin/vm/own user suite raw code=0 begin=$SECONDS
	rm -rf "$dir"
	mkdir -p "$dir/out"
	for user in $users; do mkdir "$dir/out/$user"; done
	truncate -s 4G "$dir/disk"
	mkfs.ext4 -q "$dir/disk"
	printf '%s=%q\n' users "$users" suites "$suites" only "$only" go_path "$(go env GOROOT)/bin" >"$dir/out/job"

	echo "== booting"
	boot || true
	rm "$dir/disk"
	if [ ! -e "$dir/out/ended" ]; then
		code=1
		echo "the machine died, or was killed after $limit s; it said last:"
		tail -n 20 "$dir/console.log"
	fi
	grep ': exit code' "$dir/console.log" | tr -d '\r' || true
	for user in $users; do
		for suite in $suites; do
			raw=$dir/out/$user/${suite//\//-}.raw
			[ -e "$raw" ] || printf 'it was not run\nFAIL\n' >"$raw"
			go tool test2json -p "vm/$user/$suite" <"$raw"
		done
	done | go run ./scripts/gotest - || code=1
	if [ -d "$dir/out/cover" ]; then
		go tool covdata textfmt -i "$dir/out/cover" -o "$dir/coverage.out"
		go tool covdata percent -i "$dir/out/cover"
	fi
	echo "== $((SECONDS - begin)) s, exit code $code"
	return $code
}

scripts/debs.sh amd64 bin/vm/amd64-kernel linux-image-amd64 busybox-static
initramfs bin/vm/amd64-initramfs bin/vm/amd64-kernel
compile bin/vm/amd64-built
run
