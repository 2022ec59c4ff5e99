package storage_test

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/ingot-metal/ingot/storage"
	"github.com/ingot-metal/ingot/storage/storagetest"
)

func TestReservations(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		var a, b *storage.Subnet
		change(t, db, func(tx *storage.Tx) error {
			a, b = aSubnet("10.0.0.0/24", "10.0.0.0", "10.0.0.255"), aSubnet("10.1.0.0/24", "10.1.0.0", "10.1.0.255")
			if err := tx.InsertSubnet(a); err != nil {
				return err
			}
			if err := tx.InsertSubnet(b); err != nil {
				return err
			}
			x := &storage.ReservedIP{SubnetID: a.ID, IP: ip("10.0.0.9"), MAC: "52:54:00:00:00:01"}
			if err := tx.InsertReservedIP(x); err != nil {
				return err
			}
			for _, bad := range []storage.ReservedIP{{SubnetID: a.ID, IP: ip("10.0.0.9"), MAC: "52:54:00:00:00:02"}, {SubnetID: a.ID, IP: ip("10.0.0.10"), MAC: "52:54:00:00:00:01"}} {
				if err := tx.Savepoint(func() error { return tx.InsertReservedIP(&bad) }); !errors.Is(err, storage.ErrConflict) {
					t.Errorf("%+v: %v", bad, err)
				}
			}
			x.Comment = "c"
			if err := tx.UpdateReservedIP(x); err != nil {
				return err
			}
			got, err := tx.ReservedIP(x.ID)
			if err != nil || got != *x {
				t.Errorf("read back %+v, %v", got, err)
			}
			if l, err := tx.ReservedIPsOf([]string{"52:54:00:00:00:01", "52:54:00:00:00:09"}); err != nil || len(l) != 1 {
				t.Errorf("of a MAC address %+v, %v", l, err)
			}
			if l, err := tx.ReservedIPsOf(nil); err != nil || len(l) != 0 {
				t.Errorf("of nobody %+v, %v", l, err)
			}
			if l, err := tx.ReservedIPs([]int64{b.ID}); err != nil || len(l) != 0 {
				t.Errorf("in another subnet %+v, %v", l, err)
			}
			// What a user reserved for a MAC address counts as well; what has none does not.
			for _, r := range []storage.IPAddress{{SubnetID: &b.ID, IP: ip("10.1.0.5"), AllocType: storage.AllocUserReserved, MAC: "52:54:00:00:00:03"},
				{SubnetID: &b.ID, IP: ip("10.1.0.6"), AllocType: storage.AllocUserReserved}} {
				if err := tx.InsertIPAddress(&r); err != nil {
					return err
				}
			}
			fixed, err := tx.FixedAddresses()
			if err != nil || len(fixed) != 2 || fixed[0] != (storage.FixedAddress{MAC: "52:54:00:00:00:01", IP: ip("10.0.0.9"), SubnetID: a.ID}) || fixed[1].IP != ip("10.1.0.5") {
				t.Errorf("fixed %+v, %v", fixed, err)
			}
			held, err := tx.HeldAddresses(storage.AddressFilter{IP: ip("10.1.0.5")})
			if err != nil || len(held) != 1 || held[0].MAC != "52:54:00:00:00:03" {
				t.Errorf("held %+v, %v", held, err)
			}
			reserved, discovered := int64(storage.AllocUserReserved), int64(storage.AllocDiscovered)
			for want, f := range map[int]storage.AddressFilter{2: {AllocType: &reserved}, 0: {AllocType: &discovered}} {
				if l, err := tx.HeldAddresses(f); err != nil || len(l) != want {
					t.Errorf("%+v: %d, %v", f, len(l), err)
				}
			}
			if l, err := tx.HeldAddresses(storage.AddressFilter{Not: &reserved}); err != nil || len(l) != 0 {
				t.Errorf("others %+v, %v", l, err)
			}
			return nil
		})
		change(t, db, func(tx *storage.Tx) error {
			r := &storage.StaticRoute{SourceID: a.ID, DestinationID: b.ID, GatewayIP: ip("10.0.0.254"), Metric: 3}
			if err := tx.InsertStaticRoute(r); err != nil {
				return err
			}
			twice := *r
			if err := tx.Savepoint(func() error { return tx.InsertStaticRoute(&twice) }); !errors.Is(err, storage.ErrConflict) {
				t.Errorf("the same route: %v", err)
			}
			r.Metric = 4
			if err := tx.UpdateStaticRoute(r); err != nil {
				return err
			}
			if got, err := tx.StaticRoute(r.ID); err != nil || got != *r {
				t.Errorf("read back %+v, %v", got, err)
			}
			// A subnet takes its routes and reservations with it.
			if err := tx.DeleteSubnet(a.ID); err != nil {
				return err
			}
			routes, err := tx.StaticRoutes()
			kept, kerr := tx.ReservedIPs(nil)
			if err != nil || kerr != nil || len(routes) != 0 || len(kept) != 0 {
				t.Errorf("left %+v %+v, %v %v", routes, kept, err, kerr)
			}
			return nil
		})
	})
}

