package server_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/ingot-metal/ingot/api"
	"github.com/ingot-metal/ingot/server/servertest"
	"github.com/ingot-metal/ingot/storage"
)

// step is one call and what must come back. want is a part of the body.
type step struct {
	who    *servertest.Caller
	method string
	path   string
	form   string // k=v&k=v, unescaped
	status int
	want   string
}

func run(t *testing.T, steps []step) {
	t.Helper()
	for _, s := range steps {
		var pairs []string
		if s.form != "" {
			for kv := range strings.SplitSeq(s.form, "&") {
				k, v, _ := strings.Cut(kv, "=")
				pairs = append(pairs, k, v)
			}
		}
		var a servertest.Answer
		switch s.method {
		case "GET":
			a = s.who.Get(s.path)
		case "POST":
			a = s.who.Post(s.path, pairs...)
		case "PUT":
			a = s.who.Put(s.path, pairs...)
		case "DELETE":
			a = s.who.Delete(s.path)
		}
		body := strings.Join(strings.Fields(a.Text()), " ")
		if a.Status != s.status || !strings.Contains(body, s.want) {
			t.Errorf("%s %s %s (%s): %d %s; want %d with %q", s.who.User.Username, s.method, s.path, s.form, a.Status, body, s.status, s.want)
		}
	}
}

