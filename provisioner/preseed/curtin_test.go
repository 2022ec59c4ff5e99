package preseed

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/ingot-metal/ingot/api"
	"github.com/ingot-metal/ingot/provisioner/layout"
)

func read(t testing.TB, doc []byte) map[string]any {
	t.Helper()
	var m map[string]any
	if err := yaml.Unmarshal(doc, &m); err != nil {
		t.Fatalf("%v\n%s", err, doc)
	}
	return m
}

func at(m any, path ...string) any {
	for _, k := range path {
		x, ok := m.(map[string]any)
		if !ok {
			return nil
		}
		m = x[k]
	}
	return m
}

func TestCurtinGoldens(t *testing.T) {
	for name, c := range configurations() {
		doc, err := c.Render()
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		golden(t, "curtin-"+name+".yaml", doc)
		checkStorage(t, name, read(t, doc))
	}
}

// What each system gets and does not get, beside its golden.
func TestCurtinBySystem(t *testing.T) {
	for name, want := range map[string]struct {
		network                 any // version
		apt, debconf, cloudconf bool
		late                    string
	}{
		"ubuntu-noble":   {2, true, true, false, "maas"},
		"ubuntu-xenial":  {2, true, true, false, "maas"},
		"ubuntu-precise": {1, true, true, false, "maas"},
		"ubuntu-s390x":   {2, true, true, false, "maas maas_00"},
		"ubuntu-core":    {2, false, false, true, "maas"},
		"centos7":        {1, false, false, true, "maas yum_proxy"},
		"rhel":           {1, false, false, true, "maas yum_proxy"},
		"suse":           {1, false, false, true, "maas"},
		"windows":        {1, false, false, true, "maas"},
		"esxi":           {1, false, false, true, "maas"},
		"custom-ubuntu":  {2, true, true, false, "98-validate-custom-image-has-cloud-init 99-validate-custom-image-has-netplan maas"},
		"custom-rhel":    {1, false, false, true, "98-validate-custom-image-has-cloud-init maas"},
		"custom-unknown": {1, true, true, false, "98-validate-custom-image-has-cloud-init maas"},
		"debian":         {1, true, true, false, "maas"},
	} {
		c := configurations()[name]
		doc, warnings, err := c.Document()
		if err != nil || warnings != nil {
			t.Errorf("%s: %v %v", name, err, warnings)
			continue
		}
		late, _ := doc["late_commands"].(map[string]any)
		var names []string
		for k := range late {
			names = append(names, k)
		}
		slices.Sort(names)
		if got := strings.Join(names, " "); got != want.late {
			t.Errorf("%s: late commands %q", name, got)
		}
		if v := at(doc, "network", "version"); fmt.Sprint(v) != fmt.Sprint(want.network) {
			t.Errorf("%s: network version %v", name, v)
		}
		for key, there := range map[string]bool{"apt": want.apt, "debconf_selections": want.debconf, "cloudconfig": want.cloudconf} {
			if (doc[key] != nil) != there {
				t.Errorf("%s: %s is %v", name, key, doc[key])
			}
		}
	}
	c := configurations()["ubuntu-xenial"]
	doc, _, _ := c.Document()
	if text := fmt.Sprint(doc["network"]); strings.Contains(text, "table") || strings.Contains(text, "routing-policy") || !strings.Contains(text, "10.0.0.1") {
		t.Errorf("xenial routes by source: %s", text)
	}
	c = configurations()["debian"]
	if doc, _, _ = c.Document(); at(doc, "apt", "sources_list") != nil || at(doc, "apt", "preserve_sources_list") != true {
		t.Errorf("Debian is given Ubuntu's archive: %v", doc["apt"])
	}
	c = configurations()["ubuntu-template"]
	doc, warnings, _ := c.Document()
	if doc["power_state"] != nil || doc["apt_proxy"] != nil || at(doc, "late_commands", "maas") != nil || at(doc, "late_commands", "zz_mine") == nil || len(warnings) != 2 {
		t.Errorf("template: %v %v", doc["late_commands"], warnings)
	}
	c = configurations()["ubuntu-precise"]
	if doc, _, _ = c.Document(); at(doc, "power_state", "mode") != "reboot" {
		t.Error("precise does not reboot")
	}
}

