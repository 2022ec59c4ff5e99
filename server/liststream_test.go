package server_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"testing"

	"github.com/ingot-metal/ingot/server/servertest"
	"github.com/ingot-metal/ingot/storage"
	"github.com/ingot-metal/ingot/storage/storagetest"
)

// lists are all lists of machines, each unfiltered and by every kind of filter.
func lists() []string {
	const machines = "/MAAS/api/2.0/machines/"
	out := []string{machines, machines + "?op=list_allocated", "/MAAS/api/2.0/nodes/", "/MAAS/api/2.0/devices/", "/MAAS/api/2.0/tags/virtual/?op=machines",
		"/MAAS/api/2.0/tags/virtual/?op=nodes", "/MAAS/api/2.0/tags/virtual/?op=devices", "/MAAS/api/1.0/nodes/?op=list", machines + "?op=power_parameters"}
	for _, f := range [][2]string{
		{"id", "n00001"}, {"hostname", "machine-1"}, {"not_hostname", "machine-1"}, {"mac_address", "02:00:00:00:00:01"}, {"agent_name", ""},
		{"domain", "maas"}, {"zone", "default"}, {"not_in_zone", "default"}, {"pool", "default"}, {"status", "ready"}, {"not_status", "ready"},
		{"simple_status", "ready"}, {"tags", "virtual"}, {"not_tags", "virtual"}, {"mem", "8192"}, {"cpu_count", "4"}, {"arch", "amd64"},
		{"power_state", "off"}, {"owner", "admin"}, {"subnets", "fleet"}, {"not_subnets", "fleet"}, {"vlans", "vid:0"}, {"fabrics", "fabric-0"},
		{"link_speed", "0"}, {"storage", "root:100(ssd)"}, {"interfaces", "a:subnet=fleet,tag=uplink"}, {"devices", "vendor_id=8086"},
		{"deployment_target", "disk"},
	} {
		out = append(out, machines+"?"+url.Values{f[0]: {f[1]}}.Encode())
	}
	return out
}

// TestListStatements: every list of machines takes the same number of statements for ten machines as for a hundred.
func TestListStatements(t *testing.T) {
	e := servertest.New(t)
	statements := func(path string) int64 {
		t.Helper()
		e.P.Flush() // what is noted of the request before
		before := e.DB.Stats().Statements
		if a := e.Admin.Get(path); a.Status != http.StatusOK {
			t.Fatalf("%s: %d %s", path, a.Status, a.Text())
		}
		e.P.Flush()
		return e.DB.Stats().Statements - before
	}
	storagetest.FleetOf(t, e.DB, 10, 5, 6)
	few := map[string]int64{}
	for _, path := range lists() {
		statements(path) // the first of all loads what is kept
		few[path] = statements(path)
	}
	more(t, e.DB, 90)
	var all []json.RawMessage
	e.Admin.Get("/MAAS/api/2.0/machines/").Into(t, &all)
	if len(all) != 100 {
		t.Fatalf("%d machines", len(all))
	}
	for _, path := range lists() {
		if many := statements(path); many != few[path] || many > 150 {
			t.Errorf("%s: %d statements for 10 machines, %d for 100", path, few[path], many)
		}
	}
}

// more adds Ready machines with a link to the fleet's subnet, a disk and the fleet's tag.
func more(t *testing.T, db *storage.DB, n int) {
	t.Helper()
	err := db.Write(context.Background(), func(tx *storage.Tx) error {
		var subnet int64
		if err := tx.QueryRow(`select id from subnets where name = 'fleet'`).Scan(&subnet); err != nil {
			return err
		}
		for i := range n {
			pool, vlan := storage.DefaultPoolID, storage.DefaultVLANID
			node := storage.Node{SystemID: "m" + string(rune('a'+i/26)) + string(rune('a'+i%26)) + "000", Hostname: "more-" + string(rune('a'+i/26)) + string(rune('a'+i%26)),
				DomainID: storage.DefaultDomainID, ZoneID: storage.DefaultZoneID, PoolID: &pool, Status: storage.StatusReady, Architecture: "amd64/generic",
				CPUCount: 8, Memory: 16384, PowerType: "manual", PowerState: "off"}
			if err := tx.InsertNode(&node); err != nil {
				return err
			}
			nic := storage.Interface{NodeID: node.ID, Name: "eth0", Type: "physical", MACAddress: "06:00:00:00:00:" + string("0123456789abcdef"[i/16]) + string("0123456789abcdef"[i%16]),
				VLANID: &vlan, Enabled: true}
			if err := tx.InsertInterface(&nic); err != nil {
				return err
			}
			if err := tx.InsertIPAddress(&storage.IPAddress{InterfaceID: &nic.ID, SubnetID: &subnet, AllocType: storage.AllocAuto}); err != nil {
				return err
			}
			if err := tx.InsertBlockDevice(&storage.BlockDevice{NodeID: node.ID, Name: "sda", Type: "physical", Size: 1 << 40, BlockSize: 512}); err != nil {
				return err
			}
			if err := tx.TagNode(node.ID, "virtual"); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestListInParts: a list that is longer than what is read at once comes whole and in order, each machine once, in the 1.0 form too.
func TestListInParts(t *testing.T) {
	e := servertest.New(t)
	want := 2*storage.MachinePage + 7
	storagetest.FleetOf(t, e.DB, want, 1, 1)
	for _, path := range []string{"/MAAS/api/2.0/machines/", "/MAAS/api/2.0/machines/?storage=root:100(ssd)", "/MAAS/api/2.0/tags/virtual/?op=machines",
		"/MAAS/api/2.0/nodes/", "/MAAS/api/1.0/nodes/?op=list"} {
		var list []struct {
			SystemID string `json:"system_id"`
			NodeType int    `json:"node_type"`
		}
		e.Admin.Get(path).Into(t, &list)
		machines := list[:0]
		for _, m := range list {
			if m.NodeType == 0 {
				machines = append(machines, m)
			}
		}
		if len(machines) != want {
			t.Errorf("%s: %d machines", path, len(machines))
			continue
		}
		for i := 1; i < want; i++ {
			if machines[i-1].SystemID >= machines[i].SystemID { // the fleet's are in the order of their ids
				t.Errorf("%s: %s comes before %s", path, machines[i-1].SystemID, machines[i].SystemID)
			}
		}
	}
}

// TestListBreaksOff: a list that cannot be read to its end does not look as if it had ended.
func TestListBreaksOff(t *testing.T) {
	e := servertest.New(t)
	storagetest.FleetOf(t, e.DB, storage.MachinePage+1, 1, 1)
	err := e.DB.Write(context.Background(), func(tx *storage.Tx) error { // only the second part has it
		n, err := tx.Exec(`update interfaces set tags = 'no list' where id = (select max(id) from interfaces)`)
		if err == nil && n != 1 {
			err = errors.New("nothing was broken")
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequest(http.MethodGet, e.URL+"/MAAS/api/2.0/machines/", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", servertest.Authorization(e.Admin.Key))
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if n, err := io.Copy(io.Discard, res.Body); err == nil || res.StatusCode != http.StatusOK || n == 0 {
		t.Fatalf("status %d, %d bytes, %v", res.StatusCode, n, err)
	}
}
