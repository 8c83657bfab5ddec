#!/bin/sh
# Installs what a make target needs and this machine lacks: setup.sh run|test|models|vm|full|figures|bench
# It says first what it will install. It installs as root only; anybody else gets the one line to run.
set -eu
cd "$(dirname "$0")/.."

# Needed by the target. cgo wants a C compiler; package seccomp, libseccomp; the tests, real programs to jail.
build='gcc libc6-dev libseccomp-dev pkg-config'
test="$build python3 git curl procps busybox-static"
models='gcc libc6-dev spin'
vm="$test qemu-system-x86 qemu-system-arm kmod cpio e2fsprogs gcc-aarch64-linux-gnu libc6-dev-arm64-cross systemd libpam-systemd dbus-user-session"
figures="$test bubblewrap crun runc"
full="$vm $models nodejs bubblewrap crun runc podman shellcheck clang-format debootstrap"
bench="$build bubblewrap crun runc busybox-static hyperfine strace g++ libzmq3-dev libboost-dev iceoryx libiceoryx-posh-dev"

extra=
case ${1:-} in
run) need=$build extra=python3 ;; # without python3 the example is a shell script
test) need=$test ;;
models) need=$models ;;
vm) need=$vm ;;
full) need=$full ;;
figures) need=$figures ;;
bench) need=$bench ;;
*)
	echo "usage: setup.sh run|test|models|vm|full|figures|bench" >&2
	exit 2
	;;
esac

check_go() {
	want=$(sed -n 's/^go \([0-9.]*\).*/\1/p' go.mod)
	if ! command -v go >/dev/null 2>&1; then
		echo "jail needs Go $want or newer, and there is no go in PATH." >&2
		exit 1
	fi
	# An older Go either can't read go.mod at all, or gives its own version.
	have=$(go env GOVERSION 2>/dev/null) || have=$(cd / && go env GOVERSION)
	have=${have#go}
	have=${have%% *}
	if [ "$(printf '%s\n' "$want" "$have" | sort -V | head -n 1)" != "$want" ]; then
		echo "jail needs Go $want or newer; $(command -v go) is Go $have." >&2
		exit 1
	fi
}

missing() { # packages…: those that are not installed
	for p in "$@"; do
		case $(dpkg-query -W -f '${db:Status-Status}' "$p" 2>/dev/null) in
		installed) ;;
		*) printf ' %s' "$p" ;;
		esac
	done
}

check_go
if ! command -v dpkg-query >/dev/null 2>&1; then
	echo "This is no Debian: make sure that you have what these Debian packages hold: $need $extra" >&2
	exit 0
fi
# shellcheck disable=SC2086 # the packages are words
needed=$(missing $need) all=$(missing $need $extra)
if [ -z "$all" ]; then
	exit 0
fi
if [ "$(id -u)" != 0 ]; then
	if [ -z "$needed" ]; then
		exit 0
	fi
	echo "Some Debian packages are missing. Install them as root, then try again:" >&2
	echo "    apt-get install$all" >&2
	exit 1
fi
echo "Installing Debian packages:$all"
export DEBIAN_FRONTEND=noninteractive
apt-get -qq update </dev/null
# shellcheck disable=SC2086
apt-get -qq -y --no-install-recommends install $all </dev/null >/dev/null
