package preseed

import (
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/ingot-metal/ingot/api"
	"github.com/ingot-metal/ingot/provisioner/layout"
)

var update = flag.Bool("update", false, "write the golden files")

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != string(want) {
		t.Errorf("%s differs (go test -update writes it):\n%s", name, got)
	}
}

func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }
func addr(s string) netip.Addr     { return netip.MustParseAddr(s) }

const (
	u1 = "11111111-1111-4111-8111-111111111111"
	u2 = "22222222-2222-4222-8222-222222222222"
	u3 = "33333333-3333-4333-8333-333333333333"
	u4 = "44444444-4444-4444-8444-444444444444"
)

func disk(name, serial string, boot bool, ptable string) api.StorageItem {
	return api.StorageItem{ID: name, Type: api.StorageDisk, Name: name, PTable: ptable, Boot: boot,
		Disk: &api.DiskID{Name: name, Serial: serial, Model: "QEMU HARDDISK", Path: "/dev/disk/by-id/" + name, Size: 64 << 30}}
}

func part(dev string, n int, size int64, flag string) api.StorageItem {
	it := api.StorageItem{ID: dev + "-part" + string(rune('0'+n)), Type: api.StoragePartition, Name: dev + "-part" + string(rune('0'+n)), Device: dev, Number: n, Size: size, Flag: flag, UUID: u1}
	if n == 1 {
		it.Offset = 4 << 20
	}
	return it
}

func format(vol, fs, label string) api.StorageItem {
	return api.StorageItem{ID: vol + "_format", Type: api.StorageFormat, Volume: vol, FSType: fs, Label: label, UUID: u2}
}

func mount(vol, path, options string) api.StorageItem {
	return api.StorageItem{ID: vol + "_mount", Type: api.StorageMount, Device: vol + "_format", Path: path, Options: options}
}

const gib = 1 << 30

// layouts are storage plans as the region makes them.
func layouts() map[string][]api.StorageItem {
	fat := format("sda-part1", "vfat", "efi")
	fat.UUID = "ABCD-1234"
	bios := []api.StorageItem{disk("sda", "drive-0", true, "gpt"), part("sda", 1, 1<<20, "bios_grub"), part("sda", 2, 30*gib, ""),
		format("sda-part2", "ext4", "root"), mount("sda-part2", "/", "")}
	raid := []api.StorageItem{disk("sda", "drive-0", true, "gpt"), disk("sdb", "drive-1", true, "gpt"), part("sda", 1, 1<<20, "bios_grub"), part("sda", 2, 30*gib, ""),
		part("sdb", 1, 1<<20, "bios_grub"), part("sdb", 2, 30*gib, ""),
		{ID: "md0", Type: api.StorageRAID, Name: "md0", UUID: u3, Level: "1", Devices: []string{"sdb-part2", "sda-part2"}},
		format("md0", "xfs", ""), mount("md0", "/", "noatime")}
	extended := part("sda", 4, 0, "extended")
	extended.Size = 20 * gib
	return map[string][]api.StorageItem{
		"bios": bios,
		"uefi": {disk("sda", "drive-0", true, "gpt"), part("sda", 1, 512<<20, "boot"), part("sda", 2, 30*gib, ""), fat, format("sda-part2", "ext4", "root"),
			mount("sda-part2", "/", ""), mount("sda-part1", "/boot/efi", "")},
		"lvm": {disk("sda", "drive-0", true, "gpt"), part("sda", 1, 1<<20, "bios_grub"), part("sda", 2, 30*gib, ""),
			{ID: "vgroot", Type: api.StorageVG, Name: "vgroot", UUID: u3, Devices: []string{"sda-part2"}},
			{ID: "vgroot-lvroot", Type: api.StorageLV, Name: "lvroot", UUID: u4, VolGroup: "vgroot", Size: 20 * gib},
			{ID: "vgroot-swap", Type: api.StorageLV, Name: "swap", UUID: u4, VolGroup: "vgroot", Size: gib},
			format("vgroot-lvroot", "ext4", "root"), format("vgroot-swap", "swap", ""), mount("vgroot-swap", "none", "sw"), mount("vgroot-lvroot", "/", "")},
		"raid": raid,
		"bcache": {disk("sda", "drive-0", true, "gpt"), disk("sdb", "drive-1", false, "gpt"), part("sda", 1, 1<<20, "bios_grub"), part("sda", 2, gib, ""), part("sda", 3, 29*gib, ""), part("sdb", 1, 8*gib, ""),
			{ID: "bcache0", Type: api.StorageBcache, Name: "bcache0", UUID: u3, Backing: "sda-part3", Cache: "sdb-part1", Mode: "writethrough"},
			format("sda-part2", "ext4", "boot"), format("bcache0", "ext4", "root"), mount("bcache0", "/", ""), mount("sda-part2", "/boot", "")},
		"mbr": {disk("sda", "drive-0", true, "msdos"), part("sda", 1, 8*gib, ""), part("sda", 2, gib, ""), part("sda", 3, gib, ""), extended, part("sda", 5, 9*gib, "logical"), part("sda", 6, 9*gib, "logical"),
			format("sda-part1", "ext4", ""), format("sda-part6", "btrfs", "data"), mount("sda-part1", "/", ""), mount("sda-part6", "/srv/data", "compress=zstd,noatime"),
			{ID: "tmp_mount", Type: api.StorageMount, FSType: "tmpfs", Path: "/tmp", Options: "size=1G"}},
		"prep":  {disk("sda", "drive-0", true, "gpt"), part("sda", 1, 8<<20, "prep"), part("sda", 2, 30*gib, ""), format("sda-part2", "ext4", "root"), mount("sda-part2", "/", "")},
		"whole": {disk("sda", "", true, "")},
	}
}

