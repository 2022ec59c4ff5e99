package server_test

import (
	"encoding/base64"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/ingot-metal/ingot/api"
	"github.com/ingot-metal/ingot/server/servertest"
	"github.com/ingot-metal/ingot/storage"
)

func TestIPAddresses(t *testing.T) {
	e := servertest.New(t)
	admin, user := e.Admin, e.User
	addMachine(t, e, "abc123", storage.StatusReady)
	run(t, []step{
		{admin, "POST", "subnets/", "cidr=10.0.0.0/29&gateway_ip=10.0.0.1", 200, ""},
		{admin, "POST", "subnets/", "cidr=10.1.0.0/24", 200, ""},
		{admin, "POST", "ipranges/", "type=dynamic&start_ip=10.1.0.100&end_ip=10.1.0.110", 200, ""},
		{e.Anon, "GET", "ipaddresses/", "", 401, ""},
		{user, "POST", "ipaddresses/?op=reserve", "", 400, "Must supply either the 'subnet' or the 'ip' parameter."},
		{user, "POST", "ipaddresses/?op=reserve", "ip=bad", 400, `"ip_address": [ "Enter a valid IPv4 or IPv6 address." ]`},
		{user, "POST", "ipaddresses/?op=reserve", "ip=192.0.2.1", 400, "No known subnet for IP address: 192.0.2.1."},
		{user, "POST", "ipaddresses/?op=reserve", "subnet=nowhere", 400, "Unable to identify subnet: nowhere."},
		{user, "POST", "ipaddresses/?op=reserve", "ip=10.1.0.105", 403, "IP address 10.1.0.105 belongs to an existing dynamic range. To reserve this IP address, a MAC address is required. (Create a device instead.)"},
		{user, "POST", "ipaddresses/?op=reserve", "ip=10.1.0.5&mac=52:54:00:00:00:01", 400, "MAC address 52:54:00:00:00:01 already belongs to host-abc123."},
		{user, "POST", "ipaddresses/?op=reserve", "ip=10.1.0.5&hostname=h.nowhere", 404, "No Domain matches the given query."},
		{user, "POST", "ipaddresses/?op=reserve", "subnet=1", 200, `"ip": "10.0.0.2"`},
		{user, "POST", "ipaddresses/?op=reserve", "ip=10.0.0.2", 404, "The IP address 10.0.0.2 is already in use."},
		{user, "POST", "ipaddresses/?op=reserve", "ip=10.0.0.1", 404, "10.0.0.1"},
		{user, "POST", "ipaddresses/?op=reserve", "ip=10.1.0.5&mac=52-54-00-EE-00-01&hostname=nas", 200, `"type": "unknown"`},
		{user, "GET", "ipaddresses/", "", 200, `"mac_address": "52:54:00:ee:00:01"`},
		{user, "GET", "ipaddresses/?ip=10.0.0.2", "", 200, `"alloc_type_name": "User reserved"`},
		{user, "GET", "ipaddresses/?ip=x", "", 400, "Parameter 'ip' must contain an IP address."},
		{user, "GET", "ipaddresses/?all=true", "", 403, "Listing all IP addresses requires admin privileges."},
		{user, "GET", "ipaddresses/?owner=admin", "", 403, "Listing another user's IP addresses requires admin privileges."},
		{admin, "GET", "ipaddresses/", "", 200, "[]"},
		{admin, "GET", "ipaddresses/?owner=user", "", 200, `"username": "user"`},
		{admin, "GET", "ipaddresses/?owner=nobody-here", "", 200, "[]"},
		{admin, "POST", "nodes/abc123/interfaces/eth0/?op=link_subnet", "mode=STATIC&subnet=2&ip_address=10.1.0.9", 200, ""},
		{admin, "POST", "nodes/abc123/interfaces/eth0/?op=link_subnet", "mode=STATIC&subnet=2&ip_address=10.1.0.5", 400, "IP address is already in use."},
		{admin, "GET", "ipaddresses/?all=true", "", 200, `"system_id": "abc123"`},
		{admin, "GET", "dnsresources/?name=nas", "", 200, "10.1.0.5"},
		{user, "GET", "subnets/2/?op=ip_addresses", "", 200, `"domain": "maas"`},
		{user, "POST", "ipaddresses/?op=release", "", 400, ""},
		{user, "POST", "ipaddresses/?op=release", "ip=10.1.0.9", 400, "IP address 10.1.0.9 does not exist, is not the correct type of address, or does not belong to the requesting user."},
		{user, "POST", "ipaddresses/?op=release", "ip=10.1.0.9&force=true", 403, "Force-releasing an IP address requires admin privileges."},
		{admin, "POST", "ipaddresses/?op=release", "ip=10.1.0.77&force=true", 400, "IP address 10.1.0.77 does not exist."},
		{admin, "POST", "ipaddresses/?op=release", "ip=10.1.0.9&force=true", 204, ""},
		{admin, "GET", "nodes/abc123/interfaces/eth0/", "", 200, `"mode": "link_up"`},
		{user, "POST", "ipaddresses/?op=release", "ip=10.0.0.2", 204, ""},
		{user, "POST", "ipaddresses/?op=release", "ip=10.0.0.2", 400, "does not exist"},
	})
	for _, want := range []int{200, 200, 200, 200, 200, 503} { // .2 to .6 of a /29
		if a := user.Post("ipaddresses/?op=reserve", "subnet", "1"); a.Status != want {
			t.Errorf("reserve: %d %s, want %d", a.Status, a.Text(), want)
		}
	}
}

