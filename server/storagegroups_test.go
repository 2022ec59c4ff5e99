package server_test

import (
	"fmt"
	"net/http"
	"testing"

	"github.com/ingot-metal/ingot/api"
	"github.com/ingot-metal/ingot/provisioner/layout"
	"github.com/ingot-metal/ingot/server/servertest"
	"github.com/ingot-metal/ingot/storage"
)

func TestRAIDs(t *testing.T) {
	e := servertest.New(t)
	admin, user := e.Admin, e.User
	addMachine(t, e, "abc123", storage.StatusNew)
	addMachine(t, e, "def456", storage.StatusReady)
	addDisks(t, e, "abc123", "10G", "10G", "10G", "10G", "10G", "12G")
	addDisks(t, e, "def456", "10G")
	const raids, one = "nodes/abc123/raids/", "nodes/abc123/raid/1/"
	run(t, []step{
		{admin, "POST", raids, "level=raid-1&block_devices=sdb&block_devices=sdc", 409, "Cannot create RAID because the machine is not Ready."},
		{user, "POST", raids, "level=raid-1&block_devices=sdb&block_devices=sdc", 403, ""},
	})
	become(t, e, "abc123", storage.StatusReady, nil)
	run(t, []step{
		{user, "GET", raids, "", 200, "[]"},
		{admin, "POST", raids, "", 400, `"level": [ "This field is required." ]`},
		{admin, "POST", raids, "level=raid-7&block_devices=sdb", 400, `"level": [ "Select a valid choice. raid-7`},
		{admin, "POST", raids, "level=raid-1", 400, "At least one block device or partition must be added to the array."},
		{admin, "POST", raids, "level=raid-0&block_devices=sdb&block_devices=sdc&spare_devices=sdd", 400, "RAID level 0 must have at least 2 raid devices and no spares."},
		{admin, "POST", raids, "level=raid-0&block_devices=sdb", 400, "RAID level 0 must"},
		{admin, "POST", raids, "level=raid-1&block_devices=sdb", 400, "RAID level 1 must have at least 2 raid devices and any number of spares."},
		{admin, "POST", raids, "level=raid-5&block_devices=sdb&block_devices=sdc", 400, "RAID level 5 must have at least 3"},
		{admin, "POST", raids, "level=raid-6&block_devices=sdb&block_devices=sdc&block_devices=sdd", 400, "RAID level 6 must have at least 4"},
		{admin, "POST", raids, "level=raid-10&block_devices=sdb&block_devices=sdc", 400, "RAID level 10 must have at least 3"},
		{admin, "POST", raids, "level=raid-1&block_devices=sdb&block_devices=7", 400, `"block_devices": [ "Select a valid choice. 7`}, // another machine's
		{admin, "POST", raids, "level=raid-1&block_devices=sdb&block_devices=2", 400, `Select a valid choice. 2`},                     // twice the same
		{admin, "POST", raids, "level=raid-1&block_devices=sdb&block_devices=sdc&spare_devices=sdc", 400, `"spare_devices"`},
		{admin, "POST", raids, "level=raid-1&block_devices=sdb&block_devices=sdc&name=../x", 400, `"name": [ "Enter a valid value." ]`},
		{admin, "POST", raids, "level=raid-1&block_devices=sdb&block_devices=sdc&name=sda", 400, "already exists."},
		{user, "GET", raids, "", 200, "[]"}, // a failed create changes nothing
		{user, "GET", "nodes/abc123/blockdevices/sdb/", "", 200, `"used_for": "Unused"`},
	})
	var r api.Raid
	admin.Post(raids, "level", "raid-5", "block_devices", "sdb", "block_devices", "3", "block_devices", "sdd", "spare_devices", "sdf", "uuid", "12345678-1234-4234-8234-123456789abc").Into(t, &r)
	if r.Name != "md0" || r.Size != 2*10e9-layout.RAIDOverhead || r.HumanSize != "20.0 GB" || len(r.Devices) != 3 || len(r.SpareDevices) != 1 ||
		r.VirtualDevice.Size != r.Size || r.VirtualDevice.Name != "md0" || r.VirtualDevice.Type != "virtual" || r.VirtualDevice.NUMANode != nil || r.Level != "raid-5" {
		t.Fatalf("%+v", r)
	}
	uri := fmt.Sprintf("nodes/abc123/raid/%d/", r.ID)
	run(t, []step{
		{user, "GET", "nodes/abc123/blockdevices/sdb/", "", 200, `"used_for": "Active raid-5 device for md0"`},
		{user, "GET", "nodes/abc123/blockdevices/sdf/", "", 200, `"used_for": "Spare raid-5 device for md0"`},
		{user, "GET", "machines/abc123/", "", 200, fmt.Sprintf(`"raids": [ { "system_id": "abc123", "id": %d, "__incomplete__": true } ]`, r.ID)},
		{user, "GET", "machines/abc123/", "", 200, `"virtualblockdevice_set": [ { "resource_uri"`},
		{user, "GET", fmt.Sprintf("nodes/def456/raid/%d/", r.ID), "", 404, ""},
		{user, "GET", fmt.Sprintf("nodes/abc123/volume-group/%d/", r.ID), "", 404, ""},
		{user, "GET", fmt.Sprintf("nodes/abc123/bcache/%d/", r.ID), "", 404, ""},
		{admin, "POST", raids, "level=raid-1&block_devices=sda&block_devices=sde&uuid=12345678-1234-4234-8234-123456789abc", 400, `"uuid"`},
		{admin, "DELETE", "nodes/abc123/blockdevices/sdb/", "", 400, "Cannot delete block device because its part of a RAID."},
		{admin, "POST", "nodes/abc123/blockdevices/sdb/?op=unformat", "", 400, "Filesystem is part of a RAID, and cannot be unformatted. Remove block device from RAID before unformatting the block device."},
		{admin, "POST", "nodes/abc123/blockdevices/sdb/?op=format", "fstype=ext4", 400, "Cannot format a block device that has a filesystem type of raid."},
		{admin, "POST", "nodes/abc123/blockdevices/sdb/?op=mount", "mount_point=/x", 400, "Filesystem is part of a filesystem group, and cannot be mounted."},
		{admin, "POST", "nodes/abc123/blockdevices/sdb/?op=set_boot_disk", "", 400, "Cannot be set as the boot disk; already in-use in RAID 'md0'."},
		{admin, "PUT", uri, "remove_block_devices=sde", 400, `"remove_block_devices"`},
		{admin, "PUT", uri, "remove_block_devices=sdb", 400, "RAID level 5 must have at least 3"},
		{admin, "PUT", uri, "add_block_devices=sdc", 400, `"add_block_devices"`},
		{admin, "PUT", uri, "add_block_devices=md0", 400, `"add_block_devices"`}, // of itself
		{admin, "PUT", uri, "add_block_devices=sde&remove_block_devices=sdb&remove_spare_devices=sdf&name=md7", 200, `"spare_devices": []`},
		{admin, "PUT", "nodes/abc123/blockdevices/md7/", "size=5G", 400, "Size cannot be changed on this device."},
		{admin, "PUT", "nodes/abc123/blockdevices/md7/", "name=md8", 200, `"name": "md8"`},
		{user, "GET", uri, "", 200, `"name": "md8"`},
		{admin, "PUT", uri, "add_block_devices=sdb", 200, fmt.Sprintf(`"size": %d`, int64(3*10e9-layout.RAIDOverhead))},
		{admin, "POST", "nodes/abc123/blockdevices/md8/partitions/", "size=29G", 200, "/dev/disk/by-dname/md8-part2"},
		{admin, "PUT", uri, "remove_block_devices=sdb", 400, "The partitions of md8 need"},
		{admin, "DELETE", "nodes/abc123/blockdevices/md8/partition/md8-part2", "", 204, ""},
		{user, "DELETE", uri, "", 403, ""},
		{admin, "DELETE", uri, "", 204, ""},
		{user, "GET", uri, "", 404, "No FilesystemGroup matches the given query."},
		{user, "GET", "nodes/abc123/blockdevices/sdb/", "", 200, `"used_for": "Unused"`},
		{user, "GET", "machines/abc123/", "", 200, `"virtualblockdevice_set": []`},
	})
	// A RAID with the boot disk is made of partitions, on every disk.
	admin.Post(raids, "level", "raid-1", "block_devices", "sda", "block_devices", "sdb", "spare_devices", "sdc").Into(t, &r)
	for _, d := range append(r.Devices, r.SpareDevices...) {
		if d.(map[string]any)["type"] != "partition" {
			t.Errorf("a member is %v", d)
		}
	}
	run(t, []step{
		{admin, "DELETE", "nodes/abc123/blockdevices/sda/partition/sda-part2", "", 400, "Cannot delete partition because its part of a RAID."},
		{admin, "DELETE", "nodes/abc123/blockdevices/sda/", "", 400, "its part of a RAID"},
	})
	if a := admin.Delete(one); a.Status != http.StatusNotFound {
		t.Errorf("the first RAID is there again: %d", a.Status)
	}
}

