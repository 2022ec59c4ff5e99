package layout

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
)

// Link is an address of an interface.
type Link struct {
	Address netip.Prefix // with the prefix length of its subnet; invalid for DHCP and link-up
	DHCP    bool
	IPv6    bool // of a DHCP link
	Gateway netip.Addr
	Default bool // this link's gateway was chosen as the default one
	DNS     []string
	Routes  []Route // what else is reached through the link's subnet
}

// Route is a static route.
type Route struct {
	To     netip.Prefix
	Via    netip.Addr
	Metric int
}

// The types of a NIC; empty is physical.
const (
	NICPhysical = "physical"
	NICBond     = "bond"
	NICBridge   = "bridge"
	NICVLAN     = "vlan"
)

// NIC is an interface.
type NIC struct {
	Name     string
	Type     string
	MAC      string
	MTU      int
	Boot     bool // its gateway is preferred
	AcceptRA *bool
	Links    []Link
	Parents  []string // the names of those that a bond, a bridge or a VLAN interface stands on
	VID      int      // the tag of a VLAN interface
	Bond     BondParams
	Bridge   BridgeParams
}

// BondParams are the parameters of a bond; times are milliseconds.
type BondParams struct {
	Mode, LACPRate, HashPolicy              string
	MIIMonitor, UpDelay, DownDelay, GratARP int
}

// BridgeParams are the parameters of a bridge.
type BridgeParams struct {
	OVS          bool
	STP          bool
	ForwardDelay int // seconds
}

