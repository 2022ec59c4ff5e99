package provisioner

import (
	"context"
	"errors"
	"regexp"
	"slices"
	"strings"
	"unicode"

	"github.com/ingot-metal/ingot/storage"
)

// Where packages come from, and the license keys of systems that need one.

// PackageInput is what a request says of a package repository: nil leaves a field as it is.
type PackageInput struct {
	Name, URL, Key                                                         *string
	Distributions, DisabledPockets, DisabledComponents, Components, Arches []string
	DisableSources, Enabled                                                *bool
}

var (
	packageArches     = []string{"amd64", "i386", "armhf", "arm64", "ppc64el", "s390x", "riscv64"}
	mainArches        = []string{"amd64", "i386"}
	archivePockets    = []string{"updates", "security", "backports"}
	archiveComponents = []string{"restricted", "universe", "multiverse"}

	ppaURL      = regexp.MustCompile(`^ppa:[a-z0-9][a-z0-9+.-]*/[a-z0-9][a-z0-9+.-]*$`)
	packageWord = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9+._/-]*$`)
)

// repositoryName is a name that becomes the name of a file on machines.
var repositoryName = regexp.MustCompile(`^[\p{L}\p{N}_][\p{L}\p{N}_ ./:+-]*$`)

func (in PackageInput) apply(p *storage.PackageRepository) error {
	f := form{}
	p.Name, p.URL, p.Key = deref(in.Name, p.Name), strings.TrimSpace(deref(in.URL, p.URL)), deref(in.Key, p.Key)
	p.DisableSources, p.Enabled = deref(in.DisableSources, p.DisableSources), deref(in.Enabled, p.Enabled)
	if p.Name == "" {
		f.add("name", msgRequired)
	}
	f.text("name", p.Name, 41, repositoryName)
	switch {
	case p.URL == "":
		f.add("url", msgRequired)
	case !webURL(p.URL, "http", "https", "ftp") && !ppaURL.MatchString(p.URL):
		f.add("url", "Enter a valid repository URL or PPA location.")
	}
	if len(p.Key) > descriptionLimit || strings.ContainsFunc(p.Key, func(r rune) bool { return unicode.IsControl(r) && !strings.ContainsRune("\n\r\t", r) }) {
		f.add("key", msgInvalid)
	}
	for _, l := range []struct {
		field, text string
		sent        []string
		kept        *[]string
		known       []string
		refuse      string // the list has no meaning for this kind of repository
	}{
		{"distributions", "", in.Distributions, &p.Distributions, nil, ""},
		{"disabled_pockets", "'%s' is not a valid Ubuntu archive pocket. Known pockets: %s.", in.DisabledPockets, &p.DisabledPockets, archivePockets, ""},
		{"disabled_components", "'%s' is not a valid Ubuntu archive component. Known components: %s.", in.DisabledComponents, &p.DisabledComponents, archiveComponents,
			pick2(p.IsDefault, "", "This is a custom repository. Please update 'components' instead.")},
		{"components", "", in.Components, &p.Components, nil, pick2(p.IsDefault, "This is a default Ubuntu repository. Please update 'disabled_components' instead.", "")},
		{"arches", "'%s' is not a valid architecture. Known architectures: %s.", in.Arches, &p.Arches, packageArches, ""},
	} {
		if l.sent == nil {
			continue
		}
		words := splitList(l.sent)
		if l.refuse != "" && len(words) > 0 {
			f.add(l.field, l.refuse)
			continue
		}
		for _, w := range words {
			if l.known != nil && !slices.Contains(l.known, w) {
				f.add(l.field, l.text, firstRunes(w, 50), strings.Join(l.known, ", "))
			} else if !packageWord.MatchString(w) || len(w) > 255 {
				f.add(l.field, msgInvalid)
			}
		}
		*l.kept = words
	}
	if len(p.Arches) == 0 {
		p.Arches = slices.Clone(mainArches)
	}
	if p.IsDefault && !p.Enabled {
		f.add("__all__", "Default repositories may not be disabled.")
	}
	return f.err()
}

func pick2(yes bool, a, b string) string {
	if yes {
		return a
	}
	return b
}

func findRepository(tx *storage.Tx, spec string) (storage.PackageRepository, error) {
	all, err := tx.PackageRepositories()
	if err != nil {
		return storage.PackageRepository{}, err
	}
	p, ok := findByIDOrName(all, spec, func(p storage.PackageRepository) (int64, string) { return p.ID, p.Name })
	if !ok {
		return p, noMatch("PackageRepository")
	}
	return p, nil
}

// PackageRepositories lists the repositories by id.
func (s *Service) PackageRepositories(ctx context.Context) (out []storage.PackageRepository, err error) {
	if _, err := needUser(ctx); err != nil {
		return nil, err
	}
	err = s.DB.Read(ctx, func(tx *storage.Tx) (err error) { out, err = tx.PackageRepositories(); return err })
	return out, err
}

// PackageRepository reads a repository by id or name.
func (s *Service) PackageRepository(ctx context.Context, spec string) (p storage.PackageRepository, err error) {
	if _, err := needUser(ctx); err != nil {
		return p, err
	}
	err = s.DB.Read(ctx, func(tx *storage.Tx) (err error) { p, err = findRepository(tx, spec); return err })
	return p, err
}

// CreatePackageRepository adds a repository.
func (s *Service) CreatePackageRepository(ctx context.Context, in PackageInput) (p storage.PackageRepository, err error) {
	a, err := needPermission(ctx, "can_edit_global_entities")
	if err != nil {
		return p, err
	}
	err = s.DB.Write(ctx, func(tx *storage.Tx) error {
		p = storage.PackageRepository{Enabled: true, DisableSources: true}
		if err := in.apply(&p); err != nil {
			return err
		}
		if err := taken("Package repository", "name", "Name", tx.InsertPackageRepository(&p)); err != nil {
			return err
		}
		return s.audit(tx, a, "SETTINGS", "Created package repository '%s'.", p.Name)
	})
	return p, err
}

// UpdatePackageRepository changes a repository.
func (s *Service) UpdatePackageRepository(ctx context.Context, spec string, in PackageInput) (p storage.PackageRepository, err error) {
	a, err := needPermission(ctx, "can_edit_global_entities")
	if err != nil {
		return p, err
	}
	err = s.DB.Write(ctx, func(tx *storage.Tx) error {
		if p, err = findRepository(tx, spec); err != nil {
			return err
		}
		old := p.Name
		if err := in.apply(&p); err != nil {
			return err
		}
		if p.IsDefault && p.Name != old {
			return FieldError("name", "The default repositories cannot be renamed.")
		}
		if err := taken("Package repository", "name", "Name", tx.UpdatePackageRepository(&p)); err != nil {
			return err
		}
		return s.audit(tx, a, "SETTINGS", "Updated package repository '%s'.", p.Name)
	})
	return p, err
}

// DeletePackageRepository removes a repository that is none of Ubuntu's own.
func (s *Service) DeletePackageRepository(ctx context.Context, spec string) error {
	a, err := needPermission(ctx, "can_edit_global_entities")
	if err != nil {
		return err
	}
	return s.DB.Write(ctx, func(tx *storage.Tx) error {
		p, err := findRepository(tx, spec)
		if err != nil {
			return err
		}
		if p.IsDefault {
			return Errorf(Invalid, "Default package repositories cannot be deleted.")
		}
		if err := tx.DeletePackageRepository(p.ID); err != nil {
			return err
		}
		return s.audit(tx, a, "SETTINGS", "Deleted package repository '%s'.", p.Name)
	})
}

// License keys ------------------------------------------------------------------------------------------------------------------

// licensedSystems are the systems that need a license key, with what a key looks like.
var licensedSystems = map[string]*regexp.Regexp{"windows": regexp.MustCompile(`^([A-Za-z0-9]{5}-){4}[A-Za-z0-9]{5}$`)}

var seriesWord = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,63}$`)

