package provisioner

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/ingot-metal/ingot/storage"
)

// storageItem is one item of the storage constraint: [label:]size[(tag,...)].
type storageItem struct {
	label     string
	size      int64 // bytes
	tags      []string
	partition bool // the tag partition: a partition, not a device
}

func (i storageItem) String() string {
	var b strings.Builder
	if i.label != "" {
		b.WriteString(i.label + ":")
	}
	// Whole megabytes, rounded down: what is asked for is there.
	b.WriteString(strings.TrimSuffix(strings.TrimRight(fmt.Sprintf("%d.%03d", i.size/1e9, i.size/1e6%1000), "0"), "."))
	tags := i.tags
	if i.partition {
		tags = append([]string{"partition"}, tags...)
	}
	if len(tags) > 0 {
		b.WriteString("(" + strings.Join(tags, ",") + ")")
	}
	return b.String()
}

// storageWant is the storage constraint: the first item is the root, the others follow by the number of their tags, most first.
type storageWant []storageItem

func (w storageWant) String() string {
	parts := make([]string, len(w))
	for i, item := range w {
		parts[i] = item.String()
	}
	return strings.Join(parts, ",")
}

func alphanumeric(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}

// parseStorage reads the grammar. It says false where MAAS says malformed.
func parseStorage(text string) (storageWant, bool) {
	var out storageWant
	for {
		var item storageItem
		n := 0
		for n < len(text) && alphanumeric(text[n]) {
			n++
		}
		if n > 0 && n < len(text) && text[n] == ':' {
			item.label, text = text[:n], text[n+1:]
		}
		n = 0
		for n < len(text) && (text[n] >= '0' && text[n] <= '9' || text[n] == '.') {
			n++
		}
		gb, err := strconv.ParseFloat(text[:n], 64)
		if err != nil || gb > 9e9 {
			return nil, false
		}
		item.size, text = int64(gb*1e9), text[n:]
		if strings.HasPrefix(text, "(") {
			end := strings.IndexByte(text, ')')
			if end < 2 {
				return nil, false
			}
			item.tags, text = strings.Split(text[1:end], ","), text[end+1:]
			if i := slices.Index(item.tags, "partition"); i >= 0 {
				item.partition, item.tags = true, slices.Delete(item.tags, i, i+1)
			}
		}
		out = append(out, item)
		if text == "" {
			break
		}
		if text[0] != ',' {
			return nil, false
		}
		text = text[1:]
	}
	slices.SortStableFunc(out[1:], func(a, b storageItem) int { return cmp.Compare(b.tagCount(), a.tagCount()) })
	return out, true
}

func (i storageItem) tagCount() int {
	if i.partition {
		return len(i.tags) + 1
	}
	return len(i.tags)
}

// place is a device or partition that an item may get.
type place struct {
	id        int64
	size      int64
	tags      []string
	partition bool
}

func (p place) key() any {
	if p.partition {
		return fmt.Sprintf("partition:%d", p.id)
	}
	return p.id
}

func (i storageItem) fits(p place) bool {
	return i.partition == p.partition && p.size >= i.size && hasAll(p.tags, i.tags)
}

// roots are the places that carry the root file system, unused those without any use. Smallest first.
func places(m *storage.MachineParts) (roots, unused []place) {
	for _, d := range m.Disks {
		disk := place{id: d.ID, size: d.Size, tags: d.Tags}
		root := d.Root
		for _, p := range d.Partitions {
			part := place{id: p.ID, size: p.Size, tags: p.Tags, partition: true}
			if p.Root {
				root = true
				roots = append(roots, part)
			}
			if !p.Filesystem {
				unused = append(unused, part)
			}
		}
		if root {
			roots = append(roots, disk)
		}
		if !d.Filesystem && !d.Table {
			unused = append(unused, disk)
		}
	}
	bySize := func(a, b place) int { return cmp.Or(cmp.Compare(a.size, b.size), cmp.Compare(a.id, b.id)) }
	slices.SortStableFunc(roots, bySize)
	slices.SortStableFunc(unused, bySize)
	return roots, unused
}

// match gives each item a place of its own; nil stands for an item that got none. Each takes the smallest place that fits. Where an
// earlier item took what only a later one could use, the earlier one moves to another.
func (w storageWant) match(m *storage.MachineParts) []*place {
	roots, unused := places(m)
	got := make([]*place, len(w))
	for i := range roots {
		if w[0].fits(roots[i]) {
			got[0] = &roots[i]
			break
		}
	}
	holder := make([]int, len(unused)) // the item that has a place; 0: none
	var settle func(item int, tried []bool) bool
	settle = func(item int, tried []bool) bool {
		for p := range unused {
			if holder[p] == 0 && w[item].fits(unused[p]) {
				holder[p] = item
				return true
			}
		}
		for p := range unused {
			if !tried[p] && w[item].fits(unused[p]) {
				tried[p] = true
				if settle(holder[p], tried) {
					holder[p] = item
					return true
				}
			}
		}
		return false
	}
	for item := 1; item < len(w); item++ {
		if item > len(unused) && !slices.Contains(holder, 0) {
			break // everything is taken
		}
		settle(item, make([]bool, len(unused)))
	}
	for p, item := range holder {
		if item > 0 {
			got[item] = &unused[p]
		}
	}
	return got
}

