package storage_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/ingot-metal/ingot/storage"
	"github.com/ingot-metal/ingot/storage/storagetest"
)

func change(t *testing.T, db *storage.DB, fn func(tx *storage.Tx) error) {
	t.Helper()
	if err := db.Write(context.Background(), fn); err != nil {
		t.Fatal(err)
	}
}

func ip(s string) netip.Addr { return netip.MustParseAddr(s) }

// aNode is a node with what the schema requires.
func aNode(name string) *storage.Node {
	return &storage.Node{SystemID: name, Hostname: "host-" + name, DomainID: storage.DefaultDomainID, ZoneID: storage.DefaultZoneID}
}

func aSubnet(cidr, first, last string) *storage.Subnet {
	return &storage.Subnet{VLANID: storage.DefaultVLANID, Name: cidr, CIDR: cidr, FirstIP: ip(first), LastIP: ip(last), RDNSMode: 2, Managed: true}
}

func TestCatalogue(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		change(t, db, func(tx *storage.Tx) error {
			for _, n := range []string{"zulu", "Alpha"} {
				if err := tx.InsertZone(&storage.Zone{Name: n}); err != nil {
					return err
				}
			}
			zones, err := tx.Zones()
			if err != nil {
				return err
			}
			var names []string
			for _, z := range zones {
				names = append(names, z.Name)
			}
			if !slices.Equal(names, []string{"Alpha", "default", "zulu"}) {
				t.Errorf("zones %v", names)
			}
			z, err := tx.ZoneByName("zulu")
			if err != nil {
				return err
			}
			z.Description = "far"
			if err := tx.UpdateZone(&z); err != nil {
				return err
			}
			n := aNode("aaaaaa")
			n.ZoneID = z.ID
			if err := tx.InsertNode(n); err != nil {
				return err
			}
			if err := tx.DeleteZone(z.ID, storage.DefaultZoneID); err != nil {
				return err
			}
			got, err := tx.NodeByID(n.ID)
			if err != nil {
				return err
			}
			if got.ZoneID != storage.DefaultZoneID {
				t.Errorf("the node of a deleted zone is in zone %d", got.ZoneID)
			}
			if _, err := tx.Zone(z.ID); !errors.Is(err, storage.ErrNotFound) {
				t.Errorf("a deleted zone: %v", err)
			}
			if err := tx.UpdateZone(&z); !errors.Is(err, storage.ErrNotFound) {
				t.Errorf("update of a deleted zone: %v", err)
			}
			return nil
		})
		err := db.Write(t.Context(), func(tx *storage.Tx) error { return tx.InsertPool(&storage.Pool{Name: "default"}) })
		if !errors.Is(err, storage.ErrConflict) {
			t.Errorf("a second pool of one name: %v", err)
		}
	})
}

func TestTags(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		change(t, db, func(tx *storage.Tx) error {
			a, b := aNode("aaaaaa"), aNode("bbbbbb")
			tag := &storage.Tag{Name: "fast", KernelOpts: "nosmt"}
			other := &storage.Tag{Name: "blue"}
			for _, err := range []error{tx.InsertNode(a), tx.InsertNode(b), tx.InsertTag(tag), tx.InsertTag(other)} {
				if err != nil {
					return err
				}
			}
			ids, err := tx.NodeIDs([]string{"aaaaaa", "nobody", "bbbbbb"})
			if err != nil || len(ids) != 2 || ids["aaaaaa"] != a.ID {
				t.Fatalf("NodeIDs = %v, %v", ids, err)
			}
			added, err := tx.AddNodeTags(tag.ID, []int64{a.ID, b.ID, a.ID})
			if err != nil || len(added) != 2 {
				t.Fatalf("added %v, %v", added, err)
			}
			if _, err := tx.AddNodeTags(other.ID, []int64{a.ID}); err != nil {
				return err
			}
			removed, err := tx.RemoveNodeTags(tag.ID, []int64{b.ID, b.ID})
			if err != nil || !slices.Equal(removed, []int64{b.ID}) {
				t.Fatalf("removed %v, %v", removed, err)
			}
			for _, ids := range [][]int64{nil, {a.ID, b.ID}} {
				tags, err := tx.NodeTags(ids)
				if err != nil {
					return err
				}
				if len(tags) != 1 || len(tags[a.ID]) != 2 || tags[a.ID][0].Name != "blue" || tags[a.ID][1].KernelOpts != "nosmt" {
					t.Errorf("NodeTags(%v) = %v", ids, tags)
				}
			}
			if err := tx.DeleteTag(tag.ID); err != nil {
				return err
			}
			left, err := tx.NodeTags([]int64{a.ID})
			if len(left[a.ID]) != 1 {
				t.Errorf("after the deletion of a tag: %v", left)
			}
			return err
		})
	})
}

