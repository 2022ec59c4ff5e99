package clients

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/canonical/gomaasclient/entity"
	"github.com/juju/collections/set"
	"github.com/juju/gomaasapi/v2"
)

// TestGomaasapiWhole calls every method of Juju's library, on objects that are as full as the server makes them: the library reads
// strictly, and one odd field of one object fails a whole list.
func TestGomaasapiWhole(t *testing.T) {
	site := dev(t, 2)
	w := newWalk(t, site)
	ids := readyMachines(w, 2)
	plant := furnish(w, ids[0])
	s := &strict{t: t, called: map[string]bool{}}
	var err error
	if s.c, err = gomaasapi.NewController(gomaasapi.ControllerArgs{BaseURL: site.url, APIKey: site.key}); err != nil {
		t.Fatal(err)
	}
	for _, p := range []struct {
		name string
		do   func(*strict)
	}{
		{"controller", func(s *strict) { strictController(s, site) }},
		{"catalogue", func(s *strict) { strictCatalogue(s, plant) }},
		{"files", strictFiles},
		{"machines", func(s *strict) { strictMachines(s, w, plant, ids) }},
		{"devices", func(s *strict) { strictDevices(s, plant, ids[0]) }},
		{"life", func(s *strict) { strictLife(s, w, site, ids) }},
	} {
		if !t.Run(p.name, func(t *testing.T) { in := *s; in.t = t; p.do(&in) }) {
			return // the account of a part that failed is short
		}
	}
	s.complete()
}

// readyMachines commissions the lab machines.
func readyMachines(w *walk, n int) (ids []string) {
	w.t.Helper()
	for _, m := range w.labMachines(n) {
		get[*entity.Machine](w, "Machine.Commission", m.SystemID, &entity.MachineCommissionParams{})
		ids = append(ids, m.SystemID)
	}
	for _, id := range ids {
		w.until(id, "Ready", "Commissioning", "Testing")
	}
	return ids
}

// furniture is what the operator made.
type furniture struct {
	space, vlan, subnet, far int
	fast, group              int // block devices: tagged, and a logical volume
}

// furnish fills a site, and gives one machine a second network card, tagged disks, a file system, a RAID and a volume group.
func furnish(w *walk, id string) (f furniture) {
	w.t.Helper()
	lab := find(w, "the lab's subnet", get[[]entity.Subnet](w, "Subnets.Get"), func(s entity.Subnet) bool { return s.Name == "lab" })
	sp := get[*entity.Space](w, "Spaces.Create", "strict-space")
	v := get[*entity.VLAN](w, "VLANs.Create", lab.VLAN.FabricID, &entity.VLANParams{VID: 40, Name: "strict", Space: "strict-space", MTU: 1500})
	sub := func(cidr, gw string) int {
		return get[*entity.Subnet](w, "Subnets.Create", &entity.SubnetParams{CIDR: cidr, Name: cidr, VLAN: fmt.Sprint(v.ID), GatewayIP: gw, DNSServers: []string{gw}, Managed: true}).ID
	}
	f.space, f.vlan, f.subnet, f.far = sp.ID, v.ID, sub("10.94.0.0/24", "10.94.0.1"), sub("10.95.0.0/24", "10.95.0.1")
	get[*entity.StaticRoute](w, "StaticRoutes.Create", &entity.StaticRouteParams{Source: fmt.Sprint(f.subnet), Destination: fmt.Sprint(f.far), GatewayIP: "10.94.0.1", Metric: 3})
	get[*entity.Tag](w, "Tags.Create", &entity.TagParams{Name: "strict", Comment: "c", KernelOpts: "quiet"})
	w.do("Tag.AddMachines", "strict", []string{id})
	nic := get[*entity.NetworkInterface](w, "NetworkInterfaces.CreatePhysical", id, &entity.NetworkInterfacePhysicalParams{Name: "ens4", MACAddress: "52:54:00:94:00:01", VLAN: v.ID, Tags: "one"})
	get[*entity.NetworkInterface](w, "NetworkInterface.LinkSubnet", id, nic.ID, &entity.NetworkInterfaceLinkParams{Mode: "AUTO", Subnet: f.subnet})

	disk := func(name string) int {
		return get[*entity.BlockDevice](w, "BlockDevices.Create", id, &entity.BlockDeviceParams{Name: name, Model: "Strict", Serial: name, Size: 10 * gib, BlockSize: 512}).ID
	}
	f.fast = disk("sdb")
	w.do("BlockDevice.AddTag", id, f.fast, "fast")
	part := disk("sdc")
	w.do("BlockDevicePartitions.Create", id, part, &entity.BlockDevicePartitionParams{Size: 4 * gib})
	a, b := disk("sdd"), disk("sde")
	r := get[*entity.RAID](w, "RAIDs.Create", id, &entity.RAIDCreateParams{Name: "md0", Level: "raid-1", BlockDevices: []string{fmt.Sprint(a), fmt.Sprint(b)}})
	g := get[*entity.VolumeGroup](w, "VolumeGroups.Create", id, &entity.VolumeGroupCreateParams{Name: "vg0", BlockDevices: []string{fmt.Sprint(r.VirtualDevice.ID)}})
	f.group = get[*entity.BlockDevice](w, "VolumeGroup.CreateLogicalVolume", id, g.ID, &entity.LogicalVolumeParams{Name: "lv0", Size: 2 * gib}).ID
	w.do("BlockDevice.Format", id, f.group, "ext4")
	w.do("BlockDevice.Mount", id, f.group, "/srv", "")
	return f
}

