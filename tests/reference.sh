#!/bin/sh
# reference.sh: docs/reference.md is complete and true to the names: every test that it names exists, and, where Ocamlnet is
# installed, everything that its interfaces declare is in the table of its module.
set -eu
here=$(cd "$(dirname "$0")/.." && pwd)
doc=$here/docs/reference.md
failures=$(mktemp)
trap 'rm -f "$failures"' EXIT

# The last column of the tables: "t_table stacks, views; model.rs among_others; src/pmanage.rs threads_lose_nothing; ocaml".
named() {
    sed -n 's/^|.*| *\([^|]*\) |$/\1/p' "$doc" | grep -vx -e 'tests\?' -e '---|*' -e '-' | tr ';' '\n' | sed 's/^ *//; s/ *$//'
}

named | sort -u | while read -r file tests; do
    case $file in
    ocaml) continue ;;
    t_*) path=c_tests/$file.c pattern='^(static )?(int|void) %s\(' ;;
    src/*.rs) path=$file pattern='fn %s\(' ;;
    *.rs) path=tests/$file pattern='fn %s\(|"%s"' ;;
    *) path=$file pattern= ;;
    esac
    [ -n "$pattern" ] && [ -f "$here/$path" ] || { echo "there is no test $file" >> "$failures"; continue; }
    [ -n "$tests" ] || echo "no function of $file is named" >> "$failures"
    for test in $(echo "$tests" | tr -d ,); do
        grep -qE "$(echo "$pattern" | sed "s/%s/$test/g")" "$here/$path" || echo "there is no $test in $path" >> "$failures"
    done
done

# What an interface declares, without comments: values, methods, exceptions, types, polymorphic variants, record fields.
declared() {
    perl -0pe '1 while s/\(\*(?:(?!\(\*|\*\)).)*\*\)//s' "$1" | tee "$failures.mli" |
        sed -nE 's/^ *(val|method|exception|type|class type) +(\(.*\) +|'"'"'[a-z]+ +)?([A-Za-z0-9_]+).*/\3/p'
    grep -oE '`[A-Z][A-Za-z_]*' "$failures.mli"
    sed -nE 's/^ *[{ ]* *([a-z_0-9]+) : .*;.*/\1/p; s/^ *(hash_fn) : .*/\1/p' "$failures.mli"
    rm -f "$failures.mli"
}

if command -v ocamlfind > /dev/null 2>&1 && ocamlfind query netshm > /dev/null 2>&1; then
    netshm=$(ocamlfind query netshm) netsys=$(ocamlfind query netsys)
    for mli in netshm/netshm netshm/netshm_hashtbl netshm/netshm_array netshm/netshm_data netsys/netsys_pmanage; do
        module=$(basename $mli | sed 's/^n/N/')
        # The words of the first column of this module's tables; what was left out counts for all.
        awk -F' [|] ' -v module="$module" '/^## / { of = $0; gsub(/^## |:.*/, "", of) }
            of == module && /^[|]/ { print $1 } of == "Left out"' "$doc" |
            grep -oE '`?[A-Za-z0-9_]+' > "$failures.words"
        declared "$(case $mli in netshm/*) echo "$netshm" ;; *) echo "$netsys" ;; esac)/$(basename $mli).mli" | sort -u |
            while read -r name; do
                grep -qxF -e "$name" -e "\`$name" "$failures.words" ||
                    echo "$module: $name is not in its table" >> "$failures"
            done
        rm -f "$failures.words"
    done
    checked='and everything of the interfaces of Ocamlnet is there'
else
    checked='(SKIP: Ocamlnet is not installed: its interfaces were NOT compared)'
fi
[ ! -s "$failures" ] || { cat "$failures"; exit 1; }
echo "reference: $(named | tr -d ';' | wc -l) references to tests in docs/reference.md are good, $checked"
