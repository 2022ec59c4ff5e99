package provisioner

import (
	"context"
	"slices"
	"strconv"

	"github.com/ingot-metal/ingot/storage"
)

// VLANInput is what a request says of a VLAN: nil leaves a field as it is, and empty text clears a reference.
type VLANInput struct {
	VID           *int64
	Name          *string
	Description   *string
	MTU           *int64
	Space         *string // id, name or specifier; empty and "undefined" clear it
	DHCPOn        *bool
	PrimaryRack   *string // system_id or row id
	SecondaryRack *string
	RelayVLAN     *int64
	ClearRelay    bool
	FabricID      *int64
}

// FindVLAN resolves a VLAN by its row id.
func FindVLAN(c *storage.Catalogue, id int64) (*storage.VLAN, error) {
	if v := c.VLANs[id]; v != nil {
		return v, nil
	}
	return nil, noMatch("VLAN")
}

// FindFabricVLAN resolves a VLAN within a fabric: by its tag, "untagged", or a specifier.
func FindFabricVLAN(c *storage.Catalogue, fabric, vid string) (*storage.VLAN, error) {
	f, err := FindFabric(c, fabric)
	if err != nil {
		return nil, err
	}
	tag, terr := strconv.ParseInt(vid, 10, 64)
	if vid == "untagged" {
		tag, terr = 0, nil
	}
	for _, v := range c.VLANs {
		if v.FabricID != f.ID {
			continue
		}
		if terr == nil && v.VID == tag || terr != nil && (v.Name != nil && *v.Name == vid || vid == "name:"+deref(v.Name, "\x00") ||
			vid == "vid:"+strconv.FormatInt(v.VID, 10) || vid == "id:"+strconv.FormatInt(v.ID, 10)) {
			return v, nil
		}
	}
	return nil, noMatch("VLAN")
}

// defaultVLAN is the VLAN of a fabric with the lowest id.
func defaultVLAN(c *storage.Catalogue, fabricID int64) *storage.VLAN {
	var first *storage.VLAN
	for _, v := range c.VLANs {
		if v.FabricID == fabricID && (first == nil || v.ID < first.ID) {
			first = v
		}
	}
	return first
}

// apply checks the fields and sets them.
func (in VLANInput) apply(tx *storage.Tx, c *storage.Catalogue, v *storage.VLAN) error {
	f := form{}
	create := v.ID == 0
	if in.VID != nil {
		v.VID = *in.VID
	} else if create {
		f.add("vid", msgRequired)
	}
	if v.VID < 0 || v.VID > 4094 || create && in.VID == nil {
		f.add("vid", "VID must be between 0 and 4094.")
	}
	if in.Name != nil {
		if v.Name = in.Name; *in.Name == "" {
			v.Name = nil
		}
		f.text("name", *in.Name, 256, netName)
	}
	if in.Description != nil {
		v.Description = *in.Description
		f.text("description", v.Description, descriptionLimit, nil)
	}
	if in.MTU != nil {
		v.MTU = *in.MTU
		if v.MTU < 552 || v.MTU > 65535 {
			f.add("mtu", "MTU must be between 552 and 65535.")
		}
	}
	if in.FabricID != nil {
		if v.FabricID = *in.FabricID; c.Fabrics[v.FabricID] == nil {
			f.add("fabric", msgNoChoice)
		}
	}
	for _, o := range c.VLANs {
		if o.ID != v.ID && o.FabricID == v.FabricID && o.VID == v.VID && (in.VID != nil || !create) {
			f.add("vid", "A VLAN with the specified VID already exists in the destination fabric.")
			break
		}
	}
	if in.Space != nil {
		if *in.Space == "" || IsUndefinedSpace(*in.Space) {
			v.SpaceID = nil
		} else if sp, err := FindSpace(c, *in.Space); err != nil {
			f.add("space", msgNoChoice)
		} else {
			v.SpaceID = &sp.ID
		}
	}
	if err := in.applyRacks(tx, f, v); err != nil {
		return err
	}
	in.applyDHCP(c, f, v)
	if len(f) > 0 {
		return f.err()
	}
	return checkDHCP(tx, c, v, in.PrimaryRack == nil)
}

func (in VLANInput) applyRacks(tx *storage.Tx, f form, v *storage.VLAN) error {
	if in.PrimaryRack == nil && in.SecondaryRack == nil {
		return nil
	}
	racks, err := tx.ControllerIDs()
	if err != nil {
		return err
	}
	set := func(field string, spec *string, to **int64) {
		if spec == nil {
			return
		}
		if *spec == "" {
			*to = nil
			return
		}
		id, ok := racks[*spec]
		if !ok {
			for _, n := range racks {
				if strconv.FormatInt(n, 10) == *spec {
					id, ok = n, true
				}
			}
		}
		if !ok {
			f.add(field, msgNoChoice)
			return
		}
		*to = &id
	}
	set("primary_rack", in.PrimaryRack, &v.PrimaryRackID)
	set("secondary_rack", in.SecondaryRack, &v.SecondaryRackID)
	if v.PrimaryRackID != nil && v.SecondaryRackID != nil && *v.PrimaryRackID == *v.SecondaryRackID {
		const text = "The primary and secondary rack must be different"
		f.add("primary_rack", text)
		f.add("secondary_rack", text)
	}
	return nil
}

