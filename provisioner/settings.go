package provisioner

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/ingot-metal/ingot/storage"
)

// settingKind is what values of a setting look like.
type settingKind int

const (
	textSetting     settingKind = iota
	boolSetting                 // JSON true or false
	intSetting                  // JSON number
	urlSetting                  // http or https, or nothing
	ipsSetting                  // addresses, separated by blanks
	hostsSetting                // names and addresses, separated by blanks
	sourcesSetting              // names, addresses and networks
	hostPortSetting             // host[:port], or nothing
	domainSetting               // a domain name
	intervalSetting             // 15m
	listSetting                 // a JSON list of words out of choices
)

// setting describes one setting of the installation.
type setting struct {
	name     string
	kind     settingKind
	def      any      // string, bool, int64 or nil
	choices  []string // nil: free
	min, max int64    // of integers; both 0: free
	required bool     // text that must not be empty
	secret   bool     // shown to administrators only, and never in events
	archive  bool     // the URL of the package repository of that name
	osystem  string   // the setting that names the system whose series this is
}

const latestSeries = "noble"

// settings are all of them. The names and defaults are MAAS's; ours begin with ingot_.
var settings = []setting{
	{name: "maas_name", def: hostName(), required: true},
	{name: "theme", def: ""},
	{name: "kernel_opts"},
	{name: "enable_http_proxy", kind: boolSetting, def: true},
	{name: "maas_proxy_port", kind: intSetting, def: int64(8000), min: 1, max: 65535},
	{name: "use_peer_proxy", kind: boolSetting, def: false},
	{name: "prefer_v4_proxy", kind: boolSetting, def: false},
	{name: "http_proxy", kind: urlSetting},
	{name: "default_dns_ttl", kind: intSetting, def: int64(30), min: 0, max: 1<<31 - 1},
	{name: "upstream_dns", kind: ipsSetting},
	{name: "dnssec_validation", def: "auto", choices: []string{"auto", "yes", "no"}},
	{name: "maas_internal_domain", kind: domainSetting, def: "maas-internal", required: true},
	{name: "dns_trusted_acl", kind: sourcesSetting},
	{name: "ntp_servers", kind: hostsSetting, def: "ntp.ubuntu.com"},
	{name: "ntp_external_only", kind: boolSetting, def: false},
	{name: "allow_only_trusted_transfers", kind: boolSetting, def: true},
	{name: "remote_syslog", kind: hostPortSetting},
	{name: "maas_syslog_port", kind: intSetting, def: int64(5247), min: 1, max: 65535},
	{name: "network_discovery", def: "enabled", choices: []string{"enabled", "disabled"}},
	{name: "active_discovery_interval", kind: intSetting, def: int64(10800), choices: []string{"0", "600", "1800", "3600", "10800", "21600", "43200", "86400", "604800"}},
	{name: "default_boot_interface_link_type", def: "auto", choices: []string{"auto", "dhcp", "static", "link_up"}, required: true},
	{name: "default_osystem", def: "ubuntu"},
	{name: "default_distro_series", def: latestSeries, osystem: "default_osystem"},
	{name: "default_min_hwe_kernel", def: ""},
	{name: "enable_kernel_crash_dump", kind: boolSetting, def: false},
	{name: "default_storage_layout", def: "flat", choices: []string{"bcache", "blank", "custom", "flat", "lvm", "vmfs6", "vmfs7"}, required: true},
	{name: "commissioning_osystem", def: "ubuntu"},
	{name: "commissioning_distro_series", def: latestSeries, osystem: "commissioning_osystem"},
	{name: "enable_third_party_drivers", kind: boolSetting, def: true},
	{name: "windows_kms_host"},
	{name: "enable_disk_erasing_on_release", kind: boolSetting, def: false},
	{name: "disk_erase_with_secure_erase", kind: boolSetting, def: true},
	{name: "disk_erase_with_quick_erase", kind: boolSetting, def: false},
	{name: "boot_images_auto_import", kind: boolSetting, def: true},
	{name: "boot_images_no_proxy", kind: boolSetting, def: false},
	{name: "curtin_verbose", kind: boolSetting, def: true},
	{name: "force_v1_network_yaml", kind: boolSetting, def: false},
	{name: "enable_analytics", kind: boolSetting, def: true},
	{name: "experimental_switch_provisioning", kind: boolSetting, def: false},
	{name: "completed_intro", kind: boolSetting, def: false},
	{name: "max_node_commissioning_results", kind: intSetting, def: int64(10), min: 1, max: 1 << 31},
	{name: "max_node_testing_results", kind: intSetting, def: int64(10), min: 1, max: 1 << 31},
	{name: "max_node_installation_results", kind: intSetting, def: int64(3), min: 1, max: 1 << 31},
	{name: "max_node_release_results", kind: intSetting, def: int64(3), min: 1, max: 1 << 31},
	{name: "subnet_ip_exhaustion_threshold_count", kind: intSetting, def: int64(16), min: 1, max: 1 << 31},
	{name: "refresh_token_duration", kind: intSetting, def: int64(2592000), min: 600, max: 5184000},
	{name: "release_notifications", kind: boolSetting, def: true},
	{name: "use_rack_proxy", kind: boolSetting, def: true},
	{name: "node_timeout", kind: intSetting, def: int64(30), min: 1, max: 100000},
	{name: "prometheus_enabled", kind: boolSetting, def: false},
	{name: "prometheus_push_gateway"},
	{name: "prometheus_push_interval", kind: intSetting, def: int64(60), min: 0, max: 1 << 31},
	{name: "promtail_enabled", kind: boolSetting, def: false},
	{name: "promtail_port", kind: intSetting, def: int64(5238), min: 1, max: 65535},
	{name: "enlist_commissioning", kind: boolSetting, def: true},
	{name: "maas_auto_ipmi_user", def: "maas"},
	{name: "maas_auto_ipmi_user_privilege_level", def: "ADMIN", choices: []string{"USER", "OPERATOR", "ADMIN"}},
	{name: "maas_auto_ipmi_k_g_bmc_key", def: "", secret: true},
	{name: "maas_auto_ipmi_cipher_suite_id", def: "3", choices: []string{"17", "3", "", "8", "12"}},
	{name: "maas_auto_ipmi_workaround_flags", kind: listSetting, choices: []string{"opensesspriv", "authcap", "idzero", "unexpectedauth", "forcepermsg",
		"endianseq", "intel20", "supermicro20", "sun20", "nochecksumcheck", "integritycheckvalue", "ipmiping", ""}},
	{name: "vcenter_server", def: ""},
	{name: "vcenter_username", def: ""},
	{name: "vcenter_password", def: "", secret: true},
	{name: "vcenter_datacenter", def: ""},
	{name: "hardware_sync_interval", kind: intervalSetting, def: "15m", required: true},
	{name: "tls_cert_expiration_notification_enabled", kind: boolSetting, def: false},
	{name: "tls_cert_expiration_notification_interval", kind: intSetting, def: int64(30), min: 1, max: 90},
	{name: "session_length", kind: intSetting, def: int64(1209600), min: 10, max: 1209600},
	{name: "auto_vlan_creation", kind: boolSetting, def: true},
	{name: "main_archive", kind: urlSetting, def: "http://archive.ubuntu.com/ubuntu", required: true, archive: true},
	{name: "ports_archive", kind: urlSetting, def: "http://ports.ubuntu.com/ubuntu-ports", required: true, archive: true},

	// The ephemeral environment in which machines are enlisted, commissioned, installed and erased; see docs.
	{name: "ingot_boot_environment", def: "light", choices: []string{"light", "full", "ubuntu"}, required: true},
}

