package provisioner

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/ingot-metal/ingot/storage"
)

// Names in domains that people make: DNS resources with their addresses, and the records of other types.

// DNSRef names a DNS resource, by its full name or by label and domain.
type DNSRef struct {
	FQDN, Name, Domain *string
}

func (r DNSRef) given() bool { return r.FQDN != nil || r.Name != nil || r.Domain != nil }

// DNSResourceInput is what a request says of a DNS resource: nil leaves a field as it is.
type DNSResourceInput struct {
	DNSRef
	AddressTTL  *int64
	ClearTTL    bool
	IPAddresses *string // addresses or ids of addresses, separated by blanks or commas; all of them
}

// DNSFilter narrows lists of names and records.
type DNSFilter struct {
	DNSRef
	RRType string
}

// DNSBook is DNS resources with all that the API shows of them.
type DNSBook struct {
	Resources []storage.DNSResource
	Domains   map[int64]storage.Domain
	Addresses map[int64][]storage.IPAddress // by resource id
	Records   map[int64][]storage.DNSRecord // by resource id
	Derived   []DerivedName
	Book      *AddressBook
}

// FQDN is the full name of a DNS resource.
func (b *DNSBook) FQDN(r storage.DNSResource) string {
	return fullName(r.Name, b.Domains[r.DomainID].Name)
}

func fullName(name, domain string) string {
	if name == "@" {
		return domain
	}
	return name + "." + domain
}

func domainMap(tx *storage.Tx) (map[int64]storage.Domain, error) {
	all, err := tx.Domains()
	out := make(map[int64]storage.Domain, len(all))
	for _, d := range all {
		out[d.ID] = d
	}
	return out, err
}

// splitFQDN finds the domain of a full name: the longest that is known. The name of a domain itself is @ in it.
func splitFQDN(domains map[int64]storage.Domain, fqdn string) (name string, d storage.Domain, ok bool) {
	fqdn = strings.TrimSuffix(fqdn, ".")
	for _, x := range domains {
		if len(x.Name) <= len(d.Name) && ok {
			continue
		}
		if strings.EqualFold(fqdn, x.Name) {
			name, d, ok = "@", x, true
		} else if n := len(fqdn) - len(x.Name); n > 1 && fqdn[n-1] == '.' && strings.EqualFold(fqdn[n:], x.Name) {
			name, d, ok = fqdn[:n-1], x, true
		}
	}
	return name, d, ok
}

func domainIn(domains map[int64]storage.Domain, spec string) (storage.Domain, error) {
	all := make([]storage.Domain, 0, len(domains))
	for _, d := range domains {
		all = append(all, d)
	}
	d, ok := findByIDOrName(all, spec, func(d storage.Domain) (int64, string) { return d.ID, d.Name })
	if !ok {
		return d, noMatch("Domain")
	}
	return d, nil
}

// resolve finds what a reference names: a label and its domain.
func (r DNSRef) resolve(domains map[int64]storage.Domain) (string, storage.Domain, error) {
	name, domain := deref(r.Name, ""), deref(r.Domain, "")
	if name != "" && domain != "" {
		d, err := domainIn(domains, domain)
		return name, d, err
	}
	full := deref(r.FQDN, "")
	if full == "" {
		return "", storage.Domain{}, Errorf(Invalid, "Either name and domain (or fqdn) must be specified")
	}
	name, d, ok := splitFQDN(domains, full)
	if !ok {
		return "", d, noMatch("Domain")
	}
	return name, d, nil
}

// matcher tells which names a filter chooses.
func (f DNSFilter) matcher(domains map[int64]storage.Domain) (func(name string, domainID int64) bool, error) {
	name, domain := deref(f.Name, ""), deref(f.Domain, "")
	if name == "" && domain == "" && deref(f.FQDN, "") != "" {
		full := strings.TrimSuffix(*f.FQDN, ".")
		return func(name string, id int64) bool { return strings.EqualFold(full, fullName(name, domains[id].Name)) }, nil
	}
	only := int64(-1)
	if domain != "" {
		d, err := domainIn(domains, domain)
		if err != nil {
			return nil, err
		}
		only = d.ID
	}
	return func(n string, id int64) bool {
		return (name == "" || strings.EqualFold(n, name)) && (only < 0 || id == only)
	}, nil
}

