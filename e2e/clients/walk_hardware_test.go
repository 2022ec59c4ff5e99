package clients

import (
	"fmt"
	"slices"

	"github.com/canonical/gomaasclient/entity"
)

func walkInterfaces(w *walk, id string) {
	lab := find(w, "the lab's subnet", get[[]entity.Subnet](w, "Subnets.Get"), func(s entity.Subnet) bool { return s.Name == "lab" })
	fabric := lab.VLAN.FabricID
	v := get[*entity.VLAN](w, "VLANs.Create", fabric, &entity.VLANParams{VID: 30, Name: "walk-nics"})
	sub := get[*entity.Subnet](w, "Subnets.Create", &entity.SubnetParams{CIDR: "10.92.0.0/24", Name: "walk-nics", VLAN: fmt.Sprint(v.ID), GatewayIP: "10.92.0.1", Managed: true})
	nics := get[[]entity.NetworkInterface](w, "NetworkInterfaces.Get", id)
	boot := nics[0]

	var parents []int
	for i := range 2 {
		mac := fmt.Sprintf("52:54:00:92:0A:%02x", i)
		p := get[*entity.NetworkInterface](w, "NetworkInterfaces.CreatePhysical", id, &entity.NetworkInterfacePhysicalParams{Name: fmt.Sprintf("eth%d", i+1), MACAddress: mac, VLAN: lab.VLAN.ID,
			MTU: 1500, Tags: "one,two", Enabled: true, LinkSpeed: 10000, InterfaceSpeed: 10000, LinkConnected: true})
		slices.Sort(p.Tags)
		equal(w, "interface", []any{p.Name, p.MACAddress, p.EffectiveMTU, p.Tags, p.VLAN.ID, p.Type, p.Enabled, p.LinkSpeed, p.SystemID},
			[]any{fmt.Sprintf("eth%d", i+1), mac, 1500, []string{"one", "two"}, lab.VLAN.ID, "physical", true, 10000, id})
		parents = append(parents, p.ID)
	}
	bond := get[*entity.NetworkInterface](w, "NetworkInterfaces.CreateBond", id, &entity.NetworkInterfaceBondParams{Name: "bond0", Parents: parents, MACAddress: "52:54:00:92:0A:00", VLAN: lab.VLAN.ID,
		BondMode: "802.3ad", BondMiimon: 100, BondUpDelay: 200, BondDownDelay: 300, BondLACPRate: "fast", BondXMitHashPolicy: "layer3+4", BondNumberGratARP: 2, MTU: 1500, Tags: "b"})
	slices.Sort(bond.Parents)
	equal(w, "bond", []any{bond.Name, bond.Type, bond.Parents, bond.MACAddress}, []any{"bond0", "bond", []string{"eth1", "eth2"}, "52:54:00:92:0A:00"})
	params, _ := bond.Params.(map[string]any)
	equal(w, "bond's parameters", []any{params["bond_mode"], params["bond_miimon"], params["bond_updelay"], params["bond_downdelay"], params["bond_lacp_rate"], params["bond_xmit_hash_policy"], params["bond_num_grat_arp"]},
		[]any{"802.3ad", 100.0, 200.0, 300.0, "fast", "layer3+4", 2.0})
	vlan := get[*entity.NetworkInterface](w, "NetworkInterfaces.CreateVLAN", id, &entity.NetworkInterfaceVLANParams{Parents: []int{bond.ID}, VLAN: v.ID, Tags: "v", MTU: 1500})
	equal(w, "VLAN interface", []any{vlan.Name, vlan.Type, vlan.VLAN.VID, vlan.Parents}, []any{"bond0.30", "vlan", 30, []string{"bond0"}})
	br := get[*entity.NetworkInterface](w, "NetworkInterfaces.CreateBridge", id, &entity.NetworkInterfaceBridgeParams{Name: "br0", Parents: []int{vlan.ID}, VLAN: v.ID, BridgeType: "standard", BridgeFD: 15, BridgeSTP: true,
		MACAddress: "52:54:00:92:0A:00"})
	params, _ = br.Params.(map[string]any)
	equal(w, "bridge", []any{br.Name, br.Type, br.Parents, params["bridge_type"], params["bridge_fd"], params["bridge_stp"]}, []any{"br0", "bridge", []string{"bond0.30"}, "standard", 15.0, true})

	up := get[*entity.NetworkInterface](w, "NetworkInterface.Update", id, bond.ID, &entity.NetworkInterfaceUpdateParams{Name: "bond9", BondMode: "active-backup", BondMiimon: 50, MTU: 1400, Enabled: true})
	params, _ = up.Params.(map[string]any)
	equal(w, "bond after update", []any{up.Name, params["bond_mode"], params["bond_miimon"], params["mtu"]}, []any{"bond9", "active-backup", 50.0, 1400.0})

	// maas_network_interface_link: the answer's only link is the new one.
	w.do("NetworkInterface.Disconnect", id, br.ID)
	l := get[*entity.NetworkInterface](w, "NetworkInterface.LinkSubnet", id, br.ID, &entity.NetworkInterfaceLinkParams{Mode: "STATIC", Subnet: sub.ID, IPAddress: "10.92.0.9", DefaultGateway: true})
	equal(w, "link", []any{len(l.Links), l.Links[0].Mode, l.Links[0].IPAddress, l.Links[0].Subnet.ID}, []any{1, "static", "10.92.0.9", sub.ID})
	m := get[*entity.Machine](w, "Machine.ClearDefaultGateways", id)
	get[*entity.NetworkInterface](w, "NetworkInterface.SetDefaultGateway", id, br.ID, l.Links[0].ID)
	m = get[*entity.Machine](w, "Machine.Get", m.SystemID)
	equal(w, "default gateway", []any{m.DefaultGateways.IPv4.GatewayIP.String(), m.DefaultGateways.IPv4.LinkID}, []any{"10.92.0.1", l.Links[0].ID})
	w.refused(400, "", "NetworkInterface.SetDefaultGateway", id, boot.ID, 99999)
	w.do("NetworkInterface.UnlinkSubnet", id, br.ID, l.Links[0].ID)
	n := get[*entity.NetworkInterface](w, "NetworkInterface.AddTag", id, br.ID, "tagged")
	equal(w, "tags", n.Tags, []string{"tagged"})
	n = get[*entity.NetworkInterface](w, "NetworkInterface.RemoveTag", id, br.ID, "tagged")
	equal(w, "tags", len(n.Tags), 0)
	equal(w, "interface read", get[*entity.NetworkInterface](w, "NetworkInterface.Get", id, br.ID).Name, "br0")

	w.do("NetworkInterface.Delete", id, br.ID)
	w.refused(404, "", "NetworkInterface.Get", id, br.ID)

	// Everything as commissioning found it.
	w.do("Machine.RestoreNetworkingConfiguration", id)
	equal(w, "interfaces", len(get[[]entity.NetworkInterface](w, "NetworkInterfaces.Get", id)), len(nics))
	equal(w, "boot interface's subnet", get[*entity.NetworkInterface](w, "NetworkInterface.Get", id, boot.ID).Links[0].Subnet.ID, lab.ID)
	w.do("Subnet.Delete", sub.ID)
	w.do("VLAN.Delete", fabric, 30)
}

