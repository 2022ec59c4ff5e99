package provisioner

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

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
	DryRun      bool
	Verbose     bool
	Explain     bool // on a refusal say of each machine why
}

// Refusal is why a machine was not taken.
type Refusal struct {
	SystemID string   `json:"system_id"`
	Hostname string   `json:"hostname"`
	Reasons  []string `json:"reasons"`
}

// NoMatchError is the refusal of an allocate: MAAS's text, and the explanation when it was asked for.
type NoMatchError struct {
	Refused  *Error
	Refusals []Refusal
}

func (e *NoMatchError) Error() string { return e.Refused.Text }

func (e *NoMatchError) Unwrap() error { return e.Refused }

// Allocation is the answer of an allocate.
type Allocation struct {
	Machine *storage.Bundle
	// ByType is constraints_by_type: always there, empty without labelled storage or interfaces.
	ByType map[string]any
}

// constraint is one understood condition: it can tell of a machine why it does not meet it, and narrow the query.
type constraint struct {
	name   string
	values []string // as understood, for the text of a refusal
	narrow func(f *storage.NodeFilter)
	fails  func(c *storage.CandidateFacts) string // empty: met
}

// pick tells which machines meet all constraints, the cheapest first, and of each other one why not. It is pure; the candidates come
// in the order of their cost.
func pick(candidates []storage.CandidateFacts, constraints []constraint, mayTake func(c *storage.CandidateFacts) string) (fit []storage.CandidateFacts, refused []Refusal) {
	for i := range candidates {
		c := &candidates[i]
		var reasons []string
		if why := mayTake(c); why != "" {
			reasons = append(reasons, why)
		}
		for _, k := range constraints {
			if why := k.fails(c); why != "" {
				reasons = append(reasons, why)
			}
		}
		if len(reasons) == 0 {
			fit = append(fit, *c)
			continue
		}
		refused = append(refused, Refusal{SystemID: c.SystemID, Hostname: c.Hostname, Reasons: reasons})
	}
	return fit, refused
}

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
		}
		return ""
	}
}

// Allocate gives the caller the cheapest free machine that meets the constraints.
func (s *Service) Allocate(ctx context.Context, req AllocateRequest) (*Allocation, error) {
	a, err := needUser(ctx)
	if err != nil {
		return nil, err
	}
	var out *Allocation
	work := func(tx *storage.Tx) error {
		constraints, err := s.parseConstraints(tx, req.Constraints)
		if err != nil {
			return err
		}
		var id int64
		if req.DryRun {
			id, err = firstFit(tx, constraints)
		} else {
			id, err = s.take(ctx, tx, constraints, req)
		}
		if err != nil {
			return err
		}
		if id == 0 {
			return s.noMatch(tx, a, req, constraints)
		}
		b, err := tx.LoadMachines(storage.NodeFilter{IDs: []int64{id}})
		if err != nil {
			return err
		}
		if len(b) != 1 {
			return storage.ErrStale
		}
		out = &Allocation{Machine: b[0], ByType: map[string]any{}}
		return nil
	}
	if req.DryRun {
		err = s.DB.Read(ctx, work)
	} else {
		err = s.write(ctx, work)
	}
	return out, err
}

func firstFit(tx *storage.Tx, constraints []constraint) (int64, error) {
	c, err := tx.Candidates(filterOf(constraints), 1)
	if err != nil || len(c) == 0 {
		return 0, err
	}
	return c[0].ID, nil
}

func filterOf(constraints []constraint) storage.NodeFilter {
	f := storage.NodeFilter{Free: true}
	for _, k := range constraints {
		k.narrow(&f)
	}
	return f
}

