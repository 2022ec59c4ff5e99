package provisioner

import (
	"context"
	"strings"
	"testing"

	"github.com/ingot-metal/ingot/storage"
)

func TestSettingDefaults(t *testing.T) {
	s, _ := identityService(t)
	admin := asUser(t, s, "root", true)
	seen := map[string]bool{}
	for _, d := range settings {
		if seen[d.name] {
			t.Errorf("%s is there twice", d.name)
		}
		seen[d.name] = true
		v, err := s.GetConfig(admin, d.name)
		if err != nil || v != d.def {
			t.Errorf("%s: %v, %v", d.name, v, err)
		}
		switch d.def.(type) {
		case bool:
			if d.kind != boolSetting {
				t.Errorf("%s: a truth value of kind %d", d.name, d.kind)
			}
		case int64:
			if d.kind != intSetting {
				t.Errorf("%s: a number of kind %d", d.name, d.kind)
			}
		case string:
			if got, err := d.parse(d.def.(string)); err != nil || got != d.def {
				t.Errorf("%s: its own default is refused: %v, %v", d.name, got, err)
			}
		case nil:
		default:
			t.Errorf("%s: a default of type %T", d.name, d.def)
		}
	}
}

func TestSetConfig(t *testing.T) {
	s, _ := identityService(t)
	admin, joe := asUser(t, s, "root", true), asUser(t, s, "joe", false)
	for _, c := range []struct {
		name, value string
		want        any
		fails       string
	}{
		{"kernel_opts", " console=ttyS0 ", "console=ttyS0", ""},
		{"kernel_opts", "", "", ""},
		{"maas_name", "", nil, "This field is required."},
		{"enable_http_proxy", "false", false, ""},
		{"enable_http_proxy", "no", true, ""}, // as MAAS has it
		{"node_timeout", "45", int64(45), ""},
		{"node_timeout", "0", nil, "greater than or equal to 1"},
		{"node_timeout", "x", nil, "Enter a whole number."},
		{"node_timeout", "", nil, "This field is required."},
		{"session_length", "9999999999", nil, "less than or equal to 1209600"},
		{"active_discovery_interval", "601", nil, "Select a valid choice."},
		{"dnssec_validation", "maybe", nil, "Select a valid choice. maybe is not one of the available choices."},
		{"ntp_servers", "a.b, 10.0.0.1  ::1", "a.b 10.0.0.1 ::1", ""},
		{"ntp_server", "c.d", "c.d", ""},
		{"ntp_servers", "a_b!", nil, "Invalid hostname"},
		{"upstream_dns", "8.8.8.8,1.1.1.1", "8.8.8.8 1.1.1.1", ""},
		{"upstream_dns", "dns.google", nil, "Invalid IP address"},
		{"http_proxy", "http://p:3128/", "http://p:3128/", ""},
		{"http_proxy", "file:///etc/passwd", nil, "Enter a valid URL."},
		{"remote_syslog", "log.host:514", "log.host:514", ""},
		{"remote_syslog", "log.host:0", nil, "Invalid port."},
		{"hardware_sync_interval", "1h30m", "1h30m", ""},
		{"hardware_sync_interval", "soon", nil, "interval"},
		{"dns_trusted_acl", "10.0.0.0/8 host", "10.0.0.0/8 host", ""},
		{"maas_auto_ipmi_workaround_flags", "idzero nonsense", nil, "Select a valid choice."},
		{"ingot_boot_environment", "full", "full", ""},
		{"kernel_opts", "a\x00b", nil, "Enter a valid value."},
		{"kernel_opts", strings.Repeat("x", 1<<17), nil, "Enter a valid value."},
	} {
		err := s.SetConfig(admin, c.name, c.value)
		if c.fails != "" {
			wantError(t, c.name+"="+c.value, err, Invalid, c.fails)
			continue
		}
		if err != nil {
			t.Errorf("%s=%q: %v", c.name, c.value, err)
			continue
		}
		if v, err := s.GetConfig(joe, c.name); err != nil || v != c.want {
			t.Errorf("%s=%q: reads %v, %v", c.name, c.value, v, err)
		}
	}
	wantError(t, "as user", s.SetConfig(joe, "kernel_opts", "x"), Forbidden, "can_edit_configurations")
	wantError(t, "unknown", s.SetConfig(admin, "nonsense", "x"), Invalid, "nonsense is not a valid config setting (valid settings are: active_discovery_interval, ")
	_, err := s.GetConfig(joe, "nonsense")
	wantError(t, "unknown", err, Invalid, "nonsense")
}

func TestSecretSettings(t *testing.T) {
	s, _ := identityService(t)
	admin, joe := asUser(t, s, "root", true), asUser(t, s, "joe", false)
	if err := s.SetConfig(admin, "vcenter_password", "geheim"); err != nil {
		t.Fatal(err)
	}
	_, err := s.GetConfig(joe, "vcenter_password")
	wantError(t, "as user", err, Forbidden, "")
	if v, err := s.GetConfig(admin, "vcenter_password"); err != nil || v != "geheim" {
		t.Error(v, err)
	}
	if err := s.DB.Read(context.Background(), func(tx *storage.Tx) error {
		events, err := tx.Events(storage.EventFilter{})
		for _, e := range events {
			if strings.Contains(e.Description, "geheim") {
				t.Errorf("an event says: %s", e.Description)
			}
		}
		if len(events) == 0 {
			t.Error("no events at all")
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
}
