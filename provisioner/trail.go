package provisioner

import (
	"context"
	"fmt"
	"time"

	"github.com/ingot-metal/ingot/storage"
)

// trail remembers, from one allocate to the next that asks for the same, how far the cheapest machines were looked at in vain: those that
// fit are given out and those that do not are left, so that each search would begin with more of them. It is good as long as this process
// has written nothing that may make a machine fit, and for trailLife, since another region may have. Nobody is refused by a trail: who
// finds nothing behind it looks at all.
type trail struct {
	key     string
	changes int64 // before the search saw anything
	from    *mark // where it begins; nil: at the cheapest
	first   *storage.Candidate
}

// mark is a place in the order of cost: all that may be taken and comes before, or is this one, does not fit.
type mark struct {
	cost, id int64
	changes  int64
	at       time.Time // of the search that began at the cheapest
}

const (
	trailLife = time.Second
	maxTrails = 256
)

// trail finds the one that an earlier call left.
func (s *Service) trail(ctx context.Context, pairs []Pair) *trail {
	t := &trail{key: fmt.Sprintf("%d %q", ActorFrom(ctx).User.ID, pairs), changes: s.DB.Changes()}
	s.claims.mu.Lock()
	defer s.claims.mu.Unlock()
	if m, ok := s.claims.trails[t.key]; ok && m.changes == t.changes && time.Since(m.at) < trailLife {
		t.from = &m
	}
	return t
}

// begin has a filter begin where the trail does.
func (t *trail) begin(f *storage.NodeFilter) {
	if t == nil {
		return
	}
	if t.first = nil; t.from != nil {
		f.AfterCost, f.AfterCostID = t.from.cost, t.from.id
	}
}

// partial says whether the trail leaves out machines.
func (t *trail) partial() bool { return t != nil && t.from != nil }

// fits notes a machine that fits, or that somebody else may be about to take: the trail ends before the first of them.
func (t *trail) fits(c storage.Candidate) {
	if t != nil && (t.first == nil || c.Cost() < t.first.Cost() || c.Cost() == t.first.Cost() && c.ID < t.first.ID) {
		t.first = &c
	}
}

// leave keeps the trail for others.
func (s *Service) leave(t *trail) {
	if t == nil || t.first == nil || t.first.ID < 2 {
		return
	}
	m := mark{t.first.Cost(), t.first.ID - 1, t.changes, time.Now()}
	if t.from != nil {
		m.at = t.from.at
	}
	s.claims.mu.Lock()
	defer s.claims.mu.Unlock()
	if s.claims.trails == nil || len(s.claims.trails) >= maxTrails {
		s.claims.trails = map[string]mark{}
	}
	s.claims.trails[t.key] = m
}
