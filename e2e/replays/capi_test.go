package replays

import (
	"net/url"
	"strings"
	"testing"

	"github.com/ingot-metal/ingot/storage"
)

// The Cluster API provider: HMAC-SHA1 over every request, a POST's form covered by it and a PUT's not; the operation in the form.
func clusterAPI(t *testing.T) *client {
	e := newSite(t)
	return &client{t: t, e: e, key: e.Admin.Key, sign: hmacSHA1, headers: []string{"User-Agent", "Go-http-client/1.1"}}
}

func TestClusterAPI(t *testing.T) {
	c := clusterAPI(t)
	post := func(path string, pairs ...string) *answer { return c.send("POST", path, formType, form(pairs...)) }
	post("subnets/", "cidr=10.88.0.0/24", "gateway_ip=10.88.0.1").code(200)
	id := c.machine("node", "52:54:00:aa:bb:01")
	addDisk(t, c.e, id, "sda")
	post("machines/"+id+"/?op=set_storage_layout", "storage_layout=flat").code(200)
	post("nodes/"+id+"/interfaces/eth0/?op=link_subnet", "mode=AUTO", "subnet=1").code(200)
	c.upload("web")

	// A name that has no address yet is made, and found again by its name.
	c.send("GET", "dnsresources/?fqdn=cluster.maas", "", "").is(200, "[]")
	d := post("dnsresources/", "fqdn=cluster.maas", "address_ttl=10", "ip_addresses=").eq("ip_addresses", []string{}).eq("address_ttl", 10).str("id")
	c.send("GET", "dnsresources/?fqdn=cluster.maas", "", "").eq("0.id", 1).eq("0.fqdn", "cluster.maas")

	post("machines/", "op=allocate", "cpu_count=2", "mem=2048", "zone=default", "pool=default", "not_pod=", "not_pod_type=").eq("system_id", id).eq("status_name", "Allocated")
	c.send("PUT", "machines/"+id+"/", formType, form("swap_size=0")).eq("swap_size", 0)
	user := "IyEvYmluL3NoCmVjaG8gKyAmID0gJQo="
	post("machines/"+id+"/", "op=deploy", "user_data="+user, "osystem=custom", "distro_series=web").eq("status_name", "Deploying")
	for range 2 {
		c.send("GET", "machines/"+id+"/", "", "").eq("status_name", "Deploying")
	}
	err := c.e.DB.Read(t.Context(), func(tx *storage.Tx) error {
		n, err := tx.Node(id)
		if string(n.UserData) != "#!/bin/sh\necho + & = %\n" {
			t.Errorf("user data arrived as %q", n.UserData)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	become(t, c.e, id, storage.StatusDeployed)
	c.send("PUT", "dnsresources/"+d+"/", formType, form("ip_addresses=10.88.0.20 10.88.0.21")).eq("ip_addresses.0.ip", "10.88.0.20").eq("ip_addresses.1.ip", "10.88.0.21")
	post("machines/"+id+"/", "op=release", "force=true").code(200)
	// No match is told by the text.
	if a := c.send("GET", "machines/nobody/", "", "").code(404); !strings.Contains(strings.ToLower(a.text()), "no machine matches") {
		t.Errorf("%s", a.body)
	}
	post("machines/", "op=allocate", "cpu_count=999").code(409)
}

// Text that signatures easily get wrong.
func TestClusterAPISignature(t *testing.T) {
	c := clusterAPI(t)
	for _, text := range []string{"plain", "two words", "a+b", "100%", "é und ü", "a&b=c", "~tilde-._", "*!'()", "/slash?", "", strings.Repeat("long ", 200)} {
		name := "z" + url.QueryEscape(text)
		name = strings.Map(func(r rune) rune {
			if 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' {
				return r
			}
			return '_'
		}, name)
		name = name[:min(len(name), 60)]
		c.send("POST", "zones/", formType, form("name="+name, "description="+text)).eq("description", text)
		c.send("PUT", "zones/"+name+"/", formType, form("description="+text+"!")).eq("description", text+"!")
		c.send("GET", "machines/?hostname="+url.QueryEscape(text)+"&hostname=b&id=", "", "").code(200)
	}
	// A multipart POST is signed without its body.
	c.send("POST", "zones/", pythonType, plainParts("name=parts", "description=x y")).eq("description", "x y")
	// What was signed cannot be changed.
	good := c.sign
	c.sign = func(c *client, method, uri, contentType, _ string) string {
		return good(c, method, uri, contentType, form("name=other"))
	}
	c.send("POST", "zones/", formType, form("name=mine")).code(401)
	c.sign = func(c *client, _, uri, contentType, body string) string {
		return good(c, "GET", uri, contentType, body)
	}
	c.send("DELETE", "zones/parts/", "", "").code(401)
	c.sign, c.key = good, c.key[:len(c.key)-1]+"x"
	c.send("GET", "machines/", "", "").code(401)
}
