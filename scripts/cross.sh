#!/bin/bash
# Builds and vets for another system, tests included: cross.sh darwin|windows|arm64
set -euo pipefail
cd "$(dirname "$0")/.."

arm64_libseccomp() { # unpacks arm64's libseccomp-dev to $1; nothing is installed
	local dir=$1
	[ -e "$dir/usr/include/seccomp.h" ] && return
	mkdir -p "$dir/apt/lists/partial" "$dir/apt/cache/archives/partial"
	local apt=(apt-get -qq -o APT::Architecture=arm64 -o APT::Architectures=arm64 -o APT::Sandbox::User=
		-o "Dir::State::Lists=$dir/apt/lists" -o "Dir::Cache=$dir/apt/cache" -o Debug::NoLocking=1)
	"${apt[@]}" update
	(cd "$dir/apt" && "${apt[@]}" download libseccomp-dev)
	dpkg -x "$dir"/apt/libseccomp-dev_*_arm64.deb "$dir"
	rm -r "$dir/apt"
}

case ${1:-} in
darwin | windows)
	export GOOS=$1 CGO_ENABLED=0
	go build ./...
	go vet ./...
	;;
arm64)
	root=$PWD/bin/arm64
	arm64_libseccomp "$root"
	export GOARCH=arm64 CGO_ENABLED=1 CC=aarch64-linux-gnu-gcc
	# Instead of pkg-config, which would find this machine's libseccomp.
	export PKG_CONFIG=true CGO_CFLAGS="-O2 -I$root/usr/include"
	export CGO_LDFLAGS="-L$root/usr/lib/aarch64-linux-gnu -lseccomp"
	go build ./...
	go vet ./...
	make -s build BIN=bin/arm64/jail
	readelf -h bin/arm64/jail | grep -q AArch64
	;;
*)
	echo "usage: cross.sh darwin|windows|arm64" >&2
	exit 2
	;;
esac
