package kickstart

import (
	"flag"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/ingot-metal/ingot/api"
	"github.com/ingot-metal/ingot/provisioner/layout"
)

var update = flag.Bool("update", false, "write the golden files")

const ed = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f"

const gib = 1 << 30

func disk(name, serial string, boot bool, table string) api.StorageItem {
	return api.StorageItem{ID: name, Type: api.StorageDisk, Name: name, PTable: table, Boot: boot, Disk: &api.DiskID{Name: name, Serial: serial, Model: "QEMU HARDDISK", Size: 20 * gib}}
}

func part(disk string, n int, size int64, flag string) api.StorageItem {
	id := disk + "-part" + string(rune('0'+n))
	return api.StorageItem{ID: id, Type: api.StoragePartition, Name: id, Device: disk, Number: n, Size: size, Flag: flag}
}

func format(volume, fstype, label string) api.StorageItem {
	return api.StorageItem{ID: volume + "_format", Type: api.StorageFormat, Volume: volume, FSType: fstype, Label: label, UUID: "0a1b2c3d-0000-4000-8000-000000000001"}
}

func mount(volume, path, options string) api.StorageItem {
	return api.StorageItem{ID: volume + "_mount", Type: api.StorageMount, Device: volume + "_format", Path: path, Options: options}
}

// plans are storage plans of the shapes that the region makes.
func plans() map[string][]api.StorageItem {
	return map[string][]api.StorageItem{
		"flat": {disk("sda", "drive-0", true, "gpt"), part("sda", 1, 1*mib, "bios_grub"), part("sda", 2, 12*gib, ""), part("sda", 3, 2*gib, ""),
			format("sda-part2", "ext4", "root"), format("sda-part3", "swap", ""), mount("sda-part2", "/", ""), mount("sda-part3", "none", ""),
			{ID: "tmp_mount", Type: api.StorageMount, FSType: "tmpfs", Path: "/var/scratch space", Options: "size=1G,nodev"}},
		"flat-uefi": {disk("sda", "drive-0", true, "gpt"), part("sda", 1, 512*mib, "boot"), part("sda", 2, 19*gib, ""),
			{ID: "sda-part1_format", Type: api.StorageFormat, Volume: "sda-part1", FSType: "vfat", Label: "efi", UUID: "ABCD-0123"},
			format("sda-part2", "xfs", "root"), mount("sda-part2", "/", "noatime,inode64"), mount("sda-part1", "/boot/efi", "")},
		"lvm": {disk("sda", "drive-0", true, "gpt"), disk("sdb", "drive-1", false, "gpt"), part("sda", 1, 1*mib, "bios_grub"), part("sda", 2, 1*gib, ""), part("sda", 3, 18*gib, ""), part("sdb", 1, 19*gib, ""),
			{ID: "vgroot", Type: api.StorageVG, Name: "vgroot", Devices: []string{"sda-part3", "sdb-part1"}},
			{ID: "vgroot-lvroot", Type: api.StorageLV, Name: "lvroot", VolGroup: "vgroot", Size: 30 * gib},
			{ID: "vgroot-lvhome", Type: api.StorageLV, Name: "lvhome", VolGroup: "vgroot", Size: 4 * gib},
			format("sda-part2", "ext4", "boot"), format("vgroot-lvroot", "xfs", "root"), format("vgroot-lvhome", "ext4", ""),
			mount("vgroot-lvroot", "/", ""), mount("sda-part2", "/boot", ""), mount("vgroot-lvhome", "/home", "nodev")},
		"raid1": {disk("sda", "drive-0", true, "gpt"), disk("sdb", "drive-1", true, "gpt"), disk("sdc", "drive-2", false, ""), part("sda", 1, 1*mib, "bios_grub"), part("sdb", 1, 1*mib, "bios_grub"),
			part("sda", 2, 1*gib, ""), part("sdb", 2, 1*gib, ""), part("sda", 3, 18*gib, ""), part("sdb", 3, 18*gib, ""),
			{ID: "md0", Type: api.StorageRAID, Name: "md0", Level: "1", Devices: []string{"sda-part2", "sdb-part2"}},
			{ID: "md1", Type: api.StorageRAID, Name: "md1", Level: "1", Devices: []string{"sda-part3", "sdb-part3"}},
			{ID: "vg0", Type: api.StorageVG, Name: "vg0", Devices: []string{"md1"}},
			{ID: "vg0-root", Type: api.StorageLV, Name: "root", VolGroup: "vg0", Size: 17 * gib},
			format("md0", "ext4", "boot"), format("vg0-root", "ext4", "root"), mount("vg0-root", "/", ""), mount("md0", "/boot", "")},
		"raid1-uefi": {disk("nvme0n1", "S1", true, "gpt"), disk("nvme1n1", "S2", true, "gpt"), part("nvme0n1", 1, 512*mib, "boot"), part("nvme1n1", 1, 512*mib, "boot"),
			part("nvme0n1", 2, 18*gib, ""), part("nvme1n1", 2, 18*gib, ""),
			{ID: "md0", Type: api.StorageRAID, Name: "md0", Level: "1", Devices: []string{"nvme0n1-part2", "nvme1n1-part2"}},
			format("nvme0n1-part1", "vfat", "efi"), format("nvme1n1-part1", "vfat", "efi"), format("md0", "ext4", "root"), mount("md0", "/", ""), mount("nvme0n1-part1", "/boot/efi", "")},
		"btrfs": {disk("vda", "drive-0", true, "msdos"), part("vda", 1, 1*gib, ""), part("vda", 2, 10*gib, ""), format("vda-part1", "ext4", "boot"), format("vda-part2", "btrfs", "root"),
			mount("vda-part2", "/", ""), mount("vda-part1", "/boot", "")},
	}
}

