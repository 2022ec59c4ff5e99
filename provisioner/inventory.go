package provisioner

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/ingot-metal/ingot/provisioner/layout"
	"github.com/ingot-metal/ingot/storage"
)

// inventory is the machine-resources document, as much of it as the region reads.
type inventory struct {
	APIVersion    string   `json:"api_version"`
	APIExtensions []string `json:"api_extensions"`
	Environment   struct {
		KernelArchitecture string `json:"kernel_architecture"`
		Firmware           string `json:"firmware"` // Ingot's agent: bios or uefi
	} `json:"environment"`
	Resources struct {
		CPU struct {
			Total   int64 `json:"total"`
			Sockets []struct {
				Name           string  `json:"name"`
				Frequency      float64 `json:"frequency"`
				FrequencyTurbo float64 `json:"frequency_turbo"`
				Cores          []struct {
					Threads []struct {
						ID       int64 `json:"id"`
						NUMANode int64 `json:"numa_node"`
					} `json:"threads"`
				} `json:"cores"`
			} `json:"sockets"`
		} `json:"cpu"`
		Memory struct {
			Total         int64 `json:"total"`
			HugepagesSize int64 `json:"hugepages_size"`
			Nodes         []struct {
				NUMANode       int64 `json:"numa_node"`
				Total          int64 `json:"total"`
				HugepagesTotal int64 `json:"hugepages_total"`
			} `json:"nodes"`
		} `json:"memory"`
		Network struct {
			Cards []inventoryCard `json:"cards"`
		} `json:"network"`
		Storage struct {
			Disks []inventoryDisk `json:"disks"`
		} `json:"storage"`
		System inventorySystem `json:"system"`
	} `json:"resources"`
	Networks map[string]inventoryNetwork `json:"networks"`
}

type inventoryCard struct {
	Vendor          string `json:"vendor"`
	Product         string `json:"product"`
	NUMANode        *int64 `json:"numa_node"`
	FirmwareVersion string `json:"firmware_version"`
	SRIOV           *struct {
		MaximumVFs int64 `json:"maximum_vfs"`
	} `json:"sriov"`
	Ports []struct {
		ID             string   `json:"id"`
		Address        string   `json:"address"`
		SupportedModes []string `json:"supported_modes"`
		LinkDetected   bool     `json:"link_detected"`
		LinkSpeed      int64    `json:"link_speed"`
	} `json:"ports"`
}

type inventoryDisk struct {
	ID              string `json:"id"`
	Model           string `json:"model"`
	Type            string `json:"type"`
	ReadOnly        bool   `json:"read_only"`
	Removable       bool   `json:"removable"`
	Size            int64  `json:"size"`
	BlockSize       int64  `json:"block_size"`
	RPM             int64  `json:"rpm"`
	Serial          string `json:"serial"`
	DeviceID        string `json:"device_id"`
	DevicePath      string `json:"device_path"`
	FirmwareVersion string `json:"firmware_version"`
	NUMANode        *int64 `json:"numa_node"`
}

type inventorySystem struct {
	UUID        string `json:"uuid"`
	Vendor      string `json:"vendor"`
	Product     string `json:"product"`
	Family      string `json:"family"`
	Version     string `json:"version"`
	SKU         string `json:"sku"`
	Serial      string `json:"serial"`
	Type        string `json:"type"`
	Motherboard *struct {
		Vendor  string `json:"vendor"`
		Product string `json:"product"`
		Serial  string `json:"serial"`
		Version string `json:"version"`
	} `json:"motherboard"`
	Firmware *struct {
		Vendor  string `json:"vendor"`
		Date    string `json:"date"`
		Version string `json:"version"`
	} `json:"firmware"`
	Chassis *struct {
		Vendor  string `json:"vendor"`
		Type    string `json:"type"`
		Serial  string `json:"serial"`
		Version string `json:"version"`
	} `json:"chassis"`
}

type inventoryNetwork struct {
	Type      string `json:"type"`
	HWAddr    string `json:"hwaddr"`
	State     string `json:"state"`
	Addresses []struct {
		Family  string `json:"family"`
		Address string `json:"address"`
		Netmask string `json:"netmask"`
		Scope   string `json:"scope"`
	} `json:"addresses"`
	Bridge *struct{} `json:"bridge"`
	Bond   *struct{} `json:"bond"`
	VLAN   *struct{} `json:"vlan"`
}

