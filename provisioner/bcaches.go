package provisioner

import (
	"context"
	"slices"
	"strconv"

	"github.com/ingot-metal/ingot/provisioner/layout"
	"github.com/ingot-metal/ingot/storage"
)

// pickOne reads a device or a partition, of which a form may name only one; both answers whether it named two.
func (c *storageChange) pickOne(f form, deviceField, partitionField string, device, partition *string, fits func(deviceRef) bool) (ref deviceRef, ok, both bool) {
	if deref(device, "") != "" && deref(partition, "") != "" {
		return ref, false, true
	}
	pick := c.picker(f)
	refs := append(pick.disks(deviceField, one(device), fits), pick.partitions(partitionField, one(partition), fits)...)
	if len(refs) == 0 {
		return ref, false, false
	}
	return refs[0], true, false
}

// CreateCacheSet makes a cache of a free device.
func (s *Service) CreateCacheSet(ctx context.Context, systemID string, device, partition *string) (*storage.Bundle, int64, error) {
	var id int64
	b, err := s.changeStorage(ctx, systemID, permAdmin, func(c *storageChange) error {
		if err := c.needReady("Cannot create cache set because the node is not Ready."); err != nil {
			return err
		}
		f := form{}
		ref, ok, both := c.pickOne(f, "cache_device", "cache_partition", device, partition, deviceRef.free)
		switch {
		case both:
			f.add("__all__", "Cannot set both cache_device and cache_partition.")
		case !ok:
			f.add("__all__", "Either cache_device or cache_partition must be specified.")
		}
		if err := f.err(); err != nil {
			return err
		}
		refs, err := c.offBoot([]deviceRef{ref})
		if err != nil {
			return err
		}
		set := storage.CacheSet{NodeID: c.n.ID}
		if err := c.tx.InsertCacheSet(&set); err != nil {
			return err
		}
		id = set.ID
		return c.enroll(refs[0], fsCache, nil, &set.ID)
	})
	return b, id, err
}

// UpdateCacheSet moves a cache to another device.
func (s *Service) UpdateCacheSet(ctx context.Context, systemID string, id int64, device, partition *string) (*storage.Bundle, error) {
	return s.changeStorage(ctx, systemID, permAdmin, func(c *storageChange) error {
		set, err := FindCacheSet(c.b, id)
		if err != nil {
			return err
		}
		if err := c.needReady("Cannot update cache set because the machine is not Ready."); err != nil {
			return err
		}
		f := form{}
		current := func(r deviceRef) bool {
			fs := r.filesystem()
			return fs != nil && fs.CacheSetID != nil && *fs.CacheSetID == id
		}
		ref, ok, both := c.pickOne(f, "cache_device", "cache_partition", device, partition, func(r deviceRef) bool {
			return current(r) || r.free() && !c.rests(r, set)
		})
		if both {
			f.add("cache_device", "Cannot set both cache_device and cache_partition.")
			f.add("cache_partition", "Cannot set both cache_device and cache_partition.")
		}
		if err := f.err(); err != nil || !ok || current(ref) {
			return err
		}
		refs, err := c.offBoot([]deviceRef{ref})
		if err != nil {
			return err
		}
		if set.Member != nil {
			if err := c.tx.DeleteFilesystem(set.Member.Filesystem.ID); err != nil {
				return err
			}
		}
		return c.enroll(refs[0], fsCache, nil, &set.ID)
	})
}

// rests says whether a device is made, through however many groups, of something that a cache set serves.
func (c *storageChange) rests(r deviceRef, set *storage.CacheSetBundle) bool {
	for _, g := range c.b.Groups {
		if g.CacheSetID != nil && *g.CacheSetID == set.ID && !c.notInside(g)(deviceRef{disk: &storage.DiskBundle{BlockDevice: r.disk.BlockDevice}, part: r.part}) {
			return true
		}
	}
	return false
}

// DeleteCacheSet removes a cache that no bcache uses.
func (s *Service) DeleteCacheSet(ctx context.Context, systemID string, id int64) error {
	_, err := s.changeStorage(ctx, systemID, permAdmin, func(c *storageChange) error {
		if _, err := FindCacheSet(c.b, id); err != nil {
			return err
		}
		if err := c.needReady("Cannot delete cache set because the machine is not Ready."); err != nil {
			return err
		}
		if slices.ContainsFunc(c.b.Groups, func(g *storage.GroupBundle) bool { return g.CacheSetID != nil && *g.CacheSetID == id }) {
			return Errorf(Invalid, "Cannot delete cache set; it's currently in use.")
		}
		return c.tx.DeleteCacheSet(id)
	})
	return err
}

