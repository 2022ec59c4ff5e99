package replays

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/ingot-metal/ingot/storage"
)

// Terraform's provider: Go's client, "?op=" on every POST without an operation, urlencoded bodies, booleans as true and false, the same
// values again by PUT after a create, and every thing found by listing all of its kind. What it reads back must be what it has sent,
// or the next plan is not empty.
func terraform(t *testing.T) *client {
	e := newSite(t)
	return &client{t: t, e: e, key: e.Admin.Key, sign: plaintext(`realm="MAAS+API", `), headers: []string{"User-Agent", "Go-http-client/1.1", "Accept-Encoding", "gzip"}}
}

func (c *client) get(path string) *answer { c.t.Helper(); return c.send("GET", path, "", "") }
func (c *client) del(path string) *answer { c.t.Helper(); return c.send("DELETE", path, "", "") }

// post appends the empty operation, as gomaasclient does.
func (c *client) post(path string, pairs ...string) *answer {
	c.t.Helper()
	if !strings.Contains(path, "?") {
		path += "?op="
	}
	return c.send("POST", path, formType, form(pairs...))
}

// put wants an object with its own address, as gomaasclient does.
func (c *client) put(path string, pairs ...string) *answer {
	c.t.Helper()
	a := c.send("PUT", path, formType, form(pairs...)).code(200)
	if uri := a.str("resource_uri"); !strings.HasPrefix(uri, root) {
		c.t.Errorf("PUT %s answers resource_uri %q", path, uri)
	}
	return a
}

// create posts, puts the same again, and reads: three answers that must agree on what was sent.
func (c *client) create(collection, item string, want map[string]any, pairs ...string) string {
	c.t.Helper()
	id := c.post(collection, pairs...).code(200).str("id")
	item = fmt.Sprintf(item, id)
	for _, a := range []*answer{c.put(item, pairs...), c.get(item).code(200)} {
		for k, v := range want {
			a.eq(k, v)
		}
	}
	return id
}

