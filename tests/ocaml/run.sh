#!/bin/bash
# run.sh BUILD CC: compares this library with the reference, Ocamlnet.
#
# Lists of persistent objects: written by one and read by the other, both ways; by both at once; while ten processes
# have the object open whose management file is the list. Tables: random operations are made from a seed and
# performed by both, and the answers compared, one for each operation. SEEDS and COUNT say how many.
set -euo pipefail
build=$1 cc=$2
here=$(cd "$(dirname "$0")" && pwd)
out=$build/ocaml
SEEDS=${SEEDS:-8}
COUNT=${COUNT:-2500}
scratch=$(mktemp -d)
mem=netshm-ocaml-$$
children=()
clean_up() {
    [ ${#children[@]} = 0 ] || kill "${children[@]}" 2> /dev/null || true
    rm -rf "$scratch" "/dev/shm/$mem"
}
trap clean_up EXIT
fail() { echo "test-ocaml: FAILED: $*"; exit 1; }

# ---- Building

mkdir -p "$out"
cp "$here"/*.ml "$out/"
for program in pmanage tables array_resize; do
    (cd "$out" && ocamlfind ocamlopt -package netsys,netshm,bigarray -linkpkg hex.ml $program.ml -o "ref_$program")
done
primitive=
grep -q 'netshm_table_find_all(' "$here/../../include/netshm.h" && primitive=-DHAVE_PRIMITIVE
for program in ours_pmanage ours_tables; do
    $cc -std=c99 -O1 -g -Wall -Wextra -Wpedantic -Werror $primitive -I"$here/../../include" "$here/$program.c" \
        -o "$out/$program" -L"$build/lib" -lnetshm -Wl,-rpath,"$build/lib"
done
ref=$out/ref_pmanage ours=$out/ours_pmanage

# ---- Lists

# Every byte but NUL in one path, what %S escapes, what looks like an escape, and quotation marks.
all=x2f$(for i in $(seq 1 255); do printf %02x "$i"; done)
cat > "$scratch/script" << END
register FILE x2f6120620a FILE $all POSIX_SHM x2f22
register POSIX_SEM x2f5c6e5c2f22 SEM_CONT x2fc3a4
register FILE x2f5c3132335c7834315c
unregister FILE x2f6120620a
register POSIX_SHM x2f2f09080d27 FILE x2f20
unregister POSIX_SHM x2f22
END
"$ref" "$scratch/ref" < "$scratch/script"
"$ours" "$scratch/ours" < "$scratch/script"
cmp "$scratch/ref" "$scratch/ours" || fail 'the same events make different files'
list() { echo list | "$1" "$2" | LC_ALL=C sort; }
for file in ref ours; do
    list "$ref" "$scratch/$file" > "$scratch/by_ref"
    list "$ours" "$scratch/$file" > "$scratch/by_ours"
    cmp "$scratch/by_ref" "$scratch/by_ours" || fail "the list that $file has made is read differently"
    [ "$(wc -l < "$scratch/by_ours")" = 6 ] || fail "the list that $file has made does not hold 6 objects"
    grep -q "^FILE $all\$" "$scratch/by_ours" || fail 'the odd characters were not read'
done

# Each goes on with the other's file, and takes back what the other has registered.
echo "unregister FILE $all" | "$ref" "$scratch/ours"
echo "unregister FILE $all" | "$ours" "$scratch/ref"
cmp "$scratch/ref" "$scratch/ours" || fail 'a file that both have written differs'
[ "$(list "$ours" "$scratch/ref" | wc -l)" = 5 ] || fail 'what the other registered was not unregistered'

# Forms that the reference never writes, but reads.
printf 'RFILE\n"/a\\\n   b"\r\nU   SEM_CONT\t"/c"\nR POSIX_SEM "/\\x41\\\r\n b\\065"\n\n' > "$scratch/forms"
list "$ref" "$scratch/forms" > "$scratch/by_ref"
list "$ours" "$scratch/forms" > "$scratch/by_ours"
cmp "$scratch/by_ref" "$scratch/by_ours" || fail 'odd forms are read differently'
[ "$(wc -l < "$scratch/by_ours")" = 2 ] || fail 'odd forms are not read'
echo 'test-ocaml: lists: written by one, read by the other, both ways, odd characters included'

# ---- The list of an object that ten processes have open, written by both at once

file=$scratch/managed
# The holders end when nobody has the pipe open for writing; they begin when somebody has.
hold() {
    mkfifo "$scratch/end"
    for i in 1 2 3 4 5 6 7 8 9 10; do
        timeout 300 "$ours" "$file" hold "/$mem" < "$scratch/end" > "$scratch/holder$i" &
        children+=($!)
    done
    exec 9> "$scratch/end"
    for i in $(seq 1 600); do
        [ "$(cat "$scratch"/holder* | grep -c ready)" = 10 ] && return 0
        sleep 0.1
    done
    fail 'the holders did not begin'
}
release() {
    exec 9>&-
    for child in "${children[@]}"; do
        wait "$child" || fail "a holder could not go on after $1 had deleted the name"
    done
    rm "$scratch/end" "$scratch"/holder*
    children=()
}
for deleter in ref_pmanage ours_pmanage; do
    : > "$file"
    # The management file is made by one, and accepted by the other.
    [ $deleter = ours_pmanage ] && { rm "$file"; echo "open /$mem" | timeout 60 "$ref" "$file"; rm -f "/dev/shm/$mem"; }
    hold
    grep -qx "R POSIX_SHM \"/$mem\"" "$file" || fail 'the object is not registered'
    writers=()
    for i in 1 2 3 4 5; do
        for writer in "$ref" "$ours"; do
            name=$(printf '/%s-%s' "$i" "$(basename "$writer")" | od -An -tx1 | tr -d ' \n')
            for k in $(seq 10 49); do
                echo "register FILE x$name$k POSIX_SEM x$name$k"
                echo "unregister POSIX_SEM x$name$k"
            done | timeout 120 "$writer" "$file" &
            writers+=($!)
        done
    done
    for writer in "${writers[@]}"; do wait "$writer" || fail 'a writer failed'; done
    list "$ref" "$file" > "$scratch/by_ref"
    list "$ours" "$file" > "$scratch/by_ours"
    cmp "$scratch/by_ref" "$scratch/by_ours" || fail 'what ten wrote is read differently'
    [ "$(wc -l < "$scratch/by_ours")" = 401 ] || fail 'something that ten wrote is lost'
    [ -e "/dev/shm/$mem" ] || fail 'the memory is gone too early'
    echo unlink | timeout 60 "$out/$deleter" "$file"
    [ ! -e "/dev/shm/$mem" ] || fail "$deleter did not delete the memory"
    [ ! -s "$file" ] || fail "$deleter did not empty the list"
    release $deleter
done
echo 'test-ocaml: lists: written by ten at once and deleted by either, while ten processes hold the object'

# ---- Tables

compare() {
    local operations=$1 ours=$2 seed
    for seed in $(seq 1 "$SEEDS"); do
        "$out/ours_tables" generate "$operations" "$seed" "$COUNT" > "$scratch/operations"
        rm -f "$scratch/ref_table" "$scratch/our_table"
        timeout 300 "$out/ref_tables" "$operations" "$scratch/ref_table" "$scratch/operations" > "$scratch/by_ref"
        timeout 300 "$out/ours_tables" "$ours" "$scratch/our_table" "$scratch/operations" > "$scratch/by_ours"
        [ "$(wc -l < "$scratch/by_ref")" = "$(wc -l < "$scratch/operations")" ] || fail 'answers are missing'
        cmp "$scratch/by_ref" "$scratch/by_ours" ||
            fail "$operations, $ours, seed $seed: $(diff "$scratch/by_ref" "$scratch/by_ours" | head -n 4 | cut -c 1-300)"
    done
    echo "test-ocaml: tables: $SEEDS times $COUNT operations with $operations answered alike by $ours"
}
compare string bytes
compare int32 bytes
[ -z "$primitive" ] || compare int32 primitive

# ---- What the reference cannot do; docs/reference.md quotes it.

"$out/ref_array_resize" "$scratch/array1" "$scratch/array2" > "$scratch/array"
cat "$scratch/array"
while read -r line; do
    grep -qxF "    $line" "$here/../../docs/reference.md" || fail "docs/reference.md does not quote: $line"
done < "$scratch/array"
echo 'test-ocaml: the reference fails to resize an array as docs/reference.md says'
