package provisioner

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/ingot-metal/ingot/storage"
)

// The types of interfaces.
const (
	nicPhysical = "physical"
	nicBond     = "bond"
	nicBridge   = "bridge"
	nicVLAN     = "vlan"
)

// InterfaceInput is what a request says of an interface: nil leaves a field as it is.
type InterfaceInput struct {
	Name           *string
	MACAddress     *string
	Tags           []string // nil: as they are
	VLAN           *string  // id or specifier; empty disconnects
	MTU            *int64
	ClearMTU       bool
	AcceptRA       *bool
	Enabled        *bool
	LinkConnected  *bool
	InterfaceSpeed *int64
	LinkSpeed      *int64
	NUMANode       *int64
	Parents        []string // ids of the interfaces below; nil: as they are
	NICParams
}

// NICParams are what bonds and bridges are set to; nil: as it is, or the default.
type NICParams struct {
	BondMode           *string
	BondMiimon         *int64
	BondDowndelay      *int64
	BondUpdelay        *int64
	BondLACPRate       *string
	BondXmitHashPolicy *string
	BondNumGratARP     *int64
	BridgeType         *string
	BridgeSTP          *bool
	BridgeFD           *int64
}

var (
	bondModes      = []string{"balance-rr", "active-backup", "balance-xor", "broadcast", "802.3ad", "balance-tlb", "balance-alb"}
	lacpRates      = []string{"fast", "slow"}
	hashPolicies   = []string{"layer2", "layer2+3", "layer3+4", "encap2+3", "encap3+4"}
	bridgeTypes    = []string{"standard", "ovs"}
	maxParam       = int64(1<<31 - 1)
	nicName        = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.:@-]*$`)
	kernelNameSize = 15 // of an interface name in Linux
)

// findAnyVLAN resolves a VLAN parameter of an interface: id, or vid:n, or name.
func findAnyVLAN(c *storage.Catalogue, spec string) *storage.VLAN {
	v, err := findNet(c.VLANs, spec, "VLAN", "vlan-", func(v *storage.VLAN, kind, value string) bool {
		switch kind {
		case "vid":
			return value == strconv.FormatInt(v.VID, 10)
		case "fabric":
			d := defaultVLAN(c, v.FabricID)
			return c.Fabrics[v.FabricID] != nil && idOrName(value, v.FabricID, c.Fabrics[v.FabricID].Name) && d != nil && d.ID == v.ID
		case "", "name":
			return v.Name != nil && *v.Name == value
		}
		return false
	})
	if err != nil {
		return nil
	}
	return v
}

// nicForm is one interface under creation or change, checked against its node.
type nicForm struct {
	form
	in      InterfaceInput
	cat     *storage.Catalogue
	all     []*storage.InterfaceBundle // of the node
	old     *storage.InterfaceBundle   // nil: it is new
	i       *storage.Interface         // what is to be written
	parents []*storage.InterfaceBundle // as they are to be
}

// check checks the fields and sets them. Of a deployed machine only what describes the hardware changes.
func (f *nicForm) check(deployed bool) error {
	f.checkIdentity()
	f.checkLink()
	if !deployed {
		f.checkConfig()
		f.checkParents()
		switch f.i.Type {
		case nicBond:
			f.checkBond()
		case nicBridge:
			f.checkBridge()
		case nicVLAN:
			f.checkVLAN()
		}
	}
	if f.i.Type == nicBond || f.i.Type == nicBridge {
		if f.i.MACAddress == "" && len(f.form["mac_address"]) == 0 {
			f.add("mac_address", "This field cannot be blank.")
		}
	}
	if f.i.Type == nicVLAN || f.i.Type == nicBridge { // these have a parameter of another name
		if e, ok := f.form["parents"]; ok {
			delete(f.form, "parents")
			f.form["parent"] = e
		}
	}
	return f.err()
}

func (f *nicForm) checkIdentity() {
	i := f.i
	if f.in.Name != nil && *f.in.Name != "" || f.in.Name != nil && f.old != nil {
		i.Name = *f.in.Name
	}
	switch {
	case i.Name == "" && i.Type == nicVLAN && f.old == nil: // it follows from parent and tag
	case i.Name == "":
		f.add("name", msgRequired)
	default:
		f.text("name", i.Name, 255, nicName)
	}
	switch {
	case i.Type == nicVLAN:
	case f.in.MACAddress != nil && *f.in.MACAddress != "":
		mac, ok := NormalMAC(*f.in.MACAddress)
		if !ok {
			f.add("mac_address", "'%s' is not a valid MAC address.", *f.in.MACAddress)
			return
		}
		i.MACAddress, i.MACTyped = mac, strings.TrimSpace(*f.in.MACAddress)
	case i.Type == nicPhysical && (f.old == nil || f.in.MACAddress != nil):
		f.add("mac_address", msgRequired)
	}
}

func (f *nicForm) number(field string, v *int64, low, high int64, to *int64) {
	switch {
	case v == nil:
		return
	case *v < low:
		f.add(field, "Ensure this value is greater than or equal to %d.", low)
	case *v > high:
		f.add(field, "Ensure this value is less than or equal to %d.", high)
	}
	*to = *v
}

func (f *nicForm) checkLink() {
	i := f.i
	i.LinkConnected = deref(f.in.LinkConnected, i.LinkConnected)
	f.number("interface_speed", f.in.InterfaceSpeed, 0, maxParam, &i.InterfaceSpeed)
	f.number("link_speed", f.in.LinkSpeed, 0, maxParam, &i.LinkSpeed)
	if !i.LinkConnected {
		if f.in.LinkSpeed != nil && *f.in.LinkSpeed > 0 {
			f.add("link_speed", "Cannot set link_speed when link_connected is False.")
		}
		i.LinkSpeed = 0
	}
	if i.InterfaceSpeed > 0 && i.LinkSpeed > i.InterfaceSpeed {
		f.add("link_speed", "Link speed should not exceed interface speed.")
	}
}

func (f *nicForm) setVLAN() {
	if f.in.VLAN == nil {
		return
	}
	if *f.in.VLAN == "" {
		f.i.VLANID = nil
	} else if v := findAnyVLAN(f.cat, *f.in.VLAN); v == nil {
		f.add("vlan", msgNoChoice)
	} else {
		f.i.VLANID = &v.ID
	}
}

func (f *nicForm) checkConfig() {
	i := f.i
	if f.in.Tags != nil {
		i.Tags = splitList(f.in.Tags)
		for _, t := range i.Tags {
			f.text("tags", t, 256, nil)
		}
	}
	f.setVLAN()
	if i.Type == nicPhysical {
		i.Enabled = deref(f.in.Enabled, i.Enabled)
		if f.in.NUMANode != nil {
			if i.NUMANode = f.in.NUMANode; *f.in.NUMANode < 0 {
				f.add("numa_node", msgNoChoice)
			}
		}
	}
	params := map[string]any{}
	if len(i.Params) > 0 {
		_ = json.Unmarshal(i.Params, &params) // the store holds nothing but objects
	}
	if f.in.ClearMTU {
		delete(params, "mtu")
	}
	if f.in.MTU != nil {
		if *f.in.MTU < 552 || *f.in.MTU > 65535 {
			f.add("mtu", "Ensure this value is greater than or equal to 552.")
		}
		params["mtu"] = *f.in.MTU
	}
	if f.in.AcceptRA != nil {
		params["accept-ra"] = *f.in.AcceptRA
	}
	switch i.Type {
	case nicBond:
		f.bondParams(params)
	case nicBridge:
		f.bridgeParams(params)
	}
	if b, err := json.Marshal(params); err == nil {
		i.Params = b
	}
}

// choice sets a parameter that takes one of some words, or its default when it has none yet.
func (f *nicForm) choice(params map[string]any, field string, v *string, choices []string) {
	switch {
	case v != nil && strings.TrimSpace(*v) != "":
		if !slices.Contains(choices, *v) {
			f.add(field, "'%s' is not a valid %s. It should be one of: '%s'.", *v, field, strings.Join(choices, "', '"))
		}
		params[field] = *v
	case params[field] == nil:
		params[field] = choices[0]
	}
}

func (f *nicForm) count(params map[string]any, field string, v *int64, high, def int64) {
	if v != nil {
		var n int64
		f.number(field, v, 0, high, &n)
		params[field] = n
	} else if params[field] == nil {
		params[field] = def
	}
}

func (f *nicForm) bondParams(params map[string]any) {
	f.choice(params, "bond_mode", f.in.BondMode, bondModes)
	f.count(params, "bond_miimon", f.in.BondMiimon, maxParam, 100)
	f.count(params, "bond_downdelay", f.in.BondDowndelay, maxParam, 0)
	f.count(params, "bond_updelay", f.in.BondUpdelay, maxParam, 0)
	f.choice(params, "bond_lacp_rate", f.in.BondLACPRate, lacpRates)
	f.choice(params, "bond_xmit_hash_policy", f.in.BondXmitHashPolicy, hashPolicies)
	f.count(params, "bond_num_grat_arp", f.in.BondNumGratARP, 255, 1)
}

func (f *nicForm) bridgeParams(params map[string]any) {
	f.choice(params, "bridge_type", f.in.BridgeType, bridgeTypes)
	if f.in.BridgeSTP != nil {
		params["bridge_stp"] = *f.in.BridgeSTP
	} else if params["bridge_stp"] == nil {
		params["bridge_stp"] = false
	}
	f.count(params, "bridge_fd", f.in.BridgeFD, maxParam, 15)
}

// checkParents finds the interfaces below.
func (f *nicForm) checkParents() {
	if f.in.Parents == nil {
		if f.old != nil {
			f.parents = f.old.Below
		}
		return
	}
	for _, spec := range splitList(f.in.Parents) {
		id, err := strconv.ParseInt(spec, 10, 64)
		if err != nil {
			f.add("parents", "“%s” is not a valid value.", spec)
			return
		}
		k := slices.IndexFunc(f.all, func(b *storage.InterfaceBundle) bool { return b.ID == id })
		if k < 0 || f.old != nil && standsOn(f.all[k], f.old.ID) {
			f.form["parents"] = append(f.form["parents"], msgChoice(spec))
			return
		}
		f.parents = append(f.parents, f.all[k])
	}
	if f.i.Type == nicPhysical && len(f.parents) > 0 {
		f.add("parents", "A physical interface cannot have parents.")
	}
}

// standsOn says whether an interface is another one, or stands on it, over however many others.
func standsOn(b *storage.InterfaceBundle, id int64) bool {
	return b.ID == id || slices.ContainsFunc(b.Below, func(p *storage.InterfaceBundle) bool { return standsOn(p, id) })
}

// others are the interfaces on a parent that are not this one.
func (f *nicForm) others(parent *storage.InterfaceBundle, types ...string) bool {
	return slices.ContainsFunc(parent.Above, func(b *storage.InterfaceBundle) bool {
		return (f.old == nil || b.ID != f.old.ID) && (len(types) == 0 || slices.Contains(types, b.Type))
	})
}

func (f *nicForm) inherit() {
	first := f.parents[0]
	if f.old == nil {
		if f.i.MACAddress == "" {
			f.i.MACAddress, f.i.MACTyped = first.MACAddress, first.MACTyped
		}
		if f.i.VLANID == nil {
			f.i.VLANID = first.VLANID
		}
		return
	}
	// A MAC address that came from a parent goes when that parent goes.
	has := func(list []*storage.InterfaceBundle) bool {
		return slices.ContainsFunc(list, func(b *storage.InterfaceBundle) bool { return b.MACAddress == f.old.MACAddress })
	}
	if f.i.MACAddress == f.old.MACAddress && has(f.old.Below) && !has(f.parents) {
		f.i.MACAddress, f.i.MACTyped = first.MACAddress, first.MACTyped
	}
}

func (f *nicForm) checkBond() {
	if len(f.form["parents"]) > 0 {
		return
	}
	if len(f.parents) == 0 {
		f.add("parents", "A bond interface must have one or more parents.")
		return
	}
	f.inherit()
	var busy []string
	for _, p := range f.parents {
		if f.others(p) {
			busy = append(busy, p.Name)
		}
	}
	slices.Sort(busy)
	if len(busy) > 0 {
		f.add("parents", "Interfaces already in-use: %s.", strings.Join(busy, ", "))
	}
	if f.old == nil && slices.ContainsFunc(f.parents, func(p *storage.InterfaceBundle) bool { return !sameID(p.VLANID, f.i.VLANID) }) {
		f.add("parents", "All parents must belong to the same VLAN.")
	}
}

func sameID(a, b *int64) bool { return a == nil && b == nil || a != nil && b != nil && *a == *b }

func (f *nicForm) checkBridge() {
	if len(f.form["parents"]) > 0 {
		return
	}
	if len(f.parents) == 0 {
		f.add("parents", "A bridge interface must have at least one parent.")
		return
	}
	for _, p := range f.parents {
		switch {
		case p.Type == nicBridge:
			f.add("parents", "A bridge interface can't have another bridge interface as parent.")
			return
		case f.others(p, nicBond, nicBridge):
			f.add("parents", "A bridge interface can't have a parent that is already in a bond or a bridge.")
			return
		}
	}
	f.inherit()
}

func (f *nicForm) checkVLAN() {
	ok := len(f.form["parents"]) == 0
	if ok && len(f.parents) != 1 {
		f.add("parents", "A VLAN interface must have exactly one parent.")
		ok = false
	} else if ok && f.parents[0].Type == nicVLAN {
		f.add("parents", "A VLAN interface can't have another VLAN interface as parent.")
		ok = false
	} else if ok && f.others(f.parents[0], nicBond) {
		f.add("parents", "A VLAN interface can't have a parent that is already in a bond.")
		ok = false
	}
	if len(f.form["vlan"]) > 0 {
		return
	}
	var v *storage.VLAN
	if f.i.VLANID != nil {
		v = f.cat.VLANs[*f.i.VLANID]
	}
	switch {
	case v == nil:
		f.add("vlan", "A VLAN interface must be connected to a tagged VLAN.")
		return
	case v.VID == 0:
		f.add("vlan", "A VLAN interface can only belong to a tagged VLAN.")
		return
	}
	if !ok {
		return
	}
	parent := f.parents[0]
	f.i.MACAddress, f.i.MACTyped = parent.MACAddress, parent.MACTyped
	if parent.VLANID == nil || f.cat.VLANs[*parent.VLANID] == nil || f.cat.VLANs[*parent.VLANID].FabricID != v.FabricID {
		f.add("vlan", "A VLAN interface can only belong to a tagged VLAN on the same fabric as its parent interface.")
	}
	// The name follows parent and tag until somebody chooses one.
	if f.old == nil && f.i.Name == "" || f.old != nil && f.in.Name == nil && f.old.Name == f.defaultVLANName(f.old.Below, f.old.VLANID) {
		f.i.Name = f.defaultVLANName(f.parents, &v.ID)
	}
}

// defaultVLANName is parent.tag, or vlan<tag> where the kernel would not take that.
func (f *nicForm) defaultVLANName(parents []*storage.InterfaceBundle, vlan *int64) string {
	if len(parents) == 0 || vlan == nil || f.cat.VLANs[*vlan] == nil {
		return ""
	}
	vid := f.cat.VLANs[*vlan].VID
	name := fmt.Sprintf("%s.%d", parents[0].Name, vid)
	if len(name) > kernelNameSize {
		name = fmt.Sprintf("vlan%d", vid)
	}
	return name
}

// unique refuses a name or a MAC address that another interface has.
func (f *nicForm) unique(tx *storage.Tx, n *storage.Node) error {
	for _, o := range f.all {
		if o.Name == f.i.Name && o.ID != f.i.ID {
			return FieldError("name", "Node %s already has an interface named '%s'.", n.Hostname, f.i.Name)
		}
	}
	if f.i.Type == nicVLAN {
		return nil
	}
	others, err := tx.InterfacesByMAC(f.i.MACAddress)
	if err != nil {
		return err
	}
	for _, o := range others {
		own := o.ID == f.i.ID || o.Type == nicVLAN || o.NodeID == n.ID && (o.Type != nicPhysical || f.i.Type != nicPhysical)
		if own {
			continue
		}
		other, err := tx.NodeByID(o.NodeID)
		if err != nil {
			return err
		}
		return FieldError("mac_address", "This MAC address is already in use by %s.", other.Hostname)
	}
	return nil
}

// adopt makes what stands below and above an interface follow a change of it: members of bonds and bridges have no links of their
// own, a bond's members are on its VLAN, VLAN interfaces have the MAC address of their parent, and who is no member any more is up.
func (f *nicForm) adopt(tx *storage.Tx) error {
	if f.i.Type == nicBond || f.i.Type == nicBridge || f.i.Type == nicVLAN {
		ids := make([]int64, len(f.parents))
		for k, p := range f.parents {
			ids[k] = p.ID
		}
		if f.old == nil || f.in.Parents != nil {
			if err := tx.SetInterfaceParents(f.i.ID, ids); err != nil {
				return err
			}
		}
		if f.old != nil {
			for _, was := range f.old.Below {
				if !slices.Contains(ids, was.ID) {
					if err := ensureLinkUp(tx, was); err != nil {
						return err
					}
				}
			}
		}
	}
	if f.i.Type == nicBond || f.i.Type == nicBridge {
		for _, p := range f.parents {
			if err := clearLinks(tx, p); err != nil {
				return err
			}
			if f.i.Type == nicBond && !sameID(p.VLANID, f.i.VLANID) {
				p.VLANID = f.i.VLANID
				if err := tx.UpdateInterface(&p.Interface); err != nil {
					return err
				}
			}
		}
	}
	if f.old != nil && f.old.MACAddress != f.i.MACAddress {
		for _, a := range f.old.Above {
			if a.Type != nicVLAN && a.MACAddress != f.old.MACAddress {
				continue
			}
			a.MACAddress, a.MACTyped = f.i.MACAddress, f.i.MACTyped
			if err := tx.UpdateInterface(&a.Interface); err != nil {
				return err
			}
		}
	}
	return nil
}

// clearLinks removes what is configured on an interface, not what was observed there.
func clearLinks(tx *storage.Tx, b *storage.InterfaceBundle) error {
	for _, a := range b.Links {
		if a.AllocType == storage.AllocDiscovered {
			continue
		}
		if err := tx.DeleteIPAddress(a.ID); err != nil {
			return err
		}
	}
	b.Links = slices.DeleteFunc(b.Links, func(a storage.IPAddress) bool { return a.AllocType != storage.AllocDiscovered })
	return nil
}

// ensureLinkUp leaves an enabled interface without any link up.
func ensureLinkUp(tx *storage.Tx, b *storage.InterfaceBundle) error {
	if !b.Interface.Enabled || slices.ContainsFunc(b.Links, func(a storage.IPAddress) bool { return a.AllocType != storage.AllocDiscovered }) {
		return nil
	}
	return tx.InsertIPAddress(&storage.IPAddress{InterfaceID: &b.ID, AllocType: storage.AllocSticky})
}

// UpdateInterface changes an interface.
func (s *Service) UpdateInterface(ctx context.Context, systemID, spec string, in InterfaceInput) (InterfaceView, error) {
	return s.changeInterface(ctx, systemID, spec, whatUpdate, []storage.NodeStatus{storage.StatusDeployed}, func(c *nicChange) error {
		i := c.nic.Interface
		f := &nicForm{form: form{}, in: in, cat: c.cat, all: c.all, old: c.nic, i: &i}
		switch c.node.NodeType {
		case storage.NodeMachine, storage.NodeDevice:
			if err := f.check(c.node.NodeType == storage.NodeMachine && c.node.Status == storage.StatusDeployed); err != nil {
				return err
			}
			if err := f.unique(c.tx, &c.node); err != nil {
				return err
			}
		default: // a controller's interfaces are what it says they are
			if i.Type == nicVLAN {
				return Errorf(Forbidden, "Cannot modify VLAN interface on controller.")
			}
			if f.checkLink(); in.VLAN != nil {
				f.setVLAN()
			}
			if err := f.err(); err != nil {
				return err
			}
		}
		// Another VLAN leaves no link to a subnet that is not on it; an interface that is switched off has none at all.
		moved := c.nic.VLANID != nil && !sameID(i.VLANID, c.nic.VLANID)
		off := c.nic.Interface.Enabled && !i.Enabled
		for _, a := range c.nic.Links {
			onVLAN := a.SubnetID == nil || i.VLANID != nil && c.cat.Subnets[*a.SubnetID] != nil && c.cat.Subnets[*a.SubnetID].VLANID == *i.VLANID
			if moved && !onVLAN || off && a.AllocType != storage.AllocDiscovered {
				if err := c.tx.DeleteIPAddress(a.ID); err != nil {
					return err
				}
			}
		}
		if err := c.save(&i); err != nil {
			return err
		}
		if i.Enabled && !c.nic.Interface.Enabled {
			on := *c.nic
			on.Interface = i
			if err := ensureLinkUp(c.tx, &on); err != nil {
				return err
			}
		}
		return f.adopt(c.tx)
	})
}

// save writes an interface and says who has its MAC address when that is taken.
func (c *nicChange) save(i *storage.Interface) error {
	err := c.tx.Savepoint(func() error { return c.tx.UpdateInterface(i) })
	if !errors.Is(err, storage.ErrConflict) {
		return err
	}
	return nicTaken(c.tx, i)
}

func nicTaken(tx *storage.Tx, i *storage.Interface) error {
	others, err := tx.InterfacesByMAC(i.MACAddress)
	if err != nil {
		return err
	}
	for _, o := range others {
		if o.ID == i.ID || o.Type != nicPhysical {
			continue
		}
		n, err := tx.NodeByID(o.NodeID)
		if err != nil {
			return err
		}
		return FieldError("mac_address", "This MAC address is already in use by %s.", n.Hostname)
	}
	return FieldError("name", "Interface with this Node config and Name already exists.")
}

// DeleteInterface removes an interface with its links, and what stands on nothing but it.
func (s *Service) DeleteInterface(ctx context.Context, systemID, spec string) error {
	_, err := s.changeInterface(ctx, systemID, spec, "delete interface", nil, func(c *nicChange) error {
		if c.node.BootInterfaceID != nil && *c.node.BootInterfaceID == c.nic.ID {
			n := c.node
			n.BootInterfaceID = nil
			if err := c.tx.UpdateNode(&n); err != nil {
				return err
			}
		}
		return removeNIC(c.tx, c.nic)
	})
	return err
}

// removeNIC removes an interface and what stands on nothing but it. What it stood on is up again.
func removeNIC(tx *storage.Tx, b *storage.InterfaceBundle) error {
	for _, a := range b.Above {
		if len(a.Below) == 1 {
			if err := removeNIC(tx, a); err != nil {
				return err
			}
		}
	}
	if err := tx.DeleteInterface(b.ID); err != nil {
		return err
	}
	for _, p := range b.Below {
		p.Above = slices.DeleteFunc(p.Above, func(a *storage.InterfaceBundle) bool { return a.ID == b.ID })
		if b.Type == nicVLAN {
			continue
		}
		if err := ensureLinkUp(tx, p); err != nil {
			return err
		}
	}
	return nil
}

// CreatePhysicalInterface adds a network card to a node.
func (s *Service) CreatePhysicalInterface(ctx context.Context, systemID string, in InterfaceInput) (InterfaceView, error) {
	return s.createInterface(ctx, systemID, nicPhysical, "create", in)
}

// CreateBond puts a bond on interfaces of a machine.
func (s *Service) CreateBond(ctx context.Context, systemID string, in InterfaceInput) (InterfaceView, error) {
	return s.createInterface(ctx, systemID, nicBond, "create bond", in)
}

// CreateBridge puts a bridge on interfaces of a machine. One that is made on an allocated machine lives until its release.
func (s *Service) CreateBridge(ctx context.Context, systemID string, in InterfaceInput) (InterfaceView, error) {
	return s.createInterface(ctx, systemID, nicBridge, "create bridge", in)
}

// CreateVLANInterface puts an interface for a tagged VLAN on one of a machine's interfaces.
func (s *Service) CreateVLANInterface(ctx context.Context, systemID string, in InterfaceInput) (InterfaceView, error) {
	return s.createInterface(ctx, systemID, nicVLAN, "create VLAN", in)
}

func (s *Service) createInterface(ctx context.Context, systemID, kind, what string, in InterfaceInput) (v InterfaceView, err error) {
	if _, err := needUser(ctx); err != nil {
		return v, err
	}
	err = s.write(ctx, func(tx *storage.Tx) error {
		if kind != nicPhysical { // only machines have these
			n, err := tx.Node(systemID)
			if isNotFound(err) || err == nil && n.NodeType != storage.NodeMachine {
				return errNoMachine
			}
			if err != nil {
				return err
			}
		}
		n, err := s.nodeForInterfaces(ctx, tx, systemID, what, nil)
		if err != nil {
			return err
		}
		all, err := loadInterfaces(tx, n)
		if err != nil {
			return err
		}
		i, err := s.insertNIC(tx, &n, all, kind, in)
		if err != nil {
			return err
		}
		if err := tx.BumpNodes([]int64{n.ID}); err != nil {
			return err
		}
		if v, err = loadInterfaces(tx, n); err != nil {
			return err
		}
		v, err = v.one(i.ID)
		return err
	})
	return v, err
}

func (s *Service) insertNIC(tx *storage.Tx, n *storage.Node, all InterfaceView, kind string, in InterfaceInput) (*storage.Interface, error) {
	i := &storage.Interface{NodeID: n.ID, Type: kind, Enabled: true, LinkConnected: true,
		Acquired: kind == nicBridge && n.Status == storage.StatusAllocated}
	for k := len(all.Interfaces); kind == nicPhysical && (in.Name == nil || *in.Name == ""); k++ {
		name := "eth" + strconv.Itoa(k)
		if !slices.ContainsFunc(all.Interfaces, func(b *storage.InterfaceBundle) bool { return b.Name == name }) {
			in.Name = &name
		}
	}
	f := &nicForm{form: form{}, in: in, cat: all.Cat, all: all.Interfaces, i: i}
	if err := f.check(false); err != nil {
		return nil, err
	}
	if err := f.unique(tx, n); err != nil {
		return nil, err
	}
	err := tx.Savepoint(func() error { return tx.InsertInterface(i) })
	if errors.Is(err, storage.ErrConflict) {
		return nil, nicTaken(tx, i)
	}
	if err != nil {
		return nil, err
	}
	if err := f.adopt(tx); err != nil {
		return nil, err
	}
	if kind == nicPhysical {
		return i, s.adoptLease(tx, i)
	}
	return i, ensureLinkUp(tx, &storage.InterfaceBundle{Interface: *i})
}
