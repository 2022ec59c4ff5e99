#!/bin/sh
# Runs a command with a private PostgreSQL: scripts/postgres-test.sh go test ./storage/...
# The server lives in a folder of its own, as a user who is not root, on a Unix socket and a free port of the loopback
# interface, without waiting for the disk; it ends with the command. TEST_POSTGRES names it. When TEST_POSTGRES is set already,
# the command just runs.
set -eu

[ $# -gt 0 ] || { echo "usage: $0 COMMAND [ARGUMENT...]" >&2; exit 2; }
[ -z "${TEST_POSTGRES:-}" ] || exec "$@"

find_bin() {
	for dir in $(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -t/ -k5 -rn) $(dirname "$(command -v initdb 2>/dev/null || echo /nonexistent/x)"); do
		if [ -x "$dir/initdb" ] && [ -x "$dir/postgres" ]; then echo "$dir"; return 0; fi
	done
	return 1
}

if ! bin=$(find_bin); then
	if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
		echo "installing postgresql" >&2
		{ apt-get update -qq || true; DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends postgresql; } >&2
		bin=$(find_bin) || { echo "$0: installing the package postgresql gave no server" >&2; exit 1; }
	else
		echo "$0: PostgreSQL is missing: install the package postgresql" >&2
		exit 1
	fi
fi

work=$(mktemp -d "${TMPDIR:-/tmp}/ingot-pg.XXXXXX")
user=$(id -un)
run=
if [ "$(id -u)" = 0 ]; then
	# PostgreSQL refuses to run as root.
	user=postgres
	id "$user" >/dev/null 2>&1 || user=nobody
	chown "$user" "$work"
	run="runuser -u $user --"
fi
chmod 711 "$work"

stop() {
	status=$?
	trap - EXIT INT TERM
	if [ -f "$work/data/postmaster.pid" ]; then
		(cd / && $run "$bin/pg_ctl" -D "$work/data" -m immediate -w stop >/dev/null 2>&1) || true
	fi
	rm -rf "$work"
	exit $status
}
trap stop EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

(cd / && $run "$bin/initdb" -D "$work/data" -U ingot --auth=trust --encoding=UTF8 --locale=C.UTF-8 --no-sync >"$work/initdb.log" 2>&1) || {
	cat "$work/initdb.log" >&2
	exit 1
}

# A port that was free a moment ago may be taken by the time of use: try some.
tries=0
port=$((20000 + $$ % 20000))
until (cd / && $run "$bin/pg_ctl" -D "$work/data" -w -t 60 -l "$work/server.log" \
	-o "-p $port -k $work -c listen_addresses=127.0.0.1 -c fsync=off -c synchronous_commit=off -c full_page_writes=off -c max_connections=300 -c shared_buffers=64MB" \
	start >/dev/null 2>&1); do
	tries=$((tries + 1))
	if [ $tries -ge 20 ]; then
		cat "$work/server.log" >&2
		exit 1
	fi
	port=$((port + 137))
done

TEST_POSTGRES="postgres://ingot@127.0.0.1:$port/postgres?sslmode=disable"
export TEST_POSTGRES
"$@"
