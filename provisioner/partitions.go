package provisioner

import (
	"context"

	"github.com/ingot-metal/ingot/provisioner/layout"
	"github.com/ingot-metal/ingot/storage"
)

// CreatePartition adds a partition to a block device, and the partition table when it is the first. Without a size it gets all that is free.
func (s *Service) CreatePartition(ctx context.Context, systemID, device string, size, uuid *string, bootable bool) (*storage.Bundle, int64, error) {
	var id int64
	b, err := s.changeStorage(ctx, systemID, permAdmin, func(c *storageChange) error {
		d, err := FindDisk(c.b, device)
		if err != nil {
			return err
		}
		if err := c.needReady("Cannot create partition because the node is not Ready."); err != nil {
			return err
		}
		f := form{}
		want := int64(0)
		if v := deref(size, ""); v != "" {
			want = f.bytes("size", v, layout.MinDevice, d.Size)
		}
		ident := f.uuid("uuid", uuid)
		switch g := GroupOf(c.b, d.GroupID); {
		case g != nil && IsVG(g):
			f.add("block_device", "Cannot create a partition table on a logical volume.")
		case g != nil && IsBcache(g):
			f.add("block_device", "Cannot create a partition table on a Bcache volume.")
		case g != nil && IsVMFS(g):
			f.add("block_device", "Cannot create a partition table on a VMFS datastore.")
		case d.Filesystem != nil:
			f.add("block_device", "Cannot create a partition table on a device with a file system. Unformat it first.")
		}
		if err := f.err(); err != nil {
			return err
		}
		_, room := DiskSpace(c.b, d)
		if want, err = partitionSize(d, want, room); err != nil {
			return err
		}
		p, err := c.addPartition(d, want, ident, bootable)
		if err == nil {
			id = p.ID
		}
		return err
	})
	return b, id, err
}

// partitionSize fits a wanted size, or 0 for the rest, into what is free.
func partitionSize(d *storage.DiskBundle, want, room int64) (int64, error) {
	room = room / layout.Align * layout.Align
	if want == 0 {
		if want = room; d.PartitionTable == layout.MBR {
			want = min(want, layout.MaxMBR)
		}
	}
	if over := want - room; over > 0 && over <= d.BlockSize {
		want = room
	}
	want = want / layout.Align * layout.Align
	switch {
	case want > room || want < layout.MinDevice:
		return 0, FieldError("size", "Partition cannot be saved; not enough free space on the block device.")
	case d.PartitionTable == layout.MBR && want > layout.MaxMBR:
		return 0, FieldError("size", "Partition cannot be saved; size is larger than the MBR 2TiB maximum.")
	}
	return want, nil
}

// DeletePartition removes a partition that is part of nothing. Those after it move up; with the last one the table goes.
func (s *Service) DeletePartition(ctx context.Context, systemID, device, spec string) error {
	_, err := s.changeStorage(ctx, systemID, permAdmin, func(c *storageChange) error {
		d, p, err := FindPartition(c.b, device, spec)
		if err != nil {
			return err
		}
		if err := c.needReady("Cannot delete block device because the node is not Ready."); err != nil {
			return err
		}
		if p.Filesystem != nil {
			if text := c.partOf(p.Filesystem); text != "" {
				return Errorf(Invalid, "Cannot delete partition because its part of a %s.", text)
			}
		}
		if vmfsBase(d, p) {
			return Errorf(Invalid, "VMware ESXi partitions may not be removed. To remove select a different storage layout.")
		}
		return c.dropPartition(d, p)
	})
	return err
}

func (c *storageChange) dropPartition(d *storage.DiskBundle, p *storage.PartitionBundle) error {
	if err := c.tx.DeletePartition(p.ID); err != nil {
		return err
	}
	if len(d.Partitions) == 1 {
		d.PartitionTable, d.Partitions = "", nil
		return c.tx.UpdateBlockDevice(&d.BlockDevice)
	}
	gone := p.Number
	var rest []storage.PartitionBundle
	for _, x := range d.Partitions {
		if x.Number != gone {
			rest = append(rest, x)
		}
	}
	d.Partitions = rest
	return c.renumber(d, func(i int) int64 {
		n := rest[i].Number
		if n <= gone {
			return n
		}
		if n--; n == 4 && d.PartitionTable == layout.MBR { // that is the extended one
			n--
		}
		return n
	})
}

// vmfsBase says whether a partition is one that VMware's image brings.
func vmfsBase(d *storage.DiskBundle, p *storage.PartitionBundle) bool {
	return int(p.Number) <= layout.VMFSBase(d.PartitionTable, layoutPartitions(d))
}

// TagPartition adds a tag to a partition, or removes it, in whatever status.
func (s *Service) TagPartition(ctx context.Context, systemID, device, spec, tag string, add bool) (*storage.Bundle, int64, error) {
	var id int64
	b, err := s.changeStorage(ctx, systemID, permAdmin, func(c *storageChange) error {
		_, p, err := FindPartition(c.b, device, spec)
		if err != nil {
			return err
		}
		if err := checkTag(p.Tags, tag, add); err != nil {
			return err
		}
		id, p.Tags = p.ID, changeTags(p.Tags, tag, add)
		return c.tx.UpdatePartition(&p.Partition)
	})
	return b, id, err
}
