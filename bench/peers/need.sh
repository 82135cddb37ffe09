#!/bin/bash
# need.sh OUT: installs the peers from Debian's packages, and writes to OUT, for build.mk, which of them are there.
# One that is not, and cannot be installed, is said loudly, and is left out.
set -u
out=$1
here=$(cd "$(dirname "$0")" && pwd)

updated=
install() {
    [ "$(id -u)" = 0 ] && command -v apt-get > /dev/null 2>&1 || return 1
    # Services of packages are not wanted: what is needed is started by the suite itself.
    apt-get install -y "$@" > /dev/null 2>&1 && return 0
    [ -n "$updated" ] && return 1
    updated=yes
    apt-get update > /dev/null 2>&1 && apt-get install -y "$@" > /dev/null 2>&1
}

# peer NAME TEST PACKAGE...: TEST is a command that succeeds if the peer is there.
peer() {
    local name=$1 test=$2
    shift 2
    if ! eval "$test" > /dev/null 2>&1; then
        echo "bench: $name is missing: trying apt-get install $*" >&2
        install "$@"
    fi
    if eval "$test" > /dev/null 2>&1; then
        echo "PEERS += $name" >> "$new"
    else
        echo "SKIP: $name is not installed and could not be installed: nothing is measured beside it" >&2
    fi
}
header() { printf '#include <stdlib.h>\n#include <%s>\n' "$1" | c++ -std=c++17 -fsyntax-only -x c++ -; }

new=$out.new
: > "$new"
peer absl 'pkg-config --exists absl_flat_hash_map absl_strings' pkg-config libabsl-dev
peer tdb 'ls /usr/include/tdb.h' libtdb-dev
peer lmdb 'header lmdb.h' liblmdb-dev
peer boost 'header boost/interprocess/managed_shared_memory.hpp && header boost/unordered_map.hpp' libboost-dev
peer bdb 'header db.h' libdb-dev
peer redis 'header hiredis/hiredis.h && command -v redis-server' libhiredis-dev redis-server
if "$here/../../tests/ocaml/need.sh" >&2; then echo "PEERS += ocamlnet" >> "$new"; fi
# Left alone if nothing has changed, so that nothing is built again.
cmp -s "$new" "$out" || cp "$new" "$out"
rm "$new"
