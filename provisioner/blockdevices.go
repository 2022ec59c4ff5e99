package provisioner

import (
	"context"
	"encoding/json"
	"math"
	"slices"
	"strings"

	"github.com/ingot-metal/ingot/provisioner/layout"
	"github.com/ingot-metal/ingot/storage"
)

// BlockDeviceInput is what a request says of a block device: nil leaves a field as it is.
type BlockDeviceInput struct {
	Name           *string
	Model          *string
	Serial         *string
	IDPath         *string
	Size           *string
	BlockSize      *string
	NUMANode       *int64
	UUID           *string
	PartitionTable *string
}

const (
	textDeviceNotReady = "Cannot update block device because the machine is not Ready."
	minSector          = 512
)

// identify sets what identifies a physical disk.
func (in BlockDeviceInput) identify(f form, d *storage.BlockDevice) {
	if v := deref(in.Name, ""); v != "" {
		f.text("name", v, 255, storageName)
		d.Name = v
	}
	set := func(field string, dst **string, v *string, limit int) {
		if v != nil {
			f.text(field, *v, limit, nil)
			*dst = v
		}
	}
	set("model", &d.Model, in.Model, 255)
	set("serial", &d.Serial, in.Serial, 255)
	set("id_path", &d.IDPath, in.IDPath, maxPath)
	if v := deref(in.IDPath, ""); v != "" {
		f.path("id_path", v)
	}
	if deref(d.IDPath, "") == "" && (deref(d.Model, "") == "" || deref(d.Serial, "") == "") {
		f.add("__all__", "serial/model are required if id_path is not provided.")
	}
}

// physical sets what only an administrator knows of a physical disk.
func (in BlockDeviceInput) physical(f form, n *storage.Node, d *storage.BlockDevice) {
	if v := deref(in.Size, ""); v != "" {
		d.Size = f.bytes("size", v, layout.MinDevice, math.MaxInt64)
	}
	if v := deref(in.BlockSize, ""); v != "" {
		d.BlockSize = f.bytes("block_size", v, minSector, math.MaxInt32)
	}
	if in.NUMANode != nil {
		if !hasNUMANode(n, *in.NUMANode) {
			f.add("numa_node", "Invalid NUMA node")
		}
		d.NUMANode = in.NUMANode
	}
}

func hasNUMANode(n *storage.Node, index int64) bool {
	var nodes []struct {
		Index int64 `json:"index"`
	}
	if len(n.NUMA) > 0 {
		_ = json.Unmarshal(n.NUMA, &nodes) // the store holds what the inventory wrote
	}
	for _, x := range nodes {
		if x.Index == index {
			return true
		}
	}
	return len(nodes) == 0 && index == 0
}

// CreateBlockDevice adds a physical disk to a machine, in whatever status.
func (s *Service) CreateBlockDevice(ctx context.Context, systemID string, in BlockDeviceInput) (*storage.Bundle, int64, error) {
	var id int64
	b, err := s.changeStorage(ctx, systemID, permAdmin, func(c *storageChange) error {
		f, zero := form{}, int64(0)
		d := storage.BlockDevice{NodeID: c.n.ID, Type: "physical", BlockSize: minSector, NUMANode: &zero}
		for field, v := range map[string]*string{"name": in.Name, "size": in.Size, "block_size": in.BlockSize} {
			if deref(v, "") == "" {
				f.add(field, msgRequired)
			}
		}
		in.identify(f, &d)
		in.physical(f, c.n, &d)
		if err := f.err(); err != nil {
			return err
		}
		err := takenDevice(c.tx.InsertBlockDevice(&d))
		id = d.ID
		return err
	})
	return b, id, err
}

