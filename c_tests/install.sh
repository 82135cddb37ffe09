#!/bin/sh
# install.sh MAKE BUILD CC CXX: installs to a scratch directory and builds the example against that, as a user would.
set -eu
make=$1 build=$2 cc=$3 cxx=$4
root=$build/install
rm -rf "$root"
cd "$(dirname "$0")/.."
$make --no-print-directory -s install BUILD="$build" DESTDIR="$root" PREFIX=/opt/netshm > /dev/null
export PKG_CONFIG_PATH="$root/opt/netshm/lib/pkgconfig" PKG_CONFIG_SYSROOT_DIR="$root"
lib=$root/opt/netshm/lib
for f in libnetshm.so libnetshm.so.0 libnetshm.a pkgconfig/netshm.pc ../include/netshm.h; do
    [ -e "$lib/$f" ] || { echo "not installed: $f"; exit 1; }
done
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
[ "$(pkg-config --modversion netshm)" = "$version" ]
[ "$(readlink "$lib/libnetshm.so")" = libnetshm.so.0 ]
[ "$(readlink "$lib/libnetshm.so.0")" = "libnetshm.so.$version" ]
clean_up() { rm -f /tmp/netshm-hello /dev/shm/netshm-hello; }
clean_up
trap clean_up EXIT
warnings="-Wall -Wextra -Wpedantic -Werror"
$cc -std=c99 $warnings examples_c/hello.c -o "$root/hello-shared" $(pkg-config --cflags --libs netshm)
$cxx -std=c++11 $warnings -x c++ examples_c/hello.c -x none -o "$root/hello-cxx" $(pkg-config --cflags --libs netshm)
# All of it static but the system's own libraries.
$cc -std=c99 $warnings examples_c/hello.c -o "$root/hello-static" $(pkg-config --cflags netshm) \
    "$lib/libnetshm.a" $(pkg-config --static --libs-only-l netshm | sed 's/-lnetshm//')
! readelf -d "$root/hello-static" | grep -q libnetshm
run=1
for program in hello-shared hello-cxx hello-static; do
    said=$(LD_LIBRARY_PATH="$lib" "$root/$program")
    [ "$said" = "Hello, world! Run number $run." ] || { echo "$program said: $said"; exit 1; }
    run=$((run + 1))
done
echo "check-install: installed, found by pkg-config, built and run: shared, C++, static"
