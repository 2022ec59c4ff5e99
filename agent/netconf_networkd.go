package agent

import (
	"fmt"
	"strconv"
	"strings"
)

// networkd renders units for systemd-networkd. Ethernet interfaces are found by address and type (a VLAN has its parent's address).
func (p netPlan) networkd() []outFile {
	out := p.linkFiles()
	bond, bridge := p.members()
	vlans := map[string][]string{} // key → the VLAN interfaces on it
	for _, v := range keys(p.VLANs) {
		vlans[p.VLANs[v].Link] = append(vlans[p.VLANs[v].Link], v)
	}
	for _, kind := range p.kinds() {
		for _, k := range keys(kind.group) {
			i := kind.group[k]
			prio := 20
			if kind.name == "ethernet" {
				prio = 10
			} else {
				out = append(out, i.netdev(k, kind.name))
			}
			var f ini
			f.section("Match")
			switch mac := strings.ToLower(i.Match.MAC); {
			case mac == "":
				f.set("Name", i.real(k))
			case bond[k] != "": // a bond gives its members its own address
				f.set("PermanentMACAddress", mac).set("Type", "ether")
			default:
				f.set("MACAddress", mac).set("Type", "ether")
			}
			if i.MTU > 0 || i.Optional {
				f.section("Link").number("MTUBytes", i.MTU)
				if i.Optional {
					f.set("RequiredForOnline", "no")
				}
			}
			i.networkUnit(&f, bond[k], bridge[k], vlans[k])
			out = append(out, outFile{fmt.Sprintf("/etc/systemd/network/%d-ingot-%s.network", prio, k), f.String(), 0o644})
		}
	}
	return out
}

// networkUnit writes what a .network file says of addresses and routes.
func (i netIface) networkUnit(f *ini, bond, bridge string, vlans []string) {
	f.section("Network")
	switch {
	case bool(i.DHCP4) && bool(i.DHCP6):
		f.set("DHCP", "yes")
	case bool(i.DHCP4):
		f.set("DHCP", "ipv4")
	case bool(i.DHCP6):
		f.set("DHCP", "ipv6")
	}
	if bond != "" {
		f.set("Bond", bond)
	}
	if bridge != "" {
		f.set("Bridge", bridge)
	}
	for _, v := range vlans {
		f.set("VLAN", v)
	}
	if bond != "" || bridge != "" { // what belongs to another has no address of its own
		f.set("LinkLocalAddressing", "no")
	} else if len(i.Addresses) == 0 && !bool(i.DHCP4) && !bool(i.DHCP6) {
		f.set("LinkLocalAddressing", "ipv6").set("ConfigureWithoutCarrier", "yes") // it is to be up, whatever hangs on it
	}
	if i.AcceptRA != nil {
		f.set("IPv6AcceptRA", i.AcceptRA.word("yes", "no"))
	}
	for _, a := range i.Addresses {
		f.set("Address", a)
	}
	for _, a := range i.Nameservers.Addresses {
		f.set("DNS", a)
	}
	if s := i.Nameservers.Search; len(s) > 0 {
		f.set("Domains", strings.Join(s, " "))
	}
	if bool(i.DHCP4) {
		f.section("DHCPv4").set("ClientIdentifier", "mac") // the address that the firmware got, not another one
	}
	for _, r := range i.routes() {
		f.section("Route").set("Destination", r.to.String()).set("Gateway", r.via.String()).number("Metric", r.metric).number("Table", r.table)
	}
	for _, r := range i.Policy {
		f.section("RoutingPolicyRule")
		if r.From != "" {
			f.set("From", r.From)
		}
		if r.To != "" {
			f.set("To", r.To)
		}
		f.number("Table", r.Table).number("Priority", r.Priority)
	}
}

// netdev is the unit that makes a bond, a bridge or a VLAN interface.
func (i netIface) netdev(name, kind string) outFile {
	var f ini
	f.section("NetDev").set("Name", name).set("Kind", kind)
	if i.MTU > 0 && kind != "vlan" { // a VLAN's is set when its parent is as large
		f.number("MTUBytes", i.MTU)
	}
	if i.MAC != "" {
		f.set("MACAddress", strings.ToLower(i.MAC))
	}
	p := i.Parameters
	millis := func(key string, n int) {
		if n > 0 {
			f.set(key, strconv.Itoa(n)+"ms")
		}
	}
	switch kind {
	case "bond":
		f.section("Bond").set("Mode", firstOf(p.Mode, "balance-rr"))
		if p.LACPRate != "" {
			f.set("LACPTransmitRate", p.LACPRate)
		}
		if p.HashPolicy != "" {
			f.set("TransmitHashPolicy", p.HashPolicy)
		}
		f.number("GratuitousARP", p.GratARP)
		millis("MIIMonitorSec", p.MIIMonitor)
		millis("UpDelaySec", p.UpDelay)
		millis("DownDelaySec", p.DownDelay)
	case "bridge":
		f.section("Bridge")
		if p.STP != nil {
			f.set("STP", p.STP.word("yes", "no"))
		}
		if p.ForwardDelay != nil {
			f.set("ForwardDelaySec", strconv.Itoa(*p.ForwardDelay))
		}
	case "vlan":
		f.section("VLAN").set("Id", strconv.Itoa(i.ID))
	}
	return outFile{"/etc/systemd/network/20-ingot-" + name + ".netdev", f.String(), 0o644}
}
