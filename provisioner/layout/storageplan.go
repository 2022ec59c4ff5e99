package layout

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/ingot-metal/ingot/api"
)

// mirroring are the levels of RAID that go on without one of their disks: such a machine must also start without it.
var mirroring = []string{RAID1, RAID5, RAID6, RAID10}

// problem is a sentence that says why a machine's storage cannot be made.
func problem(text string, args ...any) error { return fmt.Errorf(text, args...) }

// maxMBREnd is the first byte that a partition of an MBR cannot reach.
const maxMBREnd = 1 << 41

// storagePlan is a plan in the making.
type storagePlan struct {
	in      *Input
	disks   map[string]*Disk
	tables  map[string]*Table
	files   map[string]*FS    // file systems on whole devices
	makers  map[string]*Group // device → the group that makes it up
	members map[Ref]*Group    // device or partition → the group that it is a member of
	boots   map[string]bool   // disks that the boot loader goes to
	made    map[Ref]bool
	ids     map[string]bool
	items   []api.StorageItem
	formats []api.StorageItem
	mounts  []api.StorageItem
}

// StoragePlan is what to make on the disks: the modelled storage; for an image of a whole disk that disk; for a system in memory nothing.
func StoragePlan(in Input) ([]api.StorageItem, error) {
	switch {
	case in.Memory:
		return nil, nil
	case in.WholeDisk:
		return wholeDisk(in.Disks)
	}
	return modelled(in)
}

// modelled lists what to make on a machine's disks, in order: what everything is made of first, then file systems, then mounts. Disks that
// nothing lies on are not in it. An error is a sentence that says why the machine's storage cannot be made.
func modelled(in Input) ([]api.StorageItem, error) {
	p := &storagePlan{in: &in, disks: map[string]*Disk{}, tables: map[string]*Table{}, files: map[string]*FS{}, makers: map[string]*Group{},
		members: map[Ref]*Group{}, boots: map[string]bool{}, made: map[Ref]bool{}, ids: map[string]bool{}}
	if err := p.index(); err != nil {
		return nil, err
	}
	if err := p.bootDisks(); err != nil {
		return nil, err
	}
	ids, err := identities(in.Disks)
	if err != nil {
		return nil, err
	}
	for i := range in.Disks {
		if err := p.disk(&in.Disks[i], ids[i]); err != nil {
			return nil, err
		}
	}
	if err := p.groups(); err != nil {
		return nil, err
	}
	for i := range in.Storage.Special {
		f := &in.Storage.Special[i]
		name := strings.ReplaceAll(strings.Trim(f.MountPoint, "/"), "/", "-")
		for n := 2; p.ids[name+"_mount"]; n++ {
			name = fmt.Sprintf("%s-%d", strings.ReplaceAll(strings.Trim(f.MountPoint, "/"), "/", "-"), n)
		}
		p.ids[name+"_mount"] = true
		p.mounts = append(p.mounts, api.StorageItem{ID: name + "_mount", Type: api.StorageMount, FSType: f.Type, Path: f.MountPoint, Options: f.Options})
	}
	root := slices.ContainsFunc(p.mounts, func(m api.StorageItem) bool { return m.Path == "/" && m.Device != "" })
	if !root {
		return nil, problem("No file system of a device is mounted at /.")
	}
	// A path stands after the paths that it lies in: these are shorter, and begin like it.
	slices.SortStableFunc(p.mounts, func(a, b api.StorageItem) int { return cmp.Compare(a.Path, b.Path) })
	return slices.Concat(p.items, p.formats, p.mounts), nil
}

// wholeDisk is the plan of an image that brings all that is on the boot disk.
func wholeDisk(disks []Disk) ([]api.StorageItem, error) {
	ids, err := identities(disks)
	if err != nil {
		return nil, err
	}
	for i, d := range disks {
		if d.Boot {
			return []api.StorageItem{{ID: d.ID.Name, Type: api.StorageDisk, Name: d.ID.Name, Disk: &ids[i], Boot: true}}, nil
		}
	}
	return nil, problem("The machine has no boot disk.")
}

