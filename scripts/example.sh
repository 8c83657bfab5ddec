#!/bin/sh
# Runs the example in a jail: examples/untrusted.py, or the same as a shell script where there is no python3.
set -eu
cd "$(dirname "$0")/.."
if [ -x /usr/bin/python3 ]; then
	set -- python3 examples/untrusted.py
else
	set -- sh examples/untrusted.sh
fi
echo
echo "\$ bin/jail run --level=namespaced --verbose -- $*"
exec bin/jail run --level=namespaced --verbose -- "$@"
