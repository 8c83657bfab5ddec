#!/bin/bash
# Unpacks Debian packages of any architecture, with all that they depend on, to a folder; nothing is installed, and root
# is not needed: debs.sh ARCHITECTURE FOLDER PACKAGE…
set -euo pipefail
arch=$1 dir=$2
shift 2
if [ "$(cat "$dir/.unpacked" 2>/dev/null)" = "$*" ]; then exit 0; fi

rm -rf "$dir"
apt=$(mktemp -d)
trap 'rm -rf "$apt"' EXIT
mkdir -p "$dir" "$apt/lists/partial" "$apt/cache/archives/partial"
touch "$apt/status"
# Lists of its own, as the machine's are of its own architecture; an empty status, in which nothing is installed.
options=(-qq -o "APT::Architecture=$arch" -o "APT::Architectures=$arch" -o APT::Sandbox::User= -o Debug::NoLocking=1
	-o "Dir::State::Lists=$apt/lists" -o "Dir::State::status=$apt/status" -o "Dir::Cache=$apt/cache")
apt-get "${options[@]}" update
apt-get "${options[@]}" -y --no-install-recommends --download-only install "$@"
for deb in "$apt"/cache/archives/*.deb; do
	dpkg -x "$deb" "$dir"
done
echo "$*" >"$dir/.unpacked"
