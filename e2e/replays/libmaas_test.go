package replays

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"sort"
	"strings"
	"testing"

	"github.com/ingot-metal/ingot/storage"
)

// python-libmaas: aiohttp, the same bodies as the command line, but a multipart body of one part without headers where there is
// nothing to send, on DELETE too.
func libmaas(t *testing.T) *client {
	e := newSite(t)
	return &client{t: t, e: e, key: e.Admin.Key, sign: plaintext(""), headers: []string{"Accept", "application/json,*/*;q=0.9", "User-Agent", "Python/3.11 aiohttp/3.8"}}
}

const empty = "--" + boundary + "\r\n\r\n--" + boundary + "--"

// Login by user name and password: the version, the key, the description.
func TestLibmaasLogin(t *testing.T) {
	c := libmaas(t)
	c.send("POST", "users/", pythonType, base64Parts("username=ann", "email=ann@example.com", "password=s3cret enough", "is_superuser=0")).code(200)
	c.key = ""
	v := c.send("GET", "version/", "", "").code(200)
	if !strings.Contains(v.text(), "authenticate-api") {
		t.Errorf("%s", v.body)
	}
	for _, part := range strings.Split(v.str("version"), ".") { // PEP 440
		if strings.Trim(part, "0123456789") != "" {
			t.Errorf("version %s", v.str("version"))
		}
	}
	login := func(password string) *answer {
		return c.send("POST", "/MAAS/accounts/authenticate/", formType, form("username=ann", "password="+password, "consumer=libmaas@host"))
	}
	login("wrong").code(403)
	r := login("s3cret enough").code(200)
	c.key = r.str("consumer_key") + ":" + r.str("token_key") + ":" + r.str("token_secret")
	c.send("GET", "users/?op=whoami", "", "").eq("username", "ann")
	if again := login("s3cret enough"); again.str("token_key") != r.str("token_key") {
		t.Errorf("each login makes a key: %s, then %s", r.body, again.body)
	}
	// Every handler that it binds by name is described.
	names := map[string]bool{}
	for _, x := range c.send("GET", "describe/", "", "").at("resources").([]any) {
		names[strings.TrimSuffix(strings.TrimPrefix(x.(map[string]any)["name"].(string), "Anon"), "Handler")] = true
	}
	for _, n := range strings.Fields("Account Machines Machine Nodes Devices Device RackController RackControllers RegionController RegionControllers Interfaces Interface " +
		"BlockDevice BlockDevices Partition Partitions VolumeGroup VolumeGroups Raid Raids Bcache Bcaches BcacheCacheSet BcacheCacheSets Fabric Fabrics Vlan Vlans Subnet Subnets " +
		"Space Spaces Domain Domains DNSResource DNSResources DNSResourceRecord DNSResourceRecords IPRange IPRanges IPAddresses StaticRoute StaticRoutes Tag Tags Zone Zones " +
		"ResourcePool ResourcePools User Users SSHKey SSHKeys File Files Events BootResource BootResources BootSource BootSources BootSourceSelection BootSourceSelections Version Maas") {
		if !names[n] {
			t.Errorf("%s is not described", n)
		}
	}
}

func TestLibmaasMachine(t *testing.T) {
	c := libmaas(t)
	none := func(method, path string) *answer { return c.send(method, path, pythonType, empty) }
	post := func(path string, pairs ...string) *answer {
		return c.send("POST", path, pythonType, base64Parts(pairs...))
	}
	m := post("machines/", "architecture=amd64/generic", "mac_addresses=52:54:00:aa:00:01", "power_type=ipmi", `power_parameters={"power_address": "10.0.0.9", "power_user": "u", "power_pass": "p"}`,
		"hostname=lib")
	id := m.str("system_id")
	c.send("GET", "machines/"+id+"/?op=power_parameters", "", "").eq("power_address", "10.0.0.9").eq("power_user", "u")
	m.eq("owner", "admin").eq("node_type", 0).eq("pool.id", 0).eq("domain.id", 0) // whole numbers, never 0.0
	if s := m.str("power_state"); s != "unknown" && s != "on" && s != "off" && s != "error" {
		t.Errorf("power state %q", s)
	}
	none("POST", "machines/"+id+"/?op=abort").eq("status", 0)
	become(t, c.e, id, storage.StatusReady)
	none("POST", "machines/?op=allocate").eq("system_id", id)
	none("POST", "machines/"+id+"/?op=release").eq("status", 12)
	become(t, c.e, id, storage.StatusReady)
	none("POST", "machines/?op=allocate").eq("system_id", id)
	none("POST", "machines/"+id+"/?op=mark_broken").eq("status", 8)
	none("POST", "machines/"+id+"/?op=mark_fixed").eq("status", 4)
	none("DELETE", "machines/"+id+"/").is(204, "")
	// Fabric 0 is the default one, and its VLAN has a number of its own.
	c.send("GET", "fabrics/0/", "", "").eq("id", 0).eq("vlans.0.id", 5001).eq("vlans.0.vid", 0)
	z := post("zones/", "name=a", "description=one zone with spaces")
	z.eq("description", "one zone with spaces")
	none("DELETE", "zones/a/").is(204, "")
}

// Packer's recipes upload like this: the greatest set has one file, which is sent piece by piece.
func TestLibmaasUpload(t *testing.T) {
	c := libmaas(t)
	content := strings.Repeat("x", 5<<20)
	sum := sha256.Sum256([]byte(content))
	r := c.send("POST", "boot-resources/", pythonType, base64Parts("name=custom/packed", "title=t", "architecture=amd64/generic", "filetype=tgz", fmt.Sprintf("size=%d", len(content)),
		"sha256="+hex.EncodeToString(sum[:]))).code(201)
	sets := r.at("sets").(map[string]any)
	var keys []string
	for k := range sets {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	files := sets[keys[len(keys)-1]].(map[string]any)["files"].(map[string]any)
	if len(files) != 1 {
		t.Fatalf("%s", r.body)
	}
	for _, f := range files {
		file := f.(map[string]any)
		if file["complete"] != false {
			t.Fatalf("%v", file)
		}
		for rest := content; rest != ""; {
			n := min(4<<20, len(rest))
			c.send("PUT", file["upload_uri"].(string), "application/octet-stream", rest[:n]).code(200)
			rest = rest[n:]
		}
	}
	c.send("GET", "boot-resources/"+r.str("id")+"/", "", "").has(200, `"complete": true`)
	c.send("GET", "boot-sources/", "", "").has(200, `"created": "`)
}
