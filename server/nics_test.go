package server_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/ingot-metal/ingot/api"
	"github.com/ingot-metal/ingot/server/servertest"
	"github.com/ingot-metal/ingot/storage"
)

// addNICs gives a node more network cards, on the default VLAN.
func addNICs(t *testing.T, e *servertest.Env, systemID string, names ...string) map[string]int64 {
	t.Helper()
	ids := map[string]int64{}
	err := e.DB.Write(t.Context(), func(tx *storage.Tx) error {
		n, err := tx.Node(systemID)
		if err != nil {
			return err
		}
		vlan := storage.DefaultVLANID
		for k, name := range names {
			i := storage.Interface{NodeID: n.ID, Name: name, MACAddress: fmt.Sprintf("52:54:00:aa:%02x:%02x", n.ID, k), VLANID: &vlan, Enabled: true, LinkConnected: true}
			if err := tx.InsertInterface(&i); err != nil {
				return err
			}
			ids[name] = i.ID
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return ids
}

func nic(t *testing.T, c *servertest.Caller, systemID, name string) (i api.Interface) {
	t.Helper()
	a := c.Get("nodes/" + systemID + "/interfaces/" + name + "/")
	if a.Status != 200 {
		t.Fatalf("%s: %d %s", name, a.Status, a.Text())
	}
	a.Into(t, &i)
	return i
}

func TestBondsBridgesVLANs(t *testing.T) {
	e := servertest.New(t)
	admin, user := e.Admin, e.User
	addMachine(t, e, "abc123", storage.StatusReady)
	addMachine(t, e, "dpl123", storage.StatusDeploying)
	id := addNICs(t, e, "abc123", "eno1", "eno2", "eno3", "eno4")
	const base = "nodes/abc123/interfaces/"
	run(t, []step{
		{admin, "POST", "fabrics/0/vlans/", "vid=20&mtu=9000", 200, `"id": 5002`},
		{admin, "POST", "fabrics/", "name=other", 200, ""},
		{admin, "POST", "fabrics/other/vlans/", "vid=30", 200, `"id": 5004`},
		{admin, "POST", "subnets/", "cidr=10.0.0.0/24&gateway_ip=10.0.0.1", 200, ""},
		{admin, "POST", "subnets/", "cidr=10.20.0.0/24&vlan=5002", 200, ""},
		{admin, "POST", base + "eno1/?op=link_subnet", "mode=AUTO&subnet=1", 200, ""},

		{admin, "POST", base + "?op=create_bond", "", 400, `"mac_address": [ "This field cannot be blank." ], "name": [ "This field is required." ], "parents": [ "A bond interface must have one or more parents." ]`},
		{user, "POST", base + "?op=create_bond", "name=b", 403, ""},
		{admin, "POST", "nodes/dpl123/interfaces/?op=create_bond", "name=b", 409, "Cannot create bond interface because the machine is not New, Ready, Allocated, or Broken."},
		{admin, "POST", "nodes/nope00/interfaces/?op=create_bond", "name=b", 404, "No Machine matches the given query."},
		{admin, "POST", base + "?op=create_bond", "name=bond0&parents=99999", 400, "Select a valid choice. 99999 is not one of the available choices."},
		{admin, "POST", base + "?op=create_bond", "name=bond0&parents=x", 400, ""},
		{admin, "POST", base + "?op=create_bond", fmt.Sprintf("name=eno3&parents=%d", id["eno1"]), 400, "Node host-abc123 already has an interface named 'eno3'."},
		{admin, "POST", base + "?op=create_bond", fmt.Sprintf("name=bond0&parents=%d&bond_mode=odd", id["eno1"]), 400,
			"'odd' is not a valid bond_mode. It should be one of: 'balance-rr', 'active-backup', 'balance-xor', 'broadcast', '802.3ad', 'balance-tlb', 'balance-alb'."},
		{admin, "POST", base + "?op=create_bond", fmt.Sprintf("name=bond0&parents=%d&bond_num_grat_arp=256", id["eno1"]), 400, "Ensure this value is less than or equal to 255."},
		{admin, "POST", base + "?op=create_bond", fmt.Sprintf("name=bond0&parents=%d&bond_miimon=-1", id["eno1"]), 400, "Ensure this value is greater than or equal to 0."},
		{admin, "POST", base + "?op=create_bond", fmt.Sprintf("name=bond0&parents=%d&vlan=5002", id["eno1"]), 400, "All parents must belong to the same VLAN."},
		{admin, "POST", base + "?op=create_bond", fmt.Sprintf("name=bond0&parents=%d&parents=%d&mtu=1400", id["eno1"], id["eno2"]), 200, `"type": "bond"`},
		{admin, "POST", base + "?op=create_bond", fmt.Sprintf("name=bond1&parents=%d&parents=%d", id["eno3"], id["eno2"]), 400, `"parents": [ "Interfaces already in-use: eno2." ]`},
		{admin, "POST", base + "eno1/?op=link_subnet", "mode=AUTO&subnet=1", 400, "Cannot link interface(eno1) when interface is in a bond."},

		{admin, "POST", base + "?op=create_vlan", "", 400, `"parent": [ "A VLAN interface must have exactly one parent." ], "vlan": [ "A VLAN interface must be connected to a tagged VLAN." ]`},
		{admin, "POST", base + "?op=create_vlan", fmt.Sprintf("vlan=5001&parent=%d", id["eno3"]), 400, "A VLAN interface can only belong to a tagged VLAN."},
		{admin, "POST", base + "?op=create_vlan", fmt.Sprintf("vlan=5004&parent=%d", id["eno3"]), 400, "A VLAN interface can only belong to a tagged VLAN on the same fabric as its parent interface."},
		{admin, "POST", base + "?op=create_vlan", fmt.Sprintf("vlan=5002&parent=%d", id["eno1"]), 400, "A VLAN interface can't have a parent that is already in a bond."},
		{admin, "POST", base + "?op=create_vlan", fmt.Sprintf("vlan=5002&parents=%d&parents=%d", id["eno3"], id["eno1"]), 400, "A VLAN interface must have exactly one parent."},
		// Terraform's client says parents.
		{admin, "POST", base + "?op=create_vlan", fmt.Sprintf("vlan=5002&parents=%d", id["eno3"]), 200, `"name": "eno3.20"`},
		{admin, "POST", base + "?op=create_vlan", fmt.Sprintf("vlan=5002&parent=%d", id["eno3"]), 400, "Node host-abc123 already has an interface named 'eno3.20'."},

		{admin, "POST", base + "?op=create_bridge", "", 400, `"mac_address": [ "This field cannot be blank." ], "name": [ "This field is required." ], "parent": [ "A bridge interface must have at least one parent." ]`},
		{admin, "POST", base + "?op=create_bridge", "name=br0&parent=1&parents=2", 400, "Cannot specify both parent and parents fields."},
		{admin, "POST", base + "?op=create_bridge", fmt.Sprintf("name=br0&parent=%d", id["eno1"]), 400, "A bridge interface can't have a parent that is already in a bond or a bridge."},
		{admin, "POST", base + "?op=create_bridge", fmt.Sprintf("name=br0&parent=%d&bridge_type=odd", id["eno4"]), 400, "'odd' is not a valid bridge_type. It should be one of: 'standard', 'ovs'."},
		{admin, "POST", base + "?op=create_bridge", fmt.Sprintf("name=br0&parent=%d&bridge_stp=true", id["eno4"]), 200, `"bridge_fd": 15, "bridge_stp": true, "bridge_type": "standard"`},
	})
	bond := nic(t, admin, "abc123", "bond0")
	want := map[string]any{"mtu": 1400.0, "bond_mode": "balance-rr", "bond_miimon": 100.0, "bond_downdelay": 0.0, "bond_updelay": 0.0, "bond_lacp_rate": "fast",
		"bond_xmit_hash_policy": "layer2", "bond_num_grat_arp": 1.0}
	if fmt.Sprint(bond.Params) != fmt.Sprint(want) || strings.Join(bond.Parents, " ") != "eno1 eno2" || len(bond.Links) != 1 || bond.Links[0].Mode != "link_up" {
		t.Errorf("bond %+v", bond)
	}
	member := nic(t, admin, "abc123", "eno1")
	if *bond.MACAddress != *member.MACAddress || len(member.Links) != 0 || strings.Join(member.Children, " ") != "bond0" {
		t.Errorf("member %+v", member)
	}
	// The largest MTU of an interface and of what stands on it counts: the VLAN's 9000 shows on its parent.
	if got := nic(t, admin, "abc123", "eno3"); got.EffectiveMTU != 9000 {
		t.Errorf("effective MTU %d", got.EffectiveMTU)
	}
	bondID, brID := fmt.Sprint(bond.ID), fmt.Sprint(nic(t, admin, "abc123", "br0").ID)
	run(t, []step{
		{admin, "PUT", base + "bond0/", "bond_mode=802.3ad&bond_lacp_rate=slow&name=bond9", 200, `"bond_mode": "802.3ad"`},
		{admin, "PUT", base + "bond9/", fmt.Sprintf("parents=%d", id["eno2"]), 200, `"parents": [ "eno2" ]`},
		{admin, "PUT", base + "bond9/", "parents=" + bondID, 400, "is not one of the available choices"},
		{admin, "PUT", base + "bond9/", "bond_xmit_hash_policy=odd", 400, "'odd' is not a valid bond_xmit_hash_policy. It should be one of:"},
		{admin, "PUT", base + "br0/", "bridge_stp=false&bridge_fd=0", 200, `"bridge_fd": 0, "bridge_stp": false`},
		{admin, "PUT", base + "br0/", "parent=" + brID, 400, `"parent"`},
		{admin, "PUT", base + "eno3.20/", "vlan=5001", 400, "A VLAN interface can only belong to a tagged VLAN."},
		{admin, "PUT", base + "eno3.20/", fmt.Sprintf("parent=%d", nic(t, admin, "abc123", "br0").ID), 200, `"name": "br0.20"`},
		{admin, "PUT", base + "eno3/", "mac_address=52:54:00:bb:bb:bb", 200, ""},
		{admin, "PUT", base + "eno3/", "mac_address=52:54:00:00:00:02", 400, "This MAC address is already in use by host-dpl123."},
		{admin, "PUT", base + "eno3/", fmt.Sprintf("parents=%d", id["eno2"]), 400, "A physical interface cannot have parents."},
		{admin, "PUT", base + "eno3/", "enabled=false", 200, `"links": []`},
		{admin, "PUT", base + "eno3/", "enabled=true", 200, `"mode": "link_up"`},
		{admin, "DELETE", base + "bond9/", "", 204, ""},
		{admin, "GET", base + "eno2/", "", 200, `"mode": "link_up"`},
		{admin, "DELETE", base + "eno4/", "", 204, ""}, // with it the bridge that stood on nothing else, and the VLAN interface on that
		{admin, "GET", base + "br0/", "", 404, ""},
		{admin, "GET", base + "br0.20/", "", 404, ""},
		{admin, "POST", base + "?op=create_bond", fmt.Sprintf("name=bond0&parents=%d&parents=%d", id["eno1"], id["eno2"]), 200, ""},
		{user, "POST", "machines/abc123/?op=restore_networking_configuration", "", 403, ""},
		{admin, "POST", "machines/dpl123/?op=restore_networking_configuration", "", 409, "Machine must be in a ready or failed testing state to restore networking configuration."},
		{admin, "POST", "machines/dpl123/?op=restore_default_configuration", "", 409, "Machine must be in a ready or failed testing state"},
		{admin, "POST", "machines/abc123/?op=restore_networking_configuration", "", 200, `"system_id": "abc123"`},
		{admin, "GET", base + "bond0/", "", 404, ""},
		{admin, "GET", base + "eno1/", "", 200, `"mode": "link_up"`},
		{admin, "POST", "machines/abc123/?op=restore_default_configuration", "", 200, `"system_id": "abc123"`},
	})
}

func TestControllerInterfaces(t *testing.T) {
	e := servertest.New(t)
	admin, user := e.Admin, e.User
	err := e.DB.Write(t.Context(), func(tx *storage.Tx) error {
		n := storage.Node{SystemID: "rack01", NodeType: storage.NodeRack, Hostname: "rack", DomainID: storage.DefaultDomainID, ZoneID: storage.DefaultZoneID}
		if err := tx.InsertNode(&n); err != nil {
			return err
		}
		vlan := storage.DefaultVLANID
		i := storage.Interface{NodeID: n.ID, Name: "eth0", MACAddress: "52:54:00:cc:00:01", VLANID: &vlan, Enabled: true, LinkConnected: true}
		if err := tx.InsertInterface(&i); err != nil {
			return err
		}
		return tx.InsertInterface(&storage.Interface{NodeID: n.ID, Name: "eth0.5", Type: "vlan", MACAddress: "52:54:00:cc:00:01", Enabled: true})
	})
	if err != nil {
		t.Fatal(err)
	}
	const path = "nodes/rack01/interfaces/eth0/"
	run(t, []step{
		{admin, "POST", "fabrics/0/vlans/", "vid=20", 200, `"id": 5002`},
		{user, "PUT", path, "vlan=5002", 403, ""},
		{admin, "PUT", path, "vlan=5002&name=other&interface_speed=1000&link_speed=100&mtu=9000", 200, `"name": "eth0"`},
		{admin, "GET", path, "", 200, `"link_speed": 100`},
		{admin, "GET", path, "", 200, `"vid": 20`},
		{admin, "PUT", path, "link_connected=false&link_speed=5", 400, "Cannot set link_speed when link_connected is False."},
		{admin, "PUT", "nodes/rack01/interfaces/eth0.5/", "vlan=5002", 403, "Cannot modify VLAN interface on controller."},
		{admin, "DELETE", path, "", 403, "Cannot delete interface interface on a controller."},
		{admin, "POST", path + "?op=disconnect", "", 403, "Cannot disconnect interface on a controller."},
		{admin, "POST", path + "?op=link_subnet", "mode=LINK_UP", 403, "Cannot link subnet interface on a controller."},
		{admin, "POST", "nodes/rack01/interfaces/?op=create_physical", "mac_address=52:54:00:cc:00:09", 403, "Cannot create interface on a controller."},
		{admin, "POST", "nodes/rack01/interfaces/?op=create_bridge", "name=b", 404, "No Machine matches the given query."},
	})
}

func TestAcquiredBridges(t *testing.T) {
	e := servertest.New(t)
	admin := e.Admin
	addMachine(t, e, "abc123", storage.StatusReady)
	id := addNICs(t, e, "abc123", "enp131s0f1np11", "eno2", "eno3")
	run(t, []step{
		{admin, "POST", "subnets/", "cidr=10.0.0.0/24", 200, ""},
		{admin, "POST", "nodes/abc123/interfaces/eth0/?op=link_subnet", "mode=STATIC&subnet=1&ip_address=10.0.0.9", 200, ""},
		{admin, "POST", "nodes/abc123/interfaces/?op=create_bond", fmt.Sprintf("name=bond0&parents=%d&parents=%d", id["eno2"], id["eno3"]), 200, ""},
		{admin, "POST", "machines/?op=allocate", "bridge_all=true&bridge_type=odd", 400, "bridge_type"},
		{admin, "POST", "machines/?op=allocate", "bridge_all=true&bridge_stp=true&bridge_fd=7", 200, `"name": "br-eth0"`},
	})
	br := nic(t, admin, "abc123", "br-eth0")
	if br.Params["bridge_stp"] != true || br.Params["bridge_fd"] != 7.0 || len(br.Links) != 1 || br.Links[0].IPAddress == nil || *br.Links[0].IPAddress != "10.0.0.9" {
		t.Errorf("bridge %+v", br)
	}
	if i := nic(t, admin, "abc123", "eth0"); len(i.Links) != 0 {
		t.Errorf("the bridged interface keeps %+v", i.Links)
	}
	nic(t, admin, "abc123", "br-bond0")
	var list []api.Interface
	admin.Get("nodes/abc123/interfaces/").Into(t, &list)
	bridges := 0
	for _, i := range list {
		if i.Type == "bridge" {
			if bridges++; len(i.Name) > 15 {
				t.Errorf("the name %s is too long for the kernel", i.Name)
			}
		}
	}
	if bridges != 3 { // eth0, the long one, the bond; not the bond's members
		t.Errorf("%d bridges", bridges)
	}
	run(t, []step{
		{admin, "POST", "nodes/abc123/interfaces/?op=create_bridge", fmt.Sprintf("name=mine&parent=%d", nic(t, admin, "abc123", "br-eth0").ID), 400, "another bridge interface as parent"},
		{admin, "POST", "machines/abc123/?op=release", "", 200, ""},
		{admin, "GET", "nodes/abc123/interfaces/br-eth0/", "", 404, ""},
		{admin, "GET", "nodes/abc123/interfaces/eth0/", "", 200, `"ip_address": "10.0.0.9"`},
		{admin, "GET", "nodes/abc123/interfaces/bond0/", "", 200, `"mode": "link_up"`},
	})
}

func TestDevices(t *testing.T) {
	e := servertest.New(t)
	admin, user := e.Admin, e.User
	addMachine(t, e, "abc123", storage.StatusReady)
	run(t, []step{
		{e.Anon, "GET", "devices/", "", 400, "Unrecognised signature: method=GET op=None"},
		{user, "POST", "devices/", "", 400, `"mac_addresses": [ "This field is required." ]`},
		{user, "POST", "devices/", "mac_addresses=nonsense", 400, "One or more MAC addresses is invalid. ('nonsense' is not a valid MAC address.)"},
		{user, "POST", "devices/", "mac_addresses=52:54:00:00:00:01", 400, "MAC address 52:54:00:00:00:01 already in use on host-abc123."},
		{user, "POST", "devices/", "mac_addresses=52:54:00:dd:00:01&hostname=printer&parent=nope00", 400, `"parent"`},
		{user, "POST", "devices/", "mac_addresses=52:54:00:dd:00:01&hostname=printer&domain=nowhere", 400, `"domain"`},
		{admin, "POST", "domains/", "name=lab", 200, ""},
		{admin, "PUT", "machines/abc123/", "domain=lab", 200, ""},
		{user, "POST", "devices/", "mac_addresses=52:54:00:dd:00:01&mac_addresses=52-54-00-DD-00-02&hostname=printer&parent=abc123", 200, `"fqdn": "printer.lab"`},
		{user, "POST", "devices/", "mac_addresses=52:54:00:dd:00:03&hostname=printer", 400, "Node with this Hostname already exists."},
		{admin, "POST", "devices/", "mac_addresses=52:54:00:dd:00:04&hostname=scanner", 200, `"owner": "admin"`},
		{user, "GET", "devices/", "", 200, `"hostname": "printer"`},
		{admin, "GET", "devices/?hostname=scanner", "", 200, `"hostname": "scanner"`},
		{admin, "GET", "devices/?nonsense=1", "", 400, "No such constraint."},
		{user, "GET", "devices/abc123/", "", 404, "No Device matches the given query."},
		{user, "GET", "devices/?op=is_registered&mac_address=52:54:00:dd:00:01", "", 200, "true"},
	})
	var mine, all []api.Device
	user.Get("devices/").Into(t, &mine)
	admin.Get("devices/").Into(t, &all)
	if len(mine) != 1 || len(all) != 2 || mine[0].Parent == nil || *mine[0].Parent != "abc123" || len(mine[0].InterfaceSet) != 2 || mine[0].NodeTypeName != "Device" {
		t.Fatalf("own devices %+v, all %d", mine, len(all))
	}
	own, other := "devices/"+mine[0].SystemID+"/", "devices/"+all[1].SystemID+"/"
	nics := "nodes/" + mine[0].SystemID + "/interfaces/"
	run(t, []step{
		{user, "PUT", own, "hostname=copier&description=d&parent=", 200, `"parent": null`},
		{user, "PUT", own, "zone=nowhere", 400, "Select a valid choice."},
		{user, "PUT", own, "parent=" + mine[0].SystemID, 400, "is not one of the available choices"},
		{user, "PUT", other, "hostname=x", 403, ""},
		{user, "DELETE", other, "", 403, ""},
		{user, "GET", own + "?op=power_parameters", "", 403, ""},
		{admin, "GET", own + "?op=power_parameters", "", 200, "{}"},
		{user, "POST", own + "?op=set_workload_annotations", "role=db&team=x", 200, `"role": "db"`},
		{user, "POST", own + "?op=set_owner_data", "team=", 200, `"owner_data": { "role": "db" }`},
		{admin, "POST", own + "?op=set_owner_data", "a=b", 409, ""},
		{admin, "POST", "zones/", "name=z1", 200, ""},
		{admin, "POST", "devices/?op=set_zone", "zone=z1&nodes=" + mine[0].SystemID, 200, "null"},
		{user, "GET", own, "", 200, `"name": "z1"`},

		{admin, "POST", "subnets/", "cidr=10.0.0.0/24", 200, ""},
		{user, "POST", nics + "eth0/?op=link_subnet", "mode=AUTO&subnet=1", 400, ""},
		{user, "POST", nics + "eth0/?op=link_subnet", "mode=DHCP&subnet=1", 400, ""},
		{user, "POST", nics + "eth0/?op=link_subnet", "mode=LINK_UP", 400, ""},
		{user, "POST", nics + "eth0/?op=link_subnet", "mode=STATIC&subnet=1&ip_address=10.0.0.50", 200, `"ip_address": "10.0.0.50"`},
		{user, "POST", nics + "?op=create_physical", "mac_address=52:54:00:dd:00:09", 200, `"name": "eth2"`},
		{user, "GET", own, "", 200, `"ip_addresses": [ "10.0.0.50" ]`},
		{user, "POST", own + "?op=restore_networking_configuration", "", 403, ""},
		{admin, "POST", own + "?op=restore_networking_configuration", "", 200, `"ip_addresses": []`},
		{admin, "POST", own + "?op=restore_default_configuration", "", 200, ""},
		{user, "DELETE", own, "", 204, ""},
		{user, "GET", own, "", 404, "No Device matches the given query."},
		{admin, "DELETE", other, "", 204, ""},
	})
	a := admin.Get("devices/nope00/?op=details")
	if a.Status != 404 {
		t.Errorf("details of nothing: %d", a.Status)
	}
	var d api.Device
	user.Post("devices/", "mac_addresses", "52:54:00:dd:00:01").Into(t, &d)
	if a := user.Get("devices/" + d.SystemID + "/?op=details"); a.Status != 200 || len(a.Body) != 17 || a.Body[0] != 17 {
		t.Errorf("details: %d %x", a.Status, a.Body)
	}
}

// A device ends with the machine that it runs on.
func TestReleaseDropsChildren(t *testing.T) {
	e := servertest.New(t)
	addMachine(t, e, "abc123", storage.StatusReady)
	run(t, []step{
		{e.User, "POST", "machines/?op=allocate", "", 200, ""},
		{e.User, "POST", "devices/", "mac_addresses=52:54:00:dd:00:01&hostname=lxd0&parent=abc123", 200, ""},
		{e.User, "POST", "machines/abc123/?op=release", "", 200, ""},
		{e.User, "GET", "devices/", "", 200, "[]"},
	})
}
