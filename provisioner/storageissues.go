package provisioner

import (
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"
	"unicode"

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

// storageIssues says why an operating system cannot be installed on a machine's storage, in MAAS's words; then what nobody could install.
// osystem and series are those to be installed. An image of a whole disk brings its own partitions: what is modelled does not matter then.
func storageIssues(b *storage.Bundle, osystem, series string, wholeDisk bool) []string {
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
	if osystem == "esxi" && types[fsVMFS] && !slices.ContainsFunc(b.Groups, IsVMFS) {
		return []string{"A datastore must be defined when deploying VMware ESXi."}
	}
	if wholeDisk {
		return planIssues(b, true)
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
	if issues = append(mountIssues(b), nameIssues(b)...); len(issues) > 0 {
		return issues
	}
	return planIssues(b, false)
}

// mountIssues says what no fstab has room for, and what has no tool to make it.
func mountIssues(b *storage.Bundle) (issues []string) {
	say := func(text string, args ...any) { issues = append(issues, fmt.Sprintf(text, args...)) }
	for _, m := range filesystemsOf(b) {
		at, options, label := m.at(), deref(m.fs.MountOptions, ""), deref(m.fs.Label, "")
		switch {
		case !m.fs.Mountable(): // a membership
		case m.fs.Fstype == "zfsroot":
			say("The installer does not make ZFS pools. Give %s another file system to be able to deploy this node.", m.name(b))
		case at == "/" && !slices.Contains([]string{"ext2", "ext4", "xfs", "btrfs"}, m.fs.Fstype):
			say("No system starts from a root file system of type %s. Choose ext4, ext2, xfs or btrfs for '/'.", m.fs.Fstype)
		case at != "" && m.fs.Fstype != "swap" && (!path.IsAbs(at) || path.Clean(at) != at || !fstabWord(at)):
			say("The installer does not mount at %q. Use a path without spaces, quotes and special letters, and without '.' and '..' in it.", at)
		case options != "" && !fstabWord(options) || strings.HasPrefix(options, "-"):
			say("The mount options of %s hold characters that fstab has no room for.", at)
		case strings.HasPrefix(label, "-") || strings.ContainsFunc(label, unicode.IsControl):
			say("The label %q of %s begins with a dash, or holds control characters.", label, m.name(b))
		}
	}
	return issues
}

// fstabWord says whether a text can stand in fstab as it is.
func fstabWord(text string) bool {
	return !strings.ContainsFunc(text, func(c rune) bool { return c <= ' ' || c > '~' || strings.ContainsRune("#\\\"'", c) })
}

// toolNames are the names that the tools of LVM and mdadm take.
var toolNames = regexp.MustCompile(`^[a-zA-Z0-9_+.][a-zA-Z0-9_+.-]{0,126}$`)

// nameIssues says which names the tools that make devices do not take.
func nameIssues(b *storage.Bundle) (issues []string) {
	for _, g := range b.Groups {
		names := []string{g.Name}
		for _, d := range g.Devices {
			names = append(names, d.Name)
		}
		for _, name := range slices.Compact(names) {
			if !toolNames.MatchString(name) {
				issues = append(issues, fmt.Sprintf("The name %q of a %s holds characters that its tools do not take, or is too long. Use letters, digits, and _ + . -", name, niceName(g)))
			}
		}
	}
	return issues
}

// name is that of the device that a file system lies on.
func (m mountedFS) name(b *storage.Bundle) string {
	switch {
	case m.disk == nil:
		return m.at()
	case m.part == nil:
		return DiskName(b, m.disk)
	}
	return PartitionName(b, m.disk, m.part)
}

// planIssues says why there is no plan by which the storage could be made.
func planIssues(b *storage.Bundle, wholeDisk bool) []string {
	in := layout.Input{Firmware: firmwareOf(&b.Node), Arch: archOf(&b.Node), Disks: planDisks(b), Storage: planStorage(b), WholeDisk: wholeDisk}
	if _, err := layout.StoragePlan(in); err != nil {
		return []string{err.Error()}
	}
	return nil
}
