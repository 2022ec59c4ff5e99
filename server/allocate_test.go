package server_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/ingot-metal/ingot/api"
	"github.com/ingot-metal/ingot/server/servertest"
	"github.com/ingot-metal/ingot/storage"
	"github.com/ingot-metal/ingot/storage/storagetest"
)

const allocateURL = "/MAAS/api/2.0/machines/?op=allocate"

// TestAllocateMatches: the answer tells by type which parts met the labels, with the verbose form of every machine that fits. The dry run
// answers the same and takes nothing.
func TestAllocateMatches(t *testing.T) {
	db := storagetest.New(t)
	e := servertest.On(t, db, withDrivers)
	storagetest.FleetOf(t, db, 3, 3, 4)
	ask := []string{"storage", "root:500,data:1(ssd),1(hdd)", "interfaces", "net:subnet=fleet,name=eth1;any:type=physical", "agent_name", "juju"}
	var m api.Machine
	for _, more := range [][]string{{"dry_run", "true"}, {"dry_run", "true", "verbose", "true"}, {"verbose", "true"}} {
		a := e.User.Post(allocateURL, append(more, ask...)...)
		m = api.Machine{}
		if a.Into(t, &m); a.Status != http.StatusOK {
			t.Fatal(a.Text())
		}
		var raw struct {
			Types map[string]map[string]any `json:"constraints_by_type"`
		}
		a.Into(t, &raw)
		disk, nic := map[string]int64{}, map[string]int64{}
		for _, d := range m.BlockdeviceSet {
			disk[d.Name] = d.ID
		}
		for _, i := range m.InterfaceSet {
			nic[i.Name] = i.ID
		}
		want := fmt.Sprintf("map[data:[%d] root:[%d]] map[any:[%d %d %d] net:[%d]]", disk["sdc"], disk["sda"], nic["eth0"], nic["eth1"], nic["eth2"], nic["eth1"])
		if got := fmt.Sprint(raw.Types["storage"], raw.Types["interfaces"]); got != want || m.Hostname != "machine-0" {
			t.Errorf("%v: %s has %s, want %s", more, m.Hostname, got, want)
		}
		verbose := len(more) == 4 || more[0] == "verbose"
		if got := len(raw.Types["verbose_storage"]); verbose != (got == 3) {
			t.Errorf("%v: %v", more, raw.Types)
		}
		if byLabel := raw.Types["verbose_interfaces"]; verbose && (len(byLabel) != 2 || len(byLabel["net"].(map[string]any)) != 3) {
			t.Errorf("%v: %v", more, byLabel)
		}
		for id, labels := range raw.Types["verbose_storage"] {
			if l := labels.(map[string]any); len(l) != 2 {
				t.Errorf("%s: %v", id, l)
			}
		}
	}
	if m.StatusName != "Allocated" || *m.Owner != "user" {
		t.Errorf("%s %v", m.StatusName, m.Owner)
	}
	expect(t, e.User.Get("/MAAS/api/2.0/machines/?agent_name=juju"), 200, m.SystemID)
	expect(t, e.User.Post(allocateURL), 200, `"constraints_by_type": {}`)
	a := e.User.Post(allocateURL, "verbose", "true", "dry_run", "true")
	expect(t, a, 200, `"verbose_storage": {}`)
	expect(t, a, 200, `"verbose_interfaces": {}`)
	expect(t, e.User.Post(allocateURL, "storage", "1", "dry_run", "true"), 200, `"constraints_by_type": {}`)
	// The same on a partition, which has a name of its own kind.
	a = e.User.Post(allocateURL, "storage", "r:1(partition)", "bridge_all", "true", "bridge_type", "ovs")
	expect(t, a, 200, `"partition:`)
	expect(t, a, 200, `"br-eth0"`)
	expect(t, e.User.Post(allocateURL, "bridge_type", "token"), 400, "Invalid bridge_type: Value must be one of: standard, ovs (not 'token')")
	expect(t, e.User.Post(allocateURL), 409, "No machine available.")
	expect(t, e.User.Post(allocateURL, "subnets", "space:undefined"), 409, `(resolved to "subnets=1")`)
}

