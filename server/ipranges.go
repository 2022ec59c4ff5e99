package server

import (
	"context"
	"net/http"

	"github.com/ingot-metal/ingot/api"
	"github.com/ingot-metal/ingot/provisioner"
	"github.com/ingot-metal/ingot/server/oapi"
	"github.com/ingot-metal/ingot/storage"
)

func renderIPRange(c *storage.Catalogue, r provisioner.IPRangeView) api.IPRange {
	out := api.IPRange{ResourceURI: apiRoot + "ipranges/" + itoa(r.ID) + "/", ID: r.ID, Type: r.Type, StartIP: r.StartIP.String(), EndIP: r.EndIP.String(),
		Comment: &r.Comment, Subnet: renderSubnet(c, r.SubnetID)}
	if r.Owner != nil {
		u := renderUser(*r.Owner)
		out.User = &u
	}
	return out
}

func oneIPRange(b provisioner.RangeBook, err error) (oapi.Response, error) {
	if err != nil {
		return oapi.Response{}, err
	}
	return oapi.JSON(http.StatusOK, renderIPRange(b.Cat, b.Ranges[0]))
}

// IpRangesList answers all ranges.
func (s *Server) IpRangesList(ctx context.Context, _ api.IpRangesListParams) (oapi.Response, error) {
	b, err := s.P.IPRanges(ctx)
	if err != nil {
		return oapi.Response{}, err
	}
	return oapi.JSON(http.StatusOK, each(b.Ranges, func(r provisioner.IPRangeView) api.IPRange { return renderIPRange(b.Cat, r) }))
}

// IpRangesCreate makes a range.
func (s *Server) IpRangesCreate(ctx context.Context, p api.IpRangesCreateParams) (oapi.Response, error) {
	return oneIPRange(s.P.CreateIPRange(ctx, provisioner.IPRangeInput{Type: &p.Type, StartIP: &p.StartIP, EndIP: &p.EndIP, SubnetID: p.Subnet, Comment: p.Comment}))
}

// IpRangeRead answers a range.
func (s *Server) IpRangeRead(ctx context.Context, p api.IpRangeReadParams) (oapi.Response, error) {
	return oneIPRange(s.P.IPRange(ctx, p.ID))
}

// IpRangeUpdate changes a range.
func (s *Server) IpRangeUpdate(ctx context.Context, p api.IpRangeUpdateParams) (oapi.Response, error) {
	return oneIPRange(s.P.UpdateIPRange(ctx, p.ID, provisioner.IPRangeInput{Type: p.Type, StartIP: p.StartIP, EndIP: p.EndIP, SubnetID: p.Subnet,
		Comment: p.Comment, User: p.User}))
}

// IpRangeDelete removes a range.
func (s *Server) IpRangeDelete(ctx context.Context, p api.IpRangeDeleteParams) (oapi.Response, error) {
	if err := s.P.DeleteIPRange(ctx, p.ID); err != nil {
		return oapi.Response{}, err
	}
	return oapi.NoContent()
}
