#!/bin/sh
# readme.sh BUILD CC: builds and runs every C program of the README.
set -eu
build=$1 cc=$2
cd "$(dirname "$0")/.."
[ -e README.md ] || { echo "SKIP: test-readme: there is no README.md"; exit 0; }
dir=$build/readme
rm -rf "$dir"
mkdir -p "$dir"
awk -v dir="$dir" '/^```c$/ { n++; on = 1; next } /^```/ { on = 0 } on { print > (dir "/" n ".c") }' README.md
clean_up() { rm -f /tmp/netshm-hello /dev/shm/netshm-hello; }
clean_up
trap clean_up EXIT
found=0 hello=0
for program in "$dir"/*.c; do
    [ -e "$program" ] && grep -q 'int main' "$program" || continue
    found=$((found + 1))
    if cmp -s "$program" examples_c/hello.c; then hello=1; fi
    $cc -std=c99 -Wall -Wextra -Werror -Iinclude "$program" -o "${program%.c}" -L"$build/lib" -lnetshm \
        -Wl,-rpath,"$build/lib" -pthread
    "${program%.c}" > "${program%.c}.out" || { echo "test-readme: $program failed"; exit 1; }
done
[ "$found" -gt 0 ] || { echo "SKIP: test-readme: README.md has no C program"; exit 0; }
[ "$hello" = 1 ] || { echo "test-readme: README.md does not show examples_c/hello.c as it is"; exit 1; }
echo "test-readme: $found C programs of the README built and run"
