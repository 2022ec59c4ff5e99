package agent

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/ingot-metal/ingot/api"
	"golang.org/x/sys/unix"
)

const espDir = "boot/efi/EFI"

// efiLoader puts the signed shim and GRUB of the new system into the EFI system partition, also where firmware looks by itself and
// where a network GRUB chains to. The firmware's variables are nvram's business.
func (in *installer) efiLoader(ctx context.Context, f osFamily, install, dir string) error {
	switch f {
	case redhatFamily:
		if in.redhatLoader() == "" { // the packages are there, but their files were not in the image: its /boot/efi was another's
			tool := "dnf"
			if !in.program(tool) {
				tool = "yum"
			}
			_, suffix, _ := efiArch()
			if err := in.cmd.runIn(ctx, in.mountAt, nil, tool, "-y", "reinstall", "shim-"+suffix, "grub2-efi-"+suffix); err != nil {
				return err
			}
		}
		d := in.redhatLoader()
		if d == "" {
			return errors.New("the image has no signed boot loader for UEFI (shim and grub2-efi)")
		}
		_, suffix, _ := efiArch()
		return in.placeLoader(d, dir, path.Join(espDir, d, "shim"+suffix+".efi"), path.Join(espDir, d, "grub"+suffix+".efi"), "grub"+suffix+".efi")
	case suseFamily:
		for _, at := range []string{"usr/share/efi/x86_64", "usr/lib64/efi", "usr/share/efi/aarch64"} {
			if in.has(at+"/shim.efi") && in.has(at+"/grub.efi") {
				return in.placeLoader(in.distributor(), dir, at+"/shim.efi", at+"/grub.efi", "grub.efi")
			}
		}
	}
	if !in.program(install) {
		return fmt.Errorf("the image has no %s", install)
	}
	target, _, _ := efiArch()
	args := []string{"--target=" + target, "--efi-directory=/boot/efi", "--no-nvram", "--recheck", "--bootloader-id=" + in.distributor()}
	if f != debianFamily {
		return in.cmd.runIn(ctx, in.mountAt, nil, install, append(args, "--removable")...)
	}
	err := in.cmd.runIn(ctx, in.mountAt, nil, install, append(args, "--force-extra-removable")...)
	if err != nil {
		in.rep.Logf("%s without --force-extra-removable: %v", install, err)
		err = in.cmd.runIn(ctx, in.mountAt, nil, install, append(args, "--removable")...)
	}
	return err
}

// redhatLoader is the directory of the EFI system partition that the packages of shim and GRUB put their files into; "" without them.
func (in *installer) redhatLoader() string {
	_, suffix, _ := efiArch()
	ents, _ := fs.ReadDir(in.root.FS(), espDir)
	for _, e := range ents {
		if !strings.EqualFold(e.Name(), "BOOT") && in.has(path.Join(espDir, e.Name(), "shim"+suffix+".efi")) && in.has(path.Join(espDir, e.Name(), "grub"+suffix+".efi")) {
			return e.Name()
		}
	}
	return ""
}

