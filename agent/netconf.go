package agent

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"regexp"
	"sort"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// The network plan is netplan version 2. This is the part of it that the other two styles can say as well; netplan gets the
// document as it is.
type netPlan struct {
	Version   int                 `json:"version"`
	Ethernets map[string]netIface `json:"ethernets"`
	Bonds     map[string]netIface `json:"bonds"`
	Bridges   map[string]netIface `json:"bridges"`
	VLANs     map[string]netIface `json:"vlans"`
}

type netIface struct {
	Match struct {
		MAC string `json:"macaddress"`
	} `json:"match"`
	SetName     string    `json:"set-name"`
	MAC         string    `json:"macaddress"`
	DHCP4       flexBool  `json:"dhcp4"`
	DHCP6       flexBool  `json:"dhcp6"`
	AcceptRA    *flexBool `json:"accept-ra"`
	Addresses   []string  `json:"addresses"`
	Gateway4    string    `json:"gateway4"`
	Gateway6    string    `json:"gateway6"`
	MTU         int       `json:"mtu"`
	Optional    bool      `json:"optional"`
	Nameservers struct {
		Addresses []string `json:"addresses"`
		Search    []string `json:"search"`
	} `json:"nameservers"`
	Routes []struct {
		To     string `json:"to"`
		Via    string `json:"via"`
		Metric int    `json:"metric"`
	} `json:"routes"`
	Interfaces []string       `json:"interfaces"`
	Parameters map[string]any `json:"parameters"`
	ID         int            `json:"id"`
	Link       string         `json:"link"`
}

// flexBool is a boolean that may come as "yes".
type flexBool bool

// UnmarshalJSON accepts true, "true", "yes" and "on".
func (b *flexBool) UnmarshalJSON(raw []byte) error {
	s := strings.ToLower(strings.Trim(string(raw), `"`))
	*b = s == "true" || s == "yes" || s == "on"
	return nil
}

// outFile is a file of the installed system.
type outFile struct {
	path, content string
	mode          uint32
}

