package provisioner

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/ingot-metal/ingot/provisioner/layout"
	"github.com/ingot-metal/ingot/storage"
)

// SetStorageLayout replaces all of a Ready machine's storage by a layout.
func (s *Service) SetStorageLayout(ctx context.Context, systemID, name string, o layout.Options) (*storage.Bundle, error) {
	return s.storageOfMachine(ctx, systemID, permAdmin, func(c *storageChange) error {
		if err := c.needReady("Cannot change the storage layout on a machine that is not Ready."); err != nil {
			return err
		}
		if !slices.Contains(layout.Names, name) {
			return fieldErr("storage_layout", fmt.Sprintf("'%s' is not a valid storage_layout. It should be one of: '%s'.", name, strings.Join(layout.Names, "', '")))
		}
		if name == layout.NameCustom {
			var err error
			if o.Custom, err = s.customLayout(c.tx, c.n.ID); err != nil {
				return err
			}
		}
		err := s.applyLayout(c.tx, c.n, name, o)
		var fields layout.FieldErrors
		var rule *Error
		switch {
		case errors.Is(err, layout.ErrNoBootDisk):
			return Errorf(Invalid, "Machine is missing a boot disk; no storage layout can be applied.")
		case errors.As(err, &fields):
			return &Error{Kind: Invalid, Fields: fields}
		case errors.As(err, &rule):
			return rule
		case errors.As(err, new(layoutError)):
			return Errorf(Invalid, "Failed to configure storage layout '%s': %v", name, err)
		}
		return err
	})
}

// RestoreStorage gives a machine the layout that it would have after commissioning.
func (s *Service) RestoreStorage(ctx context.Context, systemID string) (*storage.Bundle, error) {
	return s.storageOfMachine(ctx, systemID, permAdmin, func(c *storageChange) error {
		if err := c.need("Machine must be in a ready or failed testing state to restore storage configuration.", storage.StatusReady, storage.StatusFailedTesting); err != nil {
			return err
		}
		return s.defaultLayout(c.tx, c.n)
	})
}

// defaultLayout gives a machine the layout of its last commissioning: a custom one where its scripts wrote one, else the default.
func (s *Service) defaultLayout(tx *storage.Tx, n *storage.Node) error {
	doc, err := s.customLayout(tx, n.ID)
	if err != nil {
		return err
	}
	return s.commissionedLayout(tx, n, doc)
}

// storageExtra is the custom layout inside of a machine's inventory; nil without.
func storageExtra(inventory []byte) json.RawMessage {
	var doc struct {
		Extra json.RawMessage `json:"storage-extra"`
	}
	if json.Unmarshal(inventory, &doc) != nil || string(doc.Extra) == "null" {
		return nil
	}
	return doc.Extra
}

// customLayout is the custom layout of a machine's last commissioning; nil without.
func (s *Service) customLayout(tx *storage.Tx, nodeID int64) ([]byte, error) {
	set, err := tx.CurrentScriptSet(nodeID, storage.SetCommissioning)
	if err != nil {
		return nil, ignoreNotFound(err)
	}
	r, err := tx.ScriptResult(set.ID, InventoryScript)
	if err != nil {
		return nil, ignoreNotFound(err)
	}
	for _, out := range [][]byte{r.Stdout, r.Output} {
		if doc := storageExtra(out); doc != nil {
			return doc, nil
		}
	}
	return nil, nil
}

// layoutError says that a machine cannot have a layout.
type layoutError struct{ err error }

func (e layoutError) Error() string { return e.err.Error() }

