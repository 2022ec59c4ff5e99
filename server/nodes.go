package server

import (
	"context"
	"net/http"

	"github.com/ingot-metal/ingot/api"
	"github.com/ingot-metal/ingot/server/oapi"
	"github.com/ingot-metal/ingot/storage"
)

// NodesList lists nodes of every type, each rendered as its own: devices, machines, racks, regions.
func (s *Server) NodesList(ctx context.Context, p api.NodesListParams) (oapi.Response, error) {
	out := []any{}
	for _, types := range [][]int64{{storage.NodeDevice}, {storage.NodeMachine}, {storage.NodeRack, storage.NodeRegionRack}, {storage.NodeRegion}} {
		bundles, err := s.P.Machines(ctx, types, pairs(&p.Input))
		if err != nil {
			return oapi.Response{}, err
		}
		for _, b := range bundles {
			out = append(out, renderNode(b))
		}
	}
	return oapi.JSON(http.StatusOK, out)
}

// NodeRead answers one node, rendered as what it is.
func (s *Server) NodeRead(ctx context.Context, p api.NodeReadParams) (oapi.Response, error) {
	b, err := s.P.Node(ctx, p.SystemID)
	if err != nil {
		return oapi.Response{}, err
	}
	return oapi.JSON(http.StatusOK, renderNode(b))
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

// renderNode renders a node as its type.
func renderNode(b *storage.Bundle) any {
	switch b.Node.NodeType {
	case storage.NodeMachine:
		return renderMachine(b)
	case storage.NodeDevice:
		return renderDevice(b)
	}
	return renderControllerNode(b)
}

func renderDevice(b *storage.Bundle) api.Device {
	m := renderMachine(b)
	return api.Device{ResourceURI: apiRoot + "devices/" + m.SystemID + "/", SystemID: m.SystemID, Hostname: m.Hostname, FQDN: m.FQDN,
		Description: m.Description, Domain: m.Domain, Owner: m.Owner, OwnerData: m.OwnerData, WorkloadAnnotations: m.WorkloadAnnotations,
		Parent: orNull(b.Parent), TagNames: m.TagNames, IPAddresses: m.IPAddresses, InterfaceSet: m.InterfaceSet, Zone: m.Zone,
		NodeType: m.NodeType, NodeTypeName: m.NodeTypeName}
}

func renderControllerNode(b *storage.Bundle) api.RackController {
	m := renderMachine(b)
	return api.RackController{ResourceURI: apiRoot + "rackcontrollers/" + m.SystemID + "/", SystemID: m.SystemID, Hostname: m.Hostname, FQDN: m.FQDN,
		Description: m.Description, HardwareUUID: m.HardwareUUID, Domain: m.Domain, Architecture: m.Architecture, CPUCount: m.CPUCount,
		CPUSpeed: m.CPUSpeed, Memory: m.Memory, SwapSize: m.SwapSize, Osystem: m.Osystem, DistroSeries: m.DistroSeries, PowerType: m.PowerType,
		PowerState: m.PowerState, IPAddresses: m.IPAddresses, InterfaceSet: m.InterfaceSet, Zone: m.Zone, StatusAction: m.StatusAction,
		NodeType: m.NodeType, NodeTypeName: m.NodeTypeName, ServiceSet: []api.Service{}, Version: orNull(b.Node.Version), HardwareInfo: m.HardwareInfo,
		TagNames: m.TagNames, CurrentCommissioningResultID: m.CurrentCommissioningResultID, CurrentTestingResultID: m.CurrentTestingResultID,
		CurrentInstallationResultID: m.CurrentInstallationResultID, CommissioningStatus: m.CommissioningStatus,
		CommissioningStatusName: m.CommissioningStatusName, TestingStatus: m.TestingStatus, TestingStatusName: m.TestingStatusName,
		CPUTestStatus: m.CPUTestStatus, CPUTestStatusName: m.CPUTestStatusName, MemoryTestStatus: m.MemoryTestStatus,
		MemoryTestStatusName: m.MemoryTestStatusName, NetworkTestStatus: m.NetworkTestStatus, NetworkTestStatusName: m.NetworkTestStatusName,
		StorageTestStatus: m.StorageTestStatus, StorageTestStatusName: m.StorageTestStatusName, OtherTestStatus: m.OtherTestStatus,
		OtherTestStatusName: m.OtherTestStatusName, InterfaceTestStatus: m.InterfaceTestStatus, InterfaceTestStatusName: m.InterfaceTestStatusName}
}
