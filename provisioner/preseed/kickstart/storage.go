package kickstart

import (
	"fmt"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/ingot-metal/ingot/api"
)

const mib = 1 << 20

// storage is what a plan's disks become.
type storage struct {
	disks    []api.DiskID // those that are written, in the plan's order; @DISK0@ is the first
	commands []command
	fstab    []fstabLine // what kickstart has no words for
}

type fstabLine struct{ spec, path, fstype, options string }

func diskToken(i int) string { return "@DISK" + strconv.Itoa(i) + "@" }

var (
	volumeName = regexp.MustCompile(`^[A-Za-z0-9+_][A-Za-z0-9+_.-]{0,126}$`)
	arrayName  = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,31}$`)
	fsUUID     = regexp.MustCompile(`^[0-9a-fA-F]{8}-([0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}$`)
)

// use is what stands on a device.
type use struct {
	format *api.StorageItem
	mount  *api.StorageItem
	group  *api.StorageItem // the array, volume group, bcache or partition that it is a part of
}

// planner turns a plan into commands.
type planner struct {
	in     *Input
	items  map[string]*api.StorageItem
	uses   map[string]*use
	names  map[string]string // partitions and arrays that are parts of something: raid.1, pv.2, btrfs.3
	disks  map[string]int    // disk item → index
	mirror []string          // the EFI system partitions, when there are several: Anaconda mirrors them
	out    storage
}

// refuse is a sentence of what Anaconda cannot do.
func refuse(format string, args ...any) error { return fmt.Errorf(format, args...) }

// storagePlan translates a plan or says why Anaconda cannot carry it out. Nothing is left out in silence.
func storagePlan(in *Input) (storage, error) {
	p := planner{in: in, items: map[string]*api.StorageItem{}, uses: map[string]*use{}, names: map[string]string{}, disks: map[string]int{}}
	if err := p.index(); err != nil {
		return p.out, err
	}
	if err := p.header(); err != nil {
		return p.out, err
	}
	for i := range in.Storage {
		if err := p.item(&in.Storage[i]); err != nil {
			return p.out, err
		}
	}
	return p.out, p.bootable()
}

func (p *planner) use(id string) *use {
	u := p.uses[id]
	if u == nil {
		u = &use{}
		p.uses[id] = u
	}
	return u
}

// index finds what stands on what.
func (p *planner) index() error {
	formats := map[string]*use{}
	for i := range p.in.Storage {
		it := &p.in.Storage[i]
		if it.ID == "" || p.items[it.ID] != nil {
			return refuse("the storage plan names %q twice or not at all", it.ID)
		}
		p.items[it.ID] = it
		for _, w := range []string{it.Label, it.Options, it.Path, p.in.KernelOpts} {
			if strings.Contains(w, "@DISK") {
				return refuse("%q cannot be part of a storage configuration: @DISK stands for the name of a disk there", w)
			}
		}
		var parts []string
		switch it.Type {
		case api.StorageDisk:
			if it.Disk == nil {
				return refuse("the disk %s of the storage plan has no identity", it.ID)
			}
		case api.StoragePartition:
			parts = []string{it.Device}
		case api.StorageVG, api.StorageRAID:
			parts = append(slices.Clone(it.Devices), it.Spares...)
		case api.StorageLV:
			parts = []string{it.VolGroup}
		case api.StorageBcache:
			return refuse("Anaconda does not make bcache devices: %s. Choose another storage layout.", it.Name)
		case api.StorageFormat:
			u := p.use(it.Volume)
			if u.format != nil {
				return refuse("the device %s is formatted twice in the storage plan", it.Volume)
			}
			u.format, formats[it.ID] = it, u
			parts = []string{it.Volume}
		case api.StorageMount:
			if it.Device == "" {
				continue
			}
			u := formats[it.Device]
			if u == nil {
				return refuse("the storage plan mounts %s, which it does not format", it.Device)
			}
			if u.mount != nil {
				return refuse("the file system on %s is mounted at %s and at %s; Anaconda mounts a file system once", u.format.Volume, u.mount.Path, it.Path)
			}
			u.mount = it
		default:
			return refuse("the storage plan has the unknown item type %q", it.Type)
		}
		for _, d := range parts {
			if p.items[d] == nil {
				return refuse("%s of the storage plan stands on %q, which does not come before it", it.ID, d)
			}
			if it.Type == api.StorageVG || it.Type == api.StorageRAID {
				if g := p.use(d).group; g != nil {
					return refuse("%s is a part of %s and of %s in the storage plan", d, g.ID, it.ID)
				}
			}
			if it.Type != api.StorageFormat {
				p.use(d).group = it
			}
		}
	}
	for i := range p.in.Storage {
		it := &p.in.Storage[i]
		if u := p.uses[it.ID]; it.Type == api.StoragePartition && u != nil && u.format != nil && u.format.FSType == "vfat" && isESP(it, u) {
			p.mirror = append(p.mirror, it.ID)
		}
	}
	if len(p.mirror) < 2 {
		p.mirror = nil
	}
	return nil
}

// isESP says whether a partition is an EFI system partition: the one that is mounted, or a copy of it on another disk.
func isESP(it *api.StorageItem, u *use) bool {
	return u.mount != nil && u.mount.Path == "/boot/efi" || it.Flag == "boot" && (u.mount == nil || strings.HasPrefix(u.mount.Path, "/boot/efi"))
}

// header says which disks are Anaconda's: those of the plan that something is put on, and no others.
func (p *planner) header() error {
	var table string
	var boot []string
	for i := range p.in.Storage {
		it := &p.in.Storage[i]
		if it.Type != api.StorageDisk {
			continue
		}
		if p.uses[it.ID] == nil {
			continue // nothing is put on it: it stays as it is
		}
		if it.PTable == "" {
			return refuse("Anaconda puts file systems, arrays and volume groups on partitions only. Give the disk %s a partition for them.", it.Name)
		}
		if it.PTable != "gpt" && it.PTable != "msdos" {
			return refuse("Anaconda does not make partition tables of type %s: %s", it.PTable, it.Name)
		}
		if table != "" && table != it.PTable {
			return refuse("Anaconda gives all disks of an installation the same kind of partition table; %s is to have another than those before it.", it.Name)
		}
		table = it.PTable
		p.disks[it.ID] = len(p.out.disks)
		if it.Boot {
			boot = append(boot, diskToken(len(p.out.disks)))
		}
		p.out.disks = append(p.out.disks, *it.Disk)
	}
	if len(p.out.disks) == 0 {
		return refuse("the storage plan puts nothing on any disk")
	}
	if len(boot) == 0 {
		return refuse("the storage plan has no boot disk")
	}
	tokens := make([]string, len(p.out.disks))
	for i := range tokens {
		tokens[i] = diskToken(i)
	}
	all := strings.Join(tokens, ",")
	loader := cmd("bootloader", "--location=mbr", opt("boot-drive", boot[0]), "--timeout=1", "--leavebootorder")
	if p.in.KernelOpts != "" {
		loader = append(loader, opt("append", p.in.KernelOpts))
	}
	p.out.commands = append(p.out.commands, cmd("ignoredisk", opt("only-use", all)), cmd("zerombr"),
		cmd("clearpart", "--all", opt("drives", all), "--initlabel", opt("disklabel", table)), loader)
	return nil
}

func (p *planner) add(c command) { p.out.commands = append(p.out.commands, c) }

// member gives a part of something its name in the kickstart.
func (p *planner) member(kind, id string) string {
	n := kind + "." + strconv.Itoa(len(p.names)+1)
	p.names[id] = n
	return n
}

func (p *planner) item(it *api.StorageItem) error {
	switch it.Type {
	case api.StoragePartition:
		return p.partition(it)
	case api.StorageRAID:
		return p.array(it)
	case api.StorageVG:
		return p.volumeGroup(it)
	case api.StorageLV:
		return p.logicalVolume(it)
	case api.StorageMount:
		if it.Device == "" {
			if it.FSType != "tmpfs" && it.FSType != "ramfs" {
				return refuse("%s is a file system without a device that the installation cannot mount at %s", it.FSType, it.Path)
			}
			options := it.Options
			if options == "" {
				options = "defaults"
			}
			p.out.fstab = append(p.out.fstab, fstabLine{it.FSType, it.Path, it.FSType, options})
		}
	}
	return nil
}

func (p *planner) partition(it *api.StorageItem) error {
	if it.Flag == "extended" {
		return nil // Anaconda makes it around the logical ones
	}
	disk, ok := p.disks[it.Device]
	if !ok {
		return refuse("Anaconda does not partition arrays and volumes: %s lies on %s", it.ID, it.Device)
	}
	if it.Size < mib {
		return refuse("the partition %s has no size", it.ID)
	}
	on := []string{number("size", it.Size/mib), opt("ondisk", diskToken(disk))}
	switch it.Flag {
	case "bios_grub":
		p.add(cmd("part", append([]string{"biosboot", "--fstype=biosboot"}, on...)...))
		return nil
	case "prep":
		p.add(cmd("part", append([]string{"prepboot", "--fstype=prepboot"}, on...)...))
		return nil
	}
	u := p.uses[it.ID]
	switch {
	case slices.Contains(p.mirror, it.ID):
		p.add(cmd("part", append([]string{p.member("raid", it.ID)}, on...)...))
		if it.ID == p.mirror[len(p.mirror)-1] {
			array := cmd("raid", "/boot/efi", "--device=boot_efi", "--level=1", "--fstype=efi", "--label=efi")
			for _, id := range p.mirror {
				array = append(array, p.names[id])
			}
			p.add(array)
		}
		return nil
	case u != nil && u.group != nil:
		kind := map[api.StorageType]string{api.StorageRAID: "raid", api.StorageVG: "pv"}[u.group.Type]
		if kind == "" {
			return refuse("Anaconda does not put %s on a partition", u.group.Type)
		}
		p.add(cmd("part", append([]string{p.member(kind, it.ID)}, on...)...))
		return nil
	case u == nil || u.format == nil:
		return refuse("Anaconda makes no partitions without a use: give %s a file system, or remove it.", it.ID)
	}
	if u.format.FSType == "btrfs" {
		if err := p.btrfsAllowed(); err != nil {
			return err
		}
		if u.mount == nil || u.mount.Options != "" && u.mount.Options != "defaults" {
			return refuse("kickstart has no mount options for btrfs, and needs a mount point: %s", it.ID)
		}
		name := p.member("btrfs", it.ID)
		p.add(cmd("part", append([]string{name}, on...)...))
		c := cmd("btrfs", u.mount.Path)
		if u.format.Label != "" {
			c = append(c, opt("label", u.format.Label))
		}
		p.add(append(c, name))
		return nil
	}
	target, opts, err := p.fileSystem(it.ID, u)
	if err != nil {
		return err
	}
	p.add(cmd("part", slices.Concat([]string{target}, opts, on)...))
	return nil
}

func (p *planner) btrfsAllowed() error {
	if p.in.major > 7 {
		return refuse("This node cannot be deployed because the selected deployment OS release, %s %s, does not support BTRFS.", p.in.OSystem, p.in.Series)
	}
	return nil
}

// fileSystem is where a device is mounted and how it is made.
func (p *planner) fileSystem(id string, u *use) (target string, opts []string, err error) {
	f := u.format
	if u.mount == nil {
		return "", nil, refuse("Anaconda makes only file systems that are mounted: mount the one on %s, or remove it.", id)
	}
	target = u.mount.Path
	fstype := f.FSType
	switch fstype {
	case "swap":
		target = "swap"
	case "vfat", "fat32":
		if fstype = "vfat"; target == "/boot/efi" {
			fstype = "efi"
		}
	case "ext2", "ext3", "ext4", "xfs":
		if fsUUID.MatchString(f.UUID) {
			make := "-U " + f.UUID
			if fstype == "xfs" {
				make = "-m uuid=" + f.UUID
			}
			opts = append(opts, opt("mkfsoptions", make))
		}
	case "btrfs":
		return "", nil, refuse("Anaconda makes btrfs on partitions only, not on %s", id)
	default:
		return "", nil, refuse("Anaconda does not make %s file systems: %s", fstype, id)
	}
	if target != "swap" && (!path.IsAbs(target) || path.Clean(target) != target) {
		return "", nil, refuse("the mount point %q of %s is not an absolute path in its shortest form", target, id)
	}
	opts = append([]string{opt("fstype", fstype)}, opts...)
	if f.Label != "" {
		opts = append(opts, opt("label", f.Label))
	}
	if o := u.mount.Options; o != "" && o != "defaults" && target != "swap" {
		opts = append(opts, opt("fsoptions", o))
	}
	return target, opts, nil
}

func (p *planner) array(it *api.StorageItem) error {
	if !slices.Contains([]string{"0", "1", "5", "6", "10"}, it.Level) {
		return refuse("the array %s has the unknown level %q", it.Name, it.Level)
	}
	if !arrayName.MatchString(it.Name) {
		return refuse("the name %q of an array is not one that Anaconda takes", it.Name)
	}
	var members []string
	for _, d := range append(slices.Clone(it.Devices), it.Spares...) {
		n := p.names[d]
		if n == "" {
			return refuse("Anaconda makes arrays of partitions only: %s is a part of %s", d, it.Name)
		}
		members = append(members, n)
	}
	opts := []string{opt("device", it.Name), opt("level", it.Level)}
	if n := len(it.Spares); n > 0 {
		opts = append(opts, number("spares", int64(n)))
	}
	u := p.uses[it.ID]
	var target string
	switch {
	case u != nil && u.group != nil && u.group.Type == api.StorageVG:
		target = p.member("pv", it.ID)
	case it.PTable != "" || u != nil && u.group != nil:
		return refuse("Anaconda puts a file system or a volume group on an array, nothing else: %s", it.Name)
	case u == nil || u.format == nil:
		return refuse("Anaconda makes no arrays without a use: give %s a file system, or remove it.", it.Name)
	default:
		t, fs, err := p.fileSystem(it.ID, u)
		if err != nil {
			return err
		}
		target, opts = t, append(opts, fs...)
	}
	p.add(cmd("raid", slices.Concat([]string{target}, opts, members)...))
	return nil
}

func (p *planner) volumeGroup(it *api.StorageItem) error {
	if !volumeName.MatchString(it.Name) {
		return refuse("the name %q of a volume group is not one that LVM takes", it.Name)
	}
	c := cmd("volgroup", it.Name, "--pesize=4096")
	for _, d := range it.Devices {
		n := p.names[d]
		if n == "" {
			return refuse("Anaconda makes volume groups of partitions and arrays only: %s is a part of %s", d, it.Name)
		}
		c = append(c, n)
	}
	p.add(c)
	return nil
}

func (p *planner) logicalVolume(it *api.StorageItem) error {
	if !volumeName.MatchString(it.Name) {
		return refuse("the name %q of a logical volume is not one that LVM takes", it.Name)
	}
	if it.Size < mib {
		return refuse("the logical volume %s has no size", it.ID)
	}
	u, vg := p.uses[it.ID], p.items[it.VolGroup]
	if vg.Type != api.StorageVG || u == nil || u.format == nil || u.group != nil {
		return refuse("Anaconda puts a file system on a logical volume, nothing else and no less: %s", it.ID)
	}
	target, opts, err := p.fileSystem(it.ID, u)
	if err != nil {
		return err
	}
	size := []string{number("size", it.Size/mib)}
	if p.onArray(vg) && p.largest(it) {
		// What mdadm keeps of an array for itself grows with its version: a volume that is to fill the group takes what there is.
		if slack := int64(256 * len(vg.Devices)); it.Size/mib > 2*slack {
			size = []string{number("size", it.Size/mib-slack), "--grow", number("maxsize", it.Size/mib)}
		}
	}
	p.add(cmd("logvol", slices.Concat([]string{target, opt("vgname", vg.Name), opt("name", it.Name)}, size, opts)...))
	return nil
}

func (p *planner) onArray(vg *api.StorageItem) bool {
	return slices.ContainsFunc(vg.Devices, func(d string) bool { return p.items[d].Type == api.StorageRAID })
}

// largest says whether a logical volume is the largest of its group, the first of several.
func (p *planner) largest(lv *api.StorageItem) bool {
	for i := range p.in.Storage {
		o := &p.in.Storage[i]
		if o.Type == api.StorageLV && o.VolGroup == lv.VolGroup && o.ID != lv.ID && (o.Size > lv.Size || o.Size == lv.Size && o.ID < lv.ID) {
			return false
		}
	}
	return true
}

// bootable holds the plan to what Anaconda's boot loader needs.
func (p *planner) bootable() error {
	device := func(at string) (found *api.StorageItem) {
		for id, u := range p.uses {
			if u.mount != nil && u.mount.Path == at && u.format.FSType != "swap" {
				found = p.items[id]
			}
		}
		return found
	}
	root, boot := device("/"), device("/boot")
	switch {
	case root == nil:
		return refuse("no file system is mounted at /")
	case p.in.Firmware == "uefi" && device("/boot/efi") == nil:
		return refuse("UEFI firmware needs an EFI system partition at /boot/efi")
	}
	if boot == nil {
		boot = root
	}
	if boot.Type == api.StorageLV {
		return refuse("Anaconda's boot loader does not read logical volumes, and /boot lies on %s. Mount /boot on a partition or an array: the lvm layout makes one when it is given boot_size=1G.", boot.ID)
	}
	return nil
}
