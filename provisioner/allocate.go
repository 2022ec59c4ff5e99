package provisioner

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/ingot-metal/ingot/storage"
)

// Pair is a request parameter with its values, in the order given. The text of a refusal repeats them.
type Pair struct {
	Name   string
	Values []string
}

// AllocateRequest asks for a machine.
type AllocateRequest struct {
	Constraints []Pair // everything but the options below
	AgentName   string
	Comment     string
	Bridges     BridgeAll
	DryRun      bool
	Verbose     bool
	Explain     bool // a refusal is to come with an Explanation
}

// NoMatchError is the refusal of an allocate: MAAS's text, and the explanation when it was asked for.
type NoMatchError struct {
	Refused     *Error
	Explanation *Explanation
}

func (e *NoMatchError) Error() string { return e.Refused.Text }

func (e *NoMatchError) Unwrap() error { return e.Refused }

// Allocation is the answer of an allocate.
type Allocation struct {
	Machine *storage.Bundle
	Matches Matches

	id int64 // of the machine, while Machine is nil
}

// Matches tells which parts of the machine met the labels of the storage and interfaces constraints. A nil map was not asked for.
type Matches struct {
	Storage    map[string][]any // label to block device ids, or "partition:<id>"
	Interfaces map[string][]int64
	// Of every machine that the constraints fit, by node id: device to label, and by label the interfaces.
	VerboseStorage    map[string]map[string]string
	VerboseInterfaces map[string]map[string][]int64
}

// candidate is a free machine that may meet the constraints, with the parts that they look at.
type candidate struct {
	storage.Candidate
	parts *storage.MachineParts
}

// meets tells whether a free machine that the query let through meets what the query cannot judge.
func (c *candidate) meets(constraints []constraint) bool {
	if c.parts == nil {
		return true
	}
	facts := storage.CandidateFacts{Candidate: c.Candidate, MachineParts: *c.parts}
	for _, k := range constraints {
		if k.parts != 0 && k.fails(&facts) != "" {
			return false
		}
	}
	return true
}

// matches is what a candidate answers to the labels.
func (c *candidate) matches(constraints []constraint) (m Matches) {
	for _, k := range constraints {
		switch {
		case k.storage != nil:
			if labels := k.storage.labels(c.parts); len(labels) > 0 {
				m.Storage = labels
			}
		case k.nics != nil:
			m.Interfaces = map[string][]int64{}
			for _, l := range k.nics {
				m.Interfaces[l.name] = l.ids(c.Hostname, c.parts)
			}
		}
	}
	return m
}

const (
	// searchTries is how often a search is made outside of the write. The last one is made inside, where nobody is faster.
	searchTries     = 3
	firstSearchPage = 4
	maxSearchPage   = 512
	// maxVerbose bounds how many machines the verbose form tells of.
	maxVerbose = 100000
)

// search finds up to want free machines that meet the constraints, the cheapest first, without those to skip. It looks at pages of
// candidates that grow, and asks accept, if there is one, before it counts one as found. The second answer tells whether it left out any that may be free.
func (s *Service) search(tx *storage.Tx, constraints []constraint, want int, skip, accept func(id int64) bool) (found []*candidate, skipped bool, err error) {
	return s.searchFrom(tx, constraints, nil, want, skip, accept)
}

