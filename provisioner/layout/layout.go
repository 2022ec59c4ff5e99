// Package layout turns what the region knows of a machine's disks and network into partitions and into the plan by which the agent
// installs an operating system. It is pure: no storage, no clock, no randomness of its own. Everything it writes goes through
// typed emitters (JSON and YAML marshallers), so that no name or user input can become syntax.
package layout

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sort"
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
	minRoot      = 512 * MiB // less cannot hold a system; MAAS's own layouts want 3 GiB, small lab disks have less
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

// Flat is MAAS's flat layout of a boot disk with a GPT: an EFI system partition where the firmware is UEFI, and a root file system
// over the rest. The partition that holds GRUB's core on BIOS machines is not modelled: numbers begin at 2 there, and Plan adds
// it. newUUID makes identifiers.
func Flat(size int64, firmware, arch string, newUUID func() string) ([]Partition, error) {
	extra := int64(0)
	if arch == "amd64" && firmware != UEFI {
		extra = biosGrubSize
	}
	usable := floor(size - tableOffset - endReserve - extra)
	var out []Partition
	next := 1
	if firmware == UEFI && arch != "ppc64el" {
		id := newUUID()
		out = append(out, Partition{Number: 1, Size: efiSize, UUID: newUUID(), Flag: "boot", Bootable: true, FSType: "fat32",
			FSUUID: VolumeID(id), Label: "efi", MountPoint: "/boot/efi"})
		usable -= efiSize
		next = 2
	} else if arch == "amd64" || arch == "ppc64el" {
		next = 2
	}
	if usable < minRoot {
		return nil, fmt.Errorf("a disk of %d bytes is too small for the flat layout", size)
	}
	return append(out, Partition{Number: next, Size: usable, UUID: newUUID(), Bootable: firmware != UEFI, FSType: "ext4", FSUUID: newUUID(), Label: "root", MountPoint: "/"}), nil
}

func floor(n int64) int64 { return n / Align * Align }

// VolumeID is the identifier of a FAT file system, XXXX-XXXX, made of a UUID.
func VolumeID(uuid string) string {
	sum := sha256.Sum256([]byte(uuid))
	return fmt.Sprintf("%02X%02X-%02X%02X", sum[0], sum[1], sum[2], sum[3])
}

// derivedUUID is a UUID that follows from another: the same plan, asked for twice, names the same partitions.
func derivedUUID(from, what string) string {
	b := sha256.Sum256([]byte(from + "/" + what))
	b[6], b[8] = b[6]&0x0f|0x80, b[8]&0x3f|0x80 // version 8: made by a rule of our own
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[0:4], b[4:6], b[6:8], b[8:10], b[10:16])
}

// Disk is a disk with its layout.
type Disk struct {
	ID         api.DiskID
	Boot       bool
	Partitions []Partition
}

// Link is an address of an interface.
type Link struct {
	Address netip.Prefix // with the prefix length of its subnet; invalid for DHCP and link-up
	DHCP    bool
	IPv6    bool // of a DHCP link
	Gateway netip.Addr
	Default bool // this link's gateway was chosen as the default one
	DNS     []string
}

// NIC is a physical interface.
type NIC struct {
	Name  string
	MAC   string
	MTU   int
	Boot  bool // its gateway is preferred
	Links []Link
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
	p := api.InstallPlan{Firmware: in.Firmware, Image: in.Image, Hostname: in.Hostname, KernelOpts: in.KernelOpts, Disks: []api.DiskPlan{}}
	if in.Firmware != BIOS && in.Firmware != UEFI {
		return p, fmt.Errorf("firmware %q", in.Firmware)
	}
	root := false
	for _, d := range in.Disks {
		if len(d.Partitions) == 0 {
			continue // a disk without a layout is not touched
		}
		dp := api.DiskPlan{Disk: d.ID, Boot: d.Boot}
		if d.Boot && in.Firmware == BIOS && in.Arch == "amd64" {
			if d.Partitions[0].Number < 2 {
				return p, errors.New("partition 1 of a BIOS boot disk is taken: it holds the boot loader")
			}
			dp.Partitions = append(dp.Partitions, api.PartitionPlan{Number: 1, Size: biosGrubSize, Flag: "bios_grub", UUID: derivedUUID(d.Partitions[0].UUID, "bios_grub")})
		}
		for _, part := range d.Partitions {
			fs := part.FSType
			if fs == "fat32" {
				fs = "vfat"
			}
			flag := part.Flag
			if part.MountPoint == "/boot/efi" {
				flag = "boot"
			}
			root = root || part.MountPoint == "/"
			dp.Partitions = append(dp.Partitions, api.PartitionPlan{Number: part.Number, Size: part.Size, Flag: flag, UUID: part.UUID, FSType: fs,
				FSUUID: part.FSUUID, Label: part.Label, MountPoint: part.MountPoint, Options: part.Options})
		}
		p.Disks = append(p.Disks, dp)
	}
	if !root {
		return p, errors.New("no file system is mounted at /")
	}
	var err error
	if p.Network, err = Netplan(in.NICs, in.Search); err != nil {
		return p, err
	}
	p.Seed, err = seed(in)
	return p, err
}

