package server

import (
	"context"
	"net/http"

	"github.com/ingot-metal/ingot/api"
	"github.com/ingot-metal/ingot/provisioner"
	"github.com/ingot-metal/ingot/server/oapi"
	"github.com/ingot-metal/ingot/storage"
)

// NodesList lists nodes of every type, each rendered as its own: devices, machines, racks, regions.
func (s *Server) NodesList(ctx context.Context, p api.NodesListParams) (oapi.Response, error) {
	render, err := s.nodeRenderer(ctx)
	if err != nil {
		return oapi.Response{}, err
	}
	var kinds []provisioner.Pages
	for _, types := range [][]int64{{storage.NodeDevice}, {storage.NodeMachine}, {storage.NodeRack, storage.NodeRegionRack}, {storage.NodeRegion}} {
		kinds = append(kinds, s.P.MachinePages(ctx, types, pairs(&p.Input)))
	}
	return listed(provisioner.Concat(kinds...), rendered(render))
}

// NodeRead answers one node, rendered as what it is.
func (s *Server) NodeRead(ctx context.Context, p api.NodeReadParams) (oapi.Response, error) {
	b, err := s.P.Node(ctx, p.SystemID)
	if err != nil {
		return oapi.Response{}, err
	}
	render, err := s.nodeRenderer(ctx)
	if err != nil {
		return oapi.Response{}, err
	}
	return oapi.JSON(http.StatusOK, render(b))
}

// NodeDelete removes a node.
func (s *Server) NodeDelete(ctx context.Context, p api.NodeDeleteParams) (oapi.Response, error) {
	if err := s.P.DeleteNode(ctx, p.SystemID); err != nil {
		return oapi.Response{}, err
	}
	return oapi.NoContent()
}

// NodePowerParameters answers a node's power parameters, for administrators.
func (s *Server) NodePowerParameters(ctx context.Context, p api.NodePowerParametersParams) (oapi.Response, error) {
	return s.powerParameters(ctx, p.SystemID)
}

// NodesIsRegistered tells whether a node is known.
func (s *Server) NodesIsRegistered(ctx context.Context, p api.NodesIsRegisteredParams) (oapi.Response, error) {
	return s.isRegistered(ctx, p.MACAddress)
}

// NodesSetZone moves nodes to a zone.
func (s *Server) NodesSetZone(ctx context.Context, p api.NodesSetZoneParams) (oapi.Response, error) {
	if err := s.P.SetZone(ctx, p.Zone, p.Nodes); err != nil {
		return oapi.Response{}, err
	}
	return oapi.Null()
}

// nodeRenderer answers a function that renders a node as its type.
func (s *Server) nodeRenderer(ctx context.Context) (func(*storage.Bundle) any, error) {
	addresses, err := s.P.RackAddresses(ctx)
	if err != nil {
		return nil, err
	}
	now := s.P.Now()
	return func(b *storage.Bundle) any {
		switch b.Node.NodeType {
		case storage.NodeMachine:
			return renderMachine(b)
		case storage.NodeDevice:
			return renderDevice(b)
		case storage.NodeRegion:
			return renderRegion(b, addresses[b.Node.ID], now)
		}
		return renderRack(b, addresses[b.Node.ID], now)
	}, nil
}

func renderDevice(b *storage.Bundle) api.Device {
	m := renderMachine(b)
	return api.Device{ResourceURI: apiRoot + "devices/" + m.SystemID + "/", SystemID: m.SystemID, Hostname: m.Hostname, FQDN: m.FQDN,
		Description: m.Description, Domain: m.Domain, Owner: m.Owner, OwnerData: m.OwnerData, WorkloadAnnotations: m.WorkloadAnnotations,
		Parent: orNull(b.Parent), TagNames: m.TagNames, IPAddresses: m.IPAddresses, InterfaceSet: m.InterfaceSet, Zone: m.Zone,
		NodeType: m.NodeType, NodeTypeName: m.NodeTypeName}
}
