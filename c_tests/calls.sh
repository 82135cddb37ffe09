#!/bin/sh
# No function and no callback of the header is without the tests that all of them have. usage: c_tests/calls.sh HEADER
#
# Functions that return a code are called with a panic inside, and with NULL for their pointers; a callback of each type
# throws.
set -eu
header=$1
here=$(dirname "$0")
failed=0

missing() {
    echo "$1: $2"
    failed=1
}

# Neither goes through the guard against panics: one tells of them, the other has nothing to fail at.
no_guard='netshm_last_error netshm_best_locking'
# Their NULL is nothing to complain about, and netshm_last_error tells about complaints.
null_is_fine='netshm_last_error netshm_close netshm_hashtbl_close netshm_cursor_close netshm_type_close netshm_result_free
    netshm_array_close netshm_table_close netshm_group_abort netshm_pmanage_close'

among() {
    case " $(echo $2) " in *" $1 "*) return 0 ;; *) return 1 ;; esac
}

functions=$(sed -n 's/^int \(netshm_[a-z0-9_]*\)(.*/\1/p' "$header")
count=0
for f in $functions; do
    count=$((count + 1))
    among "$f" "$no_guard" || grep -q "panics($f(" "$here/t_panic.c" || missing "$f" 'no call with a panic inside in t_panic.c'
    # Functions without pointers.
    among "$f" 'netshm_best_locking netshm_guard_sigbus' && continue
    if among "$f" "$null_is_fine"; then
        pattern="($f(NULL)"
    else
        pattern=" null($f("
    fi
    grep -q "$pattern" "$here/t_args.c" "$here/t_nulls.c" || missing "$f" 'no call with NULL in t_args.c or t_nulls.c'
done
[ "$count" -ge 100 ] || missing "$header" "only $count functions found in it"

callbacks=$(sed -n 's/^typedef .*(\*\(netshm_[a-z0-9_]*_fn\))(.*/\1/p' "$header")
[ -n "$callbacks" ] || missing "$header" 'no callbacks found in it'
for f in $callbacks; do
    grep -q "^static const $f " "$here/t_throw.cpp" || missing "$f" 'none throws in t_throw.cpp'
done
[ "$failed" = 0 ] && echo "check-calls: $count functions and $(echo "$callbacks" | wc -l) callbacks, none without its tests"
exit "$failed"
