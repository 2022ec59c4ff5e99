package preseed

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/ingot-metal/ingot/api"
	"github.com/ingot-metal/ingot/provisioner/layout"
)

// Curtin is everything that a curtin configuration is made of.
type Curtin struct {
	OSystem, Series string // what is installed
	// BaseImage is what a custom image is made of, os/series. Empty: the system that DefaultBase names.
	BaseImage, DefaultBase string
	Arch                   string // amd64
	SystemID, Hostname     string
	MetadataURL            string // http://rack:5248/MAAS/metadata/, as the installer reaches it
	TargetURL              string // the same as the installed system reaches it, which may speak IPv6 alone; empty: MetadataURL
	Credentials            layout.Credentials
	OwnerEmail             string

	Filetype string // of the image's file: squashfs, root-tgz, root-dd.gz, …
	ImageURL string

	Storage []api.StorageItem // nil: curtin chooses, as it does for whole-disk images that say nothing
	NICs    []layout.NIC
	Search  []string
	// ForceV1 asks for network version 1 whatever the system.
	ForceV1 bool

	SwapSize      *int64
	KernelPackage string
	Verbose       bool
	CrashDumps    bool
	LicenseKey    string
	Proxy         string
	Archive       *Repository // Ubuntu's own, for the architecture
	Repositories  []Repository

	// Template is an operator's curtin_userdata, rendered and read: it is laid over the rest.
	Template map[string]any
}

type curtinConfig struct {
	Partitioning  map[string][]string         `yaml:"partitioning_commands,omitempty"`
	Storage       *storageConfig              `yaml:"storage,omitempty"`
	Apt           *aptConfig                  `yaml:"apt,omitempty"`
	Reporting     map[string]webhook          `yaml:"reporting"`
	Install       installConfig               `yaml:"install"`
	NetworkCmds   map[string][]string         `yaml:"network_commands,omitempty"`
	Network       any                         `yaml:"network,omitempty"`
	Swap          map[string]string           `yaml:"swap,omitempty"`
	Kernel        *kernelConfig               `yaml:"kernel,omitempty"`
	Verbosity     int                         `yaml:"verbosity,omitempty"`
	ShowTrace     bool                        `yaml:"showtrace,omitempty"`
	CloudConfig   map[string]cloudConfigFile  `yaml:"cloudconfig,omitempty"`
	CrashDumps    map[string]bool             `yaml:"kernel-crash-dumps"`
	Debconf       map[string]string           `yaml:"debconf_selections,omitempty"`
	EarlyCommands map[string][]string         `yaml:"early_commands,omitempty"`
	LateCommands  map[string][]string         `yaml:"late_commands,omitempty"`
	LicenseKey    string                      `yaml:"license_key,omitempty"`
	PowerState    map[string]string           `yaml:"power_state,omitempty"`
	Sources       map[string]installSourceDoc `yaml:"sources"`
}

type webhook struct {
	Type        string `yaml:"type" json:"type"`
	Endpoint    string `yaml:"endpoint" json:"endpoint"`
	ConsumerKey string `yaml:"consumer_key" json:"consumer_key"`
	TokenKey    string `yaml:"token_key" json:"token_key"`
	TokenSecret string `yaml:"token_secret" json:"token_secret"`
}

type installConfig struct {
	LogFile      string   `yaml:"log_file"`
	ErrorTarfile string   `yaml:"error_tarfile"`
	PostFiles    []string `yaml:"post_files"`
}

type kernelConfig struct {
	Package string            `yaml:"package"`
	Mapping map[string]string `yaml:"mapping"`
}

type cloudConfigFile struct {
	Path    string `yaml:"path"`
	Content string `yaml:"content"`
}

type installSourceDoc struct {
	Type string `yaml:"type"`
	URI  string `yaml:"uri"`
}

// Where curtin keeps its log, and what it packs when it fails; both come with its last event.
const (
	installLog = "/tmp/install.log"
	errorTar   = "/tmp/curtin-logs.tar"
)