// take acquires the first candidate that nobody else takes before us. The guarded update decides: whoever finds zero rows goes on with
// the next candidate. On SQLite there is one writer and the first try wins; on PostgreSQL several regions may meet here.
func (s *Service) take(ctx context.Context, tx *storage.Tx, constraints []constraint, req AllocateRequest) (int64, error) {
	f := filterOf(constraints)
	page := 1
	if tx.Postgres() {
		page = 32
	}
	for {
		candidates, err := tx.Candidates(f, page)
		if err != nil || len(candidates) == 0 {
			return 0, err
		}
		for _, c := range candidates {
			n, err := tx.LockNode(c.ID)
			if errors.Is(err, storage.ErrNotFound) {
				continue
			}
			if err != nil {
				return 0, err
			}
			if n.Status != storage.StatusReady || n.OwnerID != nil || n.Locked {
				continue
			}
			err = s.acquire(ctx, tx, &n, req.AgentName, req.Comment)
			if errors.Is(err, storage.ErrStale) {
				continue
			}
			return n.ID, err
		}
		last := candidates[len(candidates)-1]
		f.AfterCost, f.AfterCostID = last.Cost(), last.ID
	}
}

// acquire makes a Ready machine the caller's.
func (s *Service) acquire(ctx context.Context, tx *storage.Tx, n *storage.Node, agentName, comment string) error {
	a := ActorFrom(ctx)
	if err := s.transition(tx, n, storage.StatusAllocated, transitionOpts{change: func(n *storage.Node) {
		n.OwnerID, n.AgentName = a.ID(), agentName
	}}); err != nil {
		return err
	}
	return s.userEvent(tx, n, evReqAcquire, comment)
}