func TestVolumeGroups(t *testing.T) {
	e := servertest.New(t)
	admin, user := e.Admin, e.User
	addMachine(t, e, "abc123", storage.StatusNew)
	addDisks(t, e, "abc123", "10G", "10G", "5M", "10G")
	const vgs = "nodes/abc123/volume-groups/"
	run(t, []step{{admin, "POST", vgs, "name=vg0&block_devices=sdb", 409, "Cannot create volume group because the machine is not Ready."}})
	become(t, e, "abc123", storage.StatusReady, nil)
	run(t, []step{
		{admin, "POST", vgs, "", 400, `"name": [ "This field is required." ]`},
		{admin, "POST", vgs, "name=vg0", 400, "At least one valid block device or partition is required."},
		{admin, "POST", vgs, "name=vg0&block_devices=nope", 400, `"block_devices"`},
		{user, "POST", vgs, "name=vg0&block_devices=sdb", 403, ""},
	})
	var vg api.VolumeGroup
	admin.Post(vgs, "name", "vg0", "block_devices", "sdb", "block_devices", "sda").Into(t, &vg)
	// The boot disk comes as a partition over all of it; two extents are LVM's own.
	if want := (int64(10e9+9990832128)/(4<<20) - 2) * (4 << 20); vg.Size != want || vg.AvailableSize != want || len(vg.Devices) != 2 || vg.UsedSize != 0 || vg.HumanUsedSize != "0 bytes" {
		t.Fatalf("%+v, want size %d", vg, want)
	}
	uri := fmt.Sprintf("nodes/abc123/volume-group/%d/", vg.ID)
	var lv api.LogicalVolume
	admin.Post(uri+"?op=create_logical_volume", "name", "lv0", "size", "5000000000").Into(t, &lv)
	if lv.Name != "vg0-lv0" || lv.Size != 4999610368 || lv.UsedSize != 0 {
		t.Fatalf("%+v", lv)
	}
	dev := "nodes/abc123/blockdevices/"
	run(t, []step{
		{user, "GET", fmt.Sprintf("nodes/abc123/volume-groups/%d/", vg.ID), "", 200, `"name": "vg0"`},
		{user, "GET", dev + "vg0-lv0/", "", 200, `"path": "/dev/disk/by-dname/vg0-lv0"`},
		{user, "GET", dev + "lv0/", "", 200, `"block_size": 4096`},
		{user, "GET", dev + "sda/", "", 200, `"used_for": "LVM volume for vg0"`},
		{admin, "POST", dev + "lv0/partitions/", "", 400, "Cannot create a partition table on a logical volume."},
		{admin, "POST", uri + "?op=create_logical_volume", "name=lv0&size=1G", 400, "already exists."},
		{admin, "POST", uri + "?op=create_logical_volume", "name=lv1&size=1T", 400, "Ensure this value is less than or equal to"},
		{admin, "POST", uri + "?op=create_logical_volume", "size=1G", 400, `"name": [ "This field is required." ]`},
		{admin, "PUT", dev + "lv0/", "size=6G", 200, `"size": 5997854720`},
		{admin, "PUT", dev + "lv0/", "size=600G", 400, "There is not enough free space (600.0 GB) on volume group vg0."},
		{admin, "POST", uri + "?op=create_logical_volume", "name=lv1", 200, `"name": "vg0-lv1"`}, // all that is free
		{admin, "POST", uri + "?op=create_logical_volume", "name=lv2", 400, "Volume group (vg0) cannot hold any more logical volumes, because it doesn't have enough free space."},
		{user, "GET", uri, "", 200, `"available_size": 0`},
		{admin, "PUT", uri, "remove_block_devices=sdb", 400, "Volume group cannot be smaller than its logical volumes."},
		{admin, "PUT", uri, "add_block_devices=sdd&name=vg1", 200, `"name": "vg1"`},
		{user, "GET", dev + "lv0/", "", 200, `"name": "vg1-lv0"`},
		{admin, "DELETE", uri, "", 400, "This volume group has logical volumes; it cannot be deleted."},
		{admin, "POST", uri + "?op=delete_logical_volume", "", 400, "No provided id!"},
		{admin, "POST", uri + "?op=delete_logical_volume", "id=999", 204, ""},
		{admin, "POST", uri + "?op=delete_logical_volume", "id=1", 204, ""}, // a disk is no volume of it
		{user, "GET", dev + "sda/", "", 200, ""},
		{admin, "POST", uri + "?op=delete_logical_volume", fmt.Sprintf("id=%d", lv.ID), 204, ""},
		{user, "GET", dev + "lv0/", "", 404, ""},
		{admin, "DELETE", dev + "lv1/", "", 204, ""},
		{admin, "PUT", uri, "remove_block_devices=sdb&remove_block_devices=sdd&remove_partitions=sda-part2", 400, "At least one filesystem must have been added."},
		{admin, "DELETE", uri, "", 204, ""},
		{admin, "GET", vgs, "", 200, "[]"},
		// A volume group on a RAID: the RAID cannot go, nor shrink below the volumes.
		{admin, "POST", "nodes/abc123/raids/", "level=raid-0&block_devices=sdb&block_devices=sdd", 200, ""},
		{admin, "POST", vgs, "name=vg2&block_devices=md0", 200, `"used_for": "LVM volume for vg2"`},
	})
	var raids []api.Raid
	admin.Get("nodes/abc123/raids/").Into(t, &raids)
	if a := admin.Delete(fmt.Sprintf("nodes/abc123/raid/%d/", raids[0].ID)); a.Status != 400 {
		t.Errorf("deleted a RAID in use: %d %s", a.Status, a.Text())
	}
}