func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }
func addr(s string) netip.Addr     { return netip.MustParseAddr(s) }

// networks are the shapes that people build.
func networks() map[string][]layout.NIC {
	yes := true
	return map[string][]layout.NIC{
		"static": {
			{Name: "ens3", MAC: "52:54:00:00:00:01", MTU: 1500, Boot: true, Links: []layout.Link{{Address: prefix("10.1.0.9/16"), Gateway: addr("10.1.0.1"), DNS: []string{"10.1.0.53"},
				Routes: []layout.Route{{To: prefix("10.9.0.0/16"), Via: addr("10.1.0.254"), Metric: 100}}}, {Address: prefix("2001:db8::9/64"), Gateway: addr("2001:db8::1"), DNS: []string{"2001:db8::53"},
				Routes: []layout.Route{{To: prefix("2001:db8:9::/48"), Via: addr("2001:db8::fe")}}}}},
			{Name: "ens4", MAC: "52:54:00:00:00:02", AcceptRA: &yes, Links: []layout.Link{{DHCP: true}}},
			{Name: "ens5", MAC: "52:54:00:00:00:03", MTU: 9000},
		},
		"bond-vlan": {
			{Name: "eno1", MAC: "52:54:00:00:00:02"}, {Name: "eno2", MAC: "52:54:00:00:00:01"},
			{Name: "bond0", Type: layout.NICBond, MAC: "52:54:00:00:00:01", MTU: 9000, Parents: []string{"eno1", "eno2"}, Bond: layout.BondParams{Mode: "802.3ad", LACPRate: "fast", HashPolicy: "layer3+4", MIIMonitor: 100}, Boot: true,
				Links: []layout.Link{{Address: prefix("10.1.0.9/24"), Gateway: addr("10.1.0.1")}}},
			{Name: "bond0.20", Type: layout.NICVLAN, MAC: "52:54:00:00:00:01", Parents: []string{"bond0"}, VID: 20, Links: []layout.Link{{Address: prefix("10.20.0.9/24"), Gateway: addr("10.20.0.1")}}},
		},
		"bridge": {
			{Name: "eth0", MAC: "52:54:00:00:00:01"},
			{Name: "br0", Type: layout.NICBridge, MAC: "52:54:00:00:00:01", Parents: []string{"eth0"}, Bridge: layout.BridgeParams{STP: true, ForwardDelay: 15}, Links: []layout.Link{{DHCP: true}, {DHCP: true, IPv6: true}}},
		},
	}
}