// TestNodeFilters: lists take the constraints too, also those that look at the parts of machines.
func TestNodeFilters(t *testing.T) {
	db := storagetest.New(t)
	e := servertest.On(t, db, withDrivers)
	storagetest.FleetOf(t, db, 3, 3, 4)
	for query, want := range map[string]int{
		"": 3, "storage=0,1(ssd)": 3, "storage=0,1(ssd),1(ssd)": 0, "storage=0,300(hdd)": 2, "interfaces=a:name=eth2": 3, "interfaces=a:name=eth9": 0,
		"interfaces=a:hostname=machine-1": 1, "devices=vendor_id=8086": 0, "fabrics=fabric-0": 3, "subnets=fleet": 3, "not_subnets=fleet": 0, "vlans=untagged": 3,
		"not_vlans=20&vlans=untagged": -1, "owner=user": 0, "not_owner=user": 3, "deployment_target=disk": 3, "deployment_target=memory": 0,
		"deployment_target=memory&deployment_target=disk": 3, "not_deployment_target=memory": 3, "simple_status=ready": 3, "status=new": 0, "not_simple_status=ready": 0,
		"interfaces=x": 3, "mem=9000": 2, "storage=bad": -1, "devices=bad": -1, "interfaces=a:b=c": -1, "link_speed=x": -1, "subnets=space:none": -1,
		"dry_run=true&verbose=true&comment=x&bridge_all=true&bridge_type=ovs&bridge_stp=1&bridge_fd=2": 3,
	} {
		for _, path := range []string{"machines", "nodes"} {
			a := e.Admin.Get("/MAAS/api/2.0/" + path + "/?" + query)
			if want < 0 {
				if a.Status != 400 && a.Status != 404 {
					t.Errorf("%s %s: %d", path, query, a.Status)
				}
				continue
			}
			var list []map[string]any
			if a.Status != 200 {
				t.Errorf("%s %s: %d %s", path, query, a.Status, a.Text())
				continue
			}
			if a.Into(t, &list); len(list) != want {
				t.Errorf("%s %s: %d machines, want %d", path, query, len(list), want)
			}
		}
	}
}