func strictController(s *strict, site site) {
	r, err := call(s, "Controller", s.c, "APIVersionInfo")
	if err != nil || !strings.HasPrefix(r[0].(string), "3.") {
		s.t.Errorf("version: %v, %v", r, err)
	}
	caps := one[set.Strings](s, "Controller", s.c, "Capabilities")
	for _, c := range []string{gomaasapi.NetworksManagement, gomaasapi.StaticIPAddresses, gomaasapi.IPv6DeploymentUbuntu, gomaasapi.DevicesManagement, gomaasapi.StorageDeploymentUbuntu, gomaasapi.NetworkDeploymentUbuntu} {
		if !caps.Contains(c) {
			s.t.Errorf("capabilities %v lack %s", caps, c)
		}
	}
	for name, x := range map[string]struct {
		url, key string
		is       func(error) bool
	}{
		"with the version in the URL": {site.url + "/api/2.0/", site.key, func(err error) bool { return err == nil }},
		"unknown version":             {site.url + "/api/1.0/", site.key, gomaasapi.IsUnsupportedVersionError},
		"no MAAS":                     {strings.TrimSuffix(site.url, "/MAAS"), site.key, gomaasapi.IsUnsupportedVersionError},
		"wrong key":                   {site.url, "a:b:c", gomaasapi.IsPermissionError},
	} {
		if _, err := gomaasapi.NewController(gomaasapi.ControllerArgs{BaseURL: x.url, APIKey: x.key}); !x.is(err) {
			s.t.Errorf("%s: %v", name, err)
		}
	}
	// The library asks for pools where MAAS never had them, and for pods where MAAS had them until 3.8.
	s.fails(status(404), "Controller", s.c, "Pools")
	s.fails(status(410), "Controller", s.c, "Pods")
	s.fails(status(410), "Controller", s.c, "ComposeMachine", 1, gomaasapi.ComposeMachineArgs{Zone: "default"})
}

