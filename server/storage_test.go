package server_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/ingot-metal/ingot/api"
	"github.com/ingot-metal/ingot/server/servertest"
	"github.com/ingot-metal/ingot/storage"
)

// addDisks gives a machine disks sda, sdb, … of sizes, by the API.
func addDisks(t *testing.T, e *servertest.Env, systemID string, sizes ...string) {
	t.Helper()
	for i, size := range sizes {
		name := "sd" + string(rune('a'+i))
		a := e.Admin.Post("nodes/"+systemID+"/blockdevices/", "name", name, "model", "QEMU", "serial", systemID+name, "size", size, "block_size", "512")
		if a.Status != 200 {
			t.Fatalf("disk %s: %d %s", name, a.Status, a.Text())
		}
	}
}

// become puts a machine into a status, with an owner or none.
func become(t *testing.T, e *servertest.Env, systemID string, st storage.NodeStatus, owner *int64) {
	t.Helper()
	err := e.DB.Write(t.Context(), func(tx *storage.Tx) error {
		n, err := tx.Node(systemID)
		if err != nil {
			return err
		}
		n.Status, n.OwnerID = st, owner
		if err := tx.UpdateNode(&n); err != nil {
			return err
		}
		if storage.AllocatedStorage(st) {
			return tx.AcquireFilesystems(n.ID)
		}
		return tx.ReleaseFilesystems(n.ID)
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestBlockDevices(t *testing.T) {
	e := servertest.New(t)
	admin, user := e.Admin, e.User
	addMachine(t, e, "abc123", storage.StatusNew)
	addMachine(t, e, "def456", storage.StatusReady)
	addDisks(t, e, "abc123", "10G", "20000000000")
	addDisks(t, e, "def456", "10G")
	const dev = "nodes/abc123/blockdevices/"
	run(t, []step{
		{user, "POST", dev, "name=sdx&size=10G&block_size=512&id_path=/dev/x", 403, ""},
		{e.Anon, "GET", dev, "", 401, ""},
		{user, "GET", "nodes/zzzzzz/blockdevices/", "", 404, ""},
		{admin, "POST", dev, "name=sdx&size=1M&block_size=512&id_path=/dev/x", 400, `"size": [ "Ensure this value is greater than or equal to 4194304." ]`},
		{admin, "POST", dev, "name=sdx&size=10G&block_size=511&id_path=/dev/x", 400, `"block_size": [ "Ensure this value is greater than or equal to 512." ]`},
		{admin, "POST", dev, "name=sdx&size=big&block_size=512&id_path=/dev/x", 400, `"size": [ "Enter a valid value." ]`},
		{admin, "POST", dev, "name=sdx&size=10G&block_size=512", 400, `"__all__": [ "serial/model are required if id_path is not provided." ]`},
		{admin, "POST", dev, "name=sdx&size=10G&block_size=512&id_path=dev/x", 400, `"id_path": [ "Enter a valid value." ]`},
		{admin, "POST", dev, "name=sda&size=10G&block_size=512&id_path=/dev/x", 400, "already exists."},
		{admin, "POST", dev, "name=sdx&size=10G&block_size=512&id_path=/dev/x&numa_node=4", 400, `"numa_node"`},
		{admin, "POST", dev, "name=../x&size=10G&block_size=512&id_path=/dev/x", 400, `"name": [ "Enter a valid value." ]`},
		{admin, "POST", dev, "", 400, `"size": [ "This field is required." ]`},
		{user, "GET", dev, "", 200, `"name": "sda"`},
		{user, "GET", dev + "sdb/", "", 200, `"size": 20000000000`},
		{user, "GET", dev + "1/", "", 200, `"available_size": 9990832128`},
		{user, "GET", dev + "3/", "", 404, "No BlockDevice matches the given query."}, // another machine's
		{admin, "DELETE", dev + "3/", "", 404, ""},
		{user, "DELETE", dev + "1/", "", 403, ""},
		{admin, "DELETE", dev + "1/", "", 409, "Cannot delete block device because the machine is not Ready."},
		{admin, "PUT", dev + "1/", "name=sdz", 409, "Cannot update block device because the machine is not Ready."},
		{admin, "POST", dev + "1/?op=add_tag", "tag=x", 409, ""},
		{admin, "POST", dev + "1/?op=set_boot_disk", "", 409, "Cannot set as boot disk because the machine is not Ready."},
		{admin, "POST", dev + "1/?op=format", "fstype=ext4", 409, "Cannot format block device because the machine is not Ready or Allocated."},
	})
	become(t, e, "abc123", storage.StatusDeployed, &e.User.User.ID)
	run(t, []step{
		{admin, "PUT", dev + "1/", "name=sdz&block_size=4096&size=1G", 200, `"block_size": 512`},
		{admin, "GET", dev + "sdz/", "", 200, `"size": 10000000000`},
		{admin, "PUT", dev + "1/", "name=sda&id_path=&model=&serial=", 400, "serial/model are required"},
		{admin, "DELETE", dev + "1/", "", 409, ""},
	})
	become(t, e, "abc123", storage.StatusReady, nil)
	run(t, []step{
		{admin, "PUT", dev + "sdz/", "name=sda&block_size=4096&numa_node=0", 200, `"block_size": 4096`},
		{admin, "PUT", dev + "sda/", "partition_table_type=MBR", 400, "Block device has no partition table"},
		{admin, "PUT", dev + "sda/", "partition_table_type=APM", 400, "Select a valid choice. APM"},
		{admin, "PUT", dev + "sda/", "name=sdb", 400, "already exists."},
		{admin, "POST", dev + "sda/?op=add_tag", "", 400, "No provided tag!"},
		{admin, "POST", dev + "sda/?op=add_tag", "tag=", 400, "No provided tag!"},
		{admin, "POST", dev + "sda/?op=add_tag", "tag=fast", 200, `"tags": [ "fast" ]`},
		{admin, "POST", dev + "sda/?op=add_tag", "tag=fast", 200, `"tags": [ "fast" ]`},
		{user, "POST", dev + "sda/?op=remove_tag", "tag=fast", 403, ""},
		{admin, "POST", dev + "sda/?op=remove_tag", "tag=fast", 200, `"tags": []`},
		{user, "POST", dev + "sdb/?op=format", "fstype=ext4", 403, "you don't have the permissions on a Ready machine"},
		{admin, "POST", dev + "sda/?op=format", "fstype=ext4", 400, "Cannot place filesystem directly on the boot disk."},
		{admin, "POST", dev + "sdb/?op=format", "fstype=FAT16", 400, `"fstype": [ "Select a valid choice. FAT16 is not one of the available choices." ]`},
		{admin, "POST", dev + "sdb/?op=format", "fstype=tmpfs", 400, "Virtual filesystems must be mounted."},
		{admin, "POST", dev + "sdb/?op=format", "fstype=ext4&uuid=1234", 400, `"uuid": [ "Enter a valid value." ]`},
		{admin, "POST", dev + "sdb/?op=unformat", "", 400, "Block device is not formatted."},
		{admin, "POST", dev + "sdb/?op=unmount", "", 400, "Block device is not formatted."},
		{admin, "POST", dev + "sdb/?op=mount", "mount_point=/srv", 400, "Cannot mount an unformatted partition or block device."},
		{admin, "POST", dev + "sdb/?op=format", "fstype=ext4&label=data&uuid=12345678-1234-4234-8234-123456789abc", 200, `"used_for": "Unmounted ext4 formatted filesystem"`},
		{admin, "POST", dev + "sdb/?op=unmount", "", 400, "Filesystem is already unmounted."},
		{admin, "POST", dev + "sdb/?op=mount", "", 400, `"mount_point": [ "This field is required." ]`},
		{admin, "POST", dev + "sdb/?op=mount", "mount_point=srv", 400, `"mount_point": [ "Enter a valid value." ]`},
		{admin, "POST", dev + "sdb/?op=mount", "mount_point=/srv&mount_options=noatime", 200, `"used_for": "ext4 formatted filesystem mounted at /srv"`},
		{admin, "POST", dev + "sdb/?op=unformat", "", 400, "Filesystem is mounted and cannot be unformatted. Unmount the filesystem before unformatting the block device."},
		{admin, "POST", "machines/abc123/?op=mount_special", "fstype=tmpfs&mount_point=/srv", 400, "Another filesystem is already mounted at /srv."},
		{admin, "POST", dev + "sdb/partitions/", "", 400, `"block_device"`},
		{admin, "POST", dev + "sdb/?op=unmount", "", 200, `"mount_point": null`},
		{admin, "POST", dev + "sdb/?op=format", "fstype=swap", 200, `"fstype": "swap"`},
		{admin, "POST", dev + "sdb/?op=mount", "", 200, `"mount_point": "none"`},
		{admin, "POST", dev + "sdb/?op=unmount", "", 200, ""},
		{admin, "POST", dev + "sdb/?op=set_boot_disk", "", 200, "OK"}, // the file system over all of it goes
		{admin, "GET", dev + "sdb/", "", 200, `"filesystem": null`},
		{admin, "GET", "machines/abc123/", "", 200, `"boot_disk": { "resource_uri": "/MAAS/api/2.0/nodes/abc123/blockdevices/2/"`},
		{admin, "POST", dev + "3/?op=set_boot_disk", "", 404, ""},
		{admin, "DELETE", dev + "sdb/", "", 204, ""},
		{admin, "GET", "machines/abc123/", "", 200, `"boot_disk": { "resource_uri": "/MAAS/api/2.0/nodes/abc123/blockdevices/1/"`},
	})
}

func TestPartitions(t *testing.T) {
	e := servertest.New(t)
	admin, user := e.Admin, e.User
	addMachine(t, e, "abc123", storage.StatusNew)
	addDisks(t, e, "abc123", "10G", "6T")
	const parts = "nodes/abc123/blockdevices/sda/partitions/"
	const part = "nodes/abc123/blockdevices/sda/partition/"
	run(t, []step{
		{admin, "POST", parts, "size=1G", 409, "Cannot create partition because the node is not Ready."},
		{user, "POST", parts, "size=1G", 403, ""},
		{user, "GET", parts, "", 200, "[]"},
	})
	become(t, e, "abc123", storage.StatusReady, nil)
	run(t, []step{
		{admin, "POST", parts, "size=1000", 400, `"size": [ "Ensure this value is greater than or equal to 4194304." ]`},
		{admin, "POST", parts, "size=11G", 400, `"size": [ "Ensure this value is less than or equal to 10000000000." ]`},
		{admin, "POST", parts, "size=10G", 400, `"size": [ "Partition cannot be saved; not enough free space on the block device." ]`},
		{admin, "POST", parts, "size=1000000000&bootable=true", 200, `"path": "/dev/disk/by-dname/sda-part2"`}, // 1 is the boot loader's
		{admin, "POST", parts, "size=1G&uuid=12345678-1234-4234-8234-123456789abc", 200, `"uuid": "12345678-1234-4234-8234-123456789abc"`},
		{admin, "POST", parts, "", 200, `"size": 7994343424`},
		{admin, "POST", parts, "", 400, "not enough free space"},
		{user, "GET", part + "sda-part2", "", 200, `"bootable": true`},
		{user, "GET", "nodes/abc123/blockdevices/1/partitions/1", "", 200, `"size": 998244352`},
		{user, "GET", "nodes/abc123/blockdevices/sdb/partition/1", "", 404, "No Partition matches the given query."},
		{user, "GET", "nodes/abc123/blockdevices/sda/", "", 200, `"used_for": "GPT partitioned with 3 partitions"`},
		{user, "GET", "nodes/abc123/blockdevices/sda/", "", 200, `"available_size": 0, "used_size": 9997123584`},
		{admin, "POST", "nodes/abc123/blockdevices/sda/?op=format", "fstype=ext4", 400, "Cannot format block device with a partition table."},
		{admin, "POST", part + "sda-part2?op=format", "fstype=FAT16", 400, "FAT16"},
		{admin, "POST", part + "sda-part2?op=unmount", "", 400, "Partition is not formatted."},
		{admin, "POST", part + "sda-part2?op=unformat", "", 400, "Partition is not formatted."},
		{admin, "POST", part + "sda-part2?op=format", "fstype=ext4&label=root", 200, `"label": "root"`},
		{admin, "POST", part + "sda-part2?op=mount", "mount_point=/", 200, "ext4 formatted filesystem mounted at /"},
		{admin, "POST", part + "sda-part3?op=format", "fstype=xfs", 200, ""},
		{admin, "POST", part + "sda-part3?op=mount", "mount_point=/", 400, "Another filesystem is already mounted at /."},
		{admin, "POST", part + "sda-part2?op=add_tag", "tag=a", 200, `"tags": [ "a" ]`},
		{user, "POST", part + "sda-part2?op=add_tag", "tag=b", 403, ""},
		{admin, "POST", part + "sda-part2?op=remove_tag", "tag=a", 200, `"tags": []`},
		{admin, "PUT", "nodes/abc123/blockdevices/sda/", "size=5G", 400, "The partitions of sda need"},
		{user, "DELETE", part + "sda-part2", "", 403, ""},
		{admin, "DELETE", part + "sda-part2", "", 204, ""},
		{user, "GET", part + "sda-part2", "", 200, `"fstype": "xfs"`}, // they move up
		{user, "GET", part + "sda-part4", "", 404, ""},
		// An MBR has no partition for the boot loader, and number 4 is the extended one.
		{admin, "PUT", "nodes/abc123/blockdevices/sda/", "partition_table_type=MBR", 200, "/dev/disk/by-dname/sda-part1"},
		{admin, "DELETE", part + "sda-part1", "", 204, ""},
		{admin, "DELETE", part + "sda-part1", "", 204, ""},
		{user, "GET", "nodes/abc123/blockdevices/sda/", "", 200, `"partition_table_type": null`},
	})
	for i, want := range []int{2, 3, 4, 5} {
		var p api.Partition
		admin.Post(parts, "size", "1G").Into(t, &p)
		if !strings.HasSuffix(p.Path, fmt.Sprintf("-part%d", want)) {
			t.Errorf("partition %d is %s", i, p.Path)
		}
	}
	run(t, []step{
		{admin, "PUT", "nodes/abc123/blockdevices/sda/", "partition_table_type=MBR", 200, "sda-part5"},
		{admin, "DELETE", part + "sda-part2", "", 204, ""},
		{user, "GET", part + "sda-part3", "", 200, ""},
		{user, "GET", part + "sda-part5", "", 404, ""},
		{admin, "POST", parts, "", 200, "sda-part5"},
		{admin, "POST", "nodes/abc123/blockdevices/sdb/partitions/", "size=1G", 200, ""},
		{admin, "PUT", "nodes/abc123/blockdevices/sdb/", "partition_table_type=MBR", 200, ""},
		{admin, "POST", "nodes/abc123/blockdevices/sdb/partitions/", "size=3T", 400, "size is larger than the MBR 2TiB maximum."},
		{admin, "POST", "nodes/abc123/blockdevices/sdb/partitions/", "", 200, `"size": 2199019061248`},
	})
	// The owner of an allocated machine changes its file systems; that ends with the allocation.
	become(t, e, "abc123", storage.StatusReady, nil)
	run(t, []step{{admin, "POST", part + "sda-part1?op=format", "fstype=ext4", 200, ""}, {admin, "POST", part + "sda-part1?op=mount", "mount_point=/", 200, ""}})
	become(t, e, "abc123", storage.StatusAllocated, &user.User.ID)
	run(t, []step{
		{user, "GET", part + "sda-part1", "", 200, `"mount_point": "/"`},
		{user, "POST", part + "sda-part1?op=unmount", "", 200, ""},
		{user, "POST", part + "sda-part1?op=unformat", "", 200, `"filesystem": null`},
		{user, "POST", part + "sda-part2?op=format", "fstype=ext4", 200, `"fstype": "ext4"`},
		{user, "POST", part + "sda-part2?op=mount", "mount_point=/", 200, `"mount_point": "/"`},
		{user, "POST", "machines/abc123/?op=mount_special", "fstype=tmpfs&mount_point=/run/x&mount_option=size=1G", 200, `"mount_options": "size=1G"`},
		{user, "POST", parts, "size=1G", 403, ""},
		{admin, "POST", parts, "size=1G", 409, ""},
	})
	other := e.AddUser(t, "other", false)
	run(t, []step{{other, "POST", part + "sda-part1?op=format", "fstype=ext4", 403, ""}})
	become(t, e, "abc123", storage.StatusReady, nil)
	run(t, []step{
		{user, "GET", part + "sda-part1", "", 200, `"mount_point": "/"`},
		{user, "GET", part + "sda-part2", "", 200, `"filesystem": null`},
		{user, "GET", "machines/abc123/", "", 200, `"special_filesystems": []`},
	})
}

func TestSpecialFilesystems(t *testing.T) {
	e := servertest.New(t)
	addMachine(t, e, "abc123", storage.StatusReady)
	const m = "machines/abc123/"
	run(t, []step{
		{e.Admin, "POST", m + "?op=mount_special", "", 400, `"fstype": [ "This field is required." ], "mount_point": [ "This field is required." ]`},
		{e.Admin, "POST", m + "?op=mount_special", "fstype=ext4&mount_point=/x", 400, "Select a valid choice. ext4 is not one of the available choices."},
		{e.Admin, "POST", m + "?op=mount_special", "fstype=tmpfs&mount_point=x", 400, `"mount_point": [ "Enter a valid value." ]`},
		{e.Admin, "POST", m + "?op=mount_special", "fstype=tmpfs&mount_point=/x", 200, `"special_filesystems": [ { "fstype": "tmpfs"`},
		{e.Admin, "POST", m + "?op=mount_special", "fstype=ramfs&mount_point=/x", 400, "Another filesystem is already mounted at /x."},
		{e.Admin, "POST", m + "?op=unmount_special", "mount_point=/y", 400, "No special filesystem is mounted at this path."},
		{e.Admin, "POST", m + "?op=unmount_special", "mount_point=/x", 200, `"special_filesystems": []`},
	})
	become(t, e, "abc123", storage.StatusNew, nil)
	run(t, []step{
		{e.Admin, "POST", m + "?op=mount_special", "fstype=tmpfs&mount_point=/x", 409, "Cannot mount the filesystem because the machine is not Ready or Allocated."},
		{e.Admin, "POST", m + "?op=unmount_special", "mount_point=/x", 409, "Cannot unmount the filesystem"},
	})
}