// LicenseInput is a license key as requests give it; the series may name its system: windows/win2019.
type LicenseInput struct{ OSystem, DistroSeries, LicenseKey string }

func (in LicenseInput) check() (k storage.LicenseKey, err error) {
	k = storage.LicenseKey{OSystem: in.OSystem, DistroSeries: in.DistroSeries, LicenseKey: strings.TrimSpace(in.LicenseKey)}
	if os, series, ok := strings.Cut(k.DistroSeries, "/"); ok {
		if k.OSystem == "" {
			k.OSystem = os
		}
		if k.OSystem != os {
			return k, FieldError("distro_series", "%s in distro_series does not match with osystem %s.", firstRunes(in.DistroSeries, 80), firstRunes(k.OSystem, 40))
		}
		k.DistroSeries = series
	}
	k.DistroSeries = strings.TrimSuffix(k.DistroSeries, "*") // as lists of releases mark those that need a key
	f := form{}
	pattern := licensedSystems[k.OSystem]
	switch {
	case k.OSystem == "":
		f.add("osystem", msgRequired)
	case pattern == nil:
		f.add("osystem", msgChoice(firstRunes(k.OSystem, 50)))
	}
	switch {
	case k.DistroSeries == "":
		f.add("distro_series", msgRequired)
	case !seriesWord.MatchString(k.DistroSeries):
		f.add("distro_series", msgChoice(firstRunes(k.DistroSeries, 50)))
	}
	switch {
	case k.LicenseKey == "":
		f.add("license_key", msgRequired)
	case pattern != nil && !pattern.MatchString(k.LicenseKey):
		f.add("__all__", "Invalid license key.")
	}
	return k, f.err()
}

