package provisioner

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/ingot-metal/ingot/storage"
)

// Specifiers choose subnets, VLANs, fabrics, spaces and interfaces: [operator][type:]value, where the value may be a specifier again.
// This file gives them their meaning over the catalogue; it knows nothing of machines.

// operator says how a term joins those before it.
type operator int

const (
	opOr operator = iota
	opAnd
	opNot
)

func splitOperator(text string, otherwise operator) (string, operator) {
	text = strings.TrimSpace(text)
	for prefix, op := range map[string]operator{"|": opOr, "&": opAnd, "not_": opNot, "!": opNot} {
		if rest, ok := strings.CutPrefix(text, prefix); ok {
			return rest, op
		}
	}
	return text, otherwise
}

// typed takes the type off a term. What stands before the first colon and is no type belongs to the value.
func typed(text string, types ...string) (typ, value string) {
	if typ, value, ok := strings.Cut(text, ":"); ok && slices.Contains(types, typ) {
		return typ, value
	}
	return "", text
}

// specInteger reads an integer as MAAS does: decimal, 0x or 0b.
func specInteger(text string) (int64, bool) {
	text = strings.ToLower(strings.TrimSpace(text))
	base := 10
	if rest, ok := strings.CutPrefix(text, "0x"); ok {
		text, base = rest, 16
	} else if rest, ok := strings.CutPrefix(text, "0b"); ok {
		text, base = rest, 2
	}
	n, err := strconv.ParseInt(text, base, 64)
	return n, err == nil
}

// specID reads an id: a number, or with the word of the kind before it (subnet-7).
func specID(text, kind string) (int64, bool) {
	if n, ok := specInteger(text); ok {
		return n, true
	}
	rest, ok := strings.CutPrefix(text, kind+"-")
	if !ok {
		return 0, false
	}
	n, err := strconv.ParseInt(rest, 10, 64)
	return n, err == nil
}

const (
	maxSpecifierDepth = 16
	msgVID            = "VID must be between 0 and 4094."
)

// resolver looks specifiers up. A value that cannot be one is an error of the field.
type resolver struct {
	cat   *storage.Catalogue
	field string
	depth int
	// nics are all interfaces that there are, for the one type that asks for them.
	nics func() ([]*storage.MachineWithParts, error)
}

func keys[V any](m map[int64]V) []int64 {
	out := make([]int64, 0, len(m))
	for id := range m {
		out = append(out, id)
	}
	slices.Sort(out)
	return out
}

// where returns the ids of the things that fit, in order.
func where[V any](m map[int64]V, fits func(v V) bool) []int64 {
	out := []int64{}
	for id, v := range m {
		if fits(v) {
			out = append(out, id)
		}
	}
	slices.Sort(out)
	return out
}

// fold joins terms from left to right. A first NOT is taken from all.
func fold[V any](all map[int64]V, terms []string, otherwise operator, one func(text string) ([]int64, error)) ([]int64, error) {
	var have map[int64]bool
	for _, t := range terms {
		text, op := splitOperator(t, otherwise)
		ids, err := one(text)
		if err != nil {
			return nil, err
		}
		set := map[int64]bool{}
		for _, id := range ids {
			set[id] = true
		}
		switch {
		case op == opNot:
			if have == nil {
				have = map[int64]bool{}
				for id := range all {
					have[id] = true
				}
			}
			for id := range set {
				delete(have, id)
			}
		case have == nil:
			have = set
		case op == opOr:
			for id := range set {
				have[id] = true
			}
		default:
			for id := range have {
				if !set[id] {
					delete(have, id)
				}
			}
		}
	}
	return keys(have), nil
}

// nested resolves the value of a term that is a specifier again: its parts, between commas, must all hold.
func nested[V any](r *resolver, all map[int64]V, text string, one func(text string) ([]int64, error)) ([]int64, error) {
	if r.depth++; r.depth > maxSpecifierDepth {
		return nil, FieldError(r.field, "The specifier has too many levels.")
	}
	defer func() { r.depth-- }()
	return fold(all, strings.Split(text, ","), opAnd, one)
}

// subnets resolves a list of specifiers, each of which adds to the set.
func (r *resolver) subnets(terms []string) ([]int64, error) {
	return fold(r.cat.Subnets, terms, opOr, r.subnet)
}

func (r *resolver) vlans(terms []string) ([]int64, error) {
	return fold(r.cat.VLANs, terms, opOr, r.vlan)
}

