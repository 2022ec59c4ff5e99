package windows

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"encoding/xml"
	"errors"
	"flag"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf16"

	"github.com/ingot-metal/ingot/api"
	"github.com/ingot-metal/ingot/provisioner/layout"
)

var update = flag.Bool("update", false, "write the golden files")

const ed = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f"

func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }
func addr(s string) netip.Addr     { return netip.MustParseAddr(s) }

func input() Input {
	return Input{Arch: "amd64", Hostname: "win-node7", ProductKey: "AAAAA-BBBBB-CCCCC-DDDDD-EEEEE", Owner: `Ann & <Bob> "O'Neil" ]]>`, Organization: "Lab", Password: "Passw0rd-äöü",
		SSHKeys: []string{ed + " ann", `command="calc.exe" ` + ed, ed + " b\u2028evil"}, MetadataURL: "http://10.1.0.2:5248/MAAS/metadata/",
		Credentials: layout.Credentials{ConsumerKey: "CK", TokenKey: "TK", TokenSecret: "TS"}, Search: []string{"lab.maas"},
		NICs: []layout.NIC{
			{Name: "eth0", MAC: "52:54:00:00:00:01", MTU: 1500, Boot: true, Links: []layout.Link{{Address: prefix("10.1.0.9/16"), Gateway: addr("10.1.0.1"), DNS: []string{"10.1.0.53"},
				Routes: []layout.Route{{To: prefix("10.9.0.0/16"), Via: addr("10.1.0.254"), Metric: 5}}}, {Address: prefix("2001:db8::9/64"), Gateway: addr("2001:db8::1")}}},
			{Name: "eth1", MAC: "52:54:00:00:00:02"}, {Name: "eth2", MAC: "52:54:00:00:00:03"}, {Name: "eth3", MAC: "52:54:00:00:00:04"},
			{Name: "bond0", Type: layout.NICBond, MAC: "52:54:00:00:00:02", Parents: []string{"eth2", "eth1"}, Bond: layout.BondParams{Mode: "802.3ad", LACPRate: "fast", HashPolicy: "layer3+4"}, Links: []layout.Link{{DHCP: true}}},
			{Name: "bond0.20", Type: layout.NICVLAN, MAC: "52:54:00:00:00:02", Parents: []string{"bond0"}, VID: 20, Links: []layout.Link{{Address: prefix("10.20.0.9/24"), Gateway: addr("10.20.0.1")}}},
		}}
}

func byPath(t testing.TB, files []api.SeedFile) map[string]string {
	t.Helper()
	out := map[string]string{}
	for _, f := range files {
		if !strings.HasPrefix(f.Path, "/") || filepath.Clean(f.Path) != f.Path || out[f.Path] != "" || f.Mode != 0o600 {
			t.Fatalf("the file %q is not one, or twice there", f.Path)
		}
		out[f.Path] = f.Content
	}
	return out
}

