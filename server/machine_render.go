package server

import (
	"encoding/json"
	"time"

	"github.com/ingot-metal/ingot/api"
	"github.com/ingot-metal/ingot/provisioner"
	"github.com/ingot-metal/ingot/storage"
)

var nodeTypeNames = map[int64]string{storage.NodeMachine: "Machine", storage.NodeDevice: "Device", storage.NodeRack: "Rack controller",
	storage.NodeRegion: "Region controller", storage.NodeRegionRack: "Region and rack controller"}

// setStatus is the status of a whole script set.
func setStatus(s *storage.SetSummary) int64 {
	if s == nil {
		return -1
	}
	return provisioner.ScriptSetStatus(s.Counts)
}

// testStatus is how the tests of one kind of hardware stand, with its name.
func testStatus(s *storage.SetSummary, hardware int64) (int64, string) {
	st := int64(-1)
	if s != nil {
		st = provisioner.ScriptSetStatus(s.Hardware[hardware])
	}
	return st, provisioner.ScriptStatusName(st)
}

// interfaceTestStatus is how the tests of single interfaces stand.
func interfaceTestStatus(s *storage.SetSummary) (int64, string) {
	st := int64(-1)
	if s != nil {
		st = provisioner.ScriptSetStatus(s.Interfaces)
	}
	return st, provisioner.ScriptStatusName(st)
}

func setID(s *storage.SetSummary) *int64 {
	if s == nil {
		return nil
	}
	return &s.ID
}

