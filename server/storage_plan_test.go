package server_test

import (
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"github.com/ingot-metal/ingot/api"
	"github.com/ingot-metal/ingot/server/servertest"
	"github.com/ingot-metal/ingot/storage"
)

// deployable makes a machine that an image can be installed on: with a network, and the image.
func deployable(t *testing.T, e *servertest.Env, systemID, bootMethod string) {
	t.Helper()
	nic := addMachine(t, e, systemID, storage.StatusReady)
	err := e.DB.Write(t.Context(), func(tx *storage.Tx) error {
		n, err := tx.Node(systemID)
		if err != nil {
			return err
		}
		n.BIOSBootMethod = &bootMethod
		if err := tx.UpdateNode(&n); err != nil {
			return err
		}
		sn := storage.Subnet{VLANID: storage.DefaultVLANID, Name: "lab", CIDR: "10.1.0.0/16", FirstIP: netip.MustParseAddr("10.1.0.0"),
			LastIP: netip.MustParseAddr("10.1.255.255"), RDNSMode: 2, AllowDNS: true, Managed: true}
		if err := tx.InsertSubnet(&sn); err != nil {
			return err
		}
		if err := tx.InsertIPAddress(&storage.IPAddress{InterfaceID: &nic.ID, SubnetID: &sn.ID, AllocType: storage.AllocAuto}); err != nil {
			return err
		}
		r := storage.BootResource{Rtype: 2, Name: "custom/debian", Architecture: "amd64/generic"}
		if err := tx.InsertBootResource(&r); err != nil {
			return err
		}
		set := storage.BootResourceSet{ResourceID: r.ID, Version: "20260101", Label: "uploaded"}
		if err := tx.InsertBootResourceSet(&set); err != nil {
			return err
		}
		return tx.InsertBootResourceFile(&storage.BootResourceFile{SetID: set.ID, Filename: "root-tgz", Filetype: "root-tgz", SHA256: strings.Repeat("ab", 32),
			Size: 1000, Uploaded: 1000, Complete: true})
	})
	if err != nil {
		t.Fatal(err)
	}
}

