START="$(smartctl --test=$TEST "$DISK" 2>&1)"
RC=$?
echo "$START"
case "$START" in
    *"not supported"* | *"Not supported"* | *"Invalid Field"* | *"nknown"*"self-test"*) skip "The drive $DISK has no $TEST self-test." ;;
esac
if [ $RC -ne 0 ]; then
    echo "The $TEST self-test of $DISK could not be started (exit status $RC of smartctl)." >&2
    exit 1
fi
while :; do
    sleep 5
    case "$(smartctl --capabilities --log=selftest "$DISK" 2>&1)" in
        *"in progress"* | *"% of test remaining"*) ;;
        *) break ;;
    esac
done
RC=0
smartctl --health --log=selftest "$DISK" || RC=$?
verdict $RC
echo "The $TEST self-test of $DISK found nothing."
