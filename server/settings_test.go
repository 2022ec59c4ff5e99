package server_test

import (
	"encoding/json"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/ingot-metal/ingot/server/servertest"
	"github.com/ingot-metal/ingot/storage"
)

// Every setting over the wire: its default, a value that it takes and how that reads, a value that it refuses and why. Settings that
// take any text have no bad value.
func TestEverySetting(t *testing.T) {
	const (
		whole, url, required = "Enter a whole number.", "Enter a valid URL.", "This field is required."
		choice               = "Select a valid choice. x is not one of the available choices."
	)
	type row struct{ def, good, reads, bad, why string }
	flag := func(def, other string) row { return row{def, other, other, "", ""} }
	port := func(def string) row {
		return row{def, "6000", "6000", "70000", "Ensure this value is less than or equal to 65535."}
	}
	text := func(def string) row { return row{def, " some text ", `"some text"`, "", ""} }
	atLeast := func(def, min, bad string) row {
		return row{def, "20", "20", bad, "Ensure this value is greater than or equal to " + min + "."}
	}
	table := map[string]row{
		"maas_name":                                 {"*", "site", `"site"`, "", required},
		"theme":                                     text(`""`),
		"kernel_opts":                               text("null"),
		"enable_http_proxy":                         flag("true", "false"),
		"maas_proxy_port":                           port("8000"),
		"use_peer_proxy":                            flag("false", "true"),
		"prefer_v4_proxy":                           flag("false", "true"),
		"http_proxy":                                {"null", "http://p:3128", `"http://p:3128"`, "x", url},
		"default_dns_ttl":                           atLeast("30", "0", "-1"),
		"upstream_dns":                              {"null", "8.8.8.8, 2001:db8::1", `"8.8.8.8 2001:db8::1"`, "x", "Invalid IP address: x; provide a list of space-separated IP addresses"},
		"dnssec_validation":                         {`"auto"`, "no", `"no"`, "x", choice},
		"maas_internal_domain":                      {`"maas-internal"`, "inner", `"inner"`, "in ner", "Invalid domain name."},
		"dns_trusted_acl":                           {"null", "10.0.0.0/8 host", `"10.0.0.0/8 host"`, "a_b!", "Invalid hostname: a_b!."},
		"ntp_servers":                               {`"ntp.ubuntu.com"`, "a.b,10.0.0.1", `"a.b 10.0.0.1"`, "a_b!", "Invalid hostname: a_b!."},
		"ntp_external_only":                         flag("false", "true"),
		"allow_only_trusted_transfers":              flag("true", "false"),
		"remote_syslog":                             {"null", "log.host:514", `"log.host:514"`, "log.host:x", "Invalid port."},
		"maas_syslog_port":                          port("5247"),
		"network_discovery":                         {`"enabled"`, "disabled", `"disabled"`, "x", choice},
		"active_discovery_interval":                 {"10800", "600", "600", "601", "Select a valid choice. 601 is not one of the available choices."},
		"default_boot_interface_link_type":          {`"auto"`, "dhcp", `"dhcp"`, "x", choice},
		"default_osystem":                           {`"ubuntu"`, "custom", `"custom"`, "", ""},
		"default_distro_series":                     {`"noble"`, "custom/mine", `"mine"`, "centos/x", "Select a valid choice. centos/x is not one of the available choices."},
		"default_min_hwe_kernel":                    text(`""`),
		"enable_kernel_crash_dump":                  flag("false", "true"),
		"default_storage_layout":                    {`"flat"`, "lvm", `"lvm"`, "x", choice},
		"commissioning_osystem":                     {`"ubuntu"`, "ubuntu", `"ubuntu"`, "", ""},
		"commissioning_distro_series":               {`"noble"`, "jammy", `"jammy"`, "mine", "Select a valid choice. mine is not one of the available choices."},
		"enable_third_party_drivers":                flag("true", "false"),
		"windows_kms_host":                          text("null"),
		"enable_disk_erasing_on_release":            flag("false", "true"),
		"disk_erase_with_secure_erase":              flag("true", "false"),
		"disk_erase_with_quick_erase":               flag("false", "true"),
		"boot_images_auto_import":                   flag("true", "false"),
		"boot_images_no_proxy":                      flag("false", "true"),
		"curtin_verbose":                            flag("true", "false"),
		"force_v1_network_yaml":                     flag("false", "true"),
		"enable_analytics":                          flag("true", "false"),
		"experimental_switch_provisioning":          flag("false", "true"),
		"completed_intro":                           flag("false", "true"),
		"max_node_commissioning_results":            atLeast("10", "1", "0"),
		"max_node_testing_results":                  atLeast("10", "1", "0"),
		"max_node_installation_results":             atLeast("3", "1", "0"),
		"max_node_release_results":                  atLeast("3", "1", "0"),
		"subnet_ip_exhaustion_threshold_count":      atLeast("16", "1", "0"),
		"refresh_token_duration":                    {"2592000", "600", "600", "599", "Ensure this value is greater than or equal to 600."},
		"release_notifications":                     flag("true", "false"),
		"use_rack_proxy":                            flag("true", "false"),
		"node_timeout":                              {"30", "45", "45", "x", whole},
		"prometheus_enabled":                        flag("false", "true"),
		"prometheus_push_gateway":                   text("null"),
		"prometheus_push_interval":                  {"60", "61", "61", "x", whole},
		"promtail_enabled":                          flag("false", "true"),
		"promtail_port":                             port("5238"),
		"enlist_commissioning":                      flag("true", "false"),
		"maas_auto_ipmi_user":                       text(`"maas"`),
		"maas_auto_ipmi_user_privilege_level":       {`"ADMIN"`, "USER", `"USER"`, "x", choice},
		"maas_auto_ipmi_k_g_bmc_key":                text(`""`),
		"maas_auto_ipmi_cipher_suite_id":            {`"3"`, "17", `"17"`, "x", choice},
		"maas_auto_ipmi_workaround_flags":           {"null", "idzero,authcap", `["idzero","authcap"]`, "x", choice},
		"vcenter_server":                            text(`""`),
		"vcenter_username":                          text(`""`),
		"vcenter_password":                          text(`""`),
		"vcenter_datacenter":                        text(`""`),
		"hardware_sync_interval":                    {`"15m"`, "1h30m", `"1h30m"`, "soon", "Hardware sync interval must be given as hours, minutes and seconds, such as 15m."},
		"tls_cert_expiration_notification_enabled":  flag("false", "true"),
		"tls_cert_expiration_notification_interval": {"30", "90", "90", "91", "Ensure this value is less than or equal to 90."},
		"session_length":                            {"1209600", "10", "10", "9", "Ensure this value is greater than or equal to 10."},
		"auto_vlan_creation":                        flag("true", "false"),
		"main_archive":                              {`"http://archive.ubuntu.com/ubuntu"`, "http://m/ubuntu", `"http://m/ubuntu"`, "x", url},
		"ports_archive":                             {`"http://ports.ubuntu.com/ubuntu-ports"`, "https://m/p", `"https://m/p"`, "", required},
		"ingot_boot_environment":                    {`"light"`, "full", `"full"`, "x", choice},
	}
	e := servertest.New(t)
	err := e.DB.Write(t.Context(), func(tx *storage.Tx) error {
		return tx.InsertBootResource(&storage.BootResource{Rtype: storage.ResourceUploaded, Name: "custom/mine", Architecture: "amd64/generic"})
	})
	if err != nil {
		t.Fatal(err)
	}
	get := func(name string) string {
		t.Helper()
		a := e.Admin.Get("maas/?op=get_config&name=" + name)
		if a.Status != 200 || !json.Valid(a.Body) {
			t.Errorf("%s: %d %s", name, a.Status, a.Text())
		}
		return strings.Join(strings.Fields(a.Text()), "")
	}
	for _, name := range keysOf(table) {
		r := table[name]
		if got := get(name); got != r.def && r.def != "*" {
			t.Errorf("%s: the default is %s, want %s", name, got, r.def)
		}
	}
	// default_osystem comes first: the series belongs to it.
	for _, name := range append([]string{"default_osystem"}, keysOf(table)...) {
		r := table[name]
		if r.why != "" {
			a := e.Admin.Post("maas/?op=set_config", "name", name, "value", r.bad)
			var fields map[string][]string
			if a.Status != 400 || json.Unmarshal(a.Body, &fields) != nil || len(fields[name]) != 1 || fields[name][0] != r.why {
				t.Errorf("%s=%q: %d %s; want 400 with %q", name, r.bad, a.Status, a.Text(), r.why)
			}
		}
		if a := e.Admin.Post("maas/?op=set_config", "name", name, "value", r.good); a.Status != 200 || a.Text() != "OK" {
			t.Errorf("%s=%q: %d %s", name, r.good, a.Status, a.Text())
		}
		if got, want := get(name), strings.Join(strings.Fields(r.reads), ""); got != want {
			t.Errorf("%s=%q reads %s, want %s", name, r.good, got, want)
		}
	}
	run(t, []step{
		{e.Admin, "GET", "maas/?op=get_config", "", 400, "No provided name!"},
		{e.Admin, "GET", "maas/?op=get_config&name=zone_serial", "", 400, `"zone_serial is not a valid config setting (valid settings are: `},
		{e.Admin, "POST", "maas/?op=set_config", "name=&value=x", 400, "Invalid name: Please enter a value"},
		{e.Admin, "POST", "maas/?op=set_config", "name=theme", 400, "No provided value!"},
		{e.Admin, "POST", "maas/?op=set_config", "value=x", 400, "No provided name!"},
		{e.Admin, "POST", "maas/?op=set_config", "name=ntp_server&value=c.d", 200, "OK"},
		{e.User, "GET", "maas/?op=get_config&name=ntp_servers", "", 200, `"c.d"`},
		{e.User, "POST", "maas/?op=set_config", "name=theme&value=x", 403, "can_edit_configurations"},
		{e.User, "GET", "maas/?op=get_config&name=vcenter_password", "", 403, "can_view_configurations"},
		{e.Anon, "GET", "maas/?op=get_config&name=theme", "", 401, ""},
	})
	// The server's own list of settings is the table's.
	a := e.Admin.Get("maas/?op=get_config&name=none")
	m := regexp.MustCompile(`valid settings are: (.*)\)\.`).FindStringSubmatch(a.Text())
	if m == nil {
		t.Fatal(a.Text())
	}
	if got := strings.Split(m[1], ", "); !slices.Equal(got, keysOf(table)) {
		t.Errorf("the server has %v\nthe table %v", got, keysOf(table))
	}
}

func keysOf[V any](m map[string]V) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}
