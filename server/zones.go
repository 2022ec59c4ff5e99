package server

import (
	"context"
	"net/http"

	"github.com/ingot-metal/ingot/api"
	"github.com/ingot-metal/ingot/provisioner"
	"github.com/ingot-metal/ingot/server/oapi"
)

// each renders a list; an empty one is [] and not null.
func each[T, R any](list []T, f func(T) R) []R {
	out := make([]R, 0, len(list))
	for _, x := range list {
		out = append(out, f(x))
	}
	return out
}

// ZonesList answers all zones.
func (s *Server) ZonesList(ctx context.Context, _ api.ZonesListParams) (oapi.Response, error) {
	zones, err := s.P.Zones(ctx)
	if err != nil {
		return oapi.Response{}, err
	}
	return oapi.JSON(http.StatusOK, each(zones, renderZone))
}

// ZonesCreate makes a zone.
func (s *Server) ZonesCreate(ctx context.Context, p api.ZonesCreateParams) (oapi.Response, error) {
	z, err := s.P.CreateZone(ctx, provisioner.Named{Name: &p.Name, Description: p.Description})
	if err != nil {
		return oapi.Response{}, err
	}
	return oapi.JSON(http.StatusOK, renderZone(z))
}

// ZoneRead answers a zone.
func (s *Server) ZoneRead(ctx context.Context, p api.ZoneReadParams) (oapi.Response, error) {
	z, err := s.P.Zone(ctx, p.Name)
	if err != nil {
		return oapi.Response{}, err
	}
	return oapi.JSON(http.StatusOK, renderZone(z))
}

// ZoneUpdate changes a zone.
func (s *Server) ZoneUpdate(ctx context.Context, p api.ZoneUpdateParams) (oapi.Response, error) {
	z, err := s.P.UpdateZone(ctx, p.Name, provisioner.Named{Name: p.NewName, Description: p.Description})
	if err != nil {
		return oapi.Response{}, err
	}
	return oapi.JSON(http.StatusOK, renderZone(z))
}

// ZoneDelete removes a zone.
func (s *Server) ZoneDelete(ctx context.Context, p api.ZoneDeleteParams) (oapi.Response, error) {
	if err := s.P.DeleteZone(ctx, p.Name); err != nil {
		return oapi.Response{}, err
	}
	return oapi.NoContent()
}