func TestTerraformNetwork(t *testing.T) {
	c := terraform(t)
	fabric := c.create("fabrics/", "fabrics/%s/", map[string]any{"name": "tf-fabric"}, "name=tf-fabric")
	space := c.create("spaces/", "spaces/%s/", map[string]any{"name": "tf-space"}, "name=tf-space")
	_ = space
	c.create("domains/", "domains/%s/", map[string]any{"name": "tf.example", "ttl": 3600, "authoritative": true}, "name=tf.example", "ttl=3600", "authoritative=true")
	c.create("resourcepools/", "resourcepool/%s/", map[string]any{"name": "tf pool", "description": "one with spaces"}, "name=tf pool", "description=one with spaces")
	c.get("resourcepools/").find("name", "tf pool")

	c.get("fabrics/").find("name", "tf-fabric")
	v := c.post("fabrics/"+fabric+"/vlans/", "vid=14", "name=tf-vlan", "mtu=9000", "space=tf-space", "dhcp_on=false").eq("mtu", 9000).eq("dhcp_on", false).eq("name", "tf-vlan").eq("space", "tf-space")
	if v.str("id") == "14" || len(v.str("id")) < 4 { // "vid or id equals 14": the first hit is taken
		t.Errorf("a VLAN has the id %s", v.str("id"))
	}
	c.put("fabrics/"+fabric+"/vlans/14/", "vid=14", "name=tf-vlan", "mtu=9000", "space=tf-space", "dhcp_on=false").eq("mtu", 9000).eq("space", "tf-space")
	c.get("fabrics/"+fabric+"/vlans/").find("vid", 14)

	sent := []string{"cidr=10.88.0.0/24", "name=tf-subnet", "fabric=" + fabric, "vlan=" + v.str("id"), "vid=14", "gateway_ip=10.88.0.1", "dns_servers=10.88.0.3", "dns_servers=10.88.0.2",
		"rdns_mode=2", "allow_dns=true", "allow_proxy=true", "managed=true"}
	subnet := c.create("subnets/", "subnets/%s/", map[string]any{"cidr": "10.88.0.0/24", "name": "tf-subnet", "gateway_ip": "10.88.0.1", "dns_servers": []string{"10.88.0.3", "10.88.0.2"},
		"rdns_mode": 2, "allow_dns": true, "allow_proxy": true, "managed": true, "vlan.vid": 14, "vlan.fabric": "tf-fabric", "vlan.id": 5003}, sent...)
	list := c.get("ipranges/").list()
	if len(list) != 0 {
		t.Fatalf("%v", list)
	}
	c.create("ipranges/", "ipranges/%s/", map[string]any{"type": "reserved", "start_ip": "10.88.0.50", "end_ip": "10.88.0.60", "comment": "tf range"},
		"type=reserved", "subnet="+subnet, "start_ip=10.88.0.50", "end_ip=10.88.0.60", "comment=tf range")
	r := c.get("ipranges/").find("comment", "tf range")
	if fmt.Sprint(r["subnet"].(map[string]any)["id"]) != subnet {
		t.Errorf("a range lies in %v", r["subnet"])
	}
	c.del("ipranges/"+fmt.Sprint(r["id"])+"/").is(204, "")

	// A record, and its addresses given back though they went with it.
	d := c.post("dnsresources/", "fqdn=www.tf.example", "ip_addresses=10.88.0.70 10.88.0.71", "address_ttl=0").eq("address_ttl", nil).eq("ip_addresses.0.ip", "10.88.0.70").str("id")
	c.get("dnsresources/").find("fqdn", "www.tf.example")
	c.put("dnsresources/"+d+"/", "fqdn=www.tf.example", "ip_addresses=10.88.0.70 10.88.0.71", "address_ttl=0").eq("ip_addresses.1.ip", "10.88.0.71")
	c.del("dnsresources/"+d+"/").is(204, "")
	for _, ip := range []string{"10.88.0.70", "10.88.0.71"} {
		c.post("ipaddresses/?op=release", "ip="+ip).is(204, "")
	}
	txt := c.post("dnsresourcerecords/", "fqdn=txt.tf.example", "rrtype=TXT", "rrdata=v=1 all", "ttl=0").eq("ttl", nil).eq("rrdata", "v=1 all").str("id")
	c.del("dnsresourcerecords/"+txt+"/").is(204, "")

	// What is gone is told by its reason phrase.
	c.del("subnets/" + subnet + "/").code(204)
	if a := c.get("subnets/" + subnet + "/").code(404); !strings.Contains(a.reason, "404 Not Found") {
		t.Errorf("%q", a.reason)
	}
}

// machine makes a machine as the provider's machine resource does, MAC addresses in capitals.
func (c *client) machine(name, mac string) string {
	c.t.Helper()
	sent := []string{"commission=true", "power_type=manual", "mac_addresses=" + mac, "architecture=amd64/generic", "hostname=" + name, "domain=maas", "zone=default", "pool=default",
		"min_hwe_kernel="}
	id := c.post("machines/", sent...).eq("status_name", "Commissioning").eq("boot_interface.mac_address", mac).str("system_id")
	c.get("machines/"+id+"/").eq("status_name", "Commissioning")
	become(c.t, c.e, id, storage.StatusReady)
	c.put("machines/"+id+"/", sent...).eq("architecture", "amd64/generic").eq("hostname", name).eq("domain.name", "maas").eq("zone.name", "default").eq("pool.name", "default").
		eq("min_hwe_kernel", "")
	return id
}