// The bounds of an inventory. It comes from a machine, which may be anybody's.
const (
	maxNICs    = 256
	maxDisks   = 4096
	maxThreads = 1 << 16
	maxText    = 255
)

var wantedExtensions = []string{"resources", "resources_v2", "api_os", "resources_system", "resources_usb_pci"}

// parseInventory reads and checks the document.
func parseInventory(data []byte) (*inventory, error) {
	var inv inventory
	if err := json.Unmarshal(data, &inv); err != nil {
		return nil, fmt.Errorf("the inventory is not JSON of the expected shape: %w", err)
	}
	if inv.APIVersion != "1.0" {
		return nil, fmt.Errorf("the inventory has version %q, not 1.0", clip(inv.APIVersion))
	}
	for _, e := range wantedExtensions {
		if !slices.Contains(inv.APIExtensions, e) {
			return nil, fmt.Errorf("the inventory lacks the extension %s", e)
		}
	}
	r := &inv.Resources
	switch {
	case len(inv.Networks) > maxNICs || len(r.Network.Cards) > maxNICs:
		return nil, errors.New("the inventory has too many interfaces")
	case len(r.Storage.Disks) > maxDisks:
		return nil, errors.New("the inventory has too many disks")
	case r.CPU.Total < 0 || r.CPU.Total > maxThreads || r.Memory.Total < 0:
		return nil, errors.New("the inventory's CPU count or memory makes no sense")
	}
	return &inv, nil
}

var uuidText = regexp.MustCompile(`^[0-9a-fA-F]{8}-?[0-9a-fA-F]{4}-?[0-9a-fA-F]{4}-?[0-9a-fA-F]{4}-?[0-9a-fA-F]{12}$`)

var debianArch = map[string]string{"x86_64": "amd64", "i686": "i386", "i586": "i386", "i386": "i386", "aarch64": "arm64", "armv7l": "armhf",
	"ppc64le": "ppc64el", "s390x": "s390x", "riscv64": "riscv64"}

// applyInventory writes what a machine found out about itself, into n (which it saves) and the tables around it.
func (s *Service) applyInventory(tx *storage.Tx, n *storage.Node, data []byte) error {
	inv, err := parseInventory(data)
	if err != nil {
		return err
	}
	commissioning := !in(n.Status, storage.StatusDeployed, storage.StatusDeploying)
	if arch := debianArch[inv.Environment.KernelArchitecture]; arch != "" && !strings.HasPrefix(n.Architecture, arch+"/") {
		n.Architecture = arch + "/generic"
	}
	if commissioning {
		firmware(n, inv.Environment.Firmware)
	}
	n.CPUCount = inv.Resources.CPU.Total
	n.Memory = inv.Resources.Memory.Total >> 20
	model, speed := cpuModel(inv)
	n.CPUSpeed = speed
	if n.NUMA, err = numaNodes(inv, n.Status == storage.StatusDeployed); err != nil {
		return err
	}
	if err := s.applySystem(tx, n, &inv.Resources.System, model); err != nil {
		return err
	}
	if !hasFlag(n, flagSkipNetworking) {
		if err := s.applyInterfaces(tx, n, inv, commissioning); err != nil {
			return err
		}
	}
	if !hasFlag(n, flagSkipStorage) {
		if err := s.applyDisks(tx, n, inv); err != nil {
			return err
		}
	}
	if err := s.applyNodeDevices(tx, n, data); err != nil {
		return err
	}
	if err := s.touchRevision(tx, n); err != nil {
		return err
	}
	if err := tx.UpdateNode(n); err != nil {
		return err
	}
	if !commissioning {
		return nil
	}
	if !hasFlag(n, flagSkipNetworking) {
		link, err := s.settingText(tx, "default_boot_interface_link_type", "auto")
		if err != nil {
			return err
		}
		if err := s.setInitialLinks(tx, n.ID, link); err != nil {
			return err
		}
	}
	if hasFlag(n, flagSkipStorage) {
		return nil
	}
	custom := storageExtra(data)
	if custom != nil {
		if _, err := layout.ParseCustom(custom); err != nil {
			return err
		}
	}
	return s.commissionedLayout(tx, n, custom)
}

// firmware takes what the running system says over what the boot loader suggested.
func firmware(n *storage.Node, kind string) {
	method := map[string]string{"uefi": "uefi", "bios": "pxe"}[kind]
	if method == "" || kind == "uefi" && isUEFI(n) || kind == "bios" && n.BIOSBootMethod != nil && !isUEFI(n) {
		return
	}
	n.BIOSBootMethod = &method
}

