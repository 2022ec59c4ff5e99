package provisioner

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/ingot-metal/ingot/storage"
)

// InterfaceView is the interfaces of one node, with what their rendering refers to.
type InterfaceView struct {
	SystemID   string
	Interfaces []*storage.InterfaceBundle
	Cat        *storage.Catalogue
}

// one returns the interface with an id.
func (v InterfaceView) one(id int64) (InterfaceView, error) {
	for _, b := range v.Interfaces {
		if b.ID == id {
			v.Interfaces = []*storage.InterfaceBundle{b}
			return v, nil
		}
	}
	return v, noMatch("Interface")
}

// find resolves a path element: the id, name:x, mac:x or the name.
func (v InterfaceView) find(spec string) (InterfaceView, error) {
	if id, err := strconv.ParseInt(strings.TrimPrefix(spec, "id:"), 10, 64); err == nil {
		return v.one(id)
	}
	name := strings.TrimPrefix(spec, "name:")
	for _, b := range v.Interfaces {
		if b.Name == name {
			return v.one(b.ID)
		}
	}
	return v, noMatch("Interface")
}

func loadInterfaces(tx *storage.Tx, n storage.Node) (InterfaceView, error) {
	v := InterfaceView{SystemID: n.SystemID}
	all, err := tx.InterfaceBundles([]int64{n.ID})
	if err != nil {
		return v, err
	}
	v.Interfaces = all[n.ID]
	v.Cat, err = tx.LoadCatalogue()
	return v, err
}

// readInterfaces loads the interfaces of a node that the caller may see.
func (s *Service) readInterfaces(ctx context.Context, systemID string) (v InterfaceView, err error) {
	if _, err := needUser(ctx); err != nil {
		return v, err
	}
	err = s.DB.Read(ctx, func(tx *storage.Tx) error {
		n, err := tx.Node(systemID)
		if err != nil {
			return found("Node", err)
		}
		if err := checkPerm(ctx, &n, permView); err != nil {
			return err
		}
		v, err = loadInterfaces(tx, n)
		return err
	})
	return v, err
}

// Interfaces returns all interfaces of a node.
func (s *Service) Interfaces(ctx context.Context, systemID string) (InterfaceView, error) {
	return s.readInterfaces(ctx, systemID)
}

// Interface returns one interface of a node, by id or name.
func (s *Service) Interface(ctx context.Context, systemID, spec string) (InterfaceView, error) {
	v, err := s.readInterfaces(ctx, systemID)
	if err != nil {
		return v, err
	}
	return v.find(spec)
}

// nicStates are the states in which a machine's network may be changed.
var nicStates = []storage.NodeStatus{storage.StatusNew, storage.StatusReady, storage.StatusFailedTesting, storage.StatusAllocated, storage.StatusBroken}

// nicChange is an interface under change, in its transaction.
type nicChange struct {
	tx   *storage.Tx
	node storage.Node
	nic  *storage.InterfaceBundle
	cat  *storage.Catalogue
}

// changeInterface runs fn on an interface that the caller may change, and returns it as it is then. what completes the sentence
// of a refusal, as MAAS says it: "Cannot <what> interface because …".
func (s *Service) changeInterface(ctx context.Context, systemID, spec, what string, more []storage.NodeStatus, fn func(c *nicChange) error) (v InterfaceView, err error) {
	if _, err := needUser(ctx); err != nil {
		return v, err
	}
	err = s.write(ctx, func(tx *storage.Tx) error {
		n, err := s.nodeForInterfaces(ctx, tx, systemID, what, more)
		if err != nil {
			return err
		}
		all, err := loadInterfaces(tx, n)
		if err != nil {
			return err
		}
		hit, err := all.find(spec)
		if err != nil {
			return err
		}
		nic := hit.Interfaces[0]
		if err := fn(&nicChange{tx: tx, node: n, nic: nic, cat: all.Cat}); err != nil {
			return err
		}
		if err := tx.BumpNodes([]int64{n.ID}); err != nil {
			return err
		}
		if v, err = loadInterfaces(tx, n); err != nil {
			return err
		}
		if one, err := v.one(nic.ID); err == nil {
			v = one
		}
		return nil
	})
	return v, err
}

