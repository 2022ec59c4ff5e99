package server

import (
	"context"
	"encoding/binary"
	"net/http"

	"github.com/ingot-metal/ingot/api"
	"github.com/ingot-metal/ingot/provisioner"
	"github.com/ingot-metal/ingot/server/oapi"
	"github.com/ingot-metal/ingot/storage"
)

// bsonDocument writes a BSON document of binary fields; nil is null. It is all of BSON that the API has.
func bsonDocument(fields ...any) []byte {
	out := make([]byte, 4)
	for i := 0; i+1 < len(fields); i += 2 {
		name, data := fields[i].(string), fields[i+1].([]byte)
		if data == nil {
			out = append(append(append(out, 0x0a), name...), 0)
			continue
		}
		out = append(append(append(out, 0x05), name...), 0)
		out = binary.LittleEndian.AppendUint32(out, uint32(len(data)))
		out = append(append(out, 0x00), data...) // a generic one
	}
	out = append(out, 0)
	binary.LittleEndian.PutUint32(out, uint32(len(out)))
	return out
}

func (s *Server) details(ctx context.Context, systemID string, types ...int64) (oapi.Response, error) {
	lshw, lldp, err := s.P.Details(ctx, systemID, types...)
	if err != nil {
		return oapi.Response{}, err
	}
	return oapi.Bytes("application/bson", bsonDocument("lshw", lshw, "lldp", lldp))
}

// MachineDetails answers what a machine's hardware is described by.
func (s *Server) MachineDetails(ctx context.Context, p api.MachineDetailsParams) (oapi.Response, error) {
	return s.details(ctx, p.SystemID, storage.NodeMachine)
}

// NodeDetails answers it for a node of any type.
func (s *Server) NodeDetails(ctx context.Context, p api.NodeDetailsParams) (oapi.Response, error) {
	return s.details(ctx, p.SystemID)
}

// RackControllerDetails answers it for a rack.
func (s *Server) RackControllerDetails(ctx context.Context, p api.RackControllerDetailsParams) (oapi.Response, error) {
	return s.details(ctx, p.SystemID, rackTypes...)
}

// RegionControllerDetails answers it for a region.
func (s *Server) RegionControllerDetails(ctx context.Context, p api.RegionControllerDetailsParams) (oapi.Response, error) {
	return s.details(ctx, p.SystemID, regionTypes...)
}

// MachineGetToken answers a machine's own credentials.
func (s *Server) MachineGetToken(ctx context.Context, p api.MachineGetTokenParams) (oapi.Response, error) {
	t, err := s.P.MachineToken(ctx, p.SystemID)
	if err != nil {
		return oapi.Response{}, err
	}
	if t == nil {
		return oapi.Null()
	}
	return oapi.JSON(http.StatusOK, api.NodeToken{ConsumerKey: t.ConsumerKey, TokenKey: t.TokenKey, TokenSecret: t.TokenSecret})
}

func (s *Server) actionInProgress(ctx context.Context, macs string) (oapi.Response, error) {
	busy, err := s.P.ActionInProgress(ctx, macs)
	if err != nil {
		return oapi.Response{}, err
	}
	return oapi.JSON(http.StatusOK, busy)
}

// MachinesIsActionInProgress tells a machine whether it is being commissioned or deployed.
func (s *Server) MachinesIsActionInProgress(ctx context.Context, p api.MachinesIsActionInProgressParams) (oapi.Response, error) {
	return s.actionInProgress(ctx, p.MACAddress)
}

// NodesIsActionInProgress is the same for nodes.
func (s *Server) NodesIsActionInProgress(ctx context.Context, p api.NodesIsActionInProgressParams) (oapi.Response, error) {
	return s.actionInProgress(ctx, p.MACAddress)
}

// RackControllersIsActionInProgress is the same for racks.
func (s *Server) RackControllersIsActionInProgress(ctx context.Context, p api.RackControllersIsActionInProgressParams) (oapi.Response, error) {
	return s.actionInProgress(ctx, p.MACAddress)
}

// RegionControllersIsActionInProgress is the same for regions.
func (s *Server) RegionControllersIsActionInProgress(ctx context.Context, p api.RegionControllersIsActionInProgressParams) (oapi.Response, error) {
	return s.actionInProgress(ctx, p.MACAddress)
}

// renderNodeDevice renders a PCI or USB device with the interface or disk that it is.
func renderNodeDevice(b *storage.Bundle, d storage.HardwareDevice) api.NodeDevice {
	out := api.NodeDevice{ResourceURI: apiRoot + "nodes/" + b.Node.SystemID + "/devices/" + itoa(d.ID) + "/", ID: d.ID, SystemID: b.Node.SystemID, Bus: d.Bus,
		BusName: map[int64]string{storage.BusPCIE: "PCIE", storage.BusUSB: "USB"}[d.Bus], HardwareType: d.HardwareType, HardwareTypeName: hardwareTypeNames[d.HardwareType],
		NUMANode: d.NUMANode, VendorID: d.VendorID, ProductID: d.ProductID, VendorName: d.VendorName, ProductName: d.ProductName, CommissioningDriver: d.Driver,
		BusNumber: d.BusNumber, DeviceNumber: d.DeviceNumber, PciAddress: d.PCIAddress}
	for _, i := range b.Interfaces {
		if d.InterfaceID != nil && *d.InterfaceID == i.ID {
			nic := renderInterface(b.Cat, b.Node.SystemID, i)
			out.PhysicalInterface = &nic
		}
	}
	for _, k := range b.Disks {
		if d.BlockDeviceID != nil && *d.BlockDeviceID == k.ID {
			disk := renderBlockDevice(b, k)
			out.PhysicalBlockdevice = &disk
		}
	}
	return out
}

// NodeDevicesList lists the PCI and USB devices of a node.
func (s *Server) NodeDevicesList(ctx context.Context, p api.NodeDevicesListParams) (oapi.Response, error) {
	bus, err := word(p.Bus, "bus", provisioner.ParseBus)
	if err != nil {
		return oapi.Response{}, err
	}
	hardware, err := word(p.HardwareType, "hardware type", provisioner.ParseHardwareType)
	if err != nil {
		return oapi.Response{}, err
	}
	b, list, err := s.P.NodeDevices(ctx, p.SystemID, provisioner.NodeDeviceFilter{Bus: bus, HardwareType: hardware, VendorID: p.VendorID, ProductID: p.ProductID,
		VendorName: p.VendorName, ProductName: p.ProductName, Commissioning: p.CommissioningDriver})
	if err != nil {
		return oapi.Response{}, err
	}
	return oapi.JSON(http.StatusOK, each(list, func(d storage.HardwareDevice) api.NodeDevice { return renderNodeDevice(b, d) }))
}

// NodeDeviceRead answers one of them.
func (s *Server) NodeDeviceRead(ctx context.Context, p api.NodeDeviceReadParams) (oapi.Response, error) {
	b, d, err := s.P.NodeDevice(ctx, p.SystemID, p.ID)
	if err != nil {
		return oapi.Response{}, err
	}
	return oapi.JSON(http.StatusOK, renderNodeDevice(b, d))
}

// NodeDeviceDelete forgets a device until it is found again.
func (s *Server) NodeDeviceDelete(ctx context.Context, p api.NodeDeviceDeleteParams) (oapi.Response, error) {
	if err := s.P.DeleteNodeDevice(ctx, p.SystemID, p.ID); err != nil {
		return oapi.Response{}, err
	}
	return oapi.NoContent()
}