// LicenseKeys lists all license keys.
func (s *Service) LicenseKeys(ctx context.Context) (out []storage.LicenseKey, err error) {
	if _, err := needPermission(ctx, "can_view_license_keys"); err != nil {
		return nil, err
	}
	err = s.DB.Read(ctx, func(tx *storage.Tx) (err error) { out, err = tx.LicenseKeys(); return err })
	return out, err
}

// LicenseKey reads the license key of a series.
func (s *Service) LicenseKey(ctx context.Context, osystem, series string) (k storage.LicenseKey, err error) {
	if _, err := needPermission(ctx, "can_view_license_keys"); err != nil {
		return k, err
	}
	err = s.DB.Read(ctx, func(tx *storage.Tx) (err error) {
		k, err = tx.LicenseKeyOf(osystem, series)
		return found("LicenseKey", err)
	})
	return k, err
}

// CreateLicenseKey stores the license key of a series. It is a secret: events do not hold it.
func (s *Service) CreateLicenseKey(ctx context.Context, in LicenseInput) (k storage.LicenseKey, err error) {
	a, err := needPermission(ctx, "can_edit_license_keys")
	if err != nil {
		return k, err
	}
	if k, err = in.check(); err != nil {
		return k, err
	}
	err = s.DB.Write(ctx, func(tx *storage.Tx) error {
		k.ID = 0
		if err := tx.InsertLicenseKey(&k); errors.Is(err, storage.ErrConflict) {
			return FieldError("__all__", "License key with this operating system and distro series already exists.")
		} else if err != nil {
			return err
		}
		return s.audit(tx, a, "SETTINGS", "Created license key for '%s/%s'.", k.OSystem, k.DistroSeries)
	})
	return k, err
}

// UpdateLicenseKey changes the license key of a series; nil leaves it.
func (s *Service) UpdateLicenseKey(ctx context.Context, osystem, series string, key *string) (k storage.LicenseKey, err error) {
	a, err := needPermission(ctx, "can_edit_license_keys")
	if err != nil {
		return k, err
	}
	err = s.DB.Write(ctx, func(tx *storage.Tx) error {
		if k, err = tx.LicenseKeyOf(osystem, series); err != nil {
			return found("LicenseKey", err)
		}
		if key == nil {
			return nil
		}
		fresh, err := LicenseInput{k.OSystem, k.DistroSeries, *key}.check()
		if err != nil {
			return err
		}
		k.LicenseKey = fresh.LicenseKey
		if err := tx.UpdateLicenseKey(&k); err != nil {
			return err
		}
		return s.audit(tx, a, "SETTINGS", "Updated license key for '%s/%s'.", k.OSystem, k.DistroSeries)
	})
	return k, err
}

// DeleteLicenseKey removes the license key of a series; an unknown one is no error.
func (s *Service) DeleteLicenseKey(ctx context.Context, osystem, series string) error {
	a, err := needPermission(ctx, "can_edit_license_keys")
	if err != nil {
		return err
	}
	return s.DB.Write(ctx, func(tx *storage.Tx) error {
		if _, err := tx.LicenseKeyOf(osystem, series); isNotFound(err) {
			return nil
		} else if err != nil {
			return err
		}
		if err := tx.DeleteLicenseKey(osystem, series); err != nil {
			return err
		}
		return s.audit(tx, a, "SETTINGS", "Deleted license key for '%s/%s'.", osystem, series)
	})
}