// nodeForInterfaces reads a node whose interfaces the caller is about to change.
func (s *Service) nodeForInterfaces(ctx context.Context, tx *storage.Tx, systemID, what string, more []storage.NodeStatus) (storage.Node, error) {
	n, err := tx.LockNodeBySystemID(systemID)
	if err != nil {
		return n, found("Node", err)
	}
	switch n.NodeType {
	case storage.NodeMachine:
		if err := checkPerm(ctx, &n, permAdmin); err != nil {
			return n, err
		}
		if !slices.Contains(nicStates, n.Status) && !slices.Contains(more, n.Status) {
			return n, Errorf(Conflict, "Cannot %s interface because the machine is not New, Ready, Allocated, or Broken.", what)
		}
	case storage.NodeDevice:
		if err := checkPerm(ctx, &n, permEdit); err != nil {
			return n, err
		}
	default:
		if _, err := needObjectAdmin(ctx); err != nil {
			return n, err
		}
		return n, Errorf(Forbidden, "Cannot %s interface on a controller.", what)
	}
	return n, nil
}

// LinkInput is what link_subnet is asked for.
type LinkInput struct {
	Mode           string
	Subnet         *string // id or specifier
	IPAddress      *string
	Force          bool
	DefaultGateway bool
}

// LinkSubnet connects an interface to a subnet.
func (s *Service) LinkSubnet(ctx context.Context, systemID, spec string, in LinkInput) (InterfaceView, error) {
	return s.changeInterface(ctx, systemID, spec, "link subnet", nil, func(c *nicChange) error { return c.link(in) })
}

func (c *nicChange) link(in LinkInput) error {
	f := form{}
	mode := strings.ToLower(in.Mode)
	switch mode {
	case "auto", "dhcp", "static", "link_up":
	case "":
		f.add("mode", msgRequired)
	default:
		f.add("mode", msgChoice(in.Mode))
	}
	if c.node.NodeType == storage.NodeDevice && mode != "static" && mode != "" {
		f.add("mode", "Devices can only be linked in static mode.")
	}
	var sn *storage.Subnet
	if in.Subnet != nil && *in.Subnet != "" {
		var err error
		if sn, err = FindSubnet(c.cat, *in.Subnet); err != nil {
			f.add("subnet", msgNoChoice)
		}
	} else if mode == "auto" || mode == "static" {
		f.add("subnet", msgRequired)
	}
	var others []storage.IPAddress // configured links
	for _, a := range c.nic.Links {
		if a.AllocType != storage.AllocDiscovered {
			others = append(others, a)
		}
	}
	connected := slices.ContainsFunc(others, func(a storage.IPAddress) bool { return a.SubnetID != nil })
	if sn != nil && !in.Force && c.nic.VLANID != nil && *c.nic.VLANID != sn.VLANID && connected {
		f.add("subnet", msgNoChoice) // the choices are the subnets of the interface's VLAN
	}
	switch mode {
	case "link_up":
		if !in.Force && slices.ContainsFunc(others, func(a storage.IPAddress) bool { return a.AllocType != storage.AllocSticky || a.IP.IsValid() }) {
			f.add("mode", "Cannot configure interface to link up (with no IP address) while other links are already configured. "+
				"Specify force=True to override this behaviour and delete all links.")
		}
	case "dhcp":
		for _, a := range others {
			if a.AllocType == storage.AllocDHCP && !in.Force && sn == nil && a.SubnetID != nil {
				f.add("mode", "Interface is already set to DHCP from '%s'.", c.cidr(*a.SubnetID))
			}
		}
	}
	if in.DefaultGateway {
		switch {
		case mode == "dhcp" || mode == "link_up":
			f.add("default_gateway", "Cannot use in mode '%s'.", in.Mode)
		case sn != nil && sn.GatewayIP == nil:
			f.add("default_gateway", "Cannot set as default gateway because subnet '%s' doesn't provide a gateway.", sn.Name)
		}
	}
	if in.IPAddress != nil && *in.IPAddress != "" && mode != "static" && mode != "" {
		f.add("ip_address", "Cannot be used in mode '%s'.", in.Mode)
	}
	if slices.ContainsFunc(c.nic.Children, func(name string) bool { return strings.HasPrefix(name, "bond") }) {
		f.add("bond", fmt.Sprintf("Cannot link interface(%s) when interface is in a bond.", c.nic.Name))
	}
	if len(f) > 0 {
		return f.err()
	}
	return c.applyLink(mode, sn, in, others)
}

