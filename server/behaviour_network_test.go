package server_test

import (
	"fmt"
	"strings"

	"github.com/ingot-metal/ingot/storage"
)

var networkBehaviours = []behaviour{
	{140, "a subnet needs a CIDR and an administrator", same, func(w *world) {
		w.admin.post("subnets/").field("cidr", "This field is required.")
		w.user.post("subnets/", "cidr=10.1.0.0/24").code(403)
		w.admin.post("subnets/", "cidr=10.1.0.0/24").eq("allow_dns", true).eq("allow_proxy", true).eq("managed", true).eq("name", "10.1.0.0/24")
	}},
	{141, "a subnet has many names, and some name two", same, func(w *world) {
		id := w.subnet("10.0.0.0/24", "name=lab")
		for _, spec := range []string{id, "lab", "cidr:10.0.0.0/24", "10.0.0.0/24"} {
			w.user.get("subnets/"+spec+"/").eq("name", "lab")
			w.admin.put("subnets/"+spec+"/", "description="+spec).eq("description", spec)
		}
		w.subnet("10.2.0.0/24", "name=lab", "vlan="+w.vlan(30))
		w.user.get("subnets/lab/").is(403, "Too many Subnet objects match the given query.")
		w.admin.delete("subnets/cidr:10.0.0.0/24/").code(204)
	}},
	{142, "a subnet's options are words and blanks", same, func(w *world) {
		id := w.subnet("10.1.0.0/24", "gateway_ip=10.1.0.1", "dns_servers=10.1.0.2 10.1.0.3")
		p := "subnets/" + id + "/"
		for text, want := range map[string]bool{"0": false, "1": true, "true": true, "false": false} {
			w.admin.put(p, "allow_dns="+text).eq("allow_dns", want)
		}
		w.admin.put(p, "gateway_ip=", "dns_servers=").eq("gateway_ip", nil).eq("dns_servers", []any{})
		w.admin.post("reservedips/", "ip=10.1.0.200", "mac_address=52:54:00:aa:00:01").code(200)
		w.admin.put(p, "cidr=10.1.0.0/25").code(400)
	}},
	{143, "a subnet in use is deleted by force", same, func(w *world) {
		id := w.subnet("10.1.0.0/24")
		w.machine(storage.StatusDeployed, ownedBy(w.user)).link(id, "10.1.0.9")
		w.admin.delete("subnets/" + id + "/").code(400)
		w.admin.delete("subnets/" + id + "/?force=true").code(204)
	}},
	{144, "an empty subnet reserves nothing, but for IPv6's routers", same, func(w *world) {
		w.user.get("subnets/"+w.subnet("10.1.0.0/24")+"/?op=reserved_ip_ranges").is(200, "[]")
		w.user.get("subnets/"+w.subnet("fd00:1::/112")+"/?op=reserved_ip_ranges").eq("0.start", "fd00:1::").eq("0.end", "fd00:1::").
			eq("0.purpose", []string{"rfc-4291-2.6.1"}).eq("1", nil)
	}},
	{145, "statistics have ranges if asked", same, func(w *world) {
		p := "subnets/" + w.subnet("10.1.0.0/24") + "/?op=statistics"
		w.user.get(p).has(200, "num_available").lacks(`"ranges"`)
		w.user.get(p+"&include_ranges=true").has(200, `"ranges"`)
	}},
	{146, "addresses tell as much as asked", same, func(w *world) {
		id := w.subnet("10.1.0.0/24")
		w.machine(storage.StatusDeployed, ownedBy(w.user)).link(id, "10.1.0.9")
		p := "subnets/" + id + "/?op=ip_addresses"
		w.admin.get(p).eq("0.ip", "10.1.0.9").has(200, `"node_summary"`)
		w.admin.get(p + "&with_username=false").code(200).lacks(`"user"`)
		w.admin.get(p + "&with_summary=false").code(200).lacks(`"node_summary"`)
		w.admin.get(p + "&with_node_summary=false").code(200).lacks(`"node_summary"`)
	}},
	{147, "a VLAN of nothing has two messages for one field", same, func(w *world) {
		w.admin.post("fabrics/0/vlans/").field("vid", "This field is required.", "VID must be between 0 and 4094.")
		w.user.post("fabrics/0/vlans/", "vid=10").code(403)
	}},
	{148, "a VLAN goes back to no space by two words", same, func(w *world) {
		w.admin.post("spaces/", "name=mgmt").code(200)
		id := w.vlan(10)
		for _, none := range []string{"", "undefined"} {
			w.admin.put("vlans/"+id+"/", "space=mgmt").eq("space", "mgmt")
			w.admin.put("vlans/"+id+"/", "space="+none).eq("space", "undefined")
		}
		w.admin.put("vlans/"+id+"/", "primary_rack=nobody").keys("primary_rack")
		w.admin.get("vlans/99/").code(404)
	}},
	{149, "a fabric keeps its default VLAN", same, func(w *world) {
		w.admin.delete("vlans/5001/").has(400, "This VLAN is the default VLAN in the fabric, it cannot be deleted.")
	}},
	{150, "a space makes up its name, and there is a space for the rest", same, func(w *world) {
		id := w.admin.post("spaces/").has(200, `"name": "space-`).str("id")
		w.user.get("spaces/").has(200, `"id": -1`, `"name": "undefined"`)
		w.admin.put("vlans/5001/", "space="+id).code(200)
		w.user.get("spaces/").code(200).lacks(`"name": "undefined"`)
	}},
	{151, "the space for the rest is only read", same, func(w *world) {
		w.subnet("10.1.0.0/24")
		w.admin.put("spaces/undefined/", "name=x").code(400)
		w.admin.delete("spaces/undefined/").code(400)
		w.admin.get("spaces/undefined/").eq("vlans.0.id", 5001).eq("subnets.0.cidr", "10.1.0.0/24")
	}},
	{152, "dynamic ranges are an administrator's", same, func(w *world) {
		w.subnet("10.1.0.0/24")
		r := []string{"start_ip=10.1.0.100", "end_ip=10.1.0.110"}
		w.user.post("ipranges/", append(r, "type=dynamic")...).code(403)
		w.admin.post("ipranges/", r...).field("type", "This field is required.")
		w.admin.post("ipranges/", append(r, "type=dynamic", "user=user")...).eq("subnet.cidr", "10.1.0.0/24").eq("user.username", "admin")
	}},
	{153, "a range is its owner's", same, func(w *world) {
		w.subnet("10.1.0.0/24")
		id := w.user.post("ipranges/", "type=reserved", "start_ip=10.1.0.100", "end_ip=10.1.0.110").str("id")
		w.other.put("ipranges/"+id+"/", "comment=x").code(403)
		w.other.delete("ipranges/" + id + "/").code(403)
		w.user.delete("ipranges/" + id + "/").code(204)
	}},
	{154, "one sees one's own addresses", same, func(w *world) {
		w.subnet("10.1.0.0/24")
		w.user.post("ipaddresses/?op=reserve", "ip=10.1.0.9").code(200)
		w.other.post("ipaddresses/?op=reserve", "ip=10.1.0.10").code(200)
		w.user.get("ipaddresses/").list("ip", "10.1.0.9")
		w.user.get("ipaddresses/?all=1").is(403, "Listing all IP addresses requires admin privileges.")
		w.user.get("ipaddresses/?owner=other").is(403, "Listing another user's IP addresses requires admin privileges.")
		w.admin.get("ipaddresses/?owner=other").list("ip", "10.1.0.10")
	}},
	{155, "not every address can be reserved", same, func(w *world) {
		w.subnet("10.1.0.0/24")
		w.admin.post("ipranges/", "type=dynamic", "start_ip=10.1.0.100", "end_ip=10.1.0.110").code(200)
		const reserve = "ipaddresses/?op=reserve"
		w.other.post(reserve, "ip=10.1.0.9").code(200)
		w.user.post(reserve, "ip=10.1.0.9").is(404, "The IP address 10.1.0.9 is already in use.")
		w.user.post(reserve, "ip=10.1.0.105").code(403)
		w.user.post(reserve).code(400)
		w.user.post(reserve, "ip=bad").field("ip_address", "Enter a valid IPv4 or IPv6 address.")
	}},
	{156, "a reserved address may have a MAC and a name", same, func(w *world) {
		w.subnet("10.1.0.0/24")
		const reserve = "ipaddresses/?op=reserve"
		w.user.post(reserve, "ip=10.1.0.9", "mac="+w.machine(storage.StatusReady).nic.MACAddress).code(400)
		w.user.post(reserve, "ip=10.1.0.9", "hostname=h.no-such-domain").code(404)
		w.user.post(reserve, "ip=10.1.0.9", "hostname=h").code(200)
		w.admin.get("dnsresources/?fqdn=h.maas").eq("0.ip_addresses.0.ip", "10.1.0.9")
	}},
	{157, "an address is given back by whom it belongs to, or by force", same, func(w *world) {
		w.subnet("10.1.0.0/24")
		const free = "ipaddresses/?op=release"
		w.other.post("ipaddresses/?op=reserve", "ip=10.1.0.9").code(200)
		w.user.post(free, "ip=10.1.0.9").has(400, "does not belong to the requesting user")
		w.user.post(free, "ip=10.1.0.9", "force=true").is(403, "Force-releasing an IP address requires admin privileges.")
		w.admin.post(free, "ip=10.1.0.9", "force=true").code(204)
	}},
	{158, "a reservation keeps its address", same, func(w *world) {
		w.subnet("10.1.0.0/24")
		id := w.admin.post("reservedips/", "ip=10.1.0.9", "mac_address=52:54:00:aa:00:01").str("id")
		w.admin.put("reservedips/"+id+"/", "ip=10.1.0.10").code(400)
		w.admin.put("reservedips/"+id+"/", "ip=10.1.0.9", "mac_address=52:54:00:aa:00:01", "comment=c").eq("comment", "c")
	}},
	{159, "networks are read, and narrowed by machines", same, func(w *world) {
		w.admin.post("networks/", "name=x").is(410, "Gone")
		w.admin.put("networks/x/", "name=x").code(410)
		w.admin.delete("networks/x/").code(410)
		w.user.get("networks/?node=bad").field("node", "Unknown node(s): bad.")
		a, b := w.subnet("10.1.0.0/24", "name=one"), w.subnet("10.2.0.0/24", "name=two")
		x, y := w.machine(storage.StatusReady), w.machine(storage.StatusReady)
		x.link(a, "10.1.0.9")
		x.link(b, "10.2.0.9")
		y.link(b, "10.2.0.10")
		if got := w.admin.get("networks/?node=" + x.SystemID + "&node=" + y.SystemID).all("ip"); strings.Join(got, " ") != "10.2.0.0" {
			w.t.Errorf("in both: %q", got)
		}
	}},
}

