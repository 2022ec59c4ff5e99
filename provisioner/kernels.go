package provisioner

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/ingot-metal/ingot/storage"
)

// Kernels of Ubuntu are named [platform-](ga|hwe|hwe-edge)-release[-flavour][-edge]. A machine has a least one (min_hwe_kernel), and a
// deployment may ask for one (hwe_kernel); without, the first one is taken that is new enough. Here is their grammar, their order and
// the choice.

// ubuntuReleases are Ubuntu's releases in order: the code name and the version.
var ubuntuReleases = []struct{ name, version string }{
	{"precise", "12.04"}, {"quantal", "12.10"}, {"raring", "13.04"}, {"saucy", "13.10"}, {"trusty", "14.04"}, {"utopic", "14.10"}, {"vivid", "15.04"},
	{"wily", "15.10"}, {"xenial", "16.04"}, {"yakkety", "16.10"}, {"zesty", "17.04"}, {"artful", "17.10"}, {"bionic", "18.04"}, {"cosmic", "18.10"},
	{"disco", "19.04"}, {"eoan", "19.10"}, {"focal", "20.04"}, {"groovy", "20.10"}, {"hirsute", "21.04"}, {"impish", "21.10"}, {"jammy", "22.04"},
	{"kinetic", "22.10"}, {"lunar", "23.04"}, {"mantic", "23.10"}, {"noble", "24.04"}, {"oracular", "24.10"}, {"plucky", "25.04"}, {"questing", "25.10"},
	{"resolute", "26.04"},
}

// kernelName is a kernel's name, taken apart.
type kernelName struct {
	platform    string // generic when the name has none
	channel     string // ga, hwe, or "" of a bare platform or release
	year, month int    // of the release; 999, 999 of the rolling one
	flavor      string // generic when the name has none
	edge        bool
	letter      bool // hwe-t
	release     bool // the name is nothing but a release
}

var (
	kernelWord     = regexp.MustCompile(`^[a-z0-9][a-z0-9.-]{0,62}$`)
	releaseVersion = regexp.MustCompile(`^([0-9]{1,2})\.([0-9]{2})$`)
)

const rollingRelease = 999

// releaseNumber finds the year and month of a release by its version or code name.
func releaseNumber(text string) (year, month int, ok bool) {
	if text == "rolling" {
		return rollingRelease, rollingRelease, true
	}
	for _, r := range ubuntuReleases {
		if r.name == text {
			text = r.version
		}
	}
	m := releaseVersion.FindStringSubmatch(text)
	if m == nil {
		return 0, 0, false
	}
	year, _ = strconv.Atoi(m[1]) // two digits
	month, _ = strconv.Atoi(m[2])
	return year, month, true
}

// parseKernel takes a kernel's name apart; ok is false for what is none.
func parseKernel(text string) (k kernelName, ok bool) {
	if !kernelWord.MatchString(text) || strings.HasSuffix(text, "-") || strings.Contains(text, "--") {
		return k, false
	}
	k.platform, k.flavor = "generic", "generic"
	words := strings.Split(text, "-")
	at := slices.IndexFunc(words, func(w string) bool { return w == "ga" || w == "hwe" })
	if at < 0 {
		if k.year, k.month, k.release = releaseNumber(text); !k.release {
			k.platform = text
		}
		return k, true
	}
	k.channel = words[at]
	if at > 0 {
		k.platform = strings.Join(words[:at], "-")
	}
	rest := words[at+1:]
	if k.channel == "hwe" && len(rest) > 1 && rest[0] == "edge" {
		k.edge, rest = true, rest[1:]
	}
	if len(rest) == 0 {
		return k, false
	}
	if k.channel == "hwe" && len(rest[0]) == 1 && rest[0] >= "p" && rest[0] <= "x" {
		// From before there were other names: the release's first letter.
		i := slices.IndexFunc(ubuntuReleases, func(r struct{ name, version string }) bool { return r.name[:1] == rest[0] })
		k.year, k.month, _ = releaseNumber(ubuntuReleases[i].name)
		k.letter = true
		return k, len(rest) == 1
	}
	if k.year, k.month, ok = releaseNumber(rest[0]); !ok {
		return k, false
	}
	rest = rest[1:]
	if n := len(rest); n > 0 && rest[n-1] == "edge" {
		k.edge, rest = true, rest[:n-1]
	}
	if len(rest) > 0 {
		k.flavor = strings.Join(rest, "-")
	}
	return k, true
}