// What the API shows of a machine's storage is what the agent is told to make, and nothing else: each disk, partition and file system, with its
// number, size, identifiers and mount.
func TestShownIsInstalled(t *testing.T) {
	for _, firmware := range []string{"pxe", "uefi"} {
		t.Run(firmware, func(t *testing.T) {
			e := servertest.New(t, withDrivers)
			deployable(t, e, "abc123", firmware)
			addDisks(t, e, "abc123", "20G", "30G", "5G")
			dev := "nodes/abc123/blockdevices/"
			var data, swap api.Partition
			for _, a := range []servertest.Answer{e.Admin.Post("machines/abc123/?op=set_storage_layout", "storage_layout", "flat")} {
				if a.Status != 200 {
					t.Fatalf("%d %s", a.Status, a.Text())
				}
			}
			// A second disk with partitions of its own; the third stays as it is.
			e.Admin.Post(dev+"sdb/partitions/", "size", "10G").Into(t, &data)
			e.Admin.Post(dev+"sdb/partitions/", "size", "2G").Into(t, &swap)
			path := dev + fmt.Sprintf("sdb/partition/%d", data.ID)
			run(t, []step{
				{e.Admin, "POST", path + "?op=format", "fstype=ext4&label=data", 200, ""},
				{e.Admin, "POST", path + "?op=mount", "mount_point=/srv/data&mount_options=noatime,nofail", 200, ""},
				{e.Admin, "POST", dev + fmt.Sprintf("sdb/partition/%d?op=format", swap.ID), "fstype=swap", 200, ""},
				{e.Admin, "POST", dev + fmt.Sprintf("sdb/partition/%d?op=mount", swap.ID), "", 200, ""},
				{e.Admin, "POST", "machines/abc123/?op=deploy", "distro_series=custom/debian", 200, ""},
			})
			var m api.Machine
			e.Admin.Get("machines/abc123/").Into(t, &m)
			var id int64
			if err := e.DB.Read(t.Context(), func(tx *storage.Tx) error {
				n, err := tx.Node("abc123")
				id = n.ID
				return err
			}); err != nil {
				t.Fatal(err)
			}
			if _, _, err := e.P.MachineCredentials(t.Context(), "abc123"); err != nil {
				t.Fatal(err)
			}
			task, err := e.P.Task(t.Context(), id, "http://10.1.0.1:5248/MAAS/metadata/")
			if err != nil || task.Install == nil {
				t.Fatalf("%+v %v", task, err)
			}
			disks, parts, formats, mounts := map[string]api.StorageItem{}, map[string]api.StorageItem{}, map[string]api.StorageItem{}, map[string]api.StorageItem{}
			for _, it := range task.Install.Storage {
				switch it.Type {
				case api.StorageDisk:
					disks[it.ID] = it
				case api.StoragePartition:
					parts[it.ID] = it
				case api.StorageFormat:
					formats[it.Volume] = it
				case api.StorageMount:
					mounts[it.Device] = it
				}
			}
			text := func(s *string) string {
				if s == nil {
					return ""
				}
				return *s
			}
			partitioned := 0
			for _, d := range m.BlockdeviceSet {
				plan, ok := disks[d.Name]
				if len(d.Partitions) == 0 {
					if ok {
						t.Errorf("the disk %s is shown without partitions, and would be written", d.Name)
					}
					continue
				}
				partitioned++
				if !ok || plan.Disk.Size != d.Size || plan.Disk.Serial != *d.Serial || plan.Boot != (d.ID == m.BootDisk.ID) || *d.PartitionTableType != "GPT" || plan.PTable != "gpt" {
					t.Errorf("disk %s: shown %+v, planned %+v", d.Name, d, plan)
				}
				for _, p := range d.Partitions {
					var f api.Filesystem
					if p.Filesystem != nil {
						f = *p.Filesystem
					}
					id := strings.TrimPrefix(p.Path, "/dev/disk/by-dname/")
					part, fs := parts[id], formats[id]
					if fs.FSType == "vfat" {
						fs.FSType = "fat32"
					}
					made := fmt.Sprintln(part.Size, part.UUID, fs.FSType, fs.UUID, fs.Label, mounts[fs.ID].Path, mounts[fs.ID].Options)
					want := fmt.Sprintln(p.Size, text(p.UUID), f.Fstype, text(f.UUID), text(f.Label), text(f.MountPoint), text(f.MountOptions))
					if made != want {
						t.Errorf("%s: shown\n%splanned\n%s", p.Path, want, made)
					}
					delete(parts, id)
				}
			}
			for id, p := range parts { // the one thing that MAAS does not show is the place for GRUB
				if firmware != "pxe" || p.Flag != "bios_grub" || p.Number != 1 || formats[id].ID != "" {
					t.Errorf("planned and not shown: %+v", p)
				}
			}
			if partitioned != 2 || len(disks) != 2 {
				t.Errorf("%d disks with partitions, %d planned", partitioned, len(disks))
			}
		})
	}
}