func input(osystem, series, plan, network string) Input {
	swap := int64(512 * mib)
	firmware := "bios"
	if strings.HasSuffix(plan, "uefi") {
		firmware = "uefi"
	}
	return Input{OSystem: osystem, Series: series, Firmware: firmware, Tree: "http://mirror.lab:8080/" + series + "/BaseOS/x86_64/os/", Proxy: "http://10.1.0.2:8000/",
		Repos: []Repo{{"AppStream", "http://mirror.lab:8080/" + series + "/AppStream/x86_64/os/?a=1&b=2"}}, Packages: []string{"vim-enhanced", "-kexec-tools", "@^minimal-environment"},
		Hostname: "node7.lab.maas", Storage: plans()[plan], NICs: networks()[network], NTP: []string{"10.1.0.2", "ntp.lab"},
		SSHKeys:    []string{ed + ` ann "the boss" \ $(reboot) #1`, ed + " bé\u2028%pre", `command="x" ` + ed},
		KernelOpts: `console=ttyS0,115200 dyndbg="file drivers/usb/* +p"`, SwapSize: &swap, SystemID: "abc123",
		MetadataURL: "http://10.1.0.2:5248/MAAS/metadata/", Credentials: layout.Credentials{ConsumerKey: "CK", TokenKey: "TK", TokenSecret: "TS"},
		Seed: []api.SeedFile{{Path: "/etc/cloud/cloud.cfg.d/90_dpkg_maas.cfg", Content: "datasource: {MAAS: {token_key: TK}}\n%end\n", Mode: 0o600}}}
}

var goldens = []struct{ name, osystem, series, plan, network string }{
	{"centos7-flat", "centos", "centos70", "flat", "static"},
	{"centos7-btrfs", "centos", "centos70", "btrfs", "bridge"},
	{"centos8-flat", "centos", "centos8", "flat", "bridge"},
	{"centos8-lvm", "centos", "centos8-stream", "lvm", "bond-vlan"},
	{"centos9-flat", "centos", "centos9-stream", "flat-uefi", "static"},
	{"centos9-lvm", "centos", "centos9", "lvm", "static"},
	{"centos9-raid1", "centos", "centos9", "raid1", "bond-vlan"},
	{"rhel10-raid1", "rhel", "rhel10", "raid1-uefi", "static"},
	{"rocky9-flat", "rocky", "rocky9", "flat-uefi", "bond-vlan"},
	{"rocky9-raid1", "rocky", "rocky9", "raid1-uefi", "static"},
	{"alma9-lvm", "alma", "alma9", "lvm", "bridge"},
	{"ol8-raid1", "ol", "ol8", "raid1", "static"},
}

func TestGoldens(t *testing.T) {
	for _, g := range goldens {
		t.Run(g.name, func(t *testing.T) {
			got, err := Render(input(g.osystem, g.series, g.plan, g.network))
			if err != nil {
				t.Fatal(err)
			}
			file := filepath.Join("testdata", g.name+".ks")
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("differs from %s; run with -update and look at the difference:\n%s", file, got)
			}
			major, _ := Major(g.series)
			checkGrammar(t, got, major)
		})
	}
}

// TestValidator gives the documents to pykickstart's own ksvalidator, where it is installed: the grammar that Anaconda uses.
func TestValidator(t *testing.T) {
	validator, err := exec.LookPath("ksvalidator")
	if err != nil {
		t.Skip("ksvalidator is not installed; the grammar is held by TestGoldens")
	}
	for _, g := range goldens {
		text, err := Render(input(g.osystem, g.series, g.plan, g.network))
		if err != nil {
			t.Fatal(err)
		}
		d := parse(t, text)
		dir := t.TempDir()
		include := filepath.Join(dir, "storage.ks")
		if err := os.WriteFile(include, []byte(substitute(d.storage)), 0o600); err != nil {
			t.Fatal(err)
		}
		ks := filepath.Join(dir, "all.ks")
		if err := os.WriteFile(ks, []byte(strings.Replace(text, "%include "+includeFile, "%include "+include, 1)), 0o600); err != nil {
			t.Fatal(err)
		}
		major, _ := Major(g.series)
		out, err := exec.Command(validator, "-i", "-v", "RHEL"+strconv.Itoa(major), ks).CombinedOutput()
		// Each VLAN interface names its parent, which pykickstart takes for a repetition; it warns, and Anaconda makes them all.
		var rest []string
		for l := range strings.Lines(string(out)) {
			if l = strings.TrimSpace(l); l != "" && !strings.HasPrefix(l, "Checking") && l != "A network device with the name bond0 has already been defined." &&
				l != "A partition with the mountpoint biosboot has already been defined." { // one on each disk of a mirror

				rest = append(rest, l)
			}
		}
		if len(rest) > 0 || err != nil && g.network != "bond-vlan" && g.plan != "raid1" {
			t.Errorf("%s: ksvalidator: %v\n%s", g.name, err, out)
		}
	}
}