func TestTerraformMachine(t *testing.T) {
	c := terraform(t)
	const mac = "52:54:00:AA:BB:01"
	id := c.machine("tf-machine", mac)
	for _, m := range []map[string]any{c.get("machines/").find("hostname", "tf-machine")} { // import, and the data source
		if got := m["boot_interface"].(map[string]any)["mac_address"]; got != mac {
			t.Errorf("the MAC comes back as %v: each plan would replace the machine", got)
		}
	}
	c.get("machines/"+id+"/?op=power_parameters").is(200, "{}")
	// The same address in other letters is still the same.
	c.post("machines/", "architecture=amd64/generic", "mac_addresses="+strings.ToLower(mac), "power_type=manual").has(400, "already in use")
	c.get("machines/?mac_address="+strings.ToLower(mac)).eq("0.system_id", id)

	// Interfaces.
	eth0 := c.get("nodes/"+id+"/interfaces/").find("mac_address", mac)
	nic := fmt.Sprintf("nodes/%s/interfaces/%v/", id, eth0["id"])
	vlan := c.post("fabrics/0/vlans/", "vid=14", "mtu=9000").str("id")
	c.put(nic, "mac_address="+mac, "name=enp1s0", "mtu=9000", "tags=one,two", "vlan="+vlan).eq("mac_address", mac).eq("name", "enp1s0").eq("effective_mtu", 9000).eq("vlan.vid", 14).
		eq("tags", []string{"one", "two"})
	c.post("nodes/"+id+"/interfaces/?op=create_physical", "mac_address=52:54:00:AA:BB:02", "name=enp2s0", "mtu=1500", "tags=", "vlan="+vlan).eq("mac_address", "52:54:00:AA:BB:02").
		eq("name", "enp2s0")
	bond := c.post("nodes/"+id+"/interfaces/?op=create_bond", "name=bond0", "mac_address="+mac, "parents="+fmt.Sprint(eth0["id"]), "parents="+fmt.Sprint(c.get("nodes/"+id+"/interfaces/").find("name", "enp2s0")["id"]),
		"vlan="+vlan, "bond_mode=802.3ad", "bond_miimon=100", "bond_updelay=200", "bond_downdelay=200", "bond_lacp_rate=fast", "bond_xmit_hash_policy=layer2", "bond_num_grat_arp=1", "mtu=9000", "accept_ra=true")
	for k, v := range map[string]any{"bond_mode": "802.3ad", "bond_miimon": 100, "bond_updelay": 200, "bond_downdelay": 200, "bond_lacp_rate": "fast", "bond_xmit_hash_policy": "layer2",
		"bond_num_grat_arp": 1} {
		bond.eq("params."+k, v)
	}
	bond.eq("params.accept-ra", true).eq("mac_address", mac)
	if parents := bond.at("parents").([]any); len(parents) != 2 || !slices.Contains(parents, any("enp1s0")) {
		t.Errorf("parents %v are names", parents)
	}
	bridge := c.post("nodes/"+id+"/interfaces/?op=create_bridge", "name=br0", "mac_address=52:54:00:AA:BB:02", "parents="+bond.str("id"), "bridge_type=standard", "bridge_stp=false", "bridge_fd=15", "vlan="+vlan)
	bridge.eq("params.bridge_type", "standard").eq("params.bridge_stp", false).eq("params.bridge_fd", 15).eq("parents", []string{"bond0"})
	other := c.post("fabrics/0/vlans/", "vid=15").str("id")
	tagged := c.post("nodes/"+id+"/interfaces/?op=create_vlan", "parent="+bond.str("id"), "vlan="+other).eq("vlan.vid", 15).eq("parents", []string{"bond0"})
	if _, ok := tagged.at("params").(map[string]any); !ok {
		t.Errorf("params is no object: %s", tagged.body)
	}

	// Links.
	subnet := c.post("subnets/", "cidr=10.88.0.0/24", "vlan="+vlan, "gateway_ip=10.88.0.1").str("id")
	b := "nodes/" + id + "/interfaces/" + bridge.str("id") + "/"
	c.post(b + "?op=disconnect").code(200)
	link := c.post(b+"?op=link_subnet", "mode=STATIC", "subnet="+subnet, "ip_address=10.88.0.9", "default_gateway=false").eq("links.0.mode", "static").eq("links.0.ip_address", "10.88.0.9").eq("links.1", nil)
	c.get(b).eq("links.0.id", link.at("links.0.id"))
	c.post("machines/" + id + "/?op=clear_default_gateways").code(200)
	c.post(b+"?op=set_default_gateway", "link_id="+link.str("links.0.id")).code(200)
	c.post(b+"?op=unlink_subnet", "id="+link.str("links.0.id")).code(200)
	for _, nic := range []string{tagged.str("id"), bridge.str("id"), bond.str("id")} {
		c.del("nodes/"+id+"/interfaces/"+nic+"/").is(204, "")
	}

	// Tags.
	c.post("tags/", "name=tf-tag", "comment=from terraform").eq("comment", "from terraform").eq("definition", "").eq("kernel_opts", "")
	c.post("tags/tf-tag/?op=update_nodes", "add="+id).eq("added", 1)
	c.get("tags/tf-tag/?op=machines").find("system_id", id)
	c.post("tags/tf-tag/?op=update_nodes", "remove="+id).eq("removed", 1)

	// Disks.
	disk := c.post("nodes/"+id+"/blockdevices/", "name=sdb", "id_path=/dev/disk/by-id/wwn-0x1", "size=42949672960", "block_size=512").eq("size", 42949672960).eq("name", "sdb").str("id")
	p := "nodes/" + id + "/blockdevices/" + disk + "/"
	c.put(p, "name=sdb", "id_path=/dev/disk/by-id/wwn-0x1", "size=42949672960", "block_size=512").eq("id_path", "/dev/disk/by-id/wwn-0x1").eq("size", 42949672960)
	c.post(p+"?op=add_tag", "tag=ssd").code(200)
	c.post(p + "?op=set_boot_disk").code(200)
	part := c.post(p+"partitions/", "size=10737418240", "bootable=true").eq("size", 10737418240).str("id")
	q := p + "partition/" + part // no slash behind it
	c.post(q+"?op=add_tag", "tag=root").code(200)
	c.post(q+"?op=format", "fstype=ext4", "label=media").code(200)
	c.post(q+"?op=mount", "mount_point=/media", "mount_options=noatime").code(200)
	c.get(p).eq("partitions.0.filesystem.mount_point", "/media").eq("partitions.0.filesystem.mount_options", "noatime").eq("partitions.0.filesystem.label", "media").
		eq("partitions.0.tags", []string{"root"}).eq("tags", []string{"ssd"}).eq("partitions.0.bootable", true)
	c.post(q + "?op=unmount").code(200)
	c.del(q).is(204, "")

	c.del("machines/"+id+"/").is(204, "")
}