func TestNetworks(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		change(t, db, func(tx *storage.Tx) error {
			f := &storage.Fabric{}
			if err := tx.InsertFabric(f); err != nil {
				return err
			}
			if want := fmt.Sprintf("fabric-%d", f.ID); f.Name != want || f.ID == 0 {
				t.Errorf("fabric %d is called %s", f.ID, f.Name)
			}
			sp := &storage.Space{}
			if err := tx.InsertSpace(sp); err != nil {
				return err
			}
			v := &storage.VLAN{FabricID: f.ID, VID: 7, MTU: 9000, SpaceID: &sp.ID}
			if err := tx.InsertVLAN(v); err != nil {
				return err
			}
			if v.ID <= storage.DefaultVLANID {
				t.Errorf("VLAN ids start at 5001, the second is %d", v.ID)
			}
			sn := aSubnet("2001:db8::/64", "2001:db8::", "2001:db8::ffff:ffff:ffff:ffff")
			gw := "2001:db8::1"
			sn.VLANID, sn.GatewayIP, sn.DNSServers, sn.DisabledBootArchitectures = v.ID, &gw, []string{"2001:db8::53"}, []string{"pxe"}
			if err := tx.InsertSubnet(sn); err != nil {
				return err
			}
			got, err := tx.Subnet(sn.ID)
			if err != nil {
				return err
			}
			if got.FirstIP != sn.FirstIP || got.LastIP != sn.LastIP || *got.GatewayIP != gw || len(got.DNSServers) != 1 || !got.Managed || got.AllowDNS {
				t.Errorf("subnet came back as %+v", got)
			}
			subnets, nics, err := tx.FabricUse(f.ID)
			if err != nil || subnets != 1 || nics != 0 {
				t.Errorf("FabricUse = %d, %d, %v", subnets, nics, err)
			}
			r := &storage.IPRange{SubnetID: sn.ID, Type: "dynamic", StartIP: ip("2001:db8::100"), EndIP: ip("2001:db8::1ff")}
			if err := tx.InsertIPRange(r); err != nil {
				return err
			}
			if err := tx.DeleteSpace(sp.ID); err != nil {
				return err
			}
			after, err := tx.VLAN(v.ID)
			if err != nil || after.SpaceID != nil {
				t.Errorf("the VLAN of a deleted space: %v, %v", after.SpaceID, err)
			}
			if err := tx.PutLease(&storage.Lease{IP: ip("2001:db8::101"), MAC: "52:54:00:00:00:01", SubnetID: sn.ID, Expires: tx.Now().Add(time.Hour)}); err != nil {
				return err
			}
			if err := tx.DeleteSubnet(sn.ID); err != nil {
				return err
			}
			ranges, err := tx.IPRanges(nil)
			if err != nil || len(ranges) != 0 {
				t.Errorf("ranges of a deleted subnet: %v, %v", ranges, err)
			}
			leases, err := tx.LeasesIn(nil)
			if err != nil || len(leases) != 0 {
				t.Errorf("leases of a deleted subnet: %v, %v", leases, err)
			}
			return tx.DeleteVLAN(v.ID, storage.DefaultVLANID)
		})
		err := db.Write(t.Context(), func(tx *storage.Tx) error {
			return tx.InsertVLAN(&storage.VLAN{FabricID: storage.DefaultFabricID, VID: 0, MTU: 1500})
		})
		if !errors.Is(err, storage.ErrConflict) {
			t.Errorf("a second VLAN 0 in a fabric: %v", err)
		}
	})
}

