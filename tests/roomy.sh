#!/bin/sh
# Runs a command with at least 1 GiB of shared memory: where the machine's /dev/shm has less, as in containers, with a tmpfs in
# a mount namespace of its own. The library needs no more than what is put into it, but tests put much into it.
# usage: roomy.sh COMMAND...
set -eu
WANTED_KIB=1048576
left=$(df -k --output=avail /dev/shm 2> /dev/null | tail -n 1 || echo 0)
if [ "${left:-0}" -ge "$WANTED_KIB" ]; then
    exec "$@"
fi
# shellcheck disable=SC2016 # $@ is the inner shell's
inside='mount -t tmpfs -o size=2g,mode=1777 none /dev/shm && exec "$@"'
for how in 'unshare --mount' 'unshare --map-root-user --mount'; do
    if $how true 2> /dev/null; then
        echo "roomy.sh: /dev/shm has ${left} KiB left: a larger one in a namespace is used"
        exec $how sh -c "$inside" sh "$@"
    fi
done
echo "roomy.sh: /dev/shm has ${left} KiB left, and no namespace is permitted: tests that need more will fail"
exec "$@"