// networks are the shapes of networks that people build.
func networks() map[string][]layout.NIC {
	return map[string][]layout.NIC{
		"static": {
			{Name: "ens3", MAC: "52:54:00:00:00:01", MTU: 1500, Boot: true, Links: []layout.Link{
				{Address: prefix("10.0.0.10/24"), Gateway: addr("10.0.0.1"), DNS: []string{"10.0.0.2", "10.0.0.3"}, Routes: []layout.Route{{To: prefix("10.9.0.0/16"), Via: addr("10.0.0.254"), Metric: 100}}},
				{Address: prefix("2001:db8::10/64"), Gateway: addr("2001:db8::1"), Routes: []layout.Route{{To: prefix("2001:db8:9::/48"), Via: addr("2001:db8::2")}}}}},
			{Name: "ens4", MAC: "52:54:00:00:00:02", MTU: 9000, Links: []layout.Link{{Address: prefix("10.1.0.10/24"), Gateway: addr("10.1.0.1")}}},
			{Name: "ens5", MAC: "52:54:00:00:00:03", Links: []layout.Link{{DHCP: true}, {DHCP: true, IPv6: true}}},
			{Name: "ens6", MAC: "52:54:00:00:00:04", Links: []layout.Link{{}}},
		},
		"bond": {
			{Name: "br0", Type: layout.NICBridge, MAC: "52:54:00:00:00:01", MTU: 1500, Parents: []string{"bond0.20"}, Bridge: layout.BridgeParams{ForwardDelay: 15}, Boot: true,
				Links: []layout.Link{{Address: prefix("10.20.0.9/24"), Gateway: addr("10.20.0.1"), DNS: []string{"10.20.0.2"}}}},
			{Name: "bond0.20", Type: layout.NICVLAN, MAC: "52:54:00:00:00:01", Parents: []string{"bond0"}, VID: 20},
			{Name: "bond0", Type: layout.NICBond, MAC: "52:54:00:00:00:01", MTU: 1500, Parents: []string{"eno2", "eno1"},
				Bond: layout.BondParams{Mode: "802.3ad", LACPRate: "fast", HashPolicy: "layer3+4", MIIMonitor: 100, UpDelay: 200, DownDelay: 200}},
			{Name: "eno1", MAC: "52:54:00:00:00:01", MTU: 1500}, {Name: "eno2", MAC: "52:54:00:00:00:02", MTU: 1500},
		},
	}
}

var creds = layout.Credentials{ConsumerKey: "CK", TokenKey: "TK", TokenSecret: "TS"}

func archive() *Repository {
	return &Repository{Name: "main_archive", URL: "http://archive.ubuntu.com/ubuntu", DisableSources: true}
}

func base(osystem, series string) Curtin {
	return Curtin{OSystem: osystem, Series: series, DefaultBase: "ubuntu/noble", Arch: "amd64", SystemID: "abc123", Hostname: "h1", MetadataURL: "http://10.0.0.2:5248/MAAS/metadata/",
		Credentials: creds, OwnerEmail: "zoe@example.com", Filetype: "root-tgz", ImageURL: "http://10.0.0.2:5248/images/ab/ubuntu/amd64/generic/noble/stable/root.tgz",
		Storage: layouts()["bios"], NICs: networks()["static"], Search: []string{"maas"}, Verbose: true, Archive: archive()}
}

func ptr[T any](v T) *T { return &v }