func TestMajor(t *testing.T) {
	for series, want := range map[string]int{"centos70": 7, "centos75": 7, "centos7": 7, "centos8": 8, "centos84": 8, "centos8-stream": 8, "centos9-stream": 9, "9-stream": 9, "rhel9.4": 9, "rhel10": 10,
		"rocky9": 9, "ol8.10": 8, "alma10.1": 10} {
		if got, ok := Major(series); !ok || got != want {
			t.Errorf("Major(%q) = %d, %v; want %d", series, got, ok, want)
		}
	}
	for _, series := range []string{"", "stream", "centos6", "centos66", "rhel5", "centos11", "9999999999999999999999"} {
		if got, ok := Major(series); ok {
			t.Errorf("Major(%q) = %d", series, got)
		}
	}
}

func TestStorageRefusals(t *testing.T) {
	change := func(base string, f func(s []api.StorageItem) []api.StorageItem) []api.StorageItem {
		return f(slices.Clone(plans()[base]))
	}
	for want, storage := range map[string][]api.StorageItem{
		"puts nothing on any disk":       {disk("sda", "s", true, "gpt")},
		"no file system is mounted at /": {disk("sda", "s", true, "gpt"), part("sda", 1, gib, ""), format("sda-part1", "swap", ""), mount("sda-part1", "none", "")},
		"names \"sda\" twice":            {disk("sda", "s", true, "gpt"), disk("sda", "s", true, "gpt")},
		"does not come before it":        {part("sda", 1, gib, "")},
		"bcache": change("flat", func(s []api.StorageItem) []api.StorageItem {
			return append(s, api.StorageItem{ID: "bcache0", Type: api.StorageBcache, Name: "bcache0"})
		}),
		"on partitions only":         append([]api.StorageItem{disk("sdb", "t", false, ""), format("sdb", "ext4", "")}, plans()["flat"]...),
		"the same kind of partition": append([]api.StorageItem{disk("sdb", "t", false, "msdos"), part("sdb", 1, gib, ""), format("sdb-part1", "ext4", ""), mount("sdb-part1", "/srv", "")}, plans()["flat"]...),
		"does not read logical volumes": change("lvm", func(s []api.StorageItem) []api.StorageItem {
			return slices.DeleteFunc(s, func(i api.StorageItem) bool {
				return i.Path == "/boot" || i.ID == "sda-part2_format" || i.ID == "sda-part2"
			})
		}),
		"without a use":           append([]api.StorageItem{}, append(plans()["flat"], part("sda", 4, gib, ""))...),
		"that are mounted":        append(plans()["flat"], part("sda", 4, gib, ""), format("sda-part4", "ext4", "")),
		"does not support BTRFS":  plans()["btrfs"],
		"does not make zfsroot":   change("flat", func(s []api.StorageItem) []api.StorageItem { s[4].FSType = "zfsroot"; return s }),
		"mount point \"/a/../b\"": change("flat", func(s []api.StorageItem) []api.StorageItem { s[6].Path = "/a/../b"; return s }),
		"name of a disk":          change("flat", func(s []api.StorageItem) []api.StorageItem { s[4].Label = "@DISK0@"; return s }),
		"a kickstart cannot hold": change("flat", func(s []api.StorageItem) []api.StorageItem { s[4].Label = "a\n%pre"; return s }),
		"no boot disk":            change("flat", func(s []api.StorageItem) []api.StorageItem { s[0].Boot = false; return s }),
		"unknown level":           change("raid1", func(s []api.StorageItem) []api.StorageItem { s[9].Level = "7"; return s }),
		"is a part of md0 and of md1": change("raid1", func(s []api.StorageItem) []api.StorageItem {
			s[10].Devices = []string{"sda-part2", "sdb-part3"}
			return s
		}),
		"arrays of partitions only":    append([]api.StorageItem{disk("sdx", "x", false, "gpt"), disk("sdy", "y", false, "gpt"), {ID: "md9", Type: api.StorageRAID, Name: "md9", Level: "1", Devices: []string{"sdx", "sdy"}}}, plans()["flat"]...),
		"nothing else: md0":            change("raid1", func(s []api.StorageItem) []api.StorageItem { return append(s, part("md0", 1, gib, "")) }),
		"not one that LVM takes":       change("lvm", func(s []api.StorageItem) []api.StorageItem { s[6].Name = "-vg root"; return s }),
		"no serial number and no path": change("flat", func(s []api.StorageItem) []api.StorageItem { d := *s[0].Disk; d.Serial = ""; s[0].Disk = &d; return s }),
		"cannot stand in fstab":        change("flat", func(s []api.StorageItem) []api.StorageItem { s[8].Options = "a b"; return s }),
		"cannot mount at":              change("flat", func(s []api.StorageItem) []api.StorageItem { s[8].FSType = "proc"; return s }),
		"unknown item type":            {{ID: "x", Type: "zpool"}},
		"which it does not format":     {mount("sda", "/", "")},
	} {
		in := input("centos", "centos9", "flat", "static")
		in.Storage = storage
		if _, err := Render(in); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v", want, err)
		}
	}
	in := input("centos", "centos9", "flat", "static")
	in.Firmware = "uefi"
	if _, err := Render(in); err == nil || !strings.Contains(err.Error(), "EFI system partition") {
		t.Errorf("no ESP: got %v", err)
	}
}

