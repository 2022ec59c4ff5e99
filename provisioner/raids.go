package provisioner

import (
	"context"
	"slices"

	"github.com/ingot-metal/ingot/provisioner/layout"
	"github.com/ingot-metal/ingot/storage"
)

// GroupInput is what a request says of a RAID, volume group or VMFS datastore: of a new one the devices, of one that is there what to add
// and remove. Devices are ids or names.
type GroupInput struct {
	Name, UUID *string
	Level      string // of a new RAID

	Devices, Partitions             []string
	SpareDevices, SparePartitions   []string
	RemoveDevices, RemovePartitions []string
	RemoveSpareDevices              []string
	RemoveSparePartitions           []string
}

// CreateRAID makes a RAID of free devices.
func (s *Service) CreateRAID(ctx context.Context, systemID string, in GroupInput) (*storage.Bundle, int64, error) {
	var id int64
	b, err := s.changeStorage(ctx, systemID, permAdmin, func(c *storageChange) error {
		if err := c.needReady("Cannot create RAID because the machine is not Ready."); err != nil {
			return err
		}
		f := form{}
		g := storage.StorageGroup{Type: in.Level, Name: deref(in.Name, ""), UUID: f.uuid("uuid", in.UUID)}
		f.text("name", g.Name, 255, storageName)
		if !slices.Contains(layout.RAIDs, in.Level) {
			f.add("level", msgChoice(in.Level))
		}
		pick := c.picker(f)
		active := append(pick.disks("block_devices", in.Devices, deviceRef.free), pick.partitions("partitions", in.Partitions, deviceRef.free)...)
		spares := append(pick.disks("spare_devices", in.SpareDevices, deviceRef.free), pick.partitions("spare_partitions", in.SparePartitions, deviceRef.free)...)
		if len(active) == 0 && f["block_devices"] == nil && f["partitions"] == nil {
			f.add("__all__", "At least one block device or partition must be added to the array.")
		} else if problem := layout.RAIDProblem(in.Level, len(active), len(spares)); problem != "" && len(f) == 0 {
			f.add("__all__", "%s", problem)
		}
		if err := f.err(); err != nil {
			return err
		}
		if slices.ContainsFunc(slices.Concat(active, spares), c.isBoot) {
			// The boot loader needs a place beside the RAID, on each disk, for any of them may be the one that is left.
			for _, list := range [][]deviceRef{active, spares} {
				for i, r := range list {
					if r.part != nil {
						continue
					}
					part, err := c.wholePartition(r.disk)
					if err != nil {
						return err
					}
					list[i] = part
				}
			}
		}
		if g.Name == "" {
			g.Name = c.freeName("md")
		}
		if _, err := c.newGroup(&g, 0); err != nil {
			return err
		}
		id = g.ID
		if err := c.enrollAll(active, fsRAID, g.ID); err != nil {
			return err
		}
		return c.enrollAll(spares, fsRAIDSpare, g.ID)
	})
	return b, id, err
}

// memberOf says whether a device is a member of a group.
func memberOf(g *storage.GroupBundle) func(r deviceRef) bool {
	return func(r deviceRef) bool {
		f := r.filesystem()
		return f != nil && f.GroupID != nil && *f.GroupID == g.ID
	}
}

// UpdateRAID changes a RAID's name, UUID and devices.
func (s *Service) UpdateRAID(ctx context.Context, systemID string, id int64, in GroupInput) (*storage.Bundle, error) {
	return s.changeStorage(ctx, systemID, permAdmin, func(c *storageChange) error {
		g, err := FindGroup(c.b, id, IsRAID)
		if err != nil {
			return err
		}
		if err := c.needReady("Cannot update RAID because the machine is not Ready."); err != nil {
			return err
		}
		f := form{}
		c.rename(f, g, in.Name, in.UUID)
		pick, member := c.picker(f), memberOf(g)
		gone := slices.Concat(pick.disks("remove_block_devices", in.RemoveDevices, member), pick.partitions("remove_partitions", in.RemovePartitions, member),
			pick.disks("remove_spare_devices", in.RemoveSpareDevices, member), pick.partitions("remove_spare_partitions", in.RemoveSparePartitions, member))
		fits := c.notInside(g)
		active := append(pick.disks("add_block_devices", in.Devices, fits), pick.partitions("add_partitions", in.Partitions, fits)...)
		spares := append(pick.disks("add_spare_devices", in.SpareDevices, fits), pick.partitions("add_spare_partitions", in.SparePartitions, fits)...)
		if err := f.err(); err != nil {
			return err
		}
		haveActive, haveSpares := len(active), len(spares)
		for _, m := range g.Members {
			if m.Filesystem.Fstype == fsRAIDSpare {
				haveSpares++
			} else {
				haveActive++
			}
		}
		for _, r := range gone {
			if r.filesystem().Fstype == fsRAIDSpare {
				haveSpares--
			} else {
				haveActive--
			}
		}
		if problem := layout.RAIDProblem(g.Type, haveActive, haveSpares); problem != "" {
			return FieldError("__all__", "%s", problem)
		}
		if err := c.dismiss(gone); err != nil {
			return err
		}
		if active, err = c.offBoot(active); err != nil {
			return err
		}
		if spares, err = c.offBoot(spares); err != nil {
			return err
		}
		if err := c.enrollAll(active, fsRAID, g.ID); err != nil {
			return err
		}
		if err := c.enrollAll(spares, fsRAIDSpare, g.ID); err != nil {
			return err
		}
		return c.saveGroup(g)
	})
}

