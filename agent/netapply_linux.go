package agent

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// appliedNet is a modelled network that stands for a while in place of the one that the environment came up with.
type appliedNet struct {
	before  []netLink
	addrs   []netAddr
	routes  []netRouteEntry
	rules   []netRule
	resolv  []byte
	touched map[int]bool // interfaces that were there before, and that the plan names
	logf    func(string, ...any)
}

// bondNumbers are the kernel's numbers of the modes.
func indexOf(list []string, s string) int { return max(slices.Index(list, s), 0) }

// applyNetwork sets the modelled network up in the running environment, by netlink alone: no image needs to bring tools for it. What
// booted the machine keeps its address unless it becomes a part of a bond or a bridge, so that the rack stays within reach. The caller
// must call restore, whatever came of it.
func applyNetwork(ctx context.Context, doc map[string]any, logf func(string, ...any)) (a *appliedNet, err error) {
	p, bare, err := readNetPlan(doc)
	if err != nil {
		return nil, err
	}
	if bare == nil {
		return nil, errors.New("the region sent no network configuration for this machine")
	}
	n, err := openRTNL()
	if err != nil {
		return nil, err
	}
	defer n.close()
	a = &appliedNet{touched: map[int]bool{}, logf: logf}
	if a.before, err = n.links(); err == nil {
		if a.addrs, err = n.addrs(); err == nil {
			a.routes, err = n.routesNow()
		}
	}
	if err != nil {
		return nil, err
	}
	if a.resolv, err = os.ReadFile("/etc/resolv.conf"); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	return a, a.apply(ctx, n, p)
}

func (a *appliedNet) apply(ctx context.Context, n *rtnl, p netPlan) error {
	bond, bridge := p.members()
	index := map[string]int{} // key → interface
	for _, k := range keys(p.Ethernets) {
		i := p.Ethernets[k]
		at := slices.IndexFunc(a.before, func(l netLink) bool {
			return l.kind != "vlan" && l.kind != "bond" && l.kind != "bridge" && (i.Match.MAC != "" && strings.EqualFold(l.mac, i.Match.MAC) || i.Match.MAC == "" && l.name == i.real(k))
		})
		if at < 0 {
			return fmt.Errorf("the interface %s (%s) is not there", i.real(k), i.Match.MAC)
		}
		l := a.before[at]
		index[k], a.touched[l.index] = l.index, true
		if l.name != i.real(k) && !slices.ContainsFunc(a.before, func(o netLink) bool { return o.name == i.real(k) }) {
			// A running interface can be renamed by newer kernels only.
			if err := n.setLink(l.index, (&attrs{}).text(unix.IFLA_IFNAME, i.real(k))); err != nil {
				a.logf("%s keeps its name: to be %s: %v", l.name, i.real(k), err)
			}
		}
		if i.MTU > 0 && i.MTU != l.mtu {
			if err := n.setLink(l.index, (&attrs{}).u32(unix.IFLA_MTU, i.MTU)); err != nil {
				return fmt.Errorf("%s: MTU %d: %w", i.real(k), i.MTU, err)
			}
		}
	}
	now := func(name string) (int, error) {
		l, err := n.links()
		at := slices.IndexFunc(l, func(x netLink) bool { return x.name == name })
		if err == nil && at < 0 {
			err = fmt.Errorf("%s did not appear", name)
		}
		if err != nil {
			return 0, err
		}
		return l[at].index, nil
	}
	// Everything is made of what was made before it. A bridge may stand on a VLAN interface and that on another bridge: go round until
	// nothing waits.
	type virtual struct {
		key, kind string
		i         netIface
	}
	var todo []virtual
	for _, kind := range p.kinds()[1:] {
		for _, k := range keys(kind.group) {
			todo = append(todo, virtual{k, kind.name, kind.group[k]})
		}
	}
	for len(todo) > 0 {
		var later []virtual
		for _, v := range todo {
			needs := v.i.Interfaces
			if v.kind == "vlan" {
				needs = []string{v.i.Link}
			}
			if slices.ContainsFunc(needs, func(k string) bool { return index[k] == 0 }) {
				later = append(later, v)
				continue
			}
			if slices.ContainsFunc(a.before, func(l netLink) bool { return l.name == v.key }) {
				return fmt.Errorf("there is an interface %s already", v.key)
			}
			err := makeVirtual(n, v.key, v.kind, v.i, index)
			if errors.Is(err, unix.EEXIST) {
				// A module that was loaded just now may have made an interface of its own: bonding does, and calls it bond0.
				stray, serr := now(v.key)
				if serr == nil {
					serr = n.delLink(stray)
				}
				if serr == nil {
					err = makeVirtual(n, v.key, v.kind, v.i, index)
				}
			}
			if err != nil {
				return err
			}
			if index[v.key], err = now(v.key); err != nil {
				return err
			}
			for _, m := range needs {
				if v.kind == "vlan" {
					continue
				}
				if err := a.enslave(n, index[m], index[v.key], v.kind == "bond"); err != nil {
					return fmt.Errorf("%s into %s: %w", m, v.key, err)
				}
			}
		}
		if len(later) == len(todo) {
			return fmt.Errorf("%s stands on itself", todo[0].key)
		}
		todo = later
	}
	for _, kind := range p.kinds() { // what others stand on first
		for _, k := range keys(kind.group) {
			i := kind.group[k]
			if i.AcceptRA != nil {
				writeSysctl("net/ipv6/conf/"+strings.ReplaceAll(p.name(k), ".", "/")+"/accept_ra", i.AcceptRA.word("2", "0"))
			}
			if err := n.setUp(index[k], true); err != nil {
				return fmt.Errorf("%s: up: %w", p.name(k), err)
			}
			if bond[k] == "" && bridge[k] == "" {
				for _, addr := range append(i.prefixes(false), i.prefixes(true)...) {
					if err := n.addAddr(index[k], addr); err != nil {
						return fmt.Errorf("%s: %w", p.name(k), err)
					}
				}
			}
		}
	}
	time.Sleep(time.Second) // a bridge's port learns, a bond sees its links
	for _, kind := range p.kinds() {
		for _, k := range keys(kind.group) {
			i := kind.group[k]
			if bool(i.DHCP4) && !hasAddr(a.addrs, index[k], false) {
				waitCarrier(system{"/"}, p.name(k), 10*time.Second)
				lease, err := requestLease(ctx, p.name(k))
				if err != nil {
					return fmt.Errorf("%s: DHCP: %w", p.name(k), err)
				}
				if err := applyLease(p.name(k), lease); err != nil {
					return fmt.Errorf("%s: DHCP: %w", p.name(k), err)
				}
			}
			if bool(i.DHCP6) {
				a.logf("%s: no DHCPv6 here; it has what routers give it", p.name(k))
			}
			for _, r := range i.routes() {
				if err := n.addRoute(index[k], r); err != nil {
					return fmt.Errorf("%s: %w", p.name(k), err)
				}
			}
			for _, r := range i.Policy {
				if err := n.rule(true, r); err != nil {
					return fmt.Errorf("%s: %w", p.name(k), err)
				}
				a.rules = append(a.rules, r)
			}
		}
	}
	if text := p.resolvConf(); text != "" {
		return os.WriteFile("/etc/resolv.conf", []byte(text), 0o644)
	}
	return nil
}

