package server

import (
	"context"
	"net/http"
	"strconv"
	"strings"

	"github.com/ingot-metal/ingot/api"
	"github.com/ingot-metal/ingot/provisioner"
	"github.com/ingot-metal/ingot/server/oapi"
	"github.com/ingot-metal/ingot/storage"
)

// machine answers one machine, or the error.
func machine(b *storage.Bundle, err error) (oapi.Response, error) {
	if err != nil {
		return oapi.Response{}, err
	}
	return oapi.JSON(http.StatusOK, renderMachine(b))
}

func text(p *string) string {
	if p == nil {
		return ""
	}
	return *p
}

func yes(p *bool) bool { return p != nil && *p }

// pairs are the parameters of a request as they came, without those named.
func pairs(in *api.Input, without ...string) []provisioner.Pair {
	var out []provisioner.Pair
next:
	for _, k := range in.Keys {
		for _, w := range without {
			if k == w {
				continue next
			}
		}
		if v, ok := in.Sent[k]; ok && k != "op" {
			out = append(out, provisioner.Pair{Name: k, Values: v})
		}
	}
	return out
}

// powerParams are the keys power_parameters_<name>, but for the one that is an option.
func powerParams(in *api.Input) map[string]string {
	out := map[string]string{}
	for k, v := range in.Sent {
		if name, ok := strings.CutPrefix(k, "power_parameters_"); ok && name != "" && name != "skip_check" && len(v) > 0 {
			out[name] = strings.Join(v, ",")
		}
	}
	return out
}

// MachinesList lists the machines that the caller may see.
func (s *Server) MachinesList(ctx context.Context, p api.MachinesListParams) (oapi.Response, error) {
	return listed(s.P.MachinePages(ctx, []int64{storage.NodeMachine}, pairs(&p.Input)), renderMachines)
}

// MachinesCreate adds a machine; without login it is a machine that enlists itself.
func (s *Server) MachinesCreate(ctx context.Context, p api.MachinesCreateParams) (oapi.Response, error) {
	spec := provisioner.MachineSpec{Architecture: p.Architecture, Subarchitecture: p.Subarchitecture, MACs: p.MACAddresses, MinHWEKernel: p.MinHWEKernel,
		Hostname: p.Hostname, Description: p.Description, Domain: p.Domain, Zone: p.Zone, Pool: p.Pool, PowerType: p.PowerType,
		PowerParameters: powerParams(&p.Input), SkipPowerCheck: yes(p.PowerParametersSkipCheck), CPUCount: p.CPUCount, SwapSize: p.SwapSize,
		Commission: p.Commission, Deployed: yes(p.Deployed), CommissionParams: provisioner.CommissionParams{EnableSSH: yes(p.EnableSSH),
			SkipBMCConfig: yes(p.SkipBMCConfig), SkipNetworking: yes(p.SkipNetworking), SkipStorage: yes(p.SkipStorage),
			CommissioningScripts: p.CommissioningScripts, TestingScripts: p.TestingScripts}}
	if p.Memory != nil {
		memory := strconv.FormatInt(*p.Memory, 10)
		spec.Memory = &memory
	}
	if p.PowerParameters != nil {
		params, ok := provisioner.ParsePowerParameters(*p.PowerParameters)
		if !ok {
			return oapi.Response{}, provisioner.FieldError("power_parameters", "Failed to parse JSON power_parameters")
		}
		for k, v := range params {
			if k == "skip_check" || k == "power_parameters_skip_check" {
				continue
			}
			spec.PowerParameters[k] = v
		}
	}
	b, err := s.P.CreateMachine(ctx, spec)
	if err != nil {
		return oapi.Response{}, err
	}
	if provisioner.ActorFrom(ctx).Anonymous {
		return oapi.JSON(http.StatusOK, renderAnonMachine(b))
	}
	return machine(b, nil)
}

// MachinesAccept commissions machines that enlisted themselves.
func (s *Server) MachinesAccept(ctx context.Context, p api.MachinesAcceptParams) (oapi.Response, error) {
	bundles, err := s.P.Accept(ctx, p.Machines)
	if err != nil {
		return oapi.Response{}, err
	}
	return oapi.JSON(http.StatusOK, renderMachines(bundles))
}

