package preseed

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// Kind is what a template's output must be.
type Kind string

// The kinds.
const (
	CloudConfig Kind = "cloud-config" // begins with #cloud-config, a YAML mapping
	Mapping     Kind = "yaml"         // a YAML mapping, laid over the built-in one
	Text        Kind = "text"         // any text
	XML         Kind = "xml"          // a well-formed document
)

// The prefixes of template names: which document one overrides.
const (
	PrefixEnlist         = "enlist"          // cloud-config of a machine that nobody knows
	PrefixCommissioning  = "commissioning"   // cloud-config of commissioning, testing, erasing, rescue
	PrefixCurtin         = "curtin"          // cloud-config of the environment that installs
	PrefixCurtinUserdata = "curtin_userdata" // curtin's configuration
	PrefixAutoinstall    = "autoinstall"     // Subiquity's document
	PrefixKickstart      = "kickstart"       // Anaconda's document
	PrefixUnattend       = "unattend"        // Windows' answer file
	generic              = "generic"         // the last name that is tried, of the prefixes that MAAS has
)

// Prefix is a document that can be overridden.
type Prefix struct {
	Name    string
	Kind    Kind
	Generic bool // the template generic stands in for it, as in MAAS
}

var prefixes = []Prefix{
	{PrefixEnlist, CloudConfig, true}, {PrefixCommissioning, CloudConfig, true}, {PrefixCurtin, CloudConfig, true}, {PrefixCurtinUserdata, Mapping, true},
	{PrefixAutoinstall, Mapping, false}, {PrefixKickstart, Text, false}, {PrefixUnattend, XML, false},
}

// Prefixes are the names of all prefixes, in order.
func Prefixes() []string {
	out := make([]string, len(prefixes))
	for i, p := range prefixes {
		out[i] = p.Name
	}
	slices.Sort(out)
	return out
}

// PrefixByName finds a prefix.
func PrefixByName(name string) (Prefix, bool) {
	i := slices.IndexFunc(prefixes, func(p Prefix) bool { return p.Name == name })
	if i < 0 {
		return Prefix{}, false
	}
	return prefixes[i], true
}

// MaxName bounds a template's name.
const MaxName = 255

var templateName = regexp.MustCompile(`^[a-z][A-Za-z0-9._+-]*$`)

// PrefixOf finds which document a template of a name overrides: the longest prefix that the name begins with. The template generic is of the
// kind that most of its prefixes have.
func PrefixOf(name string) (Prefix, error) {
	if len(name) > MaxName || !templateName.MatchString(name) {
		return Prefix{}, fmt.Errorf("a template's name has letters, digits and ._+-, at most %d", MaxName)
	}
	if name == generic {
		return Prefix{generic, CloudConfig, true}, nil
	}
	var found Prefix
	for _, p := range prefixes {
		if (name == p.Name || strings.HasPrefix(name, p.Name+"_")) && len(p.Name) > len(found.Name) {
			found = p
		}
	}
	if found.Name == "" {
		return found, fmt.Errorf("a template's name begins with what it overrides: one of %s, or it is %s", strings.Join(Prefixes(), ", "), generic)
	}
	return found, nil
}

// Target is the machine and system that a template is looked for; a machine that nobody knows has nothing but empty texts.
type Target struct {
	OSystem, Arch, Subarch, Release, Hostname string
}

// Names are the names under which a template is looked for, the first one that exists counts.
func Names(p Prefix, t Target) []string {
	parts := []string{t.OSystem}
	if t.Arch != "" {
		parts = append(parts, t.Arch, t.Subarch)
	}
	parts = append(parts, t.Release)
	if t.Hostname != "" {
		parts = append(parts, t.Hostname)
	}
	var out []string
	add := func(n string) {
		if !slices.Contains(out, n) {
			out = append(out, n)
		}
	}
	for i := len(parts); i > 0; i-- {
		add(p.Name + "_" + strings.Join(parts[:i], "_"))
		if t.OSystem == "ubuntu" && i > 1 {
			add(p.Name + "_" + strings.Join(parts[1:i], "_"))
		}
	}
	add(p.Name)
	if p.Generic {
		add(generic)
	}
	return out
}
