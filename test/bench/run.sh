#!/bin/sh
# Runs one measurement: test/bench/run.sh hop [FLAGS]. Figures are printed, never asserted.
set -eu
cd "$(dirname "$0")/../.."
name=${1:?usage: test/bench/run.sh NAME [FLAGS]; names: $(ls -d test/bench/*/ | xargs -n1 basename | tr '\n' ' ')}
shift
mkdir -p bin
go build -o "bin/bench-$name" "./test/bench/$name"
exec "bin/bench-$name" "$@"