// MachinesAcceptAll commissions all of them.
func (s *Server) MachinesAcceptAll(ctx context.Context, p api.MachinesAcceptAllParams) (oapi.Response, error) {
	bundles, err := s.P.AcceptAll(ctx)
	if err != nil {
		return oapi.Response{}, err
	}
	return oapi.JSON(http.StatusOK, renderMachines(bundles))
}

// MachinesRelease gives machines back.
func (s *Server) MachinesRelease(ctx context.Context, p api.MachinesReleaseParams) (oapi.Response, error) {
	ids, err := s.P.ReleaseMachines(ctx, p.Machines, text(p.Comment))
	if err != nil {
		return oapi.Response{}, err
	}
	return oapi.JSON(http.StatusOK, ids)
}

// MachinesListAllocated lists the caller's Allocated machines.
func (s *Server) MachinesListAllocated(ctx context.Context, p api.MachinesListAllocatedParams) (oapi.Response, error) {
	return listed(s.P.AllocatedMachines(ctx, nilIfEmpty(p.ID)), renderMachines)
}

func nilIfEmpty(list []string) []string {
	if len(list) == 0 {
		return nil
	}
	return list
}

// MachinesPowerParameters answers the power parameters of machines, for administrators.
func (s *Server) MachinesPowerParameters(ctx context.Context, p api.MachinesPowerParametersParams) (oapi.Response, error) {
	all, err := s.P.AllPowerParameters(ctx, nilIfEmpty(p.ID))
	if err != nil {
		return oapi.Response{}, err
	}
	return oapi.JSON(http.StatusOK, all)
}

// MachinesIsRegistered tells whether a machine is known.
func (s *Server) MachinesIsRegistered(ctx context.Context, p api.MachinesIsRegisteredParams) (oapi.Response, error) {
	return s.isRegistered(ctx, p.MACAddress)
}

func (s *Server) isRegistered(ctx context.Context, macs string) (oapi.Response, error) {
	found, err := s.P.IsRegistered(ctx, macs)
	if err != nil {
		return oapi.Response{}, err
	}
	return oapi.JSON(http.StatusOK, found)
}

// MachinesSetZone moves machines to a zone.
func (s *Server) MachinesSetZone(ctx context.Context, p api.MachinesSetZoneParams) (oapi.Response, error) {
	if err := s.P.SetZone(ctx, p.Zone, p.Nodes); err != nil {
		return oapi.Response{}, err
	}
	return oapi.Null()
}

// MachineRead answers one machine.
func (s *Server) MachineRead(ctx context.Context, p api.MachineReadParams) (oapi.Response, error) {
	return machine(s.P.Machine(ctx, p.SystemID))
}

// MachineUpdate changes a machine.
func (s *Server) MachineUpdate(ctx context.Context, p api.MachineUpdateParams) (oapi.Response, error) {
	return machine(s.P.UpdateMachine(ctx, p.SystemID, provisioner.MachineSpec{Architecture: p.Architecture, MinHWEKernel: p.MinHWEKernel,
		HWEKernel: p.HWEKernel, Hostname: p.Hostname, Description: p.Description, Domain: p.Domain, Zone: p.Zone, Pool: p.Pool, PowerType: p.PowerType,
		PowerParameters: powerParams(&p.Input), SkipPowerCheck: yes(p.PowerParametersSkipCheck), CPUCount: p.CPUCount, Memory: p.Memory,
		SwapSize: p.SwapSize, EnableHWSync: p.EnableHWSync}))
}

// MachineDelete removes a machine.
func (s *Server) MachineDelete(ctx context.Context, p api.MachineDeleteParams) (oapi.Response, error) {
	if err := s.P.DeleteMachine(ctx, p.SystemID, yes(p.Force)); err != nil {
		return oapi.Response{}, err
	}
	return oapi.NoContent()
}