func TestZonesPoolsTags(t *testing.T) {
	e := servertest.New(t)
	admin, user := e.Admin, e.User
	node := addMachine(t, e, "abc123", storage.StatusReady)
	run(t, []step{
		{user, "GET", "zones/", "", 200, `"name": "default"`},
		{user, "POST", "zones/", "name=z1", 403, "can_edit_global_entities"},
		{admin, "POST", "zones/", "name=", 400, "This field is required."},
		{admin, "POST", "zones/", "name=!bad", 400, "Enter a valid value."},
		{admin, "POST", "zones/", "name=z1&description=one", 200, `"resource_uri": "/MAAS/api/2.0/zones/z1/"`},
		{admin, "POST", "zones/", "name=z1", 400, "Physical zone with this Name already exists."},
		{admin, "PUT", "zones/z1/", "name=z2", 200, `"name": "z2"`},
		{admin, "GET", "zones/z1/", "", 404, "No Zone matches the given query."},
		{admin, "DELETE", "zones/default/", "", 400, "This zone is the default zone, it cannot be deleted."},
		{admin, "DELETE", "zones/nowhere/", "", 204, ""},
		{user, "DELETE", "zones/z2/", "", 403, ""},
		{admin, "DELETE", "zones/z2/", "", 204, ""},
		{admin, "PUT", "zones/default/", "name=first", 200, `"name": "first"`},

		{user, "GET", "resourcepools/", "", 200, `"id": 0`},
		{user, "POST", "resourcepools/", "name=p1", 403, ""},
		{admin, "POST", "resourcepools/", "name=p1", 200, `"name": "p1"`},
		{admin, "POST", "resourcepools/", "name=p1", 400, "already exists"},
		{admin, "GET", "resourcepool/p1/", "", 200, `"name": "p1"`},
		{admin, "PUT", "resourcepool/p1/", "description=x", 200, `"description": "x"`},
		{admin, "PUT", "resourcepool/nope/", "description=x", 404, "No ResourcePool matches the given query."},
		{admin, "DELETE", "resourcepool/0/", "", 400, "default pool"},
		{admin, "PUT", "machines/abc123/", "pool=p1", 200, `"name": "p1"`},
		{admin, "DELETE", "resourcepool/p1/", "", 400, "contains 1 machine"},
		{admin, "PUT", "machines/abc123/", "pool=default", 200, ""},
		{user, "DELETE", "resourcepool/p1/", "", 403, ""},
		{admin, "DELETE", "resourcepool/p1/", "", 204, ""},

		{user, "POST", "tags/", "name=t1", 403, ""},
		{admin, "POST", "tags/", "name=b@d", 400, "Enter a valid value."},
		{admin, "POST", "tags/", "name=t1&definition=invalid::tag", 400, "Invalid xpath expression: unknown axis invalid"},
		{admin, "POST", "tags/", "name=t0&definition=//node[@id=x]", 200, `"definition": "//node[@id=x]"`},
		{admin, "PUT", "tags/t0/", "definition=", 200, `"definition": ""`},
		{admin, "DELETE", "tags/t0/", "", 204, ""},
		{admin, "POST", "tags/", "name=t1&comment=c&kernel_opts=nosmt", 200, `"definition": ""`},
		{user, "GET", "tags/", "", 200, `"name": "t1"`},
		{user, "GET", "tags/t1/", "", 200, `"kernel_opts": "nosmt"`},
		{user, "POST", "tags/t1/?op=update_nodes", "add=abc123", 403, ""},
		{admin, "POST", "tags/nope/?op=update_nodes", "add=abc123", 404, "No Tag matches the given query."},
		{admin, "POST", "tags/t1/?op=update_nodes", "add=abc123&definition=//x", 409, "Definition supplied '//x' doesn't match current definition ''"},
		{admin, "POST", "tags/t1/?op=update_nodes", "add=abc123&add=zzzzzz&remove=yyyyyy", 200, `"added": 1, "removed": 0`},
		{admin, "POST", "tags/t1/?op=update_nodes", "add=abc123", 200, `"added": 0, "removed": 0`},
		{user, "GET", "tags/t1/?op=machines", "", 200, `"system_id": "abc123"`},
		{user, "GET", "tags/t1/?op=nodes", "", 200, `"system_id": "abc123"`},
		{user, "GET", "tags/nope/?op=nodes", "", 404, "No Tag matches the given query."},
		{user, "GET", "tags/t1/?op=rack_controllers", "", 200, "[]"},
		{admin, "GET", "tags/t1/?op=region_controllers", "", 200, "[]"},
		{user, "GET", "tags/t1/?op=devices", "", 200, "[]"},
		{admin, "POST", "tags/t1/?op=rebuild", "", 200, `"rebuilding": "t1"`},
		{admin, "PUT", "tags/t1/", "name=t2", 200, `"resource_uri": "/MAAS/api/2.0/tags/t2/"`},
		{admin, "POST", "tags/t2/?op=update_nodes", "remove=abc123", 200, `"added": 0, "removed": 1`},
		{admin, "DELETE", "tags/t2/", "", 204, ""},
		{e.Anon, "GET", "tags/", "", 401, ""},

		{user, "GET", "domains/", "", 200, `"is_default": true`},
		{admin, "POST", "domains/", "name=a..b", 400, "DNS name contains an empty label."},
		{admin, "POST", "domains/", "name=lab.example&ttl=0", 400, "greater than or equal to 1"},
		{admin, "POST", "domains/", "name=lab.example&ttl=60", 200, `"ttl": 60`},
		{admin, "PUT", "domains/lab.example/", "ttl=", 200, `"ttl": null`},
		{user, "PUT", "domains/lab.example/", "ttl=5", 403, ""},
		{admin, "DELETE", "domains/0/", "", 400, "This domain is the default domain, it cannot be deleted."},
		{admin, "DELETE", "domains/lab.example/", "", 204, ""},
	})
	_ = node
}

// addMachine puts a machine with one interface on the default VLAN into the store.
func addMachine(t *testing.T, e *servertest.Env, systemID string, st storage.NodeStatus) storage.Interface {
	t.Helper()
	var nic storage.Interface
	err := e.DB.Write(t.Context(), func(tx *storage.Tx) error {
		pool, vlan := storage.DefaultPoolID, storage.DefaultVLANID
		n := storage.Node{SystemID: systemID, Hostname: "host-" + systemID, DomainID: storage.DefaultDomainID, ZoneID: storage.DefaultZoneID, PoolID: &pool,
			Status: st, Architecture: "amd64/generic", PowerType: "manual", PowerState: "off"}
		if err := tx.InsertNode(&n); err != nil {
			return err
		}
		nic = storage.Interface{NodeID: n.ID, Name: "eth0", MACAddress: fmt.Sprintf("52:54:00:00:00:%02x", n.ID), VLANID: &vlan, Enabled: true, LinkConnected: true}
		return tx.InsertInterface(&nic)
	})
	if err != nil {
		t.Fatal(err)
	}
	return nic
}