// UpdateBlockDevice changes a block device of a Ready machine; of a Deployed one only what identifies a physical disk.
func (s *Service) UpdateBlockDevice(ctx context.Context, systemID, spec string, in BlockDeviceInput) (*storage.Bundle, int64, error) {
	var id int64
	b, err := s.changeStorage(ctx, systemID, permAdmin, func(c *storageChange) error {
		d, err := FindDisk(c.b, spec)
		if err != nil {
			return err
		}
		if err := c.need(textDeviceNotReady, storage.StatusReady, storage.StatusDeployed); err != nil {
			return err
		}
		id = d.ID
		f := form{}
		switch {
		case d.Type != "physical" && c.n.Status == storage.StatusDeployed:
			return Errorf(Conflict, "Cannot update virtual block device because the machine is Deployed.")
		case d.Type != "physical":
			err = c.updateVirtual(f, d, in)
		default:
			in.identify(f, &d.BlockDevice)
			if c.n.Status == storage.StatusReady {
				in.physical(f, c.n, &d.BlockDevice)
			}
		}
		if err != nil {
			return err
		}
		if c.n.Status == storage.StatusReady {
			if err := c.tableType(f, d, in.PartitionTable); err != nil {
				return err
			}
		}
		if err := f.err(); err != nil {
			return err
		}
		if err := c.fits(d); err != nil {
			return err
		}
		return takenDevice(c.tx.UpdateBlockDevice(&d.BlockDevice))
	})
	return b, id, err
}

// updateVirtual changes the device that a group makes up, and the group with it.
func (c *storageChange) updateVirtual(f form, d *storage.DiskBundle, in BlockDeviceInput) error {
	g := GroupOf(c.b, d.GroupID)
	if v := deref(in.UUID, ""); v != "" {
		v = f.uuid("uuid", &v)
		d.UUID = &v
	}
	if v := deref(in.Name, ""); v != "" && v != d.Name {
		f.text("name", v, 255, storageName)
		d.Name = v
		if g != nil && !IsVG(g) {
			g.Name = v
			if err := c.tx.UpdateStorageGroup(&g.StorageGroup); err != nil {
				return err
			}
		}
	}
	v := deref(in.Size, "")
	if v == "" {
		return nil
	}
	size := f.bytes("size", v, math.MinInt64, math.MaxInt64)
	switch {
	case g == nil || !IsVG(g):
		if size != d.Size {
			delete(f, "size")
			f.add("size", "Size cannot be changed on this device.")
		}
	case size < layout.MinDevice:
		f.add("size", "Ensure this value is greater than or equal to %d.", layout.MinDevice)
	default:
		have, used := GroupSpace(g)
		size = size / layout.LVMExtent * layout.LVMExtent
		if size > have-used+d.Size {
			f.add("__all__", "There is not enough free space (%s) on volume group %s.", layout.HumanSize(size), g.Name)
		}
		d.Size = size
	}
	return nil
}

// tableType changes the type of a partition table, and with it the numbers that partitions have.
func (c *storageChange) tableType(f form, d *storage.DiskBundle, to *string) error {
	typ := deref(to, "")
	switch {
	case typ == "":
		return nil
	case typ != layout.GPT && typ != layout.MBR:
		f.add("partition_table_type", msgChoice(typ))
		return nil
	case d.PartitionTable == "":
		f.add("partition_table_type", "Block device has no partition table")
		return nil
	case typ == d.PartitionTable:
		return nil
	}
	for _, p := range d.Partitions {
		if typ == layout.MBR && p.Size > layout.MaxMBR {
			f.add("partition_table_type", "The partition %d is larger than the MBR 2TiB maximum.", p.Number)
			return nil
		}
	}
	d.PartitionTable = typ
	numbers := layout.Numbers(len(d.Partitions), typ, firmwareOf(c.n), archOf(c.n), d == bootDisk(c.b))
	return c.renumber(d, func(i int) int64 { return int64(numbers[i]) })
}

// renumber gives partitions new numbers, in two steps so that none is used twice on the way.
func (c *storageChange) renumber(d *storage.DiskBundle, number func(i int) int64) error {
	for _, shift := range []int64{1000, 0} {
		for i := range d.Partitions {
			p := d.Partitions[i].Partition
			if p.Number == number(i) && shift > 0 {
				continue
			}
			p.Number = number(i) + shift
			if err := c.tx.UpdatePartition(&p); err != nil {
				return err
			}
		}
	}
	return nil
}

