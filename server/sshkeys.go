package server

import (
	"context"
	"fmt"
	"net/http"

	"github.com/ingot-metal/ingot/api"
	"github.com/ingot-metal/ingot/server/oapi"
	"github.com/ingot-metal/ingot/storage"
)

func renderSSHKey(k storage.SSHKey) api.SSHKey {
	uri := fmt.Sprintf("/MAAS/api/2.0/account/prefs/sshkeys/%d/", k.ID)
	return api.SSHKey{ResourceURI: &uri, ID: k.ID, Key: k.Key, Keysource: &k.Source}
}

// SshKeysList lists the caller's SSH keys.
func (s *Server) SshKeysList(ctx context.Context, _ api.SshKeysListParams) (oapi.Response, error) {
	keys, err := s.P.SSHKeys(ctx)
	if err != nil {
		return oapi.Response{}, err
	}
	out := make([]api.SSHKey, 0, len(keys))
	for _, k := range keys {
		out = append(out, renderSSHKey(k))
	}
	return oapi.JSON(http.StatusOK, out)
}

// SshKeysCreate adds an SSH key. MAAS's answer has only the id and the key.
func (s *Server) SshKeysCreate(ctx context.Context, p api.SshKeysCreateParams) (oapi.Response, error) {
	user := ""
	if p.User != nil {
		user = *p.User
	}
	k, err := s.P.AddSSHKey(ctx, p.Key, user)
	if err != nil {
		return oapi.Response{}, err
	}
	return oapi.JSON(http.StatusCreated, api.SSHKey{ID: k.ID, Key: k.Key})
}

// SshKeyRead reads an SSH key.
func (s *Server) SshKeyRead(ctx context.Context, p api.SshKeyReadParams) (oapi.Response, error) {
	k, err := s.P.SSHKey(ctx, p.ID)
	if err != nil {
		return oapi.Response{}, err
	}
	return oapi.JSON(http.StatusOK, renderSSHKey(k))
}

// SshKeyDelete deletes an SSH key of the caller.
func (s *Server) SshKeyDelete(ctx context.Context, p api.SshKeyDeleteParams) (oapi.Response, error) {
	if err := s.P.DeleteSSHKey(ctx, p.ID); err != nil {
		return oapi.Response{}, err
	}
	return oapi.NoContent()
}
