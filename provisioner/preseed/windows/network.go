package windows

import (
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"slices"

	"github.com/ingot-metal/ingot/provisioner/layout"
)

// The network in version 1 of curtin's form, which cloudbase-init's MAAS service reads: physical interfaces, bonds and VLANs. What it has
// no words for is refused, except routes, which our script sets.

type netItem struct {
	Type       string            `json:"type"`
	ID         string            `json:"id,omitempty"`
	Name       string            `json:"name,omitempty"`
	MAC        string            `json:"mac_address,omitempty"`
	MTU        int               `json:"mtu,omitempty"`
	Members    []string          `json:"bond_interfaces,omitempty"`
	Params     map[string]string `json:"params,omitempty"`
	VLANID     int               `json:"vlan_id,omitempty"`
	VLANLink   string            `json:"vlan_link,omitempty"`
	Subnets    []netSubnet       `json:"subnets,omitempty"`
	Address    []string          `json:"address,omitempty"` // of a nameserver item
	SearchList []string          `json:"search,omitempty"`
}

type netSubnet struct {
	Type    string   `json:"type"`
	Address string   `json:"address,omitempty"`
	Gateway string   `json:"gateway,omitempty"`
	DNS     []string `json:"dns_nameservers,omitempty"`
}

type netRoute struct {
	Interface   string `json:"interface"`
	Destination string `json:"destination"`
	NextHop     string `json:"next_hop"`
	Metric      int    `json:"metric"`
}

var ifaceName = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9._-]{0,14}$`)

var bondModes = []string{"balance-rr", "active-backup", "balance-xor", "broadcast", "802.3ad", "balance-tlb", "balance-alb"}

func (in *Input) network() (doc, routes []byte, err error) {
	known, member := map[string]bool{}, map[string]bool{}
	for _, n := range in.NICs {
		if !ifaceName.MatchString(n.Name) {
			return nil, nil, fmt.Errorf("the interface name %q is not one that the kernel takes", n.Name)
		}
		if known[n.Name] {
			return nil, nil, fmt.Errorf("two interfaces are named %q", n.Name)
		}
		known[n.Name] = true
		if n.Type == layout.NICBond || n.Type == layout.NICVLAN {
			for _, p := range n.Parents {
				member[p] = true
			}
		}
	}
	gateways := map[bool]netip.Addr{}
	rank := map[bool]int{}
	for _, n := range in.NICs {
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
				rank[v6], gateways[v6] = score, l.Gateway
			}
		}
	}
	items := []netItem{}
	var rs []netRoute
	var dns []string
	used := map[bool]bool{}
	for _, n := range in.NICs {
		mac, err := net.ParseMAC(n.MAC)
		if err != nil || len(mac) != 6 {
			return nil, nil, fmt.Errorf("the interface %s has no usable MAC address", n.Name)
		}
		it := netItem{ID: n.Name, Name: n.Name, MAC: mac.String(), MTU: n.MTU}
		var parents []string
		for _, p := range n.Parents {
			if known[p] {
				parents = append(parents, p)
			}
		}
		slices.Sort(parents)
		switch n.Type {
		case "", layout.NICPhysical:
			it.Type = "physical"
		case layout.NICBond:
			mode := n.Bond.Mode
			if mode == "" {
				mode = "balance-rr"
			}
			if !slices.Contains(bondModes, mode) || len(parents) == 0 {
				return nil, nil, fmt.Errorf("cloudbase-init does not make the bond %s of mode %q of %d interfaces", n.Name, mode, len(parents))
			}
			it.Type, it.Members, it.Params = "bond", parents, map[string]string{"bond-mode": mode}
			if mode == "802.3ad" && n.Bond.LACPRate != "" {
				it.Params["bond-lacp-rate"] = n.Bond.LACPRate
			}
			if n.Bond.HashPolicy != "" && slices.Contains([]string{"802.3ad", "balance-xor", "balance-tlb"}, mode) {
				it.Params["bond-xmit-hash-policy"] = n.Bond.HashPolicy
			}
		case layout.NICVLAN:
			if len(parents) != 1 {
				return nil, nil, fmt.Errorf("the VLAN interface %s does not stand on one interface that is in use", n.Name)
			}
			it.Type, it.VLANID, it.VLANLink = "vlan", n.VID, parents[0]
		default:
			return nil, nil, fmt.Errorf("Windows gets no interfaces of type %q: remove %s before the machine is deployed with it", n.Type, n.Name)
		}
		for _, l := range n.Links {
			s := netSubnet{Type: "static"}
			switch {
			case l.DHCP && l.IPv6:
				s.Type = "dhcp6"
			case l.DHCP:
				s.Type = "dhcp4"
			case !l.Address.IsValid():
				continue
			default:
				s.Address = l.Address.String()
				if v6 := l.Address.Addr().Is6(); l.Gateway.IsValid() && l.Gateway == gateways[v6] && !used[v6] {
					used[v6], s.Gateway = true, l.Gateway.String()
				}
				s.DNS = l.DNS
				for _, d := range l.DNS {
					if !slices.Contains(dns, d) {
						dns = append(dns, d)
					}
				}
			}
			it.Subnets = append(it.Subnets, s)
			for _, r := range l.Routes {
				rs = append(rs, netRoute{n.Name, r.To.String(), r.Via.String(), r.Metric})
			}
		}
		if len(it.Subnets) == 0 && !member[n.Name] && it.Type == "physical" {
			it.Subnets = []netSubnet{{Type: "manual"}} // disconnected: Windows switches it off
		}
		items = append(items, it)
	}
	if len(dns) > 0 {
		items = append(items, netItem{Type: "nameserver", Address: dns, SearchList: in.Search})
	}
	doc, err = json.MarshalIndent(map[string]any{"version": 1, "config": items}, "", "  ")
	if err != nil || len(rs) == 0 {
		return doc, nil, err
	}
	routes, err = json.MarshalIndent(rs, "", "  ")
	return doc, routes, err
}
