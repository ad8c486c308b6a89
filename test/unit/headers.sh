#!/bin/sh
# Each public header compiles alone, as C and as C++, pedantically; none shows a library of ours.
# Usage: headers.sh INCLUDE-DIRECTORY
set -eu
include=$1
count=0
for header in "$include"/bough/*.h; do
    name=bough/$(basename "$header")
    for standard in c11 c17; do
        printf '#include "%s"\n#include "%s"\nint main(void) { return 0; }\n' "$name" "$name" |
            "${CC:-cc}" -x c -std=$standard -pedantic -Wall -Wextra -Wundef -Wstrict-prototypes \
                -Werror -fsyntax-only -I"$include" -
    done
    if command -v "${CXX:-c++}" >/dev/null; then
        printf '#include "%s"\nint main() { return 0; }\n' "$name" |
            "${CXX:-c++}" -x c++ -std=c++11 -pedantic -Wall -Wextra -Wundef -Werror -fsyntax-only \
                -I"$include" -
    fi
    if grep -nE 'json_t|jansson\.h|CURL|curl/' "$header"; then
        echo "$header shows a library that is ours alone" >&2
        exit 1
    fi
    count=$((count + 1))
done
test "$count" -ge 7
echo "$count headers compile alone"
