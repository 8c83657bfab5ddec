#!/bin/bash
# Makes the tests of the given packages, the command and the probes, for the architecture of the environment:
# compile.sh FOLDER PACKAGE…. The command is the release's: with -cover it would write files that its tests don't expect.
set -euo pipefail
built=$1
shift
mkdir -p "$built/command/tools"
for suite in "$@"; do
	go test -c -cover -o "$built/${suite//\//-}.test" "./$suite"
done
make -s build BIN="$built/command/jail"
for source in tests/integration/testdata/*.c; do
	"${CC:-gcc}" -static -O1 -pthread -o "$built/command/tools/$(basename "$source" .c)" "$source"
done
