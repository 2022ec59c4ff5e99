package provisioner

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"github.com/ingot-metal/ingot/api"
	"github.com/ingot-metal/ingot/storage"
)

// snapshotEpoch remembers since which revision the parts of a snapshot are unchanged that show in every host: images, domains,
// tags' kernel options, the environment. A rack that is older needs all hosts again, whatever their own revisions are.
type snapshotEpoch struct {
	mu       sync.Mutex
	digest   string
	revision int64
}

// since notes the digest of the shared parts at a revision, and says since when they have been like this.
func (e *snapshotEpoch) since(digest string, revision int64) int64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.digest != digest {
		e.digest, e.revision = digest, revision
	}
	return e.revision
}

// The path and query of the preseed documents that an ephemeral environment fetches.
const enlistPreseed = "/MAAS/metadata/latest/enlist-preseed/?op=get_enlist_preseed"

func nodePreseed(systemID string) string {
	return "/MAAS/metadata/latest/by-id/" + systemID + "/?op=get_preseed"
}

// Snapshot returns what a rack serves from: the whole world when since is 0 or too old, else what changed after that revision. It takes a
// constant number of queries.
func (s *Service) Snapshot(ctx context.Context, rackSystemID string, since int64) (api.Snapshot, error) {
	var out api.Snapshot
	if err := s.refreshRackVLANs(ctx, rackSystemID); err != nil {
		return out, err
	}
	err := s.DB.Read(ctx, func(tx *storage.Tx) error {
		b := snapshotBuilder{tx: tx, out: api.Snapshot{Version: api.SnapshotVersion, RackID: rackSystemID}}
		if err := b.shared(rackSystemID); err != nil {
			return err
		}
		purged, err := tx.OldestTombstone()
		if err != nil {
			return err
		}
		if since < s.snapEpoch.since(b.digest(), b.out.Revision) || since > b.out.Revision || since < purged {
			since = 0
		}
		b.out.Since = since
		if err := b.hosts(since); err != nil {
			return err
		}
		out = b.out
		return nil
	})
	return out, err
}

type snapshotBuilder struct {
	tx          *storage.Tx
	out         api.Snapshot
	domains     map[int64]string
	images      map[string]api.BootImage // by environment and architecture: "light/amd64"
	trees       map[string]api.BootImage // installers of mirror trees, by name and architecture: "rocky/rocky9 amd64"
	environment string
	tagOpts     []string

	// The commissioning system that mirrors bring, for the environment "ubuntu": its name, the kernels by architecture and name, the
	// architectures with a kernel, and what every machine's kernel must be at least.
	system       string
	systemImages map[string]api.BootImage // "amd64/ga-24.04"
	systemKernel []storage.Kernel
	leastKernel  string
}

// shared fills in all but the hosts.
func (b *snapshotBuilder) shared(rackSystemID string) error {
	tx := b.tx
	var err error
	if b.out.Revision, err = tx.CurrentRevision(); err != nil {
		return err
	}
	rack, err := tx.Node(rackSystemID)
	if err != nil {
		return err
	}
	settings, err := tx.Settings()
	if err != nil {
		return err
	}
	b.out.KernelOpts = settingText(settings, "kernel_opts", "")
	b.environment = settingText(settings, "ingot_boot_environment", "light")
	b.system = settingText(settings, "commissioning_osystem", "ubuntu") + "/" + settingText(settings, "commissioning_distro_series", latestSeries)
	b.leastKernel = settingText(settings, "default_min_hwe_kernel", "")
	domains, err := tx.Domains()
	if err != nil {
		return err
	}
	b.domains = map[int64]string{}
	for _, d := range domains {
		b.domains[d.ID] = d.Name
		if d.IsDefault {
			b.out.Domain = d.Name
		}
	}
	tags, err := tx.Tags()
	if err != nil {
		return err
	}
	for _, t := range tags {
		if t.KernelOpts != "" {
			b.tagOpts = append(b.tagOpts, t.Name+"="+t.KernelOpts)
		}
	}
	if err := b.loadImages(); err != nil {
		return err
	}
	proxy := ""
	if string(settings["enable_http_proxy"]) != "false" {
		proxy = settingText(settings, "http_proxy", "")
	}
	if err := b.loadTrees(proxy); err != nil {
		return err
	}
	return b.subnets(rack, addresses(settings, "upstream_dns"), addresses(settings, "ntp_servers"))
}

// digest is the digest of what shows in every host.
func (b *snapshotBuilder) digest() string {
	doc, err := json.Marshal([]any{b.domains, b.images, b.trees, b.environment, b.tagOpts, b.systemImages, b.leastKernel})
	if err != nil {
		return "" // cannot happen: maps of strings always marshal
	}
	sum := sha256.Sum256(doc)
	return hex.EncodeToString(sum[:])
}

