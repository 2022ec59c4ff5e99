package provisioner

import (
	"context"
	"errors"
	"net/netip"
	"slices"

	"github.com/ingot-metal/ingot/storage"
)

// ReservedIPInput is what a request says of a reserved IP; nil was not given.
type ReservedIPInput struct {
	IP      *string
	MAC     *string
	Subnet  *string
	Comment *string
}

// ReservedBook is reserved IPs with what their rendering refers to.
type ReservedBook struct {
	IPs []storage.ReservedIP
	Cat *storage.Catalogue
}

// ReservedIPs returns all reserved IPs.
func (s *Service) ReservedIPs(ctx context.Context) (b ReservedBook, err error) {
	return s.readReserved(ctx, func(tx *storage.Tx) ([]storage.ReservedIP, error) { return tx.ReservedIPs(nil) })
}

// ReservedIP returns one.
func (s *Service) ReservedIP(ctx context.Context, id int64) (ReservedBook, error) {
	return s.readReserved(ctx, func(tx *storage.Tx) ([]storage.ReservedIP, error) {
		x, err := tx.ReservedIP(id)
		return []storage.ReservedIP{x}, found("ReservedIP", err)
	})
}

func (s *Service) readReserved(ctx context.Context, fn func(tx *storage.Tx) ([]storage.ReservedIP, error)) (b ReservedBook, err error) {
	if _, err := needUser(ctx); err != nil {
		return b, err
	}
	err = s.DB.Read(ctx, func(tx *storage.Tx) (err error) {
		if b.IPs, err = fn(tx); err != nil {
			return err
		}
		b.Cat, err = tx.LoadCatalogue()
		return err
	})
	return b, err
}

// CreateReservedIP keeps an address for a MAC address.
func (s *Service) CreateReservedIP(ctx context.Context, in ReservedIPInput) (b ReservedBook, err error) {
	if _, err := needPermission(ctx, "can_edit_global_entities"); err != nil {
		return b, err
	}
	err = s.DB.Write(ctx, func(tx *storage.Tx) error {
		if b.Cat, err = tx.LoadCatalogue(); err != nil {
			return err
		}
		x, err := in.check(tx, b.Cat)
		if err != nil {
			return err
		}
		err = tx.Savepoint(func() error { return tx.InsertReservedIP(&x) })
		if errors.Is(err, storage.ErrConflict) {
			return in.conflict(tx, x)
		}
		if err != nil {
			return err
		}
		b.IPs = []storage.ReservedIP{x}
		_, err = tx.Revision()
		return err
	})
	return b, err
}

func (in ReservedIPInput) conflict(tx *storage.Tx, x storage.ReservedIP) error {
	others, err := tx.ReservedIPs(nil)
	if err != nil {
		return err
	}
	if slices.ContainsFunc(others, func(o storage.ReservedIP) bool { return o.IP == x.IP }) {
		return FieldError("ip", "Reserved IP with this IP address already exists.")
	}
	return FieldError("__all__", "Reserved IP with this MAC address and Subnet already exists.")
}