func TestCurtinRefuses(t *testing.T) {
	for want, change := range map[string]func(c *Curtin){
		"cannot install from an image of type": func(c *Curtin) { c.Filetype = "root-tzst" },
		"has no URL":                           func(c *Curtin) { c.ImageURL = "/images/x" },
		"metadata URL and id":                  func(c *Curtin) { c.MetadataURL = "http://x" },
		"does not stand before it":             func(c *Curtin) { c.Storage = slices.Clone(c.Storage); slices.Reverse(c.Storage) },
		"its id is empty or taken":             func(c *Curtin) { c.Storage = append(slices.Clone(c.Storage), c.Storage[0]) },
		`curtin has no "zpool"`:                func(c *Curtin) { c.Storage = []api.StorageItem{{ID: "z", Type: "zpool"}} },
		"it names no disk":                     func(c *Curtin) { c.Storage = []api.StorageItem{{ID: "z", Type: api.StorageDisk}} },
		"nothing tells this disk from others": func(c *Curtin) {
			a, b := disk("sda", "1", true, ""), disk("sdb", "1", false, "")
			a.Disk.Path, b.Disk.Path = "", "vdb"
			c.Storage = []api.StorageItem{a, b}
		},
		"RAID level":    func(c *Curtin) { c.Storage = []api.StorageItem{{ID: "md", Type: api.StorageRAID, Level: "4"}} },
		"absolute path": func(c *Curtin) { c.Storage = append(slices.Clone(c.Storage), mount("sda-part2", "srv", "")) },
		"not allowed in a line": func(c *Curtin) {
			c.Storage = []api.StorageItem{{ID: "t", Type: api.StorageMount, FSType: "tmpfs", Path: "/tmp\n/dev/sda / ext4"}}
		},
		"not one that apt takes":      func(c *Curtin) { c.Archive = &Repository{URL: "http://x/ubuntu main\ndeb http://evil"} },
		"apt's sources can have":      func(c *Curtin) { c.Repositories = []Repository{{URL: "http://x", Components: []string{"main\nevil"}}} },
		"has a backslash":             func(c *Curtin) { c.SystemID = `a\nb` },
		"stands on itself":            func(c *Curtin) { c.ForceV1, c.NICs = true, loop() },
		"not UTF-8":                   func(c *Curtin) { c.KernelPackage = "\xff" },
		"Open vSwitch":                func(c *Curtin) { c.ForceV1, c.NICs = true, ovs() },
		"one that the kernel takes":   func(c *Curtin) { c.NICs = []layout.NIC{{Name: "e\n: x", MAC: "52:54:00:00:00:01"}} },
		"a name, a size and a group":  func(c *Curtin) { c.Storage = []api.StorageItem{{ID: "l", Type: api.StorageLV}} },
		"a size, a number and a":      func(c *Curtin) { c.Storage = []api.StorageItem{{ID: "p", Type: api.StoragePartition}} },
		"file system type and a vol":  func(c *Curtin) { c.Storage = []api.StorageItem{{ID: "f", Type: api.StorageFormat}} },
		"device or a file system typ": func(c *Curtin) { c.Storage = []api.StorageItem{{ID: "m", Type: api.StorageMount, Path: "/x"}} },
	} {
		c := base("ubuntu", "noble")
		change(&c)
		if _, err := c.Render(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", want, err)
		}
	}
}

func loop() []layout.NIC {
	return []layout.NIC{{Name: "br0", Type: layout.NICBridge, MAC: "52:54:00:00:00:01", Parents: []string{"br1"}}, {Name: "br1", Type: layout.NICBridge, MAC: "52:54:00:00:00:01", Parents: []string{"br0"}}}
}

func ovs() []layout.NIC {
	return []layout.NIC{{Name: "br0", Type: layout.NICBridge, MAC: "52:54:00:00:00:01", Bridge: layout.BridgeParams{OVS: true}}}
}