// searchFrom is search from a trail on.
func (s *Service) searchFrom(tx *storage.Tx, constraints []constraint, t *trail, want int, skip, accept func(id int64) bool) (found []*candidate, skipped bool, err error) {
	f := filterOf(constraints)
	t.begin(&f)
	f.Seen = ActorFrom(tx.Context()).mayAcquire()
	parts := wantedParts(constraints)
	page := firstSearchPage
	for over := s.claims.count(); page < min(firstSearchPage+over, maxSearchPage); { // as many of the cheapest are passed over
		page *= 2 // few sizes are few statements to prepare
	}
	for ; ; page = min(page*4, maxSearchPage) {
		list, err := tx.Candidates(f, page)
		if err != nil {
			return nil, false, err
		}
		var free []storage.Candidate
		for _, c := range list {
			if skip(c.ID) {
				skipped = true
				t.fits(c)
			} else {
				free = append(free, c)
			}
		}
		for chunk := min(len(free), want*firstSearchPage); len(free) > 0; chunk = min(len(free), chunk*4) {
			loaded, err := partsOf(tx, free[:chunk], parts)
			if err != nil {
				return nil, false, err
			}
			for _, c := range free[:chunk] {
				x := &candidate{c, loaded[c.ID]}
				if !x.meets(constraints) {
					continue
				}
				t.fits(c)
				if accept != nil && !accept(c.ID) {
					skipped = true
					continue
				}
				if found = append(found, x); len(found) == want {
					return found, skipped, nil
				}
			}
			free = free[chunk:]
		}
		if len(list) < page {
			return found, skipped, nil
		}
		last := list[len(list)-1]
		f.AfterCost, f.AfterCostID = last.Cost(), last.ID
	}
}

// partsOf loads what constraints look at; nil when they look at nothing.
func partsOf(tx *storage.Tx, list []storage.Candidate, want storage.Parts) (map[int64]*storage.MachineParts, error) {
	if want == 0 {
		return nil, nil
	}
	ids := make([]int64, len(list))
	for i, c := range list {
		ids[i] = c.ID
	}
	return tx.Parts(ids, want)
}

// claims are the machines that calls of this process are about to take: each goes for one of its own. They only save work; the write decides.
type claims struct {
	window int // how many of the cheapest free machines the first write looks at; 0: cheapWindow

	mu   sync.Mutex          // guards all below
	ends map[int64]time.Time // when the claim ended; zero: it has not
	open int                 // those that have not

	trails map[string]mark
}

// held says whether somebody has a claim, or had one after a search began that may not see what became of it.
func (c *claims) held(id int64, began time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	end, ok := c.ends[id]
	return ok && (end.IsZero() || !end.Before(began))
}

// claim takes a machine unless somebody has a claim on it.
func (c *claims) claim(id int64, began time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if end, ok := c.ends[id]; ok && (end.IsZero() || !end.Before(began)) {
		return false
	}
	if c.ends == nil {
		c.ends = map[int64]time.Time{}
	}
	c.ends[id] = time.Time{}
	c.open++
	return true
}

// count is how many machines calls are about to take.
func (c *claims) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.open
}

// claimMemory is longer than any search.
const claimMemory = time.Minute

func (c *claims) end(id int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	c.ends[id] = now
	c.open--
	if len(c.ends)%1024 == 0 {
		maps.DeleteFunc(c.ends, func(_ int64, end time.Time) bool { return !end.IsZero() && now.Sub(end) > claimMemory })
	}
}

// Allocate gives the caller the cheapest free machine that meets the constraints.
//
// On SQLite most calls are content with one of the cheapest free machines: a write looks at a few of those and takes the first that fits.
// When none does, a search outside of the write goes through all of them, so that others can write meanwhile, and a write looks at what it
// found again. On PostgreSQL, where each question takes a message and all regions wait for a write, the search always comes first.
func (s *Service) Allocate(ctx context.Context, req AllocateRequest) (*Allocation, error) {
	if _, err := needUser(ctx); err != nil {
		return nil, err
	}
	var (
		constraints []constraint
		out         *Allocation
		verbose     Matches
		first       *hunt
	)
	began, t := time.Now(), s.trail(ctx, req.Constraints)
	err := s.DB.Read(ctx, func(tx *storage.Tx) (err error) {
		if constraints, err = s.parseConstraints(tx, req.Constraints); err != nil {
			return err
		}
		if !req.DryRun && !req.Verbose {
			if tx.Postgres() {
				first, err = s.hunt(tx, constraints, t, began)
			}
			return err
		}
		want := 1
		if req.Verbose {
			want = maxVerbose
		}
		found, _, err := s.search(tx, constraints, want, func(int64) bool { return false }, nil)
		if err != nil {
			return err
		}
		if len(found) == 0 {
			return s.noMatch(tx, req, constraints)
		}
		if req.Verbose {
			verbose = verboseMatches(constraints, found)
		}
		if req.DryRun {
			out = &Allocation{Matches: found[0].matches(constraints), id: found[0].ID}
			err = out.load(tx)
		}
		return err
	})
	if err != nil {
		s.drop(first)
		return nil, err
	}
	if out == nil {
		if out, err = s.takeOne(ctx, constraints, req, t, first); err != nil {
			return nil, err
		}
	}
	if out != nil && out.Machine == nil {
		if err := s.DB.Read(ctx, out.load); err != nil {
			return nil, err
		}
	}
	if out == nil {
		return nil, s.DB.Read(ctx, func(tx *storage.Tx) error {
			constraints, err := s.parseConstraints(tx, req.Constraints) // by the catalogue of now
			if err != nil {
				return err
			}
			return s.noMatch(tx, req, constraints)
		})
	}
	out.Matches.VerboseStorage, out.Matches.VerboseInterfaces = verbose.VerboseStorage, verbose.VerboseInterfaces
	return out, nil
}

