#!/bin/sh
# Runs one measurement: test/bench/run.sh hop [FLAGS]; or, without a name, all of them, into one list and
# one table. Figures are printed, never asserted. ROUNDS and TIME shorten the whole, or lengthen it.
set -eu
cd "$(dirname "$0")/../.."

measure() { # NAME [FLAGS]
	mkdir -p bin
	go build -o "bin/bench-$1" "./test/bench/$1" || return
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
failed=
run() { # NAME [FLAGS]
	echo "== $1: $(uptime | sed 's/.*load average/load average/')"
	measure "$@" -rows $out || failed="$failed $1"
}
rounds="-rounds ${ROUNDS:-5} -time ${TIME:-1500ms}"
run start
# shellcheck disable=SC2086
for name in hop mesh capture broker; do
	run $name $rounds
done
echo
measure table $out
echo
echo "The same as a list: $out"
[ -z "$failed" ] || { echo "Not measured to the end:$failed" >&2; exit 1; }
