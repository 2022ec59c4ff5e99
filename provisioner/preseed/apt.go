package preseed

import (
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"unicode"
)

// Repository is a package repository as the API has it.
type Repository struct {
	Name, URL, Key string
	// Distributions of a repository other than Ubuntu's own; empty: the installed release.
	Distributions, Components           []string
	DisabledPockets, DisabledComponents []string // of Ubuntu's own
	DisableSources                      bool
}

type aptConfig struct {
	PreserveSourcesList bool                 `yaml:"preserve_sources_list"`
	SourcesList         string               `yaml:"sources_list,omitempty"`
	Sources             map[string]aptSource `yaml:"sources,omitempty"`
	Proxy               string               `yaml:"proxy,omitempty"`
}

type aptSource struct {
	Key    string `yaml:"key,omitempty"`
	Source string `yaml:"source,omitempty"`
}

const releaseWord = "$RELEASE" // which curtin and cloud-init replace by the installed system's

// What Ubuntu's archives have.
var (
	ubuntuComponents = []string{"main", "restricted", "universe", "multiverse"}
	ubuntuPockets    = []string{"updates", "security", "backports"}
)

const ubuntuKeyring = "/usr/share/keyrings/ubuntu-archive-keyring.gpg"

// aptWord is a field of a line of apt's sources.
var aptWord = regexp.MustCompile(`^[A-Za-z0-9$./_~][A-Za-z0-9$./_~+:-]*$`)

func aptURL(s string) (string, error) {
	u, err := url.Parse(s)
	if err != nil || !slices.Contains([]string{"http", "https", "ftp"}, u.Scheme) || u.Host == "" || strings.ContainsAny(s, "$[]#\"'<>\\") ||
		strings.ContainsFunc(s, func(r rune) bool { return unicode.IsSpace(r) || !unicode.IsPrint(r) }) {
		return "", errors.New("the URL of a package repository is not one that apt takes")
	}
	return s, nil
}

func aptWords(in []string) ([]string, error) {
	for _, w := range in {
		if !aptWord.MatchString(w) {
			return nil, fmt.Errorf("%q is not a name that apt's sources can have", w)
		}
	}
	return in, nil
}

// archiveText is apt's main list for one of Ubuntu's own archives: lines before 24.04, deb822 from then on.
func archiveText(r *Repository, deb822 bool) (string, error) {
	uri, err := aptURL(r.URL)
	if err != nil {
		return "", err
	}
	keep := func(all, without []string) []string {
		return slices.DeleteFunc(slices.Clone(all), func(s string) bool { return slices.Contains(without, s) })
	}
	components := keep(ubuntuComponents, r.DisabledComponents)
	suites := []string{releaseWord}
	for _, p := range keep(ubuntuPockets, r.DisabledPockets) {
		suites = append(suites, releaseWord+"-"+p)
	}
	types := []string{"deb"}
	if !r.DisableSources {
		types = append(types, "deb-src")
	}
	var b strings.Builder
	if deb822 {
		fmt.Fprintf(&b, "Types: %s\nURIs: %s\nSuites: %s\nComponents: %s\nSigned-By: %s\n", strings.Join(types, " "), uri, strings.Join(suites, " "),
			strings.Join(components, " "), ubuntuKeyring)
		return b.String(), nil
	}
	for _, s := range suites {
		for _, t := range types {
			fmt.Fprintf(&b, "%s %s %s %s\n", t, uri, s, strings.Join(components, " "))
		}
	}
	return b.String(), nil
}

var notFileName = regexp.MustCompile(`[^A-Za-z0-9_-]+`)

// repositories are the entries of apt's sources for all but Ubuntu's own archives, named as files can be.
func repositories(list []Repository) (map[string]aptSource, error) {
	out := map[string]aptSource{}
	add := func(name string, s aptSource) {
		base := strings.Trim(notFileName.ReplaceAllString(name, "_"), "_")
		if base == "" {
			base = "repository"
		}
		key := base
		for i := 2; out[key] != (aptSource{}); i++ {
			key = fmt.Sprintf("%s_%d", base, i)
		}
		out[key] = s
	}
	for _, r := range list {
		if strings.HasPrefix(r.URL, "ppa:") {
			if _, err := aptWords([]string{r.URL}); err != nil {
				return nil, err
			}
			add(r.Name, aptSource{r.Key, r.URL})
			continue
		}
		uri, err := aptURL(r.URL)
		if err != nil {
			return nil, fmt.Errorf("package repository %q: %w", r.Name, err)
		}
		suites, err := aptWords(r.Distributions)
		if err == nil {
			_, err = aptWords(r.Components)
		}
		if err != nil {
			return nil, fmt.Errorf("package repository %q: %w", r.Name, err)
		}
		if len(suites) == 0 {
			suites = []string{releaseWord}
		}
		components := r.Components
		if len(components) == 0 && !strings.HasSuffix(suites[0], "/") {
			components = []string{"main"}
		}
		for i, suite := range suites {
			name := r.Name
			if i > 0 {
				name += "_" + suite
			}
			words := strings.Join(append([]string{uri, suite}, components...), " ")
			add(name, aptSource{r.Key, "deb " + words})
			if !r.DisableSources {
				add(name+"_src", aptSource{r.Key, "deb-src " + words})
			}
		}
	}
	return out, nil
}

// apt is the configuration of a system of Debian's family; nil for others. Only Ubuntu gets Ubuntu's archive.
func (c *Curtin) apt(osystem, series string) (*aptConfig, error) {
	if osystem != "ubuntu" && osystem != "debian" {
		return nil, nil
	}
	a := &aptConfig{Proxy: c.Proxy, PreserveSourcesList: true}
	var err error
	if a.Sources, err = repositories(c.Repositories); err != nil {
		return nil, err
	}
	if osystem == "ubuntu" && c.Archive != nil {
		a.PreserveSourcesList = false
		if a.SourcesList, err = archiveText(c.Archive, ubuntuSince(series, noble)); err != nil {
			return nil, err
		}
		if c.Archive.Key != "" {
			a.Sources[c.Archive.Name] = aptSource{Key: c.Archive.Key}
		}
	}
	return a, nil
}
