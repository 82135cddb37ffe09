#!/bin/sh
# Which lines and branches the Rust and C tests reach, per room of src/. usage: run.sh BUILD [ROOM...]
# With rooms: also every branch of theirs of which one side was never taken, for somebody to look at.
#
# Processes are killed in these tests at any moment, so counters lie in mapped files ("%c") that all processes share.
# Needs a nightly toolchain with llvm-tools: branches are not counted by the stable one.
set -eu
cd "$(dirname "$0")/../.."
build=$1/coverage
shift
toolchain=${NIGHTLY:-nightly}
if ! rustup run "$toolchain" rustc --version > /dev/null 2>&1; then
    echo "SKIP: coverage: there is no toolchain $toolchain"
    exit 0
fi
rustup component add --toolchain "$toolchain" llvm-tools > /dev/null 2>&1 || true
tools=$(rustup run "$toolchain" rustc --print sysroot)/lib/rustlib/$(rustup run "$toolchain" rustc -vV | sed -n 's/^host: //p')/bin
if [ ! -x "$tools/llvm-cov" ]; then
    echo "SKIP: coverage: $toolchain has no llvm-tools, and they could not be installed"
    exit 0
fi
mkdir -p "$build"
rm -f "$build"/*.profraw
export RUSTFLAGS="-C instrument-coverage -Z coverage-options=branch -C llvm-args=-runtime-counter-relocation"
export LLVM_PROFILE_FILE="$build/%m%c.profraw"
export CARGO_PROFILE_DEV_DEBUG=0
cargo="rustup run $toolchain cargo"
hostile="$cargo test --config profile.dev.debug-assertions=false --config profile.dev.overflow-checks=false
    --target-dir $build/hostile --test hostile_bytes"
failed() { echo "coverage: some tests failed, see $build/tests.log"; }
# shellcheck disable=SC2086 # TESTS and cargo are several words
$cargo test --features inject --target-dir "$build/target" ${TESTS:---lib --tests} --no-fail-fast > "$build/tests.log" 2>&1 ||
    failed
if [ -z "${TESTS:-}" ]; then
    # What `make test-rust` does again with record locks and with checksums.
    for again in NETSHM_LOCKING=record NETSHM_CHECKSUMS=1; do
        # shellcheck disable=SC2046,SC2086
        env $again NETSHM_KILLS=60 $cargo test --features inject --target-dir "$build/target" --no-fail-fast \
            $(printf -- '--test %s ' $RECORD_TESTS kill model deadlock) >> "$build/tests.log" 2>&1 || failed
    done
    # Hostile bytes, which may break assertions: without these.
    $hostile >> "$build/tests.log" 2>&1 || failed
fi
# The C suite on a shared library that counts as well.
# shellcheck disable=SC2086
$cargo build --lib --target-dir "$build/target" >> "$build/tests.log" 2>&1
mkdir -p "$build/lib"
for name in libnetshm.so libnetshm.so.0; do cp "$build/target/debug/libnetshm.so" "$build/lib/$name"; done
cp "$build/target/debug/libnetshm.a" "$build/lib/"
make --no-print-directory -C c_tests BUILD="$build" CC=cc CXX=c++ VARIANTS=c-shared variants >> "$build/tests.log" 2>&1 ||
    echo "coverage: some C tests failed, see $build/tests.log"
"$tools/llvm-profdata" merge --sparse --failure-mode=all "$build"/*.profraw -o "$build/all.profdata"
# shellcheck disable=SC2086
executables() { "$@" --no-run --message-format=json 2> /dev/null | sed -n 's/.*"executable":"\([^"]*\)".*/--object \1/p'; }
# shellcheck disable=SC2086
objects=$(executables $cargo test --features inject --target-dir "$build/target" ${TESTS:---lib --tests})
# shellcheck disable=SC2086
[ -n "${TESTS:-}" ] || objects="$objects $(executables $hostile)"
objects="$objects --object $build/lib/libnetshm.so.0"
# shellcheck disable=SC2086
"$tools/llvm-cov" export --format=lcov --instr-profile="$build/all.profdata" $objects --sources "$PWD/src" > "$build/lcov.info"
exec tests/coverage/report.py "$build/lcov.info" "$@"
