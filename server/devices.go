package server

import (
	"context"
	"net/http"

	"github.com/ingot-metal/ingot/api"
	"github.com/ingot-metal/ingot/provisioner"
	"github.com/ingot-metal/ingot/server/oapi"
	"github.com/ingot-metal/ingot/storage"
)

// device answers one device, or the error.
func device(b *storage.Bundle, err error) (oapi.Response, error) {
	if err != nil {
		return oapi.Response{}, err
	}
	return oapi.JSON(http.StatusOK, renderDevice(b))
}

// DevicesList lists the devices that the caller may see.
func (s *Server) DevicesList(ctx context.Context, p api.DevicesListParams) (oapi.Response, error) {
	return listed(s.P.MachinePages(ctx, []int64{storage.NodeDevice}, pairs(&p.Input)), rendered(renderDevice))
}

// DevicesCreate adds a device.
func (s *Server) DevicesCreate(ctx context.Context, p api.DevicesCreateParams) (oapi.Response, error) {
	return device(s.P.CreateDevice(ctx, provisioner.DeviceSpec{Hostname: p.Hostname, Description: p.Description, Domain: p.Domain, Zone: p.Zone,
		MACs: p.MACAddresses, Parent: p.Parent}))
}

// DevicesIsRegistered tells whether a node is known.
func (s *Server) DevicesIsRegistered(ctx context.Context, p api.DevicesIsRegisteredParams) (oapi.Response, error) {
	return s.isRegistered(ctx, p.MACAddress)
}

// DevicesIsActionInProgress tells whether a node is being commissioned or deployed; a device never is.
func (s *Server) DevicesIsActionInProgress(ctx context.Context, p api.DevicesIsActionInProgressParams) (oapi.Response, error) {
	return s.actionInProgress(ctx, p.MACAddress)
}

// DevicesSetZone moves devices to a zone.
func (s *Server) DevicesSetZone(ctx context.Context, p api.DevicesSetZoneParams) (oapi.Response, error) {
	if err := s.P.SetZone(ctx, p.Zone, p.Nodes); err != nil {
		return oapi.Response{}, err
	}
	return oapi.Null()
}

// DeviceRead answers one device.
func (s *Server) DeviceRead(ctx context.Context, p api.DeviceReadParams) (oapi.Response, error) {
	return device(s.P.Device(ctx, p.SystemID))
}

// emptied answers the parameter, or the empty text when the caller sent the key without a value.
func emptied(in *api.Input, key string, p *string) *string {
	if p == nil && in.Blank(key) {
		return new(string)
	}
	return p
}

// DeviceUpdate changes a device.
func (s *Server) DeviceUpdate(ctx context.Context, p api.DeviceUpdateParams) (oapi.Response, error) {
	return device(s.P.UpdateDevice(ctx, p.SystemID, provisioner.DeviceSpec{Hostname: p.Hostname, Description: p.Description, Domain: p.Domain, Zone: p.Zone,
		Parent: emptied(&p.Input, "parent", p.Parent)}))
}

// DeviceDelete removes a device.
func (s *Server) DeviceDelete(ctx context.Context, p api.DeviceDeleteParams) (oapi.Response, error) {
	if err := s.P.DeleteDevice(ctx, p.SystemID); err != nil {
		return oapi.Response{}, err
	}
	return oapi.NoContent()
}

// DeviceDetails answers what the device reported of its hardware: nothing, for devices report nothing.
func (s *Server) DeviceDetails(ctx context.Context, p api.DeviceDetailsParams) (oapi.Response, error) {
	if _, err := s.P.Device(ctx, p.SystemID); err != nil {
		return oapi.Response{}, err
	}
	return oapi.Bytes("application/bson", bsonDocument("lshw", []byte(nil), "lldp", []byte(nil)))
}

// DevicePowerParameters answers a device's power parameters: it has none.
func (s *Server) DevicePowerParameters(ctx context.Context, p api.DevicePowerParametersParams) (oapi.Response, error) {
	params, err := s.P.DevicePowerParameters(ctx, p.SystemID)
	if err != nil {
		return oapi.Response{}, err
	}
	return oapi.JSON(http.StatusOK, params)
}

// DeviceRestoreDefaultConfiguration undoes what was configured on a device.
func (s *Server) DeviceRestoreDefaultConfiguration(ctx context.Context, p api.DeviceRestoreDefaultConfigurationParams) (oapi.Response, error) {
	return device(s.P.RestoreDevice(ctx, p.SystemID))
}

// DeviceRestoreNetworkingConfiguration undoes what was configured on a device's interfaces.
func (s *Server) DeviceRestoreNetworkingConfiguration(ctx context.Context, p api.DeviceRestoreNetworkingConfigurationParams) (oapi.Response, error) {
	return device(s.P.RestoreDevice(ctx, p.SystemID))
}

// DeviceSetWorkloadAnnotations writes workload annotations.
func (s *Server) DeviceSetWorkloadAnnotations(ctx context.Context, p api.DeviceSetWorkloadAnnotationsParams) (oapi.Response, error) {
	return device(s.P.SetDeviceData(ctx, p.SystemID, ownerData(&p.Input)))
}

// DeviceSetOwnerData is the old name of the same.
func (s *Server) DeviceSetOwnerData(ctx context.Context, p api.DeviceSetOwnerDataParams) (oapi.Response, error) {
	return device(s.P.SetDeviceData(ctx, p.SystemID, ownerData(&p.Input)))
}