// placeLoader copies a signed shim and GRUB to their own directory and to the removable path, with a configuration that leads to /boot.
func (in *installer) placeLoader(dir, grubDir, shim, grub, grubName string) error {
	_, suffix, removable := efiArch()
	bootFS, prefix := in.bootPlace()
	stub := fmt.Sprintf("# Written by ingot-agent at installation.\nsearch --no-floppy --fs-uuid --set=dev %s\nset prefix=($dev)%s/%s\nexport $prefix\nconfigfile $prefix/grub.cfg\n",
		fsUUID(bootFS), prefix, path.Base(grubDir))
	shimData, err := in.root.ReadFile(shim)
	if err != nil {
		return err
	}
	grubData, err := in.root.ReadFile(grub)
	if err != nil {
		return err
	}
	own := "/" + path.Join(espDir, dir)
	shimName := "shim" + suffix + ".efi"
	if grubName == "grub.efi" { // SUSE's names
		shimName = "shim.efi"
	}
	for _, f := range []outFile{
		{own + "/" + shimName, string(shimData), 0o755}, {own + "/" + grubName, string(grubData), 0o755}, {own + "/grub.cfg", stub, 0o644},
		{"/" + espDir + "/BOOT/" + removable, string(shimData), 0o755}, {"/" + espDir + "/BOOT/" + grubName, string(grubData), 0o755}, {"/" + espDir + "/BOOT/grub.cfg", stub, 0o644},
	} {
		if err := in.write(f); err != nil {
			return err
		}
	}
	// the removable shim would start this one first, which makes boot entries of its own and restarts
	if err := in.root.Remove(espDir + "/BOOT/fb" + suffix + ".efi"); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// espScript keeps the copies equal after upgrades of the boot loader.
const espScript = `#!/bin/sh
# Written by ingot-agent at installation: keeps the EFI system partitions of the other boot disks equal to the one at /boot/efi.
set -eu
mountpoint -q /boot/efi || exit 0
for uuid in %s; do
	dev=$(blkid -U "$uuid") || continue
	at=$(mktemp -d)
	if mount -t vfat -o umask=0077 "$dev" "$at"; then
		diff -rq /boot/efi "$at" >/dev/null 2>&1 || cp -rT /boot/efi "$at" || echo "could not write to $uuid" >&2
		umount "$at"
	fi
	rmdir "$at"
done
`

// espUnit runs it at start and at shutdown.
const espUnit = `# Written by ingot-agent at installation.
[Unit]
Description=Keep the copies of the EFI system partition equal
After=boot-efi.mount local-fs.target
ConditionPathIsMountPoint=/boot/efi

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/local/sbin/ingot-esp-sync
ExecStop=/usr/local/sbin/ingot-esp-sync

[Install]
WantedBy=multi-user.target
`

// espFiles are what an installed system keeps its copies equal with.
func espFiles(uuids []string) []outFile {
	return []outFile{{"/usr/local/sbin/ingot-esp-sync", fmt.Sprintf(espScript, strings.Join(uuids, " ")), 0o755}, {"/etc/systemd/system/ingot-esp-sync.service", espUnit, 0o644}}
}

// copyESP makes the EFI system partitions of the other boot disks equal to the one at /boot/efi, now and, by a service of the new
// system, later.
func (in *installer) copyESP() error {
	var uuids []string
	for _, x := range in.storage.espCopies() {
		f := in.storage.formats[x.ID]
		uuids = append(uuids, fsUUID(f))
		if err := in.copyTo(in.devices[x.ID]); err != nil {
			return fmt.Errorf("copy the EFI system partition to %s: %w", in.devices[x.ID].path, err)
		}
		in.rep.Logf("%s: a copy of /boot/efi", in.devices[x.ID].path)
	}
	if len(uuids) == 0 {
		return nil
	}
	for _, f := range espFiles(uuids) {
		if err := in.write(f); err != nil {
			return err
		}
	}
	const wants = "etc/systemd/system/multi-user.target.wants"
	if err := in.root.MkdirAll(wants, 0o755); err != nil {
		return err
	}
	err := in.root.Symlink("/etc/systemd/system/ingot-esp-sync.service", wants+"/ingot-esp-sync.service")
	if errors.Is(err, os.ErrExist) {
		return nil
	}
	return err
}

func (in *installer) copyTo(d device) (err error) {
	at := in.mountAt + ".esp"
	if err := os.MkdirAll(at, 0o700); err != nil {
		return err
	}
	if err := unix.Mount(d.path, at, "vfat", unix.MS_NOATIME, ""); err != nil {
		return err
	}
	defer func() {
		if uerr := unix.Unmount(at, 0); uerr != nil && err == nil {
			err = uerr
		}
	}()
	from, err := in.root.OpenRoot("boot/efi")
	if err != nil {
		return err
	}
	defer from.Close()
	to, err := os.OpenRoot(at)
	if err != nil {
		return err
	}
	defer to.Close()
	return copyTree(from, to)
}

// copyTree copies directories and plain files.
func copyTree(from, to *os.Root) error {
	return fs.WalkDir(from.FS(), ".", func(p string, e fs.DirEntry, err error) error {
		if err != nil || p == "." {
			return err
		}
		if e.IsDir() {
			return to.MkdirAll(p, 0o755)
		}
		src, err := from.Open(p)
		if err != nil {
			return err
		}
		defer src.Close()
		dst, err := to.OpenFile(p, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o755)
		if err != nil {
			return err
		}
		_, err = io.Copy(dst, src)
		if cerr := dst.Close(); err == nil {
			err = cerr
		}
		return err
	})
}

// bootEntry is a boot entry of the firmware.
type bootEntry struct {
	num, label, path string
}

// bootEntries is what efibootmgr says.
type bootEntries struct {
	current string
	order   []string
	entries []bootEntry
}

var (
	bootLine = regexp.MustCompile(`^Boot([0-9A-Fa-f]{4})[* ] ?(.*)$`)
	hdPath   = regexp.MustCompile(`HD\([0-9]+,GPT,([0-9a-fA-F-]{36})`)
	netPath  = regexp.MustCompile(`MAC\(|IPv[46]\(|Uri\(`)
)

func parseBootEntries(text string) bootEntries {
	var b bootEntries
	for _, l := range strings.Split(text, "\n") {
		if v, ok := strings.CutPrefix(l, "BootCurrent:"); ok {
			b.current = strings.ToUpper(strings.TrimSpace(v))
			continue
		}
		if v, ok := strings.CutPrefix(l, "BootOrder:"); ok {
			for _, n := range strings.Split(v, ",") {
				if n = strings.ToUpper(strings.TrimSpace(n)); n != "" {
					b.order = append(b.order, n)
				}
			}
			continue
		}
		if m := bootLine.FindStringSubmatch(l); m != nil {
			name, p, _ := strings.Cut(m[2], "\t")
			b.entries = append(b.entries, bootEntry{strings.ToUpper(m[1]), name, p})
		}
	}
	return b
}

// loader says whether an entry starts a loader file from a disk, and from which partition.
func (e bootEntry) loader() (partition string, ok bool) {
	m := hdPath.FindStringSubmatch(e.path)
	if m == nil || !strings.Contains(strings.ToLower(e.path), `\efi`) {
		return "", false
	}
	return strings.ToLower(m[1]), true
}

// outdated are the entries to drop before new ones are made: those that start a loader from a partition that is no more, from one of
// ours (made anew), and doubles. The one that this boot came by stays.
func (b bootEntries) outdated(present, ours map[string]bool) []string {
	var out []string
	seen := map[string]bool{}
	for _, e := range b.entries {
		part, ok := e.loader()
		double := seen[e.label+"\t"+e.path] && e.path != ""
		seen[e.label+"\t"+e.path] = true
		if e.num != b.current && (double || ok && (!present[part] || ours[part])) {
			out = append(out, e.num)
		}
	}
	return out
}

// newOrder puts what this boot came by first, since the server decides at every boot what comes next; then the new system, so that it
// starts where no server answers, then the rest as it was. Where the firmware does not say what it started, its network entries come first.
func (b bootEntries) newOrder(fresh []string) []string {
	var out []string
	valid := map[string]bool{}
	add := func(n string) {
		if valid[n] && !slices.Contains(out, n) {
			out = append(out, n)
		}
	}
	for _, e := range b.entries {
		valid[e.num] = true
	}
	if valid[b.current] && !slices.Contains(fresh, b.current) {
		add(b.current)
	} else {
		for _, n := range b.order {
			for _, e := range b.entries {
				if e.num == n && netPath.MatchString(e.path) {
					add(n)
				}
			}
		}
	}
	for _, n := range append(slices.Clone(fresh), b.order...) {
		add(n)
	}
	return out
}

// nvram puts the firmware's boot entries in order: one for each boot disk. A firmware that will not have it (no variables, read-only,
// full) starts the system all the same, from the removable path and through the network's loader, so nothing here fails the installation.
func (in *installer) nvram(ctx context.Context) {
	if err := in.bootOrder(ctx); err != nil {
		in.rep.Logf("the firmware's boot entries are left as they are: %v", err)
	}
}

func (in *installer) bootOrder(ctx context.Context) error {
	if in.cmd.fake == nil && find("/", "efibootmgr") == "" {
		return errors.New("efibootmgr is not installed in this environment")
	}
	read := func() (bootEntries, error) {
		out, err := in.cmd.output(ctx, "efibootmgr", "-v")
		return parseBootEntries(out), err
	}
	was, err := read()
	if err != nil {
		return err
	}
	ours := map[string]bool{}
	var esps []*api.StorageItem
	esp := in.storage.byID[in.storage.byID[in.storage.mounts["/boot/efi"].Device].Volume]
	for _, x := range append([]*api.StorageItem{esp}, in.storage.espCopies()...) {
		if d := in.storage.diskOf(x.ID); d != nil && d.PTable == "gpt" {
			esps = append(esps, x)
		}
	}
	for _, x := range esps {
		for _, t := range in.tables[x.Device] {
			if t.number == x.Number {
				ours[strings.ToLower(t.uuid)] = true
			}
		}
	}
	present, err := in.presentPartitions()
	if err != nil {
		return err
	}
	for _, n := range was.outdated(present, ours) {
		if err := in.cmd.run(ctx, "efibootmgr", "-q", "-b", n, "-B"); err != nil {
			in.rep.Logf("%v", err)
		}
	}
	loader, err := in.loaderPath()
	if err != nil {
		return err
	}
	known := map[string]bool{}
	cleaned, err := read()
	if err != nil {
		return err
	}
	for _, e := range cleaned.entries {
		known[e.num] = true
	}
	for i, x := range esps {
		name := in.distributor()
		if i > 0 {
			name = fmt.Sprintf("%s (disk %d)", name, i+1)
		}
		if err := in.cmd.run(ctx, "efibootmgr", "-q", "-c", "-d", in.targetOf[in.storage.diskOf(x.ID).ID].disk.Path, "-p", fmt.Sprint(x.Number), "-L", name, "-l", loader); err != nil {
			in.rep.Logf("%v", err)
		}
	}
	now, err := read()
	if err != nil {
		return err
	}
	now.current, now.order = was.current, append(slices.Clone(cleaned.order), now.order...)
	var fresh []string
	for _, e := range now.entries {
		if !known[e.num] {
			fresh = append(fresh, e.num)
		}
	}
	if order := now.newOrder(fresh); len(order) > 0 {
		return in.cmd.run(ctx, "efibootmgr", "-q", "-o", strings.Join(order, ","))
	}
	return nil
}

// loaderPath is the new system's loader as the firmware names it: the shim where there is one.
func (in *installer) loaderPath() (string, error) {
	_, suffix, removable := efiArch()
	dirs := []string{in.distributor()}
	if d := in.redhatLoader(); d != "" {
		dirs = append([]string{d}, dirs...)
	}
	for _, d := range dirs {
		for _, n := range []string{"shim" + suffix + ".efi", "shim.efi", "grub" + suffix + ".efi", "grub.efi"} {
			if in.has(path.Join(espDir, d, n)) {
				return `\EFI\` + d + `\` + n, nil
			}
		}
	}
	if in.has(path.Join(espDir, "BOOT", removable)) {
		return `\EFI\BOOT\` + removable, nil
	}
	return "", errors.New("the EFI system partition has no loader")
}

// presentPartitions are the GUIDs of all partitions of all disks.
func (in *installer) presentPartitions() (map[string]bool, error) {
	disks, err := in.list()
	if err != nil {
		return nil, err
	}
	out := map[string]bool{}
	for _, d := range disks {
		if d.Type == "cdrom" {
			continue
		}
		f, err := os.Open(d.Path)
		if err != nil {
			return nil, err
		}
		for _, g := range partitionGUIDs(f, d.BlockSize) {
			out[g] = true
		}
		f.Close()
	}
	return out, nil
}

// partitionGUIDs reads the GUIDs of a GPT's partitions; none when there is no GPT.
func partitionGUIDs(r io.ReaderAt, sector int) []string {
	ss := int64(max(sector, 512))
	h := make([]byte, 92)
	if _, err := r.ReadAt(h, ss); err != nil || !bytes.Equal(h[:8], []byte("EFI PART")) {
		return nil
	}
	le := binary.LittleEndian
	table, n, size := le.Uint64(h[72:]), le.Uint32(h[80:]), le.Uint32(h[84:])
	if size < 128 || size > 4096 || n == 0 || n > 1024 || table > 1<<40 {
		return nil
	}
	buf := make([]byte, int(n)*int(size))
	if _, err := r.ReadAt(buf, int64(table)*ss); err != nil && err != io.EOF {
		return nil
	}
	var out []string
	for i := 0; i < int(n); i++ {
		e := buf[i*int(size):]
		if bytes.Equal(e[:16], make([]byte, 16)) {
			continue
		}
		g := e[16:32]
		out = append(out, fmt.Sprintf("%08x-%04x-%04x-%x-%x", le.Uint32(g), le.Uint16(g[4:]), le.Uint16(g[6:]), g[8:10], g[10:16]))
	}
	return out
}
