package layout

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"sort"
)

// The layouts by name.
const (
	NameFlat   = "flat"
	NameLVM    = "lvm"
	NameBcache = "bcache"
	NameBlank  = "blank"
	NameCustom = "custom"
	NameVMFS6  = "vmfs6"
	NameVMFS7  = "vmfs7"
)

// Names are all layouts, sorted.
var Names = []string{NameBcache, NameBlank, NameCustom, NameFlat, NameLVM, NameVMFS6, NameVMFS7}

// Storage is how a machine's devices are to be divided and put together. It says nothing of what is there already: all of that goes.
type Storage struct {
	Boot        string // the name of the disk to boot from, where the layout says so
	Tables      []Table
	Groups      []Group // a member of a group is a disk, a partition, or the device of a group before it
	Filesystems []DeviceFS
	Special     []FS // tmpfs, ramfs
}

// Table is a partition table with its partitions.
type Table struct {
	Device     string
	Type       string // GPT, MBR
	Partitions []Partition
}

// Ref names a device, or one of its partitions.
type Ref struct {
	Device string
	Number int // 0: the whole device
}

// FS is a file system.
type FS struct {
	Type, UUID, Label, MountPoint, Options string
}

// DeviceFS is a file system on a whole device.
type DeviceFS struct {
	Device string
	FS     FS
}

// Group is a volume group, RAID, bcache or VMFS datastore.
type Group struct {
	Kind      string
	Name      string
	UUID      string
	Members   []Ref
	Spares    []Ref
	Cache     Ref // of a bcache
	CacheMode string
	Volumes   []Volume // of a volume group
	FS        *FS      // on the device of any other
}

// Volume is a logical volume.
type Volume struct {
	Name string
	UUID string
	Size int64
	FS   *FS
}

// TargetDisk is a physical disk that a layout may use.
type TargetDisk struct {
	ID   int64
	Name string
	Size int64
	Tags []string
}

// Target is the machine that a layout is made for.
type Target struct {
	Firmware string // BIOS or UEFI
	Arch     string // amd64
	Boot     string // the name of the boot disk; empty: there is none
	Disks    []TargetDisk
	NewUUID  func() string
}

func (t *Target) disk(fits func(d *TargetDisk) bool) *TargetDisk {
	for i := range t.Disks {
		if fits(&t.Disks[i]) {
			return &t.Disks[i]
		}
	}
	return nil
}

func (t *Target) named(name string) *TargetDisk {
	return t.disk(func(d *TargetDisk) bool { return d.Name == name })
}

// Options are the parameters of a layout, as texts; empty is absent.
type Options struct {
	BootSize, RootSize, LVSize, CacheSize string
	RootDevice, CacheDevice               *int64
	VGName, LVName                        string
	CacheMode                             string
	CacheNoPart                           bool
	Custom                                []byte // the document of the custom layout
	Fallback                              bool   // bcache without a cache is flat
}

// FieldErrors are what is wrong with options, by the name of the option; __all__ is for the whole.
type FieldErrors map[string][]string

func (e FieldErrors) Error() string {
	return fmt.Sprintf("invalid options: %v", map[string][]string(e))
}

func (e FieldErrors) add(field, text string, args ...any) {
	e[field] = append(e[field], fmt.Sprintf(text, args...))
}

// ErrNoBootDisk says that a machine has no disk that a layout could go on.
var ErrNoBootDisk = errors.New("no boot disk")

// plan is a layout in the making.
type plan struct {
	t      *Target
	o      Options
	boot   *TargetDisk
	root   *TargetDisk
	errs   FieldErrors
	out    Storage
	boots  int64 // size of /boot; 0: none asked for
	rootSz int64 // 0: the rest
}

