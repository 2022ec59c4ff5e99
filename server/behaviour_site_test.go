package server_test

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/ingot-metal/ingot/storage"
)

// results gives a machine a set of finished runs: name, output.
func (n *node) results(kind int64, parameters string, runs ...string) (set storage.ScriptSet, ids []int64) {
	n.w.t.Helper()
	n.w.write(func(tx *storage.Tx) error {
		set = storage.ScriptSet{NodeID: n.ID, Type: kind}
		var results []storage.ScriptResult
		for i := 0; i+1 < len(runs); i += 2 {
			exit := int64(0)
			results = append(results, storage.ScriptResult{Name: runs[i], Status: storage.ScriptPassed, ExitStatus: &exit, Output: []byte(runs[i+1]), Stdout: []byte(runs[i+1]),
				Parameters: []byte(parameters), Started: time.Now(), Ended: time.Now()})
		}
		if err := tx.AddScriptSet(&set, results); err != nil {
			return err
		}
		all, err := tx.ScriptResults(set.ID)
		for _, r := range all {
			ids = append(ids, r.ID)
			for i := 0; i+1 < len(runs); i += 2 {
				if r.Name == runs[i] && len(r.Output) == 0 {
					r.Output, r.Stdout = []byte(runs[i+1]), []byte(runs[i+1])
					if err := tx.SaveScriptResult(&r); err != nil {
						return err
					}
				}
			}
		}
		return err
	})
	return set, ids
}

var scriptBehaviours = []behaviour{
	{178, "a script may be named by its part of the form", same, func(w *world) {
		w.admin.upload("scripts/", nil, "foo=foo.sh=#!/bin/sh\nexit 0\n").eq("name", "foo")
		w.user.upload("scripts/", nil, "bar=bar.sh=#!/bin/sh\nexit 0\n").code(403)
		w.admin.post("scripts/").code(400)
	}},
	{179, "default scripts stay, others go back to what they were", same, func(w *world) {
		d := storage.Script{Name: "builtin", Type: storage.SetTesting, IsDefault: true, Content: []byte("#!/bin/sh\n")}
		w.write(func(tx *storage.Tx) error { return tx.InsertScript(&d, nil) })
		w.admin.delete("scripts/builtin").code(400)
		w.admin.post("scripts/builtin?op=revert", "to=-1").code(400)
		w.admin.upload("scripts/", nil, "foo=foo.sh=#!/bin/sh\nexit 0\n").code(200)
		w.admin.post("scripts/foo?op=revert").code(400)
		w.admin.post("scripts/foo?op=revert", "to=yesterday").code(400)
		w.admin.post("scripts/foo?op=revert", "to=9999").code(400)
		w.admin.put("scripts/foo", "script=#!/bin/sh\nexit 1\n").code(200)
		w.admin.post("scripts/foo?op=revert", "to=-1").code(200)
		w.admin.get("scripts/foo?op=download").is(200, "#!/bin/sh\nexit 0\n")
	}},
	{180, "scripts are filtered by tag and by name, and have a past", same, func(w *world) {
		first := w.admin.upload("scripts/", []string{"tags=fast"}, "foo=foo.sh=#!/bin/sh\nexit 0\n").str("history.0.id")
		w.admin.upload("scripts/", nil, "bar=bar.sh=#!/bin/sh\nexit 0\n").code(200)
		w.admin.upload("scripts/", nil, "baz=baz.sh=#!/bin/sh\nexit 0\n").code(200)
		got := w.user.get("scripts/?filters=fast,bar").all("name")
		if strings.Join(got, " ") != "bar foo" && strings.Join(got, " ") != "foo bar" {
			w.t.Errorf("%q", got)
		}
		w.user.get("scripts/foo?include_script=1").eq("history.0.data", base64.StdEncoding.EncodeToString([]byte("#!/bin/sh\nexit 0\n")))
		w.admin.put("scripts/foo", "script=#!/bin/sh\nexit 1\n").code(200)
		w.user.get("scripts/foo?op=download&rev="+first).is(200, "#!/bin/sh\nexit 0\n")
		w.user.get("scripts/foo?op=download&revision="+first).is(200, "#!/bin/sh\nexit 0\n")
		w.user.get("scripts/foo?op=download&revision=99999").code(400)
	}},
	{181, "a tag is one word", same, func(w *world) {
		w.admin.upload("scripts/", nil, "foo=foo.sh=#!/bin/sh\nexit 0\n").code(200)
		w.admin.post("scripts/foo?op=add_tag", "tag=a,b").code(400)
		w.user.get("scripts/foo").code(200).lacks(`"a,b"`, `"a"`)
	}},
	{182, "results show outputs if asked, and no passwords", same, func(w *world) {
		n := w.machine(storage.StatusReady)
		set, ids := n.results(storage.SetTesting, `{"pw": {"type": "password", "value": "s3cret"}}`, "one", "out1", "two", "out2")
		p := n.below("results/%d/", set.ID)
		w.admin.get(p).has(200, "REDACTED").lacks("s3cret", base64.StdEncoding.EncodeToString([]byte("out1")))
		w.admin.get(p+"?include_output=1").has(200, base64.StdEncoding.EncodeToString([]byte("out1")))
		r := w.admin.get(fmt.Sprintf("%s?filters=one,%d", p, ids[0])).eq("results.0.name", "one").eq("results.1", nil)
		r.lacks("s3cret")
	}},
	{183, "results are packed as asked", same, func(w *world) {
		n := w.machine(storage.StatusReady)
		set, _ := n.results(storage.SetTesting, "{}", "one", "out1", "two", "out2")
		p := n.below("results/%d/?op=download", set.ID)
		w.admin.get(p + "&filetype=zip").code(400)
		w.admin.get(p).has(200, "out1", "out2", "---")
		b := w.admin.get(p+"&filetype=tar.xz").code(200).header("Content-Type", "application/x-tar").Body
		if !strings.HasPrefix(string(b), "\xfd7zXZ\x00") {
			w.t.Errorf("%q", b[:min(len(b), 12)])
		}
	}},
	{184, "results are suppressed by administrators, in words", same, func(w *world) {
		n := w.machine(storage.StatusReady)
		set, _ := n.results(storage.SetTesting, "{}", "one", "out1")
		p := n.below("results/%d/", set.ID)
		w.admin.put(p, "suppressed=testing").code(400)
		w.user.put(p, "suppressed=true").code(403)
		w.user.delete(p).code(403)
		w.admin.put(p, "suppressed=true").eq("results.0.suppressed", true)
	}},
}

