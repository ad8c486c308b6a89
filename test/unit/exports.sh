#!/bin/sh
# The shared libbough exports what its public headers declare, and nothing else.
# Usage: exports.sh LIBBOUGH.SO INCLUDE-DIRECTORY
set -eu
library=$1 include=$2
directory=$(mktemp -d)
trap 'rm -rf "$directory"' EXIT
nm -D --defined-only "$library" | awk '{ print $3 }' | sort >"$directory/exported"
# macros' own definitions are no declarations
cat "$include"/bough/*.h | grep -v '^ *#' | tr '\n' ' ' | grep -oE 'BOUGH_API [^;(]*\(' |
    sed -E 's/.*[ *](bough_[a-z_]+)\($/\1/' | sort -u >"$directory/declared"
test "$(wc -l <"$directory/declared")" -gt 30
diff "$directory/declared" "$directory/exported"
readelf -d "$library" | grep -q 'soname: \[libbough\.so\.0\]'