func hasAddr(all []netAddr, index int, v6 bool) bool {
	return slices.ContainsFunc(all, func(a netAddr) bool {
		return a.index == index && a.prefix.Addr().Is6() == v6 && !a.prefix.Addr().IsLinkLocalUnicast()
	})
}

func makeVirtual(n *rtnl, name, kind string, i netIface, index map[string]int) error {
	more, data, q := &attrs{}, &attrs{}, i.Parameters
	if i.MTU > 0 && kind != "bridge" {
		more.u32(unix.IFLA_MTU, i.MTU)
	}
	if i.MAC != "" && kind != "vlan" {
		var m [6]byte
		if _, err := fmt.Sscanf(strings.ToLower(i.MAC), "%02x:%02x:%02x:%02x:%02x:%02x", &m[0], &m[1], &m[2], &m[3], &m[4], &m[5]); err != nil {
			return fmt.Errorf("%s: %q: %w", name, i.MAC, err)
		}
		more.bytes(unix.IFLA_ADDRESS, m[:])
	}
	switch kind {
	case "bond":
		data.u8(unix.IFLA_BOND_MODE, indexOf(bondModes, firstOf(q.Mode, "balance-rr")))
		for _, x := range []struct {
			typ uint16
			v   int
		}{{unix.IFLA_BOND_MIIMON, q.MIIMonitor}, {unix.IFLA_BOND_UPDELAY, q.UpDelay}, {unix.IFLA_BOND_DOWNDELAY, q.DownDelay}} {
			if x.v > 0 {
				data.u32(x.typ, x.v)
			}
		}
		if q.HashPolicy != "" {
			data.u8(unix.IFLA_BOND_XMIT_HASH_POLICY, indexOf(hashes, q.HashPolicy))
		}
		if q.GratARP > 0 {
			data.u8(unix.IFLA_BOND_NUM_PEER_NOTIF, q.GratARP)
		}
		if q.LACPRate != "" && q.Mode == "802.3ad" {
			data.u8(unix.IFLA_BOND_AD_LACP_RATE, indexOf(lacpRates, q.LACPRate))
		}
	case "bridge":
		data.u32(unix.IFLA_BR_FORWARD_DELAY, 0) // a script waits for nothing
		if q.STP.set() {
			data.u32(unix.IFLA_BR_STP_STATE, 1)
		}
	case "vlan":
		more.u32(unix.IFLA_LINK, index[i.Link])
		data.u16(unix.IFLA_VLAN_ID, i.ID)
	}
	return n.addLink(name, kind, more, data)
}

