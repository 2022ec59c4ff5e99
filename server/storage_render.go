package server

import (
	"fmt"

	"github.com/ingot-metal/ingot/api"
	"github.com/ingot-metal/ingot/provisioner"
	"github.com/ingot-metal/ingot/provisioner/layout"
	"github.com/ingot-metal/ingot/storage"
)

// disks fills the storage fields. storage is in MB over the physical disks.
func (r *machineRenderer) disks(b *storage.Bundle, m *api.Machine) {
	m.BlockdeviceSet, m.PhysicalblockdeviceSet, m.VirtualblockdeviceSet = []api.BlockDevice{}, []api.BlockDevice{}, []api.BlockDevice{}
	m.VolumeGroups, m.Raids, m.Bcaches, m.CacheSets = []api.Stub{}, []api.Stub{}, []api.Stub{}, []api.Stub{}
	m.SpecialFilesystems = []api.Filesystem{}
	var total int64
	boot := provisioner.BootDisk(b)
	for _, d := range b.Disks {
		rendered := renderBlockDevice(b, d)
		m.BlockdeviceSet = append(m.BlockdeviceSet, rendered)
		if d.Type == "physical" {
			total += d.Size
			m.PhysicalblockdeviceSet = append(m.PhysicalblockdeviceSet, rendered)
		} else {
			m.VirtualblockdeviceSet = append(m.VirtualblockdeviceSet, rendered)
		}
		if d == boot {
			m.BootDisk = &rendered
		}
	}
	m.Storage = float64(total) / 1e6
	for _, g := range b.Groups {
		stub := api.Stub{SystemID: b.Node.SystemID, ID: &g.ID, Incomplete: true}
		switch {
		case provisioner.IsVG(g):
			m.VolumeGroups = append(m.VolumeGroups, stub)
		case provisioner.IsRAID(g):
			m.Raids = append(m.Raids, stub)
		case provisioner.IsBcache(g):
			m.Bcaches = append(m.Bcaches, stub)
		}
	}
	for _, c := range b.CacheSets {
		m.CacheSets = append(m.CacheSets, api.Stub{SystemID: b.Node.SystemID, ID: &c.ID, Incomplete: true})
	}
	for i := range b.Special {
		m.SpecialFilesystems = append(m.SpecialFilesystems, *renderFilesystem(&b.Special[i]))
	}
}

func renderFilesystem(f *storage.Filesystem) *api.Filesystem {
	if f == nil {
		return nil
	}
	uuid := f.UUID
	if uuid == nil {
		uuid = new(string) // clients want a string
	}
	return &api.Filesystem{Fstype: f.Fstype, Label: f.Label, UUID: uuid, MountPoint: f.MountPoint, MountOptions: f.MountOptions}
}

// usedFor says what a file system is for.
func usedFor(b *storage.Bundle, f *storage.Filesystem) string {
	if f == nil {
		return "Unused"
	}
	g := provisioner.GroupOf(b, f.GroupID)
	switch {
	case f.MountPoint != nil && *f.MountPoint != "":
		return fmt.Sprintf("%s formatted filesystem mounted at %s", f.Fstype, *f.MountPoint)
	case f.CacheSetID != nil:
		for _, c := range b.CacheSets {
			if c.ID == *f.CacheSetID {
				return "Cache device for " + provisioner.CacheSetName(c)
			}
		}
	case g == nil:
	case f.Fstype == "raid-spare":
		return fmt.Sprintf("Spare %s device for %s", g.Type, g.Name)
	case provisioner.IsRAID(g):
		return fmt.Sprintf("Active %s device for %s", g.Type, g.Name)
	case provisioner.IsVG(g):
		return "LVM volume for " + g.Name
	case provisioner.IsBcache(g):
		return "Backing device for " + g.Name
	default:
		return "VMFS extent for " + g.Name
	}
	return fmt.Sprintf("Unmounted %s formatted filesystem", f.Fstype)
}

func deviceURI(systemID string, id int64) string {
	return apiRoot + "nodes/" + systemID + "/blockdevices/" + itoa(id) + "/"
}

func devicePath(b *storage.Bundle, d *storage.DiskBundle) string {
	return "/dev/disk/by-dname/" + provisioner.DiskName(b, d)
}

func renderBlockDevice(b *storage.Bundle, d *storage.DiskBundle) api.BlockDevice {
	out := api.BlockDevice{ResourceURI: deviceURI(b.Node.SystemID, d.ID), SystemID: b.Node.SystemID, ID: d.ID, Name: provisioner.DiskName(b, d), Type: d.Type,
		Path: devicePath(b, d), Model: d.Model, Serial: d.Serial, IDPath: d.IDPath, UUID: d.UUID, Size: d.Size, BlockSize: d.BlockSize,
		Tags: listOf(d.Tags), Filesystem: renderFilesystem(d.Filesystem), Partitions: make([]api.Partition, len(d.Partitions)),
		FirmwareVersion: d.FirmwareVersion, NUMANode: d.NUMANode, UsedFor: usedFor(b, d.Filesystem)}
	out.UsedSize, out.AvailableSize = provisioner.DiskSpace(b, d)
	if d.PartitionTable != "" {
		out.PartitionTableType = &d.PartitionTable
		if d.Filesystem == nil {
			out.UsedFor = fmt.Sprintf("%s partitioned with %d partition%s", d.PartitionTable, len(d.Partitions), map[bool]string{true: "", false: "s"}[len(d.Partitions) == 1])
		}
	}
	for i := range d.Partitions {
		out.Partitions[i] = renderPartition(b, d, &d.Partitions[i])
	}
	return out
}

