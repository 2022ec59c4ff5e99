package provisioner

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/ingot-metal/ingot/storage"
)

// Explanation is why an allocate found no machine, among those that the caller sees.
type Explanation struct {
	Machines    int // that the caller sees
	Available   int // of these, what the caller could have without constraints
	Constraints []Left
	Relax       []Relaxation
	Nearest     []Miss
}

// Left tells what a constraint left of the available machines.
type Left struct {
	Constraint string
	Values     []string // as understood
	Left       int      // after this constraint and all before it
	Alone      int      // had it been the only one
}

// Relaxation is one constraint which alone stands between the caller and a machine.
type Relaxation struct {
	Constraint string
	Values     []string // that would do for one machine; none: leave the constraint out
	Machines   int      // how many machines miss nothing but this
	SystemID   string   // the machine that these values give
	Hostname   string
}

// Miss is a machine that missed little, and what.
type Miss struct {
	SystemID string
	Hostname string
	Reasons  []string
}

const maxMisses = 10

// mayTake tells why a machine is not to be had at all.
func mayTake(a Actor) func(c *storage.CandidateFacts) string {
	return func(c *storage.CandidateFacts) string {
		switch {
		case c.Status != storage.StatusReady && c.OwnerID != nil && *c.OwnerID != a.User.ID:
			return "it is in use by somebody else"
		case c.Status != storage.StatusReady:
			return fmt.Sprintf("it is %s, not Ready", c.Status)
		case c.Locked:
			return "it is locked"
		case c.OwnerID != nil:
			return "it has an owner"
		case !a.canPool(rightDeploy, c.PoolID):
			return "you may not deploy machines of its pool"
		}
		return ""
	}
}

func (s *Service) explain(tx *storage.Tx, a Actor, constraints []constraint) (*Explanation, error) {
	f := storage.NodeFilter{Types: []int64{storage.NodeMachine}, Seen: a.sees()}
	facts, err := tx.Facts(f, wantedParts(constraints))
	if err != nil {
		return nil, err
	}
	return explain(facts, constraints, mayTake(a)), nil
}

// explain judges every machine by every constraint. It is pure; the machines come in the order of their cost.
func explain(machines []storage.CandidateFacts, constraints []constraint, mayTake func(c *storage.CandidateFacts) string) *Explanation {
	x := &Explanation{Machines: len(machines), Constraints: make([]Left, len(constraints)), Relax: []Relaxation{}, Nearest: []Miss{}}
	for i, k := range constraints {
		x.Constraints[i] = Left{Constraint: k.name, Values: k.values}
	}
	only := make([][]*storage.CandidateFacts, len(constraints)) // the machines that miss nothing but this one
	type miss struct {
		c      *storage.CandidateFacts
		missed int
	}
	var misses []miss
	for i := range machines {
		c := &machines[i]
		missed, last := 0, 0
		free := mayTake(c) == ""
		for j, k := range constraints {
			switch {
			case k.fails(c) != "":
				missed, last = missed+1, j
			case free:
				x.Constraints[j].Alone++
			}
			if free && missed == 0 {
				x.Constraints[j].Left++
			}
		}
		if free {
			x.Available++
			if missed == 1 {
				only[last] = append(only[last], c)
			}
		} else {
			missed++
		}
		if missed > 0 {
			misses = append(misses, miss{c, missed})
		}
	}
	for j, list := range only {
		if len(list) == 0 {
			continue
		}
		k := constraints[j]
		best := list[0]
		if k.closer != nil {
			for _, c := range list[1:] {
				if k.closer(c, best) {
					best = c
				}
			}
		}
		x.Relax = append(x.Relax, Relaxation{k.name, k.relax(best), len(list), best.SystemID, best.Hostname})
	}
	slices.SortStableFunc(misses, func(a, b miss) int { return cmp.Compare(a.missed, b.missed) })
	for _, m := range misses[:min(len(misses), maxMisses)] {
		r := Miss{SystemID: m.c.SystemID, Hostname: m.c.Hostname}
		if why := mayTake(m.c); why != "" {
			r.Reasons = append(r.Reasons, why)
		}
		for _, k := range constraints {
			if why := k.fails(m.c); why != "" {
				r.Reasons = append(r.Reasons, why)
			}
		}
		x.Nearest = append(x.Nearest, r)
	}
	return x
}