func TestNetworkRefusals(t *testing.T) {
	nic := func(n ...layout.NIC) []layout.NIC { return n }
	one := layout.NIC{Name: "ens3", MAC: "52:54:00:00:00:01"}
	for want, nics := range map[string][]layout.NIC{
		"kernel takes":               nic(layout.NIC{Name: "a b", MAC: "52:54:00:00:00:01"}),
		"two interfaces":             nic(one, one),
		"no usable MAC":              nic(layout.NIC{Name: "ens3", MAC: "x"}),
		"one IPv4 and one IPv6":      nic(layout.NIC{Name: "ens3", MAC: one.MAC, Links: []layout.Link{{Address: prefix("10.0.0.1/8")}, {Address: prefix("10.0.0.2/8")}}}),
		"Open vSwitch":               nic(one, layout.NIC{Name: "br0", Type: layout.NICBridge, Parents: []string{"ens3"}, Bridge: layout.BridgeParams{OVS: true}}),
		"no interfaces that are":     nic(layout.NIC{Name: "bond0", Type: layout.NICBond, Parents: []string{"gone"}}),
		"bonds of physical":          nic(one, layout.NIC{Name: "br0", Type: layout.NICBridge, Parents: []string{"ens3"}}, layout.NIC{Name: "bond0", Type: layout.NICBond, Parents: []string{"br0"}}),
		"puts no bond into a bridge": nic(one, layout.NIC{Name: "bond0", Type: layout.NICBond, Parents: []string{"ens3"}}, layout.NIC{Name: "br0", Type: layout.NICBridge, Parents: []string{"bond0"}}),
		"does not stand on one":      nic(layout.NIC{Name: "x.5", Type: layout.NICVLAN, VID: 5}),
		"takes VLAN interface names": nic(one, layout.NIC{Name: "ens3.6", Type: layout.NICVLAN, VID: 5, Parents: []string{"ens3"}}),
		"is a part of a and of b":    nic(one, layout.NIC{Name: "a", Type: layout.NICBond, Parents: []string{"ens3"}}, layout.NIC{Name: "b", Type: layout.NICBond, Parents: []string{"ens3"}}),
		"unknown type":               nic(layout.NIC{Name: "x", Type: "tun"}),
		"is not an address":          nic(layout.NIC{Name: "ens3", MAC: one.MAC, Links: []layout.Link{{DHCP: true, DNS: []string{"a,b"}}}}),
		"is not usable":              nic(layout.NIC{Name: "ens3", MAC: one.MAC, Links: []layout.Link{{DHCP: true, Routes: []layout.Route{{To: prefix("10.0.0.0/8"), Via: addr("::1")}}}}}),
	} {
		in := input("centos", "centos9", "flat", "static")
		in.NICs = nics
		if _, err := Render(in); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v", want, err)
		}
	}
}