func renderPartition(b *storage.Bundle, d *storage.DiskBundle, p *storage.PartitionBundle) api.Partition {
	return api.Partition{ResourceURI: deviceURI(b.Node.SystemID, d.ID) + "partition/" + itoa(p.ID), SystemID: b.Node.SystemID, DeviceID: d.ID, ID: p.ID,
		UUID: orNull(p.UUID), Path: fmt.Sprintf("%s-part%d", devicePath(b, d), p.Number), Type: "partition", Size: p.Size, Bootable: p.Bootable,
		Filesystem: renderFilesystem(p.Filesystem), UsedFor: usedFor(b, p.Filesystem), Tags: listOf(p.Tags)}
}

// renderMember renders what a group is made of: a block device or a partition.
func renderMember(b *storage.Bundle, m *storage.Member) any {
	switch {
	case m == nil:
		return nil
	case m.Partition != nil:
		return renderPartition(b, m.Disk, m.Partition)
	}
	return renderBlockDevice(b, m.Disk)
}

// members renders the devices of a group; those that are spares, or those that are not.
func members(b *storage.Bundle, g *storage.GroupBundle, spares bool) []any {
	out := []any{}
	for i := range g.Members {
		if m := &g.Members[i]; (m.Filesystem.Fstype == "raid-spare") == spares {
			out = append(out, renderMember(b, m))
		}
	}
	return out
}

// virtualDevice renders the one device that a group makes up.
func virtualDevice(b *storage.Bundle, g *storage.GroupBundle) (d api.BlockDevice) {
	if len(g.Devices) > 0 {
		d = renderBlockDevice(b, g.Devices[0])
	}
	return d
}

func groupURI(b *storage.Bundle, kind string, id int64) string {
	return apiRoot + "nodes/" + b.Node.SystemID + "/" + kind + "/" + itoa(id) + "/"
}

func renderRAID(b *storage.Bundle, g *storage.GroupBundle) any {
	size, _ := provisioner.GroupSpace(g)
	return api.Raid{ResourceURI: groupURI(b, "raid", g.ID), SystemID: b.Node.SystemID, ID: g.ID, UUID: g.UUID, Name: g.Name, Level: g.Type,
		Devices: members(b, g, false), SpareDevices: members(b, g, true), Size: size, HumanSize: layout.HumanSize(size), VirtualDevice: virtualDevice(b, g)}
}

func renderVolumeGroup(b *storage.Bundle, g *storage.GroupBundle) any {
	size, used := provisioner.GroupSpace(g)
	out := api.VolumeGroup{ResourceURI: groupURI(b, "volume-group", g.ID), SystemID: b.Node.SystemID, ID: g.ID, UUID: g.UUID, Name: g.Name,
		Devices: members(b, g, false), Size: size, HumanSize: layout.HumanSize(size), AvailableSize: size - used, HumanAvailableSize: layout.HumanSize(size - used),
		UsedSize: used, HumanUsedSize: layout.HumanSize(used), LogicalVolumes: []api.BlockDevice{}}
	for _, d := range g.Devices {
		out.LogicalVolumes = append(out.LogicalVolumes, renderBlockDevice(b, d))
	}
	return out
}

func renderBcache(b *storage.Bundle, g *storage.GroupBundle) any {
	size, _ := provisioner.GroupSpace(g)
	out := api.Bcache{ResourceURI: groupURI(b, "bcache", g.ID), SystemID: b.Node.SystemID, ID: g.ID, UUID: g.UUID, Name: g.Name, Size: size,
		HumanSize: layout.HumanSize(size), VirtualDevice: virtualDevice(b, g), CacheMode: g.CacheMode}
	if len(g.Members) > 0 {
		out.BackingDevice = renderMember(b, &g.Members[0])
	}
	for _, c := range b.CacheSets {
		if g.CacheSetID != nil && c.ID == *g.CacheSetID {
			out.CacheSet = renderCacheSet(b, c)
		}
	}
	return out
}

func renderCacheSet(b *storage.Bundle, c *storage.CacheSetBundle) api.CacheSet {
	return api.CacheSet{ResourceURI: groupURI(b, "bcache-cache-set", c.ID), SystemID: b.Node.SystemID, ID: c.ID, Name: provisioner.CacheSetName(c),
		CacheDevice: renderMember(b, c.Member)}
}

func renderVMFS(b *storage.Bundle, g *storage.GroupBundle) any {
	size, _ := provisioner.GroupSpace(g)
	out := api.VmfsDatastore{ResourceURI: groupURI(b, "vmfs-datastore", g.ID), SystemID: b.Node.SystemID, ID: g.ID, UUID: g.UUID, Name: g.Name,
		Devices: members(b, g, false), Size: size, HumanSize: layout.HumanSize(size)}
	if len(g.Devices) > 0 && g.Devices[0].Filesystem != nil {
		fs := g.Devices[0].Filesystem
		out.Filesystem = map[string]any{"fstype": fs.Fstype, "mount_point": fs.MountPoint}
	}
	return out
}