// weight orders kernels of one release.
func (k kernelName) weight() int {
	w := 0
	switch {
	case k.channel == "hwe" && k.letter:
		w += 1_000
	case k.channel == "hwe" && k.edge:
		w += 10_000_000
	case k.channel == "hwe":
		w += 1_000_000
	}
	if k.platform != "generic" {
		w += 100_000
	}
	if !k.release && !k.letter {
		w += 10_000
	}
	if k.flavor != "generic" {
		w += 10
	}
	return w
}

func compareKernels(a, b kernelName) int {
	return cmp.Or(cmp.Compare(a.year, b.year), cmp.Compare(a.month, b.month), cmp.Compare(a.weight(), b.weight()))
}

// sameKernel says whether two names mean one kernel: hwe-edge-22.04 and hwe-22.04-edge do.
func sameKernel(a, b string) bool {
	x, ok := parseKernel(a)
	y, too := parseKernel(b)
	return a == b || ok && too && x == y
}

// atLeast says whether a kernel is as new as another one, or as a release.
func atLeast(kernel, than string) bool {
	a, ok := parseKernel(kernel)
	b, too := parseKernel(than)
	return ok && too && compareKernels(a, b) >= 0
}

// usableKernels are the kernels that an image of a system has for a machine's architecture: those for its platform first, then the
// generic ones, each from the oldest on. flavor narrows them unless it is empty.
func usableKernels(all []storage.Kernel, name, architecture, flavor string) []string {
	arch, platform, _ := strings.Cut(architecture, "/")
	type candidate struct {
		name   string
		kernel kernelName
		rank   int
	}
	var found []candidate
	for _, k := range all {
		a, sub, _ := strings.Cut(k.Architecture, "/")
		n, ok := parseKernel(sub)
		if k.Name != name || a != arch || !ok || flavor != "" && n.flavor != flavor {
			continue
		}
		c := candidate{name: sub, kernel: n}
		switch {
		case n.platform == "generic":
			c.rank = 2
		case n.platform == platform:
		case n.platform == platform+"-generic":
			c.rank = 1
		default:
			continue // for other machines
		}
		found = append(found, c)
	}
	slices.SortStableFunc(found, func(a, b candidate) int {
		return cmp.Or(cmp.Compare(a.rank, b.rank), compareKernels(a.kernel, b.kernel), strings.Compare(a.name, b.name))
	})
	out := make([]string, 0, len(found))
	for _, c := range found {
		out = append(out, c.name)
	}
	return out
}

// pickKernel chooses among the kernels that there are for a system: the one that is asked for, or the first that is new enough. It
// returns what is wrong as a sentence.
func pickKernel(all []storage.Kernel, name, architecture, requested, least string) (kernel, refusal string) {
	_, series, _ := strings.Cut(name, "/")
	if requested != "" {
		found := ""
		if k, ok := parseKernel(requested); ok && k.channel != "" {
			for _, u := range usableKernels(all, name, architecture, "") {
				if sameKernel(u, requested) {
					found = u
				}
			}
		}
		switch {
		case found == "":
			return "", fmt.Sprintf("%s is not available for %s on %s.", requested, name, architecture)
		case !atLeast(found, series):
			return "", fmt.Sprintf("%s is too old to use on %s.", requested, name)
		case least != "" && !atLeast(found, least):
			return "", fmt.Sprintf("hwe_kernel(%s) is older than min_hwe_kernel(%s).", requested, least)
		}
		return found, ""
	}
	flavor := "generic"
	if k, ok := parseKernel(least); ok && least != "" && len(usableKernels(all, name, architecture, k.flavor)) > 0 {
		flavor = k.flavor
	}
	for _, u := range usableKernels(all, name, architecture, flavor) {
		if atLeast(u, series) && (least == "" || atLeast(u, least)) {
			return u, ""
		}
	}
	if least != "" {
		return "", fmt.Sprintf("%s has no kernels available which meet min_hwe_kernel(%s).", series, least)
	}
	return "", fmt.Sprintf("%s has no kernels available.", series)
}

