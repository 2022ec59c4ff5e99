package provisioner

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/ingot-metal/ingot/storage"
)

// hostname takes host or host.domain. All of several must hold, so that two different ones never do.
func (p *constraintParser) hostname(name string, values []string) error {
	type wanted struct {
		text, host string
		dotted     bool
		domain     int64
	}
	var all []wanted
	for _, v := range values {
		w := wanted{text: v, domain: -1}
		var domain string
		if w.host, domain, w.dotted = strings.Cut(v, "."); w.dotted {
			d, err := p.tx.DomainByName(domain)
			if err != nil && !errors.Is(err, storage.ErrNotFound) {
				return err
			}
			if err == nil {
				w.domain = d.ID
			}
		}
		all = append(all, w)
	}
	k := p.add(name, values, func(f *storage.NodeFilter) {
		for _, w := range all {
			f.Hostnames = intersect(f.Hostnames, []string{w.host})
			if w.dotted {
				f.DomainIDs = intersect(f.DomainIDs, []int64{w.domain})
			}
		}
	}, func(c *storage.CandidateFacts) string {
		for _, w := range all {
			if c.Hostname != w.host || w.dotted && c.DomainID != w.domain {
				return "its name is not " + w.text
			}
		}
		return ""
	})
	k.relax = func(c *storage.CandidateFacts) []string { return []string{c.Hostname} }
	return nil
}

func (p *constraintParser) systemID(name string, values []string) error {
	k := p.add(name, values, func(f *storage.NodeFilter) { f.SystemIDs = intersect(f.SystemIDs, values) },
		func(c *storage.CandidateFacts) string {
			if !slices.Contains(values, c.SystemID) {
				return "its system_id is not " + strings.Join(values, " or ")
			}
			return ""
		})
	k.relax = func(c *storage.CandidateFacts) []string { return []string{c.SystemID} }
	return nil
}

// arch takes arch/subarch, or arch for all of it that there is; arm stands for armhf.
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
	k := p.add(name, set, func(f *storage.NodeFilter) { f.Architectures = intersect(f.Architectures, set) },
		func(c *storage.CandidateFacts) string {
			if !slices.Contains(set, c.Architecture) {
				return fmt.Sprintf("its architecture is %s, not %s", orNone(c.Architecture), strings.Join(values, " or "))
			}
			return ""
		})
	k.relax = func(c *storage.CandidateFacts) []string {
		if c.Architecture == "" {
			return nil
		}
		return []string{c.Architecture}
	}
	return nil
}

func (p *constraintParser) notArch(name string, values []string) error {
	k := p.add(name, values, func(f *storage.NodeFilter) { f.NotArchitectures = append(f.NotArchitectures, values...) },
		func(c *storage.CandidateFacts) string {
			if slices.Contains(values, c.Architecture) {
				return "its architecture is " + c.Architecture
			}
			return ""
		})
	k.relax = func(c *storage.CandidateFacts) []string { return without(values, c.Architecture) }
	return nil
}

// least describes the constraints that want a number or more.
var least = map[string]struct {
	bad, lacks string
	field      func(f *storage.NodeFilter) *float64
	has        func(c *storage.CandidateFacts) int64
}{
	"cpu_count": {"Invalid CPU count: number required.", "%d CPU, of %s",
		func(f *storage.NodeFilter) *float64 { return &f.MinCPU }, func(c *storage.CandidateFacts) int64 { return c.CPUCount }},
	"mem": {"Invalid memory: number of MiB required.", "%d MiB of memory, of %s",
		func(f *storage.NodeFilter) *float64 { return &f.MinMem }, func(c *storage.CandidateFacts) int64 { return c.Memory }},
	"cpu_speed": {"Invalid CPU speed: number required.", "%d MHz, of %s",
		func(f *storage.NodeFilter) *float64 { return &f.MinSpeed }, func(c *storage.CandidateFacts) int64 { return c.CPUSpeed }},
	"link_speed": {"Invalid link speed: number required.", "%d Mbit/s at most, of %s",
		func(f *storage.NodeFilter) *float64 { return &f.MinLink }, func(c *storage.CandidateFacts) int64 { return c.MaxLink }},
}

