package server_test

import (
	"net/http"
	"regexp"
	"strings"

	"github.com/ingot-metal/ingot/server"
	"github.com/ingot-metal/ingot/server/servertest"
	"github.com/ingot-metal/ingot/storage"
)

var transportBehaviours = []behaviour{
	{1, "anybody may read version/", differs, func(w *world) {
		r := w.nobody.get("version/").eq("version", server.Version).header("Content-Type", "application/json")
		if caps, _ := r.at("capabilities").([]any); len(caps) != 9 {
			w.t.Errorf("%d capabilities", len(caps))
		}
		if r.str("subversion") == "" { // MAAS's is empty
			w.t.Error("the subversion does not say which Ingot this is")
		}
	}},
	{2, "the version of the API is a bare text", same, func(w *world) {
		w.nobody.get("/MAAS/api/version/").is(200, "2.0")
	}},
	{3, "the API before this one is gone", same, func(w *world) {
		w.nobody.get("/MAAS/api/1.0/anything").is(410, "The 1.0 API is no longer available. Please use API version 2.0.")
		w.nobody.get("/MAAS/api/1.0/machines/").is(410, "The 1.0 API is no longer available. Please use API version 2.0.")
	}},
	{4, "an unknown path says so as text, whatever the verb", same, func(w *world) {
		for _, verb := range []string{"GET", "POST", "PUT", "DELETE", "PATCH"} {
			w.nobody.raw(verb, "no/such/", "", "").is(404, "Unknown API endpoint: /MAAS/api/2.0/no/such/.").header("Content-Type", "text/plain; charset=utf-8")
		}
	}},
	{5, "each answer names the API it is of", same, func(w *world) {
		hash := w.nobody.get("describe/").str("hash")
		for _, r := range []*reply{w.nobody.get("version/"), w.admin.get("zones/"), w.admin.get("zones/none/"), w.nobody.get("zones/")} {
			r.header("X-MAAS-API-Hash", hash)
		}
	}},
	{6, "the operation may stand in the path", same, func(w *world) {
		a, b := w.admin.get("maas/op-get_config?name=maas_name").code(200), w.admin.get("maas/?op=get_config&name=maas_name").code(200)
		if a.Text() != b.Text() || a.Text() == "" {
			w.t.Errorf("%q and %q", a.Text(), b.Text())
		}
	}},
	{7, "a list that has an anonymous variant without it is no operation", same, func(w *world) {
		w.nobody.get("nodes/").is(400, "Unrecognised signature: method=GET op=None")
	}},
	{8, "who am I wants a login", same, func(w *world) { w.nobody.get("users/?op=whoami").code(401) }},
	{9, "so do a subnet's ranges", same, func(w *world) {
		w.nobody.get("subnets/" + w.subnet("10.1.0.0/24") + "/?op=reserved_ip_ranges").code(401)
	}},
	{10, "an unknown token is refused by its name", same, func(w *world) {
		parts := strings.Split(w.Admin.Key, ":")
		w.admin.Key = parts[0] + ":nosuchtoken:" + parts[2]
		r := w.admin.post("nodes/", "op=start").code(401)
		if !strings.HasPrefix(r.Text(), "Authorization Error: 'Invalid access token:") {
			w.t.Errorf("%s", r.Text())
		}
	}},
	{11, "a machine's own credentials do not open the API", same, func(w *world) {
		n := w.machine(storage.StatusDeployed)
		t := storage.NodeToken{NodeID: n.ID, ConsumerKey: strings.Repeat("c", 18), TokenKey: strings.Repeat("t", 18), TokenSecret: strings.Repeat("s", 32)}
		w.write(func(tx *storage.Tx) error { return tx.InsertNodeToken(&t) })
		w.user.Key = t.ConsumerKey + ":" + t.TokenKey + ":" + t.TokenSecret
		w.user.get("machines/").is(403, "User is not allowed access to this API.")
	}},
	{12, "an operation named like a script comes back as text", same, func(w *world) {
		w.admin.get("nodes/?op=%3Cscript%3Ealert(1)%3C/script%3E").code(400).header("Content-Type", "text/plain")
	}},
	{13, "an unknown operation is named in the refusal", same, func(w *world) {
		w.admin.post("machines/", "op=invalid_operation").is(400, "Unrecognised signature: method=POST op=invalid_operation")
	}},
	{14, "a verb that only has operations, and one that has none", same, func(w *world) {
		w.admin.post("nodes/").is(400, "Unrecognised signature: method=POST op=None")
		w.admin.put("nodes/").is(405, "").header("Allow", "GET, POST")
	}},
	{15, "single objects take no POST unless they have operations", same, func(w *world) {
		w.admin.post("zones/default/").code(405)
		w.admin.post("resourcepool/0/").code(405)
		w.admin.post("license-key/windows/win2012").code(405)
		w.admin.post(w.node(storage.NodeDevice, 0).path("")).is(400, "Unrecognised signature: method=POST op=None")
	}},
	{16, "what was discovered cannot be written", same, func(w *world) {
		w.admin.put("discovery/MTAuMC4wLjEsMDA6MTE6MjI6MzM6NDQ6NTU=/").code(405)
		w.admin.delete("discovery/MTAuMC4wLjEsMDA6MTE6MjI6MzM6NDQ6NTU=/").code(405)
	}},
	{17, "a fault of ours is a 500", differs, func(w *world) {
		e := servertest.New(w.t, func(_ *servertest.ProvisionerConfig, c *servertest.ServerConfig) {
			c.Mounts = []server.Mount{{Prefix: "/boom/", Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("the exception's text") })}}
		})
		who{w, e.Anon}.get("/boom/x").is(500, "Internal Server Error")
	}},
	{18, "a new API key comes whole", same, func(w *world) {
		r := w.user.post("account/?op=create_authorisation_token", "name=n").eq("name", "n")
		if r.Header.Get("Content-Type") != "application/json; charset=utf-8" {
			w.t.Errorf("type %q", r.Header.Get("Content-Type"))
		}
		if got := strings.Join(sortedKeys(r.at("").(map[string]any)), " "); got != "consumer_key name token_key token_secret" {
			w.t.Errorf("keys %s", got)
		}
	}},
	{19, "a key that is not there cannot be deleted", same, func(w *world) {
		w.user.post("account/?op=delete_authorisation_token", "token_key=none").code(404)
		w.user.post("account/?op=delete_authorisation_token").is(400, "No provided token_key!")
		key := w.user.post("account/?op=create_authorisation_token").str("token_key")
		w.other.post("account/?op=delete_authorisation_token", "token_key="+key).code(404)
		w.user.post("account/?op=delete_authorisation_token", "token_key="+key).code(204)
	}},
	{20, "a key is renamed by all of it or by its middle", same, func(w *world) {
		r := w.user.post("account/?op=create_authorisation_token", "name=old")
		whole := r.str("consumer_key") + ":" + r.str("token_key") + ":" + r.str("token_secret")
		for name, token := range map[string]string{"whole": whole, "middle": r.str("token_key")} {
			w.user.post("account/?op=update_token_name", "token="+token, "name="+name).code(202)
			w.user.get("account/?op=list_authorisation_tokens").has(200, `"name": "`+name+`"`)
		}
		w.user.post("account/?op=update_token_name", "token=none", "name=x").code(404)
		w.user.post("account/?op=update_token_name", "name=x").code(400)
	}},
	{21, "keys are listed in one piece", same, func(w *world) {
		r := w.user.get("account/?op=list_authorisation_tokens").eq("0.name", "MAAS consumer").eq("0.token", w.User.Key)
		if strings.Count(r.str("0.token"), ":") != 2 {
			w.t.Errorf("%s", r.Text())
		}
	}},
}