// kernelName is a name that Linux takes for an interface and that no configuration file misreads.
var kernelName = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9._-]{0,14}$`)

// Netplan is the network in netplan's version 2, interfaces matched by MAC address, with one default gateway a family: the chosen
// one, else that of the boot interface, else the first. A gateway of another interface answers for what is sent from its own subnet,
// by a routing table of its own.
func Netplan(nics []NIC, search []string) (map[string]any, error) {
	sorted := slices.Clone(nics)
	slices.SortStableFunc(sorted, func(a, b NIC) int { return cmp.Compare(a.Name, b.Name) })
	known := map[string]bool{}
	for _, n := range sorted {
		switch {
		case n.Name == "" || n.MAC == "":
			return nil, errors.New("an interface without a name or address")
		case !kernelName.MatchString(n.Name):
			return nil, fmt.Errorf("the interface name %q is not one that the kernel takes", n.Name)
		case known[n.Name]:
			return nil, fmt.Errorf("two interfaces named %q", n.Name)
		}
		known[n.Name] = true
	}
	out := map[string]any{"version": 2}
	group := func(name string) map[string]any {
		g, ok := out[name].(map[string]any)
		if !ok {
			g = map[string]any{}
			out[name] = g
		}
		return g
	}
	group("ethernets")
	gateways := newGateways(sorted)
	member := map[string]bool{}
	for _, n := range sorted {
		if n.Type == NICBond || n.Type == NICBridge {
			for _, p := range n.Parents {
				member[p] = true
			}
		}
	}
	for _, n := range sorted {
		e := map[string]any{}
		if n.MTU > 0 {
			e["mtu"] = n.MTU
		}
		if n.AcceptRA != nil {
			e["accept-ra"] = *n.AcceptRA
		}
		n.addresses(e, search, gateways)
		if e["addresses"] == nil && e["dhcp4"] == nil && e["dhcp6"] == nil && !member[n.Name] {
			e["optional"] = true // up, without an address: the boot does not wait for it
		}
		parents := slices.DeleteFunc(slices.Sorted(slices.Values(n.Parents)), func(p string) bool { return !known[p] })
		switch n.Type {
		case "", NICPhysical:
			e["match"], e["set-name"] = map[string]any{"macaddress": n.MAC}, n.Name
			group("ethernets")[n.Name] = e
		case NICBond:
			e["interfaces"], e["macaddress"], e["parameters"] = anys(parents), n.MAC, n.Bond.parameters()
			group("bonds")[n.Name] = e
		case NICBridge:
			e["interfaces"], e["macaddress"] = anys(parents), n.MAC
			if e["parameters"] = map[string]any{"stp": n.Bridge.STP, "forward-delay": n.Bridge.ForwardDelay}; n.Bridge.OVS {
				e["parameters"], e["openvswitch"] = map[string]any{"stp": n.Bridge.STP}, map[string]any{} // it takes no delay
			}
			group("bridges")[n.Name] = e
		case NICVLAN:
			if len(parents) != 1 {
				return nil, fmt.Errorf("the VLAN interface %s stands on %d interfaces that are in use, not on one", n.Name, len(parents))
			}
			e["id"], e["link"] = n.VID, parents[0]
			group("vlans")[n.Name] = e
		default:
			return nil, fmt.Errorf("the interface %s is of the unknown type %q", n.Name, n.Type)
		}
	}
	return out, nil
}

// gateways are the default gateways of a machine, by whether they are IPv6.
type gateways struct {
	of    map[bool]string     // the interface that has it
	via   map[bool]netip.Addr // it
	homes map[netip.Prefix]bool
	table int // the last routing table that was given out
}

func newGateways(nics []NIC) *gateways {
	g := &gateways{of: map[bool]string{}, via: map[bool]netip.Addr{}, homes: map[netip.Prefix]bool{}}
	rank := map[bool]int{}
	for _, n := range nics {
		for _, l := range n.Links {
			if !l.Gateway.IsValid() || !l.Address.IsValid() {
				continue
			}
			score := 1
			if n.Boot {
				score = 2
			}
			if l.Default {
				score = 3
			}
			if v6 := l.Gateway.Is6(); score > rank[v6] {
				rank[v6], g.via[v6], g.of[v6] = score, l.Gateway, n.Name
			}
		}
	}
	for _, n := range nics { // what the default routes serve needs no table of its own
		for _, l := range n.Links {
			if l.Address.IsValid() && g.of[l.Address.Addr().Is6()] == n.Name {
				g.homes[l.Address.Masked()] = true
			}
		}
	}
	return g
}

// The main routing table, and the priorities of the rules that lead to it and past it.
const (
	mainTable  = 254
	stayHome   = 999
	goByItself = 1000
)

// everything is the destination of a default route.
func everything(v6 bool) string {
	if v6 {
		return "::/0"
	}
	return "0.0.0.0/0"
}

// route writes the way to a link's gateway: the default route, or a table of its own with the rules that lead there.
func (g *gateways) route(n *NIC, l *Link) (routes, rules []any) {
	if !l.Gateway.IsValid() {
		return nil, nil
	}
	v6, home := l.Gateway.Is6(), l.Address.Masked()
	if g.of[v6] == n.Name {
		if l.Gateway != g.via[v6] {
			return nil, nil
		}
		g.via[v6] = netip.Addr{} // once
		return []any{map[string]any{"to": everything(v6), "via": l.Gateway.String()}}, nil
	}
	if g.homes[home] {
		return nil, nil
	}
	g.homes[home] = true
	g.table++
	return []any{map[string]any{"to": everything(v6), "via": l.Gateway.String(), "table": g.table}},
		[]any{map[string]any{"from": home.String(), "to": home.String(), "table": mainTable, "priority": stayHome},
			map[string]any{"from": home.String(), "table": g.table, "priority": goByItself}}
}

// addresses writes the addresses of an interface with their routes and DNS servers.
func (n *NIC) addresses(e map[string]any, search []string, g *gateways) {
	var addresses, dns, routes, rules []any
	for _, l := range n.Links {
		if l.DHCP {
			if l.IPv6 {
				e["dhcp6"] = true
			} else {
				e["dhcp4"] = true
			}
			continue
		}
		if !l.Address.IsValid() {
			continue
		}
		addresses = append(addresses, l.Address.String())
		for _, d := range l.DNS {
			if !slices.Contains(dns, any(d)) {
				dns = append(dns, d)
			}
		}
		more, by := g.route(n, &l)
		routes, rules = append(routes, more...), append(rules, by...)
		for _, r := range l.Routes {
			route := map[string]any{"to": r.To.String(), "via": r.Via.String(), "metric": r.Metric}
			if !slices.ContainsFunc(routes, func(o any) bool { // two addresses in one subnet
				x, ok := o.(map[string]any)
				return ok && x["to"] == route["to"] && x["via"] == route["via"]
			}) {
				routes = append(routes, route)
			}
		}
	}
	if addresses != nil {
		e["addresses"] = addresses
	}
	if routes != nil {
		e["routes"] = routes
	}
	if rules != nil {
		e["routing-policy"] = rules
	}
	if dns != nil {
		ns := map[string]any{"addresses": dns}
		if len(search) > 0 {
			ns["search"] = anys(search)
		}
		e["nameservers"] = ns
	}
}

// parameters are those that mean something in the bond's mode.
func (b BondParams) parameters() map[string]any {
	p := map[string]any{"mode": cmp.Or(b.Mode, "balance-rr")}
	set := func(key string, v int) {
		if v > 0 {
			p[key] = v
		}
	}
	set("mii-monitor-interval", b.MIIMonitor)
	set("up-delay", b.UpDelay)
	set("down-delay", b.DownDelay)
	if b.Mode == "active-backup" {
		set("gratuitous-arp", b.GratARP)
	}
	if b.Mode == "802.3ad" && b.LACPRate != "" {
		p["lacp-rate"] = b.LACPRate
	}
	if slices.Contains([]string{"802.3ad", "balance-xor", "balance-tlb"}, b.Mode) && b.HashPolicy != "" {
		p["transmit-hash-policy"] = b.HashPolicy
	}
	return p
}

func anys(in []string) []any {
	out := make([]any, len(in))
	for i, s := range in {
		out[i] = s
	}
	return out
}
