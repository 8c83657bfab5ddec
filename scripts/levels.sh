#!/bin/bash
# Makes docs/levels.md, the table of levels and hosts, of what TestLevelsOfThisHost logs: on this machine, and in the
# virtual machines of tests/vm. As root, since it runs the test as root and as an ordinary user.
set -euo pipefail
cd "$(dirname "$0")/.."
if [ "$(id -u)" != 0 ]; then
	echo "levels.sh: root is needed" >&2
	exit 1
fi
test='^TestLevelsOfThisHost$'
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
chmod 755 "$work"
mkdir -m 777 "$work/home"
tests/vm/compile.sh "$work" tests/integration
here() { # LOG COMMAND…: on this machine, with a command before it
	local log=$1
	shift
	(cd tests/integration && HOME=$work/home JAIL_TEST_BUILT=$work/command "$@" "$work/tests-integration.test" \
		-test.v -test.run="$test") >"$work/$log"
}
here root env
here bare setpriv --reuid 65533 --regid 65533 --clear-groups
tests/vm/run.sh -m 'own arm64 hybrid v1' -u 'root bare user' -s tests/integration -r "$test"
tests/vm/run.sh -m systemd -u 'root bare user login' -s tests/integration -r "$test"

# log ROW CALLER FILE: the lines of one caller, for awk
log() { sed -n "s#^.*: table host: #host\t$1\t#p; s#^.*: table \([a-z]*\)/$2: #level\t$1\t\1\t#p" "$3"; }
vm() { log "$2" "$3" "bin/vm/$1/out/$4/tests-integration.raw"; }
{
	log 'root' root "$work/root"
	log 'an ordinary user' ordinary "$work/bare"
	for machine in own arm64 hybrid v1; do
		vm $machine 'root' root root
		vm $machine 'an ordinary user' ordinary bare
		vm $machine 'an ordinary user with a delegated cgroup' ordinary user
	done
	vm systemd 'root, under systemd' root root
	vm systemd 'an ordinary user without a systemd of its own, under systemd' ordinary bare
	vm systemd 'an ordinary user in a service of its own systemd' ordinary user
	vm systemd 'an ordinary user after a login, beside its own systemd' ordinary login
} | awk -F '\t' '
	BEGIN {
		print "<!-- Made by scripts/levels.sh; not to be edited. -->"
		print "# Levels and hosts"
		print ""
		print "Which level works where. `scripts/levels.sh` makes this table from what the test TestLevelsOfThisHost logs (`jail levels`,"
		print "which tries each level): on the machine on which it was made, which is the first one, and in virtual machines with the"
		print "kernels of Debian 12. An entry is \"yes\", or the number of the reason below. With a Landlock ABI below 6 (Linux 6.12)"
		print "level `user` keeps abstract sockets, and as an ordinary user signals, not inside; `jail explain` says so."
		print ""
		print "| host | caller | basic | user | namespaced | limited | contained |"
		print "|---|---|---|---|---|---|---|"
	}
	$1 == "host" { host = $3; next }
	$3 == "basic" { row = "| " host " | " $2 " |" }
	{
		entry = "yes"
		if ($4 != "works") {
			if (!($4 in number)) { number[$4] = ++reasons; reason[reasons] = $4 }
			entry = number[$4]
		}
		row = row " " entry " |"
	}
	$3 == "contained" { print row }
	END {
		print ""
		for (i = 1; i <= reasons; i++) print i ". " reason[i]
	}' >docs/levels.md.new
mv docs/levels.md.new docs/levels.md
