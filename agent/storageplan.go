package agent

import (
	"errors"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/ingot-metal/ingot/api"
)

// storagePlan is a plan's list of storage items after checkStorage: every reference leads to something that stands before it, and every
// device has one use.
type storagePlan struct {
	items   []api.StorageItem
	byID    map[string]*api.StorageItem
	parts   map[string][]*api.StorageItem // partitions by what they lie on, in order
	formats map[string]*api.StorageItem   // file systems by what is formatted
	mounts  map[string]*api.StorageItem   // by path; swap is not among them
	used    map[string]string             // what a device is used for: format, raid, lvm, bcache, cache, partitions
}

var (
	uuidForm   = regexp.MustCompile(`^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$`)
	fatID      = regexp.MustCompile(`^[0-9a-fA-F]{4}-?[0-9a-fA-F]{4}$`)
	deviceName = regexp.MustCompile(`^[a-zA-Z0-9_+.][a-zA-Z0-9_+.-]{0,126}$`)
	mountWord  = regexp.MustCompile(`^[!-~]+$`)
)

// fileSystems are the types that can be made, and whether they are fit for a root.
var fileSystems = map[string]bool{"ext2": true, "ext3": true, "ext4": true, "xfs": true, "btrfs": true, "vfat": false, "fat32": false, "fat16": false, "swap": false}

// smallestXFS is the least that mkfs.xfs makes a file system of.
const smallestXFS = 300 * mib

// memoryFileSystems need no device.
var memoryFileSystems = map[string]bool{"tmpfs": true, "ramfs": true}

// raidMinimum is the least number of members of each level.
var raidMinimum = map[string]int{"0": 2, "1": 2, "5": 3, "6": 4, "10": 2}

// checkStorage refuses a list that cannot be carried out, before a disk is looked at.
func checkStorage(items []api.StorageItem) (*storagePlan, error) {
	p := &storagePlan{items: slices.Clone(items), byID: map[string]*api.StorageItem{}, parts: map[string][]*api.StorageItem{},
		formats: map[string]*api.StorageItem{}, mounts: map[string]*api.StorageItem{}, used: map[string]string{}}
	for i := range p.items {
		it := &p.items[i]
		if it.ID == "" || p.byID[it.ID] != nil {
			return nil, fmt.Errorf("refused: storage item %d has no name of its own: %q", i+1, it.ID)
		}
		if err := p.add(it); err != nil {
			return nil, fmt.Errorf("refused: storage item %q: %w", it.ID, err)
		}
		p.byID[it.ID] = it
	}
	for id, parts := range p.parts {
		if err := checkPartitions(p.byID[id], parts); err != nil {
			return nil, fmt.Errorf("refused: partitions of %q: %w", id, err)
		}
	}
	return p, nil
}

// take marks a device as used by something, once.
func (p *storagePlan) take(id, use string) error {
	it := p.byID[id]
	switch {
	case it == nil:
		return fmt.Errorf("it is made of %q, which does not stand before it", id)
	case it.Type == api.StorageVG || it.Type == api.StorageFormat || it.Type == api.StorageMount:
		return fmt.Errorf("%q is no block device", id)
	case it.Flag == "bios_grub" || it.Flag == "extended" || it.Flag == "prep":
		return fmt.Errorf("%q is a %s partition: it holds nothing else", id, it.Flag)
	case it.PTable != "":
		return fmt.Errorf("%q has a partition table", id)
	case p.used[id] == "cache" && use == "cache": // several bcaches share one cache
	case p.used[id] != "":
		return fmt.Errorf("%q is in use already, as %s", id, p.used[id])
	}
	p.used[id] = use
	return nil
}