// commissionedLayout gives a machine the custom layout that its scripts wrote, or the default one. What cannot be applied leaves it without
// any, and says so in an event.
func (s *Service) commissionedLayout(tx *storage.Tx, n *storage.Node, custom []byte) error {
	if err := tx.ClearStorageLayout(n.ID); err != nil {
		return err
	}
	name, err := s.settingText(tx, "default_storage_layout", layout.NameFlat)
	if err != nil {
		return err
	}
	text := "Cannot apply the layout " + name + ": "
	if custom != nil {
		name, text = layout.NameCustom, "Cannot apply custom layout: "
	}
	err = s.applyLayout(tx, n, name, layout.Options{Custom: custom, Fallback: true})
	if errors.Is(err, layout.ErrNoBootDisk) {
		return nil
	}
	var fields layout.FieldErrors
	if errors.As(err, &fields) {
		var all []string
		for _, f := range sortedNames(fields) {
			all = append(all, fields[f]...)
		}
		err = layoutError{errors.New(strings.Join(all, " "))}
	}
	if errors.As(err, new(layoutError)) {
		s.Log.Info("no storage layout", "system_id", n.SystemID, "reason", err.Error())
		return s.nodeEvent(tx, n, evConfiguringStorage, clip(text+strings.TrimPrefix(err.Error(), "Failed to apply storage layout: ")))
	}
	return err
}

// applyLayout replaces a machine's storage by a layout. Wrong options are layout.FieldErrors, a machine that cannot have it is
// layout.ErrNoBootDisk or a layoutError; both leave the storage as it was.
func (s *Service) applyLayout(tx *storage.Tx, n *storage.Node, name string, o layout.Options) error {
	devices, err := tx.BlockDevices(n.ID)
	if err != nil {
		return err
	}
	b := &storage.Bundle{Node: *n}
	t := layout.Target{Firmware: firmwareOf(n), Arch: archOf(n), NewUUID: newUUID}
	for i := range devices {
		if devices[i].Type == "physical" {
			d := devices[i]
			d.PartitionTable = ""
			b.Disks = append(b.Disks, &storage.DiskBundle{BlockDevice: d})
			t.Disks = append(t.Disks, layout.TargetDisk{ID: d.ID, Name: d.Name, Size: d.Size, Tags: d.Tags})
		}
	}
	if boot := bootDisk(b); boot != nil {
		t.Boot = boot.Name
	}
	st, err := layout.Apply(name, t, o)
	if err != nil {
		if errors.Is(err, layout.ErrNoBootDisk) || errors.As(err, new(layout.FieldErrors)) {
			return err
		}
		return layoutError{err}
	}
	if err := tx.ClearStorageLayout(n.ID); err != nil {
		return err
	}
	c := &storageChange{s: s, tx: tx, n: n, b: b}
	if err := c.write(st); err != nil {
		return err
	}
	if err := c.settle(); err != nil {
		return err
	}
	if storage.AllocatedStorage(n.Status) {
		return tx.AcquireFilesystems(n.ID)
	}
	return nil
}

// layoutWriter writes a layout into the store of a machine without one.
type layoutWriter struct {
	c      *storageChange
	disks  map[string]*storage.BlockDevice
	parts  map[layout.Ref]*storage.Partition
	caches map[layout.Ref]int64
}

// write writes a layout. The sizes of what groups make up are left to settle.
func (c *storageChange) write(st layout.Storage) error {
	w := &layoutWriter{c: c, disks: map[string]*storage.BlockDevice{}, parts: map[layout.Ref]*storage.Partition{}, caches: map[layout.Ref]int64{}}
	for _, d := range c.b.Disks {
		w.disks[d.Name] = &d.BlockDevice
	}
	for _, t := range st.Tables {
		if err := w.table(t); err != nil {
			return err
		}
	}
	for _, g := range st.Groups {
		if err := w.group(g); err != nil {
			return err
		}
	}
	for _, f := range st.Filesystems {
		if err := w.filesystem(&f.FS, &w.disks[f.Device].ID, nil); err != nil {
			return err
		}
	}
	for _, f := range st.Special {
		if err := w.filesystem(&f, nil, nil); err != nil {
			return err
		}
	}
	if st.Boot != "" {
		c.n.BootDiskID = &w.disks[st.Boot].ID
		return c.tx.UpdateNode(c.n)
	}
	return nil
}

