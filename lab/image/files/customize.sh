#!/bin/bash
# customize.sh ROOT - what the tree must forget (identity of the build) and what only slows a server's boot down
set -eu
r=$1
echo localhost > "$r/etc/hostname"
printf '127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n' > "$r/etc/hosts"
: > "$r/etc/fstab"
rm -f "$r"/etc/ssh/ssh_host_*
: > "$r/etc/machine-id" # empty, not absent: an absent one makes systemd apply its first-boot presets
for u in apt-daily.timer apt-daily-upgrade.timer e2scrub_all.timer e2scrub_reap.service dpkg-db-backup.timer \
  systemd-timesyncd.service systemd-pstore.service systemd-binfmt.service sys-kernel-debug.mount sys-kernel-tracing.mount \
  dev-mqueue.mount dev-hugepages.mount sys-fs-fuse-connections.mount proc-sys-fs-binfmt_misc.automount \
  nvmf-autoconnect.service nvmefc-boot-connections.service grub-common.service; do
  ln -sf /dev/null "$r/etc/systemd/system/$u"
done
chroot "$r" systemctl enable systemd-networkd.service ssh.service
chroot "$r" systemctl disable -q smartmontools.service # disks of virtual machines have nothing to watch; the package is here for tests
rm -f "$r/etc/resolv.conf"
: > "$r/etc/resolv.conf"
printf 'policy: enabled\n' > "$r/etc/cloud/ds-identify.cfg"
mkdir -p "$r/etc/cloud/cloud.cfg.d"
cat > "$r/etc/cloud/cloud.cfg.d/90_ingot.cfg" <<'C'
# cloud-init reads the machine's own seed after this
datasource_list: [ MAAS, None ]
locale: C.UTF-8
ssh_genkeytypes: [ ed25519 ]
apt: { preserve_sources_list: true }
C
printf 'PasswordAuthentication no\nUseDNS no\n' > "$r/etc/ssh/sshd_config.d/ingot.conf"
rm -rf "$r"/var/cache/apt/* "$r"/var/lib/apt/lists/* "$r"/tmp/* "$r"/var/log/*.log "$r"/var/log/apt/*