// loadDNS reads everything about resources, in a constant number of queries.
func loadDNS(tx *storage.Tx, domains map[int64]storage.Domain, resources []storage.DNSResource) (*DNSBook, error) {
	b := &DNSBook{Resources: resources, Domains: domains, Records: map[int64][]storage.DNSRecord{}}
	ids := []int64{}
	for _, r := range resources {
		ids = append(ids, r.ID)
	}
	var err error
	if b.Addresses, err = tx.DNSAddresses(ids); err != nil {
		return nil, err
	}
	records, err := tx.DNSRecords(ids)
	if err != nil {
		return nil, err
	}
	for _, r := range records {
		b.Records[r.ResourceID] = append(b.Records[r.ResourceID], r)
	}
	var all []storage.IPAddress
	for _, list := range b.Addresses {
		all = append(all, list...)
	}
	b.Book, err = loadAddressBook(tx, all)
	return b, err
}

func oneDNS(tx *storage.Tx, r storage.DNSResource) (*DNSBook, error) {
	domains, err := domainMap(tx)
	if err != nil {
		return nil, err
	}
	return loadDNS(tx, domains, []storage.DNSResource{r})
}

// DNSResources lists the names that a filter chooses, by domain and name; with all, those too that follow from machines.
func (s *Service) DNSResources(ctx context.Context, f DNSFilter, all bool) (b *DNSBook, err error) {
	a, err := needUser(ctx)
	if err != nil {
		return nil, err
	}
	err = s.DB.Read(ctx, func(tx *storage.Tx) error {
		domains, err := domainMap(tx)
		if err != nil {
			return err
		}
		matches, err := f.matcher(domains)
		if err != nil {
			return err
		}
		list, err := tx.DNSResources()
		if err != nil {
			return err
		}
		list = slices.DeleteFunc(list, func(r storage.DNSResource) bool { return !matches(r.Name, r.DomainID) })
		if b, err = loadDNS(tx, domains, list); err != nil {
			return err
		}
		rrtype := strings.ToUpper(f.RRType)
		b.Resources = slices.DeleteFunc(b.Resources, func(r storage.DNSResource) bool { return rrtype != "" && !b.has(r, rrtype) })
		if !all {
			return nil
		}
		derived, err := derivedNames(tx, a)
		for _, d := range derived {
			d.Records = slices.DeleteFunc(d.Records, func(r DerivedRecord) bool { return rrtype != "" && r.Type != rrtype })
			if matches(d.Name, d.DomainID) && len(d.Records) > 0 {
				b.Derived = append(b.Derived, d)
			}
		}
		return err
	})
	return b, err
}

// has tells whether a name has records of a type.
func (b *DNSBook) has(r storage.DNSResource, rrtype string) bool {
	for _, a := range b.Addresses[r.ID] {
		if addressType(a.IP) == rrtype {
			return true
		}
	}
	return slices.ContainsFunc(b.Records[r.ID], func(d storage.DNSRecord) bool { return d.RRType == rrtype })
}

func addressType(ip netip.Addr) string {
	if ip.Is4() {
		return "A"
	}
	return "AAAA"
}

// DNSResource reads a name.
func (s *Service) DNSResource(ctx context.Context, id int64) (b *DNSBook, err error) {
	if _, err := needUser(ctx); err != nil {
		return nil, err
	}
	err = s.DB.Read(ctx, func(tx *storage.Tx) error {
		r, err := tx.DNSResource(id)
		if err != nil {
			return found("DNSResource", err)
		}
		b, err = oneDNS(tx, r)
		return err
	})
	return b, err
}

// maxTTL is the largest time that DNS can say.
const maxTTL = 1<<31 - 1

