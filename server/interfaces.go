package server

import (
	"context"
	"net/http"

	"github.com/ingot-metal/ingot/api"
	"github.com/ingot-metal/ingot/provisioner"
	"github.com/ingot-metal/ingot/server/oapi"
	"github.com/ingot-metal/ingot/storage"
)

func oneInterface(v provisioner.InterfaceView, err error) (oapi.Response, error) {
	if err != nil {
		return oapi.Response{}, err
	}
	return oapi.JSON(http.StatusOK, renderInterface(v.Cat, v.SystemID, v.Interfaces[0]))
}

// InterfacesList answers the interfaces of a node.
func (s *Server) InterfacesList(ctx context.Context, p api.InterfacesListParams) (oapi.Response, error) {
	v, err := s.P.Interfaces(ctx, p.SystemID)
	if err != nil {
		return oapi.Response{}, err
	}
	return oapi.JSON(http.StatusOK, each(v.Interfaces, func(b *storage.InterfaceBundle) api.Interface { return renderInterface(v.Cat, v.SystemID, b) }))
}

// InterfaceRead answers an interface.
func (s *Server) InterfaceRead(ctx context.Context, p api.InterfaceReadParams) (oapi.Response, error) {
	return oneInterface(s.P.Interface(ctx, p.SystemID, p.ID))
}

// InterfacesCreatePhysical adds a network card to a node.
func (s *Server) InterfacesCreatePhysical(ctx context.Context, p api.InterfacesCreatePhysicalParams) (oapi.Response, error) {
	return oneInterface(s.P.CreatePhysicalInterface(ctx, p.SystemID, provisioner.InterfaceInput{Name: p.Name, MACAddress: &p.MACAddress,
		Tags: sent(&p.Input, "tags", p.Tags), VLAN: p.VLAN, MTU: p.MTU, AcceptRA: p.AcceptRa, Enabled: p.Enabled, LinkConnected: p.LinkConnected,
		InterfaceSpeed: p.InterfaceSpeed, LinkSpeed: p.LinkSpeed, NUMANode: p.NUMANode}))
}

// parents are the ids of the interfaces below: of one parent, or of several; nil when neither was sent.
func parents(in *api.Input, one *int64, several []string) ([]string, error) {
	if one != nil && len(several) > 0 {
		return nil, provisioner.Errorf(provisioner.Invalid, "Cannot specify both parent and parents fields.")
	}
	if one != nil {
		return []string{itoa(*one)}, nil
	}
	return sent(in, "parents", several), nil
}

// InterfacesCreateBond puts a bond on interfaces of a machine.
func (s *Server) InterfacesCreateBond(ctx context.Context, p api.InterfacesCreateBondParams) (oapi.Response, error) {
	return oneInterface(s.P.CreateBond(ctx, p.SystemID, provisioner.InterfaceInput{Name: p.Name, MACAddress: p.MACAddress,
		Tags: sent(&p.Input, "tags", p.Tags), VLAN: p.VLAN, MTU: p.MTU, AcceptRA: p.AcceptRa, Parents: sent(&p.Input, "parents", p.Parents),
		NICParams: provisioner.NICParams{BondMode: p.BondMode, BondMiimon: p.BondMiimon, BondDowndelay: p.BondDowndelay, BondUpdelay: p.BondUpdelay,
			BondLACPRate: p.BondLacpRate, BondXmitHashPolicy: p.BondXmitHashPolicy, BondNumGratARP: p.BondNumGratArp}}))
}

// InterfacesCreateBridge puts a bridge on interfaces of a machine.
func (s *Server) InterfacesCreateBridge(ctx context.Context, p api.InterfacesCreateBridgeParams) (oapi.Response, error) {
	below, err := parents(&p.Input, p.Parent, p.Parents)
	if err != nil {
		return oapi.Response{}, err
	}
	return oneInterface(s.P.CreateBridge(ctx, p.SystemID, provisioner.InterfaceInput{Name: p.Name, MACAddress: p.MACAddress,
		Tags: sent(&p.Input, "tags", p.Tags), VLAN: p.VLAN, MTU: p.MTU, AcceptRA: p.AcceptRa, Parents: below,
		NICParams: provisioner.NICParams{BridgeType: p.BridgeType, BridgeSTP: p.BridgeSTP, BridgeFD: p.BridgeFd}}))
}

// InterfacesCreateVlan puts an interface for a tagged VLAN on one of a machine's interfaces.
func (s *Server) InterfacesCreateVlan(ctx context.Context, p api.InterfacesCreateVlanParams) (oapi.Response, error) {
	below, err := parents(&p.Input, p.Parent, p.Parents)
	if err != nil {
		return oapi.Response{}, err
	}
	return oneInterface(s.P.CreateVLANInterface(ctx, p.SystemID, provisioner.InterfaceInput{Name: p.Name, Tags: sent(&p.Input, "tags", p.Tags), VLAN: p.VLAN,
		MTU: p.MTU, AcceptRA: p.AcceptRa, Parents: below}))
}