// loadImages finds the ephemeral environments, the agents and all blobs.
func (b *snapshotBuilder) loadImages() error {
	files, err := b.tx.ImageFiles()
	if err != nil {
		return err
	}
	b.images, b.systemImages = map[string]api.BootImage{}, map[string]api.BootImage{}
	seen := map[string]bool{}
	b.out.Contents = []api.Content{}
	for _, f := range files {
		if !seen[f.SHA256] {
			seen[f.SHA256] = true
			b.out.Contents = append(b.out.Contents, api.Content{SHA256: f.SHA256, Size: f.Size})
		}
		osystem, series, _ := strings.Cut(f.Name, "/")
		arch, subarch, _ := strings.Cut(f.Architecture, "/")
		k, into := series+"/"+arch, b.images
		environment := series
		switch {
		case f.Name == b.system:
			k, into, environment = f.Architecture, b.systemImages, "ubuntu"
		case osystem != "ingot":
			continue
		}
		if osystem == "ingot" && series == "agent" && f.Filetype == "agent" {
			if b.out.Agents == nil {
				b.out.Agents = map[string]api.Content{}
			}
			b.out.Agents[arch] = api.Content{SHA256: f.SHA256, Size: f.Size}
			continue
		}
		img := into[k]
		img.Environment, img.OSystem, img.Series = environment, osystem, series
		path := strings.Join([]string{f.SHA256, osystem, arch, subarch, series, f.Label, f.Filename}, "/")
		switch f.Filetype {
		case "boot-kernel":
			img.Kernel = path
		case "boot-initrd":
			img.Initrd = path
		case "squashfs":
			img.Root = path
		}
		into[k] = img
	}
	arches := map[string]bool{}
	for k, img := range b.images {
		if img.Kernel == "" || img.Initrd == "" || (img.Environment == "full" && img.Root == "") {
			delete(b.images, k)
			continue
		}
		_, arch, _ := strings.Cut(k, "/")
		arches[arch] = true
	}
	for k, img := range b.systemImages {
		if img.Kernel == "" || img.Initrd == "" || img.Root == "" {
			delete(b.systemImages, k)
			continue
		}
		arch, _, _ := strings.Cut(k, "/")
		arches[arch] = true
		b.systemKernel = append(b.systemKernel, storage.Kernel{Name: b.system, Architecture: k})
	}
	b.out.Enlist = map[string]api.BootImage{}
	for arch := range arches {
		if img, err := b.image("", arch+"/generic", ""); err == nil {
			img.PreseedPath = enlistPreseed
			b.out.Enlist[arch] = img
		}
	}
	return nil
}

// image chooses the environment for a machine's architecture: the one asked for, or the default one and then the others.
func (b *snapshotBuilder) image(environment, architecture, least string) (api.BootImage, error) {
	if environment != "" {
		return b.environmentImage(environment, architecture, least)
	}
	for _, env := range []string{b.environment, "light", "full", "ubuntu"} {
		if img, err := b.environmentImage(env, architecture, least); err == nil {
			return img, nil
		}
	}
	return b.environmentImage(b.environment, architecture, least)
}

// environmentImage finds one environment. In the system that mirrors bring, the machine gets the first kernel that is new enough.
func (b *snapshotBuilder) environmentImage(environment, architecture, least string) (api.BootImage, error) {
	arch, _, _ := strings.Cut(architecture, "/")
	if environment != "ubuntu" {
		if img, ok := b.images[environment+"/"+arch]; ok {
			return img, nil
		}
		return api.BootImage{}, fmt.Errorf("missing boot image ingot/%s for %s", environment, arch)
	}
	if least == "" {
		least = b.leastKernel
	}
	kernel, refusal := pickKernel(b.systemKernel, b.system, architecture, "", least)
	if refusal != "" {
		return api.BootImage{}, fmt.Errorf("missing boot image %s for %s: %s", b.system, arch, strings.TrimSuffix(refusal, "."))
	}
	return b.systemImages[arch+"/"+kernel], nil
}