var modelSpeed = regexp.MustCompile(`@ ([0-9]+(?:\.[0-9]+)?)\s?GHz$`)

// cpuModel is the name that all sockets agree on, and the speed in MHz.
func cpuModel(inv *inventory) (model string, speed int64) {
	var turbo, sum, count float64
	agree := true
	for _, c := range inv.Resources.CPU.Sockets {
		turbo = max(turbo, c.FrequencyTurbo)
		if c.Frequency > 0 {
			sum, count = sum+c.Frequency, count+1
		}
		if c.Name == "" {
			continue
		}
		if model != "" && c.Name != model {
			agree = false
		}
		model = c.Name
	}
	if !agree {
		model = ""
	}
	switch m := modelSpeed.FindStringSubmatch(model); {
	case m != nil:
		ghz, _ := strconv.ParseFloat(m[1], 64) // digits by the expression
		speed = int64(math.Round(ghz * 1000))
	case turbo > 0:
		speed = int64(turbo)
	case count > 0:
		speed = int64(math.Round(sum/count/100) * 100)
	}
	name, _, _ := strings.Cut(model, " @")
	return clip(name), min(max(speed, 0), 1<<31)
}

type numaNode struct {
	Index     int64          `json:"index"`
	Cores     []int64        `json:"cores"`
	Memory    int64          `json:"memory"` // MiB
	Hugepages []numaHugepage `json:"hugepages_set"`
}

type numaHugepage struct {
	Total    int64 `json:"total"`
	PageSize int64 `json:"page_size"`
}

func numaNodes(inv *inventory, hugepages bool) (json.RawMessage, error) {
	nodes := map[int64]*numaNode{}
	get := func(i int64) *numaNode {
		if nodes[i] == nil {
			nodes[i] = &numaNode{Index: i, Cores: []int64{}, Hugepages: []numaHugepage{}}
		}
		return nodes[i]
	}
	mem := inv.Resources.Memory
	for _, m := range mem.Nodes {
		g := get(m.NUMANode)
		g.Memory = m.Total >> 20
		if hugepages && mem.HugepagesSize > 0 {
			g.Hugepages = append(g.Hugepages, numaHugepage{m.HugepagesTotal * mem.HugepagesSize, mem.HugepagesSize})
		}
	}
	if len(mem.Nodes) == 0 {
		get(0).Memory = mem.Total >> 20
	}
	for _, socket := range inv.Resources.CPU.Sockets {
		for _, core := range socket.Cores {
			for _, t := range core.Threads {
				i := t.NUMANode
				if len(mem.Nodes) == 0 {
					i = 0
				}
				g := get(i)
				g.Cores = append(g.Cores, t.ID)
			}
		}
	}
	out := []*numaNode{}
	for _, i := range slices.Sorted(maps.Keys(nodes)) {
		slices.Sort(nodes[i].Cores)
		out = append(out, nodes[i])
	}
	return json.Marshal(out)
}

// applySystem writes identity and hardware facts. Values that mean nothing remove their key.
func (s *Service) applySystem(tx *storage.Tx, n *storage.Node, sys *inventorySystem, model string) error {
	if uuidText.MatchString(sys.UUID) {
		uuid := strings.ToLower(sys.UUID)
		others, err := tx.NodesWithUUID(uuid, n.ID)
		if err != nil {
			return err
		}
		if n.HardwareUUID = &uuid; others > 0 {
			n.HardwareUUID = nil
			if err := tx.ClearHardwareUUID(uuid); err != nil {
				return err
			}
		}
	}
	facts := map[string]string{"cpu_model": model, "system_vendor": sys.Vendor, "system_product": sys.Product, "system_family": sys.Family,
		"system_version": sys.Version, "system_sku": sys.SKU, "system_serial": sys.Serial}
	if m := sys.Motherboard; m != nil {
		maps.Copy(facts, map[string]string{"mainboard_vendor": m.Vendor, "mainboard_product": m.Product, "mainboard_serial": m.Serial, "mainboard_version": m.Version})
	}
	if f := sys.Firmware; f != nil {
		maps.Copy(facts, map[string]string{"mainboard_firmware_vendor": f.Vendor, "mainboard_firmware_date": f.Date, "mainboard_firmware_version": f.Version})
	}
	if c := sys.Chassis; c != nil {
		maps.Copy(facts, map[string]string{"chassis_vendor": c.Vendor, "chassis_type": c.Type, "chassis_serial": c.Serial, "chassis_version": c.Version})
	}
	for k, v := range facts {
		v = clip(strings.TrimSpace(v))
		if low := strings.ToLower(v); low == "0123456789" || low == "none" {
			v = ""
		}
		facts[k] = v
	}
	if err := tx.SetNodeMetadata(n.ID, facts); err != nil {
		return err
	}
	if sys.Type != "" && sys.Type != "physical" {
		return tx.TagNode(n.ID, "virtual")
	}
	return tx.UntagNode(n.ID, "virtual")
}

