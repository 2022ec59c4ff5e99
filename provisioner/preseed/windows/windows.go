// Package windows writes the files that make a generalised Windows image, copied to a disk as a whole, the machine of the region's model:
// the answer file for its first start, cloudbase-init's configuration with the machine's own credentials, the network in the form that
// cloudbase-init reads, the owner's SSH keys, and a script of ours that takes none of its text from anybody. It is pure. XML and JSON go
// through their encoders, configuration lines through one that refuses what cannot be written; commands hold no input at all.
package windows

import (
	"fmt"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/ingot-metal/ingot/api"
	"github.com/ingot-metal/ingot/provisioner/layout"
	"github.com/ingot-metal/ingot/provisioner/preseed/sshkey"
)

// Input is everything that the files are made of.
type Input struct {
	Arch         string // amd64 or arm64
	Hostname     string // without the domain
	ProductKey   string // five groups of five; empty: the image has one, or needs none
	Owner        string // who is registered: the machine's owner
	Organization string
	TimeZone     string // Windows' own name; UTC when empty
	Language     string // en-US when empty
	Password     string // of the built-in Administrator; empty: it stays as the image has it
	SSHKeys      []string
	MetadataURL  string // http://rack:5248/MAAS/metadata/
	Credentials  layout.Credentials
	NICs         []layout.NIC
	Search       []string

	computer string
}

// Where the files go, as paths on the system partition.
const (
	UnattendPath       = "/Windows/Panther/unattend.xml"
	unattendFirstPath  = "/Windows/Panther/Unattend/Unattend.xml" // read before the one that sysprep left behind
	cloudbaseDir       = "/Program Files/Cloudbase Solutions/Cloudbase-Init"
	CloudbasePath      = cloudbaseDir + "/conf/cloudbase-init.conf"
	cloudbaseUnattend  = cloudbaseDir + "/conf/cloudbase-init-unattend.conf"
	localScriptPath    = cloudbaseDir + "/LocalScripts/10-ingot.ps1"
	setupPath          = "/ProgramData/Ingot/setup.ps1"
	routesPath         = "/ProgramData/Ingot/routes.json"
	AdministratorsKeys = "/ProgramData/ssh/administrators_authorized_keys"
	NetworkPath        = "/curtin/network.json" // where cloudbase-init's MAAS service looks
)

// computerName is what Windows takes for a name: at most 15 letters, digits and dashes.
var (
	hostName    = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?$`)
	productKey  = regexp.MustCompile(`^([A-Za-z0-9]{5}-){4}[A-Za-z0-9]{5}$`)
	zoneName    = regexp.MustCompile(`^[A-Za-z0-9+. ()_-]{1,64}$`)
	language    = regexp.MustCompile(`^[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8}){0,3}$`)
	metadataURL = regexp.MustCompile(`^http://[A-Za-z0-9.:\[\]-]+/MAAS/metadata/$`)
	credential  = regexp.MustCompile(`^[A-Za-z0-9]{1,64}$`)
)

// ComputerName is the NetBIOS name of a host: its first 15 letters, as cloudbase-init cuts it.
func ComputerName(hostname string) (string, error) {
	short, _, _ := strings.Cut(hostname, ".")
	if !hostName.MatchString(short) {
		return "", fmt.Errorf("%q is not a host name", hostname)
	}
	if len(short) > 15 {
		short = strings.TrimRight(short[:15], "-")
	}
	if strings.Trim(short, "0123456789") == "" {
		return "", fmt.Errorf("Windows takes no computer name of digits alone: rename the machine %s", hostname)
	}
	return short, nil
}

func (in *Input) check() (err error) {
	if in.computer, err = ComputerName(in.Hostname); err != nil {
		return err
	}
	if in.TimeZone == "" {
		in.TimeZone = "UTC"
	}
	if in.Language == "" {
		in.Language = "en-US"
	}
	switch {
	case in.Arch != "amd64" && in.Arch != "arm64":
		return fmt.Errorf("Windows does not run on %q", in.Arch)
	case in.ProductKey != "" && !productKey.MatchString(in.ProductKey):
		return fmt.Errorf("the license key does not have the form XXXXX-XXXXX-XXXXX-XXXXX-XXXXX")
	case !zoneName.MatchString(in.TimeZone):
		return fmt.Errorf("%q is not a time zone of Windows", in.TimeZone)
	case !language.MatchString(in.Language):
		return fmt.Errorf("%q is not a language", in.Language)
	case !metadataURL.MatchString(in.MetadataURL):
		return fmt.Errorf("the metadata service's address %q is not one", in.MetadataURL)
	case !credential.MatchString(in.Credentials.ConsumerKey) || !credential.MatchString(in.Credentials.TokenKey) || !credential.MatchString(in.Credentials.TokenSecret):
		return fmt.Errorf("the machine has no usable credentials")
	}
	for _, t := range []struct{ what, text string }{{"owner", in.Owner}, {"organization", in.Organization}, {"password", in.Password}} {
		bad := func(r rune) bool { return r == utf8.RuneError || unicode.IsControl(r) || r == 0xfffe || r == 0xffff }
		if !utf8.ValidString(t.text) || strings.ContainsFunc(t.text, bad) || utf8.RuneCountInString(t.text) > 255 {
			return fmt.Errorf("the %s cannot be written into an answer file: it is too long, or holds control characters", t.what)
		}
	}
	return nil
}

// Files are the files of one machine's deployment.
func Files(in Input) ([]api.SeedFile, error) {
	if err := in.check(); err != nil {
		return nil, err
	}
	answers, err := in.unattend()
	if err != nil {
		return nil, err
	}
	network, routes, err := in.network()
	if err != nil {
		return nil, err
	}
	service, err := in.cloudbase(false)
	if err != nil {
		return nil, err
	}
	early, err := in.cloudbase(true)
	if err != nil {
		return nil, err
	}
	files := []api.SeedFile{
		{Path: unattendFirstPath, Content: string(answers)}, {Path: UnattendPath, Content: string(answers)},
		{Path: CloudbasePath, Content: service}, {Path: cloudbaseUnattend, Content: early},
		{Path: setupPath, Content: crlf(setupScript)}, {Path: localScriptPath, Content: crlf(localScript)},
		{Path: NetworkPath, Content: string(network)},
	}
	if len(routes) > 0 {
		files = append(files, api.SeedFile{Path: routesPath, Content: string(routes)})
	}
	if keys := sshkey.AdministratorsAuthorizedKeys(in.SSHKeys); keys != "" {
		files = append(files, api.SeedFile{Path: AdministratorsKeys, Content: keys})
	}
	for i := range files {
		files[i].Mode = 0o600
	}
	return files, nil
}

func crlf(s string) string { return strings.ReplaceAll(strings.TrimLeft(s, "\n"), "\n", "\r\n") }