func strictCatalogue(s *strict, f furniture) {
	fabrics := all(s, "Fabric", one[[]gomaasapi.Fabric](s, "Controller", s.c, "Fabrics"))
	v := pick(s, "VLAN", fabrics[0].VLANs(), func(v gomaasapi.VLAN) bool { return v.ID() == f.vlan })
	same(s, "VLAN", []any{v.VID(), v.Name(), v.MTU(), v.DHCP(), v.Fabric(), v.PrimaryRack()}, []any{40, "strict", 1500, false, "fabric-0", ""})
	lab := pick(s, "VLAN with DHCP", fabrics[0].VLANs(), func(v gomaasapi.VLAN) bool { return v.DHCP() })
	if lab.PrimaryRack() == "" {
		s.t.Error("the VLAN with DHCP has no rack")
	}
	spaces := all(s, "Space", one[[]gomaasapi.Space](s, "Controller", s.c, "Spaces"))
	sp := pick(s, "space", spaces, func(x gomaasapi.Space) bool { return x.ID() == f.space })
	n := pick(s, "subnet", sp.Subnets(), func(x gomaasapi.Subnet) bool { return x.ID() == f.subnet })
	same(s, "subnet", []any{n.CIDR(), n.Gateway(), n.DNSServers(), n.Space(), n.VLAN().VID()}, []any{"10.94.0.0/24", "10.94.0.1", []string{"10.94.0.1"}, "strict-space", 40})
	none := pick(s, "space of nothing", spaces, func(x gomaasapi.Space) bool { return x.Name() == "undefined" })
	if none.ID() != -1 || len(none.Subnets()) == 0 {
		s.t.Errorf("undefined: %d with %d subnets", none.ID(), len(none.Subnets()))
	}
	route := all(s, "StaticRoute", one[[]gomaasapi.StaticRoute](s, "Controller", s.c, "StaticRoutes"))[0]
	same(s, "route", []any{route.Source().ID(), route.Destination().ID(), route.GatewayIP(), route.Metric()}, []any{f.subnet, f.far, "10.94.0.1", 3})
	pick(s, "zone", all(s, "Zone", one[[]gomaasapi.Zone](s, "Controller", s.c, "Zones")), func(z gomaasapi.Zone) bool { return z.Name() == "default" })
	pick(s, "domain", all(s, "Domain", one[[]gomaasapi.Domain](s, "Controller", s.c, "Domains")), func(d gomaasapi.Domain) bool { return d.Name() == "maas" })
	tag := pick(s, "tag", all(s, "Tag", one[[]gomaasapi.Tag](s, "Controller", s.c, "Tags")), func(x gomaasapi.Tag) bool { return x.Name() == "strict" })
	same(s, "tag", []string{tag.Comment(), tag.KernelOpts(), tag.Definition()}, []string{"c", "quiet", ""})
	image := all(s, "BootResource", one[[]gomaasapi.BootResource](s, "Controller", s.c, "BootResources"))[0]
	if image.ID() == 0 || image.Architecture() == "" || image.Type() == "" {
		s.t.Errorf("image %d %q %q", image.ID(), image.Architecture(), image.Type())
	}
}

func strictFiles(s *strict) {
	content := []byte("zero \x00 and more\xff\n")
	s.ok("Controller", s.c, "AddFile", gomaasapi.AddFileArgs{Filename: "strict-one", Content: content})
	s.ok("Controller", s.c, "AddFile", gomaasapi.AddFileArgs{Filename: "strict-two", Reader: bytes.NewReader(content), Length: 4})
	s.ok("Controller", s.c, "AddFile", gomaasapi.AddFileArgs{Filename: "other", Content: []byte("x")})
	files := all(s, "File", one[[]gomaasapi.File](s, "Controller", s.c, "Files", "strict-"))
	same(s, "files", len(files), 2)
	for name, want := range map[string]string{"strict-one": string(content), "strict-two": "zero"} {
		f := one[gomaasapi.File](s, "Controller", s.c, "GetFile", name)
		same(s, name, string(one[[]byte](s, "File", f, "ReadAll")), want)
		// From the list a file comes without its content, which is read then.
		listed := pick(s, name, files, func(f gomaasapi.File) bool { return f.Filename() == name })
		same(s, name+" of the list", string(one[[]byte](s, "File", listed, "ReadAll")), want)
		res, err := http.Get(f.AnonymousURL())
		if err != nil {
			s.t.Fatal(err)
		}
		got, err := io.ReadAll(res.Body)
		res.Body.Close()
		if err != nil || res.StatusCode != 200 || string(got) != want {
			s.t.Errorf("%s without credentials: %s %q, %v", name, res.Status, got, err)
		}
		s.ok("File", f, "Delete")
		s.fails(gomaasapi.IsNoMatchError, "File", f, "Delete")
	}
	s.fails(gomaasapi.IsNoMatchError, "Controller", s.c, "GetFile", "strict-one")
	same(s, "files left", len(one[[]gomaasapi.File](s, "Controller", s.c, "Files", "")), 1)
}