// DeleteBlockDevice removes a block device that is part of nothing.
func (s *Service) DeleteBlockDevice(ctx context.Context, systemID, spec string) error {
	_, err := s.changeStorage(ctx, systemID, permAdmin, func(c *storageChange) error {
		d, err := FindDisk(c.b, spec)
		if err != nil {
			return err
		}
		if err := c.needReady("Cannot delete block device because the machine is not Ready."); err != nil {
			return err
		}
		return c.deleteDevice(d)
	})
	return err
}

func (c *storageChange) deleteDevice(d *storage.DiskBundle) error {
	if text := c.inUse(d); text != "" {
		return Errorf(Invalid, "Cannot delete block device because its part of a %s.", text)
	}
	if g := GroupOf(c.b, d.GroupID); g != nil && !IsVG(g) {
		return c.tx.DeleteStorageGroup(g.ID) // the device is the group
	}
	if c.n.BootDiskID != nil && *c.n.BootDiskID == d.ID {
		c.n.BootDiskID = nil
		if err := c.tx.UpdateNode(c.n); err != nil {
			return err
		}
	}
	return c.tx.DeleteBlockDevice(d.ID)
}

// changeTags adds or removes one tag.
func changeTags(tags []string, tag string, add bool) []string {
	out := slices.DeleteFunc(slices.Clone(tags), func(t string) bool { return t == tag })
	if !add {
		return out
	}
	if slices.Contains(tags, tag) {
		return tags
	}
	return append(out, tag)
}

const maxDeviceTags = 256

func checkTag(tags []string, tag string, add bool) error {
	switch {
	case strings.TrimSpace(tag) == "":
		return Errorf(Invalid, "No provided tag!")
	case len(tag) > 255 || add && len(tags) >= maxDeviceTags:
		return FieldError("tag", "Ensure this value has at most %d characters, and that there are at most %d tags.", 255, maxDeviceTags)
	}
	return nil
}

// TagBlockDevice adds a tag to a block device, or removes it.
func (s *Service) TagBlockDevice(ctx context.Context, systemID, spec, tag string, add bool) (*storage.Bundle, int64, error) {
	var id int64
	b, err := s.changeStorage(ctx, systemID, permAdmin, func(c *storageChange) error {
		d, err := FindDisk(c.b, spec)
		if err != nil {
			return err
		}
		if err := c.needReady(textDeviceNotReady); err != nil {
			return err
		}
		if err := checkTag(d.Tags, tag, add); err != nil {
			return err
		}
		id, d.Tags = d.ID, changeTags(d.Tags, tag, add)
		return c.tx.UpdateBlockDevice(&d.BlockDevice)
	})
	return b, id, err
}

// SetBootDisk chooses the disk that a machine boots from.
func (s *Service) SetBootDisk(ctx context.Context, systemID, spec string) error {
	_, err := s.changeStorage(ctx, systemID, permAdmin, func(c *storageChange) error {
		d, err := FindDisk(c.b, spec)
		if err != nil {
			return err
		}
		if err := c.needReady("Cannot set as boot disk because the machine is not Ready."); err != nil {
			return err
		}
		if d.Type != "physical" {
			return Errorf(Invalid, "Cannot set a %s block device as the boot disk.", d.Type)
		}
		if f := d.Filesystem; f != nil {
			if g := GroupOf(c.b, f.GroupID); g != nil {
				return FieldError("boot_disk", "Cannot be set as the boot disk; already in-use in %s '%s'.", niceName(g), g.Name)
			}
			if f.CacheSetID != nil {
				set, err := FindCacheSet(c.b, *f.CacheSetID)
				if err != nil {
					return err
				}
				return FieldError("boot_disk", "Cannot be set as the boot disk; already in-use in cache set '%s'.", CacheSetName(set))
			}
			// A boot loader needs a partition table: the file system over all of the disk goes.
			if err := c.tx.DeleteFilesystem(f.ID); err != nil {
				return err
			}
		}
		c.n.BootDiskID = &d.ID
		return c.tx.UpdateNode(c.n)
	})
	return err
}
