// Package kickstart writes the document by which Anaconda, the installer of CentOS and its kin (RHEL, Rocky Linux, AlmaLinux, Oracle
// Linux), installs a machine from a mirror tree as the region's model has it: disks, network, users' keys, and what makes the installed
// system report itself. It is pure: records in, text out. Commands are words that one emitter quotes, scripts are texts of this package
// with quoted values: nothing that a person typed becomes syntax, and what cannot be written is refused with a sentence.
package kickstart

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/ingot-metal/ingot/api"
	"github.com/ingot-metal/ingot/provisioner/layout"
	"github.com/ingot-metal/ingot/provisioner/preseed/sshkey"
)

// Repo is a package repository beside the tree's own.
type Repo struct{ Name, URL string }

// Input is everything that a kickstart is made of.
type Input struct {
	OSystem  string // centos, rhel, ol, rocky, alma
	Series   string // centos9, rocky9
	Firmware string // bios or uefi
	Tree     string // URL of the tree: what has .treeinfo
	Repos    []Repo
	Packages []string // beside those that every machine has; @group and -package as kickstart has them
	Proxy    string   // HTTP proxy for the installation and for the installed system; empty: none
	Timezone string   // UTC when empty
	Language string   // en_US.UTF-8 when empty
	Keyboard string   // us when empty

	Hostname   string // with the domain
	Storage    []api.StorageItem
	NICs       []layout.NIC
	NTP        []string
	SSHKeys    []string // of the owner
	KernelOpts string   // of the installed system
	SwapSize   *int64   // of /swap.img in bytes; nil and 0 make none

	SystemID    string
	MetadataURL string // http://rack:5248/MAAS/metadata/
	Credentials layout.Credentials
	Seed        []api.SeedFile // cloud-init's configuration

	major int
}

// Systems are the operating systems that this package installs, with the user that gets the owner's keys, as the systems' own cloud
// images have it.
var Systems = map[string]string{"centos": "centos", "rhel": "cloud-user", "ol": "cloud-user", "rocky": "rocky", "alma": "almalinux"}

var seriesDigits = regexp.MustCompile(`[0-9]+`)

// Major is the release that a series' name says: 9 of centos9, centos9-stream, rocky9.4 and 9; 7 of centos70. ok is false for a name without
// one, and for releases that kickstarts are not written for.
func Major(series string) (major int, ok bool) {
	d := seriesDigits.FindString(series)
	if len(d) == 2 && d[0] >= '4' { // MAAS's centos70: release and point release
		d = d[:1]
	}
	n, err := strconv.Atoi(d)
	return n, err == nil && n >= 7 && n <= 10
}