// Apply makes a layout. Wrong options are FieldErrors; any other error says why the machine cannot have it.
func Apply(name string, t Target, o Options) (Storage, error) {
	p := plan{t: &t, o: o, errs: FieldErrors{}}
	switch {
	case !slices.Contains(Names, name):
		return Storage{}, fmt.Errorf("there is no layout %q", name)
	case len(t.Disks) == 0:
		return Storage{}, ErrNoBootDisk
	case name == NameBlank:
		return Storage{}, nil
	}
	if p.boot = t.named(t.Boot); p.boot == nil {
		return Storage{}, ErrNoBootDisk
	}
	if name == NameCustom {
		if len(o.Custom) == 0 {
			return Storage{}, errors.New("No custom storage layout configuration found") //nolint:staticcheck // MAAS's text
		}
		c, err := ParseCustom(o.Custom)
		if err != nil {
			return Storage{}, fmt.Errorf("Failed to apply storage layout: %w", err) //nolint:staticcheck // MAAS's text
		}
		if p.out, err = c.Storage(t); err != nil {
			return Storage{}, fmt.Errorf("Failed to apply storage layout: %w", err) //nolint:staticcheck // MAAS's text
		}
		return p.out, nil
	}
	p.options()
	var err error
	switch name {
	case NameFlat:
		err = p.flat()
	case NameLVM:
		err = p.lvm()
	case NameBcache:
		err = p.bcache()
	case NameVMFS6, NameVMFS7:
		err = p.vmfs(name)
	}
	if len(p.errs) > 0 {
		return Storage{}, p.errs
	}
	if err != nil {
		return Storage{}, err
	}
	return p.out, nil
}

// size reads an option that is a part of total, within bounds.
func (p *plan) size(field, text string, total, least, most int64) int64 {
	if text == "" {
		return 0
	}
	s, ok := ParseSize(text)
	if !ok {
		p.errs.add(field, "Enter a valid value.")
		return 0
	}
	v := s.Of(total)
	switch {
	case v < least:
		p.errs.add(field, "Size is too small. Minimum size is %d.", least)
	case v > most:
		p.errs.add(field, "Size is too large. Maximum size is %d.", most)
	default:
		return v
	}
	return 0
}

func (p *plan) options() {
	rest := p.boot.Size - efiSize
	p.boots = p.size("boot_size", p.o.BootSize, rest, MinBoot, rest-MinRoot)
	p.rootSz = p.size("root_size", p.o.RootSize, rest, MinRoot, rest-MinBoot)
	p.root = p.boot
	if p.o.RootDevice != nil {
		if p.root = p.t.disk(func(d *TargetDisk) bool { return d.ID == *p.o.RootDevice }); p.root == nil {
			p.errs.add("root_device", "%d is not a physical disk of the machine.", *p.o.RootDevice)
			p.root = p.boot
		}
	}
	if p.rootSz > 0 && efiSize+p.boots+p.rootSz > p.boot.Size {
		p.errs.add("__all__", "Size of the boot partition and root partition are larger than the available space on the boot disk.")
	}
}

// table is the partition table of a disk, made when it is not there.
func (p *plan) table(d *TargetDisk) *Table {
	for i := range p.out.Tables {
		if p.out.Tables[i].Device == d.Name {
			return &p.out.Tables[i]
		}
	}
	p.out.Tables = append(p.out.Tables, Table{Device: d.Name, Type: GPT})
	return &p.out.Tables[len(p.out.Tables)-1]
}

// add adds a partition; size 0 is all that is left.
func (p *plan) add(d *TargetDisk, size int64, part Partition) (*Partition, error) {
	t := p.table(d)
	free := Usable(d.Size, p.t.Firmware, p.t.Arch)
	var used []int
	for _, x := range t.Partitions {
		free -= x.Size
		used = append(used, x.Number)
	}
	if part.Size = floor(size); size == 0 {
		part.Size = floor(free)
	}
	if part.Size > free || part.Size < MinDevice {
		return nil, fmt.Errorf("the disk %s of %d bytes is too small", d.Name, d.Size)
	}
	part.Number = NextNumber(used, t.Type, p.t.Firmware, p.t.Arch, d == p.boot)
	part.UUID = p.t.NewUUID()
	t.Partitions = append(t.Partitions, part)
	return &t.Partitions[len(t.Partitions)-1], nil
}

// fs gives a partition a file system.
func (p *plan) fs(part *Partition, kind, label, mount string) {
	part.FSType, part.FSUUID, part.Label, part.MountPoint = kind, p.t.NewUUID(), label, mount
	if kind == "fat32" {
		part.FSUUID = VolumeID(part.FSUUID)
	}
}

