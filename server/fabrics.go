package server

import (
	"context"
	"net/http"

	"github.com/ingot-metal/ingot/api"
	"github.com/ingot-metal/ingot/provisioner"
	"github.com/ingot-metal/ingot/server/oapi"
)

func all[T any](*T) bool { return true }

// FabricsList answers all fabrics with their VLANs.
func (s *Server) FabricsList(ctx context.Context, _ api.FabricsListParams) (oapi.Response, error) {
	c, err := s.P.Networks(ctx)
	if err != nil {
		return oapi.Response{}, err
	}
	return oapi.JSON(http.StatusOK, each(sortedIDs(c.Fabrics, all), func(id int64) api.Fabric { return renderFabric(c, id) }))
}

// FabricsCreate makes a fabric.
func (s *Server) FabricsCreate(ctx context.Context, p api.FabricsCreateParams) (oapi.Response, error) {
	id, c, err := s.P.CreateFabric(ctx, provisioner.FabricInput{Name: p.Name, Description: p.Description, ClassType: p.ClassType})
	if err != nil {
		return oapi.Response{}, err
	}
	return oapi.JSON(http.StatusOK, renderFabric(c, id))
}

// FabricRead answers a fabric.
func (s *Server) FabricRead(ctx context.Context, p api.FabricReadParams) (oapi.Response, error) {
	c, err := s.P.Networks(ctx)
	if err != nil {
		return oapi.Response{}, err
	}
	f, err := provisioner.FindFabric(c, p.ID)
	if err != nil {
		return oapi.Response{}, err
	}
	return oapi.JSON(http.StatusOK, renderFabric(c, f.ID))
}

// FabricUpdate changes a fabric.
func (s *Server) FabricUpdate(ctx context.Context, p api.FabricUpdateParams) (oapi.Response, error) {
	id, c, err := s.P.UpdateFabric(ctx, p.ID, provisioner.FabricInput{Name: p.Name, Description: p.Description, ClassType: p.ClassType})
	if err != nil {
		return oapi.Response{}, err
	}
	return oapi.JSON(http.StatusOK, renderFabric(c, id))
}

// FabricDelete removes a fabric.
func (s *Server) FabricDelete(ctx context.Context, p api.FabricDeleteParams) (oapi.Response, error) {
	if err := s.P.DeleteFabric(ctx, p.ID); err != nil {
		return oapi.Response{}, err
	}
	return oapi.NoContent()
}
