package storagetest

import (
	"context"
	"fmt"
	"net/netip"
	"testing"

	"github.com/ingot-metal/ingot/storage"
)

// Fleet fills a store with Ready machines that have all that real ones have: two interfaces with links, a disk with a layout, a
// tag, hardware facts, results and an event. Benchmarks and tests of lists stand on it.
func Fleet(t testing.TB, db *storage.DB, count int) {
	t.Helper()
	FleetOf(t, db, count, 2, 1)
}

// FleetOf is Fleet with so many interfaces and disks a machine.
func FleetOf(t testing.TB, db *storage.DB, count, nics, disks int) {
	t.Helper()
	if err := Fill(context.Background(), db, count, nics, disks); err != nil {
		t.Fatal(err)
	}
}

// Fill is FleetOf for those who are no test. The first disk carries the system; the others are unused, hdd and ssd in turn, and different
// in size. The first interface has the tag uplink.
func Fill(ctx context.Context, db *storage.DB, count, nics, disks int) error {
	facts := map[string]string{}
	for _, k := range []string{"system_vendor", "system_product", "system_family", "system_version", "system_sku", "system_serial", "cpu_model",
		"mainboard_vendor", "mainboard_product", "mainboard_serial", "mainboard_version", "mainboard_firmware_vendor", "mainboard_firmware_date",
		"mainboard_firmware_version", "chassis_vendor", "chassis_type", "chassis_serial", "chassis_version"} {
		facts[k] = "a value of " + k
	}
	gw := "10.99.0.1"
	sn := storage.Subnet{VLANID: storage.DefaultVLANID, Name: "fleet", CIDR: "10.99.0.0/16", FirstIP: netip.MustParseAddr("10.99.0.0"),
		LastIP: netip.MustParseAddr("10.99.255.255"), GatewayIP: &gw, RDNSMode: 2, AllowDNS: true, Managed: true}
	if err := db.Write(ctx, func(tx *storage.Tx) error { return tx.InsertSubnet(&sn) }); err != nil {
		return err
	}
	for from := 0; from < count; from += 500 {
		err := db.Write(ctx, func(tx *storage.Tx) error {
			for i := from; i < min(from+500, count); i++ {
				if err := fleetMachine(tx, i, nics, disks, sn.ID, facts); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func fleetMachine(tx *storage.Tx, i, nics, disks int, subnet int64, facts map[string]string) error {
	pool, vlan := storage.DefaultPoolID, storage.DefaultVLANID
	n := storage.Node{SystemID: fmt.Sprintf("n%05x", i), Hostname: fmt.Sprintf("machine-%d", i), Status: storage.StatusReady, ZoneID: storage.DefaultZoneID,
		DomainID: storage.DefaultDomainID, PoolID: &pool, Architecture: "amd64/generic", CPUCount: int64(4 + i%60), Memory: int64(8192 * (1 + i%32)),
		PowerType: "ipmi", PowerState: "off", PowerChecked: tx.Now(), Netboot: true}
	if err := tx.InsertNode(&n); err != nil {
		return err
	}
	for j := range nics {
		nic := storage.Interface{NodeID: n.ID, Name: fmt.Sprintf("eth%d", j), VLANID: &vlan, Enabled: true, LinkConnected: true,
			MACAddress: fmt.Sprintf("02:%02x:00:%02x:%02x:%02x", j, i>>16&0xff, i>>8&0xff, i&0xff)}
		if j == 0 {
			nic.Tags = []string{"uplink"}
		}
		if err := tx.InsertInterface(&nic); err != nil {
			return err
		}
		a := storage.IPAddress{InterfaceID: &nic.ID, SubnetID: &subnet, AllocType: storage.AllocAuto}
		if j == 1 {
			a.AllocType, a.IP = storage.AllocSticky, netip.AddrFrom4([4]byte{10, 99, byte(10 + i>>8), byte(i)})
		}
		if err := tx.InsertIPAddress(&a); err != nil {
			return err
		}
	}
	d := storage.BlockDevice{NodeID: n.ID, Name: "sda", Type: "physical", Size: 1 << 40, BlockSize: 512, PartitionTable: "GPT", Tags: []string{"ssd"}}
	if err := tx.InsertBlockDevice(&d); err != nil {
		return err
	}
	p := storage.Partition{BlockDeviceID: d.ID, Number: 2, UUID: fmt.Sprintf("00000000-0000-4000-8000-%012x", i), Size: 1 << 39}
	if err := tx.InsertPartition(&p); err != nil {
		return err
	}
	root, label := "/", "root"
	if err := tx.InsertFilesystem(&storage.Filesystem{NodeID: n.ID, PartitionID: &p.ID, Fstype: "ext4", MountPoint: &root, Label: &label}); err != nil {
		return err
	}
	for j := 1; j < disks; j++ {
		more := storage.BlockDevice{NodeID: n.ID, Name: fmt.Sprintf("sd%c", 'a'+j), Type: "physical", Size: int64(1+(i+j)%16) << 36, BlockSize: 512,
			Tags: []string{[]string{"ssd", "hdd"}[j%2], "sata"}}
		if err := tx.InsertBlockDevice(&more); err != nil {
			return err
		}
	}
	if err := tx.SetNodeMetadata(n.ID, facts); err != nil {
		return err
	}
	if err := tx.TagNode(n.ID, "virtual"); err != nil {
		return err
	}
	if _, err := tx.InsertScriptSet(n.ID, storage.SetCommissioning, "50-maas-01-commissioning"); err != nil {
		return err
	}
	return tx.InsertEvent(&storage.Event{NodeID: &n.ID, SystemID: n.SystemID, Type: "READY", Level: 20})
}