func TestAddresses(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		n, sn := aNode("aaaaaa"), aSubnet("10.0.0.0/24", "10.0.0.0", "10.0.0.255")
		nic := &storage.Interface{Name: "eth0", MACAddress: "52:54:00:00:00:01", Enabled: true, Tags: []string{"x"}}
		auto := &storage.IPAddress{AllocType: storage.AllocAuto}
		change(t, db, func(tx *storage.Tx) error {
			if err := errors.Join(tx.InsertNode(n), tx.InsertSubnet(sn)); err != nil {
				return err
			}
			nic.NodeID = n.ID
			if err := tx.InsertInterface(nic); err != nil {
				return err
			}
			auto.InterfaceID, auto.SubnetID = &nic.ID, &sn.ID
			if err := tx.InsertIPAddress(auto); err != nil {
				return err
			}
			if err := tx.ClaimIP(auto.ID, ip("10.0.0.7")); err != nil {
				return err
			}
			if err := tx.ClaimIP(auto.ID, ip("10.0.0.8")); !errors.Is(err, storage.ErrStale) {
				t.Errorf("a second claim: %v", err)
			}
			// An observation may stand beside the row that holds the address.
			if err := tx.InsertIPAddress(&storage.IPAddress{InterfaceID: &nic.ID, SubnetID: &sn.ID, IP: ip("10.0.0.7"), AllocType: storage.AllocDiscovered}); err != nil {
				return err
			}
			inside, err := tx.AddressesInside([]int64{sn.ID})
			if err != nil || len(inside) != 2 || inside[0].IP != ip("10.0.0.7") || inside[0].IPAddress.ID != auto.ID {
				t.Errorf("AddressesInside = %+v, %v", inside, err)
			}
			users, err := tx.AddressUsers(sn.FirstIP, sn.LastIP)
			if err != nil || users[auto.ID].SystemID != "aaaaaa" || users[auto.ID].Interface != "eth0" || users[auto.ID].Domain != "maas" {
				t.Errorf("AddressUsers = %+v, %v", users, err)
			}
			return nil
		})
		err := db.Write(t.Context(), func(tx *storage.Tx) error {
			return tx.InsertIPAddress(&storage.IPAddress{InterfaceID: &nic.ID, SubnetID: &sn.ID, IP: ip("10.0.0.7"), AllocType: storage.AllocSticky})
		})
		if !errors.Is(err, storage.ErrConflict) {
			t.Errorf("an address given twice: %v", err)
		}
		change(t, db, func(tx *storage.Tx) error {
			all, err := tx.InterfaceBundles(nil)
			if err != nil || len(all[n.ID]) != 1 || len(all[n.ID][0].Links) != 2 || all[n.ID][0].Tags[0] != "x" {
				t.Errorf("InterfaceBundles = %+v, %v", all, err)
			}
			if k, err := tx.ReleaseIPs(n.ID); err != nil || k != 1 {
				t.Errorf("ReleaseIPs = %d, %v", k, err)
			}
			a, err := tx.IPAddress(auto.ID)
			if err != nil || a.IP.IsValid() {
				t.Errorf("after the release: %+v, %v", a, err)
			}
			return tx.DeleteInterface(nic.ID)
		})
		if err := db.Read(t.Context(), func(tx *storage.Tx) error {
			left, err := tx.IPAddressesOf(nil)
			if len(left) != 0 {
				t.Errorf("links of a deleted interface: %v", left)
			}
			return err
		}); err != nil {
			t.Fatal(err)
		}
	})
}

func TestLeases(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		change(t, db, func(tx *storage.Tx) error {
			l := storage.Lease{IP: ip("10.0.0.9"), MAC: "52:54:00:00:00:01", SubnetID: 1, Hostname: "a", Expires: tx.Now().Add(time.Hour), Given: tx.Now()}
			if err := tx.PutLease(&l); err != nil {
				return err
			}
			l.MAC, l.Hostname = "52:54:00:00:00:02", "b"
			if err := tx.PutLease(&l); err != nil {
				return err
			}
			got, err := tx.Lease(l.IP)
			if err != nil || got.MAC != l.MAC || got.Hostname != "b" || !got.Expires.Equal(l.Expires) || !got.Given.Equal(l.Given) {
				t.Errorf("lease came back as %+v, %v", got, err)
			}
			if gone, err := tx.DeleteLease(l.IP, "52:54:00:00:00:01"); err != nil || gone {
				t.Errorf("the lease of somebody else: %v, %v", gone, err)
			}
			if gone, err := tx.DeleteLease(l.IP, l.MAC); err != nil || !gone {
				t.Errorf("DeleteLease = %v, %v", gone, err)
			}
			return nil
		})
	})
}

func TestBootResources(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		change(t, db, func(tx *storage.Tx) error {
			r := &storage.BootResource{Rtype: storage.ResourceUploaded, Name: "custom/a", Architecture: "amd64/generic"}
			if err := tx.InsertBootResource(r); err != nil {
				return err
			}
			set := &storage.BootResourceSet{ResourceID: r.ID, Version: "20260101", Label: "uploaded"}
			if err := tx.InsertBootResourceSet(set); err != nil {
				return err
			}
			f := &storage.BootResourceFile{SetID: set.ID, Filename: "root.tgz", Filetype: "root-tgz", SHA256: "ab", Size: 10}
			if err := tx.InsertBootResourceFile(f); err != nil {
				return err
			}
			if err := tx.AdvanceUpload(f.ID, 0, 4, false); err != nil {
				return err
			}
			if err := tx.AdvanceUpload(f.ID, 0, 4, false); !errors.Is(err, storage.ErrStale) {
				t.Errorf("the same piece twice: %v", err)
			}
			if err := tx.AdvanceUpload(f.ID, 4, 10, true); err != nil {
				return err
			}
			if err := tx.AdvanceUpload(f.ID, 10, 12, true); !errors.Is(err, storage.ErrStale) {
				t.Errorf("a piece after the end: %v", err)
			}
			got, err := tx.BootResourceFiles([]int64{r.ID})
			if err != nil || len(got) != 1 || !got[0].Complete || got[0].Uploaded != 10 || string(got[0].Extra) != "{}" {
				t.Errorf("files %+v, %v", got, err)
			}
			if err := tx.DeleteBootResource(r.ID); err != nil {
				return err
			}
			if _, err := tx.BootResourceFile(f.ID); !errors.Is(err, storage.ErrNotFound) {
				t.Errorf("a file of a deleted resource: %v", err)
			}
			return nil
		})
	})
}