func TestGoldens(t *testing.T) {
	files, err := Files(input())
	if err != nil {
		t.Fatal(err)
	}
	got := byPath(t, files)
	if len(got) != 9 {
		t.Errorf("%d files", len(got))
	}
	for p, golden := range map[string]string{UnattendPath: "unattend.xml", CloudbasePath: "cloudbase-init.conf", cloudbaseUnattend: "cloudbase-init-unattend.conf", NetworkPath: "network.json",
		routesPath: "routes.json", AdministratorsKeys: "administrators_authorized_keys"} {
		file := filepath.Join("testdata", golden)
		if *update {
			if err := os.WriteFile(file, []byte(got[p]), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if got[p] != string(want) {
			t.Errorf("%s differs from %s; run with -update and look at the difference:\n%s", p, file, got[p])
		}
	}
	if got[unattendFirstPath] != got[UnattendPath] {
		t.Error("the two answer files differ")
	}
	checkUnattend(t, got[UnattendPath])
	if lint, err := exec.LookPath("xmllint"); err == nil {
		c := exec.Command(lint, "--noout", "--nonet", "-")
		c.Stdin = strings.NewReader(got[UnattendPath])
		if out, err := c.CombinedOutput(); err != nil {
			t.Errorf("xmllint: %v\n%s", err, out)
		}
	}
}

// element is what Microsoft's reference says of a setting: in which passes it may stand. The children of an element stand in the order of
// the reference, which is the order of this list.
type element struct {
	path   string
	passes string // empty: those of its parent
}

// published is the part of the reference that we use, component by component. Microsoft publishes no schema of answer files; Windows' own
// tools write elements in the order of the reference.
var published = map[string][]element{
	"Microsoft-Windows-Deployment": {
		{"RunSynchronous", "auditUser specialize"}, {"RunSynchronous/RunSynchronousCommand", ""}, {"RunSynchronous/RunSynchronousCommand/Credentials", ""},
		{"RunSynchronous/RunSynchronousCommand/Description", ""}, {"RunSynchronous/RunSynchronousCommand/Order", ""}, {"RunSynchronous/RunSynchronousCommand/Path", ""},
		{"RunSynchronous/RunSynchronousCommand/WillReboot", ""},
	},
	"Microsoft-Windows-International-Core": {
		{"InputLocale", "specialize oobeSystem"}, {"SystemLocale", "specialize oobeSystem"}, {"UILanguage", "specialize oobeSystem"}, {"UILanguageFallback", "specialize oobeSystem"},
		{"UserLocale", "specialize oobeSystem"},
	},
	"Microsoft-Windows-Shell-Setup": {
		{"AutoLogon", "auditSystem oobeSystem specialize"}, {"ComputerName", "specialize"}, {"CopyProfile", "specialize"}, {"FirstLogonCommands", "oobeSystem"}, {"OEMInformation", "oobeSystem specialize"},
		{"OOBE", "oobeSystem"}, {"OOBE/HideEULAPage", ""}, {"OOBE/HideLocalAccountScreen", ""}, {"OOBE/HideOEMRegistrationScreen", ""}, {"OOBE/HideOnlineAccountScreens", ""},
		{"OOBE/HideWirelessSetupInOOBE", ""}, {"OOBE/NetworkLocation", ""}, {"OOBE/ProtectYourPC", ""}, {"ProductKey", "specialize"}, {"RegisteredOrganization", "generalize specialize oobeSystem"},
		{"RegisteredOwner", "generalize specialize oobeSystem"}, {"TimeZone", "auditSystem specialize oobeSystem"}, {"UserAccounts", "auditSystem oobeSystem"},
		{"UserAccounts/AdministratorPassword", ""}, {"UserAccounts/AdministratorPassword/Value", ""}, {"UserAccounts/AdministratorPassword/PlainText", ""},
	},
}

var passOrder = []string{"windowsPE", "offlineServicing", "generalize", "specialize", "auditSystem", "auditUser", "oobeSystem"}

const (
	ns  = "urn:schemas-microsoft-com:unattend"
	wcm = "http://schemas.microsoft.com/WMIConfig/2002/State"
)

// checkUnattend holds a document to the reference element by element, and returns its values by pass/component/path.
func checkUnattend(t testing.TB, doc string) map[string]string {
	t.Helper()
	values := map[string]string{}
	d := xml.NewDecoder(strings.NewReader(doc))
	var stack []string
	var text strings.Builder
	pass, name, lastPass := "", "", -1
	last := map[string]int{} // parent → the place of its last child in the list
	for {
		tok, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("the answer file is no XML: %v\n%s", err, doc)
		}
		switch tok := tok.(type) {
		case xml.StartElement:
			text.Reset()
			if tok.Name.Space != ns {
				t.Errorf("%s is in the namespace %q", tok.Name.Local, tok.Name.Space)
			}
			attr := map[string]string{}
			for _, a := range tok.Attr {
				attr[a.Name.Space+" "+a.Name.Local] = a.Value
			}
			switch len(stack) {
			case 0:
				if tok.Name.Local != "unattend" {
					t.Errorf("the root is %s", tok.Name.Local)
				}
			case 1:
				pass = attr[" pass"]
				at := slices.Index(passOrder, pass)
				if tok.Name.Local != "settings" || at <= lastPass {
					t.Errorf("the pass %q stands where it does not belong", pass)
				}
				lastPass = at
			case 2:
				name = attr[" name"]
				if tok.Name.Local != "component" || published[name] == nil || attr[" processorArchitecture"] != "amd64" || attr[" publicKeyToken"] != "31bf3856ad364e35" ||
					attr[" language"] != "neutral" || attr[" versionScope"] != "nonSxS" || attr["xmlns wcm"] != wcm {
					t.Errorf("the component %q is not one: %v", name, attr)
				}
				last = map[string]int{}
			default:
				p := strings.Join(append(slices.Clone(stack[3:]), tok.Name.Local), "/")
				at := slices.IndexFunc(published[name], func(e element) bool { return e.path == p })
				if at < 0 {
					t.Errorf("%s has no setting %s", name, p)
					break
				}
				if passes := published[name][at].passes; passes != "" && !slices.Contains(strings.Fields(passes), pass) {
					t.Errorf("%s/%s does not stand in the pass %s", name, p, pass)
				}
				parent := strings.Join(stack[3:], "/")
				if prev, ok := last[parent]; ok && prev >= at && tok.Name.Local != "RunSynchronousCommand" {
					t.Errorf("%s/%s stands out of order", name, p)
				}
				last[parent] = at
				if tok.Name.Local == "RunSynchronousCommand" && attr[wcm+" action"] != "add" {
					t.Errorf("%s has no wcm:action: %v", p, attr)
				}
			}
			stack = append(stack, tok.Name.Local)
		case xml.EndElement:
			if len(stack) > 3 && strings.TrimSpace(text.String()) != "" {
				values[pass+"/"+name+"/"+strings.Join(stack[3:], "/")] = text.String()
			}
			text.Reset()
			stack = stack[:len(stack)-1]
		case xml.CharData:
			text.Write(tok)
		case xml.Directive:
			t.Errorf("the directive %q", tok)
		}
	}
	return values
}

// plainPassword undoes hiddenPassword as Windows does.
func plainPassword(t testing.TB, value string) string {
	t.Helper()
	b, err := base64.StdEncoding.DecodeString(value)
	if err != nil || len(b)%2 != 0 {
		t.Fatalf("the password %q is not base64 of UTF-16: %v", value, err)
	}
	u := make([]uint16, len(b)/2)
	for i := range u {
		u[i] = uint16(b[2*i]) | uint16(b[2*i+1])<<8
	}
	p, ok := strings.CutSuffix(string(utf16.Decode(u)), "AdministratorPassword")
	if !ok {
		t.Errorf("the hidden password does not end in the element's name")
	}
	return p
}

func TestValues(t *testing.T) {
	in := input()
	files, err := Files(in)
	if err != nil {
		t.Fatal(err)
	}
	v := checkUnattend(t, byPath(t, files)[UnattendPath])
	shell, command := "specialize/Microsoft-Windows-Shell-Setup/", "specialize/Microsoft-Windows-Deployment/RunSynchronous/RunSynchronousCommand/"
	for k, want := range map[string]string{shell + "ComputerName": "win-node7", shell + "ProductKey": in.ProductKey, shell + "RegisteredOwner": in.Owner, shell + "RegisteredOrganization": "Lab",
		shell + "TimeZone": "UTC", command + "Order": "1", command + "WillReboot": "Never", command + "Path": setupCommand, "oobeSystem/Microsoft-Windows-International-Core/UserLocale": "en-US",
		"oobeSystem/Microsoft-Windows-Shell-Setup/OOBE/HideEULAPage": "true"} {
		if v[k] != want {
			t.Errorf("%s is %q, want %q", k, v[k], want)
		}
	}
	if got := plainPassword(t, v["oobeSystem/Microsoft-Windows-Shell-Setup/UserAccounts/AdministratorPassword/Value"]); got != in.Password {
		t.Errorf("the password is %q", got)
	}
	if len(setupCommand) > 259 {
		t.Errorf("the command has %d characters; Windows takes 259", len(setupCommand))
	}
	in.ProductKey, in.Password, in.Owner, in.Organization, in.SSHKeys = "", "", "", "", nil
	if files, err = Files(in); err != nil {
		t.Fatal(err)
	}
	got := byPath(t, files)
	for k := range checkUnattend(t, got[UnattendPath]) {
		for _, absent := range []string{"ProductKey", "UserAccounts", "RegisteredO"} {
			if strings.Contains(k, absent) {
				t.Errorf("%s is there without a value", k)
			}
		}
	}
	if _, ok := got[AdministratorsKeys]; ok {
		t.Error("a file of keys without keys")
	}
}

func TestComputerName(t *testing.T) {
	for in, want := range map[string]string{"a": "a", "node7.lab.maas": "node7", "a-very-long-host-name": "a-very-long-hos", "fourteen-chars-x": "fourteen-chars", "0a": "0a"} {
		if got, err := ComputerName(in); err != nil || got != want {
			t.Errorf("ComputerName(%q) = %q, %v; want %q", in, got, err, want)
		}
	}
	for _, in := range []string{"", ".lab", "-a", "a_b", "123456", "12345678901234567890", "a b", "ä", "a\n"} {
		if got, err := ComputerName(in); err == nil {
			t.Errorf("ComputerName(%q) = %q", in, got)
		}
	}
}

func TestRefusals(t *testing.T) {
	for want, f := range map[string]func(in *Input){
		"does not run on":         func(in *Input) { in.Arch = "ppc64el" },
		"license key":             func(in *Input) { in.ProductKey = "AAAAA" },
		"time zone":               func(in *Input) { in.TimeZone = "UTC\r\n" },
		"not a language":          func(in *Input) { in.Language = "en-US;ja" },
		"metadata service's":      func(in *Input) { in.MetadataURL = "http://x/\n[evil]/MAAS/metadata/" },
		"usable credentials":      func(in *Input) { in.Credentials.TokenSecret = "a\r\nplugins=x" },
		"the owner cannot":        func(in *Input) { in.Owner = "a\x00b" },
		"the password cannot":     func(in *Input) { in.Password = "a\nb" },
		"the organization cannot": func(in *Input) { in.Organization = "\xff" },
		"no usable MAC":           func(in *Input) { in.NICs[0].MAC = "" },
		"two interfaces":          func(in *Input) { in.NICs[1].Name = "eth0" },
		"of type \"bridge\"":      func(in *Input) { in.NICs[3].Type = layout.NICBridge },
		"does not make the bond":  func(in *Input) { in.NICs[4].Bond.Mode = "evil" },
		"the VLAN interface":      func(in *Input) { in.NICs[5].Parents = nil },
	} {
		in := input()
		f(&in)
		if _, err := Files(in); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v", want, err)
		}
	}
}