func (in VLANInput) applyDHCP(c *storage.Catalogue, f form, v *storage.VLAN) {
	if in.DHCPOn != nil {
		v.DhcpOn = *in.DHCPOn
	}
	if in.ClearRelay {
		v.RelayVLANID = nil
	}
	if in.RelayVLAN != nil {
		target := c.VLANs[*in.RelayVLAN]
		switch {
		case target == nil:
			f.add("relay_vlan", msgNoChoice)
		case target.ID == v.ID:
			f.add("relay_vlan", "Relay VLAN cannot be the VLAN itself.")
		case target.RelayVLANID != nil:
			f.add("relay_vlan", "'relay_vlan' cannot be set with VLANs already relaying DHCP from other VLANs.")
		case v.DhcpOn && in.DHCPOn != nil:
			f.add("relay_vlan", "'relay_vlan' cannot be set when dhcp is on.")
		default:
			for _, o := range c.VLANs {
				if o.RelayVLANID != nil && v.ID != 0 && *o.RelayVLANID == v.ID {
					f.add("relay_vlan", "'relay_vlan' cannot be set with VLANs already relaying DHCP from other VLANs.")
					break
				}
			}
			v.RelayVLANID, v.DhcpOn = &target.ID, false
		}
	}
	if v.DhcpOn {
		v.RelayVLANID = nil
	}
}

// checkDHCP holds a VLAN that serves DHCP to what it needs: a dynamic range in a subnet of its own, and a rack. When the request
// names no rack, the one that already serves the VLAN becomes the primary one.
func checkDHCP(tx *storage.Tx, c *storage.Catalogue, v *storage.VLAN, adopt bool) error {
	if !v.DhcpOn {
		return nil
	}
	own := []int64{}
	for _, sn := range c.Subnets {
		if v.ID != 0 && sn.VLANID == v.ID {
			own = append(own, sn.ID)
		}
	}
	ranges, err := tx.IPRanges(own)
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(ranges, func(r storage.IPRange) bool { return r.Type == purposeDynamic }) {
		return FieldError("dhcp_on", "dhcp can only be turned on when a dynamic IP range is defined.")
	}
	if v.PrimaryRackID == nil && v.SecondaryRackID == nil && adopt {
		racks, err := tx.RackVLANsOf(v.ID)
		if err != nil {
			return err
		}
		if len(racks) == 0 {
			return FieldError("dhcp_on", "dhcp can only be turned on when a primary rack controller is set.")
		}
		v.PrimaryRackID = &racks[0].RackID
	}
	if v.PrimaryRackID == nil {
		return FieldError("dhcp_on", "dhcp can only be turned on when a primary rack controller is set.")
	}
	return nil
}

// CreateVLAN makes a VLAN in a fabric.
func (s *Service) CreateVLAN(ctx context.Context, fabric string, in VLANInput) (int64, *storage.Catalogue, error) {
	if _, err := needUser(ctx); err != nil {
		return 0, nil, err
	}
	return s.changeNetwork(ctx, func(tx *storage.Tx, c *storage.Catalogue) (int64, error) {
		f, err := FindFabric(c, fabric)
		if err != nil {
			return 0, err
		}
		if _, err := needObjectAdmin(ctx); err != nil {
			return 0, err
		}
		v := storage.VLAN{FabricID: f.ID, MTU: 1500}
		if err := in.apply(tx, c, &v); err != nil {
			return 0, err
		}
		err = tx.InsertVLAN(&v)
		return v.ID, taken("VLAN", "vid", "VID", err)
	})
}

// UpdateVLAN changes a VLAN that find chooses.
func (s *Service) UpdateVLAN(ctx context.Context, find func(*storage.Catalogue) (*storage.VLAN, error), in VLANInput) (int64, *storage.Catalogue, error) {
	if _, err := needUser(ctx); err != nil {
		return 0, nil, err
	}
	return s.changeNetwork(ctx, func(tx *storage.Tx, c *storage.Catalogue) (int64, error) {
		hit, err := find(c)
		if err != nil {
			return 0, err
		}
		if _, err := needObjectAdmin(ctx); err != nil {
			return 0, err
		}
		v, err := tx.VLAN(hit.ID)
		if err != nil {
			return 0, err
		}
		from := v.FabricID
		if err := in.apply(tx, c, &v); err != nil {
			return 0, err
		}
		if d := defaultVLAN(c, from); v.FabricID != from && d != nil && d.ID == v.ID {
			return 0, FieldError("fabric", "This VLAN is the default VLAN in the fabric, it cannot be moved.")
		}
		return v.ID, taken("VLAN", "vid", "VID", tx.UpdateVLAN(&v))
	})
}

// DeleteVLAN removes a VLAN; what is connected to it moves to the fabric's default VLAN.
func (s *Service) DeleteVLAN(ctx context.Context, find func(*storage.Catalogue) (*storage.VLAN, error)) error {
	if _, err := needUser(ctx); err != nil {
		return err
	}
	_, _, err := s.changeNetwork(ctx, func(tx *storage.Tx, c *storage.Catalogue) (int64, error) {
		v, err := find(c)
		if err != nil {
			return 0, err
		}
		if _, err := needObjectAdmin(ctx); err != nil {
			return 0, err
		}
		d := defaultVLAN(c, v.FabricID)
		if d == nil || d.ID == v.ID {
			return 0, Errorf(Invalid, "This VLAN is the default VLAN in the fabric, it cannot be deleted.")
		}
		nodes, err := tx.VLANNodes(v.ID)
		if err != nil {
			return 0, err
		}
		if err := tx.BumpNodes(nodes); err != nil {
			return 0, err
		}
		return 0, tx.DeleteVLAN(v.ID, d.ID)
	})
	return err
}