var dnsBehaviours = []behaviour{
	{160, "a serial number has bounds", same, func(w *world) {
		for serial, status := range map[string]int{"0": 400, "4294967296": 400, "1": 200, "4294967295": 200} {
			w.admin.post("domains/?op=set_serial", "serial="+serial).code(status)
		}
		w.user.post("domains/?op=set_serial", "serial=1").code(403)
	}},
	{161, "the first domain is the default and stays", same, func(w *world) {
		w.user.get("domains/0/").eq("is_default", true).eq("resource_record_count", 0)
		w.admin.post("dnsresources/", "fqdn=a.maas", "ip_addresses=10.0.0.1").code(200)
		w.user.get("domains/0/").eq("resource_record_count", 1)
		w.admin.delete("domains/0/").has(400, "This domain is the default domain, it cannot be deleted.")
	}},
	{162, "a DNS name is given whole or in two", same, func(w *world) {
		w.admin.post("dnsresources/", "fqdn=a.maas", "ip_addresses=10.0.0.1 10.0.0.2").eq("fqdn", "a.maas").eq("ip_addresses.1.ip", "10.0.0.2")
		w.admin.post("dnsresources/", "name=b", "domain=maas", "ip_addresses=10.0.0.1").eq("fqdn", "b.maas")
		w.admin.post("dnsresources/", "name=c", "domain=0", "ip_addresses=10.0.0.1").eq("fqdn", "c.maas")
		w.admin.post("dnsresources/").code(400)
		w.user.post("dnsresources/", "fqdn=d.maas", "ip_addresses=10.0.0.1").code(403)
	}},
	{163, "names that follow from machines are listed if asked", same, func(w *world) {
		n := w.machine(storage.StatusDeployed, ownedBy(w.user))
		n.link(w.subnet("10.1.0.0/24"), "10.1.0.9")
		w.admin.get("dnsresources/").is(200, "[]")
		r := w.admin.get("dnsresources/?all=true").has(200, n.Hostname+".maas")
		if list, _ := r.at("").([]any); len(list) > 0 {
			r.eq("0.id", -1).eq("0.ip_addresses", nil)
		}
	}},
	{164, "records join a name, and take it along", same, func(w *world) {
		const records = "dnsresourcerecords/"
		w.admin.post(records, "rrtype=TXT", "rrdata=x").code(400)
		w.admin.post(records, "name=a", "rrtype=TXT", "rrdata=x").code(400)
		a := w.admin.post(records, "fqdn=a.maas", "rrtype=TXT", "rrdata=one").str("id")
		b := w.admin.post(records, "name=a", "domain=maas", "rrtype=TXT", "rrdata=two").str("id")
		id := w.admin.get("dnsresources/?fqdn=a.maas").eq("1", nil).str("0.id")
		w.admin.delete(records + a + "/").code(204)
		w.admin.get("dnsresources/" + id + "/").code(200)
		w.admin.delete(records + b + "/").code(204)
		w.admin.get("dnsresources/" + id + "/").code(404)
	}},
}