func (p *storagePlan) add(it *api.StorageItem) error {
	if it.PTable != "" && it.PTable != "gpt" && it.PTable != "msdos" {
		return fmt.Errorf("unknown partition table %q", it.PTable)
	}
	name := func() error {
		if !deviceName.MatchString(it.Name) {
			return fmt.Errorf("%q is no name for a device: the kernel's tools take letters, digits and _ . + -, at most 127 of them, and no - at the begin", it.Name)
		}
		return nil
	}
	switch it.Type {
	case api.StorageDisk:
		if it.Disk == nil {
			return errors.New("it does not say which disk")
		}
		return nil
	case api.StoragePartition:
		on := p.byID[it.Device]
		if on == nil || on.PTable == "" {
			return fmt.Errorf("it lies on %q, which has no partition table", it.Device)
		}
		if it.Size <= 0 || it.Offset < 0 || it.Number < 1 {
			return fmt.Errorf("number %d, offset %d, size %d", it.Number, it.Offset, it.Size)
		}
		p.parts[it.Device] = append(p.parts[it.Device], it)
		return nil
	case api.StorageRAID:
		if err := name(); err != nil {
			return err
		}
		least := raidMinimum[it.Level]
		if least == 0 {
			return fmt.Errorf("RAID level %q is not supported", it.Level)
		}
		if len(it.Devices) < least || it.Level == "0" && len(it.Spares) > 0 {
			return fmt.Errorf("RAID %s of %d devices and %d spares", it.Level, len(it.Devices), len(it.Spares))
		}
		if it.UUID != "" && !uuidForm.MatchString(it.UUID) {
			return fmt.Errorf("%q is no UUID", it.UUID)
		}
		for _, d := range append(slices.Clone(it.Devices), it.Spares...) {
			if err := p.take(d, "raid"); err != nil {
				return err
			}
		}
		return nil
	case api.StorageVG:
		if err := name(); err != nil {
			return err
		}
		if len(it.Devices) == 0 {
			return errors.New("it has no physical volume")
		}
		for _, d := range it.Devices {
			if err := p.take(d, "lvm"); err != nil {
				return err
			}
		}
		return nil
	case api.StorageLV:
		if vg := p.byID[it.VolGroup]; vg == nil || vg.Type != api.StorageVG {
			return fmt.Errorf("%q is no volume group that stands before it", it.VolGroup)
		}
		if it.Size <= 0 {
			return fmt.Errorf("size %d", it.Size)
		}
		return name()
	case api.StorageBcache:
		switch it.Mode {
		case "", "writeback", "writethrough", "writearound", "none":
		default:
			return fmt.Errorf("unknown cache mode %q", it.Mode)
		}
		if err := p.take(it.Backing, "bcache"); err != nil {
			return err
		}
		return p.take(it.Cache, "cache")
	case api.StorageFormat:
		root, known := fileSystems[it.FSType]
		if !known {
			return fmt.Errorf("file system %q cannot be made", it.FSType)
		}
		if it.UUID == "" { // fstab needs one
			it.UUID = newUUID()
			if !root && it.FSType != "swap" {
				it.UUID = strings.ToUpper(it.UUID[:4] + "-" + it.UUID[4:8])
			}
		}
		form := uuidForm
		if strings.Contains(it.FSType, "fat") {
			form = fatID
		}
		if !form.MatchString(it.UUID) {
			return fmt.Errorf("%q is no UUID of %s", it.UUID, it.FSType)
		}
		if strings.HasPrefix(it.Label, "-") || printable(it.Label) != it.Label {
			return fmt.Errorf("label %q", it.Label)
		}
		if v := p.byID[it.Volume]; it.FSType == "xfs" && v != nil && v.Size > 0 && v.Size < smallestXFS {
			return fmt.Errorf("XFS needs %d MiB at least, and %q has %d", smallestXFS/mib, it.Volume, v.Size/mib)
		}
		p.formats[it.Volume] = it
		return p.take(it.Volume, "format")
	case api.StorageMount:
		return p.addMount(it)
	}
	return fmt.Errorf("type %q is not known", it.Type)
}

