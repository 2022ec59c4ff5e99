package server

import (
	"context"
	"net/http"

	"github.com/ingot-metal/ingot/api"
	"github.com/ingot-metal/ingot/provisioner"
	"github.com/ingot-metal/ingot/server/oapi"
)

// ResourcePoolsList answers all pools.
func (s *Server) ResourcePoolsList(ctx context.Context, _ api.ResourcePoolsListParams) (oapi.Response, error) {
	pools, err := s.P.Pools(ctx)
	if err != nil {
		return oapi.Response{}, err
	}
	return oapi.JSON(http.StatusOK, each(pools, renderPool))
}

// ResourcePoolsCreate makes a pool.
func (s *Server) ResourcePoolsCreate(ctx context.Context, p api.ResourcePoolsCreateParams) (oapi.Response, error) {
	x, err := s.P.CreatePool(ctx, provisioner.Named{Name: &p.Name, Description: p.Description})
	if err != nil {
		return oapi.Response{}, err
	}
	return oapi.JSON(http.StatusOK, renderPool(x))
}

// ResourcePoolRead answers a pool.
func (s *Server) ResourcePoolRead(ctx context.Context, p api.ResourcePoolReadParams) (oapi.Response, error) {
	x, err := s.P.Pool(ctx, p.ID)
	if err != nil {
		return oapi.Response{}, err
	}
	return oapi.JSON(http.StatusOK, renderPool(x))
}

// ResourcePoolUpdate changes a pool.
func (s *Server) ResourcePoolUpdate(ctx context.Context, p api.ResourcePoolUpdateParams) (oapi.Response, error) {
	x, err := s.P.UpdatePool(ctx, p.ID, provisioner.Named{Name: p.Name, Description: p.Description})
	if err != nil {
		return oapi.Response{}, err
	}
	return oapi.JSON(http.StatusOK, renderPool(x))
}

// ResourcePoolDelete removes a pool.
func (s *Server) ResourcePoolDelete(ctx context.Context, p api.ResourcePoolDeleteParams) (oapi.Response, error) {
	if err := s.P.DeletePool(ctx, p.ID); err != nil {
		return oapi.Response{}, err
	}
	return oapi.NoContent()
}
