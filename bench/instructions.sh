#!/bin/sh
# Instructions per operation of the release library, by callgrind. usage: instructions.sh PROGRAM
set -eu
program=$1
if ! command -v valgrind >/dev/null 2>&1; then
    echo "SKIP: instruction counts: valgrind is not installed"
    exit 0
fi
out=$(mktemp)
trap 'rm -f "$out"' EXIT
measured=20000
echo "instructions per operation (callgrind; 250,000 keys of 16 bytes, values of 64 bytes)"
for row in find:220 miss:- replace:320 add:850 remove:- count:- group:-; do
    what=${row%%:*}
    goal=${row##*:}
    valgrind --tool=callgrind --callgrind-out-file="$out" --collect-atstart=no \
        --toggle-collect="measured_$what" "$program" "$what" >/dev/null 2>"$out.log" ||
        { cat "$out.log"; rm -f "$out.log"; exit 1; }
    rm -f "$out.log"
    total=$(awk '/^summary:|^totals:/ { print $2; exit }' "$out")
    each=$((total / measured))
    verdict=""
    [ "$goal" = - ] || { [ "$each" -le "$goal" ] && verdict="  goal <= $goal  met" || verdict="  goal <= $goal  NOT MET"; }
    printf '  %-10s %6d%s\n' "$what" "$each" "$verdict"
done
