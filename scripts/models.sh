#!/bin/bash
# Checks the models with spin: models.sh [FILE...] (default: all in ipc/models)
# Each model must hold, and no longer once one of its mutations (#ifdef MUTATION_name) is switched on: what a model
# that can't fail says is nothing. A model is searched for violated assertions and states without a way out; if it has
# formulas (ltl name), for each of them under weak fairness; if it has labels progress…, for cycles without progress.
set -euo pipefail
cd "$(dirname "$0")/.."

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
seconds=60 megabytes=1000 # of one search; CPU time, so that a busy machine changes nothing

search() { # WHAT GCCFLAGS PANFLAGS: a line on stdout; 0: it holds, 1: it is violated, 2: neither was shown
	local code=0
	# shellcheck disable=SC2086 # flags are words
	gcc -w -O1 -DCOLLAPSE -DMEMLIM=$megabytes $2 -o pan pan.c || return 2
	# shellcheck disable=SC2086
	(ulimit -t $seconds && exec ./pan -m1000000 $3) >report 2>&1 || code=$?
	if grep -q 'errors: [1-9]' report; then
		echo "$1: $(grep -m 1 '^pan:1:' report)"
		return 1
	fi
	if [ $code != 0 ] || ! grep -q 'errors: 0' report || grep -qE 'not completed|too small|MEMLIM' report; then
		echo "$1: not searched to the end, in $seconds s and $megabytes MB (exit $code)"
		tail -n 20 report
		return 2
	fi
	echo "$1: $(grep -oE '[0-9]+ states, stored' report | head -n 1)"
}

searches() { # MODEL [MUTATION]: all searches until one does not hold
	local name
	spin "-D${2:-NO_MUTATION}" -a "$1" >generated 2>&1 || { cat generated && return 2; }
	search 'safety' '-DSAFETY -DNOCLAIM' '' || return
	# shellcheck disable=SC2013 # names are words
	for name in $(sed -n 's/^ltl \([A-Za-z0-9_]*\).*/\1/p' "$1"); do
		search "ltl $name" '-DNFAIR=3' "-a -f -N $name" || return
	done
	if grep -q '^[[:space:]]*progress[A-Za-z0-9_]*:' "$1"; then
		search 'progress' '-DNP -DNOCLAIM -DNFAIR=3' '-l -f' || return
	fi
}

check() { # FILE [MUTATION]: what came of it, on stdout
	local model begin=$SECONDS code=0 verdict=FAILED place
	model=$(realpath "$1")
	place=$(mktemp -d -p "$folder")
	(cd "$place" && searches "$model" "${2:-}") >"$place/said" 2>&1 || code=$?
	if [ $code = $((${#2} > 0)) ]; then
		verdict=ok
	fi
	printf '%-8s %s %s (%d s)\n' $verdict "$1" "${2:-holds}" $((SECONDS - begin))
	sed 's/^/         /' "$place/said"
	rm -r "$place"
	[ $verdict = ok ]
}

if [ $# = 0 ]; then
	set -- ipc/models/*.pml
fi
failed=0 running=0
for file in "$@"; do
	mutations=$(sed -n '/^#\(el\)\?if/p' "$file" | grep -oE 'MUTATION_[A-Za-z0-9_]+' | sort -u || true)
	if [ -z "$mutations" ]; then
		echo "FAILED   $file has no mutation"
		failed=1
	fi
	for mutation in '' $mutations; do
		if [ $running = "$(nproc)" ]; then
			wait -n || failed=1
			running=$((running - 1))
		fi
		{ said=$(check "$file" "$mutation") && code=0 || code=1; echo "$said"; exit "$code"; } &
		running=$((running + 1))
	done
done
while [ $running -gt 0 ]; do
	wait -n || failed=1
	running=$((running - 1))
done
exit $failed
