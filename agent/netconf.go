package agent

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"sort"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// The styles in which a system may want its network configuration.
const (
	styleNetplan   = "netplan"
	styleENI       = "eni"
	styleNetworkd  = "networkd"
	styleNM        = "nm"         // NetworkManager's keyfiles
	styleIfcfg     = "ifcfg"      // Red Hat's network-scripts, release 7
	styleCloudInit = "cloud-init" // nobody we know: cloud-init is given the plan and renders it as it can
	styleNone      = "none"
)

// The network plan is netplan version 2. This is the part of it that the other styles can say as well; netplan gets the document as
// it is.
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
	Routes     []netRoute      `json:"routes"`
	Policy     []netRule       `json:"routing-policy"`
	Interfaces []string        `json:"interfaces"`
	Parameters netParameters   `json:"parameters"`
	OVS        json.RawMessage `json:"openvswitch"`
	ID         int             `json:"id"`
	Link       string          `json:"link"`
}

type netRoute struct {
	To     string `json:"to"`
	Via    string `json:"via"`
	Metric int    `json:"metric"`
	Table  int    `json:"table"`
}

// netRule is a rule of policy routing.
type netRule struct {
	From     string `json:"from"`
	To       string `json:"to"`
	Table    int    `json:"table"`
	Priority int    `json:"priority"`
}

// netParameters are those of bonds and bridges; times are milliseconds, the delay of a bridge seconds.
type netParameters struct {
	Mode         string    `json:"mode"`
	LACPRate     string    `json:"lacp-rate"`
	HashPolicy   string    `json:"transmit-hash-policy"`
	MIIMonitor   int       `json:"mii-monitor-interval"`
	UpDelay      int       `json:"up-delay"`
	DownDelay    int       `json:"down-delay"`
	GratARP      int       `json:"gratuitous-arp"`
	STP          *flexBool `json:"stp"`
	ForwardDelay *int      `json:"forward-delay"`
}

var (
	bondModes = []string{"balance-rr", "active-backup", "balance-xor", "broadcast", "802.3ad", "balance-tlb", "balance-alb"}
	lacpRates = []string{"slow", "fast"}
	hashes    = []string{"layer2", "layer3+4", "layer2+3", "encap2+3", "encap3+4"}
)

// flexBool is a boolean that may come as "yes".
type flexBool bool

// UnmarshalJSON accepts true, "true", "yes" and "on".
func (b *flexBool) UnmarshalJSON(raw []byte) error {
	s := strings.ToLower(strings.Trim(string(raw), `"`))
	*b = s == "true" || s == "yes" || s == "on"
	return nil
}

func (b *flexBool) set() bool { return b != nil && bool(*b) }

func (b *flexBool) word(yes, no string) string {
	if b.set() {
		return yes
	}
	return no
}

// outFile is a file of the installed system.
type outFile struct {
	path, content string
	mode          uint32
}

