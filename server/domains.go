package server

import (
	"context"
	"net/http"

	"github.com/ingot-metal/ingot/api"
	"github.com/ingot-metal/ingot/provisioner"
	"github.com/ingot-metal/ingot/server/oapi"
	"github.com/ingot-metal/ingot/storage"
)

// DomainsList answers all domains.
func (s *Server) DomainsList(ctx context.Context, _ api.DomainsListParams) (oapi.Response, error) {
	list, nodes, err := s.P.Domains(ctx)
	if err != nil {
		return oapi.Response{}, err
	}
	return oapi.JSON(http.StatusOK, each(list, func(d storage.Domain) api.Domain { return renderDomain(d, nodes[d.ID]) }))
}

// DomainsCreate makes a domain.
func (s *Server) DomainsCreate(ctx context.Context, p api.DomainsCreateParams) (oapi.Response, error) {
	d, err := s.P.CreateDomain(ctx, provisioner.DomainInput{Name: &p.Name, Authoritative: p.Authoritative, TTL: p.TTL, Forward: p.ForwardDNSServers})
	if err != nil {
		return oapi.Response{}, err
	}
	return oapi.JSON(http.StatusOK, renderDomain(d, 0))
}

// DomainRead answers a domain.
func (s *Server) DomainRead(ctx context.Context, p api.DomainReadParams) (oapi.Response, error) {
	d, nodes, err := s.P.Domain(ctx, p.ID)
	if err != nil {
		return oapi.Response{}, err
	}
	return oapi.JSON(http.StatusOK, renderDomain(d, nodes))
}

// DomainUpdate changes a domain.
func (s *Server) DomainUpdate(ctx context.Context, p api.DomainUpdateParams) (oapi.Response, error) {
	in := provisioner.DomainInput{Name: p.Name, Authoritative: p.Authoritative, TTL: p.TTL, ClearTTL: p.Blank("ttl"), Forward: p.ForwardDNSServers}
	if p.Blank("forward_dns_servers") {
		in.Forward = new(string)
	}
	d, err := s.P.UpdateDomain(ctx, p.ID, in)
	if err != nil {
		return oapi.Response{}, err
	}
	return oapi.JSON(http.StatusOK, renderDomain(d, 0))
}

// DomainDelete removes a domain.
func (s *Server) DomainDelete(ctx context.Context, p api.DomainDeleteParams) (oapi.Response, error) {
	if err := s.P.DeleteDomain(ctx, p.ID); err != nil {
		return oapi.Response{}, err
	}
	return oapi.NoContent()
}

// DomainSetDefault makes a domain the one that new nodes are in.
func (s *Server) DomainSetDefault(ctx context.Context, p api.DomainSetDefaultParams) (oapi.Response, error) {
	d, err := s.P.SetDefaultDomain(ctx, p.ID)
	if err != nil {
		return oapi.Response{}, err
	}
	return oapi.JSON(http.StatusOK, renderDomain(d, 0))
}

// DomainsSetSerial writes the serial number that DNS zones get next.
func (s *Server) DomainsSetSerial(ctx context.Context, p api.DomainsSetSerialParams) (oapi.Response, error) {
	if err := s.P.SetZoneSerial(ctx, p.Serial); err != nil {
		return oapi.Response{}, err
	}
	return oapi.Null()
}
