package server

import (
	"context"
	"net/http"

	"github.com/ingot-metal/ingot/api"
	"github.com/ingot-metal/ingot/provisioner"
	"github.com/ingot-metal/ingot/server/oapi"
)

// RackControllerUpdate changes a rack.
func (s *Server) RackControllerUpdate(ctx context.Context, p api.RackControllerUpdateParams) (oapi.Response, error) {
	if err := s.P.UpdateController(ctx, p.SystemID, provisioner.ControllerSpec{Description: p.Description, Domain: p.Domain, Zone: p.Zone, PowerType: p.PowerType,
		PowerParameters: powerParams(&p.Input), SkipPowerCheck: yes(p.PowerParametersSkipCheck)}, rackTypes...); err != nil {
		return oapi.Response{}, err
	}
	return controller(ctx, s, p.SystemID, rackTypes, renderRack)
}

// RegionControllerUpdate changes a region.
func (s *Server) RegionControllerUpdate(ctx context.Context, p api.RegionControllerUpdateParams) (oapi.Response, error) {
	if err := s.P.UpdateController(ctx, p.SystemID, provisioner.ControllerSpec{Description: p.Description, Domain: p.Domain, Zone: p.Zone, PowerType: p.PowerType,
		PowerParameters: powerParams(&p.Input), SkipPowerCheck: yes(p.PowerParametersSkipCheck)}, regionTypes...); err != nil {
		return oapi.Response{}, err
	}
	return controller(ctx, s, p.SystemID, regionTypes, renderRegion)
}

// RegionControllerDelete forgets a region that is gone.
func (s *Server) RegionControllerDelete(ctx context.Context, p api.RegionControllerDeleteParams) (oapi.Response, error) {
	if err := s.P.DeleteRegion(ctx, p.SystemID, yes(p.Force)); err != nil {
		return oapi.Response{}, err
	}
	return oapi.NoContent()
}

// RackControllerImportBootImages has a rack fetch all images now, and not when a machine asks for them.
func (s *Server) RackControllerImportBootImages(ctx context.Context, p api.RackControllerImportBootImagesParams) (oapi.Response, error) {
	return accepted(s.P.FetchImages(ctx, p.SystemID))
}

// RackControllersImportBootImages is the same for all racks.
func (s *Server) RackControllersImportBootImages(ctx context.Context, _ api.RackControllersImportBootImagesParams) (oapi.Response, error) {
	return accepted(s.P.FetchImages(ctx, ""))
}

func accepted(err error) (oapi.Response, error) {
	if err != nil {
		return oapi.Response{}, err
	}
	return oapi.Text(http.StatusAccepted, "Accepted")
}

// RackControllerListBootImages lists the images that a rack holds, and says whether these are all.
func (s *Server) RackControllerListBootImages(ctx context.Context, p api.RackControllerListBootImagesParams) (oapi.Response, error) {
	list, err := s.P.RackImages(ctx, p.SystemID)
	if err != nil {
		return oapi.Response{}, err
	}
	out := api.BootImageList{Images: []map[string]any{}, Connected: list.Connected, Status: list.Status}
	for _, i := range list.Images {
		out.Images = append(out.Images, map[string]any{"name": i.Name, "architecture": i.Architecture, "subarches": i.Subarches})
	}
	return oapi.JSON(http.StatusOK, out)
}

// RackControllerPowerParameters answers a rack's power parameters, for administrators.
func (s *Server) RackControllerPowerParameters(ctx context.Context, p api.RackControllerPowerParametersParams) (oapi.Response, error) {
	return s.controllerPowerParameters(ctx, p.SystemID, rackTypes)
}

// RegionControllerPowerParameters answers a region's power parameters, for administrators.
func (s *Server) RegionControllerPowerParameters(ctx context.Context, p api.RegionControllerPowerParametersParams) (oapi.Response, error) {
	return s.controllerPowerParameters(ctx, p.SystemID, regionTypes)
}