// timeToLive is what a record keeps of a time: 0 is how Go's clients say that they have none.
func timeToLive(ttl *int64) *int64 {
	if ttl != nil && *ttl == 0 {
		return nil
	}
	return ttl
}

func (f form) ttl(field string, ttl *int64) {
	if ttl == nil {
		return
	}
	if *ttl < 0 {
		f.add(field, "Ensure this value is greater than or equal to 0.")
	} else if *ttl > maxTTL {
		f.add(field, "Ensure this value is less than or equal to %d.", int64(maxTTL))
	}
}

// CreateDNSResource makes a name, perhaps with addresses.
func (s *Service) CreateDNSResource(ctx context.Context, in DNSResourceInput) (b *DNSBook, err error) {
	if _, err := needPermission(ctx, "can_edit_global_entities"); err != nil {
		return nil, err
	}
	err = s.DB.Write(ctx, func(tx *storage.Tx) error {
		domains, err := domainMap(tx)
		if err != nil {
			return err
		}
		name, d, err := in.resolve(domains)
		if err != nil {
			return err
		}
		r := storage.DNSResource{DomainID: d.ID, Name: name}
		if err := s.saveDNSResource(ctx, tx, &r, in); err != nil {
			return err
		}
		b, err = oneDNS(tx, r)
		return err
	})
	return b, err
}

// UpdateDNSResource changes a name.
func (s *Service) UpdateDNSResource(ctx context.Context, id int64, in DNSResourceInput) (b *DNSBook, err error) {
	if _, err := needUser(ctx); err != nil {
		return nil, err
	}
	err = s.DB.Write(ctx, func(tx *storage.Tx) error {
		r, err := tx.DNSResource(id)
		if err != nil {
			return found("DNSResource", err)
		}
		if _, err := needObjectAdmin(ctx); err != nil {
			return err
		}
		if in.given() {
			domains, err := domainMap(tx)
			if err != nil {
				return err
			}
			ref, old := in.DNSRef, strconv.FormatInt(r.DomainID, 10)
			if deref(ref.FQDN, "") == "" {
				if deref(ref.Name, "") == "" {
					ref.Name = &r.Name
				}
				if deref(ref.Domain, "") == "" {
					ref.Domain = &old
				}
			}
			name, d, err := ref.resolve(domains)
			if err != nil {
				return err
			}
			r.Name, r.DomainID = name, d.ID
		}
		if err := s.saveDNSResource(ctx, tx, &r, in); err != nil {
			return err
		}
		b, err = oneDNS(tx, r)
		return err
	})
	return b, err
}

func (s *Service) saveDNSResource(ctx context.Context, tx *storage.Tx, r *storage.DNSResource, in DNSResourceInput) error {
	f := form{}
	if in.ClearTTL {
		r.AddressTTL = nil
	}
	if in.AddressTTL != nil {
		r.AddressTTL = timeToLive(in.AddressTTL)
	}
	f.ttl("address_ttl", in.AddressTTL)
	var records []storage.DNSRecord
	if r.ID > 0 {
		var err error
		if records, err = tx.DNSRecords([]int64{r.ID}); err != nil {
			return err
		}
	}
	if !dnsName(r.Name, slices.ContainsFunc(records, func(d storage.DNSRecord) bool { return d.RRType == "SRV" })) {
		f.add("name", "Invalid dnsresource name: %s.", firstRunes(r.Name, 253))
	}
	var addresses []int64
	if in.IPAddresses != nil {
		var err error
		if addresses, err = s.dnsAddresses(ctx, tx, f, *in.IPAddresses); err != nil {
			return err
		}
		if len(addresses) > 0 && slices.ContainsFunc(records, func(d storage.DNSRecord) bool { return d.RRType == "CNAME" }) {
			f.add("__all__", "Cannot add address: CNAME present.")
		}
	}
	if len(f) > 0 {
		return f.err()
	}
	save := tx.UpdateDNSResource
	if r.ID == 0 {
		save = tx.InsertDNSResource
	}
	if err := save(r); errors.Is(err, storage.ErrConflict) {
		return FieldError("__all__", "Labels must be unique within their zone.")
	} else if err != nil {
		return err
	}
	if in.IPAddresses != nil {
		if err := tx.SetDNSResourceAddresses(r.ID, addresses); err != nil {
			return err
		}
	}
	_, err := tx.Revision()
	return err
}

