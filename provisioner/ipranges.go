package provisioner

import (
	"context"
	"net/netip"

	"github.com/ingot-metal/ingot/storage"
)

// IPRangeInput is what a request says of an IP range: nil leaves a field as it is.
type IPRangeInput struct {
	Type     *string
	StartIP  *string
	EndIP    *string
	SubnetID *int64
	Comment  *string
	User     *string // name; on creation it is always the caller
}

// IPRangeView is a range with its owner.
type IPRangeView struct {
	storage.IPRange
	Owner *storage.User
}

// RangeBook is ranges with what their rendering refers to.
type RangeBook struct {
	Ranges []IPRangeView
	Cat    *storage.Catalogue
}

func loadRanges(tx *storage.Tx, ranges []storage.IPRange) (RangeBook, error) {
	c, err := tx.LoadCatalogue()
	if err != nil {
		return RangeBook{}, err
	}
	users, err := tx.Users()
	if err != nil {
		return RangeBook{}, err
	}
	byID := map[int64]*storage.User{}
	for i := range users {
		byID[users[i].ID] = &users[i]
	}
	b := RangeBook{Cat: c}
	for _, r := range ranges {
		v := IPRangeView{IPRange: r}
		if r.UserID != nil {
			v.Owner = byID[*r.UserID]
		}
		b.Ranges = append(b.Ranges, v)
	}
	return b, nil
}

// IPRanges returns all ranges.
func (s *Service) IPRanges(ctx context.Context) (b RangeBook, err error) {
	if _, err := needUser(ctx); err != nil {
		return b, err
	}
	err = s.DB.Read(ctx, func(tx *storage.Tx) error {
		ranges, err := tx.IPRanges(nil)
		if err != nil {
			return err
		}
		b, err = loadRanges(tx, ranges)
		return err
	})
	return b, err
}

// IPRange returns a range.
func (s *Service) IPRange(ctx context.Context, id int64) (b RangeBook, err error) {
	if _, err := needUser(ctx); err != nil {
		return b, err
	}
	err = s.DB.Read(ctx, func(tx *storage.Tx) error {
		r, err := tx.IPRange(id)
		if err != nil {
			return found("IPRange", err)
		}
		b, err = loadRanges(tx, []storage.IPRange{r})
		return err
	})
	return b, err
}

// apply checks the fields and sets them, all but the rules that need the other ranges.
func (in IPRangeInput) apply(tx *storage.Tx, x *storage.IPRange) error {
	f := form{}
	x.Type = deref(in.Type, x.Type)
	switch x.Type {
	case purposeDynamic, purposeReserved:
	case "":
		f.add("type", msgRequired)
	default:
		f.add("type", msgChoice(x.Type))
	}
	address := func(field string, text *string, to *netip.Addr) {
		if text == nil || *text == "" {
			if !to.IsValid() || text != nil {
				f.add(field, msgRequired)
			}
			return
		}
		a, err := netip.ParseAddr(*text)
		if err != nil || a.Zone() != "" {
			f.add(field, msgIP)
			return
		}
		*to = a.Unmap()
	}
	address("start_ip", in.StartIP, &x.StartIP)
	address("end_ip", in.EndIP, &x.EndIP)
	if in.Comment != nil {
		x.Comment = *in.Comment
		f.text("comment", x.Comment, 255, nil)
	}
	if len(f) > 0 {
		return f.err()
	}
	if in.SubnetID != nil {
		if _, err := tx.Subnet(*in.SubnetID); isNotFound(err) {
			return FieldError("subnet", msgNoChoice)
		} else if err != nil {
			return err
		}
		x.SubnetID = *in.SubnetID
	}
	if x.SubnetID == 0 {
		c, err := tx.LoadCatalogue()
		if err != nil {
			return err
		}
		sn := c.SubnetOf(x.StartIP)
		if sn == nil {
			return FieldError("subnet", msgRequired)
		}
		x.SubnetID = sn.ID
	}
	return nil
}

// both makes the error of the two ends together.
func both(text string) error {
	return &Error{Kind: Invalid, Fields: map[string][]string{"start_ip": {text}, "end_ip": {text}}}
}