func TestReservedIPs(t *testing.T) {
	e := servertest.New(t)
	admin, user := e.Admin, e.User
	nic := addMachine(t, e, "abc123", storage.StatusReady)
	addMachine(t, e, "def456", storage.StatusReady)
	mac := nic.MACAddress
	run(t, []step{
		{admin, "POST", "subnets/", "cidr=10.0.0.0/24&gateway_ip=10.0.0.1", 200, ""},
		{admin, "POST", "subnets/", "cidr=10.1.0.0/24", 200, ""},
		{admin, "POST", "ipranges/", "type=dynamic&start_ip=10.0.0.100&end_ip=10.0.0.110", 200, ""},
		{user, "POST", "reservedips/", "ip=10.0.0.9&mac_address=" + mac, 403, "can_edit_global_entities"},
		{admin, "POST", "reservedips/", "", 400, `"ip"`},
		{admin, "POST", "reservedips/", "ip=x&mac_address=y", 400, "Enter a valid IPv4 or IPv6 address."},
		{admin, "POST", "reservedips/", "ip=192.0.2.1&mac_address=" + mac, 400, `"subnet": [ "There is no suitable subnet for the IP provided." ]`},
		{admin, "POST", "reservedips/", "ip=10.0.0.9&subnet=2&mac_address=" + mac, 400, "The provided IP is not part of the subnet."},
		{admin, "POST", "reservedips/", "ip=10.0.0.0&mac_address=" + mac, 400, "The network address cannot be a reserved IP."},
		{admin, "POST", "reservedips/", "ip=10.0.0.255&mac_address=" + mac, 400, "The broadcast address cannot be a reserved IP."},
		{admin, "POST", "reservedips/", "ip=10.0.0.105&mac_address=" + mac, 400, "must be outside the dynamic range"},
		{admin, "POST", "reservedips/", "ip=10.0.0.77&mac_address=" + mac + "&comment=web", 200, `"comment": "web"`},
		{admin, "POST", "reservedips/", "ip=10.0.0.77&mac_address=52:54:00:ee:00:01", 400, "Reserved IP with this IP address already exists."},
		{admin, "POST", "reservedips/", "ip=10.0.0.78&mac_address=" + mac, 400, "Reserved IP with this MAC address and Subnet already exists."},
		{user, "GET", "reservedips/", "", 200, `"ip": "10.0.0.77"`},
		{user, "GET", "reservedips/1/", "", 200, `"cidr": "10.0.0.0/24"`},
		{user, "GET", "reservedips/99/", "", 404, "No ReservedIP matches the given query."},
		{admin, "PUT", "reservedips/1/", "comment=new&ip=10.0.0.77&mac_address=" + mac, 200, `"comment": "new"`},
		{admin, "PUT", "reservedips/1/", "ip=10.0.0.78", 400, `"ip"`},
		{admin, "PUT", "reservedips/1/", "mac_address=52:54:00:ee:00:01", 400, `"mac_address"`},
		{admin, "PUT", "reservedips/1/", "subnet=1", 400, `"subnet"`},
		{user, "PUT", "reservedips/1/", "comment=x", 403, ""},
		{admin, "POST", "ipranges/", "type=dynamic&start_ip=10.0.0.70&end_ip=10.0.0.80", 400, "Requested dynamic range conflicts with an existing IP address or range."},
		{user, "POST", "ipaddresses/?op=reserve", "ip=10.0.0.77", 404, "The IP address 10.0.0.77 is already in use."},
		// Another machine cannot have it, this one has no other.
		{admin, "POST", "nodes/def456/interfaces/eth0/?op=link_subnet", "mode=STATIC&subnet=1&ip_address=10.0.0.77", 400, "IP address is reserved for another MAC address."},
		{admin, "POST", "nodes/abc123/interfaces/eth0/?op=link_subnet", "mode=STATIC&subnet=1&ip_address=10.0.0.9", 400, "has the reserved IP 10.0.0.77 in this subnet"},
		{admin, "POST", "nodes/abc123/interfaces/eth0/?op=link_subnet", "mode=STATIC&subnet=1", 200, `"ip_address": "10.0.0.77"`},
		{admin, "PUT", "subnets/1/", "cidr=10.0.0.0/26&gateway_ip=", 400, `"cidr"`},
		{user, "DELETE", "reservedips/1/", "", 403, ""},
		{admin, "DELETE", "reservedips/1/", "", 204, ""},
		{admin, "DELETE", "reservedips/1/", "", 404, ""},
		{admin, "POST", "reservedips/", "ip=10.0.0.77&mac_address=52:54:00:ee:00:01", 400, "is already in use by another machine"},
		{admin, "PUT", "subnets/1/", "cidr=10.0.0.0/25", 200, ""},
	})
}