// dnsAddresses finds the addresses that a request names, and reserves for the caller those that nobody has.
func (s *Service) dnsAddresses(ctx context.Context, tx *storage.Tx, f form, text string) ([]int64, error) {
	ids := []int64{}
	for _, word := range splitList([]string{text}) {
		if id, err := strconv.ParseInt(word, 10, 64); err == nil {
			a, err := tx.IPAddress(id)
			switch {
			case err != nil && !isNotFound(err):
				return nil, err
			case err != nil || !a.IP.IsValid():
				f.add("ip_addresses", msgChoice(firstRunes(word, 50)))
			default:
				ids = append(ids, a.ID)
			}
			continue
		}
		ip, err := netip.ParseAddr(word)
		if err != nil || ip.Zone() != "" {
			f.add("ip_addresses", "'%s' is not a valid IP address.", firstRunes(word, 50))
			continue
		}
		id, problem, err := s.nameAddress(ctx, tx, ip.Unmap())
		if err != nil {
			return nil, err
		}
		if problem != "" {
			f.add("ip_addresses", problem)
			continue
		}
		ids = append(ids, id)
	}
	return ids, nil
}

// nameAddress finds the row of an address, or reserves the address for the caller. Inside a dynamic range it can only be one that was
// seen there: racks lease the others.
func (s *Service) nameAddress(ctx context.Context, tx *storage.Tx, ip netip.Addr) (id int64, problem string, err error) {
	rows, err := tx.AddressesByIP(ip)
	if err != nil {
		return 0, "", err
	}
	if len(rows) > 0 && rows[0].AllocType != storage.AllocDiscovered {
		return rows[0].ID, "", nil
	}
	row := storage.IPAddress{IP: ip, AllocType: storage.AllocUserReserved, UserID: ActorFrom(ctx).ID()}
	sn, err := subnetHolding(tx, ip)
	if err != nil {
		return 0, "", err
	}
	if sn != nil {
		if err := tx.LockSubnets([]int64{sn.ID}); err != nil {
			return 0, "", err
		}
		uses, err := loadSubnetUse(tx, []int64{sn.ID})
		if err != nil {
			return 0, "", err
		}
		if uses[sn.ID].dynamicHas(ip) {
			if len(rows) > 0 {
				return rows[0].ID, "", nil
			}
			return 0, "The IP address " + ip.String() + " is inside a dynamic range of subnet '" + sn.CIDR + "'.", nil
		}
		row.SubnetID = &sn.ID
	}
	err = tx.InsertIPAddress(&row)
	return row.ID, "", err
}

// subnetHolding is the smallest subnet that an address lies in; nil: none.
func subnetHolding(tx *storage.Tx, ip netip.Addr) (*storage.Subnet, error) {
	all, err := tx.Subnets()
	if err != nil {
		return nil, err
	}
	var best *storage.Subnet
	bits := -1
	for i, sn := range all {
		if p, err := netip.ParsePrefix(sn.CIDR); err == nil && p.Contains(ip) && p.Bits() > bits {
			best, bits = &all[i], p.Bits()
		}
	}
	return best, nil
}

// DeleteDNSResource removes a name with its records. Its addresses stay reserved for whom they were reserved.
func (s *Service) DeleteDNSResource(ctx context.Context, id int64) error {
	if _, err := needUser(ctx); err != nil {
		return err
	}
	return s.DB.Write(ctx, func(tx *storage.Tx) error {
		if _, err := tx.DNSResource(id); err != nil {
			return found("DNSResource", err)
		}
		if _, err := needObjectAdmin(ctx); err != nil {
			return err
		}
		if err := tx.DeleteDNSResource(id); err != nil {
			return err
		}
		_, err := tx.Revision()
		return err
	})
}
