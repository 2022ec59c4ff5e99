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

// Machines lists the nodes of some types that the caller may see and that the filters choose, ordered by id. The filters are the
// constraints of allocate and a few more.
func (s *Service) Machines(ctx context.Context, types []int64, filters []Pair) ([]*storage.Bundle, error) {
	a, err := needUser(ctx)
	if err != nil {
		return nil, err
	}
	var out []*storage.Bundle
	err = s.DB.Read(ctx, func(tx *storage.Tx) error {
		f, constraints, err := s.listFilter(tx, filters)
		if err != nil {
			return err
		}
		f.Types = types
		f.Seen = a.sees()
		if want := wantedParts(constraints); want != 0 {
			if f, err = narrowByParts(tx, f, constraints, want); err != nil || len(f.IDs) == 0 {
				return err
			}
		}
		out, err = tx.LoadMachines(f)
		return err
	})
	return out, err
}

// narrowByParts makes a filter of the nodes that meet what the query alone cannot judge.
func narrowByParts(tx *storage.Tx, f storage.NodeFilter, constraints []constraint, want storage.Parts) (storage.NodeFilter, error) {
	nodes, err := tx.NodeParts(f, want)
	if err != nil {
		return f, err
	}
	ids := []int64{}
	for _, n := range nodes {
		c := candidate{storage.Candidate{ID: n.ID, Hostname: n.Hostname}, &n.MachineParts}
		if c.meets(constraints) {
			ids = append(ids, n.ID)
		}
	}
	return storage.NodeFilter{IDs: ids}, nil
}

// AllocatedMachines lists the caller's own Allocated machines.
func (s *Service) AllocatedMachines(ctx context.Context, systemIDs []string) ([]*storage.Bundle, error) {
	a, err := needUser(ctx)
	if err != nil {
		return nil, err
	}
	var out []*storage.Bundle
	err = s.DB.Read(ctx, func(tx *storage.Tx) (err error) {
		out, err = tx.LoadMachines(storage.NodeFilter{Types: []int64{storage.NodeMachine}, Statuses: []storage.NodeStatus{storage.StatusAllocated},
			OwnerIDs: []int64{a.User.ID}, SystemIDs: systemIDs})
		return err
	})
	return out, err
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
