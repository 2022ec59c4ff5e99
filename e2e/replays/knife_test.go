package replays

import (
	"encoding/binary"
	"strings"
	"testing"

	"github.com/ingot-metal/ingot/storage"
)

// knife-maas: Ruby's OAuth, PLAINTEXT, the operation of machines/ in the form, and empty bodies elsewhere.
func knife(t *testing.T) *client {
	e := newSite(t)
	return &client{t: t, e: e, key: e.Admin.Key, sign: plaintext(`realm="", `), headers: []string{"Accept", "*/*", "User-Agent", "OAuth gem v0.5.1"}}
}

func TestKnife(t *testing.T) {
	c := knife(t)
	id := c.machine("chef-node", "52:54:00:aa:bb:01")
	subnet := c.post("subnets/", "cidr=10.88.0.0/24", "gateway_ip=10.88.0.1").str("id")
	addDisk(t, c.e, id, "sda")
	c.post("machines/"+id+"/?op=set_storage_layout", "storage_layout=flat").code(200)
	c.post("nodes/"+id+"/interfaces/eth0/?op=link_subnet", "mode=STATIC", "subnet="+subnet, "ip_address=10.88.0.9").code(200)
	c.upload("web")
	c.send("POST", "maas/?op=set_config", formType, form("name=default_osystem", "value=custom")).is(200, "OK")
	c.send("POST", "maas/?op=set_config", formType, form("name=default_distro_series", "value=web")).is(200, "OK")

	c.send("GET", "nodes/", "", "").eq("0.hostname", "chef-node")
	bare := func(op string) *answer { return c.send("POST", "machines/"+id+"/?op="+op, "", "") }
	c.send("POST", "machines/", formType, "op=allocate&name=chef-node").eq("system_id", id)
	c.send("GET", "nodes/?id="+id, "", "").eq("0.status", 10)
	bare("deploy").code(200)
	become(t, c.e, id, storage.StatusDeployed)
	c.send("GET", "nodes/?id="+id, "", "").eq("0.status", 6).eq("0.ip_addresses.0", "10.88.0.9")
	bare("power_off").code(200)
	bare("power_on").code(200)
	d := c.send("GET", "nodes/"+id+"/?op=details", "", "").code(200)
	if len(d.body) < 5 || int(binary.LittleEndian.Uint32(d.body)) != len(d.body) || !strings.HasPrefix(d.header.Get("Content-Type"), "application/bson") {
		t.Errorf("details %q of type %s", d.body, d.header.Get("Content-Type"))
	}
	bare("release").code(200)
	become(t, c.e, id, storage.StatusReady)
	bare("commission").code(200)
	bare("abort").code(200)
	c.send("DELETE", "nodes/"+id+"/", "", "").is(204, "")
	c.send("GET", "nodes/", "", "").is(200, "[]")
}
