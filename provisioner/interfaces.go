package provisioner

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
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
	all  []*storage.InterfaceBundle // of the node
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
		if err := fn(&nicChange{tx: tx, node: n, nic: nic, all: all.Interfaces, cat: all.Cat}); err != nil {
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
		if what == whatUpdate || what == whatAddTag || what == whatRemoveTag {
			return n, nil
		}
		return n, Errorf(Forbidden, "Cannot %s interface on a controller.", what)
	}
	return n, nil
}

// What is done to an interface, as refusals say it: "Cannot update interface because …".
const (
	whatUpdate    = "update"
	whatAddTag    = "add tag to"
	whatRemoveTag = "remove tag from"
)

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
	if slices.ContainsFunc(c.nic.Above, func(b *storage.InterfaceBundle) bool { return b.Type == nicBond }) {
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

// staticIP checks the address that was asked for, or picks one. What is reserved for this interface's MAC address is the one to take,
// and what is reserved for another's is not to be had.
func (c *nicChange) staticIP(sn *storage.Subnet, asked *string) (netip.Addr, error) {
	if err := c.tx.LockSubnets([]int64{sn.ID}); err != nil {
		return netip.Addr{}, err
	}
	uses, err := loadSubnetUse(c.tx, []int64{sn.ID})
	if err != nil {
		return netip.Addr{}, err
	}
	u := uses[sn.ID]
	mine, kept := u.keptFor(c.nic.MACAddress)
	if asked == nil || *asked == "" {
		if kept && !slices.Contains(u.held, mine) {
			return mine, nil
		}
		ip, ok := u.pick()
		if !ok {
			return ip, exhausted(u.subnet)
		}
		return ip, nil
	}
	ip, err := netip.ParseAddr(*asked)
	if err != nil || ip.Zone() != "" {
		return ip, fieldErr("ip_address", msgIP)
	}
	ip = ip.Unmap()
	if kept && ip != mine {
		return ip, FieldError("ip_address", "The MAC address %s has the reserved IP %s in this subnet.", c.nic.MACAddress, mine)
	}
	if text := u.refuse(ip); text != "" {
		return ip, FieldError("ip_address", "%s", text)
	}
	if mac, ok := u.kept[ip]; ok && mac != c.nic.MACAddress {
		return ip, FieldError("ip_address", "IP address is reserved for another MAC address.")
	}
	if slices.Contains(u.held, ip) {
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
	what := whatRemoveTag
	if add {
		what = whatAddTag
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