// settingAliases are further names of settings.
var settingAliases = map[string]string{"ntp_server": "ntp_servers"}

func hostName() string {
	if h, err := os.Hostname(); err == nil && h != "" {
		return h
	}
	return "ingot"
}

func settingByName(name string) (setting, bool) {
	if a, ok := settingAliases[name]; ok {
		name = a
	}
	i := slices.IndexFunc(settings, func(s setting) bool { return s.name == name })
	if i < 0 {
		return setting{}, false
	}
	return settings[i], true
}

func unknownSetting(name string) error {
	names := make([]string, 0, len(settings))
	for _, s := range settings {
		names = append(names, s.name)
	}
	slices.Sort(names)
	name = firstRunes(strings.ToValidUTF8(name, "\uFFFD"), 100)
	return FieldError(name, "%s is not a valid config setting (valid settings are: %s).", name, strings.Join(names, ", "))
}

// Setting reads a setting as string, bool, int64, []string or nil. It does not ask who wants to know.
func (s *Service) Setting(tx *storage.Tx, name string) (any, error) {
	d, ok := settingByName(name)
	if !ok {
		return nil, fmt.Errorf("provisioner: there is no setting %s", name)
	}
	if d.archive {
		p, err := tx.DefaultArchive(d.name)
		return p.URL, err
	}
	raw, err := tx.Setting(d.name)
	if errors.Is(err, storage.ErrNotFound) {
		return d.def, nil
	}
	if err != nil {
		return nil, err
	}
	return d.decode(raw)
}