func TestBcaches(t *testing.T) {
	e := servertest.New(t)
	admin, user := e.Admin, e.User
	addMachine(t, e, "abc123", storage.StatusNew)
	addDisks(t, e, "abc123", "10G", "10G", "10G", "10G")
	const sets, bcaches, dev = "nodes/abc123/bcache-cache-sets/", "nodes/abc123/bcaches/", "nodes/abc123/blockdevices/"
	run(t, []step{
		{admin, "POST", sets, "cache_device=sdb", 409, "Cannot create cache set because the node is not Ready."},
		{admin, "POST", bcaches, "backing_device=sdc&cache_set=cache0&cache_mode=writeback", 409, "Cannot create Bcache because the machine is not Ready."},
	})
	become(t, e, "abc123", storage.StatusReady, nil)
	run(t, []step{
		{admin, "POST", sets, "", 400, `"__all__": [ "Either cache_device or cache_partition must be specified." ]`},
		{admin, "POST", sets, "cache_device=sdb&cache_partition=1", 400, "Cannot set both cache_device and cache_partition."},
		{user, "POST", sets, "cache_device=sdb", 403, ""},
		{admin, "POST", sets, "cache_device=sdb", 200, `"name": "cache0"`},
		{user, "GET", sets, "", 200, `"name": "cache0"`},
		{user, "GET", dev + "sdb/", "", 200, `"used_for": "Cache device for cache0"`},
		{admin, "POST", dev + "sdb/?op=set_boot_disk", "", 400, "already in-use in cache set 'cache0'."},
		{admin, "POST", dev + "sdb/?op=unformat", "", 400, "Filesystem is part of a cache set"},
		{admin, "POST", bcaches, "backing_device=sdc&cache_mode=writeback", 400, `"__all__": [ "Bcache requires a cache_set." ]`},
		{admin, "POST", bcaches, "cache_set=cache0&cache_mode=writeback", 400, `"__all__": [ "Either backing_device or backing_partition must be specified." ]`},
		{admin, "POST", bcaches, "cache_set=cache0&cache_mode=fast&backing_device=sdc", 400, `"cache_mode": [ "Select a valid choice. fast`},
		{admin, "POST", bcaches, "cache_set=cache9&cache_mode=writeback&backing_device=sdc", 400, `"cache_set": [ "Select a valid choice. cache9`},
		{admin, "POST", bcaches, "cache_set=cache0&cache_mode=writeback&backing_device=sdb", 400, `"backing_device"`},
	})
	var b api.Bcache
	admin.Post(bcaches, "cache_set", "cache0", "cache_mode", "writeback", "backing_device", "sda").Into(t, &b)
	if b.Name != "bcache0" || b.Size != 9990832128 || b.VirtualDevice.Size != b.Size || b.CacheSet.Name != "cache0" || b.BackingDevice.(map[string]any)["type"] != "partition" {
		t.Fatalf("%+v", b)
	}
	uri, set := fmt.Sprintf("nodes/abc123/bcache/%d/", b.ID), fmt.Sprintf("nodes/abc123/bcache-cache-set/%d/", b.CacheSet.ID)
	run(t, []step{
		{user, "GET", "machines/abc123/", "", 200, fmt.Sprintf(`"cache_sets": [ { "system_id": "abc123", "id": %d, "__incomplete__": true } ]`, b.CacheSet.ID)},
		{user, "GET", "machines/abc123/", "", 200, fmt.Sprintf(`"bcaches": [ { "system_id": "abc123", "id": %d, "__incomplete__": true } ]`, b.ID)},
		{user, "GET", uri, "", 200, `"used_for": "Backing device for bcache0"`},
		{admin, "POST", dev + "bcache0/partitions/", "", 400, "Cannot create a partition table on a Bcache volume."},
		{admin, "DELETE", set, "", 400, "Cannot delete cache set; it's currently in use."},
		{admin, "PUT", set, "cache_device=bcache0", 400, `"cache_device"`}, // it would cache itself
		{admin, "PUT", set, "cache_device=sdc&cache_partition=1", 400, "Cannot set both"},
		{admin, "PUT", set, "cache_device=sdc", 200, `"name": "sdc"`},
		{user, "GET", dev + "sdb/", "", 200, `"used_for": "Unused"`},
		{admin, "PUT", uri, "name=fast&cache_mode=writearound&backing_device=sdb", 200, `"cache_mode": "writearound"`},
		{user, "GET", uri, "", 200, `"size": 10000000000`},
		{user, "GET", dev + "fast/", "", 200, `"size": 10000000000`},
		{admin, "PUT", uri, "cache_mode=x", 400, `"cache_mode"`},
		{admin, "POST", "nodes/abc123/volume-groups/", "name=vg&block_devices=sdd", 200, ""},
		{admin, "DELETE", uri, "", 204, ""},
		{admin, "DELETE", set, "", 204, ""},
		{user, "GET", sets, "", 200, "[]"},
		{user, "GET", dev + "sdc/", "", 200, `"used_for": "Unused"`},
	})
	var vgs []api.VolumeGroup
	admin.Get("nodes/abc123/volume-groups/").Into(t, &vgs)
	admin.Post(fmt.Sprintf("nodes/abc123/volume-group/%d/?op=create_logical_volume", vgs[0].ID), "name", "lv")
	run(t, []step{
		{admin, "POST", sets, "cache_device=sdb", 200, ""},
		{admin, "POST", bcaches, "cache_set=cache0&cache_mode=writeback&backing_device=lv", 400, "Bcache cannot use a logical volume as a backing device."},
	})
}