var listBehaviours = []behaviour{
	{22, "machines/ lists machines only, in the order they came", same, func(w *world) {
		w.admin.get("machines/").is(200, "[]")
		b, a := w.machine(storage.StatusReady), w.machine(storage.StatusNew)
		w.node(storage.NodeDevice, 0)
		w.node(storage.NodeRack, 0)
		w.admin.get("machines/").list("system_id", b.SystemID, a.SystemID)
	}},
	{23, "nodes/ lists everything, each in its own shape", same, func(w *world) {
		for _, kind := range []int64{storage.NodeDevice, storage.NodeMachine, storage.NodeRack, storage.NodeRegion} {
			w.node(kind, storage.StatusReady)
		}
		r := w.admin.get("nodes/").list("node_type", "1", "0", "2", "3")
		for i, uri := range []string{"devices/", "machines/", "rackcontrollers/", "regioncontrollers/"} {
			if got := r.all("resource_uri")[i]; !strings.Contains(got, uri) {
				w.t.Errorf("%d: %s", i, got)
			}
		}
		r.has(200, `"node_type_name": "Device"`)
		for i, has := range []bool{false, true, false, false} {
			if _, ok := r.at("").([]any)[i].(map[string]any)["osystem"]; ok != has && i < 2 {
				w.t.Errorf("node %d has an osystem: %v", i, ok)
			}
		}
	}},
	{24, "the id filter keeps the order and ignores strangers", same, func(w *world) {
		a, b, c := w.machine(storage.StatusReady), w.machine(storage.StatusReady), w.machine(storage.StatusReady)
		w.admin.get("machines/?id="+c.SystemID+"&id="+a.SystemID+"&id=nobody").list("system_id", a.SystemID, c.SystemID)
		w.admin.get("machines/?id=nobody").is(200, "[]")
		w.admin.get("machines/").list("system_id", a.SystemID, b.SystemID, c.SystemID)
	}},
	{25, "a filter by no MAC address is refused", same, func(w *world) {
		w.admin.get("machines/?mac_address=00:E0:81:DD:D1:ZZ").field("mac_address", "'00:E0:81:DD:D1:ZZ' is not a valid MAC address.")
	}},
	{26, "an empty agent name is a filter, an absent one is none", same, func(w *world) {
		a := w.machine(storage.StatusAllocated, ownedBy(w.user), func(n *storage.Node) { n.AgentName = "juju" })
		b := w.machine(storage.StatusReady)
		w.admin.get("machines/?agent_name=").list("system_id", b.SystemID)
		w.admin.get("machines/?agent_name=juju").list("system_id", a.SystemID)
		w.admin.get("machines/").list("system_id", a.SystemID, b.SystemID)
	}},
	{27, "filters name zones that exist and constraints that are known", same, func(w *world) {
		w.admin.post("zones/", "name=east").code(200)
		a := w.machine(storage.StatusReady)
		w.machine(storage.StatusReady)
		w.admin.put(a.path(""), "zone=east").code(200)
		w.admin.get("machines/?zone=unknown").keys("zone")
		w.admin.get("machines/?zone=east").list("system_id", a.SystemID)
		w.admin.get("machines/?foo=1").field("foo", "No such constraint.")
	}},
	{28, "what is allocated to me is mine only", same, func(w *world) {
		a, b := w.machine(storage.StatusAllocated, ownedBy(w.user)), w.machine(storage.StatusAllocated, ownedBy(w.user))
		w.machine(storage.StatusAllocated, ownedBy(w.other))
		w.machine(storage.StatusDeployed, ownedBy(w.user))
		w.user.get("machines/?op=list_allocated").list("system_id", a.SystemID, b.SystemID)
		w.user.get("machines/?op=list_allocated&id="+b.SystemID).list("system_id", b.SystemID)
	}},
	{29, "power parameters are for administrators", same, func(w *world) {
		a, b := w.machine(storage.StatusReady), w.machine(storage.StatusReady)
		w.user.get("machines/?op=power_parameters").code(403)
		w.admin.get("machines/?op=power_parameters").has(200, a.SystemID, b.SystemID)
		w.admin.get("machines/?op=power_parameters&id="+b.SystemID).has(200, b.SystemID).lacks(a.SystemID)
	}},
	{30, "a machine is known by its MAC in any spelling", same, func(w *world) {
		n := w.machine(storage.StatusReady)
		w.admin.get("nodes/?op=is_registered&mac_address="+strings.ReplaceAll(n.nic.MACAddress, ":", "")).is(200, "true")
		w.admin.get("nodes/?op=is_registered&mac_address="+strings.ToUpper(strings.ReplaceAll(n.nic.MACAddress, ":", "-"))).is(200, "true")
		w.admin.get("nodes/?op=is_registered&mac_address=525400ffffff").is(200, "false")
	}},
	{31, "machines that are not in use count as unknown to strangers", same, func(w *world) {
		for status, want := range map[storage.NodeStatus]string{storage.StatusNew: "false", storage.StatusCommissioning: "false", storage.StatusRetired: "false",
			storage.StatusReady: "true", storage.StatusDeployed: "true"} {
			n := w.machine(status)
			w.nobody.get("nodes/?op=is_registered&mac_address="+n.nic.MACAddress).is(200, want)
		}
	}},
	{32, "strangers see whether something goes on with a machine", same, func(w *world) {
		for status, want := range map[storage.NodeStatus]string{storage.StatusCommissioning: "true", storage.StatusDeploying: "true", storage.StatusReady: "false",
			storage.StatusDeployed: "false"} {
			n := w.machine(status)
			w.nobody.get("nodes/?op=is_action_in_progress&mac_address="+n.nic.MACAddress).is(200, want)
		}
	}},
	{33, "many machines move to a zone at once", same, func(w *world) {
		w.admin.post("zones/", "name=east").code(200)
		a, b, c := w.machine(storage.StatusReady), w.machine(storage.StatusReady), w.machine(storage.StatusReady)
		w.user.post("machines/?op=set_zone", "zone=east", "nodes="+a.SystemID).code(400)
		w.admin.post("machines/?op=set_zone", "zone=east", "nodes="+a.SystemID, "nodes="+b.SystemID).is(200, "null")
		w.admin.get("machines/?zone=east").list("system_id", a.SystemID, b.SystemID)
		w.admin.get(c.path("")).eq("zone.name", "default")
	}},
}

