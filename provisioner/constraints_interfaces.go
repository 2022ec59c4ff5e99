package provisioner

import (
	"fmt"
	"slices"
	"strings"

	"github.com/ingot-metal/ingot/storage"
)

// labelText is one label of the interfaces constraint as it was written: label:key=value,...
type labelText struct {
	label string
	text  string
	pairs [][2]string
}

// parseLabels reads the grammar of the interfaces constraint. problem says what is wrong.
func parseLabels(text string) (labels []labelText, problem string) {
	malformed := `Malformed interfaces constraint, "` + text + `".`
	for _, part := range strings.Split(text, ";") {
		label, rest, ok := strings.Cut(strings.TrimSpace(part), ":")
		if !ok || !validLabel(label) {
			return nil, malformed
		}
		if slices.ContainsFunc(labels, func(l labelText) bool { return l.label == label }) {
			return nil, `Duplicate label "` + label + `" in the interfaces constraint.`
		}
		l := labelText{label: label, text: strings.TrimSpace(part)}
		if l.pairs, ok = parsePairs(rest); !ok {
			return nil, malformed
		}
		labels = append(labels, l)
	}
	return labels, ""
}

// parsePairs reads key=value,...
func parsePairs(text string) ([][2]string, bool) {
	var out [][2]string
	for _, pair := range strings.Split(text, ",") {
		key, value, ok := strings.Cut(pair, "=")
		if key, value = strings.TrimSpace(key), strings.TrimSpace(value); !ok || key == "" || value == "" {
			return nil, false
		}
		out = append(out, [2]string{key, value})
	}
	return out, true
}

func validLabel(s string) bool {
	for i := range len(s) {
		if !alphanumeric(s[i]) && (i == 0 || s[i] != '-' && s[i] != '_') {
			return false
		}
	}
	return s != ""
}

// withoutNot are the keys that have no opposite.
var withoutNot = []string{"mode", "type", "link_speed"}

// nicLabel is a label of the interfaces constraint: at least one interface must meet all of its conditions.
type nicLabel struct {
	name, text string
	match      func(host string, i *storage.PartNIC) bool
	narrow     storage.NICCondition
}

// ids are the interfaces that meet the label.
func (l *nicLabel) ids(host string, m *storage.MachineParts) []int64 {
	var out []int64
	for j := range m.NICs {
		if l.match(host, &m.NICs[j]) {
			out = append(out, m.NICs[j].ID)
		}
	}
	return out
}

func (l *nicLabel) met(host string, m *storage.MachineParts) bool {
	return slices.ContainsFunc(m.NICs, func(i storage.PartNIC) bool { return l.match(host, &i) })
}

// label gives a label its meaning: the values of one key are alternatives, the keys must all hold.
func (r *resolver) label(t labelText) (*nicLabel, error) {
	type group struct {
		key   string
		not   bool
		terms []nicTerm
	}
	var groups []*group
	for _, kv := range t.pairs {
		key, not := strings.CutPrefix(kv[0], "not_")
		if !slices.Contains(nicKeys, key) || not && slices.Contains(withoutNot, key) {
			return nil, fieldErr(r.field, "Unknown interfaces constraint: '"+kv[0])
		}
		term, err := r.nicKey(key, kv[1])
		if err != nil {
			return nil, err
		}
		i := slices.IndexFunc(groups, func(g *group) bool { return g.key == key && g.not == not })
		if i < 0 {
			i = len(groups)
			groups = append(groups, &group{key: key, not: not})
		}
		groups[i].terms = append(groups[i].terms, term)
	}
	l := &nicLabel{name: t.label, text: t.text}
	for _, g := range groups {
		if g.not {
			continue
		}
		var vlans, subnets []int64
		for _, term := range g.terms {
			vlans, subnets = append(vlans, term.vlans...), append(subnets, term.subnets...)
		}
		switch {
		case g.terms[0].vlans != nil:
			l.narrow.VLANs = intersect(l.narrow.VLANs, append([]int64{}, vlans...))
		case g.terms[0].subnets != nil:
			l.narrow.Subnets = append(l.narrow.Subnets, append([]int64{}, subnets...))
		}
	}
	l.match = func(host string, i *storage.PartNIC) bool {
		for _, g := range groups {
			if slices.ContainsFunc(g.terms, func(t nicTerm) bool { return t.match(host, i) }) == g.not {
				return false
			}
		}
		return true
	}
	return l, nil
}

func (p *constraintParser) interfaces(name string, values []string) error {
	text := values[len(values)-1]
	if len(strings.TrimSpace(text)) <= 1 {
		return nil // as MAAS has it
	}
	parsed, problem := parseLabels(text)
	if problem != "" {
		p.fields.add(name, problem)
		return nil
	}
	r, err := p.resolver(name)
	if err != nil {
		return err
	}
	var labels []*nicLabel
	for _, t := range parsed {
		l, err := r.label(t)
		if err != nil {
			return p.specError(err)
		}
		labels = append(labels, l)
	}
	unmet := func(c *storage.CandidateFacts) (out []*nicLabel) {
		for _, l := range labels {
			if !l.met(c.Hostname, &c.MachineParts) {
				out = append(out, l)
			}
		}
		return out
	}
	k := p.add(name, []string{text}, func(f *storage.NodeFilter) {
		for _, l := range labels[:min(len(labels), 8)] {
			f.NICs = append(f.NICs, l.narrow)
		}
	}, func(c *storage.CandidateFacts) string {
		if u := unmet(c); len(u) > 0 {
			return fmt.Sprintf("it has no interface for %s", u[0].text)
		}
		return ""
	})
	k.parts, k.nics = storage.NICParts, labels
	k.closer = func(a, b *storage.CandidateFacts) bool { return len(unmet(a)) < len(unmet(b)) }
	k.relax = func(c *storage.CandidateFacts) []string {
		var met []string
		for _, l := range labels {
			if l.met(c.Hostname, &c.MachineParts) {
				met = append(met, l.text)
			}
		}
		if len(met) == 0 {
			return nil
		}
		return []string{strings.Join(met, ";")}
	}
	return nil
}