// chooseKernel finds the kernel that a deployment of an image gets, "" for an image that brings its own. What is asked for beside a
// system that is not Ubuntu is held to the system that machines are commissioned with, or that the image is made of.
func (s *Service) chooseKernel(tx *storage.Tx, n *storage.Node, image storage.Image, requested string) (string, error) {
	all, err := tx.Kernels()
	if err != nil {
		return "", err
	}
	name := image.Name
	if !strings.HasPrefix(name, "ubuntu/") {
		if requested == "" {
			return "", nil
		}
		if name = extraString(image.Extra, "base_image"); !strings.HasPrefix(name, "ubuntu/") {
			if name, err = s.commissioningSystem(tx); err != nil {
				return "", err
			}
		}
		if len(usableKernels(all, name, n.Architecture, "")) == 0 {
			return "", FieldError("hwe_kernel", "%s is not available for %s on %s.", requested, image.Name, n.Architecture)
		}
	}
	if requested == "" && n.MinHWEKernel == "" && len(usableKernels(all, name, n.Architecture, "")) == 0 {
		return "", nil // imported without kernels
	}
	kernel, refusal := pickKernel(all, name, n.Architecture, requested, n.MinHWEKernel)
	if refusal != "" {
		return "", FieldError("hwe_kernel", "%s", refusal)
	}
	return kernel, nil
}

// commissioningSystem is the system that the environment "ubuntu" boots.
func (s *Service) commissioningSystem(tx *storage.Tx) (string, error) {
	osystem, err := s.settingText(tx, "commissioning_osystem", "ubuntu")
	if err != nil {
		return "", err
	}
	series, err := s.settingText(tx, "commissioning_distro_series", latestSeries)
	return osystem + "/" + series, err
}

// checkCommissioningKernel refuses to commission a machine whose least kernel the commissioning system does not have, where it is that
// system that will be booted.
func (s *Service) checkCommissioningKernel(tx *storage.Tx, n *storage.Node, environment string) error {
	if environment != "ubuntu" {
		return nil
	}
	all, err := tx.Kernels()
	if err != nil {
		return err
	}
	name, err := s.commissioningSystem(tx)
	if err != nil {
		return err
	}
	least := n.MinHWEKernel
	if least == "" {
		if least, err = s.settingText(tx, "default_min_hwe_kernel", ""); err != nil {
			return err
		}
	}
	if _, refusal := pickKernel(all, name, n.Architecture, "", least); refusal != "" {
		return FieldError("min_hwe_kernel", "%s", refusal)
	}
	return nil
}

// checkMinKernel refuses a least kernel that is no kernel's name.
func checkMinKernel(f form, text *string) {
	if text == nil || *text == "" {
		return
	}
	if k, ok := parseKernel(*text); !ok || k.channel == "" {
		f.add("min_hwe_kernel", "'%s' is not the name of a kernel: it looks like ga-24.04 or hwe-24.04-lowlatency.", firstRunes(*text, 64))
	}
}

// kernelPackage is the package of the kernel that a machine is being deployed with, as its stream names it; "" when the system
// brings its kernel, or the installer's usual one will do.
func kernelPackage(tx *storage.Tx, n *storage.Node) (string, error) {
	if n.Osystem != "ubuntu" || n.HWEKernel == "" {
		return "", nil
	}
	all, err := tx.Kernels()
	if err != nil {
		return "", err
	}
	for _, k := range all {
		_, sub, _ := strings.Cut(k.Architecture, "/")
		arch, _, _ := strings.Cut(k.Architecture, "/")
		if k.Name != n.Osystem+"/"+n.DistroSeries || arch != archOf(n) || sub != n.HWEKernel {
			continue
		}
		if name, ok := parseKernel(sub); ok && name.year == rollingRelease {
			edge := ""
			if name.edge {
				edge = "-edge"
			}
			return "linux-" + name.flavor + "-hwe-rolling" + edge, nil
		}
		return extraString(k.FileExtra, "kpackage"), nil
	}
	return "", nil
}
