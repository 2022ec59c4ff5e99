package storage

const blockDeviceColumns = `id, node_id, name, type, model, serial, id_path, uuid, size, block_size, tags, firmware_version, numa_node, partition_table,
	created, updated, group_id`

func scanBlockDevice(s scanner) (d BlockDevice, err error) {
	err = s.Scan(&d.ID, &d.NodeID, &d.Name, &d.Type, &d.Model, &d.Serial, &d.IDPath, &d.UUID, &d.Size, &d.BlockSize, scanStrings(&d.Tags),
		&d.FirmwareVersion, &d.NUMANode, &d.PartitionTable, scanTime(&d.Created), scanTime(&d.Updated), &d.GroupID)
	return d, err
}

// BlockDevices returns a node's block devices, the oldest first.
func (tx *Tx) BlockDevices(nodeID int64) ([]BlockDevice, error) {
	return list(tx, scanBlockDevice, `select `+blockDeviceColumns+` from block_devices where node_id = $1 order by id`, nodeID)
}

// InsertBlockDevice adds a block device and sets its ID.
func (tx *Tx) InsertBlockDevice(d *BlockDevice) error {
	d.Created, d.Updated = tx.Now(), tx.Now()
	var err error
	d.ID, err = tx.insert(`insert into block_devices (node_id, name, type, model, serial, id_path, uuid, size, block_size, tags, firmware_version,
		numa_node, partition_table, created, updated, group_id) values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)
		returning id`,
		d.NodeID, d.Name, d.Type, d.Model, d.Serial, d.IDPath, d.UUID, d.Size, d.BlockSize, stringsArg(d.Tags), d.FirmwareVersion, d.NUMANode,
		d.PartitionTable, d.Created, d.Updated, d.GroupID)
	return err
}

// UpdateBlockDevice writes every column of a block device.
func (tx *Tx) UpdateBlockDevice(d *BlockDevice) error {
	d.Updated = tx.Now()
	return tx.one(`update block_devices set name = $1, type = $2, model = $3, serial = $4, id_path = $5, uuid = $6, size = $7, block_size = $8,
		tags = $9, firmware_version = $10, numa_node = $11, partition_table = $12, updated = $13 where id = $14`,
		d.Name, d.Type, d.Model, d.Serial, d.IDPath, d.UUID, d.Size, d.BlockSize, stringsArg(d.Tags), d.FirmwareVersion, d.NUMANode,
		d.PartitionTable, d.Updated, d.ID)
}

// DeleteBlockDevice removes a block device with its partitions and file systems.
func (tx *Tx) DeleteBlockDevice(id int64) error {
	return tx.one(`delete from block_devices where id = $1`, id)
}

// Partitions returns the partitions of a node's block devices, by device and number.
func (tx *Tx) Partitions(nodeID int64) ([]Partition, error) {
	return list(tx, func(s scanner) (p Partition, err error) {
		err = s.Scan(&p.ID, &p.BlockDeviceID, &p.Number, &p.UUID, &p.Size, scanBool(&p.Bootable), &p.Flag, scanStrings(&p.Tags),
			scanTime(&p.Created), scanTime(&p.Updated))
		return p, err
	}, `select p.id, p.block_device_id, p.number, p.uuid, p.size, p.bootable, p.flag, p.tags, p.created, p.updated
		from partitions p join block_devices d on d.id = p.block_device_id where d.node_id = $1 order by d.id, p.number`, nodeID)
}

// InsertPartition adds a partition and sets its ID.
func (tx *Tx) InsertPartition(p *Partition) error {
	p.Created, p.Updated = tx.Now(), tx.Now()
	var err error
	p.ID, err = tx.insert(`insert into partitions (block_device_id, number, uuid, size, bootable, flag, tags, created, updated)
		values ($1, $2, $3, $4, $5, $6, $7, $8, $9) returning id`, p.BlockDeviceID, p.Number, p.UUID, p.Size, p.Bootable, p.Flag,
		stringsArg(p.Tags), p.Created, p.Updated)
	return err
}

// UpdatePartition writes what can change of a partition: its number, size, flags and tags.
func (tx *Tx) UpdatePartition(p *Partition) error {
	p.Updated = tx.Now()
	return tx.one(`update partitions set number = $1, size = $2, bootable = $3, flag = $4, tags = $5, updated = $6 where id = $7`,
		p.Number, p.Size, p.Bootable, p.Flag, stringsArg(p.Tags), p.Updated, p.ID)
}

// DeletePartition removes a partition with its file systems.
func (tx *Tx) DeletePartition(id int64) error {
	return tx.one(`delete from partitions where id = $1`, id)
}

const filesystemColumns = `f.id, f.node_id, f.block_device_id, f.partition_id, f.fstype, f.label, f.uuid, f.mount_point, f.mount_options, f.group_id,
	f.cache_set_id, f.acquired`

func scanFilesystem(s scanner) (f Filesystem, err error) {
	err = s.Scan(&f.ID, &f.NodeID, &f.BlockDeviceID, &f.PartitionID, &f.Fstype, &f.Label, &f.UUID, &f.MountPoint, &f.MountOptions, &f.GroupID,
		&f.CacheSetID, scanBool(&f.Acquired))
	return f, err
}

// Filesystems returns a node's file systems, those that count while it is allocated with the others.
func (tx *Tx) Filesystems(nodeID int64) ([]Filesystem, error) {
	return list(tx, scanFilesystem, `select `+filesystemColumns+` from filesystems f where f.node_id = $1 order by f.id`, nodeID)
}

