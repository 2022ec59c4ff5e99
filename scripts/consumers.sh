#!/bin/sh
# consumers.sh [DIR]: fetches programs that read what Ingot writes for installed systems (netplan's generator, nmcli, ifup, cloud-init) from
# Debian's packages and unpacks them into DIR. They are not installed: NetworkManager and ifupdown would take over this machine's network, and
# cloud-init its next start. It prints the variables by which tests find them: eval "$(scripts/consumers.sh)".
set -eu
dir=${1:-${XDG_CACHE_HOME:-$HOME/.cache}/ingot/consumers}
done=$dir/done-2 # another name with every change to the list below
if [ ! -e "$done" ]; then
	mkdir -p "$dir/deb" "$dir/root"
	# apt fetches as a user of its own where it can
	chmod 0777 "$dir/deb"
	(
		cd "$dir/deb"
		apt-get update -q
		apt-get download -q netplan.io libnetplan0 network-manager libnm0 ifupdown libndp0 libteamdctl0 libjansson4 libpolkit-agent-1-0 libpolkit-gobject-1-0 \
			libyaml-0-2 libreadline8 libglib2.0-0 cloud-init
	) >&2
	for p in "$dir"/deb/*.deb; do dpkg -x "$p" "$dir/root"; done
	rm -rf "$dir/deb"
	libs=$dir/root/usr/lib/$(dpkg-architecture -qDEB_HOST_MULTIARCH 2>/dev/null || echo "$(uname -m)-linux-gnu")
	for x in nmcli:usr/bin/nmcli netplan-generate:usr/libexec/netplan/generate; do
		# netplan's generator looks at the name by which it is called
		printf '#!/bin/sh\nLD_LIBRARY_PATH=%s exec %s "$@"\n' "$libs" "$dir/root/${x#*:}" >"$dir/${x%%:*}"
		chmod 755 "$dir/${x%%:*}"
	done
	: >"$done"
fi
echo "export NMCLI=$dir/nmcli IFUP=$dir/root/sbin/ifup CLOUD_INIT_MODULES=$dir/root/usr/lib/python3/dist-packages"
[ -x /usr/libexec/netplan/generate ] || [ -x /lib/netplan/generate ] || echo "export NETPLAN_GENERATE=$dir/netplan-generate"
