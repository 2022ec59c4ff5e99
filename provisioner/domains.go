package provisioner

import (
	"context"
	"regexp"
	"strings"

	"github.com/ingot-metal/ingot/storage"
)

// DomainInput is what a request says of a domain: nil leaves a field as it is; ClearTTL empties it.
type DomainInput struct {
	Name          *string
	Authoritative *bool
	TTL           *int64
	ClearTTL      bool
}

var dnsLabel = regexp.MustCompile(`^[a-zA-Z0-9_]([a-zA-Z0-9_-]{0,61}[a-zA-Z0-9_])?$`)

func (in DomainInput) apply(d *storage.Domain) error {
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
	switch {
	case d.Name == "":
		f.add("name", msgRequired)
	case len(d.Name) > 253:
		f.add("name", "Domain name length cannot exceed 253 characters.")
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

// Domains returns all domains, and how many nodes each names.
func (s *Service) Domains(ctx context.Context) (out []storage.Domain, nodes map[int64]int64, err error) {
	if _, err := needUser(ctx); err != nil {
		return nil, nil, err
	}
	err = s.DB.Read(ctx, func(tx *storage.Tx) error {
		if out, err = tx.Domains(); err != nil {
			return err
		}
		nodes, err = tx.DomainNodes()
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

// Domain returns a domain by id or name, and how many nodes it names.
func (s *Service) Domain(ctx context.Context, spec string) (d storage.Domain, nodes int64, err error) {
	if _, err := needUser(ctx); err != nil {
		return d, 0, err
	}
	err = s.DB.Read(ctx, func(tx *storage.Tx) error {
		if d, err = findDomain(tx, spec); err != nil {
			return err
		}
		all, err := tx.DomainNodes()
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
		if err := in.apply(&d); err != nil {
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
		if err := in.apply(&d); err != nil {
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
		if d.ID == storage.DefaultDomainID {
			return Errorf(Invalid, "This domain is the default domain, it cannot be deleted.")
		}
		nodes, err := tx.DomainNodes()
		if err != nil {
			return err
		}
		if nodes[d.ID] > 0 {
			return Errorf(Invalid, "Can't delete domain %s: %d node(s) are in it.", d.Name, nodes[d.ID])
		}
		return tx.DeleteDomain(d.ID)
	})
}