// atLeast takes the smallest of the values, as MAAS does.
func (p *constraintParser) atLeast(name string, values []string) error {
	what := least[name]
	low := -1.0
	for _, v := range values {
		x, ok := floatValue(v)
		if !ok {
			p.fields.add(name, what.bad)
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
	k := p.add(name, []string{text}, func(f *storage.NodeFilter) {
		field := what.field(f)
		*field = max(*field, low)
	}, func(c *storage.CandidateFacts) string {
		if have := what.has(c); float64(have) < low {
			return fmt.Sprintf("it has "+what.lacks+" asked for", have, strings.TrimSuffix(text, ".0"))
		}
		return ""
	})
	k.relax = func(c *storage.CandidateFacts) []string { return []string{itoa(what.has(c))} }
	k.closer = func(a, b *storage.CandidateFacts) bool { return what.has(a) > what.has(b) }
	return nil
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
	missing := func(c *storage.CandidateFacts) (out []string) {
		for _, n := range all {
			if slices.Contains(ids, n.ID) && !slices.Contains(c.TagIDs, n.ID) {
				out = append(out, n.Name)
			}
		}
		return out
	}
	k := p.add(name, want, func(f *storage.NodeFilter) { f.AllTags = append(f.AllTags, ids...) }, func(c *storage.CandidateFacts) string {
		if m := missing(c); len(m) > 0 {
			return "it lacks the tag " + strings.Join(m, ", ")
		}
		return ""
	})
	k.relax = func(c *storage.CandidateFacts) []string { return without(want, missing(c)...) }
	k.closer = func(a, b *storage.CandidateFacts) bool { return len(missing(a)) < len(missing(b)) }
	return nil
}

// notTags are not split, and one that does not exist is no error.
func (p *constraintParser) notTags(name string, values []string) error {
	all, err := p.tx.TagNames()
	if err != nil {
		return err
	}
	ids, _ := names(all, values)
	found := func(c *storage.CandidateFacts) (out []string) {
		for _, n := range all {
			if slices.Contains(ids, n.ID) && slices.Contains(c.TagIDs, n.ID) {
				out = append(out, n.Name)
			}
		}
		return out
	}
	k := p.add(name, values, func(f *storage.NodeFilter) { f.NotTags = append(f.NotTags, ids...) }, func(c *storage.CandidateFacts) string {
		if has := found(c); len(has) > 0 {
			return "it has the tag " + has[0]
		}
		return ""
	})
	k.relax = func(c *storage.CandidateFacts) []string { return without(values, found(c)...) }
	k.closer = func(a, b *storage.CandidateFacts) bool { return len(found(a)) < len(found(b)) }
	return nil
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
	k := p.add(name, values, func(f *storage.NodeFilter) {
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
	k.relax = func(c *storage.CandidateFacts) []string { return otherwise(not, values, nameOf(all, c.ZoneID)) }
	return nil
}

// otherwise is what a constraint would have to be for a machine that has a value.
func otherwise(not bool, values []string, its string) []string {
	if not {
		return without(values, its)
	}
	return []string{its}
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
	k := p.add(name, values, func(f *storage.NodeFilter) {
		if not {
			f.NotPoolIDs = append(f.NotPoolIDs, ids...)
		} else {
			f.PoolIDs = intersect(f.PoolIDs, ids)
		}
	}, func(c *storage.CandidateFacts) string {
		switch {
		case c.PoolID == nil && !not:
			return "it is in no pool"
		case c.PoolID != nil && slices.Contains(ids, *c.PoolID) == not:
			return "its pool is " + nameOf(all, *c.PoolID)
		}
		return ""
	})
	k.relax = func(c *storage.CandidateFacts) []string {
		if c.PoolID == nil {
			return nil
		}
		return otherwise(not, values, nameOf(all, *c.PoolID))
	}
	return nil
}

func (p *constraintParser) choices(name string, values []string, choices ...string) bool {
	for _, v := range values {
		if !slices.Contains(choices, v) {
			p.fields.add(name, msgChoice(v))
			return false
		}
	}
	return true
}

func (p *constraintParser) powerState(name string, values []string) error {
	if !p.choices(name, values, "on", "off", "unknown", "error") {
		return nil
	}
	not := name == "not_power_state"
	k := p.add(name, values, func(f *storage.NodeFilter) {
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
	k.relax = func(c *storage.CandidateFacts) []string { return otherwise(not, values, c.PowerState) }
	return nil
}

// owner goes by user name; one that is unknown owns nothing.
func (p *constraintParser) owner(name string, values []string) error {
	all, err := p.tx.Usernames()
	if err != nil {
		return err
	}
	ids, _ := names(all, values)
	not := name == "not_owner"
	p.add(name, values, func(f *storage.NodeFilter) {
		if not {
			f.NotOwnerIDs = append(f.NotOwnerIDs, ids...)
		} else {
			f.OwnerIDs = intersect(f.OwnerIDs, ids)
		}
	}, func(c *storage.CandidateFacts) string {
		if owned := c.OwnerID != nil && slices.Contains(ids, *c.OwnerID); owned == not {
			if not {
				return "its owner is excluded"
			}
			return "its owner is not " + strings.Join(values, " or ")
		}
		return ""
	})
	return nil
}

// target tells whether the operating system is on disk or in memory.
func (p *constraintParser) target(name string, values []string) error {
	if !p.choices(name, values, "disk", "memory") {
		return nil
	}
	not := name == "not_deployment_target"
	fits := func(ephemeral bool) bool {
		where := "disk"
		if ephemeral {
			where = "memory"
		}
		return slices.Contains(values, where) != not
	}
	k := p.add(name, values, func(f *storage.NodeFilter) {
		switch disk, memory := fits(false), fits(true); {
		case !disk && !memory:
			f.IDs = []int64{}
		case disk != memory && f.Ephemeral != nil && *f.Ephemeral != memory:
			f.IDs = []int64{}
		case disk != memory:
			f.Ephemeral = &memory
		}
	}, func(c *storage.CandidateFacts) string {
		if !fits(c.Ephemeral) {
			return "its deployment target is another"
		}
		return ""
	})
	k.relax = func(c *storage.CandidateFacts) []string {
		where := "disk"
		if c.Ephemeral {
			where = "memory"
		}
		return otherwise(not, values, where)
	}
	return nil
}