// MachineDeploy installs an operating system.
func (s *Server) MachineDeploy(ctx context.Context, p api.MachineDeployParams) (oapi.Response, error) {
	var removed []string
	for name, v := range map[string]*bool{"install_kvm": p.InstallKVM, "install_rackd": p.InstallRackd, "register_vmhost": p.RegisterVmhost} {
		if yes(v) {
			removed = append(removed, name)
		}
	}
	return machine(s.P.Deploy(ctx, p.SystemID, provisioner.DeployRequest{DistroSeries: text(p.DistroSeries), HWEKernel: text(p.HWEKernel), LicenseKey: p.LicenseKey,
		UserData: text(p.UserData), AgentName: text(p.AgentName), Comment: text(p.Comment), Ephemeral: yes(p.EphemeralDeploy),
		EnableHWSync: yes(p.EnableHWSync), VCenter: p.VcenterRegistration, RemovedFlags: removed, Bridges: bridgeAll(p.BridgeAll, p.BridgeType, p.BridgeSTP, p.BridgeFd)}))
}

// MachineRelease gives a machine back.
func (s *Server) MachineRelease(ctx context.Context, p api.MachineReleaseParams) (oapi.Response, error) {
	return machine(s.P.Release(ctx, p.SystemID, provisioner.ReleaseRequest{Comment: text(p.Comment), Erase: p.Erase, Secure: p.SecureErase,
		Quick: p.QuickErase, Force: yes(p.Force), Scripts: strings.Join(p.Scripts, ",")}))
}

// MachineCommission inventories a machine anew.
func (s *Server) MachineCommission(ctx context.Context, p api.MachineCommissionParams) (oapi.Response, error) {
	return machine(s.P.Commission(ctx, p.SystemID, provisioner.CommissionParams{EnableSSH: yes(p.EnableSSH), SkipBMCConfig: yes(p.SkipBMCConfig),
		SkipNetworking: yes(p.SkipNetworking), SkipStorage: yes(p.SkipStorage), CommissioningScripts: p.CommissioningScripts, TestingScripts: p.TestingScripts,
		ScriptParams: scriptParams(&p.Input)}))
}

// MachineAbort ends what a machine is doing.
func (s *Server) MachineAbort(ctx context.Context, p api.MachineAbortParams) (oapi.Response, error) {
	return machine(s.P.Abort(ctx, p.SystemID, text(p.Comment)))
}

// MachineOverrideFailedTesting puts a machine whose tests failed to use.
func (s *Server) MachineOverrideFailedTesting(ctx context.Context, p api.MachineOverrideFailedTestingParams) (oapi.Response, error) {
	return machine(s.P.OverrideFailedTesting(ctx, p.SystemID, text(p.Comment)))
}

// MachinePowerOn switches a machine on.
func (s *Server) MachinePowerOn(ctx context.Context, p api.MachinePowerOnParams) (oapi.Response, error) {
	return machine(s.P.PowerOn(ctx, p.SystemID, text(p.UserData), text(p.Comment)))
}

// MachinePowerOff switches a machine off; null when the server has nothing to do it by.
func (s *Server) MachinePowerOff(ctx context.Context, p api.MachinePowerOffParams) (oapi.Response, error) {
	b, err := s.P.PowerOff(ctx, p.SystemID, text(p.StopMode), text(p.Comment))
	if err == nil && b == nil {
		return oapi.Null()
	}
	return machine(b, err)
}

// MachineQueryPowerState asks the BMC.
func (s *Server) MachineQueryPowerState(ctx context.Context, p api.MachineQueryPowerStateParams) (oapi.Response, error) {
	state, err := s.P.QueryPower(ctx, p.SystemID)
	if err != nil {
		return oapi.Response{}, err
	}
	return oapi.JSON(http.StatusOK, api.PowerState{State: state})
}

// MachinePowerParameters answers a machine's power parameters, for administrators.
func (s *Server) MachinePowerParameters(ctx context.Context, p api.MachinePowerParametersParams) (oapi.Response, error) {
	return s.powerParameters(ctx, p.SystemID)
}