var otherBehaviours = []behaviour{
	{185, "a list of images is short and filtered", same, func(w *world) {
		w.image("ubuntu/noble", "amd64/ga-24.04")
		w.image("custom/web", "amd64/generic")
		w.user.get("boot-resources/").list("name", "ubuntu/noble", "custom/web").lacks(`"sets"`)
		w.user.get("boot-resources/?type=synced").list("name", "ubuntu/noble")
		w.user.get("boot-resources/?type=uploaded").list("name", "custom/web")
		w.user.get("boot-resources/?type=odd").code(400)
	}},
	{186, "content that is there need not be sent again", same, func(w *world) {
		form := announce("web", "hello")
		w.user.post("boot-resources/", form...).code(403)
		r := w.admin.post("boot-resources/", form...).code(201)
		w.admin.raw("PUT", uploadURI(r), "application/octet-stream", "hello").is(200, "OK")
		again := w.admin.post("boot-resources/", announce("other", "hello")...).has(201, `"complete": true`)
		if uploadURI(again) != "" {
			w.t.Errorf("an upload is expected: %s", again.Text())
		}
		sum := sha256.Sum256([]byte("hello"))
		w.admin.post("boot-resources/", "name=custom/third", "architecture=amd64/generic", "size=6", "sha256="+hex.EncodeToString(sum[:]), "filetype=tgz").code(400)
	}},
	{187, "pieces of an image add up", same, func(w *world) {
		put := func(uri, body string) *reply { return w.admin.raw("PUT", uri, "application/octet-stream", body) }
		uri := uploadURI(w.admin.post("boot-resources/", announce("web", "hello")...).code(201))
		put(uri, "").code(400)
		put(uri, "too much of it").code(400)
		put(uri, "hel").is(200, "OK")
		put(uri, "lo").is(200, "OK")
		put(uri, "x").code(400)
		other := uploadURI(w.admin.post("boot-resources/", announce("bad", "abcde")...).code(201))
		put(other, "edcba").code(400)
		r := w.image("ubuntu/noble", "amd64/ga-24.04")
		var f storage.BootResourceFile
		w.write(func(tx *storage.Tx) error {
			set := storage.BootResourceSet{ResourceID: r.ID, Version: "2", Label: "stable"}
			if err := tx.InsertBootResourceSet(&set); err != nil {
				return err
			}
			f = storage.BootResourceFile{SetID: set.ID, Filename: "squashfs", Filetype: "squashfs", SHA256: strings.Repeat("a", 64), Size: 5}
			return tx.InsertBootResourceFile(&f)
		})
		put(fmt.Sprintf("boot-resources/%d/upload/%d/", r.ID, f.ID), "abcde").code(403)
	}},
	{188, "a source of images has one keyring", same, func(w *world) {
		const sources = "boot-sources/"
		w.admin.post(sources, "url=http://example.com/a/", "keyring_filename=/usr/share/keyrings/k.gpg").code(201)
		w.admin.upload(sources, []string{"url=http://example.com/b/"}, "keyring_data=k.gpg=key").code(201)
		w.admin.post(sources, "url=http://example.com/c/").code(400)
		w.user.post(sources, "url=http://example.com/d/", "keyring_filename=/k.gpg").code(403)
	}},
	{189, "a selection picks what the source has", same, func(w *world) {
		id := w.admin.get("boot-sources/").str("0.id")
		w.write(func(tx *storage.Tx) error { // it was read
			return tx.SetBootSourceState(storage.BootSourceState{SourceID: 1, Checked: tx.Now(), Offers: []byte(
				`[{"os": "ubuntu", "release": "jammy", "arches": ["amd64"], "subarches": ["ga-22.04"], "labels": ["stable"]}]`)})
		})
		w.admin.post("boot-sources/"+id+"/selections/", "os=ubuntu", "release=nosuch").
			field("os", "OS ubuntu with release nosuch has no available images for download")
		w.admin.post("boot-sources/"+id+"/selections/", "os=ubuntu", "release=jammy", "arches=amd64", "subarches=*", "labels=*").code(200)
	}},
	{190, "events come newest first, from a level up", same, func(w *world) {
		n := w.machine(storage.StatusReady)
		w.events(n, 10, 20, 40, 0)
		r := w.user.get("events/?op=query&id="+n.SystemID).eq("count", 2)
		if r.str("events.0.id") < r.str("events.1.id") {
			w.t.Errorf("%s", r.Text())
		}
		w.admin.get("events/?op=query&level=AUDIT&id="+n.SystemID).eq("count", 1).eq("events.0.level", "AUDIT")
		w.user.get("events/?op=query&limit=1001").is(400, "Requested number of events 1001 is greater than limit: 1000")
	}},
	{191, "events are asked for one way at a time", same, func(w *world) {
		w.user.get("events/?op=query&before=1&after=2").is(400, "There is undetermined behaviour when both `after` and `before` are specified.")
		w.user.get("events/?op=query&level=x").is(400, "Unrecognised log level: x")
		w.user.get("events/?op=query&mac_address=A&mac_address=B").is(400, "Invalid MAC address(es): A, B")
	}},
	{192, "what is newer is taken from the near end", same, func(w *world) {
		n := w.machine(storage.StatusReady)
		e := w.events(n, 20, 20, 20, 20, 20, 20)
		w.user.get(fmt.Sprintf("events/?op=query&id=%s&after=%d&limit=2", n.SystemID, e[1])).eq("events.0.id", e[3]).eq("events.1.id", e[2]).eq("count", 2)
		w.admin.post("zones/", "name=east").code(200)
		x := who{w, w.AddUser(w.t, "gone", true)}
		m := w.machine(storage.StatusDeployed)
		x.post(m.path("lock")).code(200)
		before := w.admin.get("events/?op=query&level=DEBUG&owner=gone").at("count")
		w.admin.delete("users/gone/").code(204)
		if after := w.admin.get("events/?op=query&level=DEBUG&owner=gone").at("count"); after != before || after == 0.0 {
			w.t.Errorf("%v events, then %v", before, after)
		}
		d := w.node(storage.NodeDevice, 0)
		w.events(d, 20)
		w.admin.get("events/?op=query&id="+d.SystemID).eq("count", 0)
	}},
	{193, "a device has a MAC, and its parent's domain", same, func(w *world) {
		w.user.post("devices/").code(400)
		w.user.post("devices/", "hostname=d").code(400)
		w.admin.post("domains/", "name=example.com").code(200)
		n := w.machine(storage.StatusDeployed, ownedBy(w.user))
		w.admin.put(n.path(""), "domain=example.com").code(200)
		r := w.user.post("devices/", "hostname=d", "mac_addresses=52:54:00:aa:00:01", "parent="+n.SystemID).eq("fqdn", "d.example.com").eq("parent", n.SystemID)
		if keys := r.at("").(map[string]any); len(keys) != 17 {
			w.t.Errorf("%d keys: %v", len(keys), sortedKeys(keys))
		}
		w.user.post("devices/", "hostname=e", "domain=maas", "mac_addresses=52:54:00:aa:00:02", "parent="+n.SystemID).eq("fqdn", "e.maas")
	}},
	{194, "devices are their owner's", same, func(w *world) {
		mine, foreign := w.node(storage.NodeDevice, 0, ownedBy(w.user)), w.node(storage.NodeDevice, 0, ownedBy(w.other))
		w.user.put(foreign.path(""), "hostname=x").code(403)
		w.user.delete(foreign.path("")).code(403)
		w.user.post(foreign.path("restore_networking_configuration")).code(403)
		w.user.get("devices/").list("system_id", mine.SystemID)
		w.admin.get("devices/").list("system_id", mine.SystemID, foreign.SystemID)
		w.user.put(mine.path(""), "hostname=x").eq("hostname", "x")
	}},
	{195, "discoveries are cleared by administrators who say which", same, func(w *world) {
		const d = "discovery/?op="
		w.user.post(d+"clear", "all=true").code(403)
		w.admin.post(d + "clear").code(400)
		w.admin.post(d + "scan").code(400)
		w.admin.post(d+"scan", "cidr=10.0.0.0/24", "threads=x").code(400)
		w.admin.post(d+"scan", "cidr=bad").code(400)
		vlan := storage.DefaultVLANID
		w.write(func(tx *storage.Tx) error {
			return tx.PutNeighbour(storage.Neighbour{IP: netip.MustParseAddr("10.0.0.9"), MAC: "52:54:00:aa:00:01", VLANID: &vlan})
		})
		w.admin.post(d+"clear_by_mac_and_ip", "ip=10.0.0.9", "mac=52:54:00:aa:00:01").code(204)
		w.admin.post(d+"clear_by_mac_and_ip", "ip=10.0.0.9", "mac=52:54:00:aa:00:01").is(410, "Gone")
	}},
	{196, "a file comes alone and with a name", same, func(w *world) {
		w.user.upload("files/", nil, "file=a=x").is(400, "Filename not supplied")
		w.user.upload("files/", []string{"filename=a"}).is(400, "File not supplied")
		w.user.upload("files/", []string{"filename=a"}, "file=a=x", "other=b=y").is(400, "Exactly one file must be supplied")
		w.user.upload("files/", []string{"filename=a"}, "file=a=x").is(201, "")
		w.user.upload("files/", []string{"filename=a"}, "file=a=y\x00z").is(201, "")
		w.user.get("files/?op=get&filename=a").is(200, "y\x00z")
	}},
	{197, "a file is its owner's, or whoever knows its key", same, func(w *world) {
		w.user.upload("files/", []string{"filename=a"}, "file=a=x").code(201)
		w.nobody.get("files/?op=get&filename=a").code(400)
		w.nobody.get("files/a/").code(401)
		uri := w.user.get("files/a/").str("anon_resource_uri")
		w.nobody.get(uri).is(200, "x")
		w.other.get("files/a/").code(404)
		w.other.get("files/?op=get&filename=a").code(404)
	}},
	{198, "a setting has a name that exists", same, func(w *world) {
		w.user.get("maas/?op=get_config").is(400, "No provided name!")
		for _, name := range []string{"nonsense", "rpc_shared_secret"} {
			r := w.admin.get("maas/?op=get_config&name=" + name).keys(name)
			if !strings.Contains(r.Text(), name+" is not a valid config setting (valid settings are: ") {
				w.t.Errorf("%s", r.Text())
			}
		}
	}},
	{199, "settings are checked, and some have two names", same, func(w *world) {
		const set = "maas/?op=set_config"
		w.admin.post(set, "name=", "value=x").is(400, "Invalid name: Please enter a value")
		w.admin.post(set, "name=maas_name").is(400, "No provided value!")
		w.user.post(set, "name=maas_name", "value=x").code(403)
		w.image("centos/centos70", "amd64/generic")
		w.admin.post(set, "name=default_distro_series", "value=centos70").code(400)
		w.admin.post(set, "name=ntp_server", "value=ntp.example.com").is(200, "OK")
		w.admin.get("maas/?op=get_config&name=ntp_servers").is(200, `"ntp.example.com"`)
		w.admin.post(set, "name=main_archive", "value=http://mirror.example.com/ubuntu").is(200, "OK")
		w.admin.get("package-repositories/main_archive/").eq("url", "http://mirror.example.com/ubuntu")
	}},
	{200, "a rack that serves stays, and tells administrators what it can", same, func(w *world) {
		r := w.node(storage.NodeRack, 0)
		w.write(func(tx *storage.Tx) error {
			v, err := tx.VLAN(storage.DefaultVLANID)
			if err != nil {
				return err
			}
			v.DhcpOn, v.PrimaryRackID = true, &r.ID
			return tx.UpdateVLAN(&v)
		})
		w.user.get("rackcontrollers/?op=describe_power_types").code(403)
		w.user.get(r.path("list_boot_images")).code(403)
		w.admin.post(r.path("import_boot_images")).code(202)
		w.admin.delete(r.path("")).code(400)
		w.admin.delete(r.path("") + "?force=true").code(204)
	}},
	{201, "logging in elsewhere has its own answers", differs, func(w *world) {
		w.admin.get("oidc-providers/").is(200, `"No OIDC providers found."`)
		form := []string{"name=sso", "issuer_url=http://127.0.0.1:9/", "client_id=c", "client_secret=s", "enabled=true", "token_type=JWT", "redirect_uri=http://127.0.0.1/cb", "scopes=openid"}
		w.admin.post("oidc-providers/", append(form, "vendor=INVALID")...).is(400, "Invalid vendor: INVALID. Must be one of: Generic, EntraID, Auth0, Keycloak.")
		w.admin.post("oidc-providers/", append(form, "vendor=Generic")...).code(501)
	}},
	{202, "Ubuntu's archives have pockets, others components", same, func(w *world) {
		const r = "package-repositories/"
		w.user.get(r+"main_archive/").eq("name", "main_archive")
		id := w.admin.post(r, "name=mine", "url=http://example.com/deb").str("id")
		w.admin.put(r+id+"/", "disabled_components=universe").code(400)
		w.admin.put(r+"main_archive/", "components=universe").code(400)
		w.admin.put(r+"main_archive/", "disabled_pockets=trousers").code(400)
		w.user.put(r+id+"/", "name=x").code(403)
	}},
	{203, "a snippet goes back to what it was", same, func(w *world) {
		id := w.admin.post("dhcp-snippets/", "name=s", "value=one", "global_snippet=true").str("id")
		p := "dhcp-snippets/" + id + "/?op=revert"
		w.admin.post(p).is(400, "You must specify where to revert to")
		w.admin.post(p, "to=x").is(400, "x is an invalid 'to' value")
		r := w.admin.post(p, "to=4711").code(400)
		if !strings.Contains(r.Text(), "4711 not found in history") {
			w.t.Errorf("%s", r.Text())
		}
		w.admin.put("dhcp-snippets/"+id+"/", "value=two").eq("value", "two")
		w.admin.post(p, "to=-1").eq("value", "one")
	}},
	{204, "hosts of virtual machines are gone", same, func(w *world) {
		for _, p := range []string{"pods/", "pods/1/", "vm-hosts/", "vm-hosts/1/", "vm-clusters/", "vm-clusters/1", "virtual-machines/", "virtual-machines/1"} {
			w.admin.get(p).is(410, "VM host (KVM) support has been removed from MAAS.")
		}
	}},
}

