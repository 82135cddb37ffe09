#!/bin/sh
# need.sh COMMAND PACKAGE: makes sure that a command is there, by apt-get if need be. Fails, loudly, if it is not.
command -v "$1" > /dev/null 2>&1 && exit 0
echo "$1 is missing: trying apt-get install $2"
if [ "$(id -u)" = 0 ] && command -v apt-get > /dev/null 2>&1; then
    apt-get install -y "$2" > /dev/null 2>&1 ||
        { apt-get update > /dev/null 2>&1 && apt-get install -y "$2" > /dev/null 2>&1; }
fi
command -v "$1" > /dev/null 2>&1 && exit 0
echo "SKIP: $1 is not installed and could not be installed: what needs it was NOT tested"
exit 1
