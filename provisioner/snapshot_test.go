package provisioner

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/ingot-metal/ingot/api"
	"github.com/ingot-metal/ingot/storage"
	"github.com/ingot-metal/ingot/storage/storagetest"
)

func TestPurposeOf(t *testing.T) {
	for s := storage.StatusNew; s.Valid(); s++ {
		want := api.PurposePowerOff
		switch s {
		case storage.StatusNew, storage.StatusCommissioning, storage.StatusDiskErasing, storage.StatusEnteringRescueMode, storage.StatusRescueMode, storage.StatusReleasing, storage.StatusTesting:
			want = api.PurposeCommission
		case storage.StatusDeploying:
			want = api.PurposeInstall
		case storage.StatusDeployed:
			want = api.PurposeLocal
		}
		if got := purposeOf(storage.SnapshotNode{Status: s, Netboot: true}); got != want {
			t.Errorf("%s: %s, want %s", s, got, want)
		}
		if got := purposeOf(storage.SnapshotNode{Status: s, NodeType: storage.NodeDevice}); got != api.PurposeLocal {
			t.Errorf("a device in %s: %s", s, got)
		}
	}
	for _, n := range []storage.SnapshotNode{{Status: storage.StatusDeploying}, {Status: storage.StatusDeployed}} {
		if got := purposeOf(n); got != api.PurposeLocal {
			t.Errorf("%s after the install: %s", n.Status, got)
		}
		n.EphemeralDeploy = true
		if got := purposeOf(n); got != api.PurposeInstall {
			t.Errorf("%s in memory: %s", n.Status, got)
		}
	}
}

