#!/bin/bash
# Builds and vets for another system, tests included: cross.sh darwin|windows|arm64. With a command (cross.sh arm64
# COMMAND…) it runs that instead, with the environment of a build for arm64.
set -euo pipefail
cd "$(dirname "$0")/.."

case ${1:-} in
darwin | windows)
	export GOOS=$1 CGO_ENABLED=0
	go build ./...
	go vet ./...
	;;
arm64)
	root=$PWD/bin/arm64
	scripts/debs.sh arm64 "$root" libseccomp-dev
	export GOARCH=arm64 CGO_ENABLED=1 CC=aarch64-linux-gnu-gcc
	# Instead of pkg-config, which would find this machine's libseccomp.
	export PKG_CONFIG=true CGO_CFLAGS="-O2 -I$root/usr/include"
	export CGO_LDFLAGS="-L$root/usr/lib/aarch64-linux-gnu -lseccomp"
	if [ $# -gt 1 ]; then
		shift
		exec "$@"
	fi
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
