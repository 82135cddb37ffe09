#!/bin/sh
# tutorial.sh BUILD CC: builds and runs every C program of docs/tutorial.md, and compares what it prints with the text
# block that follows it. The one block without main is the header that all of them include.
set -eu
build=$1 cc=$2
cd "$(dirname "$0")/.."
dir=$build/tutorial
tag=netshm-tut-$$
rm -rf "$dir"
mkdir -p "$dir"
# Objects get names that no other run of this script has.
sed "s/netshm-tut\./$tag./g" docs/tutorial.md | awk -v dir="$dir" '
    /^```c$/ { n++; file = sprintf("%s/%02d.c", dir, n); next }
    /^```text$/ { file = sprintf("%s/%02d.expected", dir, n); printf "" > file; next }
    /^```/ { file = ""; next }
    file != "" { print > file }'
clean_up() { rm -f /tmp/"$tag".* /dev/shm/"$tag".*; }
trap clean_up EXIT
fail() { echo "test-tutorial: $*"; exit 1; }
found=0 compared=0
for program in "$dir"/*.c; do
    if ! grep -q 'int main' "$program"; then
        [ ! -e "$dir/tutorial.h" ] || fail "docs/tutorial.md has two blocks without main: $program"
        mv "$program" "$dir/tutorial.h"
    fi
done
for program in "$dir"/*.c; do
    [ -e "$program" ] || fail "docs/tutorial.md has no C program"
    name=${program%.c}
    $cc -std=c11 -Wall -Wextra -Werror -Iinclude "$program" -o "$name" -L"$build/lib" -lnetshm -Wl,-rpath,"$build/lib" \
        -pthread
    timeout 60 "$name" > "$name.out" || fail "$program failed"
    if [ -e "$name.expected" ]; then
        diff -u "$name.expected" "$name.out" || fail "$program prints something else"
        compared=$((compared + 1))
    fi
    for left in /tmp/"$tag".* /dev/shm/"$tag".*; do
        [ ! -e "$left" ] || fail "$program has left $left"
    done
    found=$((found + 1))
done
echo "test-tutorial: $found C programs of docs/tutorial.md built and run, the output of $compared compared"