// index finds things by their devices. Each device has one maker.
func (p *storagePlan) index() error {
	st := &p.in.Storage
	for i := range p.in.Disks {
		p.disks[p.in.Disks[i].ID.Name] = &p.in.Disks[i]
	}
	for i := range st.Tables {
		p.tables[st.Tables[i].Device] = &st.Tables[i]
	}
	for i := range st.Filesystems {
		p.files[st.Filesystems[i].Device] = &st.Filesystems[i].FS
	}
	for i := range st.Groups {
		g := &st.Groups[i]
		devices := []string{g.Name}
		if g.Kind == VolumeGroup {
			devices = nil
			for _, v := range g.Volumes {
				devices = append(devices, v.Name)
			}
		}
		for _, name := range devices {
			if p.makers[name] != nil || p.disks[name] != nil {
				return problem("Two devices would be called %s. Rename one of them.", name)
			}
			p.makers[name] = g
		}
		if g.FS != nil {
			p.files[g.Name] = g.FS
		}
		for _, v := range g.Volumes {
			if v.FS != nil {
				p.files[v.Name] = v.FS
			}
		}
		for _, m := range slices.Concat(g.Members, g.Spares) {
			p.members[m] = g
		}
		if g.Kind == Bcache {
			p.members[g.Cache] = g
		}
	}
	return nil
}

// identities are the names by which the agent finds the disks. A serial number that two disks have tells neither; their paths must.
func identities(disks []Disk) ([]api.DiskID, error) {
	out := make([]api.DiskID, len(disks))
	for i := range disks {
		out[i] = disks[i].ID
		for j := range disks {
			if i == j || disks[i].ID.Serial == "" || disks[i].ID.Serial != disks[j].ID.Serial {
				continue
			}
			if disks[i].ID.Path == "" || disks[i].ID.Path == disks[j].ID.Path {
				return nil, problem("The disks %s and %s have the same serial number, and nothing else tells them apart: give each its id_path.",
					disks[i].ID.Name, disks[j].ID.Name)
			}
			out[i].Serial, out[i].Model = "", ""
		}
	}
	return out, nil
}

// Identities are the names by which the agent finds disks, whatever is on them. Where it cannot tell two apart, it will say so.
func Identities(ids []api.DiskID) []api.DiskID {
	disks := make([]Disk, len(ids))
	for i := range ids {
		disks[i].ID = ids[i]
	}
	if out, err := identities(disks); err == nil {
		return out
	}
	return ids
}

// id names a device or partition in the plan: as MAAS does, that of a logical volume begins with its group's.
func (p *storagePlan) id(r Ref) string {
	name := r.Device
	if g := p.makers[name]; g != nil && g.Kind == VolumeGroup {
		name = g.Name + "-" + name
	}
	if r.Number > 0 {
		name += "-part" + strconv.Itoa(r.Number)
	}
	return name
}

// add adds an item that others can be made of.
func (p *storagePlan) add(item api.StorageItem) error {
	if p.ids[item.ID] {
		return problem("Two devices would be called %s. Rename one of them.", item.ID)
	}
	p.ids[item.ID] = true
	p.items = append(p.items, item)
	return nil
}

// format adds the file system on a device or partition, and its mount.
func (p *storagePlan) format(r Ref, f *FS) {
	if f == nil || f.Type == "" {
		return
	}
	id, kind, uuid := p.id(r), f.Type, f.UUID
	if kind == "fat32" || kind == "vfat" {
		if kind = "vfat"; !IsVolumeID(uuid) {
			uuid = VolumeID(uuid) // FAT has no room for a UUID
		}
	}
	p.formats = append(p.formats, api.StorageItem{ID: id + "_format", Type: api.StorageFormat, Volume: id, FSType: kind, UUID: dashed(uuid), Label: f.Label})
	p.ids[id+"_format"] = true
	if f.MountPoint == "" {
		return
	}
	path := f.MountPoint
	if kind == "swap" {
		path = "none"
	}
	p.mounts = append(p.mounts, api.StorageItem{ID: id + "_mount", Type: api.StorageMount, Device: id + "_format", Path: path, Options: f.Options})
	p.ids[id+"_mount"] = true
}