// TestAllocateExplains holds the explanation of a refusal to the document, and to what is true.
func TestAllocateExplains(t *testing.T) {
	db := storagetest.New(t)
	e := servertest.On(t, db, withDrivers)
	storagetest.Fleet(t, db, 3) // 8, 16 and 24 GiB; 4, 5 and 6 CPU
	form, body := "application/x-www-form-urlencoded", "mem=9000&cpu_count=6&not_tags=virtual&zone=default"
	plain := e.User.Send(http.MethodPost, allocateURL, form, strings.NewReader(body))
	for _, header := range [][2]string{{"X-Ingot-Explain", "1"}, {"Accept", "application/json, application/problem+json;q=0.9"}} {
		a := e.User.Send(http.MethodPost, allocateURL, form, strings.NewReader(body), header[0], header[1])
		if a.Status != 409 || a.Header.Get("Content-Type") != "application/problem+json" {
			t.Fatalf("%d %s %s", a.Status, a.Header.Get("Content-Type"), a.Text())
		}
		var doc api.NoMatch
		d := json.NewDecoder(bytes.NewReader(a.Body))
		d.DisallowUnknownFields()
		if err := d.Decode(&doc); err != nil {
			t.Fatal(err)
		}
		if doc.Detail != plain.Text() || doc.Status != 409 || doc.Machines != 3 || doc.Available != 3 {
			t.Errorf("%+v", doc)
		}
		if got, want := fmt.Sprint(doc.Constraints), "[{mem [9000.0] 2 2} {cpu_count [6.0] 1 1} {not_tags [virtual] 0 0} {zone [default] 0 3}]"; got != want {
			t.Errorf("%s, want %s", got, want)
		}
		if got, want := fmt.Sprint(doc.Relax), "[{not_tags [] 1 n00002 machine-2}]"; got != want {
			t.Errorf("%s, want %s", got, want)
		}
		want := "[{n00002 machine-2 [it has the tag virtual]} {n00001 machine-1 [it has 5 CPU, of 6 asked for it has the tag virtual]} " +
			"{n00000 machine-0 [it has 8192 MiB of memory, of 9000 asked for it has 4 CPU, of 6 asked for it has the tag virtual]}]"
		if got := fmt.Sprint(doc.Nearest); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
	if plain.Status != 409 || !strings.HasPrefix(plain.Header.Get("Content-Type"), "text/plain") {
		t.Errorf("%d %v", plain.Status, plain.Header)
	}
	explain := func(pairs ...string) (doc api.NoMatch) {
		a := e.User.Send(http.MethodPost, allocateURL, form, strings.NewReader(servertest.Form(pairs...)), "X-Ingot-Explain", "1")
		if a.Into(t, &doc); a.Status != 409 {
			t.Fatal(a.Text())
		}
		return doc
	}
	// The value that would do is the one of the machine that comes closest.
	for _, c := range []struct{ name, value, want string }{
		{"mem", "99999", "[24576]"}, {"cpu_count", "7", "[6]"}, {"storage", "root:2000(ssd,nvme)", "[root:1099.511(ssd)]"},
		{"interfaces", "a:name=eth0;b:name=eth9", "[a:name=eth0]"}, {"interfaces", "b:name=eth9", "[]"}, {"name", "machine-9", "[machine-0]"}, {"devices", "vendor_id=1", "[]"},
	} {
		doc := explain(c.name, c.value)
		if len(doc.Relax) != 1 || doc.Relax[0].Machines != 3 || fmt.Sprint(doc.Relax[0].Values) != c.want {
			t.Errorf("%s=%s: %+v, want %s", c.name, c.value, doc.Relax, c.want)
			continue
		}
		if v := doc.Relax[0].Values; len(v) > 0 {
			expect(t, e.User.Post(allocateURL, c.name, v[0], "dry_run", "1"), 200, doc.Relax[0].SystemID)
		}
	}
	// Machines in other states say so, and of those that one may not see nothing is told.
	expect(t, e.Admin.Post(allocateURL, "name", "machine-2"), 200, "Allocated")
	if doc := explain("mem", "20000"); doc.Machines != 2 || doc.Available != 2 || len(doc.Nearest) != 2 || strings.Contains(fmt.Sprint(doc), "machine-2") {
		t.Errorf("%+v", doc)
	}
	a := e.Admin.Send(http.MethodPost, allocateURL, form, strings.NewReader("mem=20000"), "X-Ingot-Explain", "1")
	expect(t, a, 409, "it is Allocated, not Ready")
	expect(t, e.User.Post(allocateURL, "agent_name", "a1"), 200, `"owner": "user"`)
	expect(t, e.User.Get("/MAAS/api/2.0/machines/?op=list_allocated"), 200, `"hostname": "machine-0"`)
	expect(t, e.User.Get("/MAAS/api/2.0/machines/?agent_name=a1"), 200, `"hostname": "machine-0"`)
	id := "/MAAS/api/2.0/machines/n00000/"
	expect(t, e.User.Post(id+"?op=set_workload_annotations", "role", "db"), 200, `"role": "db"`)
	expect(t, e.Admin.Post(id+"?op=set_owner_data", "role", "x"), 409, "")
	expect(t, e.User.Post(id+"?op=set_owner_data", "role", ""), 200, `"owner_data": {}`)
}

// TestChef replays what knife-maas 1.x and chef-provisioning-maas send to the API 1.0, word for word.
func TestChef(t *testing.T) {
	db := storagetest.New(t)
	e := servertest.On(t, db, withDrivers)
	storagetest.Fleet(t, db, 4)
	if err := db.Write(context.Background(), func(tx *storage.Tx) error {
		r := storage.BootResource{Rtype: 2, Name: "custom/debian", Architecture: "amd64/generic"}
		if err := tx.InsertBootResource(&r); err != nil {
			return err
		}
		set := storage.BootResourceSet{ResourceID: r.ID, Version: "1", Label: "uploaded"}
		if err := tx.InsertBootResourceSet(&set); err != nil {
			return err
		}
		return tx.InsertBootResourceFile(&storage.BootResourceFile{SetID: set.ID, Filename: "root-tgz", Filetype: "root-tgz", SHA256: strings.Repeat("ab", 32), Size: 1, Uploaded: 1, Complete: true})
	}); err != nil {
		t.Fatal(err)
	}
	for _, set := range [][2]string{{"default_osystem", "custom"}, {"default_distro_series", "debian"}} {
		expect(t, e.Admin.Post("/MAAS/api/2.0/maas/?op=set_config", "name", set[0], "value", set[1]), 200, "OK")
	}
	type node struct {
		SystemID    string   `json:"system_id"`
		Status      int      `json:"status"`
		Substatus   int      `json:"substatus"`
		Netboot     bool     `json:"netboot"`
		PowerState  string   `json:"power_state"`
		Owner       *string  `json:"owner"`
		Hostname    string   `json:"hostname"`
		IPAddresses []string `json:"ip_addresses"`
		ResourceURI string   `json:"resource_uri"`
	}
	read := func(a servertest.Answer, substatus int) (n node) {
		t.Helper()
		if a.Status != 200 {
			t.Fatalf("%d %s", a.Status, a.Text())
		}
		if a.Into(t, &n); n.Substatus != substatus || n.Status != substatus || n.ResourceURI != "/MAAS/api/1.0/nodes/"+n.SystemID+"/" {
			t.Fatalf("%+v", n)
		}
		return n
	}
	// chef-provisioning-maas: two slashes, the operation in the body.
	const slashes = "/MAAS/api/1.0//nodes/"
	n := read(e.User.Post(slashes, "op", "acquire", "zone", "default", "mem", "9000"), 10)
	if n.Owner == nil || *n.Owner != "user" || n.Hostname != "machine-1" || len(n.IPAddresses) == 0 {
		t.Fatalf("%+v", n)
	}
	read(e.User.Get(slashes+n.SystemID+"/"), 10)
	read(e.User.Get("/MAAS/api/1.0/nodes/"+n.SystemID), 10)
	if started := read(e.User.Post(slashes+n.SystemID+"/", "op", "start"), 9); !started.Netboot {
		t.Fatalf("%+v", started)
	}
	read(e.User.Post(slashes+n.SystemID+"/", "op", "start"), 9) // now it switches on
	read(e.User.Post(slashes+n.SystemID+"/", "op", "release"), 12)
	// knife-maas: one slash, the operation in the query, but for acquire.
	const nodes = "/MAAS/api/1.0/nodes/"
	expect(t, e.User.Post(nodes, "op", "acquire", "name", "nosuch"), 409, "No available machine matches constraints: [('name', ['nosuch'])]")
	k := read(e.User.Post(nodes, "op", "acquire", "name", "machine-0"), 10)
	var list []node
	if e.User.Get(nodes+"?op=list").Into(t, &list); len(list) != 4 || list[0].Substatus != 10 {
		t.Fatalf("%+v", list)
	}
	if e.User.Get(nodes+"?op=list&id="+k.SystemID).Into(t, &list); len(list) != 1 || list[0].SystemID != k.SystemID {
		t.Fatalf("%+v", list)
	}
	read(e.User.Post(nodes+k.SystemID+"/?op=start"), 9)
	expect(t, e.User.Post(nodes+k.SystemID+"/?op=stop"), 200, "")
	expect(t, e.User.Post(nodes+k.SystemID+"/?op=release"), 200, `"substatus"`)
	expect(t, e.User.Post(nodes+"n00002/?op=commission"), 403, "")
	read(e.Admin.Post(nodes+"n00002/?op=commission"), 1)
	expect(t, e.User.Post(nodes+"n00002/?op=delete"), 403, "")
	expect(t, e.Admin.Post(nodes+"n00002/?op=delete"), 204, "")
	expect(t, e.Admin.Get(nodes+"n00002/"), 404, "No Machine matches the given query.")
	expect(t, e.Anon.Get(nodes+k.SystemID+"/"), 401, "")
	// Signatures cover what was sent, not what it is called now.
	form := url.Values{"op": {"acquire"}, "name": {"machine-3"}}
	h := hmacHeader("POST", e.URL+slashes, e.User.Key, nil, form)
	mine := read(e.Anon.Send("POST", slashes, "application/x-www-form-urlencoded", strings.NewReader(form.Encode()), "Authorization", h), 10)
	q := url.Values{"op": {"delete"}}
	h = hmacHeader("POST", e.URL+nodes+mine.SystemID+"/", e.Admin.Key, q, nil)
	expect(t, e.Anon.Send("POST", nodes+mine.SystemID+"/?op=delete", "", nil, "Authorization", h), 204, "")
	// All else is gone.
	const gone = "The 1.0 API is no longer available. Please use API version 2.0."
	for _, a := range []servertest.Answer{e.Admin.Get("/MAAS/api/1.0/"), e.Admin.Get("/MAAS/api/1.0"), e.Admin.Get("/MAAS/api/1.0/version/"), e.Anon.Get("/MAAS/api/1.0/anything"),
		e.Admin.Get("/MAAS/api/1.0/nodesx/"), e.Admin.Get(nodes), e.Anon.Get(nodes), e.Admin.Get(nodes + "?op=list_allocated"), e.Admin.Post(nodes), e.Admin.Post(nodes, "op", "release"),
		e.Admin.Post(nodes + "?op=accept_all"), e.Admin.Put(nodes+k.SystemID+"/", "hostname", "x"), e.Admin.Delete(nodes + k.SystemID + "/"), e.Admin.Post(nodes + k.SystemID + "/?op=deploy"),
		e.Admin.Post(nodes+k.SystemID+"/", "op", "delete"), e.Admin.Get(nodes + k.SystemID + "/interfaces/"), e.Admin.Post(nodes + "op-acquire"), e.Admin.Get("/MAAS/api/1.0/tags/")} {
		expect(t, a, 410, gone)
	}
}