// Netplan is the network in netplan's version 2, interfaces matched by MAC address, with one default gateway a family: the chosen
// one, else that of the boot interface, else the first.
func Netplan(nics []NIC, search []string) (map[string]any, error) {
	ethernets := map[string]any{}
	gateway := map[bool]netip.Addr{}
	rank := map[bool]int{}
	for _, n := range nics {
		for _, l := range n.Links {
			if !l.Gateway.IsValid() || !l.Address.IsValid() {
				continue
			}
			score := 1
			if n.Boot {
				score = 2
			}
			if l.Default {
				score = 3
			}
			if v6 := l.Gateway.Is6(); score > rank[v6] {
				rank[v6], gateway[v6] = score, l.Gateway
			}
		}
	}
	sorted := slices.Clone(nics)
	sort.SliceStable(sorted, func(i, j int) bool { return sorted[i].Name < sorted[j].Name })
	used := map[bool]bool{}
	for _, n := range sorted {
		if n.Name == "" || n.MAC == "" {
			return nil, errors.New("an interface without a name or address")
		}
		e := map[string]any{"match": map[string]any{"macaddress": n.MAC}, "set-name": n.Name}
		if n.MTU > 0 {
			e["mtu"] = n.MTU
		}
		var addresses, dns, routes []any
		for _, l := range n.Links {
			if l.DHCP {
				if l.IPv6 {
					e["dhcp6"] = true
				} else {
					e["dhcp4"] = true
				}
				continue
			}
			if !l.Address.IsValid() {
				continue
			}
			addresses = append(addresses, l.Address.String())
			for _, d := range l.DNS {
				if !slices.Contains(dns, any(d)) {
					dns = append(dns, d)
				}
			}
			if v6 := l.Address.Addr().Is6(); l.Gateway.IsValid() && l.Gateway == gateway[v6] && !used[v6] {
				used[v6] = true
				to := "0.0.0.0/0"
				if v6 {
					to = "::/0"
				}
				routes = append(routes, map[string]any{"to": to, "via": l.Gateway.String()})
			}
		}
		if addresses != nil {
			e["addresses"] = addresses
		} else if e["dhcp4"] == nil && e["dhcp6"] == nil {
			e["optional"] = true // up, without an address: the boot does not wait for it
		}
		if routes != nil {
			e["routes"] = routes
		}
		if dns != nil {
			ns := map[string]any{"addresses": dns}
			if len(search) > 0 {
				ns["search"] = anys(search)
			}
			e["nameservers"] = ns
		}
		ethernets[n.Name] = e
	}
	return map[string]any{"version": 2, "ethernets": ethernets}, nil
}

func anys(in []string) []any {
	out := make([]any, len(in))
	for i, s := range in {
		out[i] = s
	}
	return out
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

// VendorData is the document at meta-data/vendor-data: a YAML mapping whose entry cloud-init holds a cloud-config.
func VendorData(ntp []string, dropRunNetplan bool) ([]byte, error) {
	type ntpConfig struct {
		Servers []string `yaml:"servers,omitempty"`
		Pools   []string `yaml:"pools,omitempty"`
	}
	inner := struct {
		NTP    *ntpConfig `yaml:"ntp,omitempty"`
		RunCmd []string   `yaml:"runcmd,omitempty"`
	}{}
	if len(ntp) > 0 {
		inner.NTP = &ntpConfig{}
		for _, s := range ntp {
			if _, err := netip.ParseAddr(s); err == nil {
				inner.NTP.Servers = append(inner.NTP.Servers, s)
			} else {
				inner.NTP.Pools = append(inner.NTP.Pools, s)
			}
		}
	}
	if dropRunNetplan {
		inner.RunCmd = []string{"rm -rf /run/netplan"}
	}
	body, err := document(inner, "#cloud-config\n")
	if err != nil {
		return nil, err
	}
	return yaml.Marshal(map[string]string{"cloud-init": string(body)})
}