// subnets fills in the subnets of the VLANs that the rack serves, and of those whose DHCP is relayed to these.
func (b *snapshotBuilder) subnets(rack storage.Node, dns, ntp []string) error {
	tx := b.tx
	b.out.Subnets = []api.SnapSubnet{}
	rackVLANs, err := tx.RackVLANs(nil)
	if err != nil {
		return err
	}
	vlans, err := tx.VLANs()
	if err != nil {
		return err
	}
	all, err := tx.Subnets()
	if err != nil {
		return err
	}
	ranges, err := tx.IPRanges(nil)
	if err != nil {
		return err
	}
	other, err := tx.OtherAddresses()
	if err != nil {
		return err
	}
	own := map[int64]string{}  // VLAN → this rack's address there
	first := map[int64]int64{} // VLAN → the first rack that serves it
	serves := map[int64]bool{} // VLANs that this rack answers on
	byID := map[int64]storage.VLAN{}
	for _, rv := range rackVLANs {
		if _, ok := first[rv.VLANID]; !ok {
			first[rv.VLANID] = rv.RackID
		}
		if rv.RackID == rack.ID {
			own[rv.VLANID], serves[rv.VLANID] = rv.Address, true
		}
	}
	is := func(id *int64) bool { return id != nil && *id == rack.ID }
	for _, v := range vlans {
		byID[v.ID] = v
		if is(v.PrimaryRackID) || is(v.SecondaryRackID) {
			serves[v.ID] = true
		}
	}
	// Two racks that lease from one range would lease one address twice, so exactly one answers DHCP on a VLAN.
	answers := func(v storage.VLAN) bool {
		switch {
		case !v.DhcpOn:
			return false
		case v.PrimaryRackID != nil:
			return is(v.PrimaryRackID)
		case v.SecondaryRackID != nil:
			return is(v.SecondaryRackID)
		}
		return first[v.ID] == rack.ID && serves[v.ID]
	}
	rangesOf := map[int64][]storage.IPRange{}
	for _, r := range ranges {
		rangesOf[r.SubnetID] = append(rangesOf[r.SubnetID], r)
	}
	for _, n := range all {
		v := byID[n.VLANID]
		home := v
		var relay int64
		if !serves[v.ID] {
			if v.RelayVLANID == nil || !serves[*v.RelayVLANID] {
				continue
			}
			home, relay = byID[*v.RelayVLANID], *v.RelayVLANID
		}
		sn := api.SnapSubnet{ID: n.ID, VLANID: n.VLANID, CIDR: n.CIDR, DNS: n.DNSServers, NTP: ntp, MTU: int(v.MTU), DHCP: answers(home), Managed: n.Managed,
			Dynamic: []api.AddrRange{}, Reserved: []api.AddrRange{}, DisabledArchs: n.DisabledBootArchitectures, RackAddress: own[home.ID], RelayFrom: relay}
		if n.GatewayIP != nil {
			sn.Gateway = *n.GatewayIP
		}
		if len(sn.DNS) == 0 {
			sn.DNS = dns
		}
		for _, r := range rangesOf[n.ID] {
			ar := api.AddrRange{Start: r.StartIP.String(), End: r.EndIP.String()}
			if r.Type == "dynamic" {
				sn.Dynamic = append(sn.Dynamic, ar)
			} else {
				sn.Reserved = append(sn.Reserved, ar)
			}
		}
		for _, a := range other {
			if n.FirstIP.Compare(a) <= 0 && a.Compare(n.LastIP) <= 0 {
				sn.Reserved = append(sn.Reserved, api.AddrRange{Start: a.String(), End: a.String()})
			}
		}
		for _, rv := range rackVLANs {
			if a, err := netip.ParseAddr(rv.Address); err == nil && rv.VLANID == n.VLANID {
				sn.Reserved = append(sn.Reserved, api.AddrRange{Start: a.String(), End: a.String()})
			}
		}
		b.out.Subnets = append(b.out.Subnets, sn)
	}
	fixed, err := tx.FixedAddresses()
	if err != nil {
		return err
	}
	for _, f := range fixed {
		if slices.ContainsFunc(b.out.Subnets, func(s api.SnapSubnet) bool { return s.ID == f.SubnetID }) {
			b.out.Fixed = append(b.out.Fixed, api.SnapFixed{MAC: f.MAC, Address: f.IP.String()})
		}
	}
	return nil
}

