package provisioner

import (
	"context"
	"encoding/hex"
	"errors"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/ingot-metal/ingot/storage"
)

// rrTypes are the types of records that people can make. Addresses are made with the name.
var rrTypes = []string{"CNAME", "MX", "NS", "SRV", "SSHFP", "TXT"}

// DNSRecordInput is what a request says of a record: nil leaves a field as it is.
type DNSRecordInput struct {
	DNSRef
	RRType   *string
	RRData   *string
	TTL      *int64
	ClearTTL bool
}

// NamedRecord is a record with its full name.
type NamedRecord struct {
	storage.DNSRecord
	FQDN string
}

var (
	hostLabel = regexp.MustCompile(`^[a-zA-Z0-9]([a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?$`)
	srvLabel  = regexp.MustCompile(`^_[a-zA-Z0-9]([a-zA-Z0-9-]{0,60}[a-zA-Z0-9])?$`)
)

// dnsName tells whether a text can be a name in a domain. Those of services begin with two labels such as _sip._tcp.
func dnsName(name string, service bool) bool {
	if len(name) > 191 {
		return false
	}
	if name == "@" || name == "*" {
		return !service
	}
	labels := strings.Split(name, ".")
	if service {
		if len(labels) < 2 || !srvLabel.MatchString(labels[0]) || !srvLabel.MatchString(labels[1]) {
			return false
		}
		labels = labels[2:]
	} else if labels[0] == "*" {
		labels = labels[1:]
	}
	for _, l := range labels {
		if !dnsLabel.MatchString(l) {
			return false
		}
	}
	return true
}

// hostText tells whether a text is the name of a host, as records point to; a dot at the end is allowed.
func hostText(s string) bool {
	s = strings.TrimSuffix(s, ".")
	if s == "" || len(s) > 253 {
		return false
	}
	for l := range strings.SplitSeq(s, ".") {
		if !hostLabel.MatchString(l) && !dnsLabel.MatchString(l) {
			return false
		}
	}
	return true
}

func number(s string, most uint64) bool {
	n, err := strconv.ParseUint(s, 10, 64)
	return err == nil && n <= most
}

// checkRData tells what is wrong with the data of a record.
func checkRData(rrtype, data string) string {
	words := strings.Fields(data)
	numbers := func(n int) bool {
		for _, w := range words[:n] {
			if !number(w, 65535) {
				return false
			}
		}
		return true
	}
	switch rrtype {
	case "CNAME":
		if len(words) != 1 || !hostText(words[0]) {
			return "Invalid CNAME: Should be '<server>'."
		}
	case "NS":
		if len(words) != 1 || !hostText(words[0]) {
			return "Invalid NS: Should be '<server>'."
		}
	case "MX":
		if len(words) != 2 || !numbers(1) || words[1] != "." && !hostText(words[1]) {
			return "Invalid MX: Should be '<preference> <server>'. Range for preference is 0-65535."
		}
	case "SRV":
		if len(words) != 4 || !numbers(3) || words[3] != "." && !hostText(words[3]) {
			return "Invalid SRV: Should be '<priority> <weight> <port> <server>'. Range for priority, weight, and port are 0-65535."
		}
	case "SSHFP":
		const should = "Invalid SSHFP: Should be '<algorithm> <fptype> <fingerprint>'."
		if len(words) != 3 || !number(words[0], 255) || !number(words[1], 255) {
			return should
		}
		if raw, err := hex.DecodeString(words[2]); err != nil || len(raw) == 0 {
			return should
		}
	case "TXT":
		if len(data) > 4096 {
			return "Invalid TXT: it is longer than 4096 bytes."
		}
	}
	return ""
}

// check looks at a record beside the others of its name.
func (in DNSRecordInput) check(name string, d storage.DNSRecord, others []storage.DNSRecord, addresses int) error {
	f := form{}
	f.ttl("ttl", in.TTL)
	known := slices.Contains(rrTypes, d.RRType)
	switch {
	case d.RRType == "":
		f.add("rrtype", msgRequired)
	case !known:
		f.add("rrtype", msgChoice(firstRunes(d.RRType, 20)))
	}
	switch {
	case strings.TrimSpace(d.RRData) == "":
		f.add("rrdata", msgRequired)
	case !utf8.ValidString(d.RRData) || strings.ContainsFunc(d.RRData, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }):
		f.add("rrdata", msgInvalid)
	case known:
		if bad := checkRData(d.RRType, d.RRData); bad != "" {
			f.add("__all__", bad)
		}
	}
	if known && !dnsName(name, d.RRType == "SRV") {
		if d.RRType == "SRV" {
			f.add("__all__", "Invalid SRV: Name should be '_service._protocol[.label]'.")
		} else {
			f.add("__all__", "Invalid dnsresource name: %s.", firstRunes(name, 253))
		}
	}
	for _, o := range others {
		if o.ID == d.ID {
			continue
		}
		switch {
		case d.RRType == "CNAME" && o.RRType == "CNAME":
			f.add("__all__", "Only one CNAME can be associated with a name.")
		case d.RRType == "CNAME" || o.RRType == "CNAME":
			f.add("__all__", "CNAME records for a name cannot coexist with non-CNAME records.")
		case o.RRType == d.RRType && d.TTL != nil && o.TTL != nil && *d.TTL != *o.TTL:
			f.add("__all__", "TTL of %d differs from other resource records TTL of %d.", *d.TTL, *o.TTL)
		default:
			continue
		}
		break
	}
	if d.RRType == "CNAME" && addresses > 0 && len(f) == 0 {
		f.add("__all__", "CNAME records for a name cannot coexist with non-CNAME records.")
	}
	return f.err()
}