func TestNetworkObjects(t *testing.T) {
	e := servertest.New(t)
	admin, user := e.Admin, e.User
	run(t, []step{
		{user, "GET", "fabrics/", "", 200, `"name": "fabric-0"`},
		{user, "POST", "fabrics/", "name=f", 403, ""},
		{admin, "POST", "fabrics/", "name=fabric-7", 400, "Reserved fabric name."},
		{admin, "POST", "fabrics/", "name=f1&class_type=10g", 200, `"class_type": "10g"`},
		{admin, "POST", "fabrics/", "name=f1", 400, "Fabric with this Name already exists."},
		{admin, "POST", "fabrics/", "", 200, `"name": "fabric-`},
		{admin, "GET", "fabrics/f1/", "", 200, `"name": "untagged"`},
		{admin, "GET", "fabrics/nope/", "", 404, "No Fabric matches the given query."},
		{admin, "DELETE", "fabrics/0/", "", 400, "default fabric"},
		{admin, "PUT", "fabrics/f1/", "description=d&class_type=", 200, `"class_type": null`},

		{admin, "POST", "fabrics/f1/vlans/", "", 400, `"VID must be between 0 and 4094."`},
		{admin, "POST", "fabrics/f1/vlans/", "", 400, `"This field is required."`},
		{user, "POST", "fabrics/f1/vlans/", "", 403, ""},
		{admin, "POST", "fabrics/f1/vlans/", "vid=4095", 400, "VID must be between 0 and 4094."},
		{admin, "POST", "fabrics/f1/vlans/", "vid=x", 400, "Enter a whole number."},
		{admin, "POST", "fabrics/f1/vlans/", "vid=0", 400, "A VLAN with the specified VID already exists in the destination fabric."},
		{admin, "POST", "fabrics/f1/vlans/", "vid=10&mtu=100", 400, "MTU must be between 552 and 65535."},
		{admin, "POST", "fabrics/f1/vlans/", "vid=10&mtu=9000", 200, `"name": "10"`},
		{admin, "GET", "fabrics/f1/vlans/10/", "", 200, `"mtu": 9000`},
		{admin, "GET", "fabrics/f1/vlans/", "", 200, `"vid": 10`},
		{admin, "GET", "vlans/99/", "", 404, "No VLAN matches the given query."},
		{admin, "PUT", "fabrics/f1/vlans/10/", "dhcp_on=true", 400, "dhcp can only be turned on when a dynamic IP range is defined."},
		{admin, "PUT", "fabrics/f1/vlans/10/", "primary_rack=nope", 400, "Select a valid choice."},
		{admin, "PUT", "fabrics/f1/vlans/10/", "relay_vlan=1", 400, "Select a valid choice."},
		{admin, "PUT", "fabrics/f1/vlans/10/", "relay_vlan=5001", 200, `"id": 5001`},
		{admin, "PUT", "fabrics/f1/vlans/10/", "relay_vlan=", 200, `"relay_vlan": null`},
		{admin, "DELETE", "fabrics/f1/vlans/0/", "", 400, "This VLAN is the default VLAN in the fabric, it cannot be deleted."},

		{admin, "POST", "spaces/", "", 200, `"name": "space-`},
		{admin, "POST", "spaces/", "name=undefined", 400, "Reserved space name."},
		{admin, "POST", "spaces/", "name=mgmt", 200, `"vlans": []`},
		{user, "POST", "spaces/", "name=x", 403, ""},
		{user, "GET", "spaces/", "", 200, `"id": -1`},
		{user, "GET", "spaces/undefined/", "", 200, `"name": "undefined"`},
		{admin, "PUT", "spaces/undefined/", "name=x", 400, "Space cannot be modified: undefined"},
		{admin, "DELETE", "spaces/-1/", "", 400, "Space cannot be deleted: undefined"},
		{admin, "PUT", "fabrics/f1/vlans/10/", "space=mgmt", 200, `"space": "mgmt"`},
		{admin, "PUT", "fabrics/f1/vlans/10/", "mtu=1500", 200, `"space": "mgmt"`},
		{admin, "PUT", "fabrics/f1/vlans/10/", "space=", 200, `"space": "undefined"`},
		{admin, "PUT", "fabrics/f1/vlans/10/", "space=nowhere", 400, "Select a valid choice."},
		{admin, "DELETE", "spaces/mgmt/", "", 204, ""},

		{admin, "POST", "subnets/", "", 400, `"cidr": [ "This field is required." ]`},
		{user, "POST", "subnets/", "cidr=10.9.0.0/24", 403, ""},
		{admin, "POST", "subnets/", "cidr=nonsense", 400, "Enter a valid CIDR."},
		{admin, "POST", "subnets/", "cidr=10.0.0.0/0", 400, "Prefix length must be greater than 0."},
		{admin, "POST", "subnets/", "cidr=10.0.0.0/24&gateway_ip=10.1.0.1", 400, "Gateway IP must be within CIDR range."},
		{admin, "POST", "subnets/", "cidr=10.0.0.0/24&gateway_ip=x", 400, "Enter a valid IPv4 or IPv6 address."},
		{admin, "POST", "subnets/", "cidr=10.0.0.0/24&dns_servers=1.1.1.1 x", 400, "'x' is not a valid IP address."},
		{admin, "POST", "subnets/", "cidr=10.0.0.0/24&vlan=1", 400, "Select a valid choice."},
		{admin, "POST", "subnets/", "cidr=10.0.0.0/24&rdns_mode=9", 400, "Select a valid choice. 9 is not one of the available choices."},
		{admin, "POST", "subnets/", "cidr=10.0.0.0/24&space=x", 400, "Spaces may no longer be set on subnets."},
		{admin, "POST", "subnets/", "cidr=10.0.0.7/24&gateway_ip=10.0.0.1&dns_servers=1.1.1.1,9.9.9.9", 200, `"name": "10.0.0.0/24"`},
		{admin, "POST", "subnets/", "cidr=10.0.0.0/24", 400, "Subnet with this Cidr already exists."},
		{user, "GET", "subnets/10.0.0.0/24/", "", 200, `"dns_servers": [ "1.1.1.1", "9.9.9.9" ]`},
		{user, "GET", "subnets/cidr:10.0.0.0/24/", "", 200, `"managed": true`},
		{user, "GET", "subnets/77/", "", 404, "No Subnet matches the given query."},
		{admin, "PUT", "subnets/10.0.0.0/24/", "name=lab&allow_dns=0", 200, `"allow_dns": false`},
		{admin, "PUT", "subnets/lab/", "gateway_ip=&dns_servers=", 200, `"dns_servers": []`},
		{admin, "PUT", "subnets/lab/", "gateway_ip=10.0.0.1", 200, `"gateway_ip": "10.0.0.1"`},
		{user, "PUT", "subnets/lab/", "name=x", 403, ""},
		{admin, "PUT", "subnets/lab/", "cidr=10.0.0.0/25", 200, `"cidr": "10.0.0.0/25"`},
		{admin, "PUT", "subnets/lab/", "cidr=10.0.0.0/24", 200, `"name": "lab"`},

		{user, "POST", "ipranges/", "type=dynamic&start_ip=10.0.0.100&end_ip=10.0.0.110", 403, "Unable to create dynamic IP range. You don't have sufficient privileges."},
		{admin, "POST", "ipranges/", "start_ip=10.0.0.100&end_ip=10.0.0.110", 400, `"type": [ "This field is required." ]`},
		{admin, "POST", "ipranges/", "type=odd&start_ip=10.0.0.100&end_ip=10.0.0.110", 400, "Select a valid choice. odd is not one of the available choices."},
		{admin, "POST", "ipranges/", "type=dynamic&start_ip=10.0.0.110&end_ip=10.0.0.100", 400, "End IP address must not be less than Start IP address."},
		{admin, "POST", "ipranges/", "type=dynamic&start_ip=10.0.0.100&end_ip=10.0.1.1", 400, "End IP address must be within subnet: 10.0.0.0/24."},
		{admin, "POST", "ipranges/", "type=dynamic&start_ip=10.0.0.0&end_ip=10.0.0.9", 400, "Reserved network address cannot be included in IP range."},
		{admin, "POST", "ipranges/", "type=dynamic&start_ip=10.0.0.200&end_ip=10.0.0.255", 400, "Broadcast address cannot be included in IP range."},
		{admin, "POST", "ipranges/", "type=dynamic&start_ip=10.0.0.1&end_ip=10.0.0.9", 400, "Requested dynamic range conflicts with an existing IP address or range."},
		{admin, "POST", "ipranges/", "type=dynamic&start_ip=10.0.0.100&end_ip=10.0.0.110&comment=c", 200, `"username": "admin"`},
		{admin, "POST", "ipranges/", "type=reserved&start_ip=10.0.0.105&end_ip=10.0.0.120", 400, "Requested reserved range conflicts with an existing range."},
		{admin, "POST", "ipranges/", "type=dynamic&start_ip=11.0.0.1&end_ip=11.0.0.9", 400, `"subnet"`},
		{user, "POST", "ipranges/", "type=reserved&start_ip=10.0.0.50&end_ip=10.0.0.60", 200, `"username": "user"`},
		{user, "PUT", "ipranges/1/", "comment=mine", 403, "Unable to modify IP range. You don't own the IP range."},
		{user, "DELETE", "ipranges/1/", "", 403, "You don't own the IP range."},
		{user, "PUT", "ipranges/2/", "end_ip=10.0.0.61", 200, `"end_ip": "10.0.0.61"`},
		{admin, "PUT", "ipranges/1/", "end_ip=10.0.0.119", 200, `"end_ip": "10.0.0.119"`},
		{admin, "GET", "ipranges/99/", "", 404, "No IPRange matches the given query."},
		{user, "GET", "ipranges/", "", 200, `"type": "dynamic"`},
		{user, "GET", "subnets/lab/?op=reserved_ip_ranges", "", 200, `"purpose": [ "gateway-ip" ]`},
		{user, "GET", "subnets/lab/?op=unreserved_ip_ranges", "", 200, `"start": "10.0.0.2", "end": "10.0.0.49", "num_addresses": 48`},
		{user, "GET", "subnets/lab/?op=statistics&include_ranges=true&include_suggestions=true", "", 200, `"num_unavailable": 33`},
		{user, "GET", "subnets/lab/?op=ip_addresses", "", 200, `[]`},
		{e.Anon, "GET", "subnets/lab/?op=reserved_ip_ranges", "", 401, ""},
		{admin, "PUT", "subnets/lab/", "cidr=10.0.0.0/26", 400, "does not lie in 10.0.0.0/26"},
		{admin, "DELETE", "fabrics/0/", "", 400, ""},
		{user, "DELETE", "ipranges/2/", "", 204, ""},
		{user, "DELETE", "subnets/lab/", "", 403, ""},
	})
	if a := admin.Get("subnets/lab/?op=statistics"); strings.Contains(a.Text(), "ranges") {
		t.Errorf("statistics have ranges although nobody asked: %s", a.Text())
	}

	// DHCP needs a rack: the one that serves the VLAN becomes its primary one.
	run(t, []step{{admin, "PUT", "vlans/5001/", "dhcp_on=true", 400, "dhcp can only be turned on when a primary rack controller is set."}})
	err := e.DB.Write(t.Context(), func(tx *storage.Tx) error {
		n := storage.Node{SystemID: "rack01", NodeType: storage.NodeRack, Hostname: "rack", DomainID: storage.DefaultDomainID, ZoneID: storage.DefaultZoneID}
		if err := tx.InsertNode(&n); err != nil {
			return err
		}
		_, err := tx.SetRackVLANs(n.ID, []storage.RackVLAN{{RackID: n.ID, VLANID: storage.DefaultVLANID, Interface: "eth0", Address: "10.0.0.2/24"}})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	run(t, []step{
		{admin, "PUT", "vlans/5001/", "dhcp_on=true", 200, `"primary_rack": "rack01"`},
		{admin, "PUT", "vlans/5001/", "primary_rack=", 400, "primary rack"},
		{admin, "DELETE", "subnets/lab/?force=true", "", 400, "actively servicing a dynamic IP range"},
		{admin, "PUT", "vlans/5001/", "dhcp_on=false&primary_rack=", 200, `"primary_rack": null`},
		{admin, "DELETE", "subnets/lab/", "", 204, ""},
		{admin, "DELETE", "fabrics/f1/vlans/10/", "", 204, ""},
		{admin, "DELETE", "fabrics/f1/", "", 204, ""},
	})
}

func TestInterfaces(t *testing.T) {
	e := servertest.New(t)
	admin, user := e.Admin, e.User
	nic := addMachine(t, e, "abc123", storage.StatusReady)
	addMachine(t, e, "dep123", storage.StatusDeployed)
	addMachine(t, e, "dpl123", storage.StatusDeploying)
	path := fmt.Sprintf("nodes/abc123/interfaces/%d/", nic.ID)
	run(t, []step{
		{admin, "POST", "subnets/", "cidr=10.0.0.0/24&gateway_ip=10.0.0.1", 200, ""},
		{admin, "POST", "subnets/", "cidr=10.5.0.0/24", 200, ""},
		{admin, "POST", "fabrics/0/vlans/", "vid=20", 200, `"id": 5002`},
		{admin, "POST", "subnets/", "cidr=10.20.0.0/24&vlan=5002", 200, ""},
		{admin, "POST", "ipranges/", "type=dynamic&start_ip=10.0.0.100&end_ip=10.0.0.110", 200, ""},
		{user, "GET", "nodes/abc123/interfaces/", "", 200, `"name": "eth0"`},
		{user, "GET", "nodes/abc123/interfaces/eth0/", "", 200, `"effective_mtu": 1500`},
		{user, "GET", "nodes/abc123/interfaces/77/", "", 404, "No Interface matches the given query."},
		{user, "GET", "nodes/zzzzzz/interfaces/", "", 404, "No Node matches the given query."},
		{user, "POST", path + "?op=link_subnet", "mode=AUTO&subnet=1", 403, ""},
		{admin, "POST", path + "?op=link_subnet", "", 400, `"mode": [ "This field is required." ]`},
		{admin, "POST", path + "?op=link_subnet", "mode=odd", 400, "Select a valid choice. odd is not one of the available choices."},
		{admin, "POST", path + "?op=link_subnet", "mode=AUTO", 400, `"subnet": [ "This field is required." ]`},
		{admin, "POST", path + "?op=link_subnet", "mode=STATIC&subnet=1&ip_address=10.1.0.1", 400, "IP address is not in the given subnet '10.0.0.0/24'."},
		{admin, "POST", path + "?op=link_subnet", "mode=STATIC&subnet=1&ip_address=10.0.0.105", 400, "dynamic range"},
		{admin, "POST", path + "?op=link_subnet", "mode=STATIC&subnet=1&ip_address=10.0.0.1", 400, "gateway"},
		{admin, "POST", path + "?op=link_subnet", "mode=STATIC&subnet=1&ip_address=10.0.0.255", 400, "broadcast"},
		{admin, "POST", path + "?op=link_subnet", "mode=STATIC&subnet=1&ip_address=bogus", 400, "Enter a valid IPv4 or IPv6 address."},
		{admin, "POST", path + "?op=link_subnet", "mode=STATIC&subnet=2&default_gateway=true", 400, "doesn't provide a gateway"},
		{admin, "POST", path + "?op=link_subnet", "mode=LINK_UP", 200, `"mode": "link_up"`},
		{admin, "POST", path + "?op=link_subnet", "mode=STATIC&subnet=1&ip_address=10.0.0.9&default_gateway=true", 200, `"ip_address": "10.0.0.9"`},
		{admin, "GET", "machines/abc123/", "", 200, `"gateway_ip": "10.0.0.1", "link_id"`},
		{admin, "POST", path + "?op=link_subnet", "mode=STATIC&subnet=1&ip_address=10.0.0.9", 400, "IP address is already in use."},
		{admin, "POST", path + "?op=link_subnet", "mode=AUTO&subnet=2", 200, `"mode": "auto"`},
		{admin, "POST", path + "?op=link_subnet", "mode=AUTO&subnet=3", 400, "Select a valid choice."},
		{admin, "POST", path + "?op=link_subnet", "mode=LINK_UP", 400, "Specify force=True"},
		{admin, "POST", path + "?op=unlink_subnet", "", 400, `"id": [ "This field is required." ]`},
		{admin, "POST", path + "?op=unlink_subnet", "id=4242", 400, "4242 is not one of the available choices."},
		{admin, "POST", path + "?op=set_default_gateway", "", 200, `"mode": "static"`},
		{admin, "POST", "machines/abc123/?op=clear_default_gateways", "", 200, `"system_id": "abc123"`},
		{user, "GET", "subnets/1/?op=ip_addresses", "", 200, `"via": "eth0"`},
		{admin, "DELETE", "subnets/1/", "", 400, "in use by nodes"},
		{admin, "POST", path + "?op=add_tag", "tag=", 400, ""},
		{admin, "POST", path + "?op=add_tag", "tag=sriov", 200, `"sriov"`},
		{admin, "POST", path + "?op=remove_tag", "tag=sriov", 200, `"tags": []`},
		{admin, "PUT", path, "mac_address=nonsense", 400, "'nonsense' is not a valid MAC address."},
		{admin, "PUT", path, "mtu=100", 400, "greater than or equal to 552"},
		{admin, "PUT", path, "name=enp1s0&mtu=9000", 200, `"effective_mtu": 9000`},
		{admin, "PUT", path, "mtu=", 200, `"params": {}`},
		{admin, "PUT", path, "interface_speed=100&link_speed=1000", 400, "Link speed should not exceed interface speed."},
		{admin, "PUT", path, "parents=1", 400, ""},
		{admin, "PUT", path, "vlan=nope", 400, "Select a valid choice."},
		{user, "PUT", path, "name=x", 403, ""},
		{admin, "POST", path + "?op=link_subnet", "mode=DHCP&subnet=3&force=true", 200, `"mode": "dhcp"`},
		{admin, "GET", path, "", 200, `"vid": 20`},
		{admin, "POST", path + "?op=disconnect", "", 200, `"vlan": null`},
		{admin, "POST", path + "?op=set_default_gateway", "", 400, "This interface has no usable gateways."},
		{admin, "POST", "nodes/dpl123/interfaces/eth0/?op=link_subnet", "mode=AUTO&subnet=1", 409, "Cannot link subnet interface because the machine is not New, Ready, Allocated, or Broken."},
		{admin, "PUT", "nodes/dep123/interfaces/eth0/", "name=eth9&vlan=5002", 200, `"vid": 0`},
		{admin, "PUT", "nodes/dpl123/interfaces/eth0/", "name=eth9", 409, "Cannot update interface"},
		{admin, "POST", "nodes/abc123/interfaces/?op=create_physical", "", 400, `"mac_address": [ "This field is required." ]`},
		{admin, "POST", "nodes/abc123/interfaces/?op=create_physical", "mac_address=" + nic.MACAddress, 400, "This MAC address is already in use by host-abc123."},
		{admin, "POST", "nodes/abc123/interfaces/?op=create_physical", "mac_address=AABB.CCDD.EEFF&vlan=5002&tags=a,b", 200, `"mac_address": "AABB.CCDD.EEFF"`},
		{admin, "DELETE", "nodes/abc123/interfaces/eth1/", "", 204, ""},
	})
	// The last link of an interface leaves "link up" behind.
	var got api.Interface
	admin.Post(path+"?op=link_subnet", "mode", "auto", "subnet", "1").Into(t, &got)
	i := slices.IndexFunc(got.Links, func(l api.InterfaceLink) bool { return l.Mode == "auto" })
	if i < 0 {
		t.Fatalf("links %+v", got.Links)
	}
	var after api.Interface
	admin.Post(path+"?op=unlink_subnet", "id", fmt.Sprint(got.Links[i].ID)).Into(t, &after)
	if len(after.Links) != 1 || after.Links[0].Mode != "link_up" {
		t.Errorf("after the last unlink: %+v", after.Links)
	}
	if a := admin.Send(http.MethodPost, "nodes/rack01/interfaces/eth0/?op=link_subnet", "", nil); a.Status != 404 && a.Status != 400 {
		t.Errorf("an unknown rack: %d", a.Status)
	}
}