// InsertFilesystem adds a file system and sets its ID.
func (tx *Tx) InsertFilesystem(f *Filesystem) error {
	var err error
	f.ID, err = tx.insert(`insert into filesystems (node_id, block_device_id, partition_id, fstype, label, uuid, mount_point, mount_options, group_id,
		cache_set_id, acquired) values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) returning id`, f.NodeID, f.BlockDeviceID, f.PartitionID,
		f.Fstype, f.Label, f.UUID, f.MountPoint, f.MountOptions, f.GroupID, f.CacheSetID, f.Acquired)
	return err
}

// UpdateFilesystem writes what can change of a file system: where it is mounted, and of what it is a member.
func (tx *Tx) UpdateFilesystem(f *Filesystem) error {
	return tx.one(`update filesystems set fstype = $1, label = $2, uuid = $3, mount_point = $4, mount_options = $5, group_id = $6, cache_set_id = $7
		where id = $8`, f.Fstype, f.Label, f.UUID, f.MountPoint, f.MountOptions, f.GroupID, f.CacheSetID, f.ID)
}

// DeleteFilesystem removes a file system.
func (tx *Tx) DeleteFilesystem(id int64) error {
	return tx.one(`delete from filesystems where id = $1`, id)
}

// AcquireFilesystems makes the copies that count while a node is allocated: whoever has the node may change those as they like.
// Members of groups and caches have no copy. Copies that are there already stay as they are.
func (tx *Tx) AcquireFilesystems(nodeID int64) error {
	return tx.later(`insert into filesystems (node_id, block_device_id, partition_id, fstype, label, uuid, mount_point, mount_options, acquired)
		select node_id, block_device_id, partition_id, fstype, label, uuid, mount_point, mount_options, 1 from filesystems
		where node_id = $1 and group_id is null and cache_set_id is null
		and not exists (select 1 from filesystems a where a.node_id = $1 and a.acquired = 1) order by id`, nodeID)
}

// ReleaseFilesystems ends those copies.
func (tx *Tx) ReleaseFilesystems(nodeID int64) error {
	return tx.later(`delete from filesystems where node_id = $1 and acquired = 1`, nodeID)
}

// InsertStorageGroup adds a group and sets its ID. A UUID that is in use is ErrConflict.
func (tx *Tx) InsertStorageGroup(g *StorageGroup) error {
	g.Created, g.Updated = tx.Now(), tx.Now()
	var err error
	g.ID, err = tx.insert(`insert into storage_groups (node_id, type, name, uuid, cache_mode, cache_set_id, created, updated)
		values ($1, $2, $3, $4, $5, $6, $7, $8) returning id`, g.NodeID, g.Type, g.Name, g.UUID, g.CacheMode, g.CacheSetID, g.Created, g.Updated)
	return err
}

// UpdateStorageGroup writes what can change of a group.
func (tx *Tx) UpdateStorageGroup(g *StorageGroup) error {
	g.Updated = tx.Now()
	return tx.one(`update storage_groups set name = $1, uuid = $2, cache_mode = $3, cache_set_id = $4, updated = $5 where id = $6`,
		g.Name, g.UUID, g.CacheMode, g.CacheSetID, g.Updated, g.ID)
}

// DeleteStorageGroup removes a group with the devices that it makes up. Its members are free then.
func (tx *Tx) DeleteStorageGroup(id int64) error {
	return tx.one(`delete from storage_groups where id = $1`, id)
}

// InsertCacheSet adds a cache set and sets its ID.
func (tx *Tx) InsertCacheSet(c *CacheSet) error {
	c.Created, c.Updated = tx.Now(), tx.Now()
	var err error
	c.ID, err = tx.insert(`insert into cache_sets (node_id, created, updated) values ($1, $2, $3) returning id`, c.NodeID, c.Created, c.Updated)
	return err
}

// DeleteCacheSet removes a cache set; its device is free then.
func (tx *Tx) DeleteCacheSet(id int64) error {
	return tx.one(`delete from cache_sets where id = $1`, id)
}

// PruneStorage removes the groups and cache sets of a node that lost their last device, as when a disk is gone; and what was made of them.
func (tx *Tx) PruneStorage(nodeID int64) error {
	for {
		sets, err := tx.Exec(`delete from cache_sets where node_id = $1 and not exists (select 1 from filesystems f where f.cache_set_id = cache_sets.id)`, nodeID)
		if err != nil {
			return err
		}
		groups, err := tx.Exec(`delete from storage_groups where node_id = $1 and not exists (select 1 from filesystems f where f.group_id = storage_groups.id)`, nodeID)
		if err != nil || sets+groups == 0 {
			return err
		}
	}
}

// ClearStorageLayout removes all partitions, file systems, groups and virtual devices of a node; its physical disks stay.
func (tx *Tx) ClearStorageLayout(nodeID int64) error {
	for _, q := range []string{
		`delete from filesystems where node_id = $1`,
		`delete from storage_groups where node_id = $1`,
		`delete from cache_sets where node_id = $1`,
		`delete from partitions where block_device_id in (select id from block_devices where node_id = $1)`,
		`delete from block_devices where node_id = $1 and type <> 'physical'`,
		`update block_devices set partition_table = '' where node_id = $1`,
	} {
		if _, err := tx.Exec(q, nodeID); err != nil {
			return err
		}
	}
	return nil
}

// RemoveLinks deletes links of a node's interfaces: those of one kind (alloc_type), or all for -1.
func (tx *Tx) RemoveLinks(nodeID, allocType int64) error {
	_, err := tx.Exec(`delete from ip_addresses where interface_id in (select id from interfaces where node_id = $1) and (alloc_type = $2 or $2 = -1)`,
		nodeID, allocType)
	return err
}