// noMatch is the 409 of an allocate, with MAAS's three texts.
func (s *Service) noMatch(tx *storage.Tx, a Actor, req AllocateRequest, constraints []constraint) error {
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
	if !req.Explain {
		return e
	}
	f := storage.NodeFilter{Types: []int64{storage.NodeMachine}}
	if !a.Admin {
		f.VisibleTo = &a.User.ID
	}
	facts, err := tx.Facts(f)
	if err != nil {
		return err
	}
	_, e.Refusals = pick(facts, constraints, mayTake(a))
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

// parseConstraints understands the request's parameters. An unknown one is refused, as are values that name nothing that exists. The
// errors of all fields come together.
func (s *Service) parseConstraints(tx *storage.Tx, pairs []Pair) ([]constraint, error) {
	p := &constraintParser{tx: tx, s: s, fields: fieldErrors{}}
	for _, pair := range pairs {
		parse, ok := constraintParsers[pair.Name]
		if !ok {
			p.fields.add(pair.Name, "No such constraint.")
			continue
		}
		values := slices.DeleteFunc(slices.Clone(pair.Values), func(v string) bool { return v == "" })
		if len(values) == 0 {
			continue
		}
		if err := parse(p, pair.Name, values); err != nil {
			return nil, err
		}
	}
	return p.out, p.fields.err()
}

type constraintParser struct {
	tx     *storage.Tx
	s      *Service
	fields fieldErrors
	out    []constraint
	cat    *storage.Catalogue
}

func (p *constraintParser) add(name string, values []string, narrow func(f *storage.NodeFilter), fails func(c *storage.CandidateFacts) string) error {
	p.out = append(p.out, constraint{name, values, narrow, fails})
	return nil
}

func (p *constraintParser) catalogue() (*storage.Catalogue, error) {
	var err error
	if p.cat == nil {
		p.cat, err = p.tx.LoadCatalogue()
	}
	return p.cat, err
}

var constraintParsers map[string]func(p *constraintParser, name string, values []string) error

func init() { // the parsers refer to the map through parseConstraints
	constraintParsers = map[string]func(p *constraintParser, name string, values []string) error{
		"name":               (*constraintParser).hostname,
		"system_id":          (*constraintParser).systemID,
		"arch":               (*constraintParser).arch,
		"not_arch":           (*constraintParser).notArch,
		"cpu_count":          (*constraintParser).atLeast,
		"cpu_speed":          (*constraintParser).atLeast,
		"mem":                (*constraintParser).atLeast,
		"link_speed":         (*constraintParser).atLeast,
		"tags":               (*constraintParser).tags,
		"not_tags":           (*constraintParser).notTags,
		"zone":               (*constraintParser).zone,
		"not_in_zone":        (*constraintParser).zone,
		"pool":               (*constraintParser).pool,
		"not_in_pool":        (*constraintParser).pool,
		"subnets":            (*constraintParser).subnets,
		"not_subnets":        (*constraintParser).subnets,
		"vlans":              (*constraintParser).vlans,
		"not_vlans":          (*constraintParser).vlans,
		"fabrics":            (*constraintParser).fabrics,
		"not_fabrics":        (*constraintParser).fabrics,
		"fabric_classes":     (*constraintParser).fabrics,
		"not_fabric_classes": (*constraintParser).fabrics,
		"power_state":        (*constraintParser).powerState,
		"not_power_state":    (*constraintParser).powerState,
		"storage":            (*constraintParser).unbuilt,
		"interfaces":         (*constraintParser).unbuilt,
		"devices":            (*constraintParser).unbuilt,
	}
}

// unbuilt refuses a constraint that is known but not there yet: to ignore it would hand out a machine that was not asked for.
func (p *constraintParser) unbuilt(name string, _ []string) error {
	return Errorf(Unbuilt, "The constraint %s is not built yet.", name)
}

func (p *constraintParser) hostname(name string, values []string) error {
	for _, v := range values {
		host, domain, dotted := strings.Cut(v, ".")
		id := int64(-1)
		if dotted {
			d, err := p.tx.DomainByName(domain)
			if err != nil && !errors.Is(err, storage.ErrNotFound) {
				return err
			}
			if err == nil {
				id = d.ID
			}
		}
		_ = p.add(name, []string{v}, func(f *storage.NodeFilter) {
			f.Hostnames = intersect(f.Hostnames, []string{host})
			if dotted {
				f.DomainIDs = intersect(f.DomainIDs, []int64{id})
			}
		}, func(c *storage.CandidateFacts) string {
			if c.Hostname != host || dotted && c.DomainID != id {
				return "its name is not " + v
			}
			return ""
		})
	}
	// Two names are two constraints, of which the text knows one.
	if len(values) > 1 {
		first := &p.out[len(p.out)-len(values)]
		first.values = values
		for i := len(p.out) - len(values) + 1; i < len(p.out); i++ {
			k := p.out[i]
			narrow, fails := first.narrow, first.fails
			first.narrow = func(f *storage.NodeFilter) { narrow(f); k.narrow(f) }
			first.fails = func(c *storage.CandidateFacts) string {
				if why := fails(c); why != "" {
					return why
				}
				return k.fails(c)
			}
		}
		p.out = p.out[:len(p.out)-len(values)+1]
	}
	return nil
}

// intersect narrows a set of alternatives; nil is everything.
func intersect[T comparable](have, with []T) []T {
	if have == nil {
		return with
	}
	out := []T{}
	for _, v := range have {
		if slices.Contains(with, v) {
			out = append(out, v)
		}
	}
	return out
}

func (p *constraintParser) systemID(name string, values []string) error {
	return p.add(name, values, func(f *storage.NodeFilter) { f.SystemIDs = intersect(f.SystemIDs, values) },
		func(c *storage.CandidateFacts) string {
			if !slices.Contains(values, c.SystemID) {
				return "its system_id is not " + strings.Join(values, " or ")
			}
			return ""
		})
}

func (p *constraintParser) arch(name string, values []string) error {
	usable, err := p.tx.UsableArchitectures()
	if err != nil {
		return err
	}
	set := []string{}
	for _, v := range values {
		found := slices.Contains(usable, v)
		if found {
			set = append(set, v)
		}
		family := v
		if v == "arm" {
			family = "armhf"
		}
		for _, u := range usable {
			if strings.HasPrefix(u, family+"/") {
				found, set = true, append(set, u)
			}
		}
		if !found && slices.Contains(knownArchitectures, strings.SplitN(family, "/", 2)[0]) {
			found = true
		}
		if !found {
			p.fields.add(name, "Architecture not recognised.")
		}
	}
	slices.Sort(set)
	set = slices.Compact(set)
	return p.add(name, set, func(f *storage.NodeFilter) { f.Architectures = intersect(f.Architectures, set) },
		func(c *storage.CandidateFacts) string {
			if !slices.Contains(set, c.Architecture) {
				return fmt.Sprintf("its architecture is %s, not %s", orNone(c.Architecture), strings.Join(values, " or "))
			}
			return ""
		})
}

func (p *constraintParser) notArch(name string, values []string) error {
	return p.add(name, values, func(f *storage.NodeFilter) { f.NotArchitectures = append(f.NotArchitectures, values...) },
		func(c *storage.CandidateFacts) string {
			if slices.Contains(values, c.Architecture) {
				return "its architecture is " + c.Architecture
			}
			return ""
		})
}

func orNone(s string) string {
	if s == "" {
		return "unknown"
	}
	return s
}

// atLeast takes the smallest of the values, as MAAS does.
func (p *constraintParser) atLeast(name string, values []string) error {
	texts := map[string]string{"cpu_count": "Invalid CPU count: number required.", "mem": "Invalid memory: number of MiB required.",
		"cpu_speed": "Invalid CPU speed: number required.", "link_speed": "Invalid link speed: number required."}
	low := -1.0
	for _, v := range values {
		x, err := strconv.ParseFloat(strings.TrimSpace(v), 64)
		if err != nil || x != x || x > 1e15 || x < -1e15 {
			p.fields.add(name, texts[name])
			return nil
		}
		if low < 0 || x < low {
			low = max(x, 0)
		}
	}
	text := strconv.FormatFloat(low, 'f', -1, 64)
	if !strings.Contains(text, ".") {
		text += ".0" // as Python prints a float
	}
	return p.add(name, []string{text}, func(f *storage.NodeFilter) {
		field := map[string]*float64{"cpu_count": &f.MinCPU, "mem": &f.MinMem, "cpu_speed": &f.MinSpeed, "link_speed": &f.MinLink}[name]
		*field = max(*field, low)
	}, func(c *storage.CandidateFacts) string {
		have := map[string]int64{"cpu_count": c.CPUCount, "mem": c.Memory, "cpu_speed": c.CPUSpeed, "link_speed": c.MaxLink}[name]
		if float64(have) >= low {
			return ""
		}
		what := map[string]string{"cpu_count": "%d CPU, of %s", "mem": "%d MiB of memory, of %s", "cpu_speed": "%d MHz, of %s", "link_speed": "%d Mbit/s at most, of %s"}[name]
		return fmt.Sprintf("it has "+what+" asked for", have, strings.TrimSuffix(text, ".0"))
	})
}

// names looks values up in a list of names. What is not there goes to unknown.
func names(all []storage.NameID, values []string) (ids []int64, unknown []string) {
	ids = []int64{}
	for _, v := range values {
		i := slices.IndexFunc(all, func(n storage.NameID) bool { return n.Name == v })
		if i < 0 {
			unknown = append(unknown, v)
		} else if !slices.Contains(ids, all[i].ID) {
			ids = append(ids, all[i].ID)
		}
	}
	return ids, unknown
}

func splitTags(values []string) []string {
	var out []string
	for _, v := range values {
		for _, t := range strings.FieldsFunc(v, func(r rune) bool { return r == ',' || r == ' ' || r == '\t' || r == '\n' }) {
			if !slices.Contains(out, t) {
				out = append(out, t)
			}
		}
	}
	return out
}

func (p *constraintParser) tags(name string, values []string) error {
	all, err := p.tx.TagNames()
	if err != nil {
		return err
	}
	want := splitTags(values)
	ids, unknown := names(all, want)
	if len(unknown) > 0 {
		slices.Sort(unknown)
		p.fields.add(name, fmt.Sprintf("No such tag(s): '%s'.", strings.Join(unknown, "', '")))
		return nil
	}
	slices.Sort(want)
	return p.add(name, want, func(f *storage.NodeFilter) { f.AllTags = append(f.AllTags, ids...) }, func(c *storage.CandidateFacts) string {
		var missing []string
		for _, n := range all {
			if slices.Contains(ids, n.ID) && !slices.Contains(c.TagIDs, n.ID) {
				missing = append(missing, n.Name)
			}
		}
		if len(missing) > 0 {
			return "it lacks the tag " + strings.Join(missing, ", ")
		}
		return ""
	})
}

func (p *constraintParser) notTags(name string, values []string) error {
	all, err := p.tx.TagNames()
	if err != nil {
		return err
	}
	ids, _ := names(all, values)
	return p.add(name, values, func(f *storage.NodeFilter) { f.NotTags = append(f.NotTags, ids...) }, func(c *storage.CandidateFacts) string {
		for _, n := range all {
			if slices.Contains(ids, n.ID) && slices.Contains(c.TagIDs, n.ID) {
				return "it has the tag " + n.Name
			}
		}
		return ""
	})
}

func (p *constraintParser) zone(name string, values []string) error {
	all, err := p.tx.ZoneNames()
	if err != nil {
		return err
	}
	ids, unknown := names(all, values)
	if len(unknown) > 0 {
		p.fields.add(name, fmt.Sprintf("No such zone(s): %s.", strings.Join(unknown, ", ")))
		return nil
	}
	not := name == "not_in_zone"
	return p.add(name, values, func(f *storage.NodeFilter) {
		if not {
			f.NotZoneIDs = append(f.NotZoneIDs, ids...)
		} else {
			f.ZoneIDs = intersect(f.ZoneIDs, ids)
		}
	}, func(c *storage.CandidateFacts) string {
		if slices.Contains(ids, c.ZoneID) == not {
			return "its zone is " + nameOf(all, c.ZoneID)
		}
		return ""
	})
}

func (p *constraintParser) pool(name string, values []string) error {
	all, err := p.tx.PoolNames()
	if err != nil {
		return err
	}
	ids, unknown := names(all, values)
	if len(unknown) > 0 {
		p.fields.add(name, fmt.Sprintf("No such pool(s): %s.", strings.Join(unknown, ", ")))
		return nil
	}
	not := name == "not_in_pool"
	return p.add(name, values, func(f *storage.NodeFilter) {
		if not {
			f.NotPoolIDs = append(f.NotPoolIDs, ids...)
		} else {
			f.PoolIDs = intersect(f.PoolIDs, ids)
		}
	}, func(c *storage.CandidateFacts) string {
		if c.PoolID == nil || slices.Contains(ids, *c.PoolID) == not {
			if c.PoolID == nil {
				return "it is in no pool"
			}
			return "its pool is " + nameOf(all, *c.PoolID)
		}
		return ""
	})
}

func nameOf(all []storage.NameID, id int64) string {
	for _, n := range all {
		if n.ID == id {
			return n.Name
		}
	}
	return "unknown"
}

func (p *constraintParser) powerState(name string, values []string) error {
	for _, v := range values {
		if !slices.Contains([]string{"on", "off", "unknown", "error"}, v) {
			p.fields.add(name, fmt.Sprintf("Select a valid choice. %s is not one of the available choices.", v))
			return nil
		}
	}
	not := name == "not_power_state"
	return p.add(name, values, func(f *storage.NodeFilter) {
		if not {
			f.NotPowerStates = append(f.NotPowerStates, values...)
		} else {
			f.PowerStates = intersect(f.PowerStates, values)
		}
	}, func(c *storage.CandidateFacts) string {
		if slices.Contains(values, c.PowerState) == not {
			return "its power is " + c.PowerState
		}
		return ""
	})
}

func (p *constraintParser) subnets(name string, values []string) error {
	cat, err := p.catalogue()
	if err != nil {
		return err
	}
	ids := []int64{}
	for _, v := range values {
		found, err := matchSubnets(cat, v)
		if err != nil {
			return err
		}
		for _, id := range found {
			if !slices.Contains(ids, id) {
				ids = append(ids, id)
			}
		}
	}
	if len(ids) == 0 {
		p.fields.add(name, "No matching subnets found.")
		return nil
	}
	slices.Sort(ids)
	not := name == "not_subnets"
	return p.add(name, idTexts(ids), func(f *storage.NodeFilter) {
		if not {
			f.NotSubnets = append(f.NotSubnets, ids...)
		} else {
			f.AllSubnets = append(f.AllSubnets, ids...)
		}
	}, func(c *storage.CandidateFacts) string {
		for _, id := range ids {
			if slices.Contains(c.Links, id) == not {
				if not {
					return "it is linked to the subnet " + cat.Subnets[id].CIDR
				}
				return "it is not linked to the subnet " + cat.Subnets[id].CIDR
			}
		}
		return ""
	})
}

func idTexts(ids []int64) []string {
	out := make([]string, len(ids))
	for i, id := range ids {
		out[i] = strconv.FormatInt(id, 10)
	}
	return out
}

// matchSubnets finds the subnets of a specifier: [type:]value, with the types of MAAS that need no other object's specifier.
func matchSubnets(cat *storage.Catalogue, spec string) ([]int64, error) {
	typ, value, typed := strings.Cut(spec, ":")
	if typed && !slices.Contains([]string{"id", "cidr", "name", "ip", "vlan", "vid", "fabric", "space"}, typ) {
		typed = false
	}
	if !typed {
		typ, value = "", spec
	}
	var out []int64
	match := func(fits func(s *storage.Subnet) bool) []int64 {
		for id, s := range cat.Subnets {
			if fits(s) {
				out = append(out, id)
			}
		}
		slices.Sort(out)
		return out
	}
	byID := func(s *storage.Subnet) bool {
		id, err := strconv.ParseInt(strings.TrimPrefix(value, "subnet-"), 10, 64)
		return err == nil && s.ID == id
	}
	byCIDR := func(s *storage.Subnet) bool {
		p, err := netip.ParsePrefix(value)
		return err == nil && s.CIDR == p.Masked().String()
	}
	byName := func(s *storage.Subnet) bool { return s.Name == value }
	switch typ {
	case "id":
		return match(byID), nil
	case "cidr":
		return match(byCIDR), nil
	case "name":
		return match(byName), nil
	case "ip":
		ip, err := netip.ParseAddr(value)
		return match(func(s *storage.Subnet) bool {
			p, perr := netip.ParsePrefix(s.CIDR)
			return err == nil && perr == nil && p.Contains(ip)
		}), nil
	case "vlan", "vid":
		vlans, err := matchVLANs(cat, value, typ == "vid")
		return match(func(s *storage.Subnet) bool { return slices.Contains(vlans, s.VLANID) }), err
	case "fabric":
		fabrics := matchFabrics(cat, value, false)
		return match(func(s *storage.Subnet) bool {
			v := cat.VLANs[s.VLANID]
			return v != nil && slices.Contains(fabrics, v.FabricID)
		}), nil
	case "space":
		space := int64(-1)
		for id, sp := range cat.Spaces {
			if sp.Name == value || strings.TrimPrefix(value, "space-") == strconv.FormatInt(id, 10) {
				space = id
			}
		}
		if space < 0 && value != "undefined" {
			return nil, Errorf(NotFound, "No Space matches the given query.")
		}
		return match(func(s *storage.Subnet) bool {
			v := cat.VLANs[s.VLANID]
			return v != nil && (v.SpaceID == nil && value == "undefined" || v.SpaceID != nil && *v.SpaceID == space)
		}), nil
	}
	for _, fits := range []func(*storage.Subnet) bool{byID, byCIDR, byName} {
		if found := match(fits); len(found) > 0 {
			return found, nil
		}
	}
	return nil, nil
}

func matchVLANs(cat *storage.Catalogue, value string, vidOnly bool) ([]int64, error) {
	var out []int64
	vid, err := strconv.ParseInt(value, 10, 64)
	if value == "untagged" {
		vid, err = 0, nil
	}
	if err == nil && (vid < 0 || vid > 4094) {
		return nil, FieldError("vlans", "VID must be between 0 and 4094.")
	}
	for id, v := range cat.VLANs {
		if err == nil && v.VID == vid || err != nil && !vidOnly && v.Name != nil && *v.Name == value {
			out = append(out, id)
		}
	}
	slices.Sort(out)
	return out, nil
}

func matchFabrics(cat *storage.Catalogue, value string, class bool) []int64 {
	var out []int64
	for id, f := range cat.Fabrics {
		if class && f.ClassType != nil && *f.ClassType == value || !class && (f.Name == value) {
			out = append(out, id)
		}
	}
	slices.Sort(out)
	return out
}

func (p *constraintParser) vlans(name string, values []string) error {
	cat, err := p.catalogue()
	if err != nil {
		return err
	}
	ids := []int64{}
	for _, v := range values {
		typ, rest, typed := strings.Cut(v, ":")
		var found []int64
		switch {
		case typed && typ == "id":
			if id, err := strconv.ParseInt(rest, 10, 64); err == nil && cat.VLANs[id] != nil {
				found = []int64{id}
			}
		case typed && typ == "vid":
			found, err = matchVLANs(cat, rest, true)
		case typed && typ == "name":
			found, err = matchVLANs(cat, rest, false)
		default:
			found, err = matchVLANs(cat, v, false)
		}
		if err != nil {
			return err
		}
		ids = append(ids, found...)
	}
	if len(ids) == 0 {
		p.fields.add(name, "No matching VLANs found.")
		return nil
	}
	not := name == "not_vlans"
	return p.add(name, idTexts(ids), func(f *storage.NodeFilter) {
		if not {
			f.NotVLANIDs = append(f.NotVLANIDs, ids...)
		} else {
			f.VLANIDs = intersect(f.VLANIDs, ids)
		}
	}, onAny(not, ids, "VLAN"))
}

func onAny(not bool, vlans []int64, what string) func(c *storage.CandidateFacts) string {
	return func(c *storage.CandidateFacts) string {
		on := slices.ContainsFunc(c.VLANIDs, func(id int64) bool { return slices.Contains(vlans, id) })
		switch {
		case on && not:
			return "it is on a " + what + " that is excluded"
		case !on && !not:
			return "it is on no " + what + " that was asked for"
		}
		return ""
	}
}

func (p *constraintParser) fabrics(name string, values []string) error {
	cat, err := p.catalogue()
	if err != nil {
		return err
	}
	ids := []int64{}
	for _, v := range values {
		ids = append(ids, matchFabrics(cat, v, strings.HasSuffix(name, "classes"))...)
	}
	var vlans []int64
	for id, v := range cat.VLANs {
		if slices.Contains(ids, v.FabricID) {
			vlans = append(vlans, id)
		}
	}
	not := strings.HasPrefix(name, "not_")
	return p.add(name, values, func(f *storage.NodeFilter) {
		if not {
			f.NotFabricIDs = append(f.NotFabricIDs, ids...)
		} else {
			f.FabricIDs = intersect(f.FabricIDs, ids)
		}
	}, onAny(not, vlans, "fabric"))
}