// notInside is free for those devices that are not themselves made of the group, through however many others.
func (c *storageChange) notInside(g *storage.GroupBundle) func(r deviceRef) bool {
	inside := map[int64]bool{g.ID: true}
	for changed := true; changed; {
		changed = false
		for _, o := range c.b.Groups {
			if inside[o.ID] {
				continue
			}
			for _, m := range c.membersAndCache(o) {
				if m.Disk.GroupID != nil && inside[*m.Disk.GroupID] {
					inside[o.ID], changed = true, true
				}
			}
		}
	}
	return func(r deviceRef) bool {
		return r.free() && (r.disk.GroupID == nil || !inside[*r.disk.GroupID])
	}
}

// membersAndCache are the devices that a group rests on.
func (c *storageChange) membersAndCache(g *storage.GroupBundle) []storage.Member {
	out := slices.Clone(g.Members)
	for _, set := range c.b.CacheSets {
		if g.CacheSetID != nil && set.ID == *g.CacheSetID && set.Member != nil {
			out = append(out, *set.Member)
		}
	}
	return out
}

// deleteKind removes a group of a kind.
func (s *Service) deleteKind(ctx context.Context, systemID string, id int64, kind func(*storage.GroupBundle) bool, text string) error {
	_, err := s.changeStorage(ctx, systemID, permAdmin, func(c *storageChange) error {
		g, err := FindGroup(c.b, id, kind)
		if err != nil {
			return err
		}
		if err := c.needReady(text); err != nil {
			return err
		}
		if IsVG(g) && len(g.Devices) > 0 {
			return Errorf(Invalid, "This volume group has logical volumes; it cannot be deleted.")
		}
		return c.deleteGroup(g)
	})
	return err
}

// DeleteRAID removes a RAID; its devices are free then.
func (s *Service) DeleteRAID(ctx context.Context, systemID string, id int64) error {
	return s.deleteKind(ctx, systemID, id, IsRAID, "Cannot delete RAID because the machine is not Ready.")
}

// CreateVolumeGroup makes a volume group of free devices.
func (s *Service) CreateVolumeGroup(ctx context.Context, systemID string, in GroupInput) (*storage.Bundle, int64, error) {
	var id int64
	b, err := s.changeStorage(ctx, systemID, permAdmin, func(c *storageChange) error {
		if err := c.needReady("Cannot create volume group because the machine is not Ready."); err != nil {
			return err
		}
		f := form{}
		g := storage.StorageGroup{Type: layout.VolumeGroup, UUID: f.uuid("uuid", in.UUID)}
		refs := c.newMembers(f, &g, in)
		if slices.ContainsFunc(c.b.Groups, func(o *storage.GroupBundle) bool { return IsVG(o) && o.Name == g.Name }) {
			f.add("name", "There is a volume group with this name already.")
		}
		if err := f.err(); err != nil {
			return err
		}
		refs, err := c.offBoot(refs)
		if err != nil {
			return err
		}
		if _, err := c.newGroup(&g, 0); err != nil {
			return err
		}
		id = g.ID
		return c.enrollAll(refs, fsPV, g.ID)
	})
	return b, id, err
}

// newMembers reads the name and devices of a new group.
func (c *storageChange) newMembers(f form, g *storage.StorageGroup, in GroupInput) []deviceRef {
	if g.Name = deref(in.Name, ""); g.Name == "" {
		f.add("name", msgRequired)
	}
	f.text("name", g.Name, 255, storageName)
	pick := c.picker(f)
	refs := append(pick.disks("block_devices", in.Devices, deviceRef.free), pick.partitions("partitions", in.Partitions, deviceRef.free)...)
	if len(refs) == 0 && len(f) == 0 {
		f.add("__all__", "At least one valid block device or partition is required.")
	}
	return refs
}

