package server

// How network objects look on the wire. All are pure functions over records that the caller has loaded with a constant number of
// queries: storage.Tx.LoadCatalogue, and storage.Tx.LoadMachines or storage.Tx.InterfaceBundles. An id that the catalogue does not
// know renders as null or as its zero object, never as a panic.
//
//	renderVLAN(c *storage.Catalogue, id int64) api.Vlan
//	renderVLANPtr(c *storage.Catalogue, id *int64) *api.Vlan
//	renderSubnet(c *storage.Catalogue, id int64) api.Subnet
//	renderFabric(c *storage.Catalogue, id int64) api.Fabric
//	renderSpace(c *storage.Catalogue, id int64) api.Space
//	renderInterface(c *storage.Catalogue, systemID string, b *storage.InterfaceBundle) api.Interface
//	renderLinks(c *storage.Catalogue, links []storage.IPAddress) []api.InterfaceLink
//	renderDomain, renderZone, renderPool, renderTag

import (
	"cmp"
	"encoding/json"
	"net/url"
	"slices"
	"strconv"

	"github.com/ingot-metal/ingot/api"
	"github.com/ingot-metal/ingot/storage"
)

const apiRoot = "/MAAS/api/2.0/"

// undefinedSpace is the name of the pseudo space of VLANs that are in none.
const undefinedSpace = "undefined"

func itoa(n int64) string { return strconv.FormatInt(n, 10) }

func renderZone(z storage.Zone) api.Zone {
	return api.Zone{ResourceURI: apiRoot + "zones/" + url.PathEscape(z.Name) + "/", ID: z.ID, Name: z.Name, Description: z.Description}
}

func renderPool(p storage.Pool) api.ResourcePool {
	return api.ResourcePool{ResourceURI: apiRoot + "resourcepool/" + itoa(p.ID) + "/", ID: p.ID, Name: p.Name, Description: p.Description}
}

func renderTag(t storage.Tag) api.Tag {
	return api.Tag{ResourceURI: apiRoot + "tags/" + t.Name + "/", Name: t.Name, Definition: t.Definition, Comment: t.Comment, KernelOpts: &t.KernelOpts}
}

// renderDomain renders a domain; records is the number of its resource records, 0 where it is not counted.
func renderDomain(d storage.Domain, records int64) api.Domain {
	return api.Domain{ResourceURI: apiRoot + "domains/" + itoa(d.ID) + "/", ID: d.ID, Name: d.Name, TTL: d.TTL,
		Authoritative: d.Authoritative, IsDefault: d.IsDefault, ResourceRecordCount: records}
}

// vlanName is the name that the API shows: the text of the tag when nobody gave it one.
func vlanName(v *storage.VLAN) string {
	switch {
	case v.Name != nil && *v.Name != "":
		return *v.Name
	case v.VID == 0:
		return "untagged"
	}
	return itoa(v.VID)
}

func spaceName(c *storage.Catalogue, id *int64) string {
	if id != nil {
		if s := c.Spaces[*id]; s != nil {
			return s.Name
		}
	}
	return undefinedSpace
}

func rackName(c *storage.Catalogue, id *int64) *string {
	if id != nil {
		if name, ok := c.Nodes[*id]; ok {
			return &name
		}
	}
	return nil
}

func renderVLAN(c *storage.Catalogue, id int64) api.Vlan {
	v := c.VLANs[id]
	if v == nil {
		return api.Vlan{}
	}
	out := api.Vlan{
		ResourceURI: apiRoot + "vlans/" + itoa(v.ID) + "/", ID: v.ID, VID: v.VID, Name: vlanName(v), FabricID: v.FabricID, MTU: v.MTU,
		DHCPOn: v.DhcpOn, ExternalDHCP: v.ExternalDhcp, PrimaryRack: rackName(c, v.PrimaryRackID),
		SecondaryRack: rackName(c, v.SecondaryRackID), Space: spaceName(c, v.SpaceID),
	}
	if f := c.Fabrics[v.FabricID]; f != nil {
		out.Fabric = f.Name
	}
	// A VLAN that is relayed to is not itself relayed; should the store say otherwise, the chain ends here.
	if v.RelayVLANID != nil && *v.RelayVLANID != id {
		if target := c.VLANs[*v.RelayVLANID]; target != nil && target.RelayVLANID == nil {
			r := renderVLAN(c, target.ID)
			out.RelayVLAN = &r
		}
	}
	return out
}

