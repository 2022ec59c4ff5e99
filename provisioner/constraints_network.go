package provisioner

import (
	"slices"
	"strings"

	"github.com/ingot-metal/ingot/storage"
)

// resolver makes a resolver for the specifiers of a field.
func (p *constraintParser) resolver(field string) (*resolver, error) {
	cat, err := p.catalogue()
	return &resolver{cat: cat, field: field, nics: func() ([]*storage.MachineWithParts, error) {
		if p.allNICs == nil {
			all, err := p.tx.NodeParts(storage.NodeFilter{}, storage.NICParts)
			if err != nil {
				return nil, err
			}
			p.allNICs = all
		}
		return p.allNICs, nil
	}}, err
}

// specError keeps the errors of a field together with those of the other fields; what is not about a field ends the call.
func (p *constraintParser) specError(err error) error {
	if e, ok := err.(*Error); ok && e.Kind == Invalid && e.Fields != nil {
		for k, v := range e.Fields {
			for _, text := range v {
				p.fields.add(k, text)
			}
		}
		return nil
	}
	return err
}

func (p *constraintParser) subnets(name string, values []string) error {
	r, err := p.resolver(name)
	if err != nil {
		return err
	}
	ids, err := r.subnets(values)
	if err != nil {
		return p.specError(err)
	}
	if len(ids) == 0 {
		p.fields.add(name, "No matching subnets found.")
		return nil
	}
	not := name == "not_subnets"
	k := p.add(name, idTexts(ids), func(f *storage.NodeFilter) {
		if not {
			f.NotSubnets = append(f.NotSubnets, ids...)
		} else {
			f.AllSubnets = append(f.AllSubnets, ids...)
		}
	}, func(c *storage.CandidateFacts) string {
		for _, id := range ids {
			if slices.Contains(c.Links, id) == not {
				if not {
					return "it is linked to the subnet " + r.cat.Subnets[id].CIDR
				}
				return "it is not linked to the subnet " + r.cat.Subnets[id].CIDR
			}
		}
		return ""
	})
	k.relax = func(c *storage.CandidateFacts) []string {
		var out []string
		for _, id := range ids {
			if slices.Contains(c.Links, id) != not {
				out = append(out, "id:"+itoa(id))
			}
		}
		return out
	}
	return nil
}

func (p *constraintParser) vlans(name string, values []string) error {
	r, err := p.resolver(name)
	if err != nil {
		return err
	}
	ids, err := r.vlans(values)
	if err != nil {
		return p.specError(err)
	}
	if len(ids) == 0 {
		p.fields.add(name, "No matching VLANs found.")
		return nil
	}
	not := name == "not_vlans"
	k := p.add(name, idTexts(ids), func(f *storage.NodeFilter) {
		if not {
			f.NotVLANIDs = append(f.NotVLANIDs, ids...)
		} else {
			f.VLANIDs = intersect(f.VLANIDs, ids)
		}
	}, onAny(not, ids, "VLAN"))
	k.relax = func(c *storage.CandidateFacts) []string {
		var out []string
		if not {
			for _, id := range ids {
				if !slices.Contains(c.VLANIDs, id) {
					out = append(out, "id:"+itoa(id))
				}
			}
		} else if len(c.VLANIDs) > 0 {
			out = append(out, "id:"+itoa(slices.Min(c.VLANIDs)))
		}
		return out
	}
	return nil
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

// fabrics goes by name or class; these are no specifiers, and one that is unknown matches nothing.
func (p *constraintParser) fabrics(name string, values []string) error {
	r, err := p.resolver(name)
	if err != nil {
		return err
	}
	find, text := r.fabricsByName, func(f *storage.Fabric) string { return f.Name }
	if strings.HasSuffix(name, "classes") {
		find, text = r.fabricsByClass, func(f *storage.Fabric) string { return deref(f.ClassType, "") }
	}
	ids := []int64{}
	for _, v := range values {
		ids = append(ids, find(v)...)
	}
	not := strings.HasPrefix(name, "not_")
	k := p.add(name, values, func(f *storage.NodeFilter) {
		if not {
			f.NotFabricIDs = append(f.NotFabricIDs, ids...)
			return
		}
		// Two constraints on fabrics may be met by two interfaces.
		f.NICs = append(f.NICs, storage.NICCondition{VLANs: r.vlansIn(ids)})
	}, onAny(not, r.vlansIn(ids), "fabric"))
	k.relax = func(c *storage.CandidateFacts) []string {
		var its []string
		for _, id := range c.VLANIDs {
			if f := r.cat.Fabrics[r.cat.VLANs[id].FabricID]; text(f) != "" {
				its = append(its, text(f))
			}
		}
		slices.Sort(its)
		if not {
			return slices.DeleteFunc(slices.Clone(values), func(v string) bool { return slices.Contains(its, v) })
		}
		return its[:min(1, len(its))]
	}
	return nil
}

func idTexts(ids []int64) []string {
	out := make([]string, len(ids))
	for i, id := range ids {
		out[i] = itoa(id)
	}
	return out
}
