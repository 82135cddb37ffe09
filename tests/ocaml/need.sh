#!/bin/sh
# need.sh: makes sure that OCaml and Ocamlnet are there, by apt-get if need be. Fails, loudly, if they are not.
here=$(dirname "$0")
"$here/../../c_tests/need.sh" ocamlopt ocaml-nox || exit 1
"$here/../../c_tests/need.sh" ocamlfind ocaml-findlib || exit 1
ocamlfind query netshm > /dev/null 2>&1 && exit 0
echo "Ocamlnet is missing: trying apt-get install libocamlnet-ocaml-dev"
if [ "$(id -u)" = 0 ] && command -v apt-get > /dev/null 2>&1; then
    apt-get install -y libocamlnet-ocaml-dev > /dev/null 2>&1 ||
        { apt-get update > /dev/null 2>&1 && apt-get install -y libocamlnet-ocaml-dev > /dev/null 2>&1; }
fi
ocamlfind query netshm > /dev/null 2>&1 && exit 0
echo "SKIP: Ocamlnet is not installed and could not be installed: what needs it was NOT tested"
exit 1
