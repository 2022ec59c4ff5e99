package layout

import (
	"encoding/json"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/ingot-metal/ingot/api"
)

var update = flag.Bool("update", false, "write the golden files")

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(want) != string(got) {
		t.Errorf("%s differs (go test -update writes it):\n%s", name, got)
	}
}

// counter makes UUIDs that are the same in every run.
func counter() func() string {
	n := 0
	return func() string { n++; return fmt.Sprintf("00000000-0000-4000-8000-%012d", n) }
}

func input(firmware string) Input {
	parts, err := Flat(8<<30, firmware, "amd64", counter())
	if err != nil {
		panic(err)
	}
	return Input{Storage: Storage{Tables: []Table{{Device: "vda", Type: GPT, Partitions: parts}}},
		Firmware: firmware, Arch: "amd64", SystemID: "abc123", Hostname: "one", Domain: "maas", Search: []string{"maas"},
		Disks: []Disk{{ID: api.DiskID{Name: "vda", Serial: "S1", Model: "QEMU", Path: "/dev/disk/by-id/virtio-S1", Size: 8 << 30}, Boot: true},
			{ID: api.DiskID{Name: "vdb", Size: 1 << 40}}},
		NICs: []NIC{
			{Name: "ens4", MAC: "52:54:00:00:00:02", MTU: 9000, Links: []Link{{Address: netip.MustParsePrefix("10.2.0.9/24"), Gateway: netip.MustParseAddr("10.2.0.1")}}},
			{Name: "ens3", MAC: "52:54:00:00:00:01", MTU: 1500, Boot: true, Links: []Link{{Address: netip.MustParsePrefix("10.1.0.9/16"),
				Gateway: netip.MustParseAddr("10.1.0.1"), DNS: []string{"10.1.0.2"}}, {Address: netip.MustParsePrefix("fd00::9/64"), Gateway: netip.MustParseAddr("fd00::1")}}},
			{Name: "ens5", MAC: "52:54:00:00:00:03", Links: []Link{{DHCP: true}}},
			{Name: "ens6", MAC: "52:54:00:00:00:04", Links: []Link{{}}}},
		Image:      api.ImageSource{Path: "abcd/custom/amd64/generic/debian/uploaded/root-tgz", SHA256: "abcd", Size: 1000, Type: "root-tgz"},
		KernelOpts: "console=ttyS0", MetadataURL: "http://10.1.0.2:5248/MAAS/metadata/",
		Credentials: Credentials{ConsumerKey: "CK", TokenKey: "TK", TokenSecret: "TS: \"quoted\"\n#x"}}
}

func TestPlan(t *testing.T) {
	for _, firmware := range []string{BIOS, UEFI} {
		p, err := Plan(input(firmware))
		if err != nil {
			t.Fatal(err)
		}
		b, err := json.MarshalIndent(p, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		golden(t, "plan-"+firmware+".json", append(b, '\n'))
		for _, f := range p.Seed {
			if strings.Contains(f.Content, "CK") && f.Mode != 0o600 {
				t.Errorf("%s has credentials and mode %o", f.Path, f.Mode)
			}
			var v struct {
				Datasource struct {
					MAAS map[string]string `yaml:"MAAS"`
				} `yaml:"datasource"`
			}
			if err := yaml.Unmarshal([]byte(f.Content), &v); err != nil {
				t.Errorf("%s: %v", f.Path, err)
			}
			if s := v.Datasource.MAAS["token_secret"]; s != "" && s != "TS: \"quoted\"\n#x" {
				t.Errorf("the secret came out as %q", s)
			}
		}
	}
}

func TestPlanRefuses(t *testing.T) {
	in := input(BIOS)
	in.Firmware = "magic"
	if _, err := Plan(in); err == nil {
		t.Error("firmware magic")
	}
	in = input(BIOS)
	if _, err := Flat(100<<20, BIOS, "amd64", counter()); err == nil {
		t.Error("a disk of 100 MiB")
	}
}

func TestPreseed(t *testing.T) {
	for name, p := range map[string]Preseed{
		"enlist": {MetadataURL: "http://10.1.0.2:5248/MAAS/metadata/", PowerState: "poweroff", Timeout: 1800},
		"commission": {MetadataURL: "http://10.1.0.2:5248/MAAS/metadata/", StatusURL: "http://10.1.0.2:5248/MAAS/metadata/", SystemID: "abc123",
			Credentials: Credentials{"CK", "TK", "TS"}, PowerState: "poweroff", Timeout: 3600},
		"rescue": {MetadataURL: "http://10.1.0.2:5248/MAAS/metadata/", StatusURL: "http://10.1.0.2:5248/MAAS/metadata/", SystemID: "abc123", Credentials: Credentials{"CK", "TK", "TS"}},
	} {
		b, err := p.Render()
		if err != nil {
			t.Fatal(err)
		}
		golden(t, "preseed-"+name+".yaml", b)
	}
}

func TestVendorData(t *testing.T) {
	b, err := Vendor{NTP: []string{"10.0.0.1", "ntp.example.com"}, DropRunNetplan: true}.Render()
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "vendor-data.yaml", b)
	v := Vendor{VCenter: map[string]string{"vcenter_server": "vc.example", "vcenter_password": "a: \"b\"\n"},
		Sync: &HardwareSync{Agent: "http://[fd00::1]:5248/machine-resources/amd64/ingot-agent", Interval: 90 * time.Minute,
			Preseed: Preseed{MetadataURL: "http://10.1.0.2:5248/MAAS/metadata/", StatusURL: "http://10.1.0.2:5248/MAAS/metadata/", SystemID: "abc123", Credentials: Credentials{"CK", "TK", "TS"}}}}
	if b, err = v.Render(); err != nil {
		t.Fatal(err)
	}
	golden(t, "vendor-data-all.yaml", b)
	v.Sync.Agent = "http://x/machine-resources/amd64/ingot-agent\nExecStart=/bin/x"
	if _, err := v.Render(); err == nil {
		t.Error("a unit with a line of a stranger's")
	}
	if b, err = (Vendor{}).Render(); err != nil {
		t.Fatal(err)
	}
	var doc map[string]string
	if err := yaml.Unmarshal(b, &doc); err != nil || !strings.HasPrefix(doc["cloud-init"], "#cloud-config\n") {
		t.Errorf("%v %q", err, doc)
	}
}

func FuzzPlanText(f *testing.F) {
	f.Add("host", "secret", "http://r/MAAS/metadata/")
	f.Add("a\nb: c", "'\"", "x/")
	f.Fuzz(func(t *testing.T, host, secret, url string) {
		in := input(UEFI)
		in.Hostname, in.Credentials.TokenSecret, in.MetadataURL = host, secret, url+"/"
		p, err := Plan(in)
		if err != nil {
			return
		}
		for _, s := range p.Seed {
			var v map[string]any
			if err := yaml.Unmarshal([]byte(s.Content), &v); err != nil {
				t.Fatalf("%s: %v", s.Path, err)
			}
			for k := range v {
				switch k {
				case "datasource_list", "datasource", "manage_etc_hosts", "manual_cache_clean", "reporting":
				default:
					t.Fatalf("%s has the key %q", s.Path, k)
				}
			}
		}
	})
}