func TestStorageLayouts(t *testing.T) {
	e := servertest.New(t)
	admin, user := e.Admin, e.User
	addMachine(t, e, "abc123", storage.StatusNew)
	const op = "machines/abc123/?op=set_storage_layout"
	run(t, []step{
		{admin, "POST", op, "", 400, `"storage_layout": [ "This field is required." ]`},
		{user, "POST", op, "storage_layout=flat", 403, ""},
		{admin, "POST", op, "storage_layout=flat", 409, "Cannot change the storage layout on a machine that is not Ready."},
		{admin, "POST", "machines/abc123/?op=restore_storage_configuration", "", 409, "Machine must be in a ready or failed testing state to restore storage configuration."},
		{user, "POST", "machines/abc123/?op=restore_storage_configuration", "", 403, ""},
	})
	become(t, e, "abc123", storage.StatusReady, nil)
	run(t, []step{
		{admin, "POST", op, "storage_layout=round", 400, "'round' is not a valid storage_layout."},
		{admin, "POST", op, "storage_layout=flat", 400, "Machine is missing a boot disk; no storage layout can be applied."},
	})
	addDisks(t, e, "abc123", "50G", "20G")
	run(t, []step{
		{admin, "POST", op, "storage_layout=flat&boot_size=1M", 400, `"boot_size": [ "Size is too small. Minimum size is 536870912." ]`},
		{admin, "POST", op, "storage_layout=bcache", 400, "Failed to configure storage layout 'bcache': Node doesn't have an available cache device to setup bcache."},
		{admin, "POST", op, "storage_layout=custom", 400, "Failed to configure storage layout 'custom': No custom storage layout configuration found"},
		{admin, "POST", op, "storage_layout=vmfs7&root_size=1", 400, `"root_size"`},
		{admin, "POST", op, "storage_layout=flat", 200, `"used_for": "ext4 formatted filesystem mounted at /"`},
		{admin, "POST", op, "storage_layout=lvm&lv_name=root&vg_name=vg&boot_size=1G", 200, `"name": "vg-root"`},
		{user, "GET", "nodes/abc123/volume-groups/", "", 200, `"name": "vg"`},
		{admin, "POST", "nodes/abc123/blockdevices/sdb/?op=add_tag", "tag=ssd", 200, ""},
		{admin, "POST", op, "storage_layout=bcache&cache_size=50%", 200, `"name": "bcache0"`},
		{user, "GET", "nodes/abc123/volume-groups/", "", 200, "[]"},
		{user, "GET", "nodes/abc123/blockdevices/sdb/", "", 200, `"used_for": "Cache device for cache0"`},
		{admin, "POST", op, "storage_layout=blank", 200, `"bcaches": []`},
		{user, "GET", "nodes/abc123/blockdevices/sda/", "", 200, `"used_for": "Unused"`},
		{admin, "POST", "nodes/abc123/vmfs-datastores/", "name=ds&block_devices=sdb", 400, `"VMFS": [ "VMFS Datastores may only be created after the VMFS6 or VMFS7 storage layout has been applied." ]`},
		{admin, "POST", op, "storage_layout=vmfs6", 200, `"used_for": "VMFS extent for datastore1"`},
		{admin, "DELETE", "nodes/abc123/blockdevices/sda/partition/sda-part2", "", 400, "VMware ESXi partitions may not be removed."},
		{admin, "POST", "nodes/abc123/blockdevices/sda/partition/sda-part2?op=format", "fstype=ext4", 400, `"VMFS": [ "Base VMFS partitions may not be formatted." ]`},
		{admin, "POST", "nodes/abc123/vmfs-datastores/", "name=ds&block_devices=sdb", 200, `"mount_point": "/vmfs/volumes/ds"`},
	})
	var stores []api.VmfsDatastore
	admin.Get("nodes/abc123/vmfs-datastores/").Into(t, &stores)
	if len(stores) != 2 || stores[0].Name != "datastore1" || len(stores[1].Devices) != 1 {
		t.Fatalf("%+v", stores)
	}
	uri := fmt.Sprintf("nodes/abc123/vmfs-datastore/%d/", stores[1].ID)
	run(t, []step{
		{user, "GET", uri, "", 200, `"name": "ds"`},
		{admin, "PUT", uri, "name=two", 200, `"mount_point": "/vmfs/volumes/two"`},
		{admin, "PUT", uri, "remove_partitions=1", 400, `"remove_partitions"`},
		{admin, "DELETE", uri, "", 204, ""},
		{user, "GET", uri, "", 404, ""},
		// The default for what was commissioned.
		{admin, "POST", "maas/?op=set_config", "name=default_storage_layout&value=lvm", 200, ""},
		{admin, "POST", "machines/abc123/?op=restore_storage_configuration", "", 200, `"name": "vgroot-lvroot"`},
	})
	become(t, e, "abc123", storage.StatusFailedTesting, nil)
	run(t, []step{
		{admin, "POST", "maas/?op=set_config", "name=default_storage_layout&value=flat", 200, ""},
		{admin, "POST", "machines/abc123/?op=restore_storage_configuration", "", 200, `"used_for": "ext4 formatted filesystem mounted at /"`},
	})
}