var ifaceName = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9._-]{0,14}$`)

// macForm is a hardware address as it may stand in a configuration file.
var macForm = regexp.MustCompile(`^[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}$`)

// domainForm is a search domain: letters of host names, and the underscores that people use.
var domainForm = regexp.MustCompile(`^[A-Za-z0-9_]([A-Za-z0-9_.-]{0,252}[A-Za-z0-9_.])?$`)

// handsOff tells cloud-init to leave the network as it is: what the agent wrote is what the user ordered, and a second author would
// only take the names and addresses that the first one gave for a mistake.
var handsOff = outFile{"/etc/cloud/cloud.cfg.d/99-ingot-network.cfg", "network: {config: disabled}\n", 0o644}

// readNetPlan reads a network plan, bare or below "network", and refuses one that cannot be carried out.
func readNetPlan(plan map[string]any) (p netPlan, bare map[string]any, err error) {
	if inner, ok := plan["network"].(map[string]any); ok {
		plan = inner
	}
	if len(plan) == 0 {
		return p, nil, nil
	}
	raw, err := json.Marshal(plan)
	if err == nil {
		err = json.Unmarshal(raw, &p)
	}
	if err == nil && p.Version != 2 {
		err = fmt.Errorf("version %d is not known", p.Version)
	}
	if err == nil {
		err = p.check()
	}
	if err != nil {
		return p, nil, fmt.Errorf("network plan: %w", err)
	}
	return p, plan, nil
}

// renderNetwork writes a plan in a style. Whatever style, cloud-init is told to keep its hands off, except when it is the one that is
// to render the plan.
func renderNetwork(style string, plan map[string]any) ([]outFile, error) {
	p, bare, err := readNetPlan(plan)
	if err != nil || bare == nil || style == styleNone {
		return nil, err
	}
	if style != styleNetplan {
		for _, b := range keys(p.Bridges) {
			if p.Bridges[b].OVS != nil && style != styleCloudInit {
				return nil, fmt.Errorf("network plan: the bridge %s is one of Open vSwitch, which only netplan can set up: use a standard bridge, or an image with netplan.io and openvswitch-switch", b)
			}
		}
	}
	switch style {
	case styleNetplan, styleCloudInit:
		y, err := yaml.Marshal(map[string]any{"network": bare})
		if err != nil {
			return nil, err
		}
		if style == styleCloudInit {
			return []outFile{{"/etc/cloud/cloud.cfg.d/50-curtin-networking.cfg", string(y), 0o600}}, nil
		}
		return []outFile{{"/etc/netplan/50-cloud-init.yaml", string(y), 0o600}, handsOff}, nil
	case styleENI:
		return append(p.eni(), handsOff), nil
	case styleNetworkd:
		return append(p.networkd(), handsOff), nil
	case styleNM:
		return append(p.keyfiles(), handsOff), nil
	case styleIfcfg:
		files, err := p.ifcfg()
		if err != nil {
			return nil, fmt.Errorf("network plan: %w", err)
		}
		return append(files, handsOff), nil
	}
	return nil, fmt.Errorf("network style %q is not known", style)
}

// check refuses names and addresses that would change the meaning of the files they are written to, and plans that name what is not
// there. What has passed it can be written without a thought of quoting.
func (p netPlan) check() error {
	names := map[string]string{} // real name → key
	for _, group := range []map[string]netIface{p.Ethernets, p.Bonds, p.Bridges, p.VLANs} {
		for _, n := range keys(group) {
			i := group[n]
			if other, taken := names[i.real(n)]; taken {
				return fmt.Errorf("%q and %q are both named %q", other, n, i.real(n))
			}
			names[i.real(n)] = n
			if err := i.check(n); err != nil {
				return err
			}
		}
	}
	member := map[string]string{}
	for _, group := range []map[string]netIface{p.Bonds, p.Bridges} {
		for _, n := range keys(group) {
			for _, m := range group[n].Interfaces {
				if !p.has(m) || m == n {
					return fmt.Errorf("%s: there is no interface %q to be a part of it", n, m)
				}
				if other := member[m]; other != "" {
					return fmt.Errorf("%s is a part of both %s and %s", m, other, n)
				}
				member[m] = n
			}
		}
	}
	for _, n := range keys(p.VLANs) {
		i := p.VLANs[n]
		if !p.has(i.Link) || i.Link == n {
			return fmt.Errorf("%s: there is no interface %q to stand on", n, i.Link)
		}
		if i.ID < 0 || i.ID > 4094 {
			return fmt.Errorf("%s: VLAN id %d", n, i.ID)
		}
	}
	return nil
}

func (p netPlan) has(key string) bool {
	for _, group := range []map[string]netIface{p.Ethernets, p.Bonds, p.Bridges, p.VLANs} {
		if _, ok := group[key]; ok {
			return true
		}
	}
	return false
}

func (i netIface) check(n string) error {
	for _, x := range append([]string{n, i.SetName, i.Link}, i.Interfaces...) {
		if x != "" && !ifaceName.MatchString(x) {
			return fmt.Errorf("interface name %q", x)
		}
	}
	for _, m := range []string{i.Match.MAC, i.MAC} {
		if m != "" && !macForm.MatchString(m) {
			return fmt.Errorf("%s: hardware address %q", n, m)
		}
	}
	if i.MTU < 0 || i.MTU > 65535 {
		return fmt.Errorf("%s: MTU %d", n, i.MTU)
	}
	for _, a := range i.Addresses {
		if px, err := netip.ParsePrefix(a); err != nil || px.Addr().Zone() != "" {
			return fmt.Errorf("%s: address %q", n, a)
		}
	}
	plain := append([]string{i.Gateway4, i.Gateway6}, i.Nameservers.Addresses...)
	for _, r := range i.Routes {
		if r.Via == "" {
			return fmt.Errorf("%s: a route to %q without a gateway", n, r.To)
		}
		plain = append(plain, r.Via)
		if _, err := r.dest(); err != nil {
			return fmt.Errorf("%s: route: %w", n, err)
		}
		if r.Metric < 0 || r.Table < 0 {
			return fmt.Errorf("%s: a route with the metric %d in the table %d", n, r.Metric, r.Table)
		}
	}
	for _, a := range plain {
		if a == "" {
			continue
		}
		if ip, err := netip.ParseAddr(a); err != nil || ip.Zone() != "" {
			return fmt.Errorf("%s: address %q", n, a)
		}
	}
	for _, r := range i.Policy {
		for _, t := range []string{r.From, r.To} {
			if px, err := netip.ParsePrefix(t); t != "" && (err != nil || px.Addr().Zone() != "") {
				return fmt.Errorf("%s: rule: address %q", n, t)
			}
		}
		if r.From == "" && r.To == "" || r.Table <= 0 || r.Priority < 0 {
			return fmt.Errorf("%s: a rule from %q to %q with the table %d and the priority %d", n, r.From, r.To, r.Table, r.Priority)
		}
	}
	for _, s := range i.Nameservers.Search {
		if !domainForm.MatchString(s) {
			return fmt.Errorf("%s: search domain %q", n, s)
		}
	}
	return i.Parameters.check(n)
}

func (p netParameters) check(n string) error {
	for _, x := range []struct {
		name, value string
		of          []string
	}{{"mode", p.Mode, bondModes}, {"lacp-rate", p.LACPRate, lacpRates}, {"transmit-hash-policy", p.HashPolicy, hashes}} {
		if x.value != "" && !slices.Contains(x.of, x.value) {
			return fmt.Errorf("%s: %s is %q, which is none of %s", n, x.name, x.value, strings.Join(x.of, ", "))
		}
	}
	if p.MIIMonitor < 0 || p.UpDelay < 0 || p.DownDelay < 0 || p.GratARP < 0 || p.GratARP > 255 || p.ForwardDelay != nil && *p.ForwardDelay < 0 {
		return fmt.Errorf("%s: a negative time or count", n)
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

// names resolves several.
func (p netPlan) names(keys []string) []string {
	out := make([]string, len(keys))
	for i, k := range keys {
		out[i] = p.name(k)
	}
	return out
}

// dest is what a route leads to.
func (r netRoute) dest() (netip.Prefix, error) {
	if r.To == "default" {
		if via, err := netip.ParseAddr(r.Via); err == nil && via.Is6() {
			return netip.PrefixFrom(netip.IPv6Unspecified(), 0), nil
		}
		return netip.PrefixFrom(netip.IPv4Unspecified(), 0), nil
	}
	return netip.ParsePrefix(r.To)
}

// ipRoute is a route that has been checked.
type ipRoute struct {
	to            netip.Prefix
	via           netip.Addr
	metric, table int
}

func (r ipRoute) v6() bool { return r.to.Addr().Is6() }

// isDefault tells whether it is the default route of the main table.
func (r ipRoute) isDefault() bool { return r.to.Bits() == 0 && r.table == 0 }

// routes are all routes of an interface, default gateways included.
func (i netIface) routes() []ipRoute {
	var out []ipRoute
	all := i.Routes
	for _, g := range []string{i.Gateway6, i.Gateway4} {
		if g != "" {
			all = append([]netRoute{{To: "default", Via: g}}, all...)
		}
	}
	for _, r := range all {
		to, _ := r.dest() // check has parsed them
		via, _ := netip.ParseAddr(r.Via)
		out = append(out, ipRoute{to, via, r.Metric, r.Table})
	}
	return out
}

// prefixes are the addresses of one family.
func (i netIface) prefixes(v6 bool) []netip.Prefix {
	var out []netip.Prefix
	for _, a := range i.Addresses {
		if px, err := netip.ParsePrefix(a); err == nil && px.Addr().Is6() == v6 {
			out = append(out, px)
		}
	}
	return out
}

// members are the interfaces that bonds and bridges own, by key: what owns them and of which kind that is.
func (p netPlan) members() (bond, bridge map[string]string) {
	bond, bridge = map[string]string{}, map[string]string{}
	for n, i := range p.Bonds {
		for _, m := range i.Interfaces {
			bond[m] = n
		}
	}
	for n, i := range p.Bridges {
		for _, m := range i.Interfaces {
			bridge[m] = n
		}
	}
	return bond, bridge
}

// nicKind is a kind of interface in the order in which they build on one another.
type nicKind struct {
	name  string
	group map[string]netIface
}

func (p netPlan) kinds() []nicKind {
	return []nicKind{{"ethernet", p.Ethernets}, {"bond", p.Bonds}, {"bridge", p.Bridges}, {"vlan", p.VLANs}}
}

// params are a bond's parameters by the kernel's names.
func (p netParameters) bond() [][2]string {
	out := [][2]string{{"mode", firstOf(p.Mode, "balance-rr")}}
	for _, x := range []struct {
		name  string
		value int
	}{{"miimon", p.MIIMonitor}, {"updelay", p.UpDelay}, {"downdelay", p.DownDelay}, {"num_grat_arp", p.GratARP}} {
		if x.value > 0 {
			out = append(out, [2]string{x.name, strconv.Itoa(x.value)})
		}
	}
	if p.LACPRate != "" {
		out = append(out, [2]string{"lacp_rate", p.LACPRate})
	}
	if p.HashPolicy != "" {
		out = append(out, [2]string{"xmit_hash_policy", p.HashPolicy})
	}
	return out
}

// linkFiles give Ethernet interfaces their names by udev, for those who do not rename by themselves. A VLAN interface has its parent's
// address, so the type matters.
func (p netPlan) linkFiles() []outFile {
	var out []outFile
	for _, k := range keys(p.Ethernets) {
		if i := p.Ethernets[k]; i.Match.MAC != "" && i.SetName != "" {
			var f ini
			f.section("Match").set("MACAddress", strings.ToLower(i.Match.MAC)).set("Type", "ether")
			f.section("Link").set("Name", i.SetName)
			out = append(out, outFile{"/etc/systemd/network/10-ingot-" + k + ".link", f.String(), 0o644})
		}
	}
	return out
}

// ini writes files of sections, keys and values, as systemd and NetworkManager read them. A value with a line break in it would become
// another key: it is cut there. check lets none through; this is the second lock on the door.
type ini struct{ b bytes.Buffer }

func (f *ini) section(name string) *ini {
	if f.b.Len() > 0 {
		f.b.WriteByte('\n')
	}
	f.b.WriteString("[" + oneLine(name) + "]\n")
	return f
}

func (f *ini) set(key, value string) *ini {
	f.b.WriteString(oneLine(key) + "=" + oneLine(value) + "\n")
	return f
}

func (f *ini) number(key string, n int) *ini {
	if n > 0 {
		f.set(key, strconv.Itoa(n))
	}
	return f
}

func (f *ini) String() string { return f.b.String() }

func oneLine(s string) string {
	if i := strings.IndexFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }); i >= 0 {
		return s[:i]
	}
	return s
}

// networkStyle looks what an installed system understands: has reports whether a path exists in it. Red Hat's kin have an ifup of
// their own, so whose it is matters.
func networkStyle(has func(string) bool, p netPlan) (string, error) {
	any := func(paths ...string) bool { return slices.ContainsFunc(paths, has) }
	networkd := any("lib/systemd/systemd-networkd", "usr/lib/systemd/systemd-networkd")
	manager := any("usr/sbin/NetworkManager", "usr/bin/NetworkManager")
	switch {
	case any("usr/sbin/netplan", "usr/libexec/netplan/generate", "lib/netplan/generate", "usr/lib/netplan/generate"):
		for _, b := range keys(p.Bridges) {
			if p.Bridges[b].OVS != nil && !any("usr/bin/ovs-vsctl") {
				return "", fmt.Errorf("the bridge %s is one of Open vSwitch, and the image has no package openvswitch-switch: add it to the image, or use a standard bridge", b)
			}
		}
		return styleNetplan, nil
	case any("etc/sysconfig/network-scripts"):
		switch {
		case any("etc/rc.d/init.d/network", "etc/init.d/network") || !manager && any("usr/sbin/ifup", "sbin/ifup"):
			return styleIfcfg, nil
		case manager:
			return styleNM, nil
		}
	case any("sbin/ifup", "usr/sbin/ifup") && any("etc/network"):
		err := p.eniNeeds(has)
		if err == nil || !networkd {
			return styleENI, err
		}
		return styleNetworkd, nil
	case manager && any("etc/redhat-release", "etc/fedora-release"):
		return styleNM, nil
	}
	switch {
	case networkd:
		return styleNetworkd, nil
	case manager:
		return styleNM, nil
	case any("usr/bin/cloud-init", "usr/local/bin/cloud-init"):
		return styleCloudInit, nil
	}
	if len(p.Ethernets) == 0 {
		return styleNone, nil
	}
	return "", errors.New("the image has none of netplan, ifupdown, systemd-networkd, NetworkManager and cloud-init: nothing there would read a network configuration; set network_style to none to install it without one")
}
