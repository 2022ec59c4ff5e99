package server_test

import (
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/ingot-metal/ingot/api"
	"github.com/ingot-metal/ingot/storage"
)

const (
	templates = "/ingot/v1/preseed-templates"
	secrets   = "sssssssssssssssssssssssssssssssss"
)

// installing is a machine of the user's that is being deployed, with credentials that can be told apart.
func (w *world) installing() *node {
	w.t.Helper()
	n := w.deployable(storage.StatusReady)
	w.user.post(n.path("deploy")).code(200)
	n.update(func(s *storage.Node) { s.BootRackIP = "10.0.0.2" })
	w.write(func(tx *storage.Tx) error {
		return tx.InsertNodeToken(&storage.NodeToken{NodeID: n.ID, ConsumerKey: "cccc", TokenKey: "tttt", TokenSecret: secrets})
	})
	return n
}

// Curtin's configuration says what the model says, with credentials for those alone who may read them.
func TestCurtinConfig(t *testing.T) {
	w := newWorld(t)
	n := w.installing()
	a := w.admin.get(n.path("get_curtin_config")).has(200, secrets, "http://10.0.0.2:5248/MAAS/metadata/latest/by-id/"+n.SystemID+"/", "http://10.0.0.2:5248/images/")
	w.user.get(n.path("get_curtin_config")).has(200, "REDACTED").lacks(secrets, "cccc", "tttt")
	var doc struct {
		Storage struct {
			Version int
			Config  []map[string]any
		}
		Sources map[string]map[string]string
		Network struct {
			Version   int
			Ethernets map[string]struct {
				Addresses []string
				Match     map[string]string
			}
		}
		LateCommands map[string][]string `yaml:"late_commands"`
		Verbosity    int
	}
	if err := yaml.Unmarshal(a.Body, &doc); err != nil {
		t.Fatal(err)
	}
	if doc.Storage.Version != 1 || doc.Network.Version != 2 || doc.Sources["00_image"]["type"] != "fsimage" || len(doc.LateCommands["maas"]) == 0 || doc.Verbosity != 3 {
		t.Errorf("%s", a.Body)
	}
	mounted := false
	for _, it := range doc.Storage.Config {
		mounted = mounted || it["type"] == "mount" && it["path"] == "/"
	}
	eth := doc.Network.Ethernets["eth0"]
	if !mounted || len(eth.Addresses) != 1 || eth.Match["macaddress"] != n.nic.MACAddress {
		t.Errorf("%s", a.Body)
	}
	if m := n.read(); len(eth.Addresses) != 1 || len(m.IPAddresses) != 1 || !strings.HasPrefix(eth.Addresses[0], m.IPAddresses[0]+"/") {
		t.Errorf("addresses %v, the machine has %v", eth.Addresses, m.IPAddresses)
	}
	w.setting("force_v1_network_yaml", "true")
	w.setting("curtin_verbose", "false")
	w.setting("http_proxy", "http://proxy.example:8000/")
	w.admin.get(n.path("get_curtin_config")).has(200, "mac_address:", `proxy: "http://proxy.example:8000/"`).lacks("verbosity", "ethernets")
	n.update(func(s *storage.Node) { s.Status = storage.StatusFailedDeployment })
	w.admin.get(n.path("get_curtin_config")).code(200)
	n.update(func(s *storage.Node) { s.DistroSeries = "gone" })
	w.admin.get(n.path("get_curtin_config")).has(400, "Failed to render preseed: the image ubuntu/gone")
	if log := w.Log.String(); strings.Contains(log, secrets) {
		t.Error("the credentials are in the log")
	}
}