var enlistBehaviours = []behaviour{
	{34, "a machine that enlists itself gets a short answer", same, func(w *world) {
		r := w.nobody.post("machines/", "hostname=new", "architecture=amd64", "mac_addresses=52:54:00:aa:00:01").eq("status_name", "New")
		if keys := r.at("").(map[string]any); len(keys) != 14 {
			w.t.Errorf("%d keys: %v", len(keys), sortedKeys(keys))
		}
	}},
	{35, "a machine that enlists twice is one machine", same, func(w *world) {
		first := w.nobody.post("machines/", "architecture=amd64", "mac_addresses=52:54:00:aa:00:01", "mac_addresses=52:54:00:aa:00:02").str("system_id")
		w.nobody.post("machines/", "architecture=amd64", "mac_addresses=52:54:00:AA:00:02").eq("system_id", first)
		w.admin.get("machines/").list("system_id", first)
	}},
	{36, "a new machine is known again by its BMC", same, func(w *world) {
		first := w.nobody.post("machines/", "architecture=amd64", "mac_addresses=52:54:00:aa:00:01", "power_type=ipmi",
			`power_parameters={"power_address": "10.0.0.9", "power_user": "maas", "power_pass": "x"}`).str("system_id")
		w.nobody.post("machines/", "architecture=amd64", "mac_addresses=52:54:00:aa:00:09", "power_type=ipmi",
			`power_parameters={"power_address": "10.0.0.9", "power_user": "maas", "power_pass": "x"}`).eq("system_id", first)
		w.admin.get("machines/").list("system_id", first)
	}},
	{37, "a machine that enlists says its architecture", same, func(w *world) {
		w.nobody.post("machines/", "mac_addresses=52:54:00:aa:00:01").field("architecture", "This field is required.")
	}},
	{38, "an architecture without its second half is generic", same, func(w *world) {
		w.admin.post("machines/", "architecture=amd64", "mac_addresses=52:54:00:aa:00:01", "power_type=manual").eq("architecture", "amd64/generic")
		w.admin.post("machines/", "architecture=amd64", "subarchitecture=x", "mac_addresses=52:54:00:aa:00:02", "power_type=manual").eq("architecture", "amd64/x")
	}},
	{39, "a second half cannot be given twice", same, func(w *world) {
		w.admin.post("machines/", "architecture=amd64/generic", "subarchitecture=generic", "mac_addresses=52:54:00:aa:00:01").is(400, "Subarchitecture cannot be specified twice.")
	}},
	{40, "one bad MAC of several is told", same, func(w *world) {
		w.admin.post("machines/", "architecture=amd64", "mac_addresses=52:54:00:aa:00:01", "mac_addresses=invalid").
			field("mac_addresses", "One or more MAC addresses is invalid. ('invalid' is not a valid MAC address.)")
	}},
	{41, "an architecture that nobody has is the only fault", same, func(w *world) {
		w.admin.post("machines/", "architecture=vax", "mac_addresses=52:54:00:aa:00:01", "power_type=manual").keys("architecture")
	}},
	{42, "a host name that looks like an address is replaced", same, func(w *world) {
		name := w.admin.post("machines/", "hostname=192.168.1.4", "architecture=amd64", "mac_addresses=52:54:00:aa:00:01", "power_type=manual").str("hostname")
		if regexp.MustCompile(`^\d|\.`).MatchString(name) || name == "" {
			w.t.Errorf("%q", name)
		}
		if w.admin.post("machines/", "architecture=amd64", "mac_addresses=52:54:00:aa:00:02", "power_type=manual").str("hostname") == "" {
			w.t.Error("no name was made")
		}
	}},
	{43, "who creates a machine decides what becomes of it", same, func(w *world) {
		form := []string{"architecture=amd64", "power_type=manual"}
		w.user.post("machines/", append(form, "mac_addresses=52:54:00:aa:00:01")...).eq("status_name", "New")
		w.admin.post("machines/", append(form, "mac_addresses=52:54:00:aa:00:02")...).eq("status_name", "Commissioning")
		w.admin.post("machines/", append(form, "mac_addresses=52:54:00:aa:00:03", "commission=false")...).eq("status_name", "New")
	}},
	{44, "a machine may arrive deployed", same, func(w *world) {
		w.admin.post("machines/", "architecture=amd64", "mac_addresses=52:54:00:aa:00:01", "power_type=manual", "deployed=true").eq("status_name", "Deployed")
	}},
	{45, "with a BMC a machine needs neither MAC nor architecture", same, func(w *world) {
		w.admin.post("machines/", "power_type=ipmi", "power_parameters_power_address=10.0.0.9").code(200)
	}},
	{46, "a blank power type is a power type", same, func(w *world) {
		w.admin.post("machines/", "architecture=amd64", "mac_addresses=52:54:00:aa:00:01", "power_type=", "power_parameters=", "commission=false").eq("power_type", "")
	}},
	{47, "an unknown power type is refused in Django's words", same, func(w *world) {
		w.admin.post("machines/", "architecture=amd64", "mac_addresses=52:54:00:aa:00:01", "power_type=magic").
			field("power_type", "Select a valid choice. magic is not one of the available choices.")
	}},
	{48, "a power parameter that nobody knows is refused, unless told not to look", same, func(w *world) {
		form := []string{"architecture=amd64", "mac_addresses=52:54:00:aa:00:01", "power_type=manual", "power_parameters_unknown_param=1"}
		w.admin.post("machines/", form...).field("power_parameters", "Unknown parameter(s): unknown_param.")
		w.admin.post("machines/", append(form, "power_parameters_skip_check=true")...).code(200)
	}},
	{49, "accepting wants a login, and the right to", same, func(w *world) {
		n := w.machine(storage.StatusNew)
		w.nobody.post("machines/?op=accept", "machines="+n.SystemID).is(401, "You must be logged in to accept machines.")
		w.user.post("machines/?op=accept", "machines="+n.SystemID).is(403, "You don't have the required permission to accept the following machine(s): "+n.SystemID+".")
	}},
	{50, "nothing is accepted of nothing, and strangers are named", same, func(w *world) {
		w.admin.post("machines/?op=accept").is(200, "[]")
		w.admin.post("machines/?op=accept", "machines=nobody").is(400, "Unknown machine(s): nobody.")
		d := w.node(storage.NodeDevice, 0)
		w.admin.post("machines/?op=accept", "machines="+d.SystemID).is(400, "Unknown machine(s): "+d.SystemID+".")
	}},
	{51, "what is accepted already is left out, what cannot be is a conflict", same, func(w *world) {
		for _, s := range []storage.NodeStatus{storage.StatusCommissioning, storage.StatusReady} {
			w.admin.post("machines/?op=accept", "machines="+w.machine(s).SystemID).is(200, "[]")
		}
		n := w.machine(storage.StatusDeployed, ownedBy(w.user))
		w.admin.post("machines/?op=accept", "machines="+n.SystemID).is(409, "Cannot accept node enlistment: node "+n.SystemID+" is in state Deployed.")
	}},
	{52, "a user who accepts all accepts nothing", same, func(w *world) {
		n := w.machine(storage.StatusNew)
		w.user.post("machines/?op=accept_all").is(200, "[]")
		w.admin.get(n.path("")).eq("status_name", "New")
		w.admin.post("machines/?op=accept_all").list("system_id", n.SystemID)
	}},
}
