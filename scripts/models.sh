#!/bin/bash
# Checks the models with spin: models.sh [FILE...] (default: all in ipc/models)
# Each model must hold, and no longer once one of its mutations (#ifdef MUTATION_NAME) is switched on: what a model
# that can't fail says is nothing. A model is searched for violated assertions and states without a way out; if it has
# formulas (ltl NAME), for each of them under weak fairness; if it has labels progress…, for cycles without progress.
set -euo pipefail
cd "$(dirname "$0")/.."

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
seconds=60 megabytes=1000 # of one search; the depth of a search costs 56 bytes a step

search() { # WHAT GCCFLAGS PANFLAGS: pan's report on stdout; 0: holds, 1: violated, 2: neither was shown
	local code=0
	# shellcheck disable=SC2086 # flags are words
	gcc -w -O1 -DCOLLAPSE -DMEMLIM=$megabytes $2 -o "$folder/pan" "$folder/pan.c" || return 2
	# shellcheck disable=SC2086
	(cd "$folder" && timeout --foreground $seconds ./pan -m1000000 $3) >"$folder/report" 2>&1 || code=$?
	if grep -q 'errors: [1-9]' "$folder/report"; then
		echo "$1: $(grep -m 1 '^pan:1:' "$folder/report")"
		return 1
	fi
	if [ $code != 0 ] || ! grep -q 'errors: 0' "$folder/report" || grep -qE 'not completed|too small|memory bound|MEMLIM' "$folder/report"; then
		echo "$1: not searched to the end (exit $code of $seconds s, $megabytes MB)"
		cat "$folder/report"
		return 2
	fi
	echo "$1: $(grep -oE '[0-9]+ states, stored' "$folder/report" | head -n 1)"
}

check() { # MODEL [MUTATION]: all searches until one does not hold
	local name
	(cd "$folder" && spin "-D${2:-NO_MUTATION}" -a "$1") >"$folder/spin" 2>&1 || { cat "$folder/spin" && return 2; }
	search 'safety' '-DSAFETY -DNOCLAIM' '' || return
	# shellcheck disable=SC2013 # names are words
	for name in $(sed -n 's/^ltl \([A-Za-z0-9_]*\).*/\1/p' "$1"); do
		search "ltl $name" '-DNFAIR=3' "-a -f -N $name" || return
	done
	if grep -q '^[[:space:]]*progress[A-Za-z0-9_]*:' "$1"; then
		search 'progress' '-DNP -DNOCLAIM -DNFAIR=3' '-l -f' || return
	fi
}

if [ $# = 0 ]; then
	set -- ipc/models/*.pml
fi
failed=0
for file in "$@"; do
	model=$(realpath "$file")
	mutations=$(sed -n '/^#\(el\)\?if/p' "$model" | grep -oE 'MUTATION_[A-Za-z0-9_]+' | sort -u || true)
	if [ -z "$mutations" ]; then
		echo "FAILED   $file has no mutation"
		failed=1
	fi
	for mutation in '' $mutations; do
		begin=$SECONDS
		code=0
		check "$model" "$mutation" >"$folder/said" || code=$?
		want=0
		if [ -n "$mutation" ]; then
			want=1
		fi
		verdict=ok
		if [ $code != $want ]; then
			verdict=FAILED
			failed=1
		fi
		printf '%-8s %s %s (%d s)\n' $verdict "$file" "${mutation:-holds}" $((SECONDS - begin))
		sed 's/^/         /' "$folder/said"
	done
done
exit $failed