// nicFacts are what an inventory says of one physical interface.
type nicFacts struct {
	name, mac string
	card      *inventoryCard
	port      int
	connected bool
	net       inventoryNetwork
}

func physicalNICs(inv *inventory) []nicFacts {
	var out []nicFacts
	for _, name := range slices.Sorted(maps.Keys(inv.Networks)) {
		net := inv.Networks[name]
		f := nicFacts{name: name, mac: net.HWAddr, net: net, connected: net.State == "up"}
		for i := range inv.Resources.Network.Cards {
			c := &inv.Resources.Network.Cards[i]
			for j, p := range c.Ports {
				if p.ID == name {
					f.card, f.port = c, j
					if p.Address != "" {
						f.mac = p.Address
					}
					f.connected = f.connected && p.LinkDetected
				}
			}
		}
		mac, ok := NormalMAC(f.mac)
		if f.mac = mac; !ok || mac == "02:00:00:00:00:02" || net.Type != "broadcast" || net.Bridge != nil || net.Bond != nil || net.VLAN != nil ||
			name == "" || len(name) > maxText || slices.ContainsFunc(out, func(o nicFacts) bool { return o.mac == mac }) {
			continue
		}
		out = append(out, f)
	}
	return out
}

var modeSpeed = regexp.MustCompile(`^([0-9]{1,7})base`)

// applyInterfaces makes the machine's interfaces those of the inventory.
func (s *Service) applyInterfaces(tx *storage.Tx, n *storage.Node, inv *inventory, commissioning bool) error {
	facts := physicalNICs(inv)
	have, err := tx.InterfacesOf([]int64{n.ID})
	if err != nil {
		return err
	}
	reported := map[string]bool{}
	for _, f := range facts {
		reported[f.mac] = true
	}
	// Rows that were not reported go first, then names are freed: an interface may have got the name of another.
	kept := map[string]*storage.Interface{}
	for i := range have {
		row := &have[i]
		if row.Type == "physical" && reported[row.MACAddress] {
			kept[row.MACAddress] = row
			continue
		}
		if len(facts) == 0 {
			continue // an inventory without any interface says nothing of them
		}
		if err := tx.DeleteInterface(row.ID); err != nil {
			return err
		}
		if n.BootInterfaceID != nil && *n.BootInterfaceID == row.ID {
			n.BootInterfaceID = nil
		}
	}
	for _, f := range facts {
		if row := kept[f.mac]; row != nil && row.Name != f.name {
			row.Name = fmt.Sprintf("renaming-%d", row.ID)
			if err := tx.UpdateInterface(row); err != nil {
				return err
			}
		}
	}
	if commissioning {
		if err := tx.RemoveLinks(n.ID, storage.AllocDiscovered); err != nil {
			return err
		}
	}
	cat, err := tx.LoadCatalogue()
	if err != nil {
		return err
	}
	var first *int64
	for _, f := range facts {
		row := kept[f.mac]
		if row == nil {
			if row, err = s.adoptMAC(tx, n, f.mac); err != nil {
				return err
			}
		}
		describeNIC(row, f)
		if row.VLANID == nil && f.connected {
			if row.VLANID, err = s.vlanOfMAC(tx, f.mac); err != nil {
				return err
			}
		}
		addresses, err := s.observedAddresses(tx, cat, row, f)
		if err != nil {
			return err
		}
		if row.ID == 0 {
			err = tx.InsertInterface(row)
		} else {
			err = tx.UpdateInterface(row)
		}
		if err != nil {
			return err
		}
		if first == nil && (f.connected || len(facts) == 1) {
			first = &row.ID
		}
		if !commissioning {
			continue
		}
		for _, a := range addresses {
			a.InterfaceID = &row.ID
			if err := tx.InsertIPAddress(&a); err != nil {
				return err
			}
		}
	}
	if n.BootInterfaceID == nil {
		n.BootInterfaceID = first
	}
	return nil
}

