#!/bin/sh
# Goal: what Rust exports is what the header promises to C. Method: both describe their functions and structures from
# debug information, the library as it is shipped and a C file that takes the address of every exported function; the two
# descriptions have to be equal. usage: check.sh BUILD CC, from the repository's root.
set -eu
build=$1
cc=$2
symbols=c_tests/symbols.txt
dir=$build/abi
mkdir -p "$dir"

describe() {
    gdb --nx --batch -iex 'set debuginfod enabled off' -ex "python ABI = ('$1', 'include/netshm.h', '$symbols')" \
        -x tests/abi/describe.py "$2" > "$3" 2> "$dir/log"
    # gdb ends with 0 whatever a script says.
    if [ -s "$dir/log" ]; then
        cat "$dir/log"
        echo "check-abi: the description of $2 has failed"
        exit 1
    fi
}

{
    echo '#include "netshm.h"'
    while read -r f; do echo "__typeof__($f) *abi_$f = $f;"; done < "$symbols"
} > "$dir/header.c"
$cc -std=gnu11 -g -Wall -Werror -Iinclude -c "$dir/header.c" -o "$dir/header.o"
describe C "$dir/header.o" "$dir/header.txt"
describe Rust "$build/lib/libnetshm.so" "$dir/library.txt"
diff -u "$dir/header.txt" "$dir/library.txt" ||
    { echo 'The library is not what the header says: above, - is the header, + is the library'; exit 1; }
functions=$(grep -c '^netshm_[a-z0-9_]*: .*(' "$dir/header.txt")
[ "$functions" = "$(wc -l < "$symbols")" ] || { echo "check-abi: $functions functions described"; exit 1; }
structures=$(grep -c 'bytes, aligned' "$dir/header.txt")
echo "check-abi: $functions functions and $structures structures are the same in the library and in the header"