func orNull(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

func mapOf(m map[string]string) map[string]string {
	if m == nil {
		return map[string]string{}
	}
	return m
}

// fqdn is a node's name with its domain.
func fqdn(b *storage.Bundle) string {
	if d := b.Cat.Domains[b.Node.DomainID]; d != nil && d.Name != "" {
		return b.Node.Hostname + "." + d.Name
	}
	return b.Node.Hostname
}

// machineRenderer renders the machines of one answer. Objects that many machines refer to are rendered once.
type machineRenderer struct {
	zones   map[int64]api.Zone
	pools   map[int64]*api.ResourcePool
	domains map[int64]api.Domain
}

func newMachineRenderer() *machineRenderer {
	return &machineRenderer{map[int64]api.Zone{}, map[int64]*api.ResourcePool{}, map[int64]api.Domain{}}
}

func (r *machineRenderer) zone(c *storage.Catalogue, id int64) api.Zone {
	z, ok := r.zones[id]
	if !ok {
		if rec := c.Zones[id]; rec != nil {
			z = renderZone(*rec)
		}
		r.zones[id] = z
	}
	return z
}

func (r *machineRenderer) pool(c *storage.Catalogue, id *int64) *api.ResourcePool {
	if id == nil {
		return nil
	}
	p, ok := r.pools[*id]
	if !ok {
		if rec := c.Pools[*id]; rec != nil {
			v := renderPool(*rec)
			p = &v
		}
		r.pools[*id] = p
	}
	return p
}

func (r *machineRenderer) domain(c *storage.Catalogue, id int64) api.Domain {
	d, ok := r.domains[id]
	if !ok {
		if rec := c.Domains[id]; rec != nil {
			d = renderDomain(*rec, 0)
		}
		r.domains[id] = d
	}
	return d
}

// renderMachine renders one machine.
func renderMachine(b *storage.Bundle) api.Machine { return newMachineRenderer().machine(b) }

// renderMachines renders a list of machines.
func renderMachines(bundles []*storage.Bundle) []api.Machine {
	r := newMachineRenderer()
	out := make([]api.Machine, len(bundles))
	for i, b := range bundles {
		out[i] = r.machine(b)
	}
	return out
}

func (r *machineRenderer) machine(b *storage.Bundle) api.Machine {
	n, c := &b.Node, b.Cat
	m := api.Machine{
		ResourceURI: apiRoot + "machines/" + n.SystemID + "/", SystemID: n.SystemID, Hostname: n.Hostname, FQDN: fqdn(b), Description: n.Description,
		Domain: r.domain(c, n.DomainID), HardwareUUID: n.HardwareUUID, OwnerData: mapOf(b.OwnerData), WorkloadAnnotations: mapOf(b.OwnerData),
		Locked: n.Locked, Status: int64(n.Status), StatusName: n.Status.String(), ErrorDescription: n.ErrorDescription, NodeType: n.NodeType,
		NodeTypeName: nodeTypeNames[n.NodeType], Architecture: orNull(n.Architecture), MinHWEKernel: &n.MinHWEKernel, HWEKernel: orNull(n.HWEKernel),
		Osystem: n.Osystem, DistroSeries: n.DistroSeries, EphemeralDeploy: n.EphemeralDeploy, Netboot: n.Netboot, CPUCount: n.CPUCount,
		CPUSpeed: n.CPUSpeed, Memory: n.Memory, SwapSize: n.SwapSize, PowerType: n.PowerType, PowerState: n.PowerState,
		BiosBootMethod: n.BIOSBootMethod, HardwareInfo: hardwareInfo(b.Metadata), TagNames: listOf(b.Tags), Zone: r.zone(c, n.ZoneID),
		Pool: r.pool(c, n.PoolID), EnableHWSync: n.EnableHWSync, DefaultGateways: defaultGateways(b), NumanodeSet: numaNodes(n.NUMA),
	}
	if n.OwnerID != nil {
		if name, ok := c.Users[*n.OwnerID]; ok {
			m.Owner = &name
		}
	}
	if interval, last := provisioner.Sync(b); interval > 0 {
		m.SyncInterval = &interval
		if !last.IsZero() {
			at, next := api.T1(last), api.T1(last.Add(time.Duration(interval)*time.Second))
			m.LastSync, m.NextSync = &at, &next
		}
	}
	if b.Event != nil {
		line := provisioner.EventLine(*b.Event)
		m.StatusAction, m.StatusMessage = &b.Event.Action, &line
	}
	if b.Parent != "" {
		uri := apiRoot + "machines/" + b.Parent + "/"
		m.Parent = &api.Stub{SystemID: b.Parent, ResourceURI: &uri, Incomplete: true}
	}
	m.IPAddresses = ipAddresses(b)
	m.InterfaceSet = make([]api.Interface, len(b.Interfaces))
	for i, nic := range b.Interfaces {
		m.InterfaceSet[i] = renderInterface(c, n.SystemID, nic)
		if n.BootInterfaceID != nil && *n.BootInterfaceID == nic.ID {
			boot := m.InterfaceSet[i]
			m.BootInterface = &boot
		}
	}
	r.disks(b, &m)
	testing := b.Sets[storage.SetTesting]
	m.CurrentCommissioningResultID, m.CurrentTestingResultID = setID(b.Sets[storage.SetCommissioning]), setID(testing)
	m.CurrentInstallationResultID = setID(b.Sets[storage.SetInstallation])
	m.CommissioningStatus, m.TestingStatus = setStatus(b.Sets[storage.SetCommissioning]), setStatus(testing)
	m.CommissioningStatusName, m.TestingStatusName = provisioner.ScriptStatusName(m.CommissioningStatus), provisioner.ScriptStatusName(m.TestingStatus)
	m.CPUTestStatus, m.CPUTestStatusName = testStatus(testing, provisioner.HardwareCPU)
	m.MemoryTestStatus, m.MemoryTestStatusName = testStatus(testing, provisioner.HardwareMemory)
	m.StorageTestStatus, m.StorageTestStatusName = testStatus(testing, provisioner.HardwareStorage)
	m.NetworkTestStatus, m.NetworkTestStatusName = testStatus(testing, provisioner.HardwareNetwork)
	m.OtherTestStatus, m.OtherTestStatusName = testStatus(testing, provisioner.HardwareNode)
	m.InterfaceTestStatus, m.InterfaceTestStatusName = interfaceTestStatus(testing)
	return m
}

// ipAddresses are the addresses that were given, else those that were seen.
func ipAddresses(b *storage.Bundle) []string {
	given, seen := []string{}, []string{}
	for _, i := range b.Interfaces {
		for _, l := range i.Links {
			switch {
			case !l.IP.IsValid():
			case l.AllocType == storage.AllocDiscovered:
				seen = append(seen, l.IP.String())
			default:
				given = append(given, l.IP.String())
			}
		}
	}
	if len(given) > 0 {
		return given
	}
	return seen
}

func defaultGateways(b *storage.Bundle) map[string]any {
	type gateway struct {
		GatewayIP *string `json:"gateway_ip"`
		LinkID    *int64  `json:"link_id"`
	}
	v4, v6 := gateway{}, gateway{}
	for _, i := range b.Interfaces {
		for _, l := range i.Links {
			if l.SubnetID == nil || l.AllocType == storage.AllocDiscovered {
				continue
			}
			s := b.Cat.Subnets[*l.SubnetID]
			if s == nil || s.GatewayIP == nil {
				continue
			}
			g := &v4
			if s.FirstIP.Is6() {
				g = &v6
			}
			if l.DefaultGateway {
				id := l.ID
				g.GatewayIP, g.LinkID = s.GatewayIP, &id
			} else if g.GatewayIP == nil {
				g.GatewayIP = s.GatewayIP
			}
		}
	}
	return map[string]any{"ipv4": v4, "ipv6": v6}
}

func numaNodes(raw json.RawMessage) []api.NumaNode {
	out := []api.NumaNode{}
	if len(raw) > 2 {
		_ = json.Unmarshal(raw, &out) // the store holds what the inventory wrote
	}
	for i := range out {
		if out[i].Cores == nil {
			out[i].Cores = []int64{}
		}
		if out[i].HugepagesSet == nil {
			out[i].HugepagesSet = []map[string]any{}
		}
	}
	if len(out) == 0 { // a machine has a node from its beginning
		out = append(out, api.NumaNode{Cores: []int64{}, HugepagesSet: []map[string]any{}})
	}
	return out
}

func hardwareInfo(m map[string]string) api.HardwareInfo {
	get := func(k string) string {
		if v := m[k]; v != "" {
			return v
		}
		return "Unknown"
	}
	return api.HardwareInfo{SystemVendor: get("system_vendor"), SystemProduct: get("system_product"), SystemFamily: get("system_family"),
		SystemVersion: get("system_version"), SystemSku: get("system_sku"), SystemSerial: get("system_serial"), CPUModel: get("cpu_model"),
		MainboardVendor: get("mainboard_vendor"), MainboardProduct: get("mainboard_product"), MainboardSerial: get("mainboard_serial"),
		MainboardVersion: get("mainboard_version"), MainboardFirmwareVendor: get("mainboard_firmware_vendor"),
		MainboardFirmwareDate: get("mainboard_firmware_date"), MainboardFirmwareVersion: get("mainboard_firmware_version"),
		ChassisVendor: get("chassis_vendor"), ChassisType: get("chassis_type"), ChassisSerial: get("chassis_serial"), ChassisVersion: get("chassis_version")}
}

// renderAnonMachine is what a machine that enlists itself is told: exactly these keys.
func renderAnonMachine(b *storage.Bundle) api.AnonMachine {
	m := renderMachine(b)
	return api.AnonMachine{ResourceURI: m.ResourceURI, SystemID: m.SystemID, Hostname: m.Hostname, FQDN: m.FQDN,
		Domain: api.AnonDomain{ID: m.Domain.ID, Name: m.Domain.Name, TTL: m.Domain.TTL, Authoritative: m.Domain.Authoritative,
			IsDefault: m.Domain.IsDefault, ResourceRecordCount: m.Domain.ResourceRecordCount},
		Zone: api.AnonZone{ID: m.Zone.ID, Name: m.Zone.Name, Description: m.Zone.Description}, Architecture: m.Architecture, Status: m.Status,
		StatusName: m.StatusName, StatusAction: m.StatusAction, StatusMessage: m.StatusMessage, PowerType: m.PowerType, PowerState: m.PowerState, NodeType: m.NodeType}
}
