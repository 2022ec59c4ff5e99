package provisioner

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/ingot-metal/ingot/storage"
)

// simpleStatuses are the words of the simple_status filter.
var simpleStatuses = []string{"allocated", "broken", "commissioning", "deployed", "deploying", "failed", "new", "other", "ready", "releasing", "rescue_mode", "testing"}

// Pages gives a list of nodes a part at a time; nil is its end. Each part is a read of its own, so that a slow reader of a long list keeps
// nothing open: a node that changes meanwhile is shown as it is when its part is read, and none is shown twice.
type Pages func() ([]*storage.Bundle, error)

// all are the nodes of all parts.
func (next Pages) all() (out []*storage.Bundle, err error) {
	for {
		page, err := next()
		if err != nil || page == nil {
			return out, err
		}
		out = append(out, page...)
	}
}

// Concat is one list behind another.
func Concat(lists ...Pages) Pages {
	return func() ([]*storage.Bundle, error) {
		for len(lists) > 0 {
			if page, err := lists[0](); err != nil || page != nil {
				return page, err
			}
			lists = lists[1:]
		}
		return nil, nil
	}
}

// Machines lists the nodes of some types that the caller may see and that the filters choose, ordered by id. The filters are the
// constraints of allocate and a few more.
func (s *Service) Machines(ctx context.Context, types []int64, filters []Pair) ([]*storage.Bundle, error) {
	return s.MachinePages(ctx, types, filters).all()
}

// MachinePages is Machines, a part at a time: what is held at once does not grow with the list.
func (s *Service) MachinePages(ctx context.Context, types []int64, filters []Pair) Pages {
	var constraints []constraint
	return s.pages(ctx, func(tx *storage.Tx, a Actor) (f storage.NodeFilter, err error) {
		f, constraints, err = s.listFilter(tx, filters)
		f.Types, f.Seen = types, a.sees()
		return f, err
	}, func(tx *storage.Tx, f storage.NodeFilter, after int64) ([]*storage.Bundle, int64, error) {
		if want := wantedParts(constraints); want != 0 {
			return pageByParts(tx, f, constraints, want, after)
		}
		return pageOf(tx, f, after)
	})
}

// pageLoader loads the part of a list behind an id. It answers the last id that it looked at, 0 at the end.
type pageLoader func(tx *storage.Tx, f storage.NodeFilter, after int64) ([]*storage.Bundle, int64, error)

func pageOf(tx *storage.Tx, f storage.NodeFilter, after int64) ([]*storage.Bundle, int64, error) {
	page, err := tx.LoadMachinePage(f, after)
	if err != nil || len(page) < storage.MachinePage {
		return page, 0, err
	}
	return page, page[len(page)-1].Node.ID, nil
}

// pages makes the parts of a list: filter is asked once.
func (s *Service) pages(ctx context.Context, filter func(tx *storage.Tx, a Actor) (storage.NodeFilter, error), load pageLoader) Pages {
	var f storage.NodeFilter
	after, begun := int64(0), false
	return func() (page []*storage.Bundle, err error) {
		a, err := needUser(ctx)
		if err != nil {
			return nil, err
		}
		for len(page) == 0 && (after != 0 || !begun) {
			err := s.DB.Read(ctx, func(tx *storage.Tx) (err error) {
				if !begun {
					if f, err = filter(tx, a); err != nil {
						return err
					}
					begun = true
				}
				page, after, err = load(tx, f, after)
				return err
			})
			if err != nil {
				return nil, err
			}
		}
		return page, nil
	}
}

// pageByParts loads a part of a list of which the query alone cannot judge every node.
func pageByParts(tx *storage.Tx, f storage.NodeFilter, constraints []constraint, want storage.Parts, after int64) ([]*storage.Bundle, int64, error) {
	nodes, err := tx.NodePartsPage(f, want, after)
	if err != nil {
		return nil, 0, err
	}
	ids := []int64{}
	for _, n := range nodes {
		c := candidate{storage.Candidate{ID: n.ID, Hostname: n.Hostname}, &n.MachineParts}
		if c.meets(constraints) {
			ids = append(ids, n.ID)
		}
	}
	after = 0
	if len(nodes) == storage.MachinePage {
		after = nodes[len(nodes)-1].ID
	}
	if len(ids) == 0 {
		return nil, after, nil
	}
	page, err := tx.LoadMachines(storage.NodeFilter{IDs: ids})
	return page, after, err
}