// hosts fills in the machines and devices that changed after a revision, and those that ended.
func (b *snapshotBuilder) hosts(since int64) error {
	tx := b.tx
	nodes, err := tx.SnapshotNodes(since)
	if err != nil {
		return err
	}
	nics, err := tx.SnapshotInterfaces(since)
	if err != nil {
		return err
	}
	addrs, err := tx.SnapshotAddresses(since)
	if err != nil {
		return err
	}
	opts, err := tx.SnapshotKernelOpts(since)
	if err != nil {
		return err
	}
	if since > 0 {
		if b.out.Gone, err = tx.Tombstones(since); err != nil {
			return err
		}
	}
	macs, names := snapshotMACs(nics, addrs), snapshotNames(nics)
	b.out.Hosts = make([]api.SnapHost, 0, len(nodes))
	for _, n := range nodes {
		arch, _, _ := strings.Cut(n.Architecture, "/")
		h := api.SnapHost{SystemID: n.SystemID, Hostname: n.Hostname, Domain: b.domains[n.DomainID], HardwareUUID: n.HardwareUUID, Arch: arch,
			MACs: macs[n.ID], Purpose: purposeOf(n), Status: n.Status.String(), KernelOpts: strings.Join(opts[n.ID], " "), Revision: n.Revision}
		if h.MACs == nil {
			h.MACs = []api.SnapMAC{}
		}
		if tree, ok := b.trees[n.Osystem+"/"+n.DistroSeries+" "+arch]; ok && h.Purpose == api.PurposeInstall && !n.EphemeralDeploy {
			tree.PreseedPath, tree.Interfaces = nodeKickstart(n.SystemID), names[n.ID]
			h.Boot = &tree
		} else if h.Purpose != api.PurposeLocal {
			env := n.Environment
			if n.EphemeralDeploy && h.Purpose == api.PurposeInstall {
				env = "light" // alone it hands over to a system in memory, whatever ran on the machine since it was deployed
			}
			if img, err := b.image(env, n.Architecture, n.MinHWEKernel); err != nil {
				h.Error = err.Error()
			} else {
				img.PreseedPath = nodePreseed(n.SystemID)
				h.Boot = &img
			}
		}
		b.out.Hosts = append(b.out.Hosts, h)
	}
	return nil
}

// snapshotMACs returns each node's physical interfaces with their addresses. What has its address on a bond or a bridge gets it on
// the interfaces below, for these are what boots.
func snapshotMACs(nics []storage.SnapshotInterface, addrs []storage.SnapshotAddress) map[int64][]api.SnapMAC {
	type nic struct {
		storage.SnapshotInterface
		parents []int64
		fixed   []string
	}
	byID := make(map[int64]*nic, len(nics))
	var order []*nic
	for _, i := range nics {
		n := byID[i.ID]
		if n == nil {
			n = &nic{SnapshotInterface: i}
			byID[i.ID] = n
			order = append(order, n)
		}
		if i.Parent != 0 {
			n.parents = append(n.parents, i.Parent)
		}
	}
	var give func(id int64, ip string, depth int)
	give = func(id int64, ip string, depth int) {
		n := byID[id]
		switch {
		case n == nil || depth > 8:
		case n.Type == "physical":
			if !slices.Contains(n.fixed, ip) {
				n.fixed = append(n.fixed, ip)
			}
		case n.Type == "bond" || n.Type == "bridge":
			for _, p := range n.parents {
				give(p, ip, depth+1)
			}
		}
	}
	for _, a := range addrs {
		give(a.InterfaceID, a.IP.String(), 0)
	}
	out := map[int64][]api.SnapMAC{}
	for _, n := range order {
		if n.Type == "physical" {
			out[n.NodeID] = append(out[n.NodeID], api.SnapMAC{MAC: n.MAC, VLANID: n.VLANID, Fixed: n.fixed})
		}
	}
	return out
}

// purposeOf says what a node is to boot, from its state.
func purposeOf(n storage.SnapshotNode) api.Purpose {
	if n.NodeType != storage.NodeMachine {
		return api.PurposeLocal
	}
	switch n.Status {
	case storage.StatusNew, storage.StatusCommissioning, storage.StatusDiskErasing, storage.StatusEnteringRescueMode,
		storage.StatusRescueMode, storage.StatusReleasing, storage.StatusTesting:
		return api.PurposeCommission
	case storage.StatusDeploying:
		if n.Netboot || n.EphemeralDeploy {
			return api.PurposeInstall
		}
		return api.PurposeLocal
	case storage.StatusDeployed:
		if n.EphemeralDeploy {
			return api.PurposeInstall
		}
		return api.PurposeLocal
	}
	return api.PurposePowerOff
}

func settingText(settings map[string]json.RawMessage, name, def string) string {
	var v string
	if raw, ok := settings[name]; !ok || json.Unmarshal(raw, &v) != nil || v == "" {
		return def
	}
	return v
}

// addresses returns the IP addresses of a setting that lists names and addresses: DHCP carries no names.
func addresses(settings map[string]json.RawMessage, name string) []string {
	var out []string
	for _, f := range strings.FieldsFunc(settingText(settings, name, ""), func(r rune) bool { return r == ' ' || r == ',' }) {
		if a, err := netip.ParseAddr(f); err == nil {
			out = append(out, a.String())
		}
	}
	return out
}
