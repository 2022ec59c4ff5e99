package provisioner

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/ingot-metal/ingot/provisioner/layout"
	"github.com/ingot-metal/ingot/storage"
	"github.com/ingot-metal/ingot/storage/storagetest"
)

func TestClone(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		x := newSite(t, db)
		src, dst, third := x.ready("uefi"), x.ready("uefi"), x.ready("uefi")
		ctx := x.as(x.admin)
		if _, err := x.s.SetStorageLayout(ctx, src, "lvm", layout.Options{}); err != nil {
			t.Fatal(err)
		}
		// A bond with a fixed address, and a VLAN on top of it.
		from := x.get(src)
		x.write(func(tx *storage.Tx) error {
			vlan := storage.VLAN{FabricID: storage.DefaultFabricID, VID: 7, MTU: 1500}
			if err := tx.InsertVLAN(&vlan); err != nil {
				return err
			}
			base := storage.DefaultVLANID
			bond := storage.Interface{NodeID: from.Node.ID, Name: "bond0", Type: "bond", MACAddress: from.Interfaces[0].MACAddress, VLANID: &base, Enabled: true,
				Params: []byte(`{"bond_mode":"active-backup"}`)}
			if err := tx.InsertInterface(&bond); err != nil {
				return err
			}
			if err := tx.SetInterfaceParents(bond.ID, []int64{from.Interfaces[0].ID}); err != nil {
				return err
			}
			tagged := storage.Interface{NodeID: from.Node.ID, Name: "bond0.7", Type: "vlan", MACAddress: bond.MACAddress, VLANID: &vlan.ID, Enabled: true}
			if err := tx.InsertInterface(&tagged); err != nil {
				return err
			}
			if err := tx.SetInterfaceParents(tagged.ID, []int64{bond.ID}); err != nil {
				return err
			}
			ip, err := pickAddress(tx, x.sn.ID)
			if err != nil {
				return err
			}
			return tx.InsertIPAddress(&storage.IPAddress{InterfaceID: &bond.ID, SubnetID: &x.sn.ID, IP: ip, AllocType: storage.AllocSticky, DefaultGateway: true})
		})
		if err := x.s.CloneMachines(ctx, CloneRequest{Source: src, Destinations: []string{dst, third}, Storage: true, Interfaces: true}); err != nil {
			t.Fatal(err)
		}
		from = x.get(src)
		seen := map[string]bool{}
		for _, id := range []string{src, dst, third} {
			b := x.get(id)
			if len(b.Groups) != 1 || len(b.Groups[0].Members) != 1 || len(b.Groups[0].Devices) != 1 || b.Groups[0].Name != from.Groups[0].Name {
				t.Fatalf("%s: groups %+v", id, b.Groups)
			}
			lv := b.Groups[0].Devices[0]
			if lv.Filesystem == nil || deref(lv.Filesystem.MountPoint, "") != "/" || lv.NodeID != b.Node.ID {
				t.Errorf("%s: logical volume %+v", id, lv)
			}
			var names []string
			for _, i := range b.Interfaces {
				names = append(names, i.Name+"<"+strings.Join(i.Parents, ","))
				if i.MACAddress != b.Interfaces[0].MACAddress {
					t.Errorf("%s: %s has another machine's address", id, i.Name)
				}
				if i.Name != "bond0" {
					continue
				}
				if len(i.Links) != 1 || !i.Links[0].IP.IsValid() || !i.Links[0].DefaultGateway || string(i.Params) != string(from.Interfaces[1].Params) {
					t.Errorf("%s: bond %+v %s", id, i.Links, i.Params)
				}
			}
			if !slices.Equal(names, []string{"ens3<", "bond0<ens3", "bond0.7<bond0"}) {
				t.Errorf("%s: interfaces %v", id, names)
			}
			for _, v := range append([]string{b.Groups[0].UUID}, ipsOf(b)...) {
				if seen[v] && v != "" {
					t.Errorf("%s shares %s", id, v)
				}
				seen[v] = true
			}
			for _, d := range b.Disks {
				for _, p := range d.Partitions {
					if seen[p.UUID] || p.Filesystem != nil && p.Filesystem.UUID != nil && seen[*p.Filesystem.UUID] {
						t.Errorf("%s shares the identity of a partition", id)
					}
					seen[p.UUID] = true
					if p.Filesystem != nil && p.Filesystem.UUID != nil {
						seen[*p.Filesystem.UUID] = true
					}
				}
			}
		}
		if _, err := x.s.Allocate(x.as(x.user), AllocateRequest{Constraints: []Pair{{"system_id", []string{third}}}}); err != nil {
			t.Fatal(err)
		}

		for name, req := range map[string]CloneRequest{
			"nothing":  {Source: src, Destinations: []string{dst}},
			"itself":   {Source: src, Destinations: []string{src}, Storage: true},
			"unknown":  {Source: src, Destinations: []string{"zzzzzz"}, Storage: true},
			"in use":   {Source: src, Destinations: []string{third}, Storage: true},
			"nowhere":  {Source: src, Storage: true},
			"from air": {Source: "zzzzzz", Destinations: []string{dst}, Storage: true},
		} {
			err := x.s.CloneMachines(ctx, req)
			if e := new(Error); !errors.As(err, &e) || e.Kind != Invalid || len(e.Fields) == 0 {
				t.Errorf("%s: %v", name, err)
			}
		}
		if err := x.s.CloneMachines(x.as(x.user), CloneRequest{Source: src, Destinations: []string{dst}, Storage: true}); kindOf(err) != Invalid {
			t.Errorf("a user clones: %v", err)
		}
		other := x.ready("bios")
		if err := x.s.CloneMachines(ctx, CloneRequest{Source: src, Destinations: []string{other}, Storage: true}); kindOf(err) != Invalid || x.get(other).Groups != nil {
			t.Errorf("onto another firmware: %v", err)
		}
	})
}
