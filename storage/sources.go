package storage

// Where images and packages come from, and the keys that licensed systems need.

const bootSourceColumns = `id, name, url, priority, enabled, keyring_filename, keyring_data, skip_keyring_verification, created, updated`

func scanBootSource(r scanner) (b BootSource, err error) {
	err = r.Scan(&b.ID, &b.Name, &b.URL, &b.Priority, scanBool(&b.Enabled), &b.KeyringFilename, &b.KeyringData, scanBool(&b.SkipKeyringVerification),
		scanTime(&b.Created), scanTime(&b.Updated))
	return b, err
}

// InsertBootSource writes a new source and sets its ID. ErrConflict: name, URL or priority is taken.
func (tx *Tx) InsertBootSource(b *BootSource) error {
	b.Created, b.Updated = tx.Now(), tx.Now()
	return tx.get([]any{&b.ID}, `insert into boot_sources (name, url, priority, enabled, keyring_filename, keyring_data, skip_keyring_verification,
		created, updated) values ($1, $2, $3, $4, $5, $6, $7, $8, $9) returning id`,
		b.Name, b.URL, b.Priority, b.Enabled, b.KeyringFilename, b.KeyringData, b.SkipKeyringVerification, b.Created, b.Updated)
}

// UpdateBootSource writes all of a source.
func (tx *Tx) UpdateBootSource(b *BootSource) error {
	b.Updated = tx.Now()
	return tx.one(`update boot_sources set name = $2, url = $3, priority = $4, enabled = $5, keyring_filename = $6, keyring_data = $7,
		skip_keyring_verification = $8, updated = $9 where id = $1`,
		b.ID, b.Name, b.URL, b.Priority, b.Enabled, b.KeyringFilename, b.KeyringData, b.SkipKeyringVerification, b.Updated)
}

// BootSource returns a source by id.
func (tx *Tx) BootSource(id int64) (BootSource, error) {
	return row(tx, scanBootSource, `select `+bootSourceColumns+` from boot_sources where id = $1`, id)
}

// BootSources returns all sources by id.
func (tx *Tx) BootSources() ([]BootSource, error) {
	return list(tx, scanBootSource, `select `+bootSourceColumns+` from boot_sources order by id`)
}

// DeleteBootSource removes a source with its selections.
func (tx *Tx) DeleteBootSource(id int64) error {
	return tx.one(`delete from boot_sources where id = $1`, id)
}

const selectionColumns = `id, source_id, os, release, arches, subarches, labels, created, updated`

func scanSelection(r scanner) (s BootSourceSelection, err error) {
	err = r.Scan(&s.ID, &s.SourceID, &s.OS, &s.Release, scanStrings(&s.Arches), scanStrings(&s.Subarches), scanStrings(&s.Labels),
		scanTime(&s.Created), scanTime(&s.Updated))
	return s, err
}

// InsertBootSourceSelection writes a new selection and sets its ID. ErrConflict: the source has one of this release.
func (tx *Tx) InsertBootSourceSelection(s *BootSourceSelection) error {
	s.Created, s.Updated = tx.Now(), tx.Now()
	return tx.get([]any{&s.ID}, `insert into boot_source_selections (source_id, os, release, arches, subarches, labels, created, updated)
		values ($1, $2, $3, $4, $5, $6, $7, $8) returning id`,
		s.SourceID, s.OS, s.Release, s.Arches, s.Subarches, s.Labels, s.Created, s.Updated)
}

// UpdateBootSourceSelection writes all of a selection.
func (tx *Tx) UpdateBootSourceSelection(s *BootSourceSelection) error {
	s.Updated = tx.Now()
	return tx.one(`update boot_source_selections set os = $2, release = $3, arches = $4, subarches = $5, labels = $6, updated = $7 where id = $1`,
		s.ID, s.OS, s.Release, s.Arches, s.Subarches, s.Labels, s.Updated)
}

// BootSourceSelection returns a selection of a source by id.
func (tx *Tx) BootSourceSelection(sourceID, id int64) (BootSourceSelection, error) {
	return row(tx, scanSelection, `select `+selectionColumns+` from boot_source_selections where source_id = $1 and id = $2`, sourceID, id)
}

// BootSourceSelections returns the selections of a source by id.
func (tx *Tx) BootSourceSelections(sourceID int64) ([]BootSourceSelection, error) {
	return list(tx, scanSelection, `select `+selectionColumns+` from boot_source_selections where source_id = $1 order by id`, sourceID)
}

// AllBootSourceSelections returns the selections of all sources by id.
func (tx *Tx) AllBootSourceSelections() ([]BootSourceSelection, error) {
	return list(tx, scanSelection, `select `+selectionColumns+` from boot_source_selections order by id`)
}

func scanSourceState(r scanner) (s BootSourceState, err error) {
	err = r.Scan(&s.SourceID, scanTime(&s.Checked), &s.Error, scanJSON(&s.Offers))
	return s, err
}

// SetBootSourceState writes down what came of reading a source. ErrConflict or ErrNotFound: the source is gone.
func (tx *Tx) SetBootSourceState(s BootSourceState) error {
	_, err := tx.Exec(`insert into boot_source_states (source_id, checked, error, offers) values ($1, $2, $3, $4)
		on conflict (source_id) do update set checked = excluded.checked, error = excluded.error, offers = excluded.offers`,
		s.SourceID, s.Checked, s.Error, jsonArg(s.Offers, "[]"))
	return err
}