// sourceTypes are curtin's words for what images are.
var sourceTypes = map[string]string{"squashfs": "fsimage", "root-tgz": "tgz", "root-tbz": "tbz", "root-txz": "txz", "root-dd": "dd-tgz", "root-dd.tar": "dd-tar",
	"root-dd.raw": "dd-raw", "root-dd.bz2": "dd-bz2", "root-dd.gz": "dd-gz", "root-dd.xz": "dd-xz", "root-dd.tar.bz2": "dd-tbz", "root-dd.tar.xz": "dd-txz"}

// source is what curtin installs from.
func source(filetype, imageURL string) (installSourceDoc, error) {
	typ, ok := sourceTypes[filetype]
	if !ok {
		return installSourceDoc{}, fmt.Errorf("curtin cannot install from an image of type %q", filetype)
	}
	if u, err := url.Parse(imageURL); err != nil || u.Scheme == "" || u.Host == "" {
		return installSourceDoc{}, errors.New("the image has no URL")
	}
	return installSourceDoc{typ, imageURL}, nil
}

// base is the system whose rules hold: of a custom image, the one that it is made of.
func (c *Curtin) base() (osystem, series string) {
	if c.OSystem != "custom" {
		return c.OSystem, c.Series
	}
	osystem, series, _ = strings.Cut(cmp.Or(c.BaseImage, c.DefaultBase, "ubuntu"), "/")
	return osystem, series
}

var redhatKin = []string{"centos", "rhel", "ol", "rocky", "alma"}

func (c *Curtin) byID() string { return c.MetadataURL + "latest/by-id/" + c.SystemID + "/" }

// target is the metadata service for the installed system.
func (c *Curtin) target() string { return cmp.Or(c.TargetURL, c.MetadataURL) }

// webhook is where progress is told at a metadata service.
func (c *Curtin) webhook(metadata string) webhook {
	return webhook{"webhook", metadata + "status/" + c.SystemID, c.Credentials.ConsumerKey, c.Credentials.TokenKey, c.Credentials.TokenSecret}
}

// Network is the machine's network in the version that its system gets.
func (c *Curtin) network() (any, error) {
	osystem, series := c.base()
	if c.OSystem == "custom" && c.BaseImage == "" {
		osystem = "" // what it is made of is only supposed: version 1 is what everything reads
	}
	if NetworkVersion(osystem, series, c.ForceV1) == 2 {
		return networkV2(c.NICs, c.Search, osystem == "ubuntu-core" || ubuntuSince(series, bionic))
	}
	return networkV1(c.NICs, c.Search)
}

// Document is the configuration as a mapping, and what a template asked for that is not done.
func (c *Curtin) Document() (doc map[string]any, warnings []string, err error) {
	if !strings.HasSuffix(c.MetadataURL, "/") || !strings.HasSuffix(c.target(), "/") || c.SystemID == "" {
		return nil, nil, errors.New("the machine's metadata URL and id are missing")
	}
	cfg := curtinConfig{Reporting: map[string]webhook{"maas": c.webhook(c.MetadataURL)},
		Install:    installConfig{installLog, errorTar, []string{installLog, errorTar}},
		CrashDumps: map[string]bool{"enabled": c.CrashDumps}}
	src, err := source(c.Filetype, c.ImageURL)
	if err != nil {
		return nil, nil, err
	}
	cfg.Sources = map[string]installSourceDoc{"00_image": src}
	if len(c.Storage) > 0 {
		items, err := curtinStorage(c.Storage, c)
		if err != nil {
			return nil, nil, err
		}
		cfg.Partitioning = map[string][]string{"builtin": {"curtin", "block-meta", "custom"}}
		cfg.Storage = &storageConfig{1, items}
	}
	osystem, series := c.base()
	if cfg.Apt, err = c.apt(osystem, series); err != nil {
		return nil, nil, err
	}
	if len(c.NICs) > 0 {
		if cfg.Network, err = c.network(); err != nil {
			return nil, nil, err
		}
		cfg.NetworkCmds = map[string][]string{"builtin": {"curtin", "net-meta", "custom"}}
	}
	c.swap(&cfg)
	if c.KernelPackage != "" && c.OSystem != "custom" {
		cfg.Kernel = &kernelConfig{c.KernelPackage, map[string]string{}}
	}
	if c.Verbose {
		cfg.Verbosity, cfg.ShowTrace = 3, true
	}
	if err := c.seed(&cfg, osystem); err != nil {
		return nil, nil, err
	}
	c.commands(&cfg, osystem)
	if c.OSystem == "windows" {
		cfg.LicenseKey = c.LicenseKey
	}
	doc, err = asMapping(cfg)
	if err != nil {
		return nil, nil, err
	}
	doc, warnings = c.override(doc)
	return doc, warnings, nil
}

