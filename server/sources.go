package server

import (
	"context"
	"net/http"
	"net/url"

	"github.com/ingot-metal/ingot/api"
	"github.com/ingot-metal/ingot/provisioner"
	"github.com/ingot-metal/ingot/server/oapi"
	"github.com/ingot-metal/ingot/storage"
)

func renderBootSource(b storage.BootSource) api.BootSource {
	data := b.KeyringData
	if data == nil {
		data = []byte{}
	}
	return api.BootSource{ResourceURI: apiRoot + "boot-sources/" + itoa(b.ID) + "/", ID: b.ID, Name: b.Name, URL: b.URL, Priority: b.Priority, Enabled: b.Enabled,
		KeyringFilename: b.KeyringFilename, KeyringData: data, SkipKeyringVerification: b.SkipKeyringVerification,
		Created: api.T1(b.Created), Updated: api.T1(b.Updated)}
}

func oneBootSource(status int, b storage.BootSource, err error) (oapi.Response, error) {
	if err != nil {
		return oapi.Response{}, err
	}
	return oapi.JSON(status, renderBootSource(b))
}

func fileContent(f *api.File) []byte {
	if f == nil {
		return nil
	}
	if f.Content == nil {
		return []byte{}
	}
	return f.Content
}

// BootSourcesList lists the boot sources.
func (s *Server) BootSourcesList(ctx context.Context, _ api.BootSourcesListParams) (oapi.Response, error) {
	list, err := s.P.BootSources(ctx)
	if err != nil {
		return oapi.Response{}, err
	}
	return oapi.JSON(http.StatusOK, each(list, renderBootSource))
}

// BootSourcesCreate adds a boot source.
func (s *Server) BootSourcesCreate(ctx context.Context, p api.BootSourcesCreateParams) (oapi.Response, error) {
	b, err := s.P.CreateBootSource(ctx, provisioner.BootSourceInput{Name: p.Name, URL: &p.URL, KeyringFilename: p.KeyringFilename,
		KeyringData: fileContent(p.KeyringData), Priority: p.Priority, Enabled: p.Enabled, SkipVerification: p.SkipKeyringVerification})
	return oneBootSource(http.StatusCreated, b, err)
}

// BootSourceRead answers a boot source.
func (s *Server) BootSourceRead(ctx context.Context, p api.BootSourceReadParams) (oapi.Response, error) {
	b, err := s.P.BootSource(ctx, p.ID)
	return oneBootSource(http.StatusOK, b, err)
}

// BootSourceUpdate changes a boot source.
func (s *Server) BootSourceUpdate(ctx context.Context, p api.BootSourceUpdateParams) (oapi.Response, error) {
	b, err := s.P.UpdateBootSource(ctx, p.ID, provisioner.BootSourceInput{Name: p.Name, URL: p.URL, KeyringFilename: p.KeyringFilename,
		KeyringData: fileContent(p.KeyringData), Priority: p.Priority, Enabled: p.Enabled, SkipVerification: p.SkipKeyringVerification})
	return oneBootSource(http.StatusOK, b, err)
}

// BootSourceDelete removes a boot source.
func (s *Server) BootSourceDelete(ctx context.Context, p api.BootSourceDeleteParams) (oapi.Response, error) {
	return noContent(s.P.DeleteBootSource(ctx, p.ID))
}

func renderSelection(x storage.BootSourceSelection) api.BootSourceSelection {
	return api.BootSourceSelection{ResourceURI: apiRoot + "boot-sources/" + itoa(x.SourceID) + "/selections/" + itoa(x.ID) + "/", BootSourceID: x.SourceID, ID: x.ID,
		OS: x.OS, Release: x.Release, Arches: listOf(x.Arches), Subarches: listOf(x.Subarches), Labels: listOf(x.Labels)}
}

func oneSelection(x storage.BootSourceSelection, err error) (oapi.Response, error) {
	if err != nil {
		return oapi.Response{}, err
	}
	return oapi.JSON(http.StatusOK, renderSelection(x))
}