// Templates are stored when they can work, count by MAAS's order, and are previewed without what the reader may not see.
func TestPreseedTemplates(t *testing.T) {
	w := newWorld(t)
	n := w.installing()
	put := func(name, content string) *reply { return w.admin.put(templates+"/"+name, "content="+content) }
	put("curtin_userdata", "late_commands:\n  zz: [echo, all]\n").eq("prefix", "curtin_userdata").eq("kind", "yaml").eq("size", 33)
	put("curtin_userdata_ubuntu", "late_commands:\n  zz: [echo, {{.node.hostname | yaml}}, {{.node_disable_pxe_url | yaml}}]\n  maas: null\npower_state: {mode: off}\n").code(200)
	put("curtin_userdata_windows", "x: {{.license_key | yaml}}\n").code(200)
	preview := func(x who, query string) api.IngotPreseed {
		t.Helper()
		var d api.IngotPreseed
		x.get("/ingot/v1/machines/"+n.SystemID+"/preseed?"+query).code(200).Into(t, &d)
		return d
	}
	d := preview(w.admin, "")
	if !d.Valid || d.Template != "curtin_userdata_ubuntu" || !strings.Contains(d.Content, "zz:\n    - echo\n    - "+n.Hostname) || strings.Contains(d.Content, "netboot_off") || len(d.Warnings) != 1 ||
		!strings.Contains(d.Content, secrets) || d.LookedFor[0] != "curtin_userdata_ubuntu_amd64_generic_noble_"+n.Hostname {
		t.Errorf("%+v", d)
	}
	if d := preview(w.user, ""); strings.Contains(d.Content, secrets) || !strings.Contains(d.Content, "REDACTED") {
		t.Errorf("%s", d.Content)
	}
	put("curtin_userdata_amd64_generic_noble", "kernel: {package: mine}\n").code(200)
	if d := preview(w.admin, "prefix=curtin_userdata"); d.Template != "curtin_userdata_amd64_generic_noble" || !strings.Contains(d.Content, "package: mine") || !strings.Contains(d.Content, "netboot_off") {
		t.Errorf("%+v", d)
	}
	if d := preview(w.admin, "distro_series=jammy"); d.Template != "curtin_userdata_ubuntu" || !strings.Contains(d.Content, "/jammy/") {
		t.Errorf("%+v", d)
	}
	// The cloud-configs, and what stands in for them.
	for _, prefix := range []string{"commissioning", "curtin", "enlist"} {
		if d := preview(w.user, "prefix="+prefix); !d.Valid || d.Template != "" || !strings.HasPrefix(d.Content, "#cloud-config\n") || strings.Contains(d.Content, secrets) {
			t.Errorf("%s: %+v", prefix, d)
		}
	}
	put("generic", "{{.preseed_data}}packages: [jq]\n").code(200)
	if d := preview(w.admin, "prefix=commissioning"); d.Template != "generic" || !strings.HasSuffix(d.Content, "packages: [jq]\n") {
		t.Errorf("%+v", d)
	}
	if d := preview(w.admin, "prefix=autoinstall"); !d.Valid || d.Template != "" || !strings.Contains(d.Content, "autoinstall:\n") {
		t.Errorf("%+v", d)
	}
	if d := preview(w.admin, "prefix=kickstart"); d.Valid || !strings.Contains(d.Error, "kickstart is for install trees") || d.Content != "" {
		t.Errorf("%+v", d)
	}
	w.admin.get("/ingot/v1/machines/"+n.SystemID+"/preseed?prefix=x").field("prefix", "There is no document x: it is one of autoinstall, commissioning, curtin, curtin_userdata, enlist, kickstart, unattend.")
	w.admin.get("/ingot/v1/machines/" + n.SystemID + "/preseed?distro_series=no/such").keys("distro_series")
	w.other.get("/ingot/v1/machines/" + n.SystemID + "/preseed").code(403)

	// A Ready machine, before it is deployed.
	r := w.deployable(storage.StatusReady)
	w.user.get("/ingot/v1/machines/"+r.SystemID+"/preseed?distro_series=jammy").eq("valid", true).lacks("10.0.0.3")

	var list []api.IngotPreseedTemplate
	w.admin.get(templates).code(200).Into(t, &list)
	if len(list) != 5 || list[0].Name != "curtin_userdata" || list[0].Content != nil || list[4].Name != "generic" {
		t.Errorf("%+v", list)
	}
	w.admin.get(templates+"/generic").eq("content", "{{.preseed_data}}packages: [jq]\n")
	w.admin.delete(templates + "/generic").code(204)
	w.admin.delete(templates + "/generic").code(404)
	w.admin.get(templates + "/generic").code(404)

	// What cannot work is not stored, and says where.
	put("commissioning", "{{if}}").field("content", "Line 1: missing value for if.")
	put("commissioning", "packages: []").field("content", "The first line of a cloud-config is #cloud-config.")
	put("mine", "x").keys("name")
	put("curtin_userdata", "{{range 1000000000}}{{end}}").field("content", "The template does more than 500000 steps: shorten its loops.")
	put("curtin_userdata", "x: {{call .node}}").keys("content")
	w.admin.put(templates+"/commissioning").is(400, "No provided content!")
	w.admin.get(templates + "/commissioning").code(404)
	w.user.put(templates+"/curtin", "content={{.preseed_data}}").code(403)

	// Validation stores nothing.
	try := func(name string, form ...string) *reply {
		return w.admin.post(templates+"/"+name+"/validate", form...)
	}
	try("commissioning", "content={{.preseed_data}}").eq("valid", true).eq("template", "commissioning").eq("kind", "cloud-config")
	try("commissioning", "content=x").eq("valid", false).eq("content", "").eq("error", "The first line of a cloud-config is #cloud-config.")
	try("curtin_userdata", "content=x: {{.node.hostname}}\n", "system_id="+n.SystemID).eq("valid", true).has(200, "x: "+n.Hostname)
	try("curtin_userdata", "content=x: {{index .node.tags 0}}\n", "system_id="+n.SystemID).eq("valid", false).has(200, "Failed to render preseed: template curtin_userdata: line 1")
	try("generic", "content={{.preseed_data}}x: {{.node.system_id}}\n", "system_id="+n.SystemID).eq("valid", true).has(200, "x: "+n.SystemID)
	try("unattend", "content=<a>").eq("valid", false)
	try("nothing", "content=x").keys("name")
	try("curtin", "content={{.preseed_data}}", "system_id=nobody").code(404)
	try("curtin", "content={{.preseed_data}}", "system_id="+n.SystemID, "distro_series=no/such").keys("distro_series")
	w.admin.get(templates + "/commissioning").code(404)
	events := w.admin.get("events/?op=query&level=AUDIT").code(200)
	events.has(200, "Saved preseed template 'generic'.", "Deleted preseed template 'generic'.")
}
