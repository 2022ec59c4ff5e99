set -u
# smartctl's exit status is a set of bits: 1 and 2 say that the drive could not be asked, 8 that it is failing, 16 that a value is at its
# limit now, 64 and 128 that there are errors in its logs.
DISK="$1"
skip() {
    echo "$1"
    [ -z "${RESULT_PATH:-}" ] || echo "status: skipped" > "$RESULT_PATH"
    exit 0
}
command -v smartctl >/dev/null 2>&1 || { echo "smartctl is missing: it is in the package smartmontools." >&2; exit 1; }
INFO="$(smartctl --info "$DISK" 2>&1)" || true
echo "$INFO"
case "$INFO" in
    *"SMART support is: Available"* | *"NVMe Version"* | *"NVM Subsystem"*) ;;
    *) skip "The drive $DISK has no SMART, or none that can be reached through its controller: nothing to test." ;;
esac
verdict() {
    if [ $(($1 & 3)) -ne 0 ]; then
        echo "The drive $DISK could not be asked (exit status $1 of smartctl)." >&2
        exit 1
    fi
    if [ $(($1 & 24)) -ne 0 ]; then
        echo "The drive $DISK says that it is failing (exit status $1 of smartctl)." >&2
        exit 1
    fi
    if [ $(($1 & 128)) -ne 0 ]; then
        echo "The drive $DISK has failed a self-test (exit status $1 of smartctl)." >&2
        exit 1
    fi
    if [ $(($1 & 64)) -ne 0 ]; then
        echo "The drive $DISK has errors in its log, and calls itself healthy."
        [ -z "${RESULT_PATH:-}" ] || echo "status: degraded" > "$RESULT_PATH"
    fi
}
