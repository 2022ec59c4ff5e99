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

func forwardServers(servers *string) error {
	if servers == nil || *servers == "" {
		return nil
	}
	return provisioner.Errorf(provisioner.Unbuilt, "Domains with forward DNS servers are not built yet: leave forward_dns_servers out.")
}

// DomainsCreate makes a domain.
func (s *Server) DomainsCreate(ctx context.Context, p api.DomainsCreateParams) (oapi.Response, error) {
	if err := forwardServers(p.ForwardDNSServers); err != nil {
		return oapi.Response{}, err
	}
	d, err := s.P.CreateDomain(ctx, provisioner.DomainInput{Name: &p.Name, Authoritative: p.Authoritative, TTL: p.TTL})
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
	if err := forwardServers(p.ForwardDNSServers); err != nil {
		return oapi.Response{}, err
	}
	d, err := s.P.UpdateDomain(ctx, p.ID, provisioner.DomainInput{Name: p.Name, Authoritative: p.Authoritative, TTL: p.TTL, ClearTTL: p.Blank("ttl")})
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
