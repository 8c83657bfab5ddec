#!/bin/sh
# A program that its user does not trust, as untrusted.py is, for machines without Python:
#     jail run -- sh examples/untrusted.sh

attempt() { # what it is, and a command
	what=$1
	shift
	if outcome=$("$@" 2>&1); then :; else outcome="refused (${outcome##*: })"; fi
	printf '  %-34s %s\n' "$what" "$(echo "$outcome" | tr '\n' ' ')"
}

write() { touch "$1/untrusted.txt" && rm "$1/untrusted.txt" && echo "written, and removed"; }

status() { sed -n "s/^$1:[[:space:]]*//p" /proc/self/status; }

list() { ls -A "$1" && if [ -z "$(ls -A "$1")" ]; then echo "empty"; fi; }

echo "who I am"
attempt "user and group" id -u
attempt "host" hostname
attempt "capabilities" status CapEff
echo "what I can read"
attempt "this folder" list .
attempt "the home, $HOME" list "$HOME"
attempt "its .ssh" ls "$HOME/.ssh"
attempt "/etc/shadow" wc -c /etc/shadow
attempt "processes" sh -c 'ls -d /proc/[0-9]* | wc -l'
echo "what I can write"
for folder in /tmp "$HOME" "$PWD" /usr /etc; do
	attempt "$folder" write "$folder"
done
echo "whom I can reach"
attempt "network devices" ls /sys/class/net