// enslave makes an interface a part of another; what it had as an interface of its own is for the restoration.
func (a *appliedNet) enslave(n *rtnl, member, master int, bond bool) error {
	for _, x := range a.addrs {
		if x.index == member && !x.prefix.Addr().IsLinkLocalUnicast() {
			if err := n.delAddr(member, x.prefix); err != nil {
				return err
			}
		}
	}
	if bond { // a bond takes what is down
		if err := n.setUp(member, false); err != nil {
			return err
		}
	}
	return n.setLink(member, (&attrs{}).u32(unix.IFLA_MASTER, master))
}

// restore brings back what was there before. It goes on after an error: every part that is back is worth something.
func (a *appliedNet) restore() error {
	n, err := openRTNL()
	if err != nil {
		return err
	}
	defer n.close()
	var errs []error
	fail := func(what string, err error) {
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", what, err))
		}
	}
	for _, r := range slices.Backward(a.rules) {
		fail("rule", n.rule(false, r))
	}
	known := map[int]netLink{}
	for _, l := range a.before {
		known[l.index] = l
	}
	links, err := n.links()
	fail("interfaces", err)
	for _, l := range slices.Backward(links) {
		if _, ok := known[l.index]; !ok {
			if err := n.delLink(l.index); err != nil && !errors.Is(err, unix.ENODEV) { // it may have gone with what it stood on
				fail(l.name, err)
			}
		}
	}
	links, err = n.links()
	fail("interfaces", err)
	for _, l := range links {
		was := known[l.index]
		if !a.touched[l.index] {
			continue
		}
		if l.master != was.master {
			fail(l.name, n.setLink(l.index, (&attrs{}).u32(unix.IFLA_MASTER, was.master)))
		}
		if l.name != was.name {
			fail(l.name, n.setLink(l.index, (&attrs{}).text(unix.IFLA_IFNAME, was.name)))
		}
		if l.mtu != was.mtu {
			fail(l.name, n.setLink(l.index, (&attrs{}).u32(unix.IFLA_MTU, was.mtu)))
		}
		fail(l.name, n.setUp(l.index, was.up))
	}
	addrs, err := n.addrs()
	fail("addresses", err)
	had := func(list []netAddr, x netAddr) bool {
		return slices.ContainsFunc(list, func(y netAddr) bool { return y.index == x.index && y.prefix == x.prefix })
	}
	for _, x := range addrs {
		if a.touched[x.index] && !had(a.addrs, x) && !x.prefix.Addr().IsLinkLocalUnicast() {
			fail(x.prefix.String(), n.delAddr(x.index, x.prefix))
		}
	}
	for _, x := range a.addrs {
		if a.touched[x.index] && !had(addrs, x) && !x.prefix.Addr().IsLinkLocalUnicast() {
			fail(x.prefix.String(), n.again(unix.RTM_NEWADDR, x.raw))
		}
	}
	routes, err := n.routesNow()
	fail("routes", err)
	same := func(list []netRouteEntry, x netRouteEntry) bool {
		return slices.ContainsFunc(list, func(y netRouteEntry) bool { return y.index == x.index && y.ipRoute == x.ipRoute })
	}
	for _, r := range routes {
		if a.touched[r.index] && !same(a.routes, r) && r.protocol != unix.RTPROT_KERNEL && r.protocol != unix.RTPROT_RA {
			if err := n.again(unix.RTM_DELROUTE, r.raw); !errors.Is(err, unix.ESRCH) {
				fail("route to "+r.to.String(), err)
			}
		}
	}
	for _, r := range a.routes {
		if a.touched[r.index] && !same(routes, r) && r.protocol != unix.RTPROT_KERNEL && r.protocol != unix.RTPROT_RA {
			fail("route to "+r.to.String(), n.again(unix.RTM_NEWROUTE, r.raw))
		}
	}
	if a.resolv != nil {
		fail("resolv.conf", os.WriteFile("/etc/resolv.conf", a.resolv, 0o644))
	}
	return errors.Join(errs...)
}

// gatewayOf is the gateway of an interface: that of its default route, in whatever table, IPv4's first.
func gatewayOf(index int) (out []netip.Addr) {
	n, err := openRTNL()
	if err != nil {
		return nil
	}
	defer n.close()
	routes, err := n.routesNow()
	if err != nil {
		return nil
	}
	for _, r := range routes {
		if r.index == index && r.to.Bits() == 0 && r.via.IsValid() && !slices.Contains(out, r.via) {
			out = append(out, r.via)
		}
	}
	return out
}
