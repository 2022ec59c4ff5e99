package provisioner

import (
	"context"
	"encoding/json"
	"errors"
	"net/netip"
	"regexp"
	"strconv"
	"strings"

	"github.com/ingot-metal/ingot/storage"
)

// DomainInput is what a request says of a domain: nil leaves a field as it is; ClearTTL empties it.
type DomainInput struct {
	Name          *string
	Authoritative *bool
	TTL           *int64
	ClearTTL      bool
	Forward       *string // forward DNS servers, address[:port], separated by blanks or commas
}

var dnsLabel = regexp.MustCompile(`^[a-zA-Z0-9_]([a-zA-Z0-9_-]{0,61}[a-zA-Z0-9_])?$`)

func (in DomainInput) apply(d *storage.Domain, internal string) error {
	f := form{}
	d.Name = deref(in.Name, d.Name)
	d.Authoritative = deref(in.Authoritative, d.Authoritative)
	if in.ClearTTL {
		d.TTL = nil
	}
	if in.TTL != nil {
		d.TTL = in.TTL
		if *in.TTL < 1 {
			f.add("ttl", "Ensure this value is greater than or equal to 1.")
		} else if *in.TTL > 604800 {
			f.add("ttl", "Ensure this value is less than or equal to 604800.")
		}
	}
	if in.Forward != nil {
		d.ForwardDNSServers = nil
		for _, w := range splitList([]string{*in.Forward}) {
			at, ok := forwardServer(w)
			if !ok {
				f.add("forward_dns_servers", "Invalid IP address: %s; provide a list of space-separated IP addresses", firstRunes(w, 100))
				continue
			}
			d.ForwardDNSServers = append(d.ForwardDNSServers, at)
		}
	}
	if d.Authoritative && len(d.ForwardDNSServers) > 0 {
		f.add("__all__", "A domain cannot be both authoritative and have forward DNS servers.")
	}
	switch {
	case d.Name == "":
		f.add("name", msgRequired)
	case len(d.Name) > 253:
		f.add("name", "Domain name length cannot exceed 253 characters.")
	case strings.EqualFold(d.Name, internal):
		f.add("name", "Domain name cannot duplicate maas internal domain name.")
	default:
		for label := range strings.SplitSeq(d.Name, ".") {
			if label == "" {
				f.add("name", "DNS name contains an empty label.")
				break
			}
			if !dnsLabel.MatchString(label) {
				f.add("name", "Invalid domain name: %s.", d.Name)
				break
			}
		}
	}
	return f.err()
}

// forwardServer reads address[:port] and writes it in one way.
func forwardServer(s string) (string, bool) {
	if a, err := netip.ParseAddr(s); err == nil && a.Zone() == "" {
		return a.String(), true
	}
	a, err := netip.ParseAddrPort(s)
	if err != nil || a.Port() == 0 || a.Addr().Zone() != "" {
		return "", false
	}
	return a.String(), true
}

// recordCounts counts what each domain names: its nodes, and what people put into it.
func recordCounts(tx *storage.Tx) (map[int64]int64, error) {
	counts, err := tx.DomainNodes()
	if err != nil {
		return nil, err
	}
	more, err := tx.DomainRecords()
	for id, n := range more {
		counts[id] += n
	}
	return counts, err
}

// Domains returns all domains, and how many records each holds.
func (s *Service) Domains(ctx context.Context) (out []storage.Domain, nodes map[int64]int64, err error) {
	if _, err := needUser(ctx); err != nil {
		return nil, nil, err
	}
	err = s.DB.Read(ctx, func(tx *storage.Tx) error {
		if out, err = tx.Domains(); err != nil {
			return err
		}
		nodes, err = recordCounts(tx)
		return err
	})
	return out, nodes, err
}

func findDomain(tx *storage.Tx, spec string) (storage.Domain, error) {
	all, err := tx.Domains()
	if err != nil {
		return storage.Domain{}, err
	}
	d, ok := findByIDOrName(all, spec, func(d storage.Domain) (int64, string) { return d.ID, d.Name })
	if !ok {
		return d, noMatch("Domain")
	}
	return d, nil
}

// Domain returns a domain by id or name, and how many records it holds.
func (s *Service) Domain(ctx context.Context, spec string) (d storage.Domain, nodes int64, err error) {
	if _, err := needUser(ctx); err != nil {
		return d, 0, err
	}
	err = s.DB.Read(ctx, func(tx *storage.Tx) error {
		if d, err = findDomain(tx, spec); err != nil {
			return err
		}
		all, err := recordCounts(tx)
		nodes = all[d.ID]
		return err
	})
	return d, nodes, err
}