func TestTerraformInstance(t *testing.T) {
	c := terraform(t)
	subnet := c.post("subnets/", "cidr=10.88.0.0/24", "gateway_ip=10.88.0.1").str("id")
	id := c.machine("tf-instance", "52:54:00:AA:BB:01")
	addDisk(t, c.e, id, "sda")
	c.post("machines/"+id+"/?op=set_storage_layout", "storage_layout=flat").code(200)
	c.upload("web")

	m := c.post("machines/?op=allocate", "cpu_count=2", "mem=1024", "name=tf-instance", "zone=default", "pool=default", "system_id="+id).eq("system_id", id).eq("status_name", "Allocated")
	eth0 := fmt.Sprintf("nodes/%s/interfaces/%s/", id, m.str("boot_interface.id"))
	c.post(eth0 + "?op=disconnect").code(200)
	c.post(eth0+"?op=link_subnet", "mode=AUTO", "subnet="+subnet, "default_gateway=false").eq("links.0.mode", "auto")
	user := "I2Nsb3VkLWNvbmZpZwpob3N0bmFtZTogeAo="
	c.post("machines/"+id+"/?op=deploy", "distro_series=custom/web", "user_data="+user, "enable_hw_sync=false", "ephemeral_deploy=false").eq("status_name", "Deploying").eq("osystem", "custom").
		eq("distro_series", "web")
	for range 2 {
		c.get("machines/"+id+"/").eq("status_name", "Deploying")
	}
	become(t, c.e, id, storage.StatusDeployed)
	d := c.get("machines/"+id+"/").eq("status_name", "Deployed")
	if ips := d.at("ip_addresses").([]any); len(ips) != 1 || strings.Contains(fmt.Sprint(ips[0]), "/") {
		t.Errorf("addresses %v", ips)
	}
	c.post("machines/?op=release", "machines="+id, "comment=Released by Terraform").eq("", []string{id})
	if s := c.get("machines/" + id + "/").str("status_name"); s != "Ready" && s != "Releasing" {
		t.Errorf("released: %s", s)
	}
	become(t, c.e, id, storage.StatusReady)

	// Nothing matches: 409, and no Retry-After that would have a client try again.
	a := c.post("machines/?op=allocate", "cpu_count=2000", "mem=1024").code(409)
	if a.header.Get("Retry-After") != "" {
		t.Error("a refusal asks to be tried again")
	}
}