// parseINI reads oslo.config's format.
func parseINI(t testing.TB, text string) map[string]string {
	t.Helper()
	out := map[string]string{}
	for i, l := range strings.Split(strings.TrimSuffix(text, "\r\n"), "\r\n") {
		if i == 0 {
			if l != "[DEFAULT]" {
				t.Fatalf("the section is %q", l)
			}
			continue
		}
		name, value, ok := strings.Cut(l, "=")
		if _, twice := out[name]; !ok || twice || strings.ContainsAny(l, "\r\n") || strings.HasPrefix(l, "[") || strings.HasPrefix(l, "#") {
			t.Fatalf("the line %q is none", l)
		}
		out[name] = value
	}
	return out
}

func TestCloudbase(t *testing.T) {
	files, err := Files(input())
	if err != nil {
		t.Fatal(err)
	}
	got := byPath(t, files)
	for _, p := range []string{CloudbasePath, cloudbaseUnattend} {
		c := parseINI(t, got[p])
		for k, want := range map[string]string{"maas_metadata_url": "http://10.1.0.2:5248/MAAS/metadata/", "maas_oauth_consumer_key": "CK", "maas_oauth_consumer_secret": "", "maas_oauth_token_key": "TK",
			"maas_oauth_token_secret": "TS", "metadata_services": "cloudbaseinit.metadata.services.maasservice.MaaSHttpService", "debug": "false", "inject_user_password": "false"} {
			if c[k] != want {
				t.Errorf("%s: %s is %q, want %q", p, k, c[k], want)
			}
		}
	}
	service, early := parseINI(t, got[CloudbasePath])["plugins"], parseINI(t, got[cloudbaseUnattend])["plugins"]
	if !strings.HasSuffix(service, ",cloudbaseinit.plugins.common.userdata.UserDataPlugin") {
		t.Errorf("reading user-data, which says that the system is up, is not the last thing: %s", service)
	}
	if strings.Contains(early, "userdata") {
		t.Errorf("the early run reads user-data: %s", early)
	}
	at := func(p string) int { return strings.Index(service, p) }
	if at("CreateUser") > at("SetUserSSHPublicKeys") || at("SetUserPassword") > at("CertificateAuth") || at("WinRMListener") > at("CertificateAuth") || at("WinRMListener") > at("LocalScripts") {
		t.Errorf("the plugins stand in an order in which they do not work: %s", service)
	}
}