// check makes the reservation that a request asks for.
func (in ReservedIPInput) check(tx *storage.Tx, c *storage.Catalogue) (x storage.ReservedIP, err error) {
	f := form{}
	if in.IP == nil || *in.IP == "" {
		f.add("ip", msgRequired)
	} else if a, err := netip.ParseAddr(*in.IP); err != nil || a.Zone() != "" {
		f.add("ip", msgIP)
	} else {
		x.IP = a.Unmap()
	}
	if in.MAC == nil || *in.MAC == "" {
		f.add("mac_address", msgRequired)
	} else if mac, ok := NormalMAC(*in.MAC); !ok {
		f.add("mac_address", "'%s' is not a valid MAC address.", *in.MAC)
	} else {
		x.MAC = mac
	}
	x.Comment = deref(in.Comment, "")
	f.text("comment", x.Comment, 255, nil)
	var sn *storage.Subnet
	if in.Subnet != nil && *in.Subnet != "" {
		if sn, err = FindSubnet(c, *in.Subnet); err != nil {
			f.add("subnet", msgNoChoice)
		}
	} else if x.IP.IsValid() {
		if sn = c.SubnetOf(x.IP); sn == nil {
			f.add("subnet", "There is no suitable subnet for the IP provided.")
		}
	}
	if len(f) > 0 {
		return x, f.err()
	}
	x.SubnetID = sn.ID
	if err := tx.LockSubnets([]int64{sn.ID}); err != nil {
		return x, err
	}
	uses, err := loadSubnetUse(tx, []int64{sn.ID})
	if err != nil {
		return x, err
	}
	u := uses[sn.ID]
	whole, hosts := prefixSpan(u.prefix), hostSpan(u.prefix)
	switch {
	case !u.prefix.Contains(x.IP):
		return x, FieldError("ip", "The provided IP is not part of the subnet.")
	case x.IP == whole.first && hosts.first != whole.first:
		return x, FieldError("ip", "The network address cannot be a reserved IP.")
	case x.IP == whole.last && hosts.last != whole.last:
		return x, FieldError("ip", "The broadcast address cannot be a reserved IP.")
	case u.dynamicHas(x.IP):
		return x, FieldError("ip", "The reserved IP %s must be outside the dynamic range.", x.IP)
	case sn.GatewayIP != nil && *sn.GatewayIP == x.IP.String():
		return x, FieldError("ip", "The reserved IP %s is the gateway of the subnet.", x.IP)
	}
	return x, in.free(tx, x)
}

// free refuses an address that somebody else has already.
func (in ReservedIPInput) free(tx *storage.Tx, x storage.ReservedIP) error {
	held, err := tx.AddressesBetween(x.IP, x.IP)
	if err != nil {
		return err
	}
	for _, a := range held {
		if a.AllocType == storage.AllocDiscovered {
			continue
		}
		mac := a.MAC
		if a.InterfaceID != nil {
			nic, err := tx.Interface(*a.InterfaceID)
			if err != nil {
				return err
			}
			mac = nic.MACAddress
		}
		if mac != x.MAC {
			return FieldError("ip", "The IP %s is already in use by another machine.", x.IP)
		}
	}
	return nil
}

// UpdateReservedIP changes the comment of a reserved IP: what else the request says must be as it is.
func (s *Service) UpdateReservedIP(ctx context.Context, id int64, in ReservedIPInput) (b ReservedBook, err error) {
	if _, err := needPermission(ctx, "can_edit_global_entities"); err != nil {
		return b, err
	}
	err = s.DB.Write(ctx, func(tx *storage.Tx) error {
		x, err := tx.ReservedIP(id)
		if err != nil {
			return found("ReservedIP", err)
		}
		f := form{}
		if in.IP != nil {
			if a, err := netip.ParseAddr(*in.IP); err != nil || a.Unmap() != x.IP {
				f.add("ip", "The ip of a reserved IP is immutable.")
			}
		}
		if in.MAC != nil {
			if mac, ok := NormalMAC(*in.MAC); !ok || mac != x.MAC {
				f.add("mac_address", "The mac_address of a reserved IP is immutable.")
			}
		}
		if in.Subnet != nil {
			f.add("subnet", "The subnet of a reserved IP is immutable.")
		}
		x.Comment = deref(in.Comment, x.Comment)
		f.text("comment", x.Comment, 255, nil)
		if len(f) > 0 {
			return f.err()
		}
		if err := tx.UpdateReservedIP(&x); err != nil {
			return err
		}
		b.IPs = []storage.ReservedIP{x}
		b.Cat, err = tx.LoadCatalogue()
		return err
	})
	return b, err
}

// DeleteReservedIP gives the address free.
func (s *Service) DeleteReservedIP(ctx context.Context, id int64) error {
	if _, err := needPermission(ctx, "can_edit_global_entities"); err != nil {
		return err
	}
	return s.DB.Write(ctx, func(tx *storage.Tx) error {
		if err := tx.DeleteReservedIP(id); err != nil {
			return found("ReservedIP", err)
		}
		_, err := tx.Revision()
		return err
	})
}
