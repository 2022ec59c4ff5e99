package server

import (
	"context"
	"net/http"

	"github.com/ingot-metal/ingot/api"
	"github.com/ingot-metal/ingot/provisioner"
	"github.com/ingot-metal/ingot/server/oapi"
)

// SpacesList answers all spaces, and the pseudo space while some VLAN is in none.
func (s *Server) SpacesList(ctx context.Context, _ api.SpacesListParams) (oapi.Response, error) {
	c, err := s.P.Networks(ctx)
	if err != nil {
		return oapi.Response{}, err
	}
	out := each(sortedIDs(c.Spaces, all), func(id int64) api.Space { return renderSpace(c, id) })
	if u := renderSpace(c, -1); len(u.VLANs) > 0 {
		out = append(out, u)
	}
	return oapi.JSON(http.StatusOK, out)
}

// SpacesCreate makes a space.
func (s *Server) SpacesCreate(ctx context.Context, p api.SpacesCreateParams) (oapi.Response, error) {
	id, c, err := s.P.CreateSpace(ctx, provisioner.Named{Name: p.Name, Description: p.Description})
	if err != nil {
		return oapi.Response{}, err
	}
	return oapi.JSON(http.StatusOK, renderSpace(c, id))
}

// SpaceRead answers a space.
func (s *Server) SpaceRead(ctx context.Context, p api.SpaceReadParams) (oapi.Response, error) {
	c, err := s.P.Networks(ctx)
	if err != nil {
		return oapi.Response{}, err
	}
	if provisioner.IsUndefinedSpace(p.ID) {
		return oapi.JSON(http.StatusOK, renderSpace(c, -1))
	}
	x, err := provisioner.FindSpace(c, p.ID)
	if err != nil {
		return oapi.Response{}, err
	}
	return oapi.JSON(http.StatusOK, renderSpace(c, x.ID))
}

// SpaceUpdate changes a space.
func (s *Server) SpaceUpdate(ctx context.Context, p api.SpaceUpdateParams) (oapi.Response, error) {
	id, c, err := s.P.UpdateSpace(ctx, p.ID, provisioner.Named{Name: p.Name, Description: p.Description})
	if err != nil {
		return oapi.Response{}, err
	}
	return oapi.JSON(http.StatusOK, renderSpace(c, id))
}

// SpaceDelete removes a space.
func (s *Server) SpaceDelete(ctx context.Context, p api.SpaceDeleteParams) (oapi.Response, error) {
	if err := s.P.DeleteSpace(ctx, p.ID); err != nil {
		return oapi.Response{}, err
	}
	return oapi.NoContent()
}
