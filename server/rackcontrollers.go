package server

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/ingot-metal/ingot/api"
	"github.com/ingot-metal/ingot/provisioner"
	"github.com/ingot-metal/ingot/provisioner/power"
	"github.com/ingot-metal/ingot/server/oapi"
	"github.com/ingot-metal/ingot/storage"
)

var (
	rackTypes   = []int64{storage.NodeRack, storage.NodeRegionRack}
	regionTypes = []int64{storage.NodeRegion, storage.NodeRegionRack}
)

// rackSilent is how long a rack may be silent before its services count as dead: two of its polls.
const rackSilent = 90 * time.Second

// rackServices are the names that the API gives to what a rack does. A rack is one process here, so they live and die together;
// what it does not do is off.
var rackServices = []struct {
	name  string
	built bool
}{{"agent", true}, {"dhcpd", true}, {"dhcpd6", false}, {"http", true}, {"ntp_rack", false}, {"proxy_rack", true}, {"rackd", true}, {"syslog_rack", false}, {"tftp", true}}

func renderRack(b *storage.Bundle, addresses []string, now time.Time) api.RackController {
	n := &b.Node
	r := newMachineRenderer()
	out := api.RackController{
		ResourceURI: apiRoot + "rackcontrollers/" + n.SystemID + "/", SystemID: n.SystemID, Hostname: n.Hostname, FQDN: fqdn(b), Description: n.Description,
		HardwareUUID: n.HardwareUUID, Domain: r.domain(b.Cat, n.DomainID), Architecture: orNull(n.Architecture), CPUCount: n.CPUCount, CPUSpeed: n.CPUSpeed,
		Memory: n.Memory, SwapSize: n.SwapSize, Osystem: n.Osystem, DistroSeries: n.DistroSeries, PowerType: n.PowerType, PowerState: n.PowerState,
		IPAddresses: controllerAddresses(b, addresses), InterfaceSet: make([]api.Interface, 0, len(b.Interfaces)), Zone: r.zone(b.Cat, n.ZoneID), NodeType: n.NodeType,
		NodeTypeName: nodeTypeNames[n.NodeType], Version: orNull(n.Version), HardwareInfo: hardwareInfo(b.Metadata), TagNames: listOf(b.Tags),
		CurrentCommissioningResultID: setID(b.Sets[0]), CurrentTestingResultID: setID(b.Sets[2]), CurrentInstallationResultID: setID(b.Sets[1]),
		CommissioningStatus: setStatus(b.Sets[0]), TestingStatus: setStatus(b.Sets[2]),
	}
	for _, i := range b.Interfaces {
		out.InterfaceSet = append(out.InterfaceSet, renderInterface(b.Cat, n.SystemID, i))
	}
	out.CommissioningStatusName, out.TestingStatusName = provisioner.ScriptStatusName(out.CommissioningStatus), provisioner.ScriptStatusName(out.TestingStatus)
	testing := b.Sets[storage.SetTesting]
	out.CPUTestStatus, out.CPUTestStatusName = testStatus(testing, provisioner.HardwareCPU)
	out.MemoryTestStatus, out.MemoryTestStatusName = testStatus(testing, provisioner.HardwareMemory)
	out.StorageTestStatus, out.StorageTestStatusName = testStatus(testing, provisioner.HardwareStorage)
	out.NetworkTestStatus, out.NetworkTestStatusName = testStatus(testing, provisioner.HardwareNetwork)
	out.OtherTestStatus, out.OtherTestStatusName = testStatus(testing, provisioner.HardwareNode)
	out.InterfaceTestStatus, out.InterfaceTestStatusName = interfaceTestStatus(testing)
	action := ""
	if b.Event != nil {
		action = b.Event.Action
	}
	out.StatusAction = &action
	alive := now.Sub(n.LastSeen) < rackSilent
	for _, svc := range rackServices {
		s := api.Service{Name: svc.name, Status: "off"}
		switch {
		case svc.built && alive:
			s.Status = "running"
		case svc.built:
			s.Status, s.StatusInfo = "dead", "The rack has not been heard of since "+n.LastSeen.UTC().Format(time.RFC3339)+"."
		}
		out.ServiceSet = append(out.ServiceSet, s)
	}
	return out
}