// storageRules are what curtin's documentation says of each type: the keys that it must have, and those that it may have.
var storageRules = map[string]struct{ must, may string }{
	"disk":          {"id type", "name model serial path wwn wipe ptable grub_device preserve"},
	"partition":     {"id type device size", "name number uuid offset flag wipe grub_device preserve"},
	"format":        {"id type volume fstype", "name label uuid extra_options preserve"},
	"lvm_volgroup":  {"id type name devices", "uuid preserve"},
	"lvm_partition": {"id type name volgroup", "size preserve wipe"},
	"raid":          {"id type name raidlevel devices", "spare_devices ptable preserve wipe metadata"},
	"bcache":        {"id type backing_device cache_device", "name cache_mode preserve"},
	"mount":         {"id type", "device path options fstype spec"},
}

// storageValues are the forms of values.
var storageValues = map[string]*regexp.Regexp{
	"size": regexp.MustCompile(`^[1-9][0-9]*B$`), "offset": regexp.MustCompile(`^[1-9][0-9]*B$`), "uuid": uuidText,
	"wipe": regexp.MustCompile(`^(superblock|superblock-recursive|zero|random)$`), "ptable": regexp.MustCompile(`^(gpt|msdos|vtoc)$`),
	"flag":   regexp.MustCompile(`^(bios_grub|boot|extended|home|linux|logical|lvm|mbr|prep|raid|swap)$`),
	"fstype": regexp.MustCompile(`^(btrfs|ext[234]|f2fs|fat|fat32|jfs|swap|xfs|zfsroot|tmpfs|ramfs)$`), "cache_mode": regexp.MustCompile(`^write(through|back|around)$`),
	"raidlevel": regexp.MustCompile(`^(0|1|5|6|10)$`), "number": regexp.MustCompile(`^[1-9][0-9]*$`), "grub_device": regexp.MustCompile(`^true$`),
	"options": regexp.MustCompile(`^\S+$`),
}

// checkStorage holds a storage configuration to what curtin documents.
func checkStorage(t testing.TB, name string, doc map[string]any) {
	t.Helper()
	list, _ := at(doc, "storage", "config").([]any)
	if at(doc, "storage", "version") != 1 || len(list) == 0 {
		t.Errorf("%s: no storage", name)
	}
	seen := map[string]bool{}
	for _, v := range list {
		it, _ := v.(map[string]any)
		typ, _ := it["type"].(string)
		rule, ok := storageRules[typ]
		if !ok {
			t.Errorf("%s: type %q", name, typ)
			continue
		}
		must := strings.Fields(rule.must)
		for _, k := range must {
			if it[k] == nil {
				t.Errorf("%s: %v lacks %s", name, it["id"], k)
			}
		}
		for k, x := range it {
			if !slices.Contains(must, k) && !slices.Contains(strings.Fields(rule.may), k) {
				t.Errorf("%s: %v has %s", name, it["id"], k)
			}
			if r := storageValues[k]; r != nil && !r.MatchString(fmt.Sprint(x)) {
				t.Errorf("%s: %v has %s %v", name, it["id"], k, x)
			}
		}
		if typ == "disk" && it["serial"] == nil && it["path"] == nil {
			t.Errorf("%s: nothing identifies %v", name, it["id"])
		}
		for _, k := range []string{"device", "volume", "volgroup", "backing_device", "cache_device"} {
			if ref, ok := it[k].(string); ok && !seen[ref] {
				t.Errorf("%s: %v stands before its %s %s", name, it["id"], k, ref)
			}
		}
		for _, k := range []string{"devices", "spare_devices"} {
			refs, _ := it[k].([]any)
			for _, ref := range refs {
				if !seen[fmt.Sprint(ref)] {
					t.Errorf("%s: %v stands before %v", name, it["id"], ref)
				}
			}
		}
		id := fmt.Sprint(it["id"])
		if seen[id] {
			t.Errorf("%s: two items %s", name, id)
		}
		seen[id] = true
	}
}