var ifaceName = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9._-]{0,14}$`)

// macForm is a hardware address as it may stand in a configuration file.
var macForm = regexp.MustCompile(`^[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}$`)

// renderNetwork writes a plan in a style: netplan, eni or networkd. Whatever style, cloud-init is told to keep its hands off.
func renderNetwork(style string, plan map[string]any) ([]outFile, error) {
	if inner, ok := plan["network"].(map[string]any); ok {
		plan = inner
	}
	if len(plan) == 0 || style == "none" {
		return nil, nil
	}
	keep := outFile{"/etc/cloud/cloud.cfg.d/99-ingot-network.cfg", "network: {config: disabled}\n", 0o644}
	raw, err := json.Marshal(plan)
	if err != nil {
		return nil, err
	}
	var p netPlan
	if err := json.Unmarshal(raw, &p); err != nil {
		return nil, fmt.Errorf("network plan: %w", err)
	}
	if p.Version != 2 {
		return nil, fmt.Errorf("network plan: version %d is not known", p.Version)
	}
	if err := p.check(); err != nil {
		return nil, fmt.Errorf("network plan: %w", err)
	}
	switch style {
	case "netplan":
		y, err := yaml.Marshal(map[string]any{"network": plan})
		if err != nil {
			return nil, err
		}
		return []outFile{{"/etc/netplan/50-cloud-init.yaml", string(y), 0o600}, keep}, nil
	case "eni":
		return append(p.eni(), keep), nil
	case "networkd":
		return append(p.networkd(), keep), nil
	}
	return nil, fmt.Errorf("network style %q is not known", style)
}

// check refuses names and addresses that would change the meaning of the files they are written to.
func (p netPlan) check() error {
	for _, group := range []map[string]netIface{p.Ethernets, p.Bonds, p.Bridges, p.VLANs} {
		for n, i := range group {
			names := append([]string{n}, i.Interfaces...)
			for _, x := range append(names, i.SetName, i.Link) {
				if x != "" && !ifaceName.MatchString(x) {
					return fmt.Errorf("interface name %q", x)
				}
			}
			for _, m := range []string{i.Match.MAC, i.MAC} {
				if m != "" && !macForm.MatchString(m) {
					return fmt.Errorf("%s: hardware address %q", n, m)
				}
			}
			for _, a := range i.Addresses {
				if _, err := netip.ParsePrefix(a); err != nil {
					return fmt.Errorf("%s: %w", n, err)
				}
			}
			plain := append([]string{i.Gateway4, i.Gateway6}, i.Nameservers.Addresses...)
			for _, r := range i.Routes {
				plain = append(plain, r.Via)
				if r.To != "default" && r.To != "0.0.0.0/0" && r.To != "::/0" {
					if _, err := netip.ParsePrefix(r.To); err != nil {
						return fmt.Errorf("%s: route: %w", n, err)
					}
				}
			}
			for _, a := range plain {
				if a == "" {
					continue
				}
				if _, err := netip.ParseAddr(a); err != nil {
					return fmt.Errorf("%s: %w", n, err)
				}
			}
			for _, s := range i.Nameservers.Search {
				if strings.ContainsAny(s, " \t\r\n[]=#") {
					return fmt.Errorf("%s: search domain %q", n, s)
				}
			}
			for k, v := range i.Parameters {
				if strings.ContainsAny(fmt.Sprint(k, v), "\r\n[]#") {
					return fmt.Errorf("%s: parameter %q", n, k)
				}
			}
		}
	}
	return nil
}

func keys(m map[string]netIface) []string {
	var out []string
	for k := range m {
		out = append(out, k)
	}
	sort.Strings(out)
	return out
}

// real is the name an Ethernet interface is to have.
func (i netIface) real(key string) string { return firstOf(i.SetName, key) }

// name resolves a plan's key to an interface name.
func (p netPlan) name(key string) string {
	if e, ok := p.Ethernets[key]; ok {
		return e.real(key)
	}
	return key
}

// routes are all routes of an interface, default gateways included: destination, gateway, and the metric where there is one.
func (i netIface) routes() [][3]string {
	var out [][3]string
	if i.Gateway4 != "" {
		out = append(out, [3]string{"0.0.0.0/0", i.Gateway4})
	}
	if i.Gateway6 != "" {
		out = append(out, [3]string{"::/0", i.Gateway6})
	}
	for _, r := range i.Routes {
		to := r.To
		if to == "default" {
			to = "0.0.0.0/0"
			if a, err := netip.ParseAddr(r.Via); err == nil && a.Is6() {
				to = "::/0"
			}
		}
		metric := ""
		if r.Metric > 0 {
			metric = strconv.Itoa(r.Metric)
		}
		out = append(out, [3]string{to, r.Via, metric})
	}
	return out
}

// bondModes are kernel names; both other styles take the same words.
func (i netIface) param(k string) string {
	if v, ok := i.Parameters[k]; ok {
		return fmt.Sprint(v)
	}
	return ""
}

// networkd renders units for systemd-networkd. Ethernet interfaces are found by address and type (a VLAN has its parent's address).
func (p netPlan) networkd() []outFile {
	var out []outFile
	master := map[string]string{} // key → [Network] line of the enslaved
	for b, i := range p.Bonds {
		for _, m := range i.Interfaces {
			master[m] += "Bond=" + b + "\n"
		}
	}
	for b, i := range p.Bridges {
		for _, m := range i.Interfaces {
			master[m] += "Bridge=" + b + "\n"
		}
	}
	for _, v := range keys(p.VLANs) {
		master[p.VLANs[v].Link] += "VLAN=" + v + "\n"
	}
	unit := func(prio int, key string, i netIface, match string) {
		var b strings.Builder
		fmt.Fprintf(&b, "[Match]\n%s\n", match)
		if i.MTU > 0 || i.Optional {
			b.WriteString("[Link]\n")
			if i.MTU > 0 {
				fmt.Fprintf(&b, "MTUBytes=%d\n", i.MTU)
			}
			if i.Optional {
				b.WriteString("RequiredForOnline=no\n")
			}
			b.WriteString("\n")
		}
		b.WriteString("[Network]\n")
		switch {
		case bool(i.DHCP4) && bool(i.DHCP6):
			b.WriteString("DHCP=yes\n")
		case bool(i.DHCP4):
			b.WriteString("DHCP=ipv4\n")
		case bool(i.DHCP6):
			b.WriteString("DHCP=ipv6\n")
		}
		b.WriteString(master[key])
		if len(i.Addresses) == 0 && !bool(i.DHCP4) && !bool(i.DHCP6) {
			b.WriteString("LinkLocalAddressing=no\n")
		}
		if i.AcceptRA != nil {
			fmt.Fprintf(&b, "IPv6AcceptRA=%s\n", map[bool]string{true: "yes", false: "no"}[bool(*i.AcceptRA)])
		}
		for _, a := range i.Addresses {
			fmt.Fprintf(&b, "Address=%s\n", a)
		}
		for _, a := range i.Nameservers.Addresses {
			fmt.Fprintf(&b, "DNS=%s\n", a)
		}
		if s := i.Nameservers.Search; len(s) > 0 {
			fmt.Fprintf(&b, "Domains=%s\n", strings.Join(s, " "))
		}
		if bool(i.DHCP4) {
			b.WriteString("\n[DHCPv4]\nClientIdentifier=mac\n") // the address that the firmware got, not another one
		}
		for _, r := range i.routes() {
			fmt.Fprintf(&b, "\n[Route]\nDestination=%s\nGateway=%s\n", r[0], r[1])
			if r[2] != "" {
				fmt.Fprintf(&b, "Metric=%s\n", r[2])
			}
		}
		out = append(out, outFile{fmt.Sprintf("/etc/systemd/network/%d-ingot-%s.network", prio, key), b.String(), 0o644})
	}
	for _, k := range keys(p.Ethernets) {
		i := p.Ethernets[k]
		match := "Name=" + i.real(k) + "\n"
		if i.Match.MAC != "" {
			match = "MACAddress=" + strings.ToLower(i.Match.MAC) + "\nType=ether\n"
			if strings.Contains(master[k], "Bond=") { // a bond gives its members its own address
				match = "Permanent" + match
			}
			if i.SetName != "" {
				out = append(out, outFile{"/etc/systemd/network/10-ingot-" + k + ".link",
					"[Match]\nMACAddress=" + strings.ToLower(i.Match.MAC) + "\nType=ether\n\n[Link]\nName=" + i.SetName + "\n", 0o644})
			}
		}
		unit(10, k, i, match)
	}
	dev := func(k, kind string, i netIface, more string) {
		mac := ""
		if i.MAC != "" {
			mac = "MACAddress=" + strings.ToLower(i.MAC) + "\n"
		}
		out = append(out, outFile{"/etc/systemd/network/20-ingot-" + k + ".netdev", "[NetDev]\nName=" + k + "\nKind=" + kind + "\n" + mac + more, 0o644})
	}
	for _, k := range keys(p.Bonds) {
		i := p.Bonds[k]
		more := "\n[Bond]\n"
		for _, x := range [][2]string{{"mode", "Mode"}, {"lacp-rate", "LACPTransmitRate"}, {"transmit-hash-policy", "TransmitHashPolicy"},
			{"gratuitous-arp", "GratuitousARP"}} {
			if v := i.param(x[0]); v != "" {
				more += x[1] + "=" + v + "\n"
			}
		}
		for _, x := range [][2]string{{"mii-monitor-interval", "MIIMonitorSec"}, {"up-delay", "UpDelaySec"}, {"down-delay", "DownDelaySec"}} {
			if v := i.param(x[0]); v != "" {
				more += x[1] + "=" + strings.TrimSuffix(v, "ms") + "ms\n"
			}
		}
		dev(k, "bond", i, more)
		unit(20, k, i, "Name="+k+"\n")
	}
	for _, k := range keys(p.Bridges) {
		i := p.Bridges[k]
		more := "\n[Bridge]\n"
		if v := i.param("stp"); v != "" {
			more += "STP=" + v + "\n"
		}
		if v := i.param("forward-delay"); v != "" {
			more += "ForwardDelaySec=" + v + "\n"
		}
		dev(k, "bridge", i, more)
		unit(20, k, i, "Name="+k+"\n")
	}
	for _, k := range keys(p.VLANs) {
		i := p.VLANs[k]
		dev(k, "vlan", i, fmt.Sprintf("\n[VLAN]\nId=%d\n", i.ID))
		unit(20, k, i, "Name="+k+"\n")
	}
	return out
}

// eni renders /etc/network/interfaces, and a udev rule that gives Ethernet interfaces the names it uses.
func (p netPlan) eni() []outFile {
	var b, rules strings.Builder
	b.WriteString("auto lo\niface lo inet loopback\n")
	slave := map[string]string{}
	for n, i := range p.Bonds {
		for _, m := range i.Interfaces {
			slave[m] = n
		}
	}
	bridged := map[string]bool{}
	for _, i := range p.Bridges {
		for _, m := range i.Interfaces {
			bridged[m] = true
		}
	}
	stanza := func(key, name string, i netIface, extra []string) {
		fmt.Fprintf(&b, "\nauto %s\n", name)
		if i.MTU > 0 {
			extra = append(extra, fmt.Sprintf("mtu %d", i.MTU))
		}
		if m := slave[key]; m != "" {
			extra = append(extra, "bond-master "+m)
		}
		if n := i.Nameservers.Addresses; len(n) > 0 {
			extra = append(extra, "dns-nameservers "+strings.Join(n, " "))
		}
		if n := i.Nameservers.Search; len(n) > 0 {
			extra = append(extra, "dns-search "+strings.Join(n, " "))
		}
		first := true
		write := func(family, method string, lines ...string) {
			fmt.Fprintf(&b, "iface %s %s %s\n", name, family, method)
			if first {
				lines = append(lines, extra...)
				first = false
			}
			for _, l := range lines {
				fmt.Fprintf(&b, "    %s\n", l)
			}
		}
		gw := map[bool]string{}
		var more []string
		for _, r := range i.routes() {
			via, _ := netip.ParseAddr(r[1])
			if (r[0] == "0.0.0.0/0" || r[0] == "::/0") && gw[via.Is6()] == "" {
				gw[via.Is6()] = r[1]
				continue
			}
			metric := ""
			if r[2] != "" {
				metric = " metric " + r[2]
			}
			more = append(more, fmt.Sprintf("post-up ip route add %s via %s dev %s%s || true", r[0], r[1], name, metric))
		}
		extra = append(extra, more...)
		if bool(i.DHCP4) {
			write("inet", "dhcp")
		}
		if bool(i.DHCP6) {
			write("inet6", "dhcp")
		}
		for _, a := range i.Addresses {
			px := netip.MustParsePrefix(a) // check has parsed it
			family := "inet"
			if px.Addr().Is6() {
				family = "inet6"
			}
			lines := []string{"address " + a}
			if g := gw[px.Addr().Is6()]; g != "" {
				lines = append(lines, "gateway "+g)
				gw[px.Addr().Is6()] = ""
			}
			write(family, "static", lines...)
		}
		if first {
			write("inet", "manual")
		}
	}
	for _, k := range keys(p.Ethernets) {
		i := p.Ethernets[k]
		if i.Match.MAC != "" {
			fmt.Fprintf(&rules, "SUBSYSTEM==\"net\", ACTION==\"add\", DRIVERS==\"?*\", ATTR{address}==\"%s\", NAME=\"%s\"\n", strings.ToLower(i.Match.MAC), i.real(k))
		}
		stanza(k, i.real(k), i, nil)
	}
	for _, k := range keys(p.Bonds) {
		i := p.Bonds[k]
		extra := []string{"bond-slaves none"}
		for _, x := range [][2]string{{"mode", "bond-mode"}, {"lacp-rate", "bond-lacp-rate"}, {"mii-monitor-interval", "bond-miimon"}, {"transmit-hash-policy", "bond-xmit-hash-policy"},
			{"up-delay", "bond-updelay"}, {"down-delay", "bond-downdelay"}, {"gratuitous-arp", "bond-num-grat-arp"}} {
			if v := i.param(x[0]); v != "" {
				extra = append(extra, x[1]+" "+strings.TrimSuffix(v, "ms"))
			}
		}
		stanza(k, k, i, extra)
	}
	for _, k := range keys(p.Bridges) {
		i := p.Bridges[k]
		var ports []string
		for _, m := range i.Interfaces {
			ports = append(ports, p.name(m))
		}
		if len(ports) == 0 {
			ports = []string{"none"}
		}
		extra := []string{"bridge_ports " + strings.Join(ports, " ")}
		if v := i.param("stp"); v != "" {
			extra = append(extra, "bridge_stp "+map[bool]string{true: "on", false: "off"}[v == "true"])
		}
		if v := i.param("forward-delay"); v != "" {
			extra = append(extra, "bridge_fd "+v)
		}
		stanza(k, k, i, extra)
	}
	for _, k := range keys(p.VLANs) {
		i := p.VLANs[k]
		stanza(k, k, i, []string{"vlan-raw-device " + p.name(i.Link), fmt.Sprintf("vlan_id %d", i.ID)})
	}
	out := []outFile{{"/etc/network/interfaces", b.String(), 0o644}}
	if rules.Len() > 0 {
		out = append(out, outFile{"/etc/udev/rules.d/70-persistent-net.rules", rules.String(), 0o644})
	}
	return out
}

// networkStyle looks what an installed system understands: has reports whether a path exists in it.
func networkStyle(has func(string) bool) string {
	switch {
	case has("usr/sbin/netplan"), has("usr/libexec/netplan/generate"), has("lib/netplan/generate"):
		return "netplan"
	case has("sbin/ifup"), has("usr/sbin/ifup"):
		return "eni"
	case has("lib/systemd/systemd-networkd"), has("usr/lib/systemd/systemd-networkd"):
		return "networkd"
	}
	return "none"
}
