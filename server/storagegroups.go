package server

import (
	"context"
	"net/http"

	"github.com/ingot-metal/ingot/api"
	"github.com/ingot-metal/ingot/provisioner"
	"github.com/ingot-metal/ingot/server/oapi"
	"github.com/ingot-metal/ingot/storage"
)

type (
	groupKind   = func(*storage.GroupBundle) bool
	groupRender = func(*storage.Bundle, *storage.GroupBundle) any
)

// listGroups answers the groups of a kind.
func (s *Server) listGroups(ctx context.Context, systemID string, kind groupKind, render groupRender) (oapi.Response, error) {
	b, err := s.P.Storage(ctx, systemID)
	if err != nil {
		return oapi.Response{}, err
	}
	out := []any{}
	for _, g := range b.Groups {
		if kind(g) {
			out = append(out, render(b, g))
		}
	}
	return oapi.JSON(http.StatusOK, out)
}

// readGroup answers one group of a kind.
func (s *Server) readGroup(ctx context.Context, systemID string, id int64, kind groupKind, render groupRender) (oapi.Response, error) {
	b, err := s.P.Storage(ctx, systemID)
	return oneStorageGroup(b, id, kind, render, err)
}

func oneStorageGroup(b *storage.Bundle, id int64, kind groupKind, render groupRender, err error) (oapi.Response, error) {
	if err != nil {
		return oapi.Response{}, err
	}
	g, err := provisioner.FindGroup(b, id, kind)
	if err != nil {
		return oapi.Response{}, err
	}
	return oapi.JSON(http.StatusOK, render(b, g))
}

// RaidsList answers the RAIDs of a node.
func (s *Server) RaidsList(ctx context.Context, p api.RaidsListParams) (oapi.Response, error) {
	return s.listGroups(ctx, p.SystemID, provisioner.IsRAID, renderRAID)
}

// RaidsCreate makes a RAID.
func (s *Server) RaidsCreate(ctx context.Context, p api.RaidsCreateParams) (oapi.Response, error) {
	b, id, err := s.P.CreateRAID(ctx, p.SystemID, provisioner.GroupInput{Name: p.Name, UUID: p.UUID, Level: p.Level, Devices: p.BlockDevices,
		Partitions: p.Partitions, SpareDevices: p.SpareDevices, SparePartitions: p.SparePartitions})
	return oneStorageGroup(b, id, provisioner.IsRAID, renderRAID, err)
}

// RaidRead answers a RAID.
func (s *Server) RaidRead(ctx context.Context, p api.RaidReadParams) (oapi.Response, error) {
	return s.readGroup(ctx, p.SystemID, p.ID, provisioner.IsRAID, renderRAID)
}

// RaidUpdate changes a RAID.
func (s *Server) RaidUpdate(ctx context.Context, p api.RaidUpdateParams) (oapi.Response, error) {
	b, err := s.P.UpdateRAID(ctx, p.SystemID, p.ID, provisioner.GroupInput{Name: p.Name, UUID: p.UUID, Devices: p.AddBlockDevices, Partitions: p.AddPartitions,
		SpareDevices: p.AddSpareDevices, SparePartitions: p.AddSparePartitions, RemoveDevices: p.RemoveBlockDevices, RemovePartitions: p.RemovePartitions,
		RemoveSpareDevices: p.RemoveSpareDevices, RemoveSparePartitions: p.RemoveSparePartitions})
	return oneStorageGroup(b, p.ID, provisioner.IsRAID, renderRAID, err)
}

// RaidDelete removes a RAID.
func (s *Server) RaidDelete(ctx context.Context, p api.RaidDeleteParams) (oapi.Response, error) {
	return gone(s.P.DeleteRAID(ctx, p.SystemID, p.ID))
}

// VolumeGroupsList answers the volume groups of a node.
func (s *Server) VolumeGroupsList(ctx context.Context, p api.VolumeGroupsListParams) (oapi.Response, error) {
	return s.listGroups(ctx, p.SystemID, provisioner.IsVG, renderVolumeGroup)
}

// VolumeGroupsCreate makes a volume group.
func (s *Server) VolumeGroupsCreate(ctx context.Context, p api.VolumeGroupsCreateParams) (oapi.Response, error) {
	b, id, err := s.P.CreateVolumeGroup(ctx, p.SystemID, provisioner.GroupInput{Name: &p.Name, UUID: p.UUID, Devices: p.BlockDevices, Partitions: p.Partitions})
	return oneStorageGroup(b, id, provisioner.IsVG, renderVolumeGroup, err)
}