// CreateDomain makes a domain.
func (s *Service) CreateDomain(ctx context.Context, in DomainInput) (d storage.Domain, err error) {
	if _, err := needPermission(ctx, "can_edit_global_entities"); err != nil {
		return d, err
	}
	err = s.DB.Write(ctx, func(tx *storage.Tx) error {
		d = storage.Domain{Authoritative: true}
		internal, err := s.SettingText(tx, "maas_internal_domain")
		if err != nil {
			return err
		}
		if err := in.apply(&d, internal); err != nil {
			return err
		}
		return taken("Domain", "name", "Name", tx.InsertDomain(&d))
	})
	return d, err
}

// UpdateDomain changes a domain. Racks see the new name.
func (s *Service) UpdateDomain(ctx context.Context, spec string, in DomainInput) (d storage.Domain, err error) {
	if _, err := needObjectAdmin(ctx); err != nil {
		return d, err
	}
	err = s.DB.Write(ctx, func(tx *storage.Tx) error {
		if d, err = findDomain(tx, spec); err != nil {
			return err
		}
		old := d.Name
		internal, err := s.SettingText(tx, "maas_internal_domain")
		if err != nil {
			return err
		}
		if err := in.apply(&d, internal); err != nil {
			return err
		}
		if err := tx.UpdateDomain(&d); err != nil {
			return taken("Domain", "name", "Name", err)
		}
		if d.Name == old {
			return nil
		}
		return tx.BumpDomainNodes(d.ID)
	})
	return d, err
}

// DeleteDomain removes a domain that no node uses and that is not the default one.
func (s *Service) DeleteDomain(ctx context.Context, spec string) error {
	if _, err := needObjectAdmin(ctx); err != nil {
		return err
	}
	return s.DB.Write(ctx, func(tx *storage.Tx) error {
		d, err := findDomain(tx, spec)
		if err != nil {
			return err
		}
		if d.IsDefault {
			return Errorf(Invalid, "This domain is the default domain, it cannot be deleted.")
		}
		nodes, err := tx.DomainNodes()
		if err != nil {
			return err
		}
		if nodes[d.ID] > 0 {
			return Errorf(Invalid, "Can't delete domain %s: %d node(s) are in it.", d.Name, nodes[d.ID])
		}
		err = tx.Savepoint(func() error { return tx.DeleteDomain(d.ID) })
		if errors.Is(err, storage.ErrConflict) {
			return Errorf(Invalid, "Can't delete domain %s: there are DNS resources in it.", d.Name)
		}
		return err
	})
}

// SetDefaultDomain makes a domain the one that new nodes are in. Machines that nobody owns move to it from the old one.
func (s *Service) SetDefaultDomain(ctx context.Context, spec string) (d storage.Domain, err error) {
	if _, err := needUser(ctx); err != nil {
		return d, err
	}
	err = s.DB.Write(ctx, func(tx *storage.Tx) error {
		if d, err = findDomain(tx, spec); err != nil {
			return err
		}
		if _, err := needObjectAdmin(ctx); err != nil {
			return err
		}
		if d.IsDefault {
			return nil
		}
		old, err := tx.DefaultDomain()
		if err != nil {
			return err
		}
		if err := tx.SetDefaultDomain(d.ID); err != nil {
			return err
		}
		if _, err := tx.MoveFreeNodes(old.ID, d.ID); err != nil {
			return err
		}
		d.IsDefault = true
		return tx.BumpDomainNodes(d.ID)
	})
	return d, err
}

// zoneSerialSetting holds the serial number that DNS zones get next. It is no setting of set_config.
const zoneSerialSetting = "zone_serial"

// SetZoneSerial writes the serial number that DNS zones get next.
func (s *Service) SetZoneSerial(ctx context.Context, serial int64) error {
	if _, err := needPermission(ctx, "can_edit_global_entities"); err != nil {
		return err
	}
	if serial < 1 || serial > 1<<32-1 {
		bound, word := int64(1), "greater"
		if serial > 1 {
			bound, word = 1<<32-1, "less"
		}
		return FieldError("serial", "Ensure this value is %s than or equal to %d.", word, bound)
	}
	return s.DB.Write(ctx, func(tx *storage.Tx) error {
		if err := tx.PutSetting(zoneSerialSetting, json.RawMessage(strconv.FormatInt(serial, 10))); err != nil {
			return err
		}
		_, err := tx.Revision()
		return err
	})
}