func (r *resolver) subnetsOf(text string) ([]int64, error) {
	return nested(r, r.cat.Subnets, text, r.subnet)
}

func (r *resolver) vlansOf(text string) ([]int64, error) {
	return nested(r, r.cat.VLANs, text, r.vlan)
}

func (r *resolver) fabricsOf(text string) ([]int64, error) {
	return nested(r, r.cat.Fabrics, text, r.fabric)
}

func (r *resolver) subnetsOn(vlans []int64) []int64 {
	return where(r.cat.Subnets, func(s *storage.Subnet) bool { return slices.Contains(vlans, s.VLANID) })
}

func (r *resolver) vlansIn(fabrics []int64) []int64 {
	return where(r.cat.VLANs, func(v *storage.VLAN) bool { return slices.Contains(fabrics, v.FabricID) })
}

func (r *resolver) subnetsByCIDR(text string) []int64 {
	p, err := netip.ParsePrefix(text)
	return where(r.cat.Subnets, func(s *storage.Subnet) bool { return err == nil && s.CIDR == p.Masked().String() })
}

func (r *resolver) subnet(text string) ([]int64, error) {
	typ, value := typed(text, "id", "cidr", "name", "ip", "fabric", "vlan", "vid", "space", "interface")
	byID := func(id int64) []int64 {
		return where(r.cat.Subnets, func(s *storage.Subnet) bool { return s.ID == id })
	}
	byName := func() []int64 {
		return where(r.cat.Subnets, func(s *storage.Subnet) bool { return s.Name == value })
	}
	switch typ {
	case "id":
		if id, ok := specID(value, "subnet"); ok {
			return byID(id), nil
		}
		return nil, nil
	case "cidr":
		return r.subnetsByCIDR(value), nil
	case "name":
		return byName(), nil
	case "ip":
		ip, err := netip.ParseAddr(value)
		return where(r.cat.Subnets, func(s *storage.Subnet) bool {
			p, perr := netip.ParsePrefix(s.CIDR)
			return err == nil && perr == nil && p.Contains(ip)
		}), nil
	case "fabric":
		fabrics, err := r.fabricsOf(value)
		return r.subnetsOn(r.vlansIn(fabrics)), err
	case "vlan":
		vlans, err := r.vlansOf(value)
		return r.subnetsOn(vlans), err
	case "vid":
		vlans, err := r.byVID(value)
		return r.subnetsOn(vlans), err
	case "space":
		vlans, err := r.inSpace(value)
		return r.subnetsOn(vlans), err
	case "interface":
		return r.subnetsOfNICs(value)
	}
	if id, ok := specID(value, "subnet"); ok {
		return byID(id), nil
	}
	if _, err := netip.ParsePrefix(value); err == nil {
		return r.subnetsByCIDR(value), nil
	}
	return byName(), nil
}

func (r *resolver) byVID(text string) ([]int64, error) {
	vid, ok := specInteger(text)
	if strings.EqualFold(text, "untagged") {
		vid, ok = 0, true
	}
	if !ok || vid < 0 || vid > 4094 {
		return nil, FieldError(r.field, msgVID)
	}
	return where(r.cat.VLANs, func(v *storage.VLAN) bool { return v.VID == vid }), nil
}

func (r *resolver) vlan(text string) ([]int64, error) {
	typ, value := typed(text, "id", "name", "vid", "fabric", "space", "subnet")
	byName := func() []int64 {
		return where(r.cat.VLANs, func(v *storage.VLAN) bool { return v.Name != nil && *v.Name == value })
	}
	switch typ {
	case "id":
		id, ok := specInteger(value)
		return where(r.cat.VLANs, func(v *storage.VLAN) bool { return ok && v.ID == id }), nil
	case "name":
		return byName(), nil
	case "vid":
		return r.byVID(value)
	case "fabric":
		fabrics, err := r.fabricsOf(value)
		return r.vlansIn(fabrics), err
	case "space":
		return r.inSpace(value)
	case "subnet":
		subnets, err := r.subnetsOf(value)
		return r.vlansOfSubnets(subnets), err
	}
	if _, ok := specInteger(value); ok || strings.EqualFold(value, "untagged") {
		return r.byVID(value)
	}
	return byName(), nil
}