// basic is what all layouts have in common: what the firmware needs, /boot, and a partition for the root that it answers.
func (p *plan) basic(boot int64, given bool) (*Partition, error) {
	switch {
	case p.t.Firmware == UEFI && p.t.Arch != "ppc64el":
		part, err := p.add(p.boot, efiSize, Partition{Flag: "boot", Bootable: true})
		if err != nil {
			return nil, err
		}
		p.fs(part, "fat32", "efi", "/boot/efi")
	case p.t.Arch == "arm64" && p.t.Firmware != UEFI && boot == 0 && !given:
		boot = MinBoot
	}
	if boot > 0 {
		part, err := p.add(p.boot, boot, Partition{Bootable: true})
		if err != nil {
			return nil, err
		}
		p.fs(part, "ext4", "boot", "/boot")
	}
	root, err := p.add(p.root, p.rootSz, Partition{})
	if err == nil && root.Size < smallestRoot {
		err = fmt.Errorf("the disk %s of %d bytes is too small: %d are left for the root file system", p.root.Name, p.root.Size, root.Size)
	}
	return root, err
}

func (p *plan) flat() error {
	root, err := p.basic(p.boots, p.boots > 0)
	if err == nil {
		p.fs(root, "ext4", "root", "/")
	}
	return err
}

func (p *plan) rootFS() *FS {
	return &FS{Type: "ext4", UUID: p.t.NewUUID(), Label: "root", MountPoint: "/"}
}

func (p *plan) lvm() error {
	most := p.rootSz
	if most == 0 {
		most = p.boot.Size - efiSize - p.boots
	}
	size := p.size("lv_size", p.o.LVSize, most, MinRoot, most)
	for field, name := range map[string]string{"vg_name": p.o.VGName, "lv_name": p.o.LVName} {
		if name != "" && !deviceName.MatchString(name) {
			p.errs.add(field, "Enter a valid value.")
		}
	}
	root, err := p.basic(p.boots, p.boots > 0)
	if err != nil {
		return err
	}
	room := GroupSize(VolumeGroup, []int64{root.Size}, nil)
	if size = size / LVMExtent * LVMExtent; size == 0 {
		size = room
	}
	if size > room {
		p.errs.add("lv_size", "Size is too large. Maximum size is %d.", room)
	}
	p.out.Groups = append(p.out.Groups, Group{Kind: VolumeGroup, Name: cmp.Or(p.o.VGName, "vgroot"), UUID: p.t.NewUUID(),
		Members: []Ref{{p.root.Name, root.Number}},
		Volumes: []Volume{{Name: cmp.Or(p.o.LVName, "lvroot"), UUID: p.t.NewUUID(), Size: size, FS: p.rootFS()}}})
	return nil
}

func (p *plan) cacheDisk() *TargetDisk {
	free := func(d *TargetDisk) bool { return d != p.boot && d != p.root }
	if p.o.CacheDevice != nil {
		d := p.t.disk(func(d *TargetDisk) bool { return d.ID == *p.o.CacheDevice && free(d) })
		if d == nil {
			p.errs.add("cache_device", "%d is not a free physical disk of the machine.", *p.o.CacheDevice)
		}
		return d
	}
	var best *TargetDisk
	for i := range p.t.Disks {
		if d := &p.t.Disks[i]; free(d) && slices.Contains(d.Tags, "ssd") && (best == nil || d.Size < best.Size) {
			best = d
		}
	}
	return best
}

func (p *plan) bcache() error {
	disk := p.cacheDisk()
	mode := cmp.Or(p.o.CacheMode, "writethrough")
	if !slices.Contains(CacheModes, mode) {
		p.errs.add("cache_mode", "Select a valid choice. %s is not one of the available choices.", mode)
	}
	size := int64(0)
	switch {
	case p.o.CacheSize != "" && p.o.CacheNoPart:
		const both = "Cannot use cache_size and cache_no_part at the same time."
		p.errs.add("cache_size", both)
		p.errs.add("cache_no_part", both)
	case disk != nil:
		size = p.size("cache_size", p.o.CacheSize, disk.Size, MinDevice, disk.Size)
	}
	if disk == nil {
		if p.o.Fallback {
			return p.flat()
		}
		return errors.New("Node doesn't have an available cache device to setup bcache.") //nolint:staticcheck // MAAS's text
	}
	root, err := p.basic(cmp.Or(p.boots, 1<<30), true)
	if err != nil {
		return err
	}
	backing, cache := Ref{p.root.Name, root.Number}, Ref{Device: disk.Name}
	if !p.o.CacheNoPart {
		// A size that is the whole disk does not fit beside the table: it is all that fits.
		if size > Usable(disk.Size, p.t.Firmware, p.t.Arch) {
			size = 0
		}
		part, err := p.add(disk, size, Partition{})
		if err != nil {
			return err
		}
		cache.Number = part.Number
	}
	p.out.Groups = append(p.out.Groups, Group{Kind: Bcache, Name: "bcache0", UUID: p.t.NewUUID(), Members: []Ref{backing}, Cache: cache, CacheMode: mode,
		FS: p.rootFS()})
	return nil
}