func (p *storagePlan) addMount(it *api.StorageItem) error {
	if it.Options != "" && (!mountWord.MatchString(it.Options) || strings.ContainsAny(it.Options, `#"'\`)) {
		return fmt.Errorf("options %q", it.Options)
	}
	fs := it.FSType
	if it.Device != "" {
		f := p.byID[it.Device]
		if f == nil || f.Type != api.StorageFormat {
			return fmt.Errorf("it mounts %q, which is no file system that stands before it", it.Device)
		}
		if fs = f.FSType; fs == "swap" {
			return nil
		}
	} else if !memoryFileSystems[fs] {
		return fmt.Errorf("%q needs a device", fs)
	}
	if !path.IsAbs(it.Path) || path.Clean(it.Path) != it.Path || !mountWord.MatchString(it.Path) || strings.ContainsAny(it.Path, `\#"'`) {
		return fmt.Errorf("mount point %q", it.Path)
	}
	if p.mounts[it.Path] != nil {
		return fmt.Errorf("%s is mounted twice", it.Path)
	}
	p.mounts[it.Path] = it
	return nil
}

// checkPartitions holds the numbers against the kind of table.
func checkPartitions(on *api.StorageItem, parts []*api.StorageItem) error {
	seen := map[int]bool{}
	extended, next := false, 5
	for _, x := range parts {
		if seen[x.Number] {
			return fmt.Errorf("number %d is used twice", x.Number)
		}
		seen[x.Number] = true
		switch x.Flag {
		case "", "boot", "bios_grub", "prep":
		case "extended", "logical":
			if on.PTable != "msdos" {
				return fmt.Errorf("%s: a GPT has no %s partitions", x.ID, x.Flag)
			}
		default:
			return fmt.Errorf("%s: unknown flag %q", x.ID, x.Flag)
		}
		if on.PTable == "gpt" {
			if x.Number > gptEntries {
				return fmt.Errorf("number %d is too high", x.Number)
			}
			if _, err := guid(x.UUID); x.UUID != "" && err != nil {
				return err
			}
			continue
		}
		switch {
		case x.Flag == "bios_grub":
			return fmt.Errorf("%s: only a GPT needs a bios_grub partition", x.ID)
		case x.Flag == "logical":
			if !extended || x.Number != next {
				return fmt.Errorf("%s: logical partitions follow the extended one, numbered from 5 in order", x.ID)
			}
			next++
		case x.Number > 4 || x.Flag == "extended" && extended:
			return fmt.Errorf("%s: number %d of an MBR must be a logical partition", x.ID, x.Number)
		case extended && x.Flag != "extended":
			return fmt.Errorf("%s: a primary partition behind the extended one", x.ID)
		}
		extended = extended || x.Flag == "extended"
	}
	return nil
}

// checkBoot refuses what could be installed but would not start.
func (p *storagePlan) checkBoot(firmware string) error {
	root := p.mounts["/"]
	if root == nil || root.Device == "" {
		return errors.New("refused: the plan has no root file system")
	}
	if f := p.byID[root.Device]; !fileSystems[f.FSType] {
		return fmt.Errorf("refused: %s is no file system for a root", f.FSType)
	}
	boots := p.bootDisks()
	if len(boots) == 0 {
		return errors.New("refused: the plan has no boot disk")
	}
	if firmware == "uefi" {
		esp := p.mounts["/boot/efi"]
		if esp == nil || esp.Device == "" || !strings.Contains(p.byID[esp.Device].FSType, "fat") {
			return errors.New("refused: UEFI firmware needs an EFI system partition (vfat) at /boot/efi")
		}
		return nil
	}
	boot := root
	if b := p.mounts["/boot"]; b != nil {
		boot = b
	}
	if p.under(p.byID[boot.Device].Volume, api.StorageBcache) {
		return errors.New("refused: GRUB cannot read /boot on bcache; give /boot a partition of its own")
	}
	for _, d := range boots {
		switch {
		case d.PTable == "":
			return fmt.Errorf("refused: the boot disk %s has no partition table, so a BIOS cannot start from it", d.ID)
		case d.PTable == "gpt" && DebianArch() == "amd64" && !slices.ContainsFunc(p.parts[d.ID], func(x *api.StorageItem) bool { return x.Flag == "bios_grub" }):
			return fmt.Errorf("refused: the boot disk %s has a GPT without a bios_grub partition, so a BIOS cannot start from it", d.ID)
		}
	}
	return nil
}

func (p *storagePlan) disks() []*api.StorageItem {
	var out []*api.StorageItem
	for i := range p.items {
		if p.items[i].Type == api.StorageDisk {
			out = append(out, &p.items[i])
		}
	}
	return out
}

func (p *storagePlan) bootDisks() []*api.StorageItem {
	return slices.DeleteFunc(p.disks(), func(d *api.StorageItem) bool { return !d.Boot })
}

// below is what a device is directly made of.
func (p *storagePlan) below(it *api.StorageItem) []string {
	switch it.Type {
	case api.StoragePartition:
		return []string{it.Device}
	case api.StorageRAID:
		return append(slices.Clone(it.Devices), it.Spares...)
	case api.StorageVG:
		return it.Devices
	case api.StorageLV:
		return []string{it.VolGroup}
	case api.StorageBcache:
		return []string{it.Backing, it.Cache}
	}
	return nil
}

// under says whether a device is, or is made of, something of that type.
func (p *storagePlan) under(id string, typ api.StorageType) bool {
	it := p.byID[id]
	if it == nil {
		return false
	}
	if it.Type == typ {
		return true
	}
	return slices.ContainsFunc(p.below(it), func(b string) bool { return p.under(b, typ) })
}

// diskOf is the disk that a partition lies on, nil when it lies on something else.
func (p *storagePlan) diskOf(id string) *api.StorageItem {
	it := p.byID[id]
	for it != nil && it.Type == api.StoragePartition {
		it = p.byID[it.Device]
	}
	if it == nil || it.Type != api.StorageDisk {
		return nil
	}
	return it
}

// has says whether the plan has an item of that type.
func (p *storagePlan) has(typ api.StorageType) bool {
	return slices.ContainsFunc(p.items, func(it api.StorageItem) bool { return it.Type == typ })
}

// hasFS says whether the plan makes a file system of that type.
func (p *storagePlan) hasFS(fs string) bool {
	return slices.ContainsFunc(p.items, func(it api.StorageItem) bool { return it.Type == api.StorageFormat && it.FSType == fs })
}

// espCopies are EFI system partitions that mirror the one at /boot/efi: formatted, not mounted, on boot disks.
func (p *storagePlan) espCopies() []*api.StorageItem {
	mounted := map[string]bool{}
	for _, m := range p.mounts {
		mounted[m.Device] = true
	}
	var out []*api.StorageItem
	for i := range p.items {
		x := &p.items[i]
		f := p.formats[x.ID]
		if x.Type != api.StoragePartition || x.Flag != "boot" || f == nil || !strings.Contains(f.FSType, "fat") || mounted[f.ID] {
			continue
		}
		if d := p.diskOf(x.ID); d != nil && d.Boot {
			out = append(out, x)
		}
	}
	return out
}
