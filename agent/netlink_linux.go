package agent

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"
)

// rtnl speaks the kernel's routing netlink: as much of it as is needed to set up interfaces, addresses, routes and rules, and to see
// which there are. One conversation at a time.
type rtnl struct {
	fd  int
	seq uint32
}

func openRTNL() (*rtnl, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("netlink: %w", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("netlink: %w", err)
	}
	_ = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 10})
	return &rtnl{fd: fd}, nil
}

func (n *rtnl) close() { unix.Close(n.fd) }

// attrs builds attributes: a length, a type and a value, each at a multiple of four.
type attrs struct{ b []byte }

func (a *attrs) bytes(typ uint16, v []byte) *attrs {
	a.b = binary.NativeEndian.AppendUint16(a.b, uint16(4+len(v)))
	a.b = binary.NativeEndian.AppendUint16(a.b, typ)
	a.b = append(a.b, v...)
	for len(a.b)%4 != 0 {
		a.b = append(a.b, 0)
	}
	return a
}

func (a *attrs) text(typ uint16, v string) *attrs { return a.bytes(typ, append([]byte(v), 0)) }
func (a *attrs) u8(typ uint16, v int) *attrs      { return a.bytes(typ, []byte{byte(v)}) }
func (a *attrs) u16(typ uint16, v int) *attrs {
	return a.bytes(typ, binary.NativeEndian.AppendUint16(nil, uint16(v)))
}
func (a *attrs) u32(typ uint16, v int) *attrs {
	return a.bytes(typ, binary.NativeEndian.AppendUint32(nil, uint32(v)))
}
func (a *attrs) nest(typ uint16, v *attrs) *attrs { return a.bytes(typ|unix.NLA_F_NESTED, v.b) }

func parseAttrs(b []byte) map[uint16][]byte {
	out := map[uint16][]byte{}
	for len(b) >= 4 {
		size := int(binary.NativeEndian.Uint16(b))
		if size < 4 || size > len(b) {
			return out
		}
		out[binary.NativeEndian.Uint16(b[2:])&^unix.NLA_F_NESTED] = b[4:size]
		b = b[min((size+3)&^3, len(b)):]
	}
	return out
}

// call sends a message and returns the bodies of the answers: those of a dump, or none.
func (n *rtnl) call(typ uint16, flags int, body []byte) ([][]byte, error) {
	n.seq++
	msg := binary.NativeEndian.AppendUint32(nil, uint32(unix.SizeofNlMsghdr+len(body)))
	msg = binary.NativeEndian.AppendUint16(msg, typ)
	msg = binary.NativeEndian.AppendUint16(msg, uint16(unix.NLM_F_REQUEST|unix.NLM_F_ACK|flags))
	msg = binary.NativeEndian.AppendUint32(msg, n.seq)
	msg = append(binary.NativeEndian.AppendUint32(msg, 0), body...)
	if err := unix.Sendto(n.fd, msg, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, err
	}
	var out [][]byte
	buf := make([]byte, 1<<16)
	for {
		k, _, err := unix.Recvfrom(n.fd, buf, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, err
		}
		for b := buf[:k]; len(b) >= unix.SizeofNlMsghdr; {
			size := int(binary.NativeEndian.Uint32(b))
			if size < unix.SizeofNlMsghdr || size > len(b) {
				return nil, errors.New("an answer of the kernel that cannot be read")
			}
			kind, seq, data := binary.NativeEndian.Uint16(b[4:]), binary.NativeEndian.Uint32(b[8:]), b[unix.SizeofNlMsghdr:size]
			b = b[min((size+3)&^3, len(b)):]
			if seq != n.seq {
				continue
			}
			switch kind {
			case unix.NLMSG_DONE:
				return out, nil
			case unix.NLMSG_ERROR:
				if len(data) >= 4 {
					if code := int32(binary.NativeEndian.Uint32(data)); code != 0 {
						return nil, unix.Errno(-code)
					}
				}
				return out, nil
			default:
				out = append(out, append([]byte(nil), data...))
			}
		}
	}
}

// netLink is an interface as the kernel has it.
type netLink struct {
	index, master, mtu int
	name, kind, mac    string
	up                 bool
}

func linkBody(index int, flags, change uint32, a *attrs) []byte {
	b := []byte{unix.AF_UNSPEC, 0, 0, 0}
	b = binary.NativeEndian.AppendUint32(b, uint32(index))
	b = binary.NativeEndian.AppendUint32(b, flags)
	b = binary.NativeEndian.AppendUint32(b, change)
	if a != nil {
		b = append(b, a.b...)
	}
	return b
}

