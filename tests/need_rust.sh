#!/bin/sh
# need_rust.sh TOOLCHAIN [COMPONENT]: makes sure that a toolchain is there, by rustup if need be. Fails, loudly, if not.
present() {
    rustup run "$1" rustc --version > /dev/null 2>&1 &&
        { [ -z "${2:-}" ] || rustup component list --toolchain "$1" --installed 2> /dev/null | grep -q "^$2"; }
}

if command -v rustup > /dev/null 2>&1; then
    present "$@" && exit 0
    echo "Rust $* is missing: trying rustup"
    rustup toolchain install "$1" --profile minimal ${2:+--component "$2"} > /dev/null 2>&1
    present "$@" && exit 0
fi
echo "SKIP: Rust $* is not installed and could not be installed: what needs it was NOT tested"
exit 1