func TestAutoinstallGoldens(t *testing.T) {
	for name, a := range installers() {
		doc, err := a.Render()
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		golden(t, "autoinstall-"+name+".yaml", doc)
		if !strings.HasPrefix(string(doc), "#cloud-config\n") {
			t.Errorf("%s: %.20q", name, doc)
		}
		m := read(t, doc)
		if at(m, "autoinstall", "version") != 1 || at(m, "autoinstall", "identity") != nil || at(m, "autoinstall", "user-data") == nil {
			t.Errorf("%s: %s", name, doc)
		}
	}
	// Subiquity looks for where the boot loader goes at the EFI system partition.
	a := installers()["uefi"]
	doc, _ := a.Render()
	list, _ := at(read(t, doc), "autoinstall", "storage", "config").([]any)
	for _, v := range list {
		if it, _ := v.(map[string]any); (it["grub_device"] == true) != (it["id"] == "sda-part1") {
			t.Errorf("boot loader: %v", it)
		}
	}
	for want, change := range map[string]func(*Autoinstall){
		"not allowed in a line": func(a *Autoinstall) { a.SSHKeys = []string{"ssh-ed25519 A\nssh-rsa B"} },
		"no plain path":         func(a *Autoinstall) { a.Seed = []api.SeedFile{{Path: "/etc/../../x", Mode: 0o600}} },
		"metadata URL":          func(a *Autoinstall) { a.MetadataURL = "" },
	} {
		a := installers()["uefi"]
		change(&a)
		if _, err := a.Render(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", want, err)
		}
	}
	for _, m := range []map[string]any{{"autoinstall": 1}, {"autoinstall": map[string]any{}, "x": 1}} {
		if _, err := AutoinstallTemplate(m); err == nil {
			t.Errorf("%v taken", m)
		}
	}
}

func TestMerge(t *testing.T) {
	under := map[string]any{"a": map[string]any{"x": 1, "y": []any{1}}, "b": 1, "c": 1}
	got := Merge(under, map[string]any{"a": map[string]any{"y": []any{2}, "z": 3}, "b": map[string]any{"n": 1}, "c": nil})
	if fmt.Sprint(got) != "map[a:map[x:1 y:[2] z:3] b:map[n:1]]" || fmt.Sprint(under["a"]) != "map[x:1 y:[1]]" {
		t.Errorf("%v, from %v", got, under)
	}
}

// A mount's special options, and twins that only their paths tell apart.
func TestDiskIdentity(t *testing.T) {
	a, b, c := disk("sda", "1", true, "gpt"), disk("sdb", "1", false, ""), disk("sdc", "2", false, "")
	c.Disk.Model = ""
	c.Disk.Path = ""
	items, err := curtinStorage([]api.StorageItem{a, b, c}, &Curtin{})
	if err != nil || items[0].Path != "/dev/disk/by-id/sda" || items[0].Serial != "" || items[1].Path != "/dev/disk/by-id/sdb" || items[2].Serial != "2" {
		t.Errorf("%v %+v", err, items)
	}
	if items[0].GrubDevice != true || items[1].GrubDevice {
		t.Errorf("%+v", items)
	}
}

// A system that will speak IPv6 alone is told an address of the metadata service that it reaches; its installer, which came by IPv4, is not.
func TestTargetURL(t *testing.T) {
	const target = "http://[2001:db8::2]:5248/MAAS/metadata/"
	for _, name := range []string{"rhel", "ubuntu-noble"} {
		c := configurations()[name]
		c.TargetURL = target
		doc, _, err := c.Document()
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		var inTarget, installer string
		for key, v := range doc {
			b, err := Marshal(map[string]any{key: v})
			if err != nil {
				t.Fatal(err)
			}
			if key == "cloudconfig" || key == "debconf_selections" {
				inTarget += string(b)
			} else {
				installer += string(b)
			}
		}
		if !strings.Contains(inTarget, target) || strings.Contains(inTarget, "10.0.0.2") {
			t.Errorf("%s: the system is told\n%s", name, inTarget)
		}
		if strings.Contains(installer, target) || !strings.Contains(installer, c.MetadataURL+"latest/by-id/") || !strings.Contains(installer, c.MetadataURL+"status/") {
			t.Errorf("%s: the installer is told\n%s", name, installer)
		}
	}
}
