#!/bin/sh
# --- Start MAAS 1.0 script metadata ---
# name: 7z
# title: Processor benchmark
# description: Measures the processors by compressing and decompressing with 7z.
# script_type: testing
# hardware_type: cpu
# parallel: disabled
# timeout: 00:05:00
# tags: cpu
# packages: {apt: p7zip-full}
# results:
#   compression_ru_mips: {title: "Compression R/U", description: "MIPS for each processor in use"}
#   compression_rating_mips: {title: "Compression rating", description: "MIPS"}
#   decompression_ru_mips: {title: "Decompression R/U", description: "MIPS for each processor in use"}
#   decompression_rating_mips: {title: "Decompression rating", description: "MIPS"}
# --- End MAAS 1.0 script metadata ---
set -eu
command -v 7z >/dev/null 2>&1 || { echo "7z is missing: it is in the package p7zip-full." >&2; exit 1; }
OUT="$(7z b)"
echo "$OUT"
# Avr:   562   4188  23522  |   594   3730  22163: usage, rating for each processor in use, rating; compressing and decompressing
echo "$OUT" | awk '$1 == "Avr:" && NF == 8 { found = 1
    printf "results:\n  compression_ru_mips: %s\n  compression_rating_mips: %s\n  decompression_ru_mips: %s\n  decompression_rating_mips: %s\n", $3, $4, $7, $8 }
    END { exit !found }' > "${RESULT_PATH:-/dev/stdout}"