func TestStaticRoutesAndNetworks(t *testing.T) {
	e := servertest.New(t)
	admin, user := e.Admin, e.User
	nic := addMachine(t, e, "abc123", storage.StatusReady)
	run(t, []step{
		{admin, "POST", "subnets/", "cidr=10.0.0.0/24&name=here&gateway_ip=10.0.0.1&dns_servers=10.0.0.2", 200, ""},
		{admin, "POST", "subnets/", "cidr=10.9.0.0/16&name=there", 200, ""},
		{admin, "POST", "subnets/", "cidr=2001:db8::/64", 200, ""},
		{user, "POST", "static-routes/", "source=1&destination=2&gateway_ip=10.0.0.254", 403, "can_edit_global_entities"},
		{admin, "POST", "static-routes/", "", 400, `"source"`},
		{admin, "POST", "static-routes/", "source=1&destination=nope&gateway_ip=10.0.0.254", 400, `"destination": [ "Select a valid choice.`},
		{admin, "POST", "static-routes/", "source=1&destination=2&gateway_ip=x", 400, "Enter a valid IPv4 or IPv6 address."},
		{admin, "POST", "static-routes/", "source=1&destination=1&gateway_ip=10.0.0.254", 400, "source and destination cannot be the same subnet."},
		{admin, "POST", "static-routes/", "source=1&destination=3&gateway_ip=10.0.0.254", 400, "source and destination must be the same IP version."},
		{admin, "POST", "static-routes/", "source=1&destination=2&gateway_ip=10.1.0.254", 400, "gateway_ip must be with in the source subnet."},
		{admin, "POST", "static-routes/", "source=1&destination=2&gateway_ip=10.0.0.254&metric=-1", 400, "Ensure this value is greater than or equal to 0."},
		{admin, "POST", "static-routes/", "source=here&destination=cidr:10.9.0.0/16&gateway_ip=10.0.0.254", 200, `"metric": 0`},
		{admin, "POST", "static-routes/", "source=1&destination=2&gateway_ip=10.0.0.254", 400, "Static route with this Source, Destination and Gateway IP already exists."},
		{user, "GET", "static-routes/", "", 200, `"gateway_ip": "10.0.0.254"`},
		{user, "GET", "static-routes/1/", "", 200, `"name": "there"`},
		{user, "GET", "static-routes/9/", "", 404, "No StaticRoute matches the given query."},
		{user, "PUT", "static-routes/1/", "metric=5", 403, ""},
		{admin, "PUT", "static-routes/1/", "metric=5", 200, `"metric": 5`},
		{admin, "PUT", "static-routes/1/", "gateway_ip=10.7.0.1", 400, "gateway_ip must be with in the source subnet."},
		{user, "GET", "subnets/1/?op=reserved_ip_ranges", "", 200, `"start": "10.0.0.254"`}, // the gateway of a route is nobody's

		{user, "GET", "networks/", "", 200, `"name": "subnet-1"`},
		{user, "GET", "networks/subnet-1/", "", 200, `"netmask": "255.255.255.0"`},
		{user, "GET", "networks/there/", "", 200, `"default_gateway": null`},
		{user, "GET", "networks/nope/", "", 404, ""},
		{user, "GET", "networks/?node=nope00", "", 400, `"node": [ "Unknown node(s): nope00." ]`},
		{user, "GET", "networks/?node=abc123", "", 200, "[]"},
		{admin, "POST", "nodes/abc123/interfaces/eth0/?op=link_subnet", "mode=AUTO&subnet=1", 200, ""},
		{user, "GET", "networks/?node=abc123", "", 200, `"name": "subnet-1"`},
		{user, "GET", "networks/subnet-1/?op=list_connected_macs", "", 200, `"mac_address": "` + nic.MACAddress + `"`},
		{user, "GET", "networks/subnet-2/?op=list_connected_macs", "", 200, "[]"},
		{admin, "POST", "networks/", "", 410, ""},
		{admin, "PUT", "networks/subnet-1/", "", 410, ""},
		{admin, "DELETE", "networks/subnet-1/", "", 410, ""},
		{admin, "POST", "networks/subnet-1/?op=connect_macs", "", 410, ""},

		{user, "DELETE", "static-routes/1/", "", 403, ""},
		{admin, "DELETE", "static-routes/1/", "", 204, ""},
	})
}

