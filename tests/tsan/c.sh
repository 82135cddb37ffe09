#!/bin/sh
# Goal: what several threads of a C program do to one handle is free of data races inside of the library. Method: library
# and Rust's standard library compiled for ThreadSanitizer, the C suites that have threads linked with them; before that
# it is proved that races are seen on both sides. usage: c.sh BUILD CC TARGET_DIR, from the repository's root.
set -eu
sanitizer=tsan
. tests/support/instrumented.sh

build_program() {
    build_instrumented "$1" "$2" '-lstdc++' -fsanitize=thread
}

rustup run nightly cargo rustc --quiet --locked -Zbuild-std=std,panic_unwind --target "$host" --target-dir "$target_dir" \
    --lib --crate-type staticlib

build_program tests/tsan/racing.c "$build/racing"
timeout 60 "$build/racing" none > "$build/log" 2>&1 ||
    { cat "$build/log"; echo 'test-tsan: a race is seen where none is'; exit 1; }
for where in c:races library:netshm_hashtbl_find; do
    if timeout 60 "$build/racing" "${where%:*}" > "$build/log" 2>&1; then
        echo "test-tsan: the race in ${where%:*} is not seen" && exit 1
    fi
    grep -q "WARNING: ThreadSanitizer: data race" "$build/log" && grep -q "#[0-9]* ${where#*:}" "$build/log" ||
        { cat "$build/log"; echo "test-tsan: what is seen is not the race in ${where%:*}"; exit 1; }
done
echo 'ThreadSanitizer sees a race in C and a race in the library, and none where none is'

for test in t_threads t_group; do build_program c_tests/$test.c "$build/$test"; done
prove --exec 'timeout 120' "$build/t_threads" "$build/t_group"
NETSHM_LOCKING=record prove --exec 'timeout 120' "$build/t_threads" "$build/t_group"
