package server

import (
	"context"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/ingot-metal/ingot/api"
	"github.com/ingot-metal/ingot/provisioner"
	"github.com/ingot-metal/ingot/server/oapi"
)

// Signing in by an OpenID Connect provider is not built: no provider can be made, and so there is none to read, change or delete.

// OidcProvidersList says that there are none.
func (s *Server) OidcProvidersList(ctx context.Context, _ api.OidcProvidersListParams) (oapi.Response, error) {
	if err := provisioner.Need(ctx, "can_view_identities"); err != nil {
		return oapi.Response{}, err
	}
	return oapi.JSON(http.StatusOK, "No OIDC providers found.")
}

// OidcProvidersGetActive says that there is none.
func (s *Server) OidcProvidersGetActive(ctx context.Context, _ api.OidcProvidersGetActiveParams) (oapi.Response, error) {
	if err := provisioner.Need(ctx, "can_view_identities"); err != nil {
		return oapi.Response{}, err
	}
	return oapi.Response{}, provisioner.Errorf(provisioner.NotFound, "No enabled OIDC provider found.")
}

// OidcProvidersCreate checks the fields and answers 501.
func (s *Server) OidcProvidersCreate(ctx context.Context, p api.OidcProvidersCreateParams) (oapi.Response, error) {
	if err := provisioner.Need(ctx, "can_edit_identities"); err != nil {
		return oapi.Response{}, err
	}
	for _, choice := range []struct {
		field, value string
		of           []string
	}{
		{"token_type", p.TokenType, []string{"JWT", "Opaque"}},
		{"vendor", p.Vendor, []string{"Generic", "EntraID", "Auth0", "Keycloak"}},
	} {
		if !slices.Contains(choice.of, choice.value) {
			return oapi.Response{}, badRequest("Invalid " + choice.field + ": " + short(choice.value) + ". Must be one of: " + strings.Join(choice.of, ", ") + ".")
		}
	}
	for _, x := range []struct{ field, value string }{{"issuer_url", p.IssuerURL}, {"redirect_uri", p.RedirectURI}} {
		if u, err := url.Parse(x.value); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
			return oapi.Response{}, badRequest("Invalid " + x.field + ": it must be an http or https URL.")
		}
	}
	return oapi.Response{}, provisioner.Errorf(provisioner.Unbuilt, "Signing in by an OpenID Connect provider is not built yet; openapi/divergences.md lists what is missing.")
}

func noProvider(ctx context.Context, entitlement string, id int64) (oapi.Response, error) {
	if err := provisioner.Need(ctx, entitlement); err != nil {
		return oapi.Response{}, err
	}
	return oapi.Response{}, provisioner.Errorf(provisioner.NotFound, "No OIDC provider found with ID: %d", id)
}

// OidcProviderRead finds none.
func (s *Server) OidcProviderRead(ctx context.Context, p api.OidcProviderReadParams) (oapi.Response, error) {
	return noProvider(ctx, "can_view_identities", p.ID)
}

// OidcProviderUpdate finds none.
func (s *Server) OidcProviderUpdate(ctx context.Context, p api.OidcProviderUpdateParams) (oapi.Response, error) {
	return noProvider(ctx, "can_edit_identities", p.ID)
}

// OidcProviderDelete finds none.
func (s *Server) OidcProviderDelete(ctx context.Context, p api.OidcProviderDeleteParams) (oapi.Response, error) {
	return noProvider(ctx, "can_edit_identities", p.ID)
}

// internalOnly is the answer of operations for MAAS's built-in account, by which its regions and agents talk to each other. Here they
// use the rack link, and there is no such account.
func internalOnly() (oapi.Response, error) {
	return oapi.Response{}, &provisioner.Error{Kind: provisioner.Forbidden}
}

// AgentConfigRead is for MAAS's built-in account.
func (s *Server) AgentConfigRead(context.Context, api.AgentConfigReadParams) (oapi.Response, error) {
	return internalOnly()
}

// ImageSyncProgressRead is for MAAS's built-in account.
func (s *Server) ImageSyncProgressRead(context.Context, api.ImageSyncProgressReadParams) (oapi.Response, error) {
	return internalOnly()
}

// ImageSyncProgressUpdate is for MAAS's built-in account.
func (s *Server) ImageSyncProgressUpdate(context.Context, api.ImageSyncProgressUpdateParams) (oapi.Response, error) {
	return internalOnly()
}

// ImagesSyncProgressList is for MAAS's built-in account.
func (s *Server) ImagesSyncProgressList(context.Context, api.ImagesSyncProgressListParams) (oapi.Response, error) {
	return internalOnly()
}

// ImagesSyncProgressCreate is for MAAS's built-in account.
func (s *Server) ImagesSyncProgressCreate(context.Context, api.ImagesSyncProgressCreateParams) (oapi.Response, error) {
	return internalOnly()
}
