#!/bin/bash
# rootfs.sh OUT FILES SOURCE... - the Debian root tree from which all images are made: a kernel that fits most machines,
# cloud-init, ssh, boot loaders for BIOS and UEFI, and the disk tools that ingot-agent calls. Needs root.
# SOURCE is an apt sources file of the host; none: mmdebstrap's default.
set -euo pipefail
out=$1 files=$2
shift 2
pkgs=systemd,systemd-sysv,udev,dbus,kmod,iproute2,iputils-ping,procps,less,sudo,netbase,tzdata
pkgs=$pkgs,linux-image-amd64,initramfs-tools,busybox,zstd,klibc-utils
pkgs=$pkgs,cloud-init,cloud-guest-utils,openssh-server,ca-certificates,curl
pkgs=$pkgs,fdisk,e2fsprogs,dosfstools,xfsprogs,btrfs-progs,mdadm,lvm2,bcache-tools,squashfs-tools,xz-utils,bzip2
pkgs=$pkgs,hdparm,nvme-cli,smartmontools,memtester,ethtool
pkgs=$pkgs,grub2-common,grub-pc-bin,grub-efi-amd64-bin,grub-efi-amd64-signed,shim-signed,efibootmgr
drop=()
for d in man doc locale info lintian; do drop+=("--dpkgopt=path-exclude=/usr/share/$d/*"); done
# no display, sound, radio or camera: half of the kernel package by size
for d in drivers/gpu drivers/media drivers/staging drivers/isdn drivers/infiniband drivers/iio drivers/net/wireless sound net/wireless net/mac80211; do
  drop+=("--dpkgopt=path-exclude=/lib/modules/*/kernel/$d/*")
done
mmdebstrap --mode=root --variant=minbase --include="$pkgs" "${drop[@]}" \
  --aptopt='Acquire::Languages "none"' \
  --essential-hook='mkdir -p "$1/etc/initramfs-tools/conf.d" "$1/etc/initramfs-tools/hooks" "$1/etc/initramfs-tools/scripts/init-premount"' \
  --essential-hook="install -m 755 '$files/hook-squash' \"\$1/etc/initramfs-tools/hooks/squash\"" \
  --essential-hook="install -m 755 '$files/premount-squash' \"\$1/etc/initramfs-tools/scripts/init-premount/squash\"" \
  --essential-hook="install -m 644 '$files/script-squash' \"\$1/etc/initramfs-tools/scripts/squash\"" \
  --essential-hook="install -m 644 '$files/initramfs.conf' \"\$1/etc/initramfs-tools/conf.d/ingot.conf\"" \
  --essential-hook="install -m 644 '$files/initramfs.modules' \"\$1/etc/initramfs-tools/modules\"" \
  --customize-hook="bash '$files/customize.sh' \"\$1\"" \
  bookworm "$out" "$@"
