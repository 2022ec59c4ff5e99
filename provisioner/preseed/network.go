package preseed

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/ingot-metal/ingot/provisioner/layout"
)

// The oldest releases of Ubuntu that understand things.
const (
	xenial = "16.04" // network version 2
	bionic = "18.04" // routing by source
	noble  = "24.04" // apt sources as deb822
)

// oldUbuntu are the releases before those that everybody still runs; a name that is not here is newer than all of them.
var oldUbuntu = map[string]string{"precise": "12.04", "trusty": "14.04", "utopic": "14.10", "vivid": "15.04", "wily": "15.10", "xenial": "16.04", "yakkety": "16.10", "zesty": "17.04",
	"artful": "17.10", "bionic": "18.04", "cosmic": "18.10", "disco": "19.04", "eoan": "19.10", "focal": "20.04", "groovy": "20.10", "hirsute": "21.04",
	"impish": "21.10", "jammy": "22.04", "kinetic": "22.10", "lunar": "23.04", "mantic": "23.10"}

// ubuntuSince says whether a release of Ubuntu is at least a version.
func ubuntuSince(series, version string) bool {
	v, ok := oldUbuntu[series]
	return !ok || v >= version
}

// NetworkVersion is the version of network configuration that a system gets: 2 for Ubuntu from 16.04 on, 1 for everything else.
func NetworkVersion(osystem, series string, forceV1 bool) int {
	if !forceV1 && (osystem == "ubuntu-core" || osystem == "ubuntu" && ubuntuSince(series, xenial)) {
		return 2
	}
	return 1
}

// networkV2 is the network in version 2, for systems that do not route by source without the tables for that.
func networkV2(nics []layout.NIC, search []string, bySource bool) (map[string]any, error) {
	doc, err := layout.Netplan(nics, search)
	if err != nil || bySource {
		return doc, err
	}
	eachInterface(doc, func(_ string, e map[string]any) {
		delete(e, "routing-policy")
		routes, _ := e["routes"].([]any)
		main := slices.DeleteFunc(slices.Clone(routes), func(r any) bool {
			m, ok := r.(map[string]any)
			return ok && m["table"] != nil
		})
		if e["routes"] = main; len(main) == 0 {
			delete(e, "routes")
		}
	})
	return doc, nil
}

// eachInterface calls fn for each interface of a configuration, version 2.
func eachInterface(doc map[string]any, fn func(name string, e map[string]any)) {
	for _, kind := range []string{"ethernets", "bonds", "bridges", "vlans"} {
		group, _ := doc[kind].(map[string]any)
		for name, v := range group {
			if e, ok := v.(map[string]any); ok {
				fn(name, e)
			}
		}
	}
}

// defaultGateways are the gateways of the default routes of a configuration, version 2, by interface.
func defaultGateways(doc map[string]any) map[string]map[string]bool {
	out := map[string]map[string]bool{}
	eachInterface(doc, func(name string, e map[string]any) {
		out[name] = map[string]bool{}
		routes, _ := e["routes"].([]any)
		for _, r := range routes {
			m, _ := r.(map[string]any)
			to, _ := m["to"].(string)
			via, _ := m["via"].(string)
			if p, err := netip.ParsePrefix(to); m["table"] == nil && (to == "default" || err == nil && p.Bits() == 0) {
				out[name][via] = true
			}
		}
	})
	return out
}

// v1Item is an entry of a network configuration, version 1.
type v1Item struct {
	ID               string         `yaml:"id,omitempty"`
	Name             string         `yaml:"name,omitempty"`
	Type             string         `yaml:"type"`
	MACAddress       string         `yaml:"mac_address,omitempty"`
	MTU              int            `yaml:"mtu,omitempty"`
	AcceptRA         *bool          `yaml:"accept-ra,omitempty"`
	BondInterfaces   []string       `yaml:"bond_interfaces,omitempty,flow"`
	BridgeInterfaces []string       `yaml:"bridge_interfaces,omitempty,flow"`
	VLANLink         string         `yaml:"vlan_link,omitempty"`
	VLANID           *int           `yaml:"vlan_id,omitempty"`
	Params           map[string]any `yaml:"params,omitempty"`
	Subnets          []v1Subnet     `yaml:"subnets,omitempty"`
	Address          []string       `yaml:"address,omitempty,flow"`
	Search           []string       `yaml:"search,omitempty,flow"`
}

type v1Subnet struct {
	Type           string    `yaml:"type"`
	Address        string    `yaml:"address,omitempty"`
	Gateway        string    `yaml:"gateway,omitempty"`
	DNSNameservers []string  `yaml:"dns_nameservers,omitempty,flow"`
	DNSSearch      []string  `yaml:"dns_search,omitempty,flow"`
	Routes         []v1Route `yaml:"routes,omitempty"`
}

type v1Route struct {
	Network string `yaml:"network"`
	Netmask string `yaml:"netmask"`
	Gateway string `yaml:"gateway"`
	Metric  int    `yaml:"metric,omitempty"`
}

type v1Config struct {
	Version int      `yaml:"version"`
	Config  []v1Item `yaml:"config"`
}

