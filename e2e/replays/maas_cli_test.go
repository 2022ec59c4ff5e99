package replays

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"

	"github.com/ingot-metal/ingot/storage"
)

// The maas command line: httplib2, PLAINTEXT without realm, every part of a form in base64, the operation in the query, and neither
// body nor Content-Type where there is nothing to send.
func commandLine(t *testing.T) *client {
	e := newSite(t)
	return &client{t: t, e: e, key: e.Admin.Key, sign: plaintext(""),
		headers: []string{"User-Agent", "Python-httplib2/0.20.2 (gzip)", "Accept-Encoding", "gzip, deflate"}}
}

func TestCommandLineLogin(t *testing.T) {
	c := commandLine(t)
	key := c.key
	c.key = ""
	d := c.send("GET", "describe/", "", "").code(200)
	if kind := d.header.Get("Content-Type"); kind != "application/json" { // compared as a text
		t.Errorf("describe is %q", kind)
	}
	hash := d.str("hash")
	c.key = key
	who := c.send("GET", "users/?op=whoami", "", "").eq("username", "admin")
	if got := who.header.Get("X-MAAS-API-Hash"); got != hash {
		t.Errorf("hash %q, described as %q: every command would warn", got, hash)
	}
	c.key = strings.Replace(key, "S0", "Sx", 1)
	c.send("GET", "users/?op=whoami", "", "").code(401)
	c.key = "nobody:nothing:none"
	c.send("GET", "users/?op=whoami", "", "").code(401)
	// Without a key it asks whether it may get one.
	c.key = ""
	c.send("POST", "account/?op=create_authorisation_token", "", "").code(401)
	c.send("GET", "version/", "", "").code(200).eq("capabilities.8", "authenticate-api")
}

// What the command line offers: each action with parameters names them behind a blank line, else "key=value" is refused before
// anything is sent.
func TestCommandLineDescription(t *testing.T) {
	c := commandLine(t)
	c.key = ""
	seen := map[string]string{}
	for _, r := range c.send("GET", "describe/", "", "").at("resources").([]any) {
		for _, variant := range []string{"anon", "auth"} {
			h, ok := r.(map[string]any)[variant].(map[string]any)
			if !ok {
				continue
			}
			path, _ := h["path"].(string)
			if !strings.HasPrefix(path, "/MAAS/api/2.0/") || h["uri"] != c.e.URL+path {
				t.Errorf("%v: path %q, uri %v", h["name"], path, h["uri"])
			}
			for _, p := range h["params"].([]any) {
				if !strings.Contains(path, "{"+p.(string)+"}") {
					t.Errorf("%v: %v is not in %s", h["name"], p, path)
				}
			}
			for _, a := range h["actions"].([]any) {
				action := a.(map[string]any)
				title, body, _ := strings.Cut(action["doc"].(string), "\n\n")
				if strings.TrimSpace(title) == "" {
					t.Errorf("%v %v has no title", h["name"], action["name"])
				}
				seen[fmt.Sprint(h["name"], " ", action["name"])] = body
			}
		}
	}
	for action, param := range map[string]string{"MachinesHandler create": "mac_addresses", "MachinesHandler allocate": "cpu_count", "MachineHandler deploy": "distro_series",
		"SubnetsHandler create": "cidr", "TagHandler update_nodes": "add", "InterfacesHandler create_bond": "parents", "BootResourcesHandler create": "sha256",
		"MaasHandler set_config": "value", "SSHKeysHandler create": "key", "VlansHandler create": "vid", "DNSResourcesHandler create": "fqdn",
		"NodeScriptsHandler create": "name", "IPRangesHandler create": "start_ip", "UsersHandler create": "username", "FilesHandler create": "filename"} {
		if !strings.Contains(seen[action], ":param "+param+":") {
			t.Errorf("%s does not offer %s: %q", action, param, seen[action])
		}
	}
}