// TestNetwork reads the network as cloudbase-init's MAAS service does: by its types, and what makes an interface enabled.
func TestNetwork(t *testing.T) {
	files, err := Files(input())
	if err != nil {
		t.Fatal(err)
	}
	var doc struct {
		Version int
		Config  []map[string]any
	}
	if err := json.Unmarshal([]byte(byPath(t, files)[NetworkPath]), &doc); err != nil || doc.Version != 1 {
		t.Fatalf("%+v %v", doc, err)
	}
	enabled, gateways := map[string]bool{}, 0
	for _, it := range doc.Config {
		typ, _ := it["type"].(string)
		if !slices.Contains([]string{"physical", "bond", "vlan", "nameserver"}, typ) {
			t.Errorf("the type %q is not one that cloudbase-init takes", typ)
		}
		if typ == "nameserver" {
			continue
		}
		on := true
		subnets, _ := it["subnets"].([]any)
		for _, s := range subnets {
			m := s.(map[string]any)
			on = on && m["type"] != "manual"
			if m["gateway"] != nil {
				gateways++
			}
			if m["type"] == "static" && m["address"] == nil {
				t.Errorf("static without an address: %v", it)
			}
		}
		enabled[it["id"].(string)] = on
	}
	if want := map[string]bool{"eth0": true, "eth1": true, "eth2": true, "eth3": false, "bond0": true, "bond0.20": true}; !mapsEqual(enabled, want) {
		t.Errorf("enabled are %v, want %v", enabled, want)
	}
	if gateways != 2 {
		t.Errorf("%d default gateways, want one of each family", gateways)
	}
}