const gib = int64(1) << 30

func walkStorage(w *walk, id string) {
	disk := func(i int) string {
		b := get[*entity.BlockDevice](w, "BlockDevices.Create", id, &entity.BlockDeviceParams{Name: fmt.Sprintf("sd%c", 'b'+i), Model: "Walk", Serial: fmt.Sprintf("W%d", i), Size: 10 * gib, BlockSize: 512})
		equal(w, "disk", []any{b.Name, b.Model, b.Serial, b.Size, b.BlockSize, b.Type, b.SystemID}, []any{fmt.Sprintf("sd%c", 'b'+i), "Walk", fmt.Sprintf("W%d", i), 10 * gib, 512, "physical", id})
		return fmt.Sprint(b.ID)
	}
	num := func(s string) (n int) {
		fmt.Sscan(s, &n)
		return n
	}
	sdb := num(disk(0))
	find(w, "disk", get[[]entity.BlockDevice](w, "BlockDevices.Get", id), func(b entity.BlockDevice) bool { return b.ID == sdb })
	up := get[*entity.BlockDevice](w, "BlockDevice.Update", id, sdb, &entity.BlockDeviceParams{Name: "sdz", IDPath: "/dev/disk/by-id/walk", Size: 12 * gib, BlockSize: 512})
	equal(w, "disk after update", []any{up.Name, up.IDPath, up.Size}, []any{"sdz", "/dev/disk/by-id/walk", 12 * gib})
	equal(w, "tag", get[*entity.BlockDevice](w, "BlockDevice.AddTag", id, sdb, "fast").Tags, []string{"fast"})
	equal(w, "no tag", len(get[*entity.BlockDevice](w, "BlockDevice.RemoveTag", id, sdb, "fast").Tags), 0)
	b := get[*entity.BlockDevice](w, "BlockDevice.Format", id, sdb, "ext4")
	equal(w, "file system", b.Filesystem.FSType, "ext4")
	b = get[*entity.BlockDevice](w, "BlockDevice.Mount", id, sdb, "/srv", "noatime")
	equal(w, "mount", []string{b.Filesystem.MountPoint, b.Filesystem.MountOptions}, []string{"/srv", "noatime"})
	equal(w, "unmounted", get[*entity.BlockDevice](w, "BlockDevice.Unmount", id, sdb).Filesystem.MountPoint, "")
	equal(w, "unformatted", get[*entity.BlockDevice](w, "BlockDevice.Unformat", id, sdb).Filesystem.FSType, "")

	p := get[*entity.BlockDevicePartition](w, "BlockDevicePartitions.Create", id, sdb, &entity.BlockDevicePartitionParams{Size: 2 * gib, Bootable: true})
	equal(w, "partition", []any{p.Size, p.Bootable, p.DeviceID, p.SystemID}, []any{2 * gib, true, sdb, id})
	equal(w, "partitions", len(get[[]entity.BlockDevicePartition](w, "BlockDevicePartitions.Get", id, sdb)), 1)
	equal(w, "partition read", get[*entity.BlockDevicePartition](w, "BlockDevicePartition.Get", id, sdb, p.ID).Path, p.Path)
	equal(w, "tag", get[*entity.BlockDevicePartition](w, "BlockDevicePartition.AddTag", id, sdb, p.ID, "t").Tags, []string{"t"})
	equal(w, "no tag", len(get[*entity.BlockDevicePartition](w, "BlockDevicePartition.RemoveTag", id, sdb, p.ID, "t").Tags), 0)
	p = get[*entity.BlockDevicePartition](w, "BlockDevicePartition.Format", id, sdb, p.ID, "xfs", "data")
	equal(w, "file system", []string{p.FileSystem.FSType, p.FileSystem.Label}, []string{"xfs", "data"})
	p = get[*entity.BlockDevicePartition](w, "BlockDevicePartition.Mount", id, sdb, p.ID, "/data", "nodev")
	equal(w, "mount", []string{p.FileSystem.MountPoint, p.FileSystem.MountOptions}, []string{"/data", "nodev"})
	equal(w, "unmounted", get[*entity.BlockDevicePartition](w, "BlockDevicePartition.Unmount", id, sdb, p.ID).FileSystem.MountPoint, "")
	equal(w, "unformatted", get[*entity.BlockDevicePartition](w, "BlockDevicePartition.Unformat", id, sdb, p.ID).FileSystem.FSType, "")
	w.do("BlockDevicePartition.Delete", id, sdb, p.ID)
	w.refused(404, "", "BlockDevicePartition.Get", id, sdb, p.ID)

	w.do("BlockDevice.SetBootDisk", id, sdb)
	equal(w, "boot disk", get[*entity.Machine](w, "Machine.Get", id).BootDisk.ID, sdb)
	first := find(w, "vda", get[[]entity.BlockDevice](w, "BlockDevices.Get", id), func(b entity.BlockDevice) bool { return b.Name == "vda" })
	w.do("BlockDevice.SetBootDisk", id, first.ID)

	// RAID 1 of two with a spare, the spare taken out again.
	d := []string{disk(1), disk(2), disk(3), disk(4)}
	r := get[*entity.RAID](w, "RAIDs.Create", id, &entity.RAIDCreateParams{Name: "md0", Level: "raid-1", BlockDevices: d[:2], SpareDevices: d[2:3]})
	equal(w, "RAID", []any{r.Name, r.Level, len(r.Devices), len(r.SpareDevices), r.VirtualDevice.Name, r.SystemID}, []any{"md0", "raid-1", 2, 1, "md0", id})
	r = get[*entity.RAID](w, "RAID.Update", id, r.ID, &entity.RAIDUpdateParams{Name: "md1", RemoveSpareDevices: d[2:3]})
	equal(w, "RAID after update", []any{r.Name, len(r.SpareDevices)}, []any{"md1", 0})
	equal(w, "RAID read", get[*entity.RAID](w, "RAID.Get", id, r.ID).Name, "md1")
	equal(w, "RAIDs", len(get[[]entity.RAID](w, "RAIDs.Get", id)), 1)

	// A volume group on it, with a volume.
	g := get[*entity.VolumeGroup](w, "VolumeGroups.Create", id, &entity.VolumeGroupCreateParams{Name: "vg0", BlockDevices: []string{fmt.Sprint(r.VirtualDevice.ID)}})
	equal(w, "volume group", []any{g.Name, g.SystemID, g.UsedSize}, []any{"vg0", id, int64(0)})
	g = get[*entity.VolumeGroup](w, "VolumeGroup.Update", id, g.ID, &entity.VolumeGroupUpdateParams{Name: "vg1", AddBlockDevices: d[2:3]})
	equal(w, "volume group after update", []any{g.Name, len(g.Devices.([]any))}, []any{"vg1", 2})
	lv := get[*entity.BlockDevice](w, "VolumeGroup.CreateLogicalVolume", id, g.ID, &entity.LogicalVolumeParams{Name: "lv0", Size: 2 * gib})
	equal(w, "volume", []any{lv.Name, lv.Size, lv.UUID != ""}, []any{"vg1-lv0", 2 * gib, true})
	g = get[*entity.VolumeGroup](w, "VolumeGroup.Get", id, g.ID)
	equal(w, "volumes", []any{len(g.LogicalVolumes), g.UsedSize}, []any{1, 2 * gib})
	equal(w, "volume groups", len(get[[]entity.VolumeGroup](w, "VolumeGroups.Get", id)), 1)
	w.do("VolumeGroup.DeleteLogicalVolume", id, g.ID, lv.ID)
	w.do("VolumeGroup.Delete", id, g.ID)
	w.refused(404, "", "VolumeGroup.Get", id, g.ID)
	w.do("RAID.Delete", id, r.ID)
	w.refused(404, "", "RAID.Get", id, r.ID)

	cs := get[*entity.BCacheCacheSet](w, "BCacheCacheSets.Create", id, &entity.BCacheCacheSetParams{CacheDevice: d[0]})
	equal(w, "cache set", []any{cs.SystemID, fmt.Sprint(cs.CacheDevice.ID)}, []any{id, d[0]})
	cs = get[*entity.BCacheCacheSet](w, "BCacheCacheSet.Update", id, cs.ID, &entity.BCacheCacheSetParams{CacheDevice: d[3]})
	equal(w, "cache set read", fmt.Sprint(get[*entity.BCacheCacheSet](w, "BCacheCacheSet.Get", id, cs.ID).CacheDevice.ID), d[3])
	equal(w, "cache sets", len(get[[]entity.BCacheCacheSet](w, "BCacheCacheSets.Get", id)), 1)
	bc := get[*entity.BCache](w, "BCaches.Create", id, &entity.BCacheParams{Name: "bcache0", CacheSet: fmt.Sprint(cs.ID), BackingDevice: d[1], CacheMode: "writeback"})
	equal(w, "bcache", []any{bc.Name, bc.CacheMode, fmt.Sprint(bc.BackingDevice.ID), bc.CacheSet.ID, bc.VirtualDevice.Name}, []any{"bcache0", "writeback", d[1], cs.ID, "bcache0"})
	get[*entity.BCache](w, "BCache.Update", id, bc.ID, &entity.BCacheParams{Name: "bcache1", CacheMode: "writethrough"})
	back := get[*entity.BCache](w, "BCache.Get", id, bc.ID)
	equal(w, "bcache read", []string{back.Name, back.CacheMode}, []string{"bcache1", "writethrough"})
	equal(w, "bcaches", len(get[[]entity.BCache](w, "BCaches.Get", id)), 1)
	w.refused(400, "", "BCacheCacheSet.Delete", id, cs.ID)
	w.do("BCache.Delete", id, bc.ID)
	w.do("BCacheCacheSet.Delete", id, cs.ID)
	w.refused(404, "", "BCacheCacheSet.Get", id, cs.ID)

	for _, x := range d {
		w.do("BlockDevice.Delete", id, num(x))
	}
	w.do("BlockDevice.Delete", id, sdb)
	w.refused(404, "", "BlockDevice.Get", id, sdb)
	w.do("Machine.RestoreStorageConfiguration", id)
	w.do("Machine.RestoreDefaultConfiguration", id)
	equal(w, "disks", len(get[[]entity.BlockDevice](w, "BlockDevices.Get", id)), 1)
}
