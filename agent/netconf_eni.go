package agent

import (
	"errors"
	"fmt"
	"strings"
)

// eniNeeds says which package an image with ifupdown lacks for the plan.
func (p netPlan) eniNeeds(has func(string) bool) error {
	switch {
	case len(p.Bonds) > 0 && !has("sbin/ifenslave") && !has("usr/sbin/ifenslave"):
		return errors.New("the plan has a bond, and the image has ifupdown without the package ifenslave: add it to the image")
	case len(p.Bridges) > 0 && !has("sbin/brctl") && !has("usr/sbin/brctl"):
		return errors.New("the plan has a bridge, and the image has ifupdown without the package bridge-utils: add it to the image")
	}
	for _, n := range keys(p.VLANs) { // of these names ifupdown knows by itself what they mean
		i := p.VLANs[n]
		if n != fmt.Sprintf("%s.%d", p.name(i.Link), i.ID) && n != fmt.Sprintf("vlan%d", i.ID) && !has("etc/network/if-pre-up.d/vlan") {
			return fmt.Errorf("the VLAN interface %s is not named %s.%d, and the image has ifupdown without the package vlan: add it to the image, or rename the interface", n, p.name(i.Link), i.ID)
		}
	}
	return nil
}

// stanzas collects the blocks of one interface in /etc/network/interfaces.
type stanzas struct {
	b    *strings.Builder
	name string
	more []string // options that the first block takes along
}

func (s *stanzas) write(family, method string, lines ...string) {
	fmt.Fprintf(s.b, "iface %s %s %s\n", s.name, family, method)
	for _, l := range append(lines, s.more...) {
		fmt.Fprintf(s.b, "    %s\n", oneLine(l))
	}
	s.more = nil
}

// eni renders /etc/network/interfaces, and a udev rule that gives Ethernet interfaces the names it uses.
func (p netPlan) eni() []outFile {
	var b, rules strings.Builder
	b.WriteString("auto lo\niface lo inet loopback\n")
	bond, bridge := p.members()
	for _, kind := range p.kinds() {
		for _, k := range keys(kind.group) {
			i := kind.group[k]
			var extra []string
			switch kind.name {
			case "ethernet":
				if i.Match.MAC != "" {
					fmt.Fprintf(&rules, "SUBSYSTEM==\"net\", ACTION==\"add\", DRIVERS==\"?*\", ATTR{address}==\"%s\", NAME=\"%s\"\n", strings.ToLower(i.Match.MAC), i.real(k))
				}
			case "bond":
				extra = []string{"bond-slaves none"} // its members name it
				for _, x := range i.Parameters.bond() {
					extra = append(extra, "bond-"+strings.NewReplacer("num_grat_arp", "num-grat-arp", "_", "-").Replace(x[0])+" "+x[1])
				}
			case "bridge":
				ports := strings.Join(p.names(i.Interfaces), " ")
				extra = []string{"bridge_ports " + firstOf(ports, "none")}
				if v := i.Parameters.STP; v != nil {
					extra = append(extra, "bridge_stp "+v.word("on", "off"))
				}
				if v := i.Parameters.ForwardDelay; v != nil {
					extra = append(extra, fmt.Sprintf("bridge_fd %d", *v))
				}
			case "vlan":
				extra = []string{"vlan-raw-device " + p.name(i.Link), fmt.Sprintf("vlan-id %d", i.ID)}
			}
			if i.MAC != "" && kind.name != "ethernet" && kind.name != "vlan" {
				extra = append(extra, "hwaddress "+strings.ToLower(i.MAC))
			}
			p.stanza(&b, i.real(k), i, extra, bond[k], bridge[k] != "")
		}
	}
	out := []outFile{{"/etc/network/interfaces", b.String(), 0o644}}
	if rules.Len() > 0 {
		out = append(out, outFile{"/etc/udev/rules.d/70-persistent-net.rules", rules.String(), 0o644})
	}
	return out
}