func TestSnippets(t *testing.T) {
	e := servertest.New(t)
	admin, user := e.Admin, e.User
	addMachine(t, e, "abc123", storage.StatusReady)
	run(t, []step{
		{admin, "POST", "subnets/", "cidr=10.0.0.0/24", 200, ""},
		{admin, "POST", "subnets/", "cidr=10.1.0.0/24", 200, ""},
		{admin, "POST", "ipranges/", "type=dynamic&start_ip=10.0.0.100&end_ip=10.0.0.110", 200, ""},
		{user, "POST", "dhcp-snippets/", "name=a&value=b", 403, "can_edit_global_entities"},
		{admin, "POST", "dhcp-snippets/", "name=a", 400, `"value"`},
		{admin, "POST", "dhcp-snippets/", "name=next&value=one;&description=d", 200, `"global_snippet": true`},
		{admin, "POST", "dhcp-snippets/", "name=next&value=two;", 400, `"name"`},
		{admin, "POST", "dhcp-snippets/", "name=n&value=x&node=nope00", 400, `"node"`},
		{admin, "POST", "dhcp-snippets/", "name=n&value=x&subnet=99", 400, `"subnet"`},
		{admin, "POST", "dhcp-snippets/", "name=n&value=x&subnet=1&node=abc123", 400, "Cannot set both a node and a subnet"},
		{admin, "POST", "dhcp-snippets/", "name=n&value=x&iprange=1", 400, "The IP range must belong to the subnet of the snippet."},
		{admin, "POST", "dhcp-snippets/", "name=n&value=x&subnet=1&iprange=1&enabled=false", 200, `"enabled": false`},
		{admin, "PUT", "dhcp-snippets/n/", "node=abc123", 200, `"system_id": "abc123"`},
		{admin, "GET", "dhcp-snippets/n/", "", 200, `"subnet": null`},
		{admin, "PUT", "dhcp-snippets/n/", "global_snippet=true", 200, `"node": null`},
		{admin, "PUT", "dhcp-snippets/next/", "value=two;", 200, `"value": "two;"`},
		{admin, "PUT", "dhcp-snippets/1/", "value=three;", 200, `"value": "three;"`},
		{user, "GET", "dhcp-snippets/1/", "", 200, `"value": "one;"`}, // in the history
		{user, "GET", "dhcp-snippets/nope/", "", 404, ""},
		{user, "POST", "dhcp-snippets/1/?op=revert", "to=-1", 403, ""},
		{admin, "POST", "dhcp-snippets/1/?op=revert", "", 400, "You must specify where to revert to"},
		{admin, "POST", "dhcp-snippets/1/?op=revert", "to=x", 400, "x is an invalid 'to' value"},
		{admin, "POST", "dhcp-snippets/1/?op=revert", "to=99", 400, "99 not found in history"},
		{admin, "POST", "dhcp-snippets/1/?op=revert", "to=-9", 400, "-9 not found in history"},
		{admin, "POST", "dhcp-snippets/1/?op=revert", "to=-1", 200, `"value": "two;"`},
		{admin, "POST", "dhcp-snippets/1/?op=revert", "to=1", 200, `"value": "one;"`},
		{user, "GET", "dhcp-snippets/", "", 200, `"name": "next"`},
		{user, "DELETE", "dhcp-snippets/1/", "", 403, ""},
		{admin, "DELETE", "dhcp-snippets/1/", "", 204, ""},
		{admin, "DELETE", "dhcp-snippets/1/", "", 404, ""},
	})
}