// save checks a record and writes it.
func (s *Service) saveDNSRecord(tx *storage.Tx, d *storage.DNSRecord, r storage.DNSResource, in DNSRecordInput) (out NamedRecord, err error) {
	if in.RRType != nil {
		d.RRType = strings.ToUpper(strings.TrimSpace(*in.RRType))
	}
	if in.RRData != nil {
		d.RRData = *in.RRData
	}
	if in.ClearTTL {
		d.TTL = nil
	}
	if in.TTL != nil {
		d.TTL = timeToLive(in.TTL)
	}
	d.ResourceID = r.ID
	others, err := tx.DNSRecords([]int64{r.ID})
	if err != nil {
		return out, err
	}
	addresses, err := tx.DNSAddresses([]int64{r.ID})
	if err != nil {
		return out, err
	}
	if err := in.check(r.Name, *d, others, len(addresses[r.ID])); err != nil {
		return out, err
	}
	save := tx.UpdateDNSRecord
	if d.ID == 0 {
		save = tx.InsertDNSRecord
	}
	if err := save(d); err != nil {
		return out, err
	}
	if _, err := tx.Revision(); err != nil {
		return out, err
	}
	domain, err := tx.Domain(r.DomainID)
	return NamedRecord{*d, fullName(r.Name, domain.Name)}, err
}

// DNSRecords lists the records that a filter chooses, by domain and name.
func (s *Service) DNSRecords(ctx context.Context, f DNSFilter) (out []NamedRecord, err error) {
	if _, err := needUser(ctx); err != nil {
		return nil, err
	}
	err = s.DB.Read(ctx, func(tx *storage.Tx) error {
		out = nil
		domains, err := domainMap(tx)
		if err != nil {
			return err
		}
		matches, err := f.matcher(domains)
		if err != nil {
			return err
		}
		resources, err := tx.DNSResources()
		if err != nil {
			return err
		}
		all, err := tx.DNSRecords(nil)
		if err != nil {
			return err
		}
		by := map[int64][]storage.DNSRecord{}
		for _, d := range all {
			by[d.ResourceID] = append(by[d.ResourceID], d)
		}
		for _, r := range resources {
			for _, d := range by[r.ID] {
				if matches(r.Name, r.DomainID) && (f.RRType == "" || d.RRType == f.RRType) {
					out = append(out, NamedRecord{d, fullName(r.Name, domains[r.DomainID].Name)})
				}
			}
		}
		return nil
	})
	return out, err
}

func findRecord(tx *storage.Tx, id int64) (d storage.DNSRecord, r storage.DNSResource, err error) {
	if d, err = tx.DNSRecord(id); err == nil {
		r, err = tx.DNSResource(d.ResourceID)
	}
	return d, r, found("DNSData", err)
}

// DNSRecord reads a record.
func (s *Service) DNSRecord(ctx context.Context, id int64) (out NamedRecord, err error) {
	if _, err := needUser(ctx); err != nil {
		return out, err
	}
	err = s.DB.Read(ctx, func(tx *storage.Tx) error {
		d, r, err := findRecord(tx, id)
		if err != nil {
			return err
		}
		domain, err := tx.Domain(r.DomainID)
		out = NamedRecord{d, fullName(r.Name, domain.Name)}
		return err
	})
	return out, err
}

// CreateDNSRecord adds a record to a name, and makes the name if it is new.
func (s *Service) CreateDNSRecord(ctx context.Context, in DNSRecordInput) (out NamedRecord, err error) {
	if _, err := needPermission(ctx, "can_edit_global_entities"); err != nil {
		return out, err
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
		r, err := tx.DNSResourceNamed(d.ID, name)
		if errors.Is(err, storage.ErrNotFound) {
			r = storage.DNSResource{DomainID: d.ID, Name: name}
			err = tx.InsertDNSResource(&r)
		}
		if err != nil {
			return err
		}
		out, err = s.saveDNSRecord(tx, &storage.DNSRecord{}, r, in)
		return err
	})
	return out, err
}

// UpdateDNSRecord changes a record.
func (s *Service) UpdateDNSRecord(ctx context.Context, id int64, in DNSRecordInput) (out NamedRecord, err error) {
	if _, err := needUser(ctx); err != nil {
		return out, err
	}
	err = s.DB.Write(ctx, func(tx *storage.Tx) error {
		d, r, err := findRecord(tx, id)
		if err != nil {
			return err
		}
		if _, err := needObjectAdmin(ctx); err != nil {
			return err
		}
		out, err = s.saveDNSRecord(tx, &d, r, in)
		return err
	})
	return out, err
}

// DeleteDNSRecord removes a record, and its name when nothing is left of it.
func (s *Service) DeleteDNSRecord(ctx context.Context, id int64) error {
	if _, err := needUser(ctx); err != nil {
		return err
	}
	return s.DB.Write(ctx, func(tx *storage.Tx) error {
		d, _, err := findRecord(tx, id)
		if err != nil {
			return err
		}
		if _, err := needObjectAdmin(ctx); err != nil {
			return err
		}
		if err := tx.DeleteDNSRecord(d); err != nil {
			return err
		}
		_, err = tx.Revision()
		return err
	})
}
