#!/bin/sh
# Makes a Debian 12 machine ready for the tests, as root: what they need, an ordinary user with uid 1000, and cgroup
# controllers for the sessions of users.
set -eu
cd "$(dirname "$0")/.."
scripts/setup.sh test
if ! getent passwd 1000 >/dev/null; then
	useradd --uid 1000 --create-home --shell /bin/bash tester
fi
home=$(getent passwd 1000 | cut -d: -f6)
if [ ! -d "$home" ]; then
	install -d -m 700 -o 1000 -g 1000 "$home"
fi
mkdir -p /etc/systemd/system/user@.service.d
cat >/etc/systemd/system/user@.service.d/delegate.conf <<END
[Service]
Delegate=cpu cpuset io memory pids
END
if [ -d /run/systemd/system ]; then # systemd runs
	systemctl daemon-reload
fi