func matched(got []*place) bool { return !slices.Contains(got, nil) }

// fails says which item a machine has nothing for.
func (w storageWant) fails(m *storage.MachineParts) string {
	got := w.match(m)
	i := slices.Index(got, nil)
	if i < 0 {
		return ""
	}
	what := "unused disk"
	if w[i].partition {
		what = "unused partition"
	}
	if i == 0 {
		roots, _ := places(m)
		at := slices.IndexFunc(roots, func(p place) bool { return p.partition == w[0].partition })
		if at < 0 {
			return "it has no root file system for " + w[0].String()
		}
		return fmt.Sprintf("its root of %s does not meet %s", placeText(roots[at]), w[0])
	}
	return "it has no " + what + " left for " + w[i].String()
}

// placeText describes a place as an item would.
func placeText(p place) string {
	return storageItem{size: p.size, tags: p.tags, partition: p.partition}.String()
}

// relaxed is the constraint made so much weaker that a machine meets it; nil when it has no root that the first item could mean.
func (w storageWant) relaxed(m *storage.MachineParts) storageWant {
	out := slices.Clone(w)
	roots, unused := places(m)
	at := slices.IndexFunc(roots, func(p place) bool { return p.partition == w[0].partition })
	if at < 0 {
		return nil
	}
	if !w[0].fits(roots[at]) {
		out[0] = w[0].weakened(roots[at])
	}
	got := w.match(m)
	used := func(p place) bool {
		return slices.ContainsFunc(got[1:], func(g *place) bool { return g != nil && g.key() == p.key() })
	}
	for i := 1; i < len(w); i++ {
		if got[i] != nil {
			continue
		}
		// What is left: the largest that has the tags, else the largest.
		var best *place
		for j := range unused {
			p := &unused[j]
			if p.partition != w[i].partition || used(*p) {
				continue
			}
			if best == nil || hasAll(p.tags, w[i].tags) || !hasAll(best.tags, w[i].tags) {
				best = p
			}
		}
		got[i] = best
		if best != nil {
			out[i] = w[i].weakened(*best)
		}
	}
	left := out[:1]
	for i := 1; i < len(w); i++ {
		if got[i] != nil {
			left = append(left, out[i])
		}
	}
	return left
}

// weakened is an item that a place fits.
func (i storageItem) weakened(p place) storageItem {
	i.size = min(i.size, p.size/1e6*1e6)
	i.tags = slices.DeleteFunc(slices.Clone(i.tags), func(t string) bool { return !slices.Contains(p.tags, t) })
	return i
}

// labels are the devices by label, as constraints_by_type shows them.
func (w storageWant) labels(m *storage.MachineParts) map[string][]any {
	out := map[string][]any{}
	for i, p := range w.match(m) {
		if p != nil && w[i].label != "" {
			out[w[i].label] = append(out[w[i].label], p.key())
		}
	}
	return out
}

// narrowing asks the query for what each item needs at the least. A few items say nearly all that many would.
func (w storageWant) narrowing() []storage.DiskCondition {
	var out []storage.DiskCondition
	for i, item := range w[:min(len(w), 4)] {
		out = append(out, storage.DiskCondition{Partition: item.partition, Unused: i > 0, Size: item.size, Tags: item.tags[:min(len(item.tags), 4)]})
	}
	return out
}

func (p *constraintParser) storage(name string, values []string) error {
	text := values[len(values)-1]
	want, ok := parseStorage(text)
	if !ok {
		p.fields.add(name, `Malformed storage constraint, "`+text+`".`)
		return nil
	}
	k := p.add(name, []string{text}, func(f *storage.NodeFilter) { f.Disks = append(f.Disks, want.narrowing()...) },
		func(c *storage.CandidateFacts) string { return want.fails(&c.MachineParts) })
	k.parts, k.storage = storage.DiskParts, want
	k.closer = func(a, b *storage.CandidateFacts) bool {
		return want.missing(&a.MachineParts) < want.missing(&b.MachineParts)
	}
	k.relax = func(c *storage.CandidateFacts) []string {
		if weaker := want.relaxed(&c.MachineParts); weaker != nil && matched(weaker.match(&c.MachineParts)) {
			return []string{weaker.String()}
		}
		return nil
	}
	return nil
}

// missing is how many items a machine has nothing for; the root weighs most.
func (w storageWant) missing(m *storage.MachineParts) int {
	n := 0
	for i, p := range w.match(m) {
		if p == nil {
			n++
			if i == 0 {
				n += len(w)
			}
		}
	}
	return n
}