// BootSourceSelectionsList lists the selections of a boot source.
func (s *Server) BootSourceSelectionsList(ctx context.Context, p api.BootSourceSelectionsListParams) (oapi.Response, error) {
	list, err := s.P.BootSourceSelections(ctx, p.BootSourceID)
	if err != nil {
		return oapi.Response{}, err
	}
	return oapi.JSON(http.StatusOK, each(list, renderSelection))
}

// BootSourceSelectionsCreate chooses a release of a boot source.
func (s *Server) BootSourceSelectionsCreate(ctx context.Context, p api.BootSourceSelectionsCreateParams) (oapi.Response, error) {
	return oneSelection(s.P.CreateBootSourceSelection(ctx, p.BootSourceID, provisioner.SelectionInput{OS: p.OS, Release: &p.Release,
		Arches: p.Arches, Subarches: p.Subarches, Labels: p.Labels}))
}

// BootSourceSelectionRead answers a selection.
func (s *Server) BootSourceSelectionRead(ctx context.Context, p api.BootSourceSelectionReadParams) (oapi.Response, error) {
	return oneSelection(s.P.BootSourceSelection(ctx, p.BootSourceID, p.ID))
}

// BootSourceSelectionUpdate changes a selection.
func (s *Server) BootSourceSelectionUpdate(ctx context.Context, p api.BootSourceSelectionUpdateParams) (oapi.Response, error) {
	return oneSelection(s.P.UpdateBootSourceSelection(ctx, p.BootSourceID, p.ID, provisioner.SelectionInput{OS: p.OS, Release: p.Release,
		Arches: sentList(p.Input, "arches", p.Arches), Subarches: sentList(p.Input, "subarches", p.Subarches), Labels: sentList(p.Input, "labels", p.Labels)}))
}

// BootSourceSelectionDelete removes a selection.
func (s *Server) BootSourceSelectionDelete(ctx context.Context, p api.BootSourceSelectionDeleteParams) (oapi.Response, error) {
	return noContent(s.P.DeleteBootSourceSelection(ctx, p.BootSourceID, p.ID))
}

// sentList is a list as it was sent: empty and not nil when its key came without a value.
func sentList(in api.Input, key string, list []string) []string {
	if list == nil && in.Has(key) {
		return []string{}
	}
	return list
}

func renderPackageRepository(p storage.PackageRepository) api.PackageRepository {
	return api.PackageRepository{ResourceURI: apiRoot + "package-repositories/" + itoa(p.ID) + "/", ID: p.ID, Name: p.Name, URL: p.URL,
		Distributions: listOf(p.Distributions), DisabledPockets: listOf(p.DisabledPockets), DisabledComponents: listOf(p.DisabledComponents),
		DisableSources: p.DisableSources, Components: listOf(p.Components), Arches: listOf(p.Arches), Key: p.Key, Enabled: p.Enabled}
}

func oneRepository(p storage.PackageRepository, err error) (oapi.Response, error) {
	if err != nil {
		return oapi.Response{}, err
	}
	return oapi.JSON(http.StatusOK, renderPackageRepository(p))
}

// PackageRepositoriesList lists the package repositories.
func (s *Server) PackageRepositoriesList(ctx context.Context, _ api.PackageRepositoriesListParams) (oapi.Response, error) {
	list, err := s.P.PackageRepositories(ctx)
	if err != nil {
		return oapi.Response{}, err
	}
	return oapi.JSON(http.StatusOK, each(list, renderPackageRepository))
}

// PackageRepositoriesCreate adds a package repository.
func (s *Server) PackageRepositoriesCreate(ctx context.Context, p api.PackageRepositoriesCreateParams) (oapi.Response, error) {
	return oneRepository(s.P.CreatePackageRepository(ctx, provisioner.PackageInput{Name: &p.Name, URL: &p.URL, Key: p.Key, Distributions: p.Distributions,
		DisabledPockets: p.DisabledPockets, DisabledComponents: p.DisabledComponents, Components: p.Components, Arches: p.Arches,
		DisableSources: p.DisableSources, Enabled: p.Enabled}))
}

