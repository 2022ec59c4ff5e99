package preseed

import (
	"encoding/base64"
	"errors"
	"fmt"
	"path"
	"strings"

	"github.com/ingot-metal/ingot/api"
	"github.com/ingot-metal/ingot/provisioner/layout"
)

// Autoinstall is everything that a document for Subiquity, the installer of Ubuntu Server, is made of.
type Autoinstall struct {
	SystemID, Hostname string
	MetadataURL        string // http://rack:5248/MAAS/metadata/
	Credentials        layout.Credentials
	SSHKeys            []string
	Storage            []api.StorageItem
	NICs               []layout.NIC
	Search             []string
	SwapSize           *int64
	KernelPackage      string
	Proxy              string
	Archive            *Repository
	Repositories       []Repository
	// Seed are the files by which cloud-init of the installed system finds the metadata service, and with it the user's own user-data.
	Seed []api.SeedFile
	// Template is an operator's autoinstall, rendered and read: it is laid over the rest.
	Template map[string]any
}

type autoinstallDoc struct {
	Version      int                `yaml:"version"`
	RefreshSnaps map[string]bool    `yaml:"refresh-installer"`
	Reporting    map[string]webhook `yaml:"reporting"`
	SSH          autoinstallSSH     `yaml:"ssh"`
	Storage      map[string]any     `yaml:"storage,omitempty"`
	Network      any                `yaml:"network,omitempty"`
	Apt          *aptConfig         `yaml:"apt,omitempty"`
	Proxy        string             `yaml:"proxy,omitempty"`
	Kernel       map[string]string  `yaml:"kernel,omitempty"`
	UserData     map[string]any     `yaml:"user-data"`
	LateCommands [][]string         `yaml:"late-commands"`
	Shutdown     string             `yaml:"shutdown"`
}

type autoinstallSSH struct {
	InstallServer  bool     `yaml:"install-server"`
	AllowPassword  bool     `yaml:"allow-pw"`
	AuthorizedKeys []string `yaml:"authorized-keys"`
}

// Render writes the document as the user-data that the installer's cloud-init hands on. There is no identity: who logs in is up to
// the keys and to the user's own user-data, which the installed system reads from the metadata service untouched.
func (a *Autoinstall) Render() ([]byte, error) {
	if !strings.HasSuffix(a.MetadataURL, "/") || a.SystemID == "" {
		return nil, errors.New("the machine's metadata URL and id are missing")
	}
	k := a.Credentials
	c := Curtin{OSystem: "ubuntu", SystemID: a.SystemID, MetadataURL: a.MetadataURL, Credentials: k, Proxy: a.Proxy, Archive: a.Archive, Repositories: a.Repositories}
	doc := autoinstallDoc{Version: 1, RefreshSnaps: map[string]bool{"update": false}, Reporting: map[string]webhook{"maas": c.webhook(c.MetadataURL)},
		SSH: autoinstallSSH{InstallServer: true, AuthorizedKeys: []string{}}, Proxy: a.Proxy, Shutdown: "reboot",
		UserData: map[string]any{"hostname": a.Hostname, "manage_etc_hosts": true}}
	for _, key := range a.SSHKeys {
		line, err := oneLine("an SSH key", strings.TrimSpace(key))
		if err != nil {
			return nil, err
		}
		doc.SSH.AuthorizedKeys = append(doc.SSH.AuthorizedKeys, line)
	}
	if len(a.Storage) > 0 {
		items, err := curtinStorage(a.Storage, &c)
		if err != nil {
			return nil, err
		}
		bootPartitions(items)
		doc.Storage = map[string]any{"config": items}
		if a.SwapSize != nil {
			doc.Storage["swap"] = map[string]int64{"size": *a.SwapSize}
		}
	}
	var err error
	if len(a.NICs) > 0 {
		if doc.Network, err = networkV2(a.NICs, a.Search, true); err != nil {
			return nil, err
		}
	}
	if doc.Apt, err = c.apt("ubuntu", ""); err != nil {
		return nil, err
	}
	doc.Apt.Proxy = "" // the document's own proxy is it
	if a.KernelPackage != "" {
		doc.Kernel = map[string]string{"package": a.KernelPackage}
	}
	if doc.LateCommands, err = a.lateCommands(c.byID()); err != nil {
		return nil, err
	}
	m, err := asMapping(doc)
	if err != nil {
		return nil, err
	}
	body, err := Marshal(map[string]any{"autoinstall": Merge(m, a.Template)})
	if err != nil {
		return nil, err
	}
	return append([]byte("#cloud-config\n"), body...), nil
}

// bootPartitions moves the mark of where the boot loader goes from disks to their EFI system partitions, where Subiquity looks for it.
func bootPartitions(items []storageItem) {
	mounted := map[string]bool{}
	for _, m := range items {
		mounted[m.Device] = mounted[m.Device] || m.Type == string(api.StorageMount) && m.Path == "/boot/efi"
	}
	system := map[string]bool{} // volumes with a file system that is mounted there
	for _, f := range items {
		if f.Type == string(api.StorageFormat) && mounted[f.ID] {
			system[f.Volume] = true
		}
	}
	for i := range items {
		if p := &items[i]; p.Type == string(api.StoragePartition) && system[p.ID] {
			p.GrubDevice = true
			for j := range items {
				items[j].GrubDevice = items[j].GrubDevice && items[j].ID != p.Device
			}
		}
	}
}

// lateCommands put the seed into the new system in place of the installer's own, and have the machine boot from its disk.
func (a *Autoinstall) lateCommands(byID string) ([][]string, error) {
	const put = `mkdir -p "${2%/*}" && umask 077 && printf %s "$1" | base64 -d >"$2" && chmod "$3" "$2"`
	out := [][]string{{"rm", "-f", "/target/etc/cloud/cloud.cfg.d/99-installer.cfg", "/target/etc/cloud/ds-identify.cfg"}}
	for _, f := range a.Seed {
		if !path.IsAbs(f.Path) || path.Clean(f.Path) != f.Path || f.Mode > 0o777 {
			return nil, fmt.Errorf("the seed file %q has no plain path or mode", f.Path)
		}
		out = append(out, []string{"sh", "-c", put, "sh", base64.StdEncoding.EncodeToString([]byte(f.Content)), "/target" + f.Path, fmt.Sprintf("%04o", f.Mode)})
	}
	return append(out, []string{"wget", "--no-proxy", byID, "--post-data", "op=netboot_off", "-O", "/dev/null"}), nil
}

// AutoinstallTemplate takes the document out of what an operator's template made: with or without the key autoinstall around it.
func AutoinstallTemplate(m map[string]any) (map[string]any, error) {
	inner, ok := m["autoinstall"]
	if !ok {
		return m, nil
	}
	in, isMap := inner.(map[string]any)
	if !isMap || len(m) != 1 {
		return nil, errors.New("the key autoinstall holds the whole document, and nothing stands beside it")
	}
	return in, nil
}