func TestCommandLineForms(t *testing.T) {
	c := commandLine(t)
	post := func(path string, pairs ...string) *answer {
		return c.send("POST", path, pythonType, base64Parts(pairs...))
	}
	put := func(path string, pairs ...string) *answer {
		return c.send("PUT", path, pythonType, base64Parts(pairs...))
	}
	none := func(method, path string) *answer { return c.send(method, path, "", "") }

	long := "a description with spaces, an é, a & and an = " + strings.Repeat("and more of it ", 20)
	post("zones/", "name=rack row 7", "description="+long).eq("description", long).eq("name", "rack row 7")
	put("zones/rack%20row%207/", "description=").eq("description", "")
	none("GET", "zones/rack%20row%207/").eq("description", "")
	none("DELETE", "zones/rack%20row%207/").is(204, "")

	m := post("machines/", "architecture=amd64", "mac_addresses=52:54:00:AA:00:01", "mac_addresses=52:54:00:AA:00:02", "power_type=manual", "hostname=one")
	id := m.eq("status_name", "Commissioning").eq("interface_set.0.mac_address", "52:54:00:AA:00:01").eq("interface_set.1.mac_address", "52:54:00:AA:00:02").str("system_id")
	none("POST", "machines/"+id+"/?op=abort").eq("status_name", "New") // no body, no type
	become(t, c.e, id, storage.StatusReady)
	post("tags/", "name=virtual", "comment=").eq("name", "virtual").eq("comment", "")
	post("tags/virtual/?op=update_nodes", "add="+id).eq("added", 1)
	none("GET", "machines/?hostname=one").eq("0.tag_names", []string{"virtual"})
	post("machines/?op=allocate", "tags=virtual", "comment=mine for now").eq("system_id", id).eq("status_name", "Allocated")
	post("machines/"+id+"/?op=set_workload_annotations", "role=web front").eq("workload_annotations", map[string]string{"role": "web front"})
	post("machines/?op=release", "machines="+id).eq("", []string{id})
	post("maas/?op=set_config", "name=maas_name", "value=my maas").is(200, "OK")
	none("GET", "maas/?op=get_config&name=maas_name").is(200, `"my maas"`)
	post("files/", "filename=a b", "@file=zero\x00bytes").is(201, "")
	none("GET", "files/?op=get&filename=a+b").is(200, "zero\x00bytes")
	post("account/prefs/sshkeys/", "key=nonsense").code(400)
	none("DELETE", "machines/"+id+"/").is(204, "")
	a := none("GET", "machines/"+id+"/").is(404, "No Machine matches the given query.")
	if !strings.HasPrefix(a.header.Get("Content-Type"), "text/plain") {
		t.Errorf("type %q", a.header.Get("Content-Type"))
	}
}

// An image goes up in pieces of 4 MiB, each of which must be answered with exactly 200.
func TestCommandLineUpload(t *testing.T) {
	c := commandLine(t)
	content := strings.Repeat("0123456789abcdef", 9<<16) // 9 MiB
	sum := sha256.Sum256([]byte(content))
	r := c.send("POST", "boot-resources/", pythonType, base64Parts("name=custom/web", "title=A web server", "architecture=amd64/generic", "filetype=tgz",
		"sha256="+hex.EncodeToString(sum[:]), fmt.Sprintf("size=%d", len(content)))).code(201)
	uri := ""
	sets := r.at("sets").(map[string]any)
	for _, set := range sets { // the newest is the only one
		for _, f := range set.(map[string]any)["files"].(map[string]any) {
			uri = f.(map[string]any)["upload_uri"].(string)
		}
	}
	if len(sets) != 1 || uri == "" {
		t.Fatalf("%s", r.body)
	}
	for rest := content; rest != ""; {
		n := min(4<<20, len(rest))
		c.send("PUT", uri, "application/octet-stream", rest[:n]).is(200, "OK")
		rest = rest[n:]
	}
	id := r.str("id")
	c.send("GET", "boot-resources/"+id+"/", "", "").has(200, `"complete": true`, `"title": "A web server"`)
	// Sent again, it is there already.
	c.send("POST", "boot-resources/", pythonType, base64Parts("name=custom/web", "architecture=amd64/generic", "filetype=tgz", "sha256="+hex.EncodeToString(sum[:]),
		fmt.Sprintf("size=%d", len(content)))).has(201, `"complete": true`)
}

// A script is a file in base64 too.
func TestCommandLineScript(t *testing.T) {
	c := commandLine(t)
	c.send("POST", "scripts/", pythonType, base64Parts("name=burn-in", "type=testing", "tags=slow", "@script=#!/bin/sh\nexit 0\n")).eq("name", "burn-in")
	c.send("GET", "scripts/burn-in?op=download", "", "").is(200, "#!/bin/sh\nexit 0\n")
	c.send("DELETE", "scripts/burn-in", "", "").is(204, "")
}