// hunt is what a search for one machine came to: the id of one on which it made a claim, or 0; none at all fits when nothing was skipped.
type hunt struct {
	id      int64
	skipped bool
}

// drop gives up the claim of a hunt whose transaction failed after it.
func (s *Service) drop(h *hunt) {
	if h != nil && h.id != 0 {
		s.claims.end(h.id)
	}
}

// hunt looks for a machine that nobody has a claim on, and claims it. began is before what the transaction sees.
func (s *Service) hunt(tx *storage.Tx, constraints []constraint, t *trail, began time.Time) (*hunt, error) {
	look := func() ([]*candidate, bool, error) {
		return s.searchFrom(tx, constraints, t, 1, func(id int64) bool { return s.claims.held(id, began) },
			func(id int64) bool { return s.claims.claim(id, began) })
	}
	found, skipped, err := look()
	if err == nil && len(found) == 0 && t.partial() {
		t.from = nil
		found, skipped, err = look()
	}
	s.leave(t)
	h := &hunt{skipped: skipped}
	if len(found) > 0 {
		h.id = found[0].ID
	}
	return h, err
}

// cheapWindow bounds what a write does before it leaves the search to readers.
const cheapWindow = 256

// takeOne takes the cheapest machine that meets the constraints; nil when there is none. first is a search that was made already.
func (s *Service) takeOne(ctx context.Context, constraints []constraint, req AllocateRequest, t *trail, first *hunt) (*Allocation, error) {
	write := func(fn func(tx *storage.Tx) (*Allocation, error)) (out *Allocation, err error) {
		err = s.write(storage.OnlyTakes(ctx), func(tx *storage.Tx) (err error) {
			out, err = fn(tx)
			return err
		})
		return out, err
	}
	if first == nil {
		all := false
		out, err := write(func(tx *storage.Tx) (_ *Allocation, err error) {
			f := filterOf(constraints)
			t.begin(&f)
			if f.Until, err = tx.CheapFree(f, cmp.Or(s.claims.window, cheapWindow)); err != nil {
				return nil, err
			}
			all = f.Until == nil && !t.partial()
			return s.take(ctx, tx, f, constraints, t, req)
		})
		if err != nil || out != nil || all {
			if err == nil {
				s.leave(t)
			}
			return out, err
		}
	}
	for range searchTries {
		if first == nil {
			began := time.Now()
			if err := s.DB.Read(ctx, func(tx *storage.Tx) (err error) {
				first, err = s.hunt(tx, constraints, t, began)
				return err
			}); err != nil {
				s.drop(first)
				return nil, err
			}
		}
		if first.id == 0 && !first.skipped {
			return nil, nil
		}
		if first.id == 0 {
			break // others are after the same ones: wait in the queue of writers
		}
		out, err := write(func(tx *storage.Tx) (*Allocation, error) { return s.takeThis(ctx, tx, first.id, constraints, req) })
		s.claims.end(first.id)
		if err != nil || out != nil {
			return out, err
		}
		first = nil
	}
	return write(func(tx *storage.Tx) (*Allocation, error) {
		return s.take(ctx, tx, filterOf(constraints), constraints, nil, req)
	})
}

