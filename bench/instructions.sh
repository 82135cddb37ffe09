#!/bin/sh
# Instructions per call into the release library, by callgrind, for the library as it is compiled.
# usage: instructions.sh PROGRAM           prints them, and whether the goals are met
#        instructions.sh PROGRAM check     compares them with those on file
#        instructions.sh PROGRAM record    puts them on file
#
# On file are the instructions of the library itself, and how often a call leaves it, for libc as a rule: which memcpy
# libc takes depends on the processor, what the library does depends on compiler and target features alone. So there is
# a file for each of these, and it holds on any machine. The goals count what libc does as well. A goal such as words+20
# is beside another row of the same run, and `check` judges it too.
set -eu
cd "$(dirname "$0")"
program=$1
todo=${2:-print}
case $todo in
print | check | record) ;;
*) echo "instructions.sh: what is $todo?" >&2 && exit 2 ;;
esac
TOLERANCE_PERCENT=3

out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT

# From a profile: instructions per call, those of the library among them, and calls out of it.
per_call() {
    awk -v calls="$2" '
        /^ob=/ { inside = /libnetshm/; next }
        /^cob=/ { leaves = !/libnetshm/; next }
        /^calls=/ {
            sub("calls=", "", $1)
            if (inside && leaves) left += $1
            leaves = 0
            inclusive = 1
            next
        }
        /^[0-9]/ { if (inside && !inclusive) own += $2; inclusive = 0 }
        /^totals:/ { total = $2 }
        END { if (!own) exit 1; printf "%.2f %.2f %.2f\n", total / calls, own / calls, left / calls }' "$1"
}

# Row, all instructions, those of the library, calls out of it; and the goal.
measure() {
    while read -r row goal function calls; do
        valgrind --tool=callgrind --callgrind-out-file="$out/profile" --compress-strings=no --compress-pos=no \
            --collect-atstart=no --toggle-collect="$function" "$program" "$row" > /dev/null 2> "$out/log" < /dev/null ||
            { cat "$out/log" >&2; return 1; }
        counts=$(per_call "$out/profile" "$calls") ||
            { echo "instructions.sh: $row: nothing was counted inside of libnetshm" >&2; return 1; }
        echo "$row $counts $goal"
    done <<EOF
find 170 netshm_hashtbl_find 20000
miss 130 netshm_hashtbl_find 20000
replace 230 netshm_hashtbl_replace 20000
add 650 netshm_hashtbl_add 270000
words - netshm_hashtbl_find 20000
typed words+20 netshm_hashtbl_find_v 20000
find_1k - netshm_hashtbl_find 20000
replace_1k - netshm_hashtbl_replace 20000
find_16 - netshm_hashtbl_find_many_into 20000
replace_16 - netshm_hashtbl_replace_many 20000
remove - netshm_hashtbl_remove 20000
move - netshm_hashtbl_replace 20000
count 200 measured_count 20000
update - measured_update 20000
compare - measured_cas 20000
group - measured_group 20000
group2 - measured_group2 10000
group8 - measured_group8 20000
many8 - measured_many8 2500
walk - netshm_hashtbl_iter 251000
EOF
}

# The file for this compiler and these target features. The library says what compiled it.
file_name() {
    library=$(ldd "$program" | awk '/libnetshm/ { print $3 }')
    version=$(readelf -p .comment "$library" | sed -n 's/.*rustc version \([^ ]*\).*/\1/p' | head -n 1)
    # shellcheck disable=SC2086 # several flags are several words
    features=$("${RUSTC:-rustc}" ${RUSTFLAGS:-} --print cfg | sed -n 's/^target_feature="\(.*\)"/\1/p' | sort | tr '\n' '-')
    echo "counts/$version-$(uname -m)-${features%-}.txt"
}

print() {
    echo "instructions per call (callgrind; 250,000 keys of 16 bytes, values of 64 bytes; add: the mean from empty;"
    echo "find_16, replace_16: per key; walk: per binding), those of the library itself, and calls that leave it"
    while read -r row total own left goal; do
        verdict=""
        [ "$goal" = - ] || verdict="  goal <= $goal  $(is_met "$total" "$goal" && echo met || echo 'NOT MET')"
        printf '  %-10s %6.0f %9.2f %6.2f%s\n' "$row" "$total" "$own" "$left" "$verdict"
    done
}

# Is a count within its goal, a number or ROW+NUMBER?
is_met() {
    case $2 in
    *+*) beside=$(awk -v row="${2%+*}" '$1 == row { print $2 }' "$out/measured") more=${2#*+} ;;
    *) beside=0 more=$2 ;;
    esac
    awk -v t="$1" -v b="$beside" -v m="$more" 'BEGIN { exit !(b != "" && int(t - b) <= m) }'
}

# Those that hold on any machine.
check_goals_beside_rows() {
    grep ' [a-z0-9_]*+[0-9]*$' "$out/measured" | {
        failed=0
        while read -r row total own left goal; do
            is_met "$total" "$goal" && continue
            echo "$row: $total instructions, NOT within its goal of $goal"
            failed=1
        done
        return "$failed"
    }
}

record() {
    mkdir -p counts
    {
        echo '# What one call costs: instructions of the library itself, calls that leave it. By: make record-instructions'
        awk '{ print $1, $3, $4 }' "$out/measured"
    } > "$file"
    echo "recorded in bench/$file"
}

check() {
    if [ ! -f "$file" ]; then
        print < "$out/measured"
        echo "SKIP: instruction counts: there is no bench/$file to compare with. To make it, from a state that is good:" \
            "make record-instructions"
        return 0
    fi
    awk -v percent="$TOLERANCE_PERCENT" -v file="bench/$file" '
        function off(now, was, slack) { slack += was * percent / 100; return now > was + slack ? 1 : now < was - slack ? -1 : 0 }
        function judge(what, now, was, slack, verdict) {
            verdict = off(now, was, slack)
            if (verdict) printf "%s: %.2f %s, %.2f on file\n", $1, now, what, was
            if (verdict > 0) worse = 1
            if (verdict < 0) better = 1
        }
        NR == FNR { if (!/^#/) { own[$1] = $2; left[$1] = $3 } next }
        !($1 in own) { print $1 ": not on file"; better = 1; next }
        { judge("instructions", $3, own[$1], 0); judge("calls out of the library", $4, left[$1], 0.1); seen[$1] = 1 }
        END {
            for (row in own) if (!(row in seen)) { print row ": on file, not measured"; better = 1 }
            if (worse) print "Slower by more than " percent "%. If that has to be: make record-instructions"
            if (better) print "Not what is on file: so that it does not get lost again, make record-instructions"
            if (worse || better) exit 1
            print "check-instructions: within " percent "% of " file
        }' "$file" "$out/measured"
}

measure > "$out/measured"
file=$(file_name)
case $todo in
print) print < "$out/measured" ;;
record) record && print < "$out/measured" ;;
check) check_goals_beside_rows && check ;;
esac
