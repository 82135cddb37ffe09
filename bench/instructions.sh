#!/bin/sh
# Instructions per call into the release library, by callgrind. usage: instructions.sh PROGRAM
set -eu
program=$1
if ! command -v valgrind >/dev/null 2>&1; then
    echo "SKIP: instruction counts: valgrind is not installed"
    exit 0
fi
out=$(mktemp)
trap 'rm -f "$out"' EXIT
echo "instructions per call (callgrind; 250,000 keys of 16 bytes, values of 64 bytes; add: the mean from empty)"
# row, goal, function to be counted, its calls
while read -r what goal function calls; do
    valgrind --tool=callgrind --callgrind-out-file="$out" --collect-atstart=no \
        --toggle-collect="$function" "$program" "$what" >/dev/null 2>"$out.log" </dev/null ||
        { cat "$out.log"; rm -f "$out.log"; exit 1; }
    rm -f "$out.log"
    total=$(awk '/^summary:|^totals:/ { print $2; exit }' "$out")
    each=$((total / calls))
    verdict=""
    [ "$goal" = - ] || { [ "$each" -le "$goal" ] && verdict="  goal <= $goal  met" || verdict="  goal <= $goal  NOT MET"; }
    printf '  %-10s %6d%s\n' "$what" "$each" "$verdict"
done <<EOF
find 220 netshm_hashtbl_find 20000
miss - netshm_hashtbl_find 20000
replace 320 netshm_hashtbl_replace 20000
add 850 netshm_hashtbl_add 270000
remove - netshm_hashtbl_remove 20000
count - measured_count 20000
group - measured_group 20000
EOF
