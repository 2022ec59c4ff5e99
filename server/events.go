package server

import (
	"context"
	"net/http"
	"net/url"
	"strconv"

	"github.com/ingot-metal/ingot/api"
	"github.com/ingot-metal/ingot/provisioner"
	"github.com/ingot-metal/ingot/server/oapi"
	"github.com/ingot-metal/ingot/storage"
)

func renderEvent(e storage.Event) api.Event {
	out := api.Event{Username: e.Username, Hostname: e.NodeHostname, ID: e.ID, Level: provisioner.EventLevelName(e.Level),
		Created: api.T3(e.Created), Type: provisioner.EventTypeDescription(e.Type), Description: e.Description}
	if out.Username == "" {
		out.Username = "unknown"
	}
	if e.NodeID != nil {
		out.Node = &e.SystemID
	}
	return out
}

// EventsQuery answers a page of events, with the addresses of the pages around it.
func (s *Server) EventsQuery(ctx context.Context, p api.EventsQueryParams) (oapi.Response, error) {
	events, err := s.P.Events(ctx, provisioner.EventQuery{SystemIDs: p.ID, Hostnames: p.Hostname, MACs: p.MACAddress, Domains: p.Domain,
		Zones: opt(p.Zone), Pools: opt(p.Pool), AgentNames: opt(p.AgentName), Owners: opt(p.Owner),
		Level: deref(p.Level), Limit: p.Limit, Before: p.Before, After: p.After})
	if err != nil {
		return oapi.Response{}, err
	}
	page := api.EventPage{Count: int64(len(events)), Events: make([]api.Event, 0, len(events))}
	for _, e := range events {
		page.Events = append(page.Events, renderEvent(e))
	}
	uri := func(key string, id int64) string {
		q := url.Values{"op": {"query"}}
		for _, name := range []string{"id", "hostname", "mac_address", "domain", "zone", "pool", "agent_name", "level", "limit", "owner"} {
			if v, ok := p.Sent[name]; ok {
				q[name] = v
			}
		}
		if key != "" {
			q.Set(key, strconv.FormatInt(id, 10))
		}
		return "/MAAS/api/2.0/events/?" + q.Encode()
	}
	switch n := len(events); {
	case n > 0:
		page.NextURI = uri("after", events[0].ID)
		prev := uri("before", events[n-1].ID)
		page.PrevURI = &prev
	case p.Before != nil:
		page.NextURI = uri("after", *p.Before-1)
	case p.After != nil:
		page.NextURI = uri("after", *p.After)
		prev := uri("before", *p.After+1)
		page.PrevURI = &prev
	default:
		page.NextURI = uri("", 0)
	}
	return oapi.JSON(http.StatusOK, page)
}

// opt makes a list of an optional value.
func opt(s *string) []string {
	if s == nil || *s == "" {
		return nil
	}
	return []string{*s}
}

func deref(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}