// dashed is a UUID as fstab and tools want it: the API takes it without dashes too.
func dashed(uuid string) string {
	if len(uuid) != 32 {
		return uuid
	}
	return strings.Join([]string{uuid[:8], uuid[8:12], uuid[12:16], uuid[16:20], uuid[20:]}, "-")
}

func (part *Partition) fs() *FS {
	return &FS{Type: part.FSType, UUID: part.FSUUID, Label: part.Label, MountPoint: part.MountPoint, Options: part.Options}
}

func isFAT(kind string) bool { return kind == "fat32" || kind == "vfat" }

// isESP says whether a partition is one that UEFI firmware starts from.
func isESP(part *Partition) bool { return part.Flag == "boot" || part.MountPoint == "/boot/efi" }

// mountedAt finds what is mounted at a path.
func (p *storagePlan) mountedAt(path string) (r Ref, fs *FS, ok bool) {
	for _, t := range p.in.Storage.Tables {
		for i := range t.Partitions {
			if part := &t.Partitions[i]; part.MountPoint == path && part.FSType != "" {
				return Ref{t.Device, part.Number}, part.fs(), true
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(p.files)) {
		if f := p.files[name]; f.MountPoint == path {
			return Ref{Device: name}, f, true
		}
	}
	return Ref{}, nil, false
}

// mirrors adds the disks that hold partitions of the mirroring RAIDs that something lies on, when the boot disk is one of them.
func (p *storagePlan) mirrors(r Ref, boot string, out map[string]bool, depth int) {
	g := p.makers[r.Device]
	if g == nil || depth > len(p.in.Storage.Groups) {
		return
	}
	if slices.Contains(mirroring, g.Kind) && slices.ContainsFunc(g.Members, func(m Ref) bool { return m.Device == boot && m.Number > 0 }) {
		for _, m := range slices.Concat(g.Members, g.Spares) {
			if p.disks[m.Device] != nil && m.Number > 0 {
				out[m.Device] = true
			}
		}
	}
	for _, m := range g.Members {
		p.mirrors(m, boot, out, depth+1)
	}
}

// bootDisks decides where the boot loader goes: to the boot disk, and to those that mirror what it loads.
func (p *storagePlan) bootDisks() error {
	boot := ""
	for _, d := range p.in.Disks {
		if d.Boot {
			boot = d.ID.Name
		}
	}
	if boot == "" {
		return problem("The machine has no boot disk.")
	}
	loads, _, ok := p.mountedAt("/boot")
	if !ok {
		if loads, _, ok = p.mountedAt("/"); !ok {
			return problem("No file system of a device is mounted at /.")
		}
	}
	mirrors := map[string]bool{}
	p.mirrors(loads, boot, mirrors, 0)
	if p.in.Firmware == UEFI {
		efi, fs, ok := p.mountedAt("/boot/efi")
		if !ok {
			return problem("UEFI firmware needs an EFI system partition that is mounted at /boot/efi.")
		}
		if p.disks[efi.Device] == nil || efi.Number == 0 || !isFAT(fs.Type) {
			return problem("/boot/efi is on %s, where UEFI firmware does not find it. Mount there a fat32 file system on a partition of a disk.", p.id(efi))
		}
		p.boots[efi.Device] = true
		for name := range mirrors {
			if t := p.tables[name]; t != nil && slices.ContainsFunc(t.Partitions, p.isCopy) {
				p.boots[name] = true
			}
		}
		return nil
	}
	mirrors[boot] = true
	for name := range mirrors {
		t := p.tables[name]
		taken := t != nil && t.Type != MBR && p.loaderPartition(name).Flag != "" && slices.ContainsFunc(t.Partitions, func(x Partition) bool { return x.Number == 1 })
		switch {
		case name == boot && t == nil && (p.files[name] != nil || p.members[Ref{Device: name}] != nil):
			return problem("The boot disk %s is used without a partition table, which leaves no place for the boot loader. Put what is on it on a partition.", name)
		case name == boot && taken:
			return problem("Partition 1 of the boot disk %s is taken, and the firmware needs it for the boot loader. Apply a storage layout again, or commission "+
				"the machine anew if it boots in another way since.", name)
		}
		p.boots[name] = !taken
	}
	return nil
}

// isCopy says whether a partition is to be a copy of the EFI system partition: one that is marked to boot from, with a FAT that is not mounted.
func (p *storagePlan) isCopy(part Partition) bool {
	return (part.Bootable || part.Flag == "boot") && isFAT(part.FSType) && part.MountPoint == ""
}

// loaderPartition is the partition that holds a boot loader and that MAAS does not show: number 1, where numbers begin at 2.
func (p *storagePlan) loaderPartition(disk string) Partition {
	switch {
	case p.in.Arch == "ppc64el":
		if p.boots[disk] || p.disks[disk] != nil && p.disks[disk].Boot {
			return Partition{Number: 1, Size: prepSize, Flag: "prep"}
		}
	case p.in.Arch == "amd64" && p.in.Firmware != UEFI:
		return Partition{Number: 1, Size: biosGrubSize, Flag: "bios_grub"}
	}
	return Partition{}
}

// disk adds a disk that something lies on, with its partitions.
func (p *storagePlan) disk(d *Disk, id api.DiskID) error {
	name := d.ID.Name
	t, ref := p.tables[name], Ref{Device: name}
	if t == nil && p.files[name] == nil && p.members[ref] == nil && !p.boots[name] {
		return nil
	}
	if t == nil && p.boots[name] { // nothing but the boot loader lies here
		t = &Table{Device: name, Type: MBR}
		if p.in.Arch == "amd64" || p.in.Firmware == UEFI {
			t.Type = GPT
		}
	}
	item := api.StorageItem{ID: name, Type: api.StorageDisk, Name: name, Disk: &id, Boot: p.boots[name], PTable: ptable(t)}
	if err := p.add(item); err != nil {
		return err
	}
	p.made[ref] = true
	p.format(ref, p.files[name])
	return p.partitions(t, d)
}

func ptable(t *Table) string {
	switch {
	case t == nil:
		return ""
	case t.Type == MBR:
		return "msdos"
	}
	return "gpt"
}

// partitions adds the partitions of a table, at the places that they get. disk is nil on what a group makes up.
func (p *storagePlan) partitions(t *Table, disk *Disk) error {
	if t == nil {
		return nil
	}
	parts := slices.Clone(t.Partitions)
	slices.SortFunc(parts, func(a, b Partition) int { return cmp.Compare(a.Number, b.Number) })
	if disk != nil && t.Type != MBR && (len(parts) == 0 || parts[0].Number > 1) {
		if l := p.loaderPartition(t.Device); l.Flag != "" {
			from := t.Device + disk.ID.Serial
			if len(parts) > 0 {
				from = parts[0].UUID
			}
			l.UUID = derivedUUID(from, "bios_grub")
			parts = slices.Insert(parts, 0, l)
		}
	}
	at, device := int64(tableOffset), p.id(Ref{Device: t.Device})
	for i := range parts {
		part := &parts[i]
		logical := t.Type == MBR && part.Number > 4
		if logical && (i == 0 || parts[i-1].Number < 4) {
			if err := p.extended(t, parts[i:], device, at); err != nil {
				return err
			}
		}
		ref := Ref{t.Device, part.Number}
		item := api.StorageItem{ID: p.id(ref), Type: api.StoragePartition, Name: p.id(ref), UUID: dashed(part.UUID), Device: device, Number: part.Number,
			Offset: at, Size: part.Size, Flag: part.Flag}
		switch {
		case logical: // its own table stands in front of it
			item.Flag, item.Offset, item.Size = "logical", at+MiB, part.Size-MiB
		case isESP(part), t.Type == MBR && part.Bootable, p.in.Firmware == UEFI && p.boots[t.Device] && p.isCopy(*part):
			item.Flag = "boot"
		}
		end := at + part.Size
		switch {
		case disk != nil && end > disk.ID.Size-endReserve:
			return problem("The partitions of %s end at byte %d, and the disk has %d. Make one of them smaller.", t.Device, end, disk.ID.Size)
		case t.Type == MBR && end > maxMBREnd:
			return problem("The partition %s ends beyond 2 TiB, where an MBR does not reach. Give the disk a GPT, or make its partitions smaller.", item.ID)
		case item.Size <= 0:
			return problem("The partition %s has no size.", item.ID)
		}
		if err := p.add(item); err != nil {
			return err
		}
		p.made[ref] = true
		p.format(ref, part.fs())
		at = (end + MiB - 1) / MiB * MiB
	}
	return nil
}

// extended adds the partition 4 of an MBR, which holds all those above it.
func (p *storagePlan) extended(t *Table, logical []Partition, device string, at int64) error {
	size := int64(0)
	for _, part := range logical {
		size += (part.Size + MiB - 1) / MiB * MiB
	}
	id := p.id(Ref{t.Device, 4})
	return p.add(api.StorageItem{ID: id, Type: api.StoragePartition, Name: id, UUID: derivedUUID(logical[0].UUID, "extended"), Device: device, Number: 4,
		Offset: at, Size: size, Flag: "extended"})
}

// groups adds what is made of other devices, each when what it is made of is there.
func (p *storagePlan) groups() error {
	left := make([]*Group, 0, len(p.in.Storage.Groups))
	for i := range p.in.Storage.Groups {
		left = append(left, &p.in.Storage.Groups[i])
	}
	for len(left) > 0 {
		var waiting []*Group
		for _, g := range left {
			refs := slices.Concat(g.Members, g.Spares)
			if g.Kind == Bcache {
				refs = append(refs, g.Cache)
			}
			if slices.ContainsFunc(refs, func(r Ref) bool { return !p.made[r] }) {
				waiting = append(waiting, g)
				continue
			}
			if err := p.group(g); err != nil {
				return err
			}
		}
		if len(waiting) == len(left) {
			return problem("%s is made of devices that are not there.", waiting[0].Name)
		}
		left = waiting
	}
	return nil
}

func (p *storagePlan) names(refs []Ref) []string {
	var out []string
	for _, r := range refs {
		out = append(out, p.id(r))
	}
	slices.Sort(out)
	return out
}

func (p *storagePlan) group(g *Group) error {
	item := api.StorageItem{ID: g.Name, Name: g.Name, UUID: dashed(g.UUID)}
	switch {
	case g.Kind == VolumeGroup:
		item.Type, item.Devices = api.StorageVG, p.names(g.Members)
		if err := p.add(item); err != nil {
			return err
		}
		for _, v := range g.Volumes {
			ref := Ref{Device: v.Name}
			if err := p.add(api.StorageItem{ID: p.id(ref), Type: api.StorageLV, Name: v.Name, UUID: dashed(v.UUID), VolGroup: g.Name, Size: v.Size}); err != nil {
				return err
			}
			p.made[ref] = true
			p.format(ref, p.files[v.Name])
		}
		return nil
	case slices.Contains(RAIDs, g.Kind):
		item.Type, item.Level = api.StorageRAID, strings.TrimPrefix(g.Kind, "raid-")
		item.Devices, item.Spares, item.PTable = p.names(g.Members), p.names(g.Spares), ptable(p.tables[g.Name])
	case g.Kind == Bcache && len(g.Members) == 1:
		item.Type, item.UUID = api.StorageBcache, "" // bcache's tools choose their own
		item.Backing, item.Cache, item.Mode = p.id(g.Members[0]), p.id(g.Cache), g.CacheMode
	default:
		return problem("Only VMware ESXi has a use for the datastore %s.", g.Name)
	}
	if err := p.add(item); err != nil {
		return err
	}
	ref := Ref{Device: g.Name}
	p.made[ref] = true
	p.format(ref, p.files[g.Name])
	return p.partitions(p.tables[g.Name], nil)
}