// checkRange holds a range to the rules: inside its subnet, not on its special addresses, clear of other ranges and, when dynamic,
// of addresses in use. A range that is being changed is only held to the last rule where it grows.
func checkRange(tx *storage.Tx, x storage.IPRange, old *storage.IPRange) error {
	uses, err := loadSubnetUse(tx, []int64{x.SubnetID})
	if err != nil {
		return err
	}
	u := uses[x.SubnetID]
	if u == nil {
		return FieldError("subnet", msgNoChoice)
	}
	if x.StartIP.Is4() != x.EndIP.Is4() {
		return both("Start IP address and end IP address must be in the same address family.")
	}
	if x.EndIP.Less(x.StartIP) {
		return both("End IP address must not be less than Start IP address.")
	}
	f := form{}
	if !u.prefix.Contains(x.StartIP) {
		f.add("start_ip", "Start IP address must be within subnet: %s.", u.subnet.CIDR)
	}
	if !u.prefix.Contains(x.EndIP) {
		f.add("end_ip", "End IP address must be within subnet: %s.", u.subnet.CIDR)
	}
	if len(f) > 0 {
		return f.err()
	}
	whole, hosts := prefixSpan(u.prefix), hostSpan(u.prefix)
	if x.StartIP == whole.first && hosts.first != whole.first {
		return FieldError("start_ip", "Reserved network address cannot be included in IP range.")
	}
	if x.EndIP == whole.last && hosts.last != whole.last {
		return FieldError("end_ip", "Broadcast address cannot be included in IP range.")
	}
	mine := span{x.StartIP, x.EndIP}
	if x.Type == purposeDynamic && x.StartIP.Is6() && mine.count() < 256 {
		return both("IPv6 dynamic range must be at least 256 addresses in size.")
	}
	overlaps := func(s span) bool { return !s.last.Less(mine.first) && !mine.last.Less(s.first) }
	for _, r := range u.ranges {
		if r.ID != x.ID && overlaps(span{r.StartIP, r.EndIP}) {
			return both("Requested " + x.Type + " range conflicts with an existing range.")
		}
	}
	if x.Type != purposeDynamic {
		return nil
	}
	wasIn := func(a netip.Addr) bool {
		return old != nil && old.Type == purposeDynamic && !a.Less(old.StartIP) && !old.EndIP.Less(a)
	}
	for _, a := range append(u.fixedUses(), u.heldUses()...) {
		if overlaps(a.span) && !(a.first == a.last && wasIn(a.first)) {
			return both("Requested dynamic range conflicts with an existing IP address or range.")
		}
	}
	return nil
}

// CreateIPRange makes a range that belongs to the caller. Dynamic ones are for administrators.
func (s *Service) CreateIPRange(ctx context.Context, in IPRangeInput) (b RangeBook, err error) {
	actor, err := needUser(ctx)
	if err != nil {
		return b, err
	}
	if deref(in.Type, "") == purposeDynamic && !actor.Admin {
		return b, Errorf(Forbidden, "Unable to create dynamic IP range. You don't have sufficient privileges.")
	}
	err = s.DB.Write(ctx, func(tx *storage.Tx) error {
		x := storage.IPRange{UserID: actor.ID()}
		if err := in.apply(tx, &x); err != nil {
			return err
		}
		if err := tx.LockSubnets([]int64{x.SubnetID}); err != nil {
			return err
		}
		if err := checkRange(tx, x, nil); err != nil {
			return err
		}
		if err := tx.InsertIPRange(&x); err != nil {
			return err
		}
		if _, err := tx.Revision(); err != nil {
			return err
		}
		b, err = loadRanges(tx, []storage.IPRange{x})
		return err
	})
	return b, err
}

func ownRange(ctx context.Context, tx *storage.Tx, id int64) (storage.IPRange, error) {
	x, err := tx.IPRange(id)
	if err != nil {
		return x, found("IPRange", err)
	}
	a := ActorFrom(ctx)
	if !a.Admin && (x.UserID == nil || *x.UserID != a.User.ID) {
		return x, Errorf(Forbidden, "Unable to modify IP range. You don't own the IP range.")
	}
	return x, nil
}

// UpdateIPRange changes a range.
func (s *Service) UpdateIPRange(ctx context.Context, id int64, in IPRangeInput) (b RangeBook, err error) {
	actor, err := needUser(ctx)
	if err != nil {
		return b, err
	}
	err = s.DB.Write(ctx, func(tx *storage.Tx) error {
		old, err := ownRange(ctx, tx, id)
		if err != nil {
			return err
		}
		x := old
		if err := in.apply(tx, &x); err != nil {
			return err
		}
		if x.Type == purposeDynamic && !actor.Admin {
			return Errorf(Forbidden, "Unable to create dynamic IP range. You don't have sufficient privileges.")
		}
		if in.User != nil && *in.User != "" && actor.Admin {
			owner, err := tx.UserByName(*in.User)
			if isNotFound(err) {
				return FieldError("user", msgNoChoice)
			}
			if err != nil {
				return err
			}
			x.UserID = &owner.ID
		}
		if err := tx.LockSubnets([]int64{old.SubnetID, x.SubnetID}); err != nil {
			return err
		}
		if err := checkRange(tx, x, &old); err != nil {
			return err
		}
		if err := tx.UpdateIPRange(&x); err != nil {
			return err
		}
		if _, err := tx.Revision(); err != nil {
			return err
		}
		b, err = loadRanges(tx, []storage.IPRange{x})
		return err
	})
	return b, err
}

// DeleteIPRange removes a range.
func (s *Service) DeleteIPRange(ctx context.Context, id int64) error {
	if _, err := needUser(ctx); err != nil {
		return err
	}
	return s.DB.Write(ctx, func(tx *storage.Tx) error {
		x, err := ownRange(ctx, tx, id)
		if err != nil {
			return err
		}
		if err := tx.DeleteIPRange(x.ID); err != nil {
			return err
		}
		_, err = tx.Revision()
		return err
	})
}
