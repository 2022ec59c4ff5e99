package storage

const blockDeviceColumns = `id, node_id, name, type, model, serial, id_path, uuid, size, block_size, tags, firmware_version, numa_node, partition_table, created, updated`

func scanBlockDevice(s scanner) (d BlockDevice, err error) {
	err = s.Scan(&d.ID, &d.NodeID, &d.Name, &d.Type, &d.Model, &d.Serial, &d.IDPath, &d.UUID, &d.Size, &d.BlockSize, scanStrings(&d.Tags),
		&d.FirmwareVersion, &d.NUMANode, &d.PartitionTable, scanTime(&d.Created), scanTime(&d.Updated))
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
		numa_node, partition_table, created, updated) values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15) returning id`,
		d.NodeID, d.Name, d.Type, d.Model, d.Serial, d.IDPath, d.UUID, d.Size, d.BlockSize, stringsArg(d.Tags), d.FirmwareVersion, d.NUMANode,
		d.PartitionTable, d.Created, d.Updated)
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

// Filesystems returns a node's file systems.
func (tx *Tx) Filesystems(nodeID int64) ([]Filesystem, error) {
	return list(tx, func(s scanner) (f Filesystem, err error) {
		err = s.Scan(&f.ID, &f.NodeID, &f.BlockDeviceID, &f.PartitionID, &f.Fstype, &f.Label, &f.UUID, &f.MountPoint, &f.MountOptions)
		return f, err
	}, `select id, node_id, block_device_id, partition_id, fstype, label, uuid, mount_point, mount_options from filesystems where node_id = $1 order by id`, nodeID)
}

// InsertFilesystem adds a file system and sets its ID.
func (tx *Tx) InsertFilesystem(f *Filesystem) error {
	var err error
	f.ID, err = tx.insert(`insert into filesystems (node_id, block_device_id, partition_id, fstype, label, uuid, mount_point, mount_options)
		values ($1, $2, $3, $4, $5, $6, $7, $8) returning id`, f.NodeID, f.BlockDeviceID, f.PartitionID, f.Fstype, f.Label, f.UUID, f.MountPoint,
		f.MountOptions)
	return err
}

// ClearStorageLayout removes all partitions, file systems and virtual devices of a node; its physical disks stay.
func (tx *Tx) ClearStorageLayout(nodeID int64) error {
	for _, q := range []string{
		`delete from filesystems where node_id = $1`,
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
