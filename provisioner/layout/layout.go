// Package layout turns what the region knows of a machine's disks and network into partitions and into the plan by which the agent
// installs an operating system. It is pure: no storage, no clock, no randomness of its own. Everything it writes goes through
// typed emitters (JSON and YAML marshallers), so that no name or user input can become syntax.
package layout

import (
	"crypto/sha256"
	"fmt"
	"regexp"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/ingot-metal/ingot/api"
)

// Sizes that MAAS uses.
const (
	MiB          = 1 << 20
	Align        = 4 * MiB // partitions begin and end on it
	tableOffset  = 4 * MiB
	endReserve   = 1 * MiB
	biosGrubSize = 1 * MiB
	efiSize      = 512 * MiB
	smallestRoot = 512 * MiB // less cannot hold a system; MAAS's own layouts want 3 GiB, small lab disks have less
)

// Firmware kinds.
const (
	BIOS = "bios"
	UEFI = "uefi"
)

// Partition is a partition with its file system.
type Partition struct {
	Number     int
	Size       int64
	UUID       string
	Flag       string // boot: the EFI system partition
	Bootable   bool
	FSType     string // ext4, fat32
	FSUUID     string
	Label      string
	MountPoint string
	Options    string
}

func floor(n int64) int64 { return n / Align * Align }

// VolumeID is the identifier of a FAT file system, XXXX-XXXX, made of a UUID.
func VolumeID(uuid string) string {
	sum := sha256.Sum256([]byte(uuid))
	return fmt.Sprintf("%02X%02X-%02X%02X", sum[0], sum[1], sum[2], sum[3])
}

var volumeIDText = regexp.MustCompile(`^[0-9A-F]{4}-[0-9A-F]{4}$`)

// IsVolumeID says whether a text is the identifier of a FAT file system.
func IsVolumeID(text string) bool { return volumeIDText.MatchString(text) }

// derivedUUID is a UUID that follows from another: the same plan, asked for twice, names the same partitions.
func derivedUUID(from, what string) string {
	b := sha256.Sum256([]byte(from + "/" + what))
	b[6], b[8] = b[6]&0x0f|0x80, b[8]&0x3f|0x80 // version 8: made by a rule of our own
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[0:4], b[4:6], b[6:8], b[8:10], b[10:16])
}

// Disk is a physical disk.
type Disk struct {
	ID   api.DiskID
	Boot bool // the machine starts from it
}

// Credentials are a machine's own, for the metadata service.
type Credentials struct {
	ConsumerKey, TokenKey, TokenSecret string
}

// Input is everything that a plan is made of.
type Input struct {
	Firmware    string
	Arch        string // amd64
	SystemID    string
	Hostname    string
	Domain      string
	Disks       []Disk
	Storage     Storage // what is to be on the disks
	WholeDisk   bool    // the image brings its own partitions, for the boot disk
	Memory      bool    // the system runs in memory: no disk is written
	NICs        []NIC
	Search      []string
	Image       api.ImageSource
	KernelOpts  string
	MetadataURL string // http://rack:5248/MAAS/metadata/
	Credentials Credentials
	NTP         []string
}

// Plan renders the installation of an image.
func Plan(in Input) (api.InstallPlan, error) {
	p := api.InstallPlan{Firmware: in.Firmware, Image: in.Image, Hostname: in.Hostname, KernelOpts: in.KernelOpts, Memory: in.Memory}
	if in.Firmware != BIOS && in.Firmware != UEFI {
		return p, fmt.Errorf("firmware %q", in.Firmware)
	}
	var err error
	p.Storage, err = StoragePlan(in)
	if err != nil {
		return p, err
	}
	if p.Network, err = Netplan(in.NICs, in.Search); err != nil {
		return p, err
	}
	p.Seed, err = seed(in)
	return p, err
}

type maasDatasource struct {
	MetadataURL string `yaml:"metadata_url"`
	ConsumerKey string `yaml:"consumer_key,omitempty"`
	TokenKey    string `yaml:"token_key,omitempty"`
	TokenSecret string `yaml:"token_secret,omitempty"`
}

