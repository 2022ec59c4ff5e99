set -u
DISK="$1"
command -v badblocks >/dev/null 2>&1 || { echo "badblocks is missing: it is in the package e2fsprogs." >&2; exit 1; }
# What is mounted or part of an array is busy, and badblocks says so.
LOG="$(mktemp)"
trap 'rm -f "$LOG"' EXIT
badblocks $MODE -v -b 4096 "$DISK" 2> "$LOG"
RC=$?
cat "$LOG" >&2
# "Pass completed, 5 bad blocks found. (1/2/2 errors)": read, write, comparison
SUM="$(sed -n 's|.*completed, \([0-9]*\) bad blocks found. (\([0-9]*\)/\([0-9]*\)/\([0-9]*\) errors).*|\1 \2 \3 \4|p' "$LOG" | tail -n 1)"
if [ $RC -ne 0 ] || [ -z "$SUM" ]; then
    echo "badblocks ended with exit status $RC and no result." >&2
    exit 1
fi
set -- $SUM
if [ -n "${RESULT_PATH:-}" ]; then
    printf 'results:\n  badblocks: %s\n  read_errors: %s\n  write_errors: %s\n  comparison_errors: %s\n' "$1" "$2" "$3" "$4" > "$RESULT_PATH"
fi
[ "$1" -eq 0 ]