// adoptMAC makes the row of an interface that is new to this machine. Its address may be known from another machine that it was
// taken out of: the address belongs to whoever has the hardware.
func (s *Service) adoptMAC(tx *storage.Tx, n *storage.Node, mac string) (*storage.Interface, error) {
	row := &storage.Interface{NodeID: n.ID, Type: "physical", MACAddress: mac, Enabled: true}
	all, err := tx.InterfacesByMAC(mac)
	if err != nil {
		return nil, err
	}
	for _, o := range all {
		if o.Type != "physical" {
			continue
		}
		other, err := tx.LockNode(o.NodeID)
		if err != nil {
			return nil, err
		}
		if other.NodeType == storage.NodeMachine && !in(other.Status, storage.StatusNew, storage.StatusCommissioning, storage.StatusFailedCommissioning, storage.StatusReady, storage.StatusBroken) {
			// A machine in use does not lose its network to what another one claims.
			return nil, fmt.Errorf("the address %s belongs to the machine %s, which is %s", mac, other.Hostname, other.Status)
		}
		if err := tx.DeleteInterface(o.ID); err != nil {
			return nil, err
		}
		if other.BootInterfaceID != nil && *other.BootInterfaceID == o.ID {
			other.BootInterfaceID = nil
		}
		if err := s.touchRevision(tx, &other); err != nil {
			return nil, err
		}
		if err := tx.UpdateNode(&other); err != nil {
			return nil, err
		}
	}
	return row, nil
}

func describeNIC(row *storage.Interface, f nicFacts) {
	row.Name, row.LinkConnected = f.name, f.connected
	if f.card == nil {
		return
	}
	text := func(v string) *string {
		if v = clip(strings.TrimSpace(v)); v == "" {
			return nil
		}
		return &v
	}
	port := f.card.Ports[f.port]
	row.Vendor, row.Product, row.FirmwareVersion, row.NUMANode = text(f.card.Vendor), text(f.card.Product), text(f.card.FirmwareVersion), f.card.NUMANode
	row.LinkSpeed, row.InterfaceSpeed, row.SRIOVMaxVF = max(port.LinkSpeed, 0), 0, 0
	for _, m := range port.SupportedModes {
		if x := modeSpeed.FindStringSubmatch(m); x != nil {
			v, _ := strconv.ParseInt(x[1], 10, 64) // at most seven digits
			row.InterfaceSpeed = max(row.InterfaceSpeed, v)
		}
	}
	if f.card.SRIOV != nil && f.card.SRIOV.MaximumVFs > 0 {
		row.SRIOVMaxVF = f.card.SRIOV.MaximumVFs
		if !slices.Contains(row.Tags, "sriov") {
			row.Tags = append(row.Tags, "sriov")
		}
	}
}

// observedAddresses are the interface's global addresses, each with its subnet, which is made when nobody knows it yet. The
// interface's VLAN follows the subnet.
func (s *Service) observedAddresses(tx *storage.Tx, cat *storage.Catalogue, row *storage.Interface, f nicFacts) ([]storage.IPAddress, error) {
	var out []storage.IPAddress
	for _, a := range f.net.Addresses {
		if a.Scope != "global" || len(out) == 16 {
			continue
		}
		ip, err := netip.ParseAddr(a.Address)
		bits, berr := strconv.Atoi(a.Netmask)
		if err != nil || berr != nil || ip.IsLinkLocalUnicast() || ip.IsMulticast() || ip.IsLoopback() || ip.IsUnspecified() {
			continue
		}
		ip = ip.Unmap().WithZone("")
		sn := cat.SubnetOf(ip)
		if sn == nil {
			if sn, err = s.learnSubnet(tx, cat, row, ip, bits); err != nil {
				return nil, err
			}
		}
		if sn == nil {
			continue
		}
		vlan := sn.VLANID
		row.VLANID = &vlan
		out = append(out, storage.IPAddress{SubnetID: &sn.ID, IP: ip, AllocType: storage.AllocDiscovered})
	}
	return out, nil
}