// override lays the operator's template over the document. Who reboots is cloud-init's business, but for precise, whose cloud-init cannot.
func (c *Curtin) override(doc map[string]any) (map[string]any, []string) {
	var warnings []string
	over := make(map[string]any, len(c.Template))
	for k, v := range c.Template {
		switch k {
		case "power_state":
			warnings = append(warnings, "power_state is left out: the machine is rebooted when curtin has ended")
			continue
		case "apt_proxy", "apt_mirrors":
			warnings = append(warnings, k+" is left out: it stands under apt")
			continue
		}
		over[k] = v
	}
	doc = Merge(doc, over)
	if c.Series == "precise" && c.OSystem == "ubuntu" {
		doc["power_state"] = map[string]any{"mode": "reboot"}
	}
	slices.Sort(warnings)
	return doc, warnings
}

// Render writes the configuration.
func (c *Curtin) Render() ([]byte, error) {
	doc, _, err := c.Document()
	if err != nil {
		return nil, err
	}
	return Marshal(doc)
}

func (c *Curtin) swap(cfg *curtinConfig) {
	modelled := slices.ContainsFunc(c.Storage, func(it api.StorageItem) bool { return it.Type == api.StorageFormat && it.FSType == "swap" })
	switch {
	case c.OSystem == "custom":
	case c.SwapSize != nil:
		cfg.Swap = map[string]string{"size": bytesText(*c.SwapSize)}
	case modelled:
		cfg.Swap = map[string]string{"size": "0B"}
	}
}

// localConfig is what cloud-init of the installed system is told beside its datasource.
type localConfig struct {
	Apt              *localApt          `yaml:"apt,omitempty" json:"apt,omitempty"`
	ManageEtcHosts   bool               `yaml:"manage_etc_hosts" json:"manage_etc_hosts"`
	ManualCacheClean bool               `yaml:"manual_cache_clean" json:"manual_cache_clean"`
	Reporting        map[string]webhook `yaml:"reporting" json:"reporting"`
}

type localApt struct {
	PreserveSourcesList bool `yaml:"preserve_sources_list" json:"preserve_sources_list"`
}

// seed makes cloud-init of the installed system talk to the metadata service as this machine: by debconf where there is debconf, by files
// elsewhere.
func (c *Curtin) seed(cfg *curtinConfig, osystem string) error {
	if osystem == "ubuntu" || osystem == "debian" {
		text, err := c.debconf()
		cfg.Debconf = map[string]string{"maas": text, "grub2": "grub2 grub2/update_nvram boolean false"}
		return err
	}
	cfg.CloudConfig = map[string]cloudConfigFile{}
	add := func(key, path string, v any) error {
		body, err := Marshal(v)
		cfg.CloudConfig[key] = cloudConfigFile{path, "#cloud-config\n" + string(body)}
		return err
	}
	k := c.Credentials
	err := add("maas-datasource", "/etc/cloud/cloud.cfg.d/90_maas_datasource.cfg", map[string]any{"datasource_list": []string{"MAAS"}})
	err = errors.Join(err, add("maas-cloud-config", "/etc/cloud/cloud.cfg.d/90_maas_cloud_config.cfg", map[string]any{"datasource": map[string]any{
		"MAAS": map[string]string{"metadata_url": c.target(), "consumer_key": k.ConsumerKey, "token_key": k.TokenKey, "token_secret": k.TokenSecret}}}))
	err = errors.Join(err, add("maas-reporting", "/etc/cloud/cloud.cfg.d/90_maas_cloud_init_reporting.cfg",
		localConfig{ManageEtcHosts: true, ManualCacheClean: true, Reporting: map[string]webhook{"maas": c.webhook(c.target())}}))
	if c.OwnerEmail != "" {
		err = errors.Join(err, add("maas-ubuntu-sso", "/etc/cloud/cloud.cfg.d/90_maas_ubuntu_sso.cfg", map[string]any{"snap": map[string]string{"email": c.OwnerEmail}}))
	}
	return err
}