func (s *Server) powerParameters(ctx context.Context, systemID string) (oapi.Response, error) {
	params, err := s.P.PowerParameters(ctx, systemID)
	if err != nil {
		return oapi.Response{}, err
	}
	return oapi.JSON(http.StatusOK, params)
}

// MachineMarkBroken takes a machine out of use.
func (s *Server) MachineMarkBroken(ctx context.Context, p api.MachineMarkBrokenParams) (oapi.Response, error) {
	comment := text(p.Comment)
	if comment == "" {
		comment = text(p.ErrorDescription)
	}
	return machine(s.P.MarkBroken(ctx, p.SystemID, comment))
}

// MachineMarkFixed puts it to use again.
func (s *Server) MachineMarkFixed(ctx context.Context, p api.MachineMarkFixedParams) (oapi.Response, error) {
	return machine(s.P.MarkFixed(ctx, p.SystemID, text(p.Comment)))
}

// MachineRescueMode boots a machine to be looked at.
func (s *Server) MachineRescueMode(ctx context.Context, p api.MachineRescueModeParams) (oapi.Response, error) {
	return machine(s.P.RescueMode(ctx, p.SystemID))
}

// MachineExitRescueMode ends that.
func (s *Server) MachineExitRescueMode(ctx context.Context, p api.MachineExitRescueModeParams) (oapi.Response, error) {
	return machine(s.P.ExitRescueMode(ctx, p.SystemID))
}

// MachineLock protects a machine.
func (s *Server) MachineLock(ctx context.Context, p api.MachineLockParams) (oapi.Response, error) {
	return machine(s.P.Lock(ctx, p.SystemID, text(p.Comment)))
}

// MachineUnlock ends the protection.
func (s *Server) MachineUnlock(ctx context.Context, p api.MachineUnlockParams) (oapi.Response, error) {
	return machine(s.P.Unlock(ctx, p.SystemID, text(p.Comment)))
}

// MachineSetWorkloadAnnotations writes workload annotations.
func (s *Server) MachineSetWorkloadAnnotations(ctx context.Context, p api.MachineSetWorkloadAnnotationsParams) (oapi.Response, error) {
	return s.setOwnerData(ctx, p.SystemID, &p.Input)
}

// MachineSetOwnerData is the old name of the same.
func (s *Server) MachineSetOwnerData(ctx context.Context, p api.MachineSetOwnerDataParams) (oapi.Response, error) {
	return s.setOwnerData(ctx, p.SystemID, &p.Input)
}

func (s *Server) setOwnerData(ctx context.Context, systemID string, in *api.Input) (oapi.Response, error) {
	return machine(s.P.SetOwnerData(ctx, systemID, ownerData(in)))
}

// ownerData are the keys of a request, the last value of each.
func ownerData(in *api.Input) map[string]string {
	data := map[string]string{}
	for k, v := range in.Sent {
		if k != "op" && len(v) > 0 {
			data[k] = v[len(v)-1]
		}
	}
	return data
}

// bridgeAll is what allocate and deploy are told of bridges on every interface. The delay is 0 here where create_bridge has 15.
func bridgeAll(all *bool, kind *string, stp *bool, fd *int64) provisioner.BridgeAll {
	if fd == nil {
		fd = new(int64)
	}
	return provisioner.BridgeAll{Wanted: yes(all), Type: kind, STP: stp, FD: fd}
}

// MachineRestoreNetworkingConfiguration makes a machine's network what it was after commissioning.
func (s *Server) MachineRestoreNetworkingConfiguration(ctx context.Context, p api.MachineRestoreNetworkingConfigurationParams) (oapi.Response, error) {
	return machine(s.P.RestoreNetworking(ctx, p.SystemID))
}

// MachineRestoreDefaultConfiguration makes a machine's network and storage what they were after commissioning.
func (s *Server) MachineRestoreDefaultConfiguration(ctx context.Context, p api.MachineRestoreDefaultConfigurationParams) (oapi.Response, error) {
	return machine(s.P.RestoreDefaults(ctx, p.SystemID))
}