// Each layout, and what else the API makes, is planned as it is shown.
func TestLayoutsArePlanned(t *testing.T) {
	e := servertest.New(t, withDrivers)
	deployable(t, e, "abc123", "uefi")
	addDisks(t, e, "abc123", "40G", "20G", "20G", "20G")
	const m, dev, op = "machines/abc123/", "nodes/abc123/blockdevices/", "machines/abc123/?op=set_storage_layout"
	for _, c := range []struct {
		name  string
		steps []step
		want  string // types of what is planned, with their names
	}{
		{"flat", []step{{e.Admin, "POST", op, "storage_layout=flat", 200, ""}}, "disk:sda partition:sda-part1 partition:sda-part2"},
		{"lvm", []step{{e.Admin, "POST", op, "storage_layout=lvm&vg_name=vg0&lv_name=root", 200, ""}},
			"disk:sda partition:sda-part1 partition:sda-part2 lvm_volgroup:vg0 lvm_partition:vg0-root"},
		{"bcache", []step{{e.Admin, "POST", dev + "sdb/?op=add_tag", "tag=ssd", 200, ""}, {e.Admin, "POST", op, "storage_layout=bcache", 200, ""}},
			"disk:sda partition:sda-part1 partition:sda-part2 partition:sda-part3 disk:sdb partition:sdb-part1 bcache:bcache0"},
		{"RAID of disks", []step{{e.Admin, "POST", op, "storage_layout=flat", 200, ""},
			{e.Admin, "POST", "nodes/abc123/raids/", "level=raid-5&name=md7&block_devices=sdb&block_devices=sdc&block_devices=sdd", 200, ""},
			{e.Admin, "POST", dev + "md7/?op=format", "fstype=xfs", 200, ""}, {e.Admin, "POST", dev + "md7/?op=mount", "mount_point=/srv", 200, ""}},
			"disk:sda partition:sda-part1 partition:sda-part2 disk:sdb disk:sdc disk:sdd raid:md7"},
		{"MBR, a file system on a disk, tmpfs", []step{{e.Admin, "POST", op, "storage_layout=flat", 200, ""}, {e.Admin, "PUT", dev + "sda/", "partition_table_type=MBR", 200, ""},
			{e.Admin, "POST", dev + "sdb/?op=format", "fstype=btrfs", 200, ""}, {e.Admin, "POST", dev + "sdb/?op=mount", "mount_point=/data", 200, ""},
			{e.Admin, "POST", m + "?op=mount_special", "fstype=tmpfs&mount_point=/t", 200, ""}},
			"disk:sda partition:sda-part1 partition:sda-part2 disk:sdb"},
	} {
		t.Run(c.name, func(t *testing.T) {
			run(t, append(c.steps, step{e.Admin, "POST", m + "?op=deploy", "distro_series=custom/debian", 200, ""}))
			var shown api.Machine
			e.Admin.Get(m).Into(t, &shown)
			var id int64
			if err := e.DB.Read(t.Context(), func(tx *storage.Tx) error {
				n, err := tx.Node("abc123")
				id = n.ID
				return err
			}); err != nil {
				t.Fatal(err)
			}
			if _, _, err := e.P.MachineCredentials(t.Context(), "abc123"); err != nil {
				t.Fatal(err)
			}
			task, err := e.P.Task(t.Context(), id, "http://10.1.0.1:5248/MAAS/metadata/")
			if err != nil || task.Install == nil {
				t.Fatalf("%+v %v", task, err)
			}
			var got []string
			planned := map[string]string{}
			for _, it := range task.Install.Storage {
				switch it.Type {
				case api.StorageFormat:
					planned[it.Volume] = it.FSType
				case api.StorageMount:
					if it.Device != "" {
						planned[strings.TrimSuffix(it.Device, "_format")] += " " + it.Path
					} else {
						planned[it.Path] = it.FSType
					}
				default:
					got = append(got, string(it.Type)+":"+it.ID)
				}
			}
			if text := strings.Join(got, " "); text != c.want {
				t.Errorf("planned %s\nwant    %s", text, c.want)
			}
			// Every file system that is shown is made, and no other.
			show := func(name string, f *api.Filesystem) {
				if f == nil || f.Fstype == "raid" || strings.HasPrefix(f.Fstype, "lvm") || strings.HasPrefix(f.Fstype, "bcache") {
					return
				}
				want := strings.Replace(f.Fstype, "fat32", "vfat", 1)
				if f.MountPoint != nil {
					want += " " + *f.MountPoint
				}
				if planned[name] != want {
					t.Errorf("%s: shown %q, planned %q", name, want, planned[name])
				}
				delete(planned, name)
			}
			for _, d := range shown.BlockdeviceSet {
				show(strings.TrimPrefix(d.Path, "/dev/disk/by-dname/"), d.Filesystem)
				for _, p := range d.Partitions {
					show(strings.TrimPrefix(p.Path, "/dev/disk/by-dname/"), p.Filesystem)
				}
			}
			if delete(planned, "/t"); len(planned) > 0 {
				t.Errorf("planned and not shown: %v", planned)
			}
			e.Admin.Post(m + "?op=abort")
			e.Admin.Post(m + "?op=release")
			if err := e.DB.Write(t.Context(), func(tx *storage.Tx) error { // whatever its power does
				_, err := tx.Exec("update nodes set status = 4, status_expires = 0, owner_id = null where system_id = 'abc123'")
				return err
			}); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// What nobody could install is refused before anything changes; nothing else is installed in its place.
func TestUninstallableStorage(t *testing.T) {
	e := servertest.New(t, withDrivers)
	deployable(t, e, "abc123", "pxe")
	addDisks(t, e, "abc123", "20G", "20G", "20G")
	const m, dev, op = "machines/abc123/", "nodes/abc123/blockdevices/", "machines/abc123/?op=set_storage_layout"
	deploy := func(want string) {
		t.Helper()
		a := e.Admin.Post(m+"?op=deploy", "distro_series", "custom/debian")
		if body := strings.Join(strings.Fields(a.Text()), " "); a.Status != http.StatusBadRequest || !strings.HasPrefix(body, `{ "storage": [ "`) || !strings.Contains(body, want) {
			t.Errorf("%d %s; want %q", a.Status, body, want)
		}
		var got api.Machine
		if e.Admin.Get(m).Into(t, &got); got.StatusName != "Ready" {
			t.Fatalf("the machine is %s", got.StatusName)
		}
	}
	deploy("Mount the root '/' filesystem to be able to deploy this node.")
	ok := func(steps ...step) { t.Helper(); run(t, steps) }
	ok(step{e.Admin, "POST", dev + "sdb/?op=add_tag", "tag=ssd", 200, ""}, step{e.Admin, "POST", op, "storage_layout=bcache", 200, ""},
		step{e.Admin, "POST", "nodes/abc123/blockdevices/sda/partition/sda-part2?op=unmount", "", 200, ""})
	deploy("This node cannot be deployed because it cannot boot from a bcache volume.")
	ok(step{e.Admin, "POST", op, "storage_layout=vmfs6", 200, ""})
	deploy("does not support VMFS6.")
	root := "nodes/abc123/blockdevices/sda/partition/sda-part2"
	ok(step{e.Admin, "POST", op, "storage_layout=flat", 200, ""}, step{e.Admin, "POST", root + "?op=format", "fstype=zfsroot", 200, ""},
		step{e.Admin, "POST", root + "?op=mount", "mount_point=/", 200, ""})
	deploy("The installer does not make ZFS pools.")
	ok(step{e.Admin, "POST", root + "?op=format", "fstype=fat32", 200, ""}, step{e.Admin, "POST", root + "?op=mount", "mount_point=/", 200, ""})
	deploy("No system starts from a root file system of type fat32.")
	ok(step{e.Admin, "POST", op, "storage_layout=flat", 200, ""}, step{e.Admin, "POST", "nodes/abc123/raids/", "level=raid-1&name=md@1&block_devices=sdb&block_devices=sdc", 200, ""})
	deploy("holds characters that its tools do not take")
	ok(step{e.Admin, "POST", op, "storage_layout=flat", 200, ""}, step{e.Admin, "POST", root + "?op=format", "fstype=ext4&label=-L", 200, ""},
		step{e.Admin, "POST", root + "?op=mount", "mount_point=/", 200, ""})
	deploy(`begins with a dash`)
	ok(step{e.Admin, "POST", root + "?op=format", "fstype=ext4", 200, ""}, step{e.Admin, "POST", root + "?op=mount", "mount_point=/&mount_options=a b", 200, ""})
	deploy("characters that fstab has no room for")
	ok(step{e.Admin, "POST", root + "?op=mount", "mount_point=/", 200, ""}, step{e.Admin, "POST", m + "?op=deploy", "distro_series=custom/debian", 200, `"status_name": "Deploying"`})
}