func TestDiscoveries(t *testing.T) {
	e := servertest.New(t)
	admin, user := e.Admin, e.User
	nic := addMachine(t, e, "abc123", storage.StatusReady)
	run(t, []step{
		{admin, "POST", "subnets/", "cidr=10.0.0.0/24", 200, ""},
		{admin, "POST", "ipranges/", "type=dynamic&start_ip=10.0.0.100&end_ip=10.0.0.120", 200, ""},
		{user, "GET", "discovery/", "", 200, "[]"},
		{user, "POST", "discovery/?op=scan", "", 400, "scanning all subnets is not allowed unless force=True is specified."},
		{user, "POST", "discovery/?op=scan", "cidr=bad", 400, "bad"},
		{user, "POST", "discovery/?op=scan", "threads=x&force=true", 400, ""},
		{user, "POST", "discovery/?op=scan", "force=true", 200, "Unable to initiate network scanning on any rack controller."},
	})
	rack, err := e.P.RegisterRack(t.Context(), api.RackHello{Hostname: "rack-1", Architecture: "amd64",
		Interfaces: []api.RackInterface{{Name: "eth7", Addresses: []string{"10.0.0.2/24"}}}}, storage.NodeRack, "f")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := e.P.Snapshot(t.Context(), rack.SystemID, 0); err != nil { // it serves the VLAN now
		t.Fatal(err)
	}
	now := time.Now().UTC()
	lease := func(ip, mac, name string) api.LeaseReport {
		return api.LeaseReport{At: now, IP: ip, MAC: mac, Hostname: name, Expires: now.Add(time.Hour)}
	}
	if err := e.P.RecordLeases(t.Context(), []api.LeaseReport{lease("10.0.0.100", nic.MACAddress, ""), lease("10.0.0.101", "52:54:00:ee:00:01", "guest")}); err != nil {
		t.Fatal(err)
	}
	run(t, []step{{user, "POST", "discovery/?op=scan", "cidr=10.0.0.0/25", 200, "Scanning is in-progress on all rack controllers."},
		{user, "POST", "discovery/?op=scan", "cidr=10.0.0.0/25", 200, "ScanNetworksAlreadyInProgress"},
		{user, "POST", "discovery/?op=scan", "cidr=192.0.2.0/24", 200, `"scan_attempted_on": []`}})
	jobs, _, err := e.P.ClaimRackJobs(t.Context(), rack.SystemID, 5)
	if err != nil || len(jobs) != 1 || jobs[0].Scan == nil || strings.Join(jobs[0].Scan.CIDRs, " ") != "10.0.0.0/25" {
		t.Fatalf("jobs %+v, %v", jobs, err)
	}
	seen := api.ScanResult{Neighbours: []api.NeighbourReport{{IP: "10.0.0.7", MAC: "52:54:00:EE:00:02", Interface: "eth7"}, {IP: "x", MAC: "y"},
		{IP: "10.0.0.100", MAC: nic.MACAddress, Interface: "eth7"}}}
	if err := e.P.FinishRackJob(t.Context(), rack.SystemID, jobs[0].ID, api.JobResult{Attempt: jobs[0].Attempt, Scan: &seen}); err != nil {
		t.Fatal(err)
	}
	if err := e.P.FinishRackJob(t.Context(), rack.SystemID, jobs[0].ID, api.JobResult{Attempt: jobs[0].Attempt, Scan: &seen}); err == nil {
		t.Error("a scan ended twice")
	}
	var list []api.Discovery
	user.Get("discovery/").Into(t, &list)
	if len(list) != 2 || list[0].IP != "10.0.0.7" || list[0].MACAddress != "52:54:00:ee:00:02" || list[0].Observer["system_id"] != rack.SystemID ||
		list[0].Observer["interface_name"] != "eth7" || list[1].Hostname == nil || *list[1].Hostname != "guest" || list[1].FabricName != "fabric-0" {
		t.Fatalf("discoveries %+v", list)
	}
	id := base64.StdEncoding.EncodeToString([]byte("10.0.0.7,52:54:00:ee:00:02"))
	run(t, []step{
		{user, "GET", "discovery/" + id + "/", "", 200, `"discovery_id": "` + id + `"`},
		{user, "GET", "discovery/nope/", "", 404, ""},
		{user, "GET", "discovery/?op=by_unknown_mac", "", 200, "10.0.0.7"},
		{user, "POST", "ipaddresses/?op=reserve", "ip=10.0.0.7", 200, ""},
		{user, "POST", "discovery/?op=clear", "all=true", 403, "Must be an administrator to clear discovery entries."},
		{admin, "POST", "discovery/?op=clear", "", 400, "Must specify mdns=True, neighbours=True, or all=True."},
		{admin, "POST", "discovery/?op=clear", "mdns=true", 204, ""},
		{user, "GET", "discovery/", "", 200, `"hostname": null`},
		{user, "POST", "discovery/?op=clear_by_mac_and_ip", "ip=10.0.0.7&mac=52:54:00:ee:00:02", 403, ""},
		{admin, "POST", "discovery/?op=clear_by_mac_and_ip", "ip=10.0.0.7", 400, ""},
		{admin, "POST", "discovery/?op=clear_by_mac_and_ip", "ip=10.0.0.7&mac=52:54:00:ee:00:02", 204, ""},
		{admin, "POST", "discovery/?op=clear_by_mac_and_ip", "ip=10.0.0.7&mac=52:54:00:ee:00:02", 410, "Gone"},
		{admin, "POST", "discovery/?op=clear", "neighbours=true", 204, ""},
		{user, "GET", "discovery/", "", 200, "[]"},
		{admin, "PUT", "discovery/x/", "", 405, ""},
	})
	var byIP []api.Discovery
	user.Get("discovery/?op=by_unknown_ip").Into(t, &byIP)
	if len(byIP) != 0 {
		t.Errorf("by_unknown_ip %+v", byIP)
	}
}

