package replays

import (
	"encoding/base64"
	"strings"
	"testing"

	"github.com/ingot-metal/ingot/storage"
)

// gomaasapi below Juju: the header in any order, "?op=" on creates, trailing slashes on everything, the connection closed after each
// call, and a reader that fails on a null where text is due. The library itself is run in e2e/clients; here are Juju's own calls.
func juju(t *testing.T) *client {
	e := newSite(t)
	c := &client{t: t, e: e, key: e.Admin.Key, headers: []string{"User-Agent", "Go-http-client/1.1", "Connection", "close"}}
	c.sign = func(c *client, method, uri, contentType, body string) string {
		h := strings.TrimPrefix(plaintext(`realm="MAAS+API", `)(c, method, uri, contentType, body), "OAuth ")
		parts := strings.Split(h, ", ")
		for i, j := 0, len(parts)-1; i < j; i, j = i+1, j-1 { // a Go map's order: any
			parts[i], parts[j] = parts[j], parts[i]
		}
		return "OAuth " + strings.Join(parts, ", ")
	}
	return c
}

func TestJuju(t *testing.T) {
	c := juju(t)
	post := func(path string, pairs ...string) *answer { return c.send("POST", path, formType, form(pairs...)) }
	c.send("GET", "version/", "", "").has(200, "network-deployment-ubuntu", `"subversion": "`)
	c.send("GET", "users/?op=whoami", "", "").eq("username", "admin")
	space := post("spaces/?op=", "name=dmz").str("id")
	c.send("PUT", "vlans/5001/", formType, form("space="+space)).eq("space", "dmz")
	post("fabrics/0/vlans/?op=", "vid=9").eq("space", "undefined")
	subnet := post("subnets/?op=", "cidr=10.88.0.0/24", "gateway_ip=10.88.0.1").str("id")
	id := c.machine("juju-1", "52:54:00:aa:bb:01")
	addDisk(t, c.e, id, "sda")
	addDisk(t, c.e, id, "sdb")
	post("machines/"+id+"/?op=set_storage_layout", "storage_layout=flat").code(200)
	post("nodes/"+id+"/interfaces/eth0/?op=link_subnet", "mode=STATIC", "subnet="+subnet, "ip_address=10.88.0.9").code(200)
	c.upload("web")

	// Spaces without subnets are skipped; a subnet's space is in the list, also the one for the rest.
	c.send("GET", "spaces/", "", "").find("name", "undefined")
	c.send("GET", "static-routes/", "", "").is(200, "[]")
	const model = "11111111-2222-4333-8444-555555555555"
	m := post("machines/?op=allocate", "agent_name="+model, "arch=amd64", "mem=3584", "zone=default", "interfaces="+space+":space="+space, "storage=root:8,1:10")
	m.eq("system_id", id)
	if l := m.at("interface_set.0.links").([]any); len(l) == 0 {
		t.Errorf("allocate answers no links: %s", m.body)
	}
	for _, link := range m.at("interface_set.0.links").([]any) {
		for k, v := range link.(map[string]any) {
			if v == nil {
				t.Errorf("a link has %s null: the whole list fails", k)
			}
		}
	}
	if m.at("constraints_by_type.storage.root") == nil || m.at("constraints_by_type.storage.1") == nil || m.at("constraints_by_type.interfaces."+space) == nil {
		t.Errorf("labels are not answered: %v", m.at("constraints_by_type"))
	}
	userData := base64.StdEncoding.EncodeToString([]byte("\x1f\x8b\x08\x00gzip, not text"))
	post("machines/"+id+"/?op=deploy", "distro_series=custom/web", "user_data="+userData).eq("status_name", "Deploying")
	post("machines/"+id+"/?op=set_owner_data", "juju-controller-uuid="+model, "juju-is-controller=true").eq("owner_data.juju-is-controller", "true")
	c.send("GET", "machines/?agent_name="+model+"&id="+id, "", "").eq("0.status_name", "Deploying")
	become(t, c.e, id, storage.StatusDeployed)
	if err := c.e.DB.Read(t.Context(), func(tx *storage.Tx) error {
		n, err := tx.Node(id)
		if string(n.UserData) != "\x1f\x8b\x08\x00gzip, not text" {
			t.Errorf("user data arrived as %q", n.UserData)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}

	// A container: a device with the machine as its parent, an address that the server picks, and a second interface.
	d := post("devices/?op=", "hostname=juju-aaaaaa-0-lxd-0", "mac_addresses=52:54:00:bb:00:01", "parent="+id).eq("parent", id)
	dev := d.str("system_id")
	nics := "nodes/" + dev + "/interfaces/" // the first "devices" of its address replaced by "nodes"
	eth0 := d.str("interface_set.0.id")
	c.send("PUT", nics+eth0+"/", formType, form("name=eth0", "vlan=5001")).eq("vlan.id", 5001)
	got := post(nics+eth0+"/?op=link_subnet", "mode=STATIC", "subnet="+subnet)
	if ip := got.str("links.0.ip_address"); !strings.HasPrefix(ip, "10.88.0.") || ip == "10.88.0.9" {
		t.Errorf("address %s", ip)
	}
	post(nics+"?op=create_physical", "name=eth1", "mac_address=52:54:00:bb:00:02", "vlan=5001", "mtu=1500", "tags=").eq("name", "eth1")
	c.send("GET", "devices/?mac_address=52:54:00:bb:00:01&mac_address=52:54:00:bb:00:02", "", "").eq("0.system_id", dev).eq("1", nil)
	c.send("GET", "devices/?hostname=juju-aaaaaa-0-lxd-0", "", "").eq("0.parent", id)
	c.send("DELETE", "devices/"+dev+"/", "", "").is(204, "")

	// Release: with an unknown machine 400, then one by one; and what the agent's name chose is no longer there.
	post("machines/?op=release", "machines="+id, "machines=nobody", "comment=x").code(400)
	post("machines/?op=release", "machines="+id, "comment=x").eq("", []string{id})
	become(t, c.e, id, storage.StatusReady)
	c.send("GET", "machines/?agent_name="+model, "", "").is(200, "[]")
	c.send("GET", "files/"+model+"-provider-state/", "", "").code(404)
	c.send("GET", "files/?prefix="+model+"-", "", "").is(200, "[]")
}