// networkV1 is the network in version 1. What is checked and which gateways are default ones is version 2's business, and taken from there.
func networkV1(nics []layout.NIC, search []string) (v1Config, error) {
	doc := v1Config{Version: 1}
	plan, err := layout.Netplan(nics, search)
	if err != nil {
		return doc, err
	}
	defaults := defaultGateways(plan)
	sorted := slices.Clone(nics)
	known := map[string]bool{}
	for _, n := range nics {
		known[n.Name] = true
	}
	rank := map[string]int{"": 0, layout.NICPhysical: 0, layout.NICBond: 1, layout.NICVLAN: 2, layout.NICBridge: 3}
	slices.SortStableFunc(sorted, func(a, b layout.NIC) int {
		return cmp.Or(cmp.Compare(rank[a.Type], rank[b.Type]), cmp.Compare(a.Name, b.Name))
	})
	if sorted, err = parentsFirst(sorted); err != nil {
		return doc, err
	}
	var dns []string
	for _, n := range sorted {
		it := v1Item{ID: n.Name, Name: n.Name, Type: cmp.Or(n.Type, layout.NICPhysical), MACAddress: n.MAC, MTU: n.MTU, AcceptRA: n.AcceptRA}
		parents := slices.DeleteFunc(slices.Sorted(slices.Values(n.Parents)), func(p string) bool { return !known[p] })
		switch n.Type {
		case layout.NICBond:
			it.BondInterfaces, it.Params = parents, bondV1(n.Bond)
		case layout.NICBridge:
			if n.Bridge.OVS {
				return doc, fmt.Errorf("%s is an Open vSwitch bridge, which this system's network configuration has no words for", n.Name)
			}
			it.BridgeInterfaces, it.Params = parents, map[string]any{"bridge_stp": n.Bridge.STP, "bridge_fd": n.Bridge.ForwardDelay}
		case layout.NICVLAN:
			vid := n.VID
			it.VLANLink, it.VLANID, it.MACAddress = parents[0], &vid, n.MAC
		}
		taken := map[string]bool{}
		for _, l := range n.Links {
			sub := v1Subnet{Type: "dhcp4"}
			switch {
			case l.DHCP && l.IPv6:
				sub.Type = "dhcp6"
			case l.DHCP:
			case !l.Address.IsValid():
				continue
			default:
				if sub.Type, sub.Address = "static", l.Address.String(); l.Address.Addr().Is6() {
					sub.Type = "static6"
				}
				if gw := l.Gateway.String(); l.Gateway.IsValid() && defaults[n.Name][gw] && !taken[gw] {
					taken[gw], sub.Gateway = true, gw
				}
				if sub.DNSNameservers = l.DNS; len(l.DNS) > 0 {
					sub.DNSSearch = search
				}
				for _, d := range l.DNS {
					if !slices.Contains(dns, d) {
						dns = append(dns, d)
					}
				}
				for _, r := range l.Routes {
					if !r.To.IsValid() || !r.Via.IsValid() {
						return doc, errors.New("a route without destination or gateway")
					}
					sub.Routes = append(sub.Routes, v1Route{r.To.Masked().Addr().String(), netmask(r.To), r.Via.String(), r.Metric})
				}
			}
			it.Subnets = append(it.Subnets, sub)
		}
		if len(it.Subnets) == 0 {
			it.Subnets = []v1Subnet{{Type: "manual"}}
		}
		doc.Config = append(doc.Config, it)
	}
	if len(dns) > 0 {
		doc.Config = append(doc.Config, v1Item{Type: "nameserver", Address: dns, Search: search})
	}
	return doc, nil
}

// parentsFirst puts interfaces behind those that they stand on.
func parentsFirst(in []layout.NIC) ([]layout.NIC, error) {
	byName := map[string]layout.NIC{}
	for _, n := range in {
		byName[n.Name] = n
	}
	var out []layout.NIC
	state := map[string]int{} // 1: being placed, 2: placed
	var place func(n layout.NIC) error
	place = func(n layout.NIC) error {
		if state[n.Name] == 1 {
			return fmt.Errorf("the interface %s stands on itself", n.Name)
		}
		if state[n.Name] == 2 {
			return nil
		}
		state[n.Name] = 1
		for _, p := range slices.Sorted(slices.Values(n.Parents)) {
			if parent, ok := byName[p]; ok {
				if err := place(parent); err != nil {
					return err
				}
			}
		}
		state[n.Name] = 2
		out = append(out, n)
		return nil
	}
	for _, n := range in {
		if err := place(n); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// netmask is the mask of a prefix: dotted for IPv4, its length for IPv6.
func netmask(p netip.Prefix) string {
	if p.Addr().Is6() {
		return fmt.Sprint(p.Bits())
	}
	mask := ^uint32(0) << (32 - p.Bits())
	return netip.AddrFrom4([4]byte{byte(mask >> 24), byte(mask >> 16), byte(mask >> 8), byte(mask)}).String()
}

// bondV1 are a bond's parameters in version 1's words.
func bondV1(b layout.BondParams) map[string]any {
	p := map[string]any{"bond-mode": cmp.Or(b.Mode, "balance-rr")}
	for key, v := range map[string]int{"bond-miimon": b.MIIMonitor, "bond-updelay": b.UpDelay, "bond-downdelay": b.DownDelay} {
		if v > 0 {
			p[key] = v
		}
	}
	if b.Mode == "active-backup" && b.GratARP > 0 {
		p["bond-num-grat-arp"] = b.GratARP
	}
	if b.Mode == "802.3ad" && b.LACPRate != "" {
		p["bond-lacp-rate"] = b.LACPRate
	}
	if slices.Contains([]string{"802.3ad", "balance-xor", "balance-tlb"}, b.Mode) && b.HashPolicy != "" {
		p["bond-xmit-hash-policy"] = b.HashPolicy
	}
	return p
}
