package agent

import (
	"crypto/sha256"
	"fmt"
	"strings"
)

// keyfiles renders connections for NetworkManager, one a file, with link files for the names: NetworkManager renames nothing.
func (p netPlan) keyfiles() []outFile {
	out := p.linkFiles()
	bond, bridge := p.members()
	for _, kind := range p.kinds() {
		for _, k := range keys(kind.group) {
			i := kind.group[k]
			name := i.real(k)
			var f ini
			f.section("connection").set("id", name).set("uuid", connectionUUID(kind.name, name)).set("type", kind.name).set("interface-name", name)
			switch {
			case bond[k] != "":
				f.set("master", bond[k]).set("slave-type", "bond")
			case bridge[k] != "":
				f.set("master", bridge[k]).set("slave-type", "bridge")
			}
			if kind.name == "bond" || kind.name == "bridge" {
				f.set("autoconnect-slaves", "1")
			}
			switch kind.name {
			case "bond":
				f.section("bond")
				for _, x := range i.Parameters.bond() {
					f.set(x[0], x[1])
				}
			case "bridge":
				f.section("bridge")
				if v := i.Parameters.STP; v != nil {
					f.set("stp", v.word("true", "false"))
				}
				// NetworkManager takes what the standard allows a spanning tree; without one the delay means nothing.
				if v := i.Parameters.ForwardDelay; v != nil && *v >= 2 && *v <= 30 {
					f.number("forward-delay", *v)
				}
			case "vlan":
				f.section("vlan").set("flags", "1").set("id", fmt.Sprint(i.ID)).set("parent", p.name(i.Link))
			}
			if i.MTU > 0 || i.MAC != "" || i.Match.MAC != "" {
				f.section("ethernet")
				if i.Match.MAC != "" {
					f.set("mac-address", strings.ToUpper(i.Match.MAC))
				}
				if i.MAC != "" {
					f.set("cloned-mac-address", strings.ToUpper(i.MAC))
				}
				f.number("mtu", i.MTU)
			}
			if bond[k] == "" && bridge[k] == "" {
				i.keyfileIP(&f, false)
				i.keyfileIP(&f, true)
			}
			out = append(out, outFile{"/etc/NetworkManager/system-connections/" + name + ".nmconnection", f.String(), 0o600})
		}
	}
	return out
}

// connectionUUID is the same for the same connection, whenever it is written.
func connectionUUID(kind, name string) string {
	b := sha256.Sum256([]byte("ingot network connection " + kind + " " + name))
	b[6], b[8] = b[6]&0x0f|0x80, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:16])
}

// keyfileIP writes what a connection says of one family.
func (i netIface) keyfileIP(f *ini, v6 bool) {
	addresses := i.prefixes(v6)
	if f.section("ipv4"); v6 {
		f.b.Truncate(f.b.Len() - len("[ipv4]\n"))
		f.b.WriteString("[ipv6]\n")
	}
	ra := i.AcceptRA == nil || i.AcceptRA.set()
	method := ""
	switch {
	case !v6 && bool(i.DHCP4):
		method = "auto"
	case !v6 && len(addresses) > 0:
		method = "manual"
	case !v6:
		method = "disabled"
	case bool(i.DHCP6) && !ra:
		method = "dhcp"
	case bool(i.DHCP6), i.AcceptRA.set(), ra && len(addresses) > 0: // addresses of one's own go together with those of routers
		method = "auto"
	case len(addresses) > 0:
		method = "manual"
	default:
		method = "link-local"
	}
	f.set("method", method)
	if v6 {
		f.set("addr-gen-mode", "eui64") // as the kernel by itself, and as the region may have observed
	}
	gateway, n := "", 0
	var routes ini
	for _, r := range i.routes() {
		if r.v6() != v6 {
			continue
		}
		if r.isDefault() && r.metric == 0 && gateway == "" && len(addresses) > 0 {
			gateway = "," + r.via.String() // behind the first address, as NetworkManager itself writes it
			continue
		}
		n++
		value := r.to.String() + "," + r.via.String()
		if r.metric > 0 {
			value += fmt.Sprintf(",%d", r.metric)
		}
		routes.set(fmt.Sprintf("route%d", n), value)
		if r.table > 0 {
			routes.set(fmt.Sprintf("route%d_options", n), fmt.Sprintf("table=%d", r.table))
		}
	}
	for n, a := range addresses {
		f.set(fmt.Sprintf("address%d", n+1), a.String()+gateway)
		gateway = ""
	}
	f.b.WriteString(routes.String())
	n = 0
	for _, r := range i.Policy {
		words, six := r.words()
		if six != v6 {
			continue
		}
		n++
		f.set(fmt.Sprintf("routing-rule%d", n), words)
	}
	var dns []string
	for _, a := range i.Nameservers.Addresses {
		if strings.Contains(a, ":") == v6 {
			dns = append(dns, a)
		}
	}
	if len(dns) > 0 {
		f.set("dns", strings.Join(dns, ";")+";")
	}
	if s := i.Nameservers.Search; len(s) > 0 && (len(addresses) > 0 || method == "auto" || method == "dhcp") {
		f.set("dns-search", strings.Join(s, ";")+";")
	}
}
