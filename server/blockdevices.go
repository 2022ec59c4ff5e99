package server

import (
	"context"
	"net/http"

	"github.com/ingot-metal/ingot/api"
	"github.com/ingot-metal/ingot/provisioner"
	"github.com/ingot-metal/ingot/provisioner/layout"
	"github.com/ingot-metal/ingot/server/oapi"
	"github.com/ingot-metal/ingot/storage"
)

// oneDevice answers the block device with an id.
func oneDevice(b *storage.Bundle, id int64, err error) (oapi.Response, error) {
	if err != nil {
		return oapi.Response{}, err
	}
	d, err := provisioner.FindDisk(b, itoa(id))
	if err != nil {
		return oapi.Response{}, err
	}
	return oapi.JSON(http.StatusOK, renderBlockDevice(b, d))
}

// onePartition answers the partition with an id.
func onePartition(b *storage.Bundle, id int64, err error) (oapi.Response, error) {
	if err != nil {
		return oapi.Response{}, err
	}
	for _, d := range b.Disks {
		for i := range d.Partitions {
			if p := &d.Partitions[i]; p.ID == id {
				return oapi.JSON(http.StatusOK, renderPartition(b, d, p))
			}
		}
	}
	return oapi.Response{}, storage.ErrNotFound
}

func gone(err error) (oapi.Response, error) {
	if err != nil {
		return oapi.Response{}, err
	}
	return oapi.NoContent()
}

// BlockDevicesList answers the block devices of a node.
func (s *Server) BlockDevicesList(ctx context.Context, p api.BlockDevicesListParams) (oapi.Response, error) {
	b, err := s.P.Storage(ctx, p.SystemID)
	if err != nil {
		return oapi.Response{}, err
	}
	return oapi.JSON(http.StatusOK, each(b.Disks, func(d *storage.DiskBundle) api.BlockDevice { return renderBlockDevice(b, d) }))
}

// BlockDevicesCreate adds a physical disk.
func (s *Server) BlockDevicesCreate(ctx context.Context, p api.BlockDevicesCreateParams) (oapi.Response, error) {
	return oneDevice(s.P.CreateBlockDevice(ctx, p.SystemID, provisioner.BlockDeviceInput{Name: &p.Name, Model: p.Model, Serial: p.Serial, IDPath: p.IDPath,
		Size: &p.Size, BlockSize: &p.BlockSize, NUMANode: p.NUMANode}))
}

// BlockDeviceRead answers a block device.
func (s *Server) BlockDeviceRead(ctx context.Context, p api.BlockDeviceReadParams) (oapi.Response, error) {
	b, err := s.P.Storage(ctx, p.SystemID)
	if err != nil {
		return oapi.Response{}, err
	}
	d, err := provisioner.FindDisk(b, p.ID)
	if err != nil {
		return oapi.Response{}, err
	}
	return oapi.JSON(http.StatusOK, renderBlockDevice(b, d))
}

// BlockDeviceUpdate changes a block device.
func (s *Server) BlockDeviceUpdate(ctx context.Context, p api.BlockDeviceUpdateParams) (oapi.Response, error) {
	return oneDevice(s.P.UpdateBlockDevice(ctx, p.SystemID, p.ID, provisioner.BlockDeviceInput{Name: p.Name, Model: p.Model, Serial: p.Serial,
		IDPath: p.IDPath, Size: p.Size, BlockSize: p.BlockSize, NUMANode: p.NUMANode, UUID: p.UUID, PartitionTable: p.PartitionTableType}))
}

// BlockDeviceDelete removes a block device.
func (s *Server) BlockDeviceDelete(ctx context.Context, p api.BlockDeviceDeleteParams) (oapi.Response, error) {
	return gone(s.P.DeleteBlockDevice(ctx, p.SystemID, p.ID))
}