func (r *resolver) vlansOfSubnets(subnets []int64) []int64 {
	var out []int64
	for _, id := range subnets {
		out = append(out, r.cat.Subnets[id].VLANID)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func (r *resolver) fabric(text string) ([]int64, error) {
	typ, value := typed(text, "name", "class")
	if typ == "class" {
		return r.fabricsByClass(value), nil
	}
	if id, ok := specID(value, "fabric"); ok && typ == "" {
		return where(r.cat.Fabrics, func(f *storage.Fabric) bool { return f.ID == id }), nil
	}
	return r.fabricsByName(value), nil
}

func (r *resolver) fabricsByName(name string) []int64 {
	return where(r.cat.Fabrics, func(f *storage.Fabric) bool { return f.Name == name })
}

func (r *resolver) fabricsByClass(class string) []int64 {
	return where(r.cat.Fabrics, func(f *storage.Fabric) bool { return f.ClassType != nil && *f.ClassType == class })
}

func (r *resolver) space(text string) ([]int64, error) {
	typ, value := typed(text, "name", "subnet")
	if typ == "subnet" {
		subnets, err := r.subnetsOf(value)
		var out []int64
		for _, id := range r.vlansOfSubnets(subnets) {
			if s := r.cat.VLANs[id].SpaceID; s != nil {
				out = append(out, *s)
			}
		}
		return out, err
	}
	if id, ok := specID(value, "space"); ok && typ == "" {
		return where(r.cat.Spaces, func(s *storage.Space) bool { return s.ID == id }), nil
	}
	return where(r.cat.Spaces, func(s *storage.Space) bool { return s.Name == value }), nil
}

// inSpace returns the VLANs of the one space that a specifier names. "undefined" are those in no space.
func (r *resolver) inSpace(text string) ([]int64, error) {
	if text == "undefined" {
		return where(r.cat.VLANs, func(v *storage.VLAN) bool { return v.SpaceID == nil }), nil
	}
	ids, err := nested(r, r.cat.Spaces, text, r.space)
	switch {
	case err != nil:
		return nil, err
	case len(ids) == 0:
		return nil, noMatch("Space")
	case len(ids) > 1:
		return nil, Errorf(Forbidden, "Too many Space objects match the given query.")
	}
	return where(r.cat.VLANs, func(v *storage.VLAN) bool { return v.SpaceID != nil && *v.SpaceID == ids[0] }), nil
}

// nicTerm is a condition on an interface.
type nicTerm struct {
	match func(host string, i *storage.PartNIC) bool
	// vlans and subnets, when not nil, are where an interface must be to match.
	vlans, subnets []int64
}

// nicKeys are the types of interface specifiers and the keys of the interfaces constraint.
var nicKeys = []string{"id", "name", "type", "ip", "hostname", "mode", "subnet", "subnet_cidr", "vlan", "vid", "fabric", "fabric_class", "space", "tag", "link_speed"}

func onVLANs(ids []int64) nicTerm {
	if ids == nil {
		ids = []int64{}
	}
	return nicTerm{vlans: ids, match: func(_ string, i *storage.PartNIC) bool { return i.VLANID != nil && slices.Contains(ids, *i.VLANID) }}
}

func linkedTo(ids []int64) nicTerm {
	if ids == nil {
		ids = []int64{}
	}
	return nicTerm{subnets: ids, match: func(_ string, i *storage.PartNIC) bool {
		return slices.ContainsFunc(i.Links, func(l storage.PartLink) bool { return l.SubnetID != nil && slices.Contains(ids, *l.SubnetID) })
	}}
}

func nicTest(match func(i *storage.PartNIC) bool) nicTerm {
	return nicTerm{match: func(_ string, i *storage.PartNIC) bool { return match(i) }}
}

func withAddress(ip netip.Addr) nicTerm {
	return nicTest(func(i *storage.PartNIC) bool {
		return slices.ContainsFunc(i.Links, func(l storage.PartLink) bool { return l.IP.IsValid() && l.IP == ip })
	})
}

// nicKey is the condition of one key with one value.
func (r *resolver) nicKey(key, value string) (nicTerm, error) {
	switch key {
	case "id":
		id, ok := specInteger(value)
		if !ok {
			return nicTerm{}, FieldError(r.field, "Invalid interface id: number required.")
		}
		return nicTest(func(i *storage.PartNIC) bool { return i.ID == id }), nil
	case "name":
		return nicTest(func(i *storage.PartNIC) bool { return i.Name == value }), nil
	case "type":
		return nicTest(func(i *storage.PartNIC) bool { return i.Type == value }), nil
	case "hostname":
		return nicTerm{match: func(host string, _ *storage.PartNIC) bool { return host == value }}, nil
	case "ip":
		ip, err := netip.ParseAddr(value)
		if err != nil {
			return nicTerm{}, FieldError(r.field, msgIP)
		}
		return withAddress(ip.Unmap().WithZone("")), nil
	case "mode":
		if value != "unconfigured" {
			return nicTerm{}, fieldErr(r.field, "Unknown interface mode: '"+value+"'. The only one is unconfigured.")
		}
		return nicTest(func(i *storage.PartNIC) bool {
			return !slices.ContainsFunc(i.Links, func(l storage.PartLink) bool { return l.IP.IsValid() })
		}), nil
	case "subnet":
		ids, err := r.subnetsOf(value)
		return linkedTo(ids), err
	case "subnet_cidr":
		return linkedTo(r.subnetsByCIDR(value)), nil
	case "vlan":
		ids, err := r.vlansOf(value)
		return onVLANs(ids), err
	case "vid":
		ids, err := r.byVID(value)
		return onVLANs(ids), err
	case "fabric":
		ids, err := r.fabricsOf(value)
		return onVLANs(r.vlansIn(ids)), err
	case "fabric_class":
		return onVLANs(r.vlansIn(r.fabricsByClass(value))), nil
	case "space":
		ids, err := r.inSpace(value)
		return onVLANs(ids), err
	case "tag":
		tags := strings.Split(value, "&&")
		return nicTest(func(i *storage.PartNIC) bool { return hasAll(i.Tags, tags) }), nil
	case "link_speed":
		low, ok := floatValue(value)
		if !ok {
			return nicTerm{}, FieldError(r.field, "Invalid link speed: number required.")
		}
		return nicTest(func(i *storage.PartNIC) bool { return float64(i.LinkSpeed) >= low }), nil
	}
	// The default: an id, a network, an address, or a name.
	if id, ok := specInteger(value); ok {
		return nicTest(func(i *storage.PartNIC) bool { return i.ID == id }), nil
	}
	if _, err := netip.ParsePrefix(value); err == nil {
		return linkedTo(r.subnetsByCIDR(value)), nil
	}
	if ip, err := netip.ParseAddr(value); err == nil {
		return withAddress(ip.Unmap().WithZone("")), nil
	}
	return nicTest(func(i *storage.PartNIC) bool { return i.Name == value }), nil
}

// nicsOf is the condition of an interface specifier.
func (r *resolver) nicsOf(text string) (func(host string, i *storage.PartNIC) bool, error) {
	if r.depth++; r.depth > maxSpecifierDepth {
		return nil, FieldError(r.field, "The specifier has too many levels.")
	}
	defer func() { r.depth-- }()
	type joined struct {
		op    operator
		match func(host string, i *storage.PartNIC) bool
	}
	var all []joined
	for _, t := range strings.Split(text, ",") {
		text, op := splitOperator(t, opAnd)
		typ, value := typed(text, nicKeys...)
		term, err := r.nicKey(typ, value)
		if err != nil {
			return nil, err
		}
		all = append(all, joined{op, term.match})
	}
	return func(host string, i *storage.PartNIC) bool {
		have := all[0].match(host, i) != (all[0].op == opNot)
		for _, j := range all[1:] {
			switch j.op {
			case opNot:
				have = have && !j.match(host, i)
			case opOr:
				have = have || j.match(host, i)
			default:
				have = have && j.match(host, i)
			}
		}
		return have
	}, nil
}

// subnetsOfNICs returns the subnets that the interfaces of a specifier are linked to.
func (r *resolver) subnetsOfNICs(text string) ([]int64, error) {
	match, err := r.nicsOf(text)
	if err != nil {
		return nil, err
	}
	nodes, err := r.nics()
	if err != nil {
		return nil, err
	}
	found := map[int64]bool{}
	for _, n := range nodes {
		for j := range n.NICs {
			if i := &n.NICs[j]; match(n.Hostname, i) {
				for _, l := range i.Links {
					if l.SubnetID != nil && r.cat.Subnets[*l.SubnetID] != nil {
						found[*l.SubnetID] = true
					}
				}
			}
		}
	}
	return keys(found), nil
}

func hasAll(have, want []string) bool {
	for _, w := range want {
		if !slices.Contains(have, w) {
			return false
		}
	}
	return true
}

// floatValue reads a finite number of a constraint.
func floatValue(text string) (float64, bool) {
	x, err := strconv.ParseFloat(strings.TrimSpace(text), 64)
	return x, err == nil && x == x && x <= 1e15 && x >= -1e15
}
