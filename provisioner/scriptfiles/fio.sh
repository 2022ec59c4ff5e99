#!/bin/sh
# --- Start MAAS 1.0 script metadata ---
# name: fio
# title: Storage benchmark
# description: Measures the speed of the disk with fio. All data is lost.
# script_type: testing
# hardware_type: storage
# parallel: instance
# timeout: 00:00:00
# tags: storage
# destructive: true
# packages: {apt: fio}
# results:
#   random_read: {title: "Random read", description: "Speed in KiB/s"}
#   random_read_iops: {title: "Random read IOPS", description: "Operations in a second"}
#   random_write: {title: "Random write", description: "Speed in KiB/s"}
#   random_write_iops: {title: "Random write IOPS", description: "Operations in a second"}
#   sequential_read: {title: "Sequential read", description: "Speed in KiB/s"}
#   sequential_read_iops: {title: "Sequential read IOPS", description: "Operations in a second"}
#   sequential_write: {title: "Sequential write", description: "Speed in KiB/s"}
#   sequential_write_iops: {title: "Sequential write IOPS", description: "Operations in a second"}
# parameters:
#   storage: {type: storage, argument_format: '{path}'}
# --- End MAAS 1.0 script metadata ---
set -eu
DISK="$1"
command -v fio >/dev/null 2>&1 || { echo "fio is missing: it is in the package of that name." >&2; exit 1; }
[ -z "${RESULT_PATH:-}" ] || echo "results:" > "$RESULT_PATH"
# Fields of fio's terse version 3: 7 and 8 are speed and operations of reads, 48 and 49 of writes.
measure() {
    LINE="$(fio --name="$1" --filename="$DISK" --rw="$2" --bs="$3" --iodepth=64 --ioengine=libaio --direct=1 --runtime=30 --time_based --minimal --terse-version=3 --output-format=terse)"
    KIB="$(echo "$LINE" | cut -d ';' -f "$4")"
    IOPS="$(echo "$LINE" | cut -d ';' -f "$5")"
    echo "$1: $KIB KiB/s, $IOPS operations in a second"
    [ -z "${RESULT_PATH:-}" ] || printf '  %s: %s\n  %s_iops: %s\n' "$1" "$KIB" "$1" "$IOPS" >> "$RESULT_PATH"
}
measure random_read randread 4k 7 8
measure random_write randwrite 4k 48 49
measure sequential_read read 1M 7 8
measure sequential_write write 1M 48 49