// fill makes a rack with a subnet, and n machines with an address each.
func fill(t testing.TB, s *Service, n int) storage.Node {
	t.Helper()
	rack, err := s.RegisterRack(t.Context(), api.RackHello{Hostname: "rack-1", Architecture: "amd64",
		Interfaces: []api.RackInterface{{Name: "eth0", Addresses: []string{"10.8.0.2/16"}}}}, storage.NodeRack, "f")
	if err != nil {
		t.Fatal(err)
	}
	err = s.DB.Write(t.Context(), func(tx *storage.Tx) error {
		rev, err := tx.Revision()
		if err != nil {
			return err
		}
		sn := storage.Subnet{VLANID: storage.DefaultVLANID, Name: "n", CIDR: "10.8.0.0/16", FirstIP: netip.MustParseAddr("10.8.0.0"), LastIP: netip.MustParseAddr("10.8.255.255"), Managed: true}
		if err := tx.InsertSubnet(&sn); err != nil {
			return err
		}
		pool, vlan := storage.DefaultPoolID, storage.DefaultVLANID
		for i := range n {
			m := storage.Node{SystemID: fmt.Sprintf("m%05d", i), Hostname: fmt.Sprintf("m%05d", i), DomainID: storage.DefaultDomainID, ZoneID: storage.DefaultZoneID, PoolID: &pool,
				Status: storage.StatusDeployed, Architecture: "amd64/generic", Revision: rev}
			if err := tx.InsertNode(&m); err != nil {
				return err
			}
			nic := storage.Interface{NodeID: m.ID, Name: "eth0", Type: "physical", MACAddress: fmt.Sprintf("52:54:00:%02x:%02x:%02x", i>>16, i>>8&255, i&255), VLANID: &vlan}
			if err := tx.InsertInterface(&nic); err != nil {
				return err
			}
			ip := storage.IPAddress{InterfaceID: &nic.ID, SubnetID: &sn.ID, IP: netip.AddrFrom4([4]byte{10, 8, byte(16 + i>>8), byte(i)}), AllocType: 1}
			if err := tx.InsertIPAddress(&ip); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return rack
}

// bump gives machines a new revision.
func bump(t testing.TB, s *Service, ids ...string) {
	t.Helper()
	err := s.DB.Write(t.Context(), func(tx *storage.Tx) error {
		rev, err := tx.Revision()
		if err != nil {
			return err
		}
		for _, id := range ids {
			if _, err := tx.Exec(`update nodes set revision = $1 where system_id = $2`, rev, id); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func hostIDs(s api.Snapshot) (out []string) {
	for _, h := range s.Hosts {
		out = append(out, h.SystemID)
	}
	return out
}

func TestSnapshotDeltas(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db *storage.DB) {
		s := New(Config{DB: db})
		rack := fill(t, s, 5)
		snap := func(since int64) api.Snapshot {
			t.Helper()
			out, err := s.Snapshot(t.Context(), rack.SystemID, since)
			if err != nil {
				t.Fatal(err)
			}
			return out
		}
		whole := snap(0)
		if len(whole.Hosts) != 5 || whole.Since != 0 || len(whole.Subnets) != 1 || whole.Subnets[0].RackAddress != "10.8.0.2" || whole.Domain != "maas" {
			t.Fatalf("%+v", whole)
		}
		if h := whole.Hosts[1]; h.MACs[0].MAC != "52:54:00:00:00:01" || !slices.Equal(h.MACs[0].Fixed, []string{"10.8.16.1"}) || h.Purpose != api.PurposeLocal || h.Boot != nil || h.Error != "" {
			t.Errorf("host %+v", h)
		}
		if d := snap(whole.Revision); d.Since != whole.Revision || len(d.Hosts) != 0 || len(d.Subnets) != 1 {
			t.Errorf("nothing changed: %+v", d)
		}
		bump(t, s, "m00003")
		if err := db.Write(t.Context(), func(tx *storage.Tx) error {
			n, err := tx.Node("m00004")
			if err != nil {
				return err
			}
			return tx.DeleteNode(n.ID)
		}); err != nil {
			t.Fatal(err)
		}
		d := snap(whole.Revision)
		if !slices.Equal(hostIDs(d), []string{"m00003"}) || !slices.Equal(d.Gone, []string{"m00004"}) || d.Since != whole.Revision {
			t.Errorf("delta %v, gone %v", hostIDs(d), d.Gone)
		}
		// What shows in every host makes deltas of older snapshots whole.
		if err := db.Write(t.Context(), func(tx *storage.Tx) error {
			dom, err := tx.Domain(storage.DefaultDomainID)
			if err != nil {
				return err
			}
			dom.Name = "example"
			if err := tx.UpdateDomain(&dom); err != nil {
				return err
			}
			_, err = tx.Revision()
			return err
		}); err != nil {
			t.Fatal(err)
		}
		if w := snap(d.Revision); w.Since != 0 || len(w.Hosts) != 4 || w.Hosts[0].Domain != "example" {
			t.Errorf("after a rename: since %d, %v", w.Since, hostIDs(w))
		}
		// A rack from the future, and one that missed purged deletions, start over.
		if w := snap(1 << 40); w.Since != 0 || len(w.Hosts) != 4 {
			t.Errorf("from the future: %+v", w.Since)
		}
		now := snap(0).Revision
		bump(t, s, "m00001")
		if err := db.Write(t.Context(), func(tx *storage.Tx) error { return tx.PurgeTombstones(now + 1) }); err != nil {
			t.Fatal(err)
		}
		if w := snap(now); w.Since != 0 || len(w.Hosts) != 4 || len(w.Gone) != 0 {
			t.Errorf("behind the purge: since %d", w.Since)
		}
		if _, err := s.Snapshot(t.Context(), "nosuch", 0); err == nil {
			t.Error("a snapshot for nobody")
		}
	})
}

// A snapshot takes as many queries for ten thousand machines as for two.
func TestSnapshotQueries(t *testing.T) {
	count := func(machines int) (int64, time.Duration) {
		db := storagetest.New(t)
		s := New(Config{DB: db})
		rack := fill(t, s, machines)
		if _, err := s.Snapshot(t.Context(), rack.SystemID, 0); err != nil { // the first one finds the rack's VLANs
			t.Fatal(err)
		}
		before, begin := db.Stats().Statements, time.Now()
		snap, err := s.Snapshot(t.Context(), rack.SystemID, 0)
		if err != nil || len(snap.Hosts) != machines {
			t.Fatalf("%d hosts, %v", len(snap.Hosts), err)
		}
		return db.Stats().Statements - before, time.Since(begin)
	}
	machines := 10_000
	if testing.Short() {
		machines = 500
	}
	few, _ := count(2)
	many, took := count(machines)
	t.Logf("%d queries, %s for %d machines", many, took, machines)
	if few != many || many == 0 {
		t.Errorf("%d queries for 2 machines, %d for %d", few, many, machines)
	}
}

func TestSnapshotBonds(t *testing.T) {
	nics := []storage.SnapshotInterface{
		{ID: 1, NodeID: 9, Type: "physical", MAC: "m1"}, {ID: 2, NodeID: 9, Type: "physical", MAC: "m2"},
		{ID: 3, NodeID: 9, Type: "bond", MAC: "m1", Parent: 1}, {ID: 3, NodeID: 9, Type: "bond", MAC: "m1", Parent: 2},
		{ID: 4, NodeID: 9, Type: "vlan", MAC: "m1", Parent: 3}, {ID: 5, NodeID: 9, Type: "bridge", MAC: "m1", Parent: 3},
	}
	a := func(s string) netip.Addr { return netip.MustParseAddr(s) }
	got := snapshotMACs(nics, []storage.SnapshotAddress{{InterfaceID: 5, IP: a("10.0.0.5")}, {InterfaceID: 4, IP: a("10.1.0.5")}, {InterfaceID: 2, IP: a("10.0.0.6")}, {InterfaceID: 99, IP: a("10.0.0.7")}})[9]
	if len(got) != 2 || !slices.Equal(got[0].Fixed, []string{"10.0.0.5"}) || !slices.Equal(got[1].Fixed, []string{"10.0.0.5", "10.0.0.6"}) {
		t.Errorf("%+v", got)
	}
}