// debconf are the answers to cloud-init's questions; cloud-init 26 asks them for the package cloud-init-base.
func (c *Curtin) debconf() (string, error) {
	local, err := json.Marshal(localConfig{Apt: &localApt{true}, ManageEtcHosts: true, ManualCacheClean: true, Reporting: map[string]webhook{"maas": c.webhook(c.target())}})
	if err != nil {
		return "", err
	}
	k := c.Credentials
	// In the order that readers of MAAS's own answers expect.
	creds := "oauth_token_key=" + url.QueryEscape(k.TokenKey) + "&oauth_token_secret=" + url.QueryEscape(k.TokenSecret) + "&oauth_consumer_key=" + url.QueryEscape(k.ConsumerKey)
	var b strings.Builder
	for _, owner := range []string{"cloud-init", "cloud-init-base"} {
		for _, q := range [][3]string{{"datasources", "multiselect", "MAAS"}, {"maas-metadata-url", "string", c.target()}, {"maas-metadata-credentials", "string", creds},
			{"local-cloud-config", "string", string(local)}} {
			v, err := oneLine("the answer to "+q[0], q[2])
			if err != nil {
				return "", err
			}
			if strings.Contains(v, `\`) { // the package's script reads escapes
				return "", fmt.Errorf("the answer to %s has a backslash", q[0])
			}
			fmt.Fprintf(&b, "%s %s/%s %s %s\n", owner, owner, q[0], q[1], v)
		}
	}
	return b.String(), nil
}

// inTarget is a command of the installed system.
func inTarget(words ...string) []string {
	return append([]string{"curtin", "in-target", "--"}, words...)
}

// commands are those of the stages early and late; within a stage they run in the order of their names.
func (c *Curtin) commands(cfg *curtinConfig, osystem string) {
	cfg.LateCommands = map[string][]string{"maas": {"wget", "--no-proxy", c.byID(), "--post-data", "op=netboot_off", "-O", "/dev/null"}}
	if c.Arch == "s390x" {
		if i := slices.IndexFunc(c.Storage, func(it api.StorageItem) bool { return it.Type == api.StorageDisk && it.Boot }); i >= 0 {
			cfg.LateCommands["maas_00"] = []string{"chreipl", "node", "/dev/" + c.Storage[i].Disk.Name}
		}
	}
	if slices.Contains(redhatKin, c.OSystem) && c.Proxy != "" {
		cfg.LateCommands["yum_proxy"] = inTarget("sh", "-c", `printf 'proxy=%s\n' "$1" >>/etc/yum.conf`, "sh", c.Proxy)
	}
	if c.OSystem == "custom" && !strings.HasPrefix(c.Filetype, "root-dd") {
		const need = `"$@" >/dev/null || { echo "This custom image has no $1: build it with $1." >&2; exit 1; }`
		cfg.LateCommands["98-validate-custom-image-has-cloud-init"] = inTarget("sh", "-c", need, "sh", "cloud-init", "--version")
		if osystem == "ubuntu" && c.BaseImage != "" {
			cfg.LateCommands["99-validate-custom-image-has-netplan"] = inTarget("sh", "-c", need, "sh", "netplan", "info")
		}
	}
	if c.OSystem == "centos" && strings.HasPrefix(strings.TrimPrefix(c.Series, "centos"), "7") {
		// Its kernel cannot mount what newer mkfs.xfs makes by default.
		const wrap = `printf '#!/bin/sh\nexec %s -m reflink=0 "$@"\n' "$(command -v mkfs.xfs)" >/usr/local/sbin/mkfs.xfs && chmod 0755 /usr/local/sbin/mkfs.xfs`
		cfg.EarlyCommands = map[string][]string{"xfs_reflink": {"sh", "-c", wrap}}
	}
}