func strictMachines(s *strict, w *walk, f furniture, ids []string) {
	list := func(a gomaasapi.MachinesArgs) []gomaasapi.Machine {
		s.t.Helper()
		return one[[]gomaasapi.Machine](s, "Controller", s.c, "Machines", a)
	}
	same(s, "machines", len(all(s, "Machine", list(gomaasapi.MachinesArgs{}))), 2)
	m := list(gomaasapi.MachinesArgs{SystemIDs: ids[:1]})[0]
	for name, a := range map[string]gomaasapi.MachinesArgs{
		"name": {Hostnames: []string{m.Hostname()}}, "MAC": {MACAddresses: []string{"52:54:00:94:00:01"}}, "tag": {Tags: []string{"strict"}},
		"all": {SystemIDs: ids[:1], Domain: "maas", Zone: "default", Pool: "default"},
	} {
		if got := list(a); len(got) != 1 || got[0].SystemID() != ids[0] {
			s.t.Errorf("machines by %s: %d", name, len(got))
		}
	}
	same(s, "machines of no agent", len(list(gomaasapi.MachinesArgs{AgentName: "nobody"})), 0)
	same(s, "machines of no owner", len(list(gomaasapi.MachinesArgs{OwnerData: map[string]string{"k": "v"}})), 0)

	same(s, "machine", []any{m.Architecture(), m.CPUCount(), m.Memory(), m.PowerType(), m.StatusName(), m.Zone().Name(), m.Pool().Name(), m.Tags()},
		[]any{"amd64/generic", 4, 8192, "ipmi", "Ready", "default", "default", m.Tags()})
	if !slices.Contains(m.Tags(), "strict") || m.HardwareInfo()["system_vendor"] != "Ingot" {
		s.t.Errorf("tags %v, hardware %v", m.Tags(), m.HardwareInfo())
	}
	nic := pick(s, "network card", m.InterfaceSet(), func(i gomaasapi.Interface) bool { return i.Name() == "ens4" })
	same(s, "network card", []any{nic.MACAddress(), nic.Tags(), nic.VLAN().ID(), nic.Links()[0].Mode(), nic.Links()[0].Subnet().ID(), nic.Type()},
		[]any{"52:54:00:94:00:01", []string{"one"}, f.vlan, "auto", f.subnet, "physical"})
	same(s, "interface by id", one[gomaasapi.Interface](s, "Machine", m, "Interface", nic.ID()).Name(), "ens4")
	same(s, "disk by id", one[gomaasapi.BlockDevice](s, "Machine", m, "BlockDevice", f.fast).Tags(), []string{"fast"})
	same(s, "real disk by id", one[gomaasapi.BlockDevice](s, "Machine", m, "PhysicalBlockDevice", f.fast).Size(), uint64(10*gib))
	lv := one[gomaasapi.BlockDevice](s, "Machine", m, "BlockDevice", f.group)
	same(s, "volume", []any{lv.Name(), lv.Type(), lv.FileSystem().Type(), lv.FileSystem().MountPoint()}, []any{"vg0-lv0", "blockdevice", "ext4", "/srv"})
	if m.PhysicalBlockDevice(f.group) != nil {
		s.t.Error("a logical volume is among the real disks")
	}
	sdc := pick(s, "sdc", m.BlockDevices(), func(b gomaasapi.BlockDevice) bool { return b.Name() == "sdc" })
	part := sdc.Partitions()[0]
	same(s, "partition by id", one[gomaasapi.Partition](s, "Machine", m, "Partition", part.ID()).Size(), uint64(4*gib))
	s.accessors("StorageDevice", part)
	s.accessors("OwnerDataHolder", m)

	// Each label of a constraint finds what it stands for in the same answer.
	alloc := gomaasapi.AllocateMachineArgs{Storage: []gomaasapi.StorageSpec{{Label: "root", Size: 8}, {Label: "quick", Size: 9, Tags: []string{"fast"}}, {Label: "part", Size: 4, Tags: []string{"partition"}}},
		Interfaces: []gomaasapi.InterfaceSpec{{Label: "net", Space: fmt.Sprint(f.space)}}, Tags: []string{"strict"}, NotTags: []string{"slow"}, MinCPUCount: 2, MinMemory: 1024,
		Architecture: "amd64", Zone: "default", Pool: "default", AgentName: "strict", Comment: "two words", Hostname: m.Hostname(), SystemId: ids[0]}
	without := alloc
	without.Interfaces, without.NotSpace = nil, []string{fmt.Sprint(f.space)}
	s.fails(gomaasapi.IsNoMatchError, "Controller", s.c, "AllocateMachine", without)
	dry := alloc
	dry.DryRun = true
	one[gomaasapi.Machine](s, "Controller", s.c, "AllocateMachine", dry)
	same(s, "status after a dry run", list(gomaasapi.MachinesArgs{SystemIDs: ids[:1]})[0].StatusName(), "Ready")
	r, err := call(s, "Controller", s.c, "AllocateMachine", alloc)
	if err != nil {
		s.t.Fatalf("allocate: %v", err)
	}
	got, matches := r[0].(gomaasapi.Machine), r[1].(gomaasapi.ConstraintMatches)
	s.accessors("Machine", got)
	same(s, "allocated", []string{got.SystemID(), got.StatusName()}, []string{ids[0], "Allocated"})
	if n := matches.Interfaces["net"]; len(n) != 1 || n[0].ID() != nic.ID() {
		s.t.Errorf("interfaces that match: %+v", matches.Interfaces)
	}
	for label, want := range map[string]int{"quick": f.fast, "part": part.ID(), "root": got.BootInterface().ID()} {
		d := matches.Storage[label]
		if len(d) != 1 || label != "root" && d[0].ID() != want {
			s.t.Errorf("storage %s: %+v, want %d", label, d, want)
			continue
		}
		s.accessors("StorageDevice", d[0])
	}
	same(s, "kind of the partition", matches.Storage["part"][0].Type(), "partition")
	for name, a := range map[string]gomaasapi.AllocateMachineArgs{
		"memory": {MinMemory: 1 << 30}, "zone": {Zone: "default", NotInZone: []string{"default"}},
		"pool": {NotInPool: []string{"default"}}, "held by its owner": {SystemId: ids[0]}, "storage": {Storage: []gomaasapi.StorageSpec{{Size: 500}}},
	} {
		if _, _, err := s.c.AllocateMachine(a); !gomaasapi.IsNoMatchError(err) {
			s.t.Errorf("allocate %s: %v", name, err)
		}
	}

	s.ok("Machine", got, "SetOwnerData", map[string]string{"a": "1", "b": "2"})
	s.ok("OwnerDataHolder", got, "SetOwnerData", map[string]string{"a": "", "c": "3"})
	same(s, "owner data", got.OwnerData(), map[string]string{"b": "2", "c": "3"})
	same(s, "machines by owner data", len(list(gomaasapi.MachinesArgs{OwnerData: map[string]string{"b": "2"}})), 1)
	same(s, "machines by agent", len(list(gomaasapi.MachinesArgs{AgentName: "strict"})), 1)
}