func (w *layoutWriter) table(t layout.Table) error {
	d := w.disks[t.Device]
	d.PartitionTable = t.Type
	if err := w.c.tx.UpdateBlockDevice(d); err != nil {
		return err
	}
	for _, p := range t.Partitions {
		row := &storage.Partition{BlockDeviceID: d.ID, Number: int64(p.Number), UUID: p.UUID, Size: p.Size, Bootable: p.Bootable, Flag: p.Flag}
		if err := w.c.tx.InsertPartition(row); err != nil {
			return err
		}
		w.parts[layout.Ref{Device: t.Device, Number: p.Number}] = row
		if p.FSType == "" {
			continue
		}
		fs := layout.FS{Type: p.FSType, UUID: p.FSUUID, Label: p.Label, MountPoint: p.MountPoint, Options: p.Options}
		if err := w.filesystem(&fs, nil, &row.ID); err != nil {
			return err
		}
	}
	return nil
}

func textOrNil(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

func (w *layoutWriter) filesystem(f *layout.FS, device, partition *int64) error {
	if f == nil {
		return nil
	}
	return w.c.tx.InsertFilesystem(&storage.Filesystem{NodeID: w.c.n.ID, BlockDeviceID: device, PartitionID: partition, Fstype: f.Type,
		Label: textOrNil(f.Label), UUID: textOrNil(f.UUID), MountPoint: textOrNil(f.MountPoint), MountOptions: textOrNil(f.Options)})
}

// member makes what a reference names a member of a group or the holder of a cache.
func (w *layoutWriter) member(r layout.Ref, fstype string, group, cache *int64) error {
	ref := deviceRef{disk: &storage.DiskBundle{}}
	if r.Number == 0 {
		ref.disk.BlockDevice = *w.disks[r.Device]
	} else {
		ref.part = &storage.PartitionBundle{Partition: *w.parts[r]}
	}
	return w.c.enroll(ref, fstype, group, cache)
}

func (w *layoutWriter) group(g layout.Group) error {
	row := &storage.StorageGroup{Type: g.Kind, Name: g.Name, UUID: g.UUID, CacheMode: g.CacheMode}
	fstype, sector := fsPV, int64(0)
	switch {
	case slices.Contains(layout.RAIDs, g.Kind):
		fstype = fsRAID
	case g.Kind == layout.VMFS:
		fstype = fsVMFS
	case g.Kind == layout.Bcache:
		fstype, sector = fsBacking, w.disks[g.Members[0].Device].BlockSize
		id, have := w.caches[g.Cache]
		if !have {
			set := storage.CacheSet{NodeID: w.c.n.ID}
			if err := w.c.tx.InsertCacheSet(&set); err != nil {
				return err
			}
			id = set.ID
			w.caches[g.Cache] = id
			if err := w.member(g.Cache, fsCache, nil, &id); err != nil {
				return err
			}
		}
		row.CacheSetID = &id
	}
	d, err := w.c.newGroup(row, sector)
	if err != nil {
		return err
	}
	for _, m := range g.Members {
		if err := w.member(m, fstype, &row.ID, nil); err != nil {
			return err
		}
	}
	for _, m := range g.Spares {
		if err := w.member(m, fsRAIDSpare, &row.ID, nil); err != nil {
			return err
		}
	}
	if d != nil {
		w.disks[g.Name] = d
		return w.filesystem(g.FS, &d.ID, nil)
	}
	for _, v := range g.Volumes {
		uuid := v.UUID
		volume := &storage.BlockDevice{NodeID: w.c.n.ID, Name: v.Name, Type: "virtual", UUID: &uuid, GroupID: &row.ID, Size: v.Size,
			BlockSize: layout.VirtualBlockSize(g.Kind, 0)}
		if err := w.c.tx.InsertBlockDevice(volume); err != nil {
			return takenDevice(err)
		}
		w.disks[v.Name] = volume
		if err := w.filesystem(v.FS, &volume.ID, nil); err != nil {
			return err
		}
	}
	return nil
}
