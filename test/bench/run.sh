#!/bin/sh
# Runs one measurement: test/bench/run.sh hop [FLAGS]; or, without a name, all of them, into one list and
# one table. Figures are printed, never asserted.
set -eu
cd "$(dirname "$0")/../.."

measure() { # NAME [FLAGS]
	mkdir -p bin
	go build -o "bin/bench-$1" "./test/bench/$1"
	program=bin/bench-$1
	shift
	"$program" "$@"
}

if [ $# -gt 0 ]; then
	measure "$@"
	exit
fi
out=test/bench/out/latest.json
rm -f $out
for name in start hop mesh; do
	echo "== $name: $(uptime | sed 's/.*load average/load average/')"
	measure $name -rows $out
done
echo
measure table $out
echo
echo "The same as a list: $out"
