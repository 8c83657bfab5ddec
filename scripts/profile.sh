#!/bin/sh
# Shows where the time of one `jail run` goes. Tracing slows all down: compare the numbers with each other only.
set -eu
cd "$(dirname "$0")/.."
run="bin/jail run --level=namespaced -- /bin/true"

echo "== Go's start: packages whose initialisation takes time"
# shellcheck disable=SC2086 # words
GODEBUG=inittrace=1 $run 2>&1 | awk '$1 == "init" { sum += $5; n++; if ($5 >= 0.01) print "  " $2, $5, "ms" }
	END { printf "  %d packages, %.2f ms\n", n, sum }'

echo "== jail's own account"
# shellcheck disable=SC2086
bin/jail run --level=namespaced --verbose -- /bin/true 2>&1 | sed 's/^/  /'

trace=$(mktemp -d)
trap 'rm -rf "$trace"' EXIT
# shellcheck disable=SC2086
strace -ff -qq -T -o "$trace/t" $run
echo "== system calls of each process and thread"
for f in "$trace"/*; do
	awk -v id="${f##*.}" '{ n++; t = $NF; gsub(/[<>]/, "", t); sum += t }
		END { printf "  %s: %d calls, %.2f ms in them\n", id, n, sum * 1000 }' "$f"
done
echo "== the longest, in ms (waiting for others included)"
sed -nE 's/^(.*) <([0-9.]+)>$/\2 \1/p' "$trace"/* | sort -rn | head -n 25 | awk '{ t = $1; $1 = ""; printf "  %6.2f %.110s\n", t * 1000, $0 }'

if command -v perf >/dev/null 2>&1; then
	echo "== counters, the mean of 50 runs"
	# shellcheck disable=SC2086
	perf stat -r 50 -e page-faults,context-switches,cpu-migrations,task-clock $run 2>&1 | grep -E '^ +[0-9]' || true
fi