// BlockDeviceAddTag tags a block device.
func (s *Server) BlockDeviceAddTag(ctx context.Context, p api.BlockDeviceAddTagParams) (oapi.Response, error) {
	return oneDevice(s.P.TagBlockDevice(ctx, p.SystemID, p.ID, p.Tag, true))
}

// BlockDeviceRemoveTag takes a tag off a block device.
func (s *Server) BlockDeviceRemoveTag(ctx context.Context, p api.BlockDeviceRemoveTagParams) (oapi.Response, error) {
	return oneDevice(s.P.TagBlockDevice(ctx, p.SystemID, p.ID, p.Tag, false))
}

// BlockDeviceSetBootDisk chooses the boot disk.
func (s *Server) BlockDeviceSetBootDisk(ctx context.Context, p api.BlockDeviceSetBootDiskParams) (oapi.Response, error) {
	if err := s.P.SetBootDisk(ctx, p.SystemID, p.ID); err != nil {
		return oapi.Response{}, err
	}
	return oapi.Text(http.StatusOK, "OK")
}

// BlockDeviceFormat makes a file system on a block device.
func (s *Server) BlockDeviceFormat(ctx context.Context, p api.BlockDeviceFormatParams) (oapi.Response, error) {
	return oneDevice(s.P.Format(ctx, p.SystemID, provisioner.StorageTarget{Device: p.ID}, provisioner.FormatInput{Fstype: p.Fstype, UUID: p.UUID, Label: p.Label}))
}

// BlockDeviceUnformat removes it.
func (s *Server) BlockDeviceUnformat(ctx context.Context, p api.BlockDeviceUnformatParams) (oapi.Response, error) {
	return oneDevice(s.P.Unformat(ctx, p.SystemID, provisioner.StorageTarget{Device: p.ID}))
}

// BlockDeviceMount says where it is mounted.
func (s *Server) BlockDeviceMount(ctx context.Context, p api.BlockDeviceMountParams) (oapi.Response, error) {
	return oneDevice(s.P.Mount(ctx, p.SystemID, provisioner.StorageTarget{Device: p.ID}, p.MountPoint, p.MountOptions))
}

// BlockDeviceUnmount says that it is not.
func (s *Server) BlockDeviceUnmount(ctx context.Context, p api.BlockDeviceUnmountParams) (oapi.Response, error) {
	return oneDevice(s.P.Unmount(ctx, p.SystemID, provisioner.StorageTarget{Device: p.ID}))
}

// PartitionsList answers the partitions of a block device.
func (s *Server) PartitionsList(ctx context.Context, p api.PartitionsListParams) (oapi.Response, error) {
	b, err := s.P.Storage(ctx, p.SystemID)
	if err != nil {
		return oapi.Response{}, err
	}
	d, err := provisioner.FindDisk(b, p.DeviceID)
	if err != nil {
		return oapi.Response{}, err
	}
	return oapi.JSON(http.StatusOK, renderBlockDevice(b, d).Partitions)
}

// PartitionsCreate adds a partition.
func (s *Server) PartitionsCreate(ctx context.Context, p api.PartitionsCreateParams) (oapi.Response, error) {
	return onePartition(s.P.CreatePartition(ctx, p.SystemID, p.DeviceID, p.Size, p.UUID, yes(p.Bootable)))
}

// PartitionRead answers a partition.
func (s *Server) PartitionRead(ctx context.Context, p api.PartitionReadParams) (oapi.Response, error) {
	b, err := s.P.Storage(ctx, p.SystemID)
	if err != nil {
		return oapi.Response{}, err
	}
	d, part, err := provisioner.FindPartition(b, p.DeviceID, p.ID)
	if err != nil {
		return oapi.Response{}, err
	}
	return oapi.JSON(http.StatusOK, renderPartition(b, d, part))
}

// PartitionDelete removes a partition.
func (s *Server) PartitionDelete(ctx context.Context, p api.PartitionDeleteParams) (oapi.Response, error) {
	return gone(s.P.DeletePartition(ctx, p.SystemID, p.DeviceID, p.ID))
}

