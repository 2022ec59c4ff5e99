package machines

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/canonical/gomaasclient/entity"

	"github.com/ingot-metal/ingot/api"
	"github.com/ingot-metal/ingot/api/client"
	"github.com/ingot-metal/ingot/lab/qemu"
)

// lvm asks for MAAS's own layout of that name: a volume group over the boot disk, a logical volume for the root.
func (s *site) lvm(m *entity.Machine) {
	c, err := client.New(client.Config{URL: "http://" + apiAddr + "/MAAS", APIKey: s.key})
	if err != nil {
		s.t.Fatal(err)
	}
	if _, err := c.MachineSetStorageLayout(s.t.Context(), api.MachineSetStorageLayoutParams{SystemID: m.SystemID, StorageLayout: "lvm"}); err != nil {
		s.t.Fatal(err)
	}
}

// mirrored builds a root on a RAID 1 over both disks, by hand as Terraform does, with an EFI system partition on either: the machine must
// start from each of them.
func (s *site) mirrored(m *entity.Machine) {
	c, err := client.New(client.Config{URL: "http://" + apiAddr + "/MAAS", APIKey: s.key})
	if err != nil {
		s.t.Fatal(err)
	}
	if _, err := c.MachineSetStorageLayout(s.t.Context(), api.MachineSetStorageLayoutParams{SystemID: m.SystemID, StorageLayout: "blank"}); err != nil {
		s.t.Fatal(err)
	}
	must := func(p *entity.BlockDevicePartition, err error) *entity.BlockDevicePartition {
		s.t.Helper()
		if err != nil {
			s.t.Fatal(err)
		}
		return p
	}
	var members []string
	for i, d := range m.PhysicalBlockDeviceSet {
		esp := must(s.BlockDevicePartitions.Create(m.SystemID, d.ID, &entity.BlockDevicePartitionParams{Size: 256 << 20, Bootable: true}))
		must(s.BlockDevicePartition.Format(m.SystemID, d.ID, esp.ID, "fat32", "efi"))
		if i == 0 {
			must(s.BlockDevicePartition.Mount(m.SystemID, d.ID, esp.ID, "/boot/efi", ""))
		}
		member := must(s.BlockDevicePartitions.Create(m.SystemID, d.ID, &entity.BlockDevicePartitionParams{Size: 3 << 30}))
		members = append(members, strconv.Itoa(member.ID))
	}
	raid, err := s.RAIDs.Create(m.SystemID, &entity.RAIDCreateParams{Name: "md0", Level: "raid-1", Partitions: members})
	if err != nil {
		s.t.Fatal(err)
	}
	if _, err := s.BlockDevice.Format(m.SystemID, raid.VirtualDevice.ID, "ext4"); err != nil {
		s.t.Fatal(err)
	}
	if _, err := s.BlockDevice.Mount(m.SystemID, raid.VirtualDevice.ID, "/", ""); err != nil {
		s.t.Fatal(err)
	}
}

// device is a row of lsblk --json, with what lies on it.
type device struct {
	Name       string   `json:"name"`
	Type       string   `json:"type"`
	Size       int64    `json:"size"`
	FSType     *string  `json:"fstype"`
	UUID       *string  `json:"uuid"`
	PartUUID   *string  `json:"partuuid"`
	Serial     *string  `json:"serial"`
	MountPoint *string  `json:"mountpoint"`
	Children   []device `json:"children"`
}

func text(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

// sameStorage holds what the API shows of a machine's storage to what the deployed system has: each partition by its identity and size on
// the disk with that serial number, each file system by its UUID, type and mount point, in lsblk and in /etc/fstab.
func (s *site) sameStorage(vm *qemu.Machine, m *entity.Machine, ip string) {
	s.t.Helper()
	var out struct {
		Devices []device `json:"blockdevices"`
	}
	listing := s.ssh(vm, ip, "sudo lsblk --json --bytes --output NAME,TYPE,SIZE,FSTYPE,UUID,PARTUUID,SERIAL,MOUNTPOINT", patience)
	if err := json.Unmarshal([]byte(listing), &out); err != nil {
		s.t.Fatalf("lsblk: %v: %s", err, listing)
	}
	fstab := s.ssh(vm, ip, "cat /etc/fstab", patience)
	type place struct {
		device
		serial string
	}
	partitions, filesystems := map[string]place{}, map[string]place{}
	var walk func(d device, serial string)
	walk = func(d device, serial string) {
		if d.Serial != nil && *d.Serial != "" {
			serial = *d.Serial
		}
		if d.PartUUID != nil && d.Type == "part" {
			partitions[strings.ToLower(*d.PartUUID)] = place{d, serial}
		}
		if d.UUID != nil {
			filesystems[strings.ToLower(*d.UUID)] = place{d, serial}
		}
		for _, c := range d.Children {
			walk(c, serial)
		}
	}
	for _, d := range out.Devices {
		walk(d, "")
	}
	checked := 0
	filesystem := func(where string, size int64, f entity.PartitionFileSystem) {
		if f.FSType == "" || f.UUID == "" || f.FSType == "raid" || strings.HasPrefix(f.FSType, "lvm") || strings.HasPrefix(f.FSType, "bcache") {
			return
		}
		checked++
		got, ok := filesystems[strings.ToLower(f.UUID)]
		want := map[string]string{"fat32": "vfat"}[f.FSType]
		if want == "" {
			want = f.FSType
		}
		if !ok || text(got.FSType) != want || text(got.MountPoint) != f.MountPoint || size != 0 && got.Size != size {
			s.t.Errorf("%s: the API shows %s %s of %d bytes at %q, the machine has %+v", where, f.FSType, f.UUID, size, f.MountPoint, got)
		}
		if f.MountPoint != "" && !strings.Contains(fstab, " "+f.MountPoint+" "+want+" ") {
			s.t.Errorf("%s: fstab has no %s at %s:\n%s", where, want, f.MountPoint, fstab)
		}
	}
	for _, d := range m.BlockDeviceSet {
		if d.Type == "virtual" { // LVM rounds to extents and RAID keeps its metadata: the size is that of the device, not the file system's
			filesystem(d.Name, 0, d.Filesystem)
		} else {
			filesystem(d.Name, d.Size, d.Filesystem)
		}
		for _, p := range d.Partitions {
			checked++
			got, ok := partitions[strings.ToLower(p.UUID)]
			if !ok || got.Size != p.Size || d.Type != "virtual" && got.serial != d.Serial {
				s.t.Errorf("%s: the API shows partition %s of %d bytes on disk %s, the machine has %+v", d.Name, p.UUID, p.Size, d.Serial, got)
			}
			filesystem(fmt.Sprintf("%s, partition %s", d.Name, p.UUID), p.Size, p.FileSystem)
		}
	}
	if checked < 2 { // a partition and what lies on it
		s.t.Errorf("only %d things to compare in %+v", checked, m.BlockDeviceSet)
	}
	if s.t.Failed() {
		s.t.Logf("lsblk says\n%s\nfstab says\n%s", listing, fstab)
	}
}