func renderVLANPtr(c *storage.Catalogue, id *int64) *api.Vlan {
	if id == nil || c.VLANs[*id] == nil {
		return nil
	}
	v := renderVLAN(c, *id)
	return &v
}

func renderSubnet(c *storage.Catalogue, id int64) api.Subnet {
	s := c.Subnets[id]
	if s == nil {
		return api.Subnet{DNSServers: []string{}, DisabledBootArchitectures: []string{}, Space: undefinedSpace}
	}
	out := api.Subnet{
		ResourceURI: apiRoot + "subnets/" + itoa(s.ID) + "/", ID: s.ID, Name: s.Name, Description: s.Description,
		VLAN: renderVLAN(c, s.VLANID), Space: undefinedSpace, CIDR: s.CIDR, GatewayIP: s.GatewayIP, DNSServers: listOf(s.DNSServers),
		RdnsMode: s.RDNSMode, ActiveDiscovery: s.ActiveDiscovery, AllowDNS: s.AllowDNS, AllowProxy: s.AllowProxy, Managed: s.Managed,
		DisabledBootArchitectures: listOf(s.DisabledBootArchitectures),
	}
	out.Space = cmp.Or(out.VLAN.Space, undefinedSpace)
	return out
}

// listOf makes sure that a list is never null on the wire.
func listOf(s []string) []string {
	if s == nil {
		return []string{}
	}
	return s
}