func mapsEqual(a, b map[string]bool) bool {
	for k, v := range a {
		if w, ok := b[k]; !ok || v != w {
			return false
		}
	}
	return len(a) == len(b)
}

// TestScripts holds what can be held without PowerShell: the scripts are pure ASCII, whole, and name the files that Files writes.
func TestScripts(t *testing.T) {
	for _, s := range []string{setupScript, localScript} {
		for i := range len(s) {
			if s[i] > 0x7e || s[i] < 0x20 && s[i] != '\n' {
				t.Fatalf("the character %q: PowerShell 5 reads files without a mark in the system's code page", s[i])
			}
		}
		for _, pair := range []string{"{}", "()", "[]"} {
			if strings.Count(s, pair[:1]) != strings.Count(s, pair[1:]) {
				t.Errorf("the brackets %s do not match", pair)
			}
		}
	}
	for _, p := range []string{AdministratorsKeys, routesPath, UnattendPath, unattendFirstPath, CloudbasePath} {
		found := false
		for w := p; w != ""; { // any tail of the path, in Windows' spelling
			if strings.Contains(setupScript, strings.ReplaceAll(strings.TrimPrefix(w, "/"), "/", `\`)) {
				found = true
			}
			_, rest, ok := strings.Cut(strings.TrimPrefix(w, "/"), "/")
			if !ok {
				break
			}
			w = rest
		}
		if p == CloudbasePath {
			found = strings.Contains(setupScript, `Cloudbase Solutions\Cloudbase-Init\conf`)
		}
		if !found {
			t.Errorf("the script does not know %s", p)
		}
	}
	for _, want := range []string{"*S-1-5-18:F", "*S-1-5-32-544:F", "/inheritance:r"} {
		if !strings.Contains(setupScript, want) {
			t.Errorf("the script lacks %s", want)
		}
	}
}

// FuzzFiles gives people's texts to the emitters and reads them back.
func FuzzFiles(f *testing.F) {
	f.Add("node7", "Ann", "Lab", "secret", "ann@desk", "eth0", "UTC")
	f.Add("a", "]]><x/>&amp;", "<!DOCTYPE x [<!ENTITY e SYSTEM \"file:///c:/\">]>", "\u2028\ufffe", "\r\n", "\"},{", "W. Europe Standard Time")
	f.Fuzz(func(t *testing.T, host, owner, org, password, comment, nic, zone string) {
		in := input()
		in.Hostname, in.Owner, in.Organization, in.Password, in.SSHKeys, in.TimeZone = host, owner, org, password, []string{ed + " " + comment}, zone
		in.NICs = in.NICs[:1]
		in.NICs[0].Name = nic
		files, err := Files(in)
		if err != nil {
			return
		}
		got := byPath(t, files)
		v := checkUnattend(t, got[UnattendPath])
		for k, want := range map[string]string{"RegisteredOwner": owner, "RegisteredOrganization": org} {
			if have := v["specialize/Microsoft-Windows-Shell-Setup/"+k]; have != want && strings.TrimSpace(want) != "" {
				t.Errorf("%s is %q, want %q", k, have, want)
			}
		}
		if password != "" {
			if have := plainPassword(t, v["oobeSystem/Microsoft-Windows-Shell-Setup/UserAccounts/AdministratorPassword/Value"]); have != password {
				t.Errorf("the password is %q, want %q", have, password)
			}
		}
		parseINI(t, got[CloudbasePath])
		var doc struct{ Config []map[string]any }
		if err := json.Unmarshal([]byte(got[NetworkPath]), &doc); err != nil || doc.Config[0]["name"] != nic {
			t.Errorf("the interface %q became %v: %v", nic, doc, err)
		}
		if keys := got[AdministratorsKeys]; strings.Count(keys, "\n") > 1 || bytes.ContainsAny([]byte(keys), "\x00") {
			t.Errorf("the keys are %q", keys)
		}
	})
}
