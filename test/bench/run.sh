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
missing=
for program in haproxy rabbitmq-server redis-server; do
	command -v $program >/dev/null || [ -x /usr/sbin/$program ] || missing="$missing $program"
done
without() {
	[ -z "$missing" ] || echo "Rows that compare with these have no peer and no goal, since they are not installed (apt-get install):$missing"
}
without
failed=
run() { # NAME COMMAND...
	name=$1
	shift
	echo "== $name: $(uptime | sed 's/.*load average/load average/')"
	"$@" || failed="$failed $name"
}
run parts go test -run '^$' -bench . -benchtime "${TIME:-1s}" ./hub ./observe ./wire/...
run start measure start -rounds "${ROUNDS:-3}" -rows $out
for name in hop mesh capture broker; do
	run $name measure $name -rounds "${ROUNDS:-5}" -time "${TIME:-1500ms}" -rows $out
done
echo
measure table $out
echo
echo "The same as a list: $out"
without
[ -z "$failed" ] || { echo "Not measured to the end:$failed" >&2; exit 1; }