func (n *rtnl) links() ([]netLink, error) {
	got, err := n.call(unix.RTM_GETLINK, unix.NLM_F_DUMP, linkBody(0, 0, 0, nil))
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	var out []netLink
	for _, b := range got {
		if len(b) < 16 {
			continue
		}
		l := netLink{index: int(binary.NativeEndian.Uint32(b[4:])), up: binary.NativeEndian.Uint32(b[8:])&unix.IFF_UP != 0}
		a := parseAttrs(b[16:])
		l.name = cString(a[unix.IFLA_IFNAME])
		if m := a[unix.IFLA_ADDRESS]; len(m) == 6 {
			l.mac = fmt.Sprintf("%02x:%02x:%02x:%02x:%02x:%02x", m[0], m[1], m[2], m[3], m[4], m[5])
		}
		if m := a[unix.IFLA_PERM_ADDRESS]; len(m) == 6 && l.mac != "" { // a member of a bond has the bond's address
			l.mac = fmt.Sprintf("%02x:%02x:%02x:%02x:%02x:%02x", m[0], m[1], m[2], m[3], m[4], m[5])
		}
		l.mtu, l.master = attrInt(a[unix.IFLA_MTU]), attrInt(a[unix.IFLA_MASTER])
		l.kind = cString(parseAttrs(a[unix.IFLA_LINKINFO])[unix.IFLA_INFO_KIND])
		out = append(out, l)
	}
	return out, nil
}

func cString(b []byte) string {
	for i, c := range b {
		if c == 0 {
			return string(b[:i])
		}
	}
	return string(b)
}

func attrInt(b []byte) int {
	if len(b) < 4 {
		return 0
	}
	return int(binary.NativeEndian.Uint32(b))
}

// addLink makes an interface of a kind.
func (n *rtnl) addLink(name, kind string, more *attrs, data *attrs) error {
	info := (&attrs{}).text(unix.IFLA_INFO_KIND, kind)
	if data != nil {
		info.nest(unix.IFLA_INFO_DATA, data)
	}
	a := (&attrs{}).text(unix.IFLA_IFNAME, name).nest(unix.IFLA_LINKINFO, info)
	if more != nil {
		a.b = append(a.b, more.b...)
	}
	if _, err := n.call(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL, linkBody(0, 0, 0, a)); err != nil {
		if errors.Is(err, unix.EOPNOTSUPP) {
			return fmt.Errorf("%s: this environment's kernel has no interfaces of the kind %s", name, kind)
		}
		return fmt.Errorf("make %s: %w", name, err)
	}
	return nil
}

func (n *rtnl) delLink(index int) error {
	_, err := n.call(unix.RTM_DELLINK, 0, linkBody(index, 0, 0, nil))
	return err
}

func (n *rtnl) setLink(index int, a *attrs) error {
	_, err := n.call(unix.RTM_NEWLINK, 0, linkBody(index, 0, 0, a))
	return err
}

func (n *rtnl) setUp(index int, up bool) error {
	flags := uint32(0)
	if up {
		flags = unix.IFF_UP
	}
	_, err := n.call(unix.RTM_NEWLINK, 0, linkBody(index, flags, unix.IFF_UP, nil))
	return err
}

func family(v6 bool) byte {
	if v6 {
		return unix.AF_INET6
	}
	return unix.AF_INET
}

// netAddr is an address of an interface.
type netAddr struct {
	index  int
	prefix netip.Prefix
	scope  byte
	raw    []byte // the kernel's message, to give it back
}

func (n *rtnl) addrs() ([]netAddr, error) {
	got, err := n.call(unix.RTM_GETADDR, unix.NLM_F_DUMP, []byte{unix.AF_UNSPEC, 0, 0, 0, 0, 0, 0, 0})
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	var out []netAddr
	for _, b := range got {
		if len(b) < 8 {
			continue
		}
		a := parseAttrs(b[8:])
		v := a[unix.IFA_LOCAL]
		if v == nil {
			v = a[unix.IFA_ADDRESS]
		}
		if ip, ok := netip.AddrFromSlice(v); ok {
			out = append(out, netAddr{int(binary.NativeEndian.Uint32(b[4:])), netip.PrefixFrom(ip, int(b[1])), b[3], b})
		}
	}
	return out, nil
}

func addrBody(index int, p netip.Prefix) []byte {
	v6 := p.Addr().Is6()
	b := []byte{family(v6), byte(p.Bits()), 0, 0}
	b = binary.NativeEndian.AppendUint32(b, uint32(index))
	a := (&attrs{}).bytes(unix.IFA_LOCAL, p.Addr().AsSlice()).bytes(unix.IFA_ADDRESS, p.Addr().AsSlice())
	if v6 {
		a.u32(unix.IFA_FLAGS, unix.IFA_F_NODAD) // a script does not wait for two seconds
	}
	return append(b, a.b...)
}

func (n *rtnl) addAddr(index int, p netip.Prefix) error {
	if _, err := n.call(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, addrBody(index, p)); err != nil {
		return fmt.Errorf("address %s: %w", p, err)
	}
	return nil
}

func (n *rtnl) delAddr(index int, p netip.Prefix) error {
	_, err := n.call(unix.RTM_DELADDR, 0, addrBody(index, p))
	return err
}