// AllocatedMachines lists the caller's own Allocated machines.
func (s *Service) AllocatedMachines(ctx context.Context, systemIDs []string) Pages {
	return s.pages(ctx, func(_ *storage.Tx, a Actor) (storage.NodeFilter, error) {
		return storage.NodeFilter{Types: []int64{storage.NodeMachine}, Statuses: []storage.NodeStatus{storage.StatusAllocated},
			OwnerIDs: []int64{a.User.ID}, SystemIDs: systemIDs}, nil
	}, pageOf)
}

// ignoredFilters are options of allocate that lists accept without effect.
var ignoredFilters = []string{"op", "comment", "bridge_all", "bridge_type", "bridge_stp", "bridge_fd", "dry_run", "verbose", "format", "callback"}

func (s *Service) listFilter(tx *storage.Tx, pairs []Pair) (storage.NodeFilter, []constraint, error) {
	var f storage.NodeFilter
	fields := fieldErrors{}
	var rest []Pair
	for _, p := range pairs {
		known, err := s.ownFilter(tx, &f, fields, p)
		if err != nil {
			return f, nil, err
		}
		if !known && !slices.Contains(ignoredFilters, p.Name) {
			rest = append(rest, p)
		}
	}
	constraints, err := s.parseConstraints(tx, rest)
	if e := new(Error); errors.As(err, &e) && e.Kind == Invalid && e.Fields != nil {
		for k, v := range e.Fields {
			fields[k] = append(fields[k], v...)
		}
	} else if err != nil {
		return f, nil, err
	}
	for _, k := range constraints {
		k.narrow(&f)
	}
	return f, constraints, fields.err()
}

// ownFilter takes the filters that only lists have.
func (s *Service) ownFilter(tx *storage.Tx, f *storage.NodeFilter, fields fieldErrors, p Pair) (bool, error) {
	values := slices.DeleteFunc(slices.Clone(p.Values), func(v string) bool { return v == "" && p.Name != "agent_name" && p.Name != "not_agent_name" })
	if len(values) == 0 {
		_, isConstraint := constraintParsers[p.Name]
		return !isConstraint, nil
	}
	not := strings.HasPrefix(p.Name, "not_")
	switch p.Name {
	case "id", "system_id":
		f.SystemIDs = intersect(f.SystemIDs, values)
	case "not_id":
		f.NotSystemIDs = append(f.NotSystemIDs, values...)
	case "hostname":
		f.Hostnames = intersect(f.Hostnames, values)
	case "not_hostname":
		f.NotHostnames = append(f.NotHostnames, values...)
	case "agent_name":
		f.AgentNames = intersect(f.AgentNames, values)
	case "not_agent_name":
		f.NotAgentNames = append(f.NotAgentNames, values...)
	case "mac_address":
		macs := []string{}
		for _, v := range values {
			for _, part := range strings.Split(v, ",") {
				mac, ok := NormalMAC(part)
				if !ok {
					fields.add("mac_address", fmt.Sprintf("'%s' is not a valid MAC address.", part))
				}
				macs = append(macs, mac)
			}
		}
		f.MACs = intersect(f.MACs, macs)
	case "domain", "not_domain":
		all, err := tx.DomainNames()
		if err != nil {
			return true, err
		}
		ids, unknown := names(all, values)
		if len(unknown) > 0 {
			fields.add(p.Name, fmt.Sprintf("No such domain(s): %s.", strings.Join(unknown, ", ")))
		}
		if not {
			f.NotDomainIDs = append(f.NotDomainIDs, ids...)
		} else {
			f.DomainIDs = intersect(f.DomainIDs, ids)
		}
	case "status", "not_status", "simple_status", "not_simple_status":
		set := []storage.NodeStatus{}
		for _, v := range values {
			found := false
			word := strings.TrimPrefix(v, "=")
			for st := storage.StatusNew; st.Valid(); st++ {
				if strings.HasSuffix(p.Name, "simple_status") {
					if simpleWord(st) == word {
						found, set = true, append(set, st)
					}
					found = found || slices.Contains(simpleStatuses, word)
				} else if st.Constant() == word {
					found, set = true, append(set, st)
				}
			}
			if !found {
				fields.add(p.Name, fmt.Sprintf("'%s' is not a valid %s.", v, strings.TrimPrefix(p.Name, "not_")))
			}
		}
		if not {
			f.NotStatuses = append(f.NotStatuses, set...)
		} else {
			f.Statuses = intersect(f.Statuses, set)
		}
	default:
		return false, nil
	}
	return true, nil
}

func simpleWord(st storage.NodeStatus) string {
	return strings.ReplaceAll(strings.ToLower(st.Simplified()), " ", "_")
}
