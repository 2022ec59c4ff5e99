package kickstart

import (
	"cmp"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/ingot-metal/ingot/provisioner/layout"
)

var (
	ifaceName  = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9._-]{0,14}$`)
	kernelEth  = regexp.MustCompile(`^eth[0-9]+$`)
	vlanDotted = regexp.MustCompile(`\.([0-9]+)$`)
)

// network is what a machine's interfaces become.
type network struct {
	commands []command
	routes   []route
	links    []link // names of physical interfaces, kept across boots
}

type route struct {
	device string
	layout.Route
}

type link struct{ name, mac string }

// networkPlan translates the interfaces or says what kickstart has no words for. Commands configure the installed system only: the
// installation goes on with the address that it booted with.
func networkPlan(in *Input) (network, error) {
	var out network
	nics := slices.Clone(in.NICs)
	slices.SortStableFunc(nics, func(a, b layout.NIC) int { return cmp.Compare(a.Name, b.Name) })
	known := map[string]layout.NIC{}
	master := map[string]string{}
	for _, n := range nics {
		if !ifaceName.MatchString(n.Name) {
			return out, refuse("the interface name %q is not one that the kernel takes", n.Name)
		}
		if _, twice := known[n.Name]; twice {
			return out, refuse("two interfaces are named %q", n.Name)
		}
		known[n.Name] = n
	}
	for _, n := range nics {
		if n.Type == layout.NICBond || n.Type == layout.NICBridge {
			for _, p := range n.Parents {
				if m := master[p]; m != "" {
					return out, refuse("the interface %s is a part of %s and of %s", p, m, n.Name)
				}
				master[p] = n.Name
			}
		}
	}
	gateways, used := chooseGateways(in.NICs), map[bool]bool{}
	// Physical interfaces first, then what stands on them: Anaconda makes devices in the order of their lines.
	rank := func(n layout.NIC) int {
		return map[string]int{layout.NICBond: 1, layout.NICVLAN: 2, layout.NICBridge: 3}[n.Type]
	}
	slices.SortStableFunc(nics, func(a, b layout.NIC) int { return rank(a) - rank(b) })
	for _, n := range nics {
		c := cmd("network")
		var parents []string
		for _, p := range slices.Sorted(slices.Values(n.Parents)) {
			if _, ok := known[p]; ok {
				parents = append(parents, p)
			}
		}
		switch n.Type {
		case "", layout.NICPhysical:
			mac, err := net.ParseMAC(n.MAC)
			if err != nil || len(mac) != 6 {
				return out, refuse("the interface %s has no usable MAC address", n.Name)
			}
			if !kernelEth.MatchString(n.Name) {
				out.links = append(out.links, link{n.Name, mac.String()})
			}
			if master[n.Name] != "" {
				continue // its master's line configures it
			}
			c = append(c, opt("device", mac.String()), "--bindto=mac")
		case layout.NICBond:
			if len(parents) == 0 {
				return out, refuse("the bond %s has no interfaces that are in use", n.Name)
			}
			// The first one gives the bond its MAC address.
			slices.SortStableFunc(parents, func(a, b string) int {
				first := func(p string) int {
					if strings.EqualFold(known[p].MAC, n.MAC) {
						return 0
					}
					return 1
				}
				return first(a) - first(b)
			})
			for _, p := range parents {
				if t := known[p].Type; t != "" && t != layout.NICPhysical {
					return out, refuse("Anaconda makes bonds of physical interfaces only: %s is a part of %s", p, n.Name)
				}
			}
			c = append(c, opt("device", n.Name), opt("bondslaves", strings.Join(parents, ",")), opt("bondopts", bondOptions(n.Bond)), "--bindto=mac")
		case layout.NICVLAN:
			if len(parents) != 1 || n.VID < 1 || n.VID > 4094 {
				return out, refuse("the VLAN interface %s does not stand on one interface with a tag of 1 to 4094", n.Name)
			}
			id := strconv.Itoa(n.VID)
			dotted := vlanDotted.FindStringSubmatch(n.Name)
			if strings.Contains(n.Name, ".") && (dotted == nil || dotted[1] != id) || strings.HasPrefix(n.Name, "vlan") && n.Name != "vlan"+id {
				return out, refuse("Anaconda takes VLAN interface names NAME.%s, vlan%s, or such without a dot: rename %s.", id, id, n.Name)
			}
			if master[n.Name] != "" {
				return out, refuse("Anaconda puts no VLAN interface into a bond or bridge: %s is a part of %s", n.Name, master[n.Name])
			}
			c = append(c, opt("device", parents[0]), opt("vlanid", id), opt("interfacename", n.Name))
		case layout.NICBridge:
			if n.Bridge.OVS {
				return out, refuse("Anaconda makes no Open vSwitch bridges: %s", n.Name)
			}
			if len(parents) == 0 {
				return out, refuse("the bridge %s has no interfaces that are in use", n.Name)
			}
			for _, p := range parents {
				if t := known[p].Type; t != "" && t != layout.NICPhysical {
					return out, refuse("Anaconda makes bridges of physical interfaces only: %s is a part of %s", p, n.Name)
				}
			}
			options := "stp=no"
			if n.Bridge.STP {
				options = "stp=yes"
			}
			if d := n.Bridge.ForwardDelay; d >= 2 && d <= 30 { // what NetworkManager takes
				options += ",forward-delay=" + strconv.Itoa(d)
			}
			c = append(c, opt("device", n.Name), opt("bridgeslaves", strings.Join(parents, ",")), opt("bridgeopts", options), "--bindto=mac")
		default:
			return out, refuse("the interface %s is of the unknown type %q", n.Name, n.Type)
		}
		if n.Type == layout.NICBond && master[n.Name] != "" {
			return out, refuse("Anaconda puts no bond into a bridge: %s is a part of %s", n.Name, master[n.Name])
		}
		addresses, err := addressing(n, gateways, used)
		if err != nil {
			return out, err
		}
		out.commands = append(out.commands, append(append(c, addresses...), "--onboot=yes", "--no-activate"))
		for _, l := range n.Links {
			for _, r := range l.Routes {
				if !r.To.IsValid() || !r.Via.IsValid() || r.To.Addr().Is4() != r.Via.Is4() {
					return out, refuse("a route of the interface %s is not usable", n.Name)
				}
				have := func(o route) bool { return o.device == n.Name && o.To == r.To && o.Via == r.Via }
				if !slices.ContainsFunc(out.routes, have) {
					out.routes = append(out.routes, route{n.Name, r})
				}
			}
		}
	}
	if in.Hostname != "" {
		out.commands = append(out.commands, cmd("network", opt("hostname", in.Hostname)))
	}
	return out, nil
}

// chooseGateways picks the default gateway of each family, by whether it is IPv6: the chosen one, else that of the boot interface,
// else the first.
func chooseGateways(nics []layout.NIC) map[bool]netip.Addr {
	gateway, rank := map[bool]netip.Addr{}, map[bool]int{}
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
				rank[v6], gateway[v6] = score, l.Gateway
			}
		}
	}
	return gateway
}

// addressing writes the addresses of one interface: at most one of each family, which is all that kickstart has room for.
func addressing(n layout.NIC, gateways map[bool]netip.Addr, used map[bool]bool) ([]string, error) {
	var out, dns []string
	var v4, v6 string
	set := func(family *string, how string) error {
		if *family != "" && *family != how {
			return refuse("kickstart gives an interface one IPv4 and one IPv6 address; %s has more. Remove those that it can do without.", n.Name)
		}
		*family = how
		return nil
	}
	default4 := false
	for _, l := range n.Links {
		for _, d := range l.DNS {
			a, err := netip.ParseAddr(d)
			if err != nil {
				return nil, refuse("the DNS server %q of the interface %s is not an address", d, n.Name)
			}
			if (l.Address.IsValid() || l.DHCP) && !slices.Contains(dns, a.String()) {
				dns = append(dns, a.String())
			}
		}
		a := l.Address
		var err error
		switch {
		case l.DHCP && l.IPv6:
			err = set(&v6, "dhcp")
		case l.DHCP:
			err = set(&v4, "dhcp")
		case !a.IsValid():
		case a.Addr().Is4():
			if err = set(&v4, a.String()); err == nil && l.Gateway.IsValid() && l.Gateway == gateways[false] {
				default4 = true
			}
		default:
			err = set(&v6, a.String())
		}
		if err != nil {
			return nil, err
		}
	}
	switch v4 {
	case "":
		out = append(out, "--noipv4")
	case "dhcp":
		out = append(out, "--bootproto=dhcp")
		if gateways[false].IsValid() {
			out = append(out, "--nodefroute") // another interface has the default route
		}
	default:
		p := netip.MustParsePrefix(v4)
		out = append(out, "--bootproto=static", opt("ip", p.Addr().String()), opt("netmask", net.IP(net.CIDRMask(p.Bits(), 32)).String()))
		if default4 && !used[false] {
			used[false] = true
			out = append(out, opt("gateway", gateways[false].String()))
		}
	}
	switch {
	case v6 == "" && n.AcceptRA != nil && *n.AcceptRA:
		out = append(out, "--ipv6=auto")
	case v6 == "":
		out = append(out, "--noipv6")
	default:
		out = append(out, opt("ipv6", v6))
		for _, l := range n.Links {
			if l.Address.IsValid() && l.Address.Addr().Is6() && l.Gateway.IsValid() && l.Gateway == gateways[true] && !used[true] {
				used[true] = true
				out = append(out, opt("ipv6gateway", l.Gateway.String()))
				break
			}
		}
	}
	if len(dns) > 0 {
		out = append(out, opt("nameserver", strings.Join(dns, ",")))
	}
	if n.MTU > 0 {
		out = append(out, number("mtu", int64(n.MTU)))
	}
	return out, nil
}

// bondOptions are the bonding driver's own names.
func bondOptions(b layout.BondParams) string {
	mode := cmp.Or(b.Mode, "balance-rr")
	out := []string{"mode=" + mode}
	set := func(name string, v int) {
		if v > 0 {
			out = append(out, name+"="+strconv.Itoa(v))
		}
	}
	set("miimon", b.MIIMonitor)
	set("updelay", b.UpDelay)
	set("downdelay", b.DownDelay)
	if mode == "active-backup" {
		set("num_grat_arp", b.GratARP)
	}
	if mode == "802.3ad" && b.LACPRate != "" {
		out = append(out, "lacp_rate="+b.LACPRate)
	}
	if slices.Contains([]string{"802.3ad", "balance-xor", "balance-tlb"}, mode) && b.HashPolicy != "" {
		out = append(out, "xmit_hash_policy="+b.HashPolicy)
	}
	return strings.Join(out, ",")
}