// What is kept for MAC addresses reaches the racks, devices are hosts there, and a route ends in what is installed.
func TestFixedAddressesInSnapshot(t *testing.T) {
	e := servertest.New(t)
	rack, err := e.P.RegisterRack(t.Context(), api.RackHello{Hostname: "rack-1", Architecture: "amd64",
		Interfaces: []api.RackInterface{{Name: "eth0", Addresses: []string{"10.0.0.2/24"}}}}, storage.NodeRack, "f")
	if err != nil {
		t.Fatal(err)
	}
	run(t, []step{
		{e.Admin, "POST", "subnets/", "cidr=10.0.0.0/24", 200, ""},
		{e.Admin, "POST", "reservedips/", "ip=10.0.0.77&mac_address=52:54:00:ee:00:01", 200, ""},
		{e.User, "POST", "ipaddresses/?op=reserve", "ip=10.0.0.78&mac=52:54:00:ee:00:02", 200, ""},
		{e.User, "POST", "devices/", "mac_addresses=52:54:00:dd:00:01&hostname=printer", 200, ""},
	})
	run(t, []step{
		{e.User, "POST", "nodes/" + deviceID(t, e) + "/interfaces/eth0/?op=link_subnet", "mode=STATIC&subnet=1&ip_address=10.0.0.50", 200, ""},
	})
	snap, err := e.P.Snapshot(t.Context(), rack.SystemID, 0)
	if err != nil {
		t.Fatal(err)
	}
	if len(snap.Fixed) != 2 || snap.Fixed[0] != (api.SnapFixed{MAC: "52:54:00:ee:00:01", Address: "10.0.0.77"}) ||
		snap.Fixed[1] != (api.SnapFixed{MAC: "52:54:00:ee:00:02", Address: "10.0.0.78"}) {
		t.Errorf("fixed %+v", snap.Fixed)
	}
	found := false
	for _, h := range snap.Hosts {
		if h.Hostname == "printer" && h.Purpose == api.PurposeLocal && len(h.MACs) == 1 && len(h.MACs[0].Fixed) == 1 && h.MACs[0].Fixed[0] == "10.0.0.50" {
			found = netip.MustParseAddr(h.MACs[0].Fixed[0]).IsValid()
		}
	}
	if !found {
		t.Errorf("the device is no host of the snapshot: %+v", snap.Hosts)
	}
}

func deviceID(t *testing.T, e *servertest.Env) string {
	t.Helper()
	var list []api.Device
	e.User.Get("devices/").Into(t, &list)
	if len(list) == 0 {
		return "none00"
	}
	return list[0].SystemID
}
