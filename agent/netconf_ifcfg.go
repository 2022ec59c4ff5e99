package agent

import (
	"fmt"
	"strings"
)

// ifcfg renders Red Hat's network-scripts, as releases before 8 read them. Interfaces are found by HWADDR, which also renames them.
func (p netPlan) ifcfg() ([]outFile, error) {
	const dir = "/etc/sysconfig/network-scripts/"
	out := []outFile{{"/etc/sysconfig/network", "NETWORKING=yes\nNOZEROCONF=yes\n", 0o644}}
	bond, bridge := p.members()
	for _, kind := range p.kinds() {
		for _, k := range keys(kind.group) {
			i := kind.group[k]
			name := i.real(k)
			var f shellVars
			f.set("DEVICE", name)
			f.set("ONBOOT", "yes")
			switch kind.name {
			case "ethernet":
				f.set("TYPE", "Ethernet")
				if i.Match.MAC != "" {
					f.set("HWADDR", strings.ToUpper(i.Match.MAC))
				}
			case "bond":
				f.set("TYPE", "Bond")
				f.set("BONDING_MASTER", "yes")
				var opts []string
				for _, x := range i.Parameters.bond() {
					opts = append(opts, x[0]+"="+x[1])
				}
				f.set("BONDING_OPTS", strings.Join(opts, " "))
			case "bridge":
				f.set("TYPE", "Bridge")
				if v := i.Parameters.STP; v != nil {
					f.set("STP", v.word("on", "off"))
				}
				if v := i.Parameters.ForwardDelay; v != nil {
					f.set("DELAY", fmt.Sprint(*v))
				}
			case "vlan":
				// These scripts have a VLAN's number from the name of its interface.
				if name != fmt.Sprintf("%s.%d", p.name(i.Link), i.ID) && name != fmt.Sprintf("vlan%d", i.ID) {
					return nil, fmt.Errorf("the VLAN interface %s: network-scripts take the names %s.%d and vlan%d only; rename it", name, p.name(i.Link), i.ID, i.ID)
				}
				f.set("VLAN", "yes")
				f.set("PHYSDEV", p.name(i.Link))
			}
			if i.MAC != "" && kind.name != "vlan" {
				f.set("MACADDR", strings.ToUpper(i.MAC))
			}
			if i.MTU > 0 {
				f.set("MTU", fmt.Sprint(i.MTU))
			}
			if m := bond[k]; m != "" {
				f.set("MASTER", m)
				f.set("SLAVE", "yes")
			}
			if m := bridge[k]; m != "" {
				f.set("BRIDGE", m)
			}
			files := i.ifcfgIP(name, &f, bond[k] != "" || bridge[k] != "")
			out = append(out, outFile{dir + "ifcfg-" + name, f.b.String(), 0o644})
			for _, x := range files {
				x.path = dir + x.path
				out = append(out, x)
			}
		}
	}
	return out, nil
}

// ifcfgIP writes addresses, and returns the files of routes and rules.
func (i netIface) ifcfgIP(name string, f *shellVars, member bool) (out []outFile) {
	if bool(i.DHCP4) {
		f.set("BOOTPROTO", "dhcp")
	} else {
		f.set("BOOTPROTO", "none")
	}
	if member {
		f.set("IPV6INIT", "no")
		return nil
	}
	for n, a := range i.prefixes(false) {
		suffix := ""
		if n > 0 {
			suffix = fmt.Sprint(n)
		}
		f.set("IPADDR"+suffix, a.Addr().String())
		f.set("PREFIX"+suffix, fmt.Sprint(a.Bits()))
	}
	six := i.prefixes(true)
	f.set("IPV6INIT", "yes")
	f.set("IPV6_AUTOCONF", map[bool]string{true: "yes", false: "no"}[i.AcceptRA.set() || i.AcceptRA == nil && len(six) == 0])
	if bool(i.DHCP6) {
		f.set("DHCPV6C", "yes")
	}
	if len(six) > 0 {
		f.set("IPV6ADDR", six[0].String())
		var more []string
		for _, a := range six[1:] {
			more = append(more, a.String())
		}
		if len(more) > 0 {
			f.set("IPV6ADDR_SECONDARIES", strings.Join(more, " "))
		}
	}
	gateway := map[bool]bool{}
	lines := map[string]string{}
	for _, r := range i.routes() {
		if r.isDefault() && r.metric == 0 && !gateway[r.v6()] {
			gateway[r.v6()] = true
			f.set(map[bool]string{true: "IPV6_DEFAULTGW", false: "GATEWAY"}[r.v6()], r.via.String())
			continue
		}
		line := fmt.Sprintf("%s via %s dev %s", r.to, r.via, name)
		if r.metric > 0 {
			line += fmt.Sprintf(" metric %d", r.metric)
		}
		if r.table > 0 {
			line += fmt.Sprintf(" table %d", r.table)
		}
		lines[map[bool]string{true: "route6-", false: "route-"}[r.v6()]] += line + "\n"
	}
	for _, r := range i.Policy {
		words, v6 := r.words()
		lines[map[bool]string{true: "rule6-", false: "rule-"}[v6]] += words + "\n"
	}
	f.set("DEFROUTE", map[bool]string{true: "yes", false: "no"}[gateway[false] || gateway[true] || bool(i.DHCP4)])
	for n, a := range i.Nameservers.Addresses {
		f.set(fmt.Sprintf("DNS%d", n+1), a)
	}
	if s := i.Nameservers.Search; len(s) > 0 {
		f.set("DOMAIN", strings.Join(s, " "))
	}
	for _, kind := range []string{"route-", "route6-", "rule-", "rule6-"} {
		if lines[kind] != "" {
			out = append(out, outFile{kind + name, lines[kind], 0o644})
		}
	}
	return out
}

// shellVars writes assignments that a shell reads; every value is quoted, and nothing in it is special.
type shellVars struct{ b strings.Builder }

func (f *shellVars) set(key, value string) {
	f.b.WriteString(key + "=" + shellQuote(oneLine(value)) + "\n")
}

// shellQuote leaves plain words as they are.
func shellQuote(s string) string {
	plain := strings.IndexFunc(s, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("._:/-+,", r))
	}) < 0
	if plain && s != "" {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
