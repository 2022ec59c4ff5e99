package server_test

import (
	"encoding/json"
	"net/netip"
	"strings"
	"testing"

	"github.com/ingot-metal/ingot/api"
	"github.com/ingot-metal/ingot/provisioner/power/drivers"
	"github.com/ingot-metal/ingot/server/servertest"
	"github.com/ingot-metal/ingot/storage"
)

func TestRackControllers(t *testing.T) {
	e := servertest.New(t, func(p *servertest.ProvisionerConfig, _ *servertest.ServerConfig) { p.Power = drivers.All() })
	hello := api.RackHello{Hostname: "rack-1", Architecture: "amd64", Version: "1.2", Interfaces: []api.RackInterface{{Name: "eth0", Addresses: []string{"10.7.0.2/24"}}}}
	sn := storage.Subnet{VLANID: storage.DefaultVLANID, Name: "n", CIDR: "10.7.0.0/24", Managed: true}
	sn.FirstIP, sn.LastIP = netip.MustParseAddr("10.7.0.0"), netip.MustParseAddr("10.7.0.255")
	if err := e.DB.Write(t.Context(), func(tx *storage.Tx) error { return tx.InsertSubnet(&sn) }); err != nil {
		t.Fatal(err)
	}
	rack, err := e.P.RegisterRack(t.Context(), hello, storage.NodeRack, "aa")
	if err != nil {
		t.Fatal(err)
	}
	hello.Hostname = "all-in-one"
	hello.Interfaces = nil
	both, err := e.P.RegisterRack(t.Context(), hello, storage.NodeRegionRack, "")
	if err != nil {
		t.Fatal(err)
	}
	hello.Hostname = "region-1"
	region, err := e.P.RegisterRegion(t.Context(), hello)
	if err != nil {
		t.Fatal(err)
	}

	var racks []api.RackController
	if e.User.Get("rackcontrollers/").Into(t, &racks); len(racks) != 0 {
		t.Errorf("a plain user sees the racks %+v", racks)
	}
	e.Admin.Get("rackcontrollers/").Into(t, &racks)
	if len(racks) != 2 || racks[0].SystemID != rack.SystemID || racks[1].SystemID != both.SystemID {
		t.Fatalf("racks %+v", racks)
	}
	r := racks[0]
	if r.FQDN != "rack-1.maas" || r.NodeTypeName != "Rack controller" || r.Version == nil || *r.Version != "1.2" || strings.Join(r.IPAddresses, " ") != "10.7.0.2" {
		t.Errorf("rack %+v", r)
	}
	for _, s := range r.ServiceSet {
		if want := map[string]string{"dhcpd": "running", "tftp": "running", "rackd": "running", "dhcpd6": "off"}[s.Name]; want != "" && s.Status != want {
			t.Errorf("service %+v", s)
		}
	}
	e.Admin.Get("rackcontrollers/?hostname=all-in-one").Into(t, &racks)
	if len(racks) != 1 || racks[0].NodeTypeName != "Region and rack controller" {
		t.Errorf("by host name: %+v", racks)
	}
	var regions []api.RegionController
	e.Admin.Get("regioncontrollers/").Into(t, &regions)
	if len(regions) != 2 || regions[1].SystemID != region.SystemID {
		t.Errorf("regions %+v", regions)
	}
	var one api.RackController
	e.User.Get("rackcontrollers/"+rack.SystemID+"/").Into(t, &one)
	if one.Hostname != "rack-1" {
		t.Errorf("read %+v", one)
	}
	for path, want := range map[string]string{"rackcontrollers/" + region.SystemID + "/": "No RackController matches the given query.", "rackcontrollers/nosuch/": "No RackController matches the given query.",
		"regioncontrollers/" + rack.SystemID + "/": "No RegionController matches the given query."} {
		if a := e.User.Get(path); a.Status != 404 || a.Text() != want {
			t.Errorf("%s: %d %s", path, a.Status, a.Text())
		}
	}
	if a := e.Anon.Get("rackcontrollers/"); a.Status < 400 {
		t.Errorf("anonymous: %d %s", a.Status, a.Text())
	}

	var types []api.PowerType
	e.Admin.Get("rackcontrollers/?op=describe_power_types").Into(t, &types)
	if len(types) != 3 || types[0].Name != "ipmi" || types[0].IPExtractor["field_name"] != "power_address" {
		t.Errorf("power types %+v", types)
	}
	raw, _ := json.Marshal(types[0])
	if !strings.Contains(string(raw), `"default":["opensesspriv"]`) {
		t.Errorf("a multiple choice's default is not a list: %s", raw)
	}

	// A rack that VLANs rely on goes only by force.
	err = e.DB.Write(t.Context(), func(tx *storage.Tx) error {
		v, err := tx.VLAN(storage.DefaultVLANID)
		if err != nil {
			return err
		}
		v.PrimaryRackID, v.SecondaryRackID, v.DhcpOn = &rack.ID, &both.ID, true
		return tx.UpdateVLAN(&v)
	})
	if err != nil {
		t.Fatal(err)
	}
	path := "rackcontrollers/" + rack.SystemID + "/"
	if a := e.User.Delete(path); a.Status != 403 {
		t.Errorf("a user's delete: %d", a.Status)
	}
	if a := e.Admin.Delete(path); a.Status != 400 {
		t.Errorf("delete of a rack in use: %d %s", a.Status, a.Text())
	}
	if a := e.Admin.Delete(path + "?force=true"); a.Status != 204 {
		t.Errorf("delete by force: %d %s", a.Status, a.Text())
	}
	if _, err := e.P.RackByCertificate(t.Context(), "aa"); err == nil {
		t.Error("its certificate is still known")
	}
	err = e.DB.Read(t.Context(), func(tx *storage.Tx) error {
		v, err := tx.VLAN(storage.DefaultVLANID)
		if v.PrimaryRackID == nil || *v.PrimaryRackID != both.ID || v.SecondaryRackID != nil || !v.DhcpOn {
			t.Errorf("vlan %+v", v)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if a := e.Admin.Delete("rackcontrollers/" + both.SystemID + "/?force=true"); a.Status != 400 {
		t.Errorf("delete of the region's own rack: %d", a.Status)
	}
}
