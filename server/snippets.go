package server

import (
	"context"
	"net/http"

	"github.com/ingot-metal/ingot/api"
	"github.com/ingot-metal/ingot/provisioner"
	"github.com/ingot-metal/ingot/server/oapi"
	"github.com/ingot-metal/ingot/storage"
)

func renderSnippet(c *storage.Catalogue, x provisioner.Snippet) api.DHCPSnippet {
	out := api.DHCPSnippet{ResourceURI: apiRoot + "dhcp-snippets/" + itoa(x.ID) + "/", ID: x.ID, Name: x.Name, Description: x.Description, Enabled: x.Enabled,
		History: []map[string]any{}, GlobalSnippet: x.NodeID == nil && x.SubnetID == nil}
	for i, v := range x.Values {
		if i == 0 {
			out.Value = v.Value
		}
		out.History = append(out.History, map[string]any{"id": v.ID, "value": v.Value, "created": api.T2(v.Created)})
	}
	if x.Node != nil {
		out.Node = map[string]any{"id": x.Node.ID, "system_id": x.Node.SystemID, "hostname": x.Node.Hostname, "node_type": x.Node.NodeType}
	}
	if x.SubnetID != nil && c.Subnets[*x.SubnetID] != nil {
		sn := renderSubnet(c, *x.SubnetID)
		out.Subnet = &sn
	}
	return out
}

func oneSnippet(b provisioner.SnippetBook, err error) (oapi.Response, error) {
	if err != nil {
		return oapi.Response{}, err
	}
	return oapi.JSON(http.StatusOK, renderSnippet(b.Cat, b.List[0]))
}

// DhcpSnippetsList answers all DHCP snippets.
func (s *Server) DhcpSnippetsList(ctx context.Context, _ api.DhcpSnippetsListParams) (oapi.Response, error) {
	b, err := s.P.Snippets(ctx)
	if err != nil {
		return oapi.Response{}, err
	}
	return oapi.JSON(http.StatusOK, each(b.List, func(x provisioner.Snippet) api.DHCPSnippet { return renderSnippet(b.Cat, x) }))
}

// DhcpSnippetsCreate keeps a new snippet.
func (s *Server) DhcpSnippetsCreate(ctx context.Context, p api.DhcpSnippetsCreateParams) (oapi.Response, error) {
	return oneSnippet(s.P.CreateSnippet(ctx, provisioner.SnippetInput{Name: &p.Name, Value: &p.Value, Description: p.Description, Enabled: p.Enabled,
		Node: p.Node, Subnet: p.Subnet, IPRange: p.Iprange, Global: p.GlobalSnippet}))
}

// DhcpSnippetRead answers a snippet.
func (s *Server) DhcpSnippetRead(ctx context.Context, p api.DhcpSnippetReadParams) (oapi.Response, error) {
	return oneSnippet(s.P.Snippet(ctx, p.ID))
}

// DhcpSnippetUpdate changes a snippet.
func (s *Server) DhcpSnippetUpdate(ctx context.Context, p api.DhcpSnippetUpdateParams) (oapi.Response, error) {
	in := &p.Input
	return oneSnippet(s.P.UpdateSnippet(ctx, p.ID, provisioner.SnippetInput{Name: emptied(in, "name", p.Name), Value: emptied(in, "value", p.Value),
		Description: emptied(in, "description", p.Description), Enabled: p.Enabled, Node: emptied(in, "node", p.Node), Subnet: emptied(in, "subnet", p.Subnet),
		IPRange: emptied(in, "iprange", p.Iprange), Global: p.GlobalSnippet}))
}

// DhcpSnippetDelete removes a snippet.
func (s *Server) DhcpSnippetDelete(ctx context.Context, p api.DhcpSnippetDeleteParams) (oapi.Response, error) {
	if err := s.P.DeleteSnippet(ctx, p.ID); err != nil {
		return oapi.Response{}, err
	}
	return oapi.NoContent()
}

// DhcpSnippetRevert makes an earlier version of a snippet the current one.
func (s *Server) DhcpSnippetRevert(ctx context.Context, p api.DhcpSnippetRevertParams) (oapi.Response, error) {
	return oneSnippet(s.P.RevertSnippet(ctx, p.ID, text(p.To)))
}
