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
			planned := map[string]api.DiskPlan{}
			for _, d := range task.Install.Disks {
				planned[d.Disk.Name] = d
			}
			partitioned := 0
			for _, d := range m.BlockdeviceSet {
				plan, ok := planned[d.Name]
				if len(d.Partitions) == 0 {
					if ok {
						t.Errorf("the disk %s is shown without partitions, and would be written", d.Name)
					}
					continue
				}
				partitioned++
				if !ok || plan.Disk.Size != d.Size || plan.Disk.Serial != *d.Serial || plan.Boot != (d.ID == m.BootDisk.ID) || *d.PartitionTableType != "GPT" {
					t.Errorf("disk %s: shown %+v, planned %+v", d.Name, d, plan.Disk)
				}
				made := map[string]string{}
				for _, p := range plan.Partitions {
					if p.Flag == "bios_grub" {
						if firmware != "pxe" || !plan.Boot || p.Number != 1 || p.FSType != "" {
							t.Errorf("a place for GRUB: %+v", p)
						}
						continue // the one thing that MAAS does not show
					}
					fs := p.FSType
					if fs == "vfat" {
						fs = "fat32"
					}
					made[fmt.Sprintf("%s-part%d", d.Path, p.Number)] = fmt.Sprintln(p.Size, p.UUID, fs, p.FSUUID, p.Label, p.MountPoint, p.Options)
				}
				text := func(s *string) string {
					if s == nil {
						return ""
					}
					return *s
				}
				for _, p := range d.Partitions {
					var f api.Filesystem
					if p.Filesystem != nil {
						f = *p.Filesystem
					}
					want := fmt.Sprintln(p.Size, text(p.UUID), f.Fstype, text(f.UUID), text(f.Label), text(f.MountPoint), text(f.MountOptions))
					if made[p.Path] != want {
						t.Errorf("%s: shown\n%splanned\n%s", p.Path, want, made[p.Path])
					}
					delete(made, p.Path)
				}
				if len(made) > 0 {
					t.Errorf("planned and not shown: %v", made)
				}
			}
			if partitioned != 2 || len(planned) != 2 {
				t.Errorf("%d disks with partitions, %d planned", partitioned, len(planned))
			}
		})
	}
}

// What the agent cannot make is refused before anything changes; nothing else is installed in its place.
func TestUninstallableStorage(t *testing.T) {
	e := servertest.New(t, withDrivers)
	deployable(t, e, "abc123", "pxe")
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
	deploy("There are currently no storage devices. Please add a storage device to be able to deploy this node.")
	addDisks(t, e, "abc123", "20G", "20G", "20G")
	deploy("Mount the root '/' filesystem to be able to deploy this node.")
	ok := func(steps ...step) { t.Helper(); run(t, steps) }
	ok(step{e.Admin, "POST", op, "storage_layout=lvm", 200, ""})
	deploy("The installer does not make volume groups yet: vgroot.")
	ok(step{e.Admin, "POST", dev + "sdb/?op=add_tag", "tag=ssd", 200, ""}, step{e.Admin, "POST", op, "storage_layout=bcache", 200, ""})
	deploy("The installer does not make Bcaches yet: bcache0.")
	ok(step{e.Admin, "POST", "nodes/abc123/blockdevices/sda/partition/sda-part2?op=unmount", "", 200, ""})
	deploy("This node cannot be deployed because it cannot boot from a bcache volume.")
	ok(step{e.Admin, "POST", op, "storage_layout=vmfs6", 200, ""})
	deploy("does not support VMFS6.")
	ok(step{e.Admin, "POST", op, "storage_layout=flat", 200, ""}, step{e.Admin, "POST", "nodes/abc123/raids/", "level=raid-1&block_devices=sdb&block_devices=sdc", 200, ""})
	deploy("The installer does not make RAIDs yet: md0.")
	ok(step{e.Admin, "POST", op, "storage_layout=flat", 200, ""}, step{e.Admin, "POST", dev + "sdb/?op=format", "fstype=ext4", 200, ""})
	deploy("The installer does not make filesystems without a partition yet: sdb.")
	ok(step{e.Admin, "POST", dev + "sdb/?op=unformat", "", 200, ""}, step{e.Admin, "POST", m + "?op=mount_special", "fstype=tmpfs&mount_point=/x", 200, ""})
	deploy("The installer does not make special filesystems yet: /x.")
	ok(step{e.Admin, "POST", m + "?op=unmount_special", "mount_point=/x", 200, ""}, step{e.Admin, "PUT", dev + "sda/", "partition_table_type=MBR", 200, ""})
	deploy("The installer does not make MBR partition tables yet: sda.")
	root := "nodes/abc123/blockdevices/sda/partition/sda-part2"
	ok(step{e.Admin, "PUT", dev + "sda/", "partition_table_type=GPT", 200, ""}, step{e.Admin, "POST", root + "?op=format", "fstype=xfs", 200, ""},
		step{e.Admin, "POST", root + "?op=mount", "mount_point=/", 200, ""})
	deploy("The installer does not make xfs filesystems yet: sda-part2.")
	ok(step{e.Admin, "POST", root + "?op=format", "fstype=ext4&label=-L", 200, ""}, step{e.Admin, "POST", root + "?op=mount", "mount_point=/", 200, ""})
	deploy(`begins with a dash`)
	ok(step{e.Admin, "POST", root + "?op=format", "fstype=ext4", 200, ""}, step{e.Admin, "POST", root + "?op=mount", "mount_point=/&mount_options=a b", 200, ""})
	deploy("characters that fstab has no room for")
	ok(step{e.Admin, "POST", root + "?op=mount", "mount_point=/", 200, ""}, step{e.Admin, "POST", m + "?op=deploy", "distro_series=custom/debian", 200, `"status_name": "Deploying"`})
}