func strictDevices(s *strict, f furniture, host string) {
	m := one[[]gomaasapi.Machine](s, "Controller", s.c, "Machines", gomaasapi.MachinesArgs{SystemIDs: []string{host}})[0]
	sp := pick(s, "space", one[[]gomaasapi.Space](s, "Controller", s.c, "Spaces"), func(x gomaasapi.Space) bool { return x.ID() == f.space })
	n := pick(s, "subnet", sp.Subnets(), func(x gomaasapi.Subnet) bool { return x.ID() == f.subnet })
	far := pick(s, "subnet", sp.Subnets(), func(x gomaasapi.Subnet) bool { return x.ID() == f.far })

	s.fails(gomaasapi.IsBadRequestError, "Controller", s.c, "CreateDevice", gomaasapi.CreateDeviceArgs{Hostname: "strict", MACAddresses: []string{"no MAC"}})
	lone := one[gomaasapi.Device](s, "Controller", s.c, "CreateDevice", gomaasapi.CreateDeviceArgs{Hostname: "lone", Domain: "maas", MACAddresses: []string{"52:54:00:95:00:01", "52:54:00:95:00:02"}})
	same(s, "device", []any{lone.Hostname(), lone.FQDN(), lone.Owner(), lone.Parent(), len(lone.InterfaceSet())}, []any{"lone", "lone.maas", "admin", "", 2})

	d := one[gomaasapi.Device](s, "Machine", m, "CreateDevice", gomaasapi.CreateMachineDeviceArgs{Hostname: "strict-0", InterfaceName: "eth0", MACAddress: "52:54:00:96:00:01", Subnet: n})
	s.accessors("Device", d)
	first := d.InterfaceSet()[0]
	same(s, "device of a machine", []any{d.Parent(), first.Name(), first.VLAN().ID(), first.Links()[0].Mode(), first.Links()[0].Subnet().ID(), strings.HasPrefix(first.Links()[0].IPAddress(), "10.94.0.")},
		[]any{host, "eth0", f.vlan, "static", f.subnet, true})
	second := one[gomaasapi.Interface](s, "Device", d, "CreateInterface", gomaasapi.CreateInterfaceArgs{Name: "eth1", MACAddress: "52:54:00:96:00:02", VLAN: far.VLAN(), MTU: 1400, Tags: []string{"t"}, AcceptRA: true})
	same(s, "second interface", []any{second.Name(), second.MACAddress(), second.EffectiveMTU(), second.Tags(), second.VLAN().ID()}, []any{"eth1", "52:54:00:96:00:02", 1400, []string{"t"}, f.vlan})
	s.ok("Interface", second, "LinkSubnet", gomaasapi.LinkSubnetArgs{Mode: gomaasapi.LinkModeStatic, Subnet: far, IPAddress: "10.95.0.9", DefaultGateway: true})
	same(s, "chosen address", second.Links()[0].IPAddress(), "10.95.0.9")
	s.fails(gomaasapi.IsBadRequestError, "Interface", second, "LinkSubnet", gomaasapi.LinkSubnetArgs{Mode: gomaasapi.LinkModeStatic, Subnet: far, IPAddress: "10.94.0.9"})
	s.ok("Interface", second, "Update", gomaasapi.UpdateInterfaceArgs{Name: "eth9", MACAddress: "52:54:00:96:00:03", VLAN: n.VLAN()})
	same(s, "interface after update", []string{second.Name(), second.MACAddress()}, []string{"eth9", "52:54:00:96:00:03"})
	s.ok("Interface", second, "UnlinkSubnet", far)
	for _, l := range second.Links() {
		if l.IPAddress() != "" {
			s.t.Errorf("an address is left: %s", l.IPAddress())
		}
	}
	byMAC := one[[]gomaasapi.Device](s, "Controller", s.c, "Devices", gomaasapi.DevicesArgs{MACAddresses: []string{"52:54:00:96:00:01", "52:54:00:96:00:03"}})
	same(s, "device by two MACs", len(byMAC), 1)
	all(s, "Device", one[[]gomaasapi.Device](s, "Controller", s.c, "Devices", gomaasapi.DevicesArgs{}))
	same(s, "devices of the machine", len(one[[]gomaasapi.Device](s, "Machine", m, "Devices", gomaasapi.DevicesArgs{Hostname: []string{"strict-0", "lone"}})), 1)
	for name, a := range map[string]gomaasapi.DevicesArgs{"id": {SystemIDs: []string{d.SystemID()}, Domain: "maas", Zone: "default"}, "nothing": {AgentName: "nobody"}} {
		if got := one[[]gomaasapi.Device](s, "Controller", s.c, "Devices", a); len(got) != map[string]int{"id": 1}[name] {
			s.t.Errorf("devices by %s: %d", name, len(got))
		}
	}
	s.ok("Interface", second, "Delete")
	s.fails(gomaasapi.IsNoMatchError, "Interface", second, "Delete")
	s.ok("Device", d, "Delete")
	s.fails(gomaasapi.IsNoMatchError, "Device", d, "Delete")
	s.ok("Device", lone, "Delete")
}