func (d setting) decode(raw json.RawMessage) (any, error) {
	var v any
	dec := json.NewDecoder(strings.NewReader(string(raw)))
	dec.UseNumber()
	if err := dec.Decode(&v); err != nil {
		return nil, fmt.Errorf("provisioner: the stored setting %s is damaged: %w", d.name, err)
	}
	switch v := v.(type) {
	case json.Number:
		return v.Int64()
	case nil, string, bool:
		return v, nil
	case []any:
		words := make([]string, 0, len(v))
		for _, w := range v {
			text, ok := w.(string)
			if !ok {
				return nil, fmt.Errorf("provisioner: the stored setting %s is damaged", d.name)
			}
			words = append(words, text)
		}
		return words, nil
	}
	return nil, fmt.Errorf("provisioner: the stored setting %s is damaged", d.name)
}

// SettingText reads a text setting; "" when it is null.
func (s *Service) SettingText(tx *storage.Tx, name string) (string, error) {
	v, err := s.Setting(tx, name)
	text, _ := v.(string)
	return text, err
}

// SettingInt reads an integer setting.
func (s *Service) SettingInt(tx *storage.Tx, name string) (int64, error) {
	v, err := s.Setting(tx, name)
	n, ok := v.(int64)
	if err == nil && !ok {
		err = fmt.Errorf("provisioner: the setting %s is not a number", name)
	}
	return n, err
}

// SettingBool reads a boolean setting.
func (s *Service) SettingBool(tx *storage.Tx, name string) (bool, error) {
	v, err := s.Setting(tx, name)
	b, ok := v.(bool)
	if err == nil && !ok {
		err = fmt.Errorf("provisioner: the setting %s is not a truth value", name)
	}
	return b, err
}

// GetConfig reads a setting for the actor.
func (s *Service) GetConfig(ctx context.Context, name string) (v any, err error) {
	a, err := needUser(ctx)
	if err != nil {
		return nil, err
	}
	d, ok := settingByName(name)
	if !ok {
		return nil, unknownSetting(name)
	}
	if d.secret && !a.Can("can_view_configurations") {
		return nil, lacks("can_view_configurations")
	}
	err = s.DB.Read(ctx, func(tx *storage.Tx) (err error) { v, err = s.Setting(tx, name); return err })
	return v, err
}

// SetConfig changes a setting from the text of a form. Administrators only.
func (s *Service) SetConfig(ctx context.Context, name, value string) error {
	a, err := needPermission(ctx, "can_edit_configurations")
	if err != nil {
		return err
	}
	d, ok := settingByName(name)
	if !ok {
		return unknownSetting(name)
	}
	v, err := d.parse(value)
	if err != nil {
		return FieldError(name, "%s", err)
	}
	return s.DB.Write(ctx, func(tx *storage.Tx) error {
		if d.osystem != "" {
			if v, err = s.checkSeries(tx, d, v); err != nil {
				return err
			}
		}
		if err := putSetting(tx, d, v); err != nil {
			return err
		}
		if _, err := tx.Revision(); err != nil { // racks see settings in their snapshot
			return err
		}
		shown := fmt.Sprintf("'%v'", v)
		if d.secret {
			shown = "a new value"
		}
		return s.audit(tx, a, "SETTINGS", "Updated configuration setting '%s' to %s.", d.name, shown)
	})
}

// putSetting writes a setting where it belongs.
func putSetting(tx *storage.Tx, d setting, v any) error {
	if d.archive {
		p, err := tx.DefaultArchive(d.name)
		if err != nil {
			return err
		}
		p.URL, _ = v.(string)
		return tx.UpdatePackageRepository(&p)
	}
	raw, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return tx.PutSetting(d.name, raw)
}

// checkSeries refuses the series of another system than the one that is set: one that says so itself, os/series, or one that only
// another system has images of.
func (s *Service) checkSeries(tx *storage.Tx, d setting, v any) (any, error) {
	text, _ := v.(string)
	if text == "" {
		return v, nil
	}
	system, err := s.SettingText(tx, d.osystem)
	if err != nil {
		return nil, err
	}
	if os, series, ok := strings.Cut(text, "/"); ok {
		if os != system {
			return nil, FieldError(d.name, "%s", badChoice(text))
		}
		return series, nil
	}
	images, err := tx.BootResources()
	if err != nil {
		return nil, err
	}
	elsewhere := false
	for _, r := range images {
		switch os, series, _ := strings.Cut(r.Name, "/"); {
		case series == text && os == system:
			return v, nil
		case series == text:
			elsewhere = true
		}
	}
	if elsewhere {
		return nil, FieldError(d.name, "%s", badChoice(text))
	}
	return v, nil
}

