package server

import (
	"context"
	"net/http"

	"github.com/ingot-metal/ingot/api"
	"github.com/ingot-metal/ingot/provisioner"
	"github.com/ingot-metal/ingot/server/oapi"
	"github.com/ingot-metal/ingot/storage"
)

// vlanFinder resolves either of the two paths of a VLAN: vlans/{id}/ and fabrics/{fabric}/vlans/{vid}/.
func vlanFinder(id *int64, fabric, vid *string) func(*storage.Catalogue) (*storage.VLAN, error) {
	return func(c *storage.Catalogue) (*storage.VLAN, error) {
		if id != nil {
			return provisioner.FindVLAN(c, *id)
		}
		if fabric == nil || vid == nil {
			return nil, provisioner.Errorf(provisioner.NotFound, "No VLAN matches the given query.")
		}
		return provisioner.FindFabricVLAN(c, *fabric, *vid)
	}
}

// VlansList answers the VLANs of a fabric.
func (s *Server) VlansList(ctx context.Context, p api.VlansListParams) (oapi.Response, error) {
	c, err := s.P.Networks(ctx)
	if err != nil {
		return oapi.Response{}, err
	}
	f, err := provisioner.FindFabric(c, p.FabricID)
	if err != nil {
		return oapi.Response{}, err
	}
	return oapi.JSON(http.StatusOK, renderFabric(c, f.ID).VLANs)
}

// VlansCreate makes a VLAN in a fabric.
func (s *Server) VlansCreate(ctx context.Context, p api.VlansCreateParams) (oapi.Response, error) {
	id, c, err := s.P.CreateVLAN(ctx, p.FabricID, provisioner.VLANInput{VID: p.VID, Name: p.Name, Description: p.Description, MTU: p.MTU, Space: p.Space,
		DHCPOn: p.DHCPOn, PrimaryRack: p.PrimaryRack, SecondaryRack: p.SecondaryRack, RelayVLAN: p.RelayVLAN})
	if err != nil {
		return oapi.Response{}, err
	}
	return oapi.JSON(http.StatusOK, renderVLAN(c, id))
}

// VlanRead answers a VLAN.
func (s *Server) VlanRead(ctx context.Context, p api.VlanReadParams) (oapi.Response, error) {
	c, err := s.P.Networks(ctx)
	if err != nil {
		return oapi.Response{}, err
	}
	v, err := vlanFinder(p.VLANID, p.FabricID, p.VID)(c)
	if err != nil {
		return oapi.Response{}, err
	}
	return oapi.JSON(http.StatusOK, renderVLAN(c, v.ID))
}

// VlanUpdate changes a VLAN.
func (s *Server) VlanUpdate(ctx context.Context, p api.VlanUpdateParams) (oapi.Response, error) {
	in := provisioner.VLANInput{VID: p.NewVID, Name: p.Name, Description: p.Description, MTU: p.MTU, Space: p.Space, DHCPOn: p.DHCPOn,
		PrimaryRack: p.PrimaryRack, SecondaryRack: p.SecondaryRack, RelayVLAN: p.RelayVLAN, ClearRelay: p.Blank("relay_vlan"), FabricID: p.Fabric}
	id, c, err := s.P.UpdateVLAN(ctx, vlanFinder(p.VLANID, p.FabricID, p.VID), in)
	if err != nil {
		return oapi.Response{}, err
	}
	return oapi.JSON(http.StatusOK, renderVLAN(c, id))
}

// VlanDelete removes a VLAN.
func (s *Server) VlanDelete(ctx context.Context, p api.VlanDeleteParams) (oapi.Response, error) {
	if err := s.P.DeleteVLAN(ctx, vlanFinder(p.VLANID, p.FabricID, p.VID)); err != nil {
		return oapi.Response{}, err
	}
	return oapi.NoContent()
}
