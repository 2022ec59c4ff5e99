package provisioner

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/ingot-metal/ingot/provisioner/layout"
	"github.com/ingot-metal/ingot/storage"
)

// mountedFS is a file system that counts, with the device that it lies on.
type mountedFS struct {
	fs   *storage.Filesystem
	disk *storage.DiskBundle // nil: it has no device
	part *storage.PartitionBundle
}

func (m mountedFS) at() string { return deref(m.fs.MountPoint, "") }

func filesystemsOf(b *storage.Bundle) (out []mountedFS) {
	for _, d := range b.Disks {
		if d.Filesystem != nil {
			out = append(out, mountedFS{d.Filesystem, d, nil})
		}
		for i := range d.Partitions {
			if p := &d.Partitions[i]; p.Filesystem != nil {
				out = append(out, mountedFS{p.Filesystem, d, p})
			}
		}
	}
	for i := range b.Special {
		out = append(out, mountedFS{fs: &b.Special[i]})
	}
	return out
}

// onBcache says whether a device is a bcache or made of one, through however many groups.
func onBcache(b *storage.Bundle, d *storage.DiskBundle) bool {
	// Groups have an order: a chain of them is no longer than there are.
	var walk func(d *storage.DiskBundle, depth int) bool
	walk = func(d *storage.DiskBundle, depth int) bool {
		g := GroupOf(b, d.GroupID)
		if g == nil || depth > len(b.Groups) {
			return false
		}
		return IsBcache(g) || slices.ContainsFunc(g.Members, func(m storage.Member) bool { return walk(m.Disk, depth+1) })
	}
	return d != nil && walk(d, 0)
}

// storageIssues says why an operating system cannot be installed on a machine's storage, in MAAS's words; then what our agent cannot
// install yet. osystem and series are those to be installed.
func storageIssues(b *storage.Bundle, osystem, series string) []string {
	if len(b.Disks) == 0 {
		return []string{"There are currently no storage devices.  Please add a storage device to be able to deploy this node."}
	}
	if bootDisk(b) == nil {
		return []string{"Specify a storage device to be able to deploy this node."}
	}
	mounts, types := map[string]mountedFS{}, map[string]bool{}
	boot := false
	for _, m := range filesystemsOf(b) {
		types[m.fs.Fstype] = true
		if m.at() != "" {
			mounts[m.at()] = m
			boot = boot || m.at() == "/boot" && !onBcache(b, m.disk)
		}
	}
	if osystem == "esxi" {
		if types[fsVMFS] && !slices.ContainsFunc(b.Groups, IsVMFS) {
			return []string{"A datastore must be defined when deploying VMware ESXi."}
		}
		return uninstallable(b, osystem)
	}
	var issues []string
	root, mounted := mounts["/"]
	if !mounted {
		issues = append(issues, "Mount the root '/' filesystem to be able to deploy this node.")
	}
	if _, efi := mounts["/boot/efi"]; isUEFI(&b.Node) && !efi {
		issues = append(issues, "UEFI system requires a /boot/efi filesystem. Please configure /boot/efi to proceed.")
	}
	if mounted && onBcache(b, root.disk) && !boot {
		issues = append(issues, "This node cannot be deployed because it cannot boot from a bcache volume. Mount /boot on a non-bcache device to be able to deploy this node.")
	}
	if archOf(&b.Node) == "arm64" && !isUEFI(&b.Node) && !boot {
		issues = append(issues, "This node cannot be deployed because it needs a separate /boot partition.  Mount /boot on a device to be able to deploy this node.")
	}
	const not = "This node cannot be deployed because the selected deployment OS"
	if osystem == "centos" || osystem == "rhel" {
		if types[fsCache] || types[fsBacking] {
			issues = append(issues, fmt.Sprintf("%s, %s, does not support Bcache.", not, osystem))
		}
		if types["zfsroot"] {
			issues = append(issues, fmt.Sprintf("%s, %s, does not support ZFS.", not, osystem))
		}
		if types["btrfs"] && strings.Contains(series, "8") {
			issues = append(issues, fmt.Sprintf("%s release, %s %s, does not support BTRFS.", not, osystem, series))
		}
	}
	if types[fsVMFS] {
		issues = append(issues, fmt.Sprintf("%s, %s, does not support VMFS6.", not, osystem))
	}
	if len(issues) > 0 {
		return issues
	}
	return uninstallable(b, osystem)
}

// installable are the file systems that the agent's environment can make.
var installable = []string{"ext2", "ext4", "fat32", "vfat", "swap"}

// uninstallable says what of a machine's storage the agent cannot make. Nothing else is ever installed in its place.
func uninstallable(b *storage.Bundle, osystem string) (issues []string) {
	say := func(text string, args ...any) { issues = append(issues, fmt.Sprintf(text, args...)) }
	const sorry = "The installer does not make %s yet: %s. Choose the flat layout, or one of plain partitions, to be able to deploy this node."
	for _, g := range b.Groups {
		kind := niceName(g) + "s"
		if IsVMFS(g) {
			kind = "VMFS datastores"
		}
		say(sorry, kind, g.Name)
	}
	if len(b.Groups) == 0 && len(b.CacheSets) > 0 {
		say(sorry, "cache sets", CacheSetName(b.CacheSets[0]))
	}
	for _, d := range b.Disks {
		if d.Type == "physical" && d.PartitionTable != "" && d.PartitionTable != layout.GPT {
			say(sorry, d.PartitionTable+" partition tables", d.Name)
		}
	}
	if swap := b.Node.SwapSize; swap != nil && *swap > 0 && osystem != "custom" { // a custom image has its own ideas of swap
		say("The installer does not make swap files yet. Clear swap_size, or set it to 0, to be able to deploy this node.")
	}
	boot := bootDisk(b)
	if len(issues) == 0 && (boot == nil || len(boot.Partitions) == 0) {
		say("The boot disk has no partitions. Create one to be able to deploy this node.")
	}
	for _, m := range filesystemsOf(b) {
		switch {
		case !m.fs.Mountable(): // said with its group
		case m.disk == nil:
			say(sorry, "special filesystems", m.at())
		case m.disk.Type != "physical": // likewise
		case m.part == nil:
			say(sorry, "filesystems without a partition", m.disk.Name)
		case !slices.Contains(installable, m.fs.Fstype):
			say(sorry, m.fs.Fstype+" filesystems", PartitionName(b, m.disk, m.part))
		case m.at() != "" && m.fs.Fstype != "swap" && (path.Clean(m.at()) != m.at() || strings.ContainsAny(m.at(), " \t\n\\#")):
			say("The installer does not mount at %q. Use a path without spaces, and without '.' and '..' in it.", m.at())
		case strings.ContainsAny(deref(m.fs.MountOptions, ""), " \t\r\n#") || strings.HasPrefix(deref(m.fs.MountOptions, ""), "-"):
			say("The mount options of %s hold characters that fstab has no room for.", m.at())
		case strings.HasPrefix(deref(m.fs.Label, ""), "-"):
			say("The label %q of %s begins with a dash.", *m.fs.Label, PartitionName(b, m.disk, m.part))
		}
	}
	return issues
}