// sortedIDs returns the ids of a table of the catalogue for which keep says yes, in order.
func sortedIDs[T any](table map[int64]*T, keep func(*T) bool) []int64 {
	var ids []int64
	for id, x := range table {
		if keep(x) {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

func renderFabric(c *storage.Catalogue, id int64) api.Fabric {
	f := c.Fabrics[id]
	if f == nil {
		return api.Fabric{VLANs: []api.Vlan{}}
	}
	out := api.Fabric{ResourceURI: apiRoot + "fabrics/" + itoa(f.ID) + "/", ID: f.ID, Name: f.Name, ClassType: f.ClassType, VLANs: []api.Vlan{}}
	for _, v := range sortedIDs(c.VLANs, func(v *storage.VLAN) bool { return v.FabricID == id }) {
		out.VLANs = append(out.VLANs, renderVLAN(c, v))
	}
	return out
}

// renderSpace renders a space; id -1 is the pseudo space of the VLANs that are in none.
func renderSpace(c *storage.Catalogue, id int64) api.Space {
	out := api.Space{ResourceURI: apiRoot + "spaces/" + undefinedSpace + "/", ID: -1, Name: undefinedSpace, VLANs: []api.Vlan{}, Subnets: []api.Subnet{}}
	if s := c.Spaces[id]; s != nil {
		out.ResourceURI, out.ID, out.Name, out.Description = apiRoot+"spaces/"+itoa(s.ID)+"/", s.ID, s.Name, s.Description
	}
	in := map[int64]bool{}
	for _, v := range sortedIDs(c.VLANs, func(v *storage.VLAN) bool {
		return (v.SpaceID == nil && id == -1) || (v.SpaceID != nil && *v.SpaceID == id)
	}) {
		in[v] = true
		out.VLANs = append(out.VLANs, renderVLAN(c, v))
	}
	for _, s := range sortedIDs(c.Subnets, func(s *storage.Subnet) bool { return in[s.VLANID] }) {
		out.Subnets = append(out.Subnets, renderSubnet(c, s))
	}
	return out
}

// linkMode is the word for an allocation type as links show it; "" for what is no link.
func linkMode(a storage.IPAddress) string {
	switch a.AllocType {
	case storage.AllocAuto:
		return "auto"
	case storage.AllocDHCP:
		return "dhcp"
	case storage.AllocUserReserved:
		return "static"
	case storage.AllocSticky:
		if !a.IP.IsValid() {
			return "link_up"
		}
		return "static"
	}
	return ""
}

// renderLinks renders the configured links. Keys without a value are left out: clients cannot bear null there.
func renderLinks(c *storage.Catalogue, links []storage.IPAddress) []api.InterfaceLink {
	out := []api.InterfaceLink{}
	for _, a := range links {
		mode := linkMode(a)
		if mode == "" {
			continue
		}
		l := api.InterfaceLink{ID: a.ID, Mode: mode}
		switch {
		case a.IP.IsValid():
			ip := a.IP.String()
			l.IPAddress = &ip
		case a.AllocType == storage.AllocDHCP:
			// The lease is a row of its own; the link shows its address.
			for _, d := range links {
				if d.AllocType == storage.AllocDiscovered && d.IP.IsValid() && (a.SubnetID == nil || d.SubnetID != nil && *d.SubnetID == *a.SubnetID) {
					ip := d.IP.String()
					l.IPAddress = &ip
					break
				}
			}
		}
		if a.SubnetID != nil && c.Subnets[*a.SubnetID] != nil {
			s := renderSubnet(c, *a.SubnetID)
			l.Subnet = &s
		}
		out = append(out, l)
	}
	return out
}

func renderInterface(c *storage.Catalogue, systemID string, b *storage.InterfaceBundle) api.Interface {
	out := api.Interface{
		ResourceURI: apiRoot + "nodes/" + systemID + "/interfaces/" + itoa(b.ID) + "/", SystemID: &systemID, ID: b.ID, Name: b.Name, Type: b.Type,
		Enabled: b.Interface.Enabled, VLAN: renderVLANPtr(c, b.VLANID), Links: renderLinks(c, b.Links), Params: map[string]any{},
		Parents: listOf(b.Parents), Children: listOf(b.Children), Tags: listOf(b.Tags), Vendor: b.Vendor, Product: b.Product,
		FirmwareVersion: b.FirmwareVersion, LinkConnected: b.LinkConnected, InterfaceSpeed: b.InterfaceSpeed, LinkSpeed: b.LinkSpeed,
		NUMANode: b.NUMANode, SRIOVMaxVf: b.SRIOVMaxVF,
	}
	if b.MACAddress != "" {
		mac := b.SpelledMAC()
		out.MACAddress = &mac
	}
	if len(b.Params) > 0 {
		_ = json.Unmarshal(b.Params, &out.Params) // the store holds nothing but objects; anything else shows as {}
		if out.Params == nil {
			out.Params = map[string]any{}
		}
		for k, v := range out.Params { // counts and times are whole numbers
			if f, ok := v.(float64); ok && f == float64(int64(f)) {
				out.Params[k] = int64(f)
			}
		}
	}
	out.EffectiveMTU = b.EffectiveMTU(c)
	var seen []map[string]any
	for _, a := range b.Links {
		if a.AllocType != storage.AllocDiscovered || !a.IP.IsValid() {
			continue
		}
		d := map[string]any{"ip_address": a.IP.String()}
		if a.SubnetID != nil && c.Subnets[*a.SubnetID] != nil {
			d["subnet"] = renderSubnet(c, *a.SubnetID)
		}
		seen = append(seen, d)
	}
	if seen != nil {
		out.Discovered = &seen
	} else {
		out.Discovered = &[]map[string]any{} // null in MAAS; some clients cannot bear that, none minds the empty list
	}
	return out
}