// A machine of any storage costs as many statements as one with none.
func TestStorageStatements(t *testing.T) {
	e := servertest.New(t)
	addMachine(t, e, "abc123", storage.StatusReady)
	count := func() int64 {
		ctx, counter := storage.WithCounter(t.Context())
		err := e.DB.Read(ctx, func(tx *storage.Tx) error {
			_, err := tx.LoadMachine("abc123")
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return counter.N()
	}
	before := count()
	addDisks(t, e, "abc123", "50G", "50G", "50G", "50G")
	for _, a := range []servertest.Answer{
		e.Admin.Post("machines/abc123/?op=set_storage_layout", "storage_layout", "lvm"),
		e.Admin.Post("nodes/abc123/raids/", "level", "raid-1", "block_devices", "sdb", "block_devices", "sdc"),
		e.Admin.Post("nodes/abc123/bcache-cache-sets/", "cache_device", "sdd"),
		e.Admin.Post("nodes/abc123/bcaches/", "cache_set", "cache0", "backing_device", "md0", "cache_mode", "writeback"),
	} {
		if a.Status != 200 {
			t.Fatalf("%d %s", a.Status, a.Text())
		}
	}
	if after := count(); after != before {
		t.Errorf("%d statements for an empty machine, %d for a full one", before, after)
	}
}