// PackageRepositoryRead answers a package repository.
func (s *Server) PackageRepositoryRead(ctx context.Context, p api.PackageRepositoryReadParams) (oapi.Response, error) {
	return oneRepository(s.P.PackageRepository(ctx, p.ID))
}

// PackageRepositoryUpdate changes a package repository.
func (s *Server) PackageRepositoryUpdate(ctx context.Context, p api.PackageRepositoryUpdateParams) (oapi.Response, error) {
	return oneRepository(s.P.UpdatePackageRepository(ctx, p.ID, provisioner.PackageInput{Name: p.Name, URL: p.URL, Key: p.Key,
		Distributions: sentList(p.Input, "distributions", p.Distributions), DisabledPockets: sentList(p.Input, "disabled_pockets", p.DisabledPockets),
		DisabledComponents: sentList(p.Input, "disabled_components", p.DisabledComponents), Components: sentList(p.Input, "components", p.Components),
		Arches: sentList(p.Input, "arches", p.Arches), DisableSources: p.DisableSources, Enabled: p.Enabled}))
}

// PackageRepositoryDelete removes a package repository.
func (s *Server) PackageRepositoryDelete(ctx context.Context, p api.PackageRepositoryDeleteParams) (oapi.Response, error) {
	return noContent(s.P.DeletePackageRepository(ctx, p.ID))
}

func renderLicenseKey(k storage.LicenseKey) api.LicenseKey {
	return api.LicenseKey{ResourceURI: apiRoot + "license-key/" + url.PathEscape(k.OSystem) + "/" + url.PathEscape(k.DistroSeries),
		Osystem: k.OSystem, DistroSeries: k.DistroSeries, LicenseKey: k.LicenseKey}
}

func oneLicenseKey(k storage.LicenseKey, err error) (oapi.Response, error) {
	if err != nil {
		return oapi.Response{}, err
	}
	return oapi.JSON(http.StatusOK, renderLicenseKey(k))
}

// LicenseKeysList lists the license keys.
func (s *Server) LicenseKeysList(ctx context.Context, _ api.LicenseKeysListParams) (oapi.Response, error) {
	list, err := s.P.LicenseKeys(ctx)
	if err != nil {
		return oapi.Response{}, err
	}
	return oapi.JSON(http.StatusOK, each(list, renderLicenseKey))
}

// LicenseKeysCreate stores the license key of a series.
func (s *Server) LicenseKeysCreate(ctx context.Context, p api.LicenseKeysCreateParams) (oapi.Response, error) {
	return oneLicenseKey(s.P.CreateLicenseKey(ctx, provisioner.LicenseInput{OSystem: deref(p.Osystem), DistroSeries: p.DistroSeries, LicenseKey: p.LicenseKey}))
}

// LicenseKeyRead answers the license key of a series.
func (s *Server) LicenseKeyRead(ctx context.Context, p api.LicenseKeyReadParams) (oapi.Response, error) {
	return oneLicenseKey(s.P.LicenseKey(ctx, p.Osystem, p.DistroSeries))
}

// LicenseKeyUpdate changes the license key of a series.
func (s *Server) LicenseKeyUpdate(ctx context.Context, p api.LicenseKeyUpdateParams) (oapi.Response, error) {
	return oneLicenseKey(s.P.UpdateLicenseKey(ctx, p.Osystem, p.DistroSeries, p.LicenseKey))
}

// LicenseKeyDelete removes the license key of a series.
func (s *Server) LicenseKeyDelete(ctx context.Context, p api.LicenseKeyDeleteParams) (oapi.Response, error) {
	return noContent(s.P.DeleteLicenseKey(ctx, p.Osystem, p.DistroSeries))
}