func TestSnippetsAndNeighbours(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		change(t, db, func(tx *storage.Tx) error {
			n := aNode("aaaaaa")
			if err := tx.InsertNode(n); err != nil {
				return err
			}
			x := &storage.DHCPSnippet{Name: "s", Enabled: true, NodeID: &n.ID}
			if err := tx.InsertDHCPSnippet(x); err != nil {
				return err
			}
			var ids []int64
			for _, v := range []string{"one", "two", "three"} {
				row := &storage.DHCPSnippetValue{SnippetID: x.ID, Value: v}
				if err := tx.InsertSnippetValue(row); err != nil {
					return err
				}
				ids = append(ids, row.ID)
			}
			x.Enabled, x.Description = false, "d"
			if err := tx.UpdateDHCPSnippet(x); err != nil {
				return err
			}
			if err := tx.DeleteSnippetValuesAfter(x.ID, ids[1]); err != nil {
				return err
			}
			values, err := tx.SnippetValues()
			if err != nil || len(values) != 2 || values[1].Value != "two" {
				t.Errorf("values %+v, %v", values, err)
			}
			got, err := tx.DHCPSnippets()
			if err != nil || len(got) != 1 || got[0].Enabled || got[0].Description != "d" || *got[0].NodeID != n.ID {
				t.Errorf("snippets %+v, %v", got, err)
			}
			if err := tx.DeleteDHCPSnippet(x.ID); err != nil {
				return err
			}
			if values, err := tx.SnippetValues(); err != nil || len(values) != 0 {
				t.Errorf("values of a deleted snippet: %+v, %v", values, err)
			}

			at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
			vlan := storage.DefaultVLANID
			see := func(addr, mac, name string, when time.Time) {
				if err := tx.PutNeighbour(storage.Neighbour{IP: ip(addr), MAC: mac, VLANID: &vlan, Hostname: name, LastSeen: when}); err != nil {
					t.Error(err)
				}
			}
			see("10.0.0.1", "52:54:00:00:00:01", "a", at)
			see("10.0.0.1", "52:54:00:00:00:01", "", at.Add(time.Hour))      // the name stays
			see("10.0.0.1", "52:54:00:00:00:01", "old", at.Add(time.Minute)) // an older sight changes nothing
			see("10.0.0.2", "52:54:00:00:00:02", "", at.Add(2*time.Hour))
			see("10.0.0.3", "52:54:00:00:00:03", "", at)
			if err := tx.InsertInterface(&storage.Interface{NodeID: n.ID, Name: "eth0", MACAddress: "52:54:00:00:00:03"}); err != nil {
				return err
			}
			list, err := tx.UnknownNeighbours()
			if err != nil || len(list) != 2 || list[0].IP != ip("10.0.0.2") || list[1].Hostname != "a" || !list[1].LastSeen.Equal(at.Add(time.Hour)) {
				t.Errorf("neighbours %+v, %v", list, err)
			}
			if n, err := tx.PurgeNeighbours(at.Add(90 * time.Minute)); err != nil || n != 2 {
				t.Errorf("purged %d, %v", n, err)
			}
			if there, err := tx.DeleteNeighbour(ip("10.0.0.2"), "52:54:00:00:00:02"); err != nil || !there {
				t.Errorf("deleted %v, %v", there, err)
			}
			if there, err := tx.DeleteNeighbour(ip("10.0.0.2"), "52:54:00:00:00:02"); err != nil || there {
				t.Errorf("deleted twice %v, %v", there, err)
			}
			return nil
		})
	})
}

func TestInterfaceParents(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		change(t, db, func(tx *storage.Tx) error {
			n := aNode("aaaaaa")
			if err := tx.InsertNode(n); err != nil {
				return err
			}
			ids := map[string]int64{}
			for i, name := range []string{"eno2", "eno1", "bond0"} {
				kind := "physical"
				if name == "bond0" {
					kind = "bond"
				}
				nic := &storage.Interface{NodeID: n.ID, Name: name, Type: kind, MACAddress: "52:54:00:00:00:0" + string(rune('0'+i)), Acquired: name == "bond0"}
				if name == "bond0" {
					nic.Params = []byte(`{"mtu": 9000}`)
				}
				if err := tx.InsertInterface(nic); err != nil {
					return err
				}
				ids[name] = nic.ID
			}
			if err := tx.SetInterfaceParents(ids["bond0"], []int64{ids["eno2"], ids["eno1"], ids["eno2"]}); err != nil {
				return err
			}
			b, err := tx.LoadMachine("aaaaaa")
			if err != nil {
				return err
			}
			all, err := tx.InterfaceBundles([]int64{n.ID})
			if err != nil {
				return err
			}
			for _, list := range [][]*storage.InterfaceBundle{b.Interfaces, all[n.ID]} {
				member, bond := list[0], list[2]
				if !bond.Acquired || !slices.Equal(bond.Parents, []string{"eno1", "eno2"}) || len(bond.Below) != 2 || len(member.Above) != 1 || member.Above[0] != bond {
					t.Errorf("family %+v %+v", bond, member)
				}
				if m := member.EffectiveMTU(b.Cat); m != 9000 {
					t.Errorf("effective MTU %d", m)
				}
			}
			if err := tx.SetInterfaceParents(ids["bond0"], []int64{ids["eno1"]}); err != nil {
				return err
			}
			pairs, err := tx.InterfaceParents([]int64{n.ID})
			if err != nil || len(pairs) != 1 || pairs[0] != [2]int64{ids["bond0"], ids["eno1"]} {
				t.Errorf("parents %v, %v", pairs, err)
			}
			return nil
		})
	})
}