var (
	seriesName   = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._+-]{0,63}$`)
	systemID     = regexp.MustCompile(`^[a-z0-9]{1,16}$`)
	hostName     = regexp.MustCompile(`^[a-zA-Z0-9]([a-zA-Z0-9.-]{0,252}[a-zA-Z0-9])?$`)
	credential   = regexp.MustCompile(`^[A-Za-z0-9]{1,64}$`)
	httpURL      = regexp.MustCompile(`^(http|https|ftp)://[^\s"'\\<>#]+$`)
	metadataText = regexp.MustCompile(`^http://[A-Za-z0-9.:\[\]-]+/MAAS/metadata/$`)
	repoName     = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$`)
	packageName  = regexp.MustCompile(`^(@\^?|-)?[A-Za-z0-9][A-Za-z0-9_.+-]{0,127}$`)
	zoneName     = regexp.MustCompile(`^[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+){0,2}$`)
	localeName   = regexp.MustCompile(`^[A-Za-z0-9_.@-]+$`)
	ntpName      = regexp.MustCompile(`^[A-Za-z0-9.:-]+$`)
)

// ValidRepo says what is wrong with a repository; nil when nothing is.
func ValidRepo(r Repo) error {
	if !repoName.MatchString(r.Name) {
		return refuse("%q is not a repository's name: use letters, digits and . _ -", r.Name)
	}
	return ValidURL(r.URL)
}

// ValidURL says what is wrong with the URL of a tree or repository; nil when nothing is.
func ValidURL(u string) error {
	if !httpURL.MatchString(u) || !printable(u) || len(u) > 2048 {
		return refuse("%q is not an address of a mirror: it begins with http://, https:// or ftp:// and has no blanks, quotes, < > or #.", u)
	}
	return nil
}

// ValidPackage says whether a text is a package, a group (@core), an environment (@^minimal) or a package to leave out (-kexec-tools).
func ValidPackage(p string) bool { return packageName.MatchString(p) }

func (in *Input) check() error {
	var ok bool
	switch in.major, ok = Major(in.Series); {
	case Systems[in.OSystem] == "":
		return refuse("kickstarts are written for CentOS, RHEL, Oracle, Rocky and AlmaLinux, not for %q", in.OSystem)
	case !ok:
		return refuse("the series %q names no release from 7 to 10, so its kickstart cannot be written", in.Series)
	case in.Firmware != "bios" && in.Firmware != "uefi":
		return refuse("the firmware %q is neither bios nor uefi", in.Firmware)
	case !seriesName.MatchString(in.Series):
		return refuse("the series %q is not one", in.Series)
	case !systemID.MatchString(in.SystemID):
		return refuse("the system id %q is not one", in.SystemID)
	case !hostName.MatchString(in.Hostname):
		return refuse("the host name %q is not one", in.Hostname)
	case !metadataText.MatchString(in.MetadataURL):
		return refuse("the metadata service's address %q is not one", in.MetadataURL)
	case !credential.MatchString(in.Credentials.ConsumerKey) || !credential.MatchString(in.Credentials.TokenKey) || !credential.MatchString(in.Credentials.TokenSecret):
		return refuse("the machine has no usable credentials")
	case in.SwapSize != nil && *in.SwapSize < 0:
		return refuse("the swap size is negative")
	}
	if err := ValidURL(in.Tree); err != nil {
		return err
	}
	if in.Proxy != "" {
		if err := ValidURL(in.Proxy); err != nil {
			return err
		}
	}
	for _, r := range in.Repos {
		if err := ValidRepo(r); err != nil {
			return err
		}
	}
	for _, p := range in.Packages {
		if !ValidPackage(p) {
			return refuse("%q is not a package or group of packages", p)
		}
	}
	for _, n := range in.NTP {
		if !ntpName.MatchString(n) {
			return refuse("the NTP server %q is not one", n)
		}
	}
	for _, x := range []struct {
		name string
		text *string
		def  string
		re   *regexp.Regexp
	}{{"time zone", &in.Timezone, "UTC", zoneName}, {"language", &in.Language, "en_US.UTF-8", localeName}, {"keyboard", &in.Keyboard, "us", localeName}} {
		if *x.text == "" {
			*x.text = x.def
		}
		if !x.re.MatchString(*x.text) || strings.HasPrefix(*x.text, "-") {
			return refuse("the %s %q is not one", x.name, *x.text)
		}
	}
	return nil
}

// Render writes the kickstart.
func Render(in Input) (string, error) {
	if err := in.check(); err != nil {
		return "", err
	}
	disks, err := storagePlan(&in)
	if err != nil {
		return "", err
	}
	nets, err := networkPlan(&in)
	if err != nil {
		return "", err
	}
	general, err := lines(in.general(nets))
	if err != nil {
		return "", err
	}
	pre, err := in.pre(disks)
	if err != nil {
		return "", err
	}
	post, err := in.post(disks, nets)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	fmt.Fprintf(&b, "# Installs %s on %s. Written by Ingot from the machine's model.\n", in.OSystem+"/"+in.Series, in.Hostname)
	b.WriteString(general)
	b.WriteString("%include " + includeFile + "\n")
	b.WriteString("\n%packages\n" + strings.Join(in.packages(), "\n") + "\n%end\n")
	b.WriteString("\n%pre --erroronfail --log=/tmp/ingot-pre.log\n" + pre + "%end\n")
	if in.major >= 8 { // CentOS 7 does not know the section
		failed, err := in.onError()
		if err != nil {
			return "", err
		}
		b.WriteString("\n%onerror\n" + failed + "%end\n")
	}
	b.WriteString("\n%post --erroronfail --log=/root/ingot-post.log\n" + post + "%end\n")
	last, err := in.last()
	if err != nil {
		return "", err
	}
	b.WriteString("\n%post --nochroot --erroronfail\n" + last + "%end\n")
	return b.String(), nil
}

// general are the commands that have nothing to do with disks.
func (in *Input) general(nets network) []command {
	withProxy := func(c command) command {
		if in.Proxy != "" {
			c = append(c, opt("proxy", in.Proxy))
		}
		return c
	}
	var out []command
	if in.major >= 8 {
		out = append(out, cmd("text", "--non-interactive")) // a question ends the installation, which %onerror reports
	} else {
		out = append(out, cmd("cmdline"))
	}
	out = append(out, cmd("eula", "--agreed"), cmd("firstboot", "--disabled"), withProxy(cmd("url", opt("url", in.Tree))))
	for _, r := range in.Repos {
		out = append(out, withProxy(cmd("repo", opt("name", r.Name), opt("baseurl", r.URL), "--install")))
	}
	out = append(out, cmd("lang", in.Language), cmd("keyboard", opt("vckeymap", in.Keyboard), opt("xlayouts", in.Keyboard)))
	zone := cmd("timezone", in.Timezone, "--utc")
	if in.major >= 9 {
		out = append(out, zone)
		for _, n := range in.NTP {
			out = append(out, cmd("timesource", opt("ntp-server", n)))
		}
	} else {
		if len(in.NTP) > 0 {
			zone = append(zone, opt("ntpservers", strings.Join(in.NTP, ",")))
		}
		out = append(out, zone)
	}
	out = append(out, nets.commands...)
	user := Systems[in.OSystem]
	out = append(out, cmd("rootpw", "--lock"), cmd("user", opt("name", user), "--groups=wheel", "--lock"))
	if keys := asciiKeys(in.SSHKeys); in.major >= 8 && len(keys) > 0 { // CentOS 7 does not know the command; see post for what it lacks
		out = append(out, cmd("sshkey", opt("username", user), keys[0]))
	}
	return append(out, cmd("selinux", "--enforcing"), cmd("firewall", "--enabled", "--service=ssh"),
		cmd("services", "--enabled=sshd,cloud-init-local,cloud-init,cloud-config,cloud-final"), cmd("skipx"), cmd("reboot"))
}

// asciiKeys are the keys with comments that a kickstart can hold.
func asciiKeys(keys []string) []string {
	out := sshkey.Lines(keys)
	for i := range out {
		out[i] = strings.TrimSpace(strings.Map(func(r rune) rune {
			if r < 0x20 || r > 0x7e {
				return -1
			}
			return r
		}, out[i]))
	}
	return out
}

// packages are the lines of the package section: what the machine needs to report itself and to be looked after, then the operator's.
func (in *Input) packages() []string {
	out := []string{"@core", "cloud-init", "curl", "openssh-server", "sudo"}
	add := func(p string) {
		if !slices.Contains(out, p) {
			out = append(out, p)
		}
	}
	for _, it := range in.Storage {
		switch {
		case it.Type == api.StorageVG:
			add("lvm2")
		case it.Type == api.StorageRAID:
			add("mdadm")
		case it.FSType == "xfs":
			add("xfsprogs")
		case it.FSType == "vfat":
			add("dosfstools")
		case it.FSType == "btrfs":
			add("btrfs-progs")
		}
	}
	for _, p := range in.Packages {
		add(p)
	}
	return out
}