type webhook struct {
	Type        string `yaml:"type"`
	Endpoint    string `yaml:"endpoint"`
	ConsumerKey string `yaml:"consumer_key"`
	TokenKey    string `yaml:"token_key"`
	TokenSecret string `yaml:"token_secret"`
}

type powerState struct {
	Delay     string `yaml:"delay"`
	Mode      string `yaml:"mode"`
	Timeout   int    `yaml:"timeout"`
	Condition string `yaml:"condition"`
}

type cloudConfig struct {
	DatasourceList []string `yaml:"datasource_list,flow,omitempty"`
	Datasource     *struct {
		MAAS maasDatasource `yaml:"MAAS"`
	} `yaml:"datasource,omitempty"`
	ManageEtcHosts   bool `yaml:"manage_etc_hosts,omitempty"`
	ManualCacheClean bool `yaml:"manual_cache_clean,omitempty"`
	Reporting        *struct {
		MAAS webhook `yaml:"maas"`
	} `yaml:"reporting,omitempty"`
	PowerState *powerState `yaml:"power_state,omitempty"`
}

func (c *cloudConfig) datasource(url string, k Credentials) {
	c.Datasource = &struct {
		MAAS maasDatasource `yaml:"MAAS"`
	}{maasDatasource{url, k.ConsumerKey, k.TokenKey, k.TokenSecret}}
}

func (c *cloudConfig) reporting(metadataURL, systemID string, k Credentials) {
	c.Reporting = &struct {
		MAAS webhook `yaml:"maas"`
	}{webhook{"webhook", metadataURL + "status/" + systemID, k.ConsumerKey, k.TokenKey, k.TokenSecret}}
}

// Preseed is the document at cloud-config-url.
type Preseed struct {
	MetadataURL string      // http://rack:5248/MAAS/metadata/, for an installation …/metadata/curtin
	StatusURL   string      // http://rack:5248/MAAS/metadata/
	SystemID    string      // empty: enlistment
	Credentials Credentials // empty for enlistment
	PowerState  string      // poweroff, reboot, or empty: cloud-init leaves the machine on
	Timeout     int         // of PowerState, in seconds
}

// Render writes the preseed.
func (p Preseed) Render() ([]byte, error) {
	c := cloudConfig{ManageEtcHosts: true}
	c.datasource(p.MetadataURL, p.Credentials)
	if p.SystemID != "" {
		c.reporting(p.StatusURL, p.SystemID, p.Credentials)
	}
	if p.PowerState != "" {
		c.PowerState = &powerState{"now", p.PowerState, p.Timeout, "test ! -e /tmp/block-" + p.PowerState}
	}
	return document(c, "#cloud-config\n")
}

func document(v any, head string) ([]byte, error) {
	body, err := yaml.Marshal(v)
	if err != nil {
		return nil, err
	}
	return append([]byte(head), body...), nil
}

// seed is what makes cloud-init of the installed system talk to the metadata service as this machine. The credentials are for
// root's eyes only.
func seed(in Input) ([]api.SeedFile, error) {
	if !strings.HasSuffix(in.MetadataURL, "/") {
		return nil, fmt.Errorf("metadata URL %q", in.MetadataURL)
	}
	var list, data, local cloudConfig
	list.DatasourceList = []string{"MAAS"}
	data.datasource(in.MetadataURL, in.Credentials)
	local.ManageEtcHosts, local.ManualCacheClean = true, true
	local.reporting(in.MetadataURL, in.SystemID, in.Credentials)
	var out []api.SeedFile
	for _, f := range []struct {
		name string
		c    cloudConfig
		mode uint32
	}{{"90_dpkg.cfg", list, 0o644}, {"90_dpkg_maas.cfg", data, 0o600}, {"90_dpkg_local_cloud_config.cfg", local, 0o600}} {
		body, err := document(f.c, "# Written at installation.\n")
		if err != nil {
			return nil, err
		}
		out = append(out, api.SeedFile{Path: "/etc/cloud/cloud.cfg.d/" + f.name, Content: string(body), Mode: f.mode})
	}
	return out, nil
}
