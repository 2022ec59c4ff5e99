package provisioner

import (
	"slices"
	"strconv"
	"strings"

	"github.com/ingot-metal/ingot/storage"
)

// constraint is one understood condition: it can tell of a machine why it does not meet it, narrow the query, and say what it would have to
// be for a machine to meet it.
type constraint struct {
	name   string
	values []string      // as understood, for the text of a refusal
	parts  storage.Parts // what it looks at besides the machine's own fields; 0: the query alone decides
	narrow func(f *storage.NodeFilter)
	fails  func(c *storage.CandidateFacts) string // empty: met
	// relax are the values with which a machine that does not meet the constraint would; nil: none, the constraint must go.
	relax func(c *storage.CandidateFacts) []string
	// closer tells which of two machines misses less; nil: both alike.
	closer func(a, b *storage.CandidateFacts) bool

	storage storageWant
	nics    []*nicLabel
}

// maxConstraint bounds the text of one constraint.
const maxConstraint = 64 << 10

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
		size := 0
		for _, v := range pair.Values {
			size += len(v)
		}
		if size > maxConstraint {
			p.fields.add(pair.Name, "Ensure this value has at most "+strconv.Itoa(maxConstraint)+" characters (it has "+strconv.Itoa(size)+").")
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

// wantedParts is what the constraints together look at.
func wantedParts(constraints []constraint) (want storage.Parts) {
	for _, k := range constraints {
		want |= k.parts
	}
	return want
}

type constraintParser struct {
	tx      *storage.Tx
	s       *Service
	fields  fieldErrors
	out     []constraint
	cat     *storage.Catalogue
	allNICs []*storage.MachineWithParts
}

// add notes a constraint. The pointer is good until the next one is added.
func (p *constraintParser) add(name string, values []string, narrow func(f *storage.NodeFilter), fails func(c *storage.CandidateFacts) string) *constraint {
	p.out = append(p.out, constraint{name: name, values: values, narrow: narrow, fails: fails, relax: func(*storage.CandidateFacts) []string { return nil }})
	return &p.out[len(p.out)-1]
}

// catalogue has the networks alone.
func (p *constraintParser) catalogue() (*storage.Catalogue, error) {
	var err error
	if p.cat == nil {
		p.cat, err = p.tx.LoadNetworks()
	}
	return p.cat, err
}

var constraintParsers map[string]func(p *constraintParser, name string, values []string) error

func init() { // the parsers refer to the map through parseConstraints
	constraintParsers = map[string]func(p *constraintParser, name string, values []string) error{
		"name":                  (*constraintParser).hostname,
		"system_id":             (*constraintParser).systemID,
		"arch":                  (*constraintParser).arch,
		"not_arch":              (*constraintParser).notArch,
		"cpu_count":             (*constraintParser).atLeast,
		"cpu_speed":             (*constraintParser).atLeast,
		"mem":                   (*constraintParser).atLeast,
		"link_speed":            (*constraintParser).atLeast,
		"tags":                  (*constraintParser).tags,
		"not_tags":              (*constraintParser).notTags,
		"zone":                  (*constraintParser).zone,
		"not_in_zone":           (*constraintParser).zone,
		"pool":                  (*constraintParser).pool,
		"not_in_pool":           (*constraintParser).pool,
		"subnets":               (*constraintParser).subnets,
		"not_subnets":           (*constraintParser).subnets,
		"vlans":                 (*constraintParser).vlans,
		"not_vlans":             (*constraintParser).vlans,
		"fabrics":               (*constraintParser).fabrics,
		"not_fabrics":           (*constraintParser).fabrics,
		"fabric_classes":        (*constraintParser).fabrics,
		"not_fabric_classes":    (*constraintParser).fabrics,
		"power_state":           (*constraintParser).powerState,
		"not_power_state":       (*constraintParser).powerState,
		"owner":                 (*constraintParser).owner,
		"not_owner":             (*constraintParser).owner,
		"deployment_target":     (*constraintParser).target,
		"not_deployment_target": (*constraintParser).target,
		"storage":               (*constraintParser).storage,
		"interfaces":            (*constraintParser).interfaces,
		"devices":               (*constraintParser).devices,
		"pod":                   (*constraintParser).pods,
		"not_pod":               (*constraintParser).pods,
		"pod_type":              (*constraintParser).pods,
		"not_pod_type":          (*constraintParser).pods,
	}
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

// without are the values that are not among those to leave out.
func without(values []string, out ...string) []string {
	return slices.DeleteFunc(slices.Clone(values), func(v string) bool { return slices.Contains(out, v) })
}

func itoa(n int64) string { return strconv.FormatInt(n, 10) }

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

func nameOf(all []storage.NameID, id int64) string {
	for _, n := range all {
		if n.ID == id {
			return n.Name
		}
	}
	return "unknown"
}

func orNone(s string) string {
	if s == "" {
		return "unknown"
	}
	return s
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
