package provisioner

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/ingot-metal/ingot/provisioner/layout"
	"github.com/ingot-metal/ingot/storage"
	"github.com/ingot-metal/ingot/storage/storagetest"
)

// An automatic link takes what is reserved for its MAC address; a reservation where the machine has no link fails; nobody else gets it.
func TestClaimReserved(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		w := newWorld(t, db, "10.0.0.0/29", 6)
		reserve := func(tx *storage.Tx, subnet int64, mac, ip string) error {
			return tx.InsertReservedIP(&storage.ReservedIP{SubnetID: subnet, IP: addr(ip), MAC: mac})
		}
		err := db.Write(t.Context(), func(tx *storage.Tx) error {
			other := storage.Subnet{VLANID: storage.DefaultVLANID, Name: "o", CIDR: "10.5.0.0/24", FirstIP: addr("10.5.0.0"), LastIP: addr("10.5.0.255"), Managed: true}
			if err := tx.InsertSubnet(&other); err != nil {
				return err
			}
			if err := reserve(tx, w.subnet.ID, "52:54:00:00:00:03", "10.0.0.1"); err != nil {
				return err
			}
			return reserve(tx, other.ID, "52:54:00:00:00:04", "10.5.0.9")
		})
		if err != nil {
			t.Fatal(err)
		}
		got := map[int]string{}
		for i, n := range w.nodes[:4] {
			if err := w.claim(t.Context(), n); err != nil {
				t.Fatalf("machine %d: %v", i, err)
			}
			err := db.Read(t.Context(), func(tx *storage.Tx) error {
				l, err := tx.IPAddressesOf([]int64{n})
				got[i] = l[0].IP.String()
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		if got[0] != "10.0.0.2" || got[3] != "10.0.0.1" {
			t.Errorf("addresses %v", got)
		}
		var e *Error
		if err := w.claim(t.Context(), w.nodes[4]); !errors.As(err, &e) || e.Text != "This interface 52:54:00:00:00:04 has a reserved ip 10.5.0.9 but it does not have a link to that subnet" {
			t.Errorf("a reservation elsewhere: %v", err)
		}
		// Somebody else has what is reserved: no other address takes its place.
		err = db.Write(t.Context(), func(tx *storage.Tx) error {
			if err := reserve(tx, w.subnet.ID, "52:54:00:00:00:05", "10.0.0.6"); err != nil {
				return err
			}
			return tx.InsertIPAddress(&storage.IPAddress{SubnetID: &w.subnet.ID, IP: addr("10.0.0.6"), AllocType: storage.AllocUserReserved})
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := w.claim(t.Context(), w.nodes[5]); !errors.As(err, &e) || e.Text != "The IP address 10.0.0.6 is already in use." {
			t.Errorf("a reservation that is taken: %v", err)
		}
	})
}

func TestAcquiredBridgeNames(t *testing.T) {
	seen := map[string]bool{}
	for parent, want := range map[string]string{"eth0": "br-eth0", "enp131s0f1np": "br-enp131s0f1np", "enp131s0f1np1": "b-enp131s0f1np1", "enp131s0f1np11": "", "enp131s0f1np12": "", "enx525400aabbcc": ""} {
		name := acquiredBridgeName(parent)
		if want != "" && name != want || len(name) > kernelNameSize || seen[name] || !strings.HasPrefix(name, "b") {
			t.Errorf("%s: %s", parent, name)
		}
		seen[name] = true
	}
}

// What is modelled is what is installed: a bond with a VLAN on it, an address, and a static route out of that subnet.
func TestPlanOfModel(t *testing.T) {
	gw := "10.0.0.1"
	cat := &storage.Catalogue{
		VLANs:   map[int64]*storage.VLAN{1: {ID: 1, MTU: 1500}, 2: {ID: 2, VID: 20, MTU: 9000}},
		Subnets: map[int64]*storage.Subnet{1: {ID: 1, CIDR: "10.0.0.0/24", FirstIP: addr("10.0.0.0"), GatewayIP: &gw}, 2: {ID: 2, CIDR: "10.9.0.0/16", FirstIP: addr("10.9.0.0")}},
	}
	one, two := int64(1), int64(2)
	member := &storage.InterfaceBundle{Interface: storage.Interface{ID: 1, Name: "eno1", Type: "physical", MACAddress: "52:54:00:00:00:01", VLANID: &one, Enabled: true}}
	bond := &storage.InterfaceBundle{Interface: storage.Interface{ID: 2, Name: "bond0", Type: "bond", MACAddress: "52:54:00:00:00:01", VLANID: &one, Enabled: true,
		Params: []byte(`{"bond_mode":"802.3ad","bond_lacp_rate":"slow","bond_miimon":100,"bond_xmit_hash_policy":"layer2"}`)},
		Links: []storage.IPAddress{{ID: 1, SubnetID: &one, IP: addr("10.0.0.9"), AllocType: storage.AllocSticky}, {ID: 2, AllocType: storage.AllocDiscovered, IP: addr("10.0.0.200")}}}
	vlan := &storage.InterfaceBundle{Interface: storage.Interface{ID: 3, Name: "bond0.20", Type: "vlan", MACAddress: "52:54:00:00:00:01", VLANID: &two, Enabled: true}}
	off := &storage.InterfaceBundle{Interface: storage.Interface{ID: 4, Name: "eno9", Type: "physical", MACAddress: "52:54:00:00:00:09"}}
	bond.Under(member)
	vlan.Under(bond)
	b := &storage.Bundle{Node: storage.Node{BootInterfaceID: &one}, Interfaces: []*storage.InterfaceBundle{member, bond, vlan, off}, Cat: cat}
	nics := layoutNICs(b, []storage.StaticRoute{{SourceID: 1, DestinationID: 2, GatewayIP: addr("10.0.0.254"), Metric: 5}, {SourceID: 2, DestinationID: 1, GatewayIP: addr("10.9.0.1")}}, []string{"9.9.9.9"})
	plan, err := layout.Netplan(nics, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]any{
		"version":   2,
		"ethernets": map[string]any{"eno1": map[string]any{"match": map[string]any{"macaddress": "52:54:00:00:00:01"}, "set-name": "eno1", "mtu": 9000}},
		"bonds": map[string]any{"bond0": map[string]any{"interfaces": []any{"eno1"}, "macaddress": "52:54:00:00:00:01", "mtu": 9000, "addresses": []any{"10.0.0.9/24"},
			"nameservers": map[string]any{"addresses": []any{"9.9.9.9"}},
			"parameters":  map[string]any{"mode": "802.3ad", "lacp-rate": "slow", "mii-monitor-interval": 100, "transmit-hash-policy": "layer2"},
			"routes":      []any{map[string]any{"to": "0.0.0.0/0", "via": "10.0.0.1"}, map[string]any{"to": "10.9.0.0/16", "via": "10.0.0.254", "metric": 5}}}},
		"vlans": map[string]any{"bond0.20": map[string]any{"id": 20, "link": "bond0", "mtu": 9000, "optional": true}},
	}
	if fmt.Sprint(plan) != fmt.Sprint(want) {
		t.Errorf("plan\n%v\nwant\n%v", plan, want)
	}
}

// The lists take as many statements for many rows as for few.
func TestAddressListsAreConstant(t *testing.T) {
	db := storagetest.New(t)
	w := newWorld(t, db, "10.0.0.0/22", 30)
	admin := WithActor(t.Context(), Actor{User: storage.User{ID: 1, Username: "admin"}, Admin: true})
	add := func(from, to int) {
		t.Helper()
		err := db.Write(t.Context(), func(tx *storage.Tx) error {
			for i := from; i < to; i++ {
				mac := fmt.Sprintf("52:54:00:ff:00:%02x", i)
				if err := tx.InsertReservedIP(&storage.ReservedIP{SubnetID: w.subnet.ID, IP: addr(fmt.Sprintf("10.0.2.%d", i+1)), MAC: mac}); err != nil {
					return err
				}
				x := storage.DHCPSnippet{Name: mac, NodeID: &w.nodes[i]}
				if err := tx.InsertDHCPSnippet(&x); err != nil {
					return err
				}
				if err := tx.InsertSnippetValue(&storage.DHCPSnippetValue{SnippetID: x.ID, Value: "x"}); err != nil {
					return err
				}
				if err := tx.PutNeighbour(storage.Neighbour{IP: addr(fmt.Sprintf("10.0.3.%d", i+1)), MAC: mac, LastSeen: tx.Now()}); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range w.nodes[from:to] {
			if err := w.claim(t.Context(), n); err != nil {
				t.Fatal(err)
			}
		}
	}
	count := func() (out [5]int64, rows int) {
		t.Helper()
		for k, list := range []func(ctx context.Context) (int, error){
			func(ctx context.Context) (int, error) {
				b, err := w.s.IPAddresses(ctx, AddressQuery{All: true})
				return len(b.Addresses), err
			},
			func(ctx context.Context) (int, error) { b, err := w.s.ReservedIPs(ctx); return len(b.IPs), err },
			func(ctx context.Context) (int, error) { b, err := w.s.Snippets(ctx); return len(b.List), err },
			func(ctx context.Context) (int, error) { b, err := w.s.Discoveries(ctx, true); return len(b.List), err },
			func(ctx context.Context) (int, error) {
				l, err := w.s.SubnetAddresses(ctx, "1")
				return len(l), err
			},
		} {
			ctx, c := storage.WithCounter(admin)
			n, err := list(ctx)
			if err != nil {
				t.Fatal(err)
			}
			out[k], rows = c.N(), rows+n
		}
		return out, rows
	}
	add(0, 2)
	few, fewRows := count()
	add(2, 30)
	many, manyRows := count()
	if few != many || fewRows != 10 || manyRows != 150 {
		t.Errorf("statements %v for %d rows, %v for %d", few, fewRows, many, manyRows)
	}
}
