package storage_test

import (
	"context"
	"errors"
	"testing"

	"github.com/ingot-metal/ingot/storage"
	"github.com/ingot-metal/ingot/storage/storagetest"
)

// A machine's storage is loaded whole, with what belongs to what, in a number of statements that does not depend on it.
func TestStorageBundle(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		storagetest.Fleet(t, db, 3)
		var n storage.Node
		var vg, bcache storage.StorageGroup
		ptr := func(s string) *string { return &s }
		write(t, db, func(tx *storage.Tx) (err error) {
			if n, err = tx.Node("n00001"); err != nil {
				return err
			}
			disk := func(name, typ string, group *int64) storage.BlockDevice {
				d := storage.BlockDevice{NodeID: n.ID, Name: name, Type: typ, Size: 1 << 30, BlockSize: 512, GroupID: group}
				if err := tx.InsertBlockDevice(&d); err != nil {
					t.Fatal(err)
				}
				return d
			}
			sdb, sdc, sdd := disk("sdb", "physical", nil), disk("sdc", "physical", nil), disk("sdd", "physical", nil)
			set := storage.CacheSet{NodeID: n.ID}
			if err := tx.InsertCacheSet(&set); err != nil {
				return err
			}
			vg = storage.StorageGroup{NodeID: n.ID, Type: "lvm-vg", Name: "vg", UUID: "u1"}
			bcache = storage.StorageGroup{NodeID: n.ID, Type: "bcache", Name: "bcache0", UUID: "u2", CacheMode: "writeback", CacheSetID: &set.ID}
			for _, g := range []*storage.StorageGroup{&vg, &bcache} {
				if err := tx.InsertStorageGroup(g); err != nil {
					return err
				}
			}
			lv, bc := disk("lv", "virtual", &vg.ID), disk("bcache0", "virtual", &bcache.ID)
			for _, f := range []storage.Filesystem{
				{BlockDeviceID: &sdb.ID, Fstype: "lvm-pv", GroupID: &vg.ID}, {BlockDeviceID: &sdc.ID, Fstype: "bcache-backing", GroupID: &bcache.ID},
				{BlockDeviceID: &sdd.ID, Fstype: "bcache-cache", CacheSetID: &set.ID}, {BlockDeviceID: &lv.ID, Fstype: "ext4", MountPoint: ptr("/srv")},
				{BlockDeviceID: &bc.ID, Fstype: "ext4"}, {Fstype: "tmpfs", MountPoint: ptr("/run/x")},
			} {
				f.NodeID = n.ID
				if err := tx.InsertFilesystem(&f); err != nil {
					return err
				}
			}
			return nil
		})
		look := func(what, mount string, special int) {
			t.Helper()
			read(t, db, func(tx *storage.Tx) error {
				whole, err := tx.LoadMachine("n00001")
				if err != nil {
					return err
				}
				only, err := tx.LoadStorage(whole.Node)
				if err != nil {
					return err
				}
				for _, b := range []*storage.Bundle{whole, only} {
					if len(b.Disks) != 6 || len(b.Groups) != 2 || len(b.CacheSets) != 1 || len(b.Special) != special {
						t.Fatalf("%s: %d disks, %d groups, %d cache sets, %d special", what, len(b.Disks), len(b.Groups), len(b.CacheSets), len(b.Special))
					}
					g, c := b.Groups[0], b.CacheSets[0]
					if g.Name != "vg" || len(g.Members) != 1 || g.Members[0].Disk.Name != "sdb" || len(g.Devices) != 1 || g.Devices[0].Name != "lv" {
						t.Errorf("%s: %+v", what, g)
					}
					if c.Member == nil || c.Member.Disk.Name != "sdd" || b.Groups[1].Members[0].Size() != 1<<30 || *b.Groups[1].CacheSetID != c.ID {
						t.Errorf("%s: cache set %+v", what, c)
					}
					if fs := g.Devices[0].Filesystem; fs == nil && mount != "" || fs != nil && (fs.MountPoint == nil || *fs.MountPoint != mount) {
						t.Errorf("%s: %+v", what, fs)
					}
				}
				return nil
			})
		}
		look("free", "/srv", 1)
		// Whoever gets the machine changes copies; they end with the allocation.
		write(t, db, func(tx *storage.Tx) error {
			n.Status = storage.StatusAllocated
			if err := tx.UpdateNode(&n); err != nil {
				return err
			}
			return tx.AcquireFilesystems(n.ID)
		})
		look("allocated", "/srv", 1)
		write(t, db, func(tx *storage.Tx) error {
			all, err := tx.Filesystems(n.ID)
			if err != nil {
				return err
			}
			copies := 0
			for _, f := range all {
				switch {
				case !f.Acquired:
				case !f.Mountable():
					t.Errorf("a copy of the membership %+v", f)
				case f.MountPoint != nil && *f.MountPoint == "/srv":
					copies++
					f.MountPoint = ptr("/mine")
					if err := tx.UpdateFilesystem(&f); err != nil {
						return err
					}
				case f.BlockDeviceID == nil && f.PartitionID == nil:
					copies++
					if err := tx.DeleteFilesystem(f.ID); err != nil {
						return err
					}
				}
			}
			if copies != 2 {
				t.Errorf("%d copies in %+v", copies, all)
			}
			return tx.AcquireFilesystems(n.ID) // changes nothing that is there
		})
		look("changed", "/mine", 0)
		write(t, db, func(tx *storage.Tx) error {
			n.Status = storage.StatusReady
			if err := tx.UpdateNode(&n); err != nil {
				return err
			}
			return tx.ReleaseFilesystems(n.ID)
		})
		look("free again", "/srv", 1)

		if err := db.Write(context.Background(), func(tx *storage.Tx) error {
			return tx.InsertStorageGroup(&storage.StorageGroup{NodeID: n.ID, Type: "raid-1", Name: "md0", UUID: "u1"})
		}); !errors.Is(err, storage.ErrConflict) {
			t.Errorf("two groups with one UUID: %v", err)
		}
		// A cache that goes takes the bcache with it, and what was made of that.
		pruned := func(tx *storage.Tx) (groups, sets int, err error) {
			b, err := tx.LoadStorage(n)
			if err != nil {
				return 0, 0, err
			}
			return len(b.Groups), len(b.CacheSets), nil
		}
		errUndo := errors.New("undone")
		if err := db.Write(context.Background(), func(tx *storage.Tx) error {
			if err := tx.PruneStorage(n.ID); err != nil {
				return err
			}
			if g, s, err := pruned(tx); err != nil || g != 2 || s != 1 {
				t.Errorf("nothing was lost: %d groups, %d cache sets, %v", g, s, err)
			}
			b, err := tx.LoadStorage(n)
			if err != nil {
				return err
			}
			for _, d := range b.Disks {
				if d.Name == "sdd" || d.Name == "sdb" {
					if err := tx.DeleteBlockDevice(d.ID); err != nil {
						return err
					}
				}
			}
			if err := tx.PruneStorage(n.ID); err != nil {
				return err
			}
			if g, s, err := pruned(tx); err != nil || g != 0 || s != 0 {
				t.Errorf("left behind: %d groups, %d cache sets, %v", g, s, err)
			}
			return errUndo
		}); !errors.Is(err, errUndo) {
			t.Fatal(err)
		}
		// The device goes with its group, and the member is free.
		write(t, db, func(tx *storage.Tx) error { return tx.DeleteStorageGroup(vg.ID) })
		read(t, db, func(tx *storage.Tx) error {
			b, err := tx.LoadStorage(n)
			if err != nil {
				return err
			}
			if len(b.Disks) != 5 || len(b.Groups) != 1 || b.Disks[1].Filesystem != nil {
				t.Errorf("after the group went: %d disks, %d groups, %+v", len(b.Disks), len(b.Groups), b.Disks[1])
			}
			return nil
		})
		write(t, db, func(tx *storage.Tx) error { return tx.ClearStorageLayout(n.ID) })
		read(t, db, func(tx *storage.Tx) error {
			b, err := tx.LoadStorage(n)
			if err != nil {
				return err
			}
			if len(b.Disks) != 4 || len(b.Groups)+len(b.CacheSets)+len(b.Special)+len(b.Disks[0].Partitions) != 0 || b.Disks[0].PartitionTable != "" {
				t.Errorf("after all was cleared: %+v", b)
			}
			other, err := tx.LoadMachine("n00002")
			if err == nil && len(other.Disks[0].Partitions) != 1 {
				t.Errorf("another machine lost its partitions")
			}
			return err
		})
	})
}