// PartitionAddTag tags a partition.
func (s *Server) PartitionAddTag(ctx context.Context, p api.PartitionAddTagParams) (oapi.Response, error) {
	return onePartition(s.P.TagPartition(ctx, p.SystemID, p.DeviceID, p.ID, p.Tag, true))
}

// PartitionRemoveTag takes a tag off a partition.
func (s *Server) PartitionRemoveTag(ctx context.Context, p api.PartitionRemoveTagParams) (oapi.Response, error) {
	return onePartition(s.P.TagPartition(ctx, p.SystemID, p.DeviceID, p.ID, p.Tag, false))
}

// PartitionFormat makes a file system on a partition.
func (s *Server) PartitionFormat(ctx context.Context, p api.PartitionFormatParams) (oapi.Response, error) {
	return onePartition(s.P.Format(ctx, p.SystemID, provisioner.StorageTarget{Device: p.DeviceID, Partition: p.ID},
		provisioner.FormatInput{Fstype: p.Fstype, UUID: p.UUID, Label: p.Label}))
}

// PartitionUnformat removes it.
func (s *Server) PartitionUnformat(ctx context.Context, p api.PartitionUnformatParams) (oapi.Response, error) {
	return onePartition(s.P.Unformat(ctx, p.SystemID, provisioner.StorageTarget{Device: p.DeviceID, Partition: p.ID}))
}

// PartitionMount says where it is mounted.
func (s *Server) PartitionMount(ctx context.Context, p api.PartitionMountParams) (oapi.Response, error) {
	return onePartition(s.P.Mount(ctx, p.SystemID, provisioner.StorageTarget{Device: p.DeviceID, Partition: p.ID}, p.MountPoint, p.MountOptions))
}

// PartitionUnmount says that it is not.
func (s *Server) PartitionUnmount(ctx context.Context, p api.PartitionUnmountParams) (oapi.Response, error) {
	return onePartition(s.P.Unmount(ctx, p.SystemID, provisioner.StorageTarget{Device: p.DeviceID, Partition: p.ID}))
}

// MachineMountSpecial mounts a file system that needs no device.
func (s *Server) MachineMountSpecial(ctx context.Context, p api.MachineMountSpecialParams) (oapi.Response, error) {
	options := p.MountOptions
	if options == nil {
		options = textOf(&p.Input, "mount_option") // as MAAS's own documentation spells it
	}
	return machine(s.P.MountSpecial(ctx, p.SystemID, p.Fstype, p.MountPoint, options))
}

// MachineUnmountSpecial removes it.
func (s *Server) MachineUnmountSpecial(ctx context.Context, p api.MachineUnmountSpecialParams) (oapi.Response, error) {
	return machine(s.P.UnmountSpecial(ctx, p.SystemID, p.MountPoint))
}

// MachineSetStorageLayout replaces all of a machine's storage by a layout.
func (s *Server) MachineSetStorageLayout(ctx context.Context, p api.MachineSetStorageLayoutParams) (oapi.Response, error) {
	return machine(s.P.SetStorageLayout(ctx, p.SystemID, p.StorageLayout, layout.Options{BootSize: text(p.BootSize), RootSize: text(p.RootSize),
		LVSize: text(p.LvSize), CacheSize: text(p.CacheSize), RootDevice: p.RootDevice, CacheDevice: p.CacheDevice, VGName: text(p.VgName),
		LVName: text(p.LvName), CacheMode: text(p.CacheMode), CacheNoPart: yes(p.CacheNoPart)}))
}

// MachineRestoreStorageConfiguration gives a machine the layout that it had after commissioning.
func (s *Server) MachineRestoreStorageConfiguration(ctx context.Context, p api.MachineRestoreStorageConfigurationParams) (oapi.Response, error) {
	return machine(s.P.RestoreStorage(ctx, p.SystemID))
}
