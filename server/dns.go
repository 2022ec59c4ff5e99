package server

import (
	"context"
	"net/http"

	"github.com/ingot-metal/ingot/api"
	"github.com/ingot-metal/ingot/provisioner"
	"github.com/ingot-metal/ingot/server/oapi"
	"github.com/ingot-metal/ingot/storage"
)

func renderDNSRecord(r provisioner.NamedRecord) api.DNSResourceRecord {
	return api.DNSResourceRecord{ResourceURI: apiRoot + "dnsresourcerecords/" + itoa(r.ID) + "/", ID: r.ID, FQDN: r.FQDN, TTL: r.TTL, Rrtype: r.RRType, Rrdata: r.RRData}
}

func renderDNSResource(b *provisioner.DNSBook, r storage.DNSResource) api.DNSResource {
	addrs := each(b.Addresses[r.ID], func(a storage.IPAddress) api.StaticIPAddress { return renderStaticIP(b.Book, a) })
	out := api.DNSResource{ResourceURI: apiRoot + "dnsresources/" + itoa(r.ID) + "/", ID: r.ID, FQDN: b.FQDN(r), AddressTTL: r.AddressTTL,
		IPAddresses: &addrs, ResourceRecords: []any{}}
	for _, d := range b.Records[r.ID] {
		out.ResourceRecords = append(out.ResourceRecords, renderDNSRecord(provisioner.NamedRecord{DNSRecord: d, FQDN: out.FQDN}))
	}
	return out
}

// renderDerived renders a name that nobody made: it has no id of its own.
func renderDerived(d provisioner.DerivedName) api.DNSResource {
	out := api.DNSResource{ResourceURI: apiRoot + "dnsresources/-1/", ID: -1, FQDN: d.FQDN, ResourceRecords: []any{}}
	for _, r := range d.Records {
		rec := api.SyntheticRecord{UserID: d.UserID, Rrtype: r.Type, Rrdata: r.IP.String()}
		if d.SystemID != "" {
			rec.SystemID, rec.NodeType = &d.SystemID, &d.NodeType
		}
		out.ResourceRecords = append(out.ResourceRecords, rec)
	}
	return out
}

func oneDNSResource(b *provisioner.DNSBook, err error) (oapi.Response, error) {
	if err != nil {
		return oapi.Response{}, err
	}
	return oapi.JSON(http.StatusOK, renderDNSResource(b, b.Resources[0]))
}

// DnsResourcesList lists names; with all=true, those of machines too.
func (s *Server) DnsResourcesList(ctx context.Context, p api.DnsResourcesListParams) (oapi.Response, error) {
	b, err := s.P.DNSResources(ctx, provisioner.DNSFilter{DNSRef: provisioner.DNSRef{FQDN: p.FQDN, Name: p.Name, Domain: p.Domain}, RRType: deref(p.Rrtype)},
		p.All != nil && *p.All)
	if err != nil {
		return oapi.Response{}, err
	}
	out := each(b.Resources, func(r storage.DNSResource) api.DNSResource { return renderDNSResource(b, r) })
	return oapi.JSON(http.StatusOK, append(out, each(b.Derived, renderDerived)...))
}

// DnsResourcesCreate makes a name.
func (s *Server) DnsResourcesCreate(ctx context.Context, p api.DnsResourcesCreateParams) (oapi.Response, error) {
	return oneDNSResource(s.P.CreateDNSResource(ctx, provisioner.DNSResourceInput{DNSRef: provisioner.DNSRef{FQDN: p.FQDN, Name: p.Name, Domain: p.Domain},
		AddressTTL: p.AddressTTL, IPAddresses: p.IPAddresses}))
}

// DnsResourceRead answers a name.
func (s *Server) DnsResourceRead(ctx context.Context, p api.DnsResourceReadParams) (oapi.Response, error) {
	return oneDNSResource(s.P.DNSResource(ctx, p.ID))
}

// DnsResourceUpdate changes a name.
func (s *Server) DnsResourceUpdate(ctx context.Context, p api.DnsResourceUpdateParams) (oapi.Response, error) {
	in := provisioner.DNSResourceInput{DNSRef: provisioner.DNSRef{FQDN: p.FQDN, Name: p.Name, Domain: p.Domain}, AddressTTL: p.AddressTTL,
		ClearTTL: p.Blank("address_ttl"), IPAddresses: p.IPAddresses}
	if p.Blank("ip_addresses") {
		in.IPAddresses = new(string)
	}
	return oneDNSResource(s.P.UpdateDNSResource(ctx, p.ID, in))
}

// DnsResourceDelete removes a name.
func (s *Server) DnsResourceDelete(ctx context.Context, p api.DnsResourceDeleteParams) (oapi.Response, error) {
	if err := s.P.DeleteDNSResource(ctx, p.ID); err != nil {
		return oapi.Response{}, err
	}
	return oapi.NoContent()
}

func oneDNSRecord(r provisioner.NamedRecord, err error) (oapi.Response, error) {
	if err != nil {
		return oapi.Response{}, err
	}
	return oapi.JSON(http.StatusOK, renderDNSRecord(r))
}

// DnsResourceRecordsList lists records.
func (s *Server) DnsResourceRecordsList(ctx context.Context, p api.DnsResourceRecordsListParams) (oapi.Response, error) {
	list, err := s.P.DNSRecords(ctx, provisioner.DNSFilter{DNSRef: provisioner.DNSRef{FQDN: p.FQDN, Name: p.Name, Domain: p.Domain}, RRType: deref(p.Rrtype)})
	if err != nil {
		return oapi.Response{}, err
	}
	return oapi.JSON(http.StatusOK, each(list, renderDNSRecord))
}

// DnsResourceRecordsCreate adds a record to a name, new or not.
func (s *Server) DnsResourceRecordsCreate(ctx context.Context, p api.DnsResourceRecordsCreateParams) (oapi.Response, error) {
	return oneDNSRecord(s.P.CreateDNSRecord(ctx, provisioner.DNSRecordInput{DNSRef: provisioner.DNSRef{FQDN: p.FQDN, Name: p.Name, Domain: p.Domain},
		RRType: &p.Rrtype, RRData: &p.Rrdata, TTL: p.TTL}))
}

// DnsResourceRecordRead answers a record.
func (s *Server) DnsResourceRecordRead(ctx context.Context, p api.DnsResourceRecordReadParams) (oapi.Response, error) {
	return oneDNSRecord(s.P.DNSRecord(ctx, p.ID))
}

// DnsResourceRecordUpdate changes a record.
func (s *Server) DnsResourceRecordUpdate(ctx context.Context, p api.DnsResourceRecordUpdateParams) (oapi.Response, error) {
	return oneDNSRecord(s.P.UpdateDNSRecord(ctx, p.ID, provisioner.DNSRecordInput{RRType: p.Rrtype, RRData: p.Rrdata, TTL: p.TTL, ClearTTL: p.Blank("ttl")}))
}

// DnsResourceRecordDelete removes a record, and its name when nothing is left of it.
func (s *Server) DnsResourceRecordDelete(ctx context.Context, p api.DnsResourceRecordDeleteParams) (oapi.Response, error) {
	if err := s.P.DeleteDNSRecord(ctx, p.ID); err != nil {
		return oapi.Response{}, err
	}
	return oapi.NoContent()
}