// configurations are one of each system, with their golden files testdata/curtin-<name>.yaml.
func configurations() map[string]Curtin {
	out := map[string]Curtin{}
	c := base("ubuntu", "noble")
	c.Filetype, c.Storage, c.KernelPackage, c.SwapSize, c.CrashDumps = "squashfs", layouts()["uefi"], "linux-generic-hwe-24.04", ptr(int64(1<<30)), true
	c.Proxy = "http://10.0.0.2:8000/"
	c.Repositories = []Repository{{Name: "my repo/1", URL: "https://packages.example/debian", Key: "-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nmQ==\n-----END PGP PUBLIC KEY BLOCK-----\n", Distributions: []string{"stable", "edge"},
		Components: []string{"main", "extra"}}, {Name: "a ppa", URL: "ppa:juju/stable", DisableSources: true}}
	out["ubuntu-noble"] = c
	c = base("ubuntu", "bionic")
	c.Storage, c.NICs, c.Archive.DisabledPockets, c.Archive.DisabledComponents, c.Archive.DisableSources = layouts()["lvm"], networks()["bond"], []string{"backports"}, []string{"multiverse"}, false
	out["ubuntu-bionic"] = c
	c = base("ubuntu", "xenial")
	c.Storage = layouts()["raid"]
	out["ubuntu-xenial"] = c
	c = base("ubuntu", "precise")
	out["ubuntu-precise"] = c
	c = base("ubuntu", "jammy")
	c.ForceV1, c.Storage, c.Verbose = true, layouts()["bcache"], false
	out["ubuntu-force-v1"] = c
	c = base("ubuntu", "noble")
	c.Arch, c.Storage = "ppc64el", layouts()["prep"]
	out["ubuntu-ppc64el"] = c
	c = base("ubuntu", "noble")
	c.Arch = "s390x"
	out["ubuntu-s390x"] = c
	c = base("ubuntu-core", "24")
	c.Filetype, c.Storage = "root-dd.xz", layouts()["whole"]
	out["ubuntu-core"] = c
	c = base("centos", "centos70")
	c.Proxy, c.Storage, c.NICs = "http://10.0.0.2:8000/", layouts()["mbr"], networks()["bond"]
	out["centos7"] = c
	for name, series := range map[string]string{"rhel": "rhel9", "ol": "ol9", "rocky": "rocky9"} {
		c = base(name, series)
		c.Proxy = "http://10.0.0.2:8000/"
		out[name] = c
	}
	out["suse"] = base("suse", "sles12.5")
	c = base("windows", "win2022")
	c.Filetype, c.Storage, c.LicenseKey = "root-dd", layouts()["whole"], "AAAAA-BBBBB-CCCCC-DDDDD-EEEEE"
	out["windows"] = c
	c = base("esxi", "8.0")
	c.Filetype, c.Storage = "root-dd.raw", layouts()["whole"]
	out["esxi"] = c
	c = base("custom", "mine")
	c.BaseImage, c.SwapSize, c.KernelPackage = "ubuntu/jammy", ptr(int64(1)), "linux-generic"
	out["custom-ubuntu"] = c
	c = base("custom", "mine")
	c.BaseImage = "rhel/rhel9"
	out["custom-rhel"] = c
	out["custom-unknown"] = base("custom", "mine")
	c = base("custom", "deb")
	c.BaseImage = "debian/bookworm"
	out["custom-debian"] = c
	out["debian"] = base("debian", "bookworm")
	c = base("ubuntu", "noble")
	c.Template = map[string]any{"late_commands": map[string]any{"zz_mine": []any{"curtin", "in-target", "--", "true"}, "maas": nil}, "power_state": map[string]any{"mode": "off"}, "apt_proxy": "x"}
	out["ubuntu-template"] = c
	return out
}

func installers() map[string]Autoinstall {
	a := Autoinstall{SystemID: "abc123", Hostname: "h1", MetadataURL: "http://10.0.0.2:5248/MAAS/metadata/", Credentials: creds, SSHKeys: []string{"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI zoë's: key #1"},
		Storage: layouts()["uefi"], NICs: networks()["static"], Search: []string{"maas"}, SwapSize: ptr(int64(0)), KernelPackage: "linux-generic", Proxy: "http://10.0.0.2:8000/", Archive: archive(),
		Seed: []api.SeedFile{{Path: "/etc/cloud/cloud.cfg.d/90_dpkg_maas.cfg", Content: "datasource: {MAAS: {}}\n'quotes' $(reboot)\n", Mode: 0o600}}}
	b := a
	b.Storage, b.NICs, b.SSHKeys, b.Seed = layouts()["lvm"], networks()["bond"], nil, nil
	b.Template = map[string]any{"packages": []any{"htop"}, "ssh": map[string]any{"allow-pw": true}}
	return map[string]Autoinstall{"uefi": a, "template": b}
}