// BcacheInput is what a request says of a bcache.
type BcacheInput struct {
	Name, UUID       *string
	CacheSet         *string // id or name
	BackingDevice    *string
	BackingPartition *string
	CacheMode        *string
}

// cacheSet reads a cache set by id or name.
func (c *storageChange) cacheSet(f form, spec string) *storage.CacheSetBundle {
	for _, set := range c.b.CacheSets {
		if spec == strconv.FormatInt(set.ID, 10) || spec == CacheSetName(set) {
			return set
		}
	}
	f.add("cache_set", msgChoice(spec))
	return nil
}

// onVolume says whether a device is a logical volume, or lies on one.
func (c *storageChange) onVolume(r deviceRef) bool {
	g := GroupOf(c.b, r.disk.GroupID)
	return g != nil && IsVG(g)
}

// CreateBcache puts a cache in front of a free device.
func (s *Service) CreateBcache(ctx context.Context, systemID string, in BcacheInput) (*storage.Bundle, int64, error) {
	var id int64
	b, err := s.changeStorage(ctx, systemID, permAdmin, func(c *storageChange) error {
		if err := c.needReady("Cannot create Bcache because the machine is not Ready."); err != nil {
			return err
		}
		f := form{}
		g := storage.StorageGroup{Type: layout.Bcache, Name: deref(in.Name, ""), UUID: f.uuid("uuid", in.UUID), CacheMode: deref(in.CacheMode, "")}
		f.text("name", g.Name, 255, storageName)
		if g.CacheMode == "" {
			f.add("cache_mode", msgRequired)
		} else if !slices.Contains(layout.CacheModes, g.CacheMode) {
			f.add("cache_mode", msgChoice(g.CacheMode))
		}
		var set *storage.CacheSetBundle
		if v := deref(in.CacheSet, ""); v != "" {
			set = c.cacheSet(f, v)
		}
		ref, ok, both := c.pickOne(f, "backing_device", "backing_partition", in.BackingDevice, in.BackingPartition, deviceRef.free)
		switch {
		case set == nil:
			f.add("__all__", "Bcache requires a cache_set.")
		case both:
			f.add("__all__", "A Bcache can have either a backing device or partition.")
		case !ok:
			f.add("__all__", "Either backing_device or backing_partition must be specified.")
		case c.onVolume(ref):
			f.add("__all__", "Bcache cannot use a logical volume as a backing device.")
		}
		if err := f.err(); err != nil {
			return err
		}
		refs, err := c.offBoot([]deviceRef{ref})
		if err != nil {
			return err
		}
		if g.Name == "" {
			g.Name = c.freeName("bcache")
		}
		g.CacheSetID = &set.ID
		if _, err := c.newGroup(&g, ref.disk.BlockSize); err != nil {
			return err
		}
		id = g.ID
		return c.enroll(refs[0], fsBacking, &g.ID, nil)
	})
	return b, id, err
}

// UpdateBcache changes a bcache.
func (s *Service) UpdateBcache(ctx context.Context, systemID string, id int64, in BcacheInput) (*storage.Bundle, error) {
	return s.changeStorage(ctx, systemID, permAdmin, func(c *storageChange) error {
		g, err := FindGroup(c.b, id, IsBcache)
		if err != nil {
			return err
		}
		if err := c.needReady("Cannot update Bcache because the machine is not Ready."); err != nil {
			return err
		}
		f := form{}
		c.rename(f, g, in.Name, in.UUID)
		if v := deref(in.CacheMode, ""); v != "" {
			if g.CacheMode = v; !slices.Contains(layout.CacheModes, v) {
				f.add("cache_mode", msgChoice(v))
			}
		}
		fits, member := c.notInside(g), memberOf(g)
		if v := deref(in.CacheSet, ""); v != "" {
			if set := c.cacheSet(f, v); set != nil {
				if m := set.Member; m != nil && m.Disk.GroupID != nil && !fits(deviceRef{disk: &storage.DiskBundle{BlockDevice: storage.BlockDevice{GroupID: m.Disk.GroupID}}}) {
					f.add("cache_set", msgChoice(v)) // it lies on the bcache itself
				}
				g.CacheSetID = &set.ID
			}
		}
		ref, ok, both := c.pickOne(f, "backing_device", "backing_partition", in.BackingDevice, in.BackingPartition, func(r deviceRef) bool {
			return member(r) || fits(r)
		})
		switch {
		case both:
			f.add("__all__", "A Bcache can have either a backing device or partition.")
		case ok && c.onVolume(ref):
			f.add("__all__", "Bcache cannot use a logical volume as a backing device.")
		}
		if err := f.err(); err != nil {
			return err
		}
		if ok && !member(ref) {
			refs, err := c.offBoot([]deviceRef{ref})
			if err != nil {
				return err
			}
			for _, m := range g.Members {
				if err := c.tx.DeleteFilesystem(m.Filesystem.ID); err != nil {
					return err
				}
			}
			if err := c.enroll(refs[0], fsBacking, &g.ID, nil); err != nil {
				return err
			}
		}
		return c.saveGroup(g)
	})
}