// controllerAddresses are the addresses of a controller's interfaces and those at which it serves VLANs.
func controllerAddresses(b *storage.Bundle, serves []string) []string {
	out := slices.Clone(ipAddresses(b))
	for _, a := range serves {
		if !slices.Contains(out, a) {
			out = append(out, a)
		}
	}
	return listOf(out)
}

func renderRegion(b *storage.Bundle, addresses []string, now time.Time) api.RegionController {
	r := renderRack(b, addresses, now)
	return api.RegionController{
		ResourceURI: apiRoot + "regioncontrollers/" + r.SystemID + "/", SystemID: r.SystemID, Hostname: r.Hostname, FQDN: r.FQDN, Description: r.Description,
		HardwareUUID: r.HardwareUUID, Domain: r.Domain, Architecture: r.Architecture, CPUCount: r.CPUCount, CPUSpeed: r.CPUSpeed, Memory: r.Memory,
		SwapSize: r.SwapSize, Osystem: r.Osystem, DistroSeries: r.DistroSeries, PowerType: r.PowerType, PowerState: r.PowerState, IPAddresses: r.IPAddresses,
		InterfaceSet: r.InterfaceSet, Zone: r.Zone, StatusAction: r.StatusAction, NodeType: r.NodeType, NodeTypeName: r.NodeTypeName, Version: r.Version,
		HardwareInfo: r.HardwareInfo, TagNames: r.TagNames, CurrentCommissioningResultID: r.CurrentCommissioningResultID,
		CurrentTestingResultID: r.CurrentTestingResultID, CurrentInstallationResultID: r.CurrentInstallationResultID,
		CommissioningStatus: r.CommissioningStatus, CommissioningStatusName: r.CommissioningStatusName, TestingStatus: r.TestingStatus,
		TestingStatusName: r.TestingStatusName, CPUTestStatus: r.CPUTestStatus, CPUTestStatusName: r.CPUTestStatusName, MemoryTestStatus: r.MemoryTestStatus,
		MemoryTestStatusName: r.MemoryTestStatusName, NetworkTestStatus: r.NetworkTestStatus, NetworkTestStatusName: r.NetworkTestStatusName,
		StorageTestStatus: r.StorageTestStatus, StorageTestStatusName: r.StorageTestStatusName, OtherTestStatus: r.OtherTestStatus,
		OtherTestStatusName: r.OtherTestStatusName, InterfaceTestStatus: r.InterfaceTestStatus, InterfaceTestStatusName: r.InterfaceTestStatusName,
	}
}

// controllers lists controllers of some types and renders each.
func controllers[T any](ctx context.Context, s *Server, types []int64, in *api.Input, render func(*storage.Bundle, []string, time.Time) T) (oapi.Response, error) {
	list, err := s.P.Machines(ctx, types, pairs(in))
	if err != nil {
		return oapi.Response{}, err
	}
	addresses, err := s.P.RackAddresses(ctx)
	if err != nil {
		return oapi.Response{}, err
	}
	out := make([]T, 0, len(list))
	for _, b := range list {
		out = append(out, render(b, addresses[b.Node.ID], s.P.Now()))
	}
	return oapi.JSON(http.StatusOK, out)
}

func controller[T any](ctx context.Context, s *Server, systemID string, types []int64, render func(*storage.Bundle, []string, time.Time) T) (oapi.Response, error) {
	b, err := s.P.Controller(ctx, systemID, types...)
	if err != nil {
		return oapi.Response{}, err
	}
	addresses, err := s.P.RackAddresses(ctx)
	if err != nil {
		return oapi.Response{}, err
	}
	return oapi.JSON(http.StatusOK, render(b, addresses[b.Node.ID], s.P.Now()))
}