func (p netPlan) stanza(b *strings.Builder, name string, i netIface, extra []string, bond string, bridged bool) {
	fmt.Fprintf(b, "\nauto %s\n", name)
	s := stanzas{b: b, name: name, more: extra}
	switch { // blocks of DHCP have no such option
	case i.MTU > 0 && (bool(i.DHCP4) || bool(i.DHCP6) && len(i.prefixes(false)) == 0):
		s.more = append(s.more, fmt.Sprintf("post-up ip link set dev %s mtu %d", name, i.MTU))
	case i.MTU > 0:
		s.more = append(s.more, fmt.Sprintf("mtu %d", i.MTU))
	}
	if bond != "" {
		s.more = append(s.more, "bond-master "+bond)
	}
	if n := i.Nameservers.Addresses; len(n) > 0 {
		s.more = append(s.more, "dns-nameservers "+strings.Join(n, " "))
	}
	if n := i.Nameservers.Search; len(n) > 0 {
		s.more = append(s.more, "dns-search "+strings.Join(n, " "))
	}
	// The default route of a family is its first address's gateway; everything else, and what has no address to stand at, is a command
	// of the block that its family begins with. Commands take several families in one block, but must run when their address is there.
	gateway, commands := map[bool]string{}, map[bool][]string{}
	for _, r := range i.routes() {
		if r.isDefault() && gateway[r.v6()] == "" && r.metric == 0 && len(i.prefixes(r.v6())) > 0 {
			gateway[r.v6()] = r.via.String()
			continue
		}
		line := fmt.Sprintf("ip %sroute add %s via %s dev %s", sixFlag(r.v6()), r.to, r.via, name)
		if r.metric > 0 {
			line += fmt.Sprintf(" metric %d", r.metric)
		}
		if r.table > 0 {
			line += fmt.Sprintf(" table %d", r.table)
		}
		commands[r.v6()] = append(commands[r.v6()], "post-up "+line+" || true")
	}
	for _, r := range i.Policy {
		line, v6 := r.words()
		commands[v6] = append(commands[v6], "post-up ip "+sixFlag(v6)+"rule add "+line+" || true", "pre-down ip "+sixFlag(v6)+"rule del "+line+" || true")
	}
	take := func(v6 bool) (lines []string) {
		if g := gateway[v6]; g != "" {
			lines = append(lines, "gateway "+g)
		}
		gateway[v6] = ""
		lines = append(lines, commands[v6]...)
		commands[v6] = nil
		return lines
	}
	empty := true
	if bool(i.DHCP4) {
		s.write("inet", "dhcp", take(false)...)
		empty = false
	}
	for _, a := range i.prefixes(false) {
		s.write("inet", "static", append([]string{"address " + a.String()}, take(false)...)...)
		empty = false
	}
	ra := func(lines []string) []string {
		if i.AcceptRA != nil {
			lines = append(lines, "accept_ra "+i.AcceptRA.word("2", "0"))
		}
		return lines
	}
	if bool(i.DHCP6) {
		s.write("inet6", "dhcp", ra(take(true))...)
		empty = false
	}
	for _, a := range i.prefixes(true) {
		s.write("inet6", "static", ra(append([]string{"address " + a.String()}, take(true)...))...)
		empty = false
	}
	switch {
	case !empty:
	case i.AcceptRA.set() && bond == "" && !bridged:
		s.write("inet", "manual")
		s.write("inet6", "auto", take(true)...)
	default:
		s.write("inet", "manual")
	}
}

func sixFlag(v6 bool) string {
	if v6 {
		return "-6 "
	}
	return ""
}

// words is a rule as the ip command takes it, and whether it is one of IPv6.
func (r netRule) words() (string, bool) {
	var out []string
	if r.Priority > 0 {
		out = append(out, fmt.Sprintf("priority %d", r.Priority))
	}
	if r.From != "" {
		out = append(out, "from "+r.From)
	}
	if r.To != "" {
		out = append(out, "to "+r.To)
	}
	return strings.Join(append(out, fmt.Sprintf("table %d", r.Table)), " "), strings.Contains(r.From+r.To, ":")
}
