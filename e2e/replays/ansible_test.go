package replays

import (
	"encoding/json"
	"slices"
	"testing"

	"github.com/ingot-metal/ingot/storage"
)

// Ansible's maas.maas collection: PLAINTEXT without realm, multipart without encoding, "--B--" and no line end where there is nothing
// to send; of the answers it takes 200 and 404 to GET, 200 and 201 to POST, 200 to PUT, 200 and 204 to DELETE.
func ansible(t *testing.T) *client {
	e := newSite(t)
	return &client{t: t, e: e, key: e.Admin.Key, sign: plaintext(""), headers: []string{"Accept", "application/json; charset=utf-8", "User-Agent", "ansible-httpget"}}
}

func TestAnsible(t *testing.T) {
	c := ansible(t)
	get := func(path string) *answer { return c.send("GET", path, "", "") }
	post := func(path string, pairs ...string) *answer {
		return c.send("POST", path, pythonType, plainParts(pairs...))
	}
	put := func(path string, pairs ...string) *answer {
		return c.send("PUT", path, pythonType, plainParts(pairs...))
	}
	del := func(path string) *answer { return c.send("DELETE", path, "", "") }

	f := post("fabrics/", "name=lab", "description=the lab's own", "class_type=10g").eq("class_type", "10g").str("id")
	post("spaces/", "name=mgmt").code(200)
	v := post("fabrics/"+f+"/vlans/", "vid=7", "name=seven", "mtu=9000", "space=mgmt").eq("space", "mgmt")
	p := "fabrics/" + f + "/vlans/7/"
	put(p, "space=").eq("space", "undefined") // an empty one means none
	for _, key := range []string{"name", "vid", "mtu", "dhcp_on", "external_dhcp", "relay_vlan", "secondary_rack", "primary_rack", "space", "fabric", "fabric_id", "resource_uri"} {
		if _, ok := get(p).at("").(map[string]any)[key]; !ok {
			t.Errorf("a VLAN has no %s", key)
		}
	}
	s := post("subnets/", "cidr=10.7.0.0/24", "name=seven", "vlan="+v.str("id"), "gateway_ip=10.7.0.1", "dns_servers=10.7.0.2", "managed=true").eq("vlan.vid", 7).str("id")
	r := post("ipranges/", "type=reserved", "start_ip=10.7.0.10", "end_ip=10.7.0.20", "comment=kept").str("id")
	put("ipranges/"+r+"/", "comment=").eq("comment", "")
	del("ipranges/" + r + "/").code(204)

	// What is not there is told by an answer that is no JSON: the module's parser fails, and that means "not found".
	for _, path := range []string{"fabrics/999/", "machines/nobody/", "subnets/999/", "dnsresources/999/", "users/nobody/", "tags/none/", "vlans/99/", "spaces/999/", "ipranges/999/", "domains/999/"} {
		if a := get(path).code(404); json.Valid(a.body) {
			t.Errorf("%s: %s is JSON", path, a.body)
		}
	}
	// A new domain has no time to live, and is ours.
	d := post("domains/", "name=example.com").eq("ttl", nil).eq("authoritative", true).str("id")
	post("dnsresources/", "fqdn=www.example.com", "ip_addresses=10.7.0.300").code(400)
	post("dnsresources/", "fqdn=www.example.com", "ip_addresses=10.7.0.30").code(200)
	del("domains/0/").code(400)
	if a := del("domains/" + d + "/"); a.status < 400 {
		t.Errorf("a domain that holds names was deleted: %d", a.status)
	}
	post("users/", "username=ann", "email=ann@example.com", "password=secret-123", "is_superuser=0").eq("username", "ann")
	del("users/ann/").is(204, "")

	m := post("machines/", "architecture=amd64/generic", "mac_addresses=52:54:00:aa:00:01", "power_type=manual", "power_parameters={}", "hostname=ans", "commission=true")
	id := m.str("system_id")
	for _, key := range []string{"fqdn", "hostname", "system_id", "memory", "cpu_count", "tag_names", "interface_set", "blockdevice_set", "status_name", "osystem", "distro_series",
		"hwe_kernel", "min_hwe_kernel", "power_type", "architecture"} {
		if _, ok := m.at("").(map[string]any)[key]; !ok {
			t.Errorf("a machine has no %s", key)
		}
	}
	m.eq("domain.id", 0).eq("zone.id", 1).eq("pool.id", 0)
	c.send("POST", "machines/"+id+"/?op=abort", pythonType, "--"+boundary+"--").eq("status_name", "New")
	become(t, c.e, id, storage.StatusReady)
	nic := get("nodes/" + id + "/interfaces/")
	if discovered := nic.at("0.discovered"); nic.at("0") == nil || discovered == nil {
		t.Errorf("an interface has no discovered: %s", nic.body)
	}
	put("nodes/"+id+"/interfaces/eth0/", "vlan="+v.str("id")).eq("vlan.vid", 7)
	post("nodes/"+id+"/interfaces/eth0/?op=link_subnet", "mode=STATIC", "subnet="+s, "ip_address=10.7.0.40").eq("links.0.ip_address", "10.7.0.40")
	addDisk(t, c.e, id, "sda")
	disk := get("nodes/"+id+"/blockdevices/").find("name", "sda")
	part := post("nodes/"+id+"/blockdevices/sda/partitions/", "size=10000000000", "bootable=true").eq("bootable", true)
	post("nodes/"+id+"/blockdevices/sda/partition/"+part.str("id")+"?op=format", "fstype=ext4", "label=data").eq("filesystem.fstype", "ext4").eq("filesystem.label", "data").
		eq("filesystem.mount_point", nil).eq("filesystem.mount_options", nil)
	get("nodes/"+id+"/blockdevices/sda/partition/"+part.str("id")).eq("device_id", disk["id"])
	c.send("POST", "machines/?op=allocate", pythonType, plainParts("name=ans")).eq("status_name", "Allocated")
	c.send("POST", "machines/?op=release", pythonType, plainParts("machines="+id)).eq("", []string{id})
	for range 2 {
		if got := get("machines/" + id + "/").str("status_name"); !slices.Contains([]string{"Ready", "Releasing"}, got) {
			t.Errorf("after release: %s", got)
		}
	}
	del("machines/"+id+"/").is(204, "")
}