// learnSubnet records a subnet that a machine has an address in and that nobody has described: on the interface's VLAN, else on the default one.
func (s *Service) learnSubnet(tx *storage.Tx, cat *storage.Catalogue, row *storage.Interface, ip netip.Addr, bits int) (*storage.Subnet, error) {
	p, err := ip.Prefix(bits)
	if err != nil || bits < 8 || ip.Is4() && bits > 30 || ip.Is6() && bits > 126 {
		return nil, nil
	}
	for _, known := range cat.Subnets {
		if k, err := netip.ParsePrefix(known.CIDR); err != nil || k.Overlaps(p) {
			return nil, nil // what overlaps is for a person to sort out
		}
	}
	vlan := row.VLANID
	if vlan == nil {
		ids := slices.Sorted(maps.Keys(cat.VLANs))
		if len(ids) == 0 {
			return nil, nil
		}
		vlan = &ids[0]
	}
	sn := &storage.Subnet{VLANID: *vlan, Name: p.String(), CIDR: p.String(), FirstIP: p.Addr(), LastIP: lastAddr(p), RDNSMode: 2, AllowDNS: true,
		AllowProxy: true, Managed: true}
	if err := tx.InsertSubnet(sn); err != nil {
		return nil, err
	}
	cat.Subnets[sn.ID] = sn
	return sn, nil
}

func lastAddr(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// applyDisks makes the machine's physical disks those of the inventory. A disk keeps its row while its serial number, or else its
// path, stays the same.
func (s *Service) applyDisks(tx *storage.Tx, n *storage.Node, inv *inventory) error {
	have, err := tx.BlockDevices(n.ID)
	if err != nil {
		return err
	}
	used := map[int64]bool{}
	match := func(d inventoryDisk, idPath string) *storage.BlockDevice {
		for i := range have {
			o := &have[i]
			if used[o.ID] || o.Type != "physical" {
				continue
			}
			if d.Serial != "" && o.Serial != nil && *o.Serial == d.Serial && deref(o.Model, "") == d.Model ||
				d.Serial == "" && o.Serial == nil && o.IDPath != nil && *o.IDPath == idPath {
				return o
			}
		}
		return nil
	}
	var rows []storage.BlockDevice
	names := map[string]bool{}
	for _, d := range inv.Resources.Storage.Disks {
		if d.ReadOnly || d.Type == "cdrom" || strings.HasPrefix(d.ID, "bcache") || d.ID == "" || len(d.ID) > maxText || names[d.ID] ||
			strings.ContainsAny(d.ID, "/ \x00") {
			continue
		}
		idPath := "/dev/" + d.ID
		if d.DeviceID != "" && d.Serial != "" && !strings.ContainsAny(d.DeviceID, "/\x00") {
			idPath = "/dev/disk/by-id/" + clip(d.DeviceID)
		}
		old := match(d, idPath)
		if old == nil && (d.Size <= 4<<20 || strings.HasPrefix(d.ID, "loop") || strings.HasPrefix(d.ID, "ram")) {
			continue
		}
		names[d.ID] = true
		row := storage.BlockDevice{NodeID: n.ID, Type: "physical"}
		if old != nil {
			row = *old
			used[old.ID] = true
		}
		text := func(v string) *string {
			if v = clip(v); v == "" {
				return nil
			}
			return &v
		}
		row.Name, row.Model, row.Serial, row.IDPath, row.Size, row.BlockSize = d.ID, text(d.Model), text(d.Serial), &idPath, d.Size, cmp.Or(max(d.BlockSize, 0), 512)
		row.FirmwareVersion, row.NUMANode, row.Tags = text(d.FirmwareVersion), d.NUMANode, diskTags(d)
		rows = append(rows, row)
	}
	for i := range have {
		if o := &have[i]; o.Type == "physical" && !used[o.ID] {
			if err := tx.DeleteBlockDevice(o.ID); err != nil {
				return err
			}
			if n.BootDiskID != nil && *n.BootDiskID == o.ID {
				n.BootDiskID = nil
			}
		} else if o.Type == "physical" {
			o.Name = fmt.Sprintf("renaming-%d", o.ID)
			if err := tx.UpdateBlockDevice(o); err != nil {
				return err
			}
		}
	}
	for i := range rows {
		if row := &rows[i]; row.ID == 0 {
			err = tx.InsertBlockDevice(row)
		} else {
			err = tx.UpdateBlockDevice(row)
		}
		if err != nil {
			return err
		}
	}
	return tx.PruneStorage(n.ID)
}

func diskTags(d inventoryDisk) []string {
	var tags []string
	if d.RPM > 0 {
		tags = append(tags, "rotary", fmt.Sprintf("%drpm", d.RPM))
	} else {
		tags = append(tags, "ssd")
	}
	if d.Removable {
		tags = append(tags, "removable")
	}
	if d.Type == "sata" {
		tags = append(tags, "sata")
	}
	return tags
}