func (c *nicChange) cidr(subnetID int64) string {
	if sn := c.cat.Subnets[subnetID]; sn != nil {
		return sn.CIDR
	}
	return strconv.FormatInt(subnetID, 10)
}

func (c *nicChange) applyLink(mode string, sn *storage.Subnet, in LinkInput, others []storage.IPAddress) error {
	v6 := sn != nil && sn.FirstIP.Is6()
	for _, a := range others {
		linkUp := a.AllocType == storage.AllocSticky && !a.IP.IsValid()
		sameFamily := a.SubnetID == nil || sn == nil || c.cat.Subnets[*a.SubnetID] == nil || c.cat.Subnets[*a.SubnetID].FirstIP.Is6() == v6
		if in.Force || mode == "link_up" || linkUp || a.AllocType == storage.AllocDHCP && sameFamily {
			if err := c.tx.DeleteIPAddress(a.ID); err != nil {
				return err
			}
		}
	}
	link := storage.IPAddress{InterfaceID: &c.nic.ID}
	if sn != nil {
		link.SubnetID = &sn.ID
		if c.nic.VLANID == nil || *c.nic.VLANID != sn.VLANID {
			c.nic.VLANID = &sn.VLANID
			if err := c.tx.UpdateInterface(&c.nic.Interface); err != nil {
				return err
			}
		}
	}
	switch mode {
	case "auto":
		link.AllocType = storage.AllocAuto
	case "dhcp":
		link.AllocType = storage.AllocDHCP
	case "link_up":
		link.AllocType = storage.AllocSticky
	case "static":
		link.AllocType = storage.AllocSticky
		ip, err := c.staticIP(sn, in.IPAddress)
		if err != nil {
			return err
		}
		link.IP = ip
	}
	if in.DefaultGateway {
		if err := c.dropGateway(v6); err != nil {
			return err
		}
		link.DefaultGateway = true
	}
	err := c.tx.InsertIPAddress(&link)
	if errors.Is(err, storage.ErrConflict) {
		return FieldError("ip_address", "IP address is already in use.")
	}
	return err
}

// staticIP checks the address that was asked for, or picks one.
func (c *nicChange) staticIP(sn *storage.Subnet, asked *string) (netip.Addr, error) {
	if asked == nil || *asked == "" {
		return pickAddress(c.tx, sn.ID)
	}
	ip, err := netip.ParseAddr(*asked)
	if err != nil || ip.Zone() != "" {
		return ip, fieldErr("ip_address", msgIP)
	}
	ip = ip.Unmap()
	if err := c.tx.LockSubnets([]int64{sn.ID}); err != nil {
		return ip, err
	}
	uses, err := loadSubnetUse(c.tx, []int64{sn.ID})
	if err != nil {
		return ip, err
	}
	u := uses[sn.ID]
	hosts := hostSpan(u.prefix)
	switch {
	case !u.prefix.Contains(ip):
		return ip, FieldError("ip_address", "IP address is not in the given subnet '%s'.", sn.CIDR)
	case ip.Less(hosts.first) || hosts.last.Less(ip):
		return ip, FieldError("ip_address", "IP address is the network or broadcast address of subnet '%s'.", sn.CIDR)
	case u.dynamicHas(ip):
		return ip, FieldError("ip_address", "IP address is inside a dynamic range of subnet '%s'.", sn.CIDR)
	case sn.GatewayIP != nil && *sn.GatewayIP == ip.String():
		return ip, FieldError("ip_address", "IP address is the gateway of subnet '%s'.", sn.CIDR)
	case slices.Contains(u.held, ip):
		return ip, FieldError("ip_address", "IP address is already in use.")
	}
	return ip, nil
}