// load reads the machine of an answer.
func (a *Allocation) load(tx *storage.Tx) error {
	b, err := tx.LoadMachines(storage.NodeFilter{IDs: []int64{a.id}})
	if err != nil {
		return err
	}
	if len(b) != 1 {
		return storage.ErrStale
	}
	a.Machine = b[0]
	return nil
}

// verboseMatches tells of every candidate what met the labels.
func verboseMatches(constraints []constraint, found []*candidate) Matches {
	m := Matches{VerboseStorage: map[string]map[string]string{}, VerboseInterfaces: map[string]map[string][]int64{}}
	for _, c := range found {
		its, node := c.matches(constraints), itoa(c.ID)
		for label, devices := range its.Storage {
			if m.VerboseStorage[node] == nil {
				m.VerboseStorage[node] = map[string]string{}
			}
			for _, d := range devices {
				m.VerboseStorage[node][fmt.Sprint(d)] = label
			}
		}
		for label, ids := range its.Interfaces {
			if m.VerboseInterfaces[label] == nil {
				m.VerboseInterfaces[label] = map[string][]int64{}
			}
			m.VerboseInterfaces[label][node] = ids
		}
	}
	return m
}

func filterOf(constraints []constraint) storage.NodeFilter {
	f := storage.NodeFilter{Free: true}
	for _, k := range constraints {
		k.narrow(&f)
	}
	return f
}

// take acquires the first machine of a filter that meets the constraints and that nobody else takes before us; nil when there is none. The
// guarded update decides: whoever finds zero rows goes on with the next candidate. On SQLite there is one writer and the first try wins; on
// PostgreSQL several regions may meet here.
func (s *Service) take(ctx context.Context, tx *storage.Tx, f storage.NodeFilter, constraints []constraint, t *trail, req AllocateRequest) (*Allocation, error) {
	f.Seen = ActorFrom(ctx).mayAcquire()
	page := 1
	parts := wantedParts(constraints)
	if parts != 0 || tx.Postgres() {
		page = firstSearchPage
	}
	for ; ; page = min(page*4, maxSearchPage) {
		list, err := tx.Candidates(f, page)
		if err != nil || len(list) == 0 {
			return nil, err
		}
		loaded, err := partsOf(tx, list, parts)
		if err != nil {
			return nil, err
		}
		for _, c := range list {
			x := &candidate{Candidate: c}
			if parts != 0 {
				if x.parts = loaded[c.ID]; !x.meets(constraints) {
					continue
				}
			}
			t.fits(c)
			n, err := tx.LockNode(c.ID)
			if errors.Is(err, storage.ErrNotFound) {
				continue
			}
			if err != nil {
				return nil, err
			}
			if out, err := s.takeCandidate(ctx, tx, x, &n, constraints, req); err != nil || out != nil {
				return out, err
			}
		}
		if len(list) < page {
			return nil, nil
		}
		last := list[len(list)-1]
		f.AfterCost, f.AfterCostID = last.Cost(), last.ID
	}
}

// takeThis acquires one machine if it is free and meets the constraints; nil otherwise.
func (s *Service) takeThis(ctx context.Context, tx *storage.Tx, id int64, constraints []constraint, req AllocateRequest) (*Allocation, error) {
	f := filterOf(constraints)
	if f.IDs != nil && !slices.Contains(f.IDs, id) {
		return nil, nil
	}
	f.Seen = ActorFrom(ctx).mayAcquire()
	h, err := tx.HoldCandidate(f, id, wantedParts(constraints))
	if err != nil || h == nil {
		return nil, err
	}
	x := &candidate{h.Candidate, h.Parts}
	if !x.meets(constraints) {
		return nil, nil
	}
	return s.takeCandidate(ctx, tx, x, &h.Node, constraints, req)
}