var siteBehaviours = []behaviour{
	{165, "machines of a zone that goes move to the default one", same, func(w *world) {
		w.admin.delete("zones/default/").is(400, "This zone is the default zone, it cannot be deleted.")
		w.admin.delete("zones/nowhere/").code(204)
		w.admin.post("zones/", "name=east").code(200)
		n := w.machine(storage.StatusReady)
		w.admin.put(n.path(""), "zone=east").eq("zone.name", "east")
		w.admin.delete("zones/east/").code(204)
		w.admin.get(n.path("")).eq("zone.name", "default")
	}},
	{166, "the default zone may have another name", same, func(w *world) {
		w.admin.put("zones/default/", "name=Middle").eq("name", "Middle")
		w.admin.post("zones/", "name=alpha").code(200)
		w.admin.post("zones/", "name=Zulu").code(200)
		w.user.get("zones/").list("name", "alpha", "Middle", "Zulu")
	}},
	{167, "pools go by name or number, the default one never", same, func(w *world) {
		w.admin.delete("resourcepool/0/").code(400)
		a, b := w.admin.post("resourcepools/", "name=a").str("id"), w.admin.post("resourcepools/", "name=b").str("name")
		w.user.delete("resourcepool/" + a + "/").code(403)
		w.admin.delete("resourcepool/" + a + "/").code(204)
		w.admin.delete("resourcepool/" + b + "/").code(204)
		w.admin.put("resourcepool/"+a+"/", "name=x").code(404)
	}},
	{168, "a tag has a good name and a definition that can be read", same, func(w *world) {
		w.admin.post("tags/", "name=b@d").code(400)
		w.admin.post("tags/", "name=t", "definition=invalid::tag").code(400)
		w.user.post("tags/", "name=t").code(403)
		w.admin.post("tags/", "name=t").eq("definition", "")
	}},
	{169, "tagging counts what changed", same, func(w *world) {
		a, b := w.machine(storage.StatusReady), w.machine(storage.StatusReady)
		w.admin.post("tags/", "name=t").code(200)
		w.admin.post("tags/t/?op=update_nodes", "add="+b.SystemID).eq("", map[string]int{"added": 1, "removed": 0})
		w.admin.post("tags/t/?op=update_nodes", "add="+a.SystemID, "remove="+b.SystemID).eq("", map[string]int{"added": 1, "removed": 1})
		w.admin.post("tags/t/?op=update_nodes", "add=nobody", "remove=noone").eq("", map[string]int{"added": 0, "removed": 0})
		w.admin.post("tags/t/?op=update_nodes", "add="+b.SystemID, "definition=//other").code(409)
		w.admin.post("tags/none/?op=update_nodes", "add="+a.SystemID).is(404, "No Tag matches the given query.")
	}},
	{170, "a tag by hand is not rebuilt away, and hides what one may not see", same, func(w *world) {
		mine, foreign := w.machine(storage.StatusAllocated, ownedBy(w.user)), w.machine(storage.StatusAllocated, ownedBy(w.other))
		r := w.node(storage.NodeRack, 0)
		w.admin.post("tags/", "name=t").code(200)
		w.admin.post("tags/t/?op=update_nodes", "add="+mine.SystemID, "add="+foreign.SystemID, "add="+r.SystemID).code(200)
		w.admin.post("tags/t/?op=rebuild").eq("", map[string]string{"rebuilding": "t"})
		w.admin.get("tags/t/?op=nodes").list("system_id", mine.SystemID, foreign.SystemID, r.SystemID)
		w.user.get("tags/t/?op=nodes").list("system_id", mine.SystemID)
		w.admin.get("tags/t/?op=rack_controllers").list("system_id", r.SystemID)
		w.user.get("tags/t/?op=rack_controllers").is(200, "[]")
	}},
	{171, "users are made by administrators, and may bring a key", same, func(w *world) {
		form := []string{"username=new", "email=n@e.w", "is_superuser=1"}
		w.user.post("users/", append(form, "password=secret123")...).code(403)
		w.admin.post("users/", form...).is(400, "No provided password!")
		w.admin.post("users/", append(form, "password=secret123", "key="+goodSSHKey)...).eq("is_superuser", true)
		w.write(func(tx *storage.Tx) error {
			u, err := tx.UserByName("new")
			if err != nil {
				return err
			}
			keys, err := tx.SSHKeysOf(u.ID)
			if len(keys) != 1 {
				w.t.Errorf("keys %q", keys)
			}
			return err
		})
	}},
	{172, "users go when nothing is theirs, and nobody deletes himself", same, func(w *world) {
		w.admin.delete("users/admin/").has(400, "self-delete")
		w.admin.delete("users/nobody/").code(204)
		w.user.delete("users/nobody/").code(403)
		w.machine(storage.StatusAllocated, ownedBy(w.user))
		w.admin.delete("users/user/").has(400, "1 node(s) are still allocated")
		w.admin.delete("users/user/?transfer_resources_to=nobody").code(404)
		w.admin.delete("users/user/?transfer_resources_to=other").code(204)
		w.other.get("machines/?op=list_allocated").eq("0.owner", "other")
	}},
	{173, "a user is five facts", same, func(w *world) {
		r := w.user.get("users/other/").code(200)
		if got := strings.Join(sortedKeys(r.at("").(map[string]any)), " "); got != "email is_local is_superuser resource_uri username" {
			w.t.Errorf("%s", got)
		}
	}},
	{174, "an SSH key is read before it is kept", same, func(w *world) {
		const keys = "account/prefs/sshkeys/"
		w.user.post(keys, "key=bad").has(400, "Invalid")
		w.user.post(keys).field("key", "This field is required.")
		w.user.post(keys, "key="+goodSSHKey).code(201)
		w.user.post(keys, "key="+goodSSHKey, "user=other").has(400, "Only administrators")
		w.admin.post(keys, "key="+goodSSHKey, "user=nobody").has(400, "Supplied username")
		w.admin.post(keys, "key="+goodSSHKey, "user=other").code(201)
		w.other.get(keys).list("key", goodSSHKey)
	}},
	{175, "keys are their owner's alone", same, func(w *world) {
		id := w.user.post("account/prefs/sshkeys/", "key="+goodSSHKey).str("id")
		w.other.delete("account/prefs/sshkeys/" + id + "/").code(403)
		w.user.delete("account/prefs/sshkeys/" + id + "/").code(204)
		k := storage.SSLKey{UserID: w.User.User.ID, Key: "-----BEGIN CERTIFICATE-----"}
		w.write(func(tx *storage.Tx) error { return tx.InsertSSLKey(&k) })
		w.admin.get(fmt.Sprintf("account/prefs/sslkeys/%d/", k.ID)).code(403)
		w.user.get(fmt.Sprintf("account/prefs/sslkeys/%d/", k.ID)).code(200)
	}},
	{176, "groups have members once", same, func(w *world) {
		g := "groups/" + w.admin.post("groups/", "name=ops").str("id") + "/"
		w.admin.post(g+"?op=add_member", "username=user").is(200, "OK")
		w.admin.post(g+"?op=add_member", "username=user").code(409)
		w.admin.post(g+"?op=add_member", "username=nobody").code(404)
		w.admin.post("groups/999/?op=add_member", "username=user").code(404)
		w.admin.post(g + "?op=add_member").code(400)
		w.admin.post(g+"?op=remove_member", "username=user").code(204)
	}},
	{177, "entitlements are known words about known things", same, func(w *world) {
		g := "groups/" + w.admin.post("groups/", "name=ops").str("id") + "/?op=add_entitlement"
		w.admin.post(g, "resource_type=maas", "resource_id=-1", "entitlement=can_edit_machines").code(400)
		w.admin.post(g, "resource_type=universe", "resource_id=0", "entitlement=can_edit_machines").code(400)
		w.admin.post(g, "resource_type=maas", "resource_id=0", "entitlement=can_fly").code(400)
		w.admin.post(g, "resource_type=pool", "resource_id=999", "entitlement=can_edit_machines").code(404)
		w.admin.post(g, "resource_type=maas", "resource_id=0", "entitlement=can_edit_machines").is(200, "OK")
	}},
}

const goodSSHKey = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ9Y1nq3vmTTKRUPZXgQ5m0y7dM3Xk8i1yq3b7yq8wqE someone@somewhere"