// dropGateway takes the mark of the default gateway from the node's links of a family.
func (c *nicChange) dropGateway(v6 bool) error {
	links, err := c.tx.IPAddressesOf([]int64{c.node.ID})
	if err != nil {
		return err
	}
	for _, a := range links {
		if !a.DefaultGateway || a.SubnetID == nil {
			continue
		}
		if sn := c.cat.Subnets[*a.SubnetID]; sn != nil && sn.FirstIP.Is6() == v6 {
			a.DefaultGateway = false
			if err := c.tx.UpdateIPAddress(&a); err != nil {
				return err
			}
		}
	}
	return nil
}

// UnlinkSubnet removes a link by its id. The last link of an enabled interface leaves "link up" behind.
func (s *Service) UnlinkSubnet(ctx context.Context, systemID, spec string, linkID int64) (InterfaceView, error) {
	return s.changeInterface(ctx, systemID, spec, "unlink subnet", nil, func(c *nicChange) error {
		left := 0
		var hit *storage.IPAddress
		for i, a := range c.nic.Links {
			switch {
			case a.AllocType == storage.AllocDiscovered:
			case a.ID == linkID:
				hit = &c.nic.Links[i]
			default:
				left++
			}
		}
		if hit == nil {
			return fieldErr("id", msgChoice(strconv.FormatInt(linkID, 10)))
		}
		if err := c.tx.DeleteIPAddress(hit.ID); err != nil {
			return err
		}
		if left > 0 || !c.nic.Interface.Enabled {
			return nil
		}
		return c.linkUp()
	})
}

// linkUp leaves an interface configured but without an address.
func (c *nicChange) linkUp() error {
	return c.tx.InsertIPAddress(&storage.IPAddress{InterfaceID: &c.nic.ID, AllocType: storage.AllocSticky})
}

// DisconnectInterface removes all links of an interface and takes it off its VLAN.
func (s *Service) DisconnectInterface(ctx context.Context, systemID, spec string) (InterfaceView, error) {
	return s.changeInterface(ctx, systemID, spec, "disconnect", nil, func(c *nicChange) error {
		for _, a := range c.nic.Links {
			if err := c.tx.DeleteIPAddress(a.ID); err != nil {
				return err
			}
		}
		c.nic.VLANID = nil
		return c.tx.UpdateInterface(&c.nic.Interface)
	})
}

// SetDefaultGateway sends a node's default route through a link of this interface.
func (s *Service) SetDefaultGateway(ctx context.Context, systemID, spec string, linkID *int64) (InterfaceView, error) {
	return s.changeInterface(ctx, systemID, spec, "set default gateway", nil, func(c *nicChange) error {
		var usable []storage.IPAddress
		for _, a := range c.nic.Links {
			if (a.AllocType == storage.AllocAuto || a.AllocType == storage.AllocSticky) && a.SubnetID != nil &&
				c.cat.Subnets[*a.SubnetID] != nil && c.cat.Subnets[*a.SubnetID].GatewayIP != nil {
				usable = append(usable, a)
			}
		}
		if len(usable) == 0 {
			return FieldError("__all__", "This interface has no usable gateways.")
		}
		if linkID != nil {
			i := slices.IndexFunc(usable, func(a storage.IPAddress) bool { return a.ID == *linkID })
			if i < 0 {
				return fieldErr("link_id", msgChoice(strconv.FormatInt(*linkID, 10)))
			}
			usable = usable[i : i+1]
		}
		family := func(a storage.IPAddress) bool { return c.cat.Subnets[*a.SubnetID].FirstIP.Is6() }
		for i, a := range usable {
			if slices.ContainsFunc(usable[:i], func(o storage.IPAddress) bool { return family(o) == family(a) }) {
				return FieldError("link_id", "This field is required; Interface has more than one usable gateway.")
			}
		}
		for _, a := range usable {
			if err := c.dropGateway(family(a)); err != nil {
				return err
			}
			a.DefaultGateway = true
			if err := c.tx.UpdateIPAddress(&a); err != nil {
				return err
			}
		}
		return nil
	})
}

