package server

import (
	"context"
	"net/http"

	"github.com/ingot-metal/ingot/api"
	"github.com/ingot-metal/ingot/server/oapi"
	"github.com/ingot-metal/ingot/storage"
)

func renderSSLKey(k storage.SSLKey) api.SSLKey {
	uri := apiRoot + "account/prefs/sslkeys/" + itoa(k.ID) + "/"
	return api.SSLKey{ResourceURI: &uri, ID: k.ID, Key: k.Key}
}

// SslKeysList lists the caller's certificates.
func (s *Server) SslKeysList(ctx context.Context, _ api.SslKeysListParams) (oapi.Response, error) {
	keys, err := s.P.SSLKeys(ctx)
	if err != nil {
		return oapi.Response{}, err
	}
	return oapi.JSON(http.StatusOK, each(keys, renderSSLKey))
}

// SslKeysCreate adds a certificate. MAAS's answer has only the id and the key.
func (s *Server) SslKeysCreate(ctx context.Context, p api.SslKeysCreateParams) (oapi.Response, error) {
	k, err := s.P.AddSSLKey(ctx, p.Key)
	if err != nil {
		return oapi.Response{}, err
	}
	return oapi.JSON(http.StatusCreated, api.SSLKey{ID: k.ID, Key: k.Key})
}

// SslKeyRead reads a certificate of the caller.
func (s *Server) SslKeyRead(ctx context.Context, p api.SslKeyReadParams) (oapi.Response, error) {
	k, err := s.P.SSLKey(ctx, p.ID)
	if err != nil {
		return oapi.Response{}, err
	}
	return oapi.JSON(http.StatusOK, renderSSLKey(k))
}

// SslKeyDelete deletes a certificate of the caller.
func (s *Server) SslKeyDelete(ctx context.Context, p api.SslKeyDeleteParams) (oapi.Response, error) {
	return noContent(s.P.DeleteSSLKey(ctx, p.ID))
}

// SshKeysImport adds the keys that a user of Launchpad or GitHub has published.
func (s *Server) SshKeysImport(ctx context.Context, p api.SshKeysImportParams) (oapi.Response, error) {
	keys, err := s.P.ImportSSHKeys(ctx, p.Keysource)
	if err != nil {
		return oapi.Response{}, err
	}
	return oapi.JSON(http.StatusOK, each(keys, renderSSHKey))
}