var (
	hostRE     = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*\.?$`)
	intervalRE = regexp.MustCompile(`^([0-9]{1,6}h)?([0-9]{1,6}m)?([0-9]{1,6}s)?$`)
)

const maxSetting = 64 << 10

// parse understands the text of a form. The error's text is for the user.
func (d setting) parse(text string) (any, error) {
	if len(text) > maxSetting || !utf8.ValidString(text) || strings.ContainsRune(text, 0) {
		return nil, errors.New("Enter a valid value.")
	}
	trimmed := strings.TrimSpace(text)
	switch d.kind {
	case boolSetting:
		return !slices.Contains([]string{"", "0", "false", "False"}, trimmed), nil
	case intSetting:
		if trimmed == "" {
			return nil, errors.New("This field is required.")
		}
		n, err := strconv.ParseInt(trimmed, 10, 64)
		if err != nil {
			return nil, errors.New("Enter a whole number.")
		}
		if d.choices != nil && !slices.Contains(d.choices, strconv.FormatInt(n, 10)) {
			return nil, badChoice(trimmed)
		}
		if d.choices == nil && n < d.min {
			return nil, fmt.Errorf("Ensure this value is greater than or equal to %d.", d.min)
		}
		if d.choices == nil && n > d.max {
			return nil, fmt.Errorf("Ensure this value is less than or equal to %d.", d.max)
		}
		return n, nil
	}
	if trimmed == "" && d.required {
		return nil, errors.New("This field is required.")
	}
	words := strings.FieldsFunc(trimmed, func(r rune) bool { return r == ' ' || r == ',' || r == '\t' || r == '\n' || r == '\r' })
	each := func(check func(string) error) (any, error) {
		for _, w := range words {
			if err := check(w); err != nil {
				return nil, err
			}
		}
		return strings.Join(words, " "), nil
	}
	switch d.kind {
	case ipsSetting:
		return each(func(w string) error {
			if _, err := netip.ParseAddr(w); err != nil {
				return fmt.Errorf("Invalid IP address: %s; provide a list of space-separated IP addresses", firstRunes(w, 100))
			}
			return nil
		})
	case hostsSetting:
		return each(checkHost)
	case sourcesSetting:
		return each(func(w string) error {
			if _, err := netip.ParsePrefix(w); err == nil {
				return nil
			}
			return checkHost(strings.TrimPrefix(w, "!"))
		})
	case listSetting:
		for _, w := range words {
			if !slices.Contains(d.choices, w) {
				return nil, badChoice(w)
			}
		}
		return append([]string{}, words...), nil
	case urlSetting:
		if trimmed != "" {
			u, err := url.Parse(trimmed)
			if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
				return nil, errors.New("Enter a valid URL.")
			}
		}
	case hostPortSetting:
		host := trimmed
		if i := strings.LastIndexByte(trimmed, ':'); i >= 0 && !strings.Contains(trimmed[:i], ":") {
			host = trimmed[:i]
			if port, err := strconv.ParseUint(trimmed[i+1:], 10, 16); err != nil || port == 0 {
				return nil, errors.New("Invalid port.")
			}
		}
		if trimmed != "" {
			if err := checkHost(strings.Trim(host, "[]")); err != nil {
				return nil, err
			}
		}
	case domainSetting:
		if len(trimmed) > 253 || !hostRE.MatchString(trimmed) {
			return nil, errors.New("Invalid domain name.")
		}
	case intervalSetting:
		if !intervalRE.MatchString(trimmed) {
			return nil, errors.New("Hardware sync interval must be given as hours, minutes and seconds, such as 15m.")
		}
	default:
		if d.choices != nil && !slices.Contains(d.choices, trimmed) {
			return nil, badChoice(trimmed)
		}
	}
	return trimmed, nil
}

func checkHost(w string) error {
	if _, err := netip.ParseAddr(w); err == nil {
		return nil
	}
	if len(w) > 253 || !hostRE.MatchString(w) {
		return fmt.Errorf("Invalid hostname: %s.", firstRunes(w, 100))
	}
	return nil
}

func badChoice(v string) error {
	return fmt.Errorf("Select a valid choice. %s is not one of the available choices.", firstRunes(v, 100))
}