func routeBody(index int, r ipRoute) []byte {
	table := r.table
	if table == 0 {
		table = unix.RT_TABLE_MAIN
	}
	short := table
	if short > 255 {
		short = unix.RT_TABLE_UNSPEC
	}
	b := []byte{family(r.v6()), byte(r.to.Bits()), 0, 0, byte(short), unix.RTPROT_STATIC, unix.RT_SCOPE_UNIVERSE, unix.RTN_UNICAST, 0, 0, 0, 0}
	a := &attrs{}
	if r.to.Bits() > 0 {
		a.bytes(unix.RTA_DST, r.to.Masked().Addr().AsSlice())
	}
	if r.via.IsValid() {
		a.bytes(unix.RTA_GATEWAY, r.via.AsSlice())
	} else {
		b[6] = unix.RT_SCOPE_LINK
	}
	a.u32(unix.RTA_OIF, index).u32(unix.RTA_TABLE, table)
	if r.metric > 0 {
		a.u32(unix.RTA_PRIORITY, r.metric)
	}
	return append(b, a.b...)
}

func (n *rtnl) addRoute(index int, r ipRoute) error {
	if _, err := n.call(unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, routeBody(index, r)); err != nil {
		return fmt.Errorf("route to %s by %s: %w", r.to, r.via, err)
	}
	return nil
}

// netRouteEntry is a route as the kernel has it.
type netRouteEntry struct {
	ipRoute
	index    int
	protocol byte
	raw      []byte
}

// routesNow are the unicast routes of all tables but the kernel's own.
func (n *rtnl) routesNow() ([]netRouteEntry, error) {
	var out []netRouteEntry
	for _, v6 := range []bool{false, true} {
		got, err := n.call(unix.RTM_GETROUTE, unix.NLM_F_DUMP, []byte{family(v6), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0})
		if err != nil {
			return nil, fmt.Errorf("list routes: %w", err)
		}
		for _, b := range got {
			if len(b) < 12 || b[7] != unix.RTN_UNICAST {
				continue
			}
			a := parseAttrs(b[12:])
			r := netRouteEntry{index: attrInt(a[unix.RTA_OIF]), protocol: b[5], raw: b}
			if r.table = attrInt(a[unix.RTA_TABLE]); r.table == unix.RT_TABLE_LOCAL {
				continue
			}
			if r.table == unix.RT_TABLE_MAIN {
				r.table = 0
			}
			r.metric = attrInt(a[unix.RTA_PRIORITY])
			dst := netip.IPv4Unspecified()
			if v6 {
				dst = netip.IPv6Unspecified()
			}
			if ip, ok := netip.AddrFromSlice(a[unix.RTA_DST]); ok {
				dst = ip
			}
			r.to = netip.PrefixFrom(dst, int(b[1]))
			r.via, _ = netip.AddrFromSlice(a[unix.RTA_GATEWAY])
			out = append(out, r)
		}
	}
	return out, nil
}

// again gives the kernel one of its own messages back.
func (n *rtnl) again(typ uint16, raw []byte) error {
	flags := 0
	if typ == unix.RTM_NEWROUTE || typ == unix.RTM_NEWADDR {
		flags = unix.NLM_F_CREATE | unix.NLM_F_REPLACE
	}
	_, err := n.call(typ, flags, raw)
	return err
}

// The attributes of rules, which the constants of golang.org/x/sys do not have.
const (
	fraDst, fraSrc, fraPriority, fraTable = 1, 2, 6, 15
)

func (n *rtnl) rule(add bool, r netRule) error {
	from, _ := netip.ParsePrefix(r.From) // check has parsed them
	to, _ := netip.ParsePrefix(r.To)
	_, v6 := r.words()
	b := []byte{family(v6), 0, 0, 0, unix.RT_TABLE_UNSPEC, 0, 0, 1 /* FR_ACT_TO_TBL */, 0, 0, 0, 0}
	a := (&attrs{}).u32(fraTable, r.Table)
	if from.IsValid() {
		b[2] = byte(from.Bits())
		a.bytes(fraSrc, from.Masked().Addr().AsSlice())
	}
	if to.IsValid() {
		b[1] = byte(to.Bits())
		a.bytes(fraDst, to.Masked().Addr().AsSlice())
	}
	if r.Priority > 0 {
		a.u32(fraPriority, r.Priority)
	}
	typ, flags := uint16(unix.RTM_DELRULE), 0
	if add {
		typ, flags = unix.RTM_NEWRULE, unix.NLM_F_CREATE|unix.NLM_F_EXCL
	}
	if _, err := n.call(typ, flags, append(b, a.b...)); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("rule from %q to %q: %w", r.From, r.To, err)
	}
	return nil
}

// writeSysctl sets a kernel parameter of an interface; one that is not there does not matter.
func writeSysctl(path, value string) { _ = os.WriteFile("/proc/sys/"+path, []byte(value), 0o644) }