// RackControllersList lists the rack controllers that the filters choose.
func (s *Server) RackControllersList(ctx context.Context, p api.RackControllersListParams) (oapi.Response, error) {
	return controllers(ctx, s, rackTypes, &p.Input, renderRack)
}

// RackControllerRead reads one rack controller.
func (s *Server) RackControllerRead(ctx context.Context, p api.RackControllerReadParams) (oapi.Response, error) {
	return controller(ctx, s, p.SystemID, rackTypes, renderRack)
}

// RackControllerDelete forgets a rack controller and with it its certificate.
func (s *Server) RackControllerDelete(ctx context.Context, p api.RackControllerDeleteParams) (oapi.Response, error) {
	if err := s.P.DeleteRack(ctx, p.SystemID, yes(p.Force)); err != nil {
		return oapi.Response{}, err
	}
	return oapi.NoContent()
}

// RackControllersIsRegistered says whether a node has the MAC address.
func (s *Server) RackControllersIsRegistered(ctx context.Context, p api.RackControllersIsRegisteredParams) (oapi.Response, error) {
	return s.isRegistered(ctx, p.MACAddress)
}

// RegionControllersList lists the region controllers that the filters choose.
func (s *Server) RegionControllersList(ctx context.Context, p api.RegionControllersListParams) (oapi.Response, error) {
	return controllers(ctx, s, regionTypes, &p.Input, renderRegion)
}

// RegionControllerRead reads one region controller.
func (s *Server) RegionControllerRead(ctx context.Context, p api.RegionControllerReadParams) (oapi.Response, error) {
	return controller(ctx, s, p.SystemID, regionTypes, renderRegion)
}

// RegionControllersIsRegistered says whether a node has the MAC address.
func (s *Server) RegionControllersIsRegistered(ctx context.Context, p api.RegionControllersIsRegisteredParams) (oapi.Response, error) {
	return s.isRegistered(ctx, p.MACAddress)
}

// RackControllersDescribePowerTypes lists the power drivers and their parameters.
func (s *Server) RackControllersDescribePowerTypes(ctx context.Context, _ api.RackControllersDescribePowerTypesParams) (oapi.Response, error) {
	if err := provisioner.Need(ctx, "can_view_controllers"); err != nil {
		return oapi.Response{}, err
	}
	out := make([]api.PowerType, 0, len(s.P.Power))
	for _, d := range s.P.Power {
		out = append(out, renderPowerType(d.Describe()))
	}
	slices.SortFunc(out, func(a, b api.PowerType) int { return strings.Compare(a.Name, b.Name) })
	return oapi.JSON(http.StatusOK, out)
}

func renderPowerType(t power.Type) api.PowerType {
	out := api.PowerType{DriverType: "power", Name: t.Name, Description: t.Description, Chassis: t.Chassis, CanProbe: t.CanProbe, Queryable: t.Queryable,
		MissingPackages: []string{}, Fields: make([]api.PowerTypeField, 0, len(t.Fields))}
	for _, f := range t.Fields {
		choices := make([][]string, 0, len(f.Choices))
		for _, c := range f.Choices {
			choices = append(choices, c[:])
		}
		var def any = f.Default
		if f.Kind == "multiple_choice" {
			list := []string{}
			if f.Default != "" {
				list = strings.Split(f.Default, ",")
			}
			def = list
		}
		out.Fields = append(out.Fields, api.PowerTypeField{Name: f.Name, Label: f.Label, Required: f.Required, FieldType: f.Kind, Choices: choices, Default: def,
			Scope: f.Scope, Secret: f.Secret})
		if f.Name == "power_address" {
			out.IPExtractor = map[string]any{"field_name": "power_address", "pattern": "^(?P<address>.+?)$"}
		}
	}
	return out
}