func (s *Server) controllerPowerParameters(ctx context.Context, systemID string, types []int64) (oapi.Response, error) {
	if _, err := s.P.Controller(ctx, systemID, types...); err != nil {
		return oapi.Response{}, err
	}
	return s.powerParameters(ctx, systemID)
}

// RackControllersPowerParameters answers the power parameters of racks.
func (s *Server) RackControllersPowerParameters(ctx context.Context, p api.RackControllersPowerParametersParams) (oapi.Response, error) {
	all, err := s.P.ControllerPowerParameters(ctx, nilIfEmpty(p.ID), rackTypes...)
	if err != nil {
		return oapi.Response{}, err
	}
	return oapi.JSON(http.StatusOK, all)
}

// RackControllersSetZone moves racks to a zone.
func (s *Server) RackControllersSetZone(ctx context.Context, p api.RackControllersSetZoneParams) (oapi.Response, error) {
	if err := s.P.SetZone(ctx, p.Zone, p.Nodes); err != nil {
		return oapi.Response{}, err
	}
	return oapi.Null()
}

// RegionControllersSetZone moves regions to a zone.
func (s *Server) RegionControllersSetZone(ctx context.Context, p api.RegionControllersSetZoneParams) (oapi.Response, error) {
	if err := s.P.SetZone(ctx, p.Zone, p.Nodes); err != nil {
		return oapi.Response{}, err
	}
	return oapi.Null()
}

// RackControllerPowerOn switches a rack on.
func (s *Server) RackControllerPowerOn(ctx context.Context, p api.RackControllerPowerOnParams) (oapi.Response, error) {
	if _, err := s.P.ControllerPower(ctx, p.SystemID, provisioner.PowerOn, false, text(p.Comment), rackTypes...); err != nil {
		return oapi.Response{}, err
	}
	return controller(ctx, s, p.SystemID, rackTypes, renderRack)
}

// RackControllerPowerOff switches a rack off; null when the server has nothing to do it by.
func (s *Server) RackControllerPowerOff(ctx context.Context, p api.RackControllerPowerOffParams) (oapi.Response, error) {
	ordered, err := s.P.ControllerPower(ctx, p.SystemID, provisioner.PowerOff, text(p.StopMode) == "soft", text(p.Comment), rackTypes...)
	if err != nil {
		return oapi.Response{}, err
	}
	if !ordered {
		return oapi.Null()
	}
	return controller(ctx, s, p.SystemID, rackTypes, renderRack)
}

// RackControllerQueryPowerState asks a rack's BMC.
func (s *Server) RackControllerQueryPowerState(ctx context.Context, p api.RackControllerQueryPowerStateParams) (oapi.Response, error) {
	state, err := s.P.QueryNodePower(ctx, p.SystemID, rackTypes...)
	if err != nil {
		return oapi.Response{}, err
	}
	return oapi.JSON(http.StatusOK, api.PowerState{State: state})
}

// RackControllerAbort answers that there is nothing to abort: a rack is never commissioned, deployed or tested.
func (s *Server) RackControllerAbort(ctx context.Context, p api.RackControllerAbortParams) (oapi.Response, error) {
	return oapi.Response{}, s.P.ControllerState(ctx, p.SystemID, false, "Cannot abort in current state: node %s is in state %s.", rackTypes...)
}

// RackControllerOverrideFailedTesting answers that no tests have failed: none run on a rack.
func (s *Server) RackControllerOverrideFailedTesting(ctx context.Context, p api.RackControllerOverrideFailedTestingParams) (oapi.Response, error) {
	return oapi.Response{}, s.P.ControllerState(ctx, p.SystemID, true, "Cannot override the failed tests of node %s: it is in state %s.", rackTypes...)
}

// MachinesClone gives machines the configuration of another.
func (s *Server) MachinesClone(ctx context.Context, p api.MachinesCloneParams) (oapi.Response, error) {
	if err := s.P.CloneMachines(ctx, provisioner.CloneRequest{Source: p.Source, Destinations: p.Destinations, Interfaces: p.Interfaces, Storage: p.Storage}); err != nil {
		return oapi.Response{}, err
	}
	return oapi.NoContent()
}