// upload puts an image there, in one piece.
func (c *client) upload(name string) {
	c.t.Helper()
	content := "an image"
	sum := sha256.Sum256([]byte(content))
	r := c.post("boot-resources/", "name=custom/"+name, "architecture=amd64/generic", "filetype=tgz", "sha256="+hex.EncodeToString(sum[:]), fmt.Sprintf("size=%d", len(content))).code(201)
	for _, set := range r.at("sets").(map[string]any) {
		for _, f := range set.(map[string]any)["files"].(map[string]any) {
			c.send("PUT", f.(map[string]any)["upload_uri"].(string), "application/octet-stream", content).is(200, "OK")
		}
	}
}

func TestTerraformRest(t *testing.T) {
	c := terraform(t)
	d := c.post("devices/", "hostname=tf-device", "domain=maas", "description=a device", "zone=default", "mac_addresses=52:54:00:AA:BB:09").eq("owner", "admin").eq("description", "a device").
		eq("fqdn", "tf-device.maas").eq("interface_set.0.name", "eth0").eq("interface_set.0.mac_address", "52:54:00:AA:BB:09").eq("ip_addresses", []string{}).eq("zone.name", "default")
	c.get("devices/").find("hostname", "tf-device")
	c.put("devices/"+d.str("system_id")+"/", "hostname=tf-device", "description=changed").eq("description", "changed")
	c.del("devices/"+d.str("system_id")+"/").is(204, "")

	c.post("users/", "username=ann", "email=ann@example.com", "password=secret-123", "is_superuser=1").eq("username", "ann").eq("is_superuser", true)
	c.get("users/ann/").eq("email", "ann@example.com")
	c.del("users/ann/").is(204, "")

	// The data source of a rack takes what the filter answers.
	for i, name := range []string{"rack-a", "rack-b"} {
		if err := c.e.DB.Write(t.Context(), func(tx *storage.Tx) error {
			n := storage.Node{SystemID: fmt.Sprintf("rack%02d", i), NodeType: storage.NodeRack, Hostname: name, DomainID: storage.DefaultDomainID, ZoneID: storage.DefaultZoneID}
			return tx.InsertNode(&n)
		}); err != nil {
			t.Fatal(err)
		}
	}
	r := c.get("rackcontrollers/?hostname=rack-b").eq("0.hostname", "rack-b").eq("1", nil)
	if s, _ := r.at("0.service_set").([]any); len(s) == 0 || s[0].(map[string]any)["name"] == nil || s[0].(map[string]any)["status"] == nil {
		t.Errorf("services %v", s)
	}
	// Hosts of virtual machines are gone, and say so.
	c.post("pods/", "type=virsh", "power_address=qemu+ssh://u@h/system").code(410)
	c.get("maas/?op=get_config&name=default_osystem").is(200, `"ubuntu"`)
}