type vmfsPart struct {
	number int
	size   int64 // 0: the datastore
	boot   bool
}

// vmfsTables are the fixed partitions of VMware's images.
var vmfsTables = map[string][]vmfsPart{
	NameVMFS6: {{1, 3 * MiB, true}, {2, 4096 * MiB, false}, {3, 0, false}, {5, 249 * MiB, false}, {6, 249 * MiB, false}, {7, 109 * MiB, false},
		{8, 285 * MiB, false}, {9, 2560 * MiB, false}},
	NameVMFS7:       {{1, 100 * MiB, true}, {5, 4095 * MiB, false}, {6, 4095 * MiB, false}, {7, 25662832128, false}, {8, 0, false}},
	"vmfs7, legacy": {{1, 105 * MiB, true}, {5, 1074 * MiB, false}, {6, 1074 * MiB, false}, {7, 8704 * MiB, false}, {8, 0, false}},
}

func (p *plan) vmfs(name string) error {
	least, text := int64(10<<30), "Boot disk must be at least 10Gb."
	if name == NameVMFS7 {
		least, text = 32<<30, "Boot disk must be at least 32Gb."
	}
	if p.boot.Size < least || p.root.Size < least {
		p.errs.add("boot_size", "%s", text)
		return nil
	}
	t := p.table(p.root)
	free := Usable(p.root.Size, p.t.Firmware, p.t.Arch)
	for _, v := range vmfsTables[name] {
		free -= v.size
	}
	size := floor(free)
	if p.rootSz > 0 {
		size = floor(p.rootSz)
	}
	if size < MinDevice || size > free {
		return fmt.Errorf("the disk %s of %d bytes is too small", p.root.Name, p.root.Size)
	}
	number := 0
	for _, v := range vmfsTables[name] {
		if v.size == 0 {
			v.size, number = size, v.number
		}
		t.Partitions = append(t.Partitions, Partition{Number: v.number, Size: v.size, Bootable: v.boot})
	}
	p.out.Groups = append(p.out.Groups, Group{Kind: VMFS, Name: "datastore1", UUID: p.t.NewUUID(), Members: []Ref{{p.root.Name, number}},
		FS: &FS{Type: VMFS, UUID: p.t.NewUUID(), MountPoint: "/vmfs/volumes/datastore1"}})
	return nil
}

// VMFSBase recognises the partitions of VMware's images: it answers the highest number of those that nobody may remove or format, or 0
// when the table is none of theirs.
func VMFSBase(table string, parts []Partition) int {
	if table != GPT {
		return 0
	}
	sorted := slices.Clone(parts)
	sort.Slice(sorted, func(i, j int) bool { return sorted[i].Number < sorted[j].Number })
next:
	for _, name := range []string{NameVMFS7, "vmfs7, legacy", NameVMFS6} {
		want := vmfsTables[name]
		if len(sorted) < len(want) {
			continue
		}
		for i, w := range want {
			have := sorted[i]
			if have.Number != w.number || have.Bootable != w.boot || w.size != 0 && have.Size != w.size {
				continue next
			}
		}
		last := want[len(want)-1]
		if last.size == 0 { // the datastore may go, and others come in its place
			last = want[len(want)-2]
		}
		return last.number
	}
	return 0
}

// Flat is MAAS's flat layout of a disk with a GPT: an EFI system partition where the firmware is UEFI, and a root file system over the rest.
// The partition that holds GRUB's core on BIOS machines is not modelled: numbers begin at 2 there, and Plan adds it. newUUID makes
// identifiers.
func Flat(size int64, firmware, arch string, newUUID func() string) ([]Partition, error) {
	st, err := Apply(NameFlat, Target{Firmware: firmware, Arch: arch, Boot: "disk", Disks: []TargetDisk{{ID: 1, Name: "disk", Size: size}}, NewUUID: newUUID}, Options{})
	if err != nil {
		return nil, err
	}
	return st.Tables[0].Partitions, nil
}