// VolumeGroupRead answers a volume group.
func (s *Server) VolumeGroupRead(ctx context.Context, p api.VolumeGroupReadParams) (oapi.Response, error) {
	return s.readGroup(ctx, p.SystemID, p.ID, provisioner.IsVG, renderVolumeGroup)
}

// VolumeGroupUpdate changes a volume group.
func (s *Server) VolumeGroupUpdate(ctx context.Context, p api.VolumeGroupUpdateParams) (oapi.Response, error) {
	b, err := s.P.UpdateVolumeGroup(ctx, p.SystemID, p.ID, provisioner.GroupInput{Name: p.Name, UUID: p.UUID, Devices: p.AddBlockDevices,
		Partitions: p.AddPartitions, RemoveDevices: p.RemoveBlockDevices, RemovePartitions: p.RemovePartitions})
	return oneStorageGroup(b, p.ID, provisioner.IsVG, renderVolumeGroup, err)
}

// VolumeGroupDelete removes a volume group.
func (s *Server) VolumeGroupDelete(ctx context.Context, p api.VolumeGroupDeleteParams) (oapi.Response, error) {
	return gone(s.P.DeleteVolumeGroup(ctx, p.SystemID, p.ID))
}

// VolumeGroupCreateLogicalVolume makes a logical volume.
func (s *Server) VolumeGroupCreateLogicalVolume(ctx context.Context, p api.VolumeGroupCreateLogicalVolumeParams) (oapi.Response, error) {
	b, id, err := s.P.CreateLogicalVolume(ctx, p.SystemID, p.ID, p.Name, p.UUID, p.Size)
	if err != nil {
		return oapi.Response{}, err
	}
	d, err := provisioner.FindDisk(b, itoa(id))
	if err != nil {
		return oapi.Response{}, err
	}
	v := renderBlockDevice(b, d)
	return oapi.JSON(http.StatusOK, api.LogicalVolume{ResourceURI: v.ResourceURI, SystemID: v.SystemID, ID: v.ID, UUID: text(v.UUID), Name: v.Name,
		Size: v.Size, AvailableSize: v.AvailableSize, UsedSize: v.UsedSize})
}

// VolumeGroupDeleteLogicalVolume removes a logical volume.
func (s *Server) VolumeGroupDeleteLogicalVolume(ctx context.Context, p api.VolumeGroupDeleteLogicalVolumeParams) (oapi.Response, error) {
	return gone(s.P.DeleteLogicalVolume(ctx, p.SystemID, p.ID, p.NewID))
}

// BcacheCacheSetsList answers the cache sets of a node.
func (s *Server) BcacheCacheSetsList(ctx context.Context, p api.BcacheCacheSetsListParams) (oapi.Response, error) {
	b, err := s.P.Storage(ctx, p.SystemID)
	if err != nil {
		return oapi.Response{}, err
	}
	return oapi.JSON(http.StatusOK, each(b.CacheSets, func(c *storage.CacheSetBundle) api.CacheSet { return renderCacheSet(b, c) }))
}

func oneCacheSet(b *storage.Bundle, id int64, err error) (oapi.Response, error) {
	if err != nil {
		return oapi.Response{}, err
	}
	c, err := provisioner.FindCacheSet(b, id)
	if err != nil {
		return oapi.Response{}, err
	}
	return oapi.JSON(http.StatusOK, renderCacheSet(b, c))
}

// BcacheCacheSetsCreate makes a cache set.
func (s *Server) BcacheCacheSetsCreate(ctx context.Context, p api.BcacheCacheSetsCreateParams) (oapi.Response, error) {
	return oneCacheSet(s.P.CreateCacheSet(ctx, p.SystemID, p.CacheDevice, p.CachePartition))
}

// BcacheCacheSetRead answers a cache set.
func (s *Server) BcacheCacheSetRead(ctx context.Context, p api.BcacheCacheSetReadParams) (oapi.Response, error) {
	b, err := s.P.Storage(ctx, p.SystemID)
	return oneCacheSet(b, p.ID, err)
}

// BcacheCacheSetUpdate moves a cache set to another device.
func (s *Server) BcacheCacheSetUpdate(ctx context.Context, p api.BcacheCacheSetUpdateParams) (oapi.Response, error) {
	b, err := s.P.UpdateCacheSet(ctx, p.SystemID, p.ID, p.CacheDevice, p.CachePartition)
	return oneCacheSet(b, p.ID, err)
}

