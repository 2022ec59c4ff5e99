#!/bin/sh
# ensure-go.sh: print the directory of a Go that can build this module, installing one if there is none.
# Any Go from 1.21 on will do: it fetches the toolchain that go.mod names through the module proxy.
set -eu

usable() { # usable GO: at least 1.21
	# Asked outside the module: inside it, an older Go refuses even to say its version.
	v=$(cd / && GOTOOLCHAIN=local "$1" env GOVERSION 2>/dev/null) || return 1
	case "$v" in go1.*) ;; *) return 1 ;; esac
	minor=${v#go1.}
	minor=${minor%%[!0-9]*}
	[ "${minor:-0}" -ge 21 ]
}

for go in "$(command -v go || true)" /usr/local/go/bin/go /usr/lib/go/bin/go /usr/lib/go-1.2[1-9]/bin/go; do
	if [ -n "$go" ] && [ -x "$go" ] && usable "$go"; then
		dirname "$go"
		exit 0
	fi
done

if [ "$(id -u)" != 0 ]; then
	echo "Go 1.21 or newer is missing, and only root can install it. Install the package golang-go (Debian 12: from bookworm-backports), or Go from https://go.dev/dl/." >&2
	exit 1
fi
if ! command -v apt-get >/dev/null; then
	echo "Go 1.21 or newer is missing, and there is no apt-get here. Install Go from https://go.dev/dl/." >&2
	exit 1
fi
# shellcheck source=/dev/null
codename=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
export DEBIAN_FRONTEND=noninteractive
target=""
if [ "$codename" = bookworm ]; then
	# Debian 12 itself has Go 1.19, which cannot fetch toolchains.
	# Backports come from the mirror that this system already uses.
	apt-get update -q >&2
	mirror=$(apt-get indextargets --format '$(REPO_URI) $(CODENAME)' 'Created-By: Packages' | awk '$2 == "bookworm" { print $1; exit }')
	if [ -z "$mirror" ]; then
		echo "No apt source of Debian bookworm is configured. Install Go 1.21 or newer from https://go.dev/dl/." >&2
		exit 1
	fi
	echo "deb $mirror bookworm-backports main" >/etc/apt/sources.list.d/bookworm-backports.list
	target="-t bookworm-backports"
fi
apt-get update -q >&2
# shellcheck disable=SC2086
apt-get install -q -y --no-install-recommends $target golang-go ca-certificates >&2
for go in "$(command -v go || true)" /usr/lib/go/bin/go; do
	if [ -n "$go" ] && [ -x "$go" ] && usable "$go"; then
		dirname "$go"
		exit 0
	fi
done
echo "The package golang-go of this system is older than Go 1.21. Install Go from https://go.dev/dl/." >&2
exit 1
