#!/bin/sh
# Beyond this machine's cores: the cache lines that move between processors, per operation, by simulation.
# usage: run.sh BUILD [PARTICIPANTS...]     BUILD has sim-trace and sim-coherence
#
# The real library makes the accesses, one participant after the other; lackey prints them; a model of caches counts.
set -eu
build=$1
shift
[ $# -gt 0 ] || set -- 8 64 256
if ! command -v valgrind >/dev/null 2>&1; then
    echo "SKIP: simulation of caches: valgrind is not installed"
    exit 0
fi
marks=$(nm "$build/sim-trace" | awk '$3 == "marks" { print $1 }')
for n in "$@"; do
    name=/netshm-sim-$$-$n
    info=$(mktemp)
    trap 'rm -f "$info" "/dev/shm$name" "/tmp$name" "$info.fifo"' EXIT
    "$build/sim-trace" load "$name"
    mkfifo "$info.fifo"
    "$build/sim-coherence" "$marks" "$info" "/dev/shm$name" "$n" <"$info.fifo" &
    simulator=$!
    valgrind --tool=lackey --trace-mem=yes --basic-counts=no --log-file="$info.fifo" \
        "$build/sim-trace" run "$name" "$n" "$info" >/dev/null || { echo "the traced program failed"; exit 1; }
    wait "$simulator"
    rm -f "$info" "/dev/shm$name" "/tmp$name" "$info.fifo"
done