// announce are the parameters of a new image of that content.
func announce(name, content string) []string {
	sum := sha256.Sum256([]byte(content))
	return []string{"name=custom/" + name, "architecture=amd64/generic", fmt.Sprintf("size=%d", len(content)), "sha256=" + hex.EncodeToString(sum[:]), "filetype=tgz"}
}

// uploadURI is where an announced image's content is to be sent; "" when it is not.
func uploadURI(r *reply) string {
	sets, _ := r.at("sets").(map[string]any)
	for _, s := range sets {
		files, _ := s.(map[string]any)["files"].(map[string]any)
		for _, f := range files {
			uri, _ := f.(map[string]any)["upload_uri"].(string)
			return uri
		}
	}
	r.t.Fatalf("%s\n got %s\nwithout a file", r.what, r.squeezed())
	return ""
}

// events writes events of these levels about a node and answers their ids.
func (w *world) events(n *node, levels ...int64) (ids []int64) {
	w.t.Helper()
	for _, level := range levels {
		e := storage.Event{NodeID: &n.ID, NodeHostname: n.Hostname, SystemID: n.SystemID, Type: "TEST", Level: level, Description: "it"}
		w.write(func(tx *storage.Tx) error { return tx.InsertEvent(&e) })
		ids = append(ids, e.ID)
	}
	return ids
}
