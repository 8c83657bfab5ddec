#!/bin/bash
# What `make test` leaves out, step by step; all are run, whatever fails. Arguments: the steps to run (default: all).
set -euo pipefail
cd "$(dirname "$0")/.."
export JAIL_TEST_FULL=1 # a test that is only for this run may not skip itself; see scripts/gotest

c_files() { find . -path ./.git -prune -o -path ./bin -prune -o -type f \( -name '*.c' -o -name '*.h' \) -print0; }

step_modules() { go mod tidy -diff && go mod verify && go -C tests/bench/peers mod tidy -diff && go -C tests/bench/peers mod verify; }

step_build() { # static, and the linker has nothing to say
	local said
	said=$(make -s build BIN=bin/full/jail 2>&1) || { echo "$said" && return 1; }
	if [ -n "$said" ]; then echo "the build warns: $said" && return 1; fi
	if readelf -lW bin/full/jail | grep -E 'INTERP|DYNAMIC'; then echo "bin/jail is not static" && return 1; fi
	if go list -deps ./isolate | grep seccomp; then echo "package isolate has libseccomp in it" && return 1; fi
}

step_lint() { scripts/lint.sh; }

step_shellcheck() {
	find . -path ./.git -prune -o -path ./bin -prune -o -type f -name '*.sh' -print0 | xargs -0 shellcheck .ci/run
}

step_c_format() { # other versions of clang-format have other opinions
	if ! clang-format --version | grep -q 'version 14\.'; then
		echo "only clang-format 14 is taken at its word; here is $(clang-format --version)"
		return 77
	fi
	c_files | xargs -0 clang-format --dry-run -Werror
}

step_generated() { # jail-init's assembly is what its source gives, where the compiler is the one that made it
	local new old=isolate/internal/jailinit arch
	new=$(mktemp -d)
	# shellcheck disable=SC2064 # expanded now
	trap "rm -rf '$new'" RETURN
	"$old/generate.sh" "$new"
	for arch in amd64 arm64; do
		if [ "$(head -n 1 "$new/jailinit_$arch.S")" != "$(head -n 1 "$old/jailinit_$arch.S")" ]; then
			echo "another compiler made jailinit_$arch.S: $(head -n 1 "$old/jailinit_$arch.S")"
			return 77
		fi
		diff -u "$old/jailinit_$arch.S" "$new/jailinit_$arch.S"
	done
}

step_darwin() { scripts/cross.sh darwin; }
step_windows() { scripts/cross.sh windows; }
step_arm64() { scripts/cross.sh arm64; }

step_vm() { tests/vm/run.sh -q; } # make vm-test is longer

step_models() { scripts/models.sh; } # of ipc, and that each mutation of one is found

step_race() { env -u JAIL_TEST_FULL go run ./scripts/gotest -p 1 -race -count=1 -timeout=15m ./...; }

step_sweep() { # hundreds of launchers killed at random moments, and the like
	JAIL_SWEEP=1 go run ./scripts/gotest -p 1 -count=1 -timeout 30m -run 'Sweep|Many|Compilers|Hostile|Swapped|Accounting|Faults|RandomSpecs|OrdinaryUser/RandomSpecs' ./isolate ./tests/integration
	JAIL_SWEEP=1 go run ./scripts/gotest -count=1 -timeout 30m -run Kill ./ipc
}

# Bounded by their number, not by time: a target that is busy when its time is over fails with "context deadline exceeded".
step_fuzz() {
	local package targets target times
	for package in $(go list ./...); do
		targets=$(go test -list '^Fuzz' "$package" | grep '^Fuzz' || true)
		for target in $targets; do
			case $target in
			FuzzLoad | FuzzFromOCI | FuzzCompileCalls) times=10000x ;; # they take a millisecond or more each
			*) times=100000x ;;
			esac
			echo "$package $target"
			go test -run '^$' -fuzz "^$target\$" -fuzztime $times -fuzzminimizetime 10x "$package"
		done
	done
}

steps=("$@")
if [ ${#steps[@]} = 0 ]; then
	steps=(modules build lint shellcheck c_format generated darwin windows arm64 models vm race sweep fuzz)
fi
passed=0 failed=0 skipped=0
log=$(mktemp)
trap 'rm -f "$log"' EXIT
for step in "${steps[@]}"; do
	begin=$SECONDS
	code=0
	# In a shell of its own: `set -e` would not work in a function that is part of a condition.
	set +e
	(set -e && "step_$step") >"$log" 2>&1 </dev/null
	code=$?
	set -e
	case $code in
	0) passed=$((passed + 1)) && printf 'ok       %-12s %4d s\n' "$step" $((SECONDS - begin)) ;;
	77) skipped=$((skipped + 1)) && printf 'skipped  %-12s %s\n' "$step" "$(tail -n 1 "$log")" ;;
	*) failed=$((failed + 1)) && printf 'FAILED   %-12s %4d s\n' "$step" $((SECONDS - begin)) && cat "$log" ;;
	esac
done
echo "steps: $passed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ]