// takeCandidate acquires a machine that was locked; nil when it is not free.
func (s *Service) takeCandidate(ctx context.Context, tx *storage.Tx, x *candidate, n *storage.Node, constraints []constraint, req AllocateRequest) (*Allocation, error) {
	if n.Status != storage.StatusReady || n.OwnerID != nil || n.Locked {
		return nil, nil
	}
	taken := &Allocation{Matches: x.matches(constraints), id: n.ID} // before bridges take the links of interfaces
	err := s.acquire(ctx, tx, n, req.AgentName, req.Comment, req.Bridges)
	if errors.Is(err, storage.ErrStale) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if tx.Postgres() {
		return taken, nil // all regions wait for this write: the answer is read after it
	}
	return taken, taken.load(tx)
}

// acquire makes a Ready machine the caller's.
func (s *Service) acquire(ctx context.Context, tx *storage.Tx, n *storage.Node, agentName, comment string, bridges BridgeAll) error {
	a := ActorFrom(ctx)
	if err := s.transition(tx, n, storage.StatusAllocated, transitionOpts{change: func(n *storage.Node) {
		n.OwnerID, n.AgentName = a.ID(), agentName
	}}); err != nil {
		return err
	}
	if err := s.userEvent(tx, n, evReqAcquire, comment); err != nil {
		return err
	}
	return s.bridgeInterfaces(tx, n, bridges)
}

// noMatch is the 409 of an allocate, with MAAS's three texts.
func (s *Service) noMatch(tx *storage.Tx, req AllocateRequest, constraints []constraint) error {
	e := &NoMatchError{Refused: &Error{Kind: Conflict}}
	var system *Pair
	for i, p := range req.Constraints {
		if p.Name == "system_id" {
			system = &req.Constraints[i]
		}
	}
	switch {
	case len(req.Constraints) == 0:
		e.Refused.Text = "No machine available."
	case system != nil:
		e.Refused.Text = fmt.Sprintf("No machine with system ID %s available.", strings.Join(system.Values, ", "))
	default:
		e.Refused.Text = fmt.Sprintf(`No available machine matches constraints: %s (resolved to "%s")`, pythonPairs(req.Constraints), resolved(constraints))
	}
	if req.Explain {
		x, err := s.explain(tx, ActorFrom(tx.Context()), constraints)
		if err != nil {
			return err
		}
		e.Explanation = x
	}
	return e
}

// resolved is "k=v1,v2 k2=v" by key.
func resolved(constraints []constraint) string {
	var parts []string
	for _, k := range constraints {
		parts = append(parts, k.name+"="+strings.Join(k.values, ","))
	}
	slices.Sort(parts)
	return strings.Join(parts, " ")
}

// pythonPairs writes the request's parameters as Python prints a list of pairs: clients show it, and some compare it.
func pythonPairs(pairs []Pair) string {
	var b strings.Builder
	b.WriteByte('[')
	for i, p := range pairs {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString("(" + pythonString(p.Name) + ", [")
		for j, v := range p.Values {
			if j > 0 {
				b.WriteString(", ")
			}
			b.WriteString(pythonString(v))
		}
		b.WriteString("])")
	}
	b.WriteByte(']')
	return b.String()
}

// pythonString is Python's repr of a string: single quotes unless it holds one and no double quote.
func pythonString(s string) string {
	quote := byte('\'')
	if strings.Contains(s, "'") && !strings.Contains(s, `"`) {
		quote = '"'
	}
	b := []byte{quote}
	for _, r := range s {
		switch {
		case r == rune(quote) || r == '\\':
			b = append(b, '\\', byte(r))
		case r == '\n':
			b = append(b, `\n`...)
		case r == '\r':
			b = append(b, `\r`...)
		case r == '\t':
			b = append(b, `\t`...)
		case r < 0x20 || r == 0x7f:
			b = fmt.Appendf(b, `\x%02x`, r)
		case strconv.IsPrint(r):
			b = append(b, string(r)...)
		case r <= 0xff:
			b = fmt.Appendf(b, `\x%02x`, r)
		case r <= 0xffff:
			b = fmt.Appendf(b, `\u%04x`, r)
		default:
			b = fmt.Appendf(b, `\U%08x`, r)
		}
	}
	return string(append(b, quote))
}
