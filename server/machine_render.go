package server

import (
	"encoding/json"
	"fmt"

	"github.com/ingot-metal/ingot/api"
	"github.com/ingot-metal/ingot/provisioner"
	"github.com/ingot-metal/ingot/storage"
)

var nodeTypeNames = map[int64]string{storage.NodeMachine: "Machine", storage.NodeDevice: "Device", storage.NodeRack: "Rack controller",
	storage.NodeRegion: "Region controller", storage.NodeRegionRack: "Region and rack controller"}

var scriptStatusNames = map[int64]string{-1: "Unknown", 0: "Pending", 1: "Running", 2: "Passed", 3: "Failed", 4: "Timed out", 5: "Aborted", 6: "Degraded",
	7: "Installing dependencies", 8: "Failed installing dependencies", 9: "Skipped", 10: "Applying custom network configuration",
	11: "Failed to apply custom network configuration"}

// setStatus is the status of a whole script set: the first of these groups that is present.
func setStatus(s *storage.SetSummary) int64 {
	if s == nil || len(s.Counts) == 0 {
		return -1
	}
	any := func(statuses ...int64) bool {
		for _, st := range statuses {
			if s.Counts[st] > 0 {
				return true
			}
		}
		return false
	}
	switch {
	case any(1, 7, 10):
		return 1
	case any(0):
		return 0
	case any(5):
		return 5
	case any(3, 4, 8, 11):
		return 3
	case any(6):
		return 6
	}
	return 2
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
		Pool: r.pool(c, n.PoolID), VolumeGroups: []api.Stub{}, Raids: []api.Stub{}, Bcaches: []api.Stub{}, CacheSets: []api.Stub{},
		SpecialFilesystems: []api.Filesystem{}, EnableHWSync: n.EnableHWSync, DefaultGateways: defaultGateways(b), NumanodeSet: numaNodes(n.NUMA),
	}
	if n.OwnerID != nil {
		if name, ok := c.Users[*n.OwnerID]; ok {
			m.Owner = &name
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
	for _, f := range b.Special {
		m.SpecialFilesystems = append(m.SpecialFilesystems, *renderFilesystem(&f))
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
	m.CommissioningStatusName, m.TestingStatusName = scriptStatusNames[m.CommissioningStatus], scriptStatusNames[m.TestingStatus]
	// Results by hardware type need test scripts, which are not built yet.
	const none = "Unknown"
	m.CPUTestStatus, m.MemoryTestStatus, m.NetworkTestStatus, m.StorageTestStatus, m.OtherTestStatus, m.InterfaceTestStatus = -1, -1, -1, -1, -1, -1
	m.CPUTestStatusName, m.MemoryTestStatusName, m.NetworkTestStatusName = none, none, none
	m.StorageTestStatusName, m.OtherTestStatusName, m.InterfaceTestStatusName = none, none, none
	return m
}

// disks fills the storage fields. storage is in MB over the physical disks.
func (r *machineRenderer) disks(b *storage.Bundle, m *api.Machine) {
	m.BlockdeviceSet, m.PhysicalblockdeviceSet, m.VirtualblockdeviceSet = []api.BlockDevice{}, []api.BlockDevice{}, []api.BlockDevice{}
	var total int64
	boot := provisioner.BootDisk(b)
	for _, d := range b.Disks {
		rendered := renderBlockDevice(b.Node.SystemID, d)
		m.BlockdeviceSet = append(m.BlockdeviceSet, rendered)
		if d.Type == "physical" {
			total += d.Size
			m.PhysicalblockdeviceSet = append(m.PhysicalblockdeviceSet, rendered)
		} else {
			m.VirtualblockdeviceSet = append(m.VirtualblockdeviceSet, rendered)
		}
		if d == boot {
			m.BootDisk = &rendered
		}
	}
	m.Storage = float64(total) / 1e6
}

func renderFilesystem(f *storage.Filesystem) *api.Filesystem {
	if f == nil {
		return nil
	}
	uuid := f.UUID
	if uuid == nil {
		uuid = new(string) // clients want a string
	}
	return &api.Filesystem{Fstype: f.Fstype, Label: f.Label, UUID: uuid, MountPoint: f.MountPoint, MountOptions: f.MountOptions}
}

func usedFor(f *storage.Filesystem) string {
	switch {
	case f == nil:
		return "Unused"
	case f.MountPoint != nil && *f.MountPoint != "":
		return fmt.Sprintf("%s formatted filesystem mounted at %s", f.Fstype, *f.MountPoint)
	}
	return fmt.Sprintf("Unmounted %s formatted filesystem", f.Fstype)
}

func renderBlockDevice(systemID string, d *storage.DiskBundle) api.BlockDevice {
	uri := apiRoot + "nodes/" + systemID + "/blockdevices/" + itoa(d.ID) + "/"
	path := "/dev/disk/by-dname/" + d.Name
	out := api.BlockDevice{ResourceURI: uri, SystemID: systemID, ID: d.ID, Name: d.Name, Type: d.Type, Path: path, Model: d.Model, Serial: d.Serial,
		IDPath: d.IDPath, UUID: d.UUID, Size: d.Size, BlockSize: d.BlockSize, Tags: listOf(d.Tags), Filesystem: renderFilesystem(d.Filesystem),
		Partitions: make([]api.Partition, len(d.Partitions)), FirmwareVersion: d.FirmwareVersion, NUMANode: d.NUMANode, UsedFor: usedFor(d.Filesystem)}
	if d.Filesystem != nil {
		out.UsedSize = d.Size
	}
	if d.PartitionTable != "" {
		out.PartitionTableType = &d.PartitionTable
		out.UsedFor = fmt.Sprintf("%s partitioned with %d partition%s", d.PartitionTable, len(d.Partitions), map[bool]string{true: "", false: "s"}[len(d.Partitions) == 1])
		// What alignment and the table itself take cannot be used either.
		out.UsedSize = 5 << 20
	}
	for i, p := range d.Partitions {
		out.UsedSize += p.Size
		out.Partitions[i] = api.Partition{ResourceURI: uri + "partition/" + itoa(p.ID), SystemID: systemID, DeviceID: d.ID, ID: p.ID, UUID: &p.UUID,
			Path: fmt.Sprintf("%s-part%d", path, p.Number), Type: "partition", Size: p.Size, Bootable: p.Bootable,
			Filesystem: renderFilesystem(p.Filesystem), UsedFor: usedFor(p.Filesystem), Tags: listOf(p.Tags)}
	}
	out.UsedSize = min(out.UsedSize, d.Size)
	out.AvailableSize = d.Size - out.UsedSize
	if d.PartitionTable != "" {
		out.AvailableSize = out.AvailableSize / (4 << 20) * (4 << 20)
	}
	return out
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