// ClearDefaultGateways forgets which links a machine's default routes go through.
func (s *Service) ClearDefaultGateways(ctx context.Context, systemID string) (*storage.Bundle, error) {
	return s.changeMachine(ctx, systemID, permAdmin, func(tx *storage.Tx, n *storage.Node) error {
		if !slices.Contains(nicStates, n.Status) {
			return Errorf(Conflict, "Cannot clear default gateways because the machine is not New, Ready, Allocated, or Broken.")
		}
		links, err := tx.IPAddressesOf([]int64{n.ID})
		if err != nil {
			return err
		}
		for _, a := range links {
			if a.DefaultGateway {
				a.DefaultGateway = false
				if err := tx.UpdateIPAddress(&a); err != nil {
					return err
				}
			}
		}
		return tx.BumpNodes([]int64{n.ID})
	})
}

// TagInterface adds a tag to an interface, or removes it.
func (s *Service) TagInterface(ctx context.Context, systemID, spec, tag string, add bool) (InterfaceView, error) {
	what := "remove tag from"
	if add {
		what = "add tag to"
	}
	return s.changeInterface(ctx, systemID, spec, what, []storage.NodeStatus{storage.StatusDeployed}, func(c *nicChange) error {
		f := form{}
		if tag == "" {
			f.add("tag", msgRequired)
		}
		if f.text("tag", tag, 256, nil); len(f) > 0 {
			return f.err()
		}
		has := slices.Contains(c.nic.Tags, tag)
		if add && !has {
			c.nic.Tags = append(c.nic.Tags, tag)
		}
		if !add {
			c.nic.Tags = slices.DeleteFunc(c.nic.Tags, func(t string) bool { return t == tag })
		}
		return c.tx.UpdateInterface(&c.nic.Interface)
	})
}

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
}

