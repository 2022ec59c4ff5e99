package cli

import (
	"fmt"
	"slices"
	"strings"
	"unicode"

	"github.com/ingot-metal/ingot/api"
)

// noun is a command such as machines, with its operations.
type noun struct {
	name    string
	aliases []string
	doc     string
	hidden  bool
	verbs   []verb
}

// verb is an operation's command below its noun.
type verb struct {
	name    string
	aliases []string
	op      *api.Operation
}

// moved are operations whose own noun is a command of the server already, or says less than another.
var moved = map[string][2]string{
	"version.read":                {"maas", "version"},
	"ingot_changes.read":          {"maas", "changes"},
	"ingot_machine_timeline.read": {"machine", "timeline"},
}

// nounOf is the command of a handler, by the rule of MAAS's command line: a run of capitals with the small letters after it is a
// word, the word "handler" goes away.
func nounOf(handler string) string {
	var words []string
	rest := []rune(strings.TrimSuffix(handler, "Handler"))
	for len(rest) > 0 {
		i := 0
		for i < len(rest) && unicode.IsUpper(rest[i]) {
			i++
		}
		for i < len(rest) && !unicode.IsUpper(rest[i]) {
			i++
		}
		words = append(words, strings.ToLower(string(rest[:i])))
		rest = rest[i:]
	}
	return strings.Join(words, "-")
}

func dashes(s string) string { return strings.ReplaceAll(s, "_", "-") }

// verbOf names an operation: op of the wire, or create, read, list, update and delete. The names that MAAS's command line and
// the operation's id have beside that are aliases.
func verbOf(op *api.Operation) verb {
	_, short, _ := strings.Cut(op.ID, ".")
	v := verb{op: op, name: dashes(op.Action())}
	if op.Op == "" && (short == "list" || op.Handler.Prefix != "/MAAS/api/2.0") { // Ingot's own have their verb in the id alone
		v.name = dashes(short)
	}
	for _, alias := range []string{dashes(op.Action()), dashes(short)} {
		if alias != v.name && !slices.Contains(v.aliases, alias) {
			v.aliases = append(v.aliases, alias)
		}
	}
	return v
}

// nouns makes the commands of the operation table. A name that is taken is a fault of moved, and a test finds it.
func nouns(taken map[string]bool) []*noun {
	byName := map[string]*noun{}
	var all []*noun
	get := func(name, doc string, hidden bool) *noun {
		n := byName[name]
		if n == nil {
			if taken[name] {
				panic(fmt.Sprintf("cli: the command %s exists already: move its operations", name))
			}
			n = &noun{name: name, doc: doc, hidden: true}
			byName[name] = n
			all = append(all, n)
		}
		n.hidden = n.hidden && hidden
		return n
	}
	for _, h := range api.Handlers {
		for _, op := range h.Ops {
			v := verbOf(op)
			if m, ok := moved[op.ID]; ok {
				v.name, v.aliases = m[1], nil
				n := get(m[0], h.Doc, true)
				n.verbs = append(n.verbs, v)
				continue
			}
			n := get(nounOf(h.Name), h.Doc, h.Hidden || op.Gone != "")
			if own, _, _ := strings.Cut(op.ID, "."); dashes(own) != n.name && !slices.Contains(n.aliases, dashes(own)) {
				n.aliases = append(n.aliases, dashes(own))
			}
			n.verbs = append(n.verbs, v)
		}
	}
	for _, n := range all {
		n.aliases = slices.DeleteFunc(n.aliases, func(s string) bool { return taken[s] || byName[s] != nil })
		names := map[string]bool{}
		for _, v := range n.verbs {
			names[v.name] = true
		}
		for i, v := range n.verbs {
			n.verbs[i].aliases = slices.DeleteFunc(v.aliases, func(s string) bool { return names[s] })
		}
		slices.SortFunc(n.verbs, func(a, b verb) int { return strings.Compare(a.name, b.name) })
	}
	slices.SortFunc(all, func(a, b *noun) int { return strings.Compare(a.name, b.name) })
	return all
}

// short tells a noun's commands in one line.
func (n *noun) short() string {
	order := func(v verb) int {
		if i := slices.Index([]string{"list", "read", "create", "update", "delete"}, v.name); i >= 0 {
			return i
		}
		return 9
	}
	verbs := slices.Clone(n.verbs)
	slices.SortStableFunc(verbs, func(a, b verb) int { return order(a) - order(b) })
	s := ""
	old := !slices.ContainsFunc(verbs, func(v verb) bool { return !v.op.Deprecated })
	if old {
		s = "deprecated"
	}
	for _, v := range verbs {
		if v.op.Deprecated && !old || v.op.AnonOnly {
			continue
		}
		if len(s)+len(v.name) > 60 {
			return s + ", …"
		}
		if s != "" {
			s += ", "
		}
		s += v.name
	}
	return s
}
