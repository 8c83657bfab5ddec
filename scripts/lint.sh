#!/bin/sh
# Runs golangci-lint of a pinned version, which is built once into bin/tools.
set -eu
cd "$(dirname "$0")/.."
version=v2.15.0
tool=$PWD/bin/tools/golangci-lint-$version
if [ ! -x "$tool" ]; then
	echo "building golangci-lint $version (once, about a minute)"
	GOBIN=$PWD/bin/tools go install "github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$version"
	mv bin/tools/golangci-lint "$tool"
fi
"$tool" run "$@"
cd tests/bench/peers # a module of its own
exec "$tool" run