// BootSourceStates returns what is known of sources that were read.
func (tx *Tx) BootSourceStates() ([]BootSourceState, error) {
	return list(tx, scanSourceState, `select source_id, checked, error, offers from boot_source_states order by source_id`)
}

// DeleteBootSourceSelection removes a selection.
func (tx *Tx) DeleteBootSourceSelection(id int64) error {
	return tx.one(`delete from boot_source_selections where id = $1`, id)
}

const packageRepositoryColumns = `id, name, url, distributions, disabled_pockets, disabled_components, disable_sources, components, arches, key,
	is_default, enabled, created, updated`

func scanPackageRepository(r scanner) (p PackageRepository, err error) {
	err = r.Scan(&p.ID, &p.Name, &p.URL, scanStrings(&p.Distributions), scanStrings(&p.DisabledPockets), scanStrings(&p.DisabledComponents),
		scanBool(&p.DisableSources), scanStrings(&p.Components), scanStrings(&p.Arches), &p.Key, scanBool(&p.IsDefault), scanBool(&p.Enabled),
		scanTime(&p.Created), scanTime(&p.Updated))
	return p, err
}

// InsertPackageRepository writes a new repository and sets its ID. ErrConflict: the name is taken.
func (tx *Tx) InsertPackageRepository(p *PackageRepository) error {
	p.Created, p.Updated = tx.Now(), tx.Now()
	return tx.get([]any{&p.ID}, `insert into package_repositories (name, url, distributions, disabled_pockets, disabled_components, disable_sources,
		components, arches, key, is_default, enabled, created, updated) values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13) returning id`,
		p.Name, p.URL, p.Distributions, p.DisabledPockets, p.DisabledComponents, p.DisableSources, p.Components, p.Arches, p.Key,
		p.IsDefault, p.Enabled, p.Created, p.Updated)
}

// UpdatePackageRepository writes all of a repository but whether it is a default one.
func (tx *Tx) UpdatePackageRepository(p *PackageRepository) error {
	p.Updated = tx.Now()
	return tx.one(`update package_repositories set name = $2, url = $3, distributions = $4, disabled_pockets = $5, disabled_components = $6,
		disable_sources = $7, components = $8, arches = $9, key = $10, enabled = $11, updated = $12 where id = $1`,
		p.ID, p.Name, p.URL, p.Distributions, p.DisabledPockets, p.DisabledComponents, p.DisableSources, p.Components, p.Arches, p.Key,
		p.Enabled, p.Updated)
}

// PackageRepositories returns all repositories by id.
func (tx *Tx) PackageRepositories() ([]PackageRepository, error) {
	return list(tx, scanPackageRepository, `select `+packageRepositoryColumns+` from package_repositories order by id`)
}

// DefaultArchive returns one of Ubuntu's own archives, main_archive or ports_archive.
func (tx *Tx) DefaultArchive(name string) (PackageRepository, error) {
	return row(tx, scanPackageRepository, `select `+packageRepositoryColumns+` from package_repositories where name = $1 and is_default = 1`, name)
}

// DeletePackageRepository removes a repository.
func (tx *Tx) DeletePackageRepository(id int64) error {
	return tx.one(`delete from package_repositories where id = $1`, id)
}

func scanLicenseKey(r scanner) (k LicenseKey, err error) {
	err = r.Scan(&k.ID, &k.OSystem, &k.DistroSeries, &k.LicenseKey, scanTime(&k.Created), scanTime(&k.Updated))
	return k, err
}

const licenseKeyColumns = `id, osystem, distro_series, license_key, created, updated`

// InsertLicenseKey writes a new license key and sets its ID. ErrConflict: the series has one.
func (tx *Tx) InsertLicenseKey(k *LicenseKey) error {
	k.Created, k.Updated = tx.Now(), tx.Now()
	return tx.get([]any{&k.ID}, `insert into license_keys (osystem, distro_series, license_key, created, updated) values ($1, $2, $3, $4, $5) returning id`,
		k.OSystem, k.DistroSeries, k.LicenseKey, k.Created, k.Updated)
}

// UpdateLicenseKey writes the text of a license key.
func (tx *Tx) UpdateLicenseKey(k *LicenseKey) error {
	k.Updated = tx.Now()
	return tx.one(`update license_keys set license_key = $2, updated = $3 where id = $1`, k.ID, k.LicenseKey, k.Updated)
}

// LicenseKeyOf returns the license key of a series.
func (tx *Tx) LicenseKeyOf(osystem, series string) (LicenseKey, error) {
	return row(tx, scanLicenseKey, `select `+licenseKeyColumns+` from license_keys where osystem = $1 and distro_series = $2`, osystem, series)
}

// LicenseKeys returns all license keys by system and series.
func (tx *Tx) LicenseKeys() ([]LicenseKey, error) {
	return list(tx, scanLicenseKey, `select `+licenseKeyColumns+` from license_keys order by osystem, distro_series`)
}

// DeleteLicenseKey removes the license key of a series, if there is one.
func (tx *Tx) DeleteLicenseKey(osystem, series string) error {
	_, err := tx.Exec(`delete from license_keys where osystem = $1 and distro_series = $2`, osystem, series)
	return err
}