// TestHostile gives every text of an input what would be syntax if it were pasted.
func TestHostile(t *testing.T) {
	evil := []string{"x\n%pre\nreboot\n%end\n", "x\r%end", "a\u2028%post", "$(reboot)", "`reboot`", "'; reboot; '", `"; reboot; "`, `\`, "#", "-x --y", "%include /etc/shadow", "INGOT_STORAGE", "@DISK0@", "\x00"}
	set := map[string]func(in *Input, v string){
		"osystem": func(in *Input, v string) { in.OSystem = v }, "series": func(in *Input, v string) { in.Series = "centos9" + v }, "tree": func(in *Input, v string) { in.Tree += v },
		"repo": func(in *Input, v string) { in.Repos[0].URL += v }, "repo name": func(in *Input, v string) { in.Repos[0].Name += v }, "package": func(in *Input, v string) { in.Packages[0] += v },
		"proxy": func(in *Input, v string) { in.Proxy += v }, "zone": func(in *Input, v string) { in.Timezone = v }, "language": func(in *Input, v string) { in.Language = v },
		"keyboard": func(in *Input, v string) { in.Keyboard = v }, "host": func(in *Input, v string) { in.Hostname += v }, "ntp": func(in *Input, v string) { in.NTP[0] += v },
		"key": func(in *Input, v string) { in.SSHKeys[0] += v }, "options": func(in *Input, v string) { in.KernelOpts += v }, "id": func(in *Input, v string) { in.SystemID += v },
		"url": func(in *Input, v string) { in.MetadataURL = "http://10.0.0.1" + v + "/MAAS/metadata/" }, "token": func(in *Input, v string) { in.Credentials.TokenSecret += v },
		"seed": func(in *Input, v string) { in.Seed[0].Content += v }, "seed path": func(in *Input, v string) { in.Seed[0].Path += v },
		"label": func(in *Input, v string) { in.Storage[4].Label += v }, "fsoptions": func(in *Input, v string) { in.Storage[6].Options = v }, "mount": func(in *Input, v string) { in.Storage[6].Path += v },
		"tmpfs": func(in *Input, v string) { in.Storage[8].Path += v }, "serial": func(in *Input, v string) { d := *in.Storage[0].Disk; d.Serial += v; in.Storage[0].Disk = &d },
		"fs uuid": func(in *Input, v string) { in.Storage[4].UUID += v }, "nic": func(in *Input, v string) { in.NICs[0].Name += v },
		"bond": func(in *Input, v string) { in.NICs = networks()["bond-vlan"]; in.NICs[2].Bond.LACPRate += v },
	}
	plain, err := Render(input("centos", "centos9", "flat", "static"))
	if err != nil {
		t.Fatal(err)
	}
	want := shape(parse(t, plain))
	bonded := input("centos", "centos9", "flat", "bond-vlan")
	plain, err = Render(bonded)
	if err != nil {
		t.Fatal(err)
	}
	wantBond := shape(parse(t, plain))
	for name, f := range set {
		for _, v := range evil {
			in := input("centos", "centos9", "flat", "static")
			f(&in, v)
			text, err := Render(in)
			if err != nil {
				continue // refused
			}
			d := parse(t, text)
			if got := shape(d); !slices.Equal(got, want) && !(name == "bond" && slices.Equal(got, wantBond)) {
				t.Errorf("%s %q changed the document's shape:\n%v\n%v", name, v, got, want)
			}
			checkScripts(t, d)
		}
	}
}