// BcacheCacheSetDelete removes a cache set.
func (s *Server) BcacheCacheSetDelete(ctx context.Context, p api.BcacheCacheSetDeleteParams) (oapi.Response, error) {
	return gone(s.P.DeleteCacheSet(ctx, p.SystemID, p.ID))
}

// BcachesList answers the bcaches of a node.
func (s *Server) BcachesList(ctx context.Context, p api.BcachesListParams) (oapi.Response, error) {
	return s.listGroups(ctx, p.SystemID, provisioner.IsBcache, renderBcache)
}

// BcachesCreate makes a bcache.
func (s *Server) BcachesCreate(ctx context.Context, p api.BcachesCreateParams) (oapi.Response, error) {
	b, id, err := s.P.CreateBcache(ctx, p.SystemID, provisioner.BcacheInput{Name: p.Name, UUID: p.UUID, CacheSet: p.CacheSet, BackingDevice: p.BackingDevice,
		BackingPartition: p.BackingPartition, CacheMode: p.CacheMode})
	return oneStorageGroup(b, id, provisioner.IsBcache, renderBcache, err)
}

// BcacheRead answers a bcache.
func (s *Server) BcacheRead(ctx context.Context, p api.BcacheReadParams) (oapi.Response, error) {
	return s.readGroup(ctx, p.SystemID, p.ID, provisioner.IsBcache, renderBcache)
}

// BcacheUpdate changes a bcache.
func (s *Server) BcacheUpdate(ctx context.Context, p api.BcacheUpdateParams) (oapi.Response, error) {
	b, err := s.P.UpdateBcache(ctx, p.SystemID, p.ID, provisioner.BcacheInput{Name: p.Name, UUID: p.UUID, CacheSet: p.CacheSet, BackingDevice: p.BackingDevice,
		BackingPartition: p.BackingPartition, CacheMode: p.CacheMode})
	return oneStorageGroup(b, p.ID, provisioner.IsBcache, renderBcache, err)
}

// BcacheDelete removes a bcache.
func (s *Server) BcacheDelete(ctx context.Context, p api.BcacheDeleteParams) (oapi.Response, error) {
	return gone(s.P.DeleteBcache(ctx, p.SystemID, p.ID))
}

// VmfsDatastoresList answers the VMFS datastores of a node.
func (s *Server) VmfsDatastoresList(ctx context.Context, p api.VmfsDatastoresListParams) (oapi.Response, error) {
	return s.listGroups(ctx, p.SystemID, provisioner.IsVMFS, renderVMFS)
}

// VmfsDatastoresCreate makes a VMFS datastore.
func (s *Server) VmfsDatastoresCreate(ctx context.Context, p api.VmfsDatastoresCreateParams) (oapi.Response, error) {
	b, id, err := s.P.CreateVMFS(ctx, p.SystemID, provisioner.GroupInput{Name: &p.Name, UUID: p.UUID, Devices: p.BlockDevices, Partitions: p.Partitions})
	return oneStorageGroup(b, id, provisioner.IsVMFS, renderVMFS, err)
}

// VmfsDatastoreRead answers a VMFS datastore.
func (s *Server) VmfsDatastoreRead(ctx context.Context, p api.VmfsDatastoreReadParams) (oapi.Response, error) {
	return s.readGroup(ctx, p.SystemID, p.ID, provisioner.IsVMFS, renderVMFS)
}

// VmfsDatastoreUpdate changes a VMFS datastore.
func (s *Server) VmfsDatastoreUpdate(ctx context.Context, p api.VmfsDatastoreUpdateParams) (oapi.Response, error) {
	b, err := s.P.UpdateVMFS(ctx, p.SystemID, p.ID, provisioner.GroupInput{Name: p.Name, UUID: p.UUID, Devices: p.AddBlockDevices,
		Partitions: p.AddPartitions, RemovePartitions: p.RemovePartitions})
	return oneStorageGroup(b, p.ID, provisioner.IsVMFS, renderVMFS, err)
}

// VmfsDatastoreDelete removes a VMFS datastore.
func (s *Server) VmfsDatastoreDelete(ctx context.Context, p api.VmfsDatastoreDeleteParams) (oapi.Response, error) {
	return gone(s.P.DeleteVMFS(ctx, p.SystemID, p.ID))
}
