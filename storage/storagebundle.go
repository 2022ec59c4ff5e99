package storage

import (
	"database/sql"
	"slices"
)

// DiskBundle is a block device with its partitions and file system.
type DiskBundle struct {
	BlockDevice
	Filesystem *Filesystem // the one that counts in the node's status
	Partitions []PartitionBundle
}

// PartitionBundle is a partition with its file system.
type PartitionBundle struct {
	Partition
	Filesystem *Filesystem
}

// Member is a device or partition that belongs to a group or holds a cache. One of Disk and Partition is set; with a partition, Disk is the
// device that it lies on.
type Member struct {
	Filesystem *Filesystem
	Disk       *DiskBundle
	Partition  *PartitionBundle
}

// Size is that of the device or partition.
func (m Member) Size() int64 {
	if m.Partition != nil {
		return m.Partition.Size
	}
	return m.Disk.Size
}

// GroupBundle is a volume group, RAID, bcache or VMFS datastore with what it is made of and what it makes up.
type GroupBundle struct {
	StorageGroup
	Members []Member      // the oldest first
	Devices []*DiskBundle // the logical volumes, or the one device
}

// CacheSetBundle is a cache set with its device.
type CacheSetBundle struct {
	CacheSet
	Index  int // its place among the node's: the name is cache and this
	Member *Member
}

// AllocatedStorage says whether in a status the file systems of whoever has the node count, and not those of the administrator.
func AllocatedStorage(s NodeStatus) bool { return s == StatusDeployed || s >= StatusDeploying }

// memberTypes are the file system types that nobody formats or mounts: they say what a device is a member of.
var memberTypes = []string{"lvm-pv", "raid", "raid-spare", "bcache-cache", "bcache-backing", "vmfs6"}

// Mountable says whether a file system is one that can be formatted and mounted; the others are memberships.
func (f *Filesystem) Mountable() bool { return !slices.Contains(memberTypes, f.Fstype) }

// counts says whether a file system is the one that counts in a status.
func (f *Filesystem) counts(s NodeStatus) bool {
	return f.GroupID != nil || f.CacheSetID != nil || f.Acquired == AllocatedStorage(s)
}

// storageQueries fill the storage of the machines that a condition selects, in a constant number of statements.
func (tx *Tx) storageQueries(w *where, byID map[int64]*Bundle) (queries []query) {
	of := func(q, tail string, scan func(r *sql.Rows) error) {
		queries = append(queries, query{q + w.sql() + tail, w.args, scan})
	}
	disks := map[int64]*DiskBundle{}
	caches, groups := map[int64]*CacheSetBundle{}, map[int64]*GroupBundle{}
	of(`select c.id, c.node_id from nodes n join cache_sets c on c.node_id = n.id`, ` order by c.id`, func(r *sql.Rows) error {
		c := new(CacheSetBundle)
		err := r.Scan(&c.ID, &c.NodeID)
		if b := byID[c.NodeID]; b != nil {
			c.Index = len(b.CacheSets)
			b.CacheSets = append(b.CacheSets, c)
		}
		caches[c.ID] = c
		return err
	})
	of(`select g.id, g.node_id, g.type, g.name, g.uuid, g.cache_mode, g.cache_set_id from nodes n join storage_groups g on g.node_id = n.id`,
		` order by g.id`, func(r *sql.Rows) error {
			g := new(GroupBundle)
			err := r.Scan(&g.ID, &g.NodeID, &g.Type, &g.Name, &g.UUID, &g.CacheMode, &g.CacheSetID)
			if b := byID[g.NodeID]; b != nil {
				b.Groups = append(b.Groups, g)
			}
			groups[g.ID] = g
			return err
		})
	of(`select d.id, d.node_id, d.name, d.type, d.model, d.serial, d.id_path, d.uuid, d.size, d.block_size, d.tags, d.firmware_version,
		d.numa_node, d.partition_table, d.group_id from nodes n join block_devices d on d.node_id = n.id`, ` order by d.id`, func(r *sql.Rows) error {
		d := new(DiskBundle)
		var tags string
		err := r.Scan(&d.ID, &d.NodeID, &d.Name, &d.Type, &d.Model, &d.Serial, &d.IDPath, &d.UUID, &d.Size, &d.BlockSize, &tags, &d.FirmwareVersion,
			&d.NUMANode, &d.PartitionTable, &d.GroupID)
		if err != nil {
			return err
		}
		if d.Tags, err = stringList(tags); err != nil {
			return err
		}
		disks[d.ID] = d
		if b := byID[d.NodeID]; b != nil {
			b.Disks = append(b.Disks, d)
		}
		if d.GroupID != nil && groups[*d.GroupID] != nil {
			g := groups[*d.GroupID]
			g.Devices = append(g.Devices, d)
		}
		return nil
	})
	type place struct {
		disk *DiskBundle
		at   int
	}
	places := map[int64]place{}
	of(`select p.id, p.block_device_id, p.number, p.uuid, p.size, p.bootable, p.flag, p.tags
		from nodes n join block_devices d on d.node_id = n.id join partitions p on p.block_device_id = d.id`, ` order by p.block_device_id, p.number`,
		func(r *sql.Rows) error {
			var (
				p    PartitionBundle
				tags string
			)
			err := r.Scan(&p.ID, &p.BlockDeviceID, &p.Number, &p.UUID, &p.Size, scanBool(&p.Bootable), &p.Flag, &tags)
			if err != nil {
				return err
			}
			if p.Tags, err = stringList(tags); err != nil {
				return err
			}
			if d := disks[p.BlockDeviceID]; d != nil {
				places[p.ID] = place{d, len(d.Partitions)}
				d.Partitions = append(d.Partitions, p)
			}
			return nil
		})
	of(`select `+filesystemColumns+` from nodes n join filesystems f on f.node_id = n.id`, ` order by f.id`, func(r *sql.Rows) error {
		scanned, err := scanFilesystem(r)
		f := &scanned
		b := byID[f.NodeID]
		if err != nil || b == nil || !f.counts(b.Node.Status) {
			return err
		}
		m := Member{Filesystem: f}
		switch {
		case f.PartitionID != nil:
			at, ok := places[*f.PartitionID]
			if !ok {
				return nil
			}
			m.Partition, m.Disk = &at.disk.Partitions[at.at], at.disk // all partitions are there by now
			m.Partition.Filesystem = f
		case f.BlockDeviceID != nil:
			if m.Disk = disks[*f.BlockDeviceID]; m.Disk == nil {
				return nil
			}
			m.Disk.Filesystem = f
		default:
			b.Special = append(b.Special, *f)
			return nil
		}
		if f.GroupID != nil && groups[*f.GroupID] != nil {
			g := groups[*f.GroupID]
			g.Members = append(g.Members, m)
		}
		if f.CacheSetID != nil && caches[*f.CacheSetID] != nil {
			caches[*f.CacheSetID].Member = &m
		}
		return nil
	})
	return queries
}

// LoadStorage returns a node with its storage and nothing else of the bundle.
func (tx *Tx) LoadStorage(n Node) (*Bundle, error) {
	b := &Bundle{Node: n}
	return b, tx.all(tx.storageQueries(tx.where().and("n.id = ?", n.ID), map[int64]*Bundle{n.ID: b})...)
}