// UpdateVolumeGroup changes a volume group's name, UUID and devices.
func (s *Service) UpdateVolumeGroup(ctx context.Context, systemID string, id int64, in GroupInput) (*storage.Bundle, error) {
	return s.changeStorage(ctx, systemID, permAdmin, func(c *storageChange) error {
		g, err := FindGroup(c.b, id, IsVG)
		if err != nil {
			return err
		}
		if err := c.needReady("Cannot update volume group because the machine is not Ready."); err != nil {
			return err
		}
		f := form{}
		add, gone := c.changeMembers(f, g, in)
		if err := f.err(); err != nil {
			return err
		}
		if add, err = c.offBoot(add); err != nil {
			return err
		}
		if err := c.dismiss(gone); err != nil {
			return err
		}
		if err := c.enrollAll(add, fsPV, g.ID); err != nil {
			return err
		}
		return c.saveGroup(g)
	})
}

// changeMembers reads the new name and UUID of a group and the devices to add and remove.
func (c *storageChange) changeMembers(f form, g *storage.GroupBundle, in GroupInput) (add, gone []deviceRef) {
	c.rename(f, g, in.Name, in.UUID)
	pick, member, fits := c.picker(f), memberOf(g), c.notInside(g)
	add = append(pick.disks("add_block_devices", in.Devices, fits), pick.partitions("add_partitions", in.Partitions, fits)...)
	gone = append(pick.disks("remove_block_devices", in.RemoveDevices, member), pick.partitions("remove_partitions", in.RemovePartitions, member)...)
	if len(f) == 0 && len(g.Members)+len(add)-len(gone) < 1 {
		f.add("__all__", "At least one filesystem must have been added.")
	}
	return add, gone
}

// DeleteVolumeGroup removes a volume group without logical volumes.
func (s *Service) DeleteVolumeGroup(ctx context.Context, systemID string, id int64) error {
	return s.deleteKind(ctx, systemID, id, IsVG, "Cannot delete volume group because the machine is not Ready.")
}

// CreateLogicalVolume makes a logical volume; without a size it gets all that is free.
func (s *Service) CreateLogicalVolume(ctx context.Context, systemID string, id int64, name string, uuid, size *string) (*storage.Bundle, int64, error) {
	var volume int64
	b, err := s.changeStorage(ctx, systemID, permAdmin, func(c *storageChange) error {
		g, err := FindGroup(c.b, id, IsVG)
		if err != nil {
			return err
		}
		if err := c.needReady("Cannot create logical volume because the machine is not Ready."); err != nil {
			return err
		}
		f := form{}
		if name == "" {
			f.add("name", msgRequired)
		}
		f.text("name", name, 255, storageName)
		ident := f.uuid("uuid", uuid)
		have, used := GroupSpace(g)
		free := have - used
		if free < layout.MinDevice {
			f.add("__all__", "Volume group (%s) cannot hold any more logical volumes, because it doesn't have enough free space.", g.Name)
		}
		want := free
		if v := deref(size, ""); v != "" && free >= layout.MinDevice {
			want = f.bytes("size", v, layout.MinDevice, free)
		}
		if err := f.err(); err != nil {
			return err
		}
		d := storage.BlockDevice{NodeID: c.n.ID, Name: name, Type: "virtual", UUID: &ident, GroupID: &g.ID,
			Size: want / layout.LVMExtent * layout.LVMExtent, BlockSize: layout.VirtualBlockSize(g.Type, 0)}
		err = takenDevice(c.tx.InsertBlockDevice(&d))
		volume = d.ID
		return err
	})
	return b, volume, err
}

// DeleteLogicalVolume removes a logical volume; one that is not there is none.
func (s *Service) DeleteLogicalVolume(ctx context.Context, systemID string, id, volume int64) error {
	_, err := s.changeStorage(ctx, systemID, permAdmin, func(c *storageChange) error {
		g, err := FindGroup(c.b, id, IsVG)
		if err != nil {
			return err
		}
		if err := c.needReady("Cannot delete logical volume because the machine is not Ready."); err != nil {
			return err
		}
		for _, d := range g.Devices {
			if d.ID == volume {
				return c.deleteDevice(d)
			}
		}
		return nil
	})
	return err
}