// token signs a user in by name and password, and returns an API key.
func token(t *testing.T, site site, user, password string) string {
	t.Helper()
	res, err := http.PostForm(site.url+"/accounts/authenticate/", url.Values{"username": {user}, "password": {password}, "consumer": {"strict"}})
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var k struct {
		ConsumerKey string `json:"consumer_key"`
		TokenKey    string `json:"token_key"`
		TokenSecret string `json:"token_secret"`
	}
	if err := json.NewDecoder(res.Body).Decode(&k); err != nil || res.StatusCode != 200 {
		t.Fatalf("authenticate: %s, %v", res.Status, err)
	}
	return k.ConsumerKey + ":" + k.TokenKey + ":" + k.TokenSecret
}

func strictLife(s *strict, w *walk, site site, ids []string) {
	get[*entity.User](w, "Users.Create", &entity.UserParams{UserName: "plain", Password: "a long password", Email: "plain@example.com"})
	plain, err := gomaasapi.NewController(gomaasapi.ControllerArgs{BaseURL: site.url, APIKey: token(s.t, site, "plain", "a long password")})
	if err != nil {
		s.t.Fatal(err)
	}
	m := one[[]gomaasapi.Machine](s, "Controller", s.c, "Machines", gomaasapi.MachinesArgs{SystemIDs: ids[:1]})[0]
	release := func(ids ...string) gomaasapi.ReleaseMachinesArgs {
		return gomaasapi.ReleaseMachinesArgs{SystemIDs: ids, Comment: "two words"}
	}
	if err := plain.ReleaseMachines(release(ids[0])); !gomaasapi.IsPermissionError(err) {
		s.t.Errorf("release of another's machine: %v", err)
	}
	s.fails(gomaasapi.IsBadRequestError, "Controller", s.c, "ReleaseMachines", release(ids[0], "nobody"))
	if err := m.Start(gomaasapi.StartArgs{DistroSeries: "no-such-series"}); !status(400)(err) {
		s.t.Errorf("start with an image that is not there: %v", err)
	}
	s.ok("Controller", s.c, "ReleaseMachines", release(ids[0]))
	w.t = s.t
	w.until(ids[0], "Ready", "Releasing")
	s.ok("Controller", s.c, "ReleaseMachines", release(ids[0])) // as Juju does when it is not sure

	s.fails(gomaasapi.IsPermissionError, "Controller", plain, "DeleteMachine", ids[1])
	r, err := call(s, "Controller", plain, "AllocateMachine", gomaasapi.AllocateMachineArgs{SystemId: ids[1]})
	if err != nil {
		s.t.Fatalf("allocate by a plain user: %v", err)
	}
	m = r[0].(gomaasapi.Machine)
	s.fails(status(400), "Machine", m, "Start", gomaasapi.StartArgs{DistroSeries: "no-such-series"})
	s.ok("Machine", m, "Start", gomaasapi.StartArgs{UserData: base64.StdEncoding.EncodeToString([]byte("#cloud-config\n{}\n")), DistroSeries: image(w), Comment: "two words"})
	waitFor(s.t, 90*time.Second, "the machine runs", func() (bool, string) {
		now, err := plain.Machines(gomaasapi.MachinesArgs{SystemIDs: ids[1:]})
		if err != nil {
			s.t.Fatal(err)
		}
		m = now[0]
		return m.StatusName() == "Deployed", m.StatusName() + ", " + m.StatusMessage()
	})
	s.accessors("Machine", m)
	if len(m.IPAddresses()) == 0 || m.OperatingSystem() == "" || m.DistroSeries() == "" {
		s.t.Errorf("running machine: %v %s %s", m.IPAddresses(), m.OperatingSystem(), m.DistroSeries())
	}
	if err := plain.ReleaseMachines(release(ids[1])); err != nil {
		s.t.Errorf("release: %v", err)
	}
	w.until(ids[1], "Ready", "Releasing")
	get[*entity.Machine](w, "Machine.Commission", ids[1], &entity.MachineCommissionParams{})
	s.fails(gomaasapi.IsCannotCompleteError, "Controller", s.c, "ReleaseMachines", release(ids[1]))
	w.until(ids[1], "Ready", "Commissioning", "Testing")
	s.ok("Controller", s.c, "DeleteMachine", ids[1])
	s.fails(status(404), "Controller", s.c, "DeleteMachine", ids[1])
}

// image is the name that deploys the lab's image.
func image(w *walk) string { return deployable(w.t, w.c) }