// DeleteBcache removes a bcache; its devices are free then, its cache stays.
func (s *Service) DeleteBcache(ctx context.Context, systemID string, id int64) error {
	return s.deleteKind(ctx, systemID, id, IsBcache, "Cannot delete Bcache because the machine is not Ready.")
}

// vmfsMount is where VMware mounts a datastore.
func vmfsMount(name string) string { return "/vmfs/volumes/" + name }

// onPartitions makes partitions of whole disks: VMware takes no others.
func (c *storageChange) onPartitions(refs []deviceRef) error {
	for i, r := range refs {
		if r.part != nil {
			continue
		}
		part, err := c.wholePartition(r.disk)
		if err != nil {
			return err
		}
		refs[i] = part
	}
	return nil
}

// CreateVMFS makes a VMFS datastore, on a machine that has a VMware layout.
func (s *Service) CreateVMFS(ctx context.Context, systemID string, in GroupInput) (*storage.Bundle, int64, error) {
	var id int64
	b, err := s.changeStorage(ctx, systemID, permAdmin, func(c *storageChange) error {
		if err := c.needReady("Cannot create VMFS group because the machine is not Ready."); err != nil {
			return err
		}
		f := form{}
		g := storage.StorageGroup{Type: layout.VMFS, UUID: f.uuid("uuid", in.UUID)}
		refs := c.newMembers(f, &g, in)
		if !slices.ContainsFunc(c.b.Disks, func(d *storage.DiskBundle) bool { return layout.VMFSBase(d.PartitionTable, layoutPartitions(d)) > 0 }) {
			f.add("VMFS", "VMFS Datastores may only be created after the VMFS6 or VMFS7 storage layout has been applied.")
		}
		if err := f.err(); err != nil {
			return err
		}
		if err := c.onPartitions(refs); err != nil {
			return err
		}
		d, err := c.newGroup(&g, 0)
		if err != nil {
			return err
		}
		id = g.ID
		at, uuid := vmfsMount(g.Name), newUUID()
		if err := c.tx.InsertFilesystem(&storage.Filesystem{NodeID: c.n.ID, BlockDeviceID: &d.ID, Fstype: fsVMFS, UUID: &uuid, MountPoint: &at}); err != nil {
			return err
		}
		return c.enrollAll(refs, fsVMFS, g.ID)
	})
	return b, id, err
}

// UpdateVMFS changes a VMFS datastore's name, UUID and devices.
func (s *Service) UpdateVMFS(ctx context.Context, systemID string, id int64, in GroupInput) (*storage.Bundle, error) {
	return s.changeStorage(ctx, systemID, permAdmin, func(c *storageChange) error {
		g, err := FindGroup(c.b, id, IsVMFS)
		if err != nil {
			return err
		}
		if err := c.needReady("Cannot update the VMFS datastore because the machine is not Ready."); err != nil {
			return err
		}
		f := form{}
		add, gone := c.changeMembers(f, g, in)
		if err := f.err(); err != nil {
			return err
		}
		if err := c.onPartitions(add); err != nil {
			return err
		}
		if err := c.dismiss(gone); err != nil {
			return err
		}
		if err := c.enrollAll(add, fsVMFS, g.ID); err != nil {
			return err
		}
		for _, d := range g.Devices {
			if fs := d.Filesystem; fs != nil {
				at := vmfsMount(g.Name)
				fs.MountPoint = &at
				if err := c.tx.UpdateFilesystem(fs); err != nil {
					return err
				}
			}
		}
		return c.saveGroup(g)
	})
}

// DeleteVMFS removes a VMFS datastore.
func (s *Service) DeleteVMFS(ctx context.Context, systemID string, id int64) error {
	return s.deleteKind(ctx, systemID, id, IsVMFS, "Cannot delete VMFS datastore because the machine is not Ready.")
}
