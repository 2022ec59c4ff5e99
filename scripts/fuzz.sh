#!/bin/bash
# Runs each fuzz target of the repository for a while, one after the other, and prints a table: scripts/fuzz.sh [TIME [PATTERN]]
# TIME is what each gets (10s), PATTERN what "package Target" must match (everything). Logs go to FUZZ_LOGS (a new folder). It ends with 1
# when a target failed; what made it fail is then in testdata/fuzz of its package, for go test to play again.
set -euo pipefail
cd "$(dirname "$0")/.."

time=${1:-10s}
pattern=${2:-.}
logs=${FUZZ_LOGS:-$(mktemp -d "${TMPDIR:-/tmp}/ingot-fuzz.XXXXXX")}
mkdir -p "$logs"

targets() {
	grep -rnoE '^func Fuzz[A-Za-z0-9_]*\(f \*testing\.F\)' --include='*_test.go' . | grep -v '^\./e2e/clients/' |
		sed -E 's|^\./(.*)/[^/]*:[0-9]+:func (Fuzz[A-Za-z0-9_]*).*|\1 \2|' | sort -u | { grep -E -- "$pattern" || true; }
}

row='%-28s %-24s %8s %12s %12s  %s\n'
failed=0 count=0
printf "$row" PACKAGE TARGET SECONDS INPUTS "NEW PATHS" RESULT
while read -r package target; do
	count=$((count + 1))
	log=$logs/${package//\//_}.$target.log
	from=$SECONDS
	result=ok
	if ! go test "./$package" -run '^$' -fuzz "^$target\$" -fuzztime "$time" >"$log" 2>&1 </dev/null; then
		# The engine counts as failed when time ends while it looks at an input again: no input is at fault then.
		if grep -q 'context deadline exceeded' "$log" && ! grep -q 'Failing input' "$log"; then
			result="ok (ended late)"
		else
			result="FAILED, see $log"
			failed=$((failed + 1))
		fi
	fi
	inputs=$(sed -nE 's/.*execs: ([0-9]+).*/\1/p' "$log" | tail -1)
	paths=$(sed -nE 's/.*new interesting: ([0-9]+).*/\1/p' "$log" | tail -1)
	printf "$row" "$package" "$target" $((SECONDS - from)) "${inputs:--}" "${paths:--}" "$result"
done < <(targets)
if [ "$count" = 0 ]; then
	echo "no fuzz target matches $pattern" >&2
	exit 1
fi
echo "$count targets, $time each, $failed failed; logs in $logs"
[ "$failed" = 0 ]
