package server

import (
	"context"
	"net/http"

	"github.com/ingot-metal/ingot/api"
	"github.com/ingot-metal/ingot/provisioner"
	"github.com/ingot-metal/ingot/server/oapi"
)

// MaasGetConfig reads a setting.
func (s *Server) MaasGetConfig(ctx context.Context, p api.MaasGetConfigParams) (oapi.Response, error) {
	v, err := s.P.GetConfig(ctx, p.Name)
	if err != nil {
		return oapi.Response{}, err
	}
	return oapi.JSON(http.StatusOK, v)
}

// MaasSetConfig changes a setting.
func (s *Server) MaasSetConfig(ctx context.Context, p api.MaasSetConfigParams) (oapi.Response, error) {
	if err := provisioner.Need(ctx, "can_edit_configurations"); err == nil && p.Name == "" {
		return oapi.Response{}, badRequest("Invalid name: Please enter a value")
	}
	if p.Name == "" {
		return oapi.Response{}, badRequest("Invalid name: Please enter a value")
	}
	if err := s.P.SetConfig(ctx, p.Name, p.Value); err != nil {
		return oapi.Response{}, err
	}
	return oapi.Text(http.StatusOK, "OK")
}