// InterfaceUpdate changes an interface.
func (s *Server) InterfaceUpdate(ctx context.Context, p api.InterfaceUpdateParams) (oapi.Response, error) {
	below, err := parents(&p.Input, p.Parent, p.Parents)
	if err != nil {
		return oapi.Response{}, err
	}
	return oneInterface(s.P.UpdateInterface(ctx, p.SystemID, p.ID, provisioner.InterfaceInput{Name: p.Name, MACAddress: p.MACAddress,
		Tags: sent(&p.Input, "tags", p.Tags), VLAN: emptied(&p.Input, "vlan", p.VLAN), MTU: p.MTU, ClearMTU: p.Blank("mtu"), AcceptRA: p.AcceptRa,
		Enabled: p.Enabled, LinkConnected: p.LinkConnected, InterfaceSpeed: p.InterfaceSpeed, LinkSpeed: p.LinkSpeed, NUMANode: p.NUMANode, Parents: below,
		NICParams: provisioner.NICParams{BondMode: p.BondMode, BondMiimon: p.BondMiimon, BondDowndelay: p.BondDowndelay, BondUpdelay: p.BondUpdelay,
			BondLACPRate: p.BondLacpRate, BondXmitHashPolicy: p.BondXmitHashPolicy, BondNumGratARP: p.BondNumGratArp, BridgeType: p.BridgeType,
			BridgeSTP: p.BridgeSTP, BridgeFD: p.BridgeFd}}))
}

// InterfaceDelete removes an interface.
func (s *Server) InterfaceDelete(ctx context.Context, p api.InterfaceDeleteParams) (oapi.Response, error) {
	if err := s.P.DeleteInterface(ctx, p.SystemID, p.ID); err != nil {
		return oapi.Response{}, err
	}
	return oapi.NoContent()
}

// InterfaceLinkSubnet connects an interface to a subnet.
func (s *Server) InterfaceLinkSubnet(ctx context.Context, p api.InterfaceLinkSubnetParams) (oapi.Response, error) {
	return oneInterface(s.P.LinkSubnet(ctx, p.SystemID, p.ID, provisioner.LinkInput{Mode: p.Mode, Subnet: p.Subnet, IPAddress: p.IPAddress,
		Force: p.Force != nil && *p.Force, DefaultGateway: p.DefaultGateway != nil && *p.DefaultGateway}))
}

// InterfaceUnlinkSubnet removes a link.
func (s *Server) InterfaceUnlinkSubnet(ctx context.Context, p api.InterfaceUnlinkSubnetParams) (oapi.Response, error) {
	return oneInterface(s.P.UnlinkSubnet(ctx, p.SystemID, p.ID, p.NewID))
}

// InterfaceDisconnect removes all links and the VLAN of an interface.
func (s *Server) InterfaceDisconnect(ctx context.Context, p api.InterfaceDisconnectParams) (oapi.Response, error) {
	return oneInterface(s.P.DisconnectInterface(ctx, p.SystemID, p.ID))
}

// InterfaceSetDefaultGateway sends the node's default route through a link.
func (s *Server) InterfaceSetDefaultGateway(ctx context.Context, p api.InterfaceSetDefaultGatewayParams) (oapi.Response, error) {
	return oneInterface(s.P.SetDefaultGateway(ctx, p.SystemID, p.ID, p.LinkID))
}

// InterfaceAddTag adds a tag.
func (s *Server) InterfaceAddTag(ctx context.Context, p api.InterfaceAddTagParams) (oapi.Response, error) {
	return oneInterface(s.P.TagInterface(ctx, p.SystemID, p.ID, p.Tag, true))
}

// InterfaceRemoveTag removes a tag.
func (s *Server) InterfaceRemoveTag(ctx context.Context, p api.InterfaceRemoveTagParams) (oapi.Response, error) {
	return oneInterface(s.P.TagInterface(ctx, p.SystemID, p.ID, p.Tag, false))
}

// MachineClearDefaultGateways forgets which links a machine's default routes go through.
func (s *Server) MachineClearDefaultGateways(ctx context.Context, p api.MachineClearDefaultGatewaysParams) (oapi.Response, error) {
	b, err := s.P.ClearDefaultGateways(ctx, p.SystemID)
	if err != nil {
		return oapi.Response{}, err
	}
	return oapi.JSON(http.StatusOK, renderMachine(b))
}