var nicName = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.:@-]*$`)

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

// apply checks the fields and sets them. Of a deployed machine only what describes the hardware changes.
func (in InterfaceInput) apply(c *storage.Catalogue, i *storage.Interface, deployed bool) error {
	f := form{}
	if in.Name != nil {
		i.Name = *in.Name
	}
	if i.Name == "" {
		f.add("name", msgRequired)
	}
	f.text("name", i.Name, 255, nicName)
	if in.MACAddress != nil {
		mac, ok := NormalMAC(*in.MACAddress)
		switch {
		case *in.MACAddress == "":
			f.add("mac_address", msgRequired)
		case !ok:
			f.add("mac_address", "'%s' is not a valid MAC address.", *in.MACAddress)
		default:
			i.MACAddress = mac
		}
	}
	i.LinkConnected = deref(in.LinkConnected, i.LinkConnected)
	speed := func(field string, v *int64, to *int64) {
		if v == nil {
			return
		}
		if *v < 0 {
			f.add(field, "Ensure this value is greater than or equal to 0.")
		}
		*to = *v
	}
	speed("interface_speed", in.InterfaceSpeed, &i.InterfaceSpeed)
	speed("link_speed", in.LinkSpeed, &i.LinkSpeed)
	if !i.LinkConnected {
		if in.LinkSpeed != nil && *in.LinkSpeed > 0 {
			f.add("link_speed", "Cannot set link_speed when link_connected is False.")
		}
		i.LinkSpeed = 0
	}
	if i.InterfaceSpeed > 0 && i.LinkSpeed > i.InterfaceSpeed {
		f.add("link_speed", "Link speed should not exceed interface speed.")
	}
	if !deployed {
		in.applyConfig(c, f, i)
	}
	return f.err()
}

func (in InterfaceInput) applyConfig(c *storage.Catalogue, f form, i *storage.Interface) {
	if in.Tags != nil {
		i.Tags = splitList(in.Tags)
		for _, t := range i.Tags {
			f.text("tags", t, 256, nil)
		}
	}
	if in.VLAN != nil {
		if *in.VLAN == "" {
			i.VLANID = nil
		} else if v := findAnyVLAN(c, *in.VLAN); v == nil {
			f.add("vlan", msgNoChoice)
		} else {
			i.VLANID = &v.ID
		}
	}
	i.Enabled = deref(in.Enabled, i.Enabled)
	if in.NUMANode != nil {
		if i.NUMANode = in.NUMANode; *in.NUMANode < 0 {
			f.add("numa_node", msgNoChoice)
		}
	}
	params := map[string]any{}
	if len(i.Params) > 0 {
		_ = json.Unmarshal(i.Params, &params) // the store holds nothing but objects
	}
	if in.ClearMTU {
		delete(params, "mtu")
	}
	if in.MTU != nil {
		if *in.MTU < 552 || *in.MTU > 65535 {
			f.add("mtu", "Ensure this value is greater than or equal to 552.")
		}
		params["mtu"] = *in.MTU
	}
	if in.AcceptRA != nil {
		params["accept-ra"] = *in.AcceptRA
	}
	if b, err := json.Marshal(params); err == nil {
		i.Params = b
	}
}

// UpdateInterface changes an interface.
func (s *Service) UpdateInterface(ctx context.Context, systemID, spec string, in InterfaceInput) (InterfaceView, error) {
	return s.changeInterface(ctx, systemID, spec, "update", []storage.NodeStatus{storage.StatusDeployed}, func(c *nicChange) error {
		i := c.nic.Interface
		if err := in.apply(c.cat, &i, c.node.Status == storage.StatusDeployed); err != nil {
			return err
		}
		// Another VLAN leaves no link to a subnet that is not on it.
		if c.nic.VLANID != nil && (i.VLANID == nil || *i.VLANID != *c.nic.VLANID) {
			for _, a := range c.nic.Links {
				if a.SubnetID == nil || i.VLANID != nil && c.cat.Subnets[*a.SubnetID] != nil && c.cat.Subnets[*a.SubnetID].VLANID == *i.VLANID {
					continue
				}
				if err := c.tx.DeleteIPAddress(a.ID); err != nil {
					return err
				}
			}
		}
		return c.save(&i)
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
		if o.ID == i.ID || o.Type != "physical" {
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

// DeleteInterface removes an interface with its links.
func (s *Service) DeleteInterface(ctx context.Context, systemID, spec string) error {
	_, err := s.changeInterface(ctx, systemID, spec, "delete", nil, func(c *nicChange) error {
		if c.node.BootInterfaceID != nil && *c.node.BootInterfaceID == c.nic.ID {
			n := c.node
			n.BootInterfaceID = nil
			if err := c.tx.UpdateNode(&n); err != nil {
				return err
			}
		}
		return c.tx.DeleteInterface(c.nic.ID)
	})
	return err
}

// CreatePhysicalInterface adds a network card to a node.
func (s *Service) CreatePhysicalInterface(ctx context.Context, systemID string, in InterfaceInput) (v InterfaceView, err error) {
	if _, err := needUser(ctx); err != nil {
		return v, err
	}
	err = s.write(ctx, func(tx *storage.Tx) error {
		n, err := s.nodeForInterfaces(ctx, tx, systemID, "create", nil)
		if err != nil {
			return err
		}
		all, err := loadInterfaces(tx, n)
		if err != nil {
			return err
		}
		i := storage.Interface{NodeID: n.ID, Type: "physical", Enabled: true, LinkConnected: true}
		for k := len(all.Interfaces); in.Name == nil || *in.Name == ""; k++ {
			name := "eth" + strconv.Itoa(k)
			if !slices.ContainsFunc(all.Interfaces, func(b *storage.InterfaceBundle) bool { return b.Name == name }) {
				in.Name = &name
			}
		}
		if in.MACAddress == nil {
			none := ""
			in.MACAddress = &none
		}
		if err := in.apply(all.Cat, &i, false); err != nil {
			return err
		}
		err = tx.Savepoint(func() error { return tx.InsertInterface(&i) })
		if errors.Is(err, storage.ErrConflict) {
			return nicTaken(tx, &i)
		}
		if err != nil {
			return err
		}
		if err := s.adoptLease(tx, &i); err != nil {
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
