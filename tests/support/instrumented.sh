# Sourced by the tests that link C programs with an instrumented library, with BUILD CC TARGET_DIR: names what they need.
# $sanitizer is what it is compiled for.
build=$1/$sanitizer
cc=$2
target_dir=$3
host=$(rustup run nightly rustc -vV | sed -n 's/^host: //p')
library=$target_dir/$host/debug/libnetshm.a
# The runtime of the compiler that instruments the library; the C compiler's instrumentation calls it by the same names.
runtime=$(rustup run nightly rustc --print sysroot)/lib/rustlib/$host/lib/librustc-nightly_rt.$sanitizer.a
libs=$(sed -n 's/^Libs.private: //p' netshm.pc.in)
mkdir -p "$build"

# build_instrumented SOURCE PROGRAM LIBRARIES FLAG...
build_instrumented() {
    source=$1 program=$2 more=$3
    shift 3
    $cc -std=c99 -g -O1 -D_GNU_SOURCE -pthread -Iinclude -Ic_tests -Wall -Wextra "$@" -c "$source" -o "$program.o"
    # shellcheck disable=SC2086 # several libraries are several words
    $cc "$program.o" -o "$program" -Wl,--whole-archive "$runtime" -Wl,--no-whole-archive "$library" $libs $more
}
